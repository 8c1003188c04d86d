//! A LAN in a box: a switch, a gateway, a host with `eth1`, other machines,
//! each in a network namespace of its own, with no way out.
//!
//! ```text
//!   gateway 10.0.2.1 eth0 ──┐
//!   host    10.0.2.4 eth1 ──┼── br0   the switch, a namespace without addresses
//!   other1  10.0.2.7 eth0 ──┤
//!   other2  10.0.2.8 eth0 ──┘
//! ```
//!
//! The gateway routes nowhere: a packet that leaves the subnet ends there. IPv6
//! is off in every namespace, so that nothing waits for duplicate address
//! detection and captures show what the test sent. [`Lab::add_ipv6`] gives the
//! machines `fd00:2::1`, `::4`, `::7`, … on the same LAN.
//!
//! [`Lab::new`] keeps the host machine in a namespace of its own, for tests
//! that run side by side. [`enter`] and [`Lab::here`] make the calling process
//! the host machine, for the demo.

pub mod ask;
pub mod capture;
pub mod contain;
mod enter;
mod machine;
pub mod snapshot;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::base::{Cidr, Error, IfName, MacAddr, Result};
use crate::netlink::Rtnl;
use crate::netlink::route::Configure;
use crate::sys::netns::{Host, Netns, Sandbox};

pub use enter::enter;
pub use machine::Machine;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 1);
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 4);
const FIRST_OTHER: u8 = 7;
const PREFIX: u8 = 24;
const PREFIX_V6: u8 = 64;
/// IF_OPER_UP: the kernel has seen the carrier and started the queues.
const OPER_UP: u8 = 6;
/// Links are ready within a millisecond; this is for a machine in trouble.
const READY_LIMIT: Duration = Duration::from_secs(10);

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
    /// Held open: the bridge lives in it.
    switch: Netns<Sandbox>,
}

impl Lab {
    /// 10.0.2.0/24 with `others` further machines on one switch.
    pub fn new(others: usize) -> Result<Self> {
        Self::around(Netns::create()?, others)
    }

    /// The same, with the calling thread's own network namespace (a fresh one:
    /// see [`enter`]) as the host machine.
    pub fn here(others: usize) -> Result<Self> {
        let own = Netns::<Host>::current()?;
        Self::around(Netns::from_fd(own.into())?, others)
    }

    fn around(host: Netns<Sandbox>, others: usize) -> Result<Self> {
        let switch = Netns::create()?;
        machine::quiet(&switch)?;
        let mut wiring = Wiring::new(&switch)?;
        let gateway = wiring.plug("gateway", Netns::create()?, "eth0", GATEWAY)?;
        let host = wiring.plug("host", host, "eth1", HOST)?;
        let others = (0..others)
            .map(|n| {
                let last = u8::try_from(n)
                    .ok()
                    .and_then(|n| FIRST_OTHER.checked_add(n))
                    .filter(|last| *last < u8::MAX)
                    .ok_or_else(|| Error::invalid("too many machines for the lab's /24"))?;
                let ip = Ipv4Addr::new(10, 0, 2, last);
                wiring.plug(&format!("other{}", n + 1), Netns::create()?, "eth0", ip)
            })
            .collect::<Result<Vec<_>>>()?;
        wiring.wait_ready()?;
        Ok(Self {
            gateway,
            host,
            others,
            switch,
        })
    }

