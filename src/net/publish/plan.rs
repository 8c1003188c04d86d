//! What belongs into the parent's maps: pure.
//!
//! *Aliases.* A container owns a block of [`BLOCK`] addresses out of
//! 169.254.64.0/18 on its parent, claimed by its first one in the set
//! `aliases`. A *slot* of the block stands for one address of the host, or,
//! where a container's port is published more than once on an address, for a
//! further one of these: so that (alias, container's port) always leads back
//! to one port of the host. A slot stays with its address while there is room:
//! connections survive that another address comes or goes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use crate::base::{MacAddr, PortMap, Proto};
use crate::netlink::nft::concat;

pub(super) const POOL: Ipv4Addr = Ipv4Addr::new(169, 254, 64, 0);
pub(super) const POOL_MASK: Ipv4Addr = Ipv4Addr::new(255, 255, 192, 0);
/// Aliases of one container.
pub(super) const BLOCK: u32 = 16;
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
    /// TCP; UDP requests go to the container's own address.
    slot: Option<usize>,
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
        let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
        for (at, port) in ports.iter().enumerate() {
            let asked = port.host.ip == IpAddr::V4(*addr) || port.host.ip == Ipv4Addr::UNSPECIFIED;
            if !asked || deaf.get(at).copied().unwrap_or_default() {
                continue;
            }
            let slot = if port.proto == Proto::Tcp {
                let nth = seen.entry(port.container).or_default();
                *nth += 1;
                let Some(slot) = slots.of((*addr, *nth), addrs) else {
                    continue;
                };
                Some(slot)
            } else {
                None
            };
            forwards.push(Forward {
                port: at,
                proto: port.proto,
                host: SocketAddrV4::new(*addr, port.host.port),
                container: port.container,
                slot,
            });
        }
    }
    forwards
}

/// Bytes of keys to bytes of values, as the kernel has them.
pub(super) type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What is, or should be, in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Elements {
    /// (protocol, host's address, port) → (address, port, MAC) in the container.
    pub(super) from_lan: Map,
    /// (alias, container's port) → (host's address, port, MAC).
    pub(super) to_lan: Map,
    pub(super) aliases: BTreeSet<Ipv4Addr>,
}

impl Elements {
    pub(super) fn wanted(
        forwards: &[Forward],
        parent: &Parent,
        mac: MacAddr,
        ip: Ipv4Addr,
        block: Block,
    ) -> Self {
        let mut wanted = Self::default();
        wanted.aliases.extend(block.nth(0));
        for forward in forwards {
            let inside = match forward.slot {
                None => ip,
                Some(slot) => match block.nth(slot) {
                    Some(alias) => alias,
                    None => continue,
                },
            };
            let (host, port) = (forward.host, forward.container);
            let key = from_key(forward.proto, host);
            let value = endpoint(SocketAddrV4::new(inside, port), mac);
            wanted.from_lan.insert(key, value);
            if forward.slot.is_some() {
                wanted.aliases.insert(inside);
                let key = concat(&[&inside.octets(), &port.to_be_bytes()]);
                wanted.to_lan.insert(key, endpoint(host, parent.mac));
            }
        }
        wanted
    }

    /// The part that stands for a container with these addresses (aliases and
    /// its own).
    pub(super) fn of(&self, addrs: &[Ipv4Addr]) -> Self {
        let ours = |bytes: &[u8]| leading_addr(bytes).is_some_and(|a| addrs.contains(&a));
        let pick = |map: &Map, of: fn(&Vec<u8>, &Vec<u8>) -> Vec<u8>| {
            map.iter()
                .filter(|(key, value)| ours(&of(key, value)))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect()
        };
        Self {
            from_lan: pick(&self.from_lan, |_, value| value.clone()),
            to_lan: pick(&self.to_lan, |key, _| key.clone()),
            aliases: self
                .aliases
                .iter()
                .filter(|a| addrs.contains(a))
                .copied()
                .collect(),
        }
    }

    /// Of `ours`, what these published ports have put into `self`. A block
    /// that was recorded and then lost to somebody faster is theirs.
    pub(super) fn through(&self, mut ours: Self, ports: &[PortMap]) -> Self {
        let is_port = |proto: Option<u8>, port: Option<&[u8]>| {
            ports.iter().any(|p| {
                proto.is_none_or(|n| n == p.proto.number())
                    && port == Some(&p.host.port.to_be_bytes())
            })
        };
        ours.from_lan
            .retain(|key, _| is_port(key.first().copied(), key.get(8..10)));
        ours.to_lan
            .retain(|_, value| is_port(None, value.get(4..6)));
        let foreign = |alias: &Ipv4Addr| {
            let theirs = |key: &&Vec<u8>| leading_addr(key) == Some(*alias);
            let mut keys = self.to_lan.keys().filter(theirs);
            keys.any(|key| !ours.to_lan.contains_key(key))
        };
        ours.aliases = ours
            .aliases
            .iter()
            .filter(|a| !foreign(a))
            .copied()
            .collect();
        ours
    }

