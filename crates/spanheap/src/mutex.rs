//! [`GcMutex`]: any Rust collection of `Gc`s, behind a lock that the collector respects.
//!
//! The collector may read the contents only while it holds the lock, and it only *tries* to take it: a
//! locked container is put aside and tried again. For that to be right, a mutator that takes the lock
//! while a cycle runs first hands the collector all pointers inside (the contents as the snapshot had
//! them), before it can change any. In the marking phase once per cycle is enough: the container then
//! counts as scanned.
//!
//! There is no poisoning: a panic while the lock is held leaves the contents as they are.
//!
//! # Safety
//! - L1. The contents are reached only by whoever holds the lock: a guard, or the tracer.
//! - L2. A guard cannot leave its closure, by its lifetime; so no guard of an earlier closure exists when a
//!   cycle's snapshot is taken.
#![allow(unsafe_code)]

use crate::gc::Invariant;
use crate::mutator::Mutator;
use crate::trace::{Trace, Tracer};
use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU32, Ordering};
use spanheap_core::addr::Addr;
use spanheap_core::mutator::ContainerBarrier;
use spanheap_core::span::layout::Shape;
use spanheap_core::span::tracer::{EdgeSink, Reader};
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
    /// The last cycle that has scanned the contents; written under the lock, when that is done.
    scanned: AtomicU32,
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
        let (lock, scanned) = (RawLock::new(), AtomicU32::new(0));
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
        let guard = GcMutexGuard { mutex: self };
        match mc.core().container_barrier() {
            ContainerBarrier::None => {}
            ContainerBarrier::Shade => self.shade_contents(mc),
            ContainerBarrier::ShadeOnce(cycle) => {
                if self.scanned.load(Ordering::Relaxed) != cycle {
                    self.shade_contents(mc);
                    self.scanned.store(cycle, Ordering::Release);
                }
            }
        }
        guard
    }

    #[cold]
    fn shade_contents(&self, mc: &Mutator<'_>) {
        let mut sink = Shade { mc };
        // SAFETY: the lock is held, so the contents are this thread's alone, and so are containers in them.
        let mut tracer = unsafe { Tracer::new(&mut sink, Reader::Everything) };
        // SAFETY: L1: the lock is held by this thread.
        unsafe { &*self.value.get() }.trace(&mut tracer);
    }
}

/// Gives pointers to the barrier buffer.
struct Shade<'a, 'gc> {
    mc: &'a Mutator<'gc>,
}

impl EdgeSink for Shade<'_, '_> {
    fn edge(&mut self, target: Addr) {
        // SAFETY: S1: the contents' own `Gc`s (E1), and the container is in the heap of this mutator, by
        // its brand. S2: the closure has locked the container, and so holds what is in it.
        unsafe { self.mc.core().shade(target) };
    }
}

// SAFETY: all pointers in the contents are reported, under the lock; if it cannot be had, the tracer is
// told. The shape is left to the trace function.
unsafe impl<T: Trace> Trace for GcMutex<'_, T> {
    const SHAPE: Shape = if T::LEAF { Shape::NoScan } else { Shape::Opaque };
    const EXACT: bool = T::EXACT;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        let Reader::Collector(cycle) = tracer.reader() else {
            // Whoever wants everything has the contents to himself: a mutator that holds the lock of a
            // container around this one (and nobody can hold a guard of this one without it), or checkmark
            // mode, when nobody is inside. A guard that was forgotten must not hide pointers from him.
            //
            // SAFETY: L1 holds by what was just said.
            unsafe { &*self.value.get() }.trace(tracer);
            return;
        };
        // Whoever has scanned it for this cycle may hold the lock as often and as long as he likes. Acquire:
        // what he has buffered is found when he leaves his closure at the latest.
        if self.scanned.load(Ordering::Acquire) == cycle {
            return;
        }
        if !self.lock.try_lock() {
            tracer.defer();
            return;
        }
        // The guard gives the lock up even if the contents' trace function panics.
        let guard = GcMutexGuard { mutex: self };
        guard.trace(tracer);
        if !tracer.is_deferred() {
            self.scanned.store(cycle, Ordering::Release);
        }
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
