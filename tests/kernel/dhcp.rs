//! Addresses from real DHCP servers, dnsmasq and Kea, on the gateway of the
//! lab. What the client says is judged by tshark, what the server has come to
//! believe by its own lease file, what the container got by `ip -j`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dockless::lab::{Lab, Machine};
use dockless::sys::arp;
use serde_json::Value;

use crate::acd;
use crate::harness::{Test, Verdict, failed, patience, slow};
use crate::judge::{self, ask, eventually, file_in, inside, said};

pub(crate) fn tests() -> Vec<Test> {
    let dnsmasq: &[&str] = &["ip", "nsenter", "ping", "dnsmasq", "tshark"];
    let kea: &[&str] = &["ip", "nsenter", "ping", "kea-dhcp4", "tshark"];
    vec![
        Test::new(a_lease_is_all_that_a_server_says).needs(dnsmasq),
        Test::new(it_is_kept_over_a_stop_and_given_back_at_the_end).needs(dnsmasq),
        Test::new(ports_and_names_and_the_host_lead_to_it)
            .needs(&["ip", "nsenter", "ping", "dnsmasq", "dig"]),
        Test::new(nobody_answers).needs(&["ip"]),
        Test::new(the_address_that_is_wanted_or_none).needs(dnsmasq),
        Test::new(a_server_that_is_gone_when_the_container_comes_back).needs(dnsmasq),
        Test::new(an_address_that_somebody_has_is_declined).needs(dnsmasq),
        Test::new(a_leased_address_is_defended).needs(dnsmasq),
        Test::new(a_server_that_says_no).needs(dnsmasq),
        Test::new(connected_and_disconnected_live).needs(dnsmasq),
        Test::new(forged_answers_change_nothing).needs(dnsmasq),
        Test::new(kea_gives_it_back_and_again).needs(kea),
        Test::new(renewed_lost_and_another_live).needs(kea),
        Test::new(refused_while_it_runs).needs(dnsmasq),
        Test::new(rules_are_for_the_client_too).needs(kea),
        Test::new(at_rest_it_sleeps).needs(dnsmasq),
    ]
    .into_iter()
    .map(|test| test.limit_s(120))
    .collect()
}

// ---- dockless ---------------------------------------------------------------

fn network() -> Verdict {
    said(&[
        "network",
        "create",
        "-d",
        "macvlan",
        "--ipam-driver",
        "dhcp",
        "-o",
        "parent=eth1",
        "lan",
    ])
    .map(drop)
}

fn up(name: &str, flags: &[&str]) -> Verdict {
    let run = ["run", "-d", "--network", "lan", "--name", name];
    said(&[&run, flags, &["tester"]].concat()).map(drop)
}

fn format(name: &str, format: &str) -> Verdict<String> {
    Ok(said(&["inspect", "-f", format, name])?.trim().to_owned())
}

/// What `inspect` says of the lease.
pub(crate) fn lease(name: &str) -> Verdict<Value> {
    let json = format(name, "{{json .Dockless.DHCP}}")?;
    Ok(serde_json::from_str::<Value>(&json)?["lan"].take())
}

/// The address of eth0 as the kernel has it; empty without.
pub(crate) fn address(name: &str) -> Verdict<String> {
    let links = inside(name, &["ip", "-j", "-4", "addr", "show", "dev", "eth0"])?.json()?;
    let addr = &links[0]["addr_info"][0]["local"];
    Ok(addr.as_str().unwrap_or_default().to_owned())
}

/// Nothing of any container is left.
fn nothing_is_left() -> Verdict {
    let state = std::env::var("DOCKLESS_STATE").unwrap();
    let leases = fs::read_dir(format!("{state}/leases"))?
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'));
    assert_eq!(leases.collect::<Vec<_>>(), [""; 0]);
    eventually("no macvlan is left", 2, || {
        let links = judge::ip(&["link", "show", "type", "macvlan"])?;
        Ok(links.as_array().is_none_or(Vec::is_empty))
    })
}

// ---- servers ----------------------------------------------------------------

pub(crate) fn scratch(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("TMPDIR").unwrap_or("/tmp".into())).join(name)
}

/// A server; it ends with this.
pub(crate) struct Server {
    child: Child,
    pub(crate) leases: PathBuf,
    log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(machine: &Machine, command: &mut Command, leases: PathBuf) -> Verdict<Self> {
        Self::start_on(machine, command, leases, ("udp", ":0043 "))
    }

    /// Ready when it has a port, as /proc/net writes it.
    pub(crate) fn start_on(
        machine: &Machine,
        command: &mut Command,
        leases: PathBuf,
        (table, port): (&str, &str),
    ) -> Verdict<Self> {
        let log = scratch("server.log");
        let out = fs::File::create(&log)?;
        command
            .env("PATH", judge::search_path())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        let server = Self {
            child: machine.spawn(command)?,
            leases,
            log,
        };
        eventually("the server listens", 15, || {
            let path = format!("/proc/net/{table}");
            let sockets = judge::on(machine, &["cat", &path])?.success()?;
            Ok(sockets.stdout.contains(port))
        })
        .inspect_err(|_| {
            eprintln!("{}", fs::read_to_string(&server.log).unwrap_or_default());
        })?;
        Ok(server)
    }

