//! Addresses that the LAN gives, on ipvlan l2: its links have their parent's
//! MAC, and to a DHCP server their client ids alone tell them apart.

use super::*;
use crate::dhcp::{
    DECLINE, DISCOVER, RELEASE, REQUEST, Wire, address, dnsmasq, kea, kea_lifetime, lease,
};
use crate::judge::{eventually, inside};

pub(super) fn tests() -> Vec<Test> {
    let dnsmasq: &[&str] = &["ip", "nsenter", "ping", "dnsmasq", "tshark"];
    let kea: &[&str] = &["ip", "nsenter", "ping", "kea-dhcp4", "tshark"];
    vec![
        Test::new(by_dhcp_on_one_mac)
            .needs(&["ip", "nsenter", "ping", "dnsmasq", "tshark", "python3"]),
        Test::new(kea_tells_them_apart).needs(kea),
        Test::new(an_address_that_somebody_has_is_declined).needs(dnsmasq),
        Test::new(the_machine_s_own_address_is_left_to_it).needs(dnsmasq),
        Test::new(the_parent_s_mac_changes).needs(dnsmasq),
    ]
    .into_iter()
    .map(|test| test.limit_s(120))
    .collect()
}

fn by_dhcp() -> Verdict {
    create(
        "ipvlan",
        "lan",
        &["--ipam-driver=dhcp", "-o", "parent=eth1"],
    )
}

fn mac_of_parent() -> Verdict<String> {
    let eth1 = link("eth1")?.unwrap();
    Ok(eth1["address"].as_str().unwrap_or_default().to_owned())
}

/// What its guard has dropped.
pub(super) fn dropped(name: &str) -> Verdict<Value> {
    let template = "{{json .Dockless.Links.lan}}";
    let link: Value = serde_json::from_str(&said(&["inspect", "-f", template, name])?)?;
    assert_eq!(link["Guard"], "on");
    Ok(link["Dropped"].clone())
}

fn by_dhcp_on_one_mac() -> Verdict {
    let lan = lan_of(0, &["ipvlan"])?;
    let mac = mac_of_parent()?;
    let server = dnsmasq(&lan, 50, 99, &[])?;
    let wire = Wire::tap(&lan.gateway)?;
    by_dhcp()?;
    for name in ["c1", "c2"] {
        run(name, "lan", &[])?;
    }
    let (one, two) = (address("c1")?, address("c2")?);
    assert!(one.starts_with("10.0.2.") && two.starts_with("10.0.2."));
    assert_ne!(one, two);
    for (name, ip) in [("c1", &one), ("c2", &two)] {
        let known = lease(name)?;
        assert_eq!(known["State"], "BOUND");
        assert_eq!(server.client_of(ip).as_deref(), known["ClientID"].as_str());
        assert_eq!(default_routes(name)?, ["via 10.0.2.1"]);
        judge::on(&lan.gateway, &["ping", "-c1", "-W2", ip])?.success()?;
    }
    pings("c1", &two)?;
    pings("c2", &one)?;

    // Both by the parent's MAC, and answered by broadcast.
    let fields = ["dhcp.hw.mac_addr", "dhcp.flags.bc", "eth.src"];
    for row in wire.read("dhcp.type == 1", &fields)? {
        assert_eq!((&row[0], &row[2]), (&mac, &mac));
        assert!(["1", "True"].contains(&row[1].as_str()), "{row:?}");
    }
    for row in wire.read("dhcp.type == 2", &["ip.dst", "eth.dst"])? {
        assert_eq!(row, ["255.255.255.255", "ff:ff:ff:ff:ff:ff"]);
    }
    assert_eq!(wire.asked(DISCOVER)?.len(), 2);
    assert_eq!(wire.asked(REQUEST)?.len(), 2);

    // The guard has held nothing of that back, and holds a server's back.
    assert_eq!(dropped("c1")?, serde_json::json!({}));
    let forge = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
                 s.bind(('0.0.0.0', 67)); s.sendto(b'x' * 300, ('10.0.2.1', 68))";
    inside("c1", &["python3", "-c", forge])?;
    assert_eq!(dropped("c1")?, serde_json::json!({"DHCP": 1}));
    assert!(
        wire.read(
            &format!("udp.srcport == 67 && ip.src == {one}"),
            &["ip.src"]
        )?
        .is_empty()
    );

    // INIT-REBOOT.
    said(&["stop", "-t0", "c1"])?;
    said(&["start", "c1"])?;
    assert_eq!(address("c1")?, one);
    assert_eq!(wire.asked(DISCOVER)?.len(), 2);
    let reboot = ["0.0.0.0", &one, "", "255.255.255.255"].map(str::to_owned);
    assert_eq!(wire.asked(REQUEST)?[2..], [reboot]);

    // Given back by one that does not run, and by one that does.
    said(&["stop", "-t0", "c1"])?;
    remove_all(&["c1"])?;
    eventually("it is said", 5, || Ok(wire.asked(RELEASE)?.len() == 1))?;
    remove_all(&["c2"])?;
    eventually("it is said", 5, || Ok(wire.asked(RELEASE)?.len() == 2))?;
    let goodbye = |ip: &str| [ip, "", "10.0.2.1", "10.0.2.1"].map(str::to_owned);
    assert_eq!(wire.asked(RELEASE)?, [goodbye(&one), goodbye(&two)]);
    eventually("the server knows", 5, || Ok(server.known().is_empty()))?;

    // Made again, they are the same clients.
    run("c2", "lan", &[])?;
    run("c1", "lan", &[])?;
    assert_eq!((address("c1")?, address("c2")?), (one, two));
    remove_all(&["c1", "c2"])?;
    remove("lan")
}

