//! The guard's rules of one link: pure.
//!
//! *Fields by their place in the frame.* All offsets count from the Ethernet
//! header, and the protocol is read there too. A raw sender tells the kernel
//! what its frame is (`sll_protocol`) and, on links with long headers, where
//! its network header begins; both may be lies, the frame is what leaves.
//!
//! *Nothing is let through by omission.* Rules accept; what none accepts falls
//! to the counting rules at the end, each of which drops, and the last of
//! which takes all. A field beyond the frame's end makes a rule not match.
//!
//! TCP comes first: one load each of MAC and type, of the address, of the
//! protocol.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Addrs, Forgery, Identity};
use crate::base::{Cidr, MacAddr};
use crate::net::ip6::Token;
use crate::netlink::nft::{Batch, Chain, Cmp, Expr, Field, Hook, Reg, Table, Verdict};

/// After every other chain of the hook: nothing rewrites a frame any more.
const LAST: i32 = i32::MAX;
pub(super) const CHAIN: &str = "out";
const IP6: &str = "ip6";
const UNSPECIFIED: &str = "ip6-unspecified";

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];

// Offsets in the frame.
const SENDER: u32 = 6;
const TYPE: u32 = 12;
const VERSION: u32 = 14;
const FRAGMENT: u32 = 20;
const PROTOCOL: u32 = 23;
const SADDR: u32 = 26;
const SPORT: u32 = 34;
const DPORT: u32 = 36;
const ARP_SENDER: u32 = 22;
const LENGTH6: u32 = 18;
const NEXT6: u32 = 20;
const SADDR6: u32 = 22;
const BODY6: u32 = 54;
/// The target of a neighbour message, and the option after it.
const TARGET6: u32 = 62;
const OPTION6: u32 = 78;
/// What a fragment header, or a hop-by-hop header with a router alert, has
/// after it.
const INNER6: u32 = 62;

const TCP: u8 = 6;
const UDP: u8 = 17;
const IGMP: u8 = 2;
const HOP_BY_HOP: u8 = 0;
const FRAGMENT6: u8 = 44;
const ICMPV6: u8 = 58;
/// IPv4 and IPv6 in IPv6, GRE, ESP, SCTP: nothing that a neighbour obeys.
const PLAIN6: [u8; 6] = [TCP, 4, 41, 47, 50, 132];

/// (a server's port, a client's port)
const DHCP: (u16, u16) = (67, 68);
const DHCPV6: (u16, u16) = (547, 546);

const ROUTER_SOLICIT: u8 = 133;
const ROUTER_ADVERT: u8 = 134;
const NEIGHBOUR_SOLICIT: u8 = 135;
const NEIGHBOUR_ADVERT: u8 = 136;
const REDIRECT: u8 = 137;
const MLD: [u8; 3] = [131, 132, 143];

const R0: Reg = Reg::word(0);

fn load(offset: u32, len: usize) -> Expr {
    Expr::Load {
        field: Field::frame(offset, u32::try_from(len).unwrap_or(u32::MAX)),
        into: R0,
    }
}

fn cmp(op: Cmp, value: &[u8]) -> Expr {
    Expr::Cmp {
        reg: R0,
        op,
        value: value.to_vec(),
    }
}

/// A rule under construction.
#[derive(Clone, Default)]
struct Match(Vec<Expr>);

impl Match {
    fn compare(mut self, offset: u32, op: Cmp, value: &[u8]) -> Self {
        self.0.push(load(offset, value.len()));
        self.0.push(cmp(op, value));
        self
    }

    fn is(self, offset: u32, value: &[u8]) -> Self {
        self.compare(offset, Cmp::Eq, value)
    }

    fn differs(self, offset: u32, value: &[u8]) -> Self {
        self.compare(offset, Cmp::Neq, value)
    }

    fn masked(mut self, offset: u32, mask: &[u8], op: Cmp, value: &[u8]) -> Self {
        self.0.push(load(offset, mask.len()));
        self.0.push(Expr::Bitwise {
            from: R0,
            into: R0,
            mask: mask.to_vec(),
            xor: vec![0; mask.len()],
        });
        self.0.push(cmp(op, value));
        self
    }

