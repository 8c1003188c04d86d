//! The embedded `tester` image, unpacked on first use.
//!
//! # Theory of operation
//! The image's only program is this very binary (it is static, and picks its
//! applet by `argv[0]`), so "unpacking" copies /proc/self/exe, which still
//! works when the file has been replaced or removed meanwhile.
//!
//! A start must not hash megabytes, so the folder is named by what one statx(2)
//! tells about the binary: device, inode, size, change and modification time.
//! Nobody can set a change time, hence a different binary never meets an old
//! folder; the price is one more copy after a `chmod` or a move.
//!
//! ```text
//! <images>/tester-<16 hex>/id       symbolic link to the content's SHA-256:
//!                                   reading it answers "is it there?" and
//!                                   "what is its id?" in one system call
//! <images>/tester-<16 hex>/rootfs/  the read-only lower layer
//! <images>/.unpack/                 being filled by whoever holds the flock on
//!                                   <images> itself
//! ```
//! A folder appears under its final name by rename(2), complete and synced, or
//! not at all. A killed unpacker loses its lock and leaves `.unpack`, which the
//! next unpacking and [`prune`] remove.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

pub use super::{Image, folder::folder};
use crate::base::{Error, Result};

/// The running program, also when its file was renamed or removed.
const SELF: &str = "/proc/self/exe";
const PREFIX: &str = "tester-";
const UNPACKING: &str = ".unpack";

/// Folders of the image and their modes, parents first: mount points, and what
/// programs take for granted.
const FOLDERS: [(&str, u32); 9] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// Files of the image beside its program. The empty ones are mount points.
const FILES: [(&str, &str); 5] = [
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/tester\nnobody:x:65534:65534:nobody:/:/bin/tester\n",
    ),
    ("etc/group", "root:x:0:\nnobody:x:65534:\n"),
    ("etc/hosts", ""),
    ("etc/hostname", ""),
    ("etc/resolv.conf", ""),
];

/// The names under which the one program answers.
const PROGRAM: &str = "bin/tester";
const LINKS: [&str; 2] = ["bin/ping", "bin/ip"];

/// The tester image below `images`, unpacked if this binary's is not there yet.
/// On a start that finds it there: one statx(2) and one readlink(2).
pub fn tester(images: &Path) -> Result<Image> {
    let exe = std::fs::metadata(SELF).map_err(|e| no_exe(&e))?;
    let folder = images.join(format!("{PREFIX}{}", identity(&exe)));
    let link = folder.join("id");
    let id = match std::fs::read_link(&link) {
        Ok(id) => id,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            unpack(images, &folder)?;
            std::fs::read_link(&link).map_err(|e| Error::sys("read image id", &link, e))?
        }
        Err(e) => {
            return Err(Error::sys("read image id", &link, e)
                .hint("remove that image's folder; it is unpacked again at the next start"));
        }
    };
    Ok(Image {
        reference: String::from("tester"),
        id: id.to_string_lossy().into_owned(),
        lower: folder.join("rootfs"),
        entrypoint: Vec::new(),
        cmd: vec![format!("/{PROGRAM}")],
        env: vec![String::from("PATH=/bin")],
        exposed: vec![String::from("5000/tcp")],
        cwd: String::from("/"),
        user: String::new(),
        stop_signal: Some(String::from("SIGTERM")),
    })
}

/// A copy of the running binary, whatever has become of its file: the image's
/// program.
pub fn program(images: &Path) -> Result<PathBuf> {
    Ok(tester(images)?.lower.join(PROGRAM))
}

