//! Heap arenas: 64 MiB of address space, and everything that is known about its pages.
//!
//! A [`HeapArena`] record holds, for each page, the span that the page belongs to, and the arena's
//! **side tables**. A side table has one bit per 16-byte granule, so 64 bytes (a cache line) per page:
//!
//! | table | a set bit at an object's first granule means |
//! |---|---|
//! | the mark table of the last finished cycle | allocated: this *is* the allocation bitmap |
//! | the other mark table | marked by the cycle that runs now |
//! | scanned | the object's pointers have been followed, or never have to be |
//! | drops | the object is dead and its destructor has not run yet |
//!
//! The two mark tables swap their roles at the end of each cycle (see [`Generation`]); no bit is moved.
//!
//! # Invariants
//! - A1. The tables are mapped for every page that the page allocator has been grown by. They are ready for
//!   every page of a span, and for every page that a mutator has for itself. The tables of a block that was
//!   returned to the system as a whole may be *away*: prepared, as the block is. They can be read even then, by
//!   whoever has an outdated idea of a page, and are zero; nobody writes to them before they are ready again.
//! - A2. The lines of a page that belongs to no span are zero in all tables, or away.
//! - A3. Between cycles, the lines of a swept span are zero in every table but its allocation table and
//!   the drops table. So marking starts from clean bits without clearing any.
//! - A4. Only the first granule of an object has its bit set, in any table. Chunks of user arenas keep their bits of
//!   the last cycle until the next one arms, and C3 says where they stand.
//!
//! # Ordering
//! Bits are set and cleared atomically, because an allocating mutator and the collector share words.
//! What a bit *protects* is published by the lock through which a span changes hands.
//!
//! # Safety
//! This file turns table addresses into references; A1 is the caller's promise in
//! [`HeapArena::line`], and it is kept by the page heap, which grows tables before pages, and fetches what is
//! away before it hands out a page. Whoever looks at a page that may be given up meanwhile (lookups, the
//! reclaimer) may find its lines away: it reads zeros there, or anything, and believes nothing before it
//! has seen that the span is still what it was.
#![allow(unsafe_code)]

use super::size_class::SizeClass;
use super::{Info, Layout, Span};
use crate::addr::{
    ARENA_BYTES, ARENA_PAGES, Addr, AddrRange, Bytes, GRANULE_BYTES, PAGE_BITMAP_WORDS, PAGE_BYTES,
    PageCount,
};
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// The bits of one page in one side table.
pub type Line = [AtomicU64; PAGE_BITMAP_WORDS];

/// Bytes of one side table of an arena.
pub const TABLE_BYTES: usize = ARENA_BYTES / GRANULE_BYTES / 8;

/// Bytes of a side table that belong to `bytes` of an arena.
pub const fn table_bytes_for(bytes: Bytes) -> Bytes {
    Bytes::new(bytes.get() / GRANULE_BYTES / 8)
}

/// A side table of an arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Table {
    /// Marks of even cycles.
    Even = 0,
    /// Marks of odd cycles.
    Odd = 1,
    /// Objects whose pointers need not be followed any more.
    Scanned = 2,
    /// Dead objects whose destructor is still owed.
    Drops = 3,
}

/// How many side tables an arena has.
pub const TABLES: usize = 4;

/// The most blocks that an arena is divided into for returning tables: of 512 KiB, so that a physical page of
/// 4 KiB of a table describes one.
pub(crate) const MAX_BLOCKS: usize = ARENA_BYTES / (4096 * GRANULE_BYTES * 8);

/// Every side table.
pub const ALL_TABLES: [Table; TABLES] = [Table::Even, Table::Odd, Table::Scanned, Table::Drops];

/// The number of the last finished cycle, as seen by a span or by the heap. A span of generation g has
/// been swept with the marks of cycle g, and these marks are its allocation bitmap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Generation(u32);

impl Generation {
    /// Before the first cycle.
    pub const FIRST: Generation = Generation(0);

    /// Wraps a cycle number.
    pub const fn new(cycle: u32) -> Generation {
        Generation(cycle)
    }

    /// The cycle number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The generation that the running cycle, or the next one, will establish.
    pub const fn next(self) -> Generation {
        Generation(self.0.wrapping_add(1))
    }

    /// Whether this generation is younger than `other`. Numbers wrap; nothing is ever 2^31 cycles late.
    pub const fn is_after(self, other: Generation) -> bool {
        let ahead = self.0.wrapping_sub(other.0);
        ahead != 0 && ahead < 1 << 31
    }

    /// The table that holds the allocation bits of spans of this generation. The marks of the next
    /// cycle go to `next().table()`.
    pub const fn table(self) -> Table {
        if self.0 % 2 == 0 { Table::Even } else { Table::Odd }
    }
}

