//! IPv4 address conflict detection (RFC 5227): is an address free before it is
//! used, and who claims it afterwards.
//!
//! *Theory of operation.* A [`Watch`] is one packet socket, born in the
//! container's namespace, that probes and listens. A filter in the kernel lets
//! nothing through but ARP of others that contradicts the address: so whoever
//! watches sleeps as long as nobody does. Until the address is claimed the
//! filter also passes the probes of others (two machines that start with one
//! address at the same moment both see it), and the container's kernel is told
//! not to answer for the address ([`SILENT`]).
//!
//! An ipvlan shares its parent's MAC, and takes the frames that bear its
//! address as their target: the answer to a probe (target 0.0.0.0, RFC 5227
//! §1.1) goes to the parent. So there the ear is a second socket, on the
//! parent; and as the MAC is the same, whatever else stands on that parent is
//! no contradiction.
//!
//! A macvlan's MAC follows from its address, by the same rule on every host
//! (Docker's): who has the address already has the MAC, too, and what is asked
//! by that MAC never gets its answer. So until the address is claimed the
//! parent asks and listens as well, by its own MAC ([`Twin`]). Where a switch
//! sends frames back to the port that they came from (that of a VEPA, a bond
//! without LACP), the one hears the other ask: who asks by either MAC is no
//! contradiction, who answers is. But a question that comes back when the
//! address is claimed is answered by the container itself, and the answer comes
//! back, too. The parent hears its question before the container does (a
//! macvlan has broadcasts from a work queue): from then on the switch is known
//! to reflect, and nothing that the container's MAC says after the claim counts.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll, ppoll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use serde::{Deserialize, Serialize};

use crate::base::{Error, MacAddr, Result, Subject};
use crate::sys::arp::{self, Claim, Said};
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::{random, raw};

/// How thoroughly an address is looked into before it is used: `--acd`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acd {
    /// One probe, which nobody waits for.
    #[default]
    Fast,
    /// Three probes, in RFC 5227's times: four to seven seconds.
    Strict,
    Off,
}

impl Acd {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Strict => "strict",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Acd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// RFC 5227 §1.1.
const PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBE_NUM: usize = 3;
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(2);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
/// So many addresses may be tried in a row.
pub const MAX_CONFLICTS: usize = 10;
/// An address is defended at most that often.
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// `net.ipv4.conf.IFNAME.arp_ignore`: answers nobody.
pub const SILENT: &str = "8";

const ETH_P_ARP: u16 = 0x0806;
/// A few frames are enough to know.
const RECEIVE_BUFFER: usize = 4096;

/// A dead container's interface answers until the kernel has taken its
/// namespace apart: some 30 ms. Whoever answers must do so again.
const CONFIRM_ROUNDS: usize = 3;
const CONFIRM_EVERY: Duration = Duration::from_millis(100);

/// An answer after so long is no answer to our probe.
pub const LATE: Duration = Duration::from_secs(1);

/// Where answers are heard; parents are the host's.
#[derive(Clone, Copy, Debug)]
pub enum Ear {
    Own,
    /// An ipvlan's.
    Parent(u32),
    /// A macvlan's that is about to probe.
    WithTwin {
        parent: u32,
        mac: MacAddr,
    },
}

/// Watches over one address of one interface.
#[derive(Debug)]
pub struct Watch {
    mouth: OwnedFd,
    /// `None`: the mouth hears for itself.
    ear: Option<OwnedFd>,
    twin: Option<Twin>,
    mac: MacAddr,
    ip: Ipv4Addr,
    probed: Option<Instant>,
}

/// Asks for the address by the parent's MAC.
#[derive(Debug)]
struct Twin {
    socket: OwnedFd,
    mac: MacAddr,
    /// The address is claimed: only an answer that comes late counts.
    is_over: bool,
    /// Its own question has come back.
    is_reflected: bool,
    /// It hears nothing more, and stays until there is time ([`Watch::rest`]).
    is_deaf: bool,
}

const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// A packet socket on the host.
fn on_host() -> nix::Result<OwnedFd> {
    raw::socket(libc::AF_PACKET, libc::SOCK_RAW | FLAGS.bits(), 0)
}

fn index_of(ifindex: u32) -> nix::Result<i32> {
    i32::try_from(ifindex).map_err(|_| Errno::ENODEV)
}

impl Twin {
    fn new(parent: u32, mac: MacAddr, ip: Ipv4Addr) -> nix::Result<Self> {
        let socket = on_host()?;
        let fd = socket.as_fd();
        // Frames that leave the parent, those of its macvlans among them, are
        // on it, too.
        raw::ignore_outgoing(fd)?;
        raw::attach_filter(fd, &arp::contradictions(None, ip, Claim::Probing))?;
        setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        raw::bind_packet(fd, ETH_P_ARP, index_of(parent)?)?;
        Ok(Self {
            socket,
            mac,
            is_over: false,
            is_reflected: false,
            is_deaf: false,
        })
    }
}

impl Watch {
    pub fn new(
        netns: &Netns<Sandbox>,
        ifindex: u32,
        hears: Ear,
        mac: MacAddr,
        ip: Ipv4Addr,
    ) -> Result<Self> {
        let failed = |errno| Error::sys("watch over address", Subject::Addr(ip.to_string()), errno);
        // Protocol 0 until the filter is in place: nothing slips past it.
        let mouth = netns.socket(AddressFamily::Packet, SockType::Raw, FLAGS, 0)?;
        let (ear, twin) = match hears {
            Ear::Own => (None, None),
            Ear::Parent(_) => (Some(on_host().map_err(failed)?), None),
            Ear::WithTwin { parent, mac } => {
                (None, Some(Twin::new(parent, mac, ip).map_err(failed)?))
            }
        };
        let this = Self {
            mouth,
            ear,
            twin,
            mac,
            ip,
            probed: None,
        };
        this.listen_for(Claim::Probing)?;
        setsockopt(this.ear(), sockopt::RcvBuf, &RECEIVE_BUFFER).map_err(failed)?;
        let bind = |fd: BorrowedFd<'_>, protocol: u16, index: u32| {
            index_of(index)
                .and_then(|index| raw::bind_packet(fd, protocol, index))
                .map_err(failed)
        };
        let own = if this.ear.is_none() { ETH_P_ARP } else { 0 };
        bind(this.mouth.as_fd(), own, ifindex)?;
        if let (Some(ear), Ear::Parent(parent)) = (&this.ear, hears) {
            bind(ear.as_fd(), ETH_P_ARP, parent)?;
        }
        Ok(this)
    }

