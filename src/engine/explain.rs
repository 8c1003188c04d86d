//! `network explain`: which way a container's packets go, and why.
//!
//! What a running container has is read in its namespace by its supervisor,
//! and compared with what its networks should have made; of a stopped one, the
//! [`Plan`] of the next start is shown. The choice of default routes is told by
//! the function that makes it ([`choice`]).

mod answer;
mod side;

use std::net::IpAddr;

use answer::answer;
use side::Side;

use super::owner::{Question, Routing};
use super::record::{EndpointConfig, Record};
use super::{Engine, missing, view};
use crate::base::{Cidr, Error, Family, NetworkId, OfFamily, Result};
use crate::container::attach::Client;
use crate::net::endpoint::EndpointOptions;
use crate::net::routing::choice::{self, Candidate};
use crate::net::routing::fixed::StaticRoute;
use crate::net::routing::{PRIORITY, Plan, Way, table_of};
use crate::net::spec::{Driver, HostAccess, SourceRouting};
use crate::net::{Carrier, host_access};
use crate::netlink::policy::{MAIN, TableRoute, metric_in};
use crate::netlink::route::Route;
use crate::netlink::rule::Rule;

impl Engine {
    /// `to`: also which way a packet to it goes, from the address `from` where
    /// it is given. Changes nothing.
    pub fn network_explain(
        &self,
        container: &str,
        to: Option<IpAddr>,
        from: Option<IpAddr>,
    ) -> Result<view::Explanation> {
        if let (Some(to), Some(from)) = (to, from)
            && to.family() != from.family()
        {
            return Err(Error::invalid(format!(
                "{to} is {}, and {from} is not: a packet has addresses of one family",
                to.family()
            )));
        }
        self.refresh()?;
        let id = self.find(container)?;
        let record = self.truth(&id)?.ok_or_else(|| missing(&id))?;
        if record
            .config
            .endpoints
            .iter()
            .any(|e| e.request.network == "host")
        {
            return Err(Error::invalid(format!(
                "container {} has the host's network: its routes are the host's",
                record.name
            ))
            .hint("`ip route get` tells which one is taken"));
        }
        let live = record.state.status.is_live();
        let sides = match live {
            true => self.sides_that_are(&record)?,
            false => self.sides_to_be(&record)?,
        };
        let routing = match Client::connect(&self.dirs.live(&id))?.filter(|_| live) {
            Some(mut client) => {
                let body = serde_json::to_value(Question { to, from })
                    .map_err(|e| Error::parse("write request", Routing::VERB, e))?;
                let found = client.command(Routing::VERB, body, &[])?;
                serde_json::from_value(found)
                    .map_err(|e| Error::parse("read routes", Routing::VERB, e))?
            }
            None => planned(&sides, to, from),
        };
        let mut explanation = view::Explanation {
            container: record.name.to_string(),
            running: live,
            defaults: Family::BOTH.map(|family| default(&sides, family)).into(),
            networks: sides
                .iter()
                .map(|side| shown(side, &routing, live))
                .collect(),
            main: in_table(&routing, MAIN, &sides),
            other_rules: others(&routing.rules, &sides),
            answer: None,
        };
        explanation.answer = to.map(|to| answer(to, from, &routing, &sides, live));
        Ok(explanation)
    }

    fn sides_that_are(&self, record: &Record) -> Result<Vec<Side>> {
        let mut sides = Vec::new();
        for attachment in &record.state.attachments {
            let spec = self.find_network(attachment.network.as_str())?;
            let mut endpoints = record.config.endpoints.iter();
            let config = endpoints.find(|e| e.network.as_ref() == Some(&spec.id));
            let config = config
                .ok_or_else(|| Error::not_found(format!("no endpoint on network {}", spec.name)))?;
            sides.push(Side::there(spec, config, attachment));
        }
        Ok(sides)
    }

    fn sides_to_be(&self, record: &Record) -> Result<Vec<Side>> {
        let endpoints = &record.config.endpoints;
        let wished = |config: &EndpointConfig| {
            let options = EndpointOptions::new(&config.request.driver_options)?;
            Ok(options.ifname.map(|name| name.to_string()))
        };
        let mut used: Vec<String> = endpoints
            .iter()
            .filter_map(|config| wished(config).transpose())
            .collect::<Result<_>>()?;
        let mut sides = Vec::new();
        for config in endpoints {
            let wanted = config.network.as_ref().map(NetworkId::as_str);
            let spec = self.find_network(wanted.unwrap_or(&config.request.network))?;
            if !matches!(spec.driver, Driver::Vlan(_)) {
                continue;
            }
            let ifname = wished(config)?.unwrap_or_else(|| {
                let mut free = (0..=used.len()).map(|n| format!("eth{n}"));
                let free = free.find(|name| !used.contains(name)).unwrap_or_default();
                used.push(free.clone());
                free
            });
            // Any number that is a link's own serves.
            let ifindex = u32::try_from(sides.len() + 2).unwrap_or(u32::MAX);
            sides.push(Side::to_be(spec, config, ifname, ifindex));
        }
        Ok(sides)
    }
}

