//! The page heap: address space from the system, pages from the page allocator, spans from pages.
//!
//! ```text
//!   os --reserve--> heap arena (64 MiB) --map, by chunks of 4 MiB--> page allocator --> span --> class
//! ```
//!
//! **Growth** goes upwards through the current reservation. It has three steps that may each be refused:
//! the new chunks themselves, their side tables, the page allocator's own tables. Each step has a cursor
//! of its own, so that a growth which stopped half way is simply taken up again.
//!
//! **Readiness.** New pages are *prepared*, and the page allocator calls them scavenged; pages become
//! ready, and count toward the limit, when a span takes them. (Where physical pages are larger than ours,
//! whole chunks become ready when the heap grows.) The limit is compared in these places only.
//!
//! # Invariants
//! - H1. The bytes that the operating-system layer counts as ready for [`Category::Heap`] are the grown
//!   pages that are not scavenged.
//! - H2. The lines of free pages are zero in all side tables (A2).
//!
//! # Locking
//! [`Rank::PageHeap`] around the page allocator, the pool of span records and growth; arena records and span
//! records come from the persistent memory, whose lock is further down in the table. The page map and
//! the bits of a span are written by its owner, without it. Arenas and pages are walked without it, too:
//! arenas only come, until the heap is released.
//!
//! # Safety
//! Arena records are made here and live until [`PageHeap::release`].
#![allow(unsafe_code)]

use super::class::Class;
use crate::addr::{
    ARENA_BYTES, ARENA_PAGES, Addr, AddrRange, Bytes, CHUNK_BYTES, GRANULE_BYTES, PAGE_BYTES,
    PageCount,
};
use crate::bitmap;
use crate::offheap::{FixedPool, Persistent};
use crate::os::{Category, Os, OsError};
use crate::pages::{MAX_GROWN_CHUNKS, PageAlloc, PageRun};
use crate::span::arena::{ALL_TABLES, TABLE_BYTES, TABLES, table_bytes_for};
use crate::span::{Generation, HeapArena, Info, OwnedSpan, Span, bits, map};
use crate::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};
use core::ptr::NonNull;

/// What is kept below a limit for records, besides a part of the limit: two blocks of persistent memory.
const RECORDS_BYTES: usize = 512 << 10;

/// Why there is no span.
#[derive(Clone, Copy, Debug)]
pub enum Refused {
    /// The heap's limit on ready bytes would be exceeded.
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
    /// Generation of the new span.
    pub generation: Generation,
}

/// The page heap of a heap.
pub struct PageHeap {
    number: u64,
    limit: Option<Bytes>,
    inner: Lock<Inner>,
    /// The newest arena; each names the one before it.
    newest: AtomicPtr<HeapArena>,
    pages_in_use: AtomicUsize,
}

struct Inner {
    pages: PageAlloc,
    spans: FixedPool<Span>,
    /// Reserved address space that the page allocator does not know yet.
    growth: AddrRange,
    /// Below this the growth range is mapped.
    mapped_to: Addr,
    /// Below this the growth range is ready.
    ready_to: Addr,
}

// SAFETY: the pool hands out records that are reached through the lock that surrounds `Inner`.
unsafe impl Send for Inner {}

impl PageHeap {
    /// A page heap without pages, for the heap of that number.
    pub fn new(os: &Os, number: u64, limit: Option<Bytes>) -> Result<PageHeap, OsError> {
        let none = Addr::NULL;
        let inner = Inner {
            pages: PageAlloc::new(os)?,
            spans: FixedPool::new(Category::Metadata),
            growth: AddrRange::new(none, none),
            mapped_to: none,
            ready_to: none,
        };
        Ok(PageHeap {
            number,
            limit,
            inner: Lock::new(Rank::PageHeap, inner),
            newest: AtomicPtr::new(core::ptr::null_mut()),
            pages_in_use: AtomicUsize::new(0),
        })
    }

    /// Bytes of pages that belong to spans.
    pub fn in_use(&self) -> Bytes {
        PageCount::new(self.pages_in_use.load(Ordering::Relaxed)).bytes()
    }

