//! Address leases: `<state>/leases/<subnet>/<address>`, each naming the
//! container and network that hold it. They die with the boot; one whose
//! container has no live starter or supervisor is removed by that container's
//! undo. All choices are made under one lock, so two commands never get the
//! same address.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::Engine;
use super::names::list;
use crate::base::{Cidr, ContainerId, Error, Journal, NetworkId, Result, Step};
use crate::net::ipam::{self, Pool};
use crate::net::spec::NetworkSpec;
use crate::store::Lock;
use crate::store::file::{self, Durability};

/// Which address an endpoint would like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wish {
    /// `--ip`: this one or none.
    Exactly(Ipv4Addr),
    /// The one it had last, if it is still free.
    Rather(Ipv4Addr),
    Any,
}

impl Engine {
    fn lease_folder(&self, subnet: Cidr) -> PathBuf {
        let name = subnet.to_string().replace('/', "_");
        self.dirs.state().join("leases").join(name)
    }

    pub(super) fn lease_path(&self, subnet: Cidr, ip: IpAddr) -> PathBuf {
        self.lease_folder(subnet).join(ip.to_string())
    }

    /// The lock under which addresses are chosen and networks removed.
    pub(super) fn address_lock(&self) -> Result<Lock> {
        Lock::acquire(&self.dirs.state().join("leases").join(".lock"))
    }

    /// Leases an address of `network` to a container.
    pub(super) fn lease(
        &self,
        network: &NetworkSpec,
        wish: Wish,
        container: &ContainerId,
        journal: &mut dyn Journal,
    ) -> Result<(Ipv4Addr, Cidr)> {
        let _lock = self.address_lock()?;
        // `network rm` holds the same lock: the network is there, and stays
        // until it can see this lease.
        if !self.dirs.network(&network.id).exists() {
            return Err(Error::not_found(format!(
                "network {} not found",
                network.name
            )));
        }
        let neighbours = self.neighbour_pools(network)?;
        let mut held: Vec<(Cidr, HashSet<Ipv4Addr>)> = Vec::new();
        for pool in &network.pools {
            held.push((pool.subnet, self.held(pool.subnet)?));
        }
        let taken = |pool: &Pool, ip: Ipv4Addr| {
            held.iter()
                .any(|(subnet, set)| *subnet == pool.subnet && set.contains(&ip))
                || neighbours
                    .iter()
                    .any(|n| n.subnet == pool.subnet && ipam::is_reserved(n, IpAddr::V4(ip)))
        };
        let free = |ip: Ipv4Addr| -> Result<Option<Cidr>> {
            let pool = ipam::pool_of(&network.pools, IpAddr::V4(ip))?;
            let used = ipam::is_reserved(pool, IpAddr::V4(ip)) || taken(pool, ip);
            Ok((!used).then_some(pool.subnet))
        };
        let automatic = || {
            ipam::next(&network.pools, &taken).ok_or_else(|| {
                Error::conflict(format!(
                    "no available IPv4 addresses on this network's address pools: {} ({})",
                    network.name, network.id
                ))
            })
        };
        let (ip, subnet) = match wish {
            Wish::Exactly(ip) => match free(ip)? {
                Some(subnet) => (ip, subnet),
                None => return Err(self.in_use(network, ip)?),
            },
            Wish::Rather(ip) => match free(ip) {
                Ok(Some(subnet)) => (ip, subnet),
                _ => automatic()?,
            },
            Wish::Any => automatic()?,
        };
        let path = self.lease_path(subnet, IpAddr::V4(ip));
        journal.record(&Step::Unlink { path: path.clone() })?;
        let text = format!("{container} {}\n", network.id);
        loop {
            file::make_dir(&self.lease_folder(subnet), 0o700)?;
            match file::replace(&path, text.as_bytes(), Durability::Boot) {
                // Whoever released the subnet's last address took the folder.
                Err(e) if e.is_errno(libc::ENOENT) => {}
                other => break other?,
            }
        }
        Ok((ip, Cidr::new(IpAddr::V4(ip), subnet.prefix())?))
    }

    pub(super) fn release(&self, addr: Cidr) -> Result<()> {
        let folder = self.lease_folder(addr.network());
        file::remove(&folder.join(addr.addr().to_string()))?;
        // Fails while other leases are in it, which is right.
        let _ = std::fs::remove_dir(folder);
        Ok(())
    }

    /// Folders of subnets of which no address is leased any more.
    pub(super) fn forget_empty_subnets(&self) -> Result<()> {
        let leases = self.dirs.state().join("leases");
        for subnet in list(&leases)? {
            // Not empty, or somebody was faster: both are fine.
            let _ = std::fs::remove_dir(leases.join(subnet));
        }
        Ok(())
    }

    fn held(&self, subnet: Cidr) -> Result<HashSet<Ipv4Addr>> {
        Ok(list(&self.lease_folder(subnet))?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect())
    }

    /// The same, for counting.
    pub(super) fn leased(&self, subnet: Cidr) -> Result<std::collections::BTreeSet<IpAddr>> {
        Ok(self.held(subnet)?.into_iter().map(IpAddr::V4).collect())
    }

    /// Pools of other networks on the same subnets: they share one set of
    /// addresses.
    fn neighbour_pools(&self, network: &NetworkSpec) -> Result<Vec<Pool>> {
        Ok(self
            .stored_networks()?
            .into_iter()
            .filter(|other| other.id != network.id)
            .flat_map(|other| other.pools)
            .filter(|pool| network.pools.iter().any(|own| own.subnet == pool.subnet))
            .collect())
    }

    /// Docker's phrase, and who it is, if a container of ours.
    fn in_use(&self, network: &NetworkSpec, ip: Ipv4Addr) -> Result<Error> {
        let error = Error::conflict(format!("Address already in use: {ip}"));
        let pool = ipam::pool_of(&network.pools, IpAddr::V4(ip))?;
        let holder = std::fs::read_to_string(self.lease_path(pool.subnet, IpAddr::V4(ip)));
        let holder = holder.ok().and_then(|text| {
            let id = text.split_ascii_whitespace().next()?.to_owned();
            ContainerId::new(id).ok()
        });
        Ok(match holder {
            Some(id) => {
                let name = super::record::Record::load(&self.dirs, &id)
                    .ok()
                    .flatten()
                    .map_or_else(|| id.short().to_owned(), |r| r.name.to_string());
                error.hint(format!("container {name} has it"))
            }
            None => {
                error.hint("it is the network's own, broadcast, gateway or an auxiliary address")
            }
        })
    }

    /// Containers that hold a lease of this network.
    pub(super) fn leaseholders(&self, network: &NetworkSpec) -> Result<Vec<ContainerId>> {
        let mut holders = Vec::new();
        for pool in &network.pools {
            let folder = self.lease_folder(pool.subnet);
            for name in list(&folder)? {
                let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
                let mut words = text.split_ascii_whitespace();
                let id = words.next().and_then(|w| ContainerId::new(w).ok());
                let of = words.next().and_then(|w| NetworkId::new(w).ok());
                if let (Some(id), Some(of)) = (id, of)
                    && of == network.id
                {
                    holders.push(id);
                }
            }
        }
        Ok(holders)
    }
}
