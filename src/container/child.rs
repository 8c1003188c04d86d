//! The child between clone3 and execve, a typed order of stages.
//!
//! # Theory of operation
//! Each stage is a type that only the stage before makes, so that a program
//! cannot be run with a step left out:
//!
//! | stage | should | must not |
//! |---|---|---|
//! | [`born`] | close every inherited file but those named, leave the session, join the cgroup, take the host name | open host paths it will not close |
//! | [`Built`] | mount everything that needs no network, through fds under the new root | follow links out of the root |
//! | [`Inside`] | join the network namespace by fd, mount /sys, pivot, let go of the host; or, for `exec`, join a running container's namespaces | keep a folder of the host open |
//! | [`Limited`] | streams, working directory, bounding set, groups, gid, uid | change uid before the bounding set is cut (CAP_SETPCAP goes with it) |
//! | [`Filtered`] | the AppArmor profile of the exec to come, seccomp, then the capabilities that stay; report Ready, wait for Go, exec | do anything that the filter forbids |
//!
//! *The filter before the last capset*: without no_new_privs, which Docker
//! leaves off, seccomp(2) wants CAP_SYS_ADMIN. So it is the one capability
//! that a program must not have and that is kept for the filter's sake. capset
//! is allowed by the filter.
//!
//! The child is a copy of a process with one thread, so it may allocate; it
//! must never return into its caller's code.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid, chdir, fchown, sethostname};

use super::profile::capabilities;
use super::program::{self, cannot_run};
use super::rootfs::{INIT, Rootfs};
use super::spec::{LaunchSpec, ProcessSpec};
use super::sync::ChildEnd;
use super::tty::{self, Pty};
use super::user::{self, Identity};
use crate::base::{Error, Result, Subject};
use crate::sys::cap::{self, Set};
use crate::sys::cgroup::{self, Cgroup};
use crate::sys::netns::Netns;
use crate::sys::process::{self, PidFd};
use crate::sys::{apparmor, features, mount::Rooted, seccomp};

/// Where the program's standard streams come from.
#[derive(Debug)]
pub(super) enum Streams {
    /// Standard input, output and error; without one: the container's
    /// /dev/null.
    Files([Option<OwnedFd>; 3]),
    Terminal,
}

impl Streams {
    fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let files = match self {
            Self::Files(files) => &files[..],
            Self::Terminal => &[],
        };
        files.iter().flatten().map(AsFd::as_fd)
    }
}

/// The container's first process.
pub(super) fn launch(
    end: &ChildEnd,
    spec: &LaunchSpec,
    cgroup: Option<&Cgroup>,
    streams: Streams,
) -> Result<Infallible> {
    born(end, cgroup, &streams, &[])?;
    if has_cgroup_namespace(cgroup) {
        // By the child itself: clone3 would take the parent's cgroup as the
        // namespace's root.
        unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|e| fail("create cgroup namespace", e))?;
    }
    sethostname(&spec.hostname)
        .map_err(|e| Error::sys("set host name", spec.hostname.as_str(), e))?;
    let inside = Built::new(spec, &streams)?.enter(end, cgroup)?;
    let first = first_process(spec);
    let user = user::lookup(&first.user)?;
    let filtered = inside.limit(&first, user, streams)?.filter(&first)?;
    // Changing the user id has cleared any earlier one.
    process::die_with_parent(libc::SIGKILL)?;
    let signals = match spec.rootfs.init {
        Some(_) => Signals::Blocked,
        None => Signals::Default,
    };
    Err(filtered.run(end, &first, signals))
}

/// Pid 1: the program itself, or with `--init` the one that runs it.
fn first_process(spec: &LaunchSpec) -> ProcessSpec {
    let mut first = spec.process.clone();
    if spec.rootfs.init.is_some() {
        first.argv.splice(..0, [INIT.to_owned(), "--".to_owned()]);
    }
    first
}

/// A further process of a running container. Its pid namespace is already
/// that of `init`.
pub(super) fn exec(
    end: &ChildEnd,
    init: &PidFd,
    cgroup: Option<&Cgroup>,
    spec: &ProcessSpec,
    streams: Streams,
) -> Result<Infallible> {
    born(end, cgroup, &streams, &[init.as_fd()])?;
    let inside = Inside::join(init, cgroup, spec, &streams)?;
    // Docker's code for it is that of a program that cannot be run.
    let user = user::lookup(&spec.user).map_err(|e| cannot_run(Errno::EINVAL, e.to_string()))?;
    let filtered = inside.limit(spec, user, streams)?.filter(spec)?;
    Err(filtered.run(end, spec, Signals::Default))
}

