//! The chunks that a mutator keeps for its next arenas.
//!
//! An arena lives for a request, and the next one comes right after it. Its chunks go here and come from here
//! without a lock. Whoever asks gets the *largest* chunk: the first one of an arena that is like the last one is
//! then as large as all that it needs, and its memory is in the processor's cache.
//!
//! The pool is bounded, [`POOL_BYTES`] and [`POOL_CHUNKS`], and what is worth keeping is what is large. To everybody
//! else its chunks are manual spans in use. They go back when the rest of the mutator's caches does, at each
//! change of phase and when the mutator goes away; freeing a span is one visit to the lock of the page heap.

use super::Central;
use crate::addr::Bytes;
use crate::heap::manual_chunk::ManualChunk;
use core::cell::Cell;

/// How much memory is kept.
pub const POOL_BYTES: Bytes = Bytes::new(1 << 20);

/// How many chunks are kept.
pub const POOL_CHUNKS: usize = 8;

/// Chunks for arenas, the largest first. Zeroed memory is a valid value without any.
#[derive(Default)]
pub struct ChunkPool {
    first: Cell<Option<ManualChunk>>,
    count: Cell<usize>,
    bytes: Cell<usize>,
}

fn bytes_of(chunk: &ManualChunk) -> Bytes {
    chunk.range().bytes()
}

impl ChunkPool {
    /// The largest chunk with `least` to `most` bytes, if there is one.
    #[inline]
    pub fn take(&self, least: Bytes, most: Bytes) -> Option<ManualChunk> {
        let mut first = self.first.take()?;
        if bytes_of(&first) <= most && bytes_of(&first) >= least {
            self.first.set(first.unlink());
            self.note_taken(&first);
            return Some(first);
        }
        let (larger, mut rest) = split(Some(first), |chunk| bytes_of(chunk) > most);
        let mut found = None;
        if let Some(mut chunk) = rest.take_if(|chunk| bytes_of(chunk) >= least) {
            rest = chunk.unlink();
            self.note_taken(&chunk);
            found = Some(chunk);
        }
        self.first.set(join(larger, rest));
        found
    }

    fn note_taken(&self, chunk: &ManualChunk) {
        self.count.set(self.count.get() - 1);
        self.bytes.set(self.bytes.get() - bytes_of(chunk).get());
    }

    /// Takes a chunk in. What does not fit, this one or smaller ones, is given to `free`.
    #[inline]
    pub fn put(&self, mut chunk: ManualChunk, free: impl FnMut(ManualChunk)) {
        let bytes = bytes_of(&chunk);
        self.count.set(self.count.get() + 1);
        self.bytes.set(self.bytes.get() + bytes.get());
        let (larger, rest) = match self.first.take() {
            None => (None, None),
            some => split(some, |other| bytes_of(other) > bytes),
        };
        chunk.link(rest);
        self.first.set(join(larger, Some(chunk)));
        if self.count.get() > POOL_CHUNKS || self.bytes.get() > POOL_BYTES.get() {
            self.trim(free);
        }
    }

    /// Gives the smallest chunks to `free` until the others fit.
    #[cold]
    fn trim(&self, mut free: impl FnMut(ManualChunk)) {
        let (mut kept, mut rest) = (None, self.first.take());
        let (mut count, mut bytes) = (0, Bytes::ZERO);
        while let Some(mut chunk) = rest {
            rest = chunk.unlink();
            if count < POOL_CHUNKS && bytes + bytes_of(&chunk) <= POOL_BYTES {
                count += 1;
                bytes += bytes_of(&chunk);
                chunk.link(kept);
                kept = Some(chunk);
            } else {
                free(chunk);
            }
        }
        self.first.set(join(kept, None));
        self.count.set(count);
        self.bytes.set(bytes.get());
    }

    /// Gives everything back.
    pub fn give_back(&self, central: &Central) {
        let mut rest = self.first.take();
        self.forget();
        while let Some(mut chunk) = rest {
            rest = chunk.unlink();
            central.free_chunk(chunk);
        }
    }

    /// Forgets everything, in a process in which nobody gives pages back.
    pub fn forget(&self) {
        self.first.set(None);
        self.count.set(0);
        self.bytes.set(0);
    }

    /// How many chunks there are, and their bytes.
    #[cfg(test)]
    pub fn held(&self) -> (usize, Bytes) {
        (self.count.get(), Bytes::new(self.bytes.get()))
    }
}

