//! Life with real links: what a supervisor does when its container's parents
//! lose their carrier, are renamed, go, and come back.
//!
//! *Theory of operation.* The kernel deletes a container's link together with
//! its parent, so somebody outside has to make it again. A
//! [`Bell`](crate::netlink::watch::Bell) on the host's links, taken shortly after the program has started, wakes the loop
//! when a parent has changed; each leg is then compared with what its
//! [`Attachment`] says ([`Network::follow_links`]), and what differs is done,
//! noted as an event, and recorded for `inspect`:
//!
//! | found | done |
//! |---|---|
//! | another name | the record and published ports follow |
//! | another MAC, under passthru or ipvlan | guard, claim, DHCP client and announcements follow |
//! | no carrier | recorded; of a list, after [`HOLD`] another one is looked for |
//! | carrier again | announced again, a frame a second at most |
//! | no parent | recorded; the link's sockets are closed, and everything that happens to links is listened to, until one can be the parent |
//! | a parent that can be used | the link is made again ([`Network::relink`]) |
//!
//! *The same identity*: a link is made again with the interface's name, MAC,
//! addresses, routes, sysctls and guard that it had, its claim (RFC 5227) is
//! held from the start, and its addresses are announced. The addresses stay
//! leased all the while. A DHCP client begins anew, with INIT-REBOOT, and the
//! address stays in use meanwhile (RFC 2131 §3.2).
//!
//! *A kill -9 in between* leaves nothing: links die with the container's
//! namespace, a VLAN that is made again is the network's (`engine/parents.rs`),
//! and published ports write their undo step down as at a start.
//!
//! Whatever fails is noted, tried again [`TRIES`] times, and then when links
//! change.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use super::bells::Shared;
use super::network::{Network, Pending, not_made};
use super::{LINKS_KEY, Owned};
use crate::base::{Error, IfName, Journal, Result};
use crate::engine::parents::parent_now;
use crate::engine::{Engine, events, rfc3339, view};
use crate::net::acd::{self, Acd, Watch};
use crate::net::announce::Announcer;
use crate::net::{Attachment, Carrier, driver};
use crate::netlink::watch::{Ear, LinkWatch, Seen};
use crate::sys::epoll::{Epoll, EpollFlags};

use super::claims::{Claim, Standing, Whom};

/// So long a parent of a list may be without carrier, or gone, before another
/// one takes its place.
const HOLD: Duration = Duration::from_secs(1);
/// After the start, or after a network came: the start itself waits for none
/// of this.
const SOON: Duration = Duration::from_millis(100);
const TRIES: u8 = 5;

/// The supervisor's eye on the host's links.
#[derive(Debug, Default)]
pub(super) struct Links {
    hearing: Option<Hearing>,
    look_at: Option<Instant>,
    /// The record does not say yet what was seen.
    is_unnoted: bool,
}

#[derive(Debug)]
enum Hearing {
    /// Something is waited for that is not there.
    All(LinkWatch, Ear),
    Shared(Shared),
}

impl AsFd for Hearing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::All(watch, _) => watch.as_fd(),
            Self::Shared(shared) => shared.bell.as_fd(),
        }
    }
}

impl Links {
    /// The container is over, and its supervisor ends without a word.
    pub(super) fn close(&mut self) {
        if let Some(Hearing::Shared(shared)) = &mut self.hearing {
            shared.hide();
        }
    }

    /// Whether what is listened to is of no more use.
    fn has_rung(&self) -> Result<bool> {
        match &self.hearing {
            Some(Hearing::All(watch, _)) => watch.drain().map(|_| false),
            Some(Hearing::Shared(shared)) => Ok(shared.bell.has_rung()),
            None => Ok(false),
        }
    }

    /// A bell that others have, too, does not leave the poll set by itself when
    /// it is closed here.
    fn stop(&mut self, epoll: &Epoll) -> Result<()> {
        match self.hearing.take() {
            Some(watch) => epoll.remove(&watch),
            None => Ok(()),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.look_at
    }

    fn look(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |sooner| sooner.min(at)));
    }
}

/// What is known of one leg's parent.
#[derive(Debug, Default)]
pub(super) struct Lower {
    seen: Option<Seen>,
    /// Without carrier, or gone.
    bad_since: Option<Instant>,
    tries: u8,
    /// Made again: as it was before.
    pub(super) again: Option<Attachment>,
}

