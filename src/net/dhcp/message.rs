//! DHCP packets as bytes, by smoltcp. Of what comes in, only a whole reply to
//! this client is anything at all; options in several parts are put together
//! (RFC 3396).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr,
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};

use super::Identity;
use crate::base::MacAddr;

/// Numbers of options (RFC 2132, 3397, 3442, 4361).
pub(super) mod code {
    pub(in super::super) const SUBNET_MASK: u8 = 1;
    pub(in super::super) const ROUTER: u8 = 3;
    pub(in super::super) const DNS: u8 = 6;
    pub(in super::super) const HOST_NAME: u8 = 12;
    pub(in super::super) const DOMAIN_NAME: u8 = 15;
    pub(in super::super) const MTU: u8 = 26;
    pub(in super::super) const NTP: u8 = 42;
    pub(in super::super) const LEASE_TIME: u8 = 51;
    pub(in super::super) const MESSAGE_TYPE: u8 = 53;
    pub(in super::super) const SERVER: u8 = 54;
    pub(in super::super) const MESSAGE: u8 = 56;
    pub(in super::super) const RENEWAL: u8 = 58;
    pub(in super::super) const REBINDING: u8 = 59;
    pub(in super::super) const CLIENT_ID: u8 = 61;
    pub(in super::super) const DOMAIN_SEARCH: u8 = 119;
    pub(in super::super) const CLASSLESS_ROUTES: u8 = 121;
}

/// What we ask for; 121 before 3, as RFC 3442 wants it.
const WANTED: [u8; 11] = [
    code::SUBNET_MASK,
    code::CLASSLESS_ROUTES,
    code::ROUTER,
    code::DNS,
    code::DOMAIN_NAME,
    code::MTU,
    code::NTP,
    code::LEASE_TIME,
    code::RENEWAL,
    code::REBINDING,
    code::DOMAIN_SEARCH,
];
/// Ethernet's 1500, less IP and UDP headers.
const MAX_SIZE: u16 = 1472;
const COOKIE: u32 = 0x6382_5363;
/// Options of one reply, put together. No packet has more.
const MOST: usize = 4096;

/// What a server may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Offer,
    Ack,
    Nak,
}

/// A server's message to this client; its transaction is the machine's to
/// judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: Kind,
    pub(super) xid: u32,
    pub(super) your_ip: Ipv4Addr,
    pub(super) server: Option<Ipv4Addr>,
    pub(super) options: BTreeMap<u8, Vec<u8>>,
}

impl Reply {
    pub(super) fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
    }

    /// Four bytes.
    pub(super) fn number(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.option(code)?.try_into().ok()?))
    }

    pub(super) fn short(&self, code: u8) -> Option<u16> {
        Some(u16::from_be_bytes(self.option(code)?.try_into().ok()?))
    }

    /// None where the length is not that of whole addresses.
    pub(super) fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        let bytes = self.option(code).unwrap_or_default();
        let (addresses, []) = bytes.as_chunks::<4>() else {
            return Vec::new();
        };
        addresses.iter().copied().map(Ipv4Addr::from).collect()
    }

    /// Why a server says no, in its own words: printable, and no essay.
    pub(super) fn text(&self) -> String {
        let bytes = self.option(code::MESSAGE).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes);
        let printable = text.chars().filter(|c| !c.is_control());
        printable.take(100).collect()
    }
}

/// The reply in an Ethernet frame, if it is one to this client.
pub(super) fn parse(frame: &[u8], identity: &Identity) -> Option<Reply> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if ip.next_header() != IpProtocol::Udp || ip.frag_offset() != 0 || ip.more_frags() {
        return None;
    }
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    if udp.dst_port() != DHCP_CLIENT_PORT {
        return None;
    }
    let packet = DhcpPacket::new_checked(udp.payload()).ok()?;
    let is_ours = packet.opcode() == smoltcp::wire::DhcpOpCode::Reply
        && packet.magic_number() == COOKIE
        && packet.hardware_len() == 6
        && packet.client_hardware_address().0 == identity.mac.0;
    if !is_ours {
        return None;
    }
    let mut options: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
    let mut length = 0;
    for option in packet.options() {
        length += option.data.len();
        if length > MOST {
            return None;
        }
        options.entry(option.kind).or_default().extend(option.data);
    }
    // RFC 6842: a server that tells whom it means must mean us.
    let id = options.get(&code::CLIENT_ID);
    if id.is_some_and(|id| *id != identity.client_id) {
        return None;
    }
    let kind = match options.get(&code::MESSAGE_TYPE)?.as_slice() {
        [kind] => DhcpMessageType::from(*kind),
        _ => return None,
    };
    let server = options.get(&code::SERVER).and_then(|bytes| {
        let bytes: [u8; 4] = bytes.as_slice().try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    });
    Some(Reply {
        kind: match kind {
            DhcpMessageType::Offer => Kind::Offer,
            DhcpMessageType::Ack => Kind::Ack,
            DhcpMessageType::Nak => Kind::Nak,
            _ => return None,
        },
        xid: packet.transaction_id(),
        your_ip: packet.your_ip(),
        server,
        options,
    })
}

