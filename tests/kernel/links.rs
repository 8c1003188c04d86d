//! Life with real links: parents by altname, MAC, default route and list;
//! parents that lose their carrier, are renamed, go and come back. Judged by
//! `ip`, `ping` and captures on the LAN.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dockless::base::IfName;
use dockless::lab::Lab;
use dockless::lab::capture::{Capture, Content, Frame};
use dockless::netlink::{LinkKind, Rtnl};
use serde_json::Value;

use crate::harness::{Test, Verdict, failed, patience};
use crate::judge::{self, ask, ip_in, refused, said};

pub(crate) fn tests() -> Vec<Test> {
    let ip: &[&str] = &["ip"];
    vec![
        Test::new(one_link_by_all_its_names).needs(ip),
        Test::new(the_default_route_s_link).needs(ip),
        Test::new(two_links_with_one_mac).needs(ip),
        Test::new(it_goes_and_comes_back_as_it_was).needs(&["ip", "ping", "nft"]),
        Test::new(back_under_another_name).needs(ip),
        Test::new(back_and_busy).needs(ip),
        Test::new(another_one_takes_over).needs(&["ip", "ping"]),
        Test::new(a_short_loss_moves_nothing).needs(ip),
        Test::new(renamed_while_it_runs).needs(&["ip", "ping", "nft"]),
        Test::new(changed_on_a_renamed_parent_and_not_without_one).needs(&["ip", "ping"]),
        Test::new(lost_while_its_address_changes).needs(&["ip", "ping"]),
        Test::new(carrier_again_is_announced).needs(ip),
        Test::new(a_flapping_link_is_announced_once_a_second).needs(ip),
        Test::new(a_passthru_parent_s_new_mac).needs(&["ip", "ping"]),
        Test::new(a_start_waits_for_its_parent).needs(ip),
        Test::new(a_wait_that_is_too_short).needs(ip),
        Test::new(a_lease_survives_its_link)
            .needs(&["ip", "ping", "dnsmasq"])
            .limit_s(120),
        // It needs what those of `parents` need.
        Test::named(
            "parents::a_vlan_s_base_goes_and_comes_back",
            a_vlan_s_base_goes_and_comes_back,
        )
        .needs(&["ip", "ping"]),
        Test::new(two_networks_and_one_loses_its_parent).needs(&["ip", "ping"]),
        Test::new(killed_while_it_makes_the_link_again)
            .needs(&["ip", "nft"])
            .limit_s(120),
        Test::new(supervisors_of_a_parent_share_a_socket).needs(ip),
        Test::new(out_of_fds_it_looks_on).needs(&["ip", "prlimit"]),
        Test::new(others_links_do_not_wake_it).needs(ip).limit_s(60),
    ]
}

// --- what the tests do to links

fn ip(args: &[&str]) -> Verdict {
    judge::run(&[&["ip"], args].concat())?.success().map(drop)
}

/// Skips the test where a link that is up keeps its name: before Linux 6.2.
fn need_new_names(link: &str) -> Verdict {
    let rename = ["ip", "link", "set", link, "name", "trial0"];
    let renamed = judge::run(&rename)?;
    if renamed.stderr.contains("busy") {
        return crate::harness::skipped("this kernel renames no link that is up");
    }
    renamed.success()?;
    ip(&["link", "set", "trial0", "name", link])
}

/// One more link of the host to the LAN's switch.
pub(crate) fn plug(lan: &Lab, name: &str) -> Verdict {
    let (name, peer) = (IfName::new(name)?, IfName::new(format!("p{name}"))?);
    Rtnl::host()?.veth(&name, &peer, lan.switch())?;
    let mut switch = Rtnl::sandbox(lan.switch())?;
    let links = switch.links()?;
    let bridge = links.iter().find(|l| l.kind == LinkKind::Bridge).unwrap();
    let port = links.iter().find(|l| l.name == peer).unwrap();
    switch.set_master(port.index, Some(bridge.index))?;
    switch.set_up(port.index)?;
    ip(&["link", "set", name.as_str(), "up"])?;
    eventually("carrier", || Ok(carrier_of(name.as_str())?.then_some(())))
}

/// The cable, pulled or plugged in.
fn cable(lan: &Lab, name: &str, on: bool) -> Verdict {
    let mut switch = Rtnl::sandbox(lan.switch())?;
    let port = switch.link(&format!("p{name}"))?.unwrap();
    match on {
        true => switch.set_up(port.index)?,
        false => switch.set_down(port.index)?,
    }
    eventually("carrier", || Ok((carrier_of(name)? == on).then_some(())))
}

fn carrier_of(name: &str) -> Verdict<bool> {
    let link = judge::ip(&["link", "show", name])?;
    let flags = link[0]["flags"].as_array().cloned().unwrap_or_default();
    Ok(flags.contains(&Value::from("LOWER_UP")))
}

