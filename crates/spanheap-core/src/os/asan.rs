//! What AddressSanitizer is told about managed memory.
//!
//! The sanitizer knows what the Rust allocator hands out. It knows nothing of slots: to it, a heap
//! is one large mapping in which every access is in order. So the manager tells it, byte by byte,
//! what may be accessed, and an access to anything else ends the process with a report at the very
//! instruction, and not where the damage shows later.
//!
//! ```text
//!   pages grown, free, unused ................... forbidden
//!   a span's pages, from the span's beginning ... forbidden
//!   an object that is handed out ................ permitted, as many bytes as were asked for
//!   a slot whose object was found dead .......... forbidden (after its destructor, if it has one)
//!   what is taken from the system or given back . permitted: it is nobody's, or somebody else's
//! ```
//!
//! Slots that a mutator has taken in a run, and never hands out, are thus forbidden all the time:
//! taking a run and giving it back needs nothing. What is behind an object in its slot is forbidden,
//! too, to the byte. Two exceptions: the last word of a slot that counts its values, and the rest of
//! a slice with pointers at fixed words, in which the collector reads zeros up to the end.
//!
//! # When it exists
//! Only in builds with `--cfg spanheap_asan`, which are made with `-Zsanitizer=address`
//! (`scripts/sanitize address` says both). In all others the functions are empty, and no instruction
//! is left of a call. The compiler's own `cfg(sanitize = "address")` would need no flag of ours, but is
//! unstable.
//!
//! # Invariants
//! - Z1. Between two calls of the manager, the bytes of a span that are permitted belong to objects that
//!   are alive, or that nobody has found dead yet, or that wait for their destructor.
//! - Z2. No byte is forbidden that has been released to the system. The next mapping at its address may be
//!   anybody's.
//!
//! Slots are multiples of 8 bytes, which is what the sanitizer keeps one byte of its own for. So
//! neighbours never share one, and nothing here needs a lock: who forbids or permits owns the slot.
//!
//! # Safety
//! The two foreign functions change the sanitizer's own memory, and believe any range of the address
//! space that programs may use.
#![allow(unsafe_code)]

use crate::addr::{Addr, AddrRange, Bytes};

/// Whether this is a build in which the sanitizer is told anything.
pub(crate) const ON: bool = cfg!(spanheap_asan);

/// The runtime of the sanitizer.
#[cfg(spanheap_asan)]
mod runtime {
    unsafe extern "C" {
        pub(super) fn __asan_poison_memory_region(at: *const u8, bytes: usize);
        pub(super) fn __asan_unpoison_memory_region(at: *const u8, bytes: usize);
    }
}

/// From now on an access to the bytes is an error.
#[inline(always)]
pub(crate) fn forbid(at: Addr, bytes: Bytes) {
    #[cfg(spanheap_asan)]
    // SAFETY: the range is the manager's, so it is memory of the program; nothing in it changes.
    unsafe {
        runtime::__asan_poison_memory_region(at.as_ptr(), bytes.get());
    }
    #[cfg(not(spanheap_asan))]
    let _ = (at, bytes);
}

/// [`forbid`], for all of a range.
#[inline(always)]
pub(crate) fn forbid_range(range: AddrRange) {
    forbid(range.base(), range.bytes());
}

/// From now on the bytes may be accessed.
#[inline(always)]
pub(crate) fn permit(at: Addr, bytes: Bytes) {
    #[cfg(spanheap_asan)]
    // SAFETY: as in `forbid`.
    unsafe {
        runtime::__asan_unpoison_memory_region(at.as_ptr(), bytes.get());
    }
    #[cfg(not(spanheap_asan))]
    let _ = (at, bytes);
}

/// [`permit`], for all of a range.
#[inline(always)]
pub(crate) fn permit_range(range: AddrRange) {
    permit(range.base(), range.bytes());
}
