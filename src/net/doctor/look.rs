//! The checks that only look.

use std::path::{Path, PathBuf};

use super::{Finding, KERNEL_RELEASE, Patient, Use, Verdict, value};
use crate::netlink::link::{BondMode, Link, LinkKind};
use crate::netlink::nft::Nft;
use crate::netlink::nl80211::{self, Wifi};
use crate::netlink::obstacle::{self, Obstacle};
use crate::sys::netns::Host;

/// The oldest kernel that can run containers, and the first with the egress
/// hook of nf_tables' netdev family.
const OLDEST: (u32, u32) = (5, 12);
const EGRESS: (u32, u32) = (5, 16);
/// What IPv6 asks of every link (RFC 8200 §5).
const IPV6_MTU: u32 = 1280;

// --- the machine

pub(super) fn kernel() -> Finding {
    match value(KERNEL_RELEASE) {
        Some(release) => judge_kernel(&release),
        None => Finding::unknown(format!("{KERNEL_RELEASE} cannot be read")),
    }
}

fn judge_kernel(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    match (number(), number()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => {
            Finding::problem(format!("{release} is too old")).advise("Linux 5.12 is needed")
        }
        (Some(major), Some(minor)) if (major, minor) < EGRESS => Finding::warning(format!(
            "{release} has no egress hook: published ports take the slower proxy"
        ))
        .advise("Linux 5.16 has it"),
        (Some(_), Some(_)) => Finding::ok(release),
        _ => Finding::unknown(format!("{release} is no version that one can compare")),
    }
}

pub(super) fn nf_tables() -> Finding {
    match Nft::host().and_then(|mut nft| nft.generation()) {
        Ok(generation) => Finding::ok(format!("there, generation {generation}")),
        Err(error) if error.is_errno(libc::EPERM) => Finding::of_error(Verdict::Unknown, error),
        Err(error) => Finding::of_error(Verdict::Warning, error),
    }
}

// --- a link

pub(super) fn missing(name: &str, uses: &[Use], links: &[Link<Host>]) -> Finding {
    if uses.iter().any(|u| u.made) {
        return Finding::ok("not there yet; dockless makes it when a container needs it");
    }
    let names = links.iter().map(|l| l.name.as_str());
    // No parent can be the loopback link.
    let names: Vec<&str> = names.filter(|name| *name != "lo").collect();
    Finding::problem(format!("there is no link {name}")).advise(format!(
        "use one of those that are there: {}",
        names.join(", ")
    ))
}

fn kind(link: &Link<Host>) -> &str {
    match &link.kind {
        LinkKind::Macvlan { .. } => "macvlan",
        LinkKind::Macvtap { .. } => "macvtap",
        LinkKind::Ipvlan { .. } => "ipvlan",
        LinkKind::Vlan(_) => "vlan",
        LinkKind::Dummy => "dummy",
        LinkKind::Veth => "veth",
        LinkKind::Bridge => "bridge",
        LinkKind::Bond(_) => "bond",
        LinkKind::Loopback => "loopback",
        LinkKind::Other(kind) if kind.is_empty() => "hardware",
        LinkKind::Other(kind) => kind,
    }
}

/// What kind of link it is, and whether that kind is fit to be a parent.
pub(super) fn link(patient: &mut Patient<'_>) -> Finding {
    let link = &patient.link;
    let name = &link.name;
    if link.hardware != libc::ARPHRD_ETHER {
        let link = name.to_string();
        return Obstacle::NotEthernet { link }.into();
    }
    if obstacle::is_ipvlan(&link.kind) {
        return Finding::problem(format!(
            "{name} is an ipvlan itself: it shares its parent's MAC, and other MACs are not heard"
        ))
        .advise("use its own parent");
    }
    let lower = patient
        .links
        .iter()
        .find(|l| Some(l.index.get()) == link.lower && link.lower_netns.is_none())
        .map_or("a link of another namespace", |l| l.name.as_str());
    let described = match link.mac {
        Some(mac) => format!("{}, MAC {mac}", kind(link)),
        None => kind(link).to_owned(),
    };
    if let LinkKind::Bond(mode) = link.kind {
        return bond(mode, &described);
    }
    match kind(link) {
        "macvlan" | "macvtap" => Finding::warning(format!(
            "{name} is a {} itself; the kernel puts new ones beside it, on {lower}",
            kind(link)
        ))
        .advise("name that one as the parent"),
        "bridge" => Finding::warning(format!(
            "{described}: works, but each broadcast passes the bridge and its netfilter hooks"
        ))
        .advise(
            "where the bridge has one port only, use that link as the parent, without the bridge",
        ),
        _ => Finding::ok(described),
    }
}

