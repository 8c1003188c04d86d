//! Docker's ipvlan integration tests (docker-macvlan.md §9.2), and what else
//! is ipvlan's own.

use super::*;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

const L3: [&str; 2] = ["-o", "ipvlan_mode=l3"];
const L3S: [&str; 2] = ["-o", "ipvlan_mode=l3s"];

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(persistence),
        Test::new(subinterface),
        Test::new(overlap_parent),
        Test::new(l2_nil_parent),
        Test::new(l2_internal_mode),
        Test::new(l3_nil_parent),
        Test::new(l3_internal_mode),
        Test::new(l2_multi_subnet_with_parent),
        Test::new(l2_multi_subnet_no_parent),
        Test::new(l3_multi_subnet),
        Test::new(l2_gateway),
        Test::new(l3_addressing),
        Test::new(ipvlan_ipam),
        Test::new(ipvlan_ipam_overlap),
        Test::new(point_to_point),
        Test::new(endpoint_with_custom_ifname),
        Test::new(on_the_lan),
        Test::new(modes_and_flags),
        Test::new(default_route_moves),
    ]
}

fn persistence() -> Verdict {
    dummy("di-dummy0", &["vlan", "ipvlan"])?;
    create("ipvlan", "di-net", &["-o", "parent=di-dummy0.70"])?;
    assert!(is_available("di-net")?);
    reboot(&["di-dummy0.70"])?;
    assert!(is_available("di-net")?);
    run("c1", "di-net", &[])?;
    assert!(is_there("di-dummy0.70")?);
    remove_all(&["c1"])?;
    remove("di-net")
}

fn subinterface() -> Verdict {
    dummy("di-dummy0", &["vlan", "ipvlan"])?;
    create("ipvlan", "di-sub", &["-o", "parent=di-dummy0.60"])?;
    assert!(is_available("di-sub")? && is_there("di-dummy0.60")?);
    remove("di-sub")?;
    assert!(!is_there("di-dummy0.60")?);
    assert!(is_there("di-dummy0")?);
    Ok(())
}

fn overlap_parent() -> Verdict {
    dummy("di-dummy0", &["vlan", "ipvlan"])?;
    let flags = ["-o", "parent=di-dummy0.30"];
    create("ipvlan", "di-sub", &flags)?;
    let same = create_words("ipvlan", "di-sub", &flags);
    refused(&same, "network with name di-sub already exists")?;
    let other = create_words("ipvlan", "di-other", &flags);
    refused(&other, "is already using parent interface di-dummy0.30")?;
    remove("di-sub")?;
    assert!(is_there("di-dummy0")?);
    Ok(())
}

fn l2_nil_parent() -> Verdict {
    dummy("di-dummy0", &["ipvlan"])?;
    nil_parent_of("ipvlan", "di-", &[])
}

fn l2_internal_mode() -> Verdict {
    dummy("di-dummy0", &["ipvlan"])?;
    internal_mode_of("ipvlan", &[])
}

/// One container in each of two subnets.
fn l3_pair(flags: &[&str]) -> Verdict {
    let subnets = ["--subnet=192.168.220.0/24", "--subnet=192.168.230.0/24"];
    create("ipvlan", "di-l3", &[&L3[..], &subnets, flags].concat())?;
    run("c1", "di-l3", &["--ip", "192.168.220.10"])?;
    run("c2", "di-l3", &["--ip", "192.168.230.10"])
}

fn l3_nil_parent() -> Verdict {
    dummy("di-dummy0", &["ipvlan"])?;
    l3_pair(&[])?;
    pings("c2", "192.168.220.10")?;
    pings("c1", "192.168.230.10")?;
    remove_all(&["c1", "c2"])?;
    remove("di-l3")
}

fn l3_internal_mode() -> Verdict {
    dummy("di-dummy0", &["ipvlan"])?;
    l3_pair(&["--internal"])?;
    unreachable("c1")?;
    pings("c2", "192.168.220.10")?;
    remove_all(&["c1", "c2"])?;
    remove("di-l3")
}

fn l2_multi_subnet_with_parent() -> Verdict {
    dummy("di-dummy0", &["vlan", "ipvlan"])?;
    multi_subnet_of("ipvlan", &["-o", "parent=di-dummy0.100"], "172.28.202.254")
}

fn l2_multi_subnet_no_parent() -> Verdict {
    dummy("di-dummy0", &["ipvlan"])?;
    multi_subnet_of("ipvlan", &[], "")
}

