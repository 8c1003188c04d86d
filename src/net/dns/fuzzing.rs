//! What the resolver does with messages from containers and name servers, for
//! the fuzzer: see `docs/fuzzing.md`.

use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;

use simple_dns::{Name, Packet, PacketFlag};

use super::message::{self, Ask, Code, Parsed, Query, Verdict};
use super::names::{Entry, Table};
use super::stream::{LONGEST, Received, Stream};
use crate::base::fuzzing::Input;

/// Response bit; id; codes.
fn check_header(asked: &[u8], answer: &[u8]) {
    assert!(answer.len() >= 12, "an answer without a header");
    assert_eq!(message::id(asked), message::id(answer));
    assert_eq!(answer[2] & 0x80, 0x80, "a question as an answer");
    assert!(matches!(message::parse(answer), Parsed::Ignored));
}

/// A message from a container; with a first byte for what is found.
pub fn query(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let count = usize::from(input.byte() % 100);
    let asked = input.rest();
    match message::parse(asked) {
        Parsed::Ignored => assert!(asked.len() < 12 || asked[2] & 0x80 != 0),
        Parsed::Refused(answer) => {
            check_header(asked, &answer);
            assert!(answer.len() == 12 && answer[3] & 15 != 0);
        }
        Parsed::Query(query) => answers(&query, count),
    }
    let failed = message::failed(asked, Code::ServFail);
    assert!(failed.len() <= asked.len());
}

fn answers(query: &Query<'_>, count: usize) {
    let asked = query.bytes();
    let limit = query.limit();
    assert!((512..=65_000).contains(&limit));
    let v4: Vec<IpAddr> = (0..100).map(|n| IpAddr::from([10, 0, 2, n])).collect();
    let v6: Vec<IpAddr> = (0..100)
        .map(|n| IpAddr::from([0xfd00, 2, 0, 0, 0, 0, 0, n]))
        .collect();
    for (addrs, limit) in [(&v4, limit), (&v6, limit), (&v4, 65_535)] {
        let addrs = &addrs[..count];
        let answer = query.addresses(addrs, limit);
        let read = check_answer(asked, &answer, limit);
        let Some(read) = read else {
            continue;
        };
        let is_cut = read.has_flags(PacketFlag::TRUNCATION);
        assert_eq!(is_cut, read.answers.len() < count, "{read:?}");
        for record in &read.answers {
            assert_eq!(record.name, read.questions[0].qname);
        }
    }
    for name in ["web.net", "", "a..b", "\u{e9}.\n", &"x".repeat(300)] {
        check_answer(asked, &query.pointer(name, limit), limit);
    }
    for code in [Code::NoError, Code::ServFail, Code::Refused] {
        check_answer(asked, &query.bare(code), 512);
    }
    let mut table = Table::default();
    let entry = |container: &str, names: &[&str]| Entry {
        container: container.to_owned(),
        addr: IpAddr::from([10, 0, 2, 5]),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    table.add("lan", vec![entry("1", &["Web", "a.b"]), entry("2", &[])]);
    match &query.ask {
        Ask::V4(name) | Ask::V6(name) | Ask::Nothing(name) => {
            assert!(name.bytes().all(|b| b.is_ascii_graphic()), "{name:?}");
            assert_eq!(*name, name.to_ascii_lowercase());
            let found = table.find(name, &|_| true);
            let known = ["web", "web.lan", "a.b", "a.b.lan"];
            assert_eq!(found.is_some(), known.contains(&name.as_str()), "{name:?}");
        }
        Ask::Pointer(addr) => drop(table.name_of(*addr, &|_| true)),
        Ask::Other => {}
    }
}

/// Read by the library; `None`: a failure.
fn check_answer<'a>(asked: &[u8], answer: &'a [u8], limit: usize) -> Option<Packet<'a>> {
    check_header(asked, answer);
    assert!(answer.len() <= limit, "{} > {limit}", answer.len());
    let is_failure = matches!(answer[3] & 15, 2 | 5);
    let expected = if is_failure {
        Verdict::Failure
    } else {
        Verdict::Answer
    };
    assert_eq!(message::judge(asked, answer), expected);
    if is_failure {
        return None;
    }
    match Packet::parse(answer) {
        Ok(packet) => {
            assert_eq!(packet.questions.len(), 1);
            Some(packet)
        }
        // The question is given back as it came, and the library does not know
        // every type.
        Err(_) => {
            let whole = Packet::parse(asked).is_err();
            assert!(whole, "an answer that cannot be read: {answer:x?}");
            None
        }
    }
}