    /// Lines of its lease file.
    pub(crate) fn known(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.leases).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Who is the client of an address (dnsmasq's file).
    pub(crate) fn client_of(&self, ip: &str) -> Option<String> {
        let line = self
            .known()
            .into_iter()
            .find(|l| l.contains(&format!(" {ip} ")))?;
        line.split(' ').nth(4).map(str::to_owned)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// `first` to `last` of 10.0.2.0/24; `--no-ping`, since 3 s of looking would
/// test nothing of ours.
pub(crate) fn dnsmasq(lan: &Lab, first: u8, last: u8, flags: &[&str]) -> Verdict<Server> {
    let leases = scratch("dnsmasq.leases");
    let mut command = Command::new("dnsmasq");
    command
        .args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--no-ping",
        ])
        .args([
            "--interface=eth0",
            "--bind-interfaces",
            "--user=",
            "--group=",
        ])
        .args(["--log-facility=-", "--log-dhcp", "--dhcp-authoritative"])
        .arg(format!(
            "--dhcp-range=10.0.2.{first},10.0.2.{last},255.255.255.0,10m"
        ))
        .arg(format!("--pid-file={}", scratch("dnsmasq.pid").display()))
        .arg(format!("--dhcp-leasefile={}", leases.display()))
        .args(flags);
    Server::start(&lan.gateway, &mut command, leases)
}

/// Leases for so many seconds; a quarter later they are renewed.
pub(crate) fn kea(lan: &Lab, first: u8, last: u8, seconds: u32) -> Verdict<Server> {
    let leases = scratch("kea.leases");
    let config = scratch("kea.json");
    let text = serde_json::json!({"Dhcp4": {
        "interfaces-config": {"interfaces": ["eth0"]},
        "lease-database": {"type": "memfile", "persist": true, "name": leases, "lfc-interval": 0},
        "valid-lifetime": seconds, "renew-timer": seconds / 4,
        "rebind-timer": seconds * 5 / 8,
        "authoritative": true,
        "subnet4": [{
            "id": 1,
            "subnet": "10.0.2.0/24",
            "pools": [{"pool": format!("10.0.2.{first} - 10.0.2.{last}")}],
            "option-data": [
                {"name": "routers", "data": "10.0.2.1"},
                {"name": "domain-search", "data": "kea.example"},
            ],
        }],
        "loggers": [{"name": "kea-dhcp4", "severity": "INFO",
            "output_options": [{"output": "stdout"}]}],
    }});
    fs::write(&config, text.to_string())?;
    let mut command = Command::new("kea-dhcp4");
    command
        .arg("-c")
        .arg(&config)
        .env("KEA_PIDFILE_DIR", scratch(""))
        .env("KEA_LOCKFILE_DIR", scratch(""));
    Server::start(&lan.gateway, &mut command, leases)
}

// ---- tshark -----------------------------------------------------------------

/// What went over the gateway's link.
pub(crate) struct Wire {
    child: Child,
    path: PathBuf,
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Wire {
    pub(crate) fn tap(machine: &Machine) -> Verdict<Self> {
        Self::tap_of(machine, "udp port 67 or udp port 68 or arp or icmp")
    }

    pub(crate) fn tap_of(machine: &Machine, filter: &str) -> Verdict<Self> {
        // tcpdump becomes another user, which a user namespace does not let it.
        judge::installed("dumpcap")?;
        let path = scratch("wire.pcap");
        let _ = fs::remove_file(&path);
        let mut command = Command::new("dumpcap");
        command
            .args(["-q", "-i", "eth0", "-w"])
            .arg(&path)
            .args(["-f", filter])
            .env("PATH", judge::search_path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = machine.spawn(&mut command)?;
        let wire = Self { child, path };
        eventually("dumpcap listens", 10, || {
            Ok(fs::metadata(&wire.path).is_ok_and(|m| m.len() >= 24))
        })?;
        sleep(Duration::from_millis(300));
        Ok(wire)
    }

    /// These fields of the packets that a filter takes; a field that a packet
    /// has not is empty.
    pub(crate) fn read(&self, filter: &str, fields: &[&str]) -> Verdict<Vec<Vec<String>>> {
        sleep(Duration::from_millis(400));
        let path = self.path.to_str().unwrap();
        let mut argv = vec!["tshark", "-r", path, "-Y", filter, "-T", "fields"];
        for field in fields {
            argv.extend(["-e", field]);
        }
        let out = judge::run(&argv)?.success()?.stdout;
        let lines = out.lines();
        Ok(lines
            .map(|line| line.split('\t').map(str::to_owned).collect())
            .collect())
    }

    /// Of the client's messages of a kind: ciaddr, option 50, option 54, to.
    pub(crate) fn asked(&self, kind: u8) -> Verdict<Vec<[String; 4]>> {
        let fields = [
            "dhcp.ip.client",
            "dhcp.option.requested_ip_address",
            "dhcp.option.dhcp_server_id",
            "ip.dst",
        ];
        let filter = format!("dhcp.option.dhcp == {kind}");
        let rows = self.read(&filter, &fields)?;
        Ok(rows.into_iter().map(|r| r.try_into().unwrap()).collect())
    }
}

pub(crate) const DISCOVER: u8 = 1;
pub(crate) const REQUEST: u8 = 3;
pub(crate) const DECLINE: u8 = 4;
const NAK: u8 = 6;
pub(crate) const RELEASE: u8 = 7;

// ---- dnsmasq ----------------------------------------------------------------

fn a_lease_is_all_that_a_server_says() -> Verdict {
    let lan = Lab::here(1)?;
    let server = dnsmasq(
        &lan,
        50,
        99,
        &[
            "--dhcp-option=26,1400",
            "--dhcp-option=42,10.0.2.9",
            "--dhcp-option=6,10.0.2.1,10.0.2.7",
            "--dhcp-option=119,lan.example,example.org",
            "--dhcp-option=121,0.0.0.0/0,10.0.2.1,10.9.0.0/16,10.0.2.7,10.8.0.1/32,0.0.0.0",
        ],
    )?;
    let wire = Wire::tap(&lan.gateway)?;
    network()?;
    up("my_web", &[])?;
    let ip = address("my_web")?;
    assert!(ip.starts_with("10.0.2."), "{ip}");
    let link = &inside("my_web", &["ip", "-j", "link", "show", "eth0"])?.json()?[0];
    assert_eq!(link["mtu"], 1400);
    let routes = inside("my_web", &["ip", "-j", "route"])?.json()?;
    let way = |dst: &str| {
        let all = routes.as_array().unwrap();
        let route = all.iter().find(|r| r["dst"] == dst);
        route.unwrap_or_else(|| panic!("no {dst}: {routes}"))["gateway"].clone()
    };
    assert_eq!(way("default"), "10.0.2.1");
    assert_eq!(way("10.9.0.0/16"), "10.0.2.7");
    assert_eq!(way("10.8.0.1"), Value::Null);
    let resolv = file_in("my_web", "/etc/resolv.conf")?;
    assert!(
        resolv.contains("\nsearch lan.example example.org\n"),
        "{resolv}"
    );
    assert!(
        resolv.contains("# ExtServers: [10.0.2.1 10.0.2.7]\n"),
        "{resolv}"
    );
    assert!(file_in("my_web", "/etc/hosts")?.contains(&format!("\n{ip}\t")));
    // What `inspect` says, and what the server has noted.
    let known = lease("my_web")?;
    assert_eq!(known["State"], "BOUND");
    assert_eq!(known["Server"], "10.0.2.1");
    assert_eq!(known["Address"], format!("{ip}/24"));
    assert_eq!(known["NTP"][0], "10.0.2.9");
    assert_eq!(known["LastError"], "");
    for time in ["Obtained", "Renew", "Rebind", "Expires"] {
        assert!(known[time].as_str().unwrap().starts_with("20"), "{known}");
    }
    assert_eq!(
        format("my_web", "{{.NetworkSettings.Networks.lan.IPAddress}}")?,
        ip
    );
    assert_eq!(
        format("my_web", "{{.NetworkSettings.Networks.lan.Gateway}}")?,
        "10.0.2.1"
    );
    let client = server.client_of(&ip);
    assert_eq!(
        client.as_deref(),
        known["ClientID"].as_str(),
        "{:?}",
        server.known()
    );
    assert!(server.known()[0].contains(" my-web "));
    // As others read what was asked.
    let fields = [
        "dhcp.option.hostname",
        "dhcp.option.request_list_item",
        "udp.checksum.status",
    ];
    let asked = wire.read("dhcp.option.dhcp == 1", &fields)?;
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0][0], "my-web");
    for option in ["3", "6", "15", "26", "42", "119", "121"] {
        assert!(asked[0][1].split(',').any(|o| o == option), "{asked:?}");
    }
    let bad = wire.read(
        "dhcp.type == 1 && (_ws.malformed || _ws.expert.severity == \"Error\")",
        &["frame.number"],
    )?;
    assert!(bad.is_empty(), "{bad:?}");
    let [request] = &wire.asked(REQUEST)?[..] else {
        return failed("not one REQUEST");
    };
    assert_eq!(
        *request,
        ["0.0.0.0", &ip, "10.0.2.1", "255.255.255.255"].map(str::to_owned)
    );
    // Asked for before it was used: from nobody.
    let arp = format!("arp.src.proto_ipv4 == 0.0.0.0 && arp.dst.proto_ipv4 == {ip}");
    assert_eq!(wire.read(&arp, &["frame.number"])?.len(), 2);
    said(&["rm", "-f", "my_web"])?;
    nothing_is_left()
}

fn it_is_kept_over_a_stop_and_given_back_at_the_end() -> Verdict {
    let lan = Lab::here(0)?;
    let server = dnsmasq(&lan, 50, 99, &[])?;
    network()?;
    up("web", &[])?;
    let ip = address("web")?;
    let mac = format("web", "{{.NetworkSettings.Networks.lan.MacAddress}}")?;
    let wire = Wire::tap(&lan.gateway)?;
    said(&["stop", "-t", "0", "web"])?;
    assert!(wire.asked(RELEASE)?.is_empty());
    assert!(server.client_of(&ip).is_some());
    assert_eq!(lease("web")?["Address"], format!("{ip}/24"));
    assert_eq!(lease("web")?["State"], "INIT-REBOOT");
    // INIT-REBOOT: the address, no server, none of its own yet.
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    assert!(wire.asked(DISCOVER)?.is_empty());
    let reboot = ["0.0.0.0", &ip, "", "255.255.255.255"].map(str::to_owned);
    assert_eq!(wire.asked(REQUEST)?, std::slice::from_ref(&reboot));
    // Also when nobody could say goodbye.
    let supervisor = format("web", "{{.Dockless.SupervisorPid}}")?;
    judge::run(&["kill", "-9", &supervisor])?.success()?;
    eventually("it has ended", 5, || {
        Ok(format("web", "{{.State.Running}}")? == "false")
    })?;
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    assert_eq!(wire.asked(REQUEST)?, [reboot.clone(), reboot]);
    // With the container it goes back, whether or not that runs.
    said(&["stop", "-t", "0", "web"])?;
    said(&["rm", "web"])?;
    let goodbye = [&ip, "", "10.0.2.1", "10.0.2.1"].map(str::to_owned);
    eventually("it is said", 5, || Ok(!wire.asked(RELEASE)?.is_empty()))?;
    assert_eq!(wire.asked(RELEASE)?, std::slice::from_ref(&goodbye));
    eventually("the server knows", 2, || {
        Ok(server.client_of(&ip).is_none())
    })?;
    // Made again, it is the same client.
    up("other", &[])?;
    up("web", &[])?;
    assert_eq!(address("web")?, ip);
    assert_eq!(
        format("web", "{{.NetworkSettings.Networks.lan.MacAddress}}")?,
        mac
    );
    said(&["rm", "-f", "web"])?;
    eventually("it is said", 5, || Ok(wire.asked(RELEASE)?.len() > 1))?;
    assert_eq!(wire.asked(RELEASE)?, [goodbye.clone(), goodbye]);
    said(&[
        "run",
        "--rm",
        "--name",
        "short",
        "--network",
        "lan",
        "tester",
        "ip",
        "addr",
    ])?;
    eventually("the server knows", 5, || Ok(server.known().len() == 1))?;
    eventually("it is said", 5, || Ok(wire.asked(RELEASE)?.len() == 3))?;
    // Also that of a start that comes to nothing.
    let flags = ["run", "--rm", "--network", "lan", "tester", "/no/such"];
    assert_eq!(ask(&flags)?.code, Some(127));
    eventually("it is said", 5, || Ok(wire.asked(RELEASE)?.len() == 4))?;
    eventually("the server knows", 5, || Ok(server.known().len() == 1))?;
    // A name that is a lease's stays as long as it runs.
    let refused = ask(&["rename", "other", "third"])?;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("leased under that name"),
        "{}",
        refused.stderr
    );
    said(&["rm", "-f", "other"])?;
    nothing_is_left()
}

