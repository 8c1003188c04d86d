//! What the supervisor's loop asks of the engine: the container's networks,
//! ports, cgroup and record, owned by the one process that may change them
//! while the container runs.

use std::os::fd::OwnedFd;
use std::time::Instant;

use serde_json::Value;

use super::counters::Counters;
use super::launch::Report;
use super::record::{KILLED, Record, Status};
use super::set::Change;
use super::stats::Usage;
use super::{EndpointRequest, Engine, events};
use crate::base::{Cidr, ContainerName, Error, NetworkId, Result};
use crate::container::launch::{self, Running};
use crate::container::supervisor::{Owner, Settings};
use crate::net::publish::Publisher;
use crate::net::spec::NetworkSpec;
use crate::netlink::trace;
use crate::store::{FileJournal, file};
use crate::sys::cgroup::Cgroup;
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::process::{self, ExitStatus, SingleThreaded};

mod bells;
mod claims;
mod dhcp;
mod dhcp6;
mod guard;
mod ip6;
mod legs;
mod links;
mod live;
mod mdns;
mod names;
mod network;
mod notes;
mod rates;
mod readdress;
mod routing;
pub(super) mod sandbox;
mod set;
pub(super) mod taken;

pub(super) use claims::Taken;
pub(super) use legs::check_families;
pub(super) use network::{BURIAL, GLANCE, Network};
pub(super) use routing::{Question, Routing, of_lease};

/// The publisher's keys, apart from any other of the owner's.
const PUBLISH_BASE: u64 = 1 << 40;
/// The resolver's.
const NAMES_BASE: u64 = 1 << 41;
/// Those of the claims to addresses: plus the interface's index.
const CLAIMS_BASE: u64 = 1 << 42;
/// The eye on the host's links.
const LINKS_KEY: u64 = 1 << 39;
/// Those of DHCP clients, above all others: some for each interface, by its
/// index.
const DHCP_BASE: u64 = 1 << 43;

/// Where IPv6 is the LAN's.
const WATCH6: u64 = 1 << 44;

/// Those of DHCPv6 clients: some for each interface, by its index.
const DHCP6_BASE: u64 = 1 << 45;

/// Where names are told to LANs: some for each interface, by its index.
const MDNS_BASE: u64 = 1 << 46;

/// Everything of one running container, in its supervisor.
#[derive(Debug)]
pub(super) struct Owned {
    engine: Engine,
    record: Record,
    network: Network,
    cgroup: Option<Cgroup>,
    journal: FileJournal,
    /// To the command that waits for the start.
    report: Option<OwnedFd>,
    /// The loop's, once it runs.
    epoll: Option<Epoll>,
    /// A change went wrong: there may be more to undo than we know of.
    doubtful: bool,
    /// Ended in good order: nothing is left but files.
    finished: bool,
    /// Its end was asked for.
    stopped: bool,
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
            report: None,
            epoll: None,
            doubtful: false,
            finished: false,
            stopped: false,
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

    /// Who is to learn of the outcome, once.
    pub(super) fn report_to(&mut self, command: OwnedFd) {
        self.report = Some(command);
    }

    /// The loop failed: what the journal says is undone. A command that still
    /// waits for the start does the rest; else the record says why.
    pub(super) fn abandon(&mut self, why: Error) -> Result<bool> {
        // Or it has ended before, and been told of: what failed is to clean up.
        let ran = self.record.state.status.is_live();
        let mut happened = vec![events::of_end(&self.record, KILLED)];
        happened.extend(self.network.events("disconnect"));
        let mut errors = self.network.close(&self.engine);
        errors.extend(self.kill_all().err());
        drop(self.cgroup.take());
        errors.extend(self.engine.unwind(&self.record.id));
        if let Some(report) = self.report.take() {
            super::launch::send(&report, &Report::Failed(why.with_undo(errors)));
            return Ok(false);
        }
        if ran {
            self.record.state.end(KILLED);
            self.engine.note(&happened);
        }
        self.record.state.error = format!("its supervisor failed: {why}");
        errors.extend(self.record.save(&self.engine.dirs).err());
        // A container that must go is the next command's.
        self.finished = errors.is_empty() && !self.record.config.auto_remove;
        self.clear_away()
    }

