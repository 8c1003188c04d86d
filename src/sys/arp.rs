//! The one ARP frame that is ever sent: a question (RFC 826), of which probe
//! and announcement (RFC 5227) are kinds. And the kernel's filter for those
//! that contradict one's own.

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
    question_to(MacAddr::BROADCAST, mac, tell, ip)
}

/// The same to one machine, as one that looks whether an entry of its ARP cache
/// still holds asks it (RFC 1122 §2.3.2.1).
pub fn question_to(to: MacAddr, mac: MacAddr, tell: Ipv4Addr, ip: Ipv4Addr) -> [u8; FRAME_LEN] {
    let own = EthernetAddress(mac.0);
    let ethernet = EthernetRepr {
        src_addr: own,
        dst_addr: EthernetAddress(to.0),
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

/// Where things are in an Ethernet frame with an IPv4 ARP packet.
mod at {
    /// Hardware 1 (Ethernet) and protocol 0x0800.
    pub(super) const KINDS: u32 = 14;
    /// Lengths 6 and 4.
    pub(super) const LENGTHS: u32 = 18;
    pub(super) const OPERATION: u32 = 20;
    pub(super) const SENDER_MAC: u32 = 22;
    pub(super) const SENDER_IP: u32 = 28;
    pub(super) const TARGET_IP: u32 = 38;
}

/// What [`contradictions`] lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Before the address is used (RFC 5227 §2.1.1): who says that it is
    /// theirs, and who probes for it, too.
    Probing,
    /// While it is used (§2.4): who says that it is theirs.
    Held,
}

/// A classic BPF program for a packet socket that is bound to ARP: it passes
/// the frames of others that contradict `mac` having `ip`; of everybody, where
/// that is nobody.
pub fn contradictions(mac: Option<MacAddr>, ip: Ipv4Addr, claim: Claim) -> Vec<libc::sock_filter> {
    let ip = u32::from(ip);
    let mut program = Program::default();
    program.unless_word(at::KINDS, 0x0001_0800, Program::DROP);
    program.unless_half(at::LENGTHS, 0x0604, Program::DROP);
    // Our own come back through loops and bonds.
    if let Some(MacAddr([a, b, c, d, e, f])) = mac {
        program.load_word(at::SENDER_MAC);
        program.jump_if(u32::from_be_bytes([a, b, c, d]), 0, 2);
        program.load_half(at::SENDER_MAC + 4);
        program.jump_to_if(u32::from(u16::from_be_bytes([e, f])), Program::DROP);
    }
    program.load_word(at::SENDER_IP);
    program.jump_to_if(ip, Program::PASS);
    if claim == Claim::Probing {
        program.jump_to_unless(0, Program::DROP);
        program.unless_half(at::OPERATION, 1, Program::DROP);
        program.load_word(at::TARGET_IP);
        program.jump_to_if(ip, Program::PASS);
    }
    program.done()
}

/// A program under way: the jumps to its end are filled in last.
#[derive(Default)]
struct Program {
    code: Vec<libc::sock_filter>,
    /// Instruction, whether when it is equal, and to where.
    open: Vec<(usize, bool, usize)>,
}

impl Program {
    const DROP: usize = 0;
    const PASS: usize = 1;

    fn push(&mut self, code: u32, k: u32, jt: u8, jf: u8) {
        let code = u16::try_from(code).unwrap_or_default();
        self.code.push(libc::sock_filter { code, jt, jf, k });
    }

    fn load_word(&mut self, at: u32) {
        self.push(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at, 0, 0);
    }

    fn load_half(&mut self, at: u32) {
        self.push(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, at, 0, 0);
    }

    fn jump_if(&mut self, value: u32, equal: u8, other: u8) {
        let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        self.push(code, value, equal, other);
    }

    fn jump_to_if(&mut self, value: u32, to: usize) {
        self.open.push((self.code.len(), true, to));
        self.jump_if(value, 0, 0);
    }

    fn jump_to_unless(&mut self, value: u32, to: usize) {
        self.open.push((self.code.len(), false, to));
        self.jump_if(value, 0, 0);
    }

    fn unless_word(&mut self, at: u32, value: u32, to: usize) {
        self.load_word(at);
        self.jump_to_unless(value, to);
    }

    fn unless_half(&mut self, at: u32, value: u32, to: usize) {
        self.load_half(at);
        self.jump_to_unless(value, to);
    }

    fn done(mut self) -> Vec<libc::sock_filter> {
        let end = self.code.len();
        for (from, equal, to) in self.open {
            let over = u8::try_from(end + to - from - 1).unwrap_or(u8::MAX);
            let instruction = &mut self.code[from];
            if equal {
                instruction.jt = over;
            } else {
                instruction.jf = over;
            }
        }
        for verdict in [0, u32::MAX] {
            let code = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap_or_default();
            let (jt, jf, k) = (0, 0, verdict);
            self.code.push(libc::sock_filter { code, jt, jf, k });
        }
        self.code
    }
}

/// What a frame says that [`contradictions`] has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    pub from: MacAddr,
    /// An interface, or all.
    pub to: MacAddr,
    /// It asks, and says of no address that it is the sender's.
    pub is_probe: bool,
}

