//! Links: look up, change, delete; veth pairs and bridges for the lab.
//! Containers' links are made in [`macvlan`](super::macvlan), those that carry
//! them in [`parent`](super::parent).

use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
pub use netlink_packet_route::link::BondMode;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask,
    LinkFlags, LinkHeader, LinkInfo, LinkMessage, MacVlanMode,
};
use serde::{Deserialize, Serialize};

use super::ipvlan::{self, IpvlanFlag, IpvlanMode};
use super::monitor::Event;
use super::parent::VlanTag;
use super::route::Configure;
use super::socket::{Fault, Rtnl};
use super::wire::{self, Malformed};
use crate::base::{Error, IfName, MacAddr, Result, Subject};
use crate::sys::netns::{Host, Netns, Place, Sandbox};

pub use super::macvlan::NewLink;

const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_BOND_MODE: u16 = 1;
/// The loopback link is the first of every namespace.
pub(super) const LOOPBACK: u32 = 1;

/// An interface index in the namespace of an `Rtnl<P>`.
#[derive(Debug)]
pub struct Ifindex<P: Place> {
    number: u32,
    netns: u64,
    place: PhantomData<fn() -> P>,
}
impl<P: Place> Clone for Ifindex<P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Place> Copy for Ifindex<P> {}
impl<P: Place> PartialEq for Ifindex<P> {
    fn eq(&self, other: &Self) -> bool {
        (self.number, self.netns) == (other.number, other.netns)
    }
}
impl<P: Place> Eq for Ifindex<P> {}
impl<P: Place> Hash for Ifindex<P> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}
impl<P: Place> Ifindex<P> {
    /// The number, for display and for records.
    pub fn get(self) -> u32 {
        self.number
    }
}

/// Macvlan modes (include/uapi/linux/if_link.h, MACVLAN_MODE_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MacvlanMode {
    Bridge,
    Private,
    Vepa,
    Passthru,
    Source,
}

impl MacvlanMode {
    fn from_number(number: u32) -> Option<Self> {
        Some(match MacVlanMode::from(number) {
            MacVlanMode::Private => Self::Private,
            MacVlanMode::Vepa => Self::Vepa,
            MacVlanMode::Bridge => Self::Bridge,
            MacVlanMode::Passthrough => Self::Passthru,
            MacVlanMode::Source => Self::Source,
            _ => return None,
        })
    }
}

/// What a link is, as far as dockless cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    Macvlan {
        mode: MacvlanMode,
    },
    /// A virtual machine's: it shares the parent with macvlans.
    Macvtap {
        mode: MacvlanMode,
    },
    Ipvlan {
        mode: IpvlanMode,
        flag: IpvlanFlag,
    },
    Vlan(VlanTag),
    Dummy,
    Veth,
    Bridge,
    Bond(BondMode),
    Loopback,
    /// IFLA_INFO_KIND as the kernel spells it ("" for hardware).
    Other(String),
}

/// A link as the kernel reports it.
#[derive(Clone, Debug)]
pub struct Link<P: Place> {
    pub index: Ifindex<P>,
    pub name: IfName,
    pub kind: LinkKind,
    pub mac: Option<MacAddr>,
    /// IFLA_PERM_ADDRESS: a NIC's own, whatever it was given since.
    pub permanent: Option<MacAddr>,
    pub broadcast: Option<MacAddr>,
    pub mtu: u32,
    /// IFF_UP
    pub up: bool,
    /// IFF_LOWER_UP
    pub carrier: bool,
    /// All IFF_* bits, for display.
    pub flags: u32,
    /// ARPHRD_*: 1 Ethernet, 772 loopback.
    pub hardware: u16,
    /// IF_OPER_*: 0 unknown, 2 down, 3 lower layer down, 6 up.
    pub operstate: u8,
    pub qdisc: Option<String>,
    pub txqlen: u32,
    pub group: u32,
    /// IFLA_LINK: the lower link's index, in `lower_netns` if that is set.
    pub lower: Option<u32>,
    /// IFLA_LINK_NETNSID: the lower link lives in another namespace.
    pub lower_netns: Option<i32>,
    /// IFLA_MASTER (bridge or bond it is a port of) …
    pub master: Option<u32>,
    /// … and that master's kind (IFLA_INFO_SLAVE_KIND).
    pub master_kind: Option<String>,
    pub altnames: Vec<String>,
}

