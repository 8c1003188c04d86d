//! Host access: the host and the containers of a network talk through a
//! host-side macvlan, and the LAN notices nothing. Judged by ping, by who
//! answers ARP, by `ip -j` and `nft -j`.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use dockless::base::{Cidr, Error, IfName, Journal, NetworkId, Result, Step};
use dockless::lab::{Lab, Machine};
use dockless::net::host_access;
use dockless::netlink::route::Configure;
use dockless::netlink::{MacvlanMode, NewLink, Rtnl};
use dockless::sys::netns::{Host, Netns};
use serde_json::Value;

use crate::harness::{Test, Verdict, failed};
use crate::judge;

pub(crate) fn tests() -> Vec<Test> {
    let judged = [
        Test::new(on_and_off),
        Test::new(own_address),
        Test::new(lan_keeps_the_hosts_mac),
        Test::new(broadcasts_are_heard_once),
        Test::new(containers_come_and_go),
        Test::new(completes_what_was_removed_by_hand),
        Test::new(undone_from_any_step),
        Test::new(killed_at_any_message),
        Test::new(the_next_command_finishes_a_killed_change),
        Test::new(refusals_say_why),
    ];
    judged
        .into_iter()
        .map(|test| test.needs(&["ip", "nft", "ping"]))
        .collect()
}

const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 4);
const HOST_MAC: &str = "02:1a:0a:00:02:04";
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 6);
const SHIM: &str = "dl-abababababab";

fn network() -> NetworkId {
    NetworkId::from_bytes([0xab; 32])
}

fn parent() -> IfName {
    IfName::new("eth1").unwrap()
}

/// A container, as far as the network sees it: a macvlan of eth1 with an
/// address, in a namespace of its own.
fn container(last: u8) -> Result<Machine> {
    let (netns, ip) = (Netns::create()?, Ipv4Addr::new(10, 0, 2, last));
    let (mut host, mut sandbox) = (Rtnl::host()?, Rtnl::sandbox(&netns)?);
    let ifname = IfName::new("eth0")?;
    let new = NewLink {
        name: &ifname,
        lower: host.link("eth1")?.unwrap().index,
        mode: MacvlanMode::Bridge.into(),
        sources: &[],
        mac: Some(dockless::base::MacAddr::from_ipv4(ip)),
        mtu: None,
        broadcast: dockless::netlink::Broadcast::default(),
    };
    let index = host.link_into(&new, &netns, &mut sandbox)?;
    let configure = Configure {
        loopback_up: true,
        addrs: vec![Cidr::new(ip.into(), 24)?],
        up: true,
        gateways: std::net::IpAddr::from([10, 0, 2, 1]).into(),
        mac: None,
    };
    sandbox.configure(index, &configure)?;
    let name = format!("container{last}");
    Ok(Machine {
        name,
        netns,
        ifname,
        ip,
    })
}

fn enable(own: Option<Ipv4Addr>, containers: &[&Machine]) -> Result<Vec<Step>> {
    let own = own.map(|ip| Cidr::new(ip.into(), 32)).transpose()?;
    let ips: Vec<Ipv4Addr> = containers.iter().map(|c| c.ip).collect();
    let mut steps = Vec::new();
    host_access::enable(
        &mut Rtnl::host()?,
        &network(),
        &parent(),
        own,
        &ips,
        &mut steps,
    )?;
    Ok(steps)
}

fn disable() -> Result<()> {
    host_access::disable(&mut Rtnl::host()?, &network())
}

fn add(ip: Ipv4Addr) -> Result<()> {
    let mut steps: Vec<Step> = Vec::new();
    host_access::add(&mut Rtnl::host()?, &network(), &parent(), ip, &mut steps)
}

fn remove(ip: Ipv4Addr) -> Result<()> {
    let shim = host_access::shim_name(&network());
    host_access::remove(&mut Rtnl::host()?, &shim, ip)
}

/// What engine::gc does with a journal.
fn undo(steps: &[Step]) -> Result<()> {
    let mut host = Rtnl::<Host>::host()?;
    for step in steps.iter().rev() {
        match step {
            Step::DelLink { name } => host_access::delete(&mut host, name)?,
            Step::HostRoute {
                shim,
                addr: std::net::IpAddr::V4(ip),
            } => host_access::remove(&mut host, shim, *ip)?,
            other => panic!("unexpected step {other:?}"),
        }
    }
    Ok(())
}

