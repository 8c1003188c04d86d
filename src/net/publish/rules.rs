//! The table of one parent: what its rules do to a packet. Made once, by
//! whoever publishes first; ports come and go as elements of its maps.
//!
//! | chain | hook | rules |
//! |---|---|---|
//! | `from_lan` | ingress, late | TCP and UDP to a published port; ICMP errors about answers; first fragments of TCP are dropped |
//! | `to_lan` | egress, early | leads to one of these two |
//! | `aliased` | from an alias | TCP answers; ICMP errors about requests; what is left is dropped |
//! | `udp` | all other UDP and ICMP | UDP answers, their fragments, ICMP errors about UDP requests |
//!
//! Late in, early out: other people's netdev rules see what is on the wire.
//! Addresses are looked up before anything is written, so that a packet is
//! rewritten as a whole or stays the host's own (and then is the proxy's).
//!
//! Registers, in words: keys are built in 0..8, values arrive in 8..12 as
//! (address, port, MAC in two words).

use std::time::Duration;

use super::plan::{POOL, POOL_MASK};
use crate::base::{IfName, Proto};
use crate::netlink::nft::{
    Batch, Chain, Checksum, Cmp, Expr, Family, Field, Header, Hook, Meta, Reg, Set, Table, Type,
    Verdict,
};

pub(super) const FROM_LAN: &str = "from_lan";
pub(super) const TO_LAN: &str = "to_lan";
pub(super) const ALIASES: &str = "aliases";
const ALIASED: &str = "aliased";
const UDP: &str = "udp";
/// (client's address, port, container's address, port) → (host's address,
/// port, MAC): who came in through the host's address.
const CLIENTS: &str = "udp_clients";
/// (source, destination, identification) → (host's address, port, MAC).
const FRAGMENTS: &str = "udp_fragments";

const CLIENT_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_CLIENTS: u32 = 65_536;
const FRAGMENT_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_FRAGMENTS: u32 = 4096;

/// Behind others at ingress, before them at egress.
const LATE: i32 = 300;
const EARLY: i32 = -300;

const ENDPOINT: &[Type] = &[Type::Ipv4Addr, Type::InetService, Type::EtherAddr];

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
        (FROM_LAN, "errors about answers", error_about_answer()),
        (FROM_LAN, "fragmented TCP", tcp_fragment()),
        (TO_LAN, "from an alias", goto_aliased()),
        (TO_LAN, "UDP", goto_udp(Proto::Udp.number())),
        (TO_LAN, "ICMP", goto_udp(ICMP)),
        (ALIASED, "answers, TCP", tcp_answer()),
        (ALIASED, "errors about requests", error_about_request()),
        (ALIASED, "never on the wire", drop_alias()),
        (UDP, "first fragments, remembered", udp_first_fragment()),
        (UDP, "answers, UDP", udp_answer()),
        (UDP, "later fragments", udp_later_fragment()),
        (UDP, "errors about requests", error_about_udp_request()),
    ] {
        batch.add_rule(table, chain, &rule, Some(comment));
    }
}

fn maps(batch: &mut Batch, table: Table<'_>) {
    use Type::{InetProto, InetService, Ipv4Addr};
    let map = |name, key| Set {
        name,
        key,
        data: Some(ENDPOINT),
    };
    batch.add_set(table, &map(FROM_LAN, &[InetProto, Ipv4Addr, InetService]));
    batch.add_set(table, &map(TO_LAN, &[Ipv4Addr, InetService]));
    let aliases = Set {
        name: ALIASES,
        key: &[Ipv4Addr],
        data: None,
    };
    batch.add_set(table, &aliases);
    let client = &[Ipv4Addr, InetService, Ipv4Addr, InetService];
    batch.add_dynamic_set(table, &map(CLIENTS, client), CLIENT_TIMEOUT, MAX_CLIENTS);
    // The identification is no port, but of its width.
    let fragment = &[Ipv4Addr, Ipv4Addr, InetService];
    batch.add_dynamic_set(
        table,
        &map(FRAGMENTS, fragment),
        FRAGMENT_TIMEOUT,
        MAX_FRAGMENTS,
    );
}

// --- the rules

