//! The guard: a container's root forges frames with every socket it can have,
//! and the LAN and its neighbour see none of them. Judged by packet sockets on
//! the gateway and on a sibling, by `nft -j`, by `inspect`.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use dockless::base::{IfName, MacAddr};
use dockless::lab::Lab;
use dockless::net::guard::{Addrs, Guard, Identity};
use dockless::net::ip6::link_local;
use dockless::netlink::Rtnl;
use dockless::sys::netns::{Netns, Sandbox};
use dockless::sys::raw;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send};
use serde_json::{Value, json};

use crate::harness::{Test, Verdict, failed, slow};
use crate::judge::{self, ask, remove_all, said};

pub(crate) fn tests() -> Vec<Test> {
    let judged = [
        Test::new(forged_frames_stay_inside),
        Test::new(a_forged_answer_never_reaches_a_sibling),
        Test::new(lies_about_the_frame_do_not_help),
        Test::new(nobody_else_can_take_it_away),
        Test::new(published_ports_answer),
        Test::new(networks_come_and_go),
        Test::new(every_mode_has_it),
        Test::new(off_is_off),
        Test::new(without_an_address_the_mac_counts),
        Test::new(neighbours_and_routers_of_ipv6),
        Test::new(a_kernel_without_it),
        Test::new(rules_in_both_directions),
        Test::new(rules_stay_and_let_published_ports_in),
    ];
    let mut all: Vec<Test> = judged
        .into_iter()
        .map(|test| test.needs(&["ip", "nft", "ping"]))
        .collect();
    all.push(Test::new(no_way_around_the_queue).needs(&["python3", "nsenter"]));
    all
}

const IP: [u8; 4] = [10, 0, 2, 5];
const MAC: [u8; 6] = [0x02, 0x42, 10, 0, 2, 5];
const GATEWAY: [u8; 4] = [10, 0, 2, 1];
const GATEWAY_MAC: [u8; 6] = [0x02, 0x1a, 10, 0, 2, 1];
const ALL: [u8; 6] = [0xff; 6];
const LIMIT: Duration = Duration::from_secs(5);

// ---- what the tests say to dockless -----------------------------------------

fn network(name: &str, options: &[&str]) -> Verdict {
    let head = ["network", "create", "-d", "macvlan", "-o", "parent=eth1"];
    said(&[&head[..], options, &[name]].concat()).map(drop)
}

const SUBNET: [&str; 2] = ["--subnet=10.0.2.0/24", "--gateway=10.0.2.1"];

fn run(name: &str, network: &str, flags: &[&str]) -> Verdict {
    let head = ["run", "-d", "--name", name, "--network", network];
    said(&[&head[..], flags, &["tester"]].concat()).map(drop)
}

fn inspect(name: &str, template: &str) -> Verdict<String> {
    Ok(said(&["inspect", "-f", template, name])?.trim().to_owned())
}

fn netns(name: &str) -> Verdict<Netns<Sandbox>> {
    let pid = inspect(name, "{{.State.Pid}}")?;
    let file = File::open(format!("/proc/{pid}/ns/net"))?;
    Ok(Netns::from_fd(OwnedFd::from(file))?)
}

/// State and counters of the link on network `lan`.
fn guard_of(name: &str) -> Verdict<(String, Value)> {
    let link: Value = serde_json::from_str(&inspect(name, "{{json .Dockless.Links.lan}}")?)?;
    let state = link["Guard"].as_str().unwrap_or_default().to_owned();
    Ok((state, link["Dropped"].clone()))
}

// ---- frames -----------------------------------------------------------------

/// A packet socket on a link: the forger's, or a judge's.
struct Tap(OwnedFd);

impl Tap {
    /// `claim`: what the sender says that its frames are (`sll_protocol`).
    fn open(netns: &Netns<Sandbox>, ifname: &str, claim: u16) -> Verdict<Self> {
        let link = Rtnl::sandbox(netns)?.link(ifname)?.unwrap();
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = netns.socket(AddressFamily::Packet, SockType::Raw, flags, 0)?;
        let index = i32::try_from(link.index.get())?;
        raw::bind_packet(socket.as_fd(), claim, index)?;
        Ok(Self(socket))
    }

    /// A dropped frame is ENOBUFS to the sender, or nothing at all.
    fn send(&self, frame: &[u8]) {
        let _ = send(self.0.as_raw_fd(), frame, MsgFlags::empty());
    }

    /// Everything until `last` was seen.
    fn heard_until(&self, last: &[u8]) -> Verdict<Vec<Vec<u8>>> {
        let (mut all, mut buffer) = (Vec::new(), [0; 2048]);
        let end = Instant::now() + LIMIT * slow();
        while Instant::now() < end {
            match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) if buffer[..len] == *last => return Ok(all),
                Ok(len) => all.push(buffer[..len].to_vec()),
                Err(nix::Error::EAGAIN) => std::thread::sleep(Duration::from_millis(1)),
                Err(e) => return failed(format!("recv: {e}")),
            }
        }
        failed("the last frame, an honest one, did not arrive")
    }
}

