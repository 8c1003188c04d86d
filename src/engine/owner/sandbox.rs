//! The container's network namespace.
//!
//! *Theory of operation.* The kernel takes half a millisecond for one. The
//! command, which has forked the supervisor and has nothing to do but wait for
//! it, makes the namespace meanwhile and hands it over: two processes on two
//! cores, where a thread of its own would share its memory just when all its
//! pages are copied on write. What does not come the supervisor makes for
//! itself: the command may be dead, or may have failed, and then the same error
//! is the supervisor's to report.
//!
//! Not on the socket that the report comes back on: who closes that with a
//! message unread takes the report away with it (ECONNRESET, unix(7)).
//!
//! It does not always die with its processes: a TCP connection that the program
//! has left with data that nobody takes, or a packet that waits for an ARP
//! answer, keeps it alive for seconds or minutes, and the LAN would find the
//! dead container's address all the time. So its links are deleted when all else
//! is done. Where the supervisor was killed, the next command deletes them: it
//! finds them by the number that the host has for the namespace, one that no other
//! ever had, and in the journal before it is given. Numbers are counted up from a
//! random one that each state folder has.

use std::os::fd::{AsFd, OwnedFd};

use super::network::Network;
use crate::base::{Error, Family, Journal, Result, Step};
use crate::engine::Engine;
use crate::engine::record::Record;
use crate::net::driver;
use crate::netlink::Rtnl;
use crate::store::Lock;
use crate::sys::fd;
use crate::sys::mount::Filesystem;
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::process;
use crate::sys::random;
use crate::sys::sysctl::NetSysctl;

/// What goes with the fds.
const HANDED: &[u8] = b"n";

/// Above those that a kernel gives by itself, one for each namespace.
const FIRST: i32 = 1 << 24;

/// At random.
fn first() -> Result<i32> {
    Ok(i32::from_ne_bytes(random::bytes()?) & i32::MAX | FIRST)
}

/// The number after the one that a file says; `None`: it says none, or there is
/// none.
fn after(last: &[u8]) -> Option<i32> {
    let last: i32 = std::str::from_utf8(last).ok()?.parse().ok()?;
    last.checked_add(1).filter(|next| *next > FIRST)
}

/// The command's part. What comes back is to be kept until the container runs:
/// the namespace's sysfs. The first mount of one is compared with those of all
/// other namespaces (fs/super.c, `sget_fc`), half a millisecond beside a
/// thousand; the container's own then finds this one at once. Without it, the
/// container takes that time.
pub(in crate::engine) fn hand_over(record: &Record, to: OwnedFd) -> Option<OwnedFd> {
    if record.config.network_mode == "host" {
        return None;
    }
    let (netns, sysctl) = Netns::create_with(NetSysctl::open).ok()?;
    let fds: Vec<_> = [netns.as_fd()].into_iter().chain(sysctl.fds()).collect();
    // A supervisor that is gone needs none.
    let _ = fd::send(to.as_fd(), HANDED, &fds);
    drop(to);
    netns.run(|| Filesystem::sysfs()?.keep()).ok()
}

/// The supervisor's part; `None` when the command has closed its end.
fn handed(from: OwnedFd) -> Option<(Netns<Sandbox>, NetSysctl)> {
    let mut message = [0; HANDED.len()];
    let (_, fds) = fd::recv(from.as_fd(), &mut message).ok()?;
    let mut fds = fds.into_iter();
    let netns = Netns::from_fd(fds.next()?).ok()?;
    Some((netns, NetSysctl::from_fds(fds)?))
}

impl Network {
    /// What the host is to call the namespace; `None` in host mode.
    pub(in crate::engine) fn choose_number(
        &mut self,
        engine: &Engine,
        journal: &mut dyn Journal,
    ) -> Result<Option<i32>> {
        if self.host_mode {
            return Ok(None);
        }
        let counter = Lock::acquire(&engine.dirs.namespaces())?;
        let mut nsid = match after(&counter.read()?) {
            Some(next) => next,
            None => first()?,
        };
        // Another state folder's: what undoes this start deletes links there.
        while self.host.is_number(nsid)? {
            nsid = first()?;
        }
        counter.write(format!("{nsid:010}").as_bytes())?;
        journal.record(&Step::Namespace { nsid })?;
        Ok(Some(nsid))
    }

    /// The sandbox, which the command hands over, with Docker's sysctls; in host
    /// mode the host's own.
    pub(in crate::engine) fn make_namespace(
        &mut self,
        command: Option<OwnedFd>,
        nsid: Option<i32>,
    ) -> Result<()> {
        let Some(nsid) = nsid else {
            let own = Netns::current()?
                .as_fd()
                .try_clone_to_owned()
                .map_err(|e| Error::sys("share network namespace", "host", e))?;
            self.netns = Some(Netns::from_fd(own)?);
            return Ok(());
        };
        let (netns, sysctl) = match command.and_then(handed) {
            Some(handed) => handed,
            None => Netns::create_with(NetSysctl::open)?,
        };
        self.host.number_namespace(&netns, nsid)?;
        sysctl.write(Family::Ipv4, "ip_unprivileged_port_start", "0")?;
        // In a user namespace with one group mapped, the whole range is not
        // this namespace's to give.
        match sysctl.write(Family::Ipv4, "ping_group_range", "0 2147483647") {
            Err(e) if e.is_errno(libc::EINVAL) => {
                sysctl.write(Family::Ipv4, "ping_group_range", "0 0")?;
            }
            other => other?,
        }
        let mut sandbox = Rtnl::sandbox(&netns)?;
        if self.legs.is_empty() {
            sandbox.loopback_up()?;
        }
        self.netns = Some(netns);
        self.sandbox = Some(sandbox);
        self.sysctl = Some(sysctl);
        Ok(())
    }

    /// Ends the supervisor, and before it the container's links. What others wait
    /// for (the lock, the clients' connections) is let go of first.
    pub(super) fn bury(mut self) -> ! {
        let links = std::mem::take(&mut self.ended);
        if let Some(sandbox) = &mut self.sandbox
            && process::close_all_except(&[sandbox.as_fd()]).is_ok()
        {
            for attachment in links.iter().filter_map(|leg| leg.attachment.as_ref()) {
                // One that stays makes whoever wants its MAC wait.
                let _ = driver::delete(attachment, sandbox);
            }
        }
        process::exit_now(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_up_and_begin_anew_where_there_is_no_next_one() {
        assert_eq!(after(b"0123456789"), Some(123_456_790));
        for none in [&b""[..], b"\xff", b"x", b"-5", b"7", b"2147483647"] {
            assert_eq!(after(none), None, "{none:?}");
        }
    }
}
