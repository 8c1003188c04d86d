//! What a container looks like to the program that runs in it, as one JSON
//! object on stdout. Static, reads only /proc, /sys, /dev and its own
//! environment, needs nothing of the image: the tests bind or copy it in, run
//! it and compare.
//!
//! `probe` alone prints the report. So that an image needs no other program:
//! `probe exit N` ends with N, `probe abort` with a signal, `probe sleep
//! SECONDS` waits, `probe steal PID` reaches for that process's program,
//! `probe copy [GREETING]` copies input to output, `probe
//! orphans` leaves grandchildren behind and then reports.

use std::collections::BTreeMap;
use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use serde_json::{Value, json};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["exit", code] => return ExitCode::from(code.parse::<u8>().unwrap_or(99)),
        ["abort"] => std::process::abort(),
        ["sleep", seconds] => {
            std::thread::sleep(Duration::from_secs_f64(seconds.parse().unwrap_or(0.0)));
            return ExitCode::SUCCESS;
        }
        ["copy", ref greeting @ ..] => {
            print!("{}", greeting.concat());
            let _ = std::io::stdout().flush();
            let copied = std::io::copy(&mut std::io::stdin(), &mut std::io::stdout());
            return ExitCode::from(u8::from(copied.is_err()));
        }
        ["orphans"] => orphans(),
        ["steal", pid] => return steal(pid),
        // A process that ends while its child runs.
        ["leave"] => {
            let child = Command::new("/proc/self/exe")
                .args(["sleep", "0.1"])
                .spawn();
            return ExitCode::from(u8::from(child.is_err()));
        }
        _ => {}
    }
    let report = report(&args);
    match writeln!(std::io::stdout(), "{report}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Kills process `pid` and tries to open its program's file for writing, which
/// is possible only when the program no longer runs: prints 0 or the errno.
fn steal(pid: &str) -> ExitCode {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    const O_PATH: i32 = 0o10_000_000;
    const ETXTBSY: i32 = 26;
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(O_PATH)
        .open(format!("/proc/{pid}/exe"));
    let Ok(file) = file else {
        return ExitCode::FAILURE;
    };
    let number = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
    let killed = number.map(|n| rustix::process::kill_process(n, rustix::process::Signal::KILL));
    if !matches!(killed, Some(Ok(()))) {
        return ExitCode::FAILURE;
    }
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let errno = loop {
        let opened = fs::OpenOptions::new().write(true).open(&link);
        match opened.map_or_else(|e| e.raw_os_error().unwrap_or(-1), |_| 0) {
            ETXTBSY => std::thread::sleep(Duration::from_millis(5)),
            errno => break errno,
        }
    };
    println!("{errno}");
    ExitCode::SUCCESS
}

/// Ends when the grandchildren have: somebody must have reaped them by then.
fn orphans() {
    for _ in 0..3 {
        let _ = Command::new("/proc/self/exe").arg("leave").status();
    }
    std::thread::sleep(Duration::from_millis(400));
}

fn report(args: &[&str]) -> Value {
    // First of all, before this program has opened anything itself.
    let fds = open_fds();
    let status = status();
    json!({
        "args": args,
        "env": std::env::vars().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        "cwd": std::env::current_dir().map(|p| p.display().to_string()).unwrap_or_default(),
        "pid": std::process::id(),
        "stat": stat(),
        "status": status,
        "fds": fds,
        "tty": [
            std::io::stdin().is_terminal(),
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
        ],
        "winsize": rustix::termios::tcgetwinsize(std::io::stdin()).ok().map(|w| [w.ws_row, w.ws_col]),
        "namespaces": namespaces(),
        "cgroup": lines("/proc/self/cgroup"),
        "mounts": mounts(),
        "limits": limits(),
        "oom_score_adj": text("/proc/self/oom_score_adj"),
        "hostname": text("/proc/sys/kernel/hostname"),
        "uid_map": text("/proc/self/uid_map"),
        "timens_offsets": lines("/proc/self/timens_offsets"),
        "devices": tree("/dev"),
        "links": links(),
        "etc": {
            "hosts": fs::read_to_string("/etc/hosts").ok(),
            "hostname": fs::read_to_string("/etc/hostname").ok(),
            "resolv.conf": fs::read_to_string("/etc/resolv.conf").ok(),
        },
        "processes": processes(),
        "attempts": attempts(),
        "masked": masked(),
        "nodes": nodes(),
    })
}

fn text(path: &str) -> Value {
    fs::read_to_string(path).map_or(Value::Null, |s| json!(s.trim()))
}

fn lines(path: &str) -> Value {
    fs::read_to_string(path).map_or(Value::Null, |s| json!(s.lines().collect::<Vec<_>>()))
}

/// fd → what it refers to. The one that reads the folder is not listed.
fn open_fds() -> BTreeMap<String, String> {
    let Ok(dir) = fs::read_dir("/proc/self/fd") else {
        return BTreeMap::new();
    };
    dir.filter_map(|entry| {
        let path = entry.ok()?.path();
        let target = fs::read_link(&path).ok()?.display().to_string();
        let own = target.starts_with("/proc/") && target.ends_with("/fd");
        (!own).then(|| {
            (
                path.file_name().unwrap_or_default().display().to_string(),
                target,
            )
        })
    })
    .collect()
}

/// All of /proc/self/status: ids, groups, capabilities, NoNewPrivs, Seccomp,
/// Seccomp_filters, umask, signal masks.
fn status() -> BTreeMap<String, String> {
    fs::read_to_string("/proc/self/status")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| {
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            (key.to_owned(), value)
        })
        .collect()
}

