//! The summary tree: where in the address space are n free pages in a row?
//!
//! Five levels, each entry a [`Summary`]. The lowest level has one entry per chunk; an entry of any
//! other level is the merge of eight entries below it. The highest level has an entry per 16 GiB of
//! address space, so that a search reads a few words of it, and then eight words per level.
//!
//! | level | entries | pages per entry | reserved |
//! |---|---|---|---|
//! | 0 | 2^13 | 2^21 | 64 KiB |
//! | 1 | 2^16 | 2^18 | 512 KiB |
//! | 2 | 2^19 | 2^15 | 4 MiB |
//! | 3 | 2^22 | 2^12 | 32 MiB |
//! | 4 | 2^25 | 2^9 | 256 MiB |
//!
//! The levels cover the whole address space and are indexed by address; they lie one after the
//! other in one array, of which only the parts that describe grown memory are committed. No
//! pointers, no balancing: the address is the path.
//!
//! # The search
//!
//! ```text
//! entries := the highest level, between the lowest and the highest grown chunk
//! loop:
//!     run := 0                             free pages that end where the next entry begins
//!     for each entry e:
//!         when run + e.start >= n:  found: the run, which crosses borders of entries
//!         when e.max >= n:          entries := the eight below e; next round (at a chunk: found)
//!         run := run + size of e when e is wholly free, else e.end
//!     not found
//! ```
//!
//! An entry is entered only when the run that reaches into it is too short, so the lowest run that
//! is long enough lies inside it: the first hit is the lowest.
//!
//! # Invariants
//!
//! 1. An entry of level 4 is the summary of its chunk's allocated bitmap; 0 if never grown.
//! 2. Any other entry is the merge of the eight below it.
//! 3. Level 0 is committed whole. In the other levels the blocks of eight that describe a grown
//!    chunk are committed. So below an entry that is not 0 the block may be read.

use super::summary::{self, Summary};
use crate::addr::{
    ADDRESS_BITS, AddrRange, Bytes, CHUNK_PAGES_SHIFT, CHUNK_SHIFT, ChunkIndex, PageCount,
    PageIndex,
};
use crate::offheap::{ArraySize, ArraySpace, ReservedArray};
use crate::os::{Os, OsError};
use core::ops::Range;

/// Levels of the tree.
const LEVELS: usize = 5;
/// The level of chunks.
const LEAF: usize = LEVELS - 1;
/// log2 of the entries of the highest level, and of the entries below one entry of each further
/// level.
const LEVEL_BITS: [u32; LEVELS] = [13, 3, 3, 3, 3];
/// log2 of the number of entries below an entry.
const BLOCK_BITS: u32 = 3;
/// Entries below an entry.
const BLOCK: usize = 1 << BLOCK_BITS;

const _: () = assert!(
    LEVEL_BITS[0] + LEAF as u32 * BLOCK_BITS + CHUNK_SHIFT == ADDRESS_BITS,
    "the levels cover the address space"
);
const _: () = assert!(level_log_pages(0) == summary::MAX_LOG_PAGES);

/// log2 of the chunks that an entry of the level describes.
const fn level_log_chunks(level: usize) -> u32 {
    (LEAF - level) as u32 * BLOCK_BITS
}

/// log2 of the pages that an entry of the level describes.
const fn level_log_pages(level: usize) -> u32 {
    level_log_chunks(level) + CHUNK_PAGES_SHIFT
}

/// Number of entries of the level.
const fn level_entries(level: usize) -> usize {
    1 << (LEVEL_BITS[0] + level as u32 * BLOCK_BITS)
}

/// Position of the level's first entry in the array of all levels; behind the last, for [`LEVELS`].
const fn level_base(level: usize) -> usize {
    let mut base = 0;
    let mut above = 0;
    while above < level {
        base += level_entries(above);
        above += 1;
    }
    base
}

