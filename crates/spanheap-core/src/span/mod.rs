//! Spans: runs of pages that hold objects of one class, or memory that somebody manages by hand.
//!
//! A span record says where the pages are, how they are cut into slots, where the pointers of a slot lie
//! and whether values have to be dropped. Nothing of that lies inside the span's own memory. What
//! changes during a span's life is in side tables ([`arena`]) and in a few atomics here.
//!
//! ```text
//!   free pages --init--> in use --(swept empty)--> free pages
//!   in use: exactly one owner at a time:
//!      a list of its class (partial | full | unswept) . a mutator's cache . the sweeper . the drop queue
//!
//!   free pages --init_manual--> manual, owned by whoever asked for it --> free pages
//!   free pages --init_arena--> open --> freed --> quarantined --> free pages: a chunk of a user arena
//! ```
//!
//! **Ownership is a value**: whoever holds an [`OwnedSpan`] may allocate from the span, sweep it or free
//! it. A list takes the value in and gives it out again under its lock. So nothing has to be claimed
//! with a state machine on the span itself, and "swept twice" cannot be written down.
//!
//! | module | what |
//! |---|---|
//! | [`size_class`] | which slot size an object gets |
//! | [`layout`] | where an object's pointers are, and what happens when it dies |
//! | [`tracer`] | what a trace function reports to |
//! | [`alone`] | what code of the user's may not do while it is called by the collector |
//! | [`ephemeron`] | objects that hold a value for as long as a key lives |
//! | [`arena`], [`map`] | arenas with their side tables; from any address to its arena |
//! | [`chunk`] | chunks of user arenas: values of many types, freed together |
//! | [`bits`] | a span's bits in the side tables: marks, free runs |
//! | [`list`], [`set`], [`shards`] | lists that own spans; spans of a class, swept or not; all of a class |
//! | [`lookup`] | from any number to the object around it |
//! | [`sites`] | where user arenas were freed and their values allocated, told at a fault |
//! | [`specials`] | records that hang on single objects of a span |
//!
//! # Invariants
//! - P1. The description ([`Span::info`]) is written only by the owner and before the span is published in
//!   the page map, and is constant until the span's pages are freed; but that of a chunk of a user arena is written once
//!   more when its memory goes, between two cycles, when nobody else looks at more than the plate.
//! - P2. Bits of the span in the side tables stand at slot starts only. (For chunks of user arenas: C3 in [`chunk`].)
//! - P3. Records are recycled, and their memory is returned only after a grace period in which nobody could
//!   get a pointer to them, and at the end of which nobody has one (R1 to R3 in the page heap's `records`).
//!   So a stale pointer that was read from the page map in a closure, or under the page heap's lock, or by
//!   the collector's thread, is a pointer to some span record until the closure is left, the lock is
//!   released, the cycle is over.
//! - P4. A record is zeroed memory or has been written by [`Span::init`]. What others than the owner read at
//!   any time ([`lookup`], [`set`]) is atomic, and is never written otherwise. Everything else is read by the
//!   owner, or under the lock of the set that owns the span.
//!
//! # Safety
//! Raw access to span memory and to the description cell. Blocks cite the invariants above and those
//! of [`arena`] (A1..A4).
#![allow(unsafe_code)]

pub mod alone;
pub(crate) mod arena;
pub(crate) mod bits;
pub(crate) mod chunk;
pub mod ephemeron;
pub mod layout;
mod list;
pub mod lookup;
pub(crate) mod map;
pub(crate) mod set;
pub(crate) mod shards;
pub mod sites;
pub mod size_class;
pub mod specials;
pub mod tracer;

pub use arena::Generation;
pub(crate) use arena::{HeapArena, Line, Table};
pub(crate) use chunk::Chunk;
pub use ephemeron::EphemeronCell;
pub use layout::{Counting, DropFn, InvalidType, Layout, Shape, TypeInfo};
pub(crate) use set::{Backlog, Busy, Room, SpanSet, Taken};
pub(crate) use shards::SpanShards;
pub use tracer::{EdgeSink, Reader, TraceFn, Tracer};

