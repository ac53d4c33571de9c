//! Chunks for arenas: manual spans that a mutator keeps for a while when they come back.

use super::Mutator;
use crate::addr::Bytes;
use crate::heap::{ManualChunk, OutOfMemory};
use crate::span::alone;

impl Mutator {
    /// A chunk: the largest of those that the mutator has kept, if it has one of `least` to `most` bytes, or else a new
    /// one of `least` bytes.
    ///
    /// # Errors
    /// As [`Mutator::alloc_manual`].
    ///
    /// # Panics
    /// When no closure is open, in a trace function, and, if none was kept, in a process that was forked from
    /// the heap's.
    #[inline]
    pub fn take_chunk(&self, least: Bytes, most: Bytes) -> Result<ManualChunk, OutOfMemory> {
        assert!(self.is_inside(), "chunks are taken inside closures");
        alone::assert_free("use an arena");
        match self.record.caches().chunk_pool().take(least, most) {
            Some(chunk) => Ok(chunk),
            None => self.alloc_manual(least, 1).map(ManualChunk::new),
        }
    }

    /// Takes a chunk back, which leads to no other one: it is kept for the next arena, or freed. In a process that was
    /// forked from the heap's it is not freed.
    ///
    /// # Panics
    /// When no closure is open. When the chunk belongs to another heap.
    #[inline]
    pub fn keep_chunk(&self, chunk: ManualChunk) {
        assert!(self.is_inside(), "a chunk is given back outside of a closure");
        assert!(chunk.heap() == self.heap_number(), "{chunk:?} does not belong to this heap");
        let central = self.collector.central();
        self.record.caches().chunk_pool().put(chunk, |chunk| {
            if central.is_here() {
                central.free_chunk(chunk);
            }
        });
    }

    /// Whether this is the process that the heap was made in.
    pub fn is_here(&self) -> bool {
        self.collector.central().is_here()
    }
}
