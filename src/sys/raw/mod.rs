//! The only unsafe code: system calls that neither `std` nor `nix` wraps
//! safely, each as a safe function with an errno.
//!
//! A function is here when it needs `unsafe` and for no other reason; what the
//! call is *for* stands in the module that uses it.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;

use super::seccomp::Instruction;

mod memory;
mod mounts;
mod robust;

pub use memory::*;
pub use mounts::*;
pub use robust::*;

pub type Result<T> = nix::Result<T>;

/// An fd returned by a system call that just succeeded.
fn owned(fd: libc::c_long) -> Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: callers pass the fresh descriptor of a call that creates one;
    // nothing else in the process knows its number yet.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

// ---- processes -------------------------------------------------------------

/// Not `libc::CLONE_INTO_CGROUP`: that is declared `c_int`, which this bit
/// does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) as a fork: `None` in the child, pid and pidfd in the parent.
pub fn clone3(
    namespaces: u64,
    into_cgroup: Option<BorrowedFd<'_>>,
) -> Result<Option<(i32, OwnedFd)>> {
    // CLONE_VM, CLONE_THREAD and their like would break the fork contract
    // below, so only namespace bits pass.
    const NAMESPACES: u64 = 0x7e02_0080;
    if namespaces & !NAMESPACES != 0 {
        return Err(Errno::EINVAL);
    }
    let mut pidfd: RawFd = -1;
    let mut flags = namespaces | u64::from(libc::CLONE_PIDFD.unsigned_abs());
    let mut cgroup = 0;
    if let Some(fd) = into_cgroup {
        flags |= CLONE_INTO_CGROUP;
        cgroup = u64::from(fd.as_raw_fd().unsigned_abs());
    }
    // SAFETY: clone_args is plain integers; all-zero is its documented default.
    let mut args: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    args.flags = flags;
    args.pidfd = ptr::from_mut(&mut pidfd).expose_provenance() as u64;
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    args.cgroup = cgroup;
    // SAFETY: stack 0 and no CLONE_VM: the child runs on a copy of this
    // address space, as after fork(2). `args` and `pidfd` outlive the call.
    // The caller has proved that it is single-threaded, so no lock can be
    // copied in its locked state.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            ptr::from_mut(&mut args),
            size_of::<libc::clone_args>(),
        )
    };
    match Errno::result(pid)? {
        0 => Ok(None),
        pid => {
            let pid = i32::try_from(pid).map_err(|_| Errno::EOVERFLOW)?;
            Ok(Some((pid, owned(libc::c_long::from(pidfd))?)))
        }
    }
}

/// fork(2) through the C library, so that its own state (atfork handlers,
/// thread id) is right in a child that lives on: `None` in the child.
pub fn fork() -> Result<Option<i32>> {
    // SAFETY: the caller has proved that it is single-threaded, hence the
    // child may do anything, not only what is async-signal-safe.
    let pid = Errno::result(unsafe { libc::fork() })?;
    Ok((pid != 0).then_some(pid))
}

pub fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: closing is not a memory access; `process::close_all_except`
    // documents that every OwnedFd outside its list is dead afterwards, and
    // is called only on the way to exec.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: takes two integers, returns a new descriptor.
    owned(Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_open, pid, 0)
    })?)
}

/// A duplicate of another process's descriptor, CLOEXEC (Linux 5.6).
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd> {
    // SAFETY: takes integers, returns a new descriptor.
    owned(Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0)
    })?)
}

pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo means "as kill(2) would fill it in".
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
}

/// waitid(P_PIDFD, WEXITED): `(si_code, si_status)`, or `None` with WNOHANG
/// and nothing to report. Not nix's: that fails on real-time signals.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<(i32, i32)>> {
    let options = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
    // SAFETY: siginfo_t is plain data; zero means "no child" to waitid.
    let mut info: libc::siginfo_t = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: `info` is valid for one siginfo_t for the length of the call.
    Errno::result(unsafe {
        libc::waitid(
            libc::P_PIDFD,
            pidfd.as_raw_fd().unsigned_abs(),
            &raw mut info,
            options,
        )
    })?;
    // SAFETY: waitid fills the SIGCHLD fields, or leaves the zeroes above.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then_some((info.si_code, status)))
}

