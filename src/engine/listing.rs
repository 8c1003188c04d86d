//! Lists of what there is, as true as can be.

use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread;

use super::Engine;
use super::brief::Member;
use super::record::{Record, Stored, load};
use crate::base::{ContainerId, Error, Result};
use crate::store::{Held, Lock};

/// What there is, and what could not be looked at: one damaged file hides
/// nothing else.
#[derive(Debug)]
pub struct Listing<T> {
    pub items: Vec<T>,
    pub problems: Vec<Error>,
}

/// Read in less time than it takes to start a thread.
const FEW: usize = 32;

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            problems: Vec::new(),
        }
    }
}

impl<T> Listing<T> {
    /// One more; `None` is one that has just gone.
    pub(super) fn add(&mut self, found: Result<Option<T>>) {
        match found {
            Ok(item) => self.items.extend(item),
            Err(problem) => self.problems.push(problem),
        }
    }

    /// Where a part is not enough.
    pub(super) fn whole(mut self) -> Result<Vec<T>> {
        match self.problems.pop() {
            Some(problem) => Err(problem),
            None => Ok(self.items),
        }
    }
}

impl Engine {
    pub(super) fn live_records(&self) -> Result<Vec<Record>> {
        Ok(self
            .records()?
            .items
            .into_iter()
            .filter(|r| r.state.status.is_live())
            .collect())
    }

    /// Who runs, for a look at networks.
    pub(super) fn members(&self, held: &Held) -> Result<Vec<Member>> {
        let mut members = self.parts::<Member>(held)?.items;
        members.retain(Stored::is_live);
        Ok(members)
    }

    /// Every container that is recorded. One that ends while we look is left
    /// out; a damaged record is a problem that names its file.
    pub(super) fn records(&self) -> Result<Listing<Record>> {
        let held = self.dirs.roll().survey()?.held;
        let ids: Vec<ContainerId> = self.ids()?.into_iter().collect();
        Ok(self.read(&ids, &held))
    }

    fn read<T: Stored>(&self, ids: &[ContainerId], held: &Held) -> Listing<T> {
        let mut found = Listing::default();
        for id in ids {
            found.add(self.truth_of(id, held.contains(&id.to_bytes())));
        }
        found
    }

    /// Of every record what `T` has of it. `held`: locks that were held a
    /// moment ago. Where there are many, on all processors: for commands, not
    /// for a supervisor, whose memory would have an arena for each.
    pub(super) fn parts<T: Stored + Send>(&self, held: &Held) -> Result<Listing<T>> {
        let ids: Vec<ContainerId> = self.ids()?.into_iter().collect();
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let share = ids.len().div_ceil(processors).max(FEW);
        let (own, others) = ids.split_at(share.min(ids.len()));
        Ok(thread::scope(|scope| {
            let others: Vec<_> = others
                .chunks(share)
                .map(|ids| {
                    let read = || self.read::<T>(ids, held);
                    let started = thread::Builder::new().spawn_scoped(scope, read);
                    started.map_err(|_| ids)
                })
                .collect();
            let mut all = self.read(own, held);
            for other in others {
                let found = match other {
                    Ok(other) => other.join().unwrap_or_else(|e| resume_unwind(e)),
                    // No more threads: here, then.
                    Err(ids) => self.read(ids, held),
                };
                all.items.extend(found.items);
                all.problems.extend(found.problems);
            }
            all
        }))
    }

    /// The record, and if it says that the container runs, is that so? The
    /// disk may have been too full for recovery to correct it.
    pub(super) fn truth(&self, id: &ContainerId) -> Result<Option<Record>> {
        self.truth_of(id, false)
    }

    /// `is_held`: its lock was, a moment ago.
    fn truth_of<T: Stored>(&self, id: &ContainerId, is_held: bool) -> Result<Option<T>> {
        let is_over =
            |record: &T| Ok(record.is_live() && !is_held && !Lock::is_held(&self.dirs.lock(id))?);
        match load::<T>(&self.dirs, id)? {
            Some(record) if is_over(&record)? => {
                // Or has it ended in good order since?
                let mut record = load::<T>(&self.dirs, id)?;
                if let Some(record) = record.as_mut().filter(|r| r.is_live()) {
                    record.end_unwatched();
                }
                Ok(record)
            }
            found => Ok(found),
        }
    }
}
