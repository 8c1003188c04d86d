//! Kernel tests of the commands themselves, from one to the next.

use crate::harness::{Test, Verdict, skipped, slow};
use crate::judge;
use dockless::lab::{Lab, Machine};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PUBLISHED: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 4), 5000);
const LIMIT: Duration = Duration::from_secs(3);

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(rm_is_over_when_run_returns),
        Test::new(rm_returns_when_the_supervisors_are_gone),
        Test::new(ports_follow_the_networks),
        Test::new(the_dead_are_in_nobody_s_way),
        Test::new(without_the_state_folder_nothing_runs_on),
        Test::new(the_supervisor_keeps_secrets_and_stops_when_told_to),
        Test::new(trace_shows_what_the_supervisor_sends),
        Test::new(thirty_two_at_once_on_a_small_subnet).limit_s(120),
        Test::new(docker_s_marks_are_there),
        Test::new(passthru_follows_others_and_gives_the_parent_back),
        Test::new(no_link_outlives_its_container),
        Test::new(no_link_outlives_a_killed_supervisor).needs(&["nft"]),
    ]
}

fn dockless(args: &[&str]) -> Verdict<(Option<i32>, String, String)> {
    let out = Command::new(judge::dockless())
        .args(args)
        .stdin(std::process::Stdio::null())
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((out.status.code(), text(&out.stdout), text(&out.stderr)))
}

fn network(subnet: &str) -> Verdict {
    network_in("bridge", subnet)
}

fn network_in(mode: &str, subnet: &str) -> Verdict {
    let subnet = format!("--subnet={subnet}");
    let mode = format!("macvlan_mode={mode}");
    said(&[
        "network",
        "create",
        "-d",
        "macvlan",
        &subnet,
        "--gateway=10.0.2.1",
        "-o",
        "parent=eth1",
        "-o",
        &mode,
        "mac1",
    ])
    .map(drop)
}

/// What it says when all is well.
fn said(args: &[&str]) -> Verdict<String> {
    let (code, out, err) = dockless(args)?;
    assert_eq!(code, Some(0), "{args:?}: {err}");
    Ok(out)
}

fn page(from: &Machine) -> Verdict<String> {
    let answer = from.get_soon(PUBLISHED, "/json", LIMIT)?;
    Ok(answer.body)
}

