//! The write barrier: how pointer fields change, and what the collector is told.
//!
//! A cycle retains what was reachable when it began to mark, so a pointer that is overwritten while a cycle runs goes
//! to the mutator's buffer, and from there to the collector. Whether one runs is fixed by the phase word that the
//! closure began with. While none does, a store is a store behind one branch.
//!
//! What changes many fields at once asks for the phase once, and appends what it overwrites by [`Shading`]: the length
//! of the buffer is in a register meanwhile, and is written when the buffer is full or the operation is over. A buffer
//! that is full is handed over at once, as everywhere, so the collector waits for no more than its 256 entries.
//!
//! # Safety
//! Fields are pointer fields of objects of the mutator's heap, and hold 0 or objects of it: the callers' promises.
#![allow(unsafe_code)]

use super::Mutator;
use crate::addr::Addr;
use crate::collect::Phase;
use crate::collect::buffer::CAPACITY;
use crate::span::map;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// What has to be done after the lock of a container was taken and before its contents change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContainerBarrier {
    /// Nothing: no collector looks at the container during this closure.
    None,
    /// All pointers inside have to be given to [`Mutator::shade`], each time.
    Shade,
    /// The same, unless the container says that this cycle has scanned it; afterwards it says so.
    ShadeOnce(u32),
}

/// What buffers many pointers, without a call and a look at the buffer's length for each: see [`Mutator::shading`].
pub struct Shading<'a> {
    mutator: &'a Mutator,
    /// The length of the buffer with what was added, which is less than its capacity.
    len: usize,
}

impl Shading<'_> {
    /// Buffers the address of an object, as [`Mutator::shade`] does. 0 is ignored.
    ///
    /// # Safety
    /// S1 and S2, as [`Mutator::shade`].
    #[inline(always)]
    pub unsafe fn add(&mut self, object: Addr) {
        // Written in any case: whether fields were empty is what no processor guesses.
        self.mutator.record.buffer.write_ahead(self.len, object);
        self.len += usize::from(!object.is_null());
        if self.len == CAPACITY {
            self.len = self.mutator.hand_over_full();
        }
    }
}

impl Drop for Shading<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.mutator.record.buffer.set_len(self.len);
    }
}

impl Mutator {
    /// Hands the whole buffer over; its length then.
    #[cold]
    #[inline(never)]
    fn hand_over_full(&self) -> usize {
        self.record.buffer.set_len(CAPACITY);
        self.flush();
        self.record.buffer.len()
    }

    /// Whether stores have to buffer what they overwrite.
    #[inline(always)]
    pub fn is_buffering(&self) -> bool {
        self.buffers.get()
    }

    /// Buffers the address of an object, so that the running cycle retains it. 0 is ignored.
    ///
    /// # Safety
    /// - S1. `object` is 0 or the address of an object of this heap, its first byte.
    /// - S2. The open closure holds the object, or has just taken it out of a field.
    #[inline(never)]
    pub unsafe fn shade(&self, object: Addr) {
        if !object.is_null() && self.record.buffer.push(object) {
            self.flush();
        }
    }

    /// Stores a pointer, or 0, into a field of a published object, and returns nothing: see
    /// [`Mutator::swap`].
    ///
    /// # Safety
    /// The field is a pointer field of an object of this heap; `new` is 0 or an object of this heap
    /// that the open closure holds.
    #[inline(always)]
    pub unsafe fn write(&self, field: &AtomicUsize, new: Addr) {
        self.assert_own(new);
        if self.is_buffering() {
            // SAFETY: the caller's promise.
            unsafe { self.write_buffering(field, new) };
        } else {
            // Release: whoever loads the pointer sees the object that it points to.
            field.store(new.get(), Ordering::Release);
        }
    }

    /// [`Mutator::write`] while a cycle runs.
    ///
    /// In the arming phases it is an exchange, because of two closures that overwrite the same field each must
    /// buffer what *it* has overwritten. In the marking phase a load and a store do, which is half the price.
    /// Every closure that is open then buffers what it overwrites and what it makes, or makes it black; so an
    /// object can be lost only with the last edge that it had when marking began. Whoever is the *first* to store
    /// over that edge has loaded it (he cannot have read what comes later in the field's order than his own
    /// store, nor what was there before his closure began), and what others overwrite after him was new or
    /// reached by other edges. The model of the protocol has both: load and store in the marking
    /// phase loses nothing, and in the second arming phase it loses an object.
    ///
    /// # Safety
    /// As [`Mutator::write`].
    #[inline(never)]
    unsafe fn write_buffering(&self, field: &AtomicUsize, new: Addr) {
        let old = if self.exchanges.get() {
            field.swap(new.get(), Ordering::AcqRel)
        } else {
            // Acquire: the object that is found was published by the store that is read. It is handed on.
            let old = field.load(Ordering::Acquire);
            field.store(new.get(), Ordering::Release);
            old
        };
        if old != 0 && self.record.buffer.push(Addr::new(old)) {
            self.flush();
        }
    }