    fn save(&self) -> Result<()> {
        self.record.save_live(&self.engine.dirs)
    }

    /// The container has ended for good: nothing but its record (unless
    /// `--rm`) stays. The journal goes before the address and the ports do:
    /// whoever gets them next must not be taken for us.
    fn finish(&mut self, code: i32) -> Result<()> {
        let dirs = self.engine.dirs.clone();
        let id = &self.record.id;
        let leases = self.network.leases();
        if self.record.config.auto_remove {
            self.network.give_leases_back(&self.engine);
        }
        let mut happened = vec![events::of_end(&self.record, code)];
        happened.extend(self.network.events("disconnect"));
        let mut errors = self.network.close(&self.engine);
        if let Some(cgroup) = self.cgroup.take() {
            let folders = cgroup.folders().to_vec();
            drop(cgroup);
            errors.extend(crate::sys::cgroup::remove(&folders).err());
        }
        if self.doubtful {
            errors.extend(self.engine.unwind(id));
        }
        if errors.is_empty() {
            errors.extend(file::remove(&dirs.journal(id)).err());
        }
        if errors.is_empty() && self.doubtful {
            errors.extend(self.engine.release_all(id).err());
        } else if errors.is_empty() {
            // By name: the others' leases need not be read, however many.
            let release =
                |(network, addr): (NetworkSpec, Cidr)| self.engine.release(&network, addr).err();
            errors.extend(leases.into_iter().filter_map(release));
        }
        self.network.publisher = None;
        self.record.state.end(code);
        if self.record.config.auto_remove {
            errors.extend(self.engine.retire(&self.record).err());
        } else {
            errors.extend(self.record.save(&dirs).err());
        }
        if self.stopped {
            happened.push(events::of_container(&self.record, "stop", &[]));
        }
        if self.record.config.auto_remove {
            happened.push(events::of_container(&self.record, "destroy", &[]));
        }
        self.engine.note(&happened);
        if errors.is_empty() {
            self.finished = true;
            Ok(())
        } else {
            // What has not been undone is the next command's.
            let first = errors.remove(0);
            Err(first.with_undo(errors))
        }
    }

    fn note(&self, action: &str, more: &[(&str, &str)]) {
        let event = events::of_container(&self.record, action, more);
        self.engine.note(&[event]);
    }

    /// What nobody needs to wait for: deleting files, once every client has
    /// been told. Killed on the way, it leaves the rest to the next command;
    /// `false`: what is to be undone is that one's, too.
    pub(super) fn clear_away(&self) -> Result<bool> {
        if self.finished {
            self.engine.clear_away(&self.record.id)?;
        }
        Ok(self.finished)
    }

    pub(super) fn leave(self) -> ! {
        self.network.bury()
    }
}

impl Owned {
    /// Serves what a change of networks has brought: published ports that
    /// lead elsewhere, the first network's names.
    fn poll_services(&mut self) -> Result<()> {
        let Some(epoll) = &self.epoll else {
            return Ok(());
        };
        if let Some(publisher) = &mut self.network.publisher
            && !publisher.is_registered()
        {
            publisher.register(epoll, PUBLISH_BASE)?;
        }
        self.network.register_dhcp(epoll)?;
        self.network.register_dhcp6(epoll)?;
        self.network.register_claims(epoll)?;
        self.network.watch_links();
        self.network.register_watch6(epoll)?;
        self.network.follow_mdns();
        self.network.register_mdns(epoll)?;
        match &mut self.network.names {
            Some(names) if !names.resolver.is_registered() => {
                names.resolver.register(epoll, NAMES_BASE)
            }
            _ => Ok(()),
        }
    }

    /// What is not recorded has not happened.
    fn connect(&mut self, request: EndpointRequest) -> Result<()> {
        let conflicts = self.record.state.conflicts.clone();
        let (engine, journal) = (&self.engine, &mut self.journal);
        self.network
            .connect(engine, &mut self.record, request, journal)?;
        let Err(error) = self.note_network() else {
            self.network
                .note_last(&self.engine, &self.record, &conflicts);
            self.network.keep(&self.engine);
            return Ok(());
        };
        let last = self.network.last_network();
        let undone = last.map_or(Ok(()), |network| self.disconnect(&network));
        Err(error.with_undo(undone.err().into_iter().collect()))
    }

