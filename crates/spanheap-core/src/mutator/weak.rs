//! What closures do with weak pointers, ephemerons, cleanups and finalizers.
//!
//! How each of them fits in a cycle is said in [`crate::collect::weak`], [`crate::heap::waiting`],
//! [`crate::heap::drops`] and [`crate::heap::revival`]. Here are the few steps that a mutator takes, and
//! which barrier each needs:
//!
//! | step | barrier |
//! |---|---|
//! | upgrade a weak pointer, read the key of an ephemeron | as the phase demands: see [`Mutator::upgrade`] |
//! | read the value of an ephemeron | none, for whoever holds its key: both are retained, so the value is |
//! | find the handle of an object | none, for whoever holds the object: its handle is retained with it |
//! | take an object out of a revival queue | buffered, like a root that is dropped and an edge that is loaded |
//!
//! # Safety
//! Objects are held by the open closure, or were found through handles; both are the caller's promise.
#![allow(unsafe_code)]

use super::Mutator;
use crate::addr::{Addr, Bytes};
use crate::collect::Phase;
use crate::collect::weak::HANDLE;
use crate::heap::revival::RevivalQueue;
use crate::heap::specials::AddError;
use crate::heap::task::Task;
use crate::heap::{OutOfMemory, Refused};
use crate::span::specials::{Kind, Payload};
use crate::sync::atomic::{AtomicUsize, Ordering};
use core::ptr::NonNull;
use std::sync::Arc;

impl Mutator {
    /// The object that a weak pointer leads to, null when it is dead. From then on the open closure holds it.
    ///
    /// # Safety
    /// A closure is open, and holds what `handle` is a word of: a handle that [`Mutator::downgrade`] has returned,
    /// or an ephemeron, of which it is the key's word.
    #[inline]
    pub unsafe fn upgrade(&self, handle: &AtomicUsize) -> Addr {
        debug_assert!(self.is_inside());
        let word = self.word.get();
        // In a forked child nothing is swept any more: whatever a handle leads to is there.
        if word.phase() == Phase::Marking && self.collector.central().is_here() {
            return self.collector.upgrade_while_marking(handle, word.cycle());
        }
        // Acquire: the target's contents were published before the handle was made.
        let target = Addr::new(handle.load(Ordering::Acquire));
        if self.is_buffering() {
            // SAFETY: S1: words of handles hold 0 or an object. S2: it was just loaded.
            unsafe { self.shade(target) };
        }
        target
    }

    /// The handle of an object: a word that holds the object's address until the object dies, and 0 after that.
    /// An object has one at most, so there is none to be made most of the time. The handle is an object itself.
    ///
    /// # Errors
    /// When there is no memory for it.
    ///
    /// # Safety
    /// A closure is open, and `object` is an object of this heap that it holds.
    pub unsafe fn downgrade(&self, object: Addr) -> Result<NonNull<AtomicUsize>, OutOfMemory> {
        loop {
            // SAFETY: the caller's promise.
            if let Some(handle) = unsafe { self.find_handle(object) } {
                return Ok(handle);
            }
            // SAFETY: a closure is open; the description is that of handles.
            let slot = unsafe { self.alloc(&HANDLE) }?;
            let handle = slot.cast::<[usize; 2]>();
            // SAFETY: the slot is for a handle, and ours.
            unsafe { handle.write([object.get(), 0]) };
            // SAFETY: the handle is initialised.
            unsafe { self.publish(slot) };
            let payload = [slot.as_ptr().expose_provenance(), 0];
            // SAFETY: the caller's promise.
            match unsafe { self.add_special(object, Kind::Weak, payload) } {
                Ok(_) => return Ok(slot.cast()),
                // Another thread was faster. The handle that was made here is garbage.
                Err(AddError::Exists) => {}
                Err(error) => return Err(self.no_record(error)),
            }
        }
    }

    /// The handle of `object`, if it has one.
    ///
    /// # Safety
    /// As [`Mutator::downgrade`].
    unsafe fn find_handle(&self, object: Addr) -> Option<NonNull<AtomicUsize>> {
        let central = self.collector.central();
        let mut handle = None;
        let note = |special: &crate::span::specials::Special| {
            if special.kind == Kind::Weak {
                handle = NonNull::new(Addr::new(special.payload[0]).as_ptr());
            }
        };
        // SAFETY: the caller holds the object, and it is looked up in the open closure.
        let found = unsafe { central.drops().specials().for_each(self.find_object(object), note) };
        debug_assert!(found.is_ok(), "{object} is not an object of this heap");
        handle
    }

