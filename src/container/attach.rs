//! The client's side of a supervisor's control socket: attach, wait, stop,
//! kill, restart, resize, exec's pidfd; and the engine's own verbs.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use serde_json::Value;

use crate::base::Result;

use crate::sys::process::{ExitStatus, PidFd};

/// A connection to a supervisor.
#[derive(Debug)]
pub struct Client {}

/// The key sequence that detaches a terminal (`--detach-keys`): ctrl-p ctrl-q
/// unless given, never when empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    bytes: [u8; 16],
    len: usize,
}

impl DetachKeys {
    /// `None` when there are more than 16.
    pub fn new(keys: &[u8]) -> Option<Self> {
        let mut bytes = [0; 16];
        bytes.get_mut(..keys.len())?.copy_from_slice(keys);
        Some(Self {
            bytes,
            len: keys.len(),
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Default for DetachKeys {
    fn default() -> Self {
        let mut bytes = [0; 16];
        bytes[0] = 0x10; // ctrl-p
        bytes[1] = 0x11; // ctrl-q
        Self { bytes, len: 2 }
    }
}

/// How to relay an attached container's streams.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relay {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
    /// Pass SIGINT, SIGTERM, SIGHUP, … on to the container (no tty).
    pub sig_proxy: bool,
    /// On a tty only.
    pub detach_keys: DetachKeys,
}

impl Client {
    /// Connects to `<live>/sock`. `Ok(None)` when nobody listens there.
    pub fn connect(_live: &Path) -> Result<Option<Self>> {
        todo!()
    }
    /// Wraps our end of the pair whose other end is `Settings::first_client`.
    pub fn from_pair(_fd: OwnedFd) -> Self {
        todo!()
    }
    /// Raw terminal, SIGWINCH, stdin, detach keys (ctrl-p ctrl-q: `Ok(None)`),
    /// until the container ends or, after a restart, ends again.
    pub fn relay(&mut self, _how: Relay) -> Result<Option<ExitStatus>> {
        todo!()
    }
    /// Blocks until the container ends. Without a restart in between that is
    /// the program's status.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        todo!()
    }
    pub fn signal(&mut self, _signal: i32) -> Result<()> {
        todo!()
    }
    /// Stop signal, then SIGKILL after the timeout (None: the container's own;
    /// negative: never). Returns when it has ended.
    pub fn stop(&mut self, _signal: Option<i32>, _timeout_s: Option<i64>) -> Result<()> {
        todo!()
    }
    /// Returns when the program runs again.
    pub fn restart(&mut self, _signal: Option<i32>, _timeout_s: Option<i64>) -> Result<()> {
        todo!()
    }
    pub fn pause(&mut self, _on: bool) -> Result<()> {
        todo!()
    }
    /// pidfd of the first process.
    pub fn pidfd(&mut self) -> Result<PidFd> {
        todo!()
    }
    /// An `Owner` verb. Fds go along and come back.
    pub fn command(&mut self, _verb: &str, _body: Value, _fds: &[BorrowedFd<'_>]) -> Result<Value> {
        todo!()
    }
}
