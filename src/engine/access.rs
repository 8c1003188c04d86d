//! `network host-access`: whether the host and a network's containers can talk.
//!
//! *Theory of operation.* The network's record says whether there is a
//! host-side link. A change is announced in the journal of networks, then
//! written to the record, then made; whoever finds the journal makes the link
//! what the record says, wherever the change was killed. Two locks keep it true:
//!
//! * Under the lock of networks the link is made, removed, and added to. A
//!   start reads the record again under it, so an `off` that came between is
//!   not answered with a link that nobody knows of.
//! * Under the lock of addresses the record says "on" and every lease that
//!   there is gets its route. A start leases first and asks the record later:
//!   either `on` saw its lease, or it sees the "on". For the same reason a
//!   lease goes under this lock, and its route with it; and an address of the
//!   link's own is chosen under it, like any other.

use std::net::{IpAddr, Ipv4Addr};

use super::lease::is_neighbours;
use super::{Engine, HostAccess};
use crate::base::{Cidr, Error, Journal, NetworkId, Result, Step};
use crate::net::spec::{self, Driver, NetworkSpec};
use crate::net::{Attachment, acd, host_access, ipam, parent};
use crate::netlink::Rtnl;
use crate::store::Lock;
use crate::sys::netns::Host;

impl Engine {
    pub(super) fn change_access(&self, wanted: &str, access: HostAccess) -> Result<Vec<String>> {
        self.prepare()?;
        let _changes = self.network_lock()?;
        let network = self.find_network(wanted)?;
        let access = wanted_access(&network, access)?;
        let mut host = Rtnl::host()?;
        let addresses = self.address_lock()?;
        self.check_access(&network, access, &mut host)?;
        let done = self.set_access(network, access, &mut host);
        let left = self.rewind_networks(Some(&addresses));
        // What is left of a change that was made is reported by `sweep`.
        done.map_err(|error| error.with_undo(left))
    }

    /// Refuses an address of the link's own that somebody has. Both locks are
    /// held, until [`Self::set_access`] is done.
    pub(super) fn check_access(
        &self,
        network: &NetworkSpec,
        access: spec::HostAccess,
        host: &mut Rtnl<Host>,
    ) -> Result<()> {
        match access {
            spec::HostAccess::On { ip: Some(ip) } => self.check_access_ip(network, ip, host),
            _ => Ok(()),
        }
    }

    fn check_access_ip(
        &self,
        network: &NetworkSpec,
        ip: Ipv4Addr,
        host: &mut Rtnl<Host>,
    ) -> Result<()> {
        let addr = IpAddr::V4(ip);
        let pool = ipam::pool_of(&network.pools, addr)?;
        let neighbours = self.neighbours(network)?;
        if ipam::is_reserved(pool, addr)
            || self.lease_path(network, pool.subnet, addr).exists()
            || is_neighbours(&neighbours, pool.subnet, addr)
        {
            return Err(self.in_use(network, &neighbours, addr)?);
        }
        let shim = host.link(host_access::shim_name(&network.id).as_str())?;
        let shim = shim.map(|link| link.index.get());
        let mut addrs = host.addrs(None)?.into_iter();
        if addrs.any(|a| a.cidr.addr() == addr && Some(a.index) != shim) {
            return Err(Error::conflict(format!(
                "Address already in use: {ip} is this host's own"
            ))
            .hint(
                "leave --ip out, and containers see the host at its address on the parent; \
                     or give one that nobody has",
            ));
        }
        // One that is the link's already is the host's to answer for.
        if shim.is_some() && network.host_access == (spec::HostAccess::On { ip: Some(ip) }) {
            return Ok(());
        }
        let parent = network.vlan().map(|vlan| vlan.parent.as_str());
        let parent = parent.map(|name| host.link(name)).transpose()?.flatten();
        let Some((parent, mac)) = parent.and_then(|p| Some((p.index.get(), p.mac?))) else {
            return Ok(());
        };
        match acd::holder(parent, mac, ip)? {
            None => Ok(()),
            Some(mac) => Err(
                Error::conflict(format!("Address already in use: {ip}")).hint(format!(
                    "{mac} on the LAN has it: give another --ip, or take it from that machine"
                )),
            ),
        }
    }

