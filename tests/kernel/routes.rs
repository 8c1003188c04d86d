//! Source-based routing, static routes and `network explain`, judged by
//! `ip -j rule`, `ip -j route`, `ip -j route get … from …`, and by who gets an
//! answer.
//!
//! ```text
//!   other1 10.0.2.7 ─┐
//!   gateway 10.0.2.1 ┼─ eth1 host eth2 ── 10.0.3.1 router 10.50.0.1 ── far 10.50.0.2
//!      └──────────────────────────── 10.60.0.0/30 ──┘
//! ```

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use dockless::lab::Lab;
use serde_json::Value;

use crate::harness::{Test, Verdict, failed, patience};
use crate::judge::{self, inside, ip_in, refused, said};

pub(crate) fn tests() -> Vec<Test> {
    let needs: &[&str] = &["ip", "nsenter", "ping"];
    vec![
        Test::new(an_answer_leaves_by_the_link_of_the_question).needs(needs),
        Test::new(rules_come_and_go_with_the_second_network).needs(needs),
        Test::new(both_families).needs(needs),
        Test::new(internal_and_bare_networks).needs(needs),
        Test::new(a_lease_has_its_table).needs(&["ip", "nsenter", "dnsmasq"]),
        Test::new(names_ports_and_host_with_two_networks).needs(&["ip", "nsenter", "ping", "curl"]),
        Test::new(static_routes).needs(needs),
        Test::new(explained).needs(needs),
    ]
}

/// The lab with a second LAN, behind a router that the first one's gateway
/// knows.
struct TwoLans {
    lab: Lab,
}

fn ip(words: &str) -> Verdict {
    let argv: Vec<&str> = std::iter::once("ip").chain(words.split(' ')).collect();
    judge::run(&argv)?.success().map(drop)
}

fn in_netns(name: &str, argv: &[&str]) -> Verdict<judge::Answer> {
    judge::run(&[&["ip", "netns", "exec", name], argv].concat())
}

/// A sysctl of one namespace.
fn sysctl(netns: &str, path: &str, value: &str) -> Verdict {
    let script = format!("echo {value} > /proc/sys/net/{path}");
    in_netns(netns, &["sh", "-c", &script])?.success().map(drop)
}

fn two_lans() -> Verdict<TwoLans> {
    let lab = Lab::here(1)?;
    lab.add_ipv6()?;
    for line in [
        "netns add router",
        "netns add far",
        "link add eth2 type veth peer name eth0 netns router",
        "-n router link add eth1 type veth peer name eth0 netns far",
        "link set eth2 up",
        "-n router link set lo up",
        "-n router link set eth0 up",
        "-n router link set eth1 up",
        "-n far link set eth0 up",
        "-n router addr add 10.0.3.1/24 dev eth0",
        "-n router addr add 10.50.0.1/24 dev eth1",
        "-n far addr add 10.50.0.2/24 dev eth0",
        "-n far route add default via 10.50.0.1",
    ] {
        ip(line)?;
    }
    sysctl("router", "ipv4/ip_forward", "1")?;
    Ok(TwoLans { lab })
}

impl Drop for TwoLans {
    /// ip(8) mounts what it names.
    fn drop(&mut self) {
        for line in ["netns del far", "netns del router"] {
            let _ = ip(line);
        }
        let _ = judge::run(&["umount", "/run/netns"]);
    }
}

impl TwoLans {
    /// A way between the LANs that is not the container's.
    fn join(&self) -> Verdict {
        let gateway = |line: &str| -> Verdict {
            let argv: Vec<&str> = line.split(' ').collect();
            judge::on(&self.lab.gateway, &argv)?.success().map(drop)
        };
        gateway("ip link add j0 type veth peer name j1 netns router")?;
        gateway("ip addr add 10.60.0.1/30 dev j0")?;
        gateway("ip link set j0 up")?;
        ip("-n router addr add 10.60.0.2/30 dev j1")?;
        ip("-n router link set j1 up")?;
        gateway("ip route add 10.0.3.0/24 via 10.60.0.2")?;
        ip("-n router route add 10.0.2.0/24 via 10.60.0.1")?;
        judge::on(
            &self.lab.gateway,
            &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"],
        )?
        .success()
        .map(drop)
    }

