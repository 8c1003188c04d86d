//! A container on disk: what was asked for and what has become of it.
//!
//! `<root>/containers/<id>/record.json`; for `--rm` containers, which end with
//! the boot at the latest, `<state>/containers/<id>/record.json`. While a
//! container runs, its supervisor is the only writer; otherwise whoever holds
//! the container's lock.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{EndpointRequest, ExtraHost};
use crate::base::{
    Cidr, ContainerId, ContainerName, MacAddr, NetworkId, PerFamily, PortMap, Result,
};
use crate::image::tester::Image;
use crate::net::Attachment;
use crate::net::acd::Acd;
use crate::net::dhcp::{Identity, Lease, Phase};
use crate::net::dhcp6;
use crate::net::guard::rule::Rule;
use crate::net::ip6::Token;
use crate::net::publish::{Path as Via_, PortRequest, Via};
use crate::store::Dirs;
use crate::store::file::{self, Durability};

/// The exit code of a program that SIGKILL has ended.
pub(super) const KILLED: i32 = 137;
/// Why nobody saw it end.
pub(super) const UNSEEN: &str = "its supervisor was killed";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub id: ContainerId,
    pub name: ContainerName,
    /// RFC 3339 with nanoseconds, as all times here.
    pub created: String,
    pub image: Image,
    pub config: Config,
    pub state: State,
}

/// What was asked for, with the image's defaults filled in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Config {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub workdir: String,
    pub user: String,
    /// `--hostname`; else the first 12 digits of the id.
    pub hostname: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub tty: bool,
    pub open_stdin: bool,
    pub attached: bool,
    pub init: bool,
    pub auto_remove: bool,
    pub stop_signal: Option<String>,
    /// Seconds; a negative number: for ever.
    pub stop_timeout: Option<i64>,
    pub exposed: Vec<String>,
    pub publish: Vec<PortRequest>,
    pub publish_via: Via,
    pub log_options: BTreeMap<String, String>,
    /// `HostConfig.NetworkMode`: the first network as typed.
    pub network_mode: String,
    pub endpoints: Vec<EndpointConfig>,
    /// `--dns`, `--dns-search`, `--dns-option`
    #[serde(default)]
    pub dns: Vec<std::net::IpAddr>,
    #[serde(default)]
    pub dns_search: Vec<String>,
    #[serde(default)]
    pub dns_options: Vec<String>,
    /// `--add-host`
    #[serde(default)]
    pub extra_hosts: Vec<ExtraHost>,
    /// `--allow`, `--deny`, in their order.
    #[serde(default)]
    pub rules: Vec<Rule>,
    #[serde(default)]
    pub acd: Acd,
    /// Addresses stay the container's while it does not run.
    #[serde(default)]
    pub ip_reserve: bool,
    /// The LAN is told its name.
    #[serde(default)]
    pub mdns: bool,
}

/// One network that the container is (to be) on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndpointConfig {
    pub request: EndpointRequest,
    /// Known from the first start on: a network made anew under the same name
    /// is not the same network.
    pub network: Option<NetworkId>,
    pub name: String,
    /// The addresses it had last: asked for again at the next start.
    #[serde(default)]
    pub last_ips: PerFamily<std::net::IpAddr>,
    /// On a network with a DHCP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<Dhcp>,
    /// With IPv6 by the LAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan6: Option<Lan6>,
    /// With `--ip6 dhcp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp6: Option<Dhcp6>,
}

/// What a LAN gives an interface of IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lan6 {
    /// Without one a DHCPv6 server gives the address.
    #[serde(default)]
    pub token: Option<Token>,
    /// Those that end in the token or are leased, as the kernel has them.
    pub addrs: Vec<Addr6>,
    /// Whose advertisements the default route follows.
    pub router: Option<std::net::Ipv6Addr>,
    pub dns: Vec<std::net::Ipv6Addr>,
    pub search: Vec<String>,
    /// The last thing that went wrong, and when.
    pub error: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Addr6 {
    pub addr: Cidr,
    pub state: State6,
}

