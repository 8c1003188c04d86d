//! An attached client at work: the user's streams and signals on one side, the
//! supervisor's socket on the other, one poll loop between them.
//!
//! Signals come through a signalfd, so the loop must never sleep anywhere but
//! in poll: a reader of our output that does not read would otherwise take
//! ctrl-c away from the user. The standard streams may be shared with the
//! shell, so they are not made non-blocking; instead a pipe or terminal is
//! written to when poll says so, and not more at once than a pipe with any
//! room must take (PIPE_BUF).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::terminal::{self, DetachFilter, DetachKeys, RawTerminal};
use super::{Client, Relay, ended};
use crate::base::{Error, Result};
use crate::container::supervisor::protocol::{
    self, Answer, Attach, CHUNK, FromSupervisor, MAX_MESSAGE, Op, STDIN_WINDOW,
};
use crate::sys::process::ExitStatus;

const PIPE_BUF: usize = 4096;
/// Part of the input window that is not read into: detach keys that turned
/// out to be none come on top of a read.
const RESERVE: usize = DetachKeys::MAX;

/// What Docker passes on, without those that a program sends itself.
const PROXIED: [Signal; 10] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
    Signal::SIGWINCH,
];
/// With a terminal: what would end us, so that it is restored first.
const FATAL: [Signal; 4] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
];

/// Why the loop ended.
enum End {
    Exited(ExitStatus),
    Detached,
    /// We were told to end, not the container.
    Killed(Signal),
}

