//! `inspect`, `container inspect`, `network inspect`: what was found is
//! printed, what was not is complained about, and then the code is 1.

use serde::Serialize;

use super::super::args::Syntax;
use super::super::args::{container as args, network};
use super::super::exit::{self, Failure, Outcome, complain};
use super::super::render::inspect::inspect;
use super::Front;
use crate::base::{Cause, Error, Result};
use crate::engine::view::{Container, Network};

/// Either kind, printed as what it is.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Object {
    Container(Box<Container>),
    Network(Box<Network>),
}

pub(super) fn any(front: &Front, syntax: &Syntax, a: args::Inspect) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let size = a.size;
    let container = |name: &str| sized(front, name, size).map(|c| Object::Container(Box::new(c)));
    let network = |name: &str| {
        front
            .engine
            .network(name)
            .map(|n| Object::Network(Box::new(n)))
    };
    let find: &dyn Fn(&str) -> Result<Object> = match a.kind.as_deref() {
        Some("container") => &container,
        Some("network") => &network,
        None | Some("") => &|name| match container(name) {
            Err(e) if is_missing(&e) => match network(name) {
                Err(e) if is_missing(&e) => {
                    Err(Error::not_found(format!("No such object: {name}")))
                }
                other => other,
            },
            other => other,
        },
        Some(
            kind @ ("image" | "volume" | "config" | "node" | "plugin" | "secret" | "service"
            | "task"),
        ) => {
            return Err(Failure::from(Error::invalid(format!(
                "--type {kind} of 'docker inspect' is not supported yet by dockless"
            ))));
        }
        Some(other) => {
            return Err(Failure::from(Error::invalid(format!(
                "unknown type: {other:?}: must be one of \"container\", \"network\""
            ))));
        }
    };
    show(&a.names, a.format.as_deref(), find)
}

pub(super) fn container(front: &Front, syntax: &Syntax, a: args::InspectContainer) -> Outcome {
    exit::count(syntax, a.names.len())?;
    show(&a.names, a.format.as_deref(), &|name| {
        sized(front, name, a.size)
    })
}

pub(super) fn network(front: &Front, syntax: &Syntax, a: network::Inspect) -> Outcome {
    exit::count(syntax, a.names.len())?;
    show(&a.names, a.format.as_deref(), &|name| {
        front.engine.network(name)
    })
}

fn sized(front: &Front, name: &str, size: bool) -> Result<Container> {
    let mut container = front.engine.container(name)?;
    if size {
        front.engine.measure(&mut container)?;
    }
    Ok(container)
}

fn is_missing(e: &Error) -> bool {
    matches!(e.cause, Cause::NotFound(_))
}

fn show<T: Serialize>(
    names: &[String],
    format: Option<&str>,
    find: &dyn Fn(&str) -> Result<T>,
) -> Outcome {
    exit::template(format)?;
    let (found, missing): (Vec<_>, Vec<_>) =
        names.iter().map(|name| find(name)).partition(Result::is_ok);
    let found: Vec<T> = found.into_iter().flatten().collect();
    let format = format.unwrap_or_default();
    // A template prints nothing for nothing, JSON an empty array.
    exit::print(&inspect(&found, format)?)?;
    for e in missing.iter().filter_map(|m| m.as_ref().err()) {
        complain(&e.to_string());
    }
    Ok(u8::from(!missing.is_empty()))
}

/// The text of `container inspect`, for tests without an engine.
pub fn container_objects(list: &[Container], format: &str) -> Result<String> {
    inspect(list, format)
}

/// The text of `network inspect`, for tests without an engine.
pub fn network_objects(list: &[Network], format: &str) -> Result<String> {
    inspect(list, format)
}
