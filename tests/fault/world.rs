//! The machine on which things go wrong: a LAN with this process as its host,
//! what was there before, and the question whether it is so again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dockless::lab::Lab;
use dockless::lab::snapshot::{Mine, Snapshot};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{major, minor};
use nix::unistd::Pid;
use serde_json::{Deserializer, Value};

use crate::harness::{Verdict, failed};
use crate::judge::{self, Answer};

/// How long the kernel may take to bury what was killed: a network namespace
/// is taken apart in the background.
const BURIAL: Duration = Duration::from_secs(10);

pub(crate) struct World {
    _lab: Lab,
    before: State,
    /// Right before the command under test.
    marked: State,
    /// Containers seen: whose cgroups must be gone.
    ids: BTreeSet<String>,
}

/// Everything that a container runtime could leave behind.
#[derive(Default)]
struct State {
    kernel: Snapshot,
    files: Vec<String>,
    locks: Vec<String>,
    /// What `ip` and `nft` say.
    judged: Vec<String>,
}

impl World {
    /// A LAN whose host has run a container once, so that the folders and the
    /// image are there.
    pub(crate) fn new() -> Verdict<Self> {
        let lab = Lab::here(1)?;
        let mut world = Self {
            _lab: lab,
            before: State::take()?,
            marked: State::default(),
            ids: BTreeSet::new(),
        };
        world.warm()?;
        world.before.files = all_files();
        Ok(world)
    }

