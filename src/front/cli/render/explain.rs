//! What `network explain` has found, as text.

use std::fmt::Write as _;

use super::safe;
use crate::engine::view::{Answer, DefaultRoute, Explanation, Goes, NetworkRouting};

pub fn explanation(e: &Explanation) -> String {
    let mut out = match (e.running, &e.answer) {
        (true, None) => format!("{}, as it is\n", e.container),
        (true, Some(_)) => String::new(),
        (false, _) => format!("{}, as its next start would make it\n", e.container),
    };
    if let Some(answer) = &e.answer {
        way(&mut out, answer);
        return safe::lines(&out).into_owned();
    }
    for default in &e.defaults {
        line(&mut out, default);
    }
    for network in &e.networks {
        part(&mut out, network);
    }
    list(&mut out, "\nmain table", &e.main);
    list(
        &mut out,
        "\nrules that were added inside the container",
        &e.other_rules,
    );
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
    let packet = match a.from.as_str() {
        "" => a.to.clone(),
        from => format!("{from} to {}", a.to),
    };
    let goes = match (a.goes, a.interface.as_str(), a.gateway.as_str()) {
        (Goes::Nowhere, ..) => "goes nowhere".to_owned(),
        (Goes::Inside, ..) => "stays in the container".to_owned(),
        (Goes::Everybody, ifname, _) => format!("goes to everybody who listens on {ifname}"),
        (Goes::Out, "", _) => format!("goes by {}", a.route),
        (Goes::Out, ifname, "") => format!("goes out by {ifname}, on the link"),
        (Goes::Out, ifname, via) => format!("goes out by {ifname} via {via}"),
    };
    let _ = writeln!(out, "{packet}: {goes}");
    if !a.route.is_empty() && a.goes == Goes::Out {
        let table = match a.table {
            0 => " of the network's own table".to_owned(),
            254 => " of the main table".to_owned(),
            n => format!(" of table {n}"),
        };
        let _ = writeln!(out, "  by \"{}\"{table}", a.route);
    }
    let _ = writeln!(out, "  {}", a.why);
}
