//! The user's terminal while a container has it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::base::{Error, Result};

/// A terminal in raw mode until this is dropped: every key goes to the
/// container, ctrl-c too.
#[derive(Debug)]
pub struct RawTerminal {
    fd: OwnedFd,
    saved: Termios,
}

impl RawTerminal {
    /// `None` when `fd` is not a terminal.
    pub fn enter(fd: BorrowedFd<'_>) -> Result<Option<Self>> {
        let Ok(saved) = tcgetattr(fd) else {
            return Ok(None);
        };
        let mut raw = saved.clone();
        cfmakeraw(&mut raw);
        tcsetattr(fd, SetArg::TCSANOW, &raw)
            .map_err(|e| Error::sys("set raw mode of", "terminal", e))?;
        let fd = fd
            .try_clone_to_owned()
            .map_err(|e| Error::sys("duplicate", "terminal", e))?;
        Ok(Some(Self { fd, saved }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(&self.fd, SetArg::TCSANOW, &self.saved);
    }
}

/// Rows and columns, if it is a terminal that knows them.
pub fn size(terminal: impl AsFd) -> Option<(u16, u16)> {
    crate::sys::raw::tty_size(terminal.as_fd())
        .ok()
        .filter(|size| *size != (0, 0))
}

/// The key sequence that detaches a terminal (`--detach-keys`): ctrl-p ctrl-q
/// unless given, never when empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl DetachKeys {
    pub(super) const MAX: usize = 16;
    /// Never detach.
    pub const NONE: Self = Self {
        bytes: [0; Self::MAX],
        len: 0,
    };

    /// `None` when there are more than 16.
    pub fn new(keys: &[u8]) -> Option<Self> {
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..keys.len())?.copy_from_slice(keys);
        Some(Self {
            bytes,
            len: keys.len(),
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Default for DetachKeys {
    fn default() -> Self {
        let mut bytes = [0; Self::MAX];
        bytes[0] = 0x10; // ctrl-p
        bytes[1] = 0x11; // ctrl-q
        Self { bytes, len: 2 }
    }
}

/// Looks for the detach keys in what is typed, also across reads.
#[derive(Debug)]
pub(in crate::container) struct DetachFilter {
    keys: DetachKeys,
    /// A beginning of the sequence, not sent on yet.
    held: Vec<u8>,
}

impl DetachFilter {
    pub(in crate::container) fn new(keys: DetachKeys) -> Self {
        let held = Vec::new();
        Self { keys, held }
    }

    /// What to send on, and whether to detach behind it.
    pub(in crate::container) fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let keys = self.keys.as_bytes();
        let mut out = Vec::with_capacity(typed.len() + self.held.len());
        for byte in typed {
            self.held.push(*byte);
            if !keys.is_empty() && self.held == keys {
                return (out, true);
            }
            // What cannot become the sequence any more goes on its way.
            while !self.held.is_empty() && !keys.starts_with(&self.held) {
                out.push(self.held.remove(0));
            }
        }
        (out, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads_and_everything_else_goes_through() {
        let mut keys = DetachFilter::new(DetachKeys::default());
        assert_eq!(keys.filter(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(keys.filter(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(keys.filter(b"\x11\x10\x10"), (b"\x11\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11rest"), (Vec::new(), true));
        let mut keys = DetachFilter::new(DetachKeys::default());
        assert_eq!(keys.filter(b"x\x10\x11y"), (b"x".to_vec(), true));

        let mut keys = DetachFilter::new(DetachKeys::new(b"aab").unwrap());
        assert_eq!(keys.filter(b"aaaxaa"), (b"aaax".to_vec(), false));
        assert_eq!(keys.filter(b"ab"), (b"a".to_vec(), true));
        let mut none = DetachFilter::new(DetachKeys::new(b"").unwrap());
        assert_eq!(none.filter(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
        assert_eq!(DetachKeys::new(&[1; 17]), None);
    }

    #[test]
    fn what_is_no_terminal_is_left_alone() {
        let (read, _write) = nix::unistd::pipe().unwrap();
        assert!(RawTerminal::enter(read.as_fd()).unwrap().is_none());
        assert_eq!(size(&read), None);
    }

    #[test]
    fn raw_mode_is_taken_back_on_drop() {
        let pty = nix::pty::openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let raw = RawTerminal::enter(pty.slave.as_fd()).unwrap().unwrap();
        let meanwhile = tcgetattr(&pty.slave).unwrap();
        assert!(
            !meanwhile
                .local_flags
                .contains(nix::sys::termios::LocalFlags::ECHO)
        );
        drop(raw);
        assert_eq!(tcgetattr(&pty.slave).unwrap(), before);
        crate::sys::raw::tty_set_size(pty.master.as_fd(), 24, 80).unwrap();
        assert_eq!(size(&pty.slave), Some((24, 80)));
    }
}
