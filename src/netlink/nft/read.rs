//! What the kernel says about its ruleset.

use super::batch::{Element, Family, Table};
use super::{Body, Nft, attr, message};
use crate::base::{Result, Subject};
use crate::netlink::wire::{self, Malformed, Message};
use crate::sys::netns::Place;

const GETTABLE: u16 = 1;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const GETSETELEM: u16 = 13;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    pub family: Family,
    pub name: String,
    pub handle: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainInfo {
    pub family: Family,
    pub table: String,
    pub name: String,
    pub handle: u64,
    /// Hook number and priority of a base chain.
    pub hook: Option<(u32, i32)>,
    pub device: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    pub chain: String,
    pub handle: u64,
    pub comment: Option<String>,
    /// Packets and bytes of its first counter.
    pub counter: Option<(u64, u64)>,
}

impl<P: Place> Nft<P> {
    /// All tables of all families (families unknown here left out).
    pub fn tables(&mut self) -> Result<Vec<TableInfo>> {
        self.channel
            .dump(message(GETTABLE), &Body::new(0, &[]), |payload| {
                let Some((family, attributes)) = split(payload)? else {
                    return Ok(None);
                };
                Ok(Some(TableInfo {
                    family,
                    name: text(attributes, 1),
                    handle: number(attributes, 4)?,
                }))
            })
            .map_err(|fault| fault.named("list nf_tables tables", Subject::None))
    }

    /// The chains of one table.
    pub fn chains(&mut self, table: Table<'_>) -> Result<Vec<ChainInfo>> {
        self.channel
            .dump(
                message(GETCHAIN),
                &Body::new(table.family.number(), &[]),
                |payload| Ok(chain(payload)?.filter(|chain| chain.table == table.name)),
            )
            .map_err(|fault| fault.named("list chains of", label(table)))
    }

    /// The rules of one table, or of one chain of it, in order.
    pub fn rules(&mut self, table: Table<'_>, chain: Option<&str>) -> Result<Vec<RuleInfo>> {
        let mut wanted = Vec::new();
        attr::text(&mut wanted, 1, table.name);
        if let Some(chain) = chain {
            attr::text(&mut wanted, 2, chain);
        }
        self.channel
            .dump(
                message(GETRULE),
                &Body::new(table.family.number(), &wanted),
                rule,
            )
            .map_err(|fault| fault.named("list rules of", label(table)))
    }

    /// The elements of a set or map. ENOENT if there is no such set.
    pub fn elements(&mut self, table: Table<'_>, set: &str) -> Result<Vec<Element>> {
        let mut wanted = Vec::new();
        attr::text(&mut wanted, 1, table.name);
        attr::text(&mut wanted, 2, set);
        let parts = self
            .channel
            .dump(
                message(GETSETELEM),
                &Body::new(table.family.number(), &wanted),
                |payload| {
                    let attributes = payload.get(4..).unwrap_or_default();
                    elements(wire::find(attributes, 3).unwrap_or_default()).map(Some)
                },
            )
            .map_err(|fault| {
                fault.named("list elements of", format!("{set} of {}", label(table)))
            })?;
        Ok(parts.into_iter().flatten().collect())
    }
}

fn label(table: Table<'_>) -> String {
    format!("table {} {}", table.family.name(), table.name)
}

/// `struct nfgenmsg`: the family, then the attributes.
fn split(payload: &[u8]) -> Result<Option<(Family, &[u8])>, Malformed> {
    let (head, attributes) = payload
        .split_first_chunk::<4>()
        .ok_or(Malformed("nf_tables header"))?;
    Ok(Family::from_number(head[0]).map(|family| (family, attributes)))
}

pub(in crate::netlink) fn chain(payload: &[u8]) -> Result<Option<ChainInfo>, Malformed> {
    let Some((family, attributes)) = split(payload)? else {
        return Ok(None);
    };
    let hook = wire::find(attributes, 4).map(|hook| -> Result<_, Malformed> {
        let number = be32_of(wire::find(hook, 1).unwrap_or_default())?;
        let priority = be32_of(wire::find(hook, 2).unwrap_or_default())?;
        Ok((number, priority.cast_signed()))
    });
    let device = wire::find(attributes, 4).and_then(|hook| wire::find(hook, 3));
    Ok(Some(ChainInfo {
        family,
        table: text(attributes, 1),
        name: text(attributes, 3),
        handle: number(attributes, 2)?,
        hook: hook.transpose()?,
        device: device.map(wire::text_of),
    }))
}

pub(in crate::netlink) fn rule(payload: &[u8]) -> Result<Option<RuleInfo>, Malformed> {
    let Some((_, attributes)) = split(payload)? else {
        return Ok(None);
    };
    let expressions = wire::find(attributes, 4).unwrap_or_default();
    Ok(Some(RuleInfo {
        chain: text(attributes, 2),
        handle: number(attributes, 3)?,
        comment: wire::find(attributes, 7).and_then(comment),
        counter: counter(expressions)?,
    }))
}

/// libnftnl's user data: type, length, bytes; type 0 is the comment.
fn comment(mut rest: &[u8]) -> Option<String> {
    while let [kind, len, after @ ..] = rest {
        let value = after.get(..usize::from(*len))?;
        if *kind == 0 {
            return Some(wire::text_of(value));
        }
        rest = after.get(usize::from(*len)..)?;
    }
    None
}

fn counter(expressions: &[u8]) -> Result<Option<(u64, u64)>, Malformed> {
    for expression in wire::attrs(expressions) {
        let (_, expression) = expression?;
        if wire::find(expression, 1).map(wire::text_of).as_deref() == Some("counter") {
            let data = wire::find(expression, 2).unwrap_or_default();
            return Ok(Some((number(data, 2)?, number(data, 1)?)));
        }
    }
    Ok(None)
}

pub(in crate::netlink) fn elements(list: &[u8]) -> Result<Vec<Element>, Malformed> {
    let value = |nest: &[u8]| wire::find(nest, 1).map(<[u8]>::to_vec);
    wire::attrs(list)
        .map(|element| {
            let (_, element) = element?;
            let key = wire::find(element, 1).and_then(value);
            Ok(Element {
                key: key.ok_or(Malformed("set element"))?,
                data: wire::find(element, 2).and_then(value),
            })
        })
        .collect()
}

/// The handle in an echoed message; its attribute differs by kind.
pub(in crate::netlink) fn handle(echo: &Message<'_>) -> Result<Option<u64>, Malformed> {
    const NEWTABLE: u16 = 0;
    const NEWCHAIN: u16 = 3;
    const NEWSET: u16 = 9;
    const OF: [(u16, u16); 4] = [(NEWTABLE, 4), (NEWCHAIN, 2), (NEWRULE, 3), (NEWSET, 16)];
    let attributes = echo.payload.get(4..).unwrap_or_default();
    OF.into_iter()
        .find(|(kind, _)| message(*kind) == echo.kind)
        .and_then(|(_, attribute)| wire::find(attributes, attribute))
        .map(be64_of)
        .transpose()
}

fn text(attributes: &[u8], kind: u16) -> String {
    wire::find(attributes, kind)
        .map(wire::text_of)
        .unwrap_or_default()
}

fn number(attributes: &[u8], kind: u16) -> Result<u64, Malformed> {
    be64_of(wire::find(attributes, kind).unwrap_or_default())
}

pub(super) fn be32_of(value: &[u8]) -> Result<u32, Malformed> {
    value
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| Malformed("32-bit number"))
}

fn be64_of(value: &[u8]) -> Result<u64, Malformed> {
    value
        .try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| Malformed("64-bit number"))
}
