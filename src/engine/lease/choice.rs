//! Which of a network's addresses a container gets, of those that nobody has.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::base::{Cidr, Family, OfFamily};
use crate::net::ipam::{self, Pool};
use crate::net::spec::{HostAccess, NetworkSpec};

/// Which address an endpoint would like.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) enum Wish {
    /// `--ip`: this one or none.
    Exactly(IpAddr),
    /// The one it had last, if it is still free.
    Rather(IpAddr),
    Any,
}

/// The address of the host-side link, if it has one of its own.
pub(super) fn host_side(network: &NetworkSpec) -> Option<IpAddr> {
    match network.host_access {
        HostAccess::On { ip } => ip.map(IpAddr::V4),
        HostAccess::Off => None,
    }
}

/// Whether another network on this subnet reserves an address, or has it on its
/// host-side link.
pub(in crate::engine) fn is_neighbours(
    neighbours: &[NetworkSpec],
    subnet: Cidr,
    ip: IpAddr,
) -> bool {
    neighbours.iter().any(|n| {
        let of_subnet = |p: &&Pool| p.subnet == subnet;
        let reserved = |p| ipam::is_reserved(p, ip);
        host_side(n) == Some(ip) || n.pools.iter().filter(of_subnet).any(reserved)
    })
}

/// By subnet, the addresses that containers have or keep.
pub(super) type Held = Vec<(Cidr, HashSet<IpAddr>)>;

/// What an address is chosen by.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    pub(super) network: &'a NetworkSpec,
    /// Those that share its subnets.
    pub(super) neighbours: &'a [NetworkSpec],
    pub(super) family: Family,
    pub(super) wish: Wish,
    /// To be given last.
    pub(super) others: &'a HashSet<IpAddr>,
}

impl Choice<'_> {
    pub(super) fn pools(&self) -> impl Iterator<Item = &Pool> {
        let pools = self.network.pools.iter();
        pools.filter(|pool| pool.subnet.family() == self.family)
    }

    /// Not another one than the one that it would rather have.
    pub(super) fn is_as_wished(&self, found: IpAddr) -> bool {
        !matches!(self.wish, Wish::Rather(ip) if ip != found)
    }

    /// Of the addresses that are not `held`, the one that is wished for, or else
    /// the first, with its subnet.
    pub(super) fn make(&self, held: &Held) -> Option<(IpAddr, Cidr)> {
        let taken = |pool: &Pool, ip: IpAddr| {
            held.iter()
                .any(|(subnet, set)| *subnet == pool.subnet && set.contains(&ip))
                || host_side(self.network) == Some(ip)
                || is_neighbours(self.neighbours, pool.subnet, ip)
        };
        let free = |ip: IpAddr| {
            let pool = ipam::pool_of(&self.network.pools, ip).ok()?;
            let used = ipam::is_reserved(pool, ip) || taken(pool, ip);
            (!used).then_some((ip, pool.subnet))
        };
        let automatic = || {
            let better = |pool: &Pool, ip: IpAddr| self.others.contains(&ip) || taken(pool, ip);
            let next = |taken| ipam::next(&self.network.pools, self.family, taken);
            next(&better).or_else(|| next(&taken))
        };
        match self.wish {
            Wish::Exactly(ip) => free(ip),
            Wish::Rather(ip) => free(ip)
                .filter(|_| !self.others.contains(&ip))
                .or_else(automatic),
            Wish::Any => automatic(),
        }
    }
}
