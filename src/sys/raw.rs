//! The only unsafe code.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// A netlink socket that was opened elsewhere (in another namespace).
pub fn netlink_socket(fd: OwnedFd) -> netlink_sys::Socket {
    // SAFETY: `fd` is open and owned; ownership moves into the `Socket`, which
    // closes it once when dropped.
    unsafe { netlink_sys::Socket::from_raw_fd(fd.into_raw_fd()) }
}
