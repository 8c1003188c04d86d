//! Which DHCP servers are there, and would they give out what networks of ours
//! give out too? One DHCPDISCOVER (sent twice, as it may be lost), and nothing
//! after it: offers that nobody takes expire. It is asked for the link's own
//! MAC, so that a server offers what it would offer this host anyway and does
//! not use up an address. Wire format by smoltcp.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
    EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
    UdpRepr,
};

use super::{Finding, Use, probe};
use crate::base::{Error, MacAddr, Result};
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
    let own = EthernetAddress(mac.0);
    let nowhere = Ipv4Addr::UNSPECIFIED;
    let dhcp = DhcpRepr {
        message_type: DhcpMessageType::Discover,
        transaction_id: transaction,
        secs: 0,
        client_hardware_address: own,
        client_ip: nowhere,
        your_ip: nowhere,
        server_ip: nowhere,
        router: None,
        subnet_mask: None,
        relay_agent_ip: nowhere,
        // The host may have another address by now, or none.
        broadcast: true,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: Some(&[1, 3, 6]),
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let udp = UdpRepr {
        src_port: DHCP_CLIENT_PORT,
        dst_port: DHCP_SERVER_PORT,
    };
    let length = dhcp.buffer_len();
    let ip = Ipv4Repr {
        src_addr: nowhere,
        dst_addr: Ipv4Addr::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + length,
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: own,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    };
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    let write = |payload: &mut [u8]| {
        // The buffer is of the length that it asked for: it cannot fail.
        let _ = dhcp.emit(&mut DhcpPacket::new_unchecked(payload));
    };
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        length,
        write,
        &checksums,
    );
    bytes
}

fn offer(frame: &[u8], mac: MacAddr, transaction: u32) -> Option<Offer> {
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
        return Finding::ok("no server answers");
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
        use super::super::Verdict::{Ok, Warning};
        assert_eq!(verdict(&[], &[network(None)]), Ok);
        assert_eq!(verdict(&[offer(1)], &[]), Ok);
        assert_eq!(verdict(&[offer(1)], &[network(None)]), Warning);
        assert_eq!(verdict(&[offer(1)], &[network(Some("10.0.2.192/26"))]), Ok);
        assert_eq!(verdict(&[offer(1), offer(2)], &[]), Warning);
    }
}
