//! A port of Open vSwitch, made by generic netlink as ovs-vswitchd(8) does
//! (linux/openvswitch.h); there is no other program in it.

use super::*;
use crate::generic::Generic;

pub(super) fn tests() -> Vec<Test> {
    vec![Test::new(a_port_of_open_vswitch)]
}

/// OVS_DP_CMD_NEW and OVS_VPORT_CMD_NEW
const NEW: u8 = 1;

/// The switch's name is that of a link for packets of its own, too.
fn a_port_of_open_vswitch() -> Verdict {
    let _lan = Lab::here(0)?;
    let generic = Generic::open()?;
    let missing = "this kernel has no Open vSwitch";
    let datapath = generic.family("ovs_datapath", missing)?;
    let vport = generic.family("ovs_vport", missing)?;
    // OVS_DP_ATTR_NAME, OVS_DP_ATTR_UPCALL_PID
    let attrs: [(u16, &[u8]); 2] = [(1, b"switch0\0"), (2, &[0; 4])];
    generic.ask(datapath, (NEW, 2), &[0; 4], &attrs)?.unwrap();
    let switch = link("switch0")?.unwrap();
    assert_eq!(switch["linkinfo"]["info_kind"], "openvswitch");
    let index = i32::try_from(switch["ifindex"].as_i64().unwrap())?.to_ne_bytes();
    // OVS_VPORT_ATTR_TYPE (a link of the kernel's), _NAME, _UPCALL_PID
    let netdev = 1_u32.to_ne_bytes();
    let attrs: [(u16, &[u8]); 3] = [(2, &netdev), (3, b"eth1\0"), (5, &[0; 4])];
    generic.ask(vport, (NEW, 1), &index, &attrs)?.unwrap();

    let [verdict, found, advice] = diagnosis("eth1", "port")?;
    assert_eq!(verdict, "problem", "{found}");
    assert_eq!(found, "eth1 is a port of the openvswitch switch0");
    assert!(advice.contains("ovs-vsctl add-port"), "{advice}");
    assert!(advice.contains("type=internal"), "{advice}");
    let [verdict, found, _] = diagnosis("eth1", "rx handler")?;
    assert_eq!(verdict, "problem");
    assert_eq!(found, "switch0 takes all frames");
    let parent = ["--subnet=10.0.2.0/24", "-o", "parent=eth1"];
    create("macvlan", "under", &parent)?;
    let run = ["run", "--rm", "--network", "under", "tester", "ip", "link"];
    refused(&run, &advice)?;
    remove("under")?;

    // What the advice says: an internal port is a parent like any other.
    let internal = 2_u32.to_ne_bytes();
    let attrs: [(u16, &[u8]); 3] = [(2, &internal), (3, b"lan0\0"), (5, &[0; 4])];
    generic.ask(vport, (NEW, 1), &index, &attrs)?.unwrap();
    ip(&["link", "set", "lan0", "up"])?;
    assert_eq!(diagnosis("lan0", "port")?[0], "ok");
    assert_eq!(diagnosis("lan0", "link")?[0], "ok");
    let parent = ["--subnet=10.0.3.0/24", "-o", "parent=lan0"];
    create("macvlan", "over", &parent)?;
    self::run("web", "over", &[])?;
    let eth0 = ip_in("web", &["link", "show", "eth0"])?;
    assert_eq!(eth0[0]["linkinfo"]["info_kind"], "macvlan");
    remove_all(&["web"])?;
    remove("over")
}
