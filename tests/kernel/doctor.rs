//! `dockless doctor` on links in every condition, judged by `ip -j -d`, by
//! what the LAN sees of it, and by what the other commands then say.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use dockless::lab::capture::{Capture, Frame};
use dockless::lab::{Lab, Machine};
use serde_json::Value;

use crate::harness::{Test, Verdict, failed};
use crate::judge::{self, ask};

pub(crate) fn tests() -> Vec<Test> {
    let judged = [
        Test::new(good_parent),
        Test::new(bridge_port),
        Test::new(above_and_below_a_macvlan),
        Test::new(down_and_without_carrier),
        Test::new(mtu_of_a_network),
        Test::new(duplicate_addresses),
        Test::new(switch_that_drops_foreign_macs).needs(&["nft"]),
        Test::new(dhcp_servers),
        Test::new(without_rights).needs(&["setpriv"]),
        Test::new(no_probe_is_silent),
        Test::new(which_links),
    ];
    judged.into_iter().map(|test| test.needs(&["ip"])).collect()
}

struct Said {
    code: Option<i32>,
    json: Value,
}

impl Said {
    /// The check `name` of the first link.
    fn check(&self, name: &str) -> &Value {
        let checks = self.json["Links"][0]["Checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["Name"] == name);
        check.unwrap_or_else(|| panic!("no check {name}: {}", self.json))
    }

    fn is(&self, name: &str, verdict: &str, found: &str) {
        let check = self.check(name);
        let text = check["Found"].as_str().unwrap();
        assert!(
            check["Verdict"] == verdict && text.contains(found),
            "wanted {verdict}, {found}: {check}"
        );
    }

    fn advice(&self, name: &str) -> &str {
        self.check(name)["Advice"].as_str().unwrap_or_default()
    }
}

fn doctor(args: &[&str]) -> Verdict<Said> {
    let program = judge::dockless().to_str().unwrap();
    said_by(&[&[program, "doctor", "--json"], args].concat())
}

fn said_by(argv: &[&str]) -> Verdict<Said> {
    let answer = judge::run(argv)?;
    match serde_json::from_str::<Value>(&answer.stdout) {
        Ok(json) => {
            // The code is that of the worst verdict.
            let is_problem = json["Verdict"] == "problem";
            assert_eq!(answer.code, Some(i32::from(is_problem)), "{json}");
            assert_eq!(answer.stderr, "");
            Ok(Said {
                code: answer.code,
                json,
            })
        }
        Err(error) => failed(format!("{error}: {}{}", answer.stdout, answer.stderr)),
    }
}

fn ip(command: &str) -> Verdict {
    let words: Vec<&str> = command.split(' ').collect();
    judge::run(&[&["ip"][..], &words].concat())?.success()?;
    Ok(())
}

fn network(options: &[&str]) -> Verdict {
    let create = "network create -d macvlan --subnet=10.0.2.0/24 --gateway=10.0.2.1 -o parent=eth1";
    let create: Vec<&str> = create.split(' ').collect();
    ask(&[&create, options, &["mac1"]].concat())?.success()?;
    Ok(())
}

fn good_parent() -> Verdict {
    let lan = Lab::here(1)?;
    let before = judge::ip(&["link", "show"])?;
    let said = doctor(&["eth1"])?;
    assert_eq!(said.code, Some(0));
    let eth1 = &judge::ip(&["link", "show", "eth1"])?[0];
    said.is("link", "ok", "veth");
    said.is("link", "ok", eth1["address"].as_str().unwrap());
    said.is("MTU", "ok", &eth1["mtu"].to_string());
    said.is("port", "ok", "");
    said.is("Wi-Fi", "ok", "");
    said.is("carrier", "ok", "up");
    said.is("macvlan", "ok", "");
    said.is("rx handler", "ok", "");
    said.is("duplicate address", "ok", "");
    said.is("foreign MAC", "ok", "10.0.2.1");
    said.is("DHCP", "ok", "no server");
    let machine = said.json["Machine"].as_array().unwrap();
    assert!(machine.iter().any(|c| c["Name"] == "nf_tables"));
    // Nothing is left here, and nobody has learnt anything.
    assert_eq!(judge::ip(&["link", "show"])?, before);
    for machine in [&lan.gateway, &lan.others[0]] {
        let neighs = judge::on(machine, &["ip", "-j", "neigh"])?.json()?;
        assert_eq!(neighs, Value::Array(Vec::new()), "{}", machine.name);
    }
    Ok(())
}

/// What keeps a network from working is what `run` says of it, too.
fn bridge_port() -> Verdict {
    let _lan = Lab::here(0)?;
    network(&[])?;
    ip("link add br7 type bridge")?;
    ip("link set eth1 master br7")?;
    let said = doctor(&["eth1"])?;
    assert_eq!(said.code, Some(1));
    let eth1 = &judge::ip(&["link", "show", "eth1"])?[0];
    let master = eth1["master"].as_str().unwrap();
    let kind = eth1["linkinfo"]["info_slave_kind"].as_str().unwrap();
    said.is("port", "problem", &format!("{kind} {master}"));
    said.is("rx handler", "problem", master);
    said.is("foreign MAC", "unknown", master);
    assert!(said.advice("port").contains(master));
    let run = ask(&["run", "--rm", "--network", "mac1", "tester", "ip", "link"])?;
    assert_eq!(run.code, Some(125));
    assert!(run.stderr.contains(said.advice("port")), "{}", run.stderr);
    // The bridge itself is none, but it has its price.
    ip("link set br7 up")?;
    let said = doctor(&["--no-probe", "br7"])?;
    said.is("port", "ok", "");
    said.is("link", "warning", "bridge");
    Ok(())
}

fn above_and_below_a_macvlan() -> Verdict {
    let _lan = Lab::here(0)?;
    ip("link add mv0 link eth1 type macvlan mode bridge")?;
    ip("link set mv0 up")?;
    let said = doctor(&["mv0"])?;
    let mv0 = &judge::ip(&["link", "show", "mv0"])?[0];
    said.is(
        "link",
        "warning",
        mv0["linkinfo"]["info_kind"].as_str().unwrap(),
    );
    said.is("link", "warning", mv0["link"].as_str().unwrap());
    doctor(&["eth1"])?.is("rx handler", "ok", "mv0");
    ip("link del mv0")?;

    ip("link add pt0 link eth1 type macvlan mode passthru")?;
    let said = doctor(&["eth1"])?;
    said.is("rx handler", "problem", "pt0");
    said.is("macvlan", "ok", "");
    ip("link del pt0")?;

    let said = doctor(&["lo"])?;
    said.is("link", "problem", "not an Ethernet");
    let said = doctor(&["eth9"])?;
    said.is("link", "problem", "no link eth9");
    assert!(said.advice("link").contains("eth1"));
    Ok(())
}

fn down_and_without_carrier() -> Verdict {
    let lan = Lab::here(0)?;
    lan.switch().run(|| Ok(ip("link set to-host down")))??;
    let flags = judge::ip(&["link", "show", "eth1"])?[0]["flags"].to_string();
    assert!(flags.contains("NO-CARRIER"), "{flags}");
    let said = doctor(&["eth1"])?;
    assert_eq!(said.code, Some(1));
    said.is("carrier", "problem", "no carrier");
    for name in ["duplicate address", "foreign MAC", "DHCP"] {
        said.is(name, "unknown", "no carrier");
    }
    ip("link set eth1 down")?;
    let said = doctor(&["eth1"])?;
    said.is("carrier", "problem", "eth1 is down");
    assert_eq!(said.advice("carrier"), "ip link set eth1 up");
    said.is("macvlan", "ok", "");
    Ok(())
}

fn mtu_of_a_network() -> Verdict {
    let _lan = Lab::here(0)?;
    network(&["-o", "com.docker.network.driver.mtu=1400"])?;
    doctor(&["--no-probe", "eth1"])?.is("MTU", "ok", "1500");
    ip("link set eth1 mtu 1300")?;
    let said = doctor(&["--no-probe", "eth1"])?;
    said.is("MTU", "problem", "network mac1 wants 1400");
    assert_eq!(said.advice("MTU"), "ip link set eth1 mtu 1400");
    ip("link set eth1 mtu 1400")?;
    doctor(&["--no-probe", "eth1"])?.is("MTU", "ok", "1400");
    Ok(())
}

fn add_address(machine: &Machine, address: &str) -> Verdict {
    let add = ["ip", "addr", "add", address, "dev", "eth0"];
    judge::on(machine, &add)?.success()?;
    Ok(())
}

fn duplicate_addresses() -> Verdict {
    let lan = Lab::here(2)?;
    network(&[])?;
    let run = "run -d --name web --network mac1 --ip 10.0.2.5 tester";
    let run: Vec<&str> = run.split(' ').collect();
    ask(&run)?.success()?;
    doctor(&["eth1"])?.is("duplicate address", "ok", "");
    add_address(&lan.others[0], "10.0.2.5/24")?;
    let said = doctor(&["eth1"])?;
    said.is(
        "duplicate address",
        "problem",
        "02:1a:0a:00:02:07 has 10.0.2.5 too",
    );
    ask(&["rm", "-f", "web"])?.success()?;
    doctor(&["eth1"])?.is("duplicate address", "ok", "");

    add_address(&lan.others[0], "10.0.2.4/24")?;
    let said = doctor(&["eth1"])?;
    said.is(
        "duplicate address",
        "problem",
        "02:1a:0a:00:02:07 has 10.0.2.4 too",
    );
    judge::on(&lan.others[0], &["ip", "addr", "flush", "dev", "eth0"])?.success()?;

    add_address(&lan.others[1], "10.0.2.1/24")?;
    let said = doctor(&["eth1"])?;
    said.is("duplicate address", "problem", "10.0.2.1 is had by");
    said.is("duplicate address", "problem", "02:1a:0a:00:02:08");
    Ok(())
}

/// As vSphere does with a port that may not be promiscuous.
fn switch_that_drops_foreign_macs() -> Verdict {
    let lan = Lab::here(0)?;
    let nft = |ruleset: &'static str| -> Verdict {
        lan.switch()
            .run(|| Ok(judge::run(&["nft", ruleset])))??
            .success()?;
        Ok(())
    };
    // On the way out ("forged transmits") …
    nft(
        "table netdev sw { chain in { type filter hook ingress device to-host priority 0; ether saddr != 02:1a:0a:00:02:04 drop; }; }",
    )?;
    let said = doctor(&["eth1"])?;
    assert_eq!(said.code, Some(1));
    said.is(
        "foreign MAC",
        "problem",
        "10.0.2.1 answers this link's own MAC and no other",
    );
    assert!(said.advice("foreign MAC").contains("ipvlan"));
    said.is("duplicate address", "ok", "");
    nft("delete table netdev sw")?;
    // … and on the way back.
    nft(
        "table netdev sw { chain in { type filter hook egress device to-host priority 0; ether daddr != { 02:1a:0a:00:02:04, ff:ff:ff:ff:ff:ff } drop; }; }",
    )?;
    doctor(&["eth1"])?.is("foreign MAC", "problem", "no other");
    nft("delete table netdev sw")?;
    doctor(&["eth1"])?.is("foreign MAC", "ok", "10.0.2.1");
    // Whom there is nobody to answer, knows nothing.
    judge::on(&lan.gateway, &["ip", "link", "set", "eth0", "down"])?.success()?;
    doctor(&["eth1"])?.is("foreign MAC", "unknown", "10.0.2.1");
    Ok(())
}

