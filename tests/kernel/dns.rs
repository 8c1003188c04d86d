//! Names, judged by dig(1) in containers' networks, and by getent(1) in one
//! where a user may have such a container (whose image is the machine). The name servers
//! of the LAN are this test's; what they say depends on the name asked for.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dockless::lab::{Lab, Machine};
use dockless::net::dns::{Resolver, Settings};
use dockless::netlink::Rtnl;
use dockless::sys::netns::{Netns, Sandbox};
use serde_json::Value;
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};

use crate::harness::{Test, Verdict, is_real_root, patience, slow};
use crate::judge::{self, ask, file_in, inside, path_in, pid_of, said};

pub(crate) fn tests() -> Vec<Test> {
    let all = vec![
        Test::new(containers_find_each_other),
        Test::new(names_come_and_go_at_once),
        Test::new(other_questions_go_to_name_servers),
        Test::new(name_servers_take_turns),
        Test::new(forged_answers_change_nothing),
        Test::new(many_questions_by_both_transports),
        Test::new(internal_networks_lead_nowhere),
        Test::new(the_host_s_own_resolver_is_asked_from_the_host),
        Test::new(flags_are_files_and_inspect_shows_them),
        Test::new(the_first_network_brings_the_resolver),
        Test::new(port_53_stays_the_container_s),
        Test::new(without_rules_it_has_port_53_itself),
        Test::new(asked_or_not_it_sleeps_afterwards),
    ];
    let needs = |test: Test| {
        test.needs(&["dig", "getent", "nft", "mount", "nsenter"])
            .limit_s(120)
    };
    all.into_iter().map(needs).collect()
}

// ---- containers -------------------------------------------------------------

fn network(name: &str, third: u8, flags: &[&str]) -> Verdict {
    let subnet = format!("--subnet=10.0.{third}.0/24");
    let create = [
        "network",
        "create",
        "-d",
        "macvlan",
        "-o",
        "parent=eth1",
        &subnet,
    ];
    said(&[&create, flags, &[name]].concat()).map(drop)
}

/// With the gateway of the lab.
fn lan() -> Verdict {
    network("lan", 2, &["--gateway=10.0.2.1"])
}

fn up(name: &str, flags: &[&str]) -> Verdict {
    let run = ["run", "-d", "--name", name];
    said(&[&run, flags, &["tester"]].concat()).map(drop)
}

fn down(names: &[&str]) -> Verdict {
    said(&[&["rm", "-f"], names].concat()).map(drop)
}

/// All that dig has to say, without a second try of its own.
fn dig(name: &str, what: &[&str]) -> Verdict<String> {
    let head = ["dig", "@127.0.0.11", "+tries=1", "+time=14"];
    Ok(inside(name, &[&head, what].concat())?.stdout)
}

/// The records alone, sorted.
fn short(name: &str, what: &[&str]) -> Verdict<Vec<String>> {
    let out = dig(name, &[&["+short"], what].concat())?;
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

fn format(name: &str, format: &str) -> Verdict<String> {
    Ok(said(&["inspect", "-f", format, name])?.trim().to_owned())
}

fn netns(name: &str) -> Verdict<Netns<Sandbox>> {
    let file = fs::File::open(format!("/proc/{}/ns/net", pid_of(name)?))?;
    Ok(Netns::from_fd(OwnedFd::from(file))?)
}

/// The process that serves a container: its first process's parent.
fn supervisor(name: &str) -> Verdict<i32> {
    let pid = pid_of(name)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:"));
    Ok(parent.unwrap().trim().parse()?)
}

// ---- name servers -----------------------------------------------------------

/// What a server says to a question; several messages, or none.
type Says = fn(&Packet<'_>, &str, bool) -> Vec<Vec<u8>>;

struct Server {
    asked: Arc<AtomicU32>,
}

impl Server {
    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Both transports at `ip`, port 53, until the test ends.
fn server(machine: Option<&Machine>, ip: [u8; 4], says: Says) -> Verdict<Server> {
    let bind = || {
        let at = SocketAddr::from((Ipv4Addr::from(ip), 53));
        Ok((UdpSocket::bind(at).unwrap(), TcpListener::bind(at).unwrap()))
    };
    let (udp, tcp) = match machine {
        Some(machine) => machine.run(bind)?,
        None => bind()?,
    };
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::SeqCst);
            for answer in answers(&buffer[..length], says, false) {
                let _ = udp.send_to(&answer, client);
            }
        }
    });
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        while let Ok((mut client, _)) = tcp.accept() {
            let mut length = [0; 2];
            client.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            client.read_exact(&mut question).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            for answer in answers(&question, says, true) {
                let length = u16::try_from(answer.len()).unwrap();
                // In pieces, as a slow network would.
                for part in [
                    &length.to_be_bytes()[..1],
                    &length.to_be_bytes()[1..],
                    &answer,
                ] {
                    client.write_all(part).unwrap();
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    });
    Ok(Server { asked })
}

