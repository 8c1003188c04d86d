//! The manual pages and the shells' completions, from the same definitions as
//! the parsers.

use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;

use super::help::GROUPS;
use super::verbs::{VERBS, Verb};
use crate::base::{Error, Result};

/// The whole command line as one tree. Too slow for a start, good for docs.
pub fn tree() -> Command {
    let mut root = Command::new("dockless")
        .about("Containers straight on a LAN: Docker's macvlan without Docker")
        .subcommand_required(true)
        .override_usage("dockless [OPTIONS] COMMAND")
        .subcommand_help_heading("COMMANDS")
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .args(globals());
    for verb in shown().filter(|v| !v.syntax.name().contains(' ')) {
        root = root.subcommand(verb.manual().name(verb.syntax.name()));
    }
    for (group, about) in GROUPS {
        let mut command = Command::new(*group)
            .about(*about)
            .subcommand_required(true)
            .disable_help_subcommand(true);
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

fn globals() -> [Arg; 5] {
    let option = |name: &'static str| Arg::new(name).long(name);
    let switch = |name: &'static str, short| option(name).short(short).action(ArgAction::SetTrue);
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
        switch("version", 'v').help("Print version information and quit"),
        switch("help", 'h').help("Print usage"),
    ]
}

fn shown() -> impl Iterator<Item = &'static Verb> {
    VERBS.iter().filter(|v| !v.syntax.hidden)
}

pub fn completion(shell: &str) -> Result<String> {
    let (shell, names) = match shell {
        "bash" => (Shell::Bash, BASH_NAMES),
        "zsh" => (Shell::Zsh, ZSH_NAMES),
        "fish" => (Shell::Fish, FISH_NAMES),
        _ => {
            return Err(Error::invalid(format!(
                "unknown shell {shell:?}: must be one of bash, zsh, fish"
            )));
        }
    };
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut tree(), "dockless", &mut out);
    Ok(String::from_utf8_lossy(&out).into_owned() + names)
}

// What the generated scripts do not know: which containers and networks there
// are. `dockless __complete` says so.

const BASH_NAMES: &str = r#"
_dockless_names() {
    _dockless "$@"
    local word="${COMP_WORDS[COMP_CWORD]}"
    [[ "$word" == -* ]] && return
    local names
    names="$("${COMP_WORDS[0]}" __complete "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)"
    COMPREPLY+=($(compgen -W "$names" -- "$word"))
}
complete -F _dockless_names -o nosort -o bashdefault -o default dockless
"#;

const ZSH_NAMES: &str = r#"
_dockless_names() {
    local -a names
    _dockless "$@"
    local ret=$?
    [[ "$PREFIX" == -* ]] && return ret
    names=(${(f)"$("${words[1]}" __complete "${(@)words[2,CURRENT-1]}" 2>/dev/null)"})
    (( $#names )) && compadd -a names && ret=0
    return ret
}
[ "$funcstack[1]" = "_dockless" ] || compdef _dockless_names dockless
"#;

const FISH_NAMES: &str = r#"
complete -c dockless -f -a '(dockless __complete (commandline -opc)[2..-1] 2>/dev/null)'
"#;

/// Names of all pages; the first is dockless itself.
pub fn pages() -> Vec<String> {
    let groups = GROUPS.iter().map(|(group, _)| page(group));
    let verbs = shown().map(|v| page(v.syntax.name()));
    std::iter::once(page(""))
        .chain(groups)
        .chain(verbs)
        .collect()
}

/// The page of a command: `dockless-network-create`.
fn page(path: &str) -> String {
    let words = path.split_whitespace();
    std::iter::once("dockless")
        .chain(words)
        .collect::<Vec<_>>()
        .join("-")
}

/// A page in roff, by its name or by a command's words.
pub fn man(name: &str) -> Result<String> {
    let is_it = |path: &str| path == name || page(path) == name;
    if is_it("") {
        return roff(tree(), include_str!("manual.roff"));
    }
    if let Some((group, about)) = GROUPS.iter().find(|(group, _)| is_it(group)) {
        let command = Command::new(*group)
            .display_name(page(group))
            .about(*about)
            .override_usage(format!("dockless {group} COMMAND"));
        return roff(command, &commands(group));
    }
    let verb = VERBS
        .iter()
        .find(|v| v.syntax.paths.iter().any(|path| is_it(path)))
        .ok_or_else(|| Error::not_found(format!("no manual page for '{name}'")))?;
    let path = verb.syntax.name();
    let command = verb
        .manual()
        .display_name(page(path))
        .bin_name(format!("dockless {path}"))
        // The synopsis names them as Docker does.
        .mut_args(|arg| match arg.is_positional() {
            true => arg.hide(true),
            false => arg,
        });
    let aliases = match verb.syntax.paths {
        [] | [_] => String::new(),
        paths => format!(".SH ALIASES\ndockless {}\n", paths.join(", dockless ")),
    };
    roff(command, &aliases)
}

/// What a group's page says of its commands: one of them may have its page
/// under another name.
fn commands(group: &str) -> String {
    let mut out = String::from(".SH COMMANDS\n");
    for verb in shown() {
        let mut paths = verb.syntax.paths.iter();
        if let Some(path) = paths.find(|p| p.split(' ').next() == Some(group) && p.contains(' ')) {
            let (page, about) = (page(verb.syntax.name()), verb.syntax.about);
            out += &format!(".TP\n.B dockless {path}\n{about}; see\n.BR {page} (1).\n");
        }
    }
    out
}

fn roff(command: Command, more: &str) -> Result<String> {
    let has_subcommands = command.has_subcommands();
    let man = clap_mangen::Man::new(command)
        .source(concat!("dockless ", env!("CARGO_PKG_VERSION")))
        .manual("dockless manual");
    let mut out = Vec::new();
    let mut write = || {
        man.render_title(&mut out)?;
        man.render_name_section(&mut out)?;
        man.render_synopsis_section(&mut out)?;
        man.render_description_section(&mut out)?;
        man.render_options_section(&mut out)?;
        match has_subcommands {
            true => man.render_subcommands_section(&mut out),
            false => Ok(()),
        }
    };
    write().map_err(|e| Error::sys("write", "manual page", e))?;
    Ok(String::from_utf8_lossy(&out).into_owned() + more)
}
