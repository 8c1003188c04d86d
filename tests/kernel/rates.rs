//! Rates, broadcast knobs, what a link receives, `stats`, `network set`: judged
//! by `tc -j`, `nft -j`, `ip -j`, `bridge -j`, and by iperf3 on the LAN.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dockless::lab::{Lab, Machine};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoMacVlan, LinkAttribute, LinkInfo, LinkMessage};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use serde_json::{Value, json};

use crate::harness::{LEFT_OUT, Stop, Test, Verdict, failed};
use crate::judge::{self, ask, inside, ip_in, refused, remove_all, said};

pub(crate) fn tests() -> Vec<Test> {
    let judged = [
        Test::new(shown_by_tc_and_nft_and_kept),
        Test::new(each_network_has_its_own),
        Test::new(nobody_inside_lifts_them),
        Test::new(changed_while_it_runs_and_while_it_does_not),
        Test::new(a_half_that_cannot_be_had),
        Test::new(broadcast_knobs),
        Test::new(every_groups_frames),
        Test::new(all_frames_of_a_parent_of_ones_own),
        Test::new(stats_say_what_was_used),
        Test::new(an_address_changes_in_place),
        Test::new(what_cannot_be_changed_stays),
        Test::new(a_gateway_of_its_own),
    ];
    let mut all: Vec<Test> = judged
        .into_iter()
        .map(|test| test.needs(&["ip", "nft", "tc", "bridge", "ping"]))
        .collect();
    all.push(
        Test::new(throughput_is_the_rate)
            .needs(&["iperf3", "nsenter"])
            .limit_s(120),
    );
    all
}

// ---- what the tests say to dockless -----------------------------------------

fn network(options: &[&str], name: &str) -> Verdict {
    let head = ["network", "create", "-d", "macvlan", "-o", "parent=eth1"];
    said(&[&head[..], options, &[name]].concat()).map(drop)
}

const SUBNET: [&str; 2] = ["--subnet=10.0.2.0/24", "--gateway=10.0.2.1"];

fn run(name: &str, network: &str, flags: &[&str]) -> Verdict {
    let head = ["run", "-d", "--name", name, "--network", network];
    said(&[&head[..], flags, &["tester"]].concat()).map(drop)
}

fn link_of(container: &str, network: &str) -> Verdict<Value> {
    let template = format!("{{{{json .Dockless.Links.{network}}}}}");
    Ok(serde_json::from_str(&said(&[
        "inspect", "-f", &template, container,
    ])?)?)
}

/// What tc says of a link's root: rate and burst in bytes, latency in µs.
fn tbf(container: &str, link: &str) -> Verdict<Option<Value>> {
    let all = inside(container, &["tc", "-j", "-s", "qdisc", "show", "dev", link])?.json()?;
    let of_kind = |q: &&Value| q["kind"] == "tbf" && q["root"] == true;
    let found = all.as_array().and_then(|list| list.iter().find(of_kind));
    Ok(found.map(|q| q["options"].clone()))
}

/// The limits that nft shows: (chain, hook, bytes a second).
fn limits(container: &str, link: &str) -> Verdict<Vec<(String, String, u64)>> {
    let table = format!("dockless-rate-{link}");
    let list = inside(container, &["nft", "-j", "list", "ruleset"])?.json()?;
    let objects = list["nftables"].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for rule in objects.iter().filter_map(|o| o.get("rule")) {
        if rule["table"] != table.as_str() {
            continue;
        }
        let chain = objects.iter().filter_map(|o| o.get("chain"));
        let mut chain = chain.filter(|c| c["table"] == rule["table"] && c["name"] == rule["chain"]);
        let hook = chain.next().map_or(Value::Null, |c| c["hook"].clone());
        let limit = rule["expr"]
            .as_array()
            .and_then(|list| list.iter().find_map(|e| e.get("limit")));
        let limit = limit.cloned().unwrap_or_default();
        assert_eq!(
            (&limit["inv"], &limit["per"]),
            (&json!(true), &json!("second"))
        );
        let scale = match limit["rate_unit"].as_str() {
            Some("kbytes") => 1024,
            Some("mbytes") => 1024 * 1024,
            _ => 1,
        };
        let rate = limit["rate"].as_u64().unwrap_or_default() * scale;
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        all.push((text(&rule["chain"]), text(&hook), rate));
    }
    Ok(all)
}

