//! Where state lives.

use std::path::{Path, PathBuf};

use nix::fcntl::AtFlags;
use nix::unistd::AccessFlags;

use super::file;
use super::roll::Roll;
use crate::base::error::IntoErrno;
use crate::base::{ContainerId, Error, NetworkId, Result};
use crate::sys::features;

const ROOT_OPTION: &str = "--root DIR or DOCKLESS_ROOT";

/// The two roots: `root` outlives a reboot, `state` (tmpfs) does not.
#[derive(Clone, Debug)]
pub struct Dirs {
    root: PathBuf,
    state: PathBuf,
}

impl Dirs {
    /// `/var/lib/dockless` and `/run/dockless` unless given. Both are made
    /// (mode 0711) on first use, not here.
    pub fn new(root: impl Into<PathBuf>, state: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            state: state.into(),
        }
    }
    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn state(&self) -> &Path {
        &self.state
    }
    /// `<root>/images`
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }
    /// `<root>/networks/<id>.json`
    pub fn network(&self, id: &NetworkId) -> PathBuf {
        self.root.join("networks").join(format!("{id}.json"))
    }
    /// `<root>/containers/<id>`: config, log, writable layer.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(id.as_str())
    }
    /// `<state>/containers/<id>`: journal, control socket.
    pub fn live(&self, id: &ContainerId) -> PathBuf {
        self.state.join("containers").join(id.as_str())
    }
    /// `<root>/containers/<id>/<id>-json.log`, Docker's name.
    pub fn log(&self, id: &ContainerId) -> PathBuf {
        self.container(id).join(format!("{id}-json.log"))
    }
    /// `<state>/locks`
    pub fn locks(&self) -> PathBuf {
        self.state.join("locks")
    }

    /// `<state>/locks/<id>`: held by the starter, then by the supervisor. In a
    /// folder of its own, so that it can be taken before anything else of the
    /// container is made, and one listing finds all that may need recovery.
    pub fn lock(&self, id: &ContainerId) -> PathBuf {
        self.locks().join(id.as_str())
    }
    /// `<state>/roll.lock`: who holds which of the locks.
    pub fn roll(&self) -> Roll {
        Roll::new(self.state().join("roll.lock"), self.locks())
    }
    /// `<state>/nsid.lock`: the last number of a network namespace.
    pub fn namespaces(&self) -> PathBuf {
        self.state().join("nsid.lock")
    }
    /// `<live>/journal`: what to undo when its lock's holder is dead.
    pub fn journal(&self, id: &ContainerId) -> PathBuf {
        self.live(id).join("journal")
    }
    /// `<live>/sock`: the supervisor's control socket.
    pub fn sock(&self, id: &ContainerId) -> PathBuf {
        self.live(id).join("sock")
    }

    /// Whether there is anything yet. Where this user could not make the root,
    /// nothing is known of what others have.
    pub fn has_root(&self) -> Result<bool> {
        let fail = |errno| refused(Error::sys("look into", &self.root, errno), ROOT_OPTION);
        match std::fs::metadata(&self.root) {
            Ok(_) => return Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(fail(e.into_errno())),
        }
        let above = self.root.ancestors().find(|folder| folder.is_dir());
        match above.map(may_write) {
            Some(Err(errno)) => Err(fail(errno as i32)),
            _ => Ok(false),
        }
    }

    /// Makes both roots and the folders directly below them. One that cannot
    /// be written is an error here, before anything has happened.
    pub fn make(&self) -> Result<()> {
        for (top, option, below) in [
            (
                &self.root,
                ROOT_OPTION,
                &["containers", "networks", "names", "reserved"][..],
            ),
            (
                &self.state,
                "--state DIR or DOCKLESS_STATE",
                &["bells", "containers", "events", "leases", "locks"],
            ),
        ] {
            make_top(top, below).map_err(|error| refused(error, option))?;
        }
        Ok(())
    }
}

fn refused(error: Error, option: &str) -> Error {
    let who = match error.errno() {
        Some(libc::ENOTDIR) => "a part of that path is no folder",
        Some(libc::ENOENT) => "no folder can be made there",
        Some(libc::ELOOP) => "that is a symbolic link",
        _ => permission_hint(),
    };
    error.hint(format!("{who}; {option} names another folder"))
}

fn make_top(top: &Path, below: &[&str]) -> Result<()> {
    file::make_dir(top, 0o711)?;
    may_write(top).map_err(|errno| Error::sys("write to", top, errno))?;
    for name in below {
        file::make_dir(&top.join(name), 0o700)?;
    }
    Ok(())
}

/// With mode bits and mounts both considered, for the effective user.
fn may_write(folder: &Path) -> nix::Result<()> {
    nix::unistd::faccessat(
        nix::fcntl::AT_FDCWD,
        folder,
        AccessFlags::W_OK | AccessFlags::X_OK,
        AtFlags::AT_EACCESS,
    )
}

/// Why this user may not write somewhere, and what helps.
pub(super) fn permission_hint() -> &'static str {
    if !nix::unistd::geteuid().is_root() {
        features::NOT_ROOT
    } else if features::in_user_namespace() {
        "this user namespace's root does not own it: use folders of your own"
    } else {
        "root is refused: see the mount's options, the folder's attributes (lsattr) and the security module's log"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn makes_both_roots_once() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(dir.path().join("lib/x"), dir.path().join("run/x"));
        dirs.make().unwrap();
        dirs.make().unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().mode() & 0o7777;
        assert_eq!(mode(dirs.root()), 0o711);
        assert_eq!(mode(&dirs.state().join("containers")), 0o700);
        assert_eq!(mode(&dirs.state().join("leases")), 0o700);
    }

    #[test]
    fn an_unusable_folder_is_named_with_the_way_on() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let dirs = Dirs::new(dir.path().join("lib"), dir.path().join("file/state"));
        let error = dirs.make().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("file/state"), "{text}");
        assert!(text.contains("--state"), "{text}");
        assert!(
            text.contains("no folder") && !text.contains("lsattr"),
            "{text}"
        );
        assert!(text.contains("DOCKLESS_STATE"), "{text}");
        assert!(error.is_errno(libc::ENOTDIR), "{text}");

        // /proc refuses even root.
        let dirs = Dirs::new("/proc/dockless", dir.path().join("s"));
        let text = dirs.make().unwrap_err().to_string();
        assert!(text.contains("DOCKLESS_ROOT"), "{text}");
        assert!(text.contains("no folder can be made there"), "{text}");
    }

    #[test]
    fn what_is_not_there_may_be_empty_or_out_of_reach() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = |root: &str| Dirs::new(dir.path().join(root), dir.path().join("s"));
        assert!(!dirs("a/b").has_root().unwrap());
        dirs("a/b").make().unwrap();
        assert!(dirs("a/b").has_root().unwrap());
        std::fs::write(dir.path().join("file"), "").unwrap();
        let text = dirs("file/x").has_root().unwrap_err().to_string();
        assert!(text.contains("DOCKLESS_ROOT"), "{text}");
    }
}