/// As in Docker: on v2. Elsewhere, and without a cgroup of its own, it would
/// hide nothing.
fn has_cgroup_namespace(cgroup: Option<&Cgroup>) -> bool {
    cgroup.is_some() && features::cgroup_v2_only()
}

fn fail(op: &'static str, errno: Errno) -> Error {
    Error::sys(op, Subject::None, errno)
}

fn born(
    end: &ChildEnd,
    cgroup: Option<&Cgroup>,
    streams: &Streams,
    more: &[BorrowedFd<'_>],
) -> Result<()> {
    let tasks: Vec<_> = cgroup
        .map_or(&[][..], Cgroup::join_files)
        .iter()
        .map(AsFd::as_fd)
        .collect();
    let mut keep = vec![end.as_fd()];
    keep.extend(streams.fds().chain(tasks.iter().copied()));
    keep.extend(more);
    process::close_all_except(&keep)?;
    process::umask(0);
    cgroup::join_self(&tasks)?;
    process::new_session()
}

/// A root file system of which nobody's `/` is the root yet.
struct Built {
    rootfs: Rootfs,
    terminal: Option<Pty>,
}

impl Built {
    fn new(spec: &LaunchSpec, streams: &Streams) -> Result<Self> {
        let rootfs = Rootfs::build(&spec.rootfs, &spec.process.cwd)?;
        let terminal = match streams {
            Streams::Terminal => {
                let pty = open_pty(&rootfs.devpts()?, &spec.process)?;
                rootfs.console(&pty.slave)?;
                Some(pty)
            }
            Streams::Files(_) => None,
        };
        Ok(Self { rootfs, terminal })
    }

    fn enter(self, end: &ChildEnd, cgroup: Option<&Cgroup>) -> Result<Inside> {
        Netns::from_fd(end.take_netns()?)?.enter()?;
        self.rootfs.mount_sys(cgroup.map_or(&[], Cgroup::folders))?;
        self.rootfs.enter()?;
        // As Docker; a parent with another value leaves it where it may not
        // be lowered.
        let _ = std::fs::write("/proc/self/oom_score_adj", "0");
        Ok(Inside {
            terminal: self.terminal,
            rights: capabilities(cgroup),
        })
    }
}

fn open_pty(devpts: &Rooted, spec: &ProcessSpec) -> Result<Pty> {
    let pty = Pty::open(devpts.as_fd())?;
    if let Some(size) = spec.size {
        tty::set_size(pty.master.as_fd(), size)?;
    }
    Ok(pty)
}

/// In the container, still with every right.
struct Inside {
    terminal: Option<Pty>,
    /// Those that the program may have.
    rights: Set,
}

impl Inside {
    fn join(
        init: &PidFd,
        cgroup: Option<&Cgroup>,
        spec: &ProcessSpec,
        streams: &Streams,
    ) -> Result<Self> {
        let mut all = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWIPC;
        // Otherwise it is the machine's, which only the machine's root may join.
        if has_cgroup_namespace(cgroup) {
            all |= CloneFlags::CLONE_NEWCGROUP;
        }
        if features::time_namespaces() {
            all |= CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
        }
        setns(init, all).map_err(|e| fail("join the container's namespaces", e))?;
        let terminal = match streams {
            Streams::Terminal => {
                let root = Rooted::root(Path::new("/"))?;
                Some(open_pty(&root.open(Path::new("/dev/pts"))?, spec)?)
            }
            Streams::Files(_) => None,
        };
        Ok(Self {
            terminal,
            rights: capabilities(cgroup),
        })
    }

    fn limit(self, spec: &ProcessSpec, user: Identity, streams: Streams) -> Result<Limited> {
        self.set_streams(streams, user.uid)?;
        let early = chdir(spec.cwd.as_str());
        cap::limit_bounding(self.rights)?;
        process::become_user(user.uid, user.gid, &user.groups)?;
        cap::set(self.rights | Set::SYS_ADMIN)?;
        // A folder may be closed to root and open to the user (NFS), or the
        // other way round.
        early
            .or_else(|_| chdir(spec.cwd.as_str()))
            .map_err(|e| program::no_cwd(&spec.cwd, e))?;
        process::umask(0o022);
        Ok(Limited {
            home: user.home,
            master: self.terminal.map(|pty| pty.master),
            rights: self.rights,
        })
    }

    fn set_streams(&self, streams: Streams, uid: u32) -> Result<()> {
        let null = || {
            open(
                "/dev/null",
                OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC,
                Mode::empty(),
            )
            .map_err(|e| Error::sys("open in the container", Path::new("/dev/null"), e))
        };
        match (streams, &self.terminal) {
            (_, Some(pty)) => {
                own(&pty.slave, uid)?;
                tty::make_controlling(pty.slave.as_fd())?;
                let slave = pty.slave.as_fd();
                process::dup2_std(slave, slave, slave)
            }
            (Streams::Files(files), None) => {
                let null = files.iter().any(Option::is_none).then(null).transpose()?;
                let or_null = |file: &'_ Option<OwnedFd>| {
                    // One of the two is there.
                    let file = file.as_ref().or(null.as_ref());
                    let file = file.ok_or_else(|| fail("duplicate stream", Errno::EBADF))?;
                    crate::sys::fd::duplicate(file.as_fd())
                };
                let [stdin, stdout, stderr] = [
                    or_null(&files[0])?,
                    or_null(&files[1])?,
                    or_null(&files[2])?,
                ];
                for stream in files.iter().flatten() {
                    own(stream, uid)?;
                }
                process::dup2_std(stdin.as_fd(), stdout.as_fd(), stderr.as_fd())
            }
            (Streams::Terminal, None) => Err(Error::state(
                "open terminal",
                Subject::None,
                "the container has none",
            )),
        }
    }
}

