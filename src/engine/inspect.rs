//! Records as Docker's JSON: what `inspect`, `ps`, `network inspect` print.

use std::collections::BTreeMap;

use super::brief::Member;
use super::parents::parent_now;
use super::record::{Conflict, EndpointConfig, Record, Status};
use super::{Engine, view};
use crate::base::{Cidr, PortMap, Result};
use crate::container::profile;
use crate::net::guard::rule::{self, Rule};
use crate::net::ipam::{self, Pool};
use crate::net::publish::PortRequest;
use crate::net::spec::{HostAccess, NetworkSpec};
use crate::net::{Attachment, guard, host_access, publish};
use crate::netlink::Rtnl;

/// An ipvlan has none of its own, and Docker shows none.
/// Docker's way to say nothing is the empty string.
fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

fn mac(attachment: &Attachment) -> String {
    if attachment.mode.is_ipvlan() {
        String::new()
    } else {
        attachment.mac.to_string()
    }
}

impl Engine {
    /// `networks`: at least those that it is on.
    pub(super) fn describe(
        &self,
        record: &Record,
        networks: &[NetworkSpec],
    ) -> Result<view::Container> {
        let dirs = &self.dirs;
        let etc = self.etc_folder(record);
        let layer = dirs.container(&record.id).join("layer");
        let text = |path: std::path::PathBuf| path.display().to_string();
        let mut argv = record.argv().into_iter();
        let state = &record.state;
        Ok(view::Container {
            id: record.id.to_string(),
            created: record.created.clone(),
            path: argv.next().unwrap_or_default(),
            args: argv.collect(),
            state: view::State {
                status: status(state.status),
                running: state.status.is_live(),
                paused: state.status == Status::Paused,
                pid: state.pid,
                exit_code: state.exit_code,
                error: state.error.clone(),
                started_at: state.started.clone(),
                finished_at: state.finished.clone(),
                ..Default::default()
            },
            image: format!("sha256:{}", record.image.id),
            resolv_conf_path: text(etc.join("resolv.conf")),
            hostname_path: text(etc.join("hostname")),
            hosts_path: text(etc.join("hosts")),
            log_path: text(dirs.log(&record.id)),
            name: format!("/{}", record.name),
            // Docker counts only those of a restart policy.
            restart_count: 0,
            driver: "overlay2".to_owned(),
            platform: "linux".to_owned(),
            host_config: host_config(record),
            graph_driver: Some(view::GraphDriver {
                name: "overlay2".to_owned(),
                data: BTreeMap::from([
                    ("LowerDir".to_owned(), text(record.image.lower.clone())),
                    ("MergedDir".to_owned(), text(layer.join("merged"))),
                    ("UpperDir".to_owned(), text(layer.join("upper"))),
                    ("WorkDir".to_owned(), text(layer.join("work"))),
                ]),
            }),
            config: config(record),
            network_settings: self.network_settings(record),
            dockless: extra(record, networks),
            ..Default::default()
        })
    }

    fn network_settings(&self, record: &Record) -> view::NetworkSettings {
        let state = &record.state;
        let mut networks = BTreeMap::new();
        for endpoint in &record.config.endpoints {
            let attachment = state
                .attachments
                .iter()
                .find(|a| Some(&a.network) == endpoint.network.as_ref());
            networks.insert(
                endpoint.name.clone(),
                endpoint_view(record, endpoint, attachment),
            );
        }
        view::NetworkSettings {
            sandbox_id: if state.status.is_live() {
                state.sandbox.clone()
            } else {
                String::new()
            },
            sandbox_key: if state.status.is_live() {
                format!("/proc/{}/ns/net", state.pid)
            } else {
                String::new()
            },
            ports: bindings(&state.ports),
            networks,
        }
    }