    /// Own MAC, and this type.
    fn frame(self, mac: MacAddr, ethertype: [u8; 2]) -> Self {
        self.is(SENDER, &[&mac.0[..], &ethertype].concat())
    }

    fn from(self, addr: Option<Ipv4Addr>) -> Self {
        match addr {
            Some(addr) => self.is(SADDR, &addr.octets()),
            None => self,
        }
    }

    /// Neither from a DHCP server's port nor to a client's.
    fn not_a_server(self, (server, client): (u16, u16), sport: u32) -> Self {
        self.differs(sport, &server.to_be_bytes())
            .differs(sport + 2, &client.to_be_bytes())
    }

    fn then(mut self, verdict: Verdict) -> Vec<Expr> {
        self.0.push(Expr::Verdict(verdict));
        self.0
    }

    fn accept(self) -> Vec<Expr> {
        self.then(Verdict::Accept)
    }

    fn count(mut self) -> Vec<Expr> {
        self.0.push(Expr::Counter);
        self.then(Verdict::Drop)
    }
}

fn any() -> Match {
    Match::default()
}

/// Both chains' rules of one table, whose table is there already.
pub(super) fn write(batch: &mut Batch, table: Table<'_>, link: &Identity<'_>) {
    let hook = Some(Hook::Egress {
        device: link.ifname,
        priority: LAST,
    });
    batch.add_chain(table, &Chain { name: CHAIN, hook });
    let mut rules = Rules { batch, table };
    let v4 = of_family(link.addrs, |addr| match addr {
        IpAddr::V4(addr) => Some(addr),
        IpAddr::V6(_) => None,
    });
    for addr in &v4 {
        rules.ipv4(link.mac, *addr);
    }
    rules.arp(link.mac, &v4);
    for mac in link.also {
        rules.ipv4(*mac, None);
        rules.arp(*mac, &[None]);
    }
    rules.without_address(link.mac);
    rules.ipv6(link);
    rules.drops(link.mac);
}

/// What the sender may be, one rule each; `None` is anybody.
fn of_family<T>(addrs: &Addrs, pick: impl Fn(IpAddr) -> Option<T>) -> Vec<Option<T>> {
    match addrs {
        Addrs::Any => vec![None],
        Addrs::Own(list) | Addrs::Lan(list, _) => {
            list.iter().filter_map(|a| pick(*a).map(Some)).collect()
        }
    }
}

/// Answers of published ports, which the parent's rules rewrite: TCP from the
/// container's aliases. `None` for what is no such block.
pub(super) fn aliases(mac: MacAddr, block: Cidr) -> Option<Vec<Expr>> {
    let IpAddr::V4(first) = block.network().addr() else {
        return None;
    };
    let host_bits = 32u32.checked_sub(block.prefix().into())?;
    let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0).to_be_bytes();
    let tcp = any().frame(mac, IPV4).is(PROTOCOL, &[TCP]);
    Some(tcp.masked(SADDR, &mask, Cmp::Eq, &first.octets()).accept())
}

struct Rules<'a, 'b> {
    batch: &'a mut Batch,
    table: Table<'b>,
}

impl Rules<'_, '_> {
    fn add(&mut self, chain: &str, rule: &[Expr], comment: Option<&str>) {
        self.batch.add_rule(self.table, chain, rule, comment);
    }

    fn drop(&mut self, chain: &str, what: Match, forgery: Forgery) {
        self.add(chain, &what.count(), Some(forgery.comment()));
    }

    fn ipv4(&mut self, mac: MacAddr, addr: Option<Ipv4Addr>) {
        let own = || any().frame(mac, IPV4).from(addr);
        self.add(CHAIN, &own().differs(PROTOCOL, &[UDP]).accept(), None);
        // Without options: else the ports would be elsewhere.
        let udp = own().is(PROTOCOL, &[UDP]);
        let whole = udp.clone().is(VERSION, &[0x45]);
        self.add(CHAIN, &whole.not_a_server(DHCP, SPORT).accept(), None);
        // Fragments but the first have no ports.
        let later = udp.masked(FRAGMENT, &[0x1f, 0xff], Cmp::Neq, &[0, 0]);
        self.add(CHAIN, &later.accept(), None);
    }