fn answers(question: &[u8], says: Says, tcp: bool) -> Vec<Vec<u8>> {
    let Ok(packet) = Packet::parse(question) else {
        // A type that the library does not know: no records.
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        return vec![answer];
    };
    let name = packet.questions[0].qname.to_string();
    says(&packet, &name, tcp)
}

fn code(asked: &Packet<'_>, code: RCODE) -> Vec<u8> {
    let mut reply = Packet::new_reply(asked.id());
    *reply.rcode_mut() = code;
    reply.questions.clone_from(&asked.questions);
    reply.build_bytes_vec().unwrap()
}

fn addresses(asked: &Packet<'_>, addrs: &[[u8; 4]], cut: bool) -> Vec<u8> {
    let mut reply = Packet::new_reply(asked.id());
    reply.questions.clone_from(&asked.questions);
    if cut {
        reply.set_flags(PacketFlag::TRUNCATION);
    }
    let name = Name::new("answered.example").unwrap();
    reply.answers = addrs
        .iter()
        .map(|a| {
            let data = RData::A(A::from(Ipv4Addr::from(*a)));
            ResourceRecord::new(name.clone(), CLASS::IN, 60, data)
        })
        .collect();
    reply.build_bytes_vec().unwrap()
}

/// 192.0.2.1, but for some names.
fn first(asked: &Packet<'_>, name: &str, tcp: bool) -> Vec<Vec<u8>> {
    let mine = || addresses(asked, &[[192, 0, 2, 1]], false);
    vec![match name {
        "servfail.example" => code(asked, RCODE::ServerFailure),
        "refused.example" => code(asked, RCODE::Refused),
        "nobody.example" => code(asked, RCODE::NameError),
        "none.example" => code(asked, RCODE::ServerFailure),
        "silent.example" => return Vec::new(),
        "big.example" if tcp => {
            let all: Vec<[u8; 4]> = (0..250).map(|n| [192, 0, 2, n]).collect();
            addresses(asked, &all, false)
        }
        "big.example" => addresses(asked, &[], true),
        "forged.example" => {
            let mut wrong_id = addresses(asked, &[[203, 0, 113, 1]], false);
            wrong_id[1] ^= 1;
            let mut wrong_name = addresses(asked, &[[203, 0, 113, 2]], false);
            wrong_name[13] ^= 1;
            let mut no_answer = addresses(asked, &[[203, 0, 113, 3]], false);
            no_answer[2] &= 0x7f;
            let looping = [&wrong_id[..2], &[0x80; 10], &[0xc0, 12, 0xc0, 14]].concat();
            let short = wrong_name[..7].to_vec();
            return vec![wrong_id, wrong_name, no_answer, looping, short, mine()];
        }
        _ => mine(),
    }]
}

/// 192.0.2.7 to everything, but nothing about one name.
fn second(asked: &Packet<'_>, name: &str, _: bool) -> Vec<Vec<u8>> {
    match name {
        "none.example" => vec![code(asked, RCODE::Refused)],
        _ => vec![addresses(asked, &[[192, 0, 2, 7]], false)],
    }
}

// ---- tests ------------------------------------------------------------------