use crate::addr::{Addr, AddrRange, Bytes, GRANULE_BYTES, PageCount, WORD_BYTES};
use crate::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use crate::sync::{Guard, Lock, Rank};
use core::cell::{Cell, UnsafeCell};
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use lookup::Plate;
use size_class::SizeClass;
use specials::SpecialList;

/// What a span is and how it is cut into slots. Constant while the span is in use (P1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Info {
    /// The first address.
    pub base: Addr,
    /// Length in pages.
    pub pages: PageCount,
    /// Bytes of a slot.
    pub slot: usize,
    /// Slots in the span.
    pub slots: usize,
    /// Bytes from one value to the next, in a large object that holds a slice; 0 in all other spans.
    pub element: usize,
    /// The class of sizes; `None` for a large object, which has the span for itself.
    pub size_class: Option<SizeClass>,
    /// The number of the span's class in its heap.
    pub class: u32,
    /// Where the pointers of an object lie.
    pub layout: Layout,
    /// Whether objects say how many values they hold.
    pub counting: Counting,
    /// What to do with a dead value.
    pub drop: Option<DropFn>,
    /// The name of a type whose objects live here (types of equal layout share spans).
    pub type_name: fn() -> &'static str,
    /// The type, if all objects are of one: in verification modes.
    pub ty: Option<&'static TypeInfo>,
}

impl Info {
    /// The description of a manual span: one slot that nobody allocates.
    pub(crate) fn manual(base: Addr, pages: PageCount) -> Info {
        Info {
            base,
            pages,
            slot: pages.bytes().get(),
            slots: 0,
            element: 0,
            size_class: None,
            class: u32::MAX,
            layout: Layout::NoScan,
            counting: Counting::One,
            drop: None,
            type_name: || "manual",
            ty: None,
        }
    }

    /// The description of a chunk of a user arena. As far as objects are concerned it has none: they are
    /// found by their headers.
    pub(crate) fn chunk(base: Addr, pages: PageCount) -> Info {
        let type_name = || "values of a user arena";
        Info { slot: 0, type_name, ..Info::manual(base, pages) }
    }

    /// The description of a chunk for the values of one type that lie one behind the other, `count` of them:
    /// that of a large object.
    pub(crate) fn chunk_beside(
        base: Addr,
        pages: PageCount,
        ty: &'static TypeInfo,
        count: usize,
    ) -> Info {
        let is_slice = count != 1;
        Info {
            slots: 1,
            element: if is_slice { ty.size } else { 0 },
            layout: if is_slice { ty.slice_layout() } else { ty.layout() },
            counting: if is_slice { ty.slice_counting() } else { Counting::One },
            type_name: ty.name,
            ..Info::manual(base, pages)
        }
    }

    /// What is known of the type of an object in the span, for a report.
    pub fn describe_type(&self) -> String {
        match self.ty {
            Some(ty) => (ty.name)().to_owned(),
            None => format!("{} or a type of the same layout", (self.type_name)()),
        }
    }

    /// The first address behind the last slot.
    #[inline]
    pub fn limit(&self) -> Addr {
        self.base + Bytes::new(self.slot * self.slots)
    }

    /// The addresses of the span's pages.
    pub fn range(&self) -> AddrRange {
        AddrRange::at(self.base, self.pages.bytes())
    }

    /// The start of the object whose first granule begins at `granule`. In a span of 24-byte slots a
    /// start lies in the middle of every second granule; everywhere else it is the granule's.
    #[inline]
    pub fn object_at(&self, granule: Addr) -> Addr {
        if self.slot % GRANULE_BYTES == 0 {
            return granule;
        }
        let offset = granule.get() - self.base.get();
        Addr::new(self.base.get() + offset.div_ceil(self.slot) * self.slot)
    }

    /// How many values the object at `object` holds.
    ///
    /// # Safety
    /// An initialised object of this span begins at `object`.
    pub unsafe fn count(&self, object: Addr) -> usize {
        match self.counting {
            Counting::One => 1,
            Counting::Trailer => {
                let trailer = object + Bytes::new(self.slot - WORD_BYTES);
                // SAFETY: the last word of the slot is inside the span and was written when the object
                // was made, before it was published.
                unsafe { trailer.as_ptr::<usize>().read() }
            }
        }
    }
}

