//! The sockets of a client, each there only as long as it is needed: frames
//! with DHCP answers for one MAC (before there is an address, nothing else can
//! receive), ARP, and UDP to a server that is known.
//!
//! *Two ways out.* Before it has an address, and when it asks everybody, it
//! sends frames. A renewal goes by UDP: so the kernel finds the server's MAC,
//! by the container's routes, and answers nobody with "port unreachable". What
//! comes back is read from the frames in both cases: one reader.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt};
use nix::sys::socket::{SockaddrIn, bind, sockopt};
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetFrame};

use crate::base::{Error, IfName, MacAddr, Result, Subject};
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::{arp, boottime, raw};

const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);
const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const CLIENT: u16 = 68;
const SERVER: u16 = 67;
/// The largest frame that is taken; a longer one is cut off, and then nothing.
pub(super) const FRAME: usize = 2048;
/// How long a datagram may wait for the server's MAC.
const LEAVE: Duration = Duration::from_millis(500);

/// The interface in the container's namespace.
#[derive(Debug)]
pub struct Port {
    pub netns: Netns<Sandbox>,
    pub ifindex: u32,
    pub ifname: IfName,
    pub mac: MacAddr,
    /// An ipvlan's.
    pub shared: Option<Shared>,
}

/// What an ipvlan has its MAC of.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Its parent, a link of the host's.
    pub parent: u32,
    /// The host's own addresses. Frames to one that the ipvlan had, too, would
    /// all be the ipvlan's.
    pub addrs: Vec<Ipv4Addr>,
}

impl Port {
    fn failed(&self, op: &'static str) -> impl Fn(Errno) -> Error {
        let name = self.ifname.to_string();
        move |errno| Error::sys(op, Subject::Link(name.clone()), errno)
    }

    fn packet(&self, ethertype: u16, filter: Option<&[libc::sock_filter]>) -> Result<OwnedFd> {
        // Protocol 0 until the filter is there: nothing else comes in.
        let socket = self
            .netns
            .socket(AddressFamily::Packet, SockType::Raw, FLAGS, 0)?;
        attach(&socket, self.ifindex, ethertype, filter).map_err(self.failed("listen on"))?;
        Ok(socket)
    }

    /// Hears an ipvlan's parent.
    fn on_parent(
        &self,
        shared: &Shared,
        ethertype: u16,
        filter: Option<&[libc::sock_filter]>,
    ) -> Result<OwnedFd> {
        let flags = libc::SOCK_RAW | FLAGS.bits();
        let attached = |socket: OwnedFd| {
            attach(&socket, shared.parent, ethertype, filter)?;
            Ok(socket)
        };
        raw::socket(libc::AF_PACKET, flags, 0)
            .and_then(attached)
            .map_err(self.failed("listen on the parent of"))
    }

    /// Hear a server's answers to this MAC. What comes to an ipvlan's, but to
    /// no address of one, is its parent's: answers to an address that is still
    /// to be had, and Kea's, which are for every address, but for that MAC.
    pub(super) fn answers(&self) -> Result<Vec<OwnedFd>> {
        let filter = filter(self.mac);
        let mut all = vec![self.packet(ETH_P_IP, Some(&filter))?];
        if let Some(shared) = &self.shared {
            all.push(self.on_parent(shared, ETH_P_IP, Some(&filter))?);
        }
        Ok(all)
    }

    /// Sends a frame; hears nothing.
    pub(super) fn shout(&self, frame: &[u8]) -> Result<()> {
        let socket = self.packet(0, None)?;
        self.send(&socket, frame)
    }

    /// A link without carrier, or a full queue, loses it: it is sent again.
    pub(super) fn send(&self, socket: &OwnedFd, frame: &[u8]) -> Result<()> {
        match send(socket.as_raw_fd(), frame, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) | Err(Errno::ENETDOWN | Errno::ENOBUFS | Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(self.failed("send DHCP message on")(errno)),
        }
    }

