//! `network create` and the endpoints of `run --network` and
//! `network connect`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use super::{conflict, given, ipv4, not_yet, pairs};
use crate::base::{Cidr, Error, Family, MacAddr, PerFamily, Result};
use crate::engine::{
    EXTRA_MAC, EndpointChange, EndpointRequest, FIELDS, GATEWAY, HostAccess, Ip6, NetworkCreate,
    PoolRequest, RATE_DOWN, RATE_UP, Rate,
};
use crate::front::cli::args::network as args;
use crate::front::cli::args::run::Run;

/// Docker's flags of which dockless has one value only so far.
pub fn unsupported(a: &args::Create) -> Result<()> {
    match given(a.scope.as_ref()) {
        None | Some("local") => {}
        Some(other) => {
            return Err(not_yet(&format!(
                "--scope {other} of 'docker network create'"
            )));
        }
    }
    Ok(())
}

pub fn create(a: &args::Create) -> Result<NetworkCreate> {
    Ok(NetworkCreate {
        name: a.names.first().cloned().unwrap_or_default(),
        driver: a.driver.clone(),
        options: pairs(&a.opt),
        pools: pools(&a.subnet, &a.ip_range, &a.gateway, &pairs(&a.aux_address))?,
        internal: a.internal,
        attachable: a.attachable,
        labels: pairs(&a.label),
        ipam_driver: a.ipam_driver.clone(),
        ipam_options: pairs(&a.ipam_opt),
        ipv4: a.ipv4,
        ipv6: a.ipv6,
        host_access: match a.host_access.as_deref() {
            None => HostAccess::Off,
            Some(ip) => access(ip)?,
        },
        routes: a
            .route
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_>>()?,
    })
}

fn access(ip: &str) -> Result<HostAccess> {
    let ip = if ip.is_empty() { None } else { Some(ipv4(ip)?) };
    Ok(HostAccess::On { ip })
}

/// `network host-access NETWORK on|off [--ip ADDR]`
pub fn host_access(a: &args::HostAccess) -> Result<HostAccess> {
    match a.names.get(1).map(String::as_str) {
        Some("on") => access(a.ip.as_deref().unwrap_or_default()),
        Some("off") if a.ip.is_some() => Err(conflict("--ip goes with 'on'")),
        Some("off") => Ok(HostAccess::Off),
        other => Err(Error::invalid(format!(
            "host access is 'on' or 'off', not '{}'",
            other.unwrap_or_default()
        ))),
    }
}

/// Destination and source of `network explain CONTAINER [DESTINATION]
/// [--from ADDRESS]`.
pub fn packet(a: &args::Explain) -> Result<(Option<IpAddr>, Option<IpAddr>)> {
    let one = |what: &str, text: &String| {
        text.parse::<IpAddr>()
            .map_err(|_| Error::invalid(format!("{what} \"{text}\" is not an IP address")))
    };
    let to = a.names.get(1).map(|text| one("the destination", text));
    let from = a.from.as_ref().map(|text| one("--from", text));
    if to.is_none() && from.is_some() {
        return Err(conflict("--from goes with a destination"));
    }
    Ok((to.transpose()?, from.transpose()?))
}