    /// Whether pages of `more` bytes would be too much. Some room below the limit is kept for the records
    /// that are made later, since these are not refused: side tables, queues of the collector, spans.
    fn is_over_limit(&self, os: &Os, more: Bytes) -> bool {
        self.limit.is_some_and(|limit| {
            let kept = Bytes::new(limit.get() / 32 + RECORDS_BYTES);
            os.accounting().ready() + more > limit.saturating_sub(kept)
        })
    }

    /// The limit on ready bytes.
    pub fn limit(&self) -> Option<Bytes> {
        self.limit
    }

    /// A new span of `class`.
    pub fn alloc_span(
        &self,
        os: &Os,
        memory: &Persistent,
        class: &Class,
        request: &Request,
    ) -> Result<OwnedSpan, Refused> {
        let mut inner = self.inner.lock();
        let (record, _) = inner.spans.alloc(os, memory)?;
        let run = match self.ready_pages(&mut inner, os, memory, request) {
            Ok(run) => run,
            Err(refused) => {
                // SAFETY: the record was handed out above and nobody has seen it.
                unsafe { inner.spans.free(record) };
                return Err(refused);
            }
        };
        drop(inner);
        self.pages_in_use.fetch_add(request.pages.get(), Ordering::Relaxed);
        let info = Info {
            base: run.base,
            pages: request.pages,
            slot: request.slot,
            slots: request.slots,
            size_class: class.key().size_class,
            class: class.index(),
            layout: class.key().layout,
            counting: class.key().counting,
            drop: class.key().drop,
            type_name: class.type_name(),
        };
        // SAFETY: the record is ours alone and describes nothing.
        let span = unsafe { Span::init(record, info, request.generation) };
        set_page_map(info.range(), record.as_ptr());
        Ok(span)
    }

    /// Pages for `request`, ready for use.
    fn ready_pages(
        &self,
        inner: &mut Inner,
        os: &Os,
        memory: &Persistent,
        request: &Request,
    ) -> Result<PageRun, Refused> {
        let (n, align) = (request.pages, request.align);
        let run = match inner.pages.alloc_aligned(n, align) {
            Some(run) => run,
            None => {
                let extra = Bytes::new(align.get().saturating_sub(PAGE_BYTES));
                self.grow(inner, os, memory, n, extra)?;
                inner.pages.alloc_aligned(n, align).ok_or(Refused::TooLarge)?
            }
        };
        let range = AddrRange::at(run.base, n.bytes());
        let prepared = run.scavenged.bytes();
        let done = if prepared == Bytes::ZERO {
            Ok(())
        } else if self.is_over_limit(os, prepared) {
            Err(Refused::Limit)
        } else {
            // SAFETY: O1: grown pages are this heap's, and the page allocator has given this run to
            // nobody else.
            unsafe { os.used(range, prepared) }.map_err(Refused::from)
        };
        if let Err(refused) = done {
            // The run may mix ready and prepared pages, and who is who is forgotten; so all of them
            // are given back to the system, and H1 holds again.
            //
            // SAFETY: O1: as above. O2: no span has been made of the run.
            unsafe { os.unused(range, n.bytes() - prepared) };
            inner.pages.free(run.base, n);
            inner.pages.set_scavenged(run.base, n);
            return Err(refused);
        }
        Ok(run)
    }

    /// Gives the pages of a span back. Its bits are cleared here (H2).
    pub fn free_span(&self, span: OwnedSpan) {
        let info = *span.info();
        for table in ALL_TABLES {
            bits::clear_all(&info, table);
        }
        set_page_map(info.range(), core::ptr::null_mut());
        let record = span.retire();
        self.pages_in_use.fetch_sub(info.pages.get(), Ordering::Relaxed);
        let mut inner = self.inner.lock();
        inner.pages.free(info.base, info.pages);
        // SAFETY: the record came from this pool, and its last owner gave it up.
        unsafe { inner.spans.free(record) };
    }