fn ethernet(to: [u8; 6], from: [u8; 6], ethertype: u16, body: &[u8]) -> Vec<u8> {
    let mut frame = [&to[..], &from, &ethertype.to_be_bytes(), body].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn arp(operation: u8, mac: [u8; 6], ip: [u8; 4], about: [u8; 4]) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    [&head[..], &mac, &ip, &[0; 6], &about].concat()
}

fn ipv4(from: [u8; 4], to: [u8; 4], protocol: u8, body: &[u8]) -> Vec<u8> {
    ipv4_part(from, to, protocol, 0, body)
}

/// `fragment`: flags and offset.
fn ipv4_part(from: [u8; 4], to: [u8; 4], protocol: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    let [f0, f1] = fragment.to_be_bytes();
    let mut head = vec![
        0x45, 0, length[0], length[1], 0, 7, f0, f1, 64, protocol, 0, 0,
    ];
    head.extend([from, to].concat());
    let sum: u32 = head
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    head[10..12].copy_from_slice(&sum.to_be_bytes());
    [head, body.to_vec()].concat()
}

/// Without a checksum: nobody here looks.
fn udp(from: u16, to: u16) -> Vec<u8> {
    let words = [from, to, 16, 0].map(u16::to_be_bytes).concat();
    [words, vec![0; 8]].concat()
}

fn ipv6(from: &str, to: &str, next: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], next, 255];
    let ends = [from, to].map(|a| a.parse::<Ipv6Addr>().unwrap().octets());
    [&head[..], &ends.concat(), body].concat()
}

/// A neighbour message; `option` is a kind and a MAC.
fn neighbour(kind: u8, target: &str, option: Option<(u8, [u8; 6])>) -> Vec<u8> {
    let target = target.parse::<Ipv6Addr>().unwrap().octets();
    let mut message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target].concat();
    if let Some((kind, mac)) = option {
        message.extend([&[kind, 1][..], &mac].concat());
    }
    message
}

/// A name, a frame, and the counter that it falls to; none: it passes.
type Case = (&'static str, Vec<u8>, Option<&'static str>);

/// Sends all, then an honest announcement, and compares what each of `judges`
/// has seen by then.
fn play(forger: &Tap, judges: &[(&str, &Tap)], cases: &[Case]) -> Verdict {
    let last = ethernet(ALL, MAC, 0x0806, &arp(1, MAC, IP, [10, 0, 2, 250]));
    for (_, frame, _) in cases {
        forger.send(frame);
    }
    forger.send(&last);
    for (who, judge) in judges {
        let heard = judge.heard_until(&last)?;
        for (name, frame, forgery) in cases {
            // A macvlan hears only the groups that it has joined.
            let is_group = frame[0] & 1 != 0 && frame[..6] != ALL;
            if *who == "sibling" && is_group {
                continue;
            }
            let (is, should) = (heard.contains(frame), forgery.is_none());
            assert_eq!(is, should, "{name}: heard by the {who}");
        }
    }
    Ok(())
}

/// How often each counter was hit.
fn counts(cases: &[Case]) -> Value {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for forgery in cases.iter().filter_map(|(_, _, forgery)| *forgery) {
        *counts.entry(forgery).or_default() += 1;
    }
    json!(counts)
}

const ETH_P_ALL: u16 = 3;

