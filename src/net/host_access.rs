//! Host access: a host-side macvlan ("shim") so that the host and the
//! containers of a network can talk, at the cost of no LAN address.
//!
//! # Theory of operation
//!
//! A parent link never hands its own frames to its macvlans, but in bridge mode
//! it does hand one macvlan's frames to another. So the host gets a macvlan
//! too, and a `/32` route through it to each container, with a source address
//! that is the host's already. No address needs to be on the shim: it answers
//! ARP for every address of the host (arp_ignore 0). What is made, in this
//! order, and why in this order:
//!
//! 1. The link, down. Its MAC comes from the network's id, so that a container
//!    that knows it is not left with a stale one by `off` and `on`.
//! 2. The filter, an nf_tables table of the shim's name, before a single frame
//!    can come in (below).
//! 3. IPv6 off (else: router solicitations with the shim's MAC), own address if
//!    one is wanted, up.
//! 4. The routes.
//!
//! The host is now on the LAN twice, and must not be seen twice. Measured on
//! Linux 6.18 without the filter:
//!
//! * An ARP question from the LAN for the host's address is answered by the
//!   parent and by the shim, with two MACs; and a broadcast datagram reaches
//!   the host's programs twice. Hence chain `in` on the shim: it hears IPv4 and
//!   ARP from the containers in the set, and nothing else.
//! * The host's own ARP question for a container leaves through the shim, is a
//!   broadcast, and says "10.0.2.4 is at the shim's MAC": who knew better on
//!   the LAN now believes it, for seconds. Hence chain `out` on the parent:
//!   nothing from the shim's MAC leaves the machine. Frames for containers do
//!   not pass there. Kernels before 5.16 have no egress hook and go without.
//!
//! Source address: the shim's own, else the parent's whose subnet has the
//! container in it, else the parent's first. A parent without an IPv4 address
//! is refused (unless the shim has one): the kernel would take an address of
//! some other link, to which the container's answers find no way.
//!
//! When the host's address changes, the kernel drops routes that name the old
//! one; `enable` again puts them back. It completes whatever is missing, also
//! after `ip link del` or `nft flush ruleset` by hand.
//!
//! Known edge: where `net.ipv4.conf.all.arp_ignore` is 1 or more, the kernel
//! answers for an address only on the link that has it, so containers reach the
//! shim's own address alone.

use std::net::{IpAddr, Ipv4Addr};

use crate::base::{Cidr, Error, IfName, Journal, NetworkId, Result, Step};
use crate::netlink::addr::Address;
use crate::netlink::nft::{
    Batch, Chain, Cmp, Element, Expr, Family, Field, Hook, Meta, Nft, Reg, Set, Table, TableInfo,
    Type, Verdict,
};
use crate::netlink::{Link, LinkKind, MacvlanMode, Mode, NewLink, Rtnl};
use crate::sys::netns::Host;
use crate::sys::sysctl::{self, NetSysctl};

/// On one network of one host.
const MAX_CONTAINERS: u32 = 4096;
/// The set of container addresses in the filter's table.
const CONTAINERS: &str = "containers";
/// RT_SCOPE_UNIVERSE: an address that is good beyond its link.
const GLOBAL: u8 = 0;

/// The shim's name: `dl-` and the first 12 hex digits of the network's id.
pub fn shim_name(network: &NetworkId) -> IfName {
    IfName::of_network(network)
}

/// Makes (or completes) the shim of one network on `parent`, idempotent:
/// macvlan in bridge mode, up; optional own address (/32); the filter that
/// keeps the host from being seen twice; a route to each of `containers`.
pub fn enable(
    host: &mut Rtnl<Host>,
    network: &NetworkId,
    parent: &IfName,
    own: Option<Cidr>,
    containers: &[Ipv4Addr],
    journal: &mut dyn Journal,
) -> Result<()> {
    let name = shim_name(network);
    let parent = parent_link(host, parent)?;
    let source = Source::new(own.map(Cidr::addr), &parent, host)?;
    let shim = make(host, &name, network, &parent, journal)?;
    for &ip in containers {
        journal.record(&route_step(&name, ip))?;
    }
    install(&mut Nft::host()?, &shim, &parent, containers)?;
    settle(&name)?;
    for old in host.addrs(Some(shim.index))? {
        if Some(old.cidr) != own {
            host.del_addr(shim.index, old.cidr)?;
        }
    }
    if let Some(own) = own {
        host.add_addr(shim.index, own)?;
    }
    host.set_up(shim.index)?;
    for &ip in containers {
        let src = source.towards(ip);
        host.add_link_route(only(ip)?, shim.index, Some(src))?;
    }
    Ok(())
}