    fn warm(&mut self) -> Verdict {
        let create = ["network", "create", "-d", "macvlan", "-o", "parent=eth1"];
        self.ok(&[&create[..], &["--subnet=10.0.2.0/24", "warm"]].concat())?;
        self.ok(&["run", "--rm", "--network", "warm", "tester", "ip", "link"])?;
        self.ok(&["network", "rm", "warm"])?;
        // `run` does not wait until the last file is deleted.
        let deadline = Instant::now() + BURIAL;
        while all_files().iter().any(|f| f.contains("/containers/")) {
            if Instant::now() > deadline {
                return failed("the first container does not go away");
            }
            sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Here begins the command under test.
    pub(crate) fn mark(&mut self) -> Verdict {
        self.marked = State::take()?;
        Ok(())
    }

    /// Runs the program.
    pub(crate) fn dockless(&mut self, args: &[&str]) -> Verdict<Answer> {
        let program = judge::dockless().to_string_lossy();
        let answer = judge::run(&[&[program.as_ref()], args].concat())?;
        self.see(&answer.stdout);
        Ok(answer)
    }

    /// The same, and it must succeed.
    pub(crate) fn ok(&mut self, args: &[&str]) -> Verdict<String> {
        Ok(self.dockless(args)?.success()?.stdout.trim().to_owned())
    }

    /// Remembers every container id in a text.
    pub(crate) fn see(&mut self, text: &str) {
        let words = text.split(|c: char| !c.is_ascii_hexdigit());
        let ids = words.filter(|w| w.len() == 64).map(str::to_owned);
        self.ids.extend(ids);
    }

    /// What differs from `before`, but for what `ignores` names. The machine
    /// gets some time for it to be nothing.
    fn left(&self, before: &State, ignores: impl Fn(&String) -> bool) -> Verdict<Vec<String>> {
        let deadline = Instant::now() + BURIAL;
        loop {
            // Other people's programs are slow: only once we are content.
            let mut left = before.differences(&State::take_ours()?);
            left.retain(|line| !ignores(line));
            if left.is_empty() {
                left = before.judged_differences(&judged()?);
            }
            if left.is_empty() || Instant::now() > deadline {
                return Ok(left);
            }
            sleep(Duration::from_millis(2));
        }
    }

    /// Fails unless nothing was left behind since the beginning.
    pub(crate) fn is_clean(&self, after: &str) -> Verdict {
        let mut left = self.left(&self.before, |_| false)?;
        left.extend(self.cgroups());
        if left.is_empty() {
            return Ok(());
        }
        failed(format!("{after}: left behind:\n  {}", left.join("\n  ")))
    }

    /// Nothing new but a container that has not been started, as Docker leaves
    /// it when `run` fails, and the file of a lock that nobody holds.
    pub(crate) fn is_unmade(&self, after: &str) -> Verdict {
        let created = [
            root_folder().join("containers"),
            root_folder().join("names"),
            state_folder().join("locks"),
        ];
        let is_created = |line: &String| {
            let path = line.split_once("file ").map_or("", |(_, path)| path);
            created
                .iter()
                .any(|folder| Path::new(path).starts_with(folder))
        };
        let left = self.left(&self.marked, is_created)?;
        if left.is_empty() {
            return Ok(());
        }
        failed(format!("{after}: half-made:\n  {}", left.join("\n  ")))
    }

    /// After a failed test: takes everything away by force.
    pub(crate) fn reset(&mut self) -> Verdict {
        // Everybody in this process's own pid namespace.
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        sleep(Duration::from_millis(50));
        let _ = fs::remove_dir_all(state_folder());
        for folder in ["containers", "names", "networks"] {
            let _ = fs::remove_dir_all(root_folder().join(folder));
        }
        for base in hierarchies() {
            for id in &self.ids {
                let _ = fs::remove_dir(base.join(format!("dockless-{id}")));
            }
        }
        judge::run(&["nft", "flush", "ruleset"])?;
        for link in judge::ip(&["link", "show", "type", "macvlan"])?
            .as_array()
            .into_iter()
            .flatten()
        {
            judge::run(&["ip", "link", "del", link["ifname"].as_str().unwrap_or("")])?;
        }
        self.warm()?;
        self.is_clean("reset")
    }

    /// Those of this test's containers: others run at the same time.
    fn cgroups(&self) -> Vec<String> {
        let mut left = Vec::new();
        for base in hierarchies() {
            let paths = self
                .ids
                .iter()
                .map(|id| base.join(format!("dockless-{id}")));
            left.extend(paths.filter(|p| p.exists()));
        }
        left.iter()
            .map(|p| format!("+ cgroup {}", p.display()))
            .collect()
    }

    /// Names of all containers, running or not.
    pub(crate) fn containers(&mut self) -> Verdict<Vec<String>> {
        let text = self.ok(&["ps", "-a", "--format", "{{.Names}}"])?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    pub(crate) fn inspect(&mut self, name: &str) -> Verdict<Value> {
        let text = self.ok(&["inspect", name])?;
        let mut list: Vec<Value> = serde_json::from_str(&text)?;
        match list.pop() {
            Some(value) if list.is_empty() => Ok(value),
            _ => failed(format!("inspect {name}: not one object")),
        }
    }

    /// A container is wholly there: what is said of it is true.
    pub(crate) fn is_whole(&mut self, name: &str) -> Verdict {
        let view = self.inspect(name)?;
        let state = view["State"]["Status"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let pid = view["State"]["Pid"].as_i64().unwrap_or_default();
        let networks = view["NetworkSettings"]["Networks"].as_object();
        let addresses: Vec<String> = networks
            .into_iter()
            .flat_map(|n| n.values())
            .filter_map(|n| n["IPAddress"].as_str())
            .filter(|ip| !ip.is_empty())
            .map(str::to_owned)
            .collect();
        if state != "running" {
            if pid != 0 || !addresses.is_empty() {
                return failed(format!("{name}: {state}, but with pid or address: {view}"));
            }
            return Ok(());
        }
        if !Path::new(&format!("/proc/{pid}")).exists() {
            return failed(format!("{name}: running as {pid}, which is not there"));
        }
        let inside = format!("--net=/proc/{pid}/ns/net");
        let links = judge::run(&["nsenter", &inside, "ip", "-j", "addr"])?.json()?;
        for ip in &addresses {
            if !links.to_string().contains(&format!("\"{ip}\"")) {
                return failed(format!("{name}: has no {ip}: {links}"));
            }
            let leases = files(&state_folder());
            if !leases.iter().any(|f| f.ends_with(&format!(",{ip} -"))) {
                return failed(format!("{name}: no lease of {ip}"));
            }
        }
        Ok(())
    }

    /// The next command works, and all containers are wholly there.
    pub(crate) fn all_whole(&mut self, next: &str) -> Verdict {
        if next != "ps" {
            self.ok(&[next])?;
        }
        let deadline = Instant::now() + BURIAL;
        loop {
            let names = self.containers()?;
            match names.iter().try_for_each(|name| self.is_whole(name)) {
                // One that is just ending is neither whole nor gone.
                Err(_) if Instant::now() < deadline => sleep(Duration::from_millis(5)),
                verdict => return verdict,
            }
        }
    }

    /// Takes everything away, as a user would.
    pub(crate) fn tidy(&mut self) -> Verdict {
        let names = self.containers()?;
        self.all(&["rm", "-f"], names.iter().map(String::as_str))?;
        let text = self.ok(&["network", "ls", "--filter", "type=custom", "-q"])?;
        self.all(&["network", "rm"], text.lines())
    }

    fn all<'a>(&mut self, verb: &[&'a str], names: impl Iterator<Item = &'a str>) -> Verdict {
        let argv: Vec<&str> = verb.iter().copied().chain(names).collect();
        if argv.len() == verb.len() {
            return Ok(());
        }
        self.ok(&argv).map(drop)
    }
}

impl State {
    fn take() -> Verdict<Self> {
        let mut state = Self::take_ours()?;
        state.judged = judged()?;
        Ok(state)
    }

    /// Without other people's programs.
    fn take_ours() -> Verdict<Self> {
        Ok(Self {
            // Locks and cgroups are judged apart.
            kernel: Snapshot::take(Mine {
                state: &state_folder(),
                containers: &[],
            })?,
            files: all_files(),
            locks: locks(),
            judged: Vec::new(),
        })
    }

    /// What is only here (`-`) and only in `later` (`+`), without the judges.
    fn differences(&self, later: &Self) -> Vec<String> {
        let mut found = self.kernel.differences(&later.kernel);
        found.retain(|line| !line[2..].starts_with("locks:"));
        found.extend(differences(&self.files, &later.files));
        found.extend(differences(&self.locks, &later.locks));
        found
    }

    fn judged_differences(&self, later: &[String]) -> Vec<String> {
        differences(&self.judged, later)
    }
}

fn differences(before: &[String], after: &[String]) -> Vec<String> {
    let only = |ours: &[String], theirs: &[String], sign: char| -> Vec<String> {
        let only = ours.iter().filter(|line| !theirs.contains(line));
        only.map(|line| format!("{sign} {line}")).collect()
    };
    [only(before, after, '-'), only(after, before, '+')].concat()
}

/// What `ip` and `nft` say.
fn judged() -> Verdict<Vec<String>> {
    let questions = "addr show\nroute show table all\nrule show\nneigh show nud permanent\n";
    let batch = format!("{}/questions", std::env::var("TMPDIR")?);
    fs::write(&batch, questions)?;
    let answer = judge::run(&["ip", "-j", "-d", "-batch", &batch])?.success()?;
    let mut judged = Vec::new();
    for list in Deserializer::from_str(&answer.stdout).into_iter::<Vec<Value>>() {
        judged.extend(list?.iter().map(|thing| format!("ip {thing}")));
    }
    let rules = judge::nft_ruleset()?;
    judged.extend(rules.iter().map(|r| format!("nft {r}")));
    Ok(judged)
}

pub(crate) fn root_folder() -> PathBuf {
    std::env::var_os("DOCKLESS_ROOT").unwrap_or_default().into()
}

pub(crate) fn state_folder() -> PathBuf {
    std::env::var_os("DOCKLESS_STATE")
        .unwrap_or_default()
        .into()
}

/// Where containers' cgroups are made.
fn hierarchies() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let below = fs::read_dir(top).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = below.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    all.push(top.to_owned());
    all
}

fn all_files() -> Vec<String> {
    let folders = [root_folder(), state_folder()];
    // A lock's file stays, whoever made it first.
    let found = folders
        .iter()
        .flat_map(|folder| files(folder))
        .filter(|f| !f.ends_with(".lock -"));
    found.map(|f| format!("file {f}")).collect()
}

/// Every file and folder below, with a letter for its kind; the image's own
/// files, the log of events and notes of others' addresses, which stay, and
/// bells, of which word comes some time after a start, are not looked at.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if ["events", "conflicts", "bells"]
            .iter()
            .any(|name| entry.file_name() == *name)
        {
            continue;
        }
        let kind = entry.file_type().map_or('?', |t| {
            if t.is_dir() {
                'd'
            } else if t.is_symlink() {
                'l'
            } else {
                '-'
            }
        });
        found.push(format!("{} {kind}", path.display()));
        if kind == 'd' && entry.file_name() != "rootfs" {
            found.extend(files(&path));
        }
    }
    found
}

/// Locks on files of this test's state (a file system of its own).
fn locks() -> Vec<String> {
    let Ok(state) = fs::metadata("/run") else {
        return Vec::new();
    };
    let device = format!(" {:02x}:{:02x}:", major(state.dev()), minor(state.dev()));
    let text = fs::read_to_string("/proc/locks").unwrap_or_default();
    text.lines()
        .filter(|line| line.contains(&device))
        .filter_map(|line| Some(format!("lock {}", line.split_once(": ")?.1)))
        .collect()
}
