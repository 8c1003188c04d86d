//! `--allow` and `--deny`: what a rule says, and how it is written.
//!
//! ```text
//! RULE    = [DIRECTION:]WHAT
//! DIRECTION = in | out                  both, if left out
//! WHAT    = all | PEER | SERVICE | PEER:SERVICE
//! PEER    = ADDRESS | SUBNET            an IPv6 one before a SERVICE in [ ]
//! SERVICE = PORTS[/tcp|/udp] | tcp | udp | icmp
//! PORTS   = N | N-M
//! ```
//!
//! A rule is about who begins: `in` is begun by the peer, and the port is the
//! container's; `out` is begun by the container, and the port is the peer's.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::{Cidr, Error, Proto, Result};

/// One `--allow` or `--deny`. Written `allow in:443/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    pub verdict: Verdict,
    /// `None`: whoever begins.
    pub direction: Option<Direction>,
    /// `None`: anybody.
    pub peer: Option<Cidr>,
    /// `None`: whatever it is.
    pub service: Option<Service>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// `None`: all ports.
    Ports(Proto, Option<(u16, u16)>),
    /// ICMP and ICMPv6.
    Icmp,
}

impl Rule {
    pub fn new(verdict: Verdict, text: &str) -> Result<Self> {
        parse(verdict, text).ok_or_else(|| {
            Error::invalid(format!("invalid value '{text}' of --{verdict}")).hint(
                "a rule is [in:|out:] and `all`, an address or subnet, a port (443/tcp, \
                 8000-8010/udp), `icmp`, or both: 10.0.2.7:5432/tcp, [fd00::7]:53/udp",
            )
        })
    }

    pub fn goes(self, direction: Direction) -> bool {
        self.direction.is_none_or(|own| own == direction)
    }

    fn is_all(self) -> bool {
        self.peer.is_none() && self.service.is_none()
    }
}

/// The first rule that fits decides. What no rule speaks of is denied after a
/// list that ends with an allow, and allowed after one that ends with a deny.
pub fn default(rules: &[Rule]) -> Verdict {
    match rules.last().map(|rule| rule.verdict) {
        Some(Verdict::Allow) => Verdict::Deny,
        Some(Verdict::Deny) | None => Verdict::Allow,
    }
}

/// What becomes of a connection by one protocol to one port. `None`: with
/// peers of which no rule speaks.
pub fn verdict(
    rules: &[Rule],
    direction: Direction,
    peer: Option<IpAddr>,
    (proto, port): (Proto, u16),
) -> Verdict {
    let fits = |rule: &&Rule| {
        let who = rule
            .peer
            .is_none_or(|subnet| peer.is_some_and(|peer| subnet.contains(peer)));
        let what = match rule.service {
            None => true,
            Some(Service::Ports(own, ports)) => {
                own == proto && ports.is_none_or(|(first, last)| (first..=last).contains(&port))
            }
            Some(Service::Icmp) => false,
        };
        rule.goes(direction) && who && what
    };
    let first = rules.iter().find(fits);
    first.map_or_else(|| default(rules), |rule| rule.verdict)
}

/// A rule that can never be the first to fit is a mistake.
pub fn check(rules: &[Rule]) -> Result<()> {
    for (n, rule) in rules.iter().enumerate() {
        let covers = |all: &&Rule| {
            all.is_all() && (all.direction.is_none() || all.direction == rule.direction)
        };
        if let Some(all) = rules.iter().take(n).find(covers) {
            return Err(Error::invalid(format!(
                "--{rule} never counts: the first rule that fits decides, and --{all} fits all before it"
            ))
            .hint("put rules about all last"));
        }
    }
    Ok(())
}

fn parse(verdict: Verdict, text: &str) -> Option<Rule> {
    let (direction, what) = match text.split_once(':') {
        Some(("in", what)) => (Some(Direction::In), what),
        Some(("out", what)) => (Some(Direction::Out), what),
        _ => (None, text),
    };
    let rule = |peer, service| {
        Some(Rule {
            verdict,
            direction,
            peer,
            service,
        })
    };
    if what == "all" {
        return rule(None, None);
    }
    if let Some(service) = service(what) {
        return rule(None, Some(service));
    }
    if let Some(peer) = peer(what) {
        return rule(Some(peer), None);
    }
    let (who, port) = what.rsplit_once(':')?;
    let who = match who.strip_prefix('[') {
        Some(inner) => peer(inner.strip_suffix(']')?).filter(|p| !p.is_ipv4()),
        None => peer(who).filter(|p| p.is_ipv4()),
    };
    rule(Some(who?), Some(service(port)?))
}

/// An address, or a subnet without host bits.
fn peer(text: &str) -> Option<Cidr> {
    if let Ok(addr) = text.parse::<std::net::IpAddr>() {
        return Cidr::new(addr, if addr.is_ipv4() { 32 } else { 128 }).ok();
    }
    let subnet: Cidr = text.parse().ok()?;
    (subnet.network() == subnet).then_some(subnet)
}

