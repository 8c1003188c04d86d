//! DHCPv6 messages as bytes (RFC 8415 §7 to §9, §21). What comes in is hostile:
//! whatever is not whole, or not for this client, is none.

use std::net::Ipv6Addr;

use crate::net::dhcp::{Identity, search};

/// OPTION_*, with the RFC where it is not 8415.
mod code {
    pub(super) const CLIENT_ID: u16 = 1;
    pub(super) const SERVER_ID: u16 = 2;
    pub(super) const IA_NA: u16 = 3;
    pub(super) const IA_ADDR: u16 = 5;
    pub(super) const ORO: u16 = 6;
    pub(super) const PREFERENCE: u16 = 7;
    pub(super) const ELAPSED_TIME: u16 = 8;
    pub(super) const STATUS_CODE: u16 = 13;
    pub(super) const RAPID_COMMIT: u16 = 14;
    /// RFC 3646.
    pub(super) const DNS_SERVERS: u16 = 23;
    pub(super) const DOMAIN_LIST: u16 = 24;
    /// RFC 4075.
    pub(super) const SNTP_SERVERS: u16 = 31;
    /// RFC 4704.
    pub(super) const CLIENT_FQDN: u16 = 39;
    pub(super) const SOL_MAX_RT: u16 = 82;
}

/// A DUID: two bytes of type, and up to 128 (§11.1).
const DUID: std::ops::RangeInclusive<usize> = 3..=130;
const ADDRS: usize = 8;
/// What a status says, in `inspect`.
const TEXT: usize = 100;
/// §21.24: what a server may set it to.
const SOL_MAX_RT: std::ops::RangeInclusive<u32> = 60..=86400;

/// A client's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Solicit = 1,
    Request = 3,
    Confirm = 4,
    Renew = 5,
    Rebind = 6,
    Release = 8,
    Decline = 9,
}

/// A message to all servers; one that is for one server names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) verb: Verb,
    /// 24 bits.
    pub(super) xid: u32,
    /// Hundredths of a second since the exchange began.
    pub(super) elapsed: u16,
    pub(super) server: Option<Vec<u8>>,
    pub(super) addr: Option<Ipv6Addr>,
}

impl Ask {
    pub(super) fn payload(&self, identity: &Identity) -> Vec<u8> {
        let mut out = vec![self.verb as u8];
        out.extend(&self.xid.to_be_bytes()[1..]);
        let (iaid, duid) = identity.iaid_and_duid();
        put(&mut out, code::CLIENT_ID, duid);
        if let Some(server) = &self.server {
            put(&mut out, code::SERVER_ID, server);
        }
        put(&mut out, code::ELAPSED_TIME, &self.elapsed.to_be_bytes());
        // T1, T2 and the lifetimes are the server's to choose: 0.
        let mut ia = iaid.to_vec();
        ia.extend([0; 8]);
        if let Some(addr) = self.addr {
            let body = [&addr.octets()[..], &[0; 8]].concat();
            put(&mut ia, code::IA_ADDR, &body);
        }
        put(&mut out, code::IA_NA, &ia);
        if matches!(self.verb, Verb::Confirm | Verb::Release | Verb::Decline) {
            return out;
        }
        let wanted = [
            code::DNS_SERVERS,
            code::DOMAIN_LIST,
            code::SNTP_SERVERS,
            code::CLIENT_FQDN,
            code::SOL_MAX_RT,
        ];
        put(&mut out, code::ORO, &wanted.map(u16::to_be_bytes).concat());
        if self.verb == Verb::Solicit {
            put(&mut out, code::RAPID_COMMIT, &[]);
        }
        let name = identity.hostname.as_bytes();
        if let (Ok(length @ 1..=63), name) = (u8::try_from(name.len()), name) {
            // The server is to see to its AAAA record. One label without an
            // end is a partial name (RFC 4704 §4.2).
            const S: u8 = 1;
            put(&mut out, code::CLIENT_FQDN, &[&[S, length], name].concat());
        }
        out
    }
}

