//! The predefined networks `host` and `none`: always there, never stored.

use std::collections::BTreeMap;

use super::spec::{Announce, Driver, HostAccess, Ipam, NetworkSpec};
use crate::base::{NetworkId, NetworkName, Result};

/// Names that `network create` and `network rm` refuse. `bridge` and `default`
/// do not exist here, but networks of those names would not be what a user
/// expects.
pub const PREDEFINED: [&str; 4] = ["bridge", "default", "host", "none"];

/// The two that exist, with ids that never change.
pub fn networks() -> Result<[NetworkSpec; 2]> {
    Ok([
        plain("host", Driver::Host, 0x01)?,
        plain("none", Driver::Null, 0x02)?,
    ])
}

fn plain(name: &str, driver: Driver, tag: u8) -> Result<NetworkSpec> {
    let mut id = [0xd0; 32];
    id[0] = tag;
    Ok(NetworkSpec {
        id: NetworkId::from_bytes(id),
        name: NetworkName::new(name)?,
        created: "1970-01-01T00:00:00.000000000Z".to_owned(),
        driver,
        options: BTreeMap::new(),
        pools: Vec::new(),
        internal: false,
        attachable: false,
        ipv4: true,
        ipv6: false,
        labels: BTreeMap::new(),
        ipam_options: BTreeMap::new(),
        announce: Announce::default(),
        host_access: HostAccess::Off,
        ipam: Ipam::Default,
        guard: super::spec::Guard::Off,
        routes: Vec::new(),
        source_routing: super::spec::SourceRouting::Off,
    })
}