pub(super) fn run(
    client: &mut Client,
    how: Relay,
    [stdin, stdout, stderr]: [BorrowedFd<'_>; 3],
) -> Result<Option<ExitStatus>> {
    let raw = match how.tty && how.stdin {
        true => RawTerminal::enter(stdin)?,
        false => None,
    };
    let signals = Signals::catch(how)?;
    let end = Loop {
        how,
        stdin: how.stdin.then_some(stdin),
        unconfirmed: 0,
        keys: DetachFilter::new(how.detach_keys),
        sinks: [Sink::new(stdout, how.stdout), Sink::new(stderr, how.stderr)],
        signals: &signals,
        terminal: [stdin, stdout],
        closed: false,
        attach: 0,
        client,
    }
    .serve();
    drop(raw);
    drop(signals);
    match end? {
        End::Exited(status) => Ok(Some(status)),
        End::Detached => Ok(None),
        End::Killed(signal) => {
            // As it would have ended us without the loop.
            let _ = nix::sys::signal::raise(signal);
            Ok(None)
        }
    }
}

struct Loop<'a> {
    client: &'a mut Client,
    how: Relay,
    /// `None` when it has ended, or was not asked for.
    stdin: Option<BorrowedFd<'a>>,
    /// Input sent and not yet taken by the program.
    unconfirmed: usize,
    keys: DetachFilter,
    /// stdout and stderr.
    sinks: [Sink<'a>; 2],
    signals: &'a Signals,
    /// Where the window's size may be known.
    terminal: [BorrowedFd<'a>; 2],
    /// The supervisor has gone.
    closed: bool,
    /// Number of the attach request.
    attach: u64,
}

impl Loop<'_> {
    fn serve(mut self) -> Result<End> {
        self.subscribe();
        if self.how.tty {
            self.announce_size();
        }
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            while self.flushed()
                && let Some(message) = self.client.early.pop_front()
            {
                self.message(&message)?;
            }
            if self.flushed() {
                match self.client.over {
                    Some(status) => return Ok(End::Exited(status)),
                    None if self.closed => return Err(ended()),
                    None => {}
                }
            }
            let ready = self.wait()?;
            if ready.signal
                && let Some(end) = self.signal()?
            {
                return Ok(end);
            }
            for (sink, ready) in self.sinks.iter_mut().zip(ready.sinks) {
                if ready {
                    sink.write()?;
                }
            }
            // Whoever reads has seen enough; the container goes on.
            if self.sinks[0].broken {
                return Ok(End::Detached);
            }
            self.unsubscribe_broken();
            if ready.stdin && self.input(&mut buffer)? {
                return Ok(End::Detached);
            }
            if ready.socket {
                match self.client.receive(&mut buffer) {
                    Ok((length, _)) => self.message(&buffer[..length])?,
                    Err(e) if e.is_errno(libc::ECONNRESET) => self.closed = true,
                    Err(e) => return Err(e),
                }
            }
        }
    }

    fn flushed(&self) -> bool {
        self.sinks.iter().all(|sink| sink.queue.is_empty())
    }

    fn alive(&self) -> bool {
        !self.closed && self.client.over.is_none()
    }

    /// A send to a supervisor that has gone is no error: what it said last is
    /// still to be read.
    fn tell(&mut self, op: Op) -> u64 {
        self.client.send(op, &[]).unwrap_or(0)
    }

    fn subscribe(&mut self) {
        self.attach = self.tell(Op::Attach(Attach {
            stdin: self.stdin.is_some(),
            stdout: self.sinks[0].wanted,
            stderr: self.sinks[1].wanted,
        }));
    }

    fn unsubscribe_broken(&mut self) {
        let mut changed = false;
        for sink in &mut self.sinks {
            changed |= sink.broken && sink.wanted;
            sink.wanted &= !sink.broken;
        }
        if changed {
            self.subscribe();
        }
    }

    fn announce_size(&mut self) {
        let Some((rows, cols)) = self.terminal.iter().find_map(terminal::size) else {
            return;
        };
        if !self.client.first {
            // A change makes the program draw what we have not seen of it.
            let rows = rows.saturating_add(1);
            self.tell(Op::Resize { rows, cols });
        }
        self.tell(Op::Resize { rows, cols });
    }

    fn message(&mut self, message: &[u8]) -> Result<()> {
        match protocol::from_supervisor(message)? {
            FromSupervisor::Stdout(bytes) => self.sinks[0].push(bytes)?,
            FromSupervisor::Stderr(bytes) => self.sinks[1].push(bytes)?,
            FromSupervisor::Ack(count) => {
                self.unconfirmed = self.unconfirmed.saturating_sub(count);
            }
            FromSupervisor::Answer(Answer::Exit(status)) => self.client.over = Some(status),
            FromSupervisor::Answer(Answer::Dropped(why)) => {
                return Err(Error::state("attach to", "the container", why)
                    .hint("it goes on; attach again, or see its logs"));
            }
            FromSupervisor::Answer(Answer::Error { id, error }) if id == self.attach || id == 0 => {
                return Err(error);
            }
            // A signal to a program that has just ended, and the like.
            FromSupervisor::Answer(_) => {}
        }
        Ok(())
    }

    /// Reads what the user types or pipes in. True: the detach keys.
    fn input(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let Some(stdin) = self.stdin else {
            return Ok(false);
        };
        let room = (STDIN_WINDOW - self.unconfirmed - RESERVE).min(CHUNK);
        match nix::unistd::read(stdin, &mut buffer[..room]) {
            Ok(length) if length > 0 => {
                let typed = &buffer[..length];
                let (bytes, detach) = match self.how.tty {
                    true => self.keys.filter(typed),
                    false => (typed.to_vec(), false),
                };
                if !bytes.is_empty() && self.client.send_stdin(&bytes).is_ok() {
                    self.unconfirmed += bytes.len();
                }
                Ok(detach)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            // The end of a file; EIO of a terminal that is gone or not ours.
            Ok(_) | Err(_) => {
                self.stdin = None;
                if !self.how.tty {
                    let _ = self.client.send_stdin(&[]);
                }
                Ok(false)
            }
        }
    }

    fn signal(&mut self) -> Result<Option<End>> {
        while let Some(signal) = self.signals.next()? {
            let fatal = FATAL.contains(&signal);
            if self.how.tty && signal == Signal::SIGWINCH {
                if let Some((rows, cols)) = self.terminal.iter().find_map(terminal::size) {
                    self.tell(Op::Resize { rows, cols });
                }
            } else if fatal && (self.how.tty || !self.alive()) {
                return Ok(Some(End::Killed(signal)));
            } else if !self.how.tty {
                self.tell(Op::Signal(signal as i32));
            }
        }
        Ok(None)
    }

    fn wait(&self) -> Result<Ready> {
        // Output first: what waits to be written holds up the socket.
        let reads = self.flushed() && !self.closed;
        let types = self.alive() && self.unconfirmed + RESERVE < STDIN_WINDOW;
        let [out, err] = &self.sinks;
        let wanted = [
            (reads.then(|| self.client.as_fd()), PollFlags::POLLIN),
            (self.signals.fd.as_ref().map(AsFd::as_fd), PollFlags::POLLIN),
            (self.stdin.filter(|_| types), PollFlags::POLLIN),
            (out.waiting(), PollFlags::POLLOUT),
            (err.waiting(), PollFlags::POLLOUT),
        ];
        let mut fds: Vec<_> = wanted
            .iter()
            .filter_map(|(fd, flags)| fd.map(|fd| PollFd::new(fd, *flags)))
            .collect();
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::sys("wait for", "the container", errno)),
                Ok(_) => break,
            }
        }
        let mut polled = fds.iter();
        let mut any =
            |wanted: bool| wanted && polled.next().is_some_and(|fd| fd.any() == Some(true));
        let [socket, signal, stdin, out, err] = wanted.map(|(fd, _)| any(fd.is_some()));
        Ok(Ready {
            socket,
            signal,
            stdin,
            sinks: [out, err],
        })
    }
}

