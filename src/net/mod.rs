//! Networks: from options to interfaces in a `Netns<Sandbox>`.

pub mod acd;
pub mod announce;
mod broadcast;
pub mod dhcp;
pub mod dns;
pub mod doctor;
pub mod driver;
pub mod endpoint;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod guard;
pub mod host_access;
pub mod ip6;
pub mod ipam;
pub mod parent;
pub mod plain;
pub mod publish;
pub mod rate;
pub mod routing;
pub mod spec;
pub mod vlan;

use serde::{Deserialize, Serialize};

use crate::base::{Cidr, IfName, MacAddr, NetworkId, PerFamily};

/// What was made when a container joined a network: the record that
/// disconnect, publishing, announcing and `inspect` work from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    pub network: NetworkId,
    /// 64 hex digits, Docker's EndpointID.
    pub endpoint: String,
    /// Name inside the sandbox (`eth0`).
    pub ifname: IfName,
    /// Index inside the sandbox.
    pub ifindex: u32,
    pub parent: IfName,
    pub mode: crate::netlink::Mode,
    /// An ipvlan's is its parent's.
    pub mac: MacAddr,
    /// Addresses with their subnets' prefix lengths; none on an L2-only
    /// network.
    #[serde(default)]
    pub addrs: PerFamily<Cidr>,
    /// The subnets' gateways, whether or not the default route uses them.
    #[serde(default)]
    pub gateways: PerFamily<std::net::IpAddr>,
    pub internal: bool,
    #[serde(default)]
    pub guard: guard::State,
    #[serde(default)]
    pub rates: rate::Rates,
}

impl Attachment {
    pub(crate) fn ipv4(&self) -> Option<std::net::Ipv4Addr> {
        match self.addrs.ipv4()?.addr() {
            std::net::IpAddr::V4(ip) => Some(ip),
            std::net::IpAddr::V6(_) => None,
        }
    }
}
