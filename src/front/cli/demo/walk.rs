//! The seven steps of Docker's macvlan walk-through, and what must hold in
//! each.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::look::{contains, fails, interface, is_id, works};
use super::stage::{Stage, Stop};
use crate::base::MacAddr;
use crate::lab::capture::{Capture, Content, Frame};
use crate::lab::contain::reap_orphans;
use crate::lab::snapshot::{Mine, Snapshot};
use crate::lab::{Lab, Machine};

const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 5);
/// What people give a hand-made host-side link.
const SHIM: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 6);
/// A client somewhere behind the gateway.
const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const PORT: u16 = 5000;
/// Long enough for a busy machine; nothing waits for it to pass.
pub(super) const LIMIT: Duration = Duration::from_secs(10);
/// How long all answers to an ARP question are listened for.
pub(super) const LISTEN: Duration = Duration::from_millis(200);

pub(super) struct Walk<'a> {
    pub stage: &'a mut Stage,
    lab: &'a Lab,
    /// The container's id, 64 hex digits.
    id: String,
    mac: MacAddr,
}

pub(super) type Outcome<T = ()> = Result<T, Stop>;

pub(super) fn walk(stage: &mut Stage, lab: &Lab) {
    stage.print(
        "A LAN in a box, with no way out: the gateway 10.0.2.1, this host 10.0.2.4 on eth1,\n\
         two other machines 10.0.2.7 and 10.0.2.8 (other1$, other2$).",
    );
    let mut walk = Walk {
        stage,
        lab,
        id: String::new(),
        mac: MacAddr::from_ipv4(CONTAINER),
    };
    if walk.all().is_err() {
        walk.stage
            .stopped("what follows needs what just failed; the lab is torn down");
    }
}

impl<'a> Walk<'a> {
    fn all(&mut self) -> Outcome {
        let before = self.snapshot()?;
        self.create()?;
        self.start()?;
        self.lan()?;
        self.published()?;
        self.isolated()?;
        self.host_access()?;
        self.remove(&before)
    }

