//! One line of the log file, byte for byte as Docker's `jsonlog` writes it.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::Deserialize;

use super::Stream;

/// Appends one entry. `time` as [`timestamp`] gives it.
pub(super) fn encode(out: &mut Vec<u8>, text: &[u8], newline: bool, stream: Stream, time: &str) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, text);
    if newline {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Go's RFC3339Nano in UTC: as many digits as the fraction needs, none for a
/// full second.
pub(super) fn timestamp(now: SystemTime) -> String {
    let mut text = humantime::format_rfc3339_nanos(now).to_string();
    text.pop(); // Z
    // The dot stops the zeros: those of the seconds stay.
    let kept = text.trim_end_matches('0').trim_end_matches('.').len();
    text.truncate(kept);
    text.push('Z');
    text
}

/// Go's JSON escapes: control characters (`\n` and `\r` in short form), quote
/// and backslash, `<`, `>`, `&`, the two line separators that JavaScript
/// trips over, and each byte that is not UTF-8 as U+FFFD.
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    let mut done = 0;
    let mut at = 0;
    while at < text.len() {
        let byte = text[at];
        if PLAIN[usize::from(byte)] {
            at += 1;
            continue;
        }
        if byte < 0x80 {
            out.extend_from_slice(&text[done..at]);
            escape_ascii(out, byte);
            at += 1;
            done = at;
            continue;
        }
        match scalar_len(&text[at..]) {
            None => {
                out.extend_from_slice(&text[done..at]);
                out.extend_from_slice(b"\\ufffd");
                at += 1;
                done = at;
            }
            Some(3) if text[at..at + 2] == [0xe2, 0x80] && text[at + 2] & !1 == 0xa8 => {
                out.extend_from_slice(&text[done..at]);
                let last = if text[at + 2] == 0xa8 { b'8' } else { b'9' };
                out.extend_from_slice(b"\\u202");
                out.push(last);
                at += 3;
                done = at;
            }
            Some(length) => at += length,
        }
    }
    out.extend_from_slice(&text[done..]);
}

/// Bytes that go through as they are and need no look at their neighbours.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20_u8;
    while byte < 0x80 {
        plain[byte as usize] = !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&');
        byte += 1;
    }
    plain
};

fn escape_ascii(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        _ => {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        }
    }
}

/// Length of the UTF-8 sequence at the start, if it is one.
fn scalar_len(text: &[u8]) -> Option<usize> {
    let length = match text[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return None,
    };
    let sequence = text.get(..length)?;
    std::str::from_utf8(sequence).ok().map(|_| length)
}

/// An entry read back.
#[derive(Debug, Deserialize)]
pub(super) struct Entry<'a> {
    #[serde(borrow, default)]
    pub(super) log: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) stream: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
}

impl<'a> Entry<'a> {
    /// `None` for a line that is cut off or damaged.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let entry: Self = serde_json::from_slice(line).ok()?;
        // Everything behind relies on this shape.
        (entry.time.len() >= "2000-01-01T00:00:00Z".len() && entry.time.is_ascii()).then_some(entry)
    }

    pub(super) fn when(&self) -> Option<SystemTime> {
        humantime::parse_rfc3339(&self.time).ok()
    }

    /// The time with all nine digits, as `logs -t` prints it.
    pub(super) fn long_time(&self) -> String {
        let (whole, rest) = self.time.split_at(19);
        let digits = rest.strip_prefix('.').unwrap_or("").trim_end_matches('Z');
        format!("{whole}.{digits:0<9}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn escaped(text: &[u8]) -> String {
        let mut out = Vec::new();
        escape(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_as_go_does() {
        for (text, expected) in [
            (&b"plain \x7f~"[..], "plain \x7f~"),
            (b"\"\\/", r#"\"\\/"#),
            (
                b"\n\r\t\x08\x0c\x00\x1f",
                r"\n\r\u0009\u0008\u000c\u0000\u001f",
            ),
            (b"<a href='x'>&", r"\u003ca href='x'\u003e\u0026"),
            (
                "\u{2028}\u{2029}\u{202a}ä€😀".as_bytes(),
                "\\u2028\\u2029\u{202a}ä€😀",
            ),
            // One replacement for each byte, as utf8.DecodeRune consumes them.
            (
                b"a\xffb\xe2\x82c\xc0\xaf\xed\xa0\x80",
                r"a\ufffdb\ufffd\ufffdc\ufffd\ufffd\ufffd\ufffd\ufffd",
            ),
            (b"\xe2\x80", r"\ufffd\ufffd"),
            (b"\xf4\x90\x80\x80", r"\ufffd\ufffd\ufffd\ufffd"),
        ] {
            assert_eq!(escaped(text), expected, "{text:?}");
        }
    }

    #[test]
    fn an_entry_is_dockers_line() {
        let mut out = Vec::new();
        let time = timestamp(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 120_000_000));
        encode(&mut out, b"hello", true, Stream::Stderr, &time);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"log\":\"hello\\n\",\"stream\":\"stderr\",\"time\":\"2023-11-14T22:13:20.12Z\"}\n"
        );
    }

    #[test]
    fn times_lose_their_trailing_zeros_and_get_them_back() {
        for (nanos, short, long) in [
            (0, "2023-11-14T22:13:20Z", "2023-11-14T22:13:20.000000000Z"),
            (
                1,
                "2023-11-14T22:13:20.000000001Z",
                "2023-11-14T22:13:20.000000001Z",
            ),
            (
                500_000_000,
                "2023-11-14T22:13:20.5Z",
                "2023-11-14T22:13:20.500000000Z",
            ),
        ] {
            let when = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, nanos);
            assert_eq!(timestamp(when), short);
            let line = format!("{{\"log\":\"\",\"time\":\"{short}\"}}");
            let entry = Entry::parse(line.as_bytes()).unwrap();
            assert_eq!(entry.long_time(), long);
            assert_eq!(entry.when(), Some(when));
        }
        assert!(Entry::parse(b"{\"log\":\"x\"").is_none());
        assert!(Entry::parse(b"{\"log\":\"x\",\"time\":\"now\"}").is_none());
    }

    proptest::proptest! {
        /// What was written is what a JSON reader gets, whatever the bytes.
        #[test]
        fn any_bytes_make_valid_json(text in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut out = Vec::new();
            encode(&mut out, &text, false, Stream::Stdout, "2023-11-14T22:13:20Z");
            let entry = Entry::parse(&out).unwrap();
            let mut expected = String::new();
            for chunk in text.utf8_chunks() {
                expected.push_str(chunk.valid());
                expected.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
            }
            assert_eq!(entry.log, expected);
        }
    }
}