impl Network {
    /// Looks at the parents before long.
    pub(super) fn watch_links(&mut self) {
        if !self.legs.is_empty() {
            self.links.look(Instant::now() + SOON);
        }
    }

    /// What has happened to the legs' parents.
    pub(super) fn follow_links(
        &mut self,
        engine: &Engine,
        journal: &mut dyn Journal,
        epoll: &Epoll,
    ) -> Result<Vec<view::Event>> {
        let mut happened = Vec::new();
        if self.links.has_rung().unwrap_or(true) {
            self.links.stop(epoll)?;
        }
        self.links.look_at = None;
        for at in 0..self.legs.len() {
            let followed = self.follow_leg(engine, at, journal, &mut happened);
            if let Err(error) = followed {
                self.note_trouble(at, &error);
            }
        }
        // Where nothing can be listened to (no more fds), it is looked at again.
        if self.listen(engine, epoll).is_err() {
            self.links.look(Instant::now() + HOLD);
        }
        Ok(happened)
    }

    fn note_trouble(&mut self, at: usize, error: &Error) {
        let leg = &mut self.legs[at];
        if let Some(attachment) = &mut leg.attachment {
            attachment.link.trouble = error.to_string();
        }
        if leg.lower.tries < TRIES {
            leg.lower.tries += 1;
            let pause = HOLD * u32::from(leg.lower.tries);
            self.links.look(Instant::now() + pause);
        }
    }

    fn follow_leg(
        &mut self,
        engine: &Engine,
        at: usize,
        journal: &mut dyn Journal,
        happened: &mut Vec<view::Event>,
    ) -> Result<()> {
        let Some(had) = self.legs[at].attachment.clone() else {
            return Ok(());
        };
        let link = self.host.link_by_index(had.parent_index)?;
        let is = link.as_ref().map(Seen::of);
        let before = std::mem::replace(&mut self.legs[at].lower.seen, is.clone());
        let now = match &is {
            None => Carrier::Gone,
            Some(is) if is.carries() => Carrier::Up,
            Some(_) => Carrier::Down,
        };
        if let Some(is) = &is {
            if is.name != had.parent {
                self.rename_parent(at, is, journal)?;
                happened.push(self.event(
                    at,
                    "parent-renamed",
                    &[("from", had.parent.as_str()), ("to", is.name.as_str())],
                ));
            }
            let parents = self.legs[at]
                .spec
                .vlan()
                .is_some_and(|v| v.mode.has_parents_mac());
            let is_new = before.is_some_and(|before| before.mac != is.mac);
            // Or what could not be done when it was.
            if parents && (is_new || !had.link.trouble.is_empty()) {
                self.follow_mac(engine, at)?;
            }
        }
        let was = had.link.carrier;
        if was != now && was != Carrier::Gone {
            self.set_carrier(at, now);
            happened.push(match now {
                Carrier::Gone => self.event(at, "parent-lost", &[]),
                Carrier::Up => self.event(at, "carrier", &[("carrier", "up")]),
                Carrier::Down => self.event(at, "carrier", &[("carrier", "down")]),
            });
            match now {
                Carrier::Gone => {
                    self.let_go(at);
                    self.route()?;
                }
                Carrier::Up => self.announce_again(at)?,
                Carrier::Down => {}
            }
        }
        let since = self.legs[at].lower.bad_since;
        match (was, now) {
            (Carrier::Up | Carrier::Down, Carrier::Up) => {
                self.legs[at].lower.bad_since = None;
                return Ok(());
            }
            (Carrier::Up | Carrier::Down, Carrier::Down) if !self.legs[at].spec.has_several() => {
                return Ok(());
            }
            _ => {}
        }
        let since = since.unwrap_or_else(Instant::now);
        self.legs[at].lower.bad_since = Some(since);
        self.find_another(engine, at, since + HOLD, journal, happened)
    }

