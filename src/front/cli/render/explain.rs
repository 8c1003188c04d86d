//! What `network explain` has found, as text.

use std::fmt::Write as _;

use super::safe;
use crate::engine::view::{Answer, DefaultRoute, Explanation, NetworkRouting};

pub fn explanation(e: &Explanation) -> String {
    let mut out = format!("{}, {}\n", e.container, match e.running {
        true => "as it is",
        false => "as its next start would make it",
    });
    for default in &e.defaults {
        line(&mut out, default);
    }
    for network in &e.networks {
        part(&mut out, network);
    }
    list(&mut out, "\nmain table", &e.main);
    list(&mut out, "\nrules that were added inside the container", &e.other_rules);
    if let Some(answer) = &e.answer {
        way(&mut out, answer);
    }
    // Names are other people's.
    safe::lines(&out).into_owned()
}

fn line(out: &mut String, d: &DefaultRoute) {
    let _ = match (d.network.as_str(), d.gateway.as_str()) {
        ("", _) => writeln!(out, "\n{}: no default route: {}", d.family, d.why),
        (network, "") => writeln!(
            out,
            "\n{}: default route by {network} ({}), whose host routes: {}",
            d.family, d.interface, d.why
        ),
        (network, gateway) => writeln!(
            out,
            "\n{}: default route by {network} ({}) via {gateway}: {}",
            d.family, d.interface, d.why
        ),
    };
    for other in &d.others {
        let _ = writeln!(out, "  {other}");
    }
}

fn part(out: &mut String, n: &NetworkRouting) {
    let addrs = match n.addresses.as_slice() {
        [] => "no address".to_owned(),
        all => all.join(", "),
    };
    let _ = writeln!(out, "\n{} ({}): {addrs}", n.network, n.interface);
    for rule in &n.rules {
        let _ = writeln!(out, "  rule {rule}");
    }
    list(out, "  its table", &n.table);
    for route in &n.static_routes {
        let _ = writeln!(out, "  static route {route}");
    }
    for note in &n.notes {
        let _ = writeln!(out, "  {note}");
    }
}

fn list(out: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "{title}");
    let indent = if title.starts_with(' ') { "    " } else { "  " };
    for line in lines {
        let _ = writeln!(out, "{indent}{line}");
    }
}

fn way(out: &mut String, a: &Answer) {
    let from = match a.from.as_str() {
        "" => String::new(),
        from => format!(" from {from}"),
    };
    let _ = match (a.interface.as_str(), a.gateway.as_str()) {
        _ if a.route.is_empty() => writeln!(out, "\n{}{from} cannot be reached: {}", a.to, a.why),
        ("", _) => writeln!(out, "\n{}{from} goes by {}: {}", a.to, a.route, a.why),
        (ifname, "") => writeln!(out, "\n{}{from} goes out by {ifname}, on the link: {}", a.to, a.why),
        (ifname, via) => writeln!(out, "\n{}{from} goes out by {ifname} via {via}: {}", a.to, a.why),
    };
}
