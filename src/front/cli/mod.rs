//! The command line: `dockless` for `docker`.

use std::process::ExitCode;

pub mod demo;
pub mod render;

pub fn main() -> ExitCode {
    todo!()
}
