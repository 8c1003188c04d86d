//! `dockless events`: what is noted of a container's life, by whom, and how a
//! follower hears of it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use dockless::lab::Lab;

use crate::harness::{LEFT_OUT, Test, Verdict, failed};
use crate::judge::{self, said};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(a_life_in_docker_s_words),
        Test::new(a_follower_hears_of_it_at_once),
        Test::new(a_killed_supervisor_s_container_has_died),
        Test::new(the_end_of_one_that_is_removed),
        Test::new(the_past_needs_no_watch).needs(&["unshare"]),
    ]
}

const SHORT: &str = "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}";

fn so_far(more: &[&str]) -> Verdict<Vec<String>> {
    let words = ["events", "--since=1h", "--until=0s"];
    let out = said(&[&words[..], more].concat())?;
    Ok(out.lines().map(str::to_owned).collect())
}

fn a_life_in_docker_s_words() -> Verdict {
    let _lan = Lab::here(0)?;
    network()?;
    // A pid 1 that has not caught SIGTERM yet ignores it; `--init` keeps it.
    let run = ["run", "-d", "--init", "--name=web", "--label=tier=front"];
    let id = said(&[&run[..], &["--network=mac1", "tester"]].concat())?;
    // Without a cgroup nothing can be paused.
    let cgroups = said(&["inspect", "-f", "{{len .Dockless.Cgroups}}", "web"])?;
    let can_pause = cgroups.trim() != "0";
    if can_pause {
        said(&["pause", "web"])?;
        said(&["unpause", "web"])?;
    } else {
        println!("{LEFT_OUT}pause: no cgroup can be made here");
    }
    said(&["rename", "web", "www"])?;
    said(&["restart", "www"])?;
    said(&["network", "disconnect", "mac1", "www"])?;
    said(&["network", "connect", "mac1", "www"])?;
    said(&["kill", "www"])?;
    said(&["start", "www"])?;
    said(&["stop", "www"])?;
    said(&["rm", "www"])?;
    said(&[
        "run",
        "--rm",
        "--name=gone",
        "--network=none",
        "tester",
        "ip",
        "link",
    ])?;
    said(&["network", "rm", "mac1"])?;
    let mut wanted = vec![
        "network create mac1",
        "container create web",
        "network connect mac1",
        "container start web",
        "container pause web",
        "container unpause web",
        "container rename www",
        "container kill www",
        "container die www",
        "container stop www",
        "container start www",
        "container restart www",
        "network disconnect mac1",
        "network connect mac1",
        "container kill www",
        "container die www",
        "network disconnect mac1",
        "network connect mac1",
        "container start www",
        "container kill www",
        "container die www",
        "network disconnect mac1",
        "container stop www",
        "container destroy www",
        "container create gone",
        "container start gone",
        "container die gone",
        "container destroy gone",
        "network destroy mac1",
    ];
    wanted.retain(|event| can_pause || !event.ends_with("pause web"));
    assert_eq!(so_far(&["--format", SHORT])?, wanted);

    let id = id.trim();
    let text = so_far(&["--filter=event=kill"])?;
    let end = format!(" container kill {id} (image=tester, name=www, signal=15, tier=front)");
    assert!(text[0].ends_with(&end), "{text:?}");
    let text = so_far(&["--filter=event=die", "--filter=container=gone"])?;
    assert!(text[0].contains("(execDuration=0, exitCode=0, image=tester, name=gone)"));
    let text = so_far(&["--filter=type=network", "--filter=event=connect"])?;
    assert!(text[0].ends_with(&format!("(container={id}, name=mac1, type=macvlan)")));
    let short = &id[..12];
    let of_it = if can_pause { 17 } else { 15 };
    for (filter, count) in [
        (format!("container={short}"), of_it),
        ("network=mac1".to_owned(), 8),
        ("label=tier=front".to_owned(), of_it),
        ("image=tester:latest".to_owned(), of_it + 4),
        ("container=none-such".to_owned(), 0),
        ("volume=any".to_owned(), 0),
    ] {
        let hits = so_far(&["--filter", &filter])?.len();
        assert_eq!(hits, count, "{filter}");
    }
    let program = judge::dockless().to_string_lossy().into_owned();
    for (flags, code, phrase) in [
        (["--filter=color=red"], 1, "invalid filter 'color'"),
        (["--since=yesterday"], 1, "invalid value for \"since\""),
        (["--format={{.Nope}}"], 64, "Error parsing format"),
    ] {
        let words = [
            &[program.as_str(), "events", "--until=0s", "--since=1h"],
            &flags[..],
        ];
        let answer = judge::run(&words.concat())?;
        assert_eq!(answer.code, Some(code));
        assert!(answer.stderr.contains(phrase), "{}", answer.stderr);
    }
    Ok(())
}

