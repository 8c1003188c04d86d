//! Address conflicts with real peers: other machines on the LAN that have, or
//! take, a container's address. Judged by `ip` and by captures on the switch.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use dockless::base::MacAddr;
use dockless::lab::capture::{Capture, Content, Frame};
use dockless::lab::{Lab, Machine};
use dockless::sys::{arp, raw};
use serde_json::Value;

use crate::harness::{Test, Verdict, patience};
use crate::judge;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(a_chosen_address_that_a_peer_has_is_refused).needs(&["ip"]),
        Test::new(a_given_address_that_peers_have_is_passed_over).needs(&["ip"]),
        Test::new(a_peer_with_the_same_mac_is_a_conflict).needs(&["ip"]),
        Test::new(a_switch_that_reflects_is_no_conflict).needs(&["ip", "bridge", "nsenter"]),
        Test::new(every_address_taken).needs(&["ip"]),
        Test::new(the_host_side_link_s_address_is_asked_for_too).needs(&["ip"]),
        Test::new(two_that_probe_at_once).needs(&["ip"]),
        Test::new(strict_takes_the_standard_s_time),
        Test::new(off_asks_nobody).needs(&["ip"]),
        Test::new(the_first_word_is_the_probe),
        Test::new(strange_siblings_are_asked_one_by_one).needs(&["ip"]),
        Test::new(a_sibling_with_the_mac_is_passed_over).needs(&["ip"]),
        Test::new(siblings_hear_the_second_announcement).needs(&["ip"]),
        Test::new(defended_once_in_ten_seconds).limit_s(90),
        Test::new(live_connect_looks_too).needs(&["ip"]),
        Test::new(a_dead_container_is_no_conflict),
    ]
}

fn dockless(args: &[&str]) -> Verdict<(Option<i32>, String, String)> {
    let program = judge::dockless().to_string_lossy().into_owned();
    let answer = judge::run(&[&[program.as_str()][..], args].concat())?;
    Ok((answer.code, answer.stdout, answer.stderr))
}

fn said(args: &[&str]) -> Verdict<String> {
    let (code, out, err) = dockless(args)?;
    assert_eq!(code, Some(0), "{args:?}: {err}");
    Ok(out)
}

fn lan() -> Verdict<Lab> {
    let lan = Lab::here(1)?;
    create("mac1", "10.0.2.0/24", &["--gateway=10.0.2.1"])?;
    Ok(lan)
}

fn create(name: &str, subnet: &str, more: &[&str]) -> Verdict {
    let subnet = format!("--subnet={subnet}");
    let create = ["network", "create", "-d", "macvlan", &subnet];
    let parent = ["-o", "parent=eth1", name];
    said(&[&create[..], more, &parent].concat()).map(drop)
}

/// A further address of a machine.
fn take(machine: &Machine, ip: &str) -> Verdict<String> {
    let addr = format!("{ip}/24");
    judge::on(machine, &["ip", "addr", "add", &addr, "dev", "eth0"])?.success()?;
    let links = judge::on(machine, &["ip", "-j", "link", "show", "eth0"])?.json()?;
    Ok(links[0]["address"].as_str().unwrap_or_default().to_owned())
}

fn address(container: &str) -> Verdict<String> {
    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
    Ok(said(&["inspect", "-f", template, container])?
        .trim()
        .to_owned())
}

/// As `inspect` shows them.
pub(crate) fn conflicts(container: &str) -> Verdict<Value> {
    let text = said(&["inspect", "-f", "{{json .Dockless.Conflicts}}", container])?;
    Ok(serde_json::from_str(&text)?)
}

