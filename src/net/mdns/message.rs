//! The records of one name, and messages made of them.

use std::cmp::Ordering;
use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, NSEC, NsecTypeBitMap, PTR, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE};

/// RFC 6762, 10: of what has to do with a host's name or address.
pub(super) const TTL: u32 = 120;
/// 6.7: for those who do not know of goodbyes.
pub(super) const LEGACY_TTL: u32 = 10;

/// A name and its addresses: all the records there are.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    /// `web.local`
    pub(super) name: String,
    pub(super) addrs: Vec<IpAddr>,
}

/// One record, apart from how long it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Own {
    /// A, AAAA
    Addr(IpAddr),
    /// PTR: from the address to the name.
    Pointer(IpAddr),
    /// NSEC: of addresses, there are only those of the families that are there.
    Nothing,
}

/// How records are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct How {
    pub(super) ttl: u32,
    /// What was known of the name before is no longer true.
    pub(super) flush: bool,
}

impl How {
    pub(super) const USUAL: Self = Self {
        ttl: TTL,
        flush: true,
    };
    pub(super) const LEGACY: Self = Self {
        ttl: LEGACY_TTL,
        flush: false,
    };
    const GOODBYE: Self = Self {
        ttl: 0,
        flush: true,
    };
    /// In a probe the name is not ours yet.
    const PROBE: Self = Self {
        ttl: TTL,
        flush: false,
    };
}

impl Zone {
    fn owner(&self) -> Name<'_> {
        Name::new_unchecked(&self.name)
    }

    pub(super) fn is_named(&self, name: &Name<'_>) -> bool {
        *name == self.owner()
    }

    /// The names that lead back from each address.
    pub(super) fn pointers(&self) -> Vec<(Name<'static>, IpAddr)> {
        let name = |addr: IpAddr| Name::new_unchecked(&reverse(addr)).into_owned();
        self.addrs.iter().map(|addr| (name(*addr), *addr)).collect()
    }

    pub(super) fn is_missing(&self, ipv4: bool) -> bool {
        !self.addrs.iter().any(|addr| addr.is_ipv4() == ipv4)
    }

    pub(super) fn record(&self, own: Own, how: How) -> ResourceRecord<'static> {
        let (name, data) = match own {
            Own::Addr(addr) => (self.owner().into_owned(), address(addr)),
            Own::Pointer(addr) => (
                Name::new_unchecked(&reverse(addr)).into_owned(),
                RData::PTR(PTR(self.owner().into_owned())),
            ),
            Own::Nothing => (self.owner().into_owned(), self.nothing_else()),
        };
        ResourceRecord::new(name, CLASS::IN, how.ttl, data).with_cache_flush(how.flush)
    }

    /// RFC 6762, 6.1: a bit for each type that there is.
    fn nothing_else(&self) -> RData<'static> {
        // Bit 0 is the highest of the first byte.
        let mut bits = [0_u8; 4];
        let here = [(true, TYPE::A), (false, TYPE::AAAA)];
        for (_, kind) in here.into_iter().filter(|(v4, _)| !self.is_missing(*v4)) {
            let at = usize::from(u16::from(kind));
            bits[at / 8] |= 0x80 >> (at % 8);
        }
        let length = bits.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
        RData::NSEC(NSEC {
            next_name: self.owner().into_owned(),
            type_bit_maps: vec![NsecTypeBitMap {
                window_block: 0,
                bitmap: bits[..length].to_vec().into(),
            }],
        })
    }

    /// What is announced.
    pub(super) fn every(&self) -> Vec<Own> {
        let addrs = || self.addrs.iter().copied();
        let own = addrs().map(Own::Addr).chain(addrs().map(Own::Pointer));
        own.collect()
    }

    fn all(&self, how: How) -> Vec<ResourceRecord<'static>> {
        let own = self.every().into_iter();
        own.map(|own| self.record(own, how)).collect()
    }

    /// Who has this name? I mean to (8.1).
    pub(super) fn probe(&self) -> Option<Vec<u8>> {
        let mut packet = Packet::new_query(0);
        let any = QCLASS::CLASS(CLASS::IN);
        let question = Question::new(self.owner(), QTYPE::ANY, any, false);
        packet.questions.push(question);
        let addrs = self.addrs.iter();
        let meant = addrs.map(|addr| self.record(Own::Addr(*addr), How::PROBE));
        packet.name_servers.extend(meant);
        packet.build_bytes_vec_compressed().ok()
    }

    pub(super) fn announcement(&self) -> Option<Vec<u8>> {
        response(self.all(How::USUAL), Vec::new())
    }

    /// 10.1
    pub(super) fn goodbye(&self) -> Option<Vec<u8>> {
        response(self.all(How::GOODBYE), Vec::new())
    }

    /// 8.2: who of two that ask at once has the name. What the other means to
    /// say, in order, against what we do: the later wins.
    pub(super) fn against(&self, theirs: &[ResourceRecord<'_>]) -> Ordering {
        let own = self.addrs.iter().map(|addr| bytes(&address(*addr)));
        let mut own: Vec<_> = own.collect();
        let theirs = theirs.iter().filter(|r| self.is_named(&r.name));
        let mut theirs: Vec<_> = theirs.map(|r| bytes(&r.rdata)).collect();
        own.sort();
        theirs.sort();
        own.cmp(&theirs)
    }
}

