//! The table of one parent: what its rules do to a packet. Made once, by
//! whoever publishes first; ports come and go as elements of its maps.
//!
//! | chain | hook | rules |
//! |---|---|---|
//! | `from_lan` | ingress, late | TCP and UDP to a published port, ICMP errors about answers: led to the container. First fragments of TCP, and UDP of clients that cannot be remembered: dropped |
//! | `to_lan` | egress, early | what comes from an alias goes to `aliased`, other UDP and ICMP to `udp` |
//! | `udp` | | UDP answers to a remembered client, their fragments, ICMP errors about its requests: given their alias, then to `aliased` |
//! | `aliased` | | answers and ICMP errors: made the host's. What is left is dropped |
//!
//! Late in, early out: other people's netdev rules see what is on the wire.
//! A packet that is not rewritten is the host's own, and so the proxy's.
//!
//! Maps have one field as their value; keys, and what rules remember, are
//! packet fields alone: what a map gave is written into the packet and read
//! again from there. Otherwise nft(8) could not show the rules (1.0.6 dies of
//! a key that comes out of a map).

use std::time::Duration;

use super::plan::{POOL, POOL_MASK};
use crate::base::{IfName, Proto};
use crate::netlink::nft::{
    Batch, Chain, ChainInfo, Checksum, Cmp, Expr, Family, Field, Header, Hook, Meta, Reg, Set,
    Table, Type, Verdict,
};

const FROM_LAN: &str = "from_lan";
const TO_LAN: &str = "to_lan";
const ALIASED: &str = "aliased";
const UDP: &str = "udp";

/// (protocol, host's address, port) → where that is in the container: an
/// alias for TCP, its own address for UDP …
pub(super) const TO_ADDR: &str = "to_addr";
/// … the port …
pub(super) const TO_PORT: &str = "to_port";
/// … the container's MAC …
pub(super) const TO_MAC: &str = "to_mac";
/// … and for UDP what to remember of the client: the alias.
pub(super) const TO_ALIAS: &str = "to_alias";
/// Alias → the host's address …
pub(super) const AS_ADDR: &str = "as_addr";
/// … and MAC.
pub(super) const AS_MAC: &str = "as_mac";
/// (protocol, alias, container's port) → the host's port.
pub(super) const AS_PORT: &str = "as_port";
/// Addresses that packets are led to; an alias among them means that its block
/// is taken.
pub(super) const INSIDE: &str = "inside";
/// (client's address, port, container's address, port) → alias: who came in
/// through the host's address.
const CLIENTS: &str = "udp_clients";
/// (source, destination, identification) → alias.
const FRAGMENTS: &str = "udp_fragments";

/// Of each map that is filled from here; 64 KiB each.
const MAX_ELEMENTS: u32 = 4096;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_CLIENTS: u32 = 65_536;
const FRAGMENT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_FRAGMENTS: u32 = 4096;

/// Behind others at ingress, before them at egress.
const LATE: i32 = 300;
const EARLY: i32 = -300;

/// The table's name, for `Table`.
pub(super) fn table_name(parent: &IfName) -> String {
    format!("dockless-pub-{parent}")
}

pub(super) fn table(name: &str) -> Table<'_> {
    Table {
        family: Family::Netdev,
        name,
    }
}

/// Are both base chains there? They go with the parent they were hooked into,
/// while the table stays.
pub(super) fn are_hooked(chains: &[ChainInfo]) -> bool {
    [FROM_LAN, TO_LAN]
        .iter()
        .all(|name| chains.iter().any(|c| c.name == *name && c.hook.is_some()))
}

/// Table, maps, chains and rules.
pub(super) fn create(batch: &mut Batch, table: Table<'_>, parent: &IfName) {
    batch.create_table(table);
    maps(batch, table);
    let chain = |name, hook| Chain { name, hook };
    let ingress = Hook::Ingress {
        device: parent,
        priority: LATE,
    };
    let egress = Hook::Egress {
        device: parent,
        priority: EARLY,
    };
    for (name, hook) in [
        (ALIASED, None),
        (UDP, None),
        (FROM_LAN, Some(ingress)),
        (TO_LAN, Some(egress)),
    ] {
        batch.add_chain(table, &chain(name, hook));
    }
    for (chain, comment, rule) in [
        (FROM_LAN, "requests, TCP", tcp_request()),
        (FROM_LAN, "requests, UDP", udp_request()),
        (FROM_LAN, "too many clients, UDP", udp_unremembered()),
        (FROM_LAN, "errors about answers", error_about_answer()),
        (FROM_LAN, "fragmented TCP", tcp_fragment()),
        (TO_LAN, "from an alias", goto_aliased()),
        (TO_LAN, "other UDP", goto_udp(Proto::Udp.number())),
        (TO_LAN, "other ICMP", goto_udp(ICMP)),
        (UDP, "first fragments", udp_first_fragment()),
        (UDP, "answers", udp_from_client()),
        (UDP, "later fragments", udp_later_fragment()),
        (UDP, "errors about requests", udp_error()),
        (UDP, "not remembered", goto_aliased()),
        (ALIASED, "answers, TCP", answer(Proto::Tcp)),
        (ALIASED, "answers, UDP", answer(Proto::Udp)),
        (ALIASED, "later fragments, UDP", later_fragment()),
        (ALIASED, "errors about requests", error_about_request()),
        (ALIASED, "never on the wire", drop_alias()),
    ] {
        batch.add_rule(table, chain, &rule, Some(comment));
    }
}

