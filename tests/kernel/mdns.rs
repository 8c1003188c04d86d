//! Multicast DNS (`run --mdns`), judged by tshark(1), and by a machine of the
//! LAN that speaks it by hand (`mdns.py`).

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dockless::lab::{Lab, Machine};
use serde_json::Value;

use crate::harness::{Test, Verdict, failed, patience, slow};
use crate::judge::{self, inside, pid_of, said};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(announced_answered_and_taken_back).needs(&["ip", "dumpcap", "tshark", "python3"]),
        Test::new(who_has_the_name_keeps_it).needs(&["ip", "python3"]),
        Test::new(every_way_of_asking).needs(&["ip", "python3"]),
        Test::new(address_name_and_network_change).needs(&["ip", "dumpcap", "tshark", "python3"]),
        Test::new(noise_changes_nothing).needs(&["ip", "python3"]),
        Test::new(the_port_is_shared).needs(&["nsenter", "python3"]),
        Test::new(rules_let_it_pass).needs(&["python3"]),
    ]
    .into_iter()
    .map(|test| test.limit_s(90))
    .collect()
}

fn lan() -> Verdict<Lab> {
    let lan = Lab::here(1)?;
    network("lan", "10.0.2.0/24", &[])?;
    Ok(lan)
}

fn network(name: &str, subnet: &str, flags: &[&str]) -> Verdict {
    let subnet = format!("--subnet={subnet}");
    let create = ["network", "create", "-d", "macvlan", "-o", "parent=eth1"];
    said(&[&create[..], &[&subnet], flags, &[name]].concat()).map(drop)
}

fn up(name: &str, flags: &[&str]) -> Verdict {
    let run = ["run", "-d", "--mdns", "--name", name];
    said(&[&run[..], flags, &["tester"]].concat()).map(drop)
}

/// What `inspect` shows of one network.
fn shown(name: &str) -> Verdict<Value> {
    let text = said(&["inspect", "-f", "{{json .Dockless.MDNS}}", name])?;
    Ok(serde_json::from_str(&text)?)
}

/// Waits until the LAN knows a container by this name.
pub(crate) fn known_as(container: &str, network: &str, name: &str) -> Verdict {
    let end = Instant::now() + patience(15);
    loop {
        let shown = shown(container)?;
        if shown[network]["Name"] == name && shown[network]["State"] == "announced" {
            return Ok(());
        }
        if Instant::now() > end {
            return failed(format!("{container}: not {name}, but {shown}"));
        }
        sleep(Duration::from_millis(50));
    }
}

/// What the LAN answers to one who asks as resolvers do.
pub(crate) fn lookup(machine: &Machine, name: &str, kind: &str) -> Verdict<String> {
    let own = machine.ip.to_string();
    Ok(python(machine, &["lookup", &own, name, kind])?
        .trim()
        .to_owned())
}

/// Another machine of the LAN, as `mdns.py` has it.
fn python(machine: &Machine, args: &[&str]) -> Verdict<String> {
    let script = script();
    let argv = [&["python3", script.as_str()], args].concat();
    Ok(judge::on(machine, &argv)?.success()?.stdout)
}

fn script() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.join("tests/kernel/mdns.py").display().to_string()
}

/// Ended with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const WIRE: &str = "/run/tmp/mdns.pcap";

