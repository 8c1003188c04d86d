//! The container's name on the LAN (`--mdns`): what it is refused for, and what
//! is shown of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::record::{Mdns, MdnsPhase, State};
use super::{Engine, RunRequest, view};
use crate::base::{Error, Proto, Result};
use crate::net::guard::rule::{self, Direction, Rule, Verdict};
use crate::net::mdns::{GROUP4, GROUP6, PORT};
use crate::net::spec::NetworkSpec;

impl Engine {
    /// One network at least must carry multicast, and the rules let it pass.
    pub(super) fn check_mdns(&self, request: &RunRequest) -> Result<()> {
        if !request.mdns {
            return Ok(());
        }
        let refused = |why: &str| Error::invalid(format!("--mdns cannot be done: {why}"));
        let (mut why, mut works) = (Vec::new(), Vec::new());
        for endpoint in &request.networks {
            let network = self.find_network(&endpoint.network)?;
            match why_not(&network) {
                Some(no) => why.push(no),
                None => works.push(network),
            }
        }
        if works.is_empty() {
            if why.is_empty() {
                why.push("the container is on no network".to_owned());
            }
            return Err(refused(&why.join(", ")).hint("leave it out"));
        }
        let (ipv4, ipv6) = (GROUP4.into(), GROUP6.into());
        let groups = [
            works.iter().any(|n| n.ipv4).then_some(ipv4),
            works.iter().any(|n| n.ipv6).then_some(ipv6),
        ];
        match denied(&request.rules, &groups) {
            Some(why) => Err(refused(&why).hint("--allow 5353/udp, before rules about all")),
            None => Ok(()),
        }
    }
}

/// Why nothing can be told there.
pub(super) fn why_not(network: &NetworkSpec) -> Option<String> {
    let name = &network.name;
    match network.vlan() {
        None => Some(format!("{name} has no interface of the container's own")),
        Some(_) if network.is_l3() => Some(format!("{name} (ipvlan l3) passes no multicast")),
        Some(_) => None,
    }
}

fn denied(rules: &[Rule], groups: &[Option<IpAddr>]) -> Option<String> {
    let service = (Proto::Udp, PORT);
    if rule::verdict(rules, Direction::In, None, service) == Verdict::Deny {
        return Some("the rules let no question in (port 5353/udp)".to_owned());
    }
    let closed = |group: &&IpAddr| {
        rule::verdict(rules, Direction::Out, Some(**group), service) == Verdict::Deny
    };
    let group = groups.iter().flatten().find(closed)?;
    Some(format!(
        "the rules let nothing out to {group}, port 5353/udp"
    ))
}

/// By network.
pub(super) fn describe(state: &State, networks: &[NetworkSpec]) -> BTreeMap<String, view::Mdns> {
    let shown = |told: &Mdns| {
        let network = networks.iter().find(|n| n.id == told.network);
        let short = || told.network.short().to_owned();
        let (phase, error) = match &told.phase {
            MdnsPhase::Probing => ("probing", ""),
            MdnsPhase::Announced => ("announced", ""),
            MdnsPhase::Failed(why) => ("failed", why.as_str()),
        };
        let (taken, taken_by) = match &told.rival {
            Some((name, by)) => (name.clone(), by.to_string()),
            None => (String::new(), String::new()),
        };
        let mdns = view::Mdns {
            name: told.name.clone(),
            state: phase.to_owned(),
            taken,
            taken_by,
            error: error.to_owned(),
        };
        (network.map_or_else(short, |n| n.name.to_string()), mdns)
    };
    state.mdns.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_let_it_pass() {
        let groups = [Some(GROUP4.into()), Some(GROUP6.into())];
        let check = |texts: &[&str]| {
            let rules: Vec<Rule> = texts.iter().map(|t| t.parse().unwrap()).collect();
            denied(&rules, &groups)
        };
        for good in [
            &[][..],
            &["deny 22/tcp"],
            &["deny 10.0.2.9"],
            &["allow 5353/udp", "deny all"],
            &["allow 443/tcp", "allow udp"],
            &[
                "allow in:udp",
                "allow out:224.0.0.0/4:5353/udp",
                "allow out:[ff02::fb]:udp",
            ],
        ] {
            assert_eq!(check(good), None, "{good:?}");
        }
        for (bad, part) in [
            (&["deny all"][..], "no question in"),
            (&["allow 443/tcp"], "no question in"),
            (&["deny in:5000-6000/udp"], "no question in"),
            (&["allow in:all", "deny out:all"], "out to 224.0.0.251"),
            (&["deny out:224.0.0.0/4"], "out to 224.0.0.251"),
            (&["deny ff00::/8"], "out to ff02::fb"),
        ] {
            assert!(check(bad).is_some_and(|why| why.contains(part)), "{bad:?}");
        }
    }
}