const ICMP: u8 = 1;
/// The value's words.
const ADDR: u32 = 8;
const PORT: u32 = 9;
const MAC: u32 = 10;

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

fn lookup(map: &str, key: u32) -> Expr {
    Expr::Lookup {
        set: map.to_owned(),
        key: Reg::word(key),
        into: Some(Reg::word(ADDR)),
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

/// (protocol, host's address, port) of the packet itself, looked up.
fn requested() -> [Expr; 4] {
    [
        Expr::Meta {
            key: Meta::L4Proto,
            into: Reg::word(0),
        },
        load(Field::IP4_DADDR, 1),
        load(Field::DPORT, 2),
        lookup(FROM_LAN, 0),
    ]
}

fn whole() -> [Expr; 3] {
    masked(Field::IP4_FRAGMENT, &ANY_FRAGMENT, Cmp::Eq, &[0, 0])
}

fn to_container(checksum: Checksum) -> [Expr; 3] {
    [
        store(Field::ETHER_DADDR, MAC, Checksum::None),
        store(Field::IP4_DADDR, ADDR, Checksum::IP4_ADDR),
        store(Field::DPORT, PORT, checksum),
    ]
}

fn from_host(checksum: Checksum) -> [Expr; 3] {
    [
        store(Field::ETHER_SADDR, MAC, Checksum::None),
        store(Field::IP4_SADDR, ADDR, Checksum::IP4_ADDR),
        store(Field::SPORT, PORT, checksum),
    ]
}

fn tcp_request() -> Vec<Expr> {
    let mut rule = for_host(Proto::Tcp.number());
    rule.extend(whole());
    rule.extend(requested());
    rule.extend(to_container(Checksum::TCP));
    rule.extend(accept());
    rule
}

/// Fragments of UDP stay the host's: it puts them together for the proxy.
fn udp_request() -> Vec<Expr> {
    let mut rule = for_host(Proto::Udp.number());
    rule.extend(whole());
    rule.extend(requested());
    // The key is the client's end (words 6, 7) and the container's (8, 9), the
    // value what the packet was sent to.
    rule.push(load(Field::IP4_SADDR, 6));
    rule.push(load(Field::SPORT, 7));
    rule.push(load(Field::IP4_DADDR, 12));
    rule.push(load(Field::DPORT, 13));
    rule.push(load(Field::ETHER_DADDR, 14));
    rule.push(update(CLIENTS, 6, 12, CLIENT_TIMEOUT));
    rule.extend(to_container(Checksum::UDP));
    rule.extend(accept());
    rule
}

fn tcp_fragment() -> Vec<Expr> {
    let mut rule = for_host(Proto::Tcp.number());
    rule.extend(masked(
        Field::IP4_FRAGMENT,
        &ANY_FRAGMENT,
        Cmp::Neq,
        &[0, 0],
    ));
    rule.extend(requested());
    rule.push(Expr::Counter);
    rule.push(Expr::Verdict(Verdict::Drop));
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
    const INNER_HEADER: Checksum = Checksum::Inet { offset: 8 + 10 };
    const ICMP: Checksum = Checksum::Inet { offset: 2 };
    [store(addr, ADDR, INNER_HEADER), store(port, PORT, ICMP)]
}

/// The address of an ICMP packet, whose checksum does not know it.
const ICMP_ADDR: Checksum = Checksum::Inet { offset: 10 };

/// "Fragmentation needed" and the like, from a router or the client.
fn error_about_answer() -> Vec<Expr> {
    let mut rule = for_host(ICMP);
    rule.extend(whole());
    rule.extend(is_error());
    rule.push(load(INNER_PROTO, 0));
    rule.push(load(INNER_SADDR, 1));
    rule.push(load(INNER_SPORT, 2));
    rule.push(lookup(FROM_LAN, 0));
    rule.push(store(Field::ETHER_DADDR, MAC, Checksum::None));
    rule.push(store(Field::IP4_DADDR, ADDR, ICMP_ADDR));
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
    rule.push(Expr::Verdict(Verdict::Goto(ALIASED.to_owned())));
    rule
}

fn goto_udp(proto: u8) -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[proto]));
    rule.extend(meta_is(Meta::Protocol, &[8, 0]));
    rule.push(Expr::Verdict(Verdict::Goto(UDP.to_owned())));
    rule
}