/// Gives every range, gateway and auxiliary address to the subnet in which it
/// lies, by Docker's client's rules and in its words. Where it lies in none,
/// nothing is sent to the engine.
fn pools(
    subnets: &[String],
    ranges: &[String],
    gateways: &[String],
    aux: &BTreeMap<String, String>,
) -> Result<Vec<PoolRequest>> {
    if subnets.len() < ranges.len() || subnets.len() < gateways.len() {
        return Err(Error::invalid(
            "every ip-range or gateway must have a corresponding subnet",
        ));
    }
    let mut pools: Vec<(Cidr, PoolRequest)> = Vec::with_capacity(subnets.len());
    for text in subnets {
        let subnet: Cidr = text.parse().map_err(|_| {
            Error::invalid(format!(
                "invalid subnet {text}: invalid CIDR address: {text}"
            ))
        })?;
        if pools.iter().any(|(other, _)| other.overlaps(subnet)) {
            return Err(Error::invalid(
                "multiple overlapping subnet configuration is not supported",
            ));
        }
        pools.push((subnet, PoolRequest::new(subnet)));
    }
    for text in ranges {
        let range: Cidr = text.parse()?;
        let pool = home(&mut pools, range.addr(), "range", text)?;
        if pool.ip_range.replace(range).is_some() {
            return Err(twice("ranges", pool));
        }
    }
    for text in gateways {
        let ip = address(text, "gateway")?;
        let pool = home(&mut pools, ip, "gateway", text)?;
        if pool.gateway.replace(ip).is_some() {
            return Err(twice("gateways", pool));
        }
    }
    for (name, text) in aux {
        let ip = address(text, "aux-address")?;
        let pool = home(&mut pools, ip, "aux-address", text)?;
        pool.aux.insert(name.clone(), ip);
    }
    Ok(pools.into_iter().map(|(_, pool)| pool).collect())
}

fn home<'a>(
    pools: &'a mut [(Cidr, PoolRequest)],
    ip: IpAddr,
    what: &str,
    text: &str,
) -> Result<&'a mut PoolRequest> {
    pools
        .iter_mut()
        .find(|(subnet, _)| subnet.contains(ip))
        .map(|(_, pool)| pool)
        .ok_or_else(|| no_home(what, text))
}

/// What is no address lies in no subnet, and Docker says just that.
fn address(text: &str, what: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| no_home(what, text))
}

fn no_home(what: &str, text: &str) -> Error {
    Error::invalid(format!("no matching subnet for {what} {text}"))
}

fn twice(what: &str, pool: &PoolRequest) -> Error {
    Error::invalid(format!(
        "cannot configure multiple {what} on the same subnet ({})",
        pool.subnet
    ))
}

/// `network connect [OPTIONS] NETWORK CONTAINER`
pub fn connect(a: &args::Connect) -> Result<EndpointRequest> {
    let (ips, ip6) = ips(a.ip.as_ref(), a.ip6.as_ref())?;
    let mut driver_options = a
        .driver_opt
        .iter()
        .map(|text| driver_option(text, "key/value"))
        .collect::<Result<_>>()?;
    net_rate(a.net_rate.as_deref(), &mut driver_options)?;
    Ok(EndpointRequest {
        network: a.names.first().cloned().unwrap_or_default(),
        ips,
        ip6,
        link_local: link_local(&a.link_local_ip)?,
        mac: None,
        aliases: a.alias.clone(),
        driver_options,
        gw_priority: match a.gw_priority {
            None => 0,
            Some(n) => i32::try_from(n).map_err(|_| {
                Error::invalid(format!("invalid gw-priority ({n}): value out of range"))
            })?,
        },
    })
}

/// `KEY=VALUE` with a key.
fn driver_option(text: &str, words: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(Error::invalid(format!(
            "invalid {words} pair format in driver options"
        ))),
    }
}

/// `--net-rate up=20mbit,down=100mbit`: two of the driver's options.
fn net_rate(text: Option<&str>, options: &mut BTreeMap<String, String>) -> Result<()> {
    let Some(text) = text else {
        return Ok(());
    };
    for part in text.split(',') {
        let (key, value) = match part.trim().split_once('=') {
            Some(("up", value)) => (RATE_UP, value),
            Some(("down", value)) => (RATE_DOWN, value),
            _ => {
                return Err(Error::invalid(format!(
                    "invalid --net-rate '{text}': it is up=RATE, down=RATE or up=RATE,down=RATE"
                )));
            }
        };
        value.parse::<Rate>()?;
        if options.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(conflict(&format!("{key} is given twice")));
        }
    }
    Ok(())
}