fn maps(batch: &mut Batch, table: Table<'_>) {
    use Type::{EtherAddr, InetProto, InetService, Ipv4Addr};
    let port: &[Type] = &[InetProto, Ipv4Addr, InetService];
    let alias: &[Type] = &[Ipv4Addr];
    let map = |name, key, value| Set {
        name,
        key,
        data: Some(value),
    };
    for set in [
        map(TO_ADDR, port, &[Ipv4Addr]),
        map(TO_PORT, port, &[InetService]),
        map(TO_MAC, port, &[EtherAddr]),
        map(TO_ALIAS, port, &[Ipv4Addr]),
        map(AS_ADDR, alias, &[Ipv4Addr]),
        map(AS_MAC, alias, &[EtherAddr]),
        map(AS_PORT, port, &[InetService]),
    ] {
        batch.add_sized_set(table, &set, MAX_ELEMENTS);
    }
    let inside = Set {
        name: INSIDE,
        key: alias,
        data: None,
    };
    batch.add_sized_set(table, &inside, MAX_ELEMENTS);
    let client = map(
        CLIENTS,
        &[Ipv4Addr, InetService, Ipv4Addr, InetService],
        &[Ipv4Addr],
    );
    batch.add_dynamic_set(table, &client, CLIENT_TIMEOUT, MAX_CLIENTS);
    // The identification is no port, but of its width.
    let fragment = map(FRAGMENTS, &[Ipv4Addr, Ipv4Addr, InetService], &[Ipv4Addr]);
    batch.add_dynamic_set(table, &fragment, FRAGMENT_TIMEOUT, MAX_FRAGMENTS);
}

// --- the rules

const ICMP: u8 = 1;

// Registers, as words. The first one is also for comparisons, which come
// before the key that begins there.
const KEY: u32 = 0;
/// A key of up to four words, apart from the first.
const OTHER_KEY: u32 = 4;
/// What is written into the packet.
const ADDR: u32 = 8;
const PORT: u32 = 9;
const MAC: u32 = 10;
const ALIAS: u32 = 12;

/// ICMP types 3 and 11 (destination unreachable, time exceeded) without the
/// bit in which they differ.
const ERRORS: u8 = 3;
const ERROR_MASK: u8 = !8;

/// The bits of the fragment field: more to come, and the offset.
const MORE: [u8; 2] = [0x20, 0];
const OFFSET: [u8; 2] = [0x1f, 0xff];
const ANY_FRAGMENT: [u8; 2] = [0x3f, 0xff];

const fn field(header: Header, offset: u32, len: u32) -> Field {
    Field {
        header,
        offset,
        len,
    }
}
const ETHERTYPE: Field = field(Header::Link, 12, 2);
const IP4_ID: Field = field(Header::Network, 4, 2);
const ICMP_TYPE: Field = field(Header::Transport, 0, 1);
/// The packet inside an ICMP error begins behind its eight bytes.
const INNER_VERSION: Field = field(Header::Transport, 8, 1);
const INNER_FRAGMENT: Field = field(Header::Transport, 8 + 6, 2);
const INNER_PROTO: Field = field(Header::Transport, 8 + 9, 1);
const INNER_SADDR: Field = field(Header::Transport, 8 + 12, 4);
const INNER_DADDR: Field = field(Header::Transport, 8 + 16, 4);
const INNER_SPORT: Field = field(Header::Transport, 8 + 20, 2);
const INNER_DPORT: Field = field(Header::Transport, 8 + 22, 2);

fn load(field: Field, word: u32) -> Expr {
    Expr::Load {
        field,
        into: Reg::word(word),
    }
}

