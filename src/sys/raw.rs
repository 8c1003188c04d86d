//! The only unsafe code.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

/// A netlink socket that was opened elsewhere (in another namespace).
pub fn netlink_socket(fd: OwnedFd) -> netlink_sys::Socket {
    // SAFETY: `fd` is open and owned; ownership moves into the `Socket`, which
    // closes it once when dropped.
    unsafe { netlink_sys::Socket::from_raw_fd(fd.into_raw_fd()) }
}

/// bind(2) of a packet socket to one interface. `ethertype` 0: it sends only.
pub fn bind_packet(
    socket: std::os::fd::BorrowedFd<'_>,
    ethertype: u16,
    ifindex: i32,
) -> nix::Result<()> {
    // SAFETY: sockaddr_ll is plain integers; all-zero is valid.
    let mut addr: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    addr.sll_family = libc::AF_PACKET as u16;
    addr.sll_protocol = ethertype.to_be();
    addr.sll_ifindex = ifindex;
    // SAFETY: the kernel reads `size_of::<sockaddr_ll>()` bytes at `addr`,
    // which lives through the call, and keeps no pointer.
    let result = unsafe {
        libc::bind(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            std::ptr::from_ref(&addr).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    nix::errno::Errno::result(result).map(drop)
}
