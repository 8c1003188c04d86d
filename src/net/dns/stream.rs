//! DNS over TCP: each message behind its length (RFC 1035 §4.2.2). The same
//! for clients and for name servers; never blocks.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// The longest message that a length can tell of.
pub(super) const LONGEST: usize = 65_535;

#[derive(Debug)]
pub(super) struct Stream<S = TcpStream> {
    pub(super) socket: S,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// What has come of reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Message(Vec<u8>),
    /// Not all of it yet.
    Part,
    /// Closed, or broken.
    End,
}

impl<S: Read + Write> Stream<S> {
    pub(super) fn new(socket: S) -> Self {
        Self {
            socket,
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    /// One more message to send; an impossibly long one is none.
    pub(super) fn push(&mut self, message: &[u8]) {
        if let Ok(length) = u16::try_from(message.len()) {
            self.output.extend(length.to_be_bytes());
            self.output.extend(message);
        }
    }

    /// Sends what it can; `false` when the connection is broken.
    pub(super) fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(0) => return false,
                Ok(n) => drop(self.output.drain(..n)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        self.output = Vec::new();
        true
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Reads one message and not a byte more: what follows stays in the
    /// kernel, and with it the wake-up for it.
    pub(super) fn receive(&mut self) -> Received {
        loop {
            let whole = match self.input.first_chunk::<2>() {
                Some(length) => 2 + usize::from(u16::from_be_bytes(*length)),
                None => 2,
            };
            let have = self.input.len();
            if have >= 2 && have == whole {
                let mut message = std::mem::take(&mut self.input);
                message.drain(..2);
                return Received::Message(message);
            }
            self.input.resize(whole, 0);
            let read = self.socket.read(&mut self.input[have..]);
            self.input
                .truncate(have + read.as_ref().copied().unwrap_or(0));
            match read {
                Ok(0) => return Received::End,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Received::Part,
                Err(_) => return Received::End,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    fn pair() -> (Stream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let ours = listener.accept().unwrap().0;
        ours.set_nonblocking(true).unwrap();
        (Stream::new(ours), theirs)
    }

    fn soon(stream: &mut Stream) -> Received {
        for _ in 0..1000 {
            match stream.receive() {
                Received::Part => std::thread::sleep(std::time::Duration::from_millis(1)),
                other => return other,
            }
        }
        Received::Part
    }

    #[test]
    fn messages_come_one_by_one_however_they_are_cut() {
        let (mut stream, mut peer) = pair();
        assert_eq!(stream.receive(), Received::Part);
        peer.write_all(&[0, 3, 1, 2, 3, 0, 0, 0]).unwrap();
        assert_eq!(soon(&mut stream), Received::Message(vec![1, 2, 3]));
        assert_eq!(soon(&mut stream), Received::Message(vec![]));
        peer.write_all(&[2, 9]).unwrap();
        drop(peer);
        assert_eq!(soon(&mut stream), Received::End, "cut off in the middle");
    }

    #[test]
    fn what_is_pushed_is_framed() {
        let (mut stream, mut peer) = pair();
        stream.push(b"ab");
        stream.push(&vec![0; LONGEST + 1]);
        assert!(!stream.is_flushed());
        assert!(stream.flush() && stream.is_flushed());
        let mut got = [0; 4];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got, [0, 2, b'a', b'b']);
    }
}
