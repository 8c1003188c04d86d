//! Wakes when one of some links changes in a way that matters, and sleeps
//! through everything else.
//!
//! *Theory of operation.* A socket in the group of links, with a classic BPF
//! program that knows how each link was last seen: index, flags, name and MAC.
//! A message that says the same again (a sibling came or went on the parent,
//! promiscuity, statistics) is dropped in the kernel, and so is one of any
//! other link; only what differs wakes. What the message says is of no
//! interest: whoever wakes reads the links afresh, so that nothing that is lost
//! (ENOBUFS) is missed. Hence the order: first listen, then look, and again if
//! what is seen then is not what was expected.
//!
//! The kernel copies each message for each such socket before it asks the
//! socket's program, and a macvlan that comes or goes is two messages about its
//! parent. So all who expect the same of the same links share one socket
//! ([`Bell`]): it is taken from a process that has it (pidfd_getfd(2)). Nobody
//! reads it: what has come in once stays, so that everybody sees it, and each
//! goes on with another bell, of what is expected then.
//!
//! Where a link is waited for that is not there, every message counts, and each
//! has a socket of its own ([`LinkWatch`]).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};

use super::Link;
use crate::base::{Error, IfName, MacAddr, Result, Subject};
use crate::sys::netns::Host;
use crate::sys::raw;

/// IFF_UP, IFF_RUNNING, IFF_LOWER_UP
const FLAGS: u32 = 1 | 0x40 | 0x1_0000;

/// Where things are in a message: struct nlmsghdr, struct ifinfomsg, and the
/// first attribute, which is the name (rtnetlink.c, `rtnl_fill_ifinfo`).
mod at {
    pub(super) const TYPE: u32 = 4;
    pub(super) const INDEX: u32 = 20;
    pub(super) const FLAGS: u32 = 24;
    pub(super) const ATTRIBUTES: u32 = 32;
    pub(super) const FIRST_TYPE: u32 = 34;
    pub(super) const FIRST_VALUE: u32 = 36;
}

/// SKF_AD_OFF + SKF_AD_NLATTR: the accumulator becomes the offset of the
/// attribute X from the accumulator on, or 0.
const FIND_ATTRIBUTE: u32 = (-0x1000_i32 + 12).cast_unsigned();

/// A link as it was when it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub index: u32,
    pub name: IfName,
    pub mac: Option<MacAddr>,
    /// Of [`FLAGS`].
    flags: u32,
}

impl Seen {
    pub fn of(link: &Link<Host>) -> Self {
        Self {
            index: link.index.get(),
            name: link.name.clone(),
            mac: link.mac,
            flags: link.flags & FLAGS,
        }
    }

    /// Whether frames can leave: up, and with carrier.
    pub fn carries(&self) -> bool {
        self.flags & 1 != 0 && self.flags & 0x1_0000 != 0
    }
}

/// What is listened to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ear {
    Links,
    /// And default routes, which say where `auto` leads.
    LinksAndRoutes,
}

/// Hears every change.
#[derive(Debug)]
pub struct LinkWatch {
    socket: Socket,
}

fn failed(error: std::io::Error) -> Error {
    Error::sys("listen to rtnetlink", Subject::None, error)
}

fn socket() -> Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed)?;
    socket.set_non_blocking(true).map_err(failed)?;
    socket.bind(&SocketAddr::new(0, 0)).map_err(failed)?;
    Ok(socket)
}

impl LinkWatch {
    pub fn new(ear: Ear) -> Result<Self> {
        let socket = socket()?;
        let groups: &[u32] = match ear {
            Ear::Links => &[libc::RTNLGRP_LINK],
            Ear::LinksAndRoutes => &[
                libc::RTNLGRP_LINK,
                libc::RTNLGRP_IPV4_ROUTE,
                libc::RTNLGRP_IPV6_ROUTE,
            ],
        };
        for group in groups {
            socket.add_membership(*group).map_err(failed)?;
        }
        Ok(Self { socket })
    }

    /// Forgets what has come in; whether anything has.
    pub fn drain(&self) -> Result<bool> {
        let mut heard = false;
        let mut cut_off = [0; 16];
        loop {
            match recv(
                self.socket.as_raw_fd(),
                &mut cut_off,
                MsgFlags::MSG_DONTWAIT,
            ) {
                // Lost messages are a change, too.
                Ok(_) | Err(Errno::ENOBUFS) => heard = true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(heard),
                Err(errno) => {
                    return Err(Error::sys("read rtnetlink events", Subject::None, errno));
                }
            }
        }
    }
}

impl AsFd for LinkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Hears when one of some links is not as it was seen any more: once.
#[derive(Debug)]
pub struct Bell {
    socket: Socket,
}

/// Where another process finds a bell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// In the caller's PID namespace.
    pub pid: i32,
    pub fd: i32,
    /// SO_COOKIE: no other socket has it before the next boot.
    pub cookie: u64,
}

