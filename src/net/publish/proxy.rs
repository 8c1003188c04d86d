//! The proxy: splice for TCP, per-peer flows for UDP.
//!
//! *Theory of operation.* Everything lives in the supervisor's one loop; no
//! call here blocks. Each fd's key says what it is:
//!
//! | bits 30..32 | bits 16..30 | bits 1..16 | bit 0 |
//! |---|---|---|---|
//! | what | generation of the place | place | side of a connection |
//!
//! A place is used again by the next connection, with the next generation: an
//! event that was already read for the one before finds nobody.
//!
//! *At rest* there are the listening sockets and nothing else: places, pipes
//! and buffers come with the first peer and go with the last.
//!
//! *Out of fds* (or of places): the listening sockets leave the poll set until
//! a connection ends, or a tenth of a second has passed; peers wait in the
//! kernel's queue. A datagram that finds no fd is lost, as datagrams are.

mod tcp;
mod udp;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType};

use self::tcp::Tcp;
use self::udp::Udp;
use crate::base::{PortMap, Proto, Result};
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::netns::{Netns, Sandbox};

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TcpListener,
    UdpListener,
    Connection,
    Flow,
}

/// A key taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    kind: Kind,
    generation: u16,
    place: usize,
    server: bool,
}

const GENERATIONS: u16 = 1 << 14;
const PLACES: usize = 1 << 15;

impl Key {
    fn listener(kind: Kind, place: usize) -> Self {
        Self {
            kind,
            generation: 0,
            place,
            server: false,
        }
    }

    fn number(self) -> u64 {
        let kind = match self.kind {
            Kind::TcpListener => 0,
            Kind::UdpListener => 1,
            Kind::Connection => 2,
            Kind::Flow => 3,
        };
        let place = self.place as u64 & (PLACES as u64 - 1);
        kind << 30
            | u64::from(self.generation % GENERATIONS) << 16
            | place << 1
            | u64::from(self.server)
    }

    fn of(number: u64) -> Self {
        let kind = match number >> 30 & 3 {
            0 => Kind::TcpListener,
            1 => Kind::UdpListener,
            2 => Kind::Connection,
            _ => Kind::Flow,
        };
        // Both fit: masked to 14 and 15 bits.
        let generation = u16::try_from(number >> 16 & (u64::from(GENERATIONS) - 1));
        let place = usize::try_from(number >> 1 & (PLACES as u64 - 1));
        Self {
            kind,
            generation: generation.unwrap_or_default(),
            place: place.unwrap_or_default(),
            server: number & 1 == 1,
        }
    }
}

/// Places that are used again; empty, it holds no memory.
#[derive(Debug)]
struct Slab<T> {
    places: Vec<Option<(u16, T)>>,
    used: usize,
    generation: u16,
}

impl<T> Slab<T> {
    fn new() -> Self {
        Self {
            places: Vec::new(),
            used: 0,
            generation: 0,
        }
    }

    fn insert(&mut self, value: T) -> (usize, u16) {
        self.generation = (self.generation + 1) % GENERATIONS;
        self.used += 1;
        let entry = Some((self.generation, value));
        let free = if self.used > self.places.len() {
            None
        } else {
            self.places.iter().position(Option::is_none)
        };
        match free {
            Some(at) => {
                self.places[at] = entry;
                (at, self.generation)
            }
            None => {
                self.places.push(entry);
                (self.places.len() - 1, self.generation)
            }
        }
    }

    fn at(&mut self, key: Key) -> Option<&mut T> {
        match self.places.get_mut(key.place)? {
            Some((generation, value)) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    fn remove(&mut self, place: usize) {
        if let Some(entry) = self.places.get_mut(place)
            && entry.take().is_some()
        {
            self.used -= 1;
        }
        if self.used == 0 {
            self.places = Vec::new();
        }
    }

    fn len(&self) -> usize {
        self.used
    }

    fn iter(&self) -> impl Iterator<Item = (usize, u16, &T)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(at, p)| {
            p.as_ref()
                .map(|(generation, value)| (at, *generation, value))
        })
    }
}

/// The supervisor's poll set, with this proxy's share of its keys.
#[derive(Debug)]
pub(super) struct Poll {
    epoll: Epoll,
    base: u64,
}

impl Poll {
    pub(super) fn new(epoll: &Epoll, base: u64) -> Result<Self> {
        let epoll = epoll.try_clone()?;
        Ok(Self { epoll, base })
    }

    /// One that is none of the proxy's.
    pub(super) fn watch(&self, fd: impl AsFd, key: u64) -> Result<()> {
        self.epoll.add(fd, EpollFlags::EPOLLIN, self.base + key)
    }

