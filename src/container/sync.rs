//! The handshake between a starting process and its parent.
//!
//! # Theory of operation
//! One SOCK_SEQPACKET pair, so a message is whole or absent and carries its
//! fds along. Both ends are CLOEXEC: the end of file at the parent means that
//! the child has executed its program or is dead.
//!
//! ```text
//! parent  ── Netns(fd) ─▶  child   joins it (launch only), mounts /sys
//! parent  ◀─ Ready(pty) ─  child   everything done but exec
//! parent  ── Go ────────▶  child   the parent's side is complete
//! parent  ◀─ Failed(e) ──  child   in the place of any message, then it ends
//! parent  ◀─ end of file ─         after Ready: exec has worked
//! ```
//!
//! Neither side waits where it need not: Netns and Go may lie in the socket
//! long before the child reads them ([`ParentEnd::await_ready`] is for a parent
//! that wants to decide at the last moment). Hence reading Go proves nothing about the
//! parent *now*, and [`ChildEnd::await_go`] looks once more, after the death
//! signal is armed: a parent that dies later takes the child along, one that
//! died before is seen here.
//!
//! An error crosses as [`Error`] itself, its errno still a number.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::base::{Error, Result, Subject};
use crate::sys::fd::{recv, send, seqpacket_pair};

const NETNS: u8 = b'n';
const GO: u8 = b'g';
const READY: u8 = b'r';
const FAILED: u8 = b'x';

/// The longest message: an error whose subject is a path or two.
const MAX: usize = 16 * 1024;

/// Both ends, to be made before the clone.
pub(super) fn pair() -> Result<(ParentEnd, ChildEnd)> {
    let (a, b) = seqpacket_pair()?;
    let parent = ParentEnd {
        socket: a,
        ready: None,
    };
    Ok((parent, ChildEnd(b)))
}

#[derive(Debug)]
pub(super) struct ParentEnd {
    socket: OwnedFd,
    /// Ready was said, with the pty master if there is one.
    ready: Option<Option<OwnedFd>>,
}

/// What the child's last words were.
#[derive(Debug)]
pub(super) enum Outcome {
    /// exec has worked. The pty master, if there is one.
    Executed(Option<OwnedFd>),
    /// It ended without a word: killed.
    Died,
}

impl ParentEnd {
    pub(super) fn give_netns(&mut self, netns: BorrowedFd<'_>) -> Result<()> {
        self.tell(&[NETNS], &[netns])
    }

    pub(super) fn go(&mut self) -> Result<()> {
        self.tell(&[GO], &[])
    }

    /// Until the child has done everything but exec.
    pub(super) fn await_ready(&mut self) -> Result<()> {
        while self.ready.is_none() {
            if !self.hear()? {
                return Err(died());
            }
        }
        Ok(())
    }

    /// A child that is gone has left its reason in the socket.
    fn tell(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        match send(self.socket.as_fd(), bytes, fds) {
            Err(e) if e.is_errno(libc::EPIPE) || e.is_errno(libc::ECONNRESET) => {
                Err(self.outcome().err().unwrap_or_else(died))
            }
            other => other,
        }
    }

    /// Reads to the end of file.
    pub(super) fn outcome(&mut self) -> Result<Outcome> {
        while self.hear()? {}
        Ok(self.ready.take().map_or(Outcome::Died, Outcome::Executed))
    }

    /// One message. False: end of file.
    fn hear(&mut self) -> Result<bool> {
        let mut buf = vec![0; MAX];
        let (n, mut fds) = loop {
            match recv(self.socket.as_fd(), &mut buf) {
                // It ended with a message of ours unread. The kernel says so
                // once, ahead of what the child has sent.
                Err(e) if e.is_errno(libc::ECONNRESET) => {}
                other => break other?,
            }
        };
        match buf[..n].split_first() {
            None => Ok(false),
            Some((&READY, _)) => {
                self.ready = Some(fds.pop());
                Ok(true)
            }
            Some((&FAILED, json)) => Err(serde_json::from_slice(json)
                .unwrap_or_else(|e| Error::parse("read the child's error", Subject::None, e))),
            Some(_) => Err(unexpected()),
        }
    }
}

#[derive(Debug)]
pub(super) struct ChildEnd(OwnedFd);

