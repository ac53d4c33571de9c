//! The memory of span records, which comes and goes with the spans.
//!
//! A heap of small objects has a record for every few pages. When it has shrunk for good, most records are
//! free, and a hundredth of what the heap once was would be theirs for ever. So free records are kept
//! together, and their memory goes back to the system.
//!
//! ```text
//!   block of 256 KiB, aligned: | leaf | leaf | ... |      leaf: a physical page, with 19 records in 4 KiB
//!
//!   cold --alloc--> partial <--> full
//!    ^                |  ^
//!    |           free v  | alloc
//!    |              empty --retire_empty--> retired --return_retired--> cold
//!    |                                         |  (alloc, if there is nothing better: partial)
//!    +-----------------------------------------+
//! ```
//!
//! A record is taken from the lowest leaf that has some in use and some free: so those that live long come
//! together at the bottom, and the leaves above become empty. Blocks are numbered as they come, *low* means a
//! low number, and [`index`] finds the lowest. What is known of a block is in [`block`], apart from its memory.
//!
//! # The grace period
//! A record may be read by somebody who does not own its span, and has no lock that would keep it (P3 in
//! [`crate::span`]). While memory only goes from span to span, he finds some record, and notices. Memory that
//! has gone back is no record. So an empty leaf is *retired* when a cycle begins, and its memory goes back
//! when the first grace period of that cycle is over. Why nobody reads it after that:
//!
//! - R1. *Where pointers come from.* Who does not own a span gets to its record by the page map alone. The
//!   owner of a span takes it out of the map before he gives the record up, which he does under the lock of
//!   the page heap ([`PageHeap`]'s `give_back`). A leaf is retired under the same lock. So when
//!   it is retired, the map names none of its records, and it names none until one has been taken again, by
//!   which the leaf is not retired any more.
//! - R2. *Who has one.* [`lookup`](crate::span::lookup) and the
//!   [reclaimer](crate::heap::reclaim) read the map and follow what they find, within one call. Mutators call
//!   both, inside a closure; nobody else does. The marker and the checkmark follow it for objects that are
//!   marked, whose spans stay, on the collector's thread, which is the one that retires and returns.
//!   Those who explain the heap follow it under the page heap's lock and until they release it: what the map
//!   names then is in use (I1 in [`inspect`](super::inspect)). A walk over all spans is for those who know that
//!   no span comes or goes.
//! - R3. *When they have lost it.* A closure that was open when the grace period began has been left when it
//!   is over, and its pointers with it. One that was not, began behind the heavy fence of the collector, which
//!   comes after the retiring; so it finds the map as it was then or later, and R1 says what is in it.
//!
//! A retired leaf that is allocated from after all is in use or empty again, and is not returned: only what is
//! retired is, and leaves are retired only by the thread that begins the grace period, just before. A heap
//! that has come to rest does not wait for a next cycle: between two of them, the scavenger has the same done.
//!
//! What comes back from the system is zeroed, here if need be, as P4 wants it.
//!
//! # How much
//! A quarter as many empty leaves as are in use stay, so that a heap that breathes does not pay for
//! faults; the peak of a breath is when a cycle begins, and that is when leaves are retired, so what
//! is empty then was not needed. The address space of blocks stays until the end, and so does what is known of
//! a block: some 600 bytes.
//!
//! # Locking
//! None here: the page heap's lock surrounds it.
//!
//! # Safety
//! What is known of blocks lies in persistent memory, which is released after this pool. The number at the
//! beginning of a leaf is written when its memory comes, and by nobody else; records are not looked into.
#![allow(unsafe_code)]

mod block;
mod index;

use super::{Inner, PageHeap};
use crate::addr::{Addr, AddrRange, Bytes};
use crate::bitmap;
use crate::offheap::Persistent;
use crate::os::{Category, Os, OsError};
use crate::span::Span;
use block::{Block, LeafState, Shape};
use core::ptr::NonNull;
use index::{End, Index};
use std::time::Duration;

