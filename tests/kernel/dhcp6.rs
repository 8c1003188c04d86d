//! IPv6 addresses from real DHCPv6 servers, dnsmasq and Kea, on the gateway of
//! the lab. What the client says is judged by tshark, what the server has come
//! to believe by its own lease file, what the container got by `ip -6 -j`.

use std::fs;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use dockless::lab::{Lab, Machine};
use serde_json::Value;

use crate::dhcp::{Server, Wire, scratch};
use crate::harness::{Test, Verdict};
use crate::ip6_lan::{
    ROUTER, V4, addrs, create, format, global, lan, leases, pings, radvd, shown, sleeps, up,
};
use crate::judge::{self, ask, eventually, file_in, inside, ip_in, refused, said};
use crate::links::plug;

pub(crate) fn tests() -> Vec<Test> {
    let dnsmasq: &[&str] = &["ip", "nsenter", "ping", "dnsmasq", "tshark"];
    let kea: &[&str] = &["ip", "nsenter", "ping", "kea-dhcp6", "radvd", "tshark"];
    vec![
        Test::new(a_lease_is_all_that_a_server_says)
            .needs(&["ip", "nsenter", "ping", "dnsmasq", "tshark", "dig"]),
        Test::new(kept_over_a_stop_and_given_back_at_the_end).needs(dnsmasq),
        Test::new(connected_and_disconnected_live).needs(dnsmasq),
        Test::new(beside_dhcp4_and_alone).needs(dnsmasq),
        Test::new(nobody_answers).needs(&["ip", "nsenter", "radvd"]),
        Test::new(an_address_that_somebody_has_is_declined).needs(dnsmasq),
        Test::new(a_server_that_knows_another_link).needs(dnsmasq),
        Test::new(a_server_that_is_gone).needs(dnsmasq),
        Test::new(forged_answers_change_nothing).needs(dnsmasq),
        Test::new(a_link_that_is_made_again).needs(dnsmasq),
        Test::new(guard_and_rules).needs(dnsmasq),
        Test::new(at_rest_it_sleeps).needs(dnsmasq),
        Test::new(kea_gives_it_back_and_again).needs(kea),
        Test::new(renewed_lost_and_another_live).needs(kea),
    ]
    .into_iter()
    .map(|test| test.limit_s(120))
    .collect()
}

const IP6: [&str; 4] = ["--network", "lan", "--ip6", "dhcp"];

/// What `inspect` says of the lease.
fn lease(name: &str) -> Verdict<Value> {
    let json = format(name, "{{json .Dockless.DHCPv6}}")?;
    Ok(serde_json::from_str::<Value>(&json)?["lan"].take())
}

/// The one address that the kernel has, but for the link-local one; empty
/// without.
pub(crate) fn address(name: &str) -> Verdict<String> {
    let all = addrs(name, "eth0")?;
    assert!(all.len() <= 1, "{all:?}");
    let one = all.first().and_then(|a| a["local"].as_str());
    Ok(one.unwrap_or_default().to_owned())
}

/// A router's advertisement may come after the lease.
pub(crate) fn routed(name: &str) -> Verdict {
    eventually("a router is heard", 10, || {
        let routes = ip_in(name, &["-6", "route"])?;
        let routes = routes.as_array().cloned().unwrap_or_default();
        let has = |dst: &str| routes.iter().any(|r| r["dst"] == dst);
        Ok(has("default") && has("2001:db8:2::/64"))
    })?;
    // And `inspect` has followed.
    let at = "{{(index .Dockless.IPv6 \"lan\").Router}}";
    eventually("it is shown", 5, || Ok(!format(name, at)?.is_empty()))
}

fn nothing_is_left() -> Verdict {
    assert_eq!(leases()?, [""; 0]);
    eventually("no macvlan is left", 2, || {
        let links = judge::ip(&["link", "show", "type", "macvlan"])?;
        Ok(links.as_array().is_none_or(Vec::is_empty))
    })
}

// ---- servers ----------------------------------------------------------------

/// `first` to `last`, behind 2001:db8; it advertises itself, too.
pub(crate) fn dnsmasq(lan: &Lab, first: &str, last: &str, flags: &[&str]) -> Verdict<Server> {
    let leases = scratch("dnsmasq6.leases");
    let mut command = Command::new("dnsmasq");
    command
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0"])
        .args(["--interface=eth0", "--bind-interfaces", "--no-ping"])
        .args(["--user=", "--group=", "--log-facility=-", "--log-dhcp"])
        .args(["--enable-ra", "--dhcp-authoritative"])
        .arg(format!(
            "--dhcp-range=2001:db8:{first},2001:db8:{last},64,10m"
        ))
        .arg(format!("--pid-file={}", scratch("dnsmasq6.pid").display()))
        .arg(format!("--dhcp-leasefile={}", leases.display()))
        .args(flags);
    Server::start_on(&lan.gateway, &mut command, leases, ("udp6", ":0223 "))
}

