//! Returning free pages to the system, as far as the page allocator takes part.
//!
//! The memory of a page is returned by a call to the system, which may take long. It must not be
//! made under the page-heap lock, and nobody may be given the page meanwhile. So it takes two
//! steps:
//!
//! ```text
//! under the lock:  take_for_scavenging   the index names a chunk, the bitmaps the pages of it;
//!                                        the pages are marked as allocated
//! without it:      the caller returns their memory
//! under the lock:  finish_scavenging     the pages are free again, and scavenged
//! ```
//!
//! While it is taken, a run looks allocated to everybody, and in the end it may be handed out at
//! once, as scavenged. An allocation that finds no room meanwhile might have found it here; it
//! makes the heap grow, at worst by a candidate per scavenger at work.
//!
//! The scavenge index is told of neither step: what it counts is how the program uses a chunk. This
//! is how the two can be told apart: what is allocated and not in use has been taken.

use super::CACHE_PAGES;
use super::alloc::{PageAlloc, pieces};
use super::bits;
use super::candidate;
use super::require::Want;
use crate::addr::{Addr, AddrRange, CHUNK_PAGES, PAGE_BYTES, PageCount, PageIndex};
use crate::bitmap;

impl PageAlloc {
    /// Finds free pages that have memory, and takes them, so that the caller can return their
    /// memory to the system; it then calls [`PageAlloc::finish_scavenging`] with the range. The
    /// highest are taken first. `None`: nothing is left to be returned, as far as is looked.
    ///
    /// `force` says to look into chunks that are densely used, too, and for pages that were freed
    /// in this generation; see [`ScavengeIndex`](super::scavenge_index::ScavengeIndex). The pages
    /// are in one chunk. They are whole physical pages, of `min` pages each; `max` is a wish, which
    /// is exceeded to return whole huge pages; see
    /// [`find_candidate`](super::candidate::find_candidate).
    ///
    /// # Panics
    /// When `min` is not one of 1, 2, 4, 8, 16, 32 and 64, or when `pages_per_huge_page` is neither
    /// zero nor a power of two.
    pub fn take_for_scavenging(
        &mut self,
        force: bool,
        min: PageCount,
        max: PageCount,
        pages_per_huge_page: usize,
    ) -> Option<AddrRange> {
        // Noticed here and not only where something is found, which may be much later.
        let units = min.get().is_power_of_two() && min <= CACHE_PAGES;
        assert!(units, "scavenging by {} pages: physical pages are 1 to 64", min.get());
        let huge = pages_per_huge_page;
        assert!(huge == 0 || huge.is_power_of_two(), "scavenging with huge pages of {huge} pages");
        loop {
            let from = self.find_chunk_to_scavenge(force)?;
            let (chunk, page) = (from.chunk(), from.get() % CHUNK_PAGES);
            let (allocated, scavenged) =
                (self.chunks.allocated(chunk), self.chunks.scavenged(chunk));
            let found = candidate::find_candidate(
                allocated,
                scavenged,
                page,
                min,
                max,
                pages_per_huge_page,
            );
            let Some(found) = found else {
                let occupancy = self.chunks.occupancy(chunk);
                self.chunks.set_occupancy(chunk, occupancy.emptied());
                continue;
            };
            let base = chunk.base() + PageCount::new(found.start);
            let none_scavenged = self.occupy_free(base, found.pages);
            debug_assert!(none_scavenged == PageCount::ZERO, "a candidate has memory");
            self.scavenging += found.pages;
            return Some(AddrRange::at(base, found.pages.bytes()));
        }
    }

    /// The pages of a range that was [taken](PageAlloc::take_for_scavenging) are free, and their
    /// memory was returned to the system. The range may be given back in parts.
    ///
    /// # Panics
    /// When the range is empty or is not made of pages, or when a page in it is free already, was
    /// never grown, or cannot have been taken, since so many of its chunk were not. Nothing has
    /// changed then.
    pub fn finish_scavenging(&mut self, range: AddrRange) {
        let (base, n) = (range.base(), range.bytes().whole_pages());
        assert!(range.end().is_aligned(PAGE_BYTES), "{range:?} is not made of whole pages");
        self.require(base, n, Want::Allocated, "finish scavenging");
        for piece in pieces(base, n) {
            let allocated = PageCount::new(bitmap::count_ones(self.chunks.allocated(piece.chunk)));
            let taken = allocated - self.chunks.occupancy(piece.chunk).in_use;
            assert!(
                piece.len <= taken,
                "cannot finish scavenging {} pages at {base}: of the chunk at {}, {} were taken",
                n.get(),
                piece.chunk.base(),
                taken.get(),
            );
        }
        self.scavenging -= n;
        self.vacate(base, n);
        self.set_scavenged_bits(base, n);
    }