/// Where the lowest run of free pages is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// It starts at this page and crosses the border of a chunk.
    At(PageIndex),
    /// It lies inside this chunk, whose bitmap tells where.
    Inside(ChunkIndex),
}

/// The answer of a search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hit {
    pub(super) place: Place,
    /// No page below this one is free.
    pub(super) none_free_below: PageIndex,
}

/// What one level says; positions are numbers of entries.
struct Scan {
    outcome: Outcome,
    /// The lowest entry that was seen to have a free page.
    first_with_free: usize,
}

enum Outcome {
    Run(PageIndex),
    Inside(usize),
}

/// The five levels, one after the other in one array.
pub(super) struct SummaryTree {
    entries: ReservedArray<u64>,
}

impl SummaryTree {
    /// A tree for an address space without a free page; in a space of which it takes [`SummaryTree::size`], the
    /// first [`SummaryTree::EAGER`] bytes of it committed from the beginning.
    pub(super) fn new(os: &Os, space: &mut ArraySpace) -> SummaryTree {
        SummaryTree { entries: space.array(os, level_base(LEVELS)) }
    }

    /// Level 0.
    pub(super) const EAGER: Bytes = Bytes::new(level_base(1) * size_of::<u64>());

    pub(super) fn size(os: &Os) -> ArraySize {
        ReservedArray::<u64>::size(os, level_base(LEVELS))
    }

    /// Calls `visit` with the memory that the tables have.
    pub(super) fn for_each_ready(&self, visit: &mut dyn FnMut(AddrRange)) {
        self.entries.for_each_ready(visit);
    }

    /// Gives the tables back.
    pub(super) fn release(&mut self, space: &mut ArraySpace) {
        self.entries.release_into(space);
    }

    /// Makes the entries of the chunks `[first, end)` and those above them writable. Entries that
    /// are new are 0. On failure some tables may have more committed entries than before, all 0.
    pub(super) fn commit(
        &self,
        os: &Os,
        first: ChunkIndex,
        end: ChunkIndex,
    ) -> Result<(), OsError> {
        for level in 1..LEVELS {
            let shift = level_log_chunks(level) + BLOCK_BITS;
            let first_block = first.get() >> shift;
            let end_block = ((end.get() - 1) >> shift) + 1;
            let base = level_base(level);
            self.entries.commit(os, base + first_block * BLOCK..base + end_block * BLOCK)?;
        }
        Ok(())
    }

    /// An entry whose block is committed.
    fn entry(&self, level: usize, index: usize) -> Summary {
        Summary::from_bits(*self.entries.get(level_base(level) + index))
    }

    /// Neighbouring entries, whose blocks are committed.
    fn entries(&self, level: usize, indices: Range<usize>) -> impl Iterator<Item = Summary> {
        let base = level_base(level);
        let words = self.entries.slice(base + indices.start..base + indices.end);
        words.iter().copied().map(Summary::from_bits)
    }

    /// The summary of a grown chunk.
    #[inline]
    pub(super) fn leaf(&self, chunk: ChunkIndex) -> Summary {
        self.entry(LEAF, chunk.get())
    }

    /// Replaces an entry, and says whether it changed.
    fn replace(&mut self, level: usize, index: usize, sum: Summary) -> bool {
        let entry = self.entries.get_mut(level_base(level) + index);
        let changed = *entry != sum.to_bits();
        *entry = sum.to_bits();
        changed
    }

    /// Replaces the summary of a grown chunk, and says whether it changed. If it did, the caller
    /// has to call [`SummaryTree::rise`].
    #[must_use]
    pub(super) fn set_leaf(&mut self, chunk: ChunkIndex, sum: Summary) -> bool {
        self.replace(LEAF, chunk.get(), sum)
    }

    /// Brings the levels above the chunks from `first` to `last`, both included, up to date.
    pub(super) fn rise(&mut self, first: ChunkIndex, last: ChunkIndex) {
        for level in (0..LEAF).rev() {
            let shift = level_log_chunks(level);
            let mut changed = false;
            for index in first.get() >> shift..=last.get() >> shift {
                let sum = self.merged(level, index);
                changed |= self.replace(level, index, sum);
            }
            if !changed {
                return;
            }
        }
    }