fn containers_find_each_other() -> Verdict {
    let _lab = Lab::here(0)?;
    lan()?;
    network("back.end", 3, &[])?;
    up(
        "web",
        &[
            "--network",
            "lan",
            "--network-alias",
            "api",
            "--ip",
            "10.0.2.20",
            "--dns",
            "10.0.2.1",
        ],
    )?;
    up(
        "db",
        &["--network", "name=back.end,alias=store,ip=10.0.3.30"],
    )?;
    let both = [
        "--network",
        "lan",
        "--network",
        "back.end",
        "--hostname",
        "ask.example.com",
    ];
    up("ask", &[&both[..], &["--network-alias", "Api"]].concat())?;

    let web = ["10.0.2.20"];
    assert_eq!(short("ask", &["web"])?, web);
    assert_eq!(short("ask", &["WEB"])?, web);
    assert_eq!(short("ask", &["web.lan"])?, web);
    assert_eq!(short("ask", &["+tcp", "web.LAN"])?, web);
    assert_eq!(short("ask", &[&format("web", "{{slice .Id 0 12}}")?])?, web);
    assert_eq!(short("ask", &["store.back.end"])?, ["10.0.3.30"]);
    assert_eq!(short("ask", &["db"])?, ["10.0.3.30"]);
    assert_eq!(short("web", &["ask.example.com"])?.len(), 1);
    let api = short("ask", &["api"])?;
    assert!(
        api.len() == 2 && api.contains(&"10.0.2.20".to_owned()),
        "{api:?}"
    );

    // The name as it was asked for, and what else an answer has.
    let whole = dig("ask", &["wEb"])?;
    assert!(whole.contains("status: NOERROR"), "{whole}");
    assert!(whole.contains("flags: qr rd ra;"), "{whole}");
    assert!(whole.contains("wEb.\t\t\t600\tIN\tA\t10.0.2.20"), "{whole}");
    assert!(whole.contains("SERVER: 127.0.0.11#53"), "{whole}");

    // Known, but not like this: never a name server's question.
    for kind in ["AAAA", "MX"] {
        let none = dig("ask", &[kind, "web"])?;
        assert!(
            none.contains("status: NOERROR") && none.contains("ANSWER: 0"),
            "{none}"
        );
    }
    assert_eq!(short("ask", &["-x", "10.0.2.20"])?, ["web.lan."]);
    assert_eq!(short("ask", &["-x", "10.0.3.30"])?, ["db.back.end."]);

    // libc's view, both ways.
    if is_real_root() {
        let run = [
            "run",
            "--rm",
            "--network",
            "lan",
            "--rootfs",
            "/",
            "getent",
            "hosts",
        ];
        let got = said(&[&run[..], &["web"]].concat())?;
        assert_eq!(
            got.split_whitespace().collect::<Vec<_>>(),
            ["10.0.2.20", "web"]
        );
        let got = said(&[&run[..], &["10.0.2.20"]].concat())?;
        assert!(got.contains("web.lan"), "{got}");
    }

    // Each sees those on its own networks alone.
    assert_eq!(short("web", &["db"])?, [""; 0]);
    let names = format("ask", "{{json .NetworkSettings.Networks.lan.DNSNames}}")?;
    let id = format("ask", "{{slice .Id 0 12}}")?;
    assert_eq!(
        names,
        format!("[\"ask\",\"Api\",\"{id}\",\"ask.example.com\"]")
    );
    let hosts = said(&["hosts"])?;
    assert!(hosts.contains("10.0.2.20\tweb web.lan api "), "{hosts}");
    assert!(
        hosts.contains("10.0.3.30\tdb db.back.end store "),
        "{hosts}"
    );
    down(&["web", "db", "ask"])
}

