//! Addresses that others on the LAN were found to have, for the next container
//! that takes any: it would ask for the same ones in the same order, 0.4 s
//! each.
//!
//! *Theory of operation.* `<state>/conflicts/<segment>,<address>` is an empty
//! file; its time is that of the conflict. It counts for an [`AGE`], and goes
//! with the boot at the latest. An address is still given where no other is
//! left, or where it is asked for, and asked about then: a note can be wrong,
//! and is none of what a container has.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Engine;
use super::names::list;
use super::owner::Taken;
use crate::net::spec::NetworkSpec;
use crate::store::file::{self, Durability};

const AGE: Duration = Duration::from_secs(3600);

impl Engine {
    fn conflicts_folder(&self) -> PathBuf {
        self.dirs.state().join("conflicts")
    }

    /// That a note cannot be made is no reason to fail.
    pub(super) fn note_taken(&self, found: &[Taken]) {
        let folder = self.conflicts_folder();
        for taken in found {
            let path = folder.join(format!("{},{}", taken.segment, taken.ip));
            let _ = file::make_dir(&folder, 0o700)
                .and_then(|()| file::replace(&path, b"", Durability::Boot));
        }
    }

    /// Found within the last hour on the network's parent.
    pub(super) fn lately_taken(&self, network: &NetworkSpec) -> HashSet<IpAddr> {
        let folder = self.conflicts_folder();
        let mut known = HashSet::new();
        for name in list(&folder).unwrap_or_default() {
            let path = folder.join(&name);
            let written = path.metadata().and_then(|note| note.modified());
            // A clock that was set back: what is to come is no news either.
            let is_fresh = written.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < AGE));
            match name.rsplit_once(',') {
                Some((segment, ip)) if is_fresh => {
                    let ip = (segment == network.segment()).then(|| ip.parse::<IpAddr>().ok());
                    known.extend(ip.flatten());
                }
                _ => {
                    let _ = file::remove(&path);
                }
            }
        }
        known
    }
}
