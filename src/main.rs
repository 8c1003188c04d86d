//! `dockless`, and the applets of its tester image by `argv[0]`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    dockless::tester::dispatch(&argv).unwrap_or_else(dockless::front::cli::main)
}
