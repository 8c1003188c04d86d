//! An IPv6 address from the LAN's DHCPv6 server (RFC 8415), for one interface
//! of one container. `docs/ipv6.md` explains it to its users.
//!
//! # Theory of operation
//!
//! | file | what |
//! |---|---|
//! | `message.rs` | messages as bytes; whatever comes in is hostile |
//! | `lease.rs` | what a server gives: address, times, names |
//! | `machine.rs` | the exchanges of RFC 8415 §18; no socket, no clock |
//! | `client.rs` | the machine on a socket and a timer |
//!
//! *Who a container is* is what a DHCPv4 server is told, too
//! ([`super::dhcp::Identity`], RFC 4361): a DUID for machine and container, an
//! IAID for the network.
//!
//! *What is not here.* The kernel is told of addresses by the engine ([`News`]),
//! and asks whether they are free. Routers say what is on the link, and are the
//! default route: DHCPv6 has neither.

mod client;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod lease;
mod machine;
mod message;

pub use client::{Client, News, release};
pub use lease::Lease;
pub use machine::Phase;
