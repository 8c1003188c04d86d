//! Kernel tests of the typed primitives: namespaces, mounts, cgroups,
//! processes, capabilities and the system call filter.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use dockless::sys::cgroup::{self, Cgroup, Hierarchies};
use dockless::sys::mount::{self, Attrs, Filesystem, Mount, Propagation, Rooted};
use dockless::sys::netns::Netns;
use dockless::sys::process::{self, ExitStatus, Fork, PidFd, SingleThreaded};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use nix::sys::stat::Mode;

use crate::harness::{Test, Verdict, need_root, patience, skipped};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(a_namespace_is_made_entered_and_told_apart),
        Test::new(a_socket_is_born_elsewhere_and_the_thread_stays_home),
        Test::new(a_clone_lives_in_its_namespaces_with_the_fds_it_keeps),
        Test::new(streams_may_be_swapped),
        Test::new(signals_are_at_their_defaults),
        Test::new(mounts_are_made_bound_and_read_only),
        Test::new(the_kernel_explains_a_refused_mount),
        Test::new(a_pivoted_process_sees_only_the_new_root),
        Test::new(masked_paths_are_empty_and_absent_ones_no_error),
        Test::new(a_v2_cgroup_holds_freezes_and_kills),
        Test::new(a_cgroup_rules_devices),
        Test::new(the_device_program_rules_as_the_v1_list_does),
        Test::new(cgroups_are_removed_with_what_runs_in_them),
    ]
}

/// Runs `f` in a forked child; 0 when it returned true.
fn in_child(f: impl FnOnce() -> bool) -> Verdict<ExitStatus> {
    match process::fork(&SingleThreaded::prove()?)? {
        Fork::Child => {
            let ok = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(false);
            process::exit_now(i32::from(!ok))
        }
        Fork::Parent { pidfd, .. } => Ok(pidfd.wait(true)?.unwrap()),
    }
}

const GOOD: ExitStatus = ExitStatus::Code(0);

fn own_netns() -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata("/proc/thread-self/ns/net").unwrap())
}

// ---- namespaces, processes ----------------------------------------------------

fn a_namespace_is_made_entered_and_told_apart() -> Verdict {
    let home = Netns::current()?;
    let sandbox = Netns::create()?;
    assert_ne!(home.id()?, sandbox.id()?);
    assert_eq!(sandbox.id()?, sandbox.try_clone()?.id()?);
    assert_eq!(home.id()?.ino, own_netns());
    let inside = sandbox.run(|| Ok(own_netns()))?;
    assert_eq!(inside, sandbox.id()?.ino);
    assert_eq!(own_netns(), home.id()?.ino);
    // Its links are its own: nothing but `lo`.
    let links = sandbox.run(|| Ok(fs::read_to_string("/proc/thread-self/net/dev").unwrap()))?;
    assert_eq!(links.lines().count(), 3, "{links}");
    let copy = OwnedFd::from(sandbox.try_clone()?);
    assert_eq!(Netns::from_fd(copy)?.id()?, sandbox.id()?);
    let other = fs::File::open("/proc/self/ns/uts")?;
    assert!(Netns::from_fd(other.into()).is_err());
    assert!(Netns::from_fd(fs::File::open("/")?.into()).is_err());
    SingleThreaded::prove()?;
    Ok(())
}

fn a_socket_is_born_elsewhere_and_the_thread_stays_home() -> Verdict {
    let sandbox = Netns::create()?;
    let home = own_netns();
    for _ in 0..3 {
        let socket = sandbox.socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK,
            0,
        )?;
        assert_eq!(own_netns(), home);
        // SIOCGSKNS would tell directly; an address that only `lo` of the
        // other namespace lacks (it is down there) tells as well.
        let address = nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 9);
        let here = nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&socket), &address);
        assert_eq!(here, Err(Errno::ENETUNREACH));
    }
    let from_thread = std::thread::scope(|s| {
        s.spawn(|| {
            sandbox
                .socket(
                    AddressFamily::Inet,
                    SockType::Datagram,
                    SockFlag::empty(),
                    0,
                )
                .map(|_| own_netns())
        })
        .join()
        .unwrap()
    })?;
    assert_eq!(from_thread, home);
    let refused = sandbox.socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::empty(),
        250,
    );
    assert!(refused.is_err());
    assert_eq!(own_netns(), home);
    Ok(())
}

