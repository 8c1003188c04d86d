//! Kernel tests of networks whose parents dockless makes (VLAN sub-interfaces,
//! dummies) and of ipvlan. They need drivers that not every kernel has:
//! `scripts/vm-test` runs them where they are.
//!
//! In `macvlan` and `ipvlan`: Docker's own integration tests (docker-macvlan.md
//! §9) by their names. Here: what Docker does not
//! have, and what must hold when somebody dies.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Test, Verdict, failed, patience, skipped};
use crate::judge::{self, Answer, ask, ip_in, refused, said};
use dockless::lab::{Lab, Machine};

mod beside;
mod ipvlan;
mod leased;
mod leased6;
mod macvlan;
mod ovs;

pub(crate) fn tests() -> Vec<Test> {
    let mut all = vec![
        Test::new(two_vlans_with_one_subnet),
        Test::new(two_tags_and_their_options),
        Test::new(somebody_else_s_links_stay),
        Test::new(a_name_that_is_too_long),
        Test::new(back_after_a_reboot),
        Test::new(killed_at_every_step)
            .needs(&["strace"])
            .limit_s(240),
        Test::new(trace_names_the_attributes),
        Test::new(refused_and_nothing_left),
        Test::new(a_bond_or_team_and_its_port),
    ];
    all.extend(macvlan::tests());
    all.extend(ipvlan::tests());
    all.extend(beside::tests());
    all.extend(leased::tests());
    all.extend(leased6::tests());
    all.extend(ovs::tests());
    all
}

// --- what the tests say to dockless and to the kernel

/// `network create -d DRIVER FLAGS… NAME`
fn create_words<'a>(driver: &'a str, name: &'a str, flags: &[&'a str]) -> Vec<&'a str> {
    [&["network", "create", "-d", driver], flags, &[name]].concat()
}

fn create(driver: &str, name: &str, flags: &[&str]) -> Verdict {
    said(&create_words(driver, name, flags)).map(drop)
}

fn remove(network: &str) -> Verdict {
    said(&["network", "rm", network]).map(drop)
}

fn is_available(network: &str) -> Verdict<bool> {
    let list = said(&["network", "ls", "--format", "{{.Name}}"])?;
    Ok(list.lines().any(|name| name == network))
}

fn run(name: &str, network: &str, flags: &[&str]) -> Verdict {
    let words = ["run", "-d", "--name", name, "--network", network];
    said(&[&words[..], flags, &["tester"]].concat()).map(drop)
}

fn remove_all(containers: &[&str]) -> Verdict {
    said(&[&["rm", "-f"], containers].concat()).map(drop)
}

/// `PING`'s exit status and what it said, in the container.
fn ping(container: &str, to: &str) -> Verdict<Answer> {
    ask(&["exec", container, "ping", "-c", "1", "-W", "2", to])
}

fn pings(container: &str, to: &str) -> Verdict {
    ping(container, to)?.success().map(drop)
}

/// Its default routes, as `ip` writes them: `via …`, `dev …`.
fn default_routes(container: &str) -> Verdict<Vec<String>> {
    default_routes_in(container, "-4")
}

fn default_routes_in(container: &str, family: &str) -> Verdict<Vec<String>> {
    let routes = ip_in(container, &[family, "route", "show", "default"])?;
    let text = |route: &Value| match route["gateway"].as_str() {
        Some(gateway) => format!("via {gateway}"),
        None => format!("dev {}", route["dev"].as_str().unwrap_or_default()),
    };
    Ok(routes.as_array().into_iter().flatten().map(text).collect())
}

/// One field of the container's only network in `inspect`.
fn endpoint(container: &str, field: &str) -> Verdict<String> {
    let template = format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}");
    Ok(said(&["inspect", "-f", &template, container])?
        .trim()
        .to_owned())
}

/// (in use, dynamic left) of a network's only IPv4 subnet.
fn status(network: &str) -> Verdict<(u64, u64)> {
    status_of(network, |subnet| !subnet.contains(':'))
}

/// The same of its only IPv6 subnet.
fn status_v6(network: &str) -> Verdict<(u64, u64)> {
    status_of(network, |subnet| subnet.contains(':'))
}