/// A server that offers `last` to whoever asks, as long as the test lives.
fn serve(machine: &Machine, last: u8) -> Verdict {
    let server = machine.ip.octets();
    let socket = machine.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
        socket.set_broadcast(true).unwrap();
        Ok(socket)
    })?;
    std::thread::spawn(move || {
        let mut asked = [0; 600];
        while let Ok((length, _)) = socket.recv_from(&mut asked) {
            // Cookie and DHCPDISCOVER, the client's MAC and no other.
            assert!(length > 240 && asked[236..243] == [99, 130, 83, 99, 53, 1, 1]);
            assert_eq!(asked[28..34], [0x02, 0x1a, 10, 0, 2, 4]);
            let mut answer = asked[..240].to_vec();
            answer[0] = 2;
            answer[16..20].copy_from_slice(&[10, 0, 2, last]);
            answer.extend([53, 1, 2, 54, 4]);
            answer.extend(server);
            answer.extend([51, 4, 0, 0, 14, 16, 1, 4, 255, 255, 255, 0, 255]);
            // Another's answer, and one that is cut off, change nothing.
            let mut other = answer.clone();
            other[4] ^= 1;
            other[243..].fill(9);
            let to = SocketAddr::from(([255, 255, 255, 255], 68));
            for bytes in [&other[..], &answer[..242], &answer] {
                socket.send_to(bytes, to).unwrap();
            }
        }
    });
    Ok(())
}

