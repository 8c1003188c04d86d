//! Kernel tests of addresses that outlive a container's run, and its removal.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{Test, Verdict};
use crate::judge::{ask, ip_in, pid_of, refused, said};
use dockless::lab::Lab;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(the_files_decide_not_the_index),
        Test::new(kept_while_stopped),
        Test::new(kept_and_none_left),
        Test::new(kept_no_longer),
        Test::new(kept_for_nobody),
        Test::new(replaced_with_its_addresses),
        Test::new(not_replaced),
        Test::new(replaced_by_two_at_once),
    ]
}

/// Addresses from 10.0.2.8 on, that many.
fn create(range: &str) -> Verdict {
    let words = ["network", "create", "-d", "macvlan", "-o", "parent=eth1"];
    let pool = ["--subnet=10.0.2.0/24", "--ip-range", range, "lan"];
    said(&[&words[..], &pool].concat()).map(drop)
}

/// Runs it, and says which address it has got.
fn run(name: &str, flags: &[&str]) -> Verdict<String> {
    let words = ["run", "-d", "--name", name, "--network", "lan"];
    said(&[&words[..], flags, &["tester"]].concat())?;
    address(name)
}

fn address(name: &str) -> Verdict<String> {
    let links = ip_in(name, &["-4", "addr", "show", "dev", "eth0"])?;
    let local = links[0]["addr_info"][0]["local"].as_str();
    Ok(local.unwrap_or_default().to_owned())
}

fn mac(name: &str) -> Verdict<String> {
    let links = ip_in(name, &["link", "show", "dev", "eth0"])?;
    Ok(links[0]["address"].as_str().unwrap_or_default().to_owned())
}

fn id(name: &str) -> Verdict<String> {
    Ok(said(&["inspect", "-f", "{{.Id}}", name])?.trim().to_owned())
}

fn reserved() -> Verdict<Vec<PathBuf>> {
    let folder = PathBuf::from(std::env::var("DOCKLESS_ROOT")?).join("reserved");
    let entries = fs::read_dir(folder)?;
    Ok(entries
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<_, _>>()?)
}

/// Whatever the index in the lock's file says: who has changed the folder without
/// it is noticed, and, within one tick of the file system's clock, does no harm.
fn the_files_decide_not_the_index() -> Verdict {
    let _lan = Lab::here(0)?;
    create("10.0.2.8/29")?;
    assert_eq!(run("first", &[])?, "10.0.2.8");
    let folder = PathBuf::from(std::env::var("DOCKLESS_STATE")?).join("leases");
    let lease = |ip: &str| folder.join(format!("10.0.2.0_24@eth1,{ip}"));
    let index = fs::read(folder.join(".lock"))?;
    assert!(index.starts_with(b"dockless index 1"), "{index:?}");
    // As if nothing had changed since.
    let unseen = |change: &dyn Fn() -> std::io::Result<()>| -> Verdict {
        let before = fs::metadata(&folder)?.modified()?;
        change()?;
        Ok(fs::File::open(&folder)?.set_modified(before)?)
    };
    let another = || fs::copy(lease("10.0.2.8"), lease("10.0.2.9")).map(drop);
    // Somebody else's program.
    another()?;
    assert_eq!(run("second", &[])?, "10.0.2.10");
    fs::remove_file(lease("10.0.2.9"))?;
    assert_eq!(run("third", &[])?, "10.0.2.9");
    said(&["rm", "-f", "third"])?;
    // The same, and the index says otherwise.
    unseen(&another)?;
    assert_eq!(run("third", &[])?, "10.0.2.11");
    unseen(&|| fs::remove_file(lease("10.0.2.9")))?;
    assert_eq!(run("fourth", &["--ip=10.0.2.9"])?, "10.0.2.9");
    // It gets its own back, and by the index.
    said(&["stop", "-t0", "fourth"])?;
    said(&["start", "fourth"])?;
    assert_eq!(address("fourth")?, "10.0.2.9");
    // No index at all, and a damaged one.
    fs::write(folder.join(".lock"), b"")?;
    assert_eq!(run("fifth", &[])?, "10.0.2.12");
    fs::write(folder.join(".lock"), [&index[..70], &[0xff; 99]].concat())?;
    assert_eq!(run("sixth", &[])?, "10.0.2.13");
    let all = ["first", "second", "third", "fourth", "fifth", "sixth"];
    said(&[&["rm", "-f"], &all[..]].concat())?;
    said(&["network", "rm", "lan"]).map(drop)
}

