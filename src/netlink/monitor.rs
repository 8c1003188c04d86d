//! Multicast notifications for an event loop: links and addresses that come,
//! change and go.

use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::wire::{self, Malformed, Message};
use super::{addr, link, socket, trace};
use crate::base::{Error, Result, Subject};

/// RTNLGRP_*: IPv6 addresses, and options of router advertisements.
pub const IPV6_IFADDR: u32 = 9;
pub const ND_USEROPT: u32 = 20;
const RTM_NEWNDUSEROPT: u16 = 68;

/// Multicast listener. Overrun (ENOBUFS) is reported, never hidden.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    buffer: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A link came, changed or went.
    Link {
        index: u32,
        name: String,
        gone: bool,
        up: bool,
        carrier: bool,
    },
    /// An address came (or changed) or went.
    Addr {
        index: u32,
        addr: crate::base::Cidr,
        gone: bool,
    },
    /// An option of a router's advertisement that the kernel has no use for
    /// (RFC 8106's name servers), from its type on.
    Advertised { index: u32, option: Vec<u8> },
    /// Messages were lost: read the state afresh.
    Overrun,
}

impl Monitor {
    pub(super) fn new(mut socket: Socket, groups: &[u32]) -> Result<Self> {
        let failed = |e: std::io::Error| Error::sys("listen to rtnetlink", Subject::None, e);
        socket.set_non_blocking(true).map_err(failed)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
        for group in groups {
            socket.add_membership(*group).map_err(failed)?;
        }
        Ok(Self {
            socket,
            buffer: Vec::new(),
        })
    }

    /// All events that are waiting, without blocking.
    pub fn drain(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            match socket::read_one(&self.socket, &mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(true) => {
                    trace::received(
                        u8::try_from(NETLINK_ROUTE).unwrap_or_default(),
                        &self.buffer,
                    );
                    for message in wire::messages(&self.buffer) {
                        match message.and_then(|m| event(&m)) {
                            Ok(event) => events.extend(event),
                            // What cannot be understood may hide a change.
                            Err(_) => events.push(Event::Overrun),
                        }
                    }
                }
                Ok(false) | Err(libc::EINTR) => {}
                Err(libc::EAGAIN) => return Ok(events),
                Err(libc::ENOBUFS | libc::EMSGSIZE) => events.push(Event::Overrun),
                Err(errno) => {
                    return Err(Error::sys("read rtnetlink events", Subject::None, errno));
                }
            }
        }
    }
}

pub(super) fn event(message: &Message<'_>) -> Result<Option<Event>, Malformed> {
    let event = match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => {
            link::event(message.payload, message.kind == libc::RTM_DELLINK)?
        }
        libc::RTM_NEWADDR | libc::RTM_DELADDR => {
            let address = addr::parse(message.payload)?;
            Some(Event::Addr {
                index: address.index,
                addr: address.cidr,
                gone: message.kind == libc::RTM_DELADDR,
            })
        }
        RTM_NEWNDUSEROPT => advertised(message.payload),
        _ => None,
    };
    Ok(event)
}

/// `struct nduseroptmsg`, and the option of which it tells the length.
fn advertised(payload: &[u8]) -> Option<Event> {
    const ROUTER_ADVERTISEMENT: u8 = 134;
    let (header, rest) = payload.split_at_checked(16)?;
    if header[8] != ROUTER_ADVERTISEMENT {
        return None;
    }
    let length = usize::from(u16::from_ne_bytes([header[2], header[3]]));
    Some(Event::Advertised {
        index: wire::u32_of(&header[4..]).ok()?,
        option: rest.get(..length)?.to_vec(),
    })
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
