//! The virtual-LAN driver: macvlan and ipvlan, the kind as data.

use std::borrow::Cow;

use super::Attachment;
use super::acd::SILENT;
use super::driver::{Endpoint, HostView};
use super::spec::{NetworkSpec, Vlan};
use crate::base::{Cause, Cidr, Error, IfName, MacAddr, NetworkId, Result, Subject};
use crate::netlink::route::Configure;
use crate::netlink::{Ifindex, Mode, NewLink, Rtnl};
use crate::sys::netns::{Host, Netns, Sandbox};
use crate::sys::sysctl::{Family, NetSysctl};

#[derive(Debug)]
pub(super) struct VlanPlan {
    network: NetworkId,
    internal: bool,
    parent: IfName,
    lower: Ifindex<Host>,
    mode: Mode,
    sources: Vec<MacAddr>,
    mtu: Option<u32>,
    /// `None`: passthru or ipvlan, as its parent's.
    mac: Option<MacAddr>,
    /// The network's other subnets, for an ipvlan whose host routes.
    others: Vec<Cidr>,
    endpoint: Endpoint,
    /// The first interface of a sandbox also brings its loopback up.
    loopback: bool,
}

pub(super) fn plan(
    network: &NetworkSpec,
    vlan: &Vlan,
    endpoint: Endpoint,
    view: &HostView,
) -> Result<VlanPlan> {
    let parent = view.parent.as_ref().ok_or_else(|| {
        Error::not_found(format!(
            "the requested parent interface {} was not found on the Docker host",
            vlan.parent
        ))
        .hint(format!(
            "network {} needs it; was it renamed or removed?",
            network.name
        ))
    })?;
    if let Some(mtu) = vlan.mtu.filter(|mtu| *mtu > parent.mtu) {
        return Err(Error::invalid(format!(
            "MTU {mtu} of network {} is above the {} of its parent {}",
            network.name, parent.mtu, vlan.parent
        ))
        .hint(format!(
            "raise the parent's first: ip link set {} mtu {mtu}",
            vlan.parent
        )));
    }
    let mac = match (endpoint.mac, endpoint.addr.map(Cidr::addr)) {
        (Some(_), _) if vlan.mode.is_ipvlan() => {
            return Err(Error::invalid(
                "ipvlan interfaces do not support custom mac address assignment",
            )
            .hint("they all have their parent's"));
        }
        (Some(mac), _) => Some(valid_mac(mac)?),
        // Any other would become the parent's, too; nobody has asked for that.
        (None, _) if vlan.mode.has_parents_mac() => None,
        (None, Some(std::net::IpAddr::V4(ip))) => Some(MacAddr::from_ipv4(ip)),
        (None, _) => Some(stable_mac(&endpoint.id)),
    };
    let own = endpoint.addr.map(Cidr::network);
    let subnets = network.pools.iter().map(|pool| pool.subnet);
    let others = subnets.filter(|subnet| Some(*subnet) != own && vlan.mode.is_l3());
    Ok(VlanPlan {
        network: network.id.clone(),
        internal: network.is_internal(),
        parent: vlan.parent.clone(),
        lower: parent.index,
        mode: vlan.mode,
        sources: vlan.sources.clone(),
        mtu: vlan.mtu,
        mac,
        others: others.collect(),
        loopback: endpoint.ifname.as_str() == "eth0",
        endpoint,
    })
}

fn valid_mac(mac: MacAddr) -> Result<MacAddr> {
    if mac.is_multicast() || mac.is_zero() {
        return Err(Error::invalid(format!(
            "{mac} is not a valid mac address for an interface: it is a group or zero address"
        ))
        .hint("the first byte of one's own is 02: 02:00:00:00:00:01"));
    }
    Ok(mac)
}

/// Without an address: from a random id (hex), made unicast and locally
/// administered (bit 0 clear, bit 1 set in the first byte), as Docker does.
pub(super) fn stable_mac(id: &str) -> MacAddr {
    let mut mac = [0; 6];
    for (i, byte) in mac.iter_mut().enumerate() {
        *byte = id
            .get(2 * i..2 * i + 2)
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .unwrap_or_default();
    }
    mac[0] = (mac[0] & !1) | 2;
    MacAddr(mac)
}

