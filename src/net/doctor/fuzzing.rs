//! What `doctor` hears, for the fuzzer.

use std::net::Ipv4Addr;

use super::{dhcp, probe};
use crate::base::MacAddr;

/// Any frame.
pub fn hear(frame: &[u8], mac: MacAddr) {
    let _ = dhcp::offer(frame, mac, 7);
    if let Some(answer) = probe::answer(frame) {
        // ARP's own places: sender's MAC and address, a reply.
        assert_eq!(frame[20..22], [0, 2]);
        assert_eq!(frame[22..28], answer.mac.0);
        let ip = Ipv4Addr::new(frame[28], frame[29], frame[30], frame[31]);
        assert_eq!(answer.ip, ip);
    }
}
