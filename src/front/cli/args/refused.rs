//! What Docker takes and dockless does not yet: refused by name, never taken
//! for a typing error and never ignored. `x/long` has the short form `-x`.

pub const RUN: &[&str] = &[
    "a/attach",
    "annotation",
    "blkio-weight",
    "blkio-weight-device",
    "cap-add",
    "cap-drop",
    "cgroup-parent",
    "cgroupns",
    "cpu-count",
    "cpu-percent",
    "cpu-period",
    "cpu-quota",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "c/cpu-shares",
    "cpus",
    "cpuset-cpus",
    "cpuset-mems",
    "device",
    "device-cgroup-rule",
    "device-read-bps",
    "device-read-iops",
    "device-write-bps",
    "device-write-iops",
    "domainname",
    "gpus",
    "group-add",
    "health-cmd",
    "health-interval",
    "health-retries",
    "health-start-interval",
    "health-start-period",
    "health-timeout",
    "io-maxbandwidth",
    "io-maxiops",
    "ipc",
    "isolation",
    "kernel-memory",
    "link",
    "m/memory",
    "memory-reservation",
    "memory-swap",
    "memory-swappiness",
    "mount",
    "oom-kill-disable",
    "oom-score-adj",
    "pid",
    "pids-limit",
    "platform",
    "privileged",
    "P/publish-all",
    "read-only",
    "runtime",
    "security-opt",
    "shm-size",
    "storage-opt",
    "sysctl",
    "tmpfs",
    "ulimit",
    "use-api-socket",
    "userns",
    "uts",
    "v/volume",
    "volume-driver",
    "volumes-from",
];
pub const EXEC: &[&str] = &["privileged"];
pub const LOGS: &[&str] = &["details"];
pub const START: &[&str] = &["checkpoint", "checkpoint-dir"];
pub const RM: &[&str] = &["l/link"];
pub const NETWORK_CREATE: &[&str] = &["config-from", "config-only", "ingress"];
pub const NETWORK_CONNECT: &[&str] = &["link"];
/// Global ones: they choose a daemon, and there is none.
pub const GLOBAL: &[&str] = &[
    "config",
    "c/context",
    "D/debug",
    "H/host",
    "l/log-level",
    "tls",
    "tlscacert",
    "tlscert",
    "tlskey",
    "tlsverify",
];

/// Docker's commands that are not here yet.
pub const COMMANDS: &[&str] = &[
    "build",
    "builder",
    "buildx",
    "checkpoint",
    "commit",
    "compose",
    "config",
    "container commit",
    "container cp",
    "container create",
    "container diff",
    "container export",
    "container prune",
    "container top",
    "container update",
    "context",
    "cp",
    "create",
    "diff",
    "export",
    "history",
    "image",
    "images",
    "import",
    "load",
    "login",
    "logout",
    "manifest",
    "node",
    "plugin",
    "pull",
    "push",
    "rmi",
    "save",
    "search",
    "secret",
    "service",
    "stack",
    "swarm",
    "system df",
    "system prune",
    "tag",
    "top",
    "trust",
    "update",
    "volume",
];

/// The flag's long name, if `typed` (`--memory`, `-m`) is in the list.
pub fn find(list: &[&'static str], typed: &str) -> Option<&'static str> {
    list.iter().find_map(|entry| {
        let (short, long) = match entry.split_once('/') {
            Some((short, long)) => (Some(short), long),
            None => (None, *entry),
        };
        let hit = match typed.strip_prefix("--") {
            Some(name) => name == long,
            None => short.is_some() && typed.strip_prefix('-') == short,
        };
        hit.then_some(long)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_either_name() {
        assert_eq!(find(RUN, "-m"), Some("memory"));
        assert_eq!(find(RUN, "--memory"), Some("memory"));
        assert_eq!(find(RUN, "--tmpfs"), Some("tmpfs"));
        assert_eq!(find(RUN, "-x"), None);
        assert_eq!(find(RUN, "-tmpfs"), None);
        assert_eq!(find(RUN, "--m"), None);
    }
}
