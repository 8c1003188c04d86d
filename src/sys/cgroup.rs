//! One cgroup per container, on v1, hybrid and v2 machines.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crate::base::Result;

/// How this machine mounts its cgroups, read once from /proc/self/mountinfo
/// and /proc/self/cgroup.
#[derive(Clone, Debug)]
pub struct Hierarchies {}

/// A container's cgroup: its folder in every hierarchy.
#[derive(Debug)]
pub struct Cgroup {}

impl Hierarchies {
    pub fn detect() -> Result<Self> {
        todo!()
    }
    /// The folders a container's cgroup would have, for the undo journal,
    /// before any is made: `<hierarchy>/<parent of ours>/dockless/<id>`.
    pub fn folders(&self, _id: &str) -> Vec<PathBuf> {
        todo!()
    }
    /// Makes them and programs the device controller. On a machine or in a
    /// user namespace where no hierarchy is writable: `Ok(None)`.
    pub fn create(&self, _id: &str) -> Result<Option<Cgroup>> {
        todo!()
    }
}

impl Cgroup {
    /// Its folder in every hierarchy.
    pub fn folders(&self) -> &[PathBuf] {
        todo!()
    }
    /// Opens the folders of an existing one (for exec, pause, kill).
    pub fn open(_folders: &[PathBuf]) -> Result<Self> {
        todo!()
    }
    /// v2 only: the folder to pass to `clone_child`.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        todo!()
    }
    /// v1: open `tasks` files into which the child itself writes `0` before it
    /// execs. A thread that moves itself through `tasks` skips the kernel's
    /// cgroup_threadgroup_rwsem, whose write side costs an RCU grace period.
    pub fn join_files(&self) -> &[OwnedFd] {
        todo!()
    }
    /// Freezes or thaws all processes (`pause`).
    pub fn freeze(&self, _on: bool) -> Result<()> {
        todo!()
    }
    /// SIGKILL to every process in it, until none is left (bounded).
    pub fn kill(&self) -> Result<()> {
        todo!()
    }
}

/// Undo: kills what is in these folders and removes them; absent is fine.
pub fn remove(_folders: &[PathBuf]) -> Result<()> {
    todo!()
}

/// In the child: joins through the inherited `tasks` files.
pub fn join_self(_files: &[BorrowedFd<'_>]) -> Result<()> {
    todo!()
}