fn cases() -> Vec<Case> {
    let own = |ethertype, body: Vec<u8>| ethernet(ALL, MAC, ethertype, &body);
    let (ip, none, all) = (0x0800, [0; 4], [255; 4]);
    let tcp = vec![0; 20];
    let stranger = [0x02, 0x42, 9, 9, 9, 9];
    vec![
        ("own", own(ip, ipv4(IP, all, 6, &tcp)), None),
        (
            "own UDP",
            own(ip, ipv4(IP, all, 17, &udp(5353, 5353))),
            None,
        ),
        (
            "a DHCP client's renewal",
            own(ip, ipv4(IP, GATEWAY, 17, &udp(68, 67))),
            None,
        ),
        (
            "a DHCP client's first question",
            own(ip, ipv4(none, all, 17, &udp(68, 67))),
            None,
        ),
        (
            "a later fragment that looks like a server's",
            own(ip, ipv4_part(IP, all, 17, 2, &udp(67, 68))),
            None,
        ),
        (
            "multicast",
            ethernet(
                [1, 0, 0x5e, 0, 0, 251],
                MAC,
                ip,
                &ipv4(IP, [224, 0, 0, 251], 17, &udp(5353, 5353)),
            ),
            None,
        ),
        (
            "groups, before there is an address",
            own(ip, ipv4(none, [224, 0, 0, 22], 2, &[0x22; 16])),
            None,
        ),
        ("a question", own(0x0806, arp(1, MAC, IP, GATEWAY)), None),
        (
            "a probe",
            own(0x0806, arp(1, MAC, none, [10, 0, 2, 77])),
            None,
        ),
        ("an announcement", own(0x0806, arp(2, MAC, IP, IP)), None),
        (
            "the gateway's MAC",
            ethernet(ALL, GATEWAY_MAC, ip, &ipv4(IP, all, 6, &tcp)),
            Some("MAC"),
        ),
        (
            "a stranger's MAC and question",
            ethernet(ALL, stranger, 0x0806, &arp(1, stranger, IP, GATEWAY)),
            Some("MAC"),
        ),
        (
            "the gateway's address",
            own(ip, ipv4(GATEWAY, all, 6, &tcp)),
            Some("IPv4"),
        ),
        (
            "nobody's TCP",
            own(ip, ipv4(none, all, 6, &tcp)),
            Some("IPv4"),
        ),
        (
            "nobody's UDP to another port",
            own(ip, ipv4(none, all, 17, &udp(68, 69))),
            Some("IPv4"),
        ),
        (
            "the gateway's UDP",
            own(ip, ipv4(GATEWAY, all, 17, &udp(53, 1234))),
            Some("IPv4"),
        ),
        (
            "a DHCP server's offer",
            own(ip, ipv4(IP, all, 17, &udp(67, 68))),
            Some("DHCP"),
        ),
        (
            "an offer from another port",
            own(ip, ipv4(IP, all, 17, &udp(1067, 68))),
            Some("DHCP"),
        ),
        (
            "the first fragment of an offer",
            own(ip, ipv4_part(IP, all, 17, 0x2000, &udp(67, 68))),
            Some("DHCP"),
        ),
        (
            "the gateway's address is here",
            own(0x0806, arp(2, MAC, GATEWAY, GATEWAY)),
            Some("ARP"),
        ),
        (
            "own frame, the gateway's MAC in it",
            own(0x0806, arp(2, GATEWAY_MAC, IP, IP)),
            Some("ARP"),
        ),
        ("ARP of another kind", own(0x0806, vec![0; 28]), Some("ARP")),
        (
            "IPv6, where there is none",
            own(
                0x86dd,
                ipv6("fe80::42:aff:fe00:205", "ff02::1", 58, &[134; 16]),
            ),
            Some("IPv6"),
        ),
        (
            "a tag, and the gateway's address behind it",
            own(
                0x8100,
                [vec![0x45, 0, 8, 0], ipv4(GATEWAY, all, 6, &tcp)].concat(),
            ),
            Some("Other"),
        ),
        (
            "spanning tree",
            ethernet([1, 0x80, 0xc2, 0, 0, 0], MAC, 38, &[0x42; 38]),
            Some("Other"),
        ),
    ]
}

// ---- tests ------------------------------------------------------------------

fn forged_frames_stay_inside() -> Verdict {
    let lan = Lab::here(0)?;
    network("lan", &SUBNET)?;
    run("forger", "lan", &["--ip", "10.0.2.5"])?;
    run("sibling", "lan", &["--ip", "10.0.2.6"])?;
    let (inside, beside) = (netns("forger")?, netns("sibling")?);
    let wire = Tap::open(&lan.host.netns, "eth1", ETH_P_ALL)?;
    let sibling = Tap::open(&beside, "eth0", ETH_P_ALL)?;
    let judges = [("wire", &wire), ("sibling", &sibling)];
    let cases = cases();
    play(&Tap::open(&inside, "eth0", 0)?, &judges, &cases)?;
    assert_eq!(guard_of("forger")?, ("on".to_owned(), counts(&cases)));
    assert_eq!(guard_of("sibling")?, ("on".to_owned(), json!({})));
    // The container's own programs notice nothing.
    said(&["exec", "forger", "ping", "-c", "1", "-W", "2", "10.0.2.1"])?;
    said(&["exec", "forger", "ping", "-c", "1", "-W", "2", "10.0.2.6"])?;
    said(&["restart", "-t", "0", "forger"])?;
    said(&["exec", "forger", "ping", "-c", "1", "-W", "2", "10.0.2.1"])?;
    play(&Tap::open(&inside, "eth0", 0)?, &judges, &cases)?;
    remove_all()
}

/// Unicast to a sibling passes none of the parent's egress hooks.
fn a_forged_answer_never_reaches_a_sibling() -> Verdict {
    let _lan = Lab::here(0)?;
    network("lan", &SUBNET)?;
    run("forger", "lan", &["--ip", "10.0.2.5"])?;
    run("sibling", "lan", &["--ip", "10.0.2.6"])?;
    let victim = [0x02, 0x42, 10, 0, 2, 6];
    let sibling = Tap::open(&netns("sibling")?, "eth0", ETH_P_ALL)?;
    let to = |from, ethertype, body: &[u8]| ethernet(victim, from, ethertype, body);
    let cases: Vec<Case> = vec![
        ("honest", to(MAC, 0x0806, &arp(2, MAC, IP, IP)), None),
        (
            "I am the gateway",
            to(MAC, 0x0806, &arp(2, MAC, GATEWAY, GATEWAY)),
            Some("ARP"),
        ),
        (
            "with its MAC",
            to(GATEWAY_MAC, 0x0806, &arp(2, GATEWAY_MAC, GATEWAY, GATEWAY)),
            Some("MAC"),
        ),
        (
            "a datagram of the gateway's",
            to(
                MAC,
                0x0800,
                &ipv4(GATEWAY, [10, 0, 2, 6], 17, &udp(53, 1234)),
            ),
            Some("IPv4"),
        ),
    ];
    play(
        &Tap::open(&netns("forger")?, "eth0", 0)?,
        &[("sibling", &sibling)],
        &cases,
    )?;
    remove_all()
}

