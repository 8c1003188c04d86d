//! A DHCPv6 client on a hostile LAN, for the fuzzer: see `docs/fuzzing.md`.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;
use std::time::Duration;

use super::lease::Lease;
use super::machine::{Action, Machine, Phase};
use super::message::{self, Ask, Association, Code, Given, Kind, Reply, Status, Verb};
use crate::base::fuzzing::Input;
use crate::net::dhcp::Identity;

const IP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x50);
const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const SERVER: [u8; 6] = [0, 3, 0, 1, 2, 3];

/// The first byte says which part.
pub fn dhcp6(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 2 {
        0 => message(input.rest()),
        _ => Lan::new(&mut input).run(&mut input),
    }
}

fn identity() -> &'static Identity {
    static OURS: LazyLock<Identity> =
        LazyLock::new(|| Identity::new(b"machine", "lan", "web", "web"));
    &OURS
}

fn message(bytes: &[u8]) {
    let Some(reply) = message::parse(bytes, identity()) else {
        return;
    };
    assert!(matches!(bytes[0], 2 | 7));
    assert!((3..=130).contains(&reply.server.len()));
    let stranger = Identity::new(b"machine", "lan", "other", "web");
    assert_eq!(message::parse(bytes, &stranger), None, "another's");
    if let Some(status) = &reply.status {
        let text = status.to_string();
        assert!(!text.contains(char::is_control) && text.chars().count() <= 120);
    }
    if let Some(ia) = &reply.association {
        assert!(ia.given.len() <= 8);
        assert!(ia.given.iter().all(|one| one.preferred <= one.valid));
        assert!(ia.renew == 0 || ia.rebind == 0 || ia.renew <= ia.rebind);
    }
    if let Ok(lease) = Lease::of(&reply, FROM, None) {
        check_lease(&lease);
        assert_eq!(lease.server, reply.server);
    }
}

fn check_lease(lease: &Lease) {
    let is_host = |ip: &Ipv6Addr| {
        !(ip.is_unspecified()
            || ip.is_loopback()
            || ip.is_multicast()
            || ip.is_unicast_link_local()
            || ip.to_ipv4_mapped().is_some())
    };
    assert!(is_host(&lease.ip()));
    assert_eq!(
        (lease.addr.prefix(), lease.addr.addr()),
        (128, IpAddr::V6(lease.ip()))
    );
    assert!(4 <= lease.valid && 2 <= lease.renew);
    assert!(lease.renew <= lease.rebind && lease.rebind <= lease.valid);
    assert!(lease.preferred <= lease.valid);
    for list in [&lease.dns, &lease.sntp] {
        assert!(list.len() <= 8 && list.iter().all(is_host));
    }
    for name in &lease.search {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        assert!(!name.is_empty() && name.len() <= 253, "{name:?}");
        assert!(name.chars().all(is_plain), "{name:?}");
    }
    for now in [0, lease.obtained, u64::MAX] {
        let (preferred, valid) = lease.lifetimes(now);
        assert!(preferred <= valid && 0 < valid && valid <= lease.valid);
    }
    let text = serde_json::to_vec(lease).expect("a lease is written");
    let back: Lease = serde_json::from_slice(&text).expect("and read");
    assert_eq!(back, *lease);
}

/// A client, the time, and what it may believe.
struct Lan {
    machine: Machine,
    now: Duration,
    /// The last question.
    asked: Option<Ask>,
    used: Option<Ipv6Addr>,
    sent: u64,
}

impl Lan {
    fn new(input: &mut Input<'_>) -> Self {
        let mut lan = Self {
            machine: Machine::new(42),
            now: Duration::from_secs(1000),
            asked: None,
            used: None,
            sent: 0,
        };
        let old = (input.byte() & 1 == 1).then(|| lan.right(Kind::Reply));
        let old = old.and_then(|reply| Lease::of(&reply, FROM, None).ok());
        let age = Duration::from_secs(input.short().into());
        lan.machine
            .start(lan.now, old.map(|lease| (lease, age)), Some(IP));
        lan.follow(None);
        lan
    }

    fn run(&mut self, input: &mut Input<'_>) {
        while !input.is_empty() {
            match input.byte() % 5 {
                0 => {
                    let reply = self.reply(input);
                    self.hear(&reply);
                }
                1 => {
                    if let Some(mut reply) = message::parse(input.part(), identity()) {
                        reply.xid = self.asked.as_ref().map_or(0, |ask| ask.xid);
                        self.hear(&reply);
                    }
                }
                2 => self.pass(input.short()),
                3 => self.machine.settled(),
                _ => {
                    self.machine.conflict(self.now);
                    self.follow(None);
                    assert_eq!(self.used, None);
                }
            }
        }
    }

    fn right(&self, kind: Kind) -> Reply {
        Reply {
            kind,
            xid: self.asked.as_ref().map_or(0, |ask| ask.xid),
            server: SERVER.into(),
            preference: 0,
            rapid_commit: false,
            status: None,
            association: Some(Association {
                renew: 0,
                rebind: 0,
                given: vec![Given {
                    addr: IP,
                    preferred: 60,
                    valid: 100,
                }],
            }),
            dns: Vec::new(),
            search: Vec::new(),
            sntp: Vec::new(),
            sol_max_rt: None,
        }
    }