fn eventually<T>(what: &str, look: impl Fn() -> Verdict<Option<T>>) -> Verdict<T> {
    let end = Instant::now() + patience(10);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() > end {
            return failed(format!("{what}: not within 10 s"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

// --- and to containers

fn create(name: &str, options: &[&str]) -> Verdict {
    let words = ["network", "create", "-d", "macvlan", "--subnet=10.0.2.0/24"];
    let gateway = ["--gateway=10.0.2.1", name];
    said(&[&words[..], options, &gateway].concat()).map(drop)
}

fn run(name: &str, network: &str, more: &[&str]) -> Verdict {
    let words = ["run", "-d", "--name", name, "--network", network];
    said(&[&words[..], more, &["tester"]].concat()).map(drop)
}

fn pings(container: &str, to: &str) -> Verdict {
    let ping = ["exec", container, "ping", "-c", "1", "-W", "3", to];
    ask(&ping)?.success().map(drop)
}

/// Of its only network.
fn link_of(container: &str) -> Verdict<Value> {
    let text = said(&["inspect", "-f", "{{json .Dockless.Links}}", container])?;
    let links: Value = serde_json::from_str(&text)?;
    let first = links.as_object().and_then(|all| all.values().next());
    Ok(first.cloned().unwrap_or_default())
}

fn has_state(container: &str, state: &str, parent: &str) -> Verdict {
    eventually(&format!("{container}: {state} on {parent}"), || {
        let link = link_of(container)?;
        Ok((link["State"] == state && link["Parent"] == parent).then_some(()))
    })
}

/// What a network's `parent` comes to now.
fn parent_of(network: &str) -> Verdict<(String, String)> {
    let text = said(&[
        "network",
        "inspect",
        "-f",
        "{{json .Dockless.Parent}}",
        network,
    ])?;
    let parent: Value = serde_json::from_str(&text)?;
    let field = |key: &str| parent[key].as_str().unwrap_or_default().to_owned();
    Ok((field("Interface"), field("State")))
}

/// (action, attributes) of networks' events.
fn events() -> Verdict<Vec<(String, Value)>> {
    let all = said(&[
        "events",
        "--since=1h",
        "--until=0s",
        "--filter=type=network",
        "--format=json",
    ])?;
    let mut events = Vec::new();
    for line in all.lines() {
        let event: Value = serde_json::from_str(line)?;
        let action = event["Action"].as_str().unwrap_or_default().to_owned();
        events.push((action, event["Actor"]["Attributes"].clone()));
    }
    Ok(events)
}

fn event(action: &str) -> Verdict<Value> {
    eventually(action, || {
        let mut all = events()?.into_iter().rev();
        Ok(all
            .find(|(a, _)| a == action)
            .map(|(_, attributes)| attributes))
    })
}

/// All that `ip` says of it, but for what is another one's each time.
fn identity(container: &str) -> Verdict<Value> {
    let link = ip_in(container, &["addr", "show", "eth0"])?;
    let addrs: Vec<Value> = link[0]["addr_info"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|a| Value::from(format!("{}/{} {}", a["local"], a["prefixlen"], a["scope"])))
        .collect();
    let routes = ip_in(container, &["route", "show"])?;
    let sysctl = judge::path_in(container, "/proc/sys/net/ipv4/conf/eth0/arp_notify")?;
    Ok(serde_json::json!({
        "mac": link[0]["address"],
        "mtu": link[0]["mtu"],
        "addrs": addrs,
        "routes": routes,
        "sysctl": fs::read_to_string(sysctl).unwrap_or_default(),
        "arp_ignore": judge::file_in(container, "/proc/sys/net/ipv4/conf/eth0/arp_ignore").ok(),
    }))
}

fn announcements(frames: &[Frame], about: Ipv4Addr) -> usize {
    let is = |frame: &&Frame| {
        matches!(frame.content, Content::Arp { question: true, ip, about: of, .. }
            if ip == about && of == about)
    };
    frames.iter().filter(is).count()
}

fn nothing_left(containers: &[&str], networks: &[&str]) -> Verdict {
    if !containers.is_empty() {
        said(&[&["rm", "-f"], containers].concat())?;
    }
    said(&[&["network", "rm"], networks].concat())?;
    assert_eq!(said(&["gc"])?.trim(), "", "gc found something");
    let rules = judge::nft_ruleset()?;
    assert!(rules.is_empty(), "{rules:?}");
    Ok(())
}

// --- which link it is

fn one_link_by_all_its_names() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    let alt = "a-name-of-more-than-fifteen-bytes";
    ip(&["link", "property", "add", "dev", "lan0", "altname", alt])?;
    let link = judge::ip(&["link", "show", "lan0"])?;
    let mac = format!("mac:{}", link[0]["address"].as_str().unwrap());
    for (name, written) in [("byalt", alt), ("bymac", mac.as_str())] {
        create(name, &["-o", &format!("parent={written}")])?;
        assert_eq!(parent_of(name)?, ("lan0".into(), "up".into()));
        let kept = said(&["network", "inspect", "-f", "{{.Options.parent}}", name])?;
        assert_eq!(kept.trim(), written);
        run("web", name, &[])?;
        pings("web", "10.0.2.1")?;
        said(&["stop", "-t0", "web"])?;
        // A NIC that is called otherwise after an update is found again.
        ip(&["link", "set", "lan0", "down"])?;
        ip(&["link", "set", "lan0", "name", "enp9s0"])?;
        ip(&["link", "set", "enp9s0", "up"])?;
        assert_eq!(parent_of(name)?.0, "enp9s0");
        said(&["start", "web"])?;
        pings("web", "10.0.2.1")?;
        assert_eq!(link_of("web")?["Parent"], "enp9s0");
        nothing_left(&["web"], &[name])?;
        ip(&["link", "set", "enp9s0", "down"])?;
        ip(&["link", "set", "enp9s0", "name", "lan0"])?;
        ip(&["link", "set", "lan0", "up"])?;
    }
    // The same subnet twice on one link is refused, whatever it is called.
    create("one", &["-o", &format!("parent={alt}")])?;
    let again = ["network", "create", "-d", "macvlan", "--subnet=10.0.2.0/24"];
    let parent = format!("parent={mac}");
    let more = ["-o", parent.as_str(), "two"];
    refused(&[&again[..], &more].concat(), "overlap")?;
    nothing_left(&[], &["one"])
}

fn the_default_route_s_link() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    create("auto", &["-o", "parent=auto"])?;
    assert_eq!(parent_of("auto")?.0, "eth1");
    // The lowest metric counts.
    ip(&["addr", "add", "10.9.0.2/24", "dev", "lan0"])?;
    ip(&["route", "del", "default"])?;
    ip(&[
        "route", "add", "default", "via", "10.0.2.1", "metric", "200",
    ])?;
    ip(&[
        "route", "add", "default", "via", "10.9.0.1", "metric", "100",
    ])?;
    assert_eq!(parent_of("auto")?.0, "lan0");
    run("web", "auto", &[])?;
    assert_eq!(link_of("web")?["Parent"], "lan0");
    said(&["rm", "-f", "web"])?;
    ip(&["route", "flush", "default"])?;
    assert_eq!(parent_of("auto")?.1, "missing");
    let run = ["run", "--rm", "--network", "auto", "tester", "ip", "link"];
    refused(
        &run,
        "is the link of the default route, and this host has none",
    )?;
    said(&["network", "rm", "auto"])?;
    // IPv6's, where IPv4 has none.
    lan.add_ipv6()?;
    create("auto", &["-o", "parent=auto"])?;
    assert_eq!(parent_of("auto")?.0, "eth1");
    said(&["network", "rm", "auto"]).map(drop)
}

fn two_links_with_one_mac() -> Verdict {
    let lan = Lab::here(0)?;
    for name in ["lan0", "lan1"] {
        plug(&lan, name)?;
        ip(&["link", "set", name, "address", "02:00:00:00:00:aa"])?;
    }
    // What stands on a link has its MAC, and is not meant.
    let create = |parent: &str| {
        let parent = format!("parent={parent}");
        let words = ["network", "create", "-d", "macvlan", "-o", parent.as_str()];
        ask(&[&words[..], &["--subnet=10.0.2.0/24", "n"]].concat())
    };
    let answer = create("mac:02:00:00:00:00:aa")?;
    assert_eq!(answer.code, Some(1));
    let text = &answer.stderr;
    assert!(
        text.contains("is ambiguous: lan0, lan1 have this MAC"),
        "{text}"
    );
    assert!(text.contains("-o parent=lan0"), "{text}");
    ip(&["link", "set", "lan1", "address", "02:00:00:00:00:ab"])?;
    ip(&[
        "link", "add", "link", "lan0", "name", "mv0", "type", "macvlan",
    ])?;
    ip(&["link", "set", "mv0", "address", "02:00:00:00:00:ac"])?;
    create("mac:02:00:00:00:00:aa")?.success()?;
    assert_eq!(parent_of("n")?.0, "lan0");
    said(&["network", "rm", "n"]).map(drop)
}

// --- a parent that goes

fn it_goes_and_comes_back_as_it_was() -> Verdict {
    let lan = Lab::here(1)?;
    plug(&lan, "lan0")?;
    ip(&["addr", "add", "10.0.2.44/24", "dev", "lan0"])?;
    create("mac1", &["-o", "parent=lan0"])?;
    let sysctl = "name=mac1,ip=10.0.2.50,driver-opt=com.docker.network.endpoint.sysctls=\
                  net.ipv4.conf.IFNAME.arp_notify=1";
    run("web", sysctl, &["-p", "5000:5000"])?;
    pings("web", "10.0.2.7")?;
    let before = identity("web")?;
    let id = said(&[
        "inspect",
        "-f",
        "{{.NetworkSettings.Networks.mac1.EndpointID}}",
        "web",
    ])?;
    ip(&["link", "del", "lan0"])?;
    has_state("web", "parent gone", "lan0")?;
    assert_eq!(event("parent-lost")?["parent"], "lan0");
    // It runs on, and everything about it can be asked.
    assert!(said(&["ps", "--format", "{{.Names}}"])?.contains("web"));
    assert_eq!(parent_of("mac1")?, (String::new(), "missing".into()));
    let links = ip_in("web", &["link", "show"])?;
    assert_eq!(links.as_array().map(Vec::len), Some(1), "{links}");

    let mut capture = Capture::start(&lan.others[0])?;
    plug(&lan, "lan0")?;
    ip(&["addr", "add", "10.0.2.44/24", "dev", "lan0"])?;
    has_state("web", "up", "lan0")?;
    assert_eq!(
        event("parent-back")?["container"].as_str().map(str::len),
        Some(64)
    );
    assert_eq!(identity("web")?, before);
    let same = said(&[
        "inspect",
        "-f",
        "{{.NetworkSettings.Networks.mac1.EndpointID}}",
        "web",
    ])?;
    assert_eq!(id, same);
    pings("web", "10.0.2.7")?;
    let ip_of = Ipv4Addr::new(10, 0, 2, 50);
    let thrice = capture.wait(patience(4), |f| announcements(f, ip_of) >= 3)?;
    assert!(
        thrice,
        "announced {}",
        announcements(capture.frames()?, ip_of)
    );
    // Guard and the fast path of its port are there again.
    assert_eq!(link_of("web")?["Guard"], "on");
    let published = said(&["inspect", "-f", "{{json .Dockless.Published}}", "web"])?;
    assert!(published.contains("fast-path"), "{published}");
    let fetch = [
        "curl",
        "-sS",
        "-m5",
        "-o",
        "/dev/null",
        "http://10.0.2.44:5000/",
    ];
    judge::on(&lan.others[0], &fetch)?.success()?;
    // Twice is as once.
    ip(&["link", "del", "lan0"])?;
    has_state("web", "parent gone", "lan0")?;
    nothing_left(&["web"], &["mac1"])
}

fn back_under_another_name() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    ip(&["link", "set", "lan0", "address", "02:00:00:00:00:aa"])?;
    create("bymac", &["-o", "parent=mac:02:00:00:00:00:aa"])?;
    run("web", "bymac", &[])?;
    let before = identity("web")?;
    ip(&["link", "del", "lan0"])?;
    has_state("web", "parent gone", "lan0")?;
    // One that comes with another MAC is not it, until it has it.
    plug(&lan, "wan7")?;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(link_of("web")?["State"], "parent gone");
    ip(&["link", "set", "wan7", "address", "02:00:00:00:00:aa"])?;
    has_state("web", "up", "wan7")?;
    assert_eq!(identity("web")?, before);
    let back = event("parent-back")?;
    assert_eq!(
        (&back["from"], &back["to"]),
        (&"lan0".into(), &"wan7".into())
    );
    nothing_left(&["web"], &["bymac"])
}

/// A bridge has it: that is told, tried a few times, and then waited for.
fn back_and_busy() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    run("web", "mac1", &[])?;
    let before = identity("web")?;
    ip(&["link", "del", "lan0"])?;
    has_state("web", "parent gone", "lan0")?;
    plug(&lan, "new0")?;
    ip(&["link", "add", "br0", "type", "bridge"])?;
    ip(&["link", "set", "new0", "master", "br0"])?;
    ip(&["link", "set", "new0", "down"])?;
    ip(&["link", "set", "new0", "name", "lan0"])?;
    ip(&["link", "set", "lan0", "up"])?;
    let trouble = eventually("trouble", || {
        let link = link_of("web")?;
        Ok(link["Trouble"].as_str().map(str::to_owned))
    })?;
    assert!(
        trouble.contains("failed to create the macvlan port"),
        "{trouble}"
    );
    let supervisor = said(&["inspect", "-f", "{{.Dockless.SupervisorPid}}", "web"])?;
    let before_it = switches(supervisor.trim());
    std::thread::sleep(Duration::from_secs(4));
    let woken = switches(supervisor.trim()) - before_it;
    // A try takes 50 (`netlink/macvlan.rs`: who has it may be about to go).
    assert!(woken < 250, "{woken} times in 4 s");
    ip(&["link", "set", "lan0", "nomaster"])?;
    has_state("web", "up", "lan0")?;
    assert_eq!(link_of("web")?["Trouble"], Value::Null);
    assert_eq!(identity("web")?, before);
    nothing_left(&["web"], &["mac1"])
}