    /// The record first: what it says is what the journal's step comes to, for
    /// the caller when this has failed, and for whoever comes when it was
    /// killed. Both locks are held.
    pub(super) fn set_access(
        &self,
        mut network: NetworkSpec,
        access: spec::HostAccess,
        host: &mut Rtnl<Host>,
    ) -> Result<Vec<String>> {
        self.record_access(&network.id)?;
        let before = std::mem::replace(&mut network.host_access, access);
        self.save_network(&network)?;
        if let Err(error) = self.follow_access(&network, host) {
            network.host_access = before;
            let undo = self.save_network(&network).err();
            return Err(error.with_undo(undo.into_iter().collect()));
        }
        // It is done; what cannot be looked up is nothing to warn of.
        let mut warnings = no_way_back(&network, host).unwrap_or_default();
        if network.ipv6 && access != spec::HostAccess::Off {
            warnings.push(format!(
                "host access is for IPv4 addresses: the host does not reach the IPv6 addresses of \
                 network {}, nor they it",
                network.name
            ));
        }
        Ok(warnings)
    }

    /// The host-side link becomes what the record says. Both locks are held.
    fn follow_access(&self, network: &NetworkSpec, host: &mut Rtnl<Host>) -> Result<()> {
        if network.host_access == spec::HostAccess::Off {
            return host_access::disable(host, &network.id);
        }
        if let Some(vlan) = network.vlan() {
            parent::make(host, &vlan.made)?;
        }
        self.make_access(network, host)
    }

    /// [`Step::HostAccess`], under the lock of networks.
    pub(super) fn finish_access(&self, id: &NetworkId, addresses: Option<&Lock>) -> Result<()> {
        let _own = match addresses {
            Some(_) => None,
            None => Some(self.address_lock()?),
        };
        let mut host = Rtnl::host()?;
        if let Some(network) = self.with_access(id)? {
            return self.follow_access(&network, &mut host);
        }
        match host_access::disable(&mut host, id) {
            // Who may not make such a link has none.
            Err(e)
                if e.is_errno(libc::EPERM)
                    && host.link(host_access::shim_name(id).as_str())?.is_none() =>
            {
                Ok(())
            }
            done => done,
        }
    }

    /// Makes or completes the host-side link of a network that has it on, with
    /// a route to each leased address. Both locks are held.
    fn make_access(&self, network: &NetworkSpec, host: &mut Rtnl<Host>) -> Result<()> {
        let (spec::HostAccess::On { ip }, Driver::Vlan(vlan)) =
            (network.host_access, &network.driver)
        else {
            return Ok(());
        };
        let own = ip.map(|ip| Cidr::new(IpAddr::V4(ip), 32)).transpose()?;
        let leases = self.leases_of(&network.id)?;
        let containers: Vec<Ipv4Addr> = leases.into_iter().filter_map(|(_, ip)| ipv4(ip)).collect();
        // The journal of networks has the link, and a lease its route: these
        // steps need none.
        let mut steps: Vec<Step> = Vec::new();
        host_access::enable(
            host,
            &network.id,
            &vlan.parent,
            own,
            &containers,
            &mut steps,
        )
    }

