//! Files below a container's root, reached without ever leaving it.
//!
//! An image is somebody else's: `/etc` may be a link to `/`, `/proc` a link to
//! the host's `/root`. Every lookup here is one openat2(2) with
//! RESOLVE_IN_ROOT, which reads absolute links and `..` as seen from inside,
//! and yields an O_PATH fd. Whatever happens to the names afterwards, the fd
//! stays what was found.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};

use crate::base::{Error, Result};

/// A file or folder found below a root (or that root itself), as an O_PATH fd.
#[derive(Debug)]
pub struct Rooted(OwnedFd);

fn fail(op: &'static str, path: &Path) -> impl Fn(Errno) -> Error {
    move |errno| Error::sys(op, path, errno)
}

const FOLDER: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);

/// As many links as the kernel follows in one lookup.
const MAX_LINKS: u32 = 40;

/// Where the link at `path` (its last part is in `parent`) points to, as a
/// path below the same root; `None` if it is no link.
fn link_target(parent: &Rooted, path: &Path, links: u32) -> Result<Option<PathBuf>> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    match readlinkat(parent, name) {
        Ok(_) if links == 0 => Err(fail("open in the container", path)(Errno::ELOOP)),
        Ok(target) => Ok(Some(path.parent().unwrap_or(Path::new("/")).join(target))),
        Err(Errno::EINVAL) => Ok(None),
        Err(e) => Err(fail("read link in the container", path)(e)),
    }
}