/// dnsmasq's line of an address: end, IAID, address, name, DUID.
pub(crate) fn line_of(server: &Server, ip: &str) -> Option<Vec<String>> {
    let lines = server.known().into_iter();
    let mut rows = lines.map(|l| l.split(' ').map(str::to_owned).collect::<Vec<_>>());
    rows.find(|row| row.get(2).is_some_and(|known| known == ip))
}

/// Leases of 8 s, to be renewed after 2 and rebound after 5.
/// Leases for so many seconds; a quarter later they are renewed.
fn kea(lan: &Lab, first: &str, last: &str, seconds: u32) -> Verdict<Server> {
    // It gives up on a link that has no address yet.
    eventually("the gateway has its link-local address", 5, || {
        let show = ["ip", "-6", "addr", "show", "dev", "eth0", "scope", "link"];
        let shown = judge::on(&lan.gateway, &show)?.stdout;
        Ok(shown.contains("fe80::") && !shown.contains("tentative"))
    })?;
    let leases = scratch("kea6.leases");
    let config = scratch("kea6.json");
    let text = serde_json::json!({"Dhcp6": {
        "interfaces-config": {"interfaces": ["eth0"]},
        "lease-database": {"type": "memfile", "persist": true, "name": leases, "lfc-interval": 0},
        "server-id": {"type": "LLT", "persist": false, "identifier": "021a0a000201", "time": 1},
        "preferred-lifetime": seconds, "valid-lifetime": seconds,
        "renew-timer": seconds / 4, "rebind-timer": seconds * 5 / 8,
        "subnet6": [{
            "id": 1,
            "interface": "eth0",
            "subnet": "2001:db8:2::/64",
            "pools": [{"pool": format!("2001:db8:2::{first} - 2001:db8:2::{last}")}],
            "option-data": [
                {"name": "dns-servers", "data": ROUTER},
                {"name": "domain-search", "data": "kea.example"},
            ],
        }],
        "loggers": [{"name": "kea-dhcp6", "severity": "INFO",
            "output_options": [{"output": "stdout"}]}],
    }});
    fs::write(&config, text.to_string())?;
    let mut command = Command::new("kea-dhcp6");
    command
        .arg("-c")
        .arg(&config)
        .env("KEA_PIDFILE_DIR", scratch(""))
        .env("KEA_LOCKFILE_DIR", scratch(""));
    Server::start_on(&lan.gateway, &mut command, leases, ("udp6", ":0223 "))
}

/// Kea's file has a line for each change: address, DUID, lifetime.
fn kea_lifetime(server: &Server, ip: &str) -> Option<String> {
    let lines = server.known();
    let start = format!("{ip},");
    let line = lines.iter().rev().find(|l| l.starts_with(&start))?;
    line.split(',').nth(2).map(str::to_owned)
}

// ---- tshark -----------------------------------------------------------------

const SOLICIT: u8 = 1;
const REQUEST: u8 = 3;
const CONFIRM: u8 = 4;
const RENEW: u8 = 5;
const REBIND: u8 = 6;
const RELEASE: u8 = 8;
const DECLINE: u8 = 9;

pub(crate) fn tap(machine: &Machine) -> Verdict<Wire> {
    Wire::tap_of(machine, "udp port 546 or udp port 547 or icmp6")
}

/// What dumpcap has written by then.
fn are_asked(wire: &Wire, kind: u8, all: &[[String; 2]]) -> Verdict {
    let seen = eventually("it is on the wire", 5, || Ok(asked(wire, kind)? == all));
    seen.inspect_err(|_| eprintln!("{:?} is not {all:?}", asked(wire, kind)))
}

/// Of the client's messages of a kind: the address in them, and to whom.
fn asked(wire: &Wire, kind: u8) -> Verdict<Vec<[String; 2]>> {
    let filter = format!("dhcpv6.msgtype == {kind}");
    let rows = wire.read(&filter, &["dhcpv6.iaaddr.ip", "ipv6.dst"])?;
    Ok(rows.into_iter().map(|r| r.try_into().unwrap()).collect())
}

fn one(ip: &str) -> [String; 2] {
    [ip, "ff02::1:2"].map(str::to_owned)
}

// ---- dnsmasq ----------------------------------------------------------------