/// What goes over the link of another machine.
fn tap(machine: &Machine) -> Verdict<Program> {
    let mut command = Command::new("dumpcap");
    command
        .args(["-q", "-i", "eth0", "-w", WIRE, "-f", "udp port 5353"])
        .env("PATH", judge::search_path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = Program(machine.spawn(&mut command)?);
    let end = Instant::now() + patience(10);
    while fs::metadata(WIRE).map_or(0, |m| m.len()) < 24 {
        assert!(Instant::now() < end, "dumpcap does not listen");
        sleep(Duration::from_millis(20));
    }
    sleep(Duration::from_millis(300));
    Ok(child)
}

/// Fields of the messages that a filter takes.
fn read(filter: &str, fields: &[&str]) -> Verdict<Vec<Vec<String>>> {
    let mut argv = vec!["tshark", "-n", "-r", WIRE, "-Y", filter, "-T", "fields"];
    fields.iter().for_each(|field| argv.extend(["-e", field]));
    let out = judge::run(&argv)?.success()?.stdout;
    let row = |line: &str| line.split('\t').map(str::to_owned).collect();
    Ok(out.lines().map(row).collect())
}

/// Ends a capture when the last that is wanted is in its file.
fn end(wire: Program, filter: &str, count: usize) -> Verdict {
    written(filter, count)?;
    drop(wire);
    Ok(())
}

/// Waits until so many of them are in the capture's file; the test says what is
/// missing.
fn written(filter: &str, count: usize) -> Verdict {
    let end = Instant::now() + patience(10);
    let argv = ["tshark", "-n", "-r", WIRE, "-Y", filter];
    // A file that is being written may end within a packet.
    while judge::run(&argv)?.stdout.lines().count() < count && Instant::now() < end {
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

const GOODBYE: &str = "dns.flags.response == 1 && dns.resp.ttl == 0";

fn gaps(rows: &[Vec<String>]) -> Vec<f64> {
    let times: Vec<f64> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// Both families: three probes, two announcements, answers, a goodbye.
fn announced_answered_and_taken_back() -> Verdict {
    let lan = lan()?;
    lan.add_ipv6()?;
    let peer = &lan.others[0];
    network("dual", "10.0.3.0/24", &["--ipv6", "--subnet=fd00:2::/64"])?;
    let wire = tap(peer)?;
    let mine = ["--network=dual", "--ip=10.0.3.5", "--ip6=fd00:2::5"];
    up("my_web.1", &mine)?;
    known_as("my_web.1", "dual", "my-web-1.local")?;
    assert_eq!(shown("my_web.1")?["dual"].get("Taken"), None);
    // Two by each family, a second apart.
    let told = format!(
        "eth.src == {} && dns.flags.response == 1",
        said_mac("10.0.3.5")?
    );
    written(&told, 4)?;
    let addr = ["ip", "addr", "add", "10.0.3.7/24", "dev", "eth0"];
    judge::on(peer, &addr)?.success()?;
    let five6 = "5.0.0.0".to_owned() + &".0.0.0.0".repeat(5) + ".2.0.0.0.0.0.d.f.ip6.arpa";
    for (name, kind, answer) in [
        ("my-web-1.local", "A", "10.0.3.5"),
        ("MY-WEB-1.local", "AAAA", "fd00:2::5"),
        ("5.3.0.10.in-addr.arpa", "PTR", "my-web-1.local"),
        (&five6, "PTR", "my-web-1.local"),
        ("my-web-2.local", "A", ""),
    ] {
        let said = python(peer, &["lookup", "10.0.3.7", name, kind])?;
        assert_eq!(said.trim(), answer, "{name}");
    }
    said(&["rm", "-f", "my_web.1"])?;
    // One by each family.
    end(wire, GOODBYE, 2)?;
    let mac = said_mac("10.0.3.5")?;
    let late = f64::from(slow());
    for (family, source) in [("ip", "ip.src == 10.0.3.5"), ("ipv6", "ipv6")] {
        let ours = format!("eth.src == {mac} && {source} && mdns");
        let hops = match family {
            "ip" => "ip.ttl",
            _ => "ipv6.hlim",
        };
        let probes = read(
            &format!("{ours} && dns.flags.response == 0"),
            &[
                "frame.time_epoch",
                "dns.qry.name",
                "dns.qry.type",
                "dns.count.auth_rr",
                hops,
            ],
        )?;
        assert_eq!(probes.len(), 3, "{probes:?}");
        for probe in &probes {
            assert_eq!(probe[1..], ["my-web-1.local", "255", "2", "255"]);
        }
        assert!(
            // A late one comes nearer to the next one.
            gaps(&probes)
                .iter()
                .all(|g| (0.24 / late..0.6 * late).contains(g)),
            "{probes:?}"
        );
        let told = read(
            &format!("{ours} && dns.flags.response == 1 && udp.dstport == 5353"),
            &[
                "frame.time_epoch",
                "dns.a",
                "dns.aaaa",
                "dns.resp.ttl",
                "dns.resp.cache_flush",
                "dns.ptr.domain_name",
            ],
        )?;
        assert_eq!(told.len(), 3, "{told:?}");
        let name = ["my-web-1.local"; 2].join(",");
        for (at, ttl) in [(0, "120"), (1, "120"), (2, "0")] {
            let ttls = [ttl; 4].join(",");
            let row = &told[at];
            assert_eq!(row[1..4], ["10.0.3.5", "fd00:2::5", ttls.as_str()]);
            let flush = &row[4];
            assert!(
                matches!(flush.as_str(), "1,1,1,1" | "True,True,True,True"),
                "{flush}"
            );
            assert_eq!(row[5], name);
        }
        assert!(
            (0.9 / late..1.6 * late).contains(&gaps(&told)[0]),
            "{told:?}"
        );
    }
    // Nothing else of it went by this port.
    let stray = read(
        &format!("eth.src == {mac} && _ws.malformed"),
        &["frame.number"],
    )?;
    assert_eq!(stray.len(), 0);
    said(&["network", "rm", "lan", "dual"]).map(drop)
}

/// The MAC that follows from an address.
fn said_mac(ip: &str) -> Verdict<String> {
    let ip: std::net::Ipv4Addr = ip.parse()?;
    let [a, b, c, d] = ip.octets();
    Ok(format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}"))
}

fn events() -> Verdict<Vec<Value>> {
    let filter = ["--filter", "event=mdns", "--format", "json"];
    let range = ["--since", "1h", "--until", "0s"];
    let out = said(&[&["events"], &filter[..], &range].concat())?;
    let lines = out.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

fn who_has_the_name_keeps_it() -> Verdict {
    let lan = lan()?;
    let peer = &lan.others[0];
    let mut command = Command::new("python3");
    command.args([&script(), "rival", "10.0.2.7", "web.local", "web-2.local"]);
    command
        .env("PATH", judge::search_path())
        .stdout(Stdio::piped());
    let mut rival = Program(peer.spawn(&mut command)?);
    let mut line = String::new();
    BufReader::new(rival.0.stdout.take().unwrap()).read_line(&mut line)?;
    assert_eq!(line, "ready\n");
    up("web", &["--network=lan", "--ip=10.0.2.5"])?;
    known_as("web", "lan", "web-3.local")?;
    let state = shown("web")?;
    assert_eq!(state["lan"]["Taken"], "web-2.local");
    assert_eq!(state["lan"]["TakenBy"], "10.0.2.7");
    drop(rival);
    sleep(Duration::from_millis(1200));
    assert_eq!(lookup(peer, "web-3.local", "A")?, "10.0.2.5");
    // Claimed by somebody who does not insist: it stays the container's.
    python(peer, &["claim", "10.0.2.7", "web-3.local"])?;
    sleep(Duration::from_millis(1500));
    assert_eq!(lookup(peer, "web-3.local", "A")?, "10.0.2.5");
    let noted = events()?;
    assert!(!noted.is_empty(), "no event");
    let about = &noted[0]["Actor"]["Attributes"];
    assert_eq!(about["name"], "web");
    assert_eq!(about["mdns"], "web-3.local");
    assert_eq!(
        (&about["taken"], &about["takenBy"]),
        (&"web-2.local".into(), &"10.0.2.7".into())
    );
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "lan"]).map(drop)
}

fn every_way_of_asking() -> Verdict {
    let lan = lan()?;
    up("web", &["--network=lan", "--ip=10.0.2.5"])?;
    known_as("web", "lan", "web.local")?;
    sleep(Duration::from_millis(2300));
    let said_all = python(
        &lan.others[0],
        &["ask", "10.0.2.7", "web.local", "10.0.2.5"],
    )?;
    let wanted = [
        "usual group",
        "own True",
        "unicast alone",
        "known nothing",
        "half group",
        "other group",
        "case group",
        "aaaa group True",
        "foreign nothing",
    ];
    assert_eq!(said_all.lines().collect::<Vec<_>>(), wanted);
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "lan"]).map(drop)
}

fn address_name_and_network_change() -> Verdict {
    let lan = lan()?;
    let peer = &lan.others[0];
    network("two", "10.0.9.0/24", &[])?;
    up("web", &["--network=lan", "--ip=10.0.2.5"])?;
    known_as("web", "lan", "web.local")?;
    let wire = tap(peer)?;
    said(&["network", "set", "web", "lan", "ip=10.0.2.6"])?;
    known_as("web", "lan", "web.local")?;
    assert_eq!(lookup(peer, "web.local", "A")?, "10.0.2.6");
    said(&["rename", "web", "shop"])?;
    known_as("shop", "lan", "shop.local")?;
    assert_eq!(lookup(peer, "shop.local", "A")?, "10.0.2.6");
    assert_eq!(lookup(peer, "web.local", "A")?, "");
    // Its other name there is its own: no rival.
    said(&["network", "connect", "--ip=10.0.9.5", "two", "shop"])?;
    known_as("shop", "two", "shop.local")?;
    assert_eq!(shown("shop")?["lan"]["Name"], "shop.local");
    sleep(Duration::from_millis(1200));
    said(&["network", "disconnect", "two", "shop"])?;
    assert_eq!(shown("shop")?.get("two"), None);
    assert_eq!(lookup(peer, "shop.local", "A")?, "10.0.2.6");
    said(&["stop", "-t", "0", "shop"])?;
    assert_eq!(shown("shop").ok().and_then(|s| s.get("lan").cloned()), None);
    said(&["start", "shop"])?;
    known_as("shop", "lan", "shop.local")?;
    said(&["rm", "-f", "shop"])?;
    end(wire, GOODBYE, 5)?;
    let bye = read(GOODBYE, &["ip.src", "dns.a", "dns.resp.name"])?;
    let bye: Vec<_> = bye
        .iter()
        .map(|row| (row[1].as_str(), row[2].split(',').next().unwrap()))
        .collect();
    let wanted = [
        ("10.0.2.5", "web.local"),
        ("10.0.2.6", "web.local"),
        ("10.0.9.5", "shop.local"),
        ("10.0.2.6", "shop.local"),
        ("10.0.2.6", "shop.local"),
    ];
    assert_eq!(bye, wanted);
    said(&["network", "rm", "lan", "two"]).map(drop)
}

fn noise_changes_nothing() -> Verdict {
    let lan = lan()?;
    let peer = &lan.others[0];
    up("web", &["--network=lan", "--ip=10.0.2.5"])?;
    known_as("web", "lan", "web.local")?;
    sleep(Duration::from_millis(1200));
    let supervisor = ["inspect", "-f", "{{.Dockless.SupervisorPid}}", "web"];
    let before = (said(&supervisor)?, pid_of("web")?);
    python(peer, &["noise", "10.0.2.7", "web.local", "10.0.2.5"])?;
    sleep(Duration::from_millis(500));
    assert_eq!(lookup(peer, "web.local", "A")?, "10.0.2.5");
    assert_eq!(shown("web")?["lan"]["State"], "announced");
    assert_eq!((said(&supervisor)?, pid_of("web")?), before);
    assert_eq!(events()?.len(), 0);
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "lan"]).map(drop)
}

