//! The state of the machine that this process sees, for comparing before and
//! after: links, addresses, routes, rules, nftables tables, mounts, cgroups,
//! processes, file locks and network sysctls, read through our netlink, /proc
//! and /sys.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::base::Result;
use crate::netlink::Rtnl;
use crate::netlink::nft::Nft;

/// Which locks and cgroups count: no namespace hides those of others, who may
/// run dockless at the same time.
#[derive(Clone, Copy, Debug)]
pub struct Mine<'a> {
    /// Locks on files of this folder's file system.
    pub state: &'a Path,
    /// Cgroups with one of these in their names.
    pub containers: &'a [&'a str],
}

/// What is there, by kind, each thing described in one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<&'static str, Vec<String>>);

impl Snapshot {
    /// Of the calling process's namespaces.
    pub fn take(mine: Mine<'_>) -> Result<Self> {
        let mut rtnl = Rtnl::host()?;
        let mut kinds = BTreeMap::new();
        let links = rtnl.links()?.iter().map(link).collect();
        kinds.insert("links", links);
        kinds.insert("addresses", debug(&rtnl.addrs(None)?));
        kinds.insert("routes", debug(&rtnl.routes()?));
        kinds.insert("rules", debug(&rtnl.rules()?));
        // A kernel without nf_tables has no tables.
        let tables = Nft::host().and_then(|mut nft| nft.tables());
        kinds.insert("nft tables", debug(&tables.unwrap_or_default()));
        kinds.insert("mounts", lines("/proc/self/mountinfo"));
        kinds.insert("cgroups", cgroups(mine.containers));
        kinds.insert("processes", processes());
        kinds.insert("locks", locks(mine.state));
        kinds.insert("sysctls", sysctls(Path::new("/proc/sys/net")));
        for lines in kinds.values_mut() {
            lines.sort();
        }
        Ok(Self(kinds))
    }

    /// How many of each kind there are.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.0.iter().map(|(kind, lines)| (*kind, lines.len()))
    }

    /// What is only in `self` (`-`) and only in `later` (`+`), a line each.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (kind, before) in &self.0 {
            let after = later.0.get(kind).map(Vec::as_slice).unwrap_or_default();
            for (sign, ours, theirs) in [('-', before.as_slice(), after), ('+', after, before)] {
                let only = ours.iter().filter(|line| !theirs.contains(line));
                found.extend(only.map(|line| format!("{sign} {kind}: {line}")));
            }
        }
        found
    }
}

fn debug(things: &[impl std::fmt::Debug]) -> Vec<String> {
    things.iter().map(|thing| format!("{thing:?}")).collect()
}

/// Without the run-time state that ordinary traffic changes.
fn link<P: crate::sys::netns::Place>(link: &crate::netlink::Link<P>) -> String {
    let mut text = format!(
        "{} {} {:?} mac {:?} mtu {} flags {:x} qdisc {:?} txqlen {}",
        link.index.get(),
        link.name,
        link.kind,
        link.mac,
        link.mtu,
        link.flags,
        link.qdisc,
        link.txqlen
    );
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        " lower {:?} master {:?} altnames {:?}",
        link.lower, link.master, link.altnames
    );
    text
}

fn lines(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn cgroups(names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), &mut |path| {
        let text = path.to_string_lossy();
        if names.iter().any(|name| text.contains(name)) && path.is_dir() {
            found.push(path.display().to_string());
        }
    });
    found
}

/// Everybody but this process and those who are about to be reaped.
fn processes() -> Vec<String> {
    let own = std::process::id().to_string();
    let Ok(folder) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    folder
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().into_string().ok()?;
            let is_pid = pid.bytes().all(|b| b.is_ascii_digit());
            if !is_pid || pid == own {
                return None;
            }
            // "pid (name) state …"; the name may hold anything.
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            (!rest.starts_with(" Z")).then(|| format!("{name})"))
        })
        .collect()
}

/// Without the running number and the waiting ones.
fn locks(folder: &Path) -> Vec<String> {
    let Ok(folder) = fs::metadata(folder) else {
        return Vec::new();
    };
    let (major, minor) = (major(folder.dev()), minor(folder.dev()));
    // "OFDLCK ADVISORY  WRITE -1 00:4a:307 0 EOF"
    let device = format!(" {major:02x}:{minor:02x}:");
    lines("/proc/locks")
        .iter()
        .filter_map(|line| Some(line.split_once(": ")?.1.to_owned()))
        .filter(|lock| !lock.starts_with("->") && lock.contains(&device))
        .collect()
}

/// Names and values below a folder of /proc/sys. What cannot be read (a switch
/// that only takes) has no value to change.
fn sysctls(folder: &Path) -> Vec<String> {
    /// Counters, not settings.
    const COUNTERS: [&str; 1] = ["nf_conntrack_count"];
    let mut found = Vec::new();
    walk(folder, &mut |path| {
        if !COUNTERS.iter().any(|name| path.ends_with(name))
            && let Ok(value) = fs::read_to_string(path)
        {
            found.push(format!("{} = {}", path.display(), value.trim_end()));
        }
    });
    found
}

/// Every file and folder below, links not followed.
fn walk(folder: &Path, visit: &mut dyn FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut folders: Vec<PathBuf> = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        visit(&path);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(path);
        }
    }
    for folder in folders {
        walk(&folder, visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_came_and_what_went() {
        let of = |lines: &[&str]| {
            let lines = lines.iter().map(|&l| l.to_owned()).collect();
            Snapshot(BTreeMap::from([("links", lines)]))
        };
        let (before, after) = (of(&["lo", "eth1"]), of(&["lo", "dl-x"]));
        assert_eq!(
            before.differences(&after),
            ["- links: eth1", "+ links: dl-x"]
        );
        assert!(before.differences(&before).is_empty());
        assert_eq!(before.counts().next(), Some(("links", 2)));
    }

    #[test]
    fn only_own_locks_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join("lock")).unwrap();
        let inode = format!(":{} ", file.metadata().unwrap().ino());
        let is_seen = |folder: &Path| locks(folder).iter().any(|lock| lock.contains(&inode));
        assert!(!is_seen(dir.path()));
        file.lock().unwrap();
        assert!(is_seen(dir.path()));
        assert!(!is_seen(Path::new("/proc")));
    }
}
