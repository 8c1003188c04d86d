//! This namespace's interfaces and routes in the words of iproute2: what `ip`
//! prints and the web page shows.

use std::net::{IpAddr, Ipv4Addr};

use crate::base::{Cidr, Family, MacAddr, OfFamily, Result};
use crate::netlink::addr::Address;
use crate::netlink::route::Route;
use crate::netlink::{Link, Rtnl};
use crate::sys::netns::Place;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub lower: Lower,
    /// As between the angle brackets, `NO-CARRIER` and `M-DOWN` included.
    pub flags: Vec<String>,
    pub mtu: u32,
    pub qdisc: Option<String>,
    pub master: Option<String>,
    pub state: &'static str,
    pub group: String,
    pub txqlen: u32,
    /// `ether`, `loopback`, …
    pub hardware: String,
    pub mac: Option<MacAddr>,
    pub broadcast: Option<MacAddr>,
    pub netnsid: Option<i32>,
    pub altnames: Vec<String>,
    pub addrs: Vec<Addr>,
}

/// The link below: of a macvlan its parent, of a veth its other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lower {
    /// It has none.
    No,
    /// It could have one (a tunnel).
    Unbound,
    Here(String),
    /// In another namespace: all that is known is the number.
    Elsewhere(u32),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addr {
    pub cidr: Cidr,
    pub peer: Option<IpAddr>,
    pub broadcast: Option<Ipv4Addr>,
    pub scope: String,
    /// `secondary`, `dynamic`, `tentative`, …
    pub flags: Vec<&'static str>,
    pub label: Option<String>,
    /// Seconds; `u32::MAX` is for ever.
    pub valid: u32,
    pub preferred: u32,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Unless it is an ordinary one: `blackhole`, …
    pub kind: Option<String>,
    /// `default`, an address or a subnet.
    pub dst: String,
    pub gateway: Option<IpAddr>,
    pub dev: Option<String>,
    /// Unless it is `boot`.
    pub protocol: Option<String>,
    /// Unless it is global.
    pub scope: Option<String>,
    pub prefsrc: Option<IpAddr>,
    pub metric: Option<u32>,
    pub flags: Vec<&'static str>,
}

/// All interfaces with their addresses, in the kernel's order.
pub fn interfaces<P: Place>(rtnl: &mut Rtnl<P>) -> Result<Vec<Interface>> {
    let links = rtnl.links()?;
    let addrs = rtnl.addrs(None)?;
    Ok(links
        .iter()
        .map(|link| {
            let own = addrs.iter().filter(|a| a.index == link.index.get());
            interface(link, &links, own.map(addr).collect())
        })
        .collect())
}

/// The main table's routes of one family, in the kernel's order.
pub fn paths<P: Place>(rtnl: &mut Rtnl<P>, family: Family) -> Result<Vec<Path>> {
    let routes = rtnl.routes()?;
    let links = rtnl.links()?;
    Ok(routes
        .iter()
        .filter(|route| route.ipv6 == (family == Family::Ipv6))
        .map(|route| path(route, name_of(&links, route.oif)))
        .collect())
}

fn name_of<P: Place>(links: &[Link<P>], index: Option<u32>) -> Option<String> {
    let link = links.iter().find(|l| Some(l.index.get()) == index)?;
    Some(link.name.to_string())
}

fn interface<P: Place>(link: &Link<P>, all: &[Link<P>], addrs: Vec<Addr>) -> Interface {
    let below = all.iter().find(|l| Some(l.index.get()) == link.lower);
    let lower = match (link.lower, link.lower_netns, below) {
        (None, _, _) => Lower::No,
        (Some(0), _, _) => Lower::Unbound,
        (Some(_), None, Some(below)) => Lower::Here(below.name.to_string()),
        (Some(index), _, _) => Lower::Elsewhere(index),
    };
    let lower_is_down = matches!(lower, Lower::Here(_)) && below.is_some_and(|l| !l.up);
    Interface {
        index: link.index.get(),
        name: link.name.to_string(),
        lower,
        flags: link_flags(link.flags, lower_is_down),
        mtu: link.mtu,
        qdisc: link.qdisc.clone(),
        master: name_of(all, link.master),
        state: state(link.operstate),
        group: match link.group {
            0 => String::from("default"),
            number => number.to_string(),
        },
        txqlen: link.txqlen,
        hardware: match link.hardware {
            libc::ARPHRD_ETHER => String::from("ether"),
            libc::ARPHRD_LOOPBACK => String::from("loopback"),
            libc::ARPHRD_NONE => String::from("none"),
            other => format!("[{other}]"),
        },
        mac: link.mac,
        broadcast: link.broadcast,
        netnsid: link.lower_netns,
        altnames: link.altnames.clone(),
        addrs,
    }
}