// --- several

fn another_one_takes_over() -> Verdict {
    let lan = Lab::here(1)?;
    plug(&lan, "lan0")?;
    plug(&lan, "lan1")?;
    create("ha", &["-o", "parent=lan0,lan1"])?;
    assert_eq!(parent_of("ha")?.0, "lan0");
    run("web", "ha", &["--ip", "10.0.2.50", "-p", "5000:5000"])?;
    let before = identity("web")?;
    let mut capture = Capture::start(&lan.others[0])?;
    let began = Instant::now();
    cable(&lan, "lan0", false)?;
    has_state("web", "up", "lan1")?;
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(took < patience(4), "{took:?}");
    let over = event("failover")?;
    assert_eq!(
        (&over["from"], &over["to"]),
        (&"lan0".into(), &"lan1".into())
    );
    assert_eq!(identity("web")?, before);
    pings("web", "10.0.2.7")?;
    let ip_of = Ipv4Addr::new(10, 0, 2, 50);
    let thrice = capture.wait(patience(4), |f| announcements(f, ip_of) >= 3)?;
    assert!(
        thrice,
        "announced {}",
        announcements(capture.frames()?, ip_of)
    );
    // The first one is back, and nothing moves: the second one works.
    cable(&lan, "lan0", true)?;
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(link_of("web")?["Parent"], "lan1");
    // It goes altogether: the first one takes over again.
    ip(&["link", "del", "lan1"])?;
    has_state("web", "up", "lan0")?;
    assert_eq!(identity("web")?, before);
    pings("web", "10.0.2.7")?;
    // A new start takes the first that carries.
    said(&["stop", "-t0", "web"])?;
    plug(&lan, "lan1")?;
    cable(&lan, "lan0", false)?;
    assert_eq!(parent_of("ha")?.0, "lan1");
    said(&["start", "web"])?;
    assert_eq!(link_of("web")?["Parent"], "lan1");
    // Of none that carries, the first.
    cable(&lan, "lan1", false)?;
    assert_eq!(parent_of("ha")?, ("lan0".into(), "no carrier".into()));
    let access = ["network", "host-access", "ha", "on"];
    refused(&access, "its host-side link could not follow")?;
    nothing_left(&["web"], &["ha"])
}

