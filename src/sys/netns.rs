//! Network namespaces, held by fd and typed by whose they are.

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::thread::{self, ThreadId};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use nix::sys::stat::Mode;

use super::raw;
use crate::base::{Error, Result, Subject};

/// The network namespace that dockless was started in.
#[derive(Clone, Copy, Debug)]
pub enum Host {}
/// A container's (or lab machine's) network namespace.
#[derive(Clone, Copy, Debug)]
pub enum Sandbox {}

/// Which side a namespace, a socket or an interface index belongs to.
pub trait Place: sealed::Sealed + 'static {}
impl Place for Host {}
impl Place for Sandbox {}
mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Host {}
    impl Sealed for super::Sandbox {}
}

/// Device and inode of the namespace file: its identity while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsId {
    pub dev: u64,
    pub ino: u64,
}

/// An open network namespace.
#[derive(Debug)]
pub struct Netns<P: Place> {
    fd: OwnedFd,
    /// Where the thread that calls [`Netns::socket`] lives, opened at its
    /// first call.
    home: OnceLock<(ThreadId, OwnedFd)>,
    place: PhantomData<fn() -> P>,
}

/// Threads that enter a namespace do one thing and end: no need for the
/// default 2 MiB.
const STACK: usize = 128 * 1024;

fn fail(op: &'static str, errno: Errno) -> Error {
    let error = Error::sys(op, Subject::None, errno);
    match errno {
        Errno::EPERM => error.hint("needs root, or a user namespace of its own"),
        Errno::ENOSPC => error.hint("too many namespaces: see /proc/sys/user/max_net_namespaces"),
        _ => error,
    }
}

/// The calling thread's namespace.
fn own() -> Result<OwnedFd> {
    open(
        "/proc/thread-self/ns/net",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .map_err(|e| fail("open network namespace", e))
}

impl Netns<Host> {
    /// The namespace of the calling process (of the calling thread, where a
    /// test has moved it).
    pub fn current() -> Result<Self> {
        own().map(Self::new)
    }
}

impl Netns<Sandbox> {
    /// A fresh namespace, made on a throw-away thread (nothing to restore).
    pub fn create() -> Result<Self> {
        Self::create_with(|| Ok(())).map(|(netns, ())| netns)
    }

    /// The same, and what `f` brings out of it: one thread for both.
    pub fn create_with<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<(Self, T)> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| fail("create network namespace", e))?;
            Ok((own()?, f()?))
        })
        .map(|(fd, brought)| (Self::new(fd), brought))
    }

    /// Takes an fd received from another process; refuses what is not a
    /// network namespace (NS_GET_NSTYPE).
    pub fn from_fd(fd: OwnedFd) -> Result<Self> {
        let kind = raw::namespace_kind(fd.as_fd()).map_err(|e| fail("identify namespace", e))?;
        if kind == libc::CLONE_NEWNET {
            Ok(Self::new(fd))
        } else {
            Err(Error::state(
                "identify namespace",
                Subject::None,
                "not a network namespace",
            ))
        }
    }
}

impl<P: Place> Netns<P> {
    fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            home: OnceLock::new(),
            place: PhantomData,
        }
    }

    pub fn id(&self) -> Result<NetnsId> {
        let stat =
            nix::sys::stat::fstat(&self.fd).map_err(|e| fail("identify network namespace", e))?;
        Ok(NetnsId {
            dev: stat.st_dev,
            ino: stat.st_ino,
        })
    }

    pub fn try_clone(&self) -> Result<Self> {
        self.fd
            .try_clone()
            .map(Self::new)
            .map_err(|e| Error::sys("duplicate network namespace", Subject::None, e))
    }

    /// Moves the calling thread into the namespace, for good: for a child
    /// process on its way to exec, or a thread of its own.
    pub fn enter(&self) -> Result<()> {
        setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(|e| fail("enter network namespace", e))
    }

    /// Runs `f` inside the namespace, on a thread that enters it and never
    /// comes back.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_thread(|| {
            self.enter()?;
            f()
        })
    }

    /// A socket born in the namespace, without a thread: enters, calls
    /// socket(2), comes back; aborts the process if it cannot come back.
    /// For the supervisor's per-connection path. CLOEXEC always.
    ///
    /// A thread that uses this must not move between namespaces by itself:
    /// where "back" is, is remembered from its first call.
    pub fn socket(
        &self,
        domain: AddressFamily,
        ty: SockType,
        flags: SockFlag,
        protocol: i32,
    ) -> Result<OwnedFd> {
        let me = thread::current().id();
        if self.home.get().is_none() {
            let fd = own()?;
            // Not every namespace that one is in may be entered.
            setns(&fd, CloneFlags::CLONE_NEWNET).map_err(|e| {
                fail("come back to the network namespace", e).hint(
                    "it belongs to another user namespace: \
                     `unshare -Urn` gives one of your own along",
                )
            })?;
            // Lost to another thread's first call: then that one's stays.
            let _ = self.home.set((me, fd));
        }
        let opened;
        let home = match self.home.get() {
            Some((thread, fd)) if *thread == me => fd,
            _ => {
                opened = own()?;
                &opened
            }
        };
        self.enter()?;
        let socket = raw::socket(domain as i32, ty as i32 | flags.bits(), protocol);
        if setns(home, CloneFlags::CLONE_NEWNET).is_err() {
            // Going on would make every later socket, link and address in the
            // wrong place.
            std::process::abort();
        }
        socket.map_err(|e| fail("create socket", e))
    }
}

/// Runs `f` on a thread of its own and gives back what it returned.
fn on_thread<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, f)
            .map_err(|e| Error::sys("start thread", Subject::None, e))?;
        match handle.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl<P: Place> AsFd for Netns<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<P: Place> From<Netns<P>> for OwnedFd {
    fn from(netns: Netns<P>) -> Self {
        netns.fd
    }
}
