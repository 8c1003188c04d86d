//! The container's claims to its addresses (RFC 5227): made before the program
//! starts, defended while it runs.
//!
//! *Theory of operation.* A link that comes up is silent, and probes at once.
//! What is left of the start goes on meanwhile; when only exec is missing, the
//! verdict is what has come in by then ([`Network::settle`]): a conflict
//! refuses the start, or, where the address was the engine's choice, is
//! remembered in `taken`, and the caller starts over with another. Otherwise
//! the link speaks, and announces itself for the first time.
//!
//! While the program runs, the socket of each claim is in the loop's poll set
//! and its filter lets nothing but conflicts through. An answer to our probe
//! that comes late is the word of who was there first: it is recorded, and the
//! address is neither announced nor defended any more. Any other claimant is
//! recorded and answered with one announcement. Then the socket is out of the
//! poll set for RFC 5227's ten seconds: nobody on the LAN can make a supervisor
//! work more often than that.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant, SystemTime};

use super::CLAIMS_BASE;
use super::network::{BURIAL, Leg, Network, Pending, SHORT_BURIAL, not_made};
use crate::base::{Error, Family, IfName, MacAddr, NetworkId, Result};
use crate::engine::record::{Conflict, Outcome, State};
use crate::engine::rfc3339;
use crate::net::Attachment;
use crate::net::acd::{self, Acd, DEFEND_INTERVAL, Ear, LATE, Watch};
use crate::net::announce::Announcer;
use crate::net::spec::NetworkSpec;
use crate::netlink::{Link, MacvlanMode, Mode};
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::netns::Host;

/// A network that a running program joins has no exec to wait for.
pub(super) const JOIN_WAIT: Duration = Duration::from_millis(2);

/// More strangers than that, and than one in eight, are asked by a broadcast: it
/// comes to all of the parent's macvlans, and costs 4 µs for each, a question to
/// one some 20 µs.
const FEW: usize = 16;

/// An address that was given, and turned out to be somebody's.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Taken {
    pub(super) network: NetworkId,
    pub(in crate::engine) segment: String,
    pub(in crate::engine) ip: Ipv4Addr,
    mac: MacAddr,
    parent: String,
    at: String,
}

impl Taken {
    fn new(leg: &Leg, ip: Ipv4Addr, mac: MacAddr, parent: &IfName) -> Self {
        Self {
            network: leg.spec.id.clone(),
            segment: leg.spec.segment().to_owned(),
            ip,
            mac,
            parent: parent.to_string(),
            at: rfc3339(SystemTime::now()),
        }
    }

    pub(super) fn told(&self, instead: IpAddr) -> String {
        let Self {
            ip, mac, parent, ..
        } = self;
        format!("{mac} on the LAN of {parent} has {ip}: the container has {instead} instead")
    }

    /// The last one that there was to give.
    pub(super) fn none_left(&self, network: &str) -> Error {
        let Self {
            ip, mac, parent, ..
        } = self;
        Error::conflict(format!("Address already in use: {ip}")).hint(format!(
            "{mac} on the LAN of {parent} has it, and network {network} has no other left"
        ))
    }

    pub(in crate::engine) fn conflict(&self) -> Conflict {
        Conflict {
            network: self.network.clone(),
            ip: self.ip,
            mac: self.mac,
            outcome: Outcome::Avoided,
            first: self.at.clone(),
            last: self.at.clone(),
            seen: 1,
            defended: 0,
        }
    }
}

/// One address of one leg.
#[derive(Debug)]
pub(super) struct Claim {
    watch: Watch,
    is_held: bool,
    /// Who had the address before.
    first: Option<MacAddr>,
    is_registered: bool,
    deaf_until: Option<Instant>,
}

/// Who hears the first announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    All,
    /// Where others follow, and the MAC is the address's own: a broadcast comes
    /// to each of the parent's other links before the call returns, which for a
    /// thousand takes 3 ms, and most of them know the address by that MAC. Who
    /// does not hears the second one.
    Lan,
}

/// How far a leg's addresses have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    New,
    /// The container's, as far as anybody has objected.
    Claimed,
    /// The LAN has been told.
    Announced,
}

impl Claim {
    /// To an address that is the container's already.
    pub(super) fn held(watch: Watch) -> Self {
        Self {
            watch,
            is_held: true,
            first: None,
            is_registered: false,
            deaf_until: None,
        }
    }
}

impl Leg {
    /// Whether the LAN knows it.
    pub(super) fn is_announced(&self) -> bool {
        self.standing == Standing::Announced
    }

