//! The links' rates: what they cost, and how they change while the container
//! runs.

use std::collections::BTreeMap;

use super::network::{Network, not_made};
use crate::base::{Error, IfName, NetworkId, Result};
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

    /// Other rates for the link on a network. Where one half cannot be had, the
    /// link keeps what it had.
    pub(super) fn set_rates(&mut self, network: &NetworkId, rates: Rates) -> Result<()> {
        let leg = self.legs.iter_mut().find(|leg| leg.spec.id == *network);
        let attachment = leg.and_then(|leg| leg.attachment.as_mut());
        let attachment = attachment
            .ok_or_else(|| Error::not_found(format!("network {network} has no link here")))?;
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        let netns = self.netns.as_ref().ok_or_else(not_made)?;
        let ifname = attachment.ifname.clone();
        let had = std::mem::replace(&mut attachment.rates, rates);
        let mut set = |rates: &Rates| {
            let index = sandbox.link(ifname.as_str())?.map(|link| link.index);
            let index = index.ok_or_else(|| Error::not_found(format!("{ifname} is gone")))?;
            if rates.up != had.up || rates.up.is_some() {
                rate::shape(sandbox, index, rates.up)?;
            }
            limit::limit(&mut self.guard, netns, &ifname, rates)
        };
        set(&rates).map_err(|error| {
            attachment.rates = had;
            error.with_undo(set(&had).err().into_iter().collect())
        })
    }
}
