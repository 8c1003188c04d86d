//! `tester`: a web page that shows who the container is on the network and who
//! is asking; `/json` says the same to programs.
//!
//! The port listens before anything else happens, so a client that comes at
//! once waits in the backlog instead of being refused. SIGTERM, SIGINT and
//! SIGQUIT end it with code 0: a first process has no default actions, so they
//! are blocked, and a thread waits for them.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::SystemTime;

use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;
use tiny_http::{Header, Method, Request, Response, Server};

use super::interfaces::{Interface, Path, interfaces, paths};
use crate::base::{Family, MacAddr, Result};
use crate::netlink::Rtnl;
use crate::sys::netns::Host;

const PAGE: &str = include_str!("../../rootfs/page.html");
const PORT: u16 = 5000;

/// What `/json` says.
#[derive(Clone, Debug, Serialize)]
struct Report {
    /// The first 12 digits of the container's id.
    id: String,
    hostname: String,
    interfaces: Vec<InterfaceRow>,
    routes: Vec<RouteRow>,
    client: Client,
    time: String,
}

#[derive(Clone, Debug, Serialize)]
struct InterfaceRow {
    name: String,
    mac: Option<MacAddr>,
    mtu: u32,
    /// With prefix length.
    addresses: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct RouteRow {
    dst: String,
    gateway: Option<IpAddr>,
    dev: Option<String>,
    src: Option<IpAddr>,
}

#[derive(Clone, Debug, Serialize)]
struct Client {
    address: IpAddr,
    port: u16,
}

pub fn main(args: &[OsString]) -> ExitCode {
    match port(&super::texts(args)).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("tester: {text}");
            ExitCode::FAILURE
        }
    }
}

/// The argument, else PORT, else 5000.
fn port(args: &[String]) -> Result<u16, String> {
    let text = match args {
        [] => std::env::var("PORT").unwrap_or_default(),
        [port] => port.clone(),
        _ => return Err(String::from("usage: tester [PORT]")),
    };
    if text.is_empty() {
        return Ok(PORT);
    }
    text.parse()
        .ok()
        .filter(|&port| port != 0)
        .ok_or_else(|| format!("invalid port {text:?}: a number from 1 to 65535"))
}

fn serve(port: u16) -> Result<(), String> {
    // Both families; where the kernel has no IPv6, the other.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .map_err(|e| format!("listen on port {port}: {e}"))?;
    // Before any thread starts: threads inherit the mask.
    end_on_signals()?;
    let server = Server::from_listener(listener, None).map_err(|e| e.to_string())?;
    say(format_args!("listening on port {port}"));
    let mut machine = Machine::default();
    for request in server.incoming_requests() {
        answer(request, &mut machine);
    }
    Ok(())
}

fn end_on_signals() -> Result<(), String> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        signals.add(signal);
    }
    signals
        .thread_block()
        .map_err(|e| format!("block signals: {e}"))?;
    let wait = move || {
        // Nothing is half-done that exiting could spoil.
        if signals.wait().is_ok() {
            std::process::exit(0);
        }
    };
    std::thread::Builder::new()
        .stack_size(32 << 10)
        .spawn(wait)
        .map(drop)
        .map_err(|e| format!("start thread: {e}"))
}

/// A line of the container's log; nobody reading it is no reason to stop.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What stays the same between requests.
#[derive(Debug, Default)]
struct Machine {
    rtnl: Option<Rtnl<Host>>,
    id: Option<String>,
}

