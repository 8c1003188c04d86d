//! nf_tables messages against a real kernel, judged by nft: our rules must
//! read exactly as the same rules made by nft itself, and do the same.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::slice;
use std::time::Duration;

use dockless::base::IfName;
use dockless::lab::Lab;
use dockless::netlink::nft::{
    Batch, Chain, Checksum, Cmp, Element, Expr, Family, Field, Header, Hook, Meta, Nft, Reg, Set,
    Table, Type, Verdict, concat,
};
use dockless::sys::netns::{Netns, Sandbox};
use serde_json::Value;

use crate::harness::Test;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(rules_read_as_nfts_own).needs(&["nft"]),
        Test::new(batch_is_all_or_nothing).needs(&["nft"]),
        Test::new(elements_and_dumps),
        Test::new(many_elements),
        Test::new(generation_is_checked),
        Test::new(handles_are_echoed),
        Test::new(errors_name_the_object),
        Test::new(rewrites_packets),
    ]
}

const PUB: Table<'static> = Table {
    family: Family::Netdev,
    name: "pub",
};
const R0: Reg = Reg::word(0);
const R1: Reg = Reg::word(1);

/// t6.sh's table, and one expression of each other kind.
const AS_NFT: &str = r#"
table netdev pub {
 map ip4 { type inet_service : ipv4_addr; elements = { 8888 : 169.254.77.11 } }
 map mac { type inet_service : ether_addr; elements = { 8888 : 02:42:0a:00:02:05 } }
 map back { type ipv4_addr . inet_service : inet_service; elements = { 169.254.77.11 . 5201 : 8888 } }
 map flows { type ipv4_addr . inet_service : ipv4_addr; size 1024; flags dynamic,timeout; timeout 2m; }
 set peers { type ipv4_addr; elements = { 10.0.2.5, 10.0.2.6 } }
 chain aside { }
 chain in { type filter hook ingress device "eth1" priority -300; policy accept;
  ip daddr 10.0.2.4 ether daddr set tcp dport map @mac ip daddr set tcp dport map @ip4 tcp dport set 5201 counter comment "in tcp"
  ether type arp arp saddr ip != @peers drop
  ip frag-off & 0x1fff != 0 jump aside
 }
 chain out { type filter hook egress device "eth1" priority 0; policy accept;
  ip saddr 169.254.0.0/16 tcp sport set ip saddr . tcp sport map @back ip saddr set 10.0.2.4 counter
  meta mark set 7 accept
  update @flows { ip daddr . udp dport timeout 90s : ip saddr }
 }
}
"#;

fn load(key: Field, into: Reg) -> Expr {
    Expr::Load { field: key, into }
}

fn equal(reg: Reg, value: &[u8]) -> Expr {
    Expr::Cmp {
        reg,
        op: Cmp::Eq,
        value: value.to_vec(),
    }
}

fn meta_is(key: Meta, value: &[u8]) -> [Expr; 2] {
    [Expr::Meta { key, into: R0 }, equal(R0, value)]
}

fn find(set: &str, into: Option<Reg>) -> Expr {
    Expr::Lookup {
        set: set.to_owned(),
        key: R0,
        into,
        invert: false,
    }
}

fn store(field: Field, checksum: Checksum) -> Expr {
    Expr::Store {
        field,
        from: R0,
        checksum,
    }
}

