//! The links that networks stand on: made with a network, removed with the
//! last of them, and made again when a container finds them missing.
//!
//! *Theory of operation.* Whoever makes, changes or removes a network holds one
//! lock, and has its steps in one journal, `<state>/networks.journal`, written
//! before a link is made and before a network's file goes. The file is what
//! counts: a step is carried out unless a stored network uses the link, so the
//! same journal serves both ways, and killed at any point either the network
//! and its links are there, or neither. Host-side links (`access`) are in it too. Whoever takes the lock next, and every
//! verb that looks for what the dead have left, carries out what is in it.

use std::path::PathBuf;

use super::Engine;
use super::gc::Recovered;
use super::record::Record;
use crate::base::{Error, IfName, Journal, NetworkId, Result, Step};
use crate::net::choice::{Picked, View};
use crate::net::parent::{self, Made, What, Wish};
use crate::net::spec::{Driver, NetworkSpec, Vlan};
use crate::netlink::{Link, Rtnl};
use crate::store::{FileJournal, Lock, file};
use crate::sys::netns::Host;

impl Engine {
    fn networks_lock_path(&self) -> PathBuf {
        self.dirs.state().join("networks.lock")
    }

    fn networks_journal(&self) -> PathBuf {
        self.dirs.state().join("networks.journal")
    }

    /// Held by whoever makes, changes or removes a network, or adds to its
    /// host-side link. Before [`Self::address_lock`], if both are.
    pub(super) fn network_lock(&self) -> Result<Lock> {
        let lock = Lock::acquire(&self.networks_lock_path())?;
        // What cannot be undone is reported by `sweep`.
        let _ = self.rewind_networks(None);
        Ok(lock)
    }

    /// Undoes what a dead process did to networks.
    pub(super) fn sweep_networks(&self) -> Result<Recovered> {
        let mut found = Recovered::default();
        if self.networks_journal().exists()
            && let Some(_lock) = Lock::try_acquire(&self.networks_lock_path())?
        {
            let text = "undid or finished a change of a network whose command is dead";
            found.did.push(text.to_owned());
            found.problems = self.rewind_networks(None);
        }
        Ok(found)
    }

    /// Under the lock: carries the journal out and throws it away. `addresses`:
    /// the lock of addresses, from whoever has it.
    pub(super) fn rewind_networks(&self, addresses: Option<&Lock>) -> Vec<Error> {
        let journal = self.networks_journal();
        let entries = match FileJournal::read(&journal) {
            Ok(entries) => entries,
            Err(error) => return vec![error],
        };
        let steps = entries.steps.iter().rev();
        let mut errors: Vec<Error> = steps
            .filter_map(|step| match step {
                Step::DelParent { name } => self.drop_parent(name).err(),
                Step::HostAccess { network } => self.finish_access(network, addresses).err(),
                _ => None,
            })
            .collect();
        if errors.is_empty() {
            errors.extend(file::remove(&journal).err());
        }
        errors.extend(entries.damaged);
        errors
    }

    /// Removes a link made for networks, unless one of them uses it; one whose
    /// file cannot be read may.
    pub(super) fn drop_parent(&self, name: &IfName) -> Result<()> {
        let networks = self.stored_networks()?;
        let uses = |vlan: &Vlan| vlan.parent == *name || vlan.made.iter().any(|m| m.name == *name);
        let is_used = networks
            .items
            .iter()
            .filter_map(NetworkSpec::vlan)
            .any(uses);
        if is_used || !networks.problems.is_empty() {
            return Ok(());
        }
        parent::remove(&mut Rtnl::host()?, name)
    }

    /// Before a network's links are made, or its file goes.
    pub(super) fn record_parents(&self, made: &[Made]) -> Result<()> {
        if made.is_empty() {
            return Ok(());
        }
        let mut journal = FileJournal::open_append(&self.networks_journal())?;
        made.iter().try_for_each(|link| {
            let name = link.name.clone();
            journal.record(&Step::DelParent { name })
        })
    }

    /// Before a network's host-side link is made, changed or removed.
    pub(super) fn record_access(&self, network: &NetworkId) -> Result<()> {
        let network = network.clone();
        FileJournal::open_append(&self.networks_journal())?.record(&Step::HostAccess { network })
    }

