//! Terminals: a pty pair from one devpts, its size, its session.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::raw;
use crate::base::{Error, Result, Subject};

fn fail(op: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::sys(op, Subject::None, errno)
}

/// A pty pair of the devpts whose root folder is `devpts`: (master, slave).
/// The slave is opened through the master, so a path never decides which
/// file it is.
pub fn open_pair(devpts: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let master = openat(
        devpts,
        "ptmx",
        OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(fail("open terminal"))?;
    let borrowed = std::os::fd::AsFd::as_fd(&master);
    raw::tty_unlock(borrowed).map_err(fail("unlock terminal"))?;
    let slave = raw::tty_peer(borrowed).map_err(fail("open terminal"))?;
    Ok((master, slave))
}

/// The slave's name in its devpts: `/dev/pts/<number>`.
pub fn number(master: BorrowedFd<'_>) -> Result<u32> {
    raw::tty_number(master).map_err(fail("name terminal"))
}

/// Makes it the controlling terminal of the caller's session, which has none.
pub fn make_controlling(tty: BorrowedFd<'_>) -> Result<()> {
    raw::tty_make_controlling(tty).map_err(fail("set controlling terminal"))
}

/// (rows, columns).
pub fn size(tty: BorrowedFd<'_>) -> Result<(u16, u16)> {
    raw::tty_size(tty).map_err(fail("read terminal size"))
}

/// Sets the size; the foreground process group gets SIGWINCH if it changed.
pub fn set_size(tty: BorrowedFd<'_>, rows: u16, cols: u16) -> Result<()> {
    raw::tty_set_size(tty, rows, cols).map_err(fail("set terminal size"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_pair_carries_bytes_and_a_size() {
        // The machine's /dev/pts/ptmx may be root's alone; /dev/ptmx is everybody's.
        let dev = std::fs::File::open("/dev").unwrap();
        let (master, slave) = open_pair(dev.as_fd()).unwrap();
        set_size(master.as_fd(), 24, 80).unwrap();
        assert_eq!(size(slave.as_fd()).unwrap(), (24, 80));
        nix::unistd::write(&slave, b"hi").unwrap();
        let mut buf = [0; 8];
        assert_eq!(nix::unistd::read(&master, &mut buf).unwrap(), 2);
        let name = format!("/dev/pts/{}", number(master.as_fd()).unwrap());
        assert_eq!(nix::unistd::ttyname(&slave).unwrap().to_str(), Some(&*name));
    }
}
