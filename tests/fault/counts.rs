//! How many points there were, and what came of them.

use std::collections::BTreeSet;
use std::fmt;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// System calls at which a fault could be.
    pub(crate) points: usize,
    /// Of those, with a fault in this run.
    pub(crate) tried: usize,
    /// The call did not come again.
    pub(crate) missed: usize,
    pub(crate) kills: usize,
    pub(crate) problems: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} points, {} not met again, {} kills, {} failures",
            self.tried, self.points, self.missed, self.kills, self.problems
        )
    }
}

impl Counts {
    /// Adds up the notes of all tests.
    pub(crate) fn sum(notes: &BTreeSet<String>) -> Self {
        let mut sum = Self::default();
        for note in notes {
            let text = note.split_once(": ").map_or("", |(_, text)| text);
            let numbers = text.split_whitespace().filter_map(|w| w.parse().ok());
            let all: Vec<usize> = numbers.collect();
            if let [tried, points, missed, kills, problems] = all[..] {
                sum.tried += tried;
                sum.points += points;
                sum.missed += missed;
                sum.kills += kills;
                sum.problems += problems;
            }
        }
        sum
    }
}
