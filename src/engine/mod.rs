//! Use cases: one verb each, the only place where networks, containers and
//! images meet.
//!
//! *Theory of operation.* No daemon: whoever changes a container holds its
//! lock, a supervisor for as long as its container runs. A verb on a running
//! container is a message to its supervisor; on any other it takes the lock
//! and does the work itself. A lock without a holder is a dead process's, and
//! the next verb recovers (see `gc`).

mod access;
mod brief;
mod conflicts;
mod connect;
mod counters;
mod create;
mod dhcp;
mod dhcp6;
mod doctor;
mod etc;
mod events;
mod explain;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gc;
mod hold;
mod index;
mod inspect;
mod ip6;
mod launch;
mod lease;
mod listing;
mod logs;
mod lost;
mod machine;
mod mdns;
mod names;
mod networks;
mod owner;
mod parent_wait;
mod parents;
mod record;
mod rename;
mod replace;
pub mod request;
mod reserve;
mod resolv_conf;
mod roster;
mod set;
mod signal;
mod size;
mod stats;
pub mod view;

use std::os::fd::AsFd;
use std::time::Duration;
use std::time::SystemTime;

use crate::base::{Cause, ContainerId, Error, NetworkId, Result};
use crate::container::exec::{self, ExecStdio};
use crate::container::interact::interact;
use crate::container::logs::{self as container_logs, Query};
use crate::container::spec::ProcessSpec;
use crate::sys::process::SingleThreaded;

pub use crate::container::init::docker_init;
use counters::Counters;
pub use hold::Leaving;
use hold::{Found, Held};
pub use listing::Listing;
use record::{KILLED, Record, Status};
pub use request::*;
pub use stats::{LinkUsage, Sample};

/// All verbs. Cheap to make; opens nothing.
#[derive(Clone, Debug)]
pub struct Engine {
    dirs: Dirs,
}

/// What `network create` gives back.
#[derive(Debug)]
pub struct NetworkMade {
    pub id: NetworkId,
    pub warnings: Vec<String>,
}

/// What `run` gives back.
#[derive(Debug)]
pub struct Run {
    pub id: ContainerId,
    pub client: Option<Client>,
    pub relay: Relay,
    pub warnings: Vec<String>,
}

/// What `start` gives back.
#[derive(Debug, Default)]
pub struct Started {
    pub client: Option<Client>,
    pub warnings: Vec<String>,
}

impl Engine {
    pub fn new(dirs: Dirs) -> Self {
        Self { dirs }
    }

    fn record(&self, id: &ContainerId) -> Result<Record> {
        Record::load(&self.dirs, id)?.ok_or_else(|| missing(id))
    }

    // --- networks: `wanted` is an id, a name or an id prefix, in that order

    pub fn network_create(&self, request: NetworkCreate) -> Result<NetworkMade> {
        self.create_network(request)
    }

    /// Sorted by name; the predefined `host` and `none` included.
    pub fn networks(&self) -> Result<Listing<view::Network>> {
        let found = self.refresh()?;
        let all = self.all_networks()?;
        let live = self.members(&found.held)?;
        let mut problems = found.problems;
        problems.extend(all.problems);
        let all = all.items;
        let views = all
            .iter()
            .map(|network| self.describe_network(network, &live, &all))
            .collect::<Result<_>>()?;
        Ok(Listing {
            items: views,
            problems,
        })
    }

    pub fn network(&self, wanted: &str) -> Result<view::Network> {
        let found = self.refresh()?;
        let network = self.find_network(wanted)?;
        let all = self.all_networks()?.items;
        let members = self.members(&found.held)?;
        let mut view = self.describe_network(&network, &members, &all)?;
        view.dockless.parent = Self::describe_parent(&network)?;
        Ok(view)
    }

    pub fn network_remove(&self, wanted: &str) -> Result<()> {
        self.make_folders()?;
        self.remove_network_of(wanted)
    }

