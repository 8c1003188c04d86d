//! Messages in words, for the trace: names where this program knows them,
//! numbers and hex where it does not. Never fails; what has no shape is shown
//! as it is.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::names::{
    self, ADDR, LINK, NEIGH, NFT_CHAIN, NFT_ELEMENTS, NFT_GEN, NFT_RULE, NFT_SET, NFT_TABLE, NSID,
    Names, ROUTE, Shape,
};
use super::trace::Direction;
use super::wire::{self, Message};

const FLAGS: [(u16, &str); 6] = [
    (0x1, "REQUEST"),
    (0x2, "MULTI"),
    (0x4, "ACK"),
    (0x8, "ECHO"),
    (0x10, "DUMP_INTR"),
    (0x20, "DUMP_FILTERED"),
];
/// The meaning of these bits depends on the kind of message.
const NEW_FLAGS: [(u16, &str); 4] = [
    (0x100, "REPLACE"),
    (0x200, "EXCL"),
    (0x400, "CREATE"),
    (0x800, "APPEND"),
];
const GET_FLAGS: [(u16, &str); 2] = [(0x100, "ROOT"), (0x200, "MATCH")];
const VERDICT_FLAGS: [(u16, &str); 2] = [(0x100, "CAPPED"), (0x200, "ACK_TLVS")];

/// One message, taken apart.
#[derive(Debug)]
pub(super) struct Decoded {
    direction: Direction,
    protocol: u8,
    name: String,
    flags: String,
    seq: u32,
    len: usize,
    fields: Vec<(String, Node)>,
}

#[derive(Debug)]
enum Node {
    Number(u64),
    Text(String),
    Plain(String),
    Nest(Vec<(String, Node)>),
}

pub(super) fn datagram(direction: Direction, protocol: u8, bytes: &[u8]) -> Vec<Decoded> {
    wire::messages(bytes)
        .map(|message| match message {
            Ok(message) => one(direction, protocol, &message),
            Err(_) => Decoded {
                direction,
                protocol,
                name: "malformed".to_owned(),
                flags: String::new(),
                seq: 0,
                len: bytes.len(),
                fields: vec![("bytes".to_owned(), Node::Plain(hex(bytes)))],
            },
        })
        .collect()
}

fn one(direction: Direction, protocol: u8, message: &Message<'_>) -> Decoded {
    const ROUTE_PROTOCOL: u8 = 0;
    const NETFILTER: u8 = 12;
    let (name, fields) = match (message.kind, protocol) {
        (2, _) => ("ERROR".to_owned(), verdict(message, true)),
        (3, _) => ("DONE".to_owned(), verdict(message, false)),
        (1, _) => ("NOOP".to_owned(), Vec::new()),
        (4, _) => ("OVERRUN".to_owned(), Vec::new()),
        (_, ROUTE_PROTOCOL) => route(message),
        (_, NETFILTER) => nf_tables(message),
        (kind, _) => (
            kind.to_string(),
            vec![("bytes".to_owned(), Node::Plain(hex(message.payload)))],
        ),
    };
    Decoded {
        direction,
        protocol,
        flags: flags(message.flags, &name),
        seq: message.seq,
        len: wire::HEADER_LEN + message.payload.len(),
        name,
        fields,
    }
}

fn flags(bits: u16, message: &str) -> String {
    let special: &[(u16, &str)] = match message {
        "ERROR" | "DONE" => &VERDICT_FLAGS,
        get if get.starts_with("GET") => &GET_FLAGS,
        _ => &NEW_FLAGS,
    };
    let set: Vec<&str> = FLAGS
        .iter()
        .chain(special)
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    set.join("|")
}

