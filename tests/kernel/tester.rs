//! The tester image: its `ip` and `ping` judged by the real ones in the same
//! namespace, its page by what a client sees.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dockless::base::{IfName, MacAddr};
use dockless::image::tester;
use dockless::lab::snapshot::{Mine, Snapshot};
use dockless::lab::{Lab, capture, contain};
use dockless::netlink::route::Configure;
use dockless::netlink::{MacvlanMode, NewLink, Rtnl};
use dockless::sys::netns::{Netns, Sandbox};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Test, Verdict, failed, patience};
use crate::judge::{self, Answer};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(ip_prints_what_iproute2_prints).needs(&["ip"]),
        Test::new(ping_prints_what_iputils_prints).needs(&["ip", "ping"]),
        Test::new(page_tells_who_asks),
        Test::new(first_process_ends_on_sigterm).needs(&["unshare"]),
        Test::new(no_other_name_works),
        Test::new(capture_sees_both_ways),
        Test::new(macvlan_meets_a_client_behind_the_gateway),
        Test::new(nothing_outlives_a_contained_run),
    ]
}

/// The built program under the names it has in the image.
fn applets() -> Verdict<PathBuf> {
    let folder = std::env::temp_dir().join("applets");
    std::fs::create_dir_all(&folder)?;
    for name in ["tester", "ping", "ip", "dockless"] {
        let link = folder.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(judge::dockless(), link)?;
        }
    }
    Ok(folder)
}

fn applet(folder: &Path, line: &str) -> Verdict<Answer> {
    let (name, args) = line.split_once(' ').unwrap_or((line, ""));
    let program = folder.join(name).display().to_string();
    let argv: Vec<_> = [program.as_str()]
        .into_iter()
        .chain(args.split_whitespace())
        .collect();
    judge::run(&argv)
}

fn original(line: &str) -> Verdict<Answer> {
    judge::run(&line.split_whitespace().collect::<Vec<_>>())
}

/// Times differ from run to run.
fn without_times(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let line = match (line.split_once(" time"), line.split_once("rtt ")) {
            (Some((before, _)), _) => before,
            (_, Some(_)) => "rtt",
            _ => line,
        };
        out += line;
        out.push('\n');
    }
    out
}

fn ip_prints_what_iproute2_prints() -> Verdict {
    let _lan = Lab::here(1)?;
    for line in [
        "addr add 10.0.2.44/24 dev eth1",
        "addr add 10.9.0.1 peer 10.9.0.2/32 dev eth1",
        "addr add 10.8.8.8/16 dev eth1 label eth1:x scope link",
        "route add 10.77.0.0/16 via 10.0.2.9 metric 50",
        "route add blackhole 10.78.0.0/16",
        "route add 10.79.0.0/16 dev eth1 src 10.0.2.44 scope link proto static",
        "route add 10.81.0.0/16 via 10.0.2.3 onlink dev eth1",
        "link add mv0 link eth1 type macvlan mode bridge",
        "link add br0 type bridge",
        "link add va type veth peer name vb",
        "link set va master br0",
        "link set va up",
        "link set vb mtu 1400 promisc on",
        "link property add dev vb altname another.name",
    ] {
        original(&format!("ip {line}"))?.success()?;
    }
    let folder = applets()?;
    for args in [
        "addr",
        "link",
        "route",
        "-br addr",
        "-br link",
        "-4 addr",
        "-j addr",
        "-j link",
        "-j route",
        "-j -br addr",
        "-j -br link",
        "-j -4 addr",
        "addr show dev eth1",
        "a s lo",
        "link show another.name",
        "route show dev eth1",
        "-j route show dev eth1",
        "addr show nope",
        "route show dev nope",
        "-x",
        "foo",
        "addr foo",
        "addr show dev",
    ] {
        let theirs = original(&format!("ip {args}"))?;
        let ours = applet(&folder, &format!("ip {args}"))?;
        assert_eq!(ours.stdout, theirs.stdout, "ip {args}");
        assert_eq!(ours.stderr, theirs.stderr, "ip {args}");
        assert_eq!(ours.code, theirs.code, "ip {args}");
    }
    Ok(())
}

