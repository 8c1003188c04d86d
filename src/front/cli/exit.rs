//! How a command ends: what is said on stderr, and the exit code. Codes come
//! from the kind of a failure, never from its text.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::args::usage::{BAD_COUNT, BAD_FLAG};
use super::args::{Syntax, usage};
use super::render::{inspect, safe};
use crate::base::{Cause, Error};

/// dockless itself failed, as `docker run` says it.
pub const OURS: u8 = 125;
/// The program is there but cannot be run.
pub const NOT_EXECUTABLE: u8 = 126;
pub const NOT_FOUND: u8 = 127;
/// A template of `--format` that cannot be read, where one object is shown at a
/// time (EX_USAGE, sysexits(3)). Docker's lists end with 1.
pub const BAD_TEMPLATE: u8 = 64;

/// The code of a command that has done what it was asked.
pub type Outcome = Result<u8, Failure>;

#[derive(Debug)]
pub enum Failure {
    /// `--help`: a result, after all.
    Help(String),
    /// Said as it stands, after `dockless: `.
    Message { text: String, code: u8 },
    /// All has been said already.
    Said(ExitCode),
    /// Nobody reads stdout any more: the reader has seen enough.
    BrokenPipe,
}

impl Failure {
    /// The engine's error with a code of its own.
    pub fn coded(error: &Error, code: u8) -> Self {
        Self::Message {
            text: error.to_string(),
            code,
        }
    }

    /// The options do not make sense together: like a wrong flag.
    pub fn usage(syntax: &Syntax, error: &Error) -> Self {
        Self::with_help(syntax, error, BAD_FLAG)
    }

    /// With where to read on: `run` ends so whatever went wrong.
    pub fn with_help(syntax: &Syntax, error: &Error, code: u8) -> Self {
        Self::Message {
            text: format!(
                "{error}\n\nRun 'dockless {} --help' for more information",
                syntax.name()
            ),
            code,
        }
    }

    /// Prints what is left to say; gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Help(text) => match print(&text) {
                Ok(()) => ExitCode::SUCCESS,
                Err(failure) => failure.report(),
            },
            Self::Message { text, code } => {
                complain(&text);
                ExitCode::from(code)
            }
            Self::Said(code) => code,
            Self::BrokenPipe => ExitCode::SUCCESS,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::coded(&error, 1)
    }
}

/// Refuses a command line whose number of names is wrong.
pub fn count(syntax: &Syntax, names: usize) -> Result<(), Failure> {
    usage::count(syntax, names).map_err(|text| Failure::Message {
        text,
        code: BAD_COUNT,
    })
}

/// Refuses a template that cannot be read, before anything is looked up.
pub fn template(format: Option<&str>) -> Result<(), Failure> {
    inspect::check(format.unwrap_or_default()).map_err(|e| Failure::coded(&e, BAD_TEMPLATE))
}

/// The code of `run`, and of `exec` with `ours` = 1: that of the program's
/// execve if that is what failed, else ours.
pub fn program_code(error: &Error, ours: u8) -> u8 {
    match error.cause {
        Cause::Exec {
            errno: libc::ENOENT | libc::ENOTDIR,
            ..
        } => NOT_FOUND,
        Cause::Exec { .. } => NOT_EXECUTABLE,
        _ => ours,
    }
}

/// A process's status as an exit code: Docker passes on its low eight bits.
pub fn status_code(code: i32) -> u8 {
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// One message on stderr. That stderr itself fails has no remedy.
pub fn complain(text: &str) {
    say(&format!("dockless: {text}"));
}

/// A line on stderr, safe for a terminal.
pub fn say(text: &str) {
    let mut err = io::stderr();
    let text = if err.is_terminal() {
        safe::lines(text)
    } else {
        text.into()
    };
    // In one piece: others may be writing there too.
    let _ = err.write_all(format!("{text}\n").as_bytes());
}

/// A result on stdout.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| stdout_failed(&e))
}

/// A result of one line, which may come from a container's name or label.
pub fn print_line(line: &str) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        print(&format!("{}\n", safe::field(line)))
    } else {
        print(&format!("{line}\n"))
    }
}

fn stdout_failed(e: &io::Error) -> Failure {
    if e.kind() == io::ErrorKind::BrokenPipe {
        Failure::BrokenPipe
    } else {
        Failure::from(Error::sys("write to", "stdout", e))
    }
}

/// Complains about what kept a list from being whole; gives the exit code.
pub fn problems(list: &[Error]) -> u8 {
    for problem in list {
        complain(&problem.to_string());
    }
    u8::from(!list.is_empty())
}

/// Does `act` for each name, echoes the names for which it worked, complains
/// about the others, and fails if there was one.
pub fn each(names: &[String], mut act: impl FnMut(&str) -> crate::base::Result<()>) -> Outcome {
    let mut code = 0;
    for name in names {
        match act(name) {
            Ok(()) => print_line(name)?,
            Err(e) => {
                complain(&e.to_string());
                code = 1;
            }
        }
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_from_causes() {
        let exec = |errno| {
            let text = "Permission denied, or so it says".to_owned();
            Error::new(
                "start",
                text.as_str(),
                Cause::Exec {
                    errno,
                    text: text.clone(),
                },
            )
        };
        assert_eq!(program_code(&exec(libc::ENOENT), OURS), 127);
        assert_eq!(program_code(&exec(libc::EACCES), OURS), 126);
        assert_eq!(program_code(&exec(libc::ENOEXEC), OURS), 126);
        assert_eq!(
            program_code(&Error::not_found("executable file not found"), OURS),
            125
        );
        assert_eq!(program_code(&Error::not_found("x"), 1), 1);
        assert_eq!(status_code(256 + 3), 3);
        assert_eq!(status_code(137), 137);
    }
}
