//! Every message as a line, JSON or pcap.

/// Before a datagram leaves.
pub(super) fn sent(_protocol: u8, _datagram: &[u8]) {}

/// After a datagram has come.
pub(super) fn received(_protocol: u8, _datagram: &[u8]) {}
