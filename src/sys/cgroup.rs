//! One cgroup per container, on v1, hybrid and v2 machines.
//!
//! # Theory of operation
//! A container has one folder, `dockless-<id>`, in each hierarchy that has a
//! task *today*; on v2 and hybrid machines that is mostly the unified one:
//!
//! | task | v2 | hybrid | v1 |
//! |---|---|---|---|
//! | freeze (`pause`), kill all | unified | unified | freezer |
//! | device rules | unified (BPF) | devices | devices |
//! | out of the login session's scope | unified | unified | name=systemd |
//!
//! Docker also makes folders for cpu, cpuacct, cpuset, memory, blkio and pids
//! on v1, where they limit nothing unless asked to. Making, joining and
//! removing one costs 55 to 110 µs there (all ten: 720 µs, measured on 6.18),
//! so they are left out until a limit or a statistic needs them.
//!
//! The folder stands at the hierarchy's root, without a common parent: nothing
//! to create for the first container and to remove with the last, and no race
//! between the two. Where the root is not writable (a user namespace with a
//! delegated cgroup), it stands below the caller's own cgroup.
//!
//! *Placement*: on v2 the child is born there (CLONE_INTO_CGROUP); on v1 it
//! writes `0` into inherited `tasks` files before it execs. A thread that moves
//! itself this way skips the kernel's cgroup_threadgroup_rwsem, whose write
//! side costs an RCU grace period.
//!
//! *Devices*: Docker's rules (docker-macvlan.md §10). In a user namespace they
//! are neither settable nor needed: the kernel refuses mknod there.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};
use nix::unistd::{AccessFlags, access, mkdir, write};

use super::process::PidFd;
use super::{features, raw};
use crate::base::{Error, Result};

/// Where every distribution mounts them: a cgroup2 file system, or a tmpfs
/// with one folder per v1 hierarchy and, on hybrid machines, `unified`.
const MOUNTS: &str = "/sys/fs/cgroup";

/// How long freezing, killing and removing may take before they are errors.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a v1 hierarchy is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum V1 {
    Devices,
    Freezer,
    Session,
}

/// How this machine mounts its cgroups.
#[derive(Clone, Debug)]
pub struct Hierarchies {
    /// The folder in which containers' folders are made, per hierarchy.
    unified: Option<PathBuf>,
    v1: Vec<(V1, PathBuf)>,
    /// Whether the kernel lets us (and needs us to) program device rules.
    rules_devices: bool,
}

/// A container's cgroup: its folder in every hierarchy.
#[derive(Debug)]
pub struct Cgroup {
    folders: Vec<PathBuf>,
    unified: Option<(PathBuf, OwnedFd)>,
    v1: Vec<PathBuf>,
    tasks: Vec<OwnedFd>,
}

impl Hierarchies {
    /// Asks the file systems at the usual places: reading the mount table
    /// would cost more than all else here.
    pub fn detect() -> Result<Self> {
        let root = Path::new(MOUNTS);
        Ok([root.to_owned(), root.join("unified")]
            .into_iter()
            .find(|mount| is_mount_of(mount, CGROUP2_SUPER_MAGIC))
            .map_or_else(|| Self::among(None), |mount| Self::among(Some(mount))))
    }

    fn among(unified: Option<PathBuf>) -> Self {
        let rules_devices = !features::in_user_namespace();
        let mut own = None;
        let unified = unified.and_then(|mount| writable(&mount, "", &mut own));
        let mut v1 = Vec::new();
        // The v1 controllers cannot be delegated to a user namespace.
        if rules_devices {
            let wanted: &[_] = if unified.is_some() {
                &[(V1::Devices, "devices", "devices")]
            } else {
                &[
                    (V1::Devices, "devices", "devices"),
                    (V1::Freezer, "freezer", "freezer"),
                    (V1::Session, "systemd", "name=systemd"),
                ]
            };
            for (kind, folder, controller) in wanted {
                let mount = Path::new(MOUNTS).join(folder);
                if is_mount_of(&mount, CGROUP_SUPER_MAGIC)
                    && let Some(base) = writable(&mount, controller, &mut own)
                {
                    v1.push((*kind, base));
                }
            }
        }
        Self {
            unified,
            v1,
            rules_devices,
        }
    }