    pub(super) fn describe_network(
        &self,
        network: &NetworkSpec,
        members: &[Member],
        all: &[NetworkSpec],
    ) -> Result<view::Network> {
        let containers = members.iter().flat_map(|record| {
            record
                .state
                .attachments
                .iter()
                .filter(|a| a.network == network.id)
                .map(|a| {
                    let member = view::NetworkMember {
                        name: record.name.to_string(),
                        endpoint_id: a.endpoint.clone(),
                        mac_address: mac(a),
                        ipv4_address: text(a.addrs.ipv4()),
                        ipv6_address: text(a.addrs.ipv6()),
                    };
                    (record.id.to_string(), member)
                })
        });
        let predefined = network.vlan().is_none();
        Ok(view::Network {
            name: network.name.to_string(),
            id: network.id.to_string(),
            created: network.created.clone(),
            driver: network.driver.name().to_owned(),
            enable_ipv4: network.ipv4,
            enable_ipv6: network.ipv6,
            ipam: view::Ipam {
                options: (!predefined).then(|| network.ipam_options.clone()),
                config: (!predefined).then(|| network.pools.iter().map(pool).collect()),
                driver: network.ipam.as_str().to_owned(),
            },
            internal: network.internal,
            attachable: network.attachable,
            options: network.options.clone(),
            labels: network.labels.clone(),
            containers: containers.collect(),
            status: (!predefined)
                .then(|| self.ipam_status(network, all))
                .transpose()?,
            dockless: view::NetworkExtra {
                parent: None,
                host_access: match network.host_access {
                    HostAccess::Off => view::HostAccessView::default(),
                    HostAccess::On { ip } => view::HostAccessView {
                        enabled: true,
                        interface: host_access::shim_name(&network.id).to_string(),
                        ipv4_address: ip.map(|ip| ip.to_string()).unwrap_or_default(),
                    },
                },
                routes: network.routes.iter().map(ToString::to_string).collect(),
            },
            ..Default::default()
        })
    }

    /// What has to be looked up.
    pub(super) fn describe_parent(network: &NetworkSpec) -> Result<Option<view::ParentView>> {
        let Some(vlan) = network.vlan() else {
            return Ok(None);
        };
        let mut host = Rtnl::host()?;
        let found = parent_now(network, &mut host);
        let written = network.options.get("parent").cloned().unwrap_or_default();
        let interface = match &found {
            Ok(Some(found)) => found.name.clone(),
            _ => String::new(),
        };
        // A VLAN stands on what was picked.
        let made = host.link(vlan.parent.as_str())?;
        let vlans = network.options.contains_key("vlan");
        let (interface, carries) = match made.filter(|_| vlans && !interface.is_empty()) {
            Some(link) => (link.name.to_string(), link.up && link.carrier),
            None => (
                interface,
                matches!(&found, Ok(Some(found)) if found.carries),
            ),
        };
        let state = match &found {
            Ok(Some(_)) if carries => "up".to_owned(),
            Ok(Some(_)) => "no carrier".to_owned(),
            Ok(None) => "missing".to_owned(),
            Err(error) => error.to_string(),
        };
        Ok(Some(view::ParentView {
            written,
            interface,
            state,
        }))
    }

    /// Docker's counts: all addresses that cannot be had any more in the
    /// subnet, and those that an automatic choice could still take.
    fn ipam_status(
        &self,
        network: &NetworkSpec,
        all: &[NetworkSpec],
    ) -> Result<view::NetworkStatus> {
        let mut subnets = BTreeMap::new();
        for own in &network.pools {
            let sharing: Vec<&Pool> = all
                .iter()
                .filter(|n| n.segment() == network.segment())
                .flat_map(|n| &n.pools)
                .filter(|p| p.subnet == own.subnet)
                .collect();
            let mut used = self.leased(network.segment(), own.subnet)?;
            for pool in &sharing {
                used.extend(pool.gateway.iter().chain(pool.aux.values()).copied());
            }
            for edge in [own.subnet.addr(), own.subnet.last()] {
                if ipam::is_reserved(own, edge) {
                    used.insert(edge);
                }
            }
            let range = own.ip_range.unwrap_or(own.subnet);
            let within = used.iter().filter(|ip| range.contains(**ip)).count();
            let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
            let last = range.index_of(range.last()).unwrap_or_default();
            let size = last.saturating_add(1);
            // As many as 64 bits can say: there are larger subnets.
            let left = size.saturating_sub(u128::from(count(within)));
            subnets.insert(
                own.subnet.to_string(),
                view::SubnetStatus {
                    ips_in_use: count(used.len()),
                    dynamic_ips_available: u64::try_from(left).unwrap_or(u64::MAX),
                },
            );
        }
        Ok(view::NetworkStatus {
            ipam: view::IpamStatus { subnets },
        })
    }
}