/// What the pages of a span record are used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// The record describes nothing.
    Dead = 0,
    /// The span holds objects.
    InUse = 1,
    /// The span holds memory that the collector leaves alone.
    Manual = 2,
    /// The span is a chunk of a user arena.
    Arena = 3,
    /// The same, and the arena has been freed. Its memory is there as long as somebody may use it.
    Freed = 4,
    /// The same, and its memory is gone. Its addresses are kept until nobody points to them.
    Quarantined = 5,
    /// The same, but the memory is still there, and nobody can use it.
    Shut = 6,
}

/// A span record.
pub(crate) struct Span {
    /// Initialised while the record describes a span.
    info: UnsafeCell<MaybeUninit<Info>>,
    /// What lookups read of it.
    plate: Plate,
    state: AtomicU8,
    generation: AtomicU32,
    /// Of a span of objects: below this address free slots may hold what somebody wrote; above it they are zero.
    /// Of a chunk of a user arena: the address of its record.
    dirty_to: AtomicUsize,
    /// The set that owns the span, or null. Written under the lock of that set.
    home: AtomicPtr<SpanSet>,
    /// The next and the previous span of the list that owns this one; only touched by the owner.
    next: Cell<Option<NonNull<Span>>>,
    previous: Cell<Option<NonNull<Span>>>,
    /// The next span of the drop queue; protected by the drop queue's lock.
    pub(crate) next_drop: Cell<Option<NonNull<Span>>>,
    /// Since when it has been in that queue, by the monotonic clock; protected by the same lock.
    pub(crate) queued_at: Cell<u64>,
    /// Whether the span is in the drop queue or the drop thread is at work on it (D2 in [`crate::heap`]'s
    /// drop queue); protected by the drop queue's lock.
    pub(crate) in_drop_queue: AtomicBool,
    /// Whether the drop queue owns the span, which holds nothing but dead values.
    pub(crate) owned_by_drop_queue: AtomicBool,
    /// Records that hang on objects of the span.
    specials: Lock<SpecialList>,
    /// Whether there are any; changed under the lock above.
    has_specials: AtomicBool,
}

// SAFETY: the cells are written by the one owner of the span (P1) or under the lock that the field names,
// and the span changes hands only through locks.
unsafe impl Sync for Span {}

impl Span {
    /// Puts a fresh description into a record and makes it a span in use, the memory of which may be dirty
    /// below `dirty_to`.
    ///
    /// Whoever still has a pointer to the span that the record described before may read the record
    /// meanwhile; so what such a reader looks at is stored atomically (P4).
    ///
    /// # Safety
    /// `at` is a record of the span pool that describes nothing, zeroed or a former span (P4); the caller
    /// owns it alone. It stays a record (P3) for as long as the right to it, or a list that has taken that
    /// in, is used.
    pub unsafe fn init(
        at: NonNull<Span>,
        info: Info,
        generation: Generation,
        dirty_to: Addr,
    ) -> OwnedSpan {
        // SAFETY: the same contract.
        unsafe { Span::init_as(at, info, State::InUse, generation, dirty_to) }
    }

    /// The same for a manual span.
    ///
    /// # Safety
    /// As [`Span::init`].
    pub(crate) unsafe fn init_manual(at: NonNull<Span>, info: Info) -> OwnedSpan {
        // SAFETY: the same contract.
        unsafe { Span::init_as(at, info, State::Manual, Generation::FIRST, info.range().end()) }
    }

    /// The same for a chunk of a user arena.
    ///
    /// # Safety
    /// As [`Span::init`].
    pub(crate) unsafe fn init_arena(
        at: NonNull<Span>,
        info: Info,
        chunk: &'static Chunk,
    ) -> OwnedSpan {
        let chunk = Addr::of(ptr::from_ref(chunk));
        // SAFETY: the same contract.
        unsafe { Span::init_as(at, info, State::Arena, Generation::FIRST, chunk) }
    }

