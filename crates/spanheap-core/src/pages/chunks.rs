//! The bitmaps of all grown chunks, and how full each is.
//!
//! A heap uses few of the 2^25 chunks of the address space. Their bitmaps lie side by side, in the
//! order in which the chunks were grown, and a table indexed by chunk tells which bitmap is whose:
//!
//! ```text
//! slot_of:  per chunk of the address space: 0 = never grown, else 1 + position   128 MiB reserved
//! bitmaps:  per grown chunk: allocated bits and scavenged bits, a cache line each 128 MiB reserved
//! ```
//!
//! The refused alternative, bitmaps indexed by chunk, reserves 4 GiB and costs two pages of memory
//! for every grown chunk that is far from the others. Here 32 chunks share a page of memory
//! wherever they are. The words of the scavenge index lie apart from the bitmaps, because a search
//! reads the words of many chunks and the bitmaps of few.
//!
//! # Invariants
//!
//! 1. A page whose scavenged bit is one has its allocated bit zero. (Kept by the allocator.)
//! 2. `slot_of` is read for grown chunks only: the other parts of it need not be committed.

use super::MAX_GROWN_CHUNKS;
use super::bits::{CHUNK_WORDS, PageBits};
use super::scavenge_index::Occupancy;
use crate::addr::{ADDRESS_BITS, AddrRange, Bytes, CHUNK_SHIFT, ChunkIndex};
use crate::offheap::{ArraySpace, ReservedArray};
use crate::os::{Category, Os, OsError};

/// Chunks in the address space.
const CHUNKS: usize = 1 << (ADDRESS_BITS - CHUNK_SHIFT);

/// Positions in a pair of bitmaps: a one is an allocated page; a one is a page returned to the
/// system.
const ALLOCATED: usize = 0;
const SCAVENGED: usize = 1;

/// Bitmaps by chunk.
pub(super) struct ChunkTable {
    slot_of: ReservedArray<u32>,
    bitmaps: ReservedArray<[PageBits; 2]>,
    occupancy: ReservedArray<u64>,
    /// Where these three lie.
    space: ArraySpace,
    /// Pairs of bitmaps in use, and words.
    len: usize,
}

impl ChunkTable {
    /// A table of no chunks.
    pub(super) fn new(os: &Os) -> Result<ChunkTable, OsError> {
        let sizes = [
            ReservedArray::<u32>::size(os, CHUNKS),
            ReservedArray::<[PageBits; 2]>::size(os, MAX_GROWN_CHUNKS),
            ReservedArray::<u64>::size(os, MAX_GROWN_CHUNKS),
        ];
        let mut space = ArraySpace::new(os, &sizes, Bytes::ZERO, Category::PageTables)?;
        Ok(ChunkTable {
            slot_of: space.array(os, CHUNKS),
            bitmaps: space.array(os, MAX_GROWN_CHUNKS),
            occupancy: space.array(os, MAX_GROWN_CHUNKS),
            space,
            len: 0,
        })
    }

    pub(super) fn release(&mut self, os: &Os) {
        self.slot_of.release_into(&mut self.space);
        self.bitmaps.release_into(&mut self.space);
        self.occupancy.release_into(&mut self.space);
        self.space.release(os);
    }

    /// Calls `visit` with the memory that the tables have.
    pub(super) fn for_each_ready(&self, visit: &mut dyn FnMut(AddrRange)) {
        self.slot_of.for_each_ready(visit);
        self.bitmaps.for_each_ready(visit);
        self.occupancy.for_each_ready(visit);
        self.space.for_each_ready(visit);
    }

    /// How many more chunks can be added.
    pub(super) fn room(&self) -> usize {
        MAX_GROWN_CHUNKS - self.len
    }

    /// Makes the entries for the chunks `[first, end)` writable; there is [room](ChunkTable::room).
    pub(super) fn commit(
        &self,
        os: &Os,
        first: ChunkIndex,
        end: ChunkIndex,
    ) -> Result<(), OsError> {
        self.slot_of.commit(os, first.get()..end.get())?;
        let slots = self.len..self.len + (end.get() - first.get());
        self.bitmaps.commit(os, slots.clone())?;
        self.occupancy.commit(os, slots)
    }

    /// Gives a chunk its bitmaps: all pages free and scavenged. Its entries are committed, and the
    /// word of its occupancy, which nobody has had before, is zero: nothing there to be returned.
    pub(super) fn add(&mut self, chunk: ChunkIndex) {
        debug_assert!(*self.slot_of.get(chunk.get()) == 0, "the chunk was grown before");
        let slot = self.len;
        self.len += 1;
        *self.slot_of.get_mut(chunk.get()) = self.len as u32;
        let bitmaps = self.bitmaps.get_mut(slot);
        bitmaps[ALLOCATED] = [0; CHUNK_WORDS];
        bitmaps[SCAVENGED] = [u64::MAX; CHUNK_WORDS];
    }

    /// Position of a grown chunk's bitmaps. A chunk that was not grown is a bug of the allocator
    /// and panics: position 0 - 1 is out of bounds.
    #[inline]
    fn slot(&self, chunk: ChunkIndex) -> usize {
        (*self.slot_of.get(chunk.get()) as usize).wrapping_sub(1)
    }

    /// The allocated bits of a grown chunk.
    #[inline]
    pub(super) fn allocated(&self, chunk: ChunkIndex) -> &PageBits {
        &self.bitmaps.get(self.slot(chunk))[ALLOCATED]
    }

    /// The scavenged bits of a grown chunk.
    #[inline]
    pub(super) fn scavenged(&self, chunk: ChunkIndex) -> &PageBits {
        &self.bitmaps.get(self.slot(chunk))[SCAVENGED]
    }

    /// The allocated bits of a grown chunk, to change them.
    #[inline]
    pub(super) fn allocated_mut(&mut self, chunk: ChunkIndex) -> &mut PageBits {
        let slot = self.slot(chunk);
        &mut self.bitmaps.get_mut(slot)[ALLOCATED]
    }

    /// The scavenged bits of a grown chunk, to change them.
    #[inline]
    pub(super) fn scavenged_mut(&mut self, chunk: ChunkIndex) -> &mut PageBits {
        let slot = self.slot(chunk);
        &mut self.bitmaps.get_mut(slot)[SCAVENGED]
    }

    /// How full a grown chunk is.
    #[inline]
    pub(super) fn occupancy(&self, chunk: ChunkIndex) -> Occupancy {
        Occupancy::from_bits(*self.occupancy.get(self.slot(chunk)))
    }

    /// Notes how full a grown chunk is.
    #[inline]
    pub(super) fn set_occupancy(&mut self, chunk: ChunkIndex, occupancy: Occupancy) {
        let slot = self.slot(chunk);
        *self.occupancy.get_mut(slot) = occupancy.to_bits();
    }
}
