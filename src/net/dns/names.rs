//! Who is called what: the containers on the networks that one container is
//! on, in the order in which they answer. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

/// Where the resolver learns names from; asked anew for each question, so that
/// the answer is as true as the asked can make it.
pub trait Names {
    /// The addresses behind a name in lower case; `None`: nobody's.
    fn find(&mut self, name: &str) -> Option<Vec<IpAddr>>;
    /// `NAME.NETWORK` of an address.
    fn name_of(&mut self, addr: IpAddr) -> Option<String>;
    /// Nobody has asked for a while: whatever is kept in memory can go.
    fn forget(&mut self);
}

/// One container's address on one network, and all that it is called there;
/// the first is its name, which an address leads back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub container: String,
    pub addr: IpAddr,
    pub names: Vec<String>,
}

#[derive(Debug)]
struct Network {
    name: String,
    entries: Vec<Entry>,
    /// By name in lower case.
    by_name: HashMap<String, Vec<usize>>,
}

/// The networks of one container, the one that answers first first.
#[derive(Debug, Default)]
pub struct Table {
    networks: Vec<Network>,
}

impl Table {
    pub fn add(&mut self, network: &str, entries: Vec<Entry>) {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            for name in &entry.names {
                let places = by_name.entry(name.to_ascii_lowercase()).or_default();
                if places.last() != Some(&at) {
                    places.push(at);
                }
            }
        }
        self.networks.push(Network {
            name: network.to_owned(),
            entries,
            by_name,
        });
    }

    /// Whole, then as a name and a network, split at each dot from the right.
    /// What `is_live` denies is not there.
    pub fn find(&self, name: &str, is_live: &dyn Fn(&str) -> bool) -> Option<Vec<IpAddr>> {
        let whole = || self.networks.iter().find_map(|n| n.find(name, is_live));
        let split = || {
            name.rmatch_indices('.').find_map(|(at, _)| {
                let (host, network) = (&name[..at], &name[at + 1..]);
                self.networks
                    .iter()
                    .filter(|n| n.name.eq_ignore_ascii_case(network))
                    .find_map(|n| n.find(host, is_live))
            })
        };
        whole().or_else(split)
    }

    pub fn name_of(&self, addr: IpAddr, is_live: &dyn Fn(&str) -> bool) -> Option<String> {
        self.networks.iter().find_map(|network| {
            let mut holders = network.entries.iter().filter(|e| e.addr == addr);
            let entry = holders.find(|e| is_live(&e.container))?;
            Some(format!("{}.{}", entry.names.first()?, network.name))
        })
    }
}

impl Network {
    fn find(&self, name: &str, is_live: &dyn Fn(&str) -> bool) -> Option<Vec<IpAddr>> {
        let places = self.by_name.get(name)?.iter();
        let addrs: Vec<IpAddr> = places
            .filter_map(|at| self.entries.get(*at))
            .filter(|entry| is_live(&entry.container))
            .map(|entry| entry.addr)
            .collect();
        (!addrs.is_empty()).then_some(addrs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(container: &str, last: u8, names: &[&str]) -> Entry {
        Entry {
            container: container.to_owned(),
            addr: IpAddr::from([10, 0, 2, last]),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
        }
    }

    fn table() -> Table {
        let mut table = Table::default();
        let web = entry("1", 5, &["Web", "api", "a1b2", "hh.example.com"]);
        table.add("lan", vec![web, entry("2", 6, &["db", "api"])]);
        table.add(
            "back.end",
            vec![entry("1", 50, &["Web"]), entry("3", 60, &["x.lan"])],
        );
        table
    }

    #[test]
    fn names_whole_and_with_a_network() {
        let table = table();
        let find = |name: &str| {
            let last = |addr: &IpAddr| match addr {
                IpAddr::V4(ip) => ip.octets()[3],
                IpAddr::V6(_) => 0,
            };
            let found = table.find(name, &|_| true);
            found.map(|addrs| addrs.iter().map(last).collect::<Vec<_>>())
        };
        assert_eq!(find("web"), Some(vec![5]), "the first network answers");
        assert_eq!(find("api"), Some(vec![5, 6]));
        assert_eq!(find("a1b2"), Some(vec![5]));
        assert_eq!(find("hh.example.com"), Some(vec![5]));
        assert_eq!(find("hh"), None);
        assert_eq!(find("web.lan"), Some(vec![5]));
        assert_eq!(find("web.back.end"), Some(vec![50]));
        assert_eq!(find("hh.example.com.lan"), Some(vec![5]));
        assert_eq!(find("x.lan"), Some(vec![60]), "whole comes first");
        assert_eq!(find("web.nowhere"), None);
        assert_eq!(find(".lan"), None);
    }

    #[test]
    fn the_dead_have_no_names() {
        let table = table();
        let alive = |id: &str| id != "1";
        let api = table.find("api", &alive).unwrap();
        assert_eq!(api, [IpAddr::from([10, 0, 2, 6])]);
        assert_eq!(table.find("web", &alive), None);
        let web = IpAddr::from([10, 0, 2, 5]);
        assert_eq!(table.name_of(web, &alive), None);
        assert_eq!(table.name_of(web, &|_| true).unwrap(), "Web.lan");
    }
}