    /// There is no parent, or, of several, the one in use does not carry.
    fn find_another(
        &mut self,
        engine: &Engine,
        at: usize,
        patience: Instant,
        journal: &mut dyn Journal,
        happened: &mut Vec<view::Event>,
    ) -> Result<()> {
        let Some(had) = self.legs[at].attachment.clone() else {
            return Ok(());
        };
        let Some(found) = parent_now(&self.legs[at].spec, &mut self.host)? else {
            return Ok(());
        };
        let several = self.legs[at].spec.has_several();
        let is_gone = had.link.carrier == Carrier::Gone;
        // Its VLAN's name begins with it.
        let is_same = found.name == had.parent.as_str()
            || had.parent.as_str().starts_with(&format!("{}.", found.name));
        if several && !is_same && Instant::now() < patience {
            self.links.look(patience);
            return Ok(());
        }
        if !is_gone && (is_same || !found.carries) {
            return Ok(());
        }
        self.relink(engine, at, journal)?;
        let leg = &mut self.legs[at];
        leg.lower.bad_since = None;
        leg.lower.tries = 0;
        let is = leg.attachment.as_ref().map(|a| a.parent.to_string());
        let is = is.unwrap_or_default();
        happened.push(match is == had.parent.as_str() {
            true => self.event(at, "parent-back", &[]),
            false => {
                let more = [("from", had.parent.as_str()), ("to", is.as_str())];
                // One link under another name is no failover.
                let action = if several { "failover" } else { "parent-back" };
                self.event(at, action, &more)
            }
        });
        Ok(())
    }

    fn set_carrier(&mut self, at: usize, carrier: Carrier) {
        let attachment = self.legs[at].attachment.as_mut();
        // Tried again and again, it is the same state still.
        if let Some(attachment) = attachment.filter(|a| a.link.carrier != carrier) {
            attachment.link.carrier = carrier;
            attachment.link.since = rfc3339(SystemTime::now());
            attachment.link.trouble.clear();
        }
    }

    /// The link is gone, and could not be made anew: from now on it is tried
    /// as with any other whose parent has gone.
    pub(super) fn lose(&mut self, at: usize, before: Attachment) -> Result<()> {
        let parent = self.host.link_by_index(before.parent_index)?;
        self.legs[at].attachment = Some(before);
        self.legs[at].standing = Standing::Announced;
        self.let_go(at);
        // That the parent is gone is found, and told, as ever.
        if parent.is_some() {
            self.set_carrier(at, Carrier::Gone);
        }
        self.watch_links();
        Ok(())
    }

    fn event(&self, at: usize, action: &str, more: &[(&str, &str)]) -> view::Event {
        let leg = &self.legs[at];
        let mut event = events::of_network(&leg.spec, action, Some(self.id.as_str()));
        let parent = leg.attachment.as_ref().map(|a| a.parent.to_string());
        let own = [("parent", parent.as_deref().unwrap_or_default())];
        for (key, value) in own.iter().chain(more) {
            let attributes = &mut event.actor.attributes;
            attributes.insert((*key).to_owned(), (*value).to_owned());
        }
        event
    }

    /// The link went with its parent. Its sockets would only report that.
    fn let_go(&mut self, at: usize) {
        let leg = &mut self.legs[at];
        leg.say_goodbye();
        leg.claim = None;
        leg.client = None;
        leg.client6 = None;
        if let Some(attachment) = &leg.attachment {
            self.pending.retain(|p| p.ifname != attachment.ifname);
        }
    }

    fn rename_parent(&mut self, at: usize, is: &Seen, journal: &mut dyn Journal) -> Result<()> {
        let Some(attachment) = &mut self.legs[at].attachment else {
            return Ok(());
        };
        let old = std::mem::replace(&mut attachment.parent, is.name.clone());
        self.move_ports(&old, at, journal)
    }

    /// Published ports that lead to this leg go by its parent.
    fn move_ports(&mut self, old: &IfName, at: usize, journal: &mut dyn Journal) -> Result<()> {
        let attachment = self.legs[at].attachment.as_ref().ok_or_else(not_made)?;
        if let Some(publisher) = &mut self.publisher
            && publisher.leads_by(old, attachment.mac)
        {
            publisher.follow_parent(&attachment.parent, &mut self.host, journal)?;
        }
        self.let_answers_out()
    }

