//! x
use super::*;
pub(super) fn tests() -> Vec<Test> {
    Vec::new()
}
