//! RFC 2131's client, without sockets and without a clock: it is told what
//! came in and what time it is, and says what is to be done.
//!
//! ```text
//!            INIT ──DISCOVER──▶ SELECTING ──OFFER, REQUEST──▶ REQUESTING
//!             ▲                                                  │ ACK
//!  NAK, in use│                                                  ▼
//!  (a pause   ├──────────────────────────────────────────── PROBING (ARP)
//!   that      │            ACK; or no answer, and not over       │ free
//!   grows)    │      INIT-REBOOT ──REQUEST──▶ REBOOTING ──▶──┘   ▼
//!             ├── RENEWING ◀──T1── BOUND ◀───────────────────────┘
//!             └── REBINDING ◀──T2──┘  (ACK: back to BOUND)
//! ```
//!
//! *Times* are since boot, a sleeping machine's included. A lease begins when
//! its REQUEST was first sent (§4.4.1).
//!
//! *Whom to believe.* An answer must have the transaction of the last question;
//! an ACK must give the address that was asked for, and in REQUESTING and
//! RENEWING come from the server that was asked. All else is as if it had not
//! come. After a NAK or a conflict it begins anew, at once the first time; then
//! after a pause that grows, so that nobody can keep it busy.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lease::{FOREVER, Lease};
use super::message::{Ask, Kind, Reply, Verb};
use crate::base::MacAddr;

/// RFC 2131's 4 s is "for example": a container's start waits for this.
const FIRST: Duration = Duration::from_secs(2);
/// §4.1: doubled each time, up to 64 s.
const LONGEST: Duration = Duration::from_secs(64);
/// §3.1.5 and §4.4.5.
const AFTER_CONFLICT: Duration = Duration::from_secs(10);
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// REQUESTs for an offer before another one is looked for.
const REQUESTS: u32 = 3;
/// And for a lease of before: who knows nothing of it says nothing.
const REBOOTS: u32 = 2;

/// RFC 2131's states, and PROBING.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
pub enum Phase {
    Init,
    Selecting,
    Requesting,
    InitReboot,
    Rebooting,
    Probing,
    Bound,
    Renewing,
    Rebinding,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Init => "INIT",
            Self::Selecting => "SELECTING",
            Self::Requesting => "REQUESTING",
            Self::InitReboot => "INIT-REBOOT",
            Self::Rebooting => "REBOOTING",
            Self::Probing => "PROBING",
            Self::Bound => "BOUND",
            Self::Renewing => "RENEWING",
            Self::Rebinding => "REBINDING",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Broadcast(Ask),
    /// To the server, from the address that we have.
    Unicast(Ask, Ipv4Addr),
    /// Does anybody have it? [`Machine::probed`] wants to know.
    Probe(Ipv4Addr),
    /// From now on: what is new, or has been renewed.
    Use(Lease),
    /// The address is not ours any more.
    Drop,
}

#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    /// `--ip`: this one or none.
    wanted: Option<Ipv4Addr>,
    /// One that we had: asked for, not insisted on.
    hint: Option<Ipv4Addr>,
    random: u64,
    xid: u32,
    /// When it began to ask: `secs`.
    began: Duration,
    /// When this question was first asked.
    asked: Duration,
    tries: u32,
    next: Option<Duration>,
    /// Offered, asked for again, or had.
    lease: Option<Lease>,
    /// When it is over; `None`: never.
    end: Option<Duration>,
    /// The container has the address.
    used: bool,
    setbacks: u32,
    actions: VecDeque<Action>,
    trouble: Option<String>,
    /// A server that offers something, but not what is wanted.
    other_offer: Option<(Ipv4Addr, Ipv4Addr)>,
    /// It has another's MAC, who has these addresses.
    shared: Option<Vec<Ipv4Addr>>,
}

impl Machine {
    /// `seed` makes transactions that nobody can guess.
    pub(super) fn new(seed: u64, wanted: Option<Ipv4Addr>) -> Self {
        Self {
            phase: Phase::Init,
            wanted,
            hint: None,
            random: seed | 1,
            xid: 0,
            began: Duration::ZERO,
            asked: Duration::ZERO,
            tries: 0,
            next: None,
            lease: None,
            end: None,
            used: false,
            setbacks: 0,
            actions: VecDeque::new(),
            trouble: None,
            other_offer: None,
            shared: None,
        }
    }

