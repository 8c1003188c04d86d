//! Address leases: files `<state>/leases/<subnet>@<parent>,<address>` (without
//! the parent where there is none), each naming the container and network that
//! hold it and, a line each, what the container is called there (see
//! `roster`). They die with the boot. A lease needs no
//! journal: it says itself whose it is, so recovery takes those of the dead
//! container, and never one that somebody else has got since. All choices are made
//! under one lock, so two commands never get the same address; that of a
//! host-side link too (see `access`). There is no folder per subnet: removing the
//! last lease would have to remove it, and race with the next. What is free is
//! looked up in an `index`.

mod choice;

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use super::Engine;
use super::index::{self, Folder, Index, LEASED, RESERVED};
use super::names::list;
use crate::base::{Cidr, ContainerId, Error, Family, NetworkId, OfFamily, Result};
use crate::net::ipam::{self, Pool};
use crate::net::spec::NetworkSpec;
use crate::store::Lock;
use crate::store::file::{self, Durability};
use choice::{Choice, Held, host_side};
pub(super) use choice::{Wish, is_neighbours};

/// What a lease says.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) container: ContainerId,
    pub(super) network: NetworkId,
    pub(super) names: Vec<String>,
}

impl Lease {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let (container, network) = lines.next()?.split_once(' ')?;
        Some(Self {
            container: ContainerId::new(container).ok()?,
            network: NetworkId::new(network).ok()?,
            names: lines.map(str::to_owned).collect(),
        })
    }

    pub(super) fn text(container: &ContainerId, network: &NetworkId, names: &[String]) -> String {
        let mut text = format!("{container} {network}\n");
        // An alias may be anything; what is no line can be no name.
        let is_line = |name: &&String| !name.is_empty() && !name.contains(char::is_control);
        for name in names.iter().filter(is_line) {
            text.push_str(name);
            text.push('\n');
        }
        text
    }
}

/// `10.0.2.0_24@eth0,`: what the names of a subnet's leases begin with. What
/// follows is an address, whatever the parent's name has in it.
fn prefix(segment: &str, subnet: Cidr) -> String {
    let subnet = subnet.to_string().replace('/', "_");
    match segment {
        "" => format!("{subnet},"),
        parent => format!("{subnet}@{parent},"),
    }
}

/// The same of a network, for an address of one of its subnets. Where the LAN
/// gives them out (DHCP, SLAAC), the subnet may be another tomorrow:
/// `dhcp@eth0,`.
fn prefix_of(network: &NetworkSpec, subnet: Cidr) -> String {
    if network.is_dhcp() || !network.has(subnet.family()) {
        prefix_of_lan(network.segment())
    } else {
        prefix(network.segment(), subnet)
    }
}

fn lease_name(network: &NetworkSpec, addr: Cidr) -> String {
    format!("{}{}", prefix_of(network, addr.network()), addr.addr())
}

fn prefix_of_lan(segment: &str) -> String {
    format!("dhcp@{segment},")
}

/// The addresses of the leases whose names begin so.
fn named(leases: &[String], prefix: &str) -> HashSet<IpAddr> {
    let names = leases.iter();
    names
        .filter_map(|name| name.strip_prefix(prefix)?.parse().ok())
        .collect()
}

/// The address in the name of a lease.
fn address(name: &str) -> Option<IpAddr> {
    index::split(name).map(|(_, ip)| ip)
}

impl Engine {
    pub(super) fn lease_folder(&self) -> PathBuf {
        self.dirs.state().join("leases")
    }

    pub(super) fn lease_path(&self, network: &NetworkSpec, subnet: Cidr, ip: IpAddr) -> PathBuf {
        let name = format!("{}{ip}", prefix_of(network, subnet));
        self.lease_folder().join(name)
    }

    /// The lock under which addresses are chosen and networks removed.
    pub(super) fn address_lock(&self) -> Result<Lock> {
        Lock::acquire(&self.lease_folder().join(".lock"))
    }

