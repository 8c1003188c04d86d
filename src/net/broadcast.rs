//! The broadcast knobs of a macvlan network's options.

use std::collections::BTreeMap;

use crate::base::{Error, Result};
use crate::netlink::{Broadcast, Mode};
use crate::sys::features;

const QUEUE_LEN: &str = "bcqueuelen";
/// iproute2's word …
const CUTOFF: &str = "bclim";
/// … and the kernel's.
const CUTOFF_AS_KERNEL: &str = "bc_cutoff";

pub(super) fn from_options(mode: Mode, options: &BTreeMap<String, String>) -> Result<Broadcast> {
    let keys = [QUEUE_LEN, CUTOFF, CUTOFF_AS_KERNEL];
    let mut given = keys.iter().filter(|key| options.contains_key(**key));
    if let (Some(key), true) = (given.next(), mode.is_ipvlan()) {
        return Err(Error::invalid(format!(
            "-o {key} goes with -d macvlan only: an ipvlan has no such queue"
        )));
    }
    let number = |key: &str, range: std::ops::RangeInclusive<i64>| {
        let Some(text) = options.get(key) else {
            return Ok(None);
        };
        let number = text.parse::<i64>().ok().filter(|n| range.contains(n));
        number.map(Some).ok_or_else(|| {
            let (from, to) = (range.start(), range.end());
            Error::invalid(format!(
                "invalid value '{text}' of -o {key}: it is a number from {from} to {to}"
            ))
        })
    };
    let cutoffs = -1..=i64::from(i32::MAX);
    let cutoff = number(CUTOFF, cutoffs.clone())?;
    let as_kernel = number(CUTOFF_AS_KERNEL, cutoffs)?;
    if cutoff.is_some() && as_kernel.is_some() {
        return Err(Error::invalid(format!(
            "-o {CUTOFF} and -o {CUTOFF_AS_KERNEL} are one option: give one of them"
        )));
    }
    let cutoff = cutoff.or(as_kernel);
    if cutoff.is_some() && !features::kernel_is_at_least(6, 4) {
        return Err(Error::invalid(format!(
            "-o {CUTOFF} needs Linux 6.4 or later, which this is not"
        )));
    }
    let queue_len = number(QUEUE_LEN, 1..=i64::from(u32::MAX))?;
    Ok(Broadcast {
        queue_len: queue_len.and_then(|n| u32::try_from(n).ok()),
        cutoff: cutoff.and_then(|n| i32::try_from(n).ok()),
    })
}
