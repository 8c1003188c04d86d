//! IPv6 by the LAN: SLAAC with radvd and dnsmasq on the gateway of the lab.
//! What the container got is judged by `ip -6 -j`, what leaves it by the
//! gateway's ping and by nftables' counters.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use dockless::lab::Lab;
use serde_json::Value;

use crate::harness::{Test, Verdict};
use crate::judge::{self, eventually, file_in, inside, ip_in, refused, said};

pub(crate) fn tests() -> Vec<Test> {
    let radvd: &[&str] = &["ip", "nsenter", "ping", "radvd"];
    vec![
        Test::new(slaac_with_a_stable_token).needs(&["ip", "nsenter", "ping", "radvd", "dig"]),
        Test::new(prefixes_come_and_go).needs(radvd),
        Test::new(beside_dhcp_and_alone).needs(&["ip", "nsenter", "ping", "dnsmasq"]),
        Test::new(of_several_routers_one_is_taken).needs(radvd),
        Test::new(an_address_that_somebody_has).needs(radvd),
        Test::new(others_stay_inside).needs(radvd),
        Test::new(beside_a_subnet).needs(radvd),
        Test::new(on_a_link_that_is_made_anew).needs(radvd),
        Test::new(off_is_off).needs(&["ip", "nsenter"]),
        Test::new(no_router_and_no_hurry).needs(&["ip", "nsenter"]),
    ]
    .into_iter()
    .map(|test| test.limit_s(120))
    .collect()
}

// ---- dockless ---------------------------------------------------------------

pub(crate) const V4: [&str; 2] = ["--subnet=10.0.2.0/24", "--gateway=10.0.2.1"];
pub(crate) const ROUTER: &str = "2001:db8:2::1";

pub(crate) fn create(name: &str, flags: &[&str]) -> Verdict {
    let words = ["network", "create", "-d", "macvlan", "-o", "parent=eth1"];
    said(&[&words[..], flags, &[name]].concat()).map(drop)
}

pub(crate) fn up(name: &str, flags: &[&str]) -> Verdict {
    let run = ["run", "-d", "--name", name];
    said(&[&run, flags, &["tester"]].concat()).map(drop)
}

pub(crate) fn format(name: &str, format: &str) -> Verdict<String> {
    Ok(said(&["inspect", "-f", format, name])?.trim().to_owned())
}

/// What `inspect` says of IPv6 by the LAN.
pub(crate) fn shown(name: &str, network: &str) -> Verdict<Value> {
    let json = format(name, "{{json .Dockless.IPv6}}")?;
    Ok(serde_json::from_str::<Value>(&json)?[network].take())
}

pub(crate) fn global(name: &str, network: &str) -> Verdict<String> {
    let of = format!("{{{{(index .NetworkSettings.Networks \"{network}\").GlobalIPv6Address}}}}");
    format(name, &of)
}

/// The addresses of a link that the kernel has, but for the link-local one.
pub(crate) fn addrs(name: &str, ifname: &str) -> Verdict<Vec<Value>> {
    let mut links = ip_in(name, &["-6", "addr", "show", "dev", ifname])?;
    let infos = links[0]["addr_info"].take();
    let all = infos.as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().filter(|a| a["scope"] == "global").collect())
}

/// Until there is an address of that prefix.
pub(crate) fn address(name: &str, network: &str, prefix: &str) -> Verdict<String> {
    eventually(&format!("{name} has an address of {prefix}"), 20, || {
        Ok(global(name, network)?.starts_with(prefix))
    })?;
    global(name, network)
}

pub(crate) fn pings(lan: &Lab, to: &str) -> Verdict<bool> {
    let answer = judge::on(&lan.gateway, &["ping", "-c2", "-i0.2", "-W2", to])?;
    Ok(answer.is_success())
}

pub(crate) fn leases() -> Verdict<Vec<String>> {
    let state = std::env::var("DOCKLESS_STATE").unwrap();
    let names = fs::read_dir(format!("{state}/leases"))?
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'));
    Ok(names.collect())
}

/// How often the supervisor has gone to sleep. `inspect` would wake it.
pub(crate) fn sleeps(supervisor: &str) -> Verdict<u64> {
    let status = fs::read_to_string(format!("/proc/{supervisor}/status"))?;
    let line = status.lines().find(|l| l.starts_with("voluntary_ctxt"));
    let count = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
    Ok(count.unwrap())
}

