//! Making containers' links (macvlan, ipvlan), and saying why it did not work.
//!
//! # Theory of operation
//!
//! One RTM_NEWLINK makes the link *in* the container's namespace: name, MAC,
//! MTU, IFLA_LINK (read in the sender's namespace, where the parent is) and
//! IFLA_NET_NS_FD. With an index asked for in the header nothing needs to be
//! looked up afterwards: in a fresh namespace loopback is 1, so `ethN` gets
//! N + 2. txqueuelen is 0 as Docker sets it (macvlan has no queue).
//!
//! What can be in the way, and the next try:
//!
//! 1. The index is taken in the sandbox (fallback tunnel devices, an interface
//!    with a chosen name), or, before Linux 6.14, in the *host*: that kernel
//!    looks an existing link up in the sender's namespace first. EEXIST, or
//!    EBUSY from `register_netdevice` → without an index, looked up by name.
//! 2. EEXIST again: the name. If the sandbox has it, that is the error. If it
//!    does not, an old kernel found it in the host → made under a name that
//!    nobody has, renamed inside.
//!
//! Linux 6.18 needs the first try only.
//!
//! Passthru is apart: the kernel gives such a link its parent's MAC whatever
//! the request says. Another one is set afterwards (`Configure::mac`), which
//! sets the parent's too; with the link the parent's own comes back.
//!
//! A parent is macvlan's (macvtap's included) or ipvlan's, never both: the
//! first link takes its receive handler, and the other kind then gets EBUSY.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkInfo, LinkMessage, MacVlanMacAddressMode,
    MacVlanMode,
};
use serde::{Deserialize, Serialize};

use super::ipvlan::{self, Mode};
use super::link::{self, Ifindex, Link, LinkKind, MacvlanMode};
use super::obstacle::Obstacle;
use super::route::{BUSY_PAUSE, BUSY_TRIES};
use super::socket::{Fault, Rtnl};
use crate::base::{Error, IfName, MacAddr, Result};
use crate::sys::netns::{Host, Netns, Place, Sandbox};

/// A macvlan or ipvlan to be made.
#[derive(Clone, Debug)]
pub struct NewLink<'a> {
    pub name: &'a IfName,
    pub lower: Ifindex<Host>,
    pub mode: Mode,
    /// MACs accepted in source mode (IFLA_MACVLAN_MACADDR_SET).
    pub sources: &'a [MacAddr],
    /// An ipvlan has its parent's.
    pub mac: Option<MacAddr>,
    pub mtu: Option<u32>,
    pub broadcast: Broadcast,
}

/// How a macvlan's parent hands broadcasts to its links. `None`: as the kernel
/// does. Both concern the parent: its queue is as long as the longest that one
/// of its links asks for, and the cutoff is the one given last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    /// Frames (IFLA_MACVLAN_BC_QUEUE_LEN; the kernel's own is 1000).
    #[serde(default)]
    pub queue_len: Option<u32>,
    /// Frames to a group that more links than these have joined go by the
    /// queue, others at once; -1: all at once (IFLA_MACVLAN_BC_CUTOFF, Linux
    /// 6.4; the kernel's own is 1).
    #[serde(default)]
    pub cutoff: Option<i32>,
}

