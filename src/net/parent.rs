//! Parents: the links that containers' links stand on. A VLAN sub-interface
//! that is missing is made, and so is a dummy where no parent is named.
//!
//! # Theory of operation
//!
//! `-o` say what is wanted ([`Wish`]); with the host's links that becomes the
//! parent's name and the list of what dockless makes for it ([`Wish::plan`],
//! pure): an outer VLAN, the inner one on it, or a dummy. The list is kept with
//! the network, so that [`make`] can repeat it: now, and whenever a container
//! starts and the parent is gone (after a reboot all of them are).
//!
//! A link that is there already is used as it is. If dockless has made it (it
//! bears the mark of [`netlink::parent`](crate::netlink::parent)), the new
//! network takes it into its list too: so the last network on it removes it,
//! whichever that is. Nothing else is ever removed, nor what somebody else's
//! link stands on.
//!
//! Rules and phrases: docker-macvlan.md §1.3, §4.1. What Docker does not have:
//! `-o vlan=10`, `-o vlan=10,20` (20 is the inner tag) beside `-o parent`,
//! `-o vlan_proto`, `-o vlan_gvrp`, `-o vlan_mvrp`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::choice::{Choice, View};
use crate::base::{Error, IfName, NetworkId, Result};
use crate::netlink::parent::{GROUP, VlanProto, VlanTag};
use crate::netlink::{Link, LinkKind, Mode, Rtnl};
use crate::sys::netns::Host;

const PARENT: &str = "parent";
const IDS: &str = "vlan";
const PROTO: &str = "vlan_proto";
const GVRP: &str = "vlan_gvrp";
const MVRP: &str = "vlan_mvrp";

/// A link that dockless makes when it is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    pub name: IfName,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Dummy,
    Vlan { base: IfName, tag: VlanTag },
}

/// What `network create` wants of a parent.
#[derive(Debug)]
pub struct Wish {
    kind: &'static str,
    /// `None`: a dummy.
    parent: Option<Choice>,
    /// `-o vlan`, the outer one first.
    ids: Vec<u16>,
    protocol: Option<VlanProto>,
    gvrp: Option<bool>,
    mvrp: Option<bool>,
}

impl Wish {
    pub fn from_options(mode: Mode, options: &BTreeMap<String, String>) -> Result<Self> {
        let given = |key: &str| {
            options
                .get(key)
                .map(String::as_str)
                .filter(|v| !v.is_empty())
        };
        let kind = mode.kind();
        let wish = Self {
            kind,
            parent: given(PARENT).map(Choice::parse).transpose()?,
            ids: given(IDS).map_or(Ok(Vec::new()), vlan_ids)?,
            protocol: given(PROTO).map(protocol).transpose()?,
            gvrp: given(GVRP).map(|v| switch(GVRP, v)).transpose()?,
            mvrp: given(MVRP).map(|v| switch(MVRP, v)).transpose()?,
        };
        let is_lo = |choice: &Choice| choice.names().any(|name| name == "lo");
        if wish.parent.as_ref().is_some_and(is_lo) {
            return Err(Error::invalid(format!(
                "loopback interface is not a valid {kind} parent link"
            ))
            .hint("name an Ethernet interface: `ip link` shows which there are"));
        }
        if wish.parent.is_none() && (!wish.ids.is_empty() || wish.says_more()) {
            return Err(Error::invalid(
                "-o vlan and its like need the link that carries the VLAN: add -o parent=IFNAME",
            ));
        }
        let registers = wish.gvrp == Some(true) || wish.mvrp == Some(true);
        if registers && wish.protocol == Some(VlanProto::Dot1ad) {
            return Err(Error::invalid(
                "GVRP and MVRP announce 802.1Q VLANs alone: leave them out, or vlan_proto=802.1ad",
            ));
        }
        Ok(wish)
    }

    /// More of the VLAN than its number.
    fn says_more(&self) -> bool {
        self.protocol.is_some() || self.gvrp.is_some() || self.mvrp.is_some()
    }

    fn tag(&self, id: u16) -> VlanTag {
        VlanTag {
            id,
            protocol: self.protocol.unwrap_or_default(),
            gvrp: self.gvrp.unwrap_or_default(),
            mvrp: self.mvrp.unwrap_or_default(),
        }
    }

    pub fn choice(&self) -> Option<&Choice> {
        self.parent.as_ref()
    }

