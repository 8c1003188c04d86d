//! The network side of one running container: leases, namespace, interfaces,
//! announcements, published ports.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::claims::{Claim, Standing, Taken};
use super::ip6::Watch6;
use super::links::{Links, Lower};
use super::mdns::Told;
use super::names::NameService;
use super::{legs, taken};
use crate::base::{
    Cidr, ContainerId, ContainerName, Error, Family, IfName, Journal, MacAddr, NetworkId,
    PerFamily, Result, fnv1a,
};
use crate::engine::Engine;
use crate::engine::record::{EndpointConfig, Lan6, NEVER, Record, State};
use crate::net::Attachment;
use crate::net::acd::Acd;
use crate::net::announce::Announcer;
use crate::net::dhcp::Client;
use crate::net::dhcp6;
use crate::net::driver::{self, Endpoint, HostView};
use crate::net::endpoint::EndpointOptions;
use crate::net::guard::Guard;
use crate::net::ip6::Named;
use crate::net::publish::{Publisher, Reserved, Target};
use crate::net::routing::{self, choice};
use crate::net::spec::{Driver, NetworkSpec, Vlan};
use crate::netlink::{MacvlanMode, Mode, Rtnl};
use crate::sys::netns::{Host, Netns, Sandbox};
use crate::sys::random;
use crate::sys::sysctl::NetSysctl;

/// A network that the container is on, or about to be.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) spec: NetworkSpec,
    pub(super) config: EndpointConfig,
    pub(super) options: EndpointOptions,
    pub(super) addrs: PerFamily<Cidr>,
    pub(super) attachment: Option<Attachment>,
    /// Where a DHCP server gives the address.
    pub(super) client: Option<Client>,
    /// With `--ip6 dhcp`.
    pub(super) client6: Option<dhcp6::Client>,
    /// The right to the address, unless it has none, it is a DHCP server's, or
    /// `--acd=off`.
    pub(super) claim: Option<Claim>,
    pub(super) standing: Standing,
    pub(super) lower: Lower,
    /// What routers say of name servers.
    pub(super) named6: Named,
    /// With `--mdns`.
    pub(super) mdns: Option<Told>,
}

impl Leg {
    /// The next hop of a family's default route that goes this way.
    pub(super) fn gateway(&self, family: Family) -> Option<IpAddr> {
        let addr = self
            .addrs
            .of(family)
            .filter(|_| !self.spec.is_l3() && !self.is_cut_off())?;
        if self.is_by_lan6() && family == Family::Ipv6 {
            // The kernel follows the routers.
            return None;
        }
        if self.spec.is_dhcp() {
            return self.lease()?.gateway().map(IpAddr::V4);
        }
        if let Some(own) = self.options.gateways.of(family) {
            return Some(own);
        }
        self.spec
            .pools
            .iter()
            .find(|p| p.subnet == addr.network())?
            .gateway
    }

    /// Without a parent there is no gateway, whatever was given.
    fn is_cut_off(&self) -> bool {
        self.spec.vlan().is_some_and(Vlan::is_isolated)
    }

    /// Whether a family's default route can go this way: through a gateway, or
    /// by leaving it to the host.
    pub(super) fn leads_out(&self, family: Family) -> bool {
        let by_host = || self.spec.is_l3() && self.addrs.of(family).is_some();
        (self.gateway(family).is_some() || by_host()) && !self.spec.is_internal()
    }

    pub(super) fn mode(&self) -> Option<Mode> {
        self.spec.vlan().map(|vlan| vlan.mode)
    }

    /// The parent is the container's, until the link is gone.
    pub(super) fn is_passthru(&self) -> bool {
        self.mode().is_some_and(Mode::is_passthru)
    }

    /// How the choice of default routes (§5) sees it.
    pub(super) fn candidate(&self) -> choice::Candidate<'_> {
        choice::Candidate {
            name: self.spec.name.as_str(),
            priority: self.config.request.gw_priority,
            internal: self.spec.is_internal(),
            addressed: Family::BOTH.map(|family| self.addrs.of(family).is_some()),
            leads_out: Family::BOTH.map(|family| self.leads_out(family)),
        }
    }

    pub(super) fn rank(&self) -> choice::Rank<'_> {
        self.candidate().rank()
    }
}