    /// The MAC is another's, too, who has the addresses of `theirs`: answers are
    /// to come by broadcast, and none of these is taken. A server that goes by
    /// MACs alone offers them; to decline one would take it from them.
    pub(super) fn share_mac(&mut self, theirs: Vec<Ipv4Addr>) {
        self.shared = Some(theirs);
    }

    fn is_theirs(&self, ip: Ipv4Addr) -> bool {
        self.shared.as_ref().is_some_and(|all| all.contains(&ip))
    }

    /// Asks for an address: for the one of a lease that has so long to live,
    /// or else for the one of `hint`, if it may be.
    pub(super) fn start(
        &mut self,
        now: Duration,
        lease: Option<(Lease, Duration)>,
        hint: Option<Ipv4Addr>,
    ) {
        self.began = now;
        let lease = lease
            .filter(|(l, _)| self.wanted.is_none_or(|ip| ip == l.ip()) && !self.is_theirs(l.ip()));
        match lease {
            Some((lease, left)) if !left.is_zero() => {
                self.end = (left != Duration::MAX).then(|| now.saturating_add(left));
                self.lease = Some(lease);
                self.phase = Phase::InitReboot;
                self.next = Some(now);
                self.on_time(now);
            }
            old => {
                let hint = old.map(|(lease, _)| lease.ip()).or(hint);
                self.hint = hint.filter(|ip| !self.is_theirs(*ip));
                self.discover(now);
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
        !matches!(
            self.phase,
            Phase::Init | Phase::InitReboot | Phase::Probing | Phase::Bound
        )
    }

    /// What has last gone wrong, once.
    pub(super) fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// The server that offers another address than the one that is wanted, and
    /// has been given time to think better of it.
    pub(super) fn other_offer(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        self.other_offer.filter(|_| self.tries > 1)
    }

    pub(super) fn wanted(&self) -> Option<Ipv4Addr> {
        self.wanted
    }

    /// Of the lease that the container uses; `None`: never.
    pub(super) fn end(&self) -> Option<Duration> {
        self.end
    }

    /// The lease that the container uses.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref().filter(|_| self.used)
    }

    /// Gives the lease back.
    pub(super) fn release(lease: &Lease, xid: u32) -> Ask {
        Ask {
            kind: Verb::Release,
            xid,
            secs: 0,
            ciaddr: Some(lease.ip()),
            requested: None,
            server: Some(lease.server),
            to_all: false,
        }
    }

    pub(super) fn on_time(&mut self, now: Duration) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        match self.phase {
            Phase::Init => self.discover(now),
            Phase::Selecting => self.ask(now),
            Phase::InitReboot => {
                self.new_question(now, Phase::Rebooting);
                self.ask(now);
            }
            Phase::Requesting if self.tries < REQUESTS => self.ask(now),
            Phase::Requesting => {
                if let Some(offer) = self.lease.take() {
                    self.trouble = Some(format!(
                        "server {} offered {} and then said no more",
                        offer.server,
                        offer.ip()
                    ));
                }
                self.discover(now);
            }
            Phase::Rebooting if self.tries < REBOOTS => self.ask(now),
            // §3.2: what is not over may be used without an answer.
            Phase::Rebooting if self.end.is_none_or(|end| end > now) => {
                self.trouble = Some("no server answers: its lease of before is used".to_owned());
                self.probe();
            }
            Phase::Rebooting => self.expired(now),
            Phase::Probing => {}
            Phase::Bound => {
                self.new_question(now, Phase::Renewing);
                self.ask(now);
            }
            Phase::Renewing if self.before_end(|l| l.rebind).is_some_and(|t2| t2 <= now) => {
                self.new_question(now, Phase::Rebinding);
                self.ask(now);
            }
            Phase::Rebinding if self.end.is_some_and(|end| end <= now) => self.expired(now),
            Phase::Renewing | Phase::Rebinding => self.ask(now),
        }
    }

