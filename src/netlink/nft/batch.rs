//! A transaction under construction: what to add and delete, in order.

use std::ops::Range;
use std::time::Duration;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL};

use super::attr;
use super::expr::Expr;
use crate::base::{Cause, Error, IfName};

/// Address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Inet,
    Ipv4,
    Arp,
    Netdev,
    Bridge,
    Ipv6,
}

impl Family {
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ipv4 => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Bridge => 7,
            Self::Ipv6 => 10,
        }
    }

    pub(super) const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Inet,
            2 => Self::Ipv4,
            3 => Self::Arp,
            5 => Self::Netdev,
            7 => Self::Bridge,
            10 => Self::Ipv6,
            _ => return None,
        })
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ipv4 => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ipv6 => "ip6",
        }
    }
}

/// A table by name; everything else lives in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table<'a> {
    pub family: Family,
    pub name: &'a str,
}

/// What becomes of an owned table when its owner's socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    /// It stays, and is nobody's (Linux 6.9 and later; EOPNOTSUPP before).
    Stays,
    /// It goes (Linux 5.12 and later).
    Goes,
}

impl Owned {
    const fn flags(self) -> u32 {
        const NFT_TABLE_F_OWNER: u32 = 2;
        const NFT_TABLE_F_PERSIST: u32 = 4;
        match self {
            Self::Stays => NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST,
            Self::Goes => NFT_TABLE_F_OWNER,
        }
    }
}

/// Where a base chain is hooked in. Lower priorities run first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook<'a> {
    /// netdev family: what comes in through a device …
    Ingress { device: &'a IfName, priority: i32 },
    /// … and what goes out (Linux 5.16 and later; EOPNOTSUPP before).
    Egress { device: &'a IfName, priority: i32 },
    /// inet, ip and ip6: NF_INET_* 0 prerouting, 1 input, 2 forward, 3 output,
    /// 4 postrouting.
    Inet { hook: u32, priority: i32 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    pub name: &'a str,
    /// `None`: reached by jump and goto only. Base chains are of type filter
    /// with policy accept.
    pub hook: Option<Hook<'a>>,
}

/// The type of a set's key or data: one or (as a concatenation) several.
/// The numbers are nft's own, so that `nft list` shows what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Ipv4Addr,
    Ipv6Addr,
    EtherAddr,
    /// IP protocol number.
    InetProto,
    /// Port.
    InetService,
    Mark,
    /// Interface index.
    IfaceIndex,
}

impl Type {
    const fn number(self) -> u32 {
        match self {
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::EtherAddr => 9,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::IfaceIndex => 20,
        }
    }

    pub const fn width(self) -> usize {
        match self {
            Self::InetProto => 1,
            Self::InetService => 2,
            Self::Ipv4Addr | Self::Mark | Self::IfaceIndex => 4,
            Self::EtherAddr => 6,
            Self::Ipv6Addr => 16,
        }
    }
}

/// A set, or with `data` a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Set<'a> {
    pub name: &'a str,
    pub key: &'a [Type],
    pub data: Option<&'a [Type]>,
}

/// An element. A concatenation's fields are each padded to four bytes:
/// [`concat`](super::concat) does it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    pub key: Vec<u8>,
    pub data: Option<Vec<u8>>,
}

/// Fields of a concatenated key, each padded to four bytes.
pub fn concat(fields: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(fields.len() * 4);
    for field in fields {
        key.extend_from_slice(field);
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

/// One message of the batch.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub kind: u16,
    pub flags: u16,
    pub family: Family,
    /// Its attributes in `Batch::bytes`.
    pub body: Range<usize>,
    /// For errors: "add rule to chain", "in of table netdev dockless".
    pub op: &'static str,
    pub subject: String,
}

/// What to add and delete, in order; takes effect as a whole or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) bytes: Vec<u8>,
    next_set: u32,
}

/// More than this many elements would not fit into one attribute.
const ELEMENTS_PER_MESSAGE: usize = 256;

const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;

