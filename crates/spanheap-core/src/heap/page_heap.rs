//! The page heap: address space from the system, pages from the page allocator, spans from pages.
//!
//! ```text
//!   os --reserve--> heap arena (64 MiB) --map, by chunks of 4 MiB--> page allocator --> span --> class
//!                                                                       |     ^
//!                                                                       v     |
//!                                                                  a mutator's own pages
//! ```
//!
//! | file | what |
//! |---|---|
//! | `page_heap` | allocating and freeing spans, the hard limit |
//! | `local` | what a mutator keeps for itself, without a lock |
//! | `manual` | spans that hold no objects |
//! | `quarantine` | chunks of user arenas, and what becomes of their addresses |
//! | `moving` | memory of freed chunks that goes to other addresses |
//! | `ready` | making pages ready for use |
//! | `records` | the memory of span records |
//! | `grow`, `tables` | new arenas and chunks; the memory of their side tables |
//! | `scavenge` | returning memory to the system |
//! | `totals` | how many pages are in which state |
//! | `walk`, `inspect` | walks over arenas, pages and spans; over pages under the lock |
//! | `verify` | what a look at the whole heap sees of pages |
//!
//! **Readiness.** New pages are *prepared*, and the page allocator calls them scavenged; pages become
//! ready, and count toward the limits, when a span takes them. They are prepared again when the scavenger has
//! returned them. The hard limit is compared when pages become ready, and nowhere else.
//!
//! **Zeros.** Pages come from the system as zeros, and come back as zeros when they were returned. Each arena
//! remembers below which address it has been used, and a span remembers below which address it may be
//! dirty; whoever wants zeros clears no more than that.
//!
//! # Invariants
//! - H1. The bytes that the operating-system layer counts as ready for [`Category::Heap`] are the grown
//!   pages that are neither guarded nor scavenged, as the page allocator sees it or in a mutator's pages. What it
//!   counts as mapped are the grown pages that are not guarded.
//! - H2. The lines of free pages are zero in all side tables (A2), or away with what they describe.
//! - H3. Pages of one physical page are all scavenged, or none is.
//!
//! # Locking
//! [`Rank::PageHeap`] around the page allocator, the pool of span records and growth; arena records and what
//! describes the pool come from the persistent memory, whose lock is further down in the table. The page map and
//! the bits of a span are written by its owner, without it. Arenas and pages are walked without it, too:
//! arenas only come, until the heap is released.
//!
//! # Safety
//! Span records are described here, and all memory is returned in [`PageHeap::release`].
#![allow(unsafe_code)]

mod grow;
mod inspect;
mod local;
mod manual;
mod moving;
mod quarantine;
mod ready;
mod records;
mod scavenge;
mod tables;
mod totals;
mod verify;
mod walk;

pub use inspect::PageUse;
pub(in crate::heap) use local::Late;
pub use local::LocalPages;
pub use manual::ManualSpan;
pub use quarantine::chunk_unit;
pub use scavenge::Force;
pub(crate) use verify::PagesFound;

use super::class::Class;
use super::counters::{Counters, MemoryState};
use super::limits::Limits;
use crate::addr::{ARENA_BYTES, Addr, AddrRange, Bytes, CHUNK_BYTES, PAGE_BYTES, PageCount};
use crate::bitmap;
use crate::offheap::Persistent;
use crate::os::{Category, Os, OsError, asan};
use crate::pages::{PageAlloc, PageRun};
use crate::span::arena::ALL_TABLES;
use crate::span::{Generation, HeapArena, Info, OwnedSpan, Span, bits, map};
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};
use core::ptr::NonNull;
use local::LOCAL_PAGES;
use moving::Units;
use records::SpanRecords;
use totals::Totals;

/// How often an allocation that meets the limit makes room before it is refused.
const ATTEMPTS: usize = 3;

/// How many spans are freed at once.
pub(in crate::heap) const FREED_AT_ONCE: usize = 16;

/// Why there is no span.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// The heap's hard limit on ready bytes would be exceeded.
    Limit,
    /// The request cannot be met by any heap.
    TooLarge,
    /// The system refused. Why is not kept: an allocation's result is on the fast path, and it is always
    /// want of memory, of address space or of mappings.
    System,
}

impl From<OsError> for Refused {
    fn from(_: OsError) -> Refused {
        Refused::System
    }
}

