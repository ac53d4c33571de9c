//! [`GcOnce`]: a field that is set once, by whoever comes first.
//!
//! The collector reads it without a lock: a state says whether the value is there, and once it is it never
//! changes. Who finds the state *set* (acquire) sees the value as it was written before (release).
//!
//! Setting is no deletion, so it needs no barrier. The closure that sets the value holds the pointers in it,
//! and what a closure holds is marked by other means: it was loaded from where the snapshot finds it, or it
//! is new. A collector that comes too early and finds nothing has missed nothing.
//!
//! Initialisers run under a lock that only mutators take, so the collector never waits for one. If an
//! initialiser panics the lock is given up and the field is as empty as before.
//!
//! # Safety
//! - V1. The value is written by the holder of the lock while the state is *empty*, and not any more from the
//!   moment on that the state is *set*.
//! - V2. Others look at the value only after they have found the state *set*.
#![allow(unsafe_code)]

use crate::gc::Invariant;
use crate::mutator::Mutator;
use crate::trace::{Trace, Tracer};
use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use spanheap_core::span::layout::Shape;
use spanheap_core::sync::RawLock;
use std::time::Instant;

/// A field that is empty at first and set once; it may hold anything that is `Trace`.
///
/// ```
/// use spanheap::{Gc, GcOnce, Heap, Trace};
///
/// #[derive(Trace)]
/// struct Word<'gc> {
///     text: Gc<'gc, str>,
///     shouted: GcOnce<'gc, Gc<'gc, str>>,
/// }
///
/// Heap::new().enter(|mc| {
///     let word = mc.alloc(Word { text: mc.alloc_str("tree"), shouted: GcOnce::new() });
///     assert!(word.shouted.get().is_none());
///     let shouted = word.shouted.get_or_init(mc, || mc.alloc_str(&word.text.to_uppercase()));
///     assert_eq!(&**shouted, "TREE");
/// });
/// ```
pub struct GcOnce<'gc, T> {
    /// Whether the value is there.
    is_set: AtomicBool,
    /// Held by whoever is about to set it.
    lock: RawLock,
    /// The mutator that holds the lock, so that an initialiser that needs its own result is told.
    initialiser: AtomicUsize,
    _brand: Invariant<'gc>,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: V1, V2: the value is written by one thread, and shared by all after that.
unsafe impl<T: Send + Sync> Sync for GcOnce<'_, T> {}
// SAFETY: the brand is a marker and says nothing about threads.
unsafe impl<T: Send> Send for GcOnce<'_, T> {}

