//! Who holds the containers' locks, in one file: what a thousand lock files
//! would say, at once.
//!
//! *Theory of operation.* Whoever wants a container's lock first takes a slot
//! of the file `<state>/roll.lock`: the container's id, and a word with its own
//! process id. The kernel marks that word when the process ends, however it
//! does (a robust futex). So a slot with a process's id is a live holder's (or
//! that of one who still waits), and needs no further question; a marked one is
//! a dead process's, and its lock is asked: a process that was forked may have
//! it. A lock file has a slot as long as it is there, since the slot is taken
//! before the file is made and freed when the file is gone.
//!
//! The locks decide; the file only says which of them to ask. What cannot be
//! marked (a second lock of one process, a thread's, a file system without
//! shared mappings) is entered as marked from the start, with its process.
//! Where there is no roll yet, the first who needs one enters all lock files
//! that there are.
//!
//! Slots are taken, handed on and freed under the file's own lock; only the
//! kernel's mark comes without.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::file::explain;
use super::lock::{Lock, Survey};
use crate::base::{ContainerId, Result};
use crate::sys::raw;

/// `<linux/futex.h>`
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
const DIED: [u8; 4] = FUTEX_OWNER_DIED.to_ne_bytes();

/// Word, four bytes of nothing, id; the rest is the kernel's.
const SLOT: usize = 64;
const ID: std::ops::Range<usize> = 8..40;
/// Where what leads the kernel to the word is.
const HEAD: usize = SLOT - raw::ROBUST_LIST_HEAD;
/// What the first slot says, before the boot's id: who was alive under another
/// kernel is not.
const HEADER: &[u8; 16] = b"dockless roll 1 ";

/// The process that has this program's one mark: itself, or the one that it was
/// forked from, whose mark it does not have.
static MARKED: AtomicU32 = AtomicU32::new(0);

/// The file, and the folder of the locks.
#[derive(Clone, Debug)]
pub struct Roll {
    path: PathBuf,
    locks: PathBuf,
}

/// A slot that this process has.
#[derive(Debug)]
pub(super) struct Place {
    roll: Roll,
    /// In the file.
    offset: u64,
    id: [u8; 32],
    word: u32,
}

impl Roll {
    pub fn new(path: PathBuf, locks: PathBuf) -> Self {
        Self { path, locks }
    }

    fn lock_of(&self, id: &ContainerId) -> PathBuf {
        self.locks.join(id.as_str())
    }

    /// Waits for a container's lock.
    pub fn acquire(&self, id: &ContainerId) -> Result<Lock> {
        let place = self.enter(id.to_bytes(), None)?;
        // What fails leaves a marked slot, and the next survey asks.
        let lock = Lock::acquire(&self.lock_of(id))?;
        Ok(lock.at(place.confirmed()?))
    }

    /// `None` when somebody else holds it.
    pub fn try_acquire(&self, id: &ContainerId) -> Result<Option<Lock>> {
        let path = self.lock_of(id);
        if Lock::is_held(&path)? {
            return Ok(None);
        }
        let place = match self.enter(id.to_bytes(), None) {
            // A container that is there can be removed on a full disk, too: an
            // empty lock file takes no room. `gc` looks at the files.
            Err(full) if matches!(full.errno(), Some(libc::ENOSPC | libc::EDQUOT)) => {
                return Lock::try_acquire(&path);
            }
            entered => entered?,
        };
        match Lock::try_acquire(&path)? {
            Some(lock) => Ok(Some(lock.at(place.confirmed()?))),
            // It may have been the other's.
            None => place.hand_back().map(|()| None),
        }
    }

    /// The containers whose locks are held, and those that are to be recovered.
    pub fn survey(&self) -> Result<Survey> {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        if !is_of_this_boot(&bytes) {
            return Lock::survey(&self.locks);
        }
        let mut survey = Survey::default();
        for (_, slot) in slots(&bytes) {
            let (word, id) = (word_of(slot), id_of(slot));
            let name = || ContainerId::from_bytes(id);
            // What cannot be asked is for who tries to lock it to learn of.
            let is_held = || Lock::is_held(&self.lock_of(&name())).unwrap_or(false);
            if word != 0 && (is_live(word) || is_held()) {
                survey.held.insert(id);
            } else if self.is_used(slot) {
                survey.free.push(name().into());
            }
        }
        Ok(survey)
    }

    /// A dead process's slot is of no use without the lock.
    fn is_used(&self, slot: &[u8]) -> bool {
        let (word, id) = (word_of(slot), ContainerId::from_bytes(id_of(slot)));
        word != 0 && (has_process(word) || self.lock_of(&id).symlink_metadata().is_ok())
    }