/// Our own notes of conflicts, one JSON object each.
fn events() -> Verdict<Vec<Value>> {
    let filter = ["--filter", "event=conflict", "--format", "json"];
    let all = said(&[&["events", "--since=1h", "--until=0s"][..], &filter].concat())?;
    Ok(all
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

fn a_chosen_address_that_a_peer_has_is_refused() -> Verdict {
    let lan = lan()?;
    let mac = take(&lan.others[0], "10.0.2.99")?;
    for flags in [&["--rm"][..], &["-d", "--name", "kept"]] {
        let network = ["--network=mac1", "--ip=10.0.2.99", "tester", "ip", "link"];
        let (code, _, err) = dockless(&[&["run"], flags, &network].concat())?;
        assert_eq!(code, Some(125), "{err}");
        assert!(err.contains("Address already in use: 10.0.2.99"), "{err}");
        assert!(err.contains(&mac) && err.contains("eth1"), "{err}");
    }
    // Nothing half-made stays: the address is free for others at once.
    let status = "{{json .Status}}";
    let used = said(&["network", "inspect", "-f", status, "mac1"])?;
    assert!(used.contains("\"IPsInUse\":3"), "{used}");
    // The other machine goes; the container that is left starts.
    judge::on(
        &lan.others[0],
        &["ip", "addr", "del", "10.0.2.99/24", "dev", "eth0"],
    )?
    .success()?;
    said(&["start", "kept"])?;
    said(&["rm", "-f", "kept"])?;
    said(&["network", "rm", "mac1"]).map(drop)
}

fn a_given_address_that_peers_have_is_passed_over() -> Verdict {
    let lan = lan()?;
    let mac = take(&lan.others[0], "10.0.2.2")?;
    take(&lan.gateway, "10.0.2.3")?;
    let run = ["run", "-d", "--name", "web", "--network", "mac1", "tester"];
    let (code, _, err) = dockless(&run)?;
    assert_eq!(code, Some(0), "{err}");
    // .4 is the host's own.
    let told = format!(
        "WARNING: {mac} on the LAN of eth1 has 10.0.2.2: the container has 10.0.2.5 instead"
    );
    assert!(err.contains(&told), "{err}");
    assert_eq!(address("web")?, "10.0.2.5");
    let shown = conflicts("web")?;
    assert_eq!(shown[0]["IPv4Address"], "10.0.2.2");
    assert_eq!(shown[0]["MacAddress"], mac.as_str());
    assert_eq!(shown[0]["Outcome"], "avoided");
    assert_eq!(shown[1]["IPv4Address"], "10.0.2.3");
    let noted = events()?;
    assert_eq!(noted.len(), 2, "{noted:?}");
    assert_eq!(noted[0]["Actor"]["Attributes"]["address"], "10.0.2.2");
    assert_eq!(noted[0]["Actor"]["Attributes"]["name"], "web");
    // Its own address is asked for again, and has found another owner.
    said(&["stop", "web"])?;
    take(&lan.others[0], "10.0.2.5")?;
    let (code, _, err) = dockless(&["start", "web"])?;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("the container has 10.0.2.6 instead"), "{err}");
    assert_eq!(address("web")?, "10.0.2.6");
    let links = said(&["exec", "web", "ip", "addr"])?;
    assert!(links.contains("10.0.2.6/24") && !links.contains("10.0.2.5/24"));
    // The next one does not ask for all of these again; Docker's way does.
    let run = ["run", "-d", "--name=next", "--network=mac1", "tester"];
    let (code, _, err) = dockless(&run)?;
    assert_eq!(code, Some(0));
    // .7 is the peer's own, and nobody knew.
    assert!(
        err.contains("has 10.0.2.7: the container has 10.0.2.8"),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1, "{err}");
    assert_eq!(address("next")?, "10.0.2.8");
    said(&[
        "run",
        "-d",
        "--name=docker",
        "--acd=off",
        "--network=mac1",
        "tester",
    ])?;
    assert_eq!(address("docker")?, "10.0.2.2");
    // A note of long ago says nothing.
    let notes = Path::new(&std::env::var("DOCKLESS_STATE").unwrap()).join("conflicts");
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    for note in std::fs::read_dir(&notes).unwrap() {
        let note = std::fs::File::open(note.unwrap().path()).unwrap();
        note.set_modified(old).unwrap();
    }
    let run = ["run", "-d", "--name=later", "--network=mac1", "tester"];
    let (code, _, err) = dockless(&run)?;
    assert_eq!(code, Some(0));
    assert!(
        err.contains("has 10.0.2.3: the container has 10.0.2.9"),
        "{err}"
    );
    said(&["rm", "-f", "next", "docker", "later"])?;
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "mac1"]).map(drop)
}