fn a_follower_hears_of_it_at_once() -> Verdict {
    let mut follower = Command::new(judge::dockless())
        .args(["events", "--format", SHORT])
        .stdout(Stdio::piped())
        .spawn()?;
    let Some(out) = follower.stdout.take() else {
        return failed("no output");
    };
    // It watches once the folder is there; what happens before is not news.
    std::thread::sleep(Duration::from_millis(500));
    said(&[
        "run",
        "--rm",
        "--name=one",
        "--network=none",
        "tester",
        "ip",
        "link",
    ])?;
    let lines: Vec<String> = BufReader::new(out)
        .lines()
        .take(4)
        .collect::<Result<_, _>>()?;
    let wanted = ["create", "start", "die", "destroy"].map(|a| format!("container {a} one"));
    assert_eq!(lines, wanted);
    follower.kill()?;
    follower.wait()?;

    // With an end, it ends.
    let until = std::time::SystemTime::now() + Duration::from_secs(1);
    let since_1970 = until.duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    said(&["events", &format!("--until={since_1970:.3}")])?;
    assert!(std::time::SystemTime::now() >= until - Duration::from_millis(2));
    Ok(())
}

fn a_killed_supervisor_s_container_has_died() -> Verdict {
    let _lan = Lab::here(0)?;
    network()?;
    said(&["run", "-d", "--name=one", "--network=mac1", "tester"])?;
    let pid = said(&["inspect", "-f", "{{.Dockless.SupervisorPid}}", "one"])?;
    let supervisor = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL)?;
    while said(&["ps", "-q"])?.contains(|c: char| c.is_ascii_hexdigit()) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let died = so_far(&["--filter=event=die"])?;
    assert!(died[0].contains("(execDuration="), "{died:?}");
    assert!(died[0].contains("exitCode=137"), "{died:?}");
    said(&["rm", "one"])?;
    let all = so_far(&["--format", SHORT])?;
    let end = [
        "container start one",
        "container die one",
        "network disconnect mac1",
        "container destroy one",
    ];
    assert!(all.ends_with(&end.map(str::to_owned)), "{all:?}");
    Ok(())
}

/// As with Docker: no stop, and whatever was created is destroyed.
fn the_end_of_one_that_is_removed() -> Verdict {
    let _lan = Lab::here(0)?;
    network()?;
    let run = ["run", "-d", "--network=mac1", "--ip=10.0.2.9"];
    for rm in ["--rm=false", "--rm"] {
        said(&[&run[..], &[rm, "--name=one", "tester"]].concat())?;
        said(&["rm", "-f", "one"])?;
    }
    said(&[&run[..], &["--name=one", "tester"]].concat())?;
    let taken = judge::ask(&[&run[..], &["--rm", "--name=two", "tester"]].concat())?;
    assert_eq!(taken.code, Some(125), "{}", taken.stderr);
    said(&["rm", "-f", "one"])?;
    let life = [
        "container create one",
        "network connect mac1",
        "container start one",
        "container kill one",
        "container die one",
        "network disconnect mac1",
        "container destroy one",
    ];
    let failed = ["container create two", "container destroy two"];
    let wanted = [
        &["network create mac1"],
        &life[..],
        &life,
        &life[..3],
        &failed,
        &life[3..],
    ];
    assert_eq!(so_far(&["--format", SHORT])?, wanted.concat());
    let kills = so_far(&["--filter=event=kill"])?;
    assert!(
        kills.iter().all(|line| line.contains("signal=9")),
        "{kills:?}"
    );
    let times = so_far(&["--format={{.TimeNano}}"])?;
    let times: Vec<u64> = times.iter().map(|t| t.parse()).collect::<Result<_, _>>()?;
    assert!(times.is_sorted(), "{times:?}");
    Ok(())
}

/// In a user namespace of its own, where no inotify instance can be had.
fn the_past_needs_no_watch() -> Verdict {
    said(&["run", "--rm", "--network=none", "tester", "ip", "link"])?;
    let none = "echo 0 >/proc/sys/user/max_inotify_instances && exec \"$@\"";
    let program = judge::dockless().to_string_lossy();
    let within = ["unshare", "-Ur", "sh", "-c", none, "sh", &program, "events"];
    let past = judge::run(&[&within[..], &["--since=1h", "--until=0s"]].concat())?.success()?;
    assert!(past.stdout.contains("container destroy"), "{past:?}");
    let to_come = judge::run(&[&within[..], &["--until=2100-01-01"]].concat())?;
    assert!(to_come.stderr.contains("inotify"), "{to_come:?}");
    Ok(())
}

fn network() -> Verdict {
    let create = ["network", "create", "-d", "macvlan", "--subnet=10.0.2.0/24"];
    let more = ["--gateway=10.0.2.1", "-o", "parent=eth1", "mac1"];
    said(&[&create[..], &more].concat()).map(drop)
}
