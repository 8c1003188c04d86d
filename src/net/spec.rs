//! What a network is: made from `network create`'s options once, validated
//! there, and stored as it is. Closed types only; the option strings are kept
//! beside them because `inspect` shows exactly what was typed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ipam::Pool;
use crate::base::{Error, IfName, MacAddr, NetworkId, NetworkName, Result};
use crate::netlink::MacvlanMode;

/// A network as stored in `<root>/networks/<id>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    pub id: NetworkId,
    pub name: NetworkName,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    pub driver: Driver,
    /// `-o`, exactly as given.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(default)]
    pub pools: Vec<Pool>,
    #[serde(default)]
    pub internal: bool,
    #[serde(default)]
    pub attachable: bool,
    /// Off: an L2-only interface without an address.
    #[serde(default = "yes")]
    pub ipv4: bool,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub ipam_options: BTreeMap<String, String>,
    #[serde(default)]
    pub announce: Announce,
    #[serde(default)]
    pub host_access: HostAccess,
}

fn yes() -> bool {
    true
}

/// Whether the host and the containers of a network can talk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostAccess {
    #[default]
    Off,
    /// With an address of its own for the host-side link, or without.
    On { ip: Option<std::net::Ipv4Addr> },
}

/// Who makes the interfaces of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Driver {
    Macvlan(Macvlan),
    /// The host's own namespace.
    Host,
    /// Loopback alone.
    Null,
}

impl Driver {
    /// The name that `network ls` prints.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Macvlan {
    pub parent: IfName,
    pub mode: MacvlanMode,
    /// Source mode: the MACs whose frames are let in.
    #[serde(default)]
    pub sources: Vec<MacAddr>,
    /// `None`: the parent's at creation.
    #[serde(default)]
    pub mtu: Option<u32>,
}

/// ARP announcements at start (Docker 28's `advertise_addr_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announce {
    pub count: u8,
    pub interval_ms: u16,
}

impl Default for Announce {
    fn default() -> Self {
        Self {
            count: 3,
            interval_ms: 1000,
        }
    }
}

impl Announce {
    pub fn interval(self) -> Duration {
        Duration::from_millis(u64::from(self.interval_ms))
    }
}

const MODE: &str = "macvlan_mode";
const SOURCES: &str = "macvlan_sources";
const PARENT: &str = "parent";
const MTU: &str = "com.docker.network.driver.mtu";
const ADVERTISE_COUNT: &str = "com.docker.network.advertise_addr_nmsgs";
const ADVERTISE_MS: &str = "com.docker.network.advertise_addr_ms";
const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

impl Macvlan {
    /// From `-o`. The parent's existence is the engine's to check.
    pub fn from_options(options: &BTreeMap<String, String>) -> Result<Self> {
        let mode = match options.get(MODE).map(String::as_str) {
            None | Some("" | "bridge") => MacvlanMode::Bridge,
            Some("private") => MacvlanMode::Private,
            Some("vepa") => MacvlanMode::Vepa,
            Some("passthru") => MacvlanMode::Passthru,
            Some("source") => MacvlanMode::Source,
            Some(other) => {
                return Err(Error::invalid(format!(
                    "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default; choose bridge, private, vepa, passthru or source"
                )));
            }
        };
        let sources = match options.get(SOURCES) {
            None => Vec::new(),
            Some(list) => list
                .split(',')
                .map(|mac| source_mac(mac.trim()))
                .collect::<Result<_>>()?,
        };
        match (mode, sources.is_empty()) {
            (MacvlanMode::Source, true) => {
                return Err(Error::invalid(
                    "macvlan mode source lets nobody in without a list: add -o macvlan_sources=MAC[,MAC…]",
                ));
            }
            (MacvlanMode::Source, false) | (_, true) => {}
            (_, false) => {
                return Err(Error::invalid(
                    "-o macvlan_sources goes with -o macvlan_mode=source only",
                ));
            }
        }
        let parent = options
            .get(PARENT)
            .filter(|p| !p.is_empty())
            .ok_or_else(|| {
                Error::invalid("a macvlan network needs a parent link: add -o parent=IFNAME")
                    .hint("networks without a parent (a dummy link) are not supported yet")
            })?;
        if parent == "lo" {
            return Err(
                Error::invalid("loopback interface is not a valid macvlan parent link")
                    .hint("name an Ethernet interface: `ip link` shows which there are"),
            );
        }
        Ok(Self {
            parent: IfName::new(parent.as_str())?,
            mode,
            sources,
            mtu: mtu(options)?,
        })
    }
}

