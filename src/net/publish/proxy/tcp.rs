//! TCP through splice(2): bytes go from socket to socket by way of a pipe and
//! are never copied to this process.
//!
//! *Theory of operation.* A connection is two sockets and two directions. A
//! direction borrows a pipe when its source is readable and gives it back when
//! its sink has taken everything, mostly within the same event; it keeps the
//! pipe only while the sink is full. Until then nothing more is read: that is
//! the back-pressure.
//!
//! | a direction | waits for |
//! |---|---|
//! | empty | its source to be readable |
//! | holding bytes | its sink to be writable |
//! | at its end (source closed, pipe empty) | nothing: the sink is shut down, once |
//!
//! When both are at their end the connection is. An error on either side, or a
//! service that refuses, is passed on as a reset, which is noticed also where
//! nothing else is waited for. Only a socket that has been shut down leaves the
//! poll set then, which would report its hang-up for ever.

use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::socket::{Shutdown, SockType, SockaddrIn, connect, setsockopt, shutdown, sockopt};

use super::{Inside, Key, Kind, Poll, Slab};
use crate::base::Result;
use crate::sys::epoll::EpollFlags;

/// What a pipe should hold; the kernel's limit for users is 1 MiB.
const PIPE: i32 = 1 << 20;
/// Pipes kept for the next event while there are connections.
const SPARE_PIPES: usize = 2;
/// How many are accepted before others have their turn.
const ACCEPT_AT_ONCE: usize = 16;
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    /// Number of the published port.
    port: usize,
    container: u16,
}

#[derive(Debug)]
pub(super) struct Tcp {
    listeners: Vec<Listener>,
    connections: Slab<Connection>,
    pipes: Pipes,
    room: usize,
    /// The listening sockets are out of the poll set …
    paused: bool,
    /// … and come back then, if no connection ends before.
    again: Option<Instant>,
}

impl Tcp {
    pub(super) fn new(sockets: Vec<(usize, u16, OwnedFd)>, room: usize) -> Self {
        let listener = |(port, container, socket)| Listener {
            socket: TcpListener::from(socket),
            port,
            container,
        };
        Self {
            listeners: sockets.into_iter().map(listener).collect(),
            connections: Slab::new(),
            pipes: Pipes::default(),
            room,
            paused: false,
            again: None,
        }
    }

    pub(super) fn register(&mut self, poll: &Poll) -> Result<()> {
        for (at, listener) in self.listeners.iter().enumerate() {
            let key = Key::listener(Kind::TcpListener, at);
            poll.add(&listener.socket, EpollFlags::EPOLLIN, key)?;
        }
        Ok(())
    }

    pub(super) fn is_used(&self, port: usize) -> bool {
        self.connections.iter().any(|(.., c)| c.port == port)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again
    }

    pub(super) fn on_time(&mut self, now: Instant, poll: &Poll) -> Result<()> {
        if self.again.is_some_and(|at| at <= now) {
            self.resume(poll)?;
        }
        Ok(())
    }

