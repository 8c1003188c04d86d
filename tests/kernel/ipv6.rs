//! Kernel tests of IPv6 in containers: dual stack and IPv6 alone, judged by
//! `ip -6`, the gateway's ping and tshark.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Test, Verdict, patience};
use crate::judge::{self, ask, file_in, inside, ip_in, refused, said};
use dockless::lab::Lab;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(dual_stack_on_the_lan).needs(&["curl"]),
        Test::new(ipv6_alone).needs(&["curl"]),
        Test::new(sysctls_as_docker),
        Test::new(announcements).needs(&["tshark"]),
        Test::new(each_family_s_default_route),
        Test::new(point_to_point_and_single),
        Test::new(identity_over_restarts),
        Test::new(link_local_sysctls_and_names),
        Test::new(names_have_both_families).needs(&["dig", "nsenter"]),
        Test::new(pools_of_its_own),
    ]
}

const V4: [&str; 2] = ["--subnet=10.0.2.0/24", "--gateway=10.0.2.1"];
const V6: [&str; 3] = ["--ipv6", "--subnet=fd00:2::/64", "--gateway=fd00:2::1"];
const ONLY_V6: [&str; 4] = [
    "--ipv4=false",
    "--ipv6",
    "--subnet=fd00:2::/64",
    "--gateway=fd00:2::1",
];

fn create(name: &str, flags: &[&str]) -> Verdict {
    let words = ["network", "create", "-d", "macvlan", "-o", "parent=eth1"];
    said(&[&words[..], flags, &[name]].concat()).map(drop)
}

fn run(name: &str, flags: &[&str]) -> Verdict {
    said(&[&["run", "-d", "--name", name], flags, &["tester"]].concat()).map(drop)
}

fn lan() -> Verdict<Lab> {
    let lan = Lab::here(1)?;
    lan.add_ipv6()?;
    Ok(lan)
}

