//! Which supervisors share a [`Bell`]: those whose containers have the same
//! parents, and have seen them in the same state.
//!
//! *Theory of operation.* Who makes a bell writes down where it is, in
//! `<state>/bells/<namespace>-<links>` (inode and indices), and what it
//! expects; who comes next takes it from there, or, where that one has rung,
//! has gone or cannot be had, makes another and writes that down. So two that
//! do so at once have two, and the next ones share one of them. A bell that was
//! shared lives on when its maker ends: the kernel counts who has it. No such
//! file is needed; its maker removes it, and `gc` those of dead ones.

use std::fmt::Write as _;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::base::Result;
use crate::engine::Engine;
use crate::engine::names::list;
use crate::netlink::watch::{Bell, Seen, Whereabouts};
use crate::store::file::{self, Durability};
use crate::sys::netns::{Host, Netns};
use crate::sys::process::PidFd;

/// A bell, what it expects, and, if this process has written it down, where.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bell: Bell,
    pub(super) known: Vec<Seen>,
    entry: Option<Entry>,
}

impl Shared {
    /// Nobody finds it any more. Who has it goes on having it.
    pub(super) fn hide(&mut self) {
        self.entry = None;
    }
}

/// What a file says: `<pid> <fd> <cookie> <SHA-256 of what is expected>`.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    text: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) {
            // What stays is found to lead nowhere.
            let _ = file::remove(&self.path);
        }
    }
}

fn parse(text: &str) -> Option<(Whereabouts, &str)> {
    let mut words = text.trim_end().split(' ');
    let at = Whereabouts {
        pid: words.next()?.parse().ok()?,
        fd: words.next()?.parse().ok()?,
        cookie: words.next()?.parse().ok()?,
    };
    Some((at, words.next()?))
}

/// The same for all who expect the same.
fn digest(known: &[Seen]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(format!("{known:?}")) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Engine {
    fn bells(&self) -> PathBuf {
        self.dirs.state().join("bells")
    }

    /// One that rings when one of these links is not as it was seen any more;
    /// it may have changed already.
    pub(super) fn bell(&self, known: Vec<Seen>) -> Result<Shared> {
        let path = self.bell_path(&known)?;
        let expected = digest(&known);
        let found = std::fs::read_to_string(&path).ok();
        let shared = found
            .as_deref()
            .and_then(parse)
            .filter(|(_, of)| *of == expected)
            .and_then(|(at, _)| Bell::shared(&at));
        if let Some(bell) = shared {
            return Ok(Shared {
                bell,
                known,
                entry: None,
            });
        }
        let bell = Bell::new(&known)?;
        let entry = bell.whereabouts().and_then(|at| {
            let text = format!("{} {} {} {expected}\n", at.pid, at.fd, at.cookie);
            // Not written down, it is nobody else's.
            file::replace(&path, text.as_bytes(), Durability::Boot).ok()?;
            Some(Entry { path, text })
        });
        Ok(Shared { bell, known, entry })
    }

    fn bell_path(&self, known: &[Seen]) -> Result<PathBuf> {
        let mut name = format!("{}-", Netns::<Host>::current()?.id()?.ino);
        for (at, link) in known.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(name, "{comma}{}", link.index);
        }
        Ok(self.bells().join(name))
    }

    /// Entries of processes that are no more.
    pub(in crate::engine) fn drop_dead_bells(&self) -> Result<()> {
        for name in list(&self.bells())? {
            let path = self.bells().join(name);
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if parse(&text).is_none_or(|(at, _)| PidFd::open(at.pid).is_err()) {
                file::remove(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let at = Whereabouts {
            pid: 12,
            fd: 34,
            cookie: 5_678_901_234,
        };
        let text = format!("{} {} {} abcd\n", at.pid, at.fd, at.cookie);
        assert_eq!(parse(&text), Some((at, "abcd")));
        for damaged in ["", "12", "12 34", "12 34 x y", "12 34 56"] {
            assert_eq!(parse(damaged), None, "{damaged:?}");
        }
    }
}
