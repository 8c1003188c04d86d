//! Interface addresses.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{
    AddressAttribute, AddressHeader, AddressHeaderFlags, AddressMessage, AddressScope, CacheInfo,
};

use super::link::{Ifindex, LOOPBACK};
use super::socket::Rtnl;
use super::wire::{self, Malformed};
use crate::base::{Cidr, Result, Subject};
use crate::sys::netns::Place;

/// An address as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    pub cidr: Cidr,
    /// IFA_F_SECONDARY
    pub secondary: bool,
    /// All IFA_F_* bits, for display.
    pub flags: u32,
    /// RT_SCOPE_*: 0 global, 253 link, 254 host.
    pub scope: u8,
    pub broadcast: Option<Ipv4Addr>,
    /// The other end of a point-to-point link.
    pub peer: Option<IpAddr>,
    /// IPv4: the interface's name or an alias of it.
    pub label: Option<String>,
    /// Seconds left; `u32::MAX` is for ever.
    pub valid: u32,
    pub preferred: u32,
}

impl<P: Place> Rtnl<P> {
    /// IPv4: broadcast computed unless /31 or /32, scope global (host scope
    /// for loopback). IPv6: NODAD. An address that is there already is fine.
    pub fn add_addr(&mut self, index: Ifindex<P>, cidr: Cidr) -> Result<()> {
        let new = message(self.own(index)?, cidr);
        self.channel
            .request(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &new)
            .map_err(|fault| fault.named("add address", Subject::Addr(cidr.to_string())))
    }

    /// IPv6, for so many seconds (`u32::MAX`: for ever), after the kernel has
    /// asked whether somebody has it. One that is there gets new lifetimes.
    pub fn add_leased_addr(
        &mut self,
        index: Ifindex<P>,
        cidr: Cidr,
        preferred: u32,
        valid: u32,
    ) -> Result<()> {
        let mut new = message(self.own(index)?, cidr);
        new.header.flags = AddressHeaderFlags::empty();
        let mut times = CacheInfo::default();
        (times.ifa_preferred, times.ifa_valid) = (preferred, valid);
        new.attributes.push(AddressAttribute::CacheInfo(times));
        self.channel
            .request(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &new)
            .map_err(|fault| fault.named("add address", Subject::Addr(cidr.to_string())))
    }

    /// Absent is fine.
    pub fn del_addr(&mut self, index: Ifindex<P>, cidr: Cidr) -> Result<()> {
        let old = message(self.own(index)?, cidr);
        match self.channel.request(libc::RTM_DELADDR, 0, &old) {
            Ok(()) => Ok(()),
            Err(fault) if matches!(fault.errno(), libc::EADDRNOTAVAIL | libc::ENODEV) => Ok(()),
            Err(fault) => Err(fault.named("delete address", Subject::Addr(cidr.to_string()))),
        }
    }

    /// All addresses, or those of one link (strict dump filter).
    pub fn addrs(&mut self, index: Option<Ifindex<P>>) -> Result<Vec<Address>> {
        let index = index.map(|i| self.own(i)).transpose()?;
        let mut wanted = AddressMessage::default();
        wanted.header.index = index.unwrap_or(0);
        // A kernel without strict checking sends all of them.
        self.channel
            .dump(libc::RTM_GETADDR, &wanted, |payload| {
                let address = parse(payload)?;
                Ok((index.is_none() || index == Some(address.index)).then_some(address))
            })
            .map_err(|fault| fault.named("list addresses", Subject::None))
    }
}

