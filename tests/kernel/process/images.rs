//! Images that mean harm, and folders that are no images.

use std::collections::BTreeSet;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use super::*;
use crate::harness::{need_root, skipped};

pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::new(links_stay_inside),
        Test::new(links_to_nowhere_are_followed),
        Test::new(api_folders_are_plain),
        Test::new(devices_of_the_image_are_covered),
        Test::new(binds_cannot_undo_masks),
        Test::new(passwd_that_is_no_file),
        Test::new(the_image_stays_as_it_was),
        Test::new(the_hosts_own_root),
        Test::new(folders_that_are_no_images),
        Test::new(any_path_may_name_an_image),
        Test::new(images_of_former_binaries_go),
    ]
}

fn replace_by_link(image: &Path, name: &str, target: &str) -> Verdict {
    let at = image.join(name);
    match fs::symlink_metadata(&at) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(&at)?,
        Ok(_) => fs::remove_file(&at)?,
        Err(_) => {}
    }
    Ok(symlink(target, at)?)
}

fn links_stay_inside() -> Verdict {
    let image = image()?;
    fs::rename(image.join("etc/passwd"), image.join("passwd"))?;
    replace_by_link(&image, "etc", "/")?;
    let report = run_in(&image, &[], &["/probe"])?.json()?;
    let at: BTreeSet<_> = report["mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|m| m["at"].as_str().map(str::to_owned))
        .collect();
    for file in ["/hosts", "/hostname", "/resolv.conf"] {
        assert!(at.contains(file), "{at:?}");
    }
    assert_eq!(report["env"][2], "HOME=/root");

    replace_by_link(&image, "etc", "../../../../../../../run/tmp/outside")?;
    let report = run_in(&image, &[], &["/probe"])?.json()?;
    assert!(report["etc"]["hosts"].is_string());
    assert!(!Path::new("/run/tmp/outside").exists());
    assert!(!image.join("run").exists());
    Ok(())
}

/// As /etc/resolv.conf on a machine with systemd-resolved.
fn links_to_nowhere_are_followed() -> Verdict {
    let image = image()?;
    let target = "../run/systemd/resolve/stub-resolv.conf";
    replace_by_link(&image, "etc/resolv.conf", target)?;
    replace_by_link(&image, "etc/hostname", "/var/lib/hostname")?;
    let report = run_in(&image, &["-h", "here"], &["/probe"])?.json()?;
    assert_eq!(report["etc"]["hostname"], "here\n");
    let text = report["etc"]["resolv.conf"].as_str().unwrap_or_default();
    assert!(text.contains("nameserver"), "{text:?}");
    replace_by_link(&image, "etc/hosts", "hosts")?;
    let answer = run_in(&image, &[], &["/probe"])?;
    assert_eq!(answer.code, Some(125), "{answer:?}");
    assert!(answer.stderr.contains("etc/hosts"), "{answer:?}");
    Ok(())
}

/// A link from /proc to `/` would take the masks elsewhere.
fn api_folders_are_plain() -> Verdict {
    let image = image()?;
    for name in ["proc", "dev", "sys"] {
        for target in ["/", "/etc", ".", "nowhere", "/proc/self/root"] {
            replace_by_link(&image, name, target)?;
            let answer = run_in(&image, &[], &["/probe"])?;
            assert_eq!(answer.code, Some(125), "{name} -> {target}: {answer:?}");
            assert!(
                answer.stderr.contains("must be an ordinary folder"),
                "{answer:?}"
            );
        }
        fs::remove_file(image.join(name))?;
        fs::write(image.join(name), "")?;
        let answer = run_in(&image, &[], &["/probe"])?;
        assert_eq!(answer.code, Some(125), "{name} is a file: {answer:?}");
        fs::remove_file(image.join(name))?;
    }
    run_in(&image, &[], &["/probe"])?.success()?;
    Ok(())
}

fn devices_of_the_image_are_covered() -> Verdict {
    let image = image()?;
    fs::create_dir_all(image.join("dev/pts"))?;
    fs::write(image.join("dev/null"), "not null")?;
    symlink("/etc/passwd", image.join("dev/zero"))?;
    symlink("/etc", image.join("dev/shm"))?;
    fs::write(image.join("dev/pts/ptmx"), "")?;
    let report = run_in(&image, &[], &["/probe"])?.json()?;
    let device = |path: &str| {
        report["devices"][path]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert!(device("/dev/null").starts_with("c 1:3 666"));
    assert!(device("/dev/zero").starts_with("c 1:5 666"));
    assert_eq!(device("/dev/shm"), "d 1777 0:0");
    assert!(device("/dev/pts/ptmx").starts_with("c 5:2 666"));
    Ok(())
}

/// Whatever the image makes of the bind-mounted files, what is to be hidden is
/// hidden, or nothing starts.
fn binds_cannot_undo_masks() -> Verdict {
    let image = image()?;
    for target in [
        "/dev/null",
        "/proc/keys",
        "/proc/sysrq-trigger",
        "/proc/sys/kernel/hostname",
        "/dev/pts/ptmx",
        "/proc/1/environ",
    ] {
        replace_by_link(&image, "etc/hosts", target)?;
        let answer = run_in(&image, &[], &["/probe"])?;
        if answer.code != Some(0) {
            assert_eq!(answer.code, Some(125), "{target}: {answer:?}");
            continue;
        }
        let report = answer.json()?;
        for (path, size) in report["masked"].as_object().into_iter().flatten() {
            assert_eq!(size, "0", "{target}: {path}");
        }
        let attempts = &report["attempts"];
        assert!(
            super::is_read_only(&attempts["write /proc/sys/kernel/hostname"]),
            "{target}"
        );
        assert_ne!(attempts["write /proc/sysrq-trigger"], "ok", "{target}");
    }
    replace_by_link(&image, "sbin", "/proc")?;
    let answer = run_in(&image, &["--init"], &["/probe"])?;
    assert_eq!(answer.code, Some(125), "{answer:?}");
    Ok(())
}

fn passwd_that_is_no_file() -> Verdict {
    let image = image()?;
    let passwd = image.join("etc/passwd");
    fs::remove_file(&passwd)?;
    mkfifo(&passwd, Mode::from_bits_truncate(0o666))?;
    let report = run_in(&image, &[], &["/probe"])?.json()?;
    assert_eq!(report["env"][2], "HOME=/");
    let answer = run_in(&image, &["-u", "www"], &["/probe"])?;
    assert_eq!(answer.code, Some(125));
    assert!(
        answer.stderr.contains("unable to find user www"),
        "{answer:?}"
    );
    fs::remove_file(&passwd)?;
    fs::create_dir(&passwd)?;
    run_in(&image, &[], &["/probe"])?.success()?;
    fs::remove_dir(&passwd)?;
    // As large as a passwd file never is; and binary.
    fs::File::create(&passwd)?.set_len(1 << 40)?;
    run_in(&image, &[], &["/probe"])?.success()?;
    fs::write(&passwd, b"\xff\xfe:x:1:1\nroot:x:0:0::/ok:\n")?;
    let report = run_in(&image, &[], &["/probe"])?.json()?;
    assert_eq!(report["env"][2], "HOME=/ok");
    need_root()?;
    fs::remove_file(&passwd)?;
    mknod(
        &passwd,
        SFlag::S_IFCHR,
        Mode::from_bits_truncate(0o666),
        makedev(1, 5),
    )?;
    run_in(&image, &[], &["/probe"])?.success()?;
    Ok(())
}

fn tree(top: &Path) -> Verdict<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut open = vec![top.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                open.push(path.clone());
            }
            found.insert(format!(
                "{} {} {:?}",
                path.display(),
                meta.len(),
                meta.modified()?
            ));
        }
    }
    Ok(found)
}

