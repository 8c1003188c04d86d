//! `network create|ls|inspect|rm|prune`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::access::wanted_access;
use super::names::list;
use super::record::Record;
use super::{Engine, Listing, NetworkCreate, NetworkMade, PoolRequest, events};
use crate::base::{
    Cidr, ContainerId, Error, Family, IfName, NetworkId, NetworkName, OfFamily, Result,
};
use crate::net::ipam::{self, Pool};
use crate::net::parent::{self, Wish};
use crate::net::routing::fixed;
use crate::net::spec::{self, Announce, Driver, LinkOptions, NetworkSpec, Vlan};
use crate::net::{choice, host_access, plain};
use crate::netlink::Rtnl;
use crate::store::file::{self, Durability};
use crate::sys::netns::Host;
use crate::sys::random;

impl Engine {
    /// Those in files: without `host` and `none`.
    pub(super) fn stored_networks(&self) -> Result<Listing<NetworkSpec>> {
        let mut networks = Listing::default();
        for id in self.network_ids()? {
            networks.add(self.load_network(&id));
        }
        Ok(networks)
    }

    /// Of every file, readable or not.
    fn network_ids(&self) -> Result<Vec<NetworkId>> {
        let names = list(&self.dirs.root().join("networks"))?;
        let id = |name: &String| NetworkId::new(name.strip_suffix(".json")?).ok();
        Ok(names.iter().filter_map(id).collect())
    }

    /// `None`: there is no such network.
    pub(super) fn load_network(&self, id: &NetworkId) -> Result<Option<NetworkSpec>> {
        let path = self.dirs.network(id);
        let found: Option<NetworkSpec> = file::find_json(&path)?;
        match found {
            Some(network) if network.id != *id => {
                let why = format!("it is the file of network {}", network.id);
                Err(file::damaged(&path, why))
            }
            Some(network) => match ipam::validate(&network.pools) {
                Ok(()) => Ok(Some(network)),
                Err(why) => Err(file::damaged(&path, why)),
            },
            None => Ok(None),
        }
    }

    pub(super) fn all_networks(&self) -> Result<Listing<NetworkSpec>> {
        let mut networks = self.stored_networks()?;
        networks.items.extend(plain::networks()?);
        networks.items.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(networks)
    }

    /// Full id, then name, then a prefix of one id only.
    pub(super) fn find_network(&self, wanted: &str) -> Result<NetworkSpec> {
        if let Ok(id) = NetworkId::new(wanted)
            && let Some(network) = self.load_network(&id)?
        {
            return Ok(network);
        }
        let Listing {
            items: networks,
            problems,
        } = self.all_networks()?;
        if let Some(network) = networks
            .iter()
            .find(|n| n.id.as_str() == wanted || n.name.as_str() == wanted)
        {
            return Ok(network.clone());
        }
        let hits: Vec<&NetworkSpec> = networks
            .iter()
            .filter(|n| !wanted.is_empty() && n.id.as_str().starts_with(wanted))
            .collect();
        match hits.as_slice() {
            [one] => Ok((*one).clone()),
            [] => {
                let error = Error::not_found(format!("network {wanted} not found"));
                Err(match problems.first() {
                    Some(problem) => error.hint(format!("unless it is the one in: {problem}")),
                    None => error,
                })
            }
            many => Err(Error::invalid(format!(
                "network {wanted} is ambiguous ({} matches found based on ID prefix)",
                many.len()
            ))),
        }
    }

