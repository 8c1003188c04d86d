//! The machine against servers and forgers, on a made-up clock.

use super::super::message::{Association, Given, Status};
use super::*;

const IP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x50);
const NEW: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x51);
const FROM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const SERVER: [u8; 6] = [0, 3, 0, 1, 2, 3];
const OTHER: [u8; 6] = [0, 3, 0, 1, 2, 4];

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One network: a machine and the time.
struct Net {
    machine: Machine,
    now: Duration,
}

impl Net {
    fn new() -> Self {
        let mut net = Self {
            machine: Machine::new(42),
            now: s(1000),
        };
        net.machine.start(net.now, None, None);
        net
    }

    fn resumed(age: Duration) -> Self {
        let mut net = Self::bound();
        let lease = net.machine.lease().unwrap().0.clone();
        net.machine = Machine::new(7);
        net.machine.start(net.now, Some((lease, age)), None);
        net
    }

    /// By way of an advertisement: valid for 1000 s, preferred for 800, T1 and
    /// T2 after 400 and 640.
    fn bound() -> Self {
        let mut net = Self::new();
        net.asked(Verb::Solicit);
        net.says(Kind::Advertise, &SERVER, IP);
        net.passes();
        let request = net.asked(Verb::Request);
        assert_eq!(
            (request.server, request.addr),
            (Some(SERVER.into()), Some(IP))
        );
        net.says(Kind::Reply, &SERVER, IP);
        assert!(matches!(net.machine.action(), Some(Action::Use(_))));
        net.is(Phase::Bound);
        net.machine.settled();
        net
    }

    fn reply(&self, kind: Kind, server: &[u8], addr: Ipv6Addr) -> Reply {
        Reply {
            kind,
            xid: self.machine.xid,
            server: server.to_vec(),
            preference: 0,
            rapid_commit: false,
            status: None,
            association: Some(Association {
                renew: 0,
                rebind: 0,
                given: vec![Given {
                    addr,
                    preferred: 800,
                    valid: 1000,
                }],
            }),
            dns: Vec::new(),
            search: Vec::new(),
            sntp: Vec::new(),
            sol_max_rt: None,
        }
    }

    fn says(&mut self, kind: Kind, server: &[u8], addr: Ipv6Addr) {
        let reply = self.reply(kind, server, addr);
        self.hears(&reply);
    }

    fn refuses(&mut self, kind: Kind, server: &[u8], code: Code) {
        let mut reply = self.reply(kind, server, IP);
        reply.association = None;
        let text = "so there".to_owned();
        reply.status = Some(Status { code, text });
        self.hears(&reply);
    }

    fn hears(&mut self, reply: &Reply) {
        self.machine.handle(self.now, reply, FROM);
    }

    /// What it asks next, and nothing else.
    fn asked(&mut self, verb: Verb) -> Ask {
        let ask = match self.machine.action() {
            Some(Action::Send(ask)) => ask,
            other => panic!("{other:?}"),
        };
        assert_eq!(ask.verb, verb);
        assert_eq!(self.machine.action(), None);
        ask
    }

    /// Until the next thing is due. How long that took.
    fn passes(&mut self) -> Duration {
        let at = self.machine.deadline().unwrap();
        let took = at.saturating_sub(self.now);
        self.now = self.now.max(at);
        self.machine.on_time(self.now);
        took
    }

    fn is(&self, phase: Phase) {
        assert_eq!(self.machine.phase(), phase);
    }

    fn trouble(&mut self, phrase: &str) {
        let trouble = self.machine.take_trouble().unwrap_or_default();
        assert!(trouble.contains(phrase), "{trouble:?}");
    }
}

fn about(is: Duration, seconds: u64) {
    let (least, most) = (s(seconds).mul_f64(0.9), s(seconds).mul_f64(1.1));
    assert!(
        (least..=most).contains(&is),
        "{is:?} is not about {seconds} s"
    );
}

#[test]
fn the_best_of_several_is_taken() {
    let mut net = Net::new();
    net.asked(Verb::Solicit);
    for (server, preference) in [(&SERVER, 3), (&OTHER, 7), (&SERVER, 7)] {
        let mut reply = net.reply(Kind::Advertise, server, IP);
        reply.preference = preference;
        net.hears(&reply);
        assert_eq!(net.machine.action(), None);
    }
    let took = net.passes();
    assert!(took >= s(1), "{took:?}");
    assert_eq!(net.asked(Verb::Request).server, Some(OTHER.into()));
    // The best that can be is not waited with.
    let mut net = Net::new();
    net.asked(Verb::Solicit);
    let mut reply = net.reply(Kind::Advertise, &SERVER, IP);
    reply.preference = 255;
    net.hears(&reply);
    net.asked(Verb::Request);
    // Nor is the first one once the first pause is over.
    let mut net = Net::new();
    net.asked(Verb::Solicit);
    net.passes();
    net.asked(Verb::Solicit);
    net.says(Kind::Advertise, &SERVER, IP);
    net.asked(Verb::Request);
}

