//! A mutator's span caches: for each class that the mutator uses, one span and a cursor in one of its free
//! runs.
//!
//! The fast path of an allocation is three operations: compare the cursor with the end of the run, move it, done. It
//! is in `fast`, and compiled into the caller's code. What is behind it is here: the next run of the same span,
//! another span, new pages; and counting the bytes taken.
//!
//! # Finding the cache of a type
//! - Small fixed shapes (up to 8 words, no destructor) have a place in a flat table, a constant of the type.
//! - Memory without pointers has a place by size class.
//! - Everything else goes through a small direct-mapped table (`mapped`), keyed by the address of the type's
//!   description, and for slices by the size class; and on a miss through the classes of the heap.
//!
//! # Colour
//! While marking runs, new objects are *black*: marked and never scanned. Blackness is a property of the
//! run: when a mutator whose closure began in the marking phase takes a run, the run's slots get mark and
//! scanned bits at once, and the allocation and mark bits of the slots that were not used are cleared when
//! the run is given back. So the fast path is the same in every phase.
//!
//! The *scanned* bits of unused slots stay until the span is swept: were they cleared while a worker
//! looks at the page, it could have read the mark before and miss the scanned bit after, and would follow
//! the pointers of a slot that holds no object. A slot that was scanned before its object is there must
//! not be handed out again in this cycle, so such a span counts as full.
//!
//! A closure may outlive its cycle. Then the heap's generation is ahead of the closure's, and a span that
//! it gets now has been swept for the new one: its runs are not black, which is right, since nothing is
//! being marked. Hence the test in `Tint::is_black`.
//!
//! # Debt
//! A run that is taken while a cycle marks costs work ([`super::debt`]). If the mutator has to do some first, the
//! allocation returns as if there were no memory, and the mutator comes back. The fast path knows nothing of it.
//!
//! # Locking
//! None: the owner alone uses its caches while it is inside a closure; see `collect::registry` for who
//! may give them back when.
//!
//! # Safety
//! The cells are `!Sync`; cursors stay inside runs that the mutator owns.
#![allow(unsafe_code)]

mod chunk_pool;
mod fast;
mod mapped;
mod modes;
mod release;

use super::central::Central;
use super::class::{Class, ClassKey};
use super::counters::Writer;
use super::debt::Purse;
use super::error::OutOfMemory;
use super::page_heap::LocalPages;
use super::stall::Cause;
use crate::addr::{Addr, Bytes};
use crate::span::bits::{self, Run};
use crate::span::layout::FLAT_SHAPES;
use crate::span::size_class::{CLASS_COUNT, SizeClass};
use crate::span::{Counting, Generation, Info, OwnedSpan, Shape, Span, Table, TypeInfo};
use chunk_pool::ChunkPool;
use core::cell::Cell;
use core::ptr::NonNull;
use fast::Place;
use mapped::{Block, Mapped};
use modes::Inside;
use std::time::Instant;

/// How a mutator colours what it allocates, constant during a closure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tint {
    /// Whether the closure began while marking ran.
    pub black: bool,
    /// The heap's generation when the closure began.
    pub generation: Generation,
}

impl Tint {
    /// Whether runs of `span` are black.
    fn is_black(self, span: &Span) -> bool {
        self.black && span.generation() == self.generation
    }
}

/// What somebody wants memory for.
#[derive(Clone, Copy)]
struct Values {
    ty: &'static TypeInfo,
    /// Whether it is for a slice of them.
    is_slice: bool,
}

impl Values {
    fn one(ty: &'static TypeInfo) -> Values {
        Values { ty, is_slice: false }
    }

    fn slice(ty: &'static TypeInfo) -> Values {
        Values { ty, is_slice: true }
    }
}

/// The cache of one class.
#[derive(Default)]
pub struct ClassCache {
    /// The next slot of the run, and where the run ends: next to each other, for the fast path.
    cursor: Cell<Addr>,
    end: Cell<Addr>,
    /// Slots of the run, all told: counted as such.
    slots: Cell<usize>,
    span: Cell<Option<NonNull<Span>>>,
    class: Cell<Option<&'static Class>>,
}