fn compare(op: Cmp, value: &[u8]) -> Expr {
    Expr::Cmp {
        reg: Reg::word(0),
        op,
        value: value.to_vec(),
    }
}

fn field_is(field: Field, value: &[u8]) -> [Expr; 2] {
    [load(field, 0), compare(Cmp::Eq, value)]
}

fn masked(field: Field, mask: &[u8], op: Cmp, value: &[u8]) -> [Expr; 3] {
    let bits = Expr::Bitwise {
        from: Reg::word(0),
        into: Reg::word(0),
        mask: mask.to_vec(),
        xor: vec![0; mask.len()],
    };
    [load(field, 0), bits, compare(op, value)]
}

fn meta_is(key: Meta, value: &[u8]) -> [Expr; 2] {
    let into = Reg::word(0);
    [Expr::Meta { key, into }, compare(Cmp::Eq, value)]
}

fn lookup(map: &str, key: u32, into: u32) -> Expr {
    Expr::Lookup {
        set: map.to_owned(),
        key: Reg::word(key),
        into: Some(Reg::word(into)),
        invert: false,
    }
}

fn store(field: Field, word: u32, checksum: Checksum) -> Expr {
    Expr::Store {
        field,
        from: Reg::word(word),
        checksum,
    }
}

fn update(set: &str, key: u32, data: u32, timeout: Duration) -> Expr {
    Expr::Update {
        set: set.to_owned(),
        key: Reg::word(key),
        data: Some(Reg::word(data)),
        timeout,
    }
}

fn accept() -> [Expr; 2] {
    [Expr::Counter, Expr::Verdict(Verdict::Accept)]
}

/// To the host itself, of this protocol, not tagged. The EtherType is read
/// from the frame: for a tagged one that is the tag's, while the metadata
/// shows what is inside.
fn for_host(proto: u8) -> Vec<Expr> {
    const PACKET_HOST: u8 = 0;
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[proto]));
    rule.extend(meta_is(Meta::PktType, &[PACKET_HOST]));
    rule.extend(field_is(ETHERTYPE, &[8, 0]));
    rule
}

fn l4proto() -> Expr {
    Expr::Meta {
        key: Meta::L4Proto,
        into: Reg::word(KEY),
    }
}

/// What a request's headers become, by (protocol, host's address, port).
fn container(key: [Expr; 3]) -> Vec<Expr> {
    let mut rule = Vec::from(key);
    rule.push(lookup(TO_ADDR, KEY, ADDR));
    rule.push(lookup(TO_PORT, KEY, PORT));
    rule.push(lookup(TO_MAC, KEY, MAC));
    rule
}

fn request() -> [Expr; 3] {
    [
        l4proto(),
        load(Field::IP4_DADDR, KEY + 1),
        load(Field::DPORT, KEY + 2),
    ]
}

/// The host's address and MAC for the alias that the packet comes from.
fn host() -> [Expr; 3] {
    [
        load(Field::IP4_SADDR, OTHER_KEY),
        lookup(AS_ADDR, OTHER_KEY, ADDR),
        lookup(AS_MAC, OTHER_KEY, MAC),
    ]
}

fn whole() -> [Expr; 3] {
    masked(Field::IP4_FRAGMENT, &ANY_FRAGMENT, Cmp::Eq, &[0, 0])
}

fn tcp_request() -> Vec<Expr> {
    let mut rule = for_host(Proto::Tcp.number());
    rule.extend(whole());
    rule.extend(container(request()));
    rule.push(store(Field::ETHER_DADDR, MAC, Checksum::None));
    rule.push(store(Field::IP4_DADDR, ADDR, Checksum::IP4_ADDR));
    rule.push(store(Field::DPORT, PORT, Checksum::TCP));
    rule.extend(accept());
    rule
}

/// Fragments of UDP stay the host's: it puts them together for the proxy.
fn udp_request() -> Vec<Expr> {
    let mut rule = for_host(Proto::Udp.number());
    rule.extend(whole());
    rule.extend(container(request()));
    rule.push(lookup(TO_ALIAS, KEY, ALIAS));
    rule.push(store(Field::IP4_DADDR, ALIAS, Checksum::IP4_ADDR));
    rule.push(load(Field::IP4_DADDR, ALIAS));
    rule.push(store(Field::IP4_DADDR, ADDR, Checksum::IP4_ADDR));
    rule.push(store(Field::DPORT, PORT, Checksum::UDP));
    for (n, field) in (0..).zip([
        Field::IP4_SADDR,
        Field::SPORT,
        Field::IP4_DADDR,
        Field::DPORT,
    ]) {
        rule.push(load(field, OTHER_KEY + n));
    }
    rule.push(update(CLIENTS, OTHER_KEY, ALIAS, CLIENT_TIMEOUT));
    rule.push(store(Field::ETHER_DADDR, MAC, Checksum::None));
    rule.extend(accept());
    rule
}