/// Of so many leaves in use, one empty leaf is kept.
const RESERVE: usize = 4;

/// Of so many blocks leaves are retired between two looks at the lock.
const RETIRED_AT_ONCE: usize = 16;

/// How long it takes until somebody who was woken has got a lock.
const WAKING_UP: Duration = Duration::from_micros(50);

/// The span records of a heap.
pub(super) struct SpanRecords {
    shape: Shape,
    index: Index,
    /// A description that waits for its block, which the system has refused.
    spare: Option<NonNull<Block>>,
    /// Where the next block would lie beside the last one.
    hint: Option<Addr>,
    /// Records in use.
    in_use: usize,
    /// Leaves that are partial or full.
    leaves_in_use: usize,
    /// Leaves that are empty, and not retired.
    leaves_empty: usize,
    /// Leaves without memory.
    leaves_cold: usize,
}

impl SpanRecords {
    /// No records yet.
    pub(super) fn new(os: &Os) -> SpanRecords {
        SpanRecords {
            shape: Shape::new(os),
            index: Index::new(),
            spare: None,
            hint: None,
            in_use: 0,
            leaves_in_use: 0,
            leaves_empty: 0,
            leaves_cold: 0,
        }
    }

    /// A record: zeroed memory, or what a former span has left (P4). It is valid until it is freed or the
    /// pool is released. `os` and `memory` are the same ones in every call. No retired leaf goes back from which
    /// a record was taken.
    ///
    /// # Errors
    /// When the system has no memory; nothing has changed but what is ready to be tried again.
    pub(super) fn alloc(&mut self, os: &Os, memory: &Persistent) -> Result<NonNull<Span>, OsError> {
        let lowest = |state| self.index.find(state, End::Lowest).map(|block| (block, state));
        let found = lowest(LeafState::Partial)
            .or_else(|| lowest(LeafState::Empty))
            .or_else(|| lowest(LeafState::Retired));
        let (block, state) = match found {
            Some(found) => found,
            None => (self.warm_up(os, memory)?, LeafState::Empty),
        };
        let shape = self.shape;
        let record = self.change(block, |block| {
            let leaf = block.leaves_in(state).trailing_zeros() as usize;
            block.take(&shape, leaf)
        });
        self.in_use += 1;
        self.leaves_in_use += usize::from(state != LeafState::Partial);
        self.leaves_empty -= usize::from(state == LeafState::Empty);
        Ok(NonNull::new(record.as_ptr()).expect("a record is not at address 0"))
    }

    /// Takes a record back. Its contents stay until it is handed out again, or for as long as somebody could
    /// look at them.
    ///
    /// # Panics
    /// When the record is not in use.
    ///
    /// # Safety
    /// The record came from this pool, which has not been released since. Nobody uses it any more, except in
    /// the ways that P3 and P4 allow for free records.
    pub(super) unsafe fn free(&mut self, record: NonNull<Span>) {
        let (addr, shape) = (Addr::of(record.as_ptr()), self.shape);
        // SAFETY: a leaf with a record in use is ready, and begins with a number that only this file
        // writes. If the record is free and its leaf cold, any number may be found, or none at all.
        let number = unsafe { shape.number_at(addr).read() };
        let block = self.index.block(number).filter(|block| {
            // SAFETY: blocks live as long as the pool.
            unsafe { block.as_ref() }.range(&shape).contains(addr)
        });
        let is_empty = block.and_then(|block| {
            self.change(block, |block| {
                let (leaf, _) = block.place(&shape, addr);
                block.put(&shape, addr).then(|| block.state(leaf) == Some(LeafState::Empty))
            })
        });
        let Some(is_empty) = is_empty else {
            panic!("the span record at {addr} was freed twice, or never came from this pool");
        };
        self.in_use -= 1;
        self.leaves_in_use -= usize::from(is_empty);
        self.leaves_empty += usize::from(is_empty);
    }

