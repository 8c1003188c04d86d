//! From `run`'s request to a container on disk: everything that can be
//! refused is refused before anything is made.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use super::events;
use super::record::{Config, EndpointConfig, Record, State};
use super::{EndpointRequest, Engine, ImageRequest, RunRequest};
use crate::base::Journal;
use crate::base::{ContainerId, ContainerName, Error, PerFamily, Result, Step};
use crate::image::tester::{self, Image};
use crate::net::acd::Acd;
use crate::net::endpoint::EndpointOptions;
use crate::net::guard::rule::{self, Rule};
use crate::store::{FileJournal, Lock, file};
use crate::sys::random;

/// sethostname(2): __NEW_UTS_LEN.
const HOSTNAME_MAX: usize = 64;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Engine {
    pub(super) fn image(&self, request: &ImageRequest) -> Result<Image> {
        match request {
            ImageRequest::Folder(dir) => tester::folder(dir),
            ImageRequest::Name(name) => match name.strip_suffix(":latest").unwrap_or(name) {
                "tester" => Ok(Image {
                    reference: name.clone(),
                    ..tester::tester(&self.dirs.images())?
                }),
                _ => Err(Error::not_found(format!(
                    "Unable to find image '{name}': pulling images is not supported yet"
                ))
                .hint("there is `tester`, and --rootfs DIR runs any folder")),
            },
        }
    }

    /// Makes the container; the lock comes back with it and says that this
    /// process is at work on it.
    pub(super) fn create(&self, request: RunRequest) -> Result<(Record, Lock)> {
        let name = request
            .name
            .as_deref()
            .map(|name| ContainerName::new(name.strip_prefix('/').unwrap_or(name)))
            .transpose()?;
        if let Some(path) = request.cidfile.as_deref()
            && path.exists()
        {
            return Err(Error::conflict(format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            )));
        }
        let image = self.image(&request.image)?;
        let mut config = config(&image, &request)?;
        self.check_acd(&request)?;
        self.check_mdns(&request)?;
        if let (true, Some(name)) = (request.replace, &name) {
            self.replace(name, &mut config)?;
        }
        let id = ContainerId::from_bytes(random::bytes()?);
        let name = match name {
            Some(name) => name,
            None => self.invent_name()?,
        };
        let lock = self.dirs.roll().acquire(&id)?;
        let mut record = Record {
            id,
            name,
            created: super::rfc3339(SystemTime::now()),
            image,
            config,
            state: State::default(),
        };
        match self.make(&mut record, request.cidfile.as_deref()) {
            Ok(()) => Ok((record, lock)),
            Err(error) => {
                let undo = self.recover(&record.id, lock).err();
                Err(error.with_undo(undo.into_iter().collect()))
            }
        }
    }

    /// Who asks for a look at the LAN means an address that can be asked for.
    fn check_acd(&self, request: &RunRequest) -> Result<()> {
        let Some(acd @ (Acd::Fast | Acd::Strict)) = request.acd else {
            return Ok(());
        };
        let mut why = Vec::new();
        for endpoint in &request.networks {
            let network = self.find_network(&endpoint.network)?;
            let name = &network.name;
            why.push(match network.vlan() {
                None => format!("{name} has no interface of the container's own"),
                Some(_) if network.is_l3() => format!("in {name} (ipvlan l3) there is no ARP"),
                Some(_) if !network.ipv4 => format!("{name} gives no IPv4 address"),
                Some(_) => return Ok(()),
            });
        }
        if why.is_empty() {
            why.push("the container is on no network".to_owned());
        }
        Err(
            Error::invalid(format!("--acd={acd} cannot be done: {}", why.join(", ")))
                .hint("leave it out"),
        )
    }

    fn make(&self, record: &mut Record, cidfile: Option<&Path>) -> Result<()> {
        let id = &record.id;
        file::make_dir(&self.dirs.live(id), 0o700)?;
        let made = self.made_journal(id);
        let mut journal = FileJournal::create(&made)?;
        self.claim_name(&record.name, id)?;
        journal.record(&Step::RemoveTree {
            path: self.dirs.container(id),
        })?;
        file::make_dir(&self.dirs.container(id), 0o710)?;
        if let Some(path) = cidfile {
            journal.record(&Step::Unlink {
                path: path.to_owned(),
                content: id.to_string(),
            })?;
            std::fs::write(path, id.as_str()).map_err(|e| Error::sys("write", path, e))?;
        }
        record.save(&self.dirs)?;
        if !record.config.auto_remove {
            file::remove(&made)?;
        }
        self.note(&[events::of_container(record, "create", &[])]);
        Ok(())
    }
}

