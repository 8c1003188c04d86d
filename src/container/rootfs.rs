//! The root file system: overlay, API file systems, devices, pivot.
//!
//! # Theory of operation
//! Built by the container's first process in its own mount namespace, so all
//! of it ends with that namespace; only the layer's folders are on disk. Each
//! mount is made detached and attached through an fd that was looked up below
//! the new root ([`Rooted`]), so no link of the image leads elsewhere.
//!
//! Three steps, because the network namespace arrives late: [`Rootfs::build`]
//! needs no network and overlaps with its making; sysfs shows the network
//! namespace of whoever mounts it, hence [`Rootfs::mount_sys`] after joining;
//! [`Rootfs::enter`] makes it `/`. What is there then is the list of
//! docker-macvlan.md §10.
//!
//! In a user namespace the kernel refuses device nodes (the host's are
//! bind-mounted), unmapped group ids and, in a network namespace of somebody
//! else, sysfs (the host's is bind-mounted read-only).

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::sys::statvfs::FsFlags;
use nix::unistd::symlinkat;

use super::profile;
use super::spec::RootfsSpec;
use crate::base::{Error, Result};
use crate::store::file;
use crate::sys::features;
use crate::sys::mount::{self, Attrs, Filesystem, Mount, Propagation, Rooted};

/// Docker's device nodes: name, major, minor.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Bind-mounted read-write over the image's, as in Docker.
const ETC: [&str; 3] = ["resolv.conf", "hostname", "hosts"];

/// Where `--init`'s program is mounted.
pub(super) const INIT: &str = "/sbin/docker-init";

/// A root file system under construction: its root, not yet anybody's `/`.
#[derive(Debug)]
pub(super) struct Rootfs {
    root: Rooted,
    dev: Rooted,
}

impl Rootfs {
    /// Everything but /sys. The caller is pid 1 of its pid namespace (whose
    /// /proc this mounts), in a mount namespace of its own, with umask 0.
    pub(super) fn build(spec: &RootfsSpec, cwd: &str) -> Result<Self> {
        Self::built(spec, cwd).map_err(|e| match e.errno() {
            Some(libc::ENOSPC | libc::EDQUOT) if e.hint.is_none() => e.hint(format!(
                "the container's layer is in {}: free some space there, or move it with --root",
                spec.layer.display()
            )),
            Some(libc::EACCES) if e.hint.is_none() && features::in_user_namespace() => e.hint(
                "that folder of the image is somebody else's, and without root nothing can be \
                 made in it: use an image of your own, or root",
            ),
            _ => e,
        })
    }

    fn built(spec: &RootfsSpec, cwd: &str) -> Result<Self> {
        // Else the host would see these mounts, and later ones of its own
        // would be kept busy here until the pivot.
        mount::propagate(Propagation::Slave)?;
        let root = overlay(spec)?;
        attach_plain(
            &root,
            "proc",
            &Filesystem::new(c"proc")?.mount(Attrs::INERT)?,
        )?;
        let tmpfs = Filesystem::new(c"tmpfs")?
            .set(c"size", c"65536k")?
            .set(c"mode", c"755")?
            .mount(Attrs::NOSUID | Attrs::STRICTATIME)?;
        attach_plain(&root, "dev", &tmpfs)?;
        let this = Self {
            dev: tmpfs.into_root(),
            root,
        };
        this.fill_dev()?;
        for name in ETC {
            let host = spec.etc.join(name);
            this.bind_file(&host, &Path::new("/etc").join(name), Attrs::NONE)?;
        }
        this.mark()?;
        if let Some(program) = &spec.init {
            this.bind_file(program, Path::new(INIT), Attrs::READ_ONLY)?;
        }
        if cwd != "/" {
            this.root.dir(Path::new(cwd), 0o755)?;
        }
        mount::mask(&this.root, profile::MASKED_PROC)?;
        for path in profile::READ_ONLY {
            if let Some(found) = this.root.find(Path::new(path))? {
                let copy = Mount::bind(&found, true)?;
                copy.set(Attrs::READ_ONLY, true)?;
                copy.attach(&found)?;
            }
        }
        Ok(this)
    }

