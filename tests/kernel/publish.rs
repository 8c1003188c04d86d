//! Kernel tests of published ports: real containers (as far as the network
//! goes) on the lab's host, real clients on its other machines, `nft -j` and
//! captures as judges.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use dockless::base::{Cidr, IfName, MacAddr, Proto, Step};
use dockless::lab::capture::{Capture, Content};
use dockless::lab::{Lab, Machine};
use dockless::net::publish::{self, Path, PortRequest, Publisher, Target, Via};
use dockless::netlink::route::Configure;
use dockless::netlink::{MacvlanMode, NewLink, Rtnl};
use dockless::sys::epoll::Epoll;
use dockless::sys::netns::{Netns, Sandbox};
use serde_json::Value;

use crate::harness::{Test, Verdict, slow};
use crate::judge;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(lan_takes_the_fast_path_and_keeps_its_address).needs(&["nft"]),
        Test::new(host_is_served_by_the_proxy),
        Test::new(udp_goes_both_ways).needs(&["nft"]),
        Test::new(fragmented_udp_arrives_and_fragmented_tcp_is_counted).needs(&["nft"]),
        Test::new(icmp_errors_are_rewritten).needs(&["nft"]),
        Test::new(ports_are_all_taken_or_none),
        Test::new(two_containers_share_a_table_and_the_last_takes_it_away).needs(&["nft"]),
        Test::new(crash_is_undone_from_the_step_alone).needs(&["nft"]),
        Test::new(host_addresses_and_mac_are_followed).needs(&["nft"]),
        Test::new(a_service_on_one_address_is_left_to_the_proxy).needs(&["nft"]),
        Test::new(only_the_published_port_crosses).needs(&["nft", "ping"]),
        Test::new(source_mode_and_a_wish_take_the_proxy).needs(&["nft"]),
        Test::new(passthru_takes_the_proxy),
        Test::new(a_flushed_ruleset_leaves_the_proxy).needs(&["nft"]),
        Test::new(without_a_network_it_leads_to_loopback),
        Test::new(routed_clients_and_twice_published_ports),
        Test::new(proxy_moves_much_and_holds_back).limit_s(120),
        Test::new(out_of_fds_it_waits).limit_s(120),
        Test::new(at_rest_nothing_wakes),
        Test::new(many_start_at_once).needs(&["nft"]).limit_s(120),
    ]
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 4);
const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;
const LIMIT: Duration = Duration::from_secs(5);

// ---- containers -------------------------------------------------------------

struct Container {
    netns: Netns<Sandbox>,
    mac: MacAddr,
    ip: Ipv4Addr,
    mode: MacvlanMode,
}

/// A sandbox with a macvlan on eth1, as `run` makes it.
fn container(last: u8) -> Container {
    container_in(last, MacvlanMode::Bridge)
}

fn container_in(last: u8, mode: MacvlanMode) -> Container {
    let netns = Netns::create().unwrap();
    let mut host = Rtnl::host().unwrap();
    let mut sandbox = Rtnl::sandbox(&netns).unwrap();
    let ip = Ipv4Addr::new(10, 0, 2, last);
    let mac = MacAddr::from_ipv4(ip);
    let new = NewLink {
        name: &IfName::new("eth0").unwrap(),
        lower: host.link("eth1").unwrap().unwrap().index,
        mode: mode.into(),
        sources: &[],
        mac: (mode != MacvlanMode::Passthru).then_some(mac),
        mtu: None,
        broadcast: dockless::netlink::Broadcast::default(),
    };
    let index = host.link_into(&new, &netns, &mut sandbox).unwrap();
    let configure = Configure {
        loopback_up: true,
        mac: None,
        addrs: vec![Cidr::new(ip.into(), 24).unwrap()],
        up: true,
        gateways: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1)).into(),
    };
    sandbox.configure(index, &configure).unwrap();
    Container {
        netns,
        mac,
        ip,
        mode,
    }
}

fn fixed(host: u16, container: u16, proto: Proto) -> PortRequest {
    PortRequest {
        host_ip: None,
        host_port: Some((host, host)),
        container,
        proto,
    }
}

fn tcp(host: u16, container: u16) -> PortRequest {
    fixed(host, container, Proto::Tcp)
}

fn udp(host: u16, container: u16) -> PortRequest {
    fixed(host, container, Proto::Udp)
}

/// A publisher with a loop of its own, as the supervisor's.
struct Published {
    publisher: Arc<Mutex<Option<Publisher>>>,
    ended: Arc<AtomicBool>,
    rounds: Arc<Mutex<u32>>,
    thread: Option<JoinHandle<()>>,
    journal: Vec<Step>,
}

impl Container {
    fn publish(&self, ports: &[PortRequest]) -> Published {
        self.publish_via(ports, Via::Auto)
    }

    fn publish_via(&self, ports: &[PortRequest], via: Via) -> Published {
        let target = Target {
            parent: Some(IfName::new("eth1").unwrap()),
            mac: self.mac,
            ip: self.ip,
            reach: None,
            mode: self.mode.into(),
        };
        publish(&self.netns, target, ports, via)
    }
}

