//! Undo and recovery: what a dead command or supervisor left is taken back by
//! whoever comes next.
//!
//! *Theory of operation.* Each container that is being made, started, changed
//! or run has a lock file `<state>/locks/<id>`, held by the process that does
//! it. A lock file that nobody holds is a dead process's: its journals name
//! the effects to undo, last first. Every step succeeds when its effect never
//! took place or is gone, so this can itself be killed and repeated.
//!
//! Two journals a container: `made` (folders, id file), thrown away once the
//! record says that the container exists, and `journal` (cgroup, published
//! ports, routes), thrown away when it has ended in good order. Addresses need
//! none (see `lease`); what is made with a network, see `parents`.
//!
//! *Whose is it by now?* A journal may be older than the present: its address
//! or port may have gone back and to another container before its process was
//! killed. So an address's route is left alone when another container holds
//! the address's lease, and a journal is thrown away while its container still
//! has its ports.
//!
//! *Damage.* What cannot be read or undone of one container is that
//! container's problem: it is reported, and everything else goes on.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::names::list;
use super::record::{KILLED, Record};
use super::{Engine, events, view};
use crate::base::{ContainerId, Error, IfName, Result, Step};
use crate::image::tester;
use crate::net::{host_access, publish};
use crate::netlink::Rtnl;
use crate::store::{FileJournal, Held, Lock, file};
use crate::sys::cgroup::{self, Hierarchies};

/// What the name of a removed container's folder begins with.
const GONE: &str = ".gone-";

/// What recovery found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// A line for each thing that was undone.
    pub did: Vec<String>,
    /// What somebody should look at, though nothing is left to do here.
    pub problems: Vec<Error>,
    /// Locks that somebody alive had.
    pub held: Held,
}

impl Recovered {
    fn add(&mut self, other: Self) {
        self.did.extend(other.did);
        self.problems.extend(other.problems);
    }
}

/// The name may be another file's by now.
fn unlink(path: &Path, content: &str) -> Result<()> {
    match std::fs::read(path) {
        Ok(bytes) if bytes == content.as_bytes() => file::remove(path),
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::sys("read", path, e)),
        _ => Ok(()),
    }
}

impl Engine {
    /// Carries a step of this container out backwards.
    fn undo(&self, id: &ContainerId, step: &Step) -> Result<()> {
        match step {
            Step::Cgroup { paths } => cgroup::remove(paths),
            Step::Unlink { path, content } => unlink(path, content),
            Step::RemoveTree { path } => file::remove_tree(path),
            Step::Namespace { nsid } => Rtnl::host()?.delete_links_in(*nsid),
            Step::Unpublish {
                parent,
                aliases,
                ports,
            } => publish::unpublish(parent, aliases, ports),
            Step::HostRoute { shim, addr } => self.forget_route(id, shim, *addr),
            Step::DelParent { name } => self.drop_parent(name),
            Step::HostAccess { network } => self.finish_access(network, None),
            Step::DelLink { name } => host_access::delete(&mut Rtnl::host()?, name),
        }
    }

    /// A route and filter entry of a host-side link, unless the address is
    /// somebody else's by now.
    fn forget_route(&self, id: &ContainerId, shim: &IfName, addr: IpAddr) -> Result<()> {
        let IpAddr::V4(ip) = addr else {
            return Ok(());
        };
        let _lock = self.address_lock()?;
        if self.is_anothers(addr, |network| host_access::shim_name(network) == *shim, id)? {
            return Ok(());
        }
        host_access::remove(&mut Rtnl::host()?, shim, ip)
    }

    /// All steps of a journal, last first; every failure is returned. What
    /// cannot be read cannot be undone: it is a problem, once.
    fn rewind(&self, id: &ContainerId, journal: &Path) -> (Vec<Error>, Vec<Error>) {
        let entries = match FileJournal::read(journal) {
            Ok(entries) => entries,
            Err(error) => return (vec![error], Vec::new()),
        };
        let steps = entries.steps.iter().rev();
        let mut errors: Vec<Error> = steps.filter_map(|s| self.undo(id, s).err()).collect();
        if !entries.damaged.is_empty() {
            // The one effect that can be found without it.
            errors.extend(remove_cgroup(id).err());
        }
        if errors.is_empty() {
            errors.extend(file::remove(journal).err());
        }
        (errors, entries.damaged)
    }

