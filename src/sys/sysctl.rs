//! Network sysctls of a namespace that the caller is not in.
//!
//! *Theory of operation.* `/proc/sys/net` shows the namespace of whoever looks,
//! but a folder below it belongs to the namespace in which it was opened: an
//! O_PATH fd of `/proc/sys/net/ipv4`, opened by a thread inside a namespace,
//! leads to that namespace's values from everywhere (seen on Linux 6.18;
//! fs/proc/proc_sysctl.c, `sysctl_follow_link`). So one visit is enough for a
//! container's whole life.
//!
//! Each namespace has its own entry of the name `ipv4` in a mount of procfs, and
//! to look one up is to pass by those of all others: with a thousand
//! containers 2.5 ms. A mount of our own (25 µs, detached, gone with the fds)
//! has ours alone. Where none can be made, in a user namespace without a pid
//! namespace of its own, /proc does.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::write;

use super::mount::{Attrs, Filesystem, Mount};
use crate::base::{Error, Result};

#[derive(Debug)]
pub struct NetSysctl {
    ipv4: OwnedFd,
    /// Absent where the kernel has no IPv6.
    ipv6: Option<OwnedFd>,
}

/// Whose folder below `/proc/sys/net`.
pub use crate::base::Family;

impl NetSysctl {
    /// Of the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        let own = Filesystem::new(c"proc").and_then(|procfs| procfs.mount(Attrs::NONE));
        let folder = |path: &'static str| {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            match own.as_ref().map(Mount::as_fd) {
                Ok(top) => openat(top, path.trim_start_matches("/proc/"), flags, Mode::empty()),
                Err(_) => openat(AT_FDCWD, path, flags, Mode::empty()),
            }
        };
        let ipv4 = folder("/proc/sys/net/ipv4")
            .map_err(|e| Error::sys("open", "/proc/sys/net/ipv4", e))?;
        let ipv6 = match folder("/proc/sys/net/ipv6") {
            Ok(fd) => Some(fd),
            Err(nix::Error::ENOENT) => None,
            Err(e) => return Err(Error::sys("open", "/proc/sys/net/ipv6", e)),
        };
        Ok(Self { ipv4, ipv6 })
    }

    /// To be handed to another process.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(&self.ipv4), self.ipv6.as_ref()]
            .into_iter()
            .flatten()
            .map(AsFd::as_fd)
    }

    /// What [`NetSysctl::fds`] gave.
    pub fn from_fds(fds: impl IntoIterator<Item = OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let (ipv4, ipv6) = (fds.next()?, fds.next());
        Some(Self { ipv4, ipv6 })
    }

    pub fn has_ipv6(&self) -> bool {
        self.ipv6.is_some()
    }

    /// Reads `net.ipv4.<name>`, `name` with slashes.
    pub fn read_ipv4(&self, name: &str) -> Result<String> {
        let fail = |e: nix::Error| Error::sys("read sysctl", format!("net/ipv4/{name}"), e);
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd = openat(self.ipv4.as_fd(), name, flags, Mode::empty()).map_err(fail)?;
        let mut bytes = [0; 64];
        let length = nix::unistd::read(&fd, &mut bytes).map_err(fail)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).trim().to_owned())
    }

    /// Writes `net.<family>.<name>`, `name` with slashes.
    pub fn write(&self, family: Family, name: &str, value: &str) -> Result<()> {
        let (folder, family) = match family {
            Family::Ipv4 => (Some(&self.ipv4), "ipv4"),
            Family::Ipv6 => (self.ipv6.as_ref(), "ipv6"),
        };
        let fail = |e: nix::Error| {
            let error = Error::sys("set sysctl", format!("net/{family}/{name} to {value}"), e);
            match e {
                nix::Error::EACCES | nix::Error::EPERM => {
                    error.hint("it needs CAP_NET_ADMIN over the network namespace: run it as root")
                }
                _ => error,
            }
        };
        let folder = folder.ok_or_else(|| fail(nix::Error::ENOENT))?;
        let fd = openat(
            folder.as_fd(),
            name,
            OFlag::O_WRONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(fail)?;
        write(&fd, value.as_bytes()).map_err(fail)?;
        Ok(())
    }
}
