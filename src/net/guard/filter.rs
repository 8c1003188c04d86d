//! `--allow` and `--deny` as nf_tables rules in the container's namespace: pure.
//!
//! Table inet, chains `in` and `out` on input and output. Answers pass by
//! connection tracking, which the namespace begins with these rules; the
//! loopback link, neighbour discovery, the link's DHCPv6 (a multicast question,
//! of which tracking knows no answer) and what published ports bring in pass
//! always. What is denied on its way in is dropped, and on its way out refused
//! (administratively prohibited), so that the program learns of it at once.
//!
//! Packet sockets pass by: these rules are about programs, the guard about
//! frames.

use std::net::{IpAddr, Ipv6Addr};

use super::rule::{Direction, Rule, Service, Verdict, default};
use crate::base::Cidr;
use crate::netlink::nft::{self, Batch, Chain, Cmp, Expr, Field, Hook, Meta, Reg, Table};

const R0: Reg = Reg::word(0);
const FILTER: i32 = 0;
pub(super) const IN: &str = "in";
pub(super) const OUT: &str = "out";

const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Loopback's, in every namespace.
const LO: u32 = 1;

fn cmp(op: Cmp, value: &[u8]) -> Expr {
    let value = value.to_vec();
    Expr::Cmp { reg: R0, op, value }
}

fn meta(key: Meta, value: &[u8]) -> [Expr; 2] {
    [Expr::Meta { key, into: R0 }, cmp(Cmp::Eq, value)]
}

fn load(field: Field) -> Expr {
    Expr::Load { field, into: R0 }
}

fn accept() -> Expr {
    Expr::Verdict(nft::Verdict::Accept)
}

/// Both chains; the table is there already.
pub(super) fn write(batch: &mut Batch, table: Table<'_>, rules: &[Rule]) {
    const NF_INET_LOCAL_IN: u32 = 1;
    const NF_INET_LOCAL_OUT: u32 = 3;
    for (chain, hook, direction, link) in [
        (IN, NF_INET_LOCAL_IN, Direction::In, Meta::Iif),
        (OUT, NF_INET_LOCAL_OUT, Direction::Out, Meta::Oif),
    ] {
        let hook = Hook::Inet {
            hook,
            priority: FILTER,
        };
        let hook = Some(hook);
        batch.add_chain(table, &Chain { name: chain, hook });
        let mut add =
            |rule: Vec<Expr>, comment: Option<&str>| batch.add_rule(table, chain, &rule, comment);
        add(
            [&meta(link, &LO.to_ne_bytes())[..], &[accept()]].concat(),
            None,
        );
        add(answers(), None);
        for types in NEIGHBOURS {
            add(neighbours(types), None);
        }
        add(dhcpv6(direction), None);
        let mine = || rules.iter().filter(|rule| rule.goes(direction));
        for rule in mine() {
            let text = rule.to_string();
            for what in matches(rule, direction) {
                add(judged(what, rule.verdict, direction), Some(&text));
            }
        }
        if default(rules) == Verdict::Deny {
            add(
                judged(Vec::new(), Verdict::Deny, direction),
                Some(super::REST),
            );
        }
    }
}

/// What published ports bring in, at the container's aliases.
pub(super) fn published(block: Cidr) -> Vec<Expr> {
    let mut rule = peer(block, Direction::Out);
    rule.push(accept());
    rule
}

fn answers() -> Vec<Expr> {
    const ESTABLISHED_AND_RELATED: u32 = 2 | 4;
    vec![
        Expr::CtState { into: R0 },
        Expr::Bitwise {
            from: R0,
            into: R0,
            mask: ESTABLISHED_AND_RELATED.to_ne_bytes().to_vec(),
            xor: vec![0; 4],
        },
        cmp(Cmp::Neq, &[0; 4]),
        accept(),
    ]
}

/// A client's questions to ff02::1:2, and what a server on the link answers.
fn dhcpv6(direction: Direction) -> Vec<Expr> {
    const UDP: u8 = 17;
    const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
    const LINK: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
    let (client, server) = (546_u16.to_be_bytes(), 547_u16.to_be_bytes());
    let ((who, prefix), [from, to]) = match direction {
        Direction::Out => ((ALL, 128), [client, server]),
        Direction::In => ((LINK, 10), [server, client]),
    };
    let who = Cidr::new(IpAddr::V6(who), prefix);
    let mut rule = who.map(|who| peer(who, direction)).unwrap_or_default();
    rule.extend(meta(Meta::L4Proto, &[UDP]));
    rule.extend([load(Field::SPORT), cmp(Cmp::Eq, &from)]);
    rule.extend([load(Field::DPORT), cmp(Cmp::Eq, &to), accept()]);
    rule
}