    /// The link has its parent's MAC, which is another one now.
    fn follow_mac(&mut self, engine: &Engine, at: usize) -> Result<()> {
        let Some(mut attachment) = self.legs[at].attachment.clone() else {
            return Ok(());
        };
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        let link = sandbox.link(attachment.ifname.as_str())?;
        let Some(mac) = link.and_then(|link| link.mac) else {
            return Ok(());
        };
        if mac == attachment.mac {
            return Ok(());
        }
        let old = std::mem::replace(&mut attachment.mac, mac);
        let done = self.take_mac(engine, at, attachment);
        if let Some(attachment) = &mut self.legs[at].attachment {
            match done {
                Ok(()) => attachment.link.trouble.clear(),
                Err(_) => attachment.mac = old,
            }
        }
        done
    }

    fn take_mac(&mut self, engine: &Engine, at: usize, attachment: Attachment) -> Result<()> {
        self.legs[at].attachment = Some(attachment.clone());
        self.guard_follows(at)?;
        self.legs[at].claim = None;
        let parent = Some(attachment.parent_index);
        self.legs[at].claim = self.held_claim(at, &attachment, parent)?;
        // They would say the old one.
        self.pending.retain(|p| p.ifname != attachment.ifname);
        self.announce_again(at)?;
        match self.legs[at].spec.is_dhcp() {
            true => self.ask_again(engine, at),
            false => Ok(()),
        }
    }

    /// A claim to an address that the container has had all along.
    pub(super) fn held_claim(
        &self,
        at: usize,
        attachment: &Attachment,
        parent: Option<u32>,
    ) -> Result<Option<Claim>> {
        let (Some(ip), Some(netns)) = (attachment.ipv4(), self.netns.as_ref()) else {
            return Ok(None);
        };
        let leg = &self.legs[at];
        if self.acd == Acd::Off || !leg.has_arp() {
            return Ok(None);
        }
        let ear = match parent.filter(|_| attachment.mode.is_ipvlan()) {
            Some(parent) => acd::Ear::Parent(parent),
            None => acd::Ear::Own,
        };
        let mut watch = Watch::new(netns, attachment.ifindex, ear, attachment.mac, ip)?;
        watch.claim()?;
        Ok(Some(Claim::held(watch)))
    }

    /// All announcements once more. While some are still to be sent, at these
    /// times: a link that flaps makes nobody speak more often.
    fn announce_again(&mut self, at: usize) -> Result<()> {
        let leg = &self.legs[at];
        let Some(attachment) = leg.attachment.clone().filter(|_| leg.is_announced()) else {
            return Ok(());
        };
        let spec = leg.spec.clone();
        let mut under_way = false;
        for pending in &mut self.pending {
            if pending.ifname == attachment.ifname {
                pending.left = spec.announce.count;
                under_way = true;
            }
        }
        let Some(netns) = self.netns.as_ref().filter(|_| !under_way) else {
            return Ok(());
        };
        if spec.announce.count == 0 || attachment.mode.is_l3() {
            return Ok(());
        }
        for addr in attachment.addrs.values() {
            let (index, mac) = (attachment.ifindex, attachment.mac);
            self.pending.push_back(Pending {
                ifname: attachment.ifname.clone(),
                announcer: Announcer::new(netns, index, mac, addr.addr())?,
                left: spec.announce.count,
                interval: spec.announce.interval(),
                // The container's link gets its carrier a moment after its
                // parent, and drops what it is given before.
                next: Instant::now() + SOON,
            });
        }
        Ok(())
    }

