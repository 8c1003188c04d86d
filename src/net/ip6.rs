//! IPv6 of an attachment that the LAN gives: SLAAC (RFC 4862), done by the
//! kernel, or DHCPv6.
//!
//! *Theory of operation.* What is to be is told to the kernel before the link
//! is up: so the first thing that it does there is right, and no router's
//! advertisement comes too early. With SLAAC the low half of each address is a
//! [`Token`], the same each time for a container's name on a network of a
//! machine; which prefixes there are, the LAN says. What the addresses are is
//! then seen in the container's namespace by whoever cares (`engine`).
//!
//! *An ipvlan* (l2) has its parent's MAC, and from that the kernel makes its
//! link-local address with a number that it tells nobody by netlink (`dev_id`;
//! `addrconf_ifid_eui48` in include/net/addrconf.h). It is told to make none:
//! the link is given one that ends in a token, which the guard knows.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::{Cidr, Error, Family, IfName, MacAddr, Result};
use crate::sys::sysctl::NetSysctl;

/// Where an attachment's IPv6 addresses are from: `--ip6`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ip6 {
    /// The network's subnet, if it has one.
    #[default]
    Subnet,
    /// Advertised prefixes.
    Slaac,
    /// A DHCPv6 server.
    Dhcp,
    /// No IPv6 at all, whatever the network has.
    Off,
}

impl Ip6 {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Subnet => "subnet",
            Self::Slaac => "slaac",
            Self::Dhcp => "dhcp",
            Self::Off => "off",
        }
    }

    /// As `--ip6` says it; `None`: it is no such word.
    pub fn new(word: &str) -> Option<Self> {
        match word {
            "slaac" => Some(Self::Slaac),
            "dhcp" => Some(Self::Dhcp),
            "off" => Some(Self::Off),
            _ => None,
        }
    }

    pub fn is_subnet(&self) -> bool {
        *self == Self::Subnet
    }

    pub fn is_by_lan(self) -> bool {
        matches!(self, Self::Slaac | Self::Dhcp)
    }
}

/// The low half of an address (an interface identifier).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token(pub [u8; 8]);

impl Token {
    /// Of a container's name on a network of a machine: as stable as these, and
    /// nothing of them can be read from it.
    pub fn new(machine: &[u8], network: &str, container: &str) -> Self {
        Self::hash(&[machine, network.as_bytes(), container.as_bytes()])
    }

    /// Of an address that nobody else on the link has.
    pub fn of_addr(addr: Ipv6Addr) -> Self {
        Self::hash(&[&addr.octets()])
    }

    fn hash(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new_with_prefix("dockless ip6 token");
        for part in parts {
            hash.update([0]);
            hash.update(part);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let [first, b, c, d, e, f, g, h, ..] = hash;
        // Apart from all that are reserved (RFC 5453): these begin with 00, 02
        // or fd.
        Self([first & 0x3f | 0x40, b, c, d, e, f, g, h])
    }

    /// Whether an address ends in it, and is of a prefix as routers advertise
    /// them.
    pub fn is_of(self, addr: Cidr) -> bool {
        match addr.addr() {
            IpAddr::V6(ip) => {
                addr.prefix() == 64 && ip.octets()[8..] == self.0 && !ip.is_unicast_link_local()
            }
            IpAddr::V4(_) => false,
        }
    }

    pub fn link_local(self) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..2].copy_from_slice(&[0xfe, 0x80]);
        octets[8..].copy_from_slice(&self.0);
        octets.into()
    }
}

/// As `ip token` shows it.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut addr = [0; 16];
        addr[8..].copy_from_slice(&self.0);
        Ipv6Addr::from(addr).fmt(f)
    }
}

/// What the kernel is told of a link's IPv6 before it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link6 {
    Off,
    /// Addresses are given to it.
    On,
    Slaac(Token, Router),
    /// A DHCPv6 server gives the address, and routers the rest.
    Dhcp(Router),
}

/// What is made of a router that advertises itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// `--internal`
    Ignored,
    /// A default route of this metric.
    Default { metric: u32 },
}

impl Link6 {
    pub fn token(self) -> Option<Token> {
        match self {
            Self::Slaac(token, _) => Some(token),
            Self::Off | Self::On | Self::Dhcp(_) => None,
        }
    }

