//! [`PageAlloc`]: allocate, free and grow.
//!
//! # Invariants
//!
//! 1. Summaries are functions of the allocated bits (see `tree`), whenever a method returns.
//! 2. A scavenged page is free.
//! 3. `hint` lies in grown memory and no page below it is free. `None` only when no page is free.
//! 4. `free` and `scavenged` count the zeros of the allocated and the ones of the scavenged bits.
//! 5. The pages in use, as the scavenge index counts them for each chunk, and the pages that are
//!    taken for scavenging, are together the ones of the allocated bits.
//!
//! [`PageAlloc::check_invariants`] checks all of them. What is done about scavenging is in
//! `scavenge`, the traffic with page caches in `cache`, and how a caller's mistakes are noticed in
//! `require`.
//!
//! # The hint
//!
//! Most requests are answered in the chunk of the hint: when its summary promises a run that is
//! long enough, the lowest such run in this chunk is the lowest of all, because nothing below the
//! hint is free. Only otherwise is the tree searched. The hint is a bound and not the exact first
//! free page: allocating raises it by what the search has seen, freeing lowers it, and no answer
//! depends on it.
//!
//! # Who protects it
//!
//! Nobody but `&mut`: the heap keeps its allocator inside the page-heap lock.

use super::bits::{self, PageBits};
use super::chunks::ChunkTable;
use super::grown::GrownRuns;
use super::require::Want;
use super::scavenge_index::{Occupancy, ScavengeIndex};
use super::summary::Summary;
use super::tree::{Place, SummaryTree};
use crate::addr::{
    ADDRESS_BITS, Addr, AddrRange, Bytes, CHUNK_BYTES, CHUNK_PAGES, ChunkIndex, PAGE_BYTES,
    PageCount, PageIndex,
};
use crate::offheap::ArraySpace;
use crate::os::{Category, Operation, Os, OsError};

/// Pages that were allocated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageRun {
    /// The first byte of the first page.
    pub base: Addr,
    /// How many of the pages were scavenged: the caller makes them ready before use.
    pub scavenged: PageCount,
}

/// What the allocator knows about one grown chunk.
#[derive(Clone, Copy, Debug)]
pub struct ChunkView<'a> {
    /// A one is an allocated page.
    pub allocated: &'a PageBits,
    /// A one is a page that was returned to the system; such a page is free.
    pub scavenged: &'a PageBits,
    /// How the free pages lie.
    pub summary: Summary,
    /// What the scavenge index knows about it.
    pub occupancy: Occupancy,
}

/// The page allocator of one heap.
pub struct PageAlloc {
    pub(super) tree: SummaryTree,
    pub(super) chunks: ChunkTable,
    pub(super) grown: GrownRuns,
    /// Where the tree and the list of what was grown lie.
    space: ArraySpace,
    pub(super) index: ScavengeIndex,
    pub(super) hint: Option<Addr>,
    pub(super) free: PageCount,
    pub(super) scavenged: PageCount,
    /// Pages that look allocated because their memory is being returned.
    pub(super) scavenging: PageCount,
}

/// The part of a run of pages that lies in one chunk.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) chunk: ChunkIndex,
    pub(super) start: usize,
    pub(super) len: PageCount,
}

impl Piece {
    /// The first byte of the first page.
    pub(super) fn base(self) -> Addr {
        page_of(self.chunk, self.start)
    }

    /// The last page.
    pub(super) fn last(self) -> PageIndex {
        self.base().page().offset(self.len.get() - 1)
    }
}

/// Free pages that a search has found.
pub(super) struct Free {
    pub(super) base: Addr,
    /// No page below this address is free.
    none_free_below: Addr,
}

/// Cuts `n` pages from `base` on at the borders of chunks.
pub(super) fn pieces(base: Addr, n: PageCount) -> impl Iterator<Item = Piece> {
    let mut page = base.page().get();
    let end = page + n.get();
    core::iter::from_fn(move || {
        if page == end {
            return None;
        }
        let start = page % CHUNK_PAGES;
        let len = (CHUNK_PAGES - start).min(end - page);
        let chunk = ChunkIndex::new(page / CHUNK_PAGES);
        page += len;
        Some(Piece { chunk, start, len: PageCount::new(len) })
    })
}

/// The position of a page in its chunk.
pub(super) fn page_in_chunk(addr: Addr) -> usize {
    addr.page().get() % CHUNK_PAGES
}

