//! Files and folders of the state: replaced atomically, read strictly,
//! removed without leaving their folder.
//!
//! *Theory of operation.* A reader sees the old content or the new, never a
//! part. The new content is written to a nameless file (O_TMPFILE), synced if
//! it must survive a power cut, and only then given a name. A path that does
//! not exist yet is linked directly; an existing one is renamed over from
//! `.NAME~` in the same folder. A `kill -9` in between leaves at most that one
//! hidden, complete file, which the next `replace` takes away; whoever lists a
//! state folder skips names that begin with a dot.
//!
//! Removing works through folder fds: no symbolic link is followed and no
//! mount is entered (openat2 with RESOLVE_NO_XDEV, which also sees bind mounts
//! of the same device), whatever a container did to its files meanwhile.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::dir::{Dir, OwningIter, Type};
use nix::errno::Errno;
use nix::fcntl::{self, AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, mkdir, unlinkat};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::base::error::IntoErrno;
use crate::base::{Error, Result};

/// What a file's content must survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: file and folder are synced (about 200 µs).
    Disk,
    /// The end of this process: content that dies with the boot anyway.
    Boot,
}

/// Replaces `path` by a file with this content, mode 0600, or changes nothing.
pub fn replace(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let fail = |errno: Errno| explain("write", path, errno);

    loop {
        let mut file = match nameless(folder) {
            Ok(file) => file,
            Err(Errno::EOPNOTSUPP | Errno::EISDIR) => {
                return replace_named(path, folder, bytes, durability);
            }
            Err(errno) => return Err(fail(errno)),
        };
        file.write_all(bytes).map_err(|e| fail(errno_of(&e)))?;
        if durability == Durability::Disk {
            file.sync_all().map_err(|e| fail(errno_of(&e)))?;
        }
        match give_name(&file, path) {
            Ok(()) => break,
            // Another writer took our temporary name away, and a file that
            // has lost its last name cannot get a new one: write it again.
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(fail(errno)),
        }
    }
    if durability == Durability::Disk {
        sync_folder(folder)?;
    }
    Ok(())
}

fn nameless(folder: &Path) -> nix::Result<File> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    fcntl::open(folder, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
}

/// Links the nameless file to `path`, over what may be there.
fn give_name(file: &File, path: &Path) -> nix::Result<()> {
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |target: &Path| {
        linkat(
            AT_FDCWD,
            source.as_str(),
            AT_FDCWD,
            target,
            AtFlags::AT_SYMLINK_FOLLOW,
        )
    };
    match link(path) {
        Err(Errno::EEXIST) => {}
        other => return other,
    }
    let temporary = beside(path, "");
    while let Err(errno) = link(&temporary) {
        if errno != Errno::EEXIST {
            return Err(errno);
        }
        absent_is_fine(nix::unistd::unlink(&temporary))?;
    }
    fcntl::renameat(AT_FDCWD, &temporary, AT_FDCWD, path).inspect_err(|_| {
        // The old content still stands.
        let _ = nix::unistd::unlink(&temporary);
    })
}

/// For file systems without O_TMPFILE.
fn replace_named(path: &Path, folder: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let temporary = beside(path, &std::process::id().to_string());
    let fail = |errno: Errno| explain("write", path, errno);
    let write = || -> std::io::Result<()> {
        let flags = OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_WRONLY | OFlag::O_NOFOLLOW;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut file = File::from(fcntl::open(&temporary, flags | OFlag::O_CLOEXEC, mode)?);
        file.write_all(bytes)?;
        if durability == Durability::Disk {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, path)
    };
    if let Err(error) = write() {
        // The old content still stands; a leftover is hidden and harmless.
        let _ = nix::unistd::unlink(&temporary);
        return Err(fail(errno_of(&error)));
    }
    if durability == Durability::Disk {
        sync_folder(folder)?;
    }
    Ok(())
}

/// `.NAME~` (or `.NAME.TAG~`) in the same folder.
fn beside(path: &Path, tag: &str) -> std::path::PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    if !tag.is_empty() {
        name.push(".");
        name.push(tag);
    }
    name.push("~");
    path.with_file_name(name)
}

fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|e| explain("sync", folder, errno_of(&e)))
}

/// [`replace`] with the value as JSON.
pub fn write_json<T: Serialize + ?Sized>(
    path: &Path,
    value: &T,
    durability: Durability,
) -> Result<()> {
    let mut bytes = serde_json::to_vec(value).map_err(|e| Error::parse("write", path, e))?;
    bytes.push(b'\n');
    replace(path, &bytes, durability)
}