impl Rooted {
    /// A host folder as a root. The path is the caller's own: its links count.
    pub fn root(path: &Path) -> Result<Self> {
        open(
            path,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map(Self)
        .map_err(fail("open root folder", path))
    }

    /// An O_PATH fd (or a mount's) that is known to be a root.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// `path` below this root, links followed inside it.
    pub fn open(&self, path: &Path) -> Result<Self> {
        self.lookup(path, OFlag::O_PATH)
            .map(Self)
            .map_err(fail("open in the container", path))
    }

    /// Like [`Rooted::open`]; `None` for what does not exist.
    pub fn find(&self, path: &Path) -> Result<Option<Self>> {
        match self.lookup(path, OFlag::O_PATH) {
            Ok(fd) => Ok(Some(Self(fd))),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(e) => Err(fail("open in the container", path)(e)),
        }
    }

    /// A regular file's contents, to read; `None` when there is none. A fifo
    /// or device of the image's cannot block or act: it is not opened.
    pub fn read(&self, path: &Path) -> Result<Option<File>> {
        let Some(found) = self.find(path)? else {
            return Ok(None);
        };
        if found.kind()? != SFlag::S_IFREG {
            return Ok(None);
        }
        // By the same rules again, as an O_PATH fd itself cannot be read. What
        // may have changed in between is only the image's own affair:
        // O_NONBLOCK keeps a fifo from blocking.
        self.lookup(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
            .map(|fd| Some(File::from(fd)))
            .map_err(fail("read in the container", path))
    }

    /// The folder `path`, made with its parents where missing; a link to
    /// nowhere gets the folder it points to.
    pub fn dir(&self, path: &Path, mode: u32) -> Result<Self> {
        self.dir_behind(path, mode, MAX_LINKS)
    }

    fn dir_behind(&self, path: &Path, mode: u32, links: u32) -> Result<Self> {
        match self.lookup(path, FOLDER) {
            Ok(fd) => return Ok(Self(fd)),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(fail("open folder in the container", path)(e)),
        }
        // Not from one fd to the next: `..` in a path must mean what it means
        // from the root, links included.
        let mut so_far = PathBuf::new();
        let mut parent = Self(
            self.lookup(Path::new("."), FOLDER)
                .map_err(fail("open folder in the container", path))?,
        );
        for name in path.components() {
            so_far.push(name);
            parent = match self.lookup(&so_far, FOLDER) {
                Ok(fd) => Self(fd),
                Err(Errno::ENOENT) => self.make_dir(&parent, &so_far, mode, links)?,
                Err(e) => return Err(fail("open folder in the container", &so_far)(e)),
            };
        }
        Ok(parent)
    }

    /// The last part of `path`, in `parent`, which is there.
    fn make_dir(&self, parent: &Self, path: &Path, mode: u32, links: u32) -> Result<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str());
        match mkdirat(parent, name, Mode::from_bits_truncate(mode)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                if let Some(target) = link_target(parent, path, links)? {
                    return self.dir_behind(&target, mode, links - 1);
                }
            }
            Err(e) => return Err(fail("create folder in the container", path)(e)),
        }
        self.lookup(path, FOLDER)
            .map(Self)
            .map_err(fail("open folder in the container", path))
    }

    /// The folder `name` of this root itself, made where missing. A link in
    /// its place is an error (`ELOOP`): what belongs there would land on
    /// something else.
    pub fn plain_dir(&self, name: &Path, mode: u32) -> Result<Self> {
        let open = || self.resolve(name, FOLDER, ResolveFlag::RESOLVE_NO_SYMLINKS);
        let found = match open() {
            Err(Errno::ENOENT) => mkdirat(self, name, Mode::from_bits_truncate(mode))
                .map_err(fail("create folder in the container", name))
                .map(|()| open())?,
            other => other,
        };
        found
            .map(Self)
            .map_err(fail("open folder in the container", name))
    }

    /// The file `path`, made empty (and its parents as folders) where missing.
    /// What is there already stays, whatever its kind; a link to nowhere gets
    /// the file it points to.
    pub fn file(&self, path: &Path, mode: u32) -> Result<Self> {
        self.file_behind(path, mode, MAX_LINKS)
    }

    fn file_behind(&self, path: &Path, mode: u32, links: u32) -> Result<Self> {
        match self.lookup(path, OFlag::O_PATH) {
            Ok(fd) => return Ok(Self(fd)),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(fail("open in the container", path)(e)),
        }
        let Some(name) = path.file_name() else {
            return Err(fail("create file in the container", path)(Errno::EISDIR));
        };
        let parent = self.dir(path.parent().unwrap_or(Path::new("/")), 0o755)?;
        let mode_bits = Mode::from_bits_truncate(mode);
        // mknod follows no link and opens nothing.
        match mknodat(&parent, name, SFlag::S_IFREG, mode_bits, 0) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                if let Some(target) = link_target(&parent, path, links)? {
                    return self.file_behind(&target, mode, links - 1);
                }
            }
            Err(e) => return Err(fail("create file in the container", path)(e)),
        }
        self.open(path)
    }

    pub fn stat(&self) -> Result<FileStat> {
        fstat(&self.0).map_err(|e| Error::sys("stat", "a file in the container", e))
    }

    pub fn is_dir(&self) -> Result<bool> {
        Ok(self.kind()? == SFlag::S_IFDIR)
    }

    fn kind(&self) -> Result<SFlag> {
        Ok(SFlag::from_bits_truncate(self.stat()?.st_mode) & SFlag::S_IFMT)
    }

    fn lookup(&self, path: &(impl NixPath + ?Sized), flags: OFlag) -> nix::Result<OwnedFd> {
        self.resolve(path, flags, ResolveFlag::RESOLVE_NO_MAGICLINKS)
    }

    fn resolve(
        &self,
        path: &(impl NixPath + ?Sized),
        flags: OFlag,
        more: ResolveFlag,
    ) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | more);
        // EAGAIN: a rename or mount elsewhere raced with a `..`; the kernel
        // could not prove that the walk stayed inside.
        for _ in 0..128 {
            match openat2(self, path, how) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                other => return other,
            }
        }
        Err(Errno::EAGAIN)
    }
}

impl AsFd for Rooted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Rooted> for OwnedFd {
    fn from(rooted: Rooted) -> Self {
        rooted.0
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn image() -> (tempfile::TempDir, Rooted) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        std::fs::write(dir.path().join("outside"), "secret").unwrap();
        let root = Rooted::root(&dir.path().join("root")).unwrap();
        (dir, root)
    }

