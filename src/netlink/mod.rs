//! Netlink: framing, sockets, rtnetlink verbs and nf_tables messages. Knows
//! nothing of containers.

pub mod addr;
mod decode;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod ipvlan;
pub mod link;
mod macvlan;
pub mod monitor;
mod names;
pub mod neigh;
pub mod nft;
pub mod nl80211;
mod nsid;
pub mod obstacle;
pub mod parent;
pub mod policy;
pub mod qdisc;
pub mod route;
pub mod rule;
pub mod socket;
pub mod trace;
pub mod traffic;
pub mod watch;
pub mod wire;

pub use ipvlan::{IpvlanFlag, IpvlanMode, Mode};
pub use link::{Ifindex, Link, LinkKind, MacvlanMode, NewLink, Routers};
pub use macvlan::Broadcast;
pub use socket::Rtnl;

/// What to do about EPERM.
const NEEDS_ADMIN: &str = "it needs CAP_NET_ADMIN in this network namespace: run it as root";