/// Another host's container has its MAC by the same rule.
fn a_peer_with_the_same_mac_is_a_conflict() -> Verdict {
    let lan = lan()?;
    let twin = "02:42:0a:00:02:09";
    // As Linux comes, its eth0 would answer as well.
    let quiet = "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_ignore";
    judge::on(&lan.others[0], &["sh", "-c", quiet])?.success()?;
    for command in [
        &format!("ip link add twin link eth0 address {twin} type macvlan mode bridge"),
        "ip link set twin up",
        "ip addr add 10.0.2.9/24 dev twin",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        judge::on(&lan.others[0], &words)?.success()?;
    }
    let run = [
        "run",
        "--rm",
        "--network=mac1",
        "--ip=10.0.2.9",
        "tester",
        "ip",
        "link",
    ];
    let strict = [&["run", "--acd=strict"][..], &run[1..]].concat();
    let (code, _, err) = dockless(&strict)?;
    assert_eq!(code, Some(125), "{err}");
    assert!(err.contains("Address already in use: 10.0.2.9"), "{err}");
    assert!(err.contains(twin), "{err}");
    // A macvlan hears broadcasts from a work queue: on a busy machine its
    // answer may come too late for `fast`.
    judge::eventually("refused", 10, || {
        let (code, _, err) = dockless(&run)?;
        Ok(code == Some(125) && err.contains(twin))
    })?;
    // Chosen ones pass over it.
    said(&["network", "rm", "mac1"])?;
    create("mac2", "10.0.2.0/24", &["--ip-range=10.0.2.8/30"])?;
    let chosen = ["--network=mac2", "tester"];
    said(&[&["run", "-d", "--name=web"], &chosen[..]].concat())?;
    said(&[&["run", "-d", "--name=next", "--acd=strict"], &chosen[..]].concat())?;
    assert_eq!(
        (address("web")?, address("next")?),
        ("10.0.2.8".into(), "10.0.2.10".into())
    );
    said(&["rm", "-f", "web", "next"])?;
    said(&["network", "rm", "mac2"]).map(drop)
}

/// What a VEPA needs, and what a bond without LACP does: broadcasts come back
/// to the port that they came from. Who has an address is heard all the same.
fn a_switch_that_reflects_is_no_conflict() -> Verdict {
    let lan = Lab::here(1)?;
    let (pid, fd) = (std::process::id(), lan.switch().as_fd().as_raw_fd());
    let switch = format!("--net=/proc/{pid}/fd/{fd}");
    let reflects = ["link", "set", "dev", "to-host", "hairpin", "on"];
    judge::run(&[&["nsenter", &switch, "--", "bridge"], &reflects[..]].concat())?.success()?;
    for mode in ["bridge", "vepa"] {
        let mode = format!("macvlan_mode={mode}");
        create("mac1", "10.0.2.0/24", &["-o", &mode, "--gateway=10.0.2.1"])?;
        let run = |flags: &[&str]| {
            let words = ["run", "-d", "--name=web", "--network=mac1"];
            dockless(&[&words[..], flags, &["tester"]].concat())
        };
        for acd in ["--acd=fast", "--acd=strict"] {
            let (code, _, err) = run(&[acd, "--ip=10.0.2.5"])?;
            assert_eq!(code, Some(0), "{mode} {acd}: {err}");
            std::thread::sleep(Duration::from_millis(1200));
            assert_eq!(conflicts("web")?, Value::Array(Vec::new()), "{mode} {acd}");
            said(&["rm", "-f", "web"])?;
        }
        let (code, _, err) = run(&["--ip=10.0.2.7"])?;
        assert_eq!(code, Some(125), "{mode}: {err}");
        assert!(err.contains("Address already in use: 10.0.2.7"), "{err}");
        said(&["rm", "-f", "web"])?;
        said(&["network", "rm", "mac1"])?;
    }
    Ok(())
}

/// An address that the host takes for the host-side link: it would cut off
/// whoever has it.
fn the_host_side_link_s_address_is_asked_for_too() -> Verdict {
    let lan = lan()?;
    let mac = take(&lan.others[0], "10.0.2.9")?;
    let on = |ip| dockless(&["network", "host-access", "mac1", "on", "--ip", ip]);
    let told = format!("{mac} on the LAN has it");
    let (code, _, err) = on("10.0.2.9")?;
    assert_eq!(code, Some(1), "{err}");
    assert!(
        err.contains("Address already in use: 10.0.2.9") && err.contains(&told),
        "{err}"
    );
    let create = ["network", "create", "-d", "macvlan", "--subnet=10.0.2.0/24"];
    let range = ["--ip-range=10.0.2.64/28", "-o", "parent=eth1"];
    let more = ["--host-access=10.0.2.9", "mac2"];
    let (code, _, err) = dockless(&[&create[..], &range, &more].concat())?;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&told), "{err}");
    assert!(!said(&["network", "ls", "-q", "--filter=name=mac2"])?.contains(|_| true));
    // What is the link's already is not asked for: the host answers for it.
    let (code, _, err) = on("10.0.2.10")?;
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(on("10.0.2.10")?.0, Some(0));
    said(&["network", "rm", "mac1"]).map(drop)
}

