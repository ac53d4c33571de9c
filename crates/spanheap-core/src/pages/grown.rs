//! Which chunks have been grown, as a sorted list of runs.
//!
//! A heap grows upwards from a hint, so the list is nearly always one run long; it is still a list
//! because the system may place a later reservation anywhere.
//!
//! # Invariants
//!
//! 1. Runs are not empty, rise, and do not touch: neighbours have been joined.
//! 2. There are at most [`MAX_GROWN_CHUNKS`] chunks in all, so there are never more runs than that.

use super::MAX_GROWN_CHUNKS;
use crate::addr::{Addr, AddrRange, ChunkIndex};
use crate::offheap::ReservedArray;
use crate::os::{Category, Os, OsError};

/// Sorted, coalesced runs of chunks.
pub(super) struct GrownRuns {
    /// `[first chunk, chunk behind the last]`; the entries below `len` are in use.
    runs: ReservedArray<[usize; 2]>,
    len: usize,
}

impl GrownRuns {
    pub(super) fn new(os: &Os) -> Result<GrownRuns, OsError> {
        Ok(GrownRuns {
            runs: ReservedArray::new(os, MAX_GROWN_CHUNKS, Category::PageTables)?,
            len: 0,
        })
    }

    pub(super) fn release(&mut self, os: &Os) {
        self.runs.release(os);
    }

    /// Calls `visit` with the memory that the list has.
    pub(super) fn for_each_ready(&self, visit: &mut dyn FnMut(AddrRange)) {
        self.runs.for_each_ready(visit);
    }

    /// Makes room for one more run.
    pub(super) fn commit(&self, os: &Os) -> Result<(), OsError> {
        self.runs.commit(os, 0..self.len + 1)
    }

    fn run(&self, i: usize) -> [usize; 2] {
        *self.runs.get(i)
    }

    /// Number of runs that end at or below `chunk`: the index of the first that reaches above it.
    fn runs_below(&self, chunk: usize) -> usize {
        let (mut low, mut high) = (0, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.run(middle)[1] <= chunk { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Whether any of the chunks `[first, end)` has been grown.
    pub(super) fn intersects(&self, first: ChunkIndex, end: ChunkIndex) -> bool {
        let i = self.runs_below(first.get());
        i < self.len && self.run(i)[0] < end.get()
    }

    /// Whether all chunks from `first` to `last`, both included, have been grown.
    pub(super) fn contain(&self, first: ChunkIndex, last: ChunkIndex) -> bool {
        let i = self.runs_below(first.get());
        i < self.len && self.run(i)[0] <= first.get() && last.get() < self.run(i)[1]
    }

    /// The lowest address of grown memory at or above `addr`.
    pub(super) fn lowest_from(&self, addr: Addr) -> Option<Addr> {
        let i = self.runs_below(addr.chunk().get());
        (i < self.len).then(|| addr.max(ChunkIndex::new(self.run(i)[0]).base()))
    }

    /// Adds the chunks `[first, end)`, none of which is in the list. [`GrownRuns::commit`] has
    /// succeeded since the last addition.
    pub(super) fn add(&mut self, first: ChunkIndex, end: ChunkIndex) {
        let [mut first, mut end] = [first.get(), end.get()];
        let at = self.runs_below(first);
        debug_assert!(!self.intersects(ChunkIndex::new(first), ChunkIndex::new(end)));
        let joins_below = at > 0 && self.run(at - 1)[1] == first;
        let joins_above = at < self.len && self.run(at)[0] == end;
        if joins_below {
            first = self.run(at - 1)[0];
        }
        if joins_above {
            end = self.run(at)[1];
        }
        match (joins_below, joins_above) {
            (false, false) => {
                for i in (at..self.len).rev() {
                    *self.runs.get_mut(i + 1) = self.run(i);
                }
                self.len += 1;
                *self.runs.get_mut(at) = [first, end];
            }
            (true, true) => {
                for i in at + 1..self.len {
                    *self.runs.get_mut(i - 1) = self.run(i);
                }
                self.len -= 1;
                *self.runs.get_mut(at - 1) = [first, end];
            }
            (true, false) => *self.runs.get_mut(at - 1) = [first, end],
            (false, true) => *self.runs.get_mut(at) = [first, end],
        }
    }

    /// The runs as ranges of addresses, lowest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = AddrRange> + '_ {
        (0..self.len).map(|i| {
            let [first, end] = self.run(i);
            AddrRange::new(ChunkIndex::new(first).base(), ChunkIndex::new(end).base())
        })
    }

    /// The grown chunks at or below `chunk`, highest first.
    pub(super) fn down_from(&self, chunk: ChunkIndex) -> impl Iterator<Item = ChunkIndex> + '_ {
        let highest = chunk.get();
        // A run that begins above gives an empty range, and there is one at most to look at.
        let runs = (self.runs_below(highest) + 1).min(self.len);
        (0..runs).rev().flat_map(move |i| {
            let [first, end] = self.run(i);
            (first..end.min(highest + 1)).rev().map(ChunkIndex::new)
        })
    }

    /// From the lowest grown chunk to behind the highest.
    pub(super) fn bounds(&self) -> Option<AddrRange> {
        let lowest = self.iter().next()?;
        let highest = self.iter().next_back()?;
        Some(AddrRange::new(lowest.base(), highest.end()))
    }
}
