//! Use cases: one verb each, the only place where networks, containers and
//! images meet.

pub mod request;
pub mod view;

use std::time::SystemTime;

use crate::base::{ContainerId, NetworkId, Result};
use crate::store::Dirs;

pub use request::*;

/// All verbs. Cheap to make; opens nothing.
#[derive(Debug)]
pub struct Engine {
    #[allow(dead_code)]
    dirs: Dirs,
}

impl Engine {
    pub fn new(dirs: Dirs) -> Self {
        Self { dirs }
    }

    // --- networks: `wanted` is an id, a name or an id prefix, in that order

    pub fn network_create(&self, _request: NetworkCreate) -> Result<NetworkId> {
        todo!()
    }
    /// Sorted by name; the predefined `host` and `none` included.
    pub fn networks(&self) -> Result<Vec<view::Network>> {
        todo!()
    }
    pub fn network(&self, _wanted: &str) -> Result<view::Network> {
        todo!()
    }
    pub fn network_remove(&self, _wanted: &str) -> Result<()> {
        todo!()
    }
    /// Names of what was removed.
    pub fn network_prune(&self, _filter: &dyn Fn(&view::Network) -> bool) -> Result<Vec<String>> {
        todo!()
    }
    pub fn network_connect(&self, _endpoint: EndpointRequest, _container: &str) -> Result<()> {
        todo!()
    }
    pub fn network_disconnect(&self, _network: &str, _container: &str, _force: bool) -> Result<()> {
        todo!()
    }
    pub fn host_access(&self, _network: &str, _access: HostAccess) -> Result<()> {
        todo!()
    }

    // --- containers: `wanted` is an id, a name or an id prefix

    /// Makes and starts a container. With `attach`, `Run::client` is a
    /// connection that has missed no output.
    pub fn run(&self, _request: RunRequest) -> Result<Run> {
        todo!()
    }
    pub fn start(&self, _wanted: &str, _attach: bool) -> Result<Option<Client>> {
        todo!()
    }
    pub fn stop(
        &self,
        _wanted: &str,
        _signal: Option<&str>,
        _timeout_s: Option<i64>,
    ) -> Result<()> {
        todo!()
    }
    pub fn restart(
        &self,
        _wanted: &str,
        _signal: Option<&str>,
        _timeout_s: Option<i64>,
    ) -> Result<()> {
        todo!()
    }
    pub fn kill(&self, _wanted: &str, _signal: &str) -> Result<()> {
        todo!()
    }
    pub fn pause(&self, _wanted: &str, _on: bool) -> Result<()> {
        todo!()
    }
    pub fn wait(&self, _wanted: &str) -> Result<i32> {
        todo!()
    }
    pub fn remove(&self, _wanted: &str, _force: bool) -> Result<()> {
        todo!()
    }
    pub fn rename(&self, _wanted: &str, _name: &str) -> Result<()> {
        todo!()
    }
    /// Attaches to a running container.
    pub fn attach(&self, _wanted: &str) -> Result<Client> {
        todo!()
    }
    /// Full inspect views, newest first; stopped ones too with `all`.
    pub fn containers(&self, _all: bool) -> Result<Vec<view::Container>> {
        todo!()
    }
    pub fn container(&self, _wanted: &str) -> Result<view::Container> {
        todo!()
    }
    /// Runs it and waits, or returns at once with `detach`. The exit status is
    /// the process's.
    pub fn exec(&self, _wanted: &str, _request: ExecRequest) -> Result<Option<ExitStatus>> {
        todo!()
    }
    /// Writes the log to `out`/`err`.
    pub fn logs(
        &self,
        _wanted: &str,
        _request: &LogsRequest,
        _out: &mut dyn std::io::Write,
        _err: &mut dyn std::io::Write,
    ) -> Result<()> {
        todo!()
    }

    // --- the machine

    pub fn info(&self) -> Result<view::Info> {
        todo!()
    }
    /// What the journals of dead processes left, undone. One line each.
    pub fn gc(&self) -> Result<Vec<String>> {
        todo!()
    }
}

/// What `run` gives back.
#[derive(Debug)]
pub struct Run {
    pub id: ContainerId,
    pub client: Option<Client>,
    pub relay: Relay,
    pub warnings: Vec<String>,
}

/// When something happened, as Docker prints it (RFC 3339 with nanoseconds).
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_nanos(time).to_string()
}
