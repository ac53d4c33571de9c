//! The kernel that reads word by word: for every processor, and what the others are held to.
//!
//! # Safety
//! Reads the words that the caller vouches for.
#![allow(unsafe_code)]

use super::WordMask;
use crate::addr::{Addr, Bytes, WORD_BYTES};
use crate::span::bits;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// Writes the values of the words of `mask` behind `base` that are not zero to `out`, and returns how many there
/// are.
///
/// # Safety
/// As [`super::Kernel::gather`]. At `out` is room for a page of words and one more.
pub(super) unsafe fn gather(base: Addr, mask: &WordMask, out: *mut usize) -> usize {
    let mut count = 0;
    for (index, &word) in mask.iter().enumerate() {
        bits::for_each_bit(word, |bit| {
            let at = base + Bytes::new((index * 64 + bit as usize) * WORD_BYTES);
            // SAFETY: the caller's promise.
            let field = unsafe { &*at.as_ptr::<AtomicUsize>() };
            // Acquire: the object that is found was published by the store that is read.
            let value = field.load(Ordering::Acquire);
            // Written in any case, and forgotten if it is zero: which words are is hard to guess.
            // SAFETY: no more values than words have been written before, so there is room.
            unsafe { out.wrapping_add(count).write(value) };
            count += usize::from(value != 0);
        });
    }
    count
}