    /// Makes a leg's link again, as it was, on the parent that there is now.
    fn relink(&mut self, engine: &Engine, at: usize, journal: &mut dyn Journal) -> Result<()> {
        let Some(had) = self.legs[at].attachment.clone() else {
            return Ok(());
        };
        let mut spec = self.legs[at].spec.clone();
        engine.resolve(&mut spec, &mut self.host)?;
        self.let_go(at);
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        driver::detach(&had, sandbox, &mut self.guard)?;
        // From here on there is no link, whatever the parent does.
        self.set_carrier(at, Carrier::Gone);
        // Its rules; its routes have gone with it, and the index may come back.
        self.route()?;
        let leg = &mut self.legs[at];
        leg.spec = spec;
        leg.lower.again = Some(had.clone());
        let before = leg.attachment.take();
        let default = self.default_legs();
        let made = self
            .forget_lan6(engine, at)
            .and_then(|()| self.attach_once(engine, at, &default, journal));
        // Nobody is there to be warned.
        self.take_warnings();
        let leg = &mut self.legs[at];
        leg.lower.again = None;
        if let Err(error) = made {
            leg.attachment = before;
            return Err(error);
        }
        let attachment = leg.attachment.as_mut().ok_or_else(not_made)?;
        attachment.link.since = rfc3339(SystemTime::now());
        let attachment = attachment.clone();
        let spec = leg.spec.clone();
        let parent = self.host.link_by_index(attachment.parent_index)?;
        self.legs[at].lower.seen = parent.as_ref().map(Seen::of);
        self.legs[at].claim = self.held_claim(at, &attachment, Some(attachment.parent_index))?;
        if self.legs[at].spec.is_dhcp() {
            self.ask_again(engine, at)?;
        }
        self.ask_again6(engine, at)?;
        self.route()?;
        if self.legs[at].is_announced() {
            self.announce(&attachment, &spec, Whom::All)?;
        }
        self.move_ports(&had.parent, at, journal)
    }

    /// Wakes up for what matters, from now on. What has changed since it was
    /// looked at is looked at again.
    fn listen(&mut self, engine: &Engine, epoll: &Epoll) -> Result<()> {
        let mut waits = false;
        let mut routes = false;
        let mut known = Vec::new();
        for leg in &self.legs {
            let Some(attachment) = &leg.attachment else {
                continue;
            };
            let is_bad = attachment.link.carrier != Carrier::Up;
            if attachment.link.carrier == Carrier::Gone || is_bad && leg.spec.has_several() {
                waits = true;
                let choice = leg.spec.choice();
                routes |= choice.is_some_and(|choice| choice.follows_routes());
            }
            known.extend(leg.lower.seen.clone());
        }
        let ear = match routes {
            true => Ear::LinksAndRoutes,
            false => Ear::Links,
        };
        let is_kept = match &self.links.hearing {
            Some(Hearing::All(_, had)) => waits && *had == ear,
            Some(Hearing::Shared(shared)) => !waits && shared.known == known,
            None => false,
        };
        if !is_kept {
            self.links.stop(epoll)?;
        }
        if self.links.hearing.is_none() && !self.legs.is_empty() {
            let hearing = match waits {
                true => Hearing::All(LinkWatch::new(ear)?, ear),
                false => Hearing::Shared(engine.bell(known.clone())?),
            };
            epoll.add(&hearing, EpollFlags::EPOLLIN, LINKS_KEY)?;
            self.links.hearing = Some(hearing);
        }
        for seen in &known {
            let link = self.host.link_by_index(seen.index)?;
            if link.as_ref().map(Seen::of).as_ref() != Some(seen) {
                self.links.look(Instant::now());
            }
        }
        Ok(())
    }
}

impl Network {
    fn attachments(&self) -> Vec<Attachment> {
        let all = self.legs.iter().filter_map(|leg| leg.attachment.clone());
        all.collect()
    }

    fn has_trouble(&self) -> bool {
        let mut all = self.legs.iter().filter_map(|leg| leg.attachment.as_ref());
        all.any(|attachment| !attachment.link.trouble.is_empty())
    }
}

impl Owned {
    /// A parent has changed, or it is time to look.
    pub(super) fn links_changed(&mut self) -> Result<()> {
        // Taken, and not cloned, which takes an fd.
        let Some(epoll) = self.epoll.take() else {
            return Ok(());
        };
        let before = self.network.attachments();
        let followed = self
            .network
            .follow_links(&self.engine, &mut self.journal, &epoll);
        self.epoll = Some(epoll);
        let happened = followed.inspect_err(|_| self.doubtful = true)?;
        let is_noted = !self.network.links.is_unnoted;
        if self.network.attachments() == before && happened.is_empty() && is_noted {
            return Ok(());
        }
        self.doubtful |= self.network.has_trouble();
        let noted = self.note_network();
        self.engine.note(&happened);
        self.network.links.is_unnoted = noted.is_err();
        if noted.is_err() {
            self.network.links.look(Instant::now() + HOLD);
        }
        noted
    }
}
