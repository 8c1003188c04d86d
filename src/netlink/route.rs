//! Routes, and the one batch that configures a fresh container interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use serde::{Deserialize, Serialize};

use super::link::{Ifindex, LOOPBACK};
use super::socket::{Fault, Rtnl};
use super::wire::{self, Malformed};
use super::{addr, link};
use crate::base::{Cidr, Error, MacAddr, PerFamily, Result, Subject};
use crate::sys::netns::Place;

/// A MAC, or a parent that passthru wants for itself, stays busy for 15 to
/// 35 ms after its holder's namespace died, since the kernel clears namespaces
/// up in the background: 50 tries, 4 ms apart.
pub(super) const BUSY_TRIES: u32 = 50;
pub(super) const BUSY_PAUSE: Duration = Duration::from_millis(4);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    pub ipv6: bool,
    /// RTNH_F_*: 1 dead, 4 onlink, 16 linkdown.
    pub flags: u32,
}

/// What a fresh interface in a sandbox gets, in one datagram: loopback up,
/// MAC (if not given at creation), addresses, link up, default routes: one batch
/// for both families.
#[derive(Clone, Debug, Default)]
pub struct Configure {
    pub loopback_up: bool,
    pub mac: Option<MacAddr>,
    pub addrs: Vec<Cidr>,
    pub up: bool,
    /// Default routes through these gateways (proto boot, scope global).
    pub gateways: PerFamily<IpAddr>,
}

/// One message of the batch.
#[derive(Clone, Copy, Debug)]
enum Item {
    Loopback,
    Mac(MacAddr),
    Addr(Cidr),
    Up,
    Default(IpAddr),
}

impl Configure {
    fn items(&self) -> Vec<Item> {
        let mut items = Vec::with_capacity(4 + self.addrs.len());
        items.extend(self.loopback_up.then_some(Item::Loopback));
        items.extend(self.mac.map(Item::Mac));
        items.extend(self.addrs.iter().copied().map(Item::Addr));
        items.extend(self.up.then_some(Item::Up));
        items.extend(self.gateways.values().map(Item::Default));
        items
    }
}

impl<P: Place> Rtnl<P> {
    /// One send, all ACKs read; the first refusal is returned, naming the
    /// message it belongs to ("add address …", "set link up", "add route …").
    ///
    /// Where the link cannot come up because its MAC is still held by a dying
    /// namespace, the rest is sent again for up to 200 ms.
    pub fn configure(&mut self, index: Ifindex<P>, what: &Configure) -> Result<()> {
        let number = self.own(index)?;
        let items = what.items();
        let mut rest = items.as_slice();
        let mut tries = BUSY_TRIES;
        while !rest.is_empty() {
            let Err(fault) = self.send_items(number, rest) else {
                return Ok(());
            };
            let refused = rest.get(fault.request..).unwrap_or_default();
            let busy = matches!(refused.first(), Some(Item::Up)) && mac_is_busy(&fault);
            if !busy || tries == 0 {
                return Err(self.name_refusal(index, refused.first().copied(), fault, busy));
            }
            tries -= 1;
            std::thread::sleep(BUSY_PAUSE);
            rest = refused;
        }
        Ok(())
    }

    fn send_items(&mut self, index: u32, items: &[Item]) -> Result<(), Fault> {
        const NEW: u16 = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let channel = &mut self.channel;
        channel.begin();
        for item in items {
            match *item {
                Item::Loopback => {
                    let up = link::flags_message(LOOPBACK, true);
                    channel.push(libc::RTM_SETLINK, NLM_F_ACK, &up);
                }
                Item::Mac(mac) => {
                    let attributes = vec![LinkAttribute::Address(mac.0.to_vec())];
                    let change = link::message(index, attributes);
                    channel.push(libc::RTM_SETLINK, NLM_F_ACK, &change);
                }
                Item::Addr(cidr) => {
                    channel.push(libc::RTM_NEWADDR, NEW, &addr::message(index, cidr));
                }
                Item::Up => {
                    let up = link::flags_message(index, true);
                    channel.push(libc::RTM_SETLINK, NLM_F_ACK, &up);
                }
                Item::Default(gateway) => {
                    channel.push(libc::RTM_NEWROUTE, NEW, &default_message(gateway, index));
                }
            }
        }
        channel.exchange(false, |_| Ok(())).map(drop)
    }

