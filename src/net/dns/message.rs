//! Messages: what is asked, and answers. The bytes come from containers and
//! from the LAN: nothing here trusts a length, an offset or a name.
//!
//! The library reads names and options and writes records. It does not know
//! every type of record that there is, and must not have to: a question is
//! passed on byte by byte. So a message is first cut down to its header and
//! its one question ([`question_end`]), which is all that decides.

use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, OPT, PTR, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, ResourceRecord};

/// Header length, and where its fields are.
const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_MX: u16 = 15;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;

/// What every UDP client takes (RFC 1035), and what one may ask for at most.
const SHORT: usize = 512;
const LONG: usize = 65_000;
/// What we say that we take.
const OUR_SIZE: u16 = 4096;
/// Docker's, in seconds.
const TTL: u32 = 600;

/// Response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NotImp = 4,
    Refused = 5,
}

/// What a question is about, as far as it could be one of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A.
    V4(String),
    /// AAAA.
    V6(String),
    /// Exists, but has none of these: MX.
    Nothing(String),
    /// PTR.
    Pointer(IpAddr),
    /// Never answered here.
    Other,
}

/// What to do with a message from a container.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    Query(Query<'a>),
    /// Refused at once, with this answer.
    Refused(Vec<u8>),
    /// Not a question, or not even a header: no answer at all, lest two
    /// programs answer each other for ever.
    Ignored,
}

/// A question with one thing asked.
#[derive(Debug)]
pub(super) struct Query<'a> {
    bytes: &'a [u8],
    end: usize,
    pub(super) ask: Ask,
}

/// Where the one question ends. `None`: there is not exactly one, or it is
/// none: its name is compressed (to what?), too long or cut off.
fn question_end(bytes: &[u8]) -> Option<usize> {
    const LABEL: u8 = 63;
    const NAME: usize = 255;
    if number(bytes, 4)? != 1 {
        return None;
    }
    let mut at = HEADER;
    loop {
        let length = *bytes.get(at)?;
        at += 1;
        match length {
            0 => break,
            1..=LABEL => at += usize::from(length),
            _ => return None,
        }
        if at - HEADER >= NAME {
            return None;
        }
    }
    let end = at + 4;
    (end <= bytes.len()).then_some(end)
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

fn is_response(bytes: &[u8]) -> bool {
    bytes.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

/// Reads what a container sent.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    if bytes.len() < HEADER || is_response(bytes) {
        return Parsed::Ignored;
    }
    if bytes[2] >> 3 & 15 != 0 {
        return Parsed::Refused(bare(&bytes[..HEADER], Code::NotImp));
    }
    let Some(end) = question_end(bytes) else {
        return Parsed::Refused(bare(&bytes[..HEADER], Code::FormErr));
    };
    let ask = asked(bytes, end).unwrap_or(Ask::Other);
    Parsed::Query(Query { bytes, end, ask })
}

/// `None`: certainly not one of ours.
fn asked(bytes: &[u8], end: usize) -> Option<Ask> {
    let kind = number(bytes, end - 4)?;
    if number(bytes, end - 2)? != CLASS_IN
        || !matches!(kind, TYPE_A | TYPE_AAAA | TYPE_MX | TYPE_PTR)
    {
        return None;
    }
    let mut head = bytes.get(..end)?.to_vec();
    head.get_mut(6..HEADER)?.fill(0);
    let packet = Packet::parse(&head).ok()?;
    let name = text(&packet.questions.first()?.qname)?;
    Some(match kind {
        TYPE_A => Ask::V4(name),
        TYPE_AAAA => Ask::V6(name),
        TYPE_PTR => Ask::Pointer(address(&name)?),
        _ => Ask::Nothing(name),
    })
}

/// In lower case. `None`: no name that one could give to anything here.
fn text(name: &Name<'_>) -> Option<String> {
    let mut out = String::new();
    for label in name.as_bytes() {
        if !label.iter().all(|b| b.is_ascii_graphic() && *b != b'.') {
            return None;
        }
        if !out.is_empty() {
            out.push('.');
        }
        out.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
    }
    (!out.is_empty()).then_some(out)
}