// ---- routers ----------------------------------------------------------------

fn scratch(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("TMPDIR").unwrap_or("/tmp".into())).join(name)
}

/// A program on the gateway; it ends with this.
pub(crate) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn lan() -> Verdict<Lab> {
    let lan = Lab::here(1)?;
    lan.gateway.run(|| {
        fs::write("/proc/sys/net/ipv6/conf/eth0/disable_ipv6", "0").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
        Ok(())
    })?;
    for prefix in ["2001:db8:2::1/64", "2001:db8:3::1/64"] {
        let add = ["ip", "-6", "addr", "add", prefix, "dev", "eth0", "nodad"];
        judge::on(&lan.gateway, &add)?.success()?;
    }
    Ok(lan)
}

/// What stands in radvd.conf of a prefix.
pub(crate) fn prefix(prefix: &str, preferred: u32) -> String {
    format!(
        "prefix {prefix} {{ AdvValidLifetime 300; AdvPreferredLifetime {preferred}; \
         DeprecatePrefix off; }};"
    )
}

pub(crate) fn radvd(lan: &Lab, lines: &str) -> Verdict<Running> {
    let config = scratch("radvd.conf");
    let text = format!(
        "interface eth0 {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; \
         AdvDefaultLifetime 100; {lines} }};\n"
    );
    fs::write(&config, text)?;
    let pid = scratch("radvd.pid");
    let _ = fs::remove_file(&pid);
    let mut command = Command::new("radvd");
    command
        .args(["--nodaemon", "-m", "stderr", "-C"])
        .arg(&config)
        .arg("-p")
        .arg(&pid)
        .env("PATH", judge::search_path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(scratch("radvd.log"))?);
    let running = Running(lan.gateway.spawn(&mut command)?);
    eventually("radvd runs", 10, || {
        let log = fs::read_to_string(scratch("radvd.log"))?;
        Ok(log.contains("started"))
    })?;
    Ok(running)
}

// ---- tests ------------------------------------------------------------------

fn slaac_with_a_stable_token() -> Verdict {
    let lan = lan()?;
    let _radvd = radvd(
        &lan,
        &format!(
            "{} RDNSS {ROUTER} {{ AdvRDNSSLifetime 100; }}; DNSSL lan.example {{ AdvDNSSLLifetime 100; }};",
            prefix("2001:db8:2::/64", 200)
        ),
    )?;
    create("lan", &V4)?;
    up("web", &["--network", "lan", "--ip6", "slaac"])?;
    let ip = address("web", "lan", "2001:db8:2:")?;
    let all = addrs("web", "eth0")?;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(
        (&all[0]["local"], &all[0]["dynamic"]),
        (&ip.clone().into(), &true.into())
    );
    let tokens = inside("web", &["ip", "-j", "token", "list"])?.json()?;
    let token = tokens[0]["token"].as_str().unwrap_or_default().to_owned();
    let lan6 = shown("web", "lan")?;
    assert_eq!(lan6["Token"], *token);
    assert!(ip.ends_with(token.trim_start_matches("::")), "{ip} {token}");
    assert_eq!(lan6["Addresses"][0]["Address"], format!("{ip}/64"));
    assert_eq!(lan6["Addresses"][0]["State"], "preferred");
    let routes = ip_in("web", &["-6", "route", "show", "default"])?;
    assert_eq!(routes[0]["protocol"], "ra");
    assert_eq!(lan6["Router"], routes[0]["gateway"]);
    assert_eq!(
        format(
            "web",
            "{{(index .NetworkSettings.Networks \"lan\").IPv6Gateway}}"
        )?,
        routes[0]["gateway"].as_str().unwrap()
    );
    assert!(pings(&lan, &ip)? && pings(&lan, "10.0.2.2")?);
    inside("web", &["ping", "-c1", "-W2", ROUTER])?.success()?;
    assert_eq!(format("web", "{{json .Dockless.Links.lan.Dropped}}")?, "{}");

    // Name servers, and names.
    assert_eq!(
        (&lan6["DNS"][0], &lan6["Search"][0]),
        (&ROUTER.into(), &"lan.example".into())
    );
    let resolv = file_in("web", "/etc/resolv.conf")?;
    assert!(
        resolv.contains("search lan.example") && resolv.contains(ROUTER),
        "{resolv}"
    );
    assert!(file_in("web", "/etc/hosts")?.contains(&ip));
    assert!(said(&["hosts"])?.contains(&format!("{ip}\tweb web.lan")));
    let dig = ["dig", "+short", "@127.0.0.11", "web", "AAAA"];
    assert_eq!(inside("web", &dig)?.stdout.trim(), ip);
    refused(&["rename", "web", "www"], "stop it first")?;

    // The same one made anew, and another under another name.
    said(&["rm", "-f", "web"])?;
    assert_eq!(leases()?, [""; 0]);
    up("web", &["--rm", "--network", "name=lan,ip6=slaac"])?;
    up("other", &["--network", "lan"])?;
    said(&["network", "disconnect", "lan", "other"])?;
    said(&["network", "connect", "--ip6", "slaac", "lan", "other"])?;
    assert_eq!(address("web", "lan", "2001:db8:2:")?, ip);
    let theirs = address("other", "lan", "2001:db8:2:")?;
    assert_ne!(theirs, ip);
    inside("web", &["ping", "-c1", "-W2", &theirs])?.success()?;
    said(&["network", "disconnect", "lan", "other"])?;
    assert!(!leases()?.iter().any(|name| name.contains(&theirs)));
    said(&["restart", "-t0", "web"])?;
    assert_eq!(global("web", "lan")?, ip);
    // A kill takes the names along.
    let supervisor = format("web", "{{.Dockless.SupervisorPid}}")?;
    judge::run(&["kill", "-9", &supervisor])?.success()?;
    said(&["rm", "-f", "other"])?;
    eventually("the dead one is gone", 5, || {
        Ok(said(&["ps", "-aq"])?.is_empty() && leases()?.is_empty())
    })?;
    said(&["network", "rm", "lan"]).map(drop)
}