/// The address of a page of a chunk.
fn page_of(chunk: ChunkIndex, page: usize) -> Addr {
    chunk.base() + PageCount::new(page)
}

impl PageAlloc {
    /// An allocator without memory.
    ///
    /// # Errors
    /// When the system refuses the address space of the tables (580 MiB), or their first pages.
    pub fn new(os: &Os) -> Result<PageAlloc, OsError> {
        // Two reservations and not one: a system that has only small ones is to have a heap, too.
        let sizes = [SummaryTree::size(os), GrownRuns::size(os)];
        let mut space = ArraySpace::new(os, &sizes, SummaryTree::EAGER, Category::PageTables)?;
        let chunks = match ChunkTable::new(os) {
            Ok(chunks) => chunks,
            Err(error) => {
                space.release(os);
                return Err(error);
            }
        };
        Ok(PageAlloc {
            tree: SummaryTree::new(os, &mut space),
            chunks,
            grown: GrownRuns::new(os, &mut space),
            space,
            index: ScavengeIndex::new(),
            hint: None,
            free: PageCount::ZERO,
            scavenged: PageCount::ZERO,
            scavenging: PageCount::ZERO,
        })
    }

    /// Gives the tables back to the system. The memory that was managed is not touched; nothing may
    /// be asked of the allocator afterwards.
    pub fn release(&mut self, os: &Os) {
        self.tree.release(&mut self.space);
        self.grown.release(&mut self.space);
        self.space.release(os);
        self.chunks.release(os);
        self.index = ScavengeIndex::new();
        self.hint = None;
        self.free = PageCount::ZERO;
        self.scavenged = PageCount::ZERO;
        self.scavenging = PageCount::ZERO;
    }

    /// Calls `visit` with the memory that the tables have.
    pub fn for_each_table(&self, visit: &mut dyn FnMut(AddrRange)) {
        self.tree.for_each_ready(visit);
        self.chunks.for_each_ready(visit);
        self.grown.for_each_ready(visit);
        self.space.for_each_ready(visit);
    }

    /// Adds whole chunks; their pages are free and scavenged.
    ///
    /// # Errors
    /// When the system refuses memory for the tables, or when the heap would have more than
    /// [`MAX_GROWN_CHUNKS`](super::MAX_GROWN_CHUNKS). Nothing has changed then.
    ///
    /// # Panics
    /// When the range is empty, is not made of whole chunks, ends outside the address space, or has
    /// been grown in part.
    pub fn grow(&mut self, os: &Os, range: AddrRange) -> Result<(), OsError> {
        let aligned = range.base().is_aligned(CHUNK_BYTES) && range.end().is_aligned(CHUNK_BYTES);
        assert!(
            aligned && !range.is_empty(),
            "grow by {range:?}, which is not made of whole chunks"
        );
        assert!(range.end().get() <= 1 << ADDRESS_BITS, "grow by {range:?}: no such addresses");
        let (first, end) = (range.base().chunk(), range.end().chunk());
        assert!(!self.grown.intersects(first, end), "grow by {range:?}, which was grown before");
        let count = end.get() - first.get();
        if count > self.chunks.room() {
            return Err(too_many_chunks(range));
        }
        // All that can fail comes first; memory that was committed for a growth that then fails is
        // found committed by the next.
        self.tree.commit(os, first, end)?;
        self.chunks.commit(os, first, end)?;
        self.grown.commit(os)?;

        self.grown.add(first, end);
        for chunk in (first.get()..end.get()).map(ChunkIndex::new) {
            self.chunks.add(chunk);
            let changed = self.tree.set_leaf(chunk, Summary::FREE_CHUNK);
            debug_assert!(changed, "a chunk that was not grown has no summary");
        }
        self.tree.rise(first, ChunkIndex::new(end.get() - 1));
        let pages = PageCount::new(count * CHUNK_PAGES);
        self.free += pages;
        self.scavenged += pages;
        self.lower_hint(range.base());
        Ok(())
    }

    /// Allocates `n` pages in a row at the lowest address where they are free. `None`: there are
    /// none.
    ///
    /// # Panics
    /// When `n` is zero.
    pub fn alloc(&mut self, n: PageCount) -> Option<PageRun> {
        let found = self.find(n)?;
        Some(self.take(&found, found.base, n))
    }