fn dhcp_servers() -> Verdict {
    let lan = Lab::here(2)?;
    serve(&lan.others[0], 50)?;
    doctor(&["eth1"])?.is("DHCP", "ok", "10.0.2.7 offers 10.0.2.50");
    network(&[])?;
    let said = doctor(&["eth1"])?;
    said.is("DHCP", "warning", "network mac1 gives out too");
    assert!(said.advice("DHCP").contains("--ip-range"));
    assert_eq!(said.code, Some(0));
    serve(&lan.others[1], 60)?;
    let said = doctor(&["eth1"])?;
    said.is(
        "DHCP",
        "warning",
        "2 servers: 10.0.2.7 offers 10.0.2.50, 10.0.2.8",
    );
    Ok(())
}

fn without_rights() -> Verdict {
    let _lan = Lab::here(0)?;
    let program = judge::dockless().to_str().unwrap();
    let bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let said = said_by(&[&bare[..], &[program, "doctor", "--json", "eth1"]].concat())?;
    assert_eq!(said.code, Some(0));
    said.is("link", "ok", "veth");
    said.is("carrier", "ok", "");
    for name in ["duplicate address", "foreign MAC", "DHCP"] {
        said.is(name, "unknown", "");
        assert!(said.advice(name).contains("root"), "{}", said.check(name));
    }
    let machine = said.json["Machine"].as_array().unwrap();
    let nft = machine.iter().find(|c| c["Name"] == "nf_tables").unwrap();
    assert_eq!(nft["Verdict"], "unknown");
    Ok(())
}

