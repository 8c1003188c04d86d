//! A name on a LAN of liars, for the fuzzer: see `docs/fuzzing.md`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use simple_dns::rdata::RData;
use simple_dns::{Packet, PacketFlag};

use super::machine::{Machine, Send, To};
use super::{PORT, Subject};
use crate::base::fuzzing::Input;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 5);
const SIBLING: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);

/// Messages from near and far, and time.
pub fn mdns(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut now = Instant::now();
    let subject = Subject {
        name: "web".to_owned(),
        addrs: vec!["10.0.2.5/24".parse().expect("an address")],
        siblings: vec![SIBLING.into()],
    };
    let mut machine = Machine::new(subject, now);
    // Since the name was last in doubt.
    let mut probes = 0;
    while !input.is_empty() {
        let (was_ours, deadline) = (machine.is_announced(), machine.deadline());
        let before = machine.name().to_owned();
        let from = match input.byte() {
            0 => {
                now = machine.deadline().unwrap_or(now).max(now);
                None
            }
            1 => {
                now += Duration::from_millis(100) * input.byte().into();
                None
            }
            2 => Some(([10, 0, 2, 9], PORT)),
            3 => Some(([10, 0, 2, 9], 40_000)),
            4 => Some(([192, 0, 2, 9], 40_000)),
            _ => Some(([192, 0, 2, 9], PORT)),
        };
        match from {
            None => {
                probes += u32::from(on_time(&mut machine, now));
                assert!(was_ours || !machine.is_announced() || probes == 3);
                assert_eq!(machine.name(), before, "nobody has it");
            }
            Some(from) => {
                let from = SocketAddr::from(from);
                let heard = input.part();
                let told = machine.hear(heard, from, now);
                check_told(&told, heard, from);
                assert!(told.is_empty() || was_ours, "it is not ours yet");
                let is_claim = heard.get(2).is_some_and(|flags| flags & 0x80 != 0);
                if machine.name() != before {
                    assert!(is_claim && !was_ours && from.port() == PORT);
                }
                if machine.name() != before || machine.deadline() != deadline {
                    probes = 0;
                }
            }
        }
        check_name(machine.name());
        let wait = machine
            .deadline()
            .map(|at| at.saturating_duration_since(now));
        assert!(wait.is_none_or(|wait| wait <= Duration::from_secs(5)));
    }
}

/// Was it a probe?
fn on_time(machine: &mut Machine, now: Instant) -> bool {
    let said = machine.on_time(now);
    assert!(machine.deadline().is_none_or(|at| at > now), "it spins");
    said.is_some_and(|said| {
        let packet = Packet::parse(&said).expect("our own message");
        !packet.has_flags(PacketFlag::RESPONSE)
    })
}

fn check_told(told: &[Send], heard: &[u8], from: SocketAddr) {
    assert!(told.len() <= 2, "one to the peer, one to all");
    for send in told {
        let is_near = from.ip().to_string().starts_with("10.0.2.");
        assert!(is_near || send.to == To::Group, "nobody far is written to");
        assert!(heard[2] & 0x80 == 0, "an answer to an answer");
        let packet = Packet::parse(&send.bytes).expect("our own message");
        assert!(packet.has_flags(PacketFlag::RESPONSE));
        assert!(!packet.answers.is_empty());
        for record in packet.answers.iter().chain(&packet.additional_records) {
            if let RData::A(a) = &record.rdata {
                assert_eq!(Ipv4Addr::from(a.address), OWN);
            }
            assert!(!matches!(record.rdata, RData::AAAA(_)), "there is none");
        }
    }
}

fn check_name(name: &str) {
    let label = name.strip_suffix(".local").expect("of the LAN");
    assert!(label.starts_with("web") && label.len() <= 63, "{name}");
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus_of_mdns() {
        crate::base::fuzzing::replay("mdns", super::mdns);
    }
}