/// Announcements still to be sent for one interface.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ifname: IfName,
    pub(super) announcer: Announcer,
    pub(super) left: u8,
    pub(super) interval: Duration,
    pub(super) next: Instant,
}

/// The network side of one running container.
#[derive(Debug)]
pub(in crate::engine) struct Network {
    pub(super) id: ContainerId,
    pub(super) name: ContainerName,
    pub(super) hostname: String,
    pub(super) legs: Vec<Leg>,
    pub(super) host_mode: bool,
    pub(super) host: Rtnl<Host>,
    pub(super) netns: Option<Netns<Sandbox>>,
    pub(super) sandbox: Option<Rtnl<Sandbox>>,
    pub(super) sysctl: Option<NetSysctl>,
    pub(super) publisher: Option<Publisher>,
    pub(super) names: Option<NameService>,
    pub(super) guard: Option<Guard>,
    pub(super) pending: VecDeque<Pending>,
    /// Those of a container that is over. To close a packet socket is to wait
    /// for an RCU grace period: clients are told of the end before.
    pub(super) ended: Vec<Leg>,
    pub(super) warnings: Vec<String>,
    pub(super) acd: Acd,
    pub(super) links: Links,
    /// What is in the namespace.
    pub(super) routed: routing::Plan,
    /// With the first leg whose IPv6 is the LAN's.
    pub(super) watch6: Option<Watch6>,
    /// Whether its addresses stay its own while it does not run.
    pub(super) keeps: bool,
    /// Whether it may keep some already.
    pub(super) has_kept: bool,
    /// Whether LANs are told its name.
    pub(super) mdns: bool,
}

/// How long a dead container's namespace may take to go: some 30 ms, but the
/// kernel takes all that have ended apart one after the other.
pub(in crate::engine) const BURIAL: Duration = Duration::from_secs(5);
/// The same, where another address does as well.
pub(super) const SHORT_BURIAL: Duration = Duration::from_secs(1);
/// How often to look.
pub(in crate::engine) const GLANCE: Duration = Duration::from_millis(10);

pub(super) fn not_made() -> Error {
    Error::state(
        "use network",
        "",
        "the container's namespace is not made yet",
    )
}

impl Network {
    /// Resolves the container's networks and leases its addresses.
    /// Not those that were found `taken`.
    pub(in crate::engine) fn lease(
        engine: &Engine,
        record: &mut Record,
        taken: &[Taken],
    ) -> Result<Self> {
        let mut network = Self {
            id: record.id.clone(),
            name: record.name.clone(),
            hostname: record.hostname().to_owned(),
            legs: Vec::new(),
            host_mode: false,
            host: Rtnl::host()?,
            netns: None,
            sandbox: None,
            sysctl: None,
            publisher: None,
            names: None,
            guard: None,
            pending: VecDeque::new(),
            ended: Vec::new(),
            warnings: Vec::new(),
            acd: record.config.acd,
            links: Links::default(),
            routed: routing::Plan::default(),
            watch6: None,
            keeps: record.config.ip_reserve && !record.config.auto_remove,
            has_kept: record.state.started != NEVER,
            mdns: record.config.mdns,
        };
        for config in record.config.endpoints.clone() {
            let leg = network.leg(engine, config, taken)?;
            match leg.spec.driver {
                Driver::Host => network.host_mode = true,
                Driver::Null => {}
                Driver::Vlan(_) => network.legs.push(leg),
            }
        }
        network.remember(record);
        if record.config.endpoints.is_empty() {
            network
                .warnings
                .push("no --network given: the container has a loopback interface only".to_owned());
        }
        if !network.can_publish(record) && !record.config.publish.is_empty() {
            let mode = if network.host_mode { "host" } else { "none" };
            network.warnings.push(format!(
                "Published ports are discarded when using {mode} network mode"
            ));
        }
        if let Some(leg) = network.legs.iter().find(|leg| leg.is_passthru())
            && !record.config.publish.is_empty()
        {
            network.warnings.push(format!(
                "in passthru mode all that comes to the parent of network {} is the container's: \
                 its published ports cannot be reached by the host's address there",
                leg.spec.name
            ));
        }
        Ok(network)
    }