fn kept_while_stopped() -> Verdict {
    let _lan = Lab::here(1)?;
    create("10.0.2.8/29")?;
    assert_eq!(run("first", &[])?, "10.0.2.8");
    said(&["stop", "-t0", "first"])?;
    assert_eq!(run("second", &[])?, "10.0.2.9");
    let wish = [
        "run",
        "-d",
        "--network",
        "lan",
        "--ip",
        "10.0.2.8",
        "tester",
    ];
    refused(&wish, "Address already in use: 10.0.2.8")?;
    refused(&wish, "kept for container first")?;
    said(&["rename", "first", "one"])?;
    refused(&wish, "kept for container one")?;
    // As after a reboot.
    said(&["rm", "-f", "second"])?;
    fs::remove_dir_all(std::env::var("DOCKLESS_STATE")?)?;
    refused(&wish, "kept for container one")?;
    said(&["start", "one"])?;
    assert_eq!(address("one")?, "10.0.2.8");
    // Its supervisor and itself.
    let pid = pid_of("one")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:"));
    let parent: i32 = parent.unwrap_or_default().trim().parse()?;
    let kill = |pid: i32| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL)
    };
    kill(parent)?;
    // It may have died with its supervisor.
    let _ = kill(pid.parse()?);
    // Until its supervisor is dead, it has it.
    while Path::new(&format!("/proc/{parent}")).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    refused(&wish, "kept for container one")?;
    assert_eq!(run("third", &[])?, "10.0.2.9");
    said(&["rm", "one"])?;
    assert_eq!(run("fourth", &["--ip", "10.0.2.8"])?, "10.0.2.8");
    said(&["rm", "-f", "third", "fourth"])?;
    said(&["network", "rm", "lan"])?;
    assert_eq!(reserved()?, Vec::<PathBuf>::new());
    Ok(())
}

fn kept_and_none_left() -> Verdict {
    let _lan = Lab::here(1)?;
    create("10.0.2.8/31")?;
    run("first", &[])?;
    run("second", &["--ip-reserve=off"])?;
    let third = ["run", "-d", "--network", "lan", "tester"];
    said(&["stop", "-t0", "first"])?;
    refused(&third, "no available IPv4 addresses")?;
    refused(&third, "1 kept for containers that do not run")?;
    said(&["stop", "-t0", "second"])?;
    assert_eq!(run("third", &["--rm"])?, "10.0.2.9");
    // Docker's way: who comes first has it.
    refused(&["start", "second"], "no available IPv4 addresses")?;
    said(&["start", "first"])?;
    said(&["rm", "-f", "third"])?;
    said(&["start", "second"])?;
    assert_eq!(address("second")?, "10.0.2.9");
    assert_eq!(reserved()?.len(), 1);
    said(&["rm", "-f", "first", "second"])?;
    said(&["network", "rm", "lan"]).map(drop)
}

fn kept_no_longer() -> Verdict {
    let _lan = Lab::here(1)?;
    create("10.0.2.8/29")?;
    let of = |name: &str| -> Verdict<usize> {
        let id = id(name)?;
        let names = reserved()?;
        Ok(names
            .iter()
            .filter(|p| p.to_string_lossy().ends_with(&id))
            .count())
    };
    run("web", &["--ip", "10.0.2.8"])?;
    assert_eq!(of("web")?, 1);
    said(&["network", "disconnect", "lan", "web"])?;
    assert_eq!(of("web")?, 0);
    said(&["network", "connect", "lan", "web"])?;
    assert_eq!(of("web")?, 1);
    said(&["stop", "-t0", "web"])?;
    assert_eq!(of("web")?, 1);
    said(&["network", "disconnect", "lan", "web"])?;
    assert_eq!(of("web")?, 0);
    // Connected at rest, an address comes with the next start.
    said(&["network", "connect", "--ip", "10.0.2.12", "lan", "web"])?;
    assert_eq!(of("web")?, 0);
    said(&["start", "web"])?;
    said(&["stop", "-t0", "web"])?;
    assert_eq!(of("web")?, 1);
    // As Docker, which lets a network go that only stopped ones are on.
    said(&["network", "rm", "lan"])?;
    assert_eq!(of("web")?, 0);
    said(&["rm", "web"]).map(drop)
}

/// What a `kill -9` between a container's removal and its reservation's leaves.
fn kept_for_nobody() -> Verdict {
    let _lan = Lab::here(1)?;
    create("10.0.2.8/31")?;
    run("web", &[])?;
    let nobody = "0".repeat(64);
    let own = &reserved()?[0];
    let name = own.file_name().unwrap_or_default().to_string_lossy();
    let other = name
        .replace("10.0.2.8", "10.0.2.9")
        .replace(&id("web")?, &nobody);
    symlink(fs::read_link(own)?, own.with_file_name(other))?;
    assert_eq!(run("next", &["--rm"])?, "10.0.2.9");
    said(&["rm", "-f", "next"])?;
    assert_eq!(reserved()?.len(), 2);
    assert!(said(&["gc"])?.contains("removed what nobody keeps"));
    assert_eq!(reserved()?.len(), 1);
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "lan"]).map(drop)
}

