//! Which pages of a chunk to return to the system next.
//!
//! A *candidate* is a run of pages that are free and still have memory. The scavenger goes through
//! the heap from its high end to its low end, because the allocator goes the other way: what is
//! high is the least likely to be wanted soon. So inside a chunk, too, the highest candidate wins.
//!
//! ```text
//! usable := the pages that are free and not scavenged, by whole physical pages
//! end    := behind the highest usable page, at or below where the search begins
//! run    := the usable pages that end there
//! take the top of the run, as long as is wanted, but no part of a huge page that is all in the run
//! ```
//!
//! **Physical pages** may be larger than the allocator's. The system takes whole ones only, so
//! where one of its pages is not usable, none of the same physical page is: `min` is the number of
//! pages in a physical page, and [`fill_aligned`] spreads what is not usable over groups of that
//! many.
//!
//! **Huge pages** are kept or returned whole. If the piece that is wanted began in the middle of
//! one whose lower part lies in the run as well, the system would have to break it up for a saving
//! that may be a few pages; so the candidate then reaches down to the start of the huge page, and
//! is longer than was wanted.
//!
//! The functions are pure: two bitmaps and a few numbers in, a run out.

use super::bits::{CHUNK_WORDS, PageBits};
use crate::addr::{CHUNK_PAGES, PageCount};
use crate::bitmap::WORD_BITS;

/// Pages of one chunk that can be returned to the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The first of them, as a position in the chunk.
    pub start: usize,
    /// How many they are, at least one.
    pub pages: PageCount,
}

/// Sets every aligned group of `m` bits of a word that has any bit set.
///
/// # Panics
/// When `m` is not one of 1, 2, 4, 8, 16, 32 and 64.
pub const fn fill_aligned(x: u64, m: usize) -> u64 {
    assert!(m.is_power_of_two() && m <= WORD_BITS, "groups of a word are powers of two");
    // Gather each group in its lowest bit, with steps that double.
    let mut gathered = x;
    let mut step = 1;
    while step < m {
        gathered |= gathered >> step;
        step *= 2;
    }
    // A group of ones, and a word with the lowest bit of each group: their product is all groups,
    // since groups do not overlap and nothing is carried.
    let group = u64::MAX >> (WORD_BITS - m);
    (gathered & (u64::MAX / group)) * group
}

/// The highest candidate of a chunk, and of a candidate that is too long the top.
///
/// The search begins with the word of the bitmaps in which page `search` is, with all of it, and
/// goes down. Only groups of `min` pages count that are free and not scavenged as a whole. `max` is
/// a wish: it is rounded up to a multiple of `min`, zero means `min`, and a huge page of
/// `pages_per_huge_page` pages is not cut for it. 0 huge pages: the system has none.
///
/// # Panics
/// When `search` is no page of a chunk; when `min` is not one of 1, 2, 4, 8, 16, 32 and 64; when
/// `pages_per_huge_page` is neither zero nor a power of two.
pub fn find_candidate(
    allocated: &PageBits,
    scavenged: &PageBits,
    search: usize,
    min: PageCount,
    max: PageCount,
    pages_per_huge_page: usize,
) -> Option<Candidate> {
    assert!(search < CHUNK_PAGES, "page {search} of a chunk that has {CHUNK_PAGES}");
    let min = min.get();
    let usable: [u64; CHUNK_WORDS] =
        core::array::from_fn(|i| !fill_aligned(allocated[i] | scavenged[i], min));
    let word = (0..=search / WORD_BITS).rev().find(|word| usable[*word] != 0)?;
    let end = (word + 1) * WORD_BITS - usable[word].leading_zeros() as usize;
    let run = ones_below(&usable, end);

    // No run is longer than a chunk, so a wish beyond that is none.
    let wanted = max.get().clamp(1, CHUNK_PAGES).next_multiple_of(min);
    let mut start = end - run.min(wanted);
    if pages_per_huge_page != 0 {
        assert!(pages_per_huge_page.is_power_of_two(), "a huge page of {pages_per_huge_page}");
        let below = start & !(pages_per_huge_page - 1);
        let above = start.next_multiple_of(pages_per_huge_page);
        if above <= end && below >= end - run {
            start = below;
        }
    }
    Some(Candidate { start, pages: PageCount::new(end - start) })
}

/// Number of ones in a row that end below bit `end`, which is not zero.
fn ones_below(words: &[u64], end: usize) -> usize {
    let mut at = end;
    while at > 0 {
        // The word of the bit below `at`, with that bit on top.
        let bits = (at - 1) % WORD_BITS + 1;
        let top = words[(at - 1) / WORD_BITS] << (WORD_BITS - bits);
        let ones = (top.leading_ones() as usize).min(bits);
        at -= ones;
        if ones < bits {
            break;
        }
    }
    end - at
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: PageBits = [0; CHUNK_WORDS];

    fn find(allocated: &PageBits, search: usize, max: usize, huge: usize) -> Option<[usize; 2]> {
        let max = PageCount::new(max);
        let found = find_candidate(allocated, &NONE, search, PageCount::new(1), max, huge);
        found.map(|found| [found.start, found.pages.get()])
    }

    #[test]
    fn a_chunk_without_free_pages_has_no_candidate() {
        assert_eq!(find(&[u64::MAX; CHUNK_WORDS], 511, 512, 0), None);
        assert_eq!(
            find_candidate(&NONE, &[!0; 8], 511, PageCount::new(1), PageCount::ZERO, 0),
            None
        );
    }

    #[test]
    fn the_search_begins_with_the_whole_word_of_its_page() {
        assert_eq!(find(&NONE, 64, 1, 0), Some([127, 1]));
        assert_eq!(find(&NONE, 63, 1, 0), Some([63, 1]));
        assert_eq!(find(&NONE, 0, 1000, 0), Some([0, 64]));
    }

    #[test]
    fn a_huge_page_that_is_free_is_not_cut() {
        assert_eq!(find(&NONE, 511, 1, 256), Some([256, 256]));
        assert_eq!(find(&NONE, 511, 300, 256), Some([0, 512]));
        // Its lowest page is in use: it is no huge page any more, and there is nothing to keep.
        let mut allocated = NONE;
        allocated[4] = 1;
        assert_eq!(find(&allocated, 511, 3, 256), Some([509, 3]));
        // The run ends inside a huge page, and there is no border of one above what is taken.
        allocated = NONE;
        allocated[7] = !0;
        assert_eq!(find(&allocated, 511, 3, 256), Some([445, 3]));
    }

    #[test]
    fn a_wish_is_rounded_to_physical_pages() {
        let find = |max| {
            let (min, max) = (PageCount::new(8), PageCount::new(max));
            find_candidate(&NONE, &NONE, 511, min, max, 0).map(|found| found.pages.get())
        };
        assert_eq!([0, 1, 8, 9, 512, usize::MAX].map(find), [8, 8, 8, 16, 512, 512].map(Some));
    }

    #[test]
    #[should_panic(expected = "powers of two")]
    fn groups_of_three_do_not_tile_a_word() {
        fill_aligned(0, 3);
    }
}
