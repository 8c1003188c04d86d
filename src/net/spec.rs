//! What a network is: made from `network create`'s options once, validated
//! there, and stored as it is. Closed types only; the option strings are kept
//! beside them because `inspect` shows exactly what was typed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::broadcast;
use super::choice::Choice;
use super::ipam::Pool;
use super::parent::{Made, What};
use super::routing::fixed::StaticRoute;
use crate::base::{Error, Family, IfName, MacAddr, NetworkId, NetworkName, Result};
use crate::netlink::{Broadcast, IpvlanFlag, IpvlanMode, MacvlanMode, Mode};

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
    /// Both families off: an L2-only interface without an address.
    #[serde(default = "yes")]
    pub ipv4: bool,
    #[serde(default)]
    pub ipv6: bool,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub ipam_options: BTreeMap<String, String>,
    #[serde(default)]
    pub announce: Announce,
    #[serde(default)]
    pub host_access: HostAccess,
    #[serde(default)]
    pub ipam: Ipam,
    #[serde(default)]
    pub guard: Guard,
    /// `--route`
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<StaticRoute>,
    #[serde(default)]
    pub source_routing: SourceRouting,
}

/// Who gives a network's containers their addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ipam {
    /// dockless, from the network's subnets.
    #[default]
    Default,
    /// The LAN's DHCP server: the network has no subnet of its own.
    Dhcp,
}

impl Ipam {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Dhcp => "dhcp",
        }
    }

    /// As `--ipam-driver` says it; `None`: there is no such driver.
    pub fn new(driver: &str) -> Option<Self> {
        match driver {
            "" | "default" => Some(Self::Default),
            "dhcp" => Some(Self::Dhcp),
            _ => None,
        }
    }
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

/// Whether frames leave only with a container's own MAC and addresses
/// ([`guard`](super::guard)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guard {
    /// Also of networks that were made before there was one.
    #[default]
    Off,
    /// Where the kernel can: a new network's.
    Auto,
    /// Or the container does not start.
    On,
}

impl Guard {
    pub fn from_options(options: &BTreeMap<String, String>) -> Result<Self> {
        match options.get(GUARD).map(String::as_str) {
            None => Ok(Self::Auto),
            Some("on") => Ok(Self::On),
            Some("off") => Ok(Self::Off),
            Some(other) => Err(Error::invalid(format!(
                "invalid value '{other}' of -o {GUARD}: it is 'on' or 'off'"
            ))
            .hint("without it, the guard is on where the kernel can")),
        }
    }
}

/// Whether a container that is on other networks too answers by this one what
/// was asked by it ([`routing`](super::routing)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceRouting {
    #[default]
    On,
    Off,
}

impl SourceRouting {
    pub fn from_options(options: &BTreeMap<String, String>) -> Result<Self> {
        match options.get(SOURCE_ROUTING).map(String::as_str) {
            None | Some("on") => Ok(Self::On),
            Some("off") => Ok(Self::Off),
            Some(other) => Err(Error::invalid(format!(
                "invalid value '{other}' of -o {SOURCE_ROUTING}: it is 'on' or 'off'"
            ))
            .hint("without it, it is on")),
        }
    }
}

/// Who makes the interfaces of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Driver {
    #[serde(alias = "macvlan")]
    Vlan(Vlan),
    /// The host's own namespace.
    Host,
    /// Loopback alone.
    Null,
}

impl Driver {
    /// The name that `network ls` prints.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vlan(vlan) => vlan.mode.kind(),
            Self::Host => "host",
            Self::Null => "null",
        }
    }
}

/// A macvlan or ipvlan network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    /// As it was found last, where it is looked up each time.
    pub parent: IfName,
    /// Only where `-o parent` is not the kernel's name of a link, and so is
    /// looked up each time: what it was at creation, for [`Vlan::segment`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_parent: Option<IfName>,
    /// The links that dockless makes where they are missing, the parent last;
    /// none: the parent is somebody else's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub made: Vec<Made>,
    pub mode: Mode,
    /// Source mode: the MACs whose frames are let in.
    #[serde(default)]
    pub sources: Vec<MacAddr>,
    /// `None`: the parent's at creation.
    #[serde(default)]
    pub mtu: Option<u32>,
    #[serde(default)]
    pub broadcast: Broadcast,
}