fn names_come_and_go_at_once() -> Verdict {
    let lab = Lab::here(0)?;
    lan()?;
    network("two", 3, &[])?;
    // Answers at once that there is nobody.
    let server = server(Some(&lab.gateway), [10, 0, 2, 1], |asked, _, _| {
        vec![code(asked, RCODE::NameError)]
    })?;
    up("ask", &["--network", "lan", "--dns", "10.0.2.1"])?;
    let ip = |last: u32| format!("10.0.2.{last}");
    for round in 0..10 {
        assert_eq!(short("ask", &["peer"])?, [""; 0], "round {round}");
        up("peer", &["--network", "lan", "--ip", &ip(100 + round)])?;
        assert_eq!(short("ask", &["peer"])?, [ip(100 + round)]);
        down(&["peer"])?;
    }
    assert_eq!(short("ask", &["peer"])?, [""; 0]);
    assert_eq!(server.asked(), 11, "one for each time it was away");

    up("peer", &["--network", "lan", "--ip", "10.0.2.50"])?;
    said(&["rename", "peer", "other"])?;
    assert_eq!(short("ask", &["peer"])?, [""; 0]);
    assert_eq!(short("ask", &["other"])?, ["10.0.2.50"]);
    assert_eq!(short("ask", &["-x", "10.0.2.50"])?, ["other.lan."]);

    said(&["network", "connect", "--alias", "deux", "two", "ask"])?;
    said(&[
        "network",
        "connect",
        "--alias",
        "zwei",
        "--ip",
        "10.0.3.50",
        "two",
        "other",
    ])?;
    assert_eq!(short("ask", &["zwei"])?, ["10.0.3.50"]);
    assert_eq!(short("ask", &["other.two"])?, ["10.0.3.50"]);
    said(&["network", "disconnect", "lan", "other"])?;
    assert_eq!(short("ask", &["other"])?, ["10.0.3.50"]);
    said(&["network", "disconnect", "two", "ask"])?;
    assert_eq!(short("ask", &["other"])?, [""; 0]);

    // Nobody tells when a supervisor is killed; its lease is still there.
    said(&["network", "connect", "two", "ask"])?;
    assert_eq!(short("ask", &["zwei"])?, ["10.0.3.50"]);
    judge::run(&["kill", "-9", &supervisor("other")?.to_string()])?.success()?;
    let end = Instant::now() + patience(5);
    while short("ask", &["zwei"])? == ["10.0.3.50"] {
        assert!(Instant::now() < end, "a dead container answers");
    }
    down(&["ask", "other"])
}

fn other_questions_go_to_name_servers() -> Verdict {
    let lab = Lab::here(0)?;
    lan()?;
    let one = server(Some(&lab.gateway), [10, 0, 2, 1], first)?;
    up("ask", &["--network", "lan", "--dns", "10.0.2.1"])?;
    assert_eq!(short("ask", &["www.example"])?, ["192.0.2.1"]);
    assert_eq!(
        short("ask", &["single"])?,
        ["192.0.2.1"],
        "one label, ndots:0"
    );
    assert_eq!(short("ask", &["-x", "192.0.2.9"])?, ["192.0.2.1"]);
    let unknown = dig("ask", &["-t", "TYPE99", "www.example"])?;
    assert!(unknown.contains("status: NOERROR"), "{unknown}");
    assert_eq!(one.asked(), 4);
    // Ours by name, but not for us to answer.
    assert_eq!(short("ask", &["TXT", "ask"])?, ["192.0.2.1"]);
    assert_eq!(one.asked(), 5);
    let none = dig("ask", &["nobody.example"])?;
    assert!(none.contains("status: NXDOMAIN"), "{none}");

    // Cut, and whole by TCP.
    let cut = dig("ask", &["+ignore", "big.example"])?;
    assert!(cut.contains("flags: qr tc"), "{cut}");
    assert_eq!(short("ask", &["big.example"])?.len(), 250);
    assert_eq!(short("ask", &["+tcp", "www.example"])?, ["192.0.2.1"]);
    down(&["ask"])?;

    // The user says what a whole name is.
    up(
        "ask",
        &[
            "--network",
            "lan",
            "--dns",
            "10.0.2.1",
            "--dns-opt",
            "ndots:1",
        ],
    )?;
    let before = one.asked();
    let single = dig("ask", &["single"])?;
    assert!(
        single.contains("status: NOERROR") && single.contains("ANSWER: 0"),
        "{single}"
    );
    assert_eq!(one.asked(), before);
    assert_eq!(short("ask", &["TXT", "single"])?, ["192.0.2.1"]);
    assert_eq!(short("ask", &["www.example"])?, ["192.0.2.1"]);
    down(&["ask"])
}

