//! Rule expressions: the instructions of nf_tables' little machine, which
//! loads packet fields into registers, compares, looks up and writes back.

use std::time::Duration;

use super::attr;

/// A data register. There are sixteen of four bytes; a longer value takes the
/// ones after it, and a concatenation is fields in consecutive registers, each
/// field starting on a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(u32);

impl Reg {
    /// The `n`th four-byte register, 0 to 15. Every fourth has an older number
    /// too (NFT_REG_1 to NFT_REG_4), which nft uses and the kernel reports.
    pub const fn word(n: u32) -> Self {
        const NFT_REG_1: u32 = 1;
        const NFT_REG32_00: u32 = 8;
        if n.is_multiple_of(4) {
            Self(NFT_REG_1 + n / 4)
        } else {
            Self(NFT_REG32_00 + n)
        }
    }
}

/// Packet metadata (NFT_META_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// EtherType, two bytes, network order.
    Protocol,
    /// skb priority, four bytes, host order.
    Priority,
    /// fwmark, four bytes, host order.
    Mark,
    /// Input interface index, four bytes, host order.
    Iif,
    Oif,
    /// Link type of the input interface (ARPHRD_*), two bytes, host order.
    IifType,
    OifType,
    /// Address family of the packet (NFPROTO_*), one byte.
    NfProto,
    /// IP protocol, one byte.
    L4Proto,
    /// PACKET_*, one byte.
    PktType,
}

impl Meta {
    const fn key(self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Priority => 2,
            Self::Mark => 3,
            Self::Iif => 4,
            Self::Oif => 5,
            Self::IifType => 8,
            Self::OifType => 9,
            Self::NfProto => 15,
            Self::L4Proto => 16,
            Self::PktType => 19,
        }
    }
}

/// Which header a payload offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Link,
    Network,
    Transport,
}

/// A span of a header: `len` bytes at `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub header: Header,
    pub offset: u32,
    pub len: u32,
}

impl Field {
    const fn new(header: Header, offset: u32, len: u32) -> Self {
        Self {
            header,
            offset,
            len,
        }
    }

    /// Counted from the Ethernet header's first byte: what leaves on the wire,
    /// wherever the sender says that the network header begins.
    pub const fn frame(offset: u32, len: u32) -> Self {
        Self::new(Header::Link, offset, len)
    }

    pub const ETHER_DADDR: Self = Self::new(Header::Link, 0, 6);
    pub const ETHER_SADDR: Self = Self::new(Header::Link, 6, 6);
    /// The two bytes with the fragment flags and offset.
    pub const IP4_FRAGMENT: Self = Self::new(Header::Network, 6, 2);
    pub const IP4_SADDR: Self = Self::new(Header::Network, 12, 4);
    pub const IP4_DADDR: Self = Self::new(Header::Network, 16, 4);
    pub const IP6_SADDR: Self = Self::new(Header::Network, 8, 16);
    pub const IP6_DADDR: Self = Self::new(Header::Network, 24, 16);
    /// Sender address of an IPv4-over-Ethernet ARP packet.
    pub const ARP_SADDR_IP: Self = Self::new(Header::Network, 14, 4);
    pub const ARP_DADDR_IP: Self = Self::new(Header::Network, 24, 4);
    /// TCP and UDP alike.
    pub const SPORT: Self = Self::new(Header::Transport, 0, 2);
    pub const DPORT: Self = Self::new(Header::Transport, 2, 2);
}

/// Which checksum a payload write has to mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    None,
    /// An Internet checksum at this offset of the written header.
    Inet {
        offset: u32,
    },
    /// The same, and the field is part of the transport pseudo-header too
    /// (IP addresses): the kernel finds and mends TCP's, UDP's and ICMPv6's.
    InetAndPseudo {
        offset: u32,
    },
    /// Only the pseudo-header (IPv6 addresses: that header has no checksum).
    PseudoOnly,
}