impl ClassCache {
    /// The next slot of the run, if there is one. `slot` is the slot size of the class.
    #[inline(always)]
    fn bump(&self, slot: usize) -> Option<Addr> {
        let cursor = self.cursor.get();
        if cursor < self.end.get() {
            self.cursor.set(Addr::new(cursor.get() + slot));
            return Some(cursor);
        }
        None
    }

    /// The first slot of the next run. The class of the cache is looked up at its first use.
    fn next_run(
        &self,
        central: &Central,
        key: &ClassKey,
        values: Values,
        tint: Tint,
        local: &LocalPages,
    ) -> Result<Addr, OutOfMemory> {
        let class = match self.class.get() {
            Some(class) => class,
            None => central.class(key, values.ty.name)?,
        };
        self.refill(central, class, values, tint, local)
    }

    /// Takes the next run of the cached span, or else of another one; the first slot of it is returned.
    #[cold]
    #[inline(never)]
    fn refill(
        &self,
        central: &Central,
        class: &'static Class,
        values: Values,
        tint: Tint,
        local: &LocalPages,
    ) -> Result<Addr, OutOfMemory> {
        let begun = Instant::now();
        let writer = central.writer(local);
        if local.count_late() > 0 {
            central.put_back_late_soon(local);
        }
        let mut from = self.cursor.get();
        loop {
            if let Some(span) = self.span.get() {
                // SAFETY: the cache owns the span, whose record lives as long as the heap.
                let span = unsafe { span.as_ref() };
                if let Some(mut run) = bits::next_free_run(span.info(), span.generation(), from) {
                    if central.switches().counts_slots() {
                        run.end = run.start + Bytes::new(span.info().slot);
                    }
                    let slot = self.begin(central, span, run, tint, writer);
                    central.stalls().record(Cause::Allocation, begun);
                    return Ok(slot);
                }
                self.give_back(central, tint, writer, |class, span, has_room| {
                    central.put_back_soon(class, span, has_room, local);
                });
            }
            let span = central.acquire(class, local)?;
            class.note_type(values.ty, values.is_slice, span.info().pages.bytes());
            from = span.info().base;
            self.class.set(Some(class));
            self.span.set(Some(span.into_raw()));
        }
    }

    /// Begins a run, the one before being used up, and allocates its first slot.
    fn begin(
        &self,
        central: &Central,
        span: &Span,
        run: Run,
        tint: Tint,
        writer: Writer<'_>,
    ) -> Addr {
        let info = span.info();
        for table in tables_of(span, tint).into_iter().flatten() {
            bits::set_run(info, table, run);
        }
        let bytes = run.end.bytes_since(run.start);
        central.count_taken(bytes);
        central.count_slot();
        if let Some(class) = info.size_class {
            let update = writer.update();
            update.ended_run(class, self.slots.get(), 0);
            self.slots.set(class.object_index(bytes));
            update.began_run(class, self.slots.get());
        }
        self.cursor.set(run.start + Bytes::new(info.slot));
        self.end.set(run.end);
        run.start
    }