    /// From `ip`, which the interface has. On this interface, whichever way
    /// the container's routes would go.
    pub(super) fn udp(&self, ip: Ipv4Addr) -> Result<UdpSocket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = self
            .netns
            .socket(AddressFamily::Inet, SockType::Datagram, flags, 0)?;
        let failed = self.failed("send DHCP message on");
        // A DHCP client of the container's own may have the port.
        setsockopt(&socket, sockopt::ReuseAddr, &true).map_err(&failed)?;
        let name = std::ffi::OsString::from(self.ifname.as_str());
        setsockopt(&socket, sockopt::BindToDevice, &name).map_err(&failed)?;
        let addr = SockaddrIn::from(std::net::SocketAddrV4::new(ip, CLIENT));
        bind(socket.as_raw_fd(), &addr).map_err(&failed)?;
        Ok(UdpSocket::from(socket))
    }

    pub(super) fn prober(&self, ip: Ipv4Addr) -> Result<Prober> {
        let ear = self.shared.as_ref();
        let ear = ear
            .map(|s| self.on_parent(s, ETH_P_ARP, None))
            .transpose()?;
        let own = if ear.is_none() { ETH_P_ARP } else { 0 };
        let mut prober = Prober {
            mouth: self.packet(own, None)?,
            ear,
            ip,
            left: QUESTIONS,
            next: Duration::ZERO,
        };
        prober.on_time(self, boottime::now()?)?;
        Ok(prober)
    }
}

fn attach(
    socket: &OwnedFd,
    ifindex: u32,
    ethertype: u16,
    filter: Option<&[libc::sock_filter]>,
) -> nix::Result<()> {
    if let Some(filter) = filter {
        raw::attach_filter(socket.as_fd(), filter)?;
    }
    let ifindex = i32::try_from(ifindex).map_err(|_| Errno::ENODEV)?;
    raw::bind_packet(socket.as_fd(), ethertype, ifindex)
}

/// To the server's port, by the kernel's routes and neighbours.
pub(super) fn unicast(socket: &UdpSocket, bytes: &[u8], server: Ipv4Addr) -> Result<()> {
    match socket.send_to(bytes, (IpAddr::V4(server), SERVER)) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::sys(
            "send DHCP message to",
            Subject::Addr(server.to_string()),
            e,
        )),
    }
}

