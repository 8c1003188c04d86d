//! The undo journal as a file: one JSON line a step, in `<state>` (tmpfs), so
//! that whoever finds a dead starter's journal can carry its steps out.
//!
//! *Theory of operation.* A step is recorded before its effect, with a single
//! write(2) to a file opened O_APPEND: after a `kill -9` the line is there as
//! a whole, not at all, or (a signal between two pages) cut off at the end of
//! the file. A cut-off last line was never followed by its effect and is
//! ignored. Nothing is synced: journal and effects end with the same boot.
//! A line that cannot be understood (edited by hand, or a later version's)
//! keeps nobody from undoing the others.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::file::explain;
use crate::base::{Error, Journal, Result, Step};

/// What a journal says.
#[derive(Debug, Default)]
pub struct Entries {
    /// In the order in which they were recorded.
    pub steps: Vec<Step>,
    /// One for each line that cannot be understood; says what it contains.
    pub damaged: Vec<Error>,
}

#[derive(Debug)]
pub struct FileJournal {
    file: File,
    path: PathBuf,
}

impl FileJournal {
    /// A new, empty journal. An existing one still has steps to undo and is
    /// an error.
    pub fn create(path: &Path) -> Result<Self> {
        let file = options().create_new(true).open(path).map_err(|e| {
            let error = io("create journal", path, &e);
            match e.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    error.hint("a start that was killed left it: `dockless gc` undoes its steps")
                }
                _ => error,
            }
        })?;
        Ok(Self::from_file(file, path))
    }

    /// The journal of a container that runs, to add steps to. A line cut off
    /// at the end is removed, so that the next one starts on its own.
    pub fn open_append(path: &Path) -> Result<Self> {
        let fail = |e: std::io::Error| io("open journal", path, &e);
        let mut file = options().create(true).open(path).map_err(fail)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail)?;
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).map_err(fail)?;
        }
        Ok(Self::from_file(file, path))
    }

    fn from_file(file: File, path: &Path) -> Self {
        let path = path.to_owned();
        Self { file, path }
    }

    /// All steps that were recorded. No journal: none.
    pub fn read(path: &Path) -> Result<Entries> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Entries::default()),
            Err(e) => return Err(io("read journal", path, &e)),
        };
        Ok(Entries::parse(path, &bytes))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Entries {
    /// The content of the journal at `path`.
    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Self {
        let mut entries = Self::default();
        for (number, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
            let Some(line) = line.strip_suffix(b"\n") else {
                break; // cut off by a kill: its effect never took place
            };
            match serde_json::from_slice(line) {
                Ok(step) => entries.steps.push(step),
                Err(e) => entries.damaged.push(damaged(path, number + 1, line, &e)),
            }
        }
        entries
    }
}

impl Journal for FileJournal {
    fn record(&mut self, step: &Step) -> Result<()> {
        let mut line =
            serde_json::to_vec(step).map_err(|e| Error::parse("record step in", &self.path, e))?;
        line.push(b'\n');
        // A short write means a full file system: the rest would fail too, and
        // a cut-off line is ignored by the reader and by `open_append`.
        loop {
            match self.file.write(&line) {
                Ok(n) if n == line.len() => return Ok(()),
                Ok(_) => return Err(explain("record step in", &self.path, Errno::ENOSPC)),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io("record step in", &self.path, &e)),
            }
        }
    }
}

impl AsFd for FileJournal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn damaged(path: &Path, number: usize, line: &[u8], why: &serde_json::Error) -> Error {
    let line = String::from_utf8_lossy(line);
    let why = format!("line {number}, {:?}: {why}", line.trim_end());
    Error::parse("undo what is recorded in", path, why)
        .hint("if that line names something that is still there, remove it by hand")
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW);
    options
}

fn io(op: &'static str, path: &Path, error: &std::io::Error) -> Error {
    explain(
        op,
        path,
        Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(name: &str) -> Step {
        Step::RemoveTree { path: name.into() }
    }

    #[test]
    fn gives_back_what_was_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let steps = |path| FileJournal::read(path).unwrap().steps;
        assert_eq!(steps(&path), []);
        let mut journal = FileJournal::create(&path).unwrap();
        journal.record(&step("a")).unwrap();
        journal.record(&step("b\n\"ä")).unwrap();
        drop(journal);
        let mut journal = FileJournal::open_append(&path).unwrap();
        journal.record(&step("c")).unwrap();
        assert_eq!(steps(&path), [step("a"), step("b\n\"ä"), step("c")]);
        let error = FileJournal::create(&path).unwrap_err();
        assert!(error.is_errno(libc::EEXIST), "{error}");
        assert!(error.to_string().contains("gc"), "{error}");
    }

    /// Whatever byte a kill cuts the file at, every whole line is read back,
    /// and appending goes on behind the last of them.
    #[test]
    fn survives_a_cut_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = FileJournal::create(&path).unwrap();
        journal.record(&step("a")).unwrap();
        journal.record(&step("b")).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let line = whole.len() / 2;
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let kept = cut / line;
            assert_eq!(FileJournal::read(&path).unwrap().steps.len(), kept);
            let mut journal = FileJournal::open_append(&path).unwrap();
            journal.record(&step("c")).unwrap();
            let steps = FileJournal::read(&path).unwrap().steps;
            assert_eq!(steps.len(), kept + 1);
            assert_eq!(steps.last(), Some(&step("c")));
        }
    }

    #[test]
    fn a_damaged_line_is_named_and_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = FileJournal::create(&path).unwrap();
        journal.record(&step("a")).unwrap();
        std::fs::write(
            &path,
            [
                b"{oops}\n",
                &std::fs::read(&path).unwrap()[..],
                b"{\"step\":\"fly\",\"to\":\"moon\"}\n",
            ]
            .concat(),
        )
        .unwrap();
        let entries = FileJournal::read(&path).unwrap();
        assert_eq!(entries.steps, [step("a")]);
        let texts: Vec<String> = entries.damaged.iter().map(Error::to_string).collect();
        assert!(texts[0].contains("line 1, \"{oops}\""), "{texts:?}");
        assert!(texts[1].contains("line 3"), "{texts:?}");
        assert!(texts[1].contains("moon"), "{texts:?}");
        assert!(texts[1].contains("journal"), "{texts:?}");
    }
}