fn source_mac(text: &str) -> Result<MacAddr> {
    let mac: MacAddr = text.parse()?;
    if mac.is_multicast() || mac.is_zero() {
        return Err(Error::invalid(format!(
            "{text} is not a valid mac address for {SOURCES}: no interface can own it"
        )));
    }
    Ok(mac)
}

/// RFC 791's minimum and the kernel's ETH_MAX_MTU; above the parent's own MTU
/// the kernel refuses at attach.
fn mtu(options: &BTreeMap<String, String>) -> Result<Option<u32>> {
    let Some(text) = options.get(MTU) else {
        return Ok(None);
    };
    match text.parse::<u32>() {
        Ok(0) => Ok(None),
        Ok(mtu @ 68..=65535) => Ok(Some(mtu)),
        _ => Err(Error::invalid(format!(
            "invalid MTU {text:?} in {MTU}: it must be a number from 68 to 65535"
        ))),
    }
}

impl Announce {
    pub fn from_options(options: &BTreeMap<String, String>) -> Result<Self> {
        let mut announce = Self::default();
        if let Some(text) = options.get(ADVERTISE_COUNT) {
            let count: i64 = text.parse().map_err(|_| {
                Error::invalid(format!(
                    "value for option {ADVERTISE_COUNT} {text:?} must be an integer"
                ))
            })?;
            announce.count = u8::try_from(count)
                .ok()
                .filter(|n| *n <= 3)
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "{ADVERTISE_COUNT} must be in the range 0 to 3, got {count}"
                    ))
                })?;
        }
        if let Some(text) = options.get(ADVERTISE_MS) {
            let ms: i64 = text.parse().map_err(|_| {
                Error::invalid(format!(
                    "value for option {ADVERTISE_MS} {text:?} must be integer milliseconds"
                ))
            })?;
            announce.interval_ms = u16::try_from(ms)
                .ok()
                .filter(|n| (100..=2000).contains(n))
                .ok_or_else(|| {
                    Error::invalid(format!(
                        "{ADVERTISE_MS} must be in the range 100 to 2000, got {ms}"
                    ))
                })?;
        }
        Ok(announce)
    }
}

/// `--ipv4`/`--ipv6` win over the options of the same meaning.
pub fn families(
    options: &BTreeMap<String, String>,
    ipv4: Option<bool>,
    ipv6: Option<bool>,
) -> Result<(bool, bool)> {
    let option = |key: &str| -> Result<Option<bool>> {
        options
            .get(key)
            .map(|text| {
                // Go's strconv.ParseBool
                match text.as_str() {
                    "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                    "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                    _ => Err(Error::invalid(format!(
                        "driver-opt: {key:?} is not a boolean: {text:?}"
                    ))),
                }
            })
            .transpose()
    };
    Ok((
        ipv4.or(option(ENABLE_IPV4)?).unwrap_or(true),
        ipv6.or(option(ENABLE_IPV6)?).unwrap_or(false),
    ))
}

