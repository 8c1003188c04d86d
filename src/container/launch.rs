//! Start of a container, the parent's side of the handshake.
//! Theory of operation: design.md §2, stage table (to be written here).

use std::os::fd::OwnedFd;

use super::spec::LaunchSpec;
use crate::base::Result;
use crate::sys::cgroup::Cgroup;
use crate::sys::netns::{Netns, Sandbox};
use crate::sys::process::{PidFd, SingleThreaded};

/// The supervisor's ends of the container's standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// Pipes. stdin is `None` unless kept open (`-i`): then /dev/null.
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// The pty master (`-t`), born in the container's own devpts.
    Tty(OwnedFd),
}

/// The child, cloned and building its root file system while the caller makes
/// the network. Dropping it kills and reaps the child.
#[derive(Debug)]
pub struct Cloned {}

/// The program runs.
#[derive(Debug)]
pub struct Running {
    pub pid: i32,
    pub pidfd: PidFd,
    pub stdio: Stdio,
}

/// Clones the child into fresh mount, pid, uts, ipc (and, where they exist,
/// cgroup on v2 and time) namespaces; not net: that one is joined by fd.
/// Returns at once; the child works on mounts that need no network namespace.
pub fn clone(
    _token: &SingleThreaded,
    _spec: &LaunchSpec,
    _cgroup: Option<&Cgroup>,
    _open_stdin: bool,
) -> Result<Cloned> {
    todo!()
}

impl Cloned {
    /// Hands over the network namespace; the child joins it and mounts /sys.
    pub fn join(&mut self, _netns: &Netns<Sandbox>) -> Result<()> {
        todo!()
    }
    pub fn pid(&self) -> i32 {
        todo!()
    }
    /// Waits until the child is filtered and ready, lets it exec, and returns
    /// when exec has worked. A failed stage is `Cause::Child { stage, errno }`;
    /// a failed exec `Cause::Exec { errno, text }` with Docker's text
    /// (`exec: "x": executable file not found in $PATH`).
    pub fn go(self) -> Result<Running> {
        todo!()
    }
}
