//! `network …`

use std::io::{self, IsTerminal};
use std::time::SystemTime;

use super::super::args::Syntax;
use super::super::args::network as args;
use super::super::args::usage::BAD_FLAG;
use super::super::exit::{self, Failure, Outcome, complain, print_line};
use super::super::render::explain::explanation;
use super::super::render::{containers::id, format, networks as table};
use super::super::resolve::{filter, network as resolve, parent_wait};
use super::Front;
use crate::base::{Cause, Result};
use crate::engine::view::Network;

pub(super) fn create(front: &Front, syntax: &Syntax, a: args::Create) -> Outcome {
    exit::count(syntax, a.names.len())?;
    // Like a flag that is not known.
    resolve::unsupported(&a).map_err(|e| Failure::coded(&e, BAD_FLAG))?;
    let made = front.engine.network_create(resolve::create(&a)?)?;
    warn(&made.warnings);
    print_line(made.id.as_str())?;
    Ok(0)
}

pub(super) fn ls(front: &Front, syntax: &Syntax, a: args::Ls) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let found = front.engine.networks()?;
    exit::print(&ls_text(&a, found.items, io::stdout().is_terminal())?)?;
    Ok(exit::problems(&found.problems))
}

/// What is printed of a list sorted by name.
pub fn ls_text(a: &args::Ls, list: Vec<Network>, tty: bool) -> Result<String> {
    let list = filter::networks(&a.filter, list)?;
    if a.quiet {
        let ids = list.iter().map(|n| id(&n.id, a.no_trunc));
        return Ok(ids.flat_map(|id| [id, "\n"]).collect());
    }
    let rows: Vec<_> = list.iter().map(|n| table::row(n, a.no_trunc)).collect();
    let format = a.format.as_deref().unwrap_or_default();
    format::list(&table::KIND, format, &rows, tty)
}

pub(super) fn rm(front: &Front, syntax: &Syntax, a: args::Rm) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let mut failed = 0;
    for name in &a.names {
        match front.engine.network_remove(name) {
            Ok(()) => print_line(name)?,
            Err(e) if a.force && matches!(e.cause, Cause::NotFound(_)) => {}
            Err(e) => {
                complain(&e.to_string());
                failed = 1;
            }
        }
    }
    Ok(failed)
}

pub(super) fn prune(front: &Front, syntax: &Syntax, a: args::Prune) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let may_go = filter::prune(&a.filter, SystemTime::now())?;
    if !a.force && !confirmed()? {
        return Ok(0);
    }
    let removed = front.engine.network_prune(&may_go)?;
    if !removed.items.is_empty() {
        exit::print("Deleted Networks:\n")?;
        for name in &removed.items {
            print_line(name)?;
        }
        exit::print("\n")?;
    }
    Ok(exit::problems(&removed.problems))
}

fn confirmed() -> Result<bool, Failure> {
    exit::print(
        "WARNING! This will remove all custom networks not used by at least one container.\n\
         Are you sure you want to continue? [y/N] ",
    )?;
    let mut answer = String::new();
    // An unreadable answer is no.
    let _ = io::stdin().read_line(&mut answer);
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

pub(super) fn connect(front: &Front, syntax: &Syntax, a: args::Connect) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let endpoint = resolve::connect(&a)?;
    let container = a.names.get(1).map_or("", String::as_str);
    if let Some(patience) = parent_wait(a.parent_wait.as_ref())? {
        let network = endpoint.network.as_str();
        front
            .engine
            .await_parents(std::iter::once(network), patience)?;
    }
    warn(&front.engine.network_connect(endpoint, container)?);
    Ok(0)
}

pub(super) fn disconnect(front: &Front, syntax: &Syntax, a: args::Disconnect) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let [network, container] = &a.names[..] else {
        return Ok(1);
    };
    let warnings = front
        .engine
        .network_disconnect(network, container, a.force)?;
    warn(&warnings);
    Ok(0)
}

pub(super) fn set(front: &Front, syntax: &Syntax, a: args::Set) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let [container, network, changes @ ..] = &a.names[..] else {
        return Ok(1);
    };
    let change = resolve::changes(changes)?;
    warn(&front.engine.network_set(container, network, change)?);
    Ok(0)
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        exit::say(&format!("WARNING: {warning}"));
    }
}

pub(super) fn host_access(front: &Front, syntax: &Syntax, a: args::HostAccess) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let access = resolve::host_access(&a).map_err(|e| Failure::usage(syntax, &e))?;
    let network = a.names.first().map_or("", String::as_str);
    warn(&front.engine.host_access(network, access)?);
    Ok(0)
}

pub(super) fn explain(front: &Front, syntax: &Syntax, a: args::Explain) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let (to, from) = resolve::packet(&a)?;
    let container = a.names.first().map_or("", String::as_str);
    let found = front.engine.network_explain(container, to, from)?;
    let format = if a.json {
        Some("json")
    } else {
        a.format.as_deref()
    };
    exit::print(&super::machine::formatted(&found, format, || {
        explanation(&found)
    })?)?;
    Ok(0)
}
