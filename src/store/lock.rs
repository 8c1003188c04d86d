//! A lock on a file, held by the kernel for whoever has the open file
//! description, a forked supervisor included, and gone when they are all dead:
//! what a lock says about liveness can never be stale.
//!
//! *Theory of operation.* These are open-file-description locks
//! (fcntl F_OFD_SETLK, Linux 3.15), not flock(2): both belong to the
//! description and so pass over a fork, but only these can be *tested*
//! (F_OFD_GETLK) without being taken for a moment, which would make somebody
//! else's `try_acquire` fail for no reason. The fd is CLOEXEC, so no program
//! that is executed keeps a lock alive.
//!
//! A locked file may be unlinked (by its holder alone). Whoever waited for
//! the lock then holds one on a file that nobody else can find, so after each
//! lock the name is looked up again and must still lead to the same inode.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::Mode;

use super::file::explain;
use super::roll::Place;
use crate::base::{ContainerId, Error, Result};

/// An exclusive lock; dropping it lets go, unless a forked process shares it.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
    /// On the roll of such locks.
    place: Option<Place>,
}

/// Container ids, as bytes: to write a thousand of them out takes its time.
pub type Held = HashSet<[u8; 32]>;

/// The files in a folder, as they were at one moment.
#[derive(Debug, Default)]
pub struct Survey {
    /// Those whose names are ids.
    pub held: Held,
    /// Names. Files without a lock are among them.
    pub free: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    Yes,
    No,
}

impl Lock {
    /// Waits for the lock. Makes the file (mode 0600) when it is not there.
    pub fn acquire(path: &Path) -> Result<Self> {
        loop {
            if let Some(lock) = Self::attempt(path, Wait::Yes)? {
                return Ok(lock);
            }
        }
    }

