//! The machine against servers and forgers, on a made-up clock.

use super::super::message::code;
use super::*;

const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 50);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 66);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

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
            machine: Machine::new(42, None),
            now: s(1000),
        };
        net.machine.start(net.now, None, None);
        net
    }

    fn resumed(left: Duration) -> Self {
        let mut net = Self::bound();
        let lease = net.machine.lease().unwrap().clone();
        net.machine = Machine::new(7, None);
        net.machine.start(net.now, Some((lease, left)), None);
        net
    }

    fn bound() -> Self {
        let mut net = Self::new();
        net.asked(Verb::Discover);
        net.says(Kind::Offer, SERVER, IP);
        net.asked(Verb::Request);
        net.says(Kind::Ack, SERVER, IP);
        assert_eq!(net.machine.action(), Some(Action::Probe(IP)));
        net.machine.probed(net.now, None);
        assert!(matches!(net.machine.action(), Some(Action::Use(_))));
        net.is(Phase::Bound);
        net
    }

    fn reply(&self, kind: Kind, server: Ipv4Addr, ip: Ipv4Addr) -> Reply {
        let options = [
            (code::SUBNET_MASK, vec![255, 255, 255, 0]),
            (code::LEASE_TIME, 3600_u32.to_be_bytes().to_vec()),
        ];
        Reply {
            kind,
            xid: self.machine.xid,
            your_ip: ip,
            server: Some(server),
            options: options.into(),
        }
    }

    fn says(&mut self, kind: Kind, server: Ipv4Addr, ip: Ipv4Addr) {
        let reply = self.reply(kind, server, ip);
        self.machine.handle(self.now, &reply);
    }

    /// What it asks next, and nothing else.
    fn asked(&mut self, verb: Verb) -> Ask {
        let ask = match self.machine.action() {
            Some(Action::Broadcast(ask) | Action::Unicast(ask, _)) => ask,
            other => panic!("{other:?}"),
        };
        assert_eq!(ask.kind, verb);
        assert_eq!(self.machine.action(), None);
        ask
    }

    fn is(&self, phase: Phase) {
        assert_eq!(self.machine.phase(), phase);
    }

    /// On to the next moment at which something is due.
    fn wait(&mut self) -> Duration {
        let before = self.now;
        self.now = self.machine.deadline().expect("nothing is due");
        self.machine.on_time(self.now);
        self.now - before
    }

    fn is_unmoved_by(&mut self, reply: &Reply) {
        let (phase, deadline) = (self.machine.phase(), self.machine.deadline());
        self.machine.handle(self.now, reply);
        assert_eq!(self.machine.phase(), phase, "{reply:?}");
        assert_eq!(self.machine.deadline(), deadline);
        assert_eq!(self.machine.action(), None, "{reply:?}");
    }
}

#[test]
fn a_lease_and_its_renewals() {
    let mut net = Net::new();
    let discover = net.asked(Verb::Discover);
    assert_eq!((discover.requested, discover.server), (None, None));
    net.says(Kind::Offer, SERVER, IP);
    let request = net.asked(Verb::Request);
    assert_eq!(request.xid, discover.xid);
    assert_eq!(
        (request.ciaddr, request.requested, request.server),
        (None, Some(IP), Some(SERVER))
    );
    net.says(Kind::Ack, SERVER, IP);
    assert_eq!(net.machine.action(), Some(Action::Probe(IP)));
    assert_eq!(net.machine.lease(), None);
    net.machine.probed(net.now, None);
    assert!(matches!(net.machine.action(), Some(Action::Use(l)) if l.ip() == IP));
    // T1 is 1800 s, and nothing happens before, less 5 %.
    let began = net.now;
    let waited = net.wait();
    assert!((s(1710)..=s(1800)).contains(&waited), "{waited:?}");
    assert_eq!(net.machine.phase(), Phase::Renewing);
    let Some(Action::Unicast(renew, SERVER)) = net.machine.action() else {
        panic!("no renewal");
    };
    assert_eq!(
        (renew.ciaddr, renew.requested, renew.server),
        (Some(IP), None, None)
    );
    assert_ne!(renew.xid, request.xid);
    net.says(Kind::Ack, SERVER, IP);
    assert!(matches!(net.machine.action(), Some(Action::Use(_))));
    assert!(net.machine.end.unwrap() >= began + s(3600 + 1710));
    net.is(Phase::Bound);
}

