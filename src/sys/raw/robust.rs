//! A word in a file that the kernel marks when this process ends: a robust
//! futex (set_robust_list(2), Documentation/locking/robust-futex-ABI.rst).
//!
//! What leads the kernel to the word is in the file, too: memory that nobody
//! shares is the first that an out-of-memory kill takes (mm/oom_kill.c,
//! `__oom_reap_task_mm`), before the kernel has looked there.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::errno::Errno;
use nix::sys::uio::pwrite;

/// Bytes of a struct `robust_list_head`: the list, which is a pointer to
/// itself when it is empty; from an entry to its futex word, in bytes; and the
/// entry that is being put on the list or taken off, which counts.
pub const ROBUST_LIST_HEAD: usize = 24;

/// The mapped page, or null.
static MAPPED: AtomicPtr<libc::c_void> = AtomicPtr::new(ptr::null_mut());
/// The list that leads nowhere.
static EMPTY: [AtomicPtr<libc::c_void>; 3] =
    [const { AtomicPtr::new(ptr::null_mut()) }; ROBUST_LIST_HEAD / size_of::<u64>()];

/// When this process ends, and the four bytes at `word` of the file are its id
/// then, the kernel puts `FUTEX_OWNER_DIED` there. It goes by the
/// [`ROBUST_LIST_HEAD`] bytes at `head`, which are written now and are to stay.
/// One word a process: the last one that this was called for. For the main
/// thread alone (EPERM); the file must be open for reading and writing and reach
/// as far, both must be on one page, and aligned (EINVAL). A forked process has
/// none.
///
/// It takes the place of the list that glibc has made for robust mutexes, which
/// this program has none of.
pub fn mark_at_end(file: BorrowedFd<'_>, word: u64, head: u64) -> super::Result<()> {
    if nix::unistd::gettid() != nix::unistd::getpid() {
        return Err(Errno::EPERM);
    }
    let size = page_size()?;
    let page = size as u64;
    let start = word - word % page;
    let within = |at: u64, align: u64| match at.checked_sub(start) {
        Some(at) if at < page && at.is_multiple_of(align) => usize::try_from(at).ok(),
        _ => None,
    };
    let (Some(word_at), Some(head_at)) = (within(word, 4), within(head, 8)) else {
        return Err(Errno::EINVAL);
    };
    // SAFETY: a new mapping at an address of the kernel's choice, which nothing
    // but the kernel ever reads or writes through: a file that is cut short
    // meanwhile faults nobody here.
    let mapped = unsafe {
        libc::mmap(
            ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            i64::try_from(start).map_err(|_| Errno::EINVAL)?,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    let address = mapped.addr() + head_at;
    let offset = word_at.wrapping_sub(head_at);
    let fields = [address, offset, address].map(usize::to_ne_bytes);
    let written = i64::try_from(head)
        .map_err(|_| Errno::EINVAL)
        .and_then(|head| pwrite(file, fields.as_flattened(), head));
    let set = match written {
        Ok(ROBUST_LIST_HEAD) => set_robust_list(address),
        Ok(_) => Err(Errno::EIO),
        Err(errno) => Err(errno),
    };
    let unused = match set {
        Ok(()) => MAPPED.swap(mapped, Ordering::SeqCst),
        Err(_) => mapped,
    };
    unmap(unused, size);
    set
}

/// Nothing is marked any more.
pub fn mark_nothing() -> super::Result<()> {
    let address = ptr::from_ref(&EMPTY).addr();
    EMPTY[0].store(ptr::from_ref(&EMPTY).cast_mut().cast(), Ordering::SeqCst);
    set_robust_list(address)?;
    unmap(MAPPED.swap(ptr::null_mut(), Ordering::SeqCst), page_size()?);
    Ok(())
}

fn page_size() -> super::Result<usize> {
    // SAFETY: takes no pointer.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).map_err(|_| Errno::EINVAL)
}

fn set_robust_list(address: usize) -> super::Result<()> {
    // SAFETY: the kernel goes there when this thread ends, and nothing of this
    // program runs any more; its accesses may fault. It writes to an aligned word
    // that holds this thread's id, and to no other: the one that is meant, or, if
    // another process has written its own addresses into the shared head since,
    // none but by an accident that nobody can see any more.
    let done = unsafe { libc::syscall(libc::SYS_set_robust_list, address, ROBUST_LIST_HEAD) };
    Errno::result(done).map(drop)
}

fn unmap(page: *mut libc::c_void, size: usize) {
    if !page.is_null() {
        // SAFETY: a page that `mark_at_end` has mapped, and that nothing leads
        // to any more.
        unsafe { libc::munmap(page, size) };
    }
}
