//! Plays a table of rows: commands, what they must answer, and that a refused
//! one changes nothing.
//!
//! # The language
//! ```text
//! ## §4.1 duplicate name       a row begins; the LAN is shared, the state is empty
//! $ network create … n         `dockless network create … n`; must succeed
//! $ network create … n
//! [1] network with name n      … must end with 1, and say this on stderr
//! > text                       … stdout has this (`>>`: it is exactly this)
//! !> text                      … stdout has not
//! ! text                       … stderr has this, of a command that succeeds
//! ~ created 128                … may leave one container, in this state, its
//!                              error the phrase of the line before
//! ~ reason                     … may write the reason into a container's record
//! % ip link add …              sh -c, must succeed (dockless is in PATH)
//! @ DOCKLESS_ROOT=/run/x       the environment from now on, in this row
//! ^ ip link del …              sh -c, when the row's containers and networks are gone
//! ? bond                       a row for kernels that can make such a link, or
//!                              for those who may make a `tun`, or are the
//!                              machine's `root`; else it is left out
//! ```
//! Two words that begin a line are short for what many lines begin with: see
//! [`SHORT`].
//! Around every command that must fail, links, addresses, routes, nftables
//! (read by `ip` and `nft`) and all files of the state are compared; at the end
//! of a row they must be what they were before it, and `gc` must find nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use dockless::lab::Lab;

use crate::harness::{LEFT_OUT, Verdict, failed, is_real_root, patience};
use crate::judge;

/// Plays every row; fails with all that went wrong.
pub(crate) fn table(text: &str) -> Verdict {
    let _lan = Lab::here(0)?;
    let mut world = World::new()?;
    let mut wrong = String::new();
    let mut count = 0;
    for row in rows(text) {
        if let Some(need) = row.lacks() {
            println!("{LEFT_OUT}{}: {need}", row.name);
            continue;
        }
        count += 1;
        for complaint in world.play(&row)? {
            writeln!(wrong, "## {}\n{complaint}\n", row.name)?;
        }
    }
    world.leave()?;
    if wrong.is_empty() && count > 0 {
        return Ok(());
    }
    failed(format!("of {count} rows:\n{wrong}"))
}

struct Row<'a> {
    name: &'a str,
    lines: Vec<(char, &'a str)>,
}

impl Row<'_> {
    /// Why it cannot be played here.
    fn lacks(&self) -> Option<String> {
        let need = self.lines.iter().find(|(mark, _)| *mark == '?')?.1;
        match need {
            "root" if is_real_root() => None,
            "root" => Some("needs root outside a user namespace".to_owned()),
            "tun" if File::options().write(true).open("/dev/net/tun").is_ok() => None,
            "tun" => Some("needs /dev/net/tun".to_owned()),
            kind if can_make(kind) => None,
            kind => Some(format!("this kernel makes no {kind} links")),
        }
    }
}

/// A table's rows, without its head and comments.
fn rows(text: &str) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("## ") {
            let lines = Vec::new();
            rows.push(Row { name, lines });
        } else if let (Some(row), Some(mark)) = (rows.last_mut(), line.chars().next())
            && mark != '#'
        {
            let rest = match mark {
                '[' => line,
                _ => line.get(1..).unwrap_or_default().trim_start_matches(' '),
            };
            row.lines.push((mark, rest));
        }
    }
    rows
}

fn can_make(kind: &str) -> bool {
    let below: &[&str] = match kind {
        "ipvlan" => &["link", "eth1"],
        _ => &[],
    };
    let add = [&["ip", "link", "add", "trial"], below, &["type", kind]].concat();
    let made = judge::run(&add).is_ok_and(|a| a.is_success());
    if made {
        let _ = judge::run(&["ip", "link", "del", "trial"]);
    }
    made
}

/// One command line and what it must answer.
struct Step<'a> {
    line: &'a str,
    code: i32,
    answers: Vec<(char, &'a str)>,
    may_leave: Option<&'a str>,
}

