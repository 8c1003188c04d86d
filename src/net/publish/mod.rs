//! Publishing: a container's ports on the host's addresses.
//!
//! # Theory of operation
//! `docs/publishing.md` explains it to its users. In this folder:
//!
//! | file | what |
//! |---|---|
//! | `reserve.rs` | listening sockets on the host: all ports or none |
//! | `plan.rs` | what belongs into the parent's maps; pure |
//! | `rules.rs` | the table of a parent: what its rules do to a packet |
//! | `fast_path.rs` | brings table and maps to the plan, and takes them back |
//! | `listeners.rs` | whether a service would hear the fast path |
//! | `proxy.rs` | everybody else: TCP by splice, UDP by flows |
//!
//! A [`Publisher`] is one container's, owned by its supervisor, whose loop
//! calls it: when one of its fds is ready, and when the time that it asked for
//! has come. It asks for none at rest.
//!
//! *The two ways meet at the listening socket.* A packet that no rule rewrites
//! goes up to the host, to the socket that reserves its port, and so to the
//! proxy: where the kernel refuses the rules, where somebody flushes them,
//! while a map is full. Hence no failure of the fast path is an error here.
//!
//! *Deaf services.* A service that listens on one address does not hear an
//! alias. Nobody tells when a service begins to listen, so it is looked for
//! [`LOOKS`] after the start, until every TCP port has a listener; and when
//! [`Publisher::look`] is called (`inspect`, `port`).

pub mod fast_path;
mod listeners;
mod plan;
pub mod proxy;
mod reserve;
mod rules;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::fast_path::FastPath;
use self::listeners::Listeners;
use self::proxy::{Poll, Proxy};
use crate::base::{Cidr, IfName, Journal, MacAddr, PortMap, Proto, Result, Step};
use crate::netlink::socket::{Event, Monitor};
use crate::netlink::{MacvlanMode, Mode, Rtnl};
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::netns::{Host, Netns, Sandbox};

pub use self::reserve::{Reserved, reserve};

/// When after the start to look for the container's listeners.
const LOOKS: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
];
/// The monitor's key, which no listener's place has.
const KEY_MONITOR: u64 = (1 << 30) - 1;

/// A published port as asked for: `host_ip` `None` is every address of the
/// host (0.0.0.0), `host_port` `None` is a random free port (from
/// /proc/sys/net/ipv4/ip_local_port_range, 32768–60999 as Docker does).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    pub host_ip: Option<IpAddr>,
    /// First and last port acceptable on the host: equal for a fixed port; a
    /// range with one container port means "any free one of these".
    pub host_port: Option<(u16, u16)>,
    pub container: u16,
    pub proto: Proto,
}

/// As `-p` takes it.
impl fmt::Display for PortRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_ip {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            None => {}
        }
        match self.host_port {
            Some((first, last)) if first == last => write!(f, "{first}:")?,
            Some((first, last)) => write!(f, "{first}-{last}:")?,
            None if self.host_ip.is_some() => f.write_str(":")?,
            None => {}
        }
        write!(f, "{}", self.container)?;
        match self.proto {
            Proto::Tcp => Ok(()),
            Proto::Udp => f.write_str("/udp"),
        }
    }
}

/// `--publish-via`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    #[default]
    Auto,
    Proxy,
}

/// Which way a published port's LAN traffic takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    Fast,
    Proxy,
}

/// The container's side of publishing.
#[derive(Clone, Debug)]
pub struct Target {
    /// The parent link in the host, in whose netdev hooks the fast path lives;
    /// `None` (no macvlan network): proxy only, to 127.0.0.1 in the sandbox.
    pub parent: Option<IfName>,
    pub mac: MacAddr,
    pub ip: Ipv4Addr,
    /// Without a default route it can answer its own subnet only: addresses of
    /// the host elsewhere are the proxy's.
    pub reach: Option<Cidr>,
    /// In passthru mode the parent's address and MAC are the container's, in
    /// source mode only listed clients reach it, and to an ipvlan the kernel
    /// gives what is for an address on it, which an alias is not: proxy only.
    pub mode: Mode,
}

/// Publishing of one container, run by its supervisor's event loop.
#[derive(Debug)]
pub struct Publisher {
    target: Target,
    ports: Vec<PortMap>,
    netns: Netns<Sandbox>,
    proxy: Proxy,
    fast: Option<FastPath>,
    /// By port: its service does not hear an alias.
    deaf: Vec<bool>,
    via: Via,
    /// Follows the parent's addresses and MAC.
    monitor: Option<Monitor>,
    poll: Option<Poll>,
    started: Instant,
    /// How many of [`LOOKS`] are done.
    looks: usize,
    changed: bool,
}