fn prefixes_come_and_go() -> Verdict {
    let lan = lan()?;
    let first = radvd(&lan, &prefix("2001:db8:2::/64", 200))?;
    create("lan", &V4)?;
    up("web", &["--network", "lan", "--ip6", "slaac"])?;
    let old = address("web", "lan", "2001:db8:2:")?;
    drop(first);
    let both = [prefix("2001:db8:2::/64", 0), prefix("2001:db8:3::/64", 200)].concat();
    let _second = radvd(&lan, &both)?;
    let new = address("web", "lan", "2001:db8:3:")?;
    // The old one is for connections that there are.
    let states = shown("web", "lan")?["Addresses"].clone();
    let states = states.as_array().cloned().unwrap_or_default();
    let state_of = |ip: &str| {
        let one = states.iter().find(|a| a["Address"] == format!("{ip}/64"));
        one.map(|a| a["State"].clone())
    };
    assert_eq!(state_of(&old), Some("deprecated".into()));
    assert_eq!(state_of(&new), Some("preferred".into()));
    assert!(pings(&lan, &old)? && pings(&lan, &new)?);
    let hosts = said(&["hosts"])?;
    assert!(hosts.contains(&old) && hosts.contains(&new), "{hosts}");
    // As if its time were over.
    let gone = [
        "ip",
        "-6",
        "addr",
        "del",
        &format!("{old}/64"),
        "dev",
        "eth0",
    ];
    inside("web", &gone)?.success()?;
    eventually("the old one has no name", 5, || {
        Ok(!said(&["hosts"])?.contains(&old))
    })?;
    said(&["rm", "-f", "web"])?;
    assert_eq!(leases()?, [""; 0]);
    Ok(())
}

