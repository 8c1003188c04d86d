//! `--filter NAME=VALUE` of `ps`, `network ls` and `network prune`: several
//! values of one name are alternatives (labels: all must hold), different
//! names must all hold. Names and ids are regular expressions, as in Docker.

use std::time::SystemTime;

use regex_lite::Regex;

use super::super::render::durations::parse;
use super::super::render::ports::split_key;
use super::time::moment;
use crate::base::{Error, Result};
use crate::engine::view::{Event, Network, Status, Summary};

/// Name and value pairs as parsed.
type Pairs = [(String, String)];

fn invalid(text: &str) -> Error {
    Error::invalid(format!("invalid filter '{text}'"))
}

fn known(pairs: &Pairs, names: &[&str]) -> Result<()> {
    match pairs
        .iter()
        .find(|(name, _)| !names.contains(&name.as_str()))
    {
        Some((name, _)) => Err(invalid(name)),
        None => Ok(()),
    }
}

fn values<'a>(pairs: &'a Pairs, name: &str) -> Vec<&'a str> {
    let named = pairs.iter().filter(|(n, _)| n == name);
    named.map(|(_, value)| value.as_str()).collect()
}

/// Matches as Docker's filters do: equal, or found by the expression. What is
/// no expression matches only what is equal to it.
struct Patterns<'a>(Vec<(&'a str, Option<Regex>)>);

impl<'a> Patterns<'a> {
    fn new(values: Vec<&'a str>) -> Self {
        Self(
            values
                .into_iter()
                .map(|v| (v, Regex::new(v).ok()))
                .collect(),
        )
    }

    fn allow(&self, text: &str) -> bool {
        let hit = |(value, regex): &(&str, Option<Regex>)| {
            *value == text || regex.as_ref().is_some_and(|r| r.is_match(text))
        };
        self.0.is_empty() || self.0.iter().any(hit)
    }
}

fn labelled(labels: &std::collections::BTreeMap<String, String>, wanted: &[&str]) -> bool {
    wanted.iter().all(|item| match item.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(*item),
    })
}

/// `ps --filter`. `all` says whether stopped containers are to be listed.
#[derive(Debug)]
pub struct Containers<'a> {
    pairs: &'a Pairs,
    all: bool,
}

impl<'a> Containers<'a> {
    pub fn new(pairs: &'a Pairs, all: bool) -> Result<Self> {
        known(
            pairs,
            &[
                "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label",
                "name", "network", "publish", "since", "status", "volume",
            ],
        )?;
        for status in values(pairs, "status") {
            if !Status::ALL.iter().any(|s| s.as_str() == status) {
                let all: Vec<&str> = Status::ALL.iter().map(|s| s.as_str()).collect();
                return Err(Error::invalid(format!(
                    "invalid value for state ({status}): must be one of {}",
                    all.join(", ")
                )));
            }
        }
        for code in values(pairs, "exited") {
            code.parse::<i32>()
                .map_err(|_| invalid(&format!("exited={code}")))?;
        }
        for port in values(pairs, "publish")
            .into_iter()
            .chain(values(pairs, "expose"))
        {
            ports(port).ok_or_else(|| Error::invalid(format!("invalid port: {port}")))?;
        }
        // Asking for a state asks for containers that do not run, too.
        let all = all || pairs.iter().any(|(name, _)| name == "status");
        Ok(Self { pairs, all })
    }

    /// Stopped containers are needed for the answer; `before` and `since` may
    /// name one.
    pub fn needs_all(&self) -> bool {
        self.all
            || self
                .pairs
                .iter()
                .any(|(n, _)| n == "before" || n == "since")
    }

    /// Keeps what matches, in the order given.
    pub fn apply(&self, list: Vec<Summary>) -> Result<Vec<Summary>> {
        let before = self.moments("before", &list)?.into_iter().min();
        let since = self.moments("since", &list)?.into_iter().max();
        let names = Patterns::new(values(self.pairs, "name"));
        let ids = Patterns::new(values(self.pairs, "id"));
        let in_time = |c: &Summary| {
            let created = parse(&c.created);
            before.is_none_or(|t| created < Some(t)) && since.is_none_or(|t| created > Some(t))
        };
        // Docker lets the slash of its API be part of the expression.
        let named = |c: &Summary| names.allow(&c.name) || names.allow(&format!("/{}", c.name));
        Ok(list
            .into_iter()
            .filter(|c| self.all || c.is_running())
            .filter(|c| in_time(c) && named(c) && ids.allow(&c.id) && self.rest(c))
            .collect())
    }

    fn moments(&self, name: &str, list: &[Summary]) -> Result<Vec<SystemTime>> {
        let find = |wanted: &str| {
            let hit = |c: &&Summary| c.name == wanted || c.id.starts_with(wanted);
            list.iter()
                .find(hit)
                .and_then(|c| parse(&c.created))
                .ok_or_else(|| Error::not_found(format!("No such container: {wanted}")))
        };
        values(self.pairs, name).into_iter().map(find).collect()
    }

    fn rest(&self, c: &Summary) -> bool {
        let any = |name: &str, hit: &dyn Fn(&str) -> bool| {
            let wanted = values(self.pairs, name);
            wanted.is_empty() || wanted.into_iter().any(hit)
        };
        any("status", &|v| c.status.as_str() == v)
            && any("exited", &|v| {
                c.status == Status::Exited && v.parse() == Ok(c.exit_code)
            })
            && any("ancestor", &|v| ancestor(c, v))
            && any("network", &|v| {
                c.networks
                    .iter()
                    .any(|(name, id)| name == v || (!v.is_empty() && id.starts_with(v)))
            })
            && any("publish", &|v| has_port(&c.bound, v))
            && any("expose", &|v| has_port(&c.exposed, v))
            && any("volume", &|v| {
                c.mounts.iter().any(|m| m.name == v || m.destination == v)
            })
            // Nothing here has a health check, or is a task of a swarm.
            && any("health", &|v| v == "none")
            && any("is-task", &|v| v == "false")
            && labelled(&c.labels, &values(self.pairs, "label"))
    }
}

