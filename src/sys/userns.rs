//! A user namespace in which an ordinary user is root: for the demo, the
//! tests and whoever has no other way.

use std::fs;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::features;
use super::process::SingleThreaded;
use crate::base::{Error, Result};

/// Moves this process into a fresh user namespace, as its root, together with
/// fresh namespaces of the other kinds in `with`. Only the caller's own user
/// and group exist there, as 0; setgroups(2) is off, as the kernel demands of
/// one who maps himself.
pub fn enter(_token: &SingleThreaded, with: CloneFlags) -> Result<()> {
    // Asked before: afterwards both are the overflow id.
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | with).map_err(|e| features::why_no_userns(e as i32))?;
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ] {
        match fs::write(file, text) {
            Ok(()) => {}
            // What AppArmor forbids shows only here, not at unshare.
            Err(e) if e.raw_os_error() == Some(Errno::EPERM as i32) => {
                return Err(features::why_no_userns(Errno::EPERM as i32));
            }
            Err(e) => return Err(Error::sys("map user namespace ids through", file, e)),
        }
    }
    Ok(())
}
