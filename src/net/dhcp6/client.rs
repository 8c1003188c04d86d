//! The machine on a socket and a timer: first alone, while a start waits for
//! its lease, then as one of the supervisor's fds.
//!
//! *One way out.* Every message is a datagram from the link-local address, port
//! 546, to all servers and relays on the link (ff02::1:2), Renew and Release
//! too; answers come back to that address, and only those from link-local
//! addresses count, which no router lets through. The socket is there while an
//! answer is due.
//!
//! *The link-local address* has to be found free by the kernel before anything
//! can be sent from it, 1 to 2 s after the link is up (RFC 4862 §5.4). That
//! wait stands for the random one that §18.2.1 wants before the first Solicit.

use std::collections::VecDeque;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt};
use nix::sys::socket::{SockaddrIn6, bind, sockopt};

use super::lease::Lease;
use super::machine::{Action, Machine, Phase};
use super::message::{self, Ask};
use crate::base::{Error, IfName, Result, Subject};
use crate::net::dhcp::{Identity, unix_time};
use crate::sys::boottime::{self, Timer};
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::random;

const CLIENT: u16 = 546;
const SERVER: u16 = 547;
/// All_DHCP_Relay_Agents_and_Servers.
const ALL: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
const KEY_TIMER: u64 = 0;
const KEY_ANSWERS: u64 = 1;
/// Datagrams before others have their turn.
const AT_ONCE: usize = 32;
/// A longer one is cut off, and then none.
const DATAGRAM: usize = 2048;
/// How often a Release is said, and how long its answer may take: it is the
/// end of a container that waits.
const RELEASES: u32 = 2;
const RELEASE_ANSWER: Duration = Duration::from_millis(250);
/// A link that has just been made is told its link-local address a moment
/// later.
const LINK_LOCAL: Duration = Duration::from_millis(500);

/// What became of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// To be used from now on; perhaps as before.
    Has(Lease),
    /// The address is not the container's any more.
    Lost,
}

/// The interface in the container's namespace.
#[derive(Debug)]
struct Port {
    netns: Netns<Sandbox>,
    ifindex: u32,
    ifname: IfName,
    own: Ipv6Addr,
}

impl Port {
    /// `None`: the link has no address yet that it could be from.
    fn open(&self) -> Result<Option<UdpSocket>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = self
            .netns
            .socket(AddressFamily::Inet6, SockType::Datagram, flags, 0)?;
        let failed = |errno: Errno| {
            let link = Subject::Link(self.ifname.to_string());
            Error::sys("send DHCPv6 message on", link, errno)
        };
        // A DHCPv6 client of the container's own may have the port.
        setsockopt(&socket, sockopt::ReuseAddr, &true).map_err(failed)?;
        let name = std::ffi::OsString::from(self.ifname.as_str());
        setsockopt(&socket, sockopt::BindToDevice, &name).map_err(failed)?;
        let own = SockaddrIn6::from(SocketAddrV6::new(self.own, CLIENT, 0, self.ifindex));
        match bind(socket.as_raw_fd(), &own) {
            Ok(()) => Ok(Some(UdpSocket::from(socket))),
            Err(Errno::EADDRNOTAVAIL) => Ok(None),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// A link without carrier, or a full queue, loses it: it is sent again.
    fn send(&self, socket: &UdpSocket, bytes: &[u8]) -> Result<()> {
        let all = SocketAddrV6::new(ALL, SERVER, 0, self.ifindex);
        let Err(error) = socket.send_to(bytes, SocketAddr::V6(all)) else {
            return Ok(());
        };
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
        match errno {
            Errno::ENETDOWN
            | Errno::ENOBUFS
            | Errno::EAGAIN
            | Errno::EADDRNOTAVAIL
            | Errno::ENETUNREACH => Ok(()),
            errno => {
                let link = Subject::Link(self.ifname.to_string());
                Err(Error::sys("send DHCPv6 message on", link, errno))
            }
        }
    }
}

#[derive(Debug)]
pub struct Client {
    port: Port,
    identity: Identity,
    machine: Machine,
    timer: Timer,
    udp: Option<UdpSocket>,
    /// For a link-local address.
    waits: bool,
    poll: Option<(Epoll, u64)>,
    news: VecDeque<News>,
    trouble: Option<String>,
}

impl Client {
    /// Begins to ask on an interface that is up, by its link-local address.
    /// `before`: the lease that it had last; `hint`: the address that it had, when it had
    /// one.
    pub fn start(
        netns: Netns<Sandbox>,
        (ifname, ifindex, own): (&IfName, u32, Ipv6Addr),
        identity: Identity,
        before: Option<Lease>,
        hint: Option<Ipv6Addr>,
    ) -> Result<Self> {
        let mut client = Self {
            port: Port {
                netns,
                ifindex,
                ifname: ifname.clone(),
                own,
            },
            identity,
            machine: Machine::new(u64::from_ne_bytes(random::bytes()?)),
            timer: Timer::new()?,
            udp: None,
            waits: false,
            poll: None,
            news: VecDeque::new(),
            trouble: None,
        };
        let before = before.map(|lease| {
            let age = lease.age(unix_time());
            (lease, age)
        });
        client.machine.start(boottime::now()?, before, hint);
        client.follow()?;
        Ok(client)
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn phase(&self) -> Phase {
        self.machine.phase()
    }

    pub fn take_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// What has last gone wrong, once.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.machine.take_trouble().or_else(|| self.trouble.take())
    }

