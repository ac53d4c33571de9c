//! The pages of chunks of user arenas: taken like those of a manual span, and given back in two steps.
//!
//! When an arena has been freed and nobody can use its memory any more, its pages are *guarded*: the memory
//! goes back to the system, and an access faults where the system can do that. The addresses stay taken, the
//! span stays in the page map, the side tables stay ready; so marking can note who still points there. When nobody
//! does, the pages are free again, without memory.
//!
//! ```text
//!   free, returned --alloc_chunk--> arena --guard--> quarantined --end_quarantine--> returned
//!                                     |--shut--> arena, shut --open, free_chunk-----> free
//!                                     '--------------free_chunk---------------------> free
//! ```
//!
//! Or they are *shut*: an access faults, and the memory stays, to be used again soon; they may be guarded later.
//!
//! To the page allocator, pages in quarantine are allocated; to the system layer they are neither mapped nor
//! ready. How many there are is known by arena, since the end of a heap releases its arenas with exact counts.
//!
//! # Safety
//! Guards pages that the callers vouch for.
#![allow(unsafe_code)]

use super::{LocalPages, PageHeap, Refused, set_page_map};
use crate::addr::{ARENA_BYTES, Addr, AddrRange, Bytes, PAGE_BYTES, PageCount};
use crate::heap::counters::MemoryState;
use crate::offheap::Persistent;
use crate::os::{Category, Guarding, MOVE_UNIT, Os, asan};
use crate::pages::units::UNIT_PAGES;
use crate::span::arena::ALL_TABLES;
use crate::span::{Chunk, Info, OwnedSpan, Span, bits, map};

/// Clears are made in pieces of this size.
const PIECE: usize = 256 << 10;

impl PageHeap {
    /// Pages for a chunk, all zeros if `clean` says so: a whole number of physical pages, at a multiple of `align`
    /// and of a physical page. `describe` says what they are to be, by their base.
    pub fn alloc_chunk(
        &self,
        os: &Os,
        memory: &Persistent,
        local: &LocalPages,
        (pages, align, clean): (PageCount, Bytes, bool),
        chunk: &'static Chunk,
        describe: impl FnOnce(Addr) -> Info,
    ) -> Result<OwnedSpan, Refused> {
        let unit = chunk_unit(os);
        debug_assert!(pages.bytes().get() % unit.get() == 0);
        let warm = match pages == UNIT_PAGES && align <= MOVE_UNIT {
            true => self.take_warm(os, memory, local)?,
            false => None,
        };
        let taken = match warm {
            Some(taken) => taken,
            None => self.take(os, memory, local, pages, align.max(unit))?,
        };
        let range = AddrRange::at(taken.base, pages.bytes());
        let writer = self.writer(os, memory, local);
        self.totals.change(writer, MemoryState::Free, MemoryState::Arena, pages);
        asan::permit_range(range);
        let dirty_to = if clean { taken.dirty_to } else { range.base() };
        let mut dirty = AddrRange::new(range.base(), dirty_to);
        while !dirty.is_empty() {
            let piece = dirty.bytes().min(Bytes::new(PIECE));
            // SAFETY: ready pages that were just taken, and belong to nobody else.
            unsafe { dirty.base().as_ptr::<u8>().write_bytes(0, piece.get()) };
            dirty = AddrRange::new(dirty.base() + piece, dirty.end());
        }
        let info = describe(taken.base);
        asan::forbid_range(range);
        // SAFETY: the record is ours alone and describes nothing.
        let span = unsafe { Span::init_arena(taken.record, info, chunk) };
        set_page_map(range, taken.record.as_ptr());
        Ok(span)
    }

    /// Guards the pages of chunks that lie one behind the other.
    ///
    /// # Safety
    /// All pages of the range belong to chunks of arenas that have been freed, and nobody uses them, or ever will.
    pub unsafe fn guard(&self, os: &Os, range: AddrRange) -> Guarding {
        // SAFETY: O1: the pages of a chunk are its owner's, and whole physical ones. O2: the caller's promise.
        let guarding = unsafe { os.guard(range, Category::Heap, range.bytes()) };
        // Closures that had asked before the arena was freed could read it until now.
        asan::forbid_range(range);
        count_guarded(range, true);
        let pages = range.bytes().whole_pages();
        self.totals.shift(MemoryState::Arena, MemoryState::Quarantined, pages);
        guarding
    }

    /// Makes the pages of chunks that lie one behind the other inaccessible, without giving their memory away. False if
    /// that cannot be done.
    ///
    /// # Safety
    /// As [`PageHeap::guard`].
    pub unsafe fn shut(&self, os: &Os, range: AddrRange) -> bool {
        // SAFETY: as in `guard`.
        let shut = unsafe { os.shut(range) };
        if shut {
            asan::forbid_range(range);
        }
        shut
    }

    /// Makes shut pages of chunks accessible that nobody points to, and which [`PageHeap::free_chunk`] gets next.
    /// False, if the system refuses.
    pub fn open(&self, os: &Os, range: AddrRange) -> bool {
        // SAFETY: O1: the pages are the chunks'. O2: nobody points to them.
        unsafe { os.open(range) }.is_ok()
    }

    /// Gives the guarded pages of a chunk back, which nobody points to. When the system refuses, the span is
    /// returned, still guarded. Their tables follow with [`PageHeap::put_tables_away`].
    pub fn end_quarantine(&self, os: &Os, span: OwnedSpan) -> Result<(), OwnedSpan> {
        let range = span.info().range();
        debug_assert!(span.span().is_quarantined() && !span.span().is_shut());
        debug_assert!(
            ALL_TABLES.iter().all(|&table| bits::lines(span.info(), table)
                .flat_map(|(_, line)| line)
                .all(|word| word.load(crate::sync::atomic::Ordering::Relaxed) == 0)),
            "bits are left in a chunk that goes back"
        );
        // The system layer may have to clear them.
        asan::permit_range(range);
        // SAFETY: O1: the pages are the chunk's. O2: nobody points to them.
        if unsafe { os.unguard(range, Category::Heap) }.is_err() {
            asan::forbid_range(range);
            return Err(span);
        }
        asan::forbid_range(range);
        count_guarded(range, false);
        set_page_map(range, core::ptr::null_mut());
        let (record, pages) = (span.retire(), range.bytes().whole_pages());
        let mut inner = self.inner.lock();
        inner.pages.free(range.base(), pages);
        inner.pages.set_scavenged(range.base(), pages);
        inner.units.note_cold(range.base());
        self.totals.shift(MemoryState::Quarantined, MemoryState::Returned, pages);
        // SAFETY: the record came from this pool, and its last owner gave it up.
        unsafe { inner.spans.free(record) };
        Ok(())
    }

    /// Gives the pages of a chunk back that is not guarded or shut, and that nobody points to.
    ///
    /// # Safety
    /// Nobody uses the memory any more.
    pub unsafe fn free_chunk(&self, span: OwnedSpan) {
        self.give_back(span, MemoryState::Arena);
    }
}

/// Chunks of arenas are multiples of this: what can be guarded.
pub fn chunk_unit(os: &Os) -> Bytes {
    os.page_size().max(Bytes::new(PAGE_BYTES))
}

/// Notes in each arena how many of its pages are guarded.
pub(super) fn count_guarded(range: AddrRange, guarded: bool) {
    for part in range.cut_at(ARENA_BYTES) {
        // SAFETY: pages of a chunk lie in published arenas.
        let arena = unsafe { &*map::find(part.base()) };
        arena.count_guarded(part.bytes().whole_pages(), guarded);
    }
}