    /// Number of pages that are taken for scavenging.
    pub fn scavenging_pages(&self) -> PageCount {
        self.scavenging
    }

    /// The collector has completed a cycle: the background scavenger may look at what was freed
    /// up to now.
    pub fn next_scavenge_generation(&mut self) {
        self.index.next_generation();
    }

    /// Makes the searches that follow look at every free page that has memory, also at those that
    /// the index has lost sight of; for those who want to return all there is. Reads the bitmaps of
    /// all chunks.
    pub fn reset_scavenge_search(&mut self) {
        let PageAlloc { grown, chunks, index, .. } = self;
        let Some(all) = grown.bounds() else { return };
        let one = PageCount::new(1);
        for chunk in grown.down_from((all.end() - one.bytes()).chunk()) {
            let (allocated, scavenged) = (chunks.allocated(chunk), chunks.scavenged(chunk));
            let top = CHUNK_PAGES - 1;
            let highest = candidate::find_candidate(allocated, scavenged, top, one, one, 0);
            if let Some(highest) = highest {
                let last = chunk.base().page().offset(highest.start);
                let occupancy = index.free(chunks.occupancy(chunk), last, PageCount::ZERO);
                chunks.set_occupancy(chunk, occupancy);
            }
        }
    }

    /// Notes that the memory of `n` free pages from `base` on was returned to the system.
    ///
    /// # Panics
    /// When a page is allocated, or was never grown; nothing has changed then.
    pub fn set_scavenged(&mut self, base: Addr, n: PageCount) {
        self.require(base, n, Want::Free, "scavenge");
        self.set_scavenged_bits(base, n);
    }

    /// Notes that `n` pages from `base` on have memory. The scavenger will look at those that are
    /// free as if they had been freed now.
    ///
    /// # Panics
    /// When a page was never grown; nothing has changed then.
    pub fn clear_scavenged(&mut self, base: Addr, n: PageCount) {
        self.require(base, n, Want::Grown, "clear the scavenged bits of");
        for piece in pieces(base, n) {
            let cleared = self.clear_scavenged_bits(piece.base(), piece.len);
            // A chunk without scavenged pages may be full, and has nothing new in any case.
            if cleared > PageCount::ZERO {
                let occupancy = self.chunks.occupancy(piece.chunk);
                let occupancy = self.index.free(occupancy, piece.last(), PageCount::ZERO);
                self.chunks.set_occupancy(piece.chunk, occupancy);
            }
        }
    }

    /// Number of pages that are free and were returned to the system.
    pub fn scavenged_pages(&self) -> PageCount {
        self.scavenged
    }

    /// The page from which to go down in the bitmaps of its chunk.
    fn find_chunk_to_scavenge(&mut self, force: bool) -> Option<PageIndex> {
        let highest = self.index.cursor(force)?.chunk();
        let chunks = self.grown.down_from(highest);
        let chunks = chunks.map(|chunk| (chunk, self.chunks.occupancy(chunk)));
        self.index.find(force, chunks)
    }

    fn set_scavenged_bits(&mut self, base: Addr, n: PageCount) {
        for piece in pieces(base, n) {
            let bits = self.chunks.scavenged_mut(piece.chunk);
            self.scavenged += piece.len - bits::count(bits, piece.start, piece.len);
            bits::set(bits, piece.start, piece.len);
        }
    }

    /// Clears scavenged bits, and says how many there were.
    pub(super) fn clear_scavenged_bits(&mut self, base: Addr, n: PageCount) -> PageCount {
        let mut cleared = PageCount::ZERO;
        for piece in pieces(base, n) {
            let bits = self.chunks.scavenged_mut(piece.chunk);
            cleared += bits::count(bits, piece.start, piece.len);
            bits::clear(bits, piece.start, piece.len);
        }
        self.scavenged -= cleared;
        cleared
    }

    /// The scavenge index counts pages from `base` on that the program has taken.
    pub(super) fn count_alloc(&mut self, base: Addr, n: PageCount) {
        for piece in pieces(base, n) {
            let occupancy = self.index.alloc(self.chunks.occupancy(piece.chunk), piece.len);
            self.chunks.set_occupancy(piece.chunk, occupancy);
        }
    }

    /// The scavenge index counts pages from `base` on that the program has given back.
    pub(super) fn count_free(&mut self, base: Addr, n: PageCount) {
        for piece in pieces(base, n) {
            let occupancy = self.chunks.occupancy(piece.chunk);
            let occupancy = self.index.free(occupancy, piece.last(), piece.len);
            self.chunks.set_occupancy(piece.chunk, occupancy);
        }
    }
}
