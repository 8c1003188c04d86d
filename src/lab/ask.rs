//! Questions that a machine of the lab puts to the network: a web page, and
//! who answers for an address.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv, send};

use super::Machine;
use super::capture::{Content, Frame, packet_socket, readable};
use crate::base::error::IntoErrno;
use crate::base::{Cidr, Error, MacAddr, Result, Subject};
use crate::sys::arp;

const ETH_P_ARP: u16 = 0x0806;

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Machine {
    /// GETs `path` from `server`, in HTTP/1.0.
    pub fn get(&self, server: SocketAddrV4, path: &str, limit: Duration) -> Result<Answer> {
        self.run(|| {
            let mut answer = Vec::new();
            fetch(server, path, limit, &mut answer).map_err(|e| {
                let errno = match e.kind() {
                    // std's own timeout carries no errno.
                    ErrorKind::TimedOut | ErrorKind::WouldBlock => libc::ETIMEDOUT,
                    _ => e.into_errno(),
                };
                Error::sys("GET", Subject::Addr(format!("{server}{path}")), errno)
            })?;
            parse(&String::from_utf8_lossy(&answer))
                .ok_or_else(|| Error::parse("GET", server.to_string(), "no HTTP answer"))
        })
    }

    /// Makes this machine the router of a client elsewhere: what it sends to
    /// `server` from now on comes from `client`, an address of no LAN.
    pub fn route_for(&self, client: Ipv4Addr, server: Ipv4Addr) -> Result<()> {
        let mut rtnl = self.rtnl()?;
        let mut index = |name: &str| {
            let link = rtnl.link(name)?;
            link.map(|link| link.index)
                .ok_or_else(|| Error::sys("find link", Subject::Link(name.into()), libc::ENODEV))
        };
        let (lo, lan) = (index("lo")?, index(self.ifname.as_str())?);
        rtnl.add_addr(lo, Cidr::new(client.into(), 32)?)?;
        rtnl.add_link_route(Cidr::new(server.into(), 32)?, lan, Some(client.into()))
    }

    /// Tries to [`get`](Self::get) until it works or `limit` is over: for a
    /// server that is just starting.
    pub fn get_soon(&self, server: SocketAddrV4, path: &str, limit: Duration) -> Result<Answer> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.get(server, path, left.max(Duration::from_millis(1))) {
                Err(_) if !left.is_zero() => std::thread::sleep(Duration::from_micros(500)),
                outcome => return outcome,
            }
        }
    }

    /// Asks the LAN once who has `ip` and listens for `time`: the MAC of every
    /// answer, so that two answers from one machine are seen as two.
    ///
    /// `tell` is the asker's address: its own for the question that precedes
    /// a packet, 0.0.0.0 for the probe of RFC 5227 before taking an address.
    pub fn who_has(&self, ip: Ipv4Addr, tell: Ipv4Addr, time: Duration) -> Result<Vec<MacAddr>> {
        let link = self
            .rtnl()?
            .link(self.ifname.as_str())?
            .ok_or_else(|| Error::sys("ask on", &self.ifname, libc::ENODEV))?;
        let mac = link
            .mac
            .ok_or_else(|| Error::sys("ask on", &self.ifname, libc::EAFNOSUPPORT))?;
        let socket = packet_socket(self, ETH_P_ARP, link.index.get())?;
        let failed = |e| Error::sys("ask for", Subject::Addr(ip.to_string()), e);
        send(
            socket.as_raw_fd(),
            &arp::question(mac, tell, ip),
            MsgFlags::MSG_NOSIGNAL,
        )
        .map_err(failed)?;
        let end = Instant::now() + time;
        let mut answers = Vec::new();
        let mut bytes = [0; 128];
        loop {
            match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => answers.extend(answer_about(ip, &bytes[..length])),
                Err(nix::Error::EAGAIN) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(answers);
                    }
                    readable(&socket, left)?;
                }
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
}

fn fetch(
    server: SocketAddrV4,
    path: &str,
    limit: Duration,
    answer: &mut Vec<u8>,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(server), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    // In one piece: a formatter writing to the socket sends ten small ones.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {server}\r\n\r\n").as_bytes())?;
    match stream.read_to_end(answer) {
        // A reset after the whole answer takes nothing back.
        Err(e) if e.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some(Answer {
        status: status.parse().ok()?,
        body: body.to_owned(),
    })
}

fn answer_about(ip: Ipv4Addr, bytes: &[u8]) -> Option<MacAddr> {
    match Frame::parse(bytes)?.content {
        Content::Arp {
            question: false,
            mac,
            about,
            ..
        } if about == ip => Some(mac),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_answers() {
        let answer = parse("HTTP/1.0 200 OK\r\nA: b\r\n\r\nhello\r\n\r\nyou").unwrap();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "hello\r\n\r\nyou")
        );
        assert!(parse("").is_none());
        assert!(parse("SSH-2.0-x\r\n\r\n").is_none());
        assert!(parse("HTTP/1.0 x\r\n\r\n").is_none());
    }

    #[test]
    fn probe_of_rfc_5227() {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let bytes = arp::question(mac, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(10, 0, 2, 4));
        assert_eq!(
            Frame::parse(&bytes).unwrap().to_string(),
            "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff  ARP who-has 10.0.2.4 tell 0.0.0.0"
        );
        assert!(answer_about(Ipv4Addr::new(10, 0, 2, 4), &bytes).is_none());
    }
}
