//! Away from the machine's own network and mounts, as root or not.

use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::base::{Error, Result, Subject};
use crate::sys::features;

/// A directory that every system has (FHS) and nobody needs meanwhile.
const STATE: &str = "/mnt";

/// Moves this process into mount, network and IPC namespaces of its own; who
/// is not root becomes root of a user namespace first. Returns a folder on a
/// private tmpfs, for state that ends with the process.
///
/// To be called before any thread is started. When the system forbids user
/// namespaces, the error names the switch (sysctl file, AppArmor, seccomp) and
/// the way on.
pub fn enter() -> Result<PathBuf> {
    let private = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    if geteuid().is_root() {
        unshare(private).map_err(|e| {
            Error::sys("create the lab's namespaces", Subject::None, e)
                .hint("root without CAP_SYS_ADMIN cannot: in a container, run it privileged")
        })?;
    } else {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        unshare(CloneFlags::CLONE_NEWUSER | private).map_err(forbidden)?;
        // Without this the kernel refuses the gid map of an ordinary user.
        write("/proc/self/setgroups", "deny")?;
        write("/proc/self/uid_map", &format!("0 {uid} 1"))?;
        write("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    }
    // What is mounted from now on is seen on one side only.
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, private, nothing)
        .map_err(|e| Error::sys("make mounts private", "/", e))?;
    mount(
        Some("dockless-lab"),
        STATE,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=0755"),
    )
    .map_err(|e| Error::sys("mount tmpfs", STATE, e))?;
    Ok(PathBuf::from(STATE))
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| Error::sys("write", path, e))
}

fn forbidden(errno: Errno) -> Error {
    let error = features::why_no_userns(errno as i32);
    match errno {
        Errno::EINVAL => error.hint("it must be entered before any thread is started"),
        _ => error,
    }
}
