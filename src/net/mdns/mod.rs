//! Multicast DNS (RFC 6762): a container's name on the LAN, `NAME.local`, told
//! by its supervisor. `docs/names.md` explains it to its users.
//!
//! # Theory of operation
//!
//! | file | what |
//! |---|---|
//! | `machine.rs` | whose the name is: probing, announcing, answering; pure |
//! | `message.rs` | the records, as bytes |
//!
//! A [`Responder`] is one link's. It has a socket for each family that the link
//! has an address of, born in the container's namespace and bound to the *group*
//! (224.0.0.251, ff02::fb) at port 5353, shared (SO_REUSEADDR, SO_REUSEPORT).
//! So what comes by unicast to port 5353 is left to a responder of the
//! container's own, and what comes by multicast both of them have. For the same
//! reason probes do not ask for unicast answers (RFC 6762, 8.1 says SHOULD): we
//! would not get them. Sockets are bound to the link too, so that no route is
//! needed; the kernel chooses the link's own address as the source.
//!
//! What comes in is hostile: the library reads it, and what it cannot read is
//! dropped. All that an answer of another machine can do is to make us choose
//! another name ([`Machine`] says how often).

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod machine;
mod message;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    self, AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, setsockopt, sockopt,
};

use self::machine::{Machine, Send, To};
use super::Attachment;
use crate::base::{Cidr, Error, Family, OfFamily, Result};
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::random;

pub use self::machine::Rival;

pub const PORT: u16 = 5353;
pub const GROUP4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// Keys of one responder in a poll set.
pub const KEYS: u64 = 2;
/// RFC 6762, 17: no message is longer.
const LONGEST: usize = 9000;
/// Datagrams before others have their turn.
const AT_ONCE: usize = 64;

/// Whose name, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What the container is called; `my_web.1` is `my-web-1.local`.
    pub name: String,
    /// The link's addresses, with their subnets' lengths.
    pub addrs: Vec<Cidr>,
    /// The container's on other links: no rival of its own name.
    pub siblings: Vec<IpAddr>,
}

#[derive(Debug)]
struct Ear {
    socket: UdpSocket,
    group: SocketAddr,
}

/// Tells one link's LAN the container's name.
#[derive(Debug)]
pub struct Responder {
    machine: Machine,
    ears: Vec<Ear>,
    poll: bool,
}

impl Responder {
    /// The link is up and the addresses are the container's. The first probe
    /// leaves within 250 ms.
    pub fn start(netns: &Netns<Sandbox>, link: &Attachment, subject: Subject) -> Result<Self> {
        let first = |family: Family| {
            let mut of_family = subject.addrs.iter().filter(|a| a.family() == family);
            of_family.next().map(|addr| addr.addr())
        };
        let mut ears = Vec::new();
        for own in Family::BOTH.into_iter().filter_map(first) {
            ears.push(listen(netns, link, own)?);
        }
        // RFC 6762, 8.1: so that machines that start together do not collide.
        let [random] = random::bytes::<1>()?;
        let first = Instant::now() + Duration::from_millis(u64::from(random) % 250);
        Ok(Self {
            machine: Machine::new(subject, first),
            ears,
            poll: false,
        })
    }

    /// The container's addresses on other links are others than before.
    pub fn set_siblings(&mut self, siblings: Vec<IpAddr>) {
        self.machine.set_siblings(siblings);
    }

    /// `web-2.local`
    pub fn name(&self) -> &str {
        self.machine.name()
    }

    /// Whether the name is the container's; it is still asked for otherwise.
    pub fn is_announced(&self) -> bool {
        self.machine.is_announced()
    }

    /// Who has the name that was wanted, if somebody has.
    pub fn rival(&self) -> Option<&Rival> {
        self.machine.rival()
    }

    /// Whether name or state are others than at the last call.
    pub fn take_changed(&mut self) -> bool {
        self.machine.take_changed()
    }

    /// Keys lie in `base..base + KEYS`.
    pub fn register(&mut self, epoll: &Epoll, base: u64) -> Result<()> {
        for (ear, key) in self.ears.iter().zip(base..) {
            epoll.add(&ear.socket, EpollFlags::EPOLLIN, key)?;
        }
        self.poll = true;
        Ok(())
    }

