//! The virtual-LAN driver: macvlan and ipvlan, the kind as data.

use std::borrow::Cow;

use super::acd::SILENT;
use super::driver::{Endpoint, HostView};
use super::endpoint::{Receive, Sysctl};
use super::guard::{self, Addrs, Guard, Identity};
use super::ip6::{Link6, Router, link_local};
use super::rate;
use super::spec::{self, NetworkSpec, Vlan};
use super::{Attachment, Carrier, LinkState};
use crate::base::{
    Cause, Cidr, Error, Family, IfName, MacAddr, NetworkId, OfFamily, PerFamily, Result, Subject,
};
use crate::netlink::route::Configure;
use crate::netlink::{Broadcast, Ifindex, Mode, NewLink, Rtnl};
use crate::sys::netns::{Host, Netns, Sandbox};
use crate::sys::sysctl::NetSysctl;

#[derive(Debug)]
pub(super) struct VlanPlan {
    network: NetworkId,
    internal: bool,
    parent: IfName,
    carries: bool,
    lower: Ifindex<Host>,
    mode: Mode,
    sources: Vec<MacAddr>,
    mtu: Option<u32>,
    broadcast: Broadcast,
    /// `None`: passthru or ipvlan, as its parent's.
    mac: Option<MacAddr>,
    /// The network's other subnets, for an ipvlan whose host routes.
    others: Vec<Cidr>,
    endpoint: Endpoint,
    guard: spec::Guard,
    /// Whose sender the guard lets pass: an own one's, or else the parent's.
    sender: Option<MacAddr>,
    senders: Addrs,
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
            "network {0} needs it; `ip link` shows what there is. A link that has another name \
             now is found under this one by `ip link property add dev NAME altname {1}`",
            network.name, vlan.parent
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
    let mac = match (endpoint.mac, endpoint.addrs.values().next()) {
        (Some(_), _) if vlan.mode.is_ipvlan() => {
            return Err(Error::invalid(
                "ipvlan interfaces do not support custom mac address assignment",
            )
            .hint("they all have their parent's"));
        }
        (Some(mac), _) => Some(valid_mac(mac)?),
        // Any other would become the parent's, too; nobody has asked for that.
        (None, _) if vlan.mode.has_parents_mac() => None,
        (None, Some(addr)) => Some(MacAddr::from_ip(addr.addr())),
        (None, None) => Some(stable_mac(&endpoint.id)),
    };
    check_receive(&endpoint.receive, vlan.mode)?;
    let own = endpoint
        .addrs
        .values()
        .chain(endpoint.link_local.iter().copied());
    let own = || own.map(Cidr::addr).collect();
    let senders = match (endpoint.ip6.is_by_lan(), network.ipv4 || network.ipv6) {
        (true, _) => Addrs::Lan(own(), endpoint.ip6.token()),
        (false, true) => Addrs::Own(own()),
        (false, false) => Addrs::Any,
    };
    let subnets = network.pools.iter().map(|pool| pool.subnet);
    let is_other = |subnet: &Cidr| {
        let own = endpoint.addrs.of(subnet.family());
        own.is_some_and(|own| own.network() != *subnet) && vlan.mode.is_l3()
    };
    let others: Vec<Cidr> = subnets.filter(is_other).collect();
    Ok(VlanPlan {
        network: network.id.clone(),
        internal: network.is_internal(),
        // It may have been named by an altname.
        parent: parent.name.clone(),
        carries: parent.up && parent.carrier,
        lower: parent.index,
        mode: vlan.mode,
        sources: vlan.sources.clone(),
        mtu: vlan.mtu,
        broadcast: vlan.broadcast,
        mac,
        others,
        guard: network.guard,
        sender: mac.or(parent.mac),
        senders,
        endpoint,
    })
}

