//! The client's side of a supervisor's control socket: attach, wait, stop,
//! kill, restart, resize, exec's pidfd; and the engine's own verbs. The
//! messages are described in `supervisor/protocol.rs`.
//!
//! A supervisor that has ended is `ECONNRESET` from every call: the answer is
//! then in the container's record.

mod relay;
mod terminal;

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};
use serde_json::Value;

use super::supervisor::State;
use super::supervisor::protocol::{
    self, Answer, FromSupervisor, MAX_MESSAGE, Op, Request, STDIN, Stop, VERSION,
};
use crate::base::{Error, Result};
use crate::sys::fd;
use crate::sys::process::{ExitStatus, PidFd};

pub(super) use self::terminal::DetachFilter;
pub use self::terminal::{DetachKeys, RawTerminal, size};

/// A connection to a supervisor.
#[derive(Debug)]
pub struct Client {
    fd: OwnedFd,
    /// Number of the next request; 0 is nobody's.
    next: u64,
    /// The container's own client, attached since before its program ran.
    first: bool,
    /// Stream messages that came while an answer was waited for.
    early: VecDeque<Vec<u8>>,
    /// How it ended, once the supervisor has said so.
    over: Option<ExitStatus>,
}

/// How to relay an attached container's streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relay {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
    /// Pass SIGINT, SIGTERM, SIGHUP, … on to the container (no tty).
    pub sig_proxy: bool,
    /// On a tty only.
    pub detach_keys: DetachKeys,
}

impl Client {
    /// Connects to `<live>/sock`. `Ok(None)` when nobody listens there.
    pub fn connect(live: &Path) -> Result<Option<Self>> {
        let fail = |errno| Error::sys("connect to supervisor in", live, errno);
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder = match nix::fcntl::open(live, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(fail(errno)),
        };
        // A socket's path may have 107 bytes; the folder's may have more.
        let path = format!("/proc/self/fd/{}/sock", folder.as_raw_fd());
        let address = UnixAddr::new(path.as_str()).map_err(fail)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket =
            socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(fail)?;
        loop {
            match socket::connect(socket.as_raw_fd(), &address) {
                Ok(()) => return Ok(Some(Self::new(socket, false))),
                Err(Errno::EINTR) => {}
                Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Ok(None),
                Err(errno) => return Err(fail(errno)),
            }
        }
    }

    /// Wraps our end of the pair whose other end is `Settings::first_client`.
    pub fn from_pair(fd: OwnedFd) -> Self {
        Self::new(fd, true)
    }

    fn new(fd: OwnedFd, first: bool) -> Self {
        Self {
            fd,
            next: 1,
            first,
            early: VecDeque::new(),
            over: None,
        }
    }

