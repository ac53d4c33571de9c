//! Which chunks have been grown: a set of address ranges that speaks of chunks.
//!
//! A heap grows upwards from a hint, so the set is nearly always one range; it is still a set because
//! the system may place a later reservation anywhere.
//!
//! # Invariants
//!
//! 1. All ranges begin and end at chunks.
//! 2. There are at most [`MAX_GROWN_CHUNKS`] chunks in all, so there are never more ranges than that.

use super::MAX_GROWN_CHUNKS;
use crate::addr::{Addr, AddrRange, ChunkIndex};
use crate::offheap::{AddrRanges, ArraySize, ArraySpace};
use crate::os::{Os, OsError};

/// The chunks that were grown.
pub(super) struct GrownRuns {
    ranges: AddrRanges,
}

impl GrownRuns {
    /// None yet; in a space, of which it takes [`GrownRuns::size`].
    pub(super) fn new(os: &Os, space: &mut ArraySpace) -> GrownRuns {
        GrownRuns { ranges: AddrRanges::within(space, os, MAX_GROWN_CHUNKS) }
    }

    pub(super) fn size(os: &Os) -> ArraySize {
        AddrRanges::size(os, MAX_GROWN_CHUNKS)
    }

    pub(super) fn release(&mut self, space: &mut ArraySpace) {
        self.ranges.release_into(space);
    }

    /// Calls `visit` with the memory that the list has.
    pub(super) fn for_each_ready(&self, visit: &mut dyn FnMut(AddrRange)) {
        self.ranges.for_each_ready(visit);
    }

    /// Makes room for one more run.
    pub(super) fn commit(&self, os: &Os) -> Result<(), OsError> {
        self.ranges.commit(os)
    }

    /// Whether any of the chunks `[first, end)` has been grown.
    pub(super) fn intersects(&self, first: ChunkIndex, end: ChunkIndex) -> bool {
        self.ranges.intersects(AddrRange::new(first.base(), end.base()))
    }

    /// Whether all chunks from `first` to `last`, both included, have been grown.
    pub(super) fn contain(&self, first: ChunkIndex, last: ChunkIndex) -> bool {
        self.ranges.find(first.base()).is_some_and(|range| last.base() < range.end())
    }

    /// The lowest address of grown memory at or above `addr`.
    pub(super) fn lowest_from(&self, addr: Addr) -> Option<Addr> {
        self.ranges.find_addr_greater_equal(addr)
    }

    /// Adds the chunks `[first, end)`, none of which is in the set. [`GrownRuns::commit`] has
    /// succeeded since the last addition.
    pub(super) fn add(&mut self, first: ChunkIndex, end: ChunkIndex) {
        self.ranges.add(AddrRange::new(first.base(), end.base()));
    }

    /// The runs as ranges of addresses, lowest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = AddrRange> + '_ {
        self.ranges.iter()
    }

    /// The grown chunks at or below `chunk`, highest first.
    pub(super) fn down_from(&self, chunk: ChunkIndex) -> impl Iterator<Item = ChunkIndex> + '_ {
        let behind = chunk.get() + 1;
        (0..self.ranges.find_succ(chunk.base())).rev().flat_map(move |index| {
            let range = self.ranges.get(index);
            let (first, end) = (range.base().chunk().get(), range.end().chunk().get());
            (first..end.min(behind)).rev().map(ChunkIndex::new)
        })
    }

    /// From the lowest grown chunk to behind the highest.
    pub(super) fn bounds(&self) -> Option<AddrRange> {
        self.ranges.bounds()
    }
}