/// Default disposition for every signal that can have another. Not through
/// the C library: it hides signals 32 and 33, which a caller may have left
/// ignored all the same.
pub fn reset_signal_handlers() {
    // The kernel's own struct sigaction: four words, of which zero means
    // SIG_DFL, no flags, no restorer, empty mask.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // SAFETY: reads one kernel sigaction, with the mask's size of 8; the
        // old one is not asked for. SIGKILL and SIGSTOP answer EINVAL.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null_mut::<u64>(),
                8,
            )
        };
    }
}

/// _exit(2).
pub fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is observable afterwards.
    unsafe { libc::_exit(code) }
}

/// prctl(2) for options that take integers.
pub fn prctl(option: i32, arg2: u64, arg3: u64) -> Result<i32> {
    // SAFETY: only options that take integers are passed (see the callers);
    // the unused arguments must be zero and are.
    Errno::result(unsafe { libc::prctl(option, arg2, arg3, 0_u64, 0_u64) })
}

pub fn random(buf: &mut [u8]) -> Result<usize> {
    // SAFETY: the pointer and length are those of `buf`.
    let n = Errno::result(unsafe { libc::getrandom(buf.as_mut_ptr().cast(), buf.len(), 0) })?;
    usize::try_from(n).map_err(|_| Errno::EIO)
}

// ---- fds -------------------------------------------------------------------

/// The most fds that one message may carry (SCM_MAX_FD).
pub const MAX_FDS: usize = 253;

/// Room for one SCM_RIGHTS message of MAX_FDS, aligned as cmsghdr wants.
#[repr(align(8))]
struct Control([u8; 16 + MAX_FDS * 4 + 4]);