/// `fd00:2::5/64`, in the kernel's order; link-local ones apart.
fn addrs(name: &str, ifname: &str, family: &str) -> Verdict<Vec<String>> {
    let links = ip_in(name, &[family, "addr", "show", "dev", ifname])?;
    let infos = links[0]["addr_info"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let text = |a: &Value| {
        format!(
            "{}/{}",
            a["local"].as_str().unwrap_or_default(),
            a["prefixlen"]
        )
    };
    let global = infos.iter().filter(|a| a["scope"] == "global");
    Ok(global.map(text).collect())
}

fn default_routes(name: &str, family: &str) -> Verdict<Vec<String>> {
    let routes = ip_in(name, &[family, "route", "show", "default"])?;
    let text = |route: &Value| {
        format!(
            "{} {}",
            route["gateway"].as_str().unwrap_or("-"),
            route["dev"].as_str().unwrap_or_default()
        )
    };
    Ok(routes.as_array().into_iter().flatten().map(text).collect())
}

/// One field of the container's endpoint on a network.
fn endpoint(name: &str, network: &str, field: &str) -> Verdict<String> {
    let template = format!("{{{{(index .NetworkSettings.Networks \"{network}\").{field}}}}}");
    Ok(said(&["inspect", "-f", &template, name])?.trim().to_owned())
}

fn pings(lan: &Lab, to: &str) -> Verdict {
    judge::on(&lan.gateway, &["ping", "-c1", "-W2", to])?
        .success()
        .map(drop)
}

fn dual_stack_on_the_lan() -> Verdict {
    let lan = lan()?;
    create("dual", &[&V4[..], &V6].concat())?;
    run(
        "web",
        &[
            "--network",
            "dual",
            "--ip",
            "10.0.2.5",
            "--ip6",
            "fd00:2::5",
        ],
    )?;
    assert_eq!(addrs("web", "eth0", "-4")?, ["10.0.2.5/24"]);
    assert_eq!(addrs("web", "eth0", "-6")?, ["fd00:2::5/64"]);
    let links = ip_in("web", &["-6", "addr", "show", "dev", "eth0"])?;
    let infos = links[0]["addr_info"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let own = infos.iter().find(|a| a["local"] == "fd00:2::5");
    let own = own.cloned().unwrap_or_default();
    assert_eq!(own["nodad"], true, "{own}");
    assert_eq!(own["valid_life_time"], u32::MAX, "{own}");
    assert_eq!(own["tentative"], Value::Null, "{own}");
    // The kernel's own, as on any interface that is up.
    let local = |a: &Value| a["scope"] == "link" && a["local"].to_string().contains("fe80::");
    assert!(infos.iter().any(local), "{infos:?}");
    assert_eq!(default_routes("web", "-4")?, ["10.0.2.1 eth0"]);
    assert_eq!(default_routes("web", "-6")?, ["fd00:2::1 eth0"]);
    // Without any wait for duplicate address detection.
    pings(&lan, "fd00:2::5")?;
    pings(&lan, "10.0.2.5")?;
    inside("web", &["ping", "-c1", "-W2", "fd00:2::1"])?.success()?;
    said(&["exec", "web", "ping", "-c1", "-W2", "fd00:2::1"])?;
    said(&["exec", "web", "ping", "-6", "-c1", "-W2", "fd00:2::1"])?;
    let page = judge::on(
        &lan.gateway,
        &[
            "curl",
            "-gs",
            "-m5",
            "--retry",
            "5",
            "--retry-all-errors",
            "http://[fd00:2::5]:5000/json",
        ],
    )?;
    let page: Value = page.json()?;
    assert!(page.to_string().contains("fd00:2::5/64"), "{page}");
    let shown = said(&["exec", "web", "ip", "-6", "route"])?;
    assert!(shown.contains("default via fd00:2::1 dev eth0"), "{shown}");

    for (field, value) in [
        ("IPAddress", "10.0.2.5"),
        ("GlobalIPv6Address", "fd00:2::5"),
        ("GlobalIPv6PrefixLen", "64"),
        ("Gateway", "10.0.2.1"),
        ("IPv6Gateway", "fd00:2::1"),
        ("IPAMConfig.IPv6Address", "fd00:2::5"),
        // Docker's rule of old: it follows from the IPv4 address.
        ("MacAddress", "02:42:0a:00:02:05"),
    ] {
        assert_eq!(endpoint("web", "dual", field)?, value, "{field}");
    }
    let network: Value = serde_json::from_str(&said(&["network", "inspect", "dual"])?)?;
    let network = &network[0];
    assert_eq!(network["EnableIPv4"], true);
    assert_eq!(network["EnableIPv6"], true);
    assert_eq!(network["IPAM"]["Config"][1]["Subnet"], "fd00:2::/64");
    assert_eq!(network["IPAM"]["Config"][1]["Gateway"], "fd00:2::1");
    let member = network["Containers"].as_object().unwrap().values().next();
    assert_eq!(member.unwrap()["IPv6Address"], "fd00:2::5/64");
    // The all-zero address, the gateway and the container.
    let subnets = &network["Status"]["IPAM"]["Subnets"];
    assert_eq!(subnets["fd00:2::/64"]["IPsInUse"], 3);
    assert_eq!(subnets["fd00:2::/64"]["DynamicIPsAvailable"], u64::MAX - 2);
    let listed = said(&["network", "ls", "--format", "{{.Name}} {{.IPv4}} {{.IPv6}}"])?;
    assert!(listed.contains("dual true true"), "{listed}");
    let hosts = file_in("web", "/etc/hosts")?;
    let id = said(&["inspect", "-f", "{{.Config.Hostname}}", "web"])?;
    let lines = format!("10.0.2.5\t{0}\nfd00:2::5\t{0}\n", id.trim());
    assert!(hosts.ends_with(&lines), "{hosts}");
    let hosts = said(&["hosts"])?;
    assert!(hosts.contains("fd00:2::5"), "{hosts}");

    // Nothing of it stays.
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "dual"])?;
    let left: Vec<_> = std::fs::read_dir("/run/dockless/leases")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name != ".lock")
        .collect();
    assert_eq!(left, [""; 0]);
    Ok(())
}

