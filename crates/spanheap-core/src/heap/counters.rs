//! The counters of a heap, and snapshots of them that are consistent although nobody is stopped.
//!
//! Whoever changes something (a mutator that takes a run of slots, a sweep, the drop thread, the
//! page heap) adds the change to a **shard** of its own. What belongs together is added in one
//! [`Update`]: a page goes from "free" to "in use" in one step, an object from "owed" to "freed".
//!
//! # Snapshots
//! Each shard has its counters three times, in three slots, and the heap says which of them is
//! written now. To take a snapshot, the reader
//!
//! ```text
//!   turns:  writing := the next slot                 (the third one, which is zero everywhere)
//!   waits:  until every update that was open at the turn has been closed
//!   folds:  adds the slot of the last snapshot to the one written until now, clears the former
//!   adds:   the slots that were written until now, over all shards
//! ```
//!
//! Nobody else writes the slots that are folded: an update that was open has been waited for, and
//! one that began later writes the next slot. So an update is in a snapshot as a whole or not at
//! all. And the updates in a snapshot are closed under causality: if update a happens before update
//! b, and b is in it, then b has found the old slot to be the one that is written, so a, which
//! looked before, has found no newer one. Whatever is true at every moment for who looks at the
//! updates one after the other is true in every snapshot. [`Snapshot::check`] says what that is.
//!
//! Writers wait for nobody but another writer of the same shard. The reader waits for updates,
//! which are some additions long: nothing is locked, allocated or called in one.
//!
//! # What is counted when
//! The fast path of an allocation counts nothing. A run of slots is counted when it begins, as
//! slots *in runs*, and when it ends, as so many objects allocated; between the two the run's owner
//! alone knows how many of its slots hold objects. So `allocated` never falls, and is too low by
//! what is in runs. Objects that share a slot are counted by the mutator and added now and then;
//! the slot counts as one object of its class.
//!
//! # Ordering
//! An update makes its shard's sequence odd and then looks which slot is written; a reader says
//! which slot is written and then looks at the sequences. All four are sequentially consistent, so
//! one of the two sees the other. Closing an update is a release store, which the waiting reader
//! acquires. The counters themselves are relaxed. A shard that is added while a snapshot is taken
//! is in the list before its first update begins, which makes it a case of the same argument.
//!
//! # Locking
//! [`Rank::Statistics`] for readers, one at a time.
//!
//! # Safety
//! - Q1. Shards in the list are made in persistent memory and live as long as the heap.
#![allow(unsafe_code)]

use crate::addr::{Bytes, PAGE_BYTES};
use crate::offheap::Persistent;
use crate::os::{Category, Os};
use crate::span::Info;
use crate::span::size_class::{CLASS_COUNT, SizeClass};
use crate::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};
use core::cell::Cell;
use core::ptr::{self, NonNull};

/// What a mapped byte of the heap's pages is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum MemoryState {
    /// Belongs to a span of objects.
    InUse = 0,
    /// Belongs to a span that is managed by hand.
    Manual = 1,
    /// Free and ready.
    Free = 2,
    /// Ready, and in the page cache of a mutator. (What is in one and not ready counts as
    /// returned.)
    Cached = 3,
    /// Prepared: never used yet, or given back to the system.
    Returned = 4,
    /// Belongs to a chunk of a user arena.
    Arena = 5,
    /// Belonged to one that was freed: an address without memory that somebody may still point to. The one state
    /// whose bytes are not mapped.
    Quarantined = 6,
}

/// How many states there are.
const PAGE_STATES: usize = 7;

/// The counters that are not kept by size class, behind the page states.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Single {
    LargeAllocated = PAGE_STATES,
    LargeAllocatedBytes,
    LargeFreed,
    LargeFreedBytes,
    Tiny,
    Owed,
    OwedBytes,
}

/// The counters of a size class.
#[derive(Clone, Copy)]
#[repr(usize)]
enum PerClass {
    Allocated = 0,
    Freed = 1,
    InRuns = 2,
}

const FIRST_PER_CLASS: usize = Single::OwedBytes as usize + 1;
const COUNTERS: usize = FIRST_PER_CLASS + 3 * CLASS_COUNT;
const SLOTS: usize = 3;

const fn class_counter(which: PerClass, class: usize) -> usize {
    FIRST_PER_CLASS + which as usize * CLASS_COUNT + class
}

/// Counters for one writer at a time, mostly always the same one. Zeroed memory is a valid value.
#[repr(align(64))]
pub struct Shard {
    /// Odd while an update is open.
    sequence: AtomicU64,
    slots: [[AtomicU64; COUNTERS]; SLOTS],
    /// The shard that was added before this one; written before this one is published.
    next: AtomicPtr<Shard>,
}

