//! Captures on one interface: what tcpdump would show, as values.
//!
//! A packet socket that is bound to the interface keeps the frames in its
//! buffer (some hundred of them) until they are asked for; no thread, no file.
//! On a macvlan's parent it sees both directions, as tcpdump does: the kernel
//! hands frames to packet sockets before a macvlan takes them and after it
//! gave them.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet,
    IpProtocol, Ipv4Packet, TcpPacket,
};

use super::Machine;
use crate::base::{Error, MacAddr, Result};
use crate::sys::raw;

const ETH_P_ALL: u16 = 3;
/// Longer than any frame here; GSO frames are cut, their headers are not.
const FRAME: usize = 2048;

/// Frames of one interface since [`Capture::start`].
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
    seen: Vec<Frame>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub from: MacAddr,
    pub to: MacAddr,
    pub content: Content,
}

/// What a frame carries, as far as tests and the demo look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// `mac` and `ip` say who sends it.
    Arp {
        question: bool,
        mac: MacAddr,
        ip: Ipv4Addr,
        about: Ipv4Addr,
    },
    Tcp {
        from: SocketAddrV4,
        to: SocketAddrV4,
        syn: bool,
        ack: bool,
        bytes: usize,
    },
    /// An ICMP echo.
    Echo {
        request: bool,
        from: Ipv4Addr,
        to: Ipv4Addr,
    },
    /// EtherType or, of an IPv4 packet, `None`.
    Other(Option<u16>),
}

impl Capture {
    /// On the machine's own link.
    pub fn start(machine: &Machine) -> Result<Self> {
        let link = machine
            .rtnl()?
            .link(machine.ifname.as_str())?
            .ok_or_else(|| Error::sys("capture on", &machine.ifname, libc::ENODEV))?;
        let socket = packet_socket(machine, ETH_P_ALL, link.index.get())?;
        Ok(Self {
            socket,
            seen: Vec::new(),
        })
    }

    /// Everything so far.
    pub fn frames(&mut self) -> Result<&[Frame]> {
        self.drain()?;
        Ok(&self.seen)
    }

    /// Waits until `enough` says so of everything so far; false if it did not
    /// within `limit`.
    pub fn wait(&mut self, limit: Duration, enough: impl Fn(&[Frame]) -> bool) -> Result<bool> {
        let end = Instant::now() + limit;
        loop {
            self.drain()?;
            if enough(&self.seen) {
                return Ok(true);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            readable(&self.socket, left)?;
        }
    }

    fn drain(&mut self) -> Result<()> {
        let mut bytes = [0; FRAME];
        loop {
            match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => self.seen.extend(Frame::parse(&bytes[..length])),
                Err(nix::Error::EAGAIN) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(Error::sys("capture", "frames", e)),
            }
        }
    }
}

/// A packet socket born in the machine's network and bound to one interface.
pub(super) fn packet_socket(machine: &Machine, ethertype: u16, index: u32) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    // Protocol 0 until it is bound, or it would collect from all interfaces.
    let socket = machine
        .netns
        .socket(AddressFamily::Packet, SockType::Raw, flags, 0)?;
    let failed = |e| Error::sys("bind packet socket to", &machine.ifname, e);
    let index = i32::try_from(index).map_err(|_| failed(nix::Error::ENODEV))?;
    raw::bind_packet(socket.as_fd(), ethertype, index).map_err(failed)?;
    Ok(socket)
}

pub(super) fn readable(socket: &OwnedFd, limit: Duration) -> Result<()> {
    let ms = limit.as_micros().div_ceil(1000);
    let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
    match poll(
        &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
        timeout,
    ) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(()),
        Err(e) => Err(Error::sys("wait for", "frames", e)),
    }
}

impl Frame {
    /// `None` for what is no Ethernet frame.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let frame = EthernetFrame::new_checked(bytes).ok()?;
        let payload = frame.payload();
        let content = match frame.ethertype() {
            EthernetProtocol::Arp => arp(payload),
            EthernetProtocol::Ipv4 => ipv4(payload),
            other => Some(Content::Other(Some(other.into()))),
        };
        Some(Self {
            from: MacAddr(frame.src_addr().0),
            to: MacAddr(frame.dst_addr().0),
            content: content.unwrap_or(Content::Other(Some(frame.ethertype().into()))),
        })
    }
}

