//! The ICMP socket: an unprivileged ping socket (dockless opens
//! ping_group_range in every container), else a raw one. Wire format by
//! smoltcp.

use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, RecvMsg, SockFlag, SockProtocol, SockType,
    SockaddrStorage, connect, recvmsg, sendmsg, setsockopt, socket, sockopt,
};
use smoltcp::wire::{
    Icmpv4DstUnreachable, Icmpv4Message, Icmpv4Packet, Icmpv4TimeExceeded, Icmpv6DstUnreachable,
    Icmpv6Message, Icmpv6Packet, Icmpv6TimeExceeded, Ipv4Packet,
};

use super::{Failure, c_text};
use crate::base::{Family, OfFamily};

/// ICMP header; an echo's data follows.
const HEADER: usize = 8;
/// Largest IP packet.
const MAX_PACKET: usize = 65_535;

#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    target: IpAddr,
    /// A raw socket's echo identifier; a ping socket's is the kernel's.
    raw: Option<u16>,
    packet: Vec<u8>,
    buffer: Vec<u8>,
}

/// What came in.
#[derive(Debug)]
pub(super) enum Arrival {
    Reply(Reply),
    /// An ICMP error about one of our packets, in iputils' words.
    Refused {
        seq: u16,
        from: IpAddr,
        what: String,
    },
    /// The own machine could not send it.
    Local {
        what: String,
    },
}

#[derive(Debug)]
pub(super) struct Reply {
    pub seq: u16,
    pub ttl: Option<u8>,
    /// ICMP header and data.
    pub length: usize,
    /// What [`Socket::send`] put into the packet.
    pub stamp: Option<u64>,
}

impl Socket {
    pub(super) fn open(target: IpAddr) -> Result<Self, Failure> {
        probe_route(target)?;
        let (fd, raw) = match icmp(target, SockType::Datagram) {
            Ok(fd) => (fd, None),
            Err(first) => match icmp(target, SockType::Raw) {
                Ok(fd) => (fd, Some(identifier())),
                Err(_) => return Err(Failure::sys("socket", first)),
            },
        };
        let asked = match target.family() {
            Family::Ipv4 => setsockopt(&fd, sockopt::Ipv4RecvErr, &true)
                .and_then(|()| setsockopt(&fd, sockopt::Ipv4RecvTtl, &true)),
            Family::Ipv6 => setsockopt(&fd, sockopt::Ipv6RecvErr, &true)
                .and_then(|()| setsockopt(&fd, sockopt::Ipv6RecvHopLimit, &true)),
        };
        asked.map_err(|e| Failure::sys("setsockopt", e))?;
        Ok(Self {
            fd,
            target,
            raw,
            packet: Vec::new(),
            buffer: vec![0; MAX_PACKET],
        })
    }

    /// One echo request with `size` data bytes: `stamp` (as far as it fits),
    /// then a counting pattern.
    pub(super) fn send(&mut self, seq: u16, size: usize, stamp: u64) -> nix::Result<()> {
        self.packet.resize(HEADER + size, 0);
        if let Some(data) = self.packet.get_mut(HEADER..) {
            for (byte, value) in data.iter_mut().zip((0..=u8::MAX).cycle()) {
                *byte = value;
            }
            for (byte, value) in data.iter_mut().zip(stamp.to_ne_bytes()) {
                *byte = value;
            }
        }
        let ident = self.raw.unwrap_or_default();
        match self.target.family() {
            Family::Ipv4 => {
                let mut echo = Icmpv4Packet::new_unchecked(&mut self.packet);
                echo.set_msg_type(Icmpv4Message::EchoRequest);
                echo.set_msg_code(0);
                echo.set_echo_ident(ident);
                echo.set_echo_seq_no(seq);
                echo.fill_checksum();
            }
            // Its checksum needs the source address: it is the kernel's to fill
            // in, on raw sockets too (RFC 3542 §3.1).
            Family::Ipv6 => {
                let mut echo = Icmpv6Packet::new_unchecked(&mut self.packet);
                echo.set_msg_type(Icmpv6Message::EchoRequest);
                echo.set_msg_code(0);
                echo.set_echo_ident(ident);
                echo.set_echo_seq_no(seq);
            }
        }
        let to = SockaddrStorage::from(SocketAddr::new(self.target, 0));
        sendmsg(
            self.fd.as_raw_fd(),
            &[IoSlice::new(&self.packet)],
            &[],
            MsgFlags::empty(),
            Some(&to),
        )?;
        Ok(())
    }