    fn other_asks(&self, to: &str) -> Verdict<bool> {
        let asked = judge::on(&self.lab.others[0], &["ping", "-c1", "-W1", to])?;
        Ok(asked.is_success())
    }
}

/// Whether the machine behind the second LAN's router gets an answer.
fn far_asks(to: &str) -> Verdict<bool> {
    Ok(in_netns("far", &["ping", "-c1", "-W1", to])?.is_success())
}

fn create(name: &str, parent: &str, net: &str, flags: &[&str]) -> Verdict {
    let parent = format!("parent={parent}");
    let (subnet, gateway) = (format!("10.0.{net}.0/24"), format!("10.0.{net}.1"));
    let words = ["network", "create", "-d", "macvlan", "-o", &parent];
    let pool = ["--subnet", &subnet, "--gateway", &gateway];
    said(&[&words[..], &pool, flags, &[name]].concat()).map(drop)
}

fn run(name: &str, flags: &[&str]) -> Verdict {
    said(&[&["run", "-d", "--name", name], flags, &["tester"]].concat()).map(drop)
}

/// `10.0.2.5 1002`, but for the kernel's own three.
fn rules(name: &str, family: &str) -> Verdict<Vec<String>> {
    let all = ip_in(name, &[family, "rule"])?;
    let own = all.as_array().into_iter().flatten();
    let text = |r: &Value| {
        assert_eq!(r["priority"], 1000, "{r}");
        let word = |key: &str| r[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", word("src"), word("table"))
    };
    let is_kernels = |r: &&Value| r["src"] == "all";
    let mut own: Vec<String> = own.filter(|r| !is_kernels(r)).map(text).collect();
    own.sort();
    Ok(own)
}

/// `default 10.0.2.1 eth0`, sorted.
fn table(name: &str, family: &str, table: &str) -> Verdict<Vec<String>> {
    // A table that was never there is an error of ip's.
    let all = inside(name, &["ip", "-j", family, "route", "show", "table", table])?;
    let all = if all.is_success() {
        all.json()?
    } else {
        Value::Null
    };
    let text = |r: &Value| {
        let word = |key: &str| r[key].as_str().unwrap_or("-").to_owned();
        let metric = match (&r["metric"], family) {
            (Value::Number(n), "-4") => format!(" {n}"),
            _ => String::new(),
        };
        format!(
            "{} {} {}{metric}",
            word("dst"),
            word("gateway"),
            word("dev")
        )
    };
    let mut all: Vec<String> = all.as_array().into_iter().flatten().map(text).collect();
    all.sort();
    Ok(all)
}

/// Interface and next hop of `ip route get TO [from FROM]`.
fn way(name: &str, to: &str, from: Option<&str>) -> Verdict<(String, String)> {
    let family = if to.contains(':') { "-6" } else { "-4" };
    let mut words = vec![family, "route", "get", to];
    words.extend(from.iter().flat_map(|from| ["from", from]));
    let found = ip_in(name, &words)?;
    let word = |key: &str| found[0][key].as_str().unwrap_or("-").to_owned();
    Ok((word("dev"), word("gateway")))
}

fn pair(a: &str, b: &str) -> (String, String) {
    (a.to_owned(), b.to_owned())
}

fn remove(containers: &[&str], networks: &[&str]) -> Verdict {
    said(&[&["rm", "-f"], containers].concat())?;
    said(&[&["network", "rm"], networks].concat()).map(drop)
}

/// Without rules the answer leaves by the default route's link, with the other
/// link's address, and the guard drops it.
fn an_answer_leaves_by_the_link_of_the_question() -> Verdict {
    let lans = two_lans()?;
    lans.join()?;
    create("a", "eth1", "2", &[])?;
    create("b-off", "eth2", "3", &["-o", "source_routing=off"])?;
    let on = ["--network", "name=a,ip=10.0.2.5"];
    let off = [&on[..], &["--network", "name=b-off,ip=10.0.3.5"]].concat();
    run("plain", &off)?;
    assert_eq!(
        way("plain", "10.50.0.2", Some("10.0.3.5"))?,
        pair("eth0", "10.0.2.1")
    );
    assert!(!far_asks("10.0.3.5")?, "an answer came back without a rule");
    assert!(!lans.other_asks("10.0.3.5")?);
    // On the link itself there is no question of routes.
    assert!(in_netns("router", &["ping", "-c1", "-W1", "10.0.3.5"])?.is_success());
    let before = table("plain", "-4", "main")?;
    remove(&["plain"], &["b-off"])?;
    create("b", "eth2", "3", &[])?;

    run(
        "web",
        &[&on[..], &["--network", "name=b,ip=10.0.3.5"]].concat(),
    )?;
    assert_eq!(rules("web", "-4")?, ["10.0.2.5 1002", "10.0.3.5 1003"]);
    assert_eq!(rules("web", "-6")?, [""; 0]);
    assert!(
        far_asks("10.0.3.5")?,
        "no answer from the second network's address"
    );
    // From the first network's own LAN, through the router: main has that LAN
    // on its link.
    assert!(
        lans.other_asks("10.0.3.5")?,
        "no answer to the other network's LAN"
    );
    assert!(lans.other_asks("10.0.2.5")?);
    assert_eq!(
        way("web", "10.50.0.2", Some("10.0.3.5"))?,
        pair("eth1", "10.0.3.1")
    );
    assert_eq!(
        way("web", "10.0.2.7", Some("10.0.3.5"))?,
        pair("eth1", "10.0.3.1")
    );
    assert_eq!(way("web", "10.0.3.1", Some("10.0.3.5"))?, pair("eth1", "-"));
    // What is not an answer goes as ever: main is Docker's.
    assert_eq!(way("web", "10.50.0.2", None)?, pair("eth0", "10.0.2.1"));
    assert_eq!(way("web", "10.0.3.1", None)?, pair("eth1", "-"));
    assert_eq!(table("web", "-4", "main")?, before);
    assert_eq!(
        table("web", "-4", "1002")?,
        ["10.0.2.0/24 - eth0", "default 10.0.2.1 eth0"]
    );
    assert_eq!(
        table("web", "-4", "1003")?,
        ["10.0.3.0/24 - eth1", "default 10.0.3.1 eth1"]
    );
    // A restart keeps them with the namespace, a start makes them again.
    said(&["restart", "-t0", "web"])?;
    assert!(far_asks("10.0.3.5")?);
    said(&["stop", "-t0", "web"])?;
    said(&["start", "web"])?;
    assert_eq!(rules("web", "-4")?, ["10.0.2.5 1002", "10.0.3.5 1003"]);
    assert!(far_asks("10.0.3.5")?);
    refused(
        &[
            "network",
            "create",
            "-d",
            "macvlan",
            "-o",
            "parent=eth1",
            "-o",
            "source_routing=no",
            "x",
        ],
        "invalid value 'no' of -o source_routing: it is 'on' or 'off'",
    )?;
    remove(&["web"], &["a", "b"])
}

fn rules_come_and_go_with_the_second_network() -> Verdict {
    let _lans = two_lans()?;
    create("a", "eth1", "2", &[])?;
    create("b", "eth2", "3", &[])?;
    run("web", &["--network", "name=a,ip=10.0.2.5"])?;
    let (main, none) = (table("web", "-4", "main")?, [""; 0]);
    for _ in 0..2 {
        // As under Docker: no rule, and no table.
        assert_eq!(rules("web", "-4")?, none);
        assert_eq!(table("web", "-4", "1002")?, none);
        said(&["network", "connect", "--ip", "10.0.3.5", "b", "web"])?;
        assert_eq!(rules("web", "-4")?.len(), 2);
        assert!(far_asks("10.0.3.5")?);
        said(&["network", "disconnect", "b", "web"])?;
        assert_eq!(table("web", "-4", "main")?, main);
    }
    // The first goes, and the second has the default route.
    said(&["network", "connect", "--ip", "10.0.3.5", "b", "web"])?;
    said(&["network", "disconnect", "a", "web"])?;
    assert_eq!(rules("web", "-4")?, none);
    let all = ip_in("web", &["-4", "route", "show", "table", "all"])?;
    let strange = all.as_array().into_iter().flatten().find(|r| {
        r["table"]
            .as_str()
            .is_some_and(|t| !matches!(t, "local" | "main"))
            || r["dev"] == "eth0"
    });
    assert_eq!(strange, None);
    assert!(far_asks("10.0.3.5")?);
    // An address that turns out to be another's leaves nothing.
    ip("-n router addr add 10.0.3.9/24 dev eth0")?;
    said(&["network", "connect", "a", "web"])?;
    said(&["network", "disconnect", "b", "web"])?;
    let before = (rules("web", "-4")?, table("web", "-4", "main")?);
    refused(
        &["network", "connect", "--ip", "10.0.3.9", "b", "web"],
        "Address already in use",
    )?;
    assert_eq!((rules("web", "-4")?, table("web", "-4", "main")?), before);
    remove(&["web"], &["a", "b"])
}

fn both_families() -> Verdict {
    let _lans = two_lans()?;
    ip("-n router addr add fd00:3::1/64 dev eth0 nodad")?;
    ip("-n router addr add fd00:50::1/64 dev eth1 nodad")?;
    ip("-n far addr add fd00:50::2/64 dev eth0 nodad")?;
    ip("-n far route add default via fd00:50::1")?;
    sysctl("router", "ipv6/conf/all/forwarding", "1")?;
    let v6 = |net: &str| {
        let pool = format!("--subnet=fd00:{net}::/64");
        [
            "--ipv6".to_owned(),
            pool,
            format!("--gateway=fd00:{net}::1"),
        ]
    };
    let (a, b) = (v6("2"), v6("3"));
    create("a", "eth1", "2", &a.each_ref().map(String::as_str))?;
    create("b", "eth2", "3", &b.each_ref().map(String::as_str))?;
    run(
        "web",
        &[
            "--network",
            "name=a,ip=10.0.2.5,ip6=fd00:2::5,link-local-ip=169.254.7.7",
            "--network",
            "name=b,ip=10.0.3.5,ip6=fd00:3::5",
        ],
    )?;
    assert_eq!(rules("web", "-6")?, ["fd00:2::5 1002", "fd00:3::5 1003"]);
    assert_eq!(
        table("web", "-6", "1003")?,
        [
            "default fd00:3::1 eth1",
            "fd00:3::/64 - eth1",
            "fe80::/64 - eth1"
        ]
    );
    assert_eq!(
        table("web", "-4", "1002")?,
        [
            "10.0.2.0/24 - eth0",
            "169.254.0.0/16 - eth0",
            "default 10.0.2.1 eth0"
        ]
    );
    assert_eq!(
        way("web", "fd00:50::2", Some("fd00:3::5"))?,
        pair("eth1", "fd00:3::1")
    );
    assert_eq!(way("web", "fd00:50::2", None)?, pair("eth0", "fd00:2::1"));
    let end = Instant::now() + patience(5);
    while !in_netns("far", &["ping", "-6", "-c1", "-W1", "fd00:3::5"])?.is_success() {
        if Instant::now() > end {
            return failed("no answer from fd00:3::5 behind its router");
        }
    }
    assert!(far_asks("10.0.3.5")?);
    // A network of one family has a rule in that one.
    said(&["network", "disconnect", "a", "web"])?;
    create("c", "eth1", "5", &[])?;
    said(&["network", "connect", "--ip", "10.0.5.6", "c", "web"])?;
    let table_of_c = rules("web", "-4")?;
    assert_eq!(table_of_c.len(), 2, "{table_of_c:?}");
    assert_eq!(rules("web", "-6")?, ["fd00:3::5 1003"]);
    remove(&["web"], &["a", "b", "c"])
}

fn internal_and_bare_networks() -> Verdict {
    let _lans = two_lans()?;
    create("a", "eth1", "2", &[])?;
    create("inner", "eth2", "3", &["--internal"])?;
    let bare = ["network", "create", "-d", "macvlan", "-o", "parent=eth2"];
    said(&[&bare[..], &["--ipv4=false", "bare"]].concat())?;
    run(
        "web",
        &[
            "--network",
            "name=inner,ip=10.0.3.5",
            "--network",
            "name=a,ip=10.0.2.5",
        ],
    )?;
    assert_eq!(table("web", "-4", "1002")?, ["10.0.3.0/24 - eth0"]);
    assert_eq!(
        table("web", "-4", "1003")?,
        ["10.0.2.0/24 - eth1", "default 10.0.2.1 eth1"]
    );
    said(&["network", "disconnect", "inner", "web"])?;
    said(&["network", "connect", "bare", "web"])?;
    assert_eq!(rules("web", "-4")?, ["10.0.2.5 1003"]);
    remove(&["web"], &["a", "inner", "bare"])
}

/// A DHCP server on the second LAN, ended with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn a_lease_has_its_table() -> Verdict {
    let _lans = two_lans()?;
    let server = Command::new("ip")
        .args([
            "netns",
            "exec",
            "router",
            "dnsmasq",
            "--no-daemon",
            "--conf-file=/dev/null",
        ])
        .args([
            "--port=0",
            "--bind-interfaces",
            "--interface=eth0",
            "--dhcp-authoritative",
        ])
        .args([
            "--dhcp-range=10.0.3.50,10.0.3.59,300",
            "--user=root",
            "--leasefile-ro",
        ])
        .arg("--dhcp-option=option:classless-static-route,0.0.0.0/0,10.0.3.1,10.70.0.0/16,10.0.3.9")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _server = Server(server);
    create("a", "eth1", "2", &[])?;
    let dhcp = ["network", "create", "-d", "macvlan", "--ipam-driver=dhcp"];
    said(&[&dhcp[..], &["-o", "parent=eth2", "lan"]].concat())?;
    run(
        "web",
        &["--network", "name=a,ip=10.0.2.5", "--network", "lan"],
    )?;
    let all = rules("web", "-4")?;
    assert_eq!(
        (all.len(), all[0].as_str()),
        (2, "10.0.2.5 1002"),
        "{all:?}"
    );
    assert!(
        all[1].starts_with("10.0.3.5") && all[1].ends_with(" 1003"),
        "{all:?}"
    );
    let from = all[1].split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(
        table("web", "-4", "1003")?,
        [
            "10.0.3.0/24 - eth1",
            "10.70.0.0/16 10.0.3.9 eth1",
            "default 10.0.3.1 eth1"
        ]
    );
    assert!(far_asks(&from)?, "no answer from the lease's address");
    let said_of = said(&["network", "explain", "web", "10.70.1.1"])?;
    assert!(said_of.contains("a route of lan's DHCP lease"), "{said_of}");
    remove(&["web"], &["a", "lan"])
}