    /// What the entry has to be, from the eight below it.
    fn merged(&self, level: usize, index: usize) -> Summary {
        let below = index * BLOCK..(index + 1) * BLOCK;
        summary::merge(self.entries(level + 1, below), level_log_pages(level + 1))
    }

    /// The lowest run of `n` free pages among the chunks from `first` to `last`, both included.
    /// Outside of them no page is free.
    ///
    /// # Panics
    /// When an entry promises a run that the entries below it do not have.
    pub(super) fn find(&self, n: PageCount, first: ChunkIndex, last: ChunkIndex) -> Option<Hit> {
        let shift = level_log_chunks(0);
        let mut scan = self.scan(0, first.get() >> shift, last.get() >> shift, n)?;
        let mut none_free_below = first_page(0, scan.first_with_free);
        // While the entry that is entered is also the lowest with a free page, the entries inside
        // it tell more about where that page is.
        let mut narrowing = true;
        for level in 0..LEVELS {
            let index = match scan.outcome {
                Outcome::Run(page) => return Some(Hit { place: Place::At(page), none_free_below }),
                Outcome::Inside(index) => index,
            };
            if level == LEAF {
                return Some(Hit { place: Place::Inside(ChunkIndex::new(index)), none_free_below });
            }
            narrowing &= scan.first_with_free == index;
            scan = match self.scan(level + 1, index * BLOCK, index * BLOCK + BLOCK - 1, n) {
                Some(scan) => scan,
                None => self.broken_promise(level, index, n),
            };
            if narrowing {
                none_free_below = first_page(level + 1, scan.first_with_free);
            }
        }
        unreachable!("the loop returns at the level of chunks")
    }

    /// Looks for `n` free pages in the entries from `from` to `to`, both included.
    fn scan(&self, level: usize, from: usize, to: usize, n: PageCount) -> Option<Scan> {
        let whole = PageCount::new(1 << level_log_pages(level));
        let mut first_with_free = None;
        let mut run = PageCount::ZERO;
        for (index, sum) in (from..).zip(self.entries(level, from..to + 1)) {
            if sum.is_none_free() {
                run = PageCount::ZERO;
                continue;
            }
            let first_with_free = *first_with_free.get_or_insert(index);
            if run + sum.start() >= n {
                let page = PageIndex::new(first_page(level, index).get() - run.get());
                return Some(Scan { outcome: Outcome::Run(page), first_with_free });
            }
            if sum.max() >= n {
                return Some(Scan { outcome: Outcome::Inside(index), first_with_free });
            }
            run = if sum.end() == whole { run + whole } else { sum.end() };
        }
        None
    }

    #[cold]
    fn broken_promise(&self, level: usize, index: usize, n: PageCount) -> ! {
        panic!(
            "bad summary: entry {index} of level {level} is {:?}, but the {BLOCK} entries below it \
             have no {} free pages in a row; the page allocator has a bug, or its tables were \
             overwritten",
            self.entry(level, index),
            n.get(),
        )
    }

    /// Checks invariant 2 for every entry above the chunks from `first` to `last`, both included.
    ///
    /// # Panics
    /// When an entry is not the merge of those below it.
    pub(super) fn check(&self, first: ChunkIndex, last: ChunkIndex) {
        for level in (0..LEAF).rev() {
            let shift = level_log_chunks(level);
            for index in first.get() >> shift..=last.get() >> shift {
                let (has, must) = (self.entry(level, index), self.merged(level, index));
                assert!(has == must, "entry {index} of level {level} is {has:?}, must be {must:?}");
            }
        }
    }
}

/// The first page that an entry describes.
fn first_page(level: usize, index: usize) -> PageIndex {
    PageIndex::new(index << level_log_pages(level))
}