impl Shard {
    const fn new() -> Shard {
        Shard {
            sequence: AtomicU64::new(0),
            slots: [const { [const { AtomicU64::new(0) }; COUNTERS] }; SLOTS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

/// The counters of a heap.
pub struct Counters {
    /// The slot that is written.
    writing: AtomicUsize,
    /// The page heap's, which has a lock of its own around its updates.
    pages: Shard,
    /// The collector's, the drop thread's, and for mutators that found no memory for one.
    shared: Shard,
    /// The newest shard of a mutator; each names the one before it.
    newest: AtomicPtr<Shard>,
    /// Held while a snapshot is taken.
    reading: Lock<()>,
}

/// Remembers the shard of a mutator, once it has one. Zeroed memory is a valid value.
#[derive(Default)]
pub struct Seat(Cell<Option<NonNull<Shard>>>);

/// The right to open updates in a shard.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    counters: &'a Counters,
    shard: &'a Shard,
}

impl Counters {
    /// Everything is zero.
    pub const fn new() -> Counters {
        Counters {
            writing: AtomicUsize::new(0),
            pages: Shard::new(),
            shared: Shard::new(),
            newest: AtomicPtr::new(ptr::null_mut()),
            reading: Lock::new(Rank::Statistics, ()),
        }
    }

    /// For the page heap, under its lock.
    pub fn pages(&self) -> Writer<'_> {
        Writer { counters: self, shard: &self.pages }
    }

    /// For the heap's own threads.
    pub fn shared(&self) -> Writer<'_> {
        Writer { counters: self, shard: &self.shared }
    }

    /// For the mutator in `seat`, which is used with this heap only. It gets a shard at the first
    /// call; as long as there is no memory for one, it writes to the shared one.
    pub fn writer(&self, seat: &Seat, os: &Os, memory: &Persistent) -> Writer<'_> {
        if seat.0.get().is_none() {
            seat.0.set(self.add_shard(os, memory));
        }
        // SAFETY: Q1; the seat's shard is one of this heap.
        let own = seat.0.get().map(|shard| unsafe { shard.as_ref() });
        Writer { counters: self, shard: own.unwrap_or(&self.shared) }
    }

    fn add_shard(&self, os: &Os, memory: &Persistent) -> Option<NonNull<Shard>> {
        let layout = core::alloc::Layout::new::<Shard>();
        let shard = memory.alloc(os, layout, Category::Metadata).ok()?.cast::<Shard>();
        let mut newest = self.newest.load(Ordering::Relaxed);
        loop {
            // SAFETY: zeroed memory of the right layout, which is a valid shard; Q1.
            unsafe { shard.as_ref() }.next.store(newest, Ordering::Relaxed);
            let (order, failure) = (Ordering::SeqCst, Ordering::Relaxed);
            match self.newest.compare_exchange_weak(newest, shard.as_ptr(), order, failure) {
                Ok(_) => return Some(shard),
                Err(other) => newest = other,
            }
        }
    }

    fn shards(&self) -> impl Iterator<Item = &Shard> {
        let mut next = self.newest.load(Ordering::SeqCst).cast_const();
        let own = core::iter::from_fn(move || {
            // SAFETY: Q1; the chain ends in null.
            let current = unsafe { next.as_ref() }?;
            next = current.next.load(Ordering::Relaxed);
            Some(current)
        });
        [&self.pages, &self.shared].into_iter().chain(own)
    }

    /// A consistent snapshot.
    pub fn snapshot(&self) -> Snapshot {
        let _one_at_a_time = self.reading.lock();
        let current = self.writing.load(Ordering::Relaxed);
        let (next, last) = ((current + 1) % SLOTS, (current + SLOTS - 1) % SLOTS);
        self.writing.store(next, Ordering::SeqCst);
        let mut snapshot = Snapshot { counts: [0; COUNTERS] };
        for shard in self.shards() {
            let sequence = shard.sequence.load(Ordering::SeqCst);
            if sequence % 2 == 1 {
                patiently(|| shard.sequence.load(Ordering::Acquire) != sequence);
            }
            let slots = shard.slots[current].iter().zip(&shard.slots[last]);
            for ((current, last), sum) in slots.zip(&mut snapshot.counts) {
                let count =
                    current.load(Ordering::Relaxed).wrapping_add(last.load(Ordering::Relaxed));
                current.store(count, Ordering::Relaxed);
                last.store(0, Ordering::Relaxed);
                *sum = sum.wrapping_add(count);
            }
        }
        snapshot
    }
}

impl Default for Counters {
    fn default() -> Counters {
        Counters::new()
    }
}

/// Returns when `done` says so, and lets other threads run if that takes long.
fn patiently(mut done: impl FnMut() -> bool) {
    let mut tries = 0u32;
    while !done() {
        tries += 1;
        if tries % 64 == 0 {
            std::thread::yield_now();
        } else {
            core::hint::spin_loop();
        }
    }
}

