//! A word in a file that the kernel marks when this process ends: a robust
//! futex (set_robust_list(2), Documentation/locking/robust-futex-ABI.rst).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicIsize, AtomicPtr, Ordering};

use nix::errno::Errno;

/// struct `robust_list`
#[repr(C)]
struct Node {
    next: AtomicPtr<Node>,
}

/// struct `robust_list_head`
#[repr(C)]
struct Head {
    list: Node,
    /// From a node to its futex word, in bytes.
    futex_offset: AtomicIsize,
    list_op_pending: AtomicPtr<Node>,
}

/// The main thread's list: empty, or with `NODE` alone on it.
static HEAD: Head = Head {
    list: Node {
        next: AtomicPtr::new(ptr::null_mut()),
    },
    futex_offset: AtomicIsize::new(0),
    list_op_pending: AtomicPtr::new(ptr::null_mut()),
};
static NODE: Node = Node {
    next: AtomicPtr::new(ptr::null_mut()),
};
/// The mapped page, or null.
static MAPPED: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());

/// When this process ends, and the four bytes at `offset` of the file are its
/// id then, the kernel puts `FUTEX_OWNER_DIED` there. One word a process: the
/// last one that this was called for. For the main thread alone (EPERM); the
/// file must be open for reading and writing and reach as far (EINVAL if the
/// word is not aligned). A forked process has none.
///
/// It takes the place of the list that glibc has made for robust mutexes, which
/// this program has none of.
pub fn mark_at_end(file: BorrowedFd<'_>, offset: u64) -> super::Result<()> {
    if nix::unistd::gettid() != nix::unistd::getpid() {
        return Err(Errno::EPERM);
    }
    if !offset.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let too_far = |_| Errno::EINVAL;
    // SAFETY: takes no pointer.
    let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let size = usize::try_from(page_size).map_err(too_far)?;
    let page_size = size as u64;
    let within = usize::try_from(offset % page_size).map_err(too_far)?;
    let start = i64::try_from(offset - offset % page_size).map_err(too_far)?;
    // SAFETY: a new mapping at an address of the kernel's choice, which nothing
    // but the kernel ever reads or writes through: a file that is cut short
    // meanwhile faults nobody here.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            start,
        )
    };
    if page == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    let head = ptr::from_ref(&HEAD.list).cast_mut();
    let node = ptr::from_ref(&NODE).cast_mut();
    // Empty while the offset is neither the old nor the new one.
    HEAD.list.next.store(head, Ordering::SeqCst);
    let word = page.addr().wrapping_add(within);
    HEAD.futex_offset.store(
        word.wrapping_sub(node.addr()).cast_signed(),
        Ordering::SeqCst,
    );
    NODE.next.store(head, Ordering::SeqCst);
    HEAD.list.next.store(node, Ordering::SeqCst);
    let old = MAPPED.swap(page, Ordering::SeqCst);
    if !old.is_null() {
        // SAFETY: the page that an earlier call has mapped; the list does not
        // lead there any more.
        unsafe { libc::munmap(old, size) };
    }
    // SAFETY: HEAD and NODE are statics with the kernel's layout, each pointer
    // of theirs null or to one of them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_set_robust_list,
            ptr::from_ref(&HEAD),
            size_of::<Head>(),
        )
    };
    Errno::result(done).map(drop)
}
