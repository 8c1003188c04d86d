//! Neighbour entries.

use std::net::IpAddr;

use super::socket::Rtnl;
use crate::base::{MacAddr, Result};
use crate::sys::netns::Place;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neigh {
    pub index: u32,
    pub addr: IpAddr,
    pub mac: Option<MacAddr>,
    /// NUD_* state bits.
    pub state: u16,
}

impl<P: Place> Rtnl<P> {
    pub fn neighs(&mut self) -> Result<Vec<Neigh>> {
        todo!()
    }
}