/// `network set … ip=ADDR ip6=ADDR gw=ADDR mac=MAC rate-up=20mbit rate-down=off`,
/// rates also as `rate=up=…,down=…`.
pub fn changes(texts: &[String]) -> Result<EndpointChange> {
    let mut change = EndpointChange::default();
    for text in texts {
        let twice = |key: &str| conflict(&format!("{key} is given twice"));
        let mut put =
            |key: &str, value: Option<String>| match change.options.insert(key.to_owned(), value) {
                Some(_) => Err(twice(key)),
                None => Ok(()),
            };
        match text.split_once('=') {
            Some((key @ (RATE_UP | RATE_DOWN), value)) => put(key, rate(value)?)?,
            Some(("rate", both)) => {
                for part in both.split(',') {
                    match part.split_once('=') {
                        Some(("up", value)) => put(RATE_UP, rate(value)?)?,
                        Some(("down", value)) => put(RATE_DOWN, rate(value)?)?,
                        _ => {
                            return Err(Error::invalid(format!(
                                "invalid rate '{both}': it is rate=up=RATE,down=RATE"
                            )));
                        }
                    }
                }
            }
            Some((key @ GATEWAY, "off")) => put(key, None)?,
            Some((key @ GATEWAY, value)) => put(key, Some(value.to_owned()))?,
            Some((key @ ("ip" | "ip6"), value)) => {
                let ip = match key {
                    "ip" => IpAddr::V4(ipv4(value)?),
                    _ => IpAddr::V6(ipv6(value)?),
                };
                if change.ips.put(ip).is_some() {
                    return Err(twice(key));
                }
            }
            Some((key @ "mac", value)) => {
                if change.mac.replace(value.parse()?).is_some() {
                    return Err(twice(key));
                }
            }
            _ => {
                return Err(Error::invalid(format!("nothing can be set by '{text}'")).hint(
                    "ip=, ip6=, gw=, mac=, rate-up= and rate-down= can; a rate is tc's, or 'off'",
                ));
            }
        }
    }
    Ok(change)
}

/// `None`: off.
fn rate(text: &str) -> Result<Option<String>> {
    match text {
        "off" => Ok(None),
        text => Ok(Some(text.parse::<Rate>()?.to_string())),
    }
}

/// `--ip`, `--ip6`
fn ips(v4: Option<&String>, v6: Option<&String>) -> Result<(PerFamily<IpAddr>, Ip6)> {
    let v4 = given(v4).map(ipv4).transpose()?.map(IpAddr::V4);
    let (v6, ip6) = given(v6).map_or(Ok((None, Ip6::Subnet)), ip6)?;
    Ok((v4.into_iter().chain(v6).collect(), ip6))
}

/// An address, or who gives it.
fn ip6(text: &str) -> Result<(Option<IpAddr>, Ip6)> {
    match Ip6::new(text) {
        Some(word) => Ok((None, word)),
        None => Ok((Some(IpAddr::V6(ipv6(text)?)), Ip6::Subnet)),
    }
}

/// One that could be an interface's: unspecified and group addresses are not.
fn ipv6(text: &str) -> Result<Ipv6Addr> {
    let is_host = |ip: &Ipv6Addr| {
        let mapped = ip.to_ipv4_mapped().is_some();
        !(ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || mapped)
    };
    let parsed = text.parse().ok().filter(is_host);
    parsed.ok_or_else(|| {
        let error = Error::invalid(format!("invalid IPv6 address: {text}"));
        match text {
            _ if text.contains(':') => error,
            _ => error.hint("--ip6 takes an address, or slaac, dhcp or off"),
        }
    })
}