fn a_lease_is_all_that_a_server_says() -> Verdict {
    let lan = lan()?;
    let server = dnsmasq(
        &lan,
        "2::50",
        "2::99",
        &[
            "--dhcp-option=option6:dns-server,[2001:db8:2::1],[2001:db8:2::7]",
            "--dhcp-option=option6:domain-search,lan.example,example.org",
            "--dhcp-option=option6:sntp-server,[2001:db8:2::9]",
        ],
    )?;
    let wire = tap(&lan.gateway)?;
    create("lan", &V4)?;
    up("my_web", &IP6)?;
    routed("my_web")?;
    // As the kernel has it: alone, and no longer than the server said.
    let all = addrs("my_web", "eth0")?;
    let ip = address("my_web")?;
    assert!(ip.starts_with("2001:db8:2::"), "{ip}");
    assert_eq!(
        (&all[0]["prefixlen"], &all[0]["dynamic"]),
        (&128.into(), &true.into())
    );
    let valid = all[0]["valid_life_time"].as_u64().unwrap_or_default();
    assert!((590..=600).contains(&valid), "{all:?}");
    let routes = ip_in("my_web", &["-6", "route"])?;
    let routes = routes.as_array().cloned().unwrap_or_default();
    let way = |dst: &str| routes.iter().find(|r| r["dst"] == dst).cloned();
    let default = way("default").unwrap_or_default();
    assert_eq!(default["protocol"], "ra");
    assert!(way("2001:db8:2::/64").is_some(), "{routes:?}");
    assert!(pings(&lan, &ip)? && pings(&lan, "10.0.2.2")?);
    inside("my_web", &["ping", "-c1", "-W2", ROUTER])?.success()?;
    // Names.
    let resolv = file_in("my_web", "/etc/resolv.conf")?;
    assert!(
        resolv.contains("\nsearch lan.example example.org\n"),
        "{resolv}"
    );
    assert!(
        resolv.contains("# ExtServers: [2001:db8:2::1 2001:db8:2::7]\n"),
        "{resolv}"
    );
    assert!(file_in("my_web", "/etc/hosts")?.contains(&format!("\n{ip}\t")));
    assert!(said(&["hosts"])?.contains(&format!("{ip}\tmy_web my_web.lan")));
    let dig = ["dig", "+short", "@127.0.0.11", "my_web", "AAAA"];
    assert_eq!(inside("my_web", &dig)?.stdout.trim(), ip);
    refused(
        &["rename", "my_web", "www"],
        "its address is leased under that name",
    )?;
    // What `inspect` says, and what the server has noted.
    let known = lease("my_web")?;
    assert_eq!(known["State"], "BOUND");
    assert_eq!(known["Address"], format!("{ip}/128"));
    assert_eq!(known["Server"], default["gateway"]);
    assert_eq!(known["SNTP"][0], "2001:db8:2::9");
    assert_eq!(known["LastError"], "");
    for time in ["Obtained", "Renew", "Rebind", "Preferred", "Expires"] {
        assert!(known[time].as_str().unwrap().starts_with("20"), "{known}");
    }
    let lan6 = shown("my_web", "lan")?;
    assert_eq!(
        (&lan6["By"], &lan6["Router"]),
        (&"dhcp".into(), &default["gateway"])
    );
    assert_eq!(lan6["Addresses"][0]["State"], "preferred");
    assert_eq!(global("my_web", "lan")?, ip);
    let line = line_of(&server, &ip).unwrap_or_default();
    let noted = [&line[1], &line[3], &line[4]];
    let iaid = known["IAID"].to_string();
    let duid = known["DUID"].as_str().unwrap();
    assert_eq!(noted, [&iaid, "my-web", duid]);
    assert!(duid.starts_with("00:04:"), "a UUID: {duid}");
    assert!(
        server.log().contains(known["ServerDUID"].as_str().unwrap()),
        "{known}"
    );
    // As others read what was asked, and no more: dnsmasq commits at once.
    let fields = [
        "dhcpv6.requested_option_code",
        "dhcpv6.client_domain",
        "dhcpv6.iaid",
        "ipv6.src",
        "udp.srcport",
    ];
    let rows = wire.read("dhcpv6.msgtype == 1", &fields)?;
    assert!(rows.iter().all(|row| *row == rows[0]), "{rows:?}");
    assert_eq!(rows[0][0], "23,24,31,39,82");
    assert_eq!(rows[0][1], "my-web");
    assert!(rows[0][3].starts_with("fe80::"));
    assert_eq!(rows[0][4], "546");
    assert_eq!(asked(&wire, REQUEST)?.len(), 0);
    let bad = wire.read(
        "udp.dstport == 547 && (_ws.malformed || _ws.expert.severity == \"Error\")",
        &["frame.number"],
    )?;
    assert!(bad.is_empty(), "{bad:?}");
    // Asked for before it was used: from nobody.
    let probes =
        format!("icmpv6.type == 135 && ipv6.src == :: && icmpv6.nd.ns.target_address == {ip}");
    assert_eq!(wire.read(&probes, &["frame.number"])?.len(), 1);
    assert_eq!(
        format("my_web", "{{json .Dockless.Links.lan.Dropped}}")?,
        "{}"
    );
    said(&["rm", "-f", "my_web"])?;
    nothing_is_left()
}