/// Whether a router has advertised itself on a link, and what it last said of
/// DHCPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routers {
    None,
    /// RFC 4861's M flag: addresses are had by DHCPv6.
    Seen {
        managed: bool,
    },
}

impl<P: Place> Rtnl<P> {
    /// By name or altname (IFLA_ALT_IFNAME); `None` if there is none.
    pub fn link(&mut self, name: &str) -> Result<Option<Link<P>>> {
        let attribute = if name.len() <= IfName::MAX {
            // The kernel looks this one up among the altnames too.
            LinkAttribute::IfName(name.to_owned())
        } else {
            let mut value = name.as_bytes().to_vec();
            value.push(0);
            LinkAttribute::Other(DefaultNla::new(IFLA_ALT_IFNAME, value))
        };
        let subject = || Subject::Link(name.to_owned());
        self.find_link(message(0, vec![attribute, no_stats()]), subject)
    }

    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link<P>>> {
        let subject = || Subject::Link(format!("number {index}"));
        self.find_link(message(index, vec![no_stats()]), subject)
    }

    fn find_link(
        &mut self,
        wanted: LinkMessage,
        subject: impl FnOnce() -> Subject,
    ) -> Result<Option<Link<P>>> {
        let netns = self.netns;
        match self
            .channel
            .get(libc::RTM_GETLINK, &wanted, |payload| parse(payload, netns))
        {
            Ok(link) => Ok(link),
            Err(fault) if fault.errno() == libc::ENODEV => Ok(None),
            Err(fault) => Err(fault.named("look up link", subject())),
        }
    }

    /// What routers have said on a link.
    pub fn routers(&mut self, index: u32) -> Result<Routers> {
        let subject = || Subject::Link(format!("number {index}"));
        let said = self
            .channel
            .get(
                libc::RTM_GETLINK,
                &message(index, vec![no_stats()]),
                routers,
            )
            .map_err(|fault| fault.named("look up link", subject()))?;
        Ok(said.unwrap_or(Routers::None))
    }

    pub fn links(&mut self) -> Result<Vec<Link<P>>> {
        let netns = self.netns;
        self.channel
            .dump(
                libc::RTM_GETLINK,
                &message(0, vec![no_stats()]),
                |payload| parse(payload, netns).map(Some),
            )
            .map_err(|fault| fault.named("list links", Subject::None))
    }

    pub fn set_up(&mut self, index: Ifindex<P>) -> Result<()> {
        let up = Configure {
            up: true,
            ..Configure::default()
        };
        self.configure(index, &up)
    }

    pub fn set_down(&mut self, index: Ifindex<P>) -> Result<()> {
        let down = flags_message(self.own(index)?, false);
        self.change("set link down", index, &down)
    }

    pub fn set_mac(&mut self, index: Ifindex<P>, mac: MacAddr) -> Result<()> {
        let attributes = vec![LinkAttribute::Address(mac.0.to_vec())];
        let change = message(self.own(index)?, attributes);
        self.change("set MAC address of link", index, &change)
    }

    pub fn set_mtu(&mut self, index: Ifindex<P>, mtu: u32) -> Result<()> {
        let change = message(self.own(index)?, vec![LinkAttribute::Mtu(mtu)]);
        self.change("set MTU of link", index, &change)
    }