fn service(text: &str) -> Option<Service> {
    match text {
        "icmp" => return Some(Service::Icmp),
        "tcp" => return Some(Service::Ports(Proto::Tcp, None)),
        "udp" => return Some(Service::Ports(Proto::Udp, None)),
        _ => {}
    }
    let (ports, proto) = match text.split_once('/') {
        None => (text, Proto::Tcp),
        Some((ports, "tcp")) => (ports, Proto::Tcp),
        Some((ports, "udp")) => (ports, Proto::Udp),
        Some(_) => return None,
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(Service::Ports(proto, Some((first, last))))
}

fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Icmp => f.write_str("icmp"),
            Self::Ports(proto, None) => proto.fmt(f),
            Self::Ports(proto, Some((first, last))) if first == last => {
                write!(f, "{first}/{proto}")
            }
            Self::Ports(proto, Some((first, last))) => write!(f, "{first}-{last}/{proto}"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.verdict)?;
        match self.direction {
            Some(Direction::In) => f.write_str("in:")?,
            Some(Direction::Out) => f.write_str("out:")?,
            None => {}
        }
        let single = |peer: Cidr| peer.prefix() == if peer.is_ipv4() { 32 } else { 128 };
        let who = self.peer.map(|peer| match single(peer) {
            true => peer.addr().to_string(),
            false => peer.to_string(),
        });
        match (who, self.service) {
            (None, None) => f.write_str("all"),
            (None, Some(service)) => service.fmt(f),
            (Some(who), None) => f.write_str(&who),
            (Some(who), Some(service)) if self.peer.is_some_and(|p| !p.is_ipv4()) => {
                write!(f, "[{who}]:{service}")
            }
            (Some(who), Some(service)) => write!(f, "{who}:{service}"),
        }
    }
}

impl FromStr for Rule {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once(' ') {
            Some(("allow", what)) => Self::new(Verdict::Allow, what),
            Some(("deny", what)) => Self::new(Verdict::Deny, what),
            _ => Err(Error::invalid(format!("{text} is not a rule"))),
        }
    }
}

impl TryFrom<String> for Rule {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_written() {
        for (text, means) in [
            ("all", "all"),
            ("443", "443/tcp"),
            ("in:443/tcp", "in:443/tcp"),
            ("8000-8010/udp", "8000-8010/udp"),
            ("out:icmp", "out:icmp"),
            ("udp", "udp"),
            ("10.0.2.7", "10.0.2.7"),
            ("10.0.2.0/24", "10.0.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("out:10.0.2.7:5432/tcp", "out:10.0.2.7:5432/tcp"),
            ("10.0.2.0/24:53/udp", "10.0.2.0/24:53/udp"),
            ("fd00::7", "fd00::7"),
            ("in:fd00::/64", "in:fd00::/64"),
            ("[fd00::/64]:53/udp", "[fd00::/64]:53/udp"),
        ] {
            let rule = Rule::new(Verdict::Allow, text).unwrap();
            assert_eq!(rule.to_string(), format!("allow {means}"));
            assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule);
        }
    }

    #[test]
    fn what_cannot() {
        for text in [
            "",
            "ALL",
            "in:",
            "in",
            "up:443",
            "0/tcp",
            "443/sctp",
            "443/",
            "70000",
            "+443",
            "9-8/tcp",
            "10.0.2.7/24",
            "10.0.2",
            "10.0.2.0/33",
            "10.0.2.7:",
            ":443",
            "fd00::7:443/tcp",
            "[10.0.2.7]:443",
            "[fd00::7:443",
            "in:out:443",
            "443 ",
            "example.com:443",
        ] {
            let error = Rule::new(Verdict::Deny, text).unwrap_err().to_string();
            assert!(error.contains("of --deny"), "{text}: {error}");
        }
    }

    #[test]
    fn order_and_default() {
        let list =
            |texts: &[&str]| -> Vec<Rule> { texts.iter().map(|t| t.parse().unwrap()).collect() };
        assert_eq!(default(&list(&["allow 443"])), Verdict::Deny);
        assert_eq!(
            default(&list(&["allow 443", "deny 10.0.2.7"])),
            Verdict::Allow
        );
        assert!(check(&list(&["allow 443", "deny in:all", "allow out:all"])).is_ok());
        for shadowed in [
            &["deny all", "allow 443"][..],
            &["deny in:all", "allow in:443"],
        ] {
            let error = check(&list(shadowed)).unwrap_err().to_string();
            assert!(error.contains("never counts"), "{error}");
        }
        assert!(check(&list(&["deny in:all", "allow 443"])).is_ok());
    }
}
