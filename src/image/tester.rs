//! The embedded `tester` image, unpacked on first use.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::Result;

/// Where a container's files and defaults come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What the user wrote: `tester`, or the folder of `--rootfs`.
    pub reference: String,
    /// 64 hex digits, stable for the same content (tester: of the binary).
    pub id: String,
    /// The read-only folder.
    pub lower: PathBuf,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub exposed: Vec<String>,
    pub cwd: String,
    pub user: String,
    pub stop_signal: Option<String>,
}

/// The tester image below `images`, unpacked atomically (rename) if this
/// binary's is not there yet; older ones that no container uses are removed.
pub fn tester(_images: &Path) -> Result<Image> {
    todo!()
}

/// `--rootfs DIR` (absolute, a folder, readable).
pub fn folder(_dir: &Path) -> Result<Image> {
    todo!()
}
