//! The netlink layer against a real kernel, judged by `ip -j` and `nft -j`.
//! Each test has namespaces of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::Instant;

use dockless::base::{Cidr, IfName, MacAddr, Result};
use dockless::lab::{Lab, Machine};
use dockless::netlink::route::Configure;
use dockless::netlink::socket::Event;
use dockless::netlink::{LinkKind, MacvlanMode, NewLink, Rtnl};
use dockless::sys::netns::{Netns, Sandbox};
use serde_json::Value;

use crate::harness::Test;

pub(crate) fn tests() -> Vec<Test> {
    let judged = |(name, run): &(&str, fn())| Test::named(name, *run).needs(&["ip", "ping"]);
    TESTS.iter().map(judged).collect()
}

const TESTS: &[(&str, fn())] = &[
    ("netlink::lab_is_wired", lab_is_wired),
    (
        "netlink::macvlan_straight_into_a_sandbox",
        macvlan_straight_into_a_sandbox,
    ),
    ("netlink::macvlan_modes", macvlan_modes),
    (
        "netlink::macvlan_index_or_name_taken",
        macvlan_index_or_name_taken,
    ),
    (
        "netlink::macvlan_refusals_say_why",
        macvlan_refusals_say_why,
    ),
    ("netlink::busy_mac_is_waited_for", busy_mac_is_waited_for),
    (
        "netlink::passthru_parent_is_waited_for",
        passthru_parent_is_waited_for,
    ),
    (
        "netlink::a_namespace_s_number_is_seen",
        a_namespace_s_number_is_seen,
    ),
    (
        "netlink::busy_mac_names_its_holder",
        busy_mac_names_its_holder,
    ),
    (
        "netlink::configure_names_the_refused_message",
        configure_names_the_refused_message,
    ),
    (
        "netlink::read_models_agree_with_ip",
        read_models_agree_with_ip,
    ),
    ("netlink::routes_come_and_go", routes_come_and_go),
    ("netlink::monitor_reports", monitor_reports),
    (
        "netlink::indexes_do_not_cross_namespaces",
        indexes_do_not_cross_namespaces,
    ),
];

fn name(text: &str) -> IfName {
    IfName::new(text).unwrap()
}

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn mac(last: u8) -> MacAddr {
    MacAddr([0x02, 0x42, 10, 0, 2, last])
}

