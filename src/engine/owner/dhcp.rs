//! Leases of one running container: the first one during its start, then what
//! becomes of them.
//!
//! *Theory of operation.* A leg on a DHCP network is attached without an
//! address; [`Network::lease_by_dhcp`] then waits for a lease, in the
//! container's namespace and before its program runs. From then on the client
//! is one of the supervisor's fds. What the server changes is changed live:
//! address, routes, MTU, name servers, and what follows from the address
//! (names, the host's route, published ports). An address that is lost is taken
//! away; the container goes on without, and the client goes on asking.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::SystemTime;

use super::claims::{Standing, Whom};
use super::network::{Leg, Network, not_made};
use super::routing::of_lease;
use super::{DHCP_BASE, Owned};
use crate::base::{Cidr, Error, Family, Journal, PerFamily, Result};
use crate::engine::Engine;
use crate::engine::dhcp::{hostname, identity};
use crate::engine::record::{Dhcp, Record};
use crate::net::Attachment;
use crate::net::dhcp::{Client, Identity, Lease, News, PATIENCE, Phase, Port, Shared};
use crate::net::dhcp6;
use crate::net::dns::Settings;
use crate::net::driver;
use crate::netlink::{Ifindex, Rtnl};
use crate::sys::epoll::Epoll;
use crate::sys::netns::Sandbox;

/// Addresses that a leg had of DHCP servers when its container last ran.
#[derive(Debug)]
pub(in crate::engine) struct Kept {
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
}

/// Of a client: by its interface's index.
const KEYS: u64 = 4;

impl Leg {
    /// The one that its address is from.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.config.dhcp.as_ref()?.lease.as_ref()
    }
}

impl Network {
    /// Who this container is on a leg's network, but for its MAC where that
    /// has been chosen otherwise.
    pub(super) fn identity(&self, leg: &Leg) -> Identity {
        let name = self.name.as_str();
        // A host name that nobody chose is the id's.
        let chosen = Some(self.hostname.as_str()).filter(|h| *h != self.id.short());
        identity(&leg.spec, name, hostname(chosen, name))
    }

    /// Waits for the first lease of an interface that has just been made, and
    /// uses it. On failure the interface is gone again.
    pub(super) fn lease_by_dhcp(
        &mut self,
        engine: &Engine,
        at: usize,
        attachment: Attachment,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let made = self.first_lease(engine, at, &attachment).and_then(|lease| {
            self.legs[at].attachment = Some(attachment.clone());
            self.use_lease(engine, at, lease, journal)
        });
        let Err(error) = made else {
            return Ok(());
        };
        // The container may go on running without this network.
        let with_address = self.legs[at].attachment.take();
        self.legs[at].client = None;
        let detached = match &mut self.sandbox {
            Some(sandbox) => driver::detach(&attachment, sandbox, &mut self.guard),
            None => Ok(()),
        };
        let route = with_address.map_or(Ok(()), |a| self.drop_route(&a));
        let undone = [detached, route].into_iter().filter_map(Result::err);
        Err(error.with_undo(undone.collect()))
    }

    /// Where the client of an interface asks.
    fn port(&mut self, attachment: &Attachment) -> Result<Port> {
        let shared = match attachment.mode.is_ipvlan() {
            true => Some(Shared {
                parent: attachment.parent_index,
                addrs: self.addrs_of_host()?,
            }),
            false => None,
        };
        Ok(Port {
            netns: self.netns.as_ref().ok_or_else(not_made)?.try_clone()?,
            ifindex: attachment.ifindex,
            ifname: attachment.ifname.clone(),
            mac: attachment.mac,
            shared,
        })
    }

