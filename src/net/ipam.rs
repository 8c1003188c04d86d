//! Address management, pure: which pools are valid, which one an automatic
//! network gets, which address is next. Who holds an address is the lease
//! files' business (engine); here it is a question asked of the caller.
//!
//! Rules and phrases: docker-macvlan.md §3, §4.1, as of Docker 29.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::base::{Cidr, Error, Family, OfFamily, Result};

/// One subnet of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub subnet: Cidr,
    #[serde(default)]
    pub ip_range: Option<Cidr>,
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    #[serde(default)]
    pub aux: BTreeMap<String, IpAddr>,
}

/// Docker's predefined IPv4 pools: a block and the size of the networks cut
/// from it.
const DEFAULT_POOLS: [(&str, u8); 7] = [
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/14", 16),
    ("172.24.0.0/14", 16),
    ("172.28.0.0/14", 16),
    ("192.168.0.0/16", 20),
];

/// Every problem of the pools of one `network create`, all at once, as Docker
/// 25+ reports them.
pub fn validate(pools: &[Pool]) -> Result<()> {
    let mut problems = String::new();
    let mut say = |text: String| {
        // Writing to a String cannot fail.
        let _ = write!(problems, "\n{text}");
    };
    for pool in pools {
        let subnet = pool.subnet;
        if subnet.network() != subnet {
            say(format!(
                "invalid subnet {subnet}: it should be {}",
                subnet.network()
            ));
        }
        let inside = |ip: IpAddr| -> Option<String> {
            if ip.is_ipv4() != subnet.is_ipv4() {
                let family = if subnet.is_ipv4() { 4 } else { 6 };
                Some(format!("parent subnet is an IPv{family} block"))
            } else if subnet.contains(ip) {
                None
            } else {
                Some(format!(
                    "parent subnet {subnet} doesn't contain this address"
                ))
            }
        };
        if let Some(range) = pool.ip_range {
            if range.is_ipv4() != subnet.is_ipv4() {
                let family = if subnet.is_ipv4() { 4 } else { 6 };
                say(format!(
                    "invalid ip-range {range}: parent subnet is an IPv{family} block"
                ));
            } else {
                if range.prefix() < subnet.prefix() {
                    say(format!(
                        "invalid ip-range {range}: CIDR block is bigger than its parent subnet {subnet}"
                    ));
                }
                if range.network() != range {
                    say(format!(
                        "invalid ip-range {range}: it should be {}",
                        range.network()
                    ));
                }
                if !subnet.contains(range.addr()) {
                    say(format!(
                        "invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"
                    ));
                }
            }
        }
        if let Some(why) = pool.gateway.and_then(inside) {
            say(format!(
                "invalid gateway {}: {why}",
                pool.gateway.map(|g| g.to_string()).unwrap_or_default()
            ));
        }
        for (name, ip) in &pool.aux {
            if let Some(why) = inside(*ip) {
                say(format!("invalid auxiliary address {ip} ({name}): {why}"));
            }
        }
    }
    if problems.is_empty() {
        pools.iter().try_for_each(|p| reservable(p, &|_| false))
    } else {
        Err(Error::invalid(format!("invalid network config:{problems}")))
    }
}

/// Gateway and auxiliary addresses must be free when the network is made: not
/// the network or broadcast address, not one another, not `taken` by another
/// network or container on the same subnet.
pub fn reservable(pool: &Pool, taken: &dyn Fn(IpAddr) -> bool) -> Result<()> {
    let mut seen: Vec<IpAddr> = Vec::new();
    let mut reserve = |ip: IpAddr, what: String| {
        let used = is_edge(pool.subnet, ip) || seen.contains(&ip) || taken(ip);
        seen.push(ip);
        if used {
            let text = format!("failed to allocate {what}: Address already in use");
            return Err(Error::conflict(text).hint(
                "the subnet's first and last address, and what other networks and containers \
                 on it have, cannot be given again",
            ));
        }
        Ok(())
    };
    if let Some(gateway) = pool.gateway {
        reserve(gateway, format!("gateway ({gateway})"))?;
    }
    for (name, ip) in &pool.aux {
        reserve(*ip, format!("secondary ip address ({name}:{ip})"))?;
    }
    Ok(())
}

