//! Neighbour entries.

use std::net::IpAddr;

use netlink_packet_core::NLM_F_CREATE;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourHeader, NeighbourMessage, NeighbourState,
};

use super::link::Ifindex;
use super::socket::Rtnl;
use super::wire::{self, Malformed};
use crate::base::{MacAddr, Result, Subject};
use crate::sys::netns::Place;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neigh {
    pub index: u32,
    pub addr: IpAddr,
    pub mac: Option<MacAddr>,
    /// NUD_* state bits.
    pub state: u16,
}

impl Neigh {
    /// It has answered, and not long ago.
    pub fn is_reachable(&self) -> bool {
        const NUD_REACHABLE: u16 = 2;
        self.state & NUD_REACHABLE != 0
    }
}

impl<P: Place> Rtnl<P> {
    /// What is known of a neighbour is forgotten, and it is asked (`ip neigh
    /// add ADDR dev LINK use`).
    pub fn ask_neighbour(&mut self, index: Ifindex<P>, addr: IpAddr) -> Result<()> {
        let mut neighbour = NeighbourMessage::default();
        neighbour.header.family = match addr {
            IpAddr::V4(_) => AddressFamily::Inet,
            IpAddr::V6(_) => AddressFamily::Inet6,
        };
        neighbour.header.ifindex = self.own(index)?;
        neighbour.attributes = vec![NeighbourAttribute::Destination(addr.into())];
        let failed = || Subject::Addr(addr.to_string());
        match self.channel.request(libc::RTM_DELNEIGH, 0, &neighbour) {
            Err(fault) if fault.errno() != libc::ENOENT => {
                return Err(fault.named("forget neighbour", failed()));
            }
            _ => {}
        }
        neighbour.header.flags = NeighbourFlags::Use;
        self.channel
            .request(libc::RTM_NEWNEIGH, NLM_F_CREATE, &neighbour)
            .map_err(|fault| fault.named("ask neighbour", failed()))
    }

    /// One more unicast MAC that a link's own filter lets in (`bridge fdb add
    /// MAC dev LINK self`). Of macvlans only passthru ones have that.
    pub fn add_filter(&mut self, index: Ifindex<P>, mac: MacAddr) -> Result<()> {
        let mut new = NeighbourMessage::default();
        new.header.family = AddressFamily::Bridge;
        new.header.ifindex = self.own(index)?;
        new.header.state = NeighbourState::Permanent;
        new.header.flags = NeighbourFlags::Own;
        new.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
        self.channel
            .request(libc::RTM_NEWNEIGH, NLM_F_CREATE, &new)
            .map_err(|fault| fault.named("let in frames to", Subject::Addr(mac.to_string())))
    }

    /// The unicast MACs that a link lets in beside its own (`bridge fdb show
    /// dev LINK`): those of its macvlans that are up, whichever namespace they
    /// are in. Not where the hardware hands frames to macvlans
    /// (l2-fwd-offload).
    pub fn filters(&mut self, index: Ifindex<P>) -> Result<Vec<MacAddr>> {
        let mut wanted = NeighbourMessage::default();
        wanted.header.family = AddressFamily::Bridge;
        wanted.header.ifindex = self.own(index)?;
        let of_link = wanted.header.ifindex;
        let parse = |payload: &[u8]| {
            let header = NeighbourHeader::parse(payload);
            let header = header.map_err(|_| Malformed("neighbour header"))?;
            let attrs = payload.get(12..).unwrap_or_default();
            let mac = wire::find(attrs, libc::NDA_LLADDR).and_then(wire::mac_of);
            // A bridge lists its ports' as well.
            Ok(mac.filter(|mac| header.ifindex == of_link && !mac.is_multicast()))
        };
        self.channel
            .dump(libc::RTM_GETNEIGH, &wanted, parse)
            .map_err(|fault| fault.named("list the MACs of a link", Subject::None))
    }

    /// The ARP and neighbour discovery tables.
    pub fn neighs(&mut self) -> Result<Vec<Neigh>> {
        self.channel
            .dump(libc::RTM_GETNEIGH, &NeighbourMessage::default(), parse)
            .map_err(|fault| fault.named("list neighbours", Subject::None))
    }
}

/// `None` for entries without an IP address (bridge forwarding tables).
pub(super) fn parse(payload: &[u8]) -> Result<Option<Neigh>, Malformed> {
    let header = NeighbourHeader::parse(payload).map_err(|_| Malformed("neighbour header"))?;
    let (mut addr, mut mac) = (None, None);
    for attr in wire::attrs(payload.get(12..).unwrap_or_default()) {
        match attr? {
            (libc::NDA_DST, value) => addr = wire::ip_of(value).ok(),
            (libc::NDA_LLADDR, value) => mac = wire::mac_of(value),
            _ => {}
        }
    }
    Ok(addr.map(|addr| Neigh {
        index: header.ifindex,
        addr,
        mac,
        state: u16::from(header.state),
    }))
}