    /// Mostly right, so that it gets somewhere.
    fn reply(&self, input: &mut Input<'_>) -> Reply {
        let (what, which) = (input.byte(), input.byte());
        let kind = match what & 1 {
            0 => Kind::Advertise,
            _ => Kind::Reply,
        };
        let mut reply = self.right(kind);
        reply.rapid_commit = what & 2 == 2;
        reply.preference = if what & 4 == 4 { input.byte() } else { 0 };
        if what & 8 == 8 {
            reply.sol_max_rt = Some(60);
        }
        let code = match what >> 4 {
            1 => Some(Code::UnspecFail),
            2 => Some(Code::NoAddrsAvail),
            3 => Some(Code::NoBinding),
            4 => Some(Code::NotOnLink),
            5 => Some(Code::Other(input.short())),
            _ => None,
        };
        reply.status = code.map(|code| Status {
            code,
            text: String::new(),
        });
        if which & 1 == 1 {
            reply.xid ^= u32::from(input.byte());
        }
        if which & 2 == 2 {
            reply.server = [&[0, 3, 0][..], &input.array::<2>()].concat();
        }
        if which & 4 == 4 {
            reply.association = None;
        }
        if let Some(ia) = &mut reply.association
            && which & 8 == 8
        {
            let number = |input: &mut Input<'_>| u32::from_be_bytes(input.array());
            (ia.renew, ia.rebind) = (number(input), number(input));
            let one = &mut ia.given[0];
            let (a, b) = (number(input), number(input));
            (one.preferred, one.valid) = (a.min(b), a.max(b));
        }
        if let Some(ia) = &mut reply.association
            && which & 16 == 16
        {
            ia.given[0].addr = Ipv6Addr::from(input.array::<16>());
        }
        if let Some(ia) = &mut reply.association
            && which & 32 == 32
        {
            (ia.given[0].preferred, ia.given[0].valid) = (0, 0);
        }
        reply
    }

    fn hear(&mut self, reply: &Reply) {
        let before = (self.machine.phase(), self.machine.deadline());
        let sent = self.sent;
        self.machine.handle(self.now, reply, FROM);
        self.follow(Some(reply));
        assert!(self.sent <= sent + 1, "one message, several questions");
        if self.asked.as_ref().is_none_or(|ask| ask.xid != reply.xid) && self.sent == sent {
            let after = (self.machine.phase(), self.machine.deadline());
            assert_eq!(before, after, "moved by another's transaction");
        }
    }

    fn pass(&mut self, seconds: u16) {
        let seconds = Duration::from_secs(seconds.into());
        let until = self.now + seconds;
        let mut rounds = 0_u32;
        while let Some(at) = self.machine.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            let sent = self.sent;
            self.machine.on_time(self.now);
            self.follow(None);
            assert!(self.sent <= sent + 1);
            rounds += 1;
            // Two a second, at the worst, and some for what was due at once.
            assert!(
                u64::from(rounds) <= 2 * seconds.as_secs() + 6,
                "busy in {:?}",
                self.machine.phase()
            );
        }
        self.now = until;
    }

    /// Carries out what is to be done; `reply` is what came in, if that is why.
    fn follow(&mut self, reply: Option<&Reply>) {
        let mut steps = 0;
        while let Some(action) = self.machine.action() {
            steps += 1;
            assert!(steps < 8, "no end of {action:?}");
            match action {
                Action::Send(ask) => self.say(ask),
                Action::Use(lease) => {
                    check_lease_in_time(&lease);
                    self.check_ours(&lease, reply);
                    self.used = Some(lease.ip());
                }
                Action::Drop => assert!(self.used.take().is_some(), "dropped twice"),
            }
        }
        let lease = self.machine.lease().map(|(lease, _)| lease);
        assert_eq!(lease.map(Lease::ip), self.used);
        let is_silent = self.machine.phase() == Phase::Bound
            && lease.is_some_and(|lease| lease.valid == u32::MAX && lease.renew == u32::MAX);
        assert_eq!(self.machine.deadline().is_none(), is_silent);
        let trouble = self.machine.take_trouble().unwrap_or_default();
        assert!(!trouble.contains(char::is_control) && trouble.len() < 600);
    }

    fn say(&mut self, ask: Ask) {
        self.sent += 1;
        let bytes = ask.payload(identity());
        assert!(bytes.len() <= 512);
        assert_eq!(
            message::parse(&bytes, identity()),
            None,
            "a question as an answer"
        );
        if ask.verb != Verb::Decline {
            self.asked = Some(ask);
        }
    }

    /// What comes by a message answers our question, and is its server's if it
    /// was one server's to answer.
    fn check_ours(&self, lease: &Lease, reply: Option<&Reply>) {
        let Some(ask) = &self.asked else {
            panic!("{lease:?} without a question");
        };
        let Some(reply) = reply else {
            assert_eq!(ask.verb, Verb::Confirm, "used without an answer");
            return;
        };
        assert_eq!((reply.kind, reply.xid), (Kind::Reply, ask.xid));
        assert_eq!(reply.status, None);
        assert!(
            ask.server
                .as_ref()
                .is_none_or(|server| *server == reply.server)
        );
        assert!(ask.verb != Verb::Solicit || reply.rapid_commit);
        if ask.verb == Verb::Confirm {
            assert_eq!(ask.addr, Some(lease.ip()), "only what it was");
        }
    }
}

/// One that has grown older may have less left than a new one must have.
fn check_lease_in_time(lease: &Lease) {
    let mut young = lease.clone();
    (young.valid, young.renew) = (young.valid.max(4), young.renew.max(2));
    young.rebind = young
        .rebind
        .clamp(young.renew, young.valid.max(young.renew));
    check_lease(&young);
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_dhcp6() {
        crate::base::fuzzing::replay("dhcp6", super::dhcp6);
    }
}
