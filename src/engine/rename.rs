//! Another name for a container.
//!
//! *Theory of operation.* New link, record, old link, in this order, under the
//! name lock. Killed in between, the container has two links; a file in its
//! folder says so from before the first to after the last, and whoever renames
//! or removes the container then looks at all links.

use super::hold::Held;
use super::record::Record;
use super::{Client, Engine, events};
use crate::base::{ContainerId, ContainerName, Error, Result};
use crate::store::file::{self, Durability};

/// The file in a container's folder while it may have more than one name.
const MARK: &str = "renaming";

impl Engine {
    pub fn rename(&self, wanted: &str, name: &str) -> Result<()> {
        let name = ContainerName::new(name.strip_prefix('/').unwrap_or(name))?;
        self.prepare()?;
        let id = self.find(wanted)?;
        let mut tries = 5;
        loop {
            match self.try_rename(&id, &name) {
                // It has ended before it could do it.
                Err(e) if e.is_errno(libc::ECONNRESET) && tries > 0 => tries -= 1,
                renamed => return renamed,
            }
        }
    }

    fn try_rename(&self, id: &ContainerId, name: &ContainerName) -> Result<()> {
        let mut held = self.hold(id)?;
        let _names = self.name_lock()?;
        let record = self.record(id)?;
        let renamed = if record.name == *name {
            Err(Error::invalid(
                "Renaming a container with the same name as its current name",
            ))
        } else {
            self.change_name(&mut held, &record, name)
        };
        if let Held::Still(_, lock) = held {
            lock.unlink()?;
        }
        renamed
    }

    fn change_name(&self, held: &mut Held, record: &Record, name: &ContainerName) -> Result<()> {
        let id = &record.id;
        let mark = self.dirs.container(id).join(MARK);
        if mark.exists() {
            self.release_names(id, Some(&record.name))?;
        }
        file::replace(&mark, b"", Durability::Boot)?;
        let renamed = self
            .claim_name_locked(name, id)
            .and_then(|()| self.record_name(held, record, name));
        let old = if renamed.is_ok() { &record.name } else { name };
        let undone = self
            .release_name(old, id)
            .and_then(|()| file::remove(&mark));
        match renamed {
            Ok(()) => undone,
            Err(error) => Err(error.with_undo(undone.err().into_iter().collect())),
        }
    }

    fn record_name(&self, held: &mut Held, old: &Record, name: &ContainerName) -> Result<()> {
        match held {
            Held::Live(client) => {
                let body = serde_json::Value::String(name.to_string());
                // It may be just the answer that was lost. The supervisor does one
                // thing after the other: when it answers another question, it has
                // done this, or never will.
                let is_done = || {
                    if let Ok(Some(mut again)) = Client::connect(&self.dirs.live(&old.id)) {
                        let _ = again.command("look", serde_json::Value::Null, &[]);
                    }
                    self.record(&old.id).is_ok_and(|r| r.name == *name)
                };
                match client.command("rename", body, &[]) {
                    Err(_) if is_done() => Ok(()),
                    other => other.map(drop),
                }
            }
            Held::Still(record, _) => {
                let old = std::mem::replace(&mut record.name, name.clone());
                record.save(&self.dirs)?;
                let more = [("oldName", old.as_str())];
                self.note(&[events::of_container(record, "rename", &more)]);
                Ok(())
            }
        }
    }

    /// May a container whose folder is at `folder` have more names than the
    /// one in its record?
    pub(super) fn was_being_renamed(folder: &std::path::Path) -> bool {
        folder.join(MARK).exists()
    }
}
