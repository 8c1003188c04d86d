//! `network set`: what can be changed of one network of a container without
//! leaving it. Its supervisor does it while it runs, and then it is so at once;
//! otherwise the record says it, for the next start.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::connect::{is_network, warnings};
use super::record::{EndpointConfig, Record};
use super::{Client, Engine};
use crate::base::{Error, NetworkId, Result};
use crate::net::endpoint::EndpointOptions;

/// Options of one endpoint, to be changed together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Change {
    pub network: NetworkId,
    /// `None`: not given any more.
    pub options: BTreeMap<String, Option<String>>,
}

impl Change {
    pub(super) const VERB: &'static str = "set";

    /// What the endpoint is to be; it is not touched where that cannot be.
    pub(super) fn apply(&self, endpoint: &mut EndpointConfig) -> Result<EndpointOptions> {
        let mut options = endpoint.request.driver_options.clone();
        for (key, value) in &self.options {
            match value {
                Some(value) => options.insert(key.clone(), value.clone()),
                None => options.remove(key),
            };
        }
        let parsed = EndpointOptions::new(&options)?;
        endpoint.request.driver_options = options;
        Ok(parsed)
    }
}

impl Engine {
    /// What went less well than hoped, in words.
    pub fn network_set(
        &self,
        container: &str,
        network: &str,
        options: BTreeMap<String, Option<String>>,
    ) -> Result<Vec<String>> {
        self.prepare()?;
        let id = self.find(container)?;
        let network = self.find_network(network)?;
        let change = Change {
            network: network.id.clone(),
            options,
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
            change.apply(endpoint).map(drop)
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
