//! IPv6 by the LAN (`--ip6 slaac`, `--ip6 dhcp`): what it is refused for, and what is shown
//! of it.

use std::collections::BTreeMap;

use super::EndpointRequest;
use super::dhcp::machine;
use super::record::{EndpointConfig, Lan6, Record};
use super::view;
use crate::base::{Error, Result};
use crate::net::ip6::{Ip6, Token};
use crate::net::spec::NetworkSpec;

/// The low half of a container's addresses on a network.
pub(super) fn token(network: &NetworkSpec, container: &str) -> Token {
    Token::new(&machine(), network.name.as_str(), container)
}

/// Refuses `--ip6` where it could not be done.
pub(super) fn check(request: &EndpointRequest, spec: &NetworkSpec) -> Result<()> {
    let refused = |why: String| Error::invalid(format!("invalid endpoint settings:\n{why}"));
    let (name, word) = (&spec.name, request.ip6.as_str());
    let v6_local = request.link_local.iter().find(|ip| ip.is_ipv6());
    match request.ip6 {
        Ip6::Subnet => Ok(()),
        Ip6::Off if spec.ipv6 && !spec.ipv4 => Err(refused(format!(
            "--ip6 off leaves nothing of network {name}, which has IPv6 alone"
        ))
        .hint("leave the container off the network")),
        Ip6::Off => match v6_local {
            Some(ip) => Err(refused(format!(
                "link-local address {ip} needs IPv6, and --ip6 is off"
            ))),
            None => Ok(()),
        },
        Ip6::Slaac | Ip6::Dhcp if spec.ipv6 => Err(refused(format!(
            "--ip6 {word}: network {name} gives IPv6 addresses of a subnet of its own"
        ))
        .hint(
            "leave --ip6 out; a network made without --ipv6 leaves its containers' IPv6 to \
             the LAN",
        )),
        Ip6::Slaac | Ip6::Dhcp => match spec.vlan() {
            Some(vlan) if vlan.mode.is_l3() => Err(refused(format!(
                "--ip6 {word}: network {name} (ipvlan {}) passes no multicast, by which routers \
                 and DHCPv6 servers are heard",
                vlan.mode
            ))
            .hint("-o ipvlan_mode=l2 does, as -d macvlan")),
            Some(vlan) if !vlan.is_isolated() => Ok(()),
            Some(_) | None => Err(refused(format!(
                "--ip6 {word}: network {name} has no parent, and neither routers nor DHCPv6 servers are there"
            ))),
        },
    }
}

/// By network: where `--ip6` says who gives the addresses.
pub(super) fn describe(record: &Record) -> BTreeMap<String, view::Ip6> {
    let live = record.state.status.is_live();
    let shown = |e: &EndpointConfig| {
        let ip6 = e.request.ip6;
        let known = e.lan6.as_ref();
        (!ip6.is_subnet()).then(|| (e.name.clone(), shown(ip6, known, live)))
    };
    record.config.endpoints.iter().filter_map(shown).collect()
}

fn shown(ip6: Ip6, lan: Option<&Lan6>, live: bool) -> view::Ip6 {
    let mut shown = view::Ip6 {
        by: ip6.as_str().to_owned(),
        ..Default::default()
    };
    let Some(lan) = lan else {
        return shown;
    };
    shown.token = lan.token.map(|token| token.to_string()).unwrap_or_default();
    if let Some((at, error)) = &lan.error {
        shown.last_error.clone_from(error);
        shown.last_error_at.clone_from(at);
    }
    if live {
        let addrs = lan.addrs.iter().map(|a| view::Addr6 {
            address: a.addr.to_string(),
            state: a.state.as_str().to_owned(),
        });
        shown.addresses = addrs.collect();
        shown.router = lan.router.map(|ip| ip.to_string()).unwrap_or_default();
        shown.dns = lan.dns.iter().map(ToString::to_string).collect();
        shown.search.clone_from(&lan.search);
    }
    shown
}
