//! Names of containers and networks for the shells' completion. What goes wrong
//! is no message in the middle of a command line: then there are no names.

use super::super::args::Syntax;
use super::super::args::machine::Complete;
use super::super::exit::{self, Outcome};
use super::{Front, VERBS};

/// What can stand at a place of a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Containers,
    Running,
    Networks,
    Both,
}

pub(super) fn names(front: &Front, _: &Syntax, a: Complete) -> Outcome {
    let wanted = wanted(&a.words);
    let all = !matches!(wanted, Wanted::Running);
    let mut names = Vec::new();
    if matches!(wanted, Wanted::Containers | Wanted::Running | Wanted::Both) {
        let found = front.engine.containers(all).unwrap_or_default();
        names.extend(found.items.into_iter().map(|c| c.name));
    }
    if matches!(wanted, Wanted::Networks | Wanted::Both) {
        let found = front.engine.networks().unwrap_or_default();
        names.extend(found.items.into_iter().map(|n| n.name));
    }
    exit::print(&names.iter().flat_map(|n| [n, "\n"]).collect::<String>())?;
    Ok(0)
}

fn wanted(words: &[String]) -> Wanted {
    let path = |n: usize| words.get(..n).map(|words| words.join(" "));
    let found = [2, 1].into_iter().find_map(|n| {
        let path = path(n)?;
        let verb = VERBS
            .iter()
            .find(|v| v.syntax.paths.contains(&path.as_str()))?;
        Some((verb.syntax.name(), &words[n..]))
    });
    let Some((verb, given)) = found else {
        return Wanted::Nothing;
    };
    if let ("run", Some("--network" | "--net")) = (verb, given.last().map(String::as_str)) {
        return Wanted::Networks;
    }
    // Values of flags count too: where it matters, one name too many is no harm.
    let before = given.iter().filter(|word| !word.starts_with('-')).count();
    match (verb, before) {
        ("attach" | "exec", 0) | ("stop" | "kill" | "pause" | "unpause" | "stats", _) => {
            Wanted::Running
        }
        ("logs" | "port" | "rename" | "network set" | "network explain", 0)
        | ("start" | "restart" | "wait" | "rm" | "container inspect", _) => Wanted::Containers,
        ("network connect" | "network disconnect", n) if n > 0 => Wanted::Containers,
        ("network connect" | "network disconnect" | "network host-access", 0)
        | ("network set", 1)
        | ("network inspect" | "network rm", _) => Wanted::Networks,
        ("inspect", _) => Wanted::Both,
        _ => Wanted::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_names() {
        for (line, is) in [
            ("", Wanted::Nothing),
            ("stop", Wanted::Running),
            ("container stop -t 5 a", Wanted::Running),
            ("exec -it", Wanted::Running),
            ("exec -it a", Wanted::Nothing),
            ("rm -f a b", Wanted::Containers),
            ("network rm", Wanted::Networks),
            ("network connect", Wanted::Networks),
            ("network set", Wanted::Containers),
            ("network set c", Wanted::Networks),
            ("network disconnect -f n", Wanted::Containers),
            ("inspect a", Wanted::Both),
            ("run --rm --network", Wanted::Networks),
            ("run --rm", Wanted::Nothing),
            ("network", Wanted::Nothing),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(wanted(&words), is, "{line}");
        }
    }
}