    /// Keeps ids, names and last addresses in the record.
    pub(super) fn remember(&self, record: &mut Record) {
        for leg in &self.legs {
            if let Some(config) = record
                .config
                .endpoints
                .iter_mut()
                .find(|e| e.request.network == leg.config.request.network)
            {
                *config = leg.config.clone();
            }
        }
    }

    pub(super) fn is_on(&self, network: &NetworkId) -> bool {
        self.legs.iter().any(|leg| leg.spec.id == *network)
    }

    /// The one that was connected last.
    pub(super) fn last_network(&self) -> Option<NetworkId> {
        self.legs.last().map(|leg| leg.spec.id.clone())
    }

    /// What the container holds an address on.
    pub(super) fn leases(&self) -> Vec<(NetworkSpec, Cidr)> {
        let of_leg = |leg: &Leg| {
            let spec = leg.spec.clone();
            leg.held().into_iter().map(move |addr| (spec.clone(), addr))
        };
        self.legs.iter().flat_map(of_leg).collect()
    }

    pub(in crate::engine) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    pub(in crate::engine) fn netns(&self) -> Result<&Netns<Sandbox>> {
        self.netns.as_ref().ok_or_else(not_made)
    }

    /// On a network, or where none was ever spoken of: then to the loopback.
    /// Who asked for `none`, or took the last network away, wants nobody in.
    pub(super) fn can_publish(&self, record: &Record) -> bool {
        let config = &record.config;
        let unsaid = config.endpoints.is_empty() && config.network_mode == "none";
        !self.host_mode && (!self.legs.is_empty() || unsaid)
    }

    /// Binds the published ports; nothing else may have them from now on.
    pub(in crate::engine) fn reserve_ports(
        &self,
        engine: &Engine,
        record: &Record,
    ) -> Result<Option<Reserved>> {
        if !self.can_publish(record) || record.config.publish.is_empty() {
            return Ok(None);
        }
        taken::bind(engine, &record.config.publish).map(Some)
    }

    /// Every leg, in command-line order: eth0, eth1, …
    pub(in crate::engine) fn attach_all(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        journal: &mut dyn Journal,
        taken: &mut Vec<Taken>,
    ) -> Result<()> {
        for at in 0..self.legs.len() {
            // A lease may have brought another gateway.
            let default = self.default_legs();
            self.attach(engine, at, &default, journal, taken)?;
        }
        self.route()?;
        self.remember(record);
        Ok(())
    }

    /// The legs that the default routes should use, each family's chosen by
    /// itself.
    pub(super) fn default_legs(&self) -> PerFamily<usize> {
        let all: Vec<_> = self.legs.iter().map(Leg::candidate).collect();
        PerFamily::each(|family| choice::choose(&all, family))
    }

    /// The name that was asked for, or the lowest free `ethN`; one that another
    /// leg asks for is not free.
    fn ifname(&self, at: usize) -> Result<IfName> {
        let has = |leg: &Leg, name: &IfName| {
            let attached = leg.attachment.as_ref().map(|a| &a.ifname);
            attached.or(leg.options.ifname.as_ref()) == Some(name)
        };
        if let Some(name) = &self.legs[at].options.ifname {
            let mut others = self.legs.iter().enumerate().filter(|(n, _)| *n != at);
            return match others.find(|(_, leg)| has(leg, name)) {
                Some((_, leg)) => Err(Error::conflict(format!(
                    "error renaming interface to \"{name}\": file exists"
                ))
                .hint(format!(
                    "network {} has that name in this container",
                    leg.spec.name
                ))),
                None => Ok(name.clone()),
            };
        }
        let used: Vec<&IfName> = self
            .legs
            .iter()
            .filter_map(|leg| match &leg.attachment {
                Some(attachment) => Some(&attachment.ifname),
                None => leg.options.ifname.as_ref(),
            })
            .collect();
        (0..=used.len())
            .map(|n| IfName::new(format!("eth{n}")))
            .find(|name| name.as_ref().is_ok_and(|n| !used.contains(&n)))
            .unwrap_or_else(|| IfName::new("eth0"))
    }

