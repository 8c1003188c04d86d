//! The supervisor: one per container, one thread, one epoll loop. Reaps the
//! container's first process, keeps its log, serves attach, wait, stop, signal
//! and restart on a control socket, and whatever duties the engine gives it.
//!
//! *Theory of operation.* The engine forks the supervisor from the command
//! while that is single-threaded, in a session of its own and without the
//! command's terminal, signal mask and files (but with the container's lock):
//! so it survives both. As the parent of the container's first process it
//! alone can reap it. [`run`] then does, until the container ends for good:
//!
//! | ready | what happens |
//! |---|---|
//! | pidfd | reap; drain the streams; record (`Owner::exited`); answer those who wait; or relaunch |
//! | stdout, stderr, terminal | read once, append to the log, send to attached clients |
//! | stdin has room | write queued input |
//! | listening socket | admit clients: root, or the user of this process |
//! | a client | requests (`protocol.rs`), input; room for what it did not take |
//! | an owner's fd or time | the owner's business (published ports, announcements) |
//!
//! *No signals* but those that are to end it (read from a signalfd, below).
//! Children are watched by pidfd, peers by their sockets, and every send says
//! MSG_NOSIGNAL; writes to a closed stdin rely on Rust's runtime ignoring
//! SIGPIPE. *No timers at rest*: the poll waits for ever
//! unless a stop, a stalled client or the owner has a deadline. Two seconds
//! after the last event, once, all buffers and resident pages are given back.
//!
//! *The end.* The order is what clients may rely on: output complete in the
//! log, then the exit recorded by the owner, then output complete at each
//! attached client, then the exit status to those who attached or wait. Their
//! sockets close when this *process* ends, that is, when the engine has
//! cleaned up too ([`Client::gone`](crate::container::attach::Client::gone)).
//! Whoever connects too late finds no socket, or is cut off without an answer
//! (ECONNRESET), and reads the record instead.
//!
//! *Restart* is a stop with a launch behind it: namespaces, network, clients
//! and log stay, `wait` goes on waiting, attached clients see the streams go
//! on. When stop and restart are both asked for, the later one decides. A
//! failed launch ends the container, with the status that the owner has for
//! that.

//! A signal that is meant to end the supervisor (a service manager's, at
//! shutdown) is a request to stop the container as it wants to be stopped.

mod clients;
pub(in crate::container) mod protocol;
mod serve;
mod stop;
mod streams;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::Mode;
use serde_json::Value;

use self::clients::Clients;
use self::protocol::{Attach, CHUNK, MAX_MESSAGE, Stop};
use self::stop::{Due, Stopping};
use self::streams::Streams;
use super::launch::Running;
use super::logs::Writer;
use crate::base::{Error, Result};
use crate::store::file;
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::process::{self, ExitStatus, PidFd};

pub use self::protocol::State;