/// RFC 4862's states of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State6 {
    /// The kernel still asks whether somebody has it.
    Tentative,
    /// Somebody has: it is not used.
    Duplicate,
    Preferred,
    /// Not for new connections any more.
    Deprecated,
}

impl State6 {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Tentative => "tentative",
            Self::Duplicate => "duplicate",
            Self::Preferred => "preferred",
            Self::Deprecated => "deprecated",
        }
    }

    /// Whether the container can be reached there.
    pub(super) fn is_usable(self) -> bool {
        matches!(self, Self::Preferred | Self::Deprecated)
    }
}

/// What a container knows of its lease. It outlives the container's end: the
/// next start asks for the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dhcp {
    pub identity: Identity,
    pub phase: Phase,
    pub lease: Option<Lease>,
    /// The last thing that went wrong, and when.
    pub error: Option<(String, String)>,
}

/// The same of a DHCPv6 server's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dhcp6 {
    pub identity: Identity,
    pub phase: dhcp6::Phase,
    pub lease: Option<dhcp6::Lease>,
    /// The last thing that went wrong, and when.
    pub error: Option<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Created,
    Running,
    Paused,
    Exited,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
        }
    }

    pub(super) fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// Docker's "never".
pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub status: Status,
    pub pid: i32,
    /// For those who look: nobody here trusts a number of a process.
    #[serde(default)]
    pub supervisor: i32,
    pub exit_code: i32,
    pub error: String,
    pub started: String,
    pub finished: String,
    /// While running; empty otherwise.
    pub attachments: Vec<Attachment>,
    pub ports: Vec<PortMap>,
    pub paths: Vec<(PortMap, Via_)>,
    pub cgroup: Vec<PathBuf>,
    /// 64 hex digits, new with each network namespace.
    pub sandbox: String,
    /// SHA-256 of its resolv.conf as it was written: the user's, once it
    /// differs.
    #[serde(default)]
    pub resolv_conf: String,
    /// Of the last start and since.
    #[serde(default)]
    pub conflicts: Vec<Conflict>,
    /// With `--mdns`, while running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mdns: Vec<Mdns>,
}

/// What a LAN is told of the container's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mdns {
    pub network: NetworkId,
    /// `web-2.local`
    pub name: String,
    pub phase: MdnsPhase,
    /// The name before this one, and who has it.
    pub rival: Option<(String, std::net::IpAddr)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum MdnsPhase {
    /// The LAN is asked whether somebody has the name.
    Probing,
    Announced,
    /// Why not.
    Failed(String),
}

/// Somebody else on the LAN has, or claims, an address of the container's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Conflict {
    pub network: NetworkId,
    pub ip: std::net::Ipv4Addr,
    pub mac: MacAddr,
    pub outcome: Outcome,
    pub first: String,
    pub last: String,
    /// Frames, of those that were looked at.
    pub seen: u32,
    pub defended: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// The container has another address.
    Avoided,
    /// The answer came when the program ran already: both use the address.
    Shared,
    /// The address was the container's first.
    Defended,
}

impl Outcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Avoided => "avoided",
            Self::Shared => "shared",
            Self::Defended => "defended",
        }
    }
}

/// Whoever invents MACs does not fill the record.
const MAX_CONFLICTS: usize = 16;

impl Default for State {
    fn default() -> Self {
        Self {
            status: Status::Created,
            pid: 0,
            supervisor: 0,
            exit_code: 0,
            error: String::new(),
            started: NEVER.to_owned(),
            finished: NEVER.to_owned(),
            attachments: Vec::new(),
            ports: Vec::new(),
            paths: Vec::new(),
            cgroup: Vec::new(),
            sandbox: String::new(),
            resolv_conf: String::new(),
            conflicts: Vec::new(),
            mdns: Vec::new(),
        }
    }
}

impl State {
    /// One more, or once more.
    pub(super) fn add_conflict(&mut self, new: Conflict) {
        let is_same =
            |c: &&mut Conflict| (&c.network, c.ip, c.mac) == (&new.network, new.ip, new.mac);
        if let Some(known) = self.conflicts.iter_mut().find(is_same) {
            known.last = new.last;
            known.seen = known.seen.saturating_add(new.seen);
            known.defended = known.defended.saturating_add(new.defended);
            return;
        }
        if self.conflicts.len() >= MAX_CONFLICTS {
            self.conflicts.remove(0);
        }
        self.conflicts.push(new);
    }