fn name_servers_take_turns() -> Verdict {
    let lab = Lab::here(2)?;
    lan()?;
    let _one = server(Some(&lab.gateway), [10, 0, 2, 1], first)?;
    let two = server(Some(&lab.others[0]), [10, 0, 2, 7], second)?;
    // Three are asked, and 10.0.2.99 is nobody.
    let fourth = server(Some(&lab.others[1]), [10, 0, 2, 8], second)?;
    let servers = ["10.0.2.1", "10.0.2.7", "10.0.2.99", "10.0.2.8"];
    let flags: Vec<&str> = servers.iter().flat_map(|s| ["--dns", s]).collect();
    up("ask", &[&["--network", "lan"], &flags[..]].concat())?;
    assert_eq!(short("ask", &["www.example"])?, ["192.0.2.1"]);
    assert_eq!(two.asked(), 0);
    for how in ["+notcp", "+tcp"] {
        assert_eq!(short("ask", &[how, "servfail.example"])?, ["192.0.2.7"]);
        assert_eq!(short("ask", &[how, "refused.example"])?, ["192.0.2.7"]);
        // An answer that there is none is an answer.
        let none = dig("ask", &[how, "nobody.example"])?;
        assert!(none.contains("status: NXDOMAIN"), "{none}");
    }
    let start = Instant::now();
    assert_eq!(short("ask", &["silent.example"])?, ["192.0.2.7"]);
    let took = start.elapsed().as_secs_f64();
    let most = 3.9 + 2.6 * f64::from(slow());
    assert!((3.9..most).contains(&took), "{took} s");
    let none = dig("ask", &["none.example"])?;
    assert!(none.contains("status: SERVFAIL"), "{none}");
    assert_eq!(fourth.asked(), 0);
    down(&["ask"])
}

fn forged_answers_change_nothing() -> Verdict {
    let lab = Lab::here(1)?;
    lan()?;
    let _one = server(Some(&lab.gateway), [10, 0, 2, 1], first)?;
    up(
        "ask",
        &["--network", "lan", "--dns", "10.0.2.1", "--dns", "10.0.2.7"],
    )?;
    assert_eq!(short("ask", &["forged.example"])?, ["192.0.2.1"]);

    // Somebody else on the LAN, at every port, with every id.
    let neighbour = lab.others[0].run(|| Ok(UdpSocket::bind("10.0.2.7:0").unwrap()))?;
    let asker = thread::spawn(|| short("ask", &["silent.example"]).unwrap_or_default());
    let end = Instant::now() + Duration::from_millis(3500);
    let ip = format("ask", "{{.NetworkSettings.Networks.lan.IPAddress}}")?;
    let ip: Ipv4Addr = ip.parse()?;
    let mut question = Packet::new_query(0);
    question.questions.push(simple_dns::Question::new(
        Name::new("silent.example")?,
        simple_dns::QTYPE::TYPE(simple_dns::TYPE::A),
        simple_dns::QCLASS::CLASS(CLASS::IN),
        false,
    ));
    let mut forged = addresses(&question, &[[203, 0, 113, 9]], false);
    let mut id = 0_u16;
    while Instant::now() < end {
        for port in (32_768..61_000).step_by(7) {
            id = id.wrapping_add(1);
            forged[..2].copy_from_slice(&id.to_be_bytes());
            let _ = neighbour.send_to(&forged, (ip, port));
        }
    }
    // Nobody answers at 10.0.2.7: the connection is refused, and SERVFAIL.
    assert_eq!(asker.join().unwrap(), [""; 0]);

    // What the container itself sends.
    let asked = netns("ask")?.run(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket.connect("127.0.0.11:53").unwrap();
        let junk: Vec<Vec<u8>> = (0..2000_u32)
            .map(|n| {
                let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3];
                bytes.extend(n.to_le_bytes());
                bytes.extend([0xc0, u8::try_from(n % 40).unwrap()]);
                bytes.truncate(usize::try_from(n % 20).unwrap());
                bytes
            })
            .collect();
        for bytes in &junk {
            let _ = socket.send(bytes);
        }
        let _ = socket.send(&[0xff; 9000]);
        Ok(())
    });
    asked?;
    assert_eq!(short("ask", &["ask"])?, [ip.to_string()]);
    down(&["ask"])
}