    /// What becomes readable when there is something to hear.
    pub fn ears(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let twin = self.twin.iter().filter(|twin| !twin.is_deaf);
        [self.ear().as_fd()]
            .into_iter()
            .chain(twin.map(|twin| twin.socket.as_fd()))
    }

    fn ear(&self) -> &OwnedFd {
        self.ear.as_ref().unwrap_or(&self.mouth)
    }

    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    fn listen_for(&self, claim: Claim) -> Result<()> {
        filter(self.ear(), self.mac, self.ip, claim)
    }

    /// Asks whether the address is somebody's. Without a carrier nobody is
    /// asked, and there is nobody to disturb.
    pub fn probe(&mut self) -> Result<()> {
        self.probed = Some(Instant::now());
        self.say(Ipv4Addr::UNSPECIFIED)?;
        match &self.twin {
            Some(twin) if !twin.is_deaf => {
                ask(&twin.socket, twin.mac, Ipv4Addr::UNSPECIFIED, self.ip)
            }
            _ => Ok(()),
        }
    }

    /// The same, for a start among many: the broadcast leaves from the parent, and
    /// so for the LAN alone; of the parent's other links only `siblings` are
    /// asked, one by one. To all of them, where there is no parent to ask from.
    pub fn probe_outside(&mut self, siblings: &[MacAddr]) -> Result<()> {
        let Some(twin) = self.twin.as_ref().filter(|twin| !twin.is_deaf) else {
            return self.probe();
        };
        self.probed = Some(Instant::now());
        for mac in [self.mac, twin.mac] {
            ask(&twin.socket, mac, Ipv4Addr::UNSPECIFIED, self.ip)?;
        }
        for sibling in siblings {
            let frame = arp::question_to(*sibling, self.mac, Ipv4Addr::UNSPECIFIED, self.ip);
            send_frame(&self.mouth, &frame, self.ip)?;
        }
        Ok(())
    }

