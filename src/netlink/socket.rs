//! rtnetlink sockets, typed by the namespace they are bound to.
//! Theory of operation: see design.md §2 (to be written here).

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};

use crate::base::Result;
use crate::sys::netns::{Host, Netns, Place, Sandbox};

/// An rtnetlink socket, bound for life to the namespace it was opened in.
#[derive(Debug)]
pub struct Rtnl<P: Place> {
    _place: PhantomData<fn() -> P>,
}

impl Rtnl<Host> {
    /// Opened in the caller's namespace.
    pub fn host() -> Result<Self> {
        todo!()
    }
    /// Subscribes a second socket to RTNLGRP_* groups (`RTNLGRP_LINK`,
    /// `RTNLGRP_IPV4_IFADDR`, …) for an event loop.
    pub fn monitor(_groups: &[u32]) -> Result<Monitor> {
        todo!()
    }
}

impl Rtnl<Sandbox> {
    pub fn sandbox(_netns: &Netns<Sandbox>) -> Result<Self> {
        todo!()
    }
}

/// Multicast listener. Overrun (ENOBUFS) is reported, never hidden.
#[derive(Debug)]
pub struct Monitor {}

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
    /// Messages were lost: read the state afresh.
    Overrun,
}

impl Monitor {
    /// All events that are waiting, without blocking.
    pub fn drain(&mut self) -> Result<Vec<Event>> {
        todo!()
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        todo!()
    }
}
