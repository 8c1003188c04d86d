//! The stateless fast path in the parent's netdev hooks.
//!
//! *Theory of operation.* `rules.rs` says what the rules do, `plan.rs` what
//! belongs into the maps; here the kernel is brought to it. Every change is
//! one transaction that reads the table first: what is there and not wanted
//! goes, what is wanted and not there comes, in one batch that the kernel
//! refuses if the ruleset has changed since the reading. So the same code
//! makes the table, follows a changed address, finds what a dead supervisor
//! left, and mends a table that somebody flushed.
//!
//! | step | before it |
//! |---|---|
//! | choose a block of aliases | the addresses in the set `inside` were read |
//! | record the undo step | the block is chosen |
//! | aliases onto the container's loopback | the step is recorded |
//! | elements into the maps | the aliases can answer |
//!
//! If the batch comes too late, the block may be somebody else's by now; then
//! all four steps are done again with another one, and the first step recorded
//! undoes nothing that is not ours (it names our ports).

use std::net::{IpAddr, Ipv4Addr};

use super::plan::{self, Block, Elements, Forward, Map, Parent, Slots};
use super::{Target, rules};
use crate::base::{Cidr, Error, IfName, Journal, MacAddr, PortMap, Result, Step};
use crate::netlink::nft::{Batch, Element, Nft, Table, TableInfo};
use crate::netlink::{Ifindex, Rtnl};
use crate::sys::netns::{Host, Netns, Place, Sandbox};
use crate::sys::sysctl::{Family, NetSysctl};

/// RT_SCOPE_HOST: such an address is never on the LAN.
const SCOPE_HOST: u8 = 254;

#[derive(Debug)]
pub(super) struct FastPath {
    parent: IfName,
    mac: MacAddr,
    ip: Ipv4Addr,
    reach: Option<Cidr>,
    ports: Vec<PortMap>,
    block: Block,
    slots: Slots,
    /// How many aliases the container's loopback has.
    answering: usize,
    /// The parent as it was when the maps were last brought to it.
    seen: Parent,
    /// By port: is it in the maps?
    served: Vec<bool>,
}

impl FastPath {
    /// Makes it. `None` (unless the journal failed): this machine cannot, and
    /// nothing is left. An error: something is, which the journal names.
    pub(super) fn install(
        parent: &IfName,
        target: &Target,
        ports: &[PortMap],
        host: &mut Rtnl<Host>,
        netns: &Netns<Sandbox>,
        journal: &mut dyn Journal,
    ) -> Result<Option<Self>> {
        let mut begun = None;
        let made = Self::begin(parent, target, ports, host, netns, journal, &mut begun);
        match (begun, made) {
            (Some(this), Ok(())) => Ok(Some(this)),
            // It may be just the kernel's answer that was lost.
            (Some(this), Err(_)) => this.remove(netns).map(|_| None),
            (None, _) => Ok(None),
        }
    }

    fn begin(
        parent: &IfName,
        target: &Target,
        ports: &[PortMap],
        host: &mut Rtnl<Host>,
        netns: &Netns<Sandbox>,
        journal: &mut dyn Journal,
        this: &mut Option<Self>,
    ) -> Result<()> {
        prepare(netns)?;
        let seen = look(host, parent, target.reach)?
            .ok_or_else(|| Error::sys("publish on", parent.as_str(), libc::ENODEV))?;
        let mut nft = Nft::host()?;
        let mut sandbox = Rtnl::sandbox(netns)?;
        let name = rules::table_name(parent);
        let table = rules::table(&name);
        nft.transact(|nft| {
            let is = Current::read(nft, table)?;
            let claims = is.elements.claims();
            let taken = |this: &Self| claims.iter().any(|claim| this.block.contains(*claim));
            if this.as_ref().is_none_or(taken) {
                let block = Block::free(&claims, target.ip).ok_or_else(|| {
                    Error::state("publish on", parent.as_str(), "no alias address is left")
                })?;
                if let Some(mut before) = this.take() {
                    before.silence(&mut sandbox)?;
                }
                journal.record(&step(parent, block, target.ip, ports))?;
                *this = Some(Self {
                    parent: parent.clone(),
                    mac: target.mac,
                    ip: target.ip,
                    reach: target.reach,
                    ports: ports.to_vec(),
                    block,
                    slots: Slots::default(),
                    answering: 0,
                    seen: seen.clone(),
                    served: Vec::new(),
                });
            }
            match this {
                Some(this) => this.bring(&is, table, &[], &mut sandbox),
                None => Ok(Batch::new()),
            }
        })
        .map(drop)
    }

