//! `ps` and `port`.

use std::io::{self, IsTerminal};
use std::time::SystemTime;

use super::super::args::Syntax;
use super::super::args::container as args;
use super::super::exit::{self, Failure, Outcome, say};
use super::super::render::{containers as table, format, ports};
use super::super::resolve::filter;
use super::Front;
use crate::base::{Error, Result};
use crate::engine::view::Summary;

pub(super) fn ps(front: &Front, syntax: &Syntax, a: args::Ps) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let every = filter::Containers::new(&a.filter, shows_all(&a))?.needs_all();
    let found = front.engine.containers(every)?;
    let mut list = rows_of_ps(&a, found.items)?;
    if wants_size(&a) {
        front.engine.measure_all(&mut list)?;
    }
    if a.quiet && a.format.is_some() {
        say("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    exit::print(&ps_text(
        &a,
        &list,
        SystemTime::now(),
        io::stdout().is_terminal(),
    )?)?;
    Ok(exit::problems(&found.problems))
}

/// `-n` and `-l` count stopped containers too.
fn shows_all(a: &args::Ps) -> bool {
    a.all || a.latest || a.last.is_some_and(|n| n > 0)
}

/// Measuring takes time, so only if it is asked for, or a template shows it.
/// Docker runs the template to see which fields it uses: `{{json .}}` uses all,
/// `json` is no template.
fn wants_size(a: &args::Ps) -> bool {
    let named = |f: &String| f.contains(".Size") || f.contains("{{json .}}");
    !a.quiet && (a.size || a.format.as_ref().is_some_and(named))
}

/// What the flags leave of a list that is newest first.
pub fn rows_of_ps(a: &args::Ps, list: Vec<Summary>) -> Result<Vec<Summary>> {
    let mut list = filter::Containers::new(&a.filter, shows_all(a))?.apply(list)?;
    let limit = if a.latest { Some(1) } else { a.last };
    if let Some(n) = limit
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n > 0)
    {
        list.truncate(n);
    }
    Ok(list)
}

/// What is printed.
pub fn ps_text(a: &args::Ps, list: &[Summary], now: SystemTime, tty: bool) -> Result<String> {
    if a.quiet {
        let ids = list.iter().map(|c| table::id(&c.id, a.no_trunc));
        return Ok(ids.flat_map(|id| [id, "\n"]).collect());
    }
    let kind = if a.size {
        table::KIND_WITH_SIZE
    } else {
        table::KIND
    };
    let format = a.format.as_deref().unwrap_or_default();
    let wanted = format::wanted(&kind, format);
    let rows: Vec<_> = list
        .iter()
        .map(|c| table::row(c, now, a.no_trunc, wanted.as_ref()))
        .collect();
    format::list(&kind, format, &rows, tty)
}

pub(super) fn port(front: &Front, syntax: &Syntax, a: args::Names) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let name = a.names.first().map_or("", String::as_str);
    let container = front.engine.container(name)?;
    let published = &container.network_settings.ports;
    let lines = match a.names.get(1) {
        None => ports::lines(published),
        Some(wanted) => {
            let key = port_key(wanted)?;
            let bindings = published.get(&key).and_then(Option::as_ref);
            let bindings = bindings.filter(|b| !b.is_empty()).ok_or_else(|| {
                Failure::from(Error::not_found(format!(
                    "No public port '{wanted}' published for {name}"
                )))
            })?;
            bindings.iter().map(ports::host).collect()
        }
    };
    exit::print(&lines.iter().flat_map(|l| [l, "\n"]).collect::<String>())?;
    Ok(0)
}

/// `80` is `80/tcp`.
fn port_key(text: &str) -> Result<String> {
    let (port, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    match port.parse::<u16>() {
        Ok(port) => Ok(format!("{port}/{}", proto.to_lowercase())),
        Err(_) => Err(Error::invalid(format!(
            "invalid port ({text}): strconv.ParseUint: parsing {port:?}: invalid syntax"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn sizes_are_for_those_who_see_them() {
        let wants = |argv: &[&str]| wants_size(&args::Ps::parse_from([&["ps"], argv].concat()));
        assert!(wants(&["-s"]));
        assert!(wants(&["--format", "{{.Size}}"]));
        assert!(wants(&["--format", "{{json .}}"]));
        assert!(!wants(&["--format", "json"]));
        assert!(!wants(&["--format", "table {{.Names}}"]));
        assert!(!wants(&["-sq"]));
        assert!(!wants(&[]));
    }
}
