//! Start of a container: the command forks a supervisor, which makes the
//! network, clones the container into it and then stays.
//!
//! *Theory of operation.* The command holds the container's lock and hands it
//! to the fork; whatever the supervisor does is written to the `started`
//! journal first. Meanwhile the command makes the network namespace for it. The
//! child is cloned before the network exists, so that its mounts (one core) and
//! the netlink work (another) overlap; it waits for the namespace's fd before
//! it mounts /sys, and for Go before it execs. The command learns of the outcome
//! through a SEQPACKET pair: one message, or end of file if the supervisor was
//! killed; then the command itself recovers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::Engine;
use super::events;
use super::owner::{Network, Owned, Taken, sandbox};
use super::record::{Record, Status};
use crate::base::{Cause, Error, Journal, Result, Step};
use crate::container::attach::{self, Client};
use crate::container::launch::{self, Running};
use crate::container::spec::{LaunchSpec, ProcessSpec, RootfsSpec};
use crate::container::supervisor;
use crate::image::tester;
use crate::net::acd;
use crate::netlink::trace;
use crate::store::{FileJournal, Lock, file};
use crate::sys::cgroup::{Cgroup, Hierarchies};
use crate::sys::process::{self, Fork, SingleThreaded};
use crate::sys::{fd, random};

/// What the supervisor tells the command, once.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    Started { warnings: Vec<String> },
    Failed(Error),
}

/// The largest report: errors are text for people.
const REPORT_MAX: usize = 64 * 1024;

/// What `launch` gives back.
#[derive(Debug)]
pub(super) struct Launched {
    pub client: Option<Client>,
    pub warnings: Vec<String>,
}

impl Engine {
    /// Starts the container behind `record`. On failure nothing of the start
    /// is left, and the record says why; a `--rm` container goes.
    pub(super) fn launch(&self, record: &Record, mut lock: Lock, attach: bool) -> Result<Launched> {
        self.supervised(record, &mut lock, attach)
            .map_err(|error| self.failed(record, lock, error))
    }

    /// Forks the supervisor and hears how it went. After an error there is
    /// none (any more).
    fn supervised(&self, record: &Record, lock: &mut Lock, attach: bool) -> Result<Launched> {
        let token = SingleThreaded::prove()?;
        let (ours, theirs) = fd::seqpacket_pair()?;
        let (give, take) = fd::seqpacket_pair()?;
        let client = attach.then(fd::seqpacket_pair).transpose()?;
        let (client, first_client) = match client {
            Some((a, b)) => (Some(a), Some(b)),
            None => (None, None),
        };
        let size = attach.then(window).flatten();
        match process::clone_child(&token, 0, None)? {
            Fork::Child => {
                drop((ours, give, client));
                self.supervise(record, size, lock, theirs, take, first_client);
            }
            Fork::Parent { pidfd, .. } => {
                drop((theirs, take, first_client));
                let sysfs = sandbox::hand_over(record, give);
                let outcome = hear(&ours);
                drop(sysfs);
                // One that says nothing, or cannot be heard, must be dead
                // before its work is undone.
                let ended = match &outcome {
                    Ok(Some(_)) => Ok(()),
                    _ => pidfd
                        .signal(libc::SIGKILL)
                        .and_then(|_| pidfd.wait(true))
                        .map(drop),
                };
                let undone: Vec<Error> = ended.err().into_iter().collect();
                match outcome {
                    Ok(Some(Report::Started { warnings })) => Ok(Launched {
                        client: client.map(Client::from_pair),
                        warnings,
                    }),
                    Ok(Some(Report::Failed(error))) => Err(error),
                    Ok(None) => Err(Error::state(
                        "start container",
                        record.name.as_str(),
                        "its supervisor was killed before the program ran",
                    )
                    .hint("by whom, the kernel's log may say (dmesg): for lack of memory?")
                    .with_undo(undone)),
                    Err(error) => Err(error.with_undo(undone)),
                }
            }
        }
    }

    /// The start failed and has been undone, as far as that was possible. A
    /// `--rm` container goes; another stays as `created` with Docker's exit
    /// code and the reason.
    fn failed(&self, record: &Record, lock: Lock, error: Error) -> Error {
        let mut undone = Vec::new();
        if !record.config.auto_remove {
            let mut record = record.clone();
            record.state.exit_code = failed_code(&error);
            record.state.error = error.to_string();
            undone.extend(record.save(&self.dirs).err());
        }
        undone.extend(self.recover(&record.id, lock).err());
        error.with_undo(undone)
    }