/// The rule before ended in the middle, at the full map: the packet has the
/// container's address and the host's MAC.
fn udp_unremembered() -> Vec<Expr> {
    let mut rule = for_host(Proto::Udp.number());
    rule.extend(inside(Field::IP4_DADDR));
    rule.extend(discard());
    rule
}

fn inside(field: Field) -> [Expr; 2] {
    let is_in = Expr::Lookup {
        set: INSIDE.to_owned(),
        key: Reg::word(KEY),
        into: None,
        invert: false,
    };
    [load(field, KEY), is_in]
}

fn discard() -> [Expr; 2] {
    [Expr::Counter, Expr::Verdict(Verdict::Drop)]
}

fn tcp_fragment() -> Vec<Expr> {
    let mut rule = for_host(Proto::Tcp.number());
    let fragment = masked(Field::IP4_FRAGMENT, &ANY_FRAGMENT, Cmp::Neq, &[0, 0]);
    rule.extend(fragment);
    rule.extend(request());
    // Only whether it is published: what it leads to stays where it is.
    rule.push(lookup(TO_MAC, KEY, MAC));
    rule.push(store(Field::ETHER_DADDR, MAC, Checksum::None));
    rule.extend(discard());
    rule
}

/// An ICMP error with the head of a whole packet (without IP options) in it.
fn is_error() -> Vec<Expr> {
    const VERSION_4_WITHOUT_OPTIONS: u8 = 0x45;
    let mut rule = Vec::new();
    rule.extend(masked(ICMP_TYPE, &[ERROR_MASK], Cmp::Eq, &[ERRORS]));
    rule.extend(field_is(INNER_VERSION, &[VERSION_4_WITHOUT_OPTIONS]));
    rule.extend(masked(INNER_FRAGMENT, &OFFSET, Cmp::Eq, &[0, 0]));
    rule
}

/// Rewrites the inner packet. Its header's checksum makes up for its address,
/// so that the error's own checksum is only about the port.
fn inner(addr: Field, port: Field) -> [Expr; 2] {
    const ICMP: Checksum = Checksum::Inet { offset: 2 };
    [store(addr, ADDR, INNER_HEADER), store(port, PORT, ICMP)]
}

const INNER_HEADER: Checksum = Checksum::Inet { offset: 8 + 10 };
/// An address that no other checksum than its header's knows of.
const IP_ONLY: Checksum = Checksum::Inet { offset: 10 };

/// "Fragmentation needed" and the like, from a router or the client.
fn error_about_answer() -> Vec<Expr> {
    let mut rule = for_host(ICMP);
    rule.extend(whole());
    rule.extend(is_error());
    rule.extend(container([
        load(INNER_PROTO, KEY),
        load(INNER_SADDR, KEY + 1),
        load(INNER_SPORT, KEY + 2),
    ]));
    rule.push(store(Field::ETHER_DADDR, MAC, Checksum::None));
    rule.push(store(Field::IP4_DADDR, ADDR, IP_ONLY));
    rule.extend(inner(INNER_SADDR, INNER_SPORT));
    rule.extend(accept());
    rule
}

fn goto_aliased() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::Protocol, &[8, 0]));
    let pool = POOL.octets();
    rule.extend(masked(
        Field::IP4_SADDR,
        &POOL_MASK.octets(),
        Cmp::Eq,
        &pool,
    ));
    rule.push(goto(ALIASED));
    rule
}

fn goto(chain: &str) -> Expr {
    Expr::Verdict(Verdict::Goto(chain.to_owned()))
}

fn goto_udp(proto: u8) -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[proto]));
    rule.extend(meta_is(Meta::Protocol, &[8, 0]));
    rule.push(goto(UDP));
    rule
}

// --- chain udp

/// The client of an answer, looked up.
fn client() -> [Expr; 5] {
    [
        load(Field::IP4_DADDR, OTHER_KEY),
        load(Field::DPORT, OTHER_KEY + 1),
        load(Field::IP4_SADDR, OTHER_KEY + 2),
        load(Field::SPORT, OTHER_KEY + 3),
        lookup(CLIENTS, OTHER_KEY, ADDR),
    ]
}

/// What fragments of one packet have in common.
fn identity() -> [Expr; 3] {
    [
        load(Field::IP4_SADDR, KEY),
        load(Field::IP4_DADDR, KEY + 1),
        load(IP4_ID, KEY + 2),
    ]
}