    pub fn is_registered(&self) -> bool {
        self.poll
    }

    /// Serves a ready key (given without `base`).
    pub fn ready(&mut self, key: u64) {
        let Some(ear) = usize::try_from(key).ok().and_then(|at| self.ears.get(at)) else {
            return;
        };
        let mut buffer = [0; LONGEST];
        let mut out = Vec::new();
        for _ in 0..AT_ONCE {
            let (length, from) = match ear.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // Interrupted, or about an earlier answer.
                Err(_) => continue,
            };
            let now = Instant::now();
            for Send { to, bytes } in self.machine.hear(&buffer[..length], from, now) {
                match to {
                    To::Peer => ear.send(&bytes, from),
                    To::Group => out.push(bytes),
                }
            }
        }
        for bytes in out {
            ear.send(&bytes, ear.group);
        }
    }

    /// When `on_time` wants to be called; `None` at rest.
    pub fn deadline(&self) -> Option<Instant> {
        self.machine.deadline()
    }

    pub fn on_time(&mut self, now: Instant) {
        if let Some(bytes) = self.machine.on_time(now) {
            self.tell_all(&bytes);
        }
    }

    /// The name is nobody's any more: every cache forgets it at once.
    pub fn say_goodbye(&self) {
        if let Some(bytes) = self.machine.goodbye() {
            self.tell_all(&bytes);
        }
    }

    fn tell_all(&self, bytes: &[u8]) {
        self.ears.iter().for_each(|ear| ear.send(bytes, ear.group));
    }
}

impl Ear {
    fn send(&self, bytes: &[u8], to: SocketAddr) {
        // No carrier, or a full queue: lost, as a datagram may be.
        let _ = self.socket.send_to(bytes, to);
    }
}

fn listen(netns: &Netns<Sandbox>, link: &Attachment, own: IpAddr) -> Result<Ear> {
    let (group, domain) = match own {
        IpAddr::V4(_) => (
            SocketAddr::V4(SocketAddrV4::new(GROUP4, PORT)),
            AddressFamily::Inet,
        ),
        IpAddr::V6(_) => (
            SocketAddr::V6(SocketAddrV6::new(GROUP6, PORT, 0, link.ifindex)),
            AddressFamily::Inet6,
        ),
    };
    let what = || format!("{group}, on {}", link.ifname);
    let fail = |errno: nix::Error| {
        let error = Error::sys("listen on", what(), errno);
        match errno {
            nix::Error::EADDRINUSE => error.hint(
                "a program in the container has port 5353 and does not share it (SO_REUSEADDR)",
            ),
            _ => error,
        }
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = netns.socket(domain, SockType::Datagram, flags, 0)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true).map_err(fail)?;
    setsockopt(&fd, sockopt::ReusePort, &true).map_err(fail)?;
    let device = std::ffi::OsString::from(link.ifname.as_str());
    setsockopt(&fd, sockopt::BindToDevice, &device).map_err(fail)?;
    match group {
        SocketAddr::V4(group) => socket::bind(fd.as_raw_fd(), &SockaddrIn::from(group)),
        SocketAddr::V6(group) => setsockopt(&fd, sockopt::Ipv6V6Only, &true)
            .and_then(|()| setsockopt(&fd, sockopt::Ipv6MulticastHops, &255))
            .and_then(|()| setsockopt(&fd, sockopt::Ipv6Ttl, &255))
            .and_then(|()| socket::bind(fd.as_raw_fd(), &SockaddrIn6::from(group))),
    }
    .map_err(fail)?;
    let socket = UdpSocket::from(fd);
    // RFC 6762, 11: 255 for all that is sent.
    let joined = match own {
        IpAddr::V4(own) => socket
            .set_multicast_ttl_v4(255)
            .and_then(|()| socket.set_ttl(255))
            .and_then(|()| socket.join_multicast_v4(&GROUP4, &own)),
        IpAddr::V6(_) => socket.join_multicast_v6(&GROUP6, link.ifindex),
    };
    joined.map_err(|e| Error::sys("join group", what(), e))?;
    Ok(Ear { socket, group })
}