/// Pipes and terminals belong to the user of the program, so that it may open
/// /dev/stdout once more. Files of the caller's are left alone.
fn own(stream: impl AsFd, uid: u32) -> Result<()> {
    if uid == 0 {
        return Ok(());
    }
    let stat = fstat(&stream).map_err(|e| fail("stat stream", e))?;
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let pts = kind == SFlag::S_IFCHR && nix::sys::stat::major(stat.st_rdev) == 136;
    if kind != SFlag::S_IFIFO && !pts {
        return Ok(());
    }
    match fchown(&stream, Some(Uid::from_raw(uid)), None::<Gid>) {
        // Somebody else's pipe or an unmapped user, in a user namespace.
        Err(Errno::EPERM | Errno::EROFS | Errno::EINVAL) => Ok(()),
        other => other.map_err(|e| fail("hand over stream", e)),
    }
}

/// The user's, with no more capabilities than the user may have, and the one
/// that installing the filter takes.
struct Limited {
    home: String,
    master: Option<OwnedFd>,
    rights: Set,
}

impl Limited {
    fn filter(self, spec: &ProcessSpec) -> Result<Filtered> {
        apparmor::confine_exec()?;
        if spec.no_new_privs {
            process::no_new_privs()?;
        }
        seccomp::install()?;
        cap::set(self.rights)?;
        Ok(Filtered(self))
    }
}

/// What the program finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Signals {
    Default,
    /// `--init` reads them from a signalfd. One that comes before it has come
    /// so far must wait for it: the kernel drops what pid 1 does not handle.
    Blocked,
}

/// Nothing left to give up: may run the program.
struct Filtered(Limited);

impl Filtered {
    /// Comes back only with the reason why not.
    fn run(self, end: &ChildEnd, spec: &ProcessSpec, signals: Signals) -> Error {
        self.ready(end, spec, signals)
            .map_or_else(|e| e, |never| match never {})
    }

    fn ready(self, end: &ChildEnd, spec: &ProcessSpec, signals: Signals) -> Result<Infallible> {
        let Self(Limited { home, master, .. }) = self;
        let mut env = spec.env.clone();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={home}"));
        }
        let argv = program::c_strings(&spec.argv)?;
        let env = program::c_strings(&env)?;
        process::reset_signals()?;
        if signals == Signals::Blocked {
            process::block_signals()?;
        }
        end.ready(master.as_ref().map(AsFd::as_fd))?;
        end.await_go()?;
        Err(program::execute(&spec.argv[0], &argv, &env, &spec.env))
    }
}
