//! Which supervisors share a [`Bell`]: those whose containers have the same
//! parents, and have seen them in the same state.
//!
//! *Theory of operation.* Who has a bell writes down where it is, in
//! `<state>/bells/<namespace>-<links>` (inode and indices), and what it
//! expects, a line each; who comes next takes it from there, and adds itself
//! where there are less than [`KNOWN`]. Where none that is written down can be
//! had any more (it has rung, say), who comes makes another. One at a time, under
//! a lock. A bell lives as long as one has it: the kernel counts. No such file is
//! needed; who ends takes its line away, and the dead are taken out with the next
//! container that is recovered.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::base::Result;
use crate::engine::Engine;
use crate::engine::launch::hex;
use crate::engine::names::list;
use crate::netlink::watch::{Bell, Seen, Whereabouts};
use crate::store::Lock;
use crate::store::file::{self, Durability};
use crate::sys::netns::{Host, Netns};
use crate::sys::process::PidFd;

/// So many are written down: one of them should outlive the others.
const KNOWN: usize = 8;

/// A bell, what it expects, and, if this process has written it down, where.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bell: Bell,
    pub(super) known: Vec<Seen>,
    entry: Option<Entry>,
}

impl Shared {
    /// Nobody finds it here any more. Who has it goes on having it.
    pub(super) fn hide(&mut self) {
        self.entry = None;
    }
}

/// A line: `<pid> <fd> <cookie> <SHA-256 of what is expected>`.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    line: String,
}

impl Drop for Entry {
    fn drop(&mut self) {
        // What stays is found to lead nowhere.
        let _ = keep(&self.path, |line| line != self.line);
    }
}

fn parse(line: &str) -> Option<(Whereabouts, &str)> {
    let mut words = line.split(' ');
    let at = Whereabouts {
        pid: words.next()?.parse().ok()?,
        fd: words.next()?.parse().ok()?,
        cookie: words.next()?.parse().ok()?,
    };
    Some((at, words.next()?))
}

/// Takes lines away, and with the last one the file.
fn keep(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<()> {
    let _lock = lock(path)?;
    let Ok(text) = std::fs::read_to_string(path) else {
        return Ok(());
    };
    let left: String = text
        .split_inclusive('\n')
        .filter(|l| wanted(l.trim_end()))
        .collect();
    match left.is_empty() {
        true => file::remove(path),
        false if left == text => Ok(()),
        false => file::replace(path, left.as_bytes(), Durability::Boot),
    }
}

/// Files and lines change under it.
fn lock(path: &Path) -> Result<Lock> {
    Lock::acquire(&path.with_file_name(".lock"))
}

/// The same for all who expect the same.
fn digest(known: &[Seen]) -> String {
    hex(&Sha256::digest(format!("{known:?}")))
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
        // Where the folder can only be read, it is still found there.
        let _lock = lock(&path).ok();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let entries = text.lines().filter_map(parse);
        let of_same: Vec<_> = entries.filter(|(_, of)| *of == expected).collect();
        let found = of_same.iter().find_map(|(at, _)| Bell::shared(at));
        let is_full = of_same.len() >= KNOWN;
        let (bell, before) = match found {
            Some(bell) if is_full => {
                let entry = None;
                return Ok(Shared { bell, known, entry });
            }
            Some(bell) => (bell, text.as_str()),
            // Nothing that is written there is of use any more.
            None => (Bell::new(&known)?, ""),
        };
        let entry = bell.whereabouts().and_then(|at| {
            let line = format!("{} {} {} {expected}", at.pid, at.fd, at.cookie);
            let text = format!("{before}{line}\n");
            // Not written down, it is not found here.
            file::replace(&path, text.as_bytes(), Durability::Boot).ok()?;
            Some(Entry { path, line })
        });
        Ok(Shared { bell, known, entry })
    }

    fn bell_path(&self, known: &[Seen]) -> Result<PathBuf> {
        let namespace = Netns::<Host>::current()?.id()?.ino;
        let links: Vec<String> = known.iter().map(|link| link.index.to_string()).collect();
        Ok(self
            .bells()
            .join(format!("{namespace}-{}", links.join(","))))
    }

    /// Lines of processes that are no more.
    pub(in crate::engine) fn drop_dead_bells(&self) -> Result<()> {
        let lives = |line: &str| parse(line).is_some_and(|(at, _)| PidFd::open(at.pid).is_ok());
        for name in list(&self.bells())? {
            let path = self.bells().join(name);
            if path.is_file() {
                keep(&path, lives)?;
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
        let text = format!("{} {} {} abcd", at.pid, at.fd, at.cookie);
        assert_eq!(parse(&text), Some((at, "abcd")));
        for damaged in ["", "12", "12 34", "12 34 x y", "12 34 56"] {
            assert_eq!(parse(damaged), None, "{damaged:?}");
        }
    }
}
