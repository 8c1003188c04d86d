//! Queueing disciplines: a token bucket filter at a link's root.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};

use super::link::Ifindex;
use super::socket::Rtnl;
use super::wire::{self, Malformed};
use crate::base::{Result, Subject};
use crate::sys::netns::Place;

/// sch_tbf's parameters, all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tbf {
    /// A second.
    pub rate: u64,
    /// What may leave at once; a frame larger than that never does.
    pub burst: u32,
    /// What may wait.
    pub limit: u32,
}

const TCA_KIND: u16 = 1;
const TCA_STATS2: u16 = 7;
const TCA_STATS_QUEUE: u16 = 3;
const TBF: &str = "tbf";

impl Tbf {
    /// `struct tc_tbf_qopt` and what does not fit into it.
    fn options(self) -> Vec<TcOption> {
        const TCA_TBF_PARMS: u16 = 1;
        const TCA_TBF_RATE64: u16 = 4;
        const TCA_TBF_BURST: u16 = 6;
        /// No rate table then (1 KiB): the kernel computes.
        const TC_LINKLAYER_ETHERNET: u8 = 1;
        let short = u32::try_from(self.rate).unwrap_or(u32::MAX);
        let mut parms = vec![0, TC_LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
        parms.extend(short.to_ne_bytes());
        // No peak rate.
        parms.extend([0; 12]);
        parms.extend(self.limit.to_ne_bytes());
        parms.extend(self.ticks().to_ne_bytes());
        parms.extend([0; 4]);
        let other = |kind, value| TcOption::Other(DefaultNla::new(kind, value));
        let mut options = vec![
            other(TCA_TBF_PARMS, parms),
            other(TCA_TBF_BURST, self.burst.to_ne_bytes().to_vec()),
        ];
        if u64::from(short) != self.rate {
            let rate = self.rate.to_ne_bytes().to_vec();
            options.push(other(TCA_TBF_RATE64, rate));
        }
        options
    }

    /// The burst as time, in units of 64 ns (PSCHED_SHIFT).
    fn ticks(self) -> u32 {
        let ns = u64::from(self.burst) * 1_000_000_000 / self.rate.max(1);
        u32::try_from(ns >> 6).unwrap_or(u32::MAX)
    }
}

fn message(index: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(index).unwrap_or_default();
    message.header.parent = TcHandle::ROOT;
    message
}

impl<P: Place> Rtnl<P> {
    /// At the link's root, instead of whatever is there.
    pub fn set_tbf(&mut self, index: Ifindex<P>, tbf: Tbf) -> Result<()> {
        let mut new = message(self.own(index)?);
        new.attributes = vec![
            TcAttribute::Kind(TBF.to_owned()),
            TcAttribute::Options(tbf.options()),
        ];
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        let outcome = self.channel.request(libc::RTM_NEWQDISC, flags, &new);
        outcome.map_err(|fault| {
            let missing = fault.errno() == libc::ENOENT;
            let error = fault.named("limit the rate of link", self.label(index));
            match missing {
                true => error.hint("this kernel lacks the qdisc tbf: try \"modprobe sch_tbf\""),
                false => error,
            }
        })
    }

    /// Back to no queue; one that is not there is fine.
    pub fn delete_tbf(&mut self, index: Ifindex<P>) -> Result<()> {
        let old = message(self.own(index)?);
        match self.channel.request(libc::RTM_DELQDISC, 0, &old) {
            Err(fault) if !matches!(fault.errno(), libc::ENOENT | libc::EINVAL) => {
                Err(fault.named("stop limiting the rate of link", self.label(index)))
            }
            _ => Ok(()),
        }
    }

    /// What each link's tbf has dropped, by the link's index.
    pub fn tbf_drops(&mut self) -> Result<Vec<(u32, u64)>> {
        self.channel
            .dump(libc::RTM_GETQDISC, &TcMessage::default(), drops)
            .map_err(|fault| fault.named("list queueing disciplines", Subject::None))
    }
}

/// `struct tcmsg` is 20 bytes long, the index at 4.
pub(super) fn drops(payload: &[u8]) -> Result<Option<(u32, u64)>, Malformed> {
    let index = wire::u32_of(payload.get(4..).unwrap_or_default())?;
    let attributes = payload.get(20..).unwrap_or_default();
    let kind = wire::find(attributes, TCA_KIND).map(wire::text_of);
    let stats = wire::find(attributes, TCA_STATS2).unwrap_or_default();
    let queue = wire::find(stats, TCA_STATS_QUEUE).filter(|_| kind.as_deref() == Some(TBF));
    // `struct gnet_stats_queue`: length, backlog, drops.
    let dropped = |queue: &[u8]| wire::u32_of(queue.get(8..).unwrap_or_default());
    let dropped = queue.map(dropped).transpose()?;
    Ok(dropped.map(|count| (index, u64::from(count))))
}