    /// What to delete from `self` and what to add so that the container with
    /// these addresses has exactly `wanted`. A key that is wanted and leads
    /// elsewhere is a dead one's: whoever asks holds the port's socket.
    pub(super) fn change(&self, wanted: &Self, addrs: &[Ipv4Addr]) -> (Self, Self) {
        let ours = self.of(addrs);
        let delete = |is: &Map, ours: &Map, wanted: &Map| -> Map {
            let stale = |key: &Vec<u8>, value: &Vec<u8>| match wanted.get(key) {
                Some(right) => right != value,
                None => ours.contains_key(key),
            };
            let entries = is.iter().filter(|(key, value)| stale(key, value));
            entries.map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let add = |is: &Map, wanted: &Map| -> Map {
            let missing = wanted.iter().filter(|(k, v)| is.get(*k) != Some(*v));
            missing.map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        (
            Self {
                from_lan: delete(&self.from_lan, &ours.from_lan, &wanted.from_lan),
                to_lan: delete(&self.to_lan, &ours.to_lan, &wanted.to_lan),
                aliases: ours.aliases.difference(&wanted.aliases).copied().collect(),
            },
            Self {
                from_lan: add(&self.from_lan, &wanted.from_lan),
                to_lan: add(&self.to_lan, &wanted.to_lan),
                aliases: wanted.aliases.difference(&self.aliases).copied().collect(),
            },
        )
    }
}

fn from_key(proto: Proto, host: SocketAddrV4) -> Vec<u8> {
    concat(&[
        &[proto.number()],
        &host.ip().octets(),
        &host.port().to_be_bytes(),
    ])
}

/// A map's value: where a packet is led, by all three of its headers.
fn endpoint(to: SocketAddrV4, mac: MacAddr) -> Vec<u8> {
    concat(&[&to.ip().octets(), &to.port().to_be_bytes(), &mac.0])
}

pub(super) fn leading_addr(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes.first_chunk::<4>().copied().map(Ipv4Addr::from)
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
        assert_eq!(all.aliases.len(), 4);
        assert_eq!(all.to_lan.len(), 3 + 4);
        assert_eq!(all.from_lan.len(), 4 + 5);
        let udp = from_key(Proto::Udp, SocketAddrV4::new([10, 0, 2, 4].into(), 53));
        assert_eq!(leading_addr(&all.from_lan[&udp]), Some(IP));
        // Every way in has its way back.
        for (key, value) in &all.from_lan {
            if key[0] == Proto::Tcp.number() {
                let back = &all.to_lan[&value[..8]];
                assert_eq!(back[..8], key[4..12]);
                assert_eq!(back[8..14], host.mac.0);
            }
        }
    }

    #[test]
    fn an_address_that_goes_takes_no_other_alias_along() {
        let ports = maps(&["0.0.0.0:5000:80/tcp"]);
        let mut slots = Slots::default();
        let both = wanted(&ports, &parent(&[[10, 0, 2, 4], [10, 0, 2, 9]]), &mut slots);
        let one = wanted(&ports, &parent(&[[10, 0, 2, 9]]), &mut slots);
        let (delete, add) = both.change(&one, &ours());
        assert_eq!((delete.from_lan.len(), delete.to_lan.len()), (1, 1));
        // The claim stays with the block's first.
        assert!(delete.aliases.is_empty());
        assert_eq!(add, Elements::default());
        assert!(one.to_lan.iter().all(|(k, v)| both.to_lan.get(k) == Some(v)));
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
        let other_block = Block::free(&mine.aliases, other_ip).unwrap();
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
        let (delete, add) = is.change(&mine, &ours());
        assert_eq!(delete.from_lan.len(), 1);
        assert_eq!((delete.to_lan.len(), delete.aliases.len()), (0, 0));
        assert_eq!(add, mine);
        is.from_lan.retain(|key, _| !delete.from_lan.contains_key(key));
        is.from_lan.extend(add.from_lan);
        is.to_lan.extend(add.to_lan);
        is.aliases.extend(add.aliases);
        assert_eq!(is.change(&mine, &ours()), Default::default());
        assert_eq!(is.of(&ours()), mine);
        let (delete, add) = is.change(&Elements::default(), &ours());
        assert_eq!((delete, add), (mine.clone(), Elements::default()));
        let by_other_port = is.through(mine.clone(), &maps(&["0.0.0.0:1:80/tcp"]));
        assert_eq!(by_other_port, Elements::default());
        let by_its_own = is.through(mine.clone(), &maps(&["0.0.0.0:5000:80/tcp"]));
        assert_eq!(by_its_own, mine);
    }
}