/// .1 is the gateway's, .2 and .3 are the peer's: no other is left in a /29
/// whose range is a /30.
fn every_address_taken() -> Verdict {
    let lan = Lab::here(1)?;
    create("mac1", "10.0.2.0/24", &["--ip-range=10.0.2.64/31"])?;
    for ip in ["10.0.2.64", "10.0.2.65"] {
        take(&lan.others[0], ip)?;
    }
    let run = ["run", "--rm", "--network", "mac1", "tester", "ip", "link"];
    let (code, _, err) = dockless(&run)?;
    assert_eq!(code, Some(125), "{err}");
    assert!(err.contains("Address already in use: 10.0.2.6"), "{err}");
    assert!(err.contains("network mac1 has no other left"), "{err}");
    said(&["network", "rm", "mac1"]).map(drop)
}

pub(crate) fn send(machine: &Machine, frame: &[u8]) -> Verdict {
    machine.run(|| {
        let fail = |e: nix::Error| dockless::base::Error::sys("send", "ARP", e);
        let index = nix::net::if_::if_nametoindex("eth0").map_err(fail)?;
        let socket = raw::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(fail)?;
        let index = i32::try_from(index).unwrap();
        raw::bind_packet(std::os::fd::AsFd::as_fd(&socket), 0, index).map_err(fail)?;
        nix::sys::socket::send(
            socket.as_raw_fd(),
            frame,
            nix::sys::socket::MsgFlags::empty(),
        )
        .map_err(fail)?;
        Ok(())
    })?;
    Ok(())
}

pub(crate) const STRANGER: MacAddr = MacAddr([0x02, 0xee, 0, 0, 0, 1]);

/// A machine elsewhere starts with the same address: both must see it.
fn two_that_probe_at_once() -> Verdict {
    let lan = lan()?;
    let ip = Ipv4Addr::new(10, 0, 2, 50);
    let run = std::thread::spawn(|| {
        let run = ["run", "--rm", "--acd=strict", "--network=mac1"];
        dockless(&[&run[..], &["--ip=10.0.2.50", "tester", "ip", "link"]].concat())
            .map_err(|_| "no answer")
    });
    let end = Instant::now() + Duration::from_secs(8);
    while !run.is_finished() && Instant::now() < end {
        send(
            &lan.others[0],
            &arp::question(STRANGER, Ipv4Addr::UNSPECIFIED, ip),
        )?;
        std::thread::sleep(Duration::from_millis(20));
    }
    let (code, _, err) = run.join().unwrap().unwrap();
    assert_eq!(code, Some(125), "{err}");
    assert!(err.contains(&STRANGER.to_string()), "{err}");
    said(&["network", "rm", "mac1"]).map(drop)
}

/// The sender's addresses in the ARP questions about one address: those of
/// containers, beside which their parent asks by its own MAC.
fn askers(frames: &[Frame], about: &str) -> Vec<String> {
    let wanted: Ipv4Addr = about.parse().unwrap();
    let asker = |frame: &Frame| match frame.content {
        Content::Arp {
            question: true,
            ip,
            about,
            ..
        } if about == wanted && frame.from.0.starts_with(&[0x02, 0x42]) => Some(ip.to_string()),
        _ => None,
    };
    frames.iter().filter_map(asker).collect()
}

fn strict_takes_the_standard_s_time() -> Verdict {
    let lan = lan()?;
    let mut capture = Capture::start(&lan.gateway)?;
    let run = std::thread::spawn(|| {
        let run = ["run", "--rm", "--acd=strict", "--network=mac1"];
        said(&[&run[..], &["tester", "ip", "link"]].concat()).is_ok()
    });
    let mut times = Vec::new();
    for count in 1..=4 {
        let seen = capture.wait(patience(5), |frames| {
            askers(frames, "10.0.2.2").len() >= count
        })?;
        assert!(seen, "{times:?}");
        times.push(Instant::now());
    }
    assert!(run.join().unwrap());
    let seen = askers(capture.frames()?, "10.0.2.2");
    let wanted = ["0.0.0.0", "0.0.0.0", "0.0.0.0", "10.0.2.2"];
    assert_eq!(seen[..4], wanted);
    // PROBE_MIN to PROBE_MAX, and ANNOUNCE_WAIT.
    for (from, to) in [(0, 1), (1, 2)] {
        let gap = times[to] - times[from];
        assert!(
            gap > Duration::from_millis(950) && gap < Duration::from_millis(2500),
            "{gap:?}"
        );
    }
    assert!(times[3] - times[2] > Duration::from_millis(1950));
    said(&["network", "rm", "mac1"]).map(drop)
}

