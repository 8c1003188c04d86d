//! `stats`: one row a container.

use super::containers::id;
use super::durations::{size, size_binary};
use super::format::{Kind, Row};
use crate::engine::{LinkUsage, Sample};

pub const KIND: Kind = Kind {
    go_type: "*container.statsContext",
    headers: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
        ("LinkDrops", "LINK DROPS"),
        ("GuardDrops", "GUARD DROPS"),
        ("RateDrops", "RATE DROPS"),
        ("ParentDrops", "PARENT DROPS"),
    ],
    table: "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}",
    unparsed: "failed to parse template: ",
    failed: "failed to execute template: ",
    whole: true,
};

/// `before`: the same container some time ago, if it ran then.
#[allow(clippy::cast_precision_loss)]
pub fn row(now: &Sample, before: Option<&Sample>, no_trunc: bool) -> Row {
    let used = &now.used;
    let share = |part: u64, whole: f64| match whole > 0.0 {
        true => format!("{:.2}%", part as f64 / whole * 100.0),
        false => "0.00%".to_owned(),
    };
    let spent = before.map_or(0, |b| used.cpu_ns.saturating_sub(b.used.cpu_ns));
    let time = before.map_or(0.0, |b| (now.at - b.at).as_nanos() as f64);
    let sum = |of: fn(&LinkUsage) -> u64| now.links.values().map(of).sum::<u64>();
    let pair = |a: u64, b: u64| format!("{a} / {b}");
    Row::default()
        .with("Container", id(&now.id, no_trunc))
        .with("ID", id(&now.id, no_trunc))
        .with("Name", now.name.clone())
        .with("CPUPerc", share(spent, time))
        .with(
            "MemUsage",
            format!(
                "{} / {}",
                size_binary(used.memory),
                size_binary(used.memory_limit)
            ),
        )
        .with("MemPerc", share(used.memory, used.memory_limit as f64))
        .with(
            "NetIO",
            format!(
                "{} / {}",
                size(sum(|l| l.counts.rx_bytes)),
                size(sum(|l| l.counts.tx_bytes))
            ),
        )
        .with(
            "BlockIO",
            format!("{} / {}", size(used.read), size(used.written)),
        )
        .with("PIDs", used.pids.to_string())
        .with(
            "LinkDrops",
            pair(sum(|l| l.counts.rx_dropped), sum(|l| l.counts.tx_dropped)),
        )
        .with("GuardDrops", sum(|l| l.guard_dropped).to_string())
        .with(
            "RateDrops",
            pair(sum(|l| l.rate_dropped.down), sum(|l| l.rate_dropped.up)),
        )
        .with("ParentDrops", sum(|l| l.parent_rx_dropped).to_string())
}
