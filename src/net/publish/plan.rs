//! What belongs into the parent's maps: pure.
//!
//! *Aliases.* A container owns a block of [`BLOCK`] addresses out of
//! 169.254.64.0/18 on its parent, claimed by its first one in the set
//! `inside`. A *slot* of the block stands for one address of the host, or,
//! where a container's port is published more than once on an address, for a
//! further one of these: so that (alias, container's port) always leads back
//! to one port of the host. A slot stays with its address while there is room:
//! connections survive that another address comes or goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use super::rules;
use crate::base::{Cidr, MacAddr, PortMap, Proto, Result};
use crate::netlink::nft::concat;

pub(super) const POOL: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 0);
pub(super) const POOL_MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 192, 0);
/// Aliases of one container.
pub(super) const BLOCK: u32 = 16;
const BLOCK_PREFIX: u8 = 28;
const BLOCKS: u32 = (1 << 14) / BLOCK;

/// A container's aliases: its block's first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block(Ipv4Addr);

impl Block {
    /// A block nobody has: the one that the container's address leads to, so
    /// that it mostly is the same each time, or the next free one.
    pub(super) fn free(claims: &BTreeSet<Ipv4Addr>, ip: Ipv4Addr) -> Option<Self> {
        let first = ip.to_bits() % BLOCKS;
        (0..BLOCKS)
            .map(|n| (first + n) % BLOCKS)
            .map(|n| Self(Ipv4Addr::from_bits(POOL.to_bits() + n * BLOCK)))
            .find(|block| !claims.iter().any(|claim| block.contains(*claim)))
    }

    pub(super) fn contains(self, alias: Ipv4Addr) -> bool {
        alias.to_bits() & !(BLOCK - 1) == self.0.to_bits()
    }

    pub(super) fn nth(self, slot: usize) -> Option<Ipv4Addr> {
        let slot = u32::try_from(slot).ok().filter(|slot| *slot < BLOCK)?;
        Some(Ipv4Addr::from_bits(self.0.to_bits() + slot))
    }

    pub(super) fn cidr(self) -> Result<Cidr> {
        Cidr::new(self.0.into(), BLOCK_PREFIX)
    }

    pub(super) fn all(self) -> impl Iterator<Item = Ipv4Addr> {
        (0..).map_while(move |slot| self.nth(slot))
    }
}

/// Which (address of the host, how manieth port of it that leads to the same
/// port of the container) each alias stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Slots(Vec<(Ipv4Addr, usize)>);

impl Slots {
    /// The slot of `whose`; takes one of an address that is gone when there is
    /// no other. `None`: this port is the proxy's.
    fn of(&mut self, whose: (Ipv4Addr, usize), addrs: &[Ipv4Addr]) -> Option<usize> {
        if let Some(at) = self.0.iter().position(|slot| *slot == whose) {
            return Some(at);
        }
        if self.0.len() < BLOCK as usize {
            self.0.push(whose);
            return Some(self.0.len() - 1);
        }
        let at = self.0.iter().position(|(a, _)| !addrs.contains(a))?;
        self.0[at] = whose;
        Some(at)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The parent link as the LAN sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) index: u32,
    pub(super) mac: MacAddr,
    pub(super) addrs: Vec<Ipv4Addr>,
}

/// One port of one address of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forward {
    /// Which of the published ports.
    pub(super) port: usize,
    proto: Proto,
    host: SocketAddrV4,
    container: u16,
    slot: usize,
}

/// Which ports of which addresses the fast path can serve. `deaf` are ports
/// whose service would not hear an alias.
pub(super) fn forwards(
    ports: &[PortMap],
    deaf: &[bool],
    addrs: &[Ipv4Addr],
    slots: &mut Slots,
) -> Vec<Forward> {
    let mut forwards = Vec::new();
    for addr in addrs {
        let mut seen: BTreeMap<(Proto, u16), usize> = BTreeMap::new();
        for (at, port) in ports.iter().enumerate() {
            let asked = port.host.ip == IpAddr::V4(*addr) || port.host.ip == Ipv4Addr::UNSPECIFIED;
            if !asked || deaf.get(at).copied().unwrap_or_default() {
                continue;
            }
            let nth = seen.entry((port.proto, port.container)).or_default();
            *nth += 1;
            if let Some(slot) = slots.of((*addr, *nth), addrs) {
                forwards.push(Forward {
                    port: at,
                    proto: port.proto,
                    host: SocketAddrV4::new(*addr, port.host.port),
                    container: port.container,
                    slot,
                });
            }
        }
    }
    forwards
}

