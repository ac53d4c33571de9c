//! [`Root`]: what leaves a closure.
//!
//! A root retains its object and knows its address, but gives it out only inside a closure of the same
//! heap, branded with that closure's lifetime. Its own type has no lifetime, so it can be kept in
//! statics, sent to other threads and held over an `await`.
//!
//! Cloning and dropping a root take no lock and need no closure. A root that outlives its heap is
//! harmless: there is no closure left to open it in.
//!
//! # Safety
//! - O1. The pointer in a root is that of the object in its record, with the metadata of the type that it
//!   had, which is the one that `R` names: a root is invariant in `R`. While the record is held, the
//!   object is retained.
#![allow(unsafe_code)]

use crate::gc::Gc;
use crate::mutator::Mutator;
use crate::rootable::Rootable;
use core::fmt;
use core::marker::PhantomData;
use core::mem::{size_of, transmute_copy};
use core::ptr::NonNull;
use spanheap_core::collect::roots::RootRecord;
use std::sync::Arc;

/// A pointer to the root type of `R`, with the lifetime left out: one word or two.
#[derive(Clone, Copy)]
pub(crate) struct RootedPointer {
    words: [usize; 2],
}

impl RootedPointer {
    /// Forgets the lifetime.
    pub(crate) fn erase<'gc, R: for<'a> Rootable<'a>>(
        pointer: NonNull<<R as Rootable<'gc>>::Root>,
    ) -> RootedPointer {
        let mut words = [pointer.as_ptr().expose_provenance(), 0];
        if size_of_val(&pointer) == size_of::<[usize; 2]>() {
            // SAFETY: a wide pointer is two words.
            words = unsafe {
                transmute_copy::<NonNull<<R as Rootable<'gc>>::Root>, [usize; 2]>(&pointer)
            };
        }
        RootedPointer { words }
    }

    /// Address and metadata.
    pub(crate) fn words(self) -> [usize; 2] {
        self.words
    }

    /// The pointer that had these words.
    pub(crate) fn from_words(words: [usize; 2]) -> RootedPointer {
        RootedPointer { words }
    }

    /// Gives the pointer the lifetime of an open closure.
    ///
    /// # Safety
    /// The pointer was erased with the same `R`, and the object is retained and belongs to the heap of
    /// the closure.
    pub(crate) unsafe fn restore<'gc, R: for<'a> Rootable<'a>>(
        self,
    ) -> NonNull<<R as Rootable<'gc>>::Root> {
        // Types that differ in a lifetime only have the same pointers, so the size is the one from above.
        // SAFETY: the words were made from such a pointer; copying one word or two copies it.
        unsafe { transmute_copy::<[usize; 2], NonNull<<R as Rootable<'gc>>::Root>>(&self.words) }
    }
}

/// Retains an object outside of closures.
///
/// The parameter names the object's type with its lifetime left open: `Root<Rootable![Node<'_>]>`.
///
/// ```
/// use spanheap::{Heap, Root, Rootable};
///
/// let heap = Heap::new();
/// let name: Root<Rootable![str]> = heap.enter(|mc| mc.root(mc.alloc_str("kept")));
/// heap.collect();
/// assert_eq!(heap.enter(|mc| name.get(mc).len()), 4);
/// ```
pub struct Root<R: for<'a> Rootable<'a>> {
    record: Arc<RootRecord>,
    pointer: RootedPointer,
    /// Invariant in `R`: two types of which one is a subtype of the other may still name different objects,
    /// and the pointer is that of exactly one of them.
    _type: PhantomData<fn(R) -> R>,
}

// SAFETY: a root gives out a `Gc` to any thread of the heap, and every object of a heap is `Send + Sync`
// (`Mutator::alloc` demands it).
unsafe impl<R: for<'a> Rootable<'a>> Send for Root<R> {}
// SAFETY: as above.
unsafe impl<R: for<'a> Rootable<'a>> Sync for Root<R> {}

impl<R: for<'a> Rootable<'a>> Root<R> {
    pub(crate) fn new(record: Arc<RootRecord>, pointer: RootedPointer) -> Root<R> {
        Root { record, pointer, _type: PhantomData }
    }

    /// The object, for an open closure of its heap.
    ///
    /// # Panics
    /// When the closure belongs to another heap.
    #[inline]
    #[track_caller]
    pub fn get<'gc>(&self, mc: &Mutator<'gc>) -> Gc<'gc, <R as Rootable<'gc>>::Root> {
        let (own, other) = (self.record.heap(), mc.core().heap_number());
        if own != other {
            refuse(own, other);
        }
        // SAFETY: O1, and the heap is that of the closure.
        let pointer = unsafe { self.pointer.restore::<R>() };
        // SAFETY: G1: the object is retained by the root, and from here on by the closure.
        unsafe { Gc::from_pointer(pointer) }
    }
}

/// A root was opened in the wrong heap.
#[cold]
#[inline(never)]
#[track_caller]
fn refuse(own: u64, other: u64) -> ! {
    panic!("a root of heap {own} was opened in a closure of heap {other}: open it in its own")
}

impl<R: for<'a> Rootable<'a>> Clone for Root<R> {
    fn clone(&self) -> Root<R> {
        Root { record: self.record.clone(), pointer: self.pointer, _type: PhantomData }
    }
}

impl<R: for<'a> Rootable<'a>> fmt::Debug for Root<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({} in heap {})", self.record.object(), self.record.heap())
    }
}
