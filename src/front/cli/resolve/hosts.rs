//! `--add-host` and `--dns…` of `run`.

use std::net::IpAddr;

use crate::base::{Error, Result};
use crate::engine::ExtraHost;

/// `NAME:IP` or `NAME=IP`; IPv6 with or without brackets.
pub fn extra_host(text: &str) -> Result<ExtraHost> {
    let bad = || Error::invalid(format!("bad format for add-host: {text:?}"));
    let (name, addr) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(bad)?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(bad());
    }
    let bare = addr
        .strip_prefix('[')
        .and_then(|a| a.strip_suffix(']'))
        .unwrap_or(addr);
    let addr = match bare {
        "host-gateway" => None,
        ip => Some(
            ip.parse()
                .map_err(|_| Error::invalid(format!("invalid IP address in add-host: {addr:?}")))?,
        ),
    };
    Ok(ExtraHost {
        name: name.to_owned(),
        addr,
    })
}

pub fn server(text: &str) -> Result<IpAddr> {
    text.trim()
        .parse()
        .map_err(|_| Error::invalid(format!("IP address is not correctly formatted: {text}")))
}

/// A domain, or `.` for none.
pub fn search(text: &str) -> Result<String> {
    let domain = text.trim();
    let is_label = |label: &str| {
        let byte = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(byte)
    };
    let bare = domain.strip_suffix('.').unwrap_or(domain);
    if domain == "." || bare.len() <= 253 && bare.split('.').all(is_label) {
        return Ok(domain.to_owned());
    }
    Err(Error::invalid(format!("{text} is not a valid domain")))
}

/// One word: it becomes one of the file's.
pub fn option(text: &str) -> Result<String> {
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err(Error::invalid(format!("{text:?} is not a DNS option")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_every_spelling() {
        let host = |text| extra_host(text).map(|h| h.to_string());
        assert_eq!(host("db:10.0.2.9").unwrap(), "db:10.0.2.9");
        assert_eq!(host("db=10.0.2.9").unwrap(), "db:10.0.2.9");
        assert_eq!(host("db:2001:db8::1").unwrap(), "db:2001:db8::1");
        assert_eq!(host("db=[2001:db8::1]").unwrap(), "db:2001:db8::1");
        assert_eq!(host("host:host-gateway").unwrap(), "host:host-gateway");
        for bad in ["db", ":10.0.2.9", "db:", "db:10.0.2", "a b:10.0.2.9"] {
            assert!(extra_host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn domains_and_options() {
        for good in [".", "lan", "home.lan.", "_tcp.x-y"] {
            assert_eq!(search(good).unwrap(), good);
        }
        for bad in ["", "a b", "a..b", "a\nb"] {
            assert!(search(bad).is_err(), "{bad:?}");
        }
        assert!(option("ndots:2").is_ok());
        assert!(option("a\nnameserver 1.2.3.4").is_err());
        assert!(server("10.0.2.1").is_ok() && server("dns.lan").is_err());
    }
}
