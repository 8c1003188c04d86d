//! `network connect|disconnect`: a request to the supervisor of a container
//! that runs; for any other, a change of its record.

use super::record::{EndpointConfig, Record};
use super::{Client, EndpointRequest, Engine};
use crate::base::{Cause, Error, NetworkId, PerFamily, Result};
use crate::net::endpoint::EndpointOptions;
use crate::net::spec::Driver;

impl Engine {
    /// What went less well than hoped, in words, as with `network_disconnect`.
    pub fn network_connect(
        &self,
        endpoint: EndpointRequest,
        container: &str,
    ) -> Result<Vec<String>> {
        // Its address may be a dead container's.
        self.prepare()?;
        let network = self.find_network(&endpoint.network)?;
        match network.driver {
            Driver::Host => {
                return Err(Error::invalid(
                    "cannot connect container to host network - container must be created in host network mode",
                ));
            }
            Driver::Null => {
                return Err(Error::invalid(
                    "container cannot be connected to multiple networks with one of the networks in private (none) mode",
                ));
            }
            Driver::Vlan(_) => {}
        }
        EndpointOptions::new(&endpoint.driver_options)?;
        super::ip6::check(&endpoint, &network)?;
        let id = self.find(container)?;
        let joins = |record: &Record| check_join(record, &network.id, network.name.as_str());
        // As in Docker, a network takes the place of a removed one of its name.
        let is_former = |e: &EndpointConfig| {
            e.name == network.name.as_str()
                && e.network.as_ref().is_some_and(|id| *id != network.id)
        };
        let mut asked = false;
        let ask = |client: &mut Client| {
            let record = self.record(&id)?;
            // The supervisor did it, and could not say so.
            if std::mem::replace(&mut asked, true)
                && is_on(&record, &network.id, network.name.as_str())
            {
                return Ok(Vec::new());
            }
            joins(&record)?;
            let body = serde_json::to_value(&endpoint)
                .map_err(|e| Error::parse("write request", "connect", e))?;
            client.command("connect", body, &[]).and_then(warnings)
        };
        self.ask_or(&id, ask, |mut record, lock| {
            let joined = joins(&record).and_then(|()| {
                record.config.endpoints.retain(|e| !is_former(e));
                record.config.endpoints.push(EndpointConfig {
                    request: endpoint.clone(),
                    network: Some(network.id.clone()),
                    name: network.name.to_string(),
                    last_ips: PerFamily::NONE,
                    dhcp: None,
                    lan6: None,
                    dhcp6: None,
                });
                record.save(&self.dirs)
            });
            lock.unlink()?;
            joined.map(|()| Vec::new())
        })
    }

    pub fn network_disconnect(
        &self,
        network: &str,
        container: &str,
        force: bool,
    ) -> Result<Vec<String>> {
        let id = match self.find(container) {
            Ok(id) => id,
            // `-f` is for endpoints whose container is gone: nothing to do.
            Err(_) if force => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let found = self.find_network(network);
        let mut asked = false;
        let ask = |client: &mut Client| {
            let network = found.clone()?;
            let is_on = |record: &Record| is_on(record, &network.id, network.name.as_str());
            let again = std::mem::replace(&mut asked, true);
            if !is_on(&self.record(&id)?) {
                // The supervisor did it, and could not say so.
                if again {
                    return Ok(Vec::new());
                }
                return Err(Error::conflict(format!(
                    "container {id} is not connected to network {}",
                    network.name
                )));
            }
            let body = serde_json::Value::String(network.id.to_string());
            client.command("disconnect", body, &[]).and_then(warnings)
        };
        self.ask_or(&id, ask, |mut record, lock| {
            // One that is not there any more goes by the name it had, or its id.
            let name = found.as_ref().map_or(network, |found| found.name.as_str());
            let leaves = |e: &EndpointConfig| {
                let known = e.network.as_ref();
                e.name == name
                    || known.is_some_and(|id| id.as_str() == network)
                    || found.as_ref().is_ok_and(|n| is_network(e, &n.id, name))
            };
            let left = match &found {
                Err(e) if !matches!(e.cause, Cause::NotFound(_)) => Err(e.clone()),
                _ if record.config.endpoints.iter().any(leaves) => {
                    if let Ok(found) = &found {
                        self.leave_by_dhcp(&record, &found.id);
                    }
                    let (left, stay) = std::mem::take(&mut record.config.endpoints)
                        .into_iter()
                        .partition::<Vec<_>, _>(leaves);
                    record.config.endpoints = stay;
                    record.save(&self.dirs).and_then(|()| {
                        let _lock = self.address_lock()?;
                        let mut networks = left.iter().filter_map(|e| e.network.as_ref());
                        networks.try_for_each(|n| self.unreserve_all(&id, Some(n)))
                    })
                }
                _ => Err(Error::conflict(format!(
                    "container {id} is not connected to the network {name}"
                ))),
            };
            lock.unlink()?;
            left.map(|()| Vec::new())
        })
    }
}

/// A supervisor of before an upgrade says nothing.
pub(super) fn warnings(answer: serde_json::Value) -> Result<Vec<String>> {
    serde_json::from_value(answer)
        .map(Option::unwrap_or_default)
        .map_err(|e| Error::parse("read the supervisor's answer", "", e))
}

/// Is this endpoint on that network? By id once it is known.
pub(super) fn is_network(endpoint: &EndpointConfig, id: &NetworkId, name: &str) -> bool {
    match &endpoint.network {
        Some(known) => known == id,
        None => {
            endpoint.request.network == name || id.as_str().starts_with(&endpoint.request.network)
        }
    }
}

fn is_on(record: &Record, id: &NetworkId, name: &str) -> bool {
    record
        .config
        .endpoints
        .iter()
        .any(|e| is_network(e, id, name))
}

/// Whether a container may join one more network.
fn check_join(record: &Record, id: &NetworkId, name: &str) -> Result<()> {
    let endpoints = &record.config.endpoints;
    if is_on(record, id, name) {
        return Err(Error::conflict(format!(
            "endpoint with name {} already exists in network {name}",
            record.name
        )));
    }
    if endpoints.iter().any(|e| e.request.network == "none") {
        return Err(Error::invalid(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode",
        ));
    }
    if endpoints.iter().any(|e| e.request.network == "host") {
        return Err(Error::invalid(
            "container sharing network namespace with another container or host cannot be connected to any other network",
        ));
    }
    Ok(())
}
