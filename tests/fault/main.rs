//! Fault tests: what is left of a command whose system call failed, or that
//! was killed; what is proved, and how, is told in `inject.rs`.
//!
//! `cargo test` runs the short form (some points of each kind), `scripts/fault`
//! all of them. Both say how many.
#![allow(clippy::unwrap_used)]

mod calls;
mod counts;
#[path = "../kernel/harness.rs"]
mod harness;
mod inject;
#[allow(dead_code, reason = "shared with the kernel tests")]
#[path = "../kernel/judge.rs"]
mod judge;
mod scenarios;
mod tracer;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::main(inject::tests(), 1, |notes| {
        for note in notes {
            println!("{note}");
        }
        let form = match inject::is_full() {
            true => "full form".to_owned(),
            false => format!("short form, seed {}", inject::seed()),
        };
        println!("fault injection, {form}: {}", counts::Counts::sum(notes));
    })
}