pub fn said(frame: &[u8]) -> Option<Said> {
    fn part<const N: usize>(frame: &[u8], at: u32) -> Option<[u8; N]> {
        let at = usize::try_from(at).ok()?;
        frame.get(at..at + N)?.try_into().ok()
    }
    Some(Said {
        from: MacAddr(part(frame, at::SENDER_MAC)?),
        to: MacAddr(part(frame, 0)?),
        is_probe: part(frame, at::SENDER_IP)? == [0; 4],
    })
}

/// Passes nothing.
pub fn nothing() -> Vec<libc::sock_filter> {
    Program::default().done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fuzzing::passes;

    #[test]
    fn only_contradictions_pass() {
        let mac = |text: &str| text.parse::<MacAddr>().unwrap();
        let ip = |last| Ipv4Addr::new(10, 0, 2, last);
        let own = mac("02:42:0a:00:02:05");
        // Alike in the first four bytes, and in the last two.
        let others = ["02:42:0a:00:02:06", "02:42:0b:00:02:05"].map(mac);
        let probing = contradictions(Some(own), ip(5), Claim::Probing);
        let held = contradictions(Some(own), ip(5), Claim::Held);
        let anybodys = contradictions(None, ip(5), Claim::Probing);
        let zero = Ipv4Addr::UNSPECIFIED;
        assert!(passes(&anybodys, &question(own, zero, ip(5))));
        assert!(!passes(&anybodys, &question(own, zero, ip(6))));
        for other in others {
            for (frame, while_probing, while_held) in [
                // An announcement, a question in its name.
                (question(other, ip(5), ip(5)), true, true),
                (question(other, ip(5), ip(1)), true, true),
                (question(other, zero, ip(5)), true, false),
                (question(other, zero, ip(6)), false, false),
                (question(other, ip(6), ip(5)), false, false),
                (question(own, ip(5), ip(5)), false, false),
                (question(own, zero, ip(5)), false, false),
            ] {
                assert_eq!(passes(&probing, &frame), while_probing, "{frame:x?}");
                assert_eq!(passes(&held, &frame), while_held, "{frame:x?}");
                let said = said(&frame).unwrap();
                assert!(said.from == other || said.from == own);
                assert_eq!(said.is_probe, frame[28..32] == [0; 4]);
                assert!(!passes(&nothing(), &frame));
            }
            let mut answer = question(other, zero, ip(5));
            answer[21] = 2;
            assert_eq!(said(&answer).map(|s| s.to), Some(MacAddr([0xff; 6])));
            assert!(!passes(&probing, &answer), "a reply that tells nothing");
            let mut token_ring = question(other, ip(5), ip(5));
            token_ring[15] = 6;
            assert!(!passes(&held, &token_ring));
        }
    }
}
