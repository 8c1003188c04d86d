//! An address from the LAN's DHCP server (RFC 2131), for one interface of one
//! container. `docs/dhcp.md` explains it to its users.
//!
//! # Theory of operation
//!
//! | file | what |
//! |---|---|
//! | `message.rs` | packets as bytes (smoltcp); whatever comes in is hostile |
//! | `options.rs` | routes (option 121) and names (option 119) as bytes |
//! | `lease.rs` | what a server gives: address, times, routes, MTU, names |
//! | `machine.rs` | RFC 2131's states; no socket, no clock |
//! | `socket.rs` | frames in and out of the container's namespace |
//! | `client.rs` | the machine on sockets and a timer |
//!
//! *Who a container is* follows from its name ([`Identity`]), so that one that
//! is made again under the same name is the same client to the server and gets
//! the same address.
//!
//! *An ipvlan* has its parent's MAC, and the kernel hands it the frames that
//! bear its own address, besides broadcasts ([`Shared`]; `ipvlan_handle_mode_l2`
//! in drivers/net/ipvlan/ipvlan_core.c). So until it has one, answers are asked
//! for by broadcast (RFC 2131 §4.1), and heard on the parent, too; whose an
//! answer is, its transaction and client id say. Whether somebody has an address
//! is heard on the parent alone: so go answers to a probe.
//!
//! *At rest* (BOUND) there is a timerfd and nothing else: no socket, hence no
//! packet that wakes anybody. The clock is CLOCK_BOOTTIME, so a lease grows
//! old while the machine sleeps.
//!
//! *What the kernel is told* is not done here: the client says what became of
//! the lease ([`News`]), and the engine sets addresses and routes.

mod client;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod lease;
mod machine;
pub mod message;
mod options;
mod socket;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::MacAddr;

pub use client::{Client, News, release, unix_time};
pub use lease::{Lease, Route};
pub use machine::Phase;
pub(super) use options::search;
pub use socket::{Port, Shared};

/// How long a start waits for its first lease. dnsmasq takes 3 s to look
/// whether an address is free before it offers it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Who asks: the same each time for a name on a network of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub mac: MacAddr,
    /// Option 61, as RFC 4361 wants it: 255, four bytes for the network, and a
    /// DUID of the kind UUID (RFC 6355) for the container.
    pub client_id: Vec<u8>,
    /// Option 12.
    pub hostname: String,
}

impl Identity {
    /// `machine` tells this host from others with a container of that name:
    /// its machine id, say. Nothing of it can be read from the outcome.
    pub fn new(machine: &[u8], network: &str, container: &str, hostname: &str) -> Self {
        let digest = |what: &str, parts: &[&[u8]]| -> [u8; 32] {
            let mut hash = Sha256::new_with_prefix(format!("dockless dhcp {what}"));
            for part in parts {
                hash.update([0]);
                hash.update(part);
            }
            hash.finalize().into()
        };
        let (network, container) = (network.as_bytes(), container.as_bytes());
        let uuid = digest("duid", &[machine, container]);
        let iaid = digest("iaid", &[network]);
        let [a, b, c, d, e, f, ..] = digest("mac", &[machine, network, container]);
        let mut client_id = vec![255];
        client_id.extend(&iaid[..4]);
        client_id.extend([0, 4]);
        client_id.extend(&uuid[..16]);
        Self {
            // Unicast, locally administered.
            mac: MacAddr([(a & !1) | 2, b, c, d, e, f]),
            client_id,
            hostname: label(hostname),
        }
    }

    /// As dnsmasq and Kea print it: `ff:1a:…`.
    pub fn client_id_text(&self) -> String {
        text(&self.client_id)
    }

    /// What a DHCPv6 server is told of the network, and of the container.
    pub fn iaid_and_duid(&self) -> (&[u8], &[u8]) {
        let id = self.client_id.get(1..).unwrap_or_default();
        id.split_at_checked(4).unwrap_or_default()
    }

    /// `00:04:1a:…`
    pub fn duid_text(&self) -> String {
        text(self.iaid_and_duid().1)
    }

    /// As a number: so Kea prints it.
    pub fn iaid(&self) -> u32 {
        let iaid = self.iaid_and_duid().0;
        u32::from_be_bytes(iaid.try_into().unwrap_or_default())
    }
}

/// Bytes in hex, with colons between.
pub(in crate::net) fn text(bytes: &[u8]) -> String {
    let bytes: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    bytes.join(":")
}

/// One label of a domain name (RFC 1123): a container's name may have dots and
/// underscores, which servers refuse or take for a domain.
pub(in crate::net) fn label(name: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let label: String = name.chars().take(63).map(good).collect();
    label.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_it_is_follows_from_the_names_alone() {
        let of = |machine: &str, network: &str, name: &str| {
            Identity::new(machine.as_bytes(), network, name, name)
        };
        let web = of("m1", "lan", "web");
        assert_eq!(web, of("m1", "lan", "web"));
        for other in [
            of("m2", "lan", "web"),
            of("m1", "lan2", "web"),
            of("m1", "lan", "we"),
        ] {
            assert_ne!(web.client_id, other.client_id);
            assert_ne!(web.mac, other.mac);
        }
        assert!(!web.mac.is_multicast() && web.mac.0[0] & 2 == 2);
        assert_eq!((web.client_id.len(), web.client_id[0]), (23, 255));
        assert_eq!(web.client_id[5..7], [0, 4]);
        assert!(web.client_id_text().starts_with("ff:"));
        // On another network it is the same device.
        assert_eq!(web.client_id[7..], of("m1", "lan2", "web").client_id[7..]);
    }

    #[test]
    fn a_host_name_is_one_label() {
        assert_eq!(label("my_web.1"), "my-web-1");
        assert_eq!(label(&"x".repeat(70)).len(), 63);
        assert_eq!(label("web_"), "web");
    }
}
