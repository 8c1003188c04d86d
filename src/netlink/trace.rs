//! Every message as a line, JSON or pcap: what `--trace-netlink` shows.
//!
//! # Theory of operation
//!
//! DOCKLESS_TRACE_NETLINK says where to (the command line sets it, so that the
//! supervisor traces alike): `text` or `json` to stderr; a path appends to that
//! file, as pcap (`*.pcap`, link type NETLINK, for Wireshark), JSON lines
//! (`*.json`) or text. Off, which is usual, costs one load of a static.
//!
//! A file is opened for each record: a number kept open here could mean
//! another file after the supervisor has closed what it does not need. Writers
//! are several processes, so a record is one write(2) with O_APPEND. What
//! cannot be written is dropped: tracing must not change what happens.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::decode;

pub const VARIABLE: &str = "DOCKLESS_TRACE_NETLINK";

const UNKNOWN: u8 = 0;
const OFF: u8 = 1;
const ON: u8 = 2;
static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
static SINK: OnceLock<Option<Sink>> = OnceLock::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Out,
    In,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
    Pcap,
}

#[derive(Debug, PartialEq, Eq)]
struct Sink {
    format: Format,
    /// stderr if there is none.
    path: Option<PathBuf>,
}

impl Sink {
    fn parse(value: &str) -> Option<Self> {
        let to = |format, path: Option<&str>| {
            Some(Self {
                format,
                path: path.and_then(|path| std::path::absolute(path).ok()),
            })
        };
        match value {
            "" | "0" | "off" => None,
            "1" | "text" => to(Format::Text, None),
            "json" => to(Format::Json, None),
            path => match Path::new(path).extension().and_then(|e| e.to_str()) {
                Some("pcap") => to(Format::Pcap, Some(path)),
                Some("json") => to(Format::Json, Some(path)),
                _ => to(Format::Text, Some(path)),
            },
        }
    }

    fn write(&self, direction: Direction, protocol: u8, datagram: &[u8]) -> io::Result<()> {
        let record = match self.format {
            Format::Text => lines(direction, protocol, datagram, decode::Decoded::line),
            Format::Json => lines(direction, protocol, datagram, decode::Decoded::json),
            Format::Pcap => packet(direction, protocol, datagram, now()),
        };
        match &self.path {
            None => io::stderr().write_all(&record),
            Some(path) => append(path, self.format, &record),
        }
    }
}

/// Before a datagram leaves.
#[inline]
pub(super) fn sent(protocol: u8, datagram: &[u8]) {
    if STATE.load(Ordering::Relaxed) != OFF {
        record(Direction::Out, protocol, datagram);
    }
}

/// After a datagram has come.
#[inline]
pub(super) fn received(protocol: u8, datagram: &[u8]) {
    if STATE.load(Ordering::Relaxed) != OFF {
        record(Direction::In, protocol, datagram);
    }
}

fn sink() -> Option<&'static Sink> {
    let sink = SINK.get_or_init(|| {
        let value = std::env::var_os(VARIABLE).unwrap_or_default();
        Sink::parse(&value.to_string_lossy())
    });
    sink.as_ref()
}

/// Does stderr have to stay for the trace?
pub fn is_on_stderr() -> bool {
    sink().is_some_and(|sink| sink.path.is_none())
}

#[cold]
fn record(direction: Direction, protocol: u8, datagram: &[u8]) {
    match sink() {
        Some(sink) => {
            STATE.store(ON, Ordering::Relaxed);
            // Nowhere to report it to, and no reason to stop the work.
            let _ = sink.write(direction, protocol, datagram);
        }
        None => STATE.store(OFF, Ordering::Relaxed),
    }
}

fn lines(
    direction: Direction,
    protocol: u8,
    datagram: &[u8],
    print: impl Fn(&decode::Decoded) -> String,
) -> Vec<u8> {
    let mut text = String::new();
    for message in decode::datagram(direction, protocol, datagram) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", print(&message));
    }
    text.into_bytes()
}

fn append(path: &Path, format: Format, record: &[u8]) -> io::Result<()> {
    let mut new = OpenOptions::new();
    new.append(true).create_new(true);
    let mut file: File = match new.open(path) {
        Ok(mut file) => {
            if format == Format::Pcap {
                file.write_all(&pcap_header())?;
            }
            file
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().append(true).open(path)?
        }
        Err(e) => return Err(e),
    };
    file.write_all(record)
}

/// The classic format: native byte order, microseconds.
fn pcap_header() -> Vec<u8> {
    const MAGIC: u32 = 0xa1b2_c3d4;
    const LINKTYPE_NETLINK: u32 = 253;
    let mut out = MAGIC.to_ne_bytes().to_vec();
    out.extend(2u16.to_ne_bytes());
    out.extend(4u16.to_ne_bytes());
    out.extend([0; 8]);
    out.extend(u32::MAX.to_ne_bytes());
    out.extend(LINKTYPE_NETLINK.to_ne_bytes());
    out
}

fn now() -> (u32, u32) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Seconds fit until 2106, the format's own limit.
    let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
    (seconds, now.subsec_micros())
}

/// A record with the cooked header that nlmon captures have: packet type
/// (4 outgoing, 0 to us), ARPHRD_NETLINK, no address, the protocol.
fn packet(direction: Direction, protocol: u8, datagram: &[u8], time: (u32, u32)) -> Vec<u8> {
    const ARPHRD_NETLINK: u16 = 824;
    let kind: u16 = match direction {
        Direction::Out => 4,
        Direction::In => 0,
    };
    let len = u32::try_from(datagram.len() + 16).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(datagram.len() + 32);
    for word in [time.0, time.1, len, len] {
        out.extend(word.to_ne_bytes());
    }
    out.extend(kind.to_be_bytes());
    out.extend(ARPHRD_NETLINK.to_be_bytes());
    out.extend([0; 10]);
    out.extend(u16::from(protocol).to_be_bytes());
    out.extend_from_slice(datagram);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to() {
        let sink = |value| Sink::parse(value).map(|s| (s.format, s.path));
        assert_eq!(sink(""), None);
        assert_eq!(sink("off"), None);
        assert_eq!(sink("text"), Some((Format::Text, None)));
        assert_eq!(sink("json"), Some((Format::Json, None)));
        assert_eq!(
            sink("/tmp/a.pcap"),
            Some((Format::Pcap, Some("/tmp/a.pcap".into())))
        );
        assert_eq!(
            sink("trace.txt"),
            Some((Format::Text, std::path::absolute("trace.txt").ok()))
        );
    }

    #[test]
    fn pcap_record_is_cooked() {
        assert_eq!(pcap_header().len(), 24);
        let record = packet(Direction::Out, 0, &[1, 2, 3, 4], (7, 9));
        assert_eq!(record.len(), 16 + 16 + 4);
        assert_eq!(
            &record[..16],
            [7, 0, 0, 0, 9, 0, 0, 0, 20, 0, 0, 0, 20, 0, 0, 0]
        );
        assert_eq!(record[16..20], [0, 4, 0x03, 0x38]);
        assert_eq!(record[30..], [0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn files_get_one_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.pcap");
        for _ in 0..2 {
            append(&path, Format::Pcap, b"xx").unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap().len(), 24 + 4);
    }
}