    /// Undoes a start or a run, its addresses included.
    pub(super) fn unwind(&self, id: &ContainerId) -> Vec<Error> {
        let (mut errors, damaged) = self.rewind(id, &self.dirs.journal(id));
        if errors.is_empty() {
            errors.extend(self.release_all(id).err());
        }
        errors.extend(damaged);
        errors
    }

    pub(super) fn made_journal(&self, id: &ContainerId) -> PathBuf {
        self.dirs.live(id).join("made")
    }

    /// Undoes what a dead process did to container `id`, whose lock the
    /// caller now holds, and lets go of the lock. A container that was
    /// recorded stays, as exited; one that was not, or had `--rm`, goes. An
    /// error means that something is left, and the next command tries again.
    pub(super) fn recover(&self, id: &ContainerId, lock: Lock) -> Result<Recovered> {
        let mut found = Recovered::default();
        let made = self.made_journal(id);
        // A record that cannot be read is still somebody's container.
        let (record, keep) = match Record::load(&self.dirs, id) {
            Ok(record) => {
                let keep = record.as_ref().is_some_and(|r| !r.config.auto_remove);
                (record, keep)
            }
            Err(error) => {
                let keep = !made.exists();
                found.problems.extend(keep.then_some(error));
                (None, keep)
            }
        };
        if let Err(error) = self.end_lost(id, record.as_ref(), &mut found.did) {
            lock.unlink()?;
            return Err(error);
        }
        let started = self.dirs.journal(id);
        if started.exists() {
            let short = id.short();
            let text = format!("{short}: undid a start whose supervisor is dead");
            found.did.push(text);
        }
        // Without a journal it ran before the boot, or the state folder is lost
        // and it runs still. Its supervisor ends with it.
        let is_lost =
            !started.exists() && record.as_ref().is_some_and(|r| r.state.status.is_live());
        let (mut errors, damaged) = self.rewind(id, &started);
        found.problems.extend(damaged);
        if is_lost {
            errors.extend(remove_cgroup(id).err());
        }
        if let Some(record) = &record {
            errors.extend(self.forget_routes(record));
        }
        if errors.is_empty() {
            errors.extend(self.release_all(id).err());
        }
        let mut happened = record.as_ref().map_or_else(Vec::new, |r| self.unseen(r));
        if keep {
            if let Some(mut record) = record
                && record.state.status.is_live()
            {
                record.state.end_unwatched();
                errors.extend(record.save(&self.dirs).err());
                self.note(&happened);
                let text = format!("{}: marked {} exited", id.short(), record.name);
                found.did.push(text);
            }
        } else {
            if made.exists() {
                let short = id.short();
                found.did.push(match &record {
                    Some(record) => format!("{short}: removed {}, which had --rm", record.name),
                    None => format!("{short}: removed a half-made container"),
                });
            }
            let (failed, damaged) = self.rewind(id, &made);
            errors.extend(failed);
            found.problems.extend(damaged);
            errors.extend(self.release_names(id, None).err());
            errors.extend(file::remove_tree(&self.dirs.container(id)).err());
            errors.extend(file::remove_tree(&self.gone(id)).err());
            errors.extend(self.unreserve_all(id, None).err());
            if let Some(record) = record.filter(|_| errors.is_empty()) {
                happened.push(events::of_container(&record, "destroy", &[]));
                self.note(&happened);
            }
        }
        if errors.is_empty() {
            file::remove_tree(&self.dirs.live(id))?;
            lock.unlink()?;
            Ok(found)
        } else {
            let mut first = errors.remove(0);
            errors.extend(found.problems);
            let hint = match first.hint.take() {
                Some(hint) => format!("{hint}; `dockless gc` tries again"),
                None => "`dockless gc` tries again".to_owned(),
            };
            Err(first.with_undo(errors).hint(hint))
        }
    }

    /// What its supervisor would have noted of the end of a container that ran.
    fn unseen(&self, record: &Record) -> Vec<view::Event> {
        if !record.state.status.is_live() {
            return Vec::new();
        }
        let mut happened = vec![events::of_end(record, KILLED)];
        for attachment in &record.state.attachments {
            let network = self.find_network(attachment.network.as_str());
            let id = Some(record.id.as_str());
            happened.extend(network.map(|n| events::of_network(&n, "disconnect", id)));
        }
        happened
    }

