//! [`ArenaWriter`]: filling a shared arena without its lock.
//!
//! A writer has a chunk of its arena to itself, so a value is a comparison, an addition and the stores of its
//! header and its bytes. When the chunk is full it gets another one, under the arena's lock, and when it goes away
//! the next one goes on where it was.
//!
//! # Safety
//! - I1. The core's writer gives out room as [`Place`] demands: it was made for an arena of the closure's heap.
//! - I2. It is used by one call at a time. It stays on its thread, and while a call of its own runs, no code runs
//!   that could have the writer: of the user's there are trace functions only, when the allocation has to mark for a
//!   while, and what they can reach lies in the heap or is `'static`.
#![allow(unsafe_code)]

use super::SharedArena;
use super::place::{self, Place};
use super::pointer::ArenaGc;
use crate::SharedArenaError;
use crate::mutator::Mutator;
use crate::trace::Trace;
use crate::zeroable::Zeroable;
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;
use spanheap_core::mutator::ArenaWriter as CoreWriter;
use spanheap_core::span::layout::TypeInfo;

/// Fills a [`SharedArena`] from one closure, faster than the arena's own methods: made by
/// [`SharedArena::writer`].
///
/// It stays in its closure and on its thread, and several can be open at once, on several threads or on one. Its
/// methods are those of the arena without the mutator. It takes them by shared reference, so what fills a
/// slice may put values into the same arena meanwhile:
///
/// ```
/// use spanheap::{ArenaGc, ArenaWriter, Heap, Mutator, Trace};
///
/// #[derive(Trace)]
/// struct Tree<'gc> {
///     size: usize,
///     children: ArenaGc<'gc, [ArenaGc<'gc, Tree<'gc>>]>,
/// }
///
/// fn tree<'gc>(to: &ArenaWriter<'gc, '_>, depth: usize) -> ArenaGc<'gc, Tree<'gc>> {
///     let children = to.alloc_slice((0..depth).map(|depth| tree(to, depth)));
///     to.alloc(Tree { size: 1 << depth, children })
/// }
///
/// fn count<'gc>(mc: &Mutator<'gc>, tree: ArenaGc<'gc, Tree<'gc>>) -> usize {
///     let children = tree.get(mc).and_then(|tree| tree.children.get(mc)).unwrap_or_default();
///     1 + children.iter().map(|child| count(mc, *child)).sum::<usize>()
/// }
///
/// let heap = Heap::new();
/// let arena = heap.shared_arena();
/// heap.enter(|mc| {
///     let tree = tree(&arena.writer(mc), 6);
///     assert_eq!(tree.get(mc).map(|tree| tree.size), Some(64));
///     assert_eq!(count(mc, tree), 64);
/// });
/// ```
///
/// It cannot be sent away:
///
/// ```compile_fail,E0277
/// # use spanheap::Heap;
/// # let heap = Heap::new();
/// # let arena = heap.shared_arena();
/// heap.enter(|mc| {
///     let to = arena.writer(mc);
///     std::thread::scope(|scope| scope.spawn(|| drop(to.alloc(1)))); // another one makes its own
/// });
/// ```
///
/// If somebody frees the arena meanwhile, the writer goes on until its chunk is full: what it returns is freed from
/// the beginning. Then it fails, as the arena's methods do.
pub struct ArenaWriter<'gc, 'a> {
    mc: &'a Mutator<'gc>,
    core: UnsafeCell<CoreWriter<'a>>,
}

// SAFETY: I1.
unsafe impl<'gc> Place<'gc> for ArenaWriter<'gc, '_> {
    #[inline(always)]
    #[track_caller]
    fn room(
        &self,
        info: &'static TypeInfo,
        len: usize,
        zeroed: bool,
    ) -> Result<NonNull<u8>, SharedArenaError> {
        // SAFETY: I2.
        let core = unsafe { &mut *self.core.get() };
        // SAFETY: a closure is open, or there would be no mutator; what is described has no destructor.
        let room = unsafe { core.alloc_slice(info, len) }?;
        if zeroed {
            // SAFETY: new room for as many values.
            unsafe { core.clear(room, info.size * len) };
        }
        Ok(room)
    }
}

impl<'gc, 'a> ArenaWriter<'gc, 'a> {
    pub(super) fn new(
        arena: &'a SharedArena,
        mc: &'a Mutator<'gc>,
    ) -> Result<ArenaWriter<'gc, 'a>, SharedArenaError> {
        if arena.is_freed() {
            return Err(SharedArenaError::Freed);
        }
        // SAFETY: a closure is open, and the writer does not outlive it: it borrows the mutator.
        let core = unsafe { mc.core().arena_writer(&arena.core) }?;
        Ok(ArenaWriter { mc, core: UnsafeCell::new(core) })
    }

    /// Moves `value` into the arena: see [`SharedArena::alloc`].
    ///
    /// # Panics
    /// When there is no room: see [`ArenaWriter::try_alloc`].
    #[inline]
    #[track_caller]
    pub fn alloc<T: Trace + Send + Sync + 'gc>(&self, value: T) -> ArenaGc<'gc, T> {
        match self.try_alloc(value) {
            Ok(value) => value,
            Err(error) => refused(error),
        }
    }