fn put(out: &mut Vec<u8>, code: u16, body: &[u8]) {
    // What is put is ours, and short.
    let length = u16::try_from(body.len()).unwrap_or_default();
    out.extend(code.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend(body);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Advertise,
    Reply,
}

/// §21.13; without one all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: Code,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    UnspecFail,
    NoAddrsAvail,
    NoBinding,
    NotOnLink,
    Other(u16),
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            Code::UnspecFail => f.write_str("UnspecFail")?,
            Code::NoAddrsAvail => f.write_str("NoAddrsAvail")?,
            Code::NoBinding => f.write_str("NoBinding")?,
            Code::NotOnLink => f.write_str("NotOnLink")?,
            Code::Other(code) => write!(f, "status {code}")?,
        }
        match self.text.as_str() {
            "" => Ok(()),
            text => write!(f, ": {text}"),
        }
    }
}

/// An address that is given, or taken away (lifetimes of 0).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) addr: Ipv6Addr,
    pub(super) preferred: u32,
    pub(super) valid: u32,
}

/// IA_NA with our IAID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Association {
    pub(super) renew: u32,
    pub(super) rebind: u32,
    pub(super) given: Vec<Given>,
}

/// A server's answer to this client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) kind: Kind,
    pub(super) xid: u32,
    /// Its DUID.
    pub(super) server: Vec<u8>,
    pub(super) preference: u8,
    pub(super) rapid_commit: bool,
    /// Of the message, or else of the IA or its address: what is not success.
    pub(super) status: Option<Status>,
    pub(super) association: Option<Association>,
    pub(super) dns: Vec<Ipv6Addr>,
    pub(super) search: Vec<String>,
    pub(super) sntp: Vec<Ipv6Addr>,
    pub(super) sol_max_rt: Option<u32>,
}

/// `None`: it is none, not whole, or for another client.
pub(super) fn parse(bytes: &[u8], identity: &Identity) -> Option<Reply> {
    const ADVERTISE: u8 = 2;
    const REPLY: u8 = 7;
    let (header, rest) = bytes.split_first_chunk::<4>()?;
    let kind = match header[0] {
        ADVERTISE => Kind::Advertise,
        REPLY => Kind::Reply,
        _ => return None,
    };
    let (iaid, duid) = identity.iaid_and_duid();
    let (mut client, mut server) = (None, None);
    let mut reply = Reply {
        kind,
        xid: u32::from_be_bytes([0, header[1], header[2], header[3]]),
        server: Vec::new(),
        preference: 0,
        rapid_commit: false,
        status: None,
        association: None,
        dns: Vec::new(),
        search: Vec::new(),
        sntp: Vec::new(),
        sol_max_rt: None,
    };
    let mut inner = None;
    for option in Options(rest) {
        let (code, body) = option?;
        match code {
            // Of two, which is it?
            code::CLIENT_ID if client.is_some() => return None,
            code::SERVER_ID if server.is_some() => return None,
            code::CLIENT_ID => client = Some(body),
            code::SERVER_ID => server = Some(body),
            code::PREFERENCE => reply.preference = *body.first()?,
            code::RAPID_COMMIT => reply.rapid_commit = true,
            code::STATUS_CODE => reply.status = status(body)?,
            code::IA_NA if reply.association.is_none() => {
                if let Some((association, said)) = association(body, iaid)? {
                    reply.association = association;
                    inner = said;
                }
            }
            code::DNS_SERVERS => reply.dns = addresses(body),
            code::DOMAIN_LIST => reply.search = search(body),
            code::SNTP_SERVERS => reply.sntp = addresses(body),
            code::SOL_MAX_RT => {
                let seconds = u32::from_be_bytes(body.try_into().ok()?);
                reply.sol_max_rt = Some(seconds).filter(|s| SOL_MAX_RT.contains(s));
            }
            _ => {}
        }
    }
    reply.status = reply.status.or(inner);
    reply.server = server.filter(|duid| DUID.contains(&duid.len()))?.to_vec();
    (client == Some(duid)).then_some(reply)
}