    fn fill_dev(&self) -> Result<()> {
        for (name, major, minor) in DEVICES {
            let host = Path::new("/dev").join(name);
            if features::in_user_namespace() {
                let file = self.dev.file(Path::new(name), 0o666)?;
                Mount::bind_path(&host, false)?.attach(&file)?;
            } else {
                let mode = Mode::from_bits_truncate(0o666);
                mknodat(&self.dev, name, SFlag::S_IFCHR, mode, makedev(major, minor))
                    .map_err(|e| Error::sys("create device", &host, e))?;
            }
        }
        for (name, target) in LINKS {
            link(&self.dev, name, target)?;
        }
        // Not every kernel has it.
        let kcore = "/proc/kcore";
        if self.root.find(Path::new(kcore))?.is_some() {
            link(&self.dev, "core", kcore)?;
        }
        let mut devpts = Filesystem::new(c"devpts")?
            .flag(c"newinstance")?
            .set(c"ptmxmode", c"0666")?
            .set(c"mode", c"0620")?;
        // tty's group; a user namespace seldom maps it.
        if !features::in_user_namespace() {
            devpts = devpts.set(c"gid", c"5")?;
        }
        let pts = devpts.mount(Attrs::NOSUID | Attrs::NOEXEC)?;
        attach(&self.dev, "pts", &pts)?;
        let shm = Filesystem::new(c"tmpfs")?
            .named(c"shm")
            .set(c"size", c"65536k")?
            .set(c"mode", c"1777")?
            .mount(Attrs::INERT)?;
        attach(&self.dev, "shm", &shm)?;
        attach(
            &self.dev,
            "mqueue",
            &Filesystem::new(c"mqueue")?.mount(Attrs::INERT)?,
        )
    }

    /// What programs look for, as Docker leaves it there: where they run
    /// (/.dockerenv), and what is mounted. What the image has stays.
    fn mark(&self) -> Result<()> {
        self.root.file(Path::new("/.dockerenv"), 0o755)?;
        let etc = self.root.dir(Path::new("/etc"), 0o755)?;
        match symlinkat("/proc/mounts", &etc, "mtab") {
            Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
            Err(e) => Err(Error::sys("create link", "/etc/mtab", e)),
        }
    }

    fn bind_file(&self, host: &Path, inside: &Path, attrs: Attrs) -> Result<()> {
        let file = self.root.file(inside, 0o644)?;
        let copy = Mount::bind_path(host, false)?;
        if attrs != Attrs::NONE {
            copy.set(attrs, false)?;
        }
        copy.attach(&file).map_err(|e| onto(inside, e))
    }

    /// Docker's `/dev/console`: the container's terminal.
    pub(super) fn console(&self, terminal: impl AsFd) -> Result<()> {
        let file = self.dev.file(Path::new("console"), 0o600)?;
        Mount::bind(terminal, false)?.attach(&file)
    }

    /// The devpts at /dev/pts, for the container's terminal.
    pub(super) fn devpts(&self) -> Result<Rooted> {
        self.dev.open(Path::new("pts"))
    }

    /// /sys of the network namespace that the caller has joined, and in it
    /// the container's own cgroups, all read-only.
    pub(super) fn mount_sys(&self, cgroups: &[PathBuf]) -> Result<()> {
        let attrs = Attrs::INERT | Attrs::READ_ONLY;
        let sysfs = match Filesystem::sysfs()?.mount(attrs) {
            Err(e) if e.is_errno(libc::EPERM) && features::in_user_namespace() => {
                let host = Mount::bind_path(Path::new("/sys"), true)?;
                host.set(attrs, true)?;
                host
            }
            other => other?,
        };
        attach_plain(&self.root, "sys", &sysfs)?;
        self.mount_cgroups(cgroups)?;
        mount::mask(&self.root, &profile::masked_sys())
    }

