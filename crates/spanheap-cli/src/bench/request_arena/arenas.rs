//! Documents in scoped arenas, and documents that are taken out of one into the heap.
//!
//! `scoped` is what a program does: a closure for each request, and an arena in it. In `scoped-reset` all requests of a
//! round share a closure and an arena, which is reset after each; while it is open no cycle can end. `promoted` is as
//! `scoped`, and one request in some copies its document to the heap, where the last [`KEPT`] of them are kept.

use std::marker::PhantomData;

use spanheap::{
    Arena, Gc, GcCell, Heap, Mutator, Promote, PromoteError, Promotion, Root, Rootable, Trace,
};

use super::Document;
use super::document::{Kind, Look, Member, Pair, Place, Scratch, Value, sum};
use super::places::{InClosure, InHeap};
use super::variants::{Variant, request, timed};
use crate::bench::histogram::Histogram;
use crate::failure::{Failure, Result};

/// How many documents are kept.
const KEPT: usize = 64;

/// Documents in a scoped arena.
pub(super) struct InArena<'a>(PhantomData<&'a ()>);

impl<'a> Kind for InArena<'a> {
    type Text = &'a str;
    type Array = &'a [Value<InArena<'a>>];
    type Object = &'a [Member<InArena<'a>>];
}

impl<'a> Place for &'a Arena<'_> {
    type Kind = InArena<'a>;

    #[inline]
    fn text(&mut self, text: &str) -> &'a str {
        self.alloc_str(text)
    }

    #[inline]
    fn array(
        &mut self,
        values: &mut Vec<Value<InArena<'a>>>,
        from: usize,
    ) -> &'a [Value<InArena<'a>>] {
        let array = self.alloc_slice_copy(&values[from..]);
        values.truncate(from);
        array
    }

    #[inline]
    fn object(
        &mut self,
        members: &mut Vec<Member<InArena<'a>>>,
        from: usize,
    ) -> &'a [Member<InArena<'a>>] {
        let object = self.alloc_slice_copy(&members[from..]);
        members.truncate(from);
        object
    }
}

impl<'x> Look for &'x Arena<'_> {
    #[inline]
    fn read<'a>(&self, text: &'a &'x str) -> &'a str {
        text
    }

    #[inline]
    fn values<'a>(&self, array: &'a &'x [Value<InArena<'x>>]) -> &'a [Value<InArena<'x>>] {
        array
    }

    #[inline]
    fn members<'a>(&self, object: &'a &'x [Member<InArena<'x>>]) -> &'a [Member<InArena<'x>>] {
        object
    }
}

impl<'gc> Promote<'gc> for Value<InArena<'_>> {
    type Promoted = Value<InHeap<'gc>>;

    fn promote_to(
        &self,
        heap: &Promotion<'_, 'gc>,
    ) -> std::result::Result<Value<InHeap<'gc>>, PromoteError> {
        Ok(match self {
            Value::Null => Value::Null,
            Value::Bool(value) => Value::Bool(*value),
            Value::Number(number) => Value::Number(*number),
            Value::Text(text) => Value::Text(text.promote_to(heap)?),
            Value::Array(array) => Value::Array(array.promote_to(heap)?),
            Value::Object(object) => Value::Object(object.promote_to(heap)?),
        })
    }
}

impl<'gc, T: Promote<'gc>, V: Promote<'gc>> Promote<'gc> for Pair<T, V> {
    type Promoted = Pair<T::Promoted, V::Promoted>;

    fn promote_to(
        &self,
        heap: &Promotion<'_, 'gc>,
    ) -> std::result::Result<Self::Promoted, PromoteError> {
        Ok(Pair { key: self.key.promote_to(heap)?, value: self.value.promote_to(heap)? })
    }
}

/// An arena for each request.
pub(super) struct Scoped {
    heap: Heap,
    scratch: Scratch<InArena<'static>>,
}

