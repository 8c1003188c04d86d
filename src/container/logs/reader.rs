//! A command's end of the log: `logs` with its options.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::entry::Entry;
use super::rotated;
use crate::base::{Error, Result};

const CHUNK: usize = 64 * 1024;

/// What to show.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Go on until the container has ended (or `until` has come).
    pub follow: bool,
    /// Only so many entries from the end; `None` is all.
    pub tail: Option<u64>,
    pub since: Option<SystemTime>,
    pub until: Option<SystemTime>,
    /// Put the time before each entry.
    pub timestamps: bool,
}

/// Copies the log's entries to `out` and `err`, each stream to its own.
///
/// `ended` becomes readable when the container has ended for good (the
/// connection of a `Client` that waits); without one, `follow` ends with the
/// file, as for a container that is not running. An unreadable entry is
/// skipped with a note on `err`. `EPIPE` of `out` is an error like any other.
pub fn read(
    log: &Path,
    query: &Query,
    ended: Option<BorrowedFd<'_>>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<()> {
    let mut printer = Printer {
        query,
        log,
        since: query.since,
        batch: Vec::new(),
        stderr: false,
        out,
        err,
    };
    // Watched before the first look, so that no change falls in between.
    let follow = match ended.filter(|_| query.follow) {
        Some(ended) => Some(Follow::new(log, ended)?),
        None => None,
    };
    let files = open_all(log)?;
    let skip = query
        .tail
        .map_or(Ok((0, 0)), |lines| tail(log, &files, lines))?;
    let mut current = None;
    for (index, file) in files.into_iter().enumerate().skip(skip.0) {
        let start = if index == skip.0 { skip.1 } else { 0 };
        let mut source = Source::new(file, start);
        if source.drain(&mut printer)?.is_break() {
            return printer.flush();
        }
        if let Some(old) = current.replace(source) {
            old.finish(&mut printer)?;
        }
    }
    if let Some(follow) = follow {
        current = follow.run(current, &mut printer)?;
    }
    if let Some(mut last) = current {
        if last.has_rest() {
            // The writer may be at it just now.
            std::thread::sleep(Duration::from_millis(10));
            let _ = last.drain(&mut printer)?;
        }
        last.finish(&mut printer)?;
    }
    printer.flush()
}

/// The log's files that exist, oldest first.
fn open_all(log: &Path) -> Result<Vec<File>> {
    let mut files: Vec<(u64, File)> = Vec::new();
    let mut is_gap = false;
    for n in 0.. {
        let path = if n == 0 {
            log.to_owned()
        } else {
            rotated(log, n)
        };
        match File::open(&path) {
            Ok(file) => {
                is_gap = false;
                let inode = inode(&file, &path)?;
                // Rotated between two opens: this is the file we have.
                if files.last().is_none_or(|(last, _)| *last != inode) {
                    files.push((inode, file));
                }
            }
            // A rotation moves one after the other, the oldest first: for a
            // moment one is missing, and those behind it are there.
            Err(e) if e.kind() == ErrorKind::NotFound && !is_gap => is_gap = true,
            Err(e) if e.kind() == ErrorKind::NotFound => break,
            Err(e) => return Err(Error::sys("open log", &path, e)),
        }
    }
    Ok(files.into_iter().rev().map(|(_, file)| file).collect())
}

fn inode(file: &File, path: &Path) -> Result<u64> {
    let meta = file
        .metadata()
        .map_err(|e| Error::sys("open log", path, e))?;
    Ok(meta.ino())
}

/// File and offset at which the last `lines` lines begin.
fn tail(log: &Path, files: &[File], lines: u64) -> Result<(usize, u64)> {
    let mut missing = lines;
    let mut buffer = vec![0; CHUNK];
    for (index, file) in files.iter().enumerate().rev() {
        let fail = |e| Error::sys("read log", log, e);
        let size = file.metadata().map_err(fail)?.len();
        let mut end = size;
        while end > 0 {
            let start = end.saturating_sub(CHUNK as u64);
            let length = usize::try_from(end - start).unwrap_or(CHUNK);
            let chunk = &mut buffer[..length];
            file.read_exact_at(chunk, start).map_err(fail)?;
            for (at, _) in chunk.iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
                // Each newline ends a line; the one before it starts there.
                if missing == 0 {
                    return Ok((index, start + at as u64 + 1));
                }
                missing -= 1;
            }
            end = start;
        }
        if missing == 0 {
            return Ok((index, 0));
        }
    }
    Ok((0, 0))
}