    /// Where a container's folder waits to be removed.
    fn gone(&self, id: &ContainerId) -> PathBuf {
        self.dirs
            .root()
            .join("containers")
            .join(format!("{GONE}{id}"))
    }

    /// Removes a container that does not run; its lock is held.
    pub(super) fn discard(&self, record: &Record) -> Result<()> {
        self.give_leases_back(record);
        self.retire(record)?;
        self.unreserve_all(&record.id, None)?;
        self.clear_away(&record.id)
    }

    /// The same without knowing what it was.
    pub(super) fn discard_damaged(&self, id: &ContainerId, lock: Lock) -> Result<()> {
        let folder = self.dirs.container(id);
        absent_is_fine(std::fs::rename(&folder, self.gone(id)))
            .map_err(|e| file::explain("remove", &folder, e))?;
        file::remove(&self.dirs.live(id).join("record.json"))?;
        self.recover(id, lock).map(drop)
    }

    /// The rename is what counts: before it the container is whole, after it
    /// there is none, and whoever comes clears the rest away.
    pub(super) fn retire(&self, record: &Record) -> Result<()> {
        let id = &record.id;
        let (folder, gone) = (self.dirs.container(id), self.gone(id));
        absent_is_fine(std::fs::rename(&folder, &gone))
            .map_err(|e| file::explain("remove", &folder, e))?;
        record.forget(&self.dirs)?;
        if Self::was_being_renamed(&gone) {
            self.release_names(id, None)
        } else {
            self.release_name(&record.name, id)
        }
    }

    /// The files of a container that is retired, and what lives while one runs.
    pub(super) fn clear_away(&self, id: &ContainerId) -> Result<()> {
        file::remove_tree(&self.gone(id))?;
        file::remove_tree(&self.dirs.live(id))
    }

    /// Routes and filter entries of host-side links: named by the record.
    fn forget_routes(&self, record: &Record) -> Vec<Error> {
        let mut errors = Vec::new();
        for attachment in &record.state.attachments {
            if let Some(addr) = attachment.addrs.ipv4() {
                let shim = host_access::shim_name(&attachment.network);
                errors.extend(self.forget_route(&record.id, &shim, addr.addr()).err());
            }
        }
        errors
    }

    /// Before a verb that changes something: the folders are there, and what
    /// the dead left is gone. The first verb after a boot (no state folder
    /// yet) also looks at what the boot before left. What cannot be put right
    /// is no reason not to do what was asked: it is returned.
    pub(super) fn prepare(&self) -> Result<Recovered> {
        let booted = !self.dirs.locks().exists();
        self.dirs.make()?;
        if booted { self.collect() } else { self.sweep() }
    }

    /// The folders alone; but where the state folder is new, or was lost, all.
    pub(super) fn make_folders(&self) -> Result<()> {
        if self.dirs.locks().exists() {
            self.dirs.make()
        } else {
            self.prepare().map(drop)
        }
    }

    /// Before a verb that only looks.
    pub(super) fn refresh(&self) -> Result<Recovered> {
        if self.dirs.has_root()? {
            self.prepare()
        } else {
            Ok(Recovered::default())
        }
    }

    /// Recovers every container whose lock nobody holds. Part of every verb.
    pub(super) fn sweep(&self) -> Result<Recovered> {
        let mut all = self.sweep_networks()?;
        let survey = self.dirs.roll().survey()?;
        all.held = survey.held;
        self.recover_each(survey.free, &mut all);
        Ok(all)
    }

    fn recover_each(&self, dead: Vec<String>, all: &mut Recovered) {
        if !dead.is_empty() {
            all.problems.extend(self.drop_dead_bells().err());
        }
        for id in dead.into_iter().filter_map(|id| ContainerId::new(id).ok()) {
            match self.recover_dead(&id) {
                Ok(Some(found)) => all.add(found),
                Ok(None) => {}
                Err(error) => all.problems.push(error),
            }
        }
    }

