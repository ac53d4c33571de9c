//! Bump allocation for records that live as long as their heap.
//!
//! ```text
//! alloc(size, align, category):
//!     if size >= 128 KiB: a block of its own
//!     place = align up the cursor of the category
//!     if it does not fit in the open block: open one of 256 KiB; the rest of the old one is lost
//! ```
//!
//! Every category has an open block of its own. Each mapped byte then belongs to the category that
//! it was mapped for, with no transfers between counters; the price is one partly used block per
//! category, of which only the touched pages cost memory.
//!
//! **Invariants**, under the lock: (1) `blocks` is the head of a list of all blocks, linked through
//! the [`Header`] at each block's start. (2) `next..end` of a cursor lies in one of these blocks,
//! is zeroed, and has not been handed out. (3) What was handed out overlaps neither a header nor
//! anything else handed out.
//!
//! **Locking.** One lock of rank `OffHeap`, held across the call to the system, which happens once
//! in 256 KiB.
//!
//! # Safety
//! This file is trusted to write only to headers (3), and to give a block back only in `release`.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ptr::{self, NonNull};

use crate::addr::{Addr, AddrRange, Bytes};
use crate::os::{Category, Operation, Os, OsError};
use crate::sync::{Lock, Rank};

/// The size of a block that is shared by many records.
const BLOCK_BYTES: usize = 256 << 10;
/// From this size on a record gets a block of its own.
const LARGE_BYTES: usize = 128 << 10;

/// A record of a block, at its start.
#[repr(C)]
struct Header {
    /// The block that was taken before this one, or null.
    previous: Addr,
    bytes: Bytes,
    category: Category,
}

/// The unused part of the open block of one category.
#[derive(Clone, Copy)]
struct Cursor {
    next: Addr,
    end: Addr,
}

impl Cursor {
    const CLOSED: Cursor = Cursor { next: Addr::NULL, end: Addr::NULL };

    /// Takes a piece from the front, if it fits.
    fn take(&mut self, layout: Layout) -> Option<Addr> {
        let start = self.next.checked_align_up(layout.align())?;
        let end = start.get().checked_add(layout.size()).map(Addr::new)?;
        if self.next.is_null() || end > self.end {
            return None;
        }
        self.next = end;
        Some(start)
    }
}

struct State {
    blocks: Addr,
    open: [Cursor; Category::COUNT],
}

impl State {
    const EMPTY: State = State { blocks: Addr::NULL, open: [Cursor::CLOSED; Category::COUNT] };
}

/// Records that are freed all at once. For records that come and go there is
/// [`FixedPool`](super::FixedPool).
pub struct Persistent {
    state: Lock<State>,
}

impl Persistent {
    /// No memory yet.
    pub const fn new() -> Persistent {
        Persistent { state: Lock::new(Rank::OffHeap, State::EMPTY) }
    }

    /// Zeroed memory for one record, mapped for `category`, valid until [`release`](Self::release).
    /// A layout of size zero takes nothing and gets a dangling pointer.
    ///
    /// # Errors
    /// When the system has no memory; nothing has changed.
    ///
    /// # Panics
    /// When the layout asks for an alignment above the page size.
    pub fn alloc(
        &self,
        os: &Os,
        layout: Layout,
        category: Category,
    ) -> Result<NonNull<u8>, OsError> {
        let page = os.page_size();
        assert!(layout.align() <= page.get(), "alignment {} above {page}", layout.align());
        if layout.size() == 0 {
            let dangling = NonNull::new(ptr::without_provenance_mut(layout.align()));
            return Ok(dangling.expect("an alignment is not zero"));
        }
        let mut state = self.state.lock();
        let start = if layout.size() >= LARGE_BYTES {
            let mut block = state.add_block(os, layout, category)?;
            block.take(layout)
        } else if let Some(start) = state.open[category.index()].take(layout) {
            Some(start)
        } else {
            let mut block = state.add_block(os, layout, category)?;
            let start = block.take(layout);
            state.open[category.index()] = block;
            start
        };
        let start = start.expect("a new block has room for what it was made for");
        Ok(NonNull::new(start.as_ptr()).expect("the system does not map address 0"))
    }