fn both(up: u64, down: u64) -> Vec<(String, String, u64)> {
    vec![
        ("up".into(), "egress".into(), up / 4 * 5),
        ("down".into(), "ingress".into(), down),
    ]
}

// ---- rates ------------------------------------------------------------------

fn shown_by_tc_and_nft_and_kept() -> Verdict {
    let _lan = Lab::here(0)?;
    network(&SUBNET, "lan")?;
    run("c1", "lan", &["--net-rate", "up=20mbit,down=50mbit"])?;
    let look = || -> Verdict {
        let shown = tbf("c1", "eth0")?.unwrap_or_default();
        assert_eq!(
            shown,
            json!({"rate": 2_500_000, "burst": 25_000, "lat": 50_000})
        );
        assert_eq!(limits("c1", "eth0")?, both(2_500_000, 6_250_000));
        let link = link_of("c1", "lan")?;
        assert_eq!(
            (&link["RateUp"], &link["RateDown"]),
            (&json!("20mbit"), &json!("50mbit"))
        );
        assert_eq!(link["RateDropped"], json!({"Up": 0, "Down": 0}));
        Ok(())
    };
    look()?;
    said(&["restart", "-t", "0", "c1"])?;
    look()?;
    said(&["stop", "-t", "0", "c1"])?;
    said(&["start", "c1"])?;
    look()?;
    inside("c1", &["ping", "-c1", "-W2", "10.0.2.1"])?.success()?;
    // Faster than 32 bits of bytes can say; and a small one, whose bucket is
    // some frames.
    run("c2", "lan", &["--net-rate", "up=40gbit"])?;
    assert_eq!(
        tbf("c2", "eth0")?.unwrap_or_default()["rate"],
        5_000_000_000_u64
    );
    run("c3", "lan", &["--net-rate", "up=64kbit"])?;
    let small = tbf("c3", "eth0")?.unwrap_or_default();
    assert_eq!(
        (&small["rate"], &small["burst"]),
        (&json!(8000), &json!(6128))
    );
    inside("c3", &["ping", "-c1", "-W2", "10.0.2.1"])?.success()?;
    run("c4", "lan", &[])?;
    assert_eq!(
        (tbf("c4", "eth0")?, limits("c4", "eth0")?),
        (None, Vec::new())
    );
    remove_all()
}

/// In the long form of `--network`, and given to `connect`; gone with the link.
fn each_network_has_its_own() -> Verdict {
    let _lan = Lab::here(0)?;
    network(&SUBNET, "lan")?;
    network(&["--subnet=10.0.3.0/24"], "other")?;
    run(
        "c1",
        "name=lan,rate-up=20mbit",
        &["--network", "name=other,rate-down=1mbit"],
    )?;
    assert_eq!(limits("c1", "eth0")?, both(2_500_000, 0)[..1]);
    assert_eq!(limits("c1", "eth1")?, both(0, 125_000)[1..]);
    assert_eq!(tbf("c1", "eth1")?, None);
    said(&["network", "disconnect", "other", "c1"])?;
    assert_eq!(limits("c1", "eth1")?, Vec::new());
    said(&[
        "network",
        "connect",
        "--net-rate",
        "up=8mbit,down=8mbit",
        "other",
        "c1",
    ])?;
    assert_eq!(limits("c1", "eth1")?, both(1_000_000, 1_000_000));
    assert_eq!(tbf("c1", "eth1")?.unwrap_or_default()["rate"], 1_000_000);
    assert_eq!(limits("c1", "eth0")?, both(2_500_000, 0)[..1]);
    remove_all()
}