/// A name server's message to a question: whatever passes is an answer to that
/// question, and reaches the client as it is, but for the id.
pub fn upstream(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let like_the_question = input.byte() & 1 == 1;
    let sent = input.part();
    let mut got = input.rest().to_vec();
    if let (true, Parsed::Query(query)) = (like_the_question, message::parse(sent)) {
        // Else hardly any would pass: the head of a good one, and any records.
        let head = query.bare(Code::NoError);
        let counts = got.get(..8).map(<[u8]>::to_vec).unwrap_or_default();
        let records = got.get(8..).unwrap_or_default();
        got = [&head, records].concat();
        for (at, byte) in counts.iter().enumerate() {
            got[2 + at] ^= byte;
        }
        got[2] |= 0x80;
    }
    let verdict = message::judge(sent, &got);
    // What the library makes of it does no harm.
    let read = Packet::parse(&got);
    if verdict == Verdict::Foreign {
        return;
    }
    assert_eq!(message::id(sent), message::id(&got));
    assert_eq!(got[2] & 0x80, 0x80);
    if verdict == Verdict::Failure {
        return;
    }
    assert!(!matches!(got[3] & 15, 2 | 5), "a failure as an answer");
    if let (Ok(read), Ok(asked)) = (&read, Packet::parse(sent))
        && let ([a], [b]) = (&read.questions[..], &asked.questions[..])
    {
        assert_eq!((a.qtype, a.qclass), (b.qtype, b.qclass));
        assert_eq!(lower(&a.qname), lower(&b.qname));
    }
    let mut delivered = got.clone();
    message::set_id(&mut delivered, 0x1234);
    assert_eq!(message::id(&delivered), 0x1234);
    assert_eq!(delivered[2..], got[2..]);
    // The client of ours that is asked the same by the container.
    assert!(matches!(message::parse(&delivered), Parsed::Ignored));
}

fn lower(name: &Name<'_>) -> Vec<Vec<u8>> {
    name.as_bytes().map(<[u8]>::to_ascii_lowercase).collect()
}

/// A connection as the bytes of an input have it.
struct Wire<'a> {
    events: Input<'a>,
    /// Of which one is under way.
    segment: &'a [u8],
    /// What was read and written of it.
    read: Vec<u8>,
    written: Vec<u8>,
    is_over: bool,
}

impl Wire<'_> {
    /// What one event lets through, in bytes; none: the peer is gone.
    fn event(&mut self) -> io::Result<u8> {
        if self.is_over || self.events.is_empty() {
            self.is_over = true;
            return Ok(0);
        }
        match self.events.byte() {
            0 => {
                self.is_over = true;
                Ok(0)
            }
            1 => Err(ErrorKind::WouldBlock.into()),
            2 => Err(ErrorKind::Interrupted.into()),
            3 => {
                self.is_over = true;
                Err(ErrorKind::ConnectionReset.into())
            }
            length => Ok(length - 3),
        }
    }
}

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!buffer.is_empty(), "nothing read is taken for the end");
        if self.segment.is_empty() {
            let length = self.event()?;
            self.segment = self.events.take(length.into());
            self.is_over |= self.segment.is_empty();
        }
        let length = self.segment.len().min(buffer.len());
        let (now, later) = self.segment.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.read.extend(now);
        self.segment = later;
        Ok(length)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = usize::from(self.event()?).min(bytes.len());
        self.written.extend(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// DNS over TCP, cut into segments and held up in any way: what is received is
/// what was framed, and nothing is read beyond it; what is sent as well.
pub fn stream(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut expected = Vec::new();
    let answers: Vec<&[u8]> = (0..input.byte() % 4).map(|_| input.part()).collect();
    let mut stream = Stream::new(Wire {
        events: input,
        segment: &[],
        read: Vec::new(),
        written: Vec::new(),
        is_over: false,
    });
    stream.push(&vec![0; LONGEST + 1]);
    assert!(stream.is_flushed(), "what no length can tell of");
    for answer in &answers {
        stream.push(answer);
        expected.extend(
            u16::try_from(answer.len())
                .unwrap_or_default()
                .to_be_bytes(),
        );
        expected.extend(*answer);
    }
    let mut is_whole = stream.flush();
    let mut received = Vec::new();
    loop {
        let wire = &stream.socket;
        assert!(expected.starts_with(&wire.written));
        assert_eq!(stream.is_flushed(), wire.written.len() == expected.len());
        match stream.receive() {
            Received::Message(message) => {
                let length = u16::try_from(message.len()).expect("no longer than it may be");
                received.extend(length.to_be_bytes());
                received.extend(message);
                assert_eq!(received, stream.socket.read, "a byte more or less");
            }
            // The connection waits: its turn to send.
            Received::Part => is_whole = is_whole && stream.flush(),
            Received::End => break,
        }
    }
    assert!(stream.socket.read.starts_with(&received));
    assert_eq!(stream.receive(), Received::End, "the end is the end");
}

#[cfg(test)]
mod tests {
    use crate::base::fuzzing::replay;

    #[test]
    fn corpus_of_dns_query() {
        replay("dns_query", super::query);
    }

    #[test]
    fn corpus_of_dns_stream() {
        replay("dns_stream", super::stream);
    }

    #[test]
    fn corpus_of_dns_upstream() {
        replay("dns_upstream", super::upstream);
    }
}
