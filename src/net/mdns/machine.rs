//! Whose a name is, in time: pure. RFC 6762's sections are in brackets.
//!
//! *Theory of operation.* A name is asked for three times, 250 ms apart (8.1);
//! if nobody has it, it is announced twice, 1 s apart (8.3), and then every
//! question for it is answered. Somebody who has it already, or who asks at the
//! same time and wins (8.2), has it; the next one is `NAME-2`, then `NAME-3`.
//! Whoever claims it later is asked as at the beginning (9).
//!
//! A peer that claims every name makes us ask for one after the other: after
//! [`CONFLICTS`] of them in [`WINDOW`] each next probe waits [`PENANCE`] (8.1).
//! It is told to others (event, record) only when a name has become ours.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

use super::message::{self, How, Own, TTL, Zone};
use super::{PORT, Subject};
use crate::net::dhcp::label;

const PROBES: u8 = 3;
const PROBE_INTERVAL: Duration = Duration::from_millis(250);
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// Who asked at the same time, and lost, asks again (8.2).
const DEFER: Duration = Duration::from_secs(1);
const CONFLICTS: usize = 15;
const WINDOW: Duration = Duration::from_secs(10);
const PENANCE: Duration = Duration::from_secs(5);
/// A record is not multicast more often (6) …
const AGAIN: Duration = Duration::from_secs(1);
/// … but to defend a name.
const AGAIN_TO_PROBE: Duration = Duration::from_millis(250);
/// After so long caches are to have it afresh, also when one alone asks (5.4).
const STALE: Duration = Duration::from_secs(30);
/// A label's length.
const LABEL: usize = 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    Group,
    /// Who has asked.
    Peer,
}

#[derive(Debug)]
pub(super) struct Send {
    pub(super) to: To,
    pub(super) bytes: Vec<u8>,
}

/// Who had the name that was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// `web.local`
    pub name: String,
    pub by: IpAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Probing { sent: u8, next: Instant },
    Announcing { next: Instant },
    Settled,
}

#[derive(Debug)]
pub(super) struct Machine {
    subject: Subject,
    zone: Zone,
    /// 1: the name itself.
    number: u32,
    phase: Phase,
    rival: Option<Rival>,
    conflicts: VecDeque<Instant>,
    /// When each record was multicast last (6): two questions, for A and for
    /// AAAA, come in two messages from many resolvers.
    told: Vec<(Own, Instant)>,
    changed: bool,
}

impl Machine {
    pub(super) fn new(subject: Subject, first: Instant) -> Self {
        let addrs = subject.addrs.iter().map(|addr| addr.addr()).collect();
        Self {
            zone: Zone {
                name: full(&subject.name, 1),
                addrs,
            },
            subject,
            number: 1,
            phase: Phase::Probing {
                sent: 0,
                next: first,
            },
            rival: None,
            conflicts: VecDeque::new(),
            told: Vec::new(),
            changed: false,
        }
    }

    pub(super) fn set_siblings(&mut self, siblings: Vec<IpAddr>) {
        self.subject.siblings = siblings;
    }

    pub(super) fn name(&self) -> &str {
        &self.zone.name
    }

    pub(super) fn is_announced(&self) -> bool {
        !matches!(self.phase, Phase::Probing { .. })
    }