fn ports_and_names_and_the_host_lead_to_it() -> Verdict {
    let lan = Lab::here(0)?;
    let _server = dnsmasq(&lan, 50, 99, &[])?;
    network()?;
    said(&["network", "host-access", "lan", "on"])?;
    up("web", &["-p", "5000:5000"])?;
    up("cat", &[])?;
    let ip = address("web")?;
    judge::on(&lan.gateway, &["ping", "-c1", "-W2", &ip])?.success()?;
    judge::run(&["ping", "-c1", "-W2", &ip])?.success()?;
    let hosts = said(&["hosts"])?;
    assert!(
        hosts.contains(&format!("{ip}\tweb")) || hosts.contains(&format!("{ip} web")),
        "{hosts}"
    );
    let found = inside("cat", &["dig", "+short", "@127.0.0.11", "web"])?.stdout;
    assert_eq!(found.trim(), ip);
    let port = lan.gateway.run(|| {
        let to = SocketAddr::from(([10, 0, 2, 4], 5000));
        Ok(std::net::TcpStream::connect_timeout(&to, Duration::from_secs(3)).is_ok())
    })?;
    assert!(port);
    let shown = said(&["network", "inspect", "lan"])?;
    let shown: Value = serde_json::from_str(&shown)?;
    assert_eq!(shown[0]["IPAM"]["Driver"], "dhcp");
    assert_eq!(shown[0]["IPAM"]["Config"], Value::Array(Vec::new()));
    assert!(shown.to_string().contains(&format!("{ip}/24")));
    let busy = ask(&["network", "rm", "lan"])?;
    assert!(
        busy.stderr.contains("has active endpoints"),
        "{}",
        busy.stderr
    );
    said(&["rm", "-f", "web", "cat"])?;
    said(&["network", "rm", "lan"])?;
    nothing_is_left()
}