    /// cgroup v2: the file system itself, seen from the container's cgroup
    /// namespace. Elsewhere one folder per hierarchy that the container is
    /// in, under the name that the host has for it.
    fn mount_cgroups(&self, folders: &[PathBuf]) -> Result<()> {
        const AT: &str = "/sys/fs/cgroup";
        let attrs = Attrs::INERT | Attrs::READ_ONLY;
        let Some(at) = self.root.find(Path::new(AT))? else {
            return Ok(());
        };
        if folders.is_empty() {
            return Ok(());
        }
        if features::cgroup_v2_only() {
            let cgroup = Filesystem::new(c"cgroup2")?.named(c"cgroup");
            return cgroup.mount(attrs)?.attach(&at);
        }
        let tmpfs = Filesystem::new(c"tmpfs")?
            .set(c"mode", c"755")?
            .mount(Attrs::INERT)?;
        tmpfs.attach(&at)?;
        for folder in folders {
            let hierarchy = folder
                .strip_prefix(AT)
                .ok()
                .and_then(|below| below.components().next());
            if let Some(name) = hierarchy {
                let copy = Mount::bind_path(folder, false)?;
                copy.set(attrs, false)?;
                attach(&self.root, Path::new(AT).join(name), &copy)?;
            }
        }
        tmpfs.set(Attrs::READ_ONLY, false)
    }

    /// Makes it the process's `/`; nothing of the host's remains.
    pub(super) fn enter(self) -> Result<()> {
        mount::pivot(&self.root)
    }
}

/// The image below, the container's layer on top, attached over the layer's
/// own folder: where it is attached matters to nobody after the pivot.
fn overlay(spec: &RootfsSpec) -> Result<Rooted> {
    let (upper, work) = (spec.layer.join("upper"), spec.layer.join("work"));
    for folder in [&upper, &work] {
        match nix::unistd::mkdir(folder, Mode::from_bits_truncate(0o755)) {
            // From an earlier start.
            Ok(()) | Err(nix::Error::EEXIST) => {}
            Err(e) => return Err(file::explain("create layer", folder, e)),
        }
    }
    if features::in_user_namespace() {
        own(&spec.lower, &upper, "etc")?;
    }
    if spec.volatile {
        forget_volatile(&work)?;
    }
    let mount = || {
        let folders = [option(&spec.lower)?, option(&upper)?, option(&work)?];
        let [lower, upper, work] = &folders;
        let mut overlay = Filesystem::new(c"overlay")?
            .set(c"lowerdir", &lower.value)?
            .set(c"upperdir", &upper.value)?
            .set(c"workdir", &work.value)?;
        if spec.volatile {
            overlay = overlay.flag(c"volatile")?;
        }
        if features::in_user_namespace() {
            // trusted.* attributes are the real root's alone.
            overlay = overlay.flag(c"userxattr")?;
        }
        overlay.mount(Attrs::NONE)
    };
    let mount = mount().map_err(|e| {
        // It makes folders in the layer.
        if matches!(e.errno(), Some(libc::ENOSPC | libc::EDQUOT)) {
            return file::explain("mount overlay with", &work, e.errno().unwrap_or_default());
        }
        let locked = e.is_errno(libc::EINVAL) && features::in_user_namespace();
        let e = Error {
            subject: spec.lower.as_path().into(),
            op: "mount overlay over".into(),
            ..e
        };
        match locked {
            true => e.hint(
                "without root, a folder of the host with other file systems \
                 mounted below it cannot be an image",
            ),
            false => e,
        }
    })?;
    be_writable(&mount, &work)?;
    mount.attach(Rooted::root(&spec.layer)?)?;
    Ok(mount.into_root())
}

/// In a folder of the image that is somebody else's nothing can be made without
/// root; in the layer's own of that name, which is merged with it, it can.
fn own(lower: &Path, upper: &Path, name: &str) -> Result<()> {
    let folder = upper.join(name);
    match std::fs::symlink_metadata(lower.join(name)) {
        Ok(found) if found.is_dir() && found.uid() != nix::unistd::geteuid().as_raw() => {
            match nix::unistd::mkdir(&folder, Mode::from_bits_truncate(found.mode())) {
                Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
                Err(e) => Err(file::explain("create layer", &folder, e)),
            }
        }
        _ => Ok(()),
    }
}

