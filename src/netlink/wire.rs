//! Framing and the extended ACK.
