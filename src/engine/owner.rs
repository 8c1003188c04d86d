//! What the supervisor's loop asks of the engine: the container's networks,
//! ports, cgroup and record, owned by the one process that may change them
//! while the container runs.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use serde_json::Value;

use super::lease::Wish;
use super::record::{EndpointConfig, Record, State, Status};
use super::{EndpointRequest, Engine, gc};
use crate::base::{Cidr, ContainerId, ContainerName, Error, IfName, Journal, MacAddr, Result};
use crate::container::launch::{self, Running};
use crate::container::supervisor::{Owner, Settings};
use crate::net::announce::Announcer;
use crate::net::driver::{self, Endpoint, HostView};
use crate::net::publish::{self, Publisher, Reserved, Target};
use crate::net::spec::{Driver, HostAccess, NetworkSpec};
use crate::net::{Attachment, host_access};
use crate::netlink::{MacvlanMode, Rtnl};
use crate::store::{FileJournal, file};
use crate::sys::cgroup::Cgroup;
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::netns::{Host, Netns, Sandbox};
use crate::sys::process::{ExitStatus, SingleThreaded};
use crate::sys::random;
use crate::sys::sysctl::{Family, NetSysctl};

/// The publisher's keys, apart from any other of the owner's.
const PUBLISH_BASE: u64 = 1 << 40;

/// A network that the container is on, or about to be.
#[derive(Debug)]
struct Leg {
    spec: NetworkSpec,
    config: EndpointConfig,
    addr: Option<Cidr>,
    attachment: Option<Attachment>,
}

impl Leg {
    fn gateway(&self) -> Option<IpAddr> {
        let addr = self.addr?;
        self.spec
            .pools
            .iter()
            .find(|p| p.subnet == addr.network())?
            .gateway
    }

    /// Docker's order of preference for the default route (§5): priority,
    /// external before internal, with a gateway before without, name.
    fn rank(&self) -> (std::cmp::Reverse<i32>, bool, bool, &str) {
        (
            std::cmp::Reverse(self.config.request.gw_priority),
            self.spec.internal,
            self.gateway().is_none(),
            self.spec.name.as_str(),
        )
    }
}

/// Announcements still to be sent for one interface.
#[derive(Debug)]
struct Pending {
    ifname: IfName,
    announcer: Announcer,
    left: u8,
    interval: std::time::Duration,
    next: Instant,
}

/// The network side of one running container.
#[derive(Debug)]
pub(super) struct Network {
    id: ContainerId,
    hostname: String,
    legs: Vec<Leg>,
    host_mode: bool,
    host: Rtnl<Host>,
    netns: Option<Netns<Sandbox>>,
    sandbox: Option<Rtnl<Sandbox>>,
    sysctl: Option<NetSysctl>,
    publisher: Option<Publisher>,
    pending: VecDeque<Pending>,
    warnings: Vec<String>,
}

fn not_made() -> Error {
    Error::state(
        "use network",
        "",
        "the container's namespace is not made yet",
    )
}

impl Network {
    /// Resolves the container's networks and leases its addresses.
    pub(super) fn lease(
        engine: &Engine,
        record: &mut Record,
        journal: &mut dyn Journal,
    ) -> Result<Self> {
        let mut network = Self {
            id: record.id.clone(),
            hostname: record.hostname().to_owned(),
            legs: Vec::new(),
            host_mode: false,
            host: Rtnl::host()?,
            netns: None,
            sandbox: None,
            sysctl: None,
            publisher: None,
            pending: VecDeque::new(),
            warnings: Vec::new(),
        };
        for config in record.config.endpoints.clone() {
            let leg = network.leg(engine, config, journal)?;
            match leg.spec.driver {
                Driver::Host => network.host_mode = true,
                Driver::Null => {}
                Driver::Macvlan(_) => network.legs.push(leg),
            }
        }
        network.remember(record);
        if record.config.endpoints.is_empty() {
            network.warnings.push(
                "WARNING: no --network given: the container has a loopback interface only"
                    .to_owned(),
            );
        }
        if network.host_mode && !record.config.publish.is_empty() {
            network.warnings.push(
                "WARNING: Published ports are discarded when using host network mode".to_owned(),
            );
        }
        Ok(network)
    }

