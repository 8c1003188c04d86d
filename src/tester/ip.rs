//! `ip addr|link|route`: iproute2's text and JSON, read through our own
//! netlink. It only shows; nothing can be changed with it.

mod json;
mod text;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use super::interfaces::{Interface, Path, interfaces, paths};
use crate::base::{Family, OfFamily};
use crate::netlink::Rtnl;

/// What to show of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Query {
    json: bool,
    brief: bool,
    /// `-4`, `-6`
    family: Option<Family>,
    object: Object,
    dev: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Object {
    #[default]
    Address,
    Link,
    Route,
}

/// A message for standard error and the exit code: iproute2's.
#[derive(Debug, PartialEq, Eq)]
struct Refusal(u8, String);

const USAGE: &str = "Usage: ip [ OPTIONS ] OBJECT [ show ] [ dev NAME ]
where  OBJECT := { address | link | route }
       OPTIONS := { -j[son] | -br[ief] | -4 | -6 }
This is the tester image's ip: it shows, and changes nothing.";

pub fn main(args: &[OsString]) -> ExitCode {
    match parse(&super::texts(args)).and_then(|query| show(&query)) {
        Ok(text) => {
            // A reader that has seen enough is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(Refusal(code, text)) => {
            eprintln!("{text}");
            ExitCode::from(code)
        }
    }
}

fn parse(args: &[String]) -> Result<Query, Refusal> {
    let mut query = Query::default();
    let mut words = args.iter().map(String::as_str).peekable();
    while let Some(option) = words.next_if(|word| word.starts_with('-')) {
        match option.trim_start_matches('-') {
            "4" => query.family = Some(Family::Ipv4),
            "6" => query.family = Some(Family::Ipv6),
            name if begins("json", name, 1) => query.json = true,
            name if begins("brief", name, 2) => query.brief = true,
            name if begins("help", name, 1) => return Err(usage()),
            _ => {
                let text = format!("Option \"{option}\" is unknown, try \"ip -help\".");
                return Err(Refusal(255, text));
            }
        }
    }
    let object = words.next().ok_or_else(usage)?;
    let name;
    (query.object, name) = match object {
        word if begins("address", word, 1) => (Object::Address, "address"),
        word if begins("link", word, 1) => (Object::Link, "link"),
        word if begins("route", word, 1) => (Object::Route, "route"),
        word if begins("help", word, 1) => return Err(usage()),
        word => {
            let text = format!("Object \"{word}\" is unknown, try \"ip help\".");
            return Err(Refusal(1, text));
        }
    };
    match words.next() {
        None => return Ok(query),
        Some(verb)
            if ["show", "list", "lst", "ls"]
                .iter()
                .any(|v| begins(v, verb, 1)) => {}
        Some(verb) if begins("help", verb, 1) => return Err(usage()),
        Some(verb) => {
            let text = format!("Command \"{verb}\" is unknown, try \"ip {name} help\".");
            return Err(Refusal(255, text));
        }
    }
    while let Some(word) = words.next() {
        query.dev = Some(match word {
            "dev" => words.next().map(str::to_owned).ok_or_else(|| {
                let text = "Command line is not complete. Try option \"help\"";
                Refusal(255, text.to_owned())
            })?,
            word if query.object == Object::Route => {
                let text = format!("Error: any valid prefix is expected rather than \"{word}\".");
                return Err(Refusal(1, text));
            }
            name => name.to_owned(),
        });
    }
    Ok(query)
}

/// iproute2 takes any beginning of a word that is long enough to be told from
/// the others.
fn begins(whole: &str, word: &str, least: usize) -> bool {
    word.len() >= least && whole.starts_with(word)
}

fn usage() -> Refusal {
    Refusal(255, USAGE.to_owned())
}

fn show(query: &Query) -> Result<String, Refusal> {
    let failed = |error| Refusal(2, format!("ip: {error}"));
    let mut rtnl = Rtnl::host().map_err(failed)?;
    let mut links = interfaces(&mut rtnl).map_err(failed)?;
    if let Some(dev) = &query.dev {
        if !links.iter().any(|l| l.is_called(dev)) {
            return Err(Refusal(
                1,
                match query.object {
                    Object::Route => format!("Cannot find device \"{dev}\""),
                    _ => format!("Device \"{dev}\" does not exist."),
                },
            ));
        }
        links.retain(|l| l.is_called(dev));
    }
    if query.object == Object::Route {
        let family = query.family.unwrap_or(Family::Ipv4);
        let all = paths(&mut rtnl, family).map_err(failed)?;
        let routes = selected(all, query, &links);
        return Ok(if query.json {
            json::routes(&routes)
        } else {
            text::routes(&routes)
        });
    }
    if let Some(family) = query.family {
        for link in &mut links {
            link.addrs.retain(|a| a.cidr.family() == family);
        }
        if query.object == Object::Address {
            links.retain(|l| !l.addrs.is_empty());
        }
    }
    Ok(match (query.json, query.brief) {
        (false, false) => text::full(&links, query),
        (false, true) => text::brief(&links, query),
        (true, false) => json::full(&links, query),
        (true, true) => json::brief(&links, query),
    })
}

/// Routes as `ip route` prints them.
pub(super) fn route_lines(routes: &[Path]) -> String {
    text::routes(routes)
}

/// With `dev`, only its routes, and without saying so on every line.
fn selected(mut routes: Vec<Path>, query: &Query, links: &[Interface]) -> Vec<Path> {
    if query.dev.is_some() {
        routes.retain(|r| links.iter().any(|l| Some(&l.name) == r.dev.as_ref()));
        for route in &mut routes {
            route.dev = None;
        }
    }
    routes
}

impl Interface {
    fn is_called(&self, name: &str) -> bool {
        self.name == name || self.altnames.iter().any(|a| a == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Query, Refusal> {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        parse(&words)
    }

    #[test]
    fn abbreviations() {
        let query = parsed("-j -br -4 a sh dev eth0").unwrap();
        assert!(query.json && query.brief && query.family == Some(Family::Ipv4));
        assert_eq!(query.dev.as_deref(), Some("eth0"));
        assert_eq!(parsed("--json r").unwrap().object, Object::Route);
        assert_eq!(parsed("link ls lo").unwrap().dev.as_deref(), Some("lo"));
        assert_eq!(parsed("addr").unwrap(), Query::default());
    }

    #[test]
    fn refusals_as_iproute2() {
        for (line, code, text) in [
            ("foo", 1, "Object \"foo\" is unknown, try \"ip help\"."),
            (
                "-x addr",
                255,
                "Option \"-x\" is unknown, try \"ip -help\".",
            ),
            ("-b addr", 255, "Option \"-b\" is unknown"),
            (
                "addr add",
                255,
                "Command \"add\" is unknown, try \"ip address help\".",
            ),
            ("addr show dev", 255, "Command line is not complete."),
            (
                "route show x",
                1,
                "any valid prefix is expected rather than \"x\"",
            ),
            ("", 255, "Usage: ip"),
        ] {
            let Refusal(got, message) = parsed(line).unwrap_err();
            assert_eq!(got, code, "{line}");
            assert!(message.contains(text), "{line}: {message}");
        }
    }
}