/// What a second network must not break.
fn names_ports_and_host_with_two_networks() -> Verdict {
    let lans = two_lans()?;
    create("a", "eth1", "2", &["--host-access"])?;
    create("b", "eth2", "3", &["--host-access=10.0.3.200"])?;
    let nets = [
        "--network",
        "name=a,ip=10.0.2.5",
        "--network",
        "name=b,ip=10.0.3.5",
    ];
    run("web", &[&["-p", "8080:5000"], &nets[..]].concat())?;
    run("peer", &["--network", "name=b,ip=10.0.3.6"])?;
    assert_eq!(rules("web", "-4")?.len(), 2);
    said(&["exec", "web", "ping", "-c1", "-W2", "peer"])?;
    said(&["exec", "peer", "ping", "-c1", "-W2", "web"])?;
    let page = |url: &str| -> Verdict<judge::Answer> {
        let retry = ["-m5", "--retry", "5", "--retry-all-errors"];
        judge::on(
            &lans.lab.gateway,
            &[&["curl", "-s"], &retry[..], &[url]].concat(),
        )
    };
    page("http://10.0.2.5:5000/json")?.success()?;
    page("http://10.0.2.4:8080/json")?.success()?;
    judge::run(&["curl", "-s", "-m5", "http://127.0.0.1:8080/json"])?.success()?;
    for to in ["10.0.2.5", "10.0.3.5"] {
        judge::run(&["ping", "-c1", "-W2", to])?.success()?;
    }
    remove(&["web", "peer"], &["a", "b"])
}