fn nobody_answers() -> Verdict {
    let _lan = Lab::here(0)?;
    network()?;
    let began = Instant::now();
    let run = ask(&["run", "--rm", "--name", "web", "--network", "lan", "tester"])?;
    let took = began.elapsed();
    assert_eq!(run.code, Some(125));
    for phrase in [
        "no DHCP server answered within 10 s",
        "network lan asks the DHCP server behind eth1",
        "dockless doctor eth1",
    ] {
        assert!(run.stderr.contains(phrase), "{}", run.stderr);
    }
    assert!((10..14).contains(&took.as_secs()), "{took:?}");
    assert_eq!(said(&["ps", "-aq"])?, "");
    nothing_is_left()
}

fn the_address_that_is_wanted_or_none() -> Verdict {
    let lan = Lab::here(0)?;
    let server = dnsmasq(&lan, 50, 60, &[])?;
    network()?;
    up(
        "web",
        &["--ip", "10.0.2.55", "--mac-address", "02:00:00:00:00:55"],
    )?;
    assert_eq!(address("web")?, "10.0.2.55");
    assert!(server.known()[0].contains(" 02:00:00:00:00:55 10.0.2.55 "));
    let began = Instant::now();
    for ip in ["10.0.2.55", "10.0.2.200"] {
        let run = ask(&["run", "--rm", "--network", "lan", "--ip", ip, "tester"])?;
        assert_eq!(run.code, Some(125));
        let phrase = format!("DHCP server 10.0.2.1 does not give {ip}: it offers 10.0.2.");
        assert!(run.stderr.contains(&phrase), "{}", run.stderr);
    }
    assert!(began.elapsed() < patience(10));
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

fn a_server_that_is_gone_when_the_container_comes_back() -> Verdict {
    let lan = Lab::here(0)?;
    let server = dnsmasq(&lan, 50, 99, &[])?;
    network()?;
    up("web", &[])?;
    let ip = address("web")?;
    said(&["stop", "-t", "0", "web"])?;
    drop(server);
    // What is not over may be used (RFC 2131 §3.2), and is looked after.
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    let known = lease("web")?;
    assert!(
        known["LastError"]
            .as_str()
            .unwrap()
            .contains("lease of before"),
        "{known}"
    );
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

fn an_address_that_somebody_has_is_declined() -> Verdict {
    let lan = Lab::here(1)?;
    let server = dnsmasq(&lan, 50, 99, &[])?;
    network()?;
    up("web", &[])?;
    let ip = address("web")?;
    said(&["rm", "-f", "web"])?;
    // Somebody takes it without a word to the server.
    let taken = format!("{ip}/24");
    judge::on(
        &lan.others[0],
        &["ip", "addr", "add", &taken, "dev", "eth0"],
    )?
    .success()?;
    let wire = Wire::tap(&lan.gateway)?;
    up("web", &[])?;
    let other = address("web")?;
    assert!(other.starts_with("10.0.2.") && other != ip, "{other}");
    let decline = ["0.0.0.0", &ip, "10.0.2.1", "255.255.255.255"].map(str::to_owned);
    assert_eq!(wire.asked(DECLINE)?, [decline]);
    assert!(server.log().contains("DHCPDECLINE"), "{}", server.log());
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

fn a_leased_address_is_defended() -> Verdict {
    let lan = Lab::here(1)?;
    let _server = dnsmasq(&lan, 50, 99, &[])?;
    network()?;
    up("web", &[])?;
    let ip: Ipv4Addr = address("web")?.parse()?;
    let stolen = arp::question(acd::STRANGER, ip, ip);
    eventually("a defence", 5, || {
        acd::send(&lan.others[0], &stolen)?;
        let known = acd::conflicts("web")?;
        Ok(known[0]["Outcome"] == "defended" && known[0]["Defended"] == 1)
    })?;
    assert_eq!(acd::conflicts("web")?[0]["IPv4Address"], ip.to_string());
    // The claim goes with the address.
    said(&["rm", "-f", "web"])?;
    up("docker", &["--acd=off"])?;
    let ip: Ipv4Addr = address("docker")?.parse()?;
    acd::send(&lan.others[0], &arp::question(acd::STRANGER, ip, ip))?;
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(acd::conflicts("docker")?, Value::Array(Vec::new()));
    said(&["rm", "-f", "docker"])?;
    nothing_is_left()
}

fn a_server_that_says_no() -> Verdict {
    let lan = Lab::here(0)?;
    let server = dnsmasq(&lan, 50, 59, &[])?;
    network()?;
    up("web", &[])?;
    let ip = address("web")?;
    said(&["stop", "-t", "0", "web"])?;
    // Another range, and nothing remembered.
    fs::remove_file(&server.leases)?;
    drop(server);
    let _server = dnsmasq(&lan, 70, 79, &[])?;
    let wire = Wire::tap(&lan.gateway)?;
    said(&["start", "web"])?;
    let other = address("web")?;
    assert!(other.starts_with("10.0.2.7") && other != ip, "{other}");
    assert_eq!(wire.asked(NAK)?.len(), 1);
    assert_eq!(wire.asked(DISCOVER)?.len(), 1);
    assert!(
        lease("web")?["LastError"]
            .as_str()
            .unwrap()
            .contains("said no")
    );
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

fn connected_and_disconnected_live() -> Verdict {
    let lan = Lab::here(0)?;
    let server = dnsmasq(&lan, 50, 99, &["--dhcp-option=119,lan.example"])?;
    network()?;
    said(&["run", "-d", "--name", "web", "tester"])?;
    said(&["network", "connect", "lan", "web"])?;
    let ip = address("web")?;
    assert!(server.client_of(&ip).is_some());
    assert!(file_in("web", "/etc/hosts")?.contains(&ip));
    assert!(file_in("web", "/etc/resolv.conf")?.contains("search lan.example"));
    let routes = inside("web", &["ip", "-j", "route", "show", "default"])?.json()?;
    assert_eq!(routes[0]["gateway"], "10.0.2.1");
    said(&["network", "disconnect", "lan", "web"])?;
    eventually("the server knows", 2, || Ok(server.known().is_empty()))?;
    assert!(!file_in("web", "/etc/hosts")?.contains(&ip));
    nothing_is_left()?;
    // Nobody there: refused, and the container goes on.
    drop(server);
    let refused = ask(&["network", "connect", "lan", "web"])?;
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("no DHCP server answered"),
        "{}",
        refused.stderr
    );
    assert_eq!(format("web", "{{.State.Running}}")?, "true");
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

/// A machine of the LAN that answers whatever it hears with what is wrong in
/// one way each. What it has sent.
fn forger(machine: &Machine) -> Verdict<Arc<AtomicU32>> {
    let socket = machine.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
        socket.set_broadcast(true).unwrap();
        Ok(socket)
    })?;
    let count = Arc::new(AtomicU32::new(0));
    let sent = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut asked = [0; 1500];
        while let Ok((length, _)) = socket.recv_from(&mut asked) {
            if length < 240 {
                continue;
            }
            let answer = |kind: u8, change: &dyn Fn(&mut Vec<u8>)| {
                let mut answer = asked[..240].to_vec();
                answer[0] = 2;
                answer[16..20].copy_from_slice(&[10, 0, 2, 66]);
                answer.extend([53, 1, kind, 54, 4, 10, 0, 2, 7, 51, 4, 0, 0, 14, 16]);
                answer.extend([1, 4, 255, 255, 255, 0]);
                change(&mut answer);
                answer.push(255);
                answer
            };
            for kind in [2, 5, 6] {
                for forged in [
                    answer(kind, &|a| a[4] ^= 1),        // another transaction
                    answer(kind, &|a| a[28] ^= 1),       // another client
                    answer(kind, &|a| a.truncate(241)),  // cut off
                    answer(kind, &|a| a[243..].fill(9)), // nonsense
                    answer(kind, &|a| a.extend([61, 3, 0, b'n', b'o'])), // another's id
                ] {
                    let to = SocketAddr::from(([255, 255, 255, 255], 68));
                    let _ = socket.send_to(&forged, to);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
    Ok(sent)
}

fn forged_answers_change_nothing() -> Verdict {
    let lan = Lab::here(1)?;
    let sent = forger(&lan.others[0])?;
    let server = dnsmasq(&lan, 50, 59, &[])?;
    network()?;
    up("web", &[])?;
    let ip = address("web")?;
    assert!(ip.starts_with("10.0.2.5"), "{ip}");
    said(&["stop", "-t", "0", "web"])?;
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    assert_eq!(lease("web")?["LastError"], "");
    assert_eq!(lease("web")?["Server"], "10.0.2.1");
    // DISCOVER, REQUEST, and REQUEST again.
    assert!(sent.load(Ordering::Relaxed) >= 45);
    drop(server);
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

/// Renewals come from a timer; until then nothing wakes it, whatever the LAN
/// says to others.
fn at_rest_it_sleeps() -> Verdict {
    let lan = Lab::here(1)?;
    let _server = dnsmasq(&lan, 50, 99, &[])?;
    network()?;
    up("web", &[])?;
    let supervisor = format("web", "{{.Dockless.SupervisorPid}}")?;
    let switches = || -> Verdict<u64> {
        let status = fs::read_to_string(format!("/proc/{supervisor}/status"))?;
        let line = status.lines().find(|l| l.starts_with("voluntary_ctxt"));
        let count = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
        Ok(count.unwrap())
    };
    // Announcements and giving memory back: 3 s.
    sleep(Duration::from_secs(4));
    let before = switches()?;
    let shout = lan.others[0].run(|| {
        let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
        socket.set_broadcast(true).unwrap();
        Ok(socket)
    })?;
    for _ in 0..50 {
        shout.send_to(&[2; 300], SocketAddr::from(([255, 255, 255, 255], 68)))?;
    }
    sleep(Duration::from_secs(2));
    assert_eq!(switches()?, before);
    let fds = fs::read_dir(format!("/proc/{supervisor}/fd"))?;
    let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let timers = links.filter(|l| l.to_string_lossy().contains("timerfd"));
    assert_eq!(timers.count(), 1);
    said(&["rm", "-f", "web"])?;
    Ok(())
}

// ---- Kea --------------------------------------------------------------------

/// Kea's file has a line for each change: address, MAC, client id, lifetime.
pub(crate) fn kea_lifetime(server: &Server, ip: &str) -> Option<String> {
    let lines = server.known();
    let line = lines
        .iter()
        .rev()
        .find(|l| l.starts_with(&format!("{ip},")))?;
    line.split(',').nth(3).map(str::to_owned)
}

fn kea_gives_it_back_and_again() -> Verdict {
    let lan = Lab::here(0)?;
    let server = kea(&lan, 50, 99, 3600)?;
    network()?;
    up("web", &[])?;
    let ip = address("web")?;
    let known = lease("web")?;
    assert_eq!(known["Search"][0], "kea.example");
    let line = server
        .known()
        .into_iter()
        .find(|l| l.starts_with(&format!("{ip},")));
    let line = line.unwrap_or_default();
    assert!(line.contains(known["ClientID"].as_str().unwrap()), "{line}");
    assert!(line.contains(",web,"), "{line}");
    assert_eq!(kea_lifetime(&server, &ip).as_deref(), Some("3600"));
    let wire = Wire::tap(&lan.gateway)?;
    said(&["stop", "-t", "0", "web"])?;
    said(&["start", "web"])?;
    assert_eq!(address("web")?, ip);
    assert!(wire.asked(DISCOVER)?.is_empty());
    said(&["rm", "-f", "web"])?;
    eventually("Kea knows", 3, || {
        Ok(kea_lifetime(&server, &ip).as_deref() == Some("0"))
    })?;
    up("web", &[])?;
    assert_eq!(address("web")?, ip);
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

fn renewed_lost_and_another_live() -> Verdict {
    let lan = Lab::here(0)?;
    let server = kea(&lan, 50, 59, 8)?;
    network()?;
    up("web", &["-p", "5000:5000"])?;
    let ip = address("web")?;
    let expires = |name: &str| -> Verdict<String> {
        Ok(lease(name)?["Expires"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    };
    let first = expires("web")?;
    let wire = Wire::tap(&lan.gateway)?;
    eventually("it is renewed", 6, || Ok(expires("web")? != first))?;
    assert_eq!(address("web")?, ip);
    assert_eq!(lease("web")?["State"], "BOUND");
    eventually("it is captured", 3, || Ok(!wire.asked(REQUEST)?.is_empty()))?;
    // By UDP to the server, from the address, with no word about either.
    let renewal = [&ip, "", "", "10.0.2.1"].map(str::to_owned);
    assert_eq!(wire.asked(REQUEST)?[0], renewal);
    assert!(wire.read("icmp", &["frame.number"])?.is_empty());
    let sources = wire.read("dhcp.option.dhcp == 3", &["ip.src"])?;
    assert_eq!(sources[0][0], ip);
    // The server goes: to everybody, and then it is over.
    drop(server);
    eventually("it is over", 15, || Ok(address("web")?.is_empty()))?;
    let rebinding = [&ip, "", "", "255.255.255.255"].map(str::to_owned);
    assert!(wire.asked(REQUEST)?.contains(&rebinding));
    let known = lease("web")?;
    assert!(
        known["LastError"].as_str().unwrap().contains("is over"),
        "{known}"
    );
    assert_eq!(known["Server"], "");
    assert_eq!(format("web", "{{.State.Running}}")?, "true");
    assert_eq!(
        format("web", "{{.NetworkSettings.Networks.lan.IPAddress}}")?,
        ""
    );
    nothing_leads_to(&ip)?;
    stays_inside("web", &ip)?;
    // Another one comes, with another range.
    fs::remove_file(scratch("kea.leases"))?;
    let server = kea(&lan, 70, 79, 8)?;
    eventually("it has another", 40, || {
        Ok(address("web")?.starts_with("10.0.2.7"))
    })?;
    leads_to(&lan, "web", &address("web")?)?;
    said(&["rm", "-f", "web"])?;
    drop(server);
    nothing_is_left()
}

/// A renewal that is refused: the address goes at once, and another one comes.
fn refused_while_it_runs() -> Verdict {
    let lan = Lab::here(0)?;
    // T1 and T2: the other server has to be there by T1, since the next renewal
    // is a minute later.
    let soon = format!("--dhcp-option=58,{}", 8 * slow());
    let soon = [soon.as_str(), "--dhcp-option=59,300"];
    let server = dnsmasq(&lan, 50, 59, &soon)?;
    network()?;
    up("web", &["-p", "5000:5000"])?;
    let ip = address("web")?;
    assert!(ping_from("web", &ip)?);
    stays_inside("web", "10.0.2.99")?;
    fs::remove_file(&server.leases)?;
    drop(server);
    let wire = Wire::tap(&lan.gateway)?;
    let _server = dnsmasq(&lan, 70, 79, &[])?;
    eventually("it has another", 20, || {
        Ok(address("web")?.starts_with("10.0.2.7"))
    })?;
    assert_eq!(wire.asked(NAK)?.len(), 1);
    leads_to(&lan, "web", &address("web")?)?;
    nothing_leads_to(&ip)?;
    assert!(ping_from("web", &address("web")?)?);
    stays_inside("web", &ip)?;
    let known = lease("web")?;
    let said_no = "server 10.0.2.1 said no";
    assert!(
        known["LastError"].as_str().unwrap().contains(said_no),
        "{known}"
    );
    said(&["rm", "-f", "web"])?;
    nothing_is_left()
}

/// A renewal and a RELEASE are UDP from inside the namespace: where rules deny
/// that, the lease is kept by broadcasts.
fn rules_are_for_the_client_too() -> Verdict {
    let lan = Lab::here(0)?;
    let server = kea(&lan, 50, 59, 8)?;
    network()?;
    up("web", &["--allow", "in:5000/tcp", "--allow", "out:67/udp"])?;
    up("db", &["--allow", "in:5000/tcp"])?;
    let (web, db) = (address("web")?, address("db")?);
    let first = lease("db")?["Expires"].clone();
    let wire = Wire::tap(&lan.gateway)?;
    eventually("it is kept", 12, || Ok(lease("db")?["Expires"] != first))?;
    assert_eq!(address("web")?, web);
    assert_eq!(address("db")?, db);
    let asked = wire.asked(REQUEST)?;
    let to = |ip: &str, server: &str| asked.iter().any(|a| a[0] == ip && a[3] == server);
    assert!(to(&web, "10.0.2.1"), "{asked:?}");
    assert!(!to(&web, "255.255.255.255"), "{asked:?}");
    assert!(!to(&db, "10.0.2.1"), "{asked:?}");
    assert!(to(&db, "255.255.255.255"), "{asked:?}");
    said(&["rm", "-f", "web"])?;
    eventually("Kea knows", 3, || {
        Ok(kea_lifetime(&server, &web).as_deref() == Some("0"))
    })?;
    said(&["rm", "-f", "db"])?;
    nothing_is_left()
}

fn ping_from(name: &str, ip: &str) -> Verdict<bool> {
    let ping = ["ping", "-c", "1", "-W", "1", "-I", ip, "10.0.2.1"];
    Ok(inside(name, &ping)?.is_success())
}

/// The guard drops what is sent from an address that is not the lease's.
fn stays_inside(name: &str, ip: &str) -> Verdict {
    let dropped = || -> Verdict<u64> {
        let link: Value = serde_json::from_str(&format(name, "{{json .Dockless.Links.lan}}")?)?;
        assert_eq!(link["Guard"], "on");
        let counts = link["Dropped"].as_object();
        Ok(counts.map_or(0, |all| all.values().filter_map(Value::as_u64).sum()))
    };
    let before = dropped()?;
    let addr = [ip, "/24"].concat();
    inside(name, &["ip", "addr", "add", &addr, "dev", "eth0"])?.success()?;
    assert!(!ping_from(name, ip)?, "{ip} can be used");
    inside(name, &["ip", "addr", "del", &addr, "dev", "eth0"])?.success()?;
    assert!(dropped()? > before);
    Ok(())
}

fn nothing_leads_to(ip: &str) -> Verdict {
    assert!(!said(&["hosts"])?.contains(ip));
    assert!(!file_in("web", "/etc/hosts")?.contains(ip));
    Ok(())
}

/// Route, names, the published port.
fn leads_to(lan: &Lab, name: &str, ip: &str) -> Verdict {
    eventually("the record has it", 3, || {
        Ok(format(name, "{{.NetworkSettings.Networks.lan.IPAddress}}")? == ip)
    })?;
    assert!(said(&["hosts"])?.contains(ip));
    assert!(file_in(name, "/etc/hosts")?.contains(ip));
    let routes = inside(name, &["ip", "-j", "route", "show", "default"])?.json()?;
    assert_eq!(routes[0]["gateway"], "10.0.2.1");
    let open = lan.gateway.run(|| {
        let to = SocketAddr::from(([10, 0, 2, 4], 5000));
        Ok(std::net::TcpStream::connect_timeout(&to, Duration::from_secs(3)).is_ok())
    })?;
    assert!(open, "the published port does not lead to {ip}");
    Ok(())
}
