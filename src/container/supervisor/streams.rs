//! The container's standard streams: read, logged and handed on; and its
//! input, fed as fast as the program takes it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::protocol::{CHUNK, STDERR, STDOUT};
use super::{KEY_STDERR, KEY_STDIN, KEY_STDOUT};
use crate::base::{Error, Result, Subject};
use crate::container::launch::Stdio;
use crate::container::logs::{Stream, Writer};
use crate::sys::epoll::{Epoll, EpollFlags};

/// What a pipe can hold at most (fs.pipe-max-size): the program is dead when
/// the streams are drained, so there cannot be more in them.
const DRAIN_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Streams {
    /// stdout (or the terminal) and stderr, until each has ended.
    outputs: [Option<OwnedFd>; 2],
    input: Option<Input>,
    /// Not read from, since a client's queue is full.
    paused: bool,
    log: Writer,
}

#[derive(Debug)]
struct Input {
    fd: OwnedFd,
    queue: VecDeque<Portion>,
    /// In the poll set, since the pipe is full.
    waiting: bool,
    /// Close it when the queue is empty.
    ends: bool,
}

/// Input of one message of one client, from `done` on not yet written.
#[derive(Debug)]
struct Portion {
    client: u32,
    bytes: Vec<u8>,
    done: usize,
}

const STREAMS: [(Stream, u8, u64); 2] = [
    (Stream::Stdout, STDOUT, KEY_STDOUT),
    (Stream::Stderr, STDERR, KEY_STDERR),
];

impl Streams {
    pub(super) fn new(log: Writer) -> Self {
        Self {
            outputs: [None, None],
            input: None,
            paused: false,
            log,
        }
    }

    /// Takes over a (re)started program's ends.
    pub(super) fn adopt(&mut self, stdio: Stdio, open_stdin: bool, epoll: &Epoll) -> Result<()> {
        let (stdin, stdout, stderr) = match stdio {
            Stdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => (stdin, stdout, Some(stderr)),
            Stdio::Tty(master) => {
                // Two descriptors, because the poll set holds one only once:
                // reading may pause while input waits.
                let copy = open_stdin.then(|| master.try_clone()).transpose();
                let copy = copy.map_err(|e| Error::sys("duplicate", "terminal", e))?;
                (copy, master, None)
            }
        };
        self.input = match stdin {
            Some(fd) => {
                nonblocking(&fd)?;
                Some(Input {
                    fd,
                    queue: VecDeque::new(),
                    waiting: false,
                    ends: false,
                })
            }
            None => None,
        };
        self.paused = false;
        for (slot, fd) in [Some(stdout), stderr].into_iter().enumerate() {
            if let Some(fd) = &fd {
                nonblocking(fd)?;
                epoll.add(fd, EpollFlags::EPOLLIN, STREAMS[slot].2)?;
            }
            self.outputs[slot] = fd;
        }
        Ok(())
    }

    /// The terminal's window, if it still has one.
    pub(super) fn resize(&self, rows: u16, cols: u16) -> Result<()> {
        match &self.outputs[0] {
            Some(fd) => crate::sys::raw::tty_set_size(fd.as_fd(), rows, cols)
                .map_err(|e| Error::sys("resize", "terminal", e)),
            None => Ok(()),
        }
    }

    /// Reads what one stream has ready into `buffer` and logs it; gives back
    /// the length of the frame (code byte and bytes) for the clients.
    pub(super) fn read(&mut self, key: u64, buffer: &mut [u8], epoll: &Epoll) -> Option<usize> {
        let slot = usize::from(key == KEY_STDERR);
        let (stream, code, _) = STREAMS[slot];
        let fd = self.outputs[slot].as_ref()?;
        match nix::unistd::read(fd, &mut buffer[1..=CHUNK]) {
            Ok(length) if length > 0 => {
                buffer[0] = code;
                self.log
                    .write(stream, &buffer[1..=length], SystemTime::now());
                Some(length + 1)
            }
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            // EIO: nobody has the terminal's other side open any more.
            Ok(_) | Err(_) => {
                if !self.paused {
                    let _ = epoll.remove(fd);
                }
                self.outputs[slot] = None;
                self.log.end(stream, SystemTime::now());
                None
            }
        }
    }

