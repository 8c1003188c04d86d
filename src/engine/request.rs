//! What the fronts ask for: parsed and of the right shape, not yet checked
//! against the machine or the state.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::base::{Cidr, Family, MacAddr, OfFamily, PerFamily};

// What a front needs of the layers below, so that it names the engine alone.
pub use crate::container::attach::{Client, DetachKeys, Relay};
pub use crate::net::acd::Acd;
pub use crate::net::endpoint::{EXTRA_MAC, FIELDS, GATEWAY, RATE_DOWN, RATE_UP};
pub use crate::net::guard::rule::{Rule, Verdict};
pub use crate::net::ip6::Ip6;
pub use crate::net::publish::{PortRequest, Via};
pub use crate::net::rate::Rate;
pub use crate::net::routing::fixed::StaticRoute;
pub use crate::store::Dirs;
pub use crate::sys::process::ExitStatus;

/// `network create`
#[derive(Clone, Debug, Default)]
pub struct NetworkCreate {
    pub name: String,
    /// As typed: `macvlan`; the engine refuses what it does not know
    /// (`plugin "X" not found`).
    pub driver: String,
    /// `-o KEY=VALUE`, exactly as given, in order of keys.
    pub options: BTreeMap<String, String>,
    /// One a `--subnet`, with the range, gateway and aux addresses that the
    /// command line's rules (client-side, §4.1) assigned to it.
    pub pools: Vec<PoolRequest>,
    pub internal: bool,
    pub attachable: bool,
    pub labels: BTreeMap<String, String>,
    /// `--ipam-driver`, `--ipam-opt`
    pub ipam_driver: String,
    pub ipam_options: BTreeMap<String, String>,
    pub ipv4: Option<bool>,
    pub ipv6: Option<bool>,
    pub host_access: HostAccess,
    /// `--route DEST,GATEWAY[,METRIC]`
    pub routes: Vec<StaticRoute>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRequest {
    /// `0.0.0.0/N`, `::/N`: any free one of that size; of size 0: of the usual.
    pub subnet: Cidr,
    pub ip_range: Option<Cidr>,
    pub gateway: Option<IpAddr>,
    pub aux: BTreeMap<String, IpAddr>,
}

impl PoolRequest {
    pub fn new(subnet: Cidr) -> Self {
        Self {
            subnet,
            ip_range: None,
            gateway: None,
            aux: BTreeMap::new(),
        }
    }

    /// None was given.
    pub fn any(family: Family) -> Self {
        Self::new(Cidr::default_of(family))
    }

    pub fn family(&self) -> Family {
        self.subnet.family()
    }
}

/// `network host-access NETWORK on|off [--ip ADDR]`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostAccess {
    #[default]
    Off,
    /// With an address of its own for the host-side link, or without.
    On { ip: Option<Ipv4Addr> },
}

/// One `--network` of `run`, or `network connect`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRequest {
    /// Id, name or prefix as typed; `none` and `host` too.
    pub network: String,
    /// `--ip`, `--ip6`
    #[serde(default)]
    pub ips: PerFamily<IpAddr>,
    /// `--ip6`, where it says who gives the address.
    #[serde(default, skip_serializing_if = "Ip6::is_subnet")]
    pub ip6: Ip6,
    /// `--link-local-ip`
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    pub mac: Option<MacAddr>,
    pub aliases: Vec<String>,
    pub driver_options: BTreeMap<String, String>,
    pub gw_priority: i32,
}

/// `network set`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointChange {
    /// Driver options; `None`: not given any more.
    pub options: BTreeMap<String, Option<String>>,
    pub ips: PerFamily<IpAddr>,
    pub mac: Option<MacAddr>,
}

impl EndpointChange {
    pub(super) fn is_about_addresses(&self) -> bool {
        !self.ips.is_empty() || self.mac.is_some() || self.options.contains_key(GATEWAY)
    }
}

/// `--add-host NAME:IP`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    pub name: String,
    /// `None`: `host-gateway`, the host as the container can reach it.
    pub addr: Option<IpAddr>,
}

impl std::fmt::Display for ExtraHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.addr {
            Some(addr) => write!(f, "{}:{addr}", self.name),
            None => write!(f, "{}:host-gateway", self.name),
        }
    }
}

#[derive(Clone, Debug)]
pub enum ImageRequest {
    /// An image name; only `tester` (with or without `:latest`) exists so far.
    Name(String),
    /// `--rootfs DIR`
    Folder(PathBuf),
}

/// `run`
#[derive(Clone, Debug)]
pub struct RunRequest {
    pub image: ImageRequest,
    /// Arguments after the image.
    pub cmd: Vec<String>,
    /// `--entrypoint`: `Some("")` clears the image's.
    pub entrypoint: Option<String>,
    pub name: Option<String>,
    pub hostname: Option<String>,
    /// Empty: the network mode `none` is refused nowhere, and the default is
    /// `none`, since there is no bridge network here.
    pub networks: Vec<EndpointRequest>,
    pub publish: Vec<PortRequest>,
    pub publish_via: Via,
    /// `--expose`, as typed: `80/tcp`.
    pub expose: Vec<String>,
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub interactive: bool,
    pub tty: bool,
    pub init: bool,
    pub auto_remove: bool,
    pub detach: bool,
    pub stop_signal: Option<String>,
    pub stop_timeout: Option<i64>,
    /// The engine writes the id there once the container exists, before its
    /// program starts. The file must not exist.
    pub cidfile: Option<PathBuf>,
    pub sig_proxy: bool,
    pub detach_keys: DetachKeys,
    /// `--log-opt max-size`, `max-file`
    pub log_options: BTreeMap<String, String>,
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    pub extra_hosts: Vec<ExtraHost>,
    /// `--allow`, `--deny`, in their order.
    pub rules: Vec<Rule>,
    /// `None`: not said.
    pub acd: Option<Acd>,
    /// Keep the addresses while the container does not run.
    pub ip_reserve: bool,
    /// Tell the LAN the container's name.
    pub mdns: bool,
    /// Take the place of the container that has the name now.
    pub replace: bool,
}

/// `exec`
#[derive(Clone, Debug, Default)]
pub struct ExecRequest {
    pub argv: Vec<String>,
    pub env: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub interactive: bool,
    pub tty: bool,
    pub detach: bool,
    pub detach_keys: DetachKeys,
}

/// `events`
#[derive(Clone, Debug, Default)]
pub struct EventsRequest {
    pub since: Option<SystemTime>,
    pub until: Option<SystemTime>,
}

/// `logs`
#[derive(Clone, Debug, Default)]
pub struct LogsRequest {
    pub follow: bool,
    /// `None`: all.
    pub tail: Option<u64>,
    pub since: Option<SystemTime>,
    pub until: Option<SystemTime>,
    pub timestamps: bool,
}