/// One file being read.
struct Source {
    file: File,
    /// Where the next line begins.
    offset: u64,
}

type Flow = std::ops::ControlFlow<()>;

impl Source {
    fn new(file: File, offset: u64) -> Self {
        Self { file, offset }
    }

    /// Prints all whole lines there are; `Break` at the first one after `until`.
    fn drain(&mut self, printer: &mut Printer<'_>) -> Result<Flow> {
        let mut buffer = Vec::new();
        let mut filled = 0;
        loop {
            if buffer.len() - filled < CHUNK {
                buffer.resize(filled + CHUNK, 0);
            }
            let at = self.offset + filled as u64;
            let n = match self.file.read_at(&mut buffer[filled..], at) {
                Ok(n) => n,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(Error::sys("read log", printer.log, e)),
            };
            if n == 0 {
                return Ok(Flow::Continue(()));
            }
            filled += n;
            let mut used = 0;
            for line in buffer[..filled].split_inclusive(|b| *b == b'\n') {
                if line.ends_with(b"\n") {
                    if printer.line(line, self.offset)?.is_break() {
                        return Ok(Flow::Break(()));
                    }
                    used += line.len();
                    self.offset += line.len() as u64;
                }
            }
            buffer.copy_within(used..filled, 0);
            filled -= used;
        }
    }

    /// Is there half a line behind the last whole one?
    fn has_rest(&self) -> bool {
        matches!(self.file.read_at(&mut [0], self.offset), Ok(1))
    }

    /// Nothing more will come: a rest is damaged.
    fn finish(&self, printer: &mut Printer<'_>) -> Result<()> {
        if self.has_rest() {
            printer.damaged(self.offset)?;
        }
        Ok(())
    }
}

/// Where lines go, filtered and in batches.
struct Printer<'a> {
    query: &'a Query,
    log: &'a Path,
    /// Only the first entry is looked for by time: later ones are shown even
    /// if the clock was set back, as Docker does.
    since: Option<SystemTime>,
    batch: Vec<u8>,
    /// Where the batch goes.
    stderr: bool,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl Printer<'_> {
    fn line(&mut self, line: &[u8], offset: u64) -> Result<Flow> {
        if line == b"\n" {
            return Ok(Flow::Continue(()));
        }
        let Some(entry) = Entry::parse(line) else {
            self.damaged(offset)?;
            return Ok(Flow::Continue(()));
        };
        if let Some(since) = self.since {
            if entry.when().is_some_and(|when| when < since) {
                return Ok(Flow::Continue(()));
            }
            self.since = None;
        }
        if let Some(until) = self.query.until
            && entry.when().is_some_and(|when| when > until)
        {
            return Ok(Flow::Break(()));
        }
        self.turn(entry.stream == "stderr")?;
        if self.query.timestamps {
            self.batch.extend_from_slice(entry.long_time().as_bytes());
            self.batch.push(b' ');
        }
        self.batch.extend_from_slice(entry.log.as_bytes());
        if self.batch.len() >= CHUNK {
            self.write()?;
        }
        Ok(Flow::Continue(()))
    }

    fn damaged(&mut self, offset: u64) -> Result<()> {
        self.turn(true)?;
        let log = self.log.display();
        let note = format!("dockless: {log}: skipped a damaged entry at byte {offset}\n");
        self.batch.extend_from_slice(note.as_bytes());
        Ok(())
    }

    fn turn(&mut self, stderr: bool) -> Result<()> {
        if self.stderr != stderr {
            self.write()?;
            self.stderr = stderr;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let to = if self.stderr {
            &mut self.err
        } else {
            &mut self.out
        };
        let written = to.write_all(&self.batch);
        self.batch.clear();
        written.map_err(|e| Error::sys("write to", "standard output", e))
    }

    fn flush(&mut self) -> Result<()> {
        self.write()?;
        let flushed = self.out.flush().and_then(|()| self.err.flush());
        flushed.map_err(|e| Error::sys("write to", "standard output", e))
    }
}

