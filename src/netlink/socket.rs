//! rtnetlink sockets, typed by the namespace they are bound to.
//!
//! # Theory of operation
//!
//! A netlink socket belongs for life to the namespace in which socket(2) was
//! called. It is opened there, is CLOEXEC and never cloned; `Rtnl<Host>` and
//! `Rtnl<Sandbox>` are different types, and an [`Ifindex`](super::Ifindex)
//! remembers the namespace it was read in, so that neither can be mistaken for
//! the other. One of each serves a whole start.
//!
//! NETLINK_EXT_ACK (why a request was refused), NETLINK_CAP_ACK (the refusal
//! does not carry the request back) and NETLINK_GET_STRICT_CHK (dump filters
//! are honoured, not ignored) are asked for; an old kernel's refusal is
//! remembered, not fatal. A receive timeout turns a bug into an error instead
//! of a hang.
//!
//! [`Channel::exchange`] is the one request loop:
//!
//! 1. `push` has gathered one or more requests, each with the next sequence
//!    number and REQUEST plus ACK or DUMP. They leave as one datagram.
//! 2. The kernel carries them out in order, before send(2) returns, and queues
//!    an ERROR (code 0: the ACK) for each, or data and a DONE for a dump. A
//!    refused request does not stop those after it (rtnetlink; an nf_tables
//!    batch is all or nothing).
//! 3. Answers are read until the last request has its verdict. EINTR is
//!    retried. A datagram that does not come from the kernel (sender pid not 0)
//!    is skipped; one longer than the buffer (MSG_TRUNC) is an error. A message
//!    with an older sequence number belongs to an exchange that broke off and
//!    is skipped; a newer one is an error.
//! 4. Only ERROR and DONE end a request, and the code in either counts. NOOP is
//!    skipped. OVERRUN and ENOBUFS mean lost messages and end the exchange with
//!    ENOBUFS.
//! 5. A message that cannot be parsed does not stop the reading: the first such
//!    failure is returned after everything has been read, so the socket stays in
//!    step.
//!
//! A dump that changed under the kernel's hands (NLM_F_DUMP_INTR) may lack
//! entries; it is repeated up to [`DUMP_TRIES`] times, then fails with EINTR.
//!
//! Every byte string in or out passes [`trace`](super::trace).

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NLMSG_OVERRUN,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::trace;
use super::wire::{self, Malformed, Message, Verdict};
use crate::base::error::IntoErrno;
use crate::base::{Cause, Error, Result, Subject};
use crate::sys::netns::{Host, Netns, NetnsId, Place, Sandbox};
use crate::sys::raw;

pub use super::monitor::{Event, Monitor};

/// How often an interrupted dump is repeated.
const DUMP_TRIES: usize = 8;
/// The kernel sizes dump datagrams by the reader's buffer, up to 32 KiB.
/// Reserved, not touched: only the pages that are filled cost memory.
const RX_LEN: usize = 32 * 1024;
/// What fits into the default send buffer with the kernel's bookkeeping.
const SEND_ROOM: usize = 200 * 1024;
/// The kernel answers within send(2); only a bug makes a reader wait.
const TIMEOUT_SECONDS: i64 = 10;

/// Why an exchange failed, before a verb has put its name to it.
#[derive(Debug)]
pub struct Fault {
    /// Which request of the datagram, counted from 0.
    pub request: usize,
    pub cause: Cause,
}

impl Fault {
    fn whole(cause: Cause) -> Self {
        Self { request: 0, cause }
    }

    pub fn errno(&self) -> i32 {
        match self.cause {
            Cause::Errno(e) | Cause::Netlink { errno: e, .. } => e,
            _ => 0,
        }
    }

    pub fn named(self, op: &'static str, subject: impl Into<Subject>) -> Error {
        Error::new(op, subject, self.cause)
    }
}

/// Where datagrams go to and come from: a netlink socket, and what the fuzzer
/// has in its place. Errors are errnos.
pub(super) trait Line {
    fn send(&self, datagram: &[u8]) -> Result<(), i32>;

