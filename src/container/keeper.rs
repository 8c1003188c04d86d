//! The process between an `exec` command and the process that it starts.
//!
//! # Theory of operation
//! The first process of a pid namespace does not get to its end before every
//! other one in there has been reaped, and one that was put in from outside
//! is reaped by its parent outside. The command would be a bad parent: ^Z or
//! reading a terminal from the background stops it, and with `-d` it is gone,
//! perhaps without an init that adopts. A `dockless stop` would then wait for
//! the terminal of another user. So each exec has a *keeper*: out of reach of
//! the terminal, holding nothing but what it needs, it reaps, tells, and ends.
//!
//! ```text
//! command ── fork ──▶ keeper ── clone3 into the pid namespace ──▶ process
//! command ◀─ Born(pid, pidfd) or Failed ─ keeper
//! command ◀─ Ended(status) ────────────── keeper, which then ends
//! ```
//!
//! What the command and the process have to say to each other is in `sync.rs`;
//! the keeper takes no part in it.

use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result, Subject};
use crate::sys::fd;
use crate::sys::process::{self, ExitStatus, Fork, PidFd, SingleThreaded};

#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// Its pidfd comes along.
    Born(i32),
    Failed(Error),
    Ended(ExitStatus),
}

/// As for a child's last words in `sync.rs`.
const MAX: usize = 16 * 1024;

/// The command's side.
#[derive(Debug)]
pub(super) struct Keeper {
    words: OwnedFd,
    pidfd: PidFd,
}

/// Forks a keeper, in which `birth` makes the process. That one runs `life`,
/// which does not return; everything that it needs must be open already.
pub(super) fn start(
    token: &SingleThreaded,
    birth: impl FnOnce() -> Result<Fork>,
    life: impl FnOnce(),
) -> Result<(Keeper, i32, PidFd)> {
    let (words, its) = fd::seqpacket_pair()?;
    match process::fork(token)? {
        Fork::Parent { pidfd, .. } => {
            drop(its);
            let keeper = Keeper { words, pidfd };
            match keeper.hear()? {
                (Word::Born(pid), Some(fd)) => Ok((keeper, pid, PidFd::from_fd(fd))),
                (Word::Failed(error), _) => Err(error),
                _ => Err(gone()),
            }
        }
        Fork::Child => match birth() {
            Ok(Fork::Child) => {
                life();
                process::exit_now(1)
            }
            Ok(Fork::Parent { pid, pidfd }) => keep(&its, pid, &pidfd),
            Err(error) => {
                say(&its, &Word::Failed(error), None);
                process::exit_now(1)
            }
        },
    }
}

/// The keeper's own life. Nobody may be listening any more.
fn keep(words: &OwnedFd, pid: i32, child: &PidFd) -> ! {
    // First of all: the end of file at the command's side of the handshake
    // must come from the process alone, and so must that of its streams.
    let _ = process::set_title("dockless: keeper of an exec");
    let closed = process::close_all_except(&[words.as_fd(), child.as_fd()])
        .and_then(|()| process::null_streams())
        .and_then(|()| process::new_session());
    if let Err(error) = closed {
        say(words, &Word::Failed(error), None);
        let _ = child.signal(libc::SIGKILL);
    } else {
        let _ = nix::unistd::chdir("/");
        say(words, &Word::Born(pid), Some(child));
    }
    if let Ok(Some(status)) = child.wait(true) {
        say(words, &Word::Ended(status), None);
    }
    process::exit_now(0)
}

fn say(words: &OwnedFd, word: &Word, child: Option<&PidFd>) {
    let fds: Vec<_> = child.iter().map(AsFd::as_fd).collect();
    if let Ok(bytes) = serde_json::to_vec(word) {
        let _ = fd::send(words.as_fd(), &bytes, &fds);
    }
}

fn gone() -> Error {
    Error::state("wait for process", Subject::None, "its keeper was killed")
}

impl Keeper {
    fn hear(&self) -> Result<(Word, Option<OwnedFd>)> {
        let mut buffer = vec![0; MAX];
        let (length, mut fds) = fd::recv(self.words.as_fd(), &mut buffer)?;
        if length == 0 {
            return Err(gone());
        }
        let word = serde_json::from_slice(&buffer[..length])
            .map_err(|e| Error::parse("read the keeper's word", Subject::None, e))?;
        Ok((word, fds.pop()))
    }

    /// Until the process has ended.
    pub(super) fn wait(&self) -> Result<ExitStatus> {
        let status = match self.hear()?.0 {
            Word::Ended(status) => status,
            _ => return Err(gone()),
        };
        self.pidfd.wait(true)?;
        Ok(status)
    }
}
