//! The guard: what leaves a container's link has the container's own MAC and
//! addresses.
//!
//! # Theory of operation
//!
//! *Where.* In the container's namespace, at the egress hook of its link: there
//! every frame passes, before the parent hands it to a sibling (which, in
//! bridge mode, none of the parent's hooks sees when it is a broadcast) or to
//! the LAN. Packet sockets with PACKET_QDISC_BYPASS pass there too; AF_XDP
//! sockets do not, and containers may not open any (`sys/seccomp`).
//!
//! *Whose.* A table per link, owned by a netlink socket of the supervisor
//! (NFT_TABLE_F_OWNER): nobody else can change or flush it, not even somebody
//! with CAP_NET_ADMIN in the container's namespace. From Linux 6.9 on it stays
//! when the supervisor is killed; before, it goes with the supervisor, whose
//! end is the container's.
//!
//! *When.* After the link is made, before it is up. The table goes with the
//! namespace, so there is nothing to undo but for a link that goes alone: from
//! Linux 6.16 on a hook waits for the next link of the same name.
//!
//! The same socket owns the table of `--allow` and `--deny` (`rule.rs` says
//! what they mean, `filter.rs` how the kernel is told), and those of rates
//! (`limit.rs`).
//!
//! *What* passes is in `rules.rs`. A kernel without the hook (before 5.16) or
//! without nf_tables gets no guard: with the default that is a warning and a
//! line in `inspect`, with `-o guard=on` a refusal.

mod filter;
pub mod limit;
pub mod rule;
mod rules;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use rule::Rule;

use super::ip6::Token;
use super::spec;
use crate::base::{Cidr, Error, IfName, MacAddr, Result};
use crate::netlink::nft::{Batch, Family, Nft, Owned, RuleInfo, Table};
use crate::sys::features;
use crate::sys::netns::{Netns, Sandbox};

/// Who a link is.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    pub ifname: &'a IfName,
    pub mac: MacAddr,
    /// Its IPv6 link-local address, where it has IPv6.
    pub link_local: Option<Ipv6Addr>,
    pub addrs: &'a Addrs,
    /// Other MACs that may send, IPv4 and ARP from any address (VRRP).
    pub also: &'a [MacAddr],
}

/// Which addresses may be named as a sender's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addrs {
    /// These; with an IPv6 address also the link-local one. None: only what
    /// asks for an address.
    Own(Vec<IpAddr>),
    /// The same, and from the start the link-local one, since the LAN gives
    /// more of them. Those that end in the token may be asked for: are they
    /// free?
    Lan(Vec<IpAddr>, Option<Token>),
    /// A link whose addresses are not ours to know.
    Any,
}

/// Whether a link has its guard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    #[default]
    Off,
    On,
    /// Wanted, but not had here.
    Unavailable {
        why: String,
    },
}

/// Why a frame was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Forgery {
    /// Another sender MAC than the link's.
    #[serde(rename = "MAC")]
    Mac,
    #[serde(rename = "IPv4")]
    Ipv4,
    #[serde(rename = "ARP")]
    Arp,
    #[serde(rename = "IPv6")]
    Ipv6,
    /// Neighbour solicitations and advertisements.
    Neighbour,
    /// Router advertisements and redirects.
    Router,
    /// A DHCP or DHCPv6 server's.
    #[serde(rename = "DHCP")]
    Dhcp,
    /// Neither IPv4 nor IPv6 nor ARP.
    Other,
}

impl Forgery {
    const ALL: [Self; 8] = [
        Self::Mac,
        Self::Ipv4,
        Self::Arp,
        Self::Ipv6,
        Self::Neighbour,
        Self::Router,
        Self::Dhcp,
        Self::Other,
    ];

    /// What `nft list` shows, and how the counter is found again.
    fn comment(self) -> &'static str {
        match self {
            Self::Mac => "forged: MAC",
            Self::Ipv4 => "forged: IPv4",
            Self::Arp => "forged: ARP",
            Self::Ipv6 => "forged: IPv6",
            Self::Neighbour => "forged: neighbour",
            Self::Router => "forged: router",
            Self::Dhcp => "forged: DHCP server",
            Self::Other => "forged: other",
        }
    }
}

/// Frames dropped, by reason; those of which there were any.
pub type Dropped = BTreeMap<Forgery, u64>;

