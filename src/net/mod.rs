//! Networks: from options to interfaces in a `Netns<Sandbox>`.

pub mod acd;
pub mod announce;
mod broadcast;
pub mod choice;
pub mod dhcp;
pub mod dhcp6;
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
pub mod mdns;
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
    /// The parent's index, by which it is known when it is renamed.
    #[serde(default)]
    pub parent_index: u32,
    #[serde(default)]
    pub link: LinkState,
    pub mode: crate::netlink::Mode,
    /// An ipvlan's is its parent's.
    pub mac: MacAddr,
    /// Addresses with their subnets' prefix lengths; none on an L2-only
    /// network.
    #[serde(default)]
    pub addrs: PerFamily<Cidr>,
    /// The link-local address that it was given; `None`: the kernel's, of its
    /// MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_link_local: Option<std::net::Ipv6Addr>,
    /// The subnets' gateways, whether or not the default route uses them.
    #[serde(default)]
    pub gateways: PerFamily<std::net::IpAddr>,
    pub internal: bool,
    #[serde(default)]
    pub guard: guard::State,
    #[serde(default)]
    pub rates: rate::Rates,
}

/// What has become of the link to the LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkState {
    #[serde(default)]
    pub carrier: Carrier,
    /// RFC 3339; empty while nothing has happened.
    #[serde(default)]
    pub since: String,
    /// Why it could not be made again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trouble: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// Frames can leave.
    #[default]
    Up,
    /// The parent has no carrier, or is down.
    Down,
    /// There is no parent, and no link.
    Gone,
}

impl Carrier {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "no carrier",
            Self::Gone => "parent gone",
        }
    }
}

impl Attachment {
    pub(crate) fn ipv4(&self) -> Option<std::net::Ipv4Addr> {
        match self.addrs.ipv4()?.addr() {
            std::net::IpAddr::V4(ip) => Some(ip),
            std::net::IpAddr::V6(_) => None,
        }
    }

    /// The one that it has where it has IPv6; an ipvlan's is never of its MAC.
    pub(crate) fn link_local(&self) -> Option<std::net::Ipv6Addr> {
        match self.mode.is_ipvlan() {
            true => self.own_link_local,
            false => Some(ip6::link_local(self.mac)),
        }
    }
}
