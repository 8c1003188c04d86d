//! `exec`: another process in a running container.

use std::fs::File;
use std::io::{Read, Write};

use dockless::sys::process::PidFd;
use serde_json::json;

use super::programs::{on_terminal, report_in};
use super::*;
use crate::harness::{need_root, patience, skipped};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(joins_what_the_first_has),
        Test::new(as_another_user_elsewhere),
        Test::new(errors),
        Test::new(stopped_and_paused),
        Test::new(streams_are_passed_on),
        Test::new(no_file_of_the_callers_goes_in),
        Test::new(a_reader_that_leaves),
        Test::new(detached),
        Test::new(terminal),
        Test::new(own_program_is_out_of_reach),
        Test::new(a_stopped_caller_holds_up_nobody),
        Test::new(side_by_side),
        Test::new(outlives_its_caller_not_the_container),
    ]
}

fn up(flags: &[&str]) -> Verdict<i32> {
    start(flags, &["/probe", "sleep", "120"])?;
    pid_of("box")
}

fn down() -> Verdict {
    dockless(&["rm", "-f", "box"])?.success().map(drop)
}

fn exec(args: &[&str]) -> Verdict<Answer> {
    dockless(&[&["exec"], args].concat())
}

fn joins_what_the_first_has() -> Verdict {
    let pid = up(&["-e", "A=1", "-e", "B=2", "-h", "name", "-w", "/made"])?;
    let inside = exec(&["-e", "B=3", "box", "/probe"])?.json()?;
    for (name, theirs) in inside["namespaces"].as_object().into_iter().flatten() {
        let first = fs::read_link(format!("/proc/{pid}/ns/{name}"))?;
        assert_eq!(*theirs, json!(first.display().to_string()), "{name}");
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    for field in [
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
        "Seccomp_filters",
        "Uid",
        "Gid",
        "Groups",
        "Umask",
        "SigIgn",
        "SigBlk",
    ] {
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix(&format!("{field}:")));
        let first: Vec<&str> = line.unwrap_or_default().split_whitespace().collect();
        assert_eq!(inside["status"][field], first.join(" "), "{field}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    for (name, theirs) in inside["limits"].as_object().into_iter().flatten() {
        let line = limits.lines().find_map(|l| l.strip_prefix(name.as_str()));
        let first: Vec<&str> = line
            .unwrap_or_default()
            .split_whitespace()
            .take(2)
            .collect();
        assert_eq!(*theirs, json!(first.join(" ")), "{name}");
    }
    assert_eq!(inside["hostname"], "name");
    assert_eq!(inside["cwd"], "/made");
    assert_eq!(inside["env"][1], "HOSTNAME=name");
    assert_eq!(inside["env"][2], "A=1");
    assert_eq!(inside["env"][3], "B=3");
    assert_eq!(inside["env"][4], "HOME=/root");
    assert_eq!(inside["oom_score_adj"], "0");
    // A session of its own, in view of the first process.
    let own = &inside["pid"];
    assert_eq!(
        (&inside["stat"]["ppid"], &inside["stat"]["tty_nr"]),
        (&json!(0), &json!(0))
    );
    assert_eq!(
        (&inside["stat"]["session"], &inside["stat"]["pgrp"]),
        (own, own)
    );
    assert_eq!(inside["processes"], json!([1, own]));
    assert!(super::is_read_only(
        &inside["attempts"]["write /proc/sys/kernel/hostname"]
    ));
    down()
}

fn as_another_user_elsewhere() -> Verdict {
    if !is_real_root() {
        return skipped("a user namespace of one user maps no other");
    }
    up(&["-u", "www"])?;
    let own = exec(&["box", "/probe"])?.json()?;
    assert_eq!(own["status"]["Uid"], "33 33 33 33");
    assert_eq!(own["status"]["CapEff"], "0000000000000000");
    let other = exec(&["-u", "7:8", "-w", "/etc", "box", "/probe"])?.json()?;
    assert_eq!(other["status"]["Uid"], "7 7 7 7");
    assert_eq!(other["status"]["Groups"], "8");
    assert_eq!(other["cwd"], "/etc");
    assert_eq!(other["env"][2], "HOME=/");
    let root = exec(&["-u", "root", "box", "/probe"])?.json()?;
    assert_eq!(root["status"]["CapEff"], "00000000a80425fb");
    down()
}

fn errors() -> Verdict {
    up(&[])?;
    for (args, code, phrase) in [
        (&["nope", "/probe"][..], 1, "No such container: nope"),
        (
            &["box", "nope"],
            127,
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            &["box", "/nope"],
            127,
            "exec: \"/nope\": stat /nope: no such file or directory",
        ),
        (
            &["box", "/etc/passwd"],
            126,
            "exec: \"/etc/passwd\": permission denied",
        ),
        (&["box", "/etc"], 126, "exec: \"/etc\": is a directory"),
        (
            &["-w", "/nope", "box", "/probe"],
            127,
            "chdir to cwd (\"/nope\") set in config.json failed: no such file or directory",
        ),
        (&["-w", "/probe", "box", "/probe"], 127, "not a directory"),
        (
            &["-u", "nope", "box", "/probe"],
            126,
            "unable to find user nope",
        ),
        (&["box"], 1, "requires at least 2 arguments"),
        (
            &["-it", "box", "/probe"],
            1,
            "cannot attach stdin to a TTY-enabled container because stdin is not a terminal",
        ),
        (&["box", "/probe", "exit", "42"], 42, ""),
        (&["box", "/probe", "abort"], 134, ""),
    ] {
        let answer = exec(args)?;
        assert_eq!(answer.code, Some(code), "{answer:?}");
        assert!(answer.stderr.contains(phrase), "{answer:?}");
    }
    for number in 0..12 {
        let cwd = format!("/proc/self/fd/{number}");
        let answer = exec(&["-w", &cwd, "box", "/probe"])?;
        assert_ne!(answer.code, Some(0), "{cwd}: {answer:?}");
    }
    down()
}

fn stopped_and_paused() -> Verdict {
    up(&[])?;
    dockless(&["stop", "-t", "0", "box"])?.success()?;
    let answer = exec(&["box", "/probe"])?;
    assert_eq!(answer.code, Some(1));
    assert!(answer.stderr.contains("is not running"), "{answer:?}");
    need_root()?; // The freezer.
    dockless(&["start", "box"])?.success()?;
    dockless(&["pause", "box"])?.success()?;
    let answer = exec(&["box", "/probe"])?;
    assert_eq!(answer.code, Some(1));
    let phrase = "Container box is paused, unpause the container before exec";
    assert!(
        answer
            .stderr
            .to_lowercase()
            .contains(&phrase.to_lowercase()),
        "{answer:?}"
    );
    dockless(&["unpause", "box"])?.success()?;
    exec(&["box", "/probe", "exit", "0"])?.success()?;
    down()
}

fn file(name: &str) -> Verdict<File> {
    let path = Path::new("/run/tmp").join(name);
    Ok(File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?)
}

/// From file to file: both are copied. From pipe to pipe: neither is.
fn streams_are_passed_on() -> Verdict {
    up(&[])?;
    let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write("/run/tmp/in", &bytes)?;
    let status = command(&["exec", "-i", "box", "/probe", "copy"])
        .stdin(File::open("/run/tmp/in")?)
        .stdout(file("out")?)
        .status()?;
    assert!(status.success());
    assert!(
        fs::read("/run/tmp/out")? == bytes,
        "what came out is not what went in"
    );

    let (read, mut write) = std::io::pipe()?;
    let mut child = command(&["exec", "-i", "box", "/probe", "copy"])
        .stdin(read)
        .spawn()?;
    let sender = std::thread::spawn(move || write.write_all(&bytes).map(|()| bytes));
    let mut out = Vec::new();
    child
        .stdout
        .take()
        .map(|mut s| s.read_to_end(&mut out))
        .transpose()?;
    let sent = sender.join().unwrap_or_else(|_| Ok(Vec::new()))?;
    assert!(child.wait()?.success() && out == sent);

    // Without -i there is no input.
    let quiet = command(&["exec", "box", "/probe", "copy"])
        .stdin(File::open("/run/tmp/in")?)
        .output()?;
    assert!(quiet.status.success() && quiet.stdout.is_empty());
    down()
}

fn no_file_of_the_callers_goes_in() -> Verdict {
    up(&[])?;
    fs::write("/run/tmp/in", "")?;
    let (socket, _other) = std::os::unix::net::UnixStream::pair()?;
    for stdin in [
        Stdio::from(File::open("/run/tmp/in")?),
        std::os::fd::OwnedFd::from(socket).into(),
    ] {
        let output = command(&["exec", "-i", "box", "/probe"])
            .stdin(stdin)
            .stdout(file("out")?)
            .stderr(file("err")?)
            .output()?;
        assert!(output.status.success());
        let report: Value = serde_json::from_str(&fs::read_to_string("/run/tmp/out")?)?;
        let fds = report["fds"].as_object().cloned().unwrap_or_default();
        assert_eq!(fds.len(), 3, "{fds:?}");
        for (number, what) in fds {
            assert!(
                what.as_str().is_some_and(|w| w.starts_with("pipe:")),
                "{number}: {what}"
            );
        }
    }
    // The host's /dev/null would let its mode be changed.
    let output = command(&["exec", "-i", "box", "/probe"]).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert!(
        report["fds"]["0"]
            .as_str()
            .is_some_and(|w| w.starts_with("pipe:"))
    );
    down()
}

/// What is written to nobody ends the writer, as it does without a container.
fn a_reader_that_leaves() -> Verdict {
    up(&[])?;
    let mut child = command(&["exec", "-i", "box", "/probe", "copy"])
        .stdin(File::open("/dev/zero")?)
        .spawn()?;
    let mut some = [0; 100];
    child
        .stdout
        .take()
        .map(|mut s| s.read_exact(&mut some))
        .transpose()?;
    // Dropped with it.
    eventually("the end of exec", || Ok(child.try_wait()?.is_some()))?;
    // A process that reads nothing does not keep us from seeing its end.
    let status = command(&["exec", "-i", "box", "/probe", "sleep", "0.2"])
        .stdin(File::open("/dev/zero")?)
        .status()?;
    assert!(status.success());
    down()
}

fn detached() -> Verdict {
    up(&[])?;
    let answer = exec(&["-d", "box", "/probe", "sleep", "33"])?.success()?;
    assert_eq!(answer.stdout + &answer.stderr, "");
    let inside = exec(&["box", "/probe"])?.json()?;
    assert_eq!(inside["processes"].as_array().map(Vec::len), Some(3));
    let missing = exec(&["-d", "box", "nope"])?;
    assert_eq!(missing.code, Some(127), "{missing:?}");
    down()
}

fn terminal() -> Verdict {
    up(&[])?;
    let (code, text) = on_terminal(&["exec", "-it", "box", "/probe"], "", b"")?;
    assert_eq!(code, Some(0), "{text}");
    let report = report_in(&text)?;
    assert_eq!(report["tty"], json!([true, true, true]));
    assert_eq!(report["winsize"], json!([31, 97]));
    assert_eq!(report["stat"]["tty_nr"], 136 << 8);
    assert_eq!(report["stat"]["tpgid"], report["pid"]);
    assert_eq!(report["fds"]["1"], "/dev/pts/0");
    assert_eq!(report["env"][2], "TERM=xterm");
    // ^C reaches the process, not us.
    let args = ["exec", "-it", "box", "/probe", "copy", "ready"];
    let (code, text) = on_terminal(&args, "ready", b"\x03")?;
    assert_eq!(code, Some(130), "{text}");
    // Without -t, the user's terminal stays with the user.
    let (_, text) = on_terminal(&["exec", "box", "/probe"], "", b"")?;
    let report = report_in(&text)?;
    assert_eq!(report["tty"], json!([false, false, false]));
    down()
}

/// CVE-2019-5736: whoever runs dockless's own file in a container cannot write
/// to it from there. Of a newer dockless than the supervisor's: that one's file
/// is busy as long as the container lives.
fn own_program_is_out_of_reach() -> Verdict {
    let image = image()?;
    symlink("/proc/self/exe", image.join("tester"))?;
    up(&[])?;
    fs::copy(judge::dockless(), "/run/tmp/newer")?;
    let mut server = Command::new("/run/tmp/newer")
        .args(["exec", "box", "/tester"])
        .spawn()?;
    let servers = || -> Verdict<Vec<String>> {
        let inside = exec(&["box", "/probe"])?.json()?;
        let pids = inside["processes"].as_array().cloned().unwrap_or_default();
        let other = |pid: &&Value| **pid != 1 && **pid != inside["pid"];
        Ok(pids.iter().filter(other).map(Value::to_string).collect())
    };
    eventually("the tester in the container", || Ok(!servers()?.is_empty()))?;
    let stolen = exec(&["box", "/probe", "steal", &servers()?.concat()])?.success()?;
    assert_eq!(stolen.stdout, "30\n"); // EROFS
    server.wait()?;
    down()
}

/// An exec whose process runs, and goes on until its input ends.
fn ready() -> Verdict<std::process::Child> {
    let mut caller = command(&["exec", "-i", "box", "/probe", "copy", "ready"])
        .stdin(Stdio::piped())
        .spawn()?;
    let mut ready = [0; 5];
    caller
        .stdout
        .as_mut()
        .map(|s| s.read_exact(&mut ready))
        .transpose()?;
    Ok(caller)
}

/// A command that ^Z has stopped holds up nobody else.
fn a_stopped_caller_holds_up_nobody() -> Verdict {
    up(&[])?;
    let mut caller = ready()?;
    let pidfd = PidFd::open(i32::try_from(caller.id())?)?;
    assert!(pidfd.signal(libc::SIGSTOP)?);
    let begin = Instant::now();
    down()?;
    assert!(begin.elapsed() < patience(5));
    assert!(pidfd.signal(libc::SIGCONT)?);
    assert_eq!(caller.wait()?.code(), Some(137));
    Ok(())
}

fn side_by_side() -> Verdict {
    up(&[])?;
    let mut all = Vec::new();
    for n in 0..12 {
        all.push(command(&["exec", "box", "/probe", "exit", &n.to_string()]).spawn()?);
    }
    for (n, mut child) in all.into_iter().enumerate() {
        assert_eq!(child.wait()?.code(), i32::try_from(n).ok());
    }
    down()
}

fn outlives_its_caller_not_the_container() -> Verdict {
    let init = up(&[])?;
    let mut caller = ready()?;
    // Not to be closed by wait: that would end the process.
    let _stdin = caller.stdin.take();
    let running = || -> Verdict<usize> {
        let inside = exec(&["box", "/probe"])?.json()?;
        Ok(inside["processes"].as_array().map_or(0, Vec::len))
    };
    assert_eq!(running()?, 3);
    caller.kill()?;
    caller.wait()?;
    assert_eq!(running()?, 3);
    down()?;
    // The harness looks for processes that are left.
    assert!(!Path::new(&format!("/proc/{init}/ns/pid")).exists());
    Ok(())
}
