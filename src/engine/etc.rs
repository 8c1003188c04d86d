//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, written on
//! the host and bind-mounted (docker-macvlan.md §10, §5).

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Engine;
use super::record::Record;
use super::resolv_conf::{self, By};
use crate::base::{Cidr, Result};
use crate::net::dns::Settings;
use crate::store::file::{self, Durability};

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
        let write = |name: &str, text: &str| -> Result<()> { publish(&folder.join(name), text) };
        let mut hosts = match etc.by {
            // Whose names are the host's own.
            By::Host => read(Path::new("/etc/hosts")).unwrap_or_default(),
            By::Resolver | By::Servers => LOCAL.to_owned(),
        };
        hosts.push_str(&etc.extra_hosts);
        for addr in &etc.addrs {
            hosts.push_str(&host_line(record.hostname(), addr.addr()));
        }
        write("hosts", &hosts)?;
        write("hostname", &format!("{}\n", record.hostname()))?;
        self.write_resolv_conf(record, etc.by, &publish)
    }

    /// Unless the user has edited it.
    fn write_resolv_conf(
        &self,
        record: &mut Record,
        by: By,
        write: &dyn Fn(&Path, &str) -> Result<()>,
    ) -> Result<Settings> {
        let path = self.etc_folder(record).join("resolv.conf");
        let host = std::fs::read_to_string(resolv_conf::HOST_FILE).unwrap_or_default();
        let (text, settings) = resolv_conf::make(&host, &record.config, by);
        let known = &mut record.state.resolv_conf;
        let is_edited =
            !known.is_empty() && std::fs::read(&path).is_ok_and(|bytes| hash(&bytes) != *known);
        if !is_edited {
            write(&path, &text)?;
            *known = hash(text.as_bytes());
        }
        Ok(settings)
    }

    /// The container has come to its first network, live: its resolv.conf is
    /// rewritten in place, since it has it mounted.
    pub(super) fn point_to_resolver(&self, record: &mut Record) -> Result<Settings> {
        self.write_resolv_conf(record, By::Resolver, &overwrite)
    }

    /// Adds one network's line, in place: a bind mount follows the inode.
    pub(super) fn add_host_line(&self, record: &Record, addr: Cidr) -> Result<()> {
        let path = self.etc_folder(record).join("hosts");
        let mut text = read(&path)?;
        text.push_str(&host_line(record.hostname(), addr.addr()));
        overwrite(&path, &text)
    }

    /// Removes one network's lines and no others.
    pub(super) fn remove_host_line(&self, record: &Record, addr: Cidr) -> Result<()> {
        let path = self.etc_folder(record).join("hosts");
        let gone = addr.addr().to_string();
        let text: String = read(&path)?
            .split_inclusive('\n')
            .filter(|line| line.split_whitespace().next() != Some(gone.as_str()))
            .collect();
        overwrite(&path, &text)
    }
}

fn publish(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file::replace(path, text.as_bytes(), Durability::Boot)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
        .map_err(|e| file::explain("set mode of", path, e))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| crate::base::Error::sys("read", path, e))
}

fn overwrite(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| file::explain("write", path, e))
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
}