/// Not even with all rights in the container's namespace: the queue can be
/// taken away, the limits in the hooks cannot.
fn nobody_inside_lifts_them() -> Verdict {
    let _lan = Lab::here(0)?;
    network(&SUBNET, "lan")?;
    run("c1", "lan", &["--net-rate", "up=800kbit,down=800kbit"])?;
    inside("c1", &["tc", "qdisc", "del", "dev", "eth0", "root"])?.success()?;
    let table = ["netdev", "dockless-rate-eth0"];
    for what in [["nft", "delete", "table"], ["nft", "flush", "table"]] {
        let answer = inside("c1", &[&what[..], &table].concat())?;
        assert!(!answer.is_success(), "{answer:?}");
    }
    inside("c1", &["nft", "flush", "ruleset"])?;
    assert_eq!(limits("c1", "eth0")?, both(100_000, 100_000));
    // 800 KB at once, through a bucket of 125 KB.
    judge::installed("python3")?;
    let flood = "import socket\n\
                 s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n\
                 for _ in range(800):\n\
                 \x20try: s.sendto(bytes(1000),('10.0.2.1',9))\n\
                 \x20except OSError: pass\n";
    inside("c1", &["python3", "-c", flood])?.success()?;
    let dropped = link_of("c1", "lan")?["RateDropped"].clone();
    assert!(dropped["Up"].as_u64() > Some(200), "{dropped}");
    remove_all()
}

