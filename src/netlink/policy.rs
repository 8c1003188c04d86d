//! Policy routing: rules by source address, routes in tables of their own,
//! and what the kernel makes of both.
//!
//! # Theory of operation
//!
//! [`Rtnl::route_by`] sends a whole list of changes as one datagram; the kernel
//! carries them out in order. A change that is done already (a rule or route
//! that is there, or one to be deleted that is not) is no failure: the rest is
//! sent again from behind it, which does no harm for the same reason.
//!
//! [`Rtnl::lookup`] asks as connect(2) does: once without a source address,
//! which gives one, and then with it, since the rules look at it. The second
//! answer is asked for with RTM_F_FIB_MATCH: the entry of the table that
//! matched, and which table it was (Linux 4.13; IPv6 since 5.0).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use serde::{Deserialize, Serialize};

use super::route::{self, Route};
use super::rule::Rule;
use super::socket::{Fault, Rtnl};
use crate::base::{Cause, Cidr, Error, Family, OfFamily, Result, Subject};
use crate::sys::netns::Place;

/// RT_TABLE_MAIN
pub const MAIN: u32 = 254;

/// A unicast route, proto boot as ip(8)'s are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableRoute {
    pub table: u32,
    /// `0.0.0.0/0`, `::/0`: the default route.
    pub dst: Cidr,
    /// `None`: on the link itself.
    pub via: Option<IpAddr>,
    /// Output interface index, in the namespace of the socket.
    pub oif: u32,
    /// `None`: the kernel's (0 in IPv4, 1024 in IPv6).
    pub metric: Option<u32>,
}

/// `from ADDRESS lookup TABLE`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceRule {
    pub from: IpAddr,
    pub table: u32,
    /// The lower, the earlier; main is looked up at 32766.
    pub priority: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    DelRule(SourceRule),
    DelRoute(TableRoute),
    AddRoute(TableRoute),
    AddRule(SourceRule),
}

/// What the kernel does with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The source address that it has, or gets.
    pub from: Option<IpAddr>,
    /// `None`: "Network is unreachable" or another errno, in the text.
    pub route: Option<Route>,
    pub refusal: Option<String>,
}

impl<P: Place> Rtnl<P> {
    /// All in one datagram, in this order. What the kernel refuses is given
    /// back, and the rest done; an error is one of the socket.
    pub fn route_by(&mut self, changes: &[Change]) -> Result<Vec<(Change, Error)>> {
        let mut refusals = Vec::new();
        let mut rest = changes;
        while !rest.is_empty() {
            let Err(fault) = self.send_changes(rest) else {
                break;
            };
            let is_answer = matches!(fault.cause, Cause::Netlink { .. });
            let Some(change) = rest.get(fault.request).copied().filter(|_| is_answer) else {
                return Err(fault.named("change routes", Subject::None));
            };
            rest = rest.get(fault.request + 1..).unwrap_or_default();
            if !change.is_done(fault.errno()) {
                refusals.push((change, named(change, fault)));
            }
        }
        Ok(refusals)
    }

    fn send_changes(&mut self, changes: &[Change]) -> Result<(), Fault> {
        const NEW: u16 = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        let channel = &mut self.channel;
        channel.begin();
        for change in changes {
            match change {
                Change::DelRule(r) => channel.push(libc::RTM_DELRULE, NLM_F_ACK, &rule(*r)),
                Change::DelRoute(r) => channel.push(libc::RTM_DELROUTE, NLM_F_ACK, &message(*r)),
                Change::AddRoute(r) => channel.push(libc::RTM_NEWROUTE, NEW, &message(*r)),
                Change::AddRule(r) => channel.push(libc::RTM_NEWRULE, NEW, &rule(*r)),
            }
        }
        channel.exchange(false, |_| Ok(())).map(drop)
    }

    /// The unicast routes of all tables but `local`, both families.
    pub fn all_routes(&mut self) -> Result<Vec<Route>> {
        let is_ours = |r: &Route| {
            r.table != u32::from(libc::RT_TABLE_LOCAL) && r.kind == u8::from(RouteType::Unicast)
        };
        self.channel
            .dump(libc::RTM_GETROUTE, &RouteMessage::default(), |payload| {
                Ok(route::parse(payload)?.filter(is_ours))
            })
            .map_err(|fault| fault.named("list routes", Subject::None))
    }

