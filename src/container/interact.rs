//! `exec`: the user's standard streams on one side, the new process's terminal
//! or pipes on the other. Both are in this process, so bytes are only copied.
//!
//! # Theory of operation
//! One poll loop over up to three [`Flow`]s. It sleeps nowhere else: a process
//! that does not read its input must not keep us from reading its output. Our
//! own ends are non-blocking; the user's streams may be shared with a shell and
//! are left as they are, so they are written to when poll says so, and not
//! more at once than a pipe with any room must take (PIPE_BUF).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{read, write};

use super::attach::{DetachFilter, DetachKeys, RawTerminal, size};
use super::exec::Exec;
use super::tty;
use crate::base::{Error, Result, Subject};
use crate::sys::process::{self, ExitStatus, Fork, PidFd, SingleThreaded};

const PIPE_BUF: usize = 4096;
const CHUNK: usize = 16 * 1024;

fn fail(op: &'static str, errno: Errno) -> Error {
    Error::sys(op, Subject::None, errno)
}

/// Copies until the process has ended and what it wrote is passed on, or the
/// user has typed the `keys` of a terminal to leave it alone (`None`); the
/// user's terminal and the signal mask are restored on every way out.
pub fn interact(
    token: &SingleThreaded,
    mut exec: Exec,
    keys: Option<DetachKeys>,
) -> Result<Option<ExitStatus>> {
    let tty = keys.is_some();
    let (stdin, stdout, stderr) = (exec.stdin.take(), exec.stdout.take(), exec.stderr.take());
    if stdin.is_some() || stdout.is_some() || stderr.is_some() {
        let (user_in, user_out, user_err) =
            (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let raw = match tty && stdin.is_some() {
            true => RawTerminal::enter(user_in.as_fd())?,
            false => None,
        };
        let resizes = tty.then(Resizes::catch).transpose()?;
        let mut flows = [
            Flow::new(stdin, user_in.as_fd(), Way::In)?,
            Flow::new(stdout, user_out.as_fd(), Way::Out)?,
            Flow::new(stderr, user_err.as_fd(), Way::Out)?,
        ];
        flows[0].keys = keys.map(DetachFilter::new);
        copy(&exec.pidfd, &mut flows, resizes.as_ref())?;
        drop(raw);
        if flows[0].detached {
            let [_, stdout, _] = flows;
            return stdout
                .ours
                .map_or(Ok(()), |fd| drain(token, &fd))
                .map(|()| None);
        }
    }
    exec.wait().map(Some)
}

/// A process that reads what nobody wants to see any more: without a holder of
/// its other side, the terminal would hang up on whoever uses it.
fn drain(token: &SingleThreaded, master: &OwnedFd) -> Result<()> {
    let Fork::Child = process::fork(token)? else {
        return Ok(());
    };
    let left = process::new_session()
        .and_then(|()| process::null_streams())
        .and_then(|()| process::close_all_except(&[master.as_fd()]));
    let _ = nix::unistd::chdir("/");
    let _ = process::set_title("dockless: reader of a terminal that was left");
    let mut buffer = [0; 4096];
    let mut fds = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
    while left.is_ok() && poll(&mut fds, PollTimeout::NONE).is_ok() {
        match read(master, &mut buffer) {
            Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR) => {}
            // EIO: the last user of the terminal has gone.
            Ok(_) | Err(_) => break,
        }
    }
    process::exit_now(0)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// To the process.
    In,
    /// From it.
    Out,
}

/// Bytes on their way from one descriptor to another.
struct Flow<'a> {
    /// The process's side; `None` when the flow has ended. Closing it tells
    /// the process: no more input, or nobody reads.
    ours: Option<OwnedFd>,
    users: BorrowedFd<'a>,
    way: Way,
    buffer: Vec<u8>,
    /// How much of the buffer is written.
    done: usize,
    /// What the user types to leave; and it was typed.
    keys: Option<DetachFilter>,
    detached: bool,
}

