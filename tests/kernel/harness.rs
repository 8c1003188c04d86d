//! Runs each test in its own process and namespaces; see `main.rs` for the
//! theory of operation.

use std::any::type_name_of_val;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid};

use crate::judge;

/// How a test ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(String),
    /// Something that the test needs is not here.
    Skipped(String),
}
pub(crate) type Verdict<T = ()> = Result<T, Stop>;

/// So that `?` works on every error type: an error is a failure.
impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

pub(crate) fn failed<T>(why: impl Display) -> Verdict<T> {
    Err(Stop::Failed(why.to_string()))
}

pub(crate) fn skipped<T>(why: impl Display) -> Verdict<T> {
    Err(Stop::Skipped(why.to_string()))
}

/// Is this the machine's root, not a user namespace's?
pub(crate) fn is_real_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Skips the rest of the test unless it runs as the machine's root.
#[allow(dead_code, reason = "for the modules of other layers")]
pub(crate) fn need_root() -> Verdict {
    if is_real_root() {
        Ok(())
    } else {
        skipped("needs root outside a user namespace")
    }
}

/// How many times slower than an ordinary machine this one is, by
/// `DOCKLESS_TEST_SLOW`, which `scripts/vm-test` sets: what waits for something
/// to happen, and passes as soon as it has, waits so much longer. What must
/// not happen, and what measures, goes by the clock everywhere.
pub(crate) fn slow() -> u32 {
    let told = std::env::var("DOCKLESS_TEST_SLOW").ok();
    told.and_then(|factor| factor.parse().ok()).unwrap_or(1)
}

/// So many seconds of an ordinary machine, for what is to come about.
pub(crate) fn patience(seconds: u64) -> Duration {
    Duration::from_secs(seconds) * slow()
}

/// What a test function may return.
pub(crate) trait IntoVerdict {
    fn into_verdict(self) -> Verdict;
}
impl IntoVerdict for Verdict {
    fn into_verdict(self) -> Verdict {
        self
    }
}
/// Fails by panics alone.
impl IntoVerdict for () {
    fn into_verdict(self) -> Verdict {
        Ok(())
    }
}

/// One test: a function and what the harness must know about it.
pub(crate) struct Test {
    name: String,
    run: Box<dyn Fn() -> Verdict>,
    needs: &'static [&'static str],
    limit: Duration,
    leaves_processes: bool,
}

impl Test {
    /// The name is the function's path below `tests/kernel` (or `tests/fault`).
    #[allow(dead_code, reason = "the fault tests are made from tables")]
    pub(crate) fn new<V: IntoVerdict>(run: impl Fn() -> V + 'static) -> Self {
        let path = type_name_of_val(&run);
        let name = path.split_once("::").map_or(path, |(_, name)| name);
        Self::named(name, run)
    }

    pub(crate) fn named<V: IntoVerdict>(name: &str, run: impl Fn() -> V + 'static) -> Self {
        Self {
            name: name.to_owned(),
            run: Box::new(move || run().into_verdict()),
            needs: &[],
            limit: Duration::from_secs(60),
            leaves_processes: false,
        }
    }

    /// Programs without which the test is skipped.
    pub(crate) fn needs(mut self, programs: &'static [&'static str]) -> Self {
        self.needs = programs;
        self
    }

    fn run(&self) -> Verdict {
        for program in self.needs {
            judge::installed(program)?;
        }
        (self.run)()
    }

    /// Time limit on an ordinary machine ([`slow`]); a test that runs longer
    /// is killed and failed.
    pub(crate) fn limit_s(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Processes that outlive the test are not a failure (they are killed).
    #[allow(dead_code, reason = "for the modules of other layers")]
    pub(crate) fn may_leave_processes(mut self) -> Self {
        self.leaves_processes = true;
        self
    }
}

const STAGE: &str = "DOCKLESS_KERNEL_STAGE";
const TEST: &str = "DOCKLESS_KERNEL_TEST";
/// automake's number for "skipped", which our stages pass up to the first.
const EXIT_SKIPPED: u8 = 77;
const SKIP_MARK: &str = "SKIPPED: ";
/// What a test that passes prints of its parts that it could not do.
pub(crate) const LEFT_OUT: &str = "LEFT OUT: ";
/// What a test's line begins with that is shown though the test passes.
const NOTE_MARK: &str = "NOTE: ";

