//! [`SharedArena`]: values of the heap that are freed together, while others may still point to them.
//!
//! | file | what |
//! |---|---|
//! | `builder` | how an arena is made |
//! | `pointer` | [`ArenaGc`]: a pointer that is opened by asking whether its arena is still there |
//! | `place` | putting values into room that the core hands out |
//! | `writer` | [`ArenaWriter`]: the same without a lock |
//!
//! # What it is
//! Values in a shared arena are like objects of the heap in all but one respect. They are marked one by one, so a
//! dead one keeps nothing alive; they may hold pointers to objects and objects may hold pointers to them;
//! they change through the same cells and locks. But their memory is not swept: it goes when the arena is freed,
//! all at once, and whoever still has a pointer gets `None` for it from then on.
//!
//! # Free
//! Freeing sets a flag on each chunk of the arena, under its lock. What happens to the memory is the core's business:
//! when every closure that was open has been left once, and no marking reads it, its pages are made to fault, and their
//! memory goes to the next arena or back to the system. That is done by the collector's thread; or by who frees, if
//! a mebibyte or more waits for it and nobody is inside a closure, or else when he leaves his own. The addresses stay
//! taken until a complete cycle has found no pointer to them.
//!
//! # Whose life is longer
//! The handle owns the arena and holds no heap: a heap may be dropped before it, and then there is nothing left to
//! free. So handles may lie in objects of their own heap, which would never end otherwise: an object's destructor
//! frees the arena that it owns.
//!
//! An arena that was abandoned belongs to the collector. It goes after a complete cycle that began later and has
//! found no pointer to any of its values. No closure can have one then, by the argument of `spanheap_core::collect`
//! that everything which an open closure holds at the end of marking is marked.
//!
//! # Locking
//! One lock for each arena, in the core: for a new chunk, for a value that is allocated without a writer, and to
//! free. Opening a pointer takes none.
//!
//! # Safety
//! An arena hands out room as [`Place`] demands if the mutator is one of its own heap, which is compared each time.
#![allow(unsafe_code)]

mod builder;
mod place;
mod pointer;
mod writer;

pub use builder::SharedArenaBuilder;
pub use pointer::ArenaGc;
pub use writer::ArenaWriter;

use crate::heap::Heap;
use crate::mutator::Mutator;
use crate::trace::Trace;
use crate::zeroable::Zeroable;
use crate::{AlreadyFreed, SharedArenaError};
use core::fmt;
use core::ptr::NonNull;
use place::Place;
use spanheap_core::addr::Bytes;
use spanheap_core::mutator::UserArena;
use spanheap_core::span::layout::TypeInfo;
use writer::refused;

/// A part of the heap whose values are freed together: explicitly, or when the handle is dropped.
///
/// Made by [`Heap::shared_arena`]. Values are put in by any thread that has the handle, in closures of the heap, and
/// reached through [`ArenaGc`]s. These may be stored wherever a [`Gc`](crate::Gc) may, and outlive the arena:
///
/// ```
/// use spanheap::{ArenaGc, Gc, GcCell, Heap, Root, Rootable, Trace};
///
/// #[derive(Trace)]
/// struct Request<'gc> {
///     path: ArenaGc<'gc, str>,
///     session: Gc<'gc, Session<'gc>>, // an object of the heap: it is retained as long as the request is reached
/// }
///
/// #[derive(Trace)]
/// struct Session<'gc> {
///     last: GcCell<'gc, Option<ArenaGc<'gc, Request<'gc>>>>,
/// }
///
/// let heap = Heap::new();
/// let session: Root<Rootable![Session<'_>]> =
///     heap.enter(|mc| mc.root(mc.alloc(Session { last: GcCell::new(None) })));
///
/// let arena = heap.shared_arena();
/// heap.enter(|mc| {
///     let session = session.get(mc);
///     let request = arena.alloc(mc, Request { path: arena.alloc_str(mc, "/index"), session });
///     session.last.set(mc, Some(request));
/// });
/// let path = || {
///     heap.enter(|mc| {
///         let request = session.get(mc).last.get()?.get(mc)?;
///         Some(String::from(request.path.get(mc)?))
///     })
/// };
/// assert_eq!(path().as_deref(), Some("/index"));
/// arena.free();
/// assert_eq!(path(), None); // at once, and for ever
/// ```
///
/// # Values
/// What may be in the heap may be in an arena, if it needs no destructor: nobody looks at the values when the arena
/// is freed. The compiler refuses others:
///
/// ```compile_fail,E0080
/// # use spanheap::Heap;
/// let heap = Heap::new();
/// let arena = heap.shared_arena();
/// heap.enter(|mc| {
///     arena.alloc(mc, String::from("owns memory elsewhere")); // `alloc_str` copies it into the arena
/// });
/// ```
///
/// Pointers in them change as in objects, by [`GcCell`](crate::GcCell), [`GcOnce`](crate::GcOnce),
/// [`GcMutex`](crate::GcMutex) and [`GcRwLock`](crate::GcRwLock), around a [`GcVec`](crate::GcVec) or a
/// [`GcHashMap`](crate::GcHashMap), say, whose storage lies in the heap. A cycle retains what is reached through values
/// that are reached themselves: a dead value keeps nothing alive.
///
/// # Memory
/// An arena takes its memory when the first value is put in: a page of 8 KiB, and then chunks that double up to
/// 8 MiB. Values of more than a quarter of that have pages of their own, which are freed with the arena like the
/// others. It counts for the heap's limits and for the goal of its cycles. A value that has died keeps its
/// place until the arena is freed.
///
/// When the arena is freed, every [`ArenaGc::get`] returns `None` from that moment on, and references that it has
/// returned before stay good until their closures end. After that the memory is taken away, all of it, and goes
/// back to the system; by a thread of the heap's, nobody waits for it. The addresses are used again when a cycle
/// has found no pointer to them.
///
/// # Owners
/// The handle is the owner. Share it by reference or in an [`Arc`](std::sync::Arc); put it into an object, and the
/// arena is freed when that object has died. [`SharedArena::abandon`] leaves the arena to the collector, which frees
/// it when nothing leads to any of its values.
///
/// A handle that outlives its heap is harmless. There is no closure to use it in.
pub struct SharedArena {
    core: UserArena,
}