fn replaced_with_its_addresses() -> Verdict {
    let _lan = Lab::here(1)?;
    create("10.0.2.8/29")?;
    let flags = ["--replace"];
    assert_eq!(run("gap", &[])?, "10.0.2.8");
    // There was none.
    assert_eq!(run("web", &flags)?, "10.0.2.9");
    said(&["rm", "-f", "gap"])?;
    let (was, had) = (id("web")?, mac("web")?);
    assert_eq!(run("web", &flags)?, "10.0.2.9");
    assert_ne!(id("web")?, was);
    assert_eq!(mac("web")?, had);
    // One that does not run, and one with --rm.
    said(&["stop", "-t0", "web"])?;
    assert_eq!(run("web", &["--replace", "--rm"])?, "10.0.2.9");
    assert_eq!(run("web", &flags)?, "10.0.2.9");
    assert_eq!(
        run("web", &["--replace", "--ip", "10.0.2.14"])?,
        "10.0.2.14"
    );
    assert_eq!(said(&["ps", "-aq"])?.lines().count(), 1);
    assert_eq!(reserved()?.len(), 1);
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "lan"]).map(drop)
}

/// What can be refused costs the old one nothing.
fn not_replaced() -> Verdict {
    let _lan = Lab::here(1)?;
    create("10.0.2.8/29")?;
    run("web", &[])?;
    run("other", &["--ip", "10.0.2.9", "-p", "9000:80"])?;
    let was = (id("web")?, pid_of("web")?);
    let web = ["run", "-d", "--replace", "--name", "web"];
    let tries: [(&[&str], &str); 12] = [
        (
            &["-p", "70:70", "-p", "70:71", "--network", "lan", "tester"],
            "it is asked for twice",
        ),
        (
            &["-p", "9000:5000", "--network", "lan", "tester"],
            "container other has it",
        ),
        (
            &[
                "--network",
                "lan",
                "--mac-address=01:00:00:00:00:01",
                "tester",
            ],
            "not a valid mac address",
        ),
        (
            &["--network", "lan", "--ip", "10.0.2.4", "tester"],
            "this host's own",
        ),
        (
            &["--network", "name=lan,gw=10.0.9.1", "tester"],
            "gateway 10.0.9.1 is not another address",
        ),
        (
            &["--network", "nosuch", "tester"],
            "network nosuch not found",
        ),
        (&["--network", "lan", "nosuch"], "Unable to find image"),
        (
            &["--network", "lan", "--ip", "10.0.2.9", "tester"],
            "Address already in use",
        ),
        // The network's own, the broadcast address.
        (
            &["--network", "lan", "--ip", "10.0.2.0", "tester"],
            "Address already in use",
        ),
        (
            &["--network", "lan", "--ip", "10.0.2.255", "tester"],
            "Address already in use",
        ),
        (
            &["--network", "lan", "--ip", "10.0.9.9", "tester"],
            "no configured subnet",
        ),
        (
            &["--network", "lan", "--ip6", "fd00::1", "tester"],
            "no configured subnet",
        ),
    ];
    for (flags, phrase) in tries {
        refused(&[&web[..], flags].concat(), phrase)?;
        assert_eq!((id("web")?, pid_of("web")?), was, "{flags:?}");
    }
    refused(&["run", "-d", "--replace", "tester"], "--name")?;
    let beginning = &was.0[..12];
    // A name that is the beginning of somebody's id is not that one's.
    ask(&[
        "run",
        "-d",
        "--replace",
        "--name",
        beginning,
        "--network",
        "lan",
        "tester",
    ])?
    .success()?;
    assert_eq!((id("web")?, pid_of("web")?), was);
    said(&["rm", "-f", "web", "other"])?;
    said(&["rm", "-f", beginning])?;
    // One that two ids begin with is a name as any other.
    let folder = PathBuf::from(std::env::var("DOCKLESS_ROOT")?).join("containers");
    let ids = ["0", "1"].map(|end| folder.join(format!("db{}", end.repeat(62))));
    ids.iter().try_for_each(fs::create_dir)?;
    run("db", &["--replace"])?;
    said(&["rm", "-f", "db"])?;
    said(&["network", "rm", "lan"]).map(drop)
}

/// Of several commands that replace one container, one at least has it, and
/// the others say who has the name.
fn replaced_by_two_at_once() -> Verdict {
    let _lan = Lab::here(1)?;
    create("10.0.2.8/29")?;
    let words = ["run", "-d", "--replace", "--name", "web"];
    let words = [&words[..], &["--network", "lan", "tester"]].concat();
    run("web", &[])?;
    for _ in 0..4 {
        let all = std::thread::scope(|scope| {
            let started = [(); 3].map(|()| scope.spawn(|| ask(&words)));
            started.map(|one| one.join().unwrap())
        });
        let mut done = 0;
        for one in all {
            let one = one?;
            done += usize::from(one.code == Some(0));
            let text = one.stderr;
            assert!(
                one.code == Some(0) || text.contains("is already in use"),
                "{text}"
            );
        }
        assert!(done > 0);
        assert_eq!(address("web")?, "10.0.2.8");
        assert_eq!(said(&["ps", "-aq"])?.lines().count(), 1);
    }
    said(&["rm", "-f", "web"])?;
    said(&["network", "rm", "lan"]).map(drop)
}