    /// Without the v1 hierarchies, as on a v2 machine: for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn unified_only(mut self) -> Self {
        self.v1.clear();
        self
    }

    /// Without the unified hierarchy, as on a v1 machine: for tests.
    #[doc(hidden)]
    pub fn v1_only() -> Self {
        Self::among(None)
    }

    /// The folders a container's cgroup would have, for the undo journal,
    /// before any is made.
    pub fn folders(&self, id: &str) -> Vec<PathBuf> {
        let name = format!("dockless-{id}");
        let bases = self.unified.iter().chain(self.v1.iter().map(|(_, b)| b));
        bases.map(|base| base.join(&name)).collect()
    }

    /// Makes them and programs the device rules. On a machine or in a user
    /// namespace where no hierarchy is writable: `Ok(None)`. Then nothing
    /// restricts devices, so outside of a user namespace the container must
    /// not have CAP_MKNOD (`container/profile.rs`).
    pub fn create(&self, id: &str) -> Result<Option<Cgroup>> {
        let folders = self.folders(id);
        for folder in &folders {
            match mkdir(folder, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(Error::sys("create cgroup", folder, e)),
            }
        }
        if folders.is_empty() {
            return Ok(None);
        }
        let cgroup = Cgroup::open(&folders)?;
        if self.rules_devices {
            let devices = self.v1.iter().position(|(kind, _)| *kind == V1::Devices);
            match (devices, &cgroup.unified) {
                (Some(at), _) => restrict_devices_v1(&cgroup.v1[at])?,
                (None, Some((folder, fd))) => restrict_devices_bpf(folder, fd.as_fd())?,
                (None, None) => {
                    return Err(Error::state(
                        "restrict devices of cgroup",
                        &folders[0],
                        "this machine has neither cgroup v2 nor the v1 devices controller",
                    ));
                }
            }
        }
        Ok(Some(cgroup))
    }
}

/// `mount` itself if a folder can be made in it, else the caller's own cgroup
/// in that hierarchy if one can be made there.
fn writable(mount: &Path, controller: &str, own: &mut Option<String>) -> Option<PathBuf> {
    let may = |path: &Path| access(path, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    if may(mount) {
        return Some(mount.to_owned());
    }
    let own =
        own.get_or_insert_with(|| std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        fields
            .next()?
            .split(',')
            .any(|c| c == controller)
            .then(|| fields.next())
            .flatten()
    })?;
    let base = mount.join(path.trim_start_matches('/'));
    may(&base).then_some(base)
}

fn is_mount_of(path: &Path, kind: FsType) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == kind)
}

impl Cgroup {
    /// Its folder in every hierarchy.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Opens the folders of an existing one (for exec, pause, kill).
    pub fn open(folders: &[PathBuf]) -> Result<Self> {
        let mut cgroup = Self {
            folders: folders.to_vec(),
            unified: None,
            v1: Vec::new(),
            tasks: Vec::new(),
        };
        let open = |path: &Path, flags| {
            open(path, flags | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|e| Error::sys("open cgroup", path, e))
        };
        for folder in folders {
            let fs = statfs(folder).map_err(|e| Error::sys("open cgroup", folder, e))?;
            if fs.filesystem_type() == CGROUP2_SUPER_MAGIC {
                let fd = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
                cgroup.unified = Some((folder.clone(), fd));
            } else {
                let tasks = open(&folder.join("tasks"), OFlag::O_WRONLY)?;
                cgroup.tasks.push(tasks);
                cgroup.v1.push(folder.clone());
            }
        }
        Ok(cgroup)
    }