fn changed_while_it_runs_and_while_it_does_not() -> Verdict {
    let _lan = Lab::here(0)?;
    network(&SUBNET, "lan")?;
    run("c1", "lan", &[])?;
    let set = |changes: &[&str]| said(&[&["network", "set", "c1", "lan"], changes].concat());
    set(&["rate-up=20mbit", "rate-down=50mbit"])?;
    assert_eq!(limits("c1", "eth0")?, both(2_500_000, 6_250_000));
    assert_eq!(tbf("c1", "eth0")?.unwrap_or_default()["rate"], 2_500_000);
    // One alone keeps the other.
    set(&["rate-up=8mbit"])?;
    assert_eq!(limits("c1", "eth0")?, both(1_000_000, 6_250_000));
    set(&["rate=up=off,down=1mbit"])?;
    assert_eq!(limits("c1", "eth0")?, both(0, 125_000)[1..]);
    assert_eq!(tbf("c1", "eth0")?, None);
    said(&["stop", "-t", "0", "c1"])?;
    set(&["rate-up=16mbit"])?;
    said(&["start", "c1"])?;
    assert_eq!(limits("c1", "eth0")?, both(2_000_000, 125_000));
    set(&["rate-up=off", "rate-down=off"])?;
    assert_eq!(
        (tbf("c1", "eth0")?, limits("c1", "eth0")?),
        (None, Vec::new())
    );
    inside("c1", &["ping", "-c1", "-W2", "10.0.2.1"])?.success()?;
    remove_all()
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// iperf3's server on a machine, for one client.
fn server(machine: &Machine) -> Verdict<Server> {
    let child = machine.run(|| {
        let mut server = Command::new("iperf3");
        server.args(["-s", "-1"]).stdout(Stdio::null());
        Ok(server.spawn())
    })??;
    std::thread::sleep(Duration::from_millis(300));
    Ok(Server(child))
}

/// Bits a second that arrived, without the first two seconds.
fn measured(lan: &Lab, direction: &[&str]) -> Verdict<f64> {
    let _server = server(&lan.gateway)?;
    let client = ["iperf3", "-J", "-c", "10.0.2.1", "-t", "6", "-O", "2"];
    let answer = inside("c1", &[&client[..], direction].concat())?.json()?;
    Ok(answer["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .unwrap_or_default())
}

fn throughput_is_the_rate() -> Verdict {
    let lan = Lab::here(0)?;
    network(&SUBNET, "lan")?;
    run("c1", "lan", &["--net-rate", "up=20mbit,down=50mbit"])?;
    for (direction, wanted) in [(&[][..], 20e6), (&["-R"], 50e6)] {
        let mut seen = Vec::new();
        // A machine that is busy with other tests can be too slow once.
        let near = (0..3).any(|_| {
            let is = measured(&lan, direction).unwrap_or_default();
            seen.push(is);
            (0.85 * wanted..1.15 * wanted).contains(&is)
        });
        let most = seen.iter().copied().fold(0.0, f64::max);
        if !near || most > 1.25 * wanted {
            return failed(format!("{seen:?} bit/s, not {wanted}"));
        }
    }
    let dropped = link_of("c1", "lan")?["RateDropped"].clone();
    assert!(dropped["Down"].as_u64() > Some(0), "{dropped}");
    remove_all()
}

// ---- broadcasts, and what is received ---------------------------------------

/// IFLA_MACVLAN_BC_CUTOFF, which iproute2 before 6.4 does not show.
fn cutoff(container: &str) -> Verdict<Option<i32>> {
    let pid: i32 = judge::pid_of(container)?.parse()?;
    let file = std::fs::File::open(format!("/proc/{pid}/ns/net"))?;
    let read = std::thread::spawn(move || -> std::io::Result<Vec<u8>> {
        nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let mut wanted = LinkMessage::default();
        wanted.attributes = vec![LinkAttribute::IfName("eth0".into())];
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::GetLink(wanted));
        message.header.flags = NLM_F_REQUEST;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let socket = Socket::new(NETLINK_ROUTE)?;
        socket.send(&bytes, 0)?;
        Ok(socket.recv_from_full()?.0)
    });
    let Ok(bytes) = read.join() else {
        return failed("the reader panicked");
    };
    let bytes = bytes?;
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes)?;
    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = message.payload else {
        return failed(format!("no link: {message:?}"));
    };
    let mut found = None;
    for attribute in link.attributes {
        let LinkAttribute::LinkInfo(infos) = attribute else {
            continue;
        };
        for info in infos {
            let LinkInfo::Data(InfoData::MacVlan(data)) = info else {
                continue;
            };
            for one in data {
                if let InfoMacVlan::BcCutoff(number) = one {
                    found = Some(number);
                }
            }
        }
    }
    Ok(found)
}

/// Somebody else's table has the name that nf_tables' half would have: the
/// queue, which came first, does not stay.
fn a_half_that_cannot_be_had() -> Verdict {
    let _lan = Lab::here(0)?;
    network(&SUBNET, "lan")?;
    run("c1", "lan", &[])?;
    let table = ["nft", "add", "table", "netdev", "dockless-rate-eth0"];
    inside("c1", &table)?.success()?;
    let set = ["network", "set", "c1", "lan", "rate-up=5mbit"];
    refused(&set, "dockless-rate-eth0")?;
    assert_eq!(tbf("c1", "eth0")?, None);
    assert_eq!(link_of("c1", "lan")?["RateUp"], "");
    inside(
        "c1",
        &["nft", "delete", "table", "netdev", "dockless-rate-eth0"],
    )?
    .success()?;
    said(&set)?;
    assert!(tbf("c1", "eth0")?.is_some());
    // As at a start.
    refused(
        &["network", "set", "c1", "lan", "ip=10.0.2.4"],
        "Address already in use: 10.0.2.4",
    )?;
    remove_all()?;
    said(&["network", "rm", "lan"]).map(drop)
}

fn broadcast_knobs() -> Verdict {
    let _lan = Lab::here(0)?;
    let knobs = ["-o", "bcqueuelen=5000", "-o", "bclim=-1"];
    let made = network(&[&SUBNET[..], &knobs].concat(), "lan");
    let is_old = matches!(&made, Err(Stop::Failed(why)) if why.contains("bclim needs Linux 6.4"));
    if is_old {
        println!("{LEFT_OUT}-o bclim: this kernel is older than Linux 6.4");
        network(&[&SUBNET[..], &knobs[..2]].concat(), "lan")?;
    } else {
        made?;
    }
    run("c1", "lan", &[])?;
    let data = ip_in("c1", &["link", "show", "eth0"])?[0]["linkinfo"]["info_data"].clone();
    assert_eq!(data["bcqueuelen"], 5000, "{data}");
    assert_eq!(data["usedbcqueuelen"], 5000, "{data}");
    assert_eq!(cutoff("c1")?, (!is_old).then_some(-1));
    remove_all()?;
    if is_old {
        return Ok(());
    }
    said(&["network", "rm", "lan"])?;
    network(&[&SUBNET[..], &["-o", "bc_cutoff=7"]].concat(), "lan")?;
    run("c1", "lan", &[])?;
    assert_eq!(cutoff("c1")?, Some(7));
    let data = ip_in("c1", &["link", "show", "eth0"])?[0]["linkinfo"]["info_data"].clone();
    assert_eq!(data["bcqueuelen"], 1000, "the kernel's own: {data}");
    let template = "{{json .Options}}";
    let options = said(&["network", "inspect", "-f", template, "lan"])?;
    assert!(options.contains(r#""bc_cutoff":"7""#), "{options}");
    remove_all()
}

fn flags(container: &str) -> Verdict<Vec<String>> {
    let link = ip_in(container, &["link", "show", "eth0"])?[0].clone();
    // `allmulti` and `promiscuity` count; the flags say what was asked for.
    let list = link["flags"].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    Ok(list.iter().map(text).collect())
}

fn every_groups_frames() -> Verdict {
    let _lan = Lab::here(0)?;
    network(&SUBNET, "lan")?;
    run("c1", "name=lan,allmulti=on", &[])?;
    assert!(flags("c1")?.contains(&"ALLMULTI".to_owned()));
    run("c2", "none", &[])?;
    run("c3", "lan", &[])?;
    assert!(!flags("c3")?.contains(&"ALLMULTI".to_owned()));
    said(&["network", "disconnect", "lan", "c3"])?;
    said(&[
        "network",
        "connect",
        "--driver-opt",
        "allmulti=on",
        "lan",
        "c3",
    ])?;
    assert!(flags("c3")?.contains(&"ALLMULTI".to_owned()));
    // What the kernel would not do is refused, and nothing of it stays.
    refused(
        &[
            "run",
            "-d",
            "--name",
            "c4",
            "--network",
            "name=lan,promisc=on",
            "tester",
        ],
        "promisc=on has no effect on a link in bridge mode",
    )?;
    refused(
        &[
            "run",
            "-d",
            "--network",
            "name=lan,extra-mac=00:00:5e:00:01:0a",
            "tester",
        ],
        "extra-mac has no effect on a link in bridge mode",
    )?;
    remove_all()
}

fn all_frames_of_a_parent_of_ones_own() -> Verdict {
    const VRRP: &str = "00:00:5e:00:01:0a";
    let lan = Lab::here(0)?;
    let passthru = ["-o", "macvlan_mode=passthru"];
    network(&[&SUBNET[..], &passthru].concat(), "lan")?;
    run(
        "c1",
        &format!("name=lan,promisc=on,extra-mac={VRRP}"),
        &["--ip", "10.0.2.5"],
    )?;
    assert!(flags("c1")?.contains(&"PROMISC".to_owned()));
    let filter = inside("c1", &["bridge", "-j", "fdb", "show", "dev", "eth0"])?.json()?;
    let is_there = |list: &Vec<Value>| list.iter().any(|e| e["mac"] == VRRP);
    assert!(filter.as_array().is_some_and(is_there), "{filter}");
    // A macvlan of the virtual router's MAC, as keepalived makes one, asks from
    // an address of its own; another's MAC does not get out.
    let mut heard = Vec::new();
    for (mac, ip) in [(VRRP, "10.0.2.100"), ("02:00:00:00:00:66", "10.0.2.101")] {
        let script = format!(
            "import socket,sys\n\
             s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\n\
             s.bind(('eth0',0x806))\n\
             mac=bytes.fromhex('{mac}'.replace(':',''))\n\
             ip=socket.inet_aton('{ip}')\n\
             body=bytes.fromhex('0001080006040001')+mac+ip+bytes(6)+socket.inet_aton('10.0.2.1')\n\
             try: s.send(b'\\xff'*6+mac+b'\\x08\\x06'+body+bytes(18))\n\
             except OSError: pass\n"
        );
        judge::installed("python3")?;
        inside("c1", &["python3", "-c", &script])?.success()?;
        // The gateway keeps who has asked it.
        std::thread::sleep(Duration::from_millis(200));
        let neighbours = judge::on(&lan.gateway, &["ip", "-j", "neigh", "show", ip])?.json()?;
        heard.push(neighbours.to_string().contains(mac));
    }
    assert_eq!(heard, [true, false]);
    assert_eq!(link_of("c1", "lan")?["Dropped"], json!({"MAC": 1}));
    remove_all()
}

// ---- stats ------------------------------------------------------------------

fn stats(args: &[&str]) -> Verdict<Vec<Value>> {
    let text = said(&[&["stats", "--no-stream", "--format", "json"], args].concat())?;
    let lines = text.lines().map(serde_json::from_str);
    Ok(lines.collect::<Result<_, _>>()?)
}

fn stats_say_what_was_used() -> Verdict {
    let _lan = Lab::here(0)?;
    network(&SUBNET, "lan")?;
    run("c1", "lan", &["--net-rate", "down=1mbit"])?;
    run("c2", "none", &[])?;
    said(&["stop", "-t", "0", "c2"])?;
    inside(
        "c1",
        &["ping", "-c20", "-s10000", "-i0.01", "-q", "10.0.2.1"],
    )?;
    let before = ip_in("c1", &["-s", "link", "show", "eth0"])?[0]["stats64"].clone();
    let all = stats(&[])?;
    let names: Vec<_> = all.iter().map(|row| row["Name"].clone()).collect();
    assert_eq!(names, ["c1"]);
    let row = &all[0];
    // As `docker stats` formats it, in bytes that only grow.
    let (rx, tx) = row["NetIO"]
        .as_str()
        .and_then(|t| t.split_once(" / "))
        .unwrap_or_default();
    let bytes = |text: &str| -> f64 {
        let at = text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len());
        let scale = match &text[at..] {
            "kB" => 1e3,
            "MB" => 1e6,
            _ => 1.0,
        };
        text[..at].parse::<f64>().unwrap_or_default() * scale
    };
    for (shown, counted) in [(rx, &before["rx"]["bytes"]), (tx, &before["tx"]["bytes"])] {
        let counted = counted.as_f64().unwrap_or_default();
        assert!(
            (bytes(shown) - counted).abs() < counted / 50.0 + 500.0,
            "{row} {before}"
        );
    }
    let threads = format!("/proc/{}/task", judge::pid_of("c1")?);
    let threads = std::fs::read_dir(threads)?.count().to_string();
    assert_eq!(row["PIDs"], threads.as_str(), "{row}");
    assert!(bytes(rx) > 100_000.0, "{row}");
    let percent = |key: &str| row[key].as_str().is_some_and(|t| t.ends_with('%'));
    assert!(percent("CPUPerc") && percent("MemPerc"), "{row}");
    assert!(
        row["MemUsage"]
            .as_str()
            .is_some_and(|t| t.contains("iB / ")),
        "{row}"
    );
    let lost = link_of("c1", "lan")?["RateDropped"]["Down"].clone();
    assert_eq!(row["RateDrops"], format!("{lost} / 0"), "{row}");
    assert!(lost.as_u64() > Some(0), "{row}");
    // All, one by name, a table, a template.
    assert_eq!(stats(&["-a"])?.len(), 2);
    let still = &stats(&["c2"])?[0];
    assert_eq!(
        (&still["PIDs"], &still["CPUPerc"]),
        (&json!("0"), &json!("0.00%"))
    );
    let table = said(&["stats", "--no-stream"])?;
    let head = "CONTAINER ID   NAME      CPU %     MEM USAGE / LIMIT";
    assert!(table.starts_with(head), "{table}");
    let template = ["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}"];
    assert_eq!(said(&template)?, format!("c1 {threads}\n"));
    let answer = ask(&["stats", "--no-stream", "nosuch"])?;
    assert!(
        answer.stderr.contains("No such container: nosuch"),
        "{answer:?}"
    );
    remove_all()
}

// ---- network set: addresses -------------------------------------------------

/// Address, MAC and next hop of the default route, as `ip` shows them.
fn is_on(container: &str) -> Verdict<(String, String, String)> {
    let addr = ip_in(container, &["-4", "addr", "show", "eth0"])?[0].clone();
    let info = &addr["addr_info"];
    let count = info.as_array().map_or(0, Vec::len);
    assert_eq!(count, 1, "{addr}");
    let link = ip_in(container, &["link", "show", "eth0"])?[0].clone();
    let route = ip_in(container, &["-4", "route", "show", "default"])?[0].clone();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let cidr = format!("{}/{}", text(&info[0]["local"]), info[0]["prefixlen"]);
    Ok((cidr, text(&link["address"]), text(&route["gateway"])))
}

fn at(ip: &str, mac: &str, gateway: &str) -> (String, String, String) {
    (ip.to_owned(), mac.to_owned(), gateway.to_owned())
}

fn an_address_changes_in_place() -> Verdict {
    let lan = Lab::here(0)?;
    network(&SUBNET, "lan")?;
    let flags = [
        "--ip",
        "10.0.2.5",
        "-p",
        "8080:5000",
        "--net-rate",
        "up=20mbit",
    ];
    run("c1", "lan", &flags)?;
    let reaches = |ip: &str| judge::on(&lan.gateway, &["ping", "-c1", "-W2", ip]);
    let published = || -> Verdict {
        let dial = "exec 3<>/dev/tcp/10.0.2.4/8080 \
                    && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3";
        let argv = ["timeout", "5", "bash", "-c", dial];
        // The program may not listen yet.
        for _ in 0..100 {
            if judge::on(&lan.gateway, &argv)?.stdout.contains("200") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        failed("the published port does not answer")
    };
    published()?;
    said(&[
        "network",
        "set",
        "c1",
        "lan",
        "ip=10.0.2.9",
        "rate-up=8mbit",
    ])?;
    assert_eq!(
        is_on("c1")?,
        at("10.0.2.9/24", "02:42:0a:00:02:09", "10.0.2.1")
    );
    reaches("10.0.2.9")?.success()?;
    assert!(!reaches("10.0.2.5")?.is_success());
    published()?;
    assert_eq!(limits("c1", "eth0")?, both(1_000_000, 0)[..1]);
    let hosts = judge::file_in("c1", "/etc/hosts")?;
    assert!(
        hosts.contains("10.0.2.9") && !hosts.contains("10.0.2.5"),
        "{hosts}"
    );
    let template = "{{.NetworkSettings.Networks.lan.IPAddress}} {{.Dockless.Links.lan.Guard}}";
    assert_eq!(said(&["inspect", "-f", template, "c1"])?, "10.0.2.9 on\n");
    // The old one is somebody else's to have; the new one is not.
    run("c2", "lan", &["--ip", "10.0.2.5"])?;
    refused(
        &[
            "run",
            "-d",
            "--network",
            "lan",
            "--ip",
            "10.0.2.9",
            "tester",
        ],
        "already in use",
    )?;
    // Who is called what follows.
    let answer = said(&["exec", "c2", "ping", "-c1", "c1"])?;
    assert!(answer.contains("10.0.2.9"), "{answer}");
    said(&["network", "set", "c1", "lan", "mac=02:00:00:00:00:77"])?;
    let now = at("10.0.2.9/24", "02:00:00:00:00:77", "10.0.2.1");
    assert_eq!(is_on("c1")?, now);
    reaches("10.0.2.9")?.success()?;
    said(&["stop", "-t", "0", "c1"])?;
    said(&["start", "c1"])?;
    assert_eq!(is_on("c1")?, now);
    // One that does not run has it at its next start.
    said(&["stop", "-t", "0", "c1"])?;
    said(&["network", "set", "c1", "lan", "ip=10.0.2.10"])?;
    said(&["start", "c1"])?;
    assert_eq!(is_on("c1")?.0, "10.0.2.10/24");
    remove_all()
}

fn what_cannot_be_changed_stays() -> Verdict {
    let _lan = Lab::here(1)?;
    network(&SUBNET, "lan")?;
    run("c1", "lan", &["--ip", "10.0.2.5"])?;
    run("c2", "lan", &["--ip", "10.0.2.6"])?;
    let before = is_on("c1")?;
    let set = |changes: &[&str], says: &str| {
        refused(&[&["network", "set", "c1", "lan"], changes].concat(), says)?;
        assert_eq!(is_on("c1")?, before, "{changes:?}");
        inside("c1", &["ping", "-c1", "-W2", "10.0.2.1"])?
            .success()
            .map(drop)
    };
    // A container's, another machine's, nobody's subnet.
    set(&["ip=10.0.2.6"], "already in use")?;
    set(&["ip=10.0.2.7"], "Address already in use: 10.0.2.7")?;
    set(
        &["ip=10.0.9.7"],
        "no configured subnet contains IP address 10.0.9.7",
    )?;
    // A gateway that is none.
    set(
        &["gw=10.0.9.1"],
        "gateway 10.0.9.1 is not another address of the container's subnet",
    )?;
    set(&["gw=10.0.2.5"], "gateway 10.0.2.5 is not another address")?;
    set(
        &["gw=10.0.2.77"],
        "the gateway 10.0.2.77 does not answer 10.0.2.5",
    )?;
    set(
        &["ip=10.0.2.9", "gw=10.0.2.77"],
        "the gateway 10.0.2.77 does not answer 10.0.2.9",
    )?;
    // What was leased for it is free again.
    run("c3", "lan", &["--ip", "10.0.2.9"])?;
    let template = "{{.NetworkSettings.Networks.lan.IPAddress}}";
    assert_eq!(said(&["inspect", "-f", template, "c1"])?, "10.0.2.5\n");
    said(&["restart", "-t", "0", "c1"])?;
    assert_eq!(is_on("c1")?, before);
    remove_all()
}

/// Another machine of the LAN instead of the network's gateway, from the start
/// or from now on.
fn a_gateway_of_its_own() -> Verdict {
    let _lan = Lab::here(1)?;
    network(&SUBNET, "lan")?;
    run("c1", "name=lan,gw=10.0.2.7", &["--ip", "10.0.2.5"])?;
    assert_eq!(is_on("c1")?.2, "10.0.2.7");
    said(&["network", "set", "c1", "lan", "gw=off"])?;
    assert_eq!(is_on("c1")?.2, "10.0.2.1");
    said(&["network", "set", "c1", "lan", "gw=10.0.2.7"])?;
    assert_eq!(is_on("c1")?.2, "10.0.2.7");
    inside("c1", &["ping", "-c1", "-W2", "10.0.2.7"])?.success()?;
    remove_all()
}