fn off_asks_nobody() -> Verdict {
    let lan = lan()?;
    take(&lan.others[0], "10.0.2.99")?;
    let mut capture = Capture::start(&lan.gateway)?;
    let run = ["run", "-d", "--name=web", "--acd=off", "--network=mac1"];
    said(&[&run[..], &["--ip=10.0.2.99", "tester"]].concat())?;
    let seen = askers(capture.frames()?, "10.0.2.99");
    assert_eq!(seen, ["10.0.2.99"]);
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "mac1"]).map(drop)
}

/// The kernel says nothing of the address before the verdict; then it answers.
fn the_first_word_is_the_probe() -> Verdict {
    let lan = lan()?;
    let mut capture = Capture::start(&lan.gateway)?;
    said(&["run", "-d", "--name=web", "--network=mac1", "tester"])?;
    let seen = askers(capture.frames()?, "10.0.2.2");
    assert_eq!(seen[..2], ["0.0.0.0", "10.0.2.2"]);
    let probes = capture.frames()?.iter().filter(|frame| {
        let ip = Ipv4Addr::UNSPECIFIED;
        matches!(frame.content, Content::Arp { question: true, ip: asker, .. } if asker == ip)
    });
    let mut askers: Vec<MacAddr> = probes.map(|frame| frame.from).collect();
    askers.sort_unstable();
    askers.dedup();
    assert_eq!(askers.len(), 2, "its own and its parent's: {askers:?}");
    let asked = lan.gateway.who_has(
        Ipv4Addr::new(10, 0, 2, 2),
        Ipv4Addr::UNSPECIFIED,
        Duration::from_secs(2),
    )?;
    assert_eq!(asked.len(), 1, "a probe of others is answered: {asked:?}");
    assert_eq!(conflicts("web")?, Value::Array(Vec::new()));
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "mac1"]).map(drop)
}

/// Another macvlan of the parent's, nobody's container: what ARP comes to it.
fn sibling(mac: &str) -> Verdict<OwnedFd> {
    let link = format!("link add sibling link eth1 address {mac} type macvlan mode bridge");
    for line in [&link, "link set sibling up"] {
        let words: Vec<&str> = ["ip"].into_iter().chain(line.split(' ')).collect();
        judge::run(&words)?.success()?;
    }
    let sibling = raw::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)?;
    let index = nix::net::if_::if_nametoindex("sibling")?;
    raw::bind_packet(sibling.as_fd(), 0x0806, i32::try_from(index)?)?;
    Ok(sibling)
}

