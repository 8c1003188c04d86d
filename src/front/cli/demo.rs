//! `demo`: the walk of the README on a LAN in a box, every step checked.
//!
//! Everything happens in namespaces of its own (the lab's), as root or not:
//! the machine's network is neither used nor changed, and no packet can leave.
//! The commands are those that a user types, run as processes of this very
//! program; the demo itself only looks: as a client on other machines of the
//! LAN, at the packets on the parent, and at the machine before and after.
//!
//! It ends with 0 only if everything held. Nothing is left however it ends
//! (see `lab::contain`).

mod look;
mod stage;
mod walk;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::base::Result;
use crate::lab::contain::{Ended, contain};
use crate::lab::{Lab, enter};
use stage::Stage;

/// Other machines beside the gateway and the host.
const OTHERS: usize = 2;

/// Must be called before any thread is started.
pub fn main() -> ExitCode {
    match run() {
        Ok(Ended::Code(code)) => ExitCode::from(code),
        Ok(Ended::Interrupted(signal)) => {
            eprintln!("\ninterrupted; nothing is left of it");
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
        }
        Ok(Ended::Killed(signal)) => {
            eprintln!("\nthe demo was ended by signal {signal}; nothing is left of it");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("dockless: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Ended> {
    let state = enter()?;
    let undo = {
        let program = Program::below(&state);
        move || {
            let mut gc = program.dockless(&["gc"]);
            // Its report goes nowhere: what it removes was the demo's own.
            let _ = gc.stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    };
    contain(
        move || {
            let mut stage = Stage::new(Program::below(&state));
            match Lab::here(OTHERS) {
                Ok(lab) => walk::walk(&mut stage, &lab),
                Err(error) => stage.stopped(&error.to_string()),
            }
            stage.finish()
        },
        undo,
    )
}

/// This program as a user starts it, its state in the lab's private folder.
#[derive(Clone, Debug)]
struct Program {
    root: PathBuf,
    state: PathBuf,
}

impl Program {
    fn below(folder: &Path) -> Self {
        Self {
            root: folder.join("lib"),
            state: folder.join("run"),
        }
    }

    fn dockless(&self, args: &[&str]) -> Command {
        let mut command = self.applet("dockless", args);
        command
            .env("DOCKLESS_ROOT", &self.root)
            .env("DOCKLESS_STATE", &self.state);
        command
    }

    /// By another name it is the tester image's `ping`, which serves as the
    /// host's: nothing needs to be installed.
    fn applet(&self, name: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg0(name).args(args).stdin(Stdio::null());
        command
    }
}
