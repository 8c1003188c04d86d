//! The log of events: what commands and supervisors have done, and what the LAN
//! has done to containers. Written by all of them, read by `events`.
//!
//! *Theory of operation.* No daemon collects events: whoever does something
//! appends to `<state>/events/log`, a line of JSON an event, all that happen at
//! once in one write(2) with O_APPEND. So lines of several writers never mix. A
//! log that has grown to [`MAX`] is renamed to `log.1` by the next writer, under
//! a lock, and the older one goes: two such files are all that there ever is,
//! and they die with the boot. A writer that has the renamed file open still
//! writes to it, so followers read both.
//!
//! *An event is a note, not a promise*: one that cannot be written (a full
//! disk) is lost, and what it tells of has happened all the same. A kill -9
//! between an act and its note loses the note.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::record::{Conflict, Mdns, Record};
use super::{Engine, EventsRequest, view};
use crate::base::{Error, Result, Subject};
use crate::net::spec::NetworkSpec;
use crate::store::Lock;

/// Bytes after which a new log is begun.
const MAX: u64 = 1 << 20;
const CHUNK: usize = 64 * 1024;

type Attributes = BTreeMap<String, String>;

fn event(kind: &str, action: &str, id: &str, attributes: Attributes) -> view::Event {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default();
    view::Event {
        kind: kind.to_owned(),
        action: action.to_owned(),
        actor: view::Actor {
            id: id.to_owned(),
            attributes,
        },
        scope: "local".to_owned(),
        time: now.as_secs(),
        time_nano: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
    }
}

/// Something that happened to a container: Docker's attributes (labels, image,
/// name), and those of this action.
pub(super) fn of_container(record: &Record, action: &str, more: &[(&str, &str)]) -> view::Event {
    let mut attributes = record.config.labels.clone();
    let own = [
        ("image", record.image.reference.as_str()),
        ("name", record.name.as_str()),
    ];
    for (key, value) in own.iter().chain(more) {
        attributes.insert((*key).to_owned(), (*value).to_owned());
    }
    event("container", action, record.id.as_str(), attributes)
}

/// The end of the program, and how long it ran.
pub(super) fn of_end(record: &Record, code: i32) -> view::Event {
    let started = humantime::parse_rfc3339(&record.state.started).ok();
    let ran = started.and_then(|at| at.elapsed().ok()).unwrap_or_default();
    let more = [
        ("execDuration", ran.as_secs().to_string()),
        ("exitCode", code.to_string()),
    ];
    let more = more.each_ref().map(|(key, value)| (*key, value.as_str()));
    of_container(record, "die", &more)
}

/// Something that happened to a network; for `connect` and `disconnect`, with
/// which container.
pub(super) fn of_network(
    network: &NetworkSpec,
    action: &str,
    container: Option<&str>,
) -> view::Event {
    let mut attributes = Attributes::new();
    attributes.extend(container.map(|id| ("container".to_owned(), id.to_owned())));
    attributes.insert("name".to_owned(), network.name.to_string());
    attributes.insert("type".to_owned(), network.driver.name().to_owned());
    event("network", action, network.id.as_str(), attributes)
}

/// Dockless's own.
pub(super) fn of_conflict(record: &Record, conflict: &Conflict) -> view::Event {
    let more = [
        ("address", conflict.ip.to_string()),
        ("mac", conflict.mac.to_string()),
        ("network", conflict.network.to_string()),
        ("outcome", conflict.outcome.as_str().to_owned()),
    ];
    let more = more.each_ref().map(|(key, value)| (*key, value.as_str()));
    of_container(record, "conflict", &more)
}

/// Dockless's own: the LAN knows the container by another name than it has.
pub(super) fn of_mdns(
    record: &Record,
    told: &Mdns,
    taken: &str,
    by: std::net::IpAddr,
) -> view::Event {
    let by = by.to_string();
    let more = [
        ("mdns", told.name.as_str()),
        ("network", told.network.as_str()),
        ("taken", taken),
        ("takenBy", &by),
    ];
    of_container(record, "mdns", &more)
}

