//! One element of `inspect`'s array.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::net::guard::Dropped;
use crate::net::guard::limit::Excess;

use super::{Empty, HostConfig, NEVER, Ports};

/// A container, as `docker inspect` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Container {
    pub id: String,
    pub created: String,
    /// The program that runs, and its arguments: entrypoint and command.
    pub path: String,
    pub args: Vec<String>,
    pub state: State,
    pub image: String,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    /// With the slash in front: `/mac1`.
    pub name: String,
    pub restart_count: u32,
    pub driver: String,
    pub platform: String,
    pub mount_label: String,
    pub process_label: String,
    pub app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    pub host_config: HostConfig,
    /// Left out when `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph_driver: Option<GraphDriver>,
    /// Bytes in the writable layer, and in all layers together; only where
    /// sizes were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<u64>,
    pub mounts: Vec<MountPoint>,
    pub config: Config,
    pub network_settings: NetworkSettings,
    pub dockless: ContainerExtra,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct State {
    pub status: Status,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: i32,
    pub exit_code: i32,
    pub error: String,
    pub started_at: String,
    pub finished_at: String,
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: Status::default(),
            running: false,
            paused: false,
            restarting: false,
            oom_killed: false,
            dead: false,
            pid: 0,
            exit_code: 0,
            error: String::new(),
            started_at: NEVER.into(),
            finished_at: NEVER.into(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Restarting,
        Self::Removing,
        Self::Exited,
        Self::Dead,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Removing => "removing",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// Where the root file system's layers are: `overlay2` with `LowerDir`,
/// `UpperDir`, `WorkDir`, `MergedDir`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GraphDriver {
    pub data: BTreeMap<String, String>,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub r#type: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub source: String,
    pub destination: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    pub mode: String,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: String,
}

/// What the container is, apart from the machine it runs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    /// `{"5000/tcp":{}}`; left out when empty.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Vec<String>,
    pub cmd: Option<Vec<String>>,
    /// As typed: `tester`.
    pub image: String,
    pub volumes: Option<BTreeMap<String, Empty>>,
    pub working_dir: String,
    pub entrypoint: Option<Vec<String>>,
    pub labels: BTreeMap<String, String>,
    /// Left out when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Left out when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    pub sandbox_key: String,
    /// What is forwarded right now.
    pub ports: Ports,
    /// By network name.
    pub networks: BTreeMap<String, Endpoint>,
}

/// One network of a container. Configuration stays when the container stops;
/// the rest is empty then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint {
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpam>,
    pub links: Option<Vec<String>>,
    pub aliases: Option<Vec<String>>,
    pub driver_opts: Option<BTreeMap<String, String>>,
    pub gw_priority: i32,
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    pub mac_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: u8,
    /// Name, aliases, short id, host name; each once.
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

/// What the user asked for (`--ip`); keys left out when empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointIpam {
    #[serde(rename = "IPv4Address", skip_serializing_if = "String::is_empty")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address", skip_serializing_if = "String::is_empty")]
    pub ipv6_address: String,
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "Vec::is_empty")]
    pub link_local_ips: Vec<String>,
}

/// What Docker has no key for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerExtra {
    /// Process id of the supervisor, 0 when the container does not run.
    pub supervisor_pid: i32,
    /// cgroup folders, one per hierarchy.
    pub cgroups: Vec<String>,
    /// Which way each published port's traffic from the LAN takes.
    pub published: Vec<Published>,
    /// Per network name: interface and parent.
    pub links: BTreeMap<String, LinkExtra>,
    /// Per network name, where a DHCP server gives the address; also of a
    /// container that does not run.
    #[serde(rename = "DHCP", skip_serializing_if = "BTreeMap::is_empty")]
    pub dhcp: BTreeMap<String, Dhcp>,
    /// Per network name, where `--ip6` says who gives the addresses.
    #[serde(rename = "IPv6", skip_serializing_if = "BTreeMap::is_empty")]
    pub ip6: BTreeMap<String, Ip6>,
    /// Per network name, with `--ip6 dhcp`; also of a container that does not
    /// run.
    #[serde(rename = "DHCPv6", skip_serializing_if = "BTreeMap::is_empty")]
    pub dhcp6: BTreeMap<String, Dhcp6>,
    /// Per network name, where the LAN is told the container's name.
    #[serde(rename = "MDNS", skip_serializing_if = "BTreeMap::is_empty")]
    pub mdns: BTreeMap<String, Mdns>,
    /// `--allow` and `--deny` in their order, and what holds for the rest.
    pub rules: Vec<RuleExtra>,
    /// Address conflicts of the last start and since.
    pub conflicts: Vec<Conflict>,
}

