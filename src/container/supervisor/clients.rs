//! Connections to the control socket: who may, what is under way to them, and
//! what becomes of one that does not read.
//!
//! *Back-pressure.* The kernel's socket buffer is the queue (about 200 KiB, no
//! memory of ours). Only what it refuses is kept here: answers, and at most
//! one chunk of a stream, because a client with anything kept here makes the
//! supervisor stop reading the container's output. So nobody ever misses a
//! byte, and a client that reads slowly slows the container down, as a pipe
//! would. For the client that `run` left in the foreground (it *is* the
//! reader of the pipe) that holds for ever; any other must take something
//! within [`PATIENCE`], or is dropped with a message: a stopped or hung
//! `attach` cannot hold up a service.
//!
//! The log is written before any client is served and waits for none.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{self, Shutdown, sockopt};

use super::KEY_CLIENT;
use super::protocol::{Answer, Attach, STDERR, STDOUT};
use crate::base::{Error, Result};
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::fd;

/// How long a client that is not in the foreground may hold up the output.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at once; the fd limit of the supervisor is 1024.
const MAX_CLIENTS: usize = 256;
/// Answers kept for a client that asks and asks and never reads.
const MAX_ANSWERS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Clients {
    list: BTreeMap<u32, Client>,
    next: u32,
}

#[derive(Debug)]
pub(super) struct Client {
    fd: OwnedFd,
    pub(super) attached: Option<Attach>,
    /// The reader for whom `run` was started: never dropped.
    pub(super) foreground: bool,
    /// Requests to be answered later.
    pub(super) pending: Vec<(u64, Pending)>,
    /// Input received and not yet confirmed.
    pub(super) unconfirmed: usize,
    /// What the socket did not take.
    kept: VecDeque<Packet>,
    /// Since when it has taken nothing.
    stalled: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pending {
    Wait,
    Stop,
    Restart,
}

#[derive(Debug)]
struct Packet {
    bytes: Vec<u8>,
    fd: Option<OwnedFd>,
}

/// What a socket had for us.
#[derive(Debug)]
pub(super) enum Received {
    Message(usize, Vec<OwnedFd>),
    /// Something that is no message of ours, though a message.
    Bad(Error),
    Nothing,
    /// It cannot be read any more; the client has not gone.
    Broken(Error),
    /// The client has gone.
    End,
}

impl Clients {
    /// Takes in everybody who waits at the socket.
    pub(super) fn accept(&mut self, listener: &UnixListener, epoll: &Epoll) -> Result<()> {
        let fail = |e: std::io::Error| Error::sys("accept", "control connection", e);
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) =>
                {
                    continue;
                }
                Err(e) => return Err(fail(e)),
            };
            let fd = OwnedFd::from(stream);
            match self.admit(&fd) {
                Err(error) => refuse(&fd, error),
                // Who cannot be watched is cut off, and may try again.
                Ok(()) => drop(self.add(fd, false, None, epoll)),
            }
        }
    }

    fn admit(&self, fd: &OwnedFd) -> Result<()> {
        let peer = socket::getsockopt(fd, sockopt::PeerCredentials)
            .map_err(|e| Error::sys("identify", "control client", e))?;
        if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
            return Err(Error::sys("use", "control socket", Errno::EPERM)
                .hint("only root and the user who started the container may"));
        }
        if self.list.len() >= MAX_CLIENTS {
            return Err(Error::sys("use", "control socket", Errno::EMFILE)
                .hint(format!("{MAX_CLIENTS} clients are connected")));
        }
        Ok(())
    }

    pub(super) fn add(
        &mut self,
        fd: OwnedFd,
        foreground: bool,
        attached: Option<Attach>,
        epoll: &Epoll,
    ) -> Result<()> {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        let watched = super::streams::nonblocking(&fd)
            .and_then(|()| epoll.add(&fd, EpollFlags::EPOLLIN, KEY_CLIENT | u64::from(id)));
        if let Err(error) = watched {
            refuse(&fd, error.clone());
            return Err(error);
        }
        let client = Client {
            fd,
            attached,
            foreground,
            pending: Vec::new(),
            unconfirmed: 0,
            kept: VecDeque::new(),
            stalled: None,
        };
        self.list.insert(id, client);
        Ok(())
    }

    pub(super) fn get(&mut self, id: u32) -> Option<&mut Client> {
        self.list.get_mut(&id)
    }

    pub(super) fn ids(&self) -> Vec<u32> {
        self.list.keys().copied().collect()
    }

    pub(super) fn receive(&self, id: u32, buffer: &mut [u8]) -> Received {
        let Some(client) = self.list.get(&id) else {
            return Received::End;
        };
        let mut received = fd::recv(client.fd.as_fd(), buffer);
        // A client that went without reading everything resets the connection,
        // and that is reported, once, before its last requests.
        if matches!(&received, Err(e) if e.is_errno(libc::ECONNRESET)) {
            received = fd::recv(client.fd.as_fd(), buffer);
        }
        match received {
            Ok((0, _)) => Received::End,
            Ok((length, fds)) => Received::Message(length, fds),
            Err(e) if e.is_errno(libc::EAGAIN) => Received::Nothing,
            Err(e) if e.is_errno(libc::EMSGSIZE) => Received::Bad(e.hint("message too long")),
            Err(e) if e.is_errno(libc::ECONNRESET) => Received::End,
            Err(e) => Received::Broken(e),
        }
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Client> {
        self.list.remove(&id)
    }

    pub(super) fn answer(&mut self, id: u32, answer: &Answer, fd: Option<OwnedFd>, epoll: &Epoll) {
        self.send(id, &answer.encode(), fd, epoll);
        let hoards = self
            .list
            .get(&id)
            .is_some_and(|c| c.kept.len() > MAX_ANSWERS);
        if hoards {
            self.list.remove(&id);
        }
    }

    /// One frame of a stream to all who want it.
    pub(super) fn broadcast(&mut self, frame: &[u8], epoll: &Epoll) {
        let wants = |client: &Client| {
            client.attached.is_some_and(|a| match frame[0] {
                STDOUT => a.stdout,
                STDERR => a.stderr,
                _ => false,
            })
        };
        for (id, client) in &mut self.list {
            if wants(client) {
                client.send(*id, frame, None, epoll);
            }
        }
    }

    pub(super) fn send(&mut self, id: u32, bytes: &[u8], fd: Option<OwnedFd>, epoll: &Epoll) {
        if let Some(client) = self.list.get_mut(&id) {
            client.send(id, bytes, fd, epoll);
        }
    }

    /// The socket has room again.
    pub(super) fn flush(&mut self, id: u32, epoll: &Epoll) {
        if let Some(client) = self.list.get_mut(&id) {
            client.flush(id, epoll);
        }
    }

    /// Does anybody hold up the output?
    pub(super) fn blocked(&self) -> bool {
        self.list.values().any(Client::blocks)
    }

    /// When the patience with somebody ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let stalled = self.list.values().filter(|c| c.blocks() && !c.foreground);
        stalled
            .filter_map(|c| c.stalled)
            .min()
            .map(|since| since + PATIENCE)
    }

    /// Drops those with whom it has ended.
    pub(super) fn drop_stalled(&mut self, now: Instant, epoll: &Epoll) {
        self.list.retain(|id, client| {
            if client.foreground || !client.blocks() {
                return true;
            }
            if client.stalled.is_none_or(|since| now < since + PATIENCE) {
                return true;
            }
            // The poll set reports room only when three quarters are free: a
            // slow reader may have taken something all the same.
            let before = client.kept.len();
            client.flush(*id, epoll);
            if client.kept.len() < before {
                return true;
            }
            let text = format!("it read no output for {} s", PATIENCE.as_secs());
            // Its buffer is full, so the last word needs more of it.
            client.enlarge();
            let _ = fd::send(client.fd.as_fd(), &Answer::Dropped(text).encode(), &[]);
            false
        });
    }

    /// The end: gives every socket room for what is still kept.
    pub(super) fn enlarge(&mut self, epoll: &Epoll) {
        for (id, client) in &mut self.list {
            if !client.kept.is_empty() {
                client.enlarge();
                client.flush(*id, epoll);
            }
        }
    }

    /// The sockets stay open without an owner: the kernel closes them when
    /// this process has ended, and only then the clients see the end.
    pub(super) fn leave_open(&mut self) {
        for (_, client) in std::mem::take(&mut self.list) {
            let _ = client.fd.into_raw_fd();
        }
    }
}