    /// A slot for a lock that this process is about to take, or that a process
    /// which had the mark `from` has handed on to it: that one's, if it is
    /// still there.
    fn enter(&self, id: [u8; 32], from: Option<u32>) -> Result<Place> {
        let roll = Lock::acquire(&self.path)?;
        let mut bytes = roll.read()?;
        if !is_of_this_boot(&bytes) {
            bytes = self.every_lock()?;
            // The header last: until it is there, the locks are asked.
            let slots = bytes.get(SLOT..).unwrap_or_default();
            let file = roll.file();
            file.set_len(0)
                .and_then(|()| file.write_all_at(slots, SLOT as u64))
                .and_then(|()| file.write_all_at(&header(), 0))
                .map_err(|e| explain("write", &self.path, e))?;
        }
        let same = slots(&bytes).find(|(_, slot)| {
            let word = word_of(slot);
            id_of(slot) == id && word != 0 && (!is_live(word) || Some(word) == from)
        });
        let free = || slots(&bytes).find(|(_, slot)| word_of(slot) == 0);
        let at = match same.or_else(free) {
            Some((at, _)) => at,
            None => bytes.len() - bytes.len() % SLOT,
        };
        let offset = at as u64;
        let fail = |e| explain("write", &self.path, e);
        let file = roll.file();
        if at + SLOT > bytes.len() {
            file.write_all_at(&[0; SLOT], offset).map_err(fail)?;
        }
        // One to ask, until it is marked: a word that nothing marks would be taken
        // for alive for ever. The slot may be the one that another process (the one
        // that this was forked from) is marked by; it is no more from here on.
        let own = std::process::id();
        let put = |word| {
            let slot = slot(word, id);
            let begin = slot.get(..ID.end).unwrap_or_default();
            file.write_all_at(begin, offset).map_err(fail)
        };
        put(own | FUTEX_OWNER_DIED)?;
        let is_free = MARKED.load(Ordering::SeqCst) != own;
        let mark = || {
            // Opened anew: the mapping keeps it open, and a lock with it.
            let file = File::options().read(true).write(true).open(&self.path);
            let head = offset + HEAD as u64;
            file.is_ok_and(|file| raw::mark_at_end(file.as_fd(), offset, head).is_ok())
        };
        let word = match is_free && mark() {
            true => own,
            false => own | FUTEX_OWNER_DIED,
        };
        if word == own {
            put(own).inspect_err(|_| {
                let _ = raw::mark_nothing();
            })?;
            MARKED.store(own, Ordering::SeqCst);
        }
        Ok(Place {
            roll: self.clone(),
            offset,
            id,
            word,
        })
    }

    /// What a roll begins with.
    fn every_lock(&self) -> Result<Vec<u8>> {
        let mut bytes = header().to_vec();
        let all = Lock::survey(&self.locks)?;
        let free = all
            .free
            .into_iter()
            .filter_map(|name| ContainerId::new(name).ok());
        for id in all.held.into_iter().chain(free.map(|id| id.to_bytes())) {
            bytes.extend(slot(FUTEX_OWNER_DIED, id));
        }
        Ok(bytes)
    }

    /// Frees what is of no use.
    pub fn tidy(&self) -> Result<()> {
        if self.path.symlink_metadata().is_err() {
            return Ok(());
        }
        let roll = Lock::acquire(&self.path)?;
        for (at, slot) in slots(&roll.read()?) {
            if word_of(slot) != 0 && !self.is_used(slot) {
                let freed = roll.file().write_all_at(&[0; SLOT], at as u64);
                freed.map_err(|e| explain("write", &self.path, e))?;
            }
        }
        self.cut(&roll)
    }

    /// Without the free slots at its end.
    fn cut(&self, roll: &Lock) -> Result<()> {
        let bytes = roll.read()?;
        let all = bytes.len() / SLOT;
        let used = (1..all).rev().find(|n| {
            let slot = bytes.get(n * SLOT..).unwrap_or_default();
            self.is_used(slot)
        });
        let length = (used.unwrap_or_default() + 1) * SLOT;
        if length < bytes.len() {
            let cut = roll.file().set_len(length as u64);
            cut.map_err(|e| explain("write", &self.path, e))?;
        }
        Ok(())
    }
}

impl Place {
    /// After a fork: the slot becomes this process's.
    pub(super) fn adopt(&self) -> Result<Self> {
        self.roll.enter(self.id, Some(self.word))
    }

    /// With the lock taken: a slot that nobody could mark may have been another's
    /// meanwhile.
    fn confirmed(self) -> Result<Self> {
        if self.is_marked() {
            return Ok(self);
        }
        self.roll.enter(self.id, Some(self.word))
    }

