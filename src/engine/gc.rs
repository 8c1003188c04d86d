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
//! record says that the container exists, and `started` (leases, cgroup,
//! published ports, routes), thrown away when it has ended in good order.

use std::path::Path;

use super::Engine;
use super::names::list;
use super::record::Record;
use crate::base::{ContainerId, Error, Result, Step};
use crate::net::{host_access, publish};
use crate::netlink::Rtnl;
use crate::store::{FileJournal, Lock, file};
use crate::sys::{cgroup, mount};

/// Carries a step out backwards.
fn undo(step: &Step) -> Result<()> {
    match step {
        Step::Cgroup { paths } => cgroup::remove(paths),
        Step::Unlink { path } => file::remove(path),
        Step::RemoveTree { path } => file::remove_tree(path),
        Step::Unmount { path } => mount::detach(path),
        Step::Unpublish {
            parent,
            aliases,
            ports,
        } => publish::unpublish(parent, aliases, ports),
        Step::HostRoute { shim, addr } => match addr {
            std::net::IpAddr::V4(ip) => host_access::remove(&mut Rtnl::host()?, shim, *ip),
            std::net::IpAddr::V6(_) => Ok(()),
        },
        Step::DelLink { name } => host_access::delete(&mut Rtnl::host()?, name),
    }
}

/// All steps of a journal, last first; every failure is returned.
pub(super) fn unwind(journal: &Path) -> Vec<Error> {
    match FileJournal::read(journal) {
        Err(error) => vec![error],
        Ok(steps) => {
            let mut errors: Vec<Error> = steps
                .iter()
                .rev()
                .filter_map(|step| undo(step).err())
                .collect();
            if errors.is_empty() {
                errors.extend(file::remove(journal).err());
            }
            errors
        }
    }
}

impl Engine {
    pub(super) fn made_journal(&self, id: &ContainerId) -> std::path::PathBuf {
        self.dirs.live(id).join("made")
    }

    /// Undoes what a dead process did to container `id`, whose lock the
    /// caller now holds, and lets go of the lock. A container that was
    /// recorded stays, as exited; one that was not, or had `--rm`, goes.
    pub(super) fn recover(&self, id: &ContainerId, lock: Lock) -> Result<Vec<String>> {
        let live = self.dirs.live(id);
        let mut did = Vec::new();
        let mut errors = Vec::new();
        // A damaged record must not keep the rest from being undone.
        let record = match Record::load(&self.dirs, id) {
            Ok(record) => record,
            Err(error) => {
                errors.push(error);
                None
            }
        };
        let keep = record.as_ref().is_some_and(|r| !r.config.auto_remove) || !errors.is_empty();
        let started = self.dirs.journal(id);
        if started.exists() {
            errors.extend(unwind(&started));
            errors.extend(self.forget_empty_subnets().err());
            did.push(format!(
                "{}: undid a start whose supervisor is dead",
                id.short()
            ));
        }
        if let Some(record) = &record {
            errors.extend(self.forget_routes(record));
        }
        if keep {
            if let Some(mut record) = record
                && record.state.status.is_live()
            {
                record.state.end(137);
                record.state.error = "its supervisor was killed".to_owned();
                errors.extend(record.save(&self.dirs).err());
                did.push(format!("{}: marked {} exited", id.short(), record.name));
            }
        } else {
            let made = self.made_journal(id);
            if made.exists() {
                errors.extend(unwind(&made));
                did.push(format!("{}: removed a half-made container", id.short()));
            }
            errors.extend(self.release_names(id).err());
            errors.extend(file::remove_tree(&self.dirs.container(id)).err());
            errors.extend(file::remove_tree(&self.gone(id)).err());
        }
        if errors.is_empty() {
            file::remove_tree(&live)?;
            lock.unlink()?;
            Ok(did)
        } else {
            let first = errors.remove(0);
            Err(first.with_undo(errors).hint("`dockless gc` tries again"))
        }
    }

