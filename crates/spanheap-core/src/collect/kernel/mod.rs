//! Kernels: reading many pointer words of a page at once.
//!
//! ```text
//!   objects to scan, a bit per granule      (marks & !scanned)
//!     --[Pattern::expand]-->  words to read, a bit per word of the page
//!     --[Kernel::gather]-->   the values of these words that are not zero, one behind the other
//! ```
//! A kernel is a way to do the second step: word by word, or four or eight of them with the vector instructions of
//! the processor. All of them find the same values in the same order; which one it is, is asked of the processor when
//! the program runs.
//!
//! # What a kernel may assume
//! Words of a page change while it is read: mutators store pointers, and words beside them that are none. So a kernel
//! reads no word that is not asked for (masked loads do not access the others), and each word that is asked for at
//! once and in one piece. The vector kernels load in assembly: to the language, such a block is a function that
//! might contain one atomic load for each word, and on x86-64 every aligned word of a vector load is read in one
//! piece, and with acquire.
//!
//! # Which one
//! [`Kernel::best`] is the widest that the processor has. Builds that are to be looked at from outside take the
//! scalar one: Miri and the sanitizers see only what the compiler has made.
//!
//! # Invariants
//! - K1. A [`Kernel`] exists only where the processor has its instructions.
//! - K2. A kernel writes at most [`SLACK`] values behind those that it has found.
//!
//! # Safety
//! Calls the kernels (K1), and hands out what they have written.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod pattern;
mod scalar;

pub use pattern::{PAGE_WORDS, Pattern, WordMask};

use crate::addr::Addr;
use crate::sync::atomic::{AtomicU8, Ordering};
use core::fmt;
use core::mem::MaybeUninit;

/// How many values a kernel may write behind the last one: a vector of them.
const SLACK: usize = 8;

/// A way to read words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Way {
    Scalar = 1,
    #[cfg(target_arch = "x86_64")]
    Avx2 = 2,
    #[cfg(target_arch = "x86_64")]
    Avx512 = 3,
}

/// A kernel that the processor has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kernel(Way);

/// [`Kernel::best`] as a number; 0: not asked yet.
static BEST: AtomicU8 = AtomicU8::new(0);

impl Kernel {
    /// Word by word.
    pub const SCALAR: Kernel = Kernel(Way::Scalar);

    /// Four words at a time, if the processor has AVX2.
    pub fn avx2() -> Option<Kernel> {
        #[cfg(target_arch = "x86_64")]
        if !cfg!(miri) && is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt") {
            return Some(Kernel(Way::Avx2));
        }
        None
    }

    /// Eight words at a time, if the processor has the foundation of AVX-512, and its byte masks.
    pub fn avx512() -> Option<Kernel> {
        #[cfg(target_arch = "x86_64")]
        if !cfg!(miri)
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("popcnt")
        {
            return Some(Kernel(Way::Avx512));
        }
        None
    }

    /// The kernel called `name`, if the processor has it: `scalar`, `avx2`, `avx512`.
    pub fn named(name: &str) -> Option<Kernel> {
        Kernel::all().find(|kernel| kernel.name() == name)
    }

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self.0 {
            Way::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Way::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Way::Avx512 => "avx512",
        }
    }

    /// All kernels that the processor has, the narrowest first.
    pub fn all() -> impl Iterator<Item = Kernel> {
        [Some(Kernel::SCALAR), Kernel::avx2(), Kernel::avx512()].into_iter().flatten()
    }

    /// The widest kernel that the processor has.
    #[inline]
    pub fn best() -> Kernel {
        match BEST.load(Ordering::Relaxed) {
            0 => Kernel::ask(),
            // Whoever has stored the number has had the kernel (K1).
            #[cfg(target_arch = "x86_64")]
            2 => Kernel(Way::Avx2),
            #[cfg(target_arch = "x86_64")]
            3 => Kernel(Way::Avx512),
            _ => Kernel::SCALAR,
        }
    }

    #[cold]
    fn ask() -> Kernel {
        let is_watched = cfg!(any(spanheap_asan, spanheap_tsan));
        let best = Kernel::all().take(if is_watched { 1 } else { usize::MAX }).last();
        let best = best.unwrap_or(Kernel::SCALAR);
        BEST.store(best.0 as u8, Ordering::Relaxed);
        best
    }

    /// Puts the values of the words of `mask` behind `base` that are not zero into `found`, in rising order of their
    /// addresses. What was there before is forgotten.
    ///
    /// # Safety
    /// `base` is aligned to a word. The words of `mask` can be read, and what changes them meanwhile is
    /// atomic.
    #[inline]
    pub unsafe fn gather(self, base: Addr, mask: &WordMask, found: &mut Found) {
        debug_assert!(base.is_aligned(size_of::<usize>()));
        let out = found.values.as_mut_ptr().cast::<usize>();
        found.len = match self.0 {
            // SAFETY: the caller's promise about the words; there is room for a page of them, and for a vector
            // behind them (K2).
            Way::Scalar => unsafe { scalar::gather(base, mask, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the same, and K1.
            Way::Avx2 => unsafe { avx2::gather(base, mask, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the same, and K1.
            Way::Avx512 => unsafe { avx512::gather(base, mask, out) },
        };
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a kernel has found on a page.
pub struct Found {
    values: [MaybeUninit<usize>; PAGE_WORDS + SLACK],
    len: usize,
}

impl Found {
    /// Nothing. Costs next to nothing: the values are not initialised.
    #[inline]
    pub const fn new() -> Found {
        Found { values: [const { MaybeUninit::uninit() }; PAGE_WORDS + SLACK], len: 0 }
    }

    /// The values.
    #[inline]
    pub fn values(&self) -> &[usize] {
        let values = &self.values[..self.len];
        // SAFETY: the last kernel has written so many.
        unsafe { core::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
    }
}

impl Default for Found {
    fn default() -> Found {
        Found::new()
    }
}

#[cfg(test)]
mod tests;
