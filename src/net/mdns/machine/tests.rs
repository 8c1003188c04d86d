//! Unit tests of the state machine: two that want one name, answers, noise.

use simple_dns::ResourceRecord;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn subject(name: &str, addr: &str) -> Subject {
    Subject {
        name: name.to_owned(),
        addrs: vec![addr.parse().unwrap()],
        siblings: vec!["10.7.0.1".parse().unwrap()],
    }
}

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 2, 9], port))
}

/// Whose name it is already.
fn settled(now: Instant) -> Machine {
    let mut machine = Machine::new(subject("web", "10.0.2.5/24"), now);
    for step in [0, 250, 500, 750, 1750] {
        assert!(machine.on_time(now + step * MS).is_some(), "{step}");
    }
    assert_eq!(machine.deadline(), None);
    machine
}

fn claim(name: &str, addr: &str, ttl: u32) -> Vec<u8> {
    let zone = Zone {
        name: name.to_owned(),
        addrs: vec![addr.parse().unwrap()],
    };
    let how = How { ttl, flush: true };
    let record = zone.record(Own::Addr(zone.addrs[0]), how);
    message::response(vec![record], Vec::new()).unwrap()
}

fn query(name: &str, qtype: QTYPE, unicast: bool, known: Vec<ResourceRecord<'_>>) -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    let class = QCLASS::CLASS(CLASS::IN);
    let question = Question::new(Name::new_unchecked(name), qtype, class, unicast);
    packet.questions.push(question);
    packet.answers = known;
    packet.build_bytes_vec_compressed().unwrap()
}

fn a(name: &str) -> Vec<u8> {
    query(name, QTYPE::TYPE(TYPE::A), false, Vec::new())
}

#[test]
fn three_probes_and_two_announcements() {
    let now = Instant::now();
    let mut machine = Machine::new(subject("my_web.1", "10.0.2.5/24"), now);
    for n in 0..3 {
        assert!(!machine.is_announced());
        let at = now + n * 250 * MS;
        assert_eq!(machine.deadline(), Some(at));
        let bytes = machine.on_time(at).unwrap();
        let probe = Packet::parse(&bytes).unwrap();
        assert_eq!(probe.questions[0].qname.to_string(), "my-web-1.local");
        assert_eq!(probe.questions[0].qtype, QTYPE::ANY);
        assert_eq!(probe.name_servers.len(), 1);
        assert_eq!(machine.on_time(at), None);
    }
    // Nothing is answered yet, and there is nothing to take back.
    let asked = machine.hear(&a("my-web-1.local"), peer(PORT), now + 600 * MS);
    assert!(asked.is_empty() && machine.goodbye().is_none());
    for at in [750, 1750] {
        let bytes = machine.on_time(now + at * MS).unwrap();
        let said = Packet::parse(&bytes).unwrap();
        assert!(said.has_flags(PacketFlag::RESPONSE | PacketFlag::AUTHORITATIVE_ANSWER));
        assert_eq!(said.answers.len(), 2);
        assert!(said.answers.iter().all(|r| r.cache_flush && r.ttl == TTL));
    }
    assert_eq!(machine.deadline(), None);
    let bytes = machine.goodbye().unwrap();
    assert!(
        Packet::parse(&bytes)
            .unwrap()
            .answers
            .iter()
            .all(|r| r.ttl == 0)
    );
}

#[test]
fn who_has_the_name_keeps_it() {
    let now = Instant::now();
    let mut machine = Machine::new(subject("web", "10.0.2.5/24"), now);
    machine.on_time(now);
    // Its own address, one of its own other link's, a goodbye, a wrong port.
    for (addr, ttl, port) in [
        ("10.0.2.5", 120, PORT),
        ("10.7.0.1", 120, PORT),
        ("10.0.2.9", 0, PORT),
        ("10.0.2.9", 120, 5354),
    ] {
        machine.hear(&claim("web.local", addr, ttl), peer(port), now);
        assert_eq!(machine.name(), "web.local");
    }
    machine.hear(&claim("WEB.local", "10.0.2.9", 120), peer(PORT), now);
    assert_eq!(machine.name(), "web-2.local");
    let rival = machine.rival().unwrap();
    assert_eq!((rival.name.as_str(), rival.by), ("web.local", peer(0).ip()));
    // Whoever claims all names is not followed more than once in 5 s.
    let mut at = now;
    for _ in 0..20 {
        let name = machine.name().to_owned();
        machine.hear(&claim(&name, "10.0.2.9", 120), peer(PORT), at);
        at += MS;
    }
    assert_eq!(machine.name(), "web-22.local");
    assert!(machine.deadline().unwrap() >= at + PENANCE - MS);
    assert!(machine.conflicts.len() <= CONFLICTS);
}

