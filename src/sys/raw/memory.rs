//! The process's own memory: giving pages back.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// Gives free heap pages back to the kernel.
pub fn malloc_trim() {
    // SAFETY: takes no pointer; glibc locks its own arenas.
    unsafe { libc::malloc_trim(0) };
}

/// Address ranges of this program's own read-only segments, page aligned.
pub fn read_only_segments() -> Vec<(usize, usize)> {
    unsafe extern "C" fn visit(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        data: *mut libc::c_void,
    ) -> i32 {
        // SAFETY: dl_iterate_phdr passes a valid info whose dlpi_phdr points
        // to dlpi_phnum headers, and our own `data`, the Vec below.
        let (info, out, headers) = unsafe {
            let info = &*info;
            (
                info,
                &mut *data.cast::<Vec<(usize, usize)>>(),
                std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)),
            )
        };
        for header in headers {
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
                let (Ok(base), Ok(start), Ok(len)) = (
                    usize::try_from(info.dlpi_addr),
                    usize::try_from(header.p_vaddr),
                    usize::try_from(header.p_memsz),
                ) else {
                    continue;
                };
                let start = base.wrapping_add(start);
                out.push((start & !0xfff, start.wrapping_add(len) & !0xfff));
            }
        }
        0
    }
    let mut out: Vec<(usize, usize)> = Vec::with_capacity(8);
    // SAFETY: `visit` has the callback's type and does not unwind; `out`
    // outlives the call, which does not keep the pointer.
    unsafe { libc::dl_iterate_phdr(Some(visit), ptr::from_mut(&mut out).cast()) };
    out
}

/// Around a page of a file that is asked for, the kernel maps its neighbours, 64
/// KiB in all, but none across the border of a mapping (`do_fault_around`,
/// mm/memory.c). Puts a border at every `pages` pages of the segments (as
/// [`read_only_segments`] gives them); with `None` takes them all away again.
///
/// Each second piece gets the advice MADV_RANDOM, so that it differs from its
/// neighbours: for these segments that says nothing else, as their pages are in
/// the page cache.
pub fn fault_around(segments: &[(usize, usize)], pages: Option<usize>) {
    let advise = |start: usize, end: usize, advice: i32| {
        // SAFETY: MADV_NORMAL and MADV_RANDOM change how pages are read in, and
        // nothing that a program can see.
        unsafe {
            libc::madvise(
                ptr::with_exposed_provenance_mut(start),
                end.saturating_sub(start),
                advice,
            )
        };
    };
    for &(start, end) in segments {
        let Some(pages) = pages else {
            advise(start, end, libc::MADV_NORMAL);
            continue;
        };
        let piece = pages.saturating_mul(4096).max(4096);
        for at in (start..end).step_by(piece.saturating_mul(2)) {
            advise(at, end.min(at.saturating_add(piece)), libc::MADV_RANDOM);
        }
    }
}

/// Lets the kernel forget the page tables of the program's segments (as
/// [`read_only_segments`] gives them; the next access reads the page cache
/// again).
#[inline(always)]
pub fn forget_read_only(segments: &[(usize, usize)]) {
    for &(start, end) in segments {
        // SAFETY: the range is a file-backed segment that the program headers
        // say is never written, so MADV_DONTNEED loses nothing.
        unsafe {
            libc::syscall(
                libc::SYS_madvise,
                start,
                end.saturating_sub(start),
                libc::MADV_DONTNEED,
            )
        };
    }
}

/// Forgets as [`forget_read_only`] does, and waits until `fd` is readable or
/// `timeout_ms` is over, -1 being for ever. A signal ends it too.
///
/// One function, and all through syscall(2)'s one wrapper: whatever code runs
/// behind the forgetting is mapped again at once, 64 KiB around each fault.
#[inline(never)]
pub fn forget_read_only_and_wait(segments: &[(usize, usize)], fd: BorrowedFd<'_>, timeout_ms: i32) {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    forget_read_only(segments);
    let timeout = libc::timespec {
        tv_sec: libc::time_t::from(timeout_ms / 1000),
        tv_nsec: libc::c_long::from(timeout_ms % 1000) * 1_000_000,
    };
    let timeout = if timeout_ms < 0 {
        ptr::null()
    } else {
        ptr::from_ref(&timeout)
    };
    // SAFETY: one pollfd and one timespec (or none) of our own, which outlive
    // the call; no signal mask.
    unsafe {
        libc::syscall(
            libc::SYS_ppoll,
            ptr::from_mut(&mut poll),
            1_usize,
            timeout,
            ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
}

/// Lets the kernel take back the stack pages below the caller's frame, down to
/// `bottom`.
#[inline(never)]
pub fn forget_stack_below(bottom: usize) {
    let here = 0_u8;
    // A page between holds what this call itself puts there.
    let top = (ptr::from_ref(&here).expose_provenance() & !0xfff).saturating_sub(4096);
    if top > bottom {
        // SAFETY: [bottom, top) lies below every live frame of this thread's
        // stack (`bottom` is the mapping's start as /proc/self/maps gives it,
        // the page between covers this call, and a signal's frame is gone when
        // this code runs again): dead memory.
        unsafe {
            libc::madvise(
                ptr::with_exposed_provenance_mut(bottom),
                top - bottom,
                libc::MADV_DONTNEED,
            )
        };
    }
}