/// `ip -j -d …` in a namespace.
fn ip(netns: &Netns<Sandbox>, args: &str) -> Value {
    let output = netns
        .run(|| {
            Ok(Command::new("ip")
                .args(["-j", "-d"])
                .args(args.split_whitespace())
                .output()
                .unwrap())
        })
        .unwrap();
    assert!(
        output.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    if output.stdout.is_empty() {
        return Value::Array(Vec::new());
    }
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `f` as if the machine were the host that dockless was started on.
fn on_host<T: Send>(
    host: &Machine,
    f: impl FnOnce(&mut Rtnl<dockless::sys::netns::Host>) -> Result<T> + Send,
) -> T {
    host.run(|| f(&mut Rtnl::host()?)).unwrap()
}

fn lab_is_wired() {
    let start = Instant::now();
    let lab = Lab::new(2).unwrap();
    println!("lab built in {:?}", start.elapsed());
    for machine in [&lab.gateway, &lab.host, &lab.others[0], &lab.others[1]] {
        let links = ip(&machine.netns, "link");
        let link = links
            .as_array()
            .unwrap()
            .iter()
            .find(|l| l["ifname"] == machine.ifname.as_str())
            .unwrap()
            .clone();
        assert_eq!(link["operstate"], "UP", "{}", machine.name);
        let routes = ip(&machine.netns, "route");
        let default = routes
            .as_array()
            .unwrap()
            .iter()
            .any(|r| r["dst"] == "default");
        assert_eq!(default, machine.name != "gateway");
    }
    let ping = lab.others[1]
        .output(Command::new("ping").args(["-c1", "-W1", "10.0.2.4"]))
        .unwrap();
    assert!(ping.status.success());
}

fn macvlan_straight_into_a_sandbox() {
    let lab = Lab::new(0).unwrap();
    let target = Netns::create().unwrap();
    on_host(&lab.host, |host| {
        let parent = host.link("eth1")?.unwrap();
        let mut sandbox = Rtnl::sandbox(&target)?;
        let ifname = name("eth0");
        let new = NewLink {
            name: &ifname,
            lower: parent.index,
            mode: MacvlanMode::Bridge.into(),
            sources: &[],
            mac: Some(mac(5)),
            mtu: Some(1400),
            broadcast: dockless::netlink::Broadcast::default(),
        };
        let index = host.link_into(&new, &target, &mut sandbox)?;
        assert_eq!(index.get(), 2);
        sandbox.configure(
            index,
            &Configure {
                loopback_up: true,
                mac: None,
                addrs: vec![cidr("10.0.2.5/24")],
                up: true,
                gateways: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1)).into(),
            },
        )
    });
    let link = &ip(&target, "link show eth0")[0];
    assert_eq!(link["ifindex"], 2);
    assert_eq!(link["address"], "02:42:0a:00:02:05");
    assert_eq!(link["mtu"], 1400);
    assert_eq!(link["linkinfo"]["info_kind"], "macvlan");
    assert_eq!(link["linkinfo"]["info_data"]["mode"], "bridge");
    assert!(link.get("txqlen").is_none(), "txqueuelen 0: {link}");
    assert!(link["flags"].as_array().unwrap().contains(&"UP".into()));
    assert_eq!(link["link_netnsid"], 0);
    let lo = &ip(&target, "link show lo")[0];
    assert!(lo["flags"].as_array().unwrap().contains(&"UP".into()));
    let addr = &ip(&target, "addr show eth0")[0]["addr_info"][0];
    assert_eq!(addr["local"], "10.0.2.5");
    assert_eq!(addr["prefixlen"], 24);
    assert_eq!(addr["broadcast"], "10.0.2.255");
    assert_eq!(addr["scope"], "global");
    assert_eq!(addr["valid_life_time"], 4_294_967_295_u32);
    let routes = ip(&target, "route");
    let routes = routes.as_array().unwrap();
    assert_eq!(routes.len(), 2);
    assert_eq!(routes[0]["gateway"], "10.0.2.1");
    assert_eq!(routes[0]["protocol"], "boot");
    assert_eq!(routes[0]["scope"], "global");
    assert_eq!(routes[1]["dst"], "10.0.2.0/24");
    let ping = target
        .run(|| {
            Ok(Command::new("ping")
                .args(["-c1", "-W1", "10.0.2.1"])
                .output()
                .unwrap())
        })
        .unwrap();
    assert!(
        ping.status.success(),
        "{}",
        String::from_utf8_lossy(&ping.stdout)
    );
}

fn macvlan_modes() {
    let lab = Lab::new(0).unwrap();
    for (mode, text) in [
        (MacvlanMode::Private, "private"),
        (MacvlanMode::Vepa, "vepa"),
        (MacvlanMode::Source, "source"),
        (MacvlanMode::Passthru, "passthru"),
    ] {
        let target = Netns::create().unwrap();
        let sources = [mac(1), mac(2), mac(3)];
        on_host(&lab.host, |host| {
            let lower = host.link("eth1")?.unwrap().index;
            let mut sandbox = Rtnl::sandbox(&target)?;
            let ifname = name("eth0");
            let new = NewLink {
                name: &ifname,
                lower,
                mode: mode.into(),
                sources: if mode == MacvlanMode::Source {
                    &sources
                } else {
                    &[]
                },
                mac: Some(mac(9)),
                mtu: None,
                broadcast: dockless::netlink::Broadcast::default(),
            };
            let index = host.link_into(&new, &target, &mut sandbox)?;
            assert_eq!(
                sandbox.link("eth0")?.unwrap().kind,
                LinkKind::Macvlan { mode }
            );
            let info = ip(&target, "link show eth0")[0]["linkinfo"]["info_data"].clone();
            assert_eq!(info["mode"], text);
            if mode == MacvlanMode::Source {
                assert_eq!(info["macaddr_count"], 3, "{info}");
            }
            sandbox.delete_link(index)?;
            assert!(sandbox.link("eth0")?.is_none());
            // Gone already is fine.
            sandbox.delete_link(index)
        });
    }
}

