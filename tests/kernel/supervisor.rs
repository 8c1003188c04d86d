//! Kernel tests of the supervisor: log, exit record, attach, restart. The
//! supervisor runs in a forked process as the engine would start it; its
//! owner is a fake that writes down what it is asked, its container a shell.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Std};
use std::thread::sleep;
use std::time::{Duration, Instant};

use dockless::base::{Error, Result};
use dockless::container::attach::{Client, Relay};
use dockless::container::launch::{Running, Stdio};
use dockless::container::logs;
use dockless::container::supervisor::{self, Owner, Settings};
use dockless::sys::epoll::{Epoll, EpollFlags};
use dockless::sys::process::{self, ExitStatus, Fork, PidFd, SingleThreaded};
use dockless::sys::{fd, raw};
use serde_json::{Value, json};

use crate::harness::{Test, Verdict, need_root, patience, slow};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::new(output_reaches_log_and_clients_whole).limit_s(180),
        Test::new(input_reaches_the_program_whole).limit_s(120),
        Test::new(exit_status_comes_last_and_late_comers_are_told),
        Test::new(stop_waits_then_kills),
        Test::new(restart_keeps_clients),
        Test::new(failed_restart_is_the_end),
        Test::new(killed_clients_hurt_nobody),
        Test::new(stalled_observer_is_dropped_and_foreground_is_not),
        Test::new(input_that_nobody_reads_hides_no_signal),
        Test::new(signals_pass_the_relay),
        Test::new(a_reader_that_goes_lets_the_client_go),
        Test::new(terminal_has_size_and_detach_keys).needs(&["setsid", "stty"]),
        Test::new(pause_and_commands_go_to_the_owner),
        Test::new(malformed_messages_are_answered),
        Test::new(only_root_and_the_same_user_may_connect),
        Test::new(log_rotates_and_is_followed_to_the_end),
        Test::new(at_rest_it_sleeps_and_is_small),
    ]
}

// ---- the supervisor under test ----------------------------------------------

#[derive(Clone)]
struct Case {
    script: String,
    open_stdin: bool,
    tty: bool,
    stop_timeout_s: i64,
    log_max_size: Option<u64>,
    relaunch_fails: bool,
    /// Is there a client from the start?
    foreground: bool,
}

fn case(script: &str) -> Case {
    Case {
        script: script.to_owned(),
        open_stdin: false,
        tty: false,
        stop_timeout_s: 10,
        log_max_size: None,
        relaunch_fails: false,
        foreground: false,
    }
}

struct Up {
    // Deleted with it.
    _dir: tempfile::TempDir,
    live: PathBuf,
    log: PathBuf,
    calls: PathBuf,
    supervisor: PidFd,
    pid: i32,
    first: Option<Client>,
}

struct Fake {
    case: Case,
    calls: PathBuf,
    launches: u32,
}

impl Fake {
    fn note(&self, call: &str) {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(&self.calls)
            .unwrap();
        writeln!(file, "{call}").unwrap();
    }

    #[expect(clippy::zombie_processes, reason = "the supervisor reaps it")]
    fn launch(&mut self) -> Running {
        self.launches += 1;
        let mut command = Command::new("setsid");
        if self.case.tty {
            command.arg("--ctty");
        }
        command.args(["sh", "-c", &self.case.script]);
        command.env("LAUNCH", self.launches.to_string());
        if self.case.tty {
            let pty = nix::pty::openpty(None, None).unwrap();
            let slave = || Std::from(pty.slave.try_clone().unwrap());
            let child = command
                .stdin(slave())
                .stdout(slave())
                .stderr(slave())
                .spawn()
                .unwrap();
            return running(&child, Stdio::Tty(pty.master));
        }
        let stdin = if self.case.open_stdin {
            Std::piped()
        } else {
            Std::null()
        };
        let mut child = command
            .stdin(stdin)
            .stdout(Std::piped())
            .stderr(Std::piped())
            .spawn()
            .unwrap();
        let stdio = Stdio::Pipes {
            stdin: child.stdin.take().map(OwnedFd::from),
            stdout: child.stdout.take().unwrap().into(),
            stderr: child.stderr.take().unwrap().into(),
        };
        running(&child, stdio)
    }
}

fn running(child: &std::process::Child, stdio: Stdio) -> Running {
    let pid = i32::try_from(child.id()).unwrap();
    let pidfd = PidFd::open(pid).unwrap();
    Running { pid, pidfd, stdio }
}

