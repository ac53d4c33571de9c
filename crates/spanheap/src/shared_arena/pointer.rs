//! [`ArenaGc`]: a pointer to a value in a shared arena, which may have been freed.
//!
//! For the collector it is an edge like a [`Gc`](crate::Gc): what it leads to is marked, value by value, and what
//! lies behind that is retained. What differs is that nobody knows for how long the value is there: whoever has
//! the arena may free it at any moment. So the pointer is opened with [`ArenaGc::get`], which asks whether the
//! arena still is what it was, and has no `Deref`.
//!
//! # Why a reference may be given out
//! [`ArenaGc::get`] looks at a flag of the chunk that the value lies in. Freeing an arena sets the flags of its
//! chunks, and nothing else: memory is taken away when every closure that was open then has been left once. So
//! whoever has seen the flag clear has its memory until its closure ends, and this is what `'gc` says.
//! The address itself is good for the question at any time: it is not given to anybody else before a complete
//! cycle has found no pointer to it (`spanheap_core::collect` says why no closure can have one then either).
//!
//! # Safety
//! - P1. The pointer of an `ArenaGc<'gc, T>` is the one that an arena of the heap in which the closure branded `'gc`
//!   is open has returned for an initialised `T`, and its chunk has not been given to anybody else since.
//! - P2. Nobody has a `&mut T` to a value in an arena, and no value there has a destructor. (G2, for arenas.)
#![allow(unsafe_code)]

use crate::gc::Invariant;
use crate::mutator::Mutator;
use crate::trace::{Trace, Tracer};
use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;
use core::ptr::NonNull;
use spanheap_core::addr::Addr;
use spanheap_core::span::layout::Shape;

/// A pointer to a value in a [`SharedArena`](crate::SharedArena), opened by [`ArenaGc::get`].
///
/// One word for sized types, two for slices and `str`; `Option<ArenaGc<T>>` is as large as `ArenaGc<T>`. It is copied
/// and stored like a [`Gc`](crate::Gc): in values of arenas, in objects of the heap, in a
/// [`GcCell`](crate::GcCell), in all containers. Like a `Gc` it cannot leave its closure. To keep one, put it
/// into an object and root that:
///
/// ```
/// use spanheap::{ArenaGc, Heap, Root, Rootable};
///
/// let heap = Heap::new();
/// let arena = heap.shared_arena();
/// let kept: Root<Rootable![ArenaGc<'_, str>]> =
///     heap.enter(|mc| mc.root(mc.alloc(arena.alloc_str(mc, "kept"))));
/// heap.enter(|mc| assert_eq!(kept.get(mc).get(mc), Some("kept")));
/// arena.free();
/// heap.enter(|mc| assert_eq!(kept.get(mc).get(mc), None));
/// ```
///
/// Two of them are equal if they lead to the same value. Values are not compared, and not looked at: they may be
/// gone. No other value takes the place of a freed one as long as there is a pointer to it, so comparing
/// pointers to freed values is right, too.
#[repr(transparent)]
pub struct ArenaGc<'gc, T: ?Sized> {
    pointer: NonNull<T>,
    _brand: Invariant<'gc>,
}

impl<T: ?Sized> Clone for ArenaGc<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for ArenaGc<'_, T> {}

// SAFETY: the pointer gives shared access to a `T`, also to another thread of the same closure (a scoped one). By
// P2 nobody drops the value.
unsafe impl<T: ?Sized + Send + Sync> Send for ArenaGc<'_, T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for ArenaGc<'_, T> {}

impl<'gc, T: ?Sized> ArenaGc<'gc, T> {
    /// Makes an `ArenaGc` of a pointer.
    ///
    /// # Safety
    /// P1.
    #[inline]
    pub(crate) unsafe fn from_pointer(pointer: NonNull<T>) -> ArenaGc<'gc, T> {
        ArenaGc { pointer, _brand: PhantomData }
    }

    /// The pointer.
    #[inline]
    pub(crate) fn pointer(self) -> NonNull<T> {
        self.pointer
    }

    /// The value's address, as the collector sees it.
    #[inline]
    pub(crate) fn addr(self) -> Addr {
        Addr::of(self.pointer.as_ptr())
    }

    /// The value, unless its arena has been freed. It stays as long as the closure is open, even if somebody frees
    /// the arena meanwhile; so `Some` may be followed by `None` in one closure, and never the other way round.
    ///
    /// Costs a lookup of the page that the value lies in: some loads, no lock.
    #[inline]
    pub fn get(self, mc: &Mutator<'gc>) -> Option<&'gc T>
    where
        T: 'gc,
    {
        // SAFETY: a closure is open, and by P1 the pointer leads to a value in an arena of its heap.
        if !unsafe { mc.core().is_arena_live(self.pointer.cast()) } {
            return None;
        }
        // SAFETY: P1: an arena has returned the pointer for a `T`, and its chunk is no other's. The chunk was not freed
        // when we looked, in an open closure, and so it stays until the closure ends. P2: nobody changes it.
        Some(unsafe { self.pointer.as_ref() })
    }

    /// The value's address, to be looked at and not followed.
    #[inline]
    pub fn as_ptr(self) -> *const T {
        self.pointer.as_ptr()
    }

    /// Whether two pointers lead to the same value.
    #[inline]
    pub fn ptr_eq(a: ArenaGc<'gc, T>, b: ArenaGc<'gc, T>) -> bool {
        a.addr() == b.addr()
    }
}

impl<T: ?Sized> PartialEq for ArenaGc<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.addr() == other.addr()
    }
}

impl<T: ?Sized> Eq for ArenaGc<'_, T> {}

impl<T: ?Sized> Hash for ArenaGc<'_, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.addr().get().hash(state);
    }
}

impl<T: ?Sized> fmt::Debug for ArenaGc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value may be gone, so it is not looked at.
        write!(f, "ArenaGc({:#x})", self.addr().get())
    }
}

impl<T: ?Sized> fmt::Pointer for ArenaGc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Pointer::fmt(&self.pointer, f)
    }
}

// SAFETY: the one pointer is reported; it is the first word (a constant in `gc.rs` does not compile if a wide pointer
// does not begin with its address), never null, and never changes. `NonNull` promises that `None` is null there.
unsafe impl<T: ?Sized> Trace for ArenaGc<'_, T> {
    const SHAPE: Shape = Shape::Words(1);
    const NULLABLE: bool = true;
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // SAFETY: E1, E2: by P1 this is the address of a value in an arena of the one heap of its brand.
        unsafe { tracer.edge_unchecked(self.addr()) };
    }
}