/// Network and broadcast address (RFC 3021 has neither on a /31, nor a /32);
/// in IPv6 the all-zero host address alone.
fn is_edge(subnet: Cidr, ip: IpAddr) -> bool {
    if subnet.is_ipv4() {
        subnet.prefix() < 31 && (ip == subnet.network().addr() || ip == subnet.last())
    } else {
        subnet.prefix() < 127 && ip == subnet.network().addr()
    }
}

/// Whether `new` may stand beside the pools of other networks: no overlap,
/// unless it has an ip-range and that (subnet, range) pair is new (then both
/// networks share one set of addresses).
pub fn check_overlap(new: &Pool, others: &[&Pool]) -> Result<()> {
    let clash = match new.ip_range {
        Some(_) => others
            .iter()
            .any(|o| o.subnet == new.subnet && o.ip_range == new.ip_range),
        None => others.iter().any(|o| o.subnet.overlaps(new.subnet)),
    };
    if clash {
        Err(Error::conflict(
            "invalid pool request: Pool overlaps with other one on this address space",
        )
        .hint("give a subnet that no other network has, or an --ip-range of its own"))
    } else {
        Ok(())
    }
}

/// A block of addresses, and the size of the networks cut from it.
pub type Block = (Cidr, u8);

/// Docker's predefined pools of IPv4.
pub fn predefined() -> Result<Vec<Block>> {
    let parse = |(block, cut): (&str, u8)| Ok((block.parse()?, cut));
    DEFAULT_POOLS.into_iter().map(parse).collect()
}

