//! Host access: a host-side macvlan ("shim") so that the host and the
//! containers of a network can talk, at the cost of no LAN address.

use std::net::Ipv4Addr;

use crate::base::{Cidr, IfName, Journal, NetworkId, Result};
use crate::netlink::Rtnl;
use crate::sys::netns::Host;

/// The shim's name: `dl-` and the first 12 hex digits of the network's id.
pub fn shim_name(_network: &NetworkId) -> IfName {
    todo!()
}

/// Makes (or completes) the shim of one network on `parent`, idempotent:
/// macvlan in bridge mode, up; optional own address (/32); the ARP filter that
/// keeps the host from answering twice for its address; a route to each of
/// `containers`.
pub fn enable(
    _host: &mut Rtnl<Host>,
    _network: &NetworkId,
    _parent: &IfName,
    _own: Option<Cidr>,
    _containers: &[Ipv4Addr],
    _journal: &mut dyn Journal,
) -> Result<()> {
    todo!()
}

/// Removes shim, filter and routes; absent is fine.
pub fn disable(_host: &mut Rtnl<Host>, _network: &NetworkId) -> Result<()> {
    todo!()
}

/// Route and filter element for one container; the shim exists.
pub fn add(
    _host: &mut Rtnl<Host>,
    _network: &NetworkId,
    _parent: &IfName,
    _ip: Ipv4Addr,
    _journal: &mut dyn Journal,
) -> Result<()> {
    todo!()
}

/// Absent is fine; also when the shim is gone.
pub fn remove(_host: &mut Rtnl<Host>, _shim: &IfName, _ip: Ipv4Addr) -> Result<()> {
    todo!()
}

/// Only in bridge mode does a parent hand frames from one of its macvlans to
/// another, which is what the shim is.
pub fn supported(mode: crate::netlink::MacvlanMode) -> Result<()> {
    if mode == crate::netlink::MacvlanMode::Bridge {
        return Ok(());
    }
    Err(crate::base::Error::invalid(
        "host access needs macvlan mode bridge: in the others the parent keeps its macvlans apart",
    ))
}
