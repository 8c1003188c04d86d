//! The mount API: fsopen(2) and its family, pivot_root(2).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

use super::{Result, owned};

pub fn fsopen(kind: &CStr) -> Result<OwnedFd> {
    // SAFETY: reads a NUL-terminated string, returns a new descriptor.
    owned(Errno::result(unsafe {
        libc::syscall(libc::SYS_fsopen, kind.as_ptr(), libc::FSOPEN_CLOEXEC)
    })?)
}

/// fsconfig(2) for commands without an fd: flag (no value), string, create.
pub fn fsconfig(
    context: BorrowedFd<'_>,
    command: u32,
    key: Option<&CStr>,
    value: Option<&CStr>,
) -> Result<()> {
    let pointer = |s: Option<&CStr>| s.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: key and value are null or NUL-terminated strings that live
    // through the call; the kernel copies them.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            command,
            pointer(key),
            pointer(value),
            0,
        )
    })
    .map(drop)
}

pub fn fsmount(context: BorrowedFd<'_>, attrs: u64) -> Result<OwnedFd> {
    // SAFETY: takes integers, returns a new descriptor.
    owned(Errno::result(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            libc::FSMOUNT_CLOEXEC,
            attrs,
        )
    })?)
}

/// open_tree(2), CLOEXEC.
pub fn open_tree(at: BorrowedFd<'_>, path: &CStr, flags: u32) -> Result<OwnedFd> {
    // SAFETY: reads a NUL-terminated string, returns a new descriptor.
    owned(Errno::result(unsafe {
        libc::syscall(
            libc::SYS_open_tree,
            at.as_raw_fd(),
            path.as_ptr(),
            flags | libc::OPEN_TREE_CLOEXEC,
        )
    })?)
}

/// move_mount(2) of the tree `from` stands for onto what `onto` stands for:
/// no path is looked up.
pub fn move_mount(from: BorrowedFd<'_>, onto: BorrowedFd<'_>) -> Result<()> {
    let empty: &CStr = c"";
    // SAFETY: both pointers are the same NUL-terminated literal.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            empty.as_ptr(),
            onto.as_raw_fd(),
            empty.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// mount_setattr(2); `flags` are AT_* bits.
pub fn mount_setattr(
    at: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    set: u64,
    clear: u64,
    propagation: u64,
) -> Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation,
        userns_fd: 0,
    };
    // SAFETY: reads a NUL-terminated string and one mount_attr of that size.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_raw_fd(),
            path.as_ptr(),
            flags,
            ptr::from_ref(&attr),
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// pivot_root(2) of "." on ".": the old root ends up mounted over the new.
pub fn pivot_root_here() -> Result<()> {
    let here: &CStr = c".";
    // SAFETY: both pointers are the same NUL-terminated literal.
    Errno::result(unsafe { libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()) })
        .map(drop)
}