impl Bell {
    pub fn new(known: &[Seen]) -> Result<Self> {
        let socket = socket()?;
        // Before the first message.
        raw::attach_filter(socket.as_fd(), &program(known))
            .map_err(|errno| Error::sys("filter rtnetlink", Subject::None, errno))?;
        socket.add_membership(libc::RTNLGRP_LINK).map_err(failed)?;
        Ok(Self { socket })
    }

    /// The bell that another process has there, if it is still that one, has not
    /// rung, and may be had (ptrace(2), "ptrace access mode checking").
    pub fn shared(at: &Whereabouts) -> Option<Self> {
        let process = raw::pidfd_open(at.pid).ok()?;
        let socket = raw::pidfd_getfd(process.as_fd(), at.fd).ok()?;
        if raw::socket_cookie(socket.as_fd()) != Ok(at.cookie) {
            return None;
        }
        let socket = raw::netlink_socket(socket);
        Some(Self { socket }).filter(|bell| !bell.has_rung())
    }

    pub fn whereabouts(&self) -> Option<Whereabouts> {
        Some(Whereabouts {
            pid: i32::try_from(std::process::id()).ok()?,
            fd: self.socket.as_raw_fd(),
            cookie: raw::socket_cookie(self.socket.as_fd()).ok()?,
        })
    }

    pub fn has_rung(&self) -> bool {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        // Lost messages (POLLERR) are a change, too.
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Passes what differs from `known`.
fn program(known: &[Seen]) -> Vec<libc::sock_filter> {
    let mut all = Vec::new();
    for link in known {
        all.extend(block(link));
    }
    // Somebody else's.
    all.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
    all
}

/// One link's part of the program: falls out of its end for other links.
fn block(link: &Seen) -> Vec<libc::sock_filter> {
    const WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    // (load, value): each must hold for the message to say nothing new. Loads
    // are big-endian, the message is the machine's own.
    let mut same: Vec<(Vec<libc::sock_filter>, u32)> = vec![
        (vec![op(HALF, at::TYPE, 0, 0)], half(libc::RTM_NEWLINK)),
        (
            vec![
                op(WORD, at::FLAGS, 0, 0),
                op(
                    libc::BPF_ALU | libc::BPF_AND | libc::BPF_K,
                    FLAGS.to_be(),
                    0,
                    0,
                ),
            ],
            link.flags.to_be(),
        ),
        (
            vec![op(HALF, at::FIRST_TYPE, 0, 0)],
            half(libc::IFLA_IFNAME),
        ),
    ];
    // With its zero, and the zeros that pad it.
    let mut name = link.name.as_str().as_bytes().to_vec();
    name.push(0);
    name.resize(name.len().next_multiple_of(4), 0);
    for (word, at) in name.chunks(4).zip((at::FIRST_VALUE..).step_by(4)) {
        let value = word.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
        same.push((vec![op(WORD, at, 0, 0)], value));
    }
    if let Some(MacAddr([a, b, c, d, e, f])) = link.mac {
        let imm = libc::BPF_IMM;
        let ind = libc::BPF_IND;
        let find = vec![
            op(libc::BPF_LDX | imm, u32::from(libc::IFLA_ADDRESS), 0, 0),
            op(libc::BPF_LD | imm, at::ATTRIBUTES, 0, 0),
            op(WORD, FIND_ATTRIBUTE, 0, 0),
            // TAX
            op(libc::BPF_MISC, 0, 0, 0),
            op(libc::BPF_LD | libc::BPF_W | ind, 4, 0, 0),
        ];
        same.push((find, u32::from_be_bytes([a, b, c, d])));
        let rest = vec![op(libc::BPF_LD | libc::BPF_H | ind, 8, 0, 0)];
        same.push((rest, u32::from(u16::from_be_bytes([e, f]))));
    }
    let length: usize = same.iter().map(|(load, _)| load.len() + 1).sum();
    let mut code = vec![op(WORD, at::INDEX, 0, 0)];
    // Over the comparisons and the two verdicts.
    code.push(equal(link.index.to_be(), 0, length + 2));
    let end = code.len() + length;
    for (load, value) in same {
        code.extend(load);
        // To the second verdict.
        let over = end - code.len();
        code.push(equal(value, 0, over));
    }
    let verdict = libc::BPF_RET | libc::BPF_K;
    code.push(op(verdict, 0, 0, 0));
    code.push(op(verdict, u32::MAX, 0, 0));
    code
}

fn half(value: u16) -> u32 {
    u32::from(value.to_be())
}

fn equal(value: u32, yes: usize, no: usize) -> libc::sock_filter {
    let over = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    op(
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        value,
        over(yes),
        over(no),
    )
}

fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = u16::try_from(code).unwrap_or_default();
    libc::sock_filter { code, jt, jf, k }
}