#[test]
fn a_claim_later_is_asked_about_first() {
    let now = Instant::now();
    let mut machine = settled(now);
    let at = now + 3000 * MS;
    machine.hear(&claim("web.local", "10.0.2.9", 120), peer(PORT), at);
    assert_eq!(
        (machine.name(), machine.is_announced()),
        ("web.local", false)
    );
    machine.hear(&claim("web.local", "10.0.2.9", 120), peer(PORT), at);
    assert_eq!(machine.name(), "web-2.local");
}

#[test]
fn two_that_probe_at_once() {
    let now = Instant::now();
    let mut low = Machine::new(subject("web", "10.0.2.5/24"), now);
    let mut high = Machine::new(subject("web", "10.0.2.9/24"), now);
    let (of_low, of_high) = (low.on_time(now).unwrap(), high.on_time(now).unwrap());
    low.hear(&of_low, peer(PORT), now);
    low.hear(&of_high, peer(PORT), now);
    high.hear(&of_low, peer(PORT), now);
    assert_eq!(low.deadline(), Some(now + DEFER));
    assert_eq!(high.deadline(), Some(now + PROBE_INTERVAL));
    assert_eq!(low.name(), "web.local");
}

#[test]
fn answers() {
    let now = Instant::now();
    let mut machine = settled(now);
    let at = now + 4000 * MS;
    let out = machine.hear(&a("Web.LOCAL"), peer(PORT), at);
    assert_eq!((out.len(), out[0].to), (1, To::Group));
    let packet = Packet::parse(&out[0].bytes).unwrap();
    assert_eq!((packet.id(), packet.questions.len()), (0, 0));
    assert_eq!(packet.answers.len(), 1);
    // No AAAA.
    assert_eq!(packet.additional_records.len(), 1);
    assert!(packet.answers[0].cache_flush);
    // Not again at once, but to one that probes.
    assert!(
        machine
            .hear(&a("web.local"), peer(PORT), at + 500 * MS)
            .is_empty()
    );
    let mut rival = Machine::new(subject("web", "10.0.2.9/24"), at);
    let probe = rival.on_time(at).unwrap();
    let defence = machine.hear(&probe, peer(PORT), at + 500 * MS);
    assert_eq!(defence.len(), 1);
    rival.hear(&defence[0].bytes, peer(PORT), at + 500 * MS);
    assert_eq!(rival.name(), "web-2.local");
    // Who knows it is told nothing.
    let later = at + 5000 * MS;
    let known = |ttl| {
        let how = How { ttl, flush: false };
        let record = machine.zone.record(Own::Addr(machine.zone.addrs[0]), how);
        query("web.local", QTYPE::TYPE(TYPE::A), false, vec![record])
    };
    let (fresh, old) = (known(TTL / 2), known(TTL / 2 - 1));
    assert!(machine.hear(&fresh, peer(PORT), later).is_empty());
    assert_eq!(machine.hear(&old, peer(PORT), later).len(), 1);
    // Others' names, and other classes.
    assert!(
        machine
            .hear(&a("other.local"), peer(PORT), later)
            .is_empty()
    );
}

