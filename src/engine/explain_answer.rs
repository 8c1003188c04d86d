//! `network explain CONTAINER DESTINATION`: the kernel's answer, and the words
//! for it.

use std::net::IpAddr;

use super::explain::{Side, default, text};
use super::owner::Routing;
use super::view;
use crate::base::{Cidr, OfFamily};
use crate::net::routing::table_of;
use crate::netlink::policy::MAIN;
use crate::netlink::route::Route;

pub(super) fn answer(
    to: IpAddr,
    from: Option<IpAddr>,
    routing: &Routing,
    sides: &[Side],
    live: bool,
) -> view::Answer {
    let found = routing.found.clone();
    let from = found.as_ref().and_then(|found| found.from).or(from);
    let mut answer = view::Answer {
        to: to.to_string(),
        from: from.map(|ip| ip.to_string()).unwrap_or_default(),
        ..view::Answer::default()
    };
    let refusal = found.as_ref().and_then(|found| found.refusal.clone());
    let Some(route) = found.and_then(|found| found.route) else {
        let default = default(sides, to.family());
        let refusal = refusal.unwrap_or_else(|| "no route".to_owned());
        answer.why = match default.network.as_str() {
            "" => format!("{refusal}: {}", default.why),
            _ => refusal,
        };
        return answer;
    };
    let side = sides.iter().find(|side| Some(side.way.ifindex) == route.oif);
    answer.why = why(&route, from, side, sides);
    answer.route = text(&route, sides);
    answer.table = if live || route.table == MAIN { route.table } else { 0 };
    answer.gateway = route.gateway.map(|ip| ip.to_string()).unwrap_or_default();
    if let Some(side) = side {
        answer.network = side.spec.name.to_string();
        answer.interface.clone_from(&side.ifname);
    }
    answer
}

fn why(route: &Route, from: Option<IpAddr>, side: Option<&Side>, sides: &[Side]) -> String {
    if route.table == u32::from(libc::RT_TABLE_LOCAL) {
        return "it is the container's own address, or one that stays inside it".to_owned();
    }
    let Some(side) = side else {
        return "a route that was added inside the container".to_owned();
    };
    let name = &side.spec.name;
    let is_own = route.table == table_of(side.way.ifindex);
    let rule = match (is_own, from) {
        (true, Some(from)) => format!("{from} is its address on {name}, whose table has "),
        _ => String::new(),
    };
    let what = match route.dst {
        None if is_own => "the network's gateway as its default route".to_owned(),
        None => {
            let family = if route.ipv6 { crate::base::Family::Ipv6 } else { crate::base::Family::Ipv4 };
            let default = default(sides, family);
            if default.network == name.as_str() {
                format!("the default route goes by {name}: {}", default.why)
            } else {
                "a default route that was added inside the container".to_owned()
            }
        }
        Some(dst) => known(dst, route, side),
    };
    rule + &what
}

fn known(dst: Cidr, route: &Route, side: &Side) -> String {
    let name = &side.spec.name;
    let is_fixed = |r: &crate::net::routing::fixed::StaticRoute| {
        (r.dst, Some(r.gateway)) == (dst, route.gateway)
    };
    let is_subnet = side.way.addrs.values().any(|addr| addr.network() == dst);
    if is_subnet || route.gateway.is_none() && side.way.near.contains(&dst) {
        format!("{dst}, which is on {name}'s own link")
    } else if side.spec.routes.iter().any(is_fixed) {
        format!("a static route of {name}")
    } else if side.way.far.iter().any(|(net, _)| *net == dst) {
        format!("a route of {name}'s DHCP lease")
    } else if route.gateway.is_none() && route.protocol == 2 {
        format!("{dst}, which is on {name}'s own link")
    } else {
        "a route that was added inside the container".to_owned()
    }
}