fn arp(payload: &[u8]) -> Option<Content> {
    let packet = ArpPacket::new_checked(payload).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let question = operation == ArpOperation::Request;
    Some(Content::Arp {
        question,
        mac: MacAddr(source_hardware_addr.0),
        ip: source_protocol_addr,
        about: if question {
            target_protocol_addr
        } else {
            source_protocol_addr
        },
    })
}

fn ipv4(payload: &[u8]) -> Option<Content> {
    // Not new_checked: a cut GSO frame is shorter than its header says.
    let header = usize::from(payload.first()? & 0xf) * 4;
    if payload.len() < header.max(20) {
        return None;
    }
    let ip = Ipv4Packet::new_unchecked(payload);
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let inner = payload.get(header..)?;
    Some(match ip.next_header() {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(inner).ok()?;
            let headers = header + usize::from(tcp.header_len());
            Content::Tcp {
                from: SocketAddrV4::new(from, tcp.src_port()),
                to: SocketAddrV4::new(to, tcp.dst_port()),
                syn: tcp.syn(),
                ack: tcp.ack(),
                bytes: usize::from(ip.total_len()).saturating_sub(headers),
            }
        }
        IpProtocol::Icmp => match Icmpv4Packet::new_checked(inner).ok()?.msg_type() {
            kind @ (Icmpv4Message::EchoRequest | Icmpv4Message::EchoReply) => Content::Echo {
                request: kind == Icmpv4Message::EchoRequest,
                from,
                to,
            },
            _ => Content::Other(None),
        },
        _ => Content::Other(None),
    })
}

/// tcpdump's words, more or less.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}  ", self.from, self.to)?;
        match &self.content {
            Content::Arp {
                question: true,
                ip,
                about,
                ..
            } => write!(f, "ARP who-has {about} tell {ip}"),
            Content::Arp { mac, about, .. } => write!(f, "ARP {about} is-at {mac}"),
            Content::Tcp {
                from,
                to,
                syn,
                ack,
                bytes,
            } => {
                let flags = match (syn, ack) {
                    (true, false) => "SYN",
                    (true, true) => "SYN ACK",
                    (false, true) => "ACK",
                    (false, false) => "-",
                };
                write!(f, "TCP {from} > {to} {flags} length {bytes}")
            }
            Content::Echo { request, from, to } => {
                let what = if *request { "request" } else { "reply" };
                write!(f, "ICMP {from} > {to} echo {what}")
            }
            Content::Other(Some(kind)) => write!(f, "ethertype {kind:#06x}"),
            Content::Other(None) => f.write_str("IPv4"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn arp_question_and_answer() {
        let question = Frame::parse(&bytes(
            "ffffffffffff 021a0a000207 0806 0001 0800 06 04 0001
             021a0a000207 0a000207 000000000000 0a000205",
        ));
        assert_eq!(
            question.unwrap().to_string(),
            "02:1a:0a:00:02:07 > ff:ff:ff:ff:ff:ff  ARP who-has 10.0.2.5 tell 10.0.2.7"
        );
        let answer = Frame::parse(&bytes(
            "021a0a000207 02420a000205 0806 0001 0800 06 04 0002
             02420a000205 0a000205 021a0a000207 0a000207",
        ));
        assert_eq!(
            answer.unwrap().to_string(),
            "02:42:0a:00:02:05 > 02:1a:0a:00:02:07  ARP 10.0.2.5 is-at 02:42:0a:00:02:05"
        );
    }

    #[test]
    fn syn_and_rubbish() {
        let syn = Frame::parse(&bytes(
            "02420a000205 021a0a000207 0800
             45000028 00004000 40060000 0a000207 0a000205
             9c401388 00000001 00000000 5002ffff 00000000",
        ))
        .unwrap();
        assert_eq!(
            syn.to_string(),
            "02:1a:0a:00:02:07 > 02:42:0a:00:02:05  TCP 10.0.2.7:40000 > 10.0.2.5:5000 SYN length 0"
        );
        assert!(Frame::parse(&[0; 5]).is_none());
        for cut in 14..50 {
            let whole = bytes(
                "02420a000205 021a0a000207 0800
                 45000028 00004000 40060000 0a000207 0a000205
                 9c401388 00000001 00000000 5002ffff 00000000",
            );
            let _ = Frame::parse(&whole[..cut.min(whole.len())]);
        }
    }
}