impl Publisher {
    /// Installs the fast path where it can (recording `Step::Unpublish` first)
    /// and is ready to proxy for everybody else. Where the kernel refuses the
    /// fast path, the proxy serves all and `paths` says so.
    pub fn start(
        reserved: Reserved,
        via: Via,
        target: Target,
        host: &mut Rtnl<Host>,
        sandbox: &Netns<Sandbox>,
        journal: &mut dyn Journal,
    ) -> Result<Self> {
        let (ports, sockets) = reserved.into_parts();
        let netns = sandbox.try_clone()?;
        let inside = match target.parent {
            Some(_) => target.ip,
            None => Ipv4Addr::LOCALHOST,
        };
        let mut this = Self {
            proxy: Proxy::new(&ports, sockets, inside),
            fast: None,
            deaf: vec![false; ports.len()],
            ports,
            netns,
            via,
            monitor: None,
            poll: None,
            started: Instant::now(),
            looks: LOOKS.len(),
            changed: false,
            target,
        };
        this.lay(host, journal)?;
        Ok(this)
    }

    /// Installs the fast path, if it can be had.
    fn lay(&mut self, host: &mut Rtnl<Host>, journal: &mut dyn Journal) -> Result<()> {
        let target = &self.target;
        let (Some(parent), Via::Auto, true) = (&target.parent, self.via, is_rewritable(target))
        else {
            return Ok(());
        };
        let mut journal = Kept {
            journal,
            failed: None,
        };
        // Before the addresses are read: what changes meanwhile is told.
        let monitor = Rtnl::<Host>::monitor(&GROUPS);
        let netns = &self.netns;
        let made = FastPath::install(parent, target, &self.ports, host, netns, &mut journal);
        if let Some(error) = journal.failed {
            return Err(error);
        }
        match (made?, monitor) {
            (Some(fast), Ok(monitor)) => {
                self.fast = Some(fast);
                self.monitor = Some(monitor);
                self.started = Instant::now();
                self.looks = 0;
            }
            // Deaf to changes, it would lead astray.
            (Some(fast), Err(_)) => drop(fast.remove(&self.netns)?),
            (None, _) => {}
        }
        Ok(())
    }

    /// Whether the ports lead to this MAC, by this parent.
    pub fn leads_by(&self, parent: &IfName, mac: MacAddr) -> bool {
        self.target.parent.as_ref() == Some(parent) && self.target.mac == mac
    }

    /// The container is where it was, on a link that was made again, or on one
    /// that is called otherwise now. Connections by the proxy stay.
    pub fn follow_parent(
        &mut self,
        parent: &IfName,
        host: &mut Rtnl<Host>,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        self.monitor = None;
        self.changed = true;
        let removed = self.fast.take().map(|fast| fast.remove(&self.netns));
        self.target.parent = Some(parent.clone());
        self.lay(host, journal)?;
        if let (Some(poll), Some(monitor)) = (&self.poll, &self.monitor) {
            poll.watch(monitor, KEY_MONITOR)?;
        }
        removed.transpose().map(drop)
    }

    /// Adds its fds to the loop. All keys it uses lie in
    /// `base..base + (1 << 32)`.
    pub fn register(&mut self, epoll: &Epoll, base: u64) -> Result<()> {
        let poll = Poll::new(epoll, base)?;
        self.proxy.register(&poll)?;
        if let Some(monitor) = &self.monitor {
            epoll.add(monitor, EpollFlags::EPOLLIN, base + KEY_MONITOR)?;
        }
        self.poll = Some(poll);
        Ok(())
    }

    /// Serves one ready key (given without `base`). Errors of single
    /// connections are not errors of the publisher.
    pub fn ready(&mut self, key: u64, events: EpollFlags) -> Result<()> {
        if key == KEY_MONITOR {
            return self.host_changed();
        }
        match &self.poll {
            Some(poll) => self.proxy.ready(key, events, poll, &self.netns),
            None => Ok(()),
        }
    }

    /// When `on_time` wants to be called (UDP flows expiring, a look at the
    /// container's listeners); `None` at rest.
    pub fn deadline(&self) -> Option<Instant> {
        let look = LOOKS.get(self.looks).map(|after| self.started + *after);
        look.into_iter().chain(self.proxy.deadline()).min()
    }

    pub fn on_time(&mut self, now: Instant) -> Result<()> {
        let due = |after: &Duration| self.started + *after <= now;
        let looked = if LOOKS.get(self.looks).is_some_and(due) {
            self.looks += 1;
            self.look(false)
        } else {
            Ok(())
        };
        match &self.poll {
            Some(poll) => self.proxy.on_time(now, poll).and(looked),
            None => looked,
        }
    }