impl VlanPlan {
    pub(super) fn attach(
        self,
        host: &mut Rtnl<Host>,
        sandbox: &mut Rtnl<Sandbox>,
        netns: &Netns<Sandbox>,
        sysctl: &NetSysctl,
    ) -> Result<Attachment> {
        let new = NewLink {
            name: &self.endpoint.ifname,
            lower: self.lower,
            mode: self.mode,
            sources: &self.sources,
            mac: self.mac,
            mtu: self.mtu,
        };
        let made = host.link_into(&new, netns, sandbox);
        let index = made.map_err(|error| not_made(self.mode, error))?;
        let configure = Configure {
            loopback_up: self.loopback,
            mac: self.mac.filter(|_| self.mode.is_passthru()),
            addrs: self.endpoint.addr.into_iter().collect(),
            up: true,
            gateway: self
                .endpoint
                .gateway
                .filter(|_| self.endpoint.default_route && !self.internal),
        };
        // Before the link is up: else the kernel would make a link-local address
        // and solicit routers on the LAN.
        let quiet = if sysctl.has_ipv6() {
            let name = format!("conf/{}/disable_ipv6", self.endpoint.ifname);
            sysctl.write(Family::Ipv6, &name, "1")
        } else {
            Ok(())
        };
        let silent = if self.endpoint.silent {
            let name = format!("conf/{}/arp_ignore", self.endpoint.ifname);
            sysctl.write(Family::Ipv4, &name, SILENT)
        } else {
            Ok(())
        };
        let outcome = quiet
            .and(silent)
            .and_then(|()| sandbox.configure(index, &configure))
            .and_then(|()| self.route_l3(sandbox, index))
            .and_then(|()| self.own_mac(sandbox, index));
        let mac = match outcome {
            Ok(mac) => mac,
            Err(error) => {
                let undo = sandbox.delete_link(index).err();
                return Err(error.with_undo(undo.into_iter().collect()));
            }
        };
        Ok(Attachment {
            network: self.network,
            endpoint: self.endpoint.id,
            ifname: self.endpoint.ifname,
            ifindex: index.get(),
            parent: self.parent,
            mode: self.mode,
            mac,
            addr: self.endpoint.addr,
            gateway: self.endpoint.gateway,
            internal: self.internal,
        })
    }

    /// The host routes: no next hop. Where the default route may not go this
    /// way, the rest of the network still does.
    fn route_l3(&self, sandbox: &mut Rtnl<Sandbox>, index: Ifindex<Sandbox>) -> Result<()> {
        if !self.mode.is_l3() || self.endpoint.addr.is_none() {
            return Ok(());
        }
        if self.endpoint.default_route && !self.internal {
            return sandbox.add_link_route(Cidr::DEFAULT_V4, index, None);
        }
        self.others
            .iter()
            .try_for_each(|subnet| sandbox.add_link_route(*subnet, index, None))
    }

    fn own_mac(&self, sandbox: &mut Rtnl<Sandbox>, index: Ifindex<Sandbox>) -> Result<MacAddr> {
        if let Some(mac) = self.mac {
            return Ok(mac);
        }
        let link = sandbox.link_by_index(index.get())?;
        link.and_then(|link| link.mac)
            .ok_or_else(|| Error::not_found(format!("{} has no MAC address", self.endpoint.ifname)))
    }
}

/// In Docker's words, with the kernel's reason.
fn not_made(mode: Mode, mut error: Error) -> Error {
    if matches!(error.cause, Cause::Netlink { .. }) {
        error.op = Cow::Borrowed(match mode {
            Mode::Macvlan(_) => "failed to create the macvlan port",
            Mode::Ipvlan { .. } => "failed to create the ipvlan port",
        });
        error.subject = Subject::None;
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_unicast_and_local() {
        let mac = stable_mac(&"ff".repeat(32));
        assert_eq!(mac.to_string(), "fe:ff:ff:ff:ff:ff");
        assert!(!mac.is_multicast());
        assert!(valid_mac("01:00:5e:00:00:01".parse().unwrap()).is_err());
        assert!(valid_mac(MacAddr([0; 6])).is_err());
    }
}