impl Vlan {
    /// Within one, an address can be had once, and subnets do not overlap: the
    /// parent's name. Networks without a parent share one, as all do in Docker.
    pub fn segment(&self) -> &str {
        if self.is_isolated() {
            ""
        } else {
            self.first_parent.as_ref().unwrap_or(&self.parent).as_str()
        }
    }

    /// Whether the parent is looked up by what was written.
    pub fn is_followed(&self) -> bool {
        self.first_parent.is_some()
    }

    /// On a dummy.
    pub fn is_isolated(&self) -> bool {
        self.made.iter().any(|made| made.what == What::Dummy)
    }
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

const GUARD: &str = "guard";
const SOURCE_ROUTING: &str = "source_routing";
const MODE: &str = "macvlan_mode";
const SOURCES: &str = "macvlan_sources";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";
const MTU: &str = "com.docker.network.driver.mtu";
const ADVERTISE_COUNT: &str = "com.docker.network.advertise_addr_nmsgs";
const ADVERTISE_MS: &str = "com.docker.network.advertise_addr_ms";
const ENABLE_IPV4: &str = "com.docker.network.enable_ipv4";
const ENABLE_IPV6: &str = "com.docker.network.enable_ipv6";

impl NetworkSpec {
    /// Nothing leads out: asked for, or there is no parent to lead there.
    pub fn is_internal(&self) -> bool {
        self.internal || self.vlan().is_some_and(Vlan::is_isolated)
    }