impl NewLink<'_> {
    fn message(&self, lower: u32, place: &Placement<'_>) -> LinkMessage {
        let mut attributes = Vec::with_capacity(8);
        attributes.push(LinkAttribute::IfName(place.name.to_owned()));
        if let Some(mac) = self.mac {
            attributes.push(LinkAttribute::Address(mac.0.to_vec()));
        }
        if let Some(mtu) = self.mtu {
            attributes.push(LinkAttribute::Mtu(mtu));
        }
        attributes.push(LinkAttribute::Link(lower));
        if let Some(netns) = place.netns {
            attributes.push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
        }
        attributes.push(LinkAttribute::TxQueueLen(0));
        let (kind, data) = match self.mode {
            Mode::Macvlan(mode) => self.macvlan_info(mode),
            Mode::Ipvlan { ipvlan, flag } => ipvlan::info(ipvlan, flag),
        };
        attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(kind),
            LinkInfo::Data(data),
        ]));
        link::message(place.index, attributes)
    }

    fn macvlan_info(&self, mode: MacvlanMode) -> (InfoKind, InfoData) {
        let mut data = vec![InfoMacVlan::Mode(mode.into())];
        if mode == MacvlanMode::Source {
            let sources = self.sources.iter().map(|mac| InfoMacVlan::MacAddr(mac.0));
            data.push(InfoMacVlan::MacAddrMode(MacVlanMacAddressMode::Set));
            data.push(InfoMacVlan::MacAddrData(sources.collect()));
        }
        data.extend(self.broadcast.queue_len.map(InfoMacVlan::BcQueueLen));
        data.extend(self.broadcast.cutoff.map(InfoMacVlan::BcCutoff));
        (InfoKind::MacVlan, InfoData::MacVlan(data))
    }
}

impl From<MacvlanMode> for MacVlanMode {
    fn from(mode: MacvlanMode) -> Self {
        match mode {
            MacvlanMode::Bridge => Self::Bridge,
            MacvlanMode::Private => Self::Private,
            MacvlanMode::Vepa => Self::Vepa,
            MacvlanMode::Passthru => Self::Passthrough,
            MacvlanMode::Source => Self::Source,
        }
    }
}

fn is_other_kind(link: &Link<Host>, mode: Mode) -> bool {
    match link.kind {
        LinkKind::Macvlan { .. } | LinkKind::Macvtap { .. } => mode.is_ipvlan(),
        LinkKind::Ipvlan { .. } => !mode.is_ipvlan(),
        _ => false,
    }
}

/// Where and as what the link appears; index 0 leaves it to the kernel.
#[derive(Clone, Copy, Debug)]
struct Placement<'a> {
    name: &'a str,
    index: u32,
    netns: Option<BorrowedFd<'a>>,
}

impl Rtnl<Host> {
    /// A link made straight in `target` (IFLA_NET_NS_FD), down, txqueuelen
    /// 0. Asks for an index so that no lookup is needed; where the kernel
    /// refuses, see the top of this file.
    pub fn link_into(
        &mut self,
        new: &NewLink<'_>,
        target: &Netns<Sandbox>,
        sandbox: &mut Rtnl<Sandbox>,
    ) -> Result<Ifindex<Sandbox>> {
        let plain = Placement {
            name: new.name.as_str(),
            index: 0,
            netns: Some(target.as_fd()),
        };
        let index = usual_index(new.name);
        if index != 0 {
            match self.try_link(new, &Placement { index, ..plain })? {
                Ok(()) => return Ok(sandbox.index(index)),
                Err(fault) if matches!(fault.errno(), libc::EEXIST | libc::EBUSY) => {}
                Err(fault) => return Err(self.explain(new, fault)),
            }
        }
        match self.try_link(new, &plain)? {
            Ok(()) => sandbox.created(new.name),
            Err(fault)
                if fault.errno() == libc::EEXIST && sandbox.link(new.name.as_str())?.is_none() =>
            {
                self.link_renamed(new, &plain, sandbox)
            }
            Err(fault) => Err(self.explain(new, fault)),
        }
    }

    /// Under a name that neither namespace has, then renamed inside.
    fn link_renamed(
        &mut self,
        new: &NewLink<'_>,
        plain: &Placement<'_>,
        sandbox: &mut Rtnl<Sandbox>,
    ) -> Result<Ifindex<Sandbox>> {
        let unique = IfName::new(format!("dl{}", std::process::id()))?;
        let name = unique.as_str();
        if let Err(fault) = self.try_link(new, &Placement { name, ..*plain })? {
            return Err(self.explain(new, fault));
        }
        let index = sandbox.created(&unique)?;
        match sandbox.rename(index, new.name) {
            Ok(()) => Ok(index),
            Err(error) => {
                let undo = sandbox.delete_link(index).err();
                Err(error.with_undo(undo.into_iter().collect()))
            }
        }
    }