    /// One datagram; `false` if it did not come from the kernel. EAGAIN: none
    /// came in time; EMSGSIZE: it was cut off.
    fn receive(&self, buffer: &mut Vec<u8>) -> Result<bool, i32>;
}

impl Line for Socket {
    fn send(&self, datagram: &[u8]) -> Result<(), i32> {
        if datagram.len() > SEND_ROOM {
            let room = datagram.len() * 2;
            // Without CAP_NET_ADMIN in the first user namespace the plain
            // option still gives what net.core.wmem_max allows.
            if setsockopt(self, sockopt::SndBufForce, &room).is_err() {
                setsockopt(self, sockopt::SndBuf, &room).map_err(|e| e as i32)?;
            }
        }
        loop {
            match Self::send(self, datagram, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Err(e) => return Err(e.into_errno()),
            }
        }
    }

    fn receive(&self, buffer: &mut Vec<u8>) -> Result<bool, i32> {
        read_one(self, buffer, 0)
    }
}

/// A netlink socket of any protocol, its sequence numbers and its buffers.
#[derive(Debug)]
pub(super) struct Channel<L = Socket> {
    line: L,
    protocol: u8,
    refused: Vec<&'static str>,
    tx: Vec<u8>,
    rx: Vec<u8>,
    /// First request of the datagram under construction.
    first: u32,
    /// The last one that will be answered.
    last: u32,
    next: u32,
}

impl Channel {
    /// Opened in the caller's namespace.
    pub(super) fn here(protocol: isize) -> Result<Self> {
        let socket = Socket::new(protocol)
            .map_err(|e| Error::sys("open netlink socket", Subject::None, e))?;
        Self::new(socket, protocol)
    }

    /// Opened in `netns`.
    pub(super) fn inside<P: Place>(netns: &Netns<P>, protocol: isize) -> Result<Self> {
        let fd = netns.socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            i32::try_from(protocol).unwrap_or_default(),
        )?;
        Self::new(raw::netlink_socket(fd), protocol)
    }

    fn new(socket: Socket, protocol: isize) -> Result<Self> {
        setsockopt(
            &socket,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(TIMEOUT_SECONDS),
        )
        .map_err(|e| Error::sys("set timeout of netlink socket", Subject::None, e))?;
        let refused = [
            ("NETLINK_EXT_ACK", socket.set_ext_ack(true)),
            ("NETLINK_CAP_ACK", socket.set_cap_ack(true)),
            (
                "NETLINK_GET_STRICT_CHK",
                socket.set_netlink_get_strict_chk(true),
            ),
        ]
        .into_iter()
        .filter_map(|(name, outcome)| outcome.is_err().then_some(name))
        .collect();
        let mut channel = Self::over(socket, protocol);
        channel.refused = refused;
        Ok(channel)
    }
}

impl<L: Line> Channel<L> {
    pub(super) fn over(line: L, protocol: isize) -> Self {
        Self {
            line,
            protocol: u8::try_from(protocol).unwrap_or_default(),
            refused: Vec::new(),
            tx: Vec::with_capacity(1024),
            rx: Vec::new(),
            first: 1,
            last: 0,
            next: 1,
        }
    }

    /// Starts a new datagram.
    pub(super) fn begin(&mut self) {
        self.tx.clear();
        self.first = self.next;
        self.last = self.next;
    }

    /// Adds a request; `flags` beside NLM_F_REQUEST.
    pub(super) fn push(&mut self, kind: u16, flags: u16, body: &impl Emitable) {
        let seq = self.number(flags);
        wire::append(&mut self.tx, kind, flags | NLM_F_REQUEST, seq, body);
    }

    fn number(&mut self, flags: u16) -> u32 {
        let seq = self.next;
        self.next = seq.wrapping_add(1);
        if flags & (NLM_F_ACK | NLM_F_DUMP) != 0 {
            self.last = seq;
        }
        seq
    }