    /// Whether the LAN gives the addresses.
    pub fn is_by_lan(self) -> bool {
        matches!(self, Self::Slaac(..) | Self::Dhcp(_))
    }

    /// Before any address: else the kernel would make a link-local address on
    /// an IPv4 network, and solicit routers. `is_given`: it makes none at all,
    /// since the link is given one.
    pub fn tell(self, sysctl: &NetSysctl, ifname: &IfName, is_given: bool) -> Result<()> {
        if !sysctl.has_ipv6() {
            return match self {
                Self::Off => Ok(()),
                Self::On | Self::Slaac(..) | Self::Dhcp(_) => Err(Error::invalid(format!(
                    "{ifname} cannot have an IPv6 address: this kernel has no IPv6"
                ))
                .hint(
                    "boot without ipv6.disable=1, or make the network without --ipv6 and the \
                     container without --ip6",
                )),
            };
        }
        let write = |name: &str, value: &str| {
            sysctl.write(Family::Ipv6, &format!("conf/{ifname}/{name}"), value)
        };
        if let Self::Slaac(_, router) | Self::Dhcp(router) = self {
            // A namespace may have begun with other values
            // (net.core.devconf_inherit_init_net).
            write("accept_ra", "1")?;
            let autoconf = matches!(self, Self::Slaac(..));
            write("autoconf", if autoconf { "1" } else { "0" })?;
            write("use_tempaddr", "0")?;
            // The guard knows the link-local address that follows from the MAC.
            write("addr_gen_mode", "0")?;
            router.tell(sysctl, ifname)?;
        }
        if is_given {
            write("addr_gen_mode", NONE_MADE)?;
        }
        write("disable_ipv6", if self == Self::Off { "1" } else { "0" })
    }
}

impl Router {
    /// In force with the next advertisement.
    pub fn tell(self, sysctl: &NetSysctl, ifname: &IfName) -> Result<()> {
        let write = |name: &str, value: &str| {
            sysctl.write(Family::Ipv6, &format!("conf/{ifname}/{name}"), value)
        };
        match self {
            Self::Ignored => write("accept_ra_defrtr", "0"),
            Self::Default { metric } => {
                write("accept_ra_defrtr", "1")?;
                match write("ra_defrtr_metric", &metric.to_string()) {
                    // Before Linux 5.12.
                    Err(e) if e.is_errno(libc::ENOENT) => Ok(()),
                    written => written,
                }
            }
        }
    }
}

/// `addr_gen_mode`: no link-local address is made (IN6_ADDR_GEN_MODE_NONE).
pub const NONE_MADE: &str = "1";

/// RFC 4291, appendix A: what the kernel gives to a link by itself.
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}

/// What routers say of name servers (RFC 8106), as long as it holds.
#[derive(Debug, Default)]
pub struct Named {
    servers: Vec<(Ipv6Addr, Option<Instant>)>,
    search: Vec<(String, Option<Instant>)>,
}

/// So many of each are enough for a resolv.conf.
const NAMED: usize = 6;

impl Named {
    /// An RDNSS or DNSSL option; what is neither, or none, says nothing.
    /// Servers on the link alone are left out: a resolver would need its name.
    pub fn hear(&mut self, option: &[u8], now: Instant) {
        const RDNSS: u8 = 25;
        const DNSSL: u8 = 31;
        let Some((header, body)) = option.split_at_checked(8) else {
            return;
        };
        if usize::from(header[1]) * 8 != option.len() {
            return;
        }
        let seconds = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let until = (seconds != u32::MAX).then(|| now + Duration::from_secs(seconds.into()));
        match header[0] {
            RDNSS => {
                let is_usable = |ip: &Ipv6Addr| {
                    !(ip.is_unspecified()
                        || ip.is_loopback()
                        || ip.is_multicast()
                        || ip.is_unicast_link_local())
                };
                let (addrs, _) = body.as_chunks::<16>();
                let addrs = addrs.iter().map(|addr| Ipv6Addr::from(*addr));
                keep(&mut self.servers, addrs.filter(is_usable), until);
            }
            DNSSL => keep(
                &mut self.search,
                super::dhcp::search(body).into_iter(),
                until,
            ),
            _ => {}
        }
        self.expire(now);
    }

    /// What is over by now goes.
    pub fn expire(&mut self, now: Instant) {
        self.servers
            .retain(|(_, until)| until.is_none_or(|until| until > now));
        self.search
            .retain(|(_, until)| until.is_none_or(|until| until > now));
    }

