//! The system calls that matter: which of them have an effect, which can
//! fail in earnest, and where their path is.

use nix::libc::{self, c_long, user_regs_struct};

/// A call that a traced process is about to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    /// Address of its path.
    pub(crate) path: Option<u64>,
    /// It changes something outside of the process.
    pub(crate) is_effect: bool,
    /// It fails now and then, and whoever makes it must cope.
    pub(crate) can_fail: bool,
}

/// Which argument is the path.
#[derive(Clone, Copy)]
enum PathAt {
    No,
    First,
    Second,
    /// The target of two.
    Fourth,
}

/// What it does to the world.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Effect,
    /// openat: only if it creates.
    Open,
    /// fcntl: only locks.
    Fcntl,
    Looks,
}

use Kind::{Effect, Fcntl, Looks, Open};
use PathAt::{First, Fourth, No, Second};

macro_rules! calls {
    ($($number:ident $name:literal $kind:ident $path:ident,)*) => {
        &[$((libc::$number, $name, $kind, $path),)*]
    };
}

const CALLS: &[(c_long, &str, Kind, PathAt)] = calls![
    SYS_bind "bind" Effect No,
    SYS_bpf "bpf" Effect No,
    SYS_capset "capset" Effect No,
    SYS_chdir "chdir" Looks First,
    SYS_chmod "chmod" Effect First,
    SYS_clone "clone" Effect No,
    SYS_clone3 "clone3" Effect No,
    SYS_close_range "close_range" Looks No,
    SYS_connect "connect" Looks No,
    SYS_dup2 "dup2" Looks No,
    SYS_dup3 "dup3" Looks No,
    SYS_epoll_create1 "epoll_create1" Looks No,
    SYS_epoll_ctl "epoll_ctl" Looks No,
    SYS_execve "execve" Effect First,
    SYS_exit_group "exit_group" Effect No,
    SYS_faccessat2 "faccessat2" Looks Second,
    SYS_fchdir "fchdir" Looks No,
    SYS_fchmod "fchmod" Effect No,
    SYS_fchmodat "fchmodat" Effect Second,
    SYS_fchown "fchown" Effect No,
    SYS_fcntl "fcntl" Fcntl No,
    SYS_fdatasync "fdatasync" Effect No,
    SYS_fsconfig "fsconfig" Effect No,
    SYS_fsmount "fsmount" Effect No,
    SYS_fsopen "fsopen" Effect First,
    SYS_fstat "fstat" Looks No,
    SYS_fsync "fsync" Effect No,
    SYS_ftruncate "ftruncate" Effect No,
    SYS_getdents64 "getdents64" Looks No,
    SYS_getrandom "getrandom" Looks No,
    SYS_getsockopt "getsockopt" Looks No,
    SYS_ioctl "ioctl" Looks No,
    SYS_kill "kill" Effect No,
    SYS_link "link" Effect Second,
    SYS_linkat "linkat" Effect Fourth,
    SYS_listen "listen" Effect No,
    SYS_lseek "lseek" Looks No,
    SYS_mkdir "mkdir" Effect First,
    SYS_mkdirat "mkdirat" Effect Second,
    SYS_mknodat "mknodat" Effect Second,
    SYS_mount "mount" Effect Second,
    SYS_mount_setattr "mount_setattr" Effect No,
    SYS_move_mount "move_mount" Effect Fourth,
    SYS_newfstatat "newfstatat" Looks Second,
    SYS_open_tree "open_tree" Effect Second,
    SYS_openat "openat" Open Second,
    SYS_openat2 "openat2" Looks Second,
    SYS_pidfd_open "pidfd_open" Looks No,
    SYS_pidfd_send_signal "pidfd_send_signal" Effect No,
    SYS_pipe2 "pipe2" Looks No,
    SYS_pivot_root "pivot_root" Effect First,
    SYS_poll "poll" Looks No,
    SYS_prctl "prctl" Looks No,
    SYS_pwrite64 "pwrite64" Effect No,
    SYS_read "read" Looks No,
    SYS_readlink "readlink" Looks First,
    SYS_readlinkat "readlinkat" Looks Second,
    SYS_recvfrom "recvfrom" Looks No,
    SYS_recvmsg "recvmsg" Looks No,
    SYS_rename "rename" Effect Second,
    SYS_renameat "renameat" Effect Fourth,
    SYS_renameat2 "renameat2" Effect Fourth,
    SYS_rmdir "rmdir" Effect First,
    SYS_seccomp "seccomp" Effect No,
    SYS_sendmsg "sendmsg" Effect No,
    SYS_sendto "sendto" Effect No,
    SYS_setgid "setgid" Effect No,
    SYS_setgroups "setgroups" Effect No,
    SYS_sethostname "sethostname" Effect No,
    SYS_setns "setns" Effect No,
    SYS_setresgid "setresgid" Effect No,
    SYS_setresuid "setresuid" Effect No,
    SYS_setsid "setsid" Effect No,
    SYS_setsockopt "setsockopt" Looks No,
    SYS_setuid "setuid" Effect No,
    SYS_signalfd4 "signalfd4" Looks No,
    SYS_socket "socket" Looks No,
    SYS_socketpair "socketpair" Looks No,
    SYS_statfs "statfs" Looks First,
    SYS_statx "statx" Looks Second,
    SYS_symlink "symlink" Effect Second,
    SYS_symlinkat "symlinkat" Effect No,
    SYS_umount2 "umount2" Effect First,
    SYS_unlink "unlink" Effect First,
    SYS_unlinkat "unlinkat" Effect Second,
    SYS_unshare "unshare" Effect No,
    SYS_waitid "waitid" Effect No,
    SYS_write "write" Effect No,
    SYS_writev "writev" Effect No,
];

/// Not in any way that is to be coped with. (getrandom: once the kernel has its
/// randomness, a few bytes always come. Rust's hash maps abort otherwise.)
const NEVER_FAILS: &[&str] = &["exit_group", "getrandom", "poll", "setsid", "waitid"];

/// The call at whose entry these registers were read, if it matters.
pub(crate) fn find(regs: &user_regs_struct) -> Option<Call> {
    let number = regs.orig_rax.cast_signed();
    let (_, name, kind, path) = CALLS.iter().find(|c| c.0 == number)?;
    let path = match path {
        No => None,
        First => Some(regs.rdi),
        Second => Some(regs.rsi),
        Fourth => Some(regs.r10),
    };
    let is_effect = match kind {
        Effect => true,
        Looks => false,
        Open => has(regs.rdx, libc::O_CREAT) || has(regs.rdx, libc::O_TMPFILE),
        Fcntl => [libc::F_OFD_SETLK, libc::F_OFD_SETLKW]
            .iter()
            .any(|c| regs.rsi == u64::from(c.unsigned_abs())),
    };
    Some(Call {
        name,
        path: path.filter(|at| *at != 0),
        is_effect,
        can_fail: !NEVER_FAILS.contains(name),
    })
}

fn has(flags: u64, flag: i32) -> bool {
    let flag = u64::from(flag.unsigned_abs());
    flags & flag == flag
}