impl Owner for Fake {
    fn register(&mut self, _epoll: &Epoll) -> Result<()> {
        self.note("register");
        Ok(())
    }
    fn ready(&mut self, _key: u64, _events: EpollFlags) -> Result<()> {
        Ok(())
    }
    fn deadline(&self) -> Option<Instant> {
        None
    }
    fn on_time(&mut self, _now: Instant) -> Result<()> {
        Ok(())
    }
    fn command(&mut self, verb: &str, body: Value, fds: Vec<OwnedFd>) -> Result<Value> {
        self.note(&format!("{verb} {body}"));
        match verb {
            "write" => {
                File::from(fds.into_iter().next().unwrap())
                    .write_all(b"from owner")
                    .unwrap();
                Ok(json!({"did": body}))
            }
            "big" => Ok(Value::String("x".repeat(100_000))),
            _ => Err(Error::invalid(format!("no {verb} here"))),
        }
    }
    fn exited(&mut self, status: ExitStatus, restart: bool) -> Result<()> {
        self.note(&format!("exited {} {restart}", status.code()));
        Ok(())
    }
    fn relaunch(&mut self) -> Result<Running> {
        if self.case.relaunch_fails {
            return Err(Error::invalid("cannot launch again"));
        }
        self.note("relaunch");
        Ok(self.launch())
    }
    fn not_relaunched(&mut self, why: &Error) -> ExitStatus {
        self.note(&format!("not relaunched: {why}"));
        ExitStatus::Code(128)
    }
    fn pause(&mut self, on: bool) -> Result<()> {
        self.note(&format!("pause {on}"));
        Ok(())
    }
    fn kill_all(&mut self) -> Result<()> {
        self.note("kill_all");
        Ok(())
    }
}

fn up(case: Case) -> Up {
    let dir = tempfile::tempdir().unwrap();
    // Longer than the path of a unix socket may be.
    let live = dir.path().join("x".repeat(120));
    fs::create_dir(&live).unwrap();
    let log = dir.path().join("c-json.log");
    let calls = dir.path().join("calls");
    let (ours, theirs) = fd::seqpacket_pair().unwrap();
    let foreground = case.foreground;
    let token = SingleThreaded::prove().unwrap();
    match process::fork(&token).unwrap() {
        Fork::Child => {
            process::new_session().unwrap();
            process::close_all_except(&[theirs.as_fd()]).unwrap();
            let settings = Settings {
                live,
                log,
                log_max_size: case.log_max_size,
                log_max_files: 3,
                tty: case.tty,
                open_stdin: case.open_stdin,
                stop_signal: libc::SIGTERM,
                stop_timeout_s: case.stop_timeout_s,
                first_client: foreground.then_some(theirs),
            };
            let mut owner = Fake {
                case,
                calls,
                launches: 0,
            };
            let running = owner.launch();
            let ended = supervisor::run(settings, running, &mut owner);
            if let Err(error) = &ended {
                eprintln!("supervisor: {error}");
            }
            process::exit_now(i32::from(ended.is_err()));
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            Up {
                _dir: dir,
                live,
                log,
                calls,
                supervisor: pidfd,
                pid,
                first: foreground.then(|| Client::from_pair(ours)),
            }
        }
    }
}

impl Up {
    fn connect(&self) -> Client {
        eventually("a control socket", || Client::connect(&self.live).unwrap())
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.calls).unwrap_or_default();
        text.lines().skip(1).map(str::to_owned).collect()
    }

    /// The supervisor's process has ended, and well.
    fn ended(&self) {
        assert_eq!(
            self.supervisor.wait(true).unwrap(),
            Some(ExitStatus::Code(0))
        );
        assert!(!self.live.join("sock").exists());
        assert!(Client::connect(&self.live).unwrap().is_none());
    }

    /// The log's stdout and stderr.
    fn logged(&self) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        logs::read(&self.log, &logs::Query::default(), None, &mut out, &mut err).unwrap();
        (
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    fn await_log(&self, text: &str) {
        let query = logs::Query {
            tail: Some(10),
            ..Default::default()
        };
        eventually(text, || {
            let mut out = Vec::new();
            logs::read(&self.log, &query, None, &mut out, &mut Vec::new()).unwrap();
            String::from_utf8(out).unwrap().contains(text).then_some(())
        });
    }
}

fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "no {what}");
        sleep(Duration::from_millis(5));
    }
}

const ALL: Relay = Relay {
    stdin: false,
    stdout: true,
    stderr: true,
    tty: false,
    sig_proxy: true,
    detach_keys: NO_KEYS,
};
const NO_KEYS: dockless::container::attach::DetachKeys =
    dockless::container::attach::DetachKeys::NONE;

/// What the relaying process exits with when it was detached or failed.
const DETACHED: i32 = 200;
const FAILED: i32 = 201;

