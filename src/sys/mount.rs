//! Mounts through fds: the new mount API, pivot_root, masks.
//!
//! # Theory of operation
//! A mount is made detached ([`Filesystem::mount`], [`Mount::bind`]), gets its
//! attributes while nobody can see it, and is then attached onto a [`Rooted`]
//! fd: no path is looked up at that moment, so nothing in an image can divert
//! it. A detached mount that is dropped is gone.
//!
//! Read-only is set by mount_setattr(2), never by a remount: in a user
//! namespace the flags inherited from the host (nosuid, nodev, …) are locked,
//! and a remount must name all of them while an attribute adds one.
//!
//! Needs Linux 5.12 (mount_setattr).

use std::ffi::{CStr, CString};
use std::ops::BitOr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{major, minor};
use nix::unistd::{chdir, fchdir};

use super::raw;
pub use super::rooted::Rooted;
use crate::base::{Error, Result, Subject};

/// Attributes of a mount, MOUNT_ATTR_*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attrs(u64);

impl Attrs {
    pub const NONE: Self = Self(0);
    pub const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    pub const NOSUID: Self = Self(libc::MOUNT_ATTR_NOSUID);
    pub const NODEV: Self = Self(libc::MOUNT_ATTR_NODEV);
    pub const NOEXEC: Self = Self(libc::MOUNT_ATTR_NOEXEC);
    pub const STRICTATIME: Self = Self(libc::MOUNT_ATTR_STRICTATIME);
    /// Files to read and write, nothing that acts: nosuid, nodev, noexec.
    pub const INERT: Self = Self(Self::NOSUID.0 | Self::NODEV.0 | Self::NOEXEC.0);
}

impl BitOr for Attrs {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A file system being configured: fsopen(2).
#[derive(Debug)]
pub struct Filesystem {
    context: OwnedFd,
    kind: &'static CStr,
    source: &'static CStr,
}

impl Filesystem {
    pub fn new(kind: &'static CStr) -> Result<Self> {
        let context = raw::fsopen(kind).map_err(|e| {
            let error = Error::sys("mount", name(kind), e);
            match e {
                Errno::ENODEV => error.hint("this kernel does not have that file system"),
                Errno::ENOSYS => error.hint("needs Linux 5.12 or newer"),
                _ => error,
            }
        })?;
        Ok(Self {
            context,
            kind,
            source: kind,
        })
    }

    /// The network namespace's, read-only as a whole: whoever makes it first says
    /// which, for all of its mounts.
    pub fn sysfs() -> Result<Self> {
        Self::new(c"sysfs")?.flag(c"ro")
    }

    /// What mount tables (`df`) show as its source: its kind, unless told
    /// otherwise.
    #[must_use]
    pub fn named(mut self, source: &'static CStr) -> Self {
        self.source = source;
        self
    }

    /// An option with a value: `size=64m` is `("size", "64m")`.
    pub fn set(self, key: &CStr, value: &CStr) -> Result<Self> {
        self.configure(libc::FSCONFIG_SET_STRING, Some(key), Some(value))?;
        Ok(self)
    }

    /// An option without a value.
    pub fn flag(self, key: &CStr) -> Result<Self> {
        self.configure(libc::FSCONFIG_SET_FLAG, Some(key), None)?;
        Ok(self)
    }

    /// Makes the file system and no mount of it. While this is open, it is there
    /// for whoever mounts it next.
    pub fn keep(self) -> Result<OwnedFd> {
        self.configure(libc::FSCONFIG_CMD_CREATE, None, None)?;
        Ok(self.context)
    }

    /// Makes the file system and a detached mount of it.
    pub fn mount(self, attrs: Attrs) -> Result<Mount> {
        let source = (Some(c"source"), Some(self.source));
        self.configure(libc::FSCONFIG_SET_STRING, source.0, source.1)?;
        self.configure(libc::FSCONFIG_CMD_CREATE, None, None)?;
        raw::fsmount(self.context.as_fd(), attrs.0)
            .map(Mount)
            .map_err(|e| self.explain(e))
    }

    fn configure(&self, command: u32, key: Option<&CStr>, value: Option<&CStr>) -> Result<()> {
        raw::fsconfig(self.context.as_fd(), command, key, value).map_err(|e| self.explain(e))
    }

    /// The errno with what the kernel wrote about it into the context.
    fn explain(&self, errno: Errno) -> Error {
        let error = Error::sys("mount", name(self.kind), errno);
        let mut log = Vec::new();
        let mut line = [0; 512];
        // Each read gives one message, `e <text>` or `w <text>`; ENODATA ends.
        while let Ok(n) = nix::unistd::read(&self.context, &mut line) {
            let text = String::from_utf8_lossy(&line[..n]);
            log.push(text.trim().get(2..).unwrap_or_default().to_owned());
        }
        if log.is_empty() {
            error
        } else {
            error.hint(log.join("; "))
        }
    }
}

/// A mount by fd; detached until it is attached.
#[derive(Debug)]
pub struct Mount(OwnedFd);

impl Mount {
    /// A detached copy of the mount at `source`, with (`recursive`) or without
    /// what is mounted below it.
    pub fn bind(source: impl AsFd, recursive: bool) -> Result<Self> {
        raw::open_tree(
            source.as_fd(),
            c"",
            libc::OPEN_TREE_CLONE | empty_path() | if recursive { RECURSIVE } else { 0 },
        )
        .map(Self)
        .map_err(|e| Error::sys("bind mount", Subject::None, e))
    }