    pub(super) fn other(&self, number: usize) -> &'a Machine {
        // The lab has two of them.
        self.lab.others.get(number).unwrap_or(&self.lab.gateway)
    }

    fn mine<'b>(&'b self, containers: &'b [&'b str]) -> Mine<'b> {
        Mine {
            state: &self.stage.program.state,
            containers,
        }
    }

    fn snapshot(&mut self) -> Outcome<Snapshot> {
        Snapshot::take(self.mine(&[])).map_err(|e| {
            self.stage.stopped(&e.to_string());
            Stop
        })
    }

    fn create(&mut self) -> Outcome {
        self.stage.step("A macvlan network on eth1");
        let answer = self.stage.dockless(&[
            "network",
            "create",
            "-d",
            "macvlan",
            "--subnet=10.0.2.0/24",
            "--gateway=10.0.2.1",
            "-o",
            "parent=eth1",
            "mac1",
        ]);
        self.stage
            .demand("prints a 64-hex id", is_id(&answer).map(drop))
    }

    fn start(&mut self) -> Outcome {
        self.stage.step("A container with an address of the LAN");
        let server = SocketAddrV4::new(CONTAINER, PORT);
        // Somebody who is too early is not made to wait for ARP's second try.
        let early = self.other(0);
        let typed = Instant::now();
        let (answer, run_took, page) = std::thread::scope(|scope| {
            let client = scope.spawn(|| {
                let answer = early.get_soon(server, "/healthz", LIMIT);
                (answer, typed.elapsed())
            });
            let answer = self.stage.dockless(&[
                "run",
                "-d",
                "-p",
                "5000:5000",
                "--name",
                "mac1",
                "--network",
                "mac1",
                "--ip",
                "10.0.2.5",
                "tester",
            ]);
            let took = typed.elapsed();
            (answer, took, client.join())
        });
        self.stage
            .demand("prints a 64-hex id", is_id(&answer).map(drop))?;
        self.id = answer.line().to_owned();
        self.stage.print(format_args!(
            "     run took {:.1} ms",
            run_took.as_secs_f64() * 1e3
        ));
        let (reached, after) = match page {
            Ok((Ok(answer), after)) if answer.status == 200 => (Ok(()), after),
            Ok((Ok(answer), after)) => (Err(format!("HTTP status {}", answer.status)), after),
            Ok((Err(e), after)) => (Err(e.to_string()), after),
            Err(_) => (Err(String::from("the client panicked")), LIMIT),
        };
        self.stage.demand(
            &format!(
                "a machine of the LAN that asked before the container was there has its answer \
                 {:.1} ms after the command was typed",
                after.as_secs_f64() * 1e3
            ),
            reached,
        )
    }

    fn lan(&mut self) -> Outcome {
        self.stage
            .step("The page, from the LAN and beyond the gateway");
        let server = SocketAddrV4::new(CONTAINER, PORT);
        let report = self.report("other2", self.other(1), server)?;
        let eth0 = interface(&report, "eth0");
        let id = self.id.get(..12).unwrap_or_default().to_owned();
        self.equal("it is this container", &report["id"], &id);
        self.equal(
            "its address is the one asked for",
            &eth0["addresses"][0],
            "10.0.2.5/24",
        );
        self.equal(
            "its MAC follows from its address",
            &eth0["mac"],
            &self.mac.to_string(),
        );
        self.equal(
            "its route leads to the gateway",
            &report["routes"][0]["gateway"],
            "10.0.2.1",
        );
        self.equal(
            "it sees the client's own address",
            &report["client"]["address"],
            "10.0.2.8",
        );
        let page = self.other(1).get(server, "/", LIMIT);
        self.stage.check(
            "the page shows a person the same",
            match page {
                Ok(page)
                    if ["10.0.2.5/24", "10.0.2.8", &id]
                        .iter()
                        .all(|t| page.body.contains(t)) =>
                {
                    Ok(())
                }
                Ok(page) => Err(format!("status {}", page.status)),
                Err(e) => Err(e.to_string()),
            },
        );
        self.wire(server)
    }

    /// What tcpdump shows of a client from another network.
    fn wire(&mut self, server: SocketAddrV4) -> Outcome {
        let mut capture = match (
            Capture::start(&self.lab.host),
            self.lab.gateway.route_for(REMOTE, CONTAINER),
        ) {
            (Ok(capture), Ok(())) => capture,
            (Err(e), _) | (_, Err(e)) => {
                return self
                    .stage
                    .demand("a capture on eth1 starts", Err(e.to_string()));
            }
        };
        self.stage.typed("", "tcpdump -e -i eth1");
        let report = self.report("192.0.2.9", &self.lab.gateway, server)?;
        self.equal(
            "a client behind the gateway is seen with its own address too",
            &report["client"]["address"],
            &REMOTE.to_string(),
        );
        let mac = self.mac;
        let scenes: [(&str, Scene); 4] = [
            (
                "on eth1: the SYN to 10.0.2.5",
                Box::new(move |f| {
                    matches!(f.content, Content::Tcp { to, syn: true, ack: false, .. } if to == server)
                        && f.to == mac
                }),
            ),
            (
                "on eth1: the container's ARP question for the gateway",
                Box::new(move |f| {
                    let gateway = Ipv4Addr::new(10, 0, 2, 1);
                    matches!(f.content, Content::Arp { question: true, about, ip, .. } if about == gateway && ip == CONTAINER)
                        && f.from == mac
                }),
            ),
            (
                "on eth1: the answer, with the container's own MAC",
                Box::new(move |f| {
                    matches!(f.content, Content::Tcp { from, syn: true, ack: true, .. } if from == server)
                        && f.from == mac
                }),
            ),
            (
                "on eth1: ARP for 10.0.2.5 answered with that MAC",
                Box::new(
                    move |f| matches!(f.content, Content::Arp { question: false, about, mac: told, .. } if about == CONTAINER && told == mac),
                ),
            ),
        ];
        let complete = |frames: &[Frame]| scenes.iter().all(|(_, scene)| frames.iter().any(scene));
        if let Err(e) = capture.wait(Duration::from_secs(2), complete) {
            return self
                .stage
                .demand("the capture can be read", Err(e.to_string()));
        }
        let frames = capture.frames().unwrap_or_default();
        let interesting = frames
            .iter()
            .filter(|f| scenes.iter().any(|(_, scene)| scene(f)));
        let text: Vec<_> = interesting.map(ToString::to_string).collect();
        self.stage.shown(&text.join("\n"));
        for (claim, scene) in &scenes {
            let seen = frames.iter().any(scene);
            self.stage.check(
                claim,
                seen.then_some(()).ok_or_else(|| String::from("not seen")),
            );
        }
        Ok(())
    }

    fn published(&mut self) -> Outcome {
        self.stage.step("-p: the same page at the host's address");
        let answer = self.stage.dockless(&["port", "mac1"]);
        self.stage.check(
            "the port is published",
            contains(&answer, &["5000/tcp -> 0.0.0.0:5000"]),
        );
        let id = self.id.get(..12).unwrap_or_default().to_owned();
        let host = SocketAddrV4::new(self.lab.host.ip, PORT);
        let report = self.report("other1", self.other(0), host)?;
        self.equal("another machine reaches the container", &report["id"], &id);
        self.equal(
            "which sees that machine's own address",
            &report["client"]["address"],
            "10.0.2.7",
        );
        for address in [self.lab.host.ip, Ipv4Addr::LOCALHOST] {
            let server = SocketAddrV4::new(address, PORT);
            let report = self.report("", &self.lab.host, server)?;
            self.equal(
                &format!("so does the host itself, at {address}"),
                &report["id"],
                &id,
            );
        }
        Ok(())
    }

    fn isolated(&mut self) -> Outcome {
        self.stage.step("Host and container do not see each other");
        let nothing = &["Destination Host Unreachable", "100% packet loss"];
        // At once: each waits three seconds for ARP to give up.
        let (inside, outside) = self.both_pings(&["-c", "1"]);
        self.stage.check(
            "the container cannot ping the host",
            fails(&inside, nothing),
        );
        self.stage.check(
            "the host cannot ping the container",
            fails(&outside, nothing),
        );
        let answer = self
            .stage
            .dockless(&["exec", "mac1", "ping", "-c", "1", "10.0.2.1"]);
        self.stage.check(
            "the container reaches the gateway",
            works(&answer, &["1 received, 0% packet loss"]),
        );
        Ok(())
    }

    fn host_access(&mut self) -> Outcome {
        self.stage.step("Unless they shall: host-access");
        let answer = self
            .stage
            .dockless(&["network", "host-access", "mac1", "on"]);
        self.stage.demand("is switched on", works(&answer, &[]))?;
        self.pings_work();
        self.answers_once(self.lab.host.ip, "the host's address");
        self.answers_once(CONTAINER, "the container's address");

        let answer = self
            .stage
            .dockless(&["network", "host-access", "mac1", "off"]);
        self.stage.demand("is switched off", works(&answer, &[]))?;
        let (inside, outside) = self.both_pings(&["-c", "1", "-W", "0.3"]);
        let loss = &["100% packet loss"];
        self.stage
            .check("isolated again, from inside", fails(&inside, loss));
        self.stage
            .check("isolated again, from outside", fails(&outside, loss));

        let answer =
            self.stage
                .dockless(&["network", "host-access", "mac1", "on", "--ip", "10.0.2.6"]);
        self.stage
            .demand("or with an address of its own", works(&answer, &[]))?;
        self.pings_work();
        self.answers_once(SHIM, "that address");
        self.answers_once(self.lab.host.ip, "the host's address");
        let answer = self
            .stage
            .dockless(&["network", "host-access", "mac1", "off"]);
        self.stage.demand("is switched off", works(&answer, &[]))
    }

    fn remove(&mut self, before: &Snapshot) -> Outcome {
        self.stage.step("And nothing stays");
        let answer = self.stage.dockless(&["rm", "-f", "mac1"]);
        self.stage
            .check("the container is removed", works(&answer, &["mac1"]));
        let answer = self.stage.dockless(&["network", "rm", "mac1"]);
        self.stage
            .check("the network is removed", works(&answer, &["mac1"]));
        // The kernel frees namespaces in the background.
        let end = Instant::now() + Duration::from_secs(3);
        let mut differences = Vec::new();
        let _busy = self.stage.busy("comparing the machine with before");
        loop {
            reap_orphans();
            match Snapshot::take(self.mine(&[&self.id])) {
                Ok(after) => differences = before.differences(&after),
                Err(e) => differences.push(e.to_string()),
            }
            if differences.is_empty() || Instant::now() > end {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let counts: Vec<_> = before
            .counts()
            .map(|(kind, n)| format!("{n} {kind}"))
            .collect();
        let claim = format!("the machine is as before step 1: {}", counts.join(", "));
        self.stage.shown(&differences.join("\n"));
        let same = differences.is_empty();
        let why = || format!("{} differences", differences.len());
        self.stage.check(&claim, same.then_some(()).ok_or_else(why));
        Ok(())
    }
}

type Scene = Box<dyn Fn(&Frame) -> bool>;
