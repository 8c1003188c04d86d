//! RFC 8415's client for one address (IA_NA), without sockets and without a
//! clock: it is told what came in and what time it is, and says what is to be
//! done.
//!
//! ```text
//!          INIT ──SOLICIT──▶ SOLICITING ──ADVERTISE, REQUEST──▶ REQUESTING
//!           ▲                    └── REPLY (rapid commit) ──┐      │ REPLY
//!  refused, │                                               ▼      ▼
//!  in use   ├────────────────────────── BOUND ◀──────────────◀─────┘
//!  (a pause │      REPLY; or no answer ▲  │ ▲
//!   that    │                          │  │ └─ REPLY ─┐
//!   grows)  ├── CONFIRMING ────────────┘  ├──T1──▶ RENEWING ── NoBinding:
//!           └─────── over ◀───────────────┴──T2──▶ REBINDING   REQUESTING
//! ```
//!
//! *Whether the address is free* the kernel asks (RFC 4862 §5.4) once it has
//! it: [`Machine::conflict`] declines, [`Machine::settled`] says that all is
//! well.
//!
//! *Whom to believe.* An answer must have the transaction of the last question
//! and this client's DUID; in REQUESTING and RENEWING it must be from the
//! server that was asked. All else is as if it had not come. After a refusal or
//! a conflict it begins anew, at once the first time, then after a pause that
//! grows, so that nobody can keep it busy.

use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lease::{self, Lease};
use super::message::{Ask, Code, Kind, Reply, Verb};

/// §15: how long after the first message of an exchange the next one goes out,
/// and the longest that this doubles up to.
struct Pace {
    first: Duration,
    longest: Duration,
}

impl Pace {
    const fn secs(first: u64, longest: u64) -> Self {
        Self {
            first: Duration::from_secs(first),
            longest: Duration::from_secs(longest),
        }
    }
}

// §7.6.
const SOL_MAX_RT: Duration = Duration::from_secs(3600);
const REQUEST: Pace = Pace::secs(1, 30);
const REQ_MAX_RC: u32 = 10;
const CONFIRM: Pace = Pace::secs(1, 4);
const RENEW: Pace = Pace::secs(10, 600);
const REBIND: Pace = Pace::secs(10, 600);
/// CNF_MAX_RD is 10 s: a container's start waits for this.
const CONFIRM_FOR: Duration = Duration::from_secs(4);
/// §21.8: no other server needs to be heard.
const BEST: u8 = 255;
/// After the second conflict or refusal.
const LONGEST_PAUSE: Duration = Duration::from_secs(64);
const AFTER_CONFLICT: Duration = Duration::from_secs(10);

/// RFC 8415 has no names for its states; RFC 2131's where they fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum Phase {
    Init,
    Soliciting,
    Requesting,
    Confirming,
    Bound,
    Renewing,
    Rebinding,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Soliciting => "SOLICITING",
            Self::Requesting => "REQUESTING",
            Self::Confirming => "CONFIRMING",
            Self::Bound => "BOUND",
            Self::Renewing => "RENEWING",
            Self::Rebinding => "REBINDING",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Send(Ask),
    /// From now on: what is new, or has been renewed.
    Use(Lease),
    /// The address is not ours any more.
    Drop,
}

#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    /// One that we had: asked for, not insisted on.
    hint: Option<Ipv6Addr>,
    random: u64,
    xid: u32,
    /// When this exchange began.
    began: Duration,
    tries: u32,
    /// How long the last message was given.
    pause: Duration,
    sol_max_rt: Duration,
    next: Option<Duration>,
    /// The best that was advertised so far.
    advertised: Option<(u8, Lease)>,
    /// Asked for, or had; and since when.
    lease: Option<(Lease, Duration)>,
    /// The container has the address.
    used: bool,
    setbacks: u32,
    actions: VecDeque<Action>,
    trouble: Option<String>,
}

