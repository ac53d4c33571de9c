//! [`Gc`]: a pointer to an object in a heap.
//!
//! A `Gc` is an address and nothing else: copied, compared and followed for free. What makes it safe is
//! its lifetime `'gc`, the *brand* of the closure that it was made or loaded in. Each closure has a fresh
//! one, invariant, so a `Gc` can neither leave its closure nor be mixed with those of another. The
//! collector frees nothing that an open closure may hold (see the protocol in `spanheap_core::collect`).
//!
//! # Safety
//! - G1. A `Gc<'gc, T>` points to an initialised `T` in a heap inside of which the closure branded `'gc` is
//!   open, and the object is not freed or moved while that closure is open.
//! - G2. Nobody has a `&mut T` to an object: mutation goes through cells that know about the collector.
#![allow(unsafe_code)]

use crate::trace::{Trace, Tracer};
use core::borrow::Borrow;
use core::cell::Cell;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;
use spanheap_core::addr::Addr;
use spanheap_core::span::layout::Shape;

/// Invariant in `'gc`: neither longer nor shorter lifetimes will do.
pub(crate) type Invariant<'gc> = PhantomData<Cell<&'gc ()>>;

/// A pointer to a `T` in a heap, valid inside the closure branded `'gc`.
///
/// One word for sized types, two for slices and `str`. `Option<Gc<T>>` is as large as `Gc<T>`.
#[repr(transparent)]
pub struct Gc<'gc, T: ?Sized> {
    pointer: NonNull<T>,
    _brand: Invariant<'gc>,
}

impl<T: ?Sized> Clone for Gc<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Gc<'_, T> {}

// SAFETY: a `Gc` gives shared access to a `T`, and may let another thread of the same closure (a scoped one)
// do the same; the object is dropped on the drop thread.
unsafe impl<T: ?Sized + Send + Sync> Send for Gc<'_, T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for Gc<'_, T> {}

impl<'gc, T: ?Sized> Gc<'gc, T> {
    /// Makes a `Gc` of a pointer.
    ///
    /// # Safety
    /// G1.
    #[inline]
    pub(crate) unsafe fn from_pointer(pointer: NonNull<T>) -> Gc<'gc, T> {
        Gc { pointer, _brand: PhantomData }
    }

    /// The pointer.
    #[inline]
    pub(crate) fn pointer(self) -> NonNull<T> {
        self.pointer
    }

    /// The object's address, as the collector sees it.
    #[inline]
    pub(crate) fn addr(self) -> Addr {
        Addr::of(self.pointer.as_ptr())
    }

    /// The object, for as long as the closure is open. (`*gc` borrows only from the `Gc`.)
    #[inline]
    #[expect(clippy::should_implement_trait, reason = "the trait would lose the lifetime")]
    pub fn as_ref(self) -> &'gc T
    where
        T: 'gc,
    {
        // SAFETY: G1 and G2.
        unsafe { self.pointer.as_ref() }
    }

    /// The object's address, to be looked at and not followed.
    #[inline]
    pub fn as_ptr(self) -> *const T {
        self.pointer.as_ptr()
    }

    /// Whether two pointers lead to the same object.
    #[inline]
    pub fn ptr_eq(a: Gc<'gc, T>, b: Gc<'gc, T>) -> bool {
        core::ptr::addr_eq(a.pointer.as_ptr(), b.pointer.as_ptr())
    }
}

impl<T: ?Sized> Deref for Gc<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: G1 and G2; the closure is open as long as there is a `Gc` of it.
        unsafe { self.pointer.as_ref() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Gc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for Gc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl<T: ?Sized> fmt::Pointer for Gc<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Pointer::fmt(&self.pointer, f)
    }
}

impl<T: ?Sized + PartialEq> PartialEq for Gc<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: ?Sized + Eq> Eq for Gc<'_, T> {}

impl<T: ?Sized + PartialOrd> PartialOrd for Gc<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (**self).partial_cmp(&**other)
    }
}

impl<T: ?Sized + Ord> Ord for Gc<'_, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// Equality, order and hash are those of the object, so a map with `Gc`s for keys can be searched with a
/// borrowed key.
impl<T: ?Sized> Borrow<T> for Gc<'_, T> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized + Hash> Hash for Gc<'_, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// The shape of a pointer: a `Gc` begins with the address, whether it is one word or two. (The layout of
/// wide pointers is not promised by the language; the constant below fails to compile if it changes.)
const POINTER: Shape = Shape::Words(1);

const _: () = {
    let wide = core::ptr::slice_from_raw_parts(core::ptr::without_provenance::<u8>(16), 3);
    // SAFETY: a slice pointer is two words, and this one has no provenance to lose.
    let words = unsafe { core::mem::transmute::<*const [u8], [usize; 2]>(wide) };
    assert!(words[0] == 16 && words[1] == 3, "a slice pointer does not begin with its address");
};

// SAFETY: the one pointer is reported; it is the first word, never null, and never changes.
// `NonNull` promises that `None` is null there.
unsafe impl<T: ?Sized> Trace for Gc<'_, T> {
    const SHAPE: Shape = POINTER;
    const NULLABLE: bool = true;
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // SAFETY: E1, E2: a `Gc` is the address of an object, in the one heap of its brand.
        unsafe { tracer.edge_unchecked(self.addr()) };
    }
}