    /// Leases an address of `network` to a container that goes by `names`
    /// there. Those of `others`, the host's and those that others on the LAN
    /// have, are given to who asks for one, else only when no other is left
    /// (Docker hands them out like any other).
    pub(super) fn lease(
        &self,
        network: &NetworkSpec,
        family: Family,
        wish: Wish,
        container: &ContainerId,
        names: &[String],
        others: &HashSet<IpAddr>,
    ) -> Result<(IpAddr, Cidr)> {
        let lock = self.address_lock()?;
        // `network rm` and `host-access` hold the same lock: the network is
        // there, and stays until they can see this lease; and its host-side
        // link may have got an address since the caller read of it.
        let network = &self
            .load_network(&network.id)?
            .ok_or_else(|| Error::not_found(format!("network {} not found", network.name)))?;
        let neighbours = &self.neighbours(network)?;
        let choice = Choice {
            network,
            neighbours,
            family,
            wish,
            others,
        };
        let mut index = self.index(&lock)?;
        let by_index = choice.make(&self.held_by_index(&index, &choice, container));
        let is_free = |ip, subnet| !self.lease_path(network, subnet, ip).exists();
        let (ip, subnet) = match by_index {
            Some((ip, subnet)) if choice.is_as_wished(ip) && is_free(ip, subnet) => (ip, subnet),
            // The index may say more than is true.
            _ => self.choose_by_files(&choice, container)?,
        };
        let prefix = prefix(network.segment(), subnet);
        index.enter(&prefix, ip, LEASED);
        let path = self.lease_path(network, subnet, ip);
        let text = Lease::text(container, &network.id, names);
        file::replace(&path, text.as_bytes(), Durability::Boot)?;
        self.confirm(index, Folder::Leases);
        Ok((ip, Cidr::new(ip, subnet.prefix())?))
    }

    /// What cannot be had, by the index.
    fn held_by_index(
        &self,
        index: &Index<'_>,
        choice: &Choice<'_>,
        container: &ContainerId,
    ) -> Held {
        let segment = choice.network.segment();
        // Given by the LAN to containers on the same parent.
        let leased = index.taken(&prefix_of_lan(segment));
        let of_pool = |pool: &Pool| {
            let prefix = prefix(segment, pool.subnet);
            let mut taken = index.taken(&prefix);
            // Its own it may have: the one that it wishes for, as others are the
            // last choice by the files.
            if let Wish::Exactly(ip) | Wish::Rather(ip) = choice.wish
                && index.why(&prefix, ip) == RESERVED
                && self.reserves(&format!("{prefix}{ip}"), container)
            {
                taken.remove(&ip);
            }
            taken.extend(&leased);
            (pool.subnet, taken)
        };
        choice.pools().map(of_pool).collect()
    }

    /// The same by the files themselves: an address, or why there is none.
    fn choose_by_files(
        &self,
        choice: &Choice<'_>,
        container: &ContainerId,
    ) -> Result<(IpAddr, Cidr)> {
        let network = choice.network;
        let all = list(&self.lease_folder())?;
        let leased = named(&all, &prefix_of_lan(network.segment()));
        let mut held = Held::new();
        let mut kept = 0;
        for pool in choice.pools() {
            let prefix = prefix(network.segment(), pool.subnet);
            let mut taken = named(&all, &prefix);
            taken.extend(&leased);
            let reserved = self.reserved(&prefix, Some(container), &taken)?;
            let range = pool.ip_range.unwrap_or(pool.subnet);
            kept += reserved.keys().filter(|ip| range.contains(**ip)).count();
            taken.extend(reserved.into_keys());
            held.push((pool.subnet, taken));
        }
        if let Some(found) = choice.make(&held) {
            return Ok(found);
        }
        if let Wish::Exactly(ip) = choice.wish {
            ipam::pool_of(&network.pools, ip)?;
            return Err(self.in_use(network, choice.neighbours, ip)?);
        }
        let more = "give the network a wider --ip-range or one more --subnet";
        Err(Error::conflict(format!(
            "no available {} addresses on this network's address pools: {} ({})",
            choice.family, network.name, network.id
        ))
        .hint(match kept {
            0 => format!("remove or stop containers, or {more}"),
            n => format!(
                "{n} kept for containers that do not run: remove some \
                 (--ip-reserve=off makes them keep none), or {more}"
            ),
        }))
    }

