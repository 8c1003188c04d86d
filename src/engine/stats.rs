//! `stats`: what containers use, at one moment. Links' counters are their
//! supervisor's to read, the rest is in cgroup files and /proc.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::Record;
use super::{Client, Engine};
use crate::base::Result;
use crate::net::guard::limit::Excess;
use crate::netlink::traffic::Traffic;
use crate::sys::usage;

/// A container at one moment; all zero for one that does not run.
#[derive(Clone, Debug)]
pub struct Sample {
    pub id: String,
    pub name: String,
    pub at: Instant,
    pub used: usage::Usage,
    /// By network.
    pub links: BTreeMap<String, LinkUsage>,
}

/// What its supervisor knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Usage {
    pub links: BTreeMap<String, LinkUsage>,
}

/// What went through one link, in packets and bytes, and what did not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LinkUsage {
    pub interface: String,
    #[serde(flatten)]
    pub counts: Traffic,
    pub guard_dropped: u64,
    pub rate_dropped: Excess,
    /// Of the parent: broadcasts for which its macvlans' queue had no room are
    /// among them.
    pub parent_rx_dropped: u64,
}

impl Usage {
    pub(super) const VERB: &'static str = "usage";
}

/// How long a supervisor may take.
const PATIENCE: Duration = Duration::from_secs(1);

impl Engine {
    /// Of those named, in their order; of none named, of all that run, or of
    /// all there are, newest first.
    pub fn stats(&self, wanted: &[String], all: bool) -> Result<Vec<Sample>> {
        let mut records = Vec::new();
        for name in wanted {
            let id = self.find(name)?;
            records.extend(self.truth(&id)?);
        }
        if wanted.is_empty() {
            records = self.records()?.items;
            records.retain(|r| all || r.state.status.is_live());
            records.sort_by(|a, b| b.created.cmp(&a.created));
        }
        Ok(records.iter().map(|record| self.sample(record)).collect())
    }

    fn sample(&self, record: &Record) -> Sample {
        let is_live = record.state.status.is_live();
        let links = is_live.then(|| self.links_of(record).ok()).flatten();
        let state = &record.state;
        Sample {
            id: record.id.to_string(),
            name: record.name.to_string(),
            at: Instant::now(),
            used: match is_live {
                true => usage::measure(&state.cgroup, state.pid),
                false => usage::Usage::default(),
            },
            links: links.unwrap_or_default(),
        }
    }

    fn links_of(&self, record: &Record) -> Result<BTreeMap<String, LinkUsage>> {
        let Some(mut client) = Client::connect(&self.dirs.live(&record.id))? else {
            return Ok(BTreeMap::new());
        };
        client.patience(PATIENCE)?;
        let answer = client.command(Usage::VERB, Value::Null, &[])?;
        let usage: Usage = serde_json::from_value(answer)
            .map_err(|e| crate::base::Error::parse("read usage", "", e))?;
        Ok(usage.links)
    }
}