impl<'gc, T> GcOnce<'gc, T> {
    /// An empty field.
    pub const fn new() -> GcOnce<'gc, T> {
        GcOnce::holding(false, None)
    }

    /// A field that is set already.
    pub const fn with_value(value: T) -> GcOnce<'gc, T> {
        GcOnce::holding(true, Some(value))
    }

    const fn holding(is_set: bool, value: Option<T>) -> GcOnce<'gc, T> {
        GcOnce {
            is_set: AtomicBool::new(is_set),
            lock: RawLock::new(),
            initialiser: AtomicUsize::new(0),
            _brand: PhantomData,
            value: UnsafeCell::new(value),
        }
    }

    /// The value, if the field is set. Does not wait for an initialiser that is at work.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if !self.is_set.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: V2.
        unsafe { &*self.value.get() }.as_ref()
    }

    /// Takes the value out: the field is not in a heap, or is not any more.
    pub fn into_inner(self) -> Option<T> {
        self.value.into_inner()
    }

    /// Sets the field, if it is empty. Waits for an initialiser that is at work.
    ///
    /// # Errors
    /// The value, when the field is set already.
    ///
    /// # Panics
    /// When it is called by an initialiser of the same field.
    #[track_caller]
    pub fn set(&self, mc: &Mutator<'gc>, value: T) -> Result<(), T> {
        if self.is_set.load(Ordering::Acquire) {
            return Err(value);
        }
        let right = self.begin(mc);
        if self.get().is_some() {
            return Err(value);
        }
        right.finish(value);
        Ok(())
    }

    /// The value; when the field is empty, what `init` returns becomes its value first. Of several threads one
    /// calls its `init`, and the others wait, inside their closures.
    ///
    /// A panic of `init` is passed on and leaves the field empty; who waits tries next.
    ///
    /// # Panics
    /// When `init` needs the value of the same field.
    #[inline]
    #[track_caller]
    pub fn get_or_init(&self, mc: &Mutator<'gc>, init: impl FnOnce() -> T) -> &T {
        let init = || Ok::<T, core::convert::Infallible>(init());
        match self.get_or_try_init(mc, init) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// Like [`GcOnce::get_or_init`], with an `init` that may fail.
    ///
    /// # Errors
    /// What `init` returns. The field is as empty as before.
    ///
    /// # Panics
    /// As [`GcOnce::get_or_init`].
    #[inline]
    #[track_caller]
    pub fn get_or_try_init<E>(
        &self,
        mc: &Mutator<'gc>,
        init: impl FnOnce() -> Result<T, E>,
    ) -> Result<&T, E> {
        match self.get() {
            Some(value) => Ok(value),
            None => self.init(mc, init),
        }
    }

    #[cold]
    #[track_caller]
    fn init<E>(&self, mc: &Mutator<'gc>, init: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        let right = self.begin(mc);
        match self.get() {
            Some(value) => Ok(value),
            None => Ok(right.finish(init()?)),
        }
    }

    /// Waits for the right to set the field; it may be set by then.
    #[track_caller]
    fn begin(&self, mc: &Mutator<'gc>) -> Right<'_, 'gc, T> {
        let own = ptr::from_ref(mc.core()).addr();
        if !self.lock.try_lock() {
            // Only the own thread stores the own address, and takes it away again.
            let is_own = self.initialiser.load(Ordering::Relaxed) == own;
            assert!(!is_own, "the initialiser of a GcOnce needs the value that it is to make");
            let begun = Instant::now();
            self.lock.lock();
            mc.core().record_container_wait(begun);
        }
        self.initialiser.store(own, Ordering::Relaxed);
        Right { once: self }
    }
}

impl<T> Default for GcOnce<'_, T> {
    fn default() -> Self {
        GcOnce::new()
    }
}

/// The right to set a field; given up when dropped.
struct Right<'a, 'gc, T> {
    once: &'a GcOnce<'gc, T>,
}

impl<'a, T> Right<'a, '_, T> {
    /// Sets the field, which is empty.
    fn finish(self, value: T) -> &'a T {
        let once = self.once;
        debug_assert!(!once.is_set.load(Ordering::Relaxed));
        // SAFETY: V1: the lock is held and the state is *empty*. What is overwritten is `None`.
        unsafe { once.value.get().write(Some(value)) };
        once.is_set.store(true, Ordering::Release);
        once.get().expect("the field was set in the line before")
    }
}

impl<T> Drop for Right<'_, '_, T> {
    fn drop(&mut self) {
        self.once.initialiser.store(0, Ordering::Relaxed);
        // SAFETY: N1: made by whoever has just taken the lock, and dropped once. N2: what it protects is the
        // right to write, which goes with it.
        unsafe { self.once.lock.unlock() };
    }
}

// SAFETY: all pointers in the value are reported, if it is there (V2).
unsafe impl<T: Trace> Trace for GcOnce<'_, T> {
    const SHAPE: Shape = if T::LEAF { Shape::NoScan } else { Shape::Opaque };
    const EXACT: bool = T::EXACT;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        if let Some(value) = self.get() {
            value.trace(tracer);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for GcOnce<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.get() {
            Some(value) => f.debug_tuple("GcOnce").field(value).finish(),
            None => f.write_str("GcOnce(<empty>)"),
        }
    }
}
