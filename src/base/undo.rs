//! The undo journal's vocabulary: what to do to take an effect back.
//!
//! A step is plain data, so it can be written to disk before the effect takes
//! place; whoever finds the journal of a dead process carries the steps out,
//! last one first. Hence every step must succeed when there is nothing (or no
//! longer anything) to undo. The engine supplies the hands.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{IfName, NetworkId, PortMap};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Kill every process in these cgroup folders and remove them.
    Cgroup { paths: Vec<PathBuf> },
    /// Remove a file, if that is (still) all that is in it.
    Unlink { path: PathBuf, content: String },
    /// Remove a folder and all below it (one file system, no link followed).
    RemoveTree { path: PathBuf },
    /// Delete the links of a network namespace that has outlived its processes.
    Namespace { nsid: i32 },
    /// Take these ports' elements out of the parent's publishing maps, and
    /// the table with the last of them.
    Unpublish {
        parent: IfName,
        /// The alias addresses that stand for the container in the maps.
        aliases: Vec<IpAddr>,
        ports: Vec<PortMap>,
    },
    /// Remove the host's route (and neighbour filter entry) to a container
    /// behind a host-side macvlan.
    HostRoute { shim: IfName, addr: IpAddr },
    /// Delete a parent that was made for networks, unless one still uses it.
    DelParent { name: IfName },
    /// Make a network's host-side link what the network's record says: there,
    /// with all its routes, or gone.
    HostAccess { network: NetworkId },
    /// Delete a host-side link and the nf_tables table of the same name.
    DelLink { name: IfName },
}

/// Where undo steps are written down before their effect takes place.
pub trait Journal {
    fn record(&mut self, step: &Step) -> super::Result<()>;
}

/// A journal in memory, for tests and for effects that end with the process.
impl Journal for Vec<Step> {
    fn record(&mut self, step: &Step) -> super::Result<()> {
        self.push(step.clone());
        Ok(())
    }
}
