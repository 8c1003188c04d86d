//! Docker's json-file log: one JSON object a line (`log`, `stream`, `time`),
//! size rotation, and reading it back (`logs -f --tail --since --until -t`).
//!
//! *Theory of operation.* One supervisor writes, any number of commands read;
//! they share nothing but the files. Output is cut into entries as Docker
//! does: one per line, and one per 16 KiB of a longer line, without the
//! newline at its end. What has no newline yet is kept back until it has one,
//! or the stream ends. The writer appends all entries of one read from the
//! container with one write(2).
//!
//! `max-size` is looked at before each entry, so a file passes it by at most
//! one entry. Rotation renames `LOG` to `LOG.1`, `LOG.1` to `LOG.2`, … and
//! unlinks the oldest; nothing is ever copied or truncated, so that a reader
//! who has a file open reads it to its end wherever its name has gone.
//!
//! Readers open newest first and skip an inode they have: a rotation in
//! between can then neither hide a file nor show it twice.

mod entry;
mod reader;
mod writer;

pub use reader::{Query, read};
pub use writer::Writer;

/// Which of the container's streams; a terminal's output counts as stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

/// `LOG.n`, the n-th older file.
fn rotated(log: &std::path::Path, n: u32) -> std::path::PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}