impl Heap {
    /// An arena without name and limit: see [`SharedArena`]. It takes memory when the first value is put in.
    ///
    /// # Panics
    /// As [`SharedArenaBuilder::build`].
    #[must_use = "an arena is freed when its handle is dropped"]
    pub fn shared_arena(&self) -> SharedArena {
        self.shared_arena_builder().build()
    }

    /// Settings for an arena: a name, a limit.
    pub fn shared_arena_builder(&self) -> SharedArenaBuilder<'_> {
        SharedArenaBuilder::new(self)
    }
}

/// An arena with the mutator of a closure of its heap: each value takes the arena's lock, to lease a chunk for the
/// moment, so that no lock is held while code of the user's makes the value.
struct Locked<'gc, 'a> {
    arena: &'a UserArena,
    mc: &'a Mutator<'gc>,
}

// SAFETY: the mutator is one of the arena's heap (`SharedArena::locked`), and the core hands out room for what it is
// told.
unsafe impl<'gc> Place<'gc> for Locked<'gc, '_> {
    #[inline]
    #[track_caller]
    fn room(
        &self,
        info: &'static TypeInfo,
        len: usize,
        zeroed: bool,
    ) -> Result<NonNull<u8>, SharedArenaError> {
        // SAFETY: a closure is open, or there would be no mutator; the writer is gone when this returns.
        let mut writer = unsafe { self.mc.core().arena_writer(self.arena) }?;
        // SAFETY: as above; what is described has no destructor.
        let room = unsafe { writer.alloc_slice(info, len) }?;
        if zeroed {
            // SAFETY: new room for as many values.
            unsafe { writer.clear(room, info.size * len) };
        }
        Ok(room)
    }
}

impl SharedArena {
    #[inline]
    #[track_caller]
    fn assert_heap(&self, mc: &Mutator<'_>) {
        let (own, other) = (self.core.heap_number(), mc.core().heap_number());
        assert!(
            own == other,
            "an arena of heap {own} was used in a closure of heap {other}: use it in its own"
        );
    }

    #[inline]
    #[track_caller]
    fn locked<'gc, 'a>(&'a self, mc: &'a Mutator<'gc>) -> Locked<'gc, 'a> {
        self.assert_heap(mc);
        Locked { arena: &self.core, mc }
    }

    /// A writer, which fills the arena without its lock: the way for more than a few values.
    ///
    /// # Panics
    /// When the arena has been freed, and when the closure belongs to another heap.
    #[track_caller]
    pub fn writer<'gc, 'a>(&'a self, mc: &'a Mutator<'gc>) -> ArenaWriter<'gc, 'a> {
        match self.try_writer(mc) {
            Ok(writer) => writer,
            Err(error) => refused(error),
        }
    }

    /// A writer, unless the arena has been freed.
    ///
    /// # Errors
    /// [`SharedArenaError::Freed`].
    ///
    /// # Panics
    /// When the closure belongs to another heap.
    #[track_caller]
    pub fn try_writer<'gc, 'a>(
        &'a self,
        mc: &'a Mutator<'gc>,
    ) -> Result<ArenaWriter<'gc, 'a>, SharedArenaError> {
        self.assert_heap(mc);
        ArenaWriter::new(self, mc)
    }

