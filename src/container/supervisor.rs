//! The supervisor: one per container, one thread, one epoll loop. Reaps the
//! container's first process, keeps its log, serves attach, wait, stop, signal
//! and restart on a control socket, and whatever duties the engine gives it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use super::launch::Running;
use crate::base::Result;
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::process::ExitStatus;

/// What the supervisor asks of the engine. Networks, ports and records are the
/// owner's; processes, streams and clients the supervisor's.
pub trait Owner {
    /// Adds the owner's fds. Keys handed to the owner lie below `1 << 48`.
    fn register(&mut self, epoll: &Epoll) -> Result<()>;
    /// One of the owner's fds is ready.
    fn ready(&mut self, key: u64, events: EpollFlags) -> Result<()>;
    /// Next moment at which `on_time` must be called; `None`: no timer at all.
    fn deadline(&self) -> Option<Instant>;
    fn on_time(&mut self, now: Instant) -> Result<()>;
    /// A request that is not the supervisor's own (`connect`, `disconnect`,
    /// `publish`, …): `verb` and `body` from the control socket, with the fds
    /// that came along.
    fn command(&mut self, verb: &str, body: Value, fds: Vec<OwnedFd>) -> Result<Value>;
    /// The first process has ended; the streams are drained. Record it. With
    /// `restart` the next call is `relaunch`, and namespaces and networks stay.
    fn exited(&mut self, status: ExitStatus, restart: bool) -> Result<()>;
    /// Start the program again in the same network namespace.
    fn relaunch(&mut self) -> Result<Running>;
    /// Freeze or thaw the container's cgroup.
    fn pause(&mut self, on: bool) -> Result<()>;
    /// Kill what is left in the cgroup (children of a dead pid 1 cannot
    /// survive it in a pid namespace; this is for the undo path).
    fn kill_all(&mut self) -> Result<()>;
}

/// What the supervisor needs to know about its container.
#[derive(Debug)]
pub struct Settings {
    /// Folder (`<state>/containers/<id>`) in which to bind the control socket
    /// `sock` (through /proc/self/fd, so that long paths work).
    pub live: PathBuf,
    /// The json-file log, and its rotation (Docker: max-size, max-file).
    pub log: PathBuf,
    pub log_max_size: Option<u64>,
    pub log_max_files: u32,
    pub tty: bool,
    pub open_stdin: bool,
    /// `--stop-signal` (SIGTERM unless given) and `--stop-timeout` (10 s).
    pub stop_signal: i32,
    pub stop_timeout_s: u32,
    /// An attached client that is there from the start (`run` without `-d`):
    /// our end of a SEQPACKET pair, so that no output is ever missed.
    pub first_client: Option<OwnedFd>,
}

/// Runs until the container has ended for good; then tells every waiting
/// client and returns.
pub fn run(_settings: Settings, _running: Running, _owner: &mut dyn Owner) -> Result<ExitStatus> {
    todo!()
}