    /// Makes the interface of one leg. The kernel takes a dead container's
    /// namespace apart some time after its end, and until then its MAC counts
    /// as used. One that stays used, as the address does that it is made from, is
    /// passed over: see [`Network::mac_conflict`].
    pub(super) fn attach(
        &mut self,
        engine: &Engine,
        at: usize,
        default: &PerFamily<usize>,
        journal: &mut dyn Journal,
        taken: &mut Vec<Taken>,
    ) -> Result<()> {
        let began = Instant::now();
        let patience = self.patience(at);
        loop {
            match self.attach_once(engine, at, default, journal) {
                Err(e) if e.is_errno(libc::EADDRINUSE) => {
                    if self.has_live_twin(engine, at)? {
                        return Err(e);
                    }
                    if began.elapsed() > patience {
                        return Err(self.mac_conflict(at, e, taken));
                    }
                    std::thread::sleep(GLANCE);
                }
                done => return done.and_then(|()| self.lease_by_dhcp6(engine, at)),
            }
        }
    }

    /// Whether a running container has the MAC that was asked for here.
    fn has_live_twin(&self, engine: &Engine, at: usize) -> Result<bool> {
        let Some(mac) = self.legs[at].config.request.mac else {
            return Ok(false);
        };
        let records = engine.records()?.items;
        let mut others = records.iter().filter(|r| r.id != self.id);
        Ok(others.any(|r| r.state.attachments.iter().any(|a| a.mac == mac)))
    }

    pub(super) fn attach_once(
        &mut self,
        engine: &Engine,
        at: usize,
        default: &PerFamily<usize>,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let again = self.legs[at].lower.again.clone();
        let ifname = match &again {
            Some(before) => before.ifname.clone(),
            None => self.ifname(at)?,
        };
        let leg = &self.legs[at];
        let has_parents_mac = leg.mode().is_some_and(Mode::has_parents_mac);
        let own_mac = again.as_ref().filter(|_| !has_parents_mac).map(|a| a.mac);
        let mac = match (leg.config.request.mac.or(own_mac), leg.addrs.is_empty()) {
            (None, true) if leg.is_by_name() && !has_parents_mac => Some(self.identity(leg).mac),
            (None, true) if !has_parents_mac => Some(named_mac(&leg.spec, &self.hostname)),
            (mac, _) => mac,
        };
        let endpoint = Endpoint {
            id: match &again {
                Some(before) => before.endpoint.clone(),
                None => crate::engine::launch::hex(&random::bytes::<32>()?),
            },
            ifname,
            first: again.is_none() && self.legs.iter().all(|leg| leg.attachment.is_none()),
            addrs: leg.given(),
            link_local: legs::link_local(&leg.config.request)?,
            ip6: self.link6(at),
            own_link_local: self.own_link_local(at),
            sysctls: leg.options.sysctls.clone(),
            mac,
            gateways: PerFamily::each(|family| leg.gateway(family)),
            default_in: Family::BOTH
                .into_iter()
                .filter(|family| default.of(*family) == Some(at))
                .collect(),
            // One that is made again has its address already.
            silent: again.is_none() && self.acd != Acd::Off && leg.has_arp(),
            rates: leg.options.rates,
            receive: leg.options.receive.clone(),
        };
        let is_silent = endpoint.silent;
        let lan6 = Lan6::new(endpoint.ip6);
        engine.ensure_parent(&leg.spec, &mut self.host)?;
        let view = HostView::of(&leg.spec, &mut self.host)?;
        if let Some(down) = view.parent.as_ref().filter(|parent| !parent.up) {
            self.warnings.push(format!(
                "{0}, the parent of network {1}, is down: nothing reaches the container \
                 until `ip link set {0} up`",
                down.name, leg.spec.name
            ));
        }
        let Some(plan) = driver::plan(&leg.spec, endpoint, &view)? else {
            return Ok(());
        };
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        let netns = self.netns.as_ref().ok_or_else(not_made)?;
        let sysctl = self.sysctl.as_ref().ok_or_else(not_made)?;
        if lan6.is_some() && self.watch6.is_none() {
            self.watch6 = Some(Watch6::new(netns)?);
        }
        let spec = leg.spec.clone();
        let attachment = plan
            .attach(&mut self.host, sandbox, netns, sysctl, &mut self.guard)
            .map_err(|error| engine.name_holder(error, &spec))?;
        self.legs[at].config.lan6 = lan6;
        if spec.is_dhcp() && again.is_none() {
            self.warn_of_no_guard(&attachment, &spec);
            return self.lease_by_dhcp(engine, at, attachment, journal);
        }
        let known = engine
            .let_host_in(&mut self.host, &attachment, journal)
            .and_then(|()| match is_silent {
                true => self.probe(&attachment, view.parent.as_ref()),
                false => Ok(None),
            });
        let claim = known.map_err(|error| {
            // The container may go on running without this network.
            let sandbox = self.sandbox.as_mut();
            let detached = sandbox.map(|s| driver::detach(&attachment, s, &mut self.guard));
            let undone = [detached.unwrap_or(Ok(())), self.drop_route(&attachment)];
            error.with_undo(undone.into_iter().filter_map(Result::err).collect())
        })?;
        self.warn_of_no_guard(&attachment, &spec);
        let leg = &mut self.legs[at];
        leg.attachment = Some(attachment);
        leg.claim = claim;
        Ok(())
    }

