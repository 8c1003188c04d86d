//! dockless: containers straight on a LAN.
//!
//! Layers, each using only those below it (checked by `tests/arch.rs`):
//!
//! ```text
//!   front                     command line, applets of the tester image
//!   engine      lab           use cases · a LAN in a box
//!   net   container   image   each alone; they meet in a Netns<Sandbox>
//!   netlink     store         messages and sockets · state on disk
//!   sys                       typed kernel primitives, the only unsafe code
//!   base                      names, addresses, errors, undo steps
//! ```

pub mod base;
pub mod container;
pub mod engine;
pub mod front;
pub mod image;
pub mod lab;
pub mod net;
pub mod netlink;
pub mod store;
pub mod sys;
pub mod tester;
