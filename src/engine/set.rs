//! `network set`: what can be changed of one network of a container without
//! leaving it. Its supervisor does it while it runs, and then it is so at once;
//! otherwise the record says it, for the next start.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::connect::{is_network, warnings};
use super::record::{EndpointConfig, Record};
use super::{Client, EndpointChange, Engine};
use crate::base::{Error, NetworkId, OfFamily, PerFamily, Result};
use crate::net::endpoint::EndpointOptions;
use crate::net::ipam::{self, Pool};
use crate::net::spec::NetworkSpec;

/// What of one endpoint is to be another, together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Change {
    pub network: NetworkId,
    pub to: EndpointChange,
}

impl Change {
    pub(super) const VERB: &'static str = "set";

    /// What the endpoint is to be; it is not touched where that cannot be.
    pub(super) fn apply(&self, endpoint: &mut EndpointConfig) -> Result<EndpointOptions> {
        let mut options = endpoint.request.driver_options.clone();
        for (key, value) in &self.to.options {
            match value {
                Some(value) => options.insert(key.clone(), value.clone()),
                None => options.remove(key),
            };
        }
        let parsed = EndpointOptions::new(&options)?;
        endpoint.request.driver_options = options;
        for ip in self.to.ips.values() {
            endpoint.request.ips.put(ip);
        }
        endpoint.request.mac = self.to.mac.or(endpoint.request.mac);
        Ok(parsed)
    }
}

impl Engine {
    /// What went less well than hoped, in words.
    pub fn network_set(
        &self,
        container: &str,
        network: &str,
        to: EndpointChange,
    ) -> Result<Vec<String>> {
        self.prepare()?;
        let id = self.find(container)?;
        let network = self.find_network(network)?;
        let change = Change {
            network: network.id.clone(),
            to,
        };
        let changed = |record: &mut Record| {
            let mut endpoints = record.config.endpoints.iter_mut();
            let is_meant =
                |e: &&mut EndpointConfig| is_network(e, &network.id, network.name.as_str());
            let endpoint = endpoints.find(is_meant).ok_or_else(|| {
                Error::conflict(format!(
                    "container {id} is not connected to network {}",
                    network.name
                ))
            })?;
            if network.vlan().is_none() {
                return Err(Error::invalid(format!(
                    "network {} has no interface of the container's own: nothing can be set",
                    network.name
                )));
            }
            if network.is_dhcp() && change.to.is_about_addresses() {
                return Err(Error::invalid(format!(
                    "the addresses of network {} are a DHCP server's: only rates can be set",
                    network.name
                )));
            }
            let is_in = |ip| network.pools.iter().any(|pool| pool.subnet.contains(ip));
            if let Some(ip) = change.to.ips.values().find(|ip| !is_in(*ip)) {
                return Err(Error::invalid(format!(
                    "invalid endpoint settings:\nno configured subnet contains IP address {ip}"
                )));
            }
            let is_reserved = |ip| network.pools.iter().any(|pool| ipam::is_reserved(pool, ip));
            if let Some(ip) = change.to.ips.values().find(|ip| is_reserved(*ip)) {
                return Err(self.in_use(&network, &self.neighbours(&network)?, ip)?);
            }
            if network.vlan().is_some_and(|v| v.mode.has_parents_mac()) && change.to.mac.is_some() {
                return Err(Error::invalid(format!(
                    "links on network {} have their parent's MAC",
                    network.name
                )));
            }
            check_gateways(&change.apply(endpoint)?, &network, &endpoint.request.ips)
        };
        let ask = |client: &mut Client| {
            changed(&mut self.record(&id)?)?;
            let body = serde_json::to_value(&change)
                .map_err(|e| Error::parse("write request", Change::VERB, e))?;
            client.command(Change::VERB, body, &[]).and_then(warnings)
        };
        self.ask_or(&id, ask, |mut record, lock| {
            let set = changed(&mut record).and_then(|()| record.save(&self.dirs));
            lock.unlink()?;
            set.map(|()| Vec::new())
        })
    }
}

/// What no start could make: of a container that does not run, nobody else
/// looks at it before.
pub(super) fn check_gateways(
    options: &EndpointOptions,
    network: &NetworkSpec,
    ips: &PerFamily<IpAddr>,
) -> Result<()> {
    for gateway in options.gateways.values() {
        let is_near = |pool: &Pool| {
            let own = ips.of(gateway.family());
            pool.subnet.contains(gateway)
                && own.is_none_or(|own| own != gateway && pool.subnet.contains(own))
        };
        if !network.pools.iter().any(is_near) {
            return Err(Error::invalid(format!(
                "gateway {gateway} is not another address of the container's subnet on network {}",
                network.name
            ))
            .hint("gw= is a machine on the network's own link"));
        }
    }
    Ok(())
}