/// What a span is to be.
pub struct Request {
    /// Length in pages.
    pub pages: PageCount,
    /// Alignment of the base; at least a page.
    pub align: Bytes,
    /// Bytes of a slot.
    pub slot: usize,
    /// Number of slots.
    pub slots: usize,
    /// Bytes from one value to the next, for a large slice; otherwise 0.
    pub element: usize,
    /// Generation of the new span.
    pub generation: Generation,
}

/// The page heap of a heap.
pub struct PageHeap {
    number: u64,
    limits: Limits,
    inner: Lock<Inner>,
    /// The newest arena; each names the one before it.
    newest: AtomicPtr<HeapArena>,
    totals: Totals,
    /// Retained bytes above which the scavenger has work, and what user arenas may have beside them.
    retain_goal: AtomicUsize,
    arena_goal: AtomicUsize,
    /// Whether the heap has become much smaller, and keeps nothing for its growth.
    settling: AtomicBool,
    /// The address below which there are so many pages.
    line: AtomicUsize,
    /// Whether the scavenger wants to hear of the next pages that become free.
    watched: AtomicBool,
    /// Whether mutators may have pages of their own.
    has_local_pages: bool,
}

struct Inner {
    pages: PageAlloc,
    spans: SpanRecords,
    /// Reserved address space that the page allocator does not know yet.
    growth: AddrRange,
    /// Below this the growth range is mapped.
    mapped_to: Addr,
    /// How many blocks have returned their side tables, or some of them.
    blocks_away: usize,
    /// How often pages have been taken to be returned to the system, and how often that was finished.
    returns: [u64; 2],
    /// Units that are free as a whole.
    units: Units,
}

/// Pages that nobody else has, with a record for their span.
struct Taken {
    record: NonNull<Span>,
    base: Addr,
    /// Below this address the pages may hold what somebody wrote.
    dirty_to: Addr,
}

// SAFETY: the pool hands out records that are reached through the lock that surrounds `Inner`.
unsafe impl Send for Inner {}

impl PageHeap {
    /// A page heap without pages, for the heap of that number.
    pub fn new(os: &Os, number: u64, limits: Limits) -> Result<PageHeap, OsError> {
        let none = Addr::NULL;
        let inner = Inner {
            pages: PageAlloc::new(os)?,
            spans: SpanRecords::new(os),
            growth: AddrRange::new(none, none),
            mapped_to: none,
            blocks_away: 0,
            returns: [0; 2],
            units: Units::new(),
        };
        Ok(PageHeap {
            number,
            limits,
            inner: Lock::new(Rank::PageHeap, inner),
            newest: AtomicPtr::new(core::ptr::null_mut()),
            totals: Totals::default(),
            retain_goal: AtomicUsize::new(usize::MAX),
            arena_goal: AtomicUsize::new(0),
            settling: AtomicBool::new(false),
            line: AtomicUsize::new(usize::MAX),
            watched: AtomicBool::new(false),
            has_local_pages: ready::pages_are_small(os),
        })
    }

    /// Bytes of pages that belong to spans with objects.
    pub fn in_use(&self) -> Bytes {
        self.totals.in_use()
    }

    /// Bytes of addresses that are kept although their memory is gone.
    pub fn quarantined(&self) -> Bytes {
        self.totals.quarantined()
    }

    /// Bytes of pages that are ready and that nobody has.
    pub fn idle(&self) -> Bytes {
        self.totals.idle()
    }

    /// What is counted, in this layer and the ones above.
    pub fn counters(&self) -> &Counters {
        self.totals.counters()
    }

    /// The limits on ready bytes.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether pages of `more` bytes would be too much.
    fn is_over_limit(&self, os: &Os, more: Bytes) -> bool {
        self.limits.hard().is_some() && os.accounting().ready() + more > self.limits.allowed()
    }

