//! What is known about the free pages of a region without looking at its bitmap.
//!
//! A [`Summary`] has three numbers: the free pages at the low end of the region, the longest run of
//! free pages anywhere in it, and the free pages at its high end. That is the least that can be
//! *merged*: the summary of two neighbours follows from theirs, because a run is inside one of them
//! or crosses the border between them, where it is made of one's end and the other's start.
//!
//! Summaries of chunks are the leaves of a tree (see `tree.rs`); a region of the highest
//! level has 2^21 pages. The three numbers take 21 bits each. The one value that needs a 22nd bit
//! is 2^21, and it can only occur three times at once, in a region that is wholly free: bit 63
//! stands for that. So a summary is a word, and the word 0 is a region without a free page, which
//! is also what a table that was never written says.

use crate::addr::{CHUNK_PAGES, PageCount};
use core::fmt;

/// log2 of the largest number that a summary holds.
pub const MAX_LOG_PAGES: u32 = 21;

const FIELD_BITS: u32 = MAX_LOG_PAGES;
const FIELD_MASK: u64 = (1 << FIELD_BITS) - 1;
/// All three numbers are 2^21.
const ALL_FREE: u64 = 1 << 63;

/// Free pages of a region: at the low end, in the longest run, at the high end.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Summary(u64);

impl Summary {
    /// A region without a free page.
    pub const NONE_FREE: Summary = Summary(0);

    /// A chunk without an allocated page.
    pub const FREE_CHUNK: Summary = Summary::new(
        PageCount::new(CHUNK_PAGES),
        PageCount::new(CHUNK_PAGES),
        PageCount::new(CHUNK_PAGES),
    );

    /// Puts the three numbers together.
    ///
    /// # Panics
    /// When a number is larger than 2^21, or is 2^21 and another one is not.
    #[inline]
    pub const fn new(start: PageCount, max: PageCount, end: PageCount) -> Summary {
        let (start, max, end) = (start.get() as u64, max.get() as u64, end.get() as u64);
        if (start | max | end) > FIELD_MASK {
            assert!(
                max == FIELD_MASK + 1 && start == max && end == max,
                "2^21 free pages are a wholly free region"
            );
            return Summary(ALL_FREE);
        }
        Summary(start | max << FIELD_BITS | end << (2 * FIELD_BITS))
    }

    /// The word that stands for this summary in a table.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The summary that a word of a table stands for.
    #[inline]
    pub const fn from_bits(bits: u64) -> Summary {
        Summary(bits)
    }

    #[inline]
    const fn field(self, number: u32) -> PageCount {
        if self.0 & ALL_FREE != 0 {
            return PageCount::new(1 << MAX_LOG_PAGES);
        }
        PageCount::new((self.0 >> (number * FIELD_BITS) & FIELD_MASK) as usize)
    }

    /// Free pages at the low end.
    #[inline]
    pub const fn start(self) -> PageCount {
        self.field(0)
    }

    /// Pages in the longest free run.
    #[inline]
    pub const fn max(self) -> PageCount {
        self.field(1)
    }

    /// Free pages at the high end.
    #[inline]
    pub const fn end(self) -> PageCount {
        self.field(2)
    }

    /// Whether no page is free.
    #[inline]
    pub const fn is_none_free(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}, {})", self.start().get(), self.max().get(), self.end().get())
    }
}

/// The summary of neighbouring regions, lowest first, of `2^log_pages` pages each, as one region.
///
/// # Panics
/// When the regions together have more than 2^21 pages.
pub fn merge(parts: impl IntoIterator<Item = Summary>, log_pages: u32) -> Summary {
    let whole = PageCount::new(1 << log_pages);
    // The merge of the regions so far; `all` is their length.
    let (mut start, mut max, mut end) = (PageCount::ZERO, PageCount::ZERO, PageCount::ZERO);
    let mut all = PageCount::ZERO;
    for part in parts {
        if start == all {
            start += part.start();
        }
        max = max.max(part.max()).max(end + part.start());
        end = if part.end() == whole { end + whole } else { part.end() };
        all += whole;
    }
    Summary::new(start, max, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(start: usize, max: usize, end: usize) -> Summary {
        Summary::new(PageCount::new(start), PageCount::new(max), PageCount::new(end))
    }

    #[test]
    fn the_largest_region_is_held_and_read_back() {
        let all = 1 << MAX_LOG_PAGES;
        for (start, max, end) in
            [(all, all, all), (all - 1, all - 1, 0), (0, all - 1, all - 1), (3, 9, 4), (0, 0, 0)]
        {
            let sum = summary(start, max, end);
            assert_eq!((sum.start().get(), sum.max().get(), sum.end().get()), (start, max, end));
            assert_eq!(Summary::from_bits(sum.to_bits()), sum);
        }
    }

    #[test]
    #[should_panic(expected = "wholly free region")]
    fn a_region_that_is_not_wholly_free_has_fewer_free_pages() {
        summary(5, 1 << MAX_LOG_PAGES, 1 << MAX_LOG_PAGES);
    }

    #[test]
    fn a_run_over_the_border_is_the_end_of_one_and_the_start_of_the_other() {
        let merged = merge([summary(10, 20, 100), summary(30, 50, 0)], 9);
        assert_eq!(merged, summary(10, 130, 0));
        let through = merge([summary(1, 2, 2), Summary::FREE_CHUNK, summary(7, 7, 5)], 9);
        assert_eq!(through, summary(1, 521, 5));
        assert_eq!(merge([Summary::FREE_CHUNK; 8], 9), summary(4096, 4096, 4096));
        assert_eq!(merge([Summary::NONE_FREE; 8], 18), Summary::NONE_FREE);
    }
}