fn status_of(network: &str, wanted: impl Fn(&str) -> bool) -> Verdict<(u64, u64)> {
    let all: Value = serde_json::from_str(&said(&["network", "inspect", network])?)?;
    let subnets = all[0]["Status"]["IPAM"]["Subnets"].as_object();
    let one = subnets.and_then(|all| all.iter().find(|(subnet, _)| wanted(subnet)));
    let Some((_, one)) = one else {
        return failed(format!("{network} has no status: {all}"));
    };
    let count = |key: &str| one[key].as_u64().unwrap_or(u64::MAX);
    Ok((count("IPsInUse"), count("DynamicIPsAvailable")))
}

fn ip(args: &[&str]) -> Verdict {
    judge::run(&[&["ip"], args].concat())?.success().map(drop)
}

fn names() -> Verdict<Vec<String>> {
    let links = judge::ip(&["link", "show"])?;
    let name = |link: &Value| link["ifname"].as_str().map(str::to_owned);
    Ok(links
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(name)
        .collect())
}

/// A link of the host as `ip -d` shows it.
fn link(name: &str) -> Verdict<Option<Value>> {
    let answer = judge::run(&["ip", "-j", "-d", "link", "show", name])?;
    if !answer.is_success() {
        return Ok(None);
    }
    Ok(answer.json()?.get(0).cloned())
}

fn is_there(name: &str) -> Verdict<bool> {
    Ok(link(name)?.is_some())
}

/// IFLA_INFO_DATA of a link that must be there.
fn data_of(name: &str) -> Verdict<Value> {
    match link(name)? {
        Some(link) => Ok(link["linkinfo"]["info_data"].clone()),
        None => failed(format!("there is no link {name}")),
    }
}

/// Skips the test where the kernel lacks one of these kinds of link. `below`
/// is a link that can carry them.
fn need(below: &str, kinds: &[&str]) -> Verdict {
    for kind in kinds {
        let options: &[&str] = match *kind {
            "dummy" | "bond" | "team" => &["type", kind],
            "vlan" => &["link", below, "type", "vlan", "id", "4000"],
            kind => &["link", below, "type", kind],
        };
        let add = [&["ip", "link", "add", "name", "probe0"], options].concat();
        if !judge::run(&add)?.is_success() {
            return skipped(format!("this kernel makes no {kind} links"));
        }
        ip(&["link", "del", "probe0"])?;
    }
    Ok(())
}

/// moby's set-up: a dummy that is up, in a namespace of its own.
fn dummy(name: &str, kinds: &[&str]) -> Verdict {
    ip(&["link", "set", "lo", "up"])?;
    need("lo", &["dummy"])?;
    ip(&["link", "add", name, "type", "dummy"])?;
    ip(&["link", "set", name, "up"])?;
    need(name, kinds)
}

/// A LAN whose host link can carry `kinds`.
fn lan(kinds: &[&str]) -> Verdict<Lab> {
    lan_of(0, kinds)
}

fn lan_of(others: usize, kinds: &[&str]) -> Verdict<Lab> {
    let lan = Lab::here(others)?;
    need("eth1", kinds)?;
    Ok(lan)
}

/// The gateway gets a VLAN of its own, with an address in it.
fn vlan_at_gateway(gateway: &Machine, base: &str, tag: &[&str], addr: &str) -> Verdict {
    let name = format!("{base}.{}", tag.last().unwrap_or(&""));
    let add = [
        "ip", "link", "add", "link", base, "name", &name, "type", "vlan",
    ];
    for words in [
        &[&add[..], tag].concat()[..],
        &["ip", "addr", "add", addr, "dev", &name],
        &["ip", "link", "set", &name, "up"],
    ] {
        judge::on(gateway, words)?.success()?;
    }
    Ok(())
}

/// What `doctor` says of one thing about a link: verdict, finding, advice.
fn diagnosis(link: &str, about: &str) -> Verdict<[String; 3]> {
    let said: Value =
        serde_json::from_str(&ask(&["doctor", "--json", "--no-probe", link])?.stdout)?;
    let checks = said["Links"][0]["Checks"].as_array();
    let Some(check) = checks.and_then(|all| all.iter().find(|c| c["Name"] == about)) else {
        return failed(format!("nothing about {about}: {said}"));
    };
    let text = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
    Ok([text("Verdict"), text("Found"), text("Advice")])
}

