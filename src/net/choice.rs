//! Which link `-o parent` means: a name or altname, a MAC, the link of the
//! default route, or a list of these of which the first that carries is taken.
//!
//! *Theory of operation.* What was written is kept ([`Choice`]) and looked up
//! each time that it is used ([`Choice::pick`], pure), so that a NIC that was
//! renamed is found again. A link that is not there is `None`, for whoever may
//! wait for it; what cannot be decided (two links with one MAC) is an error.

use std::fmt;

use crate::base::{Error, IfName, MacAddr, Result};
use crate::netlink::route::Route;
use crate::netlink::{Link, LinkKind, Rtnl};
use crate::sys::netns::Host;

const BY_MAC: &str = "mac:";
const DEFAULT_ROUTE: &str = "auto";
/// Of a route without a metric of its own in IPv6 (IP6_RT_PRIO_USER); IPv4's
/// is 0.
const IPV6_METRIC: u32 = 1024;

/// One link, as a user calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// A name or altname; also `eth0.10`, which is made on eth0.
    Name(String),
    /// Permanent or current.
    Mac(MacAddr),
    /// The default route's.
    Auto,
}

impl Selector {
    fn parse(text: &str) -> Result<Self> {
        if text == DEFAULT_ROUTE {
            return Ok(Self::Auto);
        }
        let Some(mac) = text.strip_prefix(BY_MAC) else {
            return Ok(Self::Name(text.to_owned()));
        };
        match mac.parse::<MacAddr>() {
            Ok(mac) if !mac.is_multicast() && !mac.is_zero() => Ok(Self::Mac(mac)),
            _ => Err(Error::invalid(format!(
                "-o parent={text}: '{mac}' is not the MAC address of an interface"
            ))
            .hint("it is written as in mac:02:00:00:00:00:01")),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Mac(mac) => write!(f, "{BY_MAC}{mac}"),
            Self::Auto => f.write_str(DEFAULT_ROUTE),
        }
    }
}

/// What the host has to choose from.
#[derive(Debug, Default)]
pub struct View {
    pub links: Vec<Link<Host>>,
    /// Read for `auto` alone.
    routes: Vec<Route>,
}

impl View {
    pub fn of(host: &mut Rtnl<Host>, choice: Option<&Choice>) -> Result<Self> {
        let routes = match choice.is_some_and(Choice::follows_routes) {
            true => host.routes()?,
            false => Vec::new(),
        };
        Ok(Self {
            links: host.links()?,
            routes,
        })
    }

    /// By name or altname.
    pub fn find(&self, name: &str) -> Option<&Link<Host>> {
        let is_altname = |link: &Link<Host>| link.altnames.iter().any(|alt| alt == name);
        self.links
            .iter()
            .find(|link| link.name.as_str() == name || is_altname(link))
    }

    fn by_index(&self, index: u32) -> Option<&Link<Host>> {
        self.links.iter().find(|link| link.index.get() == index)
    }

    /// The link of the default route of the lowest metric, IPv4's first.
    fn default_link(&self) -> Option<&Link<Host>> {
        [false, true].into_iter().find_map(|ipv6| {
            let usual = if ipv6 { IPV6_METRIC } else { 0 };
            let ways = self.routes.iter().filter(|route| {
                let leads_out = route.kind == libc::RTN_UNICAST && route.dst.is_none();
                leads_out && route.ipv6 == ipv6
            });
            let links = ways.filter_map(|way| {
                let link = self.by_index(way.oif?)?;
                (link.kind != LinkKind::Loopback).then_some((way, link))
            });
            let best = links.min_by_key(|(way, _)| way.metric.unwrap_or(usual));
            best.map(|(_, link)| link)
        })
    }

    /// The link whose own MAC it is, or else the one that has it now. What
    /// stands on another link has its MAC and is not meant.
    fn by_mac(&self, mac: MacAddr) -> Result<Option<&Link<Host>>> {
        let with = |of: fn(&Link<Host>) -> Option<MacAddr>| -> Vec<&Link<Host>> {
            self.links.iter().filter(|l| of(l) == Some(mac)).collect()
        };
        let own = with(|link| link.permanent);
        let mut found = match own.is_empty() {
            true => with(|link| link.mac),
            false => own,
        };
        let all: Vec<u32> = found.iter().map(|link| link.index.get()).collect();
        found.retain(|link| {
            link.lower_netns.is_some() || link.lower.is_none_or(|lower| !all.contains(&lower))
        });
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            many => {
                let names: Vec<&str> = many.iter().map(|link| link.name.as_str()).collect();
                Err(Error::conflict(format!(
                    "-o parent={BY_MAC}{mac} is ambiguous: {} have this MAC address",
                    names.join(", ")
                ))
                .hint(format!("name the one you mean: -o parent={}", names[0])))
            }
        }
    }
}