    fn leg(
        &self,
        engine: &Engine,
        mut config: EndpointConfig,
        journal: &mut dyn Journal,
    ) -> Result<Leg> {
        let spec = match &config.network {
            Some(id) => engine
                .find_network(id.as_str())
                .map_err(|_| Error::not_found(format!("network {} not found", config.name)))?,
            None => engine.find_network(&config.request.network)?,
        };
        if let Some(ip) = config.request.ip
            && !spec.ipv4
        {
            return Err(Error::invalid(format!(
                "invalid endpoint settings:\nno configured subnet contains IP address {ip}"
            )));
        }
        let addr = if spec.ipv4 && matches!(spec.driver, Driver::Macvlan(_)) {
            let wish = match (config.request.ip, config.last) {
                (Some(IpAddr::V4(ip)), _) => Wish::Exactly(ip),
                (_, Some(last)) => Wish::Rather(last),
                _ => Wish::Any,
            };
            let (ip, addr) = engine.lease(&spec, wish, &self.id, journal)?;
            config.last = Some(ip);
            Some(addr)
        } else {
            None
        };
        if let Some(addr) = addr
            && let Some(clash) = self.overlapping(addr)
        {
            return Err(Error::conflict(format!(
                "cannot program address {addr} in sandbox interface because it conflicts with existing route {clash}"
            )));
        }
        config.network = Some(spec.id.clone());
        config.name = spec.name.to_string();
        Ok(Leg {
            spec,
            config,
            addr,
            attachment: None,
        })
    }

    fn overlapping(&self, addr: Cidr) -> Option<Cidr> {
        self.legs
            .iter()
            .filter_map(|l| l.addr)
            .map(Cidr::network)
            .find(|net| net.overlaps(addr.network()))
    }