    /// The next thing that waits, refusals first.
    pub(super) fn receive(&mut self) -> Result<Option<Arrival>, Failure> {
        loop {
            if let Some(queued) = self.queued()? {
                if let Some(arrival) = queued {
                    return Ok(Some(arrival));
                }
                continue; // about somebody else's packet
            }
            let mut control = cmsg_space!(i32);
            let mut iov = [IoSliceMut::new(&mut self.buffer)];
            let got: RecvMsg<'_, '_, SockaddrStorage> = match recvmsg(
                self.fd.as_raw_fd(),
                &mut iov,
                Some(&mut control),
                MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(got) => got,
                Err(nix::Error::EAGAIN) => return Ok(None),
                // Either a signal or a refusal whose details the queue has.
                Err(_) => match self.queued()? {
                    Some(Some(arrival)) => return Ok(Some(arrival)),
                    Some(None) => continue,
                    None => return Ok(None),
                },
            };
            let ttl = got.cmsgs().ok().and_then(|mut c| {
                c.find_map(|c| match c {
                    ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl) => {
                        u8::try_from(ttl).ok()
                    }
                    _ => None,
                })
            });
            let (bytes, from) = (got.bytes, got.address.as_ref().and_then(ip_of));
            if from == Some(self.target)
                && let Some(reply) = self.reply(&self.buffer[..bytes], ttl)
            {
                return Ok(Some(Arrival::Reply(reply)));
            }
        }
    }

    fn reply(&self, packet: &[u8], ttl: Option<u8>) -> Option<Reply> {
        match self.target.family() {
            Family::Ipv4 => parse_reply(packet, self.raw, ttl),
            Family::Ipv6 => parse_reply_v6(packet, self.raw, ttl),
        }
    }

    /// The sequence number of a request of ours that came back.
    fn own_request(&self, packet: &[u8]) -> Option<u16> {
        let (is_request, ident, seq) = match self.target.family() {
            Family::Ipv4 => {
                let echo = Icmpv4Packet::new_checked(packet).ok()?;
                let is_request = echo.msg_type() == Icmpv4Message::EchoRequest;
                (is_request, echo.echo_ident(), echo.echo_seq_no())
            }
            Family::Ipv6 => {
                let echo = Icmpv6Packet::new_checked(packet).ok()?;
                let is_request = echo.msg_type() == Icmpv6Message::EchoRequest;
                (is_request, echo.echo_ident(), echo.echo_seq_no())
            }
        };
        let is_ours = is_request && self.raw.is_none_or(|id| id == ident);
        is_ours.then_some(seq)
    }

    /// One entry of the error queue: `None` when it is empty, `Some(None)`
    /// when it was not about a packet of ours.
    fn queued(&mut self) -> Result<Option<Option<Arrival>>, Failure> {
        let mut control = cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6, i32);
        let mut iov = [IoSliceMut::new(&mut self.buffer)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let got: RecvMsg<'_, '_, SockaddrStorage> =
            match recvmsg(self.fd.as_raw_fd(), &mut iov, Some(&mut control), flags) {
                Ok(got) => got,
                Err(nix::Error::EAGAIN | nix::Error::EINTR) => return Ok(None),
                Err(e) => return Err(Failure::sys("recvmsg", e)),
            };
        let about = got.address.as_ref().and_then(ip_of);
        let error = got.cmsgs().ok().and_then(|mut c| {
            c.find_map(|c| match c {
                ControlMessageOwned::Ipv4RecvErr(error, from) => {
                    let ip = |a: libc::sockaddr_in| {
                        IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(a.sin_addr.s_addr)))
                    };
                    Some((error, from.map(ip)))
                }
                ControlMessageOwned::Ipv6RecvErr(error, from) => {
                    let ip =
                        |a: libc::sockaddr_in6| IpAddr::V6(Ipv6Addr::from(a.sin6_addr.s6_addr));
                    Some((error, from.map(ip)))
                }
                _ => None,
            })
        });
        let bytes = got.bytes;
        let Some((error, from)) = error else {
            return Ok(Some(None));
        };
        if error.ee_origin == libc::SO_EE_ORIGIN_LOCAL {
            let errno = i32::try_from(error.ee_errno).unwrap_or(libc::EIO);
            let what = match errno {
                libc::EMSGSIZE => format!("message too long, mtu={}", error.ee_info),
                _ => c_text(nix::Error::from_raw(errno)),
            };
            return Ok(Some(Some(Arrival::Local { what })));
        }
        let (origin, unknown): (u8, IpAddr) = match self.target.family() {
            Family::Ipv4 => (libc::SO_EE_ORIGIN_ICMP, Ipv4Addr::UNSPECIFIED.into()),
            Family::Ipv6 => (libc::SO_EE_ORIGIN_ICMP6, Ipv6Addr::UNSPECIFIED.into()),
        };
        if error.ee_origin != origin || about != Some(self.target) {
            return Ok(Some(None));
        }
        let Some(seq) = self.own_request(&self.buffer[..bytes]) else {
            return Ok(Some(None));
        };
        Ok(Some(Some(Arrival::Refused {
            seq,
            from: from.unwrap_or(unknown),
            what: match self.target.family() {
                Family::Ipv4 => describe(error.ee_type, error.ee_code, error.ee_info),
                Family::Ipv6 => describe_v6(error.ee_type, error.ee_code, error.ee_info),
            },
        })))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn icmp(target: IpAddr, kind: SockType) -> nix::Result<OwnedFd> {
    let protocol = match target.family() {
        Family::Ipv4 => SockProtocol::Icmp,
        Family::Ipv6 => SockProtocol::IcmpV6,
    };
    socket(domain(target), kind, SockFlag::SOCK_CLOEXEC, protocol)
}