fn ipv6_alone() -> Verdict {
    let lan = lan()?;
    let range = ["--ip-range=fd00:2::40/126", "--aux-address=x=fd00:2::41"];
    create("v6", &[&ONLY_V6[..], &range].concat())?;
    for (name, ip) in [
        ("c1", "fd00:2::40"),
        ("c2", "fd00:2::42"),
        ("c3", "fd00:2::43"),
    ] {
        run(name, &["--network", "v6"])?;
        assert_eq!(endpoint(name, "v6", "GlobalIPv6Address")?, ip);
        assert_eq!(addrs(name, "eth0", "-6")?, [format!("{ip}/64")]);
        assert_eq!(addrs(name, "eth0", "-4")?, [""; 0]);
        assert_eq!(default_routes(name, "-4")?, [""; 0]);
        assert_eq!(default_routes(name, "-6")?, ["fd00:2::1 eth0"]);
        pings(&lan, ip)?;
    }
    refused(
        &["run", "-d", "--network", "v6", "tester"],
        "no available IPv6 addresses on this network's address pools: v6 (",
    )?;
    for taken in ["fd00:2::1", "fd00:2::41", "fd00:2::", "fd00:2::40"] {
        refused(
            &[
                "run",
                "--rm",
                "--network",
                "v6",
                "--ip6",
                taken,
                "tester",
                "ip",
                "link",
            ],
            &format!("Address already in use: {taken}"),
        )?;
    }
    // Anywhere in the subnet, as in IPv4; its last address is no broadcast.
    run(
        "c4",
        &["--network", "v6", "--ip6", "fd00:2::ffff:ffff:ffff:ffff"],
    )?;
    pings(&lan, "fd00:2::ffff:ffff:ffff:ffff")?;
    refused(
        &[
            "run",
            "--rm",
            "--network",
            "v6",
            "--ip",
            "10.0.2.5",
            "tester",
        ],
        "no configured subnet contains IP address 10.0.2.5",
    )?;
    refused(
        &[
            "run",
            "--rm",
            "--network",
            "v6",
            "--ip6",
            "fd00:3::5",
            "tester",
        ],
        "no configured subnet contains IP address fd00:3::5",
    )?;
    refused(
        &["network", "host-access", "v6", "on"],
        "host access is for IPv4 addresses, and network v6 has none",
    )?;
    // Published on both of the host's addresses; the proxy leads to it.
    said(&["rm", "-f", "c1", "c2", "c3", "c4"])?;
    let ports = ["-p", "5000:5000", "-p", "[fd00:2::4]:5000:5000"];
    run("web", &[&["--network", "v6"], &ports[..]].concat())?;
    for host in ["10.0.2.4", "[fd00:2::4]"] {
        let url = format!("http://{host}:5000/json");
        let curl = [
            "curl",
            "-gs",
            "-m5",
            "--retry",
            "5",
            "--retry-all-errors",
            &url,
        ];
        let page: Value = judge::on(&lan.gateway, &curl)?.json()?;
        assert!(page.to_string().contains("fd00:2::40/64"), "{page}");
    }
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "v6"])?;
    create("dual", &[&V4[..], &V6].concat())?;
    let on = ask(&["network", "host-access", "dual", "on"])?.success()?;
    assert!(
        on.stderr.contains("host access is for IPv4 addresses"),
        "{}",
        on.stderr
    );
    said(&["network", "rm", "dual"]).map(drop)
}