    /// Sleeps until something of it or of `other` is ready, `end` at the
    /// latest.
    pub fn sleep(&mut self, other: BorrowedFd<'_>, end: Duration) -> Result<()> {
        let due = self.machine.deadline().map_or(end, |at| at.min(end));
        self.timer.set(Some(due))?;
        let udp = self.udp.as_ref().map(AsFd::as_fd);
        let all = [Some(self.timer.as_fd()), Some(other), udp];
        let all = all.into_iter().flatten();
        let mut fds: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(Error::sys("wait for", "a DHCPv6 server", e)),
        }
    }

    /// Becomes one of the loop's: all keys lie in `base..base + 2`.
    pub fn register(&mut self, epoll: &Epoll, base: u64) -> Result<()> {
        epoll.add(&self.timer, EpollFlags::EPOLLIN, base + KEY_TIMER)?;
        if let Some(udp) = &self.udp {
            epoll.add(udp, EpollFlags::EPOLLIN, base + KEY_ANSWERS)?;
        }
        self.poll = Some((epoll.try_clone()?, base));
        self.timer.set(self.machine.deadline())
    }

    pub fn is_registered(&self) -> bool {
        self.poll.is_some()
    }

    /// Something of it is ready, or the link has another address than before.
    pub fn ready(&mut self) -> Result<()> {
        let outcome = self.take_in();
        if let Err(error) = &outcome {
            self.trouble = Some(error.to_string());
        }
        self.set_timer(outcome.is_ok())
    }

    /// Whether nothing could be sent yet, for want of a link-local address.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// The link may have its link-local address now.
    pub fn poke(&mut self) -> Result<()> {
        match self.waits {
            true => self.ready(),
            false => Ok(()),
        }
    }

    /// The kernel says that the address is the container's alone.
    pub fn settled(&mut self) {
        self.machine.settled();
    }

    /// The kernel says that somebody else has the address.
    pub fn conflict(&mut self) -> Result<()> {
        self.machine.conflict(boottime::now()?);
        let outcome = self.follow();
        let set = self.set_timer(outcome.is_ok());
        outcome.and(set)
    }

    /// Whatever happened: the timer must not stay ready.
    fn set_timer(&self, is_well: bool) -> Result<()> {
        let later = boottime::now()? + Duration::from_secs(1);
        let due = self.machine.deadline();
        self.timer
            .set(due.map(|at| if is_well { at } else { at.max(later) }))
    }

    fn take_in(&mut self) -> Result<()> {
        let now = boottime::now()?;
        let mut bytes = [0; DATAGRAM];
        for _ in 0..AT_ONCE {
            let Some(udp) = &self.udp else {
                break;
            };
            let Some((datagram, from)) = next(udp, &mut bytes) else {
                break;
            };
            if let Some(reply) = message::parse(datagram, &self.identity) {
                self.machine.handle(now, &reply, from);
                self.follow()?;
            }
        }
        if self.waits && self.open()? {
            self.machine.begin_again(now);
        }
        self.machine.on_time(now);
        self.follow()
    }