/// Reads a JSON file that may not be there. One that is cut off or was edited
/// wrongly is an error that names the place.
pub fn find_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match read(path) {
        Ok(bytes) => parse_json(path, &bytes).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(explain("read", path, errno_of(&e))),
    }
}

/// A state file is small, and never written in place: most take one read(2),
/// since a regular file that gives less than there is room for has no more.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let (mut bytes, mut filled) = (vec![0; 8192], 0);
    loop {
        match file.read(&mut bytes[filled..]) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            read => filled += read?,
        }
        if filled < bytes.len() {
            bytes.truncate(filled);
            return Ok(bytes);
        }
        bytes.resize(bytes.len() * 2, 0);
    }
}

/// Parses the content of `path`, for those who have read it already.
pub fn parse_json<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let why = if bytes.is_empty() {
            "the file is empty".to_owned()
        } else if error.is_eof() {
            format!("the file is cut off: {error}")
        } else {
            error.to_string()
        };
        damaged(path, why)
    })
}

/// The content of a file is not what this program writes.
pub fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::parse("read", path, why)
        .hint("correct the file, put back a copy of it, or remove it and create its object again")
}

/// Makes a folder and the ones above it, all with this mode (0711 for what
/// others pass through, 0700 for the rest) whatever the umask. One that
/// exists stays as it is.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let mut made = make_one(path, mode);
    if made == Err(Errno::ENOENT)
        && let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty())
    {
        make_dir(parent, mode)?;
        made = make_one(path, mode);
    }
    made.map_err(|errno| explain("make folder", path, errno))
}

fn make_one(path: &Path, mode: u32) -> nix::Result<()> {
    match mkdir(path, Mode::from_bits_truncate(mode)) {
        Ok(()) => std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
            .map_err(|e| errno_of(&e)),
        Err(Errno::EEXIST) => match std::fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(Errno::ENOTDIR),
            Err(e) => Err(errno_of(&e)),
        },
        Err(errno) => Err(errno),
    }
}

/// Removes a file, and what a killed [`replace`] of it may have left; absent
/// is fine. The file goes last: as long as it is there, somebody comes again.
pub fn remove_replaced(path: &Path) -> Result<()> {
    remove(&beside(path, ""))?;
    remove(path)
}

/// Removes a file; absent is fine.
pub fn remove(path: &Path) -> Result<()> {
    absent_is_fine(nix::unistd::unlink(path)).map_err(|e| explain("remove", path, e))
}

/// Removes a folder (or file) and all below it; absent is fine. What is
/// mounted there is neither entered nor detached: it is an error, and the
/// rest is removed nevertheless.
pub fn remove_tree(path: &Path) -> Result<()> {
    match unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTDIR) => return remove(path),
        Err(_) => {}
    }
    let emptied = match open_below_parent(path) {
        Ok(top) => Emptying::run(top),
        Err(errno) => Err(errno),
    };
    let removed = absent_is_fine(unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir));
    match (emptied, removed) {
        (_, Ok(())) => Ok(()),
        // What is inside says more than "directory not empty".
        (Err(errno), _) | (Ok(()), Err(errno)) => Err(explain("remove", path, errno)),
    }
}

/// Opens a folder unless something is mounted on it or it is a link.
fn open_below_parent(path: &Path) -> nix::Result<OwnedFd> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = fcntl::open(parent.unwrap_or(Path::new(".")), flags, Mode::empty())?;
    open_folder(parent, path.file_name().ok_or(Errno::EINVAL)?)
}

fn open_folder<P: ?Sized + nix::NixPath>(parent: impl AsFd, name: &P) -> nix::Result<OwnedFd> {
    let stay = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
    fcntl::openat2(parent, name, OpenHow::new().flags(FOLDER).resolve(stay))
}

/// Empties a folder iteratively: a container can nest folders deeper than any
/// stack or fd limit.
struct Emptying {
    stack: Vec<Level>,
    /// Folders lifted to the top so far, to name the next one.
    lifted: u32,
    /// The first thing that could not be removed.
    failed: Option<Errno>,
}

/// A folder being read. Its entries are not collected: there may be millions.
struct Level {
    fd: OwnedFd,
    entries: OwningIter,
    name: CString,
}

