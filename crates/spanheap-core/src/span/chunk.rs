//! Chunks of user arenas: runs of pages with values of many types, which are freed together.
//!
//! ```text
//!  base                      low                      high               end
//!   | hdr value | hdr value |  ...      free     ...  | leaf | leaf | leaf |
//! ```
//!
//! Values with pointers lie at the bottom: a [`Header`] at a multiple of 16, the value behind it at a multiple of
//! 8, and so on upwards. Values without pointers (leaves) lie at the top, without a header, and go down. A value
//! is marked like an object, by the bit of its granule; so from a bit one gets back the header, and from that the
//! value. Whoever has a bit at or above `high` has one of a leaf, and nothing to follow.
//!
//! A large value has a chunk *beside* for itself. Its span is described like that of a large object, so it is
//! scanned like one, in pieces.
//!
//! # A chunk's life
//! ```text
//!   open --(arena freed)--> freed --(grace period)--> quarantined --(a mark finds no pointer)--> free pages
//! ```
//! The state of the chunk's span says where it is. *Freed* is logical: [`Span::is_open_arena`] says no from then
//! on, and whoever has asked before may go on reading until his closure ends. *Quarantined*: the pages are gone
//! and guarded, only the side tables stay, so that a mark can say whether anybody still points there.
//!
//! # Invariants
//! - C1. `low` and `high` are written by whoever has leased the chunk, or under its arena's lock if nobody has.
//!   `low` is a multiple of 16 and never above the granule of `high`.
//! - C2. Below `low` the chunk is a row of headers with their values; a word of zeros at the place of a header is
//!   a gap of 16 bytes. Between `low` and `high` there is anything, and so there is in a value whose
//!   owner has not written it yet, or never will: only what has a mark of a marker's is looked into.
//! - C3. Bits of the chunk in the side tables stand at headers, at granules of leaves, and in the rest of the
//!   64-granule word behind a header (or before a leaf) that was allocated while a cycle marked: nothing is
//!   allocated there by a closure that is not of that phase ([`Chunk::blackened`]).
//! - C4. Records are recycled and are never anything else. Everything in them that others than the owner read is
//!   atomic.
//!
//! # Ordering
//! A value is complete, and `low` or `high` moved (release), before anybody else gets a pointer to it; whoever
//! has loaded the pointer (acquire) sees both.
//!
//! # Safety
//! Headers of marked values are read: they were written before the value was published, and their memory
//! stays until no closure and no marking can know of it.
#![allow(unsafe_code)]

use super::sites::ChunkSites;
use super::{HeapArena, Layout, Line, Span, Table, TypeInfo, map};
use crate::addr::{Addr, AddrRange, Bytes, GRANULE_BYTES, PAGE_BYTES, PageCount};
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use core::ptr::{self, NonNull};

/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = size_of::<u64>();

/// How many low bits of a description's address are zero, and how many bits are left of it.
const ALIGN_BITS: u32 = align_of::<TypeInfo>().trailing_zeros();
const TYPE_BITS: u32 = 48 - ALIGN_BITS;

/// The most values that a header can count.
pub(crate) const MAX_COUNT: usize = (1 << (64 - TYPE_BITS)) - 1;

/// What stands before a value with pointers: its type, and how many of them lie one behind the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header(u64);

impl Header {
    /// The header of `count` values, no more than [`MAX_COUNT`].
    #[inline(always)]
    pub fn new(ty: &'static TypeInfo, count: usize) -> Header {
        let address = ptr::from_ref(ty) as usize as u64;
        debug_assert!(address >> 48 == 0 && count <= MAX_COUNT);
        Header(address >> ALIGN_BITS | (count as u64) << TYPE_BITS)
    }

    /// The word that is stored.
    #[inline(always)]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The header at `at`; `None` for a gap.
    ///
    /// # Safety
    /// `at` is the place of a header below `low` of a chunk that was not given up.
    #[inline]
    pub unsafe fn read(at: Addr) -> Option<Header> {
        // Relaxed: who looks has come by a pointer to the value, or has seen `low`.
        // SAFETY: the caller's promise; headers are written before either is published.
        let bits = unsafe { &*at.as_ptr::<AtomicU64>() }.load(Ordering::Relaxed);
        (bits != 0).then_some(Header(bits))
    }

