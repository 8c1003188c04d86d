//! Docker's container defaults (docker-macvlan.md §10), one by one.

use std::collections::BTreeMap;
use std::fs::File;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};

use super::*;
use crate::harness::{need_root, skipped};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(rights_of_root),
        Test::new(rights_of_a_user),
        Test::new(no_devices_without_rules_for_them),
        Test::new(surroundings),
        Test::new(mounts),
        Test::new(hidden_and_read_only),
        Test::new(devices),
        Test::new(device_rules),
        Test::new(namespaces_are_its_own),
        Test::new(the_host_network_keeps_the_rest_apart),
        Test::new(no_file_is_inherited),
        Test::new(cgroups),
    ]
}

const MASK: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";

fn assert_rights(status: &Value, effective: &str) {
    for (field, value) in [
        ("CapPrm", effective),
        ("CapEff", effective),
        ("CapBnd", MASK),
        ("CapInh", NONE),
        ("CapAmb", NONE),
        ("NoNewPrivs", "0"),
        ("Seccomp", "2"),
        ("Seccomp_filters", "1"),
        ("Umask", "0022"),
        ("SigBlk", NONE),
        ("TracerPid", "0"),
        ("Threads", "1"),
    ] {
        assert_eq!(status[field], value, "{field}");
    }
}

fn rights_of_root() -> Verdict {
    let report = report(&[])?;
    assert_rights(&report["status"], MASK);
    assert_eq!(report["status"]["Uid"], "0 0 0 0");
    assert_eq!(report["status"]["Gid"], "0 0 0 0");
    if is_real_root() {
        assert_eq!(report["status"]["Groups"], "0");
    }
    assert_eq!(report["oom_score_adj"], "0");
    // What a program must not be able to do, and what it must.
    let attempts = &report["attempts"];
    for (attempt, outcome) in [
        ("chroot", "ok"),
        ("write /etc/hosts", "ok"),
        ("create /new-file", "ok"),
        ("open /dev/null", "ok"),
        ("open /dev/ptmx", "ok"),
        ("reopen stdout", "ok"),
        ("write /proc/self/comm", "ok"),
        ("open /dev/tty", "6"), // ENXIO: no terminal
    ] {
        assert_eq!(attempts[attempt], outcome, "{attempt}");
    }
    Ok(())
}

fn rights_of_a_user() -> Verdict {
    if !is_real_root() {
        return skipped("a user namespace of one user maps no other");
    }
    let report = report(&["-u", "1000:1001"])?;
    assert_rights(&report["status"], NONE);
    assert_eq!(report["status"]["Uid"], "1000 1000 1000 1000");
    assert_eq!(report["status"]["Gid"], "1001 1001 1001 1001");
    assert_eq!(report["status"]["Groups"], "1001");
    for (attempt, errno) in [
        ("chroot", "1"),
        ("write /etc/hosts", "13"),
        ("create /new-file", "13"),
        ("reopen stdout", "ok"),
    ] {
        assert_eq!(report["attempts"][attempt], errno, "{attempt}");
    }
    Ok(())
}

/// Where no cgroup can be made, nothing but the missing capability keeps root
/// from a node of the machine's disk.
fn no_devices_without_rules_for_them() -> Verdict {
    need_root()?;
    judge::run(&["mount", "-t", "tmpfs", "-o", "ro", "none", "/sys/fs/cgroup"])?.success()?;
    start(&[], &["/probe", "sleep", "60"])?;
    let beside = dockless(&["exec", "box", "/probe"])?.json()?;
    dockless(&["rm", "-f", "box"])?.success()?;
    for seen in [report(&[])?, beside] {
        for field in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(seen["status"][field], "00000000a00425fb", "{field}");
        }
    }
    Ok(())
}