/// docker-macvlan.md §2.2: `disable_ipv6` alone is set, and on each interface.
fn sysctls_as_docker() -> Verdict {
    let _lan = lan()?;
    create("dual", &[&V4[..], &V6].concat())?;
    create("v4", &["--subnet=10.0.3.0/24"])?;
    create("bare", &["--ipv4=false"])?;
    run(
        "web",
        &["--network", "v4", "--network", "dual", "--network", "bare"],
    )?;
    let value = |which: &str, name: &str| -> Verdict<String> {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/{name}");
        Ok(inside("web", &["cat", &path])?
            .success()?
            .stdout
            .trim()
            .to_owned())
    };
    for (ifname, off) in [("eth0", "1"), ("eth1", "0"), ("eth2", "1"), ("all", "0")] {
        assert_eq!(value(ifname, "disable_ipv6")?, off, "{ifname}");
    }
    for (name, untouched) in [
        ("accept_ra", "1"),
        ("accept_dad", "1"),
        ("addr_gen_mode", "0"),
    ] {
        assert_eq!(value("eth1", name)?, untouched, "{name}");
    }
    assert_eq!(addrs("web", "eth0", "-6")?, [""; 0]);
    let lo = ip_in("web", &["-6", "addr", "show", "dev", "lo"])?;
    assert_eq!(lo[0]["addr_info"][0]["local"], "::1");
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "dual", "v4", "bare"]).map(drop)
}

/// Three of each family, a second apart, from before the program's start on.
fn announcements() -> Verdict {
    let lan = lan()?;
    create("dual", &[&V4[..], &V6].concat())?;
    let filter = "arp.isgratuitous == 1 || icmpv6.type == 136";
    let mut tshark = Command::new("tshark");
    tshark.args([
        "-i",
        "eth0",
        "-l",
        "-n",
        "-a",
        "duration:30",
        "-Y",
        filter,
        "-T",
        "fields",
    ]);
    for field in [
        "frame.time_epoch",
        "eth.src",
        "eth.dst",
        "arp.src.proto_ipv4",
        "ipv6.src",
        "ipv6.dst",
        "ipv6.hlim",
        "icmpv6.nd.na.target_address",
        "icmpv6.nd.na.flag.r",
        "icmpv6.nd.na.flag.s",
        "icmpv6.nd.na.flag.o",
        "icmpv6.opt.linkaddr",
        "icmpv6.checksum.status",
    ] {
        tshark.args(["-e", field]);
    }
    let out = std::fs::File::create("/run/tmp/frames")?;
    let mut tshark = lan.gateway.spawn(
        tshark
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(Stdio::null()),
    )?;
    // It captures once frames of ours come through.
    let deadline = std::time::Instant::now() + patience(20);
    let probe = ["run", "--rm", "--network", "dual", "tester", "ip", "link"];
    loop {
        said(&probe)?;
        if !std::fs::read_to_string("/run/tmp/frames")?.is_empty() {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "tshark sees nothing");
    }
    run(
        "web",
        &[
            "--network",
            "dual",
            "--ip",
            "10.0.2.5",
            "--ip6",
            "fd00:2::5",
        ],
    )?;
    std::thread::sleep(std::time::Duration::from_millis(3500));
    tshark.kill()?;
    tshark.wait()?;
    let text = std::fs::read_to_string("/run/tmp/frames")?;
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split('\t').collect()).collect();
    let mac = "02:42:0a:00:02:05";
    let mut times = Vec::new();
    let na: Vec<_> = rows
        .iter()
        .filter(|row| row.len() == 13 && row[1] == mac && row[4] == "fd00:2::5")
        .filter(|row| row[5] == "ff02::1")
        .collect();
    for row in &na {
        assert_eq!(row[2], "33:33:00:00:00:01", "{row:?}");
        assert_eq!(row[6], "255", "{row:?}");
        assert_eq!(row[7], "fd00:2::5", "{row:?}");
        let is = |text: &str| matches!(text, "1" | "True");
        assert!(!is(row[8]) && !is(row[9]) && is(row[10]), "{row:?}");
        assert_eq!(row[11], mac, "{row:?}");
        // 1: good.
        assert_eq!(row[12], "1", "{row:?}");
        times.push(row[0].parse::<f64>()?);
    }
    assert_eq!(times.len(), 3, "{text}");
    let gaps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| (0.95..1.5).contains(gap)), "{gaps:?}");
    let arp = rows.iter().filter(|row| row.get(3) == Some(&"10.0.2.5"));
    assert_eq!(arp.count(), 3, "{text}");
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "dual"]).map(drop)
}