/// The probe comes to a sibling that is a stranger, and to it alone; not to one
/// whose MAC says that it has another address.
fn strange_siblings_are_asked_one_by_one() -> Verdict {
    let lan = lan()?;
    for (mac, is_asked) in [("02:00:00:00:00:99", true), ("02:42:0a:00:02:63", false)] {
        let heard = sibling(mac)?;
        let add = "ip addr add 10.0.2.99/32 dev sibling noprefixroute";
        judge::run(&add.split(' ').collect::<Vec<_>>())?.success()?;
        let mut capture = Capture::start(&lan.gateway)?;
        let run = ["run", "--rm", "--network=mac1", "tester", "ip", "link"];
        said(&run)?;
        let seen = askers(capture.frames()?, "10.0.2.2");
        assert!(
            seen.contains(&"0.0.0.0".to_owned()),
            "the LAN is asked: {seen:?}"
        );
        let mut frame = [0; 64];
        let mut asked = Vec::new();
        while let Ok(42..) = nix::unistd::read(&heard, &mut frame) {
            asked.push((MacAddr(frame[..6].try_into()?), frame[28..32] == [0; 4]));
        }
        let expected = is_asked.then_some((mac.parse()?, true));
        assert_eq!(asked, expected.into_iter().collect::<Vec<_>>(), "{mac}");
        let run = ["run", "--rm", "--network=mac1", "--ip=10.0.2.99"];
        let (code, _, err) = dockless(&[&run[..], &["tester", "ip", "link"]].concat())?;
        assert_eq!(code, Some(125), "{err}");
        // Two links of a parent cannot have one MAC, either.
        let error = "Address already in use: 10.0.2.99";
        assert!(err.contains(error) && err.contains(mac), "{err}");
        judge::run(&["ip", "link", "del", "sibling"])?.success()?;
    }
    // Seventeen of them are told at once.
    let heard = sibling("02:00:00:00:00:99")?;
    for n in 0..16 {
        let add = format!("ip link add s{n} link eth1 type macvlan mode bridge");
        judge::run(&add.split(' ').collect::<Vec<_>>())?.success()?;
        let up = format!("ip link set s{n} up");
        judge::run(&up.split(' ').collect::<Vec<_>>())?.success()?;
    }
    let run = ["run", "--rm", "--network=mac1", "tester", "ip", "link"];
    said(&run)?;
    let mut frame = [0; 64];
    assert_eq!(nix::unistd::read(&heard, &mut frame)?, 42);
    assert_eq!((&frame[..6], &frame[28..32]), (&[0xff; 6][..], &[0; 4][..]));
    said(&["network", "rm", "mac1"]).map(drop)
}

/// A link of somebody else's with the MAC that follows from the first address:
/// the second one is taken, and, where it is asked for, the first refused.
fn a_sibling_with_the_mac_is_passed_over() -> Verdict {
    let _lan = lan()?;
    let _heard = sibling("02:42:0a:00:02:02")?;
    let run = ["run", "-d", "--name=web", "--network=mac1", "tester"];
    let (code, _, err) = dockless(&run)?;
    assert_eq!(code, Some(0), "{err}");
    let told = "02:42:0a:00:02:02 on the LAN of eth1 has 10.0.2.2: the container has 10.0.2.3";
    assert!(err.contains(told), "{err}");
    assert_eq!(address("web")?, "10.0.2.3");
    assert_eq!(conflicts("web")?[0]["Outcome"], "avoided");
    // The next one does not try it.
    let began = Instant::now();
    said(&["run", "-d", "--name=db", "--network=mac1", "tester"])?;
    // The one between is the host's.
    assert_eq!(address("db")?, "10.0.2.5");
    assert!(began.elapsed() < patience(1), "{:?}", began.elapsed());
    let run = ["run", "--rm", "--network=mac1", "--ip=10.0.2.2", "tester"];
    let (code, _, err) = dockless(&run)?;
    assert_eq!(code, Some(125), "{err}");
    let error = "Address already in use: 10.0.2.2";
    assert!(
        err.contains(error) && err.contains("--mac-address"),
        "{err}"
    );
    // One that joins while it runs.
    std::fs::remove_dir_all(Path::new(&std::env::var("DOCKLESS_STATE")?).join("conflicts"))?;
    create("mac2", "10.0.3.0/24", &[])?;
    said(&["rm", "-f", "web", "db"])?;
    said(&["run", "-d", "--name=web", "--network=mac2", "tester"])?;
    said(&["network", "connect", "mac1", "web"])?;
    assert!(
        address("web")?.starts_with("10.0.2.3 "),
        "{}",
        address("web")?
    );
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "mac1", "mac2"]).map(drop)
}

/// Three for the LAN, of which the first leaves by the parent; unless the MAC
/// was given by hand.
fn siblings_hear_the_second_announcement() -> Verdict {
    let lan = lan()?;
    let sibling = sibling("02:00:00:00:00:99")?;
    let ip = Ipv4Addr::new(10, 0, 2, 2);
    for (flags, expected) in [(&[][..], 2), (&["--mac-address=02:00:00:00:00:77"], 3)] {
        let mut capture = Capture::start(&lan.gateway)?;
        let run = ["run", "-d", "--name=web", "--network=mac1"];
        said(&[&run[..], flags, &["tester"]].concat())?;
        let announced = |frames: &[Frame]| {
            let about = |f: &&Frame| matches!(f.content, Content::Arp { question: true, ip: asker, .. } if asker == ip);
            frames.iter().filter(about).count()
        };
        capture.wait(patience(6), |frames| announced(frames) >= 3)?;
        let mut heard = 0;
        let mut frame = [0; 64];
        // Ethernet's header, and ARP's: who says it, and of whom.
        while let Ok(42..) = nix::unistd::read(&sibling, &mut frame) {
            let said_of = (&frame[28..32], &frame[38..42]);
            heard += usize::from(said_of == (&ip.octets()[..], &ip.octets()[..]));
        }
        assert_eq!(heard, expected, "{flags:?}");
        assert_eq!(announced(capture.frames()?), 3, "{flags:?}");
        said(&["rm", "-f", "web"])?;
    }
    said(&["network", "rm", "mac1"]).map(drop)
}

