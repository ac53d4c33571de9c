//! [`Ephemeron`]: a value that lives as long as a key does.
//!
//! # Safety
//! - N1. An `Ephemeron<'gc, K, V>` points to an `EphemeronCell` whose key, if it is there, is a `K`, and whose value
//!   is a `V`, in the heap of the closure branded `'gc`.
#![allow(unsafe_code)]

use crate::gc::{Gc, Invariant};
use crate::mutator::Mutator;
use crate::trace::{Trace, Tracer};
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use spanheap_core::addr::Addr;
use spanheap_core::heap::OutOfMemory;
use spanheap_core::span::EphemeronCell;
use spanheap_core::span::layout::{Shape, TypeInfo};

static CELL: TypeInfo = EphemeronCell::INFO;

/// A pair of objects of which the second lives as long as the first *and* the pair do, and the first is not kept
/// alive by the pair.
///
/// The value may point to the key, or to other ephemerons' keys: that does not keep the key alive. So what belongs
/// to an object can be kept beside it, without touching the object and without a leak. [`WeakMap`](crate::WeakMap)
/// is a table of such pairs.
///
/// ```
/// use spanheap::{Ephemeron, Gc, Heap, Rootable, Trace};
///
/// let heap = Heap::new();
/// let note = heap.enter(|mc| {
///     let key = mc.alloc(String::from("key"));
///     let note = mc.ephemeron(key, mc.alloc((key, 7))); // the value points to the key
///     assert_eq!(note.value_for(key).map(|value| value.1), Some(7));
///     mc.root::<Rootable![(Ephemeron<'_, String, (Gc<'_, String>, i32)>,)]>(mc.alloc((note,)))
/// });
/// let _ = heap.collect();
/// heap.enter(|mc| assert!(note.get(mc).0.entry(mc).is_none()));
/// ```
pub struct Ephemeron<'gc, K, V> {
    cell: NonNull<EphemeronCell>,
    _key: PhantomData<fn(K) -> K>,
    _value: PhantomData<fn(V) -> V>,
    _brand: Invariant<'gc>,
}

impl<K, V> Clone for Ephemeron<'_, K, V> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, V> Copy for Ephemeron<'_, K, V> {}

// SAFETY: an ephemeron gives out `Gc`s of both types, and may be where these may be.
unsafe impl<K: Send + Sync, V: Send + Sync> Send for Ephemeron<'_, K, V> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync, V: Send + Sync> Sync for Ephemeron<'_, K, V> {}

impl<'gc, K, V> Ephemeron<'gc, K, V> {
    fn cell(&self) -> &EphemeronCell {
        // SAFETY: N1; the object is alive, since a closure or an object holds this pointer.
        unsafe { self.cell.as_ref() }
    }

    fn addr(self) -> Addr {
        Addr::of(self.cell.as_ptr())
    }

    /// Key and value, if the key is alive. Both stay so as long as the closure is open.
    pub fn entry(self, mc: &Mutator<'gc>) -> Option<(Gc<'gc, K>, Gc<'gc, V>)> {
        // SAFETY: N1: this is the word of the key of an ephemeron that the open closure holds.
        let key = unsafe { mc.core().upgrade(self.cell().key_word()) };
        // SAFETY: N1; the key was alive, and from here on this closure holds it.
        let key: Gc<'gc, K> = unsafe { Gc::from_pointer(NonNull::new(key.as_ptr())?) };
        Some((key, self.value_for(key)?))
    }

    /// The value, if `key` is the ephemeron's key. Whoever has the key needs no upgrade: it is alive, and so
    /// is the value.
    #[inline]
    pub fn value_for(self, key: Gc<'gc, K>) -> Option<Gc<'gc, V>> {
        if self.cell().key() != key.addr() {
            return None;
        }
        let value = NonNull::new(self.cell().value().as_ptr())?;
        // SAFETY: N1; the closure holds key and ephemeron, so both are retained, and with them the value. It is
        // cleared only when the key is dead.
        Some(unsafe { Gc::from_pointer(value) })
    }

    /// Whether a cycle has cleared it: the key is dead.
    pub(crate) fn is_cleared(self) -> bool {
        self.cell().key().is_null()
    }

    /// Whether two are the same ephemeron.
    #[inline]
    pub fn ptr_eq(a: Self, b: Self) -> bool {
        a.cell == b.cell
    }
}

impl<K, V> fmt::Debug for Ephemeron<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(Ephemeron)")
    }
}

// SAFETY: the pointer to the cell is reported, which is an object of its own with its own trace function. It is
// never null and never changes; `NonNull` promises that `None` is null there.
unsafe impl<K, V> Trace for Ephemeron<'_, K, V> {
    const SHAPE: Shape = Shape::Words(1);
    const EXACT: bool = true;
    const NULLABLE: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // SAFETY: E1, E2: by N1 this is the address of an object, in the one heap of the brand.
        unsafe { tracer.edge(self.addr()) };
    }
}

impl<'gc> Mutator<'gc> {
    /// Keeps `value` alive as long as `key` is, for whoever holds the ephemeron.
    ///
    /// # Panics
    /// When there is no room: see [`Mutator::try_ephemeron`].
    #[track_caller]
    pub fn ephemeron<K, V>(&self, key: Gc<'gc, K>, value: Gc<'gc, V>) -> Ephemeron<'gc, K, V> {
        match self.try_ephemeron(key, value) {
            Ok(ephemeron) => ephemeron,
            Err(error) => panic!("{error}"),
        }
    }

    /// Keeps `value` alive as long as `key` is, if there is room.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`].
    pub fn try_ephemeron<K, V>(
        &self,
        key: Gc<'gc, K>,
        value: Gc<'gc, V>,
    ) -> Result<Ephemeron<'gc, K, V>, OutOfMemory> {
        // SAFETY: a closure is open; the description is that of ephemerons.
        let slot = unsafe { self.core().alloc(&CELL) }?;
        let cell = slot.cast::<EphemeronCell>();
        // SAFETY: the slot is for an ephemeron, and ours.
        unsafe { cell.write(EphemeronCell::new(key.addr(), value.addr())) };
        // SAFETY: the ephemeron is initialised.
        unsafe { self.core().publish(slot) };
        Ok(Ephemeron { cell, _key: PhantomData, _value: PhantomData, _brand: PhantomData })
    }
}