impl<'a> Writer<'a> {
    /// Opens an update, which is closed when it is dropped: soon, and before anything is called
    /// that may wait.
    pub fn update(self) -> Update<'a> {
        let shard = self.shard;
        let mut sequence = 0;
        patiently(|| {
            sequence = shard.sequence.load(Ordering::Relaxed) & !1;
            let odd = sequence + 1;
            let (order, failure) = (Ordering::SeqCst, Ordering::Relaxed);
            shard.sequence.compare_exchange(sequence, odd, order, failure).is_ok()
        });
        let slot = self.counters.writing.load(Ordering::SeqCst);
        Update { sequence: &shard.sequence, even: sequence + 2, counts: &shard.slots[slot] }
    }
}

/// Changes that are in a snapshot all together or not at all.
#[must_use = "an update is closed when it is dropped"]
pub struct Update<'a> {
    sequence: &'a AtomicU64,
    even: u64,
    counts: &'a [AtomicU64; COUNTERS],
}

impl Update<'_> {
    fn add(&self, counter: usize, n: u64) {
        let count = &self.counts[counter];
        // This update alone writes to the slot.
        count.store(count.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    fn sub(&self, counter: usize, n: u64) {
        self.add(counter, n.wrapping_neg());
    }

    /// `bytes` of address space were mapped for pages of the heap; they are `state` now.
    pub fn mapped(&self, state: MemoryState, bytes: Bytes) {
        self.add(state as usize, bytes.get() as u64);
    }

    /// `bytes` of the heap's pages were one thing and are another.
    pub fn moved(&self, from: MemoryState, to: MemoryState, bytes: Bytes) {
        self.sub(from as usize, bytes.get() as u64);
        self.add(to as usize, bytes.get() as u64);
    }

    /// A mutator has taken a run of `slots` slots.
    pub fn began_run(&self, class: SizeClass, slots: usize) {
        self.add(class_counter(PerClass::InRuns, class.index()), slots as u64);
    }

    /// A mutator has done with a run of `used + rest` slots, of which the first `used` hold
    /// objects.
    pub fn ended_run(&self, class: SizeClass, used: usize, rest: usize) {
        self.add(class_counter(PerClass::Allocated, class.index()), used as u64);
        self.sub(class_counter(PerClass::InRuns, class.index()), (used + rest) as u64);
    }

    /// An object of its own span was allocated, which is `bytes` long.
    pub fn allocated_large(&self, bytes: Bytes) {
        self.add(Single::LargeAllocated as usize, 1);
        self.add(Single::LargeAllocatedBytes as usize, bytes.get() as u64);
    }

    /// Objects were allocated in slots that are counted already.
    pub fn allocated_tiny(&self, objects: u64) {
        self.add(Single::Tiny as usize, objects);
    }

    /// `objects` slots of a span have become free.
    pub fn freed(&self, info: &Info, objects: usize) {
        match info.size_class {
            Some(class) => {
                self.add(class_counter(PerClass::Freed, class.index()), objects as u64);
            }
            None => {
                self.add(Single::LargeFreed as usize, objects as u64);
                self.add(Single::LargeFreedBytes as usize, (objects * info.slot) as u64);
            }
        }
    }

    /// `objects` objects of a span have died and wait for their destructor.
    pub fn owes(&self, info: &Info, objects: usize) {
        self.add(Single::Owed as usize, objects as u64);
        self.add(Single::OwedBytes as usize, (objects * info.slot) as u64);
    }

    /// The destructors of `objects` objects of a span have run, and their slots are free.
    pub fn dropped(&self, info: &Info, objects: usize) {
        self.sub(Single::Owed as usize, objects as u64);
        self.sub(Single::OwedBytes as usize, (objects * info.slot) as u64);
        self.freed(info, objects);
    }
}

impl Drop for Update<'_> {
    fn drop(&mut self) {
        self.sequence.store(self.even, Ordering::Release);
    }
}

/// What the counters said at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    counts: [u64; COUNTERS],
}

/// The objects of a size class, or of several.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Objects {
    /// Objects allocated so far. Never falls.
    pub allocated: u64,
    /// Objects whose slot has become free so far. Never falls, and is never above `allocated`.
    pub freed: u64,
    /// Slots of the runs that mutators allocate from at the moment: objects that are not counted
    /// yet, and slots that are free still.
    pub in_runs: u64,
}

impl Objects {
    /// Objects that have been allocated and not freed; those in runs are not counted yet.
    pub fn present(&self) -> u64 {
        self.allocated.wrapping_sub(self.freed)
    }
}

impl Snapshot {
    fn single(&self, which: Single) -> u64 {
        self.counts[which as usize]
    }

