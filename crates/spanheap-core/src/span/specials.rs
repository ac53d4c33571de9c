//! Records that hang on objects: what there is to say about a few objects and not about their types.
//!
//! A record says what is to happen when its object is found dead, or carries something about it. The
//! records of a span form one list, sorted by object and, for one object, by kind. An object has at most
//! one record of a kind, but any number of cleanups, which stay in the order in which they came.
//!
//! Lists are short: few objects have records, and a span has few objects. So they are searched from the
//! front, as Go does.
//!
//! **Ownership is a value**, as with spans: an [`OwnedSpecial`] is the sole right to a record. A list takes
//! the value in and gives it out again. The memory of records comes from a pool of the heap.
//!
//! # Invariants
//! - R1. Along a list, objects rise, and for one object kinds rise; equal neighbours are cleanups, whose
//!   numbers rise.
//! - R2. A record is owned by one value or one list.
//!
//! # Safety
//! Records are reached through their one owner (R2), and their memory stays as long as the heap.
#![allow(unsafe_code)]

use crate::addr::Addr;
use core::ptr::NonNull;

/// What a record is for. The order is that of the records of one object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Something that is called with the object when it is found dead, for which it lives once more.
    Finalizer = 1,
    /// Something that is called when the object is gone, and cannot see it. The one kind of which an
    /// object may have several.
    Cleanup = 2,
    /// A weak pointer to the object.
    Weak = 3,
    /// Where a sampled object was allocated.
    Profile = 4,
}

/// Two words that mean what the kind says.
pub type Payload = [usize; 2];

/// A record of an object.
#[derive(Debug)]
pub struct Special {
    /// The object's first byte.
    pub object: Addr,
    /// What the record is for.
    pub kind: Kind,
    /// The number of the record in its heap; later records have higher ones.
    pub number: u64,
    /// What the kind makes of it.
    pub payload: Payload,
    /// The next record of the list or queue that owns this one.
    next: Option<NonNull<Special>>,
}

impl Special {
    /// A record that is in no list.
    pub fn new(object: Addr, kind: Kind, number: u64, payload: Payload) -> Special {
        Special { object, kind, number, payload, next: None }
    }

    fn key(&self) -> (Addr, Kind) {
        (self.object, self.kind)
    }
}

/// The sole right to a record.
#[derive(Debug)]
#[must_use = "a record that nobody owns is lost until its heap is dropped"]
pub struct OwnedSpecial {
    at: NonNull<Special>,
}

// SAFETY: the right may move between threads; whoever has it is alone with the record.
unsafe impl Send for OwnedSpecial {}

impl OwnedSpecial {
    /// Writes a record.
    ///
    /// # Safety
    /// `at` is memory for a record that nobody else uses, and stays so until the right is given up.
    pub unsafe fn init(at: NonNull<Special>, special: Special) -> OwnedSpecial {
        // SAFETY: the caller's promise; there is nothing to drop in a former record.
        unsafe { at.write(special) };
        OwnedSpecial { at }
    }

    /// Gives the memory back.
    pub fn into_memory(self) -> NonNull<Special> {
        self.at
    }
}

impl core::ops::Deref for OwnedSpecial {
    type Target = Special;
    fn deref(&self) -> &Special {
        // SAFETY: R2: this value owns the record.
        unsafe { self.at.as_ref() }
    }
}

/// The record at `at`.
///
/// # Safety
/// The caller has the list that owns the record, for as long as `'a`, and nobody changes it meanwhile.
unsafe fn record<'a>(at: NonNull<Special>) -> &'a Special {
    // SAFETY: R2 and the caller's promise.
    unsafe { at.as_ref() }
}

/// Changes what comes behind the record at `at`.
///
/// # Safety
/// The caller has the list that owns the record, mutably.
unsafe fn set_next(at: NonNull<Special>, next: Option<NonNull<Special>>) {
    // SAFETY: a field of the record, which R2 gives to the caller.
    let field = unsafe { &raw mut (*at.as_ptr()).next };
    // SAFETY: as above.
    unsafe { field.write(next) };
}

/// A sorted list that owns records.
#[derive(Default)]
pub struct SpecialList {
    first: Option<NonNull<Special>>,
}

// SAFETY: the list owns its records, and ownership may move between threads.
unsafe impl Send for SpecialList {}