/// balance-tlb and balance-alb answer ARP with other MACs than one's own.
fn bond(mode: BondMode, described: &str) -> Finding {
    match mode {
        BondMode::BalanceTlb | BondMode::BalanceAlb => Finding::warning(format!(
            "{described}, mode {mode}, which rewrites MACs: most frames of macvlans get lost"
        ))
        .advise("use active-backup or 802.3ad"),
        mode => Finding::ok(format!("{described}, mode {mode}")),
    }
}

pub(super) fn port(patient: &mut Patient<'_>) -> Finding {
    let master = patient.master();
    match Obstacle::port(&patient.link, &master) {
        Some(obstacle) => obstacle.into(),
        None if patient.link.master.is_some() => {
            Finding::ok(format!("in the VRF {master}, which leaves frames alone"))
        }
        None => Finding::ok("no port of a bridge, bond or switch"),
    }
}

impl Patient<'_> {
    /// Its name, as far as this namespace knows it.
    pub(super) fn master(&self) -> String {
        let number = self.link.master.unwrap_or_default();
        let of_number = |l: &&Link<Host>| l.index.get() == number;
        let link = self.links.iter().find(of_number);
        link.map_or_else(|| format!("number {number}"), |l| l.name.to_string())
    }
}

pub(super) fn wifi(patient: &mut Patient<'_>) -> Finding {
    let ipvlan = |u: &Use| u.alone == Some("ipvlan");
    if !patient.uses.is_empty() && patient.uses.iter().all(ipvlan) {
        return Finding::ok("may be: its networks are ipvlan's");
    }
    let link = &patient.link;
    // Links that a driver of the kernel's own makes have a kind.
    if !matches!(&link.kind, LinkKind::Other(kind) if kind.is_empty()) {
        return Finding::ok(format!("no: it is a {}", kind(link)));
    }
    match nl80211::interface(link.index) {
        Ok(Some(wifi)) => judge_wifi(wifi, link),
        told => judge_wifi_by_sysfs(Path::new("/sys"), link, told.is_ok()),
    }
}

/// As the kernel judges whether it may be a bridge's port, for the same reason
/// (IFF_DONT_BRIDGE, net/wireless/util.c).
fn judge_wifi(wifi: Wifi, link: &Link<Host>) -> Finding {
    let name = link.name.to_string();
    match wifi {
        Wifi::Station => Obstacle::Wifi { link: name }.into(),
        Wifi::AdHoc => Obstacle::AdHoc { link: name }.into(),
        Wifi::FourAddressStation => Finding::ok(
            "a station with four addresses, which an access point that does so takes from any MAC",
        ),
        Wifi::AccessPoint => Finding::ok("an access point's, whose stations hear any MAC of it"),
        Wifi::Mesh => Finding::ok("in a mesh, which carries frames from and to any MAC"),
        Wifi::Other(number) => Finding::unknown(format!(
            "an interface of nl80211's type {number}, of which it is not known which MACs it carries"
        )),
    }
}

/// Where nl80211 does not answer, or does not know the link (drivers that are
/// older than it).
fn judge_wifi_by_sysfs(sys: &Path, link: &Link<Host>, is_unknown_to_nl80211: bool) -> Finding {
    match sysfs(sys, link) {
        Some(dir) if dir.join("wireless").exists() || dir.join("phy80211").exists() => {
            let link = link.name.to_string();
            Finding {
                found: format!(
                    "{link} is Wi-Fi, and if it is a station (nl80211 does not say), the access point takes frames from its own MAC only"
                ),
                ..Obstacle::Wifi { link }.into()
            }
        }
        None if !is_unknown_to_nl80211 => {
            Finding::unknown("/sys does not show this network namespace")
        }
        _ => Finding::ok("no"),
    }
}

/// The link's folder, if /sys is that of our namespace: it belongs to the one
/// in which it was mounted.
fn sysfs(sys: &Path, link: &Link<Host>) -> Option<PathBuf> {
    let dir = sys.join("class/net").join(link.name.as_str());
    let is = |file: &str, wanted: String| value(dir.join(file)) == Some(wanted);
    (is("ifindex", link.index.get().to_string()) && is("address", link.mac?.to_string()))
        .then_some(dir)
}

pub(super) fn carrier(patient: &mut Patient<'_>) -> Finding {
    let link = patient.link.name.to_string();
    match (patient.link.up, patient.link.carrier) {
        (false, _) => Obstacle::Down { link }.into(),
        (true, false) => Obstacle::NoCarrier { link }.into(),
        (true, true) => Finding::ok("up, with carrier"),
    }
}