    /// The description.
    #[inline]
    pub fn ty(self) -> &'static TypeInfo {
        let address = (self.0 & ((1 << TYPE_BITS) - 1)) << ALIGN_BITS;
        // SAFETY: headers are made of references by `new` alone.
        unsafe { &*Addr::new(address as usize).as_ptr::<TypeInfo>() }
    }

    /// How many values.
    #[inline]
    pub fn count(self) -> usize {
        (self.0 >> TYPE_BITS) as usize
    }

    /// Bytes from this header to the next one.
    #[inline]
    pub fn stride(self) -> Bytes {
        stride(self.ty().size * self.count())
    }
}

/// What a value of `bytes` bytes takes, with its header.
#[inline(always)]
pub(crate) const fn stride(bytes: usize) -> Bytes {
    Bytes::new((bytes + HEADER_BYTES + GRANULE_BYTES - 1) & !(GRANULE_BYTES - 1))
}

/// A value with pointers, or several in a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value {
    /// Where the first one lies.
    pub start: Addr,
    /// What it is.
    pub ty: &'static TypeInfo,
    /// How many there are.
    pub count: usize,
}

impl Value {
    /// Where its pointers are: as in an object that holds so many values.
    pub fn layout(&self) -> Layout {
        match self.count {
            1 => self.ty.layout(),
            _ => self.ty.slice_layout(),
        }
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> Bytes {
        Bytes::new(self.ty.size * self.count)
    }
}

/// The record of a chunk. Zeroed memory is a valid value.
pub(crate) struct Chunk {
    base: AtomicUsize,
    end: AtomicUsize,
    low: AtomicUsize,
    high: AtomicUsize,
    /// Whether a single value has the chunk for itself.
    beside: AtomicBool,
    /// 1 + the cycle in whose marking phase values were last allocated here; 0: none.
    blackened: AtomicU64,
    /// 1 + the cycle in whose second arming phase a closure began that has last got room here; 0: none.
    paled: AtomicU64,
    /// While this is the number of times that cycles of the heap have begun to mark, no bit of the chunk is set; 0: it
    /// is not known.
    clean: AtomicU64,
    /// Marks that the running cycle, or the last one, has set in the quarantined chunk.
    escapes: AtomicU64,
    /// The arena's number in the process.
    number: AtomicU64,
    /// The arena's record: the layer above knows its type.
    owner: AtomicPtr<()>,
    /// What is noted about its values and its end.
    sites: ChunkSites,
    /// The record of its span.
    span: AtomicPtr<Span>,
    /// The next one of the list that has it: its arena's, or of what was freed.
    next: AtomicPtr<Chunk>,
    /// The next one of its arena's that nobody has leased and that has room.
    next_partial: AtomicPtr<Chunk>,
    /// The chunks that the heap got after and before this one.
    newer: AtomicPtr<Chunk>,
    older: AtomicPtr<Chunk>,
}

impl core::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "a chunk of user arena {} at {:?}", self.number(), self.range())
    }
}