/// Bytes of keys to bytes of values, as the kernel has them; a set's values
/// are empty.
pub(super) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The table's maps (and one set) by name.
pub(super) const NAMES: [&str; 8] = [
    rules::INSIDE,
    rules::TO_ADDR,
    rules::TO_PORT,
    rules::TO_MAC,
    rules::TO_ALIAS,
    rules::AS_ADDR,
    rules::AS_MAC,
    rules::AS_PORT,
];

/// What is, or should be, in the maps of [`NAMES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elements([Map; NAMES.len()]);

impl Elements {
    pub(super) fn read<E>(mut map: impl FnMut(&str) -> Result<Map, E>) -> Result<Self, E> {
        let mut all = Self::default();
        for (name, place) in NAMES.into_iter().zip(&mut all.0) {
            *place = map(name)?;
        }
        Ok(all)
    }

    pub(super) fn wanted(
        forwards: &[Forward],
        parent: &Parent,
        mac: MacAddr,
        ip: Ipv4Addr,
        block: Block,
    ) -> Self {
        let mut wanted = Self::default();
        let mut put = |name: &str, key: &[u8], value: &[u8]| {
            if let Some(at) = NAMES.into_iter().position(|n| n == name) {
                wanted.0[at].insert(key.to_vec(), value.to_vec());
            }
        };
        // The claim.
        if let Some(first) = block.nth(0) {
            put(rules::INSIDE, &first.octets(), &[]);
        }
        for forward in forwards {
            let Some(alias) = block.nth(forward.slot) else {
                continue;
            };
            let (proto, host) = ([forward.proto.number()], forward.host);
            let (addr, port) = (host.ip().octets(), host.port().to_be_bytes());
            let container = forward.container.to_be_bytes();
            let alias = alias.octets();
            let request = concat(&[&proto, &addr, &port]);
            let inside = match forward.proto {
                Proto::Tcp => alias,
                Proto::Udp => {
                    put(rules::TO_ALIAS, &request, &alias);
                    ip.octets()
                }
            };
            put(rules::INSIDE, &inside, &[]);
            put(rules::TO_ADDR, &request, &inside);
            put(rules::TO_PORT, &request, &container);
            put(rules::TO_MAC, &request, &mac.0);
            put(rules::AS_ADDR, &alias, &addr);
            put(rules::AS_MAC, &alias, &parent.mac.0);
            put(
                rules::AS_PORT,
                &concat(&[&proto, &alias, &container]),
                &port,
            );
        }
        wanted
    }

