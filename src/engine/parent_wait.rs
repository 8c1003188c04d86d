//! `--parent-wait`: a start that waits for a parent that is not there yet, as
//! in the first seconds after a boot.
//!
//! *Theory of operation.* The command waits, before anything of the start is
//! made and without a lock: whoever kills it has nothing to undo. It hears of
//! links from the kernel ([`LinkWatch`]) and looks after each change; nothing
//! is polled. What is there when it has looked may be gone when it is needed:
//! then the start fails as it does without waiting.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use std::os::fd::AsFd;

use super::Engine;
use super::parents::parent_now;
use crate::base::{Error, Result, Subject};
use crate::net::spec::NetworkSpec;
use crate::netlink::Rtnl;
use crate::netlink::watch::{Ear, LinkWatch};

impl Engine {
    /// Waits until every network of a container that does not run has its
    /// parent.
    pub fn await_parents_of(&self, container: &str, patience: Duration) -> Result<()> {
        let record = self.record(&self.find(container)?)?;
        if record.state.status.is_live() {
            return Ok(());
        }
        let ids = record.config.endpoints.iter().map(|e| match &e.network {
            Some(id) => id.as_str(),
            None => e.request.network.as_str(),
        });
        self.await_parents(ids, patience)
    }

    /// The same of some networks. One that there is not is the start's to
    /// complain of.
    pub fn await_parents<'a>(
        &self,
        networks: impl Iterator<Item = &'a str>,
        patience: Duration,
    ) -> Result<()> {
        let end = Instant::now() + patience;
        for network in networks {
            let Ok(network) = self.find_network(network) else {
                continue;
            };
            if network.vlan().is_some() {
                await_parent(&network, patience, end)?;
            }
        }
        Ok(())
    }
}

fn await_parent(network: &NetworkSpec, patience: Duration, end: Instant) -> Result<()> {
    let mut host = Rtnl::host()?;
    if parent_now(network, &mut host)?.is_some() {
        return Ok(());
    }
    let by_route = network.choice().is_some_and(|c| c.follows_routes());
    let ear = match by_route {
        true => Ear::LinksAndRoutes,
        false => Ear::Links,
    };
    let watch = LinkWatch::new(ear)?;
    loop {
        watch.drain()?;
        if parent_now(network, &mut host)?.is_some() {
            return Ok(());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(too_late(network, patience));
        }
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        let time = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, time) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::sys("wait for links", Subject::None, errno)),
        }
    }
}

fn too_late(network: &NetworkSpec, patience: Duration) -> Error {
    let written = network.options.get("parent").map(String::as_str);
    let own = network.vlan().map(|vlan| vlan.parent.as_str());
    let parent = written.or(own).unwrap_or_default();
    Error::not_found(format!(
        "the requested parent interface {parent} did not come within {} s",
        patience.as_secs()
    ))
    .hint(format!(
        "network {} needs it; `ip link` shows what there is",
        network.name
    ))
}
