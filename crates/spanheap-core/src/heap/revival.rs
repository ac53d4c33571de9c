//! Revival: queues of objects that were found dead and live once more, for whoever has asked to see them.
//!
//! An object that is registered with a queue has a record, of the kind `Finalizer`. When a cycle finds that
//! nothing else reaches the object, it takes the record off, marks the object and all that it reaches, and
//! appends the record to its queue. From then on the queue retains the object like a root, until somebody
//! takes it out; then it is an object like any other, which may be stored, or registered again, or forgotten.
//!
//! **In no order.** Everything that is registered and unreachable in a cycle is revived in this cycle, objects
//! that point to each other in a circle too. So whoever takes one out finds all that it points to valid, and
//! may find there what has been taken out before.
//!
//! **Once.** The record is used up. So a program that does not register again is done when each object has
//! been taken out once, and one that makes new objects for ever only keeps its own thread busy.
//!
//! # Invariants
//! - V1. A record of a queue holds the queue's address; the queue is in the list as long as there is one.
//! - V2. Objects of records in a queue are retained: they are marked at the beginning of each cycle.
//! - V3. A closed queue takes nothing in, and gives nothing out.
//!
//! # Locking
//! [`Rank::RevivalQueues`] for the list, [`Rank::Revived`] for what a queue holds.
//!
//! # Safety
//! Queues are reached through the addresses in their records, by V1.
#![allow(unsafe_code)]

use super::specials::Specials;
use crate::addr::Addr;
use crate::span::specials::{OwnedSpecial, SpecialQueue};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};
use std::sync::Arc;

/// A queue of revived objects.
pub struct RevivalQueue {
    heap: u64,
    revived: Lock<SpecialQueue>,
    /// Records on objects and in the queue.
    records: AtomicUsize,
    /// Records in the queue.
    waiting: AtomicUsize,
    open: AtomicBool,
}

impl RevivalQueue {
    /// The heap that the queue belongs to.
    pub fn heap(&self) -> u64 {
        self.heap
    }

    /// Revived objects that wait to be taken out.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Nobody will take anything out any more: objects that are registered die like others.
    pub fn close(&self) {
        self.open.store(false, Ordering::Release);
    }

    /// The address that records carry.
    pub(crate) fn address(&self) -> usize {
        core::ptr::from_ref(self).expose_provenance()
    }

    /// A record is about to be made that carries the queue's address.
    pub(crate) fn count_record(&self) {
        self.records.fetch_add(1, Ordering::AcqRel);
    }

    /// A record that carried the queue's address is gone.
    pub(crate) fn discount_record(&self) {
        self.records.fetch_sub(1, Ordering::AcqRel);
    }

    /// The queue with this address.
    ///
    /// # Safety
    /// A record carries the address, and stays for as long as `'a` (V1).
    unsafe fn at<'a>(address: usize) -> &'a RevivalQueue {
        // SAFETY: the caller's promise; the address was exposed when the record was made.
        unsafe { &*core::ptr::with_exposed_provenance::<RevivalQueue>(address) }
    }

    /// Takes the first record out. The caller counts it off when it has been freed.
    pub(crate) fn pop(&self) -> Option<OwnedSpecial> {
        let record = self.revived.lock().pop()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(record)
    }
}

/// The queues of a heap.
pub struct Revivals {
    queues: Lock<Vec<Arc<RevivalQueue>>>,
}

impl Revivals {
    /// None.
    pub const fn new() -> Revivals {
        Revivals { queues: Lock::new(Rank::RevivalQueues, Vec::new()) }
    }

    /// A new queue of the heap with this number.
    pub fn open(&self, heap: u64) -> Arc<RevivalQueue> {
        let queue = Arc::new(RevivalQueue {
            heap,
            revived: Lock::new(Rank::Revived, SpecialQueue::new()),
            records: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            open: AtomicBool::new(true),
        });
        self.queues.lock().push(queue.clone());
        queue
    }

    /// Lets go of what closed queues hold, and of queues that no record names any more. At the beginning of a
    /// cycle, as with roots: what is let go of during a cycle is retained to its end.
    pub fn trim(&self, specials: &Specials) {
        self.queues.lock().retain(|queue| {
            if queue.open.load(Ordering::Acquire) {
                return true;
            }
            while let Some(record) = queue.pop() {
                specials.free(record);
                queue.discount_record();
            }
            queue.records.load(Ordering::Acquire) > 0
        });
    }

    /// Reports the objects in all queues (V2).
    pub fn scan(&self, mut report: impl FnMut(Addr)) {
        for queue in self.queues.lock().iter() {
            queue.revived.lock().iter().for_each(|record| report(record.object));
        }
    }

    /// Whether the queue of a record still takes objects in. If not, the record is counted off.
    pub fn accepts(record: &OwnedSpecial) -> bool {
        // SAFETY: V1: the record carries its queue's address.
        let queue = unsafe { RevivalQueue::at(record.payload[0]) };
        let open = queue.open.load(Ordering::Acquire);
        if !open {
            queue.discount_record();
        }
        open
    }

    /// Puts records into their queues. Their objects, and all that these reach, are marked.
    pub fn publish(mut records: SpecialQueue) {
        while let Some(record) = records.pop() {
            // SAFETY: V1: the record carries its queue's address, and goes into that queue.
            let queue = unsafe { RevivalQueue::at(record.payload[0]) };
            queue.waiting.fetch_add(1, Ordering::Relaxed);
            queue.revived.lock().push(record);
        }
    }
}

impl Default for Revivals {
    fn default() -> Revivals {
        Revivals::new()
    }
}