    fn add(&self, fd: impl AsFd, events: EpollFlags, key: Key) -> Result<()> {
        self.epoll.add(fd, events, self.base + key.number())
    }

    fn modify(&self, fd: impl AsFd, events: EpollFlags, key: Key) -> Result<()> {
        self.epoll.modify(fd, events, self.base + key.number())
    }

    fn remove(&self, fd: impl AsFd) {
        // Only what was added is removed.
        let _ = self.epoll.remove(fd);
    }
}

/// Where connections are led: the container.
#[derive(Debug)]
struct Inside<'a> {
    netns: &'a Netns<Sandbox>,
    ip: Ipv4Addr,
}

impl Inside<'_> {
    fn socket(&self, kind: SockType) -> Result<OwnedFd> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        self.netns.socket(AddressFamily::Inet, kind, flags, 0)
    }

    fn addr(&self, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(self.ip, port)
    }
}

#[derive(Debug)]
pub(super) struct Proxy {
    ip: Ipv4Addr,
    tcp: Tcp,
    udp: Udp,
}

impl Proxy {
    /// `sockets` are those of `ports`, in order.
    pub(super) fn new(ports: &[PortMap], sockets: Vec<OwnedFd>, ip: Ipv4Addr) -> Self {
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for (at, (port, socket)) in ports.iter().zip(sockets).enumerate() {
            match port.proto {
                Proto::Tcp => tcp.push((at, port.container, socket)),
                Proto::Udp => udp.push((port.container, socket)),
            }
        }
        let room = room();
        Self {
            ip,
            tcp: Tcp::new(tcp, room),
            udp: Udp::new(udp, room),
        }
    }

    pub(super) fn register(&mut self, poll: &Poll) -> Result<()> {
        self.tcp.register(poll)?;
        self.udp.register(poll)
    }

    pub(super) fn ready(
        &mut self,
        key: u64,
        events: EpollFlags,
        poll: &Poll,
        netns: &Netns<Sandbox>,
    ) -> Result<()> {
        let inside = Inside { netns, ip: self.ip };
        let key = Key::of(key);
        match key.kind {
            Kind::TcpListener => self.tcp.accept(key.place, poll, &inside),
            Kind::Connection => self.tcp.ready(key, events, poll),
            Kind::UdpListener => self.udp.request(key.place, poll, &inside),
            Kind::Flow => self.udp.answer(key, poll),
        }
    }

    /// Does a connection to this published port (by its number) go on?
    pub(super) fn is_used(&self, port: usize) -> bool {
        self.tcp.is_used(port)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let both = [self.tcp.deadline(), self.udp.deadline()];
        both.into_iter().flatten().min()
    }

    pub(super) fn on_time(&mut self, now: Instant, poll: &Poll) -> Result<()> {
        self.udp.on_time(now, poll);
        self.tcp.on_time(now, poll)
    }
}

/// How many connections (of up to four fds in bad moments) and flows there
/// may be: what the process may open, less what the supervisor itself needs.
fn room() -> usize {
    const OWN: u64 = 96;
    const EACH: u64 = 3;
    const MOST: u64 = 4096;
    let open = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let room = (open.saturating_sub(OWN) / EACH).clamp(8, MOST);
    usize::try_from(room).unwrap_or(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart_as_they_were() {
        for kind in [
            Kind::TcpListener,
            Kind::UdpListener,
            Kind::Connection,
            Kind::Flow,
        ] {
            for (generation, place, server) in [(0, 0, false), (16_383, 32_767, true)] {
                let key = Key {
                    kind,
                    generation,
                    place,
                    server,
                };
                assert_eq!(Key::of(key.number()), key);
                assert!(key.number() < 1 << 32);
            }
        }
    }

    #[test]
    fn places_are_used_again_with_another_generation() {
        let mut slab = Slab::new();
        let key = |(place, generation)| Key {
            kind: Kind::Flow,
            generation,
            place,
            server: false,
        };
        let (a, b) = (key(slab.insert('a')), key(slab.insert('b')));
        slab.remove(a.place);
        let c = key(slab.insert('c'));
        assert_eq!(c.place, a.place);
        assert_eq!(slab.at(a), None);
        assert_eq!(slab.at(b), Some(&mut 'b'));
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.at(c), Some(&mut 'c'));
        slab.remove(b.place);
        slab.remove(c.place);
        slab.remove(c.place);
        assert_eq!((slab.len(), slab.places.capacity()), (0, 0));
    }
}