fn candidates(sides: &[Side]) -> Vec<Candidate<'_>> {
    sides.iter().map(Side::candidate).collect()
}

/// The network of a family's default route, and why it is that one.
fn default(sides: &[Side], family: Family) -> view::DefaultRoute {
    let all = candidates(sides);
    let (why, others) = choice::reasons(&all, family);
    let best = choice::choose(&all, family).and_then(|at| sides.get(at));
    let gateway = best.map(|side| match side.gateways.of(family) {
        Some(gateway) => gateway.to_string(),
        None if side.awaits_lease => "what the DHCP server says".to_owned(),
        None => String::new(),
    });
    view::DefaultRoute {
        family: family.to_string(),
        network: best
            .map(|side| side.spec.name.to_string())
            .unwrap_or_default(),
        interface: best.map(|side| side.ifname.clone()).unwrap_or_default(),
        gateway: gateway.unwrap_or_default(),
        why: why.unwrap_or_else(|| match sides {
            [] => "it is on no network".to_owned(),
            _ => "no network leads out".to_owned(),
        }),
        others,
    }
}

/// What the next start would make.
fn planned(sides: &[Side], to: Option<IpAddr>, from: Option<IpAddr>) -> Routing {
    let mut ranked: Vec<&Side> = sides.iter().collect();
    ranked.sort_by(|a, b| a.candidate().rank().cmp(&b.candidate().rank()));
    let ways: Vec<Way> = ranked.into_iter().map(|side| side.way.clone()).collect();
    let plan = Plan::new(&ways);
    let all = candidates(sides);
    let mut main = Vec::new();
    let route = |side: &Side, dst, via| TableRoute {
        table: MAIN,
        dst,
        via,
        oif: side.way.ifindex,
        metric: None,
    };
    for family in Family::BOTH {
        let best = choice::choose(&all, family).and_then(|at| sides.get(at));
        if let Some(side) = best
            && side.way.out.of(family).is_some()
        {
            let gateway = side.gateways.of(family);
            main.push(route(side, Cidr::default_of(family), gateway));
        }
    }
    for side in sides {
        let way = &side.way;
        let on_link = way
            .addrs
            .values()
            .map(Cidr::network)
            .chain(way.near.iter().copied());
        main.extend(on_link.map(|net| route(side, net, None)));
        main.extend(
            way.far
                .iter()
                .map(|(dst, via)| route(side, *dst, Some(*via))),
        );
    }
    let found = to.map(|to| plan.found(&main, to, from));
    Routing {
        rules: plan.rules.iter().map(|rule| rule.as_read()).collect(),
        routes: main
            .iter()
            .chain(&plan.routes)
            .map(|r| r.as_read())
            .collect(),
        found,
    }
}

/// As ip(8) writes it.
fn text(route: &Route, sides: &[Side]) -> String {
    let mut words = vec![match route.dst {
        Some(dst) => dst.to_string(),
        None => "default".to_owned(),
    }];
    words.extend(route.gateway.map(|via| format!("via {via}")));
    if let Some(oif) = route.oif {
        let side = sides.iter().find(|side| side.way.ifindex == oif);
        words.push(match side {
            Some(side) => format!("dev {}", side.ifname),
            None => format!("dev if{oif}"),
        });
    }
    words.extend(
        route
            .metric
            .filter(|m| *m > 0)
            .map(|m| format!("metric {m}")),
    );
    words.join(" ")
}

fn in_table(routing: &Routing, table: u32, sides: &[Side]) -> Vec<String> {
    let all = routing.routes.iter().filter(|r| r.table == table);
    all.map(|route| text(route, sides)).collect()
}

fn of_side(rule: &Rule, side: &Side) -> bool {
    rule.table == table_of(side.way.ifindex) && rule.priority == PRIORITY
}

