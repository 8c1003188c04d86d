//! Links that carry containers' links: VLAN sub-interfaces and dummies, made
//! in the host's namespace and marked as made here.
//!
//! # Theory of operation
//!
//! A link is made, marked and brought up by one RTM_NEWLINK: the kernel takes
//! the flags with the request (`rtnl_configure_link`) and removes the link
//! again when it cannot come up (a VLAN whose base is down). So there is never
//! one that is half made, nor one that does not say whose it is.
//!
//! The mark is the link's group ([`GROUP`]): the one attribute that the kernel
//! accepts at creation, keeps, and gives no meaning of its own. Whoever takes
//! it away (`ip link set … group default`) has made the link his own.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, VlanFlags, VlanProtocol,
};
use serde::{Deserialize, Serialize};

use super::link::{self, Ifindex};
use super::socket::Rtnl;
use super::wire::{self, Malformed};
use crate::base::{Error, IfName, Result};
use crate::sys::netns::Host;

/// `dl`: what `ip link` shows as the group of a link that dockless has made.
pub const GROUP: u32 = 0x646c;

const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_FLAGS: u16 = 2;
const IFLA_VLAN_PROTOCOL: u16 = 5;
/// VLAN_FLAG_GVRP, VLAN_FLAG_MVRP
const GVRP: u32 = 2;
const MVRP: u32 = 8;

/// The tag protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VlanProto {
    #[default]
    #[serde(rename = "802.1Q")]
    Dot1q,
    /// The outer tag of a provider's network.
    #[serde(rename = "802.1ad")]
    Dot1ad,
}

impl std::fmt::Display for VlanProto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dot1q => "802.1Q",
            Self::Dot1ad => "802.1ad",
        })
    }
}

/// What a VLAN sub-interface puts on its frames, and whether it tells the
/// switch about it (GVRP, MVRP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VlanTag {
    pub id: u16,
    #[serde(default)]
    pub protocol: VlanProto,
    #[serde(default)]
    pub gvrp: bool,
    #[serde(default)]
    pub mvrp: bool,
}

impl VlanTag {
    /// 802.1Q, and nothing else said.
    pub fn of(id: u16) -> Self {
        Self {
            id,
            protocol: VlanProto::Dot1q,
            gvrp: false,
            mvrp: false,
        }
    }

    fn info(&self) -> Vec<LinkInfo> {
        let mut data = vec![
            InfoVlan::Id(self.id),
            InfoVlan::Protocol(match self.protocol {
                VlanProto::Dot1q => VlanProtocol::Ieee8021Q,
                VlanProto::Dot1ad => VlanProtocol::Ieee8021Ad,
            }),
        ];
        let mut flags = VlanFlags::empty();
        flags.set(VlanFlags::Gvrp, self.gvrp);
        flags.set(VlanFlags::Mvrp, self.mvrp);
        if !flags.is_empty() {
            data.push(InfoVlan::Flags((flags, flags)));
        }
        vec![
            LinkInfo::Kind(InfoKind::Vlan),
            LinkInfo::Data(InfoData::Vlan(data)),
        ]
    }

    /// From IFLA_INFO_DATA.
    pub(super) fn parse(data: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(id) = wire::find(data, IFLA_VLAN_ID) else {
            return Ok(None);
        };
        let flags = wire::find(data, IFLA_VLAN_FLAGS).and_then(|value| value.get(..4));
        let flags = flags.map(wire::u32_of).transpose()?.unwrap_or_default();
        Ok(Some(Self {
            id: wire::u16_of(id)?,
            protocol: match wire::find(data, IFLA_VLAN_PROTOCOL) {
                Some([0x88, 0xa8]) => VlanProto::Dot1ad,
                _ => VlanProto::Dot1q,
            },
            gvrp: flags & GVRP != 0,
            mvrp: flags & MVRP != 0,
        }))
    }
}

impl Rtnl<Host> {
    /// A VLAN sub-interface of `base`, up and marked.
    pub fn vlan(&mut self, name: &IfName, base: Ifindex<Host>, tag: &VlanTag) -> Result<()> {
        let lower = LinkAttribute::Link(self.own(base)?);
        self.marked(name, Some(lower), tag.info())
            .map_err(|error| self.explain_vlan(error, base, tag))
    }

    /// A dummy link, up and marked.
    pub fn dummy(&mut self, name: &IfName) -> Result<()> {
        self.marked(name, None, vec![LinkInfo::Kind(InfoKind::Dummy)])
            .map_err(|error| match error.errno() {
                Some(libc::EOPNOTSUPP) => error.hint(format!(
                    "a network without -o parent=IFNAME is on a dummy link, and {}",
                    no_driver("dummy")
                )),
                _ => error,
            })
    }

    fn marked(
        &mut self,
        name: &IfName,
        lower: Option<LinkAttribute>,
        info: Vec<LinkInfo>,
    ) -> Result<()> {
        let mut attributes = vec![
            LinkAttribute::IfName(name.to_string()),
            LinkAttribute::Group(GROUP),
        ];
        attributes.extend(lower);
        attributes.push(LinkAttribute::LinkInfo(info));
        let mut message = link::message(0, attributes);
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.channel
            .request(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message)
            .map_err(|fault| fault.named("create link", name))
    }

    fn explain_vlan(&mut self, error: Error, base: Ifindex<Host>, tag: &VlanTag) -> Error {
        let base = self.label(base);
        match error.errno() {
            Some(libc::ENETDOWN) => {
                error.hint(format!("{base} is down: `ip link set {base} up` first"))
            }
            Some(libc::EEXIST) => error.hint(format!(
                "VLAN {} of {base}, or an interface of that name, is there already",
                tag.id
            )),
            Some(libc::EOPNOTSUPP) => error.hint(format!(
                "{}; or {base} cannot carry VLANs",
                no_driver("8021q")
            )),
            _ => error,
        }
    }
}

fn no_driver(module: &str) -> String {
    format!("this kernel has no {module} driver loaded: try \"modprobe {module}\"")
}

#[cfg(test)]
mod tests {
    use super::super::wire::golden::{built, sorted};
    use super::*;

    /// `ip link add link eth1 name eth1.10 type vlan protocol 802.1ad id 10
    /// gvrp on mvrp on`: what is in its IFLA_INFO_DATA.
    #[test]
    fn says_what_ip_link_add_says() {
        let tag = VlanTag {
            id: 10,
            protocol: VlanProto::Dot1ad,
            gvrp: true,
            mvrp: true,
        };
        let message = link::message(0, vec![LinkAttribute::LinkInfo(tag.info())]);
        let ours = built(libc::RTM_NEWLINK, &message);
        let info = wire::find(&ours[32..], libc::IFLA_LINKINFO).unwrap();
        let data = wire::find(info, libc::IFLA_INFO_DATA).unwrap();
        let theirs: &[u8] = &[
            6, 0, 5, 0, 0x88, 0xa8, 0, 0, // IFLA_VLAN_PROTOCOL
            6, 0, 1, 0, 10, 0, 0, 0, // IFLA_VLAN_ID
            12, 0, 2, 0, 10, 0, 0, 0, 10, 0, 0, 0, // IFLA_VLAN_FLAGS
        ];
        assert_eq!(sorted(data), sorted(theirs));
        assert_eq!(VlanTag::parse(data).unwrap(), Some(tag));
    }
}
