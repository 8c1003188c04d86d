//! Names: the resolver at 127.0.0.11 inside a container, served by its
//! supervisor. `docs/names.md` explains it to its users.
//!
//! # Theory of operation
//!
//! | file | what |
//! |---|---|
//! | `message.rs` | questions and answers as bytes; whatever comes in is hostile |
//! | `names.rs` | who is called what, on the networks of one container |
//! | `redirect.rs` | rules that lead port 53 here |
//! | `exchange.rs` | one question passed on to name servers |
//! | `stream.rs` | messages on a TCP connection |
//!
//! A [`Resolver`] is one container's. Its two sockets are born in the
//! container's namespace and served from the supervisor's loop, outside; what
//! a name means, the engine says ([`Names`]), from the state folder, for each
//! question anew. So there is nothing to keep up to date. A second after the
//! last question there are two sockets and nothing else: no timer, no buffer,
//! no cache.
//!
//! | asked | answer |
//! |---|---|
//! | A, AAAA of a name that is ours | its addresses of that family, perhaps none |
//! | MX of such a name | none |
//! | PTR of an address that is ours | `NAME.NETWORK` |
//! | anything else | a name server's, unchanged |
//! | a name without a dot, where the user has set `ndots` | A, AAAA: none |
//!
//! *Passing on.* The first three name servers, one after the other, four
//! seconds each, by the transport that the client chose (a cut answer goes
//! back cut, and the client comes again by TCP). A server that says SERVFAIL
//! or REFUSED, or is not there, is passed over; NXDOMAIN is an answer. When
//! none is left: SERVFAIL. Too many at once: REFUSED.
//!
//! *Where they are asked from.* Those of `--dns` from the container's
//! namespace, by its routes; those of the host's file from the host's, where
//! they are known to answer (one may be 127.0.0.53). A container whose
//! networks are all internal would reach the outside through the latter, so
//! for it they do not exist.
//!
//! *Every socket, client or server, is a task with a number that is not used
//! again*: an event for a task that has ended finds nobody.

mod exchange;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod message;
mod names;
mod redirect;
mod stream;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn};

use self::exchange::{Exchange, Origin, Outcome};
use self::message::{Ask, Code, Parsed};
use self::stream::{LONGEST, Received, Stream};
use crate::base::{Error, Proto, Result};
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::random;

pub use self::exchange::{Side, Upstream};
pub use self::names::{Entry, Names, Table};

/// Where every resolv.conf of a container points.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
/// Name servers beyond these are not asked, as libc does not.
const SERVERS: usize = 3;
/// Questions on their way at once, if the process may open so many files.
const MOST: u64 = 1024;
/// TCP clients at once, and how long one may be silent.
const CLIENTS: usize = 64;
const SILENCE: Duration = Duration::from_secs(10);
/// Out of files: clients wait in the kernel's queue for so long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// No question is as long; what is, is cut off by the kernel and dropped.
const QUESTION: usize = 4096;
/// Before memory is given back; the supervisor gives it to the kernel later.
const QUIET: Duration = Duration::from_secs(1);
/// Datagrams (messages of a client) before others have their turn.
const AT_ONCE: usize = 64;
const KEY_UDP: u64 = 0;
const KEY_TCP: u64 = 1;
const FIRST_TASK: u32 = 2;

/// What the container's resolv.conf has come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub upstreams: Vec<Upstream>,
    /// The user has said what counts as a whole name.
    pub ndots_set: bool,
}

#[derive(Debug)]
struct Client {
    stream: Stream,
    /// For a name server's answer.
    waits: bool,
    deadline: Instant,
}

#[derive(Debug)]
enum Task {
    Client(Client),
    Exchange(Exchange),
}

impl Task {
    fn deadline(&self) -> Instant {
        match self {
            Self::Client(client) => client.deadline,
            Self::Exchange(exchange) => exchange.deadline,
        }
    }
}

/// What becomes of a question.
enum Reply {
    Now(Vec<u8>),
    /// A task has it.
    Later,
    Never,
}

#[derive(Debug)]
pub struct Resolver {
    netns: Netns<Sandbox>,
    udp: UdpSocket,
    tcp: TcpListener,
    settings: Settings,
    /// Is one of the networks no internal one?
    external: bool,
    tasks: HashMap<u32, Task>,
    next: u32,
    clients: usize,
    room: usize,
    /// For name servers' datagrams; empty at rest.
    buffer: Vec<u8>,
    /// When to forget, if there is anything.
    quiet: Option<Instant>,
    /// When to accept again, if that is not done now.
    again: Option<Instant>,
    poll: Option<(Epoll, u64)>,
}