fn static_routes() -> Verdict {
    let _lans = two_lans()?;
    let routes_a = [
        "--route",
        "10.9.0.0/16,10.0.2.77",
        "--route",
        "10.50.0.0/24,10.0.2.1",
    ];
    create("a", "eth1", "2", &routes_a)?;
    let routes_b = [
        "--route=10.9.0.0/16,10.0.3.9",
        "--route=10.50.0.0/24,10.0.3.1,50",
    ];
    create("b", "eth2", "3", &routes_b)?;
    let format = "{{json .Dockless.Routes}}";
    let shown = said(&["network", "inspect", "-f", format, "b"])?;
    assert_eq!(
        shown.trim(),
        r#"["10.9.0.0/16 via 10.0.3.9","10.50.0.0/24 via 10.0.3.1 metric 50"]"#
    );
    // On one network: in main alone.
    run("web", &["--network", "name=b,ip=10.0.3.5"])?;
    let main_b = [
        "10.0.3.0/24 - eth0",
        "10.50.0.0/24 10.0.3.1 eth0 50",
        "10.9.0.0/16 10.0.3.9 eth0",
        "default 10.0.3.1 eth0",
    ];
    assert_eq!(table("web", "-4", "main")?, main_b);
    assert_eq!(rules("web", "-4")?, [""; 0]);
    inside("web", &["ping", "-c1", "-W2", "10.50.0.2"])?.success()?;
    // With a second one that is preferred: its routes are main's, and both are
    // in their own tables.
    said(&["network", "connect", "--ip", "10.0.2.5", "a", "web"])?;
    assert_eq!(
        table("web", "-4", "main")?,
        [
            "10.0.2.0/24 - eth1",
            "10.0.3.0/24 - eth0",
            "10.50.0.0/24 10.0.2.1 eth1",
            "10.50.0.0/24 10.0.3.1 eth0 50",
            "10.9.0.0/16 10.0.2.77 eth1",
            "default 10.0.2.1 eth1",
        ]
    );
    assert_eq!(table("web", "-4", "1002")?, main_b);
    assert_eq!(
        way("web", "10.9.1.1", Some("10.0.3.5"))?,
        pair("eth0", "10.0.3.9")
    );
    assert_eq!(way("web", "10.9.1.1", None)?, pair("eth1", "10.0.2.77"));
    assert!(far_asks("10.0.3.5")?);
    said(&["network", "disconnect", "a", "web"])?;
    assert_eq!(table("web", "-4", "main")?, main_b);
    // The gateway of a route does not have it.
    said(&["rm", "-f", "web"])?;
    run("gw", &["--network", "name=b,ip=10.0.3.9"])?;
    let main = table("gw", "-4", "main")?;
    assert!(!main.iter().any(|r| r.starts_with("10.9.")), "{main:?}");
    let text = said(&["network", "explain", "gw"])?;
    assert!(
        text.contains("not here: the container is its gateway"),
        "{text}"
    );
    remove(&["gw"], &["a", "b"])
}

