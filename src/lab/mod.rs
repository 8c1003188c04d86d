//! A LAN in a box: a switch, a gateway, a host with `eth1`, other machines,
//! each in a network namespace of its own, with no way out.

use std::net::Ipv4Addr;

use crate::base::{IfName, Result};
use crate::sys::netns::{Netns, Sandbox};

/// A machine of the lab.
#[derive(Debug)]
pub struct Machine {
    pub name: String,
    pub netns: Netns<Sandbox>,
    /// `eth1` on the host, `eth0` elsewhere.
    pub ifname: IfName,
    pub ip: Ipv4Addr,
}

/// The whole LAN; dropping it closes the namespaces, and the kernel removes
/// the rest.
#[derive(Debug)]
pub struct Lab {
    /// 10.0.2.1
    pub gateway: Machine,
    /// 10.0.2.4, with the parent link `eth1`
    pub host: Machine,
    /// 10.0.2.7, 10.0.2.8, …
    pub others: Vec<Machine>,
}

impl Lab {
    /// 10.0.2.0/24 with `others` further machines on one switch.
    pub fn new(_others: usize) -> Result<Self> {
        todo!()
    }
}

/// Re-executes this program in a fresh user (when not root), mount and network
/// namespace whose only network is a lab's host machine; returns the child's
/// view in the child. When the system forbids user namespaces, the error names
/// the switch (sysctl file, AppArmor, seccomp) and the way on.
pub fn enter() -> Result<()> {
    todo!()
}