impl<'a> Flow<'a> {
    fn new(ours: Option<OwnedFd>, users: BorrowedFd<'a>, way: Way) -> Result<Self> {
        if let Some(fd) = &ours {
            fcntl(fd, FcntlArg::F_GETFL)
                .map(OFlag::from_bits_retain)
                .and_then(|flags| fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)))
                .map_err(|e| fail("configure stream", e))?;
        }
        Ok(Self {
            ours,
            users,
            way,
            buffer: Vec::new(),
            done: 0,
            keys: None,
            detached: false,
        })
    }

    fn is_full(&self) -> bool {
        self.ours.is_some() && self.done < self.buffer.len()
    }

    /// What to wait for.
    fn poll_fd(&self) -> Option<PollFd<'_>> {
        let ours = self.ours.as_ref()?.as_fd();
        let fd = match (self.way, self.is_full()) {
            (Way::In, false) | (Way::Out, true) => self.users,
            (Way::In, true) | (Way::Out, false) => ours,
        };
        let events = match self.is_full() {
            true => PollFlags::POLLOUT,
            false => PollFlags::POLLIN,
        };
        Some(PollFd::new(fd, events))
    }

    /// Reads or writes once, whichever was waited for.
    fn advance(&mut self) -> Result<()> {
        let Some(ours) = &self.ours else {
            return Ok(());
        };
        let done = if self.is_full() {
            let rest = &self.buffer[self.done..];
            match self.way {
                Way::In => write(ours, rest),
                Way::Out => write(self.users, &rest[..rest.len().min(PIPE_BUF)]),
            }
            .map(|length| self.done += length)
        } else {
            self.buffer.resize(CHUNK, 0);
            self.done = 0;
            let got = match self.way {
                Way::In => read(self.users, &mut self.buffer),
                Way::Out => read(ours, &mut self.buffer),
            };
            self.buffer.truncate(*got.as_ref().unwrap_or(&0));
            match got {
                Ok(0) => {
                    self.ours = None;
                    Ok(())
                }
                other => {
                    if let Some(keys) = &mut self.keys {
                        (self.buffer, self.detached) = keys.filter(&self.buffer);
                    }
                    other.map(drop)
                }
            }
        };
        match done {
            Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(()),
            // A reader that is gone; the last holder of the terminal, or the
            // user's terminal, which may be another's now.
            Err(Errno::EPIPE | Errno::EIO) => {
                self.ours = None;
                Ok(())
            }
            Err(e) => Err(fail("copy stream", e)),
        }
    }
}

fn copy(pidfd: &PidFd, flows: &mut [Flow<'_>; 3], resizes: Option<&Resizes>) -> Result<()> {
    let follow_size = |flow: &Flow<'_>| {
        if let (Some(master), Some(window)) = (&flow.ours, size(flow.users)) {
            let _ = tty::set_size(master.as_fd(), window);
        }
    };
    if resizes.is_some() {
        follow_size(&flows[1]);
    }
    let mut ended = false;
    loop {
        if ended {
            flows[0].ours = None;
            // What another process still writes is not waited for.
            if !flows.iter().any(Flow::is_full) && !any_ready(flows)? {
                return Ok(());
            }
        }
        let watched = flows.iter().map(Flow::poll_fd);
        let process = (!ended).then(|| PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
        let signal = resizes.map(|r| PollFd::new(r.fd.as_fd(), PollFlags::POLLIN));
        let wanted: Vec<_> = watched.chain([process, signal]).collect();
        let mut fds: Vec<_> = wanted.iter().flatten().cloned().collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(fail("wait for process", e)),
            Ok(_) => {}
        }
        let mut polled = fds.iter();
        let ready: Vec<bool> = wanted
            .iter()
            .map(|fd| fd.is_some() && polled.next().and_then(PollFd::any) == Some(true))
            .collect();
        for (flow, ready) in flows.iter_mut().zip(&ready) {
            if *ready {
                flow.advance()?;
            }
        }
        if flows[0].detached {
            return Ok(());
        }
        ended |= ready[3];
        if ready[4]
            && let Some(resizes) = resizes
        {
            resizes.take();
            follow_size(&flows[1]);
        }
    }
}

fn any_ready(flows: &[Flow<'_>]) -> Result<bool> {
    let mut fds: Vec<_> = flows.iter().filter_map(Flow::poll_fd).collect();
    loop {
        match poll(&mut fds, PollTimeout::ZERO) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(fail("wait for stream", e)),
            Ok(count) => return Ok(count > 0),
        }
    }
}

/// SIGWINCH, caught while this lives.
struct Resizes {
    fd: SignalFd,
    before: SigSet,
}

impl Resizes {
    fn catch() -> Result<Self> {
        let mut winch = SigSet::empty();
        winch.add(Signal::SIGWINCH);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&winch, flags).map_err(|e| fail("watch signals", e))?;
        let before = winch
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .map_err(|e| fail("block signals", e))?;
        Ok(Self { fd, before })
    }

    fn take(&self) {
        while let Ok(Some(_)) = self.fd.read_signal() {}
    }
}

impl Drop for Resizes {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}