struct Ready {
    socket: bool,
    signal: bool,
    stdin: bool,
    sinks: [bool; 2],
}

/// One of our standard output streams.
struct Sink<'a> {
    fd: BorrowedFd<'a>,
    wanted: bool,
    /// Its reader has gone.
    broken: bool,
    /// Written without asking poll: it never says no.
    is_file: bool,
    queue: Vec<u8>,
    done: usize,
}

impl<'a> Sink<'a> {
    fn new(fd: BorrowedFd<'a>, wanted: bool) -> Self {
        let is_file = fd
            .try_clone_to_owned()
            .and_then(|fd| File::from(fd).metadata())
            .is_ok_and(|meta| meta.is_file());
        Self {
            fd,
            wanted,
            broken: false,
            is_file,
            queue: Vec::new(),
            done: 0,
        }
    }

    fn waiting(&self) -> Option<BorrowedFd<'a>> {
        (!self.queue.is_empty()).then_some(self.fd)
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.wanted && !self.broken {
            self.queue.extend_from_slice(bytes);
        }
        while self.is_file && !self.queue.is_empty() {
            self.write()?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let rest = &self.queue[self.done..];
        let length = match self.is_file {
            true => rest.len(),
            false => rest.len().min(PIPE_BUF),
        };
        match nix::unistd::write(self.fd, &rest[..length]) {
            Ok(n) => self.done += n,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::EPIPE) => {
                self.broken = true;
                self.done = self.queue.len();
            }
            Err(errno) => {
                return Err(Error::sys("write to", "standard output", errno)
                    .hint("the container goes on; see its logs"));
            }
        }
        if self.done == self.queue.len() {
            self.queue.clear();
            self.done = 0;
        }
        Ok(())
    }
}

/// Signals caught while this lives.
struct Signals {
    fd: Option<SignalFd>,
    before: Option<SigSet>,
}

impl Signals {
    fn catch(how: Relay) -> Result<Self> {
        let mut set = SigSet::empty();
        if how.tty {
            set.extend(FATAL);
            set.add(Signal::SIGWINCH);
        } else if how.sig_proxy {
            set.extend(PROXIED);
        } else {
            return Ok(Self {
                fd: None,
                before: None,
            });
        }
        let fail = |errno| Error::sys("catch", "signals", errno);
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags).map_err(fail)?;
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(fail)?;
        Ok(Self {
            fd: Some(fd),
            before: Some(before),
        })
    }

    fn next(&self) -> Result<Option<Signal>> {
        let Some(fd) = &self.fd else {
            return Ok(None);
        };
        match fd.read_signal() {
            Ok(Some(info)) => Ok(i32::try_from(info.ssi_signo)
                .ok()
                .and_then(|number| Signal::try_from(number).ok())),
            Ok(None) => Ok(None),
            Err(errno) => Err(Error::sys("read", "signal", errno)),
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = before.thread_set_mask();
        }
    }
}
