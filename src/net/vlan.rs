//! The virtual-LAN driver: macvlan now, with the kind as data so that ipvlan
//! becomes a value and not a second driver.

use std::borrow::Cow;

use super::Attachment;
use super::driver::{Endpoint, HostView};
use super::spec::{Macvlan, NetworkSpec};
use crate::base::{Cause, Error, IfName, MacAddr, NetworkId, Result, Subject};
use crate::netlink::route::Configure;
use crate::netlink::{Ifindex, MacvlanMode, NewLink, Rtnl};
use crate::sys::netns::{Host, Netns, Sandbox};
use crate::sys::sysctl::{Family, NetSysctl};

#[derive(Debug)]
pub(super) struct VlanPlan {
    network: NetworkId,
    internal: bool,
    parent: IfName,
    lower: Ifindex<Host>,
    mode: MacvlanMode,
    sources: Vec<MacAddr>,
    mtu: Option<u32>,
    /// `None`: passthru, as its parent's.
    mac: Option<MacAddr>,
    endpoint: Endpoint,
    /// The first interface of a sandbox also brings its loopback up.
    loopback: bool,
}

pub(super) fn plan(
    network: &NetworkSpec,
    macvlan: &Macvlan,
    endpoint: Endpoint,
    view: &HostView,
) -> Result<VlanPlan> {
    let parent = view.parent.as_ref().ok_or_else(|| {
        Error::not_found(format!(
            "the requested parent interface {} was not found on the Docker host",
            macvlan.parent
        ))
        .hint(format!(
            "network {} needs it; was it renamed or removed?",
            network.name
        ))
    })?;
    if let Some(mtu) = macvlan.mtu.filter(|mtu| *mtu > parent.mtu) {
        return Err(Error::invalid(format!(
            "MTU {mtu} of network {} is above the {} of its parent {}",
            network.name, parent.mtu, macvlan.parent
        ))
        .hint(format!(
            "raise the parent's first: ip link set {} mtu {mtu}",
            macvlan.parent
        )));
    }
    let mac = match (endpoint.mac, endpoint.addr.map(crate::base::Cidr::addr)) {
        (Some(mac), _) => Some(valid_mac(mac)?),
        // Any other would become the parent's, too; nobody has asked for that.
        (None, _) if macvlan.mode == MacvlanMode::Passthru => None,
        (None, Some(std::net::IpAddr::V4(ip))) => Some(MacAddr::from_ipv4(ip)),
        (None, _) => Some(stable_mac(&endpoint.id)),
    };
    Ok(VlanPlan {
        network: network.id.clone(),
        internal: network.internal,
        parent: macvlan.parent.clone(),
        lower: parent.index,
        mode: macvlan.mode,
        sources: macvlan.sources.clone(),
        mtu: macvlan.mtu,
        mac,
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
        let made = host.macvlan_into(&new, netns, sandbox);
        let index = made.map_err(not_made)?;
        let configure = Configure {
            loopback_up: self.loopback,
            mac: self.mac.filter(|_| self.mode == MacvlanMode::Passthru),
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
        let outcome = quiet
            .and_then(|()| sandbox.configure(index, &configure))
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
fn not_made(mut error: Error) -> Error {
    if matches!(error.cause, Cause::Netlink { .. }) {
        error.op = Cow::Borrowed("failed to create the macvlan port");
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
