//! Parts of a record, for those who look at a thousand of them: what they do
//! not name is skipped, neither stored nor looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::record::{Status, Stored};
use super::{Engine, inspect, view};
use crate::base::{ContainerId, ContainerName, NetworkId, PortMap};
use crate::net::Attachment;
use crate::net::publish::PortRequest;

/// For `ps`.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub id: ContainerId,
    name: ContainerName,
    pub created: String,
    image: Image,
    config: Config,
    pub state: LineState,
}

#[derive(Debug, Deserialize)]
struct Image {
    reference: String,
    id: String,
    lower: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Config {
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    labels: BTreeMap<String, String>,
    exposed: Vec<String>,
    publish: Vec<PortRequest>,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    name: String,
    network: Option<NetworkId>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LineState {
    pub status: Status,
    exit_code: i32,
    started: String,
    finished: String,
    ports: Vec<PortMap>,
}

impl Stored for Line {
    fn id(&self) -> &ContainerId {
        &self.id
    }

    fn is_live(&self) -> bool {
        self.state.status.is_live()
    }

    fn end_unwatched(&mut self) {
        let mut state = super::record::State::default();
        state.end_unwatched();
        self.state.status = state.status;
        self.state.exit_code = state.exit_code;
        self.state.finished = state.finished;
        self.state.ports.clear();
    }
}

/// For `network inspect`: who is on which network.
#[derive(Debug, Deserialize)]
pub(super) struct Member {
    pub id: ContainerId,
    pub name: ContainerName,
    pub state: MemberState,
}

#[derive(Debug, Deserialize)]
pub(super) struct MemberState {
    status: Status,
    pub attachments: Vec<Attachment>,
}

impl Stored for Member {
    fn id(&self) -> &ContainerId {
        &self.id
    }

    fn is_live(&self) -> bool {
        self.state.status.is_live()
    }

    fn end_unwatched(&mut self) {
        self.state.status = Status::Exited;
        self.state.attachments.clear();
    }
}

impl Engine {
    pub(super) fn summarize(&self, line: Line) -> view::Summary {
        let Line {
            id,
            name,
            created,
            image,
            config,
            state,
        } = line;
        let mut argv = config.entrypoint;
        argv.extend(config.cmd);
        let mut bound: Vec<String> = config.publish.iter().map(inspect::port_key).collect();
        bound.dedup();
        let networks = config.endpoints.into_iter();
        let network_id = |id: Option<NetworkId>| id.map(|id| id.to_string()).unwrap_or_default();
        view::Summary {
            upper: self.dirs.container(&id).join("layer").join("upper"),
            id: id.to_string(),
            name: name.to_string(),
            created,
            image: image.reference,
            image_id: format!("sha256:{}", image.id),
            argv,
            status: inspect::status(state.status),
            exit_code: state.exit_code,
            started_at: state.started,
            finished_at: state.finished,
            labels: config.labels,
            ports: inspect::bindings(&state.ports),
            bound,
            exposed: config.exposed,
            networks: networks.map(|e| (e.name, network_id(e.network))).collect(),
            lower: image.lower,
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::record::{Config as Whole, EndpointConfig, Record, State};
    use super::*;
    use crate::base::Proto;
    use crate::engine::EndpointRequest;
    use crate::store::Dirs;

    fn port(container: u16, proto: Proto) -> PortRequest {
        PortRequest {
            host_ip: None,
            host_port: None,
            container,
            proto,
        }
    }

    fn record(n: u8) -> Record {
        let mut record = Record {
            id: ContainerId::from_bytes([n; 32]),
            name: ContainerName::new(format!("web{n}")).unwrap(),
            created: format!("2026-11-28T00:00:{n:02}Z"),
            image: crate::image::Image {
                reference: "tester".to_owned(),
                id: "ab".to_owned(),
                lower: "/l".into(),
                entrypoint: Vec::new(),
                cmd: Vec::new(),
                env: Vec::new(),
                exposed: Vec::new(),
                cwd: String::new(),
                user: String::new(),
                stop_signal: None,
            },
            config: Whole {
                entrypoint: vec!["/bin/a".to_owned()],
                cmd: vec!["b \"c\"".to_owned()],
                labels: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
                exposed: vec!["80/tcp".to_owned()],
                publish: vec![port(80, Proto::Tcp), port(53, Proto::Udp)],
                endpoints: vec![EndpointConfig {
                    request: EndpointRequest::default(),
                    network: NetworkId::new("c".repeat(64)).ok(),
                    name: "lan".to_owned(),
                    last_ips: crate::base::PerFamily::NONE,
                    dhcp: None,
                    lan6: None,
                    dhcp6: None,
                }],
                ..Default::default()
            },
            state: State::default(),
        };
        record.state.status = Status::Running;
        record
    }

    /// What is read in parts, on several threads, is what the whole record
    /// says; who is dead has ended.
    #[test]
    fn parts_agree_with_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(dir.path().join("root"), dir.path().join("state"));
        dirs.make().unwrap();
        let engine = Engine::new(dirs.clone());
        let mut locks = Vec::new();
        for n in 0..100 {
            let record = record(n);
            crate::store::file::make_dir(&dirs.container(&record.id), 0o700).unwrap();
            record.save(&dirs).unwrap();
            if n != 7 {
                locks.push(dirs.roll().acquire(&record.id).unwrap());
            }
        }
        let held = dirs.roll().survey().unwrap().held;
        let lines = engine.parts::<Line>(&held).unwrap();
        assert!(lines.problems.is_empty(), "{:?}", lines.problems);
        let mut lines = lines.items;
        lines.sort_by(|a, b| a.created.cmp(&b.created));
        assert_eq!(lines.len(), 100);
        for (n, line) in (0..).zip(lines) {
            let whole = engine.truth(&record(n).id).unwrap().unwrap();
            let inspected = engine.describe(&whole, &[]).unwrap();
            let line = engine.summarize(line);
            assert_eq!(line.id, inspected.id);
            assert_eq!(format!("/{}", line.name), inspected.name);
            assert_eq!(line.created, inspected.created);
            assert_eq!(line.image, inspected.config.image);
            assert_eq!(line.image_id, inspected.image);
            assert_eq!(line.argv, [&[inspected.path], &inspected.args[..]].concat());
            assert_eq!(line.status, inspected.state.status);
            assert_eq!(line.exit_code, inspected.state.exit_code);
            assert_eq!(line.started_at, inspected.state.started_at);
            assert_eq!(line.labels, inspected.config.labels);
            let keys = |of: &view::Ports| of.keys().cloned().collect::<HashSet<_>>();
            let bound: HashSet<String> = line.bound.into_iter().collect();
            assert_eq!(bound, keys(&inspected.host_config.port_bindings));
            assert_eq!(line.ports, inspected.network_settings.ports);
            let exposed: Vec<String> = inspected.config.exposed_ports.into_keys().collect();
            assert_eq!(line.exposed, exposed);
            let networks = inspected.network_settings.networks.into_iter();
            let networks = networks.map(|(name, e)| (name, e.network_id)).collect();
            assert_eq!(line.networks, networks);
            let layers = inspected.graph_driver.unwrap().data;
            assert_eq!(
                line.upper.to_str(),
                layers.get("UpperDir").map(String::as_str)
            );
            assert_eq!(
                line.lower.to_str(),
                layers.get("LowerDir").map(String::as_str)
            );
            assert_eq!(line.exit_code == 137, n == 7);
        }
        let members = engine.members(&held).unwrap();
        assert_eq!(members.len(), 99);
        assert!(members.iter().all(|m| m.id != record(7).id));
    }

    #[test]
    fn a_damaged_record_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(dir.path().join("root"), dir.path().join("state"));
        dirs.make().unwrap();
        for n in 0..70 {
            let folder = dirs.container(&record(n).id);
            crate::store::file::make_dir(&folder, 0o700).unwrap();
            record(n).save(&dirs).unwrap();
            if n % 35 == 1 {
                std::fs::write(folder.join("record.json"), "{").unwrap();
            }
        }
        let found = Engine::new(dirs).parts::<Line>(&HashSet::new()).unwrap();
        assert_eq!((found.items.len(), found.problems.len()), (68, 2));
        assert!(found.problems[0].to_string().contains("record.json"));
    }
}