impl Machine {
    /// `seed` makes transactions that nobody can guess.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            phase: Phase::Init,
            hint: None,
            random: seed | 1,
            xid: 0,
            began: Duration::ZERO,
            tries: 0,
            pause: Duration::ZERO,
            sol_max_rt: SOL_MAX_RT,
            next: None,
            advertised: None,
            lease: None,
            used: false,
            setbacks: 0,
            actions: VecDeque::new(),
            trouble: None,
        }
    }

    /// Asks for an address: for the one of a lease of this age, if that is not
    /// over, or else for the one of `hint`, if it may be.
    pub(super) fn start(
        &mut self,
        now: Duration,
        lease: Option<(Lease, Duration)>,
        hint: Option<Ipv6Addr>,
    ) {
        match lease {
            Some((lease, age)) if !lease::left(lease.valid, age).is_zero() => {
                // Of what was before this boot only the age counts.
                let since = now.checked_sub(age);
                let lease = match since {
                    Some(_) => lease,
                    None => aged(lease, age),
                };
                self.lease = Some((lease, since.unwrap_or(now)));
                self.new_exchange(now, Phase::Confirming);
                self.ask(now);
            }
            old => {
                self.hint = old.map(|(lease, _)| lease.ip()).or(hint);
                self.solicit(now);
            }
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.next
    }

    /// Whether an answer is being waited for.
    pub(super) fn listens(&self) -> bool {
        !matches!(self.phase, Phase::Init | Phase::Bound)
    }

    /// What has last gone wrong, once.
    pub(super) fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// The lease that the container uses, and when it was given.
    pub(super) fn lease(&self) -> Option<&(Lease, Duration)> {
        self.lease.as_ref().filter(|_| self.used)
    }

    /// Gives the lease back.
    pub(super) fn release(lease: &Lease, xid: u32) -> Ask {
        Ask {
            verb: Verb::Release,
            xid: xid & 0x00ff_ffff,
            elapsed: 0,
            server: Some(lease.server.clone()),
            addr: Some(lease.ip()),
        }
    }

    pub(super) fn on_time(&mut self, now: Duration) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        if self.used && self.after(|l| l.valid).is_some_and(|end| end <= now) {
            return self.expired(now);
        }
        let is_late = |time: Option<Duration>| time.is_some_and(|at| at <= now);
        match self.phase {
            Phase::Init => self.solicit(now),
            Phase::Soliciting => match self.advertised.take() {
                Some((_, lease)) => self.request(now, lease),
                None => self.ask(now),
            },
            Phase::Requesting if self.tries < REQ_MAX_RC => self.ask(now),
            Phase::Requesting => {
                let offer = self.lease.as_ref().map(|(lease, _)| lease);
                self.trouble = offer.map(|offer| {
                    let (from, ip) = (offer.from, offer.ip());
                    format!("server {from} had {ip} for it, and then said no more")
                });
                self.give_up();
                self.solicit(now);
            }
            Phase::Confirming if now < self.began + CONFIRM_FOR => self.ask(now),
            Phase::Confirming if is_late(self.after(|l| l.valid)) => self.expired(now),
            // §18.2.3: what is not over may be used without an answer.
            Phase::Confirming => {
                self.trouble = Some("no server answers: its lease of before is used".to_owned());
                self.bind(now);
            }
            Phase::Bound | Phase::Renewing if is_late(self.after(|l| l.rebind)) => {
                self.new_exchange(now, Phase::Rebinding);
                self.ask(now);
            }
            Phase::Bound if is_late(self.after(|l| l.renew)) => {
                self.new_exchange(now, Phase::Renewing);
                self.ask(now);
            }
            Phase::Bound => self.next = self.after(|l| l.renew.min(l.valid)),
            Phase::Renewing | Phase::Rebinding => self.ask(now),
        }
    }

    /// Nothing of this exchange could be sent until now.
    pub(super) fn begin_again(&mut self, now: Duration) {
        if self.listens() {
            self.new_exchange(now, self.phase);
            self.ask(now);
        }
    }

    /// `from`: where the answer came from.
    pub(super) fn handle(&mut self, now: Duration, reply: &Reply, from: Ipv6Addr) {
        if reply.xid != self.xid || !self.listens() {
            return;
        }
        match (self.phase, reply.kind) {
            (Phase::Soliciting, Kind::Advertise) => self.advertised(now, reply, from),
            (Phase::Soliciting, Kind::Reply) if reply.rapid_commit => {
                self.given(now, reply, from);
            }
            (Phase::Soliciting, _) | (_, Kind::Advertise) => {}
            (Phase::Confirming, Kind::Reply) => self.confirmed(now, reply, from),
            (Phase::Requesting | Phase::Renewing, Kind::Reply) if !self.asked(&reply.server) => {}
            (_, Kind::Reply) => self.given(now, reply, from),
        }
    }

    fn asked(&self, server: &[u8]) -> bool {
        let lease = self.lease.as_ref();
        lease.is_some_and(|(lease, _)| lease.server == server)
    }

    fn advertised(&mut self, now: Duration, reply: &Reply, from: Ipv6Addr) {
        // Also of one that has no address (§21.24).
        let most = reply.sol_max_rt.map(|s| Duration::from_secs(s.into()));
        self.sol_max_rt = most.unwrap_or(self.sol_max_rt);
        if let Some(status) = &reply.status {
            self.trouble = Some(format!("server {from} has no address for it ({status})"));
            return;
        }
        let lease = match Lease::of(reply, from, self.hint) {
            Ok(lease) => lease,
            Err(why) => {
                self.trouble = Some(format!("what server {from} has cannot be used: {why}"));
                return;
            }
        };
        // §18.2.1: in the first pause the best one is looked for, after it the
        // first one will do.
        if reply.preference == BEST || self.tries > 1 {
            return self.request(now, lease);
        }
        let is_hint = |lease: &Lease| Some(lease.ip()) == self.hint;
        let rank = (reply.preference, is_hint(&lease));
        let best = self.advertised.as_ref();
        if best.is_none_or(|(preference, best)| rank > (*preference, is_hint(best))) {
            self.advertised = Some((reply.preference, lease));
        }
    }

    /// §18.2.10.1.
    fn given(&mut self, now: Duration, reply: &Reply, from: Ipv6Addr) {
        if let Some(status) = &reply.status {
            let said = format!("server {from} said no ({status})");
            return match (self.phase, status.code) {
                // It has forgotten us.
                (Phase::Renewing | Phase::Rebinding, Code::NoBinding) => {
                    self.trouble = Some(said);
                    let Some((mut lease, since)) = self.lease.clone() else {
                        return;
                    };
                    lease.server.clone_from(&reply.server);
                    lease.from = from;
                    self.lease = Some((lease, since));
                    self.new_exchange(now, Phase::Requesting);
                    self.ask(now);
                }
                // §18.2.10: it may think better of it; the pace is kept.
                (Phase::Renewing | Phase::Rebinding, _) | (_, Code::UnspecFail) => {
                    self.trouble = Some(said);
                }
                (_, code) => {
                    if code == Code::NotOnLink {
                        self.hint = None;
                    }
                    self.set_back(now, said);
                }
            };
        }
        let own = self.lease.as_ref().map(|(lease, _)| lease.ip());
        match Lease::of(reply, from, own.or(self.hint)) {
            Ok(lease) => {
                self.lease = Some((lease, now));
                self.bind(now);
            }
            Err(_) if self.used && takes_away(reply, own) => {
                self.hint = None;
                self.set_back(now, format!("server {from} has taken the address back"));
            }
            Err(why) => {
                self.trouble = Some(format!("what server {from} gave cannot be used: {why}"));
            }
        }
    }

    /// §18.2.10.3.
    fn confirmed(&mut self, now: Duration, reply: &Reply, from: Ipv6Addr) {
        match &reply.status {
            None => self.bind(now),
            Some(status) if status.code == Code::NotOnLink => {
                self.hint = None;
                let why = format!("server {from} does not know its address of before ({status})");
                self.set_back(now, why);
            }
            Some(status) => self.trouble = Some(format!("server {from} said {status}")),
        }
    }

    /// The kernel has found that nobody has it.
    pub(super) fn settled(&mut self) {
        self.setbacks = 0;
    }

    /// Somebody else has the address: §18.2.8. Said once: it would be given
    /// again, and declined again.
    pub(super) fn conflict(&mut self, now: Duration) {
        let Some((lease, _)) = self.lease.clone().filter(|_| self.used) else {
            return;
        };
        self.new_exchange(now, Phase::Init);
        self.actions.push_back(Action::Send(Ask {
            verb: Verb::Decline,
            xid: self.xid,
            elapsed: 0,
            server: Some(lease.server.clone()),
            addr: Some(lease.ip()),
        }));
        self.hint = None;
        let ip = lease.ip();
        self.set_back(
            now,
            format!("{ip} was declined: somebody on the LAN has it"),
        );
        if self.setbacks > 1 {
            self.next = self.next.map(|at| at.max(now + AFTER_CONFLICT));
        }
    }

    fn request(&mut self, now: Duration, lease: Lease) {
        self.lease = Some((lease, now));
        self.new_exchange(now, Phase::Requesting);
        self.ask(now);
    }

    fn bind(&mut self, now: Duration) {
        let Some((lease, _)) = &self.lease else {
            return;
        };
        self.actions.push_back(Action::Use(lease.clone()));
        self.phase = Phase::Bound;
        self.used = true;
        self.advertised = None;
        // A lease of before may be past its T1.
        let due = self.after(|l| l.renew.min(l.valid));
        self.next = due.map(|at| at.max(now));
    }

    /// When so many seconds of the lease are over; `None`: never.
    fn after(&self, time: impl Fn(&Lease) -> u32) -> Option<Duration> {
        let (lease, since) = self.lease.as_ref()?;
        match time(lease) {
            lease::FOREVER => None,
            seconds => Some(*since + Duration::from_secs(seconds.into())),
        }
    }

    fn expired(&mut self, now: Duration) {
        self.trouble = Some("its lease is over, and no server has renewed it".to_owned());
        self.hint = self.lease.as_ref().map(|(lease, _)| lease.ip());
        self.give_up();
        self.solicit(now);
    }

    /// Begins anew: at once, or after a pause that grows.
    fn set_back(&mut self, now: Duration, why: String) {
        self.trouble = Some(why);
        self.give_up();
        self.phase = Phase::Init;
        let pause = match self.setbacks {
            0 => Duration::ZERO,
            n => Duration::from_secs(1 << n.min(6)).min(LONGEST_PAUSE),
        };
        self.setbacks = self.setbacks.saturating_add(1);
        self.next = Some(now + pause);
    }

    fn give_up(&mut self) {
        self.lease = None;
        if std::mem::take(&mut self.used) {
            self.actions.push_back(Action::Drop);
        }
    }

    fn solicit(&mut self, now: Duration) {
        self.lease = None;
        self.new_exchange(now, Phase::Soliciting);
        self.ask(now);
    }

    fn new_exchange(&mut self, now: Duration, phase: Phase) {
        self.phase = phase;
        self.tries = 0;
        self.began = now;
        self.advertised = None;
        let before = self.xid;
        while self.xid == before {
            self.xid = u32::try_from(self.draw() >> 40).unwrap_or(1);
        }
    }

    /// Sends the message of this phase (again).
    fn ask(&mut self, now: Duration) {
        let lease = self.lease.as_ref().map(|(lease, _)| lease);
        let server = lease.map(|lease| lease.server.clone());
        let (verb, pace) = match self.phase {
            Phase::Requesting => (Verb::Request, REQUEST),
            Phase::Confirming => (Verb::Confirm, CONFIRM),
            Phase::Renewing => (Verb::Renew, RENEW),
            Phase::Rebinding => (Verb::Rebind, REBIND),
            Phase::Init | Phase::Soliciting | Phase::Bound => {
                let longest = self.sol_max_rt;
                (
                    Verb::Solicit,
                    Pace {
                        first: Duration::from_secs(1),
                        longest,
                    },
                )
            }
        };
        let elapsed = now.saturating_sub(self.began).as_millis() / 10;
        self.actions.push_back(Action::Send(Ask {
            verb,
            xid: self.xid,
            elapsed: u16::try_from(elapsed).unwrap_or(u16::MAX),
            server: server.filter(|_| matches!(verb, Verb::Request | Verb::Renew)),
            addr: lease.map(Lease::ip).or(self.hint),
        }));
        self.pause = self.pace(&pace, verb);
        self.next = Some(now + self.pause);
        self.tries = self.tries.saturating_add(1);
        // What ends the exchange comes in time.
        let end = match self.phase {
            Phase::Confirming => Some(self.began + CONFIRM_FOR),
            Phase::Renewing => self.after(|l| l.rebind.min(l.valid)),
            _ if self.used => self.after(|l| l.valid),
            _ => None,
        };
        let soon = now + Duration::from_millis(10);
        self.next = self
            .next
            .map(|at| end.map_or(at, |end| at.min(end.max(soon))));
    }

    /// §15: twice as long as before, a tenth more or less.
    fn pace(&mut self, pace: &Pace, verb: Verb) -> Duration {
        let whole = match self.tries {
            0 => pace.first,
            _ => (self.pause * 2).min(pace.longest),
        };
        let tenth = whole / 10;
        match (self.tries, verb) {
            // §18.2.1: never shorter, for all servers to be heard.
            (0, Verb::Solicit) => whole + self.up_to(tenth),
            _ => whole - tenth + self.up_to(2 * tenth),
        }
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.draw() % (most + 1))
    }

    /// xorshift64*.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Lifetimes of 0 are a server's way to take an address away.
fn takes_away(reply: &Reply, own: Option<Ipv6Addr>) -> bool {
    let given = reply.association.iter().flat_map(|ia| &ia.given);
    given
        .into_iter()
        .any(|one| Some(one.addr) == own && one.valid == 0)
}

/// As if it had been given now.
fn aged(mut lease: Lease, age: Duration) -> Lease {
    let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
    let times = [
        &mut lease.renew,
        &mut lease.rebind,
        &mut lease.preferred,
        &mut lease.valid,
    ];
    for time in times.into_iter().filter(|time| **time != lease::FOREVER) {
        *time = time.saturating_sub(age);
    }
    lease.obtained = lease.obtained.saturating_add(age.into());
    lease
}

#[cfg(test)]
mod tests;
