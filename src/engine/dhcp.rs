//! Networks whose addresses are a DHCP server's: what they may be, what is
//! shown of a lease, and its end.
//!
//! *The end of a lease.* A container that stops keeps it: the next start asks
//! for the same address. With the container (`rm`, the end of `--rm`) or its
//! endpoint (`disconnect`) it goes back to the server, from the container's own
//! MAC. A container that does not run has no interface, so one is made for the
//! purpose, in a namespace that goes with this process. Nobody answers a
//! RELEASE, and a server that never hears it lets the lease run out: that it
//! cannot be sent keeps nothing from being removed.
//!
//! *The address after that.* Some servers (Kea) give a client that has released
//! its address the next one. So the address is kept, in `<root>/dhcp/`, by
//! client id, and a container that is made again asks for it. A few hundred
//! are; those of a network go with it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::launch::hex;
use super::names::list;
use super::owner::{BURIAL, GLANCE};
use super::record::{Dhcp, EndpointConfig, Record};
use super::{Engine, HostAccess, NetworkCreate, view};
use crate::base::{self, Error, IfName, MacAddr, NetworkId, OfFamily, Result};
use crate::net::dhcp::{self, Identity, Lease, Phase, Port};
use crate::net::spec::{NetworkSpec, Vlan};
use crate::netlink::route::Configure;
use crate::netlink::{Ifindex, NewLink, Rtnl};
use crate::store::file::{self, Durability};
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::sysctl::{Family, NetSysctl};

/// Addresses of containers that are gone.
const REMEMBERED: usize = 512;

/// Refuses what no server could be asked for.
pub(super) fn check_network(
    request: &NetworkCreate,
    vlan: &Vlan,
    ipv4: bool,
    ipv6: bool,
) -> Result<()> {
    let given = |what: &str| {
        Error::invalid(format!(
            "--ipam-driver dhcp leaves addresses to the LAN's DHCP server: {what}"
        ))
    };
    if !request.pools.is_empty() {
        let text = "--subnet, --ip-range, --gateway and --aux-address go with the default driver";
        return Err(given(text).hint("leave them out, or leave --ipam-driver out"));
    }
    if !ipv4 {
        return Err(given("without IPv4 there is nothing to ask for"));
    }
    if ipv6 {
        return Err(given("by it a network has IPv4 addresses alone").hint(
            "leave --ipv6 out: `run --ip6 dhcp` asks a DHCPv6 server, `run --ip6 slaac` goes by \
             the LAN's routers; a network of its own can have IPv6, with a --subnet",
        ));
    }
    if vlan.mode.is_l3() {
        return Err(given(&format!(
            "ipvlan {} passes no broadcasts, by which servers are asked",
            vlan.mode
        ))
        .hint("-o ipvlan_mode=l2 does, as -d macvlan"));
    }
    if vlan.is_isolated() {
        return Err(given("without a parent there is no LAN").hint("add -o parent=IFNAME"));
    }
    if let HostAccess::On { ip: Some(ip) } = request.host_access {
        return Err(given(&format!(
            "there is no subnet in which the host's side could have {ip}"
        ))
        .hint("--host-access without an address works"));
    }
    Ok(())
}

/// Who a container is to the servers on a network.
pub(super) fn identity(network: &NetworkSpec, container: &str, hostname: &str) -> Identity {
    Identity::new(&machine(), network.name.as_str(), container, hostname)
}

/// This machine; where it has no id, its name must do.
pub(super) fn machine() -> Vec<u8> {
    let id = std::fs::read("/etc/machine-id").unwrap_or_default();
    let id = id.trim_ascii();
    if id.is_empty() {
        let name = nix::unistd::gethostname().unwrap_or_default();
        return std::os::unix::ffi::OsStringExt::into_vec(name);
    }
    id.to_owned()
}

/// `--hostname`, or else the container's name.
pub(super) fn hostname<'a>(record_hostname: Option<&'a str>, name: &'a str) -> &'a str {
    record_hostname.unwrap_or(name)
}

pub(super) fn describe(record: &Record) -> BTreeMap<String, view::Dhcp> {
    let known = |e: &EndpointConfig| {
        let mut dhcp = e.dhcp.clone()?;
        if !record.state.status.is_live() {
            // What the next start begins with.
            dhcp.phase = match dhcp.lease {
                Some(_) => Phase::InitReboot,
                None => Phase::Init,
            };
        }
        Some((e.name.clone(), shown(&dhcp)))
    };
    record.config.endpoints.iter().filter_map(known).collect()
}

