//! Which DHCP servers are there, and would they give out what networks of ours
//! give out too? One DHCPDISCOVER (sent twice, as it may be lost), and nothing
//! after it: offers that nobody takes expire. It is asked for the link's own
//! MAC, so that a server offers what it would offer this host anyway and does
//! not use up an address. The packet is made in `net::dhcp::message`.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetFrame, IpProtocol, Ipv4Packet,
    UdpPacket,
};

use super::{Finding, Use, probe};
use crate::base::{Error, MacAddr, Result};
use crate::net::dhcp::message;
use crate::sys::random;

/// dnsmasq pings an address for three seconds before it offers it.
const PATIENCE: Duration = Duration::from_millis(3500);
/// More servers than a LAN has; somebody may be playing.
const MOST: usize = 16;

#[derive(Debug)]
pub(super) struct Client {
    socket: OwnedFd,
    mac: MacAddr,
    transaction: u32,
    end: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    server: Ipv4Addr,
    offered: Ipv4Addr,
}

impl Client {
    /// `socket` hears IPv4 packets of the link.
    pub(super) fn begin(socket: OwnedFd, mac: MacAddr) -> Result<Self> {
        let client = Self {
            socket,
            mac,
            transaction: u32::from_ne_bytes(random::bytes()?),
            end: Instant::now() + PATIENCE,
        };
        client.discover()?;
        Ok(client)
    }

    fn discover(&self) -> Result<()> {
        let frame = discover(self.mac, self.transaction);
        match send(self.socket.as_raw_fd(), &frame, MsgFlags::MSG_NOSIGNAL) {
            Ok(_) | Err(nix::Error::ENOBUFS | nix::Error::EAGAIN) => Ok(()),
            Err(e) => Err(Error::sys("send", "DHCPDISCOVER", e)),
        }
    }

    /// One a server.
    pub(super) fn offers(&self) -> Result<Vec<Offer>> {
        self.discover()?;
        let mut offers: Vec<Offer> = Vec::new();
        let mut bytes = [0; 1600];
        while let Some(length) = probe::next(&self.socket, &mut bytes, self.end)? {
            let frame = bytes.get(..length).unwrap_or_default();
            if let Some(offer) = offer(frame, self.mac, self.transaction)
                && !offers.iter().any(|o| o.server == offer.server)
                && offers.len() < MOST
            {
                offers.push(offer);
            }
        }
        offers.sort_by_key(|o| o.server);
        Ok(offers)
    }
}

fn discover(mac: MacAddr, transaction: u32) -> Vec<u8> {
    let mut dhcp = message::blank(mac, transaction);
    // The host may have another address by now, or none.
    dhcp.broadcast = true;
    dhcp.parameter_request_list = Some(&[1, 3, 6]);
    message::frame(mac, Ipv4Addr::UNSPECIFIED, &dhcp)
}

pub(super) fn offer(frame: &[u8], mac: MacAddr, transaction: u32) -> Option<Offer> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let ip = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if ip.next_header() != IpProtocol::Udp || ip.frag_offset() != 0 {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    if udp.dst_port() != DHCP_CLIENT_PORT {
        return None;
    }
    let packet = DhcpPacket::new_checked(udp.payload()).ok()?;
    let dhcp = DhcpRepr::parse(&packet).ok()?;
    (dhcp.message_type == DhcpMessageType::Offer
        && dhcp.transaction_id == transaction
        && dhcp.client_hardware_address.0 == mac.0)
        .then(|| Offer {
            server: dhcp.server_identifier.unwrap_or_else(|| ip.src_addr()),
            offered: dhcp.your_ip,
        })
}

