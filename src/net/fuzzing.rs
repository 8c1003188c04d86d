//! ARP and neighbour discovery from a hostile LAN, for the fuzzer: see
//! `docs/fuzzing.md`.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::dhcp::fuzzing::claims;
use super::doctor;
use super::ip6::Named;
use crate::base::MacAddr;
use crate::base::fuzzing::Input;
use crate::sys::arp::{self, Claim};
use crate::sys::fuzzing::passes as filter_passes;

const OWN: MacAddr = MacAddr([2, 0x42, 0x0a, 0, 2, 5]);
const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 5);

/// A frame, against RFC 5227 read once more: who contradicts, and who does not.
pub fn arp(frame: &[u8]) {
    doctor::fuzzing::hear(frame, OWN);
    let passes = |claim| filter_passes(&arp::contradictions(Some(OWN), IP, claim), frame);
    let (probing, held) = (passes(Claim::Probing), passes(Claim::Held));
    assert!(probing || !held, "more is heard while it is probed for");
    let place = |from: usize, to: usize| frame.get(from..to).unwrap_or_default();
    let is_others =
        frame.len() >= 32 && place(14, 20) == [0, 1, 8, 0, 6, 4] && place(22, 28) != OWN.0;
    let sender = place(28, 32);
    let says_so = is_others && sender == IP.octets();
    let probes =
        is_others && sender == [0; 4] && place(20, 22) == [0, 1] && place(38, 42) == IP.octets();
    assert_eq!(held, says_so);
    assert_eq!(probing, says_so || probes);
    if probing {
        let said = arp::said(frame).expect("a contradiction has a sender");
        assert_ne!(said.from, OWN);
        assert_eq!(said.is_probe, !says_so);
    }
    // The DHCP client's own look, by the library.
    if let Some(mac) = claims(frame, IP) {
        assert_eq!(arp::said(frame).map(|said| said.from), Some(mac));
        assert!(mac == OWN || probing || place(12, 14) != [8, 6]);
    }
}

/// Options of router advertisements, as the kernel hands them on, and time.
pub fn nd(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut now = Instant::now();
    let mut named = Named::default();
    while !input.is_empty() {
        let pause = input.byte();
        now += Duration::from_secs(u64::from(pause) * u64::from(pause));
        // A length that is none is the option's own to see through.
        let length = usize::from(input.byte());
        let option = input.take(length);
        // Whoever keeps them is woken for it.
        named.expire(now);
        let before = (named.servers(), named.search());
        named.hear(option, now);
        check_named(&named, now);
        if !matches!(option.first(), Some(25 | 31)) {
            assert_eq!((named.servers(), named.search()), before);
        }
    }
    named.expire(now + Duration::from_secs(u64::from(u32::MAX)));
    assert_eq!(named.deadline(), None, "only what is for ever stays");
}

fn check_named(named: &Named, now: Instant) {
    assert!(named.servers().len() <= 6 && named.search().len() <= 6);
    assert!(named.deadline().is_none_or(|at| at > now));
    for ip in named.servers() {
        let is_host = !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast());
        assert!(is_host && !ip.is_unicast_link_local(), "{ip}");
    }
    for name in named.search() {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        assert!(!name.is_empty() && name.len() <= 253 && name.chars().all(is_plain));
    }
}

#[cfg(test)]
mod tests {
    use crate::base::fuzzing::replay;

    #[test]
    fn corpus_of_arp() {
        replay("arp", super::arp);
    }

    #[test]
    fn corpus_of_nd() {
        replay("nd", super::nd);
    }
}
