//! Sweeping by the batch: spans are taken out of their set some at a time, and go back there, or to the page heap, so.
//!
//! Its lock is what the collector and mutators meet at most, and most of the time that the collector holds it is for
//! the bits of pages and the summaries above them. Spans that died together often lie side by side, and are one run of
//! pages then. So whoever sweeps many spans gathers the empty ones, and frees them with one visit to the lock: that is
//! less work, and it is less likely that the lock's holder loses his processor in the midst of it.
//!
//! Until then a gathered span counts as being swept: who waits for the sweep to be over finds the pages free.
//!
//! It is the same with the lock of a class' set, where every span would be taken out and put back with a visit for
//! itself, while mutators want theirs: a batch is taken out of one set at once, and what lives on is put back at
//! once. Meanwhile nobody else finds these spans, so a batch is small: it is swept in a few microseconds.

use super::Central;
use crate::addr::PageCount;
use crate::heap::sweep::sweep;
use crate::heap::swept::Swept;
use crate::span::{OwnedSpan, Room};

/// How many spans are freed at once.
const BATCH: usize = crate::heap::page_heap::FREED_AT_ONCE;

/// Empty spans on their way to the page heap; they get there when this is full, or dropped.
pub(super) struct Freed<'a> {
    central: &'a Central,
    spans: [Option<OwnedSpan>; BATCH],
    count: usize,
}

impl Central {
    /// Sweeps up to `count` spans; false when there were less.
    pub fn sweep_batch(&self, mut count: usize) -> bool {
        let mut freed = Freed::new(self);
        while count > 0 {
            match self.sweep_some(count.min(BATCH), &mut freed) {
                0 => return false,
                swept => count -= swept,
            }
        }
        true
    }

    /// Sweeps up to `most` spans, which are no more than a batch, of one set; returns how many.
    fn sweep_some(&self, most: usize, freed: &mut Freed<'_>) -> usize {
        let mut spans = [const { None }; BATCH];
        let (generation, backlog) = (self.generation(), &self.backlog);
        let spans = &mut spans[..most];
        let Some((set, count, target)) = self.classes.take_unswept_some(spans, generation, backlog)
        else {
            return 0;
        };
        let (mut kept, mut done) = ([const { None }; BATCH], [PageCount::ZERO; BATCH]);
        for (index, span) in spans.iter_mut().filter_map(Option::take).enumerate() {
            let pages = span.info().pages;
            match sweep(span, &self.drops, self.how(target), self.counters().shared()) {
                // It counts as being swept until it is freed.
                Swept::Empty(span) => {
                    freed.add(span);
                    continue;
                }
                Swept::Dropping => {}
                Swept::Full(span) => kept[index] = Some((span, Room::None)),
                Swept::Partial(span, taken) => {
                    let room = self.room_in(&span, taken);
                    kept[index] = Some((span, room));
                }
            }
            done[index] = pages;
        }
        set.put_some(&mut kept[..count], target, backlog);
        done.into_iter()
            .filter(|&pages| pages > PageCount::ZERO)
            .for_each(|pages| backlog.finish(pages));
        count
    }
}

impl<'a> Freed<'a> {
    /// No span so far.
    pub fn new(central: &'a Central) -> Freed<'a> {
        Freed { central, spans: [const { None }; BATCH], count: 0 }
    }

    /// Takes in an empty span that has just been swept. [`crate::span::Backlog::finish`] is still owed for it.
    pub fn add(&mut self, span: OwnedSpan) {
        self.spans[self.count] = Some(span);
        self.count += 1;
        if self.count == BATCH {
            self.flush();
        }
    }

    /// Frees all.
    pub fn flush(&mut self) {
        let spans = &mut self.spans[..core::mem::take(&mut self.count)];
        if spans.is_empty() {
            return;
        }
        let mut lengths = [None; BATCH];
        for (length, span) in lengths.iter_mut().zip(spans.iter()) {
            *length = span.as_ref().map(|span| span.info().pages);
        }
        self.central.pages.free_spans(spans);
        self.central.note_free_pages();
        lengths.into_iter().flatten().for_each(|pages| self.central.backlog.finish(pages));
    }
}

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PAGE_BYTES;
    use crate::heap::central::tests::World;

    /// Objects of some pages each; of every `stride` the first one lives.
    fn freed_by_a_batch(count: usize, pages: usize, stride: usize) -> (usize, u64) {
        let world = World::new(None);
        let objects = world.large(count, pages);
        objects.iter().step_by(stride).for_each(|&object| world.mark(object));
        world.begin_generation(false);
        let before = world.central.backlog().swept();
        assert!(!world.central.sweep_batch(count + 1), "there are no more");
        assert!(world.central.is_swept());
        let swept = world.central.backlog().swept() - before;
        let in_use = world.central.pages().in_use().whole_pages().get();
        // What was freed can be had again, all of it.
        for _ in 0..count - count.div_ceil(stride) {
            world.alloc(pages * PAGE_BYTES).expect("memory");
        }
        world.release();
        (in_use, swept)
    }

    #[test]
    fn all_that_is_empty_is_freed_side_by_side_and_scattered() {
        for (count, pages, stride) in [(40_usize, 20, 1000), (40, 20, 2), (100, 16, 3), (7, 33, 2)]
        {
            let alive = count.div_ceil(stride);
            let (in_use, swept) = freed_by_a_batch(count, pages, stride);
            assert_eq!((in_use, swept as usize), (alive * pages, count * pages));
        }
    }

    #[test]
    fn what_is_gathered_is_not_free_yet_and_the_sweep_not_over() {
        let world = World::new(None);
        world.large(3, 20);
        world.begin_generation(false);
        let central = &world.central;
        let mut freed = Freed::new(central);
        for _ in 0..3 {
            central.sweep_any(&mut freed).expect("three wait");
        }
        let in_use = || central.pages().in_use().whole_pages().get();
        assert!(central.backlog().waiting().get() == 0 && !central.is_swept());
        assert_eq!(in_use(), 60);
        drop(freed);
        assert!(central.is_swept());
        assert_eq!(in_use(), 0);
        world.release();
    }
}
