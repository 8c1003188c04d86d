//! From a network and an endpoint's wishes to an interface: plan (pure), then
//! attach (consumes the plan), later detach (from the record).

use std::net::Ipv6Addr;

use super::endpoint::{Receive, Sysctl};
use super::guard::Guard;
use super::ip6::Link6;
use super::rate::Rates;
use super::spec::{Driver, NetworkSpec};
use super::{Attachment, vlan};
use crate::base::{Cidr, Family, IfName, MacAddr, PerFamily, Result};
use crate::netlink::{Link, Rtnl};
use crate::sys::netns::{Host, Netns, Sandbox};
use crate::sys::sysctl::NetSysctl;

/// What a plan may know of the host: read once, so that planning itself asks
/// the kernel nothing.
#[derive(Debug)]
pub struct HostView {
    /// The network's parent link, if it is there.
    pub parent: Option<Link<Host>>,
}

impl HostView {
    pub fn of(network: &NetworkSpec, host: &mut Rtnl<Host>) -> Result<Self> {
        let parent = match &network.driver {
            Driver::Vlan(vlan) => host.link(vlan.parent.as_str())?,
            Driver::Host | Driver::Null => None,
        };
        Ok(Self { parent })
    }
}

/// One endpoint, with everything decided that needs no kernel: its addresses
/// are leased, its interface name chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// 64 hex digits.
    pub id: String,
    pub ifname: IfName,
    /// The sandbox has no other interface yet.
    pub first: bool,
    pub addrs: PerFamily<Cidr>,
    /// `--link-local-ip`, with Docker's prefix lengths.
    pub link_local: Vec<Cidr>,
    pub ip6: Link6,
    /// Instead of the link-local address that the kernel would make.
    pub own_link_local: Option<Ipv6Addr>,
    pub sysctls: Vec<Sysctl>,
    pub mac: Option<MacAddr>,
    /// The gateways of the addresses' subnets.
    pub gateways: PerFamily<std::net::IpAddr>,
    /// The families whose default route goes here.
    pub default_in: Vec<Family>,
    /// Answers no ARP question yet: whether the address is free is still asked
    /// (see `acd`).
    pub silent: bool,
    pub rates: Rates,
    pub receive: Receive,
}

/// A link to be made in a sandbox.
#[derive(Debug)]
pub struct Plan {
    pub(super) link: vlan::VlanPlan,
}

/// Checks everything that can be known before anything is touched. `None` for
/// networks without an interface of their own (host, none).
pub fn plan(network: &NetworkSpec, endpoint: Endpoint, view: &HostView) -> Result<Option<Plan>> {
    match &network.driver {
        Driver::Vlan(vlan) => Ok(Some(Plan {
            link: vlan::plan(network, vlan, endpoint, view)?,
        })),
        Driver::Host | Driver::Null => Ok(None),
    }
}

impl Plan {
    /// Makes the interface in `netns`, guarded before it is up. On failure
    /// nothing is left: the link is deleted again, and the errors of that are
    /// attached.
    pub fn attach(
        self,
        host: &mut Rtnl<Host>,
        sandbox: &mut Rtnl<Sandbox>,
        netns: &Netns<Sandbox>,
        sysctl: &NetSysctl,
        guard: &mut Option<Guard>,
    ) -> Result<Attachment> {
        self.link.attach(host, sandbox, netns, sysctl, guard)
    }
}

/// Removes the interface that the record names, and then its guard; one that
/// is gone is fine.
pub fn detach(
    attachment: &Attachment,
    sandbox: &mut Rtnl<Sandbox>,
    guard: &mut Option<Guard>,
) -> Result<()> {
    delete(attachment, sandbox)?;
    unguard(attachment, guard)
}

/// Takes the guard of a link that is gone.
pub fn unguard(attachment: &Attachment, guard: &mut Option<Guard>) -> Result<()> {
    match guard {
        Some(guard) => guard.remove(&attachment.ifname),
        None => Ok(()),
    }
}

/// The link alone: when this fails, it is there, and its guard too.
pub fn delete(attachment: &Attachment, sandbox: &mut Rtnl<Sandbox>) -> Result<()> {
    let name = attachment.ifname.as_str();
    match sandbox.link(name)? {
        Some(link) if link.index.get() == attachment.ifindex => {
            let deleted = sandbox.delete_link(link.index);
            // It may be just the kernel's answer that was lost.
            deleted.or_else(|error| match sandbox.link(name) {
                Ok(None) => Ok(()),
                _ => Err(error),
            })
        }
        _ => Ok(()),
    }
}