    /// Allocates `n` pages in a row at a multiple of `align`. `None`: none were found.
    ///
    /// The lowest `n` free pages are taken when they happen to be aligned. Otherwise a run is
    /// looked for that is aligned somewhere wherever it lies, that is, one longer by the alignment
    /// less a page; its head and tail are left alone, with their scavenged bits. So a place that is
    /// aligned and exactly long enough is missed when a lower run of `n` pages is free and is not
    /// aligned.
    ///
    /// # Panics
    /// When `n` is zero, or when `align` is not a power of two.
    pub fn alloc_aligned(&mut self, n: PageCount, align: Bytes) -> Option<PageRun> {
        assert!(align.get().is_power_of_two(), "an alignment is a power of two, not {align}");
        let align = align.get();
        if align <= PAGE_BYTES {
            return self.alloc(n);
        }
        let first_fit = self.find(n)?;
        if first_fit.base.is_aligned(align) {
            return Some(self.take(&first_fit, first_fit.base, n));
        }
        let longer = PageCount::new(n.get().checked_add(align / PAGE_BYTES - 1)?);
        let found = self.find(longer)?;
        let base = found.base.checked_align_up(align)?;
        Some(self.take(&found, base, n))
    }

    /// Whether [`PageAlloc::alloc_aligned`] would find something.
    ///
    /// # Panics
    /// As it does.
    pub fn fits(&self, n: PageCount, align: Bytes) -> bool {
        assert!(align.get().is_power_of_two(), "an alignment is a power of two, not {align}");
        let head = PageCount::new(align.get().div_ceil(PAGE_BYTES) - 1);
        let first = self.find(n);
        match n.get().checked_add(head.get()) {
            Some(longer) if head > PageCount::ZERO => {
                first.is_some_and(|first| first.base.is_aligned(align.get()))
                    || self.find(PageCount::new(longer)).is_some()
            }
            _ => first.is_some(),
        }
    }

    /// Frees `n` pages from `base` on: any allocated pages, whatever allocation they came from.
    /// Their memory stays as it is, so they are not scavenged.
    ///
    /// # Panics
    /// When a page is free already, or was never grown; nothing has changed then.
    pub fn free(&mut self, base: Addr, n: PageCount) {
        self.require(base, n, Want::Allocated, "free");
        self.vacate(base, n);
        self.count_free(base, n);
    }

    /// Allocates exactly these pages, all of which are free. Returns how many were scavenged.
    ///
    /// # Panics
    /// When a page is allocated, or was never grown; nothing has changed then.
    pub fn claim(&mut self, base: Addr, n: PageCount) -> PageCount {
        self.require(base, n, Want::Free, "claim");
        self.count_alloc(base, n);
        self.occupy_free(base, n)
    }

    /// Where `n` pages in a row would be allocated. `None`: nowhere, as it is.
    ///
    /// # Panics
    /// When `n` is zero.
    pub fn lowest_run(&self, n: PageCount) -> Option<Addr> {
        Some(self.find(n)?.base)
    }

    /// Number of free pages, scavenged or not. Pages in a [`PageCache`](super::PageCache) are not
    /// among them, nor are those that are taken for scavenging.
    pub fn free_pages(&self) -> PageCount {
        self.free
    }