/// A gateway may be given, and is nobody's.
fn l3_multi_subnet() -> Verdict {
    dummy("di-dummy0", &["vlan", "ipvlan"])?;
    let parent = ["-o", "parent=di-dummy0.100"];
    multi_subnet_of("ipvlan", &[&L3[..], &parent].concat(), "")
}

fn l2_gateway() -> Verdict {
    dummy("di-dummy0", &["ipvlan"])?;
    let pool = ["--subnet=172.28.140.0/24", "--gateway=172.28.140.254"];
    let v6 = ["--ipv6", "--subnet=2001:db8:abcb::/64"];
    let parent = ["-o", "parent=di-dummy0"];
    create("ipvlan", "di-gw", &[&pool[..], &v6, &parent].concat())?;
    run("c1", "di-gw", &[])?;
    assert_eq!(default_routes("c1")?, ["via 172.28.140.254"]);
    assert_eq!(default_routes_in("c1", "-6")?, [""; 0]);
    remove_all(&["c1"])?;
    remove("di-gw")
}

fn l3_addressing() -> Verdict {
    dummy("di-dummy0", &["ipvlan"])?;
    let pool = ["--subnet=172.28.160.0/24", "--gateway=172.28.160.254"];
    let v6 = [
        "--ipv6",
        "--subnet=2001:db8:abcd::/64",
        "--gateway=2001:db8:abcd::254",
    ];
    let parent = ["-o", "parent=di-dummy0"];
    create("ipvlan", "di-l3", &[&L3[..], &pool, &v6, &parent].concat())?;
    run("c1", "di-l3", &[])?;
    assert_eq!(default_routes("c1")?, ["dev eth0"]);
    assert_eq!(default_routes_in("c1", "-6")?, ["dev eth0"]);
    assert_eq!(endpoint("c1", "Gateway")?, "");
    assert_eq!(endpoint("c1", "IPv6Gateway")?, "");
    remove_all(&["c1"])?;
    remove("di-l3")
}

fn ipvlan_ipam() -> Verdict {
    dummy("di-dummy0", &["ipvlan"])?;
    let v4 = ["--subnet=192.168.0.0/24"];
    let v6 = [
        "--ipv6",
        "--subnet=2001:db8:abcd::/64",
        "--ip-range=2001:db8:abcd::100/120",
    ];
    families_of("ipvlan", &L3, (&v4, (3, 253)), (&v6, (2, 255)))
}

fn ipvlan_ipam_overlap() -> Verdict {
    dummy("di-dummy0", &["ipvlan"])?;
    ipam_overlap_of("ipvlan", &L3)
}

fn point_to_point() -> Verdict {
    dummy("di-dummy0", &["ipvlan"])?;
    for mode in [&[][..], &L3, &L3S] {
        point_to_point_of("ipvlan", mode)?;
    }
    Ok(())
}

fn endpoint_with_custom_ifname() -> Verdict {
    dummy("di-dummy0", &["vlan", "ipvlan"])?;
    custom_ifname_of("ipvlan", "parent=di-dummy0.60")
}

// --- not Docker's

/// The parent's MAC, the LAN's gateway, and a published port.
fn on_the_lan() -> Verdict {
    let lan = lan(&["ipvlan"])?;
    let pool = ["--subnet=10.0.2.0/24", "--gateway=10.0.2.1"];
    create(
        "ipvlan",
        "ipv",
        &[&pool[..], &["-o", "parent=eth1"]].concat(),
    )?;
    let with_mac = [
        "run",
        "--rm",
        "--network",
        "ipv",
        "--mac-address",
        "02:00:00:00:00:09",
    ];
    refused(
        &[&with_mac[..], &["tester", "true"]].concat(),
        "ipvlan interfaces do not support custom mac address assignment",
    )?;
    let access = ["network", "host-access", "ipv", "on"];
    refused(&access, "host access is for macvlan networks")?;

    let parent = link("eth1")?.unwrap()["address"].clone();
    let ear = [
        "tcpdump",
        "-Z",
        "root",
        "-lnc",
        "1",
        "-i",
        "eth0",
        "arp and src 10.0.2.5",
    ];
    let heard = std::thread::scope(|scope| -> Verdict<String> {
        let heard =
            scope.spawn(|| judge::on(&lan.gateway, &[&["timeout", "20"], &ear[..]].concat()));
        std::thread::sleep(Duration::from_secs(2));
        run("c1", "ipv", &["-p", "5000:5000", "--ip", "10.0.2.5"])?;
        Ok(heard.join().unwrap()?.success()?.stdout)
    })?;
    assert!(heard.contains("who-has 10.0.2.5 tell 10.0.2.5"), "{heard}");

    let eth0 = ip_in("c1", &["link", "show", "eth0"])?;
    assert_eq!(eth0[0]["address"], parent);
    assert_eq!(eth0[0]["linkinfo"]["info_kind"], "ipvlan");
    assert_eq!(eth0[0]["linkinfo"]["info_data"]["mode"], "l2");
    assert_eq!(endpoint("c1", "MacAddress")?, "");
    assert_eq!(endpoint("c1", "Gateway")?, "10.0.2.1");
    pings("c1", "10.0.2.1")?;
    let way = said(&["inspect", "-f", "{{json .Dockless.Published}}", "c1"])?;
    assert!(way.contains("proxy"), "{way}");
    for port in [Ipv4Addr::new(10, 0, 2, 4), Ipv4Addr::new(10, 0, 2, 5)] {
        let at = SocketAddrV4::new(port, 5000);
        let page = lan.gateway.get_soon(at, "/json", patience(5))?;
        assert!(page.body.contains("10.0.2.5"), "{}", page.body);
    }
    remove_all(&["c1"])?;
    remove("ipv")
}

