//! What a server gives. A lease that cannot be used (no server named, no time,
//! an address that is none) is no lease, with the reason.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{Reply, code};
use super::options;
use crate::base::Cidr;

/// Shorter ones would have us renew all the time.
const SHORTEST: u32 = 4;
/// RFC 2131: for ever.
pub(super) const FOREVER: u32 = u32::MAX;
/// RFC 791: what every host takes. Less is a mistake, or somebody's game.
const LEAST_MTU: u16 = 576;
const MOST: usize = 8;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub dst: Cidr,
    /// `None`: the link itself.
    pub via: Option<Ipv4Addr>,
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.via {
            Some(via) => write!(f, "{} via {via}", self.dst),
            None => write!(f, "{}", self.dst),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// With the subnet's mask.
    pub addr: Cidr,
    /// Option 54.
    pub server: Ipv4Addr,
    /// When it began, in seconds of 1970: for the next boot.
    pub obtained: u64,
    /// Seconds from then on: T1, T2, and the end. `u32::MAX` is never.
    pub renew: u32,
    pub rebind: u32,
    pub seconds: u32,
    /// Option 121, or else 3.
    pub routes: Vec<Route>,
    pub mtu: Option<u16>,
    pub dns: Vec<Ipv4Addr>,
    /// Option 119, or else 15.
    pub search: Vec<String>,
    /// Option 42. For `inspect`: a container has its host's clock.
    pub ntp: Vec<Ipv4Addr>,
}

impl Lease {
    pub(super) fn of(reply: &Reply) -> Result<Self, &'static str> {
        let server = reply.server.filter(|ip| is_host(*ip));
        let server = server.ok_or("it does not say which server it is from")?;
        let ip = reply.your_ip;
        if !is_host(ip) {
            return Err("its address is none that a host can have");
        }
        let seconds = reply.number(code::LEASE_TIME).unwrap_or(0);
        if seconds < SHORTEST {
            return Err("its lease time is missing or below 4 s");
        }
        let prefix = match reply.addresses(code::SUBNET_MASK).first() {
            Some(mask) => prefix(*mask).ok_or("its subnet mask has holes")?,
            None => class(ip),
        };
        let addr = Cidr::new(IpAddr::V4(ip), prefix).map_err(|_| "its subnet mask is too long")?;
        let is_edge =
            |ip: Ipv4Addr| prefix < 31 && (addr.network().addr() == ip || addr.last() == ip);
        if is_edge(ip) {
            return Err("its address is its subnet's own or its broadcast address");
        }
        let (renew, rebind) = times(reply, seconds);
        let routes = match reply.option(code::CLASSLESS_ROUTES) {
            Some(bytes) => options::routes(bytes),
            None => None,
        };
        // Through others the kernel lets no route lead: and without its default
        // route the whole lease would come to nothing.
        let is_router = |via: Ipv4Addr| is_host(via) && via != ip && !is_edge(via);
        // RFC 3442: with option 121, option 3 says nothing.
        let mut routes = routes.unwrap_or_else(|| {
            let routers = reply.addresses(code::ROUTER).into_iter();
            let first = routers.filter(|ip| is_router(*ip)).take(1);
            let default = |via| Route {
                dst: Cidr::DEFAULT_V4,
                via: Some(via),
            };
            first.map(default).collect()
        });
        routes.retain(|route| route.via.is_none_or(is_router));
        let search = match options::search(reply.option(code::DOMAIN_SEARCH).unwrap_or_default()) {
            none if none.is_empty() => {
                options::domains(reply.option(code::DOMAIN_NAME).unwrap_or_default())
            }
            names => names,
        };
        let hosts = |code| {
            let all = reply.addresses(code).into_iter();
            all.filter(|ip| is_host(*ip)).take(MOST).collect()
        };
        Ok(Self {
            addr,
            server,
            obtained: 0,
            renew,
            rebind,
            seconds,
            routes,
            mtu: reply.short(code::MTU).filter(|mtu| *mtu >= LEAST_MTU),
            dns: hosts(code::DNS),
            search,
            ntp: hosts(code::NTP),
        })
    }

    pub fn ip(&self) -> Ipv4Addr {
        match self.addr.addr() {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// Of the default route.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        let default = |r: &&Route| r.dst == Cidr::DEFAULT_V4;
        self.routes.iter().find(default)?.via
    }

    /// How much is left of it at `now` (seconds of 1970). A clock that has
    /// gone back makes it no longer than it was.
    pub fn remaining(&self, now: u64) -> Duration {
        if self.seconds == FOREVER {
            return Duration::MAX;
        }
        let age = now.saturating_sub(self.obtained);
        Duration::from_secs(u64::from(self.seconds).saturating_sub(age))
    }
}

/// T1 and T2, RFC 2131's where the server's make no sense.
fn times(reply: &Reply, seconds: u32) -> (u32, u32) {
    if seconds == FOREVER {
        return (FOREVER, FOREVER);
    }
    let usual = (seconds / 2, seconds - seconds / 8);
    let renew = reply.number(code::RENEWAL).unwrap_or(usual.0);
    let rebind = reply.number(code::REBINDING).unwrap_or(usual.1);
    if 0 < renew && renew <= rebind && rebind <= seconds {
        (renew, rebind)
    } else {
        usual
    }
}

/// What a host can have: no network, group, loopback or reserved address.
fn is_host(ip: Ipv4Addr) -> bool {
    let [first, ..] = ip.octets();
    first != 0 && first != 127 && first < 224
}

fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let ones = bits.leading_ones();
    let whole = bits.checked_shl(ones).unwrap_or(0) == 0 && ones > 0;
    u8::try_from(ones).ok().filter(|_| whole)
}

