//! The checks that try: a trial link, and ARP questions.
//!
//! All questions are asked in the name of 0.0.0.0 (RFC 5227 probes): a host
//! answers them for its own address and learns nothing from them. So those from
//! the throw-away MAC and those from the link's own differ in the MAC alone.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetFrame};

use super::{Finding, KERNEL_RELEASE, Patient, Verdict, dhcp, value};
use crate::base::{Error, IfName, MacAddr, Result, Subject};
use crate::netlink::link::{Link, LinkKind};
use crate::netlink::obstacle::{self, Obstacle};
use crate::netlink::route::Configure;
use crate::netlink::{MacvlanMode, NewLink, Rtnl};
use crate::sys::arp;
use crate::sys::netns::{Host, Netns, Sandbox};
use crate::sys::sysctl::{Family, NetSysctl};
use crate::sys::{random, raw};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
/// Switches and sleepy hosts answer within milliseconds; a question may be lost.
const ROUND: Duration = Duration::from_millis(300);
const ROUNDS: u32 = 3;

/// What was tried.
#[derive(Debug)]
pub(super) struct Tries {
    trial: Result<Trial>,
    /// Who answered the link's own MAC; or why nobody was asked.
    heard: std::result::Result<Vec<Answer>, Finding>,
    dhcp: std::result::Result<dhcp::Client, Finding>,
}

/// `mac` says that it has `ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) ip: Ipv4Addr,
    pub(super) mac: MacAddr,
}

impl Tries {
    pub(super) fn begin(patient: &Patient<'_>, host: &mut Rtnl<Host>) -> Self {
        let trial = Trial::make(&patient.link, host);
        match opened(patient) {
            Ok((asker, client)) => Self {
                trial,
                heard: asker.sweep(&patient.addresses()).map_err(unable),
                dhcp: Ok(client),
            },
            Err(why) => Self {
                trial,
                heard: Err(why.clone()),
                dhcp: Err(why),
            },
        }
    }
}

impl Tries {
    /// Deletes the trial link and waits for that: with its namespace it would
    /// go too, but some 30 ms later, and until then a link without a filter
    /// for MACs (veth) stays promiscuous.
    pub(super) fn end(self) {
        if let Ok(mut trial) = self.trial {
            let index = trial.index;
            // If it fails, the namespace takes the link along all the same.
            let _ = trial.rtnl.delete_link(index);
        }
    }
}

/// The DISCOVER goes out first: servers take seconds to look whether the
/// address that they offer is free.
fn opened(patient: &Patient<'_>) -> std::result::Result<(Asker, dhcp::Client), Finding> {
    let link = &patient.link;
    if Obstacle::port(link, "").is_some() {
        let master = patient.master();
        return Err(Finding::unknown(format!(
            "its frames go to {master}: nothing was asked"
        )));
    }
    let mac = match link.mac {
        Some(mac) if link.hardware == libc::ARPHRD_ETHER => mac,
        _ => return Err(Finding::unknown("not an Ethernet link: nothing was asked")),
    };
    if !(link.up && link.carrier) {
        return Err(Finding::unknown("no carrier: nothing was asked"));
    }
    let index = link.index.get();
    let open = |ethertype| {
        let flags = SockFlag::SOCK_NONBLOCK.bits() | libc::SOCK_RAW;
        let socket = raw::socket(libc::AF_PACKET, flags, 0)
            .map_err(|e| Error::sys("open packet socket on", &link.name, e))?;
        bound(socket, ethertype, index, &link.name)
    };
    let client = open(ETH_P_IP).and_then(|socket| dhcp::Client::begin(socket, mac));
    let client = client.map_err(unable)?;
    let socket = open(ETH_P_ARP).map_err(unable)?;
    Ok((Asker { socket, mac }, client))
}

fn bound(socket: OwnedFd, ethertype: u16, index: u32, name: &IfName) -> Result<OwnedFd> {
    let failed = |e| Error::sys("bind packet socket to", name, e);
    let index = i32::try_from(index).map_err(|_| failed(nix::Error::ENODEV))?;
    raw::bind_packet(socket.as_fd(), ethertype, index).map_err(failed)?;
    Ok(socket)
}

fn unable(error: Error) -> Finding {
    match error.errno() {
        Some(libc::EPERM | libc::EACCES) if error.hint.is_none() => Finding::of_error(
            Verdict::Unknown,
            error.hint("it needs CAP_NET_RAW: run it as root"),
        ),
        _ => Finding::of_error(Verdict::Unknown, error),
    }
}

impl Patient<'_> {
    /// Its own addresses, its containers' and the neighbours'.
    fn addresses(&self) -> Vec<Ipv4Addr> {
        let containers = self.uses.iter().flat_map(|u| &u.containers).map(|c| c.0);
        let own = self.own.iter().copied();
        let mut all: Vec<Ipv4Addr> = own.chain(containers).collect();
        all.extend(&self.neighbours);
        all
    }
}

