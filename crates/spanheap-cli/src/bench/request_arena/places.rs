//! Places for documents: the collected heap, boxes on the program's allocator, and nowhere.
//!
//! Each does what a program does that has no other place in mind: the methods that panic when there is no memory,
//! slices copied where values may be copied, and a box that is dropped with what it holds.

use std::marker::PhantomData;

use spanheap::{Gc, Mutator, OutOfMemory, Trace};

use super::document::{Kind, Look, Member, Place, Value};

/// Documents of objects of a collected heap.
#[derive(Trace)]
pub(super) struct InHeap<'gc>(PhantomData<Gc<'gc, ()>>);

impl<'gc> Kind for InHeap<'gc> {
    type Text = Gc<'gc, str>;
    type Array = Gc<'gc, [Value<InHeap<'gc>>]>;
    type Object = Gc<'gc, [Member<InHeap<'gc>>]>;
}

/// A collected heap, in a closure.
pub(super) struct InClosure<'m, 'gc>(pub(super) &'m Mutator<'gc>);

impl<'gc> Place for InClosure<'_, 'gc> {
    type Kind = InHeap<'gc>;

    #[inline]
    fn text(&mut self, text: &str) -> Gc<'gc, str> {
        self.0.alloc_str(text)
    }

    #[inline]
    fn array(
        &mut self,
        values: &mut Vec<Value<InHeap<'gc>>>,
        from: usize,
    ) -> Gc<'gc, [Value<InHeap<'gc>>]> {
        let array = granted(self.0.try_alloc_copy(&values[from..]));
        values.truncate(from);
        array
    }

    #[inline]
    fn object(
        &mut self,
        members: &mut Vec<Member<InHeap<'gc>>>,
        from: usize,
    ) -> Gc<'gc, [Member<InHeap<'gc>>]> {
        let object = granted(self.0.try_alloc_copy(&members[from..]));
        members.truncate(from);
        object
    }
}

impl<'gc> Look for InClosure<'_, 'gc> {
    #[inline]
    fn read<'a>(&self, text: &'a Gc<'gc, str>) -> &'a str {
        text
    }

    #[inline]
    fn values<'a>(&self, array: &'a Gc<'gc, [Value<InHeap<'gc>>]>) -> &'a [Value<InHeap<'gc>>] {
        array
    }

    #[inline]
    fn members<'a>(&self, object: &'a Gc<'gc, [Member<InHeap<'gc>>]>) -> &'a [Member<InHeap<'gc>>] {
        object
    }
}

/// What other methods of the heap do when there is no memory.
fn granted<T>(outcome: Result<T, OutOfMemory>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}

/// Documents of boxes.
pub(super) struct InBoxes;

impl Kind for InBoxes {
    type Text = Box<str>;
    type Array = Box<[Value<InBoxes>]>;
    type Object = Box<[Member<InBoxes>]>;
}

/// The program's allocator, which is the system's.
pub(super) struct Boxes;

impl Place for Boxes {
    type Kind = InBoxes;

    #[inline]
    fn text(&mut self, text: &str) -> Box<str> {
        text.into()
    }

    #[inline]
    fn array(&mut self, values: &mut Vec<Value<InBoxes>>, from: usize) -> Box<[Value<InBoxes>]> {
        values.drain(from..).collect()
    }

    #[inline]
    fn object(
        &mut self,
        members: &mut Vec<Member<InBoxes>>,
        from: usize,
    ) -> Box<[Member<InBoxes>]> {
        members.drain(from..).collect()
    }
}

impl Look for Boxes {
    #[inline]
    fn read<'a>(&self, text: &'a Box<str>) -> &'a str {
        text
    }

    #[inline]
    fn values<'a>(&self, array: &'a Box<[Value<InBoxes>]>) -> &'a [Value<InBoxes>] {
        array
    }

    #[inline]
    fn members<'a>(&self, object: &'a Box<[Member<InBoxes>]>) -> &'a [Member<InBoxes>] {
        object
    }
}

/// Documents of which nothing is left: pointers to nothing, with a length.
pub(super) struct InNothing;

impl Kind for InNothing {
    type Text = [usize; 2];
    type Array = [usize; 2];
    type Object = [usize; 2];
}

/// No memory at all: what decoding costs without it. Counts what it is asked for.
pub(super) struct Nothing {
    pub(super) objects: u64,
}

impl Place for Nothing {
    type Kind = InNothing;

    #[inline]
    fn text(&mut self, text: &str) -> [usize; 2] {
        self.objects += 1;
        [text.as_ptr().addr(), text.len()]
    }

    #[inline]
    fn array(&mut self, values: &mut Vec<Value<InNothing>>, from: usize) -> [usize; 2] {
        self.objects += 1;
        let array = [from, values.len() - from];
        values.truncate(from);
        array
    }

    #[inline]
    fn object(&mut self, members: &mut Vec<Member<InNothing>>, from: usize) -> [usize; 2] {
        self.objects += 1;
        let object = [from, members.len() - from];
        members.truncate(from);
        object
    }
}
