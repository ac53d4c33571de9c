//! The scavenge index: which chunk should the scavenger look at next?
//!
//! Looking into the bitmaps of a heap of a million chunks for the few pages that could be returned
//! would take milliseconds under the page-heap lock. So there is a word per chunk, its
//! [`Occupancy`], and a cursor above which there is nothing to find.
//!
//! # Dense chunks
//!
//! To return a page that is needed again soon costs more than it saves, and breaks huge pages. So
//! in the background a chunk is left alone when it is *dense*: 97 % or more of its pages are in
//! use, or were when the current generation began (a generation is a cycle of the collector). The
//! second half of the rule lets a chunk that was dense, and of which a sweep has just freed some
//! pages, be filled again before anything is taken from it. A search that is *forced*, because the
//! memory limit is reached or somebody asks for it, takes what there is.
//!
//! # The cursors
//!
//! ```text
//!             lowest chunk ........ cursor ........ highest chunk
//!             to be looked at       |       nothing to find
//!
//! find:       goes down from the cursor to the first chunk that should be scavenged, and moves
//!             the cursor there; nothing down to the lowest chunk: the cursor is cleared
//! free:       raises the cursor of forced searches to the page, at once
//! next gen.:  raises the cursor of the background to the highest page freed in this generation
//! ```
//!
//! So the background does not look at what was freed before the generation is over. A cursor that
//! was raised is *marked* until a search has moved it down, and a marked cursor is not cleared:
//! chunks that are dense now may not be dense in the next generation though nothing more is freed
//! in them, and would not be found then.
//!
//! # Two things that it does not promise
//!
//! A chunk may have pages that could be returned and be known as empty, if these pages lie above
//! the background's cursor, or are parts of physical pages that are not free as a whole. The next
//! free in the chunk brings it back, or [a reset](super::PageAlloc::reset_scavenge_search). And
//! what the scavenger itself takes for a while, to return it, is not counted here as in use: to the
//! index nothing happens then, as it did not to the program.
//!
//! # Who protects it
//!
//! It is part of the page allocator, and behind the same `&mut`. The words lie with the chunks'
//! bitmaps; a method here is given the word of a chunk and answers the new one.

use crate::addr::{CHUNK_PAGES, ChunkIndex, PageCount, PageIndex};

/// A chunk with this many pages in use, of 512, is dense: 96.875 %.
pub const DENSE_PAGES: PageCount = PageCount::new(CHUNK_PAGES - CHUNK_PAGES / 32);

/// How full a chunk is, and was.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Occupancy {
    /// Allocated pages, without those that the scavenger has taken.
    pub in_use: PageCount,
    /// `in_use` at the end of the generation before the one of the last change.
    pub last_in_use: PageCount,
    /// The generation of the last change.
    pub generation: u32,
    /// [`Occupancy::HAS_FREE`] or nothing; the further five bits are kept, and have no meaning.
    pub flags: u8,
}

/// Where in a word the fields of an occupancy begin; the first is at bit 0.
const LAST_IN_USE: u32 = 16;
const FLAGS: u32 = 26;
const GENERATION: u32 = 32;

impl Occupancy {
    /// A flag: the chunk may have pages that are free and not scavenged.
    pub const HAS_FREE: u8 = 1;

    /// The word that stands for this occupancy in a table.
    ///
    /// # Panics
    /// When a chunk does not have so many pages, or there are not so many flags.
    pub const fn to_bits(self) -> u64 {
        let (in_use, last) = (self.in_use.get() as u64, self.last_in_use.get() as u64);
        let pages = CHUNK_PAGES as u64;
        assert!(in_use <= pages && last <= pages && self.flags < 1 << (GENERATION - FLAGS));
        in_use
            | last << LAST_IN_USE
            | (self.flags as u64) << FLAGS
            | (self.generation as u64) << GENERATION
    }