fn surroundings() -> Verdict {
    let mut seen = report(&[])?;
    let host = seen["hostname"].take();
    let host = host.as_str().unwrap_or_default();
    assert!(host.len() == 12 && host.bytes().all(|b| b.is_ascii_hexdigit()));
    assert_eq!(seen["etc"]["hostname"], format!("{host}\n"));
    assert_eq!(
        seen["env"],
        json!([
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            format!("HOSTNAME={host}"),
            "HOME=/root",
        ])
    );
    assert_eq!(seen["cwd"], "/");
    assert_eq!(seen["pid"], 1);
    assert_eq!(seen["processes"], json!([1]));
    // A session of its own without a terminal.
    assert_eq!(
        seen["stat"],
        json!({"ppid": 0, "pgrp": 1, "session": 1, "tty_nr": 0, "tpgid": -1})
    );
    assert_eq!(seen["links"], json!(["lo"]));
    let hosts = seen["etc"]["hosts"].as_str().unwrap_or_default().to_owned();
    assert!(hosts.starts_with("127.0.0.1\tlocalhost\n"), "{hosts}");
    // Limits are the starter's own.
    let own = std::fs::read_to_string("/proc/self/limits")?;
    let files = own.lines().find(|l| l.starts_with("Max open files"));
    let soft = files.and_then(|l| l.split_whitespace().nth(3));
    let theirs = seen["limits"]["Max open files"].as_str();
    assert_eq!(theirs.and_then(|l| l.split(' ').next()), soft);

    let seen = report(&["-e", "A=b c", "-e", "HOME=/x", "-h", "box.example.com"])?;
    assert_eq!(seen["hostname"], "box.example.com");
    assert_eq!(seen["etc"]["hostname"], "box.example.com\n");
    assert_eq!(seen["env"][1], "HOSTNAME=box.example.com");
    assert_eq!(seen["env"][2], "A=b c");
    assert_eq!(seen["env"][3], "HOME=/x");
    Ok(())
}

/// Where, file system, flags of the mount, options of the file system.
type Line = [String; 4];

fn mount_lines(report: &Value) -> Vec<Line> {
    let mounts = report["mounts"].as_array().cloned().unwrap_or_default();
    let text = |mount: &Value, field: &str| mount[field].as_str().unwrap_or_default().to_owned();
    mounts
        .iter()
        .map(|m| ["at", "type", "flags", "options"].map(|field| text(m, field)))
        .collect()
}