fn ping_prints_what_iputils_prints() -> Verdict {
    let _lan = Lab::here(1)?;
    let folder = applets()?;
    // A fresh namespace allows nobody a ping socket: then a raw one. Opened for
    // them next, as in a container.
    for range in ["closed", "0 0"] {
        if range != "closed" {
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", range)?;
        }
        for args in [
            "-c 3 -i 0.1 10.0.2.7",
            "-c 2 -i 0.1 -q 10.0.2.1",
            "-c 1 -s 10 10.0.2.7",
            "-c1 -s 3000 10.0.2.7",
            "-c 1 localhost",
            "-c 1 -n localhost",
            "-c 2 -i 0.2 10.0.2.99",
            "-c x 10.0.2.7",
            "",
        ] {
            let line = format!("ping {args}");
            let (theirs, ours) = (original(&line)?, applet(&folder, &line)?);
            assert_eq!(
                without_times(&ours.stdout),
                without_times(&theirs.stdout),
                "{line} [{range}]"
            );
            assert_eq!(ours.stderr, theirs.stderr, "{line} [{range}]");
            assert_eq!(ours.code, theirs.code, "{line} [{range}]");
        }
        let mut child = Command::new(folder.join("ping"))
            .args(["-i", "0.1", "10.0.2.7"])
            .stdout(Stdio::piped())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(250));
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
        assert_eq!(child.wait()?.code(), Some(0));
        let text = std::io::read_to_string(child.stdout.take().ok_or_else(lost)?)?;
        assert!(text.contains("3 packets transmitted, 3 received"), "{text}");
    }
    Ok(())
}

fn lost() -> std::io::Error {
    std::io::Error::other("no pipe")
}

fn page_tells_who_asks() -> Verdict {
    let lan = Lab::here(1)?;
    let client = &lan.others[0];
    let image = tester::tester(&std::env::temp_dir().join("images"))?;
    assert!(image.lower.join("bin/ping").exists());
    let mut server = Command::new(judge::dockless())
        .arg0("tester")
        .arg("5001")
        .stdout(Stdio::piped())
        .spawn()?;
    let at: SocketAddrV4 = "10.0.2.4:5001".parse()?;
    let limit = patience(5);
    let json = client.get_soon(at, "/json", limit)?;
    let json: Value = serde_json::from_str(&json.body)?;
    assert_eq!(json["client"]["address"], "10.0.2.7");
    let eth1 = json["interfaces"]
        .as_array()
        .and_then(|list| list.iter().find(|i| i["name"] == "eth1"));
    let eth1 = eth1.cloned().unwrap_or_default();
    assert_eq!(eth1["addresses"][0], "10.0.2.4/24");
    let judged = judge::ip(&["link", "show", "eth1"])?;
    assert_eq!(eth1["mac"], judged[0]["address"]);
    assert_eq!(json["routes"][0]["gateway"], "10.0.2.1");
    let page = client.get(at, "/", limit)?;
    assert!(page.body.contains("10.0.2.7") && page.body.contains("default via 10.0.2.1"));
    assert_eq!(client.get(at, "/healthz", limit)?.body, "ok\n");
    assert_eq!(client.get(at, "/nope", limit)?.status, 404);
    let started = Instant::now();
    kill(Pid::from_raw(i32::try_from(server.id())?), Signal::SIGTERM)?;
    assert_eq!(server.wait()?.code(), Some(0));
    assert!(started.elapsed() < patience(1));
    let log = std::io::read_to_string(server.stdout.take().ok_or_else(lost)?)?;
    assert!(log.starts_with("listening on port 5001\n"), "{log}");
    assert!(log.contains("10.0.2.7 GET \"/json\" 200"), "{log}");
    Ok(())
}

/// A first process has no default signal actions.
fn first_process_ends_on_sigterm() -> Verdict {
    let lan = Lab::here(0)?;
    let folder = applets()?;
    let mut outer = Command::new("unshare")
        .args(["--pid", "--fork"])
        .arg(folder.join("tester"))
        .stdout(Stdio::null())
        .spawn()?;
    let server = "10.0.2.4:5000".parse()?;
    lan.gateway.get_soon(server, "/healthz", patience(5))?;
    let children = format!("/proc/{0}/task/{0}/children", outer.id());
    let first: i32 = std::fs::read_to_string(children)?.trim().parse()?;
    kill(Pid::from_raw(first), Signal::SIGTERM)?;
    assert_eq!(outer.wait()?.code(), Some(0));
    Ok(())
}

fn no_other_name_works() -> Verdict {
    let image = tester::tester(&std::env::temp_dir().join("images"))?;
    // This test program, not dockless, is what the library unpacks here; so
    // the file is replaced by the real one under the image's name.
    let program = image.lower.join("bin/applet-test/tester");
    std::fs::create_dir_all(program.parent().ok_or_else(lost)?)?;
    std::fs::copy(judge::dockless(), &program)?;
    let output = Command::new(&program).arg0("dockless").arg("ps").output()?;
    assert_eq!(output.status.code(), Some(127));
    assert!(output.stdout.is_empty());
    Ok(())
}

fn capture_sees_both_ways() -> Verdict {
    let lan = Lab::here(1)?;
    let client = &lan.others[0];
    let mut capture = capture::Capture::start(&lan.host)?;
    let answers = client.who_has(lan.host.ip, client.ip, Duration::from_millis(200))?;
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(capture.wait(patience(2), |f| f.len() >= 2)?);
    let frames = capture.frames()?;
    let text: Vec<_> = frames.iter().map(ToString::to_string).collect();
    assert!(
        text[0].ends_with("ARP who-has 10.0.2.4 tell 10.0.2.7"),
        "{text:?}"
    );
    assert!(
        text[1].ends_with(&format!("ARP 10.0.2.4 is-at {}", answers[0])),
        "{text:?}"
    );
    Ok(())
}

