//! Specials: records on single objects, kept while the objects live and handed out when they die.
//!
//! A record is found by its object's span ([`crate::span::specials`]), whose list has a lock of its own.
//! Here is what a heap's spans share: the pool that records come from, their numbers, and a queue of
//! records whose objects were found dead. The sweep that finds them runs in an allocation or on the
//! collector's thread, where nothing may be called; so it moves records into the queue and nothing else.
//! Whoever has promised something to the program takes them out.
//!
//! ```text
//!   add --> list of the span --(the sweep finds the object dead)--> due --next_due--> the caller
//!            |   |                                   '--> a profile record is freed and counted
//!            |   '--(the cycle decides that it is dead)--> finalizers, to be revived by the caller
//!            '--remove, take--> the caller             '--> a weak pointer is cleared, its record freed
//! ```
//!
//! **What a cycle decides, and what a sweep finds.** Weak pointers are cleared, and objects with a finalizer
//! revived with all that they reach, when marking ends and before anything is swept
//! ([`Specials::decide`]). So the sweep meets neither on an object that is dead, and what it hands out are
//! cleanups. It would handle them all the same: then an object with a finalizer lives once more, by itself.
//!
//! **A value of less than 16 bytes without pointers** shares its slot with others. It may have records of its
//! own all the same; it lives as long as any value in its slot.
//!
//! **Adding while the span is still to be swept.** Go sweeps the span first, because its sweep walks the
//! list without a lock. Here the sweep takes the list's lock, and decides by the marks, which are
//! finished: an object that a closure holds is marked, so a record that is added before the sweep, or
//! during it, stays.
//!
//! # Invariants
//! - L1. Records hang on objects that are allocated and not dead, or dead and not yet swept.
//! - L2. A span that is freed has none: all its objects were found dead by sweeps before.
//!
//! # Locking
//! [`Rank::Specials`] for the list of a span, [`Rank::SpecialRecords`] for the pool and the queue. A record
//! is allocated before and freed after the list is locked.
//!
//! # Safety
//! Records come from the pool and go back to it, through values that own them.
#![allow(unsafe_code)]

use super::page_heap::PageHeap;
use super::revival::Revivals;
use crate::addr::{Addr, GRANULE_BYTES};
use crate::offheap::{FixedPool, Persistent};
use crate::os::{Category, Os, OsError};
use crate::span::lookup::{Lookup, Object};
use crate::span::specials::{Kind, OwnedSpecial, Payload, Special, SpecialQueue};
use crate::span::{Span, Table, bits};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};

/// Why there is no record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddError {
    /// The address is not that of an object of this heap, its first byte.
    NotAnObject,
    /// The object has a record of this kind already.
    Exists,
    /// The system gives no memory.
    Memory(OsError),
}

/// The address is not that of an object of this heap, its first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAnObject;

/// The records of a heap.
pub struct Specials {
    state: Lock<State>,
    /// Whether a record may be due; read without the lock.
    has_due: AtomicBool,
}

struct State {
    pool: FixedPool<Special>,
    due: SpecialQueue,
    /// Records made so far.
    made: u64,
    /// Profile records whose objects have died.
    profiles: u64,
}

impl State {
    fn free(&mut self, special: OwnedSpecial) {
        // SAFETY: every record comes from the pool, and the right to it is given up here.
        unsafe { self.pool.free(special.into_memory()) };
    }
}

impl Specials {
    /// A heap without records.
    pub const fn new() -> Specials {
        let state = State {
            pool: FixedPool::new(Category::Metadata),
            due: SpecialQueue::new(),
            made: 0,
            profiles: 0,
        };
        Specials { state: Lock::new(Rank::SpecialRecords, state), has_due: AtomicBool::new(false) }
    }

    /// Whether a record may be due.
    pub fn has_due(&self) -> bool {
        self.has_due.load(Ordering::Acquire)
    }

