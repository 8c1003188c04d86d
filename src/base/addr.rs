//! Link and network addresses, subnets and port mappings.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::family::Family;

/// An Ethernet address, six bytes, printed as `02:42:0a:00:02:05`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

/// FNV-1a, 64 bits: not secret, only spread out, and the same in every build.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

impl MacAddr {
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// `02:42` and the four address bytes: what Docker gave until version 27,
    /// stable and unique where the address is.
    pub fn from_ipv4(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// The address that [`Self::from_ipv4`] has made it from, if it has.
    pub fn to_ipv4(self) -> Option<Ipv4Addr> {
        match self.0 {
            [0x02, 0x42, a, b, c, d] => Some(Ipv4Addr::new(a, b, c, d)),
            _ => None,
        }
    }

    /// Stable and unique where the address is: IPv4's as above, and of an IPv6
    /// address `06` and five bytes of its FNV-1a hash.
    pub fn from_ip(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::from_ipv4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, ..] = fnv1a(&ip.octets()).to_be_bytes();
                Self([0x06, a, b, c, d, e])
            }
        }
    }

    /// Bit 0 of the first byte: a group address, which no interface may own.
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }
}

impl FromStr for MacAddr {
    type Err = Error;

    /// Six hex bytes with `:` or `-` between them, or three dotted groups of
    /// four digits: the forms that Docker (Go's `net.ParseMAC`) takes.
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::invalid(format!("{text} is not a valid mac address"));
        let digits: String = if text.contains('.') {
            let groups: Vec<&str> = text.split('.').collect();
            if groups.len() != 3 || groups.iter().any(|g| g.len() != 4) {
                return Err(invalid());
            }
            groups.concat()
        } else {
            let sep = if text.contains(':') { ':' } else { '-' };
            let groups: Vec<&str> = text.split(sep).collect();
            if groups.len() != 6 || groups.iter().any(|g| g.len() != 2) {
                return Err(invalid());
            }
            groups.concat()
        };
        let mut mac = [0; 6];
        for (i, byte) in mac.iter_mut().enumerate() {
            let pair = digits.get(2 * i..2 * i + 2).ok_or_else(invalid)?;
            if pair.starts_with('+') {
                return Err(invalid());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self(mac))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address with a prefix length: a subnet (host bits zero) or an
/// interface's address in one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    addr: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// 0.0.0.0/0
    pub const DEFAULT_V4: Self = Self {
        addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        prefix: 0,
    };
    /// ::/0
    pub const DEFAULT_V6: Self = Self {
        addr: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        prefix: 0,
    };

    /// Everything.
    pub fn default_of(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::DEFAULT_V4,
            Family::Ipv6 => Self::DEFAULT_V6,
        }
    }

    pub fn new(addr: IpAddr, prefix: u8) -> Result<Self> {
        let max = if addr.is_ipv4() { 32 } else { 128 };
        if prefix > max {
            return Err(Error::invalid(format!(
                "invalid CIDR address: {addr}/{prefix}"
            )));
        }
        Ok(Self { addr, prefix })
    }

    pub fn addr(self) -> IpAddr {
        self.addr
    }

    pub fn prefix(self) -> u8 {
        self.prefix
    }

    pub fn is_ipv4(self) -> bool {
        self.addr.is_ipv4()
    }

    fn mask_bits(addr: IpAddr, prefix: u8) -> u128 {
        let width: u32 = if addr.is_ipv4() { 32 } else { 128 };
        let host = width - u32::from(prefix);
        let all = if width == 32 {
            u128::from(u32::MAX)
        } else {
            u128::MAX
        };
        if host >= 128 { 0 } else { all & (all << host) }
    }

    fn bits(addr: IpAddr) -> u128 {
        match addr {
            IpAddr::V4(a) => u128::from(a.to_bits()),
            IpAddr::V6(a) => a.to_bits(),
        }
    }

    fn rebuild(addr: IpAddr, bits: u128) -> IpAddr {
        match addr {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(
                u32::try_from(bits & u128::from(u32::MAX)).unwrap_or_default(),
            )),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }

    /// The subnet: the same prefix with all host bits zero.
    pub fn network(self) -> Self {
        let bits = Self::bits(self.addr) & Self::mask_bits(self.addr, self.prefix);
        Self {
            addr: Self::rebuild(self.addr, bits),
            prefix: self.prefix,
        }
    }