/// What the demo shows of step 3, on a macvlan made by hand: the container asks
/// for the gateway and answers with its own MAC, and the client's address stays.
fn macvlan_meets_a_client_behind_the_gateway() -> Verdict {
    let lan = Lab::here(0)?;
    let sandbox = Netns::<Sandbox>::create()?;
    let mut host = Rtnl::host()?;
    let mut inside = Rtnl::sandbox(&sandbox)?;
    let parent = host.link("eth1")?.ok_or_else(lost)?.index;
    let eth0 = IfName::new("eth0")?;
    let mac = MacAddr([2, 0x42, 10, 0, 2, 5]);
    let new = NewLink {
        name: &eth0,
        lower: parent,
        mode: MacvlanMode::Bridge.into(),
        sources: &[],
        mac: Some(mac),
        mtu: None,
        broadcast: dockless::netlink::Broadcast::default(),
    };
    let index = host.link_into(&new, &sandbox, &mut inside)?;
    let configure = Configure {
        loopback_up: true,
        addrs: vec!["10.0.2.5/24".parse()?],
        up: true,
        gateways: std::net::IpAddr::from(lan.gateway.ip).into(),
        ..Configure::default()
    };
    inside.configure(index, &configure)?;
    let mut server = sandbox.run(|| {
        let mut command = Command::new(judge::dockless());
        command.arg0("tester").stdout(Stdio::null());
        let failed = |e| dockless::base::Error::sys("start", "tester", e);
        command.spawn().map_err(failed)
    })?;
    let mut capture = capture::Capture::start(&lan.host)?;
    let client = Ipv4Addr::new(192, 0, 2, 9);
    lan.gateway.route_for(client, Ipv4Addr::new(10, 0, 2, 5))?;
    let at = "10.0.2.5:5000".parse()?;
    let page = lan.gateway.get_soon(at, "/json", patience(5))?;
    let json: Value = serde_json::from_str(&page.body)?;
    assert_eq!(json["client"]["address"], "192.0.2.9");
    assert!(capture.wait(patience(2), |frames| {
        let seen = |text: &str| {
            frames
                .iter()
                .any(|f| f.from == mac && f.to_string().contains(text))
        };
        seen("ARP who-has 10.0.2.1 tell 10.0.2.5") && seen("SYN ACK") && seen("ARP 10.0.2.5 is-at")
    })?);
    server.kill()?;
    server.wait()?;
    Ok(())
}

/// Whoever is interrupted or killed, no process stays and the undo runs.
fn nothing_outlives_a_contained_run() -> Verdict {
    const ROLE: &str = "CONTAINED_RUN";
    let marks = std::env::temp_dir().join("undone");
    if std::env::var_os(ROLE).is_some() {
        let undone = marks.clone();
        let ended = contain::contain(
            || {
                let sleep = Command::new("sleep").arg("60").spawn();
                sleep.and_then(|mut child| child.wait()).map_or(2, |_| 3)
            },
            move || drop(std::fs::write(&undone, "x")),
        )?;
        return if ended == contain::Ended::Code(0) {
            Ok(())
        } else {
            failed(format!("{ended:?}"))
        };
    }
    let mine = Mine {
        state: Path::new("/run"),
        containers: &[],
    };
    let before = Snapshot::take(mine)?;
    for who in ["outer", "outer, killed", "inner, killed"] {
        let _ = std::fs::remove_file(&marks);
        let mut outer = Command::new(std::env::current_exe()?)
            .env(ROLE, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = i32::try_from(outer.id())?;
        let children = |pid: i32| -> Option<i32> {
            let path = format!("/proc/{pid}/task/{pid}/children");
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        let inner = until(|| children(pid).filter(|&inner| children(inner).is_some()))?;
        let (victim, signal) = match who {
            "outer" => (pid, Signal::SIGINT),
            "outer, killed" => (pid, Signal::SIGKILL),
            _ => (inner, Signal::SIGKILL),
        };
        kill(Pid::from_raw(victim), signal)?;
        outer.wait()?;
        until(|| marks.exists().then_some(()))?;
        until(|| {
            contain::reap_orphans();
            let left = before.differences(&Snapshot::take(mine).ok()?);
            left.is_empty().then_some(())
        })?;
    }
    Ok(())
}

fn until<T>(mut ready: impl FnMut() -> Option<T>) -> Verdict<T> {
    let end = Instant::now() + patience(10);
    while Instant::now() < end {
        if let Some(found) = ready() {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    failed("it did not happen within 10 s")
}