    /// Gives the memory of a record back.
    pub(crate) fn free(&self, special: OwnedSpecial) {
        self.state.lock().free(special);
    }

    /// Hangs a record on the object that was `found`. The number that is returned is the record's.
    ///
    /// # Errors
    /// When nothing was found, or not by its first byte; when the object has such a record; when there is
    /// no memory. Nothing has changed then.
    ///
    /// # Safety
    /// What was found is an object that an open closure of the heap holds, and was found in this closure;
    /// `os` and `memory` are the heap's, and the same in every call.
    pub unsafe fn add(
        &self,
        os: &Os,
        memory: &Persistent,
        found: Lookup,
        kind: Kind,
        payload: Payload,
    ) -> Result<u64, AddError> {
        let (object, at_object) = whole(found).map_err(|NotAnObject| AddError::NotAnObject)?;
        let mut state = self.state.lock();
        let (at, _) = state.pool.alloc(os, memory).map_err(AddError::Memory)?;
        let number = state.made + 1;
        let special = Special::new(at_object, kind, number, payload);
        // SAFETY: the pool has handed the memory out just now.
        let special = unsafe { OwnedSpecial::init(at, special) };
        state.made = number;
        drop(state);
        let span = span_of(&object);
        let mut list = span.specials();
        debug_assert!(span.info().range().contains(object.start), "the object is not held");
        let inserted = list.insert(special);
        span.set_has_specials(!list.is_empty());
        drop(list);
        inserted.map(|()| number).map_err(|special| {
            self.state.lock().free(special);
            AddError::Exists
        })
    }

    /// Takes a record off the object that was `found`, and returns what it carried; of several cleanups the
    /// first, or the one with that number. `None`: it has no such record.
    ///
    /// # Errors
    /// When nothing was found, or not by its first byte.
    ///
    /// # Safety
    /// As [`Specials::add`]; but an object that was dead when it was looked up, or has died since, does no harm.
    pub unsafe fn remove(
        &self,
        found: Lookup,
        kind: Kind,
        number: Option<u64>,
    ) -> Result<Option<Payload>, NotAnObject> {
        let (object, at_object) = whole(found)?;
        let span = span_of(&object);
        let mut list = span.specials();
        let removed = list.remove(at_object, kind, number);
        span.set_has_specials(!list.is_empty());
        drop(list);
        Ok(removed.map(|special| {
            let payload = special.payload;
            self.state.lock().free(special);
            payload
        }))
    }

    /// Takes all records off the object that was `found`, and gives them to `each`, in order.
    ///
    /// # Errors
    /// When nothing was found, or not by its first byte.
    ///
    /// # Safety
    /// As [`Specials::add`].
    pub unsafe fn take(
        &self,
        found: Lookup,
        mut each: impl FnMut(&Special),
    ) -> Result<(), NotAnObject> {
        let (object, at_object) = whole(found)?;
        let span = span_of(&object);
        let mut list = span.specials();
        let mut taken = list.take(at_object);
        span.set_has_specials(!list.is_empty());
        drop(list);
        while let Some(special) = taken.pop() {
            each(&special);
            self.state.lock().free(special);
        }
        Ok(())
    }

    /// Shows the records of the object that was `found` to `each`, in order. Their list is locked
    /// meanwhile.
    ///
    /// # Errors
    /// When nothing was found, or not by its first byte.
    ///
    /// # Safety
    /// As [`Specials::add`].
    pub unsafe fn for_each(
        &self,
        found: Lookup,
        each: impl FnMut(&Special),
    ) -> Result<(), NotAnObject> {
        let (object, at_object) = whole(found)?;
        let list = span_of(&object).specials();
        list.iter().filter(|special| special.object == at_object).for_each(each);
        Ok(())
    }

