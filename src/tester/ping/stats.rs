//! What ping counts, and the summary that it prints.

use std::fmt::Write;
use std::time::Duration;

/// Sequence numbers are 16 bits wide; one bit remembers each answer.
const SEQS: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Stats {
    pub sent: u64,
    pub received: u64,
    pub duplicates: u64,
    pub errors: u64,
    /// Most packets that were ever under way at once.
    pipe: u64,
    min: Option<u64>,
    max: u64,
    sum: u64,
    sum_of_squares: u128,
    /// Bits of the sequence numbers answered; allocated with the first answer.
    seen: Vec<u64>,
}

impl Stats {
    /// 1, 2, …, wrapping.
    pub(super) fn next_seq(&self) -> u16 {
        u16::try_from((self.sent + 1) & 0xffff).unwrap_or_default()
    }

    /// Counts an answer; true if that one was there before.
    pub(super) fn answered(&mut self, seq: u16, trip: Option<u64>) -> bool {
        self.under_way(seq);
        if let Some(trip) = trip {
            self.min = Some(self.min.map_or(trip, |min| min.min(trip)));
            self.max = self.max.max(trip);
            self.sum += trip;
            self.sum_of_squares += u128::from(trip) * u128::from(trip);
        }
        self.seen.resize(SEQS / 64, 0);
        let (word, bit) = (usize::from(seq) / 64, 1 << (seq % 64));
        let duplicate = self.seen[word] & bit != 0;
        self.seen[word] |= bit;
        // The number half the space ahead is forgotten, so that a second round
        // does not take fresh answers for duplicates.
        self.seen[(word + SEQS / 128) % (SEQS / 64)] = 0;
        if duplicate {
            self.duplicates += 1;
        } else {
            self.received += 1;
        }
        duplicate
    }

    pub(super) fn refused(&mut self, seq: u16) {
        self.under_way(seq);
        self.errors += 1;
    }

    fn under_way(&mut self, seq: u16) {
        let last = u16::try_from(self.sent & 0xffff).unwrap_or_default();
        let behind = last.wrapping_sub(seq);
        if behind <= 0x7fff {
            self.pipe = self.pipe.max(u64::from(behind) + 1);
        }
    }

    /// How long to wait after the last packet: twice the slowest answer, at
    /// least one interval; `linger` if there was none.
    pub(super) fn patience(&self, interval: Duration, linger: Duration) -> Duration {
        if self.received == 0 {
            linger
        } else {
            interval.max(Duration::from_micros(2 * self.max))
        }
    }

    /// The lines after the empty one; ends without a line feed.
    pub(super) fn report(&self, host: &str, time: Duration) -> String {
        let mut text = format!(
            "--- {host} ping statistics ---\n{} packets transmitted, {} received",
            self.sent, self.received
        );
        // Writing to a String cannot fail.
        if self.duplicates > 0 {
            let _ = write!(text, ", +{} duplicates", self.duplicates);
        }
        if self.errors > 0 {
            let _ = write!(text, ", +{} errors", self.errors);
        }
        if self.sent > 0 {
            let ms = (time.as_micros() + 500) / 1000;
            let _ = write!(text, ", {}% packet loss, time {ms}ms", self.loss());
        }
        text.push('\n');
        let answers = self.received + self.duplicates;
        let timed = self.min.filter(|_| answers > 0);
        if let Some(min) = timed {
            let average = self.sum / answers;
            let variance = (self.sum_of_squares / u128::from(answers))
                .saturating_sub(u128::from(average) * u128::from(average));
            let deviation = u64::try_from(variance.isqrt()).unwrap_or(u64::MAX);
            let [min, avg, max, dev] = [min, average, self.max, deviation]
                .map(|us| format!("{}.{:03}", us / 1000, us % 1000));
            let _ = write!(text, "rtt min/avg/max/mdev = {min}/{avg}/{max}/{dev} ms");
        }
        if self.pipe > 1 {
            let comma = if timed.is_some() { ", " } else { "" };
            let _ = write!(text, "{comma}pipe {}", self.pipe);
        }
        text
    }

    /// Per cent, as C's `%g` prints it: six significant digits, no trailing
    /// zeros.
    fn loss(&self) -> String {
        // Ten-thousandths of a per cent: exact for every count that anyone
        // waits for.
        let lost = self.sent.saturating_sub(self.received);
        let parts = u128::from(lost) * 1_000_000 / u128::from(self.sent.max(1));
        let (whole, part) = (parts / 10_000, parts % 10_000);
        let text = format!("{whole}.{part:04}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}

/// A round trip as iputils prints it: three significant digits at least.
pub(super) fn milliseconds(us: u64) -> String {
    match us {
        99_950.. => format!("{}", (us + 500) / 1000),
        9_995.. => format!("{}.{}", (us + 50) / 1000, (us + 50) % 1000 / 100),
        1_000.. => format!("{}.{:02}", (us + 5) / 1000, (us + 5) % 1000 / 10),
        _ => format!("{}.{us:03}", us / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_iputils() {
        for (us, text) in [
            (7, "0.007"),
            (999, "0.999"),
            (1000, "1.00"),
            (1236, "1.24"),
            (9994, "9.99"),
            (9995, "10.0"),
            (12_349, "12.3"),
            (99_949, "99.9"),
            (99_950, "100"),
            (3_049_500, "3050"),
        ] {
            assert_eq!(milliseconds(us), text, "{us}");
        }
    }

    #[test]
    fn summary_of_answers() {
        let mut stats = Stats::default();
        for (seq, trip) in [(1, 38), (2, 108), (3, 52)] {
            stats.sent += 1;
            assert!(!stats.answered(seq, Some(trip)));
        }
        assert_eq!(
            stats.report("localhost", Duration::from_micros(209_400)),
            "--- localhost ping statistics ---\n\
             3 packets transmitted, 3 received, 0% packet loss, time 209ms\n\
             rtt min/avg/max/mdev = 0.038/0.066/0.108/0.030 ms"
        );
        assert!(stats.answered(2, Some(50)));
        assert!(stats.report("h", Duration::ZERO).contains("+1 duplicates"));
    }

    #[test]
    fn summary_without_answers() {
        let mut stats = Stats {
            sent: 3,
            ..Stats::default()
        };
        for seq in 1..=3 {
            stats.refused(seq);
        }
        assert_eq!(
            stats.report("10.0.2.4", Duration::from_millis(2041)),
            "--- 10.0.2.4 ping statistics ---\n\
             3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2041ms\n\
             pipe 3"
        );
        stats.received = 2;
        assert_eq!(stats.loss(), "33.3333");
    }

    #[test]
    fn sequence_numbers_wrap_without_false_duplicates() {
        let mut stats = Stats::default();
        for _ in 0..150_000 {
            let seq = stats.next_seq();
            stats.sent += 1;
            assert!(!stats.answered(seq, None));
        }
        assert_eq!(stats.received, 150_000);
    }
}
