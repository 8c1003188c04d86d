//! CLOCK_BOOTTIME, and a timer on it: time goes on while the machine sleeps,
//! and what fell due meanwhile is due when it wakes.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::base::{Error, Result, Subject};

/// Since boot.
pub fn now() -> Result<Duration> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map(Duration::from)
        .map_err(|e| Error::sys("read clock", Subject::None, e))
}

/// A timerfd: readable from its time on, until it is set anew.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    pub fn new() -> Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)
            .map(Self)
            .map_err(|e| Error::sys("create timer", Subject::None, e))
    }

    /// `at`: since boot; `None` never.
    pub fn set(&self, at: Option<Duration>) -> Result<()> {
        match at {
            // A time of zero would turn it off.
            Some(at) => self.0.set(
                Expiration::OneShot(TimeSpec::from_duration(at.max(Duration::from_nanos(1)))),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            ),
            None => self.0.unset(),
        }
        .map_err(|e| Error::sys("set timer", Subject::None, e))
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    #[test]
    fn it_is_ready_at_its_time_and_until_it_is_set_anew() {
        let timer = Timer::new().unwrap();
        let ready = |ms: u16| {
            let mut fds = [PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(ms)).unwrap() == 1
        };
        assert!(!ready(0));
        let at = now().unwrap() + Duration::from_millis(20);
        timer.set(Some(at)).unwrap();
        assert!(!ready(0));
        assert!(ready(1000) && now().unwrap() >= at);
        assert!(ready(0));
        timer.set(None).unwrap();
        assert!(!ready(0));
        timer.set(Some(Duration::ZERO)).unwrap();
        assert!(ready(100));
    }
}