    /// v2 and hybrid: the folder to pass to `clone_child`.
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(|(_, fd)| fd.as_fd())
    }

    /// v1 and hybrid: open `tasks` files into which the child itself writes
    /// `0` ([`join_self`]) before it execs.
    pub fn join_files(&self) -> &[OwnedFd] {
        &self.tasks
    }

    /// Freezes or thaws all processes (`pause`) and waits until they are.
    pub fn freeze(&self, on: bool) -> Result<()> {
        if let Some((folder, _)) = &self.unified {
            put(&folder.join("cgroup.freeze"), if on { "1" } else { "0" })?;
            let events = folder.join("cgroup.events");
            let wanted = if on { "frozen 1" } else { "frozen 0" };
            return self.settle(on, &events, |text| text.lines().any(|l| l == wanted));
        }
        let Some(state) = self.freezer() else {
            return Err(Error::state(
                "freeze",
                "container",
                "it has no cgroup that can freeze",
            ));
        };
        let wanted = if on { "FROZEN" } else { "THAWED" };
        put(&state, wanted)?;
        self.settle(on, &state, |text| text.trim() == wanted)
    }

    /// A process in an uninterruptible wait can keep a freeze from completing:
    /// then everything is thawed again.
    fn settle(&self, freezing: bool, file: &Path, done: impl Fn(&str) -> bool) -> Result<()> {
        let settled = patiently(|| Ok(done(&get(file)?)))?;
        if settled {
            return Ok(());
        }
        if freezing {
            self.freeze(false)?;
        }
        Err(Error::sys("freeze processes of", file, Errno::EBUSY)
            .hint("a process is stuck in the kernel"))
    }

    fn freezer(&self) -> Option<PathBuf> {
        self.v1
            .iter()
            .map(|folder| folder.join("freezer.state"))
            .find(|state| state.exists())
    }

    /// SIGKILL to every process in it, until none is left (bounded).
    pub fn kill(&self) -> Result<()> {
        let folder = match (&self.unified, self.v1.first()) {
            (Some((folder, _)), _) => {
                match put(&folder.join("cgroup.kill"), "1") {
                    // Absent before 5.14.
                    Err(e) if !e.is_errno(libc::ENOENT) => return Err(e),
                    _ => {}
                }
                folder
            }
            (None, Some(folder)) => folder,
            (None, None) => return Ok(()),
        };
        let procs = folder.join("cgroup.procs");
        let dead = patiently(|| {
            let list = match get(&procs) {
                Err(e) if e.is_errno(libc::ENOENT) || e.is_errno(libc::ENODEV) => return Ok(true),
                other => other?,
            };
            if list.trim().is_empty() {
                return Ok(true);
            }
            self.kill_listed(folder, &list)?;
            Ok(false)
        })?;
        if dead {
            return Ok(());
        }
        Err(Error::sys("kill processes of", folder, Errno::EBUSY)
            .hint("a process is stuck in the kernel"))
    }

    /// One round: what forks meanwhile is in the next round's list.
    fn kill_listed(&self, folder: &Path, list: &str) -> Result<()> {
        // v1: frozen processes neither fork nor end, so that the round sees
        // all of them; they die when thawed.
        let freezer = self.freezer();
        if let Some(state) = &freezer {
            put(state, "FROZEN")?;
        }
        let listed = freezer
            .as_ref()
            .map_or(Ok(list.to_owned()), |_| get(&folder.join("cgroup.procs")));
        let killed = listed.and_then(|list| {
            list.lines()
                .filter_map(|line| line.parse().ok())
                // 0: a process of another pid namespace's branch.
                .filter(|pid| *pid > 0)
                .try_for_each(|pid| kill_member(folder, pid))
        });
        if let Some(state) = &freezer {
            put(state, "THAWED")?;
        }
        killed
    }
}

/// Kills `pid` if the process that has this pid now is (still) in `folder`.
fn kill_member(folder: &Path, pid: i32) -> Result<()> {
    let Ok(process) = PidFd::open(pid) else {
        return Ok(());
    };
    // The pidfd pins the process; its membership is asked afterwards.
    let own = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let name = folder.file_name().map_or(&b""[..], OsStrExt::as_bytes);
    let member = own
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .any(|path| {
            path.as_bytes()
                .split(|b| *b == b'/')
                .any(|part| part == name)
        });
    if member {
        process.signal(libc::SIGKILL)?;
    }
    Ok(())
}

