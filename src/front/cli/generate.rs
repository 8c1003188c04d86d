//! The manual pages and the shells' completions, from the same definitions as
//! the parsers.

use clap::Command;
use clap_complete::Shell;

use super::help::GROUPS;
use super::verbs::{VERBS, Verb};
use crate::base::{Error, Result};

/// The whole command line as one tree. Too slow for a start, good for docs.
pub fn tree() -> Command {
    let mut root = Command::new("dockless")
        .about("Containers straight on a LAN: Docker's macvlan without Docker")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .args(globals());
    for verb in shown().filter(|v| !v.syntax.name().contains(' ')) {
        root = root.subcommand(verb.manual().name(verb.syntax.name()));
    }
    for (group, about) in GROUPS {
        let mut command = Command::new(*group).about(*about).subcommand_required(true);
        for verb in shown() {
            for path in verb.syntax.paths {
                if let Some((first, second)) = path.split_once(' ')
                    && first == *group
                {
                    command = command.subcommand(verb.manual().name(second));
                }
            }
        }
        root = root.subcommand(command);
    }
    root
}

fn globals() -> [clap::Arg; 3] {
    let option = |name: &'static str| clap::Arg::new(name).long(name);
    [
        option("root")
            .value_name("DIR")
            .env("DOCKLESS_ROOT")
            .default_value(super::global::ROOT)
            .help("Where networks, images and containers are kept"),
        option("state")
            .value_name("DIR")
            .env("DOCKLESS_STATE")
            .default_value(super::global::STATE)
            .help("Where what lives now is kept"),
        option("trace-netlink")
            .value_name("HOW")
            .num_args(0..=1)
            .require_equals(true)
            .help("Show every netlink message: text or json on stderr, or pcap:FILE.pcap"),
    ]
}

fn shown() -> impl Iterator<Item = &'static Verb> {
    VERBS.iter().filter(|v| !v.syntax.hidden)
}

pub fn completion(shell: &str) -> Result<String> {
    let shell = match shell {
        "bash" => Shell::Bash,
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => {
            return Err(Error::invalid(format!(
                "unknown shell {shell:?}: must be one of bash, zsh, fish"
            )));
        }
    };
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut tree(), "dockless", &mut out);
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// What [`man`] knows, one name a page; the first is dockless itself.
pub fn pages() -> Vec<&'static str> {
    let verbs = shown().map(|v| v.syntax.name());
    std::iter::once("").chain(verbs).collect()
}

/// A page in roff: of dockless, or of one command.
pub fn man(name: &str) -> Result<String> {
    let command = match name {
        "" => tree(),
        name => {
            let verb = VERBS.iter().find(|v| v.syntax.paths.contains(&name));
            let verb =
                verb.ok_or_else(|| Error::not_found(format!("no manual page for '{name}'")))?;
            let page = format!("dockless-{}", verb.syntax.name().replace(' ', "-"));
            verb.manual()
                .display_name(page)
                .bin_name(format!("dockless {}", verb.syntax.name()))
        }
    };
    let broken = |e: std::io::Error| Error::sys("write", "manual page", e);
    let mut out = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut out)
        .map_err(broken)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}