/// recvmsg(2) with MSG_CMSG_CLOEXEC: length, flags of the answer, fds.
pub fn recv_fds(socket: BorrowedFd<'_>, buf: &mut [u8]) -> Result<(usize, i32, Vec<OwnedFd>)> {
    let mut control = Control([0; _]);
    let mut iov = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    // SAFETY: msghdr is plain data; the fields that matter are set below.
    let mut msg: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    msg.msg_iov = &raw mut iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control.0.as_mut_ptr().cast();
    msg.msg_controllen = control.0.len();
    // SAFETY: `msg` points to one iovec over `buf` and to `control`, all alive.
    let n = Errno::result(unsafe {
        libc::recvmsg(socket.as_raw_fd(), &raw mut msg, libc::MSG_CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled `control` with whole cmsghdrs and set
    // msg_controllen to their length; CMSG_FIRSTHDR and CMSG_NXTHDR stay
    // inside. An SCM_RIGHTS body is (cmsg_len - header) / 4 descriptors that
    // are new to this process, so each becomes an OwnedFd exactly once.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(&raw const msg);
        while let Some(h) = header.as_ref() {
            if h.cmsg_level == libc::SOL_SOCKET && h.cmsg_type == libc::SCM_RIGHTS {
                let bytes = h.cmsg_len - (libc::CMSG_LEN(0) as usize);
                let data = libc::CMSG_DATA(h).cast::<RawFd>();
                for i in 0..bytes / size_of::<RawFd>() {
                    fds.push(OwnedFd::from_raw_fd(data.add(i).read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const msg, header);
        }
    }
    let n = usize::try_from(n).map_err(|_| Errno::EIO)?;
    Ok((n, msg.msg_flags, fds))
}

/// socket(2), CLOEXEC, with any protocol number (nix's is a closed enum).
pub fn socket(domain: i32, ty: i32, protocol: i32) -> Result<OwnedFd> {
    // SAFETY: takes three integers, returns a new descriptor.
    let fd = Errno::result(unsafe { libc::socket(domain, ty | libc::SOCK_CLOEXEC, protocol) })?;
    owned(libc::c_long::from(fd))
}

/// SO_COOKIE: a number that no other socket has before the next boot.
pub fn socket_cookie(socket: BorrowedFd<'_>) -> Result<u64> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: the kernel writes at most `length` bytes, which `cookie` has.
    Errno::result(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            ptr::from_mut(&mut cookie).cast(),
            &raw mut length,
        )
    })?;
    Ok(cookie)
}

/// A netlink socket that was opened elsewhere (in another namespace).
pub fn netlink_socket(fd: OwnedFd) -> netlink_sys::Socket {
    // SAFETY: `fd` is open and owned; ownership moves into the `Socket`, which
    // closes it once when dropped.
    unsafe { netlink_sys::Socket::from_raw_fd(fd.into_raw_fd()) }
}

#[allow(clippy::cast_possible_truncation, reason = "17")]
const PACKET_FAMILY: u16 = libc::AF_PACKET as u16;
#[allow(clippy::cast_possible_truncation, reason = "20 bytes")]
const PACKET_ADDR_LEN: libc::socklen_t = size_of::<libc::sockaddr_ll>() as libc::socklen_t;

/// bind(2) of a packet socket to one interface. `ethertype` 0: it sends only.
pub fn bind_packet(socket: BorrowedFd<'_>, ethertype: u16, ifindex: i32) -> Result<()> {
    // SAFETY: sockaddr_ll is plain integers; all-zero is valid.
    let mut addr: libc::sockaddr_ll = unsafe { MaybeUninit::zeroed().assume_init() };
    addr.sll_family = PACKET_FAMILY;
    addr.sll_protocol = ethertype.to_be();
    addr.sll_ifindex = ifindex;
    // SAFETY: the kernel reads `size_of::<sockaddr_ll>()` bytes at `addr`,
    // which lives through the call, and keeps no pointer.
    Errno::result(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            ptr::from_ref(&addr).cast(),
            PACKET_ADDR_LEN,
        )
    })
    .map(drop)
}

/// SO_ATTACH_FILTER: from now on the socket receives only what the classic BPF
/// program lets through; one that is attached already is replaced.
pub fn attach_filter(socket: BorrowedFd<'_>, program: &[libc::sock_filter]) -> Result<()> {
    #[allow(clippy::cast_possible_truncation, reason = "16 bytes")]
    const LEN: libc::socklen_t = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads a sock_fprog and the `len` instructions that it
    // points to, both alive during the call, checks and copies them.
    Errno::result(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            ptr::from_ref(&filter).cast(),
            LEN,
        )
    })
    .map(drop)
}

/// PACKET_IGNORE_OUTGOING (Linux 4.20): a packet socket does not see what this
/// machine sends.
pub fn ignore_outgoing(socket: BorrowedFd<'_>) -> Result<()> {
    let on: libc::c_int = 1;
    #[allow(clippy::cast_possible_truncation, reason = "4 bytes")]
    const LEN: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel reads one int at `on`, which lives through the call.
    Errno::result(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            ptr::from_ref(&on).cast(),
            LEN,
        )
    })
    .map(drop)
}

/// Bytes that were sent and have not left the machine (SIOCOUTQ): a datagram
/// that waits for its neighbour's MAC is one of them.
pub fn unsent(socket: BorrowedFd<'_>) -> Result<i32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one int to `bytes`.
    Errno::result(unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::TIOCOUTQ,
            ptr::from_mut(&mut bytes),
        )
    })
    .map(|_| bytes)
}

/// dup2(2) onto a standard stream (0, 1, 2): without CLOEXEC there.
pub fn dup2_std(from: BorrowedFd<'_>, to: i32) -> Result<()> {
    if !(0..=2).contains(&to) {
        return Err(Errno::EBADF);
    }
    // SAFETY: the numbers 0 to 2 belong to the process, not to an OwnedFd of
    // ours: nothing in this program owns a standard stream by value.
    Errno::result(unsafe { libc::dup2(from.as_raw_fd(), to) })?;
    if from.as_raw_fd() == to {
        // dup2 onto itself leaves the close-on-exec flag.
        // SAFETY: F_SETFD takes an integer.
        Errno::result(unsafe { libc::fcntl(to, libc::F_SETFD, 0) })?;
    }
    Ok(())
}