fn macvlan_index_or_name_taken() {
    let lab = Lab::new(0).unwrap();
    let target = Netns::create().unwrap();
    on_host(&lab.host, |host| {
        let lower = host.link("eth1")?.unwrap().index;
        let mut sandbox = Rtnl::sandbox(&target)?;
        let make = |host: &mut Rtnl<_>, sandbox: &mut Rtnl<_>, text: &str, last| {
            let ifname = name(text);
            let new = NewLink {
                name: &ifname,
                lower,
                mode: MacvlanMode::Bridge.into(),
                sources: &[],
                mac: Some(mac(last)),
                mtu: None,
                broadcast: dockless::netlink::Broadcast::default(),
            };
            host.link_into(&new, &target, sandbox)
        };
        // A name without a number of its own takes the first free index, 2 …
        assert_eq!(make(host, &mut sandbox, "lan", 11)?.get(), 2);
        // … so eth0 has to look for another one, …
        let eth0 = make(host, &mut sandbox, "eth0", 12)?;
        assert_ne!(eth0.get(), 2);
        assert_eq!(ip(&target, "link show eth0")[0]["ifindex"], eth0.get());
        // … and eth1 gets its usual place or, if that is eth0's now, a new one.
        let eth1 = make(host, &mut sandbox, "eth1", 13)?;
        assert_eq!(ip(&target, "link show eth1")[0]["ifindex"], eth1.get());
        let error = make(host, &mut sandbox, "eth0", 14).unwrap_err();
        assert!(error.is_errno(libc::EEXIST), "{error}");
        assert!(
            error.to_string().contains("exists there already"),
            "{error}"
        );
        Ok(())
    });
    assert_eq!(ip(&target, "link").as_array().unwrap().len(), 4);
}

fn macvlan_refusals_say_why() {
    let lab = Lab::new(0).unwrap();
    let target = Netns::create().unwrap();
    on_host(&lab.host, |host| {
        let mut sandbox = Rtnl::sandbox(&target)?;
        let ifname = name("eth0");
        let lo = host.link("lo")?.unwrap().index;
        let eth1 = host.link("eth1")?.unwrap().index;
        let mut refusal = |host: &mut Rtnl<_>, lower, mode: MacvlanMode, mac| {
            let new = NewLink {
                name: &ifname,
                lower,
                mode: mode.into(),
                sources: &[],
                mac: Some(mac),
                mtu: None,
                broadcast: dockless::netlink::Broadcast::default(),
            };
            let error = host.link_into(&new, &target, &mut sandbox).unwrap_err();
            println!("{error}");
            error.to_string()
        };
        let bridge_mode = MacvlanMode::Bridge;
        let text = refusal(host, lo, bridge_mode, mac(5));
        assert!(text.contains("lo is not an Ethernet interface"), "{text}");
        let group = "01:00:5e:00:00:01".parse()?;
        let text = refusal(host, eth1, bridge_mode, group);
        assert!(text.contains("create macvlan link eth0"), "{text}");

        let shim = NewLink {
            name: &name("shim"),
            lower: eth1,
            mode: bridge_mode.into(),
            sources: &[],
            mac: None,
            mtu: None,
            broadcast: dockless::netlink::Broadcast::default(),
        };
        let shim = host.link_here(&shim)?;
        let text = refusal(host, eth1, MacvlanMode::Passthru, mac(5));
        assert!(text.contains("passthru") && text.contains("shim"), "{text}");
        host.delete_link(shim)?;

        let bridge = host.bridge(&name("br7"))?;
        host.set_master(eth1, Some(bridge))?;
        let text = refusal(host, eth1, bridge_mode, mac(5));
        assert!(
            text.contains("eth1 is a port of the bridge br7: use br7"),
            "{text}"
        );
        host.set_master(eth1, None)?;

        let stale = host.bridge(&name("br8"))?;
        host.delete_link(stale)?;
        let text = refusal(host, stale, bridge_mode, mac(5));
        assert!(text.contains("does not exist any more"), "{text}");
        Ok(())
    });
}

