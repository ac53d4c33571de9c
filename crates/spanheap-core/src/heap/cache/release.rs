//! Giving back what a mutator's caches hold: at a change of phase, and when the mutator goes away.
//!
//! Each cache that holds a span costs a visit to the lock of its class, and the free pages one to the lock of the
//! page heap. A mutator that enters cannot go on before all of it is done, so whoever does it on its behalf does
//! it in **pieces**, between which the lock of the caches is free. A piece gives a few spans back and no more (the
//! first one also those that are late, which are seldom any), and what a piece has given back is not looked at again
//! by anybody but as an empty cache.
//!
//! # Safety
//! Follows the chain of blocks, as the rest of the cache does.
#![allow(unsafe_code)]

use super::{Block, Central, ClassCache, SpanCache, Tint};
use crate::addr::Addr;

/// How many spans are given back in a piece.
const PIECE: usize = 4;

impl SpanCache {
    /// Gives everything back. `tint` is the one under which the runs were taken.
    pub fn give_back_all(&self, central: &Central, tint: Tint) {
        let mut next = Some(0);
        while let Some(piece) = next {
            next = self.give_back_piece(central, tint, piece);
        }
    }

    /// Gives a piece back: from the cache with that number on. The number from which to go on; `None` when all
    /// has been given back. The first piece begins with number 0. `tint` is as above.
    pub fn give_back_piece(&self, central: &Central, tint: Tint, from: usize) -> Option<usize> {
        if from == 0 {
            self.count_tiny(central);
            self.purse.clear();
            self.tiny.set(Addr::NULL);
            self.tiny_end.set(Addr::NULL);
            let _ = self.chunks.give_back(central);
            central.put_back_late(&self.pages);
        }
        let writer = central.writer(&self.pages);
        let mut given_back = 0;
        for (number, cache) in self.caches_from(from) {
            if given_back == PIECE {
                return Some(number);
            }
            if cache.span.get().is_some() {
                let put = |class, span, has_room| central.put_back(class, span, has_room);
                cache.give_back(central, tint, writer, put);
                given_back += 1;
            }
        }
        central.take_back(&self.pages);
        None
    }

    /// The caches with their numbers, from that number on.
    fn caches_from(&self, from: usize) -> impl Iterator<Item = (usize, &ClassCache)> {
        let mut link = self.blocks.get();
        let blocks = core::iter::from_fn(move || {
            // SAFETY: as in `block_at`.
            let block: &Block = unsafe { link?.as_ref() };
            link = block.next.get();
            Some(&block.caches)
        });
        let own = self.flat.iter().chain(&self.noscan);
        own.chain(blocks.flatten()).enumerate().skip(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heap::central::tests::World;

    #[test]
    fn a_piece_gives_a_few_spans_back_and_all_pieces_everything() {
        let world = World::new(None);
        let sizes = [16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176];
        for size in sizes {
            world.alloc(size).expect("memory");
        }
        let (cache, tint) = (world.cache(), world.tint());
        let held = || cache.caches_from(0).filter(|(_, cache)| cache.span.get().is_some()).count();
        assert_eq!(held(), sizes.len());
        let (mut next, mut pieces) = (0, 0);
        loop {
            let before = held();
            let rest = cache.give_back_piece(&world.central, tint, next);
            assert!(before - held() <= PIECE, "{} spans in a piece", before - held());
            pieces += 1;
            match rest {
                Some(rest) => {
                    assert!(rest > next && held() > 0);
                    assert!(!cache.local_pages().is_without_pages(), "pages go last");
                    next = rest;
                }
                None => break,
            }
        }
        assert_eq!((held(), pieces), (0, sizes.len().div_ceil(PIECE)));
        assert!(cache.local_pages().is_without_pages());
        assert_eq!(world.central.taken(), sizes.iter().sum::<usize>());
        world.release();
    }
}
