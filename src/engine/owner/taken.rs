//! What is taken already: addresses by the host, ports by containers of ours.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::base::{Cause, Error, PortMap, Result};
use crate::engine::Engine;
use crate::engine::lease::Wish;
use crate::net::acd::Acd;
use crate::net::driver::HostView;
use crate::net::publish::{self, PortRequest, Reserved};
use crate::net::spec::NetworkSpec;
use crate::netlink::Rtnl;
use crate::sys::netns::Host;

/// What the host has on the parent of a network.
pub(in crate::engine) fn addresses(
    network: &NetworkSpec,
    host: &mut Rtnl<Host>,
) -> Result<HashSet<IpAddr>> {
    let Some(parent) = HostView::of(network, host)?.parent else {
        return Ok(HashSet::new());
    };
    let addresses = host.addrs(Some(parent.index))?;
    Ok(addresses.iter().map(|a| a.cidr.addr()).collect())
}

/// An address that this host has on the parent, and a container is to have: its
/// announcements would take it from the host, and the host off the LAN. Who asks
/// for it is refused, unless by `--acd=off`; by itself it is given as in Docker,
/// when there is no other. Both with a warning.
pub(in crate::engine) fn hosts_own(
    network: &NetworkSpec,
    ip: IpAddr,
    wish: Wish,
    acd: Acd,
) -> Result<String> {
    let is_asked_for = matches!(wish, Wish::Exactly(_));
    if is_asked_for && acd != Acd::Off {
        return Err(
            Error::conflict(format!("Address already in use: {ip}")).hint(
                "it is this host's own: give another --ip (with --acd=off the container gets it, \
                 and the LAN may not find the host any more)",
            ),
        );
    }
    let mut warning = format!("{ip} is this host's own address");
    if !is_asked_for {
        warning += &format!(", and network {} had no other left", network.name);
    }
    warning += ": the LAN may not find the host any more";
    if !is_asked_for {
        warning += "; --aux-address keeps it out";
    }
    Ok(warning)
}

/// Whether somebody else than this container has one of these ports, or none
/// can: with those bound for a moment that it does not have.
pub(in crate::engine) fn check_ports(
    engine: &Engine,
    wanted: &[PortRequest],
    own: &[PortMap],
) -> Result<()> {
    let others = wanted.iter().filter(|w| !own.iter().any(|p| clashes(w, p)));
    let others: Vec<PortRequest> = others.cloned().collect();
    bind(engine, &others).map(drop)
}

/// Binds published ports.
pub(super) fn bind(engine: &Engine, wanted: &[PortRequest]) -> Result<Reserved> {
    publish::reserve(wanted).map_err(|error| match &error.cause {
        Cause::Conflict(_) => match port_holder(engine, wanted) {
            Some(who) => error.hint(who),
            None => error,
        },
        _ => error,
    })
}

fn clashes(wanted: &PortRequest, port: &PortMap) -> bool {
    let is_any = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.is_unspecified());
    let same_ip = is_any(wanted.host_ip)
        || is_any(Some(port.host.ip))
        || wanted.host_ip == Some(port.host.ip);
    let same_port = wanted
        .host_port
        .is_some_and(|(first, last)| (first..=last).contains(&port.host.port));
    wanted.proto == port.proto && same_ip && same_port
}

/// The container of ours that has one of these ports.
fn port_holder(engine: &Engine, wanted: &[PortRequest]) -> Option<String> {
    let clash = |port: &PortMap| wanted.iter().any(|w| clashes(w, port));
    engine.live_records().ok()?.iter().find_map(|record| {
        let port = record.state.ports.iter().find(|p| clash(p))?;
        Some(format!("container {} has it: {port}", record.name))
    })
}
