//! All that reads the kernel's messages, for the fuzzer: see `docs/fuzzing.md`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLMSG_DONE, NLMSG_ERROR};

use super::monitor::{self, Event};
use super::nft::read;
use super::socket::{Channel, Line};
use super::trace::Direction;
use super::wire::{self, Message, Verdict};
use super::{addr, decode, link, neigh, nl80211, qdisc, route, rule, traffic};
use crate::base::Cidr;
use crate::base::fuzzing::Input;
use crate::sys::netns::Host;

/// The first byte says which protocol, the rest is a datagram.
pub fn netlink(bytes: &[u8]) {
    let Some((first, datagram)) = bytes.split_first() else {
        return;
    };
    for message in wire::messages(datagram) {
        let Ok(message) = message else {
            break;
        };
        assert!(message.payload.len() + wire::HEADER_LEN <= datagram.len());
        check_message(&message);
    }
    let protocol = [0, 12, 15][usize::from(first % 3)];
    let direction = if first & 0x80 == 0 {
        Direction::In
    } else {
        Direction::Out
    };
    let mut length = 0;
    for decoded in decode::datagram(direction, protocol, datagram) {
        let line = decoded.line();
        assert!(!line.contains(char::is_control), "{line:?}");
        length += line.len();
        let json = decoded.json();
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert!(value.is_object());
    }
    assert!(
        length <= 200 + 100 * datagram.len(),
        "{length} bytes of text"
    );
}

/// Whatever kind it says it is: each reader sees it.
fn check_message(message: &Message<'_>) {
    let payload = message.payload;
    let (error, done) = (Verdict::of_error(message), Verdict::of_done(message));
    assert!(
        payload.len() >= 4 || error.is_err(),
        "a code out of nowhere"
    );
    for verdict in [error, done].into_iter().flatten() {
        assert!(verdict.errno >= 0);
    }
    if let Ok(link) = link::parse::<Host>(payload, 0) {
        let name = link.name.as_str();
        assert!(!name.is_empty() && name.len() < 16 && !name.contains('/'));
        let event = link::event(payload, false).ok().flatten();
        assert!(matches!(event, Some(Event::Link { index, .. }) if index == link.index.get()));
    }
    if let Ok(address) = addr::parse(payload) {
        check_cidr(address.cidr);
    }
    if let Ok(Some(route)) = route::parse(payload) {
        route.dst.into_iter().for_each(check_cidr);
    }
    if let Ok(Some(rule)) = rule::parse(payload) {
        rule.src.into_iter().chain(rule.dst).for_each(check_cidr);
    }
    let _ = (neigh::parse(payload), traffic::parse(payload));
    let _ = (qdisc::drops(payload), read::chain(payload));
    let _ = (nl80211::family(payload), nl80211::parse(payload));
    let _ = (read::rule(payload), read::handle(message));
    let attributes = payload.get(4..).unwrap_or_default();
    if let Ok(elements) = read::elements(wire::find(attributes, 3).unwrap_or_default()) {
        let bytes: usize = elements.iter().map(|element| element.key.len()).sum();
        assert!(bytes <= payload.len());
    }
    if let Ok(Some(Event::Advertised { option, .. })) = monitor::event(message) {
        assert!(option.len() <= payload.len());
    }
}

/// What one receive gives: whether the kernel sent it, and the datagram; or an
/// errno.
type Received = Result<(bool, Vec<u8>), i32>;

/// A socket that receives this and then nothing any more.
#[derive(Debug, Default)]
struct Script {
    received: RefCell<VecDeque<Received>>,
    /// What has come from the kernel.
    heard: RefCell<Vec<Vec<u8>>>,
    sent: Cell<u32>,
}

impl Line for &Script {
    fn send(&self, datagram: &[u8]) -> Result<(), i32> {
        assert!(!datagram.is_empty());
        self.sent.set(self.sent.get() + 1);
        Ok(())
    }

    fn receive(&self, buffer: &mut Vec<u8>) -> Result<bool, i32> {
        let next = self.received.borrow_mut().pop_front();
        let (is_kernel, datagram) = next.unwrap_or(Err(libc::EAGAIN))?;
        buffer.clone_from(&datagram);
        if is_kernel {
            self.heard.borrow_mut().push(datagram);
        }
        Ok(is_kernel)
    }
}

