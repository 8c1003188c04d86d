//! `version` and `info` as text.

use std::fmt::Write as _;

use super::durations::size_binary;
use crate::engine::view::{Info, Version};

/// There is no second program that could have a version of its own.
pub const NO_SERVER: &str = "none (dockless has no daemon)";

pub fn version(v: &Version) -> String {
    let c = &v.client;
    let mut out = String::from("Client:\n");
    for (name, value) in [
        ("Version:", &c.version),
        ("API version:", &c.api_version),
        ("Rust version:", &c.rust_version),
        ("Git commit:", &c.git_commit),
        ("Built:", &c.build_time),
    ] {
        if !value.is_empty() {
            let _ = writeln!(out, " {name:<18}{value}");
        }
    }
    let _ = writeln!(out, " {:<18}{}/{}", "OS/Arch:", c.os, c.arch);
    let _ = writeln!(out, "\nServer: {NO_SERVER}");
    out
}

/// What `docker info` prints of a server stands under "Host", since nothing
/// but the machine is there to be asked.
pub fn info(client_version: &str, i: &Info) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "Client:\n Version:    {client_version}\n Debug Mode: false"
    );
    let _ = writeln!(out, "\nServer: {NO_SERVER}\n\nHost:");
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, " {name}: {value}");
        }
    };
    line("Containers", &i.containers.to_string());
    line(" Running", &i.containers_running.to_string());
    line(" Paused", &i.containers_paused.to_string());
    line(" Stopped", &i.containers_stopped.to_string());
    line("Images", &i.images.to_string());
    line("Storage Driver", &i.driver);
    for [name, value] in &i.driver_status {
        line(&format!(" {name}"), value);
    }
    line("Logging Driver", &i.logging_driver);
    line("Cgroup Driver", &i.cgroup_driver);
    line("Cgroup Version", &i.cgroup_version);
    line("Network", &i.plugins.network.join(" "));
    line("Log", &i.plugins.log.join(" "));
    line("Default Runtime", &i.default_runtime);
    line("Security Options", &i.security_options.join(" "));
    line("Kernel Version", &i.kernel_version);
    line("Operating System", &i.operating_system);
    line("OSType", &i.os_type);
    line("Architecture", &i.architecture);
    line("CPUs", &i.ncpu.to_string());
    line("Total Memory", &size_binary(i.mem_total));
    line("Name", &i.name);
    line("ID", &i.id);
    line("Dockless Root Dir", &i.docker_root_dir);
    line("Dockless State Dir", &i.dockless.state_dir);
    if !i.dockless.features.is_empty() {
        out.push_str(" Features:\n");
        for [name, value] in &i.dockless.features {
            let _ = writeln!(out, "  {name}: {value}");
        }
    }
    for warning in &i.warnings {
        let _ = writeln!(out, "\nWARNING: {warning}");
    }
    out
}
