//! The links' rates: what they cost, and how they change while the container
//! runs.

use std::collections::BTreeMap;

use super::network::{Network, not_made};
use crate::base::{Error, IfName, NetworkId, Result};
use crate::engine::record::EndpointConfig;
use crate::engine::stats::{LinkUsage, Usage};
use crate::net::endpoint::EndpointOptions;
use crate::net::guard::Guard;
use crate::net::guard::limit::{self, Excess};
use crate::net::rate::{self, Rates};

impl Network {
    /// What was dropped of what each limited link sends and is sent.
    pub(super) fn excess(&mut self) -> Result<BTreeMap<IfName, Excess>> {
        let limited = |a: &&crate::net::Attachment| !a.rates.is_none();
        let attachments = self.legs.iter().filter_map(|l| l.attachment.as_ref());
        let links: Vec<_> = attachments
            .filter(limited)
            .map(|a| (a.ifindex, a.ifname.clone()))
            .collect();
        let (Some(guard), Some(sandbox), false) =
            (&mut self.guard, &mut self.sandbox, links.is_empty())
        else {
            return Ok(BTreeMap::new());
        };
        let mut all = guard.excess()?;
        for (index, drops) in sandbox.tbf_drops()? {
            if let Some((_, ifname)) = links.iter().find(|(own, _)| *own == index) {
                all.entry(ifname.clone()).or_default().up += drops;
            }
        }
        Ok(all)
    }

    /// What the options of one network have become, in force at once.
    pub(super) fn set(
        &mut self,
        network: &NetworkId,
        config: &EndpointConfig,
        options: EndpointOptions,
    ) -> Result<()> {
        self.set_rates(network, options.rates)?;
        if let Some(leg) = self.legs.iter_mut().find(|leg| leg.spec.id == *network) {
            leg.config = config.clone();
            leg.options = options;
        }
        Ok(())
    }

    /// Other rates for the link on a network. Where one half cannot be had, the
    /// link keeps what it had.
    fn set_rates(&mut self, network: &NetworkId, rates: Rates) -> Result<()> {
        let at = self.legs.iter().position(|leg| leg.spec.id == *network);
        if let Some(at) = at {
            self.parent_index(at)?;
        }
        let attachment = at.and_then(|at| self.legs[at].attachment.as_mut());
        let attachment = attachment
            .ok_or_else(|| Error::not_found(format!("network {network} has no link here")))?;
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        let netns = self.netns.as_ref().ok_or_else(not_made)?;
        let (ifname, had) = (attachment.ifname.clone(), attachment.rates);
        let link = sandbox.link(ifname.as_str())?;
        let link = link.ok_or_else(|| Error::not_found(format!("{ifname} is gone")))?;
        let guard = &mut self.guard;
        // Also on the way back to none.
        let has_queue = rates.up.is_some() || had.up.is_some();
        let mut set = |rates: &Rates| {
            if has_queue {
                rate::shape(sandbox, link.index, rates.up)?;
            }
            limit::limit(guard, netns, &ifname, rates)
        };
        set(&rates).map_err(|error| error.with_undo(set(&had).err().into_iter().collect()))?;
        attachment.rates = rates;
        Ok(())
    }

    /// What went through every link, and what was lost on the way.
    pub(super) fn usage(&mut self) -> Result<Usage> {
        let excess = self.excess()?;
        let guard = self.guard.as_mut().map(Guard::dropped).transpose()?;
        let mut guard = guard.unwrap_or_default();
        let mut usage = Usage::default();
        for leg in &self.legs {
            let (Some(attachment), Some(sandbox)) = (&leg.attachment, &mut self.sandbox) else {
                continue;
            };
            let counts = sandbox.traffic(attachment.ifname.as_str())?;
            let parent = self.host.traffic(attachment.parent.as_str())?;
            let ifname = &attachment.ifname;
            let forged = guard.remove(ifname).unwrap_or_default();
            let link = LinkUsage {
                interface: ifname.to_string(),
                counts: counts.unwrap_or_default(),
                guard_dropped: forged.values().sum(),
                rate_dropped: excess.get(ifname).copied().unwrap_or_default(),
                parent_rx_dropped: parent.unwrap_or_default().rx_dropped,
            };
            usage.links.insert(leg.spec.name.to_string(), link);
        }
        Ok(usage)
    }
}