fn config(image: &Image, request: &RunRequest) -> Result<Config> {
    let entrypoint = match request.entrypoint.as_deref() {
        None => image.entrypoint.clone(),
        Some("") => Vec::new(),
        Some(program) => vec![program.to_owned()],
    };
    // An entrypoint of one's own does not get the image's arguments.
    let cmd = if request.cmd.is_empty() && request.entrypoint.is_none() {
        image.cmd.clone()
    } else {
        request.cmd.clone()
    };
    if entrypoint.is_empty() && cmd.is_empty() {
        return Err(
            Error::invalid("no command specified").hint("name a program after the image or folder")
        );
    }
    let workdir = request.workdir.clone().unwrap_or_else(|| image.cwd.clone());
    let workdir = if workdir.is_empty() {
        "/".to_owned()
    } else {
        workdir
    };
    if !workdir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{workdir}' is invalid, it needs to be an absolute path"
        )));
    }
    let mut exposed = image.exposed.clone();
    exposed.extend(request.expose.iter().cloned());
    exposed.extend(
        request
            .publish
            .iter()
            .map(|p| format!("{}/{}", p.container, p.proto)),
    );
    exposed.sort();
    exposed.dedup();
    let stop_signal = request
        .stop_signal
        .clone()
        .or_else(|| image.stop_signal.clone());
    if let Some(signal) = &stop_signal {
        super::signal::parse(signal)?;
    }
    if let Some(hostname) = request.hostname.as_ref().filter(|h| h.len() > HOSTNAME_MAX) {
        return Err(Error::invalid(format!(
            "invalid hostname: {hostname} has {} characters, and the kernel takes {HOSTNAME_MAX}",
            hostname.len()
        )));
    }
    let endpoints = endpoints(&request.networks)?;
    let network_mode = endpoints
        .first()
        .map_or_else(|| "none".to_owned(), |e| e.request.network.clone());
    Ok(Config {
        env: merge_env(&[image.env.as_slice(), request.env.as_slice()]),
        entrypoint,
        cmd,
        workdir,
        user: request.user.clone().unwrap_or_else(|| image.user.clone()),
        hostname: match &request.hostname {
            None if network_mode == "host" => host_name(),
            other => other.clone(),
        },
        labels: request.labels.clone(),
        tty: request.tty,
        open_stdin: request.interactive,
        attached: !request.detach,
        init: request.init,
        auto_remove: request.auto_remove,
        stop_signal,
        stop_timeout: request.stop_timeout,
        exposed,
        publish: request.publish.clone(),
        publish_via: request.publish_via,
        log_options: request.log_options.clone(),
        network_mode,
        endpoints,
        dns: request.dns.clone(),
        dns_search: request.dns_search.clone(),
        dns_options: request.dns_options.clone(),
        extra_hosts: request.extra_hosts.clone(),
        rules: rules(request)?,
        acd: request.acd.unwrap_or_default(),
        ip_reserve: request.ip_reserve,
        mdns: request.mdns,
    })
}

/// There must be something that they are about.
fn rules(request: &RunRequest) -> Result<Vec<Rule>> {
    rule::check(&request.rules)?;
    let mode = request.networks.first().map(|n| n.network.as_str());
    match (request.rules.first(), mode) {
        (Some(rule), Some(mode @ ("host" | "none"))) => Err(Error::invalid(format!(
            "conflicting options: --{rule} and the network mode {mode}"
        ))
        .hint(match mode {
            "host" => "its rules would be the host's: set those by `nft`",
            _ => "nothing reaches it but its own loopback link",
        })),
        _ => Ok(request.rules.clone()),
    }
}