/// A machine on which commands are played.
pub(super) struct World {
    /// Named in PATH, for shell lines.
    path: String,
    pub(super) env: BTreeMap<String, String>,
    /// What there is between rows.
    clean: Vec<String>,
}

impl World {
    pub(super) fn new() -> Verdict<Self> {
        // An automatic pool keeps away from the name servers of whatever
        // machine this is; here there is one that is known.
        fs::write("/run/tmp/resolv.conf", "nameserver 10.0.2.1\n")?;
        let bind = [
            "mount",
            "--bind",
            "/run/tmp/resolv.conf",
            "/etc/resolv.conf",
        ];
        judge::run(&bind)?.success()?;
        let folder = judge::dockless().parent().unwrap_or(Path::new("/"));
        let mut world = Self {
            path: format!("{}:{}", folder.display(), judge::search_path()),
            env: BTreeMap::new(),
            clean: Vec::new(),
        };
        // The folders, and the image.
        let first = ["run", "--rm", "--network", "none", "tester", "ip", "link"];
        let answer = world.dockless(&first.map(str::to_owned))?;
        assert_eq!(answer.0, Some(0), "{}", answer.2);
        world.clean = world.look()?;
        Ok(world)
    }

    pub(super) fn leave(&self) -> Verdict {
        judge::run(&["umount", "/etc/resolv.conf"])?.success()?;
        Ok(())
    }

    fn play(&mut self, row: &Row<'_>) -> Verdict<Vec<String>> {
        let mut wrong = Vec::new();
        self.env.clear();
        let mut at = 0;
        while at < row.lines.len() {
            let (mark, line) = row.lines[at];
            at += 1;
            let complaint = match mark {
                '$' => {
                    let mut step = Step {
                        line,
                        code: 0,
                        answers: Vec::new(),
                        may_leave: None,
                    };
                    while let Some((mark, text)) = row.lines.get(at)
                        && step.takes(*mark, text)
                    {
                        at += 1;
                    }
                    self.step(&step)?
                }
                '%' => self.shell(line)?,
                '@' => {
                    let (name, value) = line.split_once('=').unwrap_or((line, ""));
                    self.env.insert(name.to_owned(), value.to_owned());
                    None
                }
                '^' | '?' => None,
                _ => Some(format!("no such line: {mark} {line}")),
            };
            wrong.extend(complaint);
            // What follows would complain about the same.
            if !wrong.is_empty() {
                break;
            }
        }
        self.clear_away(&mut wrong)?;
        self.env.clear();
        self.clear_away(&mut wrong)?;
        for (_, line) in row.lines.iter().filter(|(mark, _)| *mark == '^') {
            wrong.extend(self.shell(line)?);
        }
        let (_, out, err) = self.dockless(&["gc".to_owned()])?;
        let found = out + &err;
        if !found.is_empty() {
            wrong.push(format!("gc afterwards: {found}"));
        }
        let stays = self.stays()?;
        if !stays.is_empty() {
            wrong.push(format!("after the row:\n{stays}"));
        }
        Ok(wrong)
    }

    fn step(&self, step: &Step<'_>) -> Verdict<Option<String>> {
        let before = if step.code == 0 {
            None
        } else {
            Some(self.look()?)
        };
        let (code, out, err) = self.dockless(&words(step.line))?;
        let mut wrong = String::new();
        if code != Some(step.code) {
            writeln!(wrong, "exit {code:?}, not {}", step.code)?;
        }
        let mut phrase = "";
        for (mark, text) in &step.answers {
            let right = match mark {
                '[' | '!' => {
                    phrase = text;
                    err.contains(text)
                }
                '>' => out.contains(text),
                '=' => out.trim_end() == *text,
                _ => !out.contains(text),
            };
            if !right {
                writeln!(wrong, "not so: {mark} {text}")?;
            }
        }
        if let Some(before) = before {
            let mut after = self.look()?;
            let mut before = before;
            match step.may_leave {
                Some("reason") => {
                    let is_record = |line: &String| line.contains("/record.json ");
                    before.retain(|line| !is_record(line));
                    after.retain(|line| !is_record(line));
                }
                Some(status) => {
                    wrong += &self.left_container(status, phrase)?;
                    after = self.look()?;
                }
                None => {}
            }
            wrong += &differences(&steady(before), &steady(after));
        }
        if wrong.is_empty() {
            return Ok(None);
        }
        Ok(Some(format!("$ {}\n{out}{err}{wrong}", step.line)))
    }