const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const DELSETELEM: u16 = 14;

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// There already is fine.
    pub fn add_table(&mut self, table: Table<'_>) {
        self.item(NEWTABLE, NLM_F_CREATE, table, "add table", "", |out| {
            attr::text(out, 1, table.name);
            attr::be32(out, 2, 0);
        });
    }

    /// EEXIST if it is there already.
    pub fn create_table(&mut self, table: Table<'_>) {
        self.add_table(table);
        if let Some(item) = self.items.last_mut() {
            item.flags |= NLM_F_EXCL;
        }
    }

    /// EEXIST if it is there already. From now on only the socket that commits
    /// it may change it or what is in it; everybody else gets EPERM, and `nft
    /// flush ruleset` passes it over.
    pub fn create_owned_table(&mut self, table: Table<'_>, owned: Owned) {
        self.add_owned_table(table, owned);
        if let Some(item) = self.items.last_mut() {
            item.flags |= NLM_F_EXCL;
        }
    }

    /// The same; there already is fine, if it is this socket's.
    pub fn add_owned_table(&mut self, table: Table<'_>, owned: Owned) {
        self.item(NEWTABLE, NLM_F_CREATE, table, "add table", "", |out| {
            attr::text(out, 1, table.name);
            attr::be32(out, 2, owned.flags());
        });
    }

    /// With everything in it. ENOENT if it is not there (to delete without
    /// asking, add it first in the same batch).
    pub fn delete_table(&mut self, table: Table<'_>) {
        self.item(DELTABLE, 0, table, "delete table", "", |out| {
            attr::text(out, 1, table.name);
        });
    }

    /// There already is fine, if it is hooked in alike.
    pub fn add_chain(&mut self, table: Table<'_>, chain: &Chain<'_>) {
        self.item(
            NEWCHAIN,
            NLM_F_CREATE,
            table,
            "add chain",
            chain.name,
            |out| {
                attr::text(out, 1, table.name);
                attr::text(out, 3, chain.name);
                if let Some(hook) = chain.hook {
                    const NF_ACCEPT: u32 = 1;
                    attr::text(out, 7, "filter");
                    attr::be32(out, 5, NF_ACCEPT);
                    attr::nest(out, 4, |out| hook.write(out));
                }
            },
        );
    }

    /// With its rules. ENOENT if it is not there, EBUSY if a rule jumps to it.
    pub fn delete_chain(&mut self, table: Table<'_>, chain: &str) {
        self.item(DELCHAIN, 0, table, "delete chain", chain, |out| {
            attr::text(out, 1, table.name);
            attr::text(out, 3, chain);
        });
    }

    /// At the end of its chain. `comment` is what `nft list` shows (at most
    /// 127 bytes).
    pub fn add_rule(
        &mut self,
        table: Table<'_>,
        chain: &str,
        exprs: &[Expr],
        comment: Option<&str>,
    ) {
        let flags = NLM_F_CREATE | NLM_F_APPEND;
        self.rule(flags, table, chain, exprs, comment);
    }

    /// The same before all rules that are there.
    pub fn insert_rule(
        &mut self,
        table: Table<'_>,
        chain: &str,
        exprs: &[Expr],
        comment: Option<&str>,
    ) {
        self.rule(NLM_F_CREATE, table, chain, exprs, comment);
    }

    fn rule(
        &mut self,
        flags: u16,
        table: Table<'_>,
        chain: &str,
        exprs: &[Expr],
        comment: Option<&str>,
    ) {
        self.item(NEWRULE, flags, table, "add rule to chain", chain, |out| {
            attr::text(out, 1, table.name);
            attr::text(out, 2, chain);
            attr::nest(out, 4, |out| {
                for expr in exprs {
                    expr.write(out);
                }
            });
            if let Some(comment) = comment {
                attr::put(out, 7, &comment_bytes(comment));
            }
        });
    }

    /// By handle, or all rules of the chain.
    pub fn delete_rule(&mut self, table: Table<'_>, chain: &str, handle: Option<u64>) {
        self.item(DELRULE, 0, table, "delete rule of chain", chain, |out| {
            attr::text(out, 1, table.name);
            attr::text(out, 2, chain);
            if let Some(handle) = handle {
                attr::be64(out, 3, handle);
            }
        });
    }

    /// There already is fine, if its types are the same.
    pub fn add_set(&mut self, table: Table<'_>, set: &Set<'_>) {
        self.set(table, set, 0, None, None);
    }

    /// The same with room for `size` elements, made at once: the kernel takes
    /// its fixed hash, which is faster, and whose listing is complete. The
    /// growing one, while it grows, lists elements twice or not at all (seen
    /// on Linux 6.18).
    pub fn add_sized_set(&mut self, table: Table<'_>, set: &Set<'_>, size: u32) {
        self.set(table, set, 0, Some(size), None);
    }

    /// A set or map that rules fill ([`Expr::Update`](super::Expr::Update)):
    /// an element goes `timeout` after it was last written, and there are at
    /// most `size`.
    pub fn add_dynamic_set(
        &mut self,
        table: Table<'_>,
        set: &Set<'_>,
        timeout: Duration,
        size: u32,
    ) {
        let flags = NFT_SET_TIMEOUT | NFT_SET_EVAL;
        self.set(table, set, flags, Some(size), Some(timeout));
    }

    fn set(
        &mut self,
        table: Table<'_>,
        set: &Set<'_>,
        flags: u32,
        size: Option<u32>,
        timeout: Option<Duration>,
    ) {
        const NFTA_SET_DESC_SIZE: u16 = 1;
        self.next_set += 1;
        let id = self.next_set;
        self.item(NEWSET, NLM_F_CREATE, table, "add set", set.name, |out| {
            attr::text(out, 1, table.name);
            attr::text(out, 2, set.name);
            set.write(out, flags, id);
            if let Some(size) = size {
                attr::nest(out, 9, |out| attr::be32(out, NFTA_SET_DESC_SIZE, size));
            }
            if let Some(timeout) = timeout {
                attr::be64(out, 11, super::milliseconds(timeout));
            }
        });
    }

    pub fn delete_set(&mut self, table: Table<'_>, set: &str) {
        self.item(DELSET, 0, table, "delete set", set, |out| {
            attr::text(out, 1, table.name);
            attr::text(out, 2, set);
        });
    }

    /// The same element is there already: fine. In a map the same key with
    /// other data: EEXIST.
    pub fn add_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) {
        self.elements(NEWSETELEM, NLM_F_CREATE, table, set, elements);
    }

    /// EEXIST if one of them is there already.
    pub fn create_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) {
        self.elements(NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, table, set, elements);
    }

    /// By key. ENOENT if one of them is not there.
    pub fn delete_elements(&mut self, table: Table<'_>, set: &str, elements: &[Element]) {
        self.elements(DELSETELEM, 0, table, set, elements);
    }

    fn elements(
        &mut self,
        kind: u16,
        flags: u16,
        table: Table<'_>,
        set: &str,
        elements: &[Element],
    ) {
        let op = if kind == NEWSETELEM {
            "add elements to set"
        } else {
            "delete elements of set"
        };
        for part in elements.chunks(ELEMENTS_PER_MESSAGE) {
            self.item(kind, flags, table, op, set, |out| {
                attr::text(out, 1, table.name);
                attr::text(out, 2, set);
                attr::nest(out, 3, |out| {
                    for element in part {
                        element.write(out, kind == NEWSETELEM);
                    }
                });
            });
        }
    }

    /// Asks for the handle that the kernel gives to what was added last:
    /// [`Nft::commit`](super::Nft::commit) returns them in order.
    pub fn echo(&mut self) {
        if let Some(item) = self.items.last_mut() {
            item.flags |= NLM_F_ECHO;
        }
    }

    fn item(
        &mut self,
        kind: u16,
        flags: u16,
        table: Table<'_>,
        op: &'static str,
        name: &str,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.bytes.len();
        fill(&mut self.bytes);
        let whose = if name.is_empty() {
            String::new()
        } else {
            format!("{name} of table ")
        };
        self.items.push(Item {
            kind,
            flags,
            family: table.family,
            body: start..self.bytes.len(),
            op,
            subject: format!("{whose}{} {}", table.family.name(), table.name),
        });
    }
}

