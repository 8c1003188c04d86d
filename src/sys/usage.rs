//! What a container's processes use: processor, memory, block devices.
//!
//! Where the container's cgroup has a controller, its files say it, as for
//! Docker. dockless makes no folder in the v1 hierarchies of controllers that
//! limit nothing (`cgroup.rs`): there the processes' own counts are added up.
//! Memory that several of them share counts several times then, and what ended
//! processes have read and written does not count.

use std::fs;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_ns: u64,
    /// Bytes, without what the page cache can drop.
    pub memory: u64,
    /// The machine's where there is no limit.
    pub memory_limit: u64,
    pub read: u64,
    pub written: u64,
    /// Threads, as Docker's PIDS counts them.
    pub pids: u64,
}

/// Of the processes in a cgroup, or without one of `pid` and its children.
pub fn measure(folders: &[PathBuf], pid: i32) -> Usage {
    let processes = processes(folders, pid);
    let sum = |of: fn(&str) -> u64| processes.iter().map(|p| of(p)).sum::<u64>();
    let file = |name: &str| folders.iter().find_map(|f| text(&f.join(name)));
    let number = |name: &str| file(name).and_then(|text| text.trim().parse::<u64>().ok());
    let cpu = file("cpu.stat").and_then(|stat| field(&stat, "usage_usec"));
    let cache = file("memory.stat").and_then(|stat| field(&stat, "inactive_file"));
    let memory = number("memory.current").map(|all| all.saturating_sub(cache.unwrap_or(0)));
    let io = file("io.stat");
    let total = |key: &str, of: fn(&str) -> u64| match &io {
        Some(stat) => stat
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok())
            .sum(),
        None => sum(of),
    };
    Usage {
        cpu_ns: cpu.map_or_else(|| sum(cpu_of), |us| us.saturating_mul(1000)),
        memory: memory.unwrap_or_else(|| sum(resident)),
        memory_limit: number("memory.max").unwrap_or_else(all_memory),
        read: total("rbytes=", |p| io_of(p, "read_bytes:")),
        written: total("wbytes=", |p| io_of(p, "write_bytes:")),
        pids: number("pids.current").unwrap_or_else(|| sum(threads)),
    }
}

fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// `KEY VALUE`, one a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.split_once(char::is_whitespace));
    let (_, value) = lines.find(|(name, _)| *name == key)?;
    value.split_whitespace().next()?.parse().ok()
}

fn all_memory() -> u64 {
    let info = text(Path::new("/proc/meminfo")).unwrap_or_default();
    field(&info, "MemTotal:").unwrap_or_default() * 1024
}

fn processes(folders: &[PathBuf], pid: i32) -> Vec<String> {
    let listed = folders.iter().find_map(|f| text(&f.join("cgroup.procs")));
    if let Some(listed) = listed {
        return listed.lines().map(str::to_owned).collect();
    }
    let mut all = vec![pid.to_string()];
    let mut at = 0;
    while let Some(parent) = all.get(at) {
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = text(Path::new(&path)).unwrap_or_default();
        all.extend(children.split_whitespace().map(str::to_owned));
        at += 1;
    }
    all
}

fn of_process(pid: &str, file: &str) -> String {
    text(&Path::new("/proc").join(pid).join(file)).unwrap_or_default()
}

/// Its own and its ended children's, in ticks of 10 ms (USER_HZ).
fn cpu_of(pid: &str) -> u64 {
    let stat = of_process(pid, "stat");
    // The name in parentheses may have spaces; utime is the 12th after it.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = rest.split_whitespace().skip(11).take(4);
    ticks.filter_map(|t| t.parse::<u64>().ok()).sum::<u64>() * 10_000_000
}

fn resident(pid: &str) -> u64 {
    field(&of_process(pid, "status"), "VmRSS:").unwrap_or_default() * 1024
}

fn threads(pid: &str) -> u64 {
    field(&of_process(pid, "status"), "Threads:").unwrap_or_default()
}

fn io_of(pid: &str, key: &str) -> u64 {
    field(&of_process(pid, "io"), key).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_cgroup_come_first() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpu.stat", "usage_usec 1500\nuser_usec 1000\n"),
            ("memory.current", "5000\n"),
            ("memory.stat", "anon 4000\ninactive_file 800\n"),
            ("memory.max", "max\n"),
            ("pids.current", "3\n"),
            ("cgroup.procs", ""),
            (
                "io.stat",
                "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
            ),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let usage = measure(&[folder.path().to_owned()], 0);
        assert_eq!((usage.cpu_ns, usage.memory), (1_500_000, 4200));
        assert_eq!((usage.read, usage.written, usage.pids), (11, 22, 3));
        assert!(usage.memory_limit > 1 << 20);
    }

    #[test]
    fn without_one_processes_are_added_up() {
        let own = i32::try_from(std::process::id()).unwrap();
        let usage = measure(&[], own);
        assert!(usage.memory > 0 && usage.pids > 0, "{usage:?}");
    }
}
