//! [`Arena`]: memory for many values that end together.
//!
//! | file | what |
//! |---|---|
//! | `mod` | [`Arena`], how it begins and ends, and single values in it |
//! | `slices` | slices and strings |
//! | `memory` | the bump pointer, chunks, and values with pages of their own |
//! | `owed` | the list of destructors |
//! | `options`, `error` | a limit and a name; why something was refused |
//! | `allocator` | an arena as an allocator for collections |
//!
//! # Why the collector need not know
//! An arena lives in one call, inside one closure of the heap, and so do all references into it. So what it holds is
//! held by the closure, as a local variable is, and for local variables the protocol has its answer (see the proof in
//! `spanheap_core::collect`): *whatever an open closure holds is marked by the end of the cycle, though nobody looks
//! for it.* A `Gc` in an arena was loaded or made in the closure. If it was loaded, then from an object that the
//! snapshot or the closure leads to, and if that edge is cut later, the one who cuts it hands the target over. If it
//! was made, it has the colour of the closure's phase. When it is stored into the heap, the store keeps to the
//! barrier like any other, and the object that it leads to is retained as one that a local variable leads to. Nothing
//! in this argument asks *where* in its own memory the closure keeps a pointer. So values in an arena are neither
//! traced nor written with a barrier, and a `Cell` of the standard library around a `Gc` is as good there as on a
//! stack.
//!
//! What a closure must not do is keep a `Gc` beyond its end, and of that the brand takes care: a type that holds one
//! has the lifetime `'gc`, in an arena as elsewhere.
//!
//! # Lifetimes
//! - `alloc` borrows the arena and gives `&mut T` with the lifetime of that borrow, as other bump allocators do.
//!   `reset` and the end need the arena for themselves, so no reference survives them; the borrow checker does the
//!   work.
//! - The closure of [`Mutator::arena`] is called with `&'x mut Arena<'env>` for *any* `'x`: neither can its result
//!   hold a reference into the arena, nor can anything that lives longer than the call.
//! - `'env` is the borrow of the mutator, chosen by the caller, and longer than `'x`. A value with a destructor has to
//!   live as long as `'env`; a reference into its own arena does not, since nobody can show that some `'x` is as long.
//!   So what a destructor sees is not in its own arena, where it might be dropped already, but on the stack outside of it, in
//!   an outer arena, or in the heap. That is why `Arena` is invariant in `'env`: were it covariant, `'env` could be
//!   shortened to the borrow of the arena.
//!
//! # Safety
//! - R1. A block is handed out once before the next reset, as a place for values that is aligned and large enough.
//!   What is written there is initialised before a reference to it is made.
//! - R2. Blocks are given back or resized by their owner only, and by `reset` and `drop`, which have the arena for
//!   themselves. So no reference to a value in it is used after that.
#![allow(unsafe_code)]

#[cfg(any(feature = "allocator-api2-02", feature = "allocator-api2-04"))]
mod allocator;
mod error;
mod memory;
mod options;
mod owed;
mod slices;

pub use error::ArenaError;
pub use options::ArenaOptions;

use crate::mutator::Mutator;
use core::alloc::Layout;
use core::cell::Cell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::needs_drop;
use core::ptr::NonNull;
use memory::Memory;
use owed::Owed;
use std::panic::resume_unwind;

