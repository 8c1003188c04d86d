//! Read models that every front prints from: the JSON of Docker 29 (API 1.52),
//! key by key and in Docker's order. What only dockless has stands under one
//! key, `Dockless`, at the end of an object.
//!
//! `Option` is Docker's `null`, or, where marked so, a key that is left out.
//! Times are RFC 3339 with nanoseconds; [`NEVER`] stands for "not yet".

mod container;
mod doctor;
mod event;
mod explain;
mod host_config;
mod machine;
mod network;
mod summary;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use container::*;
pub use doctor::*;
pub use event::*;
pub use explain::*;
pub use host_config::*;
pub use machine::*;
pub use network::*;
pub use summary::*;

/// Go's zero time: a container that has not started, or not ended, yet.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// `{"5000/tcp":[{"HostIp":"0.0.0.0","HostPort":"5000"}]}`; `null` for a port
/// that is exposed but not published.
pub type Ports = BTreeMap<String, Option<Vec<PortBinding>>>;

/// The host's side of a published port, as text; empty is "not given".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    pub host_ip: String,
    pub host_port: String,
}

/// Go's empty struct, the value of a set: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}
