//! Images: the embedded tester and plain folders.

pub mod folder;
pub mod tester;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

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

/// SHA-256 in 64 hex digits.
fn hex_digest(hash: Sha256) -> String {
    use std::fmt::Write;
    hash.finalize()
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
