//! Kernel tests of the commands themselves, from one to the next.

use crate::harness::{Test, Verdict};
use crate::judge;
use dockless::lab::Lab;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(rm_is_over_when_run_returns),
        Test::new(thirty_two_at_once_on_a_small_subnet).limit_s(120),
    ]
}

fn dockless(args: &[&str]) -> Verdict<(Option<i32>, String, String)> {
    let out = std::process::Command::new(judge::dockless())
        .args(args)
        .stdin(std::process::Stdio::null())
        .output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((out.status.code(), text(&out.stdout), text(&out.stderr)))
}

fn network(subnet: &str) -> Verdict {
    let subnet = format!("--subnet={subnet}");
    let (code, _, err) = dockless(&[
        "network",
        "create",
        "-d",
        "macvlan",
        &subnet,
        "--gateway=10.0.2.1",
        "-o",
        "parent=eth1",
        "mac1",
    ])?;
    assert_eq!(code, Some(0), "{err}");
    Ok(())
}

/// Scripts go on with `network rm`, or run the same name again.
fn rm_is_over_when_run_returns() -> Verdict {
    let _lan = Lab::here(0)?;
    for _ in 0..10 {
        network("10.0.2.0/24")?;
        let (code, out, err) = dockless(&[
            "run",
            "--rm",
            "--name",
            "same",
            "--network",
            "mac1",
            "tester",
            "ip",
            "link",
        ])?;
        assert_eq!(code, Some(0), "{err}");
        assert!(out.contains("eth0"), "{out}");
        assert_eq!(dockless(&["ps", "-aq"])?.1, "");
        let (code, _, err) = dockless(&["network", "rm", "mac1"])?;
        assert_eq!(code, Some(0), "{err}");
    }
    Ok(())
}

/// A /27 has room for 29 beside its network, broadcast and gateway.
fn thirty_two_at_once_on_a_small_subnet() -> Verdict {
    let _lan = Lab::here(0)?;
    network("10.0.2.0/27")?;
    let runs: Vec<_> = (0..32)
        .map(|n| {
            std::thread::spawn(move || {
                let name = format!("many{n}");
                let run = ["run", "-d", "--name", &name, "--network", "mac1", "tester"];
                dockless(&run).map_err(|_| n)
            })
        })
        .collect();
    let mut started = 0;
    for run in runs {
        let (code, _, err) = run.join().unwrap().unwrap();
        if code == Some(0) {
            started += 1;
        } else {
            assert_eq!(code, Some(125), "{err}");
            assert!(
                err.contains("no available IPv4 addresses on this network's address pools: mac1"),
                "{err}"
            );
        }
    }
    assert_eq!(started, 29);
    let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let ids = dockless(&["ps", "-q"])?.1;
    let mut inspect = vec!["inspect", "-f", template];
    inspect.extend(ids.lines());
    let addresses = dockless(&inspect)?.1;
    let distinct: std::collections::BTreeSet<&str> = addresses.lines().collect();
    assert_eq!(distinct.len(), 29, "{addresses}");
    assert!(!distinct.contains("10.0.2.1"));
    let all = dockless(&["ps", "-aq"])?.1;
    let mut rm = vec!["rm", "-f"];
    rm.extend(all.lines());
    assert_eq!(dockless(&rm)?.0, Some(0));
    let (code, _, err) = dockless(&["network", "rm", "mac1"])?;
    assert_eq!(code, Some(0), "{err}");
    Ok(())
}