/// Comes back when the process, and what it holds, is gone.
fn kill_supervisor(name: &str) -> Verdict {
    let pid = said(&["inspect", "-f", "{{.State.Pid}}", name])?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:"));
    let parent = parent.unwrap().trim();
    judge::run(&["kill", "-9", parent])?.success()?;
    let end = Instant::now() + LIMIT * slow();
    // Its files are closed before it is a zombie, and after its memory is gone.
    let is_there = |stat: String| !stat.contains(") Z ");
    while std::fs::read_to_string(format!("/proc/{parent}/stat")).is_ok_and(is_there) {
        assert!(Instant::now() < end, "the supervisor does not die");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Whatever comes next after a supervisor was killed, the dead container's
/// address and name can be had.
fn the_dead_are_in_nobody_s_way() -> Verdict {
    const ADDRESS: [&str; 2] = ["--ip", "10.0.2.9"];
    let _lan = Lab::here(0)?;
    network("10.0.2.0/24")?;
    let create = ["network", "create", "-d", "macvlan", "--subnet=10.0.3.0/24"];
    said(&[&create[..], &["-o", "parent=eth1", "mac2"]].concat())?;
    let on = ["--network", "mac1", "tester"];
    let stopped = ["run", "-d", "--ip-reserve=off", "--name", "stopped"];
    said(&[&stopped[..], &ADDRESS, &on].concat())?;
    said(&["stop", "stopped"])?;
    said(&[
        "run",
        "-d",
        "--name",
        "other",
        "--network",
        "mac2",
        "tester",
    ])?;
    let next: [&[&str]; 4] = [
        &["network", "connect", "--ip", "10.0.2.9", "mac1", "other"],
        &["network", "disconnect", "mac1", "other"],
        &["restart", "stopped"],
        &["rename", "other", "dead"],
    ];
    for verb in next {
        if verb[1] != "disconnect" {
            said(&["stop", "stopped"])?;
            let run = ["run", "-d", "--rm", "--name", "dead"];
            said(&[&run[..], &ADDRESS[..], &on].concat())?;
            kill_supervisor("dead")?;
        }
        said(verb)?;
    }
    said(&["rm", "-f", "stopped", "dead"]).map(drop)
}

/// Nobody could stop what nobody knows of.
fn without_the_state_folder_nothing_runs_on() -> Verdict {
    let _lan = Lab::here(0)?;
    network("10.0.2.0/24")?;
    let run = [
        "run",
        "-d",
        "--ip-reserve=off",
        "--network",
        "mac1",
        "--ip",
        "10.0.2.9",
        "tester",
    ];
    let id = said(&run)?;
    let field = |field: &str| said(&["inspect", "-f", field, id.trim()]);
    if field("{{len .Dockless.Cgroups}}")?.trim() == "0" {
        return skipped("no cgroup can be made here");
    }
    let pid = field("{{.State.Pid}}")?;
    let program = format!("/proc/{}/exe", pid.trim());
    assert!(Path::new(&program).exists());
    std::fs::remove_dir_all(std::env::var("DOCKLESS_STATE").unwrap())?;
    assert_eq!(field("{{.State.Status}}")?.trim(), "exited");
    assert!(!Path::new(&program).exists(), "the program runs on");
    let second = said(&run)?;
    said(&["rm", "-f", id.trim(), second.trim()]).map(drop)
}

/// A port is where `ps` says, whatever networks come and go.
fn ports_follow_the_networks() -> Verdict {
    let lan = Lab::here(0)?;
    network("10.0.2.0/24")?;
    let other = "--subnet=10.0.3.0/24";
    let create = ["network", "create", "-d", "macvlan", other];
    said(&[&create[..], &["-o", "parent=eth1", "mac2"]].concat())?;
    let run = ["run", "-d", "--name", "web", "-p", "5000:5000", "tester"];
    said(&[&run[..2], &["--network", "mac1"], &run[2..]].concat())?;
    assert!(page(&lan.gateway)?.contains("10.0.2.2"));

    // No default route there: none but the proxy could answer the gateway.
    said(&["network", "connect", "mac2", "web"])?;
    assert!(page(&lan.gateway)?.contains("\"10.0.2.1\""));
    said(&["network", "disconnect", "mac1", "web"])?;
    assert_eq!(said(&["port", "web"])?, "5000/tcp -> 0.0.0.0:5000\n");
    let through_proxy = page(&lan.gateway)?;
    assert!(through_proxy.contains("10.0.3.1"), "{through_proxy}");

    said(&["network", "disconnect", "mac2", "web"])?;
    assert_eq!(said(&["port", "web"])?, "");
    let refused = lan.gateway.get(PUBLISHED, "/json", LIMIT).unwrap_err();
    assert!(refused.is_errno(libc::ECONNREFUSED), "{refused}");

    // Somebody else's by now: the container stays as it was.
    let theirs = std::net::TcpListener::bind(("0.0.0.0", 5000))?;
    let (code, _, err) = dockless(&["network", "connect", "mac1", "web"])?;
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("port is already allocated"), "{err}");
    assert!(!said(&["exec", "web", "ip", "link"])?.contains("eth0"));
    drop(theirs);
    said(&["network", "connect", "mac1", "web"])?;
    assert!(page(&lan.gateway)?.contains("10.0.2.2"));
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "mac1", "mac2"])?;
    Ok(())
}