/// The alias that was looked up, as the packet's source and to be remembered.
fn give_alias() -> [Expr; 2] {
    [
        store(Field::IP4_SADDR, ADDR, Checksum::IP4_ADDR),
        load(Field::IP4_SADDR, ALIAS),
    ]
}

fn udp_first_fragment() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[Proto::Udp.number()]));
    rule.extend(masked(Field::IP4_FRAGMENT, &ANY_FRAGMENT, Cmp::Eq, &MORE));
    rule.extend(client());
    rule.extend(identity());
    rule.extend(give_alias());
    rule.push(update(FRAGMENTS, KEY, ALIAS, FRAGMENT_TIMEOUT));
    rule.push(goto(ALIASED));
    rule
}

/// Answers keep their client too: a service may talk for long while nobody
/// answers.
fn udp_from_client() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[Proto::Udp.number()]));
    rule.extend(masked(Field::IP4_FRAGMENT, &OFFSET, Cmp::Eq, &[0, 0]));
    rule.extend(client());
    rule.extend(give_alias());
    rule.push(update(CLIENTS, OTHER_KEY, ALIAS, CLIENT_TIMEOUT));
    rule.push(goto(ALIASED));
    rule
}

fn udp_later_fragment() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[Proto::Udp.number()]));
    rule.extend(masked(Field::IP4_FRAGMENT, &OFFSET, Cmp::Neq, &[0, 0]));
    rule.extend(identity());
    rule.push(lookup(FRAGMENTS, KEY, ADDR));
    rule.push(store(Field::IP4_SADDR, ADDR, IP_ONLY));
    rule.push(goto(ALIASED));
    rule
}

/// "Port unreachable": nobody listens in the container.
fn udp_error() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[ICMP]));
    rule.extend(is_error());
    rule.extend(field_is(INNER_PROTO, &[Proto::Udp.number()]));
    for (n, field) in (0..).zip([INNER_SADDR, INNER_SPORT, INNER_DADDR, INNER_DPORT]) {
        rule.push(load(field, OTHER_KEY + n));
    }
    rule.push(lookup(CLIENTS, OTHER_KEY, ADDR));
    rule.push(store(Field::IP4_SADDR, ADDR, IP_ONLY));
    rule.push(store(INNER_DADDR, ADDR, INNER_HEADER));
    rule.push(goto(ALIASED));
    rule
}

// --- chain aliased

fn answer(proto: Proto) -> Vec<Expr> {
    let checksum = match proto {
        Proto::Tcp => Checksum::TCP,
        Proto::Udp => Checksum::UDP,
    };
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[proto.number()]));
    rule.push(l4proto());
    rule.push(load(Field::IP4_SADDR, KEY + 1));
    rule.push(load(Field::SPORT, KEY + 2));
    rule.push(lookup(AS_PORT, KEY, PORT));
    rule.extend(host());
    rule.push(store(Field::ETHER_SADDR, MAC, Checksum::None));
    rule.push(store(Field::IP4_SADDR, ADDR, Checksum::IP4_ADDR));
    rule.push(store(Field::SPORT, PORT, checksum));
    rule.extend(accept());
    rule
}

/// The first fragment has the UDP checksum.
fn later_fragment() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[Proto::Udp.number()]));
    rule.extend(masked(Field::IP4_FRAGMENT, &OFFSET, Cmp::Neq, &[0, 0]));
    rule.extend(host());
    rule.push(store(Field::ETHER_SADDR, MAC, Checksum::None));
    rule.push(store(Field::IP4_SADDR, ADDR, IP_ONLY));
    rule.extend(accept());
    rule
}

fn error_about_request() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[ICMP]));
    rule.extend(is_error());
    rule.push(load(INNER_PROTO, KEY));
    rule.push(load(INNER_DADDR, KEY + 1));
    rule.push(load(INNER_DPORT, KEY + 2));
    rule.push(lookup(AS_PORT, KEY, PORT));
    rule.extend(host());
    rule.push(store(Field::ETHER_SADDR, MAC, Checksum::None));
    rule.push(store(Field::IP4_SADDR, ADDR, IP_ONLY));
    rule.extend(inner(INNER_DADDR, INNER_DPORT));
    rule.extend(accept());
    rule
}

/// Only what is an alias here: the range is not ours alone.
fn drop_alias() -> Vec<Expr> {
    let mut rule = Vec::from(inside(Field::IP4_SADDR));
    rule.extend(discard());
    rule
}
