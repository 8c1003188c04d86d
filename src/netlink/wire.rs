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

/// Bytes captured from iproute2 and nft, for the tests of all of `netlink`.
#[cfg(test)]
pub(super) mod golden {
    use super::*;

    pub(in crate::netlink) fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|c| c.to_digit(16))
            .map(|d| u8::try_from(d).unwrap())
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }

    pub(in crate::netlink) type Attrs = Vec<(u16, Vec<u8>)>;

    /// What a request says, whatever the order of its attributes: type, header
    /// of `header` bytes, attributes sorted.
    pub(in crate::netlink) fn said(bytes: &[u8], header: usize) -> (u16, Vec<u8>, Attrs) {
        let message = messages(bytes).next().unwrap().unwrap();
        let (head, rest) = message.payload.split_at(header);
        (message.kind, head.to_vec(), sorted(rest))
    }

    pub(in crate::netlink) fn sorted(bytes: &[u8]) -> Attrs {
        let mut all: Vec<_> = attrs(bytes)
            .map(|attr| attr.map(|(kind, value)| (kind, value.to_vec())).unwrap())
            .collect();
        all.sort();
        all
    }

    /// The same of a message that we built.
    pub(in crate::netlink) fn built(kind: u16, body: &impl Emitable) -> Vec<u8> {
        let mut out = Vec::new();
        append(&mut out, kind, 0, 0, body);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::golden::unhex;
    use super::*;
    use proptest::prelude::*;

    fn only(bytes: &[u8]) -> Message<'_> {
        messages(bytes).next().unwrap().unwrap()
    }

    /// `ip route add default via 192.0.2.1 dev eth0` where 192.0.2.0/24 is not
    /// on the link; iproute2 does not set CAP_ACK, so the request comes back.
    #[test]
    fn refusal_with_extended_ack() {
        let bytes = unhex(
            "6000000002000002e9d9046bc94400009bffffff2c00000018000506e9d9046b00000000
             02000000070300010000000008000500c0000201080004000200000020000100
             4e657874686f702068617320696e76616c6964206761746577617900",
        );
        let verdict = Verdict::of_error(&only(&bytes)).unwrap();
        assert_eq!(verdict.errno, libc::ENETUNREACH);
        assert_eq!(verdict.text.unwrap(), "Nexthop has invalid gateway");
        assert_eq!(verdict.offset, None);
    }

    /// `ip link set lo up`, answered with CAP_ACK.
    #[test]
    fn plain_ack() {
        let bytes =
            unhex("2400000002000001e8d9046b0b440000000000002000000010000500e8d9046b00000000");
        let message = only(&bytes);
        assert_eq!(message.seq, 0x6b04_d9e8);
        assert_eq!(Verdict::of_error(&message).unwrap(), Verdict::default());
    }

    /// "Attribute failed policy validation" with its place, as the kernel
    /// answers with CAP_ACK: capped header, then text and offset.
    #[test]
    fn refusal_with_offset() {
        let mut bytes = Vec::new();
        let at = begin(&mut bytes, 2, NLM_F_CAPPED | NLM_F_ACK_TLVS, 7);
        bytes.extend((-libc::ERANGE).to_ne_bytes());
        bytes.extend([0; HEADER_LEN]);
        bytes.extend(unhex("08000100626164000800020020000000"));
        end(&mut bytes, at);
        let verdict = Verdict::of_error(&only(&bytes)).unwrap();
        assert_eq!(verdict.errno, libc::ERANGE);
        assert_eq!(verdict.text.as_deref(), Some("bad"));
        assert_eq!(verdict.offset, Some(32));
    }

    #[test]
    fn done_carries_a_code() {
        let done = |payload: &[u8]| {
            let mut bytes = Vec::new();
            let at = begin(&mut bytes, 3, 2, 7);
            bytes.extend(payload);
            end(&mut bytes, at);
            Verdict::of_done(&only(&bytes)).unwrap().errno
        };
        assert_eq!(done(&(-libc::EBUSY).to_ne_bytes()), libc::EBUSY);
        assert_eq!(done(&0_i32.to_ne_bytes()), 0);
        // A count, not an error.
        assert_eq!(done(&5_i32.to_ne_bytes()), 0);
        assert_eq!(done(&[]), 0);
    }

    #[test]
    fn text_that_is_not_utf8_keeps_its_length() {
        assert_eq!(text_of(b"eth0\0\0"), "eth0");
        assert_eq!(text_of(b"\xffth\xe90"), "?th?0");
    }

    proptest! {
        /// Whatever arrives: no panic, no endless loop.
        #[test]
        fn any_bytes_can_be_walked(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = attrs(&bytes).count();
            for message in messages(&bytes).flatten() {
                let _ = Verdict::of_error(&message);
                let _ = Verdict::of_done(&message);
            }
            for protocol in [0, 12, 3] {
                let direction = crate::netlink::trace::Direction::In;
                for message in crate::netlink::decode::datagram(direction, protocol, &bytes) {
                    let _ = message.line();
                    let _ = message.json();
                }
            }
        }
    }
}
