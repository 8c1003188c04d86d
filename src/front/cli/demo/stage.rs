//! What the demo shows: commands as typed, what they answered, what was
//! checked, how long each step took. Colours and a running clock on a
//! terminal, plain lines in a pipe.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Program;

/// Something happens that takes longer than this: say what.
const PATIENCE: Duration = Duration::from_millis(250);
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Stage {
    pub program: Program,
    tty: bool,
    colour: bool,
    clock: Clock,
    steps: Vec<Step>,
    step_started: Instant,
    stopped: bool,
}

#[derive(Debug)]
struct Step {
    title: String,
    time: Duration,
    held: usize,
    failed: Vec<String>,
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Answer {
    pub code: Option<i32>,
    /// Standard output, then standard error.
    pub text: String,
}

impl Answer {
    pub(super) fn of(output: &Output) -> Self {
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        Self {
            code: output.status.code(),
            text,
        }
    }

    pub(super) fn worked(&self) -> bool {
        self.code == Some(0)
    }

    /// The only line of it.
    pub(super) fn line(&self) -> &str {
        self.text.trim()
    }
}

/// The walk cannot go on; why has been shown.
#[derive(Debug)]
pub(super) struct Stop;

impl Stage {
    pub(super) fn new(program: Program) -> Self {
        let tty = std::io::stdout().is_terminal();
        let colour = tty && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        Self {
            program,
            tty,
            colour,
            clock: Clock::start(tty),
            steps: Vec::new(),
            step_started: Instant::now(),
            stopped: false,
        }
    }