pub(super) fn status(status: Status) -> view::Status {
    match status {
        Status::Created => view::Status::Created,
        Status::Running => view::Status::Running,
        Status::Paused => view::Status::Paused,
        Status::Exited => view::Status::Exited,
    }
}

/// `80/tcp`, as Docker's tables of ports have it.
pub(super) fn port_key(port: &PortRequest) -> String {
    format!("{}/{}", port.container, port.proto)
}

pub(super) fn bindings(published: &[PortMap]) -> view::Ports {
    let mut ports = view::Ports::new();
    for port in published {
        let binding = view::PortBinding {
            host_ip: port.host.ip.to_string(),
            host_port: port.host.port.to_string(),
        };
        ports
            .entry(format!("{}/{}", port.container, port.proto))
            .or_insert_with(|| Some(Vec::new()))
            .get_or_insert_default()
            .push(binding);
    }
    ports
}

fn rules(rules: &[Rule]) -> Vec<view::RuleExtra> {
    let mut all: Vec<String> = rules.iter().map(ToString::to_string).collect();
    if rule::default(rules) == rule::Verdict::Deny {
        all.push(guard::REST.to_owned());
    }
    let shown = |rule| view::RuleExtra { rule, packets: 0 };
    all.into_iter().map(shown).collect()
}

fn pool(pool: &Pool) -> view::Pool {
    view::Pool {
        subnet: pool.subnet.to_string(),
        ip_range: pool.ip_range.map(|r| r.to_string()).unwrap_or_default(),
        gateway: pool.gateway.map(|g| g.to_string()).unwrap_or_default(),
        auxiliary_addresses: pool
            .aux
            .iter()
            .map(|(name, ip)| (name.clone(), ip.to_string()))
            .collect(),
    }
}

fn extra(record: &Record, networks: &[NetworkSpec]) -> view::ContainerExtra {
    let state = &record.state;
    let links = state.attachments.iter().map(|a| {
        let network = networks.iter().find(|n| n.id == a.network);
        let name = network.map_or_else(|| a.network.short().to_owned(), |n| n.name.to_string());
        let link = view::LinkExtra {
            interface: a.ifname.to_string(),
            parent: a.parent.to_string(),
            state: a.link.carrier.as_str().to_owned(),
            since: a.link.since.clone(),
            trouble: a.link.trouble.clone(),
            mode: a.mode.to_string(),
            host_access: network.is_some_and(|n| n.host_access != HostAccess::Off),
            announcements: network.map_or(0, |n| u32::from(n.announce.count)),
            guard: match &a.guard {
                guard::State::Off => "off".to_owned(),
                guard::State::On => "on".to_owned(),
                guard::State::Unavailable { why } => format!("off: {why}"),
            },
            dropped: guard::Dropped::new(),
            rate_up: text(a.rates.up),
            rate_down: text(a.rates.down),
            rate_dropped: None,
        };
        (name, link)
    });
    view::ContainerExtra {
        supervisor_pid: state.supervisor,
        cgroups: state
            .cgroup
            .iter()
            .map(|p| p.display().to_string())
            .collect(),
        published: state
            .paths
            .iter()
            .map(|(port, path)| view::Published {
                port: port.to_string(),
                path: match path {
                    publish::Path::Fast => "fast-path".to_owned(),
                    publish::Path::Proxy => "proxy".to_owned(),
                },
            })
            .collect(),
        links: links.collect(),
        dhcp: super::dhcp::describe(record),
        ip6: super::ip6::describe(record),
        dhcp6: super::dhcp6::describe(record),
        mdns: super::mdns::describe(state, networks),
        rules: rules(&record.config.rules),
        conflicts: state
            .conflicts
            .iter()
            .map(|conflict| conflict_view(conflict, networks))
            .collect(),
    }
}