/// The sender of a raw frame tells the kernel what it is.
fn lies_about_the_frame_do_not_help() -> Verdict {
    let lan = Lab::here(0)?;
    network("lan", &SUBNET)?;
    run("forger", "lan", &["--ip", "10.0.2.5"])?;
    let inside = netns("forger")?;
    let wire = Tap::open(&lan.host.netns, "eth1", ETH_P_ALL)?;
    let forged: Vec<Case> = cases()
        .into_iter()
        .filter(|(_, _, forgery)| forgery.is_some())
        .collect();
    for claim in [0x0800, 0x0806, 0x86dd, 0x8100, 0x88cc, 1] {
        play(
            &Tap::open(&inside, "eth0", claim)?,
            &[("wire", &wire)],
            &forged,
        )?;
    }
    remove_all()
}

/// PACKET_QDISC_BYPASS: straight to the driver.
fn no_way_around_the_queue() -> Verdict {
    const PROGRAM: &str = "\
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.setsockopt(263, 20, 1)
s.bind(('eth0', 0))
for frame in sys.argv[1:]:
    try: s.send(bytes.fromhex(frame))
    except OSError: pass
";
    let lan = Lab::here(0)?;
    network("lan", &SUBNET)?;
    run("forger", "lan", &["--ip", "10.0.2.5"])?;
    let wire = Tap::open(&lan.host.netns, "eth1", ETH_P_ALL)?;
    let hex = |frame: &[u8]| -> String { frame.iter().map(|b| format!("{b:02x}")).collect() };
    let forged = ethernet(ALL, MAC, 0x0806, &arp(2, MAC, GATEWAY, GATEWAY));
    let honest = ethernet(ALL, MAC, 0x0806, &arp(2, MAC, IP, IP));
    let net = format!(
        "--net=/proc/{}/ns/net",
        inspect("forger", "{{.State.Pid}}")?
    );
    let frames = [hex(&forged), hex(&honest)];
    judge::run(&[
        "nsenter", &net, "python3", "-c", PROGRAM, &frames[0], &frames[1],
    ])?
    .success()?;
    assert!(!wire.heard_until(&honest)?.contains(&forged));
    assert_eq!(guard_of("forger")?.1, json!({"ARP": 1}));
    remove_all()
}

fn nobody_else_can_take_it_away() -> Verdict {
    let lan = Lab::here(0)?;
    network("lan", &SUBNET)?;
    run("forger", "lan", &["--ip", "10.0.2.5"])?;
    let net = format!(
        "--net=/proc/{}/ns/net",
        inspect("forger", "{{.State.Pid}}")?
    );
    let nft = |args: &[&str]| judge::run(&[&["nsenter", &net, "nft"], args].concat());
    nft(&["flush", "ruleset"])?.success()?;
    let name = "dockless-guard-eth0";
    for change in [
        &["delete", "table", "netdev", name][..],
        &["flush", "chain", "netdev", name, "out"],
        &["insert", "rule", "netdev", name, "out", "accept"],
        &["add", "table", "netdev", name, "{ flags dormant; }"],
    ] {
        assert!(!nft(change)?.is_success(), "{change:?}");
    }
    // An earlier chain's word is not the last one, nor is what it makes of a
    // frame.
    nft(&["add table netdev t"])?.success()?;
    nft(&["add chain netdev t c { type filter hook egress device eth0 priority 0; }"])?
        .success()?;
    nft(&["add rule netdev t c ether saddr set 02:1a:0a:00:02:01 accept"])?.success()?;
    let wire = Tap::open(&lan.host.netns, "eth1", ETH_P_ALL)?;
    let inside = netns("forger")?;
    let forger = Tap::open(&inside, "eth0", 0)?;
    let frame = ethernet(ALL, MAC, 0x0806, &arp(2, MAC, IP, IP));
    forger.send(&frame);
    nft(&["delete table netdev t"])?.success()?;
    play(&forger, &[("wire", &wire)], &cases())?;
    assert!(guard_of("forger")?.1["MAC"].as_u64() >= Some(3));
    remove_all()
}