    /// The newest container is in that state, for that reason; removes it.
    fn left_container(&self, status: &str, phrase: &str) -> Verdict<String> {
        let format = "{{.State.Status}} {{.State.ExitCode}}\n{{.State.Error}}";
        let newest = self.dockless(&["ps", "-lq"].map(str::to_owned))?.1;
        let inspect = ["inspect", "-f", format, newest.trim()].map(str::to_owned);
        let (_, out, err) = self.dockless(&inspect)?;
        let (is, error) = out.split_once('\n').unwrap_or((&out, ""));
        let mut wrong = String::new();
        if is != status || !error.contains(phrase) {
            writeln!(wrong, "left {is}, not {status}: {error}{err}")?;
        }
        let (_, _, err) = self.dockless(&["rm", newest.trim()].map(str::to_owned))?;
        Ok(wrong + &err)
    }

    pub(super) fn shell(&self, line: &str) -> Verdict<Option<String>> {
        let mut command = Command::new("sh");
        command.args(["-ec", line]);
        let (code, out, err) = self.answer(command)?;
        Ok((code != Some(0)).then(|| format!("% {line}\n{out}{err}exit {code:?}")))
    }

    pub(super) fn dockless(&self, args: &[String]) -> Verdict<(Option<i32>, String, String)> {
        let mut command = Command::new(judge::dockless());
        command.args(args);
        self.answer(command)
    }

    fn answer(&self, mut command: Command) -> Verdict<(Option<i32>, String, String)> {
        let out = command
            .env("PATH", &self.path)
            .envs(&self.env)
            .stdin(Stdio::null())
            .output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((out.status.code(), text(&out.stdout), text(&out.stderr)))
    }

    /// Takes away what the row has made.
    fn clear_away(&self, wrong: &mut Vec<String>) -> Verdict {
        let custom = "network ls -q --no-trunc -f type=custom";
        for (list, remove) in [("ps -aq --no-trunc", "rm -f"), (custom, "network rm")] {
            let (_, names, _) = self.dockless(&words(list))?;
            if names.is_empty() {
                continue;
            }
            let mut remove = words(remove);
            remove.extend(names.lines().map(str::to_owned));
            let (code, _, err) = self.dockless(&remove)?;
            if code != Some(0) {
                wrong.push(err);
            }
        }
        Ok(())
    }