    /// The record goes first: where it cannot be written, nothing happens.
    fn disconnect(&mut self, network: &NetworkId) -> Result<()> {
        let before = self.record.clone();
        let event = self.network.event_of(network, "disconnect");
        let Record { config, state, .. } = &mut self.record;
        state.attachments.retain(|a| a.network != *network);
        config
            .endpoints
            .retain(|e| e.network.as_ref() != Some(network));
        if let Err(error) = self.save() {
            self.record = before;
            return Err(error);
        }
        let left = self.network.disconnect(
            &self.engine,
            &mut self.record,
            network.as_str(),
            &mut self.journal,
        );
        if self.network.is_on(network) {
            self.record = before;
        } else {
            self.engine.note(event.as_slice());
        }
        match (left, self.note_network()) {
            (Err(error), noted) => Err(error.with_undo(noted.err().into_iter().collect())),
            (Ok(()), noted) => noted,
        }
    }

    /// Whoever asks has made the new name a link to this container; but it may
    /// have been killed since, and the name be somebody else's.
    fn rename(&mut self, name: ContainerName) -> Result<()> {
        self.engine.still_claims(&name, &self.record.id)?;
        self.network.rename(&self.engine, &name)?;
        let old = std::mem::replace(&mut self.record.name, name);
        self.note_network().map_err(|error| {
            let undone = self.network.rename(&self.engine, &old);
            self.record.name.clone_from(&old);
            self.network.follow_mdns();
            error.with_undo(undone.err().into_iter().collect())
        })?;
        self.note("rename", &[("oldName", old.as_str())]);
        Ok(())
    }

    /// Records where the container is and what leads to it.
    fn note_network(&mut self) -> Result<()> {
        let polled = self.poll_services();
        self.network.describe(&mut self.record.state);
        polled.and(self.save())
    }

    /// Somebody else claims an address of ours.
    fn contradicted(&mut self, key: u64) -> Result<()> {
        let Some(epoll) = &self.epoll else {
            return Ok(());
        };
        let state = &mut self.record.state;
        let Some(conflict) = self.network.contradicted(key, epoll, state)? else {
            return Ok(());
        };
        let event = events::of_conflict(&self.record, &conflict);
        self.engine.note(&[event]);
        self.save()
    }

    /// Records that a published port goes another way than before.
    fn note_paths(&mut self) -> Result<()> {
        let publisher = self.network.publisher.as_mut();
        if publisher.is_some_and(Publisher::take_changed) {
            self.network.describe(&mut self.record.state);
            self.save()?;
        }
        Ok(())
    }
}

impl Owner for Owned {
    fn register(&mut self, epoll: &Epoll) -> Result<()> {
        self.epoll = Some(epoll.try_clone()?);
        self.poll_services()?;
        // From now on nothing keeps the container from being served.
        self.network.keep(&self.engine);
        if let Some(report) = self.report.take() {
            if trace::is_on_stderr() {
                process::null_streams()?;
            }
            let warnings = self.network.take_warnings();
            super::launch::send(&report, &Report::Started { warnings });
        }
        Ok(())
    }