    /// The grown memory: ranges that rise and do not touch.
    pub fn in_use(&self) -> impl DoubleEndedIterator<Item = AddrRange> + '_ {
        self.grown.iter()
    }

    /// From the lowest grown address to behind the highest. `None`: nothing was grown.
    pub fn bounds(&self) -> Option<AddrRange> {
        self.grown.bounds()
    }

    /// What is known about a chunk. `None`: it was never grown.
    pub fn chunk(&self, chunk: ChunkIndex) -> Option<ChunkView<'_>> {
        self.grown.contain(chunk, chunk).then(|| ChunkView {
            allocated: self.chunks.allocated(chunk),
            scavenged: self.chunks.scavenged(chunk),
            summary: self.tree.leaf(chunk),
            occupancy: self.chunks.occupancy(chunk),
        })
    }

    /// The lowest `n` free pages in a row.
    pub(super) fn find(&self, n: PageCount) -> Option<Free> {
        assert!(n.get() > 0, "an allocation has at least one page");
        let hint = self.hint?;
        if n > self.free {
            return None;
        }
        let chunk = hint.chunk();
        if self.tree.leaf(chunk).max() >= n {
            return Some(self.find_in_chunk(chunk, n, page_in_chunk(hint)));
        }
        let last = self.bounds()?.end().chunk().get() - 1;
        let hit = self.tree.find(n, chunk, ChunkIndex::new(last))?;
        let none_free_below = hit.none_free_below.base().max(hint);
        let chunk = match hit.place {
            Place::At(page) => return Some(Free { base: page.base(), none_free_below }),
            Place::Inside(chunk) => chunk,
        };
        // The page below which none is free bounds the search in its own chunk only.
        let from =
            if none_free_below.chunk() == chunk { page_in_chunk(none_free_below) } else { 0 };
        let found = self.find_in_chunk(chunk, n, from);
        if none_free_below.chunk() == chunk {
            return Some(found);
        }
        Some(Free { base: found.base, none_free_below })
    }

    /// The lowest `n` free pages in a chunk whose summary promises them; no page of the chunk below
    /// `from` is free. The bound in the answer is that of the chunk.
    fn find_in_chunk(&self, chunk: ChunkIndex, n: PageCount, from: usize) -> Free {
        match bits::find(self.chunks.allocated(chunk), n, from) {
            Some(found) => Free {
                base: page_of(chunk, found.start),
                none_free_below: page_of(chunk, found.first_free),
            },
            None => panic!(
                "bad summary: chunk {chunk:?} is {:?}, but has no {} free pages in a row",
                self.tree.leaf(chunk),
                n.get(),
            ),
        }
    }

    /// Allocates `n` pages from `base` on, among those that were found.
    fn take(&mut self, found: &Free, base: Addr, n: PageCount) -> PageRun {
        self.count_alloc(base, n);
        PageRun { base, scavenged: self.occupy(found, base, n) }
    }

    /// Marks pages that were found as allocated; the scavenge index is left to the caller, here and
    /// in the two functions that follow. Returns how many were scavenged.
    fn occupy(&mut self, found: &Free, base: Addr, n: PageCount) -> PageCount {
        for piece in pieces(base, n) {
            bits::set(self.chunks.allocated_mut(piece.chunk), piece.start, piece.len);
        }
        let scavenged = self.clear_scavenged_bits(base, n);
        self.free -= n;
        self.update(base, n);
        let taken_from_the_bound = found.none_free_below == base;
        self.raise_hint(if taken_from_the_bound { base + n } else { found.none_free_below });
        scavenged
    }

    /// Marks pages of which it is known that they are free as allocated.
    pub(super) fn occupy_free(&mut self, base: Addr, n: PageCount) -> PageCount {
        let none_free_below = self.hint.expect("a free page has a hint below it");
        self.occupy(&Free { base, none_free_below }, base, n)
    }

    /// Marks allocated pages as free.
    pub(super) fn vacate(&mut self, base: Addr, n: PageCount) {
        for piece in pieces(base, n) {
            bits::clear(self.chunks.allocated_mut(piece.chunk), piece.start, piece.len);
        }
        self.free += n;
        self.update(base, n);
        self.lower_hint(base);
    }

    /// Brings the summaries up to date after the allocated bits of `n` pages from `base` on were
    /// all set, or all cleared, or changed within one chunk.
    pub(super) fn update(&mut self, base: Addr, n: PageCount) {
        let (mut first, mut last) = (None, base.chunk());
        for piece in pieces(base, n) {
            let sum = bits::summarize(self.chunks.allocated(piece.chunk));
            if self.tree.set_leaf(piece.chunk, sum) {
                first.get_or_insert(piece.chunk);
                last = piece.chunk;
            }
        }
        if let Some(first) = first {
            self.tree.rise(first, last);
        }
    }

    /// No page below `addr` is free, where it had been known for a lower address.
    pub(super) fn raise_hint(&mut self, addr: Addr) {
        self.hint = if self.free == PageCount::ZERO { None } else { self.grown.lowest_from(addr) };
    }

    /// The page at `addr` has become free.
    pub(super) fn lower_hint(&mut self, addr: Addr) {
        self.hint = Some(self.hint.map_or(addr, |hint| hint.min(addr)));
    }
}

/// The answer to a growth past [`MAX_GROWN_CHUNKS`](super::MAX_GROWN_CHUNKS): there is no address
/// space left, as far as this heap goes.
#[cold]
fn too_many_chunks(range: AddrRange) -> OsError {
    OsError::new(Operation::Reserve, range.bytes(), libc::ENOMEM)
}