    /// Refuses an address that another container than this one has or keeps,
    /// and one that is no container's.
    pub(super) fn check_free(
        &self,
        network: &NetworkSpec,
        ip: IpAddr,
        container: &ContainerId,
    ) -> Result<()> {
        let _lock = self.address_lock()?;
        let pool = ipam::pool_of(&network.pools, ip)?;
        let prefix = prefix(network.segment(), pool.subnet);
        let holder = self.holder(&format!("{prefix}{ip}"))?;
        let neighbours = self.neighbours(network)?;
        if holder.is_some_and(|(id, _)| id != *container)
            || ipam::is_reserved(pool, ip)
            || host_side(network) == Some(ip)
            || is_neighbours(&neighbours, pool.subnet, ip)
            || self
                .reserved(&prefix, Some(container), &HashSet::new())?
                .contains_key(&ip)
        {
            return Err(self.in_use(network, &neighbours, ip)?);
        }
        Ok(())
    }

    /// Other names for an address that the caller's container holds.
    pub(super) fn label(
        &self,
        addr: Cidr,
        network: &NetworkSpec,
        container: &ContainerId,
        names: &[String],
    ) -> Result<()> {
        let path = self.lease_path(network, addr.network(), addr.addr());
        let text = Lease::text(container, &network.id, names);
        file::replace(&path, text.as_bytes(), Durability::Boot)
    }

    /// All leases in the subnets of these networks.
    pub(super) fn leases(&self, networks: &[NetworkSpec]) -> Result<Vec<(IpAddr, Lease)>> {
        let prefixes = |n: &NetworkSpec| -> Vec<String> {
            let pools = n.pools.iter().map(|pool| prefix_of(n, pool.subnet));
            pools.chain([prefix_of_lan(n.segment())]).collect()
        };
        let prefixes: HashSet<String> = networks.iter().flat_map(prefixes).collect();
        let mut leases = Vec::new();
        for name in list(&self.lease_folder())? {
            let addr = prefixes.iter().find_map(|p| name.strip_prefix(p));
            // One that cannot be read, or has just gone, names nobody.
            if let Some(addr) = addr.and_then(|addr| addr.parse().ok())
                && let Ok(Some(lease)) = self.read_lease(&name)
            {
                leases.push((addr, lease));
            }
        }
        Ok(leases)
    }

    pub(super) fn release(&self, network: &NetworkSpec, addr: Cidr) -> Result<()> {
        let lock = self.address_lock()?;
        self.let_go(&lease_name(network, addr), &lock)
    }

    /// The same for a container that does not want it any more.
    pub(super) fn give_up(
        &self,
        network: &NetworkSpec,
        addr: Cidr,
        container: &ContainerId,
    ) -> Result<()> {
        self.release(network, addr)?;
        self.unreserve(&lease_name(network, addr), container)
    }

    /// The address stays the container's while it does not run, and, if it may
    /// keep some already, none that it had in that subnet before.
    pub(super) fn keep(
        &self,
        network: &NetworkSpec,
        addr: Cidr,
        container: &ContainerId,
        has_kept: bool,
    ) -> Result<()> {
        let prefix = prefix(network.segment(), addr.network());
        self.reserve(&prefix, addr.addr(), &network.id, container, has_kept)
    }