/// Until what was sent has left, or for as long as that may take.
pub(super) fn flush(socket: &UdpSocket) {
    let end = Instant::now() + LEAVE;
    while raw::unsent(socket.as_fd()).is_ok_and(|bytes| bytes > 0) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One frame's length; `None`: there is no more.
pub(super) fn next(socket: &OwnedFd, bytes: &mut [u8; FRAME]) -> Option<usize> {
    loop {
        match recv(socket.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => return Some(length.min(FRAME)),
            // Also an interface that went down meanwhile, said once.
            Err(Errno::EINTR | Errno::ENETDOWN) => {}
            Err(_) => return None,
        }
    }
}

const LENGTH: usize = 15;
/// In a jump: to the last instruction, which leaves the packet.
const LEAVE_IT: u8 = u8::MAX;

/// IPv4, whole, UDP to port 68, for this hardware address: in the kernel, so
/// that a LAN's traffic wakes nobody.
pub(super) fn filter(mac: MacAddr) -> [libc::sock_filter; LENGTH] {
    const HALF_AT: u16 = 0x28; // A = half word at k
    const BYTE_AT: u16 = 0x30;
    const HALF: u16 = 0x48; // A = half word at X + k
    const WORD: u16 = 0x40;
    const HEADER: u16 = 0xb1; // X = 4 × (byte at k & 15)
    const IF_EQ: u16 = 0x15;
    const IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    let [a, b, c, d, e, f] = mac.0;
    let program: [(u16, u8, u8, u32); LENGTH] = [
        (HALF_AT, 0, 0, 12),
        (IF_EQ, 0, LEAVE_IT, u32::from(ETH_P_IP)),
        (BYTE_AT, 0, 0, 23),
        (IF_EQ, 0, LEAVE_IT, 17),
        (HALF_AT, 0, 0, 20),
        (IF_SET, LEAVE_IT, 0, 0x3fff),
        (HEADER, 0, 0, 14),
        (HALF, 0, 0, 16),
        (IF_EQ, 0, LEAVE_IT, u32::from(CLIENT)),
        // chaddr: 28 bytes into the message, behind Ethernet's 14, UDP's 8.
        (WORD, 0, 0, 50),
        (IF_EQ, 0, LEAVE_IT, u32::from_be_bytes([a, b, c, d])),
        (HALF, 0, 0, 54),
        (IF_EQ, 0, LEAVE_IT, u32::from(u16::from_be_bytes([e, f]))),
        (RETURN, 0, 0, u32::MAX),
        (RETURN, 0, 0, 0),
    ];
    let mut last = u8::try_from(LENGTH).unwrap_or(u8::MAX);
    program.map(|(code, yes, no, k)| {
        last -= 1;
        // Jumps count from the next instruction.
        let to = |jump: u8| match jump {
            LEAVE_IT => last - 1,
            near => near,
        };
        libc::sock_filter {
            code,
            jt: to(yes),
            jf: to(no),
            k,
        }
    })
}

/// Questions, and how long an answer may take: all of it is time in which a
/// container waits for its start.
const QUESTIONS: u8 = 2;
const APART: Duration = Duration::from_millis(120);

/// Asks whether anybody has an address (RFC 5227's probe, in little time).
#[derive(Debug)]
pub(super) struct Prober {
    mouth: OwnedFd,
    /// `None`: the mouth hears for itself.
    ear: Option<OwnedFd>,
    ip: Ipv4Addr,
    left: u8,
    next: Duration,
}

impl Prober {
    pub(super) fn deadline(&self) -> Duration {
        self.next
    }

    /// Asks (again); `true`: it was silent for long enough.
    pub(super) fn on_time(&mut self, port: &Port, now: Duration) -> Result<bool> {
        if now < self.next {
            return Ok(false);
        }
        if self.left == 0 {
            return Ok(true);
        }
        self.left -= 1;
        self.next = now + APART;
        let question = arp::question(port.mac, Ipv4Addr::UNSPECIFIED, self.ip);
        port.send(&self.mouth, &question).map(|()| false)
    }

    /// Whoever says that it has the address, or is about to.
    pub(super) fn holder(&self, port: &Port) -> Option<MacAddr> {
        let mut bytes = [0; FRAME];
        while let Some(length) = next(self.ear(), &mut bytes) {
            if let Some(claim) = claims(&bytes[..length], self.ip) {
                // An answer by the shared MAC is that of another ipvlan there.
                let is_beside = self.ear.is_some() && claim.is_answer;
                if claim.mac != port.mac || is_beside {
                    return Some(claim.mac);
                }
            }
        }
        None
    }

    fn ear(&self) -> &OwnedFd {
        self.ear.as_ref().unwrap_or(&self.mouth)
    }
}

impl AsFd for Prober {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ear().as_fd()
    }
}

/// Who says that an address is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimant {
    pub(super) mac: MacAddr,
    is_answer: bool,
}

/// RFC 5227 §2.1.1: the sender has it, or asks for it as we do.
pub(super) fn claims(frame: &[u8], wanted: Ipv4Addr) -> Option<Claimant> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let packet = ArpPacket::new_checked(frame.payload()).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac,
        source_protocol_addr: sender,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let is_probe = operation == ArpOperation::Request && sender.is_unspecified();
    (sender == wanted || is_probe && target == wanted).then_some(Claimant {
        mac: MacAddr(mac.0),
        is_answer: operation == ArpOperation::Reply,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_claims_an_address() {
        let (ip, other) = (Ipv4Addr::new(10, 0, 2, 5), Ipv4Addr::new(10, 0, 2, 6));
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let nobody = Ipv4Addr::UNSPECIFIED;
        let claim = |is_answer| Some(Claimant { mac, is_answer });
        let mut frame = arp::question(mac, ip, other);
        assert_eq!(claims(&frame, ip), claim(false));
        frame[21] = 2;
        assert_eq!(claims(&frame, ip), claim(true));
        assert_eq!(claims(&arp::question(mac, nobody, ip), ip), claim(false));
        assert_eq!(claims(&arp::question(mac, other, ip), ip), None);
        let frame = arp::question(mac, ip, ip);
        for length in 0..frame.len() {
            let _ = claims(&frame[..length], ip);
        }
    }

    #[test]
    fn jumps_stay_in_the_filter() {
        for (at, one) in filter(MacAddr([2; 6])).iter().enumerate() {
            let longest = usize::from(one.jt.max(one.jf));
            assert!(longest == 0 || at + 1 + longest == LENGTH - 1);
        }
    }
}