fn a_clone_lives_in_its_namespaces_with_the_fds_it_keeps() -> Verdict {
    let token = SingleThreaded::prove()?;
    let kept = fs::File::open("/dev/null")?;
    let lost = fs::File::open("/dev/null")?;
    let number = |f: &fs::File| std::os::fd::AsRawFd::as_raw_fd(f);
    let spaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
    let uts = |()| fs::read_link("/proc/self/ns/uts").unwrap();
    let outer = uts(());
    match process::clone_child(&token, u64::from(spaces.unsigned_abs()), None)? {
        Fork::Child => {
            let alone = nix::unistd::getpid().as_raw() == 1;
            process::close_all_except(&[kept.as_fd()]).unwrap();
            let open = |fd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).is_ok();
            let still = open(kept.as_fd());
            let gone = fs::read_link(format!("/proc/self/fd/{}", number(&lost))).is_err();
            process::exit_now(i32::from(!(alone && still && gone)))
        }
        Fork::Parent { pid, pidfd } => {
            assert!(pid > 1);
            assert_eq!(pidfd.wait(true)?, Some(GOOD));
            assert_eq!(pidfd.wait(false).unwrap_err().errno(), Some(libc::ECHILD));
        }
    }
    assert_eq!(uts(()), outer);
    assert!(process::clone_child(&token, libc::CLONE_VM as u64, None).is_err());
    Ok(())
}

fn streams_may_be_swapped() -> Verdict {
    let status = in_child(|| {
        let out = tempfile::tempfile().unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        // stdout becomes stdin's place and the other way round.
        process::dup2_std(null.as_fd(), out.as_fd(), out.as_fd()).unwrap();
        let (a, b) = (std::io::stdin(), std::io::stdout());
        process::dup2_std(b.as_fd(), a.as_fd(), std::io::stderr().as_fd()).unwrap();
        let target = |fd: u32| fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        let flags = nix::fcntl::fcntl(std::io::stdout(), nix::fcntl::FcntlArg::F_GETFD).unwrap();
        target(1) == Path::new("/dev/null") && target(0) == target(2) && flags == 0
    })?;
    assert_eq!(status, GOOD);
    Ok(())
}

fn signals_are_at_their_defaults() -> Verdict {
    // Rust's runtime ignores SIGPIPE.
    process::block_signals()?;
    let [blocked, ignored] = masks();
    assert!(blocked != 0 && ignored != 0, "{blocked:x} {ignored:x}");
    process::reset_signals()?;
    assert_eq!(masks(), [0, 0]);
    Ok(())
}

/// Blocked and ignored signals.
fn masks() -> [u64; 2] {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    ["SigBlk:", "SigIgn:"].map(|name| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    })
}

// ---- mounts -------------------------------------------------------------------

fn work_folder() -> Verdict<PathBuf> {
    let path = PathBuf::from(std::env::var("TMPDIR").unwrap()).join("work");
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// mountinfo's line for a mount point, as (options, kind, super options).
fn mount_line(at: &Path) -> Option<(String, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().rev().find_map(|line| {
        let fields: Vec<_> = line.split(' ').collect();
        (Path::new(fields[4]) == at).then(|| {
            let dash = fields.iter().position(|f| *f == "-").unwrap();
            (fields[5].to_owned(), fields[dash + 1].to_owned())
        })
    })
}

fn mounts_are_made_bound_and_read_only() -> Verdict {
    let work = work_folder()?;
    mount::propagate(Propagation::Private)?;
    let root = Rooted::root(&work)?;
    let target = root.dir(Path::new("a"), 0o755)?;
    let fs_a = Filesystem::new(c"tmpfs")?
        .set(c"size", c"1m")?
        .set(c"mode", c"750")?
        .mount(Attrs::NOSUID | Attrs::NODEV)?;
    fs_a.attach(&target)?;
    let (options, kind) = mount_line(&work.join("a")).unwrap();
    assert_eq!((&*options, &*kind), ("rw,nosuid,nodev,relatime", "tmpfs"));
    fs::write(work.join("a/file"), "text")?;

    let copy = Mount::bind_path(&work.join("a"), true)?;
    copy.set(Attrs::READ_ONLY, true)?;
    copy.attach(root.dir(Path::new("b"), 0o755)?)?;
    let (options, _) = mount_line(&work.join("b")).unwrap();
    assert_eq!(options, "ro,nosuid,nodev,relatime");
    assert_eq!(fs::read_to_string(work.join("b/file"))?, "text");
    let refused = fs::write(work.join("b/file"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));

    // A mount that nobody attached is gone with its fd.
    drop(Filesystem::new(c"tmpfs")?.mount(Attrs::NONE)?);
    mount::read_only(&root, &["a", "absent"])?;
    assert!(fs::write(work.join("a/file"), "x").is_err());

    for at in ["a", "b", "never"] {
        mount::detach(&work.join(at))?;
        assert!(mount_line(&work.join(at)).is_none());
    }
    Ok(())
}

fn the_kernel_explains_a_refused_mount() -> Verdict {
    let error = Filesystem::new(c"tmpfs")?
        .set(c"size", c"much")
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "mount tmpfs: invalid argument (tmpfs: Bad value for 'size')"
    );
    let error = Filesystem::new(c"nosuchfs").unwrap_err();
    assert!(error.is_errno(libc::ENODEV));
    assert!(error.to_string().starts_with("mount nosuchfs: "), "{error}");
    Ok(())
}

