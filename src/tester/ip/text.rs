//! iproute2's text layout, trailing blanks included.

use std::fmt::Write;

use super::super::interfaces::{Addr, Interface, Lower, Path};
use super::{Object, Query};

// Writing to a String cannot fail, hence the `let _ =` below.

pub(super) fn full(links: &[Interface], query: &Query) -> String {
    let mut out = String::new();
    for link in links {
        head(&mut out, link, query.object);
        // iproute2 leaves the link layer out when asked for one family.
        if !(query.family.is_some() && query.object == Object::Address) {
            layer(&mut out, link);
        }
        if let Some(id) = link.netnsid {
            let _ = write!(out, " link-netnsid {id}");
        }
        out.push('\n');
        for altname in &link.altnames {
            let _ = writeln!(out, "    altname {altname}");
        }
        if query.object == Object::Address {
            for addr in &link.addrs {
                address(&mut out, addr);
            }
        }
    }
    out
}

fn head(out: &mut String, link: &Interface, object: Object) {
    let _ = write!(
        out,
        "{}: {}: <{}> mtu {}",
        link.index,
        name(link),
        link.flags.join(","),
        link.mtu
    );
    if let Some(qdisc) = &link.qdisc {
        let _ = write!(out, " qdisc {qdisc}");
    }
    if let Some(master) = &link.master {
        let _ = write!(out, " master {master}");
    }
    let _ = write!(out, " state {}", link.state);
    if object == Object::Link {
        out.push_str(" mode DEFAULT");
    }
    let _ = write!(out, " group {} ", link.group);
    if link.txqlen != 0 {
        let _ = write!(out, "qlen {}", link.txqlen);
    }
}

fn layer(out: &mut String, link: &Interface) {
    // A link without an address still has the blank before it.
    let _ = write!(out, "\n    link/{} ", link.hardware);
    if let Some(mac) = link.mac {
        let _ = write!(out, "{mac}");
    }
    if let Some(broadcast) = link.broadcast {
        let _ = write!(out, " brd {broadcast}");
    }
}

fn address(out: &mut String, addr: &Addr) {
    let family = if addr.cidr.is_ipv4() { "inet" } else { "inet6" };
    let _ = write!(out, "    {family} {} ", local(addr));
    if let Some(broadcast) = addr.broadcast {
        let _ = write!(out, "brd {broadcast} ");
    }
    let _ = write!(out, "scope {} ", addr.scope);
    for flag in &addr.flags {
        let _ = write!(out, "{flag} ");
    }
    let _ = writeln!(
        out,
        "{}\n       valid_lft {} preferred_lft {}",
        addr.label.as_deref().unwrap_or_default(),
        lifetime(addr.valid),
        lifetime(addr.preferred)
    );
}

pub(super) fn brief(links: &[Interface], query: &Query) -> String {
    let mut out = String::new();
    for link in links {
        let _ = write!(out, "{:<16} {:<14} ", name(link), link.state);
        if query.object == Object::Address {
            for addr in &link.addrs {
                let _ = write!(out, "{} ", local(addr));
            }
        } else {
            let mac = link.mac.map(|m| m.to_string()).unwrap_or_default();
            let _ = write!(out, "{mac:<17} <{}> ", link.flags.join(","));
        }
        out.push('\n');
    }
    out
}

pub(super) fn routes(routes: &[Path]) -> String {
    let mut out = String::new();
    for route in routes {
        if let Some(kind) = &route.kind {
            let _ = write!(out, "{kind} ");
        }
        let _ = write!(out, "{} ", route.dst);
        if let Some(gateway) = route.gateway {
            let _ = write!(out, "via {gateway} ");
        }
        if let Some(dev) = &route.dev {
            let _ = write!(out, "dev {dev} ");
        }
        if let Some(protocol) = &route.protocol {
            let _ = write!(out, "proto {protocol} ");
        }
        if let Some(scope) = &route.scope {
            let _ = write!(out, "scope {scope} ");
        }
        if let Some(src) = route.prefsrc {
            let _ = write!(out, "src {src} ");
        }
        if let Some(metric) = route.metric {
            let _ = write!(out, "metric {metric} ");
        }
        for flag in &route.flags {
            let _ = write!(out, "{flag} ");
        }
        out.push('\n');
    }
    out
}

fn name(link: &Interface) -> String {
    match &link.lower {
        Lower::No => link.name.clone(),
        Lower::Unbound => format!("{}@NONE", link.name),
        Lower::Here(lower) => format!("{}@{lower}", link.name),
        Lower::Elsewhere(index) => format!("{}@if{index}", link.name),
    }
}

fn local(addr: &Addr) -> String {
    match addr.peer {
        None => addr.cidr.to_string(),
        Some(peer) => format!("{} peer {peer}/{}", addr.cidr.addr(), addr.cidr.prefix()),
    }
}

fn lifetime(seconds: u32) -> String {
    match seconds {
        u32::MAX => String::from("forever"),
        seconds => format!("{seconds}sec"),
    }
}