/// The tables of one container's links, and the socket that owns them.
#[derive(Debug)]
pub struct Guard {
    nft: Nft<Sandbox>,
    owned: Owned,
    links: Vec<IfName>,
    /// Not among these, but may have a table all the same: its batch failed,
    /// perhaps in its answer alone (a full receive buffer).
    in_doubt: Vec<IfName>,
    /// The link that answers for published ports, and its rule's handle.
    aliases: Option<(IfName, Cidr, u64)>,
    /// `--allow` and `--deny`, once they are in force.
    filter: Option<Filter>,
    /// Links that have a rate.
    limited: Vec<IfName>,
}

/// The rule before them that lets in what published ports bring.
#[derive(Clone, Copy, Debug)]
struct Filter {
    published: Option<(Cidr, u64)>,
}

const FILTER: Table<'static> = Table {
    family: Family::Inet,
    name: "dockless-rules",
};
/// What no rule speaks of.
pub const REST: &str = "deny the rest";

impl Guard {
    pub fn new(netns: &Netns<Sandbox>) -> Result<Self> {
        // A refused batch waits for an RCU grace period, so that trying costs.
        let owned = match features::kernel_is_at_least(6, 9) {
            true => Owned::Stays,
            false => Owned::Goes,
        };
        Ok(Self {
            nft: Nft::sandbox(netns)?,
            owned,
            links: Vec::new(),
            in_doubt: Vec::new(),
            aliases: None,
            filter: None,
            limited: Vec::new(),
        })
    }

    /// Puts `--allow` and `--deny` in force.
    pub fn filter(&mut self, rules: &[Rule]) -> Result<()> {
        let mut batch = Batch::new();
        batch.create_owned_table(FILTER, self.owned);
        filter::write(&mut batch, FILTER, rules);
        self.nft.commit(&batch).map_err(|error| {
            error.hint(
                "--allow and --deny need nf_tables with its inet family, connection tracking \
                 (nft_ct) and nft_reject_inet: load these modules, or leave the rules out",
            )
        })?;
        self.filter = Some(Filter { published: None });
        Ok(())
    }

    /// Packets by rule, in order; of a rule for both directions, both.
    pub fn filtered(&mut self) -> Result<Vec<(String, u64)>> {
        let mut all: Vec<(String, u64)> = Vec::new();
        if self.filter.is_none() {
            return Ok(all);
        }
        for rule in self.nft.rules(FILTER, None)? {
            let (Some(text), Some((packets, _))) = (rule.comment, rule.counter) else {
                continue;
            };
            match all.iter_mut().find(|(known, _)| *known == text) {
                Some((_, sum)) => *sum += packets,
                None => all.push((text, packets)),
            }
        }
        Ok(all)
    }

    /// What published ports bring in is let in, whatever the rules say.
    fn let_in(&mut self, block: Option<Cidr>) -> Result<()> {
        let Some(Filter { published: had }) = self.filter else {
            return Ok(());
        };
        if had.map(|(had, _)| had) == block {
            return Ok(());
        }
        let mut batch = Batch::new();
        if let Some((_, handle)) = had {
            batch.delete_rule(FILTER, filter::IN, Some(handle));
        }
        if let Some(block) = block {
            let comment = Some("published ports");
            batch.insert_rule(FILTER, filter::IN, &filter::published(block), comment);
            batch.echo();
        }
        let handle = self.nft.commit(&batch)?.first().copied();
        let published = block.zip(handle);
        self.filter = Some(Filter { published });
        Ok(())
    }

    /// Guards a link from now on; one that is guarded already has another
    /// identity from now on, without a moment between.
    pub fn install(&mut self, link: &Identity<'_>) -> Result<()> {
        let name = table_name(link.ifname);
        let mut batch = Batch::new();
        if self.may_be_there(link.ifname) {
            // Or it may be gone: when the kernel's answer to that was lost.
            batch.add_owned_table(table(&name), self.owned);
            batch.delete_table(table(&name));
        }
        batch.create_owned_table(table(&name), self.owned);
        rules::write(&mut batch, table(&name), link);
        if let Err(error) = self.nft.commit(&batch) {
            if !self.may_be_there(link.ifname) {
                self.in_doubt.push(link.ifname.clone());
            }
            return Err(error);
        }
        self.in_doubt.retain(|l| l != link.ifname);
        if self
            .aliases
            .as_ref()
            .is_some_and(|(l, ..)| l == link.ifname)
        {
            self.aliases = None;
        }
        if !self.links.contains(link.ifname) {
            self.links.push(link.ifname.clone());
        }
        Ok(())
    }

