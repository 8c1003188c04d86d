//! Which addresses are taken, at a glance: what a thousand files would say.
//!
//! *Theory of operation.* Leases and reservations are files (`lease`,
//! `reserve`), and those decide. To find a free address among them is to list
//! two folders, half a millisecond each for a thousand containers. So the file
//! of the lock under which addresses are chosen has an index of both: a slot
//! for each address, and the times at which the folders were last changed when
//! it was true. Where the times are others (somebody has changed the folders
//! without the index: an older program, a process that was killed, `rm`), it is
//! made anew.
//!
//! An address is entered before its file is made, and struck out when the file
//! is gone: whoever is killed in between leaves an address that seems taken, and
//! never one that seems free. (All that make one do so: the times alone may be
//! too coarse, a tick of some milliseconds before Linux 6.13.) So who finds no
//! address by the index, or not the one that it wishes for, lists the folders
//! after all.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;

use super::Engine;
use super::names::list;
use super::reserve::parts;
use crate::base::{Result, fnv1a};
use crate::store::Lock;

/// Why an address is taken.
pub(super) const LEASED: u8 = 1;
pub(super) const RESERVED: u8 = 2;

/// FNV-1a of what the lease's name begins with; the address, IPv4's as
/// ::ffff:0:0/96; why it is taken, 0 for a free slot. Numbers are the machine's
/// own: it does not outlive the boot.
const SLOT: usize = 32;
const PREFIX: std::ops::Range<usize> = 0..8;
const ADDRESS: std::ops::Range<usize> = 8..24;
const WHY: usize = 24;

/// And the two times.
const MAGIC: &[u8; 16] = b"dockless index 1";
const HEADER: usize = 64;
type Header = [u8; HEADER];

#[derive(Clone, Copy, Debug)]
pub(super) enum Folder {
    Leases,
    Reserved,
}

/// The index of the locked file.
#[derive(Debug)]
pub(super) struct Index<'a> {
    lock: &'a Lock,
    header: Header,
    bytes: Vec<u8>,
    /// What is written is what is true.
    is_whole: bool,
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn slot(prefix: &str, ip: IpAddr, why: u8) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[PREFIX].copy_from_slice(&fnv1a(prefix.as_bytes()).to_ne_bytes());
    slot[ADDRESS].copy_from_slice(&octets(ip));
    slot[WHY] = why;
    slot
}

/// What precedes the address in the name of a lease, and the address.
pub(super) fn split(lease: &str) -> Option<(&str, IpAddr)> {
    let (prefix, ip) = lease.split_at(lease.rfind(',')? + 1);
    Some((prefix, ip.parse().ok()?))
}

impl Engine {
    /// As it is written: `None` where it is not true any more.
    pub(super) fn known_index<'a>(&self, lock: &'a Lock) -> Option<Index<'a>> {
        let bytes = lock.read().ok()?;
        let header = self.header()?;
        bytes.starts_with(&header).then_some(Index {
            lock,
            header,
            bytes,
            is_whole: true,
        })
    }

    /// The same, made anew where it is not.
    pub(super) fn index<'a>(&self, lock: &'a Lock) -> Result<Index<'a>> {
        if let Some(index) = self.known_index(lock) {
            return Ok(index);
        }
        // What is changed from now on makes it untrue again.
        let header = self.header();
        let mut bytes = vec![0; HEADER];
        let mut leased = HashMap::new();
        for name in list(&self.lease_folder())? {
            if let Some((prefix, ip)) = split(&name) {
                leased.insert(name.clone(), bytes.len() + WHY);
                bytes.extend(slot(prefix, ip, LEASED));
            }
        }
        for name in self.reservations()? {
            let Some((lease, container)) = parts(&name) else {
                continue;
            };
            // With a thousand containers that run, none is looked at.
            if let Some(why) = leased.get(lease).and_then(|at| bytes.get_mut(*at)) {
                *why |= RESERVED;
            } else if let Some((prefix, ip)) = split(lease)
                && self.is_kept(&container)
            {
                bytes.extend(slot(prefix, ip, RESERVED));
            }
        }
        // An index that cannot be written does for this time. The header last.
        let written = lock.write(&bytes).ok().and(header);
        let is_whole = written.is_some_and(|header| lock.write_at(&header, 0).is_ok());
        Ok(Index {
            lock,
            header: header.unwrap_or([0; HEADER]),
            bytes,
            is_whole,
        })
    }

    /// A folder has been changed as the index says. What others have changed in
    /// the other one is for the next who looks.
    pub(super) fn confirm(&self, mut index: Index<'_>, changed: Folder) {
        let set = self.stamp(&mut index.header, changed);
        let header = set.filter(|()| index.is_whole).map(|()| index.header);
        // Without it there is none, and the next who needs one makes it.
        let _ = index.lock.write_at(&header.unwrap_or([0; HEADER]), 0);
    }

    fn header(&self) -> Option<Header> {
        let mut header = [0; HEADER];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        self.stamp(&mut header, Folder::Leases)?;
        self.stamp(&mut header, Folder::Reserved)?;
        Some(header)
    }

    /// When a folder was last changed.
    fn stamp(&self, header: &mut Header, folder: Folder) -> Option<()> {
        let (path, field) = match folder {
            Folder::Leases => (self.lease_folder(), 16..32),
            Folder::Reserved => (self.reserved_folder(), 32..48),
        };
        let metadata = path.metadata().ok()?;
        let times = [metadata.mtime(), metadata.mtime_nsec()].map(i64::to_ne_bytes);
        header[field].copy_from_slice(times.as_flattened());
        Some(())
    }
}