fn ours() -> Batch {
    const TCP: &[u8] = &[6];
    const IP: &[u8] = &[8, 0];
    const ARP: &[u8] = &[8, 6];
    // Link types are in the machine's order.
    let ethernet = 1_u16.to_ne_bytes();
    let mut batch = Batch::new();
    let eth1 = IfName::new("eth1").unwrap();
    batch.add_table(PUB);
    let map = |name, key, data| Set { name, key, data };
    batch.add_set(
        PUB,
        &map("ip4", &[Type::InetService], Some(&[Type::Ipv4Addr])),
    );
    batch.add_set(
        PUB,
        &map("mac", &[Type::InetService], Some(&[Type::EtherAddr])),
    );
    let flow = &[Type::Ipv4Addr, Type::InetService];
    batch.add_set(PUB, &map("back", flow, Some(&[Type::InetService])));
    batch.add_dynamic_set(
        PUB,
        &map("flows", flow, Some(&[Type::Ipv4Addr])),
        Duration::from_secs(120),
        1024,
    );
    batch.add_set(PUB, &map("peers", &[Type::Ipv4Addr], None));
    let element = |key: &[u8], data: Option<&[u8]>| Element {
        key: key.to_vec(),
        data: data.map(<[u8]>::to_vec),
    };
    let port = 8888_u16.to_be_bytes();
    batch.add_elements(PUB, "ip4", &[element(&port, Some(&[169, 254, 77, 11]))]);
    batch.add_elements(PUB, "mac", &[element(&port, Some(&[2, 0x42, 10, 0, 2, 5]))]);
    let key = concat(&[&[169, 254, 77, 11], &5201_u16.to_be_bytes()]);
    batch.add_elements(PUB, "back", &[element(&key, Some(&port))]);
    let peers = [element(&[10, 0, 2, 5], None), element(&[10, 0, 2, 6], None)];
    batch.add_elements(PUB, "peers", &peers);

    let ingress = Hook::Ingress {
        device: &eth1,
        priority: -300,
    };
    let egress = Hook::Egress {
        device: &eth1,
        priority: 0,
    };
    batch.add_chain(
        PUB,
        &Chain {
            name: "aside",
            hook: None,
        },
    );
    batch.add_chain(
        PUB,
        &Chain {
            name: "in",
            hook: Some(ingress),
        },
    );
    batch.add_chain(
        PUB,
        &Chain {
            name: "out",
            hook: Some(egress),
        },
    );

    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::Protocol, IP));
    rule.push(load(Field::IP4_DADDR, R0));
    rule.push(equal(R0, &[10, 0, 2, 4]));
    rule.extend(meta_is(Meta::IifType, &ethernet));
    rule.extend(meta_is(Meta::L4Proto, TCP));
    rule.push(load(Field::DPORT, R0));
    rule.push(find("mac", Some(R0)));
    rule.push(store(Field::ETHER_DADDR, Checksum::None));
    rule.push(load(Field::DPORT, R0));
    rule.push(find("ip4", Some(R0)));
    rule.push(store(Field::IP4_DADDR, Checksum::IP4_ADDR));
    rule.push(Expr::Immediate {
        into: R0,
        value: 5201_u16.to_be_bytes().to_vec(),
    });
    rule.push(store(Field::DPORT, Checksum::TCP));
    rule.push(Expr::Counter);
    batch.add_rule(PUB, "in", &rule, Some("in tcp"));

    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::IifType, &ethernet));
    let ethertype = Field {
        header: Header::Link,
        offset: 12,
        len: 2,
    };
    rule.push(load(ethertype, R0));
    rule.push(equal(R0, ARP));
    rule.push(load(Field::ARP_SADDR_IP, R0));
    rule.push(Expr::Lookup {
        set: "peers".into(),
        key: R0,
        into: None,
        invert: true,
    });
    rule.push(Expr::Verdict(Verdict::Drop));
    batch.add_rule(PUB, "in", &rule, None);

    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::Protocol, IP));
    rule.push(load(Field::IP4_FRAGMENT, R0));
    rule.push(Expr::Bitwise {
        from: R0,
        into: R0,
        mask: vec![0x1f, 0xff],
        xor: vec![0, 0],
    });
    rule.push(Expr::Cmp {
        reg: R0,
        op: Cmp::Neq,
        value: vec![0, 0],
    });
    rule.push(Expr::Verdict(Verdict::Jump("aside".into())));
    batch.add_rule(PUB, "in", &rule, None);

    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::Protocol, IP));
    rule.push(load(
        Field {
            len: 2,
            ..Field::IP4_SADDR
        },
        R0,
    ));
    rule.push(equal(R0, &[169, 254]));
    rule.extend(meta_is(Meta::L4Proto, TCP));
    rule.push(load(Field::IP4_SADDR, R0));
    rule.push(load(Field::SPORT, R1));
    rule.push(find("back", Some(R0)));
    rule.push(store(Field::SPORT, Checksum::TCP));
    rule.push(Expr::Immediate {
        into: R0,
        value: vec![10, 0, 2, 4],
    });
    rule.push(store(Field::IP4_SADDR, Checksum::IP4_ADDR));
    rule.push(Expr::Counter);
    batch.add_rule(PUB, "out", &rule, None);

    let mark = Expr::Immediate {
        into: R0,
        value: 7_u32.to_ne_bytes().to_vec(),
    };
    let set_mark = Expr::SetMeta {
        key: Meta::Mark,
        from: R0,
    };
    batch.add_rule(
        PUB,
        "out",
        &[mark, set_mark, Expr::Verdict(Verdict::Accept)],
        None,
    );

    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::Protocol, IP));
    rule.extend(meta_is(Meta::L4Proto, &[17]));
    rule.push(load(Field::IP4_DADDR, R0));
    rule.push(load(Field::DPORT, R1));
    rule.push(load(Field::IP4_SADDR, Reg::word(4)));
    rule.push(Expr::Update {
        set: "flows".into(),
        key: R0,
        data: Some(Reg::word(4)),
        timeout: Duration::from_secs(90),
    });
    batch.add_rule(PUB, "out", &rule, None);
    batch
}

