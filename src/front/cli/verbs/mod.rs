//! The commands: what each is called, how it is parsed, and what it does.

mod complete;
mod containers;
mod inspect;
mod lifecycle;
mod machine;
mod networks;
mod process;
mod stats;
mod table;

use clap::{ArgMatches, Command};

use super::args::usage::{self, Wrong};
use super::args::{self, Syntax};
use super::exit::{self, Failure, Outcome};
use super::help;
use crate::engine::Engine;

pub use containers::{ps_text, rows_of_ps};
pub use inspect::{container_objects, network_objects};
pub use networks::ls_text;
pub use table::VERBS;

/// What every command works with.
#[derive(Debug)]
pub struct Front {
    pub engine: Engine,
}

/// One command.
#[derive(Debug)]
pub struct Verb {
    pub syntax: Syntax,
    /// What clap's derive gives.
    pub flags: fn() -> Command,
    pub run: fn(&Front, &Syntax, &ArgMatches) -> Outcome,
}

impl Verb {
    /// For parsing.
    pub fn parser(&self) -> Command {
        args::parser(&self.syntax, (self.flags)())
    }

    /// For reading.
    pub fn manual(&self) -> Command {
        args::manual(&self.syntax, (self.flags)())
    }

    /// Parses `argv` and does it.
    pub fn call(&self, front: &Front, argv: &[String]) -> Outcome {
        let matches = match usage::parse(&self.syntax, self.parser(), argv) {
            Ok(matches) => matches,
            Err(Wrong::Help { is_short }) => {
                if is_short {
                    exit::say("Flag shorthand -h has been deprecated, use --help");
                }
                return Err(Failure::Help(help::verb(self)));
            }
            Err(Wrong::Usage { message, code }) => {
                return Err(Failure::Message {
                    text: message,
                    code,
                });
            }
        };
        (self.run)(front, &self.syntax, &matches)
    }
}

/// clap has checked the matches already; a mismatch would be a wrong table.
fn typed<A: clap::FromArgMatches>(matches: &ArgMatches) -> Result<A, Failure> {
    A::from_arg_matches(matches)
        .map_err(|e| Failure::from(crate::base::Error::invalid(e.to_string())))
}

/// The world as it is.
#[derive(Debug)]
struct Real;

impl super::resolve::World for Real {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
    fn read(&self, path: &std::path::Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }
    fn exists(&self, path: &std::path::Path) -> bool {
        path.symlink_metadata().is_ok()
    }
}