impl Checksum {
    pub const IP4_ADDR: Self = Self::InetAndPseudo { offset: 10 };
    pub const IP6_ADDR: Self = Self::PseudoOnly;
    pub const TCP: Self = Self::Inet { offset: 16 };
    /// A zero (absent) UDP checksum stays zero.
    pub const UDP: Self = Self::Inet { offset: 6 };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Drop,
    Accept,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// Metadata into a register.
    Meta {
        key: Meta,
        into: Reg,
    },
    /// A register into metadata (mark, priority, packet type).
    SetMeta {
        key: Meta,
        from: Reg,
    },
    /// A header field into a register.
    Load {
        field: Field,
        into: Reg,
    },
    /// A register into a header field.
    Store {
        field: Field,
        from: Reg,
        checksum: Checksum,
    },
    /// Ends the rule unless it holds. Bytes in the packet's order.
    Cmp {
        reg: Reg,
        op: Cmp,
        value: Vec<u8>,
    },
    /// `(from & mask) ^ xor`, all of one length.
    Bitwise {
        from: Reg,
        into: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    /// A constant into a register.
    Immediate {
        into: Reg,
        value: Vec<u8>,
    },
    /// Ends the rule unless the key in `key` is (or, inverted, is not) in the
    /// set; with `into`, the map's value goes there.
    Lookup {
        set: String,
        key: Reg,
        into: Option<Reg>,
        invert: bool,
    },
    /// Writes an element of a dynamic set (in a map with the value in `data`),
    /// or renews the timeout of the one that is there, whose value stays. Ends
    /// the rule when the set is full.
    Update {
        set: String,
        key: Reg,
        data: Option<Reg>,
        timeout: Duration,
    },
    Counter,
    /// Ends the rule as long as packets of at most so many bytes a second come
    /// by: what goes on is too much. What a second lets through, and `burst`
    /// bytes, can come at once after a pause.
    LimitOver {
        bytes: u64,
        burst: u32,
    },
    /// The connection's state (NF_CT_STATE bits), four bytes, host order. In
    /// this namespace connections are tracked from now on.
    CtState {
        into: Reg,
    },
    /// ICMP or ICMPv6 "administratively prohibited" to the sender, and drop.
    Prohibit,
    Verdict(Verdict),
}

impl Expr {
    /// As `NFTA_LIST_ELEM`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        const NFTA_LIST_ELEM: u16 = 1;
        const NFTA_EXPR_NAME: u16 = 1;
        const NFTA_EXPR_DATA: u16 = 2;
        attr::nest(out, NFTA_LIST_ELEM, |out| {
            attr::text(out, NFTA_EXPR_NAME, self.name());
            attr::nest(out, NFTA_EXPR_DATA, |out| self.write_data(out));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Load { .. } | Self::Store { .. } => "payload",
            Self::Cmp { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Lookup { .. } => "lookup",
            Self::Update { .. } => "dynset",
            Self::Counter => "counter",
            Self::LimitOver { .. } => "limit",
            Self::CtState { .. } => "ct",
            Self::Prohibit => "reject",
        }
    }

    /// The attribute numbers are those of enum nft_*_attributes, in order.
    fn write_data(&self, out: &mut Vec<u8>) {
        match self {
            Self::Meta { key, into } => {
                attr::be32(out, 2, key.key());
                attr::be32(out, 1, into.0);
            }
            Self::SetMeta { key, from } => {
                attr::be32(out, 2, key.key());
                attr::be32(out, 3, from.0);
            }
            Self::Load { field, into } => {
                attr::be32(out, 1, into.0);
                field.write(out);
            }
            Self::Store {
                field,
                from,
                checksum,
            } => {
                attr::be32(out, 5, from.0);
                field.write(out);
                checksum.write(out);
            }
            Self::Cmp { reg, op, value } => {
                attr::be32(out, 1, reg.0);
                attr::be32(out, 2, op.number());
                attr::data(out, 3, value);
            }
            Self::Bitwise {
                from,
                into,
                mask,
                xor,
            } => {
                attr::be32(out, 1, from.0);
                attr::be32(out, 2, into.0);
                attr::be32(out, 3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                attr::be32(out, 6, 0);
                attr::data(out, 4, mask);
                attr::data(out, 5, xor);
            }
            Self::Immediate { into, value } => {
                attr::be32(out, 1, into.0);
                attr::data(out, 2, value);
            }
            Self::Lookup {
                set,
                key,
                into,
                invert,
            } => {
                attr::be32(out, 2, key.0);
                if let Some(into) = into {
                    attr::be32(out, 3, into.0);
                }
                attr::text(out, 1, set);
                if *invert {
                    attr::be32(out, 5, 1);
                }
            }
            Self::Update {
                set,
                key,
                data,
                timeout,
            } => {
                const NFT_DYNSET_OP_UPDATE: u32 = 1;
                attr::be32(out, 4, key.0);
                if let Some(data) = data {
                    attr::be32(out, 5, data.0);
                }
                attr::be32(out, 3, NFT_DYNSET_OP_UPDATE);
                attr::text(out, 1, set);
                attr::be64(out, 6, super::milliseconds(*timeout));
            }
            // Starts at zero.
            Self::Counter => {}
            Self::LimitOver { bytes, burst } => {
                const NFT_LIMIT_PKT_BYTES: u32 = 1;
                const NFT_LIMIT_F_INV: u32 = 1;
                attr::be64(out, 1, *bytes);
                // In seconds; there is no shorter unit.
                attr::be64(out, 2, 1);
                attr::be32(out, 3, *burst);
                attr::be32(out, 4, NFT_LIMIT_PKT_BYTES);
                attr::be32(out, 5, NFT_LIMIT_F_INV);
            }
            Self::CtState { into } => {
                const NFT_CT_STATE: u32 = 0;
                attr::be32(out, 1, into.0);
                attr::be32(out, 2, NFT_CT_STATE);
            }
            Self::Prohibit => {
                const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
                const NFT_REJECT_ICMPX_ADMIN_PROHIBITED: u8 = 3;
                attr::be32(out, 1, NFT_REJECT_ICMPX_UNREACH);
                attr::put(out, 2, &[NFT_REJECT_ICMPX_ADMIN_PROHIBITED]);
            }
            Self::Verdict(verdict) => {
                const NFT_REG_VERDICT: u32 = 0;
                attr::be32(out, 1, NFT_REG_VERDICT);
                attr::nest(out, 2, |out| verdict.write(out));
            }
        }
    }
}

impl Field {
    fn write(self, out: &mut Vec<u8>) {
        let base = match self.header {
            Header::Link => 0,
            Header::Network => 1,
            Header::Transport => 2,
        };
        attr::be32(out, 2, base);
        attr::be32(out, 3, self.offset);
        attr::be32(out, 4, self.len);
    }
}

impl Checksum {
    fn write(self, out: &mut Vec<u8>) {
        const NFT_PAYLOAD_CSUM_INET: u32 = 1;
        const NFT_PAYLOAD_L4CSUM_PSEUDOHDR: u32 = 1;
        if let Self::Inet { offset } | Self::InetAndPseudo { offset } = self {
            attr::be32(out, 6, NFT_PAYLOAD_CSUM_INET);
            attr::be32(out, 7, offset);
        }
        if matches!(self, Self::InetAndPseudo { .. } | Self::PseudoOnly) {
            attr::be32(out, 8, NFT_PAYLOAD_L4CSUM_PSEUDOHDR);
        }
    }
}

impl Cmp {
    const fn number(self) -> u32 {
        match self {
            Self::Eq => 0,
            Self::Neq => 1,
            Self::Lt => 2,
            Self::Lte => 3,
            Self::Gt => 4,
            Self::Gte => 5,
        }
    }
}

impl Verdict {
    fn write(&self, out: &mut Vec<u8>) {
        const NFTA_DATA_VERDICT: u16 = 2;
        let (code, chain): (i32, Option<&str>) = match self {
            Self::Drop => (0, None),
            Self::Accept => (1, None),
            Self::Jump(chain) => (-3, Some(chain)),
            Self::Goto(chain) => (-4, Some(chain)),
            Self::Return => (-5, None),
        };
        attr::nest(out, NFTA_DATA_VERDICT, |out| {
            attr::put(out, 1, &code.to_be_bytes());
            if let Some(chain) = chain {
                attr::text(out, 2, chain);
            }
        });
    }
}