    /// Where a container's folder waits to be removed.
    fn gone(&self, id: &ContainerId) -> std::path::PathBuf {
        self.dirs
            .root()
            .join("containers")
            .join(format!(".gone-{id}"))
    }

    /// Removes a container that does not run; its lock is held.
    pub(super) fn discard(&self, record: &Record) -> Result<()> {
        self.retire(record)?;
        self.clear_away(&record.id)
    }

    /// The rename is what counts: before it the container is whole, after it
    /// there is none, and whoever comes clears the rest away.
    pub(super) fn retire(&self, record: &Record) -> Result<()> {
        let id = &record.id;
        let (folder, gone) = (self.dirs.container(id), self.gone(id));
        match std::fs::rename(&folder, &gone) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::sys("remove", &folder, e));
            }
            _ => {}
        }
        record.forget(&self.dirs)?;
        self.release_name(&record.name, id)
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
            if let Some(std::net::IpAddr::V4(ip)) = attachment.addr.map(crate::base::Cidr::addr) {
                let shim = host_access::shim_name(&attachment.network);
                errors.extend(
                    Rtnl::host()
                        .and_then(|mut host| host_access::remove(&mut host, &shim, ip))
                        .err(),
                );
            }
        }
        errors
    }

    /// Before a verb that changes something: the folders are there, and what
    /// the dead left is gone. The first verb after a boot (no state folder
    /// yet) also looks at what the boot before left.
    pub(super) fn prepare(&self) -> Result<()> {
        let booted = !self.dirs.state().join("locks").exists();
        self.dirs.make()?;
        if booted {
            self.collect()?;
        } else {
            self.sweep()?;
        }
        Ok(())
    }

    /// Before a verb that only looks.
    pub(super) fn refresh(&self) -> Result<()> {
        if self.dirs.root().exists() {
            self.prepare()?;
        }
        Ok(())
    }

    /// Recovers every container whose lock nobody holds. Part of every verb.
    pub(super) fn sweep(&self) -> Result<Vec<String>> {
        let locks = self.dirs.state().join("locks");
        let mut did = Vec::new();
        for name in list(&locks)? {
            let Ok(id) = ContainerId::new(name) else {
                continue;
            };
            let path = self.dirs.lock(&id);
            if !Lock::is_held(&path)?
                && let Some(lock) = Lock::try_acquire(&path)?
            {
                did.extend(self.recover(&id, lock)?);
            }
        }
        Ok(did)
    }

    /// Everything that `sweep` does, and what only a look at all folders
    /// finds: after a reboot or a lost state folder, records that still say
    /// "running", layers of `--rm` containers, names that lead nowhere.
    pub(super) fn collect(&self) -> Result<Vec<String>> {
        self.dirs.make()?;
        let mut did = self.sweep()?;
        for id in self.ids()? {
            if Lock::is_held(&self.dirs.lock(&id))? {
                continue;
            }
            let stale = match Record::load(&self.dirs, &id)? {
                None => true,
                Some(record) => record.state.status.is_live() || record.config.auto_remove,
            };
            if stale && let Some(lock) = Lock::try_acquire(&self.dirs.lock(&id))? {
                let found = self.recover(&id, lock)?;
                if found.is_empty() {
                    did.push(format!("{}: removed what a past boot left", id.short()));
                }
                did.extend(found);
            }
        }
        let names = self.dirs.root().join("names");
        for name in list(&names)? {
            let path = names.join(&name);
            let leads_somewhere = std::fs::read_link(&path)
                .ok()
                .and_then(|target| ContainerId::new(target.to_string_lossy().into_owned()).ok())
                .is_some_and(|id| {
                    Record::load(&self.dirs, &id).is_ok_and(|r| r.is_some())
                        || Lock::is_held(&self.dirs.lock(&id)).unwrap_or(true)
                });
            if !leads_somewhere {
                file::remove(&path)?;
                did.push(format!("{name}: removed a name without a container"));
            }
        }
        Ok(did)
    }
}
