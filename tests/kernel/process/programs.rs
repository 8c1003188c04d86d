//! The container's own program: how it ends, as whom it runs, where, and on
//! which terminal.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;

use nix::pty::{Winsize, openpty};
use serde_json::json;

use super::*;
use crate::harness::skipped;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(exit_codes),
        Test::new(users_are_the_images),
        Test::new(unknown_users),
        Test::new(working_directory),
        Test::new(working_directory_outside),
        Test::new(streams),
        Test::new(init_reaps_and_forwards),
        Test::new(without_init_signals_are_ignored),
        Test::new(terminal),
        Test::new(own_program_is_not_the_hosts),
        Test::new(init_runs_nothing_from_a_file_of_the_hosts),
        Test::new(init_outlives_its_binary),
    ]
}

/// `args`, expected exit code, a part of what is said.
fn assert_refused(answer: &Answer, code: i32, phrase: &str) {
    assert_eq!(answer.code, Some(code), "{answer:?}");
    assert!(answer.stderr.contains(phrase), "{answer:?}");
}

fn exit_codes() -> Verdict {
    let image = image()?;
    fs::write(image.join("notexec"), "#!/probe\n")?;
    fs::create_dir(image.join("folder"))?;
    for (name, text) in [
        ("badinterp", "#!/no/such\n"),
        ("script", "#!/probe exit\n"),
        ("junk", "junk"),
    ] {
        fs::write(image.join(name), text)?;
        fs::set_permissions(image.join(name), fs::Permissions::from_mode(0o755))?;
    }
    for (argv, code) in [
        (&["/probe", "exit", "0"][..], 0),
        (&["/probe", "exit", "42"], 42),
        (&["/probe", "exit", "255"], 255),
        (&["probe", "exit", "3"], 127), // not in PATH
    ] {
        assert_eq!(run_in(&image, &[], argv)?.code, Some(code), "{argv:?}");
    }
    let path = run_in(&image, &["-e", "PATH=/bin:/"], &["probe", "exit", "3"])?;
    assert_eq!(path.code, Some(3));
    for (program, code, phrase) in [
        (
            "nope",
            127,
            "exec: \"nope\": executable file not found in $PATH",
        ),
        (
            "/nope",
            127,
            "exec: \"/nope\": stat /nope: no such file or directory",
        ),
        ("/notexec", 126, "exec: \"/notexec\": permission denied"),
        ("/folder", 126, "exec: \"/folder\": is a directory"),
        (
            "/badinterp",
            127,
            "exec /badinterp: no such file or directory",
        ),
        ("/junk", 126, "exec /junk: exec format error"),
        ("/probe/x", 127, "not a directory"),
    ] {
        assert_refused(&run_in(&image, &[], &[program])?, code, phrase);
    }
    for (flags, phrase) in [
        (&["--nope"][..], "unknown flag: --nope"),
        (&["-w", "here"], "it needs to be an absolute path"),
        (&["--stop-signal", "NOPE"], "NOPE"),
    ] {
        assert_refused(&run_in(&image, flags, &["/probe"])?, 125, phrase);
    }
    assert_refused(&run_in(&image, &[], &[])?, 125, "no command specified");
    let missing = Path::new("/no/such/image");
    assert_refused(&run_in(missing, &[], &["/probe"])?, 125, "/no/such/image");
    // Nothing half-made stays.
    let left = dockless(&["ps", "-aq"])?.success()?;
    assert_eq!(left.stdout, "");
    Ok(())
}

fn users_are_the_images() -> Verdict {
    if !is_real_root() {
        return skipped("a user namespace of one user maps no other");
    }
    for (user, uid, gid, groups, home) in [
        ("www", 33, 44, "44 77", "/var/www"),
        ("33", 33, 44, "44 77", "/var/www"),
        ("www:mail", 33, 8, "8", "/var/www"),
        ("www:5", 33, 5, "5", "/var/www"),
        (":mail", 0, 8, "8", "/root"),
        ("1234", 1234, 0, "0", "/"),
    ] {
        let report = report(&["-u", user])?;
        let four = |id: i32| format!("{id} {id} {id} {id}");
        assert_eq!(report["status"]["Uid"], four(uid), "{user}");
        assert_eq!(report["status"]["Gid"], four(gid), "{user}");
        assert_eq!(report["status"]["Groups"], groups, "{user}");
        assert_eq!(report["env"][2], format!("HOME={home}"), "{user}");
    }
    Ok(())
}

fn unknown_users() -> Verdict {
    for (user, phrase) in [
        (
            "nope",
            "unable to find user nope: no matching entries in passwd file",
        ),
        (
            "0:nope",
            "unable to find group nope: no matching entries in group file",
        ),
        ("-7", "uids and gids must be in range 0-2147483647"),
    ] {
        assert_refused(&run(&["-u", user], &["/probe"])?, 125, phrase);
    }
    if !is_real_root() {
        let answer = run(&["-u", "1000"], &["/probe"])?;
        assert_refused(&answer, 125, "the user namespace does not map this id");
    }
    Ok(())
}