    /// What dies with the process: pid, interfaces, ports.
    pub(super) fn clear_live(&mut self) {
        self.pid = 0;
        self.supervisor = 0;
        self.attachments.clear();
        self.mdns.clear();
        self.ports.clear();
        self.paths.clear();
        self.cgroup.clear();
    }

    /// Nobody saw how: its supervisor is dead.
    pub(super) fn end_unwatched(&mut self) {
        self.end(KILLED);
        self.error = UNSEEN.to_owned();
    }

    pub(super) fn end(&mut self, exit_code: i32) {
        self.clear_live();
        self.status = Status::Exited;
        self.exit_code = exit_code;
        self.finished = super::rfc3339(SystemTime::now());
    }
}

/// A record, or a part of one.
pub(super) trait Stored: DeserializeOwned {
    fn id(&self) -> &ContainerId;
    fn is_live(&self) -> bool;
    /// Nobody saw how it ended: its supervisor is dead.
    fn end_unwatched(&mut self);
}

impl Stored for Record {
    fn id(&self) -> &ContainerId {
        &self.id
    }

    fn is_live(&self) -> bool {
        self.state.status.is_live()
    }

    fn end_unwatched(&mut self) {
        self.state.end_unwatched();
    }
}

/// `None`: there is no such container.
pub(super) fn load<T: Stored>(dirs: &Dirs, id: &ContainerId) -> Result<Option<T>> {
    for path in Record::paths(dirs, id) {
        let found: Option<T> = file::find_json(&path)?;
        match found {
            Some(record) if record.id() != id => {
                let why = format!("it is the record of container {}", record.id());
                return Err(file::damaged(&path, why));
            }
            Some(record) => return Ok(Some(record)),
            None => {}
        }
    }
    Ok(None)
}

impl Record {
    fn path(&self, dirs: &Dirs) -> PathBuf {
        if self.config.auto_remove {
            dirs.live(&self.id).join("record.json")
        } else {
            dirs.container(&self.id).join("record.json")
        }
    }

    /// `None`: there is no such container.
    pub(super) fn load(dirs: &Dirs, id: &ContainerId) -> Result<Option<Self>> {
        load(dirs, id)
    }

    /// Whether there is one, readable or not.
    pub(super) fn exists(dirs: &Dirs, id: &ContainerId) -> bool {
        Self::paths(dirs, id).iter().any(|path| path.exists())
    }

    fn paths(dirs: &Dirs, id: &ContainerId) -> [PathBuf; 2] {
        [dirs.container(id), dirs.live(id)].map(|folder| folder.join("record.json"))
    }

    /// The container now exists (or has changed) for good.
    pub(super) fn save(&self, dirs: &Dirs) -> Result<()> {
        let durability = if self.config.auto_remove {
            Durability::Boot
        } else {
            Durability::Disk
        };
        file::write_json(&self.path(dirs), self, durability)
    }

    /// For what the next boot makes untrue anyway: that it runs.
    pub(super) fn save_live(&self, dirs: &Dirs) -> Result<()> {
        file::write_json(&self.path(dirs), self, Durability::Boot)
    }

    /// There is no such container any more, whatever of it is still on disk.
    /// Only for `--rm` containers: the others' record goes with their folder.
    pub(super) fn forget(&self, dirs: &Dirs) -> Result<()> {
        if self.config.auto_remove {
            file::remove(&self.path(dirs))
        } else {
            Ok(())
        }
    }

    pub(super) fn hostname(&self) -> &str {
        self.config.hostname.as_deref().unwrap_or(self.id.short())
    }

    /// Program and arguments.
    pub(super) fn argv(&self) -> Vec<String> {
        let config = &self.config;
        config
            .entrypoint
            .iter()
            .chain(&config.cmd)
            .cloned()
            .collect()
    }
}