fn tcp_answer() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[Proto::Tcp.number()]));
    rule.push(load(Field::IP4_SADDR, 0));
    rule.push(load(Field::SPORT, 1));
    rule.push(lookup(TO_LAN, 0));
    rule.extend(from_host(Checksum::TCP));
    rule.extend(accept());
    rule
}

fn from_host_icmp(addr: Field, port: Field) -> Vec<Expr> {
    let mut rule = vec![
        store(Field::ETHER_SADDR, MAC, Checksum::None),
        store(Field::IP4_SADDR, ADDR, ICMP_ADDR),
    ];
    rule.extend(inner(addr, port));
    rule.extend(accept());
    rule
}

fn error_about_request() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[ICMP]));
    rule.extend(is_error());
    rule.extend(field_is(INNER_PROTO, &[Proto::Tcp.number()]));
    rule.push(load(INNER_DADDR, 0));
    rule.push(load(INNER_DPORT, 1));
    rule.push(lookup(TO_LAN, 0));
    rule.extend(from_host_icmp(INNER_DADDR, INNER_DPORT));
    rule
}

/// Only what is an alias here: the range is not ours alone.
fn drop_alias() -> Vec<Expr> {
    vec![
        load(Field::IP4_SADDR, 0),
        Expr::Lookup {
            set: ALIASES.to_owned(),
            key: Reg::word(0),
            into: None,
            invert: false,
        },
        Expr::Counter,
        Expr::Verdict(Verdict::Drop),
    ]
}

/// The client of an answer, looked up.
fn client() -> [Expr; 5] {
    [
        load(Field::IP4_DADDR, 4),
        load(Field::DPORT, 5),
        load(Field::IP4_SADDR, 6),
        load(Field::SPORT, 7),
        lookup(CLIENTS, 4),
    ]
}

fn fragment_key() -> [Expr; 3] {
    [
        load(Field::IP4_SADDR, 0),
        load(Field::IP4_DADDR, 1),
        load(IP4_ID, 2),
    ]
}

fn udp_first_fragment() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[Proto::Udp.number()]));
    rule.extend(masked(Field::IP4_FRAGMENT, &ANY_FRAGMENT, Cmp::Eq, &MORE));
    rule.extend(client());
    rule.extend(fragment_key());
    rule.push(update(FRAGMENTS, 0, ADDR, FRAGMENT_TIMEOUT));
    rule
}

/// Answers keep their client too: a service may talk for long while nobody
/// answers.
fn udp_answer() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[Proto::Udp.number()]));
    rule.extend(masked(Field::IP4_FRAGMENT, &OFFSET, Cmp::Eq, &[0, 0]));
    rule.extend(client());
    rule.push(update(CLIENTS, 4, ADDR, CLIENT_TIMEOUT));
    rule.extend(from_host(Checksum::UDP));
    rule.extend(accept());
    rule
}

fn udp_later_fragment() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[Proto::Udp.number()]));
    rule.extend(masked(Field::IP4_FRAGMENT, &OFFSET, Cmp::Neq, &[0, 0]));
    rule.extend(fragment_key());
    rule.push(lookup(FRAGMENTS, 0));
    rule.push(store(Field::ETHER_SADDR, MAC, Checksum::None));
    // The first fragment has the UDP checksum.
    rule.push(store(Field::IP4_SADDR, ADDR, ICMP_ADDR));
    rule.extend(accept());
    rule
}

/// "Port unreachable": nobody listens in the container.
fn error_about_udp_request() -> Vec<Expr> {
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[ICMP]));
    rule.extend(is_error());
    rule.extend(field_is(INNER_PROTO, &[Proto::Udp.number()]));
    rule.push(load(INNER_SADDR, 4));
    rule.push(load(INNER_SPORT, 5));
    rule.push(load(INNER_DADDR, 6));
    rule.push(load(INNER_DPORT, 7));
    rule.push(lookup(CLIENTS, 4));
    rule.extend(from_host_icmp(INNER_DADDR, INNER_DPORT));
    rule
}