    /// Looks which services would hear the fast path, and lets the proxy serve
    /// the others. `mend`: and whether all is there still, which somebody may
    /// have flushed.
    pub fn look(&mut self, mend: bool) -> Result<()> {
        let Some(fast) = &mut self.fast else {
            return Ok(());
        };
        let listeners = Listeners::of(&self.netns)?;
        let tcp = || self.ports.iter().filter(|port| port.proto == Proto::Tcp);
        if tcp().all(|port| listeners.any(port.container)) {
            self.looks = LOOKS.len();
        }
        let deaf: Vec<bool> = self
            .ports
            .iter()
            .enumerate()
            .map(|(at, port)| {
                port.proto == Proto::Tcp
                    && (listeners.deaf(port.container)
                        // The fast path would cut off who came by the proxy.
                        || self.deaf[at] && self.proxy.is_used(at))
            })
            .collect();
        if deaf == self.deaf && !mend {
            return Ok(());
        }
        self.deaf = deaf;
        self.changed = true;
        fast.follow(&self.netns, &self.deaf, true)
    }

    /// The program has been started again: it may listen elsewhere.
    pub fn restarted(&mut self) {
        if self.fast.is_some() {
            self.started = Instant::now();
            self.looks = 0;
        }
    }

    /// Whence the container answers for what takes the fast path: its parent,
    /// its MAC, its aliases.
    pub fn aliases(&self) -> Option<(&IfName, MacAddr, Cidr)> {
        self.fast.as_ref().and_then(FastPath::aliases)
    }

    pub fn ports(&self) -> &[PortMap] {
        &self.ports
    }

    /// Has `paths` changed since this was asked last?
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub fn paths(&self) -> Vec<(PortMap, Path)> {
        let path = |at| match &self.fast {
            Some(fast) if fast.serves(at) => Path::Fast,
            _ => Path::Proxy,
        };
        let ports = self.ports.iter().enumerate();
        ports.map(|(at, port)| (*port, path(at))).collect()
    }

    /// Takes everything back but the ports themselves: they are somebody
    /// else's to have as soon as this is dropped. For the end of the process:
    /// one socket stays open until then, so that whoever waits for the end need
    /// not wait for the kernel's grace period.
    pub fn stop(&mut self) -> Result<()> {
        match self.fast.take() {
            Some(fast) => fast.remove(&self.netns).map(std::mem::forget),
            None => Ok(()),
        }
    }

    /// Takes everything back, the ports too. They can be published again by
    /// what this returns, if nobody else was faster.
    pub fn close(mut self) -> Result<Vec<PortRequest>> {
        if let Some(fast) = self.fast.take() {
            drop(fast.remove(&self.netns)?);
        }
        let same = |port: &PortMap| PortRequest {
            host_ip: Some(port.host.ip),
            host_port: Some((port.host.port, port.host.port)),
            container: port.container,
            proto: port.proto,
        };
        Ok(self.ports.iter().map(same).collect())
    }

    /// Where the ports lead.
    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn is_registered(&self) -> bool {
        self.poll.is_some()
    }

    fn host_changed(&mut self) -> Result<()> {
        let (Some(monitor), Some(fast)) = (&mut self.monitor, &mut self.fast) else {
            return Ok(());
        };
        let events = match monitor.drain() {
            Ok(events) => events,
            Err(error) => {
                // Closed, it leaves the poll set.
                self.monitor = None;
                return Err(error);
            }
        };
        let ours = |event: &Event| match event {
            Event::Link { index, name, .. } => {
                *index == fast.index() || *name == fast.parent().as_str()
            }
            Event::Addr { index, .. } => *index == fast.index(),
            Event::Advertised { .. } => false,
            Event::Overrun => true,
        };
        if events.iter().any(ours) {
            self.changed = true;
            fast.follow(&self.netns, &self.deaf, false)
        } else {
            Ok(())
        }
    }
}

/// RTNLGRP_*
const GROUPS: [u32; 2] = [libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR];

/// Do the parent's hooks see the container's frames, and the host's address
/// beside them?
fn is_rewritable(target: &Target) -> bool {
    match target.mode {
        Mode::Macvlan(MacvlanMode::Bridge | MacvlanMode::Private | MacvlanMode::Vepa) => true,
        Mode::Macvlan(MacvlanMode::Passthru | MacvlanMode::Source) | Mode::Ipvlan { .. } => false,
    }
}

/// Tells an error of the journal, which ends the start, from one of the
/// kernel, which does not.
struct Kept<'a> {
    journal: &'a mut dyn Journal,
    failed: Option<crate::base::Error>,
}

impl Journal for Kept<'_> {
    fn record(&mut self, step: &Step) -> Result<()> {
        let outcome = self.journal.record(step);
        self.failed = outcome.clone().err();
        outcome
    }
}

/// Undo of [`Step::Unpublish`](crate::base::Step) after a crash: works from
/// the step alone, succeeds when all is gone.
pub fn unpublish(parent: &IfName, aliases: &[IpAddr], ports: &[PortMap]) -> Result<()> {
    let v4 = |addr: &IpAddr| match addr {
        IpAddr::V4(ip) => Some(*ip),
        IpAddr::V6(_) => None,
    };
    let addrs: Vec<Ipv4Addr> = aliases.iter().filter_map(v4).collect();
    fast_path::remove(parent, &addrs, ports).map(drop)
}