/// It renews by UDP, to the address that the link has then.
fn kea_tells_them_apart() -> Verdict {
    let lan = lan_of(0, &["ipvlan"])?;
    let server = kea(&lan, 50, 59, 12)?;
    let wire = Wire::tap(&lan.gateway)?;
    by_dhcp()?;
    for name in ["c1", "c2"] {
        run(name, "lan", &[])?;
    }
    let (one, two) = (address("c1")?, address("c2")?);
    assert_ne!(one, two);
    let expires = |name: &str| -> Verdict<Value> { Ok(lease(name)?["Expires"].clone()) };
    let first = (expires("c1")?, expires("c2")?);
    eventually("both are renewed", 8, || {
        Ok(expires("c1")? != first.0 && expires("c2")? != first.1)
    })?;
    let asked = wire.asked(REQUEST)?;
    for (name, ip) in [("c1", &one), ("c2", &two)] {
        assert_eq!(address(name)?, *ip);
        assert_eq!(lease(name)?["State"], "BOUND");
        let renewal = [ip, "", "", "10.0.2.1"].map(str::to_owned);
        assert!(asked.contains(&renewal), "{asked:?}");
        assert_eq!(dropped(name)?, serde_json::json!({}));
    }
    let unicast = wire.read("dhcp.type == 1 && ip.dst == 10.0.2.1", &["dhcp.flags.bc"])?;
    assert!(
        unicast
            .iter()
            .all(|row| ["0", "False"].contains(&row[0].as_str()))
    );
    remove_all(&["c1", "c2"])?;
    for ip in [&one, &two] {
        eventually("Kea knows", 3, || {
            Ok(kea_lifetime(&server, ip).as_deref() == Some("0"))
        })?;
    }
    remove("lan")
}