// --- parents

/// Both take their ports' frames, and carry macvlans themselves.
fn a_bond_or_team_and_its_port() -> Verdict {
    let _lan = lan(&["bond", "team"])?;
    for (kind, name, number) in [("bond", "bond7", 1), ("team", "team7", 2)] {
        let port = format!("port{number}");
        let more: &[&str] = match kind {
            "bond" => &["mode", "active-backup"],
            _ => &[],
        };
        ip(&[&["link", "add", name, "type", kind], more].concat())?;
        ip(&["link", "add", &port, "type", "dummy"])?;
        ip(&["link", "set", &port, "master", name])?;
        ip(&["link", "set", name, "up"])?;
        let [verdict, found, advice] = diagnosis(&port, "port")?;
        assert_eq!(verdict, "problem", "{found}");
        assert!(found.contains(&format!("{kind} {name}")), "{found}");
        assert!(advice.contains(name), "{advice}");
        assert_eq!(diagnosis(&port, "rx handler")?[0], "problem");
        assert_eq!(diagnosis(name, "port")?[0], "ok");
        let subnet = format!("--subnet=10.7.{number}.0/24");
        create(
            "macvlan",
            "under",
            &[&subnet, "-o", &format!("parent={port}")],
        )?;
        refused(
            &["run", "--rm", "--network", "under", "tester", "ip", "link"],
            &advice,
        )?;
        remove("under")?;
        create(
            "macvlan",
            "over",
            &[&subnet, "-o", &format!("parent={name}")],
        )?;
        run("web", "over", &[])?;
        let link = ip_in("web", &["-d", "link", "show", "eth0"])?;
        assert_eq!(link[0]["linkinfo"]["info_kind"], "macvlan");
        remove_all(&["web"])?;
        remove("over")?;
    }
    // A mode that rewrites MACs.
    ip(&[
        "link",
        "add",
        "bond8",
        "type",
        "bond",
        "mode",
        "balance-alb",
    ])?;
    let [verdict, found, advice] = diagnosis("bond8", "link")?;
    assert_eq!(verdict, "warning", "{found}");
    assert!(found.contains("balance-alb") && advice.contains("active-backup"));
    Ok(())
}

/// Docker refuses the second network: its pools are the whole machine's.
fn two_vlans_with_one_subnet() -> Verdict {
    let lan = lan(&["vlan"])?;
    vlan_at_gateway(&lan.gateway, "eth0", &["id", "10"], "192.168.7.1/24")?;
    let subnet = "--subnet=192.168.7.0/24";
    create("macvlan", "ten", &[subnet, "-o", "parent=eth1.10"])?;
    create(
        "macvlan",
        "twenty",
        &[subnet, "-o", "parent=eth1", "-o", "vlan=20"],
    )?;
    // Within one VLAN it is as ever.
    let again = create_words("macvlan", "other", &[subnet, "-o", "parent=eth1.10"]);
    refused(&again, "Pool overlaps with other one on this address space")?;
    assert_eq!(data_of("eth1.10")?["id"], 10);
    assert_eq!(data_of("eth1.20")?["id"], 20);
    let flags = link("eth1.10")?.unwrap()["flags"].to_string();
    assert!(
        flags.contains("\"UP\"") && flags.contains("LOWER_UP"),
        "{flags}"
    );

    for (name, network) in [("c10", "ten"), ("c20", "twenty")] {
        run(name, network, &["--ip", "192.168.7.9"])?;
        assert_eq!(endpoint(name, "IPAddress")?, "192.168.7.9");
        assert_eq!(status(network)?, (3, 253));
    }
    // Only one of them is on the gateway's VLAN.
    pings("c10", "192.168.7.1")?;
    assert!(!ping("c20", "192.168.7.1")?.is_success());
    remove_all(&["c10"])?;
    assert_eq!((status("ten")?, status("twenty")?), ((2, 254), (3, 253)));
    remove_all(&["c20"])?;
    remove("ten")?;
    assert!(!is_there("eth1.10")? && is_there("eth1.20")?);
    remove("twenty")?;
    assert!(!is_there("eth1.20")? && is_there("eth1")?);
    Ok(())
}

