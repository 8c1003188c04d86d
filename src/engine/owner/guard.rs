//! The container's guard and its rules: in force before its links are, and
//! let through what published ports need.

use super::network::{Network, not_made};
use crate::base::Result;
use crate::engine::counters::Counters;
use crate::engine::record::Record;
use crate::net::Attachment;
use crate::net::guard::{Guard, Identity, State};
use crate::net::publish::Publisher;
use crate::net::spec::NetworkSpec;

impl Network {
    /// `--allow` and `--deny`, before there is a link.
    pub(in crate::engine) fn filter(&mut self, record: &Record) -> Result<()> {
        let rules = &record.config.rules;
        if rules.is_empty() || self.host_mode {
            return Ok(());
        }
        let netns = self.netns.as_ref().ok_or_else(not_made)?;
        let guard = match &mut self.guard {
            Some(guard) => guard,
            None => self.guard.insert(Guard::new(netns)?),
        };
        guard.filter(rules)
    }

    pub(super) fn warn_of_no_guard(&mut self, attachment: &Attachment, spec: &NetworkSpec) {
        if let State::Unavailable { why } = &attachment.guard {
            self.warnings.push(format!(
                "network {} has no guard: {why}; what the container sends is not checked",
                spec.name
            ));
        }
    }

    /// The leg has other addresses than when its link was made: what may be
    /// sent from it, if it is guarded, is now from these. What was dropped is
    /// counted anew.
    pub(super) fn guard_follows(&mut self, at: usize) -> Result<()> {
        let leg = &self.legs[at];
        let attachment = leg.attachment.as_ref().filter(|a| a.guard == State::On);
        let (Some(attachment), Some(guard)) = (attachment, &mut self.guard) else {
            return Ok(());
        };
        let own = leg.senders();
        guard.install(&Identity {
            ifname: &attachment.ifname,
            mac: attachment.mac,
            link_local: attachment.link_local(),
            addrs: &own,
            also: &leg.options.receive.macs,
        })?;
        self.let_answers_out()
    }

    /// What is published answers from other addresses than the container's.
    pub(super) fn let_answers_out(&mut self) -> Result<()> {
        let aliases = self.publisher.as_ref().and_then(Publisher::aliases);
        let Some(guard) = &mut self.guard else {
            return Ok(());
        };
        let mut attachments = self.legs.iter().filter_map(|l| l.attachment.as_ref());
        let on = aliases.and_then(|(parent, mac, block)| {
            let link = attachments.find(|a| a.parent == *parent && a.mac == mac)?;
            Some((&link.ifname, mac, block))
        });
        guard.publish(on)
    }

    pub(super) fn counters(&mut self) -> Result<Counters> {
        let guard = self.guard.as_mut().map(Guard::dropped).transpose()?;
        let rules = self.guard.as_mut().map(Guard::filtered).transpose()?;
        Ok(Counters {
            guard: guard.unwrap_or_default(),
            rules: rules.unwrap_or_default(),
            rates: self.excess()?,
        })
    }
}
