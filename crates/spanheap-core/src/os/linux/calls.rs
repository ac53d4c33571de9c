//! The system calls behind the operations, with errors as numbers.
//!
//! `EINTR` is repeated here. So is `EAGAIN` from `madvise`, a few times: it means that the kernel was short
//! of something for a moment.
//!
//! # Safety
//! This file passes ranges on that belong to the callers of [`NativeOs`](super::NativeOs), who answer for
//! them (O1 and O2 of `os`): what is in a range that is unmapped, mapped over, made inaccessible or
//! dropped is forfeit.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int};

use libc::{MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_PRIVATE};

use crate::addr::{Addr, AddrRange, Bytes};
use crate::os::error::last_errno;

/// How often a call that the kernel declined "for the moment" is repeated.
const RETRIES: usize = 16;

/// Advices that the C library's headers may be too old for.
pub(super) mod advice {
    use core::ffi::c_int;

    pub(in super::super) const COLLAPSE: c_int = 25;
    pub(in super::super) const GUARD_INSTALL: c_int = 102;
    pub(in super::super) const GUARD_REMOVE: c_int = 103;
}

/// A move that leaves the mapping behind, without memory.
const MREMAP_DONTUNMAP: c_int = 4;

/// `prctl` commands for the names of mappings.
const PR_SET_VMA: c_int = 0x5356_4d41;
const PR_SET_VMA_ANON_NAME: c_int = 0;

fn check(status: c_int) -> Result<(), i32> {
    if status == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Repeats a call for as long as a signal interrupts it.
fn uninterrupted<T>(mut call: impl FnMut() -> Result<T, i32>) -> Result<T, i32> {
    loop {
        match call() {
            Err(libc::EINTR) => {}
            result => return result,
        }
    }
}

/// A new private mapping of anonymous memory, at `place` if that is free.
pub(super) fn map_new(
    place: Addr,
    bytes: Bytes,
    protection: c_int,
    flags: c_int,
) -> Result<Addr, i32> {
    debug_assert!(flags & MAP_FIXED == 0);
    map_pages(place, bytes, protection, flags)
}

/// Replaces whatever is in a range that is ours.
pub(super) fn map_over(range: AddrRange, protection: c_int, flags: c_int) -> Result<(), i32> {
    map_pages(range.base(), range.bytes(), protection, flags | MAP_FIXED)
        .map(|placed| debug_assert_eq!(placed, range.base()))
}

fn map_pages(place: Addr, bytes: Bytes, protection: c_int, flags: c_int) -> Result<Addr, i32> {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | flags;
    uninterrupted(|| {
        // SAFETY: anonymous memory at a place of the kernel's choice touches nothing that exists;
        // with MAP_FIXED, which only `map_over` passes, the range is ours and its contents are
        // forfeit.
        let start = unsafe { libc::mmap(place.as_ptr(), bytes.get(), protection, flags, -1, 0) };
        if start == MAP_FAILED { Err(last_errno()) } else { Ok(Addr::of(start.cast_const())) }
    })
}

/// Maps a range that may have lost its mapping. That there is one is an error with the number `EEXIST`.
pub(super) fn map_hole(range: AddrRange, protection: c_int, flags: c_int) -> Result<(), i32> {
    let flags = flags | libc::MAP_FIXED_NOREPLACE;
    let placed = map_pages(range.base(), range.bytes(), protection, flags)?;
    if placed == range.base() {
        return Ok(());
    }
    // A kernel to which the flag says nothing takes the place for a hint.
    let _ = unmap(AddrRange::at(placed, range.bytes()));
    Err(libc::EEXIST)
}

/// Whether the process has a limit on its addresses or on what it may write to.
pub(super) fn is_limited() -> bool {
    let is_limit = |resource| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel writes two numbers into a record that is made for them.
        let status = unsafe { libc::getrlimit(resource, &mut limit) };
        status != 0 || limit.rlim_cur != libc::RLIM_INFINITY
    };
    is_limit(libc::RLIMIT_AS) || is_limit(libc::RLIMIT_DATA)
}