    /// # Safety
    /// As [`Span::init`].
    unsafe fn init_as(
        at: NonNull<Span>,
        info: Info,
        state: State,
        generation: Generation,
        dirty_to: Addr,
    ) -> OwnedSpan {
        // SAFETY: P4: zeros are a valid value of every field, and so is what a former span has left. Lookups
        // with an old pointer to the record share it, and touch nothing but atomics.
        if unsafe { at.as_ref() }.plate.is_new() {
            // SAFETY: a field of the record.
            let specials = unsafe { &raw mut (*at.as_ptr()).specials };
            // SAFETY: nobody has ever known of the record, so nobody uses the lock.
            unsafe { specials.write(Lock::new(Rank::Specials, SpecialList::new())) };
        }
        // SAFETY: as above.
        let span = unsafe { at.as_ref() };
        debug_assert!(!span.has_specials());
        let change = span.plate.begin_change();
        // SAFETY: P1: the caller owns the record, and nobody can reach the description before the span is
        // published.
        unsafe { span.info.get().write(MaybeUninit::new(info)) };
        span.plate.write(&info);
        span.next.set(None);
        span.previous.set(None);
        span.next_drop.set(None);
        span.queued_at.set(0);
        span.in_drop_queue.store(false, Ordering::Relaxed);
        span.owned_by_drop_queue.store(false, Ordering::Relaxed);
        span.dirty_to.store(dirty_to.get(), Ordering::Relaxed);
        span.home.store(ptr::null_mut(), Ordering::Relaxed);
        // The generation of a former span is overwritten only here, by its new owner.
        span.generation.store(generation.get(), Ordering::Release);
        span.state.store(state as u8, Ordering::Release);
        span.plate.end_change(change);
        OwnedSpan { span: at }
    }

    /// The description.
    #[inline]
    pub fn info(&self) -> &Info {
        // SAFETY: P1: nobody writes the description while anybody can reach the span.
        let info = unsafe { &*self.info.get() };
        // SAFETY: a span that can be reached is described.
        unsafe { info.assume_init_ref() }
    }

    /// Whether records hang on objects of the span. When others may add some, the answer is out of date at
    /// once.
    #[inline]
    pub fn has_specials(&self) -> bool {
        self.has_specials.load(Ordering::Acquire)
    }

    /// The records that hang on objects of the span. Whoever has added the first one or removed the last
    /// one says so with [`Span::set_has_specials`] before the lock is released.
    pub(crate) fn specials(&self) -> Guard<'_, SpecialList> {
        self.specials.lock()
    }

    /// Keeps what is known of the span's records in step with them; their lock is held. The bit of the
    /// span's first page says the same to those who look for such spans.
    pub(crate) fn set_has_specials(&self, any: bool) {
        if self.has_specials() == any {
            return;
        }
        self.has_specials.store(any, Ordering::Release);
        let base = self.info().base;
        // SAFETY: a span in use lies in published arenas, whose records live (M1, M2).
        let arena = unsafe { &*map::find(base) };
        arena.set_special(base.page_in_arena(), any);
    }

    /// The address below which free slots may hold what somebody wrote. For whoever allocates from the span.
    pub fn dirty_to(&self) -> Addr {
        Addr::new(self.dirty_to.load(Ordering::Relaxed))
    }

    /// Whether the record describes nothing.
    #[inline]
    fn is_dead(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Dead as u8
    }

    /// Whether the record describes a span in use.
    #[inline]
    pub fn is_in_use(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::InUse as u8
    }

    /// Whether the record describes a manual span.
    #[inline]
    pub fn is_manual(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Manual as u8
    }

    /// Whether the record describes a chunk of a user arena that has not been freed. Acquire: who sees that it has
    /// been, sees what was done before.
    #[inline(always)]
    pub fn is_open_arena(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Arena as u8
    }

    /// Whether the record describes a chunk of a user arena, in whatever state.
    #[inline]
    pub fn is_arena(&self) -> bool {
        self.state.load(Ordering::Acquire) >= State::Arena as u8
    }

    /// Whether the record describes a chunk the memory of which is gone, or cannot be used any more.
    #[inline]
    pub fn is_quarantined(&self) -> bool {
        self.state.load(Ordering::Acquire) >= State::Quarantined as u8
    }

    /// Whether the record describes a chunk in quarantine that has its memory.
    #[inline]
    pub fn is_shut(&self) -> bool {
        self.state.load(Ordering::Acquire) == State::Shut as u8
    }

    /// The memory of a chunk that is in quarantine already stays, or goes after all. By the undertaker.
    pub(crate) fn set_shut(&self, shut: bool) {
        debug_assert!(self.is_quarantined());
        let state = if shut { State::Shut } else { State::Quarantined };
        self.state.store(state as u8, Ordering::Release);
    }

    /// The chunk of a user arena that the record describes, if it does. For whoever knows that the record stays what
    /// it is meanwhile.
    #[inline]
    pub fn chunk(&self) -> Option<&'static Chunk> {
        // SAFETY: `init_arena` has stored the address of a record before the state (acquire), and chunk records
        // are never anything else (C4).
        self.is_arena().then(|| unsafe { &*self.chunk_address().as_ptr::<Chunk>() })
    }

    /// The address of the record of the chunk that the span is; if it is none, any number.
    fn chunk_address(&self) -> Addr {
        Addr::new(self.dirty_to.load(Ordering::Relaxed))
    }

    /// The arena of the chunk has been freed.
    pub(crate) fn set_freed(&self) {
        debug_assert!(self.is_open_arena());
        self.state.store(State::Freed as u8, Ordering::Release);
    }

    /// The memory of the chunk is about to go. From here on it has no objects, whatever it was.
    ///
    /// # Safety
    /// Nobody reads the description meanwhile, or has kept a reference to it: this is the undertaker, and no cycle
    /// marks.
    pub(crate) unsafe fn set_quarantined(&self) {
        debug_assert!(self.state.load(Ordering::Relaxed) == State::Freed as u8);
        let info = *self.info();
        let change = self.plate.begin_change();
        let info = Info::chunk(info.base, info.pages);
        // SAFETY: the caller's promise; lookups read the plate.
        unsafe { self.info.get().write(MaybeUninit::new(info)) };
        self.plate.write(&info);
        self.state.store(State::Quarantined as u8, Ordering::Release);
        self.plate.end_change(change);
    }

    /// The cycle that this span was last swept for.
    #[inline]
    pub fn generation(&self) -> Generation {
        Generation::new(self.generation.load(Ordering::Acquire))
    }
}