impl Resolver {
    /// Listens in the namespace, whose loopback is up. Comes back with a
    /// warning where the kernel cannot redirect: then it has port 53 itself.
    pub fn start(netns: &Netns<Sandbox>, settings: Settings) -> Result<(Self, Option<Error>)> {
        let (udp, tcp) = listen(netns, 0)?;
        let local = |addr: std::io::Result<SocketAddr>| {
            addr.map_err(|e| Error::sys("look up port of", "the resolver", e))
                .map(|addr| addr.port())
        };
        let ports = [
            (Proto::Udp, local(udp.local_addr())?),
            (Proto::Tcp, local(tcp.local_addr())?),
        ];
        let (udp, tcp, warning) = match redirect::install(netns, ADDRESS, ports) {
            Ok(()) => (udp, tcp, None),
            Err(refused) => {
                let (udp, tcp) = listen(netns, redirect::PORT)?;
                (udp, tcp, Some(refused))
            }
        };
        let this = Self {
            netns: netns.try_clone()?,
            udp,
            tcp,
            settings,
            external: true,
            tasks: HashMap::new(),
            next: FIRST_TASK,
            clients: 0,
            room: room(),
            buffer: Vec::new(),
            quiet: None,
            again: None,
            poll: None,
        };
        Ok((this, warning))
    }

    /// Other name servers than before; questions on their way stay there.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Is there a network that leads outside? May change at any time.
    pub fn set_external(&mut self, external: bool) {
        self.external = external;
    }

    /// Adds its sockets to the loop. All keys it uses lie in
    /// `base..base + (1 << 32)`.
    pub fn register(&mut self, epoll: &Epoll, base: u64) -> Result<()> {
        epoll.add(&self.udp, EpollFlags::EPOLLIN, base + KEY_UDP)?;
        epoll.add(&self.tcp, EpollFlags::EPOLLIN, base + KEY_TCP)?;
        self.poll = Some((epoll.try_clone()?, base));
        Ok(())
    }

    pub fn is_registered(&self) -> bool {
        self.poll.is_some()
    }

    /// Serves one ready key (given without `base`).
    pub fn ready(&mut self, key: u64, events: EpollFlags, names: &mut dyn Names) -> Result<()> {
        self.quiet = Some(Instant::now() + QUIET);
        match key {
            KEY_UDP => self.datagrams(names),
            KEY_TCP => self.accept(),
            task => {
                let task = u32::try_from(task).unwrap_or_default();
                match self.tasks.remove(&task) {
                    Some(Task::Client(client)) => self.client(task, client, events, names),
                    Some(Task::Exchange(exchange)) => self.server(task, exchange, names),
                    None => {}
                }
            }
        }
        self.rest();
        Ok(())
    }

    /// When `on_time` wants to be called; `None` at rest.
    pub fn deadline(&self) -> Option<Instant> {
        let tasks = self.tasks.values().map(Task::deadline);
        tasks.chain(self.quiet).chain(self.again).min()
    }

    pub fn on_time(&mut self, now: Instant, names: &mut dyn Names) {
        if self.quiet.is_some_and(|at| at <= now) {
            self.quiet = None;
            names.forget();
        }
        if self.again.is_some_and(|at| at <= now) {
            self.again = None;
            self.watch_listener(EpollFlags::EPOLLIN);
        }
        let late = self.tasks.iter().filter(|(_, t)| t.deadline() <= now);
        let late: Vec<u32> = late.map(|(number, _)| *number).collect();
        for number in late {
            match self.tasks.remove(&number) {
                Some(Task::Client(_)) => self.clients -= 1,
                Some(Task::Exchange(exchange)) => self.go_on(number, exchange, names),
                None => {}
            }
        }
        self.rest();
    }

    fn rest(&mut self) {
        if self.tasks.is_empty() {
            self.tasks = HashMap::new();
            self.buffer = Vec::new();
        }
    }

    // --- questions

    fn datagrams(&mut self, names: &mut dyn Names) {
        let mut question = [0; QUESTION];
        for _ in 0..AT_ONCE {
            let (length, client) = match self.udp.recv_from(&mut question) {
                Ok(received) => received,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // Interrupted, or about an earlier answer.
                Err(_) => continue,
            };
            if length == QUESTION {
                continue;
            }
            if let Reply::Now(answer) = self.reply(&question[..length], Origin::Udp(client), names)
            {
                self.send(client, &answer);
            }
        }
    }