    /// Raw terminal, SIGWINCH, stdin, detach keys (`Ok(None)`),
    /// until the container ends or, after a restart, ends again.
    ///
    /// A standard output that is closed by its reader ends nothing: what
    /// would go there is dropped.
    pub fn relay(&mut self, how: Relay) -> Result<Option<ExitStatus>> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        relay::run(self, how, [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
    }

    /// Blocks until the container ends. Without a restart in between that is
    /// the program's status.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let value = match self.ask(Op::Wait) {
            // Attached: it was told without asking.
            Err(e) if e.is_errno(libc::ECONNRESET) => return self.over.ok_or(e),
            other => other?,
        };
        serde_json::from_value(value).map_err(|e| Error::parse("read", "exit status", e))
    }

    /// Asks for the end to be announced: this connection becomes readable
    /// then, and not before (for `logs::read`). No other call may follow.
    pub fn announce_end(&mut self) -> Result<()> {
        self.send(Op::Wait, &[]).map(drop)
    }

    pub fn signal(&mut self, signal: i32) -> Result<()> {
        self.ask(Op::Signal(signal)).map(drop)
    }

    /// Stop signal, then SIGKILL after the timeout (None: the container's own;
    /// negative: never). Returns when it has ended.
    pub fn stop(&mut self, signal: Option<i32>, timeout_s: Option<i64>) -> Result<()> {
        let timeout = timeout_s;
        self.ask(Op::Stop(Stop {
            signal,
            timeout,
            removal: false,
        }))
        .map(drop)
    }

    /// SIGKILL, so that it can be removed. Returns when it has ended.
    pub fn end(&mut self) -> Result<()> {
        self.ask(Op::Stop(Stop {
            signal: Some(libc::SIGKILL),
            timeout: Some(0),
            removal: true,
        }))
        .map(drop)
    }

    /// Returns when the program runs again.
    pub fn restart(&mut self, signal: Option<i32>, timeout_s: Option<i64>) -> Result<()> {
        let timeout = timeout_s;
        self.ask(Op::Restart(Stop {
            signal,
            timeout,
            removal: false,
        }))
        .map(drop)
    }

    pub fn pause(&mut self, on: bool) -> Result<()> {
        self.ask(Op::Pause(on)).map(drop)
    }

    /// Sets the size of the container's terminal; without one, nothing.
    pub fn resize(&mut self, rows: u16, cols: u16) -> Result<()> {
        self.ask(Op::Resize { rows, cols }).map(drop)
    }

    pub fn state(&mut self) -> Result<State> {
        let value = self.ask(Op::State)?;
        serde_json::from_value(value).map_err(|e| Error::parse("read", "supervisor's state", e))
    }

    /// pidfd of the first process.
    pub fn pidfd(&mut self) -> Result<PidFd> {
        let number = self.send(Op::Pidfd, &[])?;
        let (_, mut fds) = self.answer(number)?;
        match fds.pop() {
            Some(fd) if fds.is_empty() => Ok(PidFd::from_fd(fd)),
            _ => Err(Error::state("get", "pidfd", "the supervisor sent none")),
        }
    }

    /// The supervisor's process, of a connection made by `connect`. `None`: it
    /// has ended, or its number is not known here.
    pub fn supervisor(&self) -> Option<PidFd> {
        let who = getsockopt(&self.fd, sockopt::PeerCredentials).ok()?;
        PidFd::open(who.pid()).ok()
    }

    /// How long to wait for an answer from now on: for what is not worth
    /// hanging with a supervisor that hangs.
    pub fn patience(&self, limit: Duration) -> Result<()> {
        let limit = TimeVal::milliseconds(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        setsockopt(&self.fd, sockopt::ReceiveTimeout, &limit)
            .map_err(|e| Error::sys("set", "the time limit", e))
    }

    /// An `Owner` verb. The fds go along.
    pub fn command(&mut self, verb: &str, body: Value, fds: &[BorrowedFd<'_>]) -> Result<Value> {
        let verb = verb.to_owned();
        let number = self.send(Op::Command { verb, body }, fds)?;
        Ok(self.answer(number)?.0)
    }

    /// Waits until the supervisor's process has ended, and with it all that
    /// the engine still had to clean up.
    pub fn gone(&mut self) -> Result<()> {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            match self.receive(&mut buffer) {
                Ok(_) => {}
                Err(e) if e.is_errno(libc::ECONNRESET) => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    fn ask(&mut self, op: Op) -> Result<Value> {
        let number = self.send(op, &[])?;
        Ok(self.answer(number)?.0)
    }

    fn send(&mut self, op: Op, fds: &[BorrowedFd<'_>]) -> Result<u64> {
        let id = self.next;
        self.next += 1;
        let request = protocol::encode(&Request { v: VERSION, id, op })?;
        match fd::send(self.fd.as_fd(), &request, fds) {
            // It has gone: what it said last is still to be read, and behind
            // that comes the end.
            Err(e) if e.is_errno(libc::EPIPE) || e.is_errno(libc::ECONNRESET) => Ok(id),
            sent => sent.map(|()| id),
        }
    }

    fn send_stdin(&self, bytes: &[u8]) -> Result<()> {
        let message = [&[STDIN], bytes].concat();
        fd::send(self.fd.as_fd(), &message, &[])
    }

    /// Waits for one request's answer; keeps what belongs to the streams.
    fn answer(&mut self, number: u64) -> Result<(Value, Vec<OwnedFd>)> {
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let (length, fds) = self.receive(&mut buffer)?;
            match protocol::from_supervisor(&buffer[..length])? {
                FromSupervisor::Answer(Answer::Ok { id, value }) if id == number => {
                    return Ok((value, fds));
                }
                // 0: it could not even read the number, or let nobody in.
                FromSupervisor::Answer(Answer::Error { id, error }) if id == number || id == 0 => {
                    return Err(error);
                }
                FromSupervisor::Answer(Answer::Exit(status)) => self.over = Some(status),
                FromSupervisor::Answer(Answer::Ok { .. } | Answer::Error { .. }) => {}
                _ => self.early.push_back(buffer[..length].to_vec()),
            }
        }
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
        let mut received = fd::recv(self.fd.as_fd(), buffer);
        // A supervisor that left something of ours unread resets the
        // connection, and that is reported, once, before its last messages.
        if matches!(&received, Err(e) if e.is_errno(libc::ECONNRESET)) {
            received = fd::recv(self.fd.as_fd(), buffer);
        }
        match received? {
            (0, _) => Err(ended()),
            message => Ok(message),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Nobody is there to answer any more.
pub(super) fn ended() -> Error {
    Error::sys("ask", "the container's supervisor", Errno::ECONNRESET)
        .hint("it has ended or could not answer: `inspect` says which, `gc` cleans up after one that was killed")
}
