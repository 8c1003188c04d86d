//! The two options of a lease that are more than numbers. Both come from the
//! LAN: every length is checked, and a name's pointers only lead back.

use std::net::{IpAddr, Ipv4Addr};

use super::lease::Route;
use crate::base::Cidr;

/// More than a resolv.conf's `search` line has (libc: 256 characters and, of
/// old, 6 names).
const NAMES: usize = 16;
const ROUTES: usize = 64;
/// RFC 1035.
const NAME: usize = 253;

/// Option 121 (RFC 3442): width, as many bytes of destination as it takes,
/// router. One that is wrong makes the whole option wrong.
pub(super) fn routes(mut bytes: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&width, rest)) = bytes.split_first() {
        if width > 32 || routes.len() == ROUTES {
            return None;
        }
        let length = usize::from(width.div_ceil(8));
        let mut dst = [0; 4];
        dst.get_mut(..length)?.copy_from_slice(rest.get(..length)?);
        let router: [u8; 4] = rest.get(length..length + 4)?.try_into().ok()?;
        bytes = &rest[length + 4..];
        let dst = Cidr::new(IpAddr::from(dst), width).ok()?.network();
        let router = Ipv4Addr::from(router);
        routes.push(Route {
            dst,
            // RFC 3442: 0.0.0.0 is the link itself.
            via: (!router.is_unspecified()).then_some(router),
        });
    }
    Some(routes)
}

/// Option 119 (RFC 3397): names with RFC 1035's compression, pointers into the
/// option itself. What is no host name is left out, with all that follows.
pub(in crate::net) fn search(bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < bytes.len() && names.len() < NAMES {
        let Some((name, next)) = name(bytes, at) else {
            break;
        };
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
        at = next;
    }
    names
}

/// A name, and where the next one begins. A pointer must lead to before the
/// place where the name (or the last jump's target) began: so it ends.
fn name(bytes: &[u8], start: usize) -> Option<(String, usize)> {
    let mut name = String::new();
    let (mut at, mut lowest, mut next) = (start, start, None);
    loop {
        let length = *bytes.get(at)?;
        match length {
            0 => return Some((name, next.unwrap_or(at + 1))),
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(length))?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(host_label(label)?);
                if name.len() > NAME {
                    return None;
                }
                at += 1 + usize::from(length);
            }
            0xc0.. => {
                let low = *bytes.get(at + 1)?;
                let target = usize::from(length & 0x3f) << 8 | usize::from(low);
                if target >= lowest {
                    return None;
                }
                next = next.or(Some(at + 2));
                (at, lowest) = (target, target);
            }
            _ => return None,
        }
    }
}

/// What may stand in a resolv.conf: a space or a line's end would be more than
/// a name there.
fn host_label(label: &[u8]) -> Option<&str> {
    let good = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let text = std::str::from_utf8(label).ok()?;
    label.iter().all(good).then_some(text)
}

/// Option 15: one name, or several with spaces between, as some servers do.
pub(super) fn domains(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let names = text.trim_end_matches('\0').split(' ');
    let is_name = |name: &&str| {
        let mut labels = name.trim_end_matches('.').split('.');
        name.len() <= NAME && labels.all(|l| !l.is_empty() && host_label(l.as_bytes()).is_some())
    };
    let names = names.filter(is_name).take(NAMES);
    names.map(|n| n.trim_end_matches('.').to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(dst: &str, via: Option<[u8; 4]>) -> Route {
        Route {
            dst: dst.parse().unwrap(),
            via: via.map(Ipv4Addr::from),
        }
    }

    #[test]
    fn classless_routes() {
        let bytes = [
            0, 10, 0, 2, 1, // default
            24, 10, 9, 8, 10, 0, 2, 7, // 10.9.8.0/24
            32, 10, 0, 2, 1, 0, 0, 0, 0, // on the link
            17, 129, 210, 177, 129, 210, 177, 132, // host bits
        ];
        assert_eq!(
            routes(&bytes).unwrap(),
            [
                route("0.0.0.0/0", Some([10, 0, 2, 1])),
                route("10.9.8.0/24", Some([10, 0, 2, 7])),
                route("10.0.2.1/32", None),
                route("129.210.128.0/17", Some([129, 210, 177, 132])),
            ]
        );
        for length in 1..5 {
            assert_eq!(routes(&bytes[..length]), None);
        }
        assert_eq!(routes(&[33, 1, 2, 3, 4, 5, 6, 7, 8, 9]), None);
        assert_eq!(routes(&[0, 10, 0, 2, 1].repeat(65)), None);
    }

    #[test]
    fn search_lists() {
        // RFC 3397's own example: eng.apple.com. marketing.apple.com.
        let mut bytes = b"\x03eng\x05apple\x03com\x00\x09marketing".to_vec();
        bytes.extend([0xc0, 4]);
        assert_eq!(search(&bytes), ["eng.apple.com", "marketing.apple.com"]);
        // Cut off anywhere, what was whole stays.
        for length in 0..bytes.len() {
            assert!(search(&bytes[..length]).len() < 2);
        }
    }

    #[test]
    fn names_that_loop_or_lead_on_end() {
        assert_eq!(search(&[0xc0, 0]), [""; 0]);
        assert_eq!(search(b"\x01a\xc0\x00"), [""; 0]);
        assert_eq!(search(b"\x01a\x00\x01b\xc0\x05\xc0\x03"), ["a"]);
        assert_eq!(search(b"\x01a\xc0\x09"), [""; 0]);
        assert_eq!(search(b"\x40a\x00"), [""; 0]);
        // Each jump a little further back: a long name, and no more.
        let mut long = b"\x3f".to_vec();
        long.extend([b'x'; 63]);
        long.push(0);
        for _ in 0..8 {
            let back = u8::try_from(long.len().saturating_sub(66)).unwrap_or(0);
            long.extend([0x01, b'y', 0xc0, back]);
        }
        assert!(search(&long).iter().all(|n| n.len() <= NAME));
        // Nothing of it gets into a line of its own.
        assert_eq!(search(b"\x0aa\nnameserv\x00"), [""; 0]);
        assert_eq!(domains(b"lan home.arpa.\0"), ["lan", "home.arpa"]);
        assert_eq!(domains(b"lan\nnameserver 1 .. ok"), ["1", "ok"]);
    }
}
