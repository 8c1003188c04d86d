//! Kernel tests of the supervisor: log, exit record, attach, restart.

use crate::harness::Test;

pub(crate) fn tests() -> Vec<Test> {
    Vec::new()
}
