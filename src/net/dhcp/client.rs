//! The machine on sockets and a timer: first alone, while a start waits for
//! its lease, then as one of the supervisor's fds.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::lease::Lease;
use super::machine::{Action, Machine, Phase};
use super::socket::{self, FRAME, Port, Prober};
use super::{Identity, message};
use crate::base::{Error, Result};
use crate::sys::boottime::{self, Timer};
use crate::sys::epoll::{Epoll, EpollFlags};
use crate::sys::random;

const KEY_TIMER: u64 = 0;
const KEY_ANSWERS: u64 = 1;
const KEY_ARP: u64 = 2;
/// Frames before others have their turn.
const AT_ONCE: usize = 32;

/// What became of the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// To be used from now on; perhaps as before.
    Has(Lease),
    /// The address is not the container's any more.
    Lost,
}

#[derive(Debug)]
pub struct Client {
    port: Port,
    identity: Identity,
    machine: Machine,
    timer: Timer,
    answers: Vec<OwnedFd>,
    prober: Option<Prober>,
    udp: Option<UdpSocket>,
    poll: Option<(Epoll, u64)>,
    news: VecDeque<News>,
    trouble: Option<String>,
}

impl Client {
    /// Begins to ask on an interface that is up and has `identity`'s MAC.
    /// `wanted`: this address or none. `before`: the lease that it had last;
    /// `hint`: the address that it had, when it had one.
    pub fn start(
        port: Port,
        identity: Identity,
        wanted: Option<Ipv4Addr>,
        before: Option<Lease>,
        hint: Option<Ipv4Addr>,
    ) -> Result<Self> {
        let mut machine = Machine::new(u64::from_ne_bytes(random::bytes()?), wanted);
        if let Some(shared) = &port.shared {
            machine.share_mac(shared.addrs.clone());
        }
        let mut client = Self {
            port,
            identity,
            machine,
            timer: Timer::new()?,
            answers: Vec::new(),
            prober: None,
            udp: None,
            poll: None,
            news: VecDeque::new(),
            trouble: None,
        };
        let left = before.map(|lease| {
            let left = lease.remaining(unix_time());
            (lease, left)
        });
        client.machine.start(boottime::now()?, left, hint);
        client.follow()?;
        Ok(client)
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn phase(&self) -> Phase {
        self.machine.phase()
    }

    pub fn take_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// What has last gone wrong, once.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.machine.take_trouble().or_else(|| self.trouble.take())
    }

    /// Waits for the lease, and no longer than `patience`.
    pub fn wait(&mut self, patience: Duration) -> Result<Lease> {
        let end = boottime::now()? + patience;
        let mut trouble = None;
        loop {
            while let Some(news) = self.take_news() {
                if let News::Has(lease) = news {
                    self.trouble = self.take_trouble().or(trouble);
                    return Ok(lease);
                }
            }
            trouble = self.take_trouble().or(trouble);
            if let (Some((server, offered)), Some(wanted)) =
                (self.machine.other_offer(), self.machine.wanted())
            {
                return Err(Error::conflict(format!(
                    "DHCP server {server} does not give {wanted}: it offers {offered}"
                ))
                .hint(
                    "somebody has it, or it is not in the server's range; \
                     leave --ip out, or reserve it there for this client",
                ));
            }
            let now = boottime::now()?;
            if now >= end {
                return Err(self.nobody(patience, trouble));
            }
            self.timer
                .set(Some(self.due().map_or(end, |at| at.min(end))))?;
            self.sleep()?;
            self.take_in()?;
        }
    }

    fn nobody(&self, patience: Duration, trouble: Option<String>) -> Error {
        let what = match self.machine.wanted() {
            Some(ip) => format!("address {ip}"),
            None => "an address".to_owned(),
        };
        let (why, more) = match trouble {
            Some(trouble) => (format!("no lease ({trouble})"), ""),
            None => (
                "no DHCP server answered".to_owned(),
                " (nor does one that has no address left)",
            ),
        };
        Error::state(
            "get",
            what,
            format!(
                "{why} within {} s{more}; asked as MAC {}, client id {}",
                patience.as_secs(),
                self.identity.mac,
                self.identity.client_id_text()
            ),
        )
    }

    fn sleep(&self) -> Result<()> {
        let mut fds = vec![PollFd::new(self.timer.as_fd(), PollFlags::POLLIN)];
        let answers = self.answers.iter().map(AsFd::as_fd);
        let arp = self.prober.as_ref().map(AsFd::as_fd);
        let sockets = answers.chain(arp);
        fds.extend(sockets.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(Error::sys("wait for", "a DHCP server", e)),
        }
    }