pub(super) fn mtu(patient: &mut Patient<'_>) -> Finding {
    let (name, mtu) = (&patient.link.name, patient.link.mtu);
    let wants = |wanted: Option<u32>| wanted.is_some_and(|wanted| wanted > mtu);
    if let Some(network) = patient.uses.iter().find(|u| wants(u.mtu)) {
        let wanted = network.mtu.unwrap_or_default();
        return Finding::problem(format!(
            "{mtu}, and network {} wants {wanted}",
            network.name
        ))
        .advise(format!("ip link set {name} mtu {wanted}"));
    }
    if mtu < IPV6_MTU {
        return Finding::warning(format!("{mtu} is less than IPv6 needs"))
            .advise(format!("ip link set {name} mtu {IPV6_MTU}, or more"));
    }
    Finding::ok(mtu.to_string())
}

/// Nothing here must be on; but some settings make the host answer for the
/// containers' addresses, or not for its own.
pub(super) fn forwarding(patient: &mut Patient<'_>) -> Finding {
    let name = &patient.link.name;
    let number = |path: &str| -> u32 {
        let text = value(Path::new("/proc/sys/net").join(path));
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    // The kernel takes the greater of the two.
    let set = |what: &str| {
        number(&format!("ipv4/conf/all/{what}")).max(number(&format!("ipv4/conf/{name}/{what}")))
    };
    let forwards = number(&format!("ipv4/conf/{name}/forwarding")) != 0;
    if forwards && set("proxy_arp") != 0 {
        return Finding::warning(
            "proxy_arp is on: the host answers ARP for what it routes elsewhere, which may be a container's address",
        )
        .advise(format!(
            "sysctl net.ipv4.conf.all.proxy_arp=0 net.ipv4.conf.{name}.proxy_arp=0"
        ));
    }
    if set("arp_ignore") != 0 && patient.uses.iter().any(|u| u.host_access) {
        return Finding::warning(
            "arp_ignore is on: with host access, containers reach the address of --ip only",
        )
        .advise(format!(
            "sysctl net.ipv4.conf.all.arp_ignore=0 net.ipv4.conf.{name}.arp_ignore=0"
        ));
    }
    if patient.link.kind == LinkKind::Bridge && number("bridge/bridge-nf-call-iptables") != 0 {
        return Finding::warning(
            "the host's iptables see what passes this bridge, and may drop it",
        )
        .advise("sysctl net.bridge.bridge-nf-call-iptables=0");
    }
    Finding::ok(if forwards {
        "on; macvlan does not need it"
    } else {
        "off; macvlan does not need it"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        let verdict = |release| judge_kernel(release).verdict;
        assert_eq!(verdict("6.18.44"), Verdict::Ok);
        assert_eq!(verdict("5.16.0-rc1"), Verdict::Ok);
        assert_eq!(verdict("5.15.0-91-generic"), Verdict::Warning);
        assert_eq!(verdict("5.4.0"), Verdict::Problem);
        assert_eq!(verdict("Plan 9"), Verdict::Unknown);
    }

    /// The loopback link's folder with the files of a Wi-Fi card.
    #[test]
    fn wifi_is_what_sysfs_says() {
        let mut host = crate::netlink::Rtnl::host().unwrap();
        let link = host.link("lo").unwrap().unwrap();
        let sys = tempfile::tempdir().unwrap();
        let dir = sys.path().join("class/net/lo");
        std::fs::create_dir_all(&dir).unwrap();
        let verdict = || judge_wifi_by_sysfs(sys.path(), &link, false).verdict;
        assert_eq!(verdict(), Verdict::Unknown);
        std::fs::write(dir.join("ifindex"), "1\n").unwrap();
        std::fs::write(dir.join("address"), "00:00:00:00:00:00\n").unwrap();
        assert_eq!(verdict(), Verdict::Ok);
        std::fs::create_dir(dir.join("wireless")).unwrap();
        let found = judge_wifi_by_sysfs(sys.path(), &link, true);
        assert_eq!(found.verdict, Verdict::Problem);
        assert!(found.advice.unwrap().contains("ipvlan"));
        // Another namespace's /sys: a link of that name, and not this one.
        std::fs::write(dir.join("ifindex"), "2\n").unwrap();
        assert_eq!(verdict(), Verdict::Unknown);
        // There it is nl80211's word alone.
        let told = judge_wifi_by_sysfs(sys.path(), &link, true);
        assert_eq!(told.verdict, Verdict::Ok);
    }
}
