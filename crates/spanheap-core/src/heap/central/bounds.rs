//! What an allocation does for others at most: sweep what is due, and look for dead spans.
//!
//! The slow path of an allocation is the longest that a mutator is held up as a rule, so none of its parts may
//! grow with the heap. Two would. A trigger may be so near that all that waits to be swept is due within the next
//! 8 KiB: when a program has allocated a lot while the last cycle marked, or a limit leaves no room.
//! And where nearly everything lives, a dead span may be a gigabyte further up. Both have a budget here, in
//! proportion to what is asked for. What is missing then is not forgotten: it is due from the next allocation, which
//! looks on where this one has stopped. So all is swept, by allocating less than a thirtieth of it.
//!
//! One way has no budget. Before an allocation is *refused*, everything is swept (`Central::in_need`): an error
//! while there is garbage would be wrong, and is worse than a stall.

use super::Central;
use super::freed::Freed;
use crate::addr::{Bytes, PageCount};
use crate::heap::reclaim::Budget;
use crate::span::Span;

/// How many pages an allocation sweeps at most because they are due, beside [`PACE_PER_PAGE`] for each that it
/// takes; and the rest of the last span. A page whose side tables are in no cache takes a microsecond or two.
const PACE_BUDGET: usize = 32;

/// See [`PACE_BUDGET`].
const PACE_PER_PAGE: usize = 4;

impl Central {
    /// Sweeps until somebody who is about to take `bytes`, and to sweep `own` pages for it, owes nothing, or has
    /// done enough for once.
    pub(super) fn keep_pace(&self, bytes: Bytes, own: PageCount) {
        let budget = PACE_BUDGET + PACE_PER_PAGE * bytes.whole_pages().get();
        let (mut done, mut freed) = (0, Freed::new(self));
        while done < budget && self.backlog.waiting() > PageCount::ZERO {
            let (live, swept) = (self.weight(), self.backlog.swept());
            let owed = self.pace.line().map_or(0, |line| line.owed(live, swept, bytes, own));
            if owed == 0 {
                return;
            }
            match self.sweep_any(&mut freed) {
                Some(pages) => done += pages.get(),
                None => return,
            }
        }
    }

    /// Sweeps dead spans, as long as there are any and the budget allows it, until `pages` pages in a row are
    /// free.
    pub(super) fn reclaim(&self, pages: PageCount, align: Bytes) {
        let (mut budget, mut freed) = (Budget::of(pages), Freed::new(self));
        let mut reclaim = |freed: &mut Freed<'_>| {
            let sweep = |record: &Span| self.sweep_found(record, freed);
            let enough = self.reclaimer.reclaim(pages, &mut budget, sweep);
            freed.flush();
            enough
        };
        // That many pages may have been freed and not lie in a row; then more are. Who finds the page heap locked asks
        // it when he takes the pages.
        while self.backlog.waiting() > PageCount::ZERO
            && reclaim(&mut freed)
            && !self.pages.fits(pages, align)
        {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{CHUNK_PAGES, PAGE_BYTES};
    use crate::heap::central::tests::World;
    use crate::tests::Random;

    /// A heap of so many chunks in which everything lives and waits to be swept: objects of 16 pages, and of one.
    fn living(chunks: usize) -> World {
        let world = World::new(None);
        for _ in 0..chunks {
            for object in world.large(CHUNK_PAGES / 16 - 2, 16) {
                world.mark(object);
            }
            for _ in 0..32 {
                world.mark(world.alloc(PAGE_BYTES).expect("memory"));
            }
        }
        world.begin_generation(false);
        world
    }

    #[test]
    fn what_is_due_at_once_is_swept_by_many_allocations_and_no_heap_makes_one_sweep_more() {
        for chunks in [1, 8, 40] {
            let world = living(chunks);
            world.central.set_trigger(world.central.live());
            let mut random = Random::new(0x57a11);
            let (mut allocations, mut most) = (0, 0);
            while world.central.backlog().waiting() > PageCount::ZERO {
                let pages = if random.one_in(4) { 5 + random.below(40) } else { 1 };
                let before = world.central.backlog().swept() as usize;
                world.alloc(pages * PAGE_BYTES).expect("memory");
                let swept = world.central.backlog().swept() as usize - before;
                // The last span, and those of its class that a small one looks through.
                let own = if pages == 1 { super::super::acquire::SWEEP_BUDGET } else { 0 };
                let bound = PACE_BUDGET + PACE_PER_PAGE * pages + 16 + own;
                assert!(swept <= bound, "{swept} for {pages}");
                most = most.max(swept);
                allocations += 1;
            }
            assert!(allocations <= chunks * CHUNK_PAGES / PACE_BUDGET + 1, "{allocations}");
            assert!(chunks == 1 || most >= PACE_BUDGET, "{most}: more than was due in one heap");
            world.release();
        }
    }

    #[test]
    fn no_request_looks_through_the_whole_heap_for_a_dead_span() {
        for chunks in [10, 60] {
            let world = living(chunks);
            let looked_through = || world.central.reclaimer.looked_through();
            let mut all = 0;
            // Sizes of which there are no spans, so that pages are asked for.
            for pages in [1, 5, 16, 64, 320] {
                let before = looked_through();
                match pages {
                    1 => world.alloc(3000),
                    _ => world.alloc(pages * PAGE_BYTES),
                }
                .expect("memory");
                let looked = looked_through() - before;
                // Objects of 3000 bytes are in spans of three pages.
                let bound = 64 + 2 * pages.max(3);
                assert!(looked <= bound, "{looked} blocks for {pages} pages of {chunks} chunks");
                all += looked;
            }
            assert!(
                all >= (chunks * 32).min(1000),
                "{all} blocks: the next one goes on from there"
            );
            world.release();
        }
    }

    #[test]
    fn a_dead_span_far_up_is_found_by_the_requests_that_follow() {
        let world = World::new(None);
        let mut objects = world.large(40 * CHUNK_PAGES / 64, 64);
        // Blocks are looked through from the lowest on; the last object of the arena is in the 16th.
        objects.truncate(15 * CHUNK_PAGES / 64);
        let dead = objects.pop().expect("some");
        for object in all_objects(&world) {
            if object != dead {
                world.mark(object);
            }
        }
        world.begin_generation(false);
        let mut places = Vec::new();
        while !places.contains(&dead) {
            places.push(world.alloc(64 * PAGE_BYTES).expect("memory"));
            assert!(places.len() <= 10, "it was not found");
        }
        assert!(places.len() > 1, "the first one gives up before it gets there");
        world.release();
    }

    fn all_objects(world: &World) -> Vec<crate::addr::Addr> {
        world.allocated().into_iter().collect()
    }
}