/// Reads or writes a link. The lists have locks of their own, or one owner.
macro_rules! link {
    ($(#[$doc:meta])* $get:ident, $set:ident) => {
        $(#[$doc])*
        pub fn $get(&self) -> Option<NonNull<Chunk>> {
            NonNull::new(self.$get.load(Ordering::Acquire))
        }

        /// Sets it.
        pub fn $set(&self, chunk: Option<NonNull<Chunk>>) {
            let chunk = chunk.map_or(ptr::null_mut(), NonNull::as_ptr);
            self.$get.store(chunk, Ordering::Release);
        }
    };
}

impl Chunk {
    link!(
        /// The next one of the list that has it.
        next, set_next
    );
    link!(
        /// The next one with room.
        next_partial, set_next_partial
    );
    link!(
        /// The chunk that the heap got after this one.
        newer, set_newer
    );
    link!(
        /// The chunk that the heap got before this one.
        older, set_older
    );

    /// Describes the chunk anew: `range` belongs to the arena of that number.
    pub fn describe(&self, range: AddrRange, number: u64, owner: *mut (), beside: bool) {
        self.base.store(range.base().get(), Ordering::Relaxed);
        self.end.store(range.end().get(), Ordering::Relaxed);
        self.low.store(range.base().get(), Ordering::Relaxed);
        self.high.store(range.end().get(), Ordering::Relaxed);
        self.beside.store(beside, Ordering::Relaxed);
        self.blackened.store(0, Ordering::Relaxed);
        self.paled.store(0, Ordering::Relaxed);
        self.clean.store(0, Ordering::Relaxed);
        self.escapes.store(0, Ordering::Relaxed);
        self.number.store(number, Ordering::Relaxed);
        self.owner.store(owner, Ordering::Relaxed);
        self.set_next(None);
        self.set_next_partial(None);
    }

    /// The addresses of its pages.
    #[inline]
    pub fn range(&self) -> AddrRange {
        let (base, end) = (self.base.load(Ordering::Relaxed), self.end.load(Ordering::Relaxed));
        AddrRange::new(Addr::new(base), Addr::new(end))
    }

    /// Whether a single value has it for itself.
    #[inline]
    pub fn is_beside(&self) -> bool {
        self.beside.load(Ordering::Relaxed)
    }

    /// The end of the values with pointers.
    #[inline]
    pub fn low(&self) -> Addr {
        Addr::new(self.low.load(Ordering::Acquire))
    }

    /// Moves it (C1).
    #[inline(always)]
    pub fn set_low(&self, low: Addr) {
        self.low.store(low.get(), Ordering::Release);
    }

    /// Where [`Chunk::low`] is kept, for the lessee, who writes it for each value. Records are never anything else (C4).
    #[inline]
    pub fn low_cursor(&self) -> &'static AtomicUsize {
        // SAFETY: C4: memory of records goes with the heap, which no lease outlives.
        unsafe { &*ptr::from_ref(&self.low) }
    }

    /// The first leaf.
    #[inline]
    pub fn high(&self) -> Addr {
        Addr::new(self.high.load(Ordering::Acquire))
    }

    /// Moves it (C1).
    #[inline(always)]
    pub fn set_high(&self, high: Addr) {
        self.high.store(high.get(), Ordering::Release);
    }

    /// Bytes that values have, with their headers and with what was lost between them.
    pub fn used(&self) -> Bytes {
        let range = self.range();
        self.low().bytes_since(range.base()) + range.end().bytes_since(self.high())
    }

    /// Whether values were allocated here while `cycle` marked.
    pub fn is_blackened(&self, cycle: u32) -> bool {
        self.blackened.load(Ordering::Relaxed) == 1 + u64::from(cycle)
    }

    /// Notes that.
    pub fn set_blackened(&self, cycle: u32) {
        self.blackened.store(1 + u64::from(cycle), Ordering::Relaxed);
    }

    /// Whether closures of the second arming phase of `cycle` have got room here, so that values may be reachable and not
    /// marked when it ends.
    pub fn is_paled(&self, cycle: u32) -> bool {
        self.paled.load(Ordering::Relaxed) == 1 + u64::from(cycle)
    }

    /// Notes that.
    pub fn set_paled(&self, cycle: u32) {
        self.paled.store(1 + u64::from(cycle), Ordering::Relaxed);
    }

    /// Whether no bit of the chunk is set, when cycles have begun to mark so many times.
    pub fn is_clean(&self, markings: u64) -> bool {
        self.clean.load(Ordering::Relaxed) == markings
    }

    /// Notes that.
    pub fn set_clean(&self, markings: u64) {
        self.clean.store(markings, Ordering::Relaxed);
    }

    /// The number of its arena.
    pub fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// The record of its arena.
    pub fn owner(&self) -> *mut () {
        self.owner.load(Ordering::Relaxed)
    }

    /// What is noted about its values and its end.
    pub fn sites(&self) -> &ChunkSites {
        &self.sites
    }

    /// The record of its span.
    #[inline]
    pub fn span(&self) -> *mut Span {
        self.span.load(Ordering::Acquire)
    }

    /// Says which span it is.
    pub fn set_span(&self, span: *mut Span) {
        self.span.store(span, Ordering::Release);
    }

    /// Counts pointers into the quarantined chunk.
    pub fn add_escapes(&self, count: u64) {
        self.escapes.fetch_add(count, Ordering::Relaxed);
    }

    /// Takes the count.
    pub fn take_escapes(&self) -> u64 {
        self.escapes.swap(0, Ordering::Relaxed)
    }

    /// The value of which the granule has a bit that a marker has found; `None` for a leaf.
    ///
    /// # Safety
    /// The mark bit of a value that begins in this granule is set, its memory is there, and the chunk is
    /// not one beside.
    #[inline]
    pub unsafe fn value_at(&self, granule: Addr) -> Option<Value> {
        if granule >= self.low() {
            return None;
        }
        // SAFETY: the caller's promise: below `low`, granules that a marker has marked are those of headers (C3).
        let header = unsafe { Header::read(granule) }?;
        let start = granule + Bytes::new(HEADER_BYTES);
        Some(Value { start, ty: header.ty(), count: header.count() })
    }

    /// Whether a value may begin at `addr`, as far as its header and the two ends of the chunk say.
    ///
    /// # Safety
    /// The memory of the chunk is there.
    pub unsafe fn may_begin_at(&self, addr: Addr) -> bool {
        if !self.may_have_begun_at(addr) {
            return false;
        }
        let header = addr.align_down(GRANULE_BYTES);
        // SAFETY: C2: below `low` lie headers, values and zeros, all of them words.
        self.is_beside() || addr >= self.high() || unsafe { Header::read(header) }.is_some()
    }

    /// The same, as far as the ends say, without a look at the memory.
    pub fn may_have_begun_at(&self, addr: Addr) -> bool {
        let range = self.range();
        if self.is_beside() {
            return addr == range.base();
        }
        if addr >= self.high() {
            return addr < range.end();
        }
        range.base() <= addr
            && addr < self.low()
            && addr.get() == addr.align_down(GRANULE_BYTES).get() + HEADER_BYTES
    }

    /// Calls `visit` with each value that has a header, lowest first, as long as it says so.
    ///
    /// # Safety
    /// The chunk is no chunk beside, and its memory stays meanwhile.
    pub unsafe fn for_each_value(&self, mut visit: impl FnMut(Value) -> bool) {
        let (mut at, low) = (self.range().base(), self.low());
        while at < low {
            // SAFETY: C2; the caller's promise.
            match unsafe { Header::read(at) } {
                Some(header) => {
                    let start = at + Bytes::new(HEADER_BYTES);
                    if !visit(Value { start, ty: header.ty(), count: header.count() }) {
                        return;
                    }
                    at = at + header.stride();
                }
                None => at = at + Bytes::new(GRANULE_BYTES),
            }
        }
    }

    /// Calls `visit` with the pages on which bits may stand, as parts of the range: those with a header below
    /// `low`, and those with leaves.
    fn for_each_used_page(&self, mut visit: impl FnMut(&HeapArena, usize)) {
        let range = self.range();
        let mut pages = |from: Addr, to: Addr| {
            let mut page = from.align_down(PAGE_BYTES);
            while page < to {
                // SAFETY: pages of a chunk lie in published arenas, whose records live (M1, M2).
                visit(unsafe { &*map::find(page) }, page.page_in_arena());
                page = page + PageCount::new(1);
            }
        };
        if self.is_beside() {
            // As for a large object: one bit, at its start.
            return pages(range.base(), range.base() + Bytes::new(1));
        }
        let (low, high) = (self.low(), self.high());
        pages(range.base(), low);
        // The page where both meet is visited once.
        let from = high.align_down(PAGE_BYTES);
        let behind = if low > from { from + PageCount::new(1) } else { from };
        pages(behind, range.end());
    }

    /// Clears the chunk's bits in every table. Nobody sets any meanwhile.
    pub fn clear_bits(&self) {
        self.for_each_used_page(|arena, page| {
            for table in [Table::Even, Table::Odd, Table::Scanned] {
                // SAFETY: the pages of a span are grown (A1).
                unsafe { arena.line(table, page) }
                    .iter()
                    .filter(|word| word.load(Ordering::Relaxed) != 0)
                    .for_each(|word| word.store(0, Ordering::Release));
            }
        });
    }

    /// How many bits of the chunk are set in a table.
    pub fn count_bits(&self, table: Table) -> u64 {
        let mut count = 0;
        self.for_each_used_page(|arena, page| {
            // SAFETY: the pages of a span are grown (A1).
            let line: &Line = unsafe { arena.line(table, page) };
            count +=
                line.iter().map(|w| u64::from(w.load(Ordering::SeqCst).count_ones())).sum::<u64>();
        });
        count
    }
}

// Only 48 bits of an address are kept of a description.
const _: () = assert!(align_of::<TypeInfo>() >= 8 && crate::addr::ADDRESS_BITS <= 48);