    /// A new span of `class`.
    pub fn alloc_span(
        &self,
        os: &Os,
        memory: &Persistent,
        local: &LocalPages,
        class: &Class,
        request: &Request,
    ) -> Result<OwnedSpan, Refused> {
        let taken = self.take(os, memory, local, request.pages, request.align)?;
        let writer = self.writer(os, memory, local);
        self.totals.change(writer, MemoryState::Free, MemoryState::InUse, request.pages);
        let info = Info {
            base: taken.base,
            pages: request.pages,
            slot: request.slot,
            slots: request.slots,
            element: request.element,
            size_class: class.key().size_class,
            class: class.index(),
            layout: class.key().layout,
            counting: class.key().counting,
            drop: class.key().drop,
            type_name: class.type_name(),
            ty: class.key().ty,
        };
        asan::forbid_range(info.range());
        // SAFETY: the record is ours alone and describes nothing.
        let span = unsafe { Span::init(taken.record, info, request.generation, taken.dirty_to) };
        note_leaves(info.range(), Some(&info));
        set_page_map(info.range(), taken.record.as_ptr());
        Ok(span)
    }

    /// Whether there are `pages` free pages in a row at a multiple of `align`, so that the heap need not
    /// grow for them; or nobody can say, because somebody is at it.
    pub fn fits(&self, pages: PageCount, align: Bytes) -> bool {
        self.inner.lock_soon().is_none_or(|inner| inner.pages.fits(pages, align))
    }

    /// Takes `n` pages, ready for use, and a span record.
    fn take(
        &self,
        os: &Os,
        memory: &Persistent,
        local: &LocalPages,
        n: PageCount,
        align: Bytes,
    ) -> Result<Taken, Refused> {
        let is_local = self.has_local_pages && n < LOCAL_PAGES && align.get() <= PAGE_BYTES;
        let (record, run) = match is_local.then(|| self.take_local(os, memory, local, n)).flatten()
        {
            Some(both) => both,
            None => self.take_shared(os, memory, local, n, align, is_local)?,
        };
        let range = AddrRange::at(run.base, n.bytes());
        if run.scavenged != PageCount::ZERO {
            self.touch_tables(os, run.base);
        }
        let soiled_to = soil(range);
        // Pages that had no memory have got new memory.
        let is_new = run.scavenged == n && os.zero_after_unused();
        let dirty_to = if is_new { run.base } else { soiled_to };
        Ok(Taken { record, base: run.base, dirty_to })
    }

    /// The same from the mutator's own pages, without a lock; `None` if they have no such run.
    fn take_local(
        &self,
        os: &Os,
        memory: &Persistent,
        local: &LocalPages,
        n: PageCount,
    ) -> Option<(NonNull<Span>, PageRun)> {
        local.take(n, |run| {
            let writer = self.writer(os, memory, local);
            let ready = n - run.scavenged;
            if run.scavenged == PageCount::ZERO {
                self.totals.change(writer, MemoryState::Cached, MemoryState::Free, ready);
                return true;
            }
            let (range, prepared) = (AddrRange::at(run.base, n.bytes()), run.scavenged.bytes());
            // SAFETY: O1: the pages are this mutator's alone, and small: no other page shares a physical one.
            let may =
                !self.is_over_limit(os, prepared) && unsafe { os.used(range, prepared) }.is_ok();
            if may {
                self.totals.change(writer, MemoryState::Cached, MemoryState::Free, ready);
                let (returned, free) = (MemoryState::Returned, MemoryState::Free);
                self.totals.change(writer, returned, free, run.scavenged);
            }
            may
        })
    }

    /// The same from the page allocator. Fills the mutator's own pages on the way if they are empty and
    /// `is_local`.
    fn take_shared(
        &self,
        os: &Os,
        memory: &Persistent,
        local: &LocalPages,
        n: PageCount,
        align: Bytes,
        is_local: bool,
    ) -> Result<(NonNull<Span>, PageRun), Refused> {
        // Growing takes room by itself, more or less, so making room once need not be enough.
        let mut attempts = 0;
        self.make_soft_room(os, n, align);
        loop {
            let mut inner = self.inner.lock();
            local.fetch_records(&mut inner, os, memory)?;
            if is_local && !self.limits.is_near(os.accounting().ready()) {
                self.refill(&mut inner, os, local);
                if let Some(both) = self.take_local(os, memory, local, n) {
                    return Ok(both);
                }
            }
            let before = self.totals.retained();
            match self.take_run(&mut inner, os, memory, n, align) {
                Ok(run) => {
                    drop(inner);
                    let grown = self.totals.retained().saturating_sub(before);
                    self.scavenge_after_growth(os, grown);
                    let record = local.take_record().expect("fetched above");
                    return Ok((record, run));
                }
                Err(Refused::Limit) if attempts < ATTEMPTS => {
                    let tables = grow::tables_beside(&inner, n, beyond_a_page(align));
                    drop(inner);
                    if self.make_room(os, n.bytes(), tables) == Bytes::ZERO {
                        self.wait_for_returns();
                    }
                    attempts += 1;
                }
                Err(refused) => return Err(refused),
            }
        }
    }