/// Scripts go on with `network rm`, or run the same name again.
fn rm_is_over_when_run_returns() -> Verdict {
    let _lan = Lab::here(0)?;
    for _ in 0..10 {
        network("10.0.2.0/24")?;
        let (code, out, err) = dockless(&[
            "run",
            "--rm",
            "--name",
            "same",
            "--network",
            "mac1",
            "tester",
            "ip",
            "link",
        ])?;
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("eth0"), "{out}");
        assert_eq!(dockless(&["ps", "-aq"])?.1, "");
        let (code, _, err) = dockless(&["network", "rm", "mac1"])?;
        assert_eq!(code, Some(0), "{err}");
    }
    Ok(())
}

/// Not a process is left, with many sockets to close as well.
fn rm_returns_when_the_supervisors_are_gone() -> Verdict {
    let _lan = Lab::here(0)?;
    network("10.0.2.0/24")?;
    for rm in ["--rm=false", "--rm"] {
        let names = ["one", "two", "three"];
        let mut stats = Vec::new();
        for name in names {
            let run = ["run", "-d", rm, "--name", name, "--network=mac1", "tester"];
            said(&run)?;
            let pid = said(&["inspect", "-f", "{{.Dockless.SupervisorPid}}", name])?;
            stats.push(format!("/proc/{}/stat", pid.trim()));
        }
        assert!(stats.iter().all(|stat| Path::new(stat).exists()));
        said(&[&["rm", "-f"], &names[..]].concat())?;
        for stat in stats {
            // A zombie is its new parent's to reap.
            let left = std::fs::read_to_string(stat).unwrap_or_default();
            assert!(left.is_empty() || left.contains(") Z "), "{left}");
        }
    }
    Ok(())
}

