//! Processes by pidfd, clone3 and the proof that a process has one thread;
//! and what a process does to itself on its way to another program.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::{features, raw};
use crate::base::{Error, Result, Subject};

fn fail(op: &'static str, errno: Errno) -> Error {
    Error::sys(op, Subject::None, errno)
}

/// Proof that this process had one thread when asked: forking with a second
/// one around could copy a lock in its locked state.
#[derive(Debug)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Waits a moment for joined threads: pthread_join returns shortly before
    /// the kernel has taken the thread out of the process.
    pub fn prove() -> Result<Self> {
        let give_up = Instant::now() + Duration::from_millis(200);
        loop {
            // One stat instead of reading a file: the kernel counts the
            // threads into the folder's links (2 + threads).
            let links = nix::sys::stat::stat("/proc/self/task")
                .map_err(|e| fail("count own threads", e))?
                .st_nlink;
            if links == 3 {
                return Ok(Self(()));
            }
            if Instant::now() > give_up {
                return Err(Error::state(
                    "count own threads",
                    Subject::None,
                    format!("{} threads run where one must", links.saturating_sub(2)),
                ));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    Code(i32),
    Signal(i32),
}

impl ExitStatus {
    /// Docker's number: the code, or 128 + the signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A child or another process, held by pidfd so that its pid cannot be reused
/// under us.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    pub fn open(pid: i32) -> Result<Self> {
        raw::pidfd_open(pid)
            .map(Self)
            .map_err(|e| Error::sys("open process", format!("{pid}"), e))
    }

    /// pidfd_send_signal(2). A process that is gone is not an error: Ok(false).
    pub fn signal(&self, signal: i32) -> Result<bool> {
        match raw::pidfd_send_signal(self.as_fd(), signal) {
            Ok(()) => Ok(true),
            Err(Errno::ESRCH) => Ok(false),
            Err(e) => Err(fail("signal process", e)),
        }
    }

    /// waitid(P_PIDFD, WEXITED): reaps a child. None with `block == false`
    /// when it still runs.
    pub fn wait(&self, block: bool) -> Result<Option<ExitStatus>> {
        loop {
            match raw::wait_pidfd(self.as_fd(), block) {
                Err(Errno::EINTR) => {}
                Err(e) => return Err(fail("wait for process", e)),
                Ok(None) => return Ok(None),
                Ok(Some((libc::CLD_EXITED, code))) => return Ok(Some(ExitStatus::Code(code))),
                Ok(Some((_, signal))) => return Ok(Some(ExitStatus::Signal(signal))),
            }
        }
    }

    /// Waits until the process has ended (a zombie has), for anybody's child;
    /// false when `timeout` passed first.
    pub fn ended(&self, timeout: Duration) -> Result<bool> {
        let end = Instant::now() + timeout;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let ms = left.as_nanos().div_ceil(1_000_000);
            let wait = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], wait) {
                Err(Errno::EINTR) => {}
                Err(e) => return Err(fail("watch process", e)),
                Ok(n) if n > 0 => return Ok(true),
                Ok(_) if left.is_zero() || wait != PollTimeout::MAX => return Ok(false),
                Ok(_) => {}
            }
        }
    }

    pub fn try_clone(&self) -> Result<Self> {
        self.0
            .try_clone()
            .map(Self)
            .map_err(|e| Error::sys("duplicate pidfd", Subject::None, e))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> Self {
        pidfd.0
    }
}

/// Which side of a fork the caller is on.
#[derive(Debug)]
pub enum Fork {
    Child,
    Parent { pid: i32, pidfd: PidFd },
}

/// clone3(2) without a shared address space. `namespaces` are CLONE_NEW*
/// bits; `into_cgroup` is a cgroup v2 folder (CLONE_INTO_CGROUP).
/// SIGCHLD is the exit signal, the pidfd is CLOEXEC.
pub fn clone_child(
    _token: &SingleThreaded,
    namespaces: u64,
    into_cgroup: Option<BorrowedFd<'_>>,
) -> Result<Fork> {
    match raw::clone3(namespaces, into_cgroup) {
        Ok(None) => Ok(Fork::Child),
        Ok(Some((pid, pidfd))) => Ok(Fork::Parent {
            pid,
            pidfd: PidFd(pidfd),
        }),
        Err(e) => {
            let error = fail("clone process", e);
            Err(
                match e == Errno::EPERM && !nix::unistd::geteuid().is_root() {
                    true => error.hint(features::NOT_ROOT),
                    false => error,
                },
            )
        }
    }
}

/// fork(2): a copy in the same namespaces that lives on by itself.
pub fn fork(_token: &SingleThreaded) -> Result<Fork> {
    match raw::fork() {
        Ok(None) => Ok(Fork::Child),
        // The pid stays ours until we reap it, so this cannot open another.
        Ok(Some(pid)) => Ok(Fork::Parent {
            pid,
            pidfd: PidFd::open(pid)?,
        }),
        Err(e) => Err(fail("fork", e)),
    }
}