    pub(in crate::engine) fn publish(
        &mut self,
        record: &Record,
        reserved: Option<Reserved>,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let Some(reserved) = reserved else {
            return Ok(());
        };
        let target = self.target();
        let netns = self.netns.as_ref().ok_or_else(not_made)?;
        let via = record.config.publish_via;
        self.publisher = Some(Publisher::start(
            reserved,
            via,
            target,
            &mut self.host,
            netns,
            journal,
        )?);
        self.let_answers_out()
    }

    /// Ports are published on the default network, or else on the first that
    /// has an IPv4 address.
    pub(super) fn target(&self) -> Target {
        let default = self.default_legs().ipv4();
        let has_ipv4 = |leg: &Leg| leg.addrs.ipv4().is_some();
        let leg = default
            .or_else(|| self.legs.iter().position(has_ipv4))
            .and_then(|at| self.legs[at].attachment.as_ref());
        let found = leg.and_then(|a| Some((a, a.addrs.ipv4()?)));
        match found.map(|(a, addr)| (a, addr, addr.addr())) {
            Some((a, addr, IpAddr::V4(ip))) => Target {
                parent: Some(a.parent.clone()),
                mac: a.mac,
                ip,
                reach: match default {
                    Some(_) => None,
                    None => Some(addr),
                },
                mode: a.mode,
            },
            // Inside, to what listens on any address.
            _ => Target {
                parent: None,
                mac: MacAddr([0; 6]),
                ip: Ipv4Addr::LOCALHOST,
                reach: None,
                mode: MacvlanMode::Bridge.into(),
            },
        }
    }

    /// Fills in what the record says of a running container.
    pub(in crate::engine) fn describe(&self, state: &mut State) {
        state.attachments = self
            .legs
            .iter()
            .filter_map(|l| l.attachment.clone())
            .collect();
        state.mdns = self.told();
        let publisher = self.publisher.as_ref();
        state.ports = publisher.map_or_else(Vec::new, |p| p.ports().to_vec());
        state.paths = publisher.map_or_else(Vec::new, Publisher::paths);
    }
}

/// For an interface without an address: a hash of machine, network and host
/// name, unicast and locally administered, so that it is the same each time.
fn named_mac(network: &NetworkSpec, hostname: &str) -> MacAddr {
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let name = [
        &machine,
        network.id.as_str().as_bytes(),
        hostname.as_bytes(),
    ];
    let [a, b, c, d, e, f, ..] = fnv1a(&name.concat()).to_be_bytes();
    MacAddr([(a & !1) | 2, b, c, d, e, f])
}