/// The MAC's holder dies with its namespace; the next start waits it out.
fn busy_mac_is_waited_for() {
    let lab = Lab::new(0).unwrap();
    on_host(&lab.host, |host| {
        let lower = host.link("eth1")?.unwrap().index;
        let ifname = name("eth0");
        for _ in 0..3 {
            let target = Netns::create()?;
            let mut sandbox = Rtnl::sandbox(&target)?;
            let new = NewLink {
                name: &ifname,
                lower,
                mode: MacvlanMode::Bridge.into(),
                sources: &[],
                mac: Some(mac(5)),
                mtu: None,
                broadcast: dockless::netlink::Broadcast::default(),
            };
            let index = host.link_into(&new, &target, &mut sandbox)?;
            let start = Instant::now();
            sandbox.configure(
                index,
                &Configure {
                    addrs: vec![cidr("10.0.2.5/24")],
                    up: true,
                    gateways: IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1)).into(),
                    ..Configure::default()
                },
            )?;
            println!("up after {:?}", start.elapsed());
            assert_eq!(ip(&target, "route").as_array().unwrap().len(), 2);
        }
        Ok(())
    });
}

/// Passthru and any other mode exclude each other, also while the other one's
/// namespace is dying. The parent's MAC lives as long as the link.
fn passthru_parent_is_waited_for() {
    let lab = Lab::new(0).unwrap();
    on_host(&lab.host, |host| {
        let parent = host.link("eth1")?.unwrap();
        let modes = [MacvlanMode::Vepa, MacvlanMode::Passthru];
        for mode in modes.into_iter().cycle().take(6) {
            let target = Netns::create()?;
            let mut sandbox = Rtnl::sandbox(&target)?;
            let new = NewLink {
                name: &name("eth0"),
                lower: parent.index,
                mode: mode.into(),
                sources: &[],
                mac: None,
                mtu: None,
                broadcast: dockless::netlink::Broadcast::default(),
            };
            let index = host.link_into(&new, &target, &mut sandbox)?;
            let own = host.link("eth1")?.unwrap().mac;
            assert_eq!(own, parent.mac);
            let configure = Configure {
                mac: Some(mac(5)),
                up: true,
                ..Configure::default()
            };
            sandbox.configure(index, &configure)?;
            let now = host.link("eth1")?.unwrap().mac;
            let passthru = mode == MacvlanMode::Passthru;
            assert_eq!(now == Some(mac(5)), passthru, "{now:?}");
        }
        Ok(())
    });
}

fn a_namespace_s_number_is_seen() {
    let lab = Lab::new(0).unwrap();
    on_host(&lab.host, |host| {
        let number = 1 << 25;
        assert!(!host.is_number(number)?);
        let target = Netns::create()?;
        host.number_namespace(&target, number)?;
        assert!(host.is_number(number)?);
        assert!(!host.is_number(number + 1)?);
        let again = host.number_namespace(&Netns::create()?, number);
        assert!(again.unwrap_err().is_errno(libc::EEXIST));
        Ok(())
    });
}

fn busy_mac_names_its_holder() {
    let lab = Lab::new(0).unwrap();
    on_host(&lab.host, |host| {
        let eth1 = host.link("eth1")?.unwrap();
        let make = |host: &mut Rtnl<_>, text: &str, mac| {
            host.link_here(&NewLink {
                name: &name(text),
                lower: eth1.index,
                mode: MacvlanMode::Bridge.into(),
                sources: &[],
                mac: Some(mac),
                mtu: None,
                broadcast: dockless::netlink::Broadcast::default(),
            })
        };
        let first = make(host, "first", mac(5))?;
        host.set_up(first)?;
        let second = make(host, "second", mac(5))?;
        let error = host.set_up(second).unwrap_err().to_string();
        assert!(error.contains("set link up second"), "{error}");
        assert!(error.contains("already used by first"), "{error}");
        assert_eq!(host.mac_holder(eth1.index, mac(5))?, Some(name("first")));
        assert_eq!(host.mac_holder(eth1.index, mac(6))?, None);
        let own = eth1.mac.unwrap();
        let third = make(host, "third", own)?;
        let error = host.set_up(third).unwrap_err().to_string();
        assert!(error.contains("already used by eth1"), "{error}");
        assert_eq!(host.mac_holder(eth1.index, own)?, Some(name("eth1")));

        let target = Netns::create()?;
        let mut sandbox = Rtnl::sandbox(&target)?;
        let ifname = name("eth0");
        let new = NewLink {
            name: &ifname,
            lower: eth1.index,
            mode: MacvlanMode::Bridge.into(),
            sources: &[],
            mac: Some(mac(5)),
            mtu: None,
            broadcast: dockless::netlink::Broadcast::default(),
        };
        let index = host.link_into(&new, &target, &mut sandbox)?;
        let error = sandbox.set_up(index).unwrap_err().to_string();
        assert!(
            error.contains("a link on it in another network namespace"),
            "{error}"
        );
        Ok(())
    });
}