    /// Notes an address that the LAN has given to a container: so that
    /// it can be found by its names, and the host have a route to it.
    pub(super) fn note_lease(
        &self,
        network: &NetworkSpec,
        ip: IpAddr,
        container: &ContainerId,
        names: &[String],
    ) -> Result<()> {
        let lock = self.address_lock()?;
        if self.load_network(&network.id)?.is_none() {
            return Err(Error::not_found(format!(
                "network {} not found",
                network.name
            )));
        }
        let prefix = prefix_of_lan(network.segment());
        let name = format!("{prefix}{ip}");
        let path = self.lease_folder().join(&name);
        if let Some((other, _)) = self.holder(&name)?
            && other != *container
            && Lock::is_held(&self.dirs.lock(&other))?
        {
            return Err(Error::conflict(format!(
                "Address already in use: the LAN has given {ip} to container {} too",
                other.short()
            )));
        }
        let mut index = self.known_index(&lock);
        if let Some(index) = &mut index {
            index.enter(&prefix, ip, LEASED);
        }
        let text = Lease::text(container, &network.id, names);
        file::replace(&path, text.as_bytes(), Durability::Boot)?;
        if let Some(index) = index {
            self.confirm(index, Folder::Leases);
        }
        Ok(())
    }

    /// All that a container holds: only its own process, or whoever has taken
    /// its place, takes a lease away.
    pub(super) fn release_all(&self, container: &ContainerId) -> Result<()> {
        let mut lock = None;
        for name in list(&self.lease_folder())? {
            if self.holder(&name)?.is_some_and(|(id, _)| id == *container) {
                let lock = match &lock {
                    Some(lock) => lock,
                    None => lock.insert(self.address_lock()?),
                };
                self.let_go(&name, lock)?;
            }
        }
        Ok(())
    }

    /// The host's route goes first: `host-access on` makes one for every lease
    /// that it sees, whether or not its container knows.
    fn let_go(&self, name: &str, lock: &Lock) -> Result<()> {
        if let (Some(ip), Some((_, network))) = (address(name), self.holder(name)?) {
            self.shut_host_out(&network, ip)?;
        }
        let index = self.known_index(lock);
        // Also what a killed `label` has left.
        file::remove_replaced(&self.lease_folder().join(name))?;
        if let (Some(mut index), Some((prefix, ip))) = (index, index::split(name)) {
            index.strike(prefix, ip, LEASED);
            self.confirm(index, Folder::Leases);
        }
        Ok(())
    }