fn defended_once_in_ten_seconds() -> Verdict {
    let lan = lan()?;
    let ip = Ipv4Addr::new(10, 0, 2, 2);
    said(&["run", "-d", "--name=web", "--network=mac1", "tester"])?;
    // Until a claim cannot be an answer to the probe, and all is announced.
    std::thread::sleep(Duration::from_millis(2500));
    let pid = said(&["inspect", "-f", "{{.Dockless.SupervisorPid}}", "web"])?;
    let pid = pid.trim().to_owned();
    let switches = || -> Verdict<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|l| l.starts_with("voluntary")).unwrap();
        Ok(line.split_whitespace().nth(1).unwrap().parse()?)
    };
    std::thread::sleep(Duration::from_millis(2500));
    let asleep = switches()?;
    // What is no conflict does not wake it.
    for n in 0..200 {
        let other = Ipv4Addr::new(10, 0, 2, 100 + n % 100);
        send(&lan.others[0], &arp::question(STRANGER, other, other))?;
        send(&lan.others[0], &arp::question(STRANGER, other, ip))?;
    }
    assert_eq!(switches()?, asleep, "it was woken for nothing");

    let mut capture = Capture::start(&lan.gateway)?;
    let stolen = arp::question(STRANGER, ip, ip);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(12) {
        send(&lan.others[0], &stolen)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let own: MacAddr = "02:42:0a:00:02:02".parse()?;
    let defence = Content::Arp {
        question: true,
        mac: own,
        ip,
        about: ip,
    };
    let defended = capture.frames()?.iter().filter(|f| f.content == defence);
    assert_eq!(defended.count(), 2, "at once, and ten seconds later");
    let shown = conflicts("web")?;
    assert_eq!(shown[0]["Outcome"], "defended", "{shown}");
    assert_eq!(shown[0]["MacAddress"], STRANGER.to_string());
    assert_eq!(shown[0]["Defended"], 2);
    assert_eq!(events()?.len(), 2);
    assert!(switches()? - asleep < 20, "a flood keeps it awake");
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "mac1"]).map(drop)
}

fn live_connect_looks_too() -> Verdict {
    let lan = lan()?;
    let mac = take(&lan.others[0], "10.0.2.99")?;
    said(&["run", "-d", "--name=web", "--network=none", "tester"])?;
    said(&["rm", "-f", "web"])?;
    create("mac2", "10.0.3.0/24", &[])?;
    said(&["run", "-d", "--name=web", "--network=mac2", "tester"])?;
    let connect = ["network", "connect", "--ip=10.0.2.99", "mac1", "web"];
    let (code, _, err) = dockless(&connect)?;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("Address already in use: 10.0.2.99"), "{err}");
    assert!(err.contains(&mac), "{err}");
    assert!(!said(&["exec", "web", "ip", "link"])?.contains("eth1"));
    take(&lan.others[0], "10.0.2.2")?;
    let (code, _, err) = dockless(&["network", "connect", "mac1", "web"])?;
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("has 10.0.2.3 instead"), "{err}");
    assert!(address("web")?.contains("10.0.2.3"));
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "mac1", "mac2"]).map(drop)
}

/// Its interface answers until the kernel has taken its namespace apart.
fn a_dead_container_is_no_conflict() -> Verdict {
    let _lan = lan()?;
    for n in 0..8 {
        let mac = format!("--mac-address=02:00:00:00:01:{n:02x}");
        let run = [
            "run",
            "-d",
            "--name=web",
            "--network=mac1",
            "--ip=10.0.2.30",
        ];
        said(&[&run[..], &[&mac, "tester"]].concat())?;
        said(&["rm", "-f", "web"])?;
    }
    said(&["network", "rm", "mac1"]).map(drop)
}