    /// Brings the maps to what the host's addresses and the deaf ports ask
    /// for. `force`: also where the parent looks as before.
    pub(super) fn follow(
        &mut self,
        netns: &Netns<Sandbox>,
        deaf: &[bool],
        force: bool,
    ) -> Result<()> {
        // A parent that is gone has taken the container's link along.
        let now = look(&mut Rtnl::host()?, &self.parent, self.reach)?.unwrap_or(Parent {
            addrs: Vec::new(),
            ..self.seen.clone()
        });
        if now == self.seen && !force {
            return Ok(());
        }
        self.seen = now;
        let name = rules::table_name(&self.parent);
        let table = rules::table(&name);
        let mut sandbox = Rtnl::sandbox(netns)?;
        let outcome = Nft::host()?.transact(|nft| {
            let is = Current::read(nft, table)?;
            // Somebody flushed the ruleset, and somebody else came first.
            let foreign = is.elements.foreign(&self.ports);
            if foreign.iter().any(|alias| self.block.contains(*alias)) {
                let text = "its aliases are another container's now";
                return Err(Error::state("publish on", self.parent.as_str(), text));
            }
            self.bring(&is, table, deaf, &mut sandbox)
        });
        if outcome.is_err() {
            self.served.clear();
        }
        outcome.map(drop)
    }

    /// The index that events about the parent carry.
    pub(super) fn index(&self) -> u32 {
        self.seen.index
    }

    pub(super) fn parent(&self) -> &IfName {
        &self.parent
    }

    /// Where the container answers, with its MAC, and its whole block.
    pub(super) fn aliases(&self) -> Option<(&IfName, MacAddr, Cidr)> {
        let block = self.block.cidr().ok()?;
        Some((&self.parent, self.mac, block))
    }

    pub(super) fn serves(&self, port: usize) -> bool {
        self.served.get(port).copied().unwrap_or_default()
    }

    /// Returns the socket whose closing takes a while, see [`remove`].
    pub(super) fn remove(mut self, netns: &Netns<Sandbox>) -> Result<Option<Nft<Host>>> {
        let removed = remove(&self.parent, &self.addrs(), &self.ports);
        Rtnl::sandbox(netns)
            .and_then(|mut sandbox| self.silence(&mut sandbox))
            .and(removed)
    }

    /// All that stand for the container.
    fn addrs(&self) -> Vec<Ipv4Addr> {
        self.block.all().chain([self.ip]).collect()
    }

    /// The batch that makes the table right; the aliases answer before it is
    /// sent.
    fn bring(
        &mut self,
        is: &Current,
        table: Table<'_>,
        deaf: &[bool],
        sandbox: &mut Rtnl<Sandbox>,
    ) -> Result<Batch> {
        let forwards = plan::forwards(&self.ports, deaf, &self.seen.addrs, &mut self.slots);
        let wanted = Elements::wanted(&forwards, &self.seen, self.mac, self.ip, self.block);
        self.answer(sandbox)?;
        self.served = served(&self.ports, &forwards);
        let mut batch = Batch::new();
        let nothing = Elements::default();
        let there = if is.intact {
            &is.elements
        } else {
            if is.exists {
                batch.delete_table(table);
            }
            rules::create(&mut batch, table, &self.parent);
            &nothing
        };
        let (delete, add) = there.change(&wanted, &self.addrs());
        change(&mut batch, table, &delete, Batch::delete_elements);
        change(&mut batch, table, &add, Batch::create_elements);
        Ok(batch)
    }

    /// Puts the aliases in use onto the container's loopback link.
    fn answer(&mut self, sandbox: &mut Rtnl<Sandbox>) -> Result<()> {
        if self.answering >= self.slots.len() {
            return Ok(());
        }
        let lo = loopback(sandbox)?;
        while self.answering < self.slots.len() {
            if let Some(alias) = self.block.nth(self.answering) {
                sandbox.add_addr(lo, single(alias)?)?;
            }
            self.answering += 1;
        }
        Ok(())
    }

    fn silence(&mut self, sandbox: &mut Rtnl<Sandbox>) -> Result<()> {
        let lo = loopback(sandbox)?;
        for alias in self.block.all().take(std::mem::take(&mut self.answering)) {
            sandbox.del_addr(lo, single(alias)?)?;
        }
        Ok(())
    }
}

/// What a container's network needs so that its aliases stay its own business.
fn prepare(netns: &Netns<Sandbox>) -> Result<()> {
    let sysctl = netns.run(NetSysctl::open)?;
    for (name, value) in [
        // Asked on the wire is in the name of the interface's own address …
        ("conf/all/arp_announce", "2"),
        // … and for an alias nobody gets an answer.
        ("conf/all/arp_ignore", "1"),
        // For networks that drop ICMP.
        ("tcp_mtu_probing", "1"),
    ] {
        sysctl.write(Family::Ipv4, name, value)?;
    }
    Ok(())
}

