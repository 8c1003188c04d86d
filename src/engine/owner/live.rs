//! What changes while the container runs: networks come and go, and at the end
//! all goes.

use std::net::IpAddr;
use std::time::Instant;

use crate::base::{Cidr, Error, Family, Journal, PerFamily, Result};
use crate::engine::record::{EndpointConfig, Record};
use crate::engine::{EndpointRequest, Engine};
use crate::net::acd::MAX_CONFLICTS;
use crate::net::driver::{self};
use crate::net::publish::{self, Target};
use crate::net::spec::HostAccess;
use crate::net::{Attachment, host_access};

use super::claims::{JOIN_WAIT, Taken};
use super::network::{Leg, Network};

impl Network {
    /// One more network, live. An address that turns out to be somebody's is
    /// refused if it was asked for; else the next one is tried.
    pub(super) fn connect(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        request: EndpointRequest,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let mut taken = Vec::new();
        loop {
            let before = taken.len();
            let once = self.connect_once(engine, record, request.clone(), journal, &mut taken);
            engine.note_taken(&taken[before..]);
            let again = taken.len() > before && taken.len() < MAX_CONFLICTS;
            match once {
                Err(error) if again && error.undo.is_empty() => {}
                done => {
                    let avoided = taken.iter().map(Taken::conflict);
                    avoided.for_each(|conflict| record.state.add_conflict(conflict));
                    return done;
                }
            }
        }
    }

    fn connect_once(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        request: EndpointRequest,
        journal: &mut dyn Journal,
        taken: &mut Vec<Taken>,
    ) -> Result<()> {
        let config = EndpointConfig {
            name: request.network.clone(),
            request,
            network: None,
            last_ips: PerFamily::NONE,
            dhcp: None,
            lan6: None,
            dhcp6: None,
        };
        let before = self.default_legs();
        let leg = self.leg(engine, config, taken)?;
        self.legs.push(leg);
        let at = self.legs.len() - 1;
        let default = self.default_legs();
        // Whose default routes come here.
        let moved = PerFamily::each(|family| {
            let before = before.of(family);
            before.filter(|_| default.of(family) == Some(at))
        });
        let made = self
            .move_default(&moved, &PerFamily::NONE)
            .and_then(|()| self.attach(engine, at, &default, journal, taken))
            .and_then(|()| {
                // What needs no verdict is done while the LAN may answer.
                let asked = Instant::now();
                self.route()?;
                self.add_host_lines(engine, record, at)?;
                self.settle(JOIN_WAIT.saturating_sub(asked.elapsed()), taken)?;
                self.announce_claimed()
            });
        if let Err(error) = made {
            let mut undo: Vec<Error> = Vec::new();
            if let Some(leg) = self.legs.pop() {
                if let Some(attachment) = &leg.attachment {
                    let sandbox = self.sandbox.as_mut();
                    let detached =
                        sandbox.map_or(Ok(()), |s| driver::detach(attachment, s, &mut self.guard));
                    let forgotten = detached.and_then(|()| self.drop_route(attachment));
                    undo.extend(forgotten.err());
                }
                for addr in leg.addrs.values() {
                    undo.extend(engine.remove_host_line(record, addr).err());
                    undo.extend(engine.release(&leg.spec, addr).err());
                }
            }
            undo.extend(self.move_default(&PerFamily::NONE, &moved).err());
            undo.extend(self.route().err());
            return Err(error.with_undo(undo));
        }
        record
            .config
            .endpoints
            .retain(|e| !matches!(e.request.network.as_str(), "none"));
        record.config.endpoints.push(self.legs[at].config.clone());
        let named = self
            .name_service(engine, record)
            .and_then(|()| self.name_servers_of_leases(engine, record));
        let network = self.legs[at].spec.id.clone();
        named
            .and_then(|()| self.republish(engine, record, journal))
            .map_err(|error| {
                let undone = self.disconnect(engine, record, network.as_str(), journal);
                error.with_undo(undone.err().into_iter().collect())
            })
    }

    /// In the container's /etc/hosts, for a leg's addresses.
    pub(super) fn add_host_lines(
        &mut self,
        engine: &Engine,
        record: &Record,
        at: usize,
    ) -> Result<()> {
        for addr in self.legs[at].addrs.values() {
            self.warnings.extend(engine.add_host_line(record, addr)?);
        }
        Ok(())
    }

    /// Published ports lead into the network that they were published on. When
    /// the container has left it, or was on none, they lead into the one that
    /// is the default now; without any they are free again.
    pub(super) fn republish(
        &mut self,
        engine: &Engine,
        record: &Record,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let inside = self.target().parent.is_none();
        let is_there = |target: &Target| {
            if target.parent.is_none() {
                return inside && !self.legs.is_empty();
            }
            let mut attachments = self.legs.iter().filter_map(|l| l.attachment.as_ref());
            attachments.any(|a| {
                a.mac == target.mac && a.addrs.ipv4().map(Cidr::addr) == Some(target.ip.into())
            })
        };
        let reserved = match self.publisher.take() {
            Some(publisher) if is_there(publisher.target()) => {
                self.publisher = Some(publisher);
                return Ok(());
            }
            Some(publisher) => {
                let ports = publisher.close()?;
                match self.can_publish(record) {
                    true => Some(publish::reserve(&ports)?),
                    false => None,
                }
            }
            None => self.reserve_ports(engine, record)?,
        };
        self.let_answers_out()?;
        self.publish(record, reserved, journal)
    }

