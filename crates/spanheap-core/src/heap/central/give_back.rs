//! Spans go back into their classes.
//!
//! A mutator that has used up a span puts it into the set of its class, whose lock the collector takes, too, while it
//! sweeps. A holder of that lock who has lost his processor keeps it for milliseconds, and no mutator has to wait for
//! that: the span is *late*. It stays with the mutator ([`LocalPages`]), as one of those that it has in its caches, and
//! goes back when the next span is used up, or with the caches.
//!
//! Nobody misses it meanwhile. It has no free slot, or was filled black; and it is swept with the others of its
//! generation, since caches are given back before a cycle marks.
//!
//! # Safety
//! A late span belongs to the mutator, like the spans in its caches.
#![allow(unsafe_code)]

use super::Central;
use crate::heap::class::Class;
use crate::heap::page_heap::{Late, LocalPages};
use crate::span::{OwnedSpan, Room};

impl Central {
    /// Puts a span that a mutator held back into its class.
    pub fn put_back(&self, class: &'static Class, span: OwnedSpan, has_room: bool) {
        let room = self.room(&span, has_room);
        class.spans().put(span, self.generation(), room, &self.backlog);
    }

    /// The same for a span that may be late. `local` is the mutator's.
    pub fn put_back_soon(
        &self,
        class: &'static Class,
        span: OwnedSpan,
        has_room: bool,
        local: &LocalPages,
    ) {
        let room = self.room(&span, has_room);
        if let Err(span) = class.spans().put_soon(span, self.generation(), room, &self.backlog) {
            let late = Late { span: span.into_raw(), class, has_room };
            if let Err(late) = local.put_late(late) {
                // SAFETY: made of a span that we own, and forgotten here.
                let span = unsafe { OwnedSpan::from_raw(late.span) };
                self.put_back(class, span, has_room);
            }
        }
    }

    /// Puts late spans back, however long that takes.
    pub fn put_back_late(&self, local: &LocalPages) {
        while let Some(late) = local.take_late() {
            // SAFETY: the mutator has owned the span since it was late, and has forgotten it now.
            let span = unsafe { OwnedSpan::from_raw(late.span) };
            self.put_back(late.class, span, late.has_room);
        }
    }

    /// Puts late spans back, until one finds its set locked again.
    #[cold]
    pub fn put_back_late_soon(&self, local: &LocalPages) {
        let mut before = local.count_late();
        while let Some(late) = local.take_late() {
            // SAFETY: as in `put_back_late`.
            let span = unsafe { OwnedSpan::from_raw(late.span) };
            self.put_back_soon(late.class, span, late.has_room, local);
            if local.count_late() == before {
                return;
            }
            before -= 1;
        }
    }

    fn room(&self, span: &OwnedSpan, has_room: bool) -> Room {
        match has_room {
            true if self.pages.is_above_line(span.info().base) => Room::Astray,
            has_room => has_room.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{Addr, PAGE_BYTES};
    use crate::heap::central::Config;
    use crate::heap::central::tests::World;
    use crate::span::size_class::SizeClass;
    use std::sync::Barrier;

    const SLOT: usize = 1024;

    /// Uses up so many spans of the class of [`SLOT`].
    fn use_up(world: &World, spans: usize) {
        (0..spans * PAGE_BYTES / SLOT).for_each(|_| _ = world.alloc(SLOT).expect("memory"));
    }

    /// A heap with objects in spans of that class, and the class.
    fn world() -> (World, &'static Class) {
        let world = World::with(Config { shards: Some(1), ..Config::default() });
        use_up(&world, 2);
        let size = SizeClass::for_layout(crate::addr::Bytes::new(SLOT), 8);
        let class = world.central.classes().find(|class| class.key().size_class == size);
        (world, class.expect("it has objects"))
    }

    /// Calls `act` while somebody holds the lock of `class` and does nothing.
    fn while_held(class: &'static Class, act: impl FnOnce()) {
        let (is_held, is_over) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let held = class.spans().home_of(Addr::NULL).hold();
                is_held.wait();
                is_over.wait();
                drop(held);
            });
            is_held.wait();
            act();
            is_over.wait();
        });
    }

    #[test]
    fn whoever_finds_a_class_locked_takes_new_pages_and_keeps_what_he_has_used_up() {
        let (world, class) = world();
        let late = || world.cache().local_pages().count_late();
        while_held(class, || {
            // Without a word from the one who holds the lock, or this test does not end.
            use_up(&world, 5);
            assert_eq!(late(), 5);
        });
        use_up(&world, 1);
        assert_eq!(late(), 0, "the next one takes all along");
        while_held(class, || use_up(&world, 3));
        assert_eq!(late(), 3);
        world.begin_generation(false);
        assert_eq!(late(), 0, "they go back with the caches");
        // All of them are dead, and none is forgotten.
        assert!(!world.central.sweep_batch(usize::MAX));
        assert_eq!(world.central.pages().in_use().get(), 0);
        world.release();
    }

    /// Their spans are never in a cache, and go back all the same: with the next span of any class that is used up,
    /// or with the caches.
    #[test]
    fn spans_of_large_objects_are_late_and_swept_like_any_other() {
        const PAGES: usize = 20;
        let world = World::with(Config { shards: Some(1), ..Config::default() });
        let large = |count: usize| {
            (0..count).for_each(|_| _ = world.alloc(PAGES * PAGE_BYTES).expect("memory"));
        };
        large(1);
        let class = world.central.classes().find(|class| class.key().size_class.is_none());
        let class = class.expect("there is one large object");
        let late = || world.cache().local_pages().count_late();
        while_held(class, || large(3));
        assert_eq!(late(), 3);
        use_up(&world, 1);
        assert_eq!(late(), 0, "a span of another class takes them along");
        while_held(class, || large(16));
        assert_eq!(late(), 16);
        // There is no room for another one, which waits its turn.
        large(1);
        world.begin_generation(false);
        assert_eq!(late(), 0);
        assert!(!world.central.sweep_batch(usize::MAX) && world.central.is_swept());
        assert_eq!(world.central.pages().in_use().get(), 0);
        world.release();
    }

    #[test]
    fn a_late_span_that_missed_a_generation_is_swept() {
        let (world, class) = world();
        while_held(class, || use_up(&world, 2));
        let next = world.central.generation().next();
        let retained = world.central.live();
        // As after a cycle: the mutator is inside, and gives its caches back when it enters again.
        let tint = world.tint();
        world.central.begin_generation(next, retained, world.central.taken(), true);
        world.cache().give_back_all(&world.central, tint);
        assert!(!world.central.sweep_batch(usize::MAX) && world.central.is_swept());
        assert_eq!(world.allocated().len(), 4 * PAGE_BYTES / SLOT, "everything was retained");
        world.release();
    }
}