fn mounts() -> Verdict {
    let report = report(&[])?;
    let lines = mount_lines(&report);
    let inert = "nosuid,nodev,noexec,relatime";
    let rw = format!("rw,{inert}");
    let ro = format!("ro,{inert}");
    let pts = match is_real_root() {
        true => "gid=5,mode=620,ptmxmode=666",
        false => "mode=620,ptmxmode=666",
    };
    let mut expected: Vec<(&str, &str, &str, &str)> = vec![
        ("/", "overlay", "rw,relatime", ""),
        ("/proc", "proc", &rw, ""),
        ("/dev", "tmpfs", "rw,nosuid", "size=65536k,mode=755"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec,relatime", pts),
        ("/dev/shm", "tmpfs", &rw, "size=65536k"),
        ("/dev/mqueue", "mqueue", &rw, ""),
        ("/sys", "sysfs", &ro, ""),
    ];
    // What the machine has, and the masks, are other tests' affair.
    let cgroup = "/sys/fs/cgroup";
    if lines.iter().any(|l| l[0] == cgroup) {
        let kind = lines.iter().find(|l| l[0] == cgroup).map(|l| l[1].as_str());
        expected.push((cgroup, kind.unwrap_or_default(), &ro, ""));
    }
    for (at, kind, flags, options) in &expected {
        let here: Vec<_> = lines.iter().filter(|l| l[0] == *at).collect();
        let [line] = here[..] else {
            return failed(format!("{at}: mounted {} times", here.len()));
        };
        assert_eq!((&*line[1], &*line[2]), (*kind, *flags), "{at}");
        for option in options.split(',') {
            assert!(
                line[3].split(',').any(|o| o == option) || option.is_empty(),
                "{line:?}"
            );
        }
    }
    // `df` shows them. In a user namespace /sys is the host's.
    for (at, source) in [
        ("/", "overlay"),
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "shm"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", if is_real_root() { "sysfs" } else { "" }),
    ] {
        let mut mounts = report["mounts"].as_array().into_iter().flatten();
        let mount = mounts.rfind(|m| m["at"] == at);
        let found = mount.and_then(|m| m["source"].as_str());
        assert!(
            source.is_empty() || found == Some(source),
            "{at}: {found:?}"
        );
    }
    for file in ["/etc/resolv.conf", "/etc/hostname", "/etc/hosts"] {
        let line = lines.iter().find(|l| l[0] == file);
        assert!(
            line.is_some_and(|l| l[2].starts_with("rw,")),
            "{file}: {line:?}"
        );
    }
    let known = |at: &str| {
        let places = ["/proc/", "/sys/", "/etc/"];
        expected.iter().any(|e| e.0 == at) || places.iter().any(|p| at.starts_with(p))
            // A user namespace's device nodes.
            || (!is_real_root() && at.starts_with("/dev/"))
    };
    for line in &lines {
        assert!(known(&line[0]), "what is mounted here? {line:?}");
    }
    // Nothing reaches the host, and nothing comes from there.
    for mount in report["mounts"].as_array().into_iter().flatten() {
        assert_eq!(mount["propagation"], json!([]), "{mount}");
    }
    Ok(())
}

fn hidden_and_read_only() -> Verdict {
    let report = report(&[])?;
    let masked = report["masked"].as_object().cloned().unwrap_or_default();
    let lines = mount_lines(&report);
    let flags = |at: &str| lines.iter().rfind(|l| l[0] == at).map(|l| l[2].clone());
    let mut seen = 0;
    for path in [
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
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ] {
        // The test's own /proc is of the same kernel.
        if std::fs::symlink_metadata(path).is_ok() {
            seen += 1;
            assert_eq!(masked.get(path), Some(&json!("0")), "{path}");
            assert!(flags(path).is_some(), "{path} is not mounted over");
        }
    }
    assert!(seen > 2, "this kernel has nothing to hide");
    for path in [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ] {
        if std::fs::symlink_metadata(path).is_ok() {
            let flags = flags(path).unwrap_or_default();
            assert!(flags.starts_with("ro,"), "{path}: {flags}");
        }
    }
    for attempt in [
        "write /proc/sys/kernel/hostname",
        "write /sys/class/net/lo/mtu",
        "mkdir /sys/firmware/x",
    ] {
        let outcome = &report["attempts"][attempt];
        assert!(
            super::is_read_only(outcome) || outcome == "2",
            "{attempt}: {outcome}"
        );
    }
    let outcome = report["attempts"]["mkdir /sys/fs/cgroup/x"].as_str();
    assert_ne!(outcome, Some("ok"));
    Ok(())
}

fn devices() -> Verdict {
    let report = report(&[])?;
    let tty = if is_real_root() { "0:0" } else { "" };
    let mut expected: BTreeMap<&str, String> = [
        ("/dev/null", "1:3"),
        ("/dev/zero", "1:5"),
        ("/dev/full", "1:7"),
        ("/dev/random", "1:8"),
        ("/dev/urandom", "1:9"),
        ("/dev/tty", "5:0"),
        ("/dev/pts/ptmx", "5:2"),
    ]
    .into_iter()
    .map(|(path, number)| (path, format!("c {number} 666 {tty}")))
    .collect();
    for (path, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ] {
        expected.insert(path, format!("-> {target}"));
    }
    if std::fs::symlink_metadata("/proc/kcore").is_ok() {
        expected.insert("/dev/core", "-> /proc/kcore".into());
    }
    expected.insert("/dev/shm", "d 1777 0:0".into());
    expected.insert("/dev/mqueue", "d 1777 0:0".into());
    expected.insert("/dev/pts", "d 755 0:0".into());
    let devices = report["devices"].as_object().cloned().unwrap_or_default();
    let found: Vec<&str> = devices.keys().map(String::as_str).collect();
    let wanted: Vec<&str> = expected.keys().copied().collect();
    assert_eq!(found, wanted);
    for (path, what) in &expected {
        let found = devices[*path].as_str().unwrap_or_default();
        assert!(
            found.starts_with(what.as_str()),
            "{path}: {found}, not {what}"
        );
    }
    Ok(())
}

/// Nodes that an image brings along do not open, whatever CAP_MKNOD allows.
fn device_rules() -> Verdict {
    need_root()?;
    let image = image()?;
    fs::create_dir(image.join("nodes"))?;
    for (name, kind, major, minor) in [
        ("mem", SFlag::S_IFCHR, 1, 1),
        ("kmsg", SFlag::S_IFCHR, 1, 11),
        ("fuse", SFlag::S_IFCHR, 10, 229),
        ("tun", SFlag::S_IFCHR, 10, 200),
        ("disk", SFlag::S_IFBLK, 8, 0),
        ("null", SFlag::S_IFCHR, 1, 3),
    ] {
        let path = image.join("nodes").join(name);
        mknod(
            &path,
            kind,
            Mode::from_bits_truncate(0o666),
            makedev(major, minor),
        )?;
    }
    let report = run_in(&image, &[], &["/probe"])?.json()?;
    for (node, errno) in [
        ("mem", "1"),
        ("kmsg", "1"),
        ("fuse", "1"),
        ("disk", "1"),
        ("null", "0"),
    ] {
        assert_eq!(report["nodes"][format!("/nodes/{node}")], errno, "{node}");
    }
    // Allowed, whether or not this kernel has the driver.
    assert_ne!(report["nodes"]["/nodes/tun"], "1");
    Ok(())
}

fn own_namespaces() -> Verdict<BTreeMap<String, String>> {
    let mut own = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/ns")? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().display().to_string();
        own.insert(name, std::fs::read_link(path)?.display().to_string());
    }
    Ok(own)
}

