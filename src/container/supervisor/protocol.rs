//! The control socket's messages, as supervisor and client both see them.
//!
//! SOCK_SEQPACKET, one message a packet, none empty, none longer than
//! [`MAX_MESSAGE`]. The first byte tells the two kinds apart:
//!
//! * `{`: a JSON object. A client sends [`Request`]s, numbered by itself; the
//!   supervisor answers each with `ok` or `error` and that number, when it is
//!   done (`wait`, `stop` and `restart` take their time; others may overtake).
//!   Unasked, it sends `exit` and `dropped`. A pidfd travels as SCM_RIGHTS.
//! * below 0x20: stream bytes, behind that one code byte. `STDIN` goes to the
//!   supervisor (no bytes behind it: end of file), `STDOUT` and `STDERR` come
//!   back. A client may have [`STDIN_WINDOW`] unconfirmed bytes of stdin under
//!   way; `ACK` (u32, little-endian) confirms that so many have been taken.
//!   So a program that does not read never hides a signal behind its input.
//!
//! Per client and stream the order is the container's; `exit` comes last.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::{Error, Result};
use crate::sys::process::ExitStatus;

/// Both ends come from one build in most cases, but a container outlives an
/// update of the program.
pub(in crate::container) const VERSION: u32 = 1;
pub(in crate::container) const MAX_MESSAGE: usize = 64 * 1024;
/// Stream bytes in one message.
pub(in crate::container) const CHUNK: usize = 32 * 1024;
pub(in crate::container) const STDIN_WINDOW: usize = 64 * 1024;

pub(in crate::container) const STDIN: u8 = 0;
pub(in crate::container) const STDOUT: u8 = 1;
pub(in crate::container) const STDERR: u8 = 2;
pub(in crate::container) const ACK: u8 = 3;

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::container) struct Request {
    pub(in crate::container) v: u32,
    pub(in crate::container) id: u64,
    pub(in crate::container) op: Op,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::container) enum Op {
    /// Send these streams from now on (again, to change them).
    Attach(Attach),
    /// Answered with the exit status when the container has ended for good.
    Wait,
    Signal(i32),
    Stop(Stop),
    Restart(Stop),
    Pause(bool),
    Resize {
        rows: u16,
        cols: u16,
    },
    /// Answered with the first process's pidfd.
    Pidfd,
    State,
    /// For the `Owner`.
    Command {
        verb: String,
        body: Value,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::container) struct Attach {
    pub(in crate::container) stdin: bool,
    pub(in crate::container) stdout: bool,
    pub(in crate::container) stderr: bool,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(in crate::container) struct Stop {
    /// `None`: the container's own.
    pub(in crate::container) signal: Option<i32>,
    /// Seconds until SIGKILL. `None`: the container's own; negative: never.
    pub(in crate::container) timeout: Option<i64>,
    /// It is to be removed: Docker does not call that a stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::container) removal: bool,
}

/// What the supervisor says of its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub pid: i32,
    pub tty: bool,
    pub paused: bool,
    /// A stop or restart is under way.
    pub stopping: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::container) enum Answer {
    Ok {
        id: u64,
        value: Value,
    },
    /// `id` 0 when the request had none that could be read.
    Error {
        id: u64,
        error: Error,
    },
    /// To attached clients: the container has ended for good.
    Exit(ExitStatus),
    /// To an attached client that stood in the way: why it gets no more.
    Dropped(String),
}

/// A client's message.
#[derive(Debug)]
pub(in crate::container) enum FromClient<'a> {
    Request(Request),
    Stdin(&'a [u8]),
}

pub(in crate::container) fn from_client(message: &[u8]) -> Result<FromClient<'_>, (u64, Error)> {
    match message {
        [b'{', ..] => {
            let bad = |e| (0, Error::parse("read", "request", e));
            // Looked at first: another version's `op` may not parse at all.
            let head: Head = serde_json::from_slice(message).map_err(bad)?;
            if head.v != VERSION {
                let error = Error::invalid(format!(
                    "this container's supervisor speaks version {VERSION}, not {}",
                    head.v
                ));
                let hint = "it was started by another release of dockless: stop it with that one";
                return Err((head.id, error.hint(hint)));
            }
            serde_json::from_slice(message)
                .map(FromClient::Request)
                .map_err(|e| (head.id, Error::parse("read", "request", e)))
        }
        [STDIN, bytes @ ..] => Ok(FromClient::Stdin(bytes)),
        _ => Err((0, Error::parse("read", "request", "not a message"))),
    }
}

#[derive(Deserialize)]
struct Head {
    v: u32,
    #[serde(default)]
    id: u64,
}

