//! Starts that do not come to their end, and ends that nobody asked for. The
//! harness looks for mounts and processes that are left.

use std::process::{Child, Output};

use dockless::container::launch::{self, Cloned};
use dockless::container::spec::{LaunchSpec, ProcessSpec, RootfsSpec};
use dockless::sys::cgroup::{self, Hierarchies};
use dockless::sys::netns::{Netns, Sandbox};
use dockless::sys::process::{PidFd, SingleThreaded};

use super::*;
use crate::harness::need_root;

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(a_clone_let_go_of_is_gone),
        Test::new(a_child_killed_at_any_time_is_an_error),
        Test::new(a_failed_start_leaves_a_record_and_no_more),
        Test::new(a_killed_supervisor_takes_the_program_along),
        Test::new(whoever_waits_for_a_killed_supervisor_learns_the_end),
        Test::new(a_killed_program_is_an_exit),
        Test::new(restart_of_what_goes_with_its_end),
        Test::new(a_failed_restart_is_recorded),
    ]
}

fn launch_spec() -> Verdict<LaunchSpec> {
    let image = image()?;
    let (layer, etc) = (
        PathBuf::from("/run/tmp/layer"),
        PathBuf::from("/run/tmp/etc"),
    );
    for folder in [&layer, &etc] {
        fs::create_dir_all(folder)?;
    }
    for file in ["hosts", "hostname", "resolv.conf"] {
        fs::write(etc.join(file), file)?;
    }
    Ok(LaunchSpec {
        process: ProcessSpec {
            argv: ["/probe", "sleep", "60"].map(str::to_owned).to_vec(),
            cwd: "/".to_owned(),
            ..ProcessSpec::default()
        },
        rootfs: RootfsSpec {
            lower: image,
            layer,
            etc,
            volatile: true,
            init: None,
        },
        hostname: "test".to_owned(),
    })
}

fn clone(spec: &LaunchSpec) -> Verdict<Cloned> {
    let token = SingleThreaded::prove()?;
    Ok(launch::clone(&token, spec, None, false)?)
}

fn a_clone_let_go_of_is_gone() -> Verdict {
    let spec = launch_spec()?;
    let pid = {
        let cloned = clone(&spec)?;
        cloned.pid()
    };
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    let mut cloned = clone(&spec)?;
    cloned.join(&Netns::<Sandbox>::create()?)?;
    drop(cloned);
    // And what is not let go of runs.
    let mut cloned = clone(&spec)?;
    cloned.join(&Netns::<Sandbox>::create()?)?;
    let running = cloned.go(|| ())?;
    assert!(running.pidfd.signal(libc::SIGKILL)?);
    running.pidfd.wait(true)?;
    Ok(())
}

fn a_child_killed_at_any_time_is_an_error() -> Verdict {
    let spec = launch_spec()?;
    let (mut died, mut ran) = (0, 0);
    for step in 0..60 {
        let mut cloned = clone(&spec)?;
        let pidfd = PidFd::open(cloned.pid())?;
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(step * 150));
            pidfd.signal(libc::SIGKILL)
        });
        let outcome = Netns::<Sandbox>::create()
            .and_then(|netns| cloned.join(&netns))
            .and_then(|()| cloned.go(|| ()));
        assert!(killer.join().is_ok_and(|k| k.is_ok()));
        match outcome {
            Ok(running) => {
                ran += 1;
                let status = running.pidfd.wait(true)?;
                assert_eq!(status.map(|s| s.code()), Some(137));
            }
            Err(error) => {
                died += 1;
                assert!(error.to_string().contains("killed before"), "{error}");
            }
        }
    }
    assert!(died > 0, "the first is killed at once");
    println!("{died} died before their program, {ran} after");
    Ok(())
}

fn a_failed_start_leaves_a_record_and_no_more() -> Verdict {
    let image = image()?;
    let image = image.to_str().unwrap_or_default();
    let head = [
        "run",
        "--network",
        "none",
        "--name",
        "box",
        "--rootfs",
        image,
    ];
    let answer = dockless(&[&head[..], &["/nope"]].concat())?;
    assert_eq!(answer.code, Some(127));
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
    let state = dockless(&["inspect", "-f", format, "box"])?.success()?;
    assert!(
        state
            .stdout
            .starts_with("created 127 exec: \"/nope\": stat"),
        "{state:?}"
    );
    if let Ok(hierarchies) = Hierarchies::detect() {
        for folder in hierarchies.folders("") {
            let parent = folder.parent().unwrap_or(Path::new("/"));
            let id = dockless(&["inspect", "-f", "{{.Id}}", "box"])?.stdout;
            let own = format!("dockless-{}", id.trim());
            assert!(!parent.join(own).exists());
        }
    }
    dockless(&["rm", "box"])?.success()?;
    Ok(())
}