pub(super) fn message(index: u32, cidr: Cidr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = cidr.prefix();
    message.attributes = vec![
        AddressAttribute::Local(cidr.addr()),
        AddressAttribute::Address(cidr.addr()),
    ];
    match (cidr.addr(), cidr.last()) {
        (IpAddr::V4(_), last) => {
            message.header.family = AddressFamily::Inet;
            if index == LOOPBACK {
                message.header.scope = AddressScope::Host;
            } else if let (IpAddr::V4(last), 0..=30) = (last, cidr.prefix()) {
                message.attributes.push(AddressAttribute::Broadcast(last));
            }
        }
        (IpAddr::V6(_), _) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    message
}

/// RTM_NEWADDR and RTM_DELADDR.
pub(super) fn parse(payload: &[u8]) -> Result<Address, Malformed> {
    let header = AddressHeader::parse(payload).map_err(|_| Malformed("address header"))?;
    let (mut local, mut address) = (None, None);
    let mut flags = u32::from(header.flags.bits());
    let mut broadcast = None;
    let mut label = None;
    let (mut valid, mut preferred) = (u32::MAX, u32::MAX);
    for attr in wire::attrs(payload.get(8..).unwrap_or_default()) {
        let (kind, value) = attr?;
        match kind {
            libc::IFA_LOCAL => local = Some(wire::ip_of(value)?),
            libc::IFA_ADDRESS => address = Some(wire::ip_of(value)?),
            libc::IFA_BROADCAST => {
                if let IpAddr::V4(v4) = wire::ip_of(value)? {
                    broadcast = Some(v4);
                }
            }
            libc::IFA_LABEL => label = Some(wire::text_of(value)),
            libc::IFA_FLAGS => flags = wire::u32_of(value)?,
            libc::IFA_CACHEINFO => {
                let times = CacheInfo::parse(value).map_err(|_| Malformed("address lifetimes"))?;
                (valid, preferred) = (times.ifa_valid, times.ifa_preferred);
            }
            _ => {}
        }
    }
    // IPv6 has IFA_LOCAL only where there is a peer.
    let addr = local.or(address).ok_or(Malformed("address missing"))?;
    Ok(Address {
        index: header.index,
        cidr: Cidr::new(addr, header.prefix_len).map_err(|_| Malformed("prefix length"))?,
        secondary: flags & libc::IFA_F_SECONDARY != 0,
        flags,
        scope: u8::from(header.scope),
        broadcast,
        peer: address.filter(|peer| *peer != addr),
        label,
        valid,
        preferred,
    })
}

#[cfg(test)]
mod tests {
    use super::super::wire::golden::{built, said, unhex};
    use super::*;

    fn ours(index: u32, cidr: &str) -> Vec<u8> {
        built(libc::RTM_NEWADDR, &message(index, cidr.parse().unwrap()))
    }

    /// `ip addr add 10.0.2.5/24 broadcast 10.0.2.255 dev eth0`
    #[test]
    fn says_what_ip_addr_add_says() {
        let theirs = unhex(
            "3000000014000506e8d9046b000000000218000002000000080002000a000205
             080004000a0002ff080001000a000205",
        );
        assert_eq!(said(&ours(2, "10.0.2.5/24"), 8), said(&theirs, 8));
        let back = parse(&theirs[16..]).unwrap();
        assert_eq!(back.cidr, "10.0.2.5/24".parse().unwrap());
        assert_eq!(back.broadcast, Some(Ipv4Addr::new(10, 0, 2, 255)));
        assert_eq!(back.peer, None);
    }

    /// `ip -6 addr add fd00::5/64 dev eth0 nodad` (iproute2 puts the flag into
    /// IFA_FLAGS; the header's eight bits mean the same).
    #[test]
    fn ipv6_skips_duplicate_detection() {
        let theirs = unhex(
            "4000000014000506e9d9046b000000000a4002000200000014000200fd00000000000000
             000000000000000514000100fd000000000000000000000000000005",
        );
        assert_eq!(said(&ours(2, "fd00::5/64"), 8), said(&theirs, 8));
    }

    #[test]
    fn broadcast_only_where_there_is_one() {
        let attributes = |index, cidr| said(&ours(index, cidr), 8).2.len();
        assert_eq!(attributes(2, "10.0.2.4/30"), 3);
        assert_eq!(attributes(2, "10.0.2.4/31"), 2);
        assert_eq!(attributes(2, "10.0.2.4/32"), 2);
        assert_eq!(attributes(LOOPBACK, "169.254.0.1/16"), 2);
        let host = said(&ours(LOOPBACK, "169.254.0.1/32"), 8).1;
        assert_eq!(host[3], 254);
    }
}
