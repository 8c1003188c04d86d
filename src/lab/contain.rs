//! Nothing outlives the lab: the demo runs as first process of a pid
//! namespace, watched from outside.
//!
//! # Theory of operation
//! ```text
//!   outer   waits; owns the terminal's signals
//!     └─ inner   pid 1 of a new pid namespace: the lab, the containers,
//!                their supervisors, all of which die with it
//! ```
//! *The outer is interrupted* (SIGINT, SIGTERM, SIGHUP, SIGQUIT): it kills the
//! inner, and with it the kernel kills every process of the namespace; their
//! network namespaces and mounts go with them. What is not in a namespace
//! (cgroup folders) is then undone by `undo`, from the journals.
//! *The outer is killed*: a pipe of which it held the only writing end closes;
//! a thread of the inner wakes up, kills everybody else in the namespace, runs
//! `undo` and ends. *The inner is killed*: the outer sees it end, and runs
//! `undo`. Only when both are killed at once may empty cgroup folders stay.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::base::{Error, Result, Subject};
use crate::sys::fd;
use crate::sys::process::{self, ExitStatus, Fork, PidFd, SingleThreaded};

/// How a contained run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this exit code.
    Code(u8),
    /// By a signal to us; nothing of it is left.
    Interrupted(i32),
    /// Somebody killed it.
    Killed(i32),
}

/// Runs `body` in a pid and a mount namespace of its own, in this process's
/// network. `undo` takes back what no namespace holds; it runs in whichever
/// process is left when the run does not end by itself.
///
/// To be called before any thread is started, after [`enter`](super::enter).
pub fn contain(body: impl FnOnce() -> u8, undo: impl Fn() + Send + 'static) -> Result<Ended> {
    let token = SingleThreaded::prove()?;
    let (alive, held) = fd::pipe()?;
    let mask = process::block_signals()?;
    let signals = interruptions()?;
    let namespaces = libc::CLONE_NEWPID | libc::CLONE_NEWNS;
    let namespaces = u64::try_from(namespaces).unwrap_or_default();
    match process::clone_child(&token, namespaces, None)? {
        Fork::Child => {
            drop((held, signals));
            let ending = Arc::new(AtomicBool::new(false));
            let code = match settle(alive, Arc::clone(&ending), undo) {
                Ok(()) => body(),
                Err(error) => {
                    eprintln!("dockless: {error}");
                    1
                }
            };
            // Then the other thread has the last word.
            while ending.load(Ordering::SeqCst) {
                std::thread::park();
            }
            std::process::exit(code.into())
        }
        Fork::Parent { pidfd, .. } => {
            drop(alive);
            let ended = watch(&pidfd, &signals)?;
            process::restore_signals(&mask)?;
            if !matches!(ended, Ended::Code(_)) {
                undo();
            }
            Ok(ended)
        }
    }
}

fn interruptions() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        set.add(signal);
    }
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)
        .map_err(|e| Error::sys("watch for signals", Subject::None, e))
}

/// The outer process: waits for the inner's end or for a signal.
fn watch(inner: &PidFd, signals: &SignalFd) -> Result<Ended> {
    let failed = |e| Error::sys("wait for", "the contained process", e);
    loop {
        let mut fds = [
            PollFd::new(inner.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(failed(e)),
        }
        let interrupted = fds[1].any().unwrap_or_default();
        if let Some(status) = inner.wait(false)? {
            return Ok(match status {
                ExitStatus::Code(code) => Ended::Code(u8::try_from(code).unwrap_or(1)),
                ExitStatus::Signal(signal) => Ended::Killed(signal),
            });
        }
        if interrupted && let Some(got) = signals.read_signal().map_err(failed)? {
            inner.signal(libc::SIGKILL)?;
            inner.wait(true)?;
            let signal = i32::try_from(got.ssi_signo).unwrap_or(libc::SIGTERM);
            return Ok(Ended::Interrupted(signal));
        }
    }
}

/// The inner process: its own /proc, and the thread that notices the outer's
/// death.
fn settle(alive: OwnedFd, ending: Arc<AtomicBool>, undo: impl Fn() + Send + 'static) -> Result<()> {
    let nothing = None::<&str>;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), flags, nothing).map_err(|e| {
        Error::sys("mount", "/proc", e).hint(
            "a container whose /proc is masked forbids it: give it an unmasked /proc \
             (Docker: --security-opt systempaths=unconfined), or run outside of it",
        )
    })?;
    std::thread::Builder::new()
        .name(String::from("outer"))
        .spawn(move || {
            // Nothing is ever written: reading ends when the outer is gone.
            let mut byte = [0];
            while let Err(nix::Error::EINTR) = nix::unistd::read(&alive, &mut byte) {}
            ending.store(true, Ordering::SeqCst);
            end_all();
            undo();
            process::exit_now(1);
        })
        .map(drop)
        .map_err(|e| Error::sys("start thread", "outer", e))
}

/// Kills every other process of the namespace and waits until they are gone,
/// those too that the body starts while it finds out that it failed.
fn end_all() {
    // -1 is everybody but the caller and, as pid 1, we reach all of them.
    while kill(Pid::from_raw(-1), Signal::SIGKILL).is_ok() {
        let _ = waitpid(Pid::from_raw(-1), None);
    }
}

/// Reaps orphans: whoever is left without a parent becomes a child of the
/// namespace's first process. Not while a command of ours runs: its own waiter
/// would miss it.
pub fn reap_orphans() {
    let any = Pid::from_raw(-1);
    while let Ok(status) = waitpid(any, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