/// The kernel hands frames to macvlans by MAC, and to ipvlans by address: only
/// who has the parent alone can be given others'.
fn check_receive(receive: &Receive, mode: Mode) -> Result<()> {
    let what = match (receive.promisc, receive.macs.is_empty()) {
        (true, _) => "promisc=on",
        (false, false) => "extra-mac",
        (false, true) => return Ok(()),
    };
    if mode.is_passthru() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{what} has no effect on a link in {mode} mode: the kernel gives it no frames to other \
         MACs than its own"
    ))
    .hint(
        "a network with -o macvlan_mode=passthru has the parent for one container, with all of \
         its frames; allmulti=on gives a link every group's frames in each mode",
    ))
}

/// One that an interface can have.
pub fn valid_mac(mac: MacAddr) -> Result<MacAddr> {
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
        guard: &mut Option<Guard>,
    ) -> Result<Attachment> {
        let new = NewLink {
            name: &self.endpoint.ifname,
            lower: self.lower,
            mode: self.mode,
            sources: &self.sources,
            mac: self.mac,
            mtu: self.mtu,
            broadcast: self.broadcast,
        };
        let made = host.link_into(&new, netns, sandbox);
        let index = made.map_err(|error| not_made(self.mode, error))?;
        let outcome = self
            .endpoint
            .ip6
            .tell(
                sysctl,
                &self.endpoint.ifname,
                self.endpoint.own_link_local.is_some(),
            )
            .and_then(|()| self.silence(sysctl))
            .and_then(|()| self.guard(netns, guard))
            .and_then(|state| self.hear_routers(sysctl, &state).map(|()| state))
            .and_then(|state| self.configure(sandbox, index, sysctl).map(|()| state))
            .and_then(|state| self.route_l3(sandbox, index).map(|()| state))
            .and_then(|state| self.receive(sandbox, index).map(|()| state))
            .and_then(|state| self.limit(sandbox, netns, index, guard).map(|()| state))
            .and_then(|state| Ok((state, self.own_mac(sandbox, index)?)));
        let (guarded, mac) = match outcome {
            Ok(known) => known,
            Err(error) => {
                let deleted = sandbox.delete_link(index).err();
                let ifname = &self.endpoint.ifname;
                let bare = guard.as_mut().and_then(|g| g.remove(ifname).err());
                return Err(error.with_undo(deleted.into_iter().chain(bare).collect()));
            }
        };
        Ok(Attachment {
            network: self.network,
            endpoint: self.endpoint.id,
            ifname: self.endpoint.ifname,
            ifindex: index.get(),
            parent: self.parent,
            parent_index: self.lower.get(),
            link: LinkState {
                carrier: if self.carries {
                    Carrier::Up
                } else {
                    Carrier::Down
                },
                ..LinkState::default()
            },
            mode: self.mode,
            mac,
            addrs: self.endpoint.addrs,
            own_link_local: self.endpoint.own_link_local,
            gateways: self.endpoint.gateways,
            internal: self.internal,
            guard: guarded,
            rates: self.endpoint.rates,
        })
    }

    /// Whether the address is free is still asked: no ARP question is answered.
    fn silence(&self, sysctl: &NetSysctl) -> Result<()> {
        if !self.endpoint.silent {
            return Ok(());
        }
        let name = format!("conf/{}/arp_ignore", self.endpoint.ifname);
        sysctl.write(Family::Ipv4, &name, SILENT)
    }

    /// Where IPv6 addresses are given: what routers add to them, unless a sysctl
    /// of the endpoint says otherwise. No address that the guard would not let
    /// out (the kernel would take it as a source), and nothing that leads out of
    /// an internal network.
    fn hear_routers(&self, sysctl: &NetSysctl, guard: &guard::State) -> Result<()> {
        let ifname = &self.endpoint.ifname;
        if self.endpoint.ip6 != Link6::On {
            return Ok(());
        }
        if self.internal {
            Router::Ignored.tell(sysctl, ifname)?;
        }
        match guard {
            guard::State::On => sysctl.write(Family::Ipv6, &format!("conf/{ifname}/autoconf"), "0"),
            guard::State::Off | guard::State::Unavailable { .. } => Ok(()),
        }
    }

    /// All in one batch, unless there are sysctls to be set between addresses
    /// and link up.
    fn configure(
        &self,
        sandbox: &mut Rtnl<Sandbox>,
        index: Ifindex<Sandbox>,
        sysctl: &NetSysctl,
    ) -> Result<()> {
        let endpoint = &self.endpoint;
        if let Some(token) = endpoint.ip6.token() {
            sandbox.set_token(index, token.0)?;
        }
        if let Some(own) = endpoint.own_link_local {
            // Whether it is free the kernel asks when the link is up.
            let own = Cidr::new(own.into(), 64)?;
            sandbox.add_leased_addr(index, own, u32::MAX, u32::MAX)?;
        }
        let gateway = |family| endpoint.gateways.of(family).filter(|_| self.is_way(family));
        let addrs = endpoint
            .addrs
            .values()
            .chain(endpoint.link_local.iter().copied());
        let before = Configure {
            // The first interface of a sandbox also brings its loopback up.
            loopback_up: endpoint.first,
            mac: self.mac.filter(|_| self.mode.is_passthru()),
            addrs: addrs.collect(),
            ..Configure::default()
        };
        let after = Configure {
            up: true,
            gateways: PerFamily::each(gateway),
            ..Configure::default()
        };
        if endpoint.sysctls.is_empty() {
            let all = Configure {
                up: after.up,
                gateways: after.gateways,
                ..before
            };
            return sandbox.configure(index, &all);
        }
        sandbox.configure(index, &before)?;
        // One that would end the silence waits for the verdict.
        let speaks = |one: &&Sysctl| !(endpoint.silent && one.is_arp_ignore());
        for one in endpoint.sysctls.iter().filter(speaks) {
            sysctl.write(one.family, &one.path(&endpoint.ifname), &one.value)?;
        }
        sandbox.configure(index, &after)
    }

    /// Whether a family's default route goes this way.
    fn is_way(&self, family: Family) -> bool {
        self.endpoint.default_in.contains(&family) && !self.internal
    }

    fn guard(&self, netns: &Netns<Sandbox>, guard: &mut Option<Guard>) -> Result<guard::State> {
        let Some(mac) = self.sender else {
            let why = format!("the parent {} has no MAC address", self.parent);
            return Ok(guard::State::Unavailable { why });
        };
        let link = Identity {
            ifname: &self.endpoint.ifname,
            mac,
            link_local: match self.mode.is_ipvlan() {
                true => self.endpoint.own_link_local,
                false => Some(link_local(mac)),
            },
            addrs: &self.senders,
            also: &self.endpoint.receive.macs,
        };
        guard::install(guard, netns, self.guard, &link)
    }

    fn receive(&self, sandbox: &mut Rtnl<Sandbox>, index: Ifindex<Sandbox>) -> Result<()> {
        let receive = &self.endpoint.receive;
        let mut macs = receive.macs.iter();
        macs.try_for_each(|mac| sandbox.add_filter(index, *mac))?;
        if receive.promisc || receive.allmulti {
            sandbox.receive_more(index, receive.promisc, receive.allmulti)?;
        }
        Ok(())
    }

    fn limit(
        &self,
        sandbox: &mut Rtnl<Sandbox>,
        netns: &Netns<Sandbox>,
        index: Ifindex<Sandbox>,
        guard: &mut Option<Guard>,
    ) -> Result<()> {
        let rates = &self.endpoint.rates;
        if rates.is_none() {
            return Ok(());
        }
        rate::shape(sandbox, index, rates.up)?;
        guard::limit::limit(guard, netns, &self.endpoint.ifname, rates)
    }

    /// The host routes: no next hop. Where the default route may not go this
    /// way, the rest of the network still does.
    fn route_l3(&self, sandbox: &mut Rtnl<Sandbox>, index: Ifindex<Sandbox>) -> Result<()> {
        if !self.mode.is_l3() {
            return Ok(());
        }
        let families = self.endpoint.addrs.values().map(|addr| addr.family());
        let ways = families.filter(|family| self.is_way(*family));
        let others = self.others.iter().copied();
        ways.map(Cidr::default_of)
            .chain(others.filter(|subnet| !self.is_way(subnet.family())))
            .try_for_each(|subnet| sandbox.add_link_route(subnet, index, None))
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
