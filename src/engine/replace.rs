//! `run --replace`: a container in the place of another one of the same name,
//! with its addresses.
//!
//! What can be refused is refused while the old container still runs: an image,
//! a network, an address, a MAC, a port. From its removal on there is only the
//! way forward.

use super::Engine;
use super::hold::Leaving;
use super::lease::Wish;
use super::owner::{check_families, taken};
use super::record::Config;
use super::set::check_gateways;
use crate::base::{Cause, ContainerName, Error, Family, Result};
use crate::net::endpoint::EndpointOptions;
use crate::net::vlan::valid_mac;
use crate::netlink::Rtnl;

impl Engine {
    /// Removes the container of that name, if there is one; its last addresses
    /// become those that the new one asks for first.
    pub(super) fn replace(&self, name: &ContainerName, config: &mut Config) -> Result<()> {
        let Some(id) = self.named(name)? else {
            return Ok(());
        };
        let gone = |e: &Error| matches!(e.cause, Cause::NotFound(_));
        let old = match self.record(&id) {
            Err(e) if gone(&e) => return Ok(()),
            old => old?,
        };
        for endpoint in &mut config.endpoints {
            let network = self.find_network(&endpoint.request.network)?;
            check_families(&endpoint.request, &network)?;
            let options = EndpointOptions::new(&endpoint.request.driver_options)?;
            check_gateways(&options, &network, &endpoint.request.ips)?;
            endpoint.request.mac.map(valid_mac).transpose()?;
            for family in Family::BOTH {
                if let (Some(ip), false) = (endpoint.request.ips.of(family), network.is_dhcp()) {
                    self.check_free(&network, ip, &old.id)?;
                    if taken::addresses(&network, &mut Rtnl::host()?)?.contains(&ip) {
                        taken::hosts_own(&network, ip, Wish::Exactly(ip), config.acd)?;
                    }
                }
            }
            let is_same =
                |e: &&super::record::EndpointConfig| e.network.as_ref() == Some(&network.id);
            if let Some(had) = old.config.endpoints.iter().find(is_same) {
                endpoint.last_ips = had.last_ips;
            }
        }
        taken::check_ports(self, &config.publish, &old.state.ports)?;
        match self.remove(old.id.as_str(), true, &mut Leaving::default()) {
            // Another command has removed it meanwhile.
            Err(e) if gone(&e) => {}
            removed => removed?,
        }
        // The end of one with --rm is its supervisor's.
        self.dirs.roll().acquire(&old.id)?.unlink()
    }
}