fn explained() -> Verdict {
    let _lans = two_lans()?;
    create("a", "eth1", "2", &["--route", "10.9.0.0/16,10.0.2.77"])?;
    create("b", "eth2", "3", &[])?;
    create("inner", "eth2", "4", &["--internal"])?;
    run(
        "web",
        &[
            "--network",
            "name=b,gw-priority=5",
            "--network",
            "a",
            "--network",
            "inner",
        ],
    )?;
    said(&["stop", "-t0", "web"])?;
    let explain = |words: &[&str]| said(&[&["network", "explain", "web"], words].concat());
    let to_be = explain(&[])?;
    for phrase in [
        "web, as its next start would make it",
        "IPv4: default route by b (eth0) via 10.0.3.1: its gw-priority, 5, is the highest",
        "not a: its gw-priority is 0",
        "not inner: it is internal",
        "IPv6: no default route: no network leads out",
        "static route 10.9.0.0/16 via 10.0.2.77: in main and in its own table",
    ] {
        assert!(to_be.contains(phrase), "{phrase}\n{to_be}");
    }
    let line = explain(&["10.50.0.2"])?;
    assert!(
        line.contains("\n10.50.0.2: goes out by eth0 via 10.0.3.1\n"),
        "{line}"
    );

    said(&["network", "set", "web", "b", "gw=10.0.3.7"])?;
    let own = explain(&["10.50.0.2"])?;
    assert!(own.contains("by eth0 via 10.0.3.7\n"), "{own}");
    said(&["network", "set", "web", "b", "gw=off"])?;

    said(&["start", "web"])?;
    let text = explain(&[])?;
    assert!(text.starts_with("web, as it is\n"), "{text}");
    assert!(
        text.contains("rule 1000: from 10.0.3.2 lookup 1002"),
        "{text}"
    );
    // Each answer is the kernel's.
    for (to, from, why) in [
        (
            "10.50.0.2",
            None,
            "the default route goes by b: its gw-priority, 5, is the highest",
        ),
        (
            "10.50.0.2",
            Some("10.0.2.2"),
            "10.0.2.2 is an address on a, whose table has its gateway",
        ),
        ("10.9.0.1", None, "a static route of a"),
        ("10.0.2.7", None, "which is on a's own link"),
        ("10.0.4.9", None, "which is on inner's own link"),
    ] {
        let mut words = vec![to];
        words.extend(from.iter().flat_map(|from| ["--from", from]));
        let text = explain(&words)?;
        assert!(text.contains(why), "{why}\n{text}");
        words.push("--json");
        let json: Value = serde_json::from_str(&explain(&words)?)?;
        let answer = &json["Answer"];
        let said = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        let (dev, via) = way("web", to, from)?;
        let gateway = said("Gateway");
        assert_eq!(said("Interface"), dev, "{answer}");
        assert_eq!(
            if gateway.is_empty() { "-" } else { &gateway },
            via,
            "{answer}"
        );
    }
    // There is a way, and no entry of a table that it is by.
    for all in ["224.0.0.251", "255.255.255.255"] {
        let text = explain(&[all])?;
        let is_told = text.contains("eth0") && text.contains("broadcast or multicast");
        assert!(is_told, "{text}");
    }
    let own = explain(&["10.0.2.2"])?;
    assert!(own.contains("stays in the container"), "{own}");
    let none = explain(&["fd00::1"])?;
    assert!(none.contains("fd00::1: goes nowhere"), "{none}");
    assert!(none.contains("no network leads out"), "{none}");
    // What somebody did inside.
    inside(
        "web",
        &["ip", "route", "add", "10.77.0.0/16", "via", "10.0.2.9"],
    )?
    .success()?;
    inside(
        "web",
        &["ip", "rule", "add", "from", "10.0.4.2", "lookup", "77"],
    )?
    .success()?;
    inside(
        "web",
        &["ip", "route", "del", "10.9.0.0/16", "table", "main"],
    )?
    .success()?;
    let text = explain(&[])?;
    let missing = "10.0.2.77: in its own table; missing in main: something has deleted it";
    assert!(text.contains(missing), "{text}");
    inside(
        "web",
        &["ip", "route", "del", "10.9.0.0/16", "table", "1003"],
    )?
    .success()?;
    let text = explain(&[])?;
    for phrase in [
        "10.77.0.0/16 via 10.0.2.9 dev eth1",
        "rules that were added inside the container\n  999: from 10.0.4.2 lookup 77",
        "static route 10.9.0.0/16 via 10.0.2.77: missing: something has deleted it",
    ] {
        assert!(text.contains(phrase), "{phrase}\n{text}");
    }
    ip("link set eth2 down")?;
    judge::eventually("a note of the carrier", 5, || {
        Ok(explain(&[])?.contains("its parent has no carrier"))
    })?;
    let format = said(&[
        "network",
        "explain",
        "--format",
        "{{.Container}} {{.Running}}",
        "web",
    ])?;
    assert_eq!(format, "web true\n");
    said(&["rm", "-f", "web"])?;
    run("alone", &["--network", "none"])?;
    let alone = said(&["network", "explain", "alone"])?;
    assert!(
        alone.contains("no default route: it is on no network"),
        "{alone}"
    );
    said(&["network", "explain", "alone", "10.0.2.1"])?;
    remove(&["alone"], &["a", "b", "inner"])
}
