//! IPv6 that the LAN gives a running container: what it is, seen as it
//! changes.
//!
//! *Theory of operation.* The kernel does SLAAC by itself, and with DHCPv6
//! (`dhcp6.rs`) what routers say; here it is only followed. One rtnetlink socket in the container's namespace hears of
//! addresses and of what routers say of name servers; whenever it has something,
//! the addresses are read afresh, and what follows from them is done: guard,
//! names, /etc, `inspect`. Only addresses that end in the link's token, or
//! the leased one, count, so that nobody inside can widen the guard by adding
//! others.
//!
//! Each advertisement is heard of, also one that changes nothing. So the socket
//! is out of the poll set for [`DEAF`] after it was read: nobody on the LAN can
//! keep a supervisor busy.

use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant, SystemTime};

use super::legs;
use super::network::{Leg, Network, not_made};
use super::{Owned, WATCH6};
use crate::base::{Cidr, Error, Family, PerFamily, Result};
use crate::engine::Engine;
use crate::engine::record::{Addr6, Lan6, Record, State6};
use crate::engine::{ip6, rfc3339};
use crate::net::guard::Addrs;
use crate::net::ip6::{Ip6, Link6, Router, Token};
use crate::netlink::Rtnl;
use crate::netlink::addr::Address;
use crate::netlink::monitor::{Event, IPV6_IFADDR, Monitor, ND_USEROPT};
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::netns::{Netns, Sandbox};

const DEAF: Duration = Duration::from_millis(500);
/// Prefixes that anybody on the LAN may advertise: not more of them are
/// followed.
const ADDRS: usize = 8;
/// Of the kernel's own default routes, and of those that are given.
const METRIC: i64 = 1024;
/// Each step of `--gw-priority`.
const STEP: i64 = 256;

#[derive(Debug)]
pub(super) struct Watch6 {
    pub(super) monitor: Monitor,
    is_registered: bool,
    deaf_until: Option<Instant>,
}

impl Watch6 {
    pub(super) fn new(netns: &Netns<Sandbox>) -> Result<Self> {
        Ok(Self {
            monitor: Rtnl::monitor_in(netns, &[IPV6_IFADDR, ND_USEROPT])?,
            is_registered: false,
            deaf_until: None,
        })
    }
}

impl Lan6 {
    /// Nothing yet; `None`: the LAN gives nothing.
    pub(super) fn new(link: Link6) -> Option<Self> {
        link.is_by_lan().then(|| Self {
            token: link.token(),
            addrs: Vec::new(),
            router: None,
            dns: Vec::new(),
            search: Vec::new(),
            error: None,
        })
    }

    pub(super) fn usable(&self) -> Vec<Cidr> {
        let usable = self.addrs.iter().filter(|a| a.state.is_usable());
        usable.map(|a| a.addr).collect()
    }
}

impl Leg {
    pub(super) fn is_by_lan6(&self) -> bool {
        self.config.request.ip6.is_by_lan()
    }

    /// What it has on the LAN follows from the container's name.
    pub(super) fn is_by_name(&self) -> bool {
        self.spec.is_dhcp() || self.is_by_lan6()
    }

    /// The addresses that a link is made with; routers' prefixes come later.
    pub(super) fn given(&self) -> PerFamily<Cidr> {
        let mut given = self.addrs;
        if self.config.request.ip6 == Ip6::Slaac {
            given.take(Family::Ipv6);
        }
        given
    }

    /// All addresses that are the container's: of IPv6 by the LAN there may be
    /// several.
    pub(super) fn held(&self) -> Vec<Cidr> {
        let mut all: Vec<Cidr> = self.addrs.values().collect();
        let more = self.config.lan6.as_ref().map(Lan6::usable);
        let is_new = |addr: &Cidr| self.addrs.ipv6() != Some(*addr);
        all.extend(more.unwrap_or_default().into_iter().filter(is_new));
        all
    }

    /// Whom the guard lets send.
    pub(super) fn senders(&self) -> Addrs {
        let linked = legs::link_local(&self.config.request).unwrap_or_default();
        let all = self.addrs.values().chain(linked);
        let mut own: Vec<IpAddr> = all.map(Cidr::addr).collect();
        match &self.config.lan6 {
            Some(lan) => {
                own.retain(IpAddr::is_ipv4);
                own.extend(lan.addrs.iter().map(|a| a.addr.addr()));
                // Before the kernel has it: it asks at once who else does.
                let leased = self.lease6().map(|lease| lease.addr.addr());
                own.extend(leased.filter(|ip| lan.addrs.iter().all(|a| a.addr.addr() != *ip)));
                own.sort_unstable();
                Addrs::Lan(own, lan.token)
            }
            // On an L2-only network they are the program's to choose.
            None if !self.spec.ipv4 && !self.spec.ipv6 => Addrs::Any,
            None => Addrs::Own(own),
        }
    }