    /// An address in fd00:2::/64 for each machine, its last number that of its
    /// IPv4 address; usable at once. Default routes as in IPv4.
    pub fn add_ipv6(&self) -> Result<()> {
        let ip = |last: u8| Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, u16::from(last));
        let [.., gateway] = GATEWAY.octets();
        for machine in [&self.gateway, &self.host].into_iter().chain(&self.others) {
            machine::wake(&machine.netns, &machine.ifname)?;
            let mut rtnl = machine.rtnl()?;
            let link = rtnl
                .link(machine.ifname.as_str())?
                .ok_or_else(|| Error::sys("find link", &machine.ifname, libc::ENODEV))?;
            let [.., last] = machine.ip.octets();
            rtnl.add_addr(link.index, Cidr::new(ip(last).into(), PREFIX_V6)?)?;
            if last != gateway {
                rtnl.add_default(ip(gateway).into(), link.index)?;
            }
        }
        Ok(())
    }

    /// The namespace of the switch, for captures of everything on the LAN.
    pub fn switch(&self) -> &Netns<Sandbox> {
        &self.switch
    }
}

/// The switch while machines are being plugged in.
#[derive(Debug)]
struct Wiring {
    switch: Rtnl<Sandbox>,
    bridge: IfName,
    /// Sockets of the machines and their links' names, until these are ready.
    machines: Vec<(Rtnl<Sandbox>, IfName)>,
}

impl Wiring {
    fn new(netns: &Netns<Sandbox>) -> Result<Self> {
        let mut switch = Rtnl::sandbox(netns)?;
        let bridge = IfName::new("br0")?;
        let index = switch.bridge(&bridge)?;
        switch.set_up(index)?;
        Ok(Self {
            switch,
            bridge,
            machines: Vec::new(),
        })
    }

    /// A cable from the switch to a machine, and the machine's end configured.
    fn plug(
        &mut self,
        name: &str,
        netns: Netns<Sandbox>,
        ifname: &str,
        ip: Ipv4Addr,
    ) -> Result<Machine> {
        machine::quiet(&netns)?;
        let ifname = IfName::new(ifname)?;
        let port = IfName::new(format!("to-{name}"))?;
        self.switch.veth(&port, &ifname, &netns)?;
        let bridge = self.index(&self.bridge.clone())?;
        let port = self.index(&port)?;
        self.switch.set_master(port, Some(bridge))?;
        self.switch.set_up(port)?;

        let mut rtnl = Rtnl::sandbox(&netns)?;
        let link = rtnl
            .link(ifname.as_str())?
            .ok_or_else(|| Error::sys("find link", &ifname, libc::ENODEV))?;
        let [a, b, c, d] = ip.octets();
        let configure = Configure {
            loopback_up: true,
            // Recognisable in captures, and not what a container would get.
            mac: Some(MacAddr([0x02, 0x1a, a, b, c, d])),
            addrs: vec![Cidr::new(ip.into(), PREFIX)?],
            up: true,
            gateways: (ip != GATEWAY)
                .then_some(IpAddr::V4(GATEWAY))
                .into_iter()
                .collect(),
        };
        rtnl.configure(link.index, &configure)?;
        self.machines.push((rtnl, ifname.clone()));
        Ok(Machine {
            name: name.to_owned(),
            netns,
            ifname,
            ip,
        })
    }

    fn index(&mut self, name: &IfName) -> Result<crate::netlink::Ifindex<Sandbox>> {
        match self.switch.link(name.as_str())? {
            Some(link) => Ok(link.index),
            None => Err(Error::sys("find link", name, libc::ENODEV)),
        }
    }

    /// Until both ends of every cable have their carrier and forward: asked,
    /// not slept for.
    fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_LIMIT;
        while !self.ready()? {
            if Instant::now() > deadline {
                return Err(Error::state(
                    "build lab",
                    &self.bridge,
                    "its links did not come up",
                ));
            }
            std::thread::sleep(Duration::from_micros(300));
        }
        Ok(())
    }

    fn ready(&mut self) -> Result<bool> {
        let ports_up = self
            .switch
            .links()?
            .iter()
            .all(|l| l.operstate == OPER_UP || l.name.as_str() == "lo");
        if !ports_up {
            return Ok(false);
        }
        for (rtnl, ifname) in &mut self.machines {
            if rtnl
                .link(ifname.as_str())?
                .is_none_or(|l| l.operstate != OPER_UP)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