    fn addrs_of_host(&mut self) -> Result<Vec<Ipv4Addr>> {
        let all = self.host.addrs(None)?;
        let of_ipv4 = all.iter().filter_map(|a| match a.cidr.addr() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        });
        Ok(of_ipv4.collect())
    }

    fn first_lease(
        &mut self,
        engine: &Engine,
        at: usize,
        attachment: &Attachment,
    ) -> Result<Lease> {
        let port = self.port(attachment)?;
        let leg = &self.legs[at];
        let mut identity = self.identity(leg);
        identity.mac = attachment.mac;
        let before = leg.config.dhcp.as_ref().filter(|d| d.identity == identity);
        let before = before.and_then(|dhcp| dhcp.lease.clone());
        let wanted = match leg.config.request.ips.of(Family::Ipv4) {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        };
        let mut client = Client::start(
            port,
            identity.clone(),
            wanted,
            before,
            remembered(engine, &identity),
        )?;
        let lease = client.wait(PATIENCE).map_err(|error| {
            let hint = format!(
                "network {} asks the DHCP server behind {}: `dockless doctor {}` looks for it",
                leg.spec.name, attachment.parent, attachment.parent
            );
            if error.hint.is_some() {
                error
            } else {
                error.hint(hint)
            }
        })?;
        if let Some(clash) = self.overlapping(lease.addr) {
            return Err(Error::conflict(format!(
                "cannot program address {} in sandbox interface because it conflicts with existing route {clash}",
                lease.addr
            ))
            .hint("two of its networks are the same LAN"));
        }
        let leg = &mut self.legs[at];
        leg.config.dhcp = Some(Dhcp {
            identity,
            phase: client.phase(),
            lease: None,
            error: None,
        });
        if let Some(trouble) = client.take_trouble() {
            self.warnings
                .push(format!("network {}: {trouble}", leg.spec.name));
            leg.note_trouble(trouble);
        }
        leg.client = Some(client);
        Ok(lease)
    }

    /// A new client for a link that was made again: the address stays in use
    /// while it asks for it.
    pub(super) fn ask_again(&mut self, engine: &Engine, at: usize) -> Result<()> {
        let index = self.index_of(at)?;
        let Some(attachment) = self.legs[at].attachment.clone() else {
            return Ok(());
        };
        let port = self.port(&attachment)?;
        let leg = &mut self.legs[at];
        let Some(dhcp) = &mut leg.config.dhcp else {
            return Ok(());
        };
        // Where it is its parent's, it may be another one's now.
        dhcp.identity.mac = attachment.mac;
        let identity = dhcp.identity.clone();
        let wanted = match leg.config.request.ips.of(Family::Ipv4) {
            Some(IpAddr::V4(ip)) => Some(ip),
            _ => None,
        };
        let lease = dhcp.lease.clone();
        let hint = remembered(engine, &identity);
        let client = Client::start(port, identity, wanted, lease.clone(), hint)?;
        self.legs[at].client = Some(client);
        match lease {
            Some(lease) => self.use_routes(at, index, &lease),
            None => Ok(()),
        }
    }

    /// What a lease says of an interface, but for the address.
    fn use_routes(&mut self, at: usize, index: Ifindex<Sandbox>, lease: &Lease) -> Result<()> {
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        if let (Some(mtu), None) = (lease.mtu, self.legs[at].spec.vlan().and_then(|v| v.mtu)) {
            // More than the parent can: the parent's it stays.
            if let Err(error) = sandbox.set_mtu(index, u32::from(mtu)) {
                self.legs[at].note_trouble(error.to_string());
            }
        }
        if !self.legs[at].spec.is_internal() {
            for error in routed(sandbox, index, lease) {
                self.legs[at].note_trouble(error.to_string());
            }
        }
        Ok(())
    }

    pub(super) fn index_of(&mut self, at: usize) -> Result<Ifindex<Sandbox>> {
        let name = self.legs[at].attachment.as_ref().map(|a| a.ifname.clone());
        let name = name.ok_or_else(not_made)?;
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        let link = sandbox.link(name.as_str())?;
        link.map(|link| link.index)
            .ok_or_else(|| Error::not_found(format!("interface {name} is gone")))
    }

    /// Address, MTU, routes, and what leads to the address from elsewhere.
    fn use_lease(
        &mut self,
        engine: &Engine,
        at: usize,
        lease: Lease,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let names = self.names_on(&self.legs[at].config);
        engine.note_lease(&self.legs[at].spec, lease.ip().into(), &self.id, &names)?;
        let index = self.index_of(at)?;
        let before = self.default_legs();
        // The lease's file goes with the address, from here on.
        self.legs[at].addrs.put(lease.addr);
        self.guard_follows(at)?;
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        sandbox.add_addr(index, lease.addr)?;
        self.use_routes(at, index, &lease)?;
        let gateway = lease.gateway().map(IpAddr::V4);
        let addr = lease.addr;
        let leg = &mut self.legs[at];
        if let Some(dhcp) = &mut leg.config.dhcp {
            dhcp.lease = Some(lease);
            dhcp.phase = Phase::Bound;
        }
        if let Some(attachment) = &mut leg.attachment {
            attachment.addrs.put(addr);
            gateway.map(|gateway| attachment.gateways.put(gateway));
        }
        let (attachment, spec) = (leg.attachment.clone(), leg.spec.clone());
        let after = self.default_legs();
        let moved = PerFamily::each(|family| {
            let before = before.of(family);
            before.filter(|_| before != after.of(family))
        });
        self.move_default(&moved, &after)?;
        self.route()?;
        if let Some(attachment) = attachment {
            engine.let_host_in(&mut self.host, &attachment, journal)?;
            // Nobody else has it: the client has asked before it took the lease.
            let parent = Some(attachment.parent_index);
            self.legs[at].claim = self.held_claim(at, &attachment, parent)?;
            self.legs[at].standing = Standing::Announced;
            self.announce(&attachment, &spec, Whom::All)?;
        }
        Ok(())
    }

    /// The address is another's now, or nobody's.
    fn drop_lease(&mut self, engine: &Engine, at: usize, record: &Record) -> Result<()> {
        let Some(addr) = self.legs[at].addrs.take(Family::Ipv4) else {
            return Ok(());
        };
        self.legs[at].say_goodbye();
        let index = self.index_of(at)?;
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        // With its last address an interface loses its routes.
        let mut errors: Vec<Error> = sandbox.del_addr(index, addr).err().into_iter().collect();
        errors.extend(self.guard_follows(at).err());
        let leg = &mut self.legs[at];
        leg.claim = None;
        if let Some(dhcp) = &mut leg.config.dhcp {
            dhcp.lease = None;
        }
        let before = leg.attachment.clone();
        if let Some(attachment) = &mut leg.attachment {
            attachment.addrs.take(Family::Ipv4);
            attachment.gateways.take(Family::Ipv4);
            let ifname = attachment.ifname.clone();
            self.pending.retain(|p| p.ifname != ifname);
        }
        errors.extend(before.and_then(|a| self.drop_route(&a).err()));
        self.routed.forget_ipv4_of(index.get());
        errors.extend(self.route().err());
        errors.extend(engine.release(&self.legs[at].spec, addr).err());
        errors.extend(engine.remove_host_line(record, addr).err());
        errors.extend(
            self.move_default(&PerFamily::NONE, &self.default_legs())
                .err(),
        );
        match errors.pop() {
            Some(error) => Err(error.with_undo(errors)),
            None => Ok(()),
        }
    }

    /// /etc as the leases have it, before the program runs.
    pub(in crate::engine) fn introduce(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        names: Settings,
    ) -> Result<Settings> {
        let by_dhcp = self.legs.iter().filter(|leg| leg.spec.is_dhcp());
        let by_dhcp6 = self.legs.iter().filter(|leg| leg.client6.is_some());
        let addrs = by_dhcp.filter_map(|leg| leg.addrs.ipv4());
        let addrs: Vec<Cidr> = addrs
            .chain(by_dhcp6.filter_map(|leg| leg.addrs.ipv6()))
            .collect();
        if addrs.is_empty() {
            return Ok(names);
        }
        for addr in addrs {
            let warning = engine.add_host_line(record, addr)?;
            self.warnings.extend(warning);
        }
        engine.point_to_resolver(record)
    }

    /// The leases of a running container name other servers than before.
    pub(super) fn name_servers_of_leases(
        &mut self,
        engine: &Engine,
        record: &mut Record,
    ) -> Result<()> {
        self.remember(record);
        if let (true, Some(names)) = (self.legs.iter().any(Leg::is_by_name), &mut self.names) {
            names
                .resolver
                .set_settings(engine.point_to_resolver(record)?);
        }
        Ok(())
    }

    pub(super) fn register_dhcp(&mut self, epoll: &Epoll) -> Result<()> {
        for leg in &mut self.legs {
            if let (Some(client), Some(attachment)) = (&mut leg.client, &leg.attachment)
                && !client.is_registered()
            {
                client.register(epoll, DHCP_BASE + KEYS * u64::from(attachment.ifindex))?;
            }
        }
        Ok(())
    }

    /// With the container they go back to their servers; what cannot be said
    /// runs out.
    pub(super) fn give_leases_back(&self, engine: &Engine) {
        for leg in &self.legs {
            leg.give_lease_back(engine);
            leg.give_lease6_back(engine);
        }
    }

    /// What the record has, leg by leg, and still has if the start fails.
    pub(in crate::engine) fn kept_leases(&self) -> Vec<Kept> {
        let kept = |leg: &Leg| Kept {
            ipv4: leg.lease().map(Lease::ip),
            ipv6: leg.lease6().map(dhcp6::Lease::ip),
        };
        self.legs.iter().map(kept).collect()
    }

    /// The start has failed, and no record knows of these.
    pub(in crate::engine) fn give_new_leases_back(&self, engine: &Engine, kept: &[Kept]) {
        for (leg, kept) in self.legs.iter().zip(kept) {
            if leg.lease().map(Lease::ip) != kept.ipv4 {
                leg.give_lease_back(engine);
            }
            if leg.lease6().map(dhcp6::Lease::ip) != kept.ipv6 {
                leg.give_lease6_back(engine);
            }
        }
    }

    /// Does what the server of one leg has said. Whether anything has changed
    /// that the record tells.
    fn follow_lease(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        at: usize,
        journal: &mut dyn Journal,
    ) -> Result<bool> {
        let mut changed = false;
        loop {
            let leg = &mut self.legs[at];
            let Some(client) = &mut leg.client else {
                return Ok(changed);
            };
            let (phase, trouble, news) =
                (client.phase(), client.take_trouble(), client.take_news());
            if let Some(dhcp) = &mut leg.config.dhcp
                && dhcp.phase != phase
            {
                dhcp.phase = phase;
                changed = true;
            }
            if let Some(trouble) = trouble {
                leg.note_trouble(trouble);
                changed = true;
            }
            let same = |lease: &Lease| {
                let parts = |l: &Lease| (l.addr, l.routes.clone(), l.mtu);
                leg.addrs.ipv4().is_some() && leg.lease().is_some_and(|l| parts(l) == parts(lease))
            };
            match news {
                None => return Ok(changed),
                Some(News::Lost) => {
                    changed = true;
                    self.drop_lease(engine, at, record)?;
                }
                Some(News::Has(lease)) if same(&lease) => {
                    changed = true;
                    let named = |l: &Lease| (l.dns.clone(), l.search.clone());
                    let other = leg.lease().is_some_and(|l| named(l) != named(&lease));
                    if let Some(dhcp) = &mut leg.config.dhcp {
                        dhcp.lease = Some(lease);
                    }
                    if other {
                        self.name_servers_of_leases(engine, record)?;
                    }
                }
                Some(News::Has(lease)) => {
                    changed = true;
                    // Routes of before go with the address.
                    self.drop_lease(engine, at, record)?;
                    let addr = lease.addr;
                    self.use_lease(engine, at, lease, journal)?;
                    self.warnings.extend(engine.add_host_line(record, addr)?);
                    self.name_servers_of_leases(engine, record)?;
                    self.follow_networks();
                    self.republish(engine, record, journal)?;
                }
            }
        }
    }
}