/// What the supervisor asks of the engine. Networks, ports and records are the
/// owner's; processes, streams and clients the supervisor's.
pub trait Owner {
    /// Adds the owner's fds. Keys handed to the owner lie below `1 << 48`.
    /// Called once, when the control socket is there and the streams are
    /// being read: from now on clients are served.
    fn register(&mut self, epoll: &Epoll) -> Result<()>;
    /// One of the owner's fds is ready. An error ends nothing; an fd that
    /// keeps failing is the owner's to take out.
    fn ready(&mut self, key: u64, events: EpollFlags) -> Result<()>;
    /// Next moment at which `on_time` must be called; `None`: no timer at all.
    fn deadline(&self) -> Option<Instant>;
    fn on_time(&mut self, now: Instant) -> Result<()>;
    /// Nothing has happened for two seconds: what only takes time can be done.
    fn rest(&mut self) {}
    /// A request that is not the supervisor's own (`connect`, `disconnect`,
    /// `publish`, …): `verb` and `body` from the control socket, with the fds
    /// that came along.
    fn command(&mut self, verb: &str, body: Value, fds: Vec<OwnedFd>) -> Result<Value>;
    /// The first process has ended; the streams are drained. Record it. With
    /// `restart` the next call is `relaunch`, and namespaces and networks
    /// stay; if that fails, `not_relaunched` is asked for the status with
    /// which this is called again, without `restart`.
    fn exited(&mut self, status: ExitStatus, restart: bool) -> Result<()>;
    /// Start the program again in the same network namespace.
    fn relaunch(&mut self) -> Result<Running>;
    /// The program could not be started again: note why. The status that the
    /// container ends with.
    fn not_relaunched(&mut self, why: &Error) -> ExitStatus;
    /// The program was sent a signal, as the first step of a `stop` or restart
    /// or for its own sake.
    fn signalled(&mut self, _signal: i32, _stop: bool) {}
    /// Freeze or thaw the container's cgroup.
    fn pause(&mut self, on: bool) -> Result<()>;
    /// Kill what is left in the cgroup (children of a dead pid 1 cannot
    /// survive it in a pid namespace; this is for the undo path).
    fn kill_all(&mut self) -> Result<()>;
}

/// What the supervisor needs to know about its container.
#[derive(Debug)]
pub struct Settings {
    /// Folder (`<state>/containers/<id>`) in which to bind the control socket
    /// `sock` (through /proc/self/fd, so that long paths work).
    pub live: PathBuf,
    /// The json-file log, and its rotation (Docker: max-size, max-file).
    pub log: PathBuf,
    pub log_max_size: Option<u64>,
    pub log_max_files: u32,
    pub tty: bool,
    pub open_stdin: bool,
    /// `--stop-signal` (SIGTERM unless given) and `--stop-timeout` (10 s).
    pub stop_signal: i32,
    pub stop_timeout_s: i64,
    /// An attached client that is there from the start (`run` without `-d`):
    /// our end of a SEQPACKET pair, so that no output is ever missed.
    pub first_client: Option<OwnedFd>,
}

/// Keys of the poll set; what lies below `1 << 48` is the owner's.
const OWNER_KEYS: u64 = 1 << 48;
const KEY_LISTENER: u64 = OWNER_KEYS;
const KEY_PIDFD: u64 = OWNER_KEYS + 1;
const KEY_STDOUT: u64 = OWNER_KEYS + 2;
const KEY_STDERR: u64 = OWNER_KEYS + 3;
const KEY_STDIN: u64 = OWNER_KEYS + 4;
const KEY_SIGNAL: u64 = OWNER_KEYS + 5;
/// Plus the client's number.
const KEY_CLIENT: u64 = 1 << 49;

/// After so much quiet, memory is given back.
const REST_AFTER: Duration = Duration::from_secs(2);
/// After so many rounds without, it is busy with the same few things.
const MANY_ROUNDS: u32 = 500;
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long a client that does not read may keep a dead container's
/// supervisor, where no socket buffer could take the rest of its output.
const LINGER: Duration = Duration::from_secs(5);

/// Runs until the container has ended for good; then tells every waiting
/// client and returns. The process should end soon after: that is when the
/// clients' connections close.
///
/// Must be called in a session of its own, with SIGPIPE ignored (as Rust's
/// runtime does), by the parent of `running`. On an error the process is
/// killed and reaped, and what is recorded of it may be old.
pub fn run(settings: Settings, running: Running, owner: &mut dyn Owner) -> Result<ExitStatus> {
    let spare = running.pidfd.try_clone()?;
    let mut supervisor = match Supervisor::new(settings, running) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            put_down(&spare, owner);
            return Err(error);
        }
    };
    drop(spare);
    let served = owner
        .register(&supervisor.epoll)
        .and_then(|()| supervisor.serve(owner));
    if served.is_err() {
        // Whoever waits is cut off when the owner has cleaned up, not before:
        // it must find the container's end recorded, and its address free.
        supervisor.clients.leave_open();
        put_down(&supervisor.pidfd, owner);
    }
    served
}