fn working_directory() -> Verdict {
    let image = image()?;
    fs::create_dir(image.join("real"))?;
    symlink("/real", image.join("link"))?;
    symlink("/nowhere", image.join("dangling"))?;
    for (cwd, is) in [
        ("/made/here", "/made/here"),
        ("/link/new", "/real/new"),
        ("/dangling/x", "/nowhere/x"),
        ("/etc/../..", "/"),
        ("/dev/shm/x", "/dev/shm/x"),
    ] {
        let report = run_in(&image, &["-w", cwd], &["/probe"])?.json()?;
        assert_eq!(report["cwd"], is, "{cwd}");
    }
    assert!(!image.join("made").exists());
    assert_refused(
        &run_in(&image, &["-w", "/probe"], &["/probe"])?,
        125,
        "not a directory",
    );
    Ok(())
}

/// CVE-2024-21626: a folder of the host that is still open at that moment.
fn working_directory_outside() -> Verdict {
    for number in 0..16 {
        for below in ["", "/..", "/../../.."] {
            let cwd = format!("/proc/self/fd/{number}{below}");
            let answer = run(&["-w", &cwd], &["/probe"])?;
            assert_ne!(answer.code, Some(0), "{cwd}: {answer:?}");
        }
    }
    let root = run(&["-w", "/proc/1/cwd"], &["/probe"])?;
    assert_ne!(root.code, Some(0), "{root:?}");
    Ok(())
}