/// Where a walk along a list stands: behind `before`, and in front of `at`.
#[derive(Clone, Copy)]
struct Place {
    before: Option<NonNull<Special>>,
    at: Option<NonNull<Special>>,
}

impl SpecialList {
    /// A list of nothing.
    pub const fn new() -> SpecialList {
        SpecialList { first: None }
    }

    /// Whether the list owns nothing.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Special> {
        let mut next = self.first;
        core::iter::from_fn(move || {
            // SAFETY: the list owns what it leads to, and is borrowed.
            let special = unsafe { record(next?) };
            next = special.next;
            Some(special)
        })
    }

    /// The first place at which a record is not `below`.
    fn seek(&self, from: Place, mut below: impl FnMut(&Special) -> bool) -> Place {
        let mut place = from;
        while let Some(at) = place.at {
            // SAFETY: the list owns the record and is borrowed.
            let special = unsafe { record(at) };
            if !below(special) {
                break;
            }
            place = Place { before: Some(at), at: special.next };
        }
        place
    }

    fn start(&self) -> Place {
        Place { before: None, at: self.first }
    }

    /// Makes `next` what comes behind `before`.
    fn link(&mut self, before: Option<NonNull<Special>>, next: Option<NonNull<Special>>) {
        match before {
            None => self.first = next,
            // SAFETY: the list owns the record, and is borrowed mutably.
            Some(before) => unsafe { set_next(before, next) },
        }
    }

    /// Takes a record in.
    ///
    /// # Errors
    /// The record itself, when the object has one of its kind already and may have only one.
    pub fn insert(&mut self, special: OwnedSpecial) -> Result<(), OwnedSpecial> {
        let key = special.key();
        let mut place = self.seek(self.start(), |other| other.key() < key);
        // SAFETY: the list owns the record, and is borrowed.
        let equal = place.at.is_some_and(|at| unsafe { record(at) }.key() == key);
        if equal && special.kind != Kind::Cleanup {
            return Err(special);
        }
        place = self.seek(place, |other| other.key() == key);
        let at = special.into_memory();
        // SAFETY: the record is owned by this list from here on.
        unsafe { set_next(at, place.at) };
        self.link(place.before, Some(at));
        Ok(())
    }

    /// Gives the first record of a kind out that hangs on `object`, of several the one with this number.
    pub fn remove(
        &mut self,
        object: Addr,
        kind: Kind,
        number: Option<u64>,
    ) -> Option<OwnedSpecial> {
        let is_wrong = |other: &Special| number.is_some_and(|number| number != other.number);
        let place = self.seek(self.start(), |other| {
            other.key() < (object, kind) || (other.key() == (object, kind) && is_wrong(other))
        });
        // SAFETY: the list owns the record, and is borrowed.
        let found = place.at.filter(|&at| unsafe { record(at) }.key() == (object, kind))?;
        Some(self.unlink(place, found))
    }

    /// Gives the record at a place out.
    fn unlink(&mut self, place: Place, at: NonNull<Special>) -> OwnedSpecial {
        // SAFETY: the list owns the record, and is borrowed.
        let next = unsafe { record(at) }.next;
        self.link(place.before, next);
        // SAFETY: the record has left the list, which was borrowed mutably.
        unsafe { set_next(at, None) };
        OwnedSpecial { at }
    }

    /// Gives all records of `object` out, in order.
    pub fn take(&mut self, object: Addr) -> SpecialQueue {
        let place = self.seek(self.start(), |other| other.object < object);
        let mut taken = SpecialQueue::new();
        self.remove_where(place, object, |_| true, &mut taken);
        taken
    }

    /// Gives all records out, in order.
    pub fn take_all(&mut self) -> SpecialQueue {
        let mut taken = SpecialQueue::new();
        while let Some(at) = self.first {
            taken.push(self.unlink(self.start(), at));
        }
        taken
    }

    /// Moves the records of `object` that are `wanted` to `into`, in order, from a place in front of the
    /// object's first record on.
    fn remove_where(
        &mut self,
        from: Place,
        object: Addr,
        mut wanted: impl FnMut(&Special) -> bool,
        into: &mut SpecialQueue,
    ) {
        let mut place = from;
        loop {
            place = self.seek(place, |other| other.object == object && !wanted(other));
            // SAFETY: the list owns the record, and is borrowed.
            let found = place.at.filter(|&at| unsafe { record(at) }.object == object);
            let Some(at) = found else { return };
            into.push(self.unlink(place, at));
            place = self.refresh(place);
        }
    }

    /// Sorts out what becomes of the records of dead objects. `is_dead` is asked once about each object
    /// with records, and `revive` is told of each dead one that has a finalizer.
    ///
    /// | the dead object has | given out, in this order | stays |
    /// |---|---|---|
    /// | a finalizer | weak pointers, the finalizer | everything else, with the object |
    /// | none | weak pointers, cleanups, profile | nothing |
    pub fn sweep(
        &mut self,
        mut is_dead: impl FnMut(Addr) -> bool,
        mut revive: impl FnMut(Addr),
        out: &mut SpecialQueue,
    ) {
        let mut place = self.start();
        while let Some(at) = place.at {
            // SAFETY: the list owns the record, and is borrowed.
            let first = unsafe { record(at) };
            let (object, has_finalizer) = (first.object, first.kind == Kind::Finalizer);
            if is_dead(object) {
                // Weak pointers first: nobody may get at an object any more for which something is done.
                self.remove_where(place, object, |other| other.kind == Kind::Weak, out);
                place = self.refresh(place);
                if has_finalizer {
                    revive(object);
                    self.remove_where(place, object, |other| other.kind == Kind::Finalizer, out);
                } else {
                    self.remove_where(place, object, |_| true, out);
                }
                place = self.refresh(place);
            }
            place = self.seek(place, |other| other.object == object);
        }
    }

    /// What a cycle decides when it has marked: takes weak pointers and finalizers off dead objects, and shows
    /// the weak pointers of living ones to `keep`. `is_dead` is asked once about each object with records.
    /// Everything else stays for the sweep.
    pub fn decide(
        &mut self,
        mut is_dead: impl FnMut(Addr) -> bool,
        mut keep: impl FnMut(&Special),
        out: &mut SpecialQueue,
    ) {
        let mut place = self.start();
        while let Some(at) = place.at {
            // SAFETY: the list owns the record, and is borrowed.
            let object = unsafe { record(at) }.object;
            if is_dead(object) {
                let decided = |kind| matches!(kind, Kind::Weak | Kind::Finalizer);
                self.remove_where(place, object, |other| decided(other.kind), out);
                place = self.refresh(place);
            }
            place = self.seek(place, |other| {
                let same = other.object == object;
                if same && other.kind == Kind::Weak {
                    keep(other);
                }
                same
            });
        }
    }

    /// The same place, after records behind it were removed.
    fn refresh(&self, place: Place) -> Place {
        let at = match place.before {
            None => self.first,
            // SAFETY: the list owns the record, and is borrowed.
            Some(before) => unsafe { record(before) }.next,
        };
        Place { before: place.before, at }
    }
}