impl Level {
    fn new(fd: OwnedFd, name: CString) -> nix::Result<Self> {
        let entries = Dir::from_fd(fd.try_clone().map_err(|e| errno_of(&e))?)?.into_iter();
        Ok(Self { fd, entries, name })
    }
}

/// Folders open at once; deeper ones are moved up to the top first.
const MAX_DEPTH: usize = 48;

impl Emptying {
    fn run(top: OwnedFd) -> nix::Result<()> {
        let mut this = Self {
            stack: Vec::new(),
            lifted: 0,
            failed: None,
        };
        // A further pass sees what was lifted. `top` keeps its own position,
        // so each pass reads a fresh description of it.
        loop {
            let fresh = fcntl::openat(&top, ".", FOLDER, Mode::empty())?;
            this.stack.push(Level::new(fresh, CString::default())?);
            let before = this.lifted;
            this.pass(&top);
            match this.failed {
                Some(errno) => return Err(errno),
                None if this.lifted == before => return Ok(()),
                None => {}
            }
        }
    }

    fn pass(&mut self, top: &OwnedFd) {
        while let Some(level) = self.stack.last_mut() {
            match level.entries.next() {
                Some(Ok(entry)) => {
                    let name = entry.file_name();
                    if name.to_bytes() != b"." && name.to_bytes() != b".." {
                        self.remove(name, entry.file_type(), top);
                    }
                }
                Some(Err(errno)) => {
                    self.note(errno);
                    self.leave();
                }
                None => self.leave(),
            }
        }
    }

    fn remove(&mut self, name: &CStr, kind: Option<Type>, top: &OwnedFd) {
        let Some(Level { fd, .. }) = self.stack.last() else {
            return;
        };
        let plain = match kind {
            Some(Type::Directory) => Err(Errno::EISDIR),
            _ => unlinkat(fd, name, UnlinkatFlags::NoRemoveDir),
        };
        match plain {
            Ok(()) | Err(Errno::ENOENT) => return,
            Err(Errno::EISDIR) => {}
            Err(errno) => return self.note(errno),
        }
        // Most are empty, which saves opening them.
        let done = match unlinkat(fd, name, UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) if self.stack.len() < MAX_DEPTH => {
                open_folder(fd, name)
                    .and_then(|inner| Level::new(inner, name.to_owned()))
                    .map(|level| self.stack.push(level))
            }
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                // The pid keeps it apart from what a killed predecessor lifted.
                let up = format!(".deep.{}.{}", std::process::id(), self.lifted);
                self.lifted += 1;
                fcntl::renameat(fd, name, top, up.as_str())
            }
            other => absent_is_fine(other),
        };
        if let Err(errno) = done {
            self.note(errno);
        }
    }

    /// The folder is read to its end: go up and take it away.
    fn leave(&mut self) {
        let Some(done) = self.stack.pop() else {
            return;
        };
        if let Some(parent) = self.stack.last() {
            let gone = unlinkat(&parent.fd, done.name.as_c_str(), UnlinkatFlags::RemoveDir);
            if let Err(errno) = absent_is_fine(gone) {
                self.note(errno);
            }
        }
    }

    fn note(&mut self, errno: Errno) {
        self.failed.get_or_insert(errno);
    }
}

const FOLDER: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_RDONLY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

