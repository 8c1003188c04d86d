//! Host names for the applets: literal addresses and /etc/hosts.

use std::net::{IpAddr, Ipv4Addr};

use crate::base::{Family, OfFamily};

#[derive(Debug, Default)]
pub struct Hosts(Vec<(IpAddr, Vec<String>)>);

impl Hosts {
    /// An unreadable file is an empty one: `localhost` is known anyway.
    pub fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/hosts").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut table: Vec<_> = text
            .lines()
            .filter_map(|line| {
                let mut words = line.split('#').next()?.split_whitespace();
                let addr = words.next()?.parse().ok()?;
                Some((addr, words.map(str::to_owned).collect::<Vec<_>>()))
            })
            .collect();
        table.push((Ipv4Addr::LOCALHOST.into(), vec![String::from("localhost")]));
        Self(table)
    }

    /// Its address of one family, or of the first that it has: IPv4.
    pub fn addr(&self, name: &str, family: Option<Family>) -> Option<IpAddr> {
        let named = |names: &[String]| names.iter().any(|n| n.eq_ignore_ascii_case(name));
        let all = self.0.iter().filter(|(_, names)| named(names));
        all.map(|(addr, _)| *addr)
            .filter(|addr| family.is_none_or(|family| addr.family() == family))
            .min_by_key(IpAddr::family)
    }

    pub fn name(&self, addr: IpAddr) -> Option<&str> {
        let (_, names) = self.0.iter().find(|(a, n)| *a == addr && !n.is_empty())?;
        names.first().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_up_both_ways() {
        let hosts = Hosts::parse("# c\n10.0.2.5 a1b2 web # x\n::1 six\n10.0.2.9\nbad line\n");
        let text = |name: &str, family| hosts.addr(name, family).map(|ip| ip.to_string());
        let name = |addr: &str| hosts.name(addr.parse().unwrap());
        assert_eq!(text("WEB", None).as_deref(), Some("10.0.2.5"));
        assert_eq!(text("web", Some(Family::Ipv6)), None);
        assert_eq!(name("10.0.2.5"), Some("a1b2"));
        assert_eq!(text("six", None).as_deref(), Some("::1"));
        assert_eq!(text("line", None), None);
        assert_eq!(name("10.0.2.9"), None);
        assert_eq!(text("localhost", None).as_deref(), Some("127.0.0.1"));
    }
}