fn publish(netns: &Netns<Sandbox>, target: Target, ports: &[PortRequest], via: Via) -> Published {
    let reserved = publish::reserve(ports).unwrap();
    let mut host = Rtnl::host().unwrap();
    let mut journal = Vec::new();
    let publisher =
        Publisher::start(reserved, via, target, &mut host, netns, &mut journal).unwrap();
    let publisher = Arc::new(Mutex::new(Some(publisher)));
    let ended = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(Mutex::new(0));
    let (mine, stop, count) = (
        Arc::clone(&publisher),
        Arc::clone(&ended),
        Arc::clone(&rounds),
    );
    let epoll = Epoll::new().unwrap();
    let base = 1 << 40;
    let register = |p: &mut Option<Publisher>| p.as_mut().unwrap().register(&epoll, base);
    register(&mut publisher.lock().unwrap()).unwrap();
    let thread = thread::spawn(move || {
        let mut events = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            epoll
                .wait(&mut events, Some(Duration::from_millis(10)))
                .unwrap();
            let mut publisher = mine.lock().unwrap();
            let Some(publisher) = publisher.as_mut() else {
                return;
            };
            *count.lock().unwrap() += u32::from(!events.is_empty());
            for (key, flags) in &events {
                publisher.ready(key - base, *flags).unwrap();
            }
            let now = Instant::now();
            if publisher.deadline().is_some_and(|at| at <= now) {
                publisher.on_time(now).unwrap();
            }
        }
    });
    Published {
        publisher,
        ended,
        rounds,
        thread: Some(thread),
        journal,
    }
}

impl Published {
    fn with<T>(&self, f: impl FnOnce(&mut Publisher) -> T) -> T {
        f(self.publisher.lock().unwrap().as_mut().unwrap())
    }

    fn paths(&self) -> Vec<Path> {
        let paths = self.with(|p| p.paths());
        paths.into_iter().map(|(_, path)| path).collect()
    }

    fn rounds(&self) -> u32 {
        *self.rounds.lock().unwrap()
    }

    fn take(&mut self) -> Publisher {
        self.ended.store(true, Ordering::SeqCst);
        let publisher = self.publisher.lock().unwrap().take().unwrap();
        self.thread.take().unwrap().join().unwrap();
        publisher
    }

    fn stop(mut self) {
        self.take().stop().unwrap();
    }

    /// As kill -9 of the supervisor: sockets closed, nothing undone.
    fn crash(mut self) -> Vec<Step> {
        drop(self.take());
        std::mem::take(&mut self.journal)
    }
}

// ---- services and clients ---------------------------------------------------

/// Answers each connection with the client's address, then echoes; at the
/// client's end of file it says "bye" and closes.
fn serve(netns: &Netns<Sandbox>, addr: impl Into<SocketAddr>) {
    let addr = addr.into();
    let listener = netns.run(|| Ok(TcpListener::bind(addr).unwrap())).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || echo(stream.unwrap()));
        }
    });
}

fn echo(mut stream: TcpStream) {
    let peer = stream.peer_addr().unwrap().ip();
    let _ = writeln!(stream, "{peer}");
    let mut bytes = [0; 65536];
    while let Ok(n @ 1..) = stream.read(&mut bytes) {
        if stream.write_all(&bytes[..n]).is_err() {
            return;
        }
    }
    let _ = stream.write_all(b"bye");
}

/// Answers each datagram with the client's address and what it said.
fn serve_udp(netns: &Netns<Sandbox>, addr: impl Into<SocketAddr>) {
    let addr = addr.into();
    let socket = netns.run(|| Ok(UdpSocket::bind(addr).unwrap())).unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 65536];
        while let Ok((n, peer)) = socket.recv_from(&mut bytes) {
            let mut answer = format!("{} ", peer.ip()).into_bytes();
            answer.extend(&bytes[..n]);
            let _ = socket.send_to(&answer, peer);
        }
    });
}