fn configure_names_the_refused_message() {
    let lab = Lab::new(0).unwrap();
    let mut rtnl = lab.host.rtnl().unwrap();
    let eth1 = rtnl.link("eth1").unwrap().unwrap().index;
    let error = rtnl
        .configure(
            eth1,
            &Configure {
                addrs: vec![cidr("10.0.2.4/24"), cidr("10.9.9.9/24")],
                ..Configure::default()
            },
        )
        .unwrap_err();
    assert!(error.is_errno(libc::EEXIST));
    assert!(
        error
            .to_string()
            .starts_with("add address 10.0.2.4/24: file exists"),
        "{error}"
    );
    // The refusal did not stop the message after it.
    let addrs = ip(&lab.host.netns, "addr show eth1");
    assert!(addrs.to_string().contains("10.9.9.9"));
    let error = rtnl
        .add_default(Ipv4Addr::new(192, 0, 2, 1).into(), eth1)
        .unwrap_err();
    assert!(
        error.to_string().contains("Nexthop has invalid gateway"),
        "{error}"
    );
}

fn read_models_agree_with_ip() {
    let lab = Lab::new(1).unwrap();
    let netns = &lab.host.netns;
    let mut rtnl = lab.host.rtnl().unwrap();
    let eth1 = rtnl.link("eth1").unwrap().unwrap();
    netns
        .run(|| {
            for args in [
                "link property add dev eth1 altname a-name-longer-than-fifteen-bytes",
                "link set eth1 txqueuelen 77 mtu 1450",
                "addr add 192.0.2.1/32 peer 192.0.2.2/32 dev eth1",
            ] {
                let status = Command::new("ip").args(args.split(' ')).status().unwrap();
                assert!(status.success(), "ip {args}");
            }
            Ok(())
        })
        .unwrap();
    let long = rtnl
        .link("a-name-longer-than-fifteen-bytes")
        .unwrap()
        .unwrap();
    assert_eq!(long.index, eth1.index);
    assert_eq!(long.altnames, ["a-name-longer-than-fifteen-bytes"]);
    assert!(rtnl.link("nosuch0").unwrap().is_none());
    assert!(rtnl.link_by_index(4711).unwrap().is_none());

    for theirs in ip(netns, "link").as_array().unwrap() {
        let ours = rtnl
            .link(theirs["ifname"].as_str().unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(theirs["ifindex"], ours.index.get());
        assert_eq!(theirs["mtu"], ours.mtu);
        assert_eq!(theirs["qdisc"], ours.qdisc.clone().unwrap());
        assert_eq!(
            theirs["txqlen"].as_u64().unwrap_or(0),
            u64::from(ours.txqlen)
        );
        assert_eq!(theirs["address"], ours.mac.unwrap().to_string());
        assert_eq!(theirs["broadcast"], ours.broadcast.unwrap().to_string());
        assert_eq!(theirs["group"] == "default", ours.group == 0);
        let flags = theirs["flags"].as_array().unwrap();
        assert_eq!(flags.contains(&"UP".into()), ours.up);
        assert_eq!(flags.contains(&"LOWER_UP".into()), ours.carrier);
    }
    assert_eq!(rtnl.links().unwrap().len(), 2);
    assert_eq!(rtnl.link("lo").unwrap().unwrap().kind, LinkKind::Loopback);
    assert_eq!(rtnl.link("eth1").unwrap().unwrap().kind, LinkKind::Veth);

    let addrs = rtnl.addrs(Some(eth1.index)).unwrap();
    let theirs = ip(netns, "addr show eth1");
    let theirs = theirs[0]["addr_info"].as_array().unwrap();
    assert_eq!(addrs.len(), theirs.len());
    for (ours, theirs) in addrs.iter().zip(theirs) {
        assert_eq!(theirs["local"], ours.cidr.addr().to_string());
        assert_eq!(theirs["prefixlen"], ours.cidr.prefix());
        assert_eq!(
            theirs["address"].as_str().map(str::to_owned),
            ours.peer.map(|p| p.to_string())
        );
        assert_eq!(theirs["label"], ours.label.clone().unwrap());
    }
    assert_eq!(rtnl.addrs(None).unwrap().len(), addrs.len() + 1);

    let routes = rtnl.routes().unwrap();
    assert_eq!(routes.len(), ip(netns, "route").as_array().unwrap().len());
    let rules = rtnl.rules().unwrap();
    assert_eq!(
        rules.iter().filter(|r| !r.ipv6).count(),
        ip(netns, "rule").as_array().unwrap().len()
    );
    lab.host
        .output(Command::new("ping").args(["-c1", "-W1", "10.0.2.7"]))
        .unwrap();
    let neighs = rtnl.neighs().unwrap();
    let other = neighs
        .iter()
        .find(|n| n.addr.to_string() == "10.0.2.7")
        .unwrap();
    let theirs = ip(netns, "neigh show 10.0.2.7");
    assert_eq!(theirs[0]["lladdr"], other.mac.unwrap().to_string());
}

fn routes_come_and_go() {
    let lab = Lab::new(0).unwrap();
    let netns = &lab.host.netns;
    let mut rtnl = lab.host.rtnl().unwrap();
    let eth1 = rtnl.link("eth1").unwrap().unwrap().index;
    let one = cidr("10.0.2.5/32");
    for _ in 0..2 {
        rtnl.add_link_route(one, eth1, Some(lab.host.ip.into()))
            .unwrap();
    }
    let route = &ip(netns, "route show 10.0.2.5")[0];
    assert_eq!(route["dev"], "eth1");
    assert_eq!(route["scope"], "link");
    assert_eq!(route["prefsrc"], "10.0.2.4");
    let ours = rtnl.routes().unwrap();
    let ours = ours.iter().find(|r| r.dst == Some(one)).unwrap();
    assert_eq!(ours.prefsrc, Some(lab.host.ip.into()));
    for _ in 0..2 {
        rtnl.del_link_route(one, eth1).unwrap();
    }
    let gateway = lab.gateway.ip.into();
    let error = rtnl.add_default(gateway, eth1).unwrap_err();
    assert!(error.is_errno(libc::EEXIST), "{error}");
    for _ in 0..2 {
        rtnl.del_default(gateway, eth1).unwrap();
    }
    assert_eq!(ip(netns, "route").as_array().unwrap().len(), 1);
    let alias = cidr("169.254.7.7/32");
    let lo = rtnl.link("lo").unwrap().unwrap().index;
    for _ in 0..2 {
        rtnl.add_addr(lo, alias).unwrap();
    }
    assert!(
        ip(netns, "addr show lo")
            .to_string()
            .contains(r#""scope":"host""#)
    );
    for _ in 0..2 {
        rtnl.del_addr(lo, alias).unwrap();
    }
    assert!(!ip(netns, "addr show lo").to_string().contains("169.254"));
}

fn monitor_reports() {
    let lab = Lab::new(0).unwrap();
    on_host(&lab.host, |host| {
        let mut monitor = Rtnl::monitor(&[libc::RTNLGRP_LINK, libc::RTNLGRP_IPV4_IFADDR])?;
        assert_eq!(monitor.drain()?, []);
        let eth1 = host.link("eth1")?.unwrap().index;
        let addr = cidr("10.7.7.7/24");
        host.add_addr(eth1, addr)?;
        host.del_addr(eth1, addr)?;
        host.set_down(eth1)?;
        let events = monitor.drain()?;
        let index = eth1.get();
        assert!(
            events.contains(&Event::Addr {
                index,
                addr,
                gone: false
            }),
            "{events:?}"
        );
        assert!(
            events.contains(&Event::Addr {
                index,
                addr,
                gone: true
            }),
            "{events:?}"
        );
        assert!(
            events
                .iter()
                .any(|e| matches!(e, Event::Link { name, up: false, .. } if name == "eth1")),
            "{events:?}"
        );
        Ok(())
    });
}

fn indexes_do_not_cross_namespaces() {
    let lab = Lab::new(0).unwrap();
    let mut host = lab.host.rtnl().unwrap();
    let mut gateway = lab.gateway.rtnl().unwrap();
    let index = host.link("eth1").unwrap().unwrap().index;
    let error = gateway.set_down(index).unwrap_err();
    assert!(
        error.to_string().contains("another network namespace"),
        "{error}"
    );
}