/// Memory for values that all end together, when the closure of [`Mutator::arena`] returns, or at a
/// [`reset`](Arena::reset).
///
/// Allocating is a comparison, an addition and a store. The memory comes from the heap's pages in chunks that grow with
/// the arena: it counts for the limits of the heap and in its statistics (`manual_bytes`), and neither makes
/// a cycle begin nor is looked at by one.
///
/// ```
/// use spanheap::{Gc, Heap};
///
/// struct Token<'a, 'gc> {
///     text: &'a str,
///     symbol: Gc<'gc, str>,
///     before: Option<&'a Token<'a, 'gc>>,
/// }
///
/// let heap = Heap::new();
/// let letters = heap.enter(|mc| {
///     let symbol = mc.alloc_str("word");
///     mc.arena(|arena| {
///         let mut last: Option<&Token> = None;
///         for word in "values in an arena may refer to each other".split(' ') {
///             last = Some(arena.alloc(Token { text: arena.alloc_str(word), symbol, before: last }));
///         }
///         let words = std::iter::successors(last, |token| token.before);
///         words.filter(|token| *token.symbol == *"word").map(|token| token.text.len()).sum::<usize>()
///     }) // all of it is gone here
/// });
/// assert_eq!(letters, 34);
/// ```
///
/// # What may be in it
/// - [`alloc`](Arena::alloc) and its relatives take values without a destructor, of any type and with any lifetime.
///   They may refer to other values of the same arena, hold `Gc`s, and change through cells.
/// - [`alloc_drop`](Arena::alloc_drop) takes values with a destructor, which runs when the arena ends or is reset, the
///   last one first. Such a value may hold `Gc`s and references to what lives longer than the arena, such as an outer
///   one, but none into its own arena: its destructor could find what is gone.
/// - With the features `allocator-api2-02` and `allocator-api2-04`, `&Arena` is an allocator for collections.
/// - What is to outlive the arena is copied to the heap: [`Mutator::promote`].
///
/// # How it grows
/// The first chunk is 8 KiB, or one that the thread has kept from an arena before; the others double up to 8 MiB.
/// Values of more than 2 MiB get pages of their own. Nothing is returned before the arena ends or is reset, except
/// what an allocator gives back at the very top or with pages of its own. A thread keeps up to 1 MiB in chunks for
/// its next arenas.
///
/// Arenas nest, and stay on their thread.
pub struct Arena<'env> {
    // Destructors run before the memory goes: see `Drop`.
    owed: Owed,
    memory: Memory<'env>,
    /// Invariant: see the top of the file.
    _env: PhantomData<Cell<&'env ()>>,
}

/// Continues with what was refused as a panic.
#[inline]
#[track_caller]
fn granted<T>(outcome: Result<T, ArenaError>) -> T {
    match outcome {
        Ok(value) => value,
        Err(error) => refuse(&error),
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn refuse(error: &ArenaError) -> ! {
    panic!("{error}")
}

impl<'gc> Mutator<'gc> {
    /// Calls `f` with an empty arena, which ends when `f` returns or panics: see [`Arena`].
    ///
    /// # Panics
    /// A panic of `f` is passed on when the arena has ended. If a destructor in the arena panics, the others run, and
    /// the first such panic is passed on.
    #[inline]
    pub fn arena<'env, R>(&'env self, f: impl for<'x> FnOnce(&'x mut Arena<'env>) -> R) -> R {
        self.arena_with(ArenaOptions::new(), f)
    }

    /// Calls `f` with an empty arena that has a limit or a name.
    ///
    /// ```
    /// use spanheap::{ArenaError, ArenaOptions, Heap};
    ///
    /// let heap = Heap::new();
    /// let options = ArenaOptions::new().limit(64 << 10).name("the arena of a request");
    /// let refused = heap.enter(|mc| {
    ///     mc.arena_with(options, |arena| loop {
    ///         if let Err(error) = arena.try_alloc([0_u8; 1000]) {
    ///             assert!(arena.used() <= arena.reserved() && arena.reserved() <= 64 << 10);
    ///             break error;
    ///         }
    ///     })
    /// });
    /// assert!(matches!(refused, ArenaError::Limit { .. }));
    /// assert!(refused.to_string().contains("the arena of a request"));
    /// ```
    ///
    /// # Panics
    /// As [`Mutator::arena`].
    #[inline]
    pub fn arena_with<'env, R>(
        &'env self,
        options: ArenaOptions,
        f: impl for<'x> FnOnce(&'x mut Arena<'env>) -> R,
    ) -> R {
        let memory = Memory::new(self.core(), options);
        let mut arena = Arena { owed: Owed::new(), memory, _env: PhantomData };
        let result = f(&mut arena);
        if let Some(panic) = arena.owed.run() {
            drop(arena);
            resume_unwind(panic);
        }
        result
    }
}