    pub(super) fn accept(&mut self, at: usize, poll: &Poll, inside: &Inside<'_>) -> Result<()> {
        for _ in 0..ACCEPT_AT_ONCE {
            let Some(listener) = self.listeners.get(at) else {
                return Ok(());
            };
            if self.connections.len() >= self.room {
                self.pause(poll, None);
                return Ok(());
            }
            let client = match listener.socket.accept() {
                Ok((client, _)) => client,
                Err(e) => {
                    if e.raw_os_error().is_some_and(is_exhausted) {
                        self.pause(poll, Some(Instant::now() + ACCEPT_AGAIN));
                    }
                    // The queue is empty, or that client is gone already.
                    return Ok(());
                }
            };
            let (port, container) = (listener.port, listener.container);
            match Connection::open(client, port, inside, container) {
                Ok(connection) => self.begin(connection, poll),
                Err(errno) if is_exhausted(errno) => {
                    self.pause(poll, Some(Instant::now() + ACCEPT_AGAIN));
                    return Ok(());
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn begin(&mut self, connection: Connection, poll: &Poll) {
        let (place, generation) = self.connections.insert(connection);
        let key = Key {
            kind: Kind::Connection,
            generation,
            place,
            server: false,
        };
        if let Some(connection) = self.connections.at(key)
            && connection.watch(key, poll).is_err()
        {
            connection.reset();
            self.connections.remove(place);
        }
    }

    pub(super) fn ready(&mut self, key: Key, events: EpollFlags, poll: &Poll) -> Result<()> {
        let Some(connection) = self.connections.at(key) else {
            return Ok(());
        };
        match connection.serve(key, events, &mut self.pipes, poll) {
            Ok(false) => Ok(()),
            Ok(true) => self.end(key.place, poll),
            Err(_) => {
                connection.reset();
                self.end(key.place, poll)
            }
        }
    }

    fn end(&mut self, place: usize, poll: &Poll) -> Result<()> {
        self.connections.remove(place);
        if self.connections.len() == 0 {
            self.pipes = Pipes::default();
        }
        self.resume(poll)
    }

    fn pause(&mut self, poll: &Poll, until: Option<Instant>) {
        if !self.paused {
            for listener in &self.listeners {
                poll.remove(&listener.socket);
            }
        }
        self.paused = true;
        self.again = until;
    }

    fn resume(&mut self, poll: &Poll) -> Result<()> {
        if std::mem::take(&mut self.paused) {
            self.again = None;
            self.register(poll)?;
        }
        Ok(())
    }
}

/// Out of fds or memory: whoever waits stays ready, and looking again at once
/// would spin.
fn is_exhausted(errno: i32) -> bool {
    [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].contains(&errno)
}

/// Pipes that hold nothing.
#[derive(Debug, Default)]
struct Pipes(Vec<Pipe>);

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    fn take(&mut self) -> nix::Result<Pipe> {
        if let Some(pipe) = self.0.pop() {
            return Ok(pipe);
        }
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // Over the user's limit it stays as it is: slower, but as good.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE));
        Ok(Pipe { read, write })
    }

    fn give(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE_PIPES {
            self.0.push(pipe);
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    held: usize,
    source_closed: bool,
    done: bool,
}

impl Direction {
    fn wants_input(&self) -> bool {
        self.held == 0 && !self.source_closed
    }

    /// From the source as much as fits, and on to the sink.
    fn pull(&mut self, source: &TcpStream, sink: &TcpStream, pipes: &mut Pipes) -> nix::Result<()> {
        if !self.wants_input() {
            return Ok(());
        }
        let pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => pipes.take()?,
        };
        let most = usize::try_from(PIPE).unwrap_or_default();
        let moved = splice(source, None, &pipe.write, None, most, flags());
        self.pipe = Some(pipe);
        match moved {
            Ok(0) => self.source_closed = true,
            Ok(n) => self.held = n,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        self.push(sink, pipes)
    }

    /// What is held to the sink; at the end of all, its shutdown.
    fn push(&mut self, sink: &TcpStream, pipes: &mut Pipes) -> nix::Result<()> {
        while self.held > 0 {
            let Some(pipe) = &self.pipe else { break };
            match splice(&pipe.read, None, sink, None, self.held, flags()) {
                Ok(0) => return Err(Errno::EPIPE),
                Ok(n) => self.held = self.held.saturating_sub(n),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        if let Some(pipe) = self.pipe.take() {
            pipes.give(pipe);
        }
        if self.source_closed && !self.done {
            self.done = true;
            match shutdown(sink.as_raw_fd(), Shutdown::Write) {
                Ok(()) | Err(Errno::ENOTCONN) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE
}

#[derive(Debug)]
struct Connection {
    /// Number of the published port.
    port: usize,
    client: TcpStream,
    server: TcpStream,
    connecting: bool,
    /// Client to server, and back.
    up: Direction,
    down: Direction,
    /// What the poll set knows, by side.
    polled: [Option<EpollFlags>; 2],
}

impl Connection {
    /// Accepted; on its way into the container. The error is an errno, and
    /// the client is told.
    fn open(
        client: TcpStream,
        port: usize,
        inside: &Inside<'_>,
        container: u16,
    ) -> Result<Self, i32> {
        let opened = server(inside, inside.addr(container)).and_then(|(server, connecting)| {
            let nonblocking = client.set_nonblocking(true);
            nonblocking.map_err(|e| e.raw_os_error().unwrap_or(libc::EIO))?;
            Ok((server, connecting))
        });
        match opened {
            Ok((server, connecting)) => Ok(Self {
                port,
                client,
                server,
                connecting,
                up: Direction::default(),
                down: Direction::default(),
                polled: [None; 2],
            }),
            Err(errno) => {
                reset_on_close(&client);
                Err(errno)
            }
        }
    }

    /// True: it is over.
    fn serve(
        &mut self,
        key: Key,
        events: EpollFlags,
        pipes: &mut Pipes,
        poll: &Poll,
    ) -> nix::Result<bool> {
        if self.connecting {
            if !key.server {
                return Ok(false);
            }
            if let Some(e) = self.server.take_error().unwrap_or(None) {
                return Err(Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)));
            }
            self.connecting = false;
        }
        let (source, sink) = (&self.client, &self.server);
        let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if key.server {
            if events.contains(EpollFlags::EPOLLOUT) {
                self.up.push(sink, pipes)?;
            }
            if events.intersects(readable) {
                self.down.pull(sink, source, pipes)?;
            }
        } else {
            if events.contains(EpollFlags::EPOLLOUT) {
                self.down.push(source, pipes)?;
            }
            if events.intersects(readable) {
                self.up.pull(source, sink, pipes)?;
            }
        }
        if self.up.done && self.down.done {
            return Ok(true);
        }
        if events.contains(EpollFlags::EPOLLERR) {
            // Nothing was waited of this side any more, and it failed.
            let side = if key.server {
                &self.server
            } else {
                &self.client
            };
            if side.take_error().unwrap_or(None).is_some() {
                return Err(Errno::ECONNRESET);
            }
        }
        self.watch(key, poll)
            .map(|()| false)
            .map_err(|e| e.errno().map_or(Errno::EIO, Errno::from_raw))
    }

    /// Tells the poll set what is waited for now.
    fn watch(&mut self, key: Key, poll: &Poll) -> Result<()> {
        let waits = |input, output, shut: bool| {
            let mut flags = EpollFlags::empty();
            flags.set(EpollFlags::EPOLLIN, input);
            flags.set(EpollFlags::EPOLLOUT, output);
            (!flags.is_empty() || !shut).then_some(flags)
        };
        let waited = if self.connecting {
            [None, waits(false, true, false)]
        } else {
            let (up, down) = (&self.up, &self.down);
            [
                waits(up.wants_input(), down.held > 0, down.done),
                waits(down.wants_input(), up.held > 0, up.done),
            ]
        };
        for (side, wanted) in waited.into_iter().enumerate() {
            let server = side == 1;
            let socket = if server { &self.server } else { &self.client };
            let key = Key { server, ..key };
            match (self.polled[side], wanted) {
                (before, now) if before == now => continue,
                (None, Some(flags)) => poll.add(socket, flags, key)?,
                (Some(_), Some(flags)) => poll.modify(socket, flags, key)?,
                (_, None) => poll.remove(socket),
            }
            self.polled[side] = wanted;
        }
        Ok(())
    }

    /// Both ends will hear a reset instead of an orderly end.
    fn reset(&self) {
        reset_on_close(&self.client);
        reset_on_close(&self.server);
    }
}

/// A socket of the container's network, connected or (true) still connecting.
fn server(inside: &Inside<'_>, addr: SocketAddrV4) -> Result<(TcpStream, bool), i32> {
    let socket = inside
        .socket(SockType::Stream)
        .map_err(|e| e.errno().unwrap_or(libc::EIO))?;
    let _ = setsockopt(&socket, sockopt::TcpNoDelay, &true);
    let addr = SockaddrIn::from(addr);
    let try_it = || connect(socket.as_fd().as_raw_fd(), &addr);
    // The container is on this machine: the handshake is mostly over when the
    // first call returns, and the second one says so.
    let connecting = match try_it() {
        Err(Errno::EINPROGRESS) => match try_it() {
            Ok(()) | Err(Errno::EISCONN) => false,
            Err(Errno::EALREADY | Errno::EINPROGRESS) => true,
            Err(errno) => return Err(errno as i32),
        },
        Ok(()) => false,
        Err(errno) => return Err(errno as i32),
    };
    Ok((TcpStream::from(socket), connecting))
}

fn reset_on_close(socket: &TcpStream) {
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let _ = setsockopt(socket, sockopt::Linger, &now);
}