fn no_probe_is_silent() -> Verdict {
    let lan = Lab::here(0)?;
    let mut capture = Capture::start(&lan.gateway)?;
    let said = doctor(&["--no-probe", "eth1"])?;
    for name in ["duplicate address", "foreign MAC", "DHCP"] {
        said.is(name, "unknown", "not asked");
    }
    std::thread::sleep(Duration::from_millis(100));
    // The switch has multicast reports of its own.
    let ours = |frame: &&Frame| {
        let from = frame.from.to_string();
        from == "02:1a:0a:00:02:04" || from.starts_with("02:64:")
    };
    let seen: Vec<_> = capture.frames()?.iter().filter(ours).collect();
    assert!(seen.is_empty(), "{seen:?}");
    // The capture would have seen it; and it is questions from nobody, and
    // DHCP, and nothing else.
    doctor(&["eth1"])?;
    let seen: Vec<_> = capture.frames()?.iter().filter(ours).collect();
    let is_arp = |f: &&&Frame| f.to_string().contains("tell 0.0.0.0");
    let is_dhcp = |f: &&&Frame| f.to.to_string() == "ff:ff:ff:ff:ff:ff" && !is_arp(f);
    assert!(seen.iter().filter(is_arp).count() >= 4, "{seen:?}");
    assert_eq!(seen.iter().filter(is_dhcp).count(), 2, "{seen:?}");
    assert!(seen.iter().all(|f| is_arp(&f) || is_dhcp(&f)), "{seen:?}");
    Ok(())
}

/// Without a name: the default route's and the networks'.
fn which_links() -> Verdict {
    let _lan = Lab::here(0)?;
    ip("link add v0 type veth peer name v1")?;
    let links = |said: Said| -> Vec<String> {
        let links = said.json["Links"].as_array().unwrap();
        let name = |l: &Value| l["Link"].as_str().unwrap().to_owned();
        links.iter().map(name).collect()
    };
    assert_eq!(links(doctor(&["--no-probe"])?), ["eth1"]);
    let create = "network create -d macvlan --subnet=10.9.0.0/24 -o parent=v0 mac9";
    ask(&create.split(' ').collect::<Vec<_>>())?.success()?;
    let said = doctor(&["--no-probe"])?;
    assert_eq!(said.json["Links"][1]["Networks"][0], "mac9");
    assert_eq!(links(said), ["eth1", "v0"]);
    ask(&["network", "rm", "mac9"])?.success()?;
    ip("route del default")?;
    let nothing = ask(&["doctor"])?;
    assert_eq!(nothing.code, Some(1));
    assert!(
        nothing.stderr.contains("dockless doctor eth0"),
        "{}",
        nothing.stderr
    );
    // For people, and with the same code.
    let text = ask(&["doctor", "--no-probe", "eth1"])?.success()?.stdout;
    assert!(text.contains("\neth1\n  ok       link"), "{text}");
    Ok(())
}