    /// The highest address of the subnet; in IPv4 the broadcast address.
    pub fn last(self) -> IpAddr {
        let mask = Self::mask_bits(self.addr, self.prefix);
        let all = Self::mask_bits(self.addr, if self.is_ipv4() { 32 } else { 128 });
        Self::rebuild(self.addr, (Self::bits(self.addr) & mask) | (all & !mask))
    }

    /// The `n`th address counted from the subnet's first.
    pub fn nth(self, n: u128) -> Option<IpAddr> {
        let ip = Self::rebuild(self.addr, Self::bits(self.network().addr).checked_add(n)?);
        self.contains(ip).then_some(ip)
    }

    /// What [`Self::nth`] counts an address as.
    pub fn index_of(self, ip: IpAddr) -> Option<u128> {
        let first = Self::bits(self.network().addr);
        self.contains(ip).then(|| Self::bits(ip) - first)
    }

    pub fn contains(self, ip: IpAddr) -> bool {
        if ip.is_ipv4() != self.is_ipv4() {
            return false;
        }
        let mask = Self::mask_bits(self.addr, self.prefix);
        Self::bits(ip) & mask == Self::bits(self.addr) & mask
    }

    pub fn contains_net(self, other: Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.addr)
    }

    pub fn overlaps(self, other: Self) -> bool {
        self.contains_net(other.network()) || other.contains_net(self.network())
    }
}

impl FromStr for Cidr {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::invalid(format!("invalid CIDR address: {text}"));
        let (addr, prefix) = text.split_once('/').ok_or_else(invalid)?;
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let addr: IpAddr = addr.parse().map_err(|_| invalid())?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid())?;
        Self::new(addr, prefix).map_err(|_| invalid())
    }
}

impl TryFrom<String> for Cidr {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
}

impl Proto {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// IANA protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The host's side of a published port: the address as given (`0.0.0.0` for
/// any) and the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    pub ip: IpAddr,
    pub port: u16,
}

/// One published port, resolved: no range, no random port left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortMap {
    pub host: HostPort,
    pub container: u16,
    pub proto: Proto,
}

impl fmt::Display for PortMap {
    /// As in Docker's `ps`: `0.0.0.0:5000->5000/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = std::net::SocketAddr::new(self.host.ip, self.host.port);
        write!(f, "{addr}->{}/{}", self.container, self.proto)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_forms() {
        let mac = MacAddr([2, 0x42, 10, 0, 2, 5]);
        for text in ["02:42:0a:00:02:05", "02-42-0A-00-02-05", "0242.0a00.0205"] {
            assert_eq!(text.parse::<MacAddr>().unwrap(), mac, "{text}");
        }
        for bad in [
            "",
            "02:42:0a:00:02",
            "02:42:0a:00:02:0g",
            "+2:42:0a:00:02:05",
            "0242.0a00.02050",
            "02:42-0a:00:02:05",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad}");
        }
        assert_eq!(MacAddr::from_ip("10.0.2.5".parse().unwrap()), mac);
        let v6 = |text: &str| MacAddr::from_ip(text.parse().unwrap());
        assert_eq!(v6("fd00::5"), v6("fd00:0::5"));
        assert_ne!(v6("fd00::5"), v6("fd00::6"));
        assert!(!v6("fd00::5").is_multicast());
    }

    #[test]
    fn subnet_arithmetic() {
        let c: Cidr = "10.0.2.77/24".parse().unwrap();
        assert_eq!(c.network().to_string(), "10.0.2.0/24");
        assert_eq!(c.last().to_string(), "10.0.2.255");
        assert_eq!(c.nth(1).unwrap().to_string(), "10.0.2.1");
        assert!(c.nth(256).is_none());
        assert!(c.overlaps("10.0.0.0/8".parse().unwrap()));
        assert!(!c.overlaps("10.0.3.0/24".parse().unwrap()));
        assert!(!c.contains("::1".parse().unwrap()));
        let all: Cidr = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("255.255.255.255".parse().unwrap()));
        assert_eq!(all.last().to_string(), "255.255.255.255");
        let v6: Cidr = "fd00::1/64".parse().unwrap();
        assert_eq!(v6.last().to_string(), "fd00::ffff:ffff:ffff:ffff");
        let one: Cidr = "10.0.0.1/32".parse().unwrap();
        assert_eq!(one.last(), one.addr());
        let any6: Cidr = "::/0".parse().unwrap();
        assert!(any6.contains("ffff::".parse().unwrap()));
    }

    #[test]
    fn cidr_refusals() {
        for bad in [
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "x/8",
            "::/129",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