/// dnsmasq for both: addresses by DHCP, prefixes by advertisements. Then a
/// network that has nothing but what its routers say.
fn beside_dhcp_and_alone() -> Verdict {
    let lan = lan()?;
    let mut command = Command::new("dnsmasq");
    command
        .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0"])
        .args(["--no-ping", "--interface=eth0", "--bind-interfaces"])
        .args(["--user=", "--group=", "--log-facility=-", "--enable-ra"])
        .args(["--dhcp-range=10.0.2.50,10.0.2.99,255.255.255.0,10m"])
        .args([
            "--dhcp-range=2001:db8:2::,ra-only,64,10m",
            "--dhcp-authoritative",
        ])
        .arg(format!("--pid-file={}", scratch("dnsmasq.pid").display()))
        .arg(format!("--dhcp-leasefile={}", scratch("leases").display()))
        .env("PATH", judge::search_path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(scratch("dnsmasq.log"))?);
    let _dnsmasq = Running(lan.gateway.spawn(&mut command)?);
    create("lan", &["--ipam-driver=dhcp"])?;
    up("web", &["--network", "lan", "--ip6", "slaac"])?;
    let ip = address("web", "lan", "2001:db8:2:")?;
    let v4 = format(
        "web",
        "{{(index .NetworkSettings.Networks \"lan\").IPAddress}}",
    )?;
    assert!(v4.starts_with("10.0.2."), "{v4}");
    assert_eq!(format("web", "{{.Dockless.DHCP.lan.State}}")?, "BOUND");
    assert!(pings(&lan, &ip)? && pings(&lan, &v4)?);
    said(&["stop", "-t0", "web"])?;
    said(&["start", "web"])?;
    assert_eq!(address("web", "lan", "2001:db8:2:")?, ip);

    create("six", &["--ipv4=false"])?;
    up("alone", &["--network", "six", "--ip6", "slaac"])?;
    let mac = format(
        "alone",
        "{{(index .NetworkSettings.Networks \"six\").MacAddress}}",
    )?;
    let own = address("alone", "six", "2001:db8:2:")?;
    assert!(pings(&lan, &own)?);
    assert_eq!(ip_in("alone", &["-4", "route"])?, Value::Array(vec![]));
    said(&["rm", "-f", "alone"])?;
    up("alone", &["--network", "six", "--ip6", "slaac"])?;
    assert_eq!(address("alone", "six", "2001:db8:2:")?, own);
    assert_eq!(
        format(
            "alone",
            "{{(index .NetworkSettings.Networks \"six\").MacAddress}}"
        )?,
        mac
    );
    said(&["rm", "-f", "web", "alone"])?;
    assert_eq!(leases()?, [""; 0]);
    Ok(())
}

fn of_several_routers_one_is_taken() -> Verdict {
    let lan = lan()?;
    let _radvd = radvd(&lan, &prefix("2001:db8:2::/64", 200))?;
    for (name, flags) in [
        ("aa", &["--ipv4=false"][..]),
        ("bb", &["--ipv4=false"]),
        ("cc", &["--ipv4=false", "--internal"]),
    ] {
        create(name, flags)?;
    }
    create(
        "fixed",
        &[
            "--ipv4=false",
            "--ipv6",
            "--subnet=fd00:2::/64",
            "--gateway=fd00:2::1",
        ],
    )?;
    let metric = |container: &str, ifname: &str| -> Verdict<Option<i64>> {
        let routes = ip_in(container, &["-6", "route", "show", "default"])?;
        let all = routes.as_array().cloned().unwrap_or_default();
        Ok(all
            .iter()
            .find(|r| r["dev"] == ifname)
            .and_then(|r| r["metric"].as_i64()))
    };
    let networks = [
        "--network",
        "name=aa,ip6=slaac",
        "--network",
        "name=bb,ip6=slaac",
        "--network",
        "name=cc,ip6=slaac",
    ];
    up("plain", &networks)?;
    for network in ["aa", "bb", "cc"] {
        address("plain", network, "2001:db8:2:")?;
    }
    let (first, second) = (
        metric("plain", "eth0")?.unwrap(),
        metric("plain", "eth1")?.unwrap(),
    );
    assert!(first < second, "{first} {second}");
    assert_eq!(metric("plain", "eth2")?, None);
    said(&["rm", "-f", "plain"])?;
    let networks = [
        "--network",
        "name=aa,ip6=slaac",
        "--network",
        "name=bb,ip6=slaac,gw-priority=1",
        "--network",
        "fixed",
    ];
    up("chosen", &networks)?;
    address("chosen", "aa", "2001:db8:2:")?;
    address("chosen", "bb", "2001:db8:2:")?;
    let (aa, bb, fixed) = (
        metric("chosen", "eth0")?,
        metric("chosen", "eth1")?,
        metric("chosen", "eth2")?,
    );
    assert!(bb < fixed && fixed < aa, "{aa:?} {bb:?} {fixed:?}");
    said(&["rm", "-f", "chosen"]).map(drop)
}

