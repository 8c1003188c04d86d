//! The judges: programs of other people that read what we built.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dockless::lab::Machine;
use serde_json::Value;

use crate::harness::{Verdict, failed, patience, skipped};

/// What a program answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) command: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// Fails the test unless the program succeeded.
    pub(crate) fn success(self) -> Verdict<Self> {
        if self.is_success() {
            return Ok(self);
        }
        failed(format!(
            "{}: exit {:?}\n{}{}",
            self.command, self.code, self.stdout, self.stderr
        ))
    }

    pub(crate) fn json(self) -> Verdict<Value> {
        let answer = self.success()?;
        // `ip -j` prints nothing at all when there is nothing to show.
        if answer.stdout.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        Ok(serde_json::from_str(&answer.stdout)?)
    }
}

/// PATH with the folders of administrators' programs, which an ordinary
/// user's lacks.
pub(crate) fn search_path() -> String {
    std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin"
}

/// Skips the test when the program is not installed.
pub(crate) fn installed(program: &str) -> Verdict {
    let path = search_path();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if is_there {
        Ok(())
    } else {
        skipped(format!("{program} is not installed"))
    }
}

/// Runs a program in the calling thread's namespaces; skips the test when it
/// is not installed.
pub(crate) fn run(argv: &[&str]) -> Verdict<Answer> {
    let line = argv.join(" ");
    if !argv[0].contains('/') {
        installed(argv[0])?;
    }
    let output = Command::new(argv[0])
        .args(&argv[1..])
        .stdin(Stdio::null())
        .output();
    match output {
        Err(error) => failed(format!("{line}: {error}")),
        Ok(output) => Ok(Answer {
            command: line,
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }),
    }
}

/// The same on a machine of the lab.
pub(crate) fn on(machine: &Machine, argv: &[&str]) -> Verdict<Answer> {
    machine.run(|| Ok(run(argv)))?
}

/// `ip -j -d …`
pub(crate) fn ip(args: &[&str]) -> Verdict<Value> {
    run(&[&["ip", "-j", "-d"], args].concat())?.json()
}

/// `nft -j list ruleset`: the objects, without the metainfo header.
pub(crate) fn nft_ruleset() -> Verdict<Vec<Value>> {
    let mut answer = run(&["nft", "-j", "list", "ruleset"])?.json()?;
    let Some(Value::Array(objects)) = answer.get_mut("nftables").map(Value::take) else {
        return failed("nft -j list ruleset: no list");
    };
    Ok(objects
        .into_iter()
        .filter(|object| object.get("metainfo").is_none())
        .collect())
}

/// The built program.
#[allow(dead_code, reason = "for the modules of other layers")]
pub(crate) fn dockless() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_dockless"))
}

/// What dockless answers.
pub(crate) fn ask(args: &[&str]) -> Verdict<Answer> {
    let program = dockless().to_str().unwrap_or_default();
    run(&[&[program], args].concat())
}

/// What it says when all is well.
pub(crate) fn said(args: &[&str]) -> Verdict<String> {
    Ok(ask(args)?.success()?.stdout)
}

/// It refuses, and what it says has `phrase` in it.
pub(crate) fn refused(args: &[&str], phrase: &str) -> Verdict {
    let answer = ask(args)?;
    if answer.is_success() || !answer.stderr.contains(phrase) {
        return failed(format!(
            "{}: exit {:?}, not {phrase:?}\n{}",
            answer.command, answer.code, answer.stderr
        ));
    }
    Ok(())
}

/// Looks again and again, for so long (on a slow machine, longer).
pub(crate) fn eventually(
    what: &str,
    limit_s: u64,
    mut is: impl FnMut() -> Verdict<bool>,
) -> Verdict {
    let end = Instant::now() + patience(limit_s);
    while !is()? {
        if Instant::now() > end {
            return failed(format!("after {limit_s} s not yet: {what}"));
        }
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Nothing may outlive a test.
pub(crate) fn remove_all() -> Verdict {
    let all = said(&["ps", "-aq"])?;
    let ids: Vec<&str> = all.lines().collect();
    said(&[&["rm", "-f"], &ids[..]].concat()).map(drop)
}

/// A container's first process.
pub(crate) fn pid_of(container: &str) -> Verdict<String> {
    let pid = said(&["inspect", "-f", "{{.State.Pid}}", container])?;
    Ok(pid.trim().to_owned())
}

/// A program of the machine in a container's network.
pub(crate) fn inside(container: &str, argv: &[&str]) -> Verdict<Answer> {
    let net = format!("--net=/proc/{}/ns/net", pid_of(container)?);
    run(&[&["nsenter", &net], argv].concat())
}

pub(crate) fn ip_in(container: &str, args: &[&str]) -> Verdict<Value> {
    inside(container, &[&["ip", "-j", "-d"], args].concat())?.json()
}

/// Where the machine finds a file of a container's.
pub(crate) fn path_in(container: &str, file: &str) -> Verdict<PathBuf> {
    let proc = Path::new("/proc").join(pid_of(container)?);
    Ok(proc.join("root").join(file.trim_start_matches('/')))
}

/// A file as a container sees it.
pub(crate) fn file_in(container: &str, file: &str) -> Verdict<String> {
    Ok(std::fs::read_to_string(path_in(container, file)?)?)
}

/// `tests/probe`, built if it is not yet.
///
/// It is a package of its own, which `cargo test` does not build; Cargo's own
/// lock makes tests that come here at the same time wait for each other.
pub(crate) fn probe() -> Verdict<PathBuf> {
    let folder = dockless().parent().unwrap_or(Path::new("/"));
    let probe = folder.join("probe");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probe/src/main.rs");
    let age = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    if age(&probe) > age(&source) {
        return Ok(probe);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut build = Command::new(cargo);
    build
        .args(["build", "--offline", "--quiet", "-p", "probe"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let output = build.output()?;
    if output.status.success() && probe.exists() {
        return Ok(probe);
    }
    failed(format!(
        "cannot build tests/probe: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}