impl Hook<'_> {
    fn write(self, out: &mut Vec<u8>) {
        // NF_NETDEV_INGRESS and NF_NETDEV_EGRESS.
        let (number, priority, device) = match self {
            Self::Ingress { device, priority } => (0, priority, Some(device)),
            Self::Egress { device, priority } => (1, priority, Some(device)),
            Self::Inet { hook, priority } => (hook, priority, None),
        };
        attr::be32(out, 1, number);
        attr::put(out, 2, &priority.to_be_bytes());
        if let Some(device) = device {
            attr::text(out, 3, device.as_str());
        }
    }
}

impl Set<'_> {
    fn write(&self, out: &mut Vec<u8>, flags: u32, id: u32) {
        const NFT_SET_MAP: u32 = 8;
        let map = self.data.map_or(0, |_| NFT_SET_MAP);
        attr::be32(out, 3, flags | map);
        attr::be32(out, 4, type_number(self.key));
        attr::be32(out, 5, type_len(self.key));
        if let Some(data) = self.data {
            attr::be32(out, 6, type_number(data));
            attr::be32(out, 7, type_len(data));
        }
        attr::be32(out, 10, id);
    }
}

/// nft packs a concatenation's types into one number, six bits each.
fn type_number(types: &[Type]) -> u32 {
    types.iter().fold(0, |packed, t| packed << 6 | t.number())
}

fn type_len(types: &[Type]) -> u32 {
    let len = match types {
        [one] => one.width(),
        several => several.iter().map(|t| t.width().next_multiple_of(4)).sum(),
    };
    u32::try_from(len).unwrap_or(u32::MAX)
}

impl Element {
    fn write(&self, out: &mut Vec<u8>, with_data: bool) {
        const NFTA_LIST_ELEM: u16 = 1;
        attr::nest(out, NFTA_LIST_ELEM, |out| {
            attr::data(out, 1, &self.key);
            if let Some(data) = self.data.as_ref().filter(|_| with_data) {
                attr::data(out, 2, data);
            }
        });
    }
}

/// libnftnl's user data: type, length, bytes; type 0 is the comment.
fn comment_bytes(comment: &str) -> Vec<u8> {
    let mut text: Vec<u8> = comment.bytes().take(127).collect();
    text.push(0);
    let mut bytes = vec![0, u8::try_from(text.len()).unwrap_or(u8::MAX)];
    bytes.extend(text);
    bytes
}

impl Item {
    pub(super) fn refused(&self, cause: Cause) -> Error {
        Error::new(self.op, self.subject.clone(), cause)
    }
}
