//! A full disk.

use crate::harness::Test;

pub(super) fn tests() -> Vec<Test> {
    Vec::new()
}
