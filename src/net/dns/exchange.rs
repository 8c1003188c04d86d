//! One question on its way to the name servers, in their order.
//!
//! Each gets its own socket, connected (so that the kernel takes datagrams
//! from that server alone), with a port of the kernel's choice and an id of
//! ours, both random: whoever would forge an answer has to guess both, and the
//! question.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};

use super::message::{self, Verdict};
use super::stream::{Received, Stream};
use crate::base::{Error, Result};
use crate::sys::epoll::EpollFlags;
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::random;

/// For each server, as Docker has it.
const PATIENCE: Duration = Duration::from_secs(4);
/// Foreign datagrams in a row, before others have their turn.
const AT_ONCE: usize = 16;

/// From which namespace a name server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Host,
    Sandbox,
}

/// A name server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream {
    pub addr: SocketAddr,
    pub from: Side,
}

/// Who asked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Udp(SocketAddr),
    /// The client's number.
    Tcp(u32),
}

#[derive(Debug)]
enum Channel {
    Udp(UdpSocket),
    Tcp(Stream),
}

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) origin: Origin,
    /// Under our id.
    query: Vec<u8>,
    client_id: u16,
    /// How many servers have been tried.
    tried: usize,
    channel: Option<Channel>,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// Wait for this.
    Pending(EpollFlags),
    Answer(Vec<u8>),
    /// Nothing more from this server.
    Next,
}

impl Exchange {
    pub(super) fn new(origin: Origin, query: &[u8]) -> Self {
        Self {
            origin,
            query: query.to_vec(),
            client_id: message::id(query),
            tried: 0,
            channel: None,
            deadline: Instant::now(),
        }
    }

    /// The question as its client asked it.
    pub(super) fn question(mut self) -> Vec<u8> {
        message::set_id(&mut self.query, self.client_id);
        self.query
    }

    /// Asks the next of the servers that takes the question; `None`: there are
    /// no more.
    pub(super) fn next(
        &mut self,
        servers: &[Upstream],
        netns: &Netns<Sandbox>,
    ) -> Option<EpollFlags> {
        self.channel = None;
        while let Some(server) = servers.get(self.tried) {
            self.tried += 1;
            if let Ok(events) = self.ask(server, netns) {
                self.deadline = Instant::now() + PATIENCE;
                return Some(events);
            }
        }
        None
    }

    fn ask(&mut self, server: &Upstream, netns: &Netns<Sandbox>) -> Result<EpollFlags> {
        message::set_id(&mut self.query, u16::from_ne_bytes(random::bytes()?));
        let kind = match self.origin {
            Origin::Udp(_) => SockType::Datagram,
            Origin::Tcp(_) => SockType::Stream,
        };
        let socket = open(server, kind, netns)?;
        let fail = |e| Error::sys("ask name server", server.addr.to_string(), e);
        match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(server.addr)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(errno) => return Err(fail(errno)),
        }
        let (channel, events) = match self.origin {
            Origin::Udp(_) => {
                let socket = UdpSocket::from(socket);
                socket
                    .send(&self.query)
                    .map_err(|e| fail(Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))))?;
                (Channel::Udp(socket), EpollFlags::EPOLLIN)
            }
            Origin::Tcp(_) => {
                let mut stream = Stream::new(TcpStream::from(socket));
                stream.push(&self.query);
                (Channel::Tcp(stream), EpollFlags::EPOLLOUT)
            }
        };
        self.channel = Some(channel);
        Ok(events)
    }

    /// The server's socket has something to say.
    pub(super) fn ready(&mut self, buffer: &mut [u8]) -> Outcome {
        let mut answer = match &mut self.channel {
            Some(Channel::Udp(socket)) => match datagram(socket, &self.query, buffer) {
                Ok(answer) => answer,
                Err(outcome) => return outcome,
            },
            Some(Channel::Tcp(stream)) => match reply(stream, &self.query) {
                Ok(answer) => answer,
                Err(outcome) => return outcome,
            },
            None => return Outcome::Next,
        };
        message::set_id(&mut answer, self.client_id);
        Outcome::Answer(answer)
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.channel {
            Some(Channel::Udp(socket)) => Some(socket.as_fd()),
            Some(Channel::Tcp(stream)) => Some(stream.socket.as_fd()),
            None => None,
        }
    }
}

fn open(server: &Upstream, kind: SockType, netns: &Netns<Sandbox>) -> Result<OwnedFd> {
    let family = match server.addr {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    match server.from {
        Side::Sandbox => netns.socket(family, kind, flags, 0),
        Side::Host => socket::socket(family, kind, flags, None)
            .map_err(|e| Error::sys("create socket", "", e)),
    }
}

fn datagram(
    socket: &UdpSocket,
    query: &[u8],
    buffer: &mut [u8],
) -> std::result::Result<Vec<u8>, Outcome> {
    for _ in 0..AT_ONCE {
        let length = match socket.recv(buffer) {
            Ok(length) => length,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            // Nobody there, or no way to it.
            Err(_) => return Err(Outcome::Next),
        };
        let got = buffer.get(..length).unwrap_or_default();
        match message::judge(query, got) {
            Verdict::Answer => return Ok(got.to_vec()),
            Verdict::Failure => return Err(Outcome::Next),
            Verdict::Foreign => {}
        }
    }
    Err(Outcome::Pending(EpollFlags::EPOLLIN))
}

fn reply(stream: &mut Stream, query: &[u8]) -> std::result::Result<Vec<u8>, Outcome> {
    if !stream.flush() {
        return Err(Outcome::Next);
    }
    if !stream.is_flushed() {
        return Err(Outcome::Pending(EpollFlags::EPOLLOUT));
    }
    match stream.receive() {
        Received::Message(got) if message::judge(query, &got) == Verdict::Answer => Ok(got),
        Received::Message(_) | Received::End => Err(Outcome::Next),
        Received::Part => Err(Outcome::Pending(EpollFlags::EPOLLIN)),
    }
}