    /// Whether what is written has to be looked up each time: it is not the
    /// kernel's name of a link.
    pub fn is_followed(&self, view: &View) -> bool {
        let Some(choice) = &self.parent else {
            return false;
        };
        let called_otherwise = |name| view.find(name).is_some_and(|l| l.name.as_str() != name);
        choice.as_name().is_none_or(called_otherwise)
    }

    /// The parent's name, and what is to be made for it.
    pub fn plan(&self, network: &NetworkId, view: &View) -> Result<(IfName, Vec<Made>)> {
        let links = view.links.as_slice();
        let Some(choice) = &self.parent else {
            let prefix = if self.kind == "ipvlan" { "di" } else { "dm" };
            let name = IfName::new(format!("{prefix}-{}", network.short()))?;
            let what = What::Dummy;
            return Ok((name.clone(), vec![Made { name, what }]));
        };
        let picked;
        let parent = match choice.as_name() {
            Some(name) => name,
            None => {
                picked = choice.pick(view)?.ok_or_else(|| choice.missing())?;
                picked.name.as_str()
            }
        };
        let existing = view.find(parent);
        if !self.ids.is_empty() {
            return self.stack(parent, existing, view);
        }
        if let Some(link) = existing {
            self.check(link)?;
            return Ok((link.name.clone(), inherited(link, links)));
        }
        let name = IfName::new(parent)?;
        let (base, id) = sub_interface(parent)?;
        let link = view.find(base).ok_or_else(|| no_base(base))?;
        let tag = self.tag(id);
        if let Some(same) = vlan_on(link, &tag, links) {
            return Err(Error::conflict(format!(
                "VLAN {id} of {base} is there already, as {}",
                same.name
            ))
            .hint(format!("use it: -o parent={}", same.name)));
        }
        let mut made = inherited(link, links);
        let base = IfName::new(base)?;
        made.push(Made {
            name: name.clone(),
            what: What::Vlan { base, tag },
        });
        Ok((name, made))
    }

    /// `-o parent=eth0 -o vlan=10,20`: VLANs that are there are found by what
    /// they are, whatever their names.
    fn stack(
        &self,
        parent: &str,
        existing: Option<&Link<Host>>,
        view: &View,
    ) -> Result<(IfName, Vec<Made>)> {
        let links = view.links.as_slice();
        let base = existing.ok_or_else(|| no_base(parent))?;
        let parent = base.name.as_str();
        let mut below = Some(base);
        let mut made = inherited(base, links);
        let mut name = base.name.clone();
        for (depth, id) in self.ids.iter().enumerate() {
            let tag = match depth {
                0 => self.tag(*id),
                _ => VlanTag::of(*id),
            };
            below = below.and_then(|link| vlan_on(link, &tag, links));
            let base = name;
            if let Some(link) = below {
                if depth == 0 {
                    self.check(link)?;
                }
                name = link.name.clone();
                if link.group != GROUP {
                    continue;
                }
            } else {
                name = name_of_vlan(parent, &self.ids[..=depth])?;
                if let Some(other) = view.find(name.as_str()) {
                    return Err(Error::conflict(format!(
                        "there is a link {} already, and it is not VLAN {id} of {base}",
                        other.name
                    )));
                }
            }
            made.push(Made {
                name: name.clone(),
                what: What::Vlan { base, tag },
            });
        }
        Ok((name, made))
    }

    /// A link that is there cannot be made to what else was asked for.
    fn check(&self, link: &Link<Host>) -> Result<()> {
        if !self.says_more() {
            return Ok(());
        }
        let LinkKind::Vlan(tag) = &link.kind else {
            return Err(Error::invalid(format!(
                "-o {PROTO}, {GVRP} and {MVRP} are about a VLAN, and {} is none",
                link.name
            ))
            .hint("give its number too: -o vlan=ID"));
        };
        let same = self.protocol.is_none_or(|wanted| wanted == tag.protocol)
            && self.gvrp.is_none_or(|wanted| wanted == tag.gvrp)
            && self.mvrp.is_none_or(|wanted| wanted == tag.mvrp);
        if same {
            return Ok(());
        }
        let on = |is: bool| if is { "on" } else { "off" };
        Err(Error::conflict(format!(
            "{} is there already, and otherwise: {PROTO}={} {GVRP}={} {MVRP}={}",
            link.name,
            tag.protocol,
            on(tag.gvrp),
            on(tag.mvrp)
        )))
    }
}

/// The name that the kernel has for a link, which may be called by an altname.
pub fn known_as<'a>(view: &'a View, name: &'a IfName) -> &'a IfName {
    view.find(name.as_str()).map_or(name, |link| &link.name)
}

