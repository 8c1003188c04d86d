//! The supervisor's end of the log.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::entry::{encode, timestamp};
use super::{Stream, rotated};
use crate::base::{Error, Result};

/// Docker's: a longer line becomes several entries.
const ENTRY_MAX: usize = 16 * 1024;
/// A read full of empty lines grows seventyfold as JSON: write before that.
const BATCH_MAX: usize = 64 * 1024;

/// Appends the container's output. An error while writing (a full disk) never
/// reaches the container: what could not be written is counted, and the next
/// entry that can be written is preceded by one that says so.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    max_size: Option<u64>,
    max_files: u32,
    /// `None` after a rotation, until the next write.
    file: Option<File>,
    size: u64,
    lines: [Line; 2],
    batch: Vec<u8>,
    lost: Option<(u64, Error)>,
}

/// The unfinished line of one stream.
#[derive(Debug, Default)]
struct Line {
    kept: Vec<u8>,
    /// Time of the line's first entry, which its further ones share.
    since: Option<String>,
}

impl Writer {
    /// Opens the log for appending and makes it if need be (mode 0640).
    pub fn open(path: &Path, max_size: Option<u64>, max_files: u32) -> Result<Self> {
        let file = options()
            .open(path)
            .map_err(|e| fail("open log", path, &e))?;
        let size = file
            .metadata()
            .map_err(|e| fail("open log", path, &e))?
            .len();
        let mut batch = Vec::new();
        let mut last = [0];
        // A line that a killed predecessor left unfinished stays on its own.
        if size > 0 && file.read_at(&mut last, size - 1).is_ok_and(|n| n == 1) && last != *b"\n" {
            batch.push(b'\n');
        }
        Ok(Self {
            path: path.to_owned(),
            max_size,
            max_files,
            file: Some(file),
            size,
            lines: Default::default(),
            batch,
            lost: None,
        })
    }

    /// Takes one read's worth of output.
    pub fn write(&mut self, stream: Stream, mut bytes: &[u8], now: SystemTime) {
        let time = timestamp(now);
        while !bytes.is_empty() {
            let kept = self.lines[stream.index()].kept.len();
            let newline = bytes
                .iter()
                .take(ENTRY_MAX - kept)
                .position(|b| *b == b'\n');
            let (text, whole) = match newline {
                Some(at) => (&bytes[..at], true),
                None => (&bytes[..bytes.len().min(ENTRY_MAX - kept)], false),
            };
            bytes = &bytes[text.len() + usize::from(whole)..];
            if whole || kept + text.len() == ENTRY_MAX {
                self.entry(stream, text, whole, &time);
            } else {
                self.lines[stream.index()].kept.extend_from_slice(text);
            }
        }
        self.flush();
    }

    /// The stream has ended: what is left has no newline.
    pub fn end(&mut self, stream: Stream, now: SystemTime) {
        if !self.lines[stream.index()].kept.is_empty() {
            self.entry(stream, &[], false, &timestamp(now));
        }
        self.lines[stream.index()] = Line::default();
        self.flush();
    }

    /// Gives back the memory that only a busy log needs.
    pub fn rest(&mut self) {
        self.batch = Vec::new();
        for line in &mut self.lines {
            line.kept.shrink_to_fit();
        }
    }