fn conflict_view(conflict: &Conflict, networks: &[NetworkSpec]) -> view::Conflict {
    let network = networks.iter().find(|n| n.id == conflict.network);
    let short = || conflict.network.short().to_owned();
    view::Conflict {
        network: network.map_or_else(short, |n| n.name.to_string()),
        ipv4_address: conflict.ip.to_string(),
        mac_address: conflict.mac.to_string(),
        outcome: conflict.outcome.as_str().to_owned(),
        first: conflict.first.clone(),
        last: conflict.last.clone(),
        seen: conflict.seen,
        defended: conflict.defended,
    }
}

fn endpoint_view(
    record: &Record,
    endpoint: &EndpointConfig,
    attachment: Option<&Attachment>,
) -> view::Endpoint {
    let request = &endpoint.request;
    let names = super::roster::names(
        record.name.as_str(),
        &request.aliases,
        &record.id,
        record.hostname(),
    );
    let mut out = view::Endpoint {
        ipam_config: (!request.ips.is_empty() || !request.link_local.is_empty()).then(|| {
            view::EndpointIpam {
                ipv4_address: text(request.ips.ipv4()),
                ipv6_address: text(request.ips.ipv6()),
                link_local_ips: request.link_local.iter().map(ToString::to_string).collect(),
            }
        }),
        aliases: (!request.aliases.is_empty()).then(|| request.aliases.clone()),
        driver_opts: (!request.driver_options.is_empty()).then(|| request.driver_options.clone()),
        gw_priority: request.gw_priority,
        network_id: endpoint
            .network
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        dns_names: Some(names),
        ..Default::default()
    };
    if let Some(a) = attachment {
        out.endpoint_id.clone_from(&a.endpoint);
        out.mac_address = mac(a);
        if !a.internal {
            out.gateway = text(a.gateways.ipv4());
            out.ipv6_gateway = text(a.gateways.ipv6());
        }
        let (v4, v6) = (a.addrs.ipv4(), a.addrs.ipv6());
        out.ip_address = text(v4.map(Cidr::addr));
        out.ip_prefix_len = v4.map(Cidr::prefix).unwrap_or_default();
        out.global_ipv6_address = text(v6.map(Cidr::addr));
        out.global_ipv6_prefix_len = v6.map(Cidr::prefix).unwrap_or_default();
    }
    out
}

fn host_config(record: &Record) -> view::HostConfig {
    let config = &record.config;
    let mut bindings = view::Ports::new();
    for port in &config.publish {
        let host_port = match port.host_port {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        bindings
            .entry(port_key(port))
            .or_insert_with(|| Some(Vec::new()))
            .get_or_insert_default()
            .push(view::PortBinding {
                host_ip: port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
                host_port,
            });
    }
    view::HostConfig {
        network_mode: config.network_mode.clone(),
        port_bindings: bindings,
        dns: config.dns.iter().map(ToString::to_string).collect(),
        dns_search: config.dns_search.clone(),
        dns_options: config.dns_options.clone(),
        extra_hosts: (!config.extra_hosts.is_empty())
            .then(|| config.extra_hosts.iter().map(ToString::to_string).collect()),
        auto_remove: config.auto_remove,
        init: config.init.then_some(true),
        masked_paths: profile::masked(),
        readonly_paths: profile::READ_ONLY.map(str::to_owned).to_vec(),
        log_config: view::LogConfig {
            config: config.log_options.clone(),
            ..Default::default()
        },
        ..Default::default()
    }
}

fn config(record: &Record) -> view::Config {
    let config = &record.config;
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    view::Config {
        hostname: record.hostname().to_owned(),
        user: config.user.clone(),
        attach_stdin: config.attached && config.open_stdin,
        attach_stdout: config.attached,
        attach_stderr: config.attached,
        exposed_ports: config
            .exposed
            .iter()
            .map(|p| (p.clone(), view::Empty {}))
            .collect(),
        tty: config.tty,
        open_stdin: config.open_stdin,
        stdin_once: config.attached && config.open_stdin,
        env: config.env.clone(),
        cmd: some(&config.cmd),
        image: record.image.reference.clone(),
        working_dir: if config.workdir == "/" {
            String::new()
        } else {
            config.workdir.clone()
        },
        entrypoint: some(&config.entrypoint),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
        stop_timeout: config.stop_timeout,
        ..Default::default()
    }
}
