//! iproute2's JSON: the same keys in the same order.

use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;

use super::super::interfaces::{Addr, Interface, Lower, Path};
use super::{Object, Query};
use crate::base::MacAddr;

#[derive(Serialize)]
struct LinkRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ifindex: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link_index: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Option<&'a str>>,
    ifname: &'a str,
    #[serde(flatten)]
    details: Details<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addr_info: Option<Vec<AddrRow<'a>>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Details<'a> {
    Full {
        flags: &'a [String],
        mtu: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        qdisc: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        master: Option<&'a str>,
        operstate: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        linkmode: Option<&'a str>,
        group: &'a str,
        #[serde(skip_serializing_if = "is_zero")]
        txqlen: u32,
        #[serde(flatten)]
        layer: Option<Layer<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        link_netnsid: Option<i32>,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        altnames: &'a [String],
    },
    Brief {
        operstate: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<MacAddr>,
        #[serde(skip_serializing_if = "Option::is_none")]
        flags: Option<&'a [String]>,
    },
}

#[derive(Serialize)]
struct Layer<'a> {
    link_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<MacAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    broadcast: Option<MacAddr>,
}

#[derive(Serialize)]
struct AddrRow<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    family: Option<&'a str>,
    local: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    prefixlen: u8,
    #[serde(flatten)]
    details: Option<AddrDetails<'a>>,
}

#[derive(Serialize)]
struct AddrDetails<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    broadcast: Option<Ipv4Addr>,
    scope: &'a str,
    #[serde(flatten)]
    flags: Flags<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    valid_life_time: u32,
    preferred_life_time: u32,
}

/// `"secondary":true,"dynamic":true`
struct Flags<'a>(&'a [&'static str]);

impl Serialize for Flags<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|flag| (flag, true)))
    }
}

#[derive(Serialize)]
struct RouteRow<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'a str>,
    dst: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefsrc: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metric: Option<u32>,
    flags: &'a [&'static str],
}

pub(super) fn full(links: &[Interface], query: &Query) -> String {
    let addresses = query.object == Object::Address;
    let rows = links.iter().map(|link| LinkRow {
        ifindex: Some(link.index),
        link_index: link_index(link),
        link: lower(link),
        ifname: &link.name,
        details: Details::Full {
            flags: &link.flags,
            mtu: link.mtu,
            qdisc: link.qdisc.as_deref(),
            master: link.master.as_deref(),
            operstate: link.state,
            linkmode: (!addresses).then_some("DEFAULT"),
            group: &link.group,
            txqlen: link.txqlen,
            layer: (!(query.family.is_some() && addresses)).then(|| Layer {
                link_type: &link.hardware,
                address: link.mac,
                broadcast: link.broadcast,
            }),
            link_netnsid: link.netnsid,
            altnames: &link.altnames,
        },
        addr_info: addresses.then(|| link.addrs.iter().map(|a| address(a, true)).collect()),
    });
    line(rows.collect::<Vec<_>>())
}

pub(super) fn brief(links: &[Interface], query: &Query) -> String {
    let addresses = query.object == Object::Address;
    let rows = links.iter().map(|link| LinkRow {
        ifindex: None,
        link_index: link_index(link),
        link: lower(link),
        ifname: &link.name,
        details: Details::Brief {
            operstate: link.state,
            address: link.mac.filter(|_| !addresses),
            flags: (!addresses).then_some(&*link.flags),
        },
        addr_info: addresses.then(|| link.addrs.iter().map(|a| address(a, false)).collect()),
    });
    line(rows.collect::<Vec<_>>())
}

pub(super) fn routes(routes: &[Path]) -> String {
    let rows = routes.iter().map(|route| RouteRow {
        kind: route.kind.as_deref(),
        dst: &route.dst,
        gateway: route.gateway,
        dev: route.dev.as_deref(),
        protocol: route.protocol.as_deref(),
        scope: route.scope.as_deref(),
        prefsrc: route.prefsrc,
        metric: route.metric,
        flags: &route.flags,
    });
    line(rows.collect::<Vec<_>>())
}

fn line(rows: Vec<impl Serialize>) -> String {
    // Only maps with keys that are not text fail to serialise; there are none.
    serde_json::to_string(&rows).unwrap_or_default() + "\n"
}

fn lower(link: &Interface) -> Option<Option<&str>> {
    match &link.lower {
        Lower::Here(name) => Some(Some(name)),
        Lower::Unbound => Some(None),
        Lower::No | Lower::Elsewhere(_) => None,
    }
}

fn link_index(link: &Interface) -> Option<u32> {
    match link.lower {
        Lower::Elsewhere(index) => Some(index),
        _ => None,
    }
}

fn address(addr: &Addr, full: bool) -> AddrRow<'_> {
    let family = if addr.cidr.is_ipv4() { "inet" } else { "inet6" };
    AddrRow {
        family: full.then_some(family),
        local: addr.cidr.addr(),
        address: addr.peer,
        prefixlen: addr.cidr.prefix(),
        details: full.then(|| AddrDetails {
            broadcast: addr.broadcast,
            scope: &addr.scope,
            flags: Flags(&addr.flags),
            label: addr.label.as_deref(),
            valid_life_time: addr.valid,
            preferred_life_time: addr.preferred,
        }),
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
