//! Who would hear a request to an alias: services listening in the container.
//!
//! /proc/net/tcp lists listening sockets before all others (net/ipv4/tcp_ipv4.c,
//! `tcp_get_idx`), so reading ends at the first that does not listen, however
//! many connections there are.

use std::fs::File;
use std::io::{BufRead, BufReader};

use crate::base::Result;
use crate::sys::netns::{Netns, Sandbox};

/// TCP ports with a listening socket, and whether it is on any address.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Listeners(Vec<(u16, bool)>);

impl Listeners {
    pub(super) fn of(netns: &Netns<Sandbox>) -> Result<Self> {
        netns.run(|| {
            let mut found = Self::default();
            for path in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
                // A kernel without IPv6 has no such file.
                if let Ok(file) = File::open(path) {
                    found.read(BufReader::with_capacity(4096, file));
                }
            }
            Ok(found)
        })
    }

    fn read(&mut self, table: impl BufRead) {
        let lines = table.lines().map_while(std::result::Result::ok).skip(1);
        self.0.extend(lines.map_while(|line| listener(&line)));
    }

    /// Does anybody listen on this port?
    pub(super) fn any(&self, port: u16) -> bool {
        self.0.iter().any(|(p, _)| *p == port)
    }

    /// Somebody listens, but not on any address.
    pub(super) fn deaf(&self, port: u16) -> bool {
        self.any(port) && !self.0.contains(&(port, true))
    }
}

/// `0: 0100007F:1F90 00000000:0000 0A …`: the local address in hex, its state.
fn listener(line: &str) -> Option<(u16, bool)> {
    const TCP_LISTEN: &str = "0A";
    let mut words = line.split_ascii_whitespace().skip(1);
    let local = words.next()?;
    if words.nth(1)? != TCP_LISTEN {
        return None;
    }
    let (addr, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((port, addr.bytes().all(|digit| digit == b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_on_any_address_and_on_one() {
        let v4 = "  sl  local_address rem_address   st tx_queue rx_queue\n\
                  \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
                  \x20  1: 00000000:0050 00000000:0000 0A 00000000:00000000\n\
                  \x20  2: 0502000A:0051 0702000A:9999 01 00000000:00000000\n\
                  \x20  3: 00000000:0052 00000000:0000 0A 00000000:00000000\n";
        let v6 = "  sl  local_address                         remote_address   st\n\
                  \x20  0: 00000000000000000000000000000000:01BB 0000:0000 0A 0\n\
                  \x20  1: 0000000000000000FFFF00000502000A:01BC 0000:0000 0A 0\n";
        let mut found = Listeners::default();
        found.read(v4.as_bytes());
        found.read(v6.as_bytes());
        assert!(found.deaf(8080) && !found.deaf(80) && !found.deaf(443) && found.deaf(444));
        assert!(found.any(80) && !found.any(81) && !found.deaf(81));
        // Behind the first connection nothing is read.
        assert!(!found.any(82));
    }
}
