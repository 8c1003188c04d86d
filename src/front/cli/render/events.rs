//! `events`: a line for each.

use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::inspect::one;
use crate::base::{Error, Result};
use crate::engine::view::{Actor, Event};

/// Go's names of the fields, for templates.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Fields<'a> {
    r#type: &'a str,
    action: &'a str,
    actor: &'a Actor,
    scope: &'a str,
    time: u64,
    time_nano: u64,
}

/// One event, without the newline.
pub fn event(event: &Event, format: &str) -> Result<String> {
    match format {
        "" => Ok(text(event)),
        "json" | "{{json .}}" => {
            serde_json::to_string(event).map_err(|e| Error::parse("write", "JSON", e))
        }
        template => {
            let fields = Fields {
                r#type: &event.kind,
                action: &event.action,
                actor: &event.actor,
                scope: &event.scope,
                time: event.time,
                time_nano: event.time_nano,
            };
            let line = one(&fields, template, "Error parsing format: ")?;
            Ok(line.strip_suffix('\n').unwrap_or(&line).to_owned())
        }
    }
}

/// `2026-11-28T12:00:00.000000001Z container start ID (image=tester, name=web)`
fn text(event: &Event) -> String {
    let at = UNIX_EPOCH + Duration::from_nanos(event.time_nano);
    let mut line = format!(
        "{} {} {} {}",
        humantime::format_rfc3339_nanos(at),
        event.kind,
        event.action,
        event.actor.id
    );
    let attributes: Vec<String> = event
        .actor
        .attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if !attributes.is_empty() {
        line.push_str(&format!(" ({})", attributes.join(", ")));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_prints_them() {
        let start = Event {
            kind: "container".into(),
            action: "start".into(),
            actor: Actor {
                id: "abc".into(),
                attributes: [("name", "web"), ("image", "tester")]
                    .map(|(k, v)| (k.to_owned(), v.to_owned()))
                    .into(),
            },
            scope: "local".into(),
            time: 1_700_000_000,
            time_nano: 1_700_000_000_000_000_001,
        };
        assert_eq!(
            event(&start, "").unwrap(),
            "2023-11-14T22:13:20.000000001Z container start abc (image=tester, name=web)"
        );
        let json = concat!(
            r#"{"Type":"container","Action":"start","Actor":{"ID":"abc","Attributes":"#,
            r#"{"image":"tester","name":"web"}},"scope":"local","#,
            r#""time":1700000000,"timeNano":1700000000000000001}"#
        );
        assert_eq!(event(&start, "json").unwrap(), json);
        assert_eq!(event(&start, "{{json .}}").unwrap(), json);
        assert_eq!(
            event(
                &start,
                "{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.TimeNano}}"
            )
            .unwrap(),
            "container start web 1700000000000000001"
        );
        assert!(event(&start, "{{.Nope}}").is_err());
        // Which attributes there are is different from event to event.
        for format in ["{{.Actor.Attributes.exitCode}}", "{{.Actor.Attributes}}"] {
            event(&Event::default(), format).unwrap();
        }
        assert_eq!(
            event(&start, "{{.Actor.Attributes.exitCode}}").unwrap(),
            "<no value>"
        );
    }
}
