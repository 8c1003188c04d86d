//! What an endpoint's driver options ask for (Docker 27's sysctls, 28's
//! interface name; rates and what is received are dockless's own). Others are
//! kept and shown, as in Docker.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::rate::{Rate, Rates};
use crate::base::{Error, Family, IfName, MacAddr, PerFamily, Result};

const IFNAME: &str = "com.docker.network.endpoint.ifname";
const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";
pub const RATE_UP: &str = "rate-up";
pub const RATE_DOWN: &str = "rate-down";
const PROMISC: &str = "promisc";
const ALLMULTI: &str = "allmulti";
/// Separated by commas.
pub const EXTRA_MAC: &str = "extra-mac";
/// One of each family, separated by a comma.
pub const GATEWAY: &str = "gw";
/// What `--network name=…` takes as fields of their own.
pub const FIELDS: [&str; 6] = [RATE_UP, RATE_DOWN, PROMISC, ALLMULTI, EXTRA_MAC, GATEWAY];

/// The options that mean something here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Instead of the lowest free `ethN`.
    pub ifname: Option<IfName>,
    /// In the order given; set when the addresses are there, and before the
    /// link is up.
    pub sysctls: Vec<Sysctl>,
    pub rates: Rates,
    pub receive: Receive,
    /// Instead of the subnets' own.
    pub gateways: PerFamily<IpAddr>,
}

/// What a link takes beside its own MAC's frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receive {
    /// Everybody's (IFF_PROMISC).
    pub promisc: bool,
    /// Every group's (IFF_ALLMULTI).
    pub allmulti: bool,
    /// These too, and the container may send from them (VRRP).
    pub macs: Vec<MacAddr>,
}

/// `net.ipv4.conf.IFNAME.arp_ignore=1`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    pub family: Family,
    /// `conf`, `neigh`
    folder: String,
    name: String,
    pub value: String,
}

impl EndpointOptions {
    pub fn new(options: &BTreeMap<String, String>) -> Result<Self> {
        let refused = |error| Error::invalid(format!("invalid endpoint settings:\n{error}"));
        let ifname = options.get(IFNAME).map(IfName::new).transpose();
        let sysctls = options.get(SYSCTLS).map_or_else(
            || Ok(Vec::new()),
            |list| {
                list.split(',')
                    .map(|one| Sysctl::parse(one.trim()))
                    .collect()
            },
        );
        let rate = |key| -> Result<Option<Rate>> {
            let text = options.get(key);
            text.map(|text| text.parse()).transpose().map_err(refused)
        };
        Ok(Self {
            ifname: ifname.map_err(refused)?,
            sysctls: sysctls.map_err(refused)?,
            rates: Rates {
                up: rate(RATE_UP)?,
                down: rate(RATE_DOWN)?,
            },
            receive: Receive::new(options).map_err(refused)?,
            gateways: gateways(options).map_err(refused)?,
        })
    }
}

fn gateways(options: &BTreeMap<String, String>) -> Result<PerFamily<IpAddr>> {
    let mut gateways = PerFamily::NONE;
    let texts = options.get(GATEWAY).into_iter().flat_map(|t| t.split(','));
    for text in texts {
        let gateway: IpAddr = text
            .trim()
            .parse()
            .map_err(|_| Error::invalid(format!("invalid gateway address: {text}")))?;
        if gateways.put(gateway).is_some() {
            return Err(Error::invalid(format!(
                "{GATEWAY} has one address of each family at most"
            )));
        }
    }
    Ok(gateways)
}

