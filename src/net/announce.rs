//! ARP announcements (RFC 5227 §3), as Docker 28+ sends them: a broadcast ARP
//! request with sender = target = the own address. Wire format by smoltcp.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use crate::base::{MacAddr, Result};
use crate::sys::netns::{Netns, Sandbox};

/// A packet socket on one interface of a sandbox and the frame to send.
#[derive(Debug)]
pub struct Announcer {
    #[allow(dead_code)]
    socket: OwnedFd,
}

impl Announcer {
    pub fn new(
        _netns: &Netns<Sandbox>,
        _ifindex: u32,
        _mac: MacAddr,
        _ip: Ipv4Addr,
    ) -> Result<Self> {
        todo!()
    }
    /// Sends one announcement. ENETDOWN (no carrier yet) is `Ok(false)`.
    pub fn send(&self) -> Result<bool> {
        todo!()
    }
}