fn catch_signals() -> Result<SignalFd> {
    let mut set = SigSet::empty();
    set.extend([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
    let fail = |errno| Error::sys("catch", "signals", errno);
    set.thread_block().map_err(fail)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(fail)
}

/// Nobody watches over the process any more. One that has ended takes no harm.
fn put_down(pidfd: &PidFd, owner: &mut dyn Owner) {
    let _ = pidfd.signal(libc::SIGKILL);
    let _ = owner.kill_all();
    let _ = pidfd.wait(true);
}

#[derive(Debug)]
struct Supervisor {
    settings: Settings,
    epoll: Epoll,
    listener: UnixListener,
    /// SIGTERM, SIGINT and SIGHUP to us.
    signals: SignalFd,
    pid: i32,
    pidfd: PidFd,
    streams: Streams,
    clients: Clients,
    /// Closing the client's input closes the program's (`run -i` in the
    /// foreground; not for `run -d -i`, to which clients come and go).
    stdin_once: bool,
    paused: bool,
    stopping: Option<Stopping>,
    /// Reaped, with what follows still to be done.
    reaped: Option<ExitStatus>,
    /// Ended for good.
    over: Option<ExitStatus>,
    rest_at: Option<Instant>,
    /// Of the loop, since it was at rest.
    rounds: u32,
    /// When to accept again, after the fds had run out.
    accept_at: Option<Instant>,
    /// For one message or chunk; empty at rest.
    buffer: Vec<u8>,
}

impl Supervisor {
    fn new(mut settings: Settings, running: Running) -> Result<Self> {
        let epoll = Epoll::new()?;
        let listener = listen(&settings.live)?;
        epoll.add(&listener, EpollFlags::EPOLLIN, KEY_LISTENER)?;
        let signals = catch_signals()?;
        epoll.add(&signals, EpollFlags::EPOLLIN, KEY_SIGNAL)?;
        let log = Writer::open(&settings.log, settings.log_max_size, settings.log_max_files)?;
        let mut clients = Clients::default();
        let mut stdin_once = false;
        if let Some(fd) = settings.first_client.take() {
            let all = Attach {
                stdin: settings.open_stdin,
                stdout: true,
                stderr: true,
            };
            clients.add(fd, true, Some(all), &epoll)?;
            stdin_once = settings.open_stdin && !settings.tty;
        }
        let mut this = Self {
            epoll,
            listener,
            signals,
            pid: running.pid,
            pidfd: running.pidfd,
            streams: Streams::new(log),
            clients,
            stdin_once,
            paused: false,
            stopping: None,
            reaped: None,
            over: None,
            rest_at: Some(Instant::now() + REST_AFTER),
            rounds: 0,
            accept_at: None,
            buffer: Vec::new(),
            settings,
        };
        this.epoll
            .add(&this.pidfd, EpollFlags::EPOLLIN, KEY_PIDFD)?;
        this.streams
            .adopt(running.stdio, this.settings.open_stdin, &this.epoll)?;
        Ok(this)
    }

    fn serve(&mut self, owner: &mut dyn Owner) -> Result<ExitStatus> {
        let mut events = Vec::new();
        loop {
            if self.rest_at.is_some_and(|at| at <= Instant::now()) {
                self.rest(owner);
            }
            self.epoll.wait(&mut events, self.timeout(owner))?;
            for (key, flags) in &events {
                self.ready(*key, *flags, owner)?;
            }
            if !events.is_empty() {
                self.rest_at = Some(Instant::now() + REST_AFTER);
                self.rounds = self.rounds.saturating_add(1);
                if self.rounds == MANY_ROUNDS {
                    process::map_sparsely();
                }
            }
            self.on_time(owner)?;
            // Behind all events of this round: what they read is not lost, and
            // a relaunched program's fds cannot be taken for the old ones.
            if let Some(status) = self.reaped.take()
                && self.ended(status, owner)?
            {
                return Ok(status);
            }
        }
    }

    fn timeout(&self, owner: &dyn Owner) -> Option<Duration> {
        let deadlines = [
            owner.deadline(),
            self.stopping.as_ref().and_then(Stopping::deadline),
            self.clients.deadline(),
            self.rest_at,
            self.accept_at,
        ];
        let next = deadlines.into_iter().flatten().min();
        next.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn ready(&mut self, key: u64, flags: EpollFlags, owner: &mut dyn Owner) -> Result<()> {
        match key {
            // Its trouble with one peer is not the container's.
            key if key < OWNER_KEYS => drop(owner.ready(key, flags)),
            KEY_LISTENER => self.accept()?,
            KEY_PIDFD => self.reaped = self.pidfd.wait(false)?,
            KEY_STDOUT | KEY_STDERR => self.output(key)?,
            KEY_STDIN => self.feed()?,
            KEY_SIGNAL => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.stop(Stop::default(), false, owner)?;
            }
            key => {
                if let Ok(id) = u32::try_from(key - KEY_CLIENT) {
                    self.client(id, flags, owner)?;
                }
            }
        }
        Ok(())
    }

    fn on_time(&mut self, owner: &mut dyn Owner) -> Result<()> {
        let now = Instant::now();
        if owner.deadline().is_some_and(|at| at <= now) {
            // As for `ready`.
            drop(owner.on_time(now));
        }
        match self
            .stopping
            .as_mut()
            .map_or(Due::Nothing, |s| s.on_time(now))
        {
            Due::Nothing => {}
            Due::Kill => {
                if self.signal(libc::SIGKILL, owner).is_ok_and(|alive| alive) {
                    owner.signalled(libc::SIGKILL, true);
                }
            }
            Due::GiveUp => self.give_up(),
        }
        if self.clients.deadline().is_some_and(|at| at <= now) {
            self.clients.drop_stalled(now, &self.epoll);
            self.unblock()?;
        }
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            self.epoll
                .add(&self.listener, EpollFlags::EPOLLIN, KEY_LISTENER)?;
        }
        Ok(())
    }

    /// Nothing has happened for a while: sleeps as small as can be.
    fn rest(&mut self, owner: &mut dyn Owner) {
        self.rest_at = None;
        self.rounds = 0;
        owner.rest();
        self.buffer = Vec::new();
        self.streams.rest();
        self.epoll.wait_at_rest(self.timeout(owner));
    }

    fn accept(&mut self) -> Result<()> {
        if self.clients.accept(&self.listener, &self.epoll).is_err() {
            // Out of fds or memory; whoever waits stays ready, so looking
            // again at once would spin.
            self.epoll.remove(&self.listener)?;
            self.accept_at = Some(Instant::now() + ACCEPT_AGAIN);
        }
        Ok(())
    }

    /// One read of one stream.
    fn output(&mut self, key: u64) -> Result<()> {
        self.make_buffer();
        if let Some(length) = self.streams.read(key, &mut self.buffer, &self.epoll) {
            self.clients.broadcast(&self.buffer[..length], &self.epoll);
            if self.clients.blocked() {
                self.streams.pause(true, &self.epoll)?;
            }
        }
        Ok(())
    }

    /// Goes on reading when nobody holds it up any more.
    fn unblock(&mut self) -> Result<()> {
        if self.clients.blocked() {
            return Ok(());
        }
        self.streams.pause(false, &self.epoll)
    }

    fn feed(&mut self) -> Result<()> {
        let (clients, epoll) = (&mut self.clients, &self.epoll);
        self.streams.feed(epoll, |id, count| {
            if let Some(client) = clients.get(id) {
                client.unconfirmed = client.unconfirmed.saturating_sub(count);
            }
            clients.send(id, &protocol::ack(count), None, epoll);
        })
    }

    fn make_buffer(&mut self) {
        self.buffer.resize(MAX_MESSAGE.max(CHUNK + 1), 0);
    }

    /// The first process is reaped. True when that was the end.
    fn ended(&mut self, status: ExitStatus, owner: &mut dyn Owner) -> Result<bool> {
        self.epoll.remove(&self.pidfd)?;
        self.make_buffer();
        let (clients, epoll) = (&mut self.clients, &self.epoll);
        self.streams.drain(&mut self.buffer, epoll, |frame| {
            clients.broadcast(frame, epoll)
        });
        self.paused = false;
        let restart = self.stopping.take().is_some_and(|s| s.restart);
        let recorded = owner.exited(status, restart);
        if restart {
            let Err(error) = recorded.and_then(|()| self.relaunch(owner)) else {
                self.settle(&Ok(Value::Null), &Ok(Value::Null));
                return Ok(false);
            };
            // Recorded before anybody is told. The stop, at least, has had its
            // effect.
            let status = owner.not_relaunched(&error);
            let recorded = owner.exited(status, false);
            self.settle(&Ok(Value::Null), &Err(error));
            self.finish(status, recorded)?;
        } else {
            self.finish(status, recorded)?;
        }
        Ok(true)
    }

    fn relaunch(&mut self, owner: &mut dyn Owner) -> Result<()> {
        let running = owner.relaunch()?;
        self.pid = running.pid;
        self.pidfd = running.pidfd;
        let adopted = self
            .epoll
            .add(&self.pidfd, EpollFlags::EPOLLIN, KEY_PIDFD)
            .and_then(|()| {
                let open_stdin = self.settings.open_stdin;
                self.streams.adopt(running.stdio, open_stdin, &self.epoll)
            });
        if adopted.is_err() {
            let _ = self.pidfd.signal(libc::SIGKILL);
            let _ = self.pidfd.wait(true);
        }
        adopted
    }

    /// Tells everybody, and gives the slow some time to hear it.
    fn finish(&mut self, status: ExitStatus, recorded: Result<()>) -> Result<()> {
        self.over = Some(status);
        let _ = std::fs::remove_file(self.settings.live.join("sock"));
        // Who connected before that is still answered. The poll set is not
        // waited on any more: the owner's fds are nobody's business now.
        let _ = self.clients.accept(&self.listener, &self.epoll);
        self.farewell(status);
        self.clients.enlarge(&self.epoll);
        let deadline = Instant::now() + LINGER;
        while self.clients.blocked() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            for id in self.clients.ids() {
                self.clients.flush(id, &self.epoll);
            }
        }
        self.clients.leave_open();
        recorded
    }
}

/// Binds `<live>/sock`. The path of a unix socket may have 107 bytes, so it is
/// reached through the folder's fd. A socket left by a killed predecessor is
/// replaced: the container's lock is ours.
fn listen(live: &Path) -> Result<UnixListener> {
    let fail = |errno: Errno| file::explain("bind control socket in", live, errno);
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let folder = nix::fcntl::open(live, flags, Mode::empty()).map_err(fail)?;
    let path = format!("/proc/self/fd/{}/sock", folder.as_raw_fd());
    let address = UnixAddr::new(path.as_str()).map_err(fail)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket =
        socket::socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).map_err(fail)?;
    // Before the bind: the file is born with this mode.
    nix::sys::stat::fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR).map_err(fail)?;
    let bind = || socket::bind(socket.as_raw_fd(), &address);
    match bind() {
        Err(Errno::EADDRINUSE) => {
            nix::unistd::unlink(path.as_str()).map_err(fail)?;
            bind().map_err(fail)?;
        }
        other => other.map_err(fail)?,
    }
    let backlog = Backlog::new(64).map_err(fail)?;
    socket::listen(&socket, backlog).map_err(fail)?;
    Ok(UnixListener::from(socket))
}