fn a_short_loss_moves_nothing() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    plug(&lan, "lan1")?;
    create("ha", &["-o", "parent=lan0,lan1"])?;
    run("web", "ha", &[])?;
    // Short on a slow machine, too: no look at it but the one that counts.
    let mut switch = Rtnl::sandbox(lan.switch())?;
    let port = switch.link("plan0")?.unwrap().index;
    switch.set_down(port)?;
    has_state("web", "no carrier", "lan0")?;
    switch.set_up(port)?;
    has_state("web", "up", "lan0")?;
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(link_of("web")?["Parent"], "lan0");
    assert!(events()?.iter().all(|(action, _)| action != "failover"));
    nothing_left(&["web"], &["ha"])
}

// --- names, carrier, MAC

fn renamed_while_it_runs() -> Verdict {
    let lan = Lab::here(1)?;
    plug(&lan, "lan0")?;
    need_new_names("lan0")?;
    ip(&["addr", "add", "10.0.2.44/24", "dev", "lan0"])?;
    create("mac1", &["-o", "parent=lan0"])?;
    run("web", "mac1", &["-p", "5000:5000"])?;
    // Past the first look.
    std::thread::sleep(Duration::from_millis(300));
    ip(&["link", "set", "lan0", "name", "enp9s0"])?;
    has_state("web", "up", "enp9s0")?;
    let renamed = event("parent-renamed")?;
    assert_eq!(
        (&renamed["from"], &renamed["to"]),
        (&"lan0".into(), &"enp9s0".into())
    );
    pings("web", "10.0.2.7")?;
    let published = said(&["inspect", "-f", "{{json .Dockless.Published}}", "web"])?;
    assert!(published.contains("fast-path"), "{published}");
    let fetch = [
        "curl",
        "-sS",
        "-m5",
        "-o",
        "/dev/null",
        "http://10.0.2.44:5000/",
    ];
    judge::on(&lan.others[0], &fetch)?.success()?;
    // The carrier of the link is followed, whatever it is called.
    ip(&["link", "set", "enp9s0", "down"])?;
    has_state("web", "no carrier", "enp9s0")?;
    nothing_left(&["web"], &["mac1"])
}

