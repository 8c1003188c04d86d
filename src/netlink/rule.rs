//! Policy routing rules, read: [`policy`](super::policy) makes them.

use std::net::IpAddr;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::rule::{RuleHeader, RuleMessage};
use serde::{Deserialize, Serialize};

use super::socket::Rtnl;
use super::wire::{self, Malformed};
use crate::base::{Cidr, Result, Subject};
use crate::sys::netns::Place;

const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_OIFNAME: u16 = 17;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub ipv6: bool,
    pub priority: u32,
    /// 253 default, 254 main, 255 local.
    pub table: u32,
    /// FR_ACT_*: 1 look the table up.
    pub action: u8,
    pub src: Option<Cidr>,
    pub dst: Option<Cidr>,
    pub iif: Option<String>,
    pub oif: Option<String>,
    pub fwmark: Option<u32>,
}

impl<P: Place> Rtnl<P> {
    /// Both families, in the kernel's order.
    pub fn rules(&mut self) -> Result<Vec<Rule>> {
        self.channel
            .dump(libc::RTM_GETRULE, &RuleMessage::default(), parse)
            .map_err(|fault| fault.named("list routing rules", Subject::None))
    }
}

/// `None` for families other than IP.
pub(super) fn parse(payload: &[u8]) -> Result<Option<Rule>, Malformed> {
    let header = RuleHeader::parse(payload).map_err(|_| Malformed("rule header"))?;
    let ipv6 = match header.family {
        AddressFamily::Inet => false,
        AddressFamily::Inet6 => true,
        _ => return Ok(None),
    };
    let mut rule = Rule {
        ipv6,
        priority: 0,
        table: u32::from(header.table),
        action: u8::from(header.action),
        src: None,
        dst: None,
        iif: None,
        oif: None,
        fwmark: None,
    };
    for attr in wire::attrs(payload.get(12..).unwrap_or_default()) {
        let (kind, value) = attr?;
        match kind {
            FRA_DST => rule.dst = Some(net(wire::ip_of(value)?, header.dst_len)?),
            FRA_SRC => rule.src = Some(net(wire::ip_of(value)?, header.src_len)?),
            FRA_IIFNAME => rule.iif = Some(wire::text_of(value)),
            FRA_OIFNAME => rule.oif = Some(wire::text_of(value)),
            FRA_PRIORITY => rule.priority = wire::u32_of(value)?,
            FRA_FWMARK => rule.fwmark = Some(wire::u32_of(value)?),
            FRA_TABLE => rule.table = wire::u32_of(value)?,
            _ => {}
        }
    }
    Ok(Some(rule))
}

fn net(addr: IpAddr, prefix: u8) -> Result<Cidr, Malformed> {
    Cidr::new(addr, prefix).map_err(|_| Malformed("prefix length"))
}
