//! Commands on the machine and on dockless itself.

use std::time::SystemTime;

use super::super::args::Syntax;
use super::super::args::machine as args;
use super::super::demo;
use super::super::exit::{self, BAD_TEMPLATE, Failure, Outcome, print_line};
use super::super::generate;
use super::super::render::doctor::diagnosis as diagnosis_text;
use super::super::render::events::event as event_text;
use super::super::render::inspect::one;
use super::super::render::machine as text;
use super::super::resolve::{filter, time};
use super::Front;
use crate::base::{Error, Result};
use crate::engine::EventsRequest;
use crate::engine::view::{ClientVersion, Event, Info, Verdict, Version};

/// The Engine API whose JSON is printed.
const API: &str = "1.52";

pub(super) fn version(_: &Front, syntax: &Syntax, a: args::Show) -> Outcome {
    exit::count(syntax, a.names.len())?;
    exit::template(a.format.as_deref())?;
    exit::print(&version_text(&our_version(), a.format.as_deref())?)?;
    Ok(0)
}

fn our_version() -> Version {
    Version {
        client: ClientVersion {
            version: env!("CARGO_PKG_VERSION").into(),
            api_version: API.into(),
            default_api_version: API.into(),
            git_commit: option_env!("DOCKLESS_GIT_COMMIT")
                .unwrap_or_default()
                .into(),
            rust_version: env!("CARGO_PKG_RUST_VERSION").into(),
            os: std::env::consts::OS.into(),
            arch: go_arch().into(),
            build_time: option_env!("DOCKLESS_BUILD_TIME")
                .unwrap_or_default()
                .into(),
            context: "default".into(),
        },
        server: None,
    }
}

/// Docker names processors as Go does.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn version_text(version: &Version, format: Option<&str>) -> Result<String> {
    formatted(version, format, || text::version(version))
}

/// Text without a format, else JSON or a template.
pub(super) fn formatted<T: serde::Serialize>(
    value: &T,
    format: Option<&str>,
    plain: impl FnOnce() -> String,
) -> Result<String> {
    match format.unwrap_or_default() {
        "" => Ok(plain()),
        "json" => serde_json::to_string(value)
            .map(|json| json + "\n")
            .map_err(|e| Error::parse("write", "JSON", e)),
        template => one(value, template, "template parsing error: "),
    }
}

pub(super) fn info(front: &Front, syntax: &Syntax, a: args::Show) -> Outcome {
    exit::count(syntax, a.names.len())?;
    exit::template(a.format.as_deref())?;
    let info = front.engine.info()?;
    exit::print(&info_text(&info, a.format.as_deref())?)?;
    Ok(0)
}

fn info_text(info: &Info, format: Option<&str>) -> Result<String> {
    formatted(info, format, || text::info(env!("CARGO_PKG_VERSION"), info))
}

pub(super) fn events(front: &Front, syntax: &Syntax, a: args::Events) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let now = SystemTime::now();
    let moment = |option, text: &Option<String>| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(|text| time::moment(option, text, now)).transpose()
    };
    let request = EventsRequest {
        since: moment("since", &a.since)?,
        until: moment("until", &a.until)?,
    };
    let filter = filter::Events::new(&a.filter)?;
    let format = a.format.unwrap_or_default();
    // Not only when the first one comes.
    event_text(&Event::default(), &format).map_err(|e| Failure::coded(&e, BAD_TEMPLATE))?;
    let mut failure = None;
    let ended = front.engine.events(&request, &mut |event| {
        if !filter.allows(&event) {
            return Ok(());
        }
        let line = event_text(&event, &format)?;
        exit::print_line(&line).map_err(|why| {
            failure = Some(why);
            Error::state("write", "event", "nobody reads them")
        })
    });
    match failure {
        Some(failure) => Err(failure),
        None => Ok(ended.map(|()| 0)?),
    }
}

pub(super) fn doctor(front: &Front, syntax: &Syntax, a: args::Doctor) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let parent = a.names.first().map(String::as_str);
    let diagnosis = front.engine.doctor(parent, !a.no_probe)?;
    exit::print(&if a.json {
        serde_json::to_string(&diagnosis).map_err(|e| Error::parse("write", "JSON", e))? + "\n"
    } else {
        diagnosis_text(&diagnosis)
    })?;
    Ok(u8::from(diagnosis.verdict == Verdict::Problem))
}

pub(super) fn gc(front: &Front, syntax: &Syntax, a: args::Plain) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let found = front.engine.gc()?;
    for line in &found.items {
        print_line(line)?;
    }
    Ok(exit::problems(&found.problems))
}

/// Lines for /etc/hosts.
pub(super) fn hosts(front: &Front, syntax: &Syntax, a: args::Plain) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let found = front.engine.hosts()?;
    for (addr, names) in &found.items {
        print_line(&format!("{addr}\t{}", names.join(" ")))?;
    }
    Ok(exit::problems(&found.problems))
}

/// The demo prints for itself, and its code is its verdict.
pub(super) fn demo(_: &Front, syntax: &Syntax, a: args::Plain) -> Outcome {
    exit::count(syntax, a.names.len())?;
    Err(Failure::Said(demo::main()))
}

pub(super) fn completion(_: &Front, syntax: &Syntax, a: args::Generate) -> Outcome {
    exit::count(syntax, a.names.len())?;
    let shell = a.names.first().map_or("", String::as_str);
    exit::print(&generate::completion(shell)?)?;
    Ok(0)
}

pub(super) fn man(_: &Front, _: &Syntax, a: args::Generate) -> Outcome {
    exit::print(&match a.names.first().map(String::as_str) {
        Some("list") => generate::pages().join("\n") + "\n",
        _ => generate::man(&a.names.join(" "))?,
    })?;
    Ok(0)
}