/// `network set` makes the link anew where it is; what cannot be made anew is
/// not taken away.
fn changed_on_a_renamed_parent_and_not_without_one() -> Verdict {
    let lan = Lab::here(1)?;
    plug(&lan, "lan0")?;
    need_new_names("lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    run("web", "mac1", &["--ip", "10.0.2.5"])?;
    // Past the first look.
    std::thread::sleep(Duration::from_millis(300));
    ip(&["link", "set", "lan0", "name", "enp9s0"])?;
    has_state("web", "up", "enp9s0")?;
    let set = ["network", "set", "web", "mac1"];
    said(&[&set[..], &["ip=10.0.2.9"]].concat())?;
    has_state("web", "up", "enp9s0")?;
    // Another machine has it: back to what it was.
    refused(
        &[&set[..], &["ip=10.0.2.7"]].concat(),
        "Address already in use",
    )?;
    has_state("web", "up", "enp9s0")?;
    pings("web", "10.0.2.7")?;
    ip(&["link", "del", "enp9s0"])?;
    has_state("web", "parent gone", "enp9s0")?;
    for change in ["ip=10.0.2.10", "mac=02:00:00:00:00:0a", "rate-up=1mbit"] {
        refused(&[&set[..], &[change]].concat(), "is gone")?;
        has_state("web", "parent gone", "enp9s0")?;
    }
    plug(&lan, "lan0")?;
    has_state("web", "up", "lan0")?;
    pings("web", "10.0.2.7")?;
    let addr = ip_in("web", &["-4", "addr", "show", "eth0"])?;
    assert_eq!(addr[0]["addr_info"][0]["local"], "10.0.2.9");
    nothing_left(&["web"], &["mac1"])
}

/// The gateway answers the old address and not the new one; while it is waited
/// for, the parent goes.
fn lost_while_its_address_changes() -> Verdict {
    let lan = Lab::here(1)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    run("web", "mac1", &["--ip=10.0.2.50"])?;
    let before = identity("web")?;
    let hosts = judge::file_in("web", "/etc/hosts")?;
    let setting = std::thread::spawn(|| {
        let words = [
            "network",
            "set",
            "web",
            "mac1",
            "ip=10.0.2.51",
            "gw=10.0.2.99",
        ];
        judge::ask(&words).ok()
    });
    eventually("another address", || {
        let addrs = ip_in("web", &["addr", "show"])?.to_string();
        Ok(addrs.contains("10.0.2.51").then_some(()))
    })?;
    ip(&["link", "del", "lan0"])?;
    let answer = setting.join().unwrap().unwrap();
    assert!(
        answer.stderr.contains("does not answer"),
        "{}",
        answer.stderr
    );
    has_state("web", "parent gone", "lan0")?;
    event("parent-lost")?;
    plug(&lan, "lan0")?;
    has_state("web", "up", "lan0")?;
    assert_eq!(identity("web")?, before);
    assert_eq!(judge::file_in("web", "/etc/hosts")?, hosts);
    pings("web", "10.0.2.7")?;
    nothing_left(&["web"], &["mac1"])
}

fn carrier_again_is_announced() -> Verdict {
    let lan = Lab::here(1)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    run("web", "mac1", &["--ip", "10.0.2.50"])?;
    cable(&lan, "lan0", false)?;
    has_state("web", "no carrier", "lan0")?;
    assert_eq!(event("carrier")?["carrier"], "down");
    // Those of the start are over.
    std::thread::sleep(Duration::from_secs(3));
    let mut capture = Capture::start(&lan.others[0])?;
    cable(&lan, "lan0", true)?;
    has_state("web", "up", "lan0")?;
    assert_eq!(event("carrier")?["carrier"], "up");
    let ip_of = Ipv4Addr::new(10, 0, 2, 50);
    capture.wait(Duration::from_secs(4), |f| announcements(f, ip_of) > 3)?;
    assert_eq!(announcements(capture.frames()?, ip_of), 3);
    nothing_left(&["web"], &["mac1"])
}

fn a_flapping_link_is_announced_once_a_second() -> Verdict {
    let lan = Lab::here(1)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    run("web", "mac1", &["--ip", "10.0.2.50"])?;
    std::thread::sleep(Duration::from_secs(3));
    let mut capture = Capture::start(&lan.others[0])?;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        cable(&lan, "lan0", false)?;
        cable(&lan, "lan0", true)?;
    }
    std::thread::sleep(Duration::from_secs(3));
    let ip_of = Ipv4Addr::new(10, 0, 2, 50);
    let sent = announcements(capture.frames()?, ip_of);
    assert!((3..=8).contains(&sent), "{sent} in 6 s");
    nothing_left(&["web"], &["mac1"])
}