    /// Calls `visit` with each block of memory that was taken, and with what it was taken for. The
    /// lock is held meanwhile.
    pub fn for_each_block(&self, mut visit: impl FnMut(AddrRange, Category)) {
        let state = self.state.lock();
        let mut base = state.blocks;
        while !base.is_null() {
            // SAFETY: a block that is in the list starts with a header (1), which is written before
            // it gets there.
            let header = unsafe { base.as_ptr::<Header>().read() };
            visit(AddrRange::at(base, header.bytes), header.category);
            base = header.previous;
        }
    }

    /// Gives everything back. The value is as good as new afterwards.
    ///
    /// # Safety
    /// Nothing that was handed out may be used any more, nor a [`FixedPool`](super::FixedPool) that
    /// has taken memory from here. `os` is the one that every [`alloc`](Self::alloc) was given.
    pub unsafe fn release(&self, os: &Os) {
        let mut base = core::mem::replace(&mut *self.state.lock(), State::EMPTY).blocks;
        while !base.is_null() {
            // SAFETY: a block that is in the list starts with a header (1), which nobody else
            // writes (3).
            let header = unsafe { base.as_ptr::<Header>().read() };
            let range = AddrRange::at(base, header.bytes);
            // SAFETY: O1: `add_block` got the block from this `os`, by the caller's promise, and the
            // list gave it up above. O2: the caller's promise.
            unsafe { os.release(range, header.category, header.bytes, header.bytes) };
            base = header.previous;
        }
    }
}

impl Default for Persistent {
    fn default() -> Persistent {
        Persistent::new()
    }
}

impl State {
    /// Maps a block in which the layout fits, and returns all of it but the header.
    fn add_block(
        &mut self,
        os: &Os,
        layout: Layout,
        category: Category,
    ) -> Result<Cursor, OsError> {
        let wanted = Bytes::new(layout.size());
        let refused = OsError::new(Operation::Alloc, wanted, libc::ENOMEM);
        let (header, _) = Layout::new::<Header>().extend(layout).map_err(|_| refused)?;
        let shared = if layout.size() < LARGE_BYTES { BLOCK_BYTES } else { 0 };
        let bytes = Bytes::new(header.size().max(shared));
        let bytes = bytes.checked_align_up(os.page_size().get()).ok_or(refused)?;
        let base = os.alloc(bytes, category)?;
        let header = Header { previous: self.blocks, bytes, category };
        // SAFETY: the block is new, writable, page-aligned and larger than a header.
        unsafe { base.as_ptr::<Header>().write(header) };
        self.blocks = base;
        Ok(Cursor { next: base + Bytes::new(size_of::<Header>()), end: base + bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::SimOs;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Whether `size` bytes read as zeros; fills them, so that overlaps show.
    fn is_zero_then_fill(start: NonNull<u8>, size: usize) -> bool {
        // SAFETY: the tests pass what `alloc` returned for this size, once.
        let bytes = unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), size) };
        let zero = bytes.iter().all(|&byte| byte == 0);
        bytes.fill(0xff);
        zero
    }

    #[test]
    fn records_are_zeroed_aligned_and_apart() {
        for page in [4096, 65536, 1 << 19] {
            let sim = SimOs::builder().page_size(Bytes::new(page)).build();
            let os = Os::simulated(sim.clone());
            let persistent = Persistent::new();
            for i in 0..4000usize {
                let (size, align) = (i * 37 % 500 + 1, 1 << (i % 13));
                let category = Category::ALL[i % Category::COUNT];
                let start = persistent.alloc(&os, layout(size, align), category).unwrap();
                assert_eq!(start.as_ptr() as usize % align, 0);
                assert!(is_zero_then_fill(start, size), "record {i} overlaps an earlier one");
            }
            let mapped = os.accounting().mapped_total();
            assert!(mapped.get() % page == 0 && os.accounting().ready() == mapped);
            // SAFETY: the records are not used any more.
            unsafe { persistent.release(&os) };
            assert_eq!(os.accounting().mapped_total(), Bytes::ZERO);
            assert_eq!(os.accounting().reserved(), Bytes::ZERO);
            sim.assert_all_released();
        }
    }