    /// Whether an address that the kernel has is one that the LAN gave.
    fn is_given6(&self, addr: Cidr) -> bool {
        let by_token = |lan: &Lan6| lan.token.is_some_and(|token| token.is_of(addr));
        let leased = self.lease6().map(|lease| lease.addr);
        self.config.lan6.as_ref().is_some_and(by_token) || leased == Some(addr)
    }

    fn note_trouble6(&mut self, trouble: String) {
        if let Some(lan) = &mut self.config.lan6 {
            lan.error = Some((rfc3339(SystemTime::now()), trouble));
        }
    }
}

impl Network {
    pub(super) fn link6(&self, at: usize) -> Link6 {
        let leg = &self.legs[at];
        match leg.config.request.ip6 {
            Ip6::Subnet if leg.spec.ipv6 => Link6::On,
            Ip6::Subnet | Ip6::Off => Link6::Off,
            Ip6::Slaac => {
                let token = ip6::token(&leg.spec, self.name.as_str());
                Link6::Slaac(token, self.router_of(at))
            }
            Ip6::Dhcp => Link6::Dhcp(self.router_of(at)),
        }
    }

    /// What an ipvlan is given: of its name where that does not change while it
    /// is there, else of its address.
    pub(super) fn own_link_local(&self, at: usize) -> Option<Ipv6Addr> {
        let leg = &self.legs[at];
        let mode = leg.spec.vlan()?.mode;
        if !mode.is_ipvlan() || mode.is_l3() {
            return None;
        }
        let token = match self.link6(at) {
            Link6::Off => return None,
            Link6::On => match leg.addrs.ipv6()?.addr() {
                IpAddr::V6(ip) => Token::of_addr(ip),
                IpAddr::V4(_) => return None,
            },
            Link6::Slaac(..) | Link6::Dhcp(_) => ip6::token(&leg.spec, self.name.as_str()),
        };
        Some(token.link_local())
    }

    /// Of several default routes the one with the lowest metric is taken: of
    /// one priority that which was given, then in the order of the networks.
    fn router_of(&self, at: usize) -> Router {
        if self.legs[at].spec.is_internal() {
            return Router::Ignored;
        }
        let priority = |at: usize| i64::from(self.legs[at].config.request.gw_priority);
        let given = self.default_legs().ipv6().map(priority);
        let ahead = priority(at) - given.unwrap_or_default();
        let place = i64::try_from(at).unwrap_or_default();
        let metric = (METRIC + 1 + place - STEP * ahead).clamp(1, u32::MAX.into());
        Router::Default {
            metric: u32::try_from(metric).unwrap_or(1),
        }
    }