#[test]
fn an_address_that_it_had_decides_between_equals() {
    let mut net = Net::new();
    net.machine = Machine::new(1);
    net.machine.start(net.now, None, Some(NEW));
    assert_eq!(net.asked(Verb::Solicit).addr, Some(NEW));
    net.says(Kind::Advertise, &SERVER, IP);
    net.says(Kind::Advertise, &OTHER, NEW);
    net.passes();
    assert_eq!(net.asked(Verb::Request).addr, Some(NEW));
}

#[test]
fn rapid_commit() {
    let mut net = Net::new();
    net.asked(Verb::Solicit);
    // Without the option a Reply to a Solicit is none (§18.2.1).
    net.says(Kind::Reply, &SERVER, IP);
    assert_eq!(net.machine.action(), None);
    let mut reply = net.reply(Kind::Reply, &SERVER, IP);
    reply.rapid_commit = true;
    net.hears(&reply);
    assert!(matches!(net.machine.action(), Some(Action::Use(l)) if l.ip() == IP));
    net.is(Phase::Bound);
}

#[test]
fn pauses_grow() {
    let mut net = Net::new();
    for seconds in [1, 2, 4, 8, 16, 32] {
        let elapsed = net.asked(Verb::Solicit).elapsed;
        assert_eq!(u128::from(elapsed), (net.now - s(1000)).as_millis() / 10);
        let took = net.passes();
        assert!(took >= s(seconds).mul_f64(0.8) && took <= s(seconds).mul_f64(1.5));
    }
    for _ in 0..20 {
        net.asked(Verb::Solicit);
        net.passes();
    }
    assert_eq!(net.asked(Verb::Solicit).elapsed, u16::MAX);
    about(net.passes(), 3600);
    // SOL_MAX_RT, also from a server that has no address.
    net.asked(Verb::Solicit);
    let mut reply = net.reply(Kind::Advertise, &SERVER, IP);
    reply.sol_max_rt = Some(60);
    reply.status = Some(Status {
        code: Code::NoAddrsAvail,
        text: String::new(),
    });
    net.hears(&reply);
    net.trouble("has no address for it (NoAddrsAvail)");
    net.passes();
    net.asked(Verb::Solicit);
    about(net.passes(), 60);
}

#[test]
fn a_server_that_says_no_more() {
    let mut net = Net::new();
    net.asked(Verb::Solicit);
    net.says(Kind::Advertise, &SERVER, IP);
    for _ in 0..REQ_MAX_RC {
        net.passes();
        net.asked(Verb::Request);
    }
    net.passes();
    net.asked(Verb::Solicit);
    net.trouble("and then said no more");
}

#[test]
fn renewed_rebound_and_over() {
    let mut net = Net::bound();
    let began = net.now;
    assert_eq!(net.passes(), s(400));
    let renew = net.asked(Verb::Renew);
    assert_eq!((renew.server, renew.addr), (Some(SERVER.into()), Some(IP)));
    net.is(Phase::Renewing);
    about(net.passes(), 10);
    net.asked(Verb::Renew);
    net.says(Kind::Reply, &SERVER, IP);
    assert!(matches!(net.machine.action(), Some(Action::Use(_))));
    net.is(Phase::Bound);
    let began = {
        assert!(net.now > began);
        net.now
    };
    assert_eq!(net.passes(), s(400));
    while net.now < began + s(640) {
        net.asked(Verb::Renew);
        net.passes();
    }
    assert!(net.now < began + s(641));
    let rebind = net.asked(Verb::Rebind);
    assert_eq!((rebind.server, rebind.addr), (None, Some(IP)));
    while net.now < began + s(1000) {
        net.passes();
        if net.now < began + s(1000) {
            net.asked(Verb::Rebind);
        }
    }
    assert_eq!(net.machine.action(), Some(Action::Drop));
    assert_eq!(net.asked(Verb::Solicit).addr, Some(IP));
    net.trouble("is over");
    assert!(net.now < began + s(1001));
}

#[test]
fn any_server_may_rebind() {
    let mut net = Net::bound();
    net.passes();
    net.asked(Verb::Renew);
    net.says(Kind::Reply, &OTHER, IP);
    assert_eq!(net.machine.action(), None);
    net.now += s(300);
    net.machine.on_time(net.now);
    net.asked(Verb::Rebind);
    net.says(Kind::Reply, &OTHER, IP);
    assert!(matches!(net.machine.action(), Some(Action::Use(l)) if l.server == OTHER));
}