    /// Does what the machine says, and has the socket that it needs now.
    fn follow(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(action) = self.machine.action() {
            match action {
                Action::Send(ask) => outcome = outcome.and(self.send(&ask)),
                Action::Use(mut lease) => {
                    let now = boottime::now()?;
                    let since = self.machine.lease().map_or(now, |(_, since)| *since);
                    let age = now.saturating_sub(since).as_secs();
                    lease.obtained = unix_time().saturating_sub(age);
                    self.news.push_back(News::Has(lease));
                }
                Action::Drop => self.news.push_back(News::Lost),
            }
        }
        // A socket that is closed leaves the poll set by itself.
        if !self.machine.listens() {
            self.udp = None;
            self.waits = false;
        }
        outcome
    }

    fn send(&mut self, ask: &Ask) -> Result<()> {
        if self.udp.is_none() && !self.open()? {
            return Ok(());
        }
        match &self.udp {
            Some(udp) => self.port.send(udp, &ask.payload(&self.identity)),
            None => Ok(()),
        }
    }

    /// Whether the link has the address that everything is sent from.
    fn open(&mut self) -> Result<bool> {
        self.udp = self.port.open()?;
        self.waits = self.udp.is_none();
        if let (Some(udp), Some((epoll, base))) = (&self.udp, &self.poll) {
            epoll.add(udp, EpollFlags::EPOLLIN, base + KEY_ANSWERS)?;
        }
        Ok(!self.waits)
    }

    /// Gives the lease back, while the interface is there.
    pub fn release(&self) -> Result<()> {
        match self.machine.lease() {
            Some((lease, _)) => say_release(&self.port, &self.identity, lease),
            None => Ok(()),
        }
    }
}

/// Gives a lease back from an interface that is up, by its link-local address.
pub fn release(
    netns: Netns<Sandbox>,
    (ifname, ifindex, own): (&IfName, u32, Ipv6Addr),
    identity: &Identity,
    lease: &Lease,
) -> Result<()> {
    let port = Port {
        netns,
        ifindex,
        ifname: ifname.clone(),
        own,
    };
    say_release(&port, identity, lease)
}

/// What nobody answers is said twice, and then the lease runs out.
fn say_release(port: &Port, identity: &Identity, lease: &Lease) -> Result<()> {
    let end = boottime::now()? + LINK_LOCAL;
    let udp = loop {
        match port.open()? {
            Some(udp) => break udp,
            None if boottime::now()? < end => std::thread::sleep(LINK_LOCAL / 100),
            None => return Ok(()),
        }
    };
    let ask = Machine::release(lease, u32::from_ne_bytes(random::bytes()?));
    let failed = |e: Errno| Error::sys("wait for", "a DHCPv6 server", e);
    for _ in 0..RELEASES {
        port.send(&udp, &ask.payload(identity))?;
        let end = boottime::now()? + RELEASE_ANSWER;
        loop {
            let left = end.saturating_sub(boottime::now()?);
            if left.is_zero() {
                break;
            }
            let mut fds = [PollFd::new(udp.as_fd(), PollFlags::POLLIN)];
            let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(&mut fds, wait) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(failed(e)),
            }
            let mut bytes = [0; DATAGRAM];
            while let Some((datagram, _)) = next(&udp, &mut bytes) {
                let reply = message::parse(datagram, identity);
                if reply.is_some_and(|r| r.xid == ask.xid && r.server == lease.server) {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// One datagram of the link's own; `None`: there is no more.
fn next<'a>(udp: &UdpSocket, bytes: &'a mut [u8; DATAGRAM]) -> Option<(&'a [u8], Ipv6Addr)> {
    for _ in 0..AT_ONCE {
        match udp.recv_from(bytes) {
            Ok((length, SocketAddr::V6(from))) if from.ip().is_unicast_link_local() => {
                return Some((bytes.get(..length)?, *from.ip()));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return None,
            // What ICMP said of an earlier one, once.
            Err(_) => {}
        }
    }
    None
}
