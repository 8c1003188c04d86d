//! How much disk a container takes: `ps --size`, `inspect --size`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Engine, view};
use crate::base::{Error, Result};

/// What image folders take, each measured once.
#[derive(Debug, Default)]
struct Sizes(BTreeMap<PathBuf, u64>);

impl Sizes {
    fn image(&mut self, folder: &Path) -> Result<u64> {
        if let Some(known) = self.0.get(folder) {
            return Ok(*known);
        }
        let size = tree(folder)?;
        self.0.insert(folder.to_owned(), size);
        Ok(size)
    }
}

impl Engine {
    /// Fills in the sizes of the writable layer, and of it and the image.
    pub fn measure(&self, container: &mut view::Container) -> Result<()> {
        let Some(layers) = &container.graph_driver else {
            return Ok(());
        };
        let dir = |name: &str| layers.data.get(name).map(Path::new);
        let own = dir("UpperDir").map_or(Ok(0), tree)?;
        let image = dir("LowerDir").map_or(Ok(0), tree)?;
        container.size_root_fs = Some(own + image);
        container.size_rw = Some(own);
        Ok(())
    }

    /// The same for lines of a list.
    pub fn measure_all(&self, containers: &mut [view::Summary]) -> Result<()> {
        let mut sizes = Sizes::default();
        for container in containers {
            let own = tree(&container.upper)?;
            container.size_root_fs = Some(own + sizes.image(&container.lower)?);
            container.size_rw = Some(own);
        }
        Ok(())
    }
}

/// Bytes in all files below `root`, each counted once however many names it
/// has; no link is followed. What is gone by now takes no room.
fn tree(root: &Path) -> Result<u64> {
    let mut total = 0;
    let mut seen = BTreeSet::new();
    let mut todo: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::sys("read directory", &dir, e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| Error::sys("read directory", &dir, e))?;
            let Ok(meta) = entry.metadata() else {
                continue;
            };
            if meta.is_dir() {
                todo.push(entry.path());
            } else if meta.nlink() == 1 || seen.insert((meta.dev(), meta.ino())) {
                total += meta.size();
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_measured_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), [0; 7]).unwrap();
        let mut sizes = Sizes::default();
        assert_eq!(sizes.image(dir.path()).unwrap(), 7);
        std::fs::write(dir.path().join("b"), [0; 7]).unwrap();
        assert_eq!(sizes.image(dir.path()).unwrap(), 7);
    }

    #[test]
    fn links_count_once() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/a"), [0; 1000]).unwrap();
        std::fs::hard_link(dir.path().join("sub/a"), dir.path().join("b")).unwrap();
        std::fs::write(dir.path().join("c"), [0; 5]).unwrap();
        assert_eq!(tree(dir.path()).unwrap(), 1005);
        assert_eq!(tree(&dir.path().join("nope")).unwrap(), 0);
    }
}
