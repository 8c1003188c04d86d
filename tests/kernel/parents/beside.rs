//! What goes by MACs elsewhere, on ipvlan l2, whose links all have their
//! parent's: conflict detection, `--mdns`, and its routing tables beside
//! another network's.

use std::net::Ipv4Addr;

use dockless::lab::capture::{Capture, Content};
use dockless::sys::arp;

use super::*;
use crate::acd::{STRANGER, conflicts, send};
use crate::{harness, mdns};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(a_peer_s_address_is_refused_or_passed_over),
        Test::new(a_later_conflict_is_seen_and_defended),
        Test::new(one_mac_for_all_is_no_conflict),
        Test::new(announced_on_the_lan).needs(&["python3"]),
        Test::new(answers_leave_by_the_link_of_the_question),
    ]
}

fn l2(name: &str) -> Verdict {
    let pool = ["--subnet=10.0.2.0/24", "--gateway=10.0.2.1"];
    create(
        "ipvlan",
        name,
        &[&pool[..], &["-o", "parent=eth1"]].concat(),
    )
}

/// A further address of another machine; its MAC.
fn take(machine: &Machine, addr: &str) -> Verdict<String> {
    judge::on(machine, &["ip", "addr", "add", addr, "dev", "eth0"])?.success()?;
    let links = judge::on(machine, &["ip", "-j", "link", "show", "eth0"])?.json()?;
    Ok(links[0]["address"].as_str().unwrap_or_default().to_owned())
}

/// The answer goes to the MAC of the parent.
fn a_peer_s_address_is_refused_or_passed_over() -> Verdict {
    let lan = lan_of(1, &["ipvlan"])?;
    l2("ipv")?;
    let mac = take(&lan.others[0], "10.0.2.99/24")?;
    take(&lan.others[0], "10.0.2.2/24")?;
    let strict = ["run", "--acd=strict", "--network=ipv"];
    let wanted = ["--rm", "--ip=10.0.2.99", "tester", "ip", "link"];
    let answer = ask(&[&strict[..], &wanted].concat())?;
    assert_eq!(answer.code, Some(125), "{}", answer.stderr);
    let phrase = "Address already in use: 10.0.2.99";
    let told = &answer.stderr;
    assert!(told.contains(phrase) && told.contains(&mac), "{told}");

    let any = ["-d", "--name=c1", "tester"];
    let told = ask(&[&strict[..], &any].concat())?.success()?.stderr;
    let phrase =
        format!("{mac} on the LAN of eth1 has 10.0.2.2: the container has 10.0.2.3 instead");
    assert!(told.contains(&phrase), "{told}");
    assert_eq!(endpoint("c1", "IPAddress")?, "10.0.2.3");
    pings("c1", "10.0.2.1")?;
    remove_all(&["c1"])?;
    remove("ipv")
}

/// The other machine hears whose the address is, by the parent's MAC.
fn a_later_conflict_is_seen_and_defended() -> Verdict {
    let lan = lan_of(1, &["ipvlan"])?;
    l2("ipv")?;
    let ip = Ipv4Addr::new(10, 0, 2, 50);
    run("c1", "ipv", &["--ip=10.0.2.50"])?;
    // Later than what would be an answer to the probe.
    let pause = std::time::Duration::from_millis(1500) * harness::slow();
    std::thread::sleep(pause);
    let own = link("eth1")?.unwrap()["address"]
        .as_str()
        .unwrap()
        .parse()?;
    let mut capture = Capture::start(&lan.gateway)?;
    send(&lan.others[0], &arp::question(STRANGER, ip, ip))?;
    let defence = Content::Arp {
        question: true,
        mac: own,
        ip,
        about: ip,
    };
    let limit = patience(5);
    let is_heard = capture.wait(limit, |frames| frames.iter().any(|f| f.content == defence))?;
    assert!(is_heard, "{:?}", capture.frames()?);
    let shown = conflicts("c1")?;
    assert_eq!(shown[0]["Outcome"], "defended", "{shown}");
    assert_eq!(shown[0]["MacAddress"], STRANGER.to_string());
    remove_all(&["c1"])?;
    remove("ipv")
}

