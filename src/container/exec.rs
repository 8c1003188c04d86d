//! `exec`: another process in a running container's namespaces.
//!
//! # Theory of operation
//! Joining a pid namespace counts for children only. So the command forks a
//! keeper (`keeper.rs`), which sets the namespace for its children and clones
//! one straight into it: the new process. It joins all else by the same pidfd,
//! which cannot come to mean another process.
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

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sched::{CloneFlags, setns};

use super::child::{self, Streams};
use super::keeper::{self, Keeper};
use super::launch::{executed, report};
use super::spec::ProcessSpec;
use super::sync;
use crate::base::{Error, Result, Subject};
use crate::sys::cgroup::Cgroup;
use crate::sys::process::{self, ExitStatus, Fork, PidFd, SingleThreaded, clone_child};
use crate::sys::{apparmor, fd, features};

/// A process running in the container beside its first one.
#[derive(Debug)]
pub struct Exec {
    pub pid: i32,
    /// To see its end; for its status, [`Exec::wait`].
    pub pidfd: PidFd,
    keeper: Keeper,
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
    // Asked for here, where /proc and /sys are the host's; the answers are
    // remembered.
    features::in_user_namespace();
    apparmor::has_profile();
    let (mut end, child_end) = sync::pair()?;
    let birth = || {
        let into = cgroup.as_ref().and_then(Cgroup::clone_into);
        birth(token, init, into)
    };
    let life = || {
        report(&child_end, |end| {
            child::exec(end, init, cgroup.as_ref(), process, streams)
        })
    };
    let (keeper, pid, pidfd) = keeper::start(token, birth, life)?;
    // Now only the process's own copy keeps the handshake open.
    drop(child_end);
    let master = end.go().and_then(|()| end.outcome()).and_then(executed);
    let [stdin, stdout, stderr] = match master {
        Ok(Some(master)) => terminal(master, stdio)?,
        Ok(None) => ours,
        Err(error) => {
            keeper.wait()?;
            return Err(error);
        }
    };
    Ok(Exec {
        pid,
        pidfd,
        keeper,
        stdin,
        stdout,
        stderr,
    })
}

impl Exec {
    pub fn wait(&self) -> Result<ExitStatus> {
        self.keeper.wait()
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

/// In the keeper: the new process is born in the pid namespace of `init`, and
/// nothing in there may look into it.
fn birth(token: &SingleThreaded, init: &PidFd, into: Option<BorrowedFd<'_>>) -> Result<Fork> {
    process::set_visible(false)?;
    setns(init.as_fd(), CloneFlags::CLONE_NEWPID)
        .map_err(|e| Error::sys("join the container's pid namespace", Subject::None, e))?;
    clone_child(token, 0, into)
}