/// `Client::relay` in a process of its own, with these standard streams.
fn relay(
    mut client: Client,
    how: Relay,
    stdin: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
) -> PidFd {
    let token = SingleThreaded::prove().unwrap();
    match process::fork(&token).unwrap() {
        Fork::Child => {
            let mut report = File::from(std::io::stderr().as_fd().try_clone_to_owned().unwrap());
            process::dup2_std(stdin, stdout, stderr).unwrap();
            process::close_all_except(&[client.as_fd(), report.as_fd()]).unwrap();
            let code = match client.relay(how) {
                Ok(Some(status)) => status.code(),
                Ok(None) => DETACHED,
                Err(error) => {
                    writeln!(report, "relay: {error}").unwrap();
                    FAILED
                }
            };
            process::exit_now(code);
        }
        Fork::Parent { pidfd, .. } => pidfd,
    }
}

fn code(process: &PidFd) -> i32 {
    process.wait(true).unwrap().unwrap().code()
}

fn null() -> File {
    File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap()
}

fn file(dir: &Path, name: &str) -> File {
    File::create(dir.join(name)).unwrap()
}

// ---- streams ------------------------------------------------------------------

/// 100 MB (on a slow machine, less) through pipes to a foreground client, an
/// observer and the log; each gets every byte once and in order.
fn output_reaches_log_and_clients_whole() {
    let lines = 6_000_000 / u64::from(slow());
    let mut up = up(Case {
        foreground: true,
        ..case(&format!(
            "read go; echo error >&2; seq -f %015.0f {lines}; echo last >&2"
        ))
    }
    .input());
    let dir = tempfile::tempdir().unwrap();
    let (pipe, into_pipe) = fd::pipe().unwrap();
    let observer = up.connect();
    let (go, say_go) = fd::pipe().unwrap();
    let out = file(dir.path(), "out");
    let err = file(dir.path(), "err");
    let both = Relay { stdin: true, ..ALL };
    let start = Instant::now();
    let first = relay(
        up.first.take().unwrap(),
        both,
        go.as_fd(),
        into_pipe.as_fd(),
        err.as_fd(),
    );
    let second = relay(observer, ALL, null().as_fd(), out.as_fd(), null().as_fd());
    drop((into_pipe, go));
    sleep(Duration::from_millis(200));
    nix::unistd::write(&say_go, b"go\n").unwrap();
    let mut next = 1;
    let mut reader = File::from(pipe);
    let mut chunk = vec![0; 1 << 20];
    let mut filled = 0;
    loop {
        let n = reader.read(&mut chunk[filled..]).unwrap();
        if n == 0 {
            break;
        }
        filled += n;
        let whole = filled / 16 * 16;
        for line in chunk[..whole].chunks_exact(16) {
            assert_eq!(line, format!("{next:015}\n").as_bytes());
            next += 1;
        }
        chunk.copy_within(whole..filled, 0);
        filled -= whole;
    }
    assert_eq!(next, lines + 1);
    assert_eq!((code(&first), code(&second)), (0, 0));
    println!("{} MB in {:?}", lines * 16 / 1_000_000, start.elapsed());
    assert_eq!(
        fs::read_to_string(dir.path().join("err")).unwrap(),
        "error\nlast\n"
    );
    let copy = fs::read(dir.path().join("out")).unwrap();
    assert_eq!(copy.len() as u64, lines * 16);
    let expected = |n: u64| format!("{n:015}\n");
    for (n, line) in (1..).zip(copy.chunks_exact(16)) {
        assert_eq!(line, expected(n).as_bytes());
    }
    up.ended();
    let (out, err) = up.logged();
    assert_eq!(err, "error\nlast\n");
    assert!(out.as_bytes() == copy);
}

impl Case {
    fn input(self) -> Self {
        Self {
            open_stdin: true,
            ..self
        }
    }
    fn terminal(self) -> Self {
        Self {
            tty: true,
            open_stdin: true,
            ..self
        }
    }
    fn attached(self) -> Self {
        Self {
            foreground: true,
            ..self
        }
    }
}

/// A file through `run -i`: end of file ends the program, nothing is lost.
fn input_reaches_the_program_whole() {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0u32..5_000_000).flat_map(u32::to_le_bytes).collect();
    fs::write(dir.path().join("in"), &content).unwrap();
    let mut up = up(case("cat; echo end >&2").input().attached());
    let input = File::open(dir.path().join("in")).unwrap();
    let out = file(dir.path(), "out");
    let err = file(dir.path(), "err");
    let both = Relay { stdin: true, ..ALL };
    let child = relay(
        up.first.take().unwrap(),
        both,
        input.as_fd(),
        out.as_fd(),
        err.as_fd(),
    );
    assert_eq!(code(&child), 0);
    assert!(fs::read(dir.path().join("out")).unwrap() == content);
    assert_eq!(fs::read_to_string(dir.path().join("err")).unwrap(), "end\n");
    up.ended();
}