/// docker-macvlan.md §5, and Create/ConnectWithPriority, GatewaySelection.
fn each_family_s_default_route() -> Verdict {
    let _lan = lan()?;
    create("a4", &V4)?;
    create("b6", &ONLY_V6)?;
    create(
        "c-both",
        &[
            "--subnet=10.0.4.0/24",
            "--gateway=10.0.4.1",
            "--ipv6",
            "--subnet=fd00:4::/64",
            "--gateway=fd00:4::1",
        ],
    )?;
    let ways = |v4: &str, v6: &str| -> Verdict {
        assert_eq!(default_routes("web", "-4")?, [v4]);
        assert_eq!(default_routes("web", "-6")?, [v6]);
        Ok(())
    };
    // Interfaces in the order of the command line.
    run("web", &["--network", "b6", "--network", "a4"])?;
    ways("10.0.2.1 eth1", "fd00:2::1 eth0")?;
    // More families with a gateway come first.
    said(&["network", "connect", "c-both", "web"])?;
    ways("10.0.4.1 eth2", "fd00:4::1 eth2")?;
    said(&["network", "disconnect", "c-both", "web"])?;
    ways("10.0.2.1 eth1", "fd00:2::1 eth0")?;
    // A negative priority never wins; a positive one does, and falls back.
    said(&["network", "connect", "--gw-priority=-1", "c-both", "web"])?;
    ways("10.0.2.1 eth1", "fd00:2::1 eth0")?;
    said(&["network", "disconnect", "c-both", "web"])?;
    said(&["network", "disconnect", "b6", "web"])?;
    said(&["network", "connect", "--gw-priority=10", "c-both", "web"])?;
    said(&["network", "connect", "--gw-priority=100", "b6", "web"])?;
    // eth0 was free, and eth2 comes after it.
    ways("10.0.4.1 eth0", "fd00:2::1 eth2")?;
    said(&["network", "disconnect", "b6", "web"])?;
    ways("10.0.4.1 eth0", "fd00:4::1 eth0")?;
    said(&["network", "disconnect", "c-both", "web"])?;
    assert_eq!(default_routes("web", "-4")?, ["10.0.2.1 eth1"]);
    assert_eq!(default_routes("web", "-6")?, [""; 0]);
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "a4", "b6", "c-both"]).map(drop)
}

/// /127 and /31 have two addresses, /128 and /32 one.
fn point_to_point_and_single() -> Verdict {
    let _lan = lan()?;
    create(
        "p2p",
        &["--subnet=10.0.5.0/31", "--ipv6", "--subnet=fd00:5::/127"],
    )?;
    run("c1", &["--network", "p2p"])?;
    run("c2", &["--network", "p2p"])?;
    assert_eq!(addrs("c1", "eth0", "-6")?, ["fd00:5::/127"]);
    assert_eq!(addrs("c2", "eth0", "-6")?, ["fd00:5::1/127"]);
    assert_eq!(addrs("c1", "eth0", "-4")?, ["10.0.5.0/31"]);
    for to in ["10.0.5.0", "fd00:5::"] {
        inside("c2", &["ping", "-c1", "-W2", to])?.success()?;
    }
    create(
        "single",
        &["--subnet=10.0.6.6/32", "--ipv6", "--subnet=fd00:6::6/128"],
    )?;
    run("c3", &["--network", "single"])?;
    assert_eq!(addrs("c3", "eth0", "-4")?, ["10.0.6.6/32"]);
    assert_eq!(addrs("c3", "eth0", "-6")?, ["fd00:6::6/128"]);
    refused(
        &["run", "-d", "--network", "single", "tester"],
        "no available IPv4 addresses on this network's address pools: single (",
    )?;
    // What was leased before the other family failed is free again.
    create(
        "six",
        &["--subnet=10.0.7.0/29", "--ipv6", "--subnet=fd00:7::7/128"],
    )?;
    run("c4", &["--network", "six"])?;
    let held = || -> Verdict<usize> { Ok(std::fs::read_dir("/run/dockless/leases")?.count()) };
    let before = held()?;
    refused(
        &["run", "--rm", "--network", "six", "tester", "ip", "link"],
        "no available IPv6 addresses",
    )?;
    refused(
        &["network", "connect", "six", "c3"],
        "no available IPv6 addresses",
    )?;
    assert_eq!(held()?, before);
    said(&["rm", "-f", "c1", "c2", "c3", "c4"])?;
    said(&["network", "rm", "p2p", "single", "six"]).map(drop)
}