    /// Names of what was removed: every network of ours that `filter` takes
    /// and on which no container runs.
    pub fn network_prune(
        &self,
        filter: &dyn Fn(&view::Network) -> bool,
    ) -> Result<Listing<String>> {
        self.make_folders()?;
        let networks = self.networks()?;
        let mut removed = Listing {
            items: Vec::new(),
            problems: networks.problems,
        };
        for network in networks.items {
            if network.is_predefined() || !network.containers.is_empty() || !filter(&network) {
                continue;
            }
            let spec = self.find_network(&network.id)?;
            match self.remove_network(&spec) {
                Ok(()) => removed.items.push(network.name),
                // Somebody has just started a container on it.
                Err(e) if matches!(e.cause, Cause::Conflict(_)) => {}
                Err(e) => removed.problems.push(e),
            }
        }
        Ok(removed)
    }

    /// Gives back what somebody should know, though it was done.
    pub fn host_access(&self, network: &str, access: HostAccess) -> Result<Vec<String>> {
        self.change_access(network, access)
    }

    // --- containers: `wanted` is an id, a name or an id prefix

    /// Makes and starts a container. With `detach` off, `Run::client` is a
    /// connection that has missed no output.
    /// `made` is told when there is a container, started or not.
    pub fn run(&self, request: RunRequest, made: &mut dyn FnMut(&ContainerId)) -> Result<Run> {
        logs::limits(&request.log_options)?;
        let attach = !request.detach;
        let relay = Relay {
            stdin: request.interactive,
            stdout: true,
            stderr: true,
            tty: request.tty,
            sig_proxy: request.sig_proxy,
            detach_keys: request.detach_keys,
        };
        let problems = self.prepare()?.problems;
        let (record, lock) = self.create(request)?;
        made(&record.id);
        let launched = self.launch(&record, lock, attach)?;
        let mut warnings = launched.warnings;
        warnings.extend(problems.iter().map(Error::to_string));
        Ok(Run {
            id: record.id,
            client: launched.client,
            relay,
            warnings,
        })
    }

    pub fn start(&self, wanted: &str, attach: bool) -> Result<Started> {
        self.prepare()?;
        let id = self.find(wanted)?;
        match self.hold(&id)? {
            // Docker: starting what runs is no error.
            Held::Live(client) => Ok(Started {
                client: attach.then_some(client),
                warnings: Vec::new(),
            }),
            Held::Still(record, lock) => {
                let launched = self.launch(&record, lock, attach)?;
                Ok(Started {
                    client: launched.client,
                    warnings: launched.warnings,
                })
            }
        }
    }

    pub fn stop(&self, wanted: &str, signal: Option<&str>, timeout_s: Option<i64>) -> Result<()> {
        let signal = signal.map(signal::parse).transpose()?;
        let id = self.find(wanted)?;
        let stop = |client: &mut Client| client.stop(signal, timeout_s);
        self.ask_or(&id, stop, |_, lock| lock.unlink())
    }

    pub fn restart(
        &self,
        wanted: &str,
        signal: Option<&str>,
        timeout_s: Option<i64>,
    ) -> Result<()> {
        let signal = signal.map(signal::parse).transpose()?;
        self.prepare()?;
        let id = self.find(wanted)?;
        let restart = |client: &mut Client| client.restart(signal, timeout_s);
        self.ask_or(&id, restart, |record, lock| {
            self.launch(&record, lock, false).map(drop)
        })
    }

    pub fn kill(&self, wanted: &str, signal: &str) -> Result<()> {
        let signal = signal::parse(signal)?;
        let id = self.find(wanted)?;
        let kill = |client: &mut Client| {
            client.signal(signal)?;
            if signal != libc::SIGKILL {
                return Ok(());
            }
            // Docker returns when it is dead, so that `rm` works next.
            match client.wait() {
                Err(e) if e.is_errno(libc::ECONNRESET) => Ok(()),
                other => other.map(drop),
            }
        };
        self.ask_or(&id, kill, |_, lock| {
            lock.unlink()?;
            Err(Error::conflict(format!(
                "cannot kill container: {wanted}: container {id} is not running"
            )))
        })
    }

    pub fn pause(&self, wanted: &str, on: bool) -> Result<()> {
        let id = self.find(wanted)?;
        self.ask_or(
            &id,
            |client| client.pause(on),
            |_, lock| {
                lock.unlink()?;
                Err(match on {
                    true => self.not_running(&id.to_string(), &id),
                    false => Error::conflict(format!("Container {id} is not paused")),
                })
            },
        )
    }