fn answer(request: Request, machine: &mut Machine) {
    let mut client = request
        .remote_addr()
        .copied()
        .unwrap_or(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
    // An IPv4 client, as a socket of both families shows it.
    client.set_ip(client.ip().to_canonical());
    let (method, url) = (request.method().clone(), request.url().to_owned());
    let (status, kind, body) = route(&method, &url, client, machine);
    let mut response = Response::from_data(body).with_status_code(status);
    for (name, value) in [("Content-Type", kind), ("Cache-Control", "no-store")] {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    if status == 405
        && let Ok(header) = Header::from_bytes("Allow", "GET, HEAD")
    {
        response.add_header(header);
    }
    say(format_args!("{} {method} {url:?} {status}", client.ip()));
    // A client that went away meanwhile is its own business.
    let _ = request.respond(response);
}

fn route(
    method: &Method,
    url: &str,
    client: SocketAddr,
    machine: &mut Machine,
) -> (u16, &'static str, String) {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !matches!(method, Method::Get | Method::Head) {
        return (405, TEXT, String::from("only GET and HEAD\n"));
    }
    let path = url.split(['?', '#']).next().unwrap_or_default();
    match path {
        "/" | "/json" => match machine.report(client) {
            Ok((report, routes)) if path == "/" => {
                (200, "text/html; charset=utf-8", page(&report, &routes))
            }
            Ok((report, _)) => match serde_json::to_string_pretty(&report) {
                Ok(json) => (200, "application/json", json + "\n"),
                Err(e) => (500, TEXT, format!("{e}\n")),
            },
            Err(e) => (500, TEXT, format!("{e}\n")),
        },
        "/healthz" => (200, TEXT, String::from("ok\n")),
        _ => (404, TEXT, String::from("not found: try / or /json\n")),
    }
}

impl Machine {
    fn report(&mut self, client: SocketAddr) -> Result<(Report, String)> {
        let (links, routes) = match self.read() {
            // A failed exchange may have left answers behind: start afresh.
            Err(_) => {
                self.rtnl = None;
                self.read()?
            }
            read => read?,
        };
        let hostname = nix::unistd::gethostname()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let id = self.id.get_or_insert_with(|| id().unwrap_or_default());
        let report = Report {
            id: if id.is_empty() { &hostname } else { id }.clone(),
            hostname,
            interfaces: links.into_iter().map(InterfaceRow::from).collect(),
            client: Client {
                address: client.ip(),
                port: client.port(),
            },
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            routes: routes.iter().map(RouteRow::from).collect(),
        };
        Ok((report, super::ip::route_lines(&routes)))
    }

    fn read(&mut self) -> Result<(Vec<Interface>, Vec<Path>)> {
        let rtnl = match &mut self.rtnl {
            Some(rtnl) => rtnl,
            none => none.insert(Rtnl::host()?),
        };
        let mut routes = paths(rtnl, Family::Ipv4)?;
        // IPv6 has one of the loopback's, which says nothing of a network.
        let is_out = |route: &Path| route.dev.as_deref() != Some("lo");
        routes.extend(paths(rtnl, Family::Ipv6)?.into_iter().filter(is_out));
        Ok((interfaces(rtnl)?, routes))
    }
}

impl From<Interface> for InterfaceRow {
    fn from(link: Interface) -> Self {
        Self {
            addresses: link.addrs.iter().map(|a| a.cidr.to_string()).collect(),
            name: link.name,
            mac: link.mac,
            mtu: link.mtu,
        }
    }
}

impl From<&Path> for RouteRow {
    fn from(path: &Path) -> Self {
        Self {
            dst: path.dst.clone(),
            gateway: path.gateway,
            dev: path.dev.clone(),
            src: path.prefsrc,
        }
    }
}

/// The container's id: the host name unless that was chosen, hence read from
/// the one place inside that always has it, the paths of the mounts.
fn id() -> Option<String> {
    id_in(&std::fs::read_to_string("/proc/self/mountinfo").ok()?)
}

fn id_in(mountinfo: &str) -> Option<String> {
    let hex = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let found = mountinfo.split(['/', ' ', ':', ',', '\n']).find(hex)?;
    Some(found[..12].to_owned())
}

fn page(report: &Report, routes: &str) -> String {
    // The one that the LAN sees: not the loopback.
    let own = report
        .interfaces
        .iter()
        .find(|i| i.name != "lo" && !i.addresses.is_empty());
    let address = own.and_then(|i| i.addresses.first());
    let mac = own.and_then(|i| i.mac).map(|mac| mac.to_string());
    let mut rows = String::new();
    for link in &report.interfaces {
        let mac = link.mac.filter(|mac| !mac.is_zero());
        // Writing to a String cannot fail.
        let _ = writeln!(
            rows,
            "    <tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&link.name),
            escape(&link.addresses.join(", ")),
            mac.map(|mac| mac.to_string()).unwrap_or_default(),
            link.mtu
        );
    }
    fill(&[
        ("id", escape(&report.id)),
        ("hostname", escape(&report.hostname)),
        ("client", report.client.address.to_string()),
        ("client_port", report.client.port.to_string()),
        (
            "ifname",
            own.map(|i| escape(&i.name))
                .unwrap_or_else(|| String::from("no interface")),
        ),
        (
            "address",
            address
                .cloned()
                .unwrap_or_else(|| String::from("no address")),
        ),
        ("mac", mac.unwrap_or_default()),
        ("interfaces", rows),
        ("routes", escape(routes.trim_end())),
        ("time", report.time.clone()),
    ])
}

/// Replaces `{{name}}` in one pass, so that no value is looked through again.
fn fill(values: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(PAGE.len() + 1024);
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(before);
        let (name, tail) = after.split_once("}}").unwrap_or((after, ""));
        let value = values.iter().find(|(known, _)| *known == name);
        out.push_str(value.map_or("", |(_, value)| value));
        rest = tail;
    }
    out + rest
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            id: "0123456789ab".into(),
            hostname: "we<b".into(),
            interfaces: vec![
                InterfaceRow {
                    name: "lo".into(),
                    mac: Some(MacAddr([0; 6])),
                    mtu: 65536,
                    addresses: vec!["127.0.0.1/8".into()],
                },
                InterfaceRow {
                    name: "eth0".into(),
                    mac: Some(MacAddr([2, 0x42, 10, 0, 2, 5])),
                    mtu: 1500,
                    addresses: vec!["10.0.2.5/24".into()],
                },
            ],
            routes: vec![],
            client: Client {
                address: Ipv4Addr::new(10, 0, 2, 7).into(),
                port: 40000,
            },
            time: "2026-11-23T00:00:00.000Z".into(),
        }
    }

    #[test]
    fn page_has_everything_and_no_hole() {
        let page = page(&report(), "default via 10.0.2.1 dev eth0 \n");
        for text in [
            "0123456789ab",
            "we&lt;b",
            "10.0.2.5/24",
            "02:42:0a:00:02:05",
            "default via 10.0.2.1 dev eth0",
            "10.0.2.7",
            "</html>",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("{{") && !page.contains("}}"));
    }

    #[test]
    fn json_keys() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["id"], "0123456789ab");
        assert_eq!(json["client"]["address"], "10.0.2.7");
        assert_eq!(json["interfaces"][1]["mac"], "02:42:0a:00:02:05");
        assert_eq!(json["interfaces"][1]["addresses"][0], "10.0.2.5/24");
    }

    #[test]
    fn only_reads_are_served() {
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let mut machine = Machine::default();
        let mut status = |method, url| route(&method, url, client, &mut machine).0;
        assert_eq!(status(Method::Get, "/healthz?x"), 200);
        assert_eq!(status(Method::Head, "/healthz"), 200);
        assert_eq!(status(Method::Get, "/nope"), 404);
        assert_eq!(status(Method::Post, "/"), 405);
    }

    #[test]
    fn ports() {
        let given = |port: &str| super::port(&[port.to_owned()]);
        assert_eq!(given("80"), Ok(80));
        assert!(given("0").is_err() && given("70000").is_err() && given("-1").is_err());
    }

    #[test]
    fn id_from_mounts() {
        let id = "ab".repeat(32);
        let mountinfo = format!(
            "1 2 0:3 / / rw - overlay overlay rw,lowerdir=/var/lib/x,upperdir=/var/lib/dockless/containers/{id}/upper\n"
        );
        assert_eq!(id_in(&mountinfo).as_deref(), Some("abababababab"));
        assert_eq!(id_in("1 2 0:3 / / rw - ext4 /dev/sda rw\n"), None);
    }
}