    /// The program is dead: takes what the streams still hold. A process
    /// outside that holds an end open can neither delay this nor make it
    /// endless: it stops at the first moment with nothing to read.
    pub(super) fn drain(
        &mut self,
        buffer: &mut [u8],
        epoll: &Epoll,
        mut hand_on: impl FnMut(&[u8]),
    ) {
        for (slot, (stream, _, key)) in STREAMS.into_iter().enumerate() {
            let mut total = 0;
            while total < DRAIN_MAX
                && let Some(length) = self.read(key, buffer, epoll)
            {
                hand_on(&buffer[..length]);
                total += length;
            }
            if let Some(fd) = self.outputs[slot].take() {
                if !self.paused {
                    let _ = epoll.remove(&fd);
                }
                self.log.end(stream, SystemTime::now());
            }
        }
        self.paused = false;
        self.close_input(epoll);
    }

    /// Stops or goes on reading. Taken out of the poll set rather than
    /// masked: a hang-up is reported whatever the mask, over and over.
    pub(super) fn pause(&mut self, on: bool, epoll: &Epoll) -> Result<()> {
        if self.paused == on {
            return Ok(());
        }
        self.paused = on;
        for (slot, fd) in self.outputs.iter().enumerate() {
            match fd {
                Some(fd) if on => epoll.remove(fd)?,
                Some(fd) => epoll.add(fd, EpollFlags::EPOLLIN, STREAMS[slot].2)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Queues input. Without an open stdin it is swallowed unconfirmed, so
    /// that the client soon stops sending.
    pub(super) fn input(&mut self, client: u32, bytes: &[u8]) {
        if let Some(input) = self.input.as_mut().filter(|input| !input.ends) {
            let bytes = bytes.to_vec();
            input.queue.push_back(Portion {
                client,
                bytes,
                done: 0,
            });
        }
    }

    /// No more input will come: the program sees the end of file behind what
    /// is queued.
    pub(super) fn end_input(&mut self) {
        if let Some(input) = &mut self.input {
            input.ends = true;
        }
    }

    /// Writes queued input; `taken(client, count)` for each finished message.
    pub(super) fn feed(&mut self, epoll: &Epoll, mut taken: impl FnMut(u32, usize)) -> Result<()> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        while let Some(portion) = input.queue.front_mut() {
            match nix::unistd::write(&input.fd, &portion.bytes[portion.done..]) {
                Ok(n) => portion.done += n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    if !input.waiting {
                        epoll.add(&input.fd, EpollFlags::EPOLLOUT, KEY_STDIN)?;
                        input.waiting = true;
                    }
                    return Ok(());
                }
                // The program has closed its stdin.
                Err(_) => {
                    self.close_input(epoll);
                    return Ok(());
                }
            }
            if portion.done == portion.bytes.len() {
                taken(portion.client, portion.done);
                input.queue.pop_front();
            }
        }
        if input.waiting {
            epoll.remove(&input.fd)?;
            input.waiting = false;
        }
        if input.ends {
            self.close_input(epoll);
        }
        Ok(())
    }

    fn close_input(&mut self, epoll: &Epoll) {
        if let Some(input) = self.input.take()
            && input.waiting
        {
            let _ = epoll.remove(&input.fd);
        }
    }

    /// Gives back the memory that only busy streams need.
    pub(super) fn rest(&mut self) {
        self.log.rest();
        if let Some(input) = &mut self.input {
            input.queue.shrink_to_fit();
        }
    }
}

/// Our end of a pipe or terminal is an open file description of its own, so
/// the program's end keeps blocking.
pub(super) fn nonblocking(fd: impl AsFd) -> Result<()> {
    let fail = |e| Error::sys("set up stream", Subject::None, e);
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(fail)?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).map_err(fail)?;
    Ok(())
}