/// `--link-local-ip`
fn link_local(texts: &[String]) -> Result<Vec<IpAddr>> {
    let one = |text: &String| {
        let is_local = |ip: &IpAddr| match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        let parsed = text.trim().parse().ok().filter(is_local);
        parsed.ok_or_else(|| {
            Error::invalid(format!("invalid link-local IP address: {text}"))
                .hint("one is in 169.254.0.0/16 or fe80::/10")
        })
    };
    texts.iter().map(one).collect()
}

/// The `--network` flags of `run`; the first takes `--ip`, `--ip6`,
/// `--link-local-ip`, `--mac-address` and `--network-alias` too.
pub fn endpoints(a: &Run) -> Result<Vec<EndpointRequest>> {
    let mut list = Vec::new();
    for text in &a.network {
        list.push(endpoint(text)?);
    }
    let (ips, ip6) = ips(a.ip.as_ref(), a.ip6.as_ref())?;
    let link_local = link_local(&a.link_local_ip)?;
    let mac: Option<MacAddr> = given(a.mac_address.as_ref()).map(str::parse).transpose()?;
    if let Some(first) = list.first_mut() {
        merge(first, (ips, ip6), link_local, mac, &a.network_alias)?;
        net_rate(a.net_rate.as_deref(), &mut first.driver_options)?;
    } else if !a.network_alias.is_empty() {
        return Err(only_user_defined_aliases());
    } else if !(ips.is_empty() && ip6.is_subnet() && link_local.is_empty()) {
        return Err(only_user_defined_ip());
    } else if mac.is_some() {
        return Err(Error::invalid(
            "--mac-address needs a network: without --network there is no interface",
        ));
    } else if a.net_rate.is_some() {
        return Err(Error::invalid(
            "--net-rate needs a network: without --network there is no interface",
        ));
    }
    check(&list)?;
    Ok(list)
}

fn merge(
    first: &mut EndpointRequest,
    (ips, ip6): (PerFamily<IpAddr>, Ip6),
    link_local: Vec<IpAddr>,
    mac: Option<MacAddr>,
    aliases: &[String],
) -> Result<()> {
    let both = |flag: &str, what: &str| {
        Err(conflict(&format!(
            "cannot specify both {flag} and per-network {what}"
        )))
    };
    if !first.aliases.is_empty() && !aliases.is_empty() {
        return both("--network-alias", "alias");
    }
    for (family, flag) in [(Family::Ipv4, "--ip"), (Family::Ipv6, "--ip6")] {
        let is_given = |ips: &PerFamily<IpAddr>, ip6: Ip6| {
            ips.of(family).is_some() || family == Family::Ipv6 && !ip6.is_subnet()
        };
        if is_given(&first.ips, first.ip6) && is_given(&ips, ip6) {
            return both(flag, &format!("{family} address"));
        }
    }
    if !first.link_local.is_empty() && !link_local.is_empty() {
        return both("--link-local-ip", "link-local IP addresses");
    }
    if first.mac.is_some() && mac.is_some() {
        return both("--mac-address", "MAC address");
    }
    first.aliases.extend(aliases.iter().cloned());
    for ip in ips.values() {
        first.ips.put(ip);
    }
    if !ip6.is_subnet() {
        first.ip6 = ip6;
    }
    first.link_local.extend(link_local);
    first.mac = first.mac.or(mac);
    Ok(())
}

fn check(list: &[EndpointRequest]) -> Result<()> {
    for (i, e) in list.iter().enumerate() {
        if e.network.trim().is_empty() {
            return Err(Error::invalid("no name set for network"));
        }
        if e.network.starts_with("container:") {
            return Err(not_yet("--network container:NAME"));
        }
        if !user_defined(e) {
            if !e.aliases.is_empty() {
                return Err(only_user_defined_aliases());
            }
            if !(e.ips.is_empty() && e.ip6.is_subnet() && e.link_local.is_empty()) {
                return Err(only_user_defined_ip());
            }
            if e.mac.is_some() {
                return Err(conflict("mac-address and the network mode"));
            }
            let own = |key: &&&str| e.driver_options.contains_key(**key);
            if let Some(key) = FIELDS.iter().find(own) {
                return Err(Error::invalid(format!(
                    "{key} needs a network of the container's own: there is no link on {}",
                    e.network
                )));
            }
        }
        if list[..i].iter().any(|other| other.network == e.network) {
            return Err(Error::invalid(format!(
                "network {:?} is specified multiple times",
                e.network
            )));
        }
    }
    if list.iter().any(user_defined) && !list.iter().all(user_defined) {
        return Err(conflict(
            "cannot attach both user-defined and non-user-defined network-modes",
        ));
    }
    Ok(())
}