// ---- ioctls ----------------------------------------------------------------

/// The CLONE_NEW* bit of a namespace file's kind.
pub fn namespace_kind(fd: BorrowedFd<'_>) -> Result<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) })
}

pub fn tty_make_controlling(tty: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer: 0, do not steal the terminal.
    Errno::result(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSCTTY, 0) }).map(drop)
}

pub fn tty_unlock(master: BorrowedFd<'_>) -> Result<()> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })
        .map(drop)
}

/// The number of a pty master's slave in its devpts.
pub fn tty_number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes one unsigned int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) })?;
    Ok(number)
}

pub fn tty_peer(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open(2) flags and returns a new descriptor.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    owned(libc::c_long::from(fd))
}

pub fn tty_size(tty: BorrowedFd<'_>) -> Result<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize.
    Errno::result(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok((size.ws_row, size.ws_col))
}

pub fn tty_set_size(tty: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize.
    Errno::result(unsafe { libc::ioctl(tty.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })
        .map(drop)
}

// ---- bpf -------------------------------------------------------------------

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Loads a program of eBPF instructions for a cgroup's device accesses.
pub fn bpf_load_cgroup_device(program: &[u64]) -> Result<OwnedFd> {
    /// The head of `union bpf_attr` for BPF_PROG_LOAD; the rest is zero.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log: [u32; 2],
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }
    let license: &CStr = c"Apache-2.0";
    let attr = Load {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        instructions: program.as_ptr().expose_provenance() as u64,
        license: license.as_ptr().expose_provenance() as u64,
        log: [0; 2],
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `attr` is the head of bpf_attr, its length is given, and the
    // kernel copies the instructions and the license during the call.
    owned(Errno::result(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            ptr::from_ref(&attr),
            size_of::<Load>(),
        )
    })?)
}

pub fn bpf_attach_cgroup_device(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    // target_fd, attach_bpf_fd, attach_type, attach_flags
    let attr = [
        cgroup.as_raw_fd().unsigned_abs(),
        program.as_raw_fd().unsigned_abs(),
        BPF_CGROUP_DEVICE,
        BPF_F_ALLOW_MULTI,
    ];
    // SAFETY: `attr` is the head of bpf_attr for BPF_PROG_ATTACH, its length
    // is given; both descriptors are open for the length of the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_ATTACH,
            attr.as_ptr(),
            size_of_val(&attr),
        )
    })
    .map(drop)
}

// ---- seccomp, capabilities ---------------------------------------------------

/// seccomp(SECCOMP_SET_MODE_FILTER). SPEC_ALLOW as runc has it: a filter does
/// not by itself mean that the program runs code that it must not trust.
pub fn seccomp_filter(program: &[Instruction]) -> Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `Instruction` is repr(C) with sock_filter's fields; the kernel
    // reads `len` of them during the call and checks the program.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            ptr::from_ref(&filter),
        )
    })
    .map(drop)
}

/// capset(2) of the calling thread; every set is one bit per capability.
pub fn capset(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    /// _LINUX_CAPABILITY_VERSION_3: two 32-bit halves of each set.
    const VERSION_3: u32 = 0x2008_0522;
    let header: [u32; 2] = [VERSION_3, 0];
    let half = |set: u64, shift: u32| -> u32 {
        let [a, b, c, d, ..] = (set >> shift).to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    };
    let data = [0, 32].map(|shift| {
        [
            half(effective, shift),
            half(permitted, shift),
            half(inheritable, shift),
        ]
    });
    // SAFETY: the kernel reads a header of two words (version, pid 0) and, for
    // version 3, two triples of words.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })
        .map(drop)
}