    pub fn wait(&self, wanted: &str) -> Result<i32> {
        let id = self.find(wanted)?;
        let mut is_waiting = false;
        let wait = |client: &mut Client| {
            // Whoever has had an answer while it runs will be told its end.
            is_waiting |= client.state().is_ok();
            Ok(client.wait()?.code())
        };
        let ended = self.ask_or(&id, wait, |record, lock| {
            self.leave_ended(&record, lock)?;
            Ok(record.state.exit_code)
        });
        match ended {
            // It ended unseen, and has been removed since.
            Err(e) if is_waiting && is_not_found(&e) => Ok(KILLED),
            ended => ended,
        }
    }

    /// How a container ended whose supervisor has gone without saying it: the
    /// exit code, and why. Cleans up after it, as the next command would.
    /// `None`: it runs.
    pub fn unseen_end(&self, id: &ContainerId) -> Result<Option<(i32, String)>> {
        let lives = |client: &mut Client| client.state().map(|_| None);
        let ended = self.ask_or(id, lives, |record, lock| {
            self.leave_ended(&record, lock)?;
            Ok(Some((record.state.exit_code, record.state.error)))
        });
        match ended {
            Err(e) if is_not_found(&e) => Ok(Some((KILLED, record::UNSEEN.to_owned()))),
            // Killed between its last note and its last word.
            Ok(Some((code, why))) if why.is_empty() => Ok(Some((code, record::UNSEEN.to_owned()))),
            ended => ended,
        }
    }

    /// Supervisors that this ends are still closing their sockets when it
    /// returns: they are added to `leaving`.
    pub fn remove(&self, wanted: &str, force: bool, leaving: &mut Leaving) -> Result<()> {
        self.make_folders()?;
        let id = self.find(wanted)?;
        loop {
            let found = match self.hold_any(&id) {
                // A full disk keeps its end from being recorded; to be removed
                // it need not be.
                Err(full) if matches!(full.errno(), Some(libc::ENOSPC | libc::EDQUOT)) => {
                    match self.dirs.roll().try_acquire(&id)? {
                        Some(lock) => return self.discard_damaged(&id, lock),
                        None => return Err(full),
                    }
                }
                found => found?,
            };
            match found {
                Found::Held(Held::Live(mut client)) => {
                    let record = self.record(&id);
                    if !force {
                        return Err(not_removable(&record?));
                    }
                    leaving.add(client.supervisor());
                    match client.end() {
                        Err(e) if e.is_errno(libc::ECONNRESET) => {}
                        other => other?,
                    }
                    if record.is_ok_and(|r| r.config.auto_remove) {
                        return Ok(());
                    }
                }
                Found::Held(Held::Still(record, lock)) => {
                    self.discard(&record)?;
                    self.note(&[events::of_container(&record, "destroy", &[])]);
                    return lock.unlink();
                }
                Found::Damaged(_, lock) => return self.discard_damaged(&id, lock),
            }
        }
    }

    /// Attaches to a running container.
    pub fn attach(&self, wanted: &str) -> Result<Client> {
        Ok(self.live(wanted)?.1)
    }