fn a_passthru_parent_s_new_mac() -> Verdict {
    let lan = Lab::here(1)?;
    plug(&lan, "lan0")?;
    create(
        "pass",
        &["-o", "parent=lan0", "-o", "macvlan_mode=passthru"],
    )?;
    run("web", "pass", &[])?;
    std::thread::sleep(Duration::from_millis(300));
    ip(&["link", "set", "lan0", "address", "02:00:00:00:00:bb"])?;
    eventually("the new MAC", || {
        let shown = said(&[
            "inspect",
            "-f",
            "{{.NetworkSettings.Networks.pass.MacAddress}}",
            "web",
        ])?;
        Ok((shown.trim() == "02:00:00:00:00:bb").then_some(()))
    })?;
    // The guard lets it out.
    pings("web", "10.0.2.7")?;
    nothing_left(&["web"], &["pass"])
}

// --- one that is late

fn a_start_waits_for_its_parent() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    run("web", "mac1", &[])?;
    said(&["stop", "-t0", "web"])?;
    ip(&["link", "del", "lan0"])?;
    refused(&["start", "web"], "lan0 was not found")?;
    for (container, command) in [
        ("web", &["start", "--parent-wait", "web"][..]),
        (
            "two",
            &[
                "run",
                "-d",
                "--name=two",
                "--parent-wait=30",
                "--network=mac1",
                "tester",
            ],
        ),
        (
            "bare",
            &["network", "connect", "--parent-wait=30", "mac1", "bare"],
        ),
    ] {
        if command[0] == "network" {
            said(&["run", "-d", "--name=bare", "tester"])?;
        }
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| ask(command).map_err(|_| "no answer"));
            std::thread::sleep(Duration::from_millis(400));
            assert!(!waiting.is_finished(), "{command:?} did not wait");
            // One that is not it.
            plug(&lan, "lan7").map_err(|_| "no link")?;
            std::thread::sleep(Duration::from_millis(200));
            assert!(!waiting.is_finished(), "{command:?} took lan7");
            plug(&lan, "lan0").map_err(|_| "no link")?;
            waiting.join().unwrap_or(Err("panic"))
        });
        let Ok(answer) = waiting else {
            return failed(format!("{command:?}: {waiting:?}"));
        };
        answer.success()?;
        has_state(container, "up", "lan0")?;
        said(&["rm", "-f", container])?;
        ip(&["link", "del", "lan7"])?;
        ip(&["link", "del", "lan0"])?;
    }
    said(&["network", "rm", "mac1"]).map(drop)
}

fn a_wait_that_is_too_short() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    ip(&["link", "del", "lan0"])?;
    let began = Instant::now();
    let run = ["run", "--rm", "--parent-wait=1", "--network=mac1", "tester"];
    refused(
        &run,
        "the requested parent interface lan0 did not come within 1 s",
    )?;
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(said(&["ps", "-aq"])?, "");
    said(&["network", "rm", "mac1"]).map(drop)
}

// --- DHCP, VLANs, several networks