/// A supervisor's message.
#[derive(Debug)]
pub(in crate::container) enum FromSupervisor<'a> {
    Answer(Answer),
    Stdout(&'a [u8]),
    Stderr(&'a [u8]),
    Ack(usize),
}

pub(in crate::container) fn from_supervisor(message: &[u8]) -> Result<FromSupervisor<'_>> {
    let bad = |why: String| Error::parse("read", "the supervisor's answer", why);
    match message {
        [STDOUT, bytes @ ..] => Ok(FromSupervisor::Stdout(bytes)),
        [STDERR, bytes @ ..] => Ok(FromSupervisor::Stderr(bytes)),
        [ACK, a, b, c, d] => {
            let count = u32::from_le_bytes([*a, *b, *c, *d]);
            let count = usize::try_from(count).map_err(|e| bad(e.to_string()))?;
            Ok(FromSupervisor::Ack(count))
        }
        [b'{', ..] => serde_json::from_slice(message)
            .map(FromSupervisor::Answer)
            .map_err(|e| bad(e.to_string())),
        _ => Err(bad("not a message".to_owned())),
    }
}

pub(in crate::container) fn ack(count: usize) -> [u8; 5] {
    // The window keeps it far below.
    let [a, b, c, d] = u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes();
    [ACK, a, b, c, d]
}

impl Answer {
    pub(in crate::container) fn new(id: u64, result: Result<Value>) -> Self {
        match result {
            Ok(value) => Self::Ok { id, value },
            Err(error) => Self::Error { id, error },
        }
    }

    pub(in crate::container) fn encode(&self) -> Vec<u8> {
        match encode(self) {
            Ok(bytes) => bytes,
            Err(error) => {
                let id = match self {
                    Self::Ok { id, .. } | Self::Error { id, .. } => *id,
                    Self::Exit(_) | Self::Dropped(_) => 0,
                };
                // Short, so it cannot fail for its length again.
                let text = serde_json::to_string(&error.to_string()).unwrap_or_default();
                format!(
                    "{{\"error\":{{\"id\":{id},\"error\":{{\"op\":\"answer\",\"subject\":\"None\",\
                     \"cause\":{{\"State\":{text}}},\"hint\":null,\"undo\":[]}}}}}}"
                )
                .into_bytes()
            }
        }
    }
}

pub(in crate::container) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>> {
    let bytes =
        serde_json::to_vec(message).map_err(|e| Error::parse("encode", "control message", e))?;
    if bytes.len() > MAX_MESSAGE {
        let why = format!("{} bytes, more than {MAX_MESSAGE}", bytes.len());
        return Err(Error::parse("encode", "control message", why));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_way_and_malformed_ones_are_named() {
        let request = Request {
            v: VERSION,
            id: 7,
            op: Op::Stop(Stop {
                signal: Some(2),
                timeout: Some(-1),
                removal: false,
            }),
        };
        let bytes = encode(&request).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            r#"{"v":1,"id":7,"op":{"stop":{"signal":2,"timeout":-1}}}"#
        );
        assert!(matches!(
            from_client(&bytes),
            Ok(FromClient::Request(Request {
                id: 7,
                op: Op::Stop(_),
                ..
            }))
        ));
        assert!(matches!(from_client(b"\0"), Ok(FromClient::Stdin(b""))));
        for (message, id, says) in [
            (&b"{"[..], 0, "EOF"),
            (br#"{"v":9,"id":3,"op":{"dance":1}}"#, 3, "version 1, not 9"),
            (br#"{"v":1,"id":4,"op":{"dance":1}}"#, 4, "dance"),
            (
                br#"{"v":1,"id":5,"op":{"signal":"KILL"}}"#,
                5,
                "invalid type",
            ),
            (b"\x01out", 0, "not a message"),
            (b"hello", 0, "not a message"),
            (b"{\"v\":\xff}", 0, "line 1"),
        ] {
            let (got, error) = from_client(message).unwrap_err();
            assert_eq!(got, id);
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn an_answer_too_long_becomes_an_error_that_can_be_read() {
        let long = Answer::new(3, Ok(Value::String("x".repeat(MAX_MESSAGE))));
        let bytes = long.encode();
        match from_supervisor(&bytes).unwrap() {
            FromSupervisor::Answer(Answer::Error { id: 3, error }) => {
                assert!(error.to_string().contains("more than 65536"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            from_supervisor(&ack(65536)),
            Ok(FromSupervisor::Ack(65536))
        ));
        assert!(from_supervisor(b"").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            let _ = from_client(&bytes);
            let _ = from_supervisor(&bytes);
            let _ = from_client(&[b"{\"v\":1,", &bytes[..]].concat());
        }
    }
}