    /// Another has the lock.
    fn hand_back(mut self) -> Result<()> {
        self.leave(&[self.word], &DIED)
    }

    /// The lock file is gone. So is what a process of ours that had it left.
    pub(super) fn free(mut self) -> Result<()> {
        self.leave(&[FUTEX_OWNER_DIED, self.word], &[0; SLOT])
    }

    /// As if this process were dead.
    pub(super) fn unmark(&mut self) -> Result<()> {
        if !self.is_marked() || self.roll.path.symlink_metadata().is_err() {
            return Ok(());
        }
        self.leave(&[self.word], &DIED)
    }

    fn leave(&mut self, words: &[u32], bytes: &[u8]) -> Result<()> {
        let roll = Lock::acquire(&self.roll.path)?;
        self.replace(&roll, words, bytes)?;
        self.let_go();
        self.roll.cut(&roll)
    }

    /// Writes the beginning of the slot, if one of these words is in it.
    fn replace(&self, roll: &Lock, words: &[u32], bytes: &[u8]) -> Result<()> {
        let mut slot = [0; SLOT];
        let read = roll.file().read_exact_at(&mut slot, self.offset);
        if read.is_ok() && words.contains(&word_of(&slot)) && id_of(&slot) == self.id {
            let written = roll.file().write_all_at(bytes, self.offset);
            return written.map_err(|e| explain("write", &self.roll.path, e));
        }
        Ok(())
    }

    /// The mark can be another slot's.
    fn let_go(&mut self) {
        if self.is_marked() {
            // Where it cannot be said, the word is not this process's any more.
            let _ = raw::mark_nothing();
            MARKED.store(0, Ordering::SeqCst);
        }
        self.word = 0;
    }

    fn is_marked(&self) -> bool {
        self.word == std::process::id()
    }
}

/// A lock that is let go of and stays is one to ask. If that cannot be written,
/// the kernel writes it when this process ends.
impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.unmark();
    }
}

/// HEADER, and 36 characters of the boot's id.
fn header() -> [u8; SLOT] {
    static BOOT: OnceLock<String> = OnceLock::new();
    let boot = BOOT.get_or_init(|| {
        // Without it each roll is another boot's, and the locks say it all.
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
    });
    let mut header = [0; SLOT];
    let text = HEADER.iter().chain(boot.as_bytes());
    for (byte, text) in header.iter_mut().zip(text) {
        *byte = *text;
    }
    header
}

fn is_of_this_boot(roll: &[u8]) -> bool {
    let header = header();
    header[HEADER.len()] != 0 && roll.starts_with(&header)
}

fn slots(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let each = (0..).step_by(SLOT).zip(bytes.chunks_exact(SLOT));
    each.skip(1)
}

fn slot(word: u32, id: [u8; 32]) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..4].copy_from_slice(&word.to_ne_bytes());
    slot[ID].copy_from_slice(&id);
    slot
}

fn word_of(slot: &[u8]) -> u32 {
    let word = slot.first_chunk().copied();
    u32::from_ne_bytes(word.unwrap_or_default())
}

fn id_of(slot: &[u8]) -> [u8; 32] {
    let id = slot.get(ID).and_then(|id| id.try_into().ok());
    id.unwrap_or_default()
}

fn is_live(word: u32) -> bool {
    word & FUTEX_OWNER_DIED == 0 && word & FUTEX_TID_MASK != 0
}