fn an_address_that_somebody_has() -> Verdict {
    let lan = lan()?;
    let first = radvd(&lan, &prefix("2001:db8:2::/64", 200))?;
    create("lan", &V4)?;
    up("web", &["--network", "lan", "--ip6", "slaac"])?;
    let ip = address("web", "lan", "2001:db8:2:")?;
    said(&["rm", "-f", "web"])?;
    let add = [
        "ip",
        "-6",
        "addr",
        "add",
        &format!("{ip}/64"),
        "dev",
        "eth0",
        "nodad",
    ];
    judge::on(&lan.gateway, &add)?.success()?;
    up("web", &["--network", "lan", "--ip6", "slaac"])?;
    eventually("it is told", 20, || {
        let why = shown("web", "lan")?["LastError"].clone();
        Ok(why
            .as_str()
            .is_some_and(|why| why.contains(&ip) && why.contains("somebody on the LAN has it")))
    })?;
    assert_eq!(global("web", "lan")?, "");
    assert!(!said(&["hosts"])?.contains(&ip));
    drop(first);
    said(&["rm", "-f", "web"]).map(drop)
}

/// The guard lets out what SLAAC has made, and nothing that is added inside.
fn others_stay_inside() -> Verdict {
    let lan = lan()?;
    let _radvd = radvd(&lan, &prefix("2001:db8:2::/64", 200))?;
    create("lan", &V4)?;
    up("web", &["--network", "lan", "--ip6", "slaac"])?;
    // Before there is an address: the kernel's questions, and no more.
    let ip = address("web", "lan", "2001:db8:2:")?;
    for other in ["2001:db8:2::99", "2001:db8:2::1:4"] {
        let add = [
            "ip",
            "-6",
            "addr",
            "add",
            &format!("{other}/64"),
            "dev",
            "eth0",
            "nodad",
        ];
        inside("web", &add)?.success()?;
        let ping = inside("web", &["ping", "-c1", "-W1", "-I", other, ROUTER])?;
        assert!(!ping.is_success(), "{other}");
    }
    sleep(Duration::from_secs(1));
    let ping = inside(
        "web",
        &["ping", "-c1", "-W1", "-I", "2001:db8:2::99", ROUTER],
    )?;
    assert!(!ping.is_success());
    let dropped: Value =
        serde_json::from_str(&format("web", "{{json .Dockless.Links.lan.Dropped}}")?)?;
    assert!(dropped["IPv6"].as_u64() > Some(0), "{dropped}");
    assert_eq!(
        shown("web", "lan")?["Addresses"].as_array().map(Vec::len),
        Some(1)
    );
    assert!(pings(&lan, &ip)?);
    said(&["rm", "-f", "web"]).map(drop)
}