    pub(super) fn create_network(&self, request: NetworkCreate) -> Result<NetworkMade> {
        let name = NetworkName::new(request.name.clone())?;
        if plain::PREDEFINED.contains(&name.as_str()) {
            return Err(Error::invalid(format!(
                "operation is not permitted on predefined {name} network"
            )));
        }
        let Some(link) = LinkOptions::new(&request.driver, &request.options)? else {
            return Err(
                Error::not_found(format!("plugin \"{}\" not found", request.driver)).hint(
                    "dockless makes macvlan and ipvlan networks: -d macvlan -o parent=IFNAME",
                ),
            );
        };
        let Some(ipam) = spec::Ipam::new(&request.ipam_driver) else {
            return Err(
                Error::not_found(format!("plugin \"{}\" not found", request.ipam_driver))
                    .hint("the IPAM drivers are \"default\" and \"dhcp\""),
            );
        };
        let (ipv4, ipv6) = spec::families(&request.options, request.ipv4, request.ipv6)?;
        check_subnets(&request.pools, ipv4, ipv6)?;
        let wish = Wish::from_options(link.mode, &request.options)?;
        let announce = Announce::from_options(&request.options)?;
        let guard = spec::Guard::from_options(&request.options)?;
        let source_routing = spec::SourceRouting::from_options(&request.options)?;
        self.prepare()?;
        // One network is made at a time: name, pool and parent are checked
        // against those that exist.
        let _lock = self.network_lock()?;
        let others = self.stored_networks()?.whole()?;
        if others.iter().any(|n| n.name == name) {
            return Err(Error::conflict(format!(
                "network with name {name} already exists"
            )));
        }
        let mut host = Rtnl::host()?;
        let id = NetworkId::from_bytes(random::bytes()?);
        let view = choice::View::of(&mut host, wish.choice())?;
        let (parent, made) = wish.plan(&id, &view)?;
        let vlan = Vlan {
            first_parent: wish.is_followed(&view).then(|| parent.clone()),
            parent,
            made,
            mode: link.mode,
            sources: link.sources,
            mtu: link.mtu,
            broadcast: link.broadcast,
        };
        if ipam == spec::Ipam::Dhcp {
            super::dhcp::check_network(&request, &vlan, ipv4, ipv6)?;
        }
        let mut wanted = request.pools;
        for (family, on) in [(Family::Ipv4, ipv4), (Family::Ipv6, ipv6)] {
            let is_given = wanted.iter().any(|pool| pool.family() == family);
            if on && !is_given && ipam == spec::Ipam::Default {
                wanted.push(PoolRequest::any(family));
            }
        }
        // In the order given, IPv4 first, as `inspect` shows them.
        wanted.sort_by_key(PoolRequest::family);
        let own = lowers(&vlan, &request.options, &view);
        let neighbours = beside(&vlan, &own, &others, &view);
        let pools = self.pools(&wanted, &vlan, &others, &neighbours, &mut host)?;
        check_parent(&vlan, &own, &others, &view)?;
        let made = vlan.made.clone();
        let network = NetworkSpec {
            id,
            name,
            created: super::rfc3339(SystemTime::now()),
            driver: Driver::Vlan(vlan),
            options: request.options,
            pools,
            internal: request.internal,
            attachable: request.attachable,
            ipv4,
            ipv6,
            labels: request.labels,
            ipam_options: request.ipam_options,
            announce,
            host_access: spec::HostAccess::Off,
            ipam,
            guard,
            routes: request.routes,
            source_routing,
        };
        fixed::validate(&network)?;
        let access = wanted_access(&network, request.host_access)?;
        let addresses = self.address_lock()?;
        self.check_access(&network, access, &mut host)?;
        self.record_parents(&made)?;
        let outcome = parent::make(&mut host, &made).and_then(|()| match access {
            // In one step: killed in between, it would have none.
            spec::HostAccess::On { .. } => self.set_access(network.clone(), access, &mut host),
            spec::HostAccess::Off => self.save_network(&network).map(|()| Vec::new()),
        });
        let mut undo = Vec::new();
        if outcome.is_err() {
            // Also a file that is there, but could not be synced.
            undo.extend(file::remove_replaced(&self.dirs.network(&network.id)).err());
        }
        // With the network's file there is nothing to undo.
        undo.extend(self.rewind_networks(Some(&addresses)));
        if outcome.is_ok() {
            self.note(&[events::of_network(&network, "create", None)]);
        }
        match outcome {
            Ok(warnings) => Ok(NetworkMade {
                id: network.id,
                warnings,
            }),
            Err(error) => Err(error.with_undo(undo)),
        }
    }

    pub(super) fn save_network(&self, network: &NetworkSpec) -> Result<()> {
        file::write_json(&self.dirs.network(&network.id), network, Durability::Disk)
    }

    fn pools(
        &self,
        requests: &[PoolRequest],
        vlan: &Vlan,
        others: &[NetworkSpec],
        beside: &[&Pool],
        host: &mut Rtnl<Host>,
    ) -> Result<Vec<Pool>> {
        let mut pools = Vec::new();
        for request in requests {
            let subnet = match request.subnet {
                subnet if !subnet.addr().is_unspecified() => subnet,
                any => {
                    let all = others.iter().flat_map(|n| &n.pools);
                    let mut avoid: Vec<Cidr> = all.map(|p| p.subnet).collect();
                    avoid.extend(pools.iter().map(|p: &Pool| p.subnet));
                    avoid.extend(in_use_on_host(host)?);
                    let blocks = match any.family() {
                        Family::Ipv4 => ipam::predefined()?,
                        Family::Ipv6 => vec![ipam::unique_local(global_id()?)?],
                    };
                    let size = Some(any.prefix()).filter(|prefix| *prefix > 0);
                    ipam::automatic(&blocks, &avoid, size)?
                }
            };
            pools.push(Pool {
                subnet,
                ip_range: request.ip_range,
                gateway: request.gateway,
                aux: request.aux.clone(),
            });
        }
        ipam::validate(&pools)?;
        for pool in &pools {
            ipam::check_overlap(pool, beside)?;
            self.check_shared(pool, vlan.segment(), beside)?;
        }
        Ok(pools)
    }

