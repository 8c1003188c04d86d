//! Two commands at once: each ends in one of the ways that it knows, and what
//! they leave is what one of them says.
//!
//! Every pair runs ten times; from time to time the second begins a little
//! later, so that it meets the first in another of its steps.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dockless::lab::Lab;
use dockless::store::Lock;

use super::play::{World, words};
use crate::harness::{Test, Verdict, failed};
use crate::judge;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(two_removals).needs(super::PLAYERS),
        Test::new(one_name_for_four_networks).needs(super::PLAYERS),
        Test::new(one_name_for_two_containers).needs(super::PLAYERS),
        Test::new(run_and_network_rm).needs(super::PLAYERS),
        Test::new(start_and_rm).needs(super::PLAYERS),
        Test::new(start_and_start).needs(super::PLAYERS),
        Test::new(stop_and_kill).needs(super::PLAYERS),
        Test::new(restart_and_stop).needs(super::PLAYERS),
        Test::new(connect_and_rm).needs(super::PLAYERS),
        Test::new(start_and_access_off).needs(super::PLAYERS),
        Test::new(start_and_access_on).needs(super::PLAYERS),
        Test::new(failed_run_and_access_on).needs(super::PLAYERS),
        Test::new(one_address_for_link_and_container).needs(super::PLAYERS),
        Test::new(one_address_when_both_wait).needs(super::PLAYERS),
    ]
}

const ROUNDS: u64 = 10;
const NETWORK: &str = "network create -d macvlan -o parent=eth1 --subnet 10.0.2.0/24 n";
const CONTAINER: &str = "run -d --name c1 --network n --ip 10.0.2.5 -p 5000:5000 tester";