/// An overlay that cannot make folders in the layer (a full disk) is read-only
/// without a word.
fn be_writable(mount: &Mount, work: &Path) -> Result<()> {
    let fail = |errno| file::explain("mount overlay with", work, errno);
    let found = nix::sys::statvfs::fstatvfs(mount).map_err(fail)?;
    if !found.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let trial = work.join("trial");
    nix::unistd::mkdir(&trial, Mode::S_IRWXU).map_err(fail)?;
    file::remove_tree(&trial)?;
    Err(fail(nix::Error::EROFS)
        .hint("overlayfs made it read-only: free some space there, or move the state with --root"))
}

/// The kernel refuses a layer that was volatile once more, since it might have
/// been cut short by a crash. A restart within one boot is no crash: what was
/// not synced is still in the page cache.
fn forget_volatile(work: &Path) -> Result<()> {
    file::remove_tree(&work.join("work/incompat/volatile"))
}

/// A folder as an overlay option.
struct Folder {
    value: CString,
    /// What the value names, where it is no path.
    _open: Option<OwnedFd>,
}

/// `:` would begin the next layer. A comma would begin the next option before
/// Linux 6.5 (fs_context.c, `legacy_parse_param`), whose overlay does not know
/// fsconfig(2) by itself: such a folder goes by its fd.
fn option(path: &Path) -> Result<Folder> {
    let bytes = path.as_os_str().as_bytes();
    let fail = |errno| Error::sys("mount overlay over", path, errno);
    if bytes.contains(&b',') {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let open = nix::fcntl::open(path, flags, Mode::empty()).map_err(|e| fail(e as i32))?;
        let value = CString::new(format!("/proc/self/fd/{}", open.as_raw_fd()))
            .map_err(|_| fail(libc::EINVAL))?;
        return Ok(Folder {
            value,
            _open: Some(open),
        });
    }
    let mut escaped = Vec::new();
    for &byte in bytes {
        if matches!(byte, b':' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    let value = CString::new(escaped).map_err(|_| fail(libc::EINVAL))?;
    Ok(Folder { value, _open: None })
}

/// Onto a folder of the image, made where it is missing.
fn attach(root: &Rooted, at: impl AsRef<Path>, mount: &Mount) -> Result<()> {
    let at = at.as_ref();
    mount.attach(root.dir(at, 0o755)?).map_err(|e| onto(at, e))
}

/// The same for what must not end up elsewhere: with a link from /proc to `/`,
/// masks and read-only paths would miss what they are to hide.
fn attach_plain(root: &Rooted, name: &str, mount: &Mount) -> Result<()> {
    let at = root.plain_dir(Path::new(name), 0o755).map_err(|e| {
        match e.is_errno(libc::ELOOP) || e.is_errno(libc::ENOTDIR) {
            true => e.hint(format!("the image's /{name} must be an ordinary folder")),
            false => e,
        }
    })?;
    mount.attach(at).map_err(|e| onto(Path::new(name), e))
}

fn onto(path: &Path, error: Error) -> Error {
    Error {
        subject: path.into(),
        ..error
    }
}

fn link(folder: &Rooted, name: &str, target: &str) -> Result<()> {
    symlinkat(target, folder, name)
        .map_err(|e| Error::sys("create link", format!("/dev/{name}"), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_layer_whatever_is_in_it() {
        let text = |path: &str| {
            option(Path::new(path))
                .unwrap()
                .value
                .into_string()
                .unwrap()
        };
        assert_eq!(text("/var/lib/dockless"), "/var/lib/dockless");
        assert_eq!(text(r"/a:b\c"), r"/a\:b\\c");
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("a,b");
        std::fs::create_dir(&folder).unwrap();
        let by_fd = option(&folder).unwrap();
        let named = std::fs::read_link(by_fd.value.to_str().unwrap()).unwrap();
        assert_eq!(named, folder);
    }
}