fn any(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn connect(addr: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&addr.into(), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Which client the service saw, after an echo and an orderly end both ways.
fn talk(addr: impl Into<SocketAddr>) -> std::io::Result<String> {
    let mut stream = connect(addr)?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (peer, rest) = text.split_once('\n').unwrap_or_default();
    assert_eq!(rest, "hellobye");
    Ok(peer.to_owned())
}

fn talk_from(machine: &Machine, addr: impl Into<SocketAddr> + Send) -> std::io::Result<String> {
    machine.run(|| Ok(talk(addr))).unwrap()
}

fn ask(addr: impl Into<SocketAddr>, text: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(any(0))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(addr.into())?;
    socket.send(text)?;
    let mut bytes = vec![0; 65536];
    let n = socket.recv(&mut bytes)?;
    bytes.truncate(n);
    Ok(bytes)
}

fn ask_from(machine: &Machine, addr: (Ipv4Addr, u16), text: &[u8]) -> std::io::Result<String> {
    let bytes = machine.run(|| Ok(ask(addr, text))).unwrap()?;
    Ok(String::from_utf8(bytes).unwrap())
}

/// The packets that the rule with this comment has counted, as nft says.
fn counted(comment: &str) -> Verdict<u64> {
    let rules = judge::nft_ruleset()?;
    let rule = rules
        .iter()
        .find(|o| o["rule"]["comment"] == comment)
        .unwrap_or_else(|| panic!("no rule {comment}: {rules:?}"));
    let exprs = rule["rule"]["expr"].as_array().unwrap();
    let counter = exprs.iter().find(|e| e.get("counter").is_some()).unwrap();
    Ok(counter["counter"]["packets"].as_u64().unwrap())
}

/// Elements of a map or set of the table.
fn elements(name: &str) -> Verdict<usize> {
    let objects = judge::nft_ruleset()?;
    let count = |kind: &str| -> Option<usize> {
        let set = objects.iter().find(|o| o[kind]["name"] == name)?;
        Some(set[kind]["elem"].as_array().map_or(0, Vec::len))
    };
    Ok(count("map").or(count("set")).unwrap())
}

fn nothing_left() -> Verdict {
    assert_eq!(judge::nft_ruleset()?, Vec::<Value>::new());
    Ok(())
}

// ---- the tests --------------------------------------------------------------

fn lan_takes_the_fast_path_and_keeps_its_address() -> Verdict {
    let lab = Lab::here(1)?;
    let mac1 = container(5);
    serve(&mac1.netns, any(80));
    let published = mac1.publish(&[tcp(5000, 80)]);
    assert_eq!(published.paths(), [Path::Fast]);
    let mut wire = Capture::start(&lab.others[0])?;
    for _ in 0..3 {
        assert_eq!(talk_from(&lab.others[0], (HOST, 5000))?, "10.0.2.7");
    }
    assert!(counted("requests, TCP")? > 0 && counted("answers, TCP")? > 0);
    assert_eq!(counted("never on the wire")?, 0);
    // Frames from the host's address come from the host's MAC; no alias and no
    // container's MAC is seen there, but in its own ARP questions.
    let host_mac = MacAddr([0x02, 0x1a, 10, 0, 2, 4]);
    let frames = wire.frames()?;
    let mut answers = 0;
    for frame in frames {
        match &frame.content {
            Content::Tcp { from, .. } if from.ip() == &HOST => {
                assert_eq!((from.port(), frame.from), (5000, host_mac));
                answers += 1;
            }
            Content::Tcp { from, to, .. } => {
                assert_eq!((from.ip().octets(), to.ip()), ([10, 0, 2, 7], &HOST));
            }
            Content::Arp { ip, .. } => assert_ne!(ip.octets()[0], 169, "{frame}"),
            _ => {}
        }
    }
    assert!(answers > 0);
    // Straight to the container as before, untouched.
    assert_eq!(talk_from(&lab.others[0], (mac1.ip, 80))?, "10.0.2.7");
    published.stop();
    nothing_left()?;
    assert!(talk_from(&lab.others[0], (HOST, 5000)).is_err());
    Ok(())
}

fn host_is_served_by_the_proxy() -> Verdict {
    let _lab = Lab::here(0)?;
    let mac1 = container(5);
    serve(&mac1.netns, any(80));
    let published = mac1.publish(&[tcp(5000, 80)]);
    for addr in [HOST, LOCAL, Ipv4Addr::new(127, 0, 0, 2)] {
        assert_eq!(talk((addr, 5000))?, "10.0.2.5");
    }
    published.stop();
    Ok(())
}

fn udp_goes_both_ways() -> Verdict {
    let lab = Lab::here(1)?;
    let mac1 = container(5);
    serve_udp(&mac1.netns, any(53));
    let published = mac1.publish(&[udp(5353, 53), udp(5354, 53)]);
    assert_eq!(published.paths(), [Path::Fast, Path::Fast]);
    let lan = &lab.others[0];
    for port in [5353, 5354] {
        assert_eq!(ask_from(lan, (HOST, port), b"hi")?, "10.0.2.7 hi");
    }
    assert!(counted("requests, UDP")? == 2 && counted("answers, UDP")? == 2);
    // One that is bound to its own address hears UDP too, and the host asks
    // through the proxy, at any of its addresses.
    for addr in [HOST, LOCAL, Ipv4Addr::new(127, 0, 0, 9)] {
        assert_eq!(ask((addr, 5353), b"hi")?, b"10.0.2.5 hi");
    }
    assert_eq!(ask_from(lan, (mac1.ip, 53), b"hi")?, "10.0.2.7 hi");
    assert_eq!(elements("udp_clients")?, 2);
    // An own socket for each client: two at once.
    let both = [(); 2].map(|()| UdpSocket::bind(any(0)).unwrap());
    for (n, socket) in both.iter().enumerate() {
        socket.set_read_timeout(Some(LIMIT))?;
        socket.send_to(&[b'0' + u8::try_from(n)?], (LOCAL, 5354))?;
    }
    for (n, socket) in both.iter().enumerate() {
        let mut bytes = [0; 64];
        let (length, from) = socket.recv_from(&mut bytes)?;
        assert_eq!(from, (LOCAL, 5354).into());
        assert_eq!(
            String::from_utf8_lossy(&bytes[..length]),
            format!("10.0.2.5 {n}")
        );
    }
    assert!(published.with(|p| p.deadline()).is_some());
    // Nobody left but the table's users.
    published.stop();
    nothing_left()
}

/// Both directions: the request in two fragments, the answer too.
fn fragmented_udp_arrives_and_fragmented_tcp_is_counted() -> Verdict {
    let lab = Lab::here(1)?;
    let mac1 = container(5);
    serve_udp(&mac1.netns, any(53));
    let sized = mac1.netns.run(|| Ok(UdpSocket::bind(any(54)).unwrap()))?;
    thread::spawn(move || {
        // Answers a short question at length.
        let mut bytes = [0; 64];
        while let Ok((_, peer)) = sized.recv_from(&mut bytes) {
            let _ = sized.send_to(&[b'x'; 4000], peer);
        }
    });
    let published = mac1.publish(&[udp(5353, 53), udp(5354, 54), tcp(5000, 80)]);
    let lan = &lab.others[0];
    let long = vec![b'y'; 4000];
    let answer = ask_from(lan, (HOST, 5353), &long)?;
    // By way of the host's reassembly and the proxy.
    assert_eq!(answer.len(), "10.0.2.5 ".len() + long.len());
    assert_eq!(counted("requests, UDP")?, 0);
    let answer = ask_from(lan, (HOST, 5354), b"how long?")?;
    assert_eq!(answer, "x".repeat(4000));
    assert_eq!(counted("later fragments, UDP")?, 2);
    assert_eq!(counted("never on the wire")?, 0);

    // The first fragment of a SYN, by hand.
    let mut packet = vec![
        0x45, 0, 0, 48, 0, 7, 0x20, 0, 64, 6, 0, 0, 10, 0, 2, 7, 10, 0, 2, 4,
    ];
    packet.extend(4000_u16.to_be_bytes());
    packet.extend(5000_u16.to_be_bytes());
    packet.resize(48, 0);
    send_raw(lan, HOST, &packet);
    let end = Instant::now() + LIMIT * slow();
    while counted("fragmented TCP")? == 0 && Instant::now() < end {
        sleep(Duration::from_millis(5));
    }
    assert_eq!(counted("fragmented TCP")?, 1);
    published.stop();
    nothing_left()
}

/// A whole IPv4 packet; the kernel fills in its checksum.
fn send_raw(machine: &Machine, to: Ipv4Addr, packet: &[u8]) {
    use nix::sys::socket::{MsgFlags, SockaddrIn, sendto};
    use std::os::fd::AsRawFd;
    let sent = machine.run(|| {
        let raw = dockless::sys::raw::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW);
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
        let raw = raw.unwrap();
        Ok(sendto(raw.as_raw_fd(), packet, &to, MsgFlags::empty()).unwrap())
    });
    assert_eq!(sent.unwrap(), packet.len());
}

/// Until it holds, or the test fails.
fn soon(mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT * slow();
    while !holds() {
        assert!(Instant::now() < end, "it did not come about");
        sleep(Duration::from_millis(5));
    }
}

fn icmp_errors_are_rewritten() -> Verdict {
    let lab = Lab::here(1)?;
    let mac1 = container(5);
    serve(&mac1.netns, any(80));
    let published = mac1.publish(&[udp(5353, 53), tcp(5000, 80)]);
    let lan = &lab.others[0];
    // Nobody listens on UDP: the client hears it from the host's address, on
    // its own socket.
    let refused = ask_from(lan, (HOST, 5353), b"hi").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(counted("errors about requests")?, 1);

    // "Fragmentation needed, MTU 600" about a TCP answer: the container's
    // kernel believes it, so it found the connection.
    let mut stream = lan.run(|| Ok(connect((HOST, 5000)).unwrap()))?;
    let mut line = [0; 9];
    stream.read_exact(&mut line)?;
    let client = stream.local_addr()?.port();
    let seq = sequence(lan, &mut stream)?;
    let mut packet = vec![
        0x45, 0, 0, 56, 0, 8, 0, 0, 64, 1, 0, 0, 10, 0, 2, 1, 10, 0, 2, 4,
    ];
    let mut icmp = vec![
        3,
        4,
        0,
        0,
        0,
        0,
        600_u16.to_be_bytes()[0],
        600_u16.to_be_bytes()[1],
    ];
    icmp.extend([
        0x45, 0, 5, 220, 0, 9, 0x40, 0, 64, 6, 0, 0, 10, 0, 2, 4, 10, 0, 2, 7,
    ]);
    let sum = checksum(&icmp[8..28]);
    icmp[18..20].copy_from_slice(&sum);
    icmp.extend(5000_u16.to_be_bytes());
    icmp.extend(client.to_be_bytes());
    icmp.extend(seq.to_be_bytes());
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    packet.extend(icmp);
    send_raw(&lab.gateway, HOST, &packet);
    soon(|| counted("errors about answers").is_ok_and(|n| n == 1));
    let route = mac1
        .netns
        .run(|| Ok(judge::run(&["ip", "route", "get", "10.0.2.7"])))??;
    assert!(route.stdout.contains("mtu 600"), "{}", route.stdout);
    published.stop();
    Ok(())
}

/// The next sequence number of the container's side, from the wire.
fn sequence(lan: &Machine, stream: &mut TcpStream) -> Verdict<u32> {
    use nix::sys::socket::{MsgFlags, recv};
    use std::os::fd::AsRawFd;
    let raw = lan.run(|| {
        let tcp = dockless::sys::raw::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP);
        Ok(tcp.unwrap())
    })?;
    stream.write_all(b"x")?;
    let mut bytes = [0; 256];
    loop {
        let n = recv(raw.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
        // Its answer: one byte behind the headers.
        let header = 20 + usize::from(bytes[32] >> 4) * 4;
        if n == header + 1 {
            // Of that byte: it is what may be on its way.
            return Ok(u32::from_be_bytes(bytes[24..28].try_into()?) + 1);
        }
    }
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|c| u32::from(u16::from_be_bytes([c[0], *c.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!u16::try_from(sum).unwrap()).to_be_bytes()
}

fn ports_are_all_taken_or_none() -> Verdict {
    let _lab = Lab::here(0)?;
    let foreign = TcpListener::bind(any(7000))?;
    let error = publish::reserve(&[tcp(6999, 80), tcp(7000, 80)]).unwrap_err();
    let error = error.to_string();
    let phrase = "Bind for 0.0.0.0:7000 failed: port is already allocated (another program has it";
    assert!(error.starts_with(phrase), "{error}");
    // None is held, and one address suffices for a clash.
    drop(TcpListener::bind(any(6999))?);
    let one = PortRequest {
        host_ip: Some(HOST.into()),
        ..tcp(7000, 80)
    };
    assert!(publish::reserve(&[one]).is_err());
    let range = PortRequest {
        host_port: Some((7000, 7002)),
        ..tcp(0, 80)
    };
    let random = PortRequest {
        host_port: None,
        ..tcp(0, 80)
    };
    let held = publish::reserve(&[range, range, random, udp(7000, 80)])?;
    let ports: Vec<u16> = held.ports().iter().map(|p| p.host.port).collect();
    assert_eq!(ports[..2], [7001, 7002]);
    assert!((32768..61000).contains(&ports[2]), "{ports:?}");
    let error = publish::reserve(&[range]).unwrap_err().to_string();
    assert!(error.contains("port is already allocated"), "{error}");
    drop((held, foreign));
    publish::reserve(&[tcp(7000, 80), one]).unwrap_err();
    publish::reserve(&[one])?;
    Ok(())
}

fn two_containers_share_a_table_and_the_last_takes_it_away() -> Verdict {
    let lab = Lab::here(1)?;
    let (mac1, mac2) = (container(5), container(6));
    serve(&mac1.netns, any(80));
    serve(&mac2.netns, any(80));
    let one = mac1.publish(&[tcp(5000, 80)]);
    let rules = |objects: &[Value]| objects.iter().filter(|o| o.get("rule").is_some()).count();
    let before = rules(&judge::nft_ruleset()?);
    let two = mac2.publish(&[tcp(6000, 80), tcp(6001, 80), udp(6000, 80)]);
    // Rules never grow.
    assert_eq!(rules(&judge::nft_ruleset()?), before);
    assert_eq!(elements("to_addr")?, 4);
    for port in [5000, 6000, 6001] {
        assert_eq!(talk_from(&lab.others[0], (HOST, port))?, "10.0.2.7");
    }
    one.stop();
    assert_eq!(elements("to_addr")?, 3);
    assert!(talk_from(&lab.others[0], (HOST, 5000)).is_err());
    assert_eq!(talk_from(&lab.others[0], (HOST, 6001))?, "10.0.2.7");
    two.stop();
    nothing_left()?;
    let aliases = mac1
        .netns
        .run(|| Ok(judge::ip(&["addr", "show", "lo"])))??;
    assert!(!aliases.to_string().contains("169.254."), "{aliases}");
    Ok(())
}

fn crash_is_undone_from_the_step_alone() -> Verdict {
    let lab = Lab::here(1)?;
    let (mac1, mac2) = (container(5), container(6));
    serve(&mac2.netns, any(80));
    let steps = mac1.publish(&[tcp(5000, 80), udp(5000, 80)]).crash();
    let [
        Step::Unpublish {
            parent,
            aliases,
            ports,
        },
    ] = steps.as_slice()
    else {
        panic!("{steps:?}");
    };
    // The port's next holder is not kept by what the dead one left.
    let other = mac2.publish(&[tcp(5000, 80)]);
    assert_eq!(talk_from(&lab.others[0], (HOST, 5000))?, "10.0.2.7");
    for _ in 0..2 {
        publish::unpublish(parent, aliases, ports)?;
        assert_eq!(talk_from(&lab.others[0], (HOST, 5000))?, "10.0.2.7");
        assert_eq!(elements("to_addr")?, 1);
    }
    let steps = other.crash();
    let [Step::Unpublish { aliases, .. }] = steps.as_slice() else {
        panic!("{steps:?}");
    };
    for _ in 0..2 {
        publish::unpublish(parent, aliases, ports)?;
        nothing_left()?;
    }
    // Neither a parent nor a table.
    publish::unpublish(&IfName::new("gone0")?, aliases, ports)?;
    Ok(())
}

fn host_addresses_and_mac_are_followed() -> Verdict {
    let lab = Lab::here(1)?;
    let mac1 = container(5);
    serve(&mac1.netns, any(80));
    serve_udp(&mac1.netns, any(53));
    let published = mac1.publish(&[tcp(5000, 80), udp(53, 53)]);
    let lan = &lab.others[0];
    let mut kept = lan.run(|| Ok(connect((HOST, 5000)).unwrap()))?;
    let second = Ipv4Addr::new(10, 0, 2, 44);
    judge::run(&["ip", "addr", "add", "10.0.2.44/24", "dev", "eth1"])?.success()?;
    soon(|| elements("to_addr").is_ok_and(|n| n == 4));
    assert_eq!(talk_from(lan, (second, 5000))?, "10.0.2.7");
    assert_eq!(ask_from(lan, (second, 53), b"hi")?, "10.0.2.7 hi");

    judge::run(&["ip", "link", "set", "eth1", "address", "02:1a:0a:00:02:99"])?.success()?;
    let mac = || {
        let objects = judge::nft_ruleset().ok()?;
        let map = objects.iter().find(|o| o["map"]["name"] == "as_mac")?;
        let first = &map["map"]["elem"][0][1];
        Some(first.as_str()?.to_owned())
    };
    soon(|| mac().is_some_and(|m| m == "02:1a:0a:00:02:99"));
    judge::on(lan, &["ip", "neigh", "flush", "all"])?.success()?;
    let mut line = [0; 9];
    kept.read_exact(&mut line)?;
    kept.write_all(b"still here")?;
    let mut answer = [0; 10];
    kept.read_exact(&mut answer)?;
    assert_eq!(&answer, b"still here");

    judge::run(&["ip", "addr", "del", "10.0.2.44/24", "dev", "eth1"])?.success()?;
    soon(|| elements("to_addr").is_ok_and(|n| n == 2));
    assert_eq!(published.paths(), [Path::Fast, Path::Fast]);
    kept.write_all(b"still here")?;
    kept.read_exact(&mut answer)?;
    judge::run(&["ip", "addr", "flush", "dev", "eth1"])?.success()?;
    soon(|| published.paths() == [Path::Proxy, Path::Proxy]);
    published.stop();
    nothing_left()
}

fn a_service_on_one_address_is_left_to_the_proxy() -> Verdict {
    let lab = Lab::here(1)?;
    let mac1 = container(5);
    serve(&mac1.netns, (mac1.ip, 80));
    serve(&mac1.netns, any(81));
    let published = mac1.publish(&[tcp(5000, 80), tcp(5001, 81)]);
    assert!(published.with(|p| p.deadline()).is_some());
    soon(|| published.paths() == [Path::Proxy, Path::Fast]);
    let lan = &lab.others[0];
    assert_eq!(talk_from(lan, (HOST, 5000))?, "10.0.2.5");
    assert_eq!(talk_from(lan, (HOST, 5001))?, "10.0.2.7");
    // All are found: no further look.
    assert_eq!(published.with(|p| p.deadline()), None);
    published.stop();
    nothing_left()
}

fn only_the_published_port_crosses() -> Verdict {
    let lab = Lab::here(1)?;
    let mac1 = container(5);
    serve(&mac1.netns, any(80));
    serve(&mac1.netns, any(81));
    let published = mac1.publish(&[tcp(5000, 80)]);
    let lan = &lab.others[0];
    assert_eq!(talk_from(lan, (HOST, 5000))?, "10.0.2.7");
    for port in [80, 81] {
        let refused = talk_from(lan, (HOST, port)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
    let ping = |to: &str| judge::run(&["ping", "-c1", "-W1", to]);
    assert!(!ping("10.0.2.5")?.is_success());
    let alias = mac1
        .netns
        .run(|| Ok(judge::ip(&["addr", "show", "lo"])))??;
    let alias = alias[0]["addr_info"]
        .as_array()
        .and_then(|all| {
            all.iter()
                .find_map(|a| a["local"].as_str()?.strip_prefix("169."))
        })
        .map(|rest| format!("169.{rest}"))
        .unwrap();
    assert!(!ping(&alias)?.is_success());
    let inside = |to: &str| -> Verdict<bool> {
        let answer = mac1
            .netns
            .run(|| Ok(judge::run(&["ping", "-c1", "-W1", to])))??;
        Ok(answer.is_success())
    };
    assert!(!inside("10.0.2.4")? && inside("10.0.2.7")?);
    // A neighbour gets no answer for the alias, and the LAN reaches the
    // container's ping by its own address only.
    let who = lan.who_has(alias.parse()?, lan.ip, Duration::from_millis(300))?;
    assert_eq!(who, []);
    judge::on(lan, &["ping", "-c1", "-W2", "10.0.2.4"])?.success()?;
    published.stop();
    Ok(())
}

fn source_mode_and_a_wish_take_the_proxy() -> Verdict {
    let lab = Lab::here(1)?;
    for (last, mode, via) in [
        (5, MacvlanMode::Bridge, Via::Proxy),
        (6, MacvlanMode::Source, Via::Auto),
    ] {
        let mac = container_in(last, mode);
        serve(&mac.netns, any(80));
        let published = mac.publish_via(&[tcp(5000, 80)], via);
        assert_eq!(published.paths(), [Path::Proxy]);
        assert_eq!(published.journal, []);
        nothing_left()?;
        let seen = talk_from(&lab.others[0], (HOST, 5000))?;
        assert_eq!(seen, format!("10.0.2.{last}"));
        assert_eq!(talk((LOCAL, 5000))?, seen);
        published.stop();
    }
    Ok(())
}

/// The parent's address and MAC are the container's: who asks the host, asks
/// it at another link.
fn passthru_takes_the_proxy() -> Verdict {
    let _lab = Lab::here(0)?;
    let mac = container_in(7, MacvlanMode::Passthru);
    serve(&mac.netns, any(80));
    let published = mac.publish(&[tcp(5000, 80)]);
    assert_eq!(published.paths(), [Path::Proxy]);
    assert_eq!(talk((LOCAL, 5000))?, "10.0.2.7");
    published.stop();
    Ok(())
}

fn a_flushed_ruleset_leaves_the_proxy() -> Verdict {
    let lab = Lab::here(1)?;
    let mac1 = container(5);
    serve(&mac1.netns, any(80));
    let published = mac1.publish(&[tcp(5000, 80)]);
    judge::run(&["nft", "flush", "ruleset"])?.success()?;
    assert_eq!(talk_from(&lab.others[0], (HOST, 5000))?, "10.0.2.5");
    // The next change mends it.
    judge::run(&["ip", "addr", "add", "10.0.2.44/24", "dev", "eth1"])?.success()?;
    soon(|| talk_from(&lab.others[0], (HOST, 5000)).is_ok_and(|peer| peer == "10.0.2.7"));
    judge::run(&["nft", "flush", "ruleset"])?.success()?;
    published.stop();
    nothing_left()
}

fn without_a_network_it_leads_to_loopback() -> Verdict {
    let _lab = Lab::here(0)?;
    let netns = Netns::create()?;
    Rtnl::sandbox(&netns)?.loopback_up()?;
    serve(&netns, (LOCAL, 80));
    serve_udp(&netns, (LOCAL, 53));
    let target = Target {
        parent: None,
        mac: MacAddr([0; 6]),
        ip: LOCAL,
        reach: None,
        mode: MacvlanMode::Bridge.into(),
    };
    let published = publish(&netns, target, &[tcp(5000, 80), udp(53, 53)], Via::Auto);
    assert_eq!(talk((HOST, 5000))?, "127.0.0.1");
    assert_eq!(ask((LOCAL, 53), b"hi")?, b"127.0.0.1 hi");
    // Nobody there: a reset, not an end.
    let nobody = TcpStream::connect_timeout(&(LOCAL, 5000).into(), LIMIT)?;
    drop(nobody);
    published.stop();
    Ok(())
}

fn routed_clients_and_twice_published_ports() -> Verdict {
    let lab = Lab::here(0)?;
    let mac1 = container(5);
    serve(&mac1.netns, any(80));
    let published = mac1.publish(&[tcp(5000, 80), tcp(5001, 80)]);
    let far = Ipv4Addr::new(172, 31, 0, 9);
    lab.gateway.route_for(far, HOST)?;
    for port in [5000, 5001, 5000] {
        assert_eq!(talk_from(&lab.gateway, (HOST, port))?, "172.31.0.9");
    }
    published.stop();
    Ok(())
}

fn proxy_moves_much_and_holds_back() -> Verdict {
    const MUCH: usize = 64 << 20;
    let _lab = Lab::here(0)?;
    let mac1 = container(5);
    serve(&mac1.netns, any(80));
    let published = mac1.publish_via(&[tcp(5000, 80)], Via::Proxy);
    let mut stream = connect((LOCAL, 5000))?;
    let mut line = [0; 9];
    stream.read_exact(&mut line)?;
    let mut writer = stream.try_clone()?;
    // Nobody reads the echo yet: the writer must come to a halt.
    let sent = Arc::new(Mutex::new(0));
    let count = Arc::clone(&sent);
    let writing = thread::spawn(move || {
        let chunk: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
        for _ in 0..MUCH / chunk.len() {
            writer.write_all(&chunk).unwrap();
            *count.lock().unwrap() += chunk.len();
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut halted = 0;
    let mut rounds = 0;
    soon(|| {
        let before = std::mem::replace(&mut halted, *sent.lock().unwrap());
        rounds = published.rounds();
        sleep(Duration::from_millis(300));
        before == halted && *sent.lock().unwrap() == halted && halted > 0
    });
    assert!(halted < MUCH, "{halted} bytes went nowhere");
    // And the loop sleeps meanwhile.
    assert!(published.rounds() - rounds < 5);
    let mut back = Vec::new();
    stream.read_to_end(&mut back)?;
    writing.join().unwrap();
    assert_eq!(back.len(), MUCH + 3);
    assert!(
        back[..MUCH]
            .iter()
            .zip((0..=255_u8).cycle())
            .all(|(a, b)| *a == b)
    );
    soon(|| published.with(|p| p.deadline()).is_none());

    // A reset passes through, and frees the place.
    let stream = connect((LOCAL, 5000))?;
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &now)?;
    drop(stream);
    assert_eq!(talk((LOCAL, 5000))?, "10.0.2.5");
    published.stop();

    // Nobody listens: a reset.
    let published = mac1.publish_via(&[tcp(5000, 99)], Via::Proxy);
    let refused = connect((LOCAL, 5000)).and_then(|mut s| s.read(&mut [0; 1]));
    assert_eq!(
        refused.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
    published.stop();
    Ok(())
}

fn out_of_fds_it_waits() -> Verdict {
    use nix::sys::resource::{Resource, setrlimit};
    let lab = Lab::here(1)?;
    let mac1 = container(5);
    serve(&mac1.netns, any(80));
    let published = mac1.publish_via(&[tcp(5000, 80)], Via::Proxy);
    // Clients of another process: this one's fds are the proxy's too.
    let fds = std::fs::read_dir("/proc/self/fd")?.count() as u64;
    setrlimit(Resource::RLIMIT_NOFILE, fds + 3, 4096)?;
    // It may be reset at once, for want of fds: even before connect(2) is back.
    let first = connect((HOST, 5000));
    sleep(Duration::from_millis(300));
    let (rounds, began) = (published.rounds(), Instant::now());
    sleep(Duration::from_millis(500));
    // Ten looks a second, and some for what else there is.
    let looks = published.rounds() - rounds;
    let most = began.elapsed().as_millis() / 25;
    assert!(u128::from(looks) < most, "it spins: {looks}, not {most}");
    setrlimit(Resource::RLIMIT_NOFILE, 4096, 4096)?;
    drop(first);
    soon(|| talk_from(&lab.others[0], (HOST, 5000)).is_ok_and(|ip| ip == "10.0.2.5"));
    published.stop();
    Ok(())
}

fn at_rest_nothing_wakes() -> Verdict {
    let _lab = Lab::here(0)?;
    let mac1 = container(5);
    serve(&mac1.netns, any(80));
    let published = mac1.publish(&[tcp(5000, 80), udp(5000, 80)]);
    assert_eq!(talk((LOCAL, 5000))?, "10.0.2.5");
    soon(|| published.with(|p| p.deadline()).is_none());
    let rounds = published.rounds();
    sleep(Duration::from_secs(1));
    assert_eq!(published.rounds(), rounds);
    published.stop();
    Ok(())
}

/// Each change names the generation it was computed from; all get there.
fn many_start_at_once() -> Verdict {
    let lab = Lab::here(1)?;
    let containers: Vec<Container> = (100..116).map(container).collect();
    let starters: Vec<_> = containers
        .into_iter()
        .enumerate()
        .map(|(n, container)| {
            thread::spawn(move || {
                let port = 8000 + u16::try_from(n).unwrap();
                serve(&container.netns, any(80));
                let published = container.publish(&[tcp(port, 80)]);
                (container, published, port)
            })
        })
        .collect();
    let started: Vec<_> = starters.into_iter().map(|s| s.join().unwrap()).collect();
    assert_eq!(elements("to_addr")?, 16);
    for (_, published, port) in &started {
        assert_eq!(published.paths(), [Path::Fast]);
        assert_eq!(talk_from(&lab.others[0], (HOST, *port))?, "10.0.2.7");
    }
    let enders: Vec<_> = started
        .into_iter()
        .map(|(_, published, _)| thread::spawn(|| published.stop()))
        .collect();
    for ender in enders {
        ender.join().unwrap();
    }
    nothing_left()
}
