//! Docker's macvlan integration tests (docker-macvlan.md §9.1).

use super::*;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(persistence),
        Test::new(subinterface),
        Test::new(overlap_parent),
        Test::new(overlap_delete_created_second),
        Test::new(overlap_parent_passthru_first),
        Test::new(overlap_parent_passthru_second),
        Test::new(overlap_keep_existing_parent),
        Test::new(nil_parent),
        Test::new(internal_mode),
        Test::new(multi_subnet_with_parent),
        Test::new(multi_subnet_no_parent),
        Test::new(addressing),
        Test::new(macvlan_ipam),
        Test::new(macvlan_ipam_overlap),
        Test::new(point_to_point),
        Test::new(endpoint_with_custom_ifname),
        Test::new(parent_down),
    ]
}

fn persistence() -> Verdict {
    dummy("dm-dummy0", &["vlan"])?;
    create("macvlan", "dm-net", &["-o", "parent=dm-dummy0.60"])?;
    assert!(is_available("dm-net")?);
    reboot(&["dm-dummy0.60"])?;
    assert!(is_available("dm-net")?);
    run("c1", "dm-net", &[])?;
    assert!(is_there("dm-dummy0.60")?);
    remove_all(&["c1"])?;
    remove("dm-net")
}

fn subinterface() -> Verdict {
    dummy("dm-dummy0", &["vlan"])?;
    let add = ["link", "add", "link", "dm-dummy0", "name", "dm-dummy0.20"];
    ip(&[&add[..], &["type", "vlan", "id", "20"]].concat())?;
    create("macvlan", "dm-sub", &["-o", "parent=dm-dummy0.20"])?;
    assert!(is_available("dm-sub")?);
    remove("dm-sub")?;
    assert!(!is_available("dm-sub")?);
    assert!(is_there("dm-dummy0.20")?);
    Ok(())
}

/// Removed in this order: the VLAN goes with the last one.
fn overlap_removed(order: [&str; 2]) -> Verdict {
    dummy("dm-dummy0", &["vlan"])?;
    for name in ["dm-one", "dm-two"] {
        create("macvlan", name, &["-o", "parent=dm-dummy0.40"])?;
    }
    remove(order[0])?;
    assert!(is_there("dm-dummy0.40")?);
    remove(order[1])?;
    assert!(!is_there("dm-dummy0.40")?);
    assert!(is_there("dm-dummy0")?);
    Ok(())
}

fn overlap_parent() -> Verdict {
    overlap_removed(["dm-two", "dm-one"])
}

fn overlap_delete_created_second() -> Verdict {
    overlap_removed(["dm-one", "dm-two"])
}

fn passthru_overlap(modes: [&str; 2], phrase: &str) -> Verdict {
    dummy("dm-dummy0", &[])?;
    let words = |mode| ["-o", "parent=dm-dummy0", "-o", mode];
    create("macvlan", "dm-one", &words(modes[0]))?;
    refused(&create_words("macvlan", "dm-two", &words(modes[1])), phrase)?;
    remove("dm-one")?;
    assert!(is_there("dm-dummy0")?);
    Ok(())
}

fn overlap_parent_passthru_first() -> Verdict {
    let modes = ["macvlan_mode=passthru", "macvlan_mode=bridge"];
    passthru_overlap(
        modes,
        "is already using parent interface dm-dummy0 in mode passthru",
    )
}

fn overlap_parent_passthru_second() -> Verdict {
    let modes = ["macvlan_mode=bridge", "macvlan_mode=passthru"];
    passthru_overlap(modes, "cannot use mode passthru, macvlan network")
}

fn overlap_keep_existing_parent() -> Verdict {
    dummy("dm-dummy0", &[])?;
    for name in ["dm-one", "dm-two"] {
        create("macvlan", name, &["-o", "parent=dm-dummy0"])?;
    }
    remove("dm-one")?;
    assert!(is_there("dm-dummy0")?);
    remove("dm-two")?;
    assert!(is_there("dm-dummy0")?);
    Ok(())
}

fn nil_parent() -> Verdict {
    dummy("dm-dummy0", &[])?;
    nil_parent_of("macvlan", "dm-", &[])
}

fn internal_mode() -> Verdict {
    dummy("dm-dummy0", &[])?;
    internal_mode_of("macvlan", &[])
}

fn multi_subnet_with_parent() -> Verdict {
    dummy("dm-dummy0", &["vlan"])?;
    multi_subnet_of("macvlan", &["-o", "parent=dm-dummy0.100"], "172.28.202.254")?;
    assert!(!is_there("dm-dummy0.100")?);
    Ok(())
}

fn multi_subnet_no_parent() -> Verdict {
    dummy("dm-dummy0", &[])?;
    multi_subnet_of("macvlan", &[], "")
}

/// No gateway, no default route: in the one family, not the other.
fn addressing() -> Verdict {
    dummy("dm-dummy0", &[])?;
    let v4 = ["--subnet=172.28.130.0/24", "-o", "parent=dm-dummy0"];
    let v6 = [
        "--ipv6",
        "--subnet=2001:db8:abca::/64",
        "--gateway=2001:db8:abca::254",
    ];
    create("macvlan", "dm-addr", &[&v4[..], &v6].concat())?;
    run("c1", "dm-addr", &[])?;
    assert_eq!(default_routes("c1")?, [""; 0]);
    assert_eq!(default_routes_in("c1", "-6")?, ["via 2001:db8:abca::254"]);
    remove_all(&["c1"])?;
    remove("dm-addr")
}

/// Gateway and one auxiliary address count, and what lies out of the range.
fn macvlan_ipam() -> Verdict {
    dummy("dm-dummy0", &[])?;
    let v4 = [
        "--subnet=10.66.77.0/24",
        "--ip-range=10.66.77.64/30",
        "--gateway=10.66.77.1",
        "--aux-address=in=10.66.77.65",
        "--aux-address=out=10.66.77.128",
    ];
    let v6 = [
        "--ipv6",
        "--subnet=2001:db8:abcd::/64",
        "--ip-range=2001:db8:abcd::/120",
    ];
    families_of("macvlan", &[], (&v4, (6, 2)), (&v6, (2, 254)))
}

fn macvlan_ipam_overlap() -> Verdict {
    dummy("dm-dummy0", &[])?;
    ipam_overlap_of("macvlan", &[])
}

fn point_to_point() -> Verdict {
    dummy("dm-dummy0", &[])?;
    point_to_point_of("macvlan", &[])
}

fn endpoint_with_custom_ifname() -> Verdict {
    dummy("dm-dummy0", &["vlan"])?;
    custom_ifname_of("macvlan", "parent=dm-dummy0.60")
}

fn parent_down() -> Verdict {
    let tun = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    if let Err(error) = tun {
        return crate::harness::skipped(format!("/dev/net/tun: {error}"));
    }
    ip(&["link", "set", "lo", "up"])?;
    judge::run(&["ip", "tuntap", "add", "tap0", "mode", "tap"])?.success()?;
    ip(&["link", "set", "tap0", "up"])?;
    create("macvlan", "tap-net", &["--ipv6", "-o", "parent=tap0"])?;
    run("c1", "tap-net", &[])?;
    remove_all(&["c1"])?;
    remove("tap-net")
}
