//! [`GcMutex`]: any Rust collection of `Gc`s, behind a lock that the collector respects.
//!
//! What a mutator owes the collector when it takes the lock, and how the collector reads, is in
//! [`crate::container`].
//!
//! There is no poisoning: a panic while the lock is held leaves the contents as they are.
//!
//! # Safety
//! L1 and L2, of `container.rs`.
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
use spanheap_core::sync::RawLock;
use std::time::Instant;

/// A value that is shared by the threads of a heap and changed by one at a time; it may hold `Gc`s
/// wherever it likes.
///
/// The lock is not reentrant. A guard that is forgotten (`mem::forget`) keeps the container locked for
/// ever, and no cycle can be completed after that until the heap is dropped.
///
/// The lifetime is the brand of the closure, as in `GcCell`: a container of one heap cannot be locked with
/// the mutator of another, which knows nothing of the first one's collector.
pub struct GcMutex<'gc, T> {
    lock: RawLock,
    scanned: Scanned,
    _brand: Invariant<'gc>,
    value: UnsafeCell<T>,
}

// SAFETY: L1: one thread at a time has the contents.
unsafe impl<T: Send> Sync for GcMutex<'_, T> {}
// SAFETY: the brand is a marker and says nothing about threads.
unsafe impl<T: Send> Send for GcMutex<'_, T> {}

impl<'gc, T: Trace> GcMutex<'gc, T> {
    /// A free container with `value` in it.
    pub const fn new(value: T) -> GcMutex<'gc, T> {
        let (lock, scanned) = (RawLock::new(), Scanned::never());
        GcMutex { lock, scanned, _brand: PhantomData, value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    ///
    /// The wait counts as a stall of the thread; whoever holds the lock is another mutator or, for as
    /// long as it takes to read the contents, the collector.
    #[inline]
    pub fn lock<'a>(&'a self, mc: &'a Mutator<'gc>) -> GcMutexGuard<'a, 'gc, T> {
        if !self.lock.try_lock() {
            self.wait(mc);
        }
        self.guard(mc)
    }

    #[cold]
    fn wait(&self, mc: &Mutator<'_>) {
        let begun = Instant::now();
        self.lock.lock();
        mc.core().record_container_wait(begun);
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock<'a>(&'a self, mc: &'a Mutator<'gc>) -> Option<GcMutexGuard<'a, 'gc, T>> {
        self.lock.try_lock().then(|| self.guard(mc))
    }

    /// The contents, without locking: `&mut` proves that nobody else looks, so the object is not in a heap
    /// yet.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }

    /// Does what the collector needs before the contents may change. The lock is held.
    #[inline]
    fn guard<'a>(&'a self, mc: &'a Mutator<'gc>) -> GcMutexGuard<'a, 'gc, T> {
        // The guard first: it gives the lock up if the contents' trace function panics.
        let guard = GcMutexGuard { mutex: self };
        // SAFETY: the lock is held, by the guard.
        unsafe { self.scanned.before_change(mc, self.value.get()) };
        guard
    }
}

// SAFETY: all pointers in the contents are reported, under the lock; if it cannot be had, the tracer is
// told. The shape is left to the trace function.
unsafe impl<T: Trace> Trace for GcMutex<'_, T> {
    const SHAPE: Shape = if T::LEAF { Shape::NoScan } else { Shape::Opaque };
    const EXACT: bool = T::EXACT;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        let lock = || self.lock.try_lock().then(|| GcMutexGuard { mutex: self });
        // SAFETY: a guard holds the lock.
        unsafe { self.scanned.trace(self.value.get(), lock, tracer) };
    }
}

impl<T> fmt::Debug for GcMutex<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GcMutex(..)")
    }
}

/// Access to the contents of a [`GcMutex`]; gives the lock up when dropped.
pub struct GcMutexGuard<'a, 'gc, T> {
    mutex: &'a GcMutex<'gc, T>,
}

// SAFETY: a guard gives access to a `T` and can be shared if a `T` can.
unsafe impl<T: Sync> Sync for GcMutexGuard<'_, '_, T> {}

impl<T> Deref for GcMutexGuard<'_, '_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: L1.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for GcMutexGuard<'_, '_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: L1, and the guard is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for GcMutexGuard<'_, '_, T> {
    fn drop(&mut self) {
        // SAFETY: N1: guards are made by whoever has just taken the lock, and dropped once. N2: what
        // borrows the contents borrows the guard.
        unsafe { self.mutex.lock.unlock() };
    }
}

impl<T: fmt::Debug> fmt::Debug for GcMutexGuard<'_, '_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