fn published_ports_answer() -> Verdict {
    let lan = Lab::here(0)?;
    network("lan", &SUBNET)?;
    run("web", "lan", &["--ip", "10.0.2.5", "-p", "5000:5000"])?;
    let get = |at: Ipv4Addr| {
        lan.gateway
            .get_soon(SocketAddrV4::new(at, 5000), "/json", LIMIT)
    };
    assert!(get([10, 0, 2, 4].into())?.body.contains("10.0.2.5"));
    assert!(get(IP.into())?.body.contains("10.0.2.5"));
    let path = inspect("web", "{{(index .Dockless.Published 0).Path}}")?;
    assert_eq!(
        (path.as_str(), guard_of("web")?.1),
        ("fast-path", json!({}))
    );
    // Only its own aliases, and only TCP.
    let inside = netns("web")?;
    let wire = Tap::open(&lan.host.netns, "eth1", ETH_P_ALL)?;
    let from =
        |alias, protocol| ethernet(ALL, MAC, 0x0800, &ipv4(alias, [255; 4], protocol, &[9; 20]));
    let other = [169, 254, 64, 1];
    let alias = judge::run(&["nft", "-j", "list", "ruleset"])?.stdout;
    assert!(alias.contains("169.254."), "{alias}");
    let cases: Vec<Case> = vec![
        ("somebody else's alias", from(other, 6), Some("IPv4")),
        ("own alias, UDP", from([169, 254, 96, 80], 17), Some("IPv4")),
    ];
    play(&Tap::open(&inside, "eth0", 0)?, &[("wire", &wire)], &cases)?;
    remove_all()
}

fn networks_come_and_go() -> Verdict {
    let _lan = Lab::here(0)?;
    network("lan", &SUBNET)?;
    network("two", &["--subnet=10.0.3.0/24"])?;
    run("web", "lan", &["--ip", "10.0.2.5", "-p", "5000:5000"])?;
    let ping = |to: &str| said(&["exec", "web", "ping", "-c", "1", "-W", "2", to]);
    let tables = || -> Verdict<Vec<String>> {
        let net = format!("--net=/proc/{}/ns/net", inspect("web", "{{.State.Pid}}")?);
        let all = judge::run(&["nsenter", &net, "nft", "list", "tables"])?.stdout;
        let ours = all.lines().filter(|l| l.contains("guard"));
        Ok(ours.map(|l| l.trim().to_owned()).collect())
    };
    let (eth0, eth1) = (
        "table netdev dockless-guard-eth0",
        "table netdev dockless-guard-eth1",
    );
    for _ in 0..2 {
        said(&["network", "connect", "two", "web"])?;
        assert_eq!(tables()?, [eth0, eth1]);
        said(&["network", "disconnect", "lan", "web"])?;
        assert_eq!(tables()?, [eth1]);
        // A link of the same name, with another MAC.
        said(&["network", "connect", "--ip", "10.0.2.9", "lan", "web"])?;
        ping("10.0.2.1")?;
        said(&["network", "disconnect", "two", "web"])?;
        assert_eq!(tables()?, [eth0]);
        ping("10.0.2.1")?;
        said(&["network", "disconnect", "lan", "web"])?;
        assert!(tables()?.is_empty());
        said(&["network", "connect", "--ip", "10.0.2.5", "lan", "web"])?;
        ping("10.0.2.1")?;
    }
    remove_all()
}

fn every_mode_has_it() -> Verdict {
    let lan = Lab::here(0)?;
    let wire = Tap::open(&lan.host.netns, "eth1", ETH_P_ALL)?;
    let sources = format!("macvlan_sources={}", MacAddr(GATEWAY_MAC));
    for (mode, more) in [
        ("private", &[][..]),
        ("vepa", &[]),
        ("source", &["-o", sources.as_str()]),
        ("passthru", &[]),
    ] {
        let mode = format!("macvlan_mode={mode}");
        network("lan", &[&SUBNET[..], &["-o", &mode], more].concat())?;
        let given = ["--ip", "10.0.2.5", "--mac-address", "02:42:0a:00:02:05"];
        run("forger", "lan", &given)?;
        let inside = netns("forger")?;
        play(
            &Tap::open(&inside, "eth0", 0)?,
            &[("wire", &wire)],
            &cases(),
        )?;
        said(&["exec", "forger", "ping", "-c", "1", "-W", "2", "10.0.2.1"])?;
        assert_eq!(guard_of("forger")?.0, "on", "{mode}");
        said(&["rm", "-f", "forger"])?;
        said(&["network", "rm", "lan"])?;
    }
    // Its parent's MAC, which nobody asked to change.
    network(
        "lan",
        &[&SUBNET[..], &["-o", "macvlan_mode=passthru"]].concat(),
    )?;
    run("forger", "lan", &["--ip", "10.0.2.5"])?;
    said(&["exec", "forger", "ping", "-c", "1", "-W", "2", "10.0.2.1"])?;
    assert_eq!(guard_of("forger")?, ("on".to_owned(), json!({})));
    said(&["rm", "-f", "forger"]).map(drop)
}

fn off_is_off() -> Verdict {
    let lan = Lab::here(0)?;
    network("lan", &[&SUBNET[..], &["-o", "guard=off"]].concat())?;
    run("forger", "lan", &["--ip", "10.0.2.5"])?;
    let wire = Tap::open(&lan.host.netns, "eth1", ETH_P_ALL)?;
    let forger = Tap::open(&netns("forger")?, "eth0", 0)?;
    let all: Vec<Case> = cases()
        .into_iter()
        .map(|(name, frame, _)| (name, frame, None))
        .collect();
    play(&forger, &[("wire", &wire)], &all)?;
    assert_eq!(guard_of("forger")?, ("off".to_owned(), json!({})));
    remove_all()
}

