//! Processes and files of one container; knows no network.

pub mod attach;
pub mod child;
pub mod exec;
pub mod init;
pub mod interact;
mod keeper;
pub mod launch;
pub mod logs;
pub mod profile;
mod program;
pub mod rootfs;
pub mod spec;
pub mod supervisor;
mod sync;
pub mod tty;
pub mod user;