    fn name_refusal(
        &mut self,
        index: Ifindex<P>,
        item: Option<Item>,
        fault: Fault,
        busy: bool,
    ) -> Error {
        match item {
            None | Some(Item::Loopback) => fault.named("set link up", Subject::Link("lo".into())),
            Some(Item::Mac(_)) => fault.named("set MAC address of link", self.label(index)),
            Some(Item::Addr(cidr)) => fault.named("add address", Subject::Addr(cidr.to_string())),
            Some(Item::Up) => {
                let error = fault.named("set link up", self.label(index));
                match self.busy_mac_hint(index).filter(|_| busy) {
                    Some(hint) => error.hint(hint),
                    None => error,
                }
            }
            Some(Item::Default(gateway)) => default_refused("add default route", gateway, fault),
        }
    }

    /// `/32` (or any subnet) on a link, optional preferred source, scope link.
    /// The same route on another link is replaced.
    pub fn add_link_route(
        &mut self,
        dst: Cidr,
        index: Ifindex<P>,
        src: Option<IpAddr>,
    ) -> Result<()> {
        let new = link_message(dst, self.own(index)?, src);
        self.channel
            .request(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &new)
            .map_err(|fault| fault.named("add route", Subject::Addr(dst.to_string())))
    }

    /// Absent is fine.
    pub fn del_link_route(&mut self, dst: Cidr, index: Ifindex<P>) -> Result<()> {
        let old = link_message(dst, self.own(index)?, None);
        self.forget(&old)
            .map_err(|fault| fault.named("delete route", Subject::Addr(dst.to_string())))
    }

    /// Through a gateway that a subnet of the interface contains, or another
    /// route leads to. The same destination by another way is replaced.
    pub fn add_route_via(&mut self, dst: Cidr, gateway: IpAddr, index: Ifindex<P>) -> Result<()> {
        let mut new = message(Some(dst), !dst.is_ipv4(), self.own(index)?);
        new.attributes.push(RouteAttribute::Gateway(gateway.into()));
        self.channel
            .request(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, &new)
            .map_err(|fault| {
                fault.named("add route", Subject::Addr(format!("{dst} via {gateway}")))
            })
    }

    pub fn add_default(&mut self, gateway: IpAddr, index: Ifindex<P>) -> Result<()> {
        let new = default_message(gateway, self.own(index)?);
        self.channel
            .request(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &new)
            .map_err(|fault| default_refused("add default route", gateway, fault))
    }

    /// Absent is fine.
    pub fn del_default(&mut self, gateway: IpAddr, index: Ifindex<P>) -> Result<()> {
        let old = default_message(gateway, self.own(index)?);
        self.forget(&old)
            .map_err(|fault| default_refused("delete default route", gateway, fault))
    }

    fn forget(&mut self, old: &RouteMessage) -> Result<(), Fault> {
        match self.channel.request(libc::RTM_DELROUTE, 0, old) {
            Err(fault) if matches!(fault.errno(), libc::ESRCH | libc::ENODEV) => Ok(()),
            outcome => outcome,
        }
    }

    /// The main table (both families).
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        self.channel
            .dump(libc::RTM_GETROUTE, &RouteMessage::default(), |payload| {
                Ok(parse(payload)?.filter(|r| r.table == u32::from(libc::RT_TABLE_MAIN)))
            })
            .map_err(|fault| fault.named("list routes", Subject::None))
    }
}

/// EADDRINUSE; before Linux 5.8 EBUSY.
fn mac_is_busy(fault: &Fault) -> bool {
    matches!(fault.errno(), libc::EADDRINUSE | libc::EBUSY)
}

fn default_refused(op: &'static str, gateway: IpAddr, fault: Fault) -> Error {
    let errno = fault.errno();
    let error = fault.named(op, Subject::Addr(format!("via {gateway}")));
    match errno {
        libc::ENETUNREACH | libc::EHOSTUNREACH => {
            error.hint("the gateway must lie in the subnet of an address of this interface")
        }
        libc::EEXIST => error.hint("there is a default route already"),
        _ => error,
    }
}

