//! The command line: `dockless` for `docker`.
//!
//! `argv` → [`global`] options → one verb of [`verbs::VERBS`], whose small
//! parser alone is built ([`args`]) → [`resolve`] (pure: what is asked of the
//! engine) → engine → [`render`] (pure: text) → [`exit`].

pub mod args;
pub mod demo;
pub mod exit;
pub mod generate;
pub mod global;
pub mod help;
pub mod render;
pub mod resolve;
pub mod verbs;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::base::Error;
use crate::engine::request::Dirs;
use crate::engine::{self, Engine};
use exit::{Failure, Outcome};
use global::Global;
use verbs::{Front, VERBS, Verb};

pub fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    // What `--init` mounts into a container is this same binary.
    if argv.first().and_then(|name| Path::new(name).file_name()) == Some("docker-init".as_ref()) {
        return engine::docker_init(&argv);
    }
    match arguments().and_then(|argv| run(&argv)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    }
}

/// Without the program's name.
fn arguments() -> Result<Vec<String>, Failure> {
    std::env::args_os()
        .skip(1)
        .map(|arg| {
            arg.into_string().map_err(|arg| {
                Failure::from(Error::invalid(format!(
                    "argument {arg:?} is not valid UTF-8"
                )))
            })
        })
        .collect()
}

fn run(argv: &[String]) -> Outcome {
    let (global, rest) = Global::take(argv, |name| std::env::var(name).ok())?;
    if let Some(trace) = &global.trace {
        start_again_traced(trace)?;
    }
    if global.version {
        exit::print(&format!("dockless version {}\n", env!("CARGO_PKG_VERSION")))?;
        return Ok(0);
    }
    if rest.is_empty() || global.help {
        exit::print(&help::main())?;
        return Ok(0);
    }
    match find(rest) {
        Found::Verb(verb, argv) => {
            let front = Front {
                engine: Engine::new(Dirs::new(global.root, global.state)),
            };
            verb.call(&front, argv)
        }
        Found::Help(text) => {
            exit::print(&text)?;
            Ok(0)
        }
        Found::Nothing(text) => Err(Failure::Message { text, code: 1 }),
    }
}

enum Found<'a> {
    Verb(&'static Verb, &'a [String]),
    Help(String),
    Nothing(String),
}

/// Management words (`network`, `container`, `system`) take a second word.
fn find(argv: &[String]) -> Found<'_> {
    let word = |i: usize| argv.get(i).map(String::as_str);
    let Some(first) = word(0) else {
        return Found::Help(help::main());
    };
    if first == "help" {
        return match find(&argv[1..]) {
            Found::Verb(verb, _) => Found::Help(help::verb(verb)),
            other => other,
        };
    }
    let managed = help::GROUPS.iter().any(|(name, _)| *name == first);
    let path = match word(1) {
        Some(second) if managed && !second.starts_with('-') => format!("{first} {second}"),
        _ if managed => return Found::Help(help::group(first)),
        _ => first.to_owned(),
    };
    let taken = if managed { 2 } else { 1 };
    match VERBS
        .iter()
        .find(|v| v.syntax.paths.contains(&path.as_str()))
    {
        Some(verb) => Found::Verb(verb, &argv[taken..]),
        None if args::refused::COMMANDS.contains(&path.as_str()) => {
            Found::Nothing(format!("'docker {path}' is not supported yet by dockless"))
        }
        None if managed => Found::Nothing(format!(
            "unknown command: dockless {path}\n\nUsage:  dockless {first} COMMAND\n\nRun 'dockless {first} --help' for more information"
        )),
        None => Found::Nothing(format!(
            "unknown command: dockless {path}\n\nRun 'dockless --help' for more information"
        )),
    }
}

/// The netlink layer reads its setting from the environment, which this
/// process cannot change safely once it runs: it starts again with it.
fn start_again_traced(trace: &str) -> Result<(), Failure> {
    if std::env::var(global::TRACE).as_deref() == Ok(trace) {
        return Ok(());
    }
    let mut argv = std::env::args_os();
    let name = argv.next().unwrap_or_default();
    let error = Command::new("/proc/self/exe")
        .arg0(name)
        .args(argv)
        .env(global::TRACE, trace)
        .exec();
    Err(Failure::from(Error::sys(
        "execute",
        "/proc/self/exe",
        error,
    )))
}