    /// Whether there is an address that can be asked for.
    pub(super) fn has_arp(&self) -> bool {
        !self.spec.is_l3() && self.addrs.ipv4().is_some()
    }

    fn key(&self) -> Option<u64> {
        let attachment = self.attachment.as_ref()?;
        Some(CLAIMS_BASE + u64::from(attachment.ifindex))
    }
}

impl Network {
    /// A new link's first probe.
    pub(super) fn probe(
        &mut self,
        attachment: &Attachment,
        parent: Option<&Link<Host>>,
    ) -> Result<Option<Claim>> {
        let (Some(ip), Some(netns)) = (attachment.ipv4(), self.netns.as_ref()) else {
            return Ok(None);
        };
        let ear = match parent.map(|link| (link.index.get(), link.mac)) {
            Some((parent, _)) if attachment.mode.is_ipvlan() => Ear::Parent(parent),
            // A passthru parent has the container's MAC.
            Some((parent, Some(mac))) if !attachment.mode.is_passthru() => {
                Ear::WithTwin { parent, mac }
            }
            _ => Ear::Own,
        };
        let mut watch = Watch::new(netns, attachment.ifindex, ear, attachment.mac, ip)?;
        if self.acd == Acd::Fast {
            match parent.and_then(|parent| self.strangers(attachment, parent, ip)) {
                Some(strangers) => watch.probe_outside(&strangers)?,
                None => watch.probe()?,
            }
        }
        Ok(Some(Claim {
            watch,
            is_held: false,
            first: None,
            is_registered: false,
            deaf_until: None,
        }))
    }

    /// Whom to ask of the parent's other macvlans, one by one: not those whose
    /// MAC tells that they have another address, as that of each container of
    /// ours does which has not been given one. (One with this address has this
    /// MAC, and two links of a parent cannot.) `None`: a broadcast is better.
    fn strangers(
        &mut self,
        attachment: &Attachment,
        parent: &Link<Host>,
        ip: Ipv4Addr,
    ) -> Option<Vec<MacAddr>> {
        // Others do not talk to their siblings.
        if attachment.mode != Mode::Macvlan(MacvlanMode::Bridge) {
            return None;
        }
        let all = self.host.filters(parent.index).ok()?;
        // Where its own is not, others may not be either.
        if !all.contains(&attachment.mac) {
            return None;
        }
        let is_strange =
            |mac: &MacAddr| *mac != attachment.mac && mac.to_ipv4().is_none_or(|other| other == ip);
        let count = all.len();
        let strangers: Vec<MacAddr> = all.into_iter().filter(is_strange).collect();
        (strangers.len() <= FEW.max(count / 8)).then_some(strangers)
    }

    /// Whether [`Network::settle`] has anything to ask.
    pub(in crate::engine) fn is_probing(&self) -> bool {
        self.legs
            .iter()
            .any(|leg| leg.claim.as_ref().is_some_and(|claim| !claim.is_held))
    }

    /// The verdict over all addresses that are not claimed yet; those that are
    /// nobody else's are claimed. A conflict of an address that nobody has asked
    /// for is added to `taken`.
    pub(in crate::engine) fn settle(
        &mut self,
        wait: Duration,
        taken: &mut Vec<Taken>,
    ) -> Result<()> {
        let own = self.macs();
        let (legs, mut watches): (Vec<usize>, Vec<&mut Watch>) = self
            .legs
            .iter_mut()
            .enumerate()
            .filter_map(|(at, leg)| {
                let claim = leg.claim.as_mut().filter(|claim| !claim.is_held)?;
                Some((at, &mut claim.watch))
            })
            .unzip();
        let found = match self.acd {
            Acd::Strict if !watches.is_empty() => acd::strict(&mut watches, &own)?,
            _ => acd::verdict(&mut watches, &own, wait)?,
        };
        if let Some((at, mac)) = found
            && let Some(at) = legs.get(at)
        {
            return Err(self.conflict(*at, mac, taken));
        }
        for at in 0..self.legs.len() {
            self.claim(at)?;
        }
        Ok(())
    }

    /// Of all its interfaces.
    fn macs(&self) -> Vec<MacAddr> {
        let attachments = self.legs.iter().filter_map(|leg| leg.attachment.as_ref());
        attachments.map(|attachment| attachment.mac).collect()
    }