    /// Retires empty leaves of so many blocks, highest first, up to the reserve; false when there are no more. A
    /// grace period has to begin between this and [`SpanRecords::return_retired`], and to end.
    pub(super) fn retire_empty(&mut self, blocks: usize) -> bool {
        let reserve = self.leaves_in_use.div_ceil(RESERVE);
        for _ in 0..blocks {
            if self.leaves_empty <= reserve {
                return false;
            }
            let surplus = self.leaves_empty - reserve;
            let highest = self.index.find(LeafState::Empty, End::Highest);
            let block = highest.expect("empty leaves are counted");
            let retired = self.change(block, |block| {
                let mut leaves = block.leaves_in(LeafState::Empty);
                while leaves.count_ones() as usize > surplus {
                    leaves &= leaves - 1;
                }
                block.change(leaves, LeafState::Empty, LeafState::Retired);
                leaves.count_ones() as usize
            });
            self.leaves_empty -= retired;
        }
        self.leaves_empty > reserve
    }

    /// Returns the memory of one block's retired leaves to the system; false when none is left.
    ///
    /// # Safety
    /// Since leaves were retired last, a grace period has passed: everybody who could have had a pointer to a
    /// free record has lost it (R1 to R3).
    pub(super) unsafe fn return_retired(&mut self, os: &Os) -> bool {
        let Some(block) = self.index.find(LeafState::Retired, End::Highest) else { return false };
        let shape = self.shape;
        self.leaves_cold += self.change(block, |block| {
            let leaves = block.leaves_in(LeafState::Retired);
            for run in bitmap::runs(&[leaves]) {
                let range = block.leaf_range(&shape, run.start, run.len);
                // SAFETY: O1: leaves of this pool, changed under its owner's lock. O2: none of their records is in
                // use, and by the caller's promise nobody reads those that are free.
                unsafe { os.unused(range, range.bytes()) };
            }
            block.change(leaves, LeafState::Retired, LeafState::Cold);
            leaves.count_ones() as usize
        });
        true
    }

    /// Calls `visit` with each block. What of it has memory is for the system to say.
    pub(super) fn for_each_block(&self, visit: &mut dyn FnMut(AddrRange)) {
        self.blocks().for_each(|block| visit(block.range(&self.shape)));
    }

    /// Bytes of the blocks that have no memory.
    pub(super) fn cold(&self) -> Bytes {
        Bytes::new(self.leaves_cold * self.shape.leaf.get())
    }

    /// Returns everything to the system.
    ///
    /// # Safety
    /// Nobody uses a record any more. `os` is the one that every other call was given, and the persistent
    /// memory has not been released.
    pub(super) unsafe fn release(&mut self, os: &Os) {
        for block in self.blocks() {
            let cold = block.leaves_in(LeafState::Cold).count_ones() as usize;
            let ready = self.shape.block - Bytes::new(cold * self.shape.leaf.get());
            let range = block.range(&self.shape);
            // SAFETY: O1: `add_block` reserved the block. O2: the caller's promise.
            unsafe { os.release(range, Category::Metadata, range.bytes(), ready) };
        }
        *self = SpanRecords::new(os);
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        (0..self.index.len()).map(|number| {
            let block = self.index.block(number).expect("below the number of blocks");
            // SAFETY: blocks live as long as the pool, and change by `&mut self` only.
            unsafe { block.as_ref() }
        })
    }

    /// Changes a block, and what the index knows of it.
    fn change<R>(&mut self, mut at: NonNull<Block>, how: impl FnOnce(&mut Block) -> R) -> R {
        // SAFETY: blocks live as long as the pool, and `&mut self`.
        let block = unsafe { at.as_mut() };
        let (before, number) = (block.has(), block.number());
        let result = how(block);
        if block.has() != before {
            self.index.update(number);
        }
        result
    }

