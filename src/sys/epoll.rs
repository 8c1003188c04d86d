//! The event loop's poll set: epoll, level-triggered, keyed by a `u64`.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::base::Result;

pub use nix::sys::epoll::EpollFlags;

#[derive(Debug)]
pub struct Epoll(#[allow(dead_code)] OwnedFd);

impl Epoll {
    pub fn new() -> Result<Self> {
        todo!()
    }
    pub fn add(&self, _fd: impl AsFd, _events: EpollFlags, _key: u64) -> Result<()> {
        todo!()
    }
    pub fn modify(&self, _fd: impl AsFd, _events: EpollFlags, _key: u64) -> Result<()> {
        todo!()
    }
    pub fn remove(&self, _fd: impl AsFd) -> Result<()> {
        todo!()
    }
    /// Waits (for ever without a timeout; retries EINTR) and appends what is
    /// ready to `out`, which is cleared first.
    pub fn wait(
        &self,
        _out: &mut Vec<(u64, EpollFlags)>,
        _timeout: Option<Duration>,
    ) -> Result<()> {
        todo!()
    }
}