/// Other containers, and the host itself, on that parent: they ask, answer and
/// announce by its MAC.
fn one_mac_for_all_is_no_conflict() -> Verdict {
    let _lan = lan_of(0, &["ipvlan"])?;
    l2("ipv")?;
    let told = |name: &str| -> Verdict<String> {
        let words = ["run", "-d", "--acd=strict", "--network=ipv", "--name", name];
        Ok(ask(&[&words[..], &["tester"]].concat())?.success()?.stderr)
    };
    assert_eq!(told("c1")?, "");
    assert_eq!(told("c2")?, "");
    pings("c1", &endpoint("c2", "IPAddress")?)?;
    for name in ["c1", "c2"] {
        pings(name, "10.0.2.1")?;
        assert_eq!(conflicts(name)?, Value::Array(Vec::new()));
    }
    remove_all(&["c1", "c2"])?;
    remove("ipv")
}

/// Two containers with one MAC, each by its own name and address.
fn announced_on_the_lan() -> Verdict {
    let lan = lan_of(1, &["ipvlan"])?;
    l2("ipv")?;
    let peer = &lan.others[0];
    let names = [("web", "10.0.2.50"), ("shop", "10.0.2.51")];
    for (name, ip) in names {
        run(name, "ipv", &["--mdns", "--ip", ip])?;
        mdns::known_as(name, "ipv", &format!("{name}.local"))?;
    }
    for (name, ip) in names {
        assert_eq!(mdns::lookup(peer, &format!("{name}.local"), "A")?, ip);
        let [a, b, c, d] = ip.parse::<Ipv4Addr>()?.octets();
        let back = format!("{d}.{c}.{b}.{a}.in-addr.arpa");
        let answer = mdns::lookup(peer, &back, "PTR")?;
        assert_eq!(answer, format!("{name}.local"));
    }
    remove_all(&["web"])?;
    assert_eq!(mdns::lookup(peer, "web.local", "A")?, "");
    assert_eq!(mdns::lookup(peer, "shop.local", "A")?, "10.0.2.51");
    remove_all(&["shop"])?;
    remove("ipv")
}

/// The asker is behind the router of either LAN, and each router knows the
/// askers behind itself alone.
fn answers_leave_by_the_link_of_the_question() -> Verdict {
    let lan = lan_of(1, &["vlan", "ipvlan"])?;
    let ten = &lan.others[0];
    vlan_at_gateway(ten, "eth0", &["id", "10"], "10.0.3.1/24")?;
    for (machine, far) in [(&lan.gateway, "192.0.2.1/32"), (ten, "192.0.2.2/32")] {
        judge::on(machine, &["ip", "addr", "add", far, "dev", "lo"])?.success()?;
    }
    // The other machine's default route would bring answers that went astray.
    judge::on(ten, &["ip", "route", "del", "default"])?.success()?;
    let pool = ["--subnet=10.0.2.0/24", "--gateway=10.0.2.1"];
    let parent = ["-o", "parent=eth1"];
    create("macvlan", "mac", &[&pool[..], &parent].concat())?;
    let pool = ["--subnet=10.0.3.0/24", "--gateway=10.0.3.1"];
    let parent = ["-o", "parent=eth1.10"];
    create("ipvlan", "ipv", &[&pool[..], &parent].concat())?;
    let mac = ("mac", "--ip=10.0.2.50", "via 10.0.2.1");
    let ipv = ("ipv", "--ip=10.0.3.50", "via 10.0.3.1");
    // The second has the default route.
    for (first, second) in [(mac, ipv), (ipv, mac)] {
        run("c1", first.0, &[first.1])?;
        let connect = ["network", "connect", "--gw-priority", "1"];
        said(&[&connect[..], &[second.1, second.0, "c1"]].concat())?;
        assert_eq!(default_routes("c1")?, [second.2]);
        for (machine, far, to) in [
            (&lan.gateway, "192.0.2.1", "10.0.2.50"),
            (ten, "192.0.2.2", "10.0.3.50"),
        ] {
            let ping = ["ping", "-c1", "-W2", "-I", far, to];
            judge::on(machine, &ping)?.success()?;
        }
        remove_all(&["c1"])?;
    }
    remove("mac")?;
    remove("ipv")
}