    /// Gives a mutator pages of its own, if it has none and there are some.
    fn refill(&self, inner: &mut Inner, os: &Os, local: &LocalPages) {
        if !local.is_without_pages() {
            return;
        }
        let Some(mut pages) = inner.pages.alloc_to_cache() else { return };
        let block = AddrRange::at(pages.base(), crate::pages::CACHE_PAGES.bytes());
        match tables::fetch(inner, os, block) {
            Ok(()) => {
                let ready = local::ready_pages(&pages);
                self.totals.shift(MemoryState::Free, MemoryState::Cached, ready);
                local.put_pages(pages);
            }
            Err(_) => pages.flush(&mut inner.pages),
        }
    }

    /// A run from the page allocator, which grows if need be, made ready.
    fn take_run(
        &self,
        inner: &mut Inner,
        os: &Os,
        memory: &Persistent,
        n: PageCount,
        align: Bytes,
    ) -> Result<PageRun, Refused> {
        let run = match inner.pages.alloc_aligned(n, align) {
            Some(run) => run,
            None => {
                self.grow(inner, os, memory, n, beyond_a_page(align))?;
                inner.pages.alloc_aligned(n, align).ok_or(Refused::TooLarge)?
            }
        };
        self.commit(inner, os, &run, n)?;
        Ok(run)
    }

    /// Gives the pages of a span with objects back.
    pub fn free_span(&self, span: OwnedSpan) {
        self.free_spans(&mut [Some(span)]);
    }

    /// The same for the spans in `spans`, at most [`FREED_AT_ONCE`], with one visit to the lock. None is left there.
    pub fn free_spans(&self, spans: &mut [Option<OwnedSpan>]) {
        let mut runs = [AddrRange::new(Addr::NULL, Addr::NULL); FREED_AT_ONCE];
        let mut records = [None; FREED_AT_ONCE];
        let (mut count, mut bytes) = (0, Bytes::ZERO);
        for (place, span) in spans.iter_mut().filter_map(Option::take).enumerate() {
            let range = span.info().range();
            records[place] = Some(forget(span));
            bytes += range.bytes();
            // Spans that are swept one after the other often lie side by side.
            match runs[..count].last_mut() {
                Some(last) if last.end() == range.base() => {
                    *last = AddrRange::new(last.base(), range.end());
                }
                Some(last) if range.end() == last.base() => {
                    *last = AddrRange::new(range.base(), last.end());
                }
                _ => {
                    runs[count] = range;
                    count += 1;
                }
            }
        }
        let mut inner = self.inner.lock();
        for run in &runs[..count] {
            inner.pages.free(run.base(), run.bytes().whole_pages());
        }
        self.totals.shift(MemoryState::InUse, MemoryState::Free, bytes.whole_pages());
        for record in records.into_iter().flatten() {
            // SAFETY: the record came from this pool, and its last owner gave it up.
            unsafe { inner.spans.free(record) };
        }
    }

    /// Gives the pages of a span and its record back. They were `state`.
    fn give_back(&self, span: OwnedSpan, state: MemoryState) {
        let (base, pages) = (span.info().base, span.info().pages);
        set_page_map(span.info().range(), core::ptr::null_mut());
        asan::forbid_range(span.info().range());
        let record = span.retire();
        let mut inner = self.inner.lock();
        inner.pages.free(base, pages);
        self.totals.shift(state, MemoryState::Free, pages);
        // SAFETY: the record came from this pool, and its last owner gave it up.
        unsafe { inner.spans.free(record) };
    }

    /// Checks the page allocator's invariants; panics when one does not hold.
    #[cfg(test)]
    fn check(&self) {
        self.inner.lock().pages.check_invariants();
    }

