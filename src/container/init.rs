//! `--init`: a first process that reaps orphans and forwards signals, as the
//! `docker-init` (tini) that Docker mounts at /sbin/docker-init.
//!
//! # Theory of operation
//! Pid 1 of a pid namespace ignores every signal for which it has no handler,
//! and nobody but pid 1 can reap orphans. So this process blocks all signals,
//! reads them from a signalfd and passes each on to the one program it
//! started; SIGCHLD makes it reap. It ends as that program ends, which makes
//! the kernel kill whatever else is in the namespace.
//!
//! The file that runs is mounted read-only. Any other, such as an image's link
//! `docker-init` to `/proc/self/exe`, is the host's, and the program that was
//! started beside us could write to it: then nothing is started.
//!
//! The program gets a process group of its own and, with a terminal, is its
//! foreground: otherwise ^C would reach it twice, from the terminal and from
//! here.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::base::{Error, Result, Subject, error::errno_text};
use crate::sys::own_file;
use crate::sys::process::{
    ExitStatus, Fork, PidFd, SingleThreaded, block_signals, exit_now, fork, reset_signals,
};

/// The program `docker-init` (this same binary under that name): runs what
/// follows `--` and ends as it ends.
pub fn docker_init(argv: &[OsString]) -> ExitCode {
    let command = argv.get(1..).unwrap_or_default();
    let command = command
        .strip_prefix(&[OsString::from("--")])
        .unwrap_or(command);
    match run(command) {
        // 128 + 64 is the largest.
        Ok(status) => ExitCode::from(u8::try_from(status.code()).unwrap_or(u8::MAX)),
        Err(e) => {
            eprintln!("[FATAL docker-init] {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &[OsString]) -> Result<ExitStatus> {
    let argv = command
        .iter()
        .map(|arg| CString::new(arg.clone().into_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::parse("read arguments", Subject::None, e))?;
    let Some(program) = argv.first() else {
        return Err(Error::invalid("no program given"));
    };
    own_file::must_be_protected()?;
    block_signals()?;
    match fork(&SingleThreaded::prove()?)? {
        Fork::Child => become_program(program, &argv),
        Fork::Parent { pid, pidfd } => watch(pid, &pidfd),
    }
}

/// In the child. Every signal is still blocked, so that taking the terminal
/// from the background cannot stop us (SIGTTOU).
fn become_program(program: &CString, argv: &[CString]) -> ! {
    let own = nix::unistd::getpid();
    let _ = nix::unistd::setpgid(own, own);
    // No terminal, or not ours: then there is no foreground to take.
    let _ = nix::unistd::tcsetpgrp(std::io::stdin(), own);
    let errno = match reset_signals() {
        Ok(()) => match nix::unistd::execvp(program, argv) {
            Ok(never) => match never {},
            Err(errno) => errno as i32,
        },
        Err(e) => e.errno().unwrap_or(libc::EIO),
    };
    eprintln!(
        "[FATAL docker-init] exec {} failed: {}",
        program.to_string_lossy(),
        errno_text(errno)
    );
    exit_now(if errno == libc::ENOENT { 127 } else { 126 })
}

fn watch(pid: i32, pidfd: &PidFd) -> Result<ExitStatus> {
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC)
        .map_err(|e| Error::sys("open signalfd", Subject::None, e))?;
    loop {
        // Before the first read too: the SIGCHLD may be older than the fd.
        if let Some(status) = reap(pid, pidfd)? {
            return Ok(status);
        }
        let info = signals
            .read_signal()
            .map_err(|e| Error::sys("read signal", Subject::None, e))?;
        let signal = info.and_then(|info| i32::try_from(info.ssi_signo).ok());
        match signal {
            // Reaped above.
            Some(libc::SIGCHLD) | None => {}
            Some(signal) => {
                pidfd.signal(signal)?;
            }
        }
    }
}

/// Reaps all that has ended; the status of the program, if it is among them.
fn reap(pid: i32, pidfd: &PidFd) -> Result<Option<ExitStatus>> {
    // The program first and by its pidfd, which tells every signal; the loop
    // below takes it only if it ends in between.
    if let Some(status) = pidfd.wait(false)? {
        return Ok(Some(status));
    }
    let program = Pid::from_raw(pid);
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(who, code)) if who == program => {
                return Ok(Some(ExitStatus::Code(code)));
            }
            Ok(WaitStatus::Signaled(who, signal, _)) if who == program => {
                return Ok(Some(ExitStatus::Signal(signal as i32)));
            }
            Ok(WaitStatus::StillAlive) | Err(nix::Error::ECHILD) => return Ok(None),
            // Somebody was reaped; EINVAL: by a real-time signal, which nix
            // cannot name.
            Ok(_) | Err(nix::Error::EINTR | nix::Error::EINVAL) => {}
            Err(e) => return Err(Error::sys("reap", Subject::None, e)),
        }
    }
}