/// All that this module may change on the host, as others read it.
fn machine() -> Verdict<Vec<Value>> {
    let mut all = judge::nft_ruleset()?;
    for what in ["addr", "route", "rule"] {
        let mut list = judge::ip(&[what, "show"])?;
        for one in list.as_array_mut().into_iter().flatten() {
            let one = one.as_object_mut().unwrap();
            // Counts traffic.
            one.remove("stats64");
            // UNKNOWN until the kernel's next look at links, within a second.
            one.remove("operstate");
        }
        all.push(list);
    }
    let mut sysctls: Vec<String> = std::fs::read_dir("/proc/sys/net/ipv4/conf")?
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    sysctls.sort();
    all.push(sysctls.into());
    Ok(all)
}

fn pings(from: Option<&Machine>, to: Ipv4Addr) -> Verdict<bool> {
    let to = to.to_string();
    let argv = ["ping", "-c1", "-W1", &to];
    let answer = match from {
        Some(machine) => judge::on(machine, &argv)?,
        None => judge::run(&argv)?,
    };
    Ok(answer.is_success())
}

/// The MACs of those who answer a question from the LAN, and a probe too.
fn who_has(lan: &Lab, ip: Ipv4Addr) -> Result<Vec<String>> {
    let asker = &lan.others[0];
    let mut answers = Vec::new();
    for tell in [asker.ip, Ipv4Addr::UNSPECIFIED] {
        let macs = asker.who_has(ip, tell, Duration::from_millis(300))?;
        answers.push(macs.iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    assert_eq!(answers[0], answers[1], "question and probe");
    Ok(answers.remove(0))
}

fn on_and_off() -> Verdict {
    let lan = Lab::here(1)?;
    let c5 = container(5)?;
    let before = machine()?;
    assert!(!pings(None, c5.ip)? && !pings(Some(&c5), HOST)?, "isolated");

    let steps = enable(None, &[&c5])?;
    assert!(matches!(&steps[0], Step::DelLink { name } if name.as_str() == SHIM));
    assert!(pings(None, c5.ip)?, "host to container");
    assert!(pings(Some(&c5), HOST)?, "container to host");
    assert_eq!(who_has(&lan, HOST)?, [HOST_MAC]);
    assert_eq!(who_has(&lan, c5.ip)?, ["02:42:0a:00:02:05"]);
    assert!(pings(Some(&lan.others[0]), HOST)?);
    assert!(pings(Some(&c5), lan.gateway.ip)?);

    let links = judge::ip(&["addr", "show", SHIM])?;
    let info = &links[0]["linkinfo"];
    assert_eq!(info["info_kind"], "macvlan");
    assert_eq!(info["info_data"]["mode"], "bridge");
    assert_eq!(links[0]["link"], "eth1");
    assert_eq!(
        links[0]["addr_info"],
        Value::Array(Vec::new()),
        "no address"
    );
    let routes = judge::ip(&["route", "show", "dev", SHIM])?;
    assert_eq!(routes.as_array().unwrap().len(), 1);
    assert_eq!(routes[0]["dst"], "10.0.2.5");
    assert_eq!(routes[0]["prefsrc"], "10.0.2.4");
    assert_eq!(routes[0]["scope"], "link");

    let on = machine()?;
    assert_eq!(enable(None, &[&c5])?.len(), 1, "the link is there already");
    assert_eq!(
        without_handles(machine()?),
        without_handles(on),
        "twice is once"
    );
    assert!(pings(None, c5.ip)? && pings(Some(&c5), HOST)?);

    disable()?;
    assert_eq!(machine()?, before);
    assert!(
        !pings(None, c5.ip)? && !pings(Some(&c5), HOST)?,
        "isolated again"
    );
    disable()?;
    Ok(())
}

fn without_handles(mut all: Vec<Value>) -> Vec<Value> {
    for object in all.iter_mut().filter_map(Value::as_object_mut) {
        for body in object.values_mut().filter_map(Value::as_object_mut) {
            body.remove("handle");
        }
    }
    all
}

/// Containers see the host as 10.0.2.6, and the LAN finds that address too, at
/// the parent's MAC.
fn own_address() -> Verdict {
    let lan = Lab::here(1)?;
    let c5 = container(5)?;
    let before = machine()?;
    enable(Some(OWN), &[&c5])?;
    for ip in [HOST, OWN] {
        assert!(pings(Some(&c5), ip)?, "container to {ip}");
        assert!(pings(Some(&lan.others[0]), ip)?, "LAN to {ip}");
        assert_eq!(who_has(&lan, ip)?, [HOST_MAC]);
    }
    assert!(pings(None, c5.ip)?);
    let addrs = judge::ip(&["addr", "show", SHIM])?;
    assert_eq!(addrs[0]["addr_info"][0]["local"], "10.0.2.6");
    assert_eq!(addrs[0]["addr_info"][0]["prefixlen"], 32);
    let source = || -> Verdict<Value> {
        Ok(judge::ip(&["route", "get", "10.0.2.5"])?[0]["prefsrc"].clone())
    };
    assert_eq!(source()?, "10.0.2.6");
    let c8 = container(8)?;
    add(c8.ip)?;
    let routes = judge::ip(&["route", "get", "10.0.2.8"])?;
    assert_eq!(routes[0]["prefsrc"], "10.0.2.6", "of one added later");

    enable(None, &[&c5, &c8])?;
    assert_eq!(source()?, "10.0.2.4", "the own address is gone again");
    let addrs = judge::ip(&["addr", "show", SHIM])?;
    assert_eq!(addrs[0]["addr_info"], Value::Array(Vec::new()));
    assert!(pings(None, c5.ip)? && pings(None, c8.ip)?);
    disable()?;
    assert_eq!(machine()?, before);
    Ok(())
}

/// The host's own question for a container goes out with the shim's MAC, and
/// must not reach who has the host in its ARP table.
fn lan_keeps_the_hosts_mac() -> Verdict {
    let lan = Lab::here(1)?;
    let c5 = container(5)?;
    let other = &lan.others[0];
    enable(None, &[&c5])?;
    assert!(pings(Some(other), HOST)?);
    // An entry younger than locktime (1 s) is not overwritten in any case.
    std::thread::sleep(Duration::from_millis(1100));
    for _ in 0..2 {
        judge::run(&["ip", "neigh", "flush", "dev", SHIM])?.success()?;
        assert!(pings(None, c5.ip)?);
    }
    let neighbours = judge::on(other, &["ip", "-j", "neigh", "show", "10.0.2.4"])?.json()?;
    assert_eq!(neighbours[0]["lladdr"], HOST_MAC);
    Ok(())
}

/// The host is on the LAN twice, and hears its broadcasts once.
fn broadcasts_are_heard_once() -> Verdict {
    let lan = Lab::here(1)?;
    let c5 = container(5)?;
    enable(None, &[&c5])?;
    let ear = UdpSocket::bind("0.0.0.0:9999")?;
    ear.set_read_timeout(Some(Duration::from_millis(300)))?;
    for (from, heard) in [(&lan.others[0], 1), (&c5, 1)] {
        let mouth = from.run(|| Ok(UdpSocket::bind("0.0.0.0:0").unwrap()))?;
        mouth.set_broadcast(true)?;
        mouth.send_to(b"hello", "10.0.2.255:9999")?;
        let mut bytes = [0; 8];
        let mut count = 0;
        while ear.recv_from(&mut bytes).is_ok() {
            count += 1;
        }
        assert_eq!(count, heard, "from {}", from.name);
    }
    Ok(())
}

fn containers_come_and_go() -> Verdict {
    let lan = Lab::here(1)?;
    let (c5, c8) = (container(5)?, container(8)?);
    let before = machine()?;
    enable(None, &[])?;
    let empty = machine()?;
    assert!(!pings(None, c5.ip)? && !pings(Some(&c5), HOST)?);
    add(c5.ip)?;
    add(c5.ip)?;
    add(c8.ip)?;
    assert!(pings(None, c5.ip)? && pings(Some(&c5), HOST)?);
    assert!(pings(None, c8.ip)? && pings(Some(&c8), HOST)?);
    remove(c5.ip)?;
    assert!(!pings(None, c5.ip)?, "removed");
    assert!(!pings(Some(&c5), HOST)?, "removed");
    assert!(pings(None, c8.ip)? && pings(Some(&c8), HOST)?);
    remove(c5.ip)?;
    remove(c8.ip)?;
    assert_eq!(without_handles(machine()?), without_handles(empty));
    assert_eq!(who_has(&lan, HOST)?, [HOST_MAC]);
    disable()?;
    remove(c5.ip)?;
    assert_eq!(machine()?, before);
    Ok(())
}

fn completes_what_was_removed_by_hand() -> Verdict {
    let lan = Lab::here(1)?;
    let (c5, c8) = (container(5)?, container(8)?);
    let before = machine()?;
    enable(None, &[&c5])?;
    judge::run(&["ip", "link", "del", SHIM])?.success()?;
    remove(c5.ip)?;
    let error = add(c5.ip).unwrap_err().to_string();
    assert!(error.contains(SHIM) && error.contains("on`"), "{error}");
    disable()?;
    assert_eq!(machine()?, before, "off after the link is gone");

    enable(None, &[&c5])?;
    let mac =
        || -> Verdict<Value> { Ok(judge::ip(&["link", "show", SHIM])?[0]["address"].clone()) };
    let first = mac()?;
    judge::run(&["ip", "link", "del", SHIM])?.success()?;
    enable(None, &[&c5])?;
    assert_eq!(mac()?, first, "the MAC that containers know");
    assert!(pings(None, c5.ip)? && pings(Some(&c5), HOST)?);
    assert_eq!(who_has(&lan, HOST)?, [HOST_MAC]);

    judge::run(&["nft", "flush", "ruleset"])?.success()?;
    remove(c8.ip)?;
    add(c8.ip)?;
    assert_eq!(who_has(&lan, HOST)?, [HOST_MAC], "the filter is back");
    for container in [&c5, &c8] {
        assert!(pings(None, container.ip)? && pings(Some(container), HOST)?);
    }
    disable()?;
    assert_eq!(machine()?, before);
    Ok(())
}

/// A journal that is lost with its process at the nth step: written, and its
/// effect never begun.
#[derive(Debug)]
struct Ends {
    steps: Vec<Step>,
    left: usize,
}

impl Journal for Ends {
    fn record(&mut self, step: &Step) -> Result<()> {
        self.steps.push(step.clone());
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| Error::state("record", "", "killed"))?;
        Ok(())
    }
}

fn undone_from_any_step() -> Verdict {
    let _lan = Lab::here(0)?;
    let (c5, c8) = (container(5)?, container(8)?);
    let before = machine()?;
    let ends = |left| Ends {
        steps: Vec::new(),
        left,
    };
    let mut host = Rtnl::host()?;
    for left in 0..5 {
        let mut journal = ends(left);
        let ips = [c5.ip, c8.ip];
        let done = host_access::enable(&mut host, &network(), &parent(), None, &ips, &mut journal);
        assert_eq!(done.is_ok(), left >= 3, "{left}: {done:?}");
        undo(&journal.steps)?;
        assert_eq!(machine()?, before, "undone from {left} steps");
        undo(&journal.steps)?;
    }
    enable(None, &[&c5])?;
    let with_c5 = machine()?;
    for left in 0..2 {
        let mut journal = ends(left);
        let done = host_access::add(&mut host, &network(), &parent(), c8.ip, &mut journal);
        assert_eq!(done.is_ok(), left == 1);
        undo(&journal.steps)?;
        assert_eq!(machine()?, with_c5, "undone from {left} steps");
    }
    Ok(())
}

/// The command is killed at its nth message to the kernel, for every n; `off`
/// and `on` then do what they always do.
fn killed_at_any_message() -> Verdict {
    let _lan = Lab::here(0)?;
    judge::installed("strace")?;
    let dockless = judge::dockless().to_str().unwrap();
    let run = |args: &[&str]| judge::run(&[&[dockless], args].concat());
    run(&[
        "network",
        "create",
        "-d",
        "macvlan",
        "--subnet=10.0.2.0/24",
        "-o",
        "parent=eth1",
        "mac1",
    ])?
    .success()?;
    let before = machine()?;
    let access = ["network", "host-access", "mac1"];
    let (on, off) = (
        [&access[..], &["on"]].concat(),
        [&access[..], &["off"]].concat(),
    );
    for n in 1..60 {
        let inject = format!("inject=sendto,sendmsg:signal=SIGKILL:when={n}");
        let strace = ["strace", "-f", "-o", "/dev/null", "-e", &inject, dockless];
        let killed = !judge::run(&[&strace[..], &on[..]].concat())?.is_success();
        if n % 2 == 0 {
            run(&on)?.success()?;
            assert_eq!(
                judge::ip(&["link", "show", "type", "macvlan"])?
                    .as_array()
                    .unwrap()
                    .len(),
                1
            );
        }
        run(&off)?.success()?;
        assert_eq!(machine()?, before, "killed at message {n}");
        if !killed {
            assert!(n > 8, "only {n} messages");
            return Ok(());
        }
    }
    failed("killed at each of 60 messages")
}

/// `on` and `off` are killed at their nth message to the kernel, for every n;
/// whatever comes next, if it only looks, makes true what the network says.
fn the_next_command_finishes_a_killed_change() -> Verdict {
    let _lan = Lab::here(0)?;
    judge::installed("strace")?;
    let dockless = judge::dockless().to_str().unwrap();
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        judge::run(&[&[dockless], &words[..]].concat())
    };
    let say = |field: &str| -> Verdict<String> {
        let line = format!("network inspect -f {{{{.Dockless.HostAccess.{field}}}}} mac1");
        Ok(run(&line)?.success()?.stdout.trim().to_owned())
    };
    run("network create -d macvlan --subnet=10.0.2.0/24 -o parent=eth1 mac1")?.success()?;
    run("run -d --name c1 --network mac1 --ip 10.0.2.5 tester")?.success()?;
    let (c1, c2) = ([10, 0, 2, 5].into(), [10, 0, 2, 6].into());
    let off = machine()?;
    for (from, to) in [("off", "on"), ("on", "off")] {
        let mut n = 0;
        loop {
            n += 1;
            run(&format!("network host-access mac1 {from}"))?.success()?;
            let inject = format!("inject=sendto,sendmsg:signal=SIGKILL:when={n}");
            let strace = ["strace", "-f", "-o", "/dev/null", "-e", &inject, dockless];
            let change = ["network", "host-access", "mac1", to];
            let killed = !judge::run(&[&strace[..], &change].concat())?.is_success();
            run("ps")?.success()?;
            match say("Enabled")?.as_str() {
                "true" => assert!(pings(None, c1)?, "{to}, killed at message {n}"),
                _ => assert_eq!(machine()?, off, "{to}, killed at message {n}"),
            }
            if !killed {
                assert!(n > 5, "only {n} messages");
                break;
            }
        }
    }
    // By hand.
    run("network host-access mac1 on")?.success()?;
    judge::run(&["ip", "link", "set", &say("Interface")?, "down"])?.success()?;
    run("run -d --name c2 --network mac1 --ip 10.0.2.6 tester")?.success()?;
    assert!(pings(None, c1)? && pings(None, c2)?);
    run("rm -f c1 c2")?.success()?;
    run("network rm mac1")?.success().map(drop)
}