    /// Says so to the LAN, from the parent: not to the parent's other links, each
    /// of which a broadcast of ours comes to before the call returns. `false`:
    /// there is no way to.
    pub fn announce_outside(&self) -> Result<bool> {
        match &self.twin {
            Some(twin) if !twin.is_deaf => {
                ask(&twin.socket, self.mac, self.ip, self.ip).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Says that the address is ours.
    pub fn announce(&self) -> Result<()> {
        self.say(self.ip)
    }

    fn say(&self, tell: Ipv4Addr) -> Result<()> {
        ask(&self.mouth, self.mac, tell, self.ip)
    }

    /// Closes the twin, when no answer can come any more. That waits for an RCU
    /// grace period (some 15 ms); but as long as it is there, each ARP frame on
    /// the parent and each change of its links passes by it.
    pub fn rest(&mut self) {
        if self.probed.is_none_or(|at| at.elapsed() > LATE) {
            self.twin.take_if(|twin| twin.is_over);
        }
    }

    /// When the last probe left.
    pub fn probed(&self) -> Option<Instant> {
        self.probed
    }

    /// From now on the address is ours, and the probes of others are for the
    /// kernel to answer.
    pub fn claim(&mut self) -> Result<()> {
        self.listen_for(Claim::Held)?;
        if let Some(twin) = &mut self.twin {
            twin.is_over = true;
        }
        Ok(())
    }

    /// Everything that has come in: how many frames, and whose the last was.
    /// Not those of `own`, the container's interfaces: on one segment each of
    /// them speaks for all addresses of the container (Linux's `arp_ignore` and
    /// `arp_announce` as they are by default).
    pub fn heard(&mut self, own: &[MacAddr]) -> Result<Option<(MacAddr, u32)>> {
        let parent = self.twin.as_ref().map(|twin| twin.mac);
        let heard = hear(self.ear(), self.ip, |frame| {
            !(own.contains(&frame.from) || frame.is_probe && Some(frame.from) == parent)
        })?;
        let is_late = self.probed.is_none_or(|at| at.elapsed() > LATE);
        match &mut self.twin {
            Some(twin) if twin.is_over && !twin.is_deaf && is_late => {
                twin.is_deaf = true;
                let deafened = raw::attach_filter(twin.socket.as_fd(), &arp::nothing());
                deafened.map_err(|e| Error::sys("filter ARP", Subject::None, e))?;
                // What came before would keep it readable.
                if let Some(twin) = &self.twin {
                    hear(&twin.socket, self.ip, |_| false)?;
                }
                Ok(heard)
            }
            _ => {
                let Some(twin) = self.twin.as_ref().filter(|twin| !twin.is_deaf) else {
                    return Ok(heard);
                };
                let mut is_reflected = twin.is_reflected;
                let answer = hear(&twin.socket, self.ip, |frame| {
                    if frame.from == twin.mac {
                        is_reflected |= frame.is_probe;
                        return false;
                    }
                    // What is said by our MAC to the parent's is not ours: the
                    // two cannot reach each other but by such a switch.
                    if frame.from == self.mac {
                        return frame.to == twin.mac && !(twin.is_over && is_reflected);
                    }
                    // Probes of others are for the kernel to answer then.
                    !(own.contains(&frame.from) || twin.is_over && frame.is_probe)
                })?;
                if let Some(twin) = &mut self.twin {
                    twin.is_reflected = is_reflected;
                }
                Ok(heard.or(answer))
            }
        }
    }
}

/// Whom `counts` counts of what has come in: how many, and the last one.
fn hear(
    socket: &OwnedFd,
    ip: Ipv4Addr,
    mut counts: impl FnMut(&Said) -> bool,
) -> Result<Option<(MacAddr, u32)>> {
    let mut heard: Option<(MacAddr, u32)> = None;
    let mut frame = [0; 64];
    loop {
        match recv(socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                let frame = frame.get(..length).unwrap_or_default();
                if let Some(said) = arp::said(frame)
                    && counts(&said)
                {
                    heard = Some((said.from, heard.map_or(1, |(_, n)| n.saturating_add(1))));
                }
            }
            Err(Errno::EAGAIN | Errno::ENODEV | Errno::ENXIO) => return Ok(heard),
            // The link went down: said once.
            Err(Errno::EINTR | Errno::ENETDOWN) => {}
            Err(errno) => {
                let ip = Subject::Addr(ip.to_string());
                return Err(Error::sys("hear about address", ip, errno));
            }
        }
    }
}

/// Who on the LAN of a link of the host's has an address, as far as they answer
/// within 0.3 s.
pub fn holder(link: u32, mac: MacAddr, ip: Ipv4Addr) -> Result<Option<MacAddr>> {
    let failed = |errno| Error::sys("ask for address", Subject::Addr(ip.to_string()), errno);
    let twin = Twin::new(link, mac, ip).map_err(failed)?;
    for _ in 0..CONFIRM_ROUNDS {
        ask(&twin.socket, mac, Ipv4Addr::UNSPECIFIED, ip)?;
        let round = Instant::now();
        while let left @ 1.. = CONFIRM_EVERY.saturating_sub(round.elapsed()).as_millis() {
            let time = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            match poll(
                &mut [PollFd::new(twin.socket.as_fd(), PollFlags::POLLIN)],
                time,
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno)),
            }
            // Who asks, too, does not have it yet.
            if let Some((mac, _)) = hear(&twin.socket, ip, |said| !said.is_probe)? {
                return Ok(Some(mac));
            }
        }
    }
    Ok(None)
}

