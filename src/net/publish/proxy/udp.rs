//! UDP: a *flow* for each client, with a socket of its own in the container's
//! network, so that the service can tell clients apart and an answer finds its
//! way back. A flow ends after [`SILENCE`] in both directions.
//!
//! Answers leave from the address that the client asked (IP_PKTINFO): the
//! listening socket is bound to all of them, and the route's own choice could
//! be another one.

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockType, SockaddrStorage, recvmsg, sendmsg,
};

use super::{Inside, Key, Kind, Poll, Slab};
use crate::base::Result;
use crate::sys::epoll::EpollFlags;

/// As docker-proxy has it.
const SILENCE: Duration = Duration::from_secs(90);
/// Datagrams of one socket before others have their turn.
const AT_ONCE: usize = 64;
/// The longest datagram there is.
const BUFFER: usize = 1 << 16;

/// Who talks to whom: the listening socket, the client, and the host's address
/// that it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Peer {
    listener: usize,
    client: SocketAddr,
    asked: Option<Ipv4Addr>,
}

#[derive(Debug)]
struct Flow {
    peer: Peer,
    socket: UdpSocket,
    last: Instant,
}

#[derive(Debug)]
pub(super) struct Udp {
    listeners: Vec<(u16, UdpSocket)>,
    flows: Slab<Flow>,
    by_peer: HashMap<Peer, Key>,
    /// Empty at rest.
    buffer: Vec<u8>,
    room: usize,
    next: Option<Instant>,
}

impl Udp {
    pub(super) fn new(sockets: Vec<(u16, OwnedFd)>, room: usize) -> Self {
        Self {
            listeners: sockets
                .into_iter()
                .map(|(port, socket)| (port, UdpSocket::from(socket)))
                .collect(),
            flows: Slab::new(),
            by_peer: HashMap::new(),
            buffer: Vec::new(),
            room: room / 2,
            next: None,
        }
    }