    /// The occupancy that a word of a table stands for. The word 0 is a chunk that was just grown.
    pub const fn from_bits(bits: u64) -> Occupancy {
        Occupancy {
            in_use: PageCount::new((bits & 0xffff) as usize),
            last_in_use: PageCount::new((bits >> LAST_IN_USE & 0x3ff) as usize),
            generation: (bits >> GENERATION) as u32,
            flags: (bits >> FLAGS & 0x3f) as u8,
        }
    }

    /// Whether the chunk may have pages that are free and not scavenged.
    pub const fn has_free(self) -> bool {
        self.flags & Occupancy::HAS_FREE != 0
    }

    /// The same, of a chunk in which nothing was found.
    pub const fn emptied(self) -> Occupancy {
        Occupancy { flags: self.flags & !Occupancy::HAS_FREE, ..self }
    }

    /// The same in `generation`, before the change that is about to happen.
    fn entering(self, generation: u32) -> Occupancy {
        if self.generation == generation {
            return self;
        }
        Occupancy { last_in_use: self.in_use, generation, ..self }
    }

    /// Whether a search should look into the chunk.
    fn should_scavenge(self, generation: u32, force: bool) -> bool {
        if !self.has_free() || force {
            return self.has_free();
        }
        // What was in use when an older generation began says nothing about this one.
        let was_dense = self.generation == generation && self.last_in_use >= DENSE_PAGES;
        self.in_use < DENSE_PAGES && !was_dense
    }
}

/// How far a search has come: no page above it is to be looked at.
#[derive(Clone, Copy, Default, Debug)]
struct Cursor {
    /// `None`: cleared.
    at: Option<PageIndex>,
    /// It was raised, and no search has moved it since.
    marked: bool,
}

impl Cursor {
    /// There is something to find at `page`.
    fn raise(&mut self, page: PageIndex) {
        // A cleared cursor is below every page.
        if self.at < Some(page) {
            *self = Cursor { at: Some(page), marked: true };
        }
    }

    /// There is nothing to find above `page`, which is below the cursor.
    fn lower(&mut self, page: PageIndex) {
        *self = Cursor { at: Some(page), marked: false };
    }

    /// There is nothing to find.
    fn clear(&mut self) {
        if !self.marked {
            self.at = None;
        }
    }
}

/// The generation and the cursors; the chunks' words are with their bitmaps.
#[derive(Debug, Default)]
pub struct ScavengeIndex {
    generation: u32,
    background: Cursor,
    force: Cursor,
    /// The highest page that was freed in this generation.
    highest_freed: Option<PageIndex>,
}

impl ScavengeIndex {
    /// The index of a heap without chunks.
    pub fn new() -> ScavengeIndex {
        ScavengeIndex::default()
    }

    /// `n` pages of a chunk are allocated.
    ///
    /// # Panics
    /// When the chunk does not have so many.
    #[must_use]
    pub fn alloc(&self, chunk: Occupancy, n: PageCount) -> Occupancy {
        let mut chunk = chunk.entering(self.generation);
        chunk.in_use += n;
        assert!(chunk.in_use.get() <= CHUNK_PAGES, "{chunk:?} after {n:?} were allocated");
        if chunk.in_use.get() == CHUNK_PAGES { chunk.emptied() } else { chunk }
    }

    /// `n` pages of a chunk become free, the highest of which is `last`.
    ///
    /// # Panics
    /// When fewer of its pages are in use.
    #[must_use]
    pub fn free(&mut self, chunk: Occupancy, last: PageIndex, n: PageCount) -> Occupancy {
        let mut chunk = chunk.entering(self.generation);
        assert!(chunk.in_use >= n, "{n:?} are freed in {chunk:?}");
        chunk.in_use -= n;
        chunk.flags |= Occupancy::HAS_FREE;
        self.highest_freed = self.highest_freed.max(Some(last));
        self.force.raise(last);
        chunk
    }