/// All of `-o parent=A,B`, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice(Vec<Selector>);

/// The one that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// The kernel's name for it, or that of a VLAN which is to be made.
    pub name: String,
    /// Frames can leave.
    pub carries: bool,
}

impl Choice {
    pub fn parse(text: &str) -> Result<Self> {
        let all: Vec<Selector> = text
            .split(',')
            .map(|one| Selector::parse(one.trim()))
            .collect::<Result<_>>()?;
        let is_empty = |one: &Selector| *one == Selector::Name(String::new());
        if all.iter().any(is_empty) {
            return Err(Error::invalid(format!(
                "-o parent={text}: one of the list has no name"
            )));
        }
        let twice = |(at, one): (usize, &Selector)| all[..at].contains(one);
        if let Some((_, one)) = all.iter().enumerate().find(|(at, one)| twice((*at, *one))) {
            return Err(Error::invalid(format!(
                "-o parent={text} names {one} twice"
            )));
        }
        Ok(Self(all))
    }

    /// Several, of which another may be taken while a container runs.
    pub fn is_list(&self) -> bool {
        self.0.len() > 1
    }

    /// Just one name: what it is called is what it is.
    pub fn as_name(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Selector::Name(name)] => Some(name),
            _ => None,
        }
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|one| match one {
            Selector::Name(name) => Some(name.as_str()),
            Selector::Mac(_) | Selector::Auto => None,
        })
    }

    pub fn follows_routes(&self) -> bool {
        self.0.contains(&Selector::Auto)
    }

    /// The first that carries, or else the first that is there.
    pub fn pick(&self, view: &View) -> Result<Option<Picked>> {
        let mut first = None;
        for one in &self.0 {
            let Some(found) = find(one, view)? else {
                continue;
            };
            if found.carries {
                return Ok(Some(found));
            }
            first.get_or_insert(found);
        }
        Ok(first)
    }

    /// The links of all of them that are there.
    pub fn links<'a>(&self, view: &'a View) -> Vec<&'a IfName> {
        let named = |one: &Selector| {
            let found = find(one, view).ok().flatten()?;
            Some(&view.find(&found.name)?.name)
        };
        self.0.iter().filter_map(named).collect()
    }

    /// None of them is there.
    pub fn missing(&self) -> Error {
        let (what, hint) = match self.0.as_slice() {
            [Selector::Auto] => (
                "-o parent=auto is the link of the default route, and this host has none"
                    .to_owned(),
                "name the link: -o parent=IFNAME; `ip route` shows the routes",
            ),
            [Selector::Mac(mac)] => (
                format!("-o parent interface was not found on the host: no link has MAC {mac}"),
                "`ip link` shows which there are",
            ),
            _ => (
                format!("-o parent interface was not found on the host: {self}"),
                "`ip link` or /sys/class/net shows what there is",
            ),
        };
        Error::not_found(what).hint(hint)
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, one) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{one}")?;
        }
        Ok(())
    }
}

fn find(one: &Selector, view: &View) -> Result<Option<Picked>> {
    let there = |link: &Link<Host>| Picked {
        name: link.name.to_string(),
        carries: link.up && link.carrier,
    };
    Ok(match one {
        Selector::Name(name) => view.find(name).map(there).or_else(|| {
            let base = view.find(name.split_once('.')?.0)?;
            Some(Picked {
                name: name.clone(),
                ..there(base)
            })
        }),
        Selector::Mac(mac) => view.by_mac(*mac)?.map(there),
        Selector::Auto => view.default_link().map(there),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_meant() {
        for text in ["eth0", "mac:02:00:00:00:00:01", "auto", "eth0,eth1,auto"] {
            assert_eq!(Choice::parse(text).unwrap().to_string(), text);
        }
        let list = Choice::parse("eth0, mac:02:00:00:00:00:01").unwrap();
        assert_eq!(list.to_string(), "eth0,mac:02:00:00:00:00:01");
        assert!(list.is_list() && list.as_name().is_none());
        assert_eq!(Choice::parse("eth0").unwrap().as_name(), Some("eth0"));
        for (bad, phrase) in [
            ("mac:", "is not the MAC address of an interface"),
            ("mac:01:00:5e:00:00:01", "is not the MAC address"),
            ("mac:00:00:00:00:00:00", "is not the MAC address"),
            ("eth0,", "one of the list has no name"),
            ("eth0,eth1,eth0", "names eth0 twice"),
        ] {
            let text = Choice::parse(bad).unwrap_err().to_string();
            assert!(text.contains(phrase), "{text}");
        }
    }
}