    pub(super) fn rival(&self) -> Option<&Rival> {
        self.rival.as_ref()
    }

    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Probing { next, .. } | Phase::Announcing { next } => Some(next),
            Phase::Settled => None,
        }
    }

    /// What is to be multicast now.
    pub(super) fn on_time(&mut self, now: Instant) -> Option<Vec<u8>> {
        match self.phase {
            Phase::Probing { sent, next } if next <= now && sent < PROBES => {
                self.phase = Phase::Probing {
                    sent: sent + 1,
                    next: now + PROBE_INTERVAL,
                };
                self.zone.probe()
            }
            Phase::Probing { next, .. } if next <= now => {
                self.changed = true;
                self.phase = Phase::Announcing {
                    next: now + ANNOUNCE_INTERVAL,
                };
                self.tell(&self.zone.every(), now);
                self.zone.announcement()
            }
            Phase::Announcing { next } if next <= now => {
                self.phase = Phase::Settled;
                self.tell(&self.zone.every(), now);
                self.zone.announcement()
            }
            _ => None,
        }
    }

    /// Only of what others have in their caches.
    pub(super) fn goodbye(&self) -> Option<Vec<u8>> {
        self.is_announced().then(|| self.zone.goodbye()).flatten()
    }

    pub(super) fn hear(&mut self, bytes: &[u8], from: SocketAddr, now: Instant) -> Vec<Send> {
        // What is no message is nobody's word (18.3, 18.11).
        let Ok(packet) = Packet::parse(bytes) else {
            return Vec::new();
        };
        if packet.opcode() != OPCODE::StandardQuery {
            return Vec::new();
        }
        if packet.has_flags(PacketFlag::RESPONSE) {
            // 6: whoever answers has port 5353.
            if from.port() == PORT && self.is_contradicted(&packet) {
                self.yield_name(from.ip(), now);
            }
            return Vec::new();
        }
        match self.phase {
            Phase::Probing { .. } => {
                self.tie(&packet, now);
                Vec::new()
            }
            _ => self.answer(&packet, from, now),
        }
    }

    // --- whose it is

    fn is_ours(&self, addr: IpAddr) -> bool {
        self.zone.addrs.contains(&addr) || self.subject.siblings.contains(&addr)
    }

    /// Somebody else's address under our name; one that says goodbye to it
    /// leaves it to us.
    fn is_contradicted(&self, packet: &Packet<'_>) -> bool {
        let records = packet.answers.iter().chain(&packet.additional_records);
        let mut named = records.filter(|r| r.ttl > 0 && self.zone.is_named(&r.name));
        named.any(|r| message::given(r).is_some_and(|addr| !self.is_ours(addr)))
    }

    fn yield_name(&mut self, by: IpAddr, now: Instant) {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < WINDOW;
        self.conflicts.retain(recent);
        let wait = match self.conflicts.len() >= CONFLICTS {
            true => PENANCE,
            false => Duration::ZERO,
        };
        // Only so many are kept: the wait empties the window.
        if self.conflicts.len() >= CONFLICTS {
            self.conflicts.pop_front();
        }
        self.conflicts.push_back(now);
        if matches!(self.phase, Phase::Probing { .. }) {
            let taken = std::mem::take(&mut self.zone.name);
            self.rival = Some(Rival { name: taken, by });
            self.number = self.number.saturating_add(1);
            self.zone.name = full(&self.subject.name, self.number);
        }
        self.phase = Phase::Probing {
            sent: 0,
            next: now + wait,
        };
    }

    /// Another one asks for the name at the same time (8.2).
    fn tie(&mut self, packet: &Packet<'_>, now: Instant) {
        let asks = |q: &Question<'_>| self.zone.is_named(&q.qname);
        let named = |r: &&simple_dns::ResourceRecord<'_>| self.zone.is_named(&r.name);
        let mut meant = packet.name_servers.iter().filter(named).peekable();
        if !packet.questions.iter().any(asks) || meant.peek().is_none() {
            return;
        }
        // Our own probe, or that of another link of the container.
        if meant.all(|r| message::given(r).is_some_and(|addr| self.is_ours(addr))) {
            return;
        }
        if self.zone.against(&packet.name_servers) == Ordering::Less {
            self.phase = Phase::Probing {
                sent: 0,
                next: now + DEFER,
            };
        }
    }

    // --- answers

    fn answer(&mut self, packet: &Packet<'_>, from: SocketAddr, now: Instant) -> Vec<Send> {
        let mut asked: Vec<Own> = Vec::new();
        let mut all_unicast = true;
        let pointers = self.zone.pointers();
        for question in &packet.questions {
            let about = self.about(question, &pointers);
            if !about.is_empty() {
                all_unicast &= question.unicast_response;
                // Each once, however often it is asked for.
                for own in about {
                    if !asked.contains(&own) {
                        asked.push(own);
                    }
                }
            }
        }
        asked.retain(|own| !self.is_known(packet, *own));
        if asked.is_empty() {
            return Vec::new();
        }
        let is_near = self.is_on_link(from.ip());
        if from.port() != PORT {
            let records = asked.iter().map(|own| self.zone.record(*own, How::LEGACY));
            // 11: nobody far away is to be reached through us.
            let bytes = message::legacy(packet, records.collect()).filter(|_| is_near);
            return reply(To::Peer, bytes);
        }
        let mut out = Vec::new();
        if all_unicast && is_near {
            out.extend(reply(To::Peer, self.response(packet, &asked)));
            asked.retain(|own| !self.was_told(*own, now, STALE));
        } else {
            let again = match packet.name_servers.is_empty() {
                true => AGAIN,
                false => AGAIN_TO_PROBE,
            };
            asked.retain(|own| !self.was_told(*own, now, again));
        }
        self.tell(&asked, now);
        out.extend(reply(To::Group, self.response(packet, &asked)));
        out
    }

    /// The records that answer a question.
    fn about(&self, question: &Question<'_>, pointers: &[(Name<'_>, IpAddr)]) -> Vec<Own> {
        if !matches!(question.qclass, QCLASS::ANY | QCLASS::CLASS(CLASS::IN)) {
            return Vec::new();
        }
        let addrs = |ipv4: Option<bool>| -> Vec<Own> {
            let addrs = self.zone.addrs.iter();
            let fits = addrs.filter(|a| ipv4.is_none_or(|v4| a.is_ipv4() == v4));
            fits.map(|addr| Own::Addr(*addr)).collect()
        };
        if self.zone.is_named(&question.qname) {
            let found = match question.qtype {
                QTYPE::ANY => addrs(None),
                QTYPE::TYPE(TYPE::A) => addrs(Some(true)),
                QTYPE::TYPE(TYPE::AAAA) => addrs(Some(false)),
                _ => Vec::new(),
            };
            return match found.is_empty() {
                true => vec![Own::Nothing],
                false => found,
            };
        }
        match question.qtype {
            QTYPE::ANY | QTYPE::TYPE(TYPE::PTR) => {
                let pointed = pointers.iter().filter(|(name, _)| *name == question.qname);
                pointed.map(|(_, addr)| Own::Pointer(*addr)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// 7.1: who asks says that it has the record, for half its time at least.
    fn is_known(&self, packet: &Packet<'_>, own: Own) -> bool {
        let record = self.zone.record(own, How::USUAL);
        let mut known = packet.answers.iter();
        known.any(|r| r.ttl >= TTL / 2 && r.name == record.name && r.rdata == record.rdata)
    }

    fn was_told(&self, own: Own, now: Instant, lately: Duration) -> bool {
        let told = self.told.iter().find(|(known, _)| *known == own);
        told.is_some_and(|(_, at)| now.saturating_duration_since(*at) < lately)
    }

    fn tell(&mut self, all: &[Own], now: Instant) {
        self.told.retain(|(known, _)| !all.contains(known));
        self.told.extend(all.iter().map(|own| (*own, now)));
    }

    /// With what is asked for next (6.2): the other family, or that there is
    /// none.
    fn response(&self, packet: &Packet<'_>, asked: &[Own]) -> Option<Vec<u8>> {
        let usual = |own: &Own| self.zone.record(*own, How::USUAL);
        let mut more: Vec<Own> = Vec::new();
        if asked.iter().any(|own| matches!(own, Own::Addr(_))) {
            more.extend(self.zone.addrs.iter().map(|addr| Own::Addr(*addr)));
            if self.zone.is_missing(true) || self.zone.is_missing(false) {
                more.push(Own::Nothing);
            }
            more.retain(|own| !asked.contains(own) && !self.is_known(packet, *own));
        }
        let answers = asked.iter().map(usual).collect();
        message::response(answers, more.iter().map(usual).collect())
    }

    /// One of the link's own subnets, or a link-local address.
    fn is_on_link(&self, peer: IpAddr) -> bool {
        let link_local = match peer {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        link_local || self.subject.addrs.iter().any(|own| own.contains(peer))
    }
}

fn reply(to: To, bytes: Option<Vec<u8>>) -> Vec<Send> {
    bytes.map(|bytes| Send { to, bytes }).into_iter().collect()
}

/// `web.local`, `web-2.local`; as long as a label may be.
fn full(name: &str, number: u32) -> String {
    let mut label = label(name);
    if number > 1 {
        let tail = format!("-{number}");
        label.truncate(LABEL - tail.len());
        label.push_str(&tail);
    }
    label + ".local"
}

#[cfg(test)]
mod tests;