impl<'env> Arena<'env> {
    /// The place of a value.
    #[inline(always)]
    #[track_caller]
    fn place<T>(&self) -> NonNull<T> {
        let layout = const { Layout::new::<T>() };
        match self.memory.bump(layout) {
            Some(block) => block.cast(),
            None => self.place_in_new_chunk(layout).cast(),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn place_in_new_chunk(&self, layout: Layout) -> NonNull<u8> {
        granted(self.memory.refill(layout))
    }

    /// A block, aligned and uninitialised.
    #[inline(always)]
    fn try_block(&self, layout: Layout) -> Result<NonNull<u8>, ArenaError> {
        match self.memory.bump(layout) {
            Some(block) => Ok(block),
            None => self.memory.refill(layout),
        }
    }

    /// Moves `value` into the arena.
    ///
    /// A type with a destructor does not compile here: see [`Arena::alloc_drop`]. (The compiler finds it when it
    /// makes code: `cargo build` says so, and `cargo check` does not.)
    ///
    /// # Panics
    /// When there is no room: see [`Arena::try_alloc`].
    #[inline(always)]
    #[track_caller]
    pub fn alloc<T>(&self, value: T) -> &mut T {
        self.alloc_with(|| value)
    }

    /// Moves `value` into the arena, if there is room.
    ///
    /// # Errors
    /// [`ArenaError`] when the arena's limit, the heap's hard limit or the system does not allow more memory.
    #[inline(always)]
    pub fn try_alloc<T>(&self, value: T) -> Result<&mut T, ArenaError> {
        self.try_alloc_with(|| value)
    }

    /// Makes a value in the arena: it gets its place first, so the compiler can build a large one there and never
    /// copy it. `make` may use the arena, too. If it panics, the place is lost until the next reset.
    ///
    /// # Panics
    /// When there is no room: see [`Arena::try_alloc`].
    #[inline(always)]
    #[track_caller]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn alloc_with<T>(&self, make: impl FnOnce() -> T) -> &mut T {
        const { assert_no_destructor::<T>() };
        let mut place = self.place::<T>();
        // SAFETY: R1.
        unsafe { place.write(make()) };
        // SAFETY: R1, R2.
        unsafe { place.as_mut() }
    }

    /// Makes a value in the arena, if there is room: see [`Arena::alloc_with`].
    ///
    /// # Errors
    /// As [`Arena::try_alloc`]; `make` has not been called then.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn try_alloc_with<T>(&self, make: impl FnOnce() -> T) -> Result<&mut T, ArenaError> {
        const { assert_no_destructor::<T>() };
        let mut place = self.try_block(const { Layout::new::<T>() })?.cast::<T>();
        // SAFETY: R1.
        unsafe { place.write(make()) };
        // SAFETY: R1, R2.
        Ok(unsafe { place.as_mut() })
    }

