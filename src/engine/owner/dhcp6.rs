//! A running container's lease of a DHCPv6 server: the first one during its
//! start, then what becomes of it.
//!
//! *Theory of operation.* A leg with `--ip6 dhcp` is attached without an IPv6
//! address but its link-local one; [`Network::lease_by_dhcp6`] then waits for a
//! lease, and for the kernel to find that nobody else has the address. From
//! then on the client is one of the supervisor's fds. The address is given to
//! the kernel with the lease's lifetimes, so it goes when they are over,
//! whatever becomes of us. What the kernel then has is followed as any address
//! of the LAN is (`ip6.rs`): guard, names, /etc, `inspect`.
//!
//! One that somebody has, the kernel takes away while it is still tentative (or
//! keeps, marked as a duplicate, if it was given for ever): then the server is
//! told (DECLINE), and asked for another one.

use std::os::fd::AsFd;
use std::time::SystemTime;

use super::ip6::Looked;
use super::network::{Leg, Network, not_made};
use super::{DHCP6_BASE, Owned};
use crate::base::{Error, Family, Result};
use crate::engine::record::{Addr6, Dhcp6, State6};
use crate::engine::{Engine, rfc3339};
use crate::net::dhcp::{PATIENCE, unix_time};
use crate::net::dhcp6::{Client, Lease, News};
use crate::net::ip6::Ip6;
use crate::netlink::Routers;
use crate::sys::boottime;
use crate::sys::epoll::Epoll;

/// Of a client: by its interface's index.
const KEYS: u64 = 2;

impl Leg {
    /// The one that its IPv6 address is from.
    pub(super) fn lease6(&self) -> Option<&Lease> {
        self.config.dhcp6.as_ref()?.lease.as_ref()
    }

    /// While the interface is there.
    pub(super) fn give_lease6_back(&self, engine: &Engine) {
        if let (Some(client), Some(lease)) = (&self.client6, self.lease6()) {
            let _ = engine.remember_address(client.identity(), lease.ip().into());
            let _ = client.release();
        }
    }

    fn note_trouble_of_dhcp6(&mut self, trouble: String) {
        if let Some(dhcp) = &mut self.config.dhcp6 {
            dhcp.error = Some((rfc3339(SystemTime::now()), trouble));
        }
    }
}

impl Network {
    /// Waits for the first lease of an interface that has just been made, and
    /// uses it. On failure the interface is still there.
    pub(super) fn lease_by_dhcp6(&mut self, engine: &Engine, at: usize) -> Result<()> {
        if self.legs[at].config.request.ip6 != Ip6::Dhcp {
            return Ok(());
        }
        let before = self.legs[at].config.dhcp6.clone();
        let had = before.as_ref().and_then(|dhcp| dhcp.lease.clone());
        let made = self
            .begin6(engine, at, had)
            .and_then(|()| self.wait_for_lease6(engine, at));
        let leg = &mut self.legs[at];
        if made.is_err() {
            leg.client6 = None;
            leg.config.dhcp6 = before;
        } else if let Some((_, trouble)) = leg.config.dhcp6.as_ref().and_then(|d| d.error.as_ref())
        {
            self.warnings
                .push(format!("network {}: {trouble}", leg.spec.name));
        }
        made
    }

    /// A new client, for a link that was just made. `lease`: to be asked for
    /// again, if it is the same client's; in use meanwhile, if the link was
    /// made with its address, since that was the container's all the time.
    fn begin6(&mut self, engine: &Engine, at: usize, lease: Option<Lease>) -> Result<()> {
        let netns = self.netns.as_ref().ok_or_else(not_made)?.try_clone()?;
        let leg = &self.legs[at];
        let attachment = leg.attachment.as_ref().ok_or_else(not_made)?;
        let mut identity = self.identity(leg);
        identity.mac = attachment.mac;
        let known = leg.config.dhcp6.as_ref();
        let is_same = known.is_some_and(|dhcp| dhcp.identity.client_id == identity.client_id);
        let hint = match engine.remembered_address(&identity, Family::Ipv6) {
            Some(std::net::IpAddr::V6(ip)) => Some(ip),
            _ => None,
        };
        let own = attachment.link_local().ok_or_else(not_made)?;
        let link = (&attachment.ifname, attachment.ifindex, own);
        let lease = lease.filter(|_| is_same);
        let is_there = |lease: &Lease| leg.addrs.ipv6() == Some(lease.addr);
        let used = lease.clone().filter(is_there);
        let client = Client::start(netns, link, identity.clone(), lease, hint)?;
        let leg = &mut self.legs[at];
        leg.config.dhcp6 = Some(Dhcp6 {
            identity,
            phase: client.phase(),
            lease: used,
            error: None,
        });
        leg.client6 = Some(client);
        Ok(())
    }