/// close_range(2) on everything from 3 up except `keep`. Every other fd of
/// the process is dead afterwards: only for a child on its way to exec, and for
/// a process on its way to [`exit_now`].
pub fn close_all_except(keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut numbers: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .collect();
    numbers.sort_unstable();
    let mut first = 3;
    for fd in numbers {
        if fd > first {
            raw::close_range(first, fd - 1).map_err(|e| fail("close inherited files", e))?;
        }
        first = first.max(fd + 1);
    }
    raw::close_range(first, u32::MAX).map_err(|e| fail("close inherited files", e))
}

/// prctl(PR_SET_PDEATHSIG): this process dies with its parent. The caller
/// must check afterwards that the parent is still there.
pub fn die_with_parent(signal: i32) -> Result<()> {
    let signal = u64::try_from(signal).map_err(|_| fail("set death signal", Errno::EINVAL))?;
    raw::prctl(libc::PR_SET_PDEATHSIG, signal, 0)
        .map(drop)
        .map_err(|e| fail("set death signal", e))
}

/// execve(2); comes back only with the errno of its failure.
pub fn exec(path: &CStr, argv: &[CString], env: &[CString]) -> i32 {
    match nix::unistd::execve(path, argv, env) {
        Ok(never) => match never {},
        Err(e) => e as i32,
    }
}

/// Whether a process with the same capabilities may look into this one
/// (ptrace, /proc/PID/exe, /proc/PID/fd): PR_SET_DUMPABLE. exec turns it on.
pub fn set_visible(on: bool) -> Result<()> {
    nix::sys::prctl::set_dumpable(on).map_err(|e| fail("set dumpable", e))
}

/// prctl(PR_SET_NO_NEW_PRIVS)
pub fn no_new_privs() -> Result<()> {
    nix::sys::prctl::set_no_new_privs().map_err(|e| fail("set no_new_privs", e))
}

/// Becomes a user, groups first. The permitted capabilities stay (keepcaps;
/// exec turns that off), the effective ones are for
/// [`cap::set`](super::cap::set) to bring back; the death signal is cleared.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<()> {
    let hint = |error: Error, errno: Errno| match errno {
        Errno::EINVAL => error.hint("the user namespace does not map this id"),
        _ => error,
    };
    let fail =
        |op: &'static str, id: u32| move |e: Errno| hint(Error::sys(op, format!("{id}"), e), e);
    let groups: Vec<Gid> = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
    match nix::unistd::setgroups(&groups) {
        // An ordinary user's namespace may not drop groups (user_namespaces(7),
        // /proc/PID/setgroups): a group could be there to deny something.
        Err(Errno::EPERM) if features::in_user_namespace() => {}
        other => other.map_err(fail("set groups of group", gid))?,
    }
    if uid != 0 {
        nix::sys::prctl::set_keepcaps(true).map_err(|e| self::fail("keep capabilities", e))?;
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    nix::unistd::setresgid(group, group, group).map_err(fail("become group", gid))?;
    nix::unistd::setresuid(user, user, user).map_err(fail("become user", uid))
}

/// The process's name in `ps` and `/proc/PID/comm` (15 bytes of it).
pub fn set_name(name: &CStr) -> Result<()> {
    nix::sys::prctl::set_name(name).map_err(|e| fail("set process name", e))
}

/// Makes `stdin`, `stdout` and `stderr` the standard streams.
pub fn dup2_std(
    stdin: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
) -> Result<()> {
    let sources = [stdin, stdout, stderr];
    let mut moved: [Option<OwnedFd>; 3] = [None, None, None];
    // A source that is itself a standard stream would be overwritten before
    // its turn: first out of the way with it.
    for (to, from) in (0..).zip(sources) {
        let number = from.as_raw_fd();
        if number <= 2 && number != to {
            let copy = from
                .try_clone_to_owned()
                .map_err(|e| Error::sys("duplicate stream", Subject::None, e))?;
            moved[usize::try_from(to).unwrap_or(0)] = Some(copy);
        }
    }
    for ((to, from), moved) in (0..).zip(sources).zip(&moved) {
        let from = moved.as_ref().map_or(from, AsFd::as_fd);
        raw::dup2_std(from, to).map_err(|e| fail("set standard stream", e))?;
    }
    Ok(())
}

/// Makes the null device all three standard streams.
pub fn null_streams() -> Result<()> {
    let null = null()?;
    dup2_std(null.as_fd(), null.as_fd(), null.as_fd())
}

/// The same, but stderr stays.
pub fn null_input_and_output() -> Result<()> {
    let null = null()?;
    dup2_std(null.as_fd(), null.as_fd(), std::io::stderr().as_fd())
}

fn null() -> Result<std::fs::File> {
    std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .map_err(|e| Error::sys("open", "/dev/null", e))
}

/// Blocks every signal; gives back the mask that was.
pub fn block_signals() -> Result<SigSet> {
    SigSet::all()
        .thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_SETMASK)
        .map_err(|e| fail("block signals", e))
}

