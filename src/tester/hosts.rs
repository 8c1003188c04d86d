//! Host names for the applets: literal IPv4 addresses and /etc/hosts. Nothing
//! else is asked, so nothing can hang or leave the container.

use std::net::Ipv4Addr;

/// The table of /etc/hosts, IPv4 lines only.
#[derive(Debug, Default)]
pub struct Hosts(Vec<(Ipv4Addr, Vec<String>)>);

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
        table.push((Ipv4Addr::LOCALHOST, vec![String::from("localhost")]));
        Self(table)
    }

    pub fn addr(&self, name: &str) -> Option<Ipv4Addr> {
        let named = |names: &[String]| names.iter().any(|n| n.eq_ignore_ascii_case(name));
        self.0
            .iter()
            .find(|(_, names)| named(names))
            .map(|(addr, _)| *addr)
    }

    pub fn name(&self, addr: Ipv4Addr) -> Option<&str> {
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
        assert_eq!(hosts.addr("WEB"), Some(Ipv4Addr::new(10, 0, 2, 5)));
        assert_eq!(hosts.name(Ipv4Addr::new(10, 0, 2, 5)), Some("a1b2"));
        assert_eq!(hosts.addr("six"), None);
        assert_eq!(hosts.addr("line"), None);
        assert_eq!(hosts.name(Ipv4Addr::new(10, 0, 2, 9)), None);
        assert_eq!(hosts.addr("localhost"), Some(Ipv4Addr::LOCALHOST));
    }
}