/// Undo: kills what is in these folders and removes them; absent is fine.
pub fn remove(folders: &[PathBuf]) -> Result<()> {
    let mut left = Vec::new();
    for folder in folders {
        // Mostly empty by now, and then one call does it.
        match rmdir(folder) {
            Ok(true) => {}
            Ok(false) => left.push(folder.clone()),
            Err(e) => return Err(e),
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    Cgroup::open(&left)?.kill()?;
    for folder in &left {
        // A process leaves its cgroup a moment after it is gone from the list.
        if !patiently(|| rmdir(folder))? {
            return Err(Error::sys("remove cgroup", folder, Errno::EBUSY));
        }
    }
    Ok(())
}

/// Whether the folder is gone; false when it is busy.
fn rmdir(folder: &Path) -> Result<bool> {
    match std::fs::remove_dir(folder) {
        Ok(()) => Ok(true),
        Err(e) => match e.raw_os_error() {
            Some(libc::ENOENT) => Ok(true),
            Some(libc::EBUSY) => Ok(false),
            _ => Err(Error::sys("remove cgroup", folder, e)),
        },
    }
}

/// In the child: joins through the inherited `tasks` files.
pub fn join_self(files: &[BorrowedFd<'_>]) -> Result<()> {
    for file in files {
        write(file, b"0").map_err(|e| Error::sys("join cgroup", "tasks", e))?;
    }
    Ok(())
}

/// Asks until the answer is yes, at growing intervals, for [`PATIENCE`].
fn patiently(mut done: impl FnMut() -> Result<bool>) -> Result<bool> {
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(50);
    loop {
        if done()? {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn get(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|e| Error::sys("read", path, e))?;
    Ok(text)
}

/// One write: cgroup files take each write as one command.
fn put(path: &Path, value: &str) -> Result<()> {
    put_all(path, &[value])
}

fn put_all(path: &Path, values: &[&str]) -> Result<()> {
    let fail = |e| Error::sys("write", path, e);
    let mut file = File::options().write(true).open(path).map_err(fail)?;
    values
        .iter()
        .try_for_each(|value| file.write_all(value.as_bytes()))
        .map_err(fail)
}

/// Docker's rules: every node may be made, these may be opened. What tun does
/// needs CAP_NET_ADMIN; VPN images make the node themselves, so runc 1.2.4 gave
/// it back after 1.2.0 had taken it away.
const DEVICES: [&str; 12] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",    // null
    "c 1:5 rwm",    // zero
    "c 1:7 rwm",    // full
    "c 1:8 rwm",    // random
    "c 1:9 rwm",    // urandom
    "c 5:0 rwm",    // tty
    "c 5:1 rwm",    // console
    "c 5:2 rwm",    // ptmx
    "c 10:200 rwm", // tun
    "c 136:* rwm",  // pts
];

fn restrict_devices_v1(folder: &Path) -> Result<()> {
    put(&folder.join("devices.deny"), "a")?;
    put_all(&folder.join("devices.allow"), &DEVICES)
}

/// The same rules as a program of type BPF_PROG_TYPE_CGROUP_DEVICE, which the
/// kernel asks about every mknod and open of a device: 1 allows.
///
/// Its argument is `{ access << 16 | kind, major, minor }`, where access is
/// mknod 1, read 2, write 4 and kind block 1, char 2.
fn device_program() -> [u64; 24] {
    const LOAD: u8 = 0x61; // destination = *(u32 *)(source + offset)
    const COPY: u8 = 0xbf; // destination = source
    const SET: u8 = 0xb7; // destination = constant
    const SHIFT: u8 = 0x77; // destination >>= constant
    const SHIFT_BY: u8 = 0x7f; // destination >>= source
    const AND: u8 = 0x57; // destination &= constant
    const GO: u8 = 0x05; // skip offset
    const IF_EQ: u8 = 0x15; // if destination == constant, skip offset
    const IF_NE: u8 = 0x55;
    const IF_GT: u8 = 0x25;
    const EXIT: u8 = 0x95;
    /// null, zero, full, random and urandom, one bit per minor number.
    const MEMORY: u32 = 1 << 3 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9;
    // Opcode, registers (source << 4 | destination), offset, constant.
    let ins = |code: u8, registers: u8, offset: u8, constant: u32| {
        u64::from(code)
            | u64::from(registers) << 8
            | u64::from(offset) << 16
            | u64::from(constant) << 32
    };
    [
        ins(LOAD, 0x12, 0, 0),     // 0: r2 = access and kind
        ins(LOAD, 0x13, 4, 0),     // 1: r3 = major
        ins(LOAD, 0x14, 8, 0),     // 2: r4 = minor
        ins(COPY, 0x25, 0, 0),     // 3: r5 = access and kind
        ins(SHIFT, 0x05, 0, 16),   // 4: r5 = access
        ins(IF_EQ, 0x05, 14, 1),   // 5: mknod only: 20
        ins(AND, 0x02, 0, 0xffff), // 6: r2 = kind
        ins(IF_NE, 0x02, 14, 2),   // 7: not a character device: 22
        ins(IF_EQ, 0x03, 11, 136), // 8: pts: 20
        ins(IF_EQ, 0x03, 9, 5),    // 9: major 5: 19
        ins(IF_EQ, 0x03, 6, 10),   // 10: major 10: 17
        ins(IF_NE, 0x03, 10, 1),   // 11: none of 5, 10 and 1: 22
        ins(IF_GT, 0x04, 9, 9),    // 12: beyond urandom: 22
        ins(SET, 0x00, 0, MEMORY), // 13
        ins(SHIFT_BY, 0x40, 0, 0), // 14: the minor's bit
        ins(AND, 0x00, 0, 1),      // 15
        ins(EXIT, 0, 0, 0),        // 16
        ins(IF_NE, 0x04, 4, 200),  // 17: not tun: 22
        ins(GO, 0x00, 1, 0),       // 18: 20
        ins(IF_GT, 0x04, 2, 2),    // 19: beyond tty, console, ptmx: 22
        ins(SET, 0x00, 0, 1),      // 20: allow
        ins(EXIT, 0, 0, 0),        // 21
        ins(SET, 0x00, 0, 0),      // 22: deny
        ins(EXIT, 0, 0, 0),        // 23
    ]
}

fn restrict_devices_bpf(folder: &Path, fd: BorrowedFd<'_>) -> Result<()> {
    let fail = |e: Errno| {
        Error::sys("restrict devices of cgroup", folder, e)
            .hint("needs a kernel with CONFIG_CGROUP_BPF, and CAP_SYS_ADMIN")
    };
    let program = raw::bpf_load_cgroup_device(&device_program()).map_err(fail)?;
    // The cgroup holds the program from here on.
    raw::bpf_attach_cgroup_device(fd, program.as_fd()).map_err(fail)
}
