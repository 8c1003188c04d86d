//! Addresses that containers keep while they do not run (`--ip-reserve`).
//!
//! *Theory of operation.* A reservation is a symbolic link
//! `<root>/reserved/<lease>,<container>` to the network's id, `<lease>` being the
//! lease's name (see `lease`). It is made when the container runs with that
//! address, outlives the lease and the boot, and goes when the container leaves
//! the network, is removed, or has got another address there. Who looks for an
//! address needs the names alone, however many there are. One whose container
//! is not there any more (a `kill -9` while it was removed) reserves nothing,
//! and `gc` removes it; so no journal names it. A container's own are made and
//! removed by whoever has the container: nobody else gets the address meanwhile.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Engine;
use super::index::{Folder, RESERVED};
use super::names::list;
use crate::base::{ContainerId, Error, NetworkId, Result};
use crate::store::file;

/// The lease and the container in the name of a reservation.
pub(super) fn parts(name: &str) -> Option<(&str, ContainerId)> {
    let (lease, container) = name.rsplit_once(',')?;
    Some((lease, ContainerId::new(container).ok()?))
}

impl Engine {
    pub(super) fn reserved_folder(&self) -> PathBuf {
        self.dirs.root().join("reserved")
    }

    pub(super) fn reservations(&self) -> Result<Vec<String>> {
        list(&self.reserved_folder())
    }

    /// Keeps an address whose lease begins with `prefix` for the container, and,
    /// if it `has_kept` any, none that it had there on that network before.
    pub(super) fn reserve(
        &self,
        prefix: &str,
        ip: IpAddr,
        network: &NetworkId,
        container: &ContainerId,
        has_kept: bool,
    ) -> Result<()> {
        let name = format!("{prefix}{ip},{container}");
        let others = |other: &str| {
            other.ends_with(container.as_str()) && other != name && other.starts_with(prefix)
        };
        let path = self.reserved_folder().join(&name);
        let lock = self.address_lock()?;
        let make = || {
            let mut index = self.known_index(&lock);
            if let Some(index) = &mut index {
                index.enter(prefix, ip, RESERVED);
            }
            symlink(network.as_str(), &path).map_err(|e| file::explain("reserve", &path, e))?;
            if let Some(index) = index {
                self.confirm(index, Folder::Reserved);
            }
            Ok(())
        };
        match network_of(&path)? {
            Some(of) if of == *network => Ok(()),
            None => make(),
            // Another one on this parent and subnet.
            Some(_) => file::remove(&path).and_then(|()| make()),
        }?;
        drop(lock);
        // Last: whoever is killed before keeps one too many, not none.
        match has_kept {
            true => self.drop_reservations(others, Some(network)),
            false => Ok(()),
        }
    }

    /// Who keeps which address, of those whose leases begin with `prefix`, but
    /// for `own` and addresses that are `leased`: with a thousand containers
    /// that run, none is looked at.
    pub(super) fn reserved(
        &self,
        prefix: &str,
        own: Option<&ContainerId>,
        leased: &HashSet<IpAddr>,
    ) -> Result<HashMap<IpAddr, ContainerId>> {
        let mut found = HashMap::new();
        for name in self.reservations()? {
            let kept = name.strip_prefix(prefix).and_then(|n| n.split_once(','));
            if let Some((ip, _)) = kept
                && let Ok(ip) = ip.parse()
                && !leased.contains(&ip)
                && let Some((_, container)) = parts(&name)
                && Some(&container) != own
                && self.is_kept(&container)
            {
                found.insert(ip, container);
            }
        }
        Ok(found)
    }

    /// Of a container that is not there, nothing is kept.
    pub(super) fn is_kept(&self, container: &ContainerId) -> bool {
        self.dirs.container(container).exists()
    }

    /// Whether the container keeps the address of this lease.
    pub(super) fn reserves(&self, lease: &str, container: &ContainerId) -> bool {
        let path = self.reserved_folder().join(format!("{lease},{container}"));
        path.symlink_metadata().is_ok()
    }

    pub(super) fn unreserve(&self, lease: &str, container: &ContainerId) -> Result<()> {
        file::remove(&self.reserved_folder().join(format!("{lease},{container}")))
    }

    /// Forgets what a container keeps: on one network, or on all.
    pub(super) fn unreserve_all(
        &self,
        container: &ContainerId,
        network: Option<&NetworkId>,
    ) -> Result<()> {
        self.drop_reservations(|name| name.ends_with(container.as_str()), network)
    }

    /// A network that is being removed keeps nothing for anybody.
    pub(super) fn unreserve_network(&self, network: &NetworkId) -> Result<()> {
        self.drop_reservations(|_| true, Some(network))
    }

    fn drop_reservations(
        &self,
        which: impl Fn(&str) -> bool,
        network: Option<&NetworkId>,
    ) -> Result<()> {
        for name in self.reservations()? {
            if !which(&name) {
                continue;
            }
            let path = self.reserved_folder().join(&name);
            if parts(&name).is_some()
                && (network.is_none() || network_of(&path)?.as_ref() == network)
            {
                file::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Reservations of containers that are no more, or of nobody.
    pub(super) fn dead_reservations(&self) -> Result<Vec<PathBuf>> {
        let is_dead = |name: &String| parts(name).is_none_or(|(_, of)| !self.is_kept(&of));
        let names = self.reservations()?.into_iter().filter(is_dead);
        Ok(names
            .map(|name| self.reserved_folder().join(name))
            .collect())
    }
}

/// The network that a reservation leads to.
fn network_of(path: &Path) -> Result<Option<NetworkId>> {
    match std::fs::read_link(path) {
        Ok(target) => Ok(NetworkId::new(target.to_string_lossy().into_owned()).ok()),
        // EINVAL: no symbolic link, so none of ours.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput) => Ok(None),
        Err(e) => Err(Error::sys("read", path, e)),
    }
}