    /// Networks on one subnet share its addresses: a gateway or auxiliary
    /// address must be nobody else's.
    fn check_shared(&self, new: &Pool, segment: &str, others: &[&Pool]) -> Result<()> {
        let _lock = self.address_lock()?;
        let leased = self.leased(segment, new.subnet)?;
        ipam::reservable(new, &|ip| {
            let reserved = |o: &&Pool| o.subnet == new.subnet && ipam::is_reserved(o, ip);
            leased.contains(&ip) || others.iter().any(reserved)
        })
    }

    /// Containers that run on it. One that is starting holds a lease only.
    fn endpoints_of(&self, network: &NetworkId) -> Result<Vec<Record>> {
        let mut records = self.records()?.items;
        records.retain(|r| {
            r.state.status.is_live() && r.state.attachments.iter().any(|a| a.network == *network)
        });
        Ok(records)
    }

    /// By id, name or prefix; one whose file is damaged by id or prefix.
    pub(super) fn remove_network_of(&self, wanted: &str) -> Result<()> {
        let error = match self.find_network(wanted) {
            Ok(network) => return self.remove_network(&network),
            Err(error) => error,
        };
        let mut damaged = self.network_ids()?;
        damaged.retain(|id| {
            !wanted.is_empty() && id.as_str().starts_with(wanted) && self.load_network(id).is_err()
        });
        match damaged.as_slice() {
            [id] => self.take_network_away(id, id.short()),
            _ => Err(error),
        }
    }

    pub(super) fn remove_network(&self, network: &NetworkSpec) -> Result<()> {
        if network.vlan().is_none() {
            return Err(Error::invalid(format!(
                "{} is a pre-defined network and cannot be removed",
                network.name
            )));
        }
        self.take_network_away(&network.id, network.name.as_str())
    }

    fn take_network_away(&self, network: &NetworkId, name: &str) -> Result<()> {
        self.sweep()?;
        let _changes = self.network_lock()?;
        let addresses = self.address_lock()?;
        let users = self.endpoints_of(network)?;
        let leases = self.leases_of(network)?;
        let starting: Vec<ContainerId> = leases.into_iter().map(|(id, _)| id).collect();
        if !users.is_empty() || !starting.is_empty() {
            let mut names: Vec<String> = users
                .iter()
                .map(|r| format!("(name:\"{}\" id:\"{}\")", r.name, r.id.short()))
                .collect();
            names.extend(
                starting
                    .iter()
                    .filter(|id| !users.iter().any(|r| r.id == **id))
                    .map(|id| format!("(starting, id:\"{}\")", id.short())),
            );
            return Err(Error::conflict(format!(
                "error while removing network: network {name} has active endpoints {}",
                names.join(" ")
            ))
            .hint("disconnect or remove them first"));
        }
        let spec = match self.load_network(network) {
            Ok(None) => return Err(Error::not_found(format!("network {name} not found"))),
            Ok(spec) => spec,
            Err(_) => None,
        };
        let is_off = |spec: &NetworkSpec| spec.host_access == spec::HostAccess::Off;
        // Whatever the record says: nobody could find the link afterwards.
        match host_access::disable(&mut Rtnl::host()?, network) {
            // Who may not make such a link has none.
            Err(e) if spec.as_ref().is_some_and(is_off) && e.is_errno(libc::EPERM) => {}
            done => done?,
        }
        if let Some(vlan) = spec.as_ref().and_then(NetworkSpec::vlan) {
            self.record_parents(&vlan.made)?;
        }
        file::remove_replaced(&self.dirs.network(network))?;
        self.unreserve_network(network)?;
        if let Some(spec) = &spec {
            if spec.is_dhcp() {
                self.forget_addresses(spec);
            }
            self.note(&[events::of_network(spec, "destroy", None)]);
        }
        // The network is gone; a parent that stays is the next command's.
        let _ = self.rewind_networks(Some(&addresses));
        Ok(())
    }
}

