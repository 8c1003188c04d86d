//! The programs of the `tester` image: the web page, `ping` and `ip`. The
//! image's files are this same binary under these names.

pub mod http;
pub mod ip;
pub mod ping;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the applet that `argv[0]`'s base name names, if it names one.
pub fn dispatch(_argv: &[OsString]) -> Option<ExitCode> {
    None
}