    /// Keeps ids, names and last addresses in the record.
    fn remember(&self, record: &mut Record) {
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

    pub(super) fn addresses(&self) -> Vec<Cidr> {
        self.legs.iter().filter_map(|l| l.addr).collect()
    }

    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    pub(super) fn netns(&self) -> Result<&Netns<Sandbox>> {
        self.netns.as_ref().ok_or_else(not_made)
    }

    /// Binds the published ports; nothing else may have them from now on.
    pub(super) fn reserve_ports(&self, record: &Record) -> Result<Option<Reserved>> {
        if self.host_mode || record.config.publish.is_empty() {
            return Ok(None);
        }
        publish::reserve(&record.config.publish).map(Some)
    }

    /// The sandbox, with Docker's sysctls; in host mode the host's own.
    pub(super) fn make_namespace(&mut self) -> Result<()> {
        if self.host_mode {
            let own = Netns::current()?
                .as_fd()
                .try_clone_to_owned()
                .map_err(|e| Error::sys("share network namespace", "host", e))?;
            self.netns = Some(Netns::from_fd(own)?);
            return Ok(());
        }
        let (netns, sysctl) = Netns::create_with(NetSysctl::open)?;
        sysctl.write(Family::Ipv4, "ip_unprivileged_port_start", "0")?;
        // In a user namespace with one group mapped, the whole range is not
        // this namespace's to give.
        match sysctl.write(Family::Ipv4, "ping_group_range", "0 2147483647") {
            Err(e) if e.is_errno(libc::EINVAL) => {
                sysctl.write(Family::Ipv4, "ping_group_range", "0 0")?;
            }
            other => other?,
        }
        let mut sandbox = Rtnl::sandbox(&netns)?;
        if self.legs.is_empty() {
            sandbox.loopback_up()?;
        }
        self.netns = Some(netns);
        self.sandbox = Some(sandbox);
        self.sysctl = Some(sysctl);
        Ok(())
    }

    /// Every leg, in command-line order: eth0, eth1, …
    pub(super) fn attach_all(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let default = self.default_leg();
        for at in 0..self.legs.len() {
            self.attach(engine, at, default == Some(at), journal)?;
        }
        self.remember(record);
        Ok(())
    }

    /// The leg that the default route should use.
    fn default_leg(&self) -> Option<usize> {
        (0..self.legs.len())
            .filter(|at| self.legs[*at].gateway().is_some() && !self.legs[*at].spec.internal)
            .min_by(|a, b| self.legs[*a].rank().cmp(&self.legs[*b].rank()))
    }

    fn free_ifname(&self) -> Result<IfName> {
        let used: Vec<&IfName> = self
            .legs
            .iter()
            .filter_map(|l| Some(&l.attachment.as_ref()?.ifname))
            .collect();
        (0..=used.len())
            .map(|n| IfName::new(format!("eth{n}")))
            .find(|name| name.as_ref().is_ok_and(|n| !used.contains(&n)))
            .unwrap_or_else(|| IfName::new("eth0"))
    }

    fn attach(
        &mut self,
        engine: &Engine,
        at: usize,
        default_route: bool,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let ifname = self.free_ifname()?;
        let leg = &self.legs[at];
        let mac = match (leg.config.request.mac, leg.addr) {
            (None, None) => Some(named_mac(&leg.spec, &self.hostname)),
            (mac, _) => mac,
        };
        let endpoint = Endpoint {
            id: super::launch::hex(&random::bytes::<32>()?),
            ifname,
            addr: leg.addr,
            mac,
            gateway: leg.gateway(),
            default_route,
        };
        let view = HostView::of(&leg.spec, &mut self.host)?;
        let Some(plan) = driver::plan(&leg.spec, endpoint, &view)? else {
            return Ok(());
        };
        let sandbox = self.sandbox.as_mut().ok_or_else(not_made)?;
        let netns = self.netns.as_ref().ok_or_else(not_made)?;
        let sysctl = self.sysctl.as_ref().ok_or_else(not_made)?;
        let attachment = plan.attach(&mut self.host, sandbox, netns, sysctl)?;
        if let (HostAccess::On { .. }, Some(IpAddr::V4(ip))) =
            (leg.spec.host_access, attachment.addr.map(Cidr::addr))
        {
            let shim = host_access::shim_name(&leg.spec.id);
            if self.host.link(shim.as_str())?.is_none() {
                engine.make_access(&leg.spec, &mut self.host)?;
            }
            host_access::add(
                &mut self.host,
                &leg.spec.id,
                &attachment.parent,
                ip,
                journal,
            )?;
        }
        self.announce(&attachment, &self.legs[at].spec.clone())?;
        self.legs[at].attachment = Some(attachment);
        Ok(())
    }

    /// The first announcement now, the rest from the loop.
    fn announce(&mut self, attachment: &Attachment, spec: &NetworkSpec) -> Result<()> {
        let (Some(IpAddr::V4(ip)), Some(netns)) =
            (attachment.addr.map(Cidr::addr), self.netns.as_ref())
        else {
            return Ok(());
        };
        if spec.announce.count == 0 {
            return Ok(());
        }
        let announcer = Announcer::new(netns, attachment.ifindex, attachment.mac, ip)?;
        // A failure to announce is no reason not to start.
        let _ = announcer.send();
        let left = spec.announce.count - 1;
        if left > 0 {
            let interval = spec.announce.interval();
            self.pending.push_back(Pending {
                ifname: attachment.ifname.clone(),
                announcer,
                left,
                interval,
                next: Instant::now() + interval,
            });
        }
        Ok(())
    }

    pub(super) fn publish(
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
        Ok(())
    }

    /// Ports are published on the default network, or else on the first.
    fn target(&self) -> Target {
        let leg = self
            .default_leg()
            .or((!self.legs.is_empty()).then_some(0))
            .and_then(|at| self.legs[at].attachment.as_ref());
        match leg {
            Some(a) => Target {
                parent: Some(a.parent.clone()),
                mac: a.mac,
                ip: match a.addr.map(Cidr::addr) {
                    Some(IpAddr::V4(ip)) => ip,
                    _ => Ipv4Addr::LOCALHOST,
                },
                mode: a.mode,
            },
            None => Target {
                parent: None,
                mac: MacAddr([0; 6]),
                ip: Ipv4Addr::LOCALHOST,
                mode: MacvlanMode::Bridge,
            },
        }
    }

    /// Fills in what the record says of a running container.
    pub(super) fn describe(&self, state: &mut State) {
        state.attachments = self
            .legs
            .iter()
            .filter_map(|l| l.attachment.clone())
            .collect();
        if let Some(publisher) = &self.publisher {
            state.ports = publisher.ports().to_vec();
            state.paths = publisher.paths();
        }
    }

    /// One more network, live.
    fn connect(
        &mut self,
        engine: &Engine,
        record: &mut Record,
        request: EndpointRequest,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let config = EndpointConfig {
            name: request.network.clone(),
            request,
            network: None,
            last: None,
        };
        let before = self.default_leg();
        let leg = self.leg(engine, config, journal)?;
        let addr = leg.addr;
        self.legs.push(leg);
        let at = self.legs.len() - 1;
        let default = self.default_leg();
        let made = self
            .move_default(before.filter(|_| default == Some(at)), None)
            .and_then(|()| self.attach(engine, at, default == Some(at), journal));
        if let Err(error) = made {
            self.legs.pop();
            let mut undo: Vec<Error> = Vec::new();
            undo.extend(addr.and_then(|a| engine.release(a).err()));
            undo.extend(
                self.move_default(None, before.filter(|_| default == Some(at)))
                    .err(),
            );
            return Err(error.with_undo(undo));
        }
        record
            .config
            .endpoints
            .retain(|e| !matches!(e.request.network.as_str(), "none"));
        record.config.endpoints.push(self.legs[at].config.clone());
        if let Some(addr) = addr {
            engine.add_host_line(record, addr)?;
        }
        Ok(())
    }

    fn disconnect(&mut self, engine: &Engine, record: &mut Record, network: &str) -> Result<()> {
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
        let leg = self.legs.remove(at);
        record
            .config
            .endpoints
            .retain(|e| e.network.as_ref() != Some(&leg.spec.id));
        let mut errors = Vec::new();
        if let (Some(attachment), Some(sandbox)) = (&leg.attachment, self.sandbox.as_mut()) {
            self.pending.retain(|p| p.ifname != attachment.ifname);
            errors.extend(driver::detach(attachment, sandbox).err());
            errors.extend(self.drop_route(attachment).err());
        }
        if let Some(addr) = leg.addr {
            errors.extend(engine.release(addr).err());
            errors.extend(engine.remove_host_line(record, addr).err());
        }
        // The kernel took the old default route with its link.
        errors.extend(self.move_default(None, self.default_leg()).err());
        match errors
            .into_iter()
            .reduce(|first, next| first.with_undo(vec![next]))
        {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn drop_route(&mut self, attachment: &Attachment) -> Result<()> {
        match attachment.addr.map(Cidr::addr) {
            Some(IpAddr::V4(ip)) => host_access::remove(
                &mut self.host,
                &host_access::shim_name(&attachment.network),
                ip,
            ),
            _ => Ok(()),
        }
    }

    /// Takes the default route from one leg and gives it to another; the
    /// route that is there already is fine.
    fn move_default(&mut self, from: Option<usize>, to: Option<usize>) -> Result<()> {
        let Some(sandbox) = self.sandbox.as_mut() else {
            return Ok(());
        };
        for (leg, add) in [(from, false), (to, true)] {
            let Some(leg) = leg.and_then(|at| self.legs.get(at)) else {
                continue;
            };
            let (Some(gateway), Some(attachment)) = (leg.gateway(), &leg.attachment) else {
                continue;
            };
            let Some(link) = sandbox.link(attachment.ifname.as_str())? else {
                continue;
            };
            if add {
                match sandbox.add_default(gateway, link.index) {
                    Err(e) if e.is_errno(libc::EEXIST) => {}
                    other => other?,
                }
            } else {
                sandbox.del_default(gateway, link.index)?;
            }
        }
        Ok(())
    }

    /// Takes everything back that does not die with the namespace.
    fn close(&mut self, engine: &Engine) -> Vec<Error> {
        let mut errors = Vec::new();
        if let Some(publisher) = self.publisher.take() {
            errors.extend(publisher.stop().err());
        }
        for leg in std::mem::take(&mut self.legs) {
            if let Some(attachment) = &leg.attachment
                && engine
                    .find_network(leg.spec.id.as_str())
                    .is_ok_and(|n| n.host_access != HostAccess::Off)
            {
                errors.extend(self.drop_route(attachment).err());
            }
            if let Some(addr) = leg.addr {
                errors.extend(engine.release(addr).err());
            }
        }
        errors
    }
}

/// For an interface without an address: a hash of machine, network and host
/// name, unicast and locally administered, so that it is the same each time.
fn named_mac(network: &NetworkSpec, hostname: &str) -> MacAddr {
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    // FNV-1a, 64 bits: not secret, only spread out and stable.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let name = [
        &machine,
        network.id.as_str().as_bytes(),
        hostname.as_bytes(),
    ];
    for byte in name.into_iter().flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    let [a, b, c, d, e, f, ..] = hash.to_be_bytes();
    MacAddr([(a & !1) | 2, b, c, d, e, f])
}

/// Everything of one running container, in its supervisor.
#[derive(Debug)]
pub(super) struct Owned {
    engine: Engine,
    record: Record,
    network: Network,
    cgroup: Option<Cgroup>,
    journal: FileJournal,
}

impl Owned {
    pub(super) fn new(
        engine: Engine,
        record: Record,
        network: Network,
        cgroup: Option<Cgroup>,
        journal: FileJournal,
    ) -> Self {
        Self {
            engine,
            record,
            network,
            cgroup,
            journal,
        }
    }

    pub(super) fn settings(&self, first_client: Option<OwnedFd>) -> Result<Settings> {
        let config = &self.record.config;
        let dirs = &self.engine.dirs;
        let (log_max_size, log_max_files) = super::logs::limits(&config.log_options)?;
        Ok(Settings {
            live: dirs.live(&self.record.id),
            log: dirs.log(&self.record.id),
            log_max_size,
            log_max_files,
            tty: config.tty,
            open_stdin: config.open_stdin,
            stop_signal: match &config.stop_signal {
                Some(signal) => super::signal::parse(signal)?,
                None => libc::SIGTERM,
            },
            stop_timeout_s: config.stop_timeout.unwrap_or(10),
            first_client,
        })
    }

    /// The loop failed: what the journal says is undone, and the next command
    /// finds a container that has ended.
    pub(super) fn abandon(&mut self) {
        let errors = self.network.close(&self.engine);
        let _ = self.kill_all();
        let journal = self.engine.dirs.journal(&self.record.id);
        let errors = errors.len() + gc::unwind(&journal).len();
        self.record.state.end(137);
        self.record.state.error =
            format!("its supervisor failed; {errors} problems while cleaning up");
        let _ = self.record.save(&self.engine.dirs);
    }

    fn save(&self) -> Result<()> {
        self.record.save_live(&self.engine.dirs)
    }

    /// The container has ended for good: nothing but its record (unless
    /// `--rm`) stays.
    fn finish(&mut self, code: i32) -> Result<()> {
        let id = self.record.id.clone();
        let dirs = self.engine.dirs.clone();
        let mut errors = self.network.close(&self.engine);
        if let Some(cgroup) = self.cgroup.take() {
            let folders = cgroup.folders().to_vec();
            drop(cgroup);
            errors.extend(crate::sys::cgroup::remove(&folders).err());
        }
        self.record.state.end(code);
        if self.record.config.auto_remove {
            errors.extend(self.engine.release_name(&self.record.name, &id).err());
            errors.extend(file::remove_tree(&dirs.container(&id)).err());
        } else {
            errors.extend(self.record.save(&dirs).err());
        }
        if errors.is_empty() {
            // Lock last: until it is gone, nobody may take the id for free.
            file::remove_tree(&dirs.live(&id))?;
            file::remove(&dirs.lock(&id))
        } else {
            // The journal stays for the next command.
            let first = errors.remove(0);
            Err(first.with_undo(errors))
        }
    }
}

impl Owner for Owned {
    fn register(&mut self, epoll: &Epoll) -> Result<()> {
        match &mut self.network.publisher {
            Some(publisher) => publisher.register(epoll, PUBLISH_BASE),
            None => Ok(()),
        }
    }

    fn ready(&mut self, key: u64, events: EpollFlags) -> Result<()> {
        match (&mut self.network.publisher, key.checked_sub(PUBLISH_BASE)) {
            (Some(publisher), Some(key)) => publisher.ready(key, events),
            _ => Ok(()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let announce = self.network.pending.iter().map(|p| p.next).min();
        let publish = self
            .network
            .publisher
            .as_ref()
            .and_then(Publisher::deadline);
        announce.into_iter().chain(publish).min()
    }

    fn on_time(&mut self, now: Instant) -> Result<()> {
        for pending in &mut self.network.pending {
            if pending.next <= now {
                let _ = pending.announcer.send();
                pending.left -= 1;
                pending.next = now + pending.interval;
            }
        }
        self.network.pending.retain(|p| p.left > 0);
        match &mut self.network.publisher {
            Some(publisher) if publisher.deadline().is_some_and(|d| d <= now) => {
                publisher.on_time(now)
            }
            _ => Ok(()),
        }
    }

    fn command(&mut self, verb: &str, body: Value, _fds: Vec<OwnedFd>) -> Result<Value> {
        let parse = |e: serde_json::Error| Error::parse("read request", verb, e);
        match verb {
            "connect" => {
                let request: EndpointRequest = serde_json::from_value(body).map_err(parse)?;
                self.network
                    .connect(&self.engine, &mut self.record, request, &mut self.journal)?;
            }
            "disconnect" => {
                let network: String = serde_json::from_value(body).map_err(parse)?;
                self.network
                    .disconnect(&self.engine, &mut self.record, &network)?;
            }
            "rename" => {
                let name: ContainerName = serde_json::from_value(body).map_err(parse)?;
                self.record.name = name;
            }
            _ => {
                return Err(Error::invalid(format!(
                    "the supervisor knows no request \"{verb}\""
                )));
            }
        }
        self.network.describe(&mut self.record.state);
        self.save()?;
        Ok(Value::Null)
    }

    fn exited(&mut self, status: ExitStatus, restart: bool) -> Result<()> {
        if restart {
            self.record.state.restarts += 1;
            return Ok(());
        }
        self.finish(status.code())
    }

    fn relaunch(&mut self) -> Result<Running> {
        let token = SingleThreaded::prove()?;
        let spec = self.engine.launch_spec(&self.record)?;
        let mut cloned = launch::clone(
            &token,
            &spec,
            self.cgroup.as_ref(),
            self.record.config.open_stdin,
        )?;
        cloned.join(self.network.netns()?)?;
        let running = cloned.go()?;
        let state = &mut self.record.state;
        state.pid = running.pid;
        state.status = Status::Running;
        state.started = super::rfc3339(std::time::SystemTime::now());
        self.save()?;
        Ok(running)
    }

    fn pause(&mut self, on: bool) -> Result<()> {
        let name = &self.record.name;
        let Some(cgroup) = &self.cgroup else {
            return Err(Error::invalid(format!(
                "Cannot pause container {name}: it has no cgroup here"
            ))
            .hint("the cgroup file systems are not writable for this user"));
        };
        let is = self.record.state.status == Status::Paused;
        if is == on {
            let text = if on {
                "is already paused"
            } else {
                "is not paused"
            };
            return Err(Error::conflict(format!("Container {name} {text}")));
        }
        cgroup.freeze(on)?;
        self.record.state.status = if on { Status::Paused } else { Status::Running };
        self.save()
    }

    fn kill_all(&mut self) -> Result<()> {
        match &self.cgroup {
            Some(cgroup) => cgroup.kill(),
            None => Ok(()),
        }
    }
}