fn verdict(message: &Message<'_>, error: bool) -> Vec<(String, Node)> {
    let verdict = if error {
        wire::Verdict::of_error(message)
    } else {
        wire::Verdict::of_done(message)
    };
    let Ok(verdict) = verdict else {
        return vec![("bytes".to_owned(), Node::Plain(hex(message.payload)))];
    };
    let what = match verdict.errno {
        0 => "ok".to_owned(),
        errno => crate::base::error::errno_text(errno),
    };
    let mut fields = vec![("code".to_owned(), Node::Plain(what))];
    fields.extend(verdict.text.map(|t| ("text".to_owned(), Node::Text(t))));
    let offset = verdict.offset.map(|o| Node::Number(u64::from(o)));
    fields.extend(offset.map(|o| ("offset".to_owned(), o)));
    fields
}

/// rtnetlink kinds come in fours (NEW, DEL, GET, SET), each object's from a
/// multiple of four up.
fn route(message: &Message<'_>) -> (String, Vec<(String, Node)>) {
    const OBJECTS: [(u16, &str, usize, Names); 6] = [
        (16, "LINK", 16, LINK),
        (20, "ADDR", 8, ADDR),
        (24, "ROUTE", 12, ROUTE),
        (28, "NEIGH", 12, NEIGH),
        (32, "RULE", 12, &[]),
        (88, "NSID", 4, NSID),
    ];
    const VERBS: [&str; 4] = ["NEW", "DEL", "GET", "SET"];
    let known = OBJECTS
        .iter()
        .find(|(first, ..)| *first == message.kind & !3);
    let Some((_, object, header, names)) = known else {
        return (message.kind.to_string(), Vec::new());
    };
    let name = format!("{}{object}", VERBS[usize::from(message.kind & 3)]);
    let (head, attributes) = message
        .payload
        .split_at_checked(*header)
        .unwrap_or((message.payload, &[]));
    let mut fields = header_fields(object, head);
    fields.extend(nest(attributes, names));
    (name, fields)
}

fn header_fields(object: &str, head: &[u8]) -> Vec<(String, Node)> {
    let number = |at: usize| {
        let bytes = head.get(at..at + 4).unwrap_or_default();
        Node::Number(wire::u32_of(bytes).unwrap_or_default().into())
    };
    let byte = |at: usize| Node::Number(head.get(at).copied().unwrap_or_default().into());
    let named = |fields: Vec<(&str, Node)>| {
        fields
            .into_iter()
            .map(|(name, node)| (name.to_owned(), node))
            .collect()
    };
    match object {
        "LINK" => named(vec![
            ("index", number(4)),
            ("flags", number(8)),
            ("change", number(12)),
        ]),
        "ADDR" => named(vec![
            ("index", number(4)),
            ("prefix", byte(1)),
            ("scope", byte(3)),
        ]),
        "NEIGH" => named(vec![("index", number(4))]),
        "NSID" => Vec::new(),
        _ => named(vec![
            ("family", byte(0)),
            ("prefix", byte(1)),
            ("table", byte(4)),
        ]),
    }
}

fn nf_tables(message: &Message<'_>) -> (String, Vec<(String, Node)>) {
    const KINDS: [(&str, Names); 17] = [
        ("NEWTABLE", NFT_TABLE),
        ("GETTABLE", NFT_TABLE),
        ("DELTABLE", NFT_TABLE),
        ("NEWCHAIN", NFT_CHAIN),
        ("GETCHAIN", NFT_CHAIN),
        ("DELCHAIN", NFT_CHAIN),
        ("NEWRULE", NFT_RULE),
        ("GETRULE", NFT_RULE),
        ("DELRULE", NFT_RULE),
        ("NEWSET", NFT_SET),
        ("GETSET", NFT_SET),
        ("DELSET", NFT_SET),
        ("NEWSETELEM", NFT_ELEMENTS),
        ("GETSETELEM", NFT_ELEMENTS),
        ("DELSETELEM", NFT_ELEMENTS),
        ("NEWGEN", NFT_GEN),
        ("GETGEN", NFT_GEN),
    ];
    let attributes = message.payload.get(4..).unwrap_or_default();
    let (name, names): (&str, Names) = match message.kind {
        0x10 => ("BATCH_BEGIN", &[(1, "GENID", Shape::BigEndian)]),
        0x11 => ("BATCH_END", &[]),
        kind if kind >> 8 == 10 => match KINDS.get(usize::from(kind & 0xff)) {
            Some(known) => *known,
            None => ("NFT", &[]),
        },
        _ => ("NFNL", &[]),
    };
    let family = message.payload.first().copied().unwrap_or_default();
    let mut fields = vec![("family".to_owned(), Node::Number(family.into()))];
    fields.extend(nest(attributes, names));
    (name.to_owned(), fields)
}