/// Type and data; the class is the same for all. Of other types than ours the
/// type alone decides.
fn bytes(data: &RData<'_>) -> (u16, Vec<u8>) {
    let rest = match data {
        RData::A(a) => a.address.to_be_bytes().to_vec(),
        RData::AAAA(a) => a.address.to_be_bytes().to_vec(),
        _ => Vec::new(),
    };
    (u16::from(data.type_code()), rest)
}

fn address(addr: IpAddr) -> RData<'static> {
    match addr {
        IpAddr::V4(ip) => RData::A(A::from(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA::from(ip)),
    }
}

/// The address that a record gives.
pub(super) fn given(record: &ResourceRecord<'_>) -> Option<IpAddr> {
    match &record.rdata {
        RData::A(a) => Some(std::net::Ipv4Addr::from(a.address).into()),
        RData::AAAA(a) => Some(std::net::Ipv6Addr::from(a.address).into()),
        _ => None,
    }
}

/// `5.2.0.10.in-addr.arpa`
fn reverse(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let bytes = ip.octets().into_iter().rev();
            let nibbles = bytes.map(|b| format!("{:x}.{:x}.", b & 15, b >> 4));
            nibbles.collect::<String>() + "ip6.arpa"
        }
    }
}

/// Nothing, where there is nothing to say.
pub(super) fn response(
    answers: Vec<ResourceRecord<'static>>,
    more: Vec<ResourceRecord<'static>>,
) -> Option<Vec<u8>> {
    if answers.is_empty() {
        return None;
    }
    let mut packet = Packet::new_reply(0);
    packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    packet.answers = answers;
    packet.additional_records = more;
    packet.build_bytes_vec_compressed().ok()
}

/// 6.7: for a resolver that knows only unicast: its id, its questions.
pub(super) fn legacy(asked: &Packet<'_>, answers: Vec<ResourceRecord<'static>>) -> Option<Vec<u8>> {
    if answers.is_empty() {
        return None;
    }
    let mut packet = Packet::new_reply(asked.id());
    packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    packet.questions.clone_from(&asked.questions);
    packet.answers = answers;
    packet.build_bytes_vec_compressed().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(addrs: &[&str]) -> Zone {
        Zone {
            name: "web.local".to_owned(),
            addrs: addrs.iter().map(|a| a.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn reverse_names() {
        let name = |addr: &str| reverse(addr.parse().unwrap());
        assert_eq!(name("10.0.2.5"), "5.2.0.10.in-addr.arpa");
        assert_eq!(
            name("fd00::1:5"),
            "5.0.0.0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa"
        );
    }

    /// RFC 6762, 8.2: 169.254.99.200 loses to 169.254.200.50.
    #[test]
    fn the_standard_s_example_of_a_tie() {
        let (first, second) = (zone(&["169.254.99.200"]), zone(&["169.254.200.50"]));
        let meant = |zone: &Zone| vec![zone.record(Own::Addr(zone.addrs[0]), How::PROBE)];
        assert_eq!(first.against(&meant(&second)), Ordering::Less);
        assert_eq!(second.against(&meant(&first)), Ordering::Greater);
        assert_eq!(first.against(&meant(&first)), Ordering::Equal);
        // What runs out first, loses.
        let both = zone(&["169.254.99.200", "fd00::5"]);
        assert_eq!(both.against(&meant(&first)), Ordering::Greater);
    }

    /// A alone: bit 1 of the first byte.
    #[test]
    fn what_is_not_there() {
        let record = zone(&["10.0.2.5"]).record(Own::Nothing, How::USUAL);
        let RData::NSEC(nsec) = record.rdata else {
            panic!("{record:?}");
        };
        assert_eq!(nsec.type_bit_maps[0].bitmap.as_ref(), [0x40]);
        let record = zone(&["fd00::5"]).record(Own::Nothing, How::USUAL);
        let RData::NSEC(nsec) = record.rdata else {
            panic!("{record:?}");
        };
        assert_eq!(nsec.type_bit_maps[0].bitmap.as_ref(), [0, 0, 0, 8]);
    }
}
