//! Processes by pidfd, clone3 and the proof that a process has one thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::base::Result;

/// Proof that this process had one thread when asked: forking with a second
/// one around could copy a lock in its locked state.
#[derive(Debug)]
pub struct SingleThreaded(());

impl SingleThreaded {
    pub fn prove() -> Result<Self> {
        todo!()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

impl ExitStatus {
    /// Docker's number: the code, or 128 + the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A child or another process, held by pidfd so that its pid cannot be reused
/// under us.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }
    pub fn open(_pid: i32) -> Result<Self> {
        todo!()
    }
    /// pidfd_send_signal(2). A process that is gone is not an error: Ok(false).
    pub fn signal(&self, _signal: i32) -> Result<bool> {
        todo!()
    }
    /// waitid(P_PIDFD, WEXITED): reaps a child. None with `block == false`
    /// when it still runs.
    pub fn wait(&self, _block: bool) -> Result<Option<ExitStatus>> {
        todo!()
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Which side of a fork the caller is on.
#[derive(Debug)]
pub enum Fork {
    Child,
    Parent { pid: i32, pidfd: PidFd },
}

/// clone3(2) without a shared address space. `namespaces` are CLONE_NEW*
/// bits; `into_cgroup` is a cgroup v2 folder (CLONE_INTO_CGROUP).
/// SIGCHLD is the exit signal, the pidfd is CLOEXEC.
pub fn clone_child(
    _token: &SingleThreaded,
    _namespaces: u64,
    _into_cgroup: Option<BorrowedFd<'_>>,
) -> Result<Fork> {
    todo!()
}

/// close_range(2) on everything from 3 up except `keep`.
pub fn close_all_except(_keep: &[BorrowedFd<'_>]) -> Result<()> {
    todo!()
}

/// prctl(PR_SET_PDEATHSIG): this process dies with its parent. The caller
/// must check afterwards that the parent is still there.
pub fn die_with_parent(_signal: i32) -> Result<()> {
    todo!()
}