#[test]
fn nobody_answers_and_it_asks_less_and_less() {
    let mut net = Net::new();
    let mut asks = vec![net.asked(Verb::Discover)];
    let mut waits = Vec::new();
    for _ in 0..8 {
        waits.push(net.wait());
        asks.push(net.asked(Verb::Discover));
    }
    for (wait, middle) in waits.iter().zip([2, 4, 8, 16, 32, 64, 64, 64]) {
        let jitter = (s(middle) / 4).min(s(1));
        let range = s(middle) - jitter..=s(middle) + jitter;
        assert!(range.contains(wait), "{waits:?}");
    }
    assert!(asks.iter().all(|ask| ask.xid == asks[0].xid));
    assert!(asks.windows(2).all(|pair| pair[0].secs <= pair[1].secs));
    assert!(asks[8].secs > 180);
}

#[test]
fn rebinding_and_the_end() {
    let mut net = Net::bound();
    let end = net.machine.end.unwrap();
    net.wait();
    net.asked(Verb::Request);
    // Again before T2, then to everybody, then again, then it is over.
    let mut phases = Vec::new();
    while net.now < end {
        net.wait();
        phases.push(net.machine.phase());
        if net.now < end {
            let ask = net.asked(Verb::Request);
            assert_eq!((ask.ciaddr, ask.server), (Some(IP), None));
        }
    }
    assert!(phases.contains(&Phase::Renewing) && phases.contains(&Phase::Rebinding));
    assert!(phases.len() < 30, "{phases:?}");
    assert_eq!(net.machine.action(), Some(Action::Drop));
    // Anew, and for the same one if it may be.
    assert_eq!(net.asked(Verb::Discover).requested, Some(IP));
    assert!(net.machine.take_trouble().unwrap().contains("is over"));
}

#[test]
fn any_server_may_rebind() {
    let mut net = Net::bound();
    while net.machine.phase() != Phase::Rebinding {
        net.wait();
        net.asked(Verb::Request);
    }
    net.says(Kind::Ack, OTHER, IP);
    assert!(matches!(net.machine.action(), Some(Action::Use(l)) if l.server == OTHER));
}

#[test]
fn a_lease_of_before_is_asked_for_again() {
    let mut net = Net::resumed(s(900));
    net.is(Phase::Rebooting);
    let ask = net.asked(Verb::Request);
    assert_eq!(
        (ask.ciaddr, ask.requested, ask.server),
        (None, Some(IP), None)
    );
    net.says(Kind::Ack, SERVER, IP);
    assert_eq!(net.machine.action(), Some(Action::Probe(IP)));
    net.machine.probed(net.now, None);
    assert_eq!(net.machine.end.unwrap(), net.now + s(3600));
}

#[test]
fn a_lease_of_before_is_used_where_nobody_answers() {
    let mut net = Net::resumed(s(900));
    let began = net.now;
    net.asked(Verb::Request);
    net.wait();
    net.asked(Verb::Request);
    net.wait();
    assert_eq!(net.machine.action(), Some(Action::Probe(IP)));
    assert!(net.now - began < s(8), "a start waits for this");
    net.machine.probed(net.now, None);
    assert!(matches!(net.machine.action(), Some(Action::Use(_))));
    // No longer than it was, and to be renewed at once: T1 is long past.
    assert_eq!(net.machine.end.unwrap(), began + s(900));
    assert!(net.wait() < s(1));
    assert!(net.machine.take_trouble().unwrap().contains("of before"));
}

#[test]
fn a_lease_of_before_that_is_over_or_unwanted_is_none() {
    let mut net = Net::resumed(s(0));
    assert_eq!(net.asked(Verb::Discover).requested, Some(IP));
    let lease = Net::bound().machine.lease().unwrap().clone();
    let mut machine = Machine::new(1, Some(OTHER));
    machine.start(s(5), Some((lease, s(900))), None);
    assert!(matches!(
        machine.action(),
        Some(Action::Broadcast(ask)) if ask.requested == Some(OTHER)
    ));
}