fn the_image_stays_as_it_was() -> Verdict {
    let image = image()?;
    let before = tree(&image)?;
    start(&["-w", "/made"], &["/probe", "sleep", "60"])?;
    let one = dockless(&["exec", "box", "/probe"])?.json()?;
    assert_eq!(one["attempts"]["create /new-file"], "ok");
    let again = run_in(&image, &[], &["/probe"])?.json()?;
    assert_eq!(again["attempts"]["create /new-file"], "ok");
    // Its own layer outlives a stop.
    dockless(&["stop", "-t", "0", "box"])?.success()?;
    dockless(&["start", "box"])?.success()?;
    dockless(&["rm", "-f", "box"])?.success()?;
    assert_eq!(tree(&image)?, before);
    Ok(())
}

fn the_hosts_own_root() -> Verdict {
    if !is_real_root() {
        let answer = run_in(Path::new("/"), &[], &["/bin/true"])?;
        assert!(
            answer
                .stderr
                .contains("mounted below it cannot be an image"),
            "{answer:?}"
        );
        return skipped("a user namespace cannot overlay what has mounts below it");
    }
    let answer = run_in(Path::new("/"), &[], &["/bin/cat", "/etc/hostname"])?.success()?;
    assert_eq!(answer.stdout.trim().len(), 12, "{answer:?}");
    // Its layer on the very file system that is its image.
    let layer = tempfile::tempdir_in("/var/tmp");
    let Ok(layer) = layer else {
        return skipped("/var/tmp is not writable");
    };
    let root = layer.path().join("root");
    let output = command(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--rootfs",
        "/",
        "/bin/ls",
        "/",
    ])
    .env("DOCKLESS_ROOT", &root)
    .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return failed(String::from_utf8_lossy(&output.stderr));
    }
    assert!(text.lines().any(|l| l == "etc"), "{text}");
    Ok(())
}