    fn ready(&mut self, key: u64, events: EpollFlags) -> Result<()> {
        if let Some(key) = key.checked_sub(MDNS_BASE) {
            self.network.mdns_ready(key);
            return self.note_mdns();
        }
        if let Some(key) = key.checked_sub(DHCP6_BASE) {
            return self.dhcp6_ready(key);
        }
        if key == WATCH6 {
            return self.lan6_ready();
        }
        if let Some(key) = key.checked_sub(DHCP_BASE) {
            return self.dhcp_ready(key);
        }
        if key == LINKS_KEY {
            return self.links_changed();
        }
        if key >= CLAIMS_BASE {
            return self.contradicted(key);
        }
        if let (Some(names), Some(key)) = (&mut self.network.names, key.checked_sub(NAMES_BASE)) {
            return names.resolver.ready(key, events, &mut names.roster);
        }
        match (&mut self.network.publisher, key.checked_sub(PUBLISH_BASE)) {
            (Some(publisher), Some(key)) => {
                let served = publisher.ready(key, events);
                self.note_paths().and(served)
            }
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
        let names = self.network.names.as_ref();
        let names = names.and_then(|names| names.resolver.deadline());
        let claims = self.network.claims_deadline();
        let links = self.network.links.deadline();
        let lan6 = self.network.lan6_deadline();
        let mdns = self.network.mdns_deadline();
        let all = [announce, publish, names, claims, links, lan6, mdns];
        all.into_iter().flatten().min()
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
        if let Some(epoll) = &self.epoll {
            self.network.claims_on_time(now, epoll)?;
        }
        if self.network.links.deadline().is_some_and(|at| at <= now) {
            self.links_changed()?;
        }
        if self.network.lan6_deadline().is_some_and(|at| at <= now) {
            self.lan6_on_time(now)?;
        }
        if self.network.mdns_deadline().is_some_and(|at| at <= now) {
            self.network.mdns_on_time(now);
            self.note_mdns()?;
        }
        if let Some(names) = &mut self.network.names {
            names.resolver.on_time(now, &mut names.roster);
        }
        match &mut self.network.publisher {
            Some(publisher) if publisher.deadline().is_some_and(|d| d <= now) => {
                let served = publisher.on_time(now);
                self.note_paths().and(served)
            }
            _ => Ok(()),
        }
    }

    fn rest(&mut self) {
        self.network.rest_claims();
    }

    fn command(&mut self, verb: &str, body: Value, _fds: Vec<OwnedFd>) -> Result<Value> {
        let parse = |e: serde_json::Error| Error::parse("read request", verb, e);
        if verb == Usage::VERB {
            return serde_json::to_value(self.network.usage()?).map_err(parse);
        }
        if verb == Counters::VERB {
            let counters = self.network.counters()?;
            return serde_json::to_value(counters).map_err(parse);
        }
        if verb == routing::Routing::VERB {
            let question = serde_json::from_value(body).map_err(parse)?;
            return serde_json::to_value(self.network.routing(question)?).map_err(parse);
        }
        match verb {
            "connect" => self.connect(serde_json::from_value(body).map_err(parse)?),
            "disconnect" => self.disconnect(&serde_json::from_value(body).map_err(parse)?),
            Change::VERB => self.set(&serde_json::from_value(body).map_err(parse)?),
            "rename" => self.rename(serde_json::from_value(body).map_err(parse)?),
            "look" => {
                if let Some(publisher) = &mut self.network.publisher {
                    publisher.look(true)?;
                }
                self.note_paths()
            }
            _ => Err(Error::invalid(format!(
                "the supervisor knows no request \"{verb}\""
            ))),
        }
        .map(|()| self.network.take_warnings().into())
        .inspect_err(|_| self.doubtful = true)
    }

    fn exited(&mut self, status: ExitStatus, restart: bool) -> Result<()> {
        if restart {
            let stop = events::of_container(&self.record, "stop", &[]);
            let died = events::of_end(&self.record, status.code());
            self.engine.note(&[died, stop]);
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
        let running = cloned.go(|| ())?;
        let state = &mut self.record.state;
        state.pid = running.pid;
        state.status = Status::Running;
        state.started = super::rfc3339(std::time::SystemTime::now());
        if let Some(publisher) = &mut self.network.publisher {
            publisher.restarted();
        }
        self.save()?;
        let happened = ["start", "restart"].map(|a| events::of_container(&self.record, a, &[]));
        self.engine.note(&happened);
        self.stopped = false;
        Ok(running)
    }

    fn signalled(&mut self, signal: i32, stop: bool) {
        self.stopped |= stop;
        self.note("kill", &[("signal", &signal.to_string())]);
    }

    fn not_relaunched(&mut self, why: &Error) -> ExitStatus {
        self.record.state.error = why.to_string();
        ExitStatus::Code(super::launch::failed_code(why))
    }

    fn pause(&mut self, on: bool) -> Result<()> {
        let (name, id) = (&self.record.name, &self.record.id);
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
            return Err(Error::conflict(format!("Container {id} {text}")));
        }
        cgroup.freeze(on)?;
        self.record.state.status = if on { Status::Paused } else { Status::Running };
        self.note(if on { "pause" } else { "unpause" }, &[]);
        self.save()
    }

    fn kill_all(&mut self) -> Result<()> {
        match &self.cgroup {
            Some(cgroup) => cgroup.kill(),
            None => Ok(()),
        }
    }
}
