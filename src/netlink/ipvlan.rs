//! Ipvlan's modes and flags, and what a container's link is: a macvlan or an
//! ipvlan, in which mode. One value, so that nothing above needs two drivers.
//!
//! An ipvlan has no MAC of its own. Mode and flag belong to the parent: the
//! kernel gives those of the newest ipvlan to all that share it.

use std::fmt;

use netlink_packet_route::link::{InfoData, InfoIpVlan, InfoKind, IpVlanFlags, IpVlanMode};
use serde::{Deserialize, Serialize};

use super::link::{LinkKind, MacvlanMode};
use super::wire::{self, Malformed};
use crate::base::{Error, Result};

const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;

/// Ipvlan modes (include/uapi/linux/if_link.h, IPVLAN_MODE_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpvlanMode {
    L2,
    L3,
    /// L3, and the host's netfilter sees what goes through.
    L3s,
}

/// Whether the links of one parent reach each other (IPVLAN_F_*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpvlanFlag {
    Bridge,
    Private,
    Vepa,
}

impl From<IpvlanMode> for IpVlanMode {
    fn from(mode: IpvlanMode) -> Self {
        match mode {
            IpvlanMode::L2 => Self::L2,
            IpvlanMode::L3 => Self::L3,
            IpvlanMode::L3s => Self::L3S,
        }
    }
}

impl From<IpvlanFlag> for IpVlanFlags {
    fn from(flag: IpvlanFlag) -> Self {
        match flag {
            IpvlanFlag::Bridge => Self::empty(),
            IpvlanFlag::Private => Self::Private,
            IpvlanFlag::Vepa => Self::Vepa,
        }
    }
}

/// What a container's link is. Stored as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Mode {
    Macvlan(MacvlanMode),
    Ipvlan {
        ipvlan: IpvlanMode,
        flag: IpvlanFlag,
    },
}

impl From<MacvlanMode> for Mode {
    fn from(mode: MacvlanMode) -> Self {
        Self::Macvlan(mode)
    }
}

impl Mode {
    /// The kind's name, the kernel's and Docker's.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Macvlan(_) => "macvlan",
            Self::Ipvlan { .. } => "ipvlan",
        }
    }

    pub fn is_ipvlan(self) -> bool {
        matches!(self, Self::Ipvlan { .. })
    }

    /// No ARP and no gateway: the host routes.
    pub fn is_l3(self) -> bool {
        matches!(
            self,
            Self::Ipvlan {
                ipvlan: IpvlanMode::L3 | IpvlanMode::L3s,
                ..
            }
        )
    }

    /// No MAC of its own, unless passthru is given one, which is the parent's
    /// then, too.
    pub fn has_parents_mac(self) -> bool {
        self.is_ipvlan() || self.is_passthru()
    }

    pub fn is_passthru(self) -> bool {
        self == Self::Macvlan(MacvlanMode::Passthru)
    }
}

/// `bridge`, `l2`, `l3 private`
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Macvlan(MacvlanMode::Bridge) => "bridge",
            Self::Macvlan(MacvlanMode::Private) => "private",
            Self::Macvlan(MacvlanMode::Vepa) => "vepa",
            Self::Macvlan(MacvlanMode::Passthru) => "passthru",
            Self::Macvlan(MacvlanMode::Source) => "source",
            Self::Ipvlan { ipvlan, .. } => match ipvlan {
                IpvlanMode::L2 => "l2",
                IpvlanMode::L3 => "l3",
                IpvlanMode::L3s => "l3s",
            },
        })?;
        match self {
            Self::Ipvlan { flag, .. } => f.write_str(match flag {
                IpvlanFlag::Bridge => "",
                IpvlanFlag::Private => " private",
                IpvlanFlag::Vepa => " vepa",
            }),
            Self::Macvlan(_) => Ok(()),
        }
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        mode.to_string()
    }
}

impl TryFrom<String> for Mode {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        let unknown = || Error::invalid(format!("unknown mode {text:?}"));
        let (mode, flag) = text.split_once(' ').unwrap_or((&text, ""));
        let ipvlan = match mode {
            "l2" => IpvlanMode::L2,
            "l3" => IpvlanMode::L3,
            "l3s" => IpvlanMode::L3s,
            _ => {
                return Ok(Self::Macvlan(match text.as_str() {
                    "bridge" => MacvlanMode::Bridge,
                    "private" => MacvlanMode::Private,
                    "vepa" => MacvlanMode::Vepa,
                    "passthru" => MacvlanMode::Passthru,
                    "source" => MacvlanMode::Source,
                    _ => return Err(unknown()),
                }));
            }
        };
        let flag = match flag {
            "" => IpvlanFlag::Bridge,
            "private" => IpvlanFlag::Private,
            "vepa" => IpvlanFlag::Vepa,
            _ => return Err(unknown()),
        };
        Ok(Self::Ipvlan { ipvlan, flag })
    }
}

pub(super) fn info(mode: IpvlanMode, flag: IpvlanFlag) -> (InfoKind, InfoData) {
    let data = vec![
        InfoIpVlan::Mode(mode.into()),
        InfoIpVlan::Flags(flag.into()),
    ];
    (InfoKind::IpVlan, InfoData::IpVlan(data))
}

/// From IFLA_INFO_DATA; `None` for a mode that is not known here.
pub(super) fn parse(data: &[u8]) -> std::result::Result<Option<LinkKind>, Malformed> {
    let number = |attr| wire::find(data, attr).map(wire::u16_of).transpose();
    let mode = match number(IFLA_IPVLAN_MODE)? {
        Some(0) => IpvlanMode::L2,
        Some(1) => IpvlanMode::L3,
        Some(2) => IpvlanMode::L3s,
        _ => return Ok(None),
    };
    let flag = match number(IFLA_IPVLAN_FLAGS)?.unwrap_or_default() {
        0 => IpvlanFlag::Bridge,
        1 => IpvlanFlag::Private,
        2 => IpvlanFlag::Vepa,
        _ => return Ok(None),
    };
    Ok(Some(LinkKind::Ipvlan { mode, flag }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_and_shown() {
        let l3 = Mode::Ipvlan {
            ipvlan: IpvlanMode::L3,
            flag: IpvlanFlag::Private,
        };
        for (mode, json, shown) in [
            (MacvlanMode::Bridge.into(), r#""bridge""#, "bridge"),
            (MacvlanMode::Private.into(), r#""private""#, "private"),
            (l3, r#""l3 private""#, "l3 private"),
        ] {
            assert_eq!(serde_json::to_string(&mode).unwrap(), json);
            assert_eq!(serde_json::from_str::<Mode>(json).unwrap(), mode);
            assert_eq!(mode.to_string(), shown);
        }
        assert!(l3.is_l3() && l3.is_ipvlan());
        for bad in [
            r#""bridges""#,
            r#""l4""#,
            r#""l3 bridges""#,
            r#""bridge vepa""#,
        ] {
            let error = serde_json::from_str::<Mode>(bad).unwrap_err().to_string();
            assert!(error.contains("unknown mode"), "{error}");
        }
    }
}