    /// What is done about records when a span is swept: the first thing, as long as the marks say which
    /// objects are dead. `marked` is the table of the finished cycle.
    pub(super) fn sweep(&self, span: &Span, marked: Table) {
        let mut out = SpecialQueue::new();
        let mut list = span.specials();
        list.sweep(
            |object| !bits::is_set(marked, object),
            |object| bits::set(marked, object),
            &mut out,
        );
        span.set_has_specials(!list.is_empty());
        drop(list);
        if out.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        while let Some(special) = out.pop() {
            if special.kind == Kind::Profile {
                state.profiles += 1;
                state.free(special);
            } else {
                state.due.push(special);
                self.has_due.store(true, Ordering::Release);
            }
        }
    }

    /// What is done about records when a cycle has marked, and nothing has been swept since the last one:
    /// weak pointers to dead objects are cleared, the handles of the others are given to `keep`, and
    /// records of dead objects that are to be revived are returned. It takes a step for each record, and looks
    /// at no span without one.
    ///
    /// A record that is added meanwhile belongs to an object that a closure holds, so it is not missed.
    ///
    /// # Safety
    /// No span is swept or freed meanwhile, and the marks in `marked` are complete. The first word of the payload
    /// of weak pointers is the address of their handle, that of finalizers is their queue's.
    pub(crate) unsafe fn decide(
        &self,
        pages: &PageHeap,
        marked: Table,
        mut keep: impl FnMut(Addr),
    ) -> SpecialQueue {
        let (mut decided, mut revived) = (SpecialQueue::new(), SpecialQueue::new());
        for arena in pages.arenas() {
            for page in arena.special_pages() {
                // SAFETY: P3: spans with records are in use, and none is freed meanwhile.
                let Some(span) = (unsafe { arena.span(page).as_ref() }) else { continue };
                let mut list = span.specials();
                list.decide(
                    |object| !bits::is_set(marked, object),
                    |special| keep(Addr::new(special.payload[0])),
                    &mut decided,
                );
                span.set_has_specials(!list.is_empty());
            }
        }
        while let Some(special) = decided.pop() {
            if special.kind == Kind::Weak {
                let handle = Addr::new(special.payload[0]).as_ptr::<AtomicUsize>();
                // SAFETY: the caller says that this is a handle's word. The handle is not swept yet, even if it
                // is dead, too.
                unsafe { &*handle }.store(0, Ordering::Release);
                self.free(special);
            } else if Revivals::accepts(&special) {
                revived.push(special);
            } else {
                self.free(special);
            }
        }
        revived
    }

    /// The next record whose object was found dead: in the order in which spans were swept, and there in
    /// that of their objects. For one object, weak pointers come before what is to be called.
    pub fn next_due(&self) -> Option<Special> {
        let mut state = self.state.lock();
        let Some(special) = state.due.pop() else {
            self.has_due.store(false, Ordering::Release);
            return None;
        };
        let copy = Special::new(special.object, special.kind, special.number, special.payload);
        state.free(special);
        Some(copy)
    }

    /// Records that hang on objects or are due, and profile records whose objects have died.
    pub fn counts(&self) -> (usize, u64) {
        let state = self.state.lock();
        (state.pool.in_use(), state.profiles)
    }
}

impl Default for Specials {
    fn default() -> Specials {
        Specials::new()
    }
}

/// What was found, and where, if by its first byte. In a slot of 16 bytes a small value may begin anywhere.
fn whole(found: Lookup) -> Result<(Object, Addr), NotAnObject> {
    let is_first = |object: &Object| object.offset.get() == 0 || object.size.get() == GRANULE_BYTES;
    let object = found.object().filter(is_first).ok_or(NotAnObject)?;
    Ok((object, object.start + object.offset))
}

/// The span of an object that is held: it stays for as long.
fn span_of(object: &Object) -> &Span {
    // SAFETY: lookups name span records (P3), and a span that holds an object in use stays.
    unsafe { object.span.as_ref() }
}

#[cfg(test)]
mod tests;