fn two_tags_and_their_options() -> Verdict {
    let lan = lan(&["vlan"])?;
    let outer = ["protocol", "802.1ad", "id", "10"];
    vlan_at_gateway(&lan.gateway, "eth0", &outer, "192.168.8.1/24")?;
    vlan_at_gateway(&lan.gateway, "eth0.10", &["id", "20"], "192.168.7.1/24")?;
    let parent = ["-o", "parent=eth1", "-o", "vlan_proto=802.1ad"];
    let with = |more: &[&'static str]| [&parent[..], more].concat();
    create(
        "macvlan",
        "qinq",
        &with(&["--subnet=192.168.7.0/24", "-o", "vlan=10,20"]),
    )?;
    create(
        "macvlan",
        "outer",
        &with(&["--subnet=192.168.8.0/24", "-o", "vlan=10"]),
    )?;
    assert_eq!(data_of("eth1.10")?["protocol"], "802.1ad");
    let inner = data_of("eth1.10.20")?;
    assert_eq!(
        (&inner["protocol"], &inner["id"]),
        (&"802.1Q".into(), &20.into())
    );
    run("in", "qinq", &["--ip", "192.168.7.9"])?;
    run("out", "outer", &["--ip", "192.168.8.9"])?;
    pings("in", "192.168.7.1")?;
    pings("out", "192.168.8.1")?;
    remove_all(&["in", "out"])?;
    // What the inner one stands on stays as long as it does, and no longer.
    remove("outer")?;
    assert!(is_there("eth1.10.20")?);
    remove("qinq")?;
    assert!(!is_there("eth1.10.20")? && !is_there("eth1.10")?);

    let register = ["-o", "vlan_gvrp=on", "-o", "vlan_mvrp=on"];
    let flags = [&["-o", "parent=eth1.30"], &register[..]].concat();
    create("macvlan", "told", &flags)?;
    let told = data_of("eth1.30")?["flags"].to_string();
    assert!(
        told.contains("\"GVRP\"") && told.contains("\"MVRP\""),
        "{told}"
    );
    let otherwise = ["-o", "parent=eth1.30", "-o", "vlan_gvrp=off"];
    refused(
        &create_words("macvlan", "xx", &otherwise),
        "eth1.30 is there already, and otherwise: vlan_proto=802.1Q vlan_gvrp=on vlan_mvrp=on",
    )?;
    remove("told")
}

/// Made by hand, or something of somebody's stands on it.
fn somebody_else_s_links_stay() -> Verdict {
    let _lan = lan(&["vlan", "macvtap"])?;
    ip(&[
        "link", "add", "link", "eth1", "name", "lan40", "type", "vlan", "id", "40",
    ])?;
    ip(&["link", "set", "lan40", "up"])?;
    create("macvlan", "forty", &["-o", "parent=eth1", "-o", "vlan=40"])?;
    assert!(!is_there("eth1.40")?);
    refused(
        &create_words("macvlan", "xx", &["-o", "parent=eth1.40"]),
        "VLAN 40 of eth1 is there already, as lan40",
    )?;
    run("c40", "forty", &[])?;
    assert_eq!(endpoint("c40", "IPAddress")?, "172.17.0.1");
    remove_all(&["c40"])?;
    remove("forty")?;
    assert!(is_there("lan40")?);

    // A virtual machine shares the VLAN that we made, and keeps it.
    create("macvlan", "fifty", &["-o", "parent=eth1.50"])?;
    ip(&[
        "link", "add", "link", "eth1.50", "name", "tap50", "type", "macvtap",
    ])?;
    run("c50", "fifty", &[])?;
    remove_all(&["c50"])?;
    remove("fifty")?;
    assert!(is_there("tap50")? && is_there("eth1.50")?);

    // Whoever makes it his own keeps it, too.
    create("macvlan", "sixty", &["-o", "parent=eth1.60"])?;
    ip(&["link", "set", "eth1.60", "group", "default"])?;
    remove("sixty")?;
    assert!(is_there("eth1.60")?);
    Ok(())
}

fn a_name_that_is_too_long() -> Verdict {
    let _lan = lan(&["vlan"])?;
    ip(&["link", "set", "eth1", "down"])?;
    ip(&["link", "set", "eth1", "name", "enp129s0f0np0"])?;
    ip(&["link", "set", "enp129s0f0np0", "up"])?;
    let flags = ["-o", "parent=enp129s0f0np0", "-o", "vlan=1000,2000"];
    create("macvlan", "long", &flags)?;
    let links = judge::ip(&["link", "show", "type", "vlan"])?;
    let ids: Vec<u64> = links
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|l| l["linkinfo"]["info_data"]["id"].as_u64())
        .collect();
    assert_eq!(ids, [1000, 2000]);
    run("c1", "long", &[])?;
    remove_all(&["c1"])?;
    remove("long")?;
    assert_eq!(
        judge::ip(&["link", "show", "type", "vlan"])?,
        Value::Array(Vec::new())
    );
    Ok(())
}