impl Scoped {
    pub(super) fn new(heap: Heap) -> Scoped {
        Scoped { heap, scratch: Scratch::new() }
    }
}

impl Variant for Scoped {
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64 {
        timed(requests, times, || {
            self.heap.enter(|mc| {
                mc.arena(|arena| self.scratch.lend(|scratch| request(&mut &*arena, text, scratch)))
            })
        })
    }

    fn heap(&self) -> Option<&Heap> {
        Some(&self.heap)
    }
}

/// One arena for all requests of a round, reset after each.
pub(super) struct ScopedReset(pub(super) Scoped);

impl Variant for ScopedReset {
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64 {
        let Scoped { heap, scratch } = &mut self.0;
        heap.enter(|mc| {
            mc.arena(|arena| {
                timed(requests, times, || {
                    let found = scratch.lend(|scratch| request(&mut &*arena, text, scratch));
                    arena.reset();
                    found
                })
            })
        })
    }

    fn heap(&self) -> Option<&Heap> {
        Some(&self.0.heap)
    }
}

/// A document in the heap.
#[derive(Trace)]
struct Kept<'gc> {
    document: Value<InHeap<'gc>>,
}

/// Those that were kept last.
#[derive(Trace)]
struct Table<'gc> {
    documents: Gc<'gc, [GcCell<'gc, Option<Gc<'gc, Kept<'gc>>>>]>,
}

/// An arena for each request, and some documents kept.
pub(super) struct Promoted {
    scoped: Scoped,
    table: Root<Rootable![Table<'_>]>,
    /// Of so many requests one keeps its document.
    one_in: u64,
    served: u64,
}

impl Promoted {
    pub(super) fn new(heap: Heap, one_in: u64) -> Promoted {
        let table = heap.enter(|mc| mc.root(mc.alloc(Table { documents: mc.alloc_zeroed(KEPT) })));
        Promoted { scoped: Scoped::new(heap), table, one_in, served: 0 }
    }

    /// Keeps a document. Returns its checksum, from the copy.
    fn keep<'gc>(
        mc: &Mutator<'gc>,
        table: Gc<'gc, Table<'gc>>,
        number: u64,
        value: &Value<InArena<'_>>,
    ) -> u64 {
        let kept = mc.alloc(Kept { document: mc.promote(*value) });
        table.documents[(number % KEPT as u64) as usize].set(mc, Some(kept));
        sum(&InClosure(mc), &kept.document)
    }
}

impl Variant for Promoted {
    fn serve(&mut self, text: &str, requests: u64, times: &mut Histogram) -> u64 {
        let Promoted { scoped: Scoped { heap, scratch }, table, one_in, served } = self;
        timed(requests, times, || {
            *served += 1;
            heap.enter(|mc| {
                mc.arena(|arena| {
                    let mut place = &*arena;
                    scratch.lend(|scratch| {
                        if *served % *one_in != 0 {
                            return request(&mut place, text, scratch);
                        }
                        let kept = |value| Self::keep(mc, table.get(mc), *served / *one_in, &value);
                        super::decode(text, &mut place, scratch).map_or(0, kept)
                    })
                })
            })
        })
    }

    /// All that is kept is what was decoded, and as much is kept as there were requests for.
    fn verify(&mut self, document: &Document) -> Result<()> {
        let wanted = (self.served / self.one_in).min(KEPT as u64);
        let found = self.scoped.heap.enter(|mc| {
            let table = self.table.get(mc);
            let kept = table.documents.iter().filter_map(GcCell::get);
            kept.filter(|kept| sum(&InClosure(mc), &kept.document) == document.sum).count() as u64
        });
        match found == wanted {
            true => Ok(()),
            false => Err(Failure::new(format!("{found} documents were kept whole, of {wanted}"))),
        }
    }

    fn heap(&self) -> Option<&Heap> {
        Some(&self.scoped.heap)
    }
}
