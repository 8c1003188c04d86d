//! nf_tables messages: tables, chains, rules, sets and maps.
//!
//! # Theory of operation
//!
//! Changes travel as a transaction: one datagram with BATCH_BEGIN, the changes
//! in order, BATCH_END. The kernel carries all of them out at one instant or
//! none at all; packets see the rules before or after, never half. The last
//! change alone asks for an ACK; refusals come unasked, and all of them come
//! (the kernel goes on through a refused batch to find them), so reading up to
//! that ACK reads everything.
//!
//! Every change increments the ruleset's *generation* (per network namespace).
//! Who reads before writing ([`Nft::transact`]) reads the generation first and
//! names it in BATCH_BEGIN; if somebody else was faster, the kernel refuses the
//! batch with ERESTART before looking at it, and reading starts over.
//!
//! Numbers are big-endian in this protocol; packet data is in packet order.
//! Attribute numbers are checked by what the kernel does with them: the tests
//! compare with nft's own messages and with `nft -j list ruleset`.

mod attr;
mod batch;
mod expr;
pub(super) mod read;

use netlink_packet_core::{Emitable, NLM_F_ACK};
use netlink_sys::protocols::NETLINK_NETFILTER;

pub use batch::{Batch, Chain, Element, Family, Hook, Owned, Set, Table, Type, concat};
pub use expr::{Checksum, Cmp, Expr, Field, Header, Meta, Reg, Verdict};
pub use read::{ChainInfo, RuleInfo, TableInfo};

use super::socket::{Channel, Fault};
use super::wire;
use crate::base::{Cause, Error, Result, Subject};
use crate::sys::netns::{Host, Netns, Place, Sandbox};
use std::marker::PhantomData;
use std::time::Duration;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NEWGEN: u16 = 15;
const GETGEN: u16 = 16;
/// How often a transaction is tried again when others change the ruleset. Who
/// loses, loses to somebody who got on: a hundred starts at once end.
const TRANSACTION_TRIES: usize = 128;

/// nf_tables type numbers as netlink message types.
const fn message(kind: u16) -> u16 {
    NFNL_SUBSYS_NFTABLES << 8 | kind
}

/// How timeouts are given.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An nf_tables socket, bound for life to the namespace it was opened in.
#[derive(Debug)]
pub struct Nft<P: Place> {
    channel: Channel,
    place: PhantomData<fn() -> P>,
}

impl Nft<Host> {
    /// Opened in the caller's namespace.
    pub fn host() -> Result<Self> {
        Ok(Self {
            channel: Channel::here(NETLINK_NETFILTER)?,
            place: PhantomData,
        })
    }
}

impl Nft<Sandbox> {
    pub fn sandbox(netns: &Netns<Sandbox>) -> Result<Self> {
        Ok(Self {
            channel: Channel::inside(netns, NETLINK_NETFILTER)?,
            place: PhantomData,
        })
    }
}

impl<P: Place> Nft<P> {
    /// The number of changes that the ruleset has seen.
    pub fn generation(&mut self) -> Result<u32> {
        self.channel
            .get(message(GETGEN), &Body::new(0, &[]), |payload| {
                let attributes = payload.get(4..).unwrap_or_default();
                read::be32_of(wire::find(attributes, 1).unwrap_or_default())
            })
            .map_err(|fault| not_supported(fault.named("read nf_tables generation", "")))?
            .ok_or_else(|| Error::sys("read nf_tables generation", Subject::None, libc::ENODATA))
    }

    /// Carries the batch out, all or nothing; an empty one does nothing.
    /// Returns the handles asked for with [`Batch::echo`], in order.
    pub fn commit(&mut self, batch: &Batch) -> Result<Vec<u64>> {
        self.send(None, batch)
    }

    /// Reads, decides and writes as one step: `build` may be called again when
    /// somebody else changed the ruleset meanwhile.
    pub fn transact(
        &mut self,
        mut build: impl FnMut(&mut Self) -> Result<Batch>,
    ) -> Result<Vec<u64>> {
        let mut tries = TRANSACTION_TRIES;
        loop {
            let generation = self.generation()?;
            let batch = build(self)?;
            match self.send(Some(generation), &batch) {
                Err(e) if e.is_errno(libc::ERESTART) && tries > 0 => tries -= 1,
                outcome => return outcome,
            }
        }
    }

