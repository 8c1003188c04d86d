//! `exec`: another process in a running container's namespaces.
//!
//! # Theory of operation
//! Joining a pid namespace counts for children only. So the command sets the
//! namespace for its children, clones one straight into it, and sets its own
//! again: the new process is the command's child, to be waited for, without a
//! process in between. The child joins all else by the same pidfd, which
//! cannot come to mean another process.
//!
//! *Streams*: what the process can open once more through /proc/self/fd, it can
//! write to, change the mode of and, if it is a terminal, configure, whatever
//! it was opened for. So only anonymous pipes of the caller are handed over as
//! they are; for anything else of the host's (a file, a terminal, a socket,
//! /dev/null) the process gets a pipe, and the caller copies.
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
use crate::sys::process::{self, Fork, PidFd, SingleThreaded, clone_child};
use crate::sys::{fd, features};

/// A process running in the container beside its first one.
#[derive(Debug)]
pub struct Exec {
    pub pid: i32,
    pub pidfd: PidFd,
    /// Our ends of those streams that the caller must copy
    /// ([`interact`](super::interact::interact)): of pipes, or the pty's master.
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// How the new process gets its standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecStdio {
    /// The caller's fds 0 (with `stdin`), 1 and 2; with `ProcessSpec::tty`
    /// through a pty of the container's devpts.
    Attached { stdin: bool },
    /// The container's /dev/null everywhere (`-d`).
    Null,
}

/// Our ends of the streams that are to be copied.
type Ours = [Option<OwnedFd>; 3];

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
    let (ours, streams) = match stdio {
        ExecStdio::Attached { .. } if process.tty => (Ours::default(), Streams::Terminal),
        ExecStdio::Attached { stdin } => pipes(stdin)?,
        ExecStdio::Null => (Ours::default(), Streams::Files([None, None, None])),
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
            // The end of file that each of these means.
            drop((child_end, streams));
            let outcome = end.go().and_then(|()| end.outcome()).and_then(executed);
            match outcome {
                Ok(master) => {
                    let [stdin, stdout, stderr] = match master {
                        Some(master) => terminal(master, stdio)?,
                        None => ours,
                    };
                    Ok(Exec {
                        pid,
                        pidfd,
                        stdin,
                        stdout,
                        stderr,
                    })
                }
                Err(error) => {
                    pidfd.wait(true)?;
                    Err(error)
                }
            }
        }
    }
}

/// The process's streams and our ends of them.
fn pipes(with_stdin: bool) -> Result<(Ours, Streams)> {
    let (mut ours, mut theirs) = (Ours::default(), Ours::default());
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for (at, caller) in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]
        .into_iter()
        .enumerate()
    {
        if at == 0 && !with_stdin {
            continue;
        }
        if fd::is_anonymous_pipe(caller) {
            theirs[at] = Some(fd::duplicate(caller)?);
            continue;
        }
        let (read, write) = fd::pipe()?;
        (theirs[at], ours[at]) = match at {
            0 => (Some(read), Some(write)),
            _ => (Some(write), Some(read)),
        };
    }
    Ok((ours, Streams::Files(theirs)))
}

fn terminal(master: OwnedFd, stdio: ExecStdio) -> Result<Ours> {
    let stdin = match stdio {
        ExecStdio::Attached { stdin: true } => Some(fd::duplicate(master.as_fd())?),
        _ => None,
    };
    Ok([stdin, Some(master), None])
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