/// Of IPv6: /64s of one /48 of unique local addresses (RFC 4193) with this
/// Global ID, as Docker 27+ has it.
pub fn unique_local(global_id: [u8; 5]) -> Result<Block> {
    let [a, b, c, d, e] = global_id;
    let bytes = [0xfd, a, b, c, d, e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Ok((Cidr::new(IpAddr::V6(Ipv6Addr::from(bytes)), 48)?, 64))
}

/// The lowest network in these blocks that overlaps nothing in `avoid`: other
/// networks' pools, the host's on-link routes, its name servers. With `size`,
/// any free network of that size (`--subnet 0.0.0.0/N`, `::/N`).
pub fn automatic(blocks: &[Block], avoid: &[Cidr], size: Option<u8>) -> Result<Cidr> {
    for (block, cut) in blocks {
        let prefix = size.unwrap_or(*cut);
        let width = block.family().width();
        if prefix < block.prefix() || prefix > width {
            continue;
        }
        let step = 1u128 << (width - prefix);
        let mut at = 0u128;
        while let Some(addr) = block.nth(at) {
            let candidate = Cidr::new(addr, prefix)?;
            let Some(clash) = avoid.iter().find(|a| a.overlaps(candidate)) else {
                return Ok(candidate);
            };
            // Past all of it: it may be as large as a million candidates.
            let past = block.index_of(clash.last()).map(|last| last / step + 1);
            match past.and_then(|n| n.checked_mul(step)) {
                Some(next) => at = next,
                None => break,
            }
        }
    }
    Err(
        Error::conflict("all predefined address pools have been fully subnetted")
            .hint("give one with --subnet"),
    )
}

/// Addresses of `pool` that no container may have, whoever asks: edges,
/// gateway, auxiliary.
pub fn is_reserved(pool: &Pool, ip: IpAddr) -> bool {
    is_edge(pool.subnet, ip) || pool.gateway == Some(ip) || pool.aux.values().any(|a| *a == ip)
}

/// The lowest free address of a family for a container. `pools` are the
/// network's own; `taken` says whether anybody (another network on the same
/// subnet included) reserves or holds an address.
pub fn next(
    pools: &[Pool],
    family: Family,
    taken: &dyn Fn(&Pool, IpAddr) -> bool,
) -> Option<(IpAddr, Cidr)> {
    pools
        .iter()
        .filter(|pool| pool.subnet.family() == family)
        .find_map(|pool| {
            let range = pool.ip_range.unwrap_or(pool.subnet);
            (0..)
                .map_while(|n| range.nth(n))
                .find(|ip| !is_reserved(pool, *ip) && !taken(pool, *ip))
                .map(|ip| (ip, pool.subnet))
        })
}

/// The pool that `--ip` lies in. Anywhere in the subnet is fine, also outside
/// its ip-range.
pub fn pool_of(pools: &[Pool], ip: IpAddr) -> Result<&Pool> {
    pools.iter().find(|p| p.subnet.contains(ip)).ok_or_else(|| {
        let subnets: Vec<String> = pools.iter().map(|p| p.subnet.to_string()).collect();
        let error = Error::invalid(format!("no configured subnet contains IP address {ip}"));
        if subnets.is_empty() {
            error
        } else {
            error.hint(format!("the network has {}", subnets.join(", ")))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn pool(subnet: &str, range: Option<&str>, gateway: Option<&str>) -> Pool {
        Pool {
            subnet: subnet.parse().unwrap(),
            ip_range: range.map(|r| r.parse().unwrap()),
            gateway: gateway.map(|g| g.parse().unwrap()),
            aux: BTreeMap::new(),
        }
    }

    fn fill(pools: &[Pool]) -> Vec<String> {
        let mut held = HashSet::new();
        let mut out = Vec::new();
        let family = pools[0].subnet.family();
        while let Some((ip, _)) = next(pools, family, &|_, ip| held.contains(&ip)) {
            held.insert(ip);
            out.push(ip.to_string());
        }
        out
    }

    #[test]
    fn first_free_lowest_first() {
        assert_eq!(
            fill(&[pool("10.0.7.0/29", None, Some("10.0.7.1"))])
                .first()
                .unwrap(),
            "10.0.7.2"
        );
        assert_eq!(
            fill(&[pool("10.0.7.0/27", None, Some("10.0.7.1"))]).len(),
            29
        );
        // The first address of a range is usable, and its last.
        assert_eq!(
            fill(&[pool("10.0.7.0/24", Some("10.0.7.8/30"), None)]),
            ["10.0.7.8", "10.0.7.9", "10.0.7.10", "10.0.7.11"]
        );
        assert_eq!(fill(&[pool("10.0.7.0/31", None, None)]).len(), 2);
        assert_eq!(fill(&[pool("10.0.7.0/30", None, None)]).len(), 2);
        assert_eq!(fill(&[pool("10.0.7.9/32", None, None)]), ["10.0.7.9"]);
        assert_eq!(
            fill(&[pool("fd00::/126", None, Some("fd00::1"))]),
            ["fd00::2", "fd00::3"]
        );
        assert_eq!(
            fill(&[pool("fd00::/127", None, None)]),
            ["fd00::", "fd00::1"]
        );
        assert_eq!(fill(&[pool("fd00::9/128", None, None)]), ["fd00::9"]);
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127";
        assert_eq!(fill(&[pool(last, None, None)]).len(), 2);
        let wide = [
            pool("fd00::/64", None, None),
            pool("10.0.7.0/24", None, None),
        ];
        let first = |family| next(&wide, family, &|_, _| false).unwrap().0.to_string();
        assert_eq!(first(Family::Ipv6), "fd00::1");
        assert_eq!(first(Family::Ipv4), "10.0.7.1");
        // Pools are used in order.
        assert_eq!(
            fill(&[
                pool("10.0.7.0/31", None, None),
                pool("10.0.8.0/31", None, None)
            ])
            .len(),
            4
        );
    }

    #[test]
    fn problems_are_collected() {
        let mut bad = pool("10.0.2.5/24", Some("10.0.0.0/16"), Some("10.9.0.1"));
        bad.aux.insert("x".into(), "fd00::1".parse().unwrap());
        let text = validate(&[bad]).unwrap_err().to_string();
        for phrase in [
            "invalid network config:",
            "invalid subnet 10.0.2.5/24: it should be 10.0.2.0/24",
            "CIDR block is bigger than its parent subnet",
            "invalid gateway 10.9.0.1: parent subnet 10.0.2.5/24 doesn't contain this address",
            "parent subnet is an IPv4 block",
        ] {
            assert!(text.contains(phrase), "{text}");
        }
        let outside = pool("10.0.2.0/24", Some("10.0.3.8/30"), None);
        assert!(
            validate(&[outside])
                .unwrap_err()
                .to_string()
                .contains("doesn't contain ip-range")
        );
        let bits = pool("10.0.2.0/24", Some("10.0.2.9/30"), None);
        assert!(
            validate(&[bits])
                .unwrap_err()
                .to_string()
                .contains("it should be 10.0.2.8/30")
        );
    }

    #[test]
    fn gateway_and_aux_must_be_free() {
        let text = |p: Pool| validate(&[p]).unwrap_err().cause.to_string();
        assert_eq!(
            text(pool("10.0.2.0/24", None, Some("10.0.2.255"))),
            "failed to allocate gateway (10.0.2.255): Address already in use"
        );
        let mut p = pool("10.0.2.0/24", None, Some("10.0.2.1"));
        p.aux.insert("a".into(), "10.0.2.1".parse().unwrap());
        assert_eq!(
            text(p),
            "failed to allocate secondary ip address (a:10.0.2.1): Address already in use"
        );
        assert!(validate(&[pool("10.0.2.0/31", None, Some("10.0.2.0"))]).is_ok());
        // Of a network or container on the same subnet.
        let p = pool("10.0.2.0/24", None, Some("10.0.2.1"));
        let taken = |ip: IpAddr| Some(ip) == p.gateway;
        let error = reservable(&p, &taken).unwrap_err();
        assert!(error.to_string().contains("failed to allocate gateway"));
        assert!(reservable(&p, &|_| false).is_ok());
    }

    #[test]
    fn overlap_rule() {
        let a = pool("10.0.2.0/24", None, None);
        let same = pool("10.0.0.0/16", None, None);
        assert!(
            check_overlap(&same, &[&a])
                .unwrap_err()
                .to_string()
                .contains("Pool overlaps with other one")
        );
        let ranged = pool("10.0.2.0/24", Some("10.0.2.128/25"), None);
        assert!(check_overlap(&ranged, &[&a]).is_ok());
        assert!(check_overlap(&ranged, &[&a, &ranged]).is_err());
    }

    #[test]
    fn automatic_pools() {
        let v4 = predefined().unwrap();
        assert_eq!(
            automatic(&v4, &[], None).unwrap().to_string(),
            "172.17.0.0/16"
        );
        let avoid: Vec<Cidr> = [
            "172.16.0.0/12".parse().unwrap(),
            "192.168.0.0/20".parse().unwrap(),
        ]
        .into();
        assert_eq!(
            automatic(&v4, &avoid, None).unwrap().to_string(),
            "192.168.16.0/20"
        );
        assert_eq!(
            automatic(&v4, &avoid, Some(24)).unwrap().to_string(),
            "192.168.16.0/24"
        );
        let all: Vec<Cidr> = vec!["0.0.0.0/0".parse().unwrap()];
        assert!(
            automatic(&v4, &all, None)
                .unwrap_err()
                .to_string()
                .contains("fully subnetted")
        );
    }

    #[test]
    fn explicit_address() {
        let pools = [pool("10.0.2.0/24", Some("10.0.2.8/30"), Some("10.0.2.1"))];
        assert!(pool_of(&pools, "10.0.2.200".parse().unwrap()).is_ok());
        assert!(is_reserved(&pools[0], "10.0.2.1".parse().unwrap()));
        assert!(
            pool_of(&pools, "10.0.3.1".parse().unwrap())
                .unwrap_err()
                .to_string()
                .contains("no configured subnet contains IP address 10.0.3.1")
        );
    }
}