    /// Returns everything to the system.
    ///
    /// # Safety
    /// Nobody uses the heap's memory, its spans or its arenas any more. `os` is the one that every other
    /// call was given.
    pub unsafe fn release(&self, os: &Os) {
        let newest = self.newest.swap(core::ptr::null_mut(), Ordering::AcqRel);
        let mut inner = self.inner.lock();
        let mut arena = NonNull::new(newest);
        let (mut mapped, mut ready) = (Bytes::ZERO, Bytes::ZERO);
        while let Some(record) = arena {
            // SAFETY: records live in persistent memory, which is released after this.
            let record = unsafe { record.as_ref() };
            map::retract(record.base().arena());
            let (arena_mapped, arena_ready) = inner.account(record);
            mapped += arena_mapped;
            ready += arena_ready;
            // SAFETY: the caller's promise; the map has forgotten the arena.
            unsafe { tables::release(os, record) };
            if record.reserved() != Bytes::ZERO {
                let range = AddrRange::at(record.base(), record.reserved());
                // SAFETY: O1: the reservation was made for this arena and the next ones, of which the
                // last has been retracted. O2: the caller's promise.
                unsafe { os.release(range, Category::Heap, mapped, ready) };
                map::returned(range.base());
                (mapped, ready) = (Bytes::ZERO, Bytes::ZERO);
            }
            arena = NonNull::new(record.previous().cast_mut());
        }
        inner.pages.release(os);
        // SAFETY: the caller's promise.
        unsafe { inner.spans.release(os) };
    }
}

impl Inner {
    /// How much of an arena is mapped and how much of it is ready (H1).
    fn account(&self, arena: &HeapArena) -> (Bytes, Bytes) {
        let (mut mapped, mut ready) = (Bytes::ZERO, Bytes::ZERO);
        let base = arena.base();
        for chunk in 0..ARENA_BYTES / CHUNK_BYTES {
            let chunk = base + Bytes::new(chunk * CHUNK_BYTES);
            match self.pages.chunk(chunk.chunk()) {
                Some(view) => {
                    let scavenged = PageCount::new(bitmap::count_ones(view.scavenged));
                    mapped += Bytes::new(CHUNK_BYTES);
                    ready += Bytes::new(CHUNK_BYTES) - scavenged.bytes();
                }
                // A growth may have stopped before the page allocator knew of the chunk.
                None if self.growth.contains(chunk) && chunk < self.mapped_to => {
                    mapped += Bytes::new(CHUNK_BYTES);
                }
                None => {}
            }
        }
        // To the page allocator these are allocated, and not scavenged.
        let guarded = arena.guarded().bytes();
        (mapped, ready) = (mapped - guarded, ready - guarded);
        (mapped, ready)
    }
}

/// How much longer a run has to be to have an aligned one in it for certain.
fn beyond_a_page(align: Bytes) -> Bytes {
    align.saturating_sub(Bytes::new(PAGE_BYTES))
}

/// Notes that pages will be written to; returns the address below which they may have been before.
fn soil(range: AddrRange) -> Addr {
    let mut dirty_to = range.base();
    for part in range.cut_at(ARENA_BYTES) {
        // SAFETY: grown pages lie in published arenas.
        let arena = unsafe { &*map::find(part.base()) };
        let soiled_to = arena.soil(part);
        if soiled_to > part.base() {
            dirty_to = soiled_to;
        }
    }
    dirty_to
}

/// Clears the bits of a span with objects (H2) and takes it out of the page map; its record is left.
fn forget(span: OwnedSpan) -> NonNull<Span> {
    let info = *span.info();
    for table in ALL_TABLES {
        bits::clear_all(&info, table);
    }
    set_page_map(info.range(), core::ptr::null_mut());
    note_leaves(info.range(), None);
    asan::forbid_range(info.range());
    span.retire()
}

/// Notes for all pages of `range` whether the objects on them have pointers.
fn note_leaves(range: AddrRange, info: Option<&Info>) {
    for_each_page(range, |arena, page| arena.note_leaves(page, info));
}

/// Enters a span, or null, for all pages of `range`.
fn set_page_map(range: AddrRange, span: *mut Span) {
    for_each_page(range, |arena, page| arena.set_span(page, span));
}

/// Calls `visit` with each page of a span, which are `range`: its arena, and its number there.
fn for_each_page(range: AddrRange, mut visit: impl FnMut(&HeapArena, usize)) {
    let mut page = range.base();
    while page < range.end() {
        // SAFETY: pages of a span lie in published arenas.
        visit(unsafe { &*map::find(page) }, page.page_in_arena());
        page = page + PageCount::new(1);
    }
}

#[cfg(test)]
mod tests;
