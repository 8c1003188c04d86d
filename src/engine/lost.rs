//! Containers that run although their state folder is lost (`rm -rf
//! /run/dockless`, a tmpfs that was unmounted): whoever comes next ends them, as
//! it would end what a dead supervisor has left.
//!
//! *Theory of operation.* Without lock, journal and socket, what tells of such a
//! container is its folder in the root, its cgroups, whose names follow from its
//! id, and its supervisor, whose title has the id. The cgroups are killed; the
//! supervisor sees its program's death, takes its network back and ends, and is
//! waited for. Only ids with a folder in our own root are looked at: what another
//! installation on this machine runs is not ours to end.
//!
//! *Is it lost?* Another state folder may be in use with this root (a forgotten
//! `--state`). The supervisor holds its lock file open: where that file is still
//! at its path, in the supervisor's own mount namespace, nothing is lost and
//! nothing is touched.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Engine;
use super::record::Record;
use crate::base::{ContainerId, Error, Result};
use crate::sys::cgroup::{self, Hierarchies};
use crate::sys::process::PidFd;

/// How long its supervisor may take for the network, once the program is dead.
const PATIENCE: Duration = Duration::from_secs(10);

/// A supervisor and its lock file.
struct Supervisor {
    process: PidFd,
    pid: i32,
    /// Where its lock is; `None`: nowhere any more.
    lock: Option<PathBuf>,
}

impl Engine {
    /// Ends container `id`, if it runs and nothing here knows of it; its lock
    /// is held.
    pub(super) fn end_lost(
        &self,
        id: &ContainerId,
        record: Option<&Record>,
        did: &mut Vec<String>,
    ) -> Result<()> {
        let may_run = match record {
            Some(record) => record.state.status.is_live(),
            // One with `--rm`, whose record was in the state folder.
            None => self.dirs.container(id).exists(),
        };
        if !may_run || self.dirs.live(id).exists() {
            return Ok(());
        }
        let supervisor = match record {
            Some(record) => supervisor(id, record.state.supervisor),
            None => pids().find_map(|pid| supervisor(id, pid)),
        };
        if let Some(lock) = supervisor.as_ref().and_then(|s| s.lock.as_ref()) {
            let state = lock.ancestors().nth(2).unwrap_or(lock);
            return Err(Error::conflict(format!(
                "container {} runs under another state folder, {}",
                id.short(),
                state.display()
            ))
            .hint("name that one: --state DIR or DOCKLESS_STATE"));
        }
        let mut folders = Hierarchies::detect()?.folders(id.as_str());
        if let Some(record) = record {
            folders.extend(record.state.cgroup.iter().cloned());
            folders.sort();
            folders.dedup();
        }
        folders.retain(|folder| folder.exists());
        if folders.is_empty() && supervisor.is_none() {
            return Ok(());
        }
        if let Some(supervisor) = &supervisor
            && folders.is_empty()
        {
            // Without cgroups: it ends its program itself.
            supervisor.process.signal(libc::SIGTERM)?;
        }
        cgroup::remove(&folders)?;
        if let Some(supervisor) = supervisor
            && !supervisor.process.ended(PATIENCE)?
        {
            return Err(Error::state(
                "end container",
                id.short(),
                "its program is dead, and its supervisor is not",
            )
            .hint(format!("`kill -9 {}` ends it", supervisor.pid)));
        }
        did.push(format!(
            "{}: ended a container whose state folder was lost",
            id.short()
        ));
        Ok(())
    }
}

/// Process `pid`, if it is the supervisor of container `id`.
fn supervisor(id: &ContainerId, pid: i32) -> Option<Supervisor> {
    let process = (pid > 0).then(|| PidFd::open(pid).ok())??;
    let proc = Path::new("/proc").join(pid.to_string());
    // Asked while the pidfd pins the number.
    let title = std::fs::read(proc.join("cmdline")).ok()?;
    let title = String::from_utf8_lossy(&title);
    let title = title.trim_end_matches('\0').trim_end();
    if !title.starts_with("dockless: supervisor of ")
        || !title.ends_with(&format!("({})", id.short()))
    {
        return None;
    }
    let fds = std::fs::read_dir(proc.join("fd")).ok()?;
    let held = |fd: std::fs::DirEntry| {
        let target = std::fs::read_link(fd.path()).ok()?;
        let text = target.to_string_lossy();
        let path = Path::new(text.strip_suffix(" (deleted)").unwrap_or(&text)).to_owned();
        path.ends_with(Path::new("locks").join(id.as_str()))
            .then(|| (std::fs::metadata(fd.path()), path))
    };
    let (open, path) = fds.flatten().find_map(held)?;
    // The path as that process sees it.
    let there = std::fs::metadata(proc.join("root").join(path.strip_prefix("/").ok()?));
    let is_same = match (open, there) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    };
    Some(Supervisor {
        process,
        pid,
        lock: is_same.then_some(path),
    })
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}
