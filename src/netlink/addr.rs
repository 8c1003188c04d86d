//! Interface addresses.

use super::link::Ifindex;
use super::socket::Rtnl;
use crate::base::{Cidr, Result};
use crate::sys::netns::Place;

/// An address as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    pub cidr: Cidr,
    /// IFA_F_SECONDARY
    pub secondary: bool,
}

impl<P: Place> Rtnl<P> {
    /// IPv4: broadcast computed unless /31 or /32, scope global (host scope
    /// for loopback). IPv6: NODAD.
    pub fn add_addr(&mut self, _index: Ifindex<P>, _cidr: Cidr) -> Result<()> {
        todo!()
    }
    /// Absent is fine.
    pub fn del_addr(&mut self, _index: Ifindex<P>, _cidr: Cidr) -> Result<()> {
        todo!()
    }
    /// All addresses, or those of one link (strict dump filter).
    pub fn addrs(&mut self, _index: Option<Ifindex<P>>) -> Result<Vec<Address>> {
        todo!()
    }
}
