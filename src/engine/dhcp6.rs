//! Leases of DHCPv6 servers (`--ip6 dhcp`): what is shown of them, and their
//! end. The same as for DHCPv4 (`dhcp.rs`), but that a server answers a
//! Release.

use std::collections::BTreeMap;

use super::dhcp::{on_a_link, own_identity, time_after};
use super::record::{Dhcp6, EndpointConfig, Record};
use super::{Engine, ip6, view};
use crate::base::{Cidr, Result};
use crate::net::dhcp::unix_time;
use crate::net::dhcp6::{self, Phase};
use crate::net::ip6::{NONE_MADE, link_local};
use crate::netlink::route::Configure;
use crate::sys::sysctl::Family;

pub(super) fn describe(record: &Record) -> BTreeMap<String, view::Dhcp6> {
    let known = |e: &EndpointConfig| {
        let mut dhcp = e.dhcp6.clone()?;
        if !record.state.status.is_live() {
            // What the next start begins with.
            dhcp.phase = match dhcp.lease {
                Some(_) => Phase::Confirming,
                None => Phase::Init,
            };
        }
        Some((e.name.clone(), shown(&dhcp)))
    };
    record.config.endpoints.iter().filter_map(known).collect()
}

fn shown(dhcp: &Dhcp6) -> view::Dhcp6 {
    let mut shown = view::Dhcp6 {
        state: dhcp.phase.as_str().to_owned(),
        duid: dhcp.identity.duid_text(),
        iaid: dhcp.identity.iaid(),
        hostname: dhcp.identity.hostname.clone(),
        ..Default::default()
    };
    if let Some((at, error)) = &dhcp.error {
        shown.last_error.clone_from(error);
        shown.last_error_at.clone_from(at);
    }
    if let Some(lease) = &dhcp.lease {
        let texts = |list: &[std::net::Ipv6Addr]| list.iter().map(ToString::to_string).collect();
        let time = |seconds| time_after(lease.obtained, seconds);
        shown.server = lease.from.to_string();
        shown.server_duid = lease.server_text();
        shown.address = lease.addr.to_string();
        shown.obtained = time(0);
        shown.renew = time(lease.renew);
        shown.rebind = time(lease.rebind);
        shown.preferred = time(lease.preferred);
        shown.expires = time(lease.valid);
        shown.dns = texts(&lease.dns);
        shown.search.clone_from(&lease.search);
        shown.sntp = texts(&lease.sntp);
    }
    shown
}

impl Engine {
    /// Of an endpoint of a container that does not run.
    pub(super) fn give_lease6_back(
        &self,
        record: &Record,
        endpoint: &EndpointConfig,
    ) -> Result<()> {
        let Some(Dhcp6 {
            identity: known,
            lease: Some(lease),
            ..
        }) = &endpoint.dhcp6
        else {
            return Ok(());
        };
        if lease.remaining(unix_time()).is_zero() {
            return Ok(());
        }
        let Some((network, own)) = own_identity(self, record, endpoint)? else {
            return Ok(());
        };
        // Leased under an earlier name: another container may go by it now.
        let Some(vlan) = network.vlan().filter(|_| own.client_id == known.client_id) else {
            return Ok(());
        };
        self.remember_address(known, lease.ip().into())?;
        // Passthru would take the parent away from whoever has it.
        if vlan.mode.is_passthru() {
            return Ok(());
        }
        let is_given = vlan.mode.is_ipvlan();
        let own = match is_given {
            true => ip6::token(&network, record.name.as_str()).link_local(),
            false => link_local(known.mac),
        };
        on_a_link(
            vlan,
            known.mac,
            |sysctl| {
                if !sysctl.has_ipv6() {
                    return Ok(());
                }
                let write = |name: &str, value: &str| {
                    sysctl.write(Family::Ipv6, &format!("conf/default/{name}"), value)
                };
                if is_given {
                    write("addr_gen_mode", NONE_MADE)?;
                }
                // A server knows us by more than the address that this comes
                // from: nobody is asked whether it is free.
                write("accept_dad", "0")
            },
            |sandbox, netns, ifname, index| {
                let given = Cidr::new(own.into(), 64)?;
                let up = Configure {
                    addrs: Some(given).filter(|_| is_given).into_iter().collect(),
                    up: true,
                    ..Configure::default()
                };
                sandbox.configure(index, &up)?;
                dhcp6::release(netns, (ifname, index.get(), own), known, lease)
            },
        )
    }
}