/// A root file system of folders `proc`, `dev` (with null), `old`.
fn make_root(work: &Path) -> Verdict<Rooted> {
    mount::propagate(Propagation::Slave)?;
    let folder = Rooted::root(work)?.dir(Path::new("root"), 0o755)?;
    let tmpfs = Filesystem::new(c"tmpfs")?.mount(Attrs::NONE)?;
    tmpfs.attach(&folder)?;
    let root = tmpfs.into_root();
    let proc = Filesystem::new(c"proc")?.mount(Attrs::NOSUID | Attrs::NODEV | Attrs::NOEXEC)?;
    proc.attach(root.dir(Path::new("proc"), 0o755)?)?;
    Mount::bind_path(Path::new("/dev/null"), false)?
        .attach(root.file(Path::new("dev/null"), 0o644)?)?;
    Ok(root)
}

fn a_pivoted_process_sees_only_the_new_root() -> Verdict {
    let work = work_folder()?;
    let status = in_child(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let root = make_root(&work).ok().unwrap();
        mount::pivot(&root).unwrap();
        let mut names: Vec<_> = fs::read_dir("/")
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        names == ["dev", "proc"]
            && table.lines().count() == 3
            && std::env::current_dir().unwrap() == Path::new("/")
            && fs::read_dir("/proc/self/cwd/../..").unwrap().count() == 2
    })?;
    assert_eq!(status, GOOD);
    assert!(mount_line(&work.join("root")).is_none());
    Ok(())
}

fn masked_paths_are_empty_and_absent_ones_no_error() -> Verdict {
    let work = work_folder()?;
    let root = make_root(&work)?;
    let at = |path: &str| work.join("root").join(path.trim_start_matches('/'));
    fs::create_dir(at("secret"))?;
    fs::write(at("secret/file"), "x")?;
    // A link that points out of the image masks what it names inside.
    std::os::unix::fs::symlink("/secret", at("link"))?;
    fs::create_dir(at("second"))?;
    mount::mask(
        &root,
        &[
            "/proc/timer_list",
            "/proc/nothing",
            "/link",
            "/second",
            "/proc/keys",
        ],
    )?;
    mount::read_only(&root, &["/proc/sys", "/proc/sysrq-trigger"])?;
    assert_eq!(fs::read(at("/proc/timer_list")).unwrap_or_default(), b"");
    for folder in ["/secret", "/second"] {
        assert_eq!(fs::read_dir(at(folder))?.count(), 0);
        let (options, kind) = mount_line(&at(folder)).unwrap();
        assert_eq!((&*options, &*kind), ("ro,relatime", "tmpfs"));
    }
    let (options, kind) = mount_line(&at("/proc/sys")).unwrap();
    assert_eq!(
        (&*options, &*kind),
        ("ro,nosuid,nodev,noexec,relatime", "proc")
    );
    fs::remove_file(at("link"))?;
    // Not the null device: an image must not choose what covers its files.
    mount::detach(&at("dev/null"))?;
    assert!(mount::mask(&root, &["/proc/version"]).is_err());
    drop(root);
    mount::detach(&work.join("root"))?;
    Ok(())
}

// ---- cgroups ------------------------------------------------------------------

fn make_cgroup() -> Verdict<(Hierarchies, Vec<PathBuf>, Cgroup)> {
    let all = Hierarchies::detect()?;
    let id = format!(
        "test-{}",
        std::os::unix::fs::MetadataExt::ino(&fs::metadata("/proc/self/ns/pid")?)
    );
    let folders = all.folders(&id);
    match all.create(&id)? {
        Some(cgroup) => Ok((all, folders, cgroup)),
        None => skipped("no writable cgroup hierarchy"),
    }
}

/// A child in the cgroup; it says so through the pipe, then waits to be killed.
fn member(cgroup: &Cgroup, work: impl FnOnce() -> u8) -> Verdict<(PidFd, u8)> {
    let (r, w) = dockless::sys::fd::pipe()?;
    match process::clone_child(&SingleThreaded::prove()?, 0, cgroup.clone_into())? {
        Fork::Child => {
            let files: Vec<_> = cgroup.join_files().iter().map(AsFd::as_fd).collect();
            let joined = cgroup::join_self(&files).is_ok();
            let said = if joined { work() } else { 255 };
            let _ = nix::unistd::write(&w, &[said]);
            loop {
                nix::unistd::pause();
            }
        }
        Fork::Parent { pidfd, .. } => {
            drop(w);
            let mut said = [0];
            nix::unistd::read(&r, &mut said)?;
            Ok((pidfd, said[0]))
        }
    }
}