    /// Makes the page allocator larger by at least `n` pages in a row, and `extra` bytes to align them.
    fn grow(
        &self,
        inner: &mut Inner,
        os: &Os,
        memory: &Persistent,
        n: PageCount,
        extra: Bytes,
    ) -> Result<(), Refused> {
        let bytes = n.get().checked_mul(PAGE_BYTES).and_then(|b| b.checked_add(extra.get()));
        let bytes = bytes.and_then(|b| Bytes::new(b).checked_align_up(ARENA_BYTES));
        match bytes {
            Some(b) if b.get() <= MAX_GROWN_CHUNKS * CHUNK_BYTES => {}
            _ => return Err(Refused::TooLarge),
        }
        if self.is_over_limit(os, n.bytes()) {
            return Err(Refused::Limit);
        }
        let ask = (n.bytes() + extra).checked_align_up(CHUNK_BYTES).ok_or(Refused::TooLarge)?;
        if inner.growth.bytes() < ask {
            self.reserve_arenas(inner, os, memory, ask)?;
        }
        extend(inner, os, ask)?;
        Ok(())
    }

    /// Gets address space for at least `ask` more bytes, in one piece with what is left if possible.
    fn reserve_arenas(
        &self,
        inner: &mut Inner,
        os: &Os,
        memory: &Persistent,
        ask: Bytes,
    ) -> Result<(), Refused> {
        let bytes = ask.checked_align_up(ARENA_BYTES).ok_or(Refused::TooLarge)?;
        let follow = !inner.growth.end().is_null();
        let hint = if follow { inner.growth.end() } else { map::hint(bytes.get()) };
        let base = os.reserve_aligned(Some(hint), bytes, Bytes::new(ARENA_BYTES))?;
        let range = AddrRange::at(base, bytes);
        let adjoins = base == inner.growth.end();
        // What a system has no memory for is refused here, before anything is made for it.
        let needed = if adjoins { ask - inner.growth.bytes() } else { ask };
        let mapped = match adjoins {
            true => map_up_to(inner, os, inner.growth.end()),
            false => Ok(()),
        };
        let front = AddrRange::at(base, needed);
        // SAFETY: O1, O2: the range was reserved above, and nobody else knows it.
        let mapped = mapped.and_then(|()| unsafe { os.map(front, Category::Heap) });
        if let Err(error) = mapped {
            // SAFETY: as above.
            unsafe { os.release(range, Category::Heap, Bytes::ZERO, Bytes::ZERO) };
            return Err(error.into());
        }
        // What is left of the old reservation becomes free pages. It may be mapped in part by now, so it
        // is not given up when that is refused: nobody would account for it in the end.
        let rest = match adjoins {
            true => Bytes::ZERO,
            false => inner.growth.bytes(),
        };
        let records = match map::can_hold(range.end().arena()) {
            true if rest == Bytes::ZERO => Ok(()),
            true => extend(inner, os, rest).map_err(Refused::from),
            false => Err(Refused::TooLarge),
        };
        let records =
            records.and_then(|()| self.make_records(os, memory, range).map_err(Refused::from));
        if let Err(refused) = records {
            // SAFETY: as above: no arena has been published for it.
            unsafe { os.release(range, Category::Heap, needed, Bytes::ZERO) };
            return Err(refused);
        }
        let mut first = inner.growth.base();
        if !adjoins {
            first = base;
            inner.ready_to = base;
        }
        inner.growth = AddrRange::new(first, range.end());
        inner.mapped_to = base + needed;
        Ok(())
    }