/// The least size of objects without pointers that are [leaves](HeapArena::has_leaves) to the collector. Smaller ones are
/// so many on a page that they are dealt with together at less cost.
const LEAST_LEAF: usize = 512;

/// The record of 64 MiB of heap.
#[repr(C)]
pub struct HeapArena {
    base: Addr,
    heap: u64,
    tables: Addr,
    /// Whether any page has ever had leaves, beside what is read for each pointer that is marked.
    any_leaves: AtomicBool,
    /// Bytes of the reservation that begins with this arena; 0 when it lies further down.
    reserved: Bytes,
    /// How far the side tables are ready, in steps that only the page heap understands; changed under its
    /// lock.
    table_steps: AtomicUsize,
    /// Bit 4 b + t is set while the part of table t that describes block b has been returned to the system;
    /// changed under the page heap's lock, which knows how long a block is.
    tables_away: [AtomicU64; MAX_BLOCKS * TABLES / 64],
    /// How many pages are guarded: those of user arenas that nobody may use any more.
    guarded: AtomicUsize,
    /// Below this address memory may hold what somebody wrote; above it, the arena is as it came from the
    /// system. 0 stands for the base.
    dirty_to: AtomicUsize,
    /// Address of checkmark mode's own mark table, or 0 before it was first needed.
    check: AtomicUsize,
    /// The arena that the same heap got before this one; written before the arena is published.
    previous: *const HeapArena,
    /// How many arenas the same heap got before this one.
    number: usize,
    /// Bit p is set while page p is in the collector's page queue.
    queued: [AtomicU64; ARENA_PAGES / 64],
    /// Bit p is set when an ephemeron waits, or has waited in the running cycle, for an object of page p.
    awaited: [AtomicU64; ARENA_PAGES / 64],
    /// Bit p is set while page p is the first of a span on whose objects records hang; changed under the
    /// lock of that span's records.
    specials: [AtomicU64; ARENA_PAGES / 64],
    /// The size class of the objects of each page if these are leaves, else 0: see [`HeapArena::leaf_size`].
    leaves: [AtomicU8; ARENA_PAGES],
    /// The span that each page belongs to; null for free pages.
    spans: [AtomicPtr<Span>; ARENA_PAGES],
}

impl HeapArena {
    /// Makes the record of the arena at `base` in zeroed memory.
    ///
    /// # Safety
    /// `at` is valid for writes, aligned, zeroed, and nobody else knows it yet. `tables` is a reservation
    /// of [`TABLES`] times [`TABLE_BYTES`]. `previous` is null or outlives the new record.
    pub unsafe fn init(
        at: *mut HeapArena,
        base: Addr,
        heap: u64,
        tables: Addr,
        previous: *const HeapArena,
        reserved: Bytes,
    ) {
        debug_assert!(base.is_aligned(ARENA_BYTES));
        // SAFETY: the caller owns the zeroed record alone, and zero is a valid value of every field.
        let arena = unsafe { &mut *at };
        arena.base = base;
        arena.heap = heap;
        arena.tables = tables;
        arena.previous = previous;
        // SAFETY: the caller's promise.
        arena.number = unsafe { previous.as_ref() }.map_or(0, |previous| previous.number + 1);
        arena.reserved = reserved;
    }

    /// The first address of the arena.
    #[inline]
    pub fn base(&self) -> Addr {
        self.base
    }

    /// The number of the heap that owns the arena.
    #[inline]
    pub fn heap(&self) -> u64 {
        self.heap
    }

    /// The arena that the heap got before this one.
    pub fn previous(&self) -> *const HeapArena {
        self.previous
    }

    /// How many arenas the heap got before this one.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Bytes of the reservation that begins with this arena; 0 when it is not the first of one.
    pub fn reserved(&self) -> Bytes {
        self.reserved
    }

    /// How far the page heap has got with making the side tables ready.
    pub fn table_steps(&self) -> usize {
        self.table_steps.load(Ordering::Relaxed)
    }

    /// Notes one more step.
    pub(crate) fn add_table_step(&self) {
        self.table_steps.fetch_add(1, Ordering::Relaxed);
    }

    /// The first table of which the part for block `block` of this arena has been returned to the system.
    pub(crate) fn first_table_away(&self, block: usize) -> Option<Table> {
        let bit = block * TABLES;
        let away = self.tables_away[bit / 64].load(Ordering::Relaxed) >> (bit % 64);
        ALL_TABLES.into_iter().find(|&table| away >> table as usize & 1 == 1)
    }

    /// Notes that a table's part for a block has been returned to the system, or that it is ready again.
    pub(crate) fn set_table_away(&self, block: usize, table: Table, away: bool) {
        let bit = block * TABLES + table as usize;
        let (word, bit) = (&self.tables_away[bit / 64], 1 << (bit % 64));
        match away {
            true => word.fetch_or(bit, Ordering::Relaxed),
            false => word.fetch_and(!bit, Ordering::Relaxed),
        };
    }