    pub(super) fn handle(&mut self, now: Duration, reply: &Reply) {
        if reply.xid != self.xid || !self.listens() {
            return;
        }
        match (self.phase, reply.kind) {
            (Phase::Selecting, Kind::Offer) => self.offered(now, reply),
            (Phase::Selecting, _) | (_, Kind::Offer) => {}
            (_, Kind::Ack) => self.acknowledged(now, reply),
            (_, Kind::Nak) => {
                if let Some(server) = reply.server.filter(|server| self.may_say_no(*server)) {
                    let text = reply.text();
                    let colon = if text.is_empty() { "" } else { ": " };
                    self.hint = None;
                    self.set_back(now, format!("server {server} said no{colon}{text}"));
                }
            }
        }
    }

    fn offered(&mut self, now: Duration, reply: &Reply) {
        let lease = match Lease::of(reply) {
            Ok(lease) => lease,
            Err(why) => {
                self.trouble = Some(format!("an offer cannot be used: {why}"));
                return;
            }
        };
        if self.is_theirs(lease.ip()) {
            self.trouble = Some(format!(
                "server {} offers {}, which this machine itself has: either the server must tell \
                 clients of one MAC apart by their client ids (option 61), or that address is to \
                 be out of its range",
                lease.server,
                lease.ip()
            ));
            return;
        }
        if self.wanted.is_some_and(|ip| ip != lease.ip()) {
            self.other_offer = Some((lease.server, lease.ip()));
            return;
        }
        self.lease = Some(lease);
        self.phase = Phase::Requesting;
        self.tries = 0;
        self.asked = now;
        self.ask(now);
    }

    fn acknowledged(&mut self, now: Duration, reply: &Reply) {
        let Some(asked_for) = &self.lease else {
            return;
        };
        if reply.your_ip != asked_for.ip() {
            return;
        }
        let lease = match Lease::of(reply) {
            Ok(lease) => lease,
            Err(why) => {
                self.trouble = Some(format!("an acknowledgement cannot be used: {why}"));
                return;
            }
        };
        let only_theirs = matches!(self.phase, Phase::Requesting | Phase::Renewing);
        if only_theirs && lease.server != asked_for.server {
            return;
        }
        let seconds = Duration::from_secs(u64::from(lease.seconds));
        self.end = (lease.seconds != FOREVER).then(|| self.asked.saturating_add(seconds));
        self.lease = Some(lease);
        if self.used {
            self.bind(now);
        } else {
            self.probe();
        }
    }

    fn may_say_no(&self, server: Ipv4Addr) -> bool {
        match self.phase {
            Phase::Requesting | Phase::Renewing => {
                self.lease.as_ref().is_some_and(|l| l.server == server)
            }
            _ => true,
        }
    }

    fn probe(&mut self) {
        let Some(lease) = &self.lease else {
            return;
        };
        self.phase = Phase::Probing;
        self.next = None;
        self.actions.push_back(Action::Probe(lease.ip()));
    }

    /// Who else has the address that [`Action::Probe`] asked for.
    pub(super) fn probed(&mut self, now: Duration, holder: Option<MacAddr>) {
        let (Phase::Probing, Some(lease)) = (self.phase, &self.lease) else {
            return;
        };
        let Some(holder) = holder else {
            self.bind(now);
            return;
        };
        let ip = lease.ip();
        self.actions.push_back(Action::Broadcast(Ask {
            kind: Verb::Decline,
            xid: self.xid,
            secs: 0,
            ciaddr: None,
            requested: Some(ip),
            server: Some(lease.server),
            to_all: false,
        }));
        self.hint = None;
        let pause = AFTER_CONFLICT;
        self.set_back(now, format!("{ip} was declined: {holder} has it"));
        if self.setbacks > 1 {
            self.next = self.next.map(|at| at.max(now + pause));
        }
    }

    fn bind(&mut self, now: Duration) {
        let Some(lease) = self.lease.clone() else {
            return;
        };
        self.phase = Phase::Bound;
        self.used = true;
        self.setbacks = 0;
        self.other_offer = None;
        // §4.4.5: some fuzz, so that not all come at once.
        let fuzz = Duration::from_millis(u64::from(lease.renew.min(86400)) * 50);
        let fuzz = self.up_to(fuzz);
        let t1 = self.before_end(|lease| lease.renew);
        self.next = t1.map(|t1| t1.saturating_sub(fuzz).max(now));
        self.actions.push_back(Action::Use(lease));
    }

