//! What a supervisor notes of its container's networks (see `events`).

use super::network::{Leg, Network};
use crate::base::NetworkId;
use crate::engine::record::{Conflict, Record};
use crate::engine::{Engine, events, view};

impl Network {
    pub(super) fn event_of(&self, network: &NetworkId, action: &str) -> Option<view::Event> {
        let leg = self.legs.iter().find(|leg| leg.spec.id == *network)?;
        Some(events::of_network(
            &leg.spec,
            action,
            Some(self.id.as_str()),
        ))
    }

    /// What a live `connect` has done: `before` are the conflicts until then.
    pub(super) fn note_last(&self, engine: &Engine, record: &Record, before: &[Conflict]) {
        let conflicts = record.state.conflicts.iter();
        let new = conflicts.filter(|c| !before.contains(c));
        let mut happened: Vec<_> = new.map(|c| events::of_conflict(record, c)).collect();
        let last = self.last_network();
        happened.extend(last.and_then(|network| self.event_of(&network, "connect")));
        engine.note(&happened);
    }

    /// From now on its addresses stay its own when it has ended, but for those
    /// that a LAN gives. It runs with them already, so that what fails is told
    /// and no more.
    pub(super) fn keep(&mut self, engine: &Engine) {
        if !self.keeps {
            return;
        }
        let legs = self.legs.iter().filter(|leg| !leg.spec.is_dhcp());
        let addrs = legs.flat_map(|leg| leg.addrs.values().map(move |addr| (leg, addr)));
        let mut addrs = addrs.filter(|(leg, addr)| addr.is_ipv4() || !leg.is_by_lan6());
        let has_kept = self.has_kept;
        let kept =
            addrs.try_for_each(|(leg, addr)| engine.keep(&leg.spec, addr, &self.id, has_kept));
        self.has_kept = true;
        if let Err(error) = kept {
            let text = format!("its addresses will be free when it has ended: {error}");
            self.warnings.push(text);
        }
    }

    /// `connect` or `disconnect`, of every network.
    pub(in crate::engine) fn events(&self, action: &str) -> Vec<view::Event> {
        let of = |leg: &Leg| events::of_network(&leg.spec, action, Some(self.id.as_str()));
        self.legs.iter().map(of).collect()
    }
}