    /// How many parts of tables have been returned to the system.
    pub(crate) fn tables_away(&self) -> usize {
        let count = |word: &AtomicU64| word.load(Ordering::Relaxed).count_ones() as usize;
        self.tables_away.iter().map(count).sum()
    }

    /// Notes that `range`, pages of this arena that have just been allocated, will be written to. Returns
    /// the address below which it may have been before: its base if all of it is as it came from the
    /// system.
    ///
    /// Pages are allocated lowest first, more or less, so one address says nearly all there is to know.
    /// Without a lock: allocations race here, but never for the same pages.
    pub(crate) fn soil(&self, range: AddrRange) -> Addr {
        let mut dirty_to = self.dirty_to.load(Ordering::Relaxed);
        loop {
            let end = range.end().get();
            if end <= dirty_to {
                return range.end();
            }
            let swapped = self.dirty_to.compare_exchange_weak(
                dirty_to,
                end,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Addr::new(dirty_to).max(range.base()).min(range.end()),
                Err(now) => dirty_to = now,
            }
        }
    }

    /// No page from this one on has ever belonged to a span, in what the caller can see: pages are
    /// [soiled](HeapArena::soil) before they get one. The page map of the others need not be looked at, which matters
    /// to small heaps: it has 64 KiB.
    pub(crate) fn pages_used(&self) -> usize {
        let end = self.dirty_to.load(Ordering::Relaxed);
        end.saturating_sub(self.base.get()).div_ceil(PAGE_BYTES).min(ARENA_PAGES)
    }

    /// How many pages are guarded.
    pub(crate) fn guarded(&self) -> PageCount {
        PageCount::new(self.guarded.load(Ordering::Relaxed))
    }

    /// Notes that pages have been guarded, or that they are not any more.
    pub(crate) fn count_guarded(&self, pages: PageCount, guarded: bool) {
        match guarded {
            true => self.guarded.fetch_add(pages.get(), Ordering::Relaxed),
            false => self.guarded.fetch_sub(pages.get(), Ordering::Relaxed),
        };
    }

    /// Where the side tables lie.
    pub fn tables(&self) -> AddrRange {
        AddrRange::at(self.tables, Bytes::new(TABLES * TABLE_BYTES))
    }

    /// Where `table` keeps the bits of `part`, which lies in this arena.
    pub fn table_range(&self, table: Table, part: AddrRange) -> AddrRange {
        let start = table_bytes_for(part.base().bytes_since(self.base));
        let table = self.tables + Bytes::new(table as usize * TABLE_BYTES);
        AddrRange::at(table + start, table_bytes_for(part.bytes()))
    }

    /// The bits of page `page` of this arena in `table`.
    ///
    /// # Safety
    /// The page has been grown (A1).
    #[inline]
    pub unsafe fn line(&self, table: Table, page: usize) -> &Line {
        debug_assert!(page < ARENA_PAGES);
        let line = self.tables.get() + table as usize * TABLE_BYTES + page * size_of::<Line>();
        // SAFETY: by A1 the line is mapped memory, in which any value is a good one; it is aligned, it
        // lives as long as the record, and everybody accesses it through atomics.
        unsafe { &*Addr::new(line).as_ptr::<Line>() }
    }

    /// The word of `table` that holds the bit of the granule at `addr`, and the bit.
    ///
    /// # Safety
    /// The page of `addr` lies in this arena and has been grown (A1).
    #[inline]
    pub unsafe fn bit(&self, table: Table, addr: Addr) -> (&AtomicU64, u64) {
        let granule = addr.granule_in_arena();
        let word =
            self.tables.get() + table as usize * TABLE_BYTES + granule / 64 * size_of::<u64>();
        // SAFETY: as in `line`.
        let word = unsafe { &*Addr::new(word).as_ptr::<AtomicU64>() };
        (word, 1 << (granule % 64))
    }

    /// The span that page `page` of this arena belongs to, or null.
    #[inline]
    pub fn span(&self, page: usize) -> *mut Span {
        self.spans[page].load(Ordering::Acquire)
    }

    /// Where it is noted which span page `page` belongs to; for whoever wants to have it fetched.
    #[inline]
    pub(crate) fn span_place(&self, page: usize) -> *const AtomicPtr<Span> {
        &raw const self.spans[page]
    }

    /// Says which span page `page` belongs to. Publishes the span's record.
    pub(crate) fn set_span(&self, page: usize, span: *mut Span) {
        self.spans[page].store(span, Ordering::Release);
    }

