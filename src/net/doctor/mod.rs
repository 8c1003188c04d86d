//! `doctor`: will containers get on the LAN through this link, and if not, why
//! not and what is to be done?
//!
//! # Theory of operation
//!
//! A table of checks, each a function from what is known of a link to a
//! [`Finding`]. Most only look ([`look`]): at rtnetlink, /proc and /sys. The
//! others try ([`probe`]): a macvlan with a throw-away MAC in a namespace that
//! nobody else knows and that dies with this process, ARP questions and one
//! DHCPDISCOVER. Those need root, send on that one link only, and are left out
//! with `--no-probe`.
//!
//! Nothing is changed for good, nobody's ARP table learns anything (all
//! questions are RFC 5227 probes, without a sender's address), and no check
//! ends the others: what cannot be found out is `unknown`, with the reason.

mod dhcp;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod look;
mod probe;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde::Serialize;

use super::ipam::Pool;
use crate::base::{Error, MacAddr, Result};
use crate::netlink::Rtnl;
use crate::netlink::link::Link;
use crate::netlink::neigh::Neigh;
use crate::netlink::obstacle::Obstacle;
use crate::netlink::route::Route;
use crate::sys::netns::Host;

const KERNEL_RELEASE: &str = "/proc/sys/kernel/osrelease";

/// In order of gravity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// It could not be found out.
    Unknown,
    Warning,
    Problem,
}

/// What a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    verdict: Verdict,
    found: String,
    advice: Option<String>,
}

impl Finding {
    fn new(verdict: Verdict, found: impl Into<String>) -> Self {
        Self {
            verdict,
            found: found.into(),
            advice: None,
        }
    }
    fn ok(found: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, found)
    }
    fn unknown(why: impl Into<String>) -> Self {
        Self::new(Verdict::Unknown, why)
    }
    fn warning(found: impl Into<String>) -> Self {
        Self::new(Verdict::Warning, found)
    }
    fn problem(found: impl Into<String>) -> Self {
        Self::new(Verdict::Problem, found)
    }
    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// An error's hint is the advice.
    fn of_error(verdict: Verdict, mut error: Error) -> Self {
        let advice = error.hint.take().map(Into::into);
        Self {
            verdict,
            found: error.to_string(),
            advice,
        }
    }
}

impl From<Obstacle> for Finding {
    fn from(obstacle: Obstacle) -> Self {
        Self {
            verdict: Verdict::Problem,
            found: obstacle.found(),
            advice: obstacle.advice(),
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// What to do; `null` where there is nothing to be done.
    pub advice: Option<String>,
}

impl Check {
    fn new(name: &'static str, finding: Finding) -> Self {
        Self {
            name,
            verdict: finding.verdict,
            found: finding.found,
            advice: finding.advice,
        }
    }

    /// A record of ours that cannot be read.
    pub fn of_state(error: &Error) -> Self {
        Self::new("state", Finding::of_error(Verdict::Problem, error.clone()))
    }
}

/// A network on the link that is looked at.
#[derive(Clone, Debug, Default)]
pub struct Use {
    pub name: String,
    pub mtu: Option<u32>,
    pub pools: Vec<Pool>,
    /// Its addresses are a DHCP server's.
    pub dhcp: bool,
    pub host_access: bool,
    /// `passthru` or `ipvlan`, which no macvlan can be beside.
    pub alone: Option<&'static str>,
    /// dockless makes the link where it is missing.
    pub made: bool,
    /// Its running containers by name, and their addresses.
    pub runs: Vec<String>,
    pub containers: Vec<(Ipv4Addr, MacAddr)>,
}

/// All that is known of a link before anything is tried.
#[derive(Debug)]
struct Patient<'a> {
    link: Link<Host>,
    links: Vec<Link<Host>>,
    uses: &'a [Use],
    /// The link's own IPv4 addresses.
    own: Vec<Ipv4Addr>,
    /// Who may be asked: gateways first.
    neighbours: Vec<Ipv4Addr>,
    /// `None`: only look.
    tries: Option<probe::Tries>,
}

type Function = fn(&mut Patient<'_>) -> Finding;

/// Trying comes last: looking may find that there is no use in it.
const CHECKS: &[(&str, Function)] = &[
    ("link", look::link),
    ("port", look::port),
    ("Wi-Fi", look::wifi),
    ("carrier", look::carrier),
    ("MTU", look::mtu),
    ("macvlan", probe::macvlan),
    ("rx handler", probe::receiver),
    ("forwarding", look::forwarding),
    ("duplicate address", probe::duplicates),
    ("foreign MAC", probe::foreign_mac),
    ("DHCP", probe::dhcp),
];

/// What concerns the machine and no link of it.
pub fn machine() -> Vec<Check> {
    vec![
        Check::new("kernel", look::kernel()),
        Check::new("nf_tables", look::nf_tables()),
    ]
}

/// Examines the link `name`, which `uses` are on.
pub fn examine(name: &str, uses: &[Use], probe: bool, host: &mut Rtnl<Host>) -> Result<Vec<Check>> {
    let links = host.links()?;
    let Some(link) = host.link(name)? else {
        return Ok(vec![Check::new("link", look::missing(name, uses, &links))]);
    };
    let index = link.index;
    let own: Vec<Ipv4Addr> = host
        .addrs(Some(index))?
        .into_iter()
        .filter_map(|a| v4(a.cidr.addr()))
        .collect();
    let neighbours = whom_to_ask(index.get(), &host.routes()?, uses, &host.neighs()?, &own);
    let mut patient = Patient {
        link,
        links,
        uses,
        own,
        neighbours,
        tries: None,
    };
    if probe {
        patient.tries = Some(probe::Tries::begin(&patient, host));
    }
    let check =
        |(name, function): &(&'static str, Function)| Check::new(name, function(&mut patient));
    let checks: Vec<Check> = CHECKS.iter().map(check).collect();
    if let Some(tries) = patient.tries {
        tries.end();
    }
    Ok(checks)
}

/// Links of default routes, each once, in the order of the routes.
pub fn default_links(host: &mut Rtnl<Host>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for route in host.routes()? {
        if route.dst.is_none()
            && let Some(index) = route.oif
            && let Some(link) = host.link_by_index(index)?
            && !names.contains(&link.name.to_string())
        {
            names.push(link.name.to_string());
        }
    }
    Ok(names)
}

/// The gateways of the link and of its networks, then who was heard of lately.
fn whom_to_ask(
    index: u32,
    routes: &[Route],
    uses: &[Use],
    neighs: &[Neigh],
    own: &[Ipv4Addr],
) -> Vec<Ipv4Addr> {
    /// NUD_REACHABLE, NUD_STALE, NUD_DELAY, NUD_PROBE
    const HEARD_OF: u16 = 0x02 | 0x04 | 0x08 | 0x10;
    const ENOUGH: usize = 8;
    let of_routes = routes
        .iter()
        .filter(|r| r.oif == Some(index))
        .filter_map(|r| r.gateway);
    let of_networks = uses.iter().flat_map(|u| &u.pools).filter_map(|p| p.gateway);
    let heard = neighs
        .iter()
        .filter(|n| n.index == index && n.state & HEARD_OF != 0)
        .map(|n| n.addr);
    let mut asked = Vec::new();
    for ip in of_routes.chain(of_networks).chain(heard).filter_map(v4) {
        if !own.contains(&ip) && !asked.contains(&ip) && asked.len() < ENOUGH {
            asked.push(ip);
        }
    }
    asked
}

fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// A file of one value below /proc or /sys.
fn value(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned())
}
