//! `-p [HOSTIP:][HOSTPORT:]CONTAINERPORT[/PROTO]`, ranges on both sides, and
//! `-p published=…,target=…`; `--expose`.

use std::net::IpAddr;

use super::not_yet;
use crate::base::{Error, Proto, Result};
use crate::engine::PortRequest;

/// Docker's syntax as it stands; a range on both sides gives a request each.
pub fn publish(spec: &str) -> Result<Vec<PortRequest>> {
    let standard;
    let spec = if spec.contains('=') {
        standard = from_long(spec)?;
        &standard
    } else {
        spec
    };
    let (ip, host, container) = split(spec);
    let (container, proto) = container.split_once('/').unwrap_or((container, "tcp"));
    if container.is_empty() {
        return Err(Error::invalid(format!("no port specified: {spec}<empty>")));
    }
    let host_ip = host_ip(ip)?;
    let wanted = range(container)
        .filter(|(first, _)| *first > 0)
        .ok_or_else(|| Error::invalid(format!("invalid containerPort: {container}")))?;
    let host_range = match host {
        "" => None,
        text => {
            Some(range(text).ok_or_else(|| Error::invalid(format!("invalid hostPort: {text}")))?)
        }
    };
    let proto = protocol(proto)?;
    let request = |container, host_port| PortRequest {
        host_ip,
        host_port,
        container,
        proto,
    };
    let (first, last) = wanted;
    match host_range {
        None | Some((0, 0)) => Ok((first..=last).map(|port| request(port, None)).collect()),
        // Any free one of these, for a single port.
        Some(free) if first == last => Ok(vec![request(first, Some(free))]),
        Some((from, to)) if to - from == last - first => Ok((first..=last)
            .zip(from..=to)
            .map(|(port, host)| request(port, Some((host, host))))
            .collect()),
        Some(_) => Err(Error::invalid(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        ))),
    }
}

/// `IP`, `HOST`, `CONTAINER`: an IPv6 address may have colons of its own.
fn split(spec: &str) -> (&str, &str, &str) {
    match spec.rsplitn(3, ':').collect::<Vec<_>>()[..] {
        [container] => ("", "", container),
        [container, host] => ("", host, container),
        [container, host, ip] => (ip, host, container),
        _ => ("", "", spec),
    }
}

fn host_ip(text: &str) -> Result<Option<IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    match bare.parse() {
        Ok(ip) => Ok(Some(ip)),
        Err(_) => Err(Error::invalid(format!("invalid IP address: {text}"))),
    }
}

fn protocol(text: &str) -> Result<Proto> {
    match text.to_lowercase().as_str() {
        "tcp" => Ok(Proto::Tcp),
        "udp" => Ok(Proto::Udp),
        "sctp" => Err(not_yet("publishing a port of sctp")),
        _ => Err(Error::invalid(format!("invalid proto: {text}"))),
    }
}

/// `80` or `80-90`, in order.
fn range(text: &str) -> Option<(u16, u16)> {
    let number = |t: &str| {
        // Rust takes a sign where Go does not.
        let digits = t.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| t.parse::<u16>().ok()).flatten()
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// `published=8080,target=80,protocol=tcp` as `8080:80/tcp`.
fn from_long(spec: &str) -> Result<String> {
    let (mut host, mut container, mut proto) = ("", "", "tcp");
    for field in spec.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => host = value,
            Some(("target", value)) => container = value,
            Some(("protocol", value)) => proto = value,
            Some(("mode", "ingress" | "host")) => {}
            _ => {
                return Err(Error::invalid(format!(
                    "invalid publish opts format (should be name=value but got '{field}')"
                )));
            }
        }
    }
    Ok(format!("{host}:{container}/{proto}"))
}