/// Another machine, then a foreign ipvlan of the same parent: it has the same
/// MAC.
fn an_address_that_somebody_has_is_declined() -> Verdict {
    let lan = lan_of(1, &["ipvlan"])?;
    let mac = mac_of_parent()?;
    let server = dnsmasq(&lan, 50, 99, &[])?;
    by_dhcp()?;
    run("web", "lan", &[])?;
    let first = address("web")?;
    remove_all(&["web"])?;
    let addr = format!("{first}/24");
    let add = ["ip", "addr", "add", &addr, "dev", "eth0"];
    judge::on(&lan.others[0], &add)?.success()?;
    let wire = Wire::tap(&lan.gateway)?;
    run("web", "lan", &[])?;
    let second = address("web")?;
    assert!(second.starts_with("10.0.2.") && second != first, "{second}");
    let decline = |ip: &str| ["0.0.0.0", ip, "10.0.2.1", "255.255.255.255"].map(str::to_owned);
    assert_eq!(wire.asked(DECLINE)?, [decline(&first)]);
    let log = server.log();
    assert!(log.contains("DHCPDECLINE"), "{log}");
    remove_all(&["web"])?;

    run("by", "none", &[])?;
    let pid = judge::pid_of("by")?;
    ip(&[
        "link", "add", "link", "eth1", "name", "by0", "type", "ipvlan", "mode", "l2",
    ])?;
    ip(&["link", "set", "by0", "netns", &pid])?;
    let addr = format!("{second}/24");
    inside("by", &["ip", "addr", "add", &addr, "dev", "by0"])?.success()?;
    inside("by", &["ip", "link", "set", "by0", "up"])?.success()?;
    run("web", "lan", &[])?;
    let third = address("web")?;
    assert!(![&first, &second].contains(&&third), "{third}");
    assert_eq!(wire.asked(DECLINE)?, [decline(&first), decline(&second)]);
    let known = lease("web")?;
    let why = format!("{second} was declined: {mac} has it");
    assert_eq!(known["LastError"], *why);
    remove_all(&["web", "by"])?;
    remove("lan")
}

/// A server that goes by MACs: it offers what it has given to the machine.
fn the_machine_s_own_address_is_left_to_it() -> Verdict {
    let lan = lan_of(0, &["ipvlan"])?;
    let reserved = format!("--dhcp-host={},10.0.2.4", mac_of_parent()?);
    let _server = dnsmasq(&lan, 50, 99, &[&reserved])?;
    let wire = Wire::tap(&lan.gateway)?;
    by_dhcp()?;
    let run = ask(&["run", "--rm", "--network=lan", "tester", "true"])?;
    assert_eq!(run.code, Some(125));
    let why = "no lease (server 10.0.2.1 offers 10.0.2.4, which this machine itself has";
    assert!(run.stderr.contains(why), "{}", run.stderr);
    assert!(wire.asked(REQUEST)?.is_empty() && wire.asked(DECLINE)?.is_empty());
    judge::on(&lan.gateway, &["ping", "-c1", "-W2", "10.0.2.4"])?.success()?;
    remove("lan")
}

/// The server hears it at once, and answers reach it.
fn the_parent_s_mac_changes() -> Verdict {
    let lan = lan_of(0, &["ipvlan"])?;
    let server = dnsmasq(&lan, 50, 99, &[])?;
    by_dhcp()?;
    run("web", "lan", &[])?;
    let had = address("web")?;
    // It looks at its parent for the first time a moment after the start.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mac = "02:00:00:00:00:77";
    ip(&["link", "set", "eth1", "address", mac])?;
    eventually("the server knows", 10, || {
        Ok(server
            .known()
            .iter()
            .any(|line| line.contains(&format!(" {mac} {had} "))))
    })?;
    eventually("it is through", 5, || Ok(lease("web")?["State"] == "BOUND"))?;
    assert_eq!(address("web")?, had);
    assert_eq!(dropped("web")?, serde_json::json!({}));
    judge::on(&lan.gateway, &["ping", "-c1", "-W2", &had])?.success()?;
    remove_all(&["web"])?;
    eventually("the server knows", 5, || Ok(server.known().is_empty()))?;
    remove("lan")
}