fn many_questions_by_both_transports() -> Verdict {
    let lab = Lab::here(0)?;
    lan()?;
    let one = server(Some(&lab.gateway), [10, 0, 2, 1], first)?;
    up(
        "ask",
        &["--network", "lan", "--dns", "10.0.2.1", "--ip", "10.0.2.20"],
    )?;
    // A file of questions, one dig: one TCP connection for all.
    let half = "ask\nwww.example\n".repeat(100);
    for how in ["+notcp", "+tcp +keepopen"] {
        let before = one.asked();
        let script = format!("printf %s '{half}' | dig @127.0.0.11 +short {how} -f -");
        let out = inside("ask", &["sh", "-c", &script])?.success()?.stdout;
        assert_eq!(out.matches("10.0.2.20").count(), 100, "{how}: {out}");
        assert_eq!(out.matches("192.0.2.1\n").count(), 100, "{how}: {out}");
        assert_eq!(one.asked() - before, 100);
    }
    // Clients that come, say half of something or nothing, and stay.
    let idle = netns("ask")?.run(|| {
        let connect = |n: usize| {
            let mut stream = std::net::TcpStream::connect("127.0.0.11:53").unwrap();
            stream.write_all(&[0, 40, 1, 2, 3][..n % 5]).unwrap();
            stream
        };
        Ok((0..200).map(connect).collect::<Vec<_>>())
    })?;
    assert_eq!(short("ask", &["+tcp", "ask"])?, ["10.0.2.20"]);
    assert_eq!(short("ask", &["ask"])?, ["10.0.2.20"]);
    drop(idle);
    down(&["ask"])
}

fn internal_networks_lead_nowhere() -> Verdict {
    let lab = Lab::here(0)?;
    let _host = Resolv::over("nameserver 10.0.2.1\n")?;
    let one = server(Some(&lab.gateway), [10, 0, 2, 1], first)?;
    network("inner", 2, &["--internal", "--gateway=10.0.2.1"])?;
    network("outer", 3, &[])?;
    up("ask", &["--network", "inner"])?;
    up("peer", &["--network", "inner", "--ip", "10.0.2.30"])?;
    assert_eq!(short("ask", &["peer"])?, ["10.0.2.30"]);
    let status = |name: &str| -> Verdict<String> {
        let out = dig(name, &["www.example"])?;
        let status = out
            .split("status: ")
            .nth(1)
            .and_then(|s| s.split(',').next());
        Ok(status.unwrap_or_default().to_owned())
    };
    assert_eq!(status("ask")?, "SERVFAIL");
    assert_eq!(one.asked(), 0);
    // From the host, once there is a way out; no more when it is gone.
    said(&["network", "connect", "outer", "ask"])?;
    assert_eq!(status("ask")?, "NOERROR");
    said(&["network", "disconnect", "outer", "ask"])?;
    assert_eq!(status("ask")?, "SERVFAIL");
    // A server inside the network may be asked.
    up("own", &["--network", "inner", "--dns", "10.0.2.1"])?;
    assert_eq!(status("own")?, "NOERROR");
    assert_eq!(one.asked(), 2);
    down(&["ask", "peer", "own"])
}

/// Another /etc/resolv.conf for this test's host.
struct Resolv;

impl Resolv {
    fn over(text: &str) -> Verdict<Self> {
        fs::write("/run/tmp/resolv.conf", text)?;
        let target = fs::canonicalize("/etc/resolv.conf")?;
        let target = target.to_str().unwrap();
        judge::run(&["mount", "--bind", "/run/tmp/resolv.conf", target])?.success()?;
        Ok(Self)
    }
}

impl Drop for Resolv {
    fn drop(&mut self) {
        let target = fs::canonicalize("/etc/resolv.conf").unwrap_or_default();
        let _ = judge::run(&["umount", target.to_str().unwrap_or_default()]);
    }
}

fn the_host_s_own_resolver_is_asked_from_the_host() -> Verdict {
    let _lab = Lab::here(0)?;
    let _host = Resolv::over("nameserver 127.0.0.53\nsearch home.example\noptions edns0\n")?;
    let local = server(None, [127, 0, 0, 53], first)?;
    lan()?;
    up("ask", &["--network", "lan"])?;
    assert_eq!(short("ask", &["www.example"])?, ["192.0.2.1"]);
    assert_eq!(short("ask", &["+tcp", "www.example"])?, ["192.0.2.1"]);
    assert_eq!(local.asked(), 2);
    let text = file_in("ask", "/etc/resolv.conf")?;
    assert_eq!(
        text,
        "# Generated by dockless.\n\
         # This file can be edited; dockless will not make further changes once it\n\
         # has been modified.\n\
         \n\
         nameserver 127.0.0.11\n\
         search home.example\n\
         options edns0 ndots:0\n\
         \n\
         # Based on host file: '/etc/resolv.conf' (internal resolver)\n\
         # ExtServers: [host(127.0.0.53)]\n\
         # Overrides: []\n\
         # Option ndots from: internal\n"
    );
    // On the host's network it is the host's own; on none there is no way.
    up("hosted", &["--network", "host"])?;
    let text = file_in("hosted", "/etc/resolv.conf")?;
    assert!(text.contains("\nnameserver 127.0.0.53\n"), "{text}");
    up("alone", &["--network", "none"])?;
    let text = file_in("alone", "/etc/resolv.conf")?;
    assert!(!text.contains("nameserver"), "{text}");
    down(&["ask", "hosted", "alone"])
}