/// No subnet is ignored: one of a family that the network does not have would
/// give no container an address.
fn check_subnets(pools: &[PoolRequest], ipv4: bool, ipv6: bool) -> Result<()> {
    for pool in pools {
        let (on, way) = match pool.family() {
            Family::Ipv4 => (ipv4, "leave --ipv4=false out, or that --subnet"),
            Family::Ipv6 => (ipv6, "add --ipv6, or leave that --subnet out"),
        };
        if !on {
            return Err(Error::invalid(format!(
                "subnet {} would give no container an address: the network has no {}",
                pool.subnet,
                pool.family()
            ))
            .hint(way));
        }
    }
    Ok(())
}

/// The Global ID of this machine's unique local addresses: the low 40 bits of
/// a hash, as Docker makes it of its engine's id. A network keeps what it got,
/// so a machine without an id may get another each time.
fn global_id() -> Result<[u8; 5]> {
    let id = match std::fs::read("/etc/machine-id") {
        Ok(id) if !id.trim_ascii().is_empty() => id,
        _ => return random::bytes(),
    };
    let hash = Sha256::digest([b"dockless ", id.trim_ascii()].concat());
    let low = hash.last_chunk::<5>().copied();
    low.map_or_else(random::bytes, Ok)
}

/// The pools of the networks that share a parent with `vlan`, or have none
/// like it: the only ones that theirs may not overlap.
fn beside<'a>(
    vlan: &Vlan,
    own: &[IfName],
    others: &'a [NetworkSpec],
    view: &choice::View,
) -> Vec<&'a Pool> {
    let is_beside =
        |other: &NetworkSpec, theirs: &Vlan| match (vlan.is_isolated(), theirs.is_isolated()) {
            (true, true) => true,
            (false, false) => shared(own, theirs, other, view).is_some(),
            _ => false,
        };
    others
        .iter()
        .filter(|other| other.vlan().is_some_and(|theirs| is_beside(other, theirs)))
        .flat_map(|other| &other.pools)
        .collect()
}

/// Every link that may be the network's parent, by the kernel's name.
fn lowers(vlan: &Vlan, options: &BTreeMap<String, String>, view: &choice::View) -> Vec<IfName> {
    let mut all = vec![parent::known_as(view, &vlan.parent).clone()];
    if vlan.is_followed()
        && vlan.made.is_empty()
        && let Ok(wish) = Wish::from_options(vlan.mode, options)
        && let Some(choice) = wish.choice()
    {
        all.extend(choice.links(view).into_iter().cloned());
    }
    all
}

/// A link that may be the parent of both.
fn shared(
    own: &[IfName],
    theirs: &Vlan,
    other: &NetworkSpec,
    view: &choice::View,
) -> Option<IfName> {
    let theirs = lowers(theirs, &other.options, view);
    theirs.into_iter().find(|lower| own.contains(lower))
}

/// Who may share a parent: macvlans but for passthru; ipvlan networks never,
/// since mode and flag are the parent's.
fn check_parent(
    vlan: &Vlan,
    own: &[IfName],
    others: &[NetworkSpec],
    view: &choice::View,
) -> Result<()> {
    for other in others {
        let same_kind = |theirs: &&Vlan| theirs.mode.kind() == vlan.mode.kind();
        let Some(theirs) = other.vlan().filter(same_kind) else {
            continue;
        };
        let Some(parent) = shared(own, theirs, other, view) else {
            continue;
        };
        let id = other.id.short();
        let text = if vlan.mode.is_ipvlan() {
            format!("network di-{id} is already using parent interface {parent}")
        } else if vlan.mode.is_passthru() {
            format!(
                "cannot use mode passthru, macvlan network {id} is already using parent interface {parent}"
            )
        } else if theirs.mode.is_passthru() {
            format!(
                "macvlan network {id} is already using parent interface {parent} in mode passthru"
            )
        } else {
            continue;
        };
        return Err(Error::conflict(text).hint(format!("that is network {}", other.name)));
    }
    Ok(())
}

/// What an automatic pool must keep away from: the host's on-link routes and
/// its name servers.
fn in_use_on_host(host: &mut Rtnl<Host>) -> Result<Vec<Cidr>> {
    let mut used: Vec<Cidr> = host
        .routes()?
        .into_iter()
        .filter(|r| r.gateway.is_none())
        .filter_map(|r| r.dst)
        .collect();
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    for line in resolv.lines() {
        if let Some(server) = line.trim().strip_prefix("nameserver")
            && let Ok(ip) = server.trim().parse::<IpAddr>()
        {
            used.push(Cidr::new(ip, ip.family().width())?);
        }
    }
    Ok(used)
}