/// Runs all tests, so many on each processor unless `--test-threads` is given;
/// `sum_up` gets to see their notes.
pub(crate) fn main(
    tests: Vec<Test>,
    on_each: usize,
    sum_up: impl FnOnce(&BTreeSet<String>),
) -> ExitCode {
    match std::env::var(STAGE).as_deref() {
        Err(_) => run_all(tests, on_each, sum_up),
        Ok(stage) => {
            let name = std::env::var(TEST).unwrap_or_default();
            let Some(test) = tests.iter().find(|t| t.name == name) else {
                eprintln!("no test {name}");
                return ExitCode::FAILURE;
            };
            let verdict = match stage {
                "enter" => enter(),
                "init" => init(test),
                _ => test.run().map(|()| 0),
            };
            match verdict {
                Ok(code) => ExitCode::from(code),
                Err(Stop::Failed(why)) => {
                    eprintln!("FAILED: {why}");
                    ExitCode::FAILURE
                }
                Err(Stop::Skipped(why)) => {
                    eprintln!("{SKIP_MARK}{why}");
                    ExitCode::from(EXIT_SKIPPED)
                }
            }
        }
    }
}

// --- the first process: choose, start, count

fn run_all(tests: Vec<Test>, on_each: usize, sum_up: impl FnOnce(&BTreeSet<String>)) -> ExitCode {
    let required = Required::from_env();
    let skips = Arc::new(Mutex::new(BTreeSet::new()));
    let notes = Arc::new(Mutex::new(BTreeSet::new()));
    let trials = tests
        .into_iter()
        .map(|test| {
            let (name, limit) = (test.name, test.limit * slow());
            let is_required = required.names(&name);
            let (skips, notes) = (Arc::clone(&skips), Arc::clone(&notes));
            Trial::ignorable_test(name.clone(), move || match run_one(&name, limit, &notes) {
                Ok(left_out) => {
                    let told = left_out
                        .iter()
                        .map(|part| format!("a part of {name}: {part}"));
                    skips.lock().unwrap().extend(told);
                    Ok(Completion::Completed)
                }
                Err(Stop::Failed(why)) => Err(Failed::from(why)),
                Err(Stop::Skipped(why)) if is_required => {
                    Err(format!("required by DOCKLESS_REQUIRE but skipped: {why}").into())
                }
                Err(Stop::Skipped(why)) => {
                    skips.lock().unwrap().insert(format!("{name}: {why}"));
                    Ok(Completion::ignored_with(why))
                }
            })
        })
        .collect();
    let mut args = Arguments::from_args();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    args.test_threads.get_or_insert(on_each * processors);
    let listing = args.list;
    let conclusion = libtest_mimic::run(&args, trials);
    if listing {
        return ExitCode::SUCCESS;
    }
    for skip in skips.lock().unwrap().iter() {
        println!("skipped {skip}");
    }
    sum_up(&notes.lock().unwrap());
    println!(
        "{} passed, {} failed, {} skipped",
        conclusion.num_passed, conclusion.num_failed, conclusion.num_ignored
    );
    conclusion.exit_code()
}

/// Which tests must not be skipped (DOCKLESS_REQUIRE).
struct Required {
    patterns: Vec<String>,
}

impl Required {
    fn from_env() -> Self {
        let list = std::env::var("DOCKLESS_REQUIRE").unwrap_or_default();
        Self {
            patterns: list.split(',').map(|p| p.trim().to_owned()).collect(),
        }
    }

    fn names(&self, name: &str) -> bool {
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        let (out, wanted): (Vec<&str>, Vec<&str>) = self
            .patterns
            .iter()
            .map(String::as_str)
            .partition(|p| p.starts_with('!'));
        wanted.iter().any(|p| matches(p)) && !out.iter().any(|p| matches(&p[1..]))
    }
}

/// This program again, as a later stage of the same test.
fn stage(stage: &str, test: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.env(STAGE, stage).env(TEST, test);
    command
}

/// Gives back what the test has left out of itself.
fn run_one(name: &str, limit: Duration, notes: &Mutex<BTreeSet<String>>) -> Verdict<Vec<String>> {
    let (mut reader, writer) = io::pipe()?;
    let mut command = stage("enter", name);
    // `init` lives as long as this pipe is open, so nothing outlives us.
    command
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer);
    let mut child = command.spawn()?;
    drop(command);
    let lifeline = child.stdin.take();
    let output = thread::spawn(move || {
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| bytes)
    });
    // `init` enforces the limit; this only guards against init's own trouble.
    let deadline = Instant::now() + limit + Duration::from_secs(15);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            drop(lifeline);
            child.kill()?;
            return failed(format!("no answer within {} s", limit.as_secs()));
        }
        thread::sleep(Duration::from_millis(2));
    };
    drop(lifeline);
    let bytes = output.join().unwrap_or_else(|_| Ok(Vec::new()))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let noted = text.lines().filter_map(|line| line.strip_prefix(NOTE_MARK));
    let noted = noted.map(|note| format!("{name}: {note}"));
    notes.lock().unwrap().extend(noted);
    match status.code() {
        Some(0) => Ok(text
            .lines()
            .filter_map(|line| line.strip_prefix(LEFT_OUT))
            .map(str::to_owned)
            .collect()),
        Some(code) if code == i32::from(EXIT_SKIPPED) => skipped(
            text.lines()
                .rev()
                .find_map(|line| line.strip_prefix(SKIP_MARK))
                .unwrap_or("no reason given"),
        ),
        _ => failed(format!("{status}\n{text}")),
    }
}

