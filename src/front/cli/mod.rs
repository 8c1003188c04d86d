//! The command line: `dockless` for `docker`.

use std::process::ExitCode;

pub fn main() -> ExitCode {
    todo!()
}