impl Engine {
    fn events_folder(&self) -> PathBuf {
        self.dirs.state().join("events")
    }

    /// Notes what has happened. What one process writes is in order of time,
    /// whenever each event was put together and whatever the clock does.
    pub(super) fn note(&self, events: &[view::Event]) {
        static LAST: Mutex<u64> = Mutex::new(0);
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        for event in events {
            *last = event.time_nano.max(*last);
            let event = view::Event {
                time: *last / 1_000_000_000,
                time_nano: *last,
                ..event.clone()
            };
            if serde_json::to_writer(&mut lines, &event).is_ok() {
                lines.push(b'\n');
            }
        }
        // See above: a note that cannot be written changes nothing.
        if !lines.is_empty() {
            let _ = append(&self.events_folder(), &lines);
        }
    }

    /// Every event from `since` (else from now) to `until` (else for ever).
    pub fn events(
        &self,
        request: &EventsRequest,
        each: &mut dyn FnMut(view::Event) -> Result<()>,
    ) -> Result<()> {
        self.dirs.make()?;
        let folder = self.events_folder();
        let mut logs = Logs::open(folder.clone(), request.since.is_some())?;
        let mut changes = None;
        loop {
            let is_over = request.until.is_some_and(|end| end <= SystemTime::now());
            // Watched before the first look, so that no change falls in
            // between. For what lies in the past there is no watch: to let go
            // of one, the kernel waits for its readers (SRCU).
            if !is_over && changes.is_none() {
                changes = Some(watch(&folder)?);
            }
            for event in logs.news()? {
                if is_within(request, &event) {
                    each(event)?;
                }
            }
            match &changes {
                Some(changes) if !is_over => wait(changes, request.until)?,
                _ => return Ok(()),
            }
        }
    }
}

fn is_within(request: &EventsRequest, event: &view::Event) -> bool {
    let at = UNIX_EPOCH + std::time::Duration::from_nanos(event.time_nano);
    request.since.is_none_or(|since| at >= since) && request.until.is_none_or(|until| at <= until)
}

fn append(folder: &Path, lines: &[u8]) -> std::io::Result<()> {
    let path = folder.join("log");
    let open = || {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).open(&path)
    };
    let mut file = open()?;
    if file.metadata()?.size() >= MAX {
        rotate(folder, &path)?;
        file = open()?;
    }
    file.write_all(lines)
}

fn rotate(folder: &Path, path: &Path) -> std::io::Result<()> {
    let _lock = Lock::acquire(&folder.join(".lock")).map_err(std::io::Error::other)?;
    // Somebody else may have done it meanwhile.
    if std::fs::metadata(path)?.size() >= MAX {
        std::fs::rename(path, folder.join("log.1"))?;
    }
    Ok(())
}

fn watch(folder: &Path) -> Result<Inotify> {
    let fail = |errno: nix::Error| {
        let error = Error::sys("watch", folder, errno);
        match errno {
            nix::Error::EMFILE | nix::Error::ENOSPC => error.hint(
                "no inotify watches are left: raise fs.inotify.max_user_instances or max_user_watches",
            ),
            _ => error,
        }
    };
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(fail)?;
    let what = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    changes.add_watch(folder, what).map_err(fail)?;
    Ok(changes)
}

/// Until something has changed, or the time has come.
fn wait(changes: &Inotify, until: Option<SystemTime>) -> Result<()> {
    let timeout = match until {
        None => PollTimeout::NONE,
        Some(until) => {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        }
    };
    let mut fds = [PollFd::new(changes.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::Error::EINTR) => {}
        Err(errno) => return Err(Error::sys("wait for events", Subject::None, errno)),
    }
    match changes.read_events() {
        Ok(_) | Err(nix::Error::EAGAIN | nix::Error::EINTR) => Ok(()),
        Err(errno) => Err(Error::sys("wait for events", Subject::None, errno)),
    }
}