/// Whether something is mapped at all pages of a range, of 2 MiB at most.
pub(super) fn is_mapped(range: AddrRange) -> bool {
    // The kernel says something of each page; pages have 4 KiB or more.
    let mut answers = [0u8; (2 << 20) / 4096];
    debug_assert!(range.bytes().get() / 4096 <= answers.len());
    // SAFETY: the kernel writes a byte for each page of the range, for which there is room; any range may be asked about.
    let status = unsafe {
        libc::mincore(range.base().as_ptr(), range.bytes().get(), answers.as_mut_ptr().cast())
    };
    status == 0
}

pub(super) fn unmap(range: AddrRange) -> Result<(), i32> {
    uninterrupted(|| {
        // SAFETY: the range is ours and its owner gives it up.
        let status = unsafe { libc::munmap(range.base().as_ptr(), range.bytes().get()) };
        check(status)
    })
}

/// Moves the memory of a range to where nothing is, if possible to `hint`, and leaves its mapping behind. Where nothing
/// is moved, nothing has changed.
pub(super) fn move_away(range: AddrRange, hint: Addr) -> Result<Addr, i32> {
    // Without MREMAP_FIXED, the place is a hint.
    relocate(range, hint, libc::MREMAP_MAYMOVE | MREMAP_DONTUNMAP)
}

/// Moves the memory of a range to `place`, of which the mapping is replaced, and leaves nothing behind.
pub(super) fn move_back(range: AddrRange, place: Addr) -> Result<(), i32> {
    let moved = relocate(range, place, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
    moved.map(|placed| debug_assert_eq!(placed, place))
}

/// Moves the memory of a range to `place`, of which the mapping is replaced, and leaves its mapping behind, without
/// memory. Where that fails, there may be nothing any more at the place.
pub(super) fn move_onto(range: AddrRange, place: Addr) -> Result<(), i32> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | MREMAP_DONTUNMAP;
    relocate(range, place, flags).map(|placed| debug_assert_eq!(placed, place))
}

fn relocate(range: AddrRange, place: Addr, flags: c_int) -> Result<Addr, i32> {
    let (base, bytes) = (range.base().as_ptr(), range.bytes().get());
    uninterrupted(|| {
        // SAFETY: the range is ours, and nobody uses what is in it. With MREMAP_FIXED, which only `move_back` and
        // `move_onto` pass, what is at the place is ours and forfeit; without, nothing that exists is touched.
        let start = unsafe { libc::mremap(base, bytes, bytes, flags, place.as_ptr::<u8>()) };
        if start == MAP_FAILED { Err(last_errno()) } else { Ok(Addr::of(start.cast_const())) }
    })
}

pub(super) fn protect(range: AddrRange, protection: c_int) -> Result<(), i32> {
    uninterrupted(|| {
        // SAFETY: the range is ours, and its owner asked for the change of state, so no reference
        // into it is live that the new protection would invalidate.
        let status =
            unsafe { libc::mprotect(range.base().as_ptr(), range.bytes().get(), protection) };
        check(status)
    })
}

pub(super) fn advise(range: AddrRange, advice: c_int) -> Result<(), i32> {
    let call = || {
        // SAFETY: the range is ours; the advices in use either leave the contents alone or drop or
        // guard contents that the owner has declared forfeit.
        let status = unsafe { libc::madvise(range.base().as_ptr(), range.bytes().get(), advice) };
        check(status)
    };
    let mut result = uninterrupted(call);
    for _ in 0..RETRIES {
        if result != Err(libc::EAGAIN) {
            break;
        }
        std::thread::yield_now();
        result = uninterrupted(call);
    }
    result
}

/// Whether the kernel knows an advice. It looks at the number before it looks at the range, so an empty
/// range asks the question and nothing more.
pub(super) fn knows_advice(advice: c_int) -> Result<(), i32> {
    advise(AddrRange::at(Addr::NULL, Bytes::ZERO), advice)
}

/// Gives the mappings of a range a name. Splits a mapping that the range is a part of.
pub(super) fn set_name(range: AddrRange, name: &CStr) -> Result<(), i32> {
    let (base, bytes) = (range.base().get(), range.bytes().get());
    // SAFETY: the kernel copies the name, which is terminated and lives during the call, and changes
    // nothing but how mappings are listed.
    let status = unsafe {
        libc::prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME as libc::c_ulong, base, bytes, name.as_ptr())
    };
    check(status)
}
