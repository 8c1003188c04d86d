//! Docker's default profile: capabilities, masked and read-only paths
//! (docker-macvlan.md §10, Docker 29).

use std::path::Path;
use std::sync::LazyLock;

use crate::sys::cgroup::Cgroup;
use crate::sys::{cap, features};

/// Hidden below /proc: with /dev/null over files, an empty folder over
/// folders.
pub(crate) const MASKED_PROC: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
];

/// Hidden below /sys, which is mounted later. Docker 28 and newer also hide
/// each processor's `thermal_throttle` folder; only Intel's have one.
pub(crate) fn masked_sys() -> Vec<String> {
    let mut paths = vec![
        "/sys/devices/virtual/powercap".to_owned(),
        "/sys/firmware".to_owned(),
    ];
    let throttle = |cpu: usize| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle");
    // All processors or none: on most machines one question is enough. The
    // numbers of those that are offline are missing, hence the allowance.
    let mut absent = 0;
    for cpu in 0.. {
        let path = throttle(cpu);
        if Path::new(&path).exists() {
            paths.push(path);
            absent = 0;
        } else if cpu == 0 || absent == 64 {
            break;
        } else {
            absent += 1;
        }
    }
    paths
}

/// All that is hidden, as `inspect` shows it. `ps` asks for each container.
pub(crate) fn masked() -> Vec<String> {
    static SYS: LazyLock<Vec<String>> = LazyLock::new(masked_sys);
    let proc = MASKED_PROC.iter().map(|&path| path.to_owned());
    proc.chain(SYS.iter().cloned()).collect()
}

/// Made read-only, with all below.
pub(crate) const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What a container's root may do. Where no cgroup has rules for devices, it
/// must not make any: an own node of the machine's disk is the machine. In a
/// user namespace the kernel sees to that, whatever the capability says.
pub(crate) fn capabilities(cgroup: Option<&Cgroup>) -> cap::Set {
    if cgroup.is_some() || features::in_user_namespace() {
        cap::Set::DOCKER
    } else {
        cap::Set::DOCKER.without(cap::Set::MKNOD)
    }
}