/// A responder of the container's own has the port too; without `--mdns` it is
/// alone there.
fn the_port_is_shared() -> Verdict {
    const BIND: &str = "import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[1] == 'shared': s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('', 5353))";
    let _lan = lan()?;
    up("web", &["--network=lan", "--ip=10.0.2.5"])?;
    said(&["run", "-d", "--name=plain", "--network=lan", "tester"])?;
    inside("web", &["python3", "-c", BIND, "shared"])?.success()?;
    assert!(!inside("web", &["python3", "-c", BIND, "alone"])?.is_success());
    inside("plain", &["python3", "-c", BIND, "alone"])?.success()?;
    let none = said(&["inspect", "-f", "{{json .Dockless}}", "plain"])?;
    assert!(!none.contains("MDNS"), "{none}");
    said(&["rm", "-f", "web", "plain"])?;
    said(&["network", "rm", "lan"]).map(drop)
}

fn rules_let_it_pass() -> Verdict {
    let lan = lan()?;
    let rules = ["--allow=5353/udp", "--allow=out:10.0.2.7", "--deny=all"];
    up(
        "web",
        &[&["--network=lan", "--ip=10.0.2.5"], &rules[..]].concat(),
    )?;
    known_as("web", "lan", "web.local")?;
    assert_eq!(lookup(&lan.others[0], "web.local", "A")?, "10.0.2.5");
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "lan"]).map(drop)
}
