//! Who is meant: names, ids and id prefixes of containers and networks.
//!
//! A container's name is a symbolic link `<root>/names/<name>` to its id, made
//! before the container: symlink(2) is atomic, so two commands cannot take the
//! same name. A link whose container is nowhere, or has another name in its
//! record, is a dead command's: it is taken over by the next who wants the
//! name, and removed by recovery. No journal names it, because undoing must
//! never take somebody else's name. Renaming (`rename.rs`) is done under the lock
//! under which dead links are taken over.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::Engine;
use super::record::Record;
use crate::base::{ContainerId, ContainerName, Error, Result};
use crate::store::{Lock, file};
use crate::sys::random;

impl Engine {
    fn name_path(&self, name: &ContainerName) -> PathBuf {
        self.dirs.root().join("names").join(name.as_str())
    }

    /// Takes a name for `id`.
    pub(super) fn claim_name(&self, name: &ContainerName, id: &ContainerId) -> Result<()> {
        if self.take_name(name, id)? {
            return Ok(());
        }
        // It is somebody's, or a dead command's: then two could take it over.
        let _lock = self.name_lock()?;
        self.claim_name_locked(name, id)
    }

    fn take_name(&self, name: &ContainerName, id: &ContainerId) -> Result<bool> {
        let path = self.name_path(name);
        match symlink(id.as_str(), &path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(file::explain("take name", &path, e)),
        }
    }

    /// The same for a caller that holds the name lock.
    pub(super) fn claim_name_locked(&self, name: &ContainerName, id: &ContainerId) -> Result<()> {
        let path = self.name_path(name);
        while !self.take_name(name, id)? {
            if let Some(holder) = self.holder_of_name(&path)?
                && self.bears(&holder, name.as_str())?
            {
                return Err(Error::conflict(format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
                )));
            }
            remove_file(&path)?;
        }
        Ok(())
    }

    /// Whom a name leads to, if to anybody.
    fn holder_of_name(&self, path: &Path) -> Result<Option<ContainerId>> {
        match std::fs::read_link(path) {
            Ok(target) => Ok(ContainerId::new(target.to_string_lossy().into_owned()).ok()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(unreadable(path, e)),
        }
    }

    /// Held while a container is given another name.
    pub(super) fn name_lock(&self) -> Result<Lock> {
        Lock::acquire(&self.dirs.state().join("names.lock"))
    }

    /// Is this the name of that container, as far as its record can be read?
    pub(super) fn bears(&self, id: &ContainerId, name: &str) -> Result<bool> {
        match Record::load(&self.dirs, id) {
            Ok(Some(record)) => Ok(record.name.as_str() == name),
            Ok(None) => Lock::is_held(&self.dirs.lock(id)),
            Err(_) => Ok(true),
        }
    }

    /// Whether a name that `id` has claimed is still its own.
    pub(super) fn still_claims(&self, name: &ContainerName, id: &ContainerId) -> Result<()> {
        match self.holder_of_name(&self.name_path(name))? {
            Some(holder) if holder == *id => Ok(()),
            _ => Err(Error::conflict(format!(
                "the name {name} was given to another container meanwhile"
            ))),
        }
    }

    pub(super) fn release_name(&self, name: &ContainerName, id: &ContainerId) -> Result<()> {
        let path = self.name_path(name);
        match std::fs::read_link(&path) {
            Ok(target) if target == Path::new(id.as_str()) => remove_file(&path),
            _ => Ok(()),
        }
    }

    /// All names that lead to `id`, but one.
    pub(super) fn release_names(
        &self,
        id: &ContainerId,
        keep: Option<&ContainerName>,
    ) -> Result<()> {
        let folder = self.dirs.root().join("names");
        for name in list(&folder)? {
            let path = folder.join(&name);
            if keep.is_none_or(|keep| keep.as_str() != name)
                && std::fs::read_link(&path).is_ok_and(|t| t == Path::new(id.as_str()))
            {
                remove_file(&path)?;
            }
        }
        Ok(())
    }

    /// Recorded, or being made by a live command.
    pub(super) fn exists(&self, id: &ContainerId) -> Result<bool> {
        Ok(Record::exists(&self.dirs, id) || Lock::is_held(&self.dirs.lock(id))?)
    }

    /// Every container on this machine, in no order.
    pub(super) fn ids(&self) -> Result<BTreeSet<ContainerId>> {
        let mut ids = BTreeSet::new();
        for folder in ["root", "state"] {
            let top = if folder == "root" {
                self.dirs.root()
            } else {
                self.dirs.state()
            };
            ids.extend(
                list(&top.join("containers"))?
                    .into_iter()
                    .filter_map(|n| ContainerId::new(n).ok()),
            );
        }
        Ok(ids)
    }

    /// The container of that name.
    pub(super) fn named(&self, name: &ContainerName) -> Result<Option<ContainerId>> {
        match self.holder_of_name(&self.name_path(name))? {
            Some(id) if self.bears(&id, name.as_str())? => Ok(Some(id)),
            _ => Ok(None),
        }
    }

    /// Full id, then name, then a prefix of one id only.
    pub(super) fn find(&self, wanted: &str) -> Result<ContainerId> {
        let missing = || Error::not_found(format!("No such container: {wanted}"));
        if let Ok(id) = ContainerId::new(wanted) {
            return if self.exists(&id)? {
                Ok(id)
            } else {
                Err(missing())
            };
        }
        let bare = wanted.strip_prefix('/').unwrap_or(wanted);
        if let Ok(name) = ContainerName::new(bare)
            && let Some(id) = self.named(&name)?
        {
            return Ok(id);
        }
        if wanted.is_empty() {
            return Err(Error::invalid(
                "invalid container name or ID: value is empty",
            ));
        }
        let mut hits = self
            .ids()?
            .into_iter()
            .filter(|id| id.as_str().starts_with(wanted));
        match (hits.next(), hits.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(missing()),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "Multiple IDs found with provided prefix: {wanted}"
            ))),
        }
    }

    /// A name nobody has, in Docker's taste.
    pub(super) fn invent_name(&self) -> Result<ContainerName> {
        let mut last = None;
        for attempt in 0..8 {
            let [a, b, n] = random::bytes::<3>()?;
            let left = LEFT[usize::from(a) % LEFT.len()];
            let right = RIGHT[usize::from(b) % RIGHT.len()];
            let tail = if attempt == 0 {
                String::new()
            } else {
                n.to_string()
            };
            let name = ContainerName::new(format!("{left}_{right}{tail}"))?;
            if !self.name_path(&name).is_symlink() {
                return Ok(name);
            }
            last = Some(name);
        }
        last.ok_or_else(|| Error::conflict("no free container name found: give one with --name"))
    }
}