fn domain(target: IpAddr) -> AddressFamily {
    match target.family() {
        Family::Ipv4 => AddressFamily::Inet,
        Family::Ipv6 => AddressFamily::Inet6,
    }
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    v4.or_else(|| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())))
}

/// iputils' "connect: Network is unreachable" before the first line: connecting
/// a UDP socket asks the routing table and sends nothing.
fn probe_route(target: IpAddr) -> Result<(), Failure> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let to = SockaddrStorage::from(SocketAddr::new(target, 1025));
    socket(domain(target), SockType::Datagram, flags, None)
        .and_then(|fd| connect(fd.as_raw_fd(), &to))
        .map_err(|e| match e {
            nix::Error::EACCES => Failure::new(2, format!("{target} is a broadcast address")),
            e => Failure::sys("connect", e),
        })
}

/// Tells this raw socket's echoes from another's. Two pings of one namespace
/// that took the same would count each other's answers as duplicates.
fn identifier() -> u16 {
    crate::sys::random::bytes().map_or_else(
        |_| u16::try_from(std::process::id() & 0xffff).unwrap_or_default(),
        u16::from_ne_bytes,
    )
}

/// An echo reply; a raw socket's packet has its IP header in front.
fn parse_reply(packet: &[u8], raw: Option<u16>, ttl: Option<u8>) -> Option<Reply> {
    let (icmp, ttl) = match raw {
        None => (packet, ttl),
        Some(_) => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            let header = usize::from(ip.header_len());
            (packet.get(header..)?, Some(ip.hop_limit()))
        }
    };
    let echo = Icmpv4Packet::new_checked(icmp).ok()?;
    if echo.msg_type() != Icmpv4Message::EchoReply || raw.is_some_and(|id| id != echo.echo_ident())
    {
        return None;
    }
    let stamp = echo.data().first_chunk().copied();
    Some(Reply {
        seq: echo.echo_seq_no(),
        ttl,
        length: icmp.len(),
        stamp: stamp.map(u64::from_ne_bytes),
    })
}

/// An echo reply; raw ICMPv6 sockets get no IP header.
fn parse_reply_v6(packet: &[u8], raw: Option<u16>, ttl: Option<u8>) -> Option<Reply> {
    let echo = Icmpv6Packet::new_checked(packet).ok()?;
    if echo.msg_type() != Icmpv6Message::EchoReply || raw.is_some_and(|id| id != echo.echo_ident())
    {
        return None;
    }
    let stamp = packet
        .get(HEADER..)
        .and_then(|data| data.first_chunk().copied());
    Some(Reply {
        seq: echo.echo_seq_no(),
        ttl,
        length: packet.len(),
        stamp: stamp.map(u64::from_ne_bytes),
    })
}

/// iputils' words for an ICMPv6 error.
fn describe_v6(kind: u8, code: u8, info: u32) -> String {
    use Icmpv6DstUnreachable as Dst;
    let words = match (Icmpv6Message::from(kind), code) {
        (Icmpv6Message::DstUnreachable, code) => match Dst::from(code) {
            Dst::NoRoute => "Destination unreachable: No route",
            Dst::AdminProhibit => "Destination unreachable: Administratively prohibited",
            Dst::BeyondScope => "Destination unreachable: Beyond scope of source address",
            Dst::AddrUnreachable => "Destination unreachable: Address unreachable",
            Dst::PortUnreachable => "Destination unreachable: Port unreachable",
            _ => return format!("Destination unreachable: Unknown code {code}"),
        },
        (Icmpv6Message::PktTooBig, _) => return format!("Packet too big: mtu={info}"),
        (Icmpv6Message::TimeExceeded, code) => match Icmpv6TimeExceeded::from(code) {
            Icmpv6TimeExceeded::HopLimitExceeded => "Time exceeded: Hop limit",
            Icmpv6TimeExceeded::FragReassemExceeded => "Time exceeded: Defragmentation failure",
            Icmpv6TimeExceeded::Unknown(code) => return format!("Time exceeded: code {code}"),
        },
        (other, _) => return format!("unknown icmp type: {}", u8::from(other)),
    };
    words.to_owned()
}