/// The address in a name under in-addr.arpa or ip6.arpa.
fn address(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0_u8; 4];
        let mut parts = digits.split('.');
        for octet in octets.iter_mut().rev() {
            let part = parts.next()?;
            *octet = part.parse().ok()?;
            if part != octet.to_string() {
                return None;
            }
        }
        return parts.next().is_none().then_some(octets.into());
    }
    let mut octets = [0_u8; 16];
    let mut parts = name.strip_suffix(".ip6.arpa")?.split('.');
    let mut digit = || match parts.next()?.as_bytes() {
        [digit] => u8::try_from(char::from(*digit).to_digit(16)?).ok(),
        _ => None,
    };
    for octet in octets.iter_mut().rev() {
        let low = digit()?;
        *octet = digit()? << 4 | low;
    }
    digit().is_none().then_some(octets.into())
}

impl<'a> Query<'a> {
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The answer without records.
    pub(super) fn bare(&self, code: Code) -> Vec<u8> {
        bare(&self.bytes[..self.end], code)
    }

    /// The addresses, as many as the client takes; the others as TC.
    pub(super) fn addresses(&self, addrs: &[IpAddr], limit: usize) -> Vec<u8> {
        let records = addrs.iter().map(|addr| match addr {
            IpAddr::V4(ip) => RData::A(A::from(*ip)),
            IpAddr::V6(ip) => RData::AAAA(AAAA::from(*ip)),
        });
        self.answer(records.collect(), limit)
    }

    /// `NAME.NETWORK`
    pub(super) fn pointer(&self, name: &str, limit: usize) -> Vec<u8> {
        match Name::new(name) {
            Ok(name) => self.answer(vec![RData::PTR(PTR(name))], limit),
            // A network may be called what no name server could say.
            Err(_) => self.bare(Code::NoError),
        }
    }

    fn answer(&self, mut records: Vec<RData<'_>>, limit: usize) -> Vec<u8> {
        let mut cut = false;
        loop {
            let Some(bytes) = self.build(&records, cut) else {
                return self.bare(Code::ServFail);
            };
            if bytes.len() <= limit || records.is_empty() {
                return bytes;
            }
            cut = true;
            // All are of a size; at least one goes.
            let keep = records.len() * limit / bytes.len();
            records.truncate(keep.min(records.len() - 1));
        }
    }

    fn build(&self, records: &[RData<'_>], cut: bool) -> Option<Vec<u8>> {
        let mut head = self.bytes.get(..self.end)?.to_vec();
        head.get_mut(6..HEADER)?.fill(0);
        let asked = Packet::parse(&head).ok()?;
        let mut packet = Packet::new_reply(asked.id());
        packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
        if asked.has_flags(PacketFlag::RECURSION_DESIRED) {
            packet.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        if cut {
            packet.set_flags(PacketFlag::TRUNCATION);
        }
        let name = asked.questions.first()?.qname.clone();
        packet.questions = asked.questions;
        packet.answers = records
            .iter()
            .map(|data| ResourceRecord::new(name.clone(), CLASS::IN, TTL, data.clone()))
            .collect();
        if self.udp_size().is_some() {
            *packet.opt_mut() = Some(OPT {
                opt_codes: Vec::new(),
                udp_packet_size: OUR_SIZE,
                version: 0,
            });
        }
        packet.build_bytes_vec_compressed().ok()
    }

    /// What the client takes in one datagram.
    pub(super) fn limit(&self) -> usize {
        let size = self.udp_size().map_or(SHORT, usize::from);
        size.clamp(SHORT, LONG)
    }

    /// From EDNS, if it is there and whole.
    fn udp_size(&self) -> Option<u16> {
        // Nothing behind the question: the usual case, for nothing.
        if self.bytes.len() == self.end {
            return None;
        }
        let packet = Packet::parse(self.bytes).ok()?;
        packet.opt().map(|opt| opt.udp_packet_size)
    }
}

/// Header, and the question if it is there, as an answer without records.
fn bare(head: &[u8], code: Code) -> Vec<u8> {
    let mut out = head.to_vec();
    if let Some(fields) = out.first_chunk_mut::<HEADER>() {
        // QR, RA; opcode and RD stay.
        fields[2] = fields[2] & 0x79 | 0x80;
        fields[3] = 0x80 | code as u8;
        let questions = u8::from(head.len() > HEADER);
        fields[4..].copy_from_slice(&[0, questions, 0, 0, 0, 0, 0, 0]);
    }
    out
}

/// `query` as kept, answered with nothing but a code.
pub(super) fn failed(query: &[u8], code: Code) -> Vec<u8> {
    let end = question_end(query).unwrap_or(HEADER);
    bare(query.get(..end).unwrap_or_default(), code)
}

pub(super) fn id(message: &[u8]) -> u16 {
    number(message, 0).unwrap_or_default()
}

pub(super) fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
}

/// What a name server's message is to the question that it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its answer: for the client as it is.
    Answer,
    /// SERVFAIL, REFUSED: another server may know better.
    Failure,
    /// Something else, or somebody else's: as if it had not come.
    Foreign,
}