/// Waits for the log to grow or rotate, and for the container to end.
struct Follow<'a> {
    log: &'a Path,
    changes: Inotify,
    ended: BorrowedFd<'a>,
}

impl<'a> Follow<'a> {
    fn new(log: &'a Path, ended: BorrowedFd<'a>) -> Result<Self> {
        let fail = |errno| Error::sys("watch log", log, errno);
        let changes =
            Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(fail)?;
        // The folder, not the file: its name comes and goes with rotation.
        let folder = log.parent().filter(|p| !p.as_os_str().is_empty());
        let what = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        changes.add_watch(folder.unwrap_or(Path::new(".")), what).map_err(|errno| {
            let error = fail(errno);
            match errno {
                nix::errno::Errno::EMFILE | nix::errno::Errno::ENOSPC => {
                    error.hint("no inotify watches are left: raise fs.inotify.max_user_instances or max_user_watches")
                }
                _ => error,
            }
        })?;
        Ok(Self {
            log,
            changes,
            ended,
        })
    }

    /// Returns the file that is newest at the end.
    fn run(self, mut current: Option<Source>, to: &mut Printer<'_>) -> Result<Option<Source>> {
        loop {
            // Asked before reading: what was written before the end is read.
            let ended = self.wait(Some(Duration::ZERO))?;
            if self.catch_up(&mut current, to)?.is_break() || ended {
                return Ok(current);
            }
            to.flush()?;
            let left = match to.query.until {
                Some(until) => match until.duration_since(SystemTime::now()) {
                    Ok(left) => Some(left),
                    Err(_) => return Ok(current),
                },
                None => None,
            };
            self.wait(left)?;
            while self
                .changes
                .read_events()
                .is_ok_and(|events| !events.is_empty())
            {}
        }
    }

    /// Reads to the end of the newest file, through all rotations in between.
    fn catch_up(&self, current: &mut Option<Source>, to: &mut Printer<'_>) -> Result<Flow> {
        loop {
            let Some(source) = current else {
                let Some(oldest) = open_all(self.log)?.into_iter().next() else {
                    return Ok(Flow::Continue(()));
                };
                *current = Some(Source::new(oldest, 0));
                continue;
            };
            // In this order: a file that is no longer the newest gets no more
            // lines, so reading it after this look reads it to its end.
            let mine = inode(&source.file, self.log)?;
            let newest = std::fs::metadata(self.log).is_ok_and(|meta| meta.ino() == mine);
            if source.drain(to)?.is_break() {
                return Ok(Flow::Break(()));
            }
            if newest {
                return Ok(Flow::Continue(()));
            }
            let files = open_all(self.log)?;
            let mut inodes = Vec::with_capacity(files.len());
            for file in &files {
                inodes.push(inode(file, self.log)?);
            }
            // Not found: rotated away, so all that exist are newer.
            let next = inodes
                .iter()
                .position(|i| *i == mine)
                .map_or(0, |at| at + 1);
            let Some(file) = files.into_iter().nth(next) else {
                return Ok(Flow::Continue(()));
            };
            source.finish(to)?;
            *current = Some(Source::new(file, 0));
        }
    }

    /// Has the container ended? Looks after a change or the timeout.
    fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        let mut fds = [
            PollFd::new(self.ended, PollFlags::POLLIN),
            PollFd::new(self.changes.as_fd(), PollFlags::POLLIN),
        ];
        // Rounded up, so that a last millisecond is not spent spinning.
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            let millis = left.as_micros().div_ceil(1000);
            PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::sys("watch log", self.log, errno)),
        }
        Ok(fds[0].any() == Some(true))
    }
}

#[cfg(test)]
mod tests;
