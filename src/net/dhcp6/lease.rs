//! What a server gives: one address, its times, and names. One that cannot be
//! used is no lease, with the reason.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{Given, Reply, is_host};
use crate::base::Cidr;
use crate::net::dhcp::text;

/// Shorter ones would have us renew all the time.
const SHORTEST: u32 = 4;
const SOONEST: u32 = 2;
/// §7.7: for ever.
pub(super) const FOREVER: u32 = u32::MAX;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// A /128: what is on the link, routers say (RFC 5942).
    pub addr: Cidr,
    /// Its DUID.
    pub server: Vec<u8>,
    /// Whom the answer came from.
    pub from: Ipv6Addr,
    /// When it was given, in seconds of 1970: for the next boot.
    pub obtained: u64,
    /// Seconds from then on: T1, T2, and the two lifetimes. `u32::MAX` is
    /// never.
    pub renew: u32,
    pub rebind: u32,
    pub preferred: u32,
    pub valid: u32,
    pub dns: Vec<Ipv6Addr>,
    pub search: Vec<String>,
    /// For `inspect`: a container has its host's clock.
    pub sntp: Vec<Ipv6Addr>,
}

impl Lease {
    /// Of several addresses `rather`, or else the first that is good.
    pub(super) fn of(
        reply: &Reply,
        from: Ipv6Addr,
        rather: Option<Ipv6Addr>,
    ) -> Result<Self, &'static str> {
        let association = reply.association.as_ref();
        let association = association.ok_or("it has no addresses, or T1 is after T2")?;
        let is_good = |given: &&Given| is_host(given.addr) && given.valid >= SHORTEST;
        let mut good = association.given.iter().filter(is_good);
        let wanted = good.clone().find(|given| Some(given.addr) == rather);
        let given = wanted
            .or_else(|| good.next())
            .ok_or("it has no address that a host can have for 4 s or longer")?;
        let addr = Cidr::new(IpAddr::V6(given.addr), 128);
        let (renew, rebind) = times(association.renew, association.rebind, given);
        Ok(Self {
            addr: addr.map_err(|_| "its address is none")?,
            server: reply.server.clone(),
            from,
            obtained: 0,
            renew,
            rebind,
            preferred: given.preferred,
            valid: given.valid,
            dns: reply.dns.clone(),
            search: reply.search.clone(),
            sntp: reply.sntp.clone(),
        })
    }

    pub fn ip(&self) -> Ipv6Addr {
        match self.addr.addr() {
            IpAddr::V6(ip) => ip,
            IpAddr::V4(_) => Ipv6Addr::UNSPECIFIED,
        }
    }

    /// As Kea prints it: `00:04:…`
    pub fn server_text(&self) -> String {
        text(&self.server)
    }

    /// How old it is at `now` (seconds of 1970). A clock that has gone back
    /// makes it no longer than it was.
    pub fn age(&self, now: u64) -> Duration {
        Duration::from_secs(now.saturating_sub(self.obtained))
    }

    /// How much is left of its validity.
    pub fn remaining(&self, now: u64) -> Duration {
        left(self.valid, self.age(now))
    }

    /// What is left of both, in seconds: for how long it is preferred, and how
    /// long it is valid, which is never 0 to the kernel.
    pub fn lifetimes(&self, now: u64) -> (u32, u32) {
        let age = self.age(now);
        let seconds = |whole| u32::try_from(left(whole, age).as_secs()).unwrap_or(FOREVER);
        let valid = seconds(self.valid).max(1);
        (seconds(self.preferred).min(valid), valid)
    }
}

/// Of so many seconds; for ever is `MAX`.
pub(super) fn left(seconds: u32, age: Duration) -> Duration {
    match seconds {
        FOREVER => Duration::MAX,
        seconds => Duration::from_secs(seconds.into()).saturating_sub(age),
    }
}

/// T1 and T2: of 0 the client makes what it likes (§14.2: half and four fifths
/// of the preferred lifetime). Never so soon that they would keep it busy, and
/// not behind the end.
fn times(renew: u32, rebind: u32, given: &Given) -> (u32, u32) {
    let whole = match given.preferred {
        0 => given.valid,
        preferred => preferred,
    };
    let usual = match whole {
        FOREVER => (FOREVER, FOREVER),
        whole => (whole / 2, whole - whole / 5),
    };
    let renew = if renew == 0 { usual.0 } else { renew };
    let rebind = if rebind == 0 { usual.1 } else { rebind };
    let renew = renew.max(SOONEST).min(given.valid);
    (renew, rebind.max(renew).min(given.valid))
}