/// The sole right to allocate from a span, to sweep it and to free it.
#[derive(Debug)]
#[must_use = "a span that nobody owns is lost until its heap is dropped"]
pub(crate) struct OwnedSpan {
    span: NonNull<Span>,
}

// SAFETY: ownership may move between threads; the record is reached through locks and atomics.
unsafe impl Send for OwnedSpan {}

impl OwnedSpan {
    /// The record.
    #[inline]
    pub fn span(&self) -> &Span {
        // SAFETY: P3: a record stays one while its span has an owner, and the owner is attached to the heap.
        unsafe { self.span.as_ref() }
    }

    /// The description.
    #[inline]
    pub fn info(&self) -> &Info {
        self.span().info()
    }

    /// Says which cycle the span has been swept for.
    pub fn set_generation(&mut self, generation: Generation) {
        self.span().generation.store(generation.get(), Ordering::Release);
    }

    /// Says that slots have been freed, so none is zero for certain any more.
    pub fn set_dirty(&mut self) {
        let end = self.info().range().end();
        self.span().dirty_to.store(end.get(), Ordering::Relaxed);
    }

    /// Marks the record as describing nothing, and gives it up for recycling. The generation stays.
    ///
    /// # Panics
    /// When a record still hangs on an object of the span: it would be lost, and found on another object.
    pub fn retire(self) -> NonNull<Span> {
        assert!(!self.span().has_specials(), "a span is retired with records of its objects");
        self.span().state.store(State::Dead as u8, Ordering::Release);
        self.span
    }

    /// Turns the right into a bare pointer, to be kept where a value cannot be: whoever keeps it owns
    /// the span.
    pub fn into_raw(self) -> NonNull<Span> {
        self.span
    }

    /// Takes back what [`OwnedSpan::into_raw`] gave up.
    ///
    /// # Safety
    /// `span` came from `into_raw`, and nobody else makes an `OwnedSpan` of it. Otherwise as
    /// [`Span::init`].
    pub unsafe fn from_raw(span: NonNull<Span>) -> OwnedSpan {
        OwnedSpan { span }
    }
}

#[cfg(test)]
mod tests;
