//! [`PageCache`]: pages of one 64-page block, taken out of the allocator at once.
//!
//! Small spans need one page or a few, and taking each under the page-heap lock would make that
//! lock the busiest of the heap. So a mutator takes all free pages of an aligned block of 64 (512
//! KiB), and hands them out to itself with a few instructions on two words, first fit. To the
//! allocator these pages are allocated; their scavenged bits travel with them, because whoever gets
//! a page has to know.
//!
//! A cache is not given back by being dropped: it does not know its allocator. Its owner flushes it
//! when the mutator goes away and when the heap wants all pages together.

use super::CACHE_PAGES;
use super::alloc::{PageAlloc, PageRun, page_in_chunk};
use super::require::Want;
use crate::addr::{Addr, PageCount};
use crate::bitmap::{self, WORD_BITS};

/// The free pages of one block of 64 pages.
///
/// # Invariants
/// 1. `base` is a multiple of 64 pages.
/// 2. Between calls a page in `free` is allocated as the allocator sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageCache {
    base: Addr,
    /// Bit i: page i of the block is here and free.
    free: u64,
    /// Bit i: page i of the block was scavenged. Bits outside `free` have no meaning.
    scavenged: u64,
}

impl Default for PageCache {
    fn default() -> PageCache {
        PageCache::EMPTY
    }
}

impl PageCache {
    /// A cache without pages.
    pub const EMPTY: PageCache = PageCache { base: Addr::NULL, free: 0, scavenged: 0 };

    /// A cache of the pages in `free`, bit i being page i of the block at `base`.
    ///
    /// # Panics
    /// When `base` is not a multiple of 64 pages.
    pub fn new(base: Addr, free: u64, scavenged: u64) -> PageCache {
        assert!(base.is_aligned(CACHE_PAGES.bytes().get()), "{base} starts no block of 64 pages");
        PageCache { base, free, scavenged }
    }

    /// The address of page 0 of the block.
    pub fn base(&self) -> Addr {
        self.base
    }

    /// The pages that can be allocated, as a mask.
    pub fn free_bits(&self) -> u64 {
        self.free
    }

    /// The pages that were scavenged, as a mask. Bits of pages that are not in
    /// [`PageCache::free_bits`] have no meaning.
    pub fn scavenged_bits(&self) -> u64 {
        self.scavenged
    }

    /// Whether no page is left.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.free == 0
    }

    /// Allocates `n` pages in a row, the lowest. `None`: there are none, which does not say
    /// anything about the allocator behind the cache.
    ///
    /// # Panics
    /// When `n` is zero.
    #[inline]
    pub fn alloc(&mut self, n: PageCount) -> Option<PageRun> {
        let start = bitmap::find_bit_range64(self.free, n.get())? as usize;
        let mask = bitmap::mask64(start, n.get());
        let scavenged = (self.scavenged & mask).count_ones() as usize;
        self.free &= !mask;
        self.scavenged &= !mask;
        Some(PageRun {
            base: self.base + PageCount::new(start),
            scavenged: PageCount::new(scavenged),
        })
    }

    /// Gives the pages that are left back to the allocator they came from, scavenged ones as
    /// scavenged. The cache is empty afterwards.
    ///
    /// # Panics
    /// When a page is free in the allocator already, or is not one of its pages.
    pub fn flush(&mut self, pages: &mut PageAlloc) {
        let full = core::mem::replace(self, PageCache::EMPTY);
        pages.take_back(full.base, full.free, full.scavenged);
    }
}

impl PageAlloc {
    /// Takes all free pages out of the block of 64 pages that holds the lowest free page.
    /// `None`: no page is free.
    pub fn alloc_to_cache(&mut self) -> Option<PageCache> {
        let found = self.find(PageCount::new(1))?;
        let base = found.base.align_down(CACHE_PAGES.bytes().get());
        let (chunk, word) = (base.chunk(), page_in_chunk(base) / WORD_BITS);

        let allocated = &mut self.chunks.allocated_mut(chunk)[word];
        let free = !*allocated;
        *allocated = u64::MAX;
        let scavenged = core::mem::take(&mut self.chunks.scavenged_mut(chunk)[word]);

        let count = PageCount::new(free.count_ones() as usize);
        self.chunks.set_occupancy(chunk, self.index.alloc(self.chunks.occupancy(chunk), count));
        self.free -= count;
        self.scavenged -= PageCount::new(scavenged.count_ones() as usize);
        self.update(base, CACHE_PAGES);
        // The lowest free page was in this block, and the block has none left.
        self.raise_hint(base + CACHE_PAGES);
        Some(PageCache::new(base, free, scavenged))
    }

    /// Takes back the pages of a cache: those in `free` become free, and those of them that are in
    /// `scavenged` become scavenged.
    ///
    /// # Panics
    /// When a page is free already, or was never grown; nothing has changed then.
    fn take_back(&mut self, base: Addr, free: u64, scavenged: u64) {
        if free == 0 {
            return;
        }
        let (chunk, word) = (base.chunk(), page_in_chunk(base) / WORD_BITS);
        self.require(base, CACHE_PAGES, Want::Grown, "flush a page cache into");
        let scavenged = scavenged & free;

        let allocated = &mut self.chunks.allocated_mut(chunk)[word];
        assert!(
            *allocated & free == free,
            "a page cache at {base} holds the pages {free:#x}, of which {:#x} are free already",
            free & !*allocated,
        );
        *allocated &= !free;
        self.chunks.scavenged_mut(chunk)[word] |= scavenged;

        // To the scavenge index these pages are freed like any others.
        let count = PageCount::new(free.count_ones() as usize);
        let last = base.page().offset(free.ilog2() as usize);
        let occupancy = self.index.free(self.chunks.occupancy(chunk), last, count);
        self.chunks.set_occupancy(chunk, occupancy);
        self.free += count;
        self.scavenged += PageCount::new(scavenged.count_ones() as usize);
        self.update(base, CACHE_PAGES);
        self.lower_hint(base + PageCount::new(free.trailing_zeros() as usize));
    }
}