    /// Makes and publishes a record for each arena of a reservation; all or none.
    fn make_records(&self, os: &Os, memory: &Persistent, range: AddrRange) -> Result<(), OsError> {
        let arenas = range.bytes().get() / ARENA_BYTES;
        let tables = Bytes::new(TABLES * TABLE_BYTES * arenas);
        let layout = core::alloc::Layout::array::<HeapArena>(arenas).expect("fewer than 2^21");
        let tables = os.reserve(None, tables)?;
        let records = memory.alloc(os, layout, Category::Metadata).inspect_err(|_| {
            let range = AddrRange::at(tables, Bytes::new(TABLES * TABLE_BYTES * arenas));
            // SAFETY: O1, O2: the range was reserved above, and nobody else knows it.
            unsafe { os.release(range, Category::SideTables, Bytes::ZERO, Bytes::ZERO) };
        })?;
        let records = records.cast::<HeapArena>();
        for index in 0..arenas {
            let base = range.base() + Bytes::new(index * ARENA_BYTES);
            let tables = tables + Bytes::new(index * TABLES * TABLE_BYTES);
            let reserved = if index == 0 { range.bytes() } else { Bytes::ZERO };
            let previous = self.newest.load(Ordering::Relaxed);
            // SAFETY: `index` is below the length of the array that was just allocated.
            let record = unsafe { records.add(index) }.as_ptr();
            // SAFETY: fresh zeroed memory that nobody else knows; the tables were reserved above.
            unsafe { HeapArena::init(record, base, self.number, tables, previous, reserved) };
            map::publish(base.arena(), record, self.number);
            self.newest.store(record, Ordering::Release);
        }
        Ok(())
    }

    /// All arenas of the heap, newest first.
    pub fn arenas(&self) -> impl Iterator<Item = &HeapArena> {
        let mut arena = self.newest.load(Ordering::Acquire).cast_const();
        core::iter::from_fn(move || {
            // SAFETY: records are published when they are finished and live until `release`.
            let current = unsafe { arena.as_ref() }?;
            arena = current.previous();
            Some(current)
        })
    }

    /// Calls `visit` with each page that belongs to a span. Spans may come and go meanwhile: their records
    /// are not looked at.
    pub fn for_each_page(&self, mut visit: impl FnMut(Addr)) {
        for arena in self.arenas() {
            let pages = (0..ARENA_PAGES).filter(|&page| !arena.span(page).is_null());
            pages.for_each(|page| visit(arena.page_base(page)));
        }
    }

    /// Calls `visit` with the record of each span in use.
    ///
    /// # Safety
    /// Nobody allocates or frees a span meanwhile.
    pub unsafe fn for_each_span(&self, mut visit: impl FnMut(&Span)) {
        for arena in self.arenas() {
            let mut page = 0;
            while page < ARENA_PAGES {
                // SAFETY: the page map names span records, which are never unmapped (P3).
                let span = unsafe { arena.span(page).as_ref() };
                match span.filter(|span| span.is_in_use()) {
                    Some(span) => {
                        // A span that began in the arena below has been visited there.
                        if span.info().base == arena.page_base(page) {
                            visit(span);
                        }
                        let behind = span.info().range().end();
                        let arena_end = arena.page_base(ARENA_PAGES);
                        page =
                            if behind >= arena_end { ARENA_PAGES } else { behind.page_in_arena() };
                    }
                    None => page += 1,
                }
            }
        }
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
            unsafe { inner.release_tables(os, record) };
            if record.reserved() != Bytes::ZERO {
                let range = AddrRange::at(record.base(), record.reserved());
                // SAFETY: O1: the reservation was made for this arena and the next ones, of which the
                // last has been retracted. O2: the caller's promise.
                unsafe { os.release(range, Category::Heap, mapped, ready) };
                (mapped, ready) = (Bytes::ZERO, Bytes::ZERO);
            }
            arena = NonNull::new(record.previous().cast_mut());
        }
        inner.pages.release(os);
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
                None if self.growth.contains(chunk) => {
                    let upto = |cursor: Addr| match chunk < cursor {
                        true => Bytes::new(CHUNK_BYTES),
                        false => Bytes::ZERO,
                    };
                    mapped += upto(self.mapped_to);
                    ready += upto(self.ready_to);
                }
                None => {}
            }
        }
        (mapped, ready)
    }

    /// Returns the side tables of an arena to the system.
    ///
    /// # Safety
    /// Nobody uses the tables any more, and this is done once. `os` is the one that made them.
    unsafe fn release_tables(&self, os: &Os, arena: &HeapArena) {
        let part = table_bytes_for(table_unit(os)).get();
        let mapped = Bytes::new(arena.table_steps().div_ceil(2) * part);
        let ready = Bytes::new(arena.table_steps() / 2 * part);
        // SAFETY: O1: `make_records` reserved the tables for this arena. O2: the caller's promise.
        unsafe { os.release(arena.tables(), Category::SideTables, mapped, ready) };
    }
}