/// ICMPv6 types without which there is no IPv6: multicast listeners, and
/// routers and neighbours.
const NEIGHBOURS: [(u8, u8); 2] = [(130, 137), (143, 143)];

fn neighbours((first, last): (u8, u8)) -> Vec<Expr> {
    let kind = Field {
        header: nft::Header::Transport,
        offset: 0,
        len: 1,
    };
    let mut rule = meta(Meta::NfProto, &[NFPROTO_IPV6]).to_vec();
    rule.extend(meta(Meta::L4Proto, &[ICMPV6]));
    rule.extend([
        load(kind),
        cmp(Cmp::Gte, &[first]),
        cmp(Cmp::Lte, &[last]),
        accept(),
    ]);
    rule
}

/// The rule's conditions; two lists where both families have a protocol of
/// their own.
fn matches(rule: &Rule, direction: Direction) -> Vec<Vec<Expr>> {
    let who = rule
        .peer
        .map(|cidr| peer(cidr, direction))
        .unwrap_or_default();
    match rule.service {
        None => vec![who],
        Some(Service::Ports(proto, ports)) => {
            let mut all = [who, meta(Meta::L4Proto, &[proto.number()]).to_vec()].concat();
            if let Some((first, last)) = ports {
                all.push(load(Field::DPORT));
                if first == last {
                    all.push(cmp(Cmp::Eq, &first.to_be_bytes()));
                } else {
                    all.push(cmp(Cmp::Gte, &first.to_be_bytes()));
                    all.push(cmp(Cmp::Lte, &last.to_be_bytes()));
                }
            }
            vec![all]
        }
        Some(Service::Icmp) => [(NFPROTO_IPV4, ICMP), (NFPROTO_IPV6, ICMPV6)]
            .into_iter()
            .filter(|(family, _)| {
                let is_ipv4 = *family == NFPROTO_IPV4;
                rule.peer.is_none_or(|peer| peer.is_ipv4() == is_ipv4)
            })
            .map(|(family, protocol)| {
                let family = meta(Meta::NfProto, &[family]).to_vec();
                [
                    family,
                    who.clone(),
                    meta(Meta::L4Proto, &[protocol]).to_vec(),
                ]
                .concat()
            })
            .collect(),
    }
}

/// Who begins on the way in, who is spoken to on the way out.
fn peer(cidr: Cidr, direction: Direction) -> Vec<Expr> {
    let (family, field, first) = match (cidr.network().addr(), direction) {
        (IpAddr::V4(a), Direction::In) => (NFPROTO_IPV4, Field::IP4_SADDR, a.octets().to_vec()),
        (IpAddr::V4(a), Direction::Out) => (NFPROTO_IPV4, Field::IP4_DADDR, a.octets().to_vec()),
        (IpAddr::V6(a), Direction::In) => (NFPROTO_IPV6, Field::IP6_SADDR, a.octets().to_vec()),
        (IpAddr::V6(a), Direction::Out) => (NFPROTO_IPV6, Field::IP6_DADDR, a.octets().to_vec()),
    };
    let bits = usize::from(cidr.prefix());
    let mask: Vec<u8> = (0..first.len())
        .map(|byte| match bits.saturating_sub(byte * 8) {
            0 => 0,
            left @ 1..8 => u8::MAX << (8 - left),
            _ => u8::MAX,
        })
        .collect();
    let mut all = meta(Meta::NfProto, &[family]).to_vec();
    all.push(load(field));
    all.push(Expr::Bitwise {
        from: R0,
        into: R0,
        xor: vec![0; mask.len()],
        mask,
    });
    all.push(cmp(Cmp::Eq, &first));
    all
}

fn judged(mut what: Vec<Expr>, verdict: Verdict, direction: Direction) -> Vec<Expr> {
    what.push(Expr::Counter);
    what.push(match (verdict, direction) {
        (Verdict::Allow, _) => accept(),
        (Verdict::Deny, Direction::In) => Expr::Verdict(nft::Verdict::Drop),
        (Verdict::Deny, Direction::Out) => Expr::Prohibit,
    });
    what
}