/// Removes shim, filter and routes; absent is fine.
pub fn disable(host: &mut Rtnl<Host>, network: &NetworkId) -> Result<()> {
    delete(host, &shim_name(network))
}

/// The same by the shim's name, which is all that [`Step::DelLink`] knows.
pub fn delete(host: &mut Rtnl<Host>, shim: &IfName) -> Result<()> {
    // The link first, and its routes with it: it is never up without a filter.
    if let Some(link) = host.link(shim.as_str())? {
        host.delete_link(link.index)?;
    }
    nothing_if_unknown(Nft::host().and_then(|mut nft| {
        // Looked up first: a refused batch waits for an RCU grace period.
        let is_it = |t: &TableInfo| t.family == Family::Netdev && t.name == shim.as_str();
        if nft.tables()?.iter().any(is_it) {
            nft.delete_table(table(shim))?;
        }
        Ok(())
    }))
}

/// Route and filter element for one container; the shim exists.
pub fn add(
    host: &mut Rtnl<Host>,
    network: &NetworkId,
    parent: &IfName,
    ip: Ipv4Addr,
    journal: &mut dyn Journal,
) -> Result<()> {
    let name = shim_name(network);
    let parent = parent_link(host, parent)?;
    let shim = host.link(name.as_str())?.ok_or_else(|| {
        Error::not_found(format!("the network's host-side link {name} is gone"))
            .hint("`dockless network host-access NETWORK on` makes it again")
    })?;
    let own = host.addrs(Some(shim.index))?.first().map(|a| a.cidr.addr());
    let source = Source::new(own, &parent, host)?;
    journal.record(&route_step(&name, ip))?;
    let mut nft = Nft::host()?;
    let mut batch = Batch::new();
    batch.add_elements(table(&name), CONTAINERS, &[element(ip)]);
    match nft.commit(&batch) {
        // Somebody flushed the ruleset: the routes say who was in the set.
        Err(e) if e.is_errno(libc::ENOENT) => {
            let mut all = routed(host, &shim)?;
            all.push(ip);
            install(&mut nft, &shim, &parent, &all)?;
        }
        added => drop(added?),
    }
    host.add_link_route(only(ip)?, shim.index, Some(source.towards(ip)))
}

/// Absent is fine; also when the shim is gone.
pub fn remove(host: &mut Rtnl<Host>, shim: &IfName, ip: Ipv4Addr) -> Result<()> {
    if let Some(link) = host.link(shim.as_str())? {
        host.del_link_route(only(ip)?, link.index)?;
    }
    nothing_if_unknown(Nft::host().and_then(|mut nft| {
        // Looked up first: a refused batch waits for an RCU grace period.
        if nft
            .elements(table(shim), CONTAINERS)?
            .contains(&element(ip))
        {
            let mut batch = Batch::new();
            batch.delete_elements(table(shim), CONTAINERS, &[element(ip)]);
            nft.commit(&batch)?;
        }
        Ok(())
    }))
}

/// The host as `container` reaches it: the shim's own address, or the parent's.
pub fn address(
    host: &mut Rtnl<Host>,
    parent: &IfName,
    own: Option<Ipv4Addr>,
    container: Ipv4Addr,
) -> Result<IpAddr> {
    let parent = parent_link(host, parent)?;
    let source = Source::new(own.map(IpAddr::V4), &parent, host)?;
    Ok(source.towards(container))
}

/// Those of `subnets` whose containers, asked by a host without a shim address
/// of its own, would answer to an address outside: by their gateway, if they
/// have one, and not through the parent.
pub fn without_way_back(
    host: &mut Rtnl<Host>,
    parent: &IfName,
    subnets: &[Cidr],
) -> Result<Vec<Cidr>> {
    let parent = parent_link(host, parent)?;
    let source = Source::new(None, &parent, host)?;
    let is_far = |subnet: &Cidr| match subnet.network().addr() {
        IpAddr::V4(first) => !subnet.contains(source.towards(first)),
        IpAddr::V6(_) => false,
    };
    Ok(subnets.iter().copied().filter(is_far).collect())
}

/// Only in bridge mode does a parent hand frames from one of its macvlans to
/// another, which is what the shim is.
pub fn supported(mode: Mode) -> Result<()> {
    match mode {
        Mode::Macvlan(MacvlanMode::Bridge) => Ok(()),
        Mode::Macvlan(_) => Err(Error::invalid(
            "host access needs macvlan mode bridge: in the others the parent keeps its macvlans apart",
        )),
        Mode::Ipvlan { .. } => Err(Error::invalid(
            "host access is for macvlan networks: no link of the host's stands beside ipvlans",
        )),
    }
}

// --- link, address, route