fn a_killed_supervisor_takes_the_program_along() -> Verdict {
    let id = start(&[], &["/probe", "sleep", "60"])?;
    dockless(&["exec", "-d", "box", "/probe", "sleep", "60"])?.success()?;
    let init = PidFd::open(pid_of("box")?)?;
    let status = fs::read_to_string(format!("/proc/{}/status", pid_of("box")?))?;
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:"));
    let supervisor = PidFd::open(parent.unwrap_or_default().trim().parse()?)?;
    assert!(supervisor.signal(libc::SIGKILL)?);
    assert!(init.ended(patience(5))?, "the program lives on");
    let left = dockless(&["ps", "-a", "--format", "{{.Status}}"])?.success()?;
    assert!(left.stdout.starts_with("Exited (137)"), "{left:?}");
    dockless(&["start", "box"])?.success()?;
    dockless(&["rm", "-f", "box"])?.success()?;
    need_root()?;
    let folders = Hierarchies::detect()?.folders(&id);
    assert!(!folders.is_empty());
    for folder in &folders {
        assert!(!folder.exists(), "{} is left", folder.display());
    }
    // Undoing what is not there is no error.
    cgroup::remove(&folders)?;
    Ok(())
}

/// Attached from the start, later, or only waiting: the exit code is the same,
/// and what ran with `--rm` has gone.
fn whoever_waits_for_a_killed_supervisor_learns_the_end() -> Verdict {
    let image = image()?;
    let image = image.to_str().unwrap_or_default();
    for rm in [false, true] {
        let mut run = vec!["run", "--network=none", "--name=box", "--rootfs", image];
        if rm {
            run.insert(1, "--rm");
        }
        let run = command(&[&run[..], &["/probe", "sleep", "60"]].concat()).spawn()?;
        eventually("it runs", || {
            Ok(!dockless(&["ps", "-q", "--filter", "name=box"])?
                .stdout
                .is_empty())
        })?;
        let mut others = vec![
            command(&["attach", "box"]).spawn()?,
            command(&["wait", "box"]).spawn()?,
        ];
        if !rm {
            others.push(command(&["start", "-a", "box"]).spawn()?);
        }
        // They have begun when each has a socket that is connected.
        for child in &others {
            let folder = format!("/proc/{}/fd", child.id());
            let is_socket = |fd: std::io::Result<fs::DirEntry>| {
                fd.and_then(|fd| fs::read_link(fd.path()))
                    .is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
            };
            eventually("it waits", || Ok(fs::read_dir(&folder)?.any(is_socket)))?;
        }
        std::thread::sleep(Duration::from_millis(300));
        let format = "{{.Dockless.SupervisorPid}}";
        let pid = dockless(&["inspect", "-f", format, "box"])?.success()?;
        let supervisor = PidFd::open(pid.stdout.trim().parse()?)?;
        assert!(supervisor.signal(libc::SIGKILL)?);
        others.push(run);
        let ends = others.into_iter().map(Child::wait_with_output);
        let mut ends: Vec<Output> = ends.collect::<Result<_, _>>()?;
        let waited = ends.remove(1);
        for out in ends {
            let err = String::from_utf8_lossy(&out.stderr);
            assert_eq!(out.status.code(), Some(137), "{err}");
            assert!(
                err.lines().count() == 1 && err.contains("its supervisor was killed"),
                "{err}"
            );
        }
        let err = String::from_utf8_lossy(&waited.stderr);
        assert_eq!((waited.status.code(), &*err), (Some(0), ""));
        assert_eq!(waited.stdout, b"137\n");
        let id = dockless(&["ps", "-aq"])?.success()?.stdout;
        assert_eq!(id.is_empty(), rm, "{id}");
        if !rm {
            dockless(&["rm", "box"])?.success()?;
        }
    }
    Ok(())
}

fn a_killed_program_is_an_exit() -> Verdict {
    start(&[], &["/probe", "sleep", "60"])?;
    dockless(&["kill", "box"])?.success()?;
    assert_eq!(dockless(&["wait", "box"])?.stdout, "137\n");
    dockless(&["start", "box"])?.success()?;
    let init = PidFd::open(pid_of("box")?)?;
    assert!(init.signal(libc::SIGKILL)? && init.ended(patience(5))?);
    eventually("the end", || {
        Ok(dockless(&["wait", "box"])?.stdout == "137\n")
    })?;
    dockless(&["rm", "box"])?.success()?;
    Ok(())
}

/// A layer that is thrown away is not synced; it can be mounted again.
fn restart_of_what_goes_with_its_end() -> Verdict {
    start(&["--rm"], &["/probe", "sleep", "60"])?;
    dockless(&["exec", "box", "/probe"])?.success()?; // makes /new-file
    dockless(&["restart", "-t", "0", "box"])?.success()?;
    dockless(&["restart", "-t", "0", "box"])?.success()?;
    let inside = dockless(&["exec", "box", "/probe"])?.json()?;
    assert_eq!(inside["attempts"]["create /new-file"], "ok");
    dockless(&["rm", "-f", "box"])?.success()?;
    assert_eq!(dockless(&["ps", "-aq"])?.stdout, "");
    Ok(())
}

fn a_failed_restart_is_recorded() -> Verdict {
    let image = image()?;
    start(&[], &["/probe", "sleep", "60"])?;
    // Nobody may change an image that is in use; what comes of it is said.
    fs::rename(&image, "/run/tmp/elsewhere")?;
    let answer = dockless(&["restart", "-t", "0", "box"])?;
    assert_eq!(answer.code, Some(1), "{answer:?}");
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}";
    let state = dockless(&["inspect", "-f", format, "box"])?.success()?;
    assert!(state.stdout.starts_with("exited 128 mount"), "{state:?}");
    dockless(&["rm", "box"])?.success()?;
    Ok(())
}