fn rule_text(rule: &Rule) -> String {
    let mut words = vec![format!("{}:", rule.priority)];
    words.push(match rule.src {
        Some(src) if src.prefix() == src.family().width() => format!("from {}", src.addr()),
        Some(src) => format!("from {src}"),
        None => "from all".to_owned(),
    });
    words.extend(rule.dst.map(|dst| format!("to {dst}")));
    words.extend(rule.iif.as_ref().map(|name| format!("iif {name}")));
    words.extend(rule.oif.as_ref().map(|name| format!("oif {name}")));
    words.extend(rule.fwmark.map(|mark| format!("fwmark {mark:#x}")));
    words.push(format!("lookup {}", rule.table));
    words.join(" ")
}

/// local, main, default
const KERNELS_TABLES: std::ops::RangeInclusive<u32> = 253..=255;

fn others(rules: &[Rule], sides: &[Side]) -> Vec<String> {
    let is_known = |rule: &&Rule| {
        let plain = rule.src.is_none() && rule.dst.is_none() && rule.iif.is_none();
        let kernels = plain && rule.fwmark.is_none() && KERNELS_TABLES.contains(&rule.table);
        !(kernels || sides.iter().any(|side| of_side(rule, side)))
    };
    rules.iter().filter(is_known).map(rule_text).collect()
}

/// What has become of a static route.
fn state_of(fixed: &StaticRoute, side: &Side, routing: &Routing) -> String {
    if let Some(why) = fixed.why_not(&side.way.addrs) {
        return format!("not here: {why}");
    }
    let metric = |metric| metric_in(fixed.gateway.family(), metric);
    let in_table = |table: u32| {
        let all = routing.routes.iter();
        all.filter(move |r| (r.table, r.dst) == (table, Some(fixed.dst)))
    };
    let is_same = |r: &&Route| metric(r.metric) == metric(fixed.metric);
    let is_in = |table: u32| {
        let mut same = in_table(table).filter(is_same);
        same.any(|r| r.gateway == Some(fixed.gateway))
    };
    let own = is_in(table_of(side.way.ifindex));
    match (is_in(MAIN), own) {
        (true, true) => return "in main and in its own table".to_owned(),
        (true, false) => return "in main".to_owned(),
        (false, _) => {}
    }
    let here = if own {
        "in its own table; in main"
    } else {
        "not in main:"
    };
    if in_table(MAIN).any(|r| r.gateway.is_none()) {
        format!("{here} that destination is on a link of the container")
    } else if in_table(MAIN).any(|r| is_same(&r)) {
        format!("{here} another network has that destination")
    } else if own {
        "in its own table; missing in main: something has deleted it".to_owned()
    } else {
        "missing: something has deleted it".to_owned()
    }
}

/// One network's part. The numbers of tables are known when the links are
/// there.
fn shown(side: &Side, routing: &Routing, live: bool) -> view::NetworkRouting {
    let own = table_of(side.way.ifindex);
    let one = std::slice::from_ref(side);
    let rules = routing.rules.iter().filter(|rule| of_side(rule, side));
    let rules = rules.map(|rule| match live {
        true => rule_text(rule),
        false => rule_text(rule).replace(&own.to_string(), "a table of its own"),
    });
    let fixed = side.spec.routes.iter();
    let fixed = fixed.map(|fixed| format!("{fixed}: {}", state_of(fixed, side, routing)));
    let mut notes = Vec::new();
    match side.carrier {
        Carrier::Up => {}
        Carrier::Down => notes.push("its parent has no carrier: nothing goes this way".to_owned()),
        Carrier::Gone => notes.push("its parent is gone: there is no such link now".to_owned()),
    }
    if side.spec.is_internal() {
        notes.push("internal: no default route in main or in its table".to_owned());
    }
    if side.spec.source_routing == SourceRouting::Off {
        notes.push("source_routing=off: no rule and no table".to_owned());
    }
    if side.awaits_lease {
        notes.push("address, gateway and routes are the DHCP server's".to_owned());
    }
    if let (HostAccess::On { .. }, Some(addr)) = (side.spec.host_access, side.way.addrs.ipv4()) {
        notes.push(format!(
            "host access: the host has a route to {} by {}",
            addr.addr(),
            host_access::shim_name(&side.spec.id)
        ));
    }
    view::NetworkRouting {
        network: side.spec.name.to_string(),
        interface: side.ifname.clone(),
        addresses: side
            .way
            .addrs
            .values()
            .map(|addr| addr.to_string())
            .collect(),
        rules: rules.collect(),
        table: in_table(routing, own, one),
        static_routes: fixed.collect(),
        notes,
    }
}
