//! The command line from outside: what is printed for known containers and
//! networks (as Docker prints it), what is refused and how, and that no flag
//! of Docker's is left without an answer.

#![allow(clippy::unwrap_used)]

mod flags;
mod goldens;
mod usage;