/// `--expose 80`, `80-90/udp`: one `PORT/PROTO` each.
pub fn expose(spec: &str) -> Result<Vec<String>> {
    if spec.contains(':') {
        return Err(Error::invalid(format!(
            "invalid port format for --expose: {spec}"
        )));
    }
    let (ports, proto) = spec.split_once('/').unwrap_or((spec, "tcp"));
    let proto = protocol(proto)?;
    let (first, last) = range(ports).ok_or_else(|| {
        Error::invalid(format!(
            "invalid range format for --expose: {spec}, error: invalid range specified for port: {ports}"
        ))
    })?;
    Ok((first..=last).map(|p| format!("{p}/{proto}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row<T = &'static str> = (Option<T>, Option<(u16, u16)>, u16, Proto);

    fn rows(spec: &str) -> Vec<Row<String>> {
        publish(spec)
            .unwrap()
            .into_iter()
            .map(|p| {
                (
                    p.host_ip.map(|ip| ip.to_string()),
                    p.host_port,
                    p.container,
                    p.proto,
                )
            })
            .collect()
    }

    #[test]
    fn every_form() {
        use Proto::{Tcp, Udp};
        let table: &[(&str, &[Row])] = &[
            ("80", &[(None, None, 80, Tcp)]),
            ("5000:80", &[(None, Some((5000, 5000)), 80, Tcp)]),
            ("0:80", &[(None, None, 80, Tcp)]),
            (":80", &[(None, None, 80, Tcp)]),
            ("127.0.0.1::80/udp", &[(Some("127.0.0.1"), None, 80, Udp)]),
            (
                "10.0.2.4:1:2/UDP",
                &[(Some("10.0.2.4"), Some((1, 1)), 2, Udp)],
            ),
            ("8000-8010:80", &[(None, Some((8000, 8010)), 80, Tcp)]),
            (
                "1-2:3-4",
                &[(None, Some((1, 1)), 3, Tcp), (None, Some((2, 2)), 4, Tcp)],
            ),
            ("7-8", &[(None, None, 7, Tcp), (None, None, 8, Tcp)]),
            ("[::1]:80:80", &[(Some("::1"), Some((80, 80)), 80, Tcp)]),
            ("::1:80:80", &[(Some("::1"), Some((80, 80)), 80, Tcp)]),
            (
                "published=8080,target=80,protocol=udp",
                &[(None, Some((8080, 8080)), 80, Udp)],
            ),
            ("target=80", &[(None, None, 80, Tcp)]),
        ];
        for (spec, wanted) in table {
            let wanted: Vec<_> = wanted
                .iter()
                .map(|(ip, host, port, proto)| (ip.map(str::to_owned), *host, *port, *proto))
                .collect();
            assert_eq!(rows(spec), wanted, "{spec}");
        }
    }

    #[test]
    fn refusals() {
        for (spec, text) in [
            ("abc", "invalid containerPort: abc"),
            ("99999:1", "invalid hostPort: 99999"),
            ("5-3:1-2", "invalid hostPort: 5-3"),
            ("+1:2", "invalid hostPort: +1"),
            ("80:0", "invalid containerPort: 0"),
            ("1:2:3:4:5", "invalid IP address: 1:2:3"),
            ("1.2.3.400:1:2", "invalid IP address: 1.2.3.400"),
            ("80/icmp", "invalid proto: icmp"),
            (
                "80/sctp",
                "publishing a port of sctp is not supported yet by dockless",
            ),
            (":", "no port specified: :<empty>"),
            ("80:", "no port specified: 80:<empty>"),
            ("", "no port specified: <empty>"),
            (
                "1-3:5-6",
                "invalid ranges specified for container and host Ports: 5-6 and 1-3",
            ),
            (
                "published=1,foo",
                "invalid publish opts format (should be name=value but got 'foo')",
            ),
        ] {
            assert_eq!(publish(spec).unwrap_err().to_string(), text, "{spec}");
        }
    }

    #[test]
    fn exposed() {
        assert_eq!(expose("80").unwrap(), ["80/tcp"]);
        assert_eq!(expose("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
        assert!(
            expose("1:2")
                .unwrap_err()
                .to_string()
                .contains("invalid port format for --expose: 1:2")
        );
        assert!(
            expose("5-3")
                .unwrap_err()
                .to_string()
                .contains("invalid range format for --expose: 5-3")
        );
    }
}