pub fn restore_signals(mask: &SigSet) -> Result<()> {
    mask.thread_set_mask()
        .map_err(|e| fail("restore signals", e))
}

/// Every signal at its default and none blocked, for a program that is about
/// to be executed. exec resets handlers by itself, but what is ignored
/// (SIGPIPE by Rust's runtime, SIGHUP by nohup) stays ignored.
pub fn reset_signals() -> Result<()> {
    raw::reset_signal_handlers();
    SigSet::empty()
        .thread_set_mask()
        .map_err(|e| fail("unblock signals", e))
}

/// What `ps` shows from now on, cut to the room there is: what was typed may
/// hold secrets (`-e`), and everybody may read it as long as the process lives.
/// Written where the arguments are (proc(5), `/proc/pid/stat`, arg_start);
/// moving them elsewhere would need CAP_SYS_RESOURCE.
pub fn set_title(title: &str) -> Result<()> {
    let fail = |e: std::io::Error| Error::sys("set title of", "/proc/self/mem", e);
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(fail)?;
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    // The third field is the first behind the name.
    let field = |number: usize| {
        let text = fields.split_ascii_whitespace().nth(number - 3);
        text.and_then(|text| text.parse::<u64>().ok())
    };
    let (Some(start), Some(end)) = (field(48), field(49)) else {
        return Err(Error::parse(
            "set title of",
            "/proc/self/stat",
            "no arg_start",
        ));
    };
    let room = usize::try_from(end.saturating_sub(start)).unwrap_or(0);
    let mut bytes = title.as_bytes().to_vec();
    // The last byte ends the last argument.
    bytes.truncate(room.saturating_sub(1));
    bytes.resize(room, 0);
    let memory = std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/mem")
        .map_err(fail)?;
    memory.write_all_at(&bytes, start).map_err(fail)
}

/// A new session, without a controlling terminal.
pub fn new_session() -> Result<()> {
    nix::unistd::setsid()
        .map(drop)
        .map_err(|e| fail("create session", e))
}

/// Sets the file mode creation mask; gives back the one that was.
pub fn umask(mask: u32) -> u32 {
    nix::sys::stat::umask(Mode::from_bits_truncate(mask)).bits()
}

/// Ends this process now: no exit handlers, no flushing of inherited buffers.
/// The only right exit for a forked child that does not exec.
pub fn exit_now(code: i32) -> ! {
    raw::exit_now(code)
}

/// Gives back the memory that a process at rest does not need: free heap and
/// the dead part of the main thread's stack. Its code and constants are
/// [`Epoll::wait_at_rest`](super::epoll::Epoll::wait_at_rest)'s.
pub fn shrink() {
    raw::fault_around(&raw::read_only_segments(), None);
    // First: it needs heap and stack itself.
    let bottom = main_stack_bottom();
    raw::malloc_trim();
    if let Some(bottom) = bottom {
        raw::forget_stack_below(bottom);
    }
}

/// From now on those pages of the program alone are mapped that it uses, and the
/// one beside each: for a process that does the same small thing again and
/// again. Until [`shrink`]. It takes a millisecond, and some six hundred
/// mappings in the kernel.
pub fn map_sparsely() {
    const FEW: usize = 2;
    let segments = raw::read_only_segments();
    raw::fault_around(&segments, Some(FEW));
    raw::forget_read_only(&segments);
}

/// Lowest mapped address of the main thread's stack, if that is the caller.
fn main_stack_bottom() -> Option<usize> {
    if nix::unistd::gettid() != nix::unistd::getpid() {
        return None;
    }
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().rfind(|l| l.ends_with("[stack]"))?;
    usize::from_str_radix(line.split('-').next()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> std::process::Child {
        std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap()
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "the pidfd reaps it")]
    fn a_pidfd_signals_reaps_and_tells_the_signal() {
        let child = sleeper();
        let pid = i32::try_from(child.id()).unwrap();
        let fd = PidFd::open(pid).unwrap();
        assert_eq!(fd.wait(false).unwrap(), None);
        assert!(!fd.ended(Duration::from_millis(1)).unwrap());
        assert!(fd.signal(34).unwrap());
        assert!(fd.ended(Duration::from_secs(5)).unwrap());
        // A real-time signal, which nix's waitid cannot express.
        assert_eq!(fd.wait(true).unwrap(), Some(ExitStatus::Signal(34)));
        assert!(!fd.signal(libc::SIGKILL).unwrap());
        assert!(fd.wait(false).unwrap_err().is_errno(libc::ECHILD));
    }

    #[test]
    fn a_test_thread_is_not_alone() {
        // libtest runs this on a second thread.
        assert!(SingleThreaded::prove().is_err());
    }

    #[test]
    fn shrinking_keeps_the_program_running() {
        let before: Vec<u64> = (0..1000).collect();
        shrink();
        assert_eq!(before.iter().sum::<u64>(), 499_500);
    }
}
