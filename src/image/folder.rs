//! `--rootfs DIR`: any folder as a read-only image.
//!
//! The folder is the lower layer of an overlay: nothing is ever written to it.
//! `/` itself is allowed: it runs the host's own programs behind the
//! container's network. overlayfs does not cross mount points, so the
//! container sees the root file system alone, and its writes go to its own
//! layer. What the host changes below it meanwhile may or may not show.

use std::io::ErrorKind;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::Image;
use crate::base::{Error, Result};

const OP: &str = "use as root file system";

/// `--rootfs DIR`. Links and relative parts are resolved now, so that the
/// container keeps its image when the working directory or a link changes.
/// There is no default command: Docker's `no command specified` if none is given.
pub fn folder(dir: &Path) -> Result<Image> {
    if dir.as_os_str().is_empty() {
        return Err(Error::invalid("invalid --rootfs: the path is empty"));
    }
    let lower = dir.canonicalize().map_err(|e| {
        let error = Error::sys(OP, dir, &e);
        match e.kind() {
            ErrorKind::NotFound => {
                error.hint("name an existing folder that holds the files of an image")
            }
            ErrorKind::PermissionDenied => {
                error.hint("a folder above it may not be searched by you")
            }
            _ => error,
        }
    })?;
    // Opening it for reading asks both questions at once: is it a folder, and
    // may its entries be read.
    std::fs::read_dir(&lower).map_err(|e| {
        let error = Error::sys(OP, &lower, &e);
        match e.kind() {
            ErrorKind::NotADirectory => {
                error.hint("an unpacked folder is needed; archives are not unpacked here")
            }
            ErrorKind::PermissionDenied => error.hint("it may not be read by you"),
            _ => error,
        }
    })?;
    Ok(Image {
        reference: dir.display().to_string(),
        // A folder has no content digest; its path is what stays the same.
        id: super::hex_digest(Sha256::new_with_prefix(
            lower.as_os_str().as_encoded_bytes(),
        )),
        lower,
        entrypoint: Vec::new(),
        cmd: Vec::new(),
        env: Vec::new(),
        exposed: Vec::new(),
        cwd: String::from("/"),
        user: String::new(),
        stop_signal: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_wrong_with_a_folder() {
        let missing = folder(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(missing.errno(), Some(libc::ENOENT));
        assert!(missing.to_string().contains("/nowhere/at/all"), "{missing}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = folder(file.path()).unwrap_err();
        assert_eq!(file.errno(), Some(libc::ENOTDIR));
        assert!(file.to_string().contains("folder"), "{file}");
        assert!(folder(Path::new("")).is_err());
        assert_eq!(folder(Path::new("/")).unwrap().lower, Path::new("/"));
    }

    #[test]
    fn relative_and_linked_paths_become_absolute() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let image = folder(&dir.path().join("./link/../link")).unwrap();
        assert_eq!(image.lower, real.canonicalize().unwrap());
        assert_eq!(image.id.len(), 64);
        assert_eq!(image.id, folder(&real).unwrap().id);
        assert!(folder(Path::new(".")).unwrap().lower.is_absolute());
        assert!(image.entrypoint.is_empty() && image.cmd.is_empty());
    }
}
