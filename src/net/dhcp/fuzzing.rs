//! A DHCP client on a hostile LAN, for the fuzzer: see `docs/fuzzing.md`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::time::Duration;

use super::lease::Lease;
use super::machine::{Action, Machine, Phase};
use super::message::{self, Ask, Kind, Reply, Verb, code};
use super::{Identity, options, socket};
use crate::base::MacAddr;
use crate::base::fuzzing::Input;
use crate::sys::fuzzing::passes as filter_passes;

const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 50);

/// The first byte says which part.
pub fn dhcp4(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 4 {
        0 => frame(input.rest()),
        1 => names(input.rest()),
        2 => routes(input.rest()),
        _ => Lan::new(&mut input).run(&mut input),
    }
}

/// The client's look at an ARP frame.
pub(in crate::net) fn claims(frame: &[u8], wanted: Ipv4Addr) -> Option<MacAddr> {
    socket::claims(frame, wanted).map(|claim| claim.mac)
}

fn identity() -> &'static Identity {
    static OURS: LazyLock<Identity> =
        LazyLock::new(|| Identity::new(b"machine", "lan", "web", "web"));
    &OURS
}

fn frame(frame: &[u8]) {
    let identity = identity();
    let Some(reply) = message::parse(frame, identity) else {
        return;
    };
    // The kernel's filter must let through whatever is one.
    assert!(filter_passes(&socket::filter(identity.mac), frame));
    assert!(reply.text().chars().count() <= 100);
    if let Ok(lease) = Lease::of(&reply) {
        check_lease(&lease);
        assert_eq!(
            (lease.ip(), Some(lease.server)),
            (reply.your_ip, reply.server)
        );
    }
}

fn names(bytes: &[u8]) {
    let names = options::search(bytes);
    names.iter().for_each(|name| check_name(name));
    options::domains(bytes)
        .iter()
        .for_each(|name| check_name(name));
    // A longer option has at least what was whole in a shorter one.
    let shorter = options::search(&bytes[..bytes.len() / 2]);
    assert!(names.starts_with(&shorter));
}

/// What goes into a line of resolv.conf.
fn check_name(name: &str) {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    assert!(!name.is_empty() && name.len() <= 253, "{name:?}");
    assert!(name.chars().all(is_plain), "{name:?}");
}

