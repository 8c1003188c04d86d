//! Listening sockets in the host's network: they reserve the published ports,
//! whoever else might want them, and serve the proxy.
//!
//! *Order.* Fixed ports first, then ranges, then random ones, so that no range
//! takes what was asked for by number; all are bound before any is of use, and
//! an error closes those already bound.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, getsockname, listen,
    setsockopt, socket, sockopt,
};

use super::PortRequest;
use crate::base::{Cause, Error, HostPort, PortMap, Proto, Result, Subject};

/// Listening sockets on the host: they serve the proxy and reserve the ports.
#[derive(Debug)]
pub struct Reserved {
    ports: Vec<PortMap>,
    sockets: Vec<OwnedFd>,
}

/// Binds every port, all or none. A taken one is
/// `Bind for IP:PORT failed: port is already allocated` (Cause::Conflict).
pub fn reserve(wanted: &[PortRequest]) -> Result<Reserved> {
    let freedom = |request: &PortRequest| match request.host_port {
        Some((first, last)) => u32::from(last.saturating_sub(first)),
        None => u32::MAX,
    };
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|at| freedom(&wanted[*at]));
    let mut bound: Vec<(usize, PortMap, OwnedFd)> = Vec::with_capacity(wanted.len());
    for at in order {
        let (port, socket) = one(&wanted[at]).map_err(|error| match &error.cause {
            Cause::Conflict(_) => match rival(&wanted[at], &bound) {
                Some(other) => error.hint(format!(
                    "it is asked for twice: -p {} and -p {}",
                    wanted[other], wanted[at]
                )),
                None => error,
            },
            _ => error,
        })?;
        bound.push((at, port, socket));
    }
    bound.sort_by_key(|(at, ..)| *at);
    let (ports, sockets) = bound.into_iter().map(|(_, port, fd)| (port, fd)).unzip();
    Ok(Reserved { ports, sockets })
}

/// Who of those that are bound already keeps `request` from its port.
fn rival(request: &PortRequest, bound: &[(usize, PortMap, OwnedFd)]) -> Option<usize> {
    let (first, last) = request.host_port?;
    let ip = request.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let clash = |port: &PortMap| {
        let host = port.host;
        port.proto == request.proto
            && (first..=last).contains(&host.port)
            && (host.ip == ip || host.ip.is_unspecified() || ip.is_unspecified())
    };
    bound
        .iter()
        .find_map(|(at, port, _)| clash(port).then_some(*at))
}

impl Reserved {
    /// Random ports and ranges resolved.
    pub fn ports(&self) -> &[PortMap] {
        &self.ports
    }

    pub(super) fn into_parts(self) -> (Vec<PortMap>, Vec<OwnedFd>) {
        (self.ports, self.sockets)
    }
}

fn one(request: &PortRequest) -> Result<(PortMap, OwnedFd)> {
    let ip = request.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    // Port 0 is the kernel's choice out of ip_local_port_range.
    let (first, last) = request.host_port.unwrap_or((0, 0));
    for port in first..=last {
        match listening(SocketAddr::new(ip, port), request.proto) {
            Ok(socket) => {
                let port = if port == 0 { port_of(&socket)? } else { port };
                let map = PortMap {
                    host: HostPort { ip, port },
                    container: request.container,
                    proto: request.proto,
                };
                return Ok((map, socket));
            }
            Err(Errno::EADDRINUSE) => {}
            Err(errno) => return Err(refused(SocketAddr::new(ip, port), errno)),
        }
    }
    Err(Error::conflict(format!(
        "Bind for {} failed: port is already allocated",
        SocketAddr::new(ip, first)
    ))
    .hint("another program has it: `ss -lntup` (as root) shows which"))
}

fn refused(addr: SocketAddr, errno: Errno) -> Error {
    let error = Error::sys("listen on", Subject::Addr(addr.to_string()), errno);
    match errno {
        Errno::EACCES => error.hint(
            "ports below net.ipv4.ip_unprivileged_port_start need root (CAP_NET_BIND_SERVICE)",
        ),
        Errno::EADDRNOTAVAIL => error.hint("this machine does not have that address"),
        Errno::EMFILE => error.hint("each published port needs one: raise `ulimit -n`"),
        _ => error,
    }
}

