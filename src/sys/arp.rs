//! The one ARP frame that is ever sent: a question (RFC 826), of which probe
//! and announcement (RFC 5227) are kinds.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr,
};

use crate::base::MacAddr;

/// Ethernet header and ARP packet.
pub const FRAME_LEN: usize = 14 + 28;

/// Who has `ip`? to everybody. `tell` is the asker's address: 0.0.0.0 in a
/// probe, `ip` itself in an announcement. The target MAC is zero, as in RFC 5227
/// and in Docker's.
pub fn question(mac: MacAddr, tell: Ipv4Addr, ip: Ipv4Addr) -> [u8; FRAME_LEN] {
    let own = EthernetAddress(mac.0);
    let ethernet = EthernetRepr {
        src_addr: own,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: own,
        source_protocol_addr: tell,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: ip,
    };
    let mut bytes = [0; FRAME_LEN];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}