    /// The line kept back so far, plus `text`, as one entry.
    fn entry(&mut self, stream: Stream, text: &[u8], whole: bool, time: &str) {
        let full = self
            .max_size
            .is_some_and(|max| self.size + self.batch.len() as u64 >= max);
        if full {
            self.flush();
            self.rotate();
        }
        let line = &mut self.lines[stream.index()];
        let since = line.since.take();
        let since = since.as_deref().unwrap_or(time);
        if line.kept.is_empty() {
            encode(&mut self.batch, text, whole, stream, since);
        } else {
            line.kept.extend_from_slice(text);
            encode(&mut self.batch, &line.kept, whole, stream, since);
            line.kept.clear();
        }
        if !whole {
            line.since = Some(since.to_owned());
        }
        if self.batch.len() >= BATCH_MAX {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if let Some((bytes, error)) = self.lost.take() {
            let mut note = Vec::new();
            let text = format!("dockless: {bytes} bytes of this log were lost: {error}");
            encode(
                &mut note,
                text.as_bytes(),
                true,
                Stream::Stderr,
                &timestamp(SystemTime::now()),
            );
            note.append(&mut self.batch);
            self.batch = note;
            self.append(bytes);
        } else {
            self.append(0);
        }
        self.batch.clear();
    }

    /// Writes the batch as a whole or not at all. `lost` bytes before it were
    /// not written.
    fn append(&mut self, lost: u64) {
        let written = self.open_again().and_then(|()| match &mut self.file {
            Some(file) => file.write_all(&self.batch),
            None => Ok(()),
        });
        match written {
            Ok(()) => self.size += self.batch.len() as u64,
            Err(error) => {
                // Half a line would damage the next one too.
                if let Some(file) = &self.file {
                    let _ = file.set_len(self.size);
                }
                let error = fail("write log", &self.path, &error);
                self.lost = Some((lost + self.batch.len() as u64, error));
            }
        }
    }

    /// After a rotation, or one that could not open the new file.
    fn open_again(&mut self) -> std::io::Result<()> {
        if self.file.is_none() {
            let file = options().open(&self.path)?;
            self.size = file.metadata()?.len();
            self.file = Some(file);
        }
        Ok(())
    }

    /// Never truncates: a reader may be in the middle of the file.
    fn rotate(&mut self) {
        self.file = None;
        if self.max_files < 2 {
            let _ = std::fs::remove_file(&self.path);
        } else {
            // Each rename replaces its target, the oldest file's included. A
            // gap (a file removed by hand) is no obstacle.
            for n in (1..self.max_files - 1).rev() {
                let _ = std::fs::rename(rotated(&self.path, n), rotated(&self.path, n + 1));
            }
            let _ = std::fs::rename(&self.path, rotated(&self.path, 1));
        }
        // If even that failed, the log goes on in the old file.
        self.size = 0;
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW);
    options
}

fn fail(op: &'static str, path: &Path, error: &std::io::Error) -> Error {
    crate::store::file::explain(op, path, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: Duration = Duration::new(1_700_000_000, 0);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW
    }

    /// (log, stream) of each entry.
    fn entries(path: &Path) -> Vec<(String, String)> {
        std::fs::read_to_string(path)
            .unwrap()
            .lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).unwrap();
                let text = |key: &str| value[key].as_str().unwrap().to_owned();
                (text("log"), text("stream"))
            })
            .collect()
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect()
    }

    #[test]
    fn lines_are_entries_and_the_unfinished_one_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Writer::open(&path, None, 1).unwrap();
        log.write(Stream::Stdout, b"one\n\ntw", now());
        log.write(Stream::Stderr, b"err\n", now());
        assert_eq!(
            entries(&path),
            pairs(&[("one\n", "stdout"), ("\n", "stdout"), ("err\n", "stderr")])
        );
        log.write(Stream::Stdout, b"o\nthree", now());
        log.end(Stream::Stdout, now());
        log.end(Stream::Stderr, now());
        assert_eq!(
            entries(&path)[3..],
            pairs(&[("two\n", "stdout"), ("three", "stdout")])
        );
    }

    /// However the output is cut into reads, the entries are the same.
    #[test]
    fn long_lines_are_cut_at_16_kib_as_docker_does() {
        for length in [ENTRY_MAX - 1, ENTRY_MAX, ENTRY_MAX + 1, 3 * ENTRY_MAX + 5] {
            for step in [1, 4095, 16384, 100_000] {
                let dir = tempfile::tempdir().unwrap();
                let path = dir.path().join("log");
                let mut text = vec![b'x'; length];
                text.extend_from_slice(b"\nnext\n");
                let mut log = Writer::open(&path, None, 1).unwrap();
                for (n, part) in text.chunks(step).enumerate() {
                    log.write(Stream::Stdout, part, now() + Duration::from_secs(n as u64));
                }
                let found = entries(&path);
                let mut expected = vec![ENTRY_MAX; length / ENTRY_MAX];
                expected.push(length % ENTRY_MAX + 1);
                expected.push(5);
                let lengths: Vec<_> = found.iter().map(|e| e.0.len()).collect();
                assert_eq!(lengths, expected, "{length} by {step}");
                // All entries of a line carry the time of the first.
                let content = std::fs::read_to_string(&path).unwrap();
                let times: Vec<_> = content
                    .lines()
                    .map(|l| l.rsplit_once("time").unwrap().1)
                    .collect();
                for pair in times[..times.len() - 1].windows(2) {
                    assert_eq!(pair[0], pair[1]);
                }
            }
        }
    }

    #[test]
    fn rotates_by_size_and_keeps_so_many_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Writer::open(&path, Some(1000), 3).unwrap();
        for n in 0..100 {
            log.write(Stream::Stdout, format!("{n}\n").as_bytes(), now());
        }
        let mut found: Vec<String> = Vec::new();
        for file in [rotated(&path, 2), rotated(&path, 1), path.clone()] {
            let size = std::fs::metadata(&file).unwrap().len();
            assert!(size < 1080, "{size}");
            found.extend(entries(&file).into_iter().map(|e| e.0.trim().to_owned()));
        }
        let expected: Vec<String> = (100 - found.len()..100).map(|n| n.to_string()).collect();
        assert_eq!(found, expected);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);

        // A second writer (the container was started again) goes on.
        let mut log = Writer::open(&path, Some(1000), 1).unwrap();
        let text = "y\n".repeat(40);
        log.write(Stream::Stdout, text.as_bytes(), now());
        assert!(std::fs::metadata(&path).unwrap().len() < 1080);
    }

    #[test]
    fn an_unfinished_line_of_a_killed_writer_stays_on_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "{\"log\":\"hal").unwrap();
        let mut log = Writer::open(&path, None, 1).unwrap();
        log.write(Stream::Stdout, b"next\n", now());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("{\"log\":\"hal\n{\"log\":\"next"),
            "{text}"
        );
    }

    #[test]
    fn a_full_disk_loses_whole_entries_and_says_so_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = Writer::open(&path, None, 1).unwrap();
        log.write(Stream::Stdout, b"one\n", now());
        log.file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
        log.write(Stream::Stdout, b"two\n", now());
        log.write(Stream::Stdout, b"three\n", now());
        log.file = Some(options().open(&path).unwrap());
        log.write(Stream::Stdout, b"four\n", now());
        let found = entries(&path);
        assert_eq!(found[0].0, "one\n");
        assert!(
            found[1]
                .0
                .contains("bytes of this log were lost: write log"),
            "{found:?}"
        );
        assert!(found[1].0.contains("no space left"), "{found:?}");
        assert_eq!(found[2].0, "four\n");
    }
}
