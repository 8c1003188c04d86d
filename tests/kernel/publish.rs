//! Kernel tests of published ports: real containers (as far as the network
//! goes) on the lab's host, real clients on its other machines, `nft -j` and
//! captures as judges.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use dockless::base::{Cidr, IfName, MacAddr, PortMap, Proto, Step};
use dockless::lab::capture::{Capture, Content};
use dockless::lab::{Lab, Machine};
use dockless::net::publish::{self, Path, PortRequest, Publisher, Target, Via};
use dockless::netlink::route::Configure;
use dockless::netlink::{MacvlanMode, NewLink, Rtnl};
use dockless::sys::epoll::Epoll;
use dockless::sys::netns::{Netns, Sandbox};
use serde_json::Value;

use crate::harness::{Test, Verdict};
use crate::judge;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(lan_takes_the_fast_path_and_keeps_its_address).needs(&["nft"]),
        Test::new(host_is_served_by_the_proxy),
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
        mode,
        sources: &[],
        mac: (mode != MacvlanMode::Passthru).then_some(mac),
        mtu: None,
    };
    let index = host.macvlan_into(&new, &netns, &mut sandbox).unwrap();
    let configure = Configure {
        loopback_up: true,
        mac: None,
        addrs: vec![Cidr::new(ip.into(), 24).unwrap()],
        up: true,
        gateway: Some(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1))),
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
            mode: self.mode,
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

    fn ports(&self) -> Vec<PortMap> {
        self.with(|p| p.ports().to_vec())
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
    let o = judge::run(&["stdbuf", "-o0", "nft", "--debug=netlink", "list", "ruleset"])?;
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
