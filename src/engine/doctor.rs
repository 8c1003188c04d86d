//! `doctor`: the machine, and the links that networks are on or could be on.

use std::net::IpAddr;

use super::record::Record;
use super::{Engine, view};
use crate::base::{Error, Result};
use crate::net::doctor::{self, Use, Verdict};
use crate::net::spec::{Driver, HostAccess, NetworkSpec};
use crate::netlink::{MacvlanMode, Mode, Rtnl};

impl Engine {
    /// Looks at `parent`; without one, at the links of the default routes and
    /// of all networks. With `probe` it also sends on them. Changes nothing.
    pub fn doctor(&self, parent: Option<&str>, probe: bool) -> Result<view::Diagnosis> {
        let networks = self.stored_networks()?;
        // Without its containers a network is still worth a look.
        let records = self.live_records().unwrap_or_default();
        let mut host = Rtnl::host()?;
        let names = match parent {
            Some(name) => vec![name.to_owned()],
            None => {
                let mut names = doctor::default_links(&mut host)?;
                for name in networks.items.iter().filter_map(parent_of) {
                    if !names.contains(&name) {
                        names.push(name);
                    }
                }
                names
            }
        };
        if names.is_empty() {
            return Err(
                Error::not_found("there is no default route and no network to look at")
                    .hint("name a link: dockless doctor eth0"),
            );
        }
        let mut machine = doctor::machine();
        machine.extend(networks.problems.iter().map(doctor::Check::of_state));
        let mut links = Vec::new();
        for name in names {
            let uses: Vec<Use> = networks
                .items
                .iter()
                .filter(|n| parent_of(n).as_ref() == Some(&name))
                .map(|n| use_of(n, &records))
                .collect();
            links.push(view::LinkDiagnosis {
                networks: uses.iter().map(|u| u.name.clone()).collect(),
                checks: doctor::examine(&name, &uses, probe, &mut host)?,
                link: name,
            });
        }
        let all = links.iter().flat_map(|l| &l.checks).chain(&machine);
        let worst = all.map(|c| c.verdict).max().unwrap_or(Verdict::Ok);
        Ok(view::Diagnosis {
            verdict: worst,
            machine,
            links,
        })
    }
}

fn parent_of(network: &NetworkSpec) -> Option<String> {
    match &network.driver {
        Driver::Vlan(vlan) => Some(vlan.parent.to_string()),
        Driver::Host | Driver::Null => None,
    }
}

fn use_of(network: &NetworkSpec, records: &[Record]) -> Use {
    let attachments = records.iter().flat_map(|r| &r.state.attachments);
    let is_on = |r: &&Record| r.state.attachments.iter().any(|a| a.network == network.id);
    let mut found = Use {
        name: network.name.to_string(),
        pools: network.pools.clone(),
        dhcp: network.is_dhcp(),
        host_access: network.host_access != HostAccess::Off,
        runs: records
            .iter()
            .filter(is_on)
            .map(|r| r.name.to_string())
            .collect(),
        ..Use::default()
    };
    if let Driver::Vlan(vlan) = &network.driver {
        found.mtu = vlan.mtu;
        found.made = !vlan.made.is_empty();
        found.alone = match vlan.mode {
            Mode::Ipvlan { .. } => Some("ipvlan"),
            Mode::Macvlan(MacvlanMode::Passthru) => Some("passthru"),
            Mode::Macvlan(_) => None,
        };
    }
    found.containers = attachments
        .filter(|a| a.network == network.id)
        .filter_map(|a| match a.addrs.ipv4()?.addr() {
            IpAddr::V4(ip) => Some((ip, a.mac)),
            IpAddr::V6(_) => None,
        })
        .collect();
    found
}
