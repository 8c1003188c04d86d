//! All that reads the kernel's messages, for the fuzzer: see `docs/fuzzing.md`.

use std::net::IpAddr;

use super::monitor::{self, Event};
use super::nft::read;
use super::trace::Direction;
use super::wire::{self, Message, Verdict};
use super::{addr, decode, link, neigh, qdisc, route, rule, traffic};
use crate::base::Cidr;
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
    for verdict in [Verdict::of_error(message), Verdict::of_done(message)] {
        assert!(verdict.is_ok_and(|v| v.errno >= 0) || !payload.is_empty());
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
    #[test]
    fn corpus_of_netlink() {
        crate::base::fuzzing::replay("netlink", super::netlink);
    }
}
