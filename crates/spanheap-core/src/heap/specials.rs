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
//!              |                                     '--> a profile record is freed and counted
//!              '--remove, take--> the caller
//! ```
//!
//! **An object with a finalizer lives once more**: its mark is set by the sweep, and only the finalizer and
//! the weak pointers are handed out. When it is found dead again, it has no finalizer, and the rest goes.
//! What the object points to is not followed here, so a finalizer belongs only on objects that point to
//! nothing which could be freed before them.
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

use crate::offheap::{FixedPool, Persistent};
use crate::os::{Category, Os, OsError};
use crate::span::lookup::{Lookup, Object};
use crate::span::specials::{Kind, OwnedSpecial, Payload, Special, SpecialQueue};
use crate::span::{Span, Table, bits};
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
        Specials { state: Lock::new(Rank::SpecialRecords, state) }
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
        let object = whole(found).map_err(|NotAnObject| AddError::NotAnObject)?;
        let mut state = self.state.lock();
        let (at, _) = state.pool.alloc(os, memory).map_err(AddError::Memory)?;
        let number = state.made + 1;
        let special = Special::new(object.start, kind, number, payload);
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
    /// As [`Specials::add`].
    pub unsafe fn remove(
        &self,
        found: Lookup,
        kind: Kind,
        number: Option<u64>,
    ) -> Result<Option<Payload>, NotAnObject> {
        let object = whole(found)?;
        let span = span_of(&object);
        let mut list = span.specials();
        let removed = list.remove(object.start, kind, number);
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
        let object = whole(found)?;
        let span = span_of(&object);
        let mut list = span.specials();
        let mut taken = list.take(object.start);
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
        let object = whole(found)?;
        let list = span_of(&object).specials();
        list.iter().filter(|special| special.object == object.start).for_each(each);
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
            }
        }
    }

    /// The next record whose object was found dead: in the order in which spans were swept, and there in
    /// that of their objects. For one object, weak pointers come before what is to be called.
    pub fn next_due(&self) -> Option<Special> {
        let mut state = self.state.lock();
        let special = state.due.pop()?;
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

/// What was found, if by its first byte.
fn whole(found: Lookup) -> Result<Object, NotAnObject> {
    found.object().filter(|object| object.offset.get() == 0).ok_or(NotAnObject)
}

/// The span of an object that is held: it stays for as long.
fn span_of(object: &Object) -> &Span {
    // SAFETY: lookups name span records (P3), and a span that holds an object in use stays.
    unsafe { object.span.as_ref() }
}

#[cfg(test)]
mod tests;