    pub(super) fn register(&mut self, poll: &Poll) -> Result<()> {
        for (at, (_, socket)) in self.listeners.iter().enumerate() {
            let key = Key::listener(Kind::UdpListener, at);
            poll.add(socket, EpollFlags::EPOLLIN, key)?;
        }
        Ok(())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Ends the flows that have been silent for too long.
    pub(super) fn on_time(&mut self, now: Instant, poll: &Poll) {
        if self.next.is_none_or(|at| at > now) {
            return;
        }
        let silent: Vec<usize> = self
            .flows
            .iter()
            .filter(|(.., flow)| flow.last + SILENCE <= now)
            .map(|(place, ..)| place)
            .collect();
        for place in silent {
            self.end(place, poll);
        }
        self.next = self.flows.iter().map(|(.., f)| f.last + SILENCE).min();
        if self.next.is_none() {
            self.buffer = Vec::new();
            self.by_peer = HashMap::new();
        }
    }

    fn end(&mut self, place: usize, poll: &Poll) {
        let found = self.flows.iter().find(|(at, ..)| *at == place);
        if let Some((.., flow)) = found {
            poll.remove(&flow.socket);
            self.by_peer.remove(&flow.peer);
        }
        self.flows.remove(place);
    }

    /// Datagrams from clients.
    pub(super) fn request(&mut self, at: usize, poll: &Poll, inside: &Inside<'_>) -> Result<()> {
        self.buffer.resize(BUFFER, 0);
        let now = Instant::now();
        for _ in 0..AT_ONCE {
            let Some((container, listener)) = self.listeners.get(at) else {
                return Ok(());
            };
            let (length, peer) = match receive(listener, at, &mut self.buffer) {
                Ok(Some(received)) => received,
                // An ICMP error about an earlier answer.
                Ok(None) => continue,
                Err(_) => break,
            };
            let container = *container;
            if let Some(flow) = self.flow(peer, container, now, poll, inside) {
                flow.last = now;
                let socket = flow.socket.as_raw_fd();
                let bytes = self.buffer.get(..length).unwrap_or_default();
                // Full, or nobody listens: lost, as a datagram may be.
                let _ = nix::sys::socket::send(socket, bytes, MsgFlags::MSG_NOSIGNAL);
            }
        }
        if self.flows.len() == 0 {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    fn flow(
        &mut self,
        peer: Peer,
        container: u16,
        now: Instant,
        poll: &Poll,
        inside: &Inside<'_>,
    ) -> Option<&mut Flow> {
        if let Some(key) = self.by_peer.get(&peer) {
            return self.flows.at(*key);
        }
        if self.flows.len() >= self.room {
            let oldest = self.flows.iter().min_by_key(|(.., flow)| flow.last);
            let place = oldest.map(|(place, ..)| place)?;
            self.end(place, poll);
        }
        let socket = UdpSocket::from(inside.socket(SockType::Datagram).ok()?);
        socket.connect(inside.addr(container)).ok()?;
        let flow = Flow {
            peer,
            socket,
            last: now,
        };
        let (place, generation) = self.flows.insert(flow);
        let key = Key {
            kind: Kind::Flow,
            generation,
            place,
            server: true,
        };
        self.by_peer.insert(peer, key);
        self.next.get_or_insert(now + SILENCE);
        let added = poll.add(&self.flows.at(key)?.socket, EpollFlags::EPOLLIN, key);
        if added.is_err() {
            self.end(place, poll);
        }
        self.flows.at(key)
    }

    /// Datagrams from the container.
    pub(super) fn answer(&mut self, key: Key, poll: &Poll) -> Result<()> {
        self.buffer.resize(BUFFER, 0);
        let Some(flow) = self.flows.at(key) else {
            return Ok(());
        };
        let Some((_, listener)) = self.listeners.get(flow.peer.listener) else {
            return Ok(());
        };
        for _ in 0..AT_ONCE {
            match flow.socket.recv(&mut self.buffer) {
                Ok(length) => {
                    flow.last = Instant::now();
                    let bytes = self.buffer.get(..length).unwrap_or_default();
                    send(listener, &flow.peer, bytes);
                }
                // Nobody listens in the container; reading it has cleared it.
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(_) => {
                    self.end(key.place, poll);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// One datagram and whose it is; `None` for a pending error.
fn receive(
    socket: &UdpSocket,
    listener: usize,
    buffer: &mut [u8],
) -> nix::Result<Option<(usize, Peer)>> {
    let mut control = nix::cmsg_space!(libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = match recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    ) {
        Ok(message) => message,
        Err(Errno::EAGAIN) => return Err(Errno::EAGAIN),
        Err(Errno::ENOMEM | Errno::ENOBUFS) => return Err(Errno::ENOMEM),
        Err(_) => return Ok(None),
    };
    let asked = message.cmsgs()?.find_map(|c| match c {
        // Where a broadcast is answered from, too.
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()))
        }
        _ => None,
    });
    let Some(client) = message.address.as_ref().and_then(socket_addr) else {
        return Ok(None);
    };
    let peer = Peer {
        listener,
        client,
        asked,
    };
    Ok(Some((message.bytes, peer)))
}

fn socket_addr(addr: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = addr.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    let v6 = addr.as_sockaddr_in6()?;
    Some(SocketAddr::V6(std::net::SocketAddrV6::from(*v6)))
}

fn send(listener: &UdpSocket, peer: &Peer, bytes: &[u8]) {
    let info = peer.asked.map(|from| libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from_ne_bytes(from.octets()),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    });
    let control: Vec<ControlMessage<'_>> =
        info.iter().map(ControlMessage::Ipv4PacketInfo).collect();
    // Full, or the client is gone: lost, as a datagram may be.
    let _ = sendmsg(
        listener.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &control,
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        Some(&SockaddrStorage::from(peer.client)),
    );
}
