//! What stands before the command: `dockless [OPTIONS] COMMAND`.

use std::path::PathBuf;

use super::args::refused;
use super::exit::Failure;
use crate::base::Error;

pub const ROOT: &str = "/var/lib/dockless";
pub const STATE: &str = "/run/dockless";
/// Read by the netlink layer of this process and of the supervisor's.
pub const TRACE: &str = "DOCKLESS_TRACE_NETLINK";

#[derive(Debug, PartialEq, Eq)]
pub struct Global {
    pub root: PathBuf,
    pub state: PathBuf,
    /// What [`TRACE`] must say.
    pub trace: Option<String>,
    pub version: bool,
    pub help: bool,
}

impl Global {
    /// Takes the options off the front of `argv` (without the program's name);
    /// gives what follows them.
    pub fn take(
        argv: &[String],
        var: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, &[String]), Failure> {
        let folder = |name: &str, default: &str| {
            let given = var(name).filter(|v| !v.is_empty());
            absolute(&given.unwrap_or_else(|| default.to_owned()))
        };
        let mut global = Self {
            root: folder("DOCKLESS_ROOT", ROOT),
            state: folder("DOCKLESS_STATE", STATE),
            trace: None,
            version: false,
            help: false,
        };
        let mut rest = argv;
        while let Some((first, tail)) = rest.split_first() {
            if !first.starts_with('-') || first == "-" {
                break;
            }
            rest = tail;
            let (name, value) = match first.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (first.as_str(), None),
            };
            match name {
                "--" => break,
                "--root" => global.root = absolute(needed(name, value, &mut rest)?),
                "--state" => global.state = absolute(needed(name, value, &mut rest)?),
                "--trace-netlink" => global.trace = Some(trace(value.unwrap_or("text"))?),
                "-v" | "--version" => global.version = true,
                "--help" | "-h" => global.help = true,
                _ => return Err(unknown(name)),
            }
        }
        Ok((global, rest))
    }
}

fn needed<'a>(
    name: &str,
    value: Option<&'a str>,
    rest: &mut &'a [String],
) -> Result<&'a str, Failure> {
    if let Some(value) = value {
        return Ok(value);
    }
    match rest.split_first() {
        Some((value, tail)) => {
            *rest = tail;
            Ok(value)
        }
        None => Err(usage(&format!("flag needs an argument: {name}"))),
    }
}

/// `text`, `json`, `pcap:FILE`; or a file whose name says which.
/// A supervisor does not stay in the folder that it was started in.
fn absolute(path: &str) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path))
}

fn trace(value: &str) -> Result<String, Failure> {
    match value {
        "text" | "json" => Ok(value.to_owned()),
        _ => match value.split_once(':') {
            Some(("pcap", file)) if file.ends_with(".pcap") => Ok(file.to_owned()),
            None if value.contains('.') || value.contains('/') => Ok(value.to_owned()),
            _ => Err(Failure::from(Error::invalid(format!(
                "invalid argument {value:?} for \"--trace-netlink\" flag: it is text, json or pcap:FILE.pcap"
            )))),
        },
    }
}

fn unknown(name: &str) -> Failure {
    match refused::find(refused::GLOBAL, name) {
        Some(long) => usage(&format!(
            "--{long} of 'docker' is not supported by dockless: it has no daemon to find or to debug"
        )),
        None if name.starts_with("--") => usage(&format!("unknown flag: {name}")),
        None => usage(&format!(
            "unknown shorthand flag: '{}' in {name}",
            name.chars().nth(1).unwrap_or('-')
        )),
    }
}

fn usage(complaint: &str) -> Failure {
    Failure::Message {
        text: format!(
            "{complaint}\n\nUsage:  dockless [OPTIONS] COMMAND [ARG...]\n\nRun 'dockless --help' for more information"
        ),
        code: super::args::usage::BAD_FLAG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(argv: &[&str]) -> Result<(Global, Vec<String>), Failure> {
        let argv: Vec<String> = argv.iter().map(ToString::to_string).collect();
        let var = |name: &str| (name == "DOCKLESS_STATE").then(|| "/env".to_owned());
        Global::take(&argv, var).map(|(g, rest)| (g, rest.to_vec()))
    }

    #[test]
    fn options_end_at_the_command() {
        let (g, rest) = take(&["--root", "/r", "--trace-netlink", "ps", "--root", "x"]).unwrap();
        assert_eq!(g.root, PathBuf::from("/r"));
        assert_eq!(g.state, PathBuf::from("/env"));
        assert_eq!(g.trace.as_deref(), Some("text"));
        assert_eq!(rest, ["ps", "--root", "x"]);
        let (g, rest) = take(&["--state=/s", "--trace-netlink=pcap:/tmp/a.pcap"]).unwrap();
        assert_eq!(g.state, PathBuf::from("/s"));
        assert_eq!(g.root, PathBuf::from(ROOT));
        assert_eq!(g.trace.as_deref(), Some("/tmp/a.pcap"));
        assert!(rest.is_empty());
    }

    #[test]
    fn refusals() {
        for (argv, text) in [
            (&["--root"][..], "flag needs an argument: --root"),
            (&["--foo"], "unknown flag: --foo"),
            (&["-x"], "unknown shorthand flag: 'x' in -x"),
            (
                &["-H", "unix:///x"],
                "--host of 'docker' is not supported by dockless",
            ),
            (
                &["--context=x"],
                "--context of 'docker' is not supported by dockless",
            ),
            (
                &["--trace-netlink=xml"],
                "invalid argument \"xml\" for \"--trace-netlink\"",
            ),
            (&["--trace-netlink=pcap:x"], "pcap:FILE.pcap"),
        ] {
            let Err(Failure::Message { text: said, .. }) = take(argv) else {
                panic!("{argv:?} was taken");
            };
            assert!(said.contains(text), "{said}");
        }
    }
}