fn kept_over_a_stop_and_given_back_at_the_end() -> Verdict {
    let lan = lan()?;
    let server = dnsmasq(&lan, "2::50", "2::99", &[])?;
    create("lan", &V4)?;
    up("web", &IP6)?;
    let ip = address("web")?;
    let wire = tap(&lan.gateway)?;
    said(&["stop", "-t0", "web"])?;
    assert!(asked(&wire, RELEASE)?.is_empty());
    assert!(line_of(&server, &ip).is_some());
    assert_eq!(lease("web")?["Address"], format!("{ip}/128"));
    assert_eq!(lease("web")?["State"], "CONFIRMING");
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    assert_eq!(lease("web")?["LastError"], "");
    assert!(asked(&wire, SOLICIT)?.is_empty());
    are_asked(&wire, CONFIRM, &[one(&ip)])?;
    // Also when nobody could say goodbye.
    let supervisor = format("web", "{{.Dockless.SupervisorPid}}")?;
    judge::run(&["kill", "-9", &supervisor])?.success()?;
    eventually("it has ended", 5, || {
        Ok(format("web", "{{.State.Running}}")? == "false")
    })?;
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    are_asked(&wire, CONFIRM, &[one(&ip), one(&ip)])?;
    said(&["restart", "-t0", "web"])?;
    assert_eq!(address("web")?, ip);
    // With the container it goes back, whether or not that runs; the server
    // answers, so it is said once.
    said(&["stop", "-t0", "web"])?;
    said(&["rm", "web"])?;
    assert!(line_of(&server, &ip).is_none(), "{:?}", server.known());
    are_asked(&wire, RELEASE, &[one(&ip)])?;
    up("other", &IP6)?;
    up("web", &IP6)?;
    assert_eq!(address("web")?, ip);
    let theirs = address("other")?;
    assert_ne!(theirs, ip);
    routed("web")?;
    routed("other")?;
    inside("web", &["ping", "-c1", "-W2", &theirs])?.success()?;
    said(&["rm", "-f", "web"])?;
    eventually(
        "the server knows",
        3,
        || Ok(line_of(&server, &ip).is_none()),
    )?;
    let flags = ["run", "--rm", "--name", "short"];
    said(&[&flags[..], &IP6, &["tester", "ip", "addr"]].concat())?;
    eventually("the server knows", 5, || {
        // Its own DUID has a line, too.
        Ok(server.known().len() == 2)
    })?;
    eventually("it is said", 5, || Ok(asked(&wire, RELEASE)?.len() == 3))?;
    // Also that of a start that comes to nothing.
    let run = ask(&[&flags[..], &IP6, &["tester", "/no/such"]].concat())?;
    assert_eq!(run.code, Some(127), "{}", run.stderr);
    assert_eq!(server.known().len(), 2, "{:?}", server.known());
    eventually("it is said", 5, || Ok(asked(&wire, RELEASE)?.len() == 4))?;
    said(&["rm", "-f", "other"])?;
    nothing_is_left()
}

fn connected_and_disconnected_live() -> Verdict {
    let lan = lan()?;
    let server = dnsmasq(
        &lan,
        "2::50",
        "2::99",
        &["--dhcp-option=option6:domain-search,lan.example"],
    )?;
    create("lan", &V4)?;
    said(&["run", "-d", "--name", "web", "tester"])?;
    said(&["network", "connect", "--ip6", "dhcp", "lan", "web"])?;
    routed("web")?;
    let ip = address("web")?;
    assert!(line_of(&server, &ip).is_some());
    assert_eq!(global("web", "lan")?, ip);
    assert!(file_in("web", "/etc/hosts")?.contains(&ip));
    assert!(file_in("web", "/etc/resolv.conf")?.contains("search lan.example"));
    assert!(pings(&lan, &ip)?);
    said(&["network", "disconnect", "lan", "web"])?;
    assert!(line_of(&server, &ip).is_none(), "{:?}", server.known());
    assert!(!file_in("web", "/etc/hosts")?.contains(&ip));
    nothing_is_left()?;
    drop(server);
    refused(
        &["network", "connect", "--ip6", "dhcp", "lan", "web"],
        "no DHCPv6 server answered within 10 s",
    )?;
    assert_eq!(format("web", "{{.State.Running}}")?, "true");
    nothing_is_left()?;
    said(&["rm", "-f", "web"]).map(drop)
}