/// A queue that owns records: first in, first out.
#[derive(Default)]
pub struct SpecialQueue {
    first: Option<NonNull<Special>>,
    last: Option<NonNull<Special>>,
}

// SAFETY: the queue owns its records, and ownership may move between threads.
unsafe impl Send for SpecialQueue {}

impl SpecialQueue {
    /// A queue of nothing.
    pub const fn new() -> SpecialQueue {
        SpecialQueue { first: None, last: None }
    }

    /// Whether the queue owns nothing.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The records, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &Special> {
        let mut next = self.first;
        core::iter::from_fn(move || {
            // SAFETY: the queue owns what it leads to, and is borrowed.
            let special = unsafe { record(next?) };
            next = special.next;
            Some(special)
        })
    }

    /// Takes a record in, behind the others.
    pub fn push(&mut self, special: OwnedSpecial) {
        let at = special.into_memory();
        match self.last.replace(at) {
            None => self.first = Some(at),
            // SAFETY: the queue owns its last record, and is borrowed mutably.
            Some(last) => unsafe { set_next(last, Some(at)) },
        }
    }

    /// Gives the first record out.
    pub fn pop(&mut self) -> Option<OwnedSpecial> {
        let at = self.first?;
        // SAFETY: the queue owns the record, and is borrowed.
        self.first = unsafe { record(at) }.next;
        if self.first.is_none() {
            self.last = None;
        }
        // SAFETY: the record has left the queue.
        unsafe { set_next(at, None) };
        Some(OwnedSpecial { at })
    }
}

#[cfg(test)]
mod tests;
