//! Netlink framing: headers, attributes and the extended ACK, as bytes.
//!
//! Requests are built from netlink-packet-route's types; answers are walked
//! attribute by attribute here. That way one attribute this program never
//! heard of (or a driver fills in a new way) cannot hide a whole link, and a
//! dump costs a tenth of decoding everything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{Emitable, NLM_F_ACK_TLVS, NLM_F_CAPPED};

use crate::base::MacAddr;

/// `struct nlmsghdr`
pub const HEADER_LEN: usize = 16;
/// The two high bits of an attribute's type (nested, network byte order).
const TYPE_MASK: u16 = 0x3fff;

/// Bytes that do not have the shape they should; the text says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    pub payload: &'a [u8],
}

/// Netlink pads messages and attributes to four bytes.
pub const fn align(len: usize) -> usize {
    (len + 3) & !3
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// The messages of one datagram, up to the first malformed header.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = Result<Message<'_>, Malformed>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = first_message(rest);
        rest = match &message {
            Some(m) => rest
                .get(align(HEADER_LEN + m.payload.len())..)
                .unwrap_or_default(),
            None => &[],
        };
        Some(message.ok_or(Malformed("message header")))
    })
}

fn first_message(bytes: &[u8]) -> Option<Message<'_>> {
    let len = usize::try_from(u32::from_ne_bytes(take(bytes, 0)?)).ok()?;
    Some(Message {
        kind: u16::from_ne_bytes(take(bytes, 4)?),
        flags: u16::from_ne_bytes(take(bytes, 6)?),
        seq: u32::from_ne_bytes(take(bytes, 8)?),
        payload: bytes.get(HEADER_LEN..len)?,
    })
}

/// Appends one message to a datagram. The port number stays 0: the kernel
/// knows the sender from the socket.
pub fn append(out: &mut Vec<u8>, kind: u16, flags: u16, seq: u32, body: &impl Emitable) {
    let at = begin(out, kind, flags, seq);
    let start = out.len();
    out.resize(start + body.buffer_len(), 0);
    if let Some(place) = out.get_mut(start..) {
        body.emit(place);
    }
    end(out, at);
}

/// Opens a message; [`end`] closes it and fills in the length.
pub fn begin(out: &mut Vec<u8>, kind: u16, flags: u16, seq: u32) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&flags.to_ne_bytes());
    out.extend_from_slice(&seq.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    at
}

pub fn end(out: &mut Vec<u8>, at: usize) {
    // Four gigabytes do not fit into a datagram, so the length always fits.
    let len = u32::try_from(out.len() - at).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(at..at + 4) {
        place.copy_from_slice(&len.to_ne_bytes());
    }
    out.resize(align(out.len()), 0);
}

/// The attributes in `rest` as (type without flag bits, value).
pub fn attrs(mut rest: &[u8]) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    std::iter::from_fn(move || {
        // Fewer than four bytes are padding.
        if rest.len() < 4 {
            return None;
        }
        let attr = first_attr(rest);
        rest = match attr {
            Some((_, value)) => rest.get(align(4 + value.len())..).unwrap_or_default(),
            None => &[],
        };
        Some(attr.ok_or(Malformed("attribute header")))
    })
}

fn first_attr(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let len = usize::from(u16::from_ne_bytes(take(bytes, 0)?));
    let kind = u16::from_ne_bytes(take(bytes, 2)?) & TYPE_MASK;
    Some((kind, bytes.get(4..len)?))
}

/// The value of the first attribute of this type.
pub fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attrs(bytes)
        .filter_map(Result::ok)
        .find_map(|(kind, value)| (kind == wanted).then_some(value))
}

pub fn u8_of(value: &[u8]) -> Result<u8, Malformed> {
    value.first().copied().ok_or(Malformed("8-bit number"))
}

pub fn u16_of(value: &[u8]) -> Result<u16, Malformed> {
    take(value, 0)
        .map(u16::from_ne_bytes)
        .ok_or(Malformed("16-bit number"))
}

pub fn u32_of(value: &[u8]) -> Result<u32, Malformed> {
    take(value, 0)
        .map(u32::from_ne_bytes)
        .ok_or(Malformed("32-bit number"))
}

pub fn i32_of(value: &[u8]) -> Result<i32, Malformed> {
    take(value, 0)
        .map(i32::from_ne_bytes)
        .ok_or(Malformed("32-bit number"))
}

/// Names may hold any byte but NUL and `/`; what is not UTF-8 is replaced byte
/// by byte (so the length limits still hold), which is good enough to print it.
pub fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    let text = value.get(..end).unwrap_or_default();
    match std::str::from_utf8(text) {
        Ok(text) => text.to_owned(),
        Err(_) => text
            .iter()
            .map(|b| if b.is_ascii() { char::from(*b) } else { '?' })
            .collect(),
    }
}

/// `None` for addresses that are not six bytes long (tunnels, InfiniBand).
pub fn mac_of(value: &[u8]) -> Option<MacAddr> {
    value.try_into().ok().map(MacAddr)
}

pub fn ip_of(value: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        Ok(Ipv4Addr::from(v4).into())
    } else if let Ok(v6) = <[u8; 16]>::try_from(value) {
        Ok(Ipv6Addr::from(v6).into())
    } else {
        Err(Malformed("address"))
    }
}

/// The kernel's verdict on a request: `NLMSG_ERROR` (errno 0 is the ACK) or
/// the code in `NLMSG_DONE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub errno: i32,
    pub text: Option<String>,
    /// Where in the request the refused attribute starts.
    pub offset: Option<u32>,
}

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLMSGERR_ATTR_OFFS: u16 = 2;
const NLMSGERR_ATTR_MISS_TYPE: u16 = 5;

impl Verdict {
    /// `struct nlmsgerr`: the code, the request's header (and, without
    /// CAP_ACK, the request), then the TLVs.
    pub fn of_error(message: &Message<'_>) -> Result<Self, Malformed> {
        let code = i32_of(message.payload)?;
        let echoed = if message.flags & NLM_F_CAPPED != 0 || code == 0 {
            HEADER_LEN
        } else {
            let len = message.payload.get(4..).unwrap_or_default();
            align(usize::try_from(u32_of(len)?).map_err(|_| Malformed("length"))?)
        };
        Self::new(code, message, 4 + echoed)
    }

    /// The code (absent where the kernel has nothing to say), then the TLVs.
    pub fn of_done(message: &Message<'_>) -> Result<Self, Malformed> {
        if message.payload.is_empty() {
            return Ok(Self::default());
        }
        Self::new(i32_of(message.payload)?, message, 4)
    }

    fn new(code: i32, message: &Message<'_>, tlvs: usize) -> Result<Self, Malformed> {
        let mut verdict = Self {
            // A positive code is a count, not an error (some dumps send one).
            errno: code.checked_neg().unwrap_or(libc::EIO).max(0),
            ..Self::default()
        };
        if message.flags & NLM_F_ACK_TLVS == 0 {
            return Ok(verdict);
        }
        for attr in attrs(message.payload.get(tlvs..).unwrap_or_default()) {
            let (kind, value) = attr?;
            match kind {
                NLMSGERR_ATTR_MSG => verdict.text = Some(text_of(value)),
                NLMSGERR_ATTR_OFFS => verdict.offset = Some(u32_of(value)?),
                NLMSGERR_ATTR_MISS_TYPE if verdict.text.is_none() => {
                    verdict.text = Some(format!("attribute {} is missing", u32_of(value)?));
                }
                _ => {}
            }
        }
        Ok(verdict)
    }
}
