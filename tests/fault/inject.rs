//! Every command with a fault at each of its steps: a system call that fails,
//! or a kill of the command, of the supervisor, of both, of the container's
//! first process.
//!
//! # Theory of operation
//! A *scenario* is a command and what must be there before it. It is run once
//! per role, step and fault, until the role makes no such step any more. Then:
//!
//! 1. A command that was not killed has either worked, or it exits with its
//!    code (125 for `run`, else 1) and says which thing failed and why; and if
//!    it makes things, nothing half-made is there, before any other command.
//! 2. The next command (in turn `ps -a` and `gc`) succeeds; whatever
//!    containers there are, are wholly there (`World::is_whole`).
//! 3. `rm -f` and `network rm` take them away, and the machine is as before.
//!
//! In the short form a step stands for all of the same call in the same role;
//! `DOCKLESS_FAULTS=full` (scripts/fault) takes each of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use dockless::base::error::errno_text;
use nix::errno::Errno;

use crate::calls::Call;
use crate::harness::{Test, Verdict, failed};
use crate::judge::{self, Answer};
use crate::tracer::{self, Fault, Point, Role, Step, Trace, Traced};
use crate::world::{NETWORK, World};

/// A command and its world.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    /// Makes what the command needs.
    before: fn(&mut World) -> Verdict,
    argv: &'static [&'static str],
    /// The container whose supervisor takes part.
    supervisor: Option<&'static str>,
    /// The exit code when it fails.
    code: i32,
    /// A failure leaves nothing of what it has begun, at once.
    makes: bool,
}

const NEW: Scenario = Scenario {
    name: "",
    before: |_| Ok(()),
    argv: &[],
    supervisor: None,
    code: 1,
    makes: false,
};

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "network_create",
        argv: &[
            "network",
            "create",
            "-d",
            "macvlan",
            "--subnet=10.0.2.0/24",
            "-o",
            "parent=eth1",
            "n1",
        ],
        makes: true,
        ..NEW
    },
    Scenario {
        name: "network_rm",
        before: network,
        argv: &["network", "rm", "n1"],
        ..NEW
    },
    Scenario {
        name: "run_detached",
        before: network,
        argv: &[
            "run",
            "-d",
            "--name",
            "c1",
            "--network",
            "n1",
            "--cidfile",
            "/run/tmp/cid",
            "tester",
        ],
        code: 125,
        makes: true,
        ..NEW
    },
    Scenario {
        name: "run_to_its_end",
        before: network,
        argv: &[
            "run",
            "--rm",
            "--name",
            "c1",
            "--network",
            "n1",
            "tester",
            "ip",
            "link",
        ],
        code: 125,
        makes: true,
        ..NEW
    },
    Scenario {
        name: "start",
        before: |world| {
            network(world)?;
            world
                .ok(&[
                    "run",
                    "--name",
                    "c1",
                    "--network",
                    "n1",
                    "tester",
                    "ip",
                    "link",
                ])
                .map(drop)
        },
        argv: &["start", "c1"],
        ..NEW
    },
    Scenario {
        name: "connect",
        before: two_networks,
        argv: &["network", "connect", "n2", "c1"],
        supervisor: Some("c1"),
        makes: true,
        ..NEW
    },
    Scenario {
        name: "disconnect",
        before: |world| {
            two_networks(world)?;
            world.ok(&["network", "connect", "n2", "c1"]).map(drop)
        },
        argv: &["network", "disconnect", "n2", "c1"],
        supervisor: Some("c1"),
        ..NEW
    },
    Scenario {
        name: "stop",
        before: running,
        argv: &["stop", "c1"],
        supervisor: Some("c1"),
        ..NEW
    },
    Scenario {
        name: "restart",
        before: running,
        argv: &["restart", "c1"],
        supervisor: Some("c1"),
        ..NEW
    },
    Scenario {
        name: "rename",
        before: running,
        argv: &["rename", "c1", "c2"],
        supervisor: Some("c1"),
        ..NEW
    },
    Scenario {
        name: "rm_force",
        before: running,
        argv: &["rm", "-f", "c1"],
        supervisor: Some("c1"),
        ..NEW
    },
];

fn network(world: &mut World) -> Verdict {
    world.ok(&[&NETWORK[..], &["n1"]].concat()).map(drop)
}

fn running(world: &mut World) -> Verdict {
    network(world)?;
    let run = ["run", "-d", "--name", "c1", "--network", "n1", "tester"];
    world.ok(&run).map(drop)
}

fn two_networks(world: &mut World) -> Verdict {
    running(world)?;
    let create = [
        "network",
        "create",
        "-d",
        "macvlan",
        "--subnet=10.0.3.0/24",
        "-o",
        "parent=eth1",
        "n2",
    ];
    world.ok(&create).map(drop)
}

/// What happens to whom.
#[derive(Clone, Copy)]
struct Attack {
    name: &'static str,
    roles: &'static [Role],
    fault: fn(&Step) -> Fault,
    selects: fn(&Call) -> bool,
}

const ATTACKS: &[Attack] = &[
    Attack {
        name: "errors",
        roles: &[Role::Command, Role::Supervisor, Role::First],
        fault: |step| Fault::Error(plausible(step.call)),
        selects: |call| call.can_fail,
    },
    Attack {
        name: "kills",
        roles: &[Role::Command, Role::Supervisor, Role::First],
        fault: |_| Fault::Kill,
        selects: |call| call.is_effect,
    },
    Attack {
        name: "double_kills",
        roles: &[Role::Command, Role::Supervisor],
        fault: |_| Fault::KillBoth,
        selects: |call| call.is_effect,
    },
];