    pub(super) fn print(&self, text: impl Display) {
        let _shown = self.clock.quiet();
        // Nobody reading any more is no reason to stop cleaning up.
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    fn paint(&self, code: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// Begins the next step; the one before is over.
    pub(super) fn step(&mut self, title: &str) {
        self.end_step();
        let number = self.steps.len() + 1;
        self.steps.push(Step {
            title: title.to_owned(),
            time: Duration::ZERO,
            held: 0,
            failed: Vec::new(),
        });
        let heading = format!("{number}. {title}");
        self.print(format_args!("\n{}", self.paint("1", &heading)));
        self.step_started = Instant::now();
    }

    fn end_step(&mut self) {
        if let Some(step) = self.steps.last_mut() {
            step.time = self.step_started.elapsed();
        }
    }

    /// A command as somebody types it on `machine` (the host: no prompt but
    /// the dollar).
    pub(super) fn typed(&self, machine: &str, line: &str) {
        let prompt = match machine {
            "" => String::from("$"),
            machine => format!("{machine}$"),
        };
        self.print(format_args!("{} {line}", self.paint("36", &prompt)));
    }

    pub(super) fn shown(&self, text: &str) {
        // Without the blank lines, which tell parts of long answers apart.
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            self.print(format_args!("    {}", self.paint("2", line)));
        }
    }

    /// Runs `dockless ARGS` and shows what it says.
    pub(super) fn dockless(&self, args: &[&str]) -> Answer {
        let line = format!("dockless {}", args.join(" "));
        self.typed("", &line);
        let answer = self.run(&line, self.program.dockless(args));
        self.shown(&answer.text);
        answer
    }

    /// Runs a command without showing it.
    pub(super) fn run(&self, what: &str, mut command: Command) -> Answer {
        let _busy = self.busy(what);
        match command.output() {
            Ok(output) => Answer::of(&output),
            Err(error) => Answer {
                code: None,
                text: format!("{what}: {error}"),
            },
        }
    }

    /// While this lives, a terminal shows what takes so long.
    pub(super) fn busy(&self, what: &str) -> Busy {
        self.clock.busy(what)
    }

    /// Notes whether a claim holds.
    pub(super) fn check(&mut self, claim: &str, holds: Result<(), String>) -> bool {
        let held = holds.is_ok();
        match &holds {
            Ok(()) => self.print(format_args!("  {} {claim}", self.paint("32", "ok"))),
            Err(why) => self.print(format_args!(
                "  {} {claim}: {why}",
                self.paint("1;31", "FAILED")
            )),
        }
        if let Some(step) = self.steps.last_mut() {
            match holds {
                Ok(()) => step.held += 1,
                Err(why) => step.failed.push(format!("{claim}: {why}")),
            }
        }
        held
    }

    /// A claim without which the rest makes no sense.
    pub(super) fn demand(&mut self, claim: &str, holds: Result<(), String>) -> Result<(), Stop> {
        match self.check(claim, holds) {
            true => Ok(()),
            false => Err(Stop),
        }
    }

    /// The walk ended early.
    pub(super) fn stopped(&mut self, why: &str) {
        self.stopped = true;
        self.print(format_args!("\n{} {why}", self.paint("1;31", "stopped:")));
    }

    /// The summary; the exit code.
    pub(super) fn finish(mut self) -> u8 {
        self.end_step();
        let failed: usize = self.steps.iter().map(|s| s.failed.len()).sum();
        let held: usize = self.steps.iter().map(|s| s.held).sum();
        self.print(format_args!("\n{}", self.paint("1", "What was proved")));
        for (number, step) in (1..).zip(&self.steps) {
            let verdict = match step.failed.len() {
                0 => self.paint("32", "ok    "),
                _ => self.paint("1;31", "FAILED"),
            };
            let checks = step.held + step.failed.len();
            self.print(format_args!(
                "  {verdict} {number}. {:<45} {checks:>2} checks {:>8.1} ms",
                step.title,
                step.time.as_secs_f64() * 1e3
            ));
        }
        let total: Duration = self.steps.iter().map(|s| s.time).sum();
        let all = held + failed;
        let sentence = match (self.stopped, failed) {
            (true, _) => format!("The walk stopped early: {held} of {all} checks held."),
            (false, 0) => format!("All {all} checks held, in {:.1} s.", total.as_secs_f64()),
            (false, _) => format!("{failed} of {all} checks did not hold."),
        };
        self.print(format_args!("\n{sentence}"));
        let ok = !self.stopped && failed == 0 && all > 0;
        if self.tty {
            self.clock.stop();
        }
        u8::from(!ok)
    }
}

/// What is under way, for the line at the bottom of a terminal.
#[derive(Debug, Default)]
struct Running {
    what: Option<(String, Instant)>,
    shown: bool,
    over: bool,
}

#[derive(Clone, Debug)]
struct Clock(Arc<Mutex<Running>>);

/// See [`Stage::busy`].
#[derive(Debug)]
pub(super) struct Busy(Clock);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.quiet().what = None;
    }
}

impl Clock {
    /// In a pipe nothing ticks.
    fn start(tty: bool) -> Self {
        let clock = Self(Arc::default());
        if tty {
            let ticking = clock.clone();
            // Without the thread there is no clock, that is all.
            let _ = std::thread::Builder::new()
                .name(String::from("clock"))
                .spawn(move || while ticking.tick() {});
        }
        clock
    }

    fn tick(&self) -> bool {
        std::thread::sleep(TICK);
        let mut running = self.lock();
        if let Some((what, since)) = &running.what
            && since.elapsed() > PATIENCE
        {
            let mut out = std::io::stdout();
            let seconds = since.elapsed().as_secs_f64();
            let _ = write!(out, "\r\x1b[K    … {what} ({seconds:.1} s)");
            let _ = out.flush();
            running.shown = true;
        }
        !running.over
    }

    fn busy(&self, what: &str) -> Busy {
        // One line must do, or it could not be erased.
        let short: String = what.chars().take(50).collect();
        self.quiet().what = Some((short, Instant::now()));
        Busy(self.clone())
    }

    fn stop(&self) {
        self.quiet().over = true;
    }

    /// The clock's line is gone while this is held.
    fn quiet(&self) -> MutexGuard<'_, Running> {
        let mut running = self.lock();
        if running.shown {
            let _ = write!(std::io::stdout(), "\r\x1b[K");
            running.shown = false;
        }
        running
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