    /// The collector has completed a cycle: what was freed up to now is for the background.
    pub fn next_generation(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if let Some(page) = self.highest_freed.take() {
            self.background.raise(page);
        }
    }

    /// Where a search begins. `None`: there is nothing to find.
    pub fn cursor(&self, force: bool) -> Option<PageIndex> {
        if force { self.force.at } else { self.background.at }
    }

    /// The page from which to go down in the bitmaps of its chunk. `None`: there is nothing to
    /// find.
    ///
    /// `chunks` are those from the chunk of the [cursor](ScavengeIndex::cursor) down to the lowest,
    /// in this order.
    pub fn find(
        &mut self,
        force: bool,
        chunks: impl IntoIterator<Item = (ChunkIndex, Occupancy)>,
    ) -> Option<PageIndex> {
        let cursor = if force { &mut self.force } else { &mut self.background };
        let at = cursor.at?;
        let mut chunks = chunks.into_iter();
        let hit = chunks.find(|(_, chunk)| chunk.should_scavenge(self.generation, force));
        let Some((chunk, _)) = hit else {
            cursor.clear();
            return None;
        };
        if chunk == at.chunk() {
            return Some(at);
        }
        assert!(chunk < at.chunk(), "{chunk:?} is above the cursor");
        let last = chunk.base().page().offset(CHUNK_PAGES - 1);
        cursor.lower(last);
        Some(last)
    }

    /// Forgets what was freed, also where a cursor is marked; for those who set up an index to
    /// test.
    pub fn clear_cursors(&mut self) {
        *self = ScavengeIndex { generation: self.generation, ..ScavengeIndex::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(n: usize) -> PageCount {
        PageCount::new(n)
    }

    /// A chunk of which `freed` pages of 512 are freed in the generation after the one in which
    /// they were allocated.
    fn freed(index: &mut ScavengeIndex, freed: usize) -> Occupancy {
        let full = index.alloc(Occupancy::default(), pages(CHUNK_PAGES));
        index.next_generation();
        index.free(full, PageIndex::new(CHUNK_PAGES - 1), pages(freed))
    }

    #[test]
    fn a_chunk_that_was_dense_is_left_alone_for_a_generation() {
        let mut index = ScavengeIndex::new();
        let chunk = freed(&mut index, 100);
        let find = |index: &mut ScavengeIndex, force| {
            index.find(force, [(ChunkIndex::new(0), chunk)]).is_some()
        };
        assert!(find(&mut index, true) && !find(&mut index, false));
        index.next_generation();
        assert!(find(&mut index, true) && find(&mut index, false));
    }

    #[test]
    fn a_dense_chunk_is_left_alone_in_the_background_and_only_there() {
        for (count, dense) in [(16, true), (17, false)] {
            let mut index = ScavengeIndex::new();
            let chunk = freed(&mut index, count);
            index.next_generation();
            let chunks = || [(ChunkIndex::new(0), chunk)];
            assert_eq!(index.find(false, chunks()).is_none(), dense, "{count} of 512 are free");
            assert!(index.find(true, chunks()).is_some());
        }
    }

    #[test]
    fn a_cursor_that_was_raised_outlives_a_search_without_a_hit() {
        let mut index = ScavengeIndex::new();
        let _ = freed(&mut index, 1);
        let raised = index.cursor(true);
        assert_eq!(index.find(true, []), None);
        assert_eq!((raised, index.cursor(true)), (Some(PageIndex::new(511)), raised));
        index.clear_cursors();
        assert_eq!(index.cursor(true), None);
    }

    #[test]
    fn generations_may_wrap() {
        let mut index = ScavengeIndex { generation: u32::MAX, ..ScavengeIndex::new() };
        let chunk = freed(&mut index, 100);
        assert_eq!((chunk.generation, chunk.last_in_use), (0, pages(CHUNK_PAGES)));
        assert_eq!(Occupancy::from_bits(chunk.to_bits()), chunk);
    }
}