/// An error that this call can really meet.
fn plausible(call: &str) -> Errno {
    match call {
        "clone3" | "clone" => Errno::EAGAIN,
        "mkdir" | "mkdirat" | "openat" | "write" | "pwrite64" | "symlink" | "linkat" | "fsync" => {
            Errno::ENOSPC
        }
        "socket" | "socketpair" | "pipe2" | "openat2" | "epoll_create1" | "pidfd_open" => {
            Errno::EMFILE
        }
        "sendto" | "recvfrom" => Errno::ENOBUFS,
        "setns" | "unshare" | "mount" | "move_mount" | "mount_setattr" | "capset" | "mknodat" => {
            Errno::EPERM
        }
        _ => Errno::EIO,
    }
}

pub(crate) fn tests() -> Vec<Test> {
    let full = is_full();
    let mut tests = Vec::new();
    for scenario in SCENARIOS {
        for attack in ATTACKS {
            let name = format!("inject::{}::{}", scenario.name, attack.name);
            let test = Test::named(&name, || all(scenario, attack, is_full()));
            let test = test.needs(&["ip", "nft"]);
            tests.push(test.limit_s(if full { 3600 } else { 240 }));
        }
    }
    tests
}

fn is_full() -> bool {
    std::env::var("DOCKLESS_FAULTS").is_ok_and(|v| v == "full")
}

fn all(scenario: &Scenario, attack: &Attack, full: bool) -> Verdict {
    let mut world = World::new()?;
    let mut problems = String::new();
    let (mut tries, mut bad) = (0, 0);
    let mut seen = BTreeSet::new();
    let steps = scenario.steps(&mut world, attack)?;
    for role in attack.roles {
        let own: Vec<&Step> = steps.iter().filter(|s| s.role == *role).collect();
        for (at, step) in own.iter().enumerate() {
            if !full && !seen.insert((*role, step.call)) {
                continue;
            }
            let point = Point {
                role: *role,
                step: at + 1,
                fault: (attack.fault)(step),
            };
            tries += 1;
            if let Err(stop) = scenario.attempt(&mut world, attack, point, tries) {
                bad += 1;
                let _ = writeln!(
                    problems,
                    "{} {:?} at step {} ({step}): {stop:?}",
                    scenario.name,
                    point.fault,
                    at + 1
                );
                world.reset()?;
            }
        }
    }
    println!("NOTE: {tries} faults, {bad} with problems");
    if bad == 0 {
        return Ok(());
    }
    failed(problems)
}

impl Scenario {
    /// The steps of an undisturbed run.
    fn steps(&self, world: &mut World, attack: &Attack) -> Verdict<Vec<Step>> {
        let trace = self.trace(world, attack, None)?;
        trace.answer.success()?;
        world.tidy()?;
        world.is_clean("undisturbed")?;
        Ok(trace.steps)
    }

    fn trace(&self, world: &mut World, attack: &Attack, point: Option<Point>) -> Verdict<Trace> {
        let _ = std::fs::remove_file("/run/tmp/cid");
        (self.before)(world)?;
        let program = judge::dockless().to_string_lossy().into_owned();
        let argv = [&[program.as_str()], self.argv].concat();
        let traced = Traced {
            argv: &argv,
            supervisor: self.supervisor.map(tracer::supervisor_of).transpose()?,
            selects: &attack.selects,
        };
        let trace = traced.run(point)?;
        world.see(&trace.answer.stdout);
        for step in &trace.steps {
            world.see(&step.path);
        }
        Ok(trace)
    }

    fn attempt(&self, world: &mut World, attack: &Attack, point: Point, turn: usize) -> Verdict {
        let trace = self.trace(world, attack, Some(point))?;
        let Some(step) = &trace.hit else {
            // A step that comes and goes (a retry): nothing was done.
            world.tidy()?;
            return world.is_clean("without a fault");
        };
        if let Fault::Error(errno) = point.fault {
            self.is_well_said(&trace.answer, errno, point.role)?;
            if self.makes && trace.answer.code != Some(0) {
                world.is_unmade(&format!("right after {step}: {}", trace.answer.stderr))?;
            }
        }
        let next = if turn % 2 == 0 {
            &["gc"][..]
        } else {
            &["ps", "-a"]
        };
        world.ok(next)?;
        for name in world.containers()? {
            world.is_whole(&name)?;
        }
        world.tidy()?;
        let _ = std::fs::remove_file("/run/tmp/cid");
        world.is_clean(&format!("{step}: {}", trace.answer.stderr))
    }

    /// A failed command says what and why, and has its exit code.
    fn is_well_said(&self, answer: &Answer, errno: Errno, role: Role) -> Verdict {
        let text = errno_text(errno as i32);
        eprintln!(
            "said: {:?} {:?} {}",
            role,
            answer.code,
            answer.stderr.trim()
        );
        match answer.code {
            Some(0) => return Ok(()),
            None => return failed(format!("it was killed: {}", answer.stderr)),
            Some(code) if code == self.code => {}
            Some(126 | 127) if self.code == 125 => {}
            Some(code) => {
                return failed(format!("exit {code}, not {}: {}", self.code, answer.stderr));
            }
        }
        if !answer.stderr.contains(&text) {
            return failed(format!(
                "exit {:?}, but does not say {text:?}: {:?}",
                answer.code, answer.stderr
            ));
        }
        Ok(())
    }
}