/// A container on the host's network goes by the host's name, as in Docker.
fn host_name() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

fn endpoints(requests: &[EndpointRequest]) -> Result<Vec<EndpointConfig>> {
    let mut endpoints: Vec<EndpointConfig> = Vec::new();
    for request in requests {
        EndpointOptions::new(&request.driver_options)?;
        if matches!(
            request.network.as_str(),
            "host" | "none" | "bridge" | "default"
        ) && !(request.ips.is_empty()
            && request.ip6.is_subnet()
            && request.link_local.is_empty())
        {
            return Err(Error::invalid(
                "invalid endpoint settings:\nuser-specified IP address is supported on user-defined networks only",
            ));
        }
        if request.network == "bridge" || request.network == "default" {
            return Err(
                Error::not_found(format!("network {} not found", request.network))
                    .hint("dockless has no bridge network: make a macvlan network and name it"),
            );
        }
        if endpoints
            .iter()
            .any(|e| e.request.network == request.network)
        {
            return Err(Error::invalid(format!(
                "network \"{}\" is specified multiple times",
                request.network
            )));
        }
        endpoints.push(EndpointConfig {
            request: request.clone(),
            network: None,
            name: request.network.clone(),
            last_ips: PerFamily::NONE,
            dhcp: None,
            lan6: None,
            dhcp6: None,
        });
    }
    let plain = |e: &EndpointConfig| matches!(e.request.network.as_str(), "host" | "none");
    if endpoints.len() > 1 && endpoints.iter().any(plain) {
        return Err(Error::invalid(
            "cannot attach both user-defined and non-user-defined network-modes",
        ));
    }
    Ok(endpoints)
}

/// Later lists win; a name without `=` takes the variable away.
pub(super) fn merge_env(lists: &[&[String]]) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    for entry in lists.iter().flat_map(|l| l.iter()) {
        match entry.split_once('=') {
            Some((name, value)) => {
                if values.insert(name.to_owned(), value.to_owned()).is_none() {
                    order.push(name.to_owned());
                }
            }
            None => {
                values.remove(entry);
                order.retain(|n| n != entry);
            }
        }
    }
    order
        .iter()
        .filter_map(|name| values.get(name).map(|value| format!("{name}={value}")))
        .collect()
}

/// Docker's order: PATH, HOSTNAME, TERM, then image and `-e`.
pub(super) fn process_env(record: &Record, tty: bool, extra: &[String]) -> Vec<String> {
    let mut base = vec![PATH.to_owned(), format!("HOSTNAME={}", record.hostname())];
    if tty {
        base.push("TERM=xterm".to_owned());
    }
    merge_env(&[&base, &record.config.env, extra])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_order_and_override() {
        let a = ["A=1".to_owned(), "B=2".to_owned()];
        let b = ["A=3".to_owned(), "C=".to_owned(), "B".to_owned()];
        assert_eq!(merge_env(&[&a, &b]), ["A=3", "C="]);
    }

    #[test]
    fn network_mixes_are_refused() {
        let on = |names: &[&str]| {
            let requests: Vec<EndpointRequest> = names
                .iter()
                .map(|n| EndpointRequest {
                    network: (*n).to_owned(),
                    ..Default::default()
                })
                .collect();
            endpoints(&requests)
        };
        assert!(on(&["a", "b"]).is_ok());
        assert!(
            on(&["a", "a"])
                .unwrap_err()
                .to_string()
                .contains("is specified multiple times")
        );
        assert!(
            on(&["a", "host"])
                .unwrap_err()
                .to_string()
                .contains("cannot attach both user-defined and non-user-defined")
        );
        assert!(on(&["bridge"]).is_err());
    }
}