fn modes_and_flags() -> Verdict {
    let _lan = lan(&["ipvlan"])?;
    for (mode, flag) in [("l2", "private"), ("l3", "vepa"), ("l3s", "bridge")] {
        let (mode_word, flag_word) = (format!("ipvlan_mode={mode}"), format!("ipvlan_flag={flag}"));
        let flags = ["-o", "parent=eth1", "-o", &mode_word, "-o", &flag_word];
        create("ipvlan", "ipv", &flags)?;
        run("c1", "ipv", &[])?;
        let eth0 = ip_in("c1", &["link", "show", "eth0"])?;
        let data = eth0[0]["linkinfo"]["info_data"].to_string();
        assert!(data.contains(&format!("\"{mode}\"")), "{data}");
        assert!(data.contains(flag), "{data}");
        remove_all(&["c1"])?;
        remove("ipv")?;
    }
    refused(
        &create_words(
            "ipvlan",
            "xx",
            &["-o", "parent=eth1", "-o", "ipvlan_mode=l4"],
        ),
        "requested ipvlan mode 'l4' is not valid",
    )?;
    refused(
        &create_words(
            "ipvlan",
            "xx",
            &["-o", "parent=eth1", "-o", "ipvlan_flag=hairpin"],
        ),
        "requested ipvlan flag 'hairpin' is not valid",
    )
}

/// From a gateway to the link itself and back, while the container runs.
fn default_route_moves() -> Verdict {
    let _lan = lan(&["vlan", "ipvlan"])?;
    let pool = ["--subnet=10.0.2.0/24", "--gateway=10.0.2.1"];
    create(
        "macvlan",
        "mac",
        &[&pool[..], &["-o", "parent=eth1"]].concat(),
    )?;
    let l3 = [&L3[..], &["-o", "parent=eth1.10", "--subnet=10.0.3.0/24"]].concat();
    create("ipvlan", "ipv", &l3)?;
    run("c1", "mac", &[])?;
    assert_eq!(default_routes("c1")?, ["via 10.0.2.1"]);
    let connect = ["network", "connect", "--gw-priority", "1", "ipv", "c1"];
    said(&connect)?;
    assert_eq!(default_routes("c1")?, ["dev eth1"]);
    // Each address's own table: through the gateway, and left to the host.
    for (from, dev, gateway) in [
        ("10.0.2.2", "eth0", Some("10.0.2.1")),
        ("10.0.3.1", "eth1", None),
    ] {
        let way = judge::ip_in("c1", &["route", "get", "192.0.2.1", "from", from])?;
        assert_eq!(way[0]["dev"], dev, "{way}");
        assert_eq!(way[0]["gateway"].as_str(), gateway, "{way}");
    }
    said(&["network", "disconnect", "ipv", "c1"])?;
    assert_eq!(default_routes("c1")?, ["via 10.0.2.1"]);
    said(&connect)?;
    said(&["network", "disconnect", "mac", "c1"])?;
    assert_eq!(default_routes("c1")?, ["dev eth1"]);
    remove_all(&["c1"])?;
    remove("mac")?;
    remove("ipv")
}
