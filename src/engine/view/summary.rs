//! One line of `ps`. Docker's API has a type of its own for it, too
//! (`ContainerSummary`): a list of a thousand must not take a thousand
//! inspections.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{MountPoint, Ports, Status};

/// What lists show of a container, and what their filters ask.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub id: String,
    /// Without the slash in front.
    pub name: String,
    pub created: String,
    /// As typed: `tester`.
    pub image: String,
    /// `sha256:…`
    pub image_id: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    pub status: Status,
    pub exit_code: i32,
    pub started_at: String,
    pub finished_at: String,
    pub labels: BTreeMap<String, String>,
    /// Published now.
    pub ports: Ports,
    /// `80/tcp`: asked to be published, running or not.
    pub bound: Vec<String>,
    pub exposed: Vec<String>,
    /// Ids by name; empty where it has never been on it.
    pub networks: BTreeMap<String, String>,
    pub mounts: Vec<MountPoint>,
    /// Folders of the image and of the writable layer.
    pub lower: PathBuf,
    pub upper: PathBuf,
    /// Bytes in the writable layer, and in both together; only where sizes were
    /// asked for.
    pub size_rw: Option<u64>,
    pub size_root_fs: Option<u64>,
}

impl Summary {
    pub fn is_running(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }
}
