//! `network set` on a running container: in force, then recorded.

use super::{Owned, readdress};
use crate::base::{Error, NetworkId, Result};
use crate::engine::record::EndpointConfig;
use crate::engine::set::Change;
use crate::net::endpoint::EndpointOptions;

impl Owned {
    /// The link first: what cannot be had is not recorded; and what cannot be
    /// recorded is taken back.
    pub(super) fn set(&mut self, change: &Change) -> Result<()> {
        let before = self.record.clone();
        let mut endpoints = self.record.config.endpoints.iter_mut();
        let endpoint = endpoints
            .find(|e| e.network.as_ref() == Some(&change.network))
            .ok_or_else(|| Error::not_found(format!("network {} not found", change.network)))?;
        let had = endpoint.clone();
        let options = change.apply(endpoint)?;
        if readdress::is_about_addresses(&had, endpoint) {
            let wanted = std::mem::replace(endpoint, had.clone());
            return self.readdress(&change.network, wanted, had);
        }
        self.network.set(&change.network, endpoint, options)?;
        self.network.describe(&mut self.record.state);
        self.save().map_err(|error| {
            let options = EndpointOptions::new(&had.request.driver_options);
            let undone = options.and_then(|o| self.network.set(&change.network, &had, o));
            self.record = before;
            error.with_undo(undone.err().into_iter().collect())
        })
    }

    /// The same of addresses. They follow the record when they are in force.
    fn readdress(
        &mut self,
        network: &NetworkId,
        wanted: EndpointConfig,
        had: EndpointConfig,
    ) -> Result<()> {
        let (engine, journal) = (&self.engine, &mut self.journal);
        let record = &mut self.record;
        let changed = self
            .network
            .readdress(engine, record, network, wanted, journal);
        self.network.remember(record);
        // Those addresses are the container's until its end.
        let changed = changed.map(|left| {
            self.doubtful |= !left.is_empty();
            let texts = left.iter().map(ToString::to_string);
            self.network.warnings.extend(texts);
        });
        let Err(error) = self.note_network() else {
            self.network.keep(&self.engine);
            return changed;
        };
        // Where it was refused, the link is as it was.
        if let Err(refused) = changed {
            return Err(refused.with_undo(vec![error]));
        }
        let (engine, journal) = (&self.engine, &mut self.journal);
        let record = &mut self.record;
        let undone = self
            .network
            .readdress(engine, record, network, had, journal);
        self.network.remember(record);
        Err(error.with_undo(undone.err().into_iter().collect()))
    }
}
