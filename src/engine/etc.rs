//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, written on
//! the host and bind-mounted (docker-macvlan.md §10, §5).

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Engine;
use super::record::Record;
use super::resolv_conf::{self, By};
use crate::base::{Cidr, Error, Result};
use crate::net::dns::Settings;
use crate::store::file::{self, Durability};

/// The container can write to its /etc/hosts. A larger one is no list of hosts
/// and is left as it is.
const HOSTS_MAX: u64 = 1 << 20;

const LOCAL: &str = "127.0.0.1\tlocalhost\n\
::1\tlocalhost ip6-localhost ip6-loopback\n\
fe00::\tip6-localnet\n\
ff00::\tip6-mcastprefix\n\
ff02::1\tip6-allnodes\n\
ff02::2\tip6-allrouters\n";

/// What the three files are made from.
#[derive(Debug)]
pub(super) struct Etc {
    pub(super) addrs: Vec<Cidr>,
    /// `--add-host`, as lines.
    pub(super) extra_hosts: String,
    pub(super) by: By,
}

impl Engine {
    /// Where the three files live: with the record.
    pub(super) fn etc_folder(&self, record: &Record) -> PathBuf {
        if record.config.auto_remove {
            self.dirs.live(&record.id).join("etc")
        } else {
            self.dirs.container(&record.id).join("etc")
        }
    }

    /// Writes all three, before the container has them mounted. What the
    /// resolver is to know comes back.
    pub(super) fn write_etc(&self, record: &mut Record, etc: &Etc) -> Result<Settings> {
        let folder = self.etc_folder(record);
        file::make_dir(&folder, 0o711)?;
        let write = |name: &str, text: &[u8]| publish(&folder.join(name), text);
        let mut hosts = match etc.by {
            // Whose names are the host's own.
            By::Host => std::fs::read("/etc/hosts").unwrap_or_default(),
            By::Resolver | By::Servers => LOCAL.as_bytes().to_owned(),
        };
        hosts.extend_from_slice(etc.extra_hosts.as_bytes());
        for addr in &etc.addrs {
            hosts.extend_from_slice(host_line(record.hostname(), addr.addr()).as_bytes());
        }
        write("hosts", &hosts)?;
        write("hostname", format!("{}\n", record.hostname()).as_bytes())?;
        self.write_resolv_conf(record, etc.by, &publish)
    }

    /// Unless the user has edited it.
    fn write_resolv_conf(
        &self,
        record: &mut Record,
        by: By,
        write: &dyn Fn(&Path, &[u8]) -> Result<()>,
    ) -> Result<Settings> {
        let path = self.etc_folder(record).join("resolv.conf");
        let host = std::fs::read_to_string(resolv_conf::HOST_FILE).unwrap_or_default();
        let (text, settings) = resolv_conf::make(&host, &record.config, by);
        let known = &mut record.state.resolv_conf;
        let is_edited =
            !known.is_empty() && beginning(&path).is_ok_and(|bytes| hash(&bytes) != *known);
        if !is_edited {
            write(&path, text.as_bytes())?;
            *known = hash(text.as_bytes());
        }
        Ok(settings)
    }

    /// The container has come to its first network, live: its resolv.conf is
    /// rewritten in place, since it has it mounted.
    pub(super) fn point_to_resolver(&self, record: &mut Record) -> Result<Settings> {
        self.write_resolv_conf(record, By::Resolver, &overwrite)
    }

    /// Adds one network's line, in place: a bind mount follows the inode. A
    /// warning where that is not possible.
    pub(super) fn add_host_line(&self, record: &Record, addr: Cidr) -> Result<Option<String>> {
        let line = host_line(record.hostname(), addr.addr());
        edit(&self.etc_folder(record).join("hosts"), |text| {
            with_line(text, &line)
        })
    }

    /// Removes one network's lines and no others.
    pub(super) fn remove_host_line(&self, record: &Record, addr: Cidr) -> Result<Option<String>> {
        edit(&self.etc_folder(record).join("hosts"), |text| {
            without_lines_of(text, addr.addr())
        })
    }
}

fn publish(path: &Path, text: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file::replace(path, text, Durability::Boot)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .map_err(|e| file::explain("set mode of", path, e))
}

/// Whatever the container has written there is bytes, and may be any number.
fn edit(path: &Path, change: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<Option<String>> {
    let text = beginning(path).map_err(|e| Error::sys("read", path, e))?;
    if text.len() as u64 > HOSTS_MAX {
        return Ok(Some(
            "the container's /etc/hosts is larger than 1 MiB and was left as it is".to_owned(),
        ));
    }
    overwrite(path, &change(&text))?;
    Ok(None)
}

/// No more of what the container can write to than we can bear, and one byte.
fn beginning(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(HOSTS_MAX + 1)
        .read_to_end(&mut text)?;
    Ok(text)
}

fn overwrite(path: &Path, text: &[u8]) -> Result<()> {
    std::fs::write(path, text).map_err(|e| file::explain("write", path, e))
}

fn with_line(text: &[u8], line: &str) -> Vec<u8> {
    let mut text = text.to_owned();
    if text.last().is_some_and(|last| *last != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(line.as_bytes());
    text
}

fn without_lines_of(text: &[u8], ip: IpAddr) -> Vec<u8> {
    let ip = ip.to_string();
    let is_its = |line: &&[u8]| {
        let mut words = line.split(u8::is_ascii_whitespace);
        words.find(|word| !word.is_empty()) == Some(ip.as_bytes())
    };
    text.split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !is_its(line))
        .flatten()
        .copied()
        .collect()
}

fn host_line(hostname: &str, ip: IpAddr) -> String {
    match hostname.split_once('.') {
        Some((first, _)) => format!("{ip}\t{hostname} {first}\n"),
        None => format!("{ip}\t{hostname}\n"),
    }
}

fn hash(bytes: &[u8]) -> String {
    super::launch::hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lines_as_docker() {
        let addr: Cidr = "10.0.2.5/24".parse().unwrap();
        let line = |name: &str| host_line(name, addr.addr());
        assert_eq!(line("hh.example.com"), "10.0.2.5\thh.example.com hh\n");
        assert_eq!(line("abc"), "10.0.2.5\tabc\n");
    }

    #[test]
    fn hosts_may_be_anything_and_of_any_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        std::fs::write(&path, b"\xff x\n10.0.2.5\tabc\n  10.0.2.5 y\n10.0.2.50 z").unwrap();
        let ip = "10.0.2.5".parse().unwrap();
        let warned = edit(&path, |text| without_lines_of(text, ip)).unwrap();
        assert_eq!(warned, None);
        assert_eq!(std::fs::read(&path).unwrap(), b"\xff x\n10.0.2.50 z");
        edit(&path, |text| with_line(text, "10.0.2.5\tabc\n")).unwrap();
        let text = std::fs::read(&path).unwrap();
        assert_eq!(text, b"\xff x\n10.0.2.50 z\n10.0.2.5\tabc\n");

        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(1 << 40).unwrap();
        let warned = edit(&path, |text| with_line(text, "x\n")).unwrap();
        assert!(warned.is_some_and(|text| text.contains("1 MiB")));
        assert_eq!(file.metadata().unwrap().len(), 1 << 40);
    }
}