    /// Gives memory to the lowest leaf that has none. The leaf is empty then, and the only one.
    fn warm_up(&mut self, os: &Os, memory: &Persistent) -> Result<NonNull<Block>, OsError> {
        let block = match self.index.find(LeafState::Cold, End::Lowest) {
            Some(block) => block,
            None => self.add_block(os, memory)?,
        };
        let shape = self.shape;
        self.change(block, |block| {
            let leaf = block.leaves_in(LeafState::Cold).trailing_zeros() as usize;
            let range = block.leaf_range(&shape, leaf, 1);
            // SAFETY: O1: a leaf of this pool, changed under its owner's lock.
            unsafe { os.used(range, range.bytes()) }?;
            if !os.zero_after_unused() {
                // SAFETY: the leaf is ready, and nobody has a record in it.
                unsafe { range.base().as_ptr::<u8>().write_bytes(0, range.bytes().get()) };
            }
            // SAFETY: as above; the number comes before the first record.
            unsafe { shape.number_at(range.base()).write(block.number()) };
            block.change(1 << leaf, LeafState::Cold, LeafState::Empty);
            Ok(())
        })?;
        self.leaves_cold -= 1;
        self.leaves_empty += 1;
        Ok(block)
    }

    /// A new block, without memory.
    fn add_block(&mut self, os: &Os, memory: &Persistent) -> Result<NonNull<Block>, OsError> {
        self.index.make_room(os, memory)?;
        let mut block = match self.spare {
            Some(spare) => spare,
            None => Block::alloc(os, memory, &self.shape)?,
        };
        self.spare = Some(block);
        let bytes = self.shape.block;
        let base = os.reserve_aligned(self.hint, bytes, bytes)?;
        let range = AddrRange::at(base, bytes);
        // SAFETY: O1, O2: the range has just been reserved.
        if let Err(error) = unsafe { os.map(range, Category::Metadata) } {
            // SAFETY: as above, and nobody has been told of it.
            unsafe { os.release(range, Category::Metadata, Bytes::ZERO, Bytes::ZERO) };
            return Err(error);
        }
        self.spare = None;
        // Systems tend to give out addresses from the top downwards. Beside each other, blocks are aligned
        // without trimming, and one mapping to the system.
        self.hint = base.get().checked_sub(bytes.get()).filter(|&hint| hint != 0).map(Addr::new);
        // SAFETY: the description is new, and in nobody's hands yet.
        unsafe { block.as_mut() }.init(base, self.index.len(), &self.shape);
        self.index.push(block);
        self.leaves_cold += self.shape.leaves;
        Ok(block)
    }
}

impl PageHeap {
    /// Retires the memory of span records that has not been needed. [`PageHeap::return_records`] returns it.
    pub fn retire_records(&self) {
        self.again_and_again(|inner| inner.spans.retire_empty(RETIRED_AT_ONCE));
    }

    /// Returns the memory of span records that has been retired, a block at a time.
    ///
    /// # Safety
    /// A grace period began after [`PageHeap::retire_records`] and is over: every closure of the heap that was
    /// open then has been left.
    pub unsafe fn return_records(&self, os: &Os) {
        // SAFETY: the caller's promise.
        self.again_and_again(|inner| unsafe { inner.spans.return_retired(os) });
    }

    /// Calls `step` until it says that there is no more to do. The lock is given up between two steps; if somebody
    /// sleeps there, he gets time to wake up, or he would have to wait for all of it.
    fn again_and_again(&self, mut step: impl FnMut(&mut Inner) -> bool) {
        loop {
            let mut inner = self.inner.lock();
            let (is_more, is_awaited) = (step(&mut inner), inner.is_awaited());
            drop(inner);
            if !is_more {
                return;
            }
            if is_awaited {
                std::thread::sleep(WAKING_UP);
            }
        }
    }

    /// Bytes that are mapped for span records and have no memory.
    pub fn cold_records(&self) -> Bytes {
        self.inner.lock().spans.cold()
    }
}

#[cfg(test)]
mod tests;
