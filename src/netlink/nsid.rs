//! Numbers that a network namespace has for others (net/core/net_namespace.c),
//! and through which their links are reached when nothing else leads there: no
//! process, no file, no mount.
//!
//! A number goes with its namespace. The kernel's own begin at 0 and are given
//! again, so whoever must not meet another one begins elsewhere. The numbers of
//! one host are in a radix tree, which is walked whole whenever the kernel looks
//! whether a namespace has one: in a thousand that lie side by side some 10 us,
//! in a thousand at random 1.2 ms.

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::NEEDS_ADMIN;
use super::link::{LOOPBACK, message, no_stats};
use super::socket::Rtnl;
use super::wire::{self, Malformed};
use crate::base::{Result, Subject};
use crate::sys::netns::{Host, Netns, Sandbox};

/// IFLA_TARGET_NETNSID
const TARGET_NETNSID: u16 = 46;

impl Rtnl<Host> {
    /// RTM_NEWNSID: `netns` is number `nsid` from now on, here. EEXIST: it has
    /// one already, or another has this.
    pub fn number_namespace(&mut self, netns: &Netns<Sandbox>, nsid: i32) -> Result<()> {
        let fd = u32::try_from(netns.as_fd().as_raw_fd()).unwrap_or_default();
        let mut new = NsidMessage::default();
        new.attributes = vec![NsidAttribute::Fd(fd), NsidAttribute::Id(nsid)];
        self.channel
            .request(libc::RTM_NEWNSID, 0, &new)
            .map_err(|fault| {
                let is_denied = fault.errno() == libc::EPERM;
                let error = fault.named("number network namespace", Subject::None);
                match is_denied {
                    true => error.hint(NEEDS_ADMIN),
                    false => error,
                }
            })
    }

    /// RTM_GETNSID: whether a namespace has this number here. Before Linux 5.0
    /// nobody knows: `false`.
    pub fn is_number(&mut self, nsid: i32) -> Result<bool> {
        let mut ask = NsidMessage::default();
        ask.attributes = vec![NsidAttribute::Id(nsid)];
        match self.channel.get(libc::RTM_GETNSID, &ask, |_| Ok(())) {
            Ok(_) => Ok(true),
            Err(fault) if matches!(fault.errno(), libc::ENOENT | libc::EINVAL) => Ok(false),
            Err(fault) => Err(fault.named("look for network namespace", Subject::None)),
        }
    }

    /// Deletes all links but the loopback one in the namespace of this number.
    /// Fine if there is none. Each takes an RCU grace period (15 to 30 ms).
    pub fn delete_links_in(&mut self, nsid: i32) -> Result<()> {
        let attributes = vec![LinkAttribute::IfNetnsId(nsid), no_stats()];
        let links = match self
            .channel
            .dump(libc::RTM_GETLINK, &message(0, attributes), |payload| {
                index_in(payload, nsid)
            }) {
            Ok(links) => links,
            // What the kernel says of a number that nobody has.
            Err(fault) if fault.errno() == libc::EINVAL => return Ok(()),
            Err(fault) => return Err(fault.named("list links left behind", Subject::None)),
        };
        for index in links {
            let gone = message(index, vec![LinkAttribute::IfNetnsId(nsid)]);
            match self.channel.request(libc::RTM_DELLINK, 0, &gone) {
                Ok(()) => {}
                // With its peer, or its namespace, or not to be deleted: a NIC,
                // which goes back to the first namespace by itself.
                Err(fault)
                    if matches!(
                        fault.errno(),
                        libc::ENODEV | libc::EINVAL | libc::EOPNOTSUPP
                    ) => {}
                Err(fault) => return Err(fault.named("delete link left behind", Subject::None)),
            }
        }
        Ok(())
    }
}

/// A kernel that does not know the attribute (before Linux 4.16) answers with
/// its own links, and does not say whose they are.
fn index_in(payload: &[u8], nsid: i32) -> std::result::Result<Option<u32>, Malformed> {
    let index = wire::u32_of(payload.get(4..8).ok_or(Malformed("link header"))?)?;
    let attributes = payload.get(16..).unwrap_or_default();
    let whose = wire::find(attributes, TARGET_NETNSID)
        .map(wire::i32_of)
        .transpose()?;
    Ok((whose == Some(nsid) && index != LOOPBACK).then_some(index))
}