/// IFF_* in iproute2's order. RUNNING shows only by its absence.
fn link_flags(bits: u32, lower_is_down: bool) -> Vec<String> {
    const UP: u32 = 1 << 0;
    const RUNNING: u32 = 1 << 6;
    const NAMES: [(u32, &str); 18] = [
        (3, "LOOPBACK"),
        (1, "BROADCAST"),
        (4, "POINTOPOINT"),
        (12, "MULTICAST"),
        (7, "NOARP"),
        (9, "ALLMULTI"),
        (8, "PROMISC"),
        (10, "MASTER"),
        (11, "SLAVE"),
        (2, "DEBUG"),
        (15, "DYNAMIC"),
        (14, "AUTOMEDIA"),
        (13, "PORTSEL"),
        (5, "NOTRAILERS"),
        (0, "UP"),
        (16, "LOWER_UP"),
        (17, "DORMANT"),
        (18, "ECHO"),
    ];
    let mut names = Vec::new();
    if bits & (UP | RUNNING) == UP {
        names.push(String::from("NO-CARRIER"));
    }
    let mut rest = bits & !RUNNING;
    for (bit, name) in NAMES {
        if rest & (1 << bit) != 0 {
            names.push(name.to_owned());
            rest &= !(1 << bit);
        }
    }
    if rest != 0 {
        names.push(format!("{rest:x}"));
    }
    if lower_is_down {
        names.push(String::from("M-DOWN"));
    }
    names
}

/// IF_OPER_* (RFC 2863).
fn state(operstate: u8) -> &'static str {
    const NAMES: [&str; 7] = [
        "UNKNOWN",
        "NOTPRESENT",
        "DOWN",
        "LOWERLAYERDOWN",
        "TESTING",
        "DORMANT",
        "UP",
    ];
    NAMES
        .get(usize::from(operstate))
        .copied()
        .unwrap_or("UNKNOWN")
}

fn addr(address: &Address) -> Addr {
    Addr {
        cidr: address.cidr,
        peer: address.peer,
        broadcast: address.broadcast,
        scope: scope(address.scope),
        flags: addr_flags(address.flags, address.cidr.is_ipv4()),
        label: address.label.clone(),
        valid: address.valid,
        preferred: address.preferred,
    }
}

/// IFA_F_* in iproute2's order. PERMANENT shows only by its absence.
fn addr_flags(bits: u32, ipv4: bool) -> Vec<&'static str> {
    const NAMES: [(u32, &str); 12] = [
        (libc::IFA_F_SECONDARY, "secondary"),
        (libc::IFA_F_NODAD, "nodad"),
        (libc::IFA_F_OPTIMISTIC, "optimistic"),
        (libc::IFA_F_DADFAILED, "dadfailed"),
        (libc::IFA_F_HOMEADDRESS, "home"),
        (libc::IFA_F_DEPRECATED, "deprecated"),
        (libc::IFA_F_TENTATIVE, "tentative"),
        (libc::IFA_F_PERMANENT, "dynamic"),
        (libc::IFA_F_MANAGETEMPADDR, "mngtmpaddr"),
        (libc::IFA_F_NOPREFIXROUTE, "noprefixroute"),
        (libc::IFA_F_MCAUTOJOIN, "autojoin"),
        (libc::IFA_F_STABLE_PRIVACY, "stable-privacy"),
    ];
    let shown = |&(bit, _): &(u32, &str)| (bits & bit != 0) != (bit == libc::IFA_F_PERMANENT);
    NAMES
        .into_iter()
        .filter(shown)
        .map(|(bit, name)| match bit {
            libc::IFA_F_SECONDARY if !ipv4 => "temporary",
            _ => name,
        })
        .collect()
}