    /// For a link that was made again.
    pub(super) fn ask_again6(&mut self, engine: &Engine, at: usize) -> Result<()> {
        match self.legs[at].config.dhcp6.clone() {
            Some(before) => self.begin6(engine, at, before.lease),
            None => Ok(()),
        }
    }

    fn wait_for_lease6(&mut self, engine: &Engine, at: usize) -> Result<()> {
        let end = boottime::now()? + PATIENCE;
        loop {
            let now = std::time::Instant::now();
            let watch = self.watch6.as_mut().ok_or_else(not_made)?;
            for event in watch.monitor.drain()? {
                self.hear6(&event, now);
            }
            if let Some(client) = &mut self.legs[at].client6 {
                client.ready()?;
            }
            self.follow_client6(at)?;
            let mut errors = Vec::new();
            let Looked { lost, .. } = self.look6(engine, at, &mut errors)?;
            if let Some(error) = errors.pop() {
                return Err(error.with_undo(errors));
            }
            if self.judge6(at, &lost)? {
                continue;
            }
            if self.legs[at].addrs.ipv6().is_some() {
                return Ok(());
            }
            if boottime::now()? >= end {
                return self.out_of_patience6(at);
            }
            let watch = self.watch6.as_ref().ok_or_else(not_made)?;
            if let Some(client) = &mut self.legs[at].client6 {
                client.sleep(watch.monitor.as_fd(), end)?;
            }
        }
    }

    /// A lease is enough: without a carrier the kernel cannot ask who else has
    /// the address, and will when there is one.
    fn out_of_patience6(&mut self, at: usize) -> Result<()> {
        let leg = &self.legs[at];
        let Some(ip) = leg.lease6().map(Lease::ip) else {
            return Err(self.nobody6(at));
        };
        self.warnings.push(format!(
            "network {}: {ip} is not used yet: whether somebody on the LAN has it is not known",
            leg.spec.name
        ));
        Ok(())
    }

    fn nobody6(&mut self, at: usize) -> Error {
        let leg = &self.legs[at];
        let dhcp = leg.config.dhcp6.as_ref();
        let trouble = dhcp.and_then(|dhcp| dhcp.error.as_ref());
        let is_mute = leg.client6.as_ref().is_some_and(Client::waits);
        let why = match trouble {
            _ if is_mute => {
                "nothing could be sent: the link has no carrier, or somebody has its link-local \
                 address,"
                    .to_owned()
            }
            Some((_, trouble)) => format!("no lease ({trouble})"),
            None => "no DHCPv6 server answered".to_owned(),
        };
        let asked = dhcp
            .map(|dhcp| dhcp.identity.duid_text())
            .unwrap_or_default();
        let parent = leg.attachment.as_ref().map(|a| a.parent.to_string());
        let parent = parent.unwrap_or_default();
        let ifindex = leg.attachment.as_ref().map(|a| a.ifindex);
        let network = leg.spec.name.clone();
        let sandbox = self.sandbox.as_mut();
        let routers = ifindex
            .zip(sandbox)
            .and_then(|(index, s)| s.routers(index).ok());
        let routers = match routers {
            Some(Routers::Seen { managed: true }) => {
                "a router says that there is a server (M flag)"
            }
            Some(Routers::Seen { managed: false }) => {
                "the routers say that there is no server (no M flag), and `--ip6 slaac` goes by \
                 their prefixes"
            }
            Some(Routers::None) | None => "no router has advertised itself either",
        };
        Error::state(
            "get",
            "an IPv6 address",
            format!(
                "{why} within {} s; asked all DHCPv6 servers (ff02::1:2) as DUID {asked}",
                PATIENCE.as_secs(),
            ),
        )
        .hint(format!(
            "network {network} asks the DHCPv6 server behind {parent}; {routers}"
        ))
    }

    /// Does what the server of one leg has said.
    pub(super) fn follow_client6(&mut self, at: usize) -> Result<()> {
        loop {
            let leg = &mut self.legs[at];
            let Some(client) = &mut leg.client6 else {
                return Ok(());
            };
            let (phase, trouble, news) =
                (client.phase(), client.take_trouble(), client.take_news());
            if let Some(dhcp) = &mut leg.config.dhcp6 {
                dhcp.phase = phase;
            }
            if let Some(trouble) = trouble {
                leg.note_trouble_of_dhcp6(trouble);
            }
            match news {
                None => return Ok(()),
                Some(News::Has(lease)) => self.use_lease6(at, lease)?,
                Some(News::Lost) => self.drop_lease6(at)?,
            }
        }
    }