    /// Moves a value with a destructor into the arena. The destructor runs when the arena ends or is reset: that of the
    /// last value first.
    ///
    /// The value may not hold references into the arena itself, only to what outlives it:
    ///
    /// ```
    /// # use spanheap::Heap;
    /// # Heap::new().enter(|mc| {
    /// mc.arena(|outer| {
    ///     let words: &[&str] = outer.alloc_slice_copy(&["a", "list"]);
    ///     mc.arena(|inner| {
    ///         let owned = inner.alloc_drop(words.to_vec()); // a `Vec`, freed with `inner`
    ///         owned.push("and more");
    ///     });
    /// });
    /// # });
    /// ```
    ///
    /// # Panics
    /// When there is no room: see [`Arena::try_alloc_drop`].
    #[inline]
    #[track_caller]
    pub fn alloc_drop<T: 'env>(&self, value: T) -> &mut T {
        granted(self.try_alloc_drop_with(|| value))
    }

    /// Moves a value with a destructor into the arena, if there is room.
    ///
    /// # Errors
    /// As [`Arena::try_alloc`]; the value is dropped then.
    #[inline]
    pub fn try_alloc_drop<T: 'env>(&self, value: T) -> Result<&mut T, ArenaError> {
        self.try_alloc_drop_with(|| value)
    }

    /// Makes a value with a destructor in the arena: see [`Arena::alloc_drop`] and [`Arena::alloc_with`].
    ///
    /// # Panics
    /// When there is no room: see [`Arena::try_alloc_drop_with`].
    #[inline]
    #[track_caller]
    pub fn alloc_drop_with<T: 'env>(&self, make: impl FnOnce() -> T) -> &mut T {
        granted(self.try_alloc_drop_with(make))
    }

    /// Makes a value with a destructor in the arena, if there is room.
    ///
    /// # Errors
    /// As [`Arena::try_alloc`]; `make` has not been called then.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "each call makes a new place")]
    pub fn try_alloc_drop_with<T: 'env>(
        &self,
        make: impl FnOnce() -> T,
    ) -> Result<&mut T, ArenaError> {
        let layout = owed::layout_of::<T>(1).ok_or(ArenaError::TooLarge)?;
        let link = self.try_block(layout)?.cast();
        // SAFETY: the block is for a link and a `T`.
        let mut place = unsafe { owed::values::<T>(link) };
        // SAFETY: R1.
        unsafe { place.write(make()) };
        if needs_drop::<T>() {
            // SAFETY: D1: the value is initialised; what the caller gets is a reference to it.
            unsafe { self.owed.push::<T>(link, 1) };
        }
        // SAFETY: R1, R2; the list is gone through when the arena is nobody else's.
        Ok(unsafe { place.as_mut() })
    }

    /// Memory for a layout, uninitialised, until the arena ends or is reset. An address that is aligned, and no memory,
    /// if the size is 0.
    ///
    /// # Panics
    /// When there is no room: see [`Arena::try_alloc_layout`].
    #[inline]
    #[track_caller]
    pub fn alloc_layout(&self, layout: Layout) -> NonNull<u8> {
        granted(self.try_block(layout))
    }

    /// Memory for a layout, if there is room.
    ///
    /// # Errors
    /// As [`Arena::try_alloc`].
    #[inline]
    pub fn try_alloc_layout(&self, layout: Layout) -> Result<NonNull<u8>, ArenaError> {
        self.try_block(layout)
    }

    /// Ends all values, and begins anew. Destructors run, the last value's first. The largest chunk stays, the
    /// others go.
    ///
    /// ```
    /// # use spanheap::Heap;
    /// # Heap::new().enter(|mc| {
    /// mc.arena(|arena| {
    ///     for request in 0..1000 {
    ///         let numbers = arena.alloc_slice_fill_iter((0..100).map(|n| n * request));
    ///         assert_eq!(numbers.len(), 100);
    ///         arena.reset();
    ///     }
    ///     assert_eq!((arena.used(), arena.reserved()), (0, 8 << 10));
    /// });
    /// # });
    /// ```
    ///
    /// # Panics
    /// If a destructor panics, the others run, the arena is reset, and the first such panic is passed on.
    pub fn reset(&mut self) {
        let panic = self.owed.run();
        self.memory.reset();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Bytes that values take, alignment and the links of destructors included.
    #[must_use]
    pub fn used(&self) -> usize {
        self.memory.used()
    }

    /// Bytes of the heap's pages that the arena has.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.memory.reserved()
    }

    /// How many bytes of pages the arena may have, if there is a limit.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        Some(self.memory.options().limit).filter(|&limit| limit != usize::MAX)
    }
}

/// Refuses to compile for a type with a destructor.
const fn assert_no_destructor<T>() {
    assert!(
        !needs_drop::<T>(),
        "this value has a destructor, which would never run: use `alloc_drop` or `alloc_drop_slice`, which run it when \
         the arena ends (the value must not hold references into its own arena then); or copy what it holds into \
         the arena, with `alloc_str` and `alloc_slice_copy`"
    );
}

impl Drop for Arena<'_> {
    #[inline]
    fn drop(&mut self) {
        // Here the list is empty, or the closure has panicked; then that panic goes on, and no other one.
        if let Some(panic) = self.owed.run() {
            owed::discard(panic);
        }
    }
}

impl fmt::Debug for Arena<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.memory.options().name;
        write!(f, "Arena({name}: {} of {} bytes used)", self.used(), self.reserved())
    }
}
