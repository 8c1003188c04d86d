//! Published ports as text: the PORTS column of `ps` and what `port` prints.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::engine::view::{PortBinding, Ports};

/// One line of Docker's port list: exposed, or published on one address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry<'a> {
    container: u16,
    host_ip: &'a str,
    host_port: u16,
    proto: &'a str,
}

/// `80/tcp`, split.
pub fn split_key(key: &str) -> Option<(u16, &str)> {
    let (port, proto) = key.split_once('/')?;
    Some((port.parse().ok()?, proto))
}

/// `10.0.0.1:80`, `[::]:80`
pub fn endpoint(ip: &str, port: &str) -> String {
    match (ip.parse::<IpAddr>(), port.parse::<u16>()) {
        (Ok(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
        _ => format!("{ip}:{port}"),
    }
}

/// The PORTS column: neighbours with the same number on both sides are merged
/// into ranges, mappings to another number follow.
pub fn column(ports: &Ports) -> String {
    let mut entries = Vec::new();
    for (key, bindings) in ports {
        let Some((container, proto)) = split_key(key) else {
            continue;
        };
        match bindings.as_deref() {
            None | Some([]) => entries.push(Entry {
                container,
                host_ip: "",
                host_port: 0,
                proto,
            }),
            Some(bindings) => entries.extend(bindings.iter().map(|b| Entry {
                container,
                host_ip: &b.host_ip,
                host_port: b.host_port.parse().unwrap_or(0),
                proto,
            })),
        }
    }
    entries.sort();
    merge(&entries)
}

fn merge(entries: &[Entry<'_>]) -> String {
    type Key<'a> = (&'a str, &'a str);
    let mut order: Vec<Key<'_>> = Vec::new();
    let mut open: BTreeMap<Key<'_>, (u16, u16)> = BTreeMap::new();
    let mut done = Vec::new();
    let mut mapped = Vec::new();
    for e in entries {
        if !e.host_ip.is_empty() && e.host_port != e.container {
            let host = endpoint(e.host_ip, &e.host_port.to_string());
            mapped.push(format!("{host}->{}/{}", e.container, e.proto));
            continue;
        }
        let key = (e.host_ip, e.proto);
        match open.get_mut(&key) {
            None => {
                order.push(key);
                open.insert(key, (e.container, e.container));
            }
            Some((_, last)) if last.checked_add(1) == Some(e.container) => *last = e.container,
            Some(range) => {
                done.push(group(key, *range));
                *range = (e.container, e.container);
            }
        }
    }
    done.extend(order.iter().map(|key| group(*key, open[key])));
    done.extend(mapped);
    done.join(", ")
}

fn group((ip, proto): (&str, &str), (first, last): (u16, u16)) -> String {
    let range = if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    };
    if ip.is_empty() {
        format!("{range}/{proto}")
    } else if ip.contains(':') {
        format!("[{ip}]:{range}->{range}/{proto}")
    } else {
        format!("{ip}:{range}->{range}/{proto}")
    }
}

/// `port CONTAINER`: `5000/tcp -> 0.0.0.0:5000`, in order of port numbers.
pub fn lines(ports: &Ports) -> Vec<String> {
    let mut keys: Vec<_> = ports
        .iter()
        .filter_map(|(key, bindings)| Some((split_key(key)?, key, bindings.as_ref()?)))
        .collect();
    keys.sort_by(|a, b| a.0.cmp(&b.0));
    keys.iter()
        .flat_map(|(_, key, bindings)| bindings.iter().map(move |b| (key, b)))
        .map(|(key, b)| format!("{key} -> {}", host(b)))
        .collect()
}

pub fn host(binding: &PortBinding) -> String {
    endpoint(&binding.host_ip, &binding.host_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(list: &[(&str, &[(&str, &str)])]) -> Ports {
        list.iter()
            .map(|(key, bindings)| {
                let bindings: Vec<_> = bindings
                    .iter()
                    .map(|(ip, port)| PortBinding {
                        host_ip: (*ip).into(),
                        host_port: (*port).into(),
                    })
                    .collect();
                let bindings = if bindings.is_empty() {
                    None
                } else {
                    Some(bindings)
                };
                ((*key).to_owned(), bindings)
            })
            .collect()
    }

    #[test]
    fn docker_s_own_cases() {
        let any = "0.0.0.0";
        for (list, text) in [
            (ports(&[]), ""),
            (ports(&[("9988/tcp", &[])]), "9988/tcp"),
            (ports(&[("9988/udp", &[])]), "9988/udp"),
            (
                ports(&[("9988/tcp", &[(any, "8899")])]),
                "0.0.0.0:8899->9988/tcp",
            ),
            (
                ports(&[
                    ("9988/tcp", &[("4.3.2.1", "8899")]),
                    ("8899/tcp", &[("4.3.2.1", "9988")]),
                ]),
                "4.3.2.1:9988->8899/tcp, 4.3.2.1:8899->9988/tcp",
            ),
            (
                ports(&[("9988/tcp", &[]), ("9989/tcp", &[]), ("9988/udp", &[])]),
                "9988-9989/tcp, 9988/udp",
            ),
            (
                ports(&[
                    ("80/tcp", &[]),
                    ("1024/tcp", &[]),
                    ("80/udp", &[]),
                    ("1024/udp", &[]),
                ]),
                "80/tcp, 80/udp, 1024/tcp, 1024/udp",
            ),
            (
                ports(&[("5000/tcp", &[(any, "5000"), ("::", "5000")])]),
                "0.0.0.0:5000->5000/tcp, [::]:5000->5000/tcp",
            ),
            (
                ports(&[
                    ("65535/tcp", &[(any, "65535")]),
                    ("65534/tcp", &[(any, "65534")]),
                ]),
                "0.0.0.0:65534-65535->65534-65535/tcp",
            ),
        ] {
            assert_eq!(column(&list), text);
        }
    }

    #[test]
    fn port_lines_by_number() {
        let list = ports(&[
            ("8000/tcp", &[("0.0.0.0", "1")]),
            ("80/tcp", &[("::", "2")]),
            ("81/tcp", &[]),
        ]);
        assert_eq!(lines(&list), ["80/tcp -> [::]:2", "8000/tcp -> 0.0.0.0:1"]);
    }
}