    /// Has somebody else got this address since? To be asked under the lock.
    pub(super) fn is_anothers(
        &self,
        ip: IpAddr,
        of: impl Fn(&NetworkId) -> bool,
        container: &ContainerId,
    ) -> Result<bool> {
        let suffix = format!(",{ip}");
        for name in list(&self.lease_folder())? {
            if name.ends_with(&suffix)
                && let Some((id, network)) = self.holder(&name)?
                && id != *container
                && of(&network)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Leases without a living holder: none, unless somebody has put a file
    /// there or edited one.
    pub(super) fn orphans(&self) -> Result<Vec<PathBuf>> {
        let _lock = self.address_lock()?;
        let mut orphans = Vec::new();
        for name in list(&self.lease_folder())? {
            let is_live = match self.holder(&name)? {
                Some((id, _)) => Lock::is_held(&self.dirs.lock(&id))?,
                None => self.is_in_use(&name)?,
            };
            if !is_live {
                orphans.push(self.lease_folder().join(name));
            }
        }
        Ok(orphans)
    }

    /// Whether a running container has the address of this lease, which does
    /// not say whose it is.
    fn is_in_use(&self, name: &str) -> Result<bool> {
        let ip = address(name);
        let records = self.records()?.items;
        let mut attachments = records.iter().flat_map(|r| &r.state.attachments);
        Ok(attachments.any(|a| a.addrs.values().any(|addr| Some(addr.addr()) == ip)))
    }

    fn held(&self, segment: &str, subnet: Cidr) -> Result<HashSet<IpAddr>> {
        let all = list(&self.lease_folder())?;
        Ok(named(&all, &prefix(segment, subnet)))
    }

    /// The same, for counting.
    pub(super) fn leased(
        &self,
        segment: &str,
        subnet: Cidr,
    ) -> Result<std::collections::BTreeSet<IpAddr>> {
        Ok(self.held(segment, subnet)?.into_iter().collect())
    }

    /// Other networks on the same parent and subnets: they share one set of
    /// addresses.
    pub(super) fn neighbours(&self, network: &NetworkSpec) -> Result<Vec<NetworkSpec>> {
        let mut others = self.stored_networks()?.items;
        others.retain(|other| {
            let shared = |p: &Pool| network.pools.iter().any(|own| own.subnet == p.subnet);
            other.id != network.id
                && other.segment() == network.segment()
                && other.pools.iter().any(shared)
        });
        Ok(others)
    }

    /// Docker's phrase, and who it is.
    pub(super) fn in_use(
        &self,
        network: &NetworkSpec,
        neighbours: &[NetworkSpec],
        ip: IpAddr,
    ) -> Result<Error> {
        let error = Error::conflict(format!("Address already in use: {ip}"));
        let pool = ipam::pool_of(&network.pools, ip)?;
        let path = self.lease_path(network, pool.subnet, ip);
        let mut networks = neighbours.iter().chain([network]);
        let prefix = prefix(network.segment(), pool.subnet);
        Ok(match self.holder(&format!("{prefix}{ip}"))? {
            Some((id, _)) => error.hint(format!("container {} has it", self.called(&id))),
            None if path.exists() => error.hint(format!(
                "{} does not say whose it is: `dockless gc` removes it if nobody has it",
                path.display()
            )),
            None if let Some(id) = self.reserved(&prefix, None, &HashSet::new())?.get(&ip) => {
                let name = self.called(id);
                error.hint(format!(
                    "it is kept for container {name}, which does not run: `dockless rm {name}` frees it \
                     (with --ip-reserve=off it would not have been kept)"
                ))
            }
            None if let Some(n) = networks.find(|n| host_side(n) == Some(ip)) => {
                error.hint(format!(
                    "the host-side link of network {} has it: see `dockless network host-access`",
                    n.name
                ))
            }
            None => {
                error.hint("it is the network's own, broadcast, gateway or an auxiliary address")
            }
        })
    }

    /// The name of a container, as far as its record can be read.
    fn called(&self, id: &ContainerId) -> String {
        let record = super::record::Record::load(&self.dirs, id).ok().flatten();
        record.map_or_else(|| id.short().to_owned(), |r| r.name.to_string())
    }

    /// The leases of this network: who has which address.
    pub(super) fn leases_of(&self, network: &NetworkId) -> Result<Vec<(ContainerId, IpAddr)>> {
        let mut leases = Vec::new();
        for name in list(&self.lease_folder())? {
            if let (Some((id, of)), Some(ip)) = (self.holder(&name)?, address(&name))
                && of == *network
            {
                leases.push((id, ip));
            }
        }
        Ok(leases)
    }

    /// Who holds the lease in this file, if it says so. One that cannot be
    /// read may be anybody's: to release none of it would leave it taken.
    fn holder(&self, name: &str) -> Result<Option<(ContainerId, NetworkId)>> {
        let lease = self.read_lease(name)?;
        Ok(lease.map(|lease| (lease.container, lease.network)))
    }

    fn read_lease(&self, name: &str) -> Result<Option<Lease>> {
        let path = self.lease_folder().join(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Lease::parse(&String::from_utf8_lossy(&bytes))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::sys("read", &path, e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_says_what_was_put_into_it() {
        let (container, network) = (
            ContainerId::from_bytes([1; 32]),
            NetworkId::from_bytes([2; 32]),
        );
        let names = ["web", "two\nlines", "", "an alias"].map(str::to_owned);
        let lease = Lease::parse(&Lease::text(&container, &network, &names)).unwrap();
        assert_eq!((&lease.container, &lease.network), (&container, &network));
        assert_eq!(lease.names, ["web", "an alias"]);
        let bare = Lease::parse(&Lease::text(&container, &network, &[])).unwrap();
        assert!(bare.names.is_empty());
        assert!(Lease::parse("nonsense").is_none());
    }
}
