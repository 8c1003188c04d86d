//! Networks: from options to interfaces in a `Netns<Sandbox>`.

pub mod announce;
pub mod dhcp;
pub mod dns;
pub mod doctor;
pub mod driver;
pub mod host_access;
pub mod ipam;
pub mod parent;
pub mod plain;
pub mod publish;
pub mod spec;
pub mod vlan;

use serde::{Deserialize, Serialize};

use crate::base::{Cidr, IfName, MacAddr, NetworkId};

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
    /// Address with the subnet's prefix length; none on an L2-only network.
    pub addr: Option<Cidr>,
    /// The subnet's gateway, whether or not the default route uses it.
    pub gateway: Option<std::net::IpAddr>,
    pub internal: bool,
}