    fn use_lease6(&mut self, at: usize, lease: Lease) -> Result<()> {
        let had = self.legs[at].lease6().map(|had| had.addr);
        if had.is_some_and(|had| had != lease.addr) {
            self.drop_lease6(at)?;
        }
        let index = self.index_of(at)?;
        let addr = lease.addr;
        let (preferred, valid) = lease.lifetimes(unix_time());
        if let Some(dhcp) = &mut self.legs[at].config.dhcp6 {
            dhcp.lease = Some(lease);
        }
        if had != Some(addr) {
            // The kernel's question whether it is free must be let out.
            self.guard_follows(at)?;
        }
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        sandbox.add_leased_addr(index, addr, preferred, valid)?;
        if let Some(lan) = &mut self.legs[at].config.lan6
            && lan.addrs.iter().all(|known| known.addr != addr)
        {
            let state = State6::Tentative;
            lan.addrs.push(Addr6 { addr, state });
        }
        Ok(())
    }

    fn drop_lease6(&mut self, at: usize) -> Result<()> {
        let lease = self.legs[at].config.dhcp6.as_mut();
        let Some(lease) = lease.and_then(|dhcp| dhcp.lease.take()) else {
            return Ok(());
        };
        let index = self.index_of(at)?;
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        let deleted = sandbox.del_addr(index, lease.addr);
        let guarded = self.guard_follows(at);
        deleted.and(guarded)
    }

    /// What the kernel has found of a leased address. Whether it was somebody's
    /// and the client has to say something.
    pub(super) fn judge6(&mut self, at: usize, lost: &[Addr6]) -> Result<bool> {
        let leg = &mut self.legs[at];
        let Some(addr) = leg.lease6().map(|lease| lease.addr) else {
            return Ok(false);
        };
        let Some(client) = &mut leg.client6 else {
            return Ok(false);
        };
        let is = leg.config.lan6.as_ref();
        let is = is.and_then(|lan| lan.addrs.iter().find(|a| a.addr == addr));
        let was = lost.iter().find(|a| a.addr == addr);
        match (is.map(|a| a.state), was.map(|a| a.state)) {
            (Some(State6::Duplicate), _) | (None, Some(State6::Tentative)) => {
                client.conflict()?;
                Ok(true)
            }
            (Some(State6::Preferred | State6::Deprecated), _) => {
                client.settled();
                Ok(false)
            }
            (Some(State6::Tentative), _) | (None, _) => Ok(false),
        }
    }

    /// A link may have its link-local address now, which one waits for.
    pub(super) fn poke_clients6(&mut self) {
        for client in self.legs.iter_mut().filter_map(|leg| leg.client6.as_mut()) {
            // What goes wrong is its trouble.
            let _ = client.poke();
        }
    }

    pub(super) fn register_dhcp6(&mut self, epoll: &Epoll) -> Result<()> {
        for leg in &mut self.legs {
            if let (Some(client), Some(attachment)) = (&mut leg.client6, &leg.attachment)
                && !client.is_registered()
            {
                client.register(epoll, DHCP6_BASE + KEYS * u64::from(attachment.ifindex))?;
            }
        }
        Ok(())
    }
}

impl Owned {
    pub(super) fn dhcp6_ready(&mut self, key: u64) -> Result<()> {
        let ifindex = key / KEYS;
        let is_its = |leg: &Leg| {
            let attachment = leg.attachment.as_ref();
            attachment.is_some_and(|a| u64::from(a.ifindex) == ifindex)
        };
        let Some(at) = self.network.legs.iter().position(is_its) else {
            return Ok(());
        };
        let before = self.network.legs[at].config.clone();
        if let Some(client) = &mut self.network.legs[at].client6 {
            // What went wrong is its trouble, which is noted below.
            let _ = client.ready();
        }
        let (engine, record) = (&self.engine, &mut self.record);
        if let Err(error) = self.network.follow_lan6_of(engine, record, at) {
            self.network.legs[at].note_trouble_of_dhcp6(error.to_string());
            self.doubtful = true;
        }
        if self.network.legs[at].config == before {
            return Ok(());
        }
        self.network.remember(&mut self.record);
        // Nobody is there to be warned.
        self.network.take_warnings();
        self.note_network()
    }
}
