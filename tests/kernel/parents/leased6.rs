//! IPv6 that the LAN gives, on ipvlan l2: its links have their parent's MAC, and
//! link-local addresses that do not follow from it.

use std::net::Ipv6Addr;

use dockless::base::MacAddr;
use dockless::net::ip6::link_local;

use super::leased::dropped;
use super::*;
use crate::dhcp;
use crate::dhcp6::{self, line_of, routed, tap};
use crate::ip6_lan::{self, V4, pings, prefix, radvd, shown};
use crate::judge::{eventually, inside};
use crate::links::plug;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(slaac_on_one_mac).needs(&["ip", "nsenter", "ping", "radvd"]),
        Test::new(dhcpv6_on_one_mac).needs(&["ip", "nsenter", "ping", "dnsmasq", "tshark"]),
        Test::new(both_on_a_link_that_is_made_again).needs(&["ip", "nsenter", "ping", "dnsmasq"]),
        Test::new(beside_an_address_that_is_given).needs(&["ip", "nsenter", "ping"]),
    ]
    .into_iter()
    .map(|test| test.limit_s(120))
    .collect()
}

fn ipvlan(flags: &[&str]) -> Verdict<Lab> {
    let lan = ip6_lan::lan()?;
    need("eth1", &["ipvlan"])?;
    let parent = ["-o", "parent=eth1"];
    create("ipvlan", "lan", &[&V4[..], &parent, flags].concat())?;
    Ok(lan)
}