fn exit_status_comes_last_and_late_comers_are_told() {
    let up = up(case("echo out; echo err >&2; read x; printf rest; exit 42")
        .input()
        .attached());
    let mut waiting = up.connect();
    let mut announced = up.connect();
    announced.announce_end().unwrap();
    let mut first = up.first.unwrap();
    let pidfd = first.pidfd().unwrap();
    pidfd.signal(libc::SIGUSR1).unwrap();
    // It was never asked to wait, but is attached; and asking again is free.
    assert_eq!(first.wait().unwrap(), ExitStatus::Signal(libc::SIGUSR1));
    assert_eq!(first.wait().unwrap(), ExitStatus::Signal(libc::SIGUSR1));
    assert_eq!(
        first.relay(ALL).unwrap(),
        Some(ExitStatus::Signal(libc::SIGUSR1))
    );
    waiting.gone().unwrap();
    announced.gone().unwrap();
    assert!(waiting.signal(9).unwrap_err().is_errno(libc::ECONNRESET));
    assert!(waiting.wait().unwrap_err().is_errno(libc::ECONNRESET));
    assert_eq!(up.supervisor.wait(true).unwrap(), Some(ExitStatus::Code(0)));
    assert!(Client::connect(&up.live).unwrap().is_none());
    let calls = fs::read_to_string(&up.calls).unwrap();
    assert_eq!(calls, "register\nexited 138 false\n");
}

// ---- stop, restart --------------------------------------------------------------

/// `Client::wait` in a process of its own.
struct Waiting(PidFd);

impl Waiting {
    fn new(it: &Up) -> Self {
        let mut client = it.connect();
        let token = SingleThreaded::prove().unwrap();
        match process::fork(&token).unwrap() {
            Fork::Child => process::exit_now(client.wait().unwrap().code()),
            Fork::Parent { pidfd, .. } => {
                sleep(Duration::from_millis(50));
                Self(pidfd)
            }
        }
    }

    fn end(self) -> i32 {
        code(&self.0)
    }
}

const DEAF: &str = "trap '' TERM; echo up; while :; do sleep 0.05; done";

fn stop_waits_then_kills() {
    // It heeds the signal: its own status.
    let it = up(case(
        "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done",
    ));
    it.await_log("up");
    let waiting = Waiting::new(&it);
    it.connect().stop(None, None).unwrap();
    assert_eq!(it.calls(), ["exited 7 false"]);
    assert_eq!(waiting.end(), 7);
    it.ended();
    assert_eq!(it.logged().0, "up\nbye\n");

    // It does not: SIGKILL after the container's timeout, or the request's.
    for (own, asked, millis) in [(1, None, 1000), (9, Some(1), 1000), (9, Some(0), 0)] {
        let it = up(Case {
            stop_timeout_s: own,
            ..case(DEAF)
        });
        it.await_log("up");
        let start = Instant::now();
        it.connect().stop(None, asked).unwrap();
        let took = start.elapsed();
        let expected = Duration::from_millis(millis);
        assert!(
            took >= expected && took < expected + Duration::from_millis(700) * slow(),
            "{took:?}"
        );
        assert_eq!(it.calls(), ["exited 137 false"]);
        it.ended();
    }

    // Never: until another request has less patience, or another signal.
    let it = up(Case {
        stop_timeout_s: 0,
        ..case(DEAF)
    });
    it.await_log("up");
    let mut patient = it.connect();
    let ask = json!({"v": 1, "id": 1, "op": {"stop": {"signal": null, "timeout": -1}}});
    fd::send(patient.as_fd(), ask.to_string().as_bytes(), &[]).unwrap();
    eventually("stopping", || {
        it.connect().state().unwrap().stopping.then_some(())
    });
    sleep(Duration::from_millis(300));
    assert!(it.calls().is_empty());
    it.connect().stop(Some(libc::SIGUSR1), Some(5)).unwrap();
    assert_eq!(it.calls(), ["exited 138 false"]);
    patient.gone().unwrap();
    it.ended();
}