/// The two files, each read as far as it goes.
#[derive(Debug)]
struct Logs {
    folder: PathBuf,
    /// The older one first.
    files: Vec<Tail>,
}

#[derive(Debug)]
struct Tail {
    file: File,
    inode: u64,
    at: u64,
}

impl Logs {
    fn open(folder: PathBuf, from_start: bool) -> Result<Self> {
        let mut this = Self {
            folder,
            files: Vec::new(),
        };
        this.find()?;
        if !from_start {
            for tail in &mut this.files {
                let size = tail.file.metadata().map(|m| m.size());
                tail.at = size.map_err(|e| Error::sys("read", &this.folder, e))?;
            }
        }
        Ok(this)
    }

    /// Takes in a log that was begun since.
    fn find(&mut self) -> Result<()> {
        for name in ["log.1", "log"] {
            let path = self.folder.join(name);
            let fail = |e: std::io::Error| Error::sys("read", &path, e);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(fail(e)),
            };
            let inode = file.metadata().map_err(fail)?.ino();
            if !self.files.iter().any(|tail| tail.inode == inode) {
                self.files.push(Tail { file, inode, at: 0 });
            }
        }
        // What is older than both has no writers any more.
        let old = self.files.len().saturating_sub(2);
        self.files.drain(..old);
        Ok(())
    }

    fn news(&mut self) -> Result<Vec<view::Event>> {
        self.find()?;
        let mut events = Vec::new();
        for tail in &mut self.files {
            tail.read(&mut events)
                .map_err(|e| Error::sys("read", &self.folder, e))?;
        }
        Ok(events)
    }
}

impl Tail {
    /// Whole lines only; one that is none of ours is left out.
    fn read(&mut self, events: &mut Vec<view::Event>) -> std::io::Result<()> {
        let mut rest: Vec<u8> = Vec::new();
        loop {
            let from = rest.len();
            rest.resize(from + CHUNK, 0);
            let at = self.at + from as u64;
            let length = self.file.read_at(&mut rest[from..], at)?;
            rest.truncate(from + length);
            if let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') {
                let lines = rest[..end].split(|byte| *byte == b'\n');
                events.extend(lines.filter_map(|line| serde_json::from_slice(line).ok()));
                rest.drain(..=end);
                self.at += end as u64 + 1;
            }
            if length == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_followed_across_a_new_log() {
        let dir = tempfile::tempdir().unwrap();
        let line = |n: usize| {
            let one = event("container", "start", &format!("{n:07}"), Attributes::new());
            serde_json::to_string(&one).unwrap() + "\n"
        };
        append(dir.path(), line(0).as_bytes()).unwrap();
        let mut logs = Logs::open(dir.path().to_owned(), true).unwrap();
        let mut seen = logs.news().unwrap();
        let count = usize::try_from(MAX).unwrap() / line(0).len() * 5 / 2;
        for n in 1..count {
            append(dir.path(), line(n).as_bytes()).unwrap();
            if n % 4000 == 0 {
                seen.extend(logs.news().unwrap());
            }
        }
        // Torn by nobody: a line without an end is not there yet.
        append(dir.path(), &line(count).as_bytes()[..20]).unwrap();
        seen.extend(logs.news().unwrap());
        let ids: Vec<usize> = seen.iter().map(|e| e.actor.id.parse().unwrap()).collect();
        assert_eq!(ids, (0..count).collect::<Vec<_>>());
        append(dir.path(), &line(count).as_bytes()[20..]).unwrap();
        assert_eq!(logs.news().unwrap().len(), 1);
        let sizes: u64 = ["log", "log.1"]
            .map(|name| std::fs::metadata(dir.path().join(name)).unwrap().size())
            .iter()
            .sum();
        assert!(sizes < 2 * MAX + 1000, "{sizes}");
    }
}