fn namespaces_are_its_own() -> Verdict {
    let report = report(&[])?;
    let own = own_namespaces()?;
    for (name, theirs) in report["namespaces"].as_object().into_iter().flatten() {
        let is_shared = own.get(name).is_some_and(|own| theirs == own);
        let v1 = name == "cgroup" && !dockless::sys::features::cgroup_v2_only();
        assert_eq!(is_shared, name == "user" || v1, "{name}");
    }
    // pid, mnt, net, uts, ipc, cgroup, user, and time and its twins.
    let count = report["namespaces"].as_object().map(serde_json::Map::len);
    assert_eq!(count, Some(own.len()));
    Ok(())
}

fn the_host_network_keeps_the_rest_apart() -> Verdict {
    let image = image()?;
    let image = image.to_str().unwrap_or_default();
    let args = [
        "run",
        "--rm",
        "--network",
        "host",
        "--rootfs",
        image,
        "/probe",
    ];
    let report = dockless(&args)?.json()?;
    let own = own_namespaces()?;
    for (name, shared) in [
        ("net", true),
        ("mnt", false),
        ("pid", false),
        ("uts", false),
    ] {
        assert_eq!(report["namespaces"][name] == own[name], shared, "{name}");
    }
    let host = nix::unistd::gethostname()?;
    assert_eq!(report["hostname"], host.to_str().unwrap_or_default());
    assert_rights(&report["status"], MASK);
    assert!(super::is_read_only(
        &report["attempts"]["write /sys/class/net/lo/mtu"]
    ));
    Ok(())
}

fn no_file_is_inherited() -> Verdict {
    // A folder of the host's, a file and a pipe, all inheritable.
    let (read, write) = std::io::pipe()?;
    let (folder, file) = (File::open("/")?, File::open("/etc/passwd")?);
    for fd in [
        fcntl(&folder, FcntlArg::F_SETFD(FdFlag::empty())),
        fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())),
        fcntl(&read, FcntlArg::F_SETFD(FdFlag::empty())),
        fcntl(&write, FcntlArg::F_SETFD(FdFlag::empty())),
    ] {
        fd?;
    }
    let assert_three = |report: &Value| {
        let fds = report["fds"].as_object().cloned().unwrap_or_default();
        let kind = |n: &str| {
            fds[n]
                .as_str()
                .unwrap_or_default()
                .split(':')
                .next()
                .map(str::to_owned)
        };
        assert_eq!(fds.len(), 3, "{fds:?}");
        assert_eq!(kind("0").as_deref(), Some("/dev/null"));
        assert_eq!(kind("1").as_deref(), Some("pipe"));
        assert_eq!(kind("2").as_deref(), Some("pipe"));
    };
    assert_three(&report(&[])?);
    start(&[], &["/probe", "sleep", "60"])?;
    assert_three(&dockless(&["exec", "box", "/probe"])?.json()?);
    dockless(&["rm", "-f", "box"])?.success()?;
    Ok(())
}

fn cgroups() -> Verdict {
    need_root()?;
    let id = start(&[], &["/probe", "sleep", "60"])?;
    let places = |report: &Value| -> Vec<String> {
        let lines = report["cgroup"].as_array().cloned().unwrap_or_default();
        let lines = lines.iter().filter_map(Value::as_str);
        lines
            .filter(|l| l.contains(&id))
            .map(str::to_owned)
            .collect()
    };
    let first = fs::read_to_string(format!("/proc/{}/cgroup", pid_of("box")?))?;
    let first: Vec<&str> = first.lines().filter(|l| l.contains(&id)).collect();
    assert!(!first.is_empty());
    assert!(
        first
            .iter()
            .all(|l| l.ends_with(&format!(":/dockless-{id}"))),
        "{first:?}"
    );
    let inside = dockless(&["exec", "box", "/probe"])?.json()?;
    if dockless::sys::features::cgroup_v2_only() {
        assert_eq!(inside["cgroup"], json!(["0::/"]));
    } else {
        assert_eq!(places(&inside), first);
    }
    // /sys/fs/cgroup shows the container's own and nothing else.
    let roots = inside["mounts"].as_array().into_iter().flatten();
    for mount in roots.filter(|m| m["type"] == "cgroup" || m["type"] == "cgroup2") {
        let root = mount["root"].as_str().unwrap_or_default();
        assert!(root == "/" || root == format!("/dockless-{id}"), "{mount}");
        assert!(
            mount["flags"]
                .as_str()
                .is_some_and(|f| f.starts_with("ro,"))
        );
    }
    dockless(&["rm", "-f", "box"])?.success()?;
    for line in first {
        let (_, path) = line.rsplit_once(':').unwrap_or_default();
        for mount in ["", "unified", "devices", "freezer", "systemd"] {
            let folder = Path::new("/sys/fs/cgroup").join(mount).join(&path[1..]);
            assert!(!folder.exists(), "{} is left", folder.display());
        }
    }
    Ok(())
}