// --- the trial link

/// A macvlan with a MAC that nobody has, in a namespace that nobody knows: the
/// kernel removes both when this is dropped, or when the process dies.
#[derive(Debug)]
struct Trial {
    netns: Netns<Sandbox>,
    rtnl: Rtnl<Sandbox>,
    index: crate::netlink::Ifindex<Sandbox>,
    name: IfName,
    mac: MacAddr,
}

impl Trial {
    fn make(link: &Link<Host>, host: &mut Rtnl<Host>) -> Result<Self> {
        let (netns, sysctl) = Netns::create_with(NetSysctl::open)?;
        let mut rtnl = Rtnl::sandbox(&netns)?;
        if sysctl.has_ipv6() {
            // Else the link would solicit routers when it comes up.
            sysctl.write(Family::Ipv6, "conf/all/disable_ipv6", "1")?;
        }
        let [a, b, c, d] = random::bytes()?;
        let mac = MacAddr([0x02, 0x64, a, b, c, d]);
        let name = IfName::new("eth0")?;
        let new = NewLink {
            name: &name,
            lower: link.index,
            // Hears the LAN and none of the other macvlans.
            mode: MacvlanMode::Private.into(),
            sources: &[],
            mac: Some(mac),
            mtu: None,
            broadcast: crate::netlink::Broadcast::default(),
        };
        let index = host.link_into(&new, &netns, &mut rtnl)?;
        Ok(Self {
            netns,
            rtnl,
            index,
            name,
            mac,
        })
    }

    fn asker(&mut self) -> Result<Asker> {
        let up = Configure {
            up: true,
            ..Configure::default()
        };
        self.rtnl.configure(self.index, &up)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = self
            .netns
            .socket(AddressFamily::Packet, SockType::Raw, flags, 0)?;
        let socket = bound(socket, ETH_P_ARP, self.index.get(), &self.name)?;
        Ok(Asker {
            socket,
            mac: self.mac,
        })
    }
}

/// Is the driver there?
pub(super) fn macvlan(patient: &mut Patient<'_>) -> Finding {
    let Some(tries) = &patient.tries else {
        return driver(patient, "not tried");
    };
    match &tries.trial {
        Ok(_) => Finding::ok("a trial link could be made"),
        Err(error) => match error.errno() {
            Some(libc::EOPNOTSUPP) => Obstacle::NoDriver { kind: "macvlan" }.into(),
            Some(libc::EBUSY | libc::EINVAL) => Finding::ok("the driver is there"),
            Some(libc::EPERM) => driver(patient, "not tried: that needs root"),
            _ => Finding::of_error(Verdict::Problem, error.clone()),
        },
    }
}

/// What can be seen without trying.
fn driver(patient: &Patient<'_>, why: &str) -> Finding {
    let is_macvlan = |l: &Link<Host>| matches!(l.kind, LinkKind::Macvlan { .. });
    if Path::new("/sys/module/macvlan").exists() || patient.links.iter().any(is_macvlan) {
        return Finding::ok("the driver is loaded");
    }
    let release = value(KERNEL_RELEASE).unwrap_or_default();
    let list = |file| value(format!("/lib/modules/{release}/{file}"));
    let lists = ["modules.dep", "modules.builtin"].map(list);
    let mut known = lists.iter().flatten().peekable();
    if known.peek().is_none() {
        return Finding::unknown(why);
    }
    if known.any(|list| list.contains("/macvlan.ko")) {
        return Finding::ok("the driver can be loaded");
    }
    Obstacle::NoDriver { kind: "macvlan" }.into()
}