fn a_v2_cgroup_holds_freezes_and_kills() -> Verdict {
    let (_, folders, cgroup) = make_cgroup()?;
    let (child, said) = member(&cgroup, || {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        u8::try_from(own.matches("/dockless-test-").count()).unwrap()
    })?;
    assert_eq!(usize::from(said), folders.len());
    let again = Cgroup::open(&folders)?;
    again.freeze(true)?;
    again.freeze(false)?;
    again.freeze(true)?;
    assert_eq!(child.wait(false)?, None);
    again.kill()?;
    assert_eq!(child.wait(true)?, Some(ExitStatus::Signal(libc::SIGKILL)));
    again.freeze(false)?;
    again.kill()?;
    cgroup::remove(&folders)?;
    assert!(folders.iter().all(|f| !f.exists()));
    cgroup::remove(&folders)?;
    Ok(())
}

/// One bit per device that may not be opened, made or used.
fn refused_devices() -> u8 {
    let denied = |path: &str| {
        open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).err() == Some(Errno::EPERM)
    };
    let folder = std::env::var("TMPDIR").unwrap();
    let make = |name: &str, kind, major, minor| {
        let path = format!("{folder}/{name}");
        let dev = nix::sys::stat::makedev(major, minor);
        nix::sys::stat::mknod(&*path, kind, Mode::S_IRUSR, dev)
            .map(|()| path)
            .ok()
    };
    use nix::sys::stat::SFlag;
    let mut bits = 0;
    for (bit, allowed) in ["/dev/null", "/dev/urandom", "/dev/full", "/dev/ptmx"]
        .into_iter()
        .enumerate()
    {
        bits |= u8::from(denied(allowed)) << bit;
    }
    // kmsg 1:11, tty1 4:1, loop0 7:0, fuse 10:229: mknod works, opening does
    // not. tun (10:200) is one of Docker's.
    for (kind, major, minor, refused) in [
        (SFlag::S_IFCHR, 1, 11, true),
        (SFlag::S_IFCHR, 4, 1, true),
        (SFlag::S_IFBLK, 7, 0, true),
        (SFlag::S_IFCHR, 5, 3, true),
        (SFlag::S_IFCHR, 10, 1, true),
        (SFlag::S_IFCHR, 10, 229, true),
        (SFlag::S_IFBLK, 10, 200, true),
        (SFlag::S_IFCHR, 10, 200, false),
    ] {
        let Some(path) = make(&format!("d{major}-{minor}"), kind, major, minor) else {
            return 254;
        };
        if denied(&path) != refused {
            return 253;
        }
        fs::remove_file(path).unwrap();
    }
    bits
}

fn a_cgroup_rules_devices() -> Verdict {
    need_root()?;
    let (_, folders, cgroup) = make_cgroup()?;
    let (child, said) = member(&cgroup, refused_devices)?;
    cgroup.kill()?;
    child.wait(true)?;
    cgroup::remove(&folders)?;
    assert_eq!(said, 0);
    Ok(())
}

/// On a hybrid machine the v1 list rules; the BPF program is tested alone.
fn the_device_program_rules_as_the_v1_list_does() -> Verdict {
    need_root()?;
    let all = Hierarchies::detect()?.unified_only();
    let id = format!("bpf-{}", nix::unistd::getpid());
    let folders = all.folders(&id);
    let Some(cgroup) = all.create(&id)? else {
        return skipped("no unified hierarchy");
    };
    let (child, said) = member(&cgroup, refused_devices)?;
    cgroup.kill()?;
    child.wait(true)?;
    cgroup::remove(&folders)?;
    assert_eq!(said, 0);
    Ok(())
}

fn cgroups_are_removed_with_what_runs_in_them() -> Verdict {
    let (_, folders, cgroup) = make_cgroup()?;
    let mut children = Vec::new();
    for _ in 0..5 {
        children.push(member(&cgroup, || 0)?.0);
    }
    let start = Instant::now();
    cgroup::remove(&folders)?;
    assert!(start.elapsed() < patience(1));
    assert!(folders.iter().all(|f| !f.exists()));
    for child in children {
        assert_eq!(child.wait(true)?, Some(ExitStatus::Signal(libc::SIGKILL)));
    }
    Ok(())
}
