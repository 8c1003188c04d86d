//! What a running container's rules have counted: asked of its supervisor,
//! which owns them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::Record;
use super::{Client, view};
use crate::base::{IfName, Result};
use crate::net::guard::limit::Excess;
use crate::net::guard::{Dropped, State};

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counters {
    pub guard: BTreeMap<IfName, Dropped>,
    #[serde(default)]
    pub rules: Vec<(String, u64)>,
    #[serde(default)]
    pub rates: BTreeMap<IfName, Excess>,
}

impl Counters {
    pub(super) const VERB: &'static str = "counters";

    /// Whether there are any to ask for.
    pub(super) fn exist(record: &Record) -> bool {
        let mut links = record.state.attachments.iter();
        links.any(|a| a.guard == State::On || !a.rates.is_none()) || !record.config.rules.is_empty()
    }

    pub(super) fn ask(client: &mut Client) -> Result<Self> {
        let answer = client.command(Self::VERB, serde_json::Value::Null, &[])?;
        serde_json::from_value(answer)
            .map_err(|e| crate::base::Error::parse("read counters", "", e))
    }

    pub(super) fn show(mut self, container: &mut view::Container) {
        for link in container.dockless.links.values_mut() {
            let ifname = IfName::new(link.interface.clone());
            let Ok(ifname) = ifname else {
                continue;
            };
            link.dropped = self.guard.remove(&ifname).unwrap_or_default();
            link.rate_dropped = self.rates.remove(&ifname);
        }
        for rule in &mut container.dockless.rules {
            let known = self.rules.iter().find(|(text, _)| *text == rule.rule);
            rule.packets = known.map(|(_, packets)| *packets).unwrap_or_default();
        }
    }
}