fn restart_keeps_clients() {
    let mut it = up(
        case("trap 'exit 3' TERM; echo launch $LAUNCH; while :; do sleep 0.05; done").attached(),
    );
    let dir = tempfile::tempdir().unwrap();
    let out = file(dir.path(), "out");
    let first = relay(
        it.first.take().unwrap(),
        ALL,
        null().as_fd(),
        out.as_fd(),
        null().as_fd(),
    );
    it.await_log("launch 1");
    let mut waiting = it.connect();
    waiting.announce_end().unwrap();
    let before = it.connect().state().unwrap();
    it.connect().restart(None, None).unwrap();
    it.await_log("launch 2");
    it.connect().restart(Some(libc::SIGKILL), Some(0)).unwrap();
    it.await_log("launch 3");
    let after = it.connect().state().unwrap();
    assert!(!after.stopping && after.pid != before.pid);
    let mut fds = [nix::poll::PollFd::new(
        waiting.as_fd(),
        nix::poll::PollFlags::POLLIN,
    )];
    assert_eq!(
        nix::poll::poll(&mut fds, 50u16).unwrap(),
        0,
        "wait ended in between"
    );
    it.connect().stop(None, None).unwrap();
    assert_eq!(code(&first), 3);
    assert_eq!(
        it.calls(),
        [
            "exited 3 true",
            "relaunch",
            "exited 137 true",
            "relaunch",
            "exited 3 false"
        ]
    );
    it.ended();
    let text = fs::read_to_string(dir.path().join("out")).unwrap();
    assert_eq!(text, "launch 1\nlaunch 2\nlaunch 3\n");
    assert_eq!(it.logged().0, text);
}

fn failed_restart_is_the_end() {
    let it = up(Case {
        relaunch_fails: true,
        ..case("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done")
    });
    it.await_log("up");
    let waiting = Waiting::new(&it);
    let error = it.connect().restart(None, None).unwrap_err();
    assert_eq!(error.to_string(), "cannot launch again");
    assert_eq!(waiting.end(), 128);
    assert_eq!(
        it.calls(),
        [
            "exited 5 true",
            "not relaunched: cannot launch again",
            "exited 128 false"
        ]
    );
    it.ended();
}

// ---- clients that misbehave -------------------------------------------------------

fn killed_clients_hurt_nobody() {
    let mut it =
        up(case("trap 'exit 0' TERM; seq 300000; while :; do sleep 0.05; done").attached());
    let (pipe, into_pipe) = fd::pipe().unwrap();
    let mut victims = vec![relay(
        it.first.take().unwrap(),
        ALL,
        null().as_fd(),
        into_pipe.as_fd(),
        null().as_fd(),
    )];
    for _ in 0..5 {
        let client = it.connect();
        victims.push(relay(
            client,
            ALL,
            null().as_fd(),
            into_pipe.as_fd(),
            null().as_fd(),
        ));
    }
    // In the middle of the output, which none of them can get rid of.
    sleep(Duration::from_millis(100));
    for victim in &victims {
        victim.signal(libc::SIGKILL).unwrap();
        victim.wait(true).unwrap();
    }
    drop(pipe);
    it.await_log("\n300000\n");
    it.connect().stop(None, None).unwrap();
    it.ended();
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(it.logged().0 == expected);
}

fn stalled_observer_is_dropped_and_foreground_is_not() {
    // An observer that attaches and never reads.
    let it = up(case("sleep 0.3; seq 100000; echo done; read x").input());
    let observer = it.connect();
    let attach = json!({"v": 1, "id": 1, "op": {"attach": {"stdin": false, "stdout": true, "stderr": true}}});
    fd::send(observer.as_fd(), attach.to_string().as_bytes(), &[]).unwrap();
    let start = Instant::now();
    it.await_log("\ndone\n");
    let took = start.elapsed();
    assert!(
        took > Duration::from_secs(4) && took < patience(9),
        "{took:?}"
    );
    // It is told why, behind what it could have had.
    let mut client = observer;
    let error = client
        .relay(Relay {
            stdout: false,
            stderr: false,
            ..ALL
        })
        .unwrap_err();
    assert!(
        error.to_string().contains("read no output for 5 s"),
        "{error}"
    );
    it.connect().stop(None, Some(0)).unwrap();
    it.ended();

    // The foreground client holds the output up, as a pipe's reader does, and
    // then gets all of it, also when the program has long ended.
    let mut it = up(case("seq 500000; echo done >&2").attached());
    let mut client = it.first.take().unwrap();
    sleep(Duration::from_secs(6));
    assert!(!it.logged().1.contains("done"), "not held up");
    let (pipe, into_pipe) = fd::pipe().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let token = SingleThreaded::prove().unwrap();
    match process::fork(&token).unwrap() {
        Fork::Child => {
            let err = file(dir.path(), "err");
            process::dup2_std(null().as_fd(), into_pipe.as_fd(), err.as_fd()).unwrap();
            process::close_all_except(&[client.as_fd()]).unwrap();
            process::exit_now(client.relay(ALL).unwrap().unwrap().code());
        }
        Fork::Parent { pidfd, .. } => {
            drop((into_pipe, client));
            let mut text = String::new();
            let mut reader = File::from(pipe);
            // Until the program and even its supervisor have gone, no more
            // than the start is read.
            let mut byte = [0; 1];
            reader.read_exact(&mut byte).unwrap();
            text.push(char::from(byte[0]));
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(code(&pidfd), 0);
            let expected: String = (1..=500_000).map(|n| format!("{n}\n")).collect();
            assert!(text == expected);
        }
    }
    it.ended();

    // A program that ends while its reader sleeps does not wait for it.
    let mut it = up(case("seq 35000").attached());
    let client = it.first.take().unwrap();
    it.ended();
    let (pipe, into_pipe) = fd::pipe().unwrap();
    let child = relay(
        client,
        ALL,
        null().as_fd(),
        into_pipe.as_fd(),
        null().as_fd(),
    );
    drop(into_pipe);
    let mut text = String::new();
    File::from(pipe).read_to_string(&mut text).unwrap();
    assert_eq!(code(&child), 0);
    assert_eq!(text.lines().count(), 35000);
}

