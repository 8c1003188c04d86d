//! The proxy: splice for TCP, per-peer flows for UDP.
