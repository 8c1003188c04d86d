//! One network of a running container, changed in place: another address, MAC
//! or gateway.
//!
//! # Theory of operation
//! The new addresses are leased first; the old ones are given back last. In
//! between the link is made anew, under its old name and index, by the steps
//! that made it: guard, rates, conflict detection, routes, announcements. A
//! link that cannot be made, an address that somebody has, or a gateway that
//! answered before and does not now: the link is made once more as it was.
//!
//! It stays on its parent, whatever that is called now. Without one nothing is
//! touched: no link could be made, neither the new one nor the old. A parent
//! that goes meanwhile has taken the link with it, and it is made again as any
//! other when the parent is back (`links.rs`).

use std::time::{Duration, Instant};

use super::claims::JOIN_WAIT;
use super::legs::check_families;
use super::network::{Leg, Network};
use super::taken;
use crate::base::{Cidr, Error, Family, IfName, Journal, NetworkId, OfFamily, PerFamily, Result};
use crate::engine::Engine;
use crate::engine::lease::Wish;
use crate::engine::record::{EndpointConfig, Record};
use crate::net::driver;
use crate::net::endpoint::EndpointOptions;
use crate::net::spec::Driver;

/// How long a gateway may take: two questions' time.
const ANSWER: Duration = Duration::from_millis(1500);
const PAUSE: Duration = Duration::from_millis(10);

impl Network {
    /// Gives back why an old address could not be given back.
    pub(super) fn readdress(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        network: &NetworkId,
        config: EndpointConfig,
        journal: &mut dyn Journal,
    ) -> Result<Vec<Error>> {
        let legs = &mut self.legs.iter();
        let at = legs.position(|leg| leg.spec.id == *network);
        let at = at.ok_or_else(|| Error::not_found(format!("network {network} not found")))?;
        let parent = self.parent_index(at)?;
        let before = self.legs[at].attachment.clone();
        let ifname = before.as_ref().map(|a| a.ifname.clone());
        let old = self.legs[at].stripped(ifname.clone());
        let answering = self.answering(at)?;
        let (mut new, fresh) = self.leg_instead(engine, at, config)?;
        new.options.ifname = ifname;
        let changed = new
            .check_gateways()
            .and_then(|()| self.remake(engine, record, at, new, parent, journal))
            .and_then(|()| self.check_answers(at, answering));
        if let Err(error) = changed {
            let mut undo: Vec<Error> = Vec::new();
            // Refused before the link was touched?
            if self.legs[at].attachment.is_none() || self.legs[at].attachment != before {
                undo.extend(self.remake(engine, record, at, old, parent, journal).err());
            }
            if let (None, Some(before)) = (&self.legs[at].attachment, before) {
                undo.extend(self.lose(at, before).err());
                // The addresses stay the container's.
                undo.extend(self.add_host_lines(engine, record, at).err());
            }
            let spec = self.legs[at].spec.clone();
            let released = fresh.into_iter().map(|addr| engine.release(&spec, addr));
            undo.extend(released.filter_map(Result::err));
            return Err(error.with_undo(undo));
        }
        let leg = &self.legs[at];
        let gone = old
            .addrs
            .values()
            .filter(|addr| leg.addrs.of(addr.family()) != Some(*addr));
        let released = gone.map(|addr| engine.release(&leg.spec, addr));
        Ok(released.filter_map(Result::err).collect())
    }

    /// The parent's index; an error where it has gone.
    pub(super) fn parent_index(&mut self, at: usize) -> Result<Option<u32>> {
        let Some(attachment) = self.legs[at].attachment.clone() else {
            return Ok(None);
        };
        if self.parent_name(attachment.parent_index)?.is_some() {
            return Ok(Some(attachment.parent_index));
        }
        let (parent, name) = (attachment.parent, &self.legs[at].spec.name);
        Err(Error::conflict(format!(
            "{parent}, the parent of network {name}, is gone, and the container's link with it"
        ))
        .hint(
            "it is made again when the parent is back: change it then, or stop the container first",
        ))
    }

