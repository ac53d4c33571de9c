//! The line of what was found and is not marked yet.
//!
//! An object's mark bit is nearly always far away. So what was found waits until [`BATCH`] others are behind it while
//! the processor fetches the word with the bit, and then a batch is marked at once.
//!
//! What waits is not a pointer but a *word* of the mark table, with all bits that are to be set in it: objects that
//! lie in the same [`BLOCK_BYTES`] and are found one after the other are marked together, with one atomic operation.
//! In a list or a tree whose objects lie in the order in which they are found, that is one for twenty of them, and
//! atomic operations are most of what marking costs there.
//!
//! # Invariants
//! - W1. What waits has the arena of its block, and a word of that arena's mark table: both can be used as long as
//!   the cycle runs.
//! - W2. `block` is that of the youngest entry, or one that no address has if there is none.

use crate::addr::{Addr, Bytes, GRANULE_BYTES};
use crate::span::HeapArena;
use crate::sync::atomic::AtomicU64;
use core::ptr;

/// How many words are marked at once, and at least as many wait behind them then.
pub(super) const BATCH: usize = 32;

/// How many words wait at most.
pub(super) const AHEAD: usize = 2 * BATCH;

const _: () = assert!(AHEAD.is_power_of_two());

/// Bytes of the heap whose bits lie in one word of a table.
pub(super) const BLOCK_BYTES: usize = GRANULE_BYTES * u64::BITS as usize;

/// The number of no block.
const NO_BLOCK: usize = usize::MAX;

/// The number of the block in which `target` lies.
#[inline(always)]
pub(super) fn block_of(target: usize) -> usize {
    target / BLOCK_BYTES
}

/// The bit of `target` in the word of its block.
#[inline(always)]
pub(super) fn bit_of(target: usize) -> u64 {
    1 << (target / GRANULE_BYTES % u64::BITS as usize)
}

/// Where a block begins.
#[inline]
pub(super) fn base_of(block: usize) -> Addr {
    Addr::NULL + Bytes::new(block * BLOCK_BYTES)
}

/// Objects of one block that are to be marked.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    /// The arena of the block (W1).
    pub arena: *const HeapArena,
    /// The word with their bits (W1).
    pub word: *const AtomicU64,
    /// Their bits.
    pub bits: u64,
    /// The number of the block.
    pub block: usize,
}

const NOBODY: Waiting = Waiting { arena: ptr::null(), word: ptr::null(), bits: 0, block: NO_BLOCK };

/// The line.
pub(super) struct Ahead {
    entries: [Waiting; AHEAD],
    /// The number of the block of the youngest entry (W2).
    block: usize,
    first: usize,
    next: usize,
}

impl Ahead {
    /// Nobody waits.
    pub const fn new() -> Ahead {
        Ahead { entries: [NOBODY; AHEAD], block: NO_BLOCK, first: 0, next: 0 }
    }

    /// How many words wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.next.wrapping_sub(self.first)
    }

    /// Adds objects to the youngest entry, if it is that of their block; else nothing happens, and the
    /// result is false.
    #[inline(always)]
    pub fn join(&mut self, block: usize, bits: u64) -> bool {
        if block != self.block {
            return false;
        }
        self.entries[self.next.wrapping_sub(1) % AHEAD].bits |= bits;
        true
    }

    /// Lets an entry wait, for which there is room. True when there is none for the next one.
    #[inline(always)]
    pub fn push(&mut self, waiting: Waiting) -> bool {
        debug_assert!(self.len() < AHEAD);
        self.block = waiting.block;
        self.entries[self.next % AHEAD] = waiting;
        self.next = self.next.wrapping_add(1);
        self.len() == AHEAD
    }

    /// The entry that has waited longest, or one of those behind it.
    #[inline(always)]
    pub fn peek(&self, behind: usize) -> &Waiting {
        debug_assert!(behind < self.len());
        &self.entries[self.first.wrapping_add(behind) % AHEAD]
    }

    /// Gives an entry other bits, of those that it has.
    #[inline(always)]
    pub fn replace_bits(&mut self, behind: usize, bits: u64) {
        debug_assert!(behind < self.len());
        self.entries[self.first.wrapping_add(behind) % AHEAD].bits = bits;
    }

    /// Forgets the `count` entries that have waited longest. One is left at least.
    #[inline]
    pub fn forget(&mut self, count: usize) {
        debug_assert!(count < self.len());
        self.first = self.first.wrapping_add(count);
    }

    /// Takes out what has waited longest.
    #[inline]
    pub fn pop(&mut self) -> Option<Waiting> {
        if self.first == self.next {
            return None;
        }
        let oldest = self.entries[self.first % AHEAD];
        self.first = self.first.wrapping_add(1);
        if self.first == self.next {
            self.block = NO_BLOCK;
        }
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Random;
    use std::collections::VecDeque;

    #[test]
    fn what_waits_comes_out_in_order_and_with_all_its_bits() {
        let (mut ahead, mut twin) = (Ahead::new(), VecDeque::<(usize, u64)>::new());
        let mut random = Random::new(0xa4ead);
        for _ in 0..200_000 {
            if random.one_in(3) {
                let oldest = ahead.pop().map(|waiting| (waiting.block, waiting.bits));
                assert_eq!(oldest, twin.pop_front());
            } else {
                let target = random.below(3 * BLOCK_BYTES) & !(GRANULE_BYTES - 1);
                let (block, bits) = (block_of(target), bit_of(target));
                let joins = twin.back().is_some_and(|&(youngest, _)| youngest == block);
                assert_eq!(ahead.join(block, bits), joins);
                match twin.back_mut() {
                    Some((_, all)) if joins => *all |= bits,
                    _ => {
                        twin.push_back((block, bits));
                        let is_full = ahead.push(Waiting { bits, block, ..NOBODY });
                        assert_eq!(is_full, twin.len() == AHEAD);
                    }
                }
            }
            for (behind, &expected) in twin.iter().enumerate() {
                let waiting = ahead.peek(behind);
                assert_eq!((waiting.block, waiting.bits), expected);
            }
            if twin.len() == AHEAD {
                ahead.forget(BATCH);
                twin.drain(..BATCH);
            }
            assert_eq!(ahead.len(), twin.len());
        }
    }

    #[test]
    fn a_block_begins_where_its_first_bit_says() {
        let target = 0xc0_0012_3450;
        let base = base_of(block_of(target));
        let granule = bit_of(target).trailing_zeros() as usize;
        assert_eq!(base + Bytes::new(granule * GRANULE_BYTES), Addr::new(target));
        assert_eq!(block_of(base.get() - 1) + 1, block_of(target));
    }
}
