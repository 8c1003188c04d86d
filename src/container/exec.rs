//! `exec`: another process in a running container's namespaces.
//!
//! # Theory of operation
//! Joining a pid namespace counts for children only. So the command sets the
//! namespace for its children, clones one straight into it, and sets its own
//! again: the new process is the command's child, to be waited for, without a
//! process in between. The child joins all else by the same pidfd, which
//! cannot come to mean another process.
//!
//! *Before it has given up its rights* the child is already visible in the
//! container's /proc. It is not dumpable until exec, so that nothing in there
//! can trace it or open the files it holds, dockless's binary among them
//! (the hole of CVE-2019-5736).

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;

use super::child::{self, Streams};
use super::launch::{executed, report};
use super::spec::ProcessSpec;
use super::sync;
use crate::base::{Error, Result, Subject};
use crate::sys::cgroup::Cgroup;
use crate::sys::features;
use crate::sys::process::{self, Fork, PidFd, SingleThreaded, clone_child};

/// A process running in the container beside its first one.
#[derive(Debug)]
pub struct Exec {
    pub pid: i32,
    pub pidfd: PidFd,
    /// The pty master, with `ExecStdio::Tty`.
    pub master: Option<OwnedFd>,
}

/// How the new process gets its standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    token: &SingleThreaded,
    init: &PidFd,
    cgroup: &[PathBuf],
    process: &ProcessSpec,
    stdio: ExecStdio,
) -> Result<Exec> {
    let cgroup = (!cgroup.is_empty())
        .then(|| Cgroup::open(cgroup))
        .transpose()?;
    let streams = match stdio {
        ExecStdio::Inherit { stdin } => Streams::Inherit { stdin },
        ExecStdio::Tty => Streams::Terminal,
        ExecStdio::Null => Streams::Files([None, None, None]),
    };
    // Asked for here, where /proc is the host's; the answer is remembered.
    features::in_user_namespace();
    let (end, child_end) = sync::pair()?;
    let into = cgroup.as_ref().and_then(Cgroup::clone_into);
    let forked = in_pid_namespace_of(init, || clone_child(token, 0, into))?;
    match forked {
        Fork::Child => {
            drop(end);
            report(&child_end, |end| {
                child::exec(end, init, cgroup.as_ref(), process, streams)
            })
        }
        Fork::Parent { pid, pidfd } => {
            drop(child_end);
            let outcome = end.go().and_then(|()| end.outcome()).and_then(executed);
            match outcome {
                Ok(master) => Ok(Exec { pid, pidfd, master }),
                Err(error) => {
                    pidfd.wait(true)?;
                    Err(error)
                }
            }
        }
    }
}

/// Children that `f` makes are born in the pid namespace of `init`, and
/// nothing in it may look into them.
fn in_pid_namespace_of(init: &PidFd, f: impl FnOnce() -> Result<Fork>) -> Result<Fork> {
    let fail = |op: &'static str| move |e| Error::sys(op, Subject::None, e);
    let own = open(
        "/proc/self/ns/pid",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(fail("open own pid namespace"))?;
    process::set_visible(false)?;
    setns(init.as_fd(), CloneFlags::CLONE_NEWPID)
        .map_err(fail("join the container's pid namespace"))?;
    let forked = f();
    if matches!(forked, Ok(Fork::Child)) {
        return forked;
    }
    // With another namespace for its children, a process can start no thread.
    setns(&own, CloneFlags::CLONE_NEWPID).map_err(fail("return to own pid namespace"))?;
    process::set_visible(true)?;
    forked
}