/// Who gets the frames that arrive on the link? One handler has room.
pub(super) fn receiver(patient: &mut Patient<'_>) -> Finding {
    let link = patient.link.name.to_string();
    if Obstacle::port(&patient.link, "").is_some() {
        return Finding::problem(format!("{} takes all frames", patient.master()));
    }
    if patient.link.hardware != libc::ARPHRD_ETHER {
        return Finding::unknown("not tried");
    }
    if let Some((network, what)) = patient.uses.iter().find_map(|u| Some((&u.name, u.alone?))) {
        return Finding::ok(format!("for network {network} ({what})"));
    }
    if let Some(obstacle) = Obstacle::ipvlan(&patient.link, &patient.links) {
        return obstacle.into();
    }
    let passthru = LinkKind::Macvlan {
        mode: MacvlanMode::Passthru,
    };
    let ours = patient.uses.iter().flat_map(|u| &u.runs);
    let mut beside: Vec<String> = ours.map(|name| format!("container {name}")).collect();
    for child in obstacle::above(&patient.link, &patient.links) {
        if child.kind == passthru {
            let found = format!("{} has {link} for itself (mode passthru)", child.name);
            return Finding::problem(found).advise("remove it, or use another parent");
        }
        if matches!(
            child.kind,
            LinkKind::Macvlan { .. } | LinkKind::Macvtap { .. }
        ) {
            beside.push(child.name.to_string());
        }
    }
    match patient.tries.as_ref().map(|tries| &tries.trial) {
        Some(Err(error)) if error.is_errno(libc::EBUSY) => Finding::problem(
            Obstacle::Taken { link }.found(),
        )
        .advise("`ip -d link` in the other network namespaces shows ipvlans; use another parent"),
        // The trial link's name is nobody's: the hint says what it is about.
        Some(Err(error)) if error.is_errno(libc::EINVAL) => match &error.hint {
            Some(hint) => Finding::problem(hint.clone()),
            None => Finding::of_error(Verdict::Problem, error.clone()),
        },
        _ if !beside.is_empty() => Finding::ok(format!("macvlan's, with {}", beside.join(", "))),
        Some(Ok(_)) => Finding::ok("free for macvlan"),
        _ => Finding::unknown("not tried; nothing that is seen here has it"),
    }
}

// --- questions

/// Asks ARP questions on one link.
#[derive(Debug)]
struct Asker {
    socket: OwnedFd,
    mac: MacAddr,
}

impl Asker {
    /// Asks for all, in several rounds since a question may be lost, and
    /// listens to the end: there may be two who answer.
    fn sweep(&self, ips: &[Ipv4Addr]) -> Result<Vec<Answer>> {
        let mut heard = Vec::new();
        for _ in 0..if ips.is_empty() { 0 } else { ROUNDS } {
            for ip in ips {
                self.ask(*ip)?;
            }
            self.listen(&mut heard, |_| false)?;
        }
        heard.retain(|answer| ips.contains(&answer.ip));
        Ok(heard)
    }

