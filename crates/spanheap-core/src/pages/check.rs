//! The page allocator's invariants, checked as a whole.
//!
//! The check reads every table from scratch and compares; it is as slow as the heap is large, and
//! is meant for tests, for debug builds at a change of phase, and for the moment before a fatal
//! message.

use super::alloc::PageAlloc;
use super::bits;
use crate::addr::{AddrRange, ChunkIndex, PageCount};
use crate::bitmap;

/// The numbers of the chunks in a range.
fn chunks_of(range: AddrRange) -> impl Iterator<Item = ChunkIndex> {
    (range.base().chunk().get()..range.end().chunk().get()).map(ChunkIndex::new)
}

impl PageAlloc {
    /// Checks that summaries are functions of the bitmaps, that scavenged pages are free, that no
    /// page below the search hint is free, that the ranges of grown memory rise without touching,
    /// and that the counts are right.
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
        let (tree, hint) = self.parts();
        let (mut free, mut scavenged) = (PageCount::ZERO, PageCount::ZERO);
        let mut first_free = None;
        for chunk in ranges.iter().copied().flat_map(chunks_of) {
            let view = self.chunk(chunk).expect("a chunk in a grown range is grown");
            let must = bits::summarize(view.allocated);
            assert!(view.summary == must, "{chunk:?} is {:?}, must be {must:?}", view.summary);
            let both = view.allocated.iter().zip(view.scavenged).any(|(a, s)| a & s != 0);
            assert!(!both, "{chunk:?} has pages that are allocated and scavenged");
            free += PageCount::new(bitmap::count_ones(&view.allocated.map(|word| !word)));
            scavenged += PageCount::new(bitmap::count_ones(view.scavenged));
            if first_free.is_none() {
                first_free = bitmap::next_zero(view.allocated, 0)
                    .map(|page| chunk.base() + PageCount::new(page));
            }
        }
        for range in &ranges {
            let last = ChunkIndex::new(range.end().chunk().get() - 1);
            tree.check(range.base().chunk(), last);
        }
        assert!(free == self.free_pages(), "{free:?} pages are free, not {:?}", self.free_pages());
        let counted = self.scavenged_pages();
        assert!(scavenged == counted, "{scavenged:?} pages are scavenged, not {counted:?}");
        match (hint, first_free) {
            (None, None) => {}
            (Some(hint), Some(first)) => {
                assert!(hint <= first, "the hint {hint} is above the first free page, at {first}");
                assert!(self.chunk(hint.chunk()).is_some(), "the hint {hint} is not grown memory");
            }
            _ => panic!("the hint is {hint:?}, the first free page is {first_free:?}"),
        }
    }
}
