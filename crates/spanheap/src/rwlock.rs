//! [`GcRwLock`]: any Rust collection of `Gc`s, read by many threads at once or changed by one.
//!
//! What a writer owes the collector, why a reader owes nothing, and how the collector reads, is in
//! [`crate::container`]. The collector takes the lock as one more reader, and does not stand back for a
//! writer that waits, so readers never keep it from the contents; only a writer does.
//!
//! There is no poisoning: a panic while the lock is held leaves the contents as they are.
//!
//! # Safety
//! L1 and L2, of `container.rs`. Readers share the contents between threads, so these are `Sync`.
#![allow(unsafe_code)]

use crate::container::Scanned;
use crate::gc::Invariant;
use crate::mutator::Mutator;
use crate::trace::{Trace, Tracer};
use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use spanheap_core::span::layout::Shape;
use spanheap_core::sync::RawRwLock;
use std::time::Instant;

/// A value that the threads of a heap read at the same time, and one at a time changes; it may hold `Gc`s
/// wherever it likes.
///
/// - Reading costs two atomic operations, in every phase of a cycle. Taking the lock to *write* while a cycle
///   runs may cost a walk over the contents, as with [`GcMutex`](crate::GcMutex).
/// - A writer that waits stops new readers. So a thread that reads must not ask to read the same lock again: it
///   could wait for the writer, and the writer for it.
/// - A write guard that is forgotten (`mem::forget`) keeps the container locked for ever, and no cycle can be
///   completed after that until the heap is dropped. A forgotten read guard keeps out writers, and not
///   the collector.
///
/// ```
/// use spanheap::{Gc, GcRwLock, Heap, Trace};
/// use std::collections::HashMap;
///
/// #[derive(Trace)]
/// struct Names<'gc> {
///     known: GcRwLock<'gc, HashMap<u32, Gc<'gc, str>>>,
/// }
///
/// Heap::new().enter(|mc| {
///     let names = mc.alloc(Names { known: GcRwLock::new(HashMap::new()) });
///     names.known.write(mc).insert(7, mc.alloc_str("seven"));
///     let (one, other) = (names.known.read(mc), names.known.try_read(mc).unwrap());
///     assert_eq!(&*one[&7], &*other[&7]);
/// });
/// ```
pub struct GcRwLock<'gc, T> {
    lock: RawRwLock,
    scanned: Scanned,
    _brand: Invariant<'gc>,
    value: UnsafeCell<T>,
}

// SAFETY: L1: readers share the contents, and a writer may take them to his thread.
unsafe impl<T: Send + Sync> Sync for GcRwLock<'_, T> {}
// SAFETY: the brand is a marker and says nothing about threads.
unsafe impl<T: Send> Send for GcRwLock<'_, T> {}

impl<'gc, T: Trace> GcRwLock<'gc, T> {
    /// A free container with `value` in it.
    pub const fn new(value: T) -> GcRwLock<'gc, T> {
        let (lock, scanned) = (RawRwLock::new(), Scanned::never());
        GcRwLock { lock, scanned, _brand: PhantomData, value: UnsafeCell::new(value) }
    }

    /// Waits until nobody writes or waits to write. The wait counts as a stall of the thread.
    #[inline]
    pub fn read<'a>(&'a self, mc: &'a Mutator<'gc>) -> GcRwLockReadGuard<'a, 'gc, T> {
        if !self.lock.try_read() {
            wait(mc, || self.lock.read());
        }
        GcRwLockReadGuard { lock: self }
    }

    /// Reads if nobody writes or waits to write.
    #[inline]
    pub fn try_read<'a>(&'a self, _: &'a Mutator<'gc>) -> Option<GcRwLockReadGuard<'a, 'gc, T>> {
        self.lock.try_read().then(|| GcRwLockReadGuard { lock: self })
    }

    /// Waits until nobody else reads or writes. The wait counts as a stall of the thread; one of the readers
    /// may be the collector, for as long as it takes to read the contents.
    #[inline]
    pub fn write<'a>(&'a self, mc: &'a Mutator<'gc>) -> GcRwLockWriteGuard<'a, 'gc, T> {
        if !self.lock.try_write() {
            wait(mc, || self.lock.write());
        }
        self.writer(mc)
    }

    /// Takes the lock to write if nobody reads or writes.
    #[inline]
    pub fn try_write<'a>(&'a self, mc: &'a Mutator<'gc>) -> Option<GcRwLockWriteGuard<'a, 'gc, T>> {
        self.lock.try_write().then(|| self.writer(mc))
    }

    /// The contents, without locking: `&mut` proves that nobody else looks, so the object is not in a heap
    /// yet.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Does what the collector needs before the contents may change. The lock is held by a writer.
    #[inline]
    fn writer<'a>(&'a self, mc: &'a Mutator<'gc>) -> GcRwLockWriteGuard<'a, 'gc, T> {
        // The guard first: it gives the lock up if the contents' trace function panics.
        let guard = GcRwLockWriteGuard { lock: self };
        // SAFETY: the lock is held alone, by the guard.
        unsafe { self.scanned.before_change(mc, self.value.get()) };
        guard
    }
}

/// Takes a lock by waiting for it, and records how long that took.
#[cold]
fn wait(mc: &Mutator<'_>, lock: impl FnOnce()) {
    let begun = Instant::now();
    lock();
    mc.core().record_container_wait(begun);
}

// SAFETY: all pointers in the contents are reported, under the lock; if it cannot be had, the tracer is
// told. The shape is left to the trace function.
unsafe impl<T: Trace> Trace for GcRwLock<'_, T> {
    const SHAPE: Shape = if T::LEAF { Shape::NoScan } else { Shape::Opaque };
    const EXACT: bool = T::EXACT;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        let lock = || self.lock.try_read_past().then(|| GcRwLockReadGuard { lock: self });
        // SAFETY: while there is a reader, nobody writes.
        unsafe { self.scanned.trace(self.value.get(), lock, tracer) };
    }
}

impl<T> fmt::Debug for GcRwLock<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GcRwLock(..)")
    }
}

/// Shared access to the contents of a [`GcRwLock`]; gives it up when dropped.
pub struct GcRwLockReadGuard<'a, 'gc, T> {
    lock: &'a GcRwLock<'gc, T>,
}

impl<T> Deref for GcRwLockReadGuard<'_, '_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: L1: this is a reader.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> Drop for GcRwLockReadGuard<'_, '_, T> {
    fn drop(&mut self) {
        // SAFETY: N1: guards are made by whoever has just become a reader, and dropped once. N2: what
        // borrows the contents borrows the guard.
        unsafe { self.lock.lock.unlock_read() };
    }
}

impl<T: fmt::Debug> fmt::Debug for GcRwLockReadGuard<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// Access to the contents of a [`GcRwLock`] for one who changes them; gives it up when dropped.
pub struct GcRwLockWriteGuard<'a, 'gc, T> {
    lock: &'a GcRwLock<'gc, T>,
}

impl<T> Deref for GcRwLockWriteGuard<'_, '_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: L1: this is the writer.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for GcRwLockWriteGuard<'_, '_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: L1: this is the writer, and the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for GcRwLockWriteGuard<'_, '_, T> {
    fn drop(&mut self) {
        // SAFETY: N1: guards are made by whoever has just become the writer, and dropped once. N2: what
        // borrows the contents borrows the guard.
        unsafe { self.lock.lock.unlock_write() };
    }
}

impl<T: fmt::Debug> fmt::Debug for GcRwLockWriteGuard<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
