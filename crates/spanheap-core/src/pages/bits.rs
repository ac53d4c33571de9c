//! The bitmap of one chunk: 512 pages, eight words, one cache line.
//!
//! A chunk has two of them in the allocator. In the *allocated* bitmap a one is an allocated page;
//! in the *scavenged* bitmap a one is a page whose memory was returned to the system. The functions
//! here see one bitmap at a time and treat zeros as free pages.
//!
//! Positions are numbers of pages within the chunk, 0 to 511; they are plain numbers because they
//! index bits. Lengths are [`PageCount`]s.

use super::summary::Summary;
use crate::addr::{CHUNK_PAGES, PageCount};
use crate::bitmap::{self, WORD_BITS};

/// Words in the bitmap of a chunk.
pub const CHUNK_WORDS: usize = CHUNK_PAGES / WORD_BITS;

/// One bit for every page of a chunk; the lowest page is bit 0 of word 0.
pub type PageBits = [u64; CHUNK_WORDS];

const _: () = assert!(size_of::<PageBits>() == 64, "a chunk's bits fill one cache line");

/// Where free pages are; the answer of [`find`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// The first page of the lowest run that is long enough.
    pub start: usize,
    /// The lowest free page of the chunk; it may lie in a run that was too short.
    pub first_free: usize,
}

/// Sets the bits of `n` pages from `start` on, whatever they were.
#[inline]
pub fn set(bits: &mut PageBits, start: usize, n: PageCount) {
    bitmap::set_range(bits, start, n.get());
}

/// Clears the bits of `n` pages from `start` on, whatever they were.
#[inline]
pub fn clear(bits: &mut PageBits, start: usize, n: PageCount) {
    bitmap::clear_range(bits, start, n.get());
}

/// Counts the ones among `n` pages from `start` on.
#[inline]
pub fn count(bits: &PageBits, start: usize, n: PageCount) -> PageCount {
    PageCount::new(bitmap::count_range(bits, start, n.get()))
}

/// The lowest run of `n` free pages.
///
/// `hint` is a promise that no page below it is free. It saves time and does not change the answer.
///
/// # Panics
/// When `n` is zero.
pub fn find(bits: &PageBits, n: PageCount, hint: usize) -> Option<Found> {
    let first_free = bitmap::next_zero(bits, hint)?;
    let start = match n.get() {
        1 => first_free,
        n => bitmap::find_zeros(bits, n, first_free / WORD_BITS)?,
    };
    Some(Found { start, first_free })
}

/// How the free pages of the chunk lie: at its low end, at its high end, and in its longest run.
pub fn summarize(bits: &PageBits) -> Summary {
    // Runs that touch a border of a word first: they are cheap, and what they find is a bar that
    // the search inside the words mostly need not cross.
    let mut run = 0;
    let mut longest = 0;
    let mut start = None;
    for word in bits {
        let free = !word;
        if free == u64::MAX {
            run += WORD_BITS;
            continue;
        }
        run += free.trailing_ones() as usize;
        start.get_or_insert(run);
        longest = longest.max(run);
        run = free.leading_ones() as usize;
    }
    let Some(start) = start else { return Summary::FREE_CHUNK };
    let end = run;
    longest = longest.max(end);
    for word in bits {
        longest = longest.max(bitmap::longest_run64(!word, longest.min(WORD_BITS) as u32) as usize);
    }
    Summary::new(PageCount::new(start), PageCount::new(longest), PageCount::new(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Chunks of all densities, from a fixed xorshift sequence.
    fn samples() -> impl Iterator<Item = PageBits> {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..600).map(move |round| {
            let mut bits = [0; CHUNK_WORDS];
            // A few allocated runs; long ones in even rounds, so that whole words are full or free.
            for _ in 0..round % 23 {
                let start = random() as usize % CHUNK_PAGES;
                let longest = if round % 2 == 0 { 200 } else { 9 };
                let n = (1 + random() as usize % longest).min(CHUNK_PAGES - start);
                set(&mut bits, start, PageCount::new(n));
            }
            bits
        })
    }

    fn free(bits: &PageBits, page: usize) -> bool {
        !bitmap::test(bits, page)
    }

    #[test]
    fn a_summary_is_what_a_walk_over_the_pages_sees() {
        for bits in samples() {
            let start = (0..CHUNK_PAGES).take_while(|page| free(&bits, *page)).count();
            let end = (0..CHUNK_PAGES).rev().take_while(|page| free(&bits, *page)).count();
            let (mut run, mut longest) = (0, 0);
            for page in 0..CHUNK_PAGES {
                run = if free(&bits, page) { run + 1 } else { 0 };
                longest = longest.max(run);
            }
            let sum = summarize(&bits);
            let found = (sum.start().get(), sum.max().get(), sum.end().get());
            assert_eq!(found, (start, longest, end), "{bits:x?}");
        }
    }

    #[test]
    fn free_pages_are_found_where_a_walk_finds_them_whatever_the_hint() {
        for bits in samples() {
            let first_free = (0..CHUNK_PAGES).find(|page| free(&bits, *page));
            for n in [1, 2, 3, 9, 30, 64, 65, 130, 511, 512] {
                let start = (0..=CHUNK_PAGES - n)
                    .find(|start| (*start..start + n).all(|page| free(&bits, page)));
                let slow = start.map(|start| Found { start, first_free: first_free.unwrap() });
                for hint in [0, first_free.unwrap_or(0) / 2, first_free.unwrap_or(511)] {
                    assert_eq!(find(&bits, PageCount::new(n), hint), slow, "{bits:x?} {n} {hint}");
                }
            }
        }
    }
}
