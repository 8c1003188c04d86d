//! Every command with a fault at each of its steps: a system call that fails,
//! or a kill of the command, of the supervisor, of both, of the container's
//! first process, and of those who clean up behind them.
//!
//! # Theory of operation
//! A *scenario* is a command and what must be there before it; a *point* is
//! one system call of one role in it. The scenario is run once for each point
//! and *attack*:
//!
//! | attack | at the point | then |
//! |---|---|---|
//! | `errors` | the call fails | |
//! | `kills` | kill -9 of whoever makes it | |
//! | `both` | kill -9 of command and supervisor | |
//! | `again` | the same | `gc` (in turn `ps`) is killed at its first effect, then at its second, … until it comes through |
//!
//! What must be true then, whatever the point:
//!
//! 1. A command that was not killed has either worked, or it exits with its
//!    code (125 for `run`, else 1) and says which thing failed and why; and if
//!    it makes things, nothing half-made is there, before any other command.
//! 2. The next command (in turn `gc`, `ps -a`, or at once the one of 3)
//!    succeeds; whatever containers there are, are wholly there
//!    (`World::is_whole`).
//! 3. The same names, addresses, MAC and port can be taken again, where need
//!    be after `rm -f`.
//! 4. `rm -f` and `network rm` take everything away, and the machine is as
//!    before: links, addresses, routes, neighbours, rules, nf_tables, mounts,
//!    cgroups, processes, locks, sysctls, and every file of both folders.
//!
//! In the short form, each attack takes some points, evenly spread; which,
//! depends on `DOCKLESS_FAULT_SEED` (0). `DOCKLESS_FAULTS=full` takes each,
//! `DOCKLESS_FAULT_POINT=Supervisor:recvfrom:22` this one of a role's calls.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use dockless::base::error::errno_text;
use nix::errno::Errno;

use crate::calls::Call;
use crate::counts::Counts;
use crate::harness::{Test, Verdict, failed};
use crate::judge::{self, Answer};
use crate::scenarios::{CIDFILE, SCENARIOS, Scenario};
use crate::tracer::{self, Fault, Point, Role, Step, Trace, Traced};
use crate::world::World;

/// What happens to whom.
#[derive(Clone, Copy)]
struct Attack {
    name: &'static str,
    roles: &'static [Role],
    fault: fn(&Step) -> Fault,
    selects: fn(&Call) -> bool,
    /// Those who clean up are killed, too.
    again: bool,
    /// Points in the short form.
    few: usize,
}