/// Best effort: the refused may have gone already.
fn refuse(fd: &OwnedFd, why: Error) {
    let _ = fd::send(fd.as_fd(), &Answer::new(0, Err(why)).encode(), &[]);
}

impl Client {
    fn blocks(&self) -> bool {
        self.attached.is_some() && !self.kept.is_empty()
    }

    fn send(&mut self, id: u32, bytes: &[u8], fd: Option<OwnedFd>, epoll: &Epoll) {
        if self.kept.is_empty() && self.offer(bytes, fd.as_ref()) {
            return;
        }
        if self.kept.is_empty() {
            self.stalled = Some(Instant::now());
            let events = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
            let _ = epoll.modify(&self.fd, events, KEY_CLIENT | u64::from(id));
        }
        let bytes = bytes.to_vec();
        self.kept.push_back(Packet { bytes, fd });
    }

    /// False when the socket is full. A dead peer takes everything: its
    /// hang-up is the next event. So does one that cannot be told what it
    /// waits for; it is hung up on, not left waiting.
    fn offer(&self, bytes: &[u8], fd: Option<&OwnedFd>) -> bool {
        let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
        match fd::send(self.fd.as_fd(), bytes, &fds) {
            Err(e) if e.is_errno(libc::EAGAIN) || e.is_errno(libc::ENOBUFS) => false,
            Err(_) => {
                let _ = socket::shutdown(self.fd.as_raw_fd(), Shutdown::Both);
                true
            }
            Ok(()) => true,
        }
    }

    fn flush(&mut self, id: u32, epoll: &Epoll) {
        while let Some(packet) = self.kept.front() {
            if !self.offer(&packet.bytes, packet.fd.as_ref()) {
                return;
            }
            self.kept.pop_front();
            self.stalled = Some(Instant::now());
        }
        self.stalled = None;
        self.kept.shrink_to_fit();
        let _ = epoll.modify(&self.fd, EpollFlags::EPOLLIN, KEY_CLIENT | u64::from(id));
    }

    /// A larger send buffer: as root any, else up to net.core.wmem_max, twice
    /// the default, which has room for a full pipe more.
    fn enlarge(&self) {
        const SIZE: usize = 4 << 20;
        if socket::setsockopt(&self.fd, sockopt::SndBufForce, &SIZE).is_err() {
            let _ = socket::setsockopt(&self.fd, sockopt::SndBuf, &SIZE);
        }
    }
}
