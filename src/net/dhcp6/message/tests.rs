//! Messages as servers and forgers write them, and as this client does.

use super::*;

fn identity() -> Identity {
    Identity::new(b"machine", "lan", "web", "web")
}

fn option(code: u16, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, code, body);
    out
}

/// IA_NA of this client with one address and whatever else.
fn ia(times: [u32; 4], more: &[u8]) -> Vec<u8> {
    let identity = identity();
    let [renew, rebind, preferred, valid] = times.map(u32::to_be_bytes);
    let addr = "2001:db8:2::50".parse::<Ipv6Addr>().unwrap().octets();
    let addr = option(code::IA_ADDR, &[&addr[..], &preferred, &valid].concat());
    let iaid = identity.iaid_and_duid().0;
    option(code::IA_NA, &[iaid, &renew, &rebind, &addr, more].concat())
}

fn answer(kind: u8, options: &[Vec<u8>]) -> Vec<u8> {
    let identity = identity();
    let mut out = vec![kind, 1, 2, 3];
    out.extend(option(code::CLIENT_ID, identity.iaid_and_duid().1));
    out.extend(option(code::SERVER_ID, &[0, 3, 0, 1, 9, 9]));
    options.iter().for_each(|option| out.extend(option));
    out
}

fn read(kind: u8, options: &[Vec<u8>]) -> Option<Reply> {
    parse(&answer(kind, options), &identity())
}

#[test]
fn a_question_as_the_rfc_has_it() {
    let ask = Ask {
        verb: Verb::Request,
        xid: 0x0a_0b0c,
        elapsed: 300,
        server: Some(vec![0, 3, 0, 1, 9, 9]),
        addr: Some("2001:db8:2::50".parse().unwrap()),
    };
    let bytes = ask.payload(&identity());
    assert_eq!(bytes[..4], [3, 0x0a, 0x0b, 0x0c]);
    let all: Vec<_> = Options(&bytes[4..]).map(Option::unwrap).collect();
    let codes: Vec<u16> = all.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [1, 2, 8, 3, 6, 39]);
    assert_eq!(all[0].1.len(), 18);
    assert_eq!(all[0].1[..2], [0, 4], "a DUID-UUID");
    assert_eq!(all[2].1, [1, 44]);
    assert_eq!(all[3].1.len(), 12 + 4 + 24);
    assert_eq!(all[4].1, [0, 23, 0, 24, 0, 31, 0, 39, 0, 82]);
    assert_eq!(all[5].1, b"\x01\x03web");
    // A Solicit asks to be committed at once; what ends a lease asks for
    // nothing.
    for (verb, last) in [(Verb::Solicit, 14), (Verb::Renew, 6), (Verb::Release, 3)] {
        let bytes = Ask {
            verb,
            ..ask.clone()
        }
        .payload(&identity());
        let codes: Vec<u16> = Options(&bytes[4..]).map(|o| o.unwrap().0).collect();
        let named = codes.last() == Some(&39);
        assert_eq!(named, verb != Verb::Release);
        assert_eq!(codes[codes.len() - 1 - usize::from(named)], last);
        // It is no answer.
        assert_eq!(parse(&bytes, &identity()), None);
    }
}

#[test]
fn a_whole_answer() {
    let dns = [
        "2001:db8:2::1".parse::<Ipv6Addr>().unwrap().octets(),
        "fe80::1".parse::<Ipv6Addr>().unwrap().octets(),
    ];
    let reply = read(
        7,
        &[
            ia([10, 20, 30, 40], &[]),
            option(code::PREFERENCE, &[7]),
            option(code::RAPID_COMMIT, &[]),
            option(code::DNS_SERVERS, &dns.concat()),
            option(code::DOMAIN_LIST, b"\x03lan\x07example\0\x01x\0"),
            option(code::SOL_MAX_RT, &[0, 0, 1, 0]),
            option(999, b"what is this"),
        ],
    )
    .unwrap();
    assert_eq!((reply.kind, reply.xid), (Kind::Reply, 0x01_0203));
    assert_eq!((reply.preference, reply.rapid_commit), (7, true));
    let ia = reply.association.unwrap();
    assert_eq!((ia.renew, ia.rebind, ia.given.len()), (10, 20, 1));
    assert_eq!((ia.given[0].preferred, ia.given[0].valid), (30, 40));
    // Link-local servers would need the link's name.
    assert_eq!(reply.dns.len(), 1);
    assert_eq!(reply.search, ["lan.example", "x"]);
    assert_eq!(reply.sol_max_rt, Some(256));
    assert_eq!(reply.status, None);
}