    /// Moves `value` into the arena.
    ///
    /// # Panics
    /// When there is no room or the arena has been freed: see [`SharedArena::try_alloc`]. When the closure belongs to
    /// another heap.
    #[track_caller]
    pub fn alloc<'gc, T: Trace + Send + Sync + 'gc>(
        &self,
        mc: &Mutator<'gc>,
        value: T,
    ) -> ArenaGc<'gc, T> {
        match self.try_alloc(mc, value) {
            Ok(value) => value,
            Err(error) => refused(error),
        }
    }

    /// Moves `value` into the arena, if there is room.
    ///
    /// # Errors
    /// [`SharedArenaError::Freed`] when the arena has been freed; [`SharedArenaError::LimitReached`] when it has a
    /// limit, which does not allow more; [`SharedArenaError::OutOfMemory`] when the hard limit of the heap or the
    /// system does not, or the size overflows. Nothing has changed then.
    ///
    /// # Panics
    /// When the closure belongs to another heap.
    #[track_caller]
    pub fn try_alloc<'gc, T: Trace + Send + Sync + 'gc>(
        &self,
        mc: &Mutator<'gc>,
        value: T,
    ) -> Result<ArenaGc<'gc, T>, SharedArenaError> {
        place::alloc(&self.locked(mc), value)
    }

    /// Makes a value in the arena: see [`ArenaWriter::alloc_with`].
    ///
    /// # Panics
    /// As [`SharedArena::alloc`].
    #[track_caller]
    pub fn alloc_with<'gc, T: Trace + Send + Sync + 'gc>(
        &self,
        mc: &Mutator<'gc>,
        make: impl FnOnce() -> T,
    ) -> ArenaGc<'gc, T> {
        match self.try_alloc_with(mc, make) {
            Ok(value) => value,
            Err(error) => refused(error),
        }
    }

    /// Makes a value in the arena, if there is room: see [`ArenaWriter::alloc_with`].
    ///
    /// # Errors
    /// As [`SharedArena::try_alloc`]; `make` has not been called then.
    ///
    /// # Panics
    /// When the closure belongs to another heap.
    #[track_caller]
    pub fn try_alloc_with<'gc, T: Trace + Send + Sync + 'gc>(
        &self,
        mc: &Mutator<'gc>,
        make: impl FnOnce() -> T,
    ) -> Result<ArenaGc<'gc, T>, SharedArenaError> {
        place::alloc_with(&self.locked(mc), make)
    }

    /// Copies a string into the arena.
    ///
    /// # Panics
    /// As [`SharedArena::alloc`].
    #[track_caller]
    pub fn alloc_str<'gc>(&self, mc: &Mutator<'gc>, text: &str) -> ArenaGc<'gc, str> {
        match self.try_alloc_str(mc, text) {
            Ok(text) => text,
            Err(error) => refused(error),
        }
    }

    /// Copies a string into the arena, if there is room.
    ///
    /// # Errors
    /// As [`SharedArena::try_alloc`].
    ///
    /// # Panics
    /// When the closure belongs to another heap.
    #[track_caller]
    pub fn try_alloc_str<'gc>(
        &self,
        mc: &Mutator<'gc>,
        text: &str,
    ) -> Result<ArenaGc<'gc, str>, SharedArenaError> {
        place::alloc_str(&self.locked(mc), text)
    }

    /// Copies a slice into the arena.
    ///
    /// # Panics
    /// As [`SharedArena::alloc`].
    #[track_caller]
    pub fn alloc_copy<'gc, T: Trace + Copy + Send + Sync + 'gc>(
        &self,
        mc: &Mutator<'gc>,
        values: &[T],
    ) -> ArenaGc<'gc, [T]> {
        match self.try_alloc_copy(mc, values) {
            Ok(values) => values,
            Err(error) => refused(error),
        }
    }

    /// Copies a slice into the arena, if there is room.
    ///
    /// # Errors
    /// As [`SharedArena::try_alloc`].
    ///
    /// # Panics
    /// When the closure belongs to another heap.
    #[track_caller]
    pub fn try_alloc_copy<'gc, T: Trace + Copy + Send + Sync + 'gc>(
        &self,
        mc: &Mutator<'gc>,
        values: &[T],
    ) -> Result<ArenaGc<'gc, [T]>, SharedArenaError> {
        place::alloc_copy(&self.locked(mc), values)
    }

    /// Moves the values of an iterator into the arena, as a slice.
    ///
    /// # Panics
    /// As [`SharedArena::alloc`], and when the iterator gives another number of values than its length.
    #[track_caller]
    pub fn alloc_slice<'gc, T, I>(&self, mc: &Mutator<'gc>, values: I) -> ArenaGc<'gc, [T]>
    where
        T: Trace + Send + Sync + 'gc,
        I: IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    {
        match self.try_alloc_slice(mc, values) {
            Ok(values) => values,
            Err(error) => refused(error),
        }
    }

    /// Moves the values of an iterator into the arena, as a slice, if there is room.
    ///
    /// # Errors
    /// As [`SharedArena::try_alloc`]; no value has been taken from the iterator then.
    ///
    /// # Panics
    /// When the iterator gives another number of values than its length. A panic of the iterator is passed on. When
    /// the closure belongs to another heap.
    #[track_caller]
    pub fn try_alloc_slice<'gc, T, I>(
        &self,
        mc: &Mutator<'gc>,
        values: I,
    ) -> Result<ArenaGc<'gc, [T]>, SharedArenaError>
    where
        T: Trace + Send + Sync + 'gc,
        I: IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    {
        place::alloc_slice(&self.locked(mc), values.into_iter())
    }

    /// A slice of `len` zeros, or empty cells, in the arena.
    ///
    /// # Panics
    /// As [`SharedArena::alloc`].
    #[track_caller]
    pub fn alloc_zeroed<'gc, T: Trace + Zeroable + Send + Sync + 'gc>(
        &self,
        mc: &Mutator<'gc>,
        len: usize,
    ) -> ArenaGc<'gc, [T]> {
        match self.try_alloc_zeroed(mc, len) {
            Ok(values) => values,
            Err(error) => refused(error),
        }
    }

    /// A slice of `len` zeros, or empty cells, in the arena, if there is room.
    ///
    /// # Errors
    /// As [`SharedArena::try_alloc`].
    ///
    /// # Panics
    /// When the closure belongs to another heap.
    #[track_caller]
    pub fn try_alloc_zeroed<'gc, T: Trace + Zeroable + Send + Sync + 'gc>(
        &self,
        mc: &Mutator<'gc>,
        len: usize,
    ) -> Result<ArenaGc<'gc, [T]>, SharedArenaError> {
        place::alloc_zeroed(&self.locked(mc), len)
    }

    /// Frees the arena: from here on every [`ArenaGc::get`] of its values returns `None`. References that were
    /// returned before stay good until their closures end. It may be called anywhere, in closures and outside, and
    /// waits for nobody.
    ///
    /// Where that can be done at once it sees to the memory of some mebibytes, which takes some tens of microseconds;
    /// in a closure, the end of the closure does. Of more, and while a cycle runs or others are inside closures, the
    /// collector's thread does.
    ///
    /// # Panics
    /// When the arena has been freed before, or its heap has been dropped. Of several threads that free it one
    /// succeeds. In a process that was forked from the heap's.
    #[track_caller]
    pub fn free(&self) {
        if self.try_free().is_err() {
            panic!("arena double free: {self:?} has been freed before");
        }
    }

    /// Frees the arena, unless that has been done.
    ///
    /// # Errors
    /// [`AlreadyFreed`] when the arena has been freed before, or its heap has been dropped.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    #[track_caller]
    pub fn try_free(&self) -> Result<(), AlreadyFreed> {
        self.core.free()
    }

    /// Whether the arena has been freed, or has gone with its heap.
    #[must_use]
    pub fn is_freed(&self) -> bool {
        self.core.is_freed()
    }

    /// Leaves the arena to the collector: it is freed when a cycle has found no pointer to any of its values, and
    /// nothing more can be put in.
    ///
    /// ```
    /// use spanheap::{ArenaGc, Heap, Root, Rootable};
    ///
    /// let heap = Heap::new();
    /// let arena = heap.shared_arena();
    /// let kept: Root<Rootable![ArenaGc<'_, u64>]> =
    ///     heap.enter(|mc| mc.root(mc.alloc(arena.alloc(mc, 7))));
    /// arena.abandon();
    /// let _ = heap.collect();
    /// assert_eq!(heap.enter(|mc| kept.get(mc).get(mc).copied()), Some(7));
    /// drop(kept);
    /// let _ = heap.collect(); // nothing leads there any more
    /// ```
    pub fn abandon(self) {
        self.core.abandon();
    }

    /// Bytes of the values that have been put in, with their headers and what alignment costs. 0 when the arena has
    /// been freed.
    #[must_use]
    pub fn used(&self) -> usize {
        self.core.used().get()
    }

    /// Bytes of the pages that the arena has. 0 when it has been freed.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.core.reserved().get()
    }

    /// The most bytes of pages that it may have, if there is a limit.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        self.core.limit().map(Bytes::get)
    }

    /// Its number in the heap, from 1 on.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.core.number()
    }

    /// The name that it was given; empty if none was.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }
}

impl fmt::Debug for SharedArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, heap) = (self.core.number(), self.core.heap_number());
        match self.name() {
            "" => write!(f, "SharedArena({number} of heap {heap})"),
            name => write!(f, "SharedArena({number} {name:?} of heap {heap})"),
        }
    }
}
