//! Links' counters.

use netlink_packet_route::link::LinkAttribute;
use serde::{Deserialize, Serialize};

use super::link;
use super::socket::Rtnl;
use super::wire::{self, Malformed};
use crate::base::{Result, Subject};
use crate::sys::netns::Place;

/// Of `struct rtnl_link_stats64`, what `stats` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Traffic {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
}

const IFLA_STATS64: u16 = 23;

impl<P: Place> Rtnl<P> {
    /// `None`: there is no such link.
    pub fn traffic(&mut self, name: &str) -> Result<Option<Traffic>> {
        let wanted = link::message(0, vec![LinkAttribute::IfName(name.to_owned())]);
        match self.channel.get(libc::RTM_GETLINK, &wanted, parse) {
            Ok(traffic) => Ok(traffic),
            Err(fault) if fault.errno() == libc::ENODEV => Ok(None),
            Err(fault) => Err(fault.named("read counters of link", Subject::Link(name.into()))),
        }
    }
}

pub(super) fn parse(payload: &[u8]) -> Result<Traffic, Malformed> {
    let attributes = payload.get(16..).unwrap_or_default();
    let stats = wire::find(attributes, IFLA_STATS64).unwrap_or_default();
    // Packets, bytes, errors, dropped: each received and sent.
    let at = |n: usize| {
        let bytes = stats.get(n * 8..n * 8 + 8).and_then(|b| b.try_into().ok());
        bytes
            .map(u64::from_ne_bytes)
            .ok_or(Malformed("link counters"))
    };
    Ok(Traffic {
        rx_packets: at(0)?,
        tx_packets: at(1)?,
        rx_bytes: at(2)?,
        tx_bytes: at(3)?,
        rx_dropped: at(6)?,
        tx_dropped: at(7)?,
    })
}
