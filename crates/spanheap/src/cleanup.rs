//! [`Cleanup`]: something to do when an object is gone.
//!
//! A cleanup is a function with what it has captured, and it has no way to the object: a closure that is
//! `'static` cannot hold a `Gc`. So it cannot revive the object, needs no order, and runs even if the object
//! is part of a cycle of objects with cleanups.
//!
//! # Safety
//! Objects that are given to the core are held by the open closure, by the brand.
#![allow(unsafe_code)]

use crate::gc::Gc;
use crate::mutator::Mutator;
use core::fmt;
use spanheap_core::addr::Addr;
use spanheap_core::heap::OutOfMemory;
use spanheap_core::heap::task::Task;

/// Names a cleanup, so that it can be cancelled. Dropping it does nothing: the cleanup will run.
#[derive(Clone)]
pub struct Cleanup {
    heap: u64,
    object: Addr,
    number: u64,
}

impl fmt::Debug for Cleanup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cleanup({} in heap {})", self.number, self.heap)
    }
}

impl Cleanup {
    /// Takes the cleanup back, and drops its function uncalled. False if it is too late for that: it has run, or
    /// its object was found dead, and it will run; or somebody else has cancelled it.
    ///
    /// # Panics
    /// When the closure belongs to another heap. Also when dropping what the function has captured panics.
    #[track_caller]
    pub fn cancel(&self, mc: &Mutator<'_>) -> bool {
        let (own, other) = (self.heap, mc.core().heap_number());
        assert!(
            own == other,
            "a cleanup of heap {own} was cancelled in a closure of heap {other}: cancel it in its own"
        );
        mc.core().cancel_cleanup(self.object, self.number).is_some()
    }
}

impl<'gc> Mutator<'gc> {
    /// Calls `function` when `object` is gone: some time after the cycle that finds it dead, on the heap's drop
    /// thread, where destructors run as well; at the latest when the heap is dropped. Exactly once, unless it
    /// is [cancelled](Cleanup::cancel).
    ///
    /// - An object may have any number of cleanups. They run in the order in which they were added. Between those
    ///   of different objects there is no order, nor between a cleanup and the destructor of the object itself.
    /// - The function cannot capture the object or any other `Gc`: that does not compile. It may capture a
    ///   [`Root`](crate::Root), and if that keeps the object alive, directly or through others, the cleanup
    ///   runs only when the heap is dropped. The object of a root in a cleanup should be another one.
    /// - It may enter the heap, allocate, and take its time: nobody waits for it but the destructors and cleanups
    ///   behind it. During the drop of the heap entering is a panic, as in destructors.
    /// - A panic in it is contained and counted, in `Stats::drop_panics`.
    /// - An object that is revived by a [`FinalizerQueue`](crate::FinalizerQueue) keeps its cleanups: it is not
    ///   gone.
    ///
    /// ```
    /// use spanheap::Heap;
    /// use std::sync::mpsc;
    ///
    /// let (gone, is_gone) = mpsc::channel();
    /// let heap = Heap::new();
    /// heap.enter(|mc| {
    ///     let file = mc.alloc([0_u64; 4]);
    ///     mc.cleanup(file, move || gone.send("closed").unwrap());
    /// });
    /// let _ = heap.collect();
    /// assert_eq!(is_gone.recv(), Ok("closed"));
    /// ```
    ///
    /// ```compile_fail
    /// let heap = spanheap::Heap::new();
    /// heap.enter(|mc| {
    ///     let object = mc.alloc(1);
    ///     mc.cleanup(object, move || println!("{}", *object)); // would be dead
    /// });
    /// ```
    ///
    /// # Panics
    /// When there is no memory for it: see [`Mutator::try_cleanup`].
    #[track_caller]
    pub fn cleanup<T: ?Sized>(
        &self,
        object: Gc<'gc, T>,
        function: impl FnOnce() + Send + 'static,
    ) -> Cleanup {
        match self.try_cleanup(object, function) {
            Ok(cleanup) => cleanup,
            Err(error) => panic!("{error}"),
        }
    }

    /// Calls `function` when `object` is gone: see [`Mutator::cleanup`].
    ///
    /// # Errors
    /// When the system gives no memory for the record. The function is dropped uncalled.
    pub fn try_cleanup<T: ?Sized>(
        &self,
        object: Gc<'gc, T>,
        function: impl FnOnce() + Send + 'static,
    ) -> Result<Cleanup, OutOfMemory> {
        // SAFETY: the object is this heap's, by the brand, and this closure holds it.
        let number = unsafe { self.core().add_cleanup(object.addr(), Task::new(function)) }?;
        Ok(Cleanup { heap: self.core().heap_number(), object: object.addr(), number })
    }
}