/// The parent as it is, with those addresses whose clients the container can
/// answer.
fn look(host: &mut Rtnl<Host>, parent: &IfName, reach: Option<Cidr>) -> Result<Option<Parent>> {
    let Some(link) = host.link(parent.as_str())? else {
        return Ok(None);
    };
    let mac = link
        .mac
        .ok_or_else(|| Error::state("publish on", parent.as_str(), "it is not an Ethernet link"))?;
    let mut addrs = Vec::new();
    for address in host.addrs(Some(link.index))? {
        if let IpAddr::V4(ip) = address.cidr.addr()
            && address.scope != SCOPE_HOST
            && reach.is_none_or(|net| net.contains(ip.into()))
        {
            addrs.push(ip);
        }
    }
    Ok(Some(Parent {
        index: link.index.get(),
        mac,
        addrs,
    }))
}

fn loopback(sandbox: &mut Rtnl<Sandbox>) -> Result<Ifindex<Sandbox>> {
    sandbox
        .link("lo")?
        .map(|lo| lo.index)
        .ok_or_else(|| Error::sys("find link", "lo", libc::ENODEV))
}

fn single(alias: Ipv4Addr) -> Result<Cidr> {
    Cidr::new(alias.into(), 32)
}

fn served(ports: &[PortMap], forwards: &[Forward]) -> Vec<bool> {
    (0..ports.len())
        .map(|at| forwards.iter().any(|forward| forward.port == at))
        .collect()
}

fn step(parent: &IfName, block: Block, ip: Ipv4Addr, ports: &[PortMap]) -> Step {
    Step::Unpublish {
        parent: parent.clone(),
        aliases: block.all().chain([ip]).map(IpAddr::V4).collect(),
        ports: ports.to_vec(),
    }
}

/// The table as it is.
#[derive(Debug, Default)]
struct Current {
    exists: bool,
    /// It has its chains: they go with the parent they were hooked into.
    intact: bool,
    elements: Elements,
}

impl Current {
    fn read<P: Place>(nft: &mut Nft<P>, table: Table<'_>) -> Result<Self> {
        let same = |t: &TableInfo| (t.family, t.name.as_str()) == (table.family, table.name);
        if !nft.tables()?.iter().any(same) {
            return Ok(Self::default());
        }
        let elements = Elements::read(|name| match nft.elements(table, name) {
            Ok(elements) => Ok(elements
                .into_iter()
                .map(|e| (e.key, e.data.unwrap_or_default()))
                .collect()),
            // Somebody was faster, and the generation will tell.
            Err(e) if e.is_errno(libc::ENOENT) => Ok(Map::new()),
            Err(e) => Err(e),
        })?;
        Ok(Self {
            exists: true,
            intact: rules::are_hooked(&nft.chains(table)?),
            elements,
        })
    }
}

/// Adds or deletes elements.
fn change(
    batch: &mut Batch,
    table: Table<'_>,
    elements: &Elements,
    how: fn(&mut Batch, Table<'_>, &str, &[Element]),
) {
    for (name, map) in elements.iter() {
        let list: Vec<Element> = map
            .iter()
            .map(|(key, value)| Element {
                key: key.clone(),
                data: (!value.is_empty()).then(|| value.clone()),
            })
            .collect();
        how(batch, table, name, &list);
    }
}

/// Takes what stands for `addrs` out of the parent's maps, and the table with
/// the last of it. Nothing there is fine, also a kernel without nf_tables.
/// Returns the socket that it was asked for with: closing it waits until the
/// kernel has freed what was deleted, an RCU grace period (15 ms; seen on Linux
/// 6.18, nf_tables_api.c, `nft_rcv_nl_event`).
pub(super) fn remove(
    parent: &IfName,
    addrs: &[Ipv4Addr],
    ports: &[PortMap],
) -> Result<Option<Nft<Host>>> {
    let name = rules::table_name(parent);
    let table = rules::table(&name);
    let removed = Nft::host().and_then(|mut nft| {
        nft.transact(|nft| {
            let mut batch = Batch::new();
            let is = Current::read(nft, table)?;
            let ours = is.elements.of_ports(addrs, ports);
            if is.exists && ours.claims() == is.elements.claims() {
                batch.delete_table(table);
            } else {
                change(&mut batch, table, &ours, Batch::delete_elements);
            }
            Ok(batch)
        })?;
        Ok(Some(nft))
    });
    match removed {
        Err(e) if cannot_be(&e) => Ok(None),
        other => other,
    }
}

/// A kernel that has no nf_tables has none of our tables.
fn cannot_be(error: &Error) -> bool {
    const WITHOUT: [i32; 4] = [
        libc::EPROTONOSUPPORT,
        libc::EOPNOTSUPP,
        libc::EAFNOSUPPORT,
        // nfnetlink is there, nf_tables is not.
        libc::EINVAL,
    ];
    error.errno().is_some_and(|errno| WITHOUT.contains(&errno))
}