fn parent_link(host: &mut Rtnl<Host>, parent: &IfName) -> Result<Link<Host>> {
    host.link(parent.as_str())?.ok_or_else(|| {
        Error::not_found(format!("the parent interface {parent} does not exist"))
            .hint("was it renamed or removed?")
    })
}

/// The shim that is there, if it is right; else a new one.
fn make(
    host: &mut Rtnl<Host>,
    name: &IfName,
    network: &NetworkId,
    parent: &Link<Host>,
    journal: &mut dyn Journal,
) -> Result<Link<Host>> {
    const MODE: MacvlanMode = MacvlanMode::Bridge;
    if let Some(link) = host.link(name.as_str())? {
        let right = link.lower == Some(parent.index.get()) && link.lower_netns.is_none();
        match link.kind {
            LinkKind::Macvlan { mode: MODE } if right => return Ok(link),
            // Of a parent that once had this name.
            LinkKind::Macvlan { .. } => host.delete_link(link.index)?,
            _ => {
                return Err(Error::conflict(format!(
                    "there is an interface {name} already, and it is not a macvlan"
                ))
                .hint("dockless did not make it: rename or remove it"));
            }
        }
    }
    journal.record(&Step::DelLink { name: name.clone() })?;
    let new = NewLink {
        name,
        lower: parent.index,
        mode: MODE.into(),
        sources: &[],
        mac: Some(super::vlan::stable_mac(network.as_str())),
        mtu: None,
        broadcast: crate::netlink::Broadcast::default(),
    };
    match host.link_here(&new) {
        // Another command was faster; what follows is idempotent.
        Err(e) if e.is_errno(libc::EEXIST) => {}
        made => drop(made?),
    }
    host.link(name.as_str())?
        .ok_or_else(|| Error::sys("find new link", name, libc::ENODEV))
}

/// Values that the shim would take over from `conf/default`.
fn settle(shim: &IfName) -> Result<()> {
    let sysctl = NetSysctl::open()?;
    if sysctl.has_ipv6() {
        let name = format!("conf/{shim}/disable_ipv6");
        sysctl.write(sysctl::Family::Ipv6, &name, "1")?;
    }
    let name = format!("conf/{shim}/arp_ignore");
    sysctl.write(sysctl::Family::Ipv4, &name, "0")
}

