//! Bad input and bad luck: what is refused, in which words, with which exit
//! code, and that nothing of it stays.
//!
//! The rows are in `*.txt` beside this file, in the language of `play.rs`. A
//! row is named after the row of `docker-macvlan.md` (§3 IPAM, §4 errors) that
//! it holds dockless to; those of `luck.txt` and `damage.txt` come from the
//! list "Bad input and bad luck" of issue 2. Where Docker 20.10 and 29 differ,
//! 29 is meant.

mod disk;
mod play;
mod races;

use crate::harness::{Test, Verdict};

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::new(ipam).needs(PLAYERS).limit_s(120),
        Test::new(network_commands).needs(PLAYERS).limit_s(120),
        Test::new(container_commands).needs(PLAYERS).limit_s(120),
        Test::new(rates).needs(PLAYERS).limit_s(120),
        Test::new(luck).needs(PLAYERS).limit_s(120),
        Test::new(damage).needs(PLAYERS).limit_s(120),
    ];
    tests.extend(disk::tests());
    tests.extend(races::tests());
    tests
}

/// The judges, and what the rows call.
const PLAYERS: &[&str] = &["ip", "nft", "setpriv"];

fn ipam() -> Verdict {
    play::table(include_str!("ipam.txt"))
}

fn network_commands() -> Verdict {
    play::table(include_str!("network.txt"))
}

fn container_commands() -> Verdict {
    play::table(include_str!("container.txt"))
}

fn rates() -> Verdict {
    play::table(include_str!("rates.txt"))
}

fn luck() -> Verdict {
    play::table(include_str!("luck.txt"))
}

fn damage() -> Verdict {
    play::table(include_str!("damage.txt"))
}