    /// The forked process: never returns.
    fn supervise(
        &self,
        record: &Record,
        size: Option<(u16, u16)>,
        lock: &mut Lock,
        report: OwnedFd,
        namespace: OwnedFd,
        first_client: Option<OwnedFd>,
    ) -> ! {
        // Without a slot of its own its lock is asked.
        let _ = lock.adopt();
        let mut keep: Vec<BorrowedFd<'_>> = vec![report.as_fd(), namespace.as_fd(), lock.as_fd()];
        keep.extend(first_client.as_ref().map(AsFd::as_fd));
        let title = format!(
            "dockless: supervisor of {} ({})",
            record.name,
            record.id.short()
        );
        let detached = leave_terminal(&title).and_then(|()| process::close_all_except(&keep));
        match detached.and_then(|()| self.bring_up_somewhere(record, size, namespace)) {
            Ok((mut owned, running)) => {
                owned.report_to(report);
                let settings = owned.settings(first_client);
                let ended = settings.and_then(|s| supervisor::run(s, running, &mut owned));
                // Nobody listens any more; what is left is the next command's.
                let cleared = match ended {
                    Ok(_) => owned.clear_away(),
                    Err(error) => {
                        let _ = lock.hand_back();
                        owned.abandon(error)
                    }
                };
                // Last: until it is gone, nobody may take the id for free.
                if cleared.is_ok_and(|cleared| cleared) {
                    let _ = lock.remove();
                }
                owned.leave();
            }
            Err(error) => {
                let errors = self.unwind(&record.id);
                let _ = lock.hand_back();
                send(&report, &Report::Failed(error.with_undo(errors)));
                process::exit_now(0)
            }
        }
    }

    /// Starts over where an address that nobody has asked for turned out to be
    /// somebody's on the LAN.
    ///
    /// Its frame is large, and must not stay below the supervisor's loop for as
    /// long as the container runs.
    #[inline(never)]
    fn bring_up_somewhere(
        &self,
        record: &Record,
        size: Option<(u16, u16)>,
        namespace: OwnedFd,
    ) -> Result<(Owned, Running)> {
        let mut taken = Vec::new();
        // It comes once.
        let mut namespace = Some(namespace);
        loop {
            let before = taken.len();
            let outcome = self.bring_up(record.clone(), size, namespace.take(), &mut taken);
            self.note_taken(&taken[before..]);
            let again = taken.len() > before && taken.len() < acd::MAX_CONFLICTS;
            match outcome {
                Err(error) if again => {
                    let left = self.unwind(&record.id);
                    if !left.is_empty() {
                        return Err(error.with_undo(left));
                    }
                }
                done => return done,
            }
        }
    }

    /// Everything up to the running program. Whatever fails, the journal
    /// knows what to undo, and dropping the clone kills the child.
    fn bring_up(
        &self,
        mut record: Record,
        size: Option<(u16, u16)>,
        namespace: Option<OwnedFd>,
        taken: &mut Vec<Taken>,
    ) -> Result<(Owned, Running)> {
        file::make_dir(&self.dirs.live(&record.id), 0o700)?;
        let mut journal = FileJournal::create(&self.dirs.journal(&record.id))?;
        let mut network = Network::lease(self, &mut record, taken)?;
        record.state.conflicts = taken.iter().map(Taken::conflict).collect();
        let etc = network.etc(&record)?;
        let names = self.write_etc(&mut record, &etc)?;
        // Undone last, when the container's processes are dead.
        let nsid = network.choose_number(self, &mut journal)?;
        let cgroup = self.make_cgroup(&record, &mut journal)?;
        let mut spec = self.launch_spec(&record)?;
        spec.process.size = size;
        file::make_dir(&spec.rootfs.layer, 0o710)?;
        let token = SingleThreaded::prove()?;
        let mut cloned = launch::clone(&token, &spec, cgroup.as_ref(), record.config.open_stdin)?;
        let reserved = network.reserve_ports(self, &record)?;
        network.make_namespace(namespace, nsid)?;
        network.filter(&record)?;
        cloned.join(network.netns()?)?;
        let kept = network.kept_leases();
        let start = || {
            network.attach_all(self, &mut record, &mut journal, taken)?;
            let names = network.introduce(self, &mut record, names)?;
            network.serve_names(self, names)?;
            network.publish(&record, reserved, &mut journal)?;
            if network.is_probing() {
                // The more time for an answer, at no cost.
                cloned.ready()?;
            }
            network.settle(Duration::ZERO, taken)?;
            network.tell_names()?;
            cloned.go(|| network.announce_or_warn())
        };
        let running = start().map_err(|error| {
            network.give_new_leases_back(self, &kept);
            // A passthru link must be gone before the next is made.
            error.with_undo(network.close(self))
        })?;
        let state = &mut record.state;
        state.status = Status::Running;
        state.pid = running.pid;
        state.supervisor = nix::unistd::getpid().as_raw();
        state.exit_code = 0;
        state.error.clear();
        state.started = super::rfc3339(SystemTime::now());
        state.sandbox = hex(&random::bytes::<32>()?);
        network.describe(state);
        if let Some(cgroup) = &cgroup {
            state.cgroup = cgroup.folders().to_vec();
        }
        record.save_live(&self.dirs)?;
        let conflicts = record.state.conflicts.iter();
        let mut happened: Vec<_> = conflicts.map(|c| events::of_conflict(&record, c)).collect();
        happened.extend(network.events("connect"));
        happened.push(events::of_container(&record, "start", &[]));
        self.note(&happened);
        let owned = Owned::new(self.clone(), record, network, cgroup, journal);
        Ok((owned, running))
    }