    /// Whether somebody answers for `ip`.
    fn is_answered(&self, ip: Ipv4Addr) -> Result<bool> {
        let mut heard = Vec::new();
        for _ in 0..ROUNDS {
            self.ask(ip)?;
            if self.listen(&mut heard, |answer| answer.ip == ip)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn ask(&self, ip: Ipv4Addr) -> Result<()> {
        let frame = arp::question(self.mac, Ipv4Addr::UNSPECIFIED, ip);
        match send(self.socket.as_raw_fd(), &frame, MsgFlags::MSG_NOSIGNAL) {
            // A full queue is a lost question.
            Ok(_) | Err(nix::Error::ENOBUFS | nix::Error::EAGAIN) => Ok(()),
            Err(e) => Err(Error::sys("ask for", Subject::Addr(ip.to_string()), e)),
        }
    }

    /// For one round, or until `enough`.
    fn listen(&self, heard: &mut Vec<Answer>, enough: impl Fn(Answer) -> bool) -> Result<bool> {
        let end = Instant::now() + ROUND;
        let mut bytes = [0; 128];
        while let Some(length) = next(&self.socket, &mut bytes, end)? {
            let Some(answer) = bytes.get(..length).and_then(answer) else {
                continue;
            };
            // A LAN full of answers is not ours to remember.
            if !heard.contains(&answer) && heard.len() < 1024 {
                heard.push(answer);
            }
            if enough(answer) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The length of the next frame; `None` at the end of the time.
pub(super) fn next(socket: &OwnedFd, bytes: &mut [u8], end: Instant) -> Result<Option<usize>> {
    let failed = |e| Error::sys("listen on", "packet socket", e);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        match recv(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => return Ok(Some(length)),
            Err(nix::Error::EAGAIN) => {}
            Err(nix::Error::EINTR) => continue,
            Err(e) => return Err(failed(e)),
        }
        let ms = left.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
        match poll(
            &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

/// A reply. Questions in the name of an address do not count: the link hears
/// its own there.
pub(super) fn answer(bytes: &[u8]) -> Option<Answer> {
    let frame = EthernetFrame::new_checked(bytes).ok()?;
    let packet = ArpPacket::new_checked(frame.payload()).ok()?;
    match ArpRepr::parse(&packet).ok()? {
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: mac,
            source_protocol_addr: ip,
            ..
        } => Some(Answer {
            ip,
            mac: MacAddr(mac.0),
        }),
        _ => None,
    }
}

/// Does anybody else have an address of this host or of its containers, and do
/// two have that of the gateway?
pub(super) fn duplicates(patient: &mut Patient<'_>) -> Finding {
    let heard = match &patient.tries {
        None => return Finding::unknown("not asked"),
        Some(Tries {
            heard: Err(why), ..
        }) => return why.clone(),
        Some(Tries {
            heard: Ok(heard), ..
        }) => heard,
    };
    // The link does not hear itself, nor do its macvlans, unless a switch
    // sends frames back.
    let containers: Vec<Answer> = patient
        .uses
        .iter()
        .flat_map(|u| &u.containers)
        .map(|&(ip, mac)| Answer { ip, mac })
        .collect();
    let ours = |ip: &Ipv4Addr| patient.own.contains(ip) || containers.iter().any(|c| c.ip == *ip);
    let strange = |a: &&Answer| Some(a.mac) != patient.link.mac && !containers.contains(a);
    if let Some(answer) = heard.iter().filter(strange).find(|a| ours(&a.ip)) {
        let Answer { ip, mac } = answer;
        return match patient.links.iter().find(|l| l.mac == Some(*mac)) {
            Some(other) => Finding::warning(format!(
                "this host answers for {ip} on {} too, with {mac}",
                other.name
            ))
            .advise("sysctl net.ipv4.conf.all.arp_ignore=1, or take one of the two off this LAN"),
            None => Finding::problem(format!("{mac} has {ip} too"))
                .advise("give one of the two another address"),
        };
    }
    for ip in &patient.neighbours {
        let macs: Vec<String> = heard
            .iter()
            .filter(|a| a.ip == *ip)
            .map(|a| a.mac.to_string())
            .collect();
        if macs.len() > 1 {
            return Finding::problem(format!("{ip} is had by {}", macs.join(" and "))).advise(
                "find out which of them is the right one, and give the other another address",
            );
        }
    }
    match patient.addresses().as_slice() {
        [] => Finding::unknown("there is no IPv4 address to ask for"),
        _ => Finding::ok("nobody else has the addresses of this link"),
    }
}

/// Does an answer come to a MAC that the switch has never seen?
pub(super) fn foreign_mac(patient: &mut Patient<'_>) -> Finding {
    let (trial, heard) = match &mut patient.tries {
        None => return Finding::unknown("not asked"),
        Some(Tries {
            heard: Err(why), ..
        }) => return why.clone(),
        Some(Tries { trial: Err(_), .. }) => {
            return Finding::unknown("not asked: there is no trial link");
        }
        Some(Tries {
            trial: Ok(trial),
            heard: Ok(heard),
            ..
        }) => (trial, heard),
    };
    let answered = |ip: &&Ipv4Addr| heard.iter().any(|a| a.ip == **ip);
    let Some(ip) = patient.neighbours.iter().find(answered) else {
        let asked: Vec<String> = patient.neighbours.iter().map(ToString::to_string).collect();
        return match asked.as_slice() {
            [] => Finding::unknown("no gateway and no neighbour is known that could be asked")
                .advise("ping another machine of the LAN first"),
            _ => Finding::unknown(format!(
                "nobody answers this link itself: {}",
                asked.join(", ")
            ))
            .advise("ping another machine of the LAN first"),
        };
    };
    match trial.asker().and_then(|asker| asker.is_answered(*ip)) {
        Err(error) => unable(error),
        Ok(true) => Finding::ok(format!(
            "{ip} answers another MAC as it does the link's own"
        )),
        Ok(false) => Finding::problem(format!(
            "{ip} answers this link's own MAC and no other: the switch or hypervisor drops them"
        ))
        .advise(
            "allow them (vSphere: promiscuous mode and forged transmits; Hyper-V: MAC address \
             spoofing; Proxmox: no MAC filter; a switch: no port security), or use ipvlan",
        ),
    }
}

/// Who else gives out addresses?
pub(super) fn dhcp(patient: &mut Patient<'_>) -> Finding {
    let client = match patient.tries.as_ref().map(|tries| &tries.dhcp) {
        None => return Finding::unknown("not asked"),
        Some(Err(why)) => return why.clone(),
        Some(Ok(client)) => client,
    };
    match client.offers() {
        Err(error) => unable(error),
        Ok(offers) => dhcp::judge(&offers, patient.uses),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_and_its_answer() {
        let (mac, ip) = (MacAddr([2, 0x64, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 2, 1));
        let mut bytes = arp::question(mac, Ipv4Addr::UNSPECIFIED, ip);
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            text,
            concat!(
                "ffffffffffff",
                "026400000001",
                "0806",
                "0001",
                "0800",
                "06",
                "04",
                "0001",
                "026400000001",
                "00000000",
                "000000000000",
                "0a000201",
            )
        );
        assert_eq!(answer(&bytes), None);
        // Reply, and who has it in the sender's place.
        bytes[21] = 2;
        bytes[28..32].copy_from_slice(&ip.octets());
        assert_eq!(answer(&bytes), Some(Answer { ip, mac }));
        for length in 0..bytes.len() {
            assert_eq!(answer(&bytes[..length]), None);
        }
    }
}