#[test]
fn statuses_at_all_three_places() {
    let no = |code: u16| {
        option(
            code::STATUS_CODE,
            &[&code.to_be_bytes()[..], b"no\x1b[1m"].concat(),
        )
    };
    let status = |options: &[Vec<u8>]| read(7, options).unwrap().status;
    let of = status(&[no(2)]).unwrap();
    assert_eq!((of.code, of.text.as_str()), (Code::NoAddrsAvail, "no[1m"));
    assert_eq!(of.to_string(), "NoAddrsAvail: no[1m");
    assert_eq!(status(&[ia([0; 4], &no(3))]).unwrap().code, Code::NoBinding);
    assert_eq!(status(&[no(0), ia([0; 4], &no(0))]), None);
    // Of an address: only where it is the only one.
    let addr = [&[0; 24][..], &no(4)].concat();
    let addr = option(code::IA_ADDR, &addr);
    assert_eq!(status(&[ia([0, 0, 1, 9], &addr)]), None);
    let identity = identity();
    let alone = [identity.iaid_and_duid().0, &[0; 8], &addr].concat();
    let alone = option(code::IA_NA, &alone);
    assert_eq!(status(&[alone]).unwrap().code, Code::NotOnLink);
}

#[test]
fn what_is_none() {
    let whole = answer(2, &[ia([10, 20, 30, 40], &[])]);
    assert!(parse(&whole, &identity()).is_some());
    for length in 0..whole.len() {
        let cut = parse(&whole[..length], &identity());
        // Whole options may be missing at the end: then nothing is given.
        assert!(cut.is_none_or(|reply| reply.association.is_none()));
    }
    for kind in [0, 1, 3, 10, 12, 13, 255] {
        assert_eq!(read(kind, &[]), None, "{kind}");
    }
    let other = Identity::new(b"machine", "lan", "other", "web");
    assert_eq!(parse(&whole, &other), None);
    // Twice, empty, too long, or not at all.
    let server = |duid: &[u8]| option(code::SERVER_ID, duid);
    assert_eq!(read(2, &[server(&[0, 3, 0, 1])]), None);
    let identity = identity();
    let client = option(code::CLIENT_ID, identity.iaid_and_duid().1);
    for server in [server(&[]), server(&[0, 3]), server(&[1; 131]), Vec::new()] {
        let bytes = [&[2, 1, 2, 3][..], &client, &server].concat();
        assert_eq!(parse(&bytes, &identity), None);
    }
    assert_eq!(read(2, &[client]), None);
}

/// §21.4 and §21.6: as if they were not there.
#[test]
fn times_that_make_no_sense() {
    let association = |times| read(2, &[ia(times, &[])]).unwrap().association;
    assert_eq!(association([30, 20, 40, 50]), None);
    assert!(association([30, 0, 40, 50]).is_some());
    assert!(association([10, 20, 50, 40]).unwrap().given.is_empty());
    let huge = association([u32::MAX; 4]).unwrap();
    assert_eq!(huge.given[0].valid, u32::MAX);
    // Another IA is another's.
    let mut other = ia([10, 20, 30, 40], &[]);
    other[4] ^= 1;
    assert_eq!(read(2, &[other]).unwrap().association, None);
}

#[test]
fn names_that_loop() {
    for names in [&b"\xc0\0"[..], b"\x03lan\xc0\0", b"\x3flan", b"\x03l n\0"] {
        let reply = read(7, &[option(code::DOMAIN_LIST, names)]).unwrap();
        assert!(reply.search.is_empty(), "{:?}", reply.search);
    }
}