/// Neither links nor the state folder live through one.
fn reboot(links: &[&str]) -> Verdict {
    for link in links {
        ip(&["link", "del", link])?;
    }
    Ok(std::fs::remove_dir_all("/run/dockless")?)
}

fn back_after_a_reboot() -> Verdict {
    let _lan = lan(&["vlan", "dummy"])?;
    create(
        "macvlan",
        "qinq",
        &["-o", "parent=eth1", "-o", "vlan=10,20"],
    )?;
    create("macvlan", "alone", &[])?;
    let dummies = judge::ip(&["link", "show", "type", "dummy"])?;
    let dummy = dummies[0]["ifname"].as_str().unwrap_or_default().to_owned();
    for (name, network) in [("c1", "qinq"), ("c2", "alone")] {
        run(name, network, &[])?;
        said(&["stop", "-t", "0", name])?;
    }
    reboot(&["eth1.10", &dummy])?;
    assert!(is_available("qinq")? && !is_there("eth1.10.20")?);
    said(&["start", "c1", "c2"])?;
    assert_eq!(data_of("eth1.10.20")?["id"], 20);
    assert!(is_there(&dummy)?);
    remove_all(&["c1", "c2"])?;

    // Somebody makes it before we do: it is his.
    reboot(&["eth1.10"])?;
    ip(&[
        "link", "add", "link", "eth1", "name", "eth1.10", "type", "vlan", "id", "10",
    ])?;
    ip(&["link", "set", "eth1.10", "up"])?;
    run("c1", "qinq", &[])?;
    remove_all(&["c1"])?;
    remove("qinq")?;
    remove("alone")?;
    assert!(is_there("eth1.10")? && !is_there("eth1.10.20")? && !is_there(&dummy)?);
    Ok(())
}