    /// A link in the host's own namespace (host access).
    pub fn link_here(&mut self, new: &NewLink<'_>) -> Result<Ifindex<Host>> {
        let here = Placement {
            name: new.name.as_str(),
            index: 0,
            netns: None,
        };
        match self.try_link(new, &here)? {
            Ok(()) => self.created(new.name),
            Err(fault) => Err(self.explain(new, fault)),
        }
    }

    /// EINVAL beside passthru, EBUSY beside the other kind, may be the work of a
    /// link whose namespace is just being cleared up: it is tried again for up
    /// to 200 ms.
    fn try_link(
        &mut self,
        new: &NewLink<'_>,
        place: &Placement<'_>,
    ) -> Result<std::result::Result<(), Fault>> {
        let message = new.message(self.own(new.lower)?, place);
        let mut tries = BUSY_TRIES;
        loop {
            let outcome =
                self.channel
                    .request(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &message);
            match &outcome {
                Err(fault) if is_passing(fault.errno(), place) && tries > 0 => {
                    tries -= 1;
                    std::thread::sleep(BUSY_PAUSE);
                }
                _ => return Ok(outcome),
            }
        }
    }

    /// The link that keeps `mac` from being used on `parent`, as far as this
    /// namespace can see it: the parent itself or one of its macvlans here.
    pub fn mac_holder(&mut self, parent: Ifindex<Host>, mac: MacAddr) -> Result<Option<IfName>> {
        let parent = self.own(parent)?;
        Ok(self
            .links()?
            .into_iter()
            .find(|l| {
                l.mac == Some(mac)
                    && (l.index.get() == parent
                        || (l.lower == Some(parent) && l.lower_netns.is_none()))
            })
            .map(|l| l.name))
    }

    /// The errno a user really meets, with what is behind it and what to do.
    fn explain(&mut self, new: &NewLink<'_>, fault: Fault) -> Error {
        let errno = fault.errno();
        let kind = new.mode.kind();
        let op = match new.mode {
            Mode::Macvlan(_) => "create macvlan link",
            Mode::Ipvlan { .. } => "create ipvlan link",
        };
        let error = fault.named(op, new.name);
        let parent = self.link_by_index(new.lower.get()).ok().flatten();
        let Some(parent) = parent else {
            return error.hint("its parent interface does not exist any more");
        };
        let link = parent.name.to_string();
        match errno {
            libc::EBUSY => {
                let master = parent.master.map(|master| self.label(self.index(master)));
                let port = Obstacle::port(&parent, &master.unwrap_or_default().to_string());
                let why = port.unwrap_or_else(|| {
                    match self.upper(parent.index, |l| is_other_kind(l, new.mode)) {
                        Some(holder) => Obstacle::OtherKind { link, holder, kind },
                        None => Obstacle::Taken { link },
                    }
                });
                error.hint(why.to_string())
            }
            libc::EINVAL => match self.passthru_clash(new, parent.index) {
                Some(hint) => error.hint(hint),
                None if parent.kind == LinkKind::Loopback
                    || parent.hardware != libc::ARPHRD_ETHER =>
                {
                    error.hint(Obstacle::NotEthernet { link }.to_string())
                }
                None => error.hint(Obstacle::PassthruElsewhere { link }.to_string()),
            },
            libc::EEXIST => error.hint("an interface of that name exists there already"),
            libc::EOPNOTSUPP => error.hint(Obstacle::NoDriver { kind }.to_string()),
            libc::EPERM => error.hint(Obstacle::NoRights { link }.to_string()),
            libc::EADDRNOTAVAIL => error.hint("no interface can own that MAC address"),
            libc::ELOOP => error.hint(format!("too many links are stacked below {link}")),
            _ => error.hint(format!("dockless doctor {link} looks for the cause")),
        }
    }

