//! `--net-rate up=20mbit,down=100mbit`: how fast a link may be, each way.
//!
//! Units are tc's: bits (`bit`, `kbit` … `tbit`), bytes (`bps`, `kbps` …
//! `tbps`), with an `i` for powers of 1024 (`kibit`, `mibps`); a bare number is
//! bits a second. `guard/limit.rs` and a qdisc carry a rate out.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};
use crate::netlink::qdisc::Tbf;
use crate::netlink::{Ifindex, Rtnl};
use crate::sys::netns::Sandbox;

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate(u64);

/// What each direction may have; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// What the container sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Rate>,
    /// What it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Rate>,
}

impl Rates {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A full frame should not take a second; and nf_tables counts nanoseconds by
/// bytes in 64 bits.
const LEAST: u64 = 16_000 / 8;
const MOST: u64 = 100_000_000_000 / 8;
const PREFIXES: [char; 4] = ['k', 'm', 'g', 't'];

impl Rate {
    pub fn bytes_per_second(self) -> u64 {
        self.0
    }

    fn tbf(self, mtu: u32) -> Tbf {
        const HEADERS: u64 = 32;
        let frame = u64::from(mtu) + HEADERS;
        let burst = self.bytes_in(BURST_MS).max(BURST_FRAMES * frame);
        let limit = burst.saturating_add(self.bytes_in(LATENCY_MS));
        Tbf {
            rate: self.0,
            burst: u32::try_from(burst).unwrap_or(u32::MAX),
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        }
    }

    /// What that many milliseconds let through.
    fn bytes_in(self, milliseconds: u64) -> u64 {
        self.0.saturating_mul(milliseconds) / 1000
    }
}

/// How long a packet waits at most, as in tc's examples (`latency 50ms`).
const LATENCY_MS: u64 = 50;
/// What 10 ms let through can leave at once: a timer that is late costs no
/// throughput.
const BURST_MS: u64 = 10;
/// Of full frames, whatever the rate: one that is larger than the bucket never
/// leaves.
const BURST_FRAMES: u64 = 4;

/// The queue that holds what a link sends to `up`; `None`: there is none.
pub fn shape(sandbox: &mut Rtnl<Sandbox>, index: Ifindex<Sandbox>, up: Option<Rate>) -> Result<()> {
    match up {
        Some(rate) => {
            let mtu = sandbox.link_by_index(index.get())?.map_or(0, |l| l.mtu);
            sandbox.set_tbf(index, rate.tbf(mtu))
        }
        None => sandbox.delete_tbf(index),
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = |why: &str| {
            Error::invalid(format!("invalid rate '{text}': {why}"))
                .hint("a rate is tc's: 20mbit, 1.5gbit, 512kbit; 250kbps is in bytes a second")
        };
        let lower = text.to_ascii_lowercase();
        let at = lower.find(|c: char| !(c.is_ascii_digit() || c == '.'));
        let (number, unit) = lower.split_at(at.unwrap_or(lower.len()));
        let number: f64 = number.parse().map_err(|_| refused("it is not a number"))?;
        let scale = scale(unit).ok_or_else(|| refused("its unit is not one of tc's"))?;
        let bytes = (number * scale / 8.0).round();
        // A float that is too large becomes the largest number.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        match bytes as u64 {
            0..LEAST => Err(refused("the least is 16kbit")),
            bytes @ LEAST..=MOST => Ok(Self(bytes)),
            _ => Err(refused("the most is 100gbit")),
        }
    }
}

/// Bits in one of a unit.
fn scale(unit: &str) -> Option<f64> {
    let (prefix, per) = match unit.strip_suffix("bit") {
        Some(prefix) => (prefix, 1.0),
        None if unit.is_empty() => ("", 1.0),
        None => (unit.strip_suffix("bps")?, 8.0),
    };
    let (prefix, base) = match prefix.strip_suffix('i') {
        Some(prefix) => (prefix, 1024.0_f64),
        None => (prefix, 1000.0),
    };
    let mut letters = prefix.chars();
    let power = match (letters.next(), letters.next()) {
        (None, _) if base > 1000.0 => return None,
        (None, _) => 0,
        (Some(letter), None) => PREFIXES.iter().position(|p| *p == letter)? + 1,
        _ => return None,
    };
    Some(per * base.powi(i32::try_from(power).ok()?))
}

/// As short as it can be said exactly.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0 * 8;
        for (power, prefix) in [1, 2, 3, 4].into_iter().zip(PREFIXES).rev() {
            let unit = 1000_u64.pow(power);
            if bits.is_multiple_of(unit) {
                return write!(f, "{}{prefix}bit", bits / unit);
            }
        }
        write!(f, "{bits}bit")
    }
}

impl TryFrom<String> for Rate {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_tcs() {
        for (text, bytes, shown) in [
            ("20mbit", 2_500_000, "20mbit"),
            ("20Mbit", 2_500_000, "20mbit"),
            ("1.5gbit", 187_500_000, "1500mbit"),
            ("1mibit", 131_072, "1048576bit"),
            ("250kbps", 250_000, "2mbit"),
            ("1MiBps", 1_048_576, "8388608bit"),
            ("64000", 8_000, "64kbit"),
            ("8000bps", 8_000, "64kbit"),
            ("16kbit", 2_000, "16kbit"),
            ("100gbit", 12_500_000_000, "100gbit"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate.bytes_per_second(), bytes, "{text}");
            assert_eq!(rate.to_string(), shown);
            assert_eq!(shown.parse::<Rate>().unwrap(), rate);
        }
    }

    #[test]
    fn what_makes_no_sense() {
        for (text, why) in [
            ("", "not a number"),
            ("mbit", "not a number"),
            ("-5mbit", "not a number"),
            ("1.2.3mbit", "not a number"),
            ("20mb", "unit"),
            ("20ibit", "unit"),
            ("20kkbit", "unit"),
            ("20 mbit", "unit"),
            ("20mbit/s", "unit"),
            ("0", "least"),
            ("15kbit", "least"),
            ("101gbit", "most"),
            ("99999999999999999999tbit", "most"),
        ] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