/// Whether somebody has the id in a word. Where nobody has, the kernel could not
/// leave its mark: the page was to be read in, and could not.
fn has_process(word: u32) -> bool {
    let pid = i32::try_from(word & FUTEX_TID_MASK).unwrap_or_default();
    pid != 0 && kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn roll() -> (TempDir, Roll) {
        let dir = tempfile::tempdir().unwrap();
        let locks = dir.path().join("locks");
        std::fs::create_dir(&locks).unwrap();
        let roll = Roll::new(dir.path().join("roll"), locks);
        (dir, roll)
    }

    fn id(n: u8) -> ContainerId {
        ContainerId::from_bytes([n; 32])
    }

    fn count(roll: &Roll) -> (usize, usize) {
        let survey = roll.survey().unwrap();
        (survey.held.len(), survey.free.len())
    }

    fn words(roll: &Roll) -> Vec<u32> {
        let bytes = std::fs::read(&roll.path).unwrap();
        slots(&bytes).map(|(_, slot)| word_of(slot)).collect()
    }

    /// Tests are threads, which nothing is marked for.
    #[test]
    fn what_cannot_be_marked_is_asked() {
        let (_dir, roll) = roll();
        let one = roll.acquire(&id(1)).unwrap();
        let two = roll.try_acquire(&id(2)).unwrap().unwrap();
        assert!(roll.try_acquire(&id(2)).unwrap().is_none());
        let asked = FUTEX_OWNER_DIED | std::process::id();
        assert_eq!(words(&roll), [asked; 2]);
        assert_eq!(count(&roll), (2, 0));
        drop(one);
        let survey = roll.survey().unwrap();
        assert_eq!(survey.free, [String::from(id(1))]);
        assert!(survey.held.contains(&id(2).to_bytes()));
        // The slot is found again, and freed with the file.
        roll.try_acquire(&id(1)).unwrap().unwrap().unlink().unwrap();
        assert_eq!(words(&roll), [0, asked]);
        two.unlink().unwrap();
        assert!(words(&roll).is_empty());
        assert_eq!(count(&roll), (0, 0));
    }

    #[test]
    fn who_is_alive_is_not_asked_and_who_was_under_another_kernel_is() {
        let (_dir, roll) = roll();
        drop(roll.acquire(&id(1)).unwrap());
        let file = File::options().write(true).open(&roll.path).unwrap();
        let put = |word| file.write_all_at(&slot(word, id(1).to_bytes()), SLOT as u64);
        // A pid that nobody has, and a lock that is there: who asks all locks finds
        // out (`gc`).
        put(FUTEX_TID_MASK).unwrap();
        assert_eq!(count(&roll), (1, 0));
        roll.tidy().unwrap();
        assert_eq!(count(&roll), (1, 0));
        let lock = roll.lock_of(&id(1));
        std::fs::remove_file(&lock).unwrap();
        roll.tidy().unwrap();
        assert!(words(&roll).is_empty());
        put(1).unwrap();
        assert_eq!(count(&roll), (1, 0));
        let other = roll.acquire(&id(1)).unwrap();
        let asked = FUTEX_OWNER_DIED | std::process::id();
        assert_eq!(words(&roll), [1, asked]);
        other.unlink().unwrap();
        file.write_all_at(b"x", HEADER.len() as u64).unwrap();
        assert_eq!(count(&roll), (0, 0));
        let two = roll.acquire(&id(2)).unwrap();
        assert_eq!(words(&roll), [asked]);
        two.unlink().unwrap();
    }

    #[test]
    fn a_first_roll_has_every_lock_and_a_damaged_one_is_no_danger() {
        let (_dir, roll) = roll();
        let held = Lock::acquire(&roll.lock_of(&id(1))).unwrap();
        drop(Lock::acquire(&roll.lock_of(&id(2))).unwrap());
        drop(Lock::acquire(&roll.locks.join("none of ours")).unwrap());
        roll.acquire(&id(3)).unwrap().unlink().unwrap();
        assert_eq!(count(&roll), (1, 1));
        let file = File::options().write(true).open(&roll.path).unwrap();
        for length in (0..4 * SLOT as u64).rev() {
            file.set_len(length).unwrap();
            roll.survey().unwrap();
            drop(roll.try_acquire(&id(4)).unwrap().unwrap());
        }
        drop(held);
    }

    /// A process that is forked marks for itself; when it ends, the kernel does.
    #[test]
    fn the_kernel_marks_a_dead_process_s_word() {
        let (_dir, roll) = roll();
        drop(roll.acquire(&id(1)).unwrap());
        let file = File::options()
            .read(true)
            .write(true)
            .open(&roll.path)
            .unwrap();
        // Nothing but system calls between fork and end: this is one thread of
        // several.
        let Some(child) = raw::fork().unwrap() else {
            let own = std::process::id().to_ne_bytes();
            let slot = SLOT as u64;
            let done = raw::mark_at_end(file.as_fd(), slot + 4, slot + HEAD as u64)
                .and_then(|()| raw::mark_at_end(file.as_fd(), slot, slot + HEAD as u64))
                .is_ok()
                && file.write_all_at(&own, SLOT as u64).is_ok()
                && file.write_all_at(&own, 4 + SLOT as u64).is_ok();
            raw::exit_now(i32::from(!done))
        };
        let pid = nix::unistd::Pid::from_raw(child);
        let status = nix::sys::wait::waitpid(pid, None).unwrap();
        assert_eq!(status, nix::sys::wait::WaitStatus::Exited(pid, 0));
        assert_eq!(words(&roll), [FUTEX_OWNER_DIED]);
        let mut last = [0; 4];
        file.read_exact_at(&mut last, 4 + SLOT as u64).unwrap();
        assert_eq!(
            u32::from_ne_bytes(last),
            child.unsigned_abs(),
            "one a process"
        );
    }
}
