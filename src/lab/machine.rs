//! One machine of the lab: its namespace, and running things in it.

use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Output};

use crate::base::{Error, IfName, Result, Subject};
use crate::netlink::Rtnl;
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

impl Machine {
    /// Runs `f` in the machine's network, on a thread of its own. Sockets that
    /// it opens and processes that it starts belong to the machine.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.netns.run(f)
    }

    /// Starts a program in the machine's network.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.run(|| {
            let started = command.spawn();
            started.map_err(|e| failed(command, &e))
        })
    }

    /// Runs a program in the machine's network to its end.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        self.run(|| {
            let output = command.output();
            output.map_err(|e| failed(command, &e))
        })
    }

    /// An rtnetlink socket in the machine's network.
    pub fn rtnl(&self) -> Result<Rtnl<Sandbox>> {
        Rtnl::sandbox(&self.netns)
    }
}

fn failed(command: &Command, error: &std::io::Error) -> Error {
    let program = command.get_program().to_string_lossy().into_owned();
    Error::sys("start", Subject::Text(program), error)
}

/// IPv6 off for all present and future links.
pub(super) fn quiet(netns: &Netns<Sandbox>) -> Result<()> {
    let off = ["all", "default"].map(|which| disable_ipv6(netns, which, "1"));
    for written in off {
        match written {
            // A kernel without IPv6 is quiet already.
            Err(e) if e.is_errno(libc::ENOENT) => {}
            written => written?,
        }
    }
    Ok(())
}

/// IPv6 on for one link.
pub(super) fn wake(netns: &Netns<Sandbox>, ifname: &IfName) -> Result<()> {
    disable_ipv6(netns, ifname.as_str(), "0")
}

/// A sysctl below /proc/sys/net is that of the namespace of the thread that
/// opens it.
fn disable_ipv6(netns: &Netns<Sandbox>, which: &str, value: &str) -> Result<()> {
    netns.run(|| {
        let path = format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6");
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| file.write_all(value.as_bytes()))
            .map_err(|e| Error::sys("write", path.as_str(), e))
    })
}
