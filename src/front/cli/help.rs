//! `dockless --help`, `dockless network --help`, and the help of one command.

use std::fmt::Write as _;

use super::verbs::{VERBS, Verb};

/// Words that group commands.
pub const GROUPS: &[(&str, &str)] = &[
    ("container", "Manage containers"),
    ("network", "Manage networks"),
    ("system", "Manage the machine's part"),
];

const OPTIONS: &str = "Global Options:
      --root DIR               Where networks, images and containers are kept
                               (default \"/var/lib/dockless\", or $DOCKLESS_ROOT)
      --state DIR              Where what lives now is kept
                               (default \"/run/dockless\", or $DOCKLESS_STATE)
      --trace-netlink[=HOW]    Show every netlink message: text or json on stderr,
                               or pcap:FILE.pcap for Wireshark
  -v, --version                Print version information and quit
";

pub fn main() -> String {
    let mut out = String::from(
        "Usage:  dockless [OPTIONS] COMMAND\n\n\
         Containers straight on a LAN: Docker's macvlan without Docker\n\n\
         Management Commands:\n",
    );
    for (name, about) in GROUPS {
        let _ = writeln!(out, "  {name:<13}{about}");
    }
    out.push_str("\nCommands:\n");
    let mut verbs: Vec<&Verb> = VERBS
        .iter()
        .filter(|v| !v.syntax.hidden && !v.syntax.name().contains(' '))
        .collect();
    verbs.sort_by_key(|v| v.syntax.name());
    for verb in verbs {
        let _ = writeln!(out, "  {:<13}{}", verb.syntax.name(), verb.syntax.about);
    }
    out.push('\n');
    out.push_str(OPTIONS);
    out.push_str("\nRun 'dockless COMMAND --help' for more information on a command.\n");
    out
}

/// All commands that can be called by this word.
pub fn group(name: &str) -> String {
    let about = GROUPS
        .iter()
        .find(|(n, _)| *n == name)
        .map_or("", |(_, a)| a);
    let mut out = format!("Usage:  dockless {name} COMMAND\n\n{about}\n\nCommands:\n");
    let mut lines: Vec<(&str, &str)> = VERBS
        .iter()
        .filter(|v| !v.syntax.hidden)
        .filter_map(|v| {
            let path = v.syntax.paths.iter().find_map(|p| p.strip_prefix(name));
            Some((path?.strip_prefix(' ')?, v.syntax.about))
        })
        .collect();
    lines.sort_unstable();
    for (verb, about) in lines {
        let _ = writeln!(out, "  {verb:<13}{about}");
    }
    let _ = writeln!(
        out,
        "\nRun 'dockless {name} COMMAND --help' for more information on a command."
    );
    out
}

pub fn verb(verb: &Verb) -> String {
    verb.manual().render_help().to_string()
}
