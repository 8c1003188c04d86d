//! The harness and its LAN keep their promises.

use std::fs;
use std::process::Command;

use dockless::lab::Lab;

use crate::harness::{Test, Verdict, failed, is_real_root, need_root, skipped};
use crate::judge;

/// Adds tests that go wrong on purpose, for `bad_ends_are_seen`.
const DELIBERATE: &str = "DOCKLESS_KERNEL_DELIBERATE";

pub(crate) fn tests() -> Vec<Test> {
    if std::env::var_os(DELIBERATE).is_some() {
        return vec![
            Test::new(deliberate_error),
            Test::new(deliberate_panic),
            Test::new(deliberate_skip),
            Test::new(deliberate_sleep).limit_s(1),
            Test::new(deliberate_process),
            Test::new(deliberate_mount),
        ];
    }
    vec![
        Test::new(bad_ends_are_seen),
        Test::new(namespaces_are_private),
        Test::new(lan_is_a_lan),
        Test::new(nft_is_empty_at_first),
        Test::new(root_is_told_apart),
    ]
}

fn namespaces_are_private() -> Verdict {
    // Nothing but a loopback, and a /proc that shows only us and pid 1.
    let links = fs::read_to_string("/proc/net/dev")?;
    assert_eq!(links.lines().count(), 3, "{links}");
    assert!(!fs::exists("/run/dockless")?);
    assert_eq!(std::os::unix::process::parent_id(), 1);
    Ok(())
}

fn lan_is_a_lan() -> Verdict {
    let lan = Lab::here(2)?;
    let eth1 = judge::ip(&["addr", "show", "eth1"])?;
    assert_eq!(eth1[0]["addr_info"][0]["local"], "10.0.2.4");
    for machine in [&lan.gateway, &lan.others[0], &lan.others[1]] {
        judge::on(machine, &["ping", "-c1", "-W2", "10.0.2.4"])?.success()?;
    }
    judge::run(&["ping", "-c1", "-W2", "10.0.2.8"])?.success()?;
    Ok(())
}

fn nft_is_empty_at_first() -> Verdict {
    assert!(judge::nft_ruleset()?.is_empty());
    Ok(())
}

fn root_is_told_apart() -> Verdict {
    let stop = need_root();
    assert_eq!(stop.is_ok(), is_real_root());
    stop
}

fn deliberate_error() -> Verdict {
    failed("on purpose")
}
fn deliberate_panic() -> Verdict {
    panic!("on purpose")
}
fn deliberate_skip() -> Verdict {
    skipped("on purpose")
}
fn deliberate_sleep() -> Verdict {
    std::thread::sleep(std::time::Duration::from_secs(60));
    Ok(())
}
fn deliberate_process() -> Verdict {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "sleep 60 & exit 0"]).status()?;
    Ok(())
}
fn deliberate_mount() -> Verdict {
    let tmpfs = Some("tmpfs");
    nix::mount::mount(
        tmpfs,
        "/run/tmp",
        tmpfs,
        nix::mount::MsFlags::empty(),
        None::<&str>,
    )?;
    Ok(())
}

fn bad_ends_are_seen() -> Verdict {
    let again = |require: &str| {
        Command::new("/proc/self/exe")
            .args(["deliberate", "--test-threads", "4"])
            .env(DELIBERATE, "1")
            .env("DOCKLESS_REQUIRE", require)
            .env_remove("DOCKLESS_KERNEL_STAGE")
            .env_remove("DOCKLESS_TEST_SLOW")
            .output()
    };
    let output = again("")?;
    let text = String::from_utf8_lossy(&output.stdout);
    for words in [
        "FAILED: on purpose",
        "panicked at",
        "skipped selfcheck::deliberate_skip: on purpose",
        "not done within 1 s",
        "the test left processes",
        "the test left mounts: /run/tmp",
    ] {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    assert_eq!(text.lines().last(), Some("0 passed, 5 failed, 1 skipped"));
    assert!(!output.status.success());
    let output = again("selfcheck::*")?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.lines().last(), Some("0 passed, 6 failed, 0 skipped"));
    Ok(())
}