/// A network without IPv4: whatever is configured inside, by whom ever.
fn without_an_address_the_mac_counts() -> Verdict {
    let lan = Lab::here(0)?;
    network("lan", &["--ipv4=false"])?;
    let mac = MacAddr(MAC).to_string();
    run("forger", "lan", &["--mac-address", &mac])?;
    let wire = Tap::open(&lan.host.netns, "eth1", ETH_P_ALL)?;
    let forger = Tap::open(&netns("forger")?, "eth0", 0)?;
    let free = ["IPv4", "IPv6"];
    let cases: Vec<Case> = cases()
        .into_iter()
        .filter(|(name, ..)| !name.contains("where there is none"))
        .map(|(name, frame, forgery)| {
            let passes = forgery.is_some_and(|f| free.contains(&f)) || name.ends_with("is here");
            (name, frame, forgery.filter(|_| !passes))
        })
        .collect();
    play(&forger, &[("wire", &wire)], &cases)?;
    assert_eq!(guard_of("forger")?, ("on".to_owned(), counts(&cases)));
    remove_all()
}

const OWN6: &str = "fd00:2::5";
const LOCAL6: &str = "fe80::42:aff:fe00:205";
const ROUTER6: &str = "fe80::1a:aff:fe00:201";
const NODES: &str = "ff02::1";

fn cases6() -> Vec<Case> {
    let frame = |body: Vec<u8>| ethernet([0x33, 0x33, 0, 0, 0, 1], MAC, 0x86dd, &body);
    let icmp = |from, message: Vec<u8>| frame(ipv6(from, NODES, 58, &message));
    let part = |next, offset: u16, body: &[u8]| {
        let [o0, o1] = offset.to_be_bytes();
        let head = [next, 0, o0, o1, 0, 0, 0, 7];
        frame(ipv6(OWN6, NODES, 44, &[&head[..], body].concat()))
    };
    let hop = |kind, next| [vec![next, 0, 5, 2, 0, 0, 1, 0], vec![kind; 16]].concat();
    let (own, theirs) = (Some((1, MAC)), Some((1, GATEWAY_MAC)));
    let (is_at, is_at_theirs) = (Some((2, MAC)), Some((2, GATEWAY_MAC)));
    let advert = [vec![134], vec![0; 31]].concat();
    let echo = vec![128; 64];
    vec![
        ("TCP", frame(ipv6(OWN6, NODES, 6, &[0; 20])), None),
        (
            "from the link-local address",
            icmp(LOCAL6, echo.clone()),
            None,
        ),
        ("UDP", frame(ipv6(OWN6, NODES, 17, &udp(546, 547))), None),
        ("a question", icmp(OWN6, neighbour(135, ROUTER6, own)), None),
        (
            "a question without a MAC",
            icmp(OWN6, neighbour(135, ROUTER6, None)),
            None,
        ),
        ("an answer", icmp(OWN6, neighbour(136, OWN6, is_at)), None),
        (
            "an answer about the link-local address",
            icmp(LOCAL6, neighbour(136, LOCAL6, is_at)),
            None,
        ),
        ("is it free?", icmp("::", neighbour(135, OWN6, None)), None),
        (
            "where are routers",
            icmp(LOCAL6, [vec![133], vec![0; 7]].concat()),
            None,
        ),
        (
            "where are routers, asks nobody",
            icmp("::", [vec![133], vec![0; 7]].concat()),
            None,
        ),
        ("groups", frame(ipv6(LOCAL6, NODES, 0, &hop(143, 58))), None),
        (
            "groups of nobody",
            frame(ipv6("::", NODES, 0, &hop(143, 58))),
            None,
        ),
        ("a large echo", part(58, 1, &echo), None),
        (
            "its rest",
            part(58, 1448, &neighbour(136, ROUTER6, is_at)),
            None,
        ),
        (
            "the router's address",
            icmp(ROUTER6, echo.clone()),
            Some("IPv6"),
        ),
        ("nobody's echo", icmp("::", echo.clone()), Some("Neighbour")),
        (
            "nobody's TCP",
            frame(ipv6("::", NODES, 6, &[0; 20])),
            Some("IPv6"),
        ),
        (
            "another's address is taken",
            icmp("::", neighbour(135, ROUTER6, None)),
            Some("Neighbour"),
        ),
        (
            "the router is here",
            icmp(OWN6, neighbour(136, ROUTER6, is_at)),
            Some("Neighbour"),
        ),
        (
            "own address, another's MAC",
            icmp(OWN6, neighbour(136, OWN6, is_at_theirs)),
            Some("Neighbour"),
        ),
        (
            "a question with another's MAC",
            icmp(OWN6, neighbour(135, ROUTER6, theirs)),
            Some("Neighbour"),
        ),
        (
            "a router's advertisement",
            icmp(LOCAL6, advert.clone()),
            Some("Router"),
        ),
        (
            "a redirect",
            icmp(LOCAL6, [vec![137], vec![0; 39]].concat()),
            Some("Router"),
        ),
        (
            "an advertisement behind a header",
            frame(ipv6(LOCAL6, NODES, 0, &hop(134, 58))),
            Some("IPv6"),
        ),
        (
            "an advertisement behind destination options",
            frame(ipv6(
                LOCAL6,
                NODES,
                60,
                &[vec![58, 0, 1, 4, 0, 0, 0, 0], advert.clone()].concat(),
            )),
            Some("IPv6"),
        ),
        (
            "an advertisement in a fragment",
            part(58, 0, &advert),
            Some("IPv6"),
        ),
        (
            "options in a fragment",
            part(60, 0, &[vec![58, 0, 1, 4, 0, 0, 0, 0], advert].concat()),
            Some("IPv6"),
        ),
        (
            "a DHCPv6 server's",
            frame(ipv6(LOCAL6, NODES, 17, &udp(547, 546))),
            Some("DHCP"),
        ),
        (
            "a DHCPv6 server's fragment",
            part(17, 1, &udp(547, 546)),
            Some("IPv6"),
        ),
        (
            "IPv4, where there is none",
            ethernet(
                ALL,
                MAC,
                0x0800,
                &ipv4([10, 0, 2, 99], [255; 4], 6, &[0; 20]),
            ),
            Some("IPv4"),
        ),
    ]
}

