//! What a network gives a container before anything is made: one address of
//! each family that the network has, or a refusal and no address at all.

use std::net::IpAddr;

use super::claims::{Standing, Taken};
use super::links::Lower;
use super::network::{Leg, Network};
use super::taken;
use crate::base::{
    Cause, Cidr, ContainerName, Error, Family, NetworkId, OfFamily, PerFamily, Result,
};
use crate::engine::ip6;
use crate::engine::lease::Wish;
use crate::engine::record::EndpointConfig;
use crate::engine::{EndpointRequest, Engine};
use crate::net::acd::Acd;
use crate::net::endpoint::EndpointOptions;
use crate::net::ip6::{Ip6, Named};
use crate::net::spec::NetworkSpec;

impl Leg {
    /// Without an interface yet.
    pub(super) fn bare(
        spec: NetworkSpec,
        config: EndpointConfig,
        options: EndpointOptions,
        addrs: PerFamily<Cidr>,
    ) -> Self {
        Self {
            spec,
            config,
            options,
            addrs,
            attachment: None,
            client: None,
            client6: None,
            claim: None,
            standing: Standing::New,
            lower: Lower::default(),
            named6: Named::default(),
            mdns: None,
        }
    }
}

impl Network {
    /// `taken`: addresses that turned out to be somebody's.
    pub(super) fn leg(
        &mut self,
        engine: &Engine,
        mut config: EndpointConfig,
        taken: &[Taken],
    ) -> Result<Leg> {
        let mut spec = match &config.network {
            Some(id) => engine
                .find_network(id.as_str())
                .map_err(|e| match e.cause {
                    Cause::NotFound(_) => removed(engine, id, &config.name, &self.name),
                    _ => e,
                })?,
            None => engine.find_network(&config.request.network)?,
        };
        engine.resolve(&mut spec, &mut self.host)?;
        let options = EndpointOptions::new(&config.request.driver_options)?;
        check_families(&config.request, &spec)?;
        ip6::check(&config.request, &spec)?;
        let addrs = self.lease_all(engine, &spec, &mut config, taken)?;
        config.network = Some(spec.id.clone());
        config.name = spec.name.to_string();
        let leg = Leg::bare(spec, config, options, addrs);
        if let Err(error) = leg.check_gateways() {
            let undone = leg
                .addrs
                .values()
                .map(|addr| engine.release(&leg.spec, addr));
            return Err(error.with_undo(undone.filter_map(Result::err).collect()));
        }
        Ok(leg)
    }

    /// An address of each family that the network has, or none at all.
    fn lease_all(
        &mut self,
        engine: &Engine,
        spec: &NetworkSpec,
        config: &mut EndpointConfig,
        taken: &[Taken],
    ) -> Result<PerFamily<Cidr>> {
        let mut addrs = PerFamily::NONE;
        for family in Family::BOTH {
            let is_off = family == Family::Ipv6 && config.request.ip6 == Ip6::Off;
            if !spec.has(family) || is_off || spec.vlan().is_none() || spec.is_dhcp() {
                continue;
            }
            let leased = self.lease_one(engine, spec, family, config, taken);
            let outcome = leased.and_then(|addr| {
                addrs.put(addr);
                match self.overlapping(addr) {
                    Some(clash) => Err(Error::conflict(format!(
                        "cannot program address {addr} in sandbox interface because it conflicts with existing route {clash}"
                    ))),
                    None => Ok(()),
                }
            });
            if let Err(error) = outcome {
                let undone = addrs.values().map(|addr| engine.release(spec, addr));
                return Err(error.with_undo(undone.filter_map(Result::err).collect()));
            }
        }
        Ok(addrs)
    }