    /// Gives the span back to its class, by `put`, and what is left of the run with it.
    fn give_back(
        &self,
        central: &Central,
        tint: Tint,
        writer: Writer<'_>,
        put: impl FnOnce(&'static Class, OwnedSpan, bool),
    ) {
        let (Some(span), Some(class)) = (self.span.take(), self.class.get()) else { return };
        // SAFETY: the cache owned the span and gives it up here.
        let span = unsafe { OwnedSpan::from_raw(span) };
        let (info, generation) = (span.info(), span.span().generation());
        let rest = Run { start: self.cursor.take(), end: self.end.take() };
        let slots = self.slots.take();
        if let Some(class) = info.size_class {
            let unused = match rest.start < rest.end {
                true => class.object_index(rest.end.bytes_since(rest.start)),
                false => 0,
            };
            writer.update().ended_run(class, slots - unused, unused);
        }
        if rest.start < rest.end {
            // The slots hold no object, so whatever marked them (their colour, or a cycle that retained
            // everything) is undone.
            bits::clear_run(info, generation.next().table(), rest);
            bits::clear_run(info, generation.table(), rest);
            central.count_returned(rest.end.bytes_since(rest.start));
        }
        let has_room = !tint.is_black(span.span())
            && bits::next_free_run(info, generation, info.base).is_some();
        put(class, span, has_room);
    }
}

/// The tables in which a run's slots have their bits.
fn tables_of(span: &Span, tint: Tint) -> [Option<Table>; 3] {
    let generation = span.generation();
    // Scanned before marked: a worker that sees the mark must see that there is nothing to scan.
    let (scanned, marked) = match tint.is_black(span) {
        true => (Some(Table::Scanned), Some(generation.next().table())),
        false => (None, None),
    };
    [Some(generation.table()), scanned, marked]
}

/// All span caches of a mutator. Zeroed memory is a valid value.
pub struct SpanCache {
    flat: [ClassCache; FLAT_SHAPES],
    noscan: [ClassCache; CLASS_COUNT],
    mapped: [Mapped; mapped::LINES],
    /// Blocks of caches by class number.
    blocks: Cell<Option<NonNull<Block>>>,
    tiny: Cell<Addr>,
    tiny_end: Cell<Addr>,
    /// Whether the owner is in the slow path of an allocation.
    inside: Cell<bool>,
    /// Whether types have classes of their own: a verification mode.
    types_apart: Cell<bool>,
    /// Objects put into slots that others had opened, and not counted yet.
    tiny_objects: Cell<u64>,
    /// Pages for new spans, records to describe them, and a place to count.
    pages: LocalPages,
    /// Chunks for arenas.
    chunks: ChunkPool,
    /// What the mutator owes to the cycle that marks.
    purse: Purse,
}

/// Objects below this size without pointers share 16-byte slots.
pub const TINY_BYTES: usize = 16;

impl SpanCache {
    /// Caches that hold nothing, in memory of their own.
    pub fn new() -> Box<SpanCache> {
        let layout = core::alloc::Layout::new::<SpanCache>();
        // SAFETY: the type has a size.
        let memory = unsafe { std::alloc::alloc_zeroed(layout) };
        if memory.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        // SAFETY: zeroed memory of the right layout from the global allocator. All fields are cells of
        // addresses, `Option`s of non-null pointers and small numbers, for which zero is valid.
        unsafe { Box::from_raw(memory.cast::<SpanCache>()) }
    }

    /// A slot for one value of `ty`, whatever that takes.
    ///
    /// The slot is uninitialised, counted as allocated and, if the tint is black, as marked.
    pub fn alloc(
        &self,
        central: &Central,
        ty: &'static TypeInfo,
        tint: Tint,
    ) -> Result<Addr, OutOfMemory> {
        if let Some(slot) = self.bump(ty) {
            return Ok(slot);
        }
        let place = match Place::of(ty) {
            Place::Tiny => return self.alloc_tiny(central, ty.size, tint),
            place => self.own_place(place),
        };
        match (place, ty.size_class) {
            (Some(cache), _) if !self.types_apart.get() => {
                self.run(cache, central, &ClassKey::of(ty), Values::one(ty), tint)
            }
            (_, Some(_)) => {
                let key = self.key(ClassKey::of(ty), ty);
                self.alloc_key(central, &key, Values::one(ty), tint)
            }
            (_, None) => {
                let size = Bytes::new(ty.size);
                let key = self.key(ClassKey::of(ty), ty);
                self.alloc_large(central, &key, Values::one(ty), size, tint).map(|(addr, _)| addr)
            }
        }
    }

    /// The first slot of the next run of `cache`, if the mutator does not have to help the collector first.
    #[cold]
    #[inline(never)]
    fn run(
        &self,
        cache: &ClassCache,
        central: &Central,
        key: &ClassKey,
        values: Values,
        tint: Tint,
    ) -> Result<Addr, OutOfMemory> {
        let _inside = Inside::begin(&self.inside);
        // Before the purse: who is paused goes for pages to mark, under a lock that a child may find held.
        central.assert_here();
        self.check_purse(central, tint)?;
        let slot = cache.next_run(central, key, values, tint, &self.pages)?;
        if tint.black {
            self.purse.charge(central.debt(), cache.end.get().bytes_since(slot));
        }
        Ok(slot)
    }