    /// `stop` and a program's end are told before the last files are gone:
    /// waits until whoever holds a lock has a container that runs.
    fn wait_until_ended(&self) {
        let folder = |name: &str| {
            let own = std::env::var(name).unwrap_or_default();
            PathBuf::from(self.env.get(name).unwrap_or(&own))
        };
        let tops = [folder("DOCKLESS_ROOT"), folder("DOCKLESS_STATE")];
        let runs = |lock: &PathBuf| {
            let id = lock.file_name().unwrap_or_default();
            tops.iter().any(|top| {
                let record = top.join("containers").join(id).join("record.json");
                let text = fs::read_to_string(record).unwrap_or_default();
                text.contains("\"status\":\"running\"")
            })
        };
        let end = Instant::now() + Duration::from_millis(300);
        while !entries(&tops[1].join("locks")).iter().all(runs) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What is not as it is between rows. The kernel takes namespaces apart
    /// when it has time, one after the other for the whole machine.
    pub(super) fn stays(&self) -> Verdict<String> {
        let end = Instant::now() + patience(15);
        loop {
            let stays = differences(&self.clean, &self.look()?);
            if stays.is_empty() || Instant::now() > end {
                return Ok(stays);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What there is, a line each.
    pub(super) fn look(&self) -> Verdict<Vec<String>> {
        self.wait_until_ended();
        let mut lines = Vec::new();
        for question in [
            &["ip", "-d", "-o", "addr"][..],
            &["ip", "-d", "-o", "link"],
            &["ip", "-4", "route", "show", "table", "all"],
            &["ip", "rule"],
            &["nft", "-s", "list", "ruleset"],
        ] {
            let answer = judge::run(question)?.success()?.stdout;
            lines.extend(answer.lines().map(|l| format!("{}: {l}", question[1])));
        }
        for name in ["DOCKLESS_ROOT", "DOCKLESS_STATE"] {
            let own = std::env::var(name)?;
            let folder = self.env.get(name).unwrap_or(&own);
            files(Path::new(folder), &mut lines);
        }
        lines.sort();
        Ok(lines)
    }
}

impl<'a> Step<'a> {
    /// Adds a line that belongs to this command.
    fn takes(&mut self, mark: char, text: &'a str) -> bool {
        match mark {
            '[' => {
                let (code, phrase) = text[1..].split_once(']').unwrap_or(("-1", text));
                self.code = code.parse().unwrap_or(-1);
                self.answers.push(('[', phrase.trim_start()));
            }
            '>' => match text.strip_prefix('>') {
                Some(text) => self.answers.push(('=', text.trim_start())),
                None => self.answers.push(('>', text)),
            },
            '!' => match text.strip_prefix('>') {
                Some(text) => self.answers.push(('-', text.trim_start())),
                None => self.answers.push(('!', text)),
            },
            '~' => self.may_leave = Some(text),
            _ => return false,
        }
        true
    }
}

/// Files below a folder, with their sizes; without locks, the log of events and
/// notes of others' addresses, which stay, images, which are shared, and bells,
/// of which word comes some time after a start.
fn files(folder: &Path, lines: &mut Vec<String>) {
    let mut left = vec![folder.to_owned()];
    while let Some(folder) = left.pop() {
        for path in entries(&folder) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if ["images", "events", "conflicts", "bells"].contains(&&*name)
                || name.ends_with("lock")
            {
                continue;
            }
            let Ok(found) = fs::symlink_metadata(&path) else {
                continue;
            };
            // What a container says is its own affair.
            let counts = found.is_file() && !name.ends_with(".log");
            let size = if counts { found.len() } else { 0 };
            lines.push(format!("file: {} {size}", path.display()));
            if found.is_dir() {
                left.push(path);
            }
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|e| Some(e.ok()?.path())).collect()
}

/// Without what the end of an earlier container may still change: the parent
/// is promiscuous as long as it has macvlans.
pub(super) fn steady(lines: Vec<String>) -> Vec<String> {
    let changing = |line: &String| match line.split_once(" promiscuity ") {
        Some((start, end)) => format!("{start}{}", &end[1..]),
        None => line.clone(),
    };
    lines.iter().map(changing).collect()
}

pub(super) fn differences(before: &[String], after: &[String]) -> String {
    let mut text = String::new();
    for (sign, ours, theirs) in [('-', before, after), ('+', after, before)] {
        for line in ours.iter().filter(|line| !theirs.contains(line)) {
            text += &format!("{sign} {line}\n");
        }
    }
    text
}

/// What stands for what.
const SHORT: [(&str, &str); 2] = [
    ("CREATE ", "network create -d macvlan -o parent=eth1 "),
    (
        "ADDRESS ",
        "inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' ",
    ),
];

/// A command line as a shell splits it: blanks and '…' are enough here.
pub(super) fn words(line: &str) -> Vec<String> {
    let long = SHORT.iter().find_map(|(short, long)| {
        let rest = line.strip_prefix(short)?;
        Some(format!("{long}{rest}"))
    });
    let line = long.as_deref().unwrap_or(line);
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match (c, words.last_mut()) {
            ('\'', _) => quoted = !quoted,
            (' ', _) if !quoted => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            (_, None) => {}
        }
    }
    words
}