/// One dnsmasq for both; then a network that has nothing but what the LAN
/// gives.
fn beside_dhcp4_and_alone() -> Verdict {
    let lan = lan()?;
    let both = ["--dhcp-range=10.0.2.50,10.0.2.99,255.255.255.0,10m"];
    let server = dnsmasq(&lan, "2::50", "2::99", &both)?;
    create("lan", &["--ipam-driver=dhcp"])?;
    up("web", &["--network", "name=lan,ip6=dhcp"])?;
    let ip = address("web")?;
    assert_eq!(format("web", "{{.Dockless.DHCP.lan.State}}")?, "BOUND");
    assert_eq!(lease("web")?["State"], "BOUND");
    let v4 = format("web", "{{.NetworkSettings.Networks.lan.IPAddress}}")?;
    assert!(v4.starts_with("10.0.2."), "{v4}");
    routed("web")?;
    assert!(pings(&lan, &ip)? && pings(&lan, &v4)?);
    // The same client to both (RFC 4361).
    let id = format("web", "{{.Dockless.DHCP.lan.ClientID}}")?;
    assert!(
        id.ends_with(lease("web")?["DUID"].as_str().unwrap()),
        "{id}"
    );
    said(&["stop", "-t0", "web"])?;
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    said(&["rm", "-f", "web"])?;
    eventually("the server knows", 3, || {
        let known = server.known();
        Ok(!known.iter().any(|l| l.contains(&v4) || l.contains(&ip)))
    })?;

    create("six", &["--ipv4=false"])?;
    up("alone", &["--network", "six", "--ip6", "dhcp"])?;
    let ip = address("alone")?;
    eventually("a router is heard", 10, || pings(&lan, &ip))?;
    said(&["rm", "-f", "alone"])?;
    nothing_is_left()
}

fn nobody_answers() -> Verdict {
    let lan = lan()?;
    create("lan", &V4)?;
    let run = |phrase: &str| -> Verdict {
        let flags = ["run", "--rm", "--name", "web"];
        let run = ask(&[&flags[..], &IP6, &["tester"]].concat())?;
        assert_eq!(run.code, Some(125));
        for phrase in [
            "no DHCPv6 server answered within 10 s",
            "asked all DHCPv6 servers (ff02::1:2) as DUID 00:04:",
            "the DHCPv6 server behind eth1",
            phrase,
        ] {
            assert!(run.stderr.contains(phrase), "{}", run.stderr);
        }
        assert_eq!(said(&["ps", "-aq"])?, "");
        nothing_is_left()
    };
    run("no router has advertised itself either")?;
    let plain = radvd(&lan, "prefix 2001:db8:2::/64 { };")?;
    run("no M flag")?;
    drop(plain);
    let _managed = radvd(&lan, "AdvManagedFlag on; prefix 2001:db8:2::/64 { };")?;
    run("a router says that there is a server (M flag)")
}