fn nest(bytes: &[u8], names: Names) -> Vec<(String, Node)> {
    let names = match (names.first(), wire::find(bytes, 1)) {
        (Some((1, "KIND", _)), Some(kind)) => names::link_info(&wire::text_of(kind)),
        _ => names,
    };
    wire::attrs(bytes)
        .map(|attr| match attr {
            Ok((kind, value)) => match names.iter().find(|(n, ..)| *n == kind) {
                Some((_, name, shape)) => ((*name).to_owned(), node(value, *shape)),
                None => (format!("#{kind}"), Node::Plain(hex(value))),
            },
            Err(_) => ("malformed".to_owned(), Node::Plain(hex(bytes))),
        })
        .collect()
}

fn node(value: &[u8], shape: Shape) -> Node {
    let plain = || Node::Plain(hex(value));
    match shape {
        Shape::Number if cfg!(target_endian = "little") => {
            number(value.iter().rev()).map_or_else(plain, Node::Number)
        }
        Shape::Number | Shape::BigEndian => number(value.iter()).map_or_else(plain, Node::Number),
        Shape::Text => Node::Text(wire::text_of(value)),
        Shape::Address => match (wire::ip_of(value), wire::mac_of(value)) {
            (Ok(ip), _) => Node::Plain(ip.to_string()),
            (_, Some(mac)) => Node::Plain(mac.to_string()),
            _ => plain(),
        },
        Shape::Hex => plain(),
        Shape::Nest(names) => Node::Nest(nest(value, names)),
        Shape::List(names) => Node::Nest(list(value, |element| {
            ("element".to_owned(), Node::Nest(nest(element, names)))
        })),
        Shape::Expr => Node::Nest(list(value, |element| {
            let name = wire::find(element, 1)
                .map(wire::text_of)
                .unwrap_or_default();
            let data = wire::find(element, 2).unwrap_or_default();
            let names = names::expression(&name);
            // A name is printed as it is, and a line stays a line.
            (
                name.escape_debug().to_string(),
                Node::Nest(nest(data, names)),
            )
        })),
    }
}

fn list(bytes: &[u8], one: impl Fn(&[u8]) -> (String, Node)) -> Vec<(String, Node)> {
    wire::attrs(bytes)
        .filter_map(Result::ok)
        .map(|(_, element)| one(element))
        .collect()
}

