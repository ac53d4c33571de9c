//! Documents in shared arenas: freed at once, while anybody may still have pointers into them.
//!
//! `shared` makes an arena for each request, with a writer, and frees it at the end. Nobody shares it here, and the
//! price of what is possible is paid all the same: each look at a value asks whether its arena is still there, and the
//! memory goes when the collector has made sure that nobody reads it. In `shared-64` so many requests have an arena
//! together, as in a service that has one for each moment; each has a closure and a writer of its own.

use std::marker::PhantomData;

use spanheap::{ArenaGc, ArenaWriter, Heap, Mutator, Trace};

use super::document::{Kind, Look, Member, Place, Scratch, Value};
use super::variants::{Variant, request, timed};
use crate::bench::histogram::Histogram;

/// Documents in a shared arena.
#[derive(Trace)]
pub(super) struct InSharedArena<'gc>(PhantomData<ArenaGc<'gc, ()>>);

impl<'gc> Kind for InSharedArena<'gc> {
    type Text = ArenaGc<'gc, str>;
    type Array = ArenaGc<'gc, [Value<InSharedArena<'gc>>]>;
    type Object = ArenaGc<'gc, [Member<InSharedArena<'gc>>]>;
}

/// A shared arena that is written to, in a closure.
struct Writing<'m, 'gc> {
    mc: &'m Mutator<'gc>,
    writer: ArenaWriter<'gc, 'm>,
}

/// What is said when a value is gone. The arena is freed behind the last look.
const GONE: &str = "the arena is freed after the request";

impl<'gc> Place for Writing<'_, 'gc> {
    type Kind = InSharedArena<'gc>;

    #[inline]
    fn text(&mut self, text: &str) -> ArenaGc<'gc, str> {
        self.writer.alloc_str(text)
    }

    #[inline]
    fn array(
        &mut self,
        values: &mut Vec<Value<InSharedArena<'gc>>>,
        from: usize,
    ) -> ArenaGc<'gc, [Value<InSharedArena<'gc>>]> {
        let array = self.writer.alloc_copy(&values[from..]);
        values.truncate(from);
        array
    }

    #[inline]
    fn object(
        &mut self,
        members: &mut Vec<Member<InSharedArena<'gc>>>,
        from: usize,
    ) -> ArenaGc<'gc, [Member<InSharedArena<'gc>>]> {
        let object = self.writer.alloc_copy(&members[from..]);
        members.truncate(from);
        object
    }
}

impl<'gc> Look for Writing<'_, 'gc> {
    #[inline]
    fn read<'a>(&self, text: &'a ArenaGc<'gc, str>) -> &'a str {
        text.get(self.mc).expect(GONE)
    }

    #[inline]
    fn values<'a>(
        &self,
        array: &'a ArenaGc<'gc, [Value<InSharedArena<'gc>>]>,
    ) -> &'a [Value<InSharedArena<'gc>>] {
        array.get(self.mc).expect(GONE)
    }

    #[inline]
    fn members<'a>(
        &self,
        object: &'a ArenaGc<'gc, [Member<InSharedArena<'gc>>]>,
    ) -> &'a [Member<InSharedArena<'gc>>] {
        object.get(self.mc).expect(GONE)
    }
}

/// An arena for so many requests.
pub(super) struct Shared {
    heap: Heap,
    scratch: Scratch<InSharedArena<'static>>,
    together: u64,
}

impl Shared {
    pub(super) fn new(heap: Heap, together: u64) -> Shared {
        Shared { heap, scratch: Scratch::new(), together }
    }
}

impl Variant for Shared {
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64 {
        let Shared { heap, scratch, together } = self;
        let (mut arena, mut served) = (heap.shared_arena(), 0);
        timed(requests, times, || {
            let found = heap.enter(|mc| {
                let mut place = Writing { mc, writer: arena.writer(mc) };
                scratch.lend(|scratch| request(&mut place, text, scratch))
            });
            served += 1;
            if served % *together == 0 {
                // Dropping the handle frees.
                arena = heap.shared_arena();
            }
            found
        })
    }

    fn heap(&self) -> Option<&Heap> {
        Some(&self.heap)
    }
}