    /// Whatever the operation: questions, answers, announcements. A probe
    /// (RFC 5227) says that it is nobody yet.
    fn arp(&mut self, mac: MacAddr, senders: &[Option<Ipv4Addr>]) {
        const ETHERNET_AND_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];
        let arp = [&mac.0[..], &ARP, &ETHERNET_AND_IPV4].concat();
        let probe = Some(Ipv4Addr::UNSPECIFIED);
        for addr in senders.iter().copied().chain([probe]) {
            let mut sender = mac.0.to_vec();
            sender.extend(addr.map(|a| a.octets()).into_iter().flatten());
            let rule = any().is(SENDER, &arp).is(ARP_SENDER, &sender);
            self.add(CHAIN, &rule.accept(), None);
        }
    }

    /// A DHCP client that asks for its first address, and the membership of
    /// groups before there is one.
    fn without_address(&mut self, mac: MacAddr) {
        let nobody = any().frame(mac, IPV4).is(SADDR, &[0; 4]);
        let (server, client) = DHCP;
        let ports = [client.to_be_bytes(), server.to_be_bytes()].concat();
        let question = nobody.clone().is(PROTOCOL, &[UDP]).is(VERSION, &[0x45]);
        let question = question.is(SPORT, &ports);
        let whole = question.masked(FRAGMENT, &[0x1f, 0xff], Cmp::Eq, &[0, 0]);
        self.add(CHAIN, &whole.accept(), None);
        self.add(CHAIN, &nobody.is(PROTOCOL, &[IGMP]).accept(), None);
    }

    /// Nothing of it without an IPv6 address.
    fn ipv6(&mut self, link: &Identity<'_>) {
        let mut own = of_family(link.addrs, |addr| match addr {
            IpAddr::V6(addr) => Some(addr),
            IpAddr::V4(_) => None,
        });
        let (is_by_lan, token) = match link.addrs {
            Addrs::Lan(_, token) => (true, *token),
            Addrs::Own(_) | Addrs::Any => (false, None),
        };
        if own.is_empty() && !is_by_lan {
            return;
        }
        if !matches!(link.addrs, Addrs::Any) {
            own.extend(link.link_local.map(Some));
        }
        for name in [IP6, UNSPECIFIED] {
            self.batch
                .add_chain(self.table, &Chain { name, hook: None });
        }
        let frame = || any().frame(link.mac, IPV6);
        let goto = |chain: &str| Verdict::Goto(chain.to_owned());
        self.add(
            CHAIN,
            &frame().is(SADDR6, &[0; 16]).then(goto(UNSPECIFIED)),
            None,
        );
        for addr in &own {
            let from = match addr {
                Some(addr) => frame().is(SADDR6, &addr.octets()),
                None => frame(),
            };
            self.add(CHAIN, &from.then(goto(IP6)), None);
        }
        self.ip6(link.mac, &own);
        self.unspecified(&own, token);
    }

    /// From an own address.
    fn ip6(&mut self, mac: MacAddr, own: &[Option<Ipv6Addr>]) {
        for protocol in PLAIN6 {
            self.add(IP6, &any().is(NEXT6, &[protocol]).accept(), None);
        }
        let udp = any().is(NEXT6, &[UDP]);
        self.add(IP6, &udp.clone().not_a_server(DHCPV6, BODY6).accept(), None);
        let icmp = any().is(NEXT6, &[ICMPV6]);
        self.no_neighbour_message(&icmp, BODY6);
        let message = |kind| icmp.clone().is(BODY6, &[kind]);
        // The link-layer address that it names, if any, is the own one.
        for (what, option) in [(NEIGHBOUR_SOLICIT, 1), (NEIGHBOUR_ADVERT, 2)] {
            let targets = match what {
                NEIGHBOUR_ADVERT => own,
                _ => &[None],
            };
            for target in targets {
                let message = match target {
                    Some(target) => message(what).is(TARGET6, &target.octets()),
                    None => message(what),
                };
                let named = [&[option, 1][..], &mac.0].concat();
                self.add(IP6, &message.clone().is(OPTION6, &named).accept(), None);
                self.add(IP6, &message.is(LENGTH6, &[0, 24]).accept(), None);
            }
        }
        self.groups(IP6);
        self.fragments();
        self.drop(IP6, message(ROUTER_ADVERT), Forgery::Router);
        self.drop(IP6, message(REDIRECT), Forgery::Router);
        self.drop(IP6, icmp, Forgery::Neighbour);
        self.drop(IP6, udp, Forgery::Dhcp);
        self.drop(IP6, any(), Forgery::Ipv6);
    }

    /// ICMPv6 of a kind that no neighbour obeys; asking for routers is one.
    fn no_neighbour_message(&mut self, icmp: &Match, at: u32) {
        for (op, kind) in [(Cmp::Lte, ROUTER_SOLICIT), (Cmp::Gt, REDIRECT)] {
            let rule = icmp.clone().compare(at, op, &[kind]);
            self.add(IP6, &rule.accept(), None);
        }
    }

    /// Multicast listener reports, behind their router alert.
    fn groups(&mut self, chain: &str) {
        let alert = any().is(NEXT6, &[HOP_BY_HOP]).is(BODY6, &[ICMPV6, 0]);
        for kind in MLD {
            self.add(chain, &alert.clone().is(INNER6, &[kind]).accept(), None);
        }
    }

    /// What stands in the first fragment is checked as if it were whole; the
    /// later ones have no ports and no types. Other headers behind a fragment
    /// header are dropped: they could hide anything.
    fn fragments(&mut self) {
        let of = |protocol| any().is(NEXT6, &[FRAGMENT6]).is(BODY6, &[protocol]);
        self.add(IP6, &of(TCP).accept(), None);
        self.add(IP6, &of(UDP).not_a_server(DHCPV6, INNER6).accept(), None);
        self.no_neighbour_message(&of(ICMPV6), INNER6);
        for protocol in [UDP, ICMPV6] {
            let later = of(protocol).masked(BODY6 + 2, &[0xff, 0xf8], Cmp::Neq, &[0, 0]);
            self.add(IP6, &later.accept(), None);
        }
    }

    /// From `::`: is an own address free (DAD), where are routers, groups.
    fn unspecified(&mut self, own: &[Option<Ipv6Addr>], token: Option<Token>) {
        let message = |kind| any().is(NEXT6, &[ICMPV6]).is(BODY6, &[kind]);
        for target in own {
            let probe = message(NEIGHBOUR_SOLICIT);
            let probe = match target {
                Some(target) => probe.is(TARGET6, &target.octets()),
                None => probe,
            };
            self.add(UNSPECIFIED, &probe.accept(), None);
        }
        if let Some(Token(token)) = token {
            let probe = message(NEIGHBOUR_SOLICIT).is(TARGET6 + 8, &token);
            self.add(UNSPECIFIED, &probe.accept(), None);
        }
        self.add(UNSPECIFIED, &message(ROUTER_SOLICIT).accept(), None);
        self.groups(UNSPECIFIED);
        let icmp = any().is(NEXT6, &[ICMPV6]);
        self.drop(UNSPECIFIED, icmp, Forgery::Neighbour);
        self.drop(UNSPECIFIED, any(), Forgery::Ipv6);
    }

    fn drops(&mut self, mac: MacAddr) {
        self.drop(CHAIN, any().differs(SENDER, &mac.0), Forgery::Mac);
        let (server, client) = DHCP;
        for (port, at) in [(server, SPORT), (client, DPORT)] {
            let udp = any().is(TYPE, &IPV4).is(PROTOCOL, &[UDP]);
            self.drop(CHAIN, udp.is(at, &port.to_be_bytes()), Forgery::Dhcp);
        }
        for (ethertype, forgery) in [
            (IPV4, Forgery::Ipv4),
            (ARP, Forgery::Arp),
            (IPV6, Forgery::Ipv6),
        ] {
            self.drop(CHAIN, any().is(TYPE, &ethertype), forgery);
        }
        self.drop(CHAIN, any(), Forgery::Other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_of_aliases_is_a_mask() {
        let mac = MacAddr([2; 6]);
        let rule = aliases(mac, "169.254.64.32/28".parse().unwrap()).unwrap();
        let mask =
            |e: &Expr| matches!(e, Expr::Bitwise { mask, .. } if mask == &[255, 255, 255, 240]);
        assert!(rule.iter().any(mask), "{rule:?}");
        assert!(aliases(mac, "fd00::/64".parse().unwrap()).is_none());
    }
}
