//! Kernel tests of processes, mounts and files of a container.

use crate::harness::Test;

pub(crate) fn tests() -> Vec<Test> {
    Vec::new()
}