/// Parent, process group, session, controlling terminal and its foreground.
fn stat() -> Value {
    let line = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<i64> = line
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .skip(1)
        .take(5)
        .filter_map(|f| f.parse().ok())
        .collect();
    match fields[..] {
        [ppid, pgrp, session, tty_nr, tpgid] => {
            json!({"ppid": ppid, "pgrp": pgrp, "session": session, "tty_nr": tty_nr, "tpgid": tpgid})
        }
        _ => Value::Null,
    }
}

fn namespaces() -> BTreeMap<String, String> {
    let names = [
        "cgroup",
        "ipc",
        "mnt",
        "net",
        "pid",
        "pid_for_children",
        "time",
        "time_for_children",
        "user",
        "uts",
    ];
    names
        .iter()
        .filter_map(|name| {
            let link = fs::read_link(format!("/proc/self/ns/{name}")).ok()?;
            Some(((*name).to_owned(), link.display().to_string()))
        })
        .collect()
}

/// mountinfo, field by field, in the order of the kernel.
fn mounts() -> Vec<Value> {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            Some(json!({
                "root": left.get(3)?,
                "at": left.get(4)?,
                "flags": left.get(5)?,
                "propagation": left.get(6..)?,
                "type": right.first()?,
                "source": right.get(1)?,
                "options": right.get(2)?,
            }))
        })
        .collect()
}

fn limits() -> BTreeMap<String, String> {
    fs::read_to_string("/proc/self/limits")
        .unwrap_or_default()
        .lines()
        .skip(1)
        .filter(|line| line.len() > 26)
        .map(|line| {
            let (name, rest) = line.split_at(26);
            let values = rest
                .split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ");
            (name.trim().to_owned(), values)
        })
        .collect()
}

/// Path → kind, mode, owner and device number, for all below `top`.
fn tree(top: &str) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut open = vec![Path::new(top).to_owned()];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for path in entries.filter_map(|e| Some(e.ok()?.path())) {
            let Ok(meta) = fs::symlink_metadata(&path) else {
                continue;
            };
            let kind = meta.file_type();
            let mode = format!("{:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid());
            // glibc's split of a device number, for small ones.
            let device = format!("{}:{}", (meta.rdev() >> 8) & 0xfff, meta.rdev() & 0xff);
            let what = if kind.is_symlink() {
                let target = fs::read_link(&path).unwrap_or_default();
                format!("-> {}", target.display())
            } else if kind.is_char_device() {
                format!("c {device} {mode}")
            } else if kind.is_block_device() {
                format!("b {device} {mode}")
            } else if kind.is_dir() {
                open.push(path.clone());
                format!("d {mode}")
            } else {
                format!("f {mode}")
            };
            out.insert(path.display().to_string(), what);
        }
    }
    out
}