/// As networks with IPv6 will use it: a link and its addresses.
fn neighbours_and_routers_of_ipv6() -> Verdict {
    let lan = Lab::here(0)?;
    network("lan", &[&SUBNET[..], &["-o", "guard=off"]].concat())?;
    run("forger", "lan", &["--ip", "10.0.2.5"])?;
    let inside = netns("forger")?;
    let eth0 = IfName::new("eth0")?;
    let mut guard = Guard::new(&inside)?;
    let wire = Tap::open(&lan.host.netns, "eth1", ETH_P_ALL)?;
    let addrs: [IpAddr; 2] = [IP.into(), OWN6.parse()?];
    // Installed twice: it is another's from then on, without a trace.
    for addrs in [&addrs[..1], &addrs[..]] {
        let addrs = Addrs::Own(addrs.to_vec());
        let mac = MacAddr(MAC);
        guard.install(&Identity {
            ifname: &eth0,
            mac,
            link_local: Some(link_local(mac)),
            addrs: &addrs,
            also: &[],
        })?;
    }
    let cases = cases6();
    play(&Tap::open(&inside, "eth0", 0)?, &[("wire", &wire)], &cases)?;
    let dropped = guard.dropped()?;
    assert_eq!(json!(dropped[&eth0]), counts(&cases));
    guard.remove(&eth0)?;
    assert!(guard.dropped()?.is_empty());
    remove_all()
}

/// socket(AF_NETLINK, …, NETLINK_NETFILTER) fails as where nf_tables is not
/// built: the default says so and goes on, `guard=on` does not start.
fn a_kernel_without_it() -> Verdict {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule,
    };
    let _lan = Lab::here(0)?;
    network("lan", &SUBNET)?;
    network("strict", &["-o", "guard=on", "--subnet=10.0.3.0/24"])?;
    let is =
        |at, value| SeccompCondition::new(at, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
    const NETLINK_NETFILTER: u64 = 12;
    let rule = SeccompRule::new(vec![is(0, 16)?, is(2, NETLINK_NETFILTER)?])?;
    let filter: BpfProgram = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_socket, vec![rule])]),
        SeccompAction::Allow,
        SeccompAction::Errno(93),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()?;
    seccompiler::apply_filter(&filter)?;

    let head = ["run", "-d", "--name", "web", "--network"];
    let answer = ask(&[&head[..], &["lan", "tester"]].concat())?.success()?;
    assert!(
        answer.stderr.contains("network lan has no guard"),
        "{}",
        answer.stderr
    );
    let state = guard_of("web")?.0;
    assert!(
        state.starts_with("off: this kernel lacks nf_tables"),
        "{state}"
    );
    said(&["rm", "-f", "web"])?;

    let answer = ask(&[&head[..], &["strict", "tester"]].concat())?;
    assert_eq!(answer.code, Some(125), "{}", answer.stderr);
    for words in ["protocol not supported", "Linux 5.16", "-o guard=off"] {
        assert!(answer.stderr.contains(words), "{}", answer.stderr);
    }
    said(&["rm", "web"])?;
    said(&["network", "rm", "lan", "strict"]).map(drop)
}

// ---- --allow and --deny -----------------------------------------------------

fn rules_of(name: &str) -> Verdict<Vec<(String, u64)>> {
    let rules: Value = serde_json::from_str(&inspect(name, "{{json .Dockless.Rules}}")?)?;
    let one = |rule: &Value| {
        let text = rule["Rule"].as_str().unwrap_or_default().to_owned();
        (text, rule["Packets"].as_u64().unwrap_or_default())
    };
    Ok(rules.as_array().into_iter().flatten().map(one).collect())
}