/// Docker's answers for a parent that does not exist (§4.1): the name is taken
/// for a VLAN sub-interface to be made.
pub fn missing_parent(parent: &IfName, base_exists: &dyn Fn(&str) -> Result<bool>) -> Error {
    let name = parent.as_str();
    let Some((base, vid)) = name.split_once('.') else {
        return Error::invalid(format!(
            "invalid subinterface vlan name {name}, example formatting is eth0.10"
        ))
        .hint(format!(
            "there is no link {name}; `ip link` or /sys/class/net shows what there is"
        ));
    };
    if vid.contains('.') {
        return Error::invalid(format!(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, received: {name}"
        ));
    }
    let Ok(vid) = vid.parse::<i64>() else {
        return Error::invalid(format!(
            "unable to parse a valid vlan id from: {vid} (ex. eth0.10 for vlan 10)"
        ));
    };
    if !(1..=4094).contains(&vid) {
        return Error::invalid(format!("vlan id must be between 1-4094, received: {vid}"));
    }
    match base_exists(base) {
        Err(error) => error,
        Ok(false) => Error::invalid(format!(
            "-o parent interface was not found on the host: {base}"
        )),
        Ok(true) => Error::invalid(format!(
            "parent {name} does not exist, and VLAN sub-interfaces are not made yet"
        ))
        .hint(format!(
            "make it first: ip link add link {base} name {name} type vlan id {vid}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn modes_and_sources() {
        let m = Macvlan::from_options(&options(&[("parent", "eth1")])).unwrap();
        assert_eq!(m.mode, MacvlanMode::Bridge);
        for (bad, phrase) in [
            (&[("parent", "lo")][..], "loopback interface is not a valid"),
            (
                &[("parent", "eth1"), (MODE, "Bridge")],
                "requested macvlan mode 'Bridge' is not valid",
            ),
            (&[("parent", "eth1"), (MODE, "source")], "lets nobody in"),
            (
                &[("parent", "eth1"), (SOURCES, "02:00:00:00:00:01")],
                "macvlan_mode=source only",
            ),
            (
                &[
                    ("parent", "eth1"),
                    (MODE, "source"),
                    (SOURCES, "01:00:00:00:00:01"),
                ],
                "not a valid mac address",
            ),
            (&[], "needs a parent"),
            (&[("parent", "eth1"), (MTU, "67")], "invalid MTU"),
            (&[("parent", "eth1"), (MTU, "x")], "invalid MTU"),
        ] {
            let text = Macvlan::from_options(&options(bad))
                .unwrap_err()
                .to_string();
            assert!(text.contains(phrase), "{text}");
        }
        let m = Macvlan::from_options(&options(&[
            ("parent", "eth1"),
            (MODE, "source"),
            (SOURCES, "02:00:00:00:00:01, 02:00:00:00:00:02"),
        ]))
        .unwrap();
        assert_eq!(m.sources.len(), 2);
    }

    #[test]
    fn announce_ranges() {
        assert_eq!(
            Announce::from_options(&options(&[])).unwrap(),
            Announce::default()
        );
        for (key, value, phrase) in [
            (ADVERTISE_COUNT, "4", "must be in the range 0 to 3"),
            (ADVERTISE_COUNT, "-1", "must be in the range 0 to 3"),
            (ADVERTISE_COUNT, "x", "must be an integer"),
            (ADVERTISE_MS, "99", "100 to 2000"),
            (ADVERTISE_MS, "1s", "must be integer milliseconds"),
        ] {
            let text = Announce::from_options(&options(&[(key, value)]))
                .unwrap_err()
                .to_string();
            assert!(text.contains(phrase), "{text}");
        }
    }

    #[test]
    fn missing_parents_as_docker() {
        let ask = |name: &str| {
            missing_parent(&IfName::new(name).unwrap(), &|b| Ok(b == "eth1")).to_string()
        };
        assert!(
            ask("foo")
                .contains("invalid subinterface vlan name foo, example formatting is eth0.10")
        );
        assert!(ask("foo.10").contains("-o parent interface was not found on the host: foo"));
        assert!(ask("eth1.4095").contains("vlan id must be between 1-4094, received: 4095"));
        assert!(ask("eth1.x").contains("unable to parse a valid vlan id from: x"));
        assert!(ask("eth1.1.2").contains("required interface name format is: name.vlan_id"));
        assert!(ask("eth1.10").contains("ip link add link eth1 name eth1.10 type vlan id 10"));
    }

    #[test]
    fn flags_win_over_options() {
        let o = options(&[(ENABLE_IPV4, "false"), (ENABLE_IPV6, "0")]);
        assert_eq!(families(&o, None, None).unwrap(), (false, false));
        assert_eq!(families(&o, Some(true), None).unwrap(), (true, false));
        assert!(families(&options(&[(ENABLE_IPV4, "no")]), None, None).is_err());
    }
}