    /// `None` when somebody else holds it.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>> {
        Self::attempt(path, Wait::No)
    }

    fn attempt(path: &Path, wait: Wait) -> Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(path)
                .map_err(|e| io("lock", path, &e))?;
            match set(&file, wait) {
                Ok(()) => {}
                Err(Errno::EAGAIN | Errno::EACCES) if wait == Wait::No => return Ok(None),
                Err(errno) => return Err(explain("lock", path, errno)),
            }
            if same_file(&file, path)? {
                let path = path.to_owned();
                return Ok(Some(Self {
                    file,
                    path,
                    place: None,
                }));
            }
        }
    }

    /// Is it held by anyone (the caller included)? Takes nothing; an absent
    /// file is not held.
    pub fn is_held(path: &Path) -> Result<bool> {
        let file = match OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
        {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(io("test lock", path, &e)),
        };
        is_locked(&file).map_err(|errno| explain("test lock", path, errno))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which files in a folder are locked. What is no file, or cannot be asked,
    /// counts as free: whoever tries to lock it learns why. An absent folder has
    /// none.
    ///
    /// Each is asked. The kernel's table of all locks, /proc/locks, would say it
    /// at once, but to read it is to wait for an RCU grace period (`file_rwsem`
    /// in fs/locks.c): some 15 ms, in which a thousand can be asked.
    pub fn survey(folder: &Path) -> Result<Survey> {
        let list = |e: std::io::Error| io("list", folder, &e);
        let mut survey = Survey::default();
        let entries = match std::fs::read_dir(folder) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(survey),
            other => other.map_err(list)?,
        };
        let at = File::open(folder).map_err(list)?;
        for entry in entries {
            let name = entry.map_err(list)?.file_name();
            let file = openat(
                &at,
                &*name,
                OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
                Mode::empty(),
            );
            let is_held = file.and_then(|file| is_locked(&file)).unwrap_or(false);
            if let Ok(name) = name.into_string() {
                if is_held {
                    survey
                        .held
                        .extend(ContainerId::new(name).ok().map(|id| id.to_bytes()));
                } else {
                    survey.free.push(name);
                }
            }
        }
        Ok(survey)
    }

    pub(super) fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// In a forked process, which has the lock as well: from now on its end is
    /// what counts.
    pub fn adopt(&mut self) -> Result<()> {
        if let Some(place) = &self.place {
            self.place = Some(place.adopt()?);
        }
        Ok(())
    }

    /// Before that process ends without having removed the file: whom it has the
    /// lock from does that.
    pub fn hand_back(&mut self) -> Result<()> {
        self.place.as_mut().map_or(Ok(()), Place::unmark)
    }

    /// What the file says (lease files say whose they are).
    pub fn read(&self) -> Result<Vec<u8>> {
        let fail = |e: std::io::Error| io("read", &self.path, &e);
        let length = self.file.metadata().map_err(fail)?.len();
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let mut filled = 0;
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(fail(e)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Replaces what the file says, in place: the inode carries the lock.
    /// A reader without the lock may see a part.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let fail = |e: std::io::Error| io("write", &self.path, &e);
        self.file.write_all_at(bytes, 0).map_err(fail)?;
        self.file.set_len(bytes.len() as u64).map_err(fail)
    }

    /// A part of it.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|e| io("write", &self.path, &e))
    }

    /// Removes the file while it is still locked, then lets go.
    pub fn unlink(mut self) -> Result<()> {
        self.remove()
    }

    /// Removes the file, which is locked on until the lock is dropped.
    pub fn remove(&mut self) -> Result<()> {
        super::file::remove(&self.path)?;
        self.place.take().map_or(Ok(()), Place::free)
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

// The constants are small; libc types them wider than the field they are for.
#[allow(clippy::cast_possible_truncation)]
const EXCLUSIVE: libc::c_short = libc::F_WRLCK as libc::c_short;
#[allow(clippy::cast_possible_truncation)]
const UNLOCKED: libc::c_short = libc::F_UNLCK as libc::c_short;

fn whole_file(kind: libc::c_short) -> libc::flock {
    libc::flock {
        l_type: kind,
        l_whence: 0, // SEEK_SET
        l_start: 0,
        l_len: 0, // to the end, however far
        l_pid: 0, // demanded of OFD locks
    }
}

fn set(file: &File, wait: Wait) -> nix::Result<()> {
    let range = whole_file(EXCLUSIVE);
    loop {
        let done = match wait {
            Wait::Yes => fcntl(file, FcntlArg::F_OFD_SETLKW(&range)),
            Wait::No => fcntl(file, FcntlArg::F_OFD_SETLK(&range)),
        };
        match done {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

fn is_locked(file: &impl AsFd) -> nix::Result<bool> {
    let mut range = whole_file(EXCLUSIVE);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut range))?;
    Ok(range.l_type != UNLOCKED)
}

/// Does the name still lead to the file that was locked?
fn same_file(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().map_err(|e| io("lock", path, &e))?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((ours.dev(), ours.ino()) == (named.dev(), named.ino())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(io("lock", path, &e)),
    }
}

fn io(op: &'static str, path: &Path, error: &std::io::Error) -> Error {
    explain(
        op,
        path,
        Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excludes_others_and_can_be_tested_without_being_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!Lock::is_held(&path).unwrap());
        let lock = Lock::try_acquire(&path).unwrap().unwrap();
        assert!(Lock::is_held(&path).unwrap());
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        let second = lock.file().try_clone().unwrap();
        drop(lock);
        assert!(
            Lock::is_held(&path).unwrap(),
            "who has the open file shares it"
        );
        drop(second);
        assert!(!Lock::is_held(&path).unwrap());
        Lock::acquire(&path).unwrap();
    }

    #[test]
    fn holds_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lease");
        let lock = Lock::acquire(&path).unwrap();
        assert_eq!(lock.read().unwrap(), b"");
        lock.write(b"a longer text").unwrap();
        lock.write(b"short").unwrap();
        assert_eq!(lock.read().unwrap(), b"short");
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
        lock.unlink().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_survey_tells_free_files_from_held_ones() {
        let dir = tempfile::tempdir().unwrap();
        let count = |path: &Path| {
            let survey = Lock::survey(path).unwrap();
            (survey.held.len(), survey.free.len())
        };
        assert_eq!(count(&dir.path().join("none")), (0, 0));
        assert_eq!(count(dir.path()), (0, 0));
        let id = |n: u8| ContainerId::from_bytes([n; 32]);
        let mut locks: Vec<Lock> = (0..100)
            .map(|n| Lock::acquire(&dir.path().join(id(n).as_str())).unwrap())
            .collect();
        assert_eq!(count(dir.path()), (100, 0));
        locks.remove(42);
        let survey = Lock::survey(dir.path()).unwrap();
        assert_eq!(
            (survey.held.len(), survey.free),
            (99, vec![String::from(id(42))])
        );
        std::os::unix::fs::symlink("/nowhere", dir.path().join("link")).unwrap();
        assert_eq!(count(dir.path()), (99, 2));
    }

    /// A waiter must never end up with the lock of an unlinked file.
    #[test]
    fn a_replaced_file_is_locked_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..500 {
                        let lock = Lock::acquire(&path).unwrap();
                        let n = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(n, 0, "two holders");
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        lock.unlink().unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn no_link_is_followed_and_errors_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("link");
        std::os::unix::fs::symlink("/nowhere", &path).unwrap();
        assert!(Lock::acquire(&path).unwrap_err().is_errno(libc::ELOOP));
        let error = Lock::acquire(&dir.path().join("no/lock")).unwrap_err();
        assert!(error.to_string().contains("no/lock"), "{error}");
    }
}