fn streams() -> Verdict {
    let image = image()?;
    let image = image.to_str().unwrap_or_default();
    let copy = |flags: &[&str]| -> Verdict<String> {
        let head = ["run", "--rm", "--network", "none", "--rootfs", image];
        let (read, mut write) = std::io::pipe()?;
        write.write_all(b"typed\n")?;
        drop(write);
        let args = [&head[..2], flags, &head[2..], &["/probe", "copy"]].concat();
        let output = command(&args).stdin(read).output()?;
        assert!(output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(copy(&["-i"])?, "typed\n");
    assert_eq!(copy(&[])?, "");
    let aborted = run(&[], &["/probe", "abort"])?;
    // Pid 1 ignores SIGABRT; what abort(3) does then is not to be ignored.
    assert!(aborted.code.is_some_and(|c| c > 128), "{aborted:?}");
    Ok(())
}

fn init_reaps_and_forwards() -> Verdict {
    let report = run(&["--init"], &["/probe", "orphans"])?.json()?;
    // All that is left: the init and the program.
    assert_eq!(report["processes"].as_array().map(Vec::len), Some(2));
    assert_eq!(report["processes"][0], 1);
    assert_eq!(report["stat"]["ppid"], 1);
    let at = |m: &&serde_json::Value| m["at"] == "/sbin/docker-init";
    let mount = report["mounts"].as_array().into_iter().flatten().find(at);
    let flags = mount.and_then(|m| m["flags"].as_str()).unwrap_or_default();
    assert!(flags.starts_with("ro,"), "{flags}");

    assert_eq!(run(&["--init"], &["/probe", "exit", "7"])?.code, Some(7));
    assert_eq!(run(&["--init"], &["nope"])?.code, Some(127));
    assert_eq!(run(&["--init"], &["/etc/passwd"])?.code, Some(126));

    start(&["--init"], &["/probe", "sleep", "60"])?;
    let pid = pid_of("box")?;
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    assert_eq!(line, "/sbin/docker-init\0--\0/probe\0sleep\x0060\0");
    dockless(&["stop", "box"])?.success()?;
    let code = dockless(&["inspect", "-f", "{{.State.ExitCode}}", "box"])?;
    assert_eq!(code.stdout, "143\n");
    dockless(&["rm", "box"])?.success()?;
    Ok(())
}

fn without_init_signals_are_ignored() -> Verdict {
    start(&[], &["/probe", "sleep", "60"])?;
    let begin = Instant::now();
    dockless(&["stop", "-t", "1", "box"])?.success()?;
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let code = dockless(&["inspect", "-f", "{{.State.ExitCode}}", "box"])?;
    assert_eq!(code.stdout, "137\n");
    dockless(&["rm", "box"])?.success()?;
    Ok(())
}

/// Runs `dockless ARGS…` on a terminal of 31 rows and 97 columns; the exit
/// code and what appeared. `input` is typed once `after` has appeared.
pub(super) fn on_terminal(
    args: &[&str],
    after: &str,
    input: &[u8],
) -> Verdict<(Option<i32>, String)> {
    let size = Winsize {
        ws_row: 31,
        ws_col: 97,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(&size, None)?;
    let slave = || -> Verdict<Stdio> { Ok(OwnedFd::try_clone(&pty.slave)?.into()) };
    let mut child = command(args)
        .stdin(slave()?)
        .stdout(slave()?)
        .stderr(slave()?)
        .spawn()?;
    drop(pty.slave);
    let mut master = fs::File::from(pty.master);
    let (mut text, mut typed) = (Vec::new(), input.is_empty());
    let mut buffer = [0; 4096];
    // EIO: the last user of the terminal is gone.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..length]);
        if !typed && String::from_utf8_lossy(&text).contains(after) {
            master.write_all(input)?;
            typed = true;
        }
    }
    let code = child.wait()?.code();
    Ok((code, String::from_utf8_lossy(&text).into_owned()))
}

/// The probe's line among what appeared on a terminal.
pub(super) fn report_in(text: &str) -> Verdict<Value> {
    let line = text.lines().find(|l| l.starts_with('{'));
    Ok(serde_json::from_str(line.unwrap_or(text))?)
}

fn terminal() -> Verdict {
    let image = image()?;
    let image = image.to_str().unwrap_or_default();
    let args = [
        "run",
        "--rm",
        "-it",
        "--network",
        "none",
        "--rootfs",
        image,
        "/probe",
    ];
    let (code, text) = on_terminal(&args, "", b"")?;
    assert_eq!(code, Some(0), "{text}");
    let report = report_in(&text)?;
    assert_eq!(report["tty"], json!([true, true, true]));
    assert_eq!(report["winsize"], json!([31, 97]));
    // The first terminal of its own devpts, controlling, in the foreground.
    assert_eq!(
        report["stat"],
        json!({"ppid": 0, "pgrp": 1, "session": 1, "tty_nr": 136 << 8, "tpgid": 1})
    );
    for fd in ["0", "1", "2"] {
        assert_eq!(report["fds"][fd], "/dev/pts/0");
    }
    assert_eq!(report["fds"].as_object().map(serde_json::Map::len), Some(3));
    assert_eq!(report["env"][2], "TERM=xterm");
    let group = if is_real_root() { "0:5" } else { "0:0" };
    for path in ["/dev/console", "/dev/pts/0"] {
        assert_eq!(report["devices"][path], format!("c 136:0 620 {group}"));
    }
    assert_eq!(report["attempts"]["open /dev/tty"], "ok");

    // Without a terminal of the user's, -it is refused, -t is not.
    assert_refused(
        &dockless(&args)?,
        1,
        "cannot attach stdin to a TTY-enabled container because stdin is not a terminal",
    );
    if is_real_root() {
        let args = [&args[..2], &["-it", "-u", "1000"], &args[3..]].concat();
        let (_, text) = on_terminal(&args, "", b"")?;
        let report = report_in(&text)?;
        assert_eq!(report["devices"]["/dev/pts/0"], "c 136:0 620 1000:5");
        assert_eq!(report["attempts"]["reopen stdout"], "ok");
    }
    Ok(())
}

/// CVE-2019-5736, the first process's side: see also `exec`.
fn own_program_is_not_the_hosts() -> Verdict {
    let image = image()?;
    // By this name dockless would serve the tester's page for ever.
    symlink("/proc/self/exe", image.join("tester"))?;
    let answer = run_in(&image, &[], &["/tester"])?;
    assert_refused(&answer, 125, "it leads to dockless itself");
    Ok(())
}

/// The supervisor looks at the first process only after its exec. A program
/// that `docker-init` had started by then could have opened the host's binary.
fn init_runs_nothing_from_a_file_of_the_hosts() -> Verdict {
    let image = image()?;
    fs::create_dir(image.join("x"))?;
    symlink("/proc/self/exe", image.join("x/docker-init"))?;
    // The container may be over before anybody has looked at it.
    let answer = run_in(&image, &[], &["/x/docker-init", "--", "/probe"])?;
    assert!(matches!(answer.code, Some(1 | 125)), "{answer:?}");
    assert_eq!(answer.stdout, "");

    let output = Command::new(judge::dockless())
        .arg0("docker-init")
        .args(["--", "/bin/echo", "ran"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("can be written to"), "{said}");
    assert!(output.stdout.is_empty() && output.status.code() == Some(1));
    Ok(())
}

/// An upgrade replaces the file while its supervisors run.
fn init_outlives_its_binary() -> Verdict {
    let image = image()?;
    let image = image.to_str().unwrap_or_default();
    let old = Path::new("/run/tmp/old-dockless");
    fs::copy(judge::dockless(), old)?;
    let program = old.to_str().unwrap_or_default();
    let head = [program, "run", "-d", "--network", "none", "--name", "box"];
    let tail = ["--init", "--rootfs", image, "/probe", "sleep", "60"];
    judge::run(&[&head[..], &tail[..]].concat())?.success()?;
    fs::remove_file(old)?;
    let before = pid_of("box")?;
    dockless(&["restart", "-t", "0", "box"])?.success()?;
    let pid = pid_of("box")?;
    assert_ne!(pid, before);
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    assert!(line.starts_with("/sbin/docker-init\0"), "{line:?}");
    dockless(&["rm", "-f", "box"])?.success()?;
    Ok(())
}