    /// When the next of them is over.
    pub fn deadline(&self) -> Option<Instant> {
        let servers = self.servers.iter().filter_map(|(_, until)| *until);
        let search = self.search.iter().filter_map(|(_, until)| *until);
        servers.chain(search).min()
    }

    pub fn servers(&self) -> Vec<Ipv6Addr> {
        self.servers.iter().map(|(ip, _)| *ip).collect()
    }

    pub fn search(&self) -> Vec<String> {
        self.search.iter().map(|(name, _)| name.clone()).collect()
    }
}

fn keep<T: PartialEq>(
    known: &mut Vec<(T, Option<Instant>)>,
    said: impl Iterator<Item = T>,
    until: Option<Instant>,
) {
    for item in said {
        match known.iter().position(|(old, _)| *old == item) {
            Some(at) => known[at].1 = until,
            None if known.len() < NAMED => known.push((item, until)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_follows_from_the_names_alone() {
        let of = |machine: &str, network: &str, name: &str| {
            Token::new(machine.as_bytes(), network, name)
        };
        let web = of("m1", "lan", "web");
        assert_eq!(web, of("m1", "lan", "web"));
        for other in [
            of("m2", "lan", "web"),
            of("m1", "lan2", "web"),
            of("m1", "lan", "we"),
            of("m1", "la", "nweb"),
        ] {
            assert_ne!(web, other);
        }
        assert!((0x40..0x80).contains(&web.0[0]));
        assert!(web.to_string().starts_with("::"));
    }

    #[test]
    fn link_local_is_the_kernels() {
        let mac = MacAddr([0x02, 0x42, 10, 0, 2, 5]);
        assert_eq!(link_local(mac).to_string(), "fe80::42:aff:fe00:205");
    }

    #[test]
    fn whose_address_it_is() {
        let token = Token([0x40, 1, 2, 3, 4, 5, 6, 7]);
        let is_of = |text: &str| token.is_of(text.parse().unwrap());
        assert!(is_of("2001:db8::4001:203:405:607/64"));
        assert_eq!(token.link_local().to_string(), "fe80::4001:203:405:607");
        assert!(!is_of("fe80::4001:203:405:607/64"));
        assert!(!is_of("2001:db8::4001:203:405:608/64"));
        assert!(!is_of("2001:db8::4001:203:405:607/128"));
        assert!(!is_of("10.0.2.5/24"));
    }

    #[test]
    fn name_servers_of_a_router() {
        let mut rdnss = vec![25, 5, 0, 0, 0, 0, 2, 88];
        let servers = ["2001:db8::53", "fe80::1"].map(|s| s.parse::<Ipv6Addr>().unwrap());
        servers.iter().for_each(|ip| rdnss.extend(ip.octets()));
        let now = Instant::now();
        let mut named = Named::default();
        for length in 0..rdnss.len() {
            named.hear(&rdnss[..length], now);
        }
        // A pointer to itself, a label beyond the end, what is not a name.
        for hostile in [
            b"\x1f\x02\0\0\0\0\0\x0a\xc0\0\0\0\0\0\0\0",
            b"\x1f\x02\0\0\0\0\0\x0a\x3flan\0\0\0\0",
            b"\x1f\x02\0\0\0\0\0\x0a\x03l\nn\0\0\0\0",
        ] {
            named.hear(hostile, now);
        }
        assert!(named.servers().is_empty() && named.search().is_empty());
        named.hear(&rdnss, now);
        named.hear(b"\x1f\x02\0\0\0\0\0\x0a\x03lan\0\0\0\0", now);
        assert_eq!(named.servers(), servers[..1]);
        assert_eq!(named.search(), ["lan"]);
        assert_eq!(named.deadline(), Some(now + Duration::from_secs(10)));
        named.expire(now + Duration::from_secs(10));
        assert!(named.search().is_empty());
        // Taken back.
        rdnss[4..8].fill(0);
        named.hear(&rdnss, now);
        assert!(named.servers().is_empty());
        for last in 1..=250 {
            rdnss[23] = last;
            rdnss[4..8].fill(0xff);
            named.hear(&rdnss, now);
        }
        assert_eq!((named.servers().len(), named.deadline()), (NAMED, None));
    }
}