    /// Whether its interfaces get an address of this family.
    pub fn has(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    pub fn segment(&self) -> &str {
        self.vlan().map_or("", Vlan::segment)
    }

    /// What `-o parent` says, where it has to be looked up each time.
    pub fn choice(&self) -> Option<Choice> {
        let written = self.options.get("parent")?;
        let followed = self.vlan().filter(|vlan| vlan.is_followed());
        followed.and_then(|_| Choice::parse(written).ok())
    }

    /// Another parent may take the place of the one in use.
    pub fn has_several(&self) -> bool {
        self.choice().is_some_and(|choice| choice.is_list())
    }

    /// `None`: `host` or `none`.
    pub fn vlan(&self) -> Option<&Vlan> {
        match &self.driver {
            Driver::Vlan(vlan) => Some(vlan),
            Driver::Host | Driver::Null => None,
        }
    }

    pub fn is_dhcp(&self) -> bool {
        self.ipam == Ipam::Dhcp
    }

    /// The default route is the link itself: an ipvlan whose host routes.
    pub fn is_l3(&self) -> bool {
        self.vlan().is_some_and(|vlan| vlan.mode.is_l3())
    }
}

/// What a network's `-o` say of its links, whoever its parent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOptions {
    pub mode: Mode,
    pub sources: Vec<MacAddr>,
    pub mtu: Option<u32>,
    pub broadcast: Broadcast,
}

impl LinkOptions {
    /// `None`: there is no such driver.
    pub fn new(driver: &str, options: &BTreeMap<String, String>) -> Result<Option<Self>> {
        let mode = match driver {
            "macvlan" => Mode::Macvlan(macvlan_mode(options)?),
            "ipvlan" => ipvlan_mode(options)?,
            _ => return Ok(None),
        };
        Ok(Some(Self {
            mode,
            sources: sources(mode, options)?,
            mtu: mtu(options)?,
            broadcast: broadcast::from_options(mode, options)?,
        }))
    }
}

fn macvlan_mode(options: &BTreeMap<String, String>) -> Result<MacvlanMode> {
    Ok(match options.get(MODE).map(String::as_str) {
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
    })
}

fn ipvlan_mode(options: &BTreeMap<String, String>) -> Result<Mode> {
    let ipvlan = match options.get(IPVLAN_MODE).map(String::as_str) {
        None | Some("" | "l2") => IpvlanMode::L2,
        Some("l3") => IpvlanMode::L3,
        Some("l3s") => IpvlanMode::L3s,
        Some(other) => {
            return Err(Error::invalid(format!(
                "requested ipvlan mode '{other}' is not valid, 'l2' mode is the ipvlan driver default; choose l2, l3 or l3s"
            )));
        }
    };
    let flag = match options.get(IPVLAN_FLAG).map(String::as_str) {
        None | Some("" | "bridge") => IpvlanFlag::Bridge,
        Some("private") => IpvlanFlag::Private,
        Some("vepa") => IpvlanFlag::Vepa,
        Some(other) => {
            return Err(Error::invalid(format!(
                "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver default; choose bridge, private or vepa"
            )));
        }
    };
    Ok(Mode::Ipvlan { ipvlan, flag })
}

fn sources(mode: Mode, options: &BTreeMap<String, String>) -> Result<Vec<MacAddr>> {
    let sources = match options.get(SOURCES) {
        None => Vec::new(),
        Some(list) => list
            .split(',')
            .map(|mac| source_mac(mac.trim()))
            .collect::<Result<_>>()?,
    };
    match (mode, sources.is_empty()) {
        (Mode::Macvlan(MacvlanMode::Source), true) => Err(Error::invalid(
            "macvlan mode source lets nobody in without a list: add -o macvlan_sources=MAC[,MAC…]",
        )),
        (Mode::Macvlan(MacvlanMode::Source), false) | (_, true) => Ok(sources),
        (_, false) => Err(Error::invalid(
            "-o macvlan_sources goes with -o macvlan_mode=source only",
        )),
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
        let link = |driver: &str, list: &[(&str, &str)]| {
            LinkOptions::new(driver, &options(list)).map(Option::unwrap)
        };
        let bridge = Mode::Macvlan(MacvlanMode::Bridge);
        assert_eq!(link("macvlan", &[]).unwrap().mode, bridge);
        for (driver, bad, phrase) in [
            (
                "macvlan",
                &[(MODE, "Bridge")][..],
                "requested macvlan mode 'Bridge' is not valid",
            ),
            ("macvlan", &[(MODE, "source")], "lets nobody in"),
            (
                "macvlan",
                &[(SOURCES, "02:00:00:00:00:01")],
                "macvlan_mode=source only",
            ),
            (
                "macvlan",
                &[(MODE, "source"), (SOURCES, "01:00:00:00:00:01")],
                "not a valid mac address",
            ),
            ("macvlan", &[(MTU, "67")], "invalid MTU"),
            ("ipvlan", &[(MTU, "x")], "invalid MTU"),
            (
                "ipvlan",
                &[(IPVLAN_MODE, "l4")],
                "requested ipvlan mode 'l4' is not valid",
            ),
            (
                "ipvlan",
                &[(IPVLAN_FLAG, "x")],
                "requested ipvlan flag 'x' is not valid",
            ),
        ] {
            let text = link(driver, bad).unwrap_err().to_string();
            assert!(text.contains(phrase), "{text}");
        }
        let sources = (SOURCES, "02:00:00:00:00:01, 02:00:00:00:00:02");
        let m = link("macvlan", &[(MODE, "source"), sources]).unwrap();
        assert_eq!(m.sources.len(), 2);
        let i = link("ipvlan", &[(IPVLAN_MODE, "l3s"), (IPVLAN_FLAG, "vepa")]).unwrap();
        assert_eq!(i.mode.to_string(), "l3s vepa");
        assert!(i.mode.is_l3());
        assert_eq!(LinkOptions::new("overlay", &options(&[])).unwrap(), None);
    }

    /// Files of networks that an earlier build has made.
    #[test]
    fn a_macvlan_as_it_was_stored_first() {
        let old = r#"{"kind":"macvlan","parent":"eth1","mode":"bridge","sources":[],"mtu":null}"#;
        let driver: Driver = serde_json::from_str(old).unwrap();
        let Driver::Vlan(vlan) = &driver else {
            panic!("{driver:?}");
        };
        assert_eq!(vlan.mode, Mode::Macvlan(MacvlanMode::Bridge));
        assert_eq!((driver.name(), vlan.made.len()), ("macvlan", 0));
        let again = serde_json::to_string(&driver).unwrap();
        assert_eq!(serde_json::from_str::<Driver>(&again).unwrap(), driver);
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
    fn flags_win_over_options() {
        let o = options(&[(ENABLE_IPV4, "false"), (ENABLE_IPV6, "0")]);
        assert_eq!(families(&o, None, None).unwrap(), (false, false));
        assert_eq!(families(&o, Some(true), None).unwrap(), (true, false));
        assert!(families(&options(&[(ENABLE_IPV4, "no")]), None, None).is_err());
    }
}