/// Of a network with a subnet of its own: routers' routes, as under Docker, but
/// no address that the guard would hold back; and no way out of an internal one.
fn beside_a_subnet() -> Verdict {
    let lan = lan()?;
    let own = [
        "ip",
        "-6",
        "addr",
        "add",
        "fd00:6::1/64",
        "dev",
        "eth0",
        "nodad",
    ];
    judge::on(&lan.gateway, &own)?.success()?;
    let _radvd = radvd(&lan, &prefix("2001:db8:2::/64", 200))?;
    let v6 = ["--ipv6", "--subnet=fd00:6::/64", "--gateway=fd00:6::1"];
    create("dual", &[&V4[..], &v6].concat())?;
    let inside_v6 = ["--ipv6", "--subnet=fd00:7::/64", "--subnet=10.0.7.0/24"];
    create("in", &[&inside_v6[..], &["--internal"]].concat())?;
    create(
        "open",
        &[
            "-o",
            "guard=off",
            "--ipv6",
            "--subnet=fd00:8::/64",
            "--subnet=10.0.8.0/24",
        ],
    )?;
    for network in ["dual", "in", "open"] {
        up(network, &["--network", network])?;
    }
    let from_routers = |name: &str, what: &str| -> Verdict<usize> {
        let all = ip_in(name, &["-6", "route", "show", "proto", what])?;
        let all = all.as_array().cloned().unwrap_or_default();
        Ok(all.iter().filter(|r| r["dst"] != "fe80::/64").count())
    };
    // The kernel's route to the advertised prefix: it has been heard.
    for name in ["dual", "in", "open"] {
        eventually("an advertisement", 20, || {
            Ok(from_routers(name, "kernel")? > 1)
        })?;
    }
    eventually("duplicate address detection", 20, || {
        let all = addrs("open", "eth0")?;
        Ok(all
            .iter()
            .any(|a| a["dynamic"] == true && a["tentative"] != true))
    })?;
    for name in ["dual", "in"] {
        let all = addrs(name, "eth0")?;
        assert!(all.len() == 1 && all[0]["dynamic"] != true, "{all:?}");
    }
    assert_eq!(from_routers("dual", "ra")?, 1);
    assert_eq!(from_routers("in", "ra")?, 0);
    for _ in 0..3 {
        inside("dual", &["ping", "-c1", "-W2", ROUTER])?.success()?;
    }
    assert_eq!(
        format("dual", "{{json .Dockless.Links.dual.Dropped}}")?,
        "{}"
    );
    said(&["rm", "-f", "dual", "in", "open"])?;
    said(&["network", "rm", "dual", "in", "open"]).map(drop)
}

/// By `network set`: the same address again, and nobody had it.
fn on_a_link_that_is_made_anew() -> Verdict {
    let lan = lan()?;
    let _radvd = radvd(&lan, &prefix("2001:db8:2::/64", 200))?;
    create("lan", &V4)?;
    up("web", &["--network", "lan", "--ip6", "slaac"])?;
    let ip = address("web", "lan", "2001:db8:2:")?;
    said(&["network", "set", "web", "lan", "ip=10.0.2.60"])?;
    eventually("its address is gone", 5, || {
        Ok(global("web", "lan")?.is_empty())
    })?;
    assert_eq!(address("web", "lan", "2001:db8:2:")?, ip);
    assert_eq!(shown("web", "lan")?["LastError"], "");
    assert!(pings(&lan, &ip)?);
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "lan"]).map(drop)
}

fn off_is_off() -> Verdict {
    let lan = lan()?;
    create(
        "dual",
        &[
            "--subnet=10.0.2.0/24",
            "--ipv6",
            "--subnet=fd00:2::/64",
            "--gateway=fd00:2::1",
        ],
    )?;
    up("web", &["--network", "dual", "--ip6", "off"])?;
    let links = ip_in("web", &["-6", "addr", "show", "dev", "eth0"])?;
    assert!(
        links[0]["addr_info"].as_array().is_none_or(Vec::is_empty),
        "{links}"
    );
    let off = inside("web", &["cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6"])?;
    assert_eq!(off.stdout.trim(), "1");
    assert_eq!(global("web", "dual")?, "");
    assert_eq!(shown("web", "dual")?["By"], "off");
    assert!(pings(&lan, "10.0.2.2")?);
    assert!(leases()?.iter().all(|name| name.starts_with("10.0.2.0")));
    said(&["rm", "-f", "web"])?;
    let both = [
        "run",
        "--rm",
        "--ip6",
        "off",
        "--network",
        "name=dual,ip6=fd00:2::5",
        "tester",
        "true",
    ];
    refused(&both, "cannot specify both --ip6")
}

/// The start waits for nobody, and at rest nothing does anything.
fn no_router_and_no_hurry() -> Verdict {
    let _lan = lan()?;
    create("lan", &V4)?;
    up("web", &["--network", "lan", "--ip6", "slaac"])?;
    let supervisor = format("web", "{{.Dockless.SupervisorPid}}")?;
    sleep(Duration::from_secs(6));
    let before = sleeps(&supervisor)?;
    sleep(Duration::from_secs(3));
    assert_eq!(sleeps(&supervisor)?, before);
    let lan6 = shown("web", "lan")?;
    assert_eq!(
        (&lan6["Addresses"], &lan6["Router"]),
        (&Value::Array(vec![]), &"".into())
    );
    said(&["rm", "-f", "web"]).map(drop)
}