/// Cuts a list before the first chunk that `belongs` does not hold for. The first part is in reverse.
fn split(
    mut list: Option<ManualChunk>,
    belongs: impl Fn(&ManualChunk) -> bool,
) -> (Option<ManualChunk>, Option<ManualChunk>) {
    let mut reversed = None;
    while let Some(mut chunk) = list.take_if(|chunk| belongs(chunk)) {
        list = chunk.unlink();
        chunk.link(reversed);
        reversed = Some(chunk);
    }
    (reversed, list)
}

/// Puts a list that is in reverse before another one.
fn join(mut reversed: Option<ManualChunk>, mut list: Option<ManualChunk>) -> Option<ManualChunk> {
    while let Some(mut chunk) = reversed {
        reversed = chunk.unlink();
        chunk.link(list);
        list = Some(chunk);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::central::tests::World;
    use crate::tests::Random;

    const PAGE: usize = 8192;
    const ANY: Bytes = Bytes::new(usize::MAX);

    fn chunk(world: &World, pages: usize) -> ManualChunk {
        let local = world.cache().local_pages();
        let span = world.central.alloc_manual(Bytes::new(pages * PAGE), 8, local);
        ManualChunk::new(span.expect("memory"))
    }

    fn pages(chunk: &ManualChunk) -> usize {
        bytes_of(chunk).get() / PAGE
    }

    fn put(world: &World, pool: &ChunkPool, pages: usize) {
        pool.put(chunk(world, pages), |chunk| world.central.free_chunk(chunk));
    }

    #[test]
    fn the_largest_that_may_be_had_comes_first() {
        let world = World::new(None);
        let pool = ChunkPool::default();
        [4, 1, 16, 2, 8].into_iter().for_each(|pages| put(&world, &pool, pages));
        assert_eq!(pool.held(), (5, Bytes::new(31 * PAGE)));
        let page = |pages: usize| Bytes::new(pages * PAGE);
        let take = |least, most| {
            let chunk = pool.take(page(least), page(most))?;
            let found = pages(&chunk);
            world.central.free_chunk(chunk);
            Some(found)
        };
        assert_eq!(take(1, 8), Some(8));
        assert_eq!(take(5, 15), None);
        assert_eq!(take(1, 100), Some(16));
        assert_eq!(take(3, 3), None);
        assert_eq!(take(2, 2), Some(2));
        assert_eq!(take(2, 100), Some(4));
        assert_eq!(take(2, 100), None);
        assert_eq!(take(1, 1), Some(1));
        assert_eq!((take(1, 1), pool.held()), (None, (0, Bytes::ZERO)));
        world.release();
    }

    /// A model that is a sorted list of sizes.
    #[test]
    fn whatever_comes_it_keeps_the_largest_within_its_bounds() {
        let world = World::new(None);
        let pool = ChunkPool::default();
        let mut random = Random::new(5);
        let mut twin: Vec<usize> = Vec::new();
        for _ in 0..2000 {
            if random.below(3) == 0 {
                let (least, most) = (1 << random.below(8), 1 << random.below(8));
                let found = pool.take(Bytes::new(least * PAGE), Bytes::new(most * PAGE));
                let expected = twin.iter().position(|&size| size <= most);
                let expected = expected.filter(|&at| twin[at] >= least).map(|at| twin.remove(at));
                assert_eq!(found.as_ref().map(pages), expected);
                found.into_iter().for_each(|chunk| world.central.free_chunk(chunk));
            } else {
                let bits = random.below(9);
                let size = random.below(1 << bits) + 1;
                put(&world, &pool, size);
                twin.push(size);
                twin.sort_unstable_by(|a, b| b.cmp(a));
                let (mut count, mut sum) = (0, 0);
                twin.retain(|size| {
                    let fits = count < POOL_CHUNKS && (sum + size) * PAGE <= POOL_BYTES.get();
                    (count, sum) = if fits { (count + 1, sum + size) } else { (count, sum) };
                    fits
                });
            }
            let sum: usize = twin.iter().sum();
            assert_eq!(pool.held(), (twin.len(), Bytes::new(sum * PAGE)));
        }
        pool.give_back(&world.central);
        assert!(pool.take(Bytes::ZERO, ANY).is_none());
        world.release();
    }
}
