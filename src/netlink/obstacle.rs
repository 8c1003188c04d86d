//! What keeps a link from being a good parent, and what to do about it: the
//! same words in the hint of an error and in what `doctor` says.

use std::fmt;

use super::link::{Link, LinkKind};
use crate::sys::netns::Place;

/// A reason why containers do not get on the LAN through a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// Its frames go to a bridge, bond, team or Open vSwitch.
    Port {
        link: String,
        kind: String,
        master: String,
    },
    /// Somebody out of sight has its rx handler.
    Taken {
        link: String,
    },
    NotEthernet {
        link: String,
    },
    /// macvlan and ipvlan each want all of its frames.
    OtherKind {
        link: String,
        holder: String,
        kind: &'static str,
    },
    Wifi {
        link: String,
    },
    /// Wi-Fi without an access point.
    AdHoc {
        link: String,
    },
    Down {
        link: String,
    },
    NoCarrier {
        link: String,
    },
    NoDriver {
        kind: &'static str,
    },
    /// CAP_NET_ADMIN over the link's namespace is missing.
    NoRights {
        link: String,
    },
    PassthruElsewhere {
        link: String,
    },
}

impl Obstacle {
    /// The master that takes the link's frames, if it has one. (A VRF takes
    /// packets, not frames: macvlans do not mind it.)
    pub fn port<P: Place>(link: &Link<P>, master: &str) -> Option<Self> {
        let kind = link.master_kind.as_deref().unwrap_or("master");
        (link.master.is_some() && kind != "vrf").then(|| Self::Port {
            link: link.name.to_string(),
            kind: kind.to_owned(),
            master: master.to_owned(),
        })
    }

    /// ipvlan links above it, as far as this namespace sees them.
    pub fn ipvlan<P: Place>(link: &Link<P>, links: &[Link<P>]) -> Option<Self> {
        let holder = above(link, links).find(|l| is_ipvlan(&l.kind))?;
        Some(Self::OtherKind {
            link: link.name.to_string(),
            holder: format!("{} (ipvlan)", holder.name),
            kind: "macvlan",
        })
    }

    /// The cause.
    pub fn found(&self) -> String {
        match self {
            Self::Port { link, kind, master } => format!("{link} is a port of the {kind} {master}"),
            Self::Taken { link } => format!(
                "something else (ipvlan, a bond or team, Open vSwitch) already takes all of {link}'s frames"
            ),
            Self::NotEthernet { link } => format!("{link} is not an Ethernet interface"),
            Self::OtherKind { link, holder, kind } => {
                format!("{link} carries {holder} already, and cannot carry {kind} beside it")
            }
            Self::Wifi { link } => format!(
                "{link} is a Wi-Fi station, and an access point takes frames from a station's own MAC only"
            ),
            Self::AdHoc { link } => format!(
                "{link} is in an ad-hoc Wi-Fi network, where each machine hears its own MAC only"
            ),
            Self::Down { link } => format!("{link} is down"),
            Self::NoCarrier { link } => format!("{link} is up and has no carrier"),
            Self::NoDriver { kind } => format!("this kernel has no {kind} driver loaded"),
            Self::NoRights { link } => {
                format!("it needs CAP_NET_ADMIN over the namespace of {link}")
            }
            Self::PassthruElsewhere { link } => format!(
                "does a passthru macvlan in another network namespace have {link} for itself?"
            ),
        }
    }

    /// What to do.
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Port { kind, .. } if kind == "openvswitch" => {
                "give the switch an internal port and use that as the parent: ovs-vsctl add-port \
                 BRIDGE NAME -- set interface NAME type=internal"
                    .to_owned()
            }
            Self::Port { master, .. } => format!("use {master} as the parent"),
            Self::Taken { link } => format!("dockless doctor {link} lists what it can see"),
            Self::NotEthernet { .. } => "use one that `ip link` shows as link/ether".to_owned(),
            Self::OtherKind { .. } => "remove that first, or use another parent".to_owned(),
            Self::Wifi { link } => format!(
                "use a wired parent, or ipvlan, which has no MACs of its own (or, where the access \
                 point takes four addresses, too: iw dev {link} set 4addr on)"
            ),
            Self::AdHoc { .. } => {
                "use a wired parent, or ipvlan, which has no MACs of its own".to_owned()
            }
            Self::Down { link } => format!("ip link set {link} up"),
            Self::NoCarrier { .. } => {
                "look after the cable, the switch's port, or the virtual link's other end"
                    .to_owned()
            }
            Self::NoDriver { kind } => format!("try \"modprobe {kind}\""),
            Self::NoRights { .. } => "run it as root".to_owned(),
            Self::PassthruElsewhere { .. } => return None,
        })
    }
}

/// The links of this namespace that are stacked on `link`.
pub fn above<'a, P: Place>(
    link: &Link<P>,
    links: &'a [Link<P>],
) -> impl Iterator<Item = &'a Link<P>> {
    let index = link.index.get();
    links
        .iter()
        .filter(move |l| l.lower == Some(index) && l.lower_netns.is_none())
}

pub fn is_ipvlan(kind: &LinkKind) -> bool {
    matches!(kind, LinkKind::Ipvlan { .. })
        || matches!(kind, LinkKind::Other(kind) if kind == "ipvtap")
}

/// As a hint.
impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.found())?;
        match self.advice() {
            Some(advice) => write!(f, ": {advice}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_cause_and_remedy() {
        let link = "eth1".to_owned();
        assert_eq!(
            Obstacle::Down { link }.to_string(),
            "eth1 is down: ip link set eth1 up"
        );
        let port = |kind: &str| Obstacle::Port {
            link: "eth1".into(),
            kind: kind.into(),
            master: "ovs-system".into(),
        };
        assert!(
            port("bridge")
                .to_string()
                .ends_with("use ovs-system as the parent")
        );
        // That name is the datapath's, no link for packets.
        assert!(port("openvswitch").to_string().contains("type=internal"));
    }
}