    /// Which link the parent is now, where that is looked up each time. What is
    /// found is kept with the network: so the links that were made for it are
    /// removed with it, whichever of them it stands on then.
    pub(super) fn resolve(&self, network: &mut NetworkSpec, host: &mut Rtnl<Host>) -> Result<()> {
        let Some(vlan) = network.vlan().filter(|vlan| vlan.is_followed()) else {
            return Ok(());
        };
        let wish = Wish::from_options(vlan.mode, &network.options)?;
        let view = View::of(host, wish.choice())?;
        let (parent, made) = wish.plan(&network.id, &view)?;
        let is_known = made.iter().all(|link| vlan.made.contains(link));
        if parent != vlan.parent || !is_known {
            self.keep_parent(network, &parent, &made)?;
        }
        if let Driver::Vlan(vlan) = &mut network.driver {
            vlan.parent = parent;
            vlan.made = made;
        }
        Ok(())
    }

    fn keep_parent(&self, network: &NetworkSpec, parent: &IfName, made: &[Made]) -> Result<()> {
        let _lock = self.network_lock()?;
        let Some(mut stored) = self.load_network(&network.id)? else {
            return Err(Error::not_found(format!(
                "network {} not found",
                network.name
            )));
        };
        if let Driver::Vlan(vlan) = &mut stored.driver {
            vlan.parent = parent.clone();
            let new = made.iter().filter(|link| !vlan.made.contains(link));
            let new: Vec<Made> = new.cloned().collect();
            vlan.made.extend(new);
        }
        self.save_network(&stored)
    }

    /// The parent is there, or made again: after a reboot, and after somebody
    /// took it away.
    pub(super) fn ensure_parent(&self, network: &NetworkSpec, host: &mut Rtnl<Host>) -> Result<()> {
        let Some(vlan) = network.vlan().filter(|vlan| !vlan.made.is_empty()) else {
            return Ok(());
        };
        if host.link(vlan.parent.as_str())?.is_some() {
            return Ok(());
        }
        let _lock = self.network_lock()?;
        if !self.dirs.network(&network.id).exists() {
            return Err(Error::not_found(format!(
                "network {} not found",
                network.name
            )));
        }
        // The network's record is what undoes this.
        parent::make(host, &vlan.made)
    }

    /// Says who has the parent, where it is busy with the other kind of link:
    /// a container's link is out of the host's sight.
    pub(super) fn name_holder(&self, error: Error, network: &NetworkSpec) -> Error {
        let (Some(vlan), true) = (network.vlan(), error.is_errno(libc::EBUSY)) else {
            return error;
        };
        let records = self.records().map(|all| all.items).unwrap_or_default();
        let holds = |record: &&Record| {
            let links = record.state.attachments.iter();
            let mut other = links.filter(|a| a.mode.kind() != vlan.mode.kind());
            record.state.status.is_live() && other.any(|a| a.parent == vlan.parent)
        };
        let (parent, kind) = (&vlan.parent, vlan.mode.kind());
        match records.iter().find(holds) {
            Some(record) => error.hint(format!(
                "{parent} carries a link of container {}, which is not {kind}: a parent is for one kind alone",
                record.name
            )),
            None => error,
        }
    }
}

/// The link that a network would have as its parent now, or that its VLAN
/// would be made on; `None`: it is not there.
pub(super) fn parent_now(network: &NetworkSpec, host: &mut Rtnl<Host>) -> Result<Option<Picked>> {
    let Some(vlan) = network.vlan() else {
        return Ok(None);
    };
    if let Some(choice) = network.choice() {
        return choice.pick(&View::of(host, Some(&choice))?);
    }
    let picked = |link: Link<Host>| Picked {
        name: link.name.to_string(),
        carries: link.up && link.carrier,
    };
    if let Some(link) = host.link(vlan.parent.as_str())? {
        return Ok(Some(picked(link)));
    }
    for made in &vlan.made {
        if host.link(made.name.as_str())?.is_some() {
            continue;
        }
        return Ok(match &made.what {
            What::Dummy => Some(Picked {
                name: made.name.to_string(),
                carries: true,
            }),
            // On one that is down the kernel makes none.
            What::Vlan { base, .. } => {
                host.link(base.as_str())?
                    .filter(|link| link.up)
                    .map(|base| Picked {
                        name: made.name.to_string(),
                        ..picked(base)
                    })
            }
        });
    }
    Ok(None)
}