    /// Stores pointers, or 0, into fields that follow one another, in this order: [`Mutator::write`] for each, and
    /// one look at the phase for all of them.
    ///
    /// # Safety
    /// As [`Mutator::write`], for each field and what `new` gives for it.
    #[inline]
    pub unsafe fn write_all<'f>(&self, fields: impl Iterator<Item = (&'f AtomicUsize, Addr)>) {
        if self.is_buffering() {
            // SAFETY: the caller's promise.
            unsafe { self.write_all_buffering(fields) };
        } else {
            for (field, new) in fields {
                self.assert_own(new);
                field.store(new.get(), Ordering::Release);
            }
        }
    }

    /// [`Mutator::write_all`] while a cycle runs. An exchange or not: see [`Mutator::write_buffering`].
    ///
    /// # Safety
    /// As [`Mutator::write_all`].
    #[inline(never)]
    unsafe fn write_all_buffering<'f>(
        &self,
        fields: impl Iterator<Item = (&'f AtomicUsize, Addr)>,
    ) {
        let exchanges = self.exchanges.get();
        // SAFETY: S3: all that is done meanwhile is to ask for fields.
        let mut shading = unsafe { self.shading() };
        for (field, new) in fields {
            self.assert_own(new);
            let old = if exchanges {
                field.swap(new.get(), Ordering::AcqRel)
            } else {
                let old = field.load(Ordering::Acquire);
                field.store(new.get(), Ordering::Release);
                old
            };
            // SAFETY: S1, S2: it was just taken out of a field.
            unsafe { shading.add(Addr::new(old)) };
        }
    }

    /// Begins to buffer many pointers, one after the other. They count when the result is dropped, at the latest.
    ///
    /// # Safety
    /// - S3. Until the result is dropped, which it is, this mutator buffers nothing else, and leaves no closure.
    #[inline(always)]
    pub unsafe fn shading(&self) -> Shading<'_> {
        Shading { mutator: self, len: self.record.buffer.len() }
    }

    /// Stores a pointer and returns the old one. The exchange is atomic, because of two closures that
    /// overwrite the same field each must buffer what *it* has overwritten.
    ///
    /// # Safety
    /// As [`Mutator::write`].
    #[inline]
    pub unsafe fn swap(&self, field: &AtomicUsize, new: Addr) -> Addr {
        self.assert_own(new);
        let old = Addr::new(field.swap(new.get(), Ordering::AcqRel));
        if self.is_buffering() {
            // SAFETY: S1: pointer fields hold 0 or an object of this heap. S2: it was just taken out.
            unsafe { self.shade(old) };
        }
        old
    }

    /// Stores a pointer if the field holds `current`, and returns `current`; else returns what the field holds.
    /// What was overwritten is buffered as by [`Mutator::swap`].
    ///
    /// # Errors
    /// When the field holds something else.
    ///
    /// # Safety
    /// As [`Mutator::write`]; the closure holds `current`, too, or it is 0.
    #[inline]
    pub unsafe fn compare_exchange(
        &self,
        field: &AtomicUsize,
        current: Addr,
        new: Addr,
    ) -> Result<Addr, Addr> {
        self.assert_own(new);
        // Acquire on failure: the object that is found was published by the store that is read.
        let outcome =
            field.compare_exchange(current.get(), new.get(), Ordering::AcqRel, Ordering::Acquire);
        if outcome.is_ok() && self.is_buffering() {
            // SAFETY: S1: pointer fields hold 0 or an object of this heap. S2: it was just taken out.
            unsafe { self.shade(current) };
        }
        outcome.map(Addr::new).map_err(Addr::new)
    }

    /// In debug builds: U5, for a pointer that is about to be stored or rooted.
    #[inline(always)]
    #[track_caller]
    pub(super) fn assert_own(&self, target: Addr) {
        debug_assert!(
            target.is_null() || map::owner(target) == Some(self.heap_number()),
            "a pointer to {target} in heap {:?} is stored in heap {}",
            map::owner(target),
            self.heap_number(),
        );
    }

    /// What to do after taking the lock of a container, before its contents may change.
    #[inline]
    pub fn container_barrier(&self) -> ContainerBarrier {
        match self.word.get().phase() {
            Phase::Idle => ContainerBarrier::None,
            Phase::ArmingA | Phase::ArmingB => ContainerBarrier::Shade,
            Phase::Marking => ContainerBarrier::ShadeOnce(self.word.get().cycle()),
        }
    }
}
