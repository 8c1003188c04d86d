//! /etc/hosts, /etc/hostname and /etc/resolv.conf of a container, written on
//! the host and bind-mounted (docker-macvlan.md §10, §5).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::Engine;
use super::record::Record;
use crate::base::{Cidr, Result};
use crate::store::file::{self, Durability};

const LOCAL: &str = "127.0.0.1\tlocalhost\n\
::1\tlocalhost ip6-localhost ip6-loopback\n\
fe00::\tip6-localnet\n\
ff00::\tip6-mcastprefix\n\
ff02::1\tip6-allnodes\n\
ff02::2\tip6-allrouters\n";

impl Engine {
    /// Where the three files live: with the record.
    pub(super) fn etc_folder(&self, record: &Record) -> PathBuf {
        if record.config.auto_remove {
            self.dirs.live(&record.id).join("etc")
        } else {
            self.dirs.container(&record.id).join("etc")
        }
    }

    /// Writes all three, before the container has them mounted.
    pub(super) fn write_etc(&self, record: &Record, addrs: &[Cidr]) -> Result<()> {
        let folder = self.etc_folder(record);
        file::make_dir(&folder, 0o711)?;
        let write = |name: &str, text: &str| -> Result<()> { publish(&folder.join(name), text) };
        let hosts = match record.config.network_mode.as_str() {
            // Whose names are the host's own.
            "host" => read(Path::new("/etc/hosts")).unwrap_or_default(),
            _ => hosts(record.hostname(), addrs),
        };
        write("hosts", &hosts)?;
        write("hostname", &format!("{}\n", record.hostname()))?;
        write("resolv.conf", &resolv_conf(&host_resolv_conf()))
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

fn hosts(hostname: &str, addrs: &[Cidr]) -> String {
    let mut text = LOCAL.to_owned();
    for addr in addrs {
        text.push_str(&host_line(hostname, addr.addr()));
    }
    text
}

fn host_resolv_conf() -> String {
    std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default()
}

/// The host's, less the name servers on its loopback, which a container cannot
/// reach.
fn resolv_conf(host: &str) -> String {
    let mut out = String::new();
    for line in host.lines() {
        let mut words = line.split_whitespace();
        let keep = match words.next() {
            Some("nameserver") => words
                .next()
                .and_then(|w| w.split('%').next()?.parse::<IpAddr>().ok())
                .is_some_and(|ip| !ip.is_loopback()),
            Some("search" | "domain" | "options") => true,
            _ => false,
        };
        if keep {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{}", line.trim());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lines_as_docker() {
        let addr: Cidr = "10.0.2.5/24".parse().unwrap();
        let text = hosts("hh.example.com", &[addr]);
        assert!(text.starts_with(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\t"
        ));
        assert!(text.ends_with("10.0.2.5\thh.example.com hh\n"));
        assert!(hosts("abc", &[addr]).ends_with("10.0.2.5\tabc\n"));
    }

    #[test]
    fn loopback_name_servers_are_left_out() {
        let host =
            "# comment\nnameserver 127.0.0.53\nnameserver 10.0.2.1\nsearch lan\noptions edns0\n";
        assert_eq!(
            resolv_conf(host),
            "nameserver 10.0.2.1\nsearch lan\noptions edns0\n"
        );
    }
}