/// Network interfaces as sysfs shows them: of this network namespace, or
/// somebody else's if /sys was mounted too early. A loaded bonding driver has
/// a file beside them.
fn links() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir("/sys/class/net").map_or(Vec::new(), |dir| {
        dir.filter_map(|e| e.ok()?.file_name().into_string().ok())
            .filter(|name| name != "bonding_masters")
            .collect()
    });
    names.sort();
    names
}

/// Processes this one can see.
fn processes() -> Vec<u32> {
    let mut pids: Vec<u32> = fs::read_dir("/proc").map_or(Vec::new(), |dir| {
        dir.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok())
            .collect()
    });
    pids.sort_unstable();
    pids
}

/// What must not work, and how it fails: `ok` or the errno.
fn attempts() -> BTreeMap<&'static str, String> {
    fn outcome<T>(result: std::io::Result<T>) -> String {
        match result {
            Ok(_) => "ok".to_owned(),
            Err(e) => e
                .raw_os_error()
                .map_or_else(|| e.to_string(), |n| n.to_string()),
        }
    }
    let write = |path: &str| outcome(fs::OpenOptions::new().write(true).open(path));
    BTreeMap::from([
        (
            "write /proc/sys/kernel/hostname",
            write("/proc/sys/kernel/hostname"),
        ),
        ("write /proc/sysrq-trigger", write("/proc/sysrq-trigger")),
        (
            "read /proc/kcore",
            outcome(fs::read("/proc/kcore").map(|b| assert!(b.is_empty()))),
        ),
        ("write /proc/self/comm", write("/proc/self/comm")),
        (
            "write /sys/class/net/lo/mtu",
            write("/sys/class/net/lo/mtu"),
        ),
        (
            "mkdir /sys/fs/cgroup/x",
            outcome(fs::create_dir("/sys/fs/cgroup/x")),
        ),
        (
            "mkdir /sys/firmware/x",
            outcome(fs::create_dir("/sys/firmware/x")),
        ),
        ("write /etc/hosts", write("/etc/hosts")),
        ("create /new-file", outcome(fs::File::create("/new-file"))),
        ("open /dev/null", write("/dev/null")),
        ("open /dev/ptmx", write("/dev/ptmx")),
        ("open /dev/tty", write("/dev/tty")),
        ("reopen stdout", write("/proc/self/fd/1")),
        ("chroot", outcome(std::os::unix::fs::chroot("/"))),
    ])
}

/// What can be read of the paths that Docker hides: bytes or entries, or the
/// errno. Paths that are not there are left out.
fn masked() -> BTreeMap<String, String> {
    [
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
    ]
    .into_iter()
    .filter_map(|path| {
        let is_dir = fs::metadata(path).ok()?.is_dir();
        let size = if is_dir {
            fs::read_dir(path).map(Iterator::count)
        } else {
            // kcore is as large as the address space.
            fs::File::open(path).and_then(|mut f| f.read(&mut [0; 512]))
        };
        let text = size.map_or_else(|e| format!("{e}"), |n| n.to_string());
        Some((path.to_owned(), text))
    })
    .collect()
}

/// Device nodes that the test has put into the image, if it could: the
/// errno of opening each.
fn nodes() -> BTreeMap<String, String> {
    [
        "/nodes/mem",
        "/nodes/kmsg",
        "/nodes/fuse",
        "/nodes/disk",
        "/nodes/null",
    ]
    .into_iter()
    .filter(|path| fs::symlink_metadata(path).is_ok())
    .map(|path| {
        let opened = fs::File::open(path);
        let errno = opened.map_or_else(|e| e.raw_os_error().unwrap_or(-1), |_| 0);
        (path.to_owned(), errno.to_string())
    })
    .collect()
}
