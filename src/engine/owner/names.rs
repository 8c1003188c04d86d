//! The container's names: what it goes by, and the resolver that tells it the
//! others'.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use super::network::{Leg, Network};
use crate::base::{Cidr, ContainerName, Error, Result};
use crate::engine::Engine;
use crate::engine::etc::Etc;
use crate::engine::record::{EndpointConfig, Record};
use crate::engine::resolv_conf::By;
use crate::engine::roster::{self, Roster};
use crate::net::dns::{Resolver, Settings};
use crate::net::host_access;
use crate::net::spec::{Driver, HostAccess};

#[derive(Debug)]
pub(super) struct NameService {
    pub(super) resolver: Resolver,
    pub(super) roster: Roster,
}

impl Network {
    pub(super) fn names_on(&self, endpoint: &EndpointConfig) -> Vec<String> {
        roster::names(
            self.name.as_str(),
            &endpoint.request.aliases,
            &self.id,
            &self.hostname,
        )
    }

    /// What /etc is to say.
    pub(in crate::engine) fn etc(&mut self, record: &Record) -> Result<Etc> {
        let by = match (self.host_mode, self.legs.is_empty()) {
            (true, _) => By::Host,
            (false, true) => By::Servers,
            (false, false) => By::Resolver,
        };
        let mut extra_hosts = String::new();
        for host in &record.config.extra_hosts {
            let addr = match host.addr {
                Some(addr) => addr,
                None => self.host_gateway()?,
            };
            // Writing to a String cannot fail.
            let _ = writeln!(extra_hosts, "{addr}\t{}", host.name);
        }
        Ok(Etc {
            addrs: self.legs.iter().flat_map(|l| l.addrs.values()).collect(),
            extra_hosts,
            by,
        })
    }

    /// `host-gateway`: the host, by the way that leads to it. With Docker that
    /// is the default bridge; here it is a network with host access.
    fn host_gateway(&mut self) -> Result<IpAddr> {
        if self.host_mode {
            return Ok(Ipv4Addr::LOCALHOST.into());
        }
        let mut legs: Vec<&Leg> = self.legs.iter().collect();
        legs.sort_by(|a, b| a.rank().cmp(&b.rank()));
        for leg in legs {
            if let (HostAccess::On { ip }, Driver::Vlan(vlan), Some(IpAddr::V4(container))) = (
                leg.spec.host_access,
                &leg.spec.driver,
                leg.addrs.ipv4().map(Cidr::addr),
            ) {
                return host_access::address(&mut self.host, &vlan.parent, ip, container);
            }
        }
        Err(
            Error::invalid("unable to derive the IP value for host-gateway").hint(
                "only networks with host access lead to the host: \
                 `dockless network host-access NETWORK on`",
            ),
        )
    }

    /// On the first network: a resolver. On none there is nobody to be found.
    pub(in crate::engine) fn serve_names(
        &mut self,
        engine: &Engine,
        settings: Settings,
    ) -> Result<()> {
        if self.legs.is_empty() || self.names.is_some() {
            return Ok(());
        }
        let (resolver, refused) = Resolver::start(self.netns()?, settings)?;
        if let Some(refused) = refused {
            self.warnings.push(format!(
                "port 53 at 127.0.0.11 is the resolver's own, since it cannot be redirected: {refused}"
            ));
        }
        self.names = Some(NameService {
            resolver,
            roster: Roster::new(engine),
        });
        self.follow_networks();
        Ok(())
    }

    /// One network more, live: the first brings the resolver.
    pub(super) fn name_service(&mut self, engine: &Engine, record: &mut Record) -> Result<()> {
        if self.names.is_none() {
            let settings = engine.point_to_resolver(record)?;
            self.serve_names(engine, settings)?;
        }
        self.follow_networks();
        Ok(())
    }

    /// The networks are others than before.
    pub(super) fn follow_networks(&mut self) {
        let Some(names) = &mut self.names else {
            return;
        };
        let mut legs: Vec<&Leg> = self.legs.iter().collect();
        legs.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let is_internal =
            |leg: &&Leg| leg.spec.internal || leg.attachment.as_ref().is_some_and(|a| a.internal);
        names.resolver.set_external(!legs.iter().all(is_internal));
        let networks = legs.iter().map(|leg| leg.spec.clone());
        names.roster.set_networks(networks.collect());
    }

    /// The container is called otherwise from now on.
    pub(super) fn rename(&mut self, engine: &Engine, name: &ContainerName) -> Result<()> {
        if let Some(leg) = self.legs.iter().find(|leg| leg.is_by_name()) {
            return Err(Error::conflict(format!(
                "cannot rename container {}: on network {} its address is leased under that name",
                self.name, leg.spec.name
            ))
            .hint("stop it first; at the next start it asks under the new one"));
        }
        let before = std::mem::replace(&mut self.name, name.clone());
        self.label(engine).map_err(|error| {
            self.name = before;
            error.with_undo(self.label(engine).err().into_iter().collect())
        })
    }

    fn label(&self, engine: &Engine) -> Result<()> {
        for leg in &self.legs {
            for addr in leg.held() {
                engine.label(addr, &leg.spec, &self.id, &self.names_on(&leg.config))?;
            }
        }
        Ok(())
    }
}
