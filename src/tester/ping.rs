//! `ping`: ICMP echo, with iputils' output lines and exit codes (0: there were
//! answers, 1: there were none, 2: it could not be tried).
//!
//! # Theory of operation
//! One unconnected ICMP socket, one signalfd, one poll loop: send when the
//! interval is over, take what arrived, end when every packet was answered or
//! refused, or some time after the last was sent. Refusals ("Destination Host
//! Unreachable") come through the socket's error queue (IP_RECVERR), where the
//! kernel puts its own (no ARP answer) and those of routers alike.
//!
//! SIGINT and SIGTERM are blocked and read from the signalfd: a container's
//! first process has no default actions, but a blocked signal is queued even
//! for that one.

mod args;
mod socket;
mod stats;

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::hosts::Hosts;
use super::resolver;
use crate::base::error::errno_text;
use crate::base::{Family, OfFamily};
use args::Args;
use socket::{Arrival, Socket};
use stats::Stats;

/// Why ping gives up: the text after `ping: ` and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub text: String,
    pub code: u8,
}

impl Failure {
    fn new(code: u8, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { text, code }
    }

    fn sys(op: &str, errno: nix::Error) -> Self {
        Self::new(2, format!("{op}: {}", c_text(errno)))
    }
}

/// strerror(3)'s spelling, which is what iputils prints: Go's lower case,
/// which the rest of dockless uses, turned back.
fn c_text(errno: nix::Error) -> String {
    let text = errno_text(errno as i32);
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

pub fn main(args: &[OsString]) -> ExitCode {
    match Args::parse(&super::texts(args)).and_then(|args| run(&args)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("ping: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: &Args) -> Result<u8, Failure> {
    let hosts = Hosts::read();
    let target = target(args, &hosts)?;
    let socket = Socket::open(target)?;
    let signals = signals()?;
    let mut ping = Ping {
        args,
        name: display_name(args, target, &hosts),
        socket,
        stats: Stats::default(),
        started: Instant::now(),
        last_sent: Duration::ZERO,
    };
    let size = args.size;
    match target.family() {
        // With the headers of IPv4 and ICMP.
        Family::Ipv4 => say(format_args!(
            "PING {} ({target}) {size}({}) bytes of data.",
            args.host,
            size + 28
        ))?,
        Family::Ipv6 => say(format_args!(
            "PING {} ({target}) {size} data bytes",
            args.host
        ))?,
    }
    let signal = ping.until_done(&signals)?;
    say(format_args!(
        "\n{}",
        ping.stats.report(&args.host, ping.last_sent)
    ))?;
    Ok(match signal {
        Some(Signal::SIGTERM) => 143,
        _ => u8::from(ping.stats.received == 0),
    })
}

fn target(args: &Args, hosts: &Hosts) -> Result<IpAddr, Failure> {
    let host = &args.host;
    if let Ok(addr) = host.parse::<IpAddr>() {
        return match args.family {
            Some(family) if family != addr.family() => Err(Failure::new(
                2,
                format!("{host}: Address family for hostname not supported"),
            )),
            _ => Ok(addr),
        };
    }
    if let Some(addr) = hosts.addr(host, args.family) {
        return Ok(addr);
    }
    resolver::address(host, args.family).map_err(|why| {
        let text = match why {
            resolver::Unknown::Nowhere => "Name or service not known",
            resolver::Unknown::NoAddress => "No address associated with hostname",
            resolver::Unknown::NotNow => "Temporary failure in name resolution",
        };
        Failure::new(2, format!("{host}: {text}"))
    })
}

/// As iputils: numbers if a number was given or asked for.
fn display_name(args: &Args, target: IpAddr, hosts: &Hosts) -> String {
    match hosts.name(target) {
        Some(name) if !args.numeric && args.host.parse::<IpAddr>().is_err() => {
            format!("{name} ({target})")
        }
        _ => target.to_string(),
    }
}

fn signals() -> Result<SignalFd, Failure> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block()
        .and_then(|()| SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|e| Failure::sys("signalfd", e))
}

/// Line by line on standard output; a closed pipe ends ping.
fn say(text: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{text}").map_err(|e| {
        Failure::new(
            2,
            format!(
                "write: {}",
                errno_text(crate::base::error::IntoErrno::into_errno(e))
            ),
        )
    })
}