fn run(netns: &Netns<Sandbox>, program: &str, args: &str, stdin: &str) -> String {
    let output = netns
        .run(|| {
            let mut child = Command::new(program)
                .args(args.split_whitespace())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(stdin.as_bytes())
                .unwrap();
            Ok(child.wait_with_output().unwrap())
        })
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The ruleset without handles, sorted by kind and name (nft lists sets and
/// chains in the order they were made).
fn ruleset(netns: &Netns<Sandbox>) -> Vec<Value> {
    let text = run(netns, "nft", "-j list ruleset", "");
    let mut all: Value = serde_json::from_str(&text).unwrap();
    let all = all["nftables"].as_array_mut().unwrap();
    for object in all.iter_mut() {
        for (_, body) in object.as_object_mut().unwrap() {
            body.as_object_mut().unwrap().remove("handle");
        }
    }
    all.retain(|o| o.get("metainfo").is_none());
    std::mem::take(all)
}

fn nft(netns: &Netns<Sandbox>) -> Nft<Sandbox> {
    Nft::sandbox(netns).unwrap()
}

fn rules_read_as_nfts_own() {
    // Without its switch a lab's eth1 goes, sooner or later.
    let labs = [Lab::new(0).unwrap(), Lab::new(0).unwrap()];
    let [theirs, mine] = labs.each_ref().map(|lab| &lab.host.netns);
    run(theirs, "nft", "-f -", AS_NFT);
    nft(mine).commit(&ours()).unwrap();
    let sorted = |netns| {
        let mut all: Vec<String> = ruleset(netns).iter().map(Value::to_string).collect();
        all.sort();
        all
    };
    for (mine, theirs) in sorted(mine).iter().zip(sorted(theirs)) {
        assert_eq!(*mine, theirs);
    }
    assert_eq!(sorted(mine).len(), sorted(theirs).len());
    // The kernel's own reading, expression by expression.
    let code = |netns| run(netns, "nft", "--debug=netlink list table netdev pub", "");
    let only_code = |text: String| -> Vec<String> {
        text.lines()
            .filter(|l| l.trim_start().starts_with('['))
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(only_code(code(mine)), only_code(code(theirs)));
    assert!(nft(mine).delete_table(PUB).unwrap());
    assert!(!nft(mine).delete_table(PUB).unwrap());
    assert_eq!(ruleset(mine), Vec::<Value>::new());
}

fn batch_is_all_or_nothing() {
    let netns = Netns::create().unwrap();
    let mut nft = nft(&netns);
    let mut batch = Batch::new();
    batch.add_table(PUB);
    batch.delete_chain(PUB, "nosuch");
    batch.add_chain(
        PUB,
        &Chain {
            name: "later",
            hook: None,
        },
    );
    let error = nft.commit(&batch).unwrap_err();
    assert!(error.is_errno(libc::ENOENT), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("delete chain nosuch of table netdev pub: no such file"),
        "{error}"
    );
    assert_eq!(ruleset(&netns), Vec::<Value>::new());
    assert!(nft.commit(&Batch::new()).unwrap().is_empty());
    // The socket is still in step.
    assert_eq!(nft.tables().unwrap(), []);
}

fn elements_and_dumps() {
    let lab = Lab::new(0).unwrap();
    let mut nft = nft(&lab.host.netns);
    nft.commit(&ours()).unwrap();
    let tables = nft.tables().unwrap();
    assert_eq!(tables.len(), 1);
    assert_eq!(
        (tables[0].family, tables[0].name.as_str()),
        (Family::Netdev, "pub")
    );
    let chains = nft.chains(PUB).unwrap();
    let ingress = chains.iter().find(|c| c.name == "in").unwrap();
    assert_eq!(ingress.hook, Some((0, -300)));
    assert_eq!(ingress.device.as_deref(), Some("eth1"));
    assert_eq!(
        chains.iter().find(|c| c.name == "aside").unwrap().hook,
        None
    );
    let rules = nft.rules(PUB, Some("in")).unwrap();
    assert_eq!(rules.len(), 3);
    assert_eq!(rules[0].comment.as_deref(), Some("in tcp"));
    assert_eq!(rules[0].counter, Some((0, 0)));
    assert_eq!(nft.rules(PUB, None).unwrap().len(), 6);

    let key = concat(&[&[169, 254, 77, 11], &5201_u16.to_be_bytes()]);
    let back = nft.elements(PUB, "back").unwrap();
    assert_eq!(
        back,
        [Element {
            key: key.clone(),
            data: Some(vec![0x22, 0xb8])
        }]
    );
    let mut batch = Batch::new();
    batch.delete_elements(PUB, "back", &back);
    batch.delete_rule(PUB, "in", Some(rules[2].handle));
    nft.commit(&batch).unwrap();
    assert_eq!(nft.elements(PUB, "back").unwrap(), []);
    assert_eq!(nft.rules(PUB, Some("in")).unwrap().len(), 2);
    let error = nft.commit(&batch).unwrap_err();
    assert!(error.is_errno(libc::ENOENT));
    let error = nft.elements(PUB, "nosuch").unwrap_err();
    assert!(error.is_errno(libc::ENOENT), "{error}");
    let mut batch = Batch::new();
    batch.delete_rule(PUB, "in", None);
    batch.delete_set(PUB, "peers");
    nft.commit(&batch).unwrap();
    assert_eq!(nft.rules(PUB, Some("in")).unwrap().len(), 0);
}

/// More than one attribute, and more than the usual send buffer, holds.
fn many_elements() {
    let netns = Netns::create().unwrap();
    let mut nft = nft(&netns);
    let mut batch = Batch::new();
    batch.add_table(PUB);
    let key = &[Type::Ipv4Addr, Type::InetService];
    batch.add_sized_set(
        PUB,
        &Set {
            name: "m",
            key,
            data: Some(&[Type::InetService]),
        },
        10_000,
    );
    let elements: Vec<Element> = (1..=10_000_u16)
        .map(|port| Element {
            key: concat(&[&[10, 0, 2, 4], &port.to_be_bytes()]),
            data: Some(port.to_be_bytes().to_vec()),
        })
        .collect();
    batch.add_elements(PUB, "m", &elements);
    nft.commit(&batch).unwrap();
    let mut back = nft.elements(PUB, "m").unwrap();
    back.sort();
    assert!(back == elements, "{} elements", back.len());
}

fn generation_is_checked() {
    let netns = Netns::create().unwrap();
    let mut one = nft(&netns);
    let mut two = nft(&netns);
    let first = one.generation().unwrap();
    let mut calls = 0;
    one.transact(|_| {
        calls += 1;
        if calls == 1 {
            let mut other = Batch::new();
            other.add_table(Table {
                family: Family::Inet,
                name: "other",
            });
            two.commit(&other)?;
        }
        let mut batch = Batch::new();
        batch.add_table(PUB);
        Ok(batch)
    })
    .unwrap();
    assert_eq!(calls, 2);
    assert!(one.generation().unwrap() >= first + 2);
    assert_eq!(one.tables().unwrap().len(), 2);
}

fn handles_are_echoed() {
    let netns = Netns::create().unwrap();
    let mut nft = nft(&netns);
    let mut batch = Batch::new();
    batch.add_table(PUB);
    batch.add_chain(
        PUB,
        &Chain {
            name: "c",
            hook: None,
        },
    );
    batch.add_rule(PUB, "c", &[Expr::Counter], Some("one"));
    batch.echo();
    batch.add_rule(PUB, "c", &[Expr::Counter], Some("two"));
    batch.echo();
    let handles = nft.commit(&batch).unwrap();
    let rules = nft.rules(PUB, Some("c")).unwrap();
    assert_eq!(handles, [rules[0].handle, rules[1].handle]);
    assert_eq!(rules[1].comment.as_deref(), Some("two"));
}

fn errors_name_the_object() {
    let netns = Netns::create().unwrap();
    let mut nft = nft(&netns);
    let mut batch = Batch::new();
    batch.create_table(PUB);
    nft.commit(&batch).unwrap();
    let error = nft.commit(&batch).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("add table netdev pub: file exists"),
        "{text}"
    );
    let mut batch = Batch::new();
    batch.add_rule(PUB, "nosuch", &[Expr::Counter], None);
    let text = nft.commit(&batch).unwrap_err().to_string();
    assert!(
        text.starts_with("add rule to chain nosuch of table netdev pub: no such file"),
        "{text}"
    );
    let mut batch = Batch::new();
    batch.add_chain(
        PUB,
        &Chain {
            name: "c",
            hook: None,
        },
    );
    batch.add_set(
        PUB,
        &Set {
            name: "s",
            key: &[Type::Ipv4Addr],
            data: None,
        },
    );
    let one = Element {
        key: vec![1, 2, 3, 4],
        data: None,
    };
    batch.create_elements(PUB, "s", slice::from_ref(&one));
    nft.commit(&batch).unwrap();
    let mut again = Batch::new();
    again.add_elements(PUB, "s", slice::from_ref(&one));
    nft.commit(&again).unwrap();
    let mut again = Batch::new();
    again.create_elements(PUB, "s", &[one]);
    assert!(nft.commit(&again).unwrap_err().is_errno(libc::EEXIST));
}

/// A UDP packet to one port arrives at another, its checksum right.
fn rewrites_packets() {
    use std::net::UdpSocket;
    let lab = Lab::new(1).unwrap();
    let eth1 = IfName::new("eth1").unwrap();
    let mut batch = Batch::new();
    batch.add_table(PUB);
    let hook = Some(Hook::Ingress {
        device: &eth1,
        priority: 0,
    });
    batch.add_chain(PUB, &Chain { name: "in", hook });
    let mut rule = Vec::new();
    rule.extend(meta_is(Meta::L4Proto, &[17]));
    rule.push(load(Field::DPORT, R0));
    rule.push(equal(R0, &5000_u16.to_be_bytes()));
    rule.push(Expr::Immediate {
        into: R0,
        value: 6000_u16.to_be_bytes().to_vec(),
    });
    rule.push(store(Field::DPORT, Checksum::UDP));
    rule.push(Expr::Counter);
    batch.add_rule(PUB, "in", &rule, None);
    let mut nft = nft(&lab.host.netns);
    nft.commit(&batch).unwrap();
    let server: UdpSocket = lab
        .host
        .run(|| Ok(UdpSocket::bind("10.0.2.4:6000").unwrap()))
        .unwrap();
    let client = lab.others[0]
        .run(|| Ok(UdpSocket::bind("0.0.0.0:0").unwrap()))
        .unwrap();
    client.send_to(b"hello", "10.0.2.4:5000").unwrap();
    server
        .set_read_timeout(Some(std::time::Duration::from_secs(2)))
        .unwrap();
    let mut buf = [0; 16];
    let (len, from) = server.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..len], b"hello");
    assert_eq!(from.ip().to_string(), "10.0.2.7");
    let counter = nft.rules(PUB, Some("in")).unwrap()[0].counter.unwrap();
    assert_eq!(counter, (1, 33));
}
