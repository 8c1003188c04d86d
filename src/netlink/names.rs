//! What attributes are called and how their values read, for the trace.
//! The numbers are the kernel's (if_link.h, if_addr.h, rtnetlink.h,
//! nf_tables.h); what is missing here is shown by number.

/// How an attribute's value reads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// 1, 2, 4 or 8 bytes in the machine's order.
    Number,
    /// The same in network order (all of nf_tables).
    BigEndian,
    Text,
    /// An IP address, a MAC address: by length.
    Address,
    Hex,
    Nest(Names),
    /// Attributes one below the other, each a nest of the same kind.
    List(Names),
    /// NFTA_DATA: a value or a verdict.
    Expr,
}
use Shape::{Address, BigEndian, Expr, Hex, List, Nest, Number, Text};

pub(super) type Names = &'static [(u16, &'static str, Shape)];

pub(super) const LINK: Names = &[
    (1, "ADDRESS", Address),
    (2, "BROADCAST", Address),
    (3, "IFNAME", Text),
    (4, "MTU", Number),
    (5, "LINK", Number),
    (6, "QDISC", Text),
    (10, "MASTER", Number),
    (13, "TXQLEN", Number),
    (16, "OPERSTATE", Number),
    (18, "LINKINFO", Nest(LINK_INFO)),
    (27, "GROUP", Number),
    (28, "NET_NS_FD", Number),
    (29, "EXT_MASK", Number),
    (33, "CARRIER", Number),
    (37, "LINK_NETNSID", Number),
    (46, "TARGET_NETNSID", Number),
    (52, "PROP_LIST", Nest(PROPERTIES)),
];
pub(super) const NSID: Names = &[(1, "NSID", Number), (3, "FD", Number)];
const PROPERTIES: Names = &[(53, "ALT_IFNAME", Text)];
const LINK_INFO: Names = &[(1, "KIND", Text), (2, "DATA", Hex), (4, "SLAVE_KIND", Text)];
/// IFLA_LINKINFO of a kind of link: each calls its data differently.
pub(super) fn link_info(kind: &str) -> Names {
    const fn with(data: Names) -> [(u16, &'static str, Shape); 3] {
        [
            (1, "KIND", Text),
            (2, "DATA", Nest(data)),
            (4, "SLAVE_KIND", Text),
        ]
    }
    const OF_MACVLAN: Names = &with(MACVLAN);
    const OF_IPVLAN: Names = &with(IPVLAN);
    const OF_VLAN: Names = &with(VLAN);
    match kind {
        "macvlan" | "macvtap" => OF_MACVLAN,
        "ipvlan" => OF_IPVLAN,
        "vlan" => OF_VLAN,
        _ => LINK_INFO,
    }
}
const IPVLAN: Names = &[(1, "MODE", Number), (2, "FLAGS", Number)];
const VLAN: Names = &[
    (1, "ID", Number),
    (2, "FLAGS", Hex),
    (5, "PROTOCOL", BigEndian),
];
const MACVLAN: Names = &[
    (1, "MODE", Number),
    (2, "FLAGS", Number),
    (3, "MACADDR_MODE", Number),
    (4, "MACADDR", Address),
    (5, "MACADDR_DATA", Nest(&[(4, "MACADDR", Address)])),
];
pub(super) const ADDR: Names = &[
    (1, "ADDRESS", Address),
    (2, "LOCAL", Address),
    (3, "LABEL", Text),
    (4, "BROADCAST", Address),
    (6, "CACHEINFO", Hex),
    (8, "FLAGS", Number),
];
pub(super) const ROUTE: Names = &[
    (1, "DST", Address),
    (2, "SRC", Address),
    (4, "OIF", Number),
    (5, "GATEWAY", Address),
    (6, "PRIORITY", Number),
    (7, "PREFSRC", Address),
    (15, "TABLE", Number),
];
pub(super) const NEIGH: Names = &[(1, "DST", Address), (2, "LLADDR", Address)];

pub(super) const NFT_TABLE: Names = &[
    (1, "NAME", Text),
    (2, "FLAGS", BigEndian),
    (3, "USE", BigEndian),
    (4, "HANDLE", BigEndian),
];
pub(super) const NFT_CHAIN: Names = &[
    (1, "TABLE", Text),
    (2, "HANDLE", BigEndian),
    (3, "NAME", Text),
    (4, "HOOK", Nest(NFT_HOOK)),
    (5, "POLICY", BigEndian),
    (6, "USE", BigEndian),
    (7, "TYPE", Text),
];
const NFT_HOOK: Names = &[
    (1, "NUM", BigEndian),
    (2, "PRIORITY", BigEndian),
    (3, "DEV", Text),
];
pub(super) const NFT_RULE: Names = &[
    (1, "TABLE", Text),
    (2, "CHAIN", Text),
    (3, "HANDLE", BigEndian),
    (4, "EXPRESSIONS", Expr),
    (7, "USERDATA", Hex),
];
pub(super) const NFT_SET: Names = &[
    (1, "TABLE", Text),
    (2, "NAME", Text),
    (3, "FLAGS", BigEndian),
    (4, "KEY_TYPE", BigEndian),
    (5, "KEY_LEN", BigEndian),
    (6, "DATA_TYPE", BigEndian),
    (7, "DATA_LEN", BigEndian),
    (9, "DESC", Hex),
    (10, "ID", BigEndian),
    (16, "HANDLE", BigEndian),
];
pub(super) const NFT_ELEMENTS: Names = &[
    (1, "TABLE", Text),
    (2, "SET", Text),
    (3, "ELEMENTS", List(NFT_ELEMENT)),
];
const NFT_ELEMENT: Names = &[
    (1, "KEY", Nest(NFT_DATA)),
    (2, "DATA", Nest(NFT_DATA)),
    (3, "FLAGS", BigEndian),
];
const NFT_DATA: Names = &[(1, "VALUE", Hex), (2, "VERDICT", Nest(NFT_VERDICT))];
const NFT_VERDICT: Names = &[(1, "CODE", BigEndian), (2, "CHAIN", Text)];
pub(super) const NFT_GEN: Names = &[
    (1, "ID", BigEndian),
    (2, "PID", BigEndian),
    (3, "NAME", Text),
];

/// What an expression's attributes are called.
pub(super) fn expression(name: &str) -> Names {
    const META: Names = &[
        (1, "DREG", BigEndian),
        (2, "KEY", BigEndian),
        (3, "SREG", BigEndian),
    ];
    const PAYLOAD: Names = &[
        (1, "DREG", BigEndian),
        (2, "BASE", BigEndian),
        (3, "OFFSET", BigEndian),
        (4, "LEN", BigEndian),
        (5, "SREG", BigEndian),
        (6, "CSUM_TYPE", BigEndian),
        (7, "CSUM_OFFSET", BigEndian),
        (8, "CSUM_FLAGS", BigEndian),
    ];
    const CMP: Names = &[
        (1, "SREG", BigEndian),
        (2, "OP", BigEndian),
        (3, "DATA", Nest(NFT_DATA)),
    ];
    const BITWISE: Names = &[
        (1, "SREG", BigEndian),
        (2, "DREG", BigEndian),
        (3, "LEN", BigEndian),
        (4, "MASK", Nest(NFT_DATA)),
        (5, "XOR", Nest(NFT_DATA)),
        (6, "OP", BigEndian),
    ];
    const IMMEDIATE: Names = &[(1, "DREG", BigEndian), (2, "DATA", Nest(NFT_DATA))];
    const LOOKUP: Names = &[
        (1, "SET", Text),
        (2, "SREG", BigEndian),
        (3, "DREG", BigEndian),
        (5, "FLAGS", BigEndian),
    ];
    const COUNTER: Names = &[(1, "BYTES", BigEndian), (2, "PACKETS", BigEndian)];
    match name {
        "meta" => META,
        "payload" => PAYLOAD,
        "cmp" => CMP,
        "bitwise" => BITWISE,
        "immediate" => IMMEDIATE,
        "lookup" => LOOKUP,
        "counter" => COUNTER,
        _ => &[],
    }
}