/// `sent` is the question under the id it was sent with.
pub(super) fn judge(sent: &[u8], got: &[u8]) -> Verdict {
    if got.len() < HEADER || !is_response(got) || id(sent) != id(got) {
        return Verdict::Foreign;
    }
    let code = got[3] & 15;
    let failure = code == Code::ServFail as u8 || code == Code::Refused as u8;
    match (question_end(sent), question_end(got)) {
        (Some(a), Some(b)) if same_question(&sent[HEADER..a], &got[HEADER..b]) => {
            if failure {
                Verdict::Failure
            } else {
                Verdict::Answer
            }
        }
        // A server that could not read it may leave the question out.
        (_, None) if number(got, 4) == Some(0) && code != 0 && code != 3 => Verdict::Failure,
        _ => Verdict::Foreign,
    }
}

/// Names without regard to case, type and class exactly.
fn same_question(a: &[u8], b: &[u8]) -> bool {
    match (a.split_last_chunk::<4>(), b.split_last_chunk::<4>()) {
        (Some((name, kind)), Some((other, kind2))) => {
            kind == kind2 && name.eq_ignore_ascii_case(other)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use simple_dns::{QCLASS, QTYPE, Question, TYPE};
    use std::fmt::Write as _;

    /// What PTR asks for.
    fn reverse(addr: IpAddr) -> String {
        let mut out = String::new();
        match addr {
            IpAddr::V4(ip) => {
                for octet in ip.octets().iter().rev() {
                    let _ = write!(out, "{octet}.");
                }
                out.push_str("in-addr.arpa");
            }
            IpAddr::V6(ip) => {
                for octet in ip.octets().iter().rev() {
                    let _ = write!(out, "{:x}.{:x}.", octet & 15, octet >> 4);
                }
                out.push_str("ip6.arpa");
            }
        }
        out
    }

    fn query(name: &str, kind: TYPE, edns: Option<u16>) -> Vec<u8> {
        let mut packet = Packet::new_query(0x1234);
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
        packet.questions.push(Question::new(
            Name::new_unchecked(name).into_owned(),
            QTYPE::TYPE(kind),
            QCLASS::CLASS(CLASS::IN),
            false,
        ));
        *packet.opt_mut() = edns.map(|size| OPT {
            opt_codes: Vec::new(),
            udp_packet_size: size,
            version: 0,
        });
        packet.build_bytes_vec().unwrap()
    }

    fn parsed(bytes: &[u8]) -> Query<'_> {
        match parse(bytes) {
            Parsed::Query(query) => query,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn questions_are_told_apart() {
        let ask = |name, kind| parsed(&query(name, kind, None)).ask;
        assert_eq!(ask("Web", TYPE::A), Ask::V4("web".to_owned()));
        assert_eq!(ask("web.net", TYPE::AAAA), Ask::V6("web.net".to_owned()));
        assert_eq!(ask("web", TYPE::MX), Ask::Nothing("web".to_owned()));
        assert_eq!(ask("web", TYPE::TXT), Ask::Other);
        assert_eq!(ask("w\u{e9}b", TYPE::A), Ask::Other);
        let mut chaos = query("web", TYPE::A, None);
        *chaos.last_mut().unwrap() = 3;
        assert_eq!(parsed(&chaos).ask, Ask::Other);
        // SPF, which the library does not know.
        let mut spf = query("web", TYPE::A, None);
        let at = spf.len() - 3;
        spf[at] = 99;
        assert_eq!(parsed(&spf).ask, Ask::Other);
    }

    #[test]
    fn addresses_go_into_names_and_back() {
        for addr in ["10.0.2.5", "0.0.0.0", "2001:db8::a1", "fe80::1"] {
            let addr: IpAddr = addr.parse().unwrap();
            let bytes = query(&reverse(addr).to_uppercase(), TYPE::PTR, None);
            assert_eq!(parsed(&bytes).ask, Ask::Pointer(addr));
        }
        for bad in [
            "5.2.0.in-addr.arpa",
            "05.2.0.10.in-addr.arpa",
            "1.5.2.0.10.in-addr.arpa",
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
        assert_eq!(address("1.0.ip6.arpa"), None);
    }

    #[test]
    fn an_answer_is_read_by_the_library_as_it_was_meant() {
        let bytes = query("wEb", TYPE::A, None);
        let addrs: [IpAddr; 2] = ["10.0.2.5".parse().unwrap(), "10.0.2.6".parse().unwrap()];
        let answer = parsed(&bytes).addresses(&addrs, 512);
        assert_eq!(judge(&bytes, &answer), Verdict::Answer);
        let packet = Packet::parse(&answer).unwrap();
        assert_eq!(packet.questions[0].qname.to_string(), "wEb");
        assert_eq!(packet.answers.len(), 2);
        assert_eq!(packet.answers[0].ttl, 600);
        assert_eq!(packet.answers[0].name.to_string(), "wEb");
        assert!(packet.has_flags(PacketFlag::RECURSION_AVAILABLE));
        assert!(packet.has_flags(PacketFlag::RECURSION_DESIRED));
        assert!(!packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER));
        assert!(packet.opt().is_none());
        let empty = parsed(&bytes).bare(Code::NoError);
        assert_eq!(judge(&bytes, &empty), Verdict::Answer);
        assert_eq!(Packet::parse(&empty).unwrap().answers.len(), 0);
    }

    #[test]
    fn too_much_is_cut_and_says_so() {
        let addrs: Vec<IpAddr> = (0..200).map(|n| IpAddr::from([10, 0, 2, n])).collect();
        for (edns, most) in [(None, 512), (Some(100), 512), (Some(1232), 1232)] {
            let bytes = query("web", TYPE::A, edns);
            let asked = parsed(&bytes);
            assert_eq!(asked.limit(), most);
            let answer = asked.addresses(&addrs, asked.limit());
            assert!(answer.len() <= most && answer.len() > most - 32);
            let packet = Packet::parse(&answer).unwrap();
            assert!(packet.has_flags(PacketFlag::TRUNCATION));
            assert_eq!(packet.opt().is_some(), edns.is_some());
        }
        let bytes = query("web", TYPE::A, None);
        let whole = parsed(&bytes).addresses(&addrs, 65_535);
        let packet = Packet::parse(&whole).unwrap();
        assert_eq!(packet.answers.len(), 200);
        assert!(!packet.has_flags(PacketFlag::TRUNCATION));
    }

    #[test]
    fn only_the_answer_to_this_question_counts() {
        let sent = query("web.example", TYPE::A, None);
        let good = parsed(&sent).addresses(&["192.0.2.1".parse().unwrap()], 512);
        assert_eq!(judge(&sent, &good), Verdict::Answer);
        let mut other_case = good.clone();
        other_case[13] = b'W';
        assert_eq!(judge(&sent, &other_case), Verdict::Answer);
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            judge(&sent, &bytes)
        };
        assert_eq!(changed(0, 0xff), Verdict::Foreign, "id");
        assert_eq!(changed(2, 0), Verdict::Foreign, "a question");
        assert_eq!(changed(13, b'x'), Verdict::Foreign, "name");
        let kind = HEADER + b"\x03web\x07example\x00\x00".len();
        assert_eq!(changed(kind, 28), Verdict::Foreign, "type");
        assert_eq!(changed(3, 0x82), Verdict::Failure, "SERVFAIL");
        assert_eq!(changed(3, 0x85), Verdict::Failure, "REFUSED");
        assert_eq!(changed(3, 0x83), Verdict::Answer, "NXDOMAIN");
        let mut formerr = good[..HEADER].to_vec();
        formerr[3] = 0x81;
        formerr[4..].fill(0);
        assert_eq!(judge(&sent, &formerr), Verdict::Failure);
        assert_eq!(judge(&sent, &good[..HEADER]), Verdict::Foreign);
        assert_eq!(judge(&sent, &[]), Verdict::Foreign);
    }

    #[test]
    fn no_answer_to_an_answer_and_a_refusal_of_nonsense() {
        let bytes = query("web", TYPE::A, None);
        let answer = parsed(&bytes).bare(Code::NoError);
        assert!(matches!(parse(&answer), Parsed::Ignored));
        assert!(matches!(parse(&bytes[..11]), Parsed::Ignored));
        let code = |bytes: &[u8]| match parse(bytes) {
            Parsed::Refused(answer) => answer[3] & 15,
            other => panic!("{other:?}"),
        };
        let mut notify = bytes.clone();
        notify[2] |= 4 << 3;
        assert_eq!(code(&notify), 4);
        assert_eq!(code(&bytes[..15]), 1);
        let mut two = bytes.clone();
        two[5] = 2;
        assert_eq!(code(&two), 1);
        // A name that points to itself.
        let mut looping = bytes[..HEADER].to_vec();
        looping.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(code(&looping), 1);
    }

    /// Everything that is done with bytes from outside.
    fn exercise(bytes: &[u8], sent: &[u8]) {
        match parse(bytes) {
            Parsed::Query(query) => {
                let limit = query.limit();
                assert!(
                    query
                        .addresses(&[IpAddr::from([10, 0, 2, 5]); 40], limit)
                        .len()
                        <= limit
                );
                assert!(query.pointer("web.net", limit).len() <= limit);
                assert!(is_response(&query.bare(Code::ServFail)));
            }
            Parsed::Refused(answer) => assert!(is_response(&answer)),
            Parsed::Ignored => {}
        }
        let _ = judge(sent, bytes);
        let _ = judge(bytes, sent);
        let _ = failed(bytes, Code::ServFail);
        let _ = Packet::parse(bytes);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            exercise(&bytes, &query("web.example", TYPE::A, Some(1232)));
        }

        /// Whole messages with some bytes changed (pointers among them) and the
        /// end cut off.
        #[test]
        fn broken_messages_do_no_harm(
            changes in prop::collection::vec((0_usize..80, prop_oneof![
                Just(0xc0_u8), Just(0xff), Just(0), 0_u8..64, any::<u8>()
            ]), 0..6),
            keep in 0_usize..80,
            answered in any::<bool>(),
        ) {
            let sent = query("web.example", TYPE::A, Some(1232));
            let mut bytes = sent.clone();
            if answered {
                bytes = parsed(&sent).addresses(&[IpAddr::from([10, 0, 2, 5])], 512);
            }
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(keep.max(12));
            exercise(&bytes, &sent);
        }
    }
}