const ATTACKS: &[Attack] = &[
    Attack {
        name: "errors",
        roles: &[Role::Command, Role::Supervisor, Role::First],
        fault: |step| Fault::Error(plausible(step.call)),
        selects: |call| call.can_fail,
        again: false,
        few: 8,
    },
    Attack {
        name: "kills",
        roles: &[Role::Command, Role::Supervisor, Role::First],
        fault: |_| Fault::Kill,
        selects: |call| call.is_effect,
        again: false,
        few: 6,
    },
    Attack {
        name: "both",
        roles: &[Role::Command, Role::Supervisor],
        fault: |_| Fault::KillBoth,
        selects: |call| call.is_effect,
        again: false,
        few: 4,
    },
    Attack {
        name: "again",
        roles: &[Role::Command, Role::Supervisor],
        fault: |_| Fault::KillBoth,
        selects: |call| call.is_effect,
        again: true,
        few: 1,
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
    let mut tests = Vec::new();
    for scenario in SCENARIOS {
        for attack in ATTACKS {
            let name = format!("inject::{}::{}", scenario.name, attack.name);
            let test =
                Test::named(&name, || all(scenario, attack)).needs(&["ip", "nft", "nsenter"]);
            tests.push(test.limit_s(if is_full() { 3600 } else { 240 }));
        }
    }
    tests
}

pub(crate) fn is_full() -> bool {
    std::env::var("DOCKLESS_FAULTS").is_ok_and(|v| v == "full")
}

/// Which points the short form takes.
pub(crate) fn seed() -> usize {
    let seed = std::env::var("DOCKLESS_FAULT_SEED").ok();
    seed.and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// The points of an attack, by role in order of time.
fn points(steps: &[Step], attack: &Attack) -> Vec<Point> {
    let mut points = Vec::new();
    for role in attack.roles {
        let mut seen = BTreeMap::new();
        for step in steps.iter().filter(|s| s.role == *role) {
            let nth = seen.entry(step.call).or_insert(0);
            *nth += 1;
            points.push(Point {
                role: *role,
                call: Some(step.call),
                nth: *nth,
                fault: (attack.fault)(step),
            });
        }
    }
    points
}

fn all(scenario: &Scenario, attack: &Attack) -> Verdict {
    let mut world = World::new()?;
    let mut problems = String::new();
    let mut points = points(&scenario.steps(&mut world, attack)?, attack);
    let stride = match is_full() {
        true => 1,
        false => points.len().div_ceil(attack.few).max(1),
    };
    let mut offset = seed() % stride;
    if let Ok(only) = std::env::var("DOCKLESS_FAULT_POINT") {
        points.retain(|point| point.to_string() == only);
        offset = 0;
    }
    let chosen = points.iter().skip(offset).step_by(stride);
    let mut counts = Counts {
        points: points.len(),
        ..Counts::default()
    };
    for (turn, point) in chosen.enumerate() {
        counts.tried += 1;
        if let Err(stop) = scenario.attempt(&mut world, attack, *point, turn, &mut counts) {
            counts.problems += 1;
            let _ = writeln!(
                problems,
                "{} {point} ({:?}): {stop:?}",
                scenario.name, point.fault
            );
            if let Err(stop) = world.reset() {
                let _ = writeln!(problems, "and the rest was not tried: {stop:?}");
                break;
            }
        }
    }
    println!("NOTE: {counts}");
    if counts.problems == 0 {
        return Ok(());
    }
    failed(problems)
}

impl Scenario {
    /// The steps of an undisturbed run.
    fn steps(&self, world: &mut World, attack: &Attack) -> Verdict<Vec<Step>> {
        let trace = self.trace(world, attack, None)?;
        trace.answer.success()?;
        self.tidy(world)?;
        world.is_clean("undisturbed")?;
        Ok(trace.steps)
    }

    fn trace(&self, world: &mut World, attack: &Attack, point: Option<Point>) -> Verdict<Trace> {
        let _ = std::fs::remove_file(CIDFILE);
        (self.before)(world)?;
        let _ = std::fs::remove_file(CIDFILE);
        if self.makes && attack.name == "errors" {
            world.mark()?;
        }
        let supervisor = self.supervisor.map(tracer::supervisor_of).transpose()?;
        traced(world, self.argv, supervisor, &attack.selects, point)
    }

    fn attempt(
        &self,
        world: &mut World,
        attack: &Attack,
        point: Point,
        turn: usize,
        counts: &mut Counts,
    ) -> Verdict {
        let trace = self.trace(world, attack, Some(point))?;
        let Some(step) = &trace.hit else {
            // A step that comes and goes (a retry): nothing was done.
            counts.missed += 1;
            self.tidy(world)?;
            return world.is_clean("without a fault");
        };
        let after = format!("{step}: {}", trace.answer.stderr);
        if let Fault::Error(errno) = point.fault {
            self.is_well_said(&trace.answer, errno, step)?;
            // What was made stays made when only its id cannot be printed.
            let is_done = loses_the_answer(step) || trace.answer.stderr.contains("to stdout");
            if self.makes && trace.answer.code != Some(0) && !is_done {
                world.is_unmade(&format!("right after {after}"))?;
            }
        } else {
            counts.kills += 1;
        }
        if attack.again {
            counts.kills += killed_while_cleaning(world, turn)?;
        }
        match turn % 3 {
            0 => world.all_whole("gc")?,
            1 => world.all_whole("ps")?,
            _ => {}
        }
        self.take_again(world, &after)?;
        self.tidy(world)?;
        world.is_clean(&after)
    }

    /// What was there can be there again.
    fn take_again(&self, world: &mut World, after: &str) -> Verdict {
        let _ = std::fs::remove_file(CIDFILE);
        let first = world.dockless(self.again)?;
        if first.is_success() {
            return Ok(());
        }
        let _ = std::fs::remove_file(CIDFILE);
        // A supervisor that could not clean up is still at it when its client
        // has the answer.
        std::thread::sleep(UNDOING);
        let away = world.dockless(self.away)?;
        let second = world.dockless(self.again)?;
        if away.is_success() && second.is_success() {
            return Ok(());
        }
        failed(format!(
            "{after}: cannot be had again: {first:?}, then {away:?}, then {second:?}"
        ))
    }

    fn tidy(&self, world: &mut World) -> Verdict {
        world.tidy()?;
        let _ = std::fs::remove_file(CIDFILE);
        Ok(())
    }

    /// A failed command says what and why, and has its exit code.
    fn is_well_said(&self, answer: &Answer, errno: Errno, step: &Step) -> Verdict {
        let text = errno_text(errno as i32);
        match answer.code {
            Some(0) => return Ok(()),
            None => return failed(format!("{step}: it was killed: {}", answer.stderr)),
            Some(code) if code == self.code => {}
            // What was asked for is done; its id cannot be printed.
            Some(1) if answer.stderr.contains("to stdout") => {}
            Some(126 | 127) if self.code == 125 => {}
            // It ran, and that is its end.
            Some(137) if answer.stderr.contains("has ended: its supervisor") => {}
            Some(code) => {
                return failed(format!(
                    "{step}: exit {code}, not {}: {}",
                    self.code, answer.stderr
                ));
            }
        }
        let says = |text: &str| answer.stderr.contains(text);
        let ended = ["connection reset by peer", "its supervisor was killed"];
        if says(&text) || loses_the_answer(step) && ended.into_iter().any(says) {
            return Ok(());
        }
        failed(format!(
            "{step}: exit {:?}, but does not say {text:?}: {:?}",
            answer.code, answer.stderr
        ))
    }
}

/// What undoing a start takes at most, with a lock that all namespaces share
/// (RTNL).
const UNDOING: std::time::Duration = std::time::Duration::from_millis(300);

/// The command cannot know what has been done: the answer is what fails, or
/// the supervisor gives up: rather than work in the wrong namespace, or because
/// it cannot watch what it has started.
fn loses_the_answer(step: &Step) -> bool {
    matches!(
        (step.role, step.call),
        (Role::Command, "recvmsg") | (Role::Supervisor, "epoll_ctl" | "sendmsg" | "setns")
    )
}

fn traced(
    world: &mut World,
    argv: &[&str],
    supervisor: Option<nix::unistd::Pid>,
    selects: &dyn Fn(&Call) -> bool,
    point: Option<Point>,
) -> Verdict<Trace> {
    let program = judge::dockless().to_string_lossy().into_owned();
    let traced = Traced {
        argv: &[&[program.as_str()], argv].concat(),
        supervisor,
        selects,
    };
    let trace = traced.run(point)?;
    world.see(&trace.answer.stdout);
    for step in &trace.steps {
        world.see(&step.path);
    }
    Ok(trace)
}

/// Kills whoever cleans up at its first effect, the next at its second, and so
/// on, until one comes through. Says how many kills that took.
fn killed_while_cleaning(world: &mut World, turn: usize) -> Verdict<usize> {
    let argv: &[&str] = if turn.is_multiple_of(2) {
        &["gc"]
    } else {
        &["ps", "-a"]
    };
    for nth in 1.. {
        let point = Point {
            role: Role::Command,
            call: None,
            nth,
            fault: Fault::Kill,
        };
        let trace = traced(world, argv, None, &|call| call.is_effect, Some(point))?;
        if trace.hit.is_none() {
            trace.answer.success()?;
            return Ok(nth - 1);
        }
    }
    Ok(0)
}
