//! Who is called what. A lease says by which names its address goes, so that
//! names come and go with addresses, in the same instant and by the same
//! recovery.
//!
//! *Theory of operation.* Each supervisor answers from the lease folder; it
//! reads it again when the folder has changed, which one stat(2) a question
//! tells (leases are replaced by renaming, never written to). File systems
//! count time in ticks: of a folder that has changed within the last
//! [`TICK`]s, one cannot tell whether it has changed once more since it was
//! read, so it is read again. A holder that is dead has no names: its lock
//! says so, whatever is still on disk.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::lease::Lease;
use super::{Engine, Listing};
use crate::base::{ContainerId, NetworkId, Result};
use crate::net::dns::{Entry, Names, Table};
use crate::net::spec::NetworkSpec;
use crate::store::Lock;

/// More than the coarsest clock of a kernel (100 Hz).
const TICK: Duration = Duration::from_millis(20);

/// All that a container goes by on one network: its name first, each once, as
/// Docker's `DNSNames` has them.
pub(super) fn names(
    name: &str,
    aliases: &[String],
    id: &ContainerId,
    hostname: &str,
) -> Vec<String> {
    let mut all: Vec<String> = Vec::with_capacity(aliases.len() + 3);
    let aliases = aliases.iter().map(String::as_str);
    for name in [name]
        .into_iter()
        .chain(aliases)
        .chain([id.short(), hostname])
    {
        if !all.iter().any(|other| other == name) {
            all.push(name.to_owned());
        }
    }
    all
}

/// The networks of one container, as its resolver sees them.
#[derive(Debug)]
pub(super) struct Roster {
    engine: Engine,
    folder: PathBuf,
    /// In the order in which they answer.
    networks: Vec<NetworkSpec>,
    read: Option<Read>,
}

/// The folder as it was read.
#[derive(Debug)]
struct Read {
    stamp: Stamp,
    /// Whatever has changed it since has changed its stamp.
    settled: bool,
    table: Table,
}

/// Inode, and seconds and nanoseconds of the last change.
type Stamp = (u64, i64, i64);

impl Roster {
    pub(super) fn new(engine: &Engine) -> Self {
        Self {
            engine: engine.clone(),
            folder: engine.lease_folder(),
            networks: Vec::new(),
            read: None,
        }
    }

    pub(super) fn set_networks(&mut self, networks: Vec<NetworkSpec>) {
        self.networks = networks;
        self.read = None;
    }

    /// A folder that cannot be read has nobody in it: then nothing answers but
    /// the name servers.
    fn table(&mut self) -> Option<&Table> {
        let folder = std::fs::metadata(&self.folder).ok()?;
        let stamp = (folder.ino(), folder.mtime(), folder.mtime_nsec());
        let is_current = |read: &Read| read.stamp == stamp && read.settled;
        if !self.read.as_ref().is_some_and(is_current) {
            let changed = folder.modified().ok()?;
            let age = SystemTime::now().duration_since(changed);
            self.read = Some(Read {
                stamp,
                settled: age.is_ok_and(|age| age > TICK),
                table: self.engine.roll(&self.networks).ok()?,
            });
        }
        self.read.as_ref().map(|read| &read.table)
    }

    fn ask<T>(
        &mut self,
        ask: impl FnOnce(&Table, &dyn Fn(&str) -> bool) -> Option<T>,
    ) -> Option<T> {
        let dirs = self.engine.dirs.clone();
        let is_live = |id: &str| {
            ContainerId::new(id).is_ok_and(|id| Lock::is_held(&dirs.lock(&id)).unwrap_or(false))
        };
        ask(self.table()?, &is_live)
    }
}

impl Names for Roster {
    fn find(&mut self, name: &str) -> Option<Vec<IpAddr>> {
        self.ask(|table, is_live| table.find(name, is_live))
    }

    fn name_of(&mut self, addr: IpAddr) -> Option<String> {
        self.ask(|table, is_live| table.name_of(addr, is_live))
    }

    fn forget(&mut self) {
        self.read = None;
    }
}

impl Engine {
    /// Everybody on these networks.
    fn roll(&self, networks: &[NetworkSpec]) -> Result<Table> {
        let mut by_network: BTreeMap<&NetworkId, Vec<Entry>> = BTreeMap::new();
        for network in networks {
            by_network.insert(&network.id, Vec::new());
        }
        for (addr, lease) in self.leases(networks)? {
            if let Some(entries) = by_network.get_mut(&lease.network) {
                entries.push(entry(addr, lease));
            }
        }
        let mut table = Table::default();
        for network in networks {
            let entries = by_network.remove(&network.id).unwrap_or_default();
            table.add(network.name.as_str(), entries);
        }
        Ok(table)
    }

    /// Addresses of running containers and their names, `NAME.NETWORK` second:
    /// lines for the host's own /etc/hosts.
    pub fn hosts(&self) -> Result<Listing<(IpAddr, Vec<String>)>> {
        let networks = self.stored_networks()?;
        let mut hosts = BTreeMap::new();
        for (addr, lease) in self.leases(&networks.items)? {
            let network = networks.items.iter().find(|n| n.id == lease.network);
            if let (Some(network), true) =
                (network, Lock::is_held(&self.dirs.lock(&lease.container))?)
            {
                let mut names = lease.names;
                if let Some(first) = names.first() {
                    names.insert(1, format!("{first}.{}", network.name));
                    hosts.insert(addr, names);
                }
            }
        }
        Ok(Listing {
            items: hosts.into_iter().collect(),
            problems: networks.problems,
        })
    }
}

fn entry(addr: IpAddr, lease: Lease) -> Entry {
    Entry {
        container: lease.container.to_string(),
        addr,
        names: lease.names,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_once_and_the_container_s_first() {
        let id = ContainerId::from_bytes([0xab; 32]);
        let aliases = ["api".to_owned(), "web".to_owned(), "api".to_owned()];
        assert_eq!(
            names("web", &aliases, &id, "hh.example.com"),
            ["web", "api", "abababababab", "hh.example.com"]
        );
        assert_eq!(names("web", &[], &id, id.short()), ["web", "abababababab"]);
    }
}
