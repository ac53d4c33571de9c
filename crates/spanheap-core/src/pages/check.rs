//! The page allocator's invariants, checked as a whole.
//!
//! The check reads every table from scratch and compares; it is as slow as the heap is large, and
//! is meant for tests, for debug builds at a change of phase, and for the moment before a fatal
//! message.

use super::alloc::PageAlloc;
use super::bits;
use super::scavenge_index::Occupancy;
use crate::addr::{AddrRange, CHUNK_PAGES, ChunkIndex, PageCount};
use crate::bitmap;

/// The numbers of the chunks in a range.
fn chunks_of(range: AddrRange) -> impl Iterator<Item = ChunkIndex> {
    (range.base().chunk().get()..range.end().chunk().get()).map(ChunkIndex::new)
}

impl PageAlloc {
    /// Checks that summaries are functions of the bitmaps, that scavenged pages are free, that no
    /// page below the search hint is free, that the ranges of grown memory rise without touching,
    /// that the counts are right, and that the scavenge index goes with the bitmaps.
    ///
    /// # Panics
    /// When one of these does not hold.
    pub fn check_invariants(&self) {
        let ranges: Vec<AddrRange> = self.in_use().collect();
        assert!(
            ranges.windows(2).all(|pair| pair[0].end() < pair[1].base())
                && ranges.iter().all(|range| !range.is_empty()),
            "the ranges of grown memory do not rise, or touch: {ranges:?}"
        );
        let (mut free, mut scavenged) = (PageCount::ZERO, PageCount::ZERO);
        let mut first_free = None;
        let mut scavenging = PageCount::ZERO;
        for chunk in ranges.iter().copied().flat_map(chunks_of) {
            let view = self.chunk(chunk).expect("a chunk in a grown range is grown");
            let must = bits::summarize(view.allocated);
            assert!(view.summary == must, "{chunk:?} is {:?}, must be {must:?}", view.summary);
            let both = view.allocated.iter().zip(view.scavenged).any(|(a, s)| a & s != 0);
            assert!(!both, "{chunk:?} has pages that are allocated and scavenged");
            let allocated = PageCount::new(bitmap::count_ones(view.allocated));
            scavenging += self.check_occupancy(chunk, view.occupancy, allocated);
            free += PageCount::new(CHUNK_PAGES) - allocated;
            scavenged += PageCount::new(bitmap::count_ones(view.scavenged));
            if first_free.is_none() {
                first_free = bitmap::next_zero(view.allocated, 0)
                    .map(|page| chunk.base() + PageCount::new(page));
            }
        }
        for range in &ranges {
            let last = ChunkIndex::new(range.end().chunk().get() - 1);
            self.tree.check(range.base().chunk(), last);
        }
        assert!(free == self.free_pages(), "{free:?} pages are free, not {:?}", self.free_pages());
        let counted = self.scavenged_pages();
        assert!(scavenged == counted, "{scavenged:?} pages are scavenged, not {counted:?}");
        let taken = self.scavenging_pages();
        assert!(scavenging == taken, "{scavenging:?} pages are being returned, not {taken:?}");
        for force in [false, true] {
            if let Some(cursor) = self.index.cursor(force) {
                assert!(self.chunk(cursor.chunk()).is_some(), "{cursor:?} is not grown memory");
            }
        }
        match (self.hint, first_free) {
            (None, None) => {}
            (Some(hint), Some(first)) => {
                assert!(hint <= first, "the hint {hint} is above the first free page, at {first}");
                assert!(self.chunk(hint.chunk()).is_some(), "the hint {hint} is not grown memory");
            }
            (hint, first) => panic!("the hint is {hint:?}, the first free page is {first:?}"),
        }
    }

    /// Checks what the scavenge index knows about a chunk with so many allocated pages. Returns how
    /// many of them the index does not count, because their memory is being returned.
    fn check_occupancy(
        &self,
        chunk: ChunkIndex,
        known: Occupancy,
        allocated: PageCount,
    ) -> PageCount {
        let pages = PageCount::new(CHUNK_PAGES);
        assert!(
            known.in_use <= allocated && known.last_in_use <= pages,
            "{chunk:?} has {allocated:?} allocated pages, but is known as {known:?}"
        );
        assert!(known.in_use < pages || !known.has_free(), "{chunk:?} is full, and is {known:?}");
        // What a forced search does not reach, it need not look at.
        let reached = self.index.cursor(true).is_some_and(|cursor| chunk <= cursor.chunk());
        assert!(reached || !known.has_free(), "{chunk:?} is {known:?}, out of a search's reach");
        allocated - known.in_use
    }
}