fn a_lease_survives_its_link() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    let dir = std::env::temp_dir();
    let lease = format!("--dhcp-leasefile={}", dir.join("leases").display());
    let mut server = lan.gateway.spawn(
        std::process::Command::new("dnsmasq")
            .args(["--keep-in-foreground", "--port=0", "--conf-file=/dev/null"])
            .args([
                "--interface=eth0",
                "--bind-interfaces",
                "--user=",
                "--group=",
            ])
            .args([
                "--dhcp-range=10.0.2.100,10.0.2.120,1h",
                "--dhcp-authoritative",
            ])
            .args([
                "--dhcp-option=3,10.0.2.1",
                "--pid-file=",
                "--no-ping",
                &lease,
            ])
            .stderr(std::process::Stdio::null()),
    )?;
    let words = ["network", "create", "-d", "macvlan", "--ipam-driver=dhcp"];
    said(&[&words[..], &["-o", "parent=lan0", "lan"]].concat())?;
    run("web", "lan", &[])?;
    let before = identity("web")?;
    ip(&["link", "del", "lan0"])?;
    has_state("web", "parent gone", "lan0")?;
    plug(&lan, "lan0")?;
    has_state("web", "up", "lan0")?;
    assert_eq!(identity("web")?, before);
    pings("web", "10.0.2.1")?;
    // The server has been asked again, by the new link.
    eventually("bound", || {
        let dhcp = said(&["inspect", "-f", "{{json .Dockless}}", "web"])?;
        Ok(dhcp.contains(r#""State":"BOUND""#).then_some(()))
    })?;
    assert_eq!(identity("web")?, before);
    let cleared = nothing_left(&["web"], &["lan"]);
    server.kill()?;
    server.wait()?;
    cleared
}

fn a_vlan_s_base_goes_and_comes_back() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    let probe = [
        "ip", "link", "add", "link", "lan0", "name", "t0", "type", "vlan", "id", "9",
    ];
    if !judge::run(&probe)?.is_success() {
        return crate::harness::skipped("this kernel makes no vlan links");
    }
    ip(&["link", "del", "t0"])?;
    plug(&lan, "lan1")?;
    create("tagged", &["-o", "parent=lan0,lan1", "-o", "vlan=10"])?;
    assert_eq!(parent_of("tagged")?.0, "lan0.10");
    run("web", "tagged", &[])?;
    let before = identity("web")?;
    cable(&lan, "lan0", false)?;
    has_state("web", "up", "lan1.10")?;
    assert_eq!(identity("web")?, before);
    ip(&["link", "del", "lan1"])?;
    has_state("web", "no carrier", "lan0.10")?;
    ip(&["link", "del", "lan0"])?;
    has_state("web", "parent gone", "lan0.10")?;
    plug(&lan, "lan1")?;
    has_state("web", "up", "lan1.10")?;
    assert_eq!(identity("web")?, before);
    // Both VLANs go with the network.
    plug(&lan, "lan0")?;
    nothing_left(&["web"], &["tagged"])?;
    let links = judge::ip(&["link", "show"])?;
    let vlan = |link: &Value| link["ifname"].as_str().is_some_and(|n| n.contains(".10"));
    assert!(!links.as_array().unwrap().iter().any(vlan), "{links}");
    Ok(())
}

fn two_networks_and_one_loses_its_parent() -> Verdict {
    let lan = Lab::here(1)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=eth1"])?;
    let second = ["network", "create", "-d", "macvlan", "--subnet=10.7.0.0/24"];
    said(&[&second[..], &["-o", "parent=lan0", "mac2"]].concat())?;
    run("web", "mac1", &["--network", "mac2"])?;
    let all = || -> Verdict<(Value, Value, Value)> {
        Ok((
            identity("web")?,
            ip_in("web", &["rule", "show"])?,
            ip_in("web", &["route", "show", "table", "all", "scope", "global"])?,
        ))
    };
    let before = all()?;
    ip(&["link", "del", "lan0"])?;
    event("parent-lost")?;
    pings("web", "10.0.2.7")?;
    plug(&lan, "lan0")?;
    event("parent-back")?;
    assert_eq!(all()?, before);
    // It can leave a network whose parent is away, too.
    ip(&["link", "del", "lan0"])?;
    eventually("two losses", || {
        let lost = events()?.into_iter().filter(|(a, _)| a == "parent-lost");
        Ok((lost.count() == 2).then_some(()))
    })?;
    said(&["network", "disconnect", "mac2", "web"])?;
    pings("web", "10.0.2.7")?;
    nothing_left(&["web"], &["mac1", "mac2"])
}

// --- nothing is left, nothing is woken

/// At moments all over the time that it takes.
fn killed_while_it_makes_the_link_again() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    for after in (0..40).step_by(2) {
        run("web", "mac1", &["--ip=10.0.2.50", "-p", "5000:5000"])?;
        let supervisor = said(&["inspect", "-f", "{{.Dockless.SupervisorPid}}", "web"])?;
        let supervisor: i32 = supervisor.trim().parse()?;
        std::thread::sleep(Duration::from_millis(120));
        ip(&["link", "del", "lan0"])?;
        has_state("web", "parent gone", "lan0")?;
        plug_down(&lan)?;
        std::thread::sleep(Duration::from_millis(after));
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(supervisor),
            nix::sys::signal::Signal::SIGKILL,
        )?;
        ip(&["link", "set", "lan0", "up"])?;
        eventually("its end", || {
            let state = said(&["inspect", "-f", "{{.State.Status}}", "web"])?;
            Ok((state.trim() == "exited").then_some(()))
        })?;
        // Its lock is free a moment later than its socket is gone.
        said(&["rm", "web"])?;
        let rules = judge::nft_ruleset()?;
        assert!(rules.is_empty(), "{after} ms: {} left", rules.len());
    }
    nothing_left(&[], &["mac1"])
}

/// The parent that was deleted, without waiting for its carrier.
fn plug_down(lan: &Lab) -> Verdict {
    let (name, peer) = (IfName::new("lan0")?, IfName::new("plan0")?);
    Ok(Rtnl::host()?.veth(&name, &peer, lan.switch())?)
}

fn others_links_do_not_wake_it() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    run("web", "mac1", &[])?;
    let supervisor = said(&["inspect", "-f", "{{.Dockless.SupervisorPid}}", "web"])?;
    std::thread::sleep(Duration::from_secs(5));
    let before = switches(supervisor.trim());
    // Others' links, siblings on the same parent, and what changes nothing.
    plug(&lan, "lan1")?;
    cable(&lan, "lan1", false)?;
    ip(&["link", "del", "lan1"])?;
    ip(&[
        "link", "add", "link", "lan0", "name", "mv0", "type", "macvlan",
    ])?;
    ip(&["link", "set", "mv0", "up"])?;
    ip(&["link", "del", "mv0"])?;
    ip(&["link", "set", "lan0", "mtu", "1400"])?;
    ip(&["link", "set", "lan0", "alias", "uplink"])?;
    ip(&["addr", "add", "10.0.2.77/24", "dev", "lan0"])?;
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(switches(supervisor.trim()), before, "it woke up");
    ip(&["link", "set", "lan0", "down"])?;
    has_state("web", "no carrier", "lan0")?;
    assert!(switches(supervisor.trim()) > before);
    nothing_left(&["web"], &["mac1"])
}