#[test]
fn an_address_of_before_is_a_wish() {
    let mut net = Net::new();
    net.machine = Machine::new(3, None);
    net.machine.start(net.now, None, Some(OTHER));
    assert_eq!(net.asked(Verb::Discover).requested, Some(OTHER));
    net.says(Kind::Offer, SERVER, IP);
    assert_eq!(net.asked(Verb::Request).requested, Some(IP));
}

#[test]
fn a_lease_of_before_may_be_refused() {
    let mut net = Net::resumed(s(900));
    net.asked(Verb::Request);
    net.says(Kind::Nak, OTHER, Ipv4Addr::UNSPECIFIED);
    net.wait();
    assert_eq!(net.asked(Verb::Discover).requested, None);
    assert!(net.machine.take_trouble().unwrap().contains("said no"));
}

#[test]
fn the_address_that_is_wanted_or_none() {
    let mut net = Net::new();
    net.machine = Machine::new(3, Some(IP));
    net.machine.start(net.now, None, None);
    assert_eq!(net.asked(Verb::Discover).requested, Some(IP));
    net.says(Kind::Offer, SERVER, OTHER);
    net.is(Phase::Selecting);
    assert_eq!(net.machine.other_offer(), None);
    net.wait();
    assert_eq!(net.machine.other_offer(), Some((SERVER, OTHER)));
    net.asked(Verb::Discover);
    net.says(Kind::Offer, SERVER, IP);
    net.is(Phase::Requesting);
}

/// Nothing but a broadcast reaches it before it has an address.
#[test]
fn a_shared_mac_asks_for_broadcasts_until_it_has_an_address() {
    let shared = || {
        let mut machine = Machine::new(3, None);
        machine.share_mac(vec![OTHER]);
        machine
    };
    let mut net = Net::new();
    net.machine = shared();
    net.machine.start(net.now, None, None);
    assert!(net.asked(Verb::Discover).to_all);
    // Another's, who must not lose it.
    net.says(Kind::Offer, SERVER, OTHER);
    net.is(Phase::Selecting);
    let trouble = net.machine.take_trouble().unwrap();
    assert!(
        trouble.contains("which this machine itself has"),
        "{trouble}"
    );
    net.says(Kind::Offer, SERVER, IP);
    assert!(net.asked(Verb::Request).to_all);
    net.says(Kind::Ack, SERVER, IP);
    net.machine.action();
    net.machine.probed(net.now, None);
    net.machine.action();
    let lease = net.machine.lease().unwrap().clone();
    net.wait();
    assert!(!net.asked(Verb::Request).to_all);
    // Again, with a lease of before; not where its address is another's now.
    net.machine = shared();
    net.machine
        .start(net.now, Some((lease.clone(), s(900))), None);
    assert!(net.asked(Verb::Request).to_all);
    net.machine = Machine::new(5, None);
    net.machine.share_mac(vec![IP]);
    net.machine.start(net.now, Some((lease, s(900))), None);
    net.is(Phase::Selecting);
}

#[test]
fn a_conflict_is_declined() {
    let mut net = Net::new();
    let mut pauses = Vec::new();
    for _ in 0..4 {
        net.asked(Verb::Discover);
        net.says(Kind::Offer, SERVER, IP);
        net.asked(Verb::Request);
        net.says(Kind::Ack, SERVER, IP);
        net.machine.action();
        net.machine.probed(net.now, Some(MAC));
        let decline = net.asked(Verb::Decline);
        assert_eq!(
            (decline.ciaddr, decline.requested, decline.server),
            (None, Some(IP), Some(SERVER))
        );
        let trouble = net.machine.take_trouble().unwrap();
        assert!(trouble.contains(&MAC.to_string()), "{trouble}");
        assert_eq!(net.machine.lease(), None);
        pauses.push(net.wait());
    }
    assert_eq!(pauses[0], s(0));
    assert!(pauses[1..].iter().all(|p| *p >= s(10)), "{pauses:?}");
}

