//! From 127.0.0.11, port 53, to the resolver's own ports, inside the
//! container's namespace.
//!
//! The container may want port 53 for itself (on 0.0.0.0, which would clash
//! with ours on 127.0.0.11), so the resolver listens elsewhere and rules bring
//! the questions to it. They rewrite ports and nothing else: no NAT, and so no
//! connection tracking, which would slow down everything that the container
//! sends and fill a table for it. Where a container tracks connections by
//! itself, it sees one port on the way in and back: questions are rewritten
//! before it looks (output, raw priority), answers after (input, last).
//! The table goes with the namespace.

use std::net::Ipv4Addr;

use crate::base::{Proto, Result};
use crate::netlink::nft::{
    Batch, Chain, Checksum, Cmp, Expr, Family, Field, Hook, Meta, Nft, Reg, Table,
};
use crate::sys::netns::{Netns, Sandbox};

const TABLE: Table<'static> = Table {
    family: Family::Ipv4,
    name: "dockless-dns",
};
const NF_INET_LOCAL_IN: u32 = 1;
const NF_INET_LOCAL_OUT: u32 = 3;
/// Around connection tracking (-200) and filters (0).
const FIRST: i32 = -300;
const LAST: i32 = 300;
/// `domain`
pub(super) const PORT: u16 = 53;

/// One batch: both chains and four rules, or nothing.
pub(super) fn install(
    netns: &Netns<Sandbox>,
    at: Ipv4Addr,
    ports: [(Proto, u16); 2],
) -> Result<()> {
    let mut batch = Batch::new();
    batch.create_table(TABLE);
    for (chain, hook, priority) in [
        ("questions", NF_INET_LOCAL_OUT, FIRST),
        ("answers", NF_INET_LOCAL_IN, LAST),
    ] {
        let hook = Some(Hook::Inet { hook, priority });
        batch.add_chain(TABLE, &Chain { name: chain, hook });
    }
    for (proto, port) in ports {
        let to = rewrite(Field::IP4_DADDR, at, proto, (Field::DPORT, PORT, port));
        batch.add_rule(TABLE, "questions", &to, None);
        let back = rewrite(Field::IP4_SADDR, at, proto, (Field::SPORT, port, PORT));
        batch.add_rule(TABLE, "answers", &back, None);
    }
    Nft::sandbox(netns)?.commit(&batch).map(drop)
}

fn rewrite(
    end: Field,
    addr: Ipv4Addr,
    proto: Proto,
    (port, from, to): (Field, u16, u16),
) -> [Expr; 8] {
    const IPPROTO_TCP: u8 = 6;
    const IPPROTO_UDP: u8 = 17;
    let reg = Reg::word(0);
    let load = |field| Expr::Load { field, into: reg };
    let equal = |value: &[u8]| Expr::Cmp {
        reg,
        op: Cmp::Eq,
        value: value.to_vec(),
    };
    let (number, checksum) = match proto {
        Proto::Tcp => (IPPROTO_TCP, Checksum::TCP),
        Proto::Udp => (IPPROTO_UDP, Checksum::UDP),
    };
    [
        load(end),
        equal(&addr.octets()),
        Expr::Meta {
            key: Meta::L4Proto,
            into: reg,
        },
        equal(&[number]),
        load(port),
        equal(&from.to_be_bytes()),
        Expr::Immediate {
            into: reg,
            value: to.to_be_bytes().to_vec(),
        },
        Expr::Store {
            field: port,
            from: reg,
            checksum,
        },
    ]
}