    fn send(&self, client: SocketAddr, answer: &[u8]) {
        // Full, or the client is gone: lost, as a datagram may be.
        let _ = self.udp.send_to(answer, client);
    }

    fn reply(&mut self, bytes: &[u8], origin: Origin, names: &mut dyn Names) -> Reply {
        let query = match message::parse(bytes) {
            Parsed::Query(query) => query,
            Parsed::Refused(answer) => return Reply::Now(answer),
            Parsed::Ignored => return Reply::Never,
        };
        let limit = match origin {
            Origin::Udp(_) => query.limit(),
            Origin::Tcp(_) => LONGEST,
        };
        let ours = match &query.ask {
            Ask::V4(name) | Ask::V6(name) => match names.find(name) {
                Some(mut addrs) => {
                    let v4 = matches!(query.ask, Ask::V4(_));
                    addrs.retain(|addr| addr.is_ipv4() == v4);
                    rotate(&mut addrs);
                    Some(query.addresses(&addrs, limit))
                }
                None => (self.settings.ndots_set && !name.contains('.'))
                    .then(|| query.bare(Code::NoError)),
            },
            Ask::Nothing(name) => names.find(name).map(|_| query.bare(Code::NoError)),
            Ask::Pointer(addr) => names.name_of(*addr).map(|name| query.pointer(&name, limit)),
            Ask::Other => None,
        };
        match ours {
            Some(answer) => Reply::Now(answer),
            None => self.pass_on(query.bytes(), origin),
        }
    }

    fn pass_on(&mut self, query: &[u8], origin: Origin) -> Reply {
        if self.tasks.len().saturating_sub(self.clients) >= self.room {
            return Reply::Now(message::failed(query, Code::Refused));
        }
        let number = self.number();
        match self.ask_next(number, Exchange::new(origin, query)) {
            None => Reply::Later,
            Some(exchange) => Reply::Now(message::failed(&exchange.question(), Code::ServFail)),
        }
    }

    fn number(&mut self) -> u32 {
        let number = self.next;
        self.next = number.checked_add(1).unwrap_or(FIRST_TASK);
        number
    }

    // --- name servers

    /// Gives the exchange back when no server is left.
    fn ask_next(&mut self, number: u32, mut exchange: Exchange) -> Option<Exchange> {
        let (external, all) = (self.external, &self.settings.upstreams);
        let servers: Vec<Upstream> = all
            .iter()
            .take(SERVERS)
            .filter(|server| external || server.from == Side::Sandbox)
            .copied()
            .collect();
        while let Some(events) = exchange.next(&servers, &self.netns) {
            if let (Some((epoll, base)), Some(fd)) = (&self.poll, exchange.fd())
                && epoll.add(fd, events, base + u64::from(number)).is_ok()
            {
                self.tasks.insert(number, Task::Exchange(exchange));
                return None;
            }
        }
        Some(exchange)
    }

    fn server(&mut self, number: u32, mut exchange: Exchange, names: &mut dyn Names) {
        self.buffer.resize(LONGEST, 0);
        match exchange.ready(&mut self.buffer) {
            Outcome::Answer(answer) => self.deliver(exchange.origin, &answer, names),
            Outcome::Next => self.go_on(number, exchange, names),
            Outcome::Pending(events) => {
                if let Some(fd) = exchange.fd() {
                    self.watch(fd, events, number);
                }
                self.tasks.insert(number, Task::Exchange(exchange));
            }
        }
    }

    fn go_on(&mut self, number: u32, exchange: Exchange, names: &mut dyn Names) {
        if let Some(exchange) = self.ask_next(number, exchange) {
            let origin = exchange.origin;
            let answer = message::failed(&exchange.question(), Code::ServFail);
            self.deliver(origin, &answer, names);
        }
    }

    fn deliver(&mut self, origin: Origin, answer: &[u8], names: &mut dyn Names) {
        match origin {
            Origin::Udp(client) => self.send(client, answer),
            Origin::Tcp(number) => {
                if let Some(Task::Client(mut client)) = self.tasks.remove(&number) {
                    client.waits = false;
                    client.stream.push(answer);
                    self.client(number, client, EpollFlags::empty(), names);
                }
            }
        }
    }

    fn watch(&self, fd: impl AsFd, events: EpollFlags, number: u32) {
        if let Some((epoll, base)) = &self.poll {
            // What is there can be modified.
            let _ = epoll.modify(fd, events, base + u64::from(number));
        }
    }

    // --- TCP clients