impl Index<'_> {
    /// With their offsets.
    fn slots(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let slots = self.bytes.get(HEADER..).unwrap_or_default();
        (HEADER..).step_by(SLOT).zip(slots.chunks_exact(SLOT))
    }

    /// The taken addresses of a subnet, or of what else leases begin with.
    pub(super) fn taken(&self, prefix: &str) -> HashSet<IpAddr> {
        let hash = fnv1a(prefix.as_bytes()).to_ne_bytes();
        let slots = self
            .slots()
            .filter(|(_, slot)| slot[PREFIX] == hash && slot[WHY] != 0);
        let address = |slot: &[u8]| {
            let octets: [u8; 16] = slot[ADDRESS].try_into().ok()?;
            Some(Ipv6Addr::from(octets).to_canonical())
        };
        slots.filter_map(|(_, slot)| address(slot)).collect()
    }

    fn find(&self, prefix: &str, ip: IpAddr) -> Option<(usize, u8)> {
        let wanted = slot(prefix, ip, 0);
        let mut slots = self.slots();
        slots.find_map(|(at, slot)| {
            let is_it = slot[WHY] != 0 && slot[..WHY] == wanted[..WHY];
            is_it.then_some((at, slot[WHY]))
        })
    }

    /// Why an address is taken, 0 if it is not.
    pub(super) fn why(&self, prefix: &str, ip: IpAddr) -> u8 {
        self.find(prefix, ip).map_or(0, |(_, why)| why)
    }

    /// Before the file is made.
    pub(super) fn enter(&mut self, prefix: &str, ip: IpAddr, why: u8) {
        let (at, had) = self.find(prefix, ip).unwrap_or_else(|| {
            let free = self.slots().find(|(_, slot)| slot[WHY] == 0);
            (free.map_or(self.bytes.len(), |(at, _)| at), 0)
        });
        self.put(at, slot(prefix, ip, had | why));
    }

    /// When the file is gone.
    pub(super) fn strike(&mut self, prefix: &str, ip: IpAddr, why: u8) {
        if let Some((at, had)) = self.find(prefix, ip) {
            self.put(at, slot(prefix, ip, had & !why));
        }
    }

    fn put(&mut self, at: usize, slot: [u8; SLOT]) {
        let end = at + SLOT;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(bytes) = self.bytes.get_mut(at..end) {
            bytes.copy_from_slice(&slot);
        }
        self.is_whole &= self.lock.write_at(&slot, at as u64).is_ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_entered_is_taken_until_it_is_struck_out() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::acquire(&dir.path().join("lock")).unwrap();
        lock.write(&[0; HEADER]).unwrap();
        let read = || Index {
            lock: &lock,
            header: [0; HEADER],
            bytes: lock.read().unwrap(),
            is_whole: true,
        };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut index = read();
        index.enter("a,", ip("10.0.2.5"), LEASED);
        index.enter("a,", ip("10.0.2.5"), RESERVED);
        index.enter("a,", ip("fd00::5"), LEASED);
        index.enter("b,", ip("10.0.2.6"), RESERVED);
        for index in [&index, &read()] {
            let taken = HashSet::from([ip("10.0.2.5"), ip("fd00::5")]);
            assert_eq!(index.taken("a,"), taken);
            assert_eq!(index.taken("b,"), HashSet::from([ip("10.0.2.6")]));
            assert_eq!(index.why("a,", ip("10.0.2.5")), LEASED | RESERVED);
            assert_eq!(index.why("a,", ip("10.0.2.6")), 0);
        }
        let mut index = read();
        index.strike("a,", ip("10.0.2.5"), LEASED);
        assert_eq!(read().why("a,", ip("10.0.2.5")), RESERVED);
        index.strike("a,", ip("10.0.2.5"), RESERVED);
        assert_eq!(read().taken("a,"), HashSet::from([ip("fd00::5")]));
        // Its slot is the next one's.
        index.enter("c,", ip("10.0.2.7"), LEASED);
        assert_eq!(lock.read().unwrap().len(), HEADER + 3 * SLOT);
    }

    #[test]
    fn the_name_of_a_lease_ends_with_its_address() {
        let lease = "10.0.2.0_24@a,b,10.0.2.5";
        assert_eq!(
            split(lease),
            Some(("10.0.2.0_24@a,b,", "10.0.2.5".parse().unwrap()))
        );
        assert_eq!(split("none"), None);
        assert_eq!(split("none,x"), None);
    }
}
