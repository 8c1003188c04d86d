//! Rules by source address and static routes of one running container, kept as
//! its networks and leases have them.
//!
//! [`Network::route`] is called after whatever changes a leg: start, `connect`,
//! `disconnect`, a lease. It plans anew and sends the difference; where nothing
//! is to be done (one network without static routes) it sends nothing. What it
//! makes dies with the namespace.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::legs;
use super::network::{Leg, Network, not_made};
use crate::base::{Cidr, Error, Family, OfFamily, PerFamily, Result};
use crate::net::routing::{Out, Plan, Way};
use crate::net::spec::SourceRouting;
use crate::net::{Attachment, Carrier, dhcp};
use crate::netlink::policy::{Change, Found};
use crate::netlink::route::Route;
use crate::netlink::rule::Rule;

/// What `network explain` asks of a supervisor.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(in crate::engine) struct Question {
    pub to: Option<IpAddr>,
    pub from: Option<IpAddr>,
}

/// What the kernel has in the container's namespace, and what it does.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::engine) struct Routing {
    pub rules: Vec<Rule>,
    pub routes: Vec<Route>,
    pub found: Option<Found>,
}

impl Routing {
    pub(in crate::engine) const VERB: &'static str = "routing";
}

/// All routes of a lease but the default one: those on the link, with the
/// routers that are in none of its subnets, and those through them.
pub(in crate::engine) fn of_lease(lease: &dhcp::Lease) -> (Vec<Cidr>, Vec<(Cidr, IpAddr)>) {
    let (mut near, mut far) = (Vec::new(), Vec::new());
    near.extend(
        lease
            .routes
            .iter()
            .filter(|r| r.via.is_none())
            .map(|r| r.dst),
    );
    for route in &lease.routes {
        let Some(via) = route.via.map(IpAddr::V4) else {
            continue;
        };
        // With a mask of 32 bits, say, routers lie on the link all the same.
        let is_known = lease.addr.contains(via) || near.iter().any(|net| net.contains(via));
        if !is_known {
            near.extend(Cidr::new(via, Family::Ipv4.width()));
        }
        if route.dst != Cidr::DEFAULT_V4 {
            far.push((route.dst, via));
        }
    }
    (near, far)
}

impl Leg {
    /// `None`: it has no interface, yet or any more.
    fn way(&self) -> Result<Option<Way>> {
        let there = |a: &&Attachment| a.link.carrier != Carrier::Gone;
        let Some(attachment) = self.attachment.as_ref().filter(there) else {
            return Ok(None);
        };
        let mut near = legs::link_local(&self.config.request)?;
        let mut far = Vec::new();
        if self.spec.is_l3() {
            let has = |subnet: &Cidr| self.addrs.of(subnet.family()).is_some();
            near.extend(self.spec.pools.iter().map(|p| p.subnet).filter(has));
        }
        if let (Some(lease), false) = (self.lease(), self.spec.is_internal()) {
            let (on_link, through) = of_lease(lease);
            near.extend(on_link);
            far = through;
        }
        let out = |family| match self.gateway(family) {
            _ if !self.leads_out(family) => None,
            Some(gateway) => Some(Out::Via(gateway)),
            None => Some(Out::Link),
        };
        Ok(Some(Way {
            ifindex: attachment.ifindex,
            addrs: self.addrs,
            near,
            far,
            out: PerFamily::each(out),
            fixed: self.spec.routes.clone(),
            ruled: self.spec.source_routing == SourceRouting::On,
        }))
    }
}

impl Network {
    /// Brings rules and routes of the namespace up to the networks as they are.
    pub(super) fn route(&mut self) -> Result<()> {
        let mut legs: Vec<&Leg> = self.legs.iter().collect();
        legs.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let ways = legs.into_iter().filter_map(|leg| leg.way().transpose());
        let ways: Vec<Way> = ways.collect::<Result<_>>()?;
        let is_there = |ifindex: u32| ways.iter().any(|way| way.ifindex == ifindex);
        // The kernel has taken those of links that are gone.
        self.routed.routes.retain(|route| is_there(route.oif));
        let next = Plan::new(&ways);
        let changes = self.routed.changes_to(&next);
        if changes.is_empty() {
            return Ok(());
        }
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        let refused = match sandbox.route_by(&changes) {
            Ok(refused) => refused,
            Err(error) => {
                self.routed.doubt(next);
                return Err(error);
            }
        };
        self.routed = next;
        let mut errors = Vec::new();
        for (change, error) in refused {
            self.routed.forget(change);
            errors.extend(self.excused(change, error));
        }
        match errors.pop() {
            Some(error) => Err(error.with_undo(errors)),
            None => Ok(()),
        }
    }

    /// `None`: the container does without what the kernel refused.
    fn excused(&mut self, change: Change, error: Error) -> Option<Error> {
        match change {
            // As under Docker, which makes no rules.
            Change::AddRule(_)
                if error.is_errno(libc::EOPNOTSUPP) || error.is_errno(libc::EAFNOSUPPORT) =>
            {
                self.warnings.push(format!(
                    "{error}: answers leave by the default route, whichever address was asked"
                ));
                None
            }
            // A server may say what makes no sense.
            Change::AddRoute(route) => {
                let is_its = |leg: &&mut Leg| {
                    let index = leg.attachment.as_ref().map(|a| a.ifindex);
                    leg.spec.is_dhcp() && index == Some(route.oif)
                };
                match self.legs.iter_mut().find(is_its) {
                    Some(leg) => {
                        leg.note_trouble(error.to_string());
                        None
                    }
                    None => Some(error),
                }
            }
            _ => Some(error),
        }
    }

    pub(super) fn routing(&mut self, question: Question) -> Result<Routing> {
        // Of a container without networks of its own: where it is.
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        Ok(Routing {
            rules: sandbox.rules()?,
            routes: sandbox.all_routes()?,
            found: question
                .to
                .map(|to| sandbox.lookup(to, question.from))
                .transpose()?,
        })
    }
}
