//! One network of a container as `network explain` sees it: of one that runs
//! by its record, of one that is stopped by what was asked for.

use std::net::IpAddr;

use crate::base::{Cidr, Family, OfFamily, PerFamily};
use crate::engine::owner::of_lease;
use crate::engine::record::EndpointConfig;
use crate::net::endpoint::EndpointOptions;
use crate::net::routing::choice::Candidate;
use crate::net::routing::{Out, Way};
use crate::net::spec::{NetworkSpec, SourceRouting, Vlan};
use crate::net::{Attachment, Carrier};

/// One network of a container, as it is or would be.
pub(super) struct Side {
    pub(super) spec: NetworkSpec,
    pub(super) ifname: String,
    priority: i32,
    /// The gateway of a DHCP network is not known before there is a lease.
    pub(super) awaits_lease: bool,
    pub(super) gateways: PerFamily<IpAddr>,
    pub(super) way: Way,
    /// Of its parent.
    pub(super) carrier: Carrier,
}

impl Side {
    pub(super) fn there(
        spec: NetworkSpec,
        config: &EndpointConfig,
        attachment: &Attachment,
    ) -> Self {
        let (addrs, gateways) = (attachment.addrs, attachment.gateways);
        let ifname = attachment.ifname.to_string();
        Self {
            carrier: attachment.link.carrier,
            ..Self::new(spec, config, ifname, attachment.ifindex, addrs, gateways)
        }
    }

    /// A subnet stands for an address that is not known yet.
    pub(super) fn to_be(
        spec: NetworkSpec,
        config: &EndpointConfig,
        ifname: String,
        ifindex: u32,
    ) -> Self {
        let lease = config.dhcp.as_ref().and_then(|dhcp| dhcp.lease.as_ref());
        let addrs = PerFamily::each(|family| {
            if spec.is_dhcp() {
                return lease
                    .map(|lease| lease.addr)
                    .filter(|_| family == Family::Ipv4);
            }
            let mut pools = spec.pools.iter().filter(|p| p.subnet.family() == family);
            let request = config.request.ips.of(family);
            let pool = match request.or(config.last_ips.of(family)) {
                Some(ip) => (pools.find(|p| p.subnet.contains(ip)), Some(ip)),
                None => (pools.next(), None),
            };
            match pool {
                (Some(pool), Some(ip)) => Cidr::new(ip, pool.subnet.prefix()).ok(),
                (Some(pool), None) => Some(pool.subnet),
                (None, _) => None,
            }
        });
        let isolated = spec.vlan().is_some_and(Vlan::is_isolated);
        let own = EndpointOptions::new(&config.request.driver_options);
        let own = own.map(|options| options.gateways).unwrap_or_default();
        let gateways = PerFamily::each(|family| match lease {
            _ if spec.is_l3() || isolated => None,
            None if own.of(family).is_some() => own.of(family),
            Some(lease) if family == Family::Ipv4 => lease.gateway().map(IpAddr::V4),
            _ => {
                let own = addrs.of(family)?.network();
                spec.pools.iter().find(|p| p.subnet == own)?.gateway
            }
        });
        Self::new(spec, config, ifname, ifindex, addrs, gateways)
    }

    fn new(
        spec: NetworkSpec,
        config: &EndpointConfig,
        ifname: String,
        ifindex: u32,
        addrs: PerFamily<Cidr>,
        gateways: PerFamily<IpAddr>,
    ) -> Self {
        let lease = config.dhcp.as_ref().and_then(|dhcp| dhcp.lease.as_ref());
        let (near, far) = match lease {
            Some(lease) if !spec.is_internal() => of_lease(lease),
            _ => Default::default(),
        };
        let out = |family| match gateways.of(family) {
            _ if spec.is_internal() => None,
            Some(gateway) => Some(Out::Via(gateway)),
            None => (spec.is_l3() && addrs.of(family).is_some()).then_some(Out::Link),
        };
        Self {
            priority: config.request.gw_priority,
            awaits_lease: spec.is_dhcp() && lease.is_none(),
            way: Way {
                ifindex,
                addrs,
                near,
                far,
                out: PerFamily::each(out),
                fixed: spec.routes.clone(),
                ruled: spec.source_routing == SourceRouting::On,
            },
            carrier: Carrier::Up,
            gateways,
            ifname,
            spec,
        }
    }

    pub(super) fn candidate(&self) -> Candidate<'_> {
        let awaits = |family| self.awaits_lease && family == Family::Ipv4;
        let is_out = |family| {
            self.way.out.of(family).is_some() || awaits(family) && !self.spec.is_internal()
        };
        Candidate {
            name: self.spec.name.as_str(),
            priority: self.priority,
            internal: self.spec.is_internal(),
            addressed: Family::BOTH.map(|f| self.way.addrs.of(f).is_some() || awaits(f)),
            leads_out: Family::BOTH.map(is_out),
        }
    }
}