    /// `None`: somebody is at work on it.
    fn recover_dead(&self, id: &ContainerId) -> Result<Option<Recovered>> {
        match self.dirs.roll().try_acquire(id)? {
            Some(lock) => self.recover(id, lock).map(Some),
            None => Ok(None),
        }
    }

    /// Everything that `sweep` does, and what only a look at all folders
    /// finds: after a reboot or a lost state folder, records that still say
    /// "running", layers of `--rm` containers, names that lead nowhere,
    /// addresses without a holder.
    pub(super) fn collect(&self) -> Result<Recovered> {
        self.dirs.make()?;
        let mut all = self.sweep()?;
        self.recover_each(Lock::survey(&self.dirs.locks())?.free, &mut all);
        for id in self.ids()? {
            let stale = match Record::load(&self.dirs, &id) {
                Ok(None) => true,
                Ok(Some(record)) => record.state.status.is_live() || record.config.auto_remove,
                Err(error) => {
                    if !all.problems.contains(&error) {
                        all.problems.push(error);
                    }
                    false
                }
            };
            if !stale {
                continue;
            }
            match self.recover_dead(&id) {
                Ok(None) => {}
                Ok(Some(found)) => {
                    if found.did.is_empty() {
                        let text = format!("{}: removed what a past boot left", id.short());
                        all.did.push(text);
                    }
                    all.add(found);
                }
                Err(error) => all.problems.push(error),
            }
        }
        self.dirs.roll().tidy()?;
        for folder in self.undeleted()? {
            file::remove_tree(&folder)?;
            let text = format!("{}: removed the rest of a container", folder.display());
            all.did.push(text);
        }
        self.drop_dead_names(&mut all)?;
        for path in self.dead_reservations()? {
            file::remove(&path)?;
            let text = format!("{}: removed what nobody keeps", path.display());
            all.did.push(text);
        }
        all.problems.extend(self.drop_dead_bells().err());
        for lease in self.orphans()? {
            file::remove(&lease)?;
            let text = format!("{}: removed an address without a holder", lease.display());
            all.did.push(text);
        }
        Ok(all)
    }

    /// Images of other binaries than this one that no container is made of.
    /// One that such a binary is using at this moment for a new container
    /// fails to start it, and makes the image anew the next time.
    pub(super) fn prune_images(&self, all: &mut Recovered) -> Result<()> {
        let records = self.records()?;
        if !records.problems.is_empty() {
            // Nobody knows what these are made of.
            return Ok(());
        }
        let in_use = |lower: &Path| records.items.iter().any(|r| r.image.lower == lower);
        for folder in tester::prune(&self.dirs.images(), &in_use)? {
            let text = format!("{}: removed an unused tester image", folder.display());
            all.did.push(text);
        }
        Ok(())
    }

    /// Folders of removed containers that nobody is removing.
    fn undeleted(&self) -> Result<Vec<PathBuf>> {
        let folder = self.dirs.root().join("containers");
        let entries = std::fs::read_dir(&folder).map_err(|e| Error::sys("list", &folder, e))?;
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::sys("list", &folder, e))?;
            let name = entry.file_name().into_string().unwrap_or_default();
            let id = name
                .strip_prefix(GONE)
                .and_then(|id| ContainerId::new(id).ok());
            if id.is_some_and(|id| Lock::is_held(&self.dirs.lock(&id)).is_ok_and(|held| !held)) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    fn drop_dead_names(&self, all: &mut Recovered) -> Result<()> {
        let _lock = self.name_lock()?;
        let names = self.dirs.root().join("names");
        for name in list(&names)? {
            let path = names.join(&name);
            let target = std::fs::read_link(&path).ok();
            let id = target.and_then(|t| ContainerId::new(t.to_string_lossy().into_owned()).ok());
            if id.is_some_and(|id| self.bears(&id, &name).unwrap_or(true)) {
                continue;
            }
            match file::remove(&path) {
                Ok(()) => all
                    .did
                    .push(format!("{name}: removed a name without a container")),
                Err(error) => all.problems.push(error),
            }
        }
        Ok(())
    }
}

/// Kills what is in a container's cgroup; absent is fine.
fn remove_cgroup(id: &ContainerId) -> Result<()> {
    let folders = Hierarchies::detect()?.folders(id.as_str());
    cgroup::remove(&folders)
}

fn absent_is_fine(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