    fn parent_name(&mut self, index: u32) -> Result<Option<IfName>> {
        Ok(self.host.link_by_index(index)?.map(|link| link.name))
    }

    /// With the addresses that were asked for, each leased if it is not the
    /// container's already, and which these are.
    fn leg_instead(
        &mut self,
        engine: &Engine,
        at: usize,
        mut config: EndpointConfig,
    ) -> Result<(Leg, Vec<Cidr>)> {
        let spec = self.legs[at].spec.clone();
        let options = EndpointOptions::new(&config.request.driver_options)?;
        check_families(&config.request, &spec)?;
        let names = self.names_on(&config);
        let host = taken::addresses(&spec, &mut self.host)?;
        let (mut addrs, mut fresh) = (self.legs[at].addrs, Vec::new());
        for ip in config.request.ips.values() {
            if addrs.of(ip.family()).map(Cidr::addr) == Some(ip) {
                continue;
            }
            let wish = Wish::Exactly(ip);
            let leased = engine.lease(&spec, ip.family(), wish, &self.id, &names, &host);
            let addr = leased.and_then(|(_, addr)| {
                fresh.push(addr);
                if host.contains(&ip) {
                    let warning = taken::hosts_own(&spec, ip, wish, self.acd)?;
                    self.warnings.push(warning);
                }
                let others = self.legs.iter().enumerate().filter(|(n, _)| *n != at);
                let theirs = others.filter_map(|(_, leg)| leg.addrs.of(ip.family()));
                match theirs
                    .map(Cidr::network)
                    .find(|net| net.overlaps(addr.network()))
                {
                    Some(clash) => Err(Error::conflict(format!(
                        "cannot program address {addr} in sandbox interface because it conflicts \
                         with existing route {clash}"
                    ))),
                    None => Ok(addr),
                }
            });
            match addr {
                Ok(addr) => {
                    addrs.put(addr);
                }
                Err(error) => {
                    let undone = fresh.iter().map(|addr| engine.release(&spec, *addr));
                    return Err(error.with_undo(undone.filter_map(Result::err).collect()));
                }
            }
        }
        config.last_ips = addrs.values().map(Cidr::addr).collect();
        let leg = Leg {
            config,
            options,
            addrs,
            ..self.legs[at].stripped(None)
        };
        Ok((leg, fresh))
    }

    /// The old link goes, the leg's takes its place.
    fn remake(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        at: usize,
        leg: Leg,
        parent: Option<u32>,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        if let Some(attachment) = self.legs[at].attachment.clone() {
            self.legs[at].say_goodbye();
            if let Some(sandbox) = &mut self.sandbox {
                driver::delete(&attachment, sandbox)?;
            }
            // Whatever fails from here on, it has to be made again.
            self.legs[at].attachment = None;
            driver::unguard(&attachment, &mut self.guard)?;
            self.pending.retain(|p| p.ifname != attachment.ifname);
            self.drop_route(&attachment)?;
            // Its rules; its routes have gone with it, and the index comes back.
            self.route()?;
            self.forget_lan6(engine, at)?;
        }
        for addr in self.legs[at].addrs.values() {
            self.warnings.extend(engine.remove_host_line(record, addr)?);
        }
        // With the claim to the old address, if it had one.
        self.legs[at] = leg;
        let default = self.default_legs();
        // By the network's record its parent may have another name: leases go by
        // that.
        let spec = self.legs[at].spec.clone();
        let parent = parent.map(|index| self.parent_name(index)).transpose()?;
        if let (Some(parent), Driver::Vlan(vlan)) =
            (parent.flatten(), &mut self.legs[at].spec.driver)
        {
            vlan.parent = parent;
        }
        let attached = self.attach(engine, at, &default, journal, &mut Vec::new());
        self.legs[at].spec = spec;
        attached?;
        // Those of other links that have gone with this one.
        self.move_default(&PerFamily::NONE, &default)?;
        self.settle(JOIN_WAIT, &mut Vec::new())?;
        self.announce_claimed()?;
        self.route()?;
        self.add_host_lines(engine, record, at)?;
        self.name_service(engine, record)?;
        self.republish(engine, record, journal)?;
        self.let_answers_out()
    }