    /// The low half of the addresses that the kernel makes from advertised
    /// prefixes (IFLA_INET6_TOKEN). Its `accept_ra` must be on.
    pub fn set_token(&mut self, index: Ifindex<P>, token: [u8; 8]) -> Result<()> {
        let mut addr = [0; 16];
        addr[8..].copy_from_slice(&token);
        let inet6 = vec![AfSpecInet6::Token(addr.into())];
        let spec = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(inet6)]);
        let change = message(self.own(index)?, vec![spec]);
        self.change("set IPv6 token of link", index, &change)
    }

    /// IFF_PROMISC and IFF_ALLMULTI, where they are wanted.
    pub fn receive_more(&mut self, index: Ifindex<P>, promisc: bool, allmulti: bool) -> Result<()> {
        let mut flags = LinkFlags::empty();
        flags.set(LinkFlags::Promisc, promisc);
        flags.set(LinkFlags::Allmulti, allmulti);
        let mut change = message(self.own(index)?, Vec::new());
        (change.header.flags, change.header.change_mask) = (flags, flags);
        self.change("set what is received by link", index, &change)
    }

    pub fn rename(&mut self, index: Ifindex<P>, name: &IfName) -> Result<()> {
        let attributes = vec![LinkAttribute::IfName(name.to_string())];
        let change = message(self.own(index)?, attributes);
        self.change("rename link", index, &change)
    }

    pub fn set_master(&mut self, index: Ifindex<P>, master: Option<Ifindex<P>>) -> Result<()> {
        let master = master.map(|m| self.own(m)).transpose()?.unwrap_or(0);
        let change = message(self.own(index)?, vec![LinkAttribute::Controller(master)]);
        self.change("set master of link", index, &change)
    }

    fn change(&mut self, op: &'static str, index: Ifindex<P>, change: &LinkMessage) -> Result<()> {
        match self.channel.request(libc::RTM_SETLINK, 0, change) {
            Ok(()) => Ok(()),
            Err(fault) => Err(fault.named(op, self.label(index))),
        }
    }

    /// RTM_DELLINK; a link that is gone already is fine. Waits for an RCU
    /// grace period in the kernel (15 to 30 ms).
    pub fn delete_link(&mut self, index: Ifindex<P>) -> Result<()> {
        let gone = message(self.own(index)?, Vec::new());
        match self.channel.request(libc::RTM_DELLINK, 0, &gone) {
            Ok(()) => Ok(()),
            Err(fault) if fault.errno() == libc::ENODEV => Ok(()),
            Err(fault) => Err(fault.named("delete link", self.label(index))),
        }
    }

    /// A veth pair: `name` here, `peer` in `peer_netns` (lab).
    pub fn veth(
        &mut self,
        name: &IfName,
        peer: &IfName,
        peer_netns: &Netns<Sandbox>,
    ) -> Result<()> {
        let peer = message(
            0,
            vec![
                LinkAttribute::IfName(peer.to_string()),
                LinkAttribute::NetNsFd(peer_netns.as_fd().as_raw_fd()),
            ],
        );
        let info = vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ];
        self.create(name, info)
            .map_err(|fault| fault.named("create veth pair", name))
    }

    /// A bridge, without spanning tree, so that its ports forward at once.
    pub fn bridge(&mut self, name: &IfName) -> Result<Ifindex<P>> {
        self.create(name, vec![LinkInfo::Kind(InfoKind::Bridge)])
            .map_err(|fault| fault.named("create bridge", name))?;
        self.created(name)
    }

    fn create(&mut self, name: &IfName, info: Vec<LinkInfo>) -> Result<(), Fault> {
        let attributes = vec![
            LinkAttribute::IfName(name.to_string()),
            LinkAttribute::LinkInfo(info),
        ];
        self.channel.request(
            libc::RTM_NEWLINK,
            NLM_F_CREATE | NLM_F_EXCL,
            &message(0, attributes),
        )
    }

    /// The index of a link that was made a moment ago.
    pub(super) fn created(&mut self, name: &IfName) -> Result<Ifindex<P>> {
        match self.link(name.as_str())? {
            Some(link) => Ok(link.index),
            None => Err(Error::sys("find new link", name, libc::ENODEV)),
        }
    }

    /// loopback up (index 1).
    pub fn loopback_up(&mut self) -> Result<()> {
        self.set_up(self.index(LOOPBACK))
    }

    pub(super) fn index(&self, number: u32) -> Ifindex<P> {
        Ifindex {
            number,
            netns: self.netns,
            place: PhantomData,
        }
    }

    /// The number, if the index was read in this socket's namespace.
    pub(super) fn own(&self, index: Ifindex<P>) -> Result<u32> {
        if index.netns == self.netns {
            return Ok(index.number);
        }
        Err(Error::state(
            "use interface index",
            index.number.to_string(),
            "it belongs to another network namespace",
        ))
    }

    /// What to call a link in an error: its name, if it still has one.
    pub(super) fn label(&mut self, index: Ifindex<P>) -> Subject {
        match self.link_by_index(index.number) {
            Ok(Some(link)) => Subject::Link(link.name.to_string()),
            _ => Subject::Link(format!("number {}", index.number)),
        }
    }
}