/// The address, and the MAC that follows from it, over stop and start; and
/// again for a container that is made anew.
fn identity_over_restarts() -> Verdict {
    let _lan = lan()?;
    create("v6", &ONLY_V6)?;
    run("c1", &["--network", "v6"])?;
    run("c2", &["--network", "v6"])?;
    let who = |name: &str| -> Verdict<(String, String)> {
        let ip = endpoint(name, "v6", "GlobalIPv6Address")?;
        Ok((ip, endpoint(name, "v6", "MacAddress")?))
    };
    let (first, second) = (who("c1")?, who("c2")?);
    assert_ne!(first.1, second.1);
    said(&["stop", "-t0", "c1", "c2"])?;
    assert_eq!(endpoint("c2", "v6", "GlobalIPv6Address")?, "");
    said(&["start", "c2", "c1"])?;
    assert_eq!((who("c1")?, who("c2")?), (first.clone(), second));
    said(&["rm", "-f", "c1"])?;
    run("c3", &["--network", "v6"])?;
    assert_eq!(who("c3")?, first);
    said(&["rm", "-f", "c2", "c3"])?;
    said(&["network", "rm", "v6"]).map(drop)
}

/// SetEndpointSysctl, CustomIfname, and `--link-local-ip`.
fn link_local_sysctls_and_names() -> Verdict {
    let _lan = lan()?;
    create("dual", &[&V4[..], &V6].concat())?;
    create("v4", &["--subnet=10.0.3.0/24"])?;
    create("other", &["--subnet=10.0.4.0/24"])?;
    let sysctls = "net.ipv4.conf.IFNAME.arp_ignore=1,net.ipv6.conf.ifname.accept_ra=2";
    let first = format!(
        "name=dual,ip6=fd00:2::9,link-local-ip=fe80::9,link-local-ip=169.254.7.9,\
         driver-opt=com.docker.network.endpoint.ifname=lan0,\
         \"driver-opt=com.docker.network.endpoint.sysctls={sysctls}\""
    );
    let third = "name=other,driver-opt=com.docker.network.endpoint.ifname=eth0";
    run(
        "web",
        &["--network", &first, "--network", "v4", "--network", third],
    )?;
    let names = ip_in("web", &["link", "show"])?;
    let names: Vec<&str> = names
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|link| link["ifname"].as_str())
        .collect();
    // The automatic name goes around those that were asked for.
    assert_eq!(names, ["lo", "lan0", "eth1", "eth0"]);
    let links = ip_in("web", &["addr", "show", "dev", "lan0"])?;
    assert!(links[0]["flags"].to_string().contains("UP"));
    let infos = links[0]["addr_info"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let has = |ip: &str, prefix: u8| {
        infos
            .iter()
            .any(|a| a["local"] == ip && a["prefixlen"] == prefix)
    };
    assert!(has("fe80::9", 64) && has("169.254.7.9", 16), "{infos:?}");
    let lo = ip_in("web", &["addr", "show", "dev", "lo"])?;
    assert!(lo[0]["flags"].to_string().contains("UP"));
    for (path, value) in [
        ("ipv4/conf/lan0/arp_ignore", "1"),
        ("ipv6/conf/lan0/accept_ra", "2"),
    ] {
        let is = inside("web", &["cat", &format!("/proc/sys/net/{path}")])?.success()?;
        assert_eq!(is.stdout.trim(), value, "{path}");
    }
    let local = "IPAMConfig.LinkLocalIPs";
    assert!(endpoint("web", "dual", local)?.contains("fe80::9"));
    // The name of another of its interfaces.
    create("again", &["--subnet=10.0.8.0/24"])?;
    let option = "com.docker.network.endpoint.ifname=lan0";
    refused(
        &["network", "connect", "--driver-opt", option, "again", "web"],
        "error renaming interface to \"lan0\": file exists",
    )?;
    let bad = "net.ipv4.conf.IFNAME.no_such_thing=1";
    let option = format!("com.docker.network.endpoint.sysctls={bad}");
    refused(
        &[
            "network",
            "connect",
            "--driver-opt",
            &option,
            "again",
            "web",
        ],
        "no_such_thing",
    )?;
    let names = ip_in("web", &["link", "show"])?;
    assert_eq!(names.as_array().map(Vec::len), Some(4));
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "dual", "v4", "other", "again"]).map(drop)
}

