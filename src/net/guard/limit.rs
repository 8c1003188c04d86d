//! Rates that the container cannot lift: nf_tables' part of `--net-rate`.
//!
//! *Down* is this part's alone: what comes in faster is dropped at the ingress
//! hook of the container's link, and TCP slows down. A second's worth can come
//! at once after a pause; nf_tables knows no smaller bucket.
//!
//! *Up* is shaped by a queue (tbf, [`qdisc`](crate::netlink::qdisc)). A packet
//! socket with PACKET_QDISC_BYPASS goes past every queue, and who has
//! CAP_NET_ADMIN can take it away: the egress hook drops what leaves a quarter
//! faster than it should, which nobody meets who waits in the queue. Kernels
//! before 5.16 have no such hook and do without.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Guard, is_missing, table};
use crate::base::{IfName, Result};
use crate::net::rate::{Rate, Rates};
use crate::netlink::nft::{Batch, Chain, Expr, Hook, Owned, Verdict};
use crate::sys::netns::{Netns, Sandbox};

/// Before every other chain of a hook.
const FIRST: i32 = i32::MIN;
const UP: &str = "up";
const DOWN: &str = "down";
/// A packet may stand for many on the wire (GRO, GSO), 64 KiB in all.
const LARGEST: u64 = 65_536;

/// Packets dropped since the rate was set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Excess {
    pub up: u64,
    pub down: u64,
}

impl Guard {
    /// Puts these rates in force instead of those that were, without a moment
    /// between.
    pub fn limit(&mut self, ifname: &IfName, rates: &Rates) -> Result<()> {
        if rates.is_none() {
            return self.unlimit(ifname);
        }
        let had = self.limited.contains(ifname);
        let set = |guard: &mut Self, rates: &Rates| {
            let batch = batch(ifname, rates, had, guard.owned);
            guard.nft.commit(&batch)
        };
        match set(self, rates) {
            Err(error) if rates.up.is_some() && is_missing(&error) => {
                set(self, &Rates { up: None, ..*rates })
            }
            outcome => outcome,
        }
        .map_err(|error| {
            error.hint("a rate needs nf_tables with its netdev family, and nft_limit")
        })?;
        if !had {
            self.limited.push(ifname.clone());
        }
        Ok(())
    }

    pub(super) fn unlimit(&mut self, ifname: &IfName) -> Result<()> {
        if self.limited.contains(ifname) {
            self.nft.delete_table(table(&table_name(ifname)))?;
            self.limited.retain(|l| l != ifname);
        }
        Ok(())
    }

    /// What each limited link has lost here.
    pub fn excess(&mut self) -> Result<BTreeMap<IfName, Excess>> {
        let mut all = BTreeMap::new();
        for ifname in &self.limited {
            let mut excess = Excess::default();
            for rule in self.nft.rules(table(&table_name(ifname)), None)? {
                let packets = rule.counter.map_or(0, |(packets, _)| packets);
                match rule.chain.as_str() {
                    UP => excess.up += packets,
                    _ => excess.down += packets,
                }
            }
            all.insert(ifname.clone(), excess);
        }
        Ok(all)
    }
}

/// For the container's link, whose guard may be made for it.
pub fn limit(
    slot: &mut Option<Guard>,
    netns: &Netns<Sandbox>,
    ifname: &IfName,
    rates: &Rates,
) -> Result<()> {
    match slot {
        Some(guard) => guard.limit(ifname, rates),
        None if rates.is_none() => Ok(()),
        None => slot.insert(Guard::new(netns)?).limit(ifname, rates),
    }
}

fn table_name(ifname: &IfName) -> String {
    format!("dockless-rate-{ifname}")
}

fn batch(ifname: &IfName, rates: &Rates, had: bool, owned: Owned) -> Batch {
    let name = table_name(ifname);
    let table = table(&name);
    let mut batch = Batch::new();
    if had {
        batch.delete_table(table);
    }
    batch.create_owned_table(table, owned);
    let (device, priority) = (ifname, FIRST);
    let up = rates.up.map(|rate| rate.bytes_per_second() / 4 * 5);
    let down = rates.down.map(Rate::bytes_per_second);
    for (name, hook, bytes) in [
        (UP, Hook::Egress { device, priority }, up),
        (DOWN, Hook::Ingress { device, priority }, down),
    ] {
        let Some(bytes) = bytes else {
            continue;
        };
        let hook = Some(hook);
        batch.add_chain(table, &Chain { name, hook });
        let burst = u32::try_from(LARGEST.saturating_sub(bytes)).unwrap_or_default();
        let rule = [
            Expr::LimitOver { bytes, burst },
            Expr::Counter,
            Expr::Verdict(Verdict::Drop),
        ];
        batch.add_rule(table, name, &rule, None);
    }
    batch
}