/// Names in a folder; none when it is not there. Hidden ones are half-written
/// files.
pub(super) fn list(folder: &Path) -> Result<Vec<String>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|e| Error::sys("list", folder, e))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::sys("list", folder, e))?;
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove_file(path: &Path) -> Result<()> {
    crate::store::file::remove(path)
}

const LEFT: [&str; 32] = [
    "admiring", "agile", "bold", "brave", "busy", "calm", "clever", "cool", "eager", "elegant",
    "fervent", "focused", "gallant", "gifted", "happy", "hopeful", "jolly", "keen", "kind",
    "lucid", "modest", "nifty", "patient", "quirky", "serene", "sharp", "silly", "stoic", "tender",
    "upbeat", "vivid", "zen",
];

const RIGHT: [&str; 32] = [
    "babbage", "banach", "bell", "bohr", "cerf", "curie", "davinci", "dijkstra", "einstein",
    "euler", "faraday", "fermat", "galileo", "gauss", "hamilton", "hopper", "johnson", "kepler",
    "lamarr", "lovelace", "maxwell", "metcalfe", "newton", "noether", "pascal", "perlman",
    "postel", "ritchie", "shannon", "tesla", "turing", "wozniak",
];

/// A name that leads nowhere because of what it is, or of who asks.
fn unreadable(path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        // EINVAL
        ErrorKind::InvalidInput => Error::sys("read name", path, error)
            .hint("it should be a symbolic link to a container's id: if it is not, remove it"),
        _ => file::explain("read name", path, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_read_a_name_is_not_told_to_remove_it() {
        let of = |errno| {
            unreadable(
                Path::new("names/web"),
                std::io::Error::from_raw_os_error(errno),
            )
        };
        assert!(of(libc::EINVAL).to_string().contains("remove it"));
        let refused = of(libc::EACCES);
        assert!(refused.hint.is_some(), "{refused}");
        assert!(!refused.to_string().contains("remove it"), "{refused}");
    }
}
