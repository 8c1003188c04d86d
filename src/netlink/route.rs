//! Routes, and the one batch that configures a fresh container interface.

use std::net::IpAddr;

use super::link::Ifindex;
use super::socket::Rtnl;
use crate::base::{Cidr, MacAddr, Result};
use crate::sys::netns::Place;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `None`: the default route.
    pub dst: Option<Cidr>,
    pub gateway: Option<IpAddr>,
    /// Output interface index.
    pub oif: Option<u32>,
    pub prefsrc: Option<IpAddr>,
    /// Routing table (254 main).
    pub table: u32,
    /// rtm_scope, rtm_protocol and rtm_type numbers.
    pub scope: u8,
    pub protocol: u8,
    pub kind: u8,
    pub metric: Option<u32>,
}

/// What a fresh interface in a sandbox gets, in one datagram: loopback up,
/// MAC (if not given at creation), address, link up, default route.
#[derive(Clone, Debug, Default)]
pub struct Configure {
    pub loopback_up: bool,
    pub mac: Option<MacAddr>,
    pub addrs: Vec<Cidr>,
    pub up: bool,
    /// Default route through this gateway (proto boot, scope global).
    pub gateway: Option<IpAddr>,
}

impl<P: Place> Rtnl<P> {
    /// One send, all ACKs read; the first refusal is returned, naming the
    /// message it belongs to ("add address …", "set link up", "add route …").
    pub fn configure(&mut self, _index: Ifindex<P>, _what: &Configure) -> Result<()> {
        todo!()
    }
    /// `/32` (or any subnet) on a link, optional preferred source, scope link.
    pub fn add_link_route(
        &mut self,
        _dst: Cidr,
        _index: Ifindex<P>,
        _src: Option<IpAddr>,
    ) -> Result<()> {
        todo!()
    }
    /// Absent is fine.
    pub fn del_link_route(&mut self, _dst: Cidr, _index: Ifindex<P>) -> Result<()> {
        todo!()
    }
    pub fn add_default(&mut self, _gateway: IpAddr, _index: Ifindex<P>) -> Result<()> {
        todo!()
    }
    pub fn del_default(&mut self, _gateway: IpAddr, _index: Ifindex<P>) -> Result<()> {
        todo!()
    }
    /// The main table (both families).
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        todo!()
    }
}