/// The VLAN of `base` with this number and protocol.
fn vlan_on<'a>(
    base: &Link<Host>,
    tag: &VlanTag,
    links: &'a [Link<Host>],
) -> Option<&'a Link<Host>> {
    links.iter().find(|link| {
        let is_tag = matches!(&link.kind, LinkKind::Vlan(theirs)
            if (theirs.id, theirs.protocol) == (tag.id, tag.protocol));
        is_tag && link.lower == Some(base.index.get()) && link.lower_netns.is_none()
    })
}

/// What dockless has made of a link that is there, and of those below it.
fn inherited(link: &Link<Host>, links: &[Link<Host>]) -> Vec<Made> {
    if link.group != GROUP {
        return Vec::new();
    }
    let below = links
        .iter()
        .find(|below| Some(below.index.get()) == link.lower);
    let (mut made, what) = match (&link.kind, below) {
        (LinkKind::Dummy, _) => (Vec::new(), What::Dummy),
        (LinkKind::Vlan(tag), Some(below)) => (
            inherited(below, links),
            What::Vlan {
                base: below.name.clone(),
                tag: *tag,
            },
        ),
        _ => return Vec::new(),
    };
    made.push(Made {
        name: link.name.clone(),
        what,
    });
    made
}

fn no_base(name: &str) -> Error {
    Error::invalid(format!(
        "-o parent interface was not found on the host: {name}"
    ))
    .hint("`ip link` or /sys/class/net shows what there is")
}

/// `eth0.10`, by Docker's rules and in its words.
fn sub_interface(name: &str) -> Result<(&str, u16)> {
    let Some((base, id)) = name.split_once('.') else {
        return Err(Error::invalid(format!(
            "invalid subinterface vlan name {name}, example formatting is eth0.10"
        ))
        .hint(format!(
            "there is no link {name}; `ip link` or /sys/class/net shows what there is"
        )));
    };
    if id.contains('.') {
        return Err(Error::invalid(format!(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, received: {name}"
        ))
        .hint("two tags: -o parent=eth0 -o vlan=10,20"));
    }
    Ok((base, vlan_id(id)?))
}

fn vlan_id(text: &str) -> Result<u16> {
    let id: i64 = text.parse().map_err(|_| {
        Error::invalid(format!(
            "unable to parse a valid vlan id from: {text} (ex. eth0.10 for vlan 10)"
        ))
    })?;
    u16::try_from(id)
        .ok()
        .filter(|id| (1..=4094).contains(id))
        .ok_or_else(|| Error::invalid(format!("vlan id must be between 1-4094, received: {id}")))
}

fn vlan_ids(text: &str) -> Result<Vec<u16>> {
    let ids: Vec<u16> = text
        .split(',')
        .map(|id| vlan_id(id.trim()))
        .collect::<Result<_>>()?;
    if ids.len() > 2 {
        return Err(Error::invalid(format!(
            "-o {IDS}={text}: a frame has two VLAN tags at most"
        )));
    }
    Ok(ids)
}

fn protocol(text: &str) -> Result<VlanProto> {
    match text.to_ascii_lowercase().as_str() {
        "802.1q" => Ok(VlanProto::Dot1q),
        "802.1ad" => Ok(VlanProto::Dot1ad),
        _ => Err(Error::invalid(format!(
            "requested {PROTO} '{text}' is not valid, choose 802.1Q or 802.1ad"
        ))),
    }
}

fn switch(key: &str, text: &str) -> Result<bool> {
    match text {
        "on" | "true" | "1" => Ok(true),
        "off" | "false" | "0" => Ok(false),
        _ => Err(Error::invalid(format!(
            "-o {key} is on or off, not '{text}'"
        ))),
    }
}

/// `eth0.10.20`; where that is too long for the kernel, with a hash of the
/// base's name in its place, which fits whatever the numbers are.
fn name_of_vlan(base: &str, ids: &[u16]) -> Result<IfName> {
    let tail: String = ids.iter().map(|id| format!(".{id}")).collect();
    IfName::new(format!("{base}{tail}")).or_else(|_| {
        // FNV-1a: a name is spread out, not hidden.
        let hash = base.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        IfName::new(format!("v{:04x}{tail}", hash & 0xffff))
    })
}