/// The image by name, with or without `:latest`, or by id.
fn ancestor(c: &Summary, wanted: &str) -> bool {
    let bare = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
    let digest = c.image_id.strip_prefix("sha256:").unwrap_or(&c.image_id);
    let id = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    bare(&c.image) == bare(wanted) || (id.len() >= 12 && digest.starts_with(id))
}

/// `80`, `80/udp`, `80-90`
fn ports(text: &str) -> Option<(u16, u16, &str)> {
    let (range, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    Some((first.parse().ok()?, last.parse().ok()?, proto))
}

/// Both filters are about the container's ports, and about what was asked for,
/// whether or not it runs (moby, daemon/container/view.go: `PortBindings`).
fn has_port(keys: &[String], wanted: &str) -> bool {
    let Some((first, last, proto)) = ports(wanted) else {
        return false;
    };
    let hit = |key: &String| {
        split_key(key).is_some_and(|(port, p)| (first..=last).contains(&port) && p == proto)
    };
    keys.iter().any(hit)
}

/// `events --filter`
#[derive(Debug)]
pub struct Events<'a> {
    pairs: &'a Pairs,
}

impl<'a> Events<'a> {
    pub fn new(pairs: &'a Pairs) -> Result<Self> {
        known(
            pairs,
            &[
                "config",
                "container",
                "daemon",
                "event",
                "image",
                "label",
                "network",
                "node",
                "plugin",
                "scope",
                "secret",
                "service",
                "type",
                "volume",
            ],
        )?;
        Ok(Self { pairs })
    }

    pub fn allows(&self, event: &Event) -> bool {
        let any = |name: &str, hit: &dyn Fn(&str) -> bool| {
            let wanted = values(self.pairs, name);
            wanted.is_empty() || wanted.into_iter().any(hit)
        };
        let attribute = |key: &str| event.actor.attributes.get(key).map(String::as_str);
        // Docker: whatever names one kind of thing leaves out all others.
        let of_kind = |kind: &str| {
            any(kind, &|v| {
                let named = attribute("name") == Some(v);
                event.kind == kind && !v.is_empty() && (event.actor.id.starts_with(v) || named)
            })
        };
        let bare = |name: &str| name.strip_suffix(":latest").unwrap_or(name).to_owned();
        of_kind("container")
            && of_kind("network")
            && [
                "config", "daemon", "node", "plugin", "secret", "service", "volume",
            ]
            .into_iter()
            .all(of_kind)
            && any("event", &|v| event.action == v)
            && any("image", &|v| {
                attribute("image").is_some_and(|i| bare(i) == bare(v))
            })
            && any("scope", &|v| event.scope == v)
            && any("type", &|v| event.kind == v)
            && labelled(&event.actor.attributes, &values(self.pairs, "label"))
    }
}

/// `network ls --filter`
pub fn networks(pairs: &Pairs, list: Vec<Network>) -> Result<Vec<Network>> {
    known(
        pairs,
        &["dangling", "driver", "id", "label", "name", "scope", "type"],
    )?;
    for kind in values(pairs, "type") {
        if kind != "custom" && kind != "builtin" {
            return Err(Error::invalid(format!("invalid filter: 'type'='{kind}'")));
        }
    }
    let dangling: Vec<bool> = values(pairs, "dangling")
        .into_iter()
        .map(|v| {
            super::super::args::values::switch(v).map_err(|_| invalid(&format!("dangling={v}")))
        })
        .collect::<Result<_>>()?;
    let names = Patterns::new(values(pairs, "name"));
    let ids = Patterns::new(values(pairs, "id"));
    let is = |name: &str, text: &str| {
        let wanted = values(pairs, name);
        wanted.is_empty() || wanted.contains(&text)
    };
    Ok(list
        .into_iter()
        .filter(|n| {
            let kind = if n.is_predefined() {
                "builtin"
            } else {
                "custom"
            };
            let unused = n.containers.is_empty() && !n.is_predefined();
            is("driver", &n.driver)
                && is("scope", &n.scope)
                && is("type", kind)
                && names.allow(&n.name)
                && ids.allow(&n.id)
                && labelled(&n.labels, &values(pairs, "label"))
                && (dangling.is_empty() || dangling.contains(&unused))
        })
        .collect())
}

/// `network prune --filter`: which networks may go.
pub fn prune(pairs: &Pairs, now: SystemTime) -> Result<impl Fn(&Network) -> bool + use<>> {
    known(pairs, &["label", "label!", "until"])?;
    let owned = |name: &str| -> Vec<String> {
        values(pairs, name).into_iter().map(str::to_owned).collect()
    };
    let (with, without) = (owned("label"), owned("label!"));
    let until = match values(pairs, "until")[..] {
        [] => None,
        [text] => Some(moment("until", text, now)?),
        _ => return Err(Error::invalid("more than one until filter specified")),
    };
    Ok(move |n: &Network| {
        let wanted: Vec<&str> = with.iter().map(String::as_str).collect();
        let hit = |item: &String| labelled(&n.labels, &[item]);
        let old = until.is_none_or(|t| parse(&n.created).is_some_and(|created| created <= t));
        labelled(&n.labels, &wanted) && !without.iter().any(hit) && old
    })
}
