//! `exec`: another process in a running container's namespaces.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::spec::ProcessSpec;
use crate::base::Result;
use crate::sys::process::{PidFd, SingleThreaded};

/// A process running in the container beside its first one.
#[derive(Debug)]
pub struct Exec {
    pub pid: i32,
    pub pidfd: PidFd,
    /// The pty master, with `ExecStdio::Tty`.
    pub master: Option<OwnedFd>,
}

/// How the new process gets its standard streams.
#[derive(Debug)]
pub enum ExecStdio {
    /// Straight the caller's own fds 0, 1, 2 (no tty, attached): no copying.
    Inherit { stdin: bool },
    /// A pty from the container's devpts; its master comes back in `Exec`.
    Tty,
    /// /dev/null everywhere (`-d`).
    Null,
}

/// Joins all namespaces of `init` through its pidfd, enters its cgroup
/// folders, applies Docker's capabilities and seccomp filter, execs.
/// Returns when exec has worked; `Cause::Exec` if not.
pub fn spawn(
    _token: &SingleThreaded,
    _init: &PidFd,
    _cgroup: &[PathBuf],
    _process: &ProcessSpec,
    _stdio: ExecStdio,
) -> Result<Exec> {
    todo!()
}