fn names_have_both_families() -> Verdict {
    let _lan = lan()?;
    create("dual", &[&V4[..], &V6].concat())?;
    create("v6", &["--ipv4=false", "--ipv6", "--subnet=fd00:3::/64"])?;
    run("ask", &["--network", "dual", "--network", "v6"])?;
    run("web", &["--network", "dual", "--ip6", "fd00:2::77"])?;
    run("six", &["--network", "v6"])?;
    let dig = |what: &[&str]| -> Verdict<String> {
        let head = ["dig", "@127.0.0.11", "+tries=1", "+time=5", "+short"];
        Ok(inside("ask", &[&head[..], what].concat())?
            .success()?
            .stdout)
    };
    assert_eq!(dig(&["AAAA", "web"])?, "fd00:2::77\n");
    assert_eq!(dig(&["AAAA", "six.v6"])?, "fd00:3::2\n");
    assert_eq!(dig(&["A", "six"])?, "");
    assert_eq!(dig(&["-x", "fd00:2::77"])?, "web.dual.\n");
    let v4 = endpoint("web", "dual", "IPAddress")?;
    assert_eq!(dig(&["A", "web"])?, format!("{v4}\n"));
    said(&["rm", "-f", "web"])?;
    let gone = dig(&["AAAA", "web"])?;
    assert_eq!(gone, "");
    said(&["rm", "-f", "ask", "six"])?;
    said(&["network", "rm", "dual", "v6"]).map(drop)
}

/// Without a subnet: a /64 of this machine's own /48.
fn pools_of_its_own() -> Verdict {
    let _lan = Lab::here(0)?;
    create("one", &["--ipv6"])?;
    create("two", &["--ipv4=false", "--ipv6"])?;
    create("small", &["--ipv4=false", "--ipv6", "--subnet=::/120"])?;
    let subnets = |name: &str| -> Verdict<Vec<String>> {
        let template = "{{range .IPAM.Config}}{{println .Subnet}}{{end}}";
        let text = said(&["network", "inspect", "-f", template, name])?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let (one, two, small) = (subnets("one")?, subnets("two")?, subnets("small")?);
    assert_eq!((one.len(), two.len(), small.len()), (2, 1, 1));
    assert_eq!(one[0], "172.17.0.0/16");
    for (subnet, prefix) in [(&one[1], "/64"), (&two[0], "/64"), (&small[0], "/120")] {
        assert!(
            subnet.starts_with("fd") && subnet.ends_with(prefix),
            "{subnet}"
        );
    }
    if std::fs::metadata("/etc/machine-id").is_ok() {
        assert_eq!(one[1][..14], two[0][..14], "of one /48");
    }
    assert_ne!(one[1], two[0]);
    assert_ne!(small[0][..20], two[0][..20]);
    said(&["network", "rm", "one", "two", "small"]).map(drop)
}