    /// Route and filter entry for an interface that has just been made, if the
    /// host may talk to its network.
    pub(super) fn let_host_in(
        &self,
        host: &mut Rtnl<Host>,
        attachment: &Attachment,
        journal: &mut dyn Journal,
    ) -> Result<()> {
        let Some(ip) = attachment.addrs.ipv4().and_then(|addr| ipv4(addr.addr())) else {
            return Ok(());
        };
        let id = &attachment.network;
        // Without the lock: an `on` from here on sees the lease.
        if self.with_access(id)?.is_none() {
            return Ok(());
        }
        let _changes = self.network_lock()?;
        let Some(network) = self.with_access(id)? else {
            return Ok(());
        };
        // Somebody may have removed it, or set it down, which takes its routes.
        let shim = host.link(host_access::shim_name(id).as_str())?;
        if shim.is_none_or(|link| !link.up) {
            let _addresses = self.address_lock()?;
            self.make_access(&network, host)?;
        }
        host_access::add(host, id, &attachment.parent, ip, journal)
    }

    /// The route to a lease that goes. The lock of addresses is held.
    pub(super) fn shut_host_out(&self, network: &NetworkId, ip: IpAddr) -> Result<()> {
        let Some(ip) = ipv4(ip) else {
            return Ok(());
        };
        // A record that cannot be read may say "on".
        if let Ok(None) = self.with_access(network) {
            return Ok(());
        }
        host_access::remove(&mut Rtnl::host()?, &host_access::shim_name(network), ip)
    }

    /// The network, if it is there and has host access.
    fn with_access(&self, network: &NetworkId) -> Result<Option<NetworkSpec>> {
        let network = self.load_network(network)?;
        Ok(network.filter(|n| n.host_access != spec::HostAccess::Off))
    }
}

/// Host access is IPv4's: no IPv6 address has a route.
fn ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// Checks that the network can have it at all.
pub(super) fn wanted_access(network: &NetworkSpec, access: HostAccess) -> Result<spec::HostAccess> {
    let access = match access {
        HostAccess::Off => return Ok(spec::HostAccess::Off),
        HostAccess::On { ip } => spec::HostAccess::On { ip },
    };
    if let (true, spec::HostAccess::On { ip: Some(ip) }) = (network.is_dhcp(), access) {
        return Err(Error::invalid(format!(
            "network {} has no subnet in which the host's side could have {ip}: its addresses \
             are the DHCP server's",
            network.name
        ))
        .hint("without an address, containers see the host at its own on the parent"));
    }
    if network.ipv6 && !network.ipv4 {
        return Err(Error::invalid(format!(
            "host access is for IPv4 addresses, and network {} has none",
            network.name
        ))
        .hint("make the network without --ipv4=false"));
    }
    match &network.driver {
        Driver::Vlan(vlan) if vlan.is_followed() => {
            let written = network.options.get("parent").map_or("", String::as_str);
            Err(Error::invalid(format!(
                "host access is for a parent by its own name: network {} has -o parent={written}, \
                 and its host-side link could not follow",
                network.name
            ))
            .hint(format!("make the network with -o parent={}", vlan.parent)))
        }
        Driver::Vlan(vlan) => host_access::supported(vlan.mode).map(|()| access),
        Driver::Host | Driver::Null => Err(Error::invalid(format!(
            "network {} has no parent link: host access is for macvlan networks",
            network.name
        ))),
    }
}

/// A line for each subnet whose containers cannot answer the host.
fn no_way_back(network: &NetworkSpec, host: &mut Rtnl<Host>) -> Result<Vec<String>> {
    let (spec::HostAccess::On { ip: None }, Driver::Vlan(vlan)) =
        (network.host_access, &network.driver)
    else {
        return Ok(Vec::new());
    };
    let pools = network.pools.iter().map(|p| p.subnet);
    let subnets: Vec<Cidr> = pools.filter(|subnet| subnet.is_ipv4()).collect();
    let far = host_access::without_way_back(host, &vlan.parent, &subnets)?;
    let say = |subnet: Cidr| {
        format!(
            "this host has no address in {subnet}, so containers there cannot answer it: give its \
             side one with `dockless network host-access {} on --ip ADDRESS`",
            network.name
        )
    };
    Ok(far.into_iter().map(say).collect())
}