pub(super) fn judge(offers: &[Offer], uses: &[Use]) -> Finding {
    let told: Vec<String> = offers
        .iter()
        .map(|o| format!("{} offers {}", o.server, o.offered))
        .collect();
    let told = told.join(", ");
    if offers.is_empty() {
        return match uses.iter().find(|network| network.dhcp) {
            Some(network) => Finding::problem(format!(
                "no server answers, and network {} has its addresses from one",
                network.name
            ))
            .advise(
                "start one on this LAN, or let containers have fixed addresses: \
                 network create --subnet, without --ipam-driver",
            ),
            None => Finding::ok("no server answers"),
        };
    }
    if offers.len() > 1 {
        return Finding::warning(format!("{} servers: {told}", offers.len()))
            .advise("a LAN should have one; turn the others off, or see that they agree");
    }
    let given_out = |network: &&Use| {
        let pools = network.pools.iter();
        let mut ranges = pools.map(|p| p.ip_range.unwrap_or(p.subnet));
        ranges.any(|range| offers.iter().any(|o| range.contains(IpAddr::V4(o.offered))))
    };
    match uses.iter().find(given_out) {
        Some(network) => Finding::warning(format!(
            "{told}, an address that network {} gives out too",
            network.name
        ))
        .advise(
            "keep the two apart: network create --ip-range, outside of what the server gives out",
        ),
        None => Finding::ok(told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Cidr;
    use crate::net::ipam::Pool;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    /// Our own DISCOVER turned into an answer: what RFC 2131 puts where.
    fn answer() -> Vec<u8> {
        let mut bytes = discover(MAC, 0x0102_0304);
        bytes[35] = 67; // source port
        bytes[37] = 68; // destination port
        bytes[42] = 2; // op: BOOTREPLY
        bytes[58..62].copy_from_slice(&[10, 0, 2, 50]); // yiaddr
        bytes[26..30].copy_from_slice(&[10, 0, 2, 1]); // IP source
        assert_eq!(bytes[282..285], [53, 1, 1]);
        bytes[284] = 2; // DHCPOFFER
        bytes
    }

    #[test]
    fn an_offer_is_ours_or_not() {
        let bytes = answer();
        let (server, offered) = (Ipv4Addr::new(10, 0, 2, 1), Ipv4Addr::new(10, 0, 2, 50));
        let expected = Some(Offer { server, offered });
        assert_eq!(offer(&bytes, MAC, 0x0102_0304), expected);
        assert_eq!(offer(&bytes, MAC, 5), None);
        assert_eq!(
            offer(&bytes, MacAddr([2, 0, 0, 0, 0, 2]), 0x0102_0304),
            None
        );
        assert_eq!(offer(&discover(MAC, 0x0102_0304), MAC, 0x0102_0304), None);
        for length in 0..bytes.len() {
            // Whatever it says, it does not fall over.
            let _ = offer(&bytes[..length], MAC, 0x0102_0304);
        }
    }

    #[test]
    fn servers_and_networks() {
        let offer = |last| Offer {
            server: Ipv4Addr::new(10, 0, 2, last),
            offered: Ipv4Addr::new(10, 0, 2, 50),
        };
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let network = |range: Option<&str>| Use {
            name: "mac1".into(),
            pools: vec![Pool {
                subnet: cidr("10.0.2.0/24"),
                ip_range: range.map(cidr),
                gateway: None,
                aux: Default::default(),
            }],
            ..Use::default()
        };
        let verdict = |offers: &[Offer], uses: &[Use]| judge(offers, uses).verdict;
        use super::super::Verdict::{Ok, Problem, Warning};
        assert_eq!(verdict(&[], &[network(None)]), Ok);
        let leased = Use {
            dhcp: true,
            ..Use::default()
        };
        assert_eq!(verdict(&[], std::slice::from_ref(&leased)), Problem);
        assert_eq!(verdict(&[offer(1)], &[leased]), Ok);
        assert_eq!(verdict(&[offer(1)], &[]), Ok);
        assert_eq!(verdict(&[offer(1)], &[network(None)]), Warning);
        assert_eq!(verdict(&[offer(1)], &[network(Some("10.0.2.192/26"))]), Ok);
        assert_eq!(verdict(&[offer(1), offer(2)], &[]), Warning);
    }
}
