//! Kernel tests of a container's processes, mounts and files, seen from inside
//! by `tests/probe`, which the built program runs as in a user's hands.

mod defaults;
mod ends;
mod exec;
mod images;
mod programs;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Test, Verdict, failed, is_real_root, patience};
use crate::judge::{self, Answer};

pub(crate) fn tests() -> Vec<Test> {
    [
        defaults::tests(),
        programs::tests(),
        exec::tests(),
        images::tests(),
        ends::tests(),
    ]
    .into_iter()
    .flatten()
    // The first of them may have to build the probe.
    .map(|test| test.limit_s(180))
    .collect()
}

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    www:x:33:44:www:/var/www:/bin/false\n";
const GROUP: &str = "root:x:0:\nwww:x:44:\nextra:x:77:www\nmail:x:8:\n";

/// EROFS. Ordinary users do not get that far: files of the machine's root say
/// EACCES to them first.
fn is_read_only(outcome: &Value) -> bool {
    outcome == "30" || !is_real_root() && outcome == "13"
}

/// An image with the probe and two files of users, and nothing else; a test
/// may change it.
fn image() -> Verdict<PathBuf> {
    let image = PathBuf::from("/run/tmp/image");
    if image.exists() {
        return Ok(image);
    }
    fs::create_dir_all(image.join("etc"))?;
    // Overlay shows the image's own root folder to every user.
    fs::set_permissions(&image, fs::Permissions::from_mode(0o755))?;
    fs::copy(judge::probe()?, image.join("probe"))?;
    fs::write(image.join("etc/passwd"), PASSWD)?;
    fs::write(image.join("etc/group"), GROUP)?;
    Ok(image)
}

/// `dockless ARGS…`
fn dockless(args: &[&str]) -> Verdict<Answer> {
    let program = judge::dockless().to_str().unwrap_or_default();
    judge::run(&[&[program], args].concat())
}

/// `dockless run --rm --network none FLAGS… --rootfs IMAGE ARGV…`
fn run_in(image: &Path, flags: &[&str], argv: &[&str]) -> Verdict<Answer> {
    let image = image.to_str().unwrap_or_default();
    let head = ["run", "--rm", "--network", "none"];
    dockless(&[&head, flags, &["--rootfs", image], argv].concat())
}

fn run(flags: &[&str], argv: &[&str]) -> Verdict<Answer> {
    run_in(&image()?, flags, argv)
}

/// What the probe sees in a container of its own.
fn report(flags: &[&str]) -> Verdict<Value> {
    run(flags, &["/probe"])?.json()
}

/// A container `box` in the background, and its id.
fn start(flags: &[&str], argv: &[&str]) -> Verdict<String> {
    let image = image()?;
    let image = image.to_str().unwrap_or_default();
    let head = ["run", "-d", "--network", "none", "--name", "box"];
    let answer = dockless(&[&head, flags, &["--rootfs", image], argv].concat())?.success()?;
    Ok(answer.stdout.trim().to_owned())
}

/// The container's first process as the host numbers it.
fn pid_of(name: &str) -> Verdict<i32> {
    let format = "{{.State.Pid}}";
    let answer = dockless(&["inspect", "-f", format, name])?.success()?;
    Ok(answer.stdout.trim().parse()?)
}

/// Fails unless `condition` comes true within five seconds.
fn eventually(what: &str, mut condition: impl FnMut() -> Verdict<bool>) -> Verdict {
    let end = Instant::now() + patience(5);
    while !condition()? {
        if Instant::now() > end {
            return failed(format!("{what}: not within 5 s"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A program with streams of our choice.
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(judge::dockless());
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}