// --- stage enter

fn enter() -> Verdict<u8> {
    let namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let as_user = std::env::var_os("DOCKLESS_TEST_USERNS").is_some();
    let as_root = geteuid().is_root() && !as_user && unshare(namespaces).is_ok();
    if !as_root {
        let (uid, gid) = (geteuid(), getegid());
        if let Err(errno) = unshare(namespaces | CloneFlags::CLONE_NEWUSER) {
            return skipped(format!(
                "this system forbids user namespaces to users: {errno} (see \
                 kernel.unprivileged_userns_clone, user.max_user_namespaces, \
                 kernel.apparmor_restrict_unprivileged_userns)"
            ));
        }
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    }
    let status = stage("init", &std::env::var(TEST)?).status()?;
    Ok(code_of(status))
}

fn code_of(status: std::process::ExitStatus) -> u8 {
    status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1)
}

// --- stage init

fn init(test: &Test) -> Verdict<u8> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    if let Err(errno) = mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none) {
        return skipped(format!("cannot mount /proc in a user namespace: {errno}"));
    }
    let tmpfs = Some("tmpfs");
    mount(tmpfs, "/run", tmpfs, MsFlags::empty(), Some("mode=755"))?;
    fs::create_dir("/run/tmp")?;
    watch_lifeline_and_clock(test.limit * slow());

    let mounts = mount_points()?;
    let child = stage("test", &test.name)
        .env("PATH", judge::search_path())
        .env("TMPDIR", "/run/tmp")
        .env("DOCKLESS_ROOT", "/run/lib-dockless")
        .env("DOCKLESS_STATE", "/run/dockless")
        .stdin(Stdio::null())
        .spawn()?;
    let code = reap_until(Pid::from_raw(i32::try_from(child.id())?))?;
    if code != 0 {
        return Ok(code);
    }
    let left: Vec<_> = mount_points()?.difference(&mounts).cloned().collect();
    if !left.is_empty() {
        return failed(format!("the test left mounts: {}", left.join(", ")));
    }
    if !test.leaves_processes {
        none_left()?;
    }
    Ok(0)
}

/// Ends pid 1, and the kernel then kills everything in the namespace, when the
/// first process is gone or the time is up.
fn watch_lifeline_and_clock(limit: Duration) {
    thread::spawn(|| {
        let mut byte = [0];
        while matches!(io::stdin().read(&mut byte), Ok(1..)) {}
        std::process::exit(1);
    });
    thread::spawn(move || {
        thread::sleep(limit);
        let mut err = io::stderr().lock();
        let _ = writeln!(
            err,
            "FAILED: not done within {} s; running:",
            limit.as_secs()
        );
        for line in processes() {
            let _ = writeln!(err, "  {line}");
        }
        std::process::exit(1);
    });
}

/// Reaps everything that ends; returns when `test` has, with its exit code.
fn reap_until(test: Pid) -> Verdict<u8> {
    loop {
        match waitpid(None, None)? {
            WaitStatus::Exited(pid, code) if pid == test => return Ok(u8::try_from(code)?),
            WaitStatus::Signaled(pid, signal, _) if pid == test => {
                return failed(format!("killed by {signal}"));
            }
            _ => {}
        }
    }
}

/// Waits for processes that are on their way out: a supervisor deletes its links
/// last, and all namespaces share the lock for that (RTNL).
fn none_left() -> Verdict {
    let deadline = Instant::now() + patience(10);
    loop {
        while matches!(
            waitpid(None, Some(nix::sys::wait::WaitPidFlag::WNOHANG)),
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
        ) {}
        let left = processes();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return failed(format!("the test left processes:\n  {}", left.join("\n  ")));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Living processes of this pid namespace except pid 1, one line each.
fn processes() -> Vec<String> {
    let mut lines = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else {
        return vec!["/proc cannot be read".to_owned()];
    };
    for pid in entries.filter_map(|e| e.ok()?.file_name().into_string().ok()?.parse::<u32>().ok()) {
        let read = |file| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let stat = read("stat");
        // "pid (comm) S …": comm may hold blanks, its closing bracket is the last one.
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        if pid != 1 && !matches!(state, None | Some('Z' | 'X')) {
            let command = read("cmdline").replace('\0', " ");
            lines.push(format!("{pid} {state:?} {} {command}", read("wchan")));
        }
    }
    lines
}

fn mount_points() -> Verdict<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(str::to_owned)
        .collect())
}
