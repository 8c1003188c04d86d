//! Runs a command and, at a chosen system call of a chosen process, makes the
//! call fail or kills.
//!
//! # Theory of operation
//! `strace -f -e inject=CALL:when=N` counts the calls of each process apart:
//! its N-th `openat` of the *supervisor* cannot be had without that of the
//! command before it, so most of the supervisor would never be reached. Hence
//! this small tracer on the same ptrace(2). It knows the processes by their
//! [`Role`] and counts, per role, the calls that [`calls`](super::calls)
//! selects.
//!
//! A shell waits for a line, is seized, and only then executes the command:
//! no code of ours runs between fork and exec. Children are seized by the
//! kernel at birth. A supervisor that runs already can be seized too, so that
//! both sides of `stop` or `network connect` are in reach.
//!
//! *Error*: at entry the call's number is replaced by one that does not
//! exist, so it has no effect; at exit its result by the error. *Kill*:
//! SIGKILL at entry; the kernel then does not carry the call out. So a kill at
//! call N is a kill anywhere between the effects of N - 1 and N.
//!
//! The container's program itself is let go of at its exec. When the command
//! has ended and nothing has happened for a moment, so is the supervisor.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::calls::{self, Call};
use crate::harness::{Verdict, failed};
use crate::judge::{self, Answer};

/// Nothing happens for so long after the command's end: it is all done.
const QUIET: Duration = Duration::from_millis(8);
/// Nothing that is tested takes so long, not even where many make and remove
/// network namespaces at the same time, which the kernel does one by one.
const LIMIT: Duration = Duration::from_secs(100);

/// Which process of a command, by descent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Command,
    Supervisor,
    /// The container's first process, until its exec.
    First,
    /// Further processes and threads.
    Other,
}

impl Role {
    fn child(self) -> Self {
        match self {
            Self::Command => Self::Supervisor,
            Self::Supervisor => Self::First,
            Self::First | Self::Other => Self::Other,
        }
    }
}

/// What is done at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Error(Errno),
    /// Kills the process that makes the call.
    Kill,
    /// Kills the command and the supervisor, wherever each of them is.
    KillBoth,
}

/// The `nth` selected call (from 1) of a role; with a name, of that name only:
/// what happens at its own time (output, announcements) shifts fewer of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) role: Role,
    pub(crate) call: Option<&'static str>,
    pub(crate) nth: usize,
    pub(crate) fault: Fault,
}

/// `Supervisor:recvfrom:22`.
impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, nth, .. } = self;
        write!(f, "{role:?}:{}:{nth}", self.call.unwrap_or("*"))
    }
}

/// One selected call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) role: Role,
    pub(crate) call: &'static str,
    /// Its path, if it has one.
    pub(crate) path: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {} {}",
            self.role,
            self.call,
            without_ids(&self.path)
        )
    }
}

/// Container ids are long, and different each time.
fn without_ids(path: &str) -> String {
    let is_id = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    path.split_inclusive(['/', '-', '.'])
        .map(|part| match part.get(..64) {
            Some(word) if is_id(word) => format!("ID{}", &part[64..]),
            _ => part.to_owned(),
        })
        .collect()
}

/// A traced run.
#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) answer: Answer,
    /// Every selected call, in order.
    pub(crate) steps: Vec<Step>,
    /// Where the fault was; `None`: the role makes fewer calls.
    pub(crate) hit: Option<Step>,
}

/// What is run and watched.
pub(crate) struct Traced<'a> {
    pub(crate) argv: &'a [&'a str],
    /// A supervisor that runs already.
    pub(crate) supervisor: Option<Pid>,
    pub(crate) selects: &'a dyn Fn(&Call) -> bool,
}

struct Tracee {
    role: Role,
    /// To be put in the place of the call's result.
    failing: Option<Errno>,
    /// Calls are counted: it has executed the command.
    counted: bool,
}

struct Tracer<'a> {
    traced: &'a Traced<'a>,
    point: Option<Point>,
    tracees: BTreeMap<Pid, Tracee>,
    /// Calls that the point could have been, across the processes of a role.
    count: usize,
    steps: Vec<Step>,
    hit: Option<Step>,
    command: Pid,
    status: Option<Option<i32>>,
}

impl Traced<'_> {
    /// Runs the command to its end, with the fault if the point is reached.
    pub(crate) fn run(&self, point: Option<Point>) -> Verdict<Trace> {
        let out = format!("{}/traced", std::env::var("TMPDIR")?);
        let (stdout, stderr) = (format!("{out}.out"), format!("{out}.err"));
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read -r line; exec \"$0\" \"$@\" < /dev/null"])
            .args(self.argv)
            .stdin(Stdio::piped())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()?;
        let mut tracer = Tracer {
            traced: self,
            point,
            tracees: BTreeMap::new(),
            count: 0,
            steps: Vec::new(),
            hit: None,
            command: Pid::from_raw(i32::try_from(child.id())?),
            status: None,
        };
        tracer.begin(&mut child)?;
        tracer.follow()?;
        Ok(Trace {
            answer: Answer {
                command: self.argv.join(" "),
                code: tracer.status.flatten(),
                stdout: fs::read_to_string(&stdout)?,
                stderr: fs::read_to_string(&stderr)?,
            },
            steps: tracer.steps,
            hit: tracer.hit,
        })
    }
}