/// What was typed may hold secrets, and everybody may look at `ps`. SIGTERM, as
/// a service manager sends it, is the container's own stop signal.
fn the_supervisor_keeps_secrets_and_stops_when_told_to() -> Verdict {
    let _lan = Lab::here(0)?;
    network("10.0.2.0/24")?;
    let run = ["run", "-d", "--name", "web", "-e", "PASSWORD=hunter2"];
    said(&[&run[..], &["--network", "mac1", "tester"]].concat())?;
    let pid = said(&["inspect", "-f", "{{.Dockless.SupervisorPid}}", "web"])?;
    let proc = Path::new("/proc").join(pid.trim());
    let shown = String::from_utf8_lossy(&std::fs::read(proc.join("cmdline"))?).into_owned();
    assert!(shown.starts_with("dockless: supervisor of web"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(std::fs::read_link(proc.join("cwd"))?, Path::new("/"));
    let supervisor = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGTERM)?;
    // The tester ends on SIGTERM by itself; killed, it would be 137.
    assert_eq!(said(&["wait", "web"])?, "0\n");
    said(&["rm", "web"])?;
    said(&["network", "rm", "mac1"])?;
    Ok(())
}

fn trace_shows_what_the_supervisor_sends() -> Verdict {
    let _lan = Lab::here(0)?;
    network("10.0.2.0/24")?;
    for how in ["text", "json"] {
        let how = format!("--trace-netlink={how}");
        let run = [
            "run",
            "-d",
            "--name",
            "traced",
            "--network",
            "mac1",
            "tester",
        ];
        let (code, _, err) = dockless(&[&[how.as_str()][..], &run].concat())?;
        assert_eq!(code, Some(0), "{err}");
        let made = |line: &str| line.contains("NEWLINK") && line.contains("macvlan");
        assert!(err.lines().any(made), "{err}");
        said(&["rm", "-f", "traced"])?;
    }
    said(&["network", "rm", "mac1"])?;
    Ok(())
}

/// A /27 has room for 29 beside its network, broadcast and gateway.
fn thirty_two_at_once_on_a_small_subnet() -> Verdict {
    let _lan = Lab::here(0)?;
    network("10.0.2.0/27")?;
    let runs: Vec<_> = (0..32)
        .map(|n| {
            std::thread::spawn(move || {
                let name = format!("many{n}");
                let run = ["run", "-d", "--name", &name, "--network", "mac1", "tester"];
                dockless(&run).map_err(|_| n)
            })
        })
        .collect();
    let mut started = 0;
    for run in runs {
        let (code, _, err) = run.join().unwrap().unwrap();
        if code == Some(0) {
            started += 1;
        } else {
            assert_eq!(code, Some(125), "{err}");
            assert!(
                err.contains("no available IPv4 addresses on this network's address pools: mac1"),
                "{err}"
            );
        }
    }
    assert_eq!(started, 29);
    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let ids = dockless(&["ps", "-q"])?.1;
    let mut inspect = vec!["inspect", "-f", template];
    inspect.extend(ids.lines());
    let addresses = dockless(&inspect)?.1;
    let distinct: std::collections::BTreeSet<&str> = addresses.lines().collect();
    assert_eq!(distinct.len(), 29, "{addresses}");
    assert!(!distinct.contains("10.0.2.1"));
    let all = dockless(&["ps", "-aq"])?.1;
    let mut rm = vec!["rm", "-f"];
    rm.extend(all.lines());
    assert_eq!(dockless(&rm)?.0, Some(0));
    let (code, _, err) = dockless(&["network", "rm", "mac1"])?;
    assert_eq!(code, Some(0), "{err}");
    Ok(())
}

/// Entrypoints ask for them; `inspect` tells what is hidden.
fn docker_s_marks_are_there() -> Verdict {
    let run = ["run", "-d", "--name", "one", "--network", "none", "tester"];
    let (code, _, err) = dockless(&run)?;
    assert_eq!(code, Some(0), "{err}");
    let of = |template: &str| dockless(&["inspect", "-f", template, "one"]).map(|out| out.1);
    let root = std::path::PathBuf::from(format!("/proc/{}/root", of("{{.State.Pid}}")?.trim()));
    let mark = std::fs::metadata(root.join(".dockerenv"))?;
    assert_eq!(mark.len(), 0);
    let mtab = std::fs::read_link(root.join("etc/mtab"))?;
    assert_eq!(mtab, std::path::Path::new("/proc/mounts"));
    let masked = of("{{json .HostConfig.MaskedPaths}}")?;
    assert!(masked.contains("\"/proc/kcore\""), "{masked}");
    assert!(masked.contains("\"/sys/firmware\""), "{masked}");
    assert_eq!(
        of("{{json .HostConfig.ReadonlyPaths}}")?.trim(),
        r#"["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]"#
    );
    assert_eq!(dockless(&["rm", "-f", "one"])?.0, Some(0));
    Ok(())
}

fn parent_mac() -> Verdict<String> {
    let links = judge::ip(&["link", "show", "eth1"])?;
    Ok(links[0]["address"].as_str().unwrap_or_default().to_owned())
}

/// The kernel clears a dead container's namespace up in the background, and
/// passthru wants its parent for itself: who comes right after a container that
/// was removed still finds it there.
fn passthru_follows_others_and_gives_the_parent_back() -> Verdict {
    let _lan = Lab::here(0)?;
    let own = parent_mac()?;
    let wanted = "02:00:00:00:00:09";
    let run = ["run", "-d", "--name", "one", "--network", "mac1"];
    let run_with = |flags: &[&str]| dockless(&[&run[..], flags, &["tester"]].concat());
    let remove = || -> Verdict {
        assert_eq!(dockless(&["rm", "-f", "one"])?.0, Some(0));
        assert_eq!(dockless(&["network", "rm", "mac1"])?.0, Some(0));
        Ok(())
    };
    let mac = "{{range .NetworkSettings.Networks}}{{.MacAddress}}{{end}}";
    for _ in 0..5 {
        network_in("vepa", "10.0.2.0/24")?;
        let (code, _, err) = run_with(&["--mac-address", wanted])?;
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(parent_mac()?, own);
        remove()?;

        network_in("passthru", "10.0.2.0/24")?;
        let (code, _, err) = run_with(&["--mac-address", wanted])?;
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(parent_mac()?, wanted);
        let (_, out, _) = dockless(&["exec", "one", "ip", "link"])?;
        assert!(out.contains(wanted), "{out}");
        assert_eq!(dockless(&["rm", "-f", "one"])?.0, Some(0));
        assert_eq!(parent_mac()?, own);

        // Nobody asks for a MAC: the container has the parent's.
        let (code, _, err) = run_with(&[])?;
        assert_eq!(code, Some(0), "{err}");
        assert_eq!(parent_mac()?, own);
        assert_eq!(dockless(&["inspect", "-f", mac, "one"])?.1.trim(), own);
        let second = ["run", "--rm", "--network", "mac1", "tester", "true"];
        let (code, _, err) = dockless(&second)?;
        assert_eq!(code, Some(125), "{err}");
        assert!(err.contains("invalid argument"), "{err}");
        remove()?;
    }
    Ok(())
}

/// A packet that waits for an ARP answer keeps the namespace of its socket for
/// two seconds more: longer than anybody waits for a parent.
fn no_link_outlives_its_container() -> Verdict {
    let _lan = Lab::here(0)?;
    let nobody = "10.0.2.99";
    for _ in 0..3 {
        network_in("bridge", "10.0.2.0/24")?;
        let run = ["run", "--rm", "--network", "mac1", "tester"];
        let ping = ["ping", "-c", "1", "-W", "1", nobody];
        let (code, out, err) = dockless(&[&run[..], &ping].concat())?;
        assert_eq!(code, Some(1), "{out}{err}");
        said(&["network", "rm", "mac1"])?;
        network_in("passthru", "10.0.2.0/24")?;
        said(&[&run[..], &["ip", "link"]].concat())?;
        said(&["network", "rm", "mac1"])?;
    }
    Ok(())
}

fn asker(server: SocketAddrV4) -> std::io::Result<TcpStream> {
    let mut client = TcpStream::connect(server)?;
    client.write_all(b"GET / HTTP/1.1\r\nHost: c1\r\n\r\n")?;
    Ok(client)
}

/// A connection whose data nobody takes keeps the namespace of a container that
/// is dead, and with it a link that answers: until the next command.
fn no_link_outlives_a_killed_supervisor() -> Verdict {
    let lan = Lab::here(0)?;
    network("10.0.2.0/24")?;
    let run = ["run", "-d", "--name", "c1", "--network", "mac1"];
    said(&[&run[..], &["--ip", "10.0.2.9", "tester"]].concat())?;
    let pid = said(&["inspect", "-f", "{{.State.Pid}}", "c1"])?;
    let ip = Ipv4Addr::new(10, 0, 2, 9);
    let server = SocketAddrV4::new(ip, 5000);
    lan.gateway.get_soon(server, "/json", LIMIT * slow())?;
    let deaf = "add table inet deaf; add chain inet deaf input { type filter hook input priority 0; }; \
                add rule inet deaf input tcp sport 5000 meta length > 60 drop";
    let deaf = lan.gateway.output(Command::new("nft").arg(deaf))?;
    assert!(deaf.status.success(), "{deaf:?}");
    let _client = lan.gateway.run(|| Ok(asker(server)))??;
    let has_unsent = || {
        let table = |name| std::fs::read_to_string(format!("/proc/{}/net/{name}", pid.trim()));
        let sockets = table("tcp")? + &table("tcp6")?;
        let mut queues = sockets.lines().filter_map(|l| l.split_whitespace().nth(4));
        Verdict::Ok(queues.any(|q| q != "tx_queue" && !q.starts_with("00000000:")))
    };
    judge::eventually("an answer is under way", 3, has_unsent)?;
    kill_supervisor("c1")?;
    let answers = || {
        let tell = Ipv4Addr::new(10, 0, 2, 1);
        lan.gateway.who_has(ip, tell, Duration::from_millis(200))
    };
    judge::eventually(
        "the dead container answers",
        3,
        || Ok(answers()?.len() == 1),
    )?;
    said(&["ps"])?;
    assert_eq!(answers()?, []);
    Ok(())
}
