//! File descriptors across process borders.

use std::os::fd::{BorrowedFd, OwnedFd};

use crate::base::Result;

/// Sends `bytes` and `fds` (SCM_RIGHTS) as one message on a unix socket.
pub fn send(_socket: BorrowedFd<'_>, _bytes: &[u8], _fds: &[BorrowedFd<'_>]) -> Result<()> {
    todo!()
}

/// Receives one message; fds arrive CLOEXEC. Length 0 is end of file.
/// A message longer than `buf` (MSG_TRUNC) or with its fds cut off
/// (MSG_CTRUNC) is an error.
pub fn recv(_socket: BorrowedFd<'_>, _buf: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    todo!()
}

/// A connected pair of SOCK_SEQPACKET unix sockets, CLOEXEC.
pub fn seqpacket_pair() -> Result<(OwnedFd, OwnedFd)> {
    todo!()
}

/// pipe2(O_CLOEXEC): (read end, write end).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    todo!()
}