/// IPv6 by the LAN, or none at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ip6 {
    /// `slaac`, `dhcp`, `off`
    pub by: String,
    /// The low half of the addresses: `::4b1d:…`; empty with DHCPv6.
    pub token: String,
    /// While it runs.
    pub addresses: Vec<Addr6>,
    /// Of the default route.
    pub router: String,
    #[serde(rename = "DNS")]
    pub dns: Vec<String>,
    pub search: Vec<String>,
    pub last_error: String,
    pub last_error_at: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Addr6 {
    /// `2001:db8::4b1d:…/64`
    pub address: String,
    /// `tentative`, `duplicate`, `preferred`, `deprecated`
    pub state: String,
}

/// A name on the LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mdns {
    /// `web-2.local`
    pub name: String,
    /// `probing`, `announced`, `failed`
    pub state: String,
    /// The name before this one, which somebody has.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub taken: String,
    /// Who: an address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub taken_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// A DHCP client and its lease; empty without one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Dhcp {
    /// RFC 2131's: `BOUND`.
    pub state: String,
    #[serde(rename = "ClientID")]
    pub client_id: String,
    pub hostname: String,
    pub server: String,
    /// `10.0.2.50/24`
    pub address: String,
    /// RFC 3339; empty: never.
    pub obtained: String,
    pub renew: String,
    pub rebind: String,
    pub expires: String,
    /// `10.9.0.0/16 via 10.0.2.7`
    pub routes: Vec<String>,
    #[serde(rename = "MTU")]
    pub mtu: u16,
    #[serde(rename = "DNS")]
    pub dns: Vec<String>,
    pub search: Vec<String>,
    #[serde(rename = "NTP")]
    pub ntp: Vec<String>,
    pub last_error: String,
    pub last_error_at: String,
}

/// A DHCPv6 client and its lease; empty without one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Dhcp6 {
    /// `BOUND`
    pub state: String,
    #[serde(rename = "DUID")]
    pub duid: String,
    #[serde(rename = "IAID")]
    pub iaid: u32,
    pub hostname: String,
    /// Whom the lease came from: `fe80::…`
    pub server: String,
    #[serde(rename = "ServerDUID")]
    pub server_duid: String,
    /// `2001:db8::50/128`
    pub address: String,
    /// RFC 3339; empty: never.
    pub obtained: String,
    pub renew: String,
    pub rebind: String,
    /// Until then.
    pub preferred: String,
    pub expires: String,
    #[serde(rename = "DNS")]
    pub dns: Vec<String>,
    pub search: Vec<String>,
    #[serde(rename = "SNTP")]
    pub sntp: Vec<String>,
    pub last_error: String,
    pub last_error_at: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RuleExtra {
    /// `allow 443/tcp`
    pub rule: String,
    /// Packets that it decided about: of what is allowed, each connection's
    /// first. Only of one container that is asked for by name.
    pub packets: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Conflict {
    pub network: String,
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    /// Of the other machine.
    pub mac_address: String,
    /// `avoided`, `shared` or `defended`
    pub outcome: String,
    pub first: String,
    pub last: String,
    pub seen: u32,
    pub defended: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Published {
    /// `0.0.0.0:5000->5000/tcp`
    pub port: String,
    /// `fast-path` or `proxy`
    pub path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LinkExtra {
    /// Inside the container: `eth0`.
    pub interface: String,
    pub parent: String,
    /// `up`, `no carrier` (or the parent is down), `parent gone`
    pub state: String,
    /// Of the state, where it has changed since the link was made.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub since: String,
    /// Why the link could not be made again.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    pub mode: String,
    /// The host can talk to this address (`network host-access`).
    pub host_access: bool,
    /// How many ARP announcements a start sends.
    pub announcements: u32,
    /// `on`, `off`, or `off: ` and why it could not be had.
    pub guard: String,
    /// What the guard has dropped, by what was forged; only where there was
    /// any, and only of one container that is asked for by name.
    pub dropped: Dropped,
    /// `20mbit`; empty: as fast as it goes.
    pub rate_up: String,
    pub rate_down: String,
    /// What was dropped for them; only of one container that is asked for by
    /// name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_dropped: Option<Excess>,
}
