//! `exec -t`: the user's terminal on one side, the master of the new process's
//! pty on the other. Both are in this process, so bytes are only copied.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::attach::{RawTerminal, size};
use super::tty;
use crate::base::{Error, Result, Subject};
use crate::sys::process::{ExitStatus, PidFd};

fn fail(op: &'static str, errno: Errno) -> Error {
    Error::sys(op, Subject::None, errno)
}

/// Copies until the process has ended and its terminal is drained; the
/// terminal's mode and the signal mask are restored on every way out.
pub fn interact(pidfd: &PidFd, master: OwnedFd, with_stdin: bool) -> Result<ExitStatus> {
    let raw = if with_stdin {
        RawTerminal::enter(std::io::stdin().as_fd())?
    } else {
        None
    };
    let mut winch = SigSet::empty();
    winch.add(Signal::SIGWINCH);
    let before = winch
        .thread_swap_mask(SigmaskHow::SIG_BLOCK)
        .map_err(|e| fail("block signals", e))?;
    let copied = copy(pidfd, master, with_stdin, &winch);
    drop(raw);
    before
        .thread_set_mask()
        .map_err(|e| fail("restore signals", e))?;
    copied?;
    match pidfd.wait(true)? {
        Some(status) => Ok(status),
        None => Err(fail("wait for process", Errno::ECHILD)),
    }
}

fn copy(pidfd: &PidFd, master: OwnedFd, with_stdin: bool, winch: &SigSet) -> Result<()> {
    let signals = SignalFd::with_flags(winch, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|e| fail("watch signals", e))?;
    let mut master = File::from(master);
    follow_size(&master);
    let (stdin, mut stdout) = (std::io::stdin(), std::io::stdout());
    let mut input = with_stdin;
    let mut ended = false;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mut fds = vec![
            PollFd::new(master.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if !ended {
            fds.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
        }
        if input {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        // After the end, only what the terminal still holds.
        let patience = if ended {
            PollTimeout::ZERO
        } else {
            PollTimeout::NONE
        };
        match poll(&mut fds, patience) {
            Err(Errno::EINTR) => continue,
            Err(e) => return Err(fail("wait for terminal", e)),
            Ok(0) => return Ok(()),
            Ok(_) => {}
        }
        let ready = |at: usize| fds.get(at).and_then(PollFd::any).unwrap_or(false);
        let output = ready(0);
        let resized = ready(1);
        let over = !ended && ready(2);
        let typed = input && ready(if ended { 2 } else { 3 });
        ended |= over;
        if resized {
            let _ = signals.read_signal();
            follow_size(&master);
        }
        if output {
            match master.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    let written = stdout.write_all(&buffer[..n]).and_then(|()| stdout.flush());
                    // Nobody reads us any more: the process need not know.
                    if written.is_err() && !ended {
                        return Ok(());
                    }
                }
                // The last holder of the slave has closed it.
                Err(e) if e.raw_os_error() == Some(libc::EIO) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::sys("read terminal", Subject::None, e)),
            }
        }
        if typed {
            match nix::unistd::read(stdin.as_fd(), &mut buffer) {
                Ok(0) => input = false,
                Ok(n) => master
                    .write_all(&buffer[..n])
                    .map_err(|e| Error::sys("write terminal", Subject::None, e))?,
                Err(Errno::EINTR) => {}
                Err(_) => input = false,
            }
        }
    }
}

/// The pty as large as the user's window, where that is known.
fn follow_size(master: &File) {
    if let Some(window) = size(std::io::stdout().as_fd()) {
        let _ = tty::set_size(master.as_fd(), window);
    }
}