    /// Whether the objects of a page are *leaves*: they have no pointers, and [`LEAST_LEAF`] bytes or more, but no
    /// span for each.
    #[inline]
    pub(crate) fn has_leaves(&self, page: usize) -> bool {
        self.any_leaves.load(Ordering::Relaxed) && self.leaves[page].load(Ordering::Relaxed) != 0
    }

    /// The size of the objects of a page, if they are leaves.
    #[inline]
    pub(crate) fn leaf_size(&self, page: usize) -> Option<Bytes> {
        if !self.any_leaves.load(Ordering::Relaxed) {
            return None;
        }
        let class = SizeClass::from_index(usize::from(self.leaves[page].load(Ordering::Relaxed)))?;
        Some(class.size())
    }

    /// Notes whether the objects of a page are leaves; comes before [`HeapArena::set_span`], with which it is published,
    /// so that whoever has an object finds it noted. `None`: there are no objects any more.
    pub(crate) fn note_leaves(&self, page: usize, info: Option<&Info>) {
        let is_leaf = |info: &&Info| info.layout == Layout::NoScan && info.slot >= LEAST_LEAF;
        let class = info.filter(is_leaf).and_then(|info| info.size_class);
        if class.is_none() && !self.any_leaves.load(Ordering::Relaxed) {
            // Most heaps have none, and need no memory for it.
            return;
        }
        self.leaves[page].store(class.map_or(0, SizeClass::index) as u8, Ordering::Relaxed);
        if class.is_some() {
            self.any_leaves.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that a page is in the page queue; true if it was not. Sequentially consistent with
    /// [`HeapArena::unqueue`] and with the mark bits: whoever sets a bit and finds the page queued knows
    /// that the worker that takes the page will see the bit.
    #[inline]
    pub(crate) fn queue(&self, page: usize) -> bool {
        let (word, bit) = (&self.queued[page / 64], 1 << (page % 64));
        word.load(Ordering::SeqCst) & bit == 0 && word.fetch_or(bit, Ordering::SeqCst) & bit == 0
    }

    /// Notes that a page has left the page queue. Comes before the page's marks are read.
    #[inline]
    pub(crate) fn unqueue(&self, page: usize) {
        self.queued[page / 64].fetch_and(!(1 << (page % 64)), Ordering::SeqCst);
    }

    /// Notes that an ephemeron waits for an object of a page. Sequentially consistent with
    /// [`HeapArena::is_awaited`] and with the mark bits: an ephemeron that comes to wait for an object, and
    /// then finds it unmarked, is found by whoever marks and then scans it.
    pub(crate) fn set_awaited(&self, page: usize) {
        self.awaited[page / 64].fetch_or(1 << (page % 64), Ordering::SeqCst);
    }

    /// Whether an ephemeron may wait for an object of a page.
    #[inline]
    pub(crate) fn is_awaited(&self, page: usize) -> bool {
        self.awaited[page / 64].load(Ordering::SeqCst) >> (page % 64) & 1 == 1
    }

    /// Forgets who waits for what.
    pub(crate) fn clear_awaited(&self) {
        self.awaited.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Says whether records hang on objects of the span that begins at a page.
    pub(crate) fn set_special(&self, page: usize, any: bool) {
        let (word, bit) = (&self.specials[page / 64], 1 << (page % 64));
        match any {
            true => word.fetch_or(bit, Ordering::AcqRel),
            false => word.fetch_and(!bit, Ordering::AcqRel),
        };
    }

    /// The pages with which a span begins on whose objects records hang. Others may add and remove
    /// records meanwhile.
    pub fn special_pages(&self) -> impl Iterator<Item = usize> + '_ {
        self.specials.iter().enumerate().flat_map(|(index, word)| {
            let mut word = word.load(Ordering::Acquire);
            core::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
                word &= word - 1;
                Some(index * 64 + bit)
            })
        })
    }

    /// The address of checkmark mode's mark table, 0 if there is none.
    pub fn check_table(&self) -> Addr {
        Addr::new(self.check.load(Ordering::Acquire))
    }

    /// Gives checkmark mode its mark table.
    pub(crate) fn set_check_table(&self, table: Addr) {
        self.check.store(table.get(), Ordering::Release);
    }

    /// The address of page `page` of this arena.
    pub fn page_base(&self, page: usize) -> Addr {
        self.base + Bytes::new(page * PAGE_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_of_two_neighbouring_generations_differ() {
        let g = Generation::new(7);
        assert_eq!(g.table(), Table::Odd);
        assert_eq!(g.next().table(), Table::Even);
        assert_eq!(g.next().next().table(), g.table());
    }

    #[test]
    fn a_page_has_one_cache_line_in_each_table() {
        assert_eq!(size_of::<Line>(), 64);
        assert_eq!(TABLE_BYTES, ARENA_PAGES * size_of::<Line>());
        assert_eq!(table_bytes_for(Bytes::new(PAGE_BYTES)), Bytes::new(64));
    }
}
