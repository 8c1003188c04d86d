//! What can be typed: clap types, one small parser a command, so that a start
//! pays for the flags of `run` alone. Only shapes are checked here; what the
//! values mean together is for `resolve`.
//!
//! clap is bent to the rules of Docker's parser (pflag) in [`parser`]: a switch
//! takes `=false`, the last of a repeated flag wins, a value may start with a
//! dash, and `--help` has no short form.

pub mod container;
pub mod machine;
pub mod network;
pub mod refused;
pub mod run;
pub mod usage;
pub mod values;

use clap::{Arg, ArgAction, Command};

/// How many names a command takes; `None`: any number.
#[derive(Clone, Copy, Debug)]
pub struct Arity {
    pub min: usize,
    pub max: Option<usize>,
}

impl Arity {
    pub const NONE: Self = Self::exactly(0);

    pub const fn exactly(n: usize) -> Self {
        Self {
            min: n,
            max: Some(n),
        }
    }

    pub const fn at_least(n: usize) -> Self {
        Self { min: n, max: None }
    }

    pub const fn between(min: usize, max: usize) -> Self {
        Self {
            min,
            max: Some(max),
        }
    }

    pub fn allows(self, n: usize) -> bool {
        n >= self.min && self.max.is_none_or(|max| n <= max)
    }
}

/// What the parser and the help need to know of a command beside its flags.
#[derive(Clone, Copy, Debug)]
pub struct Syntax {
    /// Every spelling, the usual one first: `ps`, `container ls`, ….
    pub paths: &'static [&'static str],
    pub about: &'static str,
    /// What follows the name in the usage line.
    pub usage: &'static str,
    pub arity: Arity,
    /// Not in the list of commands.
    pub hidden: bool,
    /// Docker's flags of this command that are not supported yet.
    pub refused: &'static [&'static str],
}

impl Syntax {
    pub fn name(&self) -> &'static str {
        self.paths.first().copied().unwrap_or_default()
    }

    /// `dockless run [OPTIONS] IMAGE …`
    pub fn line(&self) -> String {
        let line = format!("dockless {} {}", self.name(), self.usage);
        line.trim_end().to_owned()
    }
}

const TEMPLATE: &str = "Usage:  {usage}\n\n{about}\n\n{before-help}Options:\n{options}";

/// Makes Docker's rules of what derive gives: for parsing.
pub fn parser(syntax: &Syntax, flags: Command) -> Command {
    bare(syntax, flags)
        .args_override_self(true)
        .mut_args(as_docker)
}

fn bare(syntax: &Syntax, flags: Command) -> Command {
    flags
        .name(syntax.name())
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(
            Arg::new("help")
                .long("help")
                .action(ArgAction::Help)
                .help("Print usage"),
        )
}

/// The same flags as one reads them, in Docker's layout: for `--help`, manual
/// pages and completions.
pub fn manual(syntax: &Syntax, flags: Command) -> Command {
    let command = bare(syntax, flags)
        .about(syntax.about)
        .override_usage(syntax.line())
        .help_template(TEMPLATE);
    match syntax.paths {
        [_] | [] => command,
        paths => {
            let all: Vec<String> = paths.iter().map(|p| format!("dockless {p}")).collect();
            command.before_help(format!("Aliases:\n  {}", all.join(", ")))
        }
    }
}

fn as_docker(arg: Arg) -> Arg {
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .value_parser(values::switch)
            .value_name("BOOL"),
        ArgAction::Set | ArgAction::Append if !arg.is_positional() => arg.allow_hyphen_values(true),
        _ => arg,
    }
}