impl ChildEnd {
    pub(super) fn take_netns(&self) -> Result<OwnedFd> {
        let mut tag = [0];
        let (n, mut fds) = recv(self.0.as_fd(), &mut tag)?;
        match (&tag[..n], fds.pop()) {
            ([NETNS], Some(fd)) => Ok(fd),
            ([], _) => Err(orphaned()),
            _ => Err(unexpected()),
        }
    }

    pub(super) fn ready(&self, pty: Option<BorrowedFd<'_>>) -> Result<()> {
        send(self.0.as_fd(), &[READY], pty.as_slice())
    }

    /// Waits for Go, then makes sure that the parent is still there.
    pub(super) fn await_go(&self) -> Result<()> {
        let mut tag = [0];
        match recv(self.0.as_fd(), &mut tag)? {
            (1, _) if tag == [GO] => {}
            (0, _) => return Err(orphaned()),
            _ => return Err(unexpected()),
        }
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(0) => Ok(()),
            Ok(_) => Err(orphaned()),
            Err(e) => Err(Error::sys("look for the parent", Subject::None, e)),
        }
    }

    /// The last words. Nobody may listen any more.
    pub(super) fn failed(&self, error: &Error) {
        let mut message = vec![FAILED];
        if serde_json::to_writer(&mut message, error).is_ok() && message.len() > MAX {
            let brief = Error {
                subject: Subject::None,
                hint: None,
                ..error.clone()
            };
            message.truncate(1);
            let _ = serde_json::to_writer(&mut message, &brief);
        }
        let _ = send(self.0.as_fd(), &message, &[]);
    }
}

impl AsFd for ChildEnd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The child's end, without a word of its own.
pub(super) fn died() -> Error {
    Error::state(
        "start container",
        "its process",
        "it was killed before its program ran",
    )
    .hint("by whom, the kernel's log may say (dmesg): for lack of memory?")
}

fn orphaned() -> Error {
    Error::state("wait for the parent", Subject::None, "it is gone")
}

fn unexpected() -> Error {
    Error::state("read a start message", Subject::None, "unexpected message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_may_be_said_before_it_is_read() {
        let (mut parent, child) = pair().unwrap();
        let (r, w) = crate::sys::fd::pipe().unwrap();
        parent.give_netns(r.as_fd()).unwrap();
        parent.go().unwrap();
        child.take_netns().unwrap();
        child.ready(Some(w.as_fd())).unwrap();
        child.await_go().unwrap();
        drop(child);
        assert!(matches!(
            parent.outcome().unwrap(),
            Outcome::Executed(Some(_))
        ));
    }

    #[test]
    fn a_failure_arrives_whole_even_at_a_later_send() {
        let error = Error::sys("mount", "/proc", libc::EPERM).hint("why");
        let (mut parent, child) = pair().unwrap();
        parent.give_netns(std::io::stdin().as_fd()).unwrap();
        child.failed(&error);
        drop(child);
        assert_eq!(parent.go().unwrap_err(), error);

        let long = Error::sys("mount", "x".repeat(2 * MAX), libc::EIO);
        let (mut parent, child) = pair().unwrap();
        child.failed(&long);
        let got = parent.outcome().unwrap_err();
        assert_eq!((got.op.as_ref(), got.errno()), ("mount", Some(libc::EIO)));
    }

    #[test]
    fn a_death_is_not_an_exec_and_a_dead_parent_no_go() {
        let (mut parent, child) = pair().unwrap();
        drop(child);
        assert!(matches!(parent.outcome().unwrap(), Outcome::Died));
        // Died with Go unread, after it had said why.
        let (mut parent, child) = pair().unwrap();
        parent.go().unwrap();
        child.failed(&Error::invalid("why"));
        drop(child);
        assert_eq!(parent.outcome().unwrap_err(), Error::invalid("why"));
        let (mut parent, child) = pair().unwrap();
        parent.go().unwrap();
        drop(child);
        assert!(matches!(parent.outcome().unwrap(), Outcome::Died));
        // Go was said, but nobody is there any more.
        let (mut parent, child) = pair().unwrap();
        parent.go().unwrap();
        drop(parent);
        assert!(child.await_go().is_err());
        let (parent, child) = pair().unwrap();
        drop(parent);
        assert!(child.take_netns().is_err());
        assert!(child.await_go().is_err());
    }
}