    fn make_cgroup(&self, record: &Record, journal: &mut dyn Journal) -> Result<Option<Cgroup>> {
        let hierarchies = Hierarchies::detect()?;
        let id = record.id.as_str();
        let paths = hierarchies.folders(id);
        if paths.is_empty() {
            return Ok(None);
        }
        journal.record(&Step::Cgroup { paths })?;
        hierarchies.create(id)
    }

    pub(super) fn launch_spec(&self, record: &Record) -> Result<LaunchSpec> {
        let config = &record.config;
        // The tester image's copy of this binary: the file that we run from
        // may be gone at a restart, replaced by a newer one.
        let init = match config.init {
            true => Some(tester::program(&self.dirs.images())?),
            false => None,
        };
        Ok(LaunchSpec {
            process: ProcessSpec {
                argv: record.argv(),
                env: super::create::process_env(record, config.tty, &[]),
                cwd: config.workdir.clone(),
                user: config.user.clone(),
                tty: config.tty,
                size: None,
                no_new_privs: false,
            },
            rootfs: RootfsSpec {
                lower: record.image.lower.clone(),
                layer: self.dirs.container(&record.id).join("layer"),
                etc: self.etc_folder(record),
                volatile: config.auto_remove,
                init,
            },
            hostname: record.hostname().to_owned(),
        })
    }
}

/// The user's terminal's rows and columns.
pub(super) fn window() -> Option<(u16, u16)> {
    attach::size(std::io::stdout()).or_else(|| attach::size(std::io::stdin()))
}

/// A session of its own, no streams, no folder and no secrets on show: the
/// supervisor outlives the command and its terminal. A trace on stderr goes on until the start is reported.
fn leave_terminal(title: &str) -> Result<()> {
    process::new_session()?;
    nix::unistd::chdir("/").map_err(|e| Error::sys("change folder to", "/", e))?;
    process::set_title(title)?;
    if trace::is_on_stderr() {
        return process::null_input_and_output();
    }
    process::null_streams()
}

/// The supervisor's one message; `None`: it ended without.
fn hear(report: &OwnedFd) -> Result<Option<Report>> {
    let mut buf = vec![0; REPORT_MAX];
    let (length, _) = fd::recv(report.as_fd(), &mut buf)?;
    if length == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&buf[..length])
        .map(Some)
        .map_err(|e| Error::parse("read the supervisor's report", "", e))
}

/// The command may be gone; that is not the container's problem.
pub(super) fn send(report: &OwnedFd, message: &Report) {
    if let Ok(mut bytes) = serde_json::to_vec(message) {
        bytes.truncate(REPORT_MAX);
        let _ = fd::send(report.as_fd(), &bytes, &[]);
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Docker's exit code of a container whose start failed: 126 and 127 for a
/// program that cannot be run, 128 for anything else.
pub(super) fn failed_code(error: &Error) -> i32 {
    match error.cause {
        Cause::Exec {
            errno: libc::ENOENT,
            ..
        } => 127,
        Cause::Exec { .. } => 126,
        _ => 128,
    }
}
