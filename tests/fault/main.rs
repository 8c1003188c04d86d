//! Fault tests: what is left of a command whose system call failed, that was
//! killed, that raced with others, or was asked for the impossible.
#![allow(clippy::unwrap_used)]

mod calls;
#[path = "../kernel/harness.rs"]
mod harness;
mod inject;
#[path = "../kernel/judge.rs"]
mod judge;
mod tracer;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let tests = [inject::tests()];
    harness::main(tests.into_iter().flatten().collect())
}