/// systemd-resolved and others ask for A and AAAA in two messages, in any
/// order; an address of each family has a pointer of its own.
#[test]
fn one_answer_holds_back_no_other() {
    let now = Instant::now();
    let mut both = subject("web", "10.0.2.5/24");
    both.addrs.push("fd00:2::5/64".parse().unwrap());
    for subject in [subject("web", "10.0.2.5/24"), both] {
        let is_dual = subject.addrs.len() == 2;
        let mut machine = Machine::new(subject, now);
        for step in [0, 250, 500, 750, 1750] {
            machine.on_time(now + step * MS);
        }
        let at = now + 4000 * MS;
        let mut answered = |name: &str, kind: TYPE, at: Instant| {
            let asked = query(name, QTYPE::TYPE(kind), false, Vec::new());
            machine.hear(&asked, peer(PORT), at).len() == 1
        };
        assert!(answered("web.local", TYPE::AAAA, at));
        assert!(answered("web.local", TYPE::A, at + 10 * MS));
        // But the same one does.
        assert!(!answered("web.local", TYPE::AAAA, at + 500 * MS));
        assert!(!answered("web.local", TYPE::A, at + 500 * MS));
        assert!(answered("5.2.0.10.in-addr.arpa", TYPE::PTR, at));
        if is_dual {
            let pointer = format!("5.0.0.0.{}2.0.0.0.0.0.d.f.ip6.arpa", "0.".repeat(20));
            assert!(answered(&pointer, TYPE::PTR, at + 10 * MS));
        }
    }
}

#[test]
fn unicast_answers() {
    let now = Instant::now();
    let mut machine = settled(now);
    let at = now + 4000 * MS;
    let wants = query("web.local", QTYPE::ANY, true, Vec::new());
    let out = machine.hear(&wants, peer(PORT), at);
    assert_eq!((out.len(), out[0].to), (1, To::Peer));
    // After a while all are told too.
    let out = machine.hear(&wants, peer(PORT), at + STALE);
    assert_eq!(
        out.iter().map(|s| s.to).collect::<Vec<_>>(),
        [To::Peer, To::Group]
    );
    // Legacy: id and question come back, and nothing is flushed.
    let out = machine.hear(&a("web.local"), peer(40000), at);
    assert_eq!((out.len(), out[0].to), (1, To::Peer));
    let packet = Packet::parse(&out[0].bytes).unwrap();
    assert_eq!((packet.id(), packet.questions.len()), (7, 1));
    assert!(!packet.answers[0].cache_flush && packet.answers[0].ttl == 10);
    // From far away.
    let far = SocketAddr::from(([192, 0, 2, 1], 40000));
    assert!(machine.hear(&a("web.local"), far, at).is_empty());
    let pointer = query(
        "5.2.0.10.in-addr.arpa",
        QTYPE::TYPE(TYPE::PTR),
        false,
        Vec::new(),
    );
    assert_eq!(machine.hear(&pointer, peer(40000), at).len(), 1);
}

#[test]
fn labels() {
    let long = "x".repeat(80);
    assert_eq!(full(&long, 1).len(), 63 + 6);
    assert_eq!(full(&long, 12).len(), 63 + 6);
    assert!(full(&long, 12).ends_with("x-12.local"));
}

#[test]
fn noise() {
    let now = Instant::now();
    let mut machine = settled(now);
    let name = machine.name().to_owned();
    let good = claim("web.local", "10.0.2.9", 120);
    // Truncated anywhere, it says nothing.
    for length in 0..good.len() {
        machine.hear(&good[..length], peer(PORT), now);
    }
    // A name that points at itself.
    let mut looping = a("web.local");
    looping.truncate(12);
    looping.extend([0xc0, 12, 0, 1, 0, 1]);
    assert!(machine.hear(&looping, peer(PORT), now).is_empty());
    assert!(machine.is_announced() && machine.name() == name);
}

/// A message is not answered by a longer one.
#[test]
fn a_thousand_questions_for_one_record() {
    let now = Instant::now();
    let mut packet = Packet::new_query(7);
    for n in 0..1000 {
        let qtype = [TYPE::A, TYPE::AAAA, TYPE::PTR, TYPE::MX][n % 4];
        let name = match qtype {
            TYPE::PTR => "5.2.0.10.in-addr.arpa",
            _ => "web.local",
        };
        let (name, class) = (Name::new_unchecked(name), QCLASS::CLASS(CLASS::IN));
        packet
            .questions
            .push(Question::new(name, QTYPE::TYPE(qtype), class, false));
    }
    let bytes = packet.build_bytes_vec_compressed().unwrap();
    for port in [PORT, 40_000] {
        let sent = settled(now).hear(&bytes, peer(port), now + 60_000 * MS);
        assert_eq!(sent.len(), 1);
        let answer = Packet::parse(&sent[0].bytes).unwrap();
        // The address, that there is no other, the pointer.
        assert_eq!(answer.answers.len(), 3);
        assert!(sent[0].bytes.len() < bytes.len() + 200);
    }
}