fn shown(dhcp: &Dhcp) -> view::Dhcp {
    let mut shown = view::Dhcp {
        state: dhcp.phase.as_str().to_owned(),
        client_id: dhcp.identity.client_id_text(),
        hostname: dhcp.identity.hostname.clone(),
        ..Default::default()
    };
    if let Some((at, error)) = &dhcp.error {
        shown.last_error.clone_from(error);
        shown.last_error_at.clone_from(at);
    }
    if let Some(lease) = &dhcp.lease {
        fn texts<T: ToString>(list: &[T]) -> Vec<String> {
            list.iter().map(T::to_string).collect()
        }
        shown.server = lease.server.to_string();
        shown.address = lease.addr.to_string();
        shown.obtained = time_after(lease.obtained, 0);
        shown.renew = time_after(lease.obtained, lease.renew);
        shown.rebind = time_after(lease.obtained, lease.rebind);
        shown.expires = time_after(lease.obtained, lease.seconds);
        shown.routes = texts(&lease.routes);
        shown.mtu = lease.mtu.unwrap_or_default();
        shown.dns = texts(&lease.dns);
        shown.search.clone_from(&lease.search);
        shown.ntp = texts(&lease.ntp);
    }
    shown
}

/// So many seconds after a lease began; nothing for "never".
pub(super) fn time_after(obtained: u64, seconds: u32) -> String {
    if seconds == u32::MAX {
        return String::new();
    }
    let since = Duration::from_secs(obtained.saturating_add(u64::from(seconds)));
    UNIX_EPOCH
        .checked_add(since)
        .map(super::rfc3339)
        .unwrap_or_default()
}

impl Engine {
    /// Of a container that does not run and is about to go.
    pub(super) fn give_leases_back(&self, record: &Record) {
        for endpoint in &record.config.endpoints {
            // What cannot be given back runs out.
            let _ = self.give_lease_back(record, endpoint);
            let _ = self.give_lease6_back(record, endpoint);
        }
    }

    /// Of one that does not run and is taken off a network.
    pub(super) fn leave_by_dhcp(&self, record: &Record, network: &NetworkId) {
        let endpoints = record.config.endpoints.iter();
        for endpoint in endpoints.filter(|e| e.network.as_ref() == Some(network)) {
            let _ = self.give_lease_back(record, endpoint);
            let _ = self.give_lease6_back(record, endpoint);
        }
    }

    /// Of an endpoint of a container that does not run.
    fn give_lease_back(&self, record: &Record, endpoint: &EndpointConfig) -> Result<()> {
        let Some(Dhcp {
            identity: known,
            lease: Some(lease),
            ..
        }) = &endpoint.dhcp
        else {
            return Ok(());
        };
        if lease.remaining(dhcp::unix_time()).is_zero() {
            return Ok(());
        }
        let Some((network, own)) = own_identity(self, record, endpoint)? else {
            return Ok(());
        };
        match network.vlan() {
            // Passthru would take the parent away from whoever has it.
            Some(vlan) if own.client_id == known.client_id => {
                self.remember_address(known, lease.ip().into())?;
                match vlan.mode.is_passthru() {
                    true => Ok(()),
                    false => say_goodbye(vlan, known, lease),
                }
            }
            _ => Ok(()),
        }
    }

    fn addresses_folder(&self) -> PathBuf {
        self.dirs.root().join("dhcp")
    }

    /// For when the client comes again.
    pub(super) fn remember_address(&self, identity: &Identity, ip: IpAddr) -> Result<()> {
        let folder = self.addresses_folder();
        file::make_dir(&folder, 0o700)?;
        let path = self.address_file(identity, ip.family());
        let mut others = list(&folder)?;
        if others.len() >= REMEMBERED && !path.exists() {
            let age = |name: &String| {
                let file = std::fs::metadata(folder.join(name));
                file.and_then(|file| file.modified()).ok()
            };
            others.sort_by_cached_key(age);
            if let Some(oldest) = others.first() {
                file::remove(&folder.join(oldest))?;
            }
        }
        file::replace(&path, ip.to_string().as_bytes(), Durability::Boot)
    }