/// One socket hears the parent for all of them; and for those that are left,
/// once its maker has gone.
fn supervisors_of_a_parent_share_a_socket() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    for name in ["web", "db"] {
        run(name, "mac1", &[])?;
        // It is taken a moment after the start.
        eventually("a bell", || {
            Ok((!rtnetlink_of(name)?.is_empty()).then_some(()))
        })?;
    }
    let (web, db) = (rtnetlink_of("web")?, rtnetlink_of("db")?);
    assert_eq!(web, db);
    assert_eq!(web.len(), 1, "{web:?}");
    assert_eq!(bells()?, 2);
    said(&["rm", "-f", "web"])?;
    assert_eq!(bells()?, 1, "its maker is gone");
    run("third", "mac1", &[])?;
    eventually("a bell", || {
        Ok((!rtnetlink_of("third")?.is_empty()).then_some(()))
    })?;
    assert_eq!(rtnetlink_of("third")?, db);
    said(&["rm", "-f", "third"])?;
    cable(&lan, "lan0", false)?;
    has_state("db", "no carrier", "lan0")?;
    run("late", "mac1", &[])?;
    cable(&lan, "lan0", true)?;
    for name in ["db", "late"] {
        has_state(name, "up", "lan0")?;
    }
    // Once rung, there is another: it goes on.
    ip(&["link", "set", "lan0", "down"])?;
    for name in ["db", "late"] {
        has_state(name, "no carrier", "lan0")?;
    }
    // A killed one's line goes with its container.
    assert!(bells()? > 0);
    for name in ["db", "late"] {
        let pid = said(&["inspect", "-f", "{{.Dockless.SupervisorPid}}", name])?;
        judge::run(&["kill", "-9", pid.trim()])?.success()?;
    }
    eventually("the dead are noticed", || {
        said(&["ps", "-a"])?;
        Ok((bells()? == 0).then_some(()))
    })?;
    nothing_left(&["db", "late"], &["mac1"])
}

/// Of how many processes the state folder says that they have one.
fn bells() -> Verdict<usize> {
    let state = std::env::var("DOCKLESS_STATE").unwrap();
    let mut lines = 0;
    for file in fs::read_dir(std::path::Path::new(&state).join("bells"))? {
        lines += fs::read_to_string(file?.path())?.lines().count();
    }
    Ok(lines)
}

/// Without an fd for a bell it looks by time, and tells what it has seen.
fn out_of_fds_it_looks_on() -> Verdict {
    let lan = Lab::here(0)?;
    plug(&lan, "lan0")?;
    create("mac1", &["-o", "parent=lan0"])?;
    run("web", "mac1", &[])?;
    eventually("a bell", || {
        Ok((!rtnetlink_of("web")?.is_empty()).then_some(()))
    })?;
    let pid = said(&["inspect", "-f", "{{.Dockless.SupervisorPid}}", "web"])?;
    let limit = |soft: &str| -> Verdict {
        let nofile = format!("--nofile={soft}:");
        judge::run(&["prlimit", "--pid", pid.trim(), &nofile])?
            .success()
            .map(drop)
    };
    // None above the standard ones is to be had any more.
    limit("3")?;
    cable(&lan, "lan0", false)?;
    eventually("no bell", || {
        Ok(rtnetlink_of("web")?.is_empty().then_some(()))
    })?;
    limit("1024")?;
    has_state("web", "no carrier", "lan0")?;
    eventually("a bell", || {
        Ok((!rtnetlink_of("web")?.is_empty()).then_some(()))
    })?;
    cable(&lan, "lan0", true)?;
    has_state("web", "up", "lan0")?;
    nothing_left(&["web"], &["mac1"])
}

/// The inodes of a supervisor's sockets that hear of the host's links.
fn rtnetlink_of(container: &str) -> Verdict<Vec<String>> {
    let pid = said(&["inspect", "-f", "{{.Dockless.SupervisorPid}}", container])?;
    let mut found = Vec::new();
    for fd in fs::read_dir(format!("/proc/{}/fd", pid.trim()))? {
        let target = fs::read_link(fd?.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        if let Some(inode) = target
            .strip_prefix("socket:[")
            .and_then(|t| t.strip_suffix(']'))
            && is_in_group(inode)?
        {
            found.push(inode.to_owned());
        }
    }
    Ok(found)
}

/// By /proc/net/netlink: protocol 0, and RTNLGRP_LINK, bit 0 of its groups.
fn is_in_group(inode: &str) -> Verdict<bool> {
    let all = fs::read_to_string("/proc/net/netlink")?;
    Ok(all.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let groups = words.get(3).and_then(|g| u32::from_str_radix(g, 16).ok());
        words.get(1) == Some(&"0")
            && groups.is_some_and(|g| g & 1 != 0)
            && words.last() == Some(&inode)
    }))
}

/// How often a process was woken, or made to wait.
fn switches(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = status.lines().filter(|l| l.contains("ctxt_switches"));
    lines
        .map(|l| l.split_whitespace().last().unwrap().parse::<u64>().unwrap())
        .sum()
}
