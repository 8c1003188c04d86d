//! Capabilities: the sets of a container process.
//!
//! The order in which a process gives them up (design.md §2, child 4) is:
//! [`limit_bounding`] while it still has CAP_SETPCAP, keepcaps if it will not
//! be root, groups, gid, uid, [`set`]. The inheritable and ambient sets end up
//! empty: [`set`] clears the one, and the kernel keeps the other within it.

use std::fmt;
use std::ops::BitOr;

use caps::{CapSet, Capability};

use super::raw;
use crate::base::{Error, Result, Subject};

/// A set of capabilities, one bit each, as in `/proc/PID/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    pub const EMPTY: Self = Self(0);
    pub const SYS_ADMIN: Self = Self::of(&[Capability::CAP_SYS_ADMIN]);
    pub const MKNOD: Self = Self::of(&[Capability::CAP_MKNOD]);

    /// Docker's default.
    pub const DOCKER: Self = Self::of(&[
        Capability::CAP_AUDIT_WRITE,
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_FOWNER,
        Capability::CAP_FSETID,
        Capability::CAP_KILL,
        Capability::CAP_MKNOD,
        Capability::CAP_NET_BIND_SERVICE,
        Capability::CAP_NET_RAW,
        Capability::CAP_SETFCAP,
        Capability::CAP_SETGID,
        Capability::CAP_SETPCAP,
        Capability::CAP_SETUID,
        Capability::CAP_SYS_CHROOT,
    ]);

    /// `Capability` numbers its variants as the kernel does.
    pub const fn of(capabilities: &[Capability]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < capabilities.len() {
            bits |= 1 << capabilities[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    pub const fn bits(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn contains(self, capability: Capability) -> bool {
        self.0 & Self::of(&[capability]).0 != 0
    }

    /// `CAP_CHOWN`, …, in alphabetical order.
    pub fn names(self) -> Vec<String> {
        let mut names: Vec<_> = caps::all()
            .into_iter()
            .filter(|capability| self.contains(*capability))
            .map(|capability| capability.to_string())
            .collect();
        names.sort();
        names
    }
}

impl BitOr for Set {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Cuts the bounding set down to `keep`: no program executed later can have
/// more. Needs CAP_SETPCAP.
pub fn limit_bounding(keep: Set) -> Result<()> {
    // The kernel ends the numbers: EINVAL beyond its last capability.
    for bit in 0..64 {
        if keep.0 & 1 << bit != 0 {
            continue;
        }
        match raw::prctl(libc::PR_CAPBSET_DROP, bit, 0) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINVAL) => break,
            Err(e) => {
                return Err(Error::sys(
                    "cut the capability bounding set",
                    Subject::None,
                    e,
                ));
            }
        }
    }
    Ok(())
}

/// Makes `keep` the permitted and effective set and empties the inheritable
/// one (and with it the ambient one), in one call.
pub fn set(keep: Set) -> Result<()> {
    raw::capset(keep.0, keep.0, 0)
        .map_err(|e| Error::sys("set capabilities", Subject::Text(keep.to_string()), e))
}

/// One of the calling thread's sets.
pub fn read(which: CapSet) -> Result<Set> {
    let all = caps::read(None, which).map_err(|e| {
        let why = e.to_string();
        Error::state("read capabilities", Subject::None, why)
    })?;
    Ok(Set(all
        .into_iter()
        .fold(0, |bits, c| bits | 1 << c.index())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_set_has_its_mask_and_names() {
        assert_eq!(Set::DOCKER.to_string(), "00000000a80425fb");
        let names = Set::DOCKER.names();
        assert_eq!(names.len(), 14);
        assert_eq!(
            (&*names[0], &*names[13]),
            ("CAP_AUDIT_WRITE", "CAP_SYS_CHROOT")
        );
        assert!(
            !Set::DOCKER
                .without(Set::MKNOD)
                .contains(Capability::CAP_MKNOD)
        );
        for capability in caps::all() {
            assert_eq!(Set::of(&[capability]).bits(), capability.bitmask());
        }
    }

    #[test]
    fn what_is_read_is_what_the_kernel_says() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = |name| {
            let line = status.lines().find_map(|l: &str| l.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        assert_eq!(
            read(CapSet::Effective).unwrap().to_string(),
            line("CapEff:")
        );
        assert_eq!(read(CapSet::Bounding).unwrap().to_string(), line("CapBnd:"));
    }
}
