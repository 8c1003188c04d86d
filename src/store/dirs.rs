//! Where state lives.

use std::path::{Path, PathBuf};

use crate::base::{ContainerId, NetworkId, Result};

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
    /// `<state>/containers/<id>`: lock, journal, control socket.
    pub fn live(&self, id: &ContainerId) -> PathBuf {
        self.state.join("containers").join(id.as_str())
    }
    /// Makes both roots.
    pub fn make(&self) -> Result<()> {
        todo!()
    }
}
