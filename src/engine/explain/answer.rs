//! `network explain CONTAINER DESTINATION`: the kernel's answer, and the words
//! for it.

use std::net::IpAddr;

use super::{Side, default, text};
use crate::base::{Cidr, Family, OfFamily};
use crate::engine::owner::Routing;
use crate::engine::view;
use crate::net::routing::table_of;
use crate::netlink::policy::MAIN;
use crate::netlink::route::Route;

/// RTN_LOCAL, RTN_BROADCAST, RTN_MULTICAST
fn goes(route: &Route) -> view::Goes {
    match route.kind {
        libc::RTN_LOCAL => view::Goes::Inside,
        libc::RTN_BROADCAST | libc::RTN_MULTICAST => view::Goes::Everybody,
        _ => view::Goes::Out,
    }
}

pub(super) fn answer(
    to: IpAddr,
    asked_from: Option<IpAddr>,
    routing: &Routing,
    sides: &[Side],
    live: bool,
) -> view::Answer {
    let found = routing.found.clone();
    let from = found.as_ref().and_then(|found| found.from).or(asked_from);
    let mut answer = view::Answer {
        to: to.to_string(),
        from: from.map(|ip| ip.to_string()).unwrap_or_default(),
        ..view::Answer::default()
    };
    let refusal = found.as_ref().and_then(|found| found.refusal.clone());
    let Some(route) = found.and_then(|found| found.route) else {
        let default = default(sides, to.family());
        let refusal = refusal.unwrap_or_else(|| "Network is unreachable".to_owned());
        answer.why = match default.network.as_str() {
            "" => format!("{refusal}: {}", default.why),
            _ => refusal,
        };
        return answer;
    };
    let side = sides
        .iter()
        .find(|side| Some(side.way.ifindex) == route.oif);
    answer.goes = goes(&route);
    answer.why = why(&route, from, asked_from, side, sides);
    answer.route = text(&route, sides);
    if live || route.table == MAIN {
        answer.table = route.table;
    }
    answer.gateway = route.gateway.map(|ip| ip.to_string()).unwrap_or_default();
    if let Some(side) = side {
        answer.network = side.spec.name.to_string();
        answer.interface.clone_from(&side.ifname);
    }
    answer
}

fn why(
    route: &Route,
    from: Option<IpAddr>,
    asked_from: Option<IpAddr>,
    side: Option<&Side>,
    sides: &[Side],
) -> String {
    match goes(route) {
        view::Goes::Inside => return "it is the container's own".to_owned(),
        view::Goes::Everybody => return "it is a broadcast or multicast address".to_owned(),
        view::Goes::Out | view::Goes::Nowhere => {}
    }
    let Some(side) = side else {
        return ADDED.to_owned();
    };
    let name = &side.spec.name;
    let default = default(sides, route_family(route));
    let is_default = default.network == name.as_str();
    let by_default = || format!("the default route goes by {name}: {}", default.why);
    match (route.table == table_of(side.way.ifindex), from, route.dst) {
        // Main has chosen the link, and with it the source address.
        (true, _, None) if asked_from.is_none() && is_default => by_default(),
        (true, Some(from), dst) => {
            let what = match dst {
                None => "its gateway for the default route".to_owned(),
                Some(dst) => known(dst, route, side),
            };
            format!("{from} is an address on {name}, whose table has {what}")
        }
        (_, _, Some(dst)) => known(dst, route, side),
        (_, _, None) if is_default => by_default(),
        (_, _, None) => ADDED.to_owned(),
    }
}

const ADDED: &str = "a route that was added inside the container";

fn route_family(route: &Route) -> Family {
    match route.ipv6 {
        true => Family::Ipv6,
        false => Family::Ipv4,
    }
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
        ADDED.to_owned()
    }
}