fn input_that_nobody_reads_hides_no_signal() {
    let mut it = up(
        case("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done")
            .input()
            .attached(),
    );
    let zero = File::open("/dev/zero").unwrap();
    let both = Relay { stdin: true, ..ALL };
    let child = relay(
        it.first.take().unwrap(),
        both,
        zero.as_fd(),
        null().as_fd(),
        null().as_fd(),
    );
    it.await_log("up");
    sleep(Duration::from_millis(300));
    child.signal(libc::SIGTERM).unwrap();
    assert_eq!(code(&child), 9);
    it.ended();
}

fn signals_pass_the_relay() {
    // Whoever starts the tests may ignore SIGHUP, as nohup(1) does.
    process::reset_signals().unwrap();
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGUSR2] {
        let mut it = up(case(
            "for s in 1 2 12; do trap \"echo got $s; exit 4\" $s; done; echo up; while :; do sleep 0.05; done",
        )
        .attached());
        let child = relay(
            it.first.take().unwrap(),
            ALL,
            null().as_fd(),
            null().as_fd(),
            null().as_fd(),
        );
        it.await_log("up");
        sleep(Duration::from_millis(50));
        child.signal(signal).unwrap();
        assert_eq!(code(&child), 4);
        it.ended();
        assert_eq!(it.logged().0, format!("up\ngot {signal}\n"));
    }
    // Without the proxy it is the client that ends.
    let mut it = up(case("echo up; sleep 1; echo down").attached());
    let alone = Relay {
        sig_proxy: false,
        ..ALL
    };
    let child = relay(
        it.first.take().unwrap(),
        alone,
        null().as_fd(),
        null().as_fd(),
        null().as_fd(),
    );
    it.await_log("up");
    child.signal(libc::SIGINT).unwrap();
    assert_eq!(code(&child), 130);
    it.ended();
    assert_eq!(it.logged().0, "up\ndown\n");
}

/// As `docker run … | head -1`: whoever reads has seen enough.
fn a_reader_that_goes_lets_the_client_go() {
    let mut it = up(case("echo up; sleep 0.2; seq 100000; read end; exit 6")
        .input()
        .attached());
    let (pipe, into_pipe) = fd::pipe().unwrap();
    let child = relay(
        it.first.take().unwrap(),
        ALL,
        null().as_fd(),
        into_pipe.as_fd(),
        null().as_fd(),
    );
    drop((pipe, into_pipe));
    assert_eq!(code(&child), DETACHED);
    // The container goes on, and nothing of what it says is lost.
    let lines = || it.logged().0.lines().count();
    let end = Instant::now() + patience(20);
    while lines() < 100_001 {
        assert!(Instant::now() < end, "{} lines", lines());
        sleep(Duration::from_millis(20));
    }
    it.connect().stop(Some(libc::SIGKILL), Some(0)).unwrap();
    it.ended();
}

// ---- terminal -----------------------------------------------------------------------

