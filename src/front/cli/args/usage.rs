//! A wrong command line, said in Docker's words: `unknown flag: --foo`,
//! `flag needs an argument: --name`, `'dockless run' requires at least 1
//! argument`.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};

use super::{Arity, Syntax, refused};

/// Why a command line was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// `--help` was asked for, or `-h`.
    Help { is_short: bool },
    /// The whole message, and the exit code.
    Usage { message: String, code: u8 },
}

/// Docker ends with 125 on a wrong flag, with 1 on too few or too many names.
pub const BAD_FLAG: u8 = 125;
pub const BAD_COUNT: u8 = 1;

/// Parses `argv` (the command's own arguments, without its name).
pub fn parse(syntax: &Syntax, command: Command, argv: &[String]) -> Result<ArgMatches, Wrong> {
    let mut command = command;
    let full = std::iter::once(syntax.name()).chain(argv.iter().map(String::as_str));
    command
        .try_get_matches_from_mut(full)
        .map_err(|e| explain(syntax, &command, &e, argv))
}

/// Checks the number of names; the error is the whole message.
pub fn count(syntax: &Syntax, names: usize) -> Result<(), String> {
    if syntax.arity.allows(names) {
        Ok(())
    } else {
        Err(message(syntax, &needs(syntax.name(), syntax.arity)))
    }
}

/// `'dockless port' requires at least 1 and at most 2 arguments`
fn needs(name: &str, arity: Arity) -> String {
    let plural = |n: usize| if n == 1 { "argument" } else { "arguments" };
    match arity {
        Arity { max: Some(0), .. } => format!("'dockless {name}' accepts no arguments"),
        Arity {
            min,
            max: Some(max),
        } if min == max => {
            format!("'dockless {name}' requires {min} {}", plural(min))
        }
        Arity {
            min: 0,
            max: Some(max),
        } => format!("'dockless {name}' requires at most {max} {}", plural(max)),
        Arity {
            min,
            max: Some(max),
        } => format!(
            "'dockless {name}' requires at least {min} and at most {max} {}",
            plural(max)
        ),
        Arity { min, max: None } => {
            format!("'dockless {name}' requires at least {min} {}", plural(min))
        }
    }
}

/// The complaint, how it is used, and where to read on.
pub fn message(syntax: &Syntax, complaint: &str) -> String {
    let name = syntax.name();
    format!(
        "{complaint}\n\nUsage:  {}\n\nRun 'dockless {name} --help' for more information",
        syntax.line()
    )
}

fn explain(syntax: &Syntax, command: &Command, error: &clap::Error, argv: &[String]) -> Wrong {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let typed = context(ContextKind::InvalidArg);
    let complaint = match error.kind() {
        ErrorKind::DisplayHelp => return Wrong::Help { is_short: false },
        // Docker still takes it, where it is not another flag's.
        ErrorKind::UnknownArgument if flag_name(&typed) == "-h" => {
            return Wrong::Help { is_short: true };
        }
        ErrorKind::UnknownArgument => {
            if let Some(long) = refused::find(syntax.refused, flag_name(&typed)) {
                let name = syntax.name();
                return Wrong::Usage {
                    message: format!(
                        "--{long} of 'docker {name}' is not supported yet by dockless"
                    ),
                    code: BAD_FLAG,
                };
            }
            unknown(&typed, argv)
        }
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues
            if context(ContextKind::InvalidValue).is_empty() =>
        {
            match (short_of(command, &typed), argv.last()) {
                // The last letter of a group: `-dp`.
                (Some(short), Some(group))
                    if !group.starts_with("--") && group.ends_with(short) =>
                {
                    format!("flag needs an argument: '{short}' in {group}")
                }
                _ => format!("flag needs an argument: {}", flag_name(&typed)),
            }
        }
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let why =
                std::error::Error::source(error).map_or_else(String::new, ToString::to_string);
            format!(
                "invalid argument \"{}\" for \"{}\" flag: {why}",
                context(ContextKind::InvalidValue),
                both_names(command, &typed)
            )
        }
        ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8".to_owned(),
        _ => error.to_string().trim().to_owned(),
    };
    Wrong::Usage {
        message: message(syntax, &complaint),
        code: BAD_FLAG,
    }
}

fn unknown(typed: &str, argv: &[String]) -> String {
    let flag = flag_name(typed);
    if flag.starts_with("--") {
        return format!("unknown flag: {flag}");
    }
    let letter = flag.trim_start_matches('-').chars().next().unwrap_or('-');
    // Docker shows the group in which the letter stands: `-dZ`.
    let group = argv
        .iter()
        .find(|a| a.starts_with('-') && !a.starts_with("--") && a.contains(letter))
        .map_or(flag, String::as_str);
    format!("unknown shorthand flag: '{letter}' in {group}")
}

/// `--name` out of clap's `--name <string>`.
fn flag_name(typed: &str) -> &str {
    typed.split([' ', '=', '[']).next().unwrap_or(typed)
}

/// `-t, --timeout`
fn both_names(command: &Command, typed: &str) -> String {
    let name = flag_name(typed);
    match short_of(command, typed) {
        Some(short) => format!("-{short}, {name}"),
        None => name.to_owned(),
    }
}

fn short_of(command: &Command, typed: &str) -> Option<char> {
    let long = flag_name(typed).trim_start_matches('-');
    let mut arguments = command.get_arguments();
    let argument = arguments.find(|a| a.get_long() == Some(long))?;
    argument.get_short()
}