    /// The way to `to`; without `from`, with the source address that the kernel
    /// chooses.
    pub fn lookup(&mut self, to: IpAddr, from: Option<IpAddr>) -> Result<Found> {
        let chosen = match from {
            Some(from) => Ok(Some(from)),
            None => self
                .ask(to, None, false)
                .map(|route| route.and_then(|route| route.prefsrc)),
        };
        let outcome = chosen.and_then(|from| match self.ask(to, from, true) {
            Err(fault) if is_nobodys(&fault) => Ok((from, self.ask(to, from, false)?)),
            answer => Ok((from, answer?)),
        });
        match outcome {
            Ok((from, route)) => Ok(Found {
                from,
                route,
                refusal: None,
            }),
            Err(fault) if is_verdict(&fault) => Ok(Found {
                from,
                route: None,
                refusal: Some(nix::errno::Errno::from_raw(fault.errno()).desc().to_owned()),
            }),
            Err(fault) => Err(fault.named("look up route", Subject::Addr(to.to_string()))),
        }
    }

    fn ask(
        &mut self,
        to: IpAddr,
        from: Option<IpAddr>,
        entry: bool,
    ) -> Result<Option<Route>, Fault> {
        let mut question = RouteMessage::default();
        let (family, flags) = match (to, entry) {
            (IpAddr::V4(_), false) => (AddressFamily::Inet, RouteFlags::empty()),
            // IPv6 names the table without being asked, and refuses the flag.
            (IpAddr::V6(_), false) => (AddressFamily::Inet6, RouteFlags::empty()),
            (IpAddr::V6(_), true) => (AddressFamily::Inet6, RouteFlags::FibMatch),
            (IpAddr::V4(_), true) => (
                AddressFamily::Inet,
                RouteFlags::FibMatch | RouteFlags::LookupTable,
            ),
        };
        let header = &mut question.header;
        (header.address_family, header.flags) = (family, flags);
        header.destination_prefix_length = to.family().width();
        let to = RouteAttribute::Destination(RouteAddress::from(to));
        question.attributes.push(to);
        if let Some(from) = from {
            question.header.source_prefix_length = from.family().width();
            let from = RouteAttribute::Source(RouteAddress::from(from));
            question.attributes.push(from);
        }
        let found = self
            .channel
            .get(libc::RTM_GETROUTE, &question, route::parse)?;
        Ok(found.flatten())
    }
}

/// Groups and 255.255.255.255 have a way in IPv4, and no entry that matched.
fn is_nobodys(fault: &Fault) -> bool {
    fault.errno() == libc::EHOSTUNREACH
}

/// The kernel has looked, and there is no way.
fn is_verdict(fault: &Fault) -> bool {
    matches!(
        fault.errno(),
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::EAGAIN
    )
}

/// Of an IPv6 route without a metric of its own (IP6_RT_PRIO_USER); of an IPv4
/// one it is 0.
const IPV6_METRIC: u32 = 1024;

/// What the kernel makes of a route's metric.
pub fn metric_in(family: Family, metric: Option<u32>) -> u32 {
    match (family, metric) {
        (Family::Ipv4, metric) => metric.unwrap_or(0),
        (Family::Ipv6, None | Some(0)) => IPV6_METRIC,
        (Family::Ipv6, Some(metric)) => metric,
    }
}

impl TableRoute {
    /// The lowest is taken.
    pub fn priority(&self) -> u32 {
        metric_in(self.dst.family(), self.metric)
    }

    /// As the kernel would tell it.
    pub fn as_read(&self) -> Route {
        Route {
            dst: Some(self.dst).filter(|dst| dst.prefix() > 0),
            gateway: self.via,
            oif: Some(self.oif),
            prefsrc: None,
            table: self.table,
            scope: u8::from(RouteScope::Universe),
            protocol: u8::from(RouteProtocol::Boot),
            kind: u8::from(RouteType::Unicast),
            metric: self.metric,
            ipv6: !self.dst.is_ipv4(),
            flags: 0,
        }
    }
}

impl SourceRule {
    /// As the kernel would tell it.
    pub fn as_read(&self) -> Rule {
        Rule {
            ipv6: self.from.is_ipv6(),
            priority: self.priority,
            table: self.table,
            action: u8::from(RuleAction::ToTable),
            src: Cidr::new(self.from, self.from.family().width()).ok(),
            dst: None,
            iif: None,
            oif: None,
            fwmark: None,
        }
    }
}

impl Change {
    /// Whether a refusal with this errno says that there is nothing to do. What
    /// is deleted may have gone with its link or its address.
    fn is_done(self, errno: i32) -> bool {
        match self {
            Self::AddRoute(_) | Self::AddRule(_) => errno == libc::EEXIST,
            Self::DelRoute(_) | Self::DelRule(_) => {
                matches!(errno, libc::ESRCH | libc::ENODEV | libc::ENOENT)
            }
        }
    }
}