    /// Calls `task` when `object` is gone, on the drop thread, or at the end of the heap: exactly once, unless
    /// [`Mutator::cancel_cleanup`] comes before. The number that is returned names it.
    ///
    /// # Errors
    /// When there is no memory for the record; the task is dropped.
    ///
    /// # Safety
    /// As [`Mutator::downgrade`].
    pub unsafe fn add_cleanup(&self, object: Addr, task: Task) -> Result<u64, OutOfMemory> {
        let payload = task.into_payload();
        // SAFETY: the caller's promise.
        unsafe { self.add_special(object, Kind::Cleanup, payload) }.map_err(|error| {
            // SAFETY: no record has the payload.
            drop(unsafe { Task::from_payload(payload) });
            self.no_record(error)
        })
    }

    /// Takes a cleanup back; `None` when it has run, or is about to: its object was found dead.
    ///
    /// `object` and `number` are those of the cleanup; the object may be dead. When a closure of its
    /// heap is not open, that is a panic.
    pub fn cancel_cleanup(&self, object: Addr, number: u64) -> Option<Task> {
        let specials = self.collector.central().drops().specials();
        let found = self.find_object(object);
        // SAFETY: the object need not be held. If it is dead and was swept, its records are gone, and what is
        // found there has none with this number; its span's record stays one while the closure is open (P3).
        // If it was not swept, its span stays as long as the list is locked.
        let removed = unsafe { specials.remove(found, Kind::Cleanup, Some(number)) };
        // SAFETY: payloads of cleanups are tasks, and the record is gone.
        removed.ok().flatten().map(|payload| unsafe { Task::from_payload(payload) })
    }

    /// A queue for revived objects of this heap.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub fn open_revival_queue(&self) -> Arc<RevivalQueue> {
        self.collector.central().assert_here();
        self.collector.central().revivals().open(self.heap_number())
    }

    /// Asks for `object` to be revived, once, when it is found dead, and put into `queue` together with `extra`,
    /// a number of the caller's. False when that was asked for already, with whatever queue.
    ///
    /// # Errors
    /// When there is no memory for the record.
    ///
    /// # Panics
    /// When the queue is of another heap.
    ///
    /// # Safety
    /// As [`Mutator::downgrade`].
    pub unsafe fn register_for_revival(
        &self,
        queue: &RevivalQueue,
        object: Addr,
        extra: usize,
    ) -> Result<bool, OutOfMemory> {
        assert!(queue.heap() == self.heap_number(), "a revival queue of another heap");
        queue.count_record();
        // SAFETY: the caller's promise.
        match unsafe { self.add_special(object, Kind::Finalizer, [queue.address(), extra]) } {
            Ok(_) => Ok(true),
            Err(error) => {
                queue.discount_record();
                match error {
                    AddError::Exists => Ok(false),
                    error => Err(self.no_record(error)),
                }
            }
        }
    }

    /// The object that was revived first, with its number, taken out of the queue. The open closure holds it.
    ///
    /// # Panics
    /// When no closure is open, or the queue is of another heap; and in a process that was forked from the heap's.
    pub fn pop_revived(&self, queue: &RevivalQueue) -> Option<(Addr, usize)> {
        assert!(
            self.is_inside(),
            "a revived object is taken out of its queue outside of a closure"
        );
        assert!(queue.heap() == self.heap_number(), "a revival queue of another heap");
        self.collector.central().assert_here();
        let record = queue.pop()?;
        let (object, extra) = (record.object, record.payload[1]);
        if self.is_buffering() {
            // SAFETY: S1: the queue retains its objects. S2: this one was just taken out.
            unsafe { self.shade(object) };
        }
        self.collector.central().drops().specials().free(record);
        queue.discount_record();
        Some((object, extra))
    }

    /// # Safety
    /// As [`Mutator::downgrade`]; the payload is what the kind demands.
    unsafe fn add_special(
        &self,
        object: Addr,
        kind: Kind,
        payload: Payload,
    ) -> Result<u64, AddError> {
        let central = self.collector.central();
        let found = self.find_object(object);
        let (os, memory) = (central.os(), central.memory());
        // SAFETY: the caller holds the object, and it was looked up in the open closure.
        unsafe { central.drops().specials().add(os, memory, found, kind, payload) }
    }

    /// Why there is no record.
    fn no_record(&self, error: AddError) -> OutOfMemory {
        match error {
            AddError::Memory(_) => {
                self.collector.central().out_of_memory(Bytes::ZERO, Refused::System)
            }
            AddError::NotAnObject | AddError::Exists => {
                panic!("a record was to be hung on something else than an object: {error:?}")
            }
        }
    }
}