/// Bodies of requests say nothing to a script.
struct Nothing;

impl netlink_packet_core::Emitable for Nothing {
    fn buffer_len(&self) -> usize {
        0
    }

    fn emit(&self, _: &mut [u8]) {}
}

/// How requests end that are answered so: the first byte says what kind they
/// are, the second how many; the first number is 1.
pub fn exchange(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (how, count) = (input.byte(), u32::from(input.byte() % 4) + 1);
    let mut received = VecDeque::new();
    while !input.is_empty() {
        received.push_back(match input.byte() {
            0 => Err(libc::EINTR),
            1 => Err(libc::ENOBUFS),
            2 => Err(libc::EMSGSIZE),
            3 => Ok((false, input.part().to_vec())),
            _ => Ok((true, input.part().to_vec())),
        });
    }
    let told = outcome(how, count, &received);
    // What others send, and an interruption, count for nothing.
    received.retain(|r| !matches!(r, Err(libc::EINTR) | Ok((false, _))));
    assert_eq!(told, outcome(how, count, &received));
}

/// As text.
fn outcome(how: u8, count: u32, received: &VecDeque<Received>) -> String {
    let script = Script::default();
    script.received.replace(received.clone());
    let mut channel = Channel::over(&script, 0);
    let (told, last) = match how & 3 {
        0 => {
            let found = channel.dump(16, &Nothing, |payload| Ok(Some(payload.to_vec())));
            let tries = script.sent.get();
            assert!((1..=8).contains(&tries), "{tries}");
            (format!("{found:?}"), tries)
        }
        kind => (requests(&mut channel, &script, kind == 1, count), count),
    };
    check_step(&mut channel, &script, last);
    told
}

fn requests(channel: &mut Channel<&Script>, script: &Script, is_batch: bool, count: u32) -> String {
    channel.begin();
    for number in 1..=count {
        let flags = if number == count { NLM_F_ACK } else { 0 };
        channel.push(16, flags, &Nothing);
    }
    let mut seen = Vec::new();
    let ended = channel.exchange(is_batch, |message| {
        assert!((1..=count).contains(&message.seq), "another exchange's");
        seen.push((message.kind, message.payload.to_vec()));
        wire::u32_of(message.payload).map(drop)
    });
    match &ended {
        Ok(_) => {
            let heard = script.heard.borrow();
            let mut messages = heard.iter().flat_map(|d| wire::messages(d)).flatten();
            let is_end =
                |m: Message<'_>| m.seq == count && matches!(m.kind, NLMSG_ERROR | NLMSG_DONE);
            assert!(messages.any(is_end), "nothing has ended it");
        }
        Err(fault) => assert!(fault.request < count as usize),
    }
    format!("{ended:?} {seen:?}")
}

/// However it ended: the next request is answered by its own answer, not by
/// what is still under way to those up to `last`.
fn check_step(channel: &mut Channel<&Script>, script: &Script, last: u32) {
    // `struct nlmsghdr` and `struct nlmsgerr`, of a header of 16 bytes.
    let verdict = |seq: u32, code: i32| {
        let words = [
            36,
            NLMSG_ERROR.into(),
            seq,
            0,
            code.cast_unsigned(),
            16,
            0,
            0,
            0,
        ];
        Ok((true, words.into_iter().flat_map(u32::to_ne_bytes).collect()))
    };
    let late = (1..=last).map(|seq| verdict(seq, -libc::EPERM));
    let received = late.chain([verdict(last + 1, 0)]).collect();
    script.received.replace(received);
    let ended = channel.request(16, 0, &Nothing);
    assert!(ended.is_ok(), "{ended:?}");
}

fn check_cidr(cidr: Cidr) {
    let most = match cidr.addr() {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    assert!(cidr.prefix() <= most, "{cidr}");
    assert_eq!(cidr.to_string().parse(), Ok(cidr));
}

#[cfg(test)]
mod tests {
    use crate::base::fuzzing::replay;

    #[test]
    fn corpus_of_netlink() {
        replay("netlink", super::netlink);
    }

    #[test]
    fn corpus_of_netlink_exchange() {
        replay("netlink_exchange", super::exchange);
    }
}