    pub(super) fn disconnect(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        network: &str,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let at = self
            .legs
            .iter()
            .position(|l| l.spec.id.as_str() == network)
            .ok_or_else(|| {
                Error::not_found(format!(
                    "container {} is not connected to network {network}",
                    self.id
                ))
            })?;
        self.legs[at].say_goodbye();
        // The way to the server goes with the link.
        self.legs[at].give_lease_back(engine);
        self.legs[at].give_lease6_back(engine);
        let mut errors = Vec::new();
        // As long as the link is there, nothing has changed.
        if let (Some(attachment), Some(sandbox)) =
            (&self.legs[at].attachment, self.sandbox.as_mut())
        {
            driver::delete(attachment, sandbox)?;
            errors.extend(driver::unguard(attachment, &mut self.guard).err());
        }
        let leg = self.legs.remove(at);
        record
            .config
            .endpoints
            .retain(|e| e.network.as_ref() != Some(&leg.spec.id));
        // An address that the host still has a route for is nobody else's yet:
        // the container's end undoes both.
        let mut may_go = true;
        if let Some(attachment) = &leg.attachment {
            self.pending.retain(|p| p.ifname != attachment.ifname);
            let dropped = self.drop_route(attachment);
            may_go = dropped.is_ok();
            errors.extend(dropped.err());
        }
        for addr in leg.held() {
            if may_go {
                errors.extend(engine.give_up(&leg.spec, addr, &self.id).err());
            }
            match engine.remove_host_line(record, addr) {
                Ok(warning) => self.warnings.extend(warning),
                Err(error) => errors.push(error),
            }
        }
        self.follow_networks();
        // The kernel took the old default routes with their link.
        let default = self.default_legs();
        errors.extend(self.move_default(&PerFamily::NONE, &default).err());
        errors.extend(self.route().err());
        errors.extend(self.republish(engine, record, journal).err());
        match errors
            .into_iter()
            .reduce(|first, next| first.with_undo(vec![next]))
        {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub(super) fn drop_route(&mut self, attachment: &Attachment) -> Result<()> {
        match attachment.addrs.ipv4().map(Cidr::addr) {
            Some(IpAddr::V4(ip)) => host_access::remove(
                &mut self.host,
                &host_access::shim_name(&attachment.network),
                ip,
            ),
            _ => Ok(()),
        }
    }

    /// Takes default routes from some legs and gives them to others; a route
    /// that is there already is fine.
    pub(super) fn move_default(
        &mut self,
        from: &PerFamily<usize>,
        to: &PerFamily<usize>,
    ) -> Result<()> {
        Family::BOTH
            .into_iter()
            .try_for_each(|family| self.move_default_in(family, from.of(family), to.of(family)))
    }

    fn move_default_in(
        &mut self,
        family: Family,
        from: Option<usize>,
        to: Option<usize>,
    ) -> Result<()> {
        let Some(sandbox) = self.sandbox.as_mut() else {
            return Ok(());
        };
        for (leg, add) in [(from, false), (to, true)] {
            let Some(leg) = leg.and_then(|at| self.legs.get(at)) else {
                continue;
            };
            let Some(attachment) = &leg.attachment else {
                continue;
            };
            let Some(link) = sandbox.link(attachment.ifname.as_str())? else {
                continue;
            };
            match (leg.gateway(family), add) {
                (Some(gateway), true) => match sandbox.add_default(gateway, link.index) {
                    Err(e) if e.is_errno(libc::EEXIST) => {}
                    other => other?,
                },
                (Some(gateway), false) => sandbox.del_default(gateway, link.index)?,
                (None, true) if leg.leads_out(family) => {
                    sandbox.add_link_route(Cidr::default_of(family), link.index, None)?;
                }
                (None, false) if leg.leads_out(family) => {
                    sandbox.del_link_route(Cidr::default_of(family), link.index)?;
                }
                (None, _) => {}
            }
        }
        Ok(())
    }

    /// Takes everything back that does not die with the namespace, but for
    /// what is ours alone as long as we have it: addresses and ports. Passthru
    /// links go now, and not some time after: the host gets its parent back,
    /// with its own MAC.
    pub(in crate::engine) fn close(&mut self, engine: &Engine) -> Vec<Error> {
        let mut errors = Vec::new();
        self.links.close();
        if let Some(publisher) = &mut self.publisher {
            errors.extend(publisher.stop().err());
        }
        let mut legs = std::mem::take(&mut self.legs);
        legs.iter_mut().for_each(Leg::say_goodbye);
        for leg in &legs {
            let has_shim = || match engine.find_network(leg.spec.id.as_str()) {
                Ok(network) => network.host_access != HostAccess::Off,
                Err(_) => true,
            };
            if let Some(attachment) = &leg.attachment
                && has_shim()
            {
                errors.extend(self.drop_route(attachment).err());
            }
            if let (true, Some(attachment), Some(sandbox)) =
                (leg.is_passthru(), &leg.attachment, &mut self.sandbox)
            {
                errors.extend(driver::detach(attachment, sandbox, &mut self.guard).err());
            }
        }
        self.ended = legs;
        errors
    }
}