fn routes(bytes: &[u8]) {
    let Some(routes) = options::routes(bytes) else {
        return;
    };
    assert!(routes.len() <= 64);
    let mut again = Vec::new();
    for route in &routes {
        let (IpAddr::V4(dst), width) = (route.dst.addr(), route.dst.prefix()) else {
            panic!("{route}");
        };
        assert!(width <= 32 && route.dst.network() == route.dst, "{route}");
        again.push(width);
        again.extend(&dst.octets()[..usize::from(width.div_ceil(8))]);
        again.extend(route.via.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    }
    assert_eq!(again.len(), bytes.len(), "something was left out");
    assert_eq!(options::routes(&again), Some(routes));
}

fn check_lease(lease: &Lease) {
    let is_host = |ip: &Ipv4Addr| {
        !(ip.octets()[0] == 0 || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
    };
    assert!(is_host(&lease.ip()) && is_host(&lease.server));
    assert!((1..=32).contains(&lease.addr.prefix()));
    assert!(4 <= lease.seconds && 0 < lease.renew);
    assert!(lease.renew <= lease.rebind && lease.rebind <= lease.seconds);
    assert!(lease.mtu.is_none_or(|mtu| mtu >= 576));
    assert!(lease.dns.iter().all(is_host) && lease.ntp.iter().all(is_host));
    assert!(lease.dns.len() <= 8 && lease.ntp.len() <= 8 && lease.search.len() <= 16);
    for via in lease.routes.iter().filter_map(|route| route.via) {
        assert!(is_host(&via) && via != lease.ip(), "{lease:?}");
    }
    lease.search.iter().for_each(|name| check_name(name));
    let text = serde_json::to_vec(lease).expect("a lease is written");
    let back: Lease = serde_json::from_slice(&text).expect("and read");
    assert_eq!(back, *lease);
}

/// A client, the time, and what it may believe.
struct Lan {
    machine: Machine,
    now: Duration,
    wanted: Option<Ipv4Addr>,
    /// The last question.
    asked: Option<Ask>,
    probing: Option<Ipv4Addr>,
    used: Option<Ipv4Addr>,
    sent: u64,
    /// What was delivered, all told.
    heard: u64,
}

impl Lan {
    fn new(input: &mut Input<'_>) -> Self {
        let wanted = (input.byte() & 1 == 1).then_some(IP);
        let mut lan = Self {
            machine: Machine::new(42, wanted),
            now: Duration::from_secs(1000),
            wanted,
            asked: None,
            probing: None,
            used: None,
            sent: 0,
            heard: 0,
        };
        let old = Self::lease(input.byte());
        let left = Duration::from_secs(input.short().into());
        lan.machine
            .start(lan.now, old.map(|lease| (lease, left)), Some(IP));
        lan.follow(None);
        lan
    }

    fn lease(kind: u8) -> Option<Lease> {
        let reply = Reply {
            kind: Kind::Ack,
            xid: 0,
            your_ip: if kind & 2 == 0 {
                IP
            } else {
                Ipv4Addr::new(10, 0, 2, 51)
            },
            server: Some(Ipv4Addr::new(10, 0, 2, 1)),
            options: [(code::LEASE_TIME, vec![0, 0, 14, 16])].into(),
        };
        Lease::of(&reply).ok().filter(|_| kind & 1 == 1)
    }

    fn run(&mut self, input: &mut Input<'_>) {
        while !input.is_empty() {
            match input.byte() % 4 {
                0 => {
                    let reply = self.reply(input);
                    self.hear(&reply);
                }
                1 => {
                    if let Some(reply) = message::parse(input.part(), identity()) {
                        self.hear(&reply);
                    }
                }
                2 => self.pass(input.short()),
                _ => self.probed(input.byte() & 1 == 1),
            }
        }
    }

    /// Mostly right, so that it gets somewhere.
    fn reply(&self, input: &mut Input<'_>) -> Reply {
        let (what, which) = (input.byte(), input.byte());
        let mut options = std::collections::BTreeMap::new();
        if which & 1 == 0 {
            options.insert(code::LEASE_TIME, vec![0, 0, 0, 100]);
            options.insert(code::SUBNET_MASK, vec![255, 255, 255, 0]);
        }
        for _ in 0..(which >> 5) {
            let code = input.byte();
            let length = usize::from(input.byte());
            options.insert(code, input.take(length).to_vec());
        }
        let asked = self.asked.map_or(0, |ask| ask.xid);
        Reply {
            kind: match what % 3 {
                0 => Kind::Offer,
                1 => Kind::Ack,
                _ => Kind::Nak,
            },
            xid: if which & 2 == 0 {
                asked
            } else {
                asked ^ u32::from(input.byte())
            },
            your_ip: if which & 4 == 0 {
                IP
            } else {
                Ipv4Addr::from(input.array::<4>())
            },
            server: match which >> 3 & 3 {
                0 | 1 => Some(Ipv4Addr::new(10, 0, 2, 1)),
                2 => Some(Ipv4Addr::from(input.array::<4>())),
                _ => None,
            },
            options,
        }
    }

    fn hear(&mut self, reply: &Reply) {
        let before = (self.machine.phase(), self.machine.deadline());
        let sent = self.sent;
        self.heard += 1;
        self.machine.handle(self.now, reply);
        self.follow(Some(reply));
        assert!(self.sent <= sent + 1, "one message, several questions");
        if self.asked.is_none_or(|ask| ask.xid != reply.xid) && self.sent == sent {
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
                u64::from(rounds) <= 2 * seconds.as_secs() + 4,
                "busy in {:?}",
                self.machine.phase()
            );
        }
        self.now = until;
    }

    fn probed(&mut self, taken: bool) {
        let holder = taken.then_some(MacAddr([2, 0, 0, 0, 0, 9]));
        let probing = self
            .probing
            .filter(|_| self.machine.phase() == Phase::Probing);
        self.machine.probed(self.now, holder);
        if let (Some(ip), false) = (probing, taken) {
            assert_eq!(self.machine.lease().map(Lease::ip), Some(ip));
        }
        self.follow(None);
    }

    /// Carries out what is to be done; `reply` is what came in, if that is why.
    fn follow(&mut self, reply: Option<&Reply>) {
        let mut steps = 0;
        while let Some(action) = self.machine.action() {
            steps += 1;
            assert!(steps < 8, "no end of {action:?}");
            match action {
                Action::Broadcast(ask) | Action::Unicast(ask, _) => self.say(ask),
                Action::Probe(ip) => {
                    self.check_ours(ip, reply);
                    self.probing = Some(ip);
                }
                Action::Use(lease) => {
                    check_lease(&lease);
                    self.check_ours(lease.ip(), reply);
                    if reply.is_none() {
                        assert_eq!(self.probing, Some(lease.ip()), "used without a probe");
                    }
                    self.used = Some(lease.ip());
                }
                Action::Drop => assert!(self.used.take().is_some(), "dropped twice"),
            }
        }
        assert_eq!(self.machine.lease().map(Lease::ip), self.used);
        let is_silent = self.machine.phase() == Phase::Probing
            || self.machine.phase() == Phase::Bound && self.machine.end().is_none();
        assert_eq!(self.machine.deadline().is_none(), is_silent);
        let trouble = self.machine.take_trouble().unwrap_or_default();
        assert!(!trouble.contains(char::is_control) && trouble.len() < 600);
    }

    fn say(&mut self, ask: Ask) {
        self.sent += 1;
        for bytes in [ask.broadcast(identity()), ask.payload(identity())] {
            assert!(bytes.len() <= 1514);
            assert_eq!(
                message::parse(&bytes, identity()),
                None,
                "a question as an answer"
            );
        }
        if ask.kind != Verb::Decline {
            self.asked = Some(ask);
        }
    }

    /// An address is only what was asked for, and (if it came by a message) what
    /// that gives in answer to our question.
    fn check_ours(&self, ip: Ipv4Addr, reply: Option<&Reply>) {
        let Some(ask) = self.asked else {
            panic!("{ip} without a question");
        };
        assert_eq!(ask.requested.or(ask.ciaddr), Some(ip));
        assert!(self.wanted.is_none_or(|wanted| wanted == ip));
        if let Some(reply) = reply {
            assert_eq!(
                (reply.xid, reply.kind, reply.your_ip),
                (ask.xid, Kind::Ack, ip)
            );
            let server = reply.server;
            assert!(
                ask.server.is_none() || ask.server == server,
                "another server's"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_dhcp4() {
        crate::base::fuzzing::replay("dhcp4", super::dhcp4);
    }
}
