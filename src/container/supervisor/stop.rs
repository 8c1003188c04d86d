//! How a stop or restart goes on: the stop signal, time for the program to
//! heed it, SIGKILL.

use std::time::{Duration, Instant};

/// What a signal 9 needs at most; beyond it the process hangs in the kernel.
const KILL_TAKES: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Stopping {
    /// When patience ends; `None` never.
    deadline: Option<Instant>,
    killed: bool,
    /// Start the program again: the latest request decides.
    pub(super) restart: bool,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Kill,
    /// Even SIGKILL did not end it.
    GiveUp,
}

impl Stopping {
    pub(super) fn new(restart: bool) -> Self {
        Self {
            deadline: None,
            killed: false,
            restart,
        }
    }

    /// One more request. The shortest of several timeouts counts; a negative
    /// one asks for none.
    pub(super) fn join(&mut self, now: Instant, timeout: i64, restart: bool) {
        self.restart = restart;
        if let (Ok(seconds), false) = (u64::try_from(timeout), self.killed) {
            let deadline = now + Duration::from_secs(seconds.min(u64::from(u32::MAX)));
            self.deadline = Some(self.deadline.map_or(deadline, |d| d.min(deadline)));
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn on_time(&mut self, now: Instant) -> Due {
        match self.deadline {
            Some(deadline) if deadline <= now => {}
            _ => return Due::Nothing,
        }
        if self.killed {
            self.deadline = None;
            return Due::GiveUp;
        }
        self.killed(now);
        Due::Kill
    }

    /// SIGKILL has been sent.
    pub(super) fn killed(&mut self, now: Instant) {
        if !self.killed {
            self.killed = true;
            self.deadline = Some(now + KILL_TAKES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_timeout_counts_and_the_last_wish() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut stopping = Stopping::new(false);
        stopping.join(now, -1, false);
        assert_eq!(stopping.deadline(), None);
        stopping.join(now, 10, true);
        stopping.join(now, 20, false);
        stopping.join(now, -1, true);
        assert!(stopping.restart);
        assert_eq!(stopping.on_time(now + 9 * second), Due::Nothing);
        assert_eq!(stopping.on_time(now + 10 * second), Due::Kill);
        stopping.join(now + 11 * second, 0, true);
        assert_eq!(stopping.on_time(now + 19 * second), Due::Nothing);
        assert_eq!(stopping.on_time(now + 20 * second), Due::GiveUp);
        assert_eq!(stopping.on_time(now + 99 * second), Due::Nothing);
    }

    #[test]
    fn zero_seconds_is_at_once_and_the_longest_time_does_not_overflow() {
        let now = Instant::now();
        let mut stopping = Stopping::new(false);
        stopping.join(now, i64::MAX, false);
        assert_eq!(stopping.on_time(now), Due::Nothing);
        stopping.join(now, 0, false);
        assert_eq!(stopping.on_time(now), Due::Kill);
    }

    #[test]
    fn a_signal_9_is_not_sent_again() {
        let now = Instant::now();
        let mut stopping = Stopping::new(false);
        stopping.join(now, 0, false);
        stopping.killed(now);
        assert_eq!(stopping.on_time(now), Due::Nothing);
        assert_eq!(stopping.on_time(now + KILL_TAKES), Due::GiveUp);
    }
}
