//! Commands that meet.

use crate::harness::Test;

pub(super) fn tests() -> Vec<Test> {
    Vec::new()
}