/// The containers that there is a route to through the shim.
fn routed(host: &mut Rtnl<Host>, shim: &Link<Host>) -> Result<Vec<Ipv4Addr>> {
    let through = |oif| oif == Some(shim.index.get());
    let routes = host.routes()?.into_iter().filter(|r| through(r.oif));
    Ok(routes
        .filter_map(|route| match route.dst?.addr() {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
        .collect())
}

fn route_step(shim: &IfName, ip: Ipv4Addr) -> Step {
    Step::HostRoute {
        shim: shim.clone(),
        addr: ip.into(),
    }
}

fn only(ip: Ipv4Addr) -> Result<Cidr> {
    Cidr::new(ip.into(), 32)
}

/// Which address the containers see the host's packets come from.
#[derive(Debug)]
struct Source {
    first: IpAddr,
    /// Where the shim has no address of its own: the parent's.
    others: Vec<Cidr>,
}

impl Source {
    fn new(own: Option<IpAddr>, parent: &Link<Host>, host: &mut Rtnl<Host>) -> Result<Self> {
        let found = match own {
            Some(own) => Some(Self {
                first: own,
                others: Vec::new(),
            }),
            None => Self::of_parent(&host.addrs(Some(parent.index))?),
        };
        found.ok_or_else(|| {
            let name = &parent.name;
            Error::conflict(format!(
                "host access needs an address, and {name} has no IPv4 address"
            ))
            .hint(format!(
                "give {name} one, or the host-side link its own: \
                 `dockless network host-access NETWORK on --ip ADDRESS`"
            ))
        })
    }

    fn of_parent(addrs: &[Address]) -> Option<Self> {
        let others: Vec<Cidr> = addrs
            .iter()
            .filter(|a| a.cidr.is_ipv4() && a.scope == GLOBAL)
            .map(|a| a.cidr)
            .collect();
        let first = others.first()?.addr();
        Some(Self { first, others })
    }

    fn towards(&self, ip: Ipv4Addr) -> IpAddr {
        let near = self.others.iter().find(|a| a.contains(ip.into()));
        near.map_or(self.first, |a| a.addr())
    }
}

// --- filter

fn table(shim: &IfName) -> Table<'_> {
    Table {
        family: Family::Netdev,
        name: shim.as_str(),
    }
}

fn element(ip: Ipv4Addr) -> Element {
    Element {
        key: ip.octets().to_vec(),
        data: None,
    }
}

/// The filter whole, at one instant; elements that are there stay.
fn install(
    nft: &mut Nft<Host>,
    shim: &Link<Host>,
    parent: &Link<Host>,
    containers: &[Ipv4Addr],
) -> Result<()> {
    match nft.commit(&filter(shim, Some(parent), containers)) {
        // A kernel without the egress hook.
        Err(e) if e.is_errno(libc::EOPNOTSUPP) => {
            nft.commit(&filter(shim, None, containers)).map(drop)
        }
        done => done.map(drop),
    }
}

fn filter(shim: &Link<Host>, egress: Option<&Link<Host>>, containers: &[Ipv4Addr]) -> Batch {
    const ARP: &[u8] = &[0x08, 0x06];
    const IPV4: &[u8] = &[0x08, 0x00];
    const R0: Reg = Reg::word(0);
    let table = table(&shim.name);
    let mut batch = Batch::new();
    batch.add_table(table);
    let set = Set {
        name: CONTAINERS,
        key: &[Type::Ipv4Addr],
        data: None,
    };
    batch.add_sized_set(table, &set, MAX_CONTAINERS);
    let elements: Vec<Element> = containers.iter().copied().map(element).collect();
    batch.add_elements(table, CONTAINERS, &elements);
    let mut base_chain = |name, hook| {
        let hook = Some(hook);
        batch.add_chain(table, &Chain { name, hook });
        batch.delete_rule(table, name, None);
    };

    let device = &shim.name;
    base_chain(
        "in",
        Hook::Ingress {
            device,
            priority: 0,
        },
    );
    if let Some(parent) = egress {
        let device = &parent.name;
        base_chain(
            "out",
            Hook::Egress {
                device,
                priority: 0,
            },
        );
    }
    for (protocol, sender) in [(ARP, Field::ARP_SADDR_IP), (IPV4, Field::IP4_SADDR)] {
        let from_container = [
            Expr::Meta {
                key: Meta::Protocol,
                into: R0,
            },
            is(R0, protocol),
            Expr::Load {
                field: sender,
                into: R0,
            },
            Expr::Lookup {
                set: CONTAINERS.to_owned(),
                key: R0,
                into: None,
                invert: false,
            },
            Expr::Verdict(Verdict::Accept),
        ];
        batch.add_rule(table, "in", &from_container, None);
    }
    let drop = Expr::Verdict(Verdict::Drop);
    let why = "the parent hears the LAN for the host";
    batch.add_rule(table, "in", std::slice::from_ref(&drop), Some(why));
    if let (Some(_), Some(mac)) = (egress, shim.mac) {
        let field = Field::ETHER_SADDR;
        let from_shim = [Expr::Load { field, into: R0 }, is(R0, &mac.0), drop];
        let why = "the LAN knows the host by the parent's MAC";
        batch.add_rule(table, "out", &from_shim, Some(why));
    }
    batch
}

fn is(reg: Reg, value: &[u8]) -> Expr {
    Expr::Cmp {
        reg,
        op: Cmp::Eq,
        value: value.to_vec(),
    }
}

/// Where there is no such table, or no nf_tables at all, there is no filter.
fn nothing_if_unknown(outcome: Result<()>) -> Result<()> {
    match outcome.as_ref().err().and_then(Error::errno) {
        Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EPROTONOSUPPORT) => Ok(()),
        _ => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(cidr: &str, scope: u8) -> Address {
        Address {
            index: 3,
            cidr: cidr.parse().unwrap(),
            secondary: false,
            flags: 0,
            scope,
            broadcast: None,
            peer: None,
            label: None,
            valid: u32::MAX,
            preferred: u32::MAX,
        }
    }

    /// The address in the container's subnet, or else the first that is good
    /// for more than the link.
    #[test]
    fn source_is_near_the_container() {
        let addrs = [
            address("169.254.7.7/16", 253),
            address("192.168.1.4/24", GLOBAL),
            address("10.0.2.4/24", GLOBAL),
            address("fd00::4/64", GLOBAL),
        ];
        let source = Source::of_parent(&addrs).unwrap();
        let towards = |ip: &str| source.towards(ip.parse().unwrap()).to_string();
        assert_eq!(towards("10.0.2.5"), "10.0.2.4");
        assert_eq!(towards("192.168.1.9"), "192.168.1.4");
        assert_eq!(towards("10.9.9.9"), "192.168.1.4");
        assert!(Source::of_parent(&addrs[..1]).is_none());
        assert!(Source::of_parent(&addrs[3..]).is_none());
    }

    #[test]
    fn only_bridge_mode() {
        assert!(supported(MacvlanMode::Bridge.into()).is_ok());
        assert!(supported(MacvlanMode::Private.into()).is_err());
    }
}