fn message(dst: Option<Cidr>, ipv6: bool, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = if ipv6 {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    if let Some(dst) = dst {
        message.header.destination_prefix_length = dst.prefix();
        let dst = RouteAddress::from(dst.network().addr());
        message.attributes.push(RouteAttribute::Destination(dst));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

fn default_message(gateway: IpAddr, index: u32) -> RouteMessage {
    let mut message = message(None, gateway.is_ipv6(), index);
    message
        .attributes
        .push(RouteAttribute::Gateway(gateway.into()));
    message
}

fn link_message(dst: Cidr, index: u32, src: Option<IpAddr>) -> RouteMessage {
    let mut message = message(Some(dst), !dst.is_ipv4(), index);
    message.header.scope = RouteScope::Link;
    if let Some(src) = src {
        message
            .attributes
            .push(RouteAttribute::PrefSource(src.into()));
    }
    message
}

/// `None` for families other than IP (multicast, MPLS).
pub(super) fn parse(payload: &[u8]) -> Result<Option<Route>, Malformed> {
    let header = RouteHeader::parse(payload).map_err(|_| Malformed("route header"))?;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(None),
    };
    let mut route = Route {
        dst: None,
        gateway: None,
        oif: None,
        prefsrc: None,
        table: u32::from(header.table),
        scope: u8::from(header.scope),
        protocol: u8::from(header.protocol),
        kind: u8::from(header.kind),
        metric: None,
        ipv6: unspecified.is_ipv6(),
        flags: header.flags.bits(),
    };
    let mut dst = unspecified;
    for attr in wire::attrs(payload.get(12..).unwrap_or_default()) {
        let (kind, value) = attr?;
        match kind {
            libc::RTA_DST => dst = wire::ip_of(value)?,
            libc::RTA_GATEWAY => route.gateway = Some(wire::ip_of(value)?),
            libc::RTA_OIF => route.oif = Some(wire::u32_of(value)?),
            libc::RTA_PREFSRC => route.prefsrc = Some(wire::ip_of(value)?),
            libc::RTA_TABLE => route.table = wire::u32_of(value)?,
            libc::RTA_PRIORITY => route.metric = Some(wire::u32_of(value)?),
            _ => {}
        }
    }
    let prefix = header.destination_prefix_length;
    if prefix > 0 || !dst.is_unspecified() {
        route.dst = Some(Cidr::new(dst, prefix).map_err(|_| Malformed("prefix length"))?);
    }
    Ok(Some(route))
}

#[cfg(test)]
mod tests {
    use super::super::wire::golden::{built, said, unhex};
    use super::*;

    /// `ip route add default via 10.0.2.1 dev eth0`
    #[test]
    fn says_what_ip_route_add_default_says() {
        let theirs = unhex(
            "2c00000018000506e9d9046b0000000002000000fe0300010000000008000500
             0a0002010800040002000000",
        );
        let gateway = IpAddr::from([10, 0, 2, 1]);
        let ours = built(libc::RTM_NEWROUTE, &default_message(gateway, 2));
        assert_eq!(said(&ours, 12), said(&theirs, 12));
        let back = parse(&theirs[16..]).unwrap().unwrap();
        assert_eq!(back.dst, None);
        assert_eq!(back.gateway, Some(gateway));
        assert_eq!((back.table, back.oif, back.protocol), (254, Some(2), 3));
    }

    /// `ip route add 10.0.2.9/32 dev eth0 src 10.0.2.5`
    #[test]
    fn says_what_ip_route_add_link_says() {
        let theirs = unhex(
            "3400000018000506e9d9046b0000000002200000fe03fd0100000000080001000a000209
             080007000a0002050800040002000000",
        );
        let src = Some(IpAddr::from([10, 0, 2, 5]));
        let message = link_message("10.0.2.9/32".parse().unwrap(), 2, src);
        let ours = built(libc::RTM_NEWROUTE, &message);
        assert_eq!(said(&ours, 12), said(&theirs, 12));
    }

    #[test]
    fn order_of_the_batch() {
        let all = Configure {
            loopback_up: true,
            mac: Some(MacAddr([2; 6])),
            addrs: vec!["10.0.2.5/24".parse().unwrap()],
            up: true,
            gateways: IpAddr::from([10, 0, 2, 1]).into(),
        };
        assert!(matches!(
            all.items()[..],
            [
                Item::Loopback,
                Item::Mac(_),
                Item::Addr(_),
                Item::Up,
                Item::Default(_)
            ]
        ));
        assert!(Configure::default().items().is_empty());
    }
}