impl Receive {
    fn new(options: &BTreeMap<String, String>) -> Result<Self> {
        let switch = |key: &str| match options.get(key).map(String::as_str) {
            None | Some("off") => Ok(false),
            Some("on") => Ok(true),
            Some(other) => Err(Error::invalid(format!(
                "{key} is 'on' or 'off', not '{other}'"
            ))),
        };
        let texts = options.get(EXTRA_MAC).into_iter();
        let macs = texts
            .flat_map(|list| list.split(','))
            .map(|text| {
                let mac: MacAddr = text.trim().parse()?;
                match mac.is_multicast() || mac.is_zero() {
                    true => Err(Error::invalid(format!(
                        "{EXTRA_MAC} {mac} is a group or zero address: no interface can own it"
                    ))),
                    false => Ok(mac),
                }
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            promisc: switch(PROMISC)?,
            allmulti: switch(ALLMULTI)?,
            macs,
        })
    }
}

impl Sysctl {
    fn parse(text: &str) -> Result<Self> {
        let unknown = || {
            Error::invalid(format!(
                "unrecognised network interface sysctl '{text}'; represent 'net.X.Y.ethN.Z=V' as \
                 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'"
            ))
        };
        let (key, value) = text.split_once('=').ok_or_else(unknown)?;
        let parts: Vec<&str> = key.split('.').collect();
        let ["net", family, folder, ifname, name] = parts.as_slice() else {
            return Err(unknown());
        };
        let is_word = |word: &str| {
            let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            !word.is_empty() && word.chars().all(ok)
        };
        if !ifname.eq_ignore_ascii_case("ifname") || !is_word(folder) || !is_word(name) {
            return Err(unknown());
        }
        let family = match *family {
            "ipv4" => Family::Ipv4,
            "ipv6" => Family::Ipv6,
            "mpls" => {
                return Err(Error::invalid(format!(
                    "net.mpls sysctls are not supported: '{text}'"
                )));
            }
            _ => return Err(unknown()),
        };
        Ok(Self {
            family,
            folder: (*folder).to_owned(),
            name: (*name).to_owned(),
            value: value.to_owned(),
        })
    }

    /// Which ARP questions are answered.
    pub fn is_arp_ignore(&self) -> bool {
        self.family == Family::Ipv4 && self.folder == "conf" && self.name == "arp_ignore"
    }

    /// Below `/proc/sys/net/<family>`.
    pub fn path(&self, ifname: &IfName) -> String {
        format!("{}/{ifname}/{}", self.folder, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(key: &str, value: &str) -> Result<EndpointOptions> {
        EndpointOptions::new(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn names_and_sysctls() {
        let named = options(IFNAME, "foobar").unwrap();
        assert_eq!(named.ifname.unwrap().as_str(), "foobar");
        let list = "net.ipv4.conf.IFNAME.arp_ignore=1,net.ipv6.conf.ifname.accept_ra=2";
        let sysctls = options(SYSCTLS, list).unwrap().sysctls;
        let eth0 = IfName::new("eth0").unwrap();
        let said: Vec<_> = sysctls
            .iter()
            .map(|s| (s.family, s.path(&eth0), s.value.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                (Family::Ipv4, "conf/eth0/arp_ignore".to_owned(), "1"),
                (Family::Ipv6, "conf/eth0/accept_ra".to_owned(), "2"),
            ]
        );
        assert_eq!(options("other", "x").unwrap(), EndpointOptions::default());
    }

    #[test]
    fn refusals() {
        for bad in [
            "",
            "net.ipv4.conf.eth0.arp_ignore=1",
            "net.ipv4.conf.IFNAME.arp_ignore",
            "net.core.conf.IFNAME.x=1",
            "net.ipv4.../../kernel.IFNAME.x=1",
            "net.ipv4.a/b.IFNAME.x=1",
            "net.ipv4.conf.IFNAME.a/b=1",
        ] {
            let text = options(SYSCTLS, bad).unwrap_err().to_string();
            assert!(
                text.contains("unrecognised network interface sysctl"),
                "{text}"
            );
        }
        let text = options(SYSCTLS, "net.mpls.conf.IFNAME.input=1").unwrap_err();
        assert!(text.to_string().contains("not supported"), "{text}");
        assert!(options(IFNAME, "a name of far too many letters").is_err());
    }
}