    #[test]
    fn links_never_lead_out() {
        let (dir, root) = image();
        let at = |name: &str| dir.path().join("root").join(name);
        symlink("/", at("abs")).unwrap();
        symlink("../../..", at("up")).unwrap();
        symlink(dir.path().join("outside"), at("leak")).unwrap();
        symlink("/proc/self/root", at("magic")).unwrap();
        let ino = root.stat().unwrap().st_ino;
        for path in ["/", "..", "abs", "up", "abs/../up/abs", "/../../abs"] {
            assert_eq!(
                root.open(Path::new(path)).unwrap().stat().unwrap().st_ino,
                ino
            );
        }
        assert!(root.find(Path::new("leak")).unwrap().is_none());
        assert!(root.find(Path::new("magic")).unwrap().is_none());
        assert!(root.read(Path::new("up/../outside")).unwrap().is_none());
    }

    #[test]
    fn folders_and_files_are_made_where_the_links_point_inside() {
        let (dir, root) = image();
        let at = |name: &str| dir.path().join("root").join(name);
        std::fs::create_dir(at("real")).unwrap();
        symlink("/real", at("link")).unwrap();
        root.dir(Path::new("/link/a/../b/c"), 0o755).unwrap();
        assert!(at("real/b/c").is_dir() && at("real/a").is_dir());
        root.file(Path::new("/link/etc/hosts"), 0o644).unwrap();
        assert!(at("real/etc/hosts").is_file());
        std::fs::write(at("real/etc/hosts"), "kept").unwrap();
        root.file(Path::new("real/etc/hosts"), 0o644).unwrap();
        let mut text = String::new();
        let mut file = root.read(Path::new("link/etc/hosts")).unwrap().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
    }

    #[test]
    fn a_link_to_nowhere_leads_to_what_is_made_inside() {
        let (dir, root) = image();
        let at = |name: &str| dir.path().join("root").join(name);
        std::fs::create_dir(at("etc")).unwrap();
        symlink("/nowhere", at("dangling")).unwrap();
        symlink("../run/systemd/resolv.conf", at("etc/resolv.conf")).unwrap();
        root.dir(Path::new("dangling/x"), 0o755).unwrap();
        assert!(at("nowhere/x").is_dir());
        root.file(Path::new("/etc/resolv.conf"), 0o644).unwrap();
        assert!(at("run/systemd/resolv.conf").is_file());
        // Out of the root is into the root.
        symlink("../../../outside2/file", at("up")).unwrap();
        root.file(Path::new("up"), 0o644).unwrap();
        assert!(at("outside2/file").is_file());
        symlink("loop2", at("loop1")).unwrap();
        symlink("loop1", at("loop2")).unwrap();
        for error in [
            root.dir(Path::new("loop1"), 0o755).unwrap_err(),
            root.file(Path::new("loop1/x"), 0o644).unwrap_err(),
        ] {
            assert!(error.is_errno(libc::ELOOP), "{error}");
        }
        // Every step makes the next one longer.
        symlink("grow/x", at("grow")).unwrap();
        assert!(root.dir(Path::new("grow"), 0o755).is_err());
    }

    #[test]
    fn a_plain_folder_is_no_link() {
        let (dir, root) = image();
        let at = |name: &str| dir.path().join("root").join(name);
        std::fs::create_dir(at("real")).unwrap();
        symlink("real", at("link")).unwrap();
        symlink("/", at("slash")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        root.plain_dir(Path::new("real"), 0o755).unwrap();
        root.plain_dir(Path::new("new"), 0o755).unwrap();
        assert!(at("new").is_dir());
        let errno = |name: &str| root.plain_dir(Path::new(name), 0o755).unwrap_err().errno();
        assert_eq!(errno("link"), Some(libc::ELOOP));
        assert_eq!(errno("slash"), Some(libc::ELOOP));
        assert_eq!(errno("file"), Some(libc::ENOTDIR));
    }

    #[test]
    fn a_fifo_does_not_block_and_is_no_file() {
        let (dir, root) = image();
        nix::unistd::mkfifo(&dir.path().join("root/fifo"), Mode::S_IRWXU).unwrap();
        assert!(root.read(Path::new("fifo")).unwrap().is_none());
        assert!(root.find(Path::new("fifo")).unwrap().is_some());
    }
}
