//! What to run, as resolved by the engine: nothing left to look up outside the
//! container's root file system.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The process of a container or of an exec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments, never empty.
    pub argv: Vec<String>,
    /// `NAME=value`; PATH, HOSTNAME, TERM are already in. HOME is added in the
    /// container from its /etc/passwd when missing.
    pub env: Vec<String>,
    /// Working directory, absolute; made when missing, as Docker does.
    pub cwd: String,
    /// `user[:group]`, names or numbers, looked up in the container's
    /// /etc/passwd and /etc/group. Empty: root.
    pub user: String,
    pub tty: bool,
    /// Rows and columns that the terminal has from the start, where the
    /// user's are known.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
    /// `--privileged` is not offered; this is the whole set of capabilities.
    pub no_new_privs: bool,
}

/// A container's root file system and what is mounted in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootfsSpec {
    /// The image: a folder that is never written to.
    pub lower: PathBuf,
    /// Folder for `upper`, `work` and `merged`.
    pub layer: PathBuf,
    /// Host paths bind-mounted rw over /etc/hosts, /etc/hostname and
    /// /etc/resolv.conf, written by the engine before the start.
    pub etc: PathBuf,
    /// The layer dies with the container or the boot (`--rm`): the overlay
    /// skips every sync, the one that ends its life included.
    #[serde(default)]
    pub volatile: bool,
    /// `--init`: this program (a static binary) is bind-mounted at
    /// /sbin/docker-init and run as pid 1.
    pub init: Option<PathBuf>,
}

/// Everything that `launch` needs.
#[derive(Clone, Debug)]
pub struct LaunchSpec {
    pub process: ProcessSpec,
    pub rootfs: RootfsSpec,
    pub hostname: String,
}
