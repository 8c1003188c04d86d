//! Lists of what there is, as true as can be.

use super::Engine;
use super::record::Record;
use crate::base::{ContainerId, Error, Result};
use crate::store::Lock;

/// What there is, and what could not be looked at: one damaged file hides
/// nothing else.
#[derive(Debug)]
pub struct Listing<T> {
    pub items: Vec<T>,
    pub problems: Vec<Error>,
}

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

    /// Every container that is recorded. One that ends while we look is left
    /// out; a damaged record is a problem that names its file.
    pub(super) fn records(&self) -> Result<Listing<Record>> {
        let mut records = Listing::default();
        let held = Lock::survey(&self.dirs.locks())?.held;
        for id in self.ids()? {
            records.add(self.truth_of(&id, held.contains(id.as_str())));
        }
        Ok(records)
    }

    /// The record, and if it says that the container runs, is that so? The
    /// disk may have been too full for recovery to correct it.
    pub(super) fn truth(&self, id: &ContainerId) -> Result<Option<Record>> {
        self.truth_of(id, false)
    }

    /// `is_held`: its lock was, a moment ago.
    fn truth_of(&self, id: &ContainerId, is_held: bool) -> Result<Option<Record>> {
        let is_over = |record: &Record| {
            Ok(record.state.status.is_live() && !is_held && !Lock::is_held(&self.dirs.lock(id))?)
        };
        match Record::load(&self.dirs, id)? {
            Some(record) if is_over(&record)? => {
                // Or has it ended in good order since?
                let mut record = Record::load(&self.dirs, id)?;
                if let Some(record) = record.as_mut().filter(|r| r.state.status.is_live()) {
                    record.state.end_unwatched();
                }
                Ok(record)
            }
            found => Ok(found),
        }
    }
}
