//! Static routes of a network: `--route DEST,GATEWAY[,METRIC]`, Podman's
//! spelling.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::super::ipam::Pool;
use super::super::spec::NetworkSpec;
use crate::base::{Cidr, Error, OfFamily, PerFamily, Result};
use crate::netlink::policy::metric_in;

/// On each container of the network, while its link is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticRoute {
    pub dst: Cidr,
    /// A machine on the network.
    pub gateway: IpAddr,
    /// `None`: the kernel's (0 in IPv4, 1024 in IPv6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// Why a container does not have one of its network's routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The container *is* the gateway: others' packets come to it.
    Itself,
    /// The gateway is in another of the network's subnets.
    OffLink,
}

impl StaticRoute {
    pub(super) fn obstacle(&self, addrs: &PerFamily<Cidr>) -> Option<Obstacle> {
        match addrs.of(self.gateway.family()) {
            Some(own) if own.addr() == self.gateway => Some(Obstacle::Itself),
            Some(own) if own.contains(self.gateway) => None,
            _ => Some(Obstacle::OffLink),
        }
    }

    /// The kernel takes one route of each.
    fn place(&self) -> (Cidr, u32) {
        (self.dst, metric_in(self.dst.family(), self.metric))
    }

    /// As [`Self::obstacle`], in words.
    pub fn why_not(&self, addrs: &PerFamily<Cidr>) -> Option<&'static str> {
        self.obstacle(addrs).map(|obstacle| match obstacle {
            Obstacle::Itself => "the container is its gateway",
            Obstacle::OffLink => "its gateway is not in the subnet of the container's address",
        })
    }
}

impl FromStr for StaticRoute {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why: String| {
            Error::invalid(format!("invalid route \"{text}\": {why}"))
                .hint("it is DEST,GATEWAY[,METRIC], as in 10.9.0.0/16,10.0.2.77")
        };
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let (dst, gateway, metric) = match parts.as_slice() {
            [dst, gateway] => (*dst, *gateway, None),
            [dst, gateway, metric] => (*dst, *gateway, Some(*metric)),
            _ => return Err(refused("it needs a destination and a gateway".into())),
        };
        let dst: Cidr = dst
            .parse()
            .map_err(|_| refused(format!("\"{dst}\" is no network with a prefix length")))?;
        let gateway: IpAddr = gateway
            .parse()
            .map_err(|_| refused(format!("\"{gateway}\" is no address of a gateway")))?;
        let metric = metric.map(|metric| match metric.parse::<u32>() {
            Ok(0) | Err(_) => Err(refused(format!(
                "its metric \"{metric}\" is not a number from 1 to {}",
                u32::MAX
            ))),
            Ok(metric) => Ok(metric),
        });
        let metric = metric.transpose()?;
        if dst.family() != gateway.family() {
            return Err(refused(format!(
                "its gateway is {}, and its destination is not",
                gateway.family()
            )));
        }
        if dst.network() != dst {
            return Err(refused(format!(
                "{dst} is an address in a network; the network is {}",
                dst.network()
            )));
        }
        if dst.prefix() == 0 {
            return Err(Error::invalid(format!(
                "invalid route \"{text}\": the default route is the network's gateway"
            ))
            .hint("give it by --gateway"));
        }
        let ip = dst.addr();
        let is_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.to_ipv4_mapped().is_some(),
        };
        if ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() || is_local {
            return Err(refused(format!("no gateway leads to {dst}")));
        }
        Ok(Self {
            dst,
            gateway,
            metric,
        })
    }
}

impl fmt::Display for StaticRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.dst, self.gateway)?;
        match self.metric {
            Some(metric) => write!(f, " metric {metric}"),
            None => Ok(()),
        }
    }
}