    pub(super) fn register_watch6(&mut self, epoll: &Epoll) -> Result<()> {
        match &mut self.watch6 {
            Some(watch) if !watch.is_registered && watch.deaf_until.is_none() => {
                epoll.add(&watch.monitor, EpollFlags::EPOLLIN, WATCH6)?;
                watch.is_registered = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn lan6_deadline(&self) -> Option<Instant> {
        let watch = self.watch6.as_ref()?;
        let named = self.legs.iter().filter_map(|leg| leg.named6.deadline());
        named.chain(watch.deaf_until).min()
    }

    /// Whether anything has changed that the record tells.
    fn follow_lan6(&mut self, engine: &Engine, record: &mut Record, now: Instant) -> Result<bool> {
        let Some(watch) = &mut self.watch6 else {
            return Ok(false);
        };
        for event in watch.monitor.drain()? {
            self.hear6(&event, now);
        }
        self.poke_clients6();
        let (mut changed, mut errors) = (false, Vec::new());
        for at in 0..self.legs.len() {
            self.legs[at].named6.expire(now);
            if self.legs[at].config.lan6.is_none() || self.legs[at].attachment.is_none() {
                continue;
            }
            let before = self.legs[at].config.clone();
            if let Err(error) = self.follow_lan6_of(engine, record, at) {
                self.legs[at].note_trouble6(error.to_string());
                errors.push(error);
            }
            changed |= self.legs[at].config != before;
        }
        match errors.pop() {
            Some(error) => Err(error.with_undo(errors)),
            None => Ok(changed),
        }
    }

    /// A link is gone, and is about to be made anew, perhaps with its index:
    /// what was said of it is heard before, and what it had of the LAN is given
    /// back. The routers give it again; a server's lease goes on (`dhcp6.rs`).
    pub(super) fn forget_lan6(&mut self, engine: &Engine, at: usize) -> Result<()> {
        if let Some(watch) = &mut self.watch6 {
            for event in watch.monitor.drain()? {
                self.hear6(&event, Instant::now());
            }
        }
        let leg = &mut self.legs[at];
        let is_slaac = leg.config.request.ip6 == Ip6::Slaac;
        let Some(lan) = leg.config.lan6.as_mut().filter(|_| is_slaac) else {
            return Ok(());
        };
        let had = lan.usable();
        lan.addrs.clear();
        let mut all = had.iter().map(|addr| engine.release(&leg.spec, *addr));
        all.try_for_each(|released| released)
    }

    pub(super) fn hear6(&mut self, event: &Event, now: Instant) {
        let (Event::Advertised { index, .. } | Event::Addr { index, .. }) = event else {
            return;
        };
        let is_its = |leg: &&mut Leg| {
            let attachment = leg.attachment.as_ref();
            attachment.is_some_and(|a| a.ifindex == *index)
        };
        let Some(leg) = self.legs.iter_mut().find(is_its) else {
            return;
        };
        let Some(lan) = &leg.config.lan6 else {
            return;
        };
        match event {
            Event::Advertised { option, .. } => leg.named6.hear(option, now),
            Event::Addr {
                addr, gone: true, ..
            } => {
                let is_its = lan.token.is_some_and(|token| token.is_of(*addr));
                if is_its && !lan.usable().contains(addr) {
                    leg.note_trouble6(format!(
                        "{addr} is not used: somebody on the LAN has it (duplicate address detection)"
                    ));
                }
            }
            Event::Addr { .. } | Event::Link { .. } | Event::Overrun => {}
        }
    }

    /// Until what its DHCPv6 client has to say is done.
    pub(super) fn follow_lan6_of(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        at: usize,
    ) -> Result<()> {
        let had = self.legs[at].addrs.ipv6();
        let mut errors: Vec<Error> = Vec::new();
        let mut renamed = false;
        loop {
            errors.extend(self.follow_client6(at).err());
            let looked = self.look6(engine, at, &mut errors)?;
            renamed |= looked.renamed;
            if !self.judge6(at, &looked.lost)? {
                break;
            }
        }
        let main = self.legs[at].addrs.ipv6();
        if had != main {
            if let Some(had) = had {
                errors.extend(engine.remove_host_line(record, had).err());
            }
            if let Some(main) = main {
                errors.extend(engine.add_host_line(record, main).err());
            }
        }
        if renamed {
            errors.extend(self.name_servers_of_leases(engine, record).err());
        }
        match errors.pop() {
            Some(error) => Err(error.with_undo(errors)),
            None => Ok(()),
        }
    }

    /// What the kernel has now, and what follows from it but for /etc.
    pub(super) fn look6(
        &mut self,
        engine: &Engine,
        at: usize,
        errors: &mut Vec<Error>,
    ) -> Result<Looked> {
        let index = self.index_of(at)?;
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        let (addrs, routes) = (sandbox.addrs(Some(index))?, sandbox.routes()?);
        let leg = &mut self.legs[at];
        let senders = leg.senders();
        let its = addrs.iter().filter(|a| leg.is_given6(a.cidr));
        let new: Vec<Addr6> = its.take(ADDRS).map(seen).collect();
        let leased = leg
            .lease6()
            .map(|lease| (lease.dns.clone(), lease.search.clone()));
        let (mut dns, mut search) = leased.unwrap_or_default();
        let Some(lan) = &mut leg.config.lan6 else {
            return Ok(Looked::default());
        };
        let is_way = |r: &&crate::netlink::route::Route| {
            r.ipv6 && r.dst.is_none() && r.oif == Some(index.get())
        };
        lan.router = routes.iter().find(is_way).and_then(|r| match r.gateway {
            Some(IpAddr::V6(ip)) => Some(ip),
            _ => None,
        });
        let before = lan.usable();
        let is_kept = |old: &&Addr6| new.iter().any(|a| a.addr == old.addr);
        let lost = lan
            .addrs
            .iter()
            .filter(|old| !is_kept(old))
            .copied()
            .collect();
        lan.addrs = new;
        let after = lan.usable();
        dns.extend(
            leg.named6
                .servers()
                .iter()
                .filter(|ip| !dns.contains(ip))
                .collect::<Vec<_>>(),
        );
        let more = leg
            .named6
            .search()
            .into_iter()
            .filter(|name| !search.contains(name));
        search.extend(more.collect::<Vec<_>>());
        let renamed = (&lan.dns, &lan.search) != (&dns, &search);
        (lan.dns, lan.search) = (dns, search);
        let main = main_of(&lan.addrs, leg.addrs.ipv6());
        let router = lan.router;
        leg.addrs.take(Family::Ipv6);
        main.map(|addr| leg.addrs.put(addr));
        if let Some(attachment) = &mut leg.attachment {
            attachment.addrs.take(Family::Ipv6);
            main.map(|addr| attachment.addrs.put(addr));
            attachment.gateways.take(Family::Ipv6);
            router.map(|ip| attachment.gateways.put(ip.into()));
        }
        if leg.senders() != senders {
            errors.extend(self.guard_follows(at).err());
        }
        let leg = &self.legs[at];
        let names = self.names_on(&leg.config);
        for addr in before.iter().filter(|addr| !after.contains(addr)) {
            errors.extend(engine.release(&leg.spec, *addr).err());
        }
        for addr in after.iter().filter(|addr| !before.contains(addr)) {
            let noted = engine.note_lease(&leg.spec, addr.addr(), &self.id, &names);
            errors.extend(noted.err());
        }
        Ok(Looked { renamed, lost })
    }
}

/// What has changed of a link's addresses.
#[derive(Debug, Default)]
pub(super) struct Looked {
    /// Of name servers or search domains.
    pub(super) renamed: bool,
    /// What the kernel has no more, as it was.
    pub(super) lost: Vec<Addr6>,
}

fn seen(address: &Address) -> Addr6 {
    let is = |flag: u32| address.flags & flag != 0;
    Addr6 {
        addr: address.cidr,
        state: if is(libc::IFA_F_DADFAILED) {
            State6::Duplicate
        } else if is(libc::IFA_F_TENTATIVE) {
            State6::Tentative
        } else if is(libc::IFA_F_DEPRECATED) {
            State6::Deprecated
        } else {
            State6::Preferred
        },
    }
}

/// The one that Docker's keys show: that of before as long as it is good, else
/// one that the world can reach.
fn main_of(addrs: &[Addr6], before: Option<Cidr>) -> Option<Cidr> {
    let usable = addrs.iter().filter(|a| a.state.is_usable());
    let is_global = |addr: Cidr| match addr.addr() {
        IpAddr::V6(ip) => ip.segments()[0] & 0xe000 == 0x2000,
        IpAddr::V4(_) => false,
    };
    let rank = |a: &&Addr6| {
        (
            a.state != State6::Preferred,
            Some(a.addr) != before,
            !is_global(a.addr),
        )
    };
    usable.min_by_key(rank).map(|a| a.addr)
}

impl Owned {
    pub(super) fn lan6_ready(&mut self) -> Result<()> {
        let now = Instant::now();
        if let (Some(watch), Some(epoll)) = (&mut self.network.watch6, &self.epoll)
            && std::mem::take(&mut watch.is_registered)
        {
            watch.deaf_until = Some(now + DEAF);
            epoll.remove(&watch.monitor)?;
        }
        let followed = self
            .network
            .follow_lan6(&self.engine, &mut self.record, now);
        self.doubtful |= followed.is_err();
        if matches!(followed, Ok(false)) {
            return Ok(());
        }
        self.network.remember(&mut self.record);
        // Nobody is there to be warned.
        self.network.take_warnings();
        self.note_network()
    }

    /// It may be heard again, or what a router said is over.
    pub(super) fn lan6_on_time(&mut self, now: Instant) -> Result<()> {
        if let Some(watch) = &mut self.network.watch6
            && watch.deaf_until.is_some_and(|until| until <= now)
        {
            watch.deaf_until = None;
        }
        if let Some(epoll) = &self.epoll {
            self.network.register_watch6(epoll)?;
        }
        let named = self
            .network
            .legs
            .iter()
            .filter_map(|leg| leg.named6.deadline());
        match named.min() {
            Some(end) if end <= now => self.lan6_ready(),
            _ => Ok(()),
        }
    }
}