    /// T1 or T2: so long before the end as the lease says.
    fn before_end(&self, time: impl Fn(&Lease) -> u32) -> Option<Duration> {
        let lease = self.lease.as_ref()?;
        let left = u64::from(lease.seconds.saturating_sub(time(lease)));
        Some(self.end?.saturating_sub(Duration::from_secs(left)))
    }

    fn expired(&mut self, now: Duration) {
        self.hint = self.lease.as_ref().map(Lease::ip);
        self.trouble = Some("the lease is over, and no server has renewed it".to_owned());
        self.give_up();
        self.began = now;
        self.discover(now);
    }

    /// Begins anew: at once, or after a pause that grows.
    fn set_back(&mut self, now: Duration, why: String) {
        self.trouble = Some(why);
        self.give_up();
        self.phase = Phase::Init;
        let pause = match self.setbacks {
            0 => Duration::ZERO,
            n => doubled(Duration::from_secs(1), n),
        };
        self.setbacks = self.setbacks.saturating_add(1);
        self.next = Some(now + pause);
        self.began = now;
    }

    fn give_up(&mut self) {
        self.lease = None;
        self.end = None;
        if std::mem::take(&mut self.used) {
            self.actions.push_back(Action::Drop);
        }
    }

    fn discover(&mut self, now: Duration) {
        self.lease = None;
        self.new_question(now, Phase::Selecting);
        self.ask(now);
    }

    fn new_question(&mut self, now: Duration, phase: Phase) {
        self.phase = phase;
        self.tries = 0;
        self.asked = now;
        if matches!(phase, Phase::Renewing) {
            self.began = now;
        }
        let before = self.xid;
        while self.xid == before {
            self.xid = u32::try_from(self.draw() >> 32).unwrap_or(1);
        }
    }

    /// Sends the question of this phase (again).
    fn ask(&mut self, now: Duration) {
        let secs = now.saturating_sub(self.began).as_secs();
        let ip = self.lease.as_ref().map(Lease::ip);
        let server = self.lease.as_ref().map(|lease| lease.server);
        let mut ask = Ask {
            kind: Verb::Request,
            xid: self.xid,
            secs: u16::try_from(secs).unwrap_or(u16::MAX),
            ciaddr: None,
            requested: ip,
            server: None,
            to_all: false,
        };
        match self.phase {
            Phase::Selecting => {
                ask.kind = Verb::Discover;
                ask.requested = self.wanted.or(self.hint);
            }
            Phase::Requesting => ask.server = server,
            Phase::Renewing | Phase::Rebinding => (ask.ciaddr, ask.requested) = (ip, None),
            _ => {}
        }
        ask.to_all = self.shared.is_some() && ask.ciaddr.is_none();
        self.actions.push_back(match (self.phase, server) {
            (Phase::Renewing, Some(server)) => Action::Unicast(ask, server),
            _ => Action::Broadcast(ask),
        });
        self.next = Some(match self.phase {
            Phase::Renewing => half_way(now, self.before_end(|lease| lease.rebind)),
            Phase::Rebinding => half_way(now, self.end),
            _ => {
                let pause = doubled(FIRST, self.tries);
                let jitter = (pause / 4).min(Duration::from_secs(1));
                now + pause - jitter + self.up_to(2 * jitter)
            }
        });
        self.tries = self.tries.saturating_add(1);
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

fn doubled(first: Duration, times: u32) -> Duration {
    (first * 2_u32.pow(times.min(6))).min(LONGEST)
}

/// §4.4.5: half of what is left, and no less than a minute; but not too late.
fn half_way(now: Duration, end: Option<Duration>) -> Duration {
    let again = |end: Duration| {
        let half = end.saturating_sub(now) / 2;
        (now + half.max(RENEW_AGAIN)).min(end.max(now + Duration::from_secs(1)))
    };
    end.map_or(now + RENEW_AGAIN, again)
}

#[cfg(test)]
mod tests;