fn flags_are_files_and_inspect_shows_them() -> Verdict {
    let _lab = Lab::here(0)?;
    lan()?;
    let flags = [
        "--network",
        "lan",
        "--dns",
        "10.0.2.1",
        "--dns",
        "2001:db8::1",
        "--dns-search",
        "a.example",
        "--dns-search",
        "b.example",
        "--dns-option",
        "rotate",
        "--dns-opt",
        "timeout:1",
        "--add-host",
        "one:192.0.2.11",
        "--add-host",
        "six=[2001:db8::6]",
    ];
    up("box", &flags)?;
    let text = file_in("box", "/etc/resolv.conf")?;
    for line in [
        "nameserver 127.0.0.11\nsearch a.example b.example\noptions rotate timeout:1 ndots:0\n",
        "# ExtServers: [10.0.2.1 2001:db8::1]\n# Overrides: [nameservers search options]\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let hosts = file_in("box", "/etc/hosts")?;
    let tail = "ip6-allrouters\n192.0.2.11\tone\n2001:db8::6\tsix\n10.0.2.2\t";
    assert!(hosts.contains(tail), "{hosts}");
    let shown: Value = serde_json::from_str(&format("box", "{{json .HostConfig}}")?)?;
    assert_eq!(shown["Dns"], serde_json::json!(["10.0.2.1", "2001:db8::1"]));
    assert_eq!(
        shown["DnsSearch"],
        serde_json::json!(["a.example", "b.example"])
    );
    assert_eq!(
        shown["DnsOptions"],
        serde_json::json!(["rotate", "timeout:1"])
    );
    let extra = serde_json::json!(["one:192.0.2.11", "six:2001:db8::6"]);
    assert_eq!(shown["ExtraHosts"], extra);

    // Written anew at each start, until the user has edited it.
    said(&["restart", "-t", "0", "box"])?;
    said(&["stop", "-t", "0", "box"])?;
    said(&["start", "box"])?;
    let again = file_in("box", "/etc/resolv.conf")?;
    assert_eq!(again, text);
    fs::write(
        path_in("box", "/etc/resolv.conf")?,
        "nameserver 192.0.2.99\n",
    )?;
    said(&["stop", "-t", "0", "box"])?;
    said(&["start", "box"])?;
    let edited = file_in("box", "/etc/resolv.conf")?;
    assert_eq!(edited, "nameserver 192.0.2.99\n");
    down(&["box"])?;

    // The host: only where there is a way to it.
    let gateway = ["--network", "lan", "--add-host", "h.host:host-gateway"];
    let run = [&["run", "--rm"], &gateway[..], &["tester", "ip", "link"]].concat();
    let refused = ask(&run)?;
    assert_eq!(refused.code, Some(125), "{}", refused.stderr);
    let why = "unable to derive the IP value for host-gateway";
    assert!(refused.stderr.contains(why), "{}", refused.stderr);
    said(&["network", "host-access", "lan", "on"])?;
    up("box", &gateway)?;
    let hosts = file_in("box", "/etc/hosts")?;
    assert!(hosts.contains("\n10.0.2.4\th.host\n"), "{hosts}");
    down(&["box"])?;
    said(&["network", "rm", "lan"])?;
    Ok(())
}

fn the_first_network_brings_the_resolver() -> Verdict {
    let _lab = Lab::here(0)?;
    lan()?;
    up("peer", &["--network", "lan", "--ip", "10.0.2.30"])?;
    up("late", &[])?;
    let text = file_in("late", "/etc/resolv.conf")?;
    assert!(!text.contains("127.0.0.11"), "{text}");
    said(&["network", "connect", "lan", "late"])?;
    let text = file_in("late", "/etc/resolv.conf")?;
    assert!(text.contains("\nnameserver 127.0.0.11\n"), "{text}");
    assert_eq!(short("late", &["peer"])?, ["10.0.2.30"]);
    down(&["peer", "late"])
}

fn port_53_stays_the_container_s() -> Verdict {
    let _lab = Lab::here(0)?;
    lan()?;
    up("box", &["--network", "lan", "--ip", "10.0.2.20"])?;
    let namespace = netns("box")?;
    let theirs = namespace.run(|| {
        let udp = UdpSocket::bind("0.0.0.0:53").unwrap();
        let tcp = TcpListener::bind("0.0.0.0:53").unwrap();
        Ok((udp, tcp))
    })?;
    assert_eq!(short("box", &["box"])?, ["10.0.2.20"]);
    assert_eq!(short("box", &["+tcp", "box"])?, ["10.0.2.20"]);
    // Its own service is still its own, at its own address.
    let echoed = namespace.run(|| {
        let client = UdpSocket::bind("0.0.0.0:0").unwrap();
        client.send_to(b"hello", "10.0.2.20:53").unwrap();
        let mut buffer = [0; 16];
        theirs
            .0
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let (length, from) = theirs.0.recv_from(&mut buffer).unwrap();
        assert_eq!(from.port(), client.local_addr().unwrap().port());
        Ok(length)
    })?;
    assert_eq!(echoed, 5);
    // One table beside the guard's, and nothing that tracks connections.
    let rules = inside("box", &["nft", "list", "ruleset"])?
        .success()?
        .stdout;
    let tables = rules.lines().filter(|l| l.starts_with("table "));
    let others: Vec<&str> = tables.filter(|l| !l.contains("dockless-guard")).collect();
    assert_eq!(others, ["table ip dockless-dns {"], "{rules}");
    assert!(!rules.contains("nat") && !rules.contains("ct "), "{rules}");
    down(&["box"])
}

fn asked_or_not_it_sleeps_afterwards() -> Verdict {
    let lab = Lab::here(0)?;
    lan()?;
    let _one = server(Some(&lab.gateway), [10, 0, 2, 1], first)?;
    up("box", &["--network", "lan", "--dns", "10.0.2.1"])?;
    short("box", &["box"])?;
    short("box", &["+tcp", "www.example"])?;
    short("box", &["www.example"])?;
    up("peer", &["--network", "lan"])?;
    // `inspect` asks it what its guard has counted.
    let pid = supervisor("box")?;
    // Announcements, and the memory given back.
    thread::sleep(Duration::from_secs(6));
    let switches = || -> Verdict<u64> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let lines = status.lines().filter(|l| l.contains("ctxt_switches"));
        Ok(lines
            .map(|l| l.split_whitespace().last().unwrap().parse::<u64>().unwrap())
            .sum())
    };
    let before = switches()?;
    // Others may come and go meanwhile.
    down(&["peer"])?;
    up("peer", &["--network", "lan"])?;
    thread::sleep(Duration::from_secs(10));
    assert_eq!(switches()?, before, "it woke up");
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let own = rollup.lines().find_map(|l| l.strip_prefix("Pss_Anon:"));
    let own: u64 = own.unwrap().trim().trim_end_matches(" kB").parse()?;
    // Of a debug build; some KiB are the buffers of the guard's socket.
    assert!(own < 280, "{own} KiB\n{rollup}");
    down(&["box", "peer"])
}

/// The kernel refuses the rules (here: because the table is somebody's).
fn without_rules_it_has_port_53_itself() -> Verdict {
    let namespace = Netns::create()?;
    Rtnl::sandbox(&namespace)?.loopback_up()?;
    let add = ["nft", "add", "table", "ip", "dockless-dns"];
    namespace.run(|| Ok(judge::run(&add)))??.success()?;
    let (resolver, refused) = Resolver::start(&namespace, Settings::default())?;
    assert!(refused.is_some_and(|e| e.is_errno(libc::EEXIST)));
    let taken = namespace.run(|| {
        let udp = UdpSocket::bind("127.0.0.11:53").unwrap_err();
        let tcp = TcpListener::bind("127.0.0.11:53").unwrap_err();
        Ok([udp.kind(), tcp.kind()])
    })?;
    assert_eq!(taken, [std::io::ErrorKind::AddrInUse; 2]);
    drop(resolver);
    Ok(())
}