/// Before there were masks (RFC 950): what is left to a server that names none.
fn class(ip: Ipv4Addr) -> u8 {
    match ip.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::dhcp::message::{Kind, Reply};

    fn reply(options: &[(u8, &[u8])]) -> Reply {
        let mut reply = Reply {
            kind: Kind::Ack,
            xid: 1,
            your_ip: Ipv4Addr::new(10, 0, 2, 50),
            server: Some(Ipv4Addr::new(10, 0, 2, 1)),
            options: Default::default(),
        };
        let usual: [(u8, &[u8]); 2] = [
            (code::LEASE_TIME, &[0, 0, 14, 16]),
            (code::SUBNET_MASK, &[255, 255, 255, 0]),
        ];
        for (code, bytes) in usual.iter().chain(options) {
            reply.options.insert(*code, bytes.to_vec());
        }
        reply
    }

    #[test]
    fn a_whole_one() {
        let lease = Lease::of(&reply(&[
            (code::ROUTER, &[10, 0, 2, 1, 10, 0, 2, 2]),
            (code::DNS, &[10, 0, 2, 1, 127, 0, 0, 1, 10, 0, 2, 3]),
            (code::DOMAIN_NAME, b"lan"),
            (code::MTU, &[5, 120]),
            (code::NTP, &[10, 0, 2, 1]),
        ]))
        .unwrap();
        assert_eq!(lease.addr, "10.0.2.50/24".parse().unwrap());
        assert_eq!(
            (lease.renew, lease.rebind, lease.seconds),
            (1800, 3150, 3600)
        );
        assert_eq!(lease.gateway(), Some(Ipv4Addr::new(10, 0, 2, 1)));
        assert_eq!((lease.dns.len(), lease.mtu), (2, Some(1400)));
        assert_eq!(lease.search, ["lan"]);
        let mut lease = lease;
        lease.obtained = 1000;
        assert_eq!(lease.remaining(1600).as_secs(), 3000);
        assert_eq!(lease.remaining(5000).as_secs(), 0);
        assert_eq!(lease.remaining(1).as_secs(), 3600);
    }

    #[test]
    fn what_cannot_be_used() {
        let refused = |change: &dyn Fn(&mut Reply)| {
            let mut reply = reply(&[]);
            change(&mut reply);
            Lease::of(&reply).unwrap_err()
        };
        assert!(refused(&|r| r.server = None).contains("which server"));
        assert!(refused(&|r| r.server = Some(Ipv4Addr::BROADCAST)).contains("which server"));
        for ip in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
            assert!(refused(&|r| r.your_ip = ip.parse().unwrap()).contains("none that a host"));
        }
        for ip in ["10.0.2.0", "10.0.2.255"] {
            assert!(refused(&|r| r.your_ip = ip.parse().unwrap()).contains("broadcast"));
        }
        let set = |code: u8, bytes: &'static [u8]| {
            move |r: &mut Reply| drop(r.options.insert(code, bytes.to_vec()))
        };
        assert!(refused(&set(code::LEASE_TIME, &[0; 4])).contains("lease time"));
        assert!(refused(&set(code::LEASE_TIME, &[1])).contains("lease time"));
        assert!(refused(&set(code::SUBNET_MASK, &[255, 0, 255, 0])).contains("holes"));
        assert!(refused(&set(code::SUBNET_MASK, &[0; 4])).contains("holes"));
    }

    #[test]
    fn options_that_make_no_sense_are_left_out() {
        let with = |options: &[(u8, &[u8])]| Lease::of(&reply(options)).unwrap();
        // T1 behind T2, T2 behind the end, zero.
        for (t1, t2) in [(3000_u32, 2000_u32), (10, 9000), (0, 10)] {
            let (t1, t2) = (t1.to_be_bytes(), t2.to_be_bytes());
            let lease = with(&[(code::RENEWAL, &t1), (code::REBINDING, &t2)]);
            assert_eq!((lease.renew, lease.rebind), (1800, 3150));
        }
        assert_eq!(with(&[(code::MTU, &[0, 68])]).mtu, None);
        assert!(with(&[(code::ROUTER, &[0; 4])]).routes.is_empty());
        assert!(with(&[(code::ROUTER, &[10, 0])]).routes.is_empty());
        // A broken 121 is as none.
        let lease = with(&[
            (code::CLASSLESS_ROUTES, &[33, 1]),
            (code::ROUTER, &[10, 0, 2, 1]),
        ]);
        assert_eq!(lease.gateway(), Some(Ipv4Addr::new(10, 0, 2, 1)));
        let lease = with(&[
            (code::CLASSLESS_ROUTES, &[24, 10, 9, 9, 10, 0, 2, 7]),
            (code::ROUTER, &[10, 0, 2, 1]),
        ]);
        assert_eq!(lease.gateway(), None);
        assert_eq!(lease.routes.len(), 1);
        // Routers that are none: loopback, a group, its own address, the
        // subnet's edges; the others stay.
        for last in [
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [10, 0, 2, 50],
            [10, 0, 2, 255],
            [10, 0, 2, 0],
        ] {
            let option = [&[0], &last[..], &[24, 10, 9, 9, 10, 0, 2, 7]].concat();
            let lease = with(&[(code::CLASSLESS_ROUTES, &option)]);
            assert_eq!((lease.gateway(), lease.routes.len()), (None, 1), "{last:?}");
            let option = [&last[..], &[10, 0, 2, 2]].concat();
            let lease = with(&[(code::ROUTER, &option)]);
            assert_eq!(lease.gateway(), Some(Ipv4Addr::new(10, 0, 2, 2)));
        }
        let lease = with(&[(code::LEASE_TIME, &[255; 4])]);
        assert_eq!(lease.renew, FOREVER);
        assert_eq!(lease.remaining(u64::MAX), Duration::MAX);
    }
}
