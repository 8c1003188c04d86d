//! `version` and `info`.

use serde::{Deserialize, Serialize};

/// `docker version --format json` where no daemon answers: `Server` is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Version {
    pub client: ClientVersion,
    /// Always `null`: there is no daemon.
    pub server: Option<super::Empty>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClientVersion {
    pub version: String,
    /// The Engine API whose JSON shapes are printed.
    pub api_version: String,
    #[serde(rename = "DefaultAPIVersion")]
    pub default_api_version: String,
    pub git_commit: String,
    /// In place of Docker's GoVersion.
    pub rust_version: String,
    pub os: String,
    pub arch: String,
    pub build_time: String,
    pub context: String,
}

/// What `docker info` says of the machine and what runs on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Info {
    /// A stable id of this machine's installation; may be empty.
    #[serde(rename = "ID")]
    pub id: String,
    pub containers: u64,
    pub containers_running: u64,
    pub containers_paused: u64,
    pub containers_stopped: u64,
    pub images: u64,
    /// Storage driver: `overlay2`.
    pub driver: String,
    /// Pairs, such as `["Backing Filesystem", "extfs"]`.
    pub driver_status: Vec<[String; 2]>,
    pub plugins: Plugins,
    pub logging_driver: String,
    /// `cgroupfs`
    pub cgroup_driver: String,
    /// `1` or `2`
    pub cgroup_version: String,
    pub kernel_version: String,
    pub operating_system: String,
    #[serde(rename = "OSVersion")]
    pub os_version: String,
    #[serde(rename = "OSType")]
    pub os_type: String,
    pub architecture: String,
    #[serde(rename = "NCPU")]
    pub ncpu: u64,
    pub mem_total: u64,
    /// `--root`
    pub docker_root_dir: String,
    /// Host name.
    pub name: String,
    pub labels: Vec<String>,
    pub server_version: String,
    pub default_runtime: String,
    pub init_binary: String,
    /// `name=seccomp,profile=builtin`, …
    pub security_options: Vec<String>,
    pub warnings: Vec<String>,
    pub dockless: InfoExtra,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Plugins {
    pub volume: Vec<String>,
    pub network: Vec<String>,
    pub authorization: Option<Vec<String>>,
    pub log: Vec<String>,
}

/// What Docker has no key for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InfoExtra {
    /// `--state`
    pub state_dir: String,
    /// What this kernel and this user can do, each with yes, or why not:
    /// `["macvlan", "yes"]`, `["publish fast path", "no: kernel 5.10 has …"]`.
    pub features: Vec<[String; 2]>,
}
