//! Announcements, as Docker 28+ sends them. IPv4: a broadcast ARP request with
//! sender = target = the own address (RFC 5227 §3). IPv6: an unsolicited
//! neighbour advertisement to all nodes (RFC 4861 §7.2.6). Wire format by
//! smoltcp; both go out by a packet socket, which needs neither a route nor a
//! multicast membership.
//!
//! The first one goes out before the container's program starts, so that
//! neighbours on the LAN that still have an old MAC for the address answer the
//! program's first packet; the supervisor sends the others.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::base::{Error, MacAddr, Result, Subject};
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::{arp, nd, raw};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send};

/// A packet socket on one interface of a sandbox and the frame to send.
#[derive(Debug)]
pub struct Announcer {
    socket: OwnedFd,
    ip: IpAddr,
    frame: Box<[u8]>,
}

impl Announcer {
    pub fn new(netns: &Netns<Sandbox>, ifindex: u32, mac: MacAddr, ip: IpAddr) -> Result<Self> {
        // Protocol 0: the socket receives nothing, so it never fills up and
        // never wakes anybody.
        let socket = netns.socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            0,
        )?;
        let failed = |errno| Error::sys("announce address", Subject::Addr(ip.to_string()), errno);
        let ifindex = i32::try_from(ifindex).map_err(|_| failed(Errno::ENODEV))?;
        raw::bind_packet(socket.as_fd(), 0, ifindex).map_err(failed)?;
        Ok(Self {
            socket,
            ip,
            frame: match ip {
                IpAddr::V4(ip) => Box::new(arp::question(mac, ip, ip)),
                IpAddr::V6(ip) => Box::new(nd::advertisement(mac, ip)),
            },
        })
    }

    /// Sends one announcement. ENETDOWN (no carrier yet) is `Ok(false)`.
    pub fn send(&self) -> Result<bool> {
        match send(self.socket.as_raw_fd(), &self.frame, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => Ok(true),
            Err(Errno::ENETDOWN) => Ok(false),
            Err(errno) => {
                let ip = Subject::Addr(self.ip.to_string());
                Err(Error::sys("announce address", ip, errno))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Flags 0x20, hop limit 255 and the target's link-layer address; the
    /// checksum is what tshark calls good.
    #[test]
    fn advertisement_on_the_wire() {
        let mac: MacAddr = "02:42:0a:00:02:05".parse().unwrap();
        let bytes = nd::advertisement(mac, "fd00::5".parse().unwrap());
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let (own, all) = (
            "fd000000000000000000000000000005",
            "ff020000000000000000000000000001",
        );
        assert_eq!(
            text,
            format!(
                "33330000000102420a00020586dd60000000002 03aff{own}{all}88004e4d200\
                 00000{own}0201 02420a000205"
            )
            .replace(' ', "")
        );
    }

    /// Docker 29's fields in RFC 826's layout.
    #[test]
    fn announcement_on_the_wire() {
        let mac: MacAddr = "02:42:0a:00:02:05".parse().unwrap();
        let ip = Ipv4Addr::new(10, 0, 2, 5);
        let bytes = arp::question(mac, ip, ip);
        let text: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            text,
            concat!(
                "ffffffffffff",
                "02420a000205",
                "0806", // broadcast, own MAC, ARP
                "0001",
                "0800",
                "06",
                "04",
                "0001", // Ethernet, IPv4, request
                "02420a000205",
                "0a000205", // sender
                "000000000000",
                "0a000205", // target
            )
        );
    }
}