    /// Newest first; stopped ones too with `all`.
    pub fn containers(&self, all: bool) -> Result<Listing<view::Summary>> {
        let gc::Recovered {
            mut problems, held, ..
        } = self.refresh()?;
        let found = self.parts::<brief::Line>(&held)?;
        for problem in found.problems {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        let mut lines = found.items;
        lines.retain(|line| all || line.state.status.is_live());
        lines.sort_by(|a, b| b.created.cmp(&a.created));
        Ok(Listing {
            items: lines.into_iter().map(|line| self.summarize(line)).collect(),
            problems,
        })
    }

    pub fn container(&self, wanted: &str) -> Result<view::Container> {
        self.refresh()?;
        let id = self.find(wanted)?;
        let record = self.truth(&id)?;
        let mut record = record.ok_or_else(|| missing(&id))?;
        // Which way a port takes depends on what listens now.
        let (has_ports, counts) = (!record.state.paths.is_empty(), Counters::exist(&record));
        let mut counters = Counters::default();
        if record.state.status.is_live()
            && (has_ports || counts)
            && let Ok(Some(mut client)) = Client::connect(&self.dirs.live(&id))
            && client.patience(Duration::from_secs(1)).is_ok()
        {
            if has_ports && client.command("look", serde_json::Value::Null, &[]).is_ok() {
                record = self.record(&id)?;
            }
            if counts {
                counters = Counters::ask(&mut client).unwrap_or_default();
            }
        }
        let attachments = record.state.attachments.iter();
        let networks: Vec<_> = attachments
            .filter_map(|a| self.find_network(a.network.as_str()).ok())
            .collect();
        let mut view = self.describe(&record, &networks)?;
        counters.show(&mut view);
        Ok(view)
    }

    /// To be called first of all by a program that is about to [`Engine::exec`]:
    /// executes it once more, so that the container cannot reach its file.
    pub fn protect_own_file() -> Result<()> {
        crate::sys::own_file::protect()
    }

    /// Runs it and waits, or returns at once with `detach`. The exit status is
    /// the process's.
    pub fn exec(&self, wanted: &str, request: ExecRequest) -> Result<Option<ExitStatus>> {
        let (id, init) = self.ask_live(wanted, Client::pidfd)?;
        let record = self.record(&id)?;
        if record.state.status == Status::Paused {
            return Err(Error::conflict(format!(
                "container {wanted} is paused, unpause the container before exec"
            )));
        }
        let process = ProcessSpec {
            argv: request.argv,
            env: create::process_env(&record, request.tty, &request.env),
            cwd: request
                .workdir
                .unwrap_or_else(|| record.config.workdir.clone()),
            user: request.user.unwrap_or_else(|| record.config.user.clone()),
            tty: request.tty,
            size: launch::window(),
            no_new_privs: false,
        };
        let stdio = match request.detach {
            true => ExecStdio::Null,
            false => ExecStdio::Attached {
                stdin: request.interactive,
            },
        };
        let token = SingleThreaded::prove()?;
        let running = exec::spawn(&token, &init, &record.state.cgroup, &process, stdio)?;
        if request.detach {
            return Ok(None);
        }
        let keys = request.tty.then_some(request.detach_keys);
        interact(&token, running, keys)
    }

    /// Writes the log to `out`/`err`.
    pub fn logs(
        &self,
        wanted: &str,
        request: &LogsRequest,
        out: &mut dyn std::io::Write,
        err: &mut dyn std::io::Write,
    ) -> Result<()> {
        let id = self.find(wanted)?;
        let query = Query {
            follow: request.follow,
            tail: request.tail,
            since: request.since,
            until: request.until,
            timestamps: request.timestamps,
        };
        // Asked before the log is opened: an end in between is not missed.
        let client = match query.follow {
            true => Client::connect(&self.dirs.live(&id))?,
            false => None,
        };
        let client = client
            .map(|mut client| client.announce_end().map(|()| client))
            .transpose()?;
        let ended = client.as_ref().map(AsFd::as_fd);
        container_logs::read(&self.dirs.log(&id), &query, ended, out, err)
    }

    // --- the machine

    pub fn info(&self) -> Result<view::Info> {
        self.describe_machine()
    }

    /// What the journals of dead processes left, undone, and the tester images
    /// of former binaries. One line each.
    pub fn gc(&self) -> Result<Listing<String>> {
        let mut found = self.collect()?;
        self.prune_images(&mut found)?;
        Ok(Listing {
            items: found.did,
            problems: found.problems,
        })
    }
}

fn missing(id: &ContainerId) -> Error {
    Error::not_found(format!("No such container: {id}"))
}

fn is_not_found(error: &Error) -> bool {
    matches!(error.cause, Cause::NotFound(_))
}

fn not_removable(record: &Record) -> Error {
    let what = record.state.status.as_str();
    let cure = if record.state.status == Status::Paused {
        "unpause and then stop the container before removal or force remove"
    } else {
        "stop the container before removal or force remove"
    };
    Error::conflict(format!(
        "cannot remove container \"{}\": container is {what}: {cure}",
        record.name
    ))
}

/// When something happened, as Docker prints it (RFC 3339 with nanoseconds).
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_nanos(time).to_string()
}