fn refusals_say_why() -> Verdict {
    let _lan = Lab::here(0)?;
    judge::run(&["ip", "addr", "del", "10.0.2.4/24", "dev", "eth1"])?.success()?;
    let before = machine()?;
    let error = enable(None, &[]).unwrap_err().to_string();
    assert!(error.contains("eth1 has no IPv4 address"), "{error}");
    assert!(error.contains("--ip"), "{error}");
    assert_eq!(machine()?, before, "nothing half-made");
    let c5 = container(5)?;
    enable(Some(OWN), &[&c5])?;
    assert!(
        pings(None, c5.ip)? && pings(Some(&c5), OWN)?,
        "an own address will do"
    );
    disable()?;

    judge::run(&["ip", "addr", "add", "10.0.2.4/24", "dev", "eth1"])?.success()?;
    judge::run(&["ip", "link", "add", SHIM, "type", "bridge"])?.success()?;
    let error = enable(None, &[]).unwrap_err().to_string();
    assert!(error.contains("not a macvlan"), "{error}");
    judge::run(&["ip", "link", "del", SHIM])?.success()?;

    let mut steps: Vec<Step> = Vec::new();
    let gone = IfName::new("eth7")?;
    let error = host_access::enable(&mut Rtnl::host()?, &network(), &gone, None, &[], &mut steps)
        .unwrap_err();
    assert!(error.to_string().contains("eth7 does not exist"), "{error}");
    assert!(steps.is_empty());
    Ok(())
}