/// Makes those that are missing, in the order of the list.
pub fn make(host: &mut Rtnl<Host>, made: &[Made]) -> Result<()> {
    for link in made {
        if host.link(link.name.as_str())?.is_some() {
            continue;
        }
        let (outcome, kind) = match &link.what {
            What::Dummy => (host.dummy(&link.name), "dummy"),
            What::Vlan { base, tag } => {
                let below = host.link(base.as_str())?;
                let below = below.ok_or_else(|| no_base(base.as_str()))?;
                (host.vlan(&link.name, below.index, tag), "vlan")
            }
        };
        outcome.map_err(|error| {
            let text = format!(
                "failed to create {} {kind} link: {}",
                link.name, error.cause
            );
            let failed = Error::conflict(text);
            match error.hint {
                Some(hint) => failed.hint(hint),
                None => failed,
            }
        })?;
    }
    Ok(())
}

/// Removes a link that dockless has made, unless somebody's link stands on it.
/// Absent is fine.
pub fn remove(host: &mut Rtnl<Host>, name: &IfName) -> Result<()> {
    let link = host.link(name.as_str())?;
    let Some(link) = link.filter(|link| link.group == GROUP && link.name == *name) else {
        return Ok(());
    };
    let mut links = host.links()?.into_iter();
    if links.any(|l| l.lower == Some(link.index.get()) && l.lower_netns.is_none()) {
        return Ok(());
    }
    host.delete_link(link.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(list: &[(&str, &str)]) -> Result<(IfName, Vec<Made>)> {
        let options = list
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let mode = crate::netlink::MacvlanMode::Bridge.into();
        let network = NetworkId::from_bytes([0xab; 32]);
        Wish::from_options(mode, &options)?.plan(&network, &View::default())
    }

    #[test]
    fn no_parent_is_a_dummy() {
        let (name, made) = wish(&[]).unwrap();
        assert_eq!(name.as_str(), "dm-abababababab");
        assert_eq!(
            made,
            [Made {
                name,
                what: What::Dummy
            }]
        );
    }

    #[test]
    fn refused_as_docker_does() {
        for (list, phrase) in [
            (
                &[("parent", "lo")][..],
                "loopback interface is not a valid macvlan parent link",
            ),
            (
                &[("parent", "foo")],
                "invalid subinterface vlan name foo, example formatting is eth0.10",
            ),
            (
                &[("parent", "foo.10")],
                "-o parent interface was not found on the host: foo",
            ),
            (
                &[("parent", "eth1.4095")],
                "vlan id must be between 1-4094, received: 4095",
            ),
            (
                &[("parent", "eth1.x")],
                "unable to parse a valid vlan id from: x",
            ),
            (
                &[("parent", "eth1.1.2")],
                "required interface name format is: name.vlan_id",
            ),
            (&[("vlan", "10")], "add -o parent=IFNAME"),
            (
                &[("parent", "eth1"), ("vlan", "10")],
                "-o parent interface was not found on the host: eth1",
            ),
            (
                &[("parent", "eth1"), ("vlan", "10,0")],
                "vlan id must be between 1-4094, received: 0",
            ),
            (
                &[("parent", "eth1"), ("vlan", "1,2,3")],
                "two VLAN tags at most",
            ),
            (
                &[("parent", "eth1.1"), ("vlan_proto", "802.1x")],
                "requested vlan_proto '802.1x' is not valid",
            ),
            (
                &[
                    ("parent", "eth1.1"),
                    ("vlan_proto", "802.1ad"),
                    ("vlan_gvrp", "on"),
                ],
                "announce 802.1Q VLANs alone",
            ),
            (
                &[("parent", "eth1.1"), ("vlan_mvrp", "yes")],
                "-o vlan_mvrp is on or off, not 'yes'",
            ),
        ] {
            let text = wish(list).unwrap_err().to_string();
            assert!(text.contains(phrase), "{text}");
        }
    }

    #[test]
    fn names_fit() {
        let name = |base, ids: &[u16]| name_of_vlan(base, ids).unwrap().to_string();
        assert_eq!(name("eth0", &[10]), "eth0.10");
        assert_eq!(name("eno1", &[1000, 2000]), "eno1.1000.2000");
        let long = name("enp129s0f0np0", &[4000, 4001]);
        assert_eq!(long.len(), IfName::MAX);
        assert_ne!(long, name("enp129s0f1np1", &[4000, 4001]));
    }

    #[test]
    fn leading_zeros_are_a_name_s_own() {
        assert_eq!(sub_interface("eth1.010").unwrap(), ("eth1", 10));
        assert_eq!(sub_interface("lo.10").unwrap(), ("lo", 10));
        assert!(sub_interface("lo:10").is_err());
    }
}