    pub(super) fn remembered_address(
        &self,
        identity: &Identity,
        family: base::Family,
    ) -> Option<IpAddr> {
        let path = self.address_file(identity, family);
        std::fs::read_to_string(path).ok()?.parse().ok()
    }

    fn address_file(&self, identity: &Identity, family: base::Family) -> PathBuf {
        let id = hex(&identity.client_id);
        self.addresses_folder().join(match family {
            base::Family::Ipv4 => id,
            base::Family::Ipv6 => format!("{id}-6"),
        })
    }

    /// The network is gone; what cannot be deleted is only a wish.
    pub(super) fn forget_addresses(&self, network: &NetworkSpec) {
        let folder = self.addresses_folder();
        let of_network = hex(&identity(network, "", "").client_id[..5]);
        for name in list(&folder).unwrap_or_default() {
            if name.starts_with(&of_network) {
                let _ = file::remove(&folder.join(name));
            }
        }
    }
}

/// Who the container of a record is on an endpoint's network, if that is still
/// there. A lease under an earlier name may be another container's by now.
pub(super) fn own_identity(
    engine: &Engine,
    record: &Record,
    endpoint: &EndpointConfig,
) -> Result<Option<(NetworkSpec, Identity)>> {
    let network = match &endpoint.network {
        Some(id) => engine.load_network(id)?,
        None => None,
    };
    let name = record.name.as_str();
    let hostname = hostname(record.config.hostname.as_deref(), name);
    Ok(network.map(|network| {
        let own = identity(&network, name, hostname);
        (network, own)
    }))
}

fn say_goodbye(vlan: &Vlan, identity: &Identity, lease: &Lease) -> Result<()> {
    let near = |ip: &Ipv4Addr| lease.addr.contains((*ip).into());
    let mut configure = Configure {
        addrs: vec![lease.addr],
        up: true,
        ..Configure::default()
    };
    if let Some(gateway) = lease.gateway().filter(near) {
        configure.gateways.put(gateway.into());
    }
    on_a_link(
        vlan,
        identity.mac,
        |sysctl| match sysctl.has_ipv6() {
            true => sysctl.write(Family::Ipv6, "conf/all/disable_ipv6", "1"),
            false => Ok(()),
        },
        |sandbox, netns, ifname, index| {
            sandbox.configure(index, &configure)?;
            let port = Port {
                netns,
                ifindex: index.get(),
                ifname: ifname.clone(),
                mac: identity.mac,
                shared: None,
            };
            dhcp::release(&port, identity, lease)
        },
    )
}

/// Makes a link of its own with a container's MAC (an ipvlan: its parent's),
/// says something on it, and takes it away. A container that has just ended has
/// its MAC, or an ipvlan its address, until the kernel has taken its namespace
/// apart.
pub(super) fn on_a_link(
    vlan: &Vlan,
    mac: MacAddr,
    prepare: impl Fn(&NetSysctl) -> Result<()>,
    say: impl Fn(&mut Rtnl<Sandbox>, Netns<Sandbox>, &IfName, Ifindex<Sandbox>) -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + BURIAL;
    let mut host = Rtnl::host()?;
    loop {
        let Some(parent) = host.link(vlan.parent.as_str())? else {
            return Ok(());
        };
        let (netns, sysctl) = Netns::create_with(NetSysctl::open)?;
        let mut sandbox = Rtnl::sandbox(&netns)?;
        prepare(&sysctl)?;
        let ifname = IfName::new("eth0")?;
        let new = NewLink {
            name: &ifname,
            lower: parent.index,
            mode: vlan.mode,
            sources: &vlan.sources,
            mac: Some(mac).filter(|_| !vlan.mode.is_ipvlan()),
            mtu: vlan.mtu,
            broadcast: crate::netlink::Broadcast::default(),
        };
        let said = host
            .link_into(&new, &netns, &mut sandbox)
            .and_then(|index| {
                let said = say(&mut sandbox, netns, &ifname, index);
                // Not left to the namespace's end, some 30 ms later: its MAC may be
                // wanted again at once.
                said.and(sandbox.delete_link(index))
            });
        match said {
            Err(e) if e.is_errno(libc::EADDRINUSE) && Instant::now() < end => {
                std::thread::sleep(GLANCE);
            }
            said => return said,
        }
    }
}
