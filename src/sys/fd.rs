//! File descriptors across process borders.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::sys::statfs::{FsType, fstatfs};

use super::raw;
use crate::base::{Error, Result, Subject};

/// Sends `bytes` and `fds` (SCM_RIGHTS) as one message on a unix socket.
/// A peer that is gone is EPIPE, never SIGPIPE. An empty message is refused:
/// the receiver could not tell it from the end of the connection.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let fail = |errno| Error::sys("send message", Subject::None, errno);
    if bytes.is_empty() || fds.len() > raw::MAX_FDS {
        return Err(fail(Errno::EINVAL));
    }
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &[][..] } else { &rights };
    loop {
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(fail(e)),
            Ok(n) if n == bytes.len() => return Ok(()),
            // Only a stream socket splits; the message would be two.
            Ok(_) => return Err(fail(Errno::EMSGSIZE)),
        }
    }
}

/// Receives one message; fds arrive CLOEXEC. Length 0 is end of file.
/// A message longer than `buf` (MSG_TRUNC) or with its fds cut off
/// (MSG_CTRUNC) is an error.
pub fn recv(socket: BorrowedFd<'_>, buf: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let fail = |errno| Error::sys("receive message", Subject::None, errno);
    loop {
        match raw::recv_fds(socket, buf) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(fail(e)),
            Ok((_, flags, _)) if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 => {
                return Err(fail(Errno::EMSGSIZE));
            }
            Ok((n, _, fds)) => return Ok((n, fds)),
        }
    }
}

/// A connected pair of SOCK_SEQPACKET unix sockets, CLOEXEC.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
    .map_err(|e| Error::sys("create socket pair", Subject::None, e))
}

/// pipe2(O_CLOEXEC): (read end, write end).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::sys("create pipe", Subject::None, e))
}

/// dup(2), CLOEXEC.
pub fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned()
        .map_err(|e| Error::sys("duplicate descriptor", Subject::None, e))
}

/// A pipe without a name: there is no file behind it.
pub fn is_anonymous_pipe(fd: BorrowedFd<'_>) -> bool {
    /// `PIPEFS_MAGIC`
    const PIPEFS: FsType = FsType(0x5049_5045);
    fstatfs(fd).is_ok_and(|fs| fs.filesystem_type() == PIPEFS)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn fds_travel_with_their_bytes_and_arrive_close_on_exec() {
        let (a, b) = seqpacket_pair().unwrap();
        let (r, w) = pipe().unwrap();
        send(a.as_fd(), b"two", &[r.as_fd(), w.as_fd()]).unwrap();
        let mut buf = [0; 16];
        let (n, fds) = recv(b.as_fd(), &mut buf).unwrap();
        assert_eq!((&buf[..n], fds.len()), (&b"two"[..], 2));
        drop((r, w));
        nix::unistd::write(&fds[1], b"x").unwrap();
        assert_eq!(nix::unistd::read(&fds[0], &mut buf).unwrap(), 1);
        let flags = nix::fcntl::fcntl(&fds[0], nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[test]
    fn a_long_message_is_an_error_and_a_closed_peer_the_end() {
        let (a, b) = seqpacket_pair().unwrap();
        send(a.as_fd(), b"longer", &[]).unwrap();
        let mut buf = [0; 3];
        assert!(
            recv(b.as_fd(), &mut buf)
                .unwrap_err()
                .is_errno(libc::EMSGSIZE)
        );
        assert!(
            send(a.as_fd(), b"", &[])
                .unwrap_err()
                .is_errno(libc::EINVAL)
        );
        drop(a);
        assert_eq!(recv(b.as_fd(), &mut buf).unwrap().0, 0);
        assert!(
            send(b.as_fd(), b"x", &[])
                .unwrap_err()
                .is_errno(libc::EPIPE)
        );
    }

    #[test]
    fn the_most_fds_a_message_may_carry_arrive() {
        let (a, b) = seqpacket_pair().unwrap();
        let all = vec![a.as_fd(); raw::MAX_FDS];
        send(a.as_fd(), b"x", &all).unwrap();
        assert_eq!(recv(b.as_fd(), &mut [0; 1]).unwrap().1.len(), raw::MAX_FDS);
    }

    #[test]
    fn only_a_pipe_without_a_name_is_anonymous() {
        let (r, w) = pipe().unwrap();
        assert!(is_anonymous_pipe(r.as_fd()) && is_anonymous_pipe(w.as_fd()));
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [fifo.as_path(), std::path::Path::new("/dev/null")] {
            let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
            let fd = nix::fcntl::open(path, flags, nix::sys::stat::Mode::empty()).unwrap();
            assert!(!is_anonymous_pipe(fd.as_fd()), "{}", path.display());
        }
        let (a, _b) = seqpacket_pair().unwrap();
        assert!(!is_anonymous_pipe(a.as_fd()));
    }
}