/// How a command ended.
struct End {
    line: String,
    code: Option<i32>,
    said: String,
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` {:?} {}", self.line, self.code, self.said)
    }
}

impl End {
    fn went_well(&self) -> bool {
        self.code == Some(0)
    }

    /// It succeeded, or with this code and one of these phrases did not.
    fn is_one_of(&self, code: i32, phrases: &[&str]) -> Verdict {
        let known = phrases.iter().any(|phrase| self.said.contains(phrase));
        if self.went_well() || self.code == Some(code) && known {
            return Ok(());
        }
        failed(format!("{self:?}"))
    }
}

/// Starts each of the lines, the next one `apart` later, and waits for all.
fn at_once(lines: &[&str], apart: Duration) -> Verdict<Vec<End>> {
    let mut running: Vec<Child> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        if at > 0 {
            std::thread::sleep(apart);
        }
        let mut command = Command::new(judge::dockless());
        command.args(words(line)).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        running.push(command.spawn()?);
    }
    let mut ends = Vec::new();
    for (line, child) in lines.iter().zip(running) {
        let out = child.wait_with_output()?;
        ends.push(End {
            line: (*line).to_owned(),
            code: out.status.code(),
            said: String::from_utf8_lossy(&out.stderr).into_owned(),
        });
    }
    Ok(ends)
}

/// Ten rounds: `before`, the race in both orders, `check`, `after`; then the
/// machine is as it was.
fn race(
    before: &[&str],
    racers: &[&str],
    check: impl Fn(&World, &[End]) -> Verdict,
    after: &[&str],
) -> Verdict {
    let _lan = Lab::here(0)?;
    let world = World::new()?;
    for round in 0..ROUNDS {
        for line in before {
            done(&world, line)?;
        }
        let mut racers = racers.to_vec();
        racers.rotate_left(usize::try_from(round)? % 2);
        // 0, 0, 1, 1, … 4 ms
        let mut ends = at_once(&racers, Duration::from_millis(round / 2))?;
        ends.rotate_right(usize::try_from(round)? % 2);
        check(&world, &ends)?;
        for line in after {
            done(&world, line)?;
        }
        assert_eq!(done(&world, "gc")?, "", "round {round}: {ends:?}");
        assert_eq!(world.stays()?, "", "round {round}: {ends:?}");
    }
    world.leave()
}

/// Succeeds without a complaint; gives back stdout.
fn done(world: &World, line: &str) -> Verdict<String> {
    let (code, out, err) = world.dockless(&words(line))?;
    if code == Some(0) && err.is_empty() {
        return Ok(out);
    }
    failed(format!("$ {line}\n{out}{err}exit {code:?}"))
}

fn winners(ends: &[End]) -> usize {
    ends.iter().filter(|end| end.went_well()).count()
}

fn two_removals() -> Verdict {
    race(
        &[NETWORK, CONTAINER],
        &["rm -f c1", "rm -f c1"],
        |world, ends| {
            for end in ends {
                end.is_one_of(1, &["No such container", "removal"])?;
            }
            assert!(winners(ends) >= 1, "{ends:?}");
            assert_eq!(done(world, "ps -aq")?, "");
            Ok(())
        },
        &["network rm n"],
    )
}

fn one_name_for_four_networks() -> Verdict {
    let create = "network create -d macvlan -o parent=eth1 n";
    race(
        &[],
        &[create; 4],
        |world, ends| {
            for end in ends {
                end.is_one_of(1, &["network with name n already exists"])?;
            }
            assert_eq!(winners(ends), 1, "{ends:?}");
            let there = done(world, "network ls -q -f name=^n$")?;
            assert_eq!(there.lines().count(), 1);
            Ok(())
        },
        &["network rm n"],
    )
}

fn one_name_for_two_containers() -> Verdict {
    let run = |name| format!("run -d --name {name} --network none tester");
    race(
        &[&run("c1"), &run("c2")],
        &["rename c1 same", "rename c2 same"],
        |world, ends| {
            for end in ends {
                end.is_one_of(1, &["The container name \"/same\" is already in use"])?;
            }
            assert_eq!(winners(ends), 1, "{ends:?}");
            let loser = if ends[0].went_well() { "c2" } else { "c1" };
            done(world, &format!("rm -f same {loser}"))?;
            Ok(())
        },
        &[],
    )
}

fn run_and_network_rm() -> Verdict {
    race(
        &[NETWORK],
        &[CONTAINER, "network rm n"],
        |world, ends| {
            ends[0].is_one_of(125, &["network n not found"])?;
            ends[1].is_one_of(1, &["network n has active endpoints"])?;
            assert_eq!(winners(ends), 1, "{ends:?}");
            let there = done(world, "network ls -q -f name=^n$")?;
            assert_eq!(there.is_empty(), ends[1].went_well());
            if ends[0].went_well() {
                done(world, "exec c1 ip link")?;
            }
            // Without --rm it stays, started or not.
            done(world, "rm -f c1")?;
            if ends[0].went_well() {
                done(world, "network rm n")?;
            }
            Ok(())
        },
        &[],
    )
}

fn start_and_rm() -> Verdict {
    race(
        &[NETWORK, CONTAINER, "stop -t 0 c1"],
        &["start c1", "rm -f c1"],
        |world, ends| {
            ends[0].is_one_of(1, &["No such container"])?;
            assert!(ends[1].went_well(), "{ends:?}");
            assert_eq!(done(world, "ps -aq")?, "");
            Ok(())
        },
        &["network rm n"],
    )
}

fn start_and_start() -> Verdict {
    race(
        &[NETWORK, CONTAINER, "stop -t 0 c1"],
        &["start c1", "start c1"],
        |world, ends| {
            assert_eq!(winners(ends), 2, "{ends:?}");
            done(world, "exec c1 ip link")?;
            Ok(())
        },
        &["rm -f c1", "network rm n"],
    )
}

fn stop_and_kill() -> Verdict {
    race(
        &[NETWORK, CONTAINER],
        &["stop -t 0 c1", "kill c1"],
        |world, ends| {
            assert!(ends[0].went_well(), "{ends:?}");
            ends[1].is_one_of(1, &["is not running"])?;
            let state = done(world, "inspect -f '{{.State.Status}} {{.State.Pid}}' c1")?;
            assert_eq!(state, "exited 0\n");
            Ok(())
        },
        &["rm c1", "network rm n"],
    )
}

fn restart_and_stop() -> Verdict {
    race(
        &[NETWORK, CONTAINER],
        &["restart -t 0 c1", "stop -t 0 c1"],
        |world, ends| {
            ends[0].is_one_of(1, &["was stopped meanwhile"])?;
            assert!(ends[1].went_well(), "{ends:?}");
            let state = done(world, "inspect -f '{{.State.Status}}' c1")?;
            match state.trim() {
                "running" => drop(done(world, "exec c1 ip link")?),
                "exited" => drop(done(world, "start c1")?),
                other => return failed(format!("{other}: {ends:?}")),
            }
            Ok(())
        },
        &["rm -f c1", "network rm n"],
    )
}

fn connect_and_rm() -> Verdict {
    race(
        &[
            NETWORK,
            CONTAINER,
            "network create -d macvlan -o parent=eth1 --subnet 10.0.3.0/24 m",
        ],
        &["network connect m c1", "rm -f c1"],
        |world, ends| {
            ends[0].is_one_of(1, &["No such container"])?;
            assert!(ends[1].went_well(), "{ends:?}");
            assert_eq!(done(world, "ps -aq")?, "");
            Ok(())
        },
        &["network rm n m"],
    )
}

/// Host-side links, and tables of their names.
fn links() -> Verdict<String> {
    let links = judge::ip(&["link", "show", "type", "macvlan"])?;
    let mut found: Vec<String> = Vec::new();
    for link in links.as_array().into_iter().flatten() {
        found.push(link["ifname"].to_string());
    }
    for object in judge::nft_ruleset()? {
        let name = object["table"]["name"].as_str().unwrap_or_default();
        if name.starts_with("dl-") {
            found.push(format!("table {name}"));
        }
    }
    Ok(found.join(" "))
}

/// How many routes the host has to this one address, and how many filters
/// let it in.
fn ways_to(ip: &str) -> Verdict<(usize, usize)> {
    let routes = judge::ip(&["route", "show", ip])?;
    let let_in = |object: &&serde_json::Value| {
        let elements = object["set"]["elem"].as_array().into_iter().flatten();
        object["set"]["name"] == "containers" && elements.clone().any(|e| e == ip)
    };
    let filters = judge::nft_ruleset()?.iter().filter(let_in).count();
    Ok((routes.as_array().map_or(0, Vec::len), filters))
}

fn start_and_access_off() -> Verdict {
    race(
        &[
            NETWORK,
            "network host-access n on",
            CONTAINER,
            "stop -t 0 c1",
        ],
        &["start c1", "network host-access n off"],
        |_, ends| {
            assert_eq!(winners(ends), 2, "{ends:?}");
            assert_eq!(links()?, "", "{ends:?}");
            Ok(())
        },
        &["rm -f c1", "network rm n"],
    )
}

fn start_and_access_on() -> Verdict {
    race(
        &[NETWORK, CONTAINER, "stop -t 0 c1"],
        &["start c1", "network host-access n on"],
        |world, ends| {
            assert_eq!(winners(ends), 2, "{ends:?}");
            assert_eq!(ways_to("10.0.2.5")?, (1, 1), "{ends:?}");
            done(world, "rm -f c1")?;
            assert_eq!(ways_to("10.0.2.5")?, (0, 0), "{ends:?}");
            Ok(())
        },
        &["network rm n"],
    )
}

/// A start that comes to nothing, with a lease that `on` may have seen.
fn failed_run_and_access_on() -> Verdict {
    race(
        &[NETWORK, CONTAINER],
        &[
            "run --rm --network n --ip 10.0.2.9 -p 5000:5000 tester ip link",
            "network host-access n on",
        ],
        |_, ends| {
            ends[0].is_one_of(125, &["port is already allocated"])?;
            assert!(!ends[0].went_well() && ends[1].went_well(), "{ends:?}");
            assert_eq!(ways_to("10.0.2.5")?, (1, 1), "{ends:?}");
            assert_eq!(ways_to("10.0.2.9")?, (0, 0), "{ends:?}");
            Ok(())
        },
        &["rm -f c1", "network rm n"],
    )
}

fn one_address_for_link_and_container() -> Verdict {
    race(
        &[NETWORK],
        &[
            "run -d --name c1 --network n --ip 10.0.2.7 tester",
            "network host-access n on --ip 10.0.2.7",
        ],
        |_, ends| {
            ends[0].is_one_of(125, &["Address already in use: 10.0.2.7"])?;
            ends[1].is_one_of(1, &["Address already in use: 10.0.2.7"])?;
            assert_eq!(winners(ends), 1, "{ends:?}");
            Ok(())
        },
        &["rm -f c1", "network rm n"],
    )
}

/// The same, where both have read the network before either may choose: a held
/// lock of addresses makes the moment long.
fn one_address_when_both_wait() -> Verdict {
    let _lan = Lab::here(0)?;
    let world = World::new()?;
    done(&world, NETWORK)?;
    let lock = Lock::acquire(Path::new("/run/dockless/leases/.lock"))?;
    let holder = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        drop(lock);
    });
    let racers = [
        "run -d --name c1 --network n --ip 10.0.2.7 tester",
        "network host-access n on --ip 10.0.2.7",
    ];
    let ends = at_once(&racers, Duration::from_millis(150))?;
    assert!(holder.join().is_ok());
    ends[0].is_one_of(125, &["Address already in use: 10.0.2.7"])?;
    ends[1].is_one_of(1, &["Address already in use: 10.0.2.7"])?;
    assert_eq!(winners(&ends), 1, "{ends:?}");
    done(&world, "rm -f c1")?;
    done(&world, "network rm n")?;
    assert_eq!(world.stays()?, "", "{ends:?}");
    world.leave()
}