    fn of_class(&self, which: PerClass, class: SizeClass) -> u64 {
        self.counts[class_counter(which, class.index())]
    }

    /// Bytes of the heap's pages in a state.
    pub fn pages(&self, state: MemoryState) -> Bytes {
        Bytes::new(self.counts[state as usize] as usize)
    }

    /// Bytes of the heap's pages in all states but quarantine, in which they are not mapped.
    pub fn mapped(&self) -> Bytes {
        let all: Bytes = self.counts[..PAGE_STATES].iter().map(|&b| Bytes::new(b as usize)).sum();
        all - self.pages(MemoryState::Quarantined)
    }

    /// The objects of a size class. Objects that share a slot are one.
    pub fn small(&self, class: SizeClass) -> Objects {
        Objects {
            allocated: self.of_class(PerClass::Allocated, class),
            freed: self.of_class(PerClass::Freed, class),
            in_runs: self.of_class(PerClass::InRuns, class),
        }
    }

    /// The objects that have spans of their own.
    pub fn large(&self) -> Objects {
        Objects {
            allocated: self.single(Single::LargeAllocated),
            freed: self.single(Single::LargeFreed),
            in_runs: 0,
        }
    }

    /// Bytes of the objects that have spans of their own, counted like these.
    pub fn large_bytes(&self) -> Objects {
        Objects {
            allocated: self.single(Single::LargeAllocatedBytes),
            freed: self.single(Single::LargeFreedBytes),
            in_runs: 0,
        }
    }

    /// Objects allocated so far in slots that others had opened. They are freed with the slot.
    pub fn tiny(&self) -> u64 {
        self.single(Single::Tiny)
    }

    /// Objects that are dead and wait for their destructor, and the bytes of their slots.
    pub fn owed(&self) -> (u64, Bytes) {
        (self.single(Single::Owed), Bytes::new(self.single(Single::OwedBytes) as usize))
    }

    /// All objects, those included that share a slot. The latter count as freed when they are
    /// allocated, since nobody sees them die; so the difference is objects and shared slots.
    pub fn values(&self) -> Objects {
        let (objects, tiny) = (self.objects(), self.tiny());
        let (allocated, freed) = (objects.allocated + tiny, objects.freed + tiny);
        Objects { allocated, freed, ..objects }
    }

    /// All objects, small and large; a slot that several share is one.
    pub fn objects(&self) -> Objects {
        let small = SizeClass::all().map(|class| self.small(class));
        small.fold(self.large(), |sum, class| Objects {
            allocated: sum.allocated + class.allocated,
            freed: sum.freed + class.freed,
            in_runs: sum.in_runs + class.in_runs,
        })
    }

    /// Bytes of all objects, small and large, counted like these.
    pub fn bytes(&self) -> Objects {
        SizeClass::all().fold(self.large_bytes(), |sum, class| {
            let (objects, size) = (self.small(class), class.size().get() as u64);
            Objects {
                allocated: sum.allocated + objects.allocated * size,
                freed: sum.freed + objects.freed * size,
                in_runs: sum.in_runs + objects.in_runs * size,
            }
        })
    }

    /// Whether what holds at every moment holds here:
    ///
    /// - no object is freed that was not allocated, in any size class;
    /// - objects, and slots in runs, lie in pages that are in use;
    /// - what waits for its destructor has been allocated and not been freed;
    /// - pages in each state are whole pages, and none is in two.
    ///
    /// # Errors
    /// Says which of them does not hold.
    pub fn check(&self) -> Result<(), String> {
        for class in SizeClass::all() {
            let Objects { allocated, freed, in_runs } = self.small(class);
            if freed > allocated || in_runs > i64::MAX as u64 {
                return Err(format!("{class:?}: {:?}", self.small(class)));
            }
        }
        let (large, large_bytes) = (self.large(), self.large_bytes());
        if large.freed > large.allocated || large_bytes.freed > large_bytes.allocated {
            return Err(format!("large: {large:?} with {large_bytes:?} bytes"));
        }
        for &bytes in &self.counts[..PAGE_STATES] {
            if bytes > i64::MAX as u64 || bytes % PAGE_BYTES as u64 != 0 {
                return Err(format!("pages by state: {:?}", &self.counts[..PAGE_STATES]));
            }
        }
        let (bytes, in_use) = (self.bytes(), self.pages(MemoryState::InUse).get() as u64);
        if bytes.present() + bytes.in_runs > in_use {
            return Err(format!("{bytes:?} bytes in {in_use} bytes of spans"));
        }
        let (owed, owed_bytes) = self.owed();
        let objects = self.objects();
        if owed > objects.present() || owed_bytes.get() as u64 > bytes.present() {
            return Err(format!("{owed} owed of {objects:?}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
