//! Network namespaces, held by fd and typed by whose they are.

use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::base::Result;

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
pub struct Netns<P: Place>(OwnedFd, PhantomData<fn() -> P>);

impl Netns<Host> {
    /// The namespace of the calling process.
    pub fn current() -> Result<Self> {
        todo!()
    }
}

impl Netns<Sandbox> {
    /// A fresh namespace, made on a throw-away thread (nothing to restore).
    pub fn create() -> Result<Self> {
        todo!()
    }

    /// Takes an fd received from another process; refuses what is not a
    /// network namespace (NS_GET_NSTYPE).
    pub fn from_fd(_fd: OwnedFd) -> Result<Self> {
        todo!()
    }
}

impl<P: Place> Netns<P> {
    pub fn id(&self) -> Result<NetnsId> {
        todo!()
    }

    pub fn try_clone(&self) -> Result<Self> {
        todo!()
    }

    /// Runs `f` inside the namespace, on a thread that enters it and never
    /// comes back.
    pub fn run<T: Send>(&self, _f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        todo!()
    }

    /// A socket born in the namespace, without a thread: enters, calls
    /// socket(2), comes back; aborts the process if it cannot come back.
    /// For the supervisor's per-connection path.
    pub fn socket(
        &self,
        _domain: nix::sys::socket::AddressFamily,
        _ty: nix::sys::socket::SockType,
        _flags: nix::sys::socket::SockFlag,
        _protocol: i32,
    ) -> Result<OwnedFd> {
        todo!()
    }
}

impl<P: Place> AsFd for Netns<P> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