    #[test]
    fn a_large_record_gets_its_own_block_and_leaves_the_open_one_open() {
        let os = Os::simulated(SimOs::builder().build());
        let persistent = Persistent::new();
        let before = persistent.alloc(&os, layout(8, 8), Category::Metadata).unwrap();
        let large = persistent.alloc(&os, layout(LARGE_BYTES, 4096), Category::Metadata).unwrap();
        assert!(is_zero_then_fill(large, LARGE_BYTES));
        assert_eq!(large.as_ptr() as usize % 4096, 0);
        let after = persistent.alloc(&os, layout(8, 8), Category::Metadata).unwrap();
        assert_eq!(after.as_ptr() as usize, before.as_ptr() as usize + 8);
        let mapped = os.accounting().mapped(Category::Metadata);
        assert_eq!(mapped, Bytes::new(BLOCK_BYTES + LARGE_BYTES + 4096));
        // SAFETY: the records are not used any more.
        unsafe { persistent.release(&os) };
        assert_eq!(os.accounting().mapped_total(), Bytes::ZERO);
    }

    #[test]
    fn each_category_pays_for_its_own_blocks() {
        let os = Os::simulated(SimOs::builder().build());
        let persistent = Persistent::new();
        persistent.alloc(&os, layout(1, 1), Category::Roots).unwrap();
        persistent.alloc(&os, layout(0, 8), Category::Diagnostics).unwrap();
        assert_eq!(os.accounting().mapped(Category::Roots), Bytes::new(BLOCK_BYTES));
        assert_eq!(os.accounting().mapped(Category::Diagnostics), Bytes::ZERO);
        // SAFETY: the records are not used any more.
        unsafe { persistent.release(&os) };
    }

    #[test]
    fn a_refusal_changes_nothing_and_can_be_repeated() {
        let sizes = [100, 140 << 10, 63 << 10, 63 << 10, 63 << 10, 63 << 10, 63 << 10, 1 << 20];
        for n in 1..=4 {
            let sim = SimOs::builder().fail_call(n).build();
            let os = Os::simulated(sim.clone());
            let persistent = Persistent::new();
            let mut refused = 0;
            for size in sizes {
                let start = persistent.alloc(&os, layout(size, 8), Category::Metadata);
                let start = start.or_else(|error| {
                    refused += 1;
                    assert_eq!(error.op(), Operation::Alloc);
                    persistent.alloc(&os, layout(size, 8), Category::Metadata)
                });
                assert!(is_zero_then_fill(start.unwrap(), size));
            }
            assert_eq!(refused, 1, "failing call {n}");
            // SAFETY: the records are not used any more.
            unsafe { persistent.release(&os) };
            assert_eq!(os.accounting().mapped_total(), Bytes::ZERO);
            sim.assert_all_released();
        }
    }

    #[test]
    fn a_record_larger_than_the_address_space_is_refused() {
        let os = Os::native();
        let huge = layout(isize::MAX as usize - 4095, 4096);
        assert!(Persistent::new().alloc(&os, huge, Category::Metadata).is_err());
        assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    }

    #[test]
    fn threads_share_it() {
        let os = Os::native();
        let persistent = Persistent::new();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for i in 1..2000 {
                        let start = persistent.alloc(&os, layout(i % 300 + 1, 8), Category::Heap);
                        assert!(is_zero_then_fill(start.unwrap(), i % 300 + 1));
                    }
                });
            }
        });
        // SAFETY: the threads have ended.
        unsafe { persistent.release(&os) };
        assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    }
}
