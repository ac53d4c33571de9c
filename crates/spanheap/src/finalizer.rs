//! [`FinalizerQueue`]: objects that were found dead, handed back alive.
//!
//! For those who write virtual machines whose language has finalizers. A program of its own is better off with
//! [`Mutator::cleanup`] or a destructor: these cost less and cannot be used wrongly.
//!
//! # Safety
//! - F1. The number that an object was registered with is the metadata of its pointer, and all objects of a queue
//!   are of the type that its `R` names: it is invariant in `R`.
#![allow(unsafe_code)]

use crate::gc::Gc;
use crate::mutator::Mutator;
use crate::root::RootedPointer;
use crate::rootable::Rootable;
use core::fmt;
use core::marker::PhantomData;
use spanheap_core::heap::OutOfMemory;
use spanheap_core::heap::revival::RevivalQueue;
use std::sync::Arc;

/// A queue of objects that have died and live once more, until the program has seen them.
///
/// An object is registered; when a cycle finds that nothing else leads to it, it is put into the queue instead of
/// being freed, and with it stays all that it points to. The program takes it out whenever it likes, on
/// whatever thread, inside a closure, and does with it what it wants: run the finalizer of its language, store
/// the object again, register it again, or drop it.
///
/// ```
/// use spanheap::{FinalizerQueue, Heap, Rootable};
///
/// let heap = Heap::new();
/// let queue: FinalizerQueue<Rootable![str]> = heap.enter(|mc| {
///     let queue = mc.finalizer_queue();
///     queue.register(mc, mc.alloc_str("farewell, and thanks"));
///     queue
/// });
/// let _ = heap.collect();
/// heap.enter(|mc| {
///     assert_eq!(queue.pop(mc).as_deref(), Some("farewell, and thanks"));
///     assert!(queue.pop(mc).is_none()); // once
/// });
/// ```
///
/// - **Once.** Registering is used up when the object is put into the queue. To see it again, register it again.
/// - **Weak pointers first.** All [`Weak`](crate::Weak) pointers to the object, and the entries of
///   [`WeakMap`](crate::WeakMap)s with it as a key, are cleared before it is revived. Everything that only the
///   object leads to is revived with it, but weak pointers to these are cleared, too: nothing led to them.
/// - **No order.** All registered objects that a cycle finds dead are revived by it, those that point to each
///   other as well, in circles or not. What a revived object points to is always valid; that it may have been
///   finalized before is the program's business.
/// - **Memory.** A revived object is retained until it was taken out, like a root. Nobody waits for the program
///   to do that. When the queue is dropped, what is in it is let go of, and objects that are registered die
///   like others. When the heap is dropped, nothing is revived any more.
pub struct FinalizerQueue<R: for<'a> Rootable<'a>> {
    queue: Arc<RevivalQueue>,
    /// Invariant in `R` (F1).
    _type: PhantomData<fn(R) -> R>,
}

impl<R: for<'a> Rootable<'a>> FinalizerQueue<R> {
    /// Has `object` put into this queue when it is found dead. False when it is registered already, with this
    /// queue or with another one; then nothing has changed.
    ///
    /// # Panics
    /// When the closure belongs to another heap than the queue, and when there is no memory: see
    /// [`FinalizerQueue::try_register`].
    #[track_caller]
    pub fn register<'gc>(
        &self,
        mc: &Mutator<'gc>,
        object: Gc<'gc, <R as Rootable<'gc>>::Root>,
    ) -> bool {
        match self.try_register(mc, object) {
            Ok(is_new) => is_new,
            Err(error) => panic!("{error}"),
        }
    }

    /// Has `object` put into this queue when it is found dead, if there is memory for the record.
    ///
    /// # Errors
    /// When the system gives no memory.
    ///
    /// # Panics
    /// When the closure belongs to another heap than the queue.
    #[track_caller]
    pub fn try_register<'gc>(
        &self,
        mc: &Mutator<'gc>,
        object: Gc<'gc, <R as Rootable<'gc>>::Root>,
    ) -> Result<bool, OutOfMemory> {
        self.check(mc);
        let [_, metadata] = RootedPointer::erase::<R>(object.pointer()).words();
        // SAFETY: the object is this heap's, by the brand, and this closure holds it.
        unsafe { mc.core().register_for_revival(&self.queue, object.addr(), metadata) }
    }

    /// Takes out the object that has been in the queue longest.
    ///
    /// # Panics
    /// When the closure belongs to another heap than the queue.
    #[track_caller]
    pub fn pop<'gc>(&self, mc: &Mutator<'gc>) -> Option<Gc<'gc, <R as Rootable<'gc>>::Root>> {
        self.check(mc);
        let (object, metadata) = mc.core().pop_revived(&self.queue)?;
        let pointer = RootedPointer::from_words([object.get(), metadata]);
        // SAFETY: F1: these are the words of such a pointer.
        let pointer = unsafe { pointer.restore::<R>() };
        // SAFETY: G1: the queue has retained the object, and now this closure holds it.
        Some(unsafe { Gc::from_pointer(pointer) })
    }

    /// How many objects are in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.waiting()
    }

    /// Whether no object is in the queue.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[track_caller]
    fn check(&self, mc: &Mutator<'_>) {
        let (own, other) = (self.queue.heap(), mc.core().heap_number());
        assert!(
            own == other,
            "a finalizer queue of heap {own} was used in a closure of heap {other}: use it in its own"
        );
    }
}

impl<R: for<'a> Rootable<'a>> Drop for FinalizerQueue<R> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl<R: for<'a> Rootable<'a>> fmt::Debug for FinalizerQueue<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FinalizerQueue({} in heap {})", self.len(), self.queue.heap())
    }
}

impl Mutator<'_> {
    /// A queue for objects that are to be revived when they have died: see [`FinalizerQueue`].
    #[must_use]
    pub fn finalizer_queue<R: for<'a> Rootable<'a>>(&self) -> FinalizerQueue<R> {
        FinalizerQueue { queue: self.core().open_revival_queue(), _type: PhantomData }
    }
}