    /// A link of this namespace that stands on `parent`, with its kind.
    fn upper(
        &mut self,
        parent: Ifindex<Host>,
        is_meant: impl Fn(&Link<Host>) -> bool,
    ) -> Option<String> {
        let links = self.links().ok()?;
        let found = links
            .into_iter()
            .find(|l| l.lower == Some(parent.get()) && l.lower_netns.is_none() && is_meant(l))?;
        Some(match found.kind {
            LinkKind::Macvtap { .. } => format!("{} (macvtap)", found.name),
            LinkKind::Ipvlan { .. } => format!("{} (ipvlan)", found.name),
            _ => found.name.to_string(),
        })
    }

    /// EINVAL has no ext-ACK text where passthru is involved: a passthru link
    /// takes the parent alone. The other one may live in another namespace,
    /// out of our sight, so a passthru request alone is reason enough.
    fn passthru_clash(&mut self, new: &NewLink<'_>, parent: Ifindex<Host>) -> Option<String> {
        const PASSTHRU: MacvlanMode = MacvlanMode::Passthru;
        let macvlan = |l: &Link<Host>| match l.kind {
            LinkKind::Macvlan { mode } | LinkKind::Macvtap { mode } => Some(mode),
            _ => None,
        };
        let alone = self.upper(parent, |l| macvlan(l) == Some(PASSTHRU));
        let holder = self.upper(parent, |l| macvlan(l).is_some());
        match (alone, holder) {
            (Some(name), _) => {
                Some(format!("{name} uses the parent in passthru mode, which shares it with nobody"))
            }
            (None, Some(name)) if new.mode.is_passthru() => Some(format!(
                "passthru takes the parent for itself, and {name} uses it already"
            )),
            _ if new.mode.is_passthru() => Some(
                "passthru takes the parent for itself: stop the container that uses it, or remove its other macvlan links (in any namespace) first"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// With an index asked for, EBUSY is about the index.
fn is_passing(errno: i32, place: &Placement<'_>) -> bool {
    errno == libc::EINVAL || errno == libc::EBUSY && place.index == 0
}

/// `ethN` gets N + 2; other names have no usual place (0).
fn usual_index(name: &IfName) -> u32 {
    name.as_str()
        .strip_prefix("eth")
        .and_then(|n| n.parse::<u8>().ok())
        .map_or(0, |n| u32::from(n) + 2)
}

impl<P: Place> Rtnl<P> {
    /// Why `index` cannot come up with EADDRINUSE (before 5.8: EBUSY): who else
    /// has its MAC on the same parent.
    pub(super) fn busy_mac_hint(&mut self, index: Ifindex<P>) -> Option<String> {
        let links = self.links().ok()?;
        let own = links.iter().find(|l| l.index == index)?;
        let mac = own.mac?;
        let holder = links.iter().find(|l| {
            l.index != own.index
                && l.mac == Some(mac)
                && (l.lower, l.lower_netns) == (own.lower, own.lower_netns)
        });
        let parent = links
            .iter()
            .find(|l| Some(l.index.get()) == own.lower && l.mac == Some(mac))
            .filter(|_| own.lower_netns.is_none());
        // From a container neither the parent nor others' links are seen.
        let holder = holder.or(parent).map_or_else(
            || "the parent itself, or by a link on it in another network namespace".to_owned(),
            |l| format!("{} on the same parent", l.name),
        );
        Some(format!("its MAC address {mac} is already used by {holder}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{
        find,
        golden::{built, said, sorted, unhex},
    };
    use super::*;
    use crate::base::Cause;
    use std::os::fd::AsFd;

    /// `ip link add link eth1 name eth0 index 2 address 02:42:0a:00:02:05 mtu
    /// 1400 txqueuelen 0 netns PID type macvlan mode bridge` (IFLA_NET_NS_PID
    /// where we send IFLA_NET_NS_FD).
    #[test]
    fn says_what_ip_link_add_says() {
        let theirs = unhex(
            "7400000010000506e7d9046b00000000000000000200000000000000000000000a000100
             02420a0002050000080004007805000008000d0000000000080013006c43000008000500
             030000000900030065746830000000001c0012000b0001006d6163766c616e000c000200
             0800010004000000",
        );
        let name = IfName::new("eth0").unwrap();
        let new = NewLink {
            name: &name,
            lower: Ifindex::for_test(3),
            mode: MacvlanMode::Bridge.into(),
            sources: &[],
            mac: Some("02:42:0a:00:02:05".parse().unwrap()),
            mtu: Some(1400),
            broadcast: Broadcast::default(),
        };
        let stdin = std::io::stdin();
        let place = Placement {
            name: "eth0",
            index: 2,
            netns: Some(stdin.as_fd()),
        };
        let ours = built(libc::RTM_NEWLINK, &new.message(3, &place));
        let (kind, header, mut ours) = said(&ours, 16);
        let (their_kind, their_header, mut theirs) = said(&theirs, 16);
        assert_eq!((kind, header), (their_kind, their_header));
        let info = |all: &mut Vec<(u16, Vec<u8>)>| {
            let at = all
                .iter()
                .position(|(k, _)| *k == libc::IFLA_LINKINFO)
                .unwrap();
            all.remove(at).1
        };
        let (ours_info, their_info) = (info(&mut ours), info(&mut theirs));
        ours.retain(|(k, _)| *k != libc::IFLA_NET_NS_FD);
        theirs.retain(|(k, _)| *k != libc::IFLA_NET_NS_PID);
        assert_eq!(ours, theirs);
        let kind = find(&ours_info, libc::IFLA_INFO_KIND).unwrap();
        assert!(kind.starts_with(b"macvlan"));
        assert_eq!(
            find(&ours_info, libc::IFLA_INFO_DATA),
            find(&their_info, libc::IFLA_INFO_DATA)
        );
    }

    /// `ip link add link eth1 name src0 type macvlan mode source macaddr set
    /// 02:00:00:00:00:01 02:00:00:00:00:02`
    #[test]
    fn source_mode_carries_its_list() {
        let theirs = unhex(
            "08000300030000001c0005000a00040002000000000100000a0004000200000000020000
             0800010010000000",
        );
        let name = IfName::new("src0").unwrap();
        let sources = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];
        let new = NewLink {
            name: &name,
            lower: Ifindex::for_test(3),
            mode: MacvlanMode::Source.into(),
            sources: &sources,
            mac: None,
            mtu: None,
            broadcast: Broadcast::default(),
        };
        let place = Placement {
            name: "src0",
            index: 0,
            netns: None,
        };
        let ours = built(libc::RTM_NEWLINK, &new.message(3, &place));
        let info = find(&ours[32..], libc::IFLA_LINKINFO).unwrap();
        let data = find(info, libc::IFLA_INFO_DATA).unwrap();
        assert_eq!(sorted(data), sorted(&theirs));
    }

    /// What a kernel answers to a kind of link that it does not know; every
    /// kernel that can run the other tests knows macvlan.
    #[test]
    fn a_kernel_without_macvlan_is_told_apart() {
        let mut host = Rtnl::host().unwrap();
        let lo = host.link("lo").unwrap().unwrap().index;
        let name = IfName::new("eth0").unwrap();
        let new = NewLink {
            name: &name,
            lower: lo,
            mode: MacvlanMode::Bridge.into(),
            sources: &[],
            mac: None,
            mtu: None,
            broadcast: Broadcast::default(),
        };
        let cause = Cause::Netlink {
            errno: libc::EOPNOTSUPP,
            ext_ack: Some("Unknown device type".to_owned()),
            attr_offset: None,
        };
        let error = host.explain(&new, Fault { request: 0, cause });
        assert_eq!(
            error.to_string(),
            "create macvlan link eth0: operation not supported: Unknown \
             device type (this kernel has no macvlan driver loaded: try \"modprobe macvlan\")"
        );
        assert!(error.is_errno(libc::EOPNOTSUPP));
    }

    #[test]
    fn usual_places() {
        let index = |name| usual_index(&IfName::new(name).unwrap());
        assert_eq!(index("eth0"), 2);
        assert_eq!(index("eth253"), 255);
        for other in ["eth", "eth999", "lan0", "eth0.1", "eth-1"] {
            assert_eq!(index(other), 0, "{other}");
        }
    }
}