#[test]
fn a_flood_of_no_makes_it_slower_and_nothing_else() {
    let mut net = Net::bound();
    net.wait();
    net.asked(Verb::Request);
    net.says(Kind::Nak, SERVER, Ipv4Addr::UNSPECIFIED);
    assert_eq!(net.machine.action(), Some(Action::Drop));
    let mut total = s(0);
    for _ in 0..20 {
        total += net.wait();
        net.asked(Verb::Discover);
        net.says(Kind::Offer, SERVER, IP);
        net.asked(Verb::Request);
        for _ in 0..100 {
            net.says(Kind::Nak, SERVER, Ipv4Addr::UNSPECIFIED);
        }
        assert_eq!(net.machine.action(), None);
    }
    assert!(total > s(600), "{total:?}");
}

#[test]
fn forged_answers_change_nothing() {
    let mut net = Net::new();
    net.asked(Verb::Discover);
    // Another transaction, no server, no time, an address that is none.
    let good = net.reply(Kind::Offer, SERVER, IP);
    let forged = |change: &dyn Fn(&mut Reply)| {
        let mut reply = good.clone();
        change(&mut reply);
        reply
    };
    for reply in [
        forged(&|r| r.xid ^= 1),
        forged(&|r| r.server = None),
        forged(&|r| r.options.clear()),
        forged(&|r| drop(r.options.insert(code::LEASE_TIME, vec![0; 4]))),
        forged(&|r| r.your_ip = Ipv4Addr::UNSPECIFIED),
        forged(&|r| r.your_ip = Ipv4Addr::BROADCAST),
        forged(&|r| r.kind = Kind::Ack),
        forged(&|r| r.kind = Kind::Nak),
    ] {
        net.is_unmoved_by(&reply);
    }
    net.machine.handle(net.now, &good);
    net.asked(Verb::Request);
    // From another server than the one asked, or for another address.
    for reply in [
        net.reply(Kind::Ack, OTHER, IP),
        net.reply(Kind::Ack, SERVER, OTHER),
        net.reply(Kind::Nak, OTHER, IP),
        net.reply(Kind::Offer, SERVER, OTHER),
    ] {
        net.is_unmoved_by(&reply);
    }
    // In BOUND nothing is listened to at all.
    let mut net = Net::bound();
    for kind in [Kind::Offer, Kind::Ack, Kind::Nak] {
        let reply = net.reply(kind, SERVER, OTHER);
        net.is_unmoved_by(&reply);
    }
    net.wait();
    net.asked(Verb::Request);
    for reply in [
        net.reply(Kind::Ack, OTHER, IP),
        net.reply(Kind::Nak, OTHER, IP),
        net.reply(Kind::Ack, SERVER, OTHER),
    ] {
        net.is_unmoved_by(&reply);
    }
}

#[test]
fn a_server_that_offers_and_dies() {
    let mut net = Net::new();
    let first = net.asked(Verb::Discover);
    net.says(Kind::Offer, SERVER, IP);
    net.asked(Verb::Request);
    net.wait();
    net.asked(Verb::Request);
    net.wait();
    net.asked(Verb::Request);
    net.wait();
    let again = net.asked(Verb::Discover);
    assert_ne!(first.xid, again.xid);
    assert!(net.machine.take_trouble().unwrap().contains("said no more"));
}

#[test]
fn a_machine_that_slept_finds_its_lease_over() {
    let mut net = Net::bound();
    net.now += s(100_000);
    net.machine.on_time(net.now);
    // Renewing, past T2, past the end: within moments, and not for ever.
    for _ in 0..6 {
        if net.machine.lease().is_none() {
            break;
        }
        while net.machine.action().is_some() {}
        assert!(net.wait() <= s(1));
    }
    assert_eq!(net.machine.lease(), None);
}

#[test]
fn a_lease_for_ever_is_never_renewed() {
    let mut net = Net::new();
    net.asked(Verb::Discover);
    for kind in [Kind::Offer, Kind::Ack] {
        let mut reply = net.reply(kind, SERVER, IP);
        reply.options.insert(code::LEASE_TIME, vec![255; 4]);
        net.machine.handle(net.now, &reply);
    }
    net.machine.probed(net.now, None);
    assert_eq!(net.machine.deadline(), None);
    net.is(Phase::Bound);
}