/// An RTM_*LINK message about one link.
pub(super) fn message(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = attributes;
    message
}

/// IFF_UP set or cleared, and nothing else touched.
pub(super) fn flags_message(index: u32, up: bool) -> LinkMessage {
    let mut message = message(index, Vec::new());
    message.header.change_mask = LinkFlags::Up;
    if up {
        message.header.flags = LinkFlags::Up;
    }
    message
}

/// Counters are most of a link's bytes and never wanted here.
pub(super) fn no_stats() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

/// RTM_NEWLINK or RTM_DELLINK as a notification.
pub(super) fn event(payload: &[u8], gone: bool) -> Result<Option<Event>, Malformed> {
    let link: Link<Host> = parse(payload, 0)?;
    Ok(Some(Event::Link {
        index: link.index.get(),
        name: link.name.into(),
        gone,
        up: link.up,
        carrier: link.carrier,
    }))
}

/// IFLA_INET6_FLAGS, in IFLA_AF_SPEC.
fn routers(payload: &[u8]) -> Result<Routers, Malformed> {
    const IFLA_INET6_FLAGS: u16 = 1;
    const IF_RA_RCVD: u32 = 0x20;
    const IF_RA_MANAGED: u32 = 0x40;
    const AF_INET6: u16 = 10;
    let attributes = payload.get(16..).unwrap_or_default();
    let families = wire::find(attributes, libc::IFLA_AF_SPEC).unwrap_or_default();
    let inet6 = wire::find(families, AF_INET6).unwrap_or_default();
    // A link without IPv6 has none.
    let flags = wire::find(inet6, IFLA_INET6_FLAGS).map_or(Ok(0), wire::u32_of)?;
    Ok(match flags & IF_RA_RCVD {
        0 => Routers::None,
        _ => Routers::Seen {
            managed: flags & IF_RA_MANAGED != 0,
        },
    })
}

pub(super) fn parse<P: Place>(payload: &[u8], netns: u64) -> Result<Link<P>, Malformed> {
    let header = LinkHeader::parse(payload).map_err(|_| Malformed("link header"))?;
    let flags = header.flags.bits();
    let hardware = u16::from(header.link_layer_type);
    let attributes = payload.get(16..).unwrap_or_default();
    let name = wire::find(attributes, libc::IFLA_IFNAME).map(wire::text_of);
    let info = wire::find(attributes, libc::IFLA_LINKINFO).unwrap_or_default();
    let mut link = Link {
        index: Ifindex {
            number: header.index,
            netns,
            place: PhantomData,
        },
        name: IfName::new(name.unwrap_or_default()).map_err(|_| Malformed("interface name"))?,
        kind: kind_of(hardware, info)?,
        mac: None,
        permanent: None,
        broadcast: None,
        mtu: 0,
        up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        flags,
        hardware,
        operstate: 0,
        qdisc: None,
        txqlen: 0,
        group: 0,
        lower: None,
        lower_netns: None,
        master: None,
        master_kind: wire::find(info, libc::IFLA_INFO_SLAVE_KIND).map(wire::text_of),
        altnames: Vec::new(),
    };
    for attr in wire::attrs(attributes) {
        let (kind, value) = attr?;
        match kind {
            libc::IFLA_ADDRESS => link.mac = wire::mac_of(value),
            IFLA_PERM_ADDRESS => link.permanent = wire::mac_of(value),
            libc::IFLA_BROADCAST => link.broadcast = wire::mac_of(value),
            libc::IFLA_MTU => link.mtu = wire::u32_of(value)?,
            libc::IFLA_OPERSTATE => link.operstate = wire::u8_of(value)?,
            libc::IFLA_QDISC => link.qdisc = Some(wire::text_of(value)),
            libc::IFLA_TXQLEN => link.txqlen = wire::u32_of(value)?,
            libc::IFLA_GROUP => link.group = wire::u32_of(value)?,
            libc::IFLA_LINK => link.lower = Some(wire::u32_of(value)?),
            libc::IFLA_LINK_NETNSID => link.lower_netns = Some(wire::i32_of(value)?),
            libc::IFLA_MASTER => link.master = Some(wire::u32_of(value)?),
            libc::IFLA_PROP_LIST => {
                for property in wire::attrs(value) {
                    if let (IFLA_ALT_IFNAME, altname) = property? {
                        link.altnames.push(wire::text_of(altname));
                    }
                }
            }
            _ => {}
        }
    }
    Ok(link)
}

