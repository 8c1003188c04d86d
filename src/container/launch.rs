//! Start of a container, the parent's side of the handshake.
//!
//! # Theory of operation
//! The supervisor clones the child before there is a network: the child mounts
//! on one core while the parent talks netlink on another. What crosses between
//! them, and how each learns of the other's end, is in `sync.rs`; what the
//! child does, stage by stage, in `child.rs`.
//!
//! ```text
//! supervisor                                child, pid 1 of its namespaces
//! clone() ────────── clone3 ──────────────▶ cgroup, session, root file system
//! makes the network
//! join()  ────────── Netns(fd) ───────────▶ joins, /sys, pivot, user, seccomp
//! ready() ◀───────── Ready(pty) ──────────
//! go()    ────────── Go ──────────────────▶
//!         ◀───────── end of file ───────── exec
//! ```
//!
//! Until [`Cloned::go`] has returned, dropping the clone kills and reaps the
//! child, and with it all that it mounted.

use std::os::fd::OwnedFd;

use super::child::{self, Streams};
use super::spec::LaunchSpec;
use super::sync::{self, ChildEnd, Outcome, ParentEnd};
use crate::base::{Error, Result};
use crate::sys::cgroup::Cgroup;
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::process::{self, Fork, PidFd, SingleThreaded, clone_child};
use crate::sys::{apparmor, fd, features, own_file};

/// The supervisor's ends of the container's standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// Pipes. stdin is `None` unless kept open (`-i`): then /dev/null.
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The pty master (`-t`), born in the container's own devpts.
    Tty(OwnedFd),
}

/// The child, cloned and building its root file system while the caller makes
/// the network. Dropping it kills and reaps the child.
#[derive(Debug)]
pub struct Cloned {
    child: Child,
    end: ParentEnd,
    /// `None` with a terminal, whose master the child sends.
    pipes: Option<Stdio>,
}

/// A process that is killed and reaped unless it is let go of.
#[derive(Debug)]
struct Child {
    pid: i32,
    pidfd: Option<PidFd>,
}

/// The program runs.
#[derive(Debug)]
pub struct Running {
    pub pid: i32,
    pub pidfd: PidFd,
    pub stdio: Stdio,
}

const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;

/// Clones the child into fresh mount, pid, uts, ipc (and, where they exist,
/// cgroup on v2 and time) namespaces; not net: that one is joined by fd.
/// Returns at once; the child works on mounts that need no network namespace.
pub fn clone(
    token: &SingleThreaded,
    spec: &LaunchSpec,
    cgroup: Option<&Cgroup>,
    open_stdin: bool,
) -> Result<Cloned> {
    let (end, child_end) = sync::pair()?;
    let (pipes, streams) = if spec.process.tty {
        (None, Streams::Terminal)
    } else {
        let (pipes, streams) = pipes(open_stdin)?;
        (Some(pipes), streams)
    };
    let mut namespaces = NAMESPACES;
    if features::time_namespaces() {
        namespaces |= libc::CLONE_NEWTIME;
    }
    // Asked for here, where /proc and /sys are the host's; the answers are
    // remembered.
    features::in_user_namespace();
    apparmor::has_profile();
    let into = cgroup.and_then(Cgroup::clone_into);
    match clone_child(token, u64::from(namespaces.unsigned_abs()), into)? {
        Fork::Child => {
            drop(end);
            report(&child_end, |end| child::launch(end, spec, cgroup, streams))
        }
        Fork::Parent { pid, pidfd } => Ok(Cloned {
            child: Child {
                pid,
                pidfd: Some(pidfd),
            },
            end,
            pipes,
        }),
    }
}

/// The whole life of a child that does not get to exec: it says why and ends.
pub(super) fn report(
    end: &ChildEnd,
    run: impl FnOnce(&ChildEnd) -> Result<std::convert::Infallible>,
) -> ! {
    match run(end) {
        Ok(never) => match never {},
        Err(error) => end.failed(&error),
    }
    process::exit_now(1)
}

fn pipes(open_stdin: bool) -> Result<(Stdio, Streams)> {
    let (stdin, input) = if open_stdin {
        let (read, write) = fd::pipe()?;
        (Some(write), Some(read))
    } else {
        (None, None)
    };
    let (stdout, output) = fd::pipe()?;
    let (stderr, errors) = fd::pipe()?;
    let ours = Stdio::Pipes {
        stdin,
        stdout,
        stderr,
    };
    Ok((ours, Streams::Files([input, Some(output), Some(errors)])))
}

impl Cloned {
    /// Hands over the network namespace; the child joins it and mounts /sys.
    pub fn join(&mut self, netns: &Netns<Sandbox>) -> Result<()> {
        use std::os::fd::AsFd;
        self.end.give_netns(netns.as_fd())
    }

    /// Returns when nothing but exec is left to do, for a caller with a last
    /// question: the child does not wait before that.
    pub fn ready(&mut self) -> Result<()> {
        self.end.await_ready()
    }

    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Waits until the child is filtered and ready, lets it exec, does something
    /// else `meanwhile`, and returns when exec has worked. A failed stage is that
    /// stage's error; a failed exec `Cause::Exec { errno, text }` with Docker's
    /// text (`exec: "x": executable file not found in $PATH`).
    pub fn go(mut self, meanwhile: impl FnOnce()) -> Result<Running> {
        self.end.go()?;
        meanwhile();
        let pty = executed(self.end.outcome()?)?;
        if own_file::is_run_by(self.child.pid)? {
            return Err(Error::state(
                "start container",
                "its program",
                "it leads to dockless itself, by way of /proc/self/exe",
            ));
        }
        let stdio = match (self.pipes.take(), pty) {
            (Some(pipes), _) => pipes,
            (None, Some(master)) => Stdio::Tty(master),
            (None, None) => {
                return Err(Error::state(
                    "start container",
                    "its first process",
                    "its terminal did not arrive",
                ));
            }
        };
        let pid = self.child.pid;
        let pidfd = self.child.release()?;
        Ok(Running { pid, pidfd, stdio })
    }
}

/// exec has worked, or the child is dead without a word.
pub(super) fn executed(outcome: Outcome) -> Result<Option<OwnedFd>> {
    match outcome {
        Outcome::Executed(pty) => Ok(pty),
        Outcome::Died => Err(sync::died()),
    }
}

impl Child {
    fn release(&mut self) -> Result<PidFd> {
        self.pidfd
            .take()
            .ok_or_else(|| Error::state("start container", "its process", "already let go of"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            // Nowhere to report to; an ended child is reaped all the same.
            let _ = pidfd.signal(libc::SIGKILL);
            let _ = pidfd.wait(true);
        }
    }
}
