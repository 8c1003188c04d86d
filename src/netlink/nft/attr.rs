//! Writing nf_tables attributes: numbers are big-endian here, unlike in
//! rtnetlink, and nests carry NLA_F_NESTED.

use netlink_packet_core::NLA_F_NESTED;

use crate::netlink::wire;

pub(super) fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let at = open(out, kind);
    out.extend_from_slice(value);
    close(out, at);
}

/// With the terminating NUL.
pub(super) fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    let at = open(out, kind);
    out.extend_from_slice(value.as_bytes());
    out.push(0);
    close(out, at);
}

pub(super) fn be32(out: &mut Vec<u8>, kind: u16, value: u32) {
    put(out, kind, &value.to_be_bytes());
}

pub(super) fn be64(out: &mut Vec<u8>, kind: u16, value: u64) {
    put(out, kind, &value.to_be_bytes());
}

pub(super) fn nest(out: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = open(out, kind | NLA_F_NESTED);
    fill(out);
    close(out, at);
}

/// `NFTA_DATA_VALUE` in a nest, as keys, operands and map data are given.
pub(super) fn data(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    const NFTA_DATA_VALUE: u16 = 1;
    nest(out, kind, |out| put(out, NFTA_DATA_VALUE, value));
}

fn open(out: &mut Vec<u8>, kind: u16) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&kind.to_ne_bytes());
    at
}

/// An attribute holds 64 KiB at most: element lists are split before that,
/// and everything else is far smaller.
fn close(out: &mut Vec<u8>, at: usize) {
    let len = u16::try_from(out.len() - at).unwrap_or(u16::MAX);
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&len.to_ne_bytes());
    }
    out.resize(wire::align(out.len()), 0);
}