/// Options that connections inherit are set here, once.
fn listening(addr: SocketAddr, proto: Proto) -> nix::Result<OwnedFd> {
    let family = match addr.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let kind = match proto {
        Proto::Tcp => SockType::Stream,
        Proto::Udp => SockType::Datagram,
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, kind, flags, None)?;
    if addr.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    match proto {
        Proto::Tcp => {
            // Past connections of a port do not keep it taken.
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            setsockopt(&fd, sockopt::KeepAlive, &true)?;
            setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        }
        // Answers have to come from the address that was asked.
        Proto::Udp if addr.is_ipv4() => setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?,
        Proto::Udp => {}
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    if proto == Proto::Tcp {
        listen(&fd, backlog())?;
    }
    Ok(fd)
}

/// As long as the machine allows, as Go's runtime (docker-proxy) does.
fn backlog() -> Backlog {
    fs::read_to_string("/proc/sys/net/core/somaxconn")
        .ok()
        .and_then(|text| Backlog::new(text.trim().parse::<i32>().ok()?).ok())
        .unwrap_or(Backlog::MAXCONN)
}

fn port_of(socket: &OwnedFd) -> Result<u16> {
    let fd: BorrowedFd<'_> = socket.as_fd();
    let fail = |e| Error::sys("read the chosen port", Subject::None, e);
    let addr: SockaddrStorage = getsockname(fd.as_raw_fd()).map_err(fail)?;
    let v4 = addr
        .as_sockaddr_in()
        .map(nix::sys::socket::SockaddrIn::port);
    v4.or(addr
        .as_sockaddr_in6()
        .map(nix::sys::socket::SockaddrIn6::port))
        .ok_or_else(|| fail(Errno::EAFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn ask(port: Option<(u16, u16)>, proto: Proto) -> PortRequest {
        PortRequest {
            host_ip: Some(LOCAL),
            host_port: port,
            container: 80,
            proto,
        }
    }

    #[test]
    fn random_ports_are_known_and_taken() {
        let held = reserve(&[ask(None, Proto::Tcp), ask(None, Proto::Udp)]).unwrap();
        let [tcp, udp] = held.ports() else { panic!() };
        assert!(TcpListener::bind((LOCAL, tcp.host.port)).is_err());
        assert!(UdpSocket::bind((LOCAL, udp.host.port)).is_err());
        let again = ask(Some((tcp.host.port, tcp.host.port)), Proto::Tcp);
        let error = reserve(&[again]).unwrap_err();
        assert_eq!(
            error.cause.to_string(),
            format!(
                "Bind for 127.0.0.1:{} failed: port is already allocated",
                tcp.host.port
            )
        );
        drop(held);
        reserve(&[again]).unwrap();
    }

    #[test]
    fn all_or_none_and_ranges_take_what_is_free() {
        let other = TcpListener::bind((LOCAL, 0)).unwrap();
        let taken = other.local_addr().unwrap().port();
        let free = reserve(&[ask(None, Proto::Tcp)]).unwrap();
        let free_port = free.ports()[0].host.port;
        drop(free);
        let both = [
            ask(Some((free_port, free_port)), Proto::Tcp),
            ask(Some((taken, taken)), Proto::Tcp),
        ];
        assert!(reserve(&both).is_err());
        assert!(TcpListener::bind((LOCAL, free_port)).is_ok());
        // The range is asked for first and bound last.
        let Some(next) = taken.checked_add(40) else {
            return;
        };
        let wanted = [ask(Some((taken, next)), Proto::Tcp), both[0]];
        let held = reserve(&wanted).unwrap();
        let range = held.ports()[0].host.port;
        assert!(range > taken && range <= next);
        assert_eq!(held.ports()[1].host.port, free_port);
    }

    #[test]
    fn a_port_asked_for_twice_names_both() {
        let free = reserve(&[ask(None, Proto::Tcp)]).unwrap();
        let port = free.ports()[0].host.port;
        drop(free);
        let any = PortRequest {
            host_ip: None,
            container: 81,
            ..ask(Some((port, port)), Proto::Tcp)
        };
        let text = reserve(&[any, ask(Some((port, port)), Proto::Tcp)])
            .unwrap_err()
            .to_string();
        let both = format!("asked for twice: -p {port}:81 and -p 127.0.0.1:{port}:80");
        assert!(text.contains(&both), "{text}");
    }

    #[test]
    fn addresses_of_others_are_refused_with_a_reason() {
        let mut request = ask(None, Proto::Tcp);
        request.host_ip = Some("192.0.2.1".parse().unwrap());
        let error = reserve(&[request]).unwrap_err();
        assert!(error.is_errno(libc::EADDRNOTAVAIL), "{error}");
    }
}