    /// The same for a host path of our own: its links count.
    pub fn bind_path(source: &Path, recursive: bool) -> Result<Self> {
        let path = c_path(source)?;
        raw::open_tree(
            AT_FDCWD,
            &path,
            libc::OPEN_TREE_CLONE | if recursive { RECURSIVE } else { 0 },
        )
        .map(Self)
        .map_err(|e| Error::sys("bind mount", source, e))
    }

    /// Adds attributes to this mount (and all below it).
    pub fn set(&self, attrs: Attrs, recursive: bool) -> Result<()> {
        let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
        raw::mount_setattr(self.as_fd(), c"", flags, attrs.0, 0, 0)
            .map_err(|e| Error::sys("set mount attributes", Subject::None, e))
    }

    /// Mounts it over `onto`. The fd goes on to stand for the mount's root.
    pub fn attach(&self, onto: impl AsFd) -> Result<()> {
        raw::move_mount(self.as_fd(), onto.as_fd())
            .map_err(|e| Error::sys("attach mount", Subject::None, e))
    }

    /// The mount's root folder as a root of lookups.
    pub fn into_root(self) -> Rooted {
        Rooted::from_fd(self.0)
    }
}

impl From<Mount> for OwnedFd {
    fn from(mount: Mount) -> Self {
        mount.0
    }
}

impl AsFd for Mount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const RECURSIVE: u32 = libc::AT_RECURSIVE.unsigned_abs();

const fn empty_path() -> u32 {
    libc::AT_EMPTY_PATH.unsigned_abs()
}

/// Which way mounts travel between this namespace's copies and their origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The host's later mounts and unmounts arrive, ours do not leave.
    Slave,
    Private,
}

/// Sets it for every mount of the calling process's namespace.
pub fn propagate(how: Propagation) -> Result<()> {
    let bits = match how {
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Private => libc::MS_PRIVATE,
    };
    raw::mount_setattr(AT_FDCWD, c"/", libc::AT_RECURSIVE, 0, 0, bits)
        .map_err(|e| Error::sys("set mount propagation", Path::new("/"), e))
}

/// Makes `root`, the root of an attached mount, the process's `/` and lets go
/// of the old one. Ends in `/`.
///
/// pivot_root of `.` on `.` needs no folder to put the old root into: it ends
/// up mounted over the new one, from where it is detached.
pub fn pivot(root: impl AsFd) -> Result<()> {
    let fail = |op| move |errno| Error::sys(op, Subject::None, errno);
    fchdir(&root).map_err(fail("enter new root"))?;
    raw::pivot_root_here().map_err(fail("pivot root"))?;
    umount2(c".", MntFlags::MNT_DETACH).map_err(fail("detach old root"))?;
    chdir(c"/").map_err(fail("enter new root"))
}

/// Hides each path: an empty read-only folder over folders, /dev/null over
/// the rest. What is absent needs no hiding.
pub fn mask(root: &Rooted, paths: &[impl AsRef<str>]) -> Result<()> {
    let mut null = None;
    let mut empty: Option<Mount> = None;
    for path in paths.iter().map(AsRef::as_ref) {
        let Some(target) = root.find(Path::new(path))? else {
            continue;
        };
        if !target.is_dir()? {
            let null = match &null {
                Some(fd) => fd,
                None => null.insert(null_device(root)?),
            };
            Mount::bind(null, false)?
                .attach(&target)
                .map_err(|e| about(e, path))?;
        } else if let Some(first) = &empty {
            // One file system for all folders: a bind mount costs a tenth.
            Mount::bind(first, false)?
                .attach(&target)
                .map_err(|e| about(e, path))?;
        } else {
            let first = Filesystem::new(c"tmpfs")?
                .flag(c"ro")?
                .mount(Attrs::READ_ONLY)?;
            first.attach(&target).map_err(|e| about(e, path))?;
            empty = Some(first);
        }
    }
    Ok(())
}

/// Makes each path read-only, with all below it. What is absent needs none.
pub fn read_only(root: &Rooted, paths: &[&str]) -> Result<()> {
    for path in paths {
        if let Some(target) = root.find(Path::new(path))? {
            let copy = Mount::bind(&target, true).map_err(|e| about(e, path))?;
            copy.set(Attrs::READ_ONLY, true)
                .and_then(|()| copy.attach(&target))
                .map_err(|e| about(e, path))?;
        }
    }
    Ok(())
}

/// The container's own /dev/null, if it is that: binding another file over
/// the masked ones would give an image a hold on them.
fn null_device(root: &Rooted) -> Result<Rooted> {
    let null = root.open(Path::new("/dev/null"))?;
    let stat = null.stat()?;
    if (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3)
        && stat.st_mode & libc::S_IFMT == libc::S_IFCHR
    {
        Ok(null)
    } else {
        Err(Error::state(
            "mask",
            Path::new("/dev/null"),
            "it is not the null device",
        ))
    }
}

/// Undo: detaches whatever is mounted on a host path; nothing is fine.
pub fn detach(path: &Path) -> Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // There may be another one below.
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            Err(e) => return Err(Error::sys("unmount", path, e)),
        }
    }
}

fn about(mut error: Error, path: &str) -> Error {
    error.subject = Path::new(path).into();
    error
}

fn name(kind: &CStr) -> String {
    kind.to_string_lossy().into_owned()
}

fn c_path(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::sys("mount", path, Errno::EINVAL))
}