    fn conflict(&self, at: usize, mac: MacAddr, taken: &mut Vec<Taken>) -> Error {
        let leg = &self.legs[at];
        let found = leg.attachment.as_ref().and_then(|a| Some((a, a.ipv4()?)));
        let Some((attachment, ip)) = found else {
            return not_made();
        };
        let parent = &attachment.parent;
        let error = Error::conflict(format!("Address already in use: {ip}"));
        if leg.config.request.ips.of(Family::Ipv4).is_some() {
            return error.hint(format!(
                "{mac} on the LAN of {parent} has it: give another address (--ip; `dockless network \
                 set {} {} ip=…`), or take it from that machine",
                self.name, leg.spec.name
            ));
        }
        taken.push(Taken::new(leg, ip, mac, parent));
        error.hint(format!(
            "{mac} on the LAN of {parent} has it, as others have the {} addresses before it: \
             keep the containers' apart with --ip-range or --aux-address",
            taken.len() - 1
        ))
    }

    /// The leg's address, if its MAC is made from it.
    fn telling(&self, at: usize) -> Option<(Ipv4Addr, MacAddr)> {
        let leg = &self.legs[at];
        let has_own = !leg.mode().is_some_and(Mode::has_parents_mac) && leg.lower.again.is_none();
        match leg.addrs.ipv4()?.addr() {
            IpAddr::V4(ip) if has_own && leg.config.request.mac.is_none() => {
                Some((ip, MacAddr::from_ipv4(ip)))
            }
            _ => None,
        }
    }

    fn is_chosen(&self, at: usize) -> bool {
        self.legs[at].config.request.ips.of(Family::Ipv4).is_none()
    }

    /// How long to wait for a MAC that is used.
    pub(super) fn patience(&self, at: usize) -> Duration {
        match self.is_chosen(at) && self.telling(at).is_some() {
            true => SHORT_BURIAL,
            false => BURIAL,
        }
    }

    /// Another of the parent's links has the MAC that follows from the address: a
    /// container of Docker's (until version 27) or of another installation's, so
    /// most likely with that address, too.
    pub(super) fn mac_conflict(&self, at: usize, error: Error, taken: &mut Vec<Taken>) -> Error {
        let leg = &self.legs[at];
        let (Some((ip, mac)), Some(vlan)) = (self.telling(at), leg.spec.vlan()) else {
            return error;
        };
        let parent = &vlan.parent;
        if self.is_chosen(at) {
            taken.push(Taken::new(leg, ip, mac, parent));
        }
        Error::conflict(format!("Address already in use: {ip}")).hint(format!(
            "{mac}, the MAC that a container has with it, is used on {parent}, by itself or by a \
             link on it in another network namespace: give another address (--ip; `dockless \
             network set {} {} ip=…`), or a --mac-address of its own",
            self.name, leg.spec.name
        ))
    }

    /// From now on the leg's address is the container's.
    fn claim(&mut self, at: usize) -> Result<()> {
        let leg = &mut self.legs[at];
        if leg.standing != Standing::New {
            return Ok(());
        }
        leg.standing = Standing::Claimed;
        let Some(attachment) = &leg.attachment else {
            return Ok(());
        };
        if let Some(claim) = &mut leg.claim {
            claim.watch.claim()?;
            claim.is_held = true;
            let sysctl = self.sysctl.as_ref().ok_or_else(not_made)?;
            let asked = leg.options.sysctls.iter().rfind(|s| s.is_arp_ignore());
            let usual = match asked {
                Some(asked) => asked.value.clone(),
                None => sysctl.read_ipv4("conf/default/arp_ignore")?,
            };
            let name = format!("conf/{}/arp_ignore", attachment.ifname);
            sysctl.write(Family::Ipv4, &name, &usual)?;
        }
        Ok(())
    }

    /// Says so to the LANs, once.
    pub(super) fn announce_claimed(&mut self) -> Result<()> {
        self.announce_to(Whom::All)
    }

    fn announce_to(&mut self, whom: Whom) -> Result<()> {
        for at in 0..self.legs.len() {
            let leg = &mut self.legs[at];
            if leg.standing == Standing::Claimed
                && let Some(attachment) = leg.attachment.clone()
            {
                leg.standing = Standing::Announced;
                let spec = leg.spec.clone();
                self.announce(&attachment, &spec, whom)?;
            }
        }
        Ok(())
    }

    /// The same while the program is executed: too late to refuse the start.
    pub(in crate::engine) fn announce_or_warn(&mut self) {
        if let Err(error) = self.announce_to(Whom::Lan) {
            self.warnings
                .push(format!("the LAN was not told of the container: {error}"));
        }
    }