/// RT_SCOPE_*
fn scope(number: u8) -> String {
    match number {
        libc::RT_SCOPE_UNIVERSE => String::from("global"),
        libc::RT_SCOPE_SITE => String::from("site"),
        libc::RT_SCOPE_LINK => String::from("link"),
        libc::RT_SCOPE_HOST => String::from("host"),
        libc::RT_SCOPE_NOWHERE => String::from("nowhere"),
        other => other.to_string(),
    }
}

fn path(route: &Route, dev: Option<String>) -> Path {
    const LINKDOWN: u32 = 16;
    const FLAGS: [(u32, &str); 6] = [
        (1, "dead"),
        (4, "onlink"),
        (2, "pervasive"),
        (8, "offload"),
        (LINKDOWN, "linkdown"),
        (32, "unresolved"),
    ];
    let flags = FLAGS.into_iter().filter(|(bit, _)| route.flags & bit != 0);
    Path {
        kind: kind(route.kind),
        dst: match route.dst {
            None => String::from("default"),
            Some(dst) if dst.prefix() == dst.family().width() => dst.addr().to_string(),
            Some(dst) => dst.to_string(),
        },
        gateway: route.gateway,
        dev,
        protocol: protocol(route.protocol),
        scope: (route.scope != libc::RT_SCOPE_UNIVERSE).then(|| scope(route.scope)),
        prefsrc: route.prefsrc,
        metric: route.metric,
        flags: flags.map(|(_, name)| name).collect(),
    }
}

/// RTN_*
fn kind(number: u8) -> Option<String> {
    let name = match number {
        libc::RTN_UNICAST => return None,
        libc::RTN_LOCAL => "local",
        libc::RTN_BROADCAST => "broadcast",
        libc::RTN_ANYCAST => "anycast",
        libc::RTN_MULTICAST => "multicast",
        libc::RTN_BLACKHOLE => "blackhole",
        libc::RTN_UNREACHABLE => "unreachable",
        libc::RTN_PROHIBIT => "prohibit",
        libc::RTN_THROW => "throw",
        other => return Some(other.to_string()),
    };
    Some(name.to_owned())
}

/// RTPROT_*, those of the kernel and of the usual daemons.
fn protocol(number: u8) -> Option<String> {
    let name = match number {
        libc::RTPROT_BOOT => return None,
        libc::RTPROT_UNSPEC => "unspec",
        libc::RTPROT_REDIRECT => "redirect",
        libc::RTPROT_KERNEL => "kernel",
        libc::RTPROT_STATIC => "static",
        9 => "ra",
        16 => "dhcp",
        other => return Some(other.to_string()),
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_in_iproute2s_order() {
        assert_eq!(
            link_flags(0x1_1043, false).join(","),
            "BROADCAST,MULTICAST,UP,LOWER_UP"
        );
        assert_eq!(
            link_flags(0x1_0049, false).join(","),
            "LOOPBACK,UP,LOWER_UP"
        );
        assert_eq!(
            link_flags(0x1003, true).join(","),
            "NO-CARRIER,BROADCAST,MULTICAST,UP,M-DOWN"
        );
        assert_eq!(link_flags(0x8000_0000, false), ["80000000"]);
        assert_eq!(addr_flags(0x80, true), [""; 0]);
        assert_eq!(addr_flags(0x01, true), ["secondary", "dynamic"]);
        assert_eq!(addr_flags(0xc1, false), ["temporary", "tentative"]);
    }

    #[test]
    fn what_is_usual_is_not_said() {
        let route = Route {
            dst: None,
            gateway: Some(Ipv4Addr::new(10, 0, 2, 1).into()),
            oif: Some(2),
            prefsrc: None,
            table: 254,
            scope: 0,
            protocol: libc::RTPROT_BOOT,
            kind: libc::RTN_UNICAST,
            metric: None,
            ipv6: false,
            flags: 0,
        };
        let path = path(&route, Some("eth0".into()));
        assert_eq!(
            (path.dst.as_str(), path.kind, path.protocol),
            ("default", None, None)
        );
        assert_eq!(path.scope, None);
    }
}