/// iputils' words for an ICMP error.
fn describe(kind: u8, code: u8, info: u32) -> String {
    use Icmpv4DstUnreachable as Dst;
    let words = match (Icmpv4Message::from(kind), code) {
        (Icmpv4Message::DstUnreachable, code) => match Dst::from(code) {
            Dst::NetUnreachable => "Destination Net Unreachable",
            Dst::HostUnreachable => "Destination Host Unreachable",
            Dst::ProtoUnreachable => "Destination Protocol Unreachable",
            Dst::PortUnreachable => "Destination Port Unreachable",
            Dst::FragRequired => return format!("Frag needed and DF set (mtu = {info})"),
            Dst::SrcRouteFailed => "Source Route Failed",
            Dst::DstNetUnknown => "Destination Net Unknown",
            Dst::DstHostUnknown => "Destination Host Unknown",
            Dst::SrcHostIsolated => "Source Host Isolated",
            Dst::NetProhibited => "Destination Net Prohibited",
            Dst::HostProhibited => "Destination Host Prohibited",
            Dst::NetUnreachToS => "Destination Net Unreachable for Type of Service",
            Dst::HostUnreachToS => "Destination Host Unreachable for Type of Service",
            Dst::CommProhibited => "Packet filtered",
            Dst::HostPrecedViol => "Precedence Violation",
            Dst::PrecedCutoff => "Precedence Cutoff",
            Dst::Unknown(code) => return format!("Dest Unreachable, Bad Code: {code}"),
        },
        (Icmpv4Message::TimeExceeded, code) => match Icmpv4TimeExceeded::from(code) {
            Icmpv4TimeExceeded::TtlExpired => "Time to live exceeded",
            Icmpv4TimeExceeded::FragExpired => "Frag reassembly time exceeded",
            Icmpv4TimeExceeded::Unknown(code) => {
                return format!("Time exceeded, Bad Code: {code}");
            }
        },
        (other, _) => return format!("Bad ICMP type: {}", u8::from(other)),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_iputils() {
        assert_eq!(describe(3, 1, 0), "Destination Host Unreachable");
        assert_eq!(describe(3, 13, 0), "Packet filtered");
        assert_eq!(describe(3, 4, 1400), "Frag needed and DF set (mtu = 1400)");
        assert_eq!(describe(11, 0, 0), "Time to live exceeded");
        let unreachable = "Destination unreachable: Address unreachable";
        assert_eq!(describe_v6(1, 3, 0), unreachable);
        assert_eq!(describe_v6(2, 0, 1280), "Packet too big: mtu=1280");
        assert_eq!(describe_v6(3, 0, 0), "Time exceeded: Hop limit");
    }

    #[test]
    fn replies_of_both_kinds_of_socket() {
        let mut icmp = vec![0u8; 8 + 16];
        let mut echo = Icmpv4Packet::new_unchecked(&mut icmp);
        echo.set_msg_type(Icmpv4Message::EchoReply);
        echo.set_msg_code(0);
        echo.set_echo_ident(7);
        echo.set_echo_seq_no(3);
        echo.data_mut()[..8].copy_from_slice(&99u64.to_ne_bytes());
        let reply = parse_reply(&icmp, None, Some(64)).unwrap();
        assert_eq!((reply.seq, reply.length, reply.stamp), (3, 24, Some(99)));

        let mut raw = vec![
            0x45, 0, 0, 44, 0, 0, 0, 0, 61, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        raw.extend_from_slice(&icmp);
        let reply = parse_reply(&raw, Some(7), None).unwrap();
        assert_eq!((reply.seq, reply.ttl), (3, Some(61)));
        assert!(parse_reply(&raw, Some(8), None).is_none(), "another ping's");
        assert!(parse_reply(&raw[..10], Some(7), None).is_none());
        assert!(parse_reply(&icmp[..4], None, None).is_none());
    }
}
