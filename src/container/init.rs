//! `--init`: a first process that reaps orphans and forwards signals.

use std::ffi::OsString;
use std::process::ExitCode;

/// The program `docker-init` (this same binary under that name): runs what
/// follows `--` and ends as it ends.
pub fn docker_init(_argv: &[OsString]) -> ExitCode {
    todo!()
}
