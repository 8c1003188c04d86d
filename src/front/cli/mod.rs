//! The command line: `dockless` for `docker`.

use std::process::ExitCode;

pub mod args;
pub mod demo;
pub mod render;
pub mod resolve;

pub fn main() -> ExitCode {
    todo!()
}