    /// A slot for `bytes` of values of `ty`, a slice, whatever that takes; and how many bytes it has.
    pub fn alloc_slice(
        &self,
        central: &Central,
        ty: &'static TypeInfo,
        bytes: Bytes,
        tint: Tint,
    ) -> Result<(Addr, Bytes), OutOfMemory> {
        if let Some(found) = self.bump_slice(ty, bytes) {
            return Ok(found);
        }
        let size_class = SizeClass::for_layout(bytes, ty.align);
        let key = self.key(ClassKey::of_slice(ty, size_class), ty);
        let Some(size_class) = size_class else {
            return self.alloc_large(central, &key, Values::slice(ty), bytes, tint);
        };
        if ty.shape == Shape::NoScan && ty.drop.is_none() {
            if fast::is_tiny(ty, bytes) {
                return Ok((self.alloc_tiny(central, bytes.get(), tint)?, bytes));
            }
            if !self.types_apart.get() {
                let cache = &self.noscan[size_class.index()];
                let addr = self.run(cache, central, &key, Values::slice(ty), tint)?;
                return Ok((addr, size_class.size()));
            }
        }
        Ok((self.alloc_key(central, &key, Values::slice(ty), tint)?, size_class.size()))
    }

    /// A slot of the class `key`, which is small, through the direct-mapped table.
    fn alloc_key(
        &self,
        central: &Central,
        key: &ClassKey,
        values: Values,
        tint: Tint,
    ) -> Result<Addr, OutOfMemory> {
        let size_class = key.size_class.expect("a small class");
        let cache = self.cache_of(central, key, values, size_class)?;
        match cache.bump(size_class.size().get()) {
            Some(addr) => Ok(addr),
            None => self.run(cache, central, key, values, tint),
        }
    }

    /// Room for a small object without pointers, of `size` bytes, in a new slot. The fast path has found none.
    fn alloc_tiny(&self, central: &Central, size: usize, tint: Tint) -> Result<Addr, OutOfMemory> {
        self.count_tiny(central);
        let slot = self.alloc(central, &TINY_BLOCK, tint)?;
        self.go_on_with_tiny(slot, size.max(1));
        Ok(slot)
    }

    /// Counts the objects that were put into slots of others.
    fn count_tiny(&self, central: &Central) {
        let objects = self.tiny_objects.take();
        if objects > 0 {
            central.writer(&self.pages).update().allocated_tiny(objects);
        }
    }

    /// A span for one large object, black if the tint says so, and in its class' list at once.
    /// Returns the object's place and how many bytes it has.
    fn alloc_large(
        &self,
        central: &Central,
        key: &ClassKey,
        values: Values,
        bytes: Bytes,
        tint: Tint,
    ) -> Result<(Addr, Bytes), OutOfMemory> {
        let _inside = Inside::begin(&self.inside);
        let ty = values.ty;
        let class = central.class(key, ty.name)?;
        self.check_purse(central, tint)?;
        let element = if key.counting == Counting::Trailer { ty.size } else { 0 };
        let span = central.acquire_large(class, bytes, element, ty.align, &self.pages)?;
        class.note_type(ty, values.is_slice, span.info().pages.bytes());
        let info: Info = *span.info();
        let whole = Run { start: info.base, end: info.limit() };
        for table in tables_of(span.span(), tint).into_iter().flatten() {
            bits::set_run(&info, table, whole);
        }
        let bytes = Bytes::new(info.slot);
        central.count_taken(bytes);
        central.count_slot();
        central.writer(&self.pages).update().allocated_large(bytes);
        if tint.black {
            self.purse.charge(central.debt(), bytes);
        }
        central.put_back_soon(class, span, false, &self.pages);
        Ok((info.base, bytes))
    }

    /// What the mutator has of the page heap.
    pub fn local_pages(&self) -> &LocalPages {
        &self.pages
    }
}

/// The description of a slot that tiny objects share.
static TINY_BLOCK: TypeInfo =
    TypeInfo::new(|| "tiny objects", TINY_BYTES, 8, Shape::NoScan, trace_nothing, None);

/// Reports nothing: the trace function of what has no pointers.
///
/// # Safety
/// None is needed; the type demands the word.
unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut crate::span::Tracer<'_>) {}

#[cfg(test)]
mod tests;
