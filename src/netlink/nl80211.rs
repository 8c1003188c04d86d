//! What a Wi-Fi interface is, as nl80211 says (linux/nl80211.h), by generic
//! netlink.
//!
//! Generic netlink numbers its families as their modules come. The number is
//! read from the list of all families, not asked for by name: a question for a
//! name loads the module of that name (net/netlink/genetlink.c), and who only
//! looks must not.

use netlink_packet_core::Emitable;
use netlink_sys::protocols::NETLINK_GENERIC;

use super::link::Ifindex;
use super::socket::Channel;
use super::wire::{self, Malformed};
use crate::base::{Error, Result, Subject};
use crate::sys::netns::Host;

/// GENL_ID_CTRL, CTRL_CMD_GETFAMILY and its attributes (linux/genetlink.h).
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// NL80211_CMD_GET_INTERFACE and NL80211_ATTR_*.
const GET_INTERFACE: u8 = 5;
const IFINDEX: u16 = 3;
const IFTYPE: u16 = 5;
const FOUR_ADDRESSES: u16 = 83;

/// `struct genlmsghdr`
const HEADER_LEN: usize = 4;

/// `enum nl80211_iftype`, by whose frames an interface carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wifi {
    /// Of an access point, or of a Wi-Fi Direct group's owner.
    Station,
    /// Its frames name sender and receiver beside those on the air (WDS).
    FourAddressStation,
    AccessPoint,
    Mesh,
    /// Without an access point: an IBSS, or outside of any (OCB).
    AdHoc,
    /// By its number: a monitor, or newer than this program.
    Other(u32),
}

/// One request: its command and one number, if it asks for one.
struct Question(u8, Option<(u16, u32)>);

impl Emitable for Question {
    fn buffer_len(&self) -> usize {
        HEADER_LEN + if self.1.is_some() { 8 } else { 0 }
    }

    fn emit(&self, buffer: &mut [u8]) {
        let mut bytes = vec![self.0, 1, 0, 0];
        if let Some((kind, value)) = self.1 {
            bytes.extend(8_u16.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
        }
        buffer.copy_from_slice(&bytes);
    }
}

/// What the link is to nl80211 of the caller's namespace; `None` if it is no
/// Wi-Fi interface to it. ENOENT: the kernel has no nl80211, at least not yet.
pub fn interface(index: Ifindex<Host>) -> Result<Option<Wifi>> {
    let failed = |cause| Error::sys("ask nl80211", Subject::None, cause);
    let mut channel = Channel::here(NETLINK_GENERIC)?;
    let families = channel
        .dump(CONTROL, &Question(GET_FAMILY, None), family)
        .map_err(|fault| fault.named("list families of generic netlink", Subject::None))?;
    let number = families.first().ok_or_else(|| failed(libc::ENOENT))?;
    let question = Question(GET_INTERFACE, Some((IFINDEX, index.get())));
    match channel.get(*number, &question, parse) {
        Ok(Some(wifi)) => Ok(Some(wifi)),
        Ok(None) => Err(failed(libc::ENODATA)),
        Err(fault) if fault.errno() == libc::ENODEV => Ok(None),
        Err(fault) => Err(fault.named("ask nl80211", Subject::None)),
    }
}

/// The number of the family nl80211.
pub(super) fn family(payload: &[u8]) -> std::result::Result<Option<u16>, Malformed> {
    let attributes = payload.get(HEADER_LEN..).unwrap_or_default();
    match wire::find(attributes, FAMILY_NAME).map(wire::text_of) {
        Some(name) if name == "nl80211" => {
            let number = wire::find(attributes, FAMILY_ID).unwrap_or_default();
            wire::u16_of(number).map(Some)
        }
        _ => Ok(None),
    }
}

pub(super) fn parse(payload: &[u8]) -> std::result::Result<Wifi, Malformed> {
    let attributes = payload.get(HEADER_LEN..).unwrap_or_default();
    let kind = wire::u32_of(wire::find(attributes, IFTYPE).unwrap_or_default())?;
    let has_four = wire::find(attributes, FOUR_ADDRESSES).map(wire::u8_of);
    // NL80211_IFTYPE_*: a client of Wi-Fi Direct (8) is a station, the owner of
    // its group (9) an access point, and so is an AP_VLAN (4).
    Ok(match kind {
        2 if has_four.transpose()?.is_some_and(|four| four != 0) => Wifi::FourAddressStation,
        2 | 8 => Wifi::Station,
        3 | 4 | 9 => Wifi::AccessPoint,
        7 => Wifi::Mesh,
        1 | 11 => Wifi::AdHoc,
        other => Wifi::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::super::wire::golden::built;
    use super::*;

    fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [len.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(wire::align(bytes.len()), 0);
        bytes
    }

    fn answer(attributes: &[Vec<u8>]) -> Vec<u8> {
        [&[7, 1, 0, 0], &attributes.concat()[..]].concat()
    }

    #[test]
    fn questions_are_whole_messages() {
        let list = built(CONTROL, &Question(GET_FAMILY, None));
        assert_eq!(list.get(16..), Some(&[3, 1, 0, 0][..]));
        let one = built(30, &Question(GET_INTERFACE, Some((IFINDEX, 9))));
        assert_eq!(one[16..20], [5, 1, 0, 0]);
        assert_eq!(
            wire::find(&one[20..], IFINDEX),
            Some(&9_u32.to_ne_bytes()[..])
        );
    }

    #[test]
    fn a_family_is_known_by_its_name() {
        let id = attr(FAMILY_ID, &30_u16.to_ne_bytes());
        let name = |name: &[u8]| attr(FAMILY_NAME, name);
        let one = |attributes: &[Vec<u8>]| family(&answer(attributes));
        assert_eq!(one(&[name(b"nl80211\0"), id.clone()]), Ok(Some(30)));
        assert_eq!(one(&[id.clone(), name(b"nl80211x\0")]), Ok(None));
        assert_eq!(one(&[id]), Ok(None));
        assert!(one(&[name(b"nl80211\0")]).is_err());
        assert_eq!(family(&[]), Ok(None));
    }

    #[test]
    fn four_addresses_are_a_station_s() {
        let kind = |kind: u32| attr(IFTYPE, &kind.to_ne_bytes());
        let four = |on: u8| attr(FOUR_ADDRESSES, &[on]);
        let told = |attributes: &[Vec<u8>]| parse(&answer(attributes));
        assert_eq!(told(&[kind(2)]), Ok(Wifi::Station));
        assert_eq!(told(&[kind(2), four(0)]), Ok(Wifi::Station));
        assert_eq!(told(&[four(1), kind(2)]), Ok(Wifi::FourAddressStation));
        assert_eq!(told(&[kind(4), four(1)]), Ok(Wifi::AccessPoint));
        assert_eq!(told(&[kind(6)]), Ok(Wifi::Other(6)));
        // Cut off, or not there.
        assert!(told(&[attr(IFTYPE, &[2])]).is_err());
        assert!(told(&[four(1)]).is_err());
        assert!(parse(&[]).is_err());
    }
}