/// Killed before its Nth system call of a kind, a command leaves a network with
/// its parent, or neither, as soon as another one has run.
fn killed_at_every_step() -> Verdict {
    let _lan = lan(&["vlan"])?;
    let program = judge::dockless().display().to_string();
    let make = create_words("macvlan", "net", &["-o", "parent=eth1", "-o", "vlan=10,20"]);
    let gone = ["network", "rm", "net"];
    let mut kills = 0;
    for (words, kind) in [
        (&make[..], "sendto"),
        (&make[..], "/^(rename|unlink)"),
        (&gone[..], "sendto"),
        (&gone[..], "/^(rename|unlink)"),
    ] {
        for nth in 1.. {
            let was = is_available("net")?;
            if words == gone && !was {
                said(&make)?;
            } else if words != gone && was {
                remove("net")?;
            }
            let inject = format!("inject={kind}:signal=KILL:when={nth}");
            let trace = ["strace", "-qq", "-o", "/dev/null", "-e", &inject, &program];
            let done = judge::run(&[&trace[..], words].concat())?;
            let is = is_available("net")?;
            for link in ["eth1.10", "eth1.10.20"] {
                assert_eq!(is_there(link)?, is, "{link}, {words:?}, {kind} {nth}");
            }
            let journal = Path::new("/run/dockless/networks.journal");
            assert!(!journal.exists(), "{words:?}, {kind} {nth}");
            if done.is_success() {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills >= 10, "{kills} kills");
    if is_available("net")? {
        remove("net")?;
    }
    assert!(!is_there("eth1.10")?);
    Ok(())
}

fn trace_names_the_attributes() -> Verdict {
    let _lan = lan(&["vlan", "ipvlan"])?;
    let flags = ["-o", "parent=eth1", "-o", "vlan=10", "-o", "ipvlan_mode=l3"];
    let words = create_words("ipvlan", "net", &flags);
    let made = ask(&[&["--trace-netlink"], &words[..]].concat())?.success()?;
    let named = "KIND \"vlan\" DATA { ID 10 PROTOCOL 33024 }";
    assert!(made.stderr.contains(named), "{}", made.stderr);
    let run = [
        "--trace-netlink",
        "run",
        "-d",
        "--name",
        "c1",
        "--network",
        "net",
        "tester",
    ];
    let ran = ask(&run)?.success()?;
    let named = "KIND \"ipvlan\" DATA { MODE 1 FLAGS 0 }";
    assert!(ran.stderr.contains(named), "{}", ran.stderr);
    remove_all(&["c1"])?;
    remove("net")
}

fn refused_and_nothing_left() -> Verdict {
    let _lan = lan(&["vlan", "dummy", "ipvlan", "macvtap"])?;
    let before = names()?;
    for (flags, phrase) in [
        (
            &["parent=eth9"][..],
            "invalid subinterface vlan name eth9, example formatting is eth0.10",
        ),
        (
            &["parent=eth9.10"],
            "-o parent interface was not found on the host: eth9",
        ),
        (
            &["parent=eth1.0"],
            "vlan id must be between 1-4094, received: 0",
        ),
        (
            &["parent=eth1.4095"],
            "vlan id must be between 1-4094, received: 4095",
        ),
        (
            &["parent=eth1.x"],
            "unable to parse a valid vlan id from: x",
        ),
        (
            &["parent=eth1.1.2"],
            "required interface name format is: name.vlan_id",
        ),
        (&["parent=lo.5"], "failed to create lo.5 vlan link:"),
        (&["parent=eth1", "vlan_proto=802.1ad"], "eth1 is none"),
    ] {
        let flags: Vec<&str> = flags.iter().flat_map(|flag| ["-o", *flag]).collect();
        for driver in ["macvlan", "ipvlan"] {
            refused(&create_words(driver, "net", &flags), phrase)?;
        }
    }
    // The base is down: the kernel takes the VLAN away again.
    ip(&["link", "add", "low0", "type", "dummy"])?;
    let down = create_words("macvlan", "net", &["-o", "parent=low0.7"]);
    refused(&down, "low0 is down: `ip link set low0 up` first")?;
    ip(&["link", "del", "low0"])?;
    // What comes after the parent fails.
    let access = ["--host-access", "-o", "parent=eth1.8"];
    refused(
        &create_words("macvlan", "net", &access),
        "has no IPv4 address",
    )?;
    let access = ["--host-access", "-o", "parent=eth1.8"];
    refused(
        &create_words("ipvlan", "net", &access),
        "host access is for macvlan networks",
    )?;
    assert_eq!(names()?, before);

    // A parent is for one kind alone, and macvtap is of macvlan's.
    create("macvlan", "mac", &["-o", "parent=eth1"])?;
    create("ipvlan", "ipv", &["-o", "parent=eth1"])?;
    run("first", "mac", &[])?;
    let second = ["run", "--rm", "--network", "ipv", "tester", "true"];
    refused(
        &second,
        "failed to create the ipvlan port: device or resource busy",
    )?;
    refused(&second, "eth1 carries a link of container first")?;
    remove_all(&["first"])?;
    ip(&[
        "link", "add", "link", "eth1", "name", "tap0", "type", "macvtap",
    ])?;
    refused(
        &second,
        "eth1 carries tap0 (macvtap) already, and cannot carry ipvlan beside it",
    )?;
    run("first", "mac", &[])?;
    remove_all(&["first"])?;
    ip(&["link", "del", "tap0"])?;
    run("first", "ipv", &[])?;
    let second = ["run", "--rm", "--network", "mac", "tester", "true"];
    refused(
        &second,
        "failed to create the macvlan port: device or resource busy",
    )?;
    remove_all(&["first"])?;
    remove("mac")?;
    remove("ipv")?;
    assert_eq!(names()?, before);
    Ok(())
}

// --- what macvlan and ipvlan have in common

/// Each of the four mixes of families, on one set of pools.
fn families_of(
    driver: &str,
    flags: &[&str],
    (v4, v4_status): (&[&str], (u64, u64)),
    (v6, v6_status): (&[&str], (u64, u64)),
) -> Verdict {
    for (has_v4, has_v6) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut words = flags.to_vec();
        words.extend(if has_v4 { v4 } else { &["--ipv4=false"] });
        words.extend(if has_v6 { v6 } else { &[] });
        create(driver, "families", &words)?;
        run("c1", "families", &[])?;
        assert_eq!(family_count("c1", "lo", "inet")?, 1);
        assert_eq!(family_count("c1", "lo", "inet6")?, 1);
        let eth0 = |family| family_count("c1", "eth0", family);
        assert_eq!(eth0("inet")?, usize::from(has_v4), "{words:?}");
        assert_eq!(eth0("inet6")?, usize::from(has_v6), "{words:?}");
        let pid = said(&["inspect", "-f", "{{.State.Pid}}", "c1"])?;
        let off = "/proc/sys/net/ipv6/conf/eth0/disable_ipv6";
        let off = judge::run(&["nsenter", "-t", pid.trim(), "-n", "cat", off])?.success()?;
        assert_eq!(off.stdout.trim(), if has_v6 { "0" } else { "1" });
        if has_v4 {
            assert_eq!(status("families")?, v4_status);
        }
        if has_v6 {
            assert_eq!(status_v6("families")?, v6_status);
        }
        remove_all(&["c1"])?;
        remove("families")?;
    }
    Ok(())
}

/// Global addresses of a family: `inet`, `inet6`.
fn family_count(container: &str, ifname: &str, family: &str) -> Verdict<usize> {
    let links = ip_in(container, &["addr", "show", "dev", ifname])?;
    let infos = links[0]["addr_info"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let is_its = |a: &&Value| a["family"] == family && a["scope"] != "link";
    Ok(infos.iter().filter(is_its).count())
}

fn unreachable(container: &str) -> Verdict {
    let answer = ping(container, "8.8.8.8")?;
    let text = format!("{}{}", answer.stdout, answer.stderr);
    if answer.is_success() || !text.contains("Network is unreachable") {
        return failed(format!("8.8.8.8 from {container}: {text}"));
    }
    Ok(())
}

fn nil_parent_of(driver: &str, prefix: &str, flags: &[&str]) -> Verdict {
    create(driver, "nil", &[&["--ipv6"], flags].concat())?;
    let id = said(&["network", "inspect", "-f", "{{.Id}}", "nil"])?;
    let name = format!("{prefix}{}", &id[..12]);
    let made = link(&name)?;
    assert_eq!(made.unwrap()["linkinfo"]["info_kind"], "dummy");
    run("c1", "nil", &[])?;
    run("c2", "nil", &[])?;
    pings("c2", &endpoint("c1", "IPAddress")?)?;
    pings("c2", &endpoint("c1", "GlobalIPv6Address")?)?;
    remove_all(&["c1", "c2"])?;
    remove("nil")?;
    assert!(!is_there(&name)?);
    Ok(())
}

fn internal_mode_of(driver: &str, flags: &[&str]) -> Verdict {
    create(driver, "inner", &[&["--internal"], flags].concat())?;
    run("c1", "inner", &[])?;
    run("c2", "inner", &[])?;
    unreachable("c1")?;
    pings("c2", &endpoint("c1", "IPAddress")?)?;
    remove_all(&["c1", "c2"])?;
    remove("inner")
}

/// Two subnets, the second with a gateway; two containers in each.
fn multi_subnet_of(driver: &str, flags: &[&str], gateway: &str) -> Verdict {
    let pools = [
        "--subnet=172.28.200.0/24",
        "--subnet=172.28.202.0/24",
        "--gateway=172.28.202.254",
        "--ipv6",
        "--subnet=2001:db8:abc8::/64",
        "--subnet=2001:db8:abc6::/64",
        "--gateway=2001:db8:abc6::254",
    ];
    create(driver, "multi", &[&pools[..], flags].concat())?;
    let gateway_v6 = if gateway.is_empty() {
        ""
    } else {
        "2001:db8:abc6::254"
    };
    for (subnet, subnet_v6, gateway, gateway_v6) in [
        ("172.28.200", "2001:db8:abc8::", "", ""),
        ("172.28.202", "2001:db8:abc6::", gateway, gateway_v6),
    ] {
        let ips = |last: u8| (format!("{subnet}.{last}"), format!("{subnet_v6}{last}"));
        let (first, second) = (ips(20), ips(21));
        run("c1", "multi", &["--ip", &first.0, "--ip6", &first.1])?;
        run("c2", "multi", &["--ip", &second.0, "--ip6", &second.1])?;
        for container in ["c1", "c2"] {
            assert_eq!(endpoint(container, "Gateway")?, gateway);
            assert_eq!(endpoint(container, "IPv6Gateway")?, gateway_v6);
        }
        pings("c1", &second.0)?;
        pings("c1", &second.1)?;
        remove_all(&["c1", "c2"])?;
    }
    remove("multi")
}

/// Networks without a parent share their addresses, as all do in Docker.
fn ipam_overlap_of(driver: &str, flags: &[&str]) -> Verdict {
    let subnet = [
        "--subnet=192.168.0.0/24",
        "--ipv6",
        "--subnet=2001:db8::/64",
    ];
    let networks: [(&str, &[&str]); 3] = [
        (
            "net1",
            &[
                "--ip-range=192.168.0.0/25",
                "--gateway=192.168.0.1",
                "--aux-address=reserved=192.168.0.100",
                "--ip-range=2001:db8::/124",
            ],
        ),
        (
            "net2",
            &["--ip-range=192.168.0.0/24", "--ip-range=2001:db8::/120"],
        ),
        (
            "net3",
            &["--ip-range=192.168.0.128/25", "--ip-range=2001:db8::80/124"],
        ),
    ];
    for (name, more) in networks {
        create(driver, name, &[&subnet[..], flags, more].concat())?;
    }
    let all =
        || -> Verdict<[(u64, u64); 3]> { Ok([status("net1")?, status("net2")?, status("net3")?]) };
    let all_v6 = || -> Verdict<[(u64, u64); 3]> {
        Ok([status_v6("net1")?, status_v6("net2")?, status_v6("net3")?])
    };
    assert_eq!(all()?, [(4, 125), (4, 252), (4, 127)]);
    assert_eq!(all_v6()?, [(1, 15), (1, 255), (1, 16)]);
    run("c1", "net1", &[])?;
    assert_eq!(all()?, [(5, 124), (5, 251), (5, 127)]);
    assert_eq!(all_v6()?, [(2, 14), (2, 254), (2, 16)]);
    remove_all(&["c1"])?;
    for (name, _) in networks {
        remove(name)?;
    }
    Ok(())
}

/// EndpointWithCustomIfname
fn custom_ifname_of(driver: &str, parent: &str) -> Verdict {
    create(driver, "named", &["-o", parent])?;
    let option = "name=named,driver-opt=com.docker.network.endpoint.ifname=foobar";
    run("c1", option, &[])?;
    let links = ip_in("c1", &["link", "show", "dev", "foobar"])?;
    assert!(links[0]["link_index"].as_u64().is_some(), "{links}");
    remove_all(&["c1"])?;
    remove("named")
}

fn point_to_point_of(driver: &str, flags: &[&str]) -> Verdict {
    let subnet = [
        "--subnet=192.168.135.0/31",
        "--ipv6",
        "--subnet=2001:db8:135::/127",
    ];
    create(driver, "p2p", &[&subnet[..], flags].concat())?;
    run("c1", "p2p", &[])?;
    run("c2", "p2p", &[])?;
    pings("c2", &endpoint("c1", "IPAddress")?)?;
    remove_all(&["c1", "c2"])?;
    remove("p2p")
}