fn named(change: Change, fault: Fault) -> Error {
    let route = |r: TableRoute| match r.via {
        Some(via) => Subject::Addr(format!("{} via {via}", r.dst)),
        None => Subject::Addr(r.dst.to_string()),
    };
    let rule = |r: SourceRule| Subject::Addr(format!("from {} lookup {}", r.from, r.table));
    match change {
        Change::DelRule(r) => fault.named("delete routing rule", rule(r)),
        Change::AddRule(r) => {
            let has_none = matches!(fault.errno(), libc::EOPNOTSUPP | libc::EAFNOSUPPORT);
            let error = fault.named("add routing rule", rule(r));
            if has_none {
                return error.hint("this kernel is built without CONFIG_IP_MULTIPLE_TABLES");
            }
            error
        }
        Change::DelRoute(r) => fault.named("delete route", route(r)),
        Change::AddRoute(r) => {
            let is_lost = matches!(
                fault.errno(),
                libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EINVAL
            );
            let error = fault.named("add route", route(r));
            if is_lost {
                return error.hint("its gateway must be another machine on the interface's subnet");
            }
            error
        }
    }
}

fn family_of(ip: impl OfFamily) -> AddressFamily {
    match ip.family() {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

fn message(route: TableRoute) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(route.dst);
    message.header.protocol = RouteProtocol::Boot;
    message.header.kind = RouteType::Unicast;
    // IPv6 knows no scopes here.
    if route.via.is_none() && route.dst.is_ipv4() {
        message.header.scope = RouteScope::Link;
    }
    let attributes = &mut message.attributes;
    match u8::try_from(route.table) {
        Ok(table) => message.header.table = table,
        Err(_) => {
            message.header.table = RouteHeader::RT_TABLE_UNSPEC;
            attributes.push(RouteAttribute::Table(route.table));
        }
    }
    if route.dst.prefix() > 0 {
        message.header.destination_prefix_length = route.dst.prefix();
        let dst = RouteAddress::from(route.dst.network().addr());
        attributes.push(RouteAttribute::Destination(dst));
    }
    if let Some(via) = route.via {
        attributes.push(RouteAttribute::Gateway(via.into()));
    }
    attributes.push(RouteAttribute::Oif(route.oif));
    if let Some(metric) = route.metric {
        attributes.push(RouteAttribute::Priority(metric));
    }
    message
}

fn rule(rule: SourceRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family_of(rule.from);
    message.header.src_len = rule.from.family().width();
    message.header.action = RuleAction::ToTable;
    let attributes = &mut message.attributes;
    match u8::try_from(rule.table) {
        Ok(table) => message.header.table = table,
        Err(_) => attributes.push(RuleAttribute::Table(rule.table)),
    }
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Source(rule.from));
    message
}

#[cfg(test)]
mod tests {
    use super::super::wire::golden::{built, said, unhex};
    use super::*;

    /// `ip route add 10.9.0.0/16 via 10.0.7.77 dev v0 metric 50 table 1002`, as
    /// strace decodes what ip(8) sends.
    #[test]
    fn says_what_ip_route_add_says() {
        let theirs = unhex(
            "4400000018000506e9d9046b00000000021000000003000100000000
             080001000a090000 080005000a00074d 0800060032000000
             08000f00ea030000 0800040002000000",
        );
        let route = TableRoute {
            table: 1002,
            dst: "10.9.0.0/16".parse().unwrap(),
            via: Some("10.0.7.77".parse().unwrap()),
            oif: 2,
            metric: Some(50),
        };
        let ours = built(libc::RTM_NEWROUTE, &message(route));
        assert_eq!(said(&ours, 12), said(&theirs, 12));
    }

    /// `ip rule add from 10.0.7.5 lookup 1002 priority 1000`
    #[test]
    fn says_what_ip_rule_add_says() {
        let theirs = unhex(
            "3400000020000506e9d9046b00000000020020000000000100000000
             080002000a000705 08000f00ea030000 08000600e8030000",
        );
        let new = SourceRule {
            from: "10.0.7.5".parse().unwrap(),
            table: 1002,
            priority: 1000,
        };
        let ours = built(libc::RTM_NEWRULE, &rule(new));
        assert_eq!(said(&ours, 12), said(&theirs, 12));
    }

    #[test]
    fn what_is_done_is_no_failure() {
        let rule = SourceRule {
            from: "10.0.2.5".parse().unwrap(),
            table: 1002,
            priority: 1000,
        };
        assert!(Change::AddRule(rule).is_done(libc::EEXIST));
        assert!(!Change::AddRule(rule).is_done(libc::ENOENT));
        assert!(Change::DelRule(rule).is_done(libc::ENOENT));
        assert!(!Change::DelRule(rule).is_done(libc::EPERM));
    }
}
