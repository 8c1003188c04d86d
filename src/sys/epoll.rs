//! The event loop's poll set: epoll, level-triggered, keyed by a `u64`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{EpollCreateFlags, EpollEvent, EpollTimeout};

use super::{process, raw};
use crate::base::{Error, Result, Subject};

pub use nix::sys::epoll::EpollFlags;

#[derive(Debug)]
pub struct Epoll(nix::sys::epoll::Epoll);

fn fail(op: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::sys(op, Subject::None, errno)
}

impl Epoll {
    pub fn new() -> Result<Self> {
        nix::sys::epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map(Self)
            .map_err(fail("create poll set"))
    }

    /// A second handle of the same poll set.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.0.0.try_clone();
        fd.map(|fd| Self(nix::sys::epoll::Epoll(fd)))
            .map_err(|e| Error::sys("share poll set", Subject::None, e))
    }

    pub fn add(&self, fd: impl AsFd, events: EpollFlags, key: u64) -> Result<()> {
        self.0
            .add(fd, EpollEvent::new(events, key))
            .map_err(fail("add to poll set"))
    }

    pub fn modify(&self, fd: impl AsFd, events: EpollFlags, key: u64) -> Result<()> {
        self.0
            .modify(fd, &mut EpollEvent::new(events, key))
            .map_err(fail("modify poll set"))
    }

    pub fn remove(&self, fd: impl AsFd) -> Result<()> {
        self.0.delete(fd).map_err(fail("remove from poll set"))
    }

    /// Waits (for ever without a timeout; retries EINTR) and appends what is
    /// ready to `out`, which is cleared first.
    pub fn wait(&self, out: &mut Vec<(u64, EpollFlags)>, timeout: Option<Duration>) -> Result<()> {
        out.clear();
        let end = timeout.map(|t| Instant::now() + t);
        let mut left = timeout;
        loop {
            let mut events = [EpollEvent::empty(); 32];
            match self.0.wait(&mut events, milliseconds(left)) {
                Ok(n) => {
                    out.extend(events[..n].iter().map(|e| (e.data(), e.events())));
                    return Ok(());
                }
                Err(Errno::EINTR) => left = end.map(|e| e.duration_since(Instant::now())),
                Err(e) => return Err(fail("wait for events")(e)),
            }
        }
    }
}

impl Epoll {
    /// Gives the process's memory back and waits until something is ready (for
    /// [`Epoll::wait`] to fetch), or as long. For a process that expects to
    /// sleep; waking up costs it some page faults.
    pub fn wait_at_rest(&self, timeout: Option<Duration>) {
        process::shrink();
        let timeout = milliseconds(timeout).into();
        raw::forget_read_only_and_wait(&raw::read_only_segments(), self.as_fd(), timeout);
    }
}

/// Rounded up: a timer that wakes early would find nothing due and spin.
fn milliseconds(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else {
        return EpollTimeout::NONE;
    };
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    i32::try_from(ms)
        .ok()
        .and_then(|ms| EpollTimeout::try_from(ms).ok())
        .unwrap_or(EpollTimeout::MAX)
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;

    #[test]
    fn reports_by_key_and_never_before_its_time() {
        let epoll = Epoll::new().unwrap();
        let (r, w) = fd::pipe().unwrap();
        epoll.add(&r, EpollFlags::EPOLLIN, 7).unwrap();
        let mut out = vec![(1, EpollFlags::EPOLLIN)];
        let start = Instant::now();
        epoll
            .wait(&mut out, Some(Duration::from_micros(1500)))
            .unwrap();
        assert!(out.is_empty() && start.elapsed() >= Duration::from_micros(1500));
        nix::unistd::write(&w, b"x").unwrap();
        epoll.wait(&mut out, None).unwrap();
        assert_eq!(out, [(7, EpollFlags::EPOLLIN)]);
        epoll.modify(&r, EpollFlags::empty(), 7).unwrap();
        epoll.wait(&mut out, Some(Duration::ZERO)).unwrap();
        assert!(out.is_empty());
        epoll.remove(&r).unwrap();
        assert!(epoll.remove(&r).unwrap_err().is_errno(libc::ENOENT));
    }

    #[test]
    fn at_rest_it_wakes_for_what_is_ready_and_in_time() {
        let epoll = Epoll::new().unwrap();
        let (r, w) = fd::pipe().unwrap();
        epoll.add(&r, EpollFlags::EPOLLIN, 7).unwrap();
        let start = Instant::now();
        epoll.wait_at_rest(Some(Duration::from_millis(1100)));
        assert!(start.elapsed() >= Duration::from_millis(1100));
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            nix::unistd::write(&w, b"x").unwrap();
            w
        });
        epoll.wait_at_rest(None);
        let mut out = Vec::new();
        epoll.wait(&mut out, Some(Duration::ZERO)).unwrap();
        assert_eq!(out, [(7, EpollFlags::EPOLLIN)]);
        drop(writer.join().unwrap());
    }

    #[test]
    fn timeouts_round_up() {
        assert_eq!(milliseconds(Some(Duration::from_nanos(1))), 1_u8.into());
        assert_eq!(milliseconds(Some(Duration::MAX)), EpollTimeout::MAX);
        assert_eq!(milliseconds(None), EpollTimeout::NONE);
    }
}
