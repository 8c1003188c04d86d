//! Pseudo terminals: born in the container's own devpts, so that no terminal
//! of the host is ever visible inside; and the caller's side of one (size, raw
//! mode).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{FsType, fstatfs};

use crate::base::{Error, Result, Subject};
use crate::sys::raw;

/// `DEVPTS_SUPER_MAGIC`
const DEVPTS: FsType = FsType(0x1cd1);

fn fail(op: &'static str, errno: Errno) -> Error {
    Error::sys(op, Subject::None, errno)
}

/// Both ends of a pseudo terminal.
#[derive(Debug)]
pub struct Pty {
    /// The runtime's end.
    pub master: OwnedFd,
    /// The container's end.
    pub slave: OwnedFd,
    /// The slave's name in its devpts.
    pub number: u32,
}

impl Pty {
    /// A new pty of the devpts that is mounted at (or held by) `devpts`.
    ///
    /// A running container's root could put something else in the place of
    /// `ptmx`, so what opens must prove to lie in a devpts, and must not block
    /// when it does not.
    pub fn open(devpts: BorrowedFd<'_>) -> Result<Self> {
        let master = openat(
            devpts,
            "ptmx",
            OFlag::O_RDWR
                | OFlag::O_NOCTTY
                | OFlag::O_CLOEXEC
                | OFlag::O_NOFOLLOW
                | OFlag::O_NONBLOCK,
            Mode::empty(),
        )
        .map_err(|e| fail("open pseudo terminal", e))?;
        if fstatfs(&master).map(|fs| fs.filesystem_type()) != Ok(DEVPTS) {
            return Err(Error::state(
                "open pseudo terminal",
                Subject::None,
                "the container's /dev/pts is not a devpts",
            ));
        }
        set_blocking(&master)?;
        raw::tty_unlock(master.as_fd()).map_err(|e| fail("unlock pseudo terminal", e))?;
        Ok(Self {
            number: raw::tty_number(master.as_fd())
                .map_err(|e| fail("number pseudo terminal", e))?,
            // By ioctl, not by a path that might lead elsewhere.
            slave: raw::tty_peer(master.as_fd()).map_err(|e| fail("open terminal", e))?,
            master,
        })
    }
}

fn set_blocking(fd: &OwnedFd) -> Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_RDWR))
        .map(drop)
        .map_err(|e| fail("configure pseudo terminal", e))
}

/// Makes `tty` the controlling terminal of the calling session leader.
pub fn make_controlling(tty: BorrowedFd<'_>) -> Result<()> {
    raw::tty_make_controlling(tty).map_err(|e| fail("set controlling terminal", e))
}

/// Rows and columns of a terminal.
pub fn size(tty: BorrowedFd<'_>) -> Result<(u16, u16)> {
    raw::tty_size(tty).map_err(|e| fail("read terminal size", e))
}

/// Sets rows and columns; the foreground process group gets SIGWINCH.
pub fn set_size(tty: BorrowedFd<'_>, (rows, cols): (u16, u16)) -> Result<()> {
    raw::tty_set_size(tty, rows, cols).map_err(|e| fail("set terminal size", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devpts() -> Option<OwnedFd> {
        let dir = nix::fcntl::open("/dev/pts", OFlag::O_PATH, Mode::empty()).unwrap();
        // The machine's own may forbid ptmx (mode 000) to all but root.
        Pty::open(dir.as_fd()).ok().map(|_| dir)
    }

    #[test]
    fn a_pty_has_a_size() {
        let Some(dir) = devpts() else {
            // The kernel tests open one in a devpts of their own.
            return;
        };
        let pty = Pty::open(dir.as_fd()).unwrap();
        set_size(pty.master.as_fd(), (24, 80)).unwrap();
        assert_eq!(size(pty.slave.as_fd()).unwrap(), (24, 80));
    }

    #[test]
    fn what_is_no_devpts_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/ptmx", dir.path().join("ptmx")).unwrap();
        let fd = nix::fcntl::open(dir.path(), OFlag::O_PATH, Mode::empty()).unwrap();
        assert!(Pty::open(fd.as_fd()).unwrap_err().is_errno(libc::ELOOP));
        std::fs::remove_file(dir.path().join("ptmx")).unwrap();
        std::fs::write(dir.path().join("ptmx"), "").unwrap();
        assert!(Pty::open(fd.as_fd()).unwrap_err().errno().is_none());
    }
}
