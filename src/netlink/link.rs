//! Links: create, look up, change, delete.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use super::socket::Rtnl;
use crate::base::{IfName, MacAddr, Result};
use crate::sys::netns::{Host, Netns, Place, Sandbox};

/// An interface index in the namespace of an `Rtnl<P>`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Ifindex<P: Place>(u32, PhantomData<fn() -> P>);
impl<P: Place> Clone for Ifindex<P> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<P: Place> Copy for Ifindex<P> {}
impl<P: Place> Ifindex<P> {
    /// The number, for display and for records.
    pub fn get(self) -> u32 {
        self.0
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

/// What a link is, as far as dockless cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    Macvlan {
        mode: MacvlanMode,
    },
    Veth,
    Bridge,
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
    pub mtu: u32,
    /// IFF_UP
    pub up: bool,
    /// IFF_LOWER_UP
    pub carrier: bool,
    /// IFLA_LINK: the lower link's index, in `lower_netns` if that is set.
    pub lower: Option<u32>,
    /// IFLA_LINK_NETNSID: the lower link lives in another namespace.
    pub lower_netns: Option<i32>,
    /// IFLA_MASTER (bridge or bond it is a port of) and that master's kind.
    pub master: Option<u32>,
    pub altnames: Vec<String>,
}

/// A macvlan to be made.
#[derive(Clone, Debug)]
pub struct NewLink<'a> {
    pub name: &'a IfName,
    pub lower: Ifindex<Host>,
    pub mode: MacvlanMode,
    /// MACs accepted in source mode (IFLA_MACVLAN_MACADDR_SET).
    pub sources: &'a [MacAddr],
    pub mac: Option<MacAddr>,
    pub mtu: Option<u32>,
}

impl Rtnl<Host> {
    /// A macvlan made straight in `target` (IFLA_NET_NS_FD), down, txqueuelen
    /// 0. Asks for `index` so that no lookup is needed; where the kernel
    /// refuses (index taken, name taken in the host: EEXIST), falls back to
    /// create under a temporary name, move, rename.
    pub fn macvlan_into(
        &mut self,
        _new: &NewLink<'_>,
        _target: &Netns<Sandbox>,
        _sandbox: &mut Rtnl<Sandbox>,
    ) -> Result<Ifindex<Sandbox>> {
        todo!()
    }

    /// A macvlan in the host's own namespace (host access).
    pub fn macvlan_here(&mut self, _new: &NewLink<'_>) -> Result<Ifindex<Host>> {
        todo!()
    }
}

impl<P: Place> Rtnl<P> {
    /// By name or altname (IFLA_ALT_IFNAME); `None` if there is none.
    pub fn link(&mut self, _name: &str) -> Result<Option<Link<P>>> {
        todo!()
    }
    pub fn link_by_index(&mut self, _index: u32) -> Result<Option<Link<P>>> {
        todo!()
    }
    pub fn links(&mut self) -> Result<Vec<Link<P>>> {
        todo!()
    }
    pub fn set_up(&mut self, _index: Ifindex<P>) -> Result<()> {
        todo!()
    }
    pub fn set_down(&mut self, _index: Ifindex<P>) -> Result<()> {
        todo!()
    }
    pub fn set_mac(&mut self, _index: Ifindex<P>, _mac: MacAddr) -> Result<()> {
        todo!()
    }
    pub fn rename(&mut self, _index: Ifindex<P>, _name: &IfName) -> Result<()> {
        todo!()
    }
    /// RTM_DELLINK; a link that is gone already is fine. Waits for an RCU
    /// grace period in the kernel (15 to 30 ms).
    pub fn delete_link(&mut self, _index: Ifindex<P>) -> Result<()> {
        todo!()
    }
    /// A veth pair: `name` here, `peer` in `peer_netns` (lab).
    pub fn veth(
        &mut self,
        _name: &IfName,
        _peer: &IfName,
        _peer_netns: &Netns<Sandbox>,
    ) -> Result<()> {
        todo!()
    }
    pub fn bridge(&mut self, _name: &IfName) -> Result<Ifindex<P>> {
        todo!()
    }
    pub fn set_master(&mut self, _index: Ifindex<P>, _master: Option<Ifindex<P>>) -> Result<()> {
        todo!()
    }
    /// loopback up (index 1).
    pub fn loopback_up(&mut self) -> Result<()> {
        todo!()
    }
}
