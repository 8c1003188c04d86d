//! `info`: the machine as dockless sees it.

use super::{Engine, view};
use crate::base::Result;

impl Engine {
    pub(super) fn describe_machine(&self) -> Result<view::Info> {
        let containers = self.containers(true)?.items;
        let count = |status: view::Status| {
            let n = containers.iter().filter(|c| c.status == status).count();
            u64::try_from(n).unwrap_or(u64::MAX)
        };
        let uts =
            nix::sys::utsname::uname().map_err(|e| crate::base::Error::sys("read", "uname", e))?;
        let text = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
        let release = os_release();
        Ok(view::Info {
            id: machine_id(),
            containers: u64::try_from(containers.len()).unwrap_or(u64::MAX),
            containers_running: count(view::Status::Running),
            containers_paused: count(view::Status::Paused),
            containers_stopped: count(view::Status::Exited) + count(view::Status::Created),
            images: 1,
            driver: "overlay2".to_owned(),
            plugins: view::Plugins {
                volume: Vec::new(),
                network: ["host", "ipvlan", "macvlan", "null"]
                    .map(str::to_owned)
                    .to_vec(),
                authorization: None,
                log: vec!["json-file".to_owned()],
            },
            logging_driver: "json-file".to_owned(),
            cgroup_driver: "cgroupfs".to_owned(),
            cgroup_version: cgroup_version().to_owned(),
            kernel_version: text(uts.release()),
            operating_system: release.0,
            os_version: release.1,
            os_type: "linux".to_owned(),
            architecture: text(uts.machine()),
            ncpu: u64::try_from(std::thread::available_parallelism().map_or(1, usize::from))
                .unwrap_or(1),
            mem_total: memory(),
            docker_root_dir: self.dirs.root().display().to_string(),
            name: text(uts.nodename()),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            default_runtime: "dockless".to_owned(),
            init_binary: "docker-init".to_owned(),
            security_options: vec!["name=seccomp,profile=builtin".to_owned()],
            dockless: view::InfoExtra {
                state_dir: self.dirs.state().display().to_string(),
                ..Default::default()
            },
            ..Default::default()
        })
    }
}

fn machine_id() -> String {
    let text = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    text.trim().to_owned()
}

/// PRETTY_NAME and VERSION_ID of os-release(5).
fn os_release() -> (String, String) {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|v| v.trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    (value("PRETTY_NAME"), value("VERSION_ID"))
}

/// "2" only where the controllers are on v2, as Docker counts.
fn cgroup_version() -> &'static str {
    if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "2"
    } else {
        "1"
    }
}

fn memory() -> u64 {
    std::fs::read_to_string("/proc/meminfo")
        .unwrap_or_default()
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .split_whitespace()
                .next()?
                .parse::<u64>()
                .ok()
        })
        .unwrap_or_default()
        * 1024
}
