//! `ps`: one row a container.

use std::time::SystemTime;

use super::durations::{since, size, stamp, words};
use super::format::{Kind, Row, Wanted, label_list};
use super::ports;
use crate::engine::view::{Status, Summary};

pub const KIND: Kind = Kind {
    go_type: "*formatter.ContainerContext",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Names", "NAMES"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Ports", "PORTS"),
        ("State", "STATE"),
        ("Status", "STATUS"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
        ("Platform", "PLATFORM"),
    ],
    table: "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    unparsed: "failed to parse template: ",
    failed: "failed to execute template: ",
    whole: true,
};

/// With `--size`.
pub const KIND_WITH_SIZE: Kind = Kind {
    table: "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    ..KIND
};

/// What `wanted` has, or all.
pub fn row(c: &Summary, now: SystemTime, no_trunc: bool, wanted: Option<&Wanted>) -> Row {
    let mounts = || {
        let all: Vec<String> = c.mounts.iter().map(|m| mount(m, no_trunc)).collect();
        all.join(",")
    };
    let volumes = || c.mounts.iter().filter(|m| m.r#type == "volume").count();
    let networks = || {
        let all: Vec<&str> = c.networks.keys().map(String::as_str).collect();
        all.join(",")
    };
    Row::new(&c.labels)
        .with("ID", id(&c.id, no_trunc))
        .with("Names", c.name.as_str())
        .with_if(wanted, "Image", || image(c, no_trunc))
        .with_if(wanted, "Command", || command(c, no_trunc))
        .with_if(wanted, "CreatedAt", || stamp(&c.created, false))
        .with_if(wanted, "RunningFor", || ago(&whole_second(&c.created), now))
        .with_if(wanted, "Ports", || ports::column(&c.ports))
        .with_if(wanted, "State", || c.status.as_str())
        .with_if(wanted, "Status", || status(c, now))
        .with_if(wanted, "Size", || sizes(c))
        .with_if(wanted, "Labels", || label_list(&c.labels))
        .with_if(wanted, "Mounts", mounts)
        .with_if(wanted, "LocalVolumes", || volumes().to_string())
        .with_if(wanted, "Networks", networks)
        .with_if(wanted, "Platform", || "linux")
}

/// 12 digits, or all.
pub fn id(id: &str, no_trunc: bool) -> &str {
    if no_trunc {
        id
    } else {
        id.get(..12).unwrap_or(id)
    }
}

fn image(c: &Summary, no_trunc: bool) -> String {
    let image = &c.image;
    if image.is_empty() {
        "<no image>".into()
    } else if let Some(digest) = image.strip_prefix("sha256:") {
        id(digest, no_trunc).to_owned()
    } else {
        image.clone()
    }
}

/// In quotes, at most 20 characters of it.
fn command(c: &Summary, no_trunc: bool) -> String {
    let mut argv = c.argv.iter();
    let mut line = argv.next().cloned().unwrap_or_default();
    for arg in argv {
        // Docker's daemon quotes just these.
        match arg.contains(' ') {
            true => line.push_str(&format!(" '{arg}'")),
            false => line.push_str(&format!(" {arg}")),
        }
    }
    if !no_trunc {
        line = ellipsis(&line, 20);
    }
    quote(&line)
}

/// Go's strconv.Quote: what cannot be printed becomes an escape.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Cut to `width` characters, the last of which says so.
fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width - 1).collect();
    cut.push('…');
    cut
}

/// Docker's list has the time of creation in whole seconds.
fn whole_second(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time.to_owned(),
    }
}

fn ago(time: &str, now: SystemTime) -> String {
    since(time, now).map_or_else(String::new, |d| format!("{} ago", words(d)))
}

/// The STATUS column: `Up 5 seconds`, `Exited (137) 3 minutes ago`.
fn status(s: &Summary, now: SystemTime) -> String {
    let up = || since(&s.started_at, now).map_or_else(String::new, words);
    match s.status {
        Status::Created => "Created".into(),
        Status::Running => format!("Up {}", up()),
        Status::Paused => format!("Up {} (Paused)", up()),
        Status::Restarting => {
            format!("Restarting ({}) {}", s.exit_code, ago(&s.finished_at, now))
        }
        Status::Removing => "Removal In Progress".into(),
        Status::Dead => "Dead".into(),
        Status::Exited => format!("Exited ({}) {}", s.exit_code, ago(&s.finished_at, now)),
    }
}

fn sizes(c: &Summary) -> String {
    let own = size(c.size_rw.unwrap_or(0));
    match c.size_root_fs {
        Some(all) if all > 0 => format!("{own} (virtual {})", size(all)),
        _ => own,
    }
}

fn mount(m: &crate::engine::view::MountPoint, no_trunc: bool) -> String {
    let name = if m.name.is_empty() {
        &m.source
    } else {
        &m.name
    };
    if no_trunc {
        name.clone()
    } else {
        ellipsis(name, 15)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_quoted_and_cut() {
        let c = Summary {
            argv: vec![
                "/bin/sh".into(),
                "-c".into(),
                "echo \"a\x1b[2J\"; true".into(),
            ],
            ..Summary::default()
        };
        assert_eq!(command(&c, false), "\"/bin/sh -c 'echo \\\"a…\"");
        assert_eq!(
            command(&c, true),
            "\"/bin/sh -c 'echo \\\"a\\x1b[2J\\\"; true'\""
        );
        assert_eq!(ellipsis("12345", 5), "12345");
        assert_eq!(ellipsis("123456", 5), "1234…");
    }
}