    /// The link is gone; one without a guard is fine.
    pub fn remove(&mut self, ifname: &IfName) -> Result<()> {
        self.unlimit(ifname)?;
        if !self.may_be_there(ifname) {
            return Ok(());
        }
        self.nft.delete_table(table(&table_name(ifname)))?;
        self.links.retain(|l| l != ifname);
        self.in_doubt.retain(|l| l != ifname);
        self.aliases.take_if(|(l, ..)| l == ifname);
        Ok(())
    }

    fn may_be_there(&self, ifname: &IfName) -> bool {
        self.links.contains(ifname) || self.in_doubt.contains(ifname)
    }

    /// Published ports answer on this link from a block of aliases; `None`: on
    /// none any more.
    pub fn publish(&mut self, on: Option<(&IfName, MacAddr, Cidr)>) -> Result<()> {
        self.let_in(on.map(|(_, _, block)| block))?;
        let is = |had: &(IfName, Cidr, u64)| on.is_some_and(|(l, _, b)| had.0 == *l && had.1 == b);
        if self.aliases.as_ref().is_some_and(is) {
            return Ok(());
        }
        if let Some((ifname, _, handle)) = &self.aliases {
            let mut batch = Batch::new();
            batch.delete_rule(table(&table_name(ifname)), rules::CHAIN, Some(*handle));
            self.nft.commit(&batch)?;
            self.aliases = None;
        }
        let Some((ifname, mac, block)) = on.filter(|(ifname, ..)| self.links.contains(ifname))
        else {
            return Ok(());
        };
        let Some(rule) = rules::aliases(mac, block) else {
            return Ok(());
        };
        let name = table_name(ifname);
        let mut batch = Batch::new();
        let comment = Some("published ports: the aliases' answers");
        batch.insert_rule(table(&name), rules::CHAIN, &rule, comment);
        batch.echo();
        let handle = self.nft.commit(&batch)?.first().copied();
        self.aliases = handle.map(|handle| (ifname.clone(), block, handle));
        Ok(())
    }

    /// What each link's guard has dropped.
    pub fn dropped(&mut self) -> Result<BTreeMap<IfName, Dropped>> {
        let mut all = BTreeMap::new();
        for ifname in &self.links {
            let rules = self.nft.rules(table(&table_name(ifname)), None)?;
            all.insert(ifname.clone(), count(&rules));
        }
        Ok(all)
    }
}

/// Guards `link` as the network wants it; `slot` is the container's guard, made
/// with the first link that needs it.
pub fn install(
    slot: &mut Option<Guard>,
    netns: &Netns<Sandbox>,
    wanted: spec::Guard,
    link: &Identity<'_>,
) -> Result<State> {
    if wanted == spec::Guard::Off {
        return Ok(State::Off);
    }
    let installed = match slot {
        Some(guard) => guard.install(link),
        None => Guard::new(netns).and_then(|guard| slot.insert(guard).install(link)),
    };
    match installed {
        Ok(()) => Ok(State::On),
        Err(error) if !is_missing(&error) => Err(error),
        Err(error) if wanted == spec::Guard::Auto => Ok(State::Unavailable {
            why: reason(&error),
        }),
        Err(error) => Err(error.hint(
            "-o guard=on needs nf_tables' netdev family with its egress hook (Linux 5.16 and \
             later, CONFIG_NETFILTER_EGRESS): load nf_tables, or make the network without \
             guard=on, or with -o guard=off",
        )),
    }
}

/// The kernel has no such family, hook or flag.
fn is_missing(error: &Error) -> bool {
    matches!(
        error.errno(),
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT)
    )
}

fn reason(error: &Error) -> String {
    format!("this kernel lacks nf_tables' egress hook (Linux 5.16 and later): {error}")
}

fn count(rules: &[RuleInfo]) -> Dropped {
    let mut dropped = Dropped::new();
    for rule in rules {
        let forgery = Forgery::ALL
            .into_iter()
            .find(|f| rule.comment.as_deref() == Some(f.comment()));
        if let (Some(forgery), Some((packets @ 1.., _))) = (forgery, rule.counter) {
            *dropped.entry(forgery).or_default() += packets;
        }
    }
    dropped
}

fn table_name(ifname: &IfName) -> String {
    format!("dockless-guard-{ifname}")
}

fn table(name: &str) -> Table<'_> {
    Table {
        family: Family::Netdev,
        name,
    }
}