fn folders_that_are_no_images() -> Verdict {
    fs::write("/run/tmp/file", "")?;
    for (path, phrase) in [
        ("/run/tmp/none", "no such file or directory"),
        ("/run/tmp/file", "not a directory"),
        ("/run/tmp/file/x", "not a directory"),
    ] {
        let answer = run_in(Path::new(path), &[], &["/probe"])?;
        assert_eq!(answer.code, Some(125), "{answer:?}");
        assert!(answer.stderr.to_lowercase().contains(phrase), "{answer:?}");
    }
    fs::create_dir("/run/tmp/empty")?;
    let answer = run_in(Path::new("/run/tmp/empty"), &[], &["/probe"])?;
    assert_eq!(answer.code, Some(127), "{answer:?}");
    Ok(())
}

fn any_path_may_name_an_image() -> Verdict {
    let image = image()?;
    for name in ["a:b", "a,b", r"a\b", "a b", "lowerdir=x", "ä\u{1b}[31m"] {
        let path = Path::new("/run/tmp").join(name);
        fs::rename(&image, &path)?;
        run_in(&path, &[], &["/probe", "exit", "0"])?.success()?;
        fs::rename(&path, &image)?;
    }
    Ok(())
}

/// Each binary unpacks a tester image of its own.
fn images_of_former_binaries_go() -> Verdict {
    let old = "/run/tmp/old-dockless";
    fs::copy(judge::dockless(), old)?;
    let run = ["run", "-d", "--network", "none", "--name", "box", "tester"];
    judge::run(&[&[old][..], &run].concat())?.success()?;
    dockless(&["run", "--rm", "--network", "none", "tester", "ip", "link"])?.success()?;
    assert_eq!(dockless(&["gc"])?.success()?.stdout, "");
    dockless(&["exec", "box", "ip", "link"])?.success()?;
    dockless(&["rm", "-f", "box"])?.success()?;
    let said = dockless(&["gc"])?.success()?;
    let removed = said.stdout.matches("removed an unused tester image");
    assert_eq!(removed.count(), 1, "{said:?}");
    assert_eq!(dockless(&["gc"])?.success()?.stdout, "");
    dockless(&["run", "--rm", "--network", "none", "tester", "ip", "link"])?.success()?;
    Ok(())
}