fn absent_is_fine(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// A failed call on a state file, with what to do about it.
pub fn explain(op: &'static str, path: &Path, errno: impl IntoErrno) -> Error {
    let error = Error::sys(op, path, errno);
    match Errno::from_raw(error.errno().unwrap_or_default()) {
        Errno::ENOSPC | Errno::EDQUOT => {
            error.hint("free some space there, or move the state with --root and --state")
        }
        Errno::EROFS => error.hint("mounted read-only: move the state with --root and --state"),
        Errno::EACCES | Errno::EPERM => error.hint(super::dirs::permission_hint()),
        Errno::EBUSY | Errno::EXDEV => {
            error.hint("something is mounted there: see /proc/self/mountinfo, unmount it, repeat")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Sample {
        name: String,
        count: u32,
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replace_is_atomic_private_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for durability in [Durability::Boot, Durability::Disk, Durability::Boot] {
            let before = std::fs::metadata(&path).map(|m| m.ino()).ok();
            replace(&path, format!("{durability:?}").as_bytes(), durability).unwrap();
            let meta = std::fs::metadata(&path).unwrap();
            assert_eq!(meta.mode() & 0o7777, 0o600);
            assert_ne!(Some(meta.ino()), before, "written in place");
            assert_eq!(
                std::fs::read_to_string(&path).unwrap(),
                format!("{durability:?}")
            );
            assert_eq!(names(dir.path()), ["a.json"]);
        }
        // What a killed predecessor left is taken away.
        std::fs::write(dir.path().join(".a.json~"), "old").unwrap();
        replace(&path, b"new", Durability::Boot).unwrap();
        assert_eq!(names(dir.path()), ["a.json"]);
        replace_named(&path, dir.path(), b"named", Durability::Disk).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"named");
        assert_eq!(names(dir.path()), ["a.json"]);
    }

    #[test]
    fn concurrent_writers_leave_one_whole_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::thread::scope(|s| {
            for n in 0..4u8 {
                let path = &path;
                s.spawn(move || {
                    for _ in 0..300 {
                        replace(path, &[n; 5000], Durability::Boot).unwrap();
                    }
                });
            }
            for _ in 0..300 {
                if let Ok(bytes) = std::fs::read(&path) {
                    assert_eq!(bytes.len(), 5000);
                    assert!(bytes.iter().all(|b| *b == bytes[0]));
                }
            }
        });
    }

    #[test]
    fn errors_name_path_and_next_step() {
        let error = replace(Path::new("/dev/full/x"), b"", Durability::Boot).unwrap_err();
        assert!(error.to_string().contains("/dev/full/x"), "{error}");
        assert!(error.is_errno(libc::ENOTDIR), "{error}");
        let error = explain("write", Path::new("/x"), Errno::ENOSPC);
        assert!(error.to_string().contains("--state"), "{error}");
    }

    #[test]
    fn read_takes_files_of_any_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for length in [0, 1, 8191, 8192, 8193, 16384, 100_000] {
            let content: Vec<u8> = (0..=255).cycle().take(length).collect();
            std::fs::write(&path, &content).unwrap();
            assert_eq!(read(&path).unwrap(), content, "{length}");
        }
    }

    #[test]
    fn json_is_read_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(find_json::<Sample>(&path).unwrap(), None);
        let sample = Sample {
            name: "x".into(),
            count: 3,
        };
        write_json(&path, &sample, Durability::Boot).unwrap();
        assert_eq!(find_json::<Sample>(&path).unwrap(), Some(sample));
        for (content, says) in [
            ("", "empty"),
            ("{\"name\":\"x\",", "cut off"),
            ("{\"name\":\"x\",\n\"count\":\"3\"}", "line 2 column 11"),
            ("{\"name\":\"x\",\"count\":3} }", "line 1 column"),
        ] {
            std::fs::write(&path, content).unwrap();
            let text = find_json::<Sample>(&path).unwrap_err().to_string();
            assert!(text.contains(says), "{text}");
            assert!(text.contains("a.json"), "{text}");
        }
    }

    #[test]
    fn make_dir_sets_the_mode_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        make_dir(&path, 0o711).unwrap();
        make_dir(&path, 0o700).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o711);
        std::fs::write(dir.path().join("f"), "").unwrap();
        let error = make_dir(&dir.path().join("f"), 0o700).unwrap_err();
        assert!(error.is_errno(libc::ENOTDIR), "{error}");
    }

    #[test]
    fn remove_tree_stays_inside_and_takes_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "").unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        symlink(&outside, tree.join("link")).unwrap();
        for n in 0..1500 {
            std::fs::write(tree.join(n.to_string()), "").unwrap();
        }
        // Deeper than a path, an fd table or a stack would take.
        let mut at = std::fs::File::open(&tree).map(OwnedFd::from).unwrap();
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            fcntl::openat(&at, "f", OFlag::O_CREAT, Mode::S_IRUSR).unwrap();
            at = fcntl::openat(&at, "d", FOLDER, Mode::empty()).unwrap();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert_eq!(names(dir.path()), ["outside"]);
        assert_eq!(names(&outside), ["kept"]);

        remove_tree(&tree).unwrap();
        symlink(&outside, dir.path().join("link")).unwrap();
        remove_tree(&dir.path().join("link")).unwrap();
        assert_eq!(names(dir.path()), ["outside"]);
        std::fs::write(dir.path().join("f"), "").unwrap();
        remove_tree(&dir.path().join("f")).unwrap();
        remove_tree(&dir.path().join("f/g")).unwrap_or_default();
        assert_eq!(names(&outside), ["kept"]);
    }
}