    fn accept(&mut self) {
        for _ in 0..AT_ONCE {
            match self.tcp.accept() {
                Ok((socket, _)) => self.admit(socket),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.again = Some(Instant::now() + ACCEPT_AGAIN);
                    return self.watch_listener(EpollFlags::empty());
                }
            }
        }
    }

    fn watch_listener(&self, events: EpollFlags) {
        if let Some((epoll, base)) = &self.poll {
            // What is there can be modified.
            let _ = epoll.modify(&self.tcp, events, base + KEY_TCP);
        }
    }

    /// Who comes when all places are taken takes the oldest one's.
    fn admit(&mut self, socket: TcpStream) {
        if self.clients >= CLIENTS {
            let clients = self.tasks.iter().filter_map(|(number, task)| match task {
                Task::Client(client) => Some((client.deadline, *number)),
                Task::Exchange(_) => None,
            });
            if let Some((_, oldest)) = clients.min() {
                self.tasks.remove(&oldest);
                self.clients -= 1;
            }
        }
        let number = self.number();
        let Some((epoll, base)) = &self.poll else {
            return;
        };
        let key = base + u64::from(number);
        if socket.set_nonblocking(true).is_ok()
            && epoll.add(&socket, EpollFlags::EPOLLIN, key).is_ok()
        {
            let client = Client {
                stream: Stream::new(socket),
                waits: false,
                deadline: Instant::now() + SILENCE,
            };
            self.tasks.insert(number, Task::Client(client));
            self.clients += 1;
        }
    }

    /// One question at a time, each answered before the next is read.
    fn client(
        &mut self,
        number: u32,
        mut client: Client,
        events: EpollFlags,
        names: &mut dyn Names,
    ) {
        let gone = EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        match self.converse(number, &mut client, names) {
            Some(wanted) if !(client.waits && events.intersects(gone)) => {
                self.watch(&client.stream.socket, wanted, number);
                self.tasks.insert(number, Task::Client(client));
            }
            _ => self.clients -= 1,
        }
    }

    /// What to wait for; `None`: it is over.
    fn converse(
        &mut self,
        number: u32,
        client: &mut Client,
        names: &mut dyn Names,
    ) -> Option<EpollFlags> {
        for _ in 0..AT_ONCE {
            if !client.stream.flush() {
                return None;
            }
            if !client.stream.is_flushed() {
                return Some(EpollFlags::EPOLLOUT);
            }
            if client.waits {
                return Some(EpollFlags::empty());
            }
            match client.stream.receive() {
                Received::Part => return Some(EpollFlags::EPOLLIN),
                Received::End => return None,
                Received::Message(question) => {
                    client.deadline = Instant::now() + SILENCE;
                    match self.reply(&question, Origin::Tcp(number), names) {
                        Reply::Now(answer) => client.stream.push(&answer),
                        Reply::Never => return None,
                        Reply::Later => {
                            client.waits = true;
                            // The servers' time is not its silence.
                            client.deadline += SILENCE;
                        }
                    }
                }
            }
        }
        Some(EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT)
    }
}

/// Both sockets, on one port or (0) on any.
fn listen(netns: &Netns<Sandbox>, port: u16) -> Result<(UdpSocket, TcpListener)> {
    const BACKLOG: i32 = 64;
    let fail = |e| Error::sys("listen on", format!("{ADDRESS}:{port}"), e);
    let bound = |kind: SockType| -> Result<OwnedFd> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = netns.socket(AddressFamily::Inet, kind, flags, 0)?;
        let addr = SockaddrIn::from(std::net::SocketAddrV4::new(ADDRESS, port));
        socket::bind(socket.as_raw_fd(), &addr).map_err(fail)?;
        Ok(socket)
    };
    let udp = bound(SockType::Datagram)?;
    let tcp = bound(SockType::Stream)?;
    let backlog = Backlog::new(BACKLOG).map_err(fail)?;
    socket::listen(&tcp, backlog).map_err(fail)?;
    Ok((udp.into(), tcp.into()))
}

/// Another one first each time: clients take the first.
fn rotate(addrs: &mut [IpAddr]) {
    if addrs.len() > 1
        && let Ok(random) = random::bytes()
    {
        addrs.rotate_left(usize::from(u16::from_ne_bytes(random)) % addrs.len());
    }
}

/// How many questions may be on their way: a socket each.
fn room() -> usize {
    const OWN: u64 = 160;
    const EACH: u64 = 3;
    let open = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    let room = (open.saturating_sub(OWN) / EACH).clamp(16, MOST);
    usize::try_from(room).unwrap_or(16)
}