fn remembered(engine: &Engine, identity: &Identity) -> Option<Ipv4Addr> {
    match engine.remembered_address(identity, Family::Ipv4)? {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// All routes of a lease but the default one. What the kernel refuses is left
/// out, and told: one route that makes no sense is no reason to have none.
fn routed(sandbox: &mut Rtnl<Sandbox>, index: Ifindex<Sandbox>, lease: &Lease) -> Vec<Error> {
    let (near, far) = of_lease(lease);
    let mut outcomes = Vec::new();
    // Others may lead through them.
    for dst in near {
        outcomes.push(sandbox.add_link_route(dst, index, None));
    }
    for (dst, via) in far {
        outcomes.push(sandbox.add_route_via(dst, via, index));
    }
    outcomes.into_iter().filter_map(Result::err).collect()
}

impl Leg {
    /// While the interface is there.
    pub(super) fn give_lease_back(&self, engine: &Engine) {
        if let (Some(client), Some(lease)) = (&self.client, self.lease()) {
            let _ = engine.remember_address(client.identity(), lease.ip().into());
            let _ = client.release();
        }
    }

    pub(super) fn note_trouble(&mut self, trouble: String) {
        if let Some(dhcp) = &mut self.config.dhcp {
            dhcp.error = Some((crate::engine::rfc3339(SystemTime::now()), trouble));
        }
    }
}

impl Owned {
    pub(super) fn dhcp_ready(&mut self, key: u64) -> Result<()> {
        let ifindex = key / KEYS;
        let is_its = |leg: &Leg| {
            let attachment = leg.attachment.as_ref();
            attachment.is_some_and(|a| u64::from(a.ifindex) == ifindex)
        };
        let Some(at) = self.network.legs.iter().position(is_its) else {
            return Ok(());
        };
        if let Some(client) = &mut self.network.legs[at].client {
            // What went wrong is its trouble, which is noted below.
            let _ = client.ready();
        }
        let (engine, record, journal) = (&self.engine, &mut self.record, &mut self.journal);
        let followed = self.network.follow_lease(engine, record, at, journal);
        if let Err(error) = &followed {
            self.network.legs[at].note_trouble(error.to_string());
            self.doubtful = true;
        }
        if matches!(followed, Ok(false)) {
            return Ok(());
        }
        self.network.remember(&mut self.record);
        // Nobody is there to be warned.
        self.network.take_warnings();
        self.note_network()
    }
}