struct Ping<'a> {
    args: &'a Args,
    /// The target in answer lines.
    name: String,
    socket: Socket,
    stats: Stats,
    started: Instant,
    /// When the last packet was sent, since the start.
    last_sent: Duration,
}

impl Ping<'_> {
    /// The signal that ended it, if one did.
    fn until_done(&mut self, signals: &SignalFd) -> Result<Option<Signal>, Failure> {
        let mut next = Some(self.started);
        let mut end = None;
        while !self.answered() {
            let now = Instant::now();
            if next.is_some_and(|at| at <= now) {
                self.send(now)?;
                let more = self.args.count.is_none_or(|n| self.stats.sent < n);
                next = more.then(|| now + self.args.interval);
                if !more {
                    end = Some(now + self.stats.patience(self.args.interval, self.args.linger));
                }
            }
            let Some(until) = next.or(end) else { break };
            if end.is_some_and(|at| at <= now) {
                break;
            }
            if let Some(signal) = self.wait(until.saturating_duration_since(now), signals)? {
                return Ok(Some(signal));
            }
        }
        Ok(None)
    }

    /// Every packet that will be sent was answered or refused.
    fn answered(&self) -> bool {
        self.args
            .count
            .is_some_and(|n| self.stats.received + self.stats.errors >= n)
    }

    fn send(&mut self, now: Instant) -> Result<(), Failure> {
        self.last_sent = now.duration_since(self.started);
        let seq = self.stats.next_seq();
        let sent = self.socket.send(seq, self.args.size, self.micros());
        self.stats.sent += 1;
        match sent {
            Err(nix::Error::EINTR | nix::Error::EAGAIN | nix::Error::ENOBUFS) | Ok(()) => Ok(()),
            // An earlier packet's refusal surfaces here first; the error queue
            // has the details.
            Err(e) => {
                if self.take_all()? == 0 && !self.args.quiet {
                    eprintln!("ping: sendmsg: {}", c_text(e));
                }
                Ok(())
            }
        }
    }

    /// Microseconds since the start, on the clock that packets carry.
    fn micros(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn wait(&mut self, time: Duration, signals: &SignalFd) -> Result<Option<Signal>, Failure> {
        // Rounded up, or the loop would spin through the last millisecond.
        let ms = time.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
        let mut fds = [
            PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(Failure::sys("poll", e)),
        }
        self.take_all()?;
        let got = signals.read_signal().map_err(|e| Failure::sys("read", e))?;
        Ok(got.and_then(|s| Signal::try_from(i32::try_from(s.ssi_signo).ok()?).ok()))
    }

    /// Takes whatever is waiting on the socket; how many refusals there were.
    fn take_all(&mut self) -> Result<usize, Failure> {
        let mut refusals = 0;
        while let Some(arrival) = self.socket.receive()? {
            match arrival {
                Arrival::Reply(reply) => self.replied(&reply)?,
                Arrival::Refused { seq, from, what } => {
                    refusals += 1;
                    self.stats.refused(seq);
                    if !self.args.quiet {
                        say(format_args!("From {from} icmp_seq={seq} {what}"))?;
                    }
                }
                Arrival::Local { what } => {
                    refusals += 1;
                    self.stats.errors += 1;
                    if !self.args.quiet {
                        eprintln!("ping: local error: {what}");
                    }
                }
            }
        }
        Ok(refusals)
    }

    fn replied(&mut self, reply: &socket::Reply) -> Result<(), Failure> {
        let trip = (self.args.size >= args::STAMPED)
            .then_some(reply.stamp)
            .flatten()
            .map(|stamp| self.micros().saturating_sub(stamp));
        let duplicate = self.stats.answered(reply.seq, trip);
        if self.args.quiet {
            return Ok(());
        }
        let ttl = reply
            .ttl
            .map(|ttl| format!(" ttl={ttl}"))
            .unwrap_or_default();
        let time = trip.map(|t| format!(" time={} ms", stats::milliseconds(t)));
        say(format_args!(
            "{} bytes from {}: icmp_seq={}{ttl}{}{}",
            reply.length,
            self.name,
            reply.seq,
            time.unwrap_or_default(),
            if duplicate { " (DUP!)" } else { "" }
        ))
    }
}