    /// Deletes a table and all in it; `false` if it was not there.
    pub fn delete_table(&mut self, table: Table<'_>) -> Result<bool> {
        let mut batch = Batch::new();
        batch.delete_table(table);
        match self.commit(&batch) {
            Ok(_) => Ok(true),
            Err(e) if e.is_errno(libc::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn send(&mut self, generation: Option<u32>, batch: &Batch) -> Result<Vec<u64>> {
        const NFNL_BATCH_GENID: u16 = 1;
        let Some(last) = batch.items.len().checked_sub(1) else {
            return Ok(Vec::new());
        };
        let mut begin = Vec::new();
        if let Some(generation) = generation {
            attr::be32(&mut begin, NFNL_BATCH_GENID, generation);
        }
        let frame = |attributes| Body {
            resource: NFNL_SUBSYS_NFTABLES,
            ..Body::new(0, attributes)
        };
        self.channel.begin();
        self.channel.push(NFNL_MSG_BATCH_BEGIN, 0, &frame(&begin));
        for (i, item) in batch.items.iter().enumerate() {
            let ack = if i == last { NLM_F_ACK } else { 0 };
            let attributes = batch.bytes.get(item.body.clone()).unwrap_or_default();
            let body = Body::new(item.family.number(), attributes);
            self.channel
                .push(message(item.kind), item.flags | ack, &body);
        }
        self.channel.push(NFNL_MSG_BATCH_END, 0, &frame(&[]));
        let mut handles = Vec::new();
        self.channel
            .exchange(true, |m| {
                if m.kind != message(NEWGEN) {
                    handles.extend(read::handle(m)?);
                }
                Ok(())
            })
            .map_err(|fault| refused(batch, fault))?;
        Ok(handles)
    }
}

/// Message 0 is BATCH_BEGIN; a refusal of it is one of the whole batch.
fn refused(batch: &Batch, fault: Fault) -> Error {
    let item = fault
        .request
        .checked_sub(1)
        .and_then(|i| batch.items.get(i));
    match item {
        Some(item) => not_supported(item.refused(fault.cause)),
        None => not_supported(fault.named("change nf_tables rules", "")),
    }
}

/// EPERM and a kernel without nf_tables are what users meet.
fn not_supported(error: Error) -> Error {
    let hint = match &error.cause {
        Cause::Netlink { errno, .. } | Cause::Errno(errno) => match *errno {
            libc::EPERM => super::NEEDS_ADMIN,
            libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT => {
                "this kernel lacks that part of nf_tables: try \"modprobe nf_tables\""
            }
            _ => return error,
        },
        _ => return error,
    };
    error.hint(hint)
}

/// `struct nfgenmsg` and attributes.
#[derive(Clone, Copy, Debug)]
struct Body<'a> {
    family: u8,
    resource: u16,
    attributes: &'a [u8],
}

impl<'a> Body<'a> {
    fn new(family: u8, attributes: &'a [u8]) -> Self {
        Self {
            family,
            resource: 0,
            attributes,
        }
    }
}

impl Emitable for Body<'_> {
    fn buffer_len(&self) -> usize {
        4 + self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        let [high, low] = self.resource.to_be_bytes();
        if let Some((head, rest)) = buffer.split_first_chunk_mut::<4>() {
            *head = [self.family, 0, high, low];
            rest.copy_from_slice(self.attributes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::golden::unhex;
    use super::*;
    use crate::base::IfName;

    const PUB: Table<'static> = Table {
        family: Family::Netdev,
        name: "pub",
    };

    /// A batch's messages as nft numbers and flags them.
    fn bytes(batch: &Batch) -> Vec<Vec<u8>> {
        batch
            .items
            .iter()
            .map(|item| {
                let mut out = Vec::new();
                let body = Body::new(item.family.number(), &batch.bytes[item.body.clone()]);
                let flags = item.flags | netlink_packet_core::NLM_F_REQUEST;
                wire::append(&mut out, message(item.kind), flags, 0, &body);
                out
            })
            .collect()
    }

    fn capture(text: &str) -> Vec<u8> {
        let mut bytes = unhex(text);
        bytes[8..12].fill(0);
        bytes
    }

    /// `table netdev pub` and `chain in { type filter hook ingress device "lo"
    /// priority -300; }` as nft 1.0.6 sends them; ours adds the flags CREATE
    /// where nft leaves them out for a table.
    #[test]
    fn tables_and_chains_are_nfts_bytes() {
        let lo = IfName::new("lo").unwrap();
        let mut batch = Batch::new();
        batch.add_table(PUB);
        let hook = Hook::Ingress {
            device: &lo,
            priority: -300,
        };
        let chain = Chain {
            name: "in",
            hook: Some(hook),
        };
        batch.add_chain(PUB, &chain);
        let ours = bytes(&batch);
        let mut table =
            capture("24000000000a0100010000000000000005000000080001007075620008000200 00000000");
        table[7] |= 4;
        assert_eq!(ours[0], table);
        let chain = capture(
            "54000000030a010402000000000000000500000008000100707562000700030069 6e0000
             0b00070066696c74657200000800050000000001 1c000480080001000000000008000200
             fffffed4070003006c6f0000",
        );
        assert_eq!(ours[1], chain);
    }

    /// `ip daddr 10.9.0.2 ether daddr set tcp dport map @mac counter comment
    /// "hi"` as nft 1.0.6 sends it, less NFTA_LOOKUP_SET_ID, which names a set
    /// of the same batch (the name does as well).
    #[test]
    fn rules_are_nfts_bytes() {
        let reg = Reg::word(0);
        let meta = |key| Expr::Meta { key, into: reg };
        let load = |field| Expr::Load { field, into: reg };
        let equal = |value: &[u8]| Expr::Cmp {
            reg,
            op: Cmp::Eq,
            value: value.to_vec(),
        };
        let rule = [
            meta(Meta::Protocol),
            equal(&[8, 0]),
            load(Field::IP4_DADDR),
            equal(&[10, 9, 0, 2]),
            meta(Meta::IifType),
            equal(&1_u16.to_ne_bytes()),
            meta(Meta::L4Proto),
            equal(&[6]),
            load(Field::DPORT),
            Expr::Lookup {
                set: "mac".to_owned(),
                key: reg,
                into: Some(reg),
                invert: false,
            },
            Expr::Store {
                field: Field::ETHER_DADDR,
                from: reg,
                checksum: Checksum::None,
            },
            Expr::Counter,
        ];
        let mut batch = Batch::new();
        batch.add_rule(PUB, "in", &rule, Some("hi"));
        let ours = &bytes(&batch)[0];
        let theirs = capture(include_str!("../captures/nft-rule.hex"));
        assert_eq!(*ours, theirs);
    }

    #[test]
    fn concatenations_are_padded() {
        let key = concat(&[&[1, 2, 3, 4], &[5, 6], &[7]]);
        assert_eq!(key, [1, 2, 3, 4, 5, 6, 0, 0, 7, 0, 0, 0]);
    }
}