fn terminal_has_size_and_detach_keys() {
    let mut it = up(case(
        "stty size; echo ready; read a; echo got $a; stty size; read b; echo end",
    )
    .terminal()
    .attached());
    let ours = nix::pty::openpty(None, None).unwrap();
    raw::tty_set_size(ours.master.as_fd(), 31, 97).unwrap();
    let how = Relay {
        stdin: true,
        tty: true,
        detach_keys: dockless::container::attach::DetachKeys::default(),
        ..ALL
    };
    let tty = ours.slave.as_fd();
    let first = relay(it.first.take().unwrap(), how, tty, tty, tty);
    let mut typed = File::from(ours.master.try_clone().unwrap());
    it.await_log("ready");
    raw::tty_set_size(ours.master.as_fd(), 32, 98).unwrap();
    first.signal(libc::SIGWINCH).unwrap();
    sleep(Duration::from_millis(100) * slow());
    typed.write_all(b"hello\r").unwrap();
    it.await_log("32 98");
    let echo = it.logged().0;
    assert!(echo.contains("hello\r\ngot hello\r\n32 98\r\n"), "{echo:?}");
    typed.write_all(b"\x10\x11").unwrap();
    assert_eq!(code(&first), DETACHED);
    let flags = nix::sys::termios::tcgetattr(&ours.slave)
        .unwrap()
        .local_flags;
    assert!(
        flags.contains(nix::sys::termios::LocalFlags::ECHO),
        "left raw"
    );

    // The program goes on; another client sees it to its end.
    let mut seen = Vec::new();
    let again = relay(it.connect(), how, tty, tty, tty);
    sleep(Duration::from_millis(100));
    typed.write_all(b"x\r").unwrap();
    assert_eq!(code(&again), 0);
    it.ended();
    drop(ours.slave);
    // To the end, which a terminal reports as EIO.
    let _ = File::from(ours.master).read_to_end(&mut seen);
    let seen = String::from_utf8_lossy(&seen);
    assert!(
        seen.contains("got hello") && seen.contains("end\r\n"),
        "{seen:?}"
    );

    // A killed terminal client restores nothing, but a terminated one does.
    let mut it = up(case("read a").terminal().attached());
    let ours = nix::pty::openpty(None, None).unwrap();
    let tty = ours.slave.as_fd();
    let child = relay(it.first.take().unwrap(), how, tty, tty, tty);
    let echo = || {
        let flags = nix::sys::termios::tcgetattr(&ours.slave)
            .unwrap()
            .local_flags;
        flags.contains(nix::sys::termios::LocalFlags::ECHO)
    };
    eventually("raw mode", || (!echo()).then_some(()));
    sleep(Duration::from_millis(50));
    child.signal(libc::SIGTERM).unwrap();
    assert_eq!(
        child.wait(true).unwrap(),
        Some(ExitStatus::Signal(libc::SIGTERM))
    );
    assert!(echo());
    it.connect().stop(None, Some(0)).unwrap();
    it.ended();
}

// ---- requests -------------------------------------------------------------------------

fn pause_and_commands_go_to_the_owner() {
    let it = up(case("echo up; exec sleep 20"));
    it.await_log("up");
    let mut client = it.connect();
    client.pause(true).unwrap();
    assert!(client.state().unwrap().paused);
    let (read, write) = fd::pipe().unwrap();
    let answer = client
        .command("write", json!([1, "ä"]), &[write.as_fd()])
        .unwrap();
    assert_eq!(answer, json!({"did": [1, "ä"]}));
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(text, "from owner");
    let error = client.command("dance", Value::Null, &[]).unwrap_err();
    assert_eq!(error.to_string(), "no dance here");
    let error = client.command("big", Value::Null, &[]).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
    assert!(client.signal(999).unwrap_err().is_errno(libc::EINVAL));
    // Other signals wait with the program; what ends it thaws it.
    client.signal(libc::SIGWINCH).unwrap();
    assert!(client.state().unwrap().paused);
    client.stop(Some(libc::SIGTERM), Some(5)).unwrap();
    it.ended();
    let calls = it.calls();
    assert_eq!(calls[0], "pause true");
    assert_eq!(
        calls[calls.len() - 2..],
        ["pause false", "exited 143 false"]
    );
}