    /// Becomes one of the loop's: all keys lie in `base..base + 3`.
    pub fn register(&mut self, epoll: &Epoll, base: u64) -> Result<()> {
        epoll.add(&self.timer, EpollFlags::EPOLLIN, base + KEY_TIMER)?;
        let watch = |fd: &dyn AsFd, key| epoll.add(fd.as_fd(), EpollFlags::EPOLLIN, base + key);
        for answers in &self.answers {
            watch(answers, KEY_ANSWERS)?;
        }
        if let Some(prober) = &self.prober {
            watch(prober, KEY_ARP)?;
        }
        self.poll = Some((epoll.try_clone()?, base));
        self.timer.set(self.due())
    }

    pub fn is_registered(&self) -> bool {
        self.poll.is_some()
    }

    /// Something of it is ready.
    pub fn ready(&mut self) -> Result<()> {
        let outcome = self.take_in();
        if let Err(error) = &outcome {
            self.trouble = Some(error.to_string());
        }
        // Whatever it was: the timer must not stay ready.
        let later = boottime::now()? + Duration::from_secs(1);
        let due = self.due().map(|at| match outcome {
            Ok(()) => at,
            Err(_) => at.max(later),
        });
        self.timer.set(due)
    }

    fn due(&self) -> Option<Duration> {
        let probe = self.prober.as_ref().map(Prober::deadline);
        probe.into_iter().chain(self.machine.deadline()).min()
    }

    fn take_in(&mut self) -> Result<()> {
        let now = boottime::now()?;
        let mut bytes = [0; FRAME];
        for _ in 0..AT_ONCE {
            let mut sockets = self.answers.iter();
            let Some(length) = sockets.find_map(|socket| socket::next(socket, &mut bytes)) else {
                break;
            };
            if let Some(reply) = message::parse(&bytes[..length], &self.identity) {
                self.machine.handle(now, &reply);
                self.follow()?;
            }
        }
        if let Some(prober) = &mut self.prober {
            let holder = prober.holder(&self.port);
            if holder.is_some() || prober.on_time(&self.port, now)? {
                self.prober = None;
                self.machine.probed(now, holder);
            }
        }
        self.machine.on_time(now);
        self.follow()
    }

    /// Does what the machine says, and has the sockets that it needs now.
    fn follow(&mut self) -> Result<()> {
        while let Some(action) = self.machine.action() {
            match action {
                Action::Broadcast(ask) => {
                    let frame = ask.broadcast(&self.identity);
                    if self.machine.listens() {
                        self.listen()?;
                    }
                    match self.answers.first() {
                        Some(socket) => self.port.send(socket, &frame)?,
                        None => self.port.shout(&frame)?,
                    }
                }
                Action::Unicast(ask, server) => {
                    self.listen()?;
                    if self.udp.is_none() {
                        let own = ask.ciaddr.unwrap_or(Ipv4Addr::UNSPECIFIED);
                        self.udp = Some(self.port.udp(own)?);
                    }
                    if let Some(udp) = &self.udp {
                        socket::unicast(udp, &ask.payload(&self.identity), server)?;
                    }
                }
                Action::Probe(ip) => {
                    let prober = self.port.prober(ip)?;
                    if let Some((epoll, base)) = &self.poll {
                        epoll.add(&prober, EpollFlags::EPOLLIN, base + KEY_ARP)?;
                    }
                    self.prober = Some(prober);
                }
                Action::Use(mut lease) => {
                    if let Some(end) = self.machine.end() {
                        let left = end.saturating_sub(boottime::now()?).as_secs();
                        let seconds = u64::from(lease.seconds);
                        lease.obtained = (unix_time() + left).saturating_sub(seconds);
                    } else {
                        lease.obtained = unix_time();
                    }
                    self.news.push_back(News::Has(lease));
                }
                Action::Drop => self.news.push_back(News::Lost),
            }
        }
        // A socket that is closed leaves the poll set by itself.
        if !self.machine.listens() {
            self.answers.clear();
        }
        if !matches!(self.phase(), Phase::Renewing | Phase::Rebinding) {
            self.udp = None;
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<()> {
        if !self.answers.is_empty() {
            return Ok(());
        }
        let sockets = self.port.answers()?;
        if let Some((epoll, base)) = &self.poll {
            for socket in &sockets {
                epoll.add(socket, EpollFlags::EPOLLIN, base + KEY_ANSWERS)?;
            }
        }
        self.answers = sockets;
        Ok(())
    }

    /// Gives the lease back, while the interface still has its address.
    pub fn release(&self) -> Result<()> {
        match self.machine.lease() {
            Some(lease) => release(&self.port, &self.identity, lease),
            None => Ok(()),
        }
    }
}

/// Gives a lease back from an interface that has its address and MAC.
///
/// Nobody answers that. It has left when the server's MAC was found, and its
/// copy in the queue is gone.
pub fn release(port: &Port, identity: &Identity, lease: &Lease) -> Result<()> {
    let ask = Machine::release(lease, u32::from_ne_bytes(random::bytes()?));
    let udp = port.udp(lease.ip())?;
    socket::unicast(&udp, &ask.payload(identity), lease.server)?;
    socket::flush(&udp);
    Ok(())
}

/// Seconds since 1970.
pub fn unix_time() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
