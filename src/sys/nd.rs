//! The one Neighbor Discovery message that is ever sent: an unsolicited
//! neighbour advertisement (RFC 4861 §7.2.6). Wire format by smoltcp.

use std::net::Ipv6Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use crate::base::MacAddr;

/// ICMPv6 header, target, and the option with the MAC.
const MESSAGE_LEN: usize = 8 + 16 + 8;
/// Ethernet, IPv6 and the message.
pub const FRAME_LEN: usize = 14 + 40 + MESSAGE_LEN;

/// `ip` is at `mac`, to ff02::1: hop limit 255, override set, neither router
/// nor solicited, as Docker 28+ sends it.
pub fn advertisement(mac: MacAddr, ip: Ipv6Addr) -> [u8; FRAME_LEN] {
    let own = EthernetAddress(mac.0);
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let ethernet = EthernetRepr {
        src_addr: own,
        // RFC 2464 §7
        dst_addr: EthernetAddress([0x33, 0x33, 0, 0, 0, 1]),
        ethertype: EthernetProtocol::Ipv6,
    };
    let ipv6 = Ipv6Repr {
        src_addr: ip,
        dst_addr: all_nodes,
        next_header: IpProtocol::Icmpv6,
        payload_len: MESSAGE_LEN,
        hop_limit: 255,
    };
    let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::OVERRIDE,
        target_addr: ip,
        lladdr: Some(RawHardwareAddress::from(own)),
    });
    let mut bytes = [0; FRAME_LEN];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
    ipv6.emit(&mut packet);
    message.emit(
        &ip,
        &all_nodes,
        &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
        &ChecksumCapabilities::default(),
    );
    bytes
}
