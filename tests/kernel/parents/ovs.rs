//! A port of Open vSwitch, made by generic netlink as ovs-vswitchd(8) does
//! (linux/openvswitch.h); there is no other program in it.

use std::os::fd::{AsRawFd, OwnedFd};

use dockless::netlink::wire;
use dockless::sys::raw;
use nix::sys::socket::{MsgFlags, recv, send};

use super::*;

pub(super) fn tests() -> Vec<Test> {
    vec![Test::new(a_port_of_open_vswitch)]
}

/// A socket of NETLINK_GENERIC.
struct Generic(OwnedFd);

/// GENL_ID_CTRL, CTRL_CMD_GETFAMILY and its attributes (linux/genetlink.h).
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
/// OVS_DP_CMD_NEW and OVS_VPORT_CMD_NEW
const NEW: u8 = 1;

impl Generic {
    fn open() -> Verdict<Self> {
        let generic = libc::NETLINK_GENERIC;
        Ok(Self(raw::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW,
            generic,
        )?))
    }

    /// Asks, and gives back the payload of the answer, or the errno. `header`
    /// is the family's own.
    fn ask(
        &self,
        family: u16,
        (command, version): (u8, u8),
        header: &[u8],
        attrs: &[(u16, &[u8])],
    ) -> Verdict<Result<Vec<u8>, i32>> {
        let mut request = Vec::new();
        let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK)?;
        let at = wire::begin(&mut request, family, flags, 1);
        request.extend_from_slice(&[command, version, 0, 0]);
        request.extend_from_slice(header);
        for (kind, value) in attrs {
            request.extend_from_slice(&u16::try_from(4 + value.len())?.to_ne_bytes());
            request.extend_from_slice(&kind.to_ne_bytes());
            request.extend_from_slice(value);
            request.resize(wire::align(request.len()), 0);
        }
        wire::end(&mut request, at);
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answer = Vec::new();
        loop {
            let mut buffer = [0; 8192];
            let len = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for message in wire::messages(&buffer[..len]) {
                let message = message.map_err(|e| crate::harness::Stop::Failed(e.0.to_owned()))?;
                if message.kind != 2 {
                    answer = message.payload.to_vec();
                    continue;
                }
                // NLMSG_ERROR: zero is the ACK.
                let errno = i32::from_ne_bytes(message.payload[..4].try_into()?);
                return Ok(if errno == 0 { Ok(answer) } else { Err(-errno) });
            }
        }
    }

    /// A family's number; the kernel loads its module.
    fn family(&self, name: &str) -> Verdict<u16> {
        let name = format!("{name}\0");
        let attrs = [(FAMILY_NAME, name.as_bytes())];
        match self.ask(CONTROL, (GET_FAMILY, 1), &[], &attrs)? {
            Ok(answer) => Ok(wire::u16_of(wire::find(&answer[4..], FAMILY_ID).unwrap()).unwrap()),
            Err(libc::ENOENT) => skipped("this kernel has no Open vSwitch"),
            Err(errno) => failed(nix::errno::Errno::from_raw(errno)),
        }
    }
}

/// The switch's name is that of a link for packets of its own, too.
fn a_port_of_open_vswitch() -> Verdict {
    let _lan = Lab::here(0)?;
    let generic = Generic::open()?;
    let datapath = generic.family("ovs_datapath")?;
    let vport = generic.family("ovs_vport")?;
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