/// What a client says, beyond who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) kind: Verb,
    pub(super) xid: u32,
    /// Since it began to ask.
    pub(super) secs: u16,
    /// An address that it has and can be reached at.
    pub(super) ciaddr: Option<Ipv4Addr>,
    /// Option 50.
    pub(super) requested: Option<Ipv4Addr>,
    /// Option 54.
    pub(super) server: Option<Ipv4Addr>,
    /// That the answer is a broadcast (RFC 2131 §4.1): what is sent to an
    /// address that the client does not have yet would not reach it.
    pub(super) to_all: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Discover,
    Request,
    Decline,
    Release,
}

impl Ask {
    /// The whole message for UDP.
    pub(super) fn payload(&self, identity: &Identity) -> Vec<u8> {
        self.with(identity, |dhcp| {
            let mut bytes = vec![0; dhcp.buffer_len()];
            write(dhcp, &mut bytes);
            bytes
        })
    }

    /// To everybody on the link.
    pub(super) fn broadcast(&self, identity: &Identity) -> Vec<u8> {
        self.with(identity, |dhcp| {
            frame(
                identity.mac,
                self.ciaddr.unwrap_or(Ipv4Addr::UNSPECIFIED),
                dhcp,
            )
        })
    }

    fn with<T>(&self, identity: &Identity, make: impl FnOnce(&DhcpRepr<'_>) -> T) -> T {
        let mut additional = vec![DhcpOption {
            kind: code::CLIENT_ID,
            data: &identity.client_id,
        }];
        let asks = matches!(self.kind, Verb::Discover | Verb::Request);
        if asks && !identity.hostname.is_empty() {
            additional.push(DhcpOption {
                kind: code::HOST_NAME,
                data: identity.hostname.as_bytes(),
            });
        }
        let mut dhcp = blank(identity.mac, self.xid);
        dhcp.message_type = match self.kind {
            Verb::Discover => DhcpMessageType::Discover,
            Verb::Request => DhcpMessageType::Request,
            Verb::Decline => DhcpMessageType::Decline,
            Verb::Release => DhcpMessageType::Release,
        };
        dhcp.secs = self.secs;
        dhcp.broadcast = self.to_all;
        dhcp.client_ip = self.ciaddr.unwrap_or(Ipv4Addr::UNSPECIFIED);
        dhcp.requested_ip = self.requested;
        dhcp.server_identifier = self.server;
        dhcp.parameter_request_list = asks.then_some(&WANTED);
        dhcp.max_size = asks.then_some(MAX_SIZE);
        dhcp.additional_options = &additional;
        make(&dhcp)
    }
}

/// A DISCOVER of this MAC that asks for nothing.
pub fn blank<'a>(mac: MacAddr, xid: u32) -> DhcpRepr<'a> {
    let nowhere = Ipv4Addr::UNSPECIFIED;
    DhcpRepr {
        message_type: DhcpMessageType::Discover,
        transaction_id: xid,
        secs: 0,
        client_hardware_address: EthernetAddress(mac.0),
        client_ip: nowhere,
        your_ip: nowhere,
        server_ip: nowhere,
        router: None,
        subnet_mask: None,
        relay_agent_ip: nowhere,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: None,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    }
}

fn write(dhcp: &DhcpRepr<'_>, payload: &mut [u8]) {
    // The buffer is of the length that it asked for: it cannot fail.
    let _ = dhcp.emit(&mut DhcpPacket::new_unchecked(payload));
}

/// A client's message in a frame to everybody.
pub fn frame(mac: MacAddr, from: Ipv4Addr, dhcp: &DhcpRepr<'_>) -> Vec<u8> {
    let udp = UdpRepr {
        src_port: DHCP_CLIENT_PORT,
        dst_port: DHCP_SERVER_PORT,
    };
    let length = dhcp.buffer_len();
    let ip = Ipv4Repr {
        src_addr: from,
        dst_addr: Ipv4Addr::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + length,
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(mac.0),
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    };
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        length,
        |payload| write(dhcp, payload),
        &checksums,
    );
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn identity() -> Identity {
        Identity::new(b"machine", "lan", "web", "web")
    }