/// Whether a network's containers can have its routes.
pub fn validate(network: &NetworkSpec) -> Result<()> {
    let Some(first) = network.routes.first() else {
        return Ok(());
    };
    let refused = |why: &str, way: &'static str| {
        Err(Error::invalid(format!("invalid route {first}: {why}")).hint(way))
    };
    if network.is_dhcp() {
        return refused(
            "the routes of a network with a DHCP server are the server's",
            "options 121 and 33 of the server give routes",
        );
    }
    if network.is_internal() {
        return refused(
            "the network is internal: nothing leads out of it",
            "leave --internal out, and give it a parent; or leave --route out",
        );
    }
    if network.is_l3() {
        return refused(
            "in ipvlan's l3 modes the host routes for its containers, and no gateway is asked",
            "add the route on the host",
        );
    }
    for (n, route) in network.routes.iter().enumerate() {
        check(route, &network.pools)?;
        let same = |other: &StaticRoute| other.place() == route.place();
        if network.routes.iter().skip(n + 1).any(same) {
            return Err(Error::invalid(format!(
                "invalid route {route}: {} is given twice",
                route.dst
            ))
            .hint("two routes to one destination need two metrics"));
        }
    }
    Ok(())
}

fn check(route: &StaticRoute, pools: &[Pool]) -> Result<()> {
    let Some(pool) = pools.iter().find(|p| p.subnet.contains(route.gateway)) else {
        return Err(Error::invalid(format!(
            "invalid route {route}: its gateway is in no subnet of the network"
        ))
        .hint("a gateway is a machine on the network's own link"));
    };
    let subnet = pool.subnet;
    let is_end = subnet.prefix() < 31
        && subnet.is_ipv4()
        && (subnet.addr() == route.gateway || subnet.last() == route.gateway);
    if is_end {
        return Err(Error::invalid(format!(
            "invalid route {route}: {} is the network or broadcast address of {subnet}",
            route.gateway
        )));
    }
    match pools.iter().find(|p| p.subnet == route.dst) {
        Some(own) => Err(Error::invalid(format!(
            "invalid route {route}: {} is a subnet of the network itself",
            own.subnet
        ))
        .hint("its machines are reached without a gateway")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_and_shown() {
        let route: StaticRoute = "10.9.0.0/16, 10.0.2.77".parse().unwrap();
        assert_eq!(route.to_string(), "10.9.0.0/16 via 10.0.2.77");
        let route: StaticRoute = "fd09::/16,fd00:2::7,50".parse().unwrap();
        assert_eq!(route.to_string(), "fd09::/16 via fd00:2::7 metric 50");
    }

    #[test]
    fn refused() {
        for (bad, phrase) in [
            ("", "a destination and a gateway"),
            ("10.9.0.0/16", "a destination and a gateway"),
            ("10.9.0.0/16,10.0.2.77,1,2", "a destination and a gateway"),
            ("10.9.0.0,10.0.2.77", "no network with a prefix length"),
            ("10.9.0.0/33,10.0.2.77", "no network with a prefix length"),
            ("10.9.0.0/16,gw", "no address of a gateway"),
            ("10.9.0.0/16,10.0.2.77,0", "not a number from 1"),
            ("10.9.0.0/16,10.0.2.77,-1", "not a number from 1"),
            ("10.9.0.0/16,fd00::1", "its destination is not"),
            ("10.9.0.1/16,10.0.2.77", "the network is 10.9.0.0/16"),
            (
                "0.0.0.0/0,10.0.2.77",
                "the default route is the network's gateway",
            ),
            ("::/0,fd00::1", "the default route is the network's gateway"),
            ("127.0.0.0/8,10.0.2.77", "no gateway leads to"),
            ("224.0.0.0/4,10.0.2.77", "no gateway leads to"),
            ("fe80::/64,fd00::1", "no gateway leads to"),
        ] {
            let text = bad.parse::<StaticRoute>().unwrap_err().to_string();
            assert!(text.contains(phrase), "{bad}: {text}");
        }
    }

    #[test]
    fn who_does_not_get_it() {
        let route: StaticRoute = "10.9.0.0/16,10.0.2.77".parse().unwrap();
        let addrs = |text: &str| PerFamily::from(text.parse::<Cidr>().unwrap());
        assert_eq!(route.obstacle(&addrs("10.0.2.5/24")), None);
        let itself = route.obstacle(&addrs("10.0.2.77/24"));
        assert_eq!(itself, Some(Obstacle::Itself));
        let off = route.obstacle(&addrs("10.0.3.5/24"));
        assert_eq!(off, Some(Obstacle::OffLink));
    }
}
