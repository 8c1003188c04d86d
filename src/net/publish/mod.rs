//! Publishing: a container's ports on the host's addresses.
//! Theory of operation: design.md §2 (to be written here by its author).

pub mod fast_path;
pub mod proxy;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::base::{IfName, Journal, MacAddr, PortMap, Proto, Result};
use crate::netlink::Rtnl;
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::netns::{Host, Netns, Sandbox};

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
    /// passthru and modes in which the parent's hooks do not see the frames
    /// as in bridge mode: the author of this module decides and documents.
    pub mode: crate::netlink::MacvlanMode,
}

/// Listening sockets on the host: they serve the proxy and reserve the ports.
#[derive(Debug)]
pub struct Reserved {}

/// Binds every port, all or none. A taken one is
/// `Bind for IP:PORT failed: port is already allocated` (Cause::Conflict).
pub fn reserve(_wanted: &[PortRequest]) -> Result<Reserved> {
    todo!()
}

impl Reserved {
    /// Random ports and ranges resolved.
    pub fn ports(&self) -> &[PortMap] {
        todo!()
    }
}

/// Publishing of one container, run by its supervisor's event loop.
#[derive(Debug)]
pub struct Publisher {}

impl Publisher {
    /// Installs the fast path where it can (recording `Step::Unpublish` first)
    /// and is ready to proxy for everybody else. Where the kernel refuses the
    /// fast path, the proxy serves all and `paths` says so.
    pub fn start(
        _reserved: Reserved,
        _via: Via,
        _target: Target,
        _host: &mut Rtnl<Host>,
        _sandbox: &Netns<Sandbox>,
        _journal: &mut dyn Journal,
    ) -> Result<Self> {
        todo!()
    }
    /// Adds its fds to the loop. All keys it uses lie in
    /// `base..base + (1 << 32)`.
    pub fn register(&mut self, _epoll: &Epoll, _base: u64) -> Result<()> {
        todo!()
    }
    /// Serves one ready key (given without `base`). Errors of single
    /// connections are not errors of the publisher.
    pub fn ready(&mut self, _key: u64, _events: EpollFlags) -> Result<()> {
        todo!()
    }
    /// When `on_time` wants to be called (UDP flows expiring); `None` at rest.
    pub fn deadline(&self) -> Option<Instant> {
        todo!()
    }
    pub fn on_time(&mut self, _now: Instant) -> Result<()> {
        todo!()
    }
    pub fn ports(&self) -> &[PortMap] {
        todo!()
    }
    pub fn paths(&self) -> Vec<(PortMap, Path)> {
        todo!()
    }
    /// Takes everything back.
    pub fn stop(self) -> Result<()> {
        todo!()
    }
}

/// Undo of [`Step::Unpublish`](crate::base::Step) after a crash: works from
/// the step alone, succeeds when all is gone.
pub fn unpublish(_parent: &IfName, _aliases: &[IpAddr], _ports: &[PortMap]) -> Result<()> {
    todo!()
}