/// §18.2.10.1: NoBinding is answered with a Request; the address stays.
#[test]
fn a_server_that_has_forgotten_it() {
    let mut net = Net::bound();
    net.passes();
    net.asked(Verb::Renew);
    net.refuses(Kind::Reply, &SERVER, Code::NoBinding);
    net.trouble("NoBinding: so there");
    assert_eq!(net.asked(Verb::Request).addr, Some(IP));
    net.says(Kind::Reply, &SERVER, NEW);
    assert!(matches!(net.machine.action(), Some(Action::Use(l)) if l.ip() == NEW));
}

#[test]
fn lifetimes_of_zero_take_it_away() {
    let mut net = Net::bound();
    net.passes();
    net.asked(Verb::Renew);
    let mut reply = net.reply(Kind::Reply, &SERVER, IP);
    if let Some(ia) = &mut reply.association {
        (ia.given[0].preferred, ia.given[0].valid) = (0, 0);
    }
    net.hears(&reply);
    assert_eq!(net.machine.action(), Some(Action::Drop));
    net.trouble("taken the address back");
    net.passes();
    assert_eq!(net.asked(Verb::Solicit).addr, None);
}

#[test]
fn a_lease_of_before_is_confirmed() {
    let mut net = Net::resumed(s(100));
    net.is(Phase::Confirming);
    let confirm = net.asked(Verb::Confirm);
    assert_eq!((confirm.server, confirm.addr), (None, Some(IP)));
    assert!(net.machine.lease().is_none(), "not used before it is");
    let mut reply = net.reply(Kind::Reply, &OTHER, IP);
    reply.association = None;
    net.hears(&reply);
    assert!(matches!(net.machine.action(), Some(Action::Use(_))));
    // T1 is its server's, from when it was given.
    assert_eq!(net.passes(), s(300));
    assert_eq!(net.asked(Verb::Renew).server, Some(SERVER.into()));
    // Past T1 and T2 already.
    for (age, verb) in [(500, Verb::Renew), (700, Verb::Rebind)] {
        let mut net = Net::resumed(s(age));
        net.asked(Verb::Confirm);
        let mut reply = net.reply(Kind::Reply, &SERVER, IP);
        reply.association = None;
        net.hears(&reply);
        assert!(matches!(net.machine.action(), Some(Action::Use(_))));
        assert_eq!(net.passes(), s(0));
        net.asked(verb);
    }
    // Older than this boot.
    let mut net = Net::bound();
    let lease = net.machine.lease().unwrap().0.clone();
    net.machine = Machine::new(7);
    net.machine.start(s(10), Some((lease, s(300))), None);
    (net.now, _) = (s(10), net.asked(Verb::Confirm));
    let mut reply = net.reply(Kind::Reply, &SERVER, IP);
    reply.association = None;
    net.hears(&reply);
    assert!(matches!(net.machine.action(), Some(Action::Use(l)) if l.valid == 700));
    assert_eq!(net.passes(), s(100));
}

#[test]
fn a_lease_of_before_without_an_answer() {
    let mut net = Net::resumed(s(100));
    net.asked(Verb::Confirm);
    let began = net.now;
    while net.machine.phase() == Phase::Confirming {
        net.passes();
        if net.machine.phase() == Phase::Confirming {
            net.asked(Verb::Confirm);
        }
    }
    assert!(net.now - began <= s(5));
    assert!(matches!(net.machine.action(), Some(Action::Use(_))));
    net.trouble("lease of before is used");
    // One that is over is only a wish.
    let mut net = Net::resumed(s(1000));
    assert_eq!(net.asked(Verb::Solicit).addr, Some(IP));
}

#[test]
fn a_lease_of_another_link() {
    let mut net = Net::resumed(s(100));
    net.asked(Verb::Confirm);
    net.refuses(Kind::Reply, &OTHER, Code::NotOnLink);
    net.trouble("NotOnLink");
    assert_eq!(net.machine.action(), None, "it was not in use");
    net.passes();
    assert_eq!(net.asked(Verb::Solicit).addr, None);
}

#[test]
fn conflicts_are_declined_and_slow_down() {
    let mut net = Net::new();
    net.asked(Verb::Solicit);
    for pause in [0, 10, 10, 10, 16, 32, 64, 64] {
        let mut reply = net.reply(Kind::Reply, &SERVER, IP);
        reply.rapid_commit = true;
        net.hears(&reply);
        assert!(matches!(net.machine.action(), Some(Action::Use(_))));
        net.machine.conflict(net.now);
        let Some(Action::Send(decline)) = net.machine.action() else {
            panic!("no Decline");
        };
        assert_eq!(decline.verb, Verb::Decline);
        assert_eq!(
            (decline.server, decline.addr),
            (Some(SERVER.into()), Some(IP))
        );
        assert_eq!(net.machine.action(), Some(Action::Drop));
        net.trouble("was declined");
        assert_eq!(net.passes(), s(pause));
        assert_eq!(net.asked(Verb::Solicit).addr, None);
    }
    // Without an address there is none to decline.
    net.machine.conflict(net.now);
    assert_eq!(net.machine.action(), None);
}