    fn lease_one(
        &mut self,
        engine: &Engine,
        spec: &NetworkSpec,
        family: Family,
        config: &mut EndpointConfig,
        taken: &[Taken],
    ) -> Result<Cidr> {
        let wish = match (config.request.ips.of(family), config.last_ips.of(family)) {
            (Some(ip), _) => Wish::Exactly(ip),
            (None, Some(last)) => Wish::Rather(last),
            (None, None) => Wish::Any,
        };
        let own = taken::addresses(spec, &mut self.host)?;
        let taken = taken
            .iter()
            .filter(|t| t.network == spec.id && family == Family::Ipv4);
        let mut avoid = own.clone();
        avoid.extend(taken.clone().map(|t| IpAddr::V4(t.ip)));
        if self.acd != Acd::Off {
            avoid.extend(engine.lately_taken(spec));
        }
        let names = self.names_on(config);
        let (ip, addr) = engine.lease(spec, family, wish, &self.id, &names, &avoid)?;
        if let Some(last) = taken.clone().find(|t| ip == t.ip) {
            let undo = engine.release(spec, addr).err();
            let error = last.none_left(spec.name.as_str());
            return Err(error.with_undo(undo.into_iter().collect()));
        }
        if own.contains(&ip) {
            match taken::hosts_own(spec, ip, wish, self.acd) {
                Ok(warning) => self.warnings.push(warning),
                Err(error) => {
                    let undo = engine.release(spec, addr).err();
                    return Err(error.with_undo(undo.into_iter().collect()));
                }
            }
        }
        self.warnings.extend(taken.map(|t| t.told(ip)));
        config.last_ips.put(ip);
        Ok(addr)
    }

    pub(super) fn overlapping(&self, addr: Cidr) -> Option<Cidr> {
        self.legs
            .iter()
            .filter_map(|leg| leg.addrs.of(addr.family()))
            .map(Cidr::network)
            .find(|net| net.overlaps(addr.network()))
    }
}

/// A network made anew under the old name is another one.
fn removed(engine: &Engine, id: &NetworkId, name: &str, container: &ContainerName) -> Error {
    let leave = format!("`dockless network disconnect {name} {container}`");
    let hint = match engine.find_network(name) {
        Ok(_) => format!(
            "{name} was removed, and another network has that name now: {leave} and \
             `dockless network connect {name} {container}` put the container on it"
        ),
        Err(_) => format!("{name} was removed: {leave} lets the container start without it"),
    };
    Error::not_found(format!("network {id} not found")).hint(hint)
}

/// What was asked for and the network cannot give.
pub(in crate::engine) fn check_families(
    request: &EndpointRequest,
    spec: &NetworkSpec,
) -> Result<()> {
    for family in Family::BOTH {
        if let Some(ip) = request.ips.of(family)
            && !spec.has(family)
        {
            return Err(Error::invalid(format!(
                "invalid endpoint settings:\nno configured subnet contains IP address {ip}"
            ))
            .hint(format!("network {} has no {family}", spec.name)));
        }
    }
    if let (Some(ip), true) = (request.link_local.first(), spec.is_dhcp()) {
        return Err(Error::invalid(format!(
            "invalid endpoint settings:\nlink-local address {ip} is for a network with subnets, \
             and the addresses of {} are a DHCP server's",
            spec.name
        ))
        .hint("leave --link-local-ip out"));
    }
    let is_v6 = |ip: &&IpAddr| ip.is_ipv6();
    match request.link_local.iter().find(is_v6) {
        Some(ip) if !spec.ipv6 => Err(Error::invalid(format!(
            "invalid endpoint settings:\nlink-local address {ip} needs IPv6, and network {} has none",
            spec.name
        ))),
        _ => Ok(()),
    }
}

/// `--link-local-ip`, with the prefix lengths of RFC 3927 and RFC 4291.
pub(super) fn link_local(request: &EndpointRequest) -> Result<Vec<Cidr>> {
    let cidr = |ip: &IpAddr| Cidr::new(*ip, if ip.is_ipv4() { 16 } else { 64 });
    request.link_local.iter().map(cidr).collect()
}