type Ia = Option<(Option<Association>, Option<Status>)>;

/// The outer `None`: it is not whole. The next: it is not ours. The innermost:
/// its times make no sense (§21.4), and it counts as absent.
fn association(body: &[u8], iaid: &[u8]) -> Option<Ia> {
    let (header, rest) = body.split_first_chunk::<12>()?;
    if header[..4] != *iaid {
        return Some(None);
    }
    let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| header[at + n]));
    let (renew, rebind) = (word(4), word(8));
    let (mut given, mut said, mut refusal) = (Vec::new(), None, None);
    for option in Options(rest) {
        match option? {
            (code::STATUS_CODE, body) => said = status(body)?,
            (code::IA_ADDR, body) if given.len() < ADDRS => {
                let (addr, more) = body.split_first_chunk::<16>()?;
                let (times, options) = more.split_first_chunk::<8>()?;
                let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| times[at + n]));
                let (preferred, valid) = (word(0), word(4));
                let mut refused = None;
                for option in Options(options) {
                    if let (code::STATUS_CODE, body) = option? {
                        refused = status(body)?;
                    }
                }
                // §21.6: one that is preferred for longer than it is valid is
                // as if it were not there.
                if refused.is_none() && preferred <= valid {
                    let addr = Ipv6Addr::from(*addr);
                    given.push(Given {
                        addr,
                        preferred,
                        valid,
                    });
                }
                refusal = refusal.or(refused);
            }
            _ => {}
        }
    }
    // One address that is refused is no matter where there is another.
    let said = said.or(refusal.filter(|_| given.is_empty()));
    let makes_sense = renew == 0 || rebind == 0 || renew <= rebind;
    let association = makes_sense.then_some(Association {
        renew,
        rebind,
        given,
    });
    Some(Some((association, said)))
}

/// The outer `None`: it is not whole; the inner: success.
fn status(body: &[u8]) -> Option<Option<Status>> {
    let (code, text) = body.split_first_chunk::<2>()?;
    let code = match u16::from_be_bytes(*code) {
        0 => return Some(None),
        1 => Code::UnspecFail,
        2 => Code::NoAddrsAvail,
        3 => Code::NoBinding,
        4 => Code::NotOnLink,
        other => Code::Other(other),
    };
    let text = String::from_utf8_lossy(text);
    let text = text.chars().filter(|c| !c.is_control()).take(TEXT);
    Some(Some(Status {
        code,
        text: text.collect(),
    }))
}

/// Those that a host can have.
fn addresses(body: &[u8]) -> Vec<Ipv6Addr> {
    let (all, _) = body.as_chunks::<16>();
    let all = all.iter().map(|octets| Ipv6Addr::from(*octets));
    all.filter(|ip| is_host(*ip)).take(ADDRS).collect()
}

/// One that can be somebody's beyond the link: no group, loopback, link-local
/// or IPv4 address.
pub(super) fn is_host(ip: Ipv6Addr) -> bool {
    !(ip.is_unspecified()
        || ip.is_loopback()
        || ip.is_multicast()
        || ip.is_unicast_link_local()
        || ip.to_ipv4_mapped().is_some())
}

/// Code, length, body; `None` where the length is longer than what there is,
/// and then no more.
struct Options<'a>(&'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = Option<(u16, &'a [u8])>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let all = std::mem::take(&mut self.0);
        let one = all.split_first_chunk::<4>().and_then(|(header, rest)| {
            let code = u16::from_be_bytes([header[0], header[1]]);
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let (body, rest) = rest.split_at_checked(length)?;
            self.0 = rest;
            Some((code, body))
        });
        Some(one)
    }
}

#[cfg(test)]
mod tests;