fn an_address_that_somebody_has_is_declined() -> Verdict {
    let lan = lan()?;
    let server = dnsmasq(&lan, "2::50", "2::99", &[])?;
    create("lan", &V4)?;
    up("web", &IP6)?;
    let ip = address("web")?;
    said(&["rm", "-f", "web"])?;
    // Somebody takes it without a word to the server.
    let taken = format!("{ip}/64");
    let machine = &lan.others[0];
    machine.run(|| {
        fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
        Ok(())
    })?;
    let add = ["ip", "-6", "addr", "add", &taken, "dev", "eth0", "nodad"];
    judge::on(machine, &add)?.success()?;
    let wire = tap(&lan.gateway)?;
    up("web", &IP6)?;
    let other = address("web")?;
    assert!(other.starts_with("2001:db8:2::") && other != ip, "{other}");
    are_asked(&wire, DECLINE, &[one(&ip)])?;
    assert!(server.log().contains("DHCPDECLINE"), "{}", server.log());
    let known = lease("web")?;
    assert_eq!(known["Address"], format!("{other}/128"));
    let error = known["LastError"].as_str().unwrap();
    assert!(error.contains(&format!("{ip} was declined")), "{error}");
    eventually("a router is heard", 10, || pings(&lan, &other))?;
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

/// NotOnLink.
fn a_server_that_knows_another_link() -> Verdict {
    let lan = lan()?;
    let server = dnsmasq(&lan, "2::50", "2::59", &[])?;
    create("lan", &V4)?;
    up("web", &IP6)?;
    let ip = address("web")?;
    said(&["stop", "-t0", "web"])?;
    fs::remove_file(&server.leases)?;
    drop(server);
    let _server = dnsmasq(&lan, "3::70", "3::79", &[])?;
    let wire = tap(&lan.gateway)?;
    said(&["start", "web"])?;
    let other = address("web")?;
    assert!(other.starts_with("2001:db8:3::7"), "{other}");
    are_asked(&wire, CONFIRM, &[one(&ip)])?;
    assert_eq!(asked(&wire, SOLICIT)?.len(), 1);
    let error = lease("web")?["LastError"].to_string();
    assert!(error.contains("NotOnLink"), "{error}");
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

fn a_server_that_is_gone() -> Verdict {
    let lan = lan()?;
    let server = dnsmasq(&lan, "2::50", "2::99", &[])?;
    create("lan", &V4)?;
    up("web", &IP6)?;
    let ip = address("web")?;
    said(&["stop", "-t0", "web"])?;
    drop(server);
    // What is not over may be used (RFC 8415 §18.2.3), and is looked after.
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    let error = lease("web")?["LastError"].to_string();
    assert!(error.contains("lease of before"), "{error}");
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

/// A machine of the LAN that answers whatever it hears with what is wrong in
/// one way each. What it has sent.
fn forger(machine: &Machine) -> Verdict<Arc<AtomicU32>> {
    let all: Ipv6Addr = "ff02::1:2".parse().unwrap();
    machine.run(|| {
        fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
        Ok(())
    })?;
    let links = judge::on(machine, &["ip", "-j", "link", "show", "eth0"])?.json()?;
    let index = links[0]["ifindex"]
        .as_u64()
        .map(|n| u32::try_from(n).unwrap());
    let index = index.unwrap();
    let socket = machine.run(|| {
        let socket = UdpSocket::bind("[::]:547").unwrap();
        socket.join_multicast_v6(&all, index).unwrap();
        Ok(socket)
    })?;
    let count = Arc::new(AtomicU32::new(0));
    let sent = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut asked = [0; 1500];
        while let Ok((length, SocketAddr::V6(from))) = socket.recv_from(&mut asked) {
            if length < 4 + 22 {
                continue;
            }
            // The client's id is the first option, 18 bytes.
            let (xid, client) = (asked[1..4].to_vec(), asked[4..26].to_vec());
            let at = asked[..length].windows(4).position(|w| w[..2] == [0, 3]);
            let iaid = at
                .map(|at| asked[at + 4..at + 8].to_vec())
                .unwrap_or_default();
            let answer = |kind: u8, change: &dyn Fn(&mut Vec<u8>)| {
                let mut answer = [&[kind], &xid[..], &client].concat();
                answer.extend([0, 2, 0, 6, 0, 9, 1, 2, 3, 4]);
                answer.extend([0, 3, 0, 40]);
                answer.extend(&iaid);
                answer.extend([0, 0, 0, 50, 0, 0, 0, 80, 0, 5, 0, 24]);
                answer.extend("2001:db8:2::66".parse::<Ipv6Addr>().unwrap().octets());
                answer.extend([0, 0, 0, 100, 0, 0, 0, 200]);
                // Rapid commit; the best that there is.
                answer.extend([0, 14, 0, 0, 0, 7, 0, 1, 255]);
                change(&mut answer);
                answer
            };
            for kind in [2, 7] {
                for forged in [
                    answer(kind, &|a| a[3] ^= 1),                     // another transaction
                    answer(kind, &|a| a[20] ^= 1),                    // another client
                    answer(kind, &|a| a[5] = 99),                     // no client at all
                    answer(kind, &|a| a.truncate(60)),                // cut off
                    answer(kind, &|a| a[26..].fill(9)),               // nonsense
                    answer(kind, &|a| a[27] = 99),                    // no server
                    answer(kind, &|a| a[40] ^= 1),                    // another IA
                    answer(kind, &|a| a[44..48].fill(0xff)),          // T1 after T2
                    answer(kind, &|a| a[72..76].fill(0xff)),          // preferred after valid
                    answer(kind, &|a| a.extend([0, 24, 0, 2, 0xc0])), // not whole
                ] {
                    let to = SocketAddrV6::new(*from.ip(), 546, 0, from.scope_id());
                    let _ = socket.send_to(&forged, to);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    Ok(sent)
}

fn forged_answers_change_nothing() -> Verdict {
    let lan = lan()?;
    let sent = forger(&lan.others[0])?;
    let server = dnsmasq(&lan, "2::50", "2::59", &[])?;
    create("lan", &V4)?;
    up("web", &IP6)?;
    let ip = address("web")?;
    assert!(ip.starts_with("2001:db8:2::5"), "{ip}");
    let from = lease("web")?["Server"].clone();
    said(&["stop", "-t0", "web"])?;
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    assert_eq!(lease("web")?["Server"], from);
    // Solicit and Confirm at least.
    assert!(sent.load(Ordering::Relaxed) >= 40);
    drop(server);
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

/// The parent goes and comes back; then the container gets another MAC and
/// IPv4 address. The leased one stays.
fn a_link_that_is_made_again() -> Verdict {
    let lan = lan()?;
    let server = dnsmasq(&lan, "2::50", "2::99", &[])?;
    plug(&lan, "wan")?;
    let words = ["network", "create", "-d", "macvlan", "-o", "parent=wan"];
    said(&[&words[..], &V4, &["lan"]].concat())?;
    up("web", &IP6)?;
    let ip = address("web")?;
    let wire = tap(&lan.gateway)?;
    judge::ip(&["link", "del", "wan"])?;
    eventually("it has no link", 5, || {
        let link = format("web", "{{.Dockless.Links.lan.State}}")?;
        Ok(link == "parent gone")
    })?;
    assert_eq!(lease("web")?["Address"], format!("{ip}/128"));
    plug(&lan, "wan")?;
    eventually("it is confirmed", 15, || {
        Ok(asked(&wire, CONFIRM)? == [one(&ip)] && lease("web")?["State"] == "BOUND")
    })?;
    // The kernel knows its end again.
    eventually("the address is leased", 5, || {
        let all = addrs("web", "eth0")?;
        Ok(all.len() == 1 && all[0]["local"] == *ip && all[0]["dynamic"] == true)
    })?;
    eventually("routers are heard", 10, || pings(&lan, &ip))?;
    said(&["network", "set", "web", "lan", "ip=10.0.2.77"])?;
    assert_eq!(address("web")?, ip);
    assert_eq!(global("web", "lan")?, ip);
    eventually("it is confirmed", 15, || {
        Ok(asked(&wire, CONFIRM)?.len() == 2 && lease("web")?["State"] == "BOUND")
    })?;
    eventually("routers are heard", 10, || pings(&lan, &ip))?;
    assert!(pings(&lan, "10.0.2.77")?);
    said(&["rm", "-f", "web"])?;
    assert!(line_of(&server, &ip).is_none(), "{:?}", server.known());
    assert!(asked(&wire, SOLICIT)?.is_empty());
    nothing_is_left()
}

/// What leaves is from the leased address, and rules do not keep the client
/// from its server.
fn guard_and_rules() -> Verdict {
    let lan = lan()?;
    let server = dnsmasq(&lan, "2::50", "2::59", &[])?;
    create("lan", &V4)?;
    up("web", &[&IP6[..], &["--deny", "all"]].concat())?;
    let ip = address("web")?;
    assert!(!pings(&lan, &ip)?);
    said(&["stop", "-t0", "web"])?;
    said(&["rm", "web"])?;
    assert!(line_of(&server, &ip).is_none());
    up("web", &IP6)?;
    let ip = address("web")?;
    let dropped = || -> Verdict<Value> {
        let json = format("web", "{{json .Dockless.Links.lan.Dropped}}")?;
        Ok(serde_json::from_str(&json)?)
    };
    let other = "2001:db8:2::dead";
    let cidr = format!("{other}/64");
    let add = ["ip", "-6", "addr", "add", &cidr, "dev", "eth0", "nodad"];
    inside("web", &add)?.success()?;
    let from = |ip: &str| inside("web", &["ping", "-c1", "-W1", "-I", ip, ROUTER]);
    routed("web")?;
    // First the right one: who has asked for the router's MAC in vain is not
    // heard for a while.
    assert!(from(&ip)?.is_success());
    assert!(!from(other)?.is_success());
    assert!(from(&ip)?.is_success());
    assert!(dropped()?["IPv6"].as_u64() > Some(0), "{}", dropped()?);
    // Nor is it one of the container's names.
    assert!(!said(&["hosts"])?.contains(other));
    assert_eq!(global("web", "lan")?, ip);
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

/// Renewals come from a timer; until then nothing wakes it, whatever the LAN
/// says to others.
fn at_rest_it_sleeps() -> Verdict {
    let lan = lan()?;
    // It advertises itself every ten minutes.
    let _server = dnsmasq(&lan, "2::50", "2::99", &["--ra-param=eth0,600,1800"])?;
    create("lan", &V4)?;
    up("web", &IP6)?;
    let supervisor = format("web", "{{.Dockless.SupervisorPid}}")?;
    let to: Ipv6Addr = shown_link_local("web")?.parse().unwrap();
    let shout = lan.gateway.run(|| Ok(UdpSocket::bind("[::]:0").unwrap()))?;
    let links = judge::on(&lan.gateway, &["ip", "-j", "link", "show", "eth0"])?.json()?;
    let index = u32::try_from(links[0]["ifindex"].as_u64().unwrap()).unwrap();
    // Announcements and giving memory back take 3 s, and a router that has just
    // begun advertises itself now and then: in between there is rest.
    eventually("it sleeps", 60, || {
        let before = sleeps(&supervisor)?;
        for _ in 0..50 {
            shout.send_to(&[7; 300], SocketAddrV6::new(to, 546, 0, index))?;
        }
        sleep(Duration::from_secs(3));
        Ok(sleeps(&supervisor)? == before)
    })?;
    let fds = fs::read_dir(format!("/proc/{supervisor}/fd"))?;
    let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let timers = links.filter(|l| l.to_string_lossy().contains("timerfd"));
    assert_eq!(timers.count(), 1);
    said(&["rm", "-f", "web"]).map(drop)
}

fn shown_link_local(name: &str) -> Verdict<String> {
    let mut links = ip_in(
        name,
        &["-6", "addr", "show", "dev", "eth0", "scope", "link"],
    )?;
    let infos = links[0]["addr_info"].take();
    let local = infos.as_array().and_then(|all| {
        let all = all.iter().filter_map(|a| a["local"].as_str());
        all.map(str::to_owned).find(|ip| ip.starts_with("fe80"))
    });
    Ok(local.unwrap_or_default())
}

// ---- Kea --------------------------------------------------------------------

fn managed(lan: &Lab) -> Verdict<impl Drop + use<>> {
    radvd(lan, "AdvManagedFlag on; prefix 2001:db8:2::/64 { };")
}

fn kea_gives_it_back_and_again() -> Verdict {
    let lan = lan()?;
    let _radvd = managed(&lan)?;
    let server = kea(&lan, "50", "99", 3600)?;
    let wire = tap(&lan.gateway)?;
    create("lan", &V4)?;
    up("web", &IP6)?;
    let ip = address("web")?;
    let known = lease("web")?;
    assert_eq!(
        (&known["DNS"][0], &known["Search"][0]),
        (&ROUTER.into(), &"kea.example".into())
    );
    // The long way: no rapid commit there. Asked again where Kea takes a second.
    let solicits = asked(&wire, SOLICIT)?.len();
    assert!(solicits > 0);
    are_asked(&wire, REQUEST, &[one(&ip)])?;
    let start = format!("{ip},");
    let line = server.known().into_iter().find(|l| l.starts_with(&start));
    let line = line.unwrap_or_default();
    assert!(line.contains(known["DUID"].as_str().unwrap()), "{line}");
    assert!(line.contains(&format!(",{},", known["IAID"])), "{line}");
    said(&["stop", "-t0", "web"])?;
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    assert_eq!(asked(&wire, SOLICIT)?.len(), solicits);
    assert!(!asked(&wire, CONFIRM)?.is_empty());
    said(&["rm", "-f", "web"])?;
    eventually("Kea knows", 3, || {
        Ok(kea_lifetime(&server, &ip).as_deref() == Some("0"))
    })?;
    up("web", &IP6)?;
    assert_eq!(address("web")?, ip);
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

fn renewed_lost_and_another_live() -> Verdict {
    let lan = lan()?;
    let _radvd = managed(&lan)?;
    let server = kea(&lan, "50", "59", 8)?;
    create("lan", &V4)?;
    up("web", &[&IP6[..], &["--allow", "in:icmp"]].concat())?;
    let ip = address("web")?;
    let expires = || -> Verdict<String> { Ok(lease("web")?["Expires"].to_string()) };
    let first = expires()?;
    let wire = tap(&lan.gateway)?;
    eventually("it is renewed", 6, || Ok(expires()? != first))?;
    eventually("it is on the wire", 5, || {
        Ok(!asked(&wire, RENEW)?.is_empty())
    })?;
    assert_eq!(asked(&wire, RENEW)?[0], one(&ip));
    // Longer than the first lease was.
    sleep(Duration::from_secs(8));
    assert_eq!(address("web")?, ip);
    routed("web")?;
    assert!(pings(&lan, &ip)?);
    assert_eq!(lease("web")?["LastError"], "");
    // The server goes: to everybody, and then it is over.
    drop(server);
    eventually("it is over", 15, || Ok(address("web")?.is_empty()))?;
    eventually("everybody was asked", 5, || {
        Ok(asked(&wire, REBIND)?.contains(&one(&ip)))
    })?;
    eventually("inspect knows", 3, || {
        let known = lease("web")?;
        let error = known["LastError"].as_str().unwrap_or_default().to_owned();
        Ok(error.contains("is over") && known["Server"] == "" && global("web", "lan")?.is_empty())
    })?;
    assert_eq!(format("web", "{{.State.Running}}")?, "true");
    assert!(!said(&["hosts"])?.contains(&ip));
    assert!(!file_in("web", "/etc/hosts")?.contains(&ip));
    // Another one comes, with another range.
    fs::remove_file(scratch("kea6.leases"))?;
    let server = kea(&lan, "70", "79", 8)?;
    eventually("it has another", 40, || {
        Ok(global("web", "lan")?.starts_with("2001:db8:2::7"))
    })?;
    let other = address("web")?;
    assert!(pings(&lan, &other)?);
    assert!(said(&["hosts"])?.contains(&other));
    assert!(file_in("web", "/etc/hosts")?.contains(&other));
    said(&["rm", "-f", "web"])?;
    drop(server);
    nothing_is_left()
}