/// Maps the growth range up to `end`, as far as it is not.
fn map_up_to(inner: &mut Inner, os: &Os, end: Addr) -> Result<(), OsError> {
    let from = inner.mapped_to.max(inner.growth.base());
    if from < end {
        // SAFETY: O1: the growth range is a reservation of this heap, changed under its lock. O2: it
        // is not in the page allocator yet, so nothing is in it.
        unsafe { os.map(AddrRange::new(from, end), Category::Heap) }?;
        inner.mapped_to = end;
    }
    Ok(())
}

/// Moves `bytes` of the growth range into the page allocator.
fn extend(inner: &mut Inner, os: &Os, bytes: Bytes) -> Result<(), OsError> {
    let part = AddrRange::at(inner.growth.base(), bytes);
    debug_assert!(part.end() <= inner.growth.end() && part.base().is_aligned(CHUNK_BYTES));
    map_up_to(inner, os, part.end())?;
    let mut arena = part.base().align_down(ARENA_BYTES);
    while arena < part.end() {
        let end = part.end().min(arena + Bytes::new(ARENA_BYTES));
        ready_tables(os, arena, end.bytes_since(arena))?;
        arena = arena + Bytes::new(ARENA_BYTES);
    }
    // Where a physical page is larger than one of ours, a span cannot be made ready alone; there, whole
    // chunks are.
    let whole_chunks = os.page_size().get() > PAGE_BYTES;
    let from = inner.ready_to.max(part.base());
    if whole_chunks && from < part.end() {
        let new = AddrRange::new(from, part.end());
        // SAFETY: O1: the growth range is a reservation of this heap, changed under its lock.
        unsafe { os.used(new, new.bytes()) }?;
        inner.ready_to = part.end();
    }
    inner.pages.grow(os, part)?;
    if whole_chunks {
        inner.pages.clear_scavenged(part.base(), PageCount::new(part.bytes().get() / PAGE_BYTES));
    }
    inner.growth = AddrRange::new(part.end(), inner.growth.end());
    Ok(())
}

/// The bytes of heap whose side tables are made ready together: a chunk, or as much as fills a
/// physical page of each table.
fn table_unit(os: &Os) -> Bytes {
    Bytes::new(CHUNK_BYTES.max(os.page_size().get() * GRANULE_BYTES * 8))
}

/// Makes the side tables of the first `bytes` of the arena at `base` ready. Each table of each unit takes
/// two steps, mapping and readying; the arena remembers how many have been done, so a refusal leaves
/// everything in order for the next attempt.
fn ready_tables(os: &Os, base: Addr, bytes: Bytes) -> Result<(), OsError> {
    // SAFETY: the growth range lies in published arenas.
    let arena = unsafe { &*map::find(base) };
    let unit = table_unit(os);
    let goal = bytes.get().div_ceil(unit.get()) * TABLES * 2;
    while arena.table_steps() < goal {
        let step = arena.table_steps();
        let part = AddrRange::at(base + Bytes::new(step / (TABLES * 2) * unit.get()), unit);
        let range = arena.table_range(ALL_TABLES[step / 2 % TABLES], part);
        match step % 2 {
            // SAFETY: O1: a part of the tables that were reserved for this arena, changed under the
            // heap's lock. O2: nobody uses lines of pages that have not been grown (A1).
            0 => unsafe { os.map(range, Category::SideTables) }?,
            // SAFETY: as above.
            _ => unsafe { os.used(range, range.bytes()) }?,
        }
        arena.add_table_step();
    }
    Ok(())
}

/// Enters a span, or null, for all pages of `range`.
fn set_page_map(range: AddrRange, span: *mut Span) {
    let mut page = range.base();
    while page < range.end() {
        // SAFETY: pages of a span lie in published arenas.
        let arena = unsafe { &*map::find(page) };
        arena.set_span(page.page_in_arena(), span);
        page = page + PageCount::new(1);
    }
}

#[cfg(test)]
mod tests;