fn malformed_messages_are_answered() {
    let it = up(case("echo up; exec sleep 20"));
    it.await_log("up");
    let client = it.connect();
    let mut buffer = vec![0; 65536];
    let mut ask = |message: &[u8]| {
        fd::send(client.as_fd(), message, &[]).unwrap();
        let (n, _) = fd::recv(client.as_fd(), &mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    for (message, says) in [
        (&b"{"[..], "EOF"),
        (b"{\"v\":1,\"id\":4,\"op\":\"dance\"}", "\"id\":4"),
        (b"{\"v\":2,\"id\":5,\"op\":\"wait\"}", "version 1, not 2"),
        (b"hello", "not a message"),
        (&[0xff; 60_000], "not a message"),
        (&[b'{'; 70_000], "message too long"),
    ] {
        let answer = ask(message);
        assert!(answer.starts_with("{\"error\":"), "{answer}");
        assert!(answer.contains(says), "{answer}");
    }
    // Input beyond the window ends the connection, nothing else. (No input
    // is open here, so this is merely swallowed.)
    fd::send(client.as_fd(), &[0; 60_000], &[]).unwrap();
    // One that asks and never reads is cut off before it fills the memory.
    let rude = it.connect();
    let state = b"{\"v\":1,\"id\":1,\"op\":\"state\"}";
    let cut = (0..100_000).any(|_| fd::send(rude.as_fd(), state, &[]).is_err());
    assert!(cut);
    let mut client = it.connect();
    client.stop(None, Some(0)).unwrap();
    it.ended();
}

fn only_root_and_the_same_user_may_connect() -> Verdict {
    need_root()?;
    let it = up(case("echo up; exec sleep 20"));
    it.await_log("up");
    let socket = it.live.join("sock");
    let mode = fs::metadata(&socket)?.permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // Even if somebody opens the way.
    fs::set_permissions(&socket, PermissionsExt::from_mode(0o666))?;
    for folder in it.live.ancestors() {
        if folder.starts_with(std::env::temp_dir()) {
            fs::set_permissions(folder, PermissionsExt::from_mode(0o755))?;
        }
    }
    let token = SingleThreaded::prove()?;
    let child = match process::fork(&token)? {
        Fork::Child => {
            nix::unistd::setresuid(4242.into(), 4242.into(), 4242.into()).unwrap();
            let refused = match Client::connect(&it.live) {
                Ok(Some(mut client)) => client.stop(None, Some(0)).unwrap_err(),
                other => panic!("{other:?}"),
            };
            process::exit_now(i32::from(!refused.is_errno(libc::EPERM)));
        }
        Fork::Parent { pidfd, .. } => pidfd,
    };
    assert_eq!(code(&child), 0);
    it.connect().stop(None, Some(0))?;
    it.ended();
    Ok(())
}

// ---- log, rest -----------------------------------------------------------------------------

fn log_rotates_and_is_followed_to_the_end() {
    let it = up(Case {
        log_max_size: Some(100_000),
        ..case("seq 2000; sleep 0.3; seq 2001 4000; sleep 0.3; printf 'no newline'")
    });
    let mut watch = it.connect();
    watch.announce_end().unwrap();
    let query = logs::Query {
        follow: true,
        ..Default::default()
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    logs::read(&it.log, &query, Some(watch.as_fd()), &mut out, &mut err).unwrap();
    it.ended();
    let text = String::from_utf8(out).unwrap();
    let expected: String = (1..=4000).map(|n| format!("{n}\n")).collect();
    assert!(text == expected + "no newline", "{} bytes", text.len());
    assert_eq!(String::from_utf8(err).unwrap(), "");
    let rotated = |n: u32| PathBuf::from(format!("{}.{n}", it.log.display()));
    assert!(rotated(1).exists() && rotated(2).exists() && !rotated(3).exists());
}

/// Zero wake-ups, and hardly any memory of its own.
fn at_rest_it_sleeps_and_is_small() {
    let it = up(case("seq 100000; exec sleep 100").attached());
    let client = it.connect();
    let child = relay(client, ALL, null().as_fd(), null().as_fd(), null().as_fd());
    drop(it.first);
    let log = it.log.clone();
    eventually("output", || {
        fs::read_to_string(&log)
            .unwrap_or_default()
            .contains("\"100000\\n\"")
            .then_some(())
    });
    child.signal(libc::SIGKILL).unwrap();
    child.wait(true).unwrap();
    sleep(Duration::from_secs(3));
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", it.pid)).unwrap();
        let lines = status.lines().filter(|l| l.contains("ctxt_switches"));
        lines
            .map(|l| l.split_whitespace().last().unwrap().parse::<u64>().unwrap())
            .sum::<u64>()
    };
    let before = switches();
    sleep(Duration::from_secs(20));
    assert_eq!(switches(), before, "it woke up");
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", it.pid)).unwrap();
    // Its own pages only: the mapped ones are those of this debug program, and
    // how many processes share them. `scripts/bench-start` weighs the release.
    let own = rollup.lines().find_map(|l| l.strip_prefix("Pss_Anon:"));
    let own: u64 = own.unwrap().trim().trim_end_matches(" kB").parse().unwrap();
    assert!(own < 200, "{own} KiB\n{rollup}");
    Client::connect(&it.live)
        .unwrap()
        .unwrap()
        .stop(None, Some(0))
        .unwrap();
    assert_eq!(it.supervisor.wait(true).unwrap(), Some(ExitStatus::Code(0)));
}