    /// Sends the datagram and reads all its answers; data messages go to
    /// `sink`. In a `batch` (nf_tables) a refusal of the first message, the
    /// batch's header, is a refusal of all. `Ok(true)`: the dump was
    /// interrupted.
    pub(super) fn exchange(
        &mut self,
        batch: bool,
        mut sink: impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) -> Result<bool, Fault> {
        self.send()?;
        let mut progress = Progress::default();
        while !progress.done {
            let datagram = self.receive()?;
            for message in wire::messages(&datagram) {
                match message {
                    Ok(message) => self.judge(&message, batch, &mut progress, &mut sink),
                    Err(error) => progress.give_up(Fault::whole(malformed(error))),
                }
            }
            self.rx = datagram;
        }
        match progress.fault {
            Some(fault) => Err(fault),
            None => Ok(progress.interrupted),
        }
    }

    /// What one message means for the exchange under way.
    fn judge(
        &self,
        message: &Message<'_>,
        batch: bool,
        progress: &mut Progress,
        sink: &mut impl FnMut(&Message<'_>) -> Result<(), Malformed>,
    ) {
        let request = message.seq.wrapping_sub(self.first);
        if request >= self.next.wrapping_sub(self.first) {
            if request < u32::MAX / 2 {
                progress.give_up(Fault::whole(Cause::Parse(format!(
                    "the kernel answered request {}, which was not sent yet",
                    message.seq
                ))));
            }
            return;
        }
        progress.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        let request = usize::try_from(request).unwrap_or_default();
        let verdict = match message.kind {
            NLMSG_NOOP => return,
            NLMSG_OVERRUN => {
                return progress.give_up(Fault::whole(Cause::Errno(libc::ENOBUFS)));
            }
            NLMSG_ERROR => Verdict::of_error(message),
            NLMSG_DONE => Verdict::of_done(message),
            _ => {
                if let Err(error) = sink(message) {
                    progress.fail(request, malformed(error));
                }
                return;
            }
        };
        let refused = match verdict {
            Ok(verdict) if verdict.errno == 0 => false,
            Ok(verdict) => {
                progress.fail(request, refusal(verdict));
                true
            }
            Err(error) => {
                progress.fail(request, malformed(error));
                true
            }
        };
        progress.done |= message.seq == self.last || (batch && request == 0 && refused);
    }

    fn send(&mut self) -> Result<(), Fault> {
        trace::sent(self.protocol, &self.tx);
        let sent = self.line.send(&self.tx);
        sent.map_err(|errno| Fault::whole(Cause::Errno(errno)))
    }

    /// One datagram from the kernel. Takes the buffer out of `self`; the
    /// caller puts it back.
    fn receive(&mut self) -> Result<Vec<u8>, Fault> {
        let mut buffer = std::mem::take(&mut self.rx);
        loop {
            match self.line.receive(&mut buffer) {
                Ok(true) => {
                    trace::received(self.protocol, &buffer);
                    return Ok(buffer);
                }
                Ok(false) => {}
                Err(libc::EINTR) => {}
                Err(libc::EAGAIN) => return Err(Fault::whole(Cause::Errno(libc::ETIMEDOUT))),
                Err(errno) => return Err(Fault::whole(Cause::Errno(errno))),
            }
        }
    }

    /// One request, answered by an ACK; what else arrives is not wanted.
    pub(super) fn request(
        &mut self,
        kind: u16,
        flags: u16,
        body: &impl Emitable,
    ) -> Result<(), Fault> {
        self.begin();
        self.push(kind, flags | NLM_F_ACK, body);
        self.exchange(false, |_| Ok(())).map(drop)
    }

    /// One object: the request, its answer, the ACK.
    pub(super) fn get<T>(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        mut parse: impl FnMut(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Fault> {
        self.begin();
        self.push(kind, NLM_F_ACK, body);
        let mut found = None;
        self.exchange(false, |m| {
            found = Some(parse(m.payload)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// A whole table; `parse` leaves out what it is not asked for. Repeated
    /// while the table changes under the reading.
    pub(super) fn dump<T>(
        &mut self,
        kind: u16,
        body: &impl Emitable,
        mut parse: impl FnMut(&[u8]) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, Fault> {
        for _ in 0..DUMP_TRIES {
            let mut entries = Vec::new();
            self.begin();
            self.push(kind, NLM_F_DUMP, body);
            let interrupted = self.exchange(false, |m| {
                entries.extend(parse(m.payload)?);
                Ok(())
            })?;
            if !interrupted {
                return Ok(entries);
            }
        }
        Err(Fault::whole(Cause::Netlink {
            errno: libc::EINTR,
            ext_ack: Some("it kept changing while it was read".to_owned()),
            attr_offset: None,
        }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

/// How far an exchange has come.
#[derive(Debug, Default)]
struct Progress {
    fault: Option<Fault>,
    interrupted: bool,
    done: bool,
}

impl Progress {
    fn fail(&mut self, request: usize, cause: Cause) {
        self.fault.get_or_insert(Fault { request, cause });
    }

    /// The stream makes no sense any more: nothing further can be expected.
    fn give_up(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
        self.done = true;
    }
}

fn malformed(error: Malformed) -> Cause {
    Cause::Parse(format!("malformed answer of the kernel: {}", error.0))
}

fn refusal(verdict: Verdict) -> Cause {
    Cause::Netlink {
        errno: verdict.errno,
        ext_ack: verdict.text,
        attr_offset: verdict.offset,
    }
}

/// Reads one datagram into `buffer`; `false` if it did not come from the
/// kernel. The error is an errno; EMSGSIZE stands for a cut-off datagram.
pub(super) fn read_one(
    socket: &Socket,
    buffer: &mut Vec<u8>,
    flags: libc::c_int,
) -> Result<bool, i32> {
    buffer.clear();
    buffer.reserve(RX_LEN);
    let (len, sender) = socket
        .recv_from(buffer, flags | libc::MSG_TRUNC)
        .map_err(IntoErrno::into_errno)?;
    if len > buffer.len() {
        return Err(libc::EMSGSIZE);
    }
    Ok(sender.port_number() == 0)
}

/// An rtnetlink socket, bound for life to the namespace it was opened in.
#[derive(Debug)]
pub struct Rtnl<P: Place> {
    pub(super) channel: Channel,
    /// Inode of a sandbox's namespace, 0 for the host's (there is one host):
    /// what an [`Ifindex`](super::Ifindex) is checked against.
    pub(super) netns: u64,
    place: PhantomData<fn() -> P>,
}

impl<P: Place> AsFd for Rtnl<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

impl Rtnl<Host> {
    /// Opened in the caller's namespace.
    pub fn host() -> Result<Self> {
        Ok(Self {
            channel: Channel::here(NETLINK_ROUTE)?,
            netns: 0,
            place: PhantomData,
        })
    }

    /// Subscribes a second socket to RTNLGRP_* groups (`RTNLGRP_LINK`,
    /// `RTNLGRP_IPV4_IFADDR`, …) for an event loop.
    pub fn monitor(groups: &[u32]) -> Result<Monitor> {
        let socket = Socket::new(NETLINK_ROUTE)
            .map_err(|e| Error::sys("open netlink socket", Subject::None, e))?;
        Monitor::new(socket, groups)
    }
}

impl Rtnl<Sandbox> {
    pub fn sandbox(netns: &Netns<Sandbox>) -> Result<Self> {
        let NetnsId { ino, .. } = netns.id()?;
        Ok(Self {
            channel: Channel::inside(netns, NETLINK_ROUTE)?,
            netns: ino,
            place: PhantomData,
        })
    }
}

impl Rtnl<Sandbox> {
    /// Subscribes a socket of `netns` to RTNLGRP_* groups.
    pub fn monitor_in(netns: &Netns<Sandbox>, groups: &[u32]) -> Result<Monitor> {
        let protocol = i32::try_from(NETLINK_ROUTE).unwrap_or_default();
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = netns.socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        Monitor::new(raw::netlink_socket(fd), groups)
    }
}

impl<P: Place> Rtnl<P> {
    /// Socket options that this kernel is too old for.
    pub fn refused_options(&self) -> &[&'static str] {
        &self.channel.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an exchange of `requests` ACKed requests makes of these answers:
    /// (done, first fault).
    fn judged(batch: bool, requests: u32, answers: &[(u16, u32, &[u8])]) -> (bool, Option<Fault>) {
        let mut channel = Channel::here(NETLINK_ROUTE).unwrap();
        channel.next = 100;
        channel.begin();
        for _ in 0..requests {
            channel.number(NLM_F_ACK);
        }
        let mut progress = Progress::default();
        for (kind, seq, payload) in answers {
            let message = Message {
                kind: *kind,
                flags: 0,
                seq: *seq,
                payload,
            };
            channel.judge(&message, batch, &mut progress, &mut |m| {
                wire::u32_of(m.payload).map(drop)
            });
        }
        (progress.done, progress.fault)
    }

    fn code(errno: i32) -> Vec<u8> {
        let mut payload = (-errno).to_ne_bytes().to_vec();
        // The refused request's header: 16 bytes long.
        payload.extend([16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload
    }

    #[test]
    fn ends_at_the_last_verdict_and_names_the_first_refusal() {
        let (ok, bad, worse) = (code(0), code(libc::EEXIST), code(libc::EPERM));
        let (done, fault) = judged(false, 2, &[(2, 100, &ok)]);
        assert!(!done && fault.is_none());
        let (done, fault) = judged(false, 2, &[(2, 100, &ok), (2, 101, &ok)]);
        assert!(done && fault.is_none());
        let answers: [(u16, u32, &[u8]); 3] = [(2, 100, &ok), (2, 101, &bad), (2, 102, &worse)];
        let (done, fault) = judged(false, 3, &answers);
        let fault = fault.unwrap();
        assert!(done);
        assert_eq!((fault.request, fault.errno()), (1, libc::EEXIST));
    }

    #[test]
    fn done_counts_with_its_code() {
        let (done, fault) = judged(false, 1, &[(3, 100, &(-libc::EBUSY).to_ne_bytes())]);
        assert!(done);
        assert_eq!(fault.unwrap().errno(), libc::EBUSY);
    }

    #[test]
    fn older_answers_are_skipped_newer_ones_are_errors() {
        let ok = code(0);
        let (done, fault) = judged(false, 1, &[(2, 99, &code(libc::EPERM)), (2, 100, &ok)]);
        assert!(done && fault.is_none());
        let (done, fault) = judged(false, 1, &[(2, 101, &ok)]);
        assert!(done && matches!(fault.unwrap().cause, Cause::Parse(_)));
    }

    #[test]
    fn what_cannot_be_parsed_does_not_stop_the_reading() {
        let answers: [(u16, u32, &[u8]); 3] = [
            (16, 100, &[1]),
            (16, 100, &[1, 2, 3, 4]),
            (2, 100, &code(0)),
        ];
        let (done, fault) = judged(false, 1, &answers[..2]);
        assert!(!done && fault.is_some());
        let (done, fault) = judged(false, 1, &answers);
        assert!(done && matches!(fault.unwrap().cause, Cause::Parse(_)));
    }

    #[test]
    fn noop_is_skipped_and_overrun_typed() {
        let (done, fault) = judged(false, 1, &[(1, 100, &[])]);
        assert!(!done && fault.is_none());
        let (done, fault) = judged(false, 1, &[(4, 100, &[])]);
        assert!(done);
        assert_eq!(fault.unwrap().errno(), libc::ENOBUFS);
    }

    #[test]
    fn refused_batch_header_refuses_the_batch() {
        let refused = code(libc::ERESTART);
        let (done, fault) = judged(true, 3, &[(2, 100, &refused)]);
        assert!(done);
        assert_eq!(fault.unwrap().errno(), libc::ERESTART);
        let (done, _) = judged(true, 3, &[(2, 101, &refused)]);
        assert!(!done);
    }
}