    /// A server's answer, in a frame, with these options.
    pub(in super::super) fn answer(xid: u32, yiaddr: [u8; 4], options: &[(u8, &[u8])]) -> Vec<u8> {
        let identity = identity();
        let own: Vec<DhcpOption<'_>> = options
            .iter()
            .map(|(kind, data)| DhcpOption { kind: *kind, data })
            .collect();
        let mut dhcp = blank(identity.mac, xid);
        // smoltcp writes a type of its own: made ours below.
        dhcp.message_type = DhcpMessageType::Offer;
        dhcp.your_ip = yiaddr.into();
        dhcp.additional_options = &own;
        let mut bytes = frame(identity.mac, Ipv4Addr::new(10, 0, 2, 1), &dhcp);
        bytes[34..36].copy_from_slice(&67_u16.to_be_bytes());
        bytes[36..38].copy_from_slice(&68_u16.to_be_bytes());
        bytes
    }

    fn offer() -> Vec<u8> {
        answer(
            7,
            [10, 0, 2, 50],
            &[
                (code::SERVER, &[10, 0, 2, 1]),
                (code::LEASE_TIME, &[0, 0, 0, 100]),
                (code::DOMAIN_SEARCH, b"\x03lan"),
                (code::DOMAIN_SEARCH, b"\x00"),
            ],
        )
    }

    #[test]
    fn a_reply_is_read() {
        let reply = parse(&offer(), &identity()).unwrap();
        assert_eq!((reply.kind, reply.xid), (Kind::Offer, 7));
        assert_eq!(reply.your_ip, Ipv4Addr::new(10, 0, 2, 50));
        assert_eq!(reply.server, Some(Ipv4Addr::new(10, 0, 2, 1)));
        assert_eq!(reply.number(code::LEASE_TIME), Some(100));
        // In two parts.
        assert_eq!(reply.option(code::DOMAIN_SEARCH), Some(&b"\x03lan\0"[..]));
    }

    #[test]
    fn what_is_not_for_us_is_nothing() {
        let good = offer();
        let is_nothing = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            assert_eq!(parse(&bytes, &identity()), None);
        };
        is_nothing(&|b| b[42] = 1); // a request
        is_nothing(&|b| b[44] = 5); // another kind of hardware address
        is_nothing(&|b| b[42 + 28] ^= 1); // another's chaddr
        is_nothing(&|b| b[42 + 236] ^= 1); // no cookie
        is_nothing(&|b| b[12] = 0x86); // IPv6
        is_nothing(&|b| b[37] = 67); // to a server
        is_nothing(&|b| b[20] |= 0x20); // the first of several fragments
        is_nothing(&|b| b[284] = 9); // no such message
        let others = answer(7, [10, 0, 2, 50], &[(code::CLIENT_ID, b"\x01another")]);
        assert_eq!(parse(&others, &identity()), None);
        for length in 0..good.len() {
            let _ = parse(&good[..length], &identity());
            // The same with lengths that say more than there is.
            let mut bytes = good.clone();
            bytes[length] = 0xff;
            let _ = parse(&bytes, &identity());
        }
    }

    #[test]
    fn a_request_says_who_and_what() {
        let ask = Ask {
            kind: Verb::Request,
            xid: 0x0102_0304,
            secs: 3,
            ciaddr: None,
            requested: Some(Ipv4Addr::new(10, 0, 2, 50)),
            server: Some(Ipv4Addr::new(10, 0, 2, 1)),
            to_all: false,
        };
        let bytes = ask.broadcast(&identity());
        assert_eq!(bytes[52..54], [0, 0]);
        let to_all = Ask {
            to_all: true,
            ..ask
        };
        assert_eq!(to_all.broadcast(&identity())[52..54], [0x80, 0]);
        let has = |option: &[u8]| bytes.windows(option.len()).any(|w| w == option);
        let id = identity().client_id;
        assert!(has(&[&[61, 23], &id[..]].concat()));
        assert!(has(b"\x0c\x03web"));
        assert!(has(&[50, 4, 10, 0, 2, 50]) && has(&[54, 4, 10, 0, 2, 1]));
        assert!(has(&[55, 11, 1, 121, 3]));
        // Whoever declines or releases asks for nothing.
        let kind = Verb::Decline;
        let bytes = Ask { kind, ..ask }.payload(&identity());
        assert!(!bytes.windows(3).any(|w| w == [55, 11, 1]));
    }
}
