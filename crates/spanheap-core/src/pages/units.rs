//! Units of half a chunk that are free as a whole: where their memory is, or where memory can be moved to.
//!
//! A unit is *cold* when all of its pages are free and scavenged, and *warm* when they are all free and none is
//! scavenged. Whoever moves memory needs cold ones; it becomes warm there.
//!
//! # The search
//! From a given address upwards, a chunk at a time. The summary of a chunk says that it has no free unit without a look
//! at its bitmaps; it lies beside those of its neighbours, so a thousand full chunks are looked over in a few
//! microseconds. That many at most, since whoever searches has the page heap's lock.

use super::alloc::PageAlloc;
use super::bits::CHUNK_WORDS;
use crate::addr::{Addr, CHUNK_PAGES, PAGE_BYTES, PageCount};
use crate::bitmap::WORD_BITS;

/// Pages of a unit.
pub const UNIT_PAGES: PageCount = PageCount::new(CHUNK_PAGES / 2);

/// Words of a bitmap that a unit has.
const UNIT_WORDS: usize = UNIT_PAGES.get() / WORD_BITS;

/// How many chunks one search looks at.
const MOST_CHUNKS: usize = 1024;

/// What a search for a cold unit has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Search {
    /// The lowest one from where it began.
    Found(Addr),
    /// None below this address; it has not looked further.
    GoOn(Addr),
    /// None.
    Nothing,
}

impl PageAlloc {
    /// Looks for the lowest cold unit at or above `from`.
    pub fn find_cold_unit(&self, from: Addr) -> Search {
        let mut left = MOST_CHUNKS;
        for range in self.grown.iter().filter(|range| range.end() > from) {
            let first = range.base().max(from).chunk();
            for chunk in first.get()..range.end().chunk().get() {
                let chunk = crate::addr::ChunkIndex::new(chunk);
                if left == 0 {
                    return Search::GoOn(chunk.base());
                }
                left -= 1;
                if self.tree.leaf(chunk).max() < UNIT_PAGES {
                    continue;
                }
                let units = [chunk.base(), chunk.base() + UNIT_PAGES];
                let cold = units.into_iter().find(|&unit| unit >= from && self.is_cold_unit(unit));
                if let Some(unit) = cold {
                    return Search::Found(unit);
                }
            }
        }
        Search::Nothing
    }

    /// Whether all pages of the unit at `base`, which is grown, are free and have no memory.
    pub fn is_cold_unit(&self, base: Addr) -> bool {
        let words = words_of(base);
        self.chunks.scavenged(base.chunk())[words].iter().all(|&word| word == u64::MAX)
    }

    /// Whether they are all free and all have memory.
    pub fn is_warm_unit(&self, base: Addr) -> bool {
        let (words, chunk) = (words_of(base), base.chunk());
        let (allocated, scavenged) = (self.chunks.allocated(chunk), self.chunks.scavenged(chunk));
        let both = allocated[words.clone()].iter().chain(&scavenged[words]);
        both.into_iter().all(|&word| word == 0)
    }
}

/// The words of a chunk's bitmaps that stand for the unit at `base`.
fn words_of(base: Addr) -> core::ops::Range<usize> {
    debug_assert!(base.is_aligned(UNIT_PAGES.get() * PAGE_BYTES), "a unit at {base}");
    let first = base.page().get() % CHUNK_PAGES / WORD_BITS;
    debug_assert!(first + UNIT_WORDS <= CHUNK_WORDS);
    first..first + UNIT_WORDS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{AddrRange, Bytes, CHUNK_BYTES};
    use crate::os::{Os, SimOs};

    const CHUNKS: usize = 3 * MOST_CHUNKS;

    fn unit(number: usize) -> Addr {
        Addr::new(1 << 40) + PageCount::new(number * UNIT_PAGES.get())
    }

    fn with_pages(test: impl FnOnce(&mut PageAlloc)) {
        let os = Os::simulated(SimOs::builder().build());
        let mut pages = PageAlloc::new(&os).unwrap();
        let all = AddrRange::at(unit(0), Bytes::new(CHUNKS * CHUNK_BYTES));
        pages.grow(&os, all).unwrap();
        test(&mut pages);
        pages.release(&os);
    }

    #[test]
    fn a_cold_unit_is_found_where_it_is_the_lowest() {
        with_pages(|pages| {
            assert_eq!(pages.find_cold_unit(Addr::NULL), Search::Found(unit(0)));
            assert_eq!(pages.find_cold_unit(unit(7)), Search::Found(unit(7)));
            // A page of one is in use, one has some memory, and one has all of it.
            pages.claim(unit(0) + PageCount::new(255), PageCount::new(1));
            pages.clear_scavenged(unit(1), PageCount::new(1));
            pages.clear_scavenged(unit(2), UNIT_PAGES);
            assert_eq!(pages.find_cold_unit(Addr::NULL), Search::Found(unit(3)));
            let warm: Vec<usize> = (0..5).filter(|&i| pages.is_warm_unit(unit(i))).collect();
            assert_eq!(warm, [2]);
            pages.set_scavenged(unit(1), UNIT_PAGES);
            assert_eq!(pages.find_cold_unit(Addr::NULL), Search::Found(unit(1)));
            let end = unit(2 * CHUNKS);
            assert_eq!(pages.find_cold_unit(end), Search::Nothing);
        });
    }

    #[test]
    fn a_search_ends_and_can_go_on() {
        with_pages(|pages| {
            let last = 2 * CHUNKS - 1;
            pages.claim(unit(0), PageCount::new(last * UNIT_PAGES.get()));
            let (mut from, mut searches) = (Addr::NULL, 0);
            let found = loop {
                searches += 1;
                match pages.find_cold_unit(from) {
                    Search::GoOn(next) => from = next,
                    other => break other,
                }
            };
            assert_eq!((found, searches), (Search::Found(unit(last)), 3));
        });
    }
}