    /// The families whose gateway answers now.
    fn answering(&mut self, at: usize) -> Result<Vec<Family>> {
        let mut answering = Vec::new();
        for family in Family::BOTH {
            if self.answers(at, family)? {
                answering.push(family);
            }
        }
        Ok(answering)
    }

    fn check_answers(&mut self, at: usize, answering: Vec<Family>) -> Result<()> {
        for family in answering {
            if !self.answers(at, family)? {
                let leg = &self.legs[at];
                let gateway = leg.gateway(family).map(|g| g.to_string());
                let addr = leg.addrs.of(family).map(|a| a.addr().to_string());
                return Err(Error::conflict(format!(
                    "the gateway {} does not answer {}: the container keeps what it had",
                    gateway.unwrap_or_default(),
                    addr.unwrap_or_default()
                ))
                .hint("it answered before the change"));
            }
        }
        Ok(())
    }

    /// Asked now, whatever was known of it; `false` without a gateway.
    fn answers(&mut self, at: usize, family: Family) -> Result<bool> {
        let leg = &self.legs[at];
        let (Some(gateway), Some(attachment), Some(sandbox)) =
            (leg.gateway(family), &leg.attachment, &mut self.sandbox)
        else {
            return Ok(false);
        };
        let Some(link) = sandbox.link(attachment.ifname.as_str())? else {
            return Ok(false);
        };
        sandbox.ask_neighbour(link.index, gateway)?;
        let end = Instant::now() + ANSWER;
        while Instant::now() < end {
            let known = sandbox.neighs()?;
            let is_there = |n: &crate::netlink::neigh::Neigh| {
                n.index == attachment.ifindex && n.addr == gateway && n.mac.is_some()
            };
            if known.iter().any(|n| is_there(n) && n.is_reachable()) {
                return Ok(true);
            }
            std::thread::sleep(PAUSE);
        }
        Ok(false)
    }
}

impl Leg {
    /// The same, without a link; that is to be called so.
    fn stripped(&self, ifname: Option<IfName>) -> Self {
        let mut options = self.options.clone();
        options.ifname = ifname.or(options.ifname);
        Self::bare(self.spec.clone(), self.config.clone(), options, self.addrs)
    }

    /// A gateway of its own is another machine of the link's subnet.
    pub(super) fn check_gateways(&self) -> Result<()> {
        let is_asked = !self.options.gateways.is_empty();
        if is_asked && (self.spec.is_l3() || self.spec.is_internal()) {
            return Err(Error::invalid(format!(
                "gw has no effect on network {}: it has no default route through a gateway",
                self.spec.name
            )));
        }
        for gateway in self.options.gateways.values() {
            let own = self.addrs.of(gateway.family());
            let is_near = |own: &Cidr| own.contains(gateway) && own.addr() != gateway;
            if own.filter(is_near).is_none() {
                let subnet = own.map(|own| own.network().to_string());
                return Err(Error::invalid(format!(
                    "gateway {gateway} is not another address of the container's subnet {}",
                    subnet.unwrap_or_else(|| "(it has none of that family)".to_owned())
                )));
            }
        }
        Ok(())
    }
}

/// Whether more than rates are to change.
pub(super) fn is_about_addresses(before: &EndpointConfig, after: &EndpointConfig) -> bool {
    let gateways = |e: &EndpointConfig| {
        let options = EndpointOptions::new(&e.request.driver_options);
        options.map(|o| o.gateways).unwrap_or(PerFamily::NONE)
    };
    (before.request.ips, before.request.mac) != (after.request.ips, after.request.mac)
        || gateways(before) != gateways(after)
}
