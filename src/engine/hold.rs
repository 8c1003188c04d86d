//! The right to change a container: its supervisor, which does what it is
//! asked, or its lock.

use std::time::{Duration, Instant};

use super::record::Record;
use super::{Client, Engine, missing};
use crate::base::{ContainerId, Error, Result};
use crate::store::Lock;
use crate::sys::process::PidFd;

/// A container, and the right to change it.
pub(super) enum Held {
    /// Its supervisor, which does what it is asked.
    Live(Client),
    /// It does not run; the lock is ours.
    Still(Box<Record>, Lock),
}

/// The same, when one can do without the record.
pub(super) enum Found {
    Held(Held),
    /// It does not run, but its record cannot be read; the lock is ours.
    Damaged(Error, Lock),
}

/// Supervisors that have nothing left to do but to end. Their sockets take the
/// kernel some ten milliseconds (RCU grace periods), those of several at the
/// same time: so they are waited for together, last of all.
#[derive(Debug, Default)]
pub struct Leaving(Vec<PidFd>);

impl Leaving {
    /// What they take at most; beyond it they are not worth waiting for.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// `None`: it has ended already, or nobody knows it.
    pub(super) fn add(&mut self, supervisor: Option<PidFd>) {
        // Of thousands that are removed only a few are there at any time.
        self.0
            .retain(|one| matches!(one.ended(Duration::ZERO), Ok(false)));
        self.0.extend(supervisor);
    }

    /// Returns when they are gone. One that stays on changes nothing.
    pub fn wait(self) {
        let end = Instant::now() + Self::PATIENCE;
        for supervisor in self.0 {
            let _ = supervisor.ended(end.saturating_duration_since(Instant::now()));
        }
    }
}

impl Engine {
    /// The container's supervisor or its lock, waiting out a verb of another
    /// process that has just begun.
    pub(super) fn hold(&self, id: &ContainerId) -> Result<Held> {
        match self.hold_any(id)? {
            Found::Held(held) => Ok(held),
            Found::Damaged(damage, lock) => {
                lock.unlink()?;
                Err(damage)
            }
        }
    }

    /// Asks the supervisor, or does the work itself where there is none. A
    /// supervisor that ends before it has answered is no answer.
    pub(super) fn ask_or<T>(
        &self,
        id: &ContainerId,
        mut ask: impl FnMut(&mut Client) -> Result<T>,
        work: impl FnOnce(Record, Lock) -> Result<T>,
    ) -> Result<T> {
        // One that lives and cannot answer will not learn it.
        let mut tries = 5;
        loop {
            match self.hold(id)? {
                Held::Live(mut client) => match ask(&mut client) {
                    Err(e) if e.is_errno(libc::ECONNRESET) && tries > 0 => tries -= 1,
                    answered => return answered,
                },
                Held::Still(record, lock) => return work(*record, lock),
            }
        }
    }

    pub(super) fn hold_any(&self, id: &ContainerId) -> Result<Found> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let start = Instant::now();
        if !self.dirs.locks().exists() {
            // The state folder is new, or lost.
            self.prepare()?;
        }
        loop {
            if let Some(client) = Client::connect(&self.dirs.live(id))? {
                return Ok(Found::Held(Held::Live(client)));
            }
            if let Some(lock) = self.dirs.roll().try_acquire(id)? {
                match Record::load(&self.dirs, id) {
                    Ok(Some(record)) if !self.is_unfinished(&record) => {
                        return Ok(Found::Held(Held::Still(Box::new(record), lock)));
                    }
                    Ok(Some(_)) => drop(self.recover(id, lock)?),
                    Ok(None) => {
                        self.recover(id, lock)?;
                        return Err(missing(id));
                    }
                    Err(damage) => return Ok(Found::Damaged(damage, lock)),
                }
                continue;
            }
            if start.elapsed() > PATIENCE {
                return Err(Error::conflict(format!(
                    "container {} is busy: another command has held it for 30 s",
                    id.short()
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets go of one that has ended: whose supervisor failed with `--rm`, that
    /// goes.
    pub(super) fn leave_ended(&self, record: &Record, lock: Lock) -> Result<()> {
        match record.config.auto_remove {
            true => self.recover(&record.id, lock).map(drop),
            false => lock.unlink(),
        }
    }

    /// Its supervisor is dead, and what that did is still to be undone.
    fn is_unfinished(&self, record: &Record) -> bool {
        record.state.status.is_live() || self.dirs.journal(&record.id).exists()
    }

    pub(super) fn not_running(&self, wanted: &str, id: &ContainerId) -> Error {
        Error::conflict(format!("container {wanted} is not running"))
            .hint(format!("`dockless start {}` starts it", id.short()))
    }

    /// Asks the supervisor of a container that must run.
    pub(super) fn ask_live<T>(
        &self,
        wanted: &str,
        ask: impl FnOnce(&mut Client) -> Result<T>,
    ) -> Result<(ContainerId, T)> {
        let (id, mut client) = self.live(wanted)?;
        match ask(&mut client) {
            Ok(answer) => Ok((id, answer)),
            Err(e) if e.is_errno(libc::ECONNRESET) => Err(self.not_running(wanted, &id)),
            Err(error) => Err(error),
        }
    }

    /// The supervisor of a running container.
    pub(super) fn live(&self, wanted: &str) -> Result<(ContainerId, Client)> {
        let id = self.find(wanted)?;
        match Client::connect(&self.dirs.live(&id))? {
            Some(client) => Ok((id, client)),
            None => match self.hold(&id)? {
                Held::Live(client) => Ok((id, client)),
                Held::Still(_, lock) => {
                    lock.unlink()?;
                    Err(self.not_running(wanted, &id))
                }
            },
        }
    }
}