/// Docker's built-in modes have names that no network can have.
fn user_defined(e: &EndpointRequest) -> bool {
    !matches!(e.network.as_str(), "none" | "host" | "bridge" | "default")
}

fn only_user_defined_aliases() -> Error {
    Error::invalid("network-scoped aliases are only supported for user-defined networks")
}

fn only_user_defined_ip() -> Error {
    Error::invalid("user-specified IP address is supported on user-defined networks only")
}

/// As in CSV: a field in double quotes may have commas, and `""` for a quote.
/// `None`: a quote is not closed.
fn fields(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let at = fields.last_mut()?;
        match letter {
            '"' if quoted && letters.next_if_eq(&'"').is_some() => at.push('"'),
            '"' if quoted || at.is_empty() => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => at.push(other),
        }
    }
    (!quoted).then_some(fields)
}

/// `NAME`, or `name=NAME,ip=…,ip6=…,link-local-ip=…,mac-address=…,alias=…,
/// driver-opt=K=V,gw-priority=N`, and dockless's own options: `rate-up=RATE,
/// rate-down=RATE,promisc=on,allmulti=on,extra-mac=MAC`
fn endpoint(text: &str) -> Result<EndpointRequest> {
    if !text.contains('=') {
        return Ok(EndpointRequest {
            network: text.to_owned(),
            ..EndpointRequest::default()
        });
    }
    let refused = |why: String| {
        Error::invalid(format!(
            "invalid argument {text:?} for \"--network\" flag: {why}"
        ))
    };
    let mut e = EndpointRequest::default();
    for field in &fields(text).ok_or_else(|| refused("unbalanced quotes".into()))? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) if !key.is_empty() => (key.trim().to_lowercase(), value.trim()),
            _ => return Err(refused(format!("invalid field {field}"))),
        };
        match key.as_str() {
            "name" => e.network = value.to_owned(),
            "alias" => e.aliases.push(value.to_owned()),
            "ip" => drop(e.ips.put(IpAddr::V4(ipv4(value)?))),
            "ip6" => {
                let (ip, word) = ip6(value)?;
                // The last one counts, as of every field.
                e.ips.take(Family::Ipv6);
                e.ip6 = word;
                ip.map(|ip| e.ips.put(ip));
            }
            "link-local-ip" => e.link_local.extend(link_local(&[value.to_owned()])?),
            "mac-address" => e.mac = Some(value.parse()?),
            "driver-opt" => {
                let (key, value) =
                    driver_option(value, "key value").map_err(|e| refused(e.to_string()))?;
                e.driver_options.insert(key, value);
            }
            "gw-priority" => {
                e.gw_priority = value.parse().map_err(|_| {
                    refused(format!("invalid gw-priority ({value}): invalid syntax"))
                })?;
            }
            EXTRA_MAC if e.driver_options.contains_key(EXTRA_MAC) => {
                let list = e.driver_options.entry(key).or_default();
                list.push_str(&format!(",{value}"));
            }
            own if FIELDS.contains(&own) => {
                e.driver_options.insert(key, value.to_owned());
            }
            _ => return Err(refused(format!("invalid field key {key}"))),
        }
    }
    if e.network.is_empty() {
        return Err(refused("network name/id is not specified".into()));
    }
    Ok(e)
}