    /// Moves `value` into the arena, if there is room.
    ///
    /// # Errors
    /// As [`SharedArena::try_alloc`].
    #[inline]
    #[track_caller]
    pub fn try_alloc<T: Trace + Send + Sync + 'gc>(
        &self,
        value: T,
    ) -> Result<ArenaGc<'gc, T>, SharedArenaError> {
        place::alloc(self, value)
    }

    /// Makes a value in the arena: `make` is called, and what it returns is moved in. The value gets its place
    /// first, so the compiler can build a large one there and never copy it. `make` may use the same writer.
    ///
    /// A panic of `make` is passed on; its place is lost until the arena is freed.
    ///
    /// # Panics
    /// When there is no room.
    #[inline]
    #[track_caller]
    pub fn alloc_with<T: Trace + Send + Sync + 'gc>(
        &self,
        make: impl FnOnce() -> T,
    ) -> ArenaGc<'gc, T> {
        match self.try_alloc_with(make) {
            Ok(value) => value,
            Err(error) => refused(error),
        }
    }

    /// Makes a value in the arena, if there is room: see [`ArenaWriter::alloc_with`].
    ///
    /// # Errors
    /// As [`SharedArena::try_alloc`]; `make` has not been called then.
    #[inline]
    #[track_caller]
    pub fn try_alloc_with<T: Trace + Send + Sync + 'gc>(
        &self,
        make: impl FnOnce() -> T,
    ) -> Result<ArenaGc<'gc, T>, SharedArenaError> {
        place::alloc_with(self, make)
    }

    /// Copies a string into the arena.
    ///
    /// # Panics
    /// When there is no room.
    #[inline]
    #[track_caller]
    pub fn alloc_str(&self, text: &str) -> ArenaGc<'gc, str> {
        match self.try_alloc_str(text) {
            Ok(text) => text,
            Err(error) => refused(error),
        }
    }

    /// Copies a string into the arena, if there is room.
    ///
    /// # Errors
    /// As [`SharedArena::try_alloc`].
    #[inline]
    #[track_caller]
    pub fn try_alloc_str(&self, text: &str) -> Result<ArenaGc<'gc, str>, SharedArenaError> {
        place::alloc_str(self, text)
    }

    /// Copies a slice into the arena.
    ///
    /// # Panics
    /// When there is no room.
    #[inline]
    #[track_caller]
    pub fn alloc_copy<T: Trace + Copy + Send + Sync + 'gc>(
        &self,
        values: &[T],
    ) -> ArenaGc<'gc, [T]> {
        match self.try_alloc_copy(values) {
            Ok(values) => values,
            Err(error) => refused(error),
        }
    }

    /// Copies a slice into the arena, if there is room.
    ///
    /// # Errors
    /// As [`SharedArena::try_alloc`].
    #[inline]
    #[track_caller]
    pub fn try_alloc_copy<T: Trace + Copy + Send + Sync + 'gc>(
        &self,
        values: &[T],
    ) -> Result<ArenaGc<'gc, [T]>, SharedArenaError> {
        place::alloc_copy(self, values)
    }

    /// Moves the values of an iterator into the arena, as a slice. The iterator may use the same writer.
    ///
    /// # Panics
    /// When there is no room, and when the iterator gives another number of values than its length.
    #[inline]
    #[track_caller]
    pub fn alloc_slice<T, I>(&self, values: I) -> ArenaGc<'gc, [T]>
    where
        T: Trace + Send + Sync + 'gc,
        I: IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    {
        match self.try_alloc_slice(values) {
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
    /// When the iterator gives another number of values than its length. A panic of the iterator is passed on.
    #[inline]
    #[track_caller]
    pub fn try_alloc_slice<T, I>(&self, values: I) -> Result<ArenaGc<'gc, [T]>, SharedArenaError>
    where
        T: Trace + Send + Sync + 'gc,
        I: IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    {
        place::alloc_slice(self, values.into_iter())
    }

    /// A slice of `len` zeros, or empty cells, in the arena.
    ///
    /// # Panics
    /// When there is no room.
    #[inline]
    #[track_caller]
    pub fn alloc_zeroed<T: Trace + Zeroable + Send + Sync + 'gc>(
        &self,
        len: usize,
    ) -> ArenaGc<'gc, [T]> {
        match self.try_alloc_zeroed(len) {
            Ok(values) => values,
            Err(error) => refused(error),
        }
    }

    /// A slice of `len` zeros, or empty cells, in the arena, if there is room.
    ///
    /// # Errors
    /// As [`SharedArena::try_alloc`].
    #[inline]
    #[track_caller]
    pub fn try_alloc_zeroed<T: Trace + Zeroable + Send + Sync + 'gc>(
        &self,
        len: usize,
    ) -> Result<ArenaGc<'gc, [T]>, SharedArenaError> {
        place::alloc_zeroed(self, len)
    }
}

impl fmt::Debug for ArenaWriter<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArenaWriter(of heap {})", self.mc.core().heap_number())
    }
}

/// Out of line, since it is the same for all types.
#[cold]
#[inline(never)]
#[track_caller]
pub(super) fn refused(error: SharedArenaError) -> ! {
    panic!("{error}")
}
