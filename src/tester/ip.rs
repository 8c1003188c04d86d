//! `ip addr|link|route`, read through our own netlink.