fn rules_in_both_directions() -> Verdict {
    let lan = Lab::here(1)?;
    network("lan", &SUBNET)?;
    let other = &lan.others[0];
    let get = |from: &dockless::lab::Machine| {
        let page = SocketAddrV4::new(IP.into(), 5000);
        from.get(page, "/json", Duration::from_millis(600)).is_ok()
    };
    let reaches = |from: &dockless::lab::Machine| -> Verdict<bool> {
        let argv = ["ping", "-c", "1", "-W", "1", "10.0.2.5"];
        Ok(judge::on(from, &argv)?.is_success())
    };
    let pings = |to: &str| -> Verdict<bool> {
        let argv = ["exec", "web", "ping", "-c", "1", "-W", "1", to];
        Ok(ask(&argv)?.is_success())
    };
    let ready = SocketAddrV4::new(IP.into(), 5000);
    // (flags; page from the gateway, from the other; ping from the gateway,
    // from the other; ping to the gateway, to the other)
    for (flags, expected) in [
        (
            &["--allow", "5000"][..],
            [true, true, false, false, false, false],
        ),
        (
            &["--deny", "5000/tcp"],
            [false, false, true, true, true, true],
        ),
        (&["--deny", "5000/udp"], [true; 6]),
        (
            &[
                "--allow",
                "4999-5001",
                "--allow",
                "out:icmp",
                "--deny",
                "all",
            ],
            [true, true, false, false, true, true],
        ),
        (
            &["--allow", "10.0.2.1", "--deny", "10.0.2.0/24"],
            [true, false, true, false, true, false],
        ),
        (
            &["--allow", "in:10.0.2.0/30:5000", "--deny", "in:all"],
            [true, false, false, false, true, true],
        ),
        (
            &["--deny", "out:10.0.2.7"],
            [true, true, true, true, true, false],
        ),
        (
            &["--deny", "10.0.2.7:icmp"],
            [true, true, true, false, true, false],
        ),
        (
            &["--deny", "10.0.2.7", "--allow", "tcp", "--allow", "icmp"],
            [true, false, true, false, true, false],
        ),
    ] {
        run("web", "lan", &[&["--ip", "10.0.2.5"], flags].concat())?;
        // The program listens: asked from inside, over the loopback link.
        let inside = dockless::lab::Machine {
            name: "web".to_owned(),
            netns: netns("web")?,
            ifname: IfName::new("eth0")?,
            ip: IP.into(),
        };
        inside.get_soon(ready, "/json", LIMIT)?;
        let is = [
            get(&lan.gateway),
            get(other),
            reaches(&lan.gateway)?,
            reaches(other)?,
            pings("10.0.2.1")?,
            pings("10.0.2.7")?,
        ];
        assert_eq!(is, expected, "{flags:?}");
        said(&["rm", "-f", "web"])?;
    }
    Ok(())
}

fn rules_stay_and_let_published_ports_in() -> Verdict {
    let lan = Lab::here(0)?;
    network("lan", &SUBNET)?;
    let flags = [
        "--ip",
        "10.0.2.5",
        "-p",
        "5000:5000",
        "--allow",
        "out:10.0.2.1:icmp",
        "--deny",
        "all",
    ];
    run("web", "lan", &flags)?;
    let get = |at: [u8; 4]| {
        lan.gateway.get(
            SocketAddrV4::new(at.into(), 5000),
            "/json",
            Duration::from_millis(600),
        )
    };
    let check = || -> Verdict {
        lan.gateway.get_soon(
            SocketAddrV4::new([10, 0, 2, 4].into(), 5000),
            "/json",
            LIMIT,
        )?;
        assert!(get(IP).is_err());
        said(&["exec", "web", "ping", "-c", "1", "-W", "2", "10.0.2.1"]).map(drop)
    };
    check()?;
    assert_eq!(
        inspect("web", "{{(index .Dockless.Published 0).Path}}")?,
        "fast-path"
    );
    let rules = rules_of("web")?;
    let texts: Vec<&str> = rules.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["allow out:10.0.2.1:icmp", "deny all"]);
    assert!(rules.iter().all(|(_, packets)| *packets > 0), "{rules:?}");
    let net = format!("--net=/proc/{}/ns/net", inspect("web", "{{.State.Pid}}")?);
    judge::run(&["nsenter", &net, "nft", "flush", "ruleset"])?.success()?;
    check()?;
    said(&["restart", "-t", "0", "web"])?;
    check()?;
    said(&["stop", "-t", "0", "web"])?;
    assert_eq!(rules_of("web")?.len(), 2);
    said(&["start", "web"])?;
    check()?;
    // Nothing is tracked where there are no rules.
    run("free", "lan", &["--ip", "10.0.2.6"])?;
    let net = format!("--net=/proc/{}/ns/net", inspect("free", "{{.State.Pid}}")?);
    let all = judge::run(&["nsenter", &net, "nft", "list", "ruleset"])?.stdout;
    assert!(
        !all.contains("ct state") && !all.contains("dockless-rules"),
        "{all}"
    );
    remove_all()
}