fn ask(socket: &OwnedFd, mac: MacAddr, tell: Ipv4Addr, ip: Ipv4Addr) -> Result<()> {
    send_frame(socket, &arp::question(mac, tell, ip), ip)
}

fn send_frame(socket: &OwnedFd, frame: &[u8], ip: Ipv4Addr) -> Result<()> {
    match send(socket.as_raw_fd(), frame, MsgFlags::MSG_NOSIGNAL) {
        // A full queue is a lost frame.
        Ok(_) | Err(Errno::ENETDOWN | Errno::ENOBUFS | Errno::EAGAIN) => Ok(()),
        Err(errno) => {
            let ip = Subject::Addr(ip.to_string());
            Err(Error::sys("probe for address", ip, errno))
        }
    }
}

fn filter(socket: &OwnedFd, mac: MacAddr, ip: Ipv4Addr, claim: Claim) -> Result<()> {
    let program = arp::contradictions(Some(mac), ip, claim);
    raw::attach_filter(socket.as_fd(), &program).map_err(|errno| {
        let ip = Subject::Addr(ip.to_string());
        Error::sys("filter ARP for", ip, errno)
    })
}

/// The first of these that hears something, and from whom; at the latest when
/// the time is up. Where there is none, nothing is waited for.
fn wait(
    watches: &mut [&mut Watch],
    own: &[MacAddr],
    time: Duration,
) -> Result<Option<(usize, MacAddr)>> {
    let end = Instant::now() + time;
    loop {
        for (at, watch) in watches.iter_mut().enumerate() {
            if let Some((mac, _)) = watch.heard(own)? {
                return Ok(Some((at, mac)));
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if watches.is_empty() || left.is_zero() {
            return Ok(None);
        }
        let mut fds: Vec<PollFd<'_>> = watches
            .iter()
            .flat_map(|watch| watch.ears())
            .map(|ear| PollFd::new(ear, PollFlags::POLLIN))
            .collect();
        // poll(2) would round up to whole milliseconds.
        match ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::sys("wait for answers", Subject::None, errno)),
        }
    }
}

/// Which of these addresses is somebody else's, and whose: of what has been
/// answered by now, or within `time`.
pub fn verdict(
    watches: &mut [&mut Watch],
    own: &[MacAddr],
    time: Duration,
) -> Result<Option<(usize, MacAddr)>> {
    match wait(watches, own, time)? {
        Some((at, _)) => confirm(watches, own, at),
        None => Ok(None),
    }
}

/// One that was contradicted is asked for again, until nobody answers.
fn confirm(
    watches: &mut [&mut Watch],
    own: &[MacAddr],
    first: usize,
) -> Result<Option<(usize, MacAddr)>> {
    let mut last = None;
    for _ in 0..CONFIRM_ROUNDS {
        let round = Instant::now();
        watches[first].probe()?;
        last = wait(watches, own, CONFIRM_EVERY)?;
        if last.is_none() {
            return Ok(None);
        }
        std::thread::sleep(CONFIRM_EVERY.saturating_sub(round.elapsed()));
    }
    Ok(last)
}

/// The whole of RFC 5227 §2.1.1, for all of them at once.
pub fn strict(watches: &mut [&mut Watch], own: &[MacAddr]) -> Result<Option<(usize, MacAddr)>> {
    let mut pause = random_within(Duration::ZERO, PROBE_WAIT)?;
    for _ in 0..PROBE_NUM {
        if let found @ Some(_) = verdict(watches, own, pause)? {
            return Ok(found);
        }
        for watch in watches.iter_mut() {
            watch.probe()?;
        }
        pause = random_within(PROBE_MIN, PROBE_MAX)?;
    }
    verdict(watches, own, ANNOUNCE_WAIT)
}

fn random_within(from: Duration, to: Duration) -> Result<Duration> {
    let [a, b] = random::bytes()?;
    let share = f64::from(u16::from_be_bytes([a, b])) / f64::from(u16::MAX);
    Ok(from + (to - from).mul_f64(share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_within_their_limits() {
        for _ in 0..50 {
            let pause = random_within(PROBE_MIN, PROBE_MAX).unwrap();
            assert!((PROBE_MIN..=PROBE_MAX).contains(&pause), "{pause:?}");
        }
    }

    /// An hour would be noticed.
    #[test]
    fn with_no_address_to_ask_for_there_is_no_wait() {
        assert_eq!(verdict(&mut [], &[], Duration::from_secs(3600)), Ok(None));
    }
}