#[test]
fn a_request_that_is_refused() {
    for (code, verb) in [
        (Code::NoAddrsAvail, Verb::Solicit),
        (Code::NotOnLink, Verb::Solicit),
        (Code::Other(9), Verb::Solicit),
        // It may think better of it.
        (Code::UnspecFail, Verb::Request),
    ] {
        let mut net = Net::new();
        net.asked(Verb::Solicit);
        net.says(Kind::Advertise, &SERVER, IP);
        net.passes();
        net.asked(Verb::Request);
        net.refuses(Kind::Reply, &SERVER, code);
        net.trouble("said no");
        net.passes();
        net.asked(verb);
    }
}

/// None of it moves the machine.
#[test]
fn forged_answers() {
    let mut net = Net::new();
    net.asked(Verb::Solicit);
    net.says(Kind::Advertise, &SERVER, IP);
    net.passes();
    net.asked(Verb::Request);
    let still = |net: &mut Net, reply: &Reply| {
        let before = (net.machine.phase(), net.machine.deadline());
        net.hears(reply);
        assert_eq!(net.machine.action(), None);
        assert_eq!((net.machine.phase(), net.machine.deadline()), before);
    };
    let mut other = net.reply(Kind::Reply, &SERVER, NEW);
    other.xid ^= 1;
    still(&mut net, &other);
    let wrong = net.reply(Kind::Reply, &OTHER, NEW);
    still(&mut net, &wrong);
    let late = net.reply(Kind::Advertise, &SERVER, NEW);
    still(&mut net, &late);
    for change in [
        (|r: &mut Reply| r.association = None) as fn(&mut Reply),
        |r| r.association.as_mut().unwrap().given.clear(),
        |r| r.association.as_mut().unwrap().given[0].addr = FROM,
        |r| r.association.as_mut().unwrap().given[0].addr = Ipv6Addr::LOCALHOST,
        |r| r.association.as_mut().unwrap().given[0].valid = 3,
    ] {
        let mut reply = net.reply(Kind::Reply, &SERVER, NEW);
        change(&mut reply);
        still(&mut net, &reply);
        net.trouble("cannot be used");
    }
    // And at rest nothing does.
    net.says(Kind::Reply, &SERVER, IP);
    assert!(matches!(net.machine.action(), Some(Action::Use(_))));
    let again = net.reply(Kind::Reply, &SERVER, NEW);
    still(&mut net, &again);
}

#[test]
fn times_that_make_no_sense() {
    let lease = |renew, rebind, preferred, valid| {
        let net = Net::new();
        let mut reply = net.reply(Kind::Reply, &SERVER, IP);
        reply.association = Some(Association {
            renew,
            rebind,
            given: vec![Given {
                addr: IP,
                preferred,
                valid,
            }],
        });
        let lease = Lease::of(&reply, FROM, None).unwrap();
        (lease.renew, lease.rebind, lease.valid)
    };
    let ever = u32::MAX;
    assert_eq!(lease(0, 0, 100, 200), (50, 80, 200));
    assert_eq!(lease(0, 0, 0, 200), (100, 160, 200));
    assert_eq!(lease(0, 0, ever, ever), (ever, ever, ever));
    assert_eq!(lease(10, 20, ever, ever), (10, 20, ever));
    // Neither all the time, nor when it is over.
    assert_eq!(lease(1, 1, 100, 200), (2, 2, 200));
    assert_eq!(lease(ever, ever, 100, 200), (200, 200, 200));
    assert_eq!(lease(0, 10, 100, 200), (50, 50, 200));
}

/// A lease for ever is never asked for again.
#[test]
fn for_ever() {
    let mut net = Net::new();
    net.asked(Verb::Solicit);
    let mut reply = net.reply(Kind::Reply, &SERVER, IP);
    reply.rapid_commit = true;
    if let Some(ia) = &mut reply.association {
        (ia.given[0].preferred, ia.given[0].valid) = (u32::MAX, u32::MAX);
    }
    net.hears(&reply);
    assert!(matches!(net.machine.action(), Some(Action::Use(_))));
    assert_eq!(net.machine.deadline(), None);
}

#[test]
fn what_could_not_be_sent_begins_when_it_can() {
    let mut net = Net::new();
    net.asked(Verb::Solicit);
    net.now += s(2);
    net.machine.begin_again(net.now);
    assert_eq!(net.asked(Verb::Solicit).elapsed, 0);
    net.says(Kind::Advertise, &SERVER, IP);
    // The first pause, in which the best one is looked for.
    assert_eq!(net.machine.action(), None);
    net.passes();
    net.asked(Verb::Request);
}