/// A call that fails because the process has just been killed is fine.
fn unless_gone(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}

impl Tracer<'_> {
    fn begin(&mut self, child: &mut Child) -> Verdict {
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(self.command, options)?;
        self.add(self.command, Role::Command, false);
        if let Some(pid) = self.traced.supervisor {
            ptrace::seize(pid, options)?;
            ptrace::interrupt(pid)?;
            self.add(pid, Role::Supervisor, true);
            // The first thing that the command meets is one that is watched.
            self.stopped(waitpid(pid, Some(WaitPidFlag::__WALL))?)?;
        }
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(b"\n")?;
        }
        Ok(())
    }

    fn add(&mut self, pid: Pid, role: Role, counted: bool) {
        self.tracees.insert(
            pid,
            Tracee {
                role,
                failing: None,
                counted,
            },
        );
    }

    /// Until the command has ended and the others are quiet.
    fn follow(&mut self) -> Verdict {
        let begun = Instant::now();
        let mut last = Instant::now();
        let any = Pid::from_raw(-1);
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        while !self.tracees.is_empty() {
            match waitpid(any, Some(flags)) {
                Ok(WaitStatus::StillAlive) => {
                    if self.status.is_some() && last.elapsed() > QUIET {
                        return self.let_go();
                    }
                    if begun.elapsed() > LIMIT {
                        return self.hangs();
                    }
                    sleep(Duration::from_micros(30));
                }
                Ok(status) => {
                    last = Instant::now();
                    self.stopped(status)?;
                }
                Err(Errno::ECHILD) => return Ok(()),
                Err(errno) => return failed(format!("waitpid: {errno}")),
            }
        }
        Ok(())
    }

    fn stopped(&mut self, status: WaitStatus) -> Verdict {
        match status {
            WaitStatus::Exited(pid, code) => self.ended(pid, Some(code)),
            WaitStatus::Signaled(pid, ..) => self.ended(pid, None),
            WaitStatus::PtraceSyscall(pid) => self.call(pid)?,
            WaitStatus::PtraceEvent(pid, _, libc::PTRACE_EVENT_EXEC) => self.executed(pid)?,
            WaitStatus::PtraceEvent(pid, _, event) => {
                self.born(pid);
                self.gave_birth(pid, event)?;
                self.resume(pid, None)?;
            }
            WaitStatus::Stopped(pid, signal) => {
                self.born(pid);
                self.resume(pid, signal)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, pid: Pid, code: Option<i32>) {
        self.tracees.remove(&pid);
        if pid == self.command {
            self.status = Some(code);
        }
    }

    /// The shell is followed without its calls until it executes the command.
    fn resume(&self, pid: Pid, signal: impl Into<Option<Signal>>) -> Verdict {
        let signal = signal.into();
        let counted = self.tracees.get(&pid).is_some_and(|t| t.counted);
        unless_gone(if counted {
            ptrace::syscall(pid, signal)
        } else {
            ptrace::cont(pid, signal)
        })?;
        Ok(())
    }

    fn executed(&mut self, pid: Pid) -> Verdict {
        if pid == self.command {
            // The shell may have been seized in its own execve.
            let program = fs::read_link(format!("/proc/{pid}/exe"));
            let is_ours = program.is_ok_and(|p| p == judge::dockless());
            if let Some(tracee) = self.tracees.get_mut(&pid) {
                tracee.counted = is_ours;
            }
            return self.resume(pid, None);
        }
        self.tracees.remove(&pid);
        unless_gone(ptrace::detach(pid, None))?;
        Ok(())
    }

    /// A process that is seen for the first time: by its parent, or as a
    /// thread by its process.
    fn born(&mut self, pid: Pid) {
        if self.tracees.contains_key(&pid) {
            return;
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name))?;
            Some(Pid::from_raw(line.trim().parse().ok()?))
        };
        let is_thread = field("Tgid:").is_some_and(|tgid| tgid != pid);
        let parent = field("PPid:").and_then(|p| self.tracees.get(&p));
        let role = match (is_thread, parent) {
            (true, _) | (_, None) => Role::Other,
            (_, Some(parent)) => parent.role.child(),
        };
        self.add(pid, role, true);
    }

    /// From now on the child is waited for, whoever is let go of meanwhile: it
    /// would stay stopped for ever.
    fn gave_birth(&mut self, parent: Pid, event: i32) -> Verdict {
        let births = [
            libc::PTRACE_EVENT_FORK,
            libc::PTRACE_EVENT_VFORK,
            libc::PTRACE_EVENT_CLONE,
        ];
        if births.contains(&event)
            && let Ok(child) = ptrace::getevent(parent)
        {
            self.born(Pid::from_raw(i32::try_from(child)?));
        }
        Ok(())
    }

    /// Entry to or exit from a system call.
    fn call(&mut self, pid: Pid) -> Verdict {
        const EXIT: u8 = 2; // PTRACE_SYSCALL_INFO_EXIT
        let result = match ptrace::syscall_info(pid) {
            Ok(info) if info.op == EXIT => self.exit(pid),
            Ok(_) => self.entry(pid),
            Err(errno) => Err(errno),
        };
        unless_gone(result)?;
        self.resume(pid, None)
    }

    fn exit(&mut self, pid: Pid) -> nix::Result<()> {
        if let Some(tracee) = self.tracees.get_mut(&pid)
            && let Some(errno) = tracee.failing.take()
        {
            let mut regs = ptrace::getregs(pid)?;
            regs.rax = (-i64::from(errno as i32)).cast_unsigned();
            ptrace::setregs(pid, regs)?;
        }
        Ok(())
    }

    fn entry(&mut self, pid: Pid) -> nix::Result<()> {
        let mut regs = ptrace::getregs(pid)?;
        let Some(call) = calls::find(&regs) else {
            return Ok(());
        };
        let Some(tracee) = self.tracees.get_mut(&pid) else {
            return Ok(());
        };
        if !(self.traced.selects)(&call) {
            return Ok(());
        }
        let role = tracee.role;
        let step = Step {
            role,
            call: call.name,
            path: call.path.map_or_else(String::new, |at| text(pid, at)),
        };
        let may_be = |p: &Point| p.role == role && p.call.is_none_or(|name| name == call.name);
        let point = self.point.filter(may_be);
        self.count += usize::from(point.is_some());
        if let Some(point) = point.filter(|p| p.nth == self.count) {
            self.hit = Some(step.clone());
            match point.fault {
                Fault::Error(errno) => {
                    regs.orig_rax = u64::MAX;
                    ptrace::setregs(pid, regs)?;
                    tracee.failing = Some(errno);
                }
                Fault::Kill => kill(pid, Signal::SIGKILL)?,
                Fault::KillBoth => {
                    for (pid, tracee) in &self.tracees {
                        if matches!(tracee.role, Role::Command | Role::Supervisor) {
                            kill(*pid, Signal::SIGKILL)?;
                        }
                    }
                }
            }
        }
        self.steps.push(step);
        Ok(())
    }

    /// Leaves those that go on (a supervisor) as they are.
    fn let_go(&mut self) -> Verdict {
        for pid in self.tracees.keys() {
            unless_gone(ptrace::interrupt(*pid))?;
        }
        let begun = Instant::now();
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        while !self.tracees.is_empty() {
            // Of anybody: a dead process is not reaped before its threads are,
            // and one that was born meanwhile is ours, too.
            let (pid, signal) = match waitpid(Pid::from_raw(-1), Some(flags)) {
                Ok(WaitStatus::StillAlive) if begun.elapsed() > LIMIT => return self.hangs(),
                Ok(WaitStatus::StillAlive) => {
                    sleep(Duration::from_micros(30));
                    continue;
                }
                Ok(WaitStatus::Stopped(pid, signal)) => (pid, Some(signal)),
                // An interrupted system call may show as its exit instead.
                Ok(WaitStatus::PtraceSyscall(pid)) => {
                    unless_gone(self.exit(pid))?;
                    (pid, None)
                }
                Ok(WaitStatus::PtraceEvent(pid, _, event)) => {
                    self.gave_birth(pid, event)?;
                    (pid, None)
                }
                Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) => (pid, None),
                Ok(_) => continue,
                Err(Errno::ECHILD) => break,
                Err(errno) => return failed(format!("waitpid: {errno}")),
            };
            unless_gone(ptrace::detach(pid, signal))?;
            self.tracees.remove(&pid);
        }
        Ok(())
    }

    fn hangs(&mut self) -> Verdict {
        let names: Vec<String> = self
            .tracees
            .iter()
            .map(|(pid, t)| {
                let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
                format!("{:?} {pid} in {call}", t.role)
            })
            .collect();
        for pid in self.tracees.keys() {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        failed(format!(
            "{}: hangs: {}",
            self.traced.argv.join(" "),
            names.join(", ")
        ))
    }
}

/// A string in a tracee's memory.
fn text(pid: Pid, at: u64) -> String {
    let mut bytes = [0; 256];
    let read = File::open(format!("/proc/{pid}/mem")).and_then(|f| f.read_at(&mut bytes, at));
    let length = read.unwrap_or_default();
    let end = bytes[..length].iter().position(|b| *b == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(length)]).into_owned()
}

/// The supervisor of a running container: the parent of its first process.
pub(crate) fn supervisor_of(container: &str) -> Verdict<Pid> {
    let program = judge::dockless().to_string_lossy();
    let answer =
        judge::run(&[&program, "inspect", "-f", "{{.State.Pid}}", container])?.success()?;
    let status = fs::read_to_string(format!("/proc/{}/status", answer.stdout.trim()))?;
    let parent = status.lines().find_map(|l| l.strip_prefix("PPid:"));
    Ok(Pid::from_raw(parent.unwrap_or_default().trim().parse()?))
}