    fn map(&self, name: &str) -> &Map {
        let place = NAMES.into_iter().position(|n| n == name);
        &self.0[place.unwrap_or_default()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Map)> {
        NAMES.into_iter().zip(&self.0)
    }

    /// Addresses in use; the aliases among them tell the blocks that are taken.
    pub(super) fn claims(&self) -> BTreeSet<Ipv4Addr> {
        let keys = self.map(rules::INSIDE).keys();
        keys.filter_map(|key| addr_at(key, 0)).collect()
    }

    /// The part that leads to a container with these addresses (its aliases
    /// and its own) and back.
    pub(super) fn of(&self, addrs: &[Ipv4Addr]) -> Self {
        let is_ours = |addr: Option<Ipv4Addr>| addr.is_some_and(|a| addrs.contains(&a));
        let requests = self.map(rules::TO_ADDR);
        self.filter(|name, key, _| match name {
            rules::TO_ADDR | rules::TO_PORT | rules::TO_MAC | rules::TO_ALIAS => {
                is_ours(requests.get(key).and_then(|inside| addr_at(inside, 0)))
            }
            rules::AS_PORT => is_ours(addr_at(key, 4)),
            _ => is_ours(addr_at(key, 0)),
        })
    }

    fn filter(&self, keep: impl Fn(&str, &Vec<u8>, &Vec<u8>) -> bool) -> Self {
        let mut kept = self.clone();
        for (name, map) in NAMES.into_iter().zip(&mut kept.0) {
            map.retain(|key, value| keep(name, key, value));
        }
        kept
    }

    /// Of [`of`](Self::of), what these published ports have put there. A block
    /// that was recorded and then lost to somebody faster is theirs.
    pub(super) fn of_ports(&self, addrs: &[Ipv4Addr], ports: &[PortMap]) -> Self {
        let foreign = self.foreign(ports);
        self.of(addrs).filter(|name, key, value| match name {
            rules::TO_ADDR | rules::TO_PORT | rules::TO_MAC | rules::TO_ALIAS => {
                is_of(ports, key, key.get(8..10))
            }
            rules::AS_PORT => is_of(ports, key, value.get(..2)),
            _ => addr_at(key, 0).is_some_and(|addr| !foreign.contains(&addr)),
        })
    }

    /// Aliases that lead back to other ports than these.
    pub(super) fn foreign(&self, ports: &[PortMap]) -> BTreeSet<Ipv4Addr> {
        self.map(rules::AS_PORT)
            .iter()
            .filter(|(key, value)| !is_of(ports, key, value.get(..2)))
            .filter_map(|(key, _)| addr_at(key, 4))
            .collect()
    }

    /// What to delete from `self` and what to add so that these addresses have
    /// exactly `wanted`. A key that is wanted and leads elsewhere is a dead
    /// one's: whoever asks holds the port's socket.
    pub(super) fn change(&self, wanted: &Self, addrs: &[Ipv4Addr]) -> (Self, Self) {
        let ours = self.of(addrs);
        let delete = self.filter(|name, key, value| match wanted.map(name).get(key) {
            Some(right) => right != value,
            None => ours.map(name).contains_key(key),
        });
        let add = wanted.filter(|name, key, value| self.map(name).get(key) != Some(value));
        (delete, add)
    }
}

/// Is that the protocol (which begins a key) and host's port of one of these?
fn is_of(ports: &[PortMap], key: &[u8], port: Option<&[u8]>) -> bool {
    ports
        .iter()
        .any(|p| key.first() == Some(&p.proto.number()) && port == Some(&p.host.port.to_be_bytes()))
}

/// The address that begins at this byte of a key or value.
fn addr_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let four = bytes.get(at..)?.first_chunk::<4>()?;
    Some(Ipv4Addr::from(*four))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0x42, 10, 0, 2, 5]);
    const IP: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 5);

    fn map(text: &str) -> PortMap {
        // "10.0.2.4:5000:80/tcp"
        let (rest, proto) = text.split_once('/').unwrap();
        let mut parts = rest.split(':');
        let mut next = || parts.next().unwrap();
        PortMap {
            host: crate::base::HostPort {
                ip: next().parse().unwrap(),
                port: next().parse().unwrap(),
            },
            container: next().parse().unwrap(),
            proto: if proto == "tcp" {
                Proto::Tcp
            } else {
                Proto::Udp
            },
        }
    }

    fn maps(texts: &[&str]) -> Vec<PortMap> {
        texts.iter().map(|t| map(t)).collect()
    }

    fn parent(addrs: &[[u8; 4]]) -> Parent {
        Parent {
            index: 2,
            mac: MacAddr([2, 0x1a, 10, 0, 2, 4]),
            addrs: addrs.iter().map(|a| Ipv4Addr::from(*a)).collect(),
        }
    }

    fn block() -> Block {
        Block::free(&BTreeSet::new(), IP).unwrap()
    }

    fn ours() -> Vec<Ipv4Addr> {
        block().all().chain([IP]).collect()
    }

    fn wanted(ports: &[PortMap], parent: &Parent, slots: &mut Slots) -> Elements {
        let forwards = forwards(ports, &[], &parent.addrs, slots);
        Elements::wanted(&forwards, parent, MAC, IP, block())
    }

    fn sizes(elements: &Elements) -> [usize; 8] {
        elements.0.each_ref().map(BTreeMap::len)
    }

    #[test]
    fn blocks_are_apart_and_in_the_pool() {
        let first = block();
        assert_eq!(first.all().count(), 16);
        assert_eq!(first.nth(16), None);
        let claims = BTreeSet::from([first.nth(0).unwrap()]);
        let second = Block::free(&claims, IP).unwrap();
        assert!(second.all().all(|a| !first.contains(a)));
        for alias in first.all().chain(second.all()) {
            assert_eq!(alias.to_bits() & POOL_MASK.to_bits(), POOL.to_bits());
        }
        let all = (0..BLOCKS)
            .map(|n| Ipv4Addr::from_bits(POOL.to_bits() + n * BLOCK))
            .collect();
        assert_eq!(Block::free(&all, IP), None);
    }

    #[test]
    fn one_alias_for_each_address_and_one_more_for_a_port_published_twice() {
        let host = parent(&[[10, 0, 2, 4], [10, 0, 2, 9]]);
        let ports = maps(&[
            "0.0.0.0:5000:80/tcp",
            "0.0.0.0:5001:80/tcp",
            "0.0.0.0:443:443/tcp",
            "0.0.0.0:53:53/udp",
            "10.0.2.9:7000:7000/tcp",
            "127.0.0.1:7001:7001/tcp",
        ]);
        let mut slots = Slots::default();
        let all = wanted(&ports, &host, &mut slots);
        assert_eq!(sizes(&all), [5, 9, 9, 9, 2, 4, 4, 9]);
        // Every way in has its way back.
        for (request, inside) in all.map(rules::TO_ADDR) {
            let alias = all.map(rules::TO_ALIAS).get(request).unwrap_or(inside);
            assert_eq!(alias == inside, request[0] == Proto::Tcp.number());
            let port = &all.map(rules::TO_PORT)[request];
            let answer = concat(&[&request[..1], alias, port]);
            assert_eq!(all.map(rules::AS_PORT)[&answer], request[8..10]);
            assert_eq!(all.map(rules::AS_ADDR)[alias], request[4..8]);
            assert_eq!(all.map(rules::AS_MAC)[alias], host.mac.0);
            assert_eq!(all.map(rules::TO_MAC)[request], MAC.0);
        }
    }

    #[test]
    fn an_address_that_goes_takes_no_other_alias_along() {
        let ports = maps(&["0.0.0.0:5000:80/tcp"]);
        let mut slots = Slots::default();
        let both = wanted(&ports, &parent(&[[10, 0, 2, 4], [10, 0, 2, 9]]), &mut slots);
        let one = wanted(&ports, &parent(&[[10, 0, 2, 9]]), &mut slots);
        let (delete, add) = both.change(&one, &ours());
        // The claim stays with the block's first.
        assert_eq!(sizes(&delete), [0, 1, 1, 1, 0, 1, 1, 1]);
        assert_eq!(add, Elements::default());
    }

    #[test]
    fn slots_run_out_into_the_proxy_and_are_taken_from_gone_addresses() {
        let ports = maps(&["0.0.0.0:5000:80/tcp"]);
        let addrs: Vec<Ipv4Addr> = (1..=20).map(|n| Ipv4Addr::new(10, 0, 2, n)).collect();
        let mut slots = Slots::default();
        assert_eq!(forwards(&ports, &[], &addrs, &mut slots).len(), 16);
        assert_eq!(forwards(&ports, &[], &addrs[10..], &mut slots).len(), 10);
        assert_eq!(slots.len(), 16);
        assert_eq!(forwards(&ports, &[true], &addrs, &mut slots), []);
    }

    #[test]
    fn changes_leave_others_alone_and_replace_the_dead() {
        let host = parent(&[[10, 0, 2, 4]]);
        let mut slots = Slots::default();
        let mine = wanted(&maps(&["0.0.0.0:5000:80/tcp"]), &host, &mut slots);
        let other_ip = Ipv4Addr::new(10, 0, 2, 6);
        let other_block = Block::free(&mine.claims(), other_ip).unwrap();
        // Somebody else, and a dead one's element for our port.
        let mut is = Elements::wanted(
            &forwards(
                &maps(&["0.0.0.0:5000:80/tcp", "0.0.0.0:6000:80/tcp"]),
                &[],
                &host.addrs,
                &mut Slots::default(),
            ),
            &host,
            MAC,
            other_ip,
            other_block,
        );
        let theirs: Vec<Ipv4Addr> = other_block.all().chain([other_ip]).collect();
        let (delete, add) = is.change(&mine, &ours());
        // The dead one had the same port and MAC.
        assert_eq!(sizes(&delete), [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(sizes(&add), [1, 1, 0, 0, 0, 1, 1, 1]);
        for ((is, delete), add) in is.0.iter_mut().zip(&delete.0).zip(&add.0) {
            is.retain(|key, _| !delete.contains_key(key));
            is.extend(add.clone());
        }
        assert_eq!(is.change(&mine, &ours()), Default::default());
        assert_eq!(is.of(&ours()), mine);
        let (delete, add) = is.change(&Elements::default(), &ours());
        assert_eq!((delete, add), (mine.clone(), Elements::default()));
        // Undo names the ports: a block that is another's now is left alone.
        let its_own = is.of_ports(&ours(), &maps(&["0.0.0.0:5000:80/tcp"]));
        assert_eq!(its_own, mine);
        assert!(
            is.foreign(&maps(&["0.0.0.0:5000:80/tcp"]))
                .contains(&theirs[1])
        );
        let lost = is.of_ports(&theirs, &maps(&["0.0.0.0:1:80/tcp"]));
        assert_eq!(lost, Elements::default());
    }
}
