//! The container's name on its LANs (`--mdns`).
//!
//! *Theory of operation.* Each link has a responder of its own, from when its
//! address is the container's to when it goes. After every change of networks
//! and addresses what there should be is compared with what there is
//! ([`Network::follow_mdns`]): another link, address or name is begun anew.
//! Who takes a link or an address away says goodbye before, while there is a
//! way to the LAN ([`Leg::say_goodbye`]).

use std::net::IpAddr;
use std::time::Instant;

use super::claims::Standing;
use super::network::{Leg, Network};
use super::{MDNS_BASE, Owned};
use crate::base::{Cidr, Result};
use crate::engine::record::{Mdns, MdnsPhase};
use crate::engine::{events, mdns};
use crate::net::mdns::{KEYS, Responder, Subject};
use crate::net::{Attachment, Carrier};
use crate::sys::epoll::Epoll;

/// One link's.
#[derive(Debug)]
pub(super) struct Told {
    /// The link: each has an endpoint id of its own.
    endpoint: String,
    /// Of the container's name.
    name: String,
    addrs: Vec<Cidr>,
    /// Or why there is none.
    responder: Result<Responder>,
}

impl Told {
    fn shown(&self, leg: &Leg) -> Mdns {
        let (name, phase, rival) = match &self.responder {
            Ok(responder) => (
                responder.name().to_owned(),
                match responder.is_announced() {
                    true => MdnsPhase::Announced,
                    false => MdnsPhase::Probing,
                },
                responder.rival().map(|r| (r.name.clone(), r.by)),
            ),
            Err(why) => (String::new(), MdnsPhase::Failed(why.to_string()), None),
        };
        Mdns {
            network: leg.spec.id.clone(),
            name,
            phase,
            rival,
        }
    }
}

impl Leg {
    /// Before its link or its address goes.
    pub(super) fn say_goodbye(&mut self) {
        if let Some(told) = self.mdns.take()
            && let Ok(responder) = told.responder
        {
            responder.say_goodbye();
        }
    }

    fn responder(&mut self) -> Option<&mut Responder> {
        self.mdns.as_mut()?.responder.as_mut().ok()
    }

    fn may_tell(&self) -> bool {
        let is_there = |a: &Attachment| a.link.carrier != Carrier::Gone;
        self.standing != Standing::New
            && self.attachment.as_ref().is_some_and(is_there)
            && mdns::why_not(&self.spec).is_none()
    }
}

impl Network {
    /// What a link's LAN is to be told; nothing where it has no address.
    fn subject(&self, at: usize) -> Option<Subject> {
        let leg = self.legs.get(at).filter(|leg| leg.may_tell())?;
        let addrs = leg.held();
        let others = self.legs.iter().enumerate().filter(|(n, _)| *n != at);
        let siblings = others.flat_map(|(_, leg)| leg.held());
        (!addrs.is_empty()).then(|| Subject {
            name: self.name.to_string(),
            addrs,
            siblings: siblings.map(Cidr::addr).collect::<Vec<IpAddr>>(),
        })
    }

    /// Brings what LANs are told up to date.
    pub(super) fn follow_mdns(&mut self) {
        if !self.mdns {
            return;
        }
        for at in 0..self.legs.len() {
            let subject = self.subject(at);
            let leg = &mut self.legs[at];
            let Some((subject, link)) = subject.zip(leg.attachment.as_ref()) else {
                leg.say_goodbye();
                continue;
            };
            if let Some(told) = &mut leg.mdns
                && told.endpoint == link.endpoint
                && told.name == subject.name
                && told.addrs == subject.addrs
            {
                if let Ok(responder) = &mut told.responder {
                    responder.set_siblings(subject.siblings);
                }
                continue;
            }
            let Some(netns) = &self.netns else {
                continue;
            };
            let link = link.clone();
            leg.say_goodbye();
            leg.mdns = Some(Told {
                endpoint: link.endpoint.clone(),
                name: subject.name.clone(),
                addrs: subject.addrs.clone(),
                responder: Responder::start(netns, &link, subject),
            });
        }
    }

    /// Before the program starts: what cannot be done is refused.
    pub(in crate::engine) fn tell_names(&mut self) -> Result<()> {
        self.follow_mdns();
        let told = self.legs.iter().filter_map(|leg| leg.mdns.as_ref());
        let refused = told.filter_map(|told| told.responder.as_ref().err()).next();
        refused.map_or(Ok(()), |error| Err(error.clone()))
    }

    pub(super) fn told(&self) -> Vec<Mdns> {
        let legs = self.legs.iter();
        legs.filter_map(|leg| Some(leg.mdns.as_ref()?.shown(leg)))
            .collect()
    }

    pub(super) fn register_mdns(&mut self, epoll: &Epoll) -> Result<()> {
        for leg in &mut self.legs {
            let index = leg.attachment.as_ref().map(|a| u64::from(a.ifindex));
            if let (Some(index), Some(responder)) = (index, leg.responder())
                && !responder.is_registered()
            {
                responder.register(epoll, MDNS_BASE + KEYS * index)?;
            }
        }
        Ok(())
    }

    pub(super) fn mdns_ready(&mut self, key: u64) {
        let is_meant = |leg: &&mut Leg| {
            let attachment = leg.attachment.as_ref();
            attachment.is_some_and(|a| u64::from(a.ifindex) == key / KEYS)
        };
        let leg = self.legs.iter_mut().find(is_meant);
        if let Some(responder) = leg.and_then(Leg::responder) {
            responder.ready(key % KEYS);
        }
    }

    pub(super) fn mdns_deadline(&self) -> Option<Instant> {
        let told = self.legs.iter().filter_map(|leg| leg.mdns.as_ref());
        let responders = told.filter_map(|told| told.responder.as_ref().ok());
        responders.filter_map(Responder::deadline).min()
    }

    pub(super) fn mdns_on_time(&mut self, now: Instant) {
        let responders = self.legs.iter_mut().filter_map(Leg::responder);
        responders.for_each(|responder| responder.on_time(now));
    }

    fn has_told_anew(&mut self) -> bool {
        let responders = self.legs.iter_mut().filter_map(Leg::responder);
        responders.fold(false, |any, responder| responder.take_changed() | any)
    }
}

impl Owned {
    /// Records which name has become the container's, and who has the one that
    /// was wanted.
    pub(super) fn note_mdns(&mut self) -> Result<()> {
        if !self.network.has_told_anew() {
            return Ok(());
        }
        let before = std::mem::take(&mut self.record.state.mdns);
        let now = self.network.told();
        for told in &now {
            let known = |b: &&Mdns| {
                (&b.network, &b.name, &b.phase) == (&told.network, &told.name, &told.phase)
            };
            if let (MdnsPhase::Announced, Some((taken, by)), None) =
                (&told.phase, &told.rival, before.iter().find(known))
            {
                let event = events::of_mdns(&self.record, told, taken, *by);
                self.engine.note(&[event]);
            }
        }
        self.record.state.mdns = now;
        self.save()
    }
}