/// Most significant byte first; little-endian machines pass the bytes reversed.
fn number<'a>(bytes: impl ExactSizeIterator<Item = &'a u8>) -> Option<u64> {
    if bytes.len() > 8 {
        return None;
    }
    Some(bytes.fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("0x");
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl Decoded {
    /// `netlink > route NEWLINK seq 1 len 108 REQUEST|ACK: index 2 IFNAME "eth0"`
    pub(super) fn line(&self) -> String {
        let mut line = format!(
            "netlink {} {} {} seq {} len {}",
            match self.direction {
                Direction::Out => '>',
                Direction::In => '<',
            },
            self.protocol_name(),
            self.name,
            self.seq,
            self.len
        );
        if !self.flags.is_empty() {
            line.push(' ');
            line.push_str(&self.flags);
        }
        line.push(':');
        print(&self.fields, &mut line);
        line
    }

    pub(super) fn json(&self) -> String {
        json!({
            "direction": match self.direction {
                Direction::Out => "out",
                Direction::In => "in",
            },
            "protocol": self.protocol_name(),
            "type": self.name,
            "flags": self.flags,
            "seq": self.seq,
            "len": self.len,
            "fields": fields_json(&self.fields),
        })
        .to_string()
    }

    fn protocol_name(&self) -> &'static str {
        match self.protocol {
            0 => "route",
            12 => "netfilter",
            _ => "other",
        }
    }
}

fn print(fields: &[(String, Node)], line: &mut String) {
    for (name, node) in fields {
        line.push(' ');
        line.push_str(name);
        match node {
            // Writing to a String cannot fail.
            Node::Number(n) => drop(write!(line, " {n}")),
            Node::Text(text) => drop(write!(line, " {text:?}")),
            Node::Plain(text) => drop(write!(line, " {text}")),
            Node::Nest(inner) => {
                line.push_str(" {");
                print(inner, line);
                line.push_str(" }");
            }
        }
    }
}

/// A list of pairs: attributes have an order and may repeat.
fn fields_json(fields: &[(String, Node)]) -> Value {
    fields
        .iter()
        .map(|(name, node)| {
            let value = match node {
                Node::Number(n) => json!(n),
                Node::Text(text) | Node::Plain(text) => json!(text),
                Node::Nest(inner) => fields_json(inner),
            };
            json!([name, value])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::wire::golden::unhex;
    use super::*;

    fn line(direction: Direction, protocol: u8, hex: &str) -> String {
        datagram(direction, protocol, &unhex(hex))[0].line()
    }

    #[test]
    fn a_request_in_words() {
        // ip link add link eth1 name eth0 index 2 … type macvlan mode bridge
        let text = line(
            Direction::Out,
            0,
            "7400000010000506e7d9046b00000000000000000200000000000000000000000a000100
             02420a0002050000080004007805000008000d0000000000080013006c43000008000500
             030000000900030065746830000000001c0012000b0001006d6163766c616e000c000200
             0800010004000000",
        );
        assert_eq!(
            text,
            "netlink > route NEWLINK seq 1795480039 len 116 REQUEST|ACK|EXCL|CREATE: \
             index 2 flags 0 change 0 ADDRESS 02:42:0a:00:02:05 MTU 1400 TXQLEN 0 \
             #19 0x6c430000 LINK 3 IFNAME \"eth0\" \
             LINKINFO { KIND \"macvlan\" DATA { MODE 4 } }"
        );
    }

    #[test]
    fn a_refusal_in_words() {
        let text = line(
            Direction::In,
            0,
            "6000000002000002e9d9046bc94400009bffffff2c00000018000506e9d9046b00000000
             02000000070300010000000008000500c0000201080004000200000020000100
             4e657874686f702068617320696e76616c6964206761746577617900",
        );
        assert_eq!(
            text,
            "netlink < route ERROR seq 1795480041 len 96 ACK_TLVS: code network is unreachable \
             text \"Nexthop has invalid gateway\""
        );
    }

    #[test]
    fn an_expression_with_a_strange_name_makes_no_line_of_its_own() {
        let mut bytes = unhex(include_str!("captures/nft-rule.hex"));
        let name = bytes.windows(7).position(|w| w == b"payload").unwrap();
        bytes[name..name + 5].copy_from_slice(b"\n\x1b[1m");
        let line = datagram(Direction::In, 12, &bytes)[0].line();
        assert!(line.contains("\\n\\u{1b}[1mad {"), "{line}");
    }

    #[test]
    fn a_rule_in_words_and_json() {
        let bytes = unhex(include_str!("captures/nft-rule.hex"));
        let rule = &datagram(Direction::Out, 12, &bytes)[0];
        let line = rule.line();
        assert!(line.contains("NEWRULE"), "{line}");
        assert!(
            line.contains("lookup { SREG 1 DREG 1 SET \"mac\" }"),
            "{line}"
        );
        assert!(line.contains("counter { }"), "{line}");
        let json: Value = serde_json::from_str(&rule.json()).unwrap();
        assert_eq!(json["fields"][1], json!(["TABLE", "pub"]));
    }
}