    /// The first announcement now, the rest from the loop.
    pub(super) fn announce(
        &mut self,
        attachment: &Attachment,
        spec: &NetworkSpec,
        whom: Whom,
    ) -> Result<()> {
        let Some(netns) = self.netns.as_ref() else {
            return Ok(());
        };
        // Where there are neighbours.
        if spec.announce.count == 0 || attachment.mode.is_l3() {
            return Ok(());
        }
        let left = spec.announce.count - 1;
        let interval = spec.announce.interval();
        for addr in attachment.addrs.values() {
            let (index, mac) = (attachment.ifindex, attachment.mac);
            let announcer = Announcer::new(netns, index, mac, addr.addr())?;
            let outside = whom == Whom::Lan
                && left > 0
                && self.watch_of(index, addr.addr()).is_some_and(|watch| {
                    mac == MacAddr::from_ipv4(watch.ip())
                        && watch.announce_outside().is_ok_and(|sent| sent)
                });
            // A failure to announce is no reason not to start.
            if !outside {
                let _ = announcer.send();
            }
            if left > 0 {
                self.pending.push_back(Pending {
                    ifname: attachment.ifname.clone(),
                    announcer,
                    left,
                    interval,
                    next: Instant::now() + interval,
                });
            }
        }
        Ok(())
    }

    fn watch_of(&self, ifindex: u32, ip: IpAddr) -> Option<&Watch> {
        self.legs.iter().find_map(|leg| {
            let watch = &leg.claim.as_ref()?.watch;
            let is_meant = leg.attachment.as_ref()?.ifindex == ifindex && watch.ip() == ip;
            is_meant.then_some(watch)
        })
    }

    /// Puts what is claimed into the poll set.
    pub(super) fn register_claims(&mut self, epoll: &Epoll) -> Result<()> {
        for leg in &mut self.legs {
            let key = leg.key();
            if let (Some(key), Some(claim)) = (key, &mut leg.claim)
                && !claim.is_registered
                && claim.deaf_until.is_none()
            {
                for ear in claim.watch.ears() {
                    epoll.add(ear, EpollFlags::EPOLLIN, key)?;
                }
                claim.is_registered = true;
            }
        }
        Ok(())
    }

    /// Lets go of what only a start needs.
    pub(super) fn rest_claims(&mut self) {
        let claims = self.legs.iter_mut().filter_map(|leg| leg.claim.as_mut());
        claims.for_each(|claim| claim.watch.rest());
    }

    pub(super) fn claims_deadline(&self) -> Option<Instant> {
        let claims = self.legs.iter().filter_map(|leg| leg.claim.as_ref());
        claims.filter_map(|claim| claim.deaf_until).min()
    }

    /// Listens again to those whose ten seconds are over.
    pub(super) fn claims_on_time(&mut self, now: Instant, epoll: &Epoll) -> Result<()> {
        for leg in &mut self.legs {
            if let Some(claim) = &mut leg.claim
                && claim.deaf_until.is_some_and(|until| until <= now)
            {
                claim.deaf_until = None;
            }
        }
        self.register_claims(epoll)
    }

    /// Somebody contradicts one of the claims.
    pub(super) fn contradicted(
        &mut self,
        key: u64,
        epoll: &Epoll,
        state: &mut State,
    ) -> Result<Option<Conflict>> {
        let own = self.macs();
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.key() == Some(key)) else {
            return Ok(None);
        };
        let (Some(claim), Some(attachment)) = (&mut leg.claim, &leg.attachment) else {
            return Ok(None);
        };
        let Some((mac, seen)) = claim.watch.heard(&own)? else {
            return Ok(None);
        };
        let now = Instant::now();
        let is_answer = claim.watch.probed().is_some_and(|at| now < at + LATE);
        if is_answer {
            claim.first = Some(mac);
            self.pending.retain(|p| p.ifname != attachment.ifname);
        }
        let is_ours = claim.first != Some(mac);
        // Frames that cannot be sent now are no reason to forget the conflict.
        let defended = u32::from(is_ours && claim.watch.announce().is_ok());
        claim.deaf_until = Some(now + DEFEND_INTERVAL);
        claim.is_registered = false;
        for ear in claim.watch.ears() {
            epoll.remove(ear)?;
        }
        let time = rfc3339(SystemTime::now());
        let conflict = Conflict {
            network: leg.spec.id.clone(),
            ip: claim.watch.ip(),
            mac,
            outcome: if is_ours {
                Outcome::Defended
            } else {
                Outcome::Shared
            },
            first: time.clone(),
            last: time,
            seen,
            defended,
        };
        state.add_conflict(conflict.clone());
        Ok(Some(conflict))
    }
}