/// Removes the tester images of other binaries for whose `rootfs` folder
/// `in_use` says no, and what a killed unpacker left. Returns what was removed.
pub fn prune(images: &Path, in_use: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>> {
    if !images.exists() {
        return Ok(Vec::new());
    }
    let _lock = lock(images)?;
    let exe = std::fs::metadata(SELF).map_err(|e| no_exe(&e))?;
    let own = format!("{PREFIX}{}", identity(&exe));
    let mut removed = Vec::new();
    for (name, path) in entries(images)? {
        let old = name.starts_with(PREFIX) && name != own && !in_use(&path.join("rootfs"));
        if old || name == UNPACKING {
            remove_tree(&path)?;
            removed.push(path);
        }
    }
    Ok(removed)
}

fn no_exe(e: &std::io::Error) -> Error {
    Error::sys("look up", SELF, e).hint("is /proc mounted?")
}

/// What tells one file's content from another's without reading it, as 16 hex
/// digits.
fn identity(file: &Metadata) -> String {
    let mut hash = Sha256::new();
    for number in [file.dev(), file.ino(), file.size()] {
        hash.update(number.to_le_bytes());
    }
    for time in [
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    ] {
        hash.update(time.to_le_bytes());
    }
    super::hex_digest(hash).split_off(48)
}

fn unpack(images: &Path, folder: &Path) -> Result<()> {
    make_folder(images, 0o711, true).map_err(no_room)?;
    let _lock = lock(images)?;
    if folder.exists() {
        return Ok(()); // Somebody else unpacked it while we waited.
    }
    let temp = images.join(UNPACKING);
    remove_tree(&temp)?;
    make_folder(&temp, 0o755, false).map_err(no_room)?;
    let placed = fill(&temp).map_err(no_room).and_then(|()| {
        std::fs::rename(&temp, folder).map_err(|e| Error::sys("rename", &temp, e))?;
        sync(images)
    });
    placed.map_err(|e| match remove_tree(&temp) {
        Ok(()) => e,
        Err(undo) => e.with_undo(vec![undo]),
    })
}

/// What helps when the copy does not fit.
fn no_room(error: Error) -> Error {
    match error.errno() {
        Some(libc::ENOSPC | libc::EDQUOT) => {
            error.hint("free some space there, or move everything with --root")
        }
        _ => error,
    }
}

fn fill(temp: &Path) -> Result<()> {
    let root = temp.join("rootfs");
    make_folder(&root, 0o755, false)?;
    for (name, mode) in FOLDERS {
        make_folder(&root.join(name), mode, false)?;
    }
    for (name, text) in FILES {
        let path = root.join(name);
        let mut file = create(&path, 0o644)?;
        file.write_all(text.as_bytes())
            .map_err(|e| Error::sys("write", &path, e))?;
    }
    let program = root.join(PROGRAM);
    let id = copy_self(&program)?;
    for name in LINKS {
        let path = root.join(name);
        std::fs::hard_link(&program, &path).map_err(|e| Error::sys("link", &path, e))?;
    }
    let path = temp.join("id");
    std::os::unix::fs::symlink(&id, &path).map_err(|e| Error::sys("link", &path, e))?;
    for folder in [&root.join("bin"), &root.join("etc"), &root, temp] {
        sync(folder)?;
    }
    Ok(())
}

/// Copies this program (a reflink where the file system can: std's copy is
/// copy_file_range(2)) and returns its SHA-256. Not a hard link: chmod, chown
/// or a writer of the original would reach into every container.
fn copy_self(program: &Path) -> Result<String> {
    let mut exe = File::open(SELF).map_err(|e| no_exe(&e))?;
    let mut copy = create(program, 0o755)?;
    std::io::copy(&mut exe, &mut copy)
        .map_err(|e| Error::sys("copy this program to", program, e))?;
    copy.sync_all()
        .map_err(|e| Error::sys("sync", program, e))?;
    drop(copy);
    let mut file = File::open(program).map_err(|e| Error::sys("open", program, e))?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(super::hex_digest(hash)),
            Ok(n) => hash.update(&chunk[..n]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::sys("read", program, e)),
        }
    }
}

/// Waits for the lock on a folder; the kernel frees it with its holder.
fn lock(folder: &Path) -> Result<Flock<File>> {
    let mut file = File::open(folder).map_err(|e| Error::sys("open", folder, e))?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::Error::EINTR)) => file = back,
            Err((_, e)) => return Err(Error::sys("lock", folder, e)),
        }
    }
}

/// Names (those that are text) and paths in a folder; none if it is absent.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let fail = |e| Error::sys("read folder", folder, e);
    let list = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    let mut found = Vec::new();
    for entry in list {
        let entry = entry.map_err(fail)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// The mode is set apart from making it: the umask would take bits away.
fn make_folder(path: &Path, mode: u32, may_exist: bool) -> Result<()> {
    let existed = may_exist && path.is_dir();
    if existed {
        return Ok(());
    }
    DirBuilder::new()
        .mode(mode)
        .recursive(may_exist)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|e| Error::sys("make folder", path, e))
}

fn create(path: &Path, mode: u32) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(|e| Error::sys("create", path, e))?;
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(|e| Error::sys("set mode of", path, e))?;
    Ok(file)
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|e| Error::sys("sync", folder, e))
}

fn remove_tree(path: &Path) -> Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::sys("remove", path, e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacks_once_and_finds_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        let image = tester(&images).unwrap();
        assert_eq!(image.id.len(), 64);
        let file = std::fs::metadata(image.lower.join("bin/ping")).unwrap();
        assert_eq!(file.nlink(), 3);
        assert_eq!(file.mode() & 0o7777, 0o755);
        assert_eq!(file.size(), std::fs::metadata(SELF).unwrap().size());
        let tmp = std::fs::metadata(image.lower.join("tmp")).unwrap();
        assert_eq!(tmp.mode() & 0o7777, 0o1777);
        let programs = std::fs::read_dir(image.lower.join("bin")).unwrap().count();
        assert_eq!(programs, 3, "no other program");
        assert_eq!(tester(&images).unwrap(), image);
        let again = std::fs::metadata(image.lower.join("bin/ping")).unwrap();
        assert_eq!(again.ino(), file.ino(), "not unpacked twice");
    }

    #[test]
    fn one_wins_when_many_unpack_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path();
        let ids: Vec<_> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..6)
                .map(|_| s.spawn(|| tester(images).unwrap()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|i| *i == ids[0]));
        assert_eq!(
            entries(images).unwrap().len(),
            1,
            "no unpacking folder left"
        );
    }

    #[test]
    fn prune_keeps_what_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path();
        assert!(
            prune(&images.join("absent"), &|_| false)
                .unwrap()
                .is_empty()
        );
        let own = tester(images).unwrap();
        for name in ["tester-old", "tester-used", ".unpack", "other"] {
            std::fs::create_dir_all(images.join(name).join("rootfs")).unwrap();
        }
        let used = images.join("tester-used/rootfs");
        let mut removed = prune(images, &|lower| lower == used).unwrap();
        removed.sort();
        assert_eq!(removed, [images.join(".unpack"), images.join("tester-old")]);
        assert!(own.lower.exists() && used.exists() && images.join("other").exists());
    }

    #[test]
    fn what_a_killed_unpacker_left_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join(".unpack/rootfs/bin")).unwrap();
        let image = tester(dir.path()).unwrap();
        assert!(image.lower.join("bin/tester").exists());
        assert_eq!(entries(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn an_unwritable_place_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = tester(&file.join("images")).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    }
}