/// The link-local addresses of eth0 that may be used.
fn near(name: &str) -> Verdict<Vec<String>> {
    let links = ip_in(
        name,
        &["-6", "addr", "show", "dev", "eth0", "scope", "link"],
    )?;
    let all = links[0]["addr_info"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let usable = all.iter().filter(|a| a["tentative"] != true);
    Ok(usable
        .filter_map(|a| a["local"].as_str().map(str::to_owned))
        .collect())
}

/// Such a one, of the MAC that all have.
fn of_the_mac() -> Verdict<Ipv6Addr> {
    let eth1 = link("eth1")?.unwrap();
    let mac: MacAddr = eth1["address"].as_str().unwrap_or_default().parse()?;
    Ok(link_local(mac))
}

fn slaac_on_one_mac() -> Verdict {
    let lan = ipvlan(&[])?;
    let _radvd = radvd(&lan, &prefix("2001:db8:2::/64", 200))?;
    let mut had = Vec::new();
    for name in ["c1", "c2"] {
        run(name, "lan", &["--ip6=slaac"])?;
    }
    for name in ["c1", "c2"] {
        let ip = ip6_lan::address(name, "lan", "2001:db8:2:")?;
        let token = shown(name, "lan")?["Token"].as_str().unwrap().to_owned();
        let end = token.trim_start_matches("::");
        assert!(ip.ends_with(end), "{ip} {token}");
        assert_eq!(near(name)?, [format!("fe80::{end}")]);
        assert_eq!(default_routes_in(name, "-6")?.len(), 1);
        had.push(ip);
    }
    assert_ne!(had[0], had[1]);
    assert_ne!(near("c1")?, near("c2")?);
    for ip in &had {
        assert!(pings(&lan, ip)?, "{ip}");
    }
    inside("c1", &["ping", "-c1", "-W2", &had[1]])?.success()?;
    for name in ["c1", "c2"] {
        let by_link = format!("{}%eth0", near(name)?[0]);
        assert!(pings(&lan, &by_link)?, "{by_link}");
        assert_eq!(dropped(name)?, serde_json::json!({}));
    }
    // Made again under its name.
    remove_all(&["c1"])?;
    run("c1", "lan", &["--ip6=slaac"])?;
    assert_eq!(ip6_lan::address("c1", "lan", "2001:db8:2:")?, had[0]);
    remove_all(&["c1", "c2"])?;
    remove("lan")
}

fn dhcpv6_on_one_mac() -> Verdict {
    let lan = ipvlan(&[])?;
    let server = dhcp6::dnsmasq(&lan, "2::50", "2::99", &[])?;
    let wire = tap(&lan.gateway)?;
    for name in ["c1", "c2"] {
        run(name, "lan", &["--ip6=dhcp"])?;
    }
    let (first, second) = (dhcp6::address("c1")?, dhcp6::address("c2")?);
    assert_ne!(first, second);
    for (name, ip) in [("c1", &first), ("c2", &second)] {
        assert!(line_of(&server, ip).is_some(), "{:?}", server.known());
        routed(name)?;
        assert!(pings(&lan, ip)?);
        assert_eq!(dropped(name)?, serde_json::json!({}));
    }
    inside("c1", &["ping", "-c1", "-W2", &second])?.success()?;
    // Given back by one that does not run, from the same address, and by one
    // that does.
    let own = near("c1")?;
    said(&["stop", "-t0", "c1"])?;
    said(&["rm", "c1"])?;
    eventually("the server knows", 5, || {
        Ok(line_of(&server, &first).is_none())
    })?;
    // Said again where the answer is slow.
    let mut from = wire.read("dhcpv6.msgtype == 8", &["ipv6.src", "dhcpv6.iaaddr.ip"])?;
    from.dedup();
    assert_eq!(from, [[own[0].clone(), first.clone()]]);
    remove_all(&["c2"])?;
    eventually("the server knows", 5, || {
        Ok(line_of(&server, &second).is_none())
    })?;
    run("c2", "lan", &["--ip6=dhcp"])?;
    assert_eq!(dhcp6::address("c2")?, second);
    remove_all(&["c2"])?;
    remove("lan")
}

/// The new parent has another MAC, and its ipvlan with it.
fn both_on_a_link_that_is_made_again() -> Verdict {
    let lan = ip6_lan::lan()?;
    need("eth1", &["ipvlan"])?;
    plug(&lan, "lan0")?;
    let routers = ["--enable-ra", "--dhcp-range=2001:db8:2::,ra-only,64,10m"];
    let server = dhcp::dnsmasq(&lan, 50, 99, &routers)?;
    let flags = ["--ipam-driver=dhcp", "-o", "parent=lan0"];
    create("ipvlan", "lan", &flags)?;
    run("web", "lan", &["--ip6=slaac"])?;
    let v6 = ip6_lan::address("web", "lan", "2001:db8:2:")?;
    let had = (dhcp::address("web")?, near("web")?);
    ip(&["link", "del", "lan0"])?;
    eventually("it is missed", 10, || {
        Ok(
            said(&["inspect", "-f", "{{.Dockless.Links.lan.State}}", "web"])?.trim()
                == "parent gone",
        )
    })?;
    plug(&lan, "lan0")?;
    let lan0 = link("lan0")?.unwrap();
    let mac = lan0["address"].as_str().unwrap_or_default();
    eventually("the server knows", 20, || {
        let line = format!(" {mac} {} ", had.0);
        Ok(server.known().iter().any(|known| known.contains(&line)))
    })?;
    eventually("it is through", 5, || {
        Ok(dhcp::lease("web")?["State"] == "BOUND")
    })?;
    assert_eq!(ip6_lan::address("web", "lan", "2001:db8:2:")?, v6);
    assert_eq!((dhcp::address("web")?, near("web")?), had);
    assert!(pings(&lan, &had.0)? && pings(&lan, &v6)?);
    assert_eq!(dropped("web")?, serde_json::json!({}));
    remove_all(&["web"])?;
    eventually("the server knows", 5, || {
        Ok(!server.known().iter().any(|known| known.contains(&had.0)))
    })?;
    remove("lan")
}

/// The guard lets its link-local address out, and not that of the machine,
/// which follows from the MAC.
fn beside_an_address_that_is_given() -> Verdict {
    let v6 = ["--ipv6", "--subnet=2001:db8:2::/64"];
    let lan = ipvlan(&v6)?;
    run("c1", "lan", &["--ip6=2001:db8:2::50"])?;
    run("c2", "lan", &["--ip6=2001:db8:2::51"])?;
    for name in ["c1", "c2"] {
        eventually("it has one", 10, || Ok(near(name)?.len() == 1))?;
        let by_link = format!("{}%eth0", near(name)?[0]);
        assert!(pings(&lan, &by_link)?, "{by_link}");
        assert_eq!(dropped(name)?, serde_json::json!({}));
    }
    let theirs = of_the_mac()?.to_string();
    assert!(!near("c1")?.contains(&theirs) && near("c1")? != near("c2")?);
    assert!(pings(&lan, "2001:db8:2::50")?);
    let add = [
        "ip",
        "addr",
        "add",
        &format!("{theirs}/64"),
        "dev",
        "eth0",
        "nodad",
    ];
    inside("c1", &add)?.success()?;
    let ping = [
        "ping",
        "-c1",
        "-W1",
        "-I",
        &format!("{theirs}%eth0"),
        "ff02::1%eth0",
    ];
    inside("c1", &ping)?;
    let counts = dropped("c1")?;
    assert!(counts["IPv6"].as_u64() > Some(0), "{counts}");
    remove_all(&["c1", "c2"])?;
    remove("lan")
}