fn kind_of(hardware: u16, info: &[u8]) -> Result<LinkKind, Malformed> {
    let name = wire::find(info, libc::IFLA_INFO_KIND)
        .map(wire::text_of)
        .unwrap_or_default();
    let data = wire::find(info, libc::IFLA_INFO_DATA).unwrap_or_default();
    let mode = || -> Result<Option<MacvlanMode>, Malformed> {
        let mode = wire::find(data, IFLA_MACVLAN_MODE);
        Ok(mode
            .map(wire::u32_of)
            .transpose()?
            .and_then(MacvlanMode::from_number))
    };
    let known = match name.as_str() {
        "macvlan" => mode()?.map(|mode| LinkKind::Macvlan { mode }),
        "macvtap" => mode()?.map(|mode| LinkKind::Macvtap { mode }),
        "ipvlan" => ipvlan::parse(data)?,
        "vlan" => VlanTag::parse(data)?.map(LinkKind::Vlan),
        "dummy" => Some(LinkKind::Dummy),
        "veth" => Some(LinkKind::Veth),
        "bridge" => Some(LinkKind::Bridge),
        "bond" => wire::find(data, IFLA_BOND_MODE)
            .and_then(<[u8]>::first)
            .map(|mode| LinkKind::Bond(BondMode::from(*mode))),
        "" if hardware == libc::ARPHRD_LOOPBACK => Some(LinkKind::Loopback),
        _ => None,
    };
    Ok(known.unwrap_or(LinkKind::Other(name)))
}

#[cfg(test)]
impl<P: Place> Ifindex<P> {
    pub(super) fn for_test(number: u32) -> Self {
        Self {
            number,
            netns: 0,
            place: PhantomData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::golden::{built, said, unhex};
    use super::*;

    /// The kernel's answer to `ip link show src0`, a macvlan in source mode
    /// (Linux 6.18).
    const ANSWER: &str = include_str!("captures/macvlan-source.hex");

    #[test]
    fn reads_a_macvlan() {
        let bytes = unhex(ANSWER);
        let message = wire::messages(&bytes).next().unwrap().unwrap();
        let link: Link<Host> = parse(message.payload, 0).unwrap();
        assert_eq!(link.index.get(), 4);
        assert_eq!(link.name.as_str(), "src0");
        let mode = MacvlanMode::Source;
        assert_eq!(link.kind, LinkKind::Macvlan { mode });
        assert_eq!(link.mtu, 1500);
        assert_eq!(link.txqlen, 1000);
        assert_eq!(link.qdisc.as_deref(), Some("noop"));
        assert_eq!(link.lower, Some(3));
        assert_eq!(link.lower_netns, None);
        assert_eq!(link.operstate, 2);
        assert!(!link.up && !link.carrier);
        assert!(link.mac.is_some());
    }

    /// Whatever is cut off the end, the rest is an error or a link, not a
    /// panic.
    #[test]
    fn cut_off_anywhere() {
        let bytes = unhex(ANSWER);
        for end in 16..bytes.len() {
            let _ = parse::<Host>(&bytes[16..end], 0);
        }
    }

    /// `ip link set lo up`: iproute2 sends RTM_NEWLINK, which without CREATE
    /// means RTM_SETLINK.
    #[test]
    fn up_touches_one_flag() {
        let theirs = unhex("2000000010000500e8d9046b0000000000000000010000000100000001000000");
        let ours = built(libc::RTM_NEWLINK, &flags_message(LOOPBACK, true));
        assert_eq!(said(&ours, 16), said(&theirs, 16));
    }
}
