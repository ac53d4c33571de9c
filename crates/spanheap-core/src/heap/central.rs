//! What all threads of a heap share for allocating: classes, the page heap, the drop queue, and the
//! count of bytes that tells the collector when to begin.
//!
//! A mutator comes here for a span when its own is used up. In this order it gets
//!
//! 1. a swept span of the class with free slots,
//! 2. an unswept one, which it sweeps itself (sweeping on demand: garbage is used before new memory),
//! 3. new pages.
//!
//! **Counting.** Mutators report what they take by the run, not by the object: `taken` grows by a run
//! when it is taken and shrinks by what is left of it when it is given back. Between two cycles, live
//! bytes are thus what the last one retained plus what has been taken since: never too low, and too
//! high by the unfinished runs.
//!
//! # Safety
//! Releasing everything at the end of a heap is the caller's promise passed on.
#![allow(unsafe_code)]

use super::class::{Class, ClassKey, ClassTable, Taken};
use super::drops::{Batch, DropQueue};
use super::error::OutOfMemory;
use super::page_heap::{PageHeap, Refused, Request};
use super::stall::Stalls;
use super::sweep::{How, Swept, sweep};
use crate::addr::{Addr, Bytes, PAGE_BYTES};
use crate::offheap::Persistent;
use crate::os::{Os, OsError};
use crate::span::lookup::{self, Asked, Lookup};
use crate::span::{Generation, OwnedSpan, Span, map};
use crate::sync::Alarm;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// How many unswept spans an allocation sweeps in search of a free slot before it takes new pages.
const SWEEP_BUDGET: usize = 64;

/// How a heap's shared part is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Ready bytes that the heap will not exceed.
    pub limit: Option<Bytes>,
    /// Whether freed slots are filled with a pattern.
    pub poison: bool,
}

/// The shared part of a heap, without its collector.
pub struct Central {
    number: u64,
    os: Os,
    memory: Persistent,
    classes: ClassTable,
    pages: PageHeap,
    drops: DropQueue,
    poison: bool,
    generation: AtomicU32,
    /// Whether the sweep for this generation retains everything. Constant while there is a span to sweep for
    /// it.
    retain: AtomicBool,
    /// Bytes of objects that the last cycle retained.
    retained: AtomicUsize,
    /// Bytes of runs taken since `retained` was written; wraps below zero when old runs come back.
    taken: AtomicUsize,
    /// Bytes taken since the heap was made, less what was given back.
    total: AtomicU64,
    /// When live bytes reach this, the alarm rings.
    trigger: AtomicUsize,
    /// Whether it has rung since the trigger was set.
    triggered: AtomicBool,
    alarm: Alarm,
    stalls: Stalls,
}

impl Central {
    /// The shared part of a new heap.
    pub fn new(os: Os, config: Config) -> Result<Central, OsError> {
        let number = map::new_heap_number();
        let pages = PageHeap::new(&os, number, config.limit)?;
        Ok(Central {
            number,
            os,
            memory: Persistent::new(),
            classes: ClassTable::new(),
            pages,
            drops: DropQueue::new(),
            poison: config.poison,
            generation: AtomicU32::new(0),
            retain: AtomicBool::new(false),
            retained: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            trigger: AtomicUsize::new(usize::MAX),
            triggered: AtomicBool::new(false),
            alarm: Alarm::new(),
            stalls: Stalls::new(),
        })
    }

    /// The number of the heap in this process.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The operating system that the heap lives on.
    pub fn os(&self) -> &Os {
        &self.os
    }

    /// The manager's own memory.
    pub fn memory(&self) -> &Persistent {
        &self.memory
    }

    /// The page heap.
    pub fn pages(&self) -> &PageHeap {
        &self.pages
    }

    /// The classes of the heap.
    pub fn classes(&self) -> &ClassTable {
        &self.classes
    }

    /// What `addr`, which may be any number, is to this heap. See [`crate::span::lookup`].
    pub fn find_object(&self, addr: Addr) -> Lookup {
        loop {
            let generation = self.generation();
            let retain = self.retain.load(Ordering::Relaxed);
            let found = lookup::find(Asked { heap: self.number, generation, retain }, addr);
            if self.generation() == generation {
                return found;
            }
        }
    }

    /// Values that wait for their destructor.
    pub fn drops(&self) -> &DropQueue {
        &self.drops
    }

    /// The last finished cycle.
    #[inline]
    pub fn generation(&self) -> Generation {
        Generation::new(self.generation.load(Ordering::Acquire))
    }

    /// Begins a generation: every span is unswept from here on, and `retained` bytes are live, besides
    /// those taken since `taken_before` was read. `retain_all`: the sweep frees nothing, because the marks
    /// are not to be trusted.
    pub fn begin_generation(
        &self,
        generation: Generation,
        retained: Bytes,
        taken_before: usize,
        retain_all: bool,
    ) {
        self.retain.store(retain_all, Ordering::Relaxed);
        self.retained.store(retained.get(), Ordering::Relaxed);
        self.taken.fetch_sub(taken_before, Ordering::Relaxed);
        self.generation.store(generation.get(), Ordering::Release);
    }

    /// Bytes taken since the last generation began, as the counter stands.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Bytes of objects that the last cycle retained.
    pub fn retained(&self) -> Bytes {
        Bytes::new(self.retained.load(Ordering::Relaxed))
    }

    /// Bytes of objects: what the last cycle retained, and what has been taken since.
    pub fn live(&self) -> Bytes {
        let taken = self.taken.load(Ordering::Relaxed);
        let taken = if (taken as isize) < 0 { 0 } else { taken };
        Bytes::new(self.retained.load(Ordering::Relaxed) + taken)
    }

    /// Bytes of objects allocated since the heap was made.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts a run that a mutator takes, and rings the alarm when that is enough for a cycle.
    pub fn count_taken(&self, bytes: Bytes) {
        self.taken.fetch_add(bytes.get(), Ordering::Relaxed);
        self.total.fetch_add(bytes.get() as u64, Ordering::Relaxed);
        if self.is_triggered() && !self.triggered.swap(true, Ordering::Relaxed) {
            self.alarm.ring();
        }
    }

    /// Whether live bytes have reached the trigger.
    pub fn is_triggered(&self) -> bool {
        self.live().get() >= self.trigger.load(Ordering::Relaxed)
    }

    /// Sets the live bytes at which the alarm rings.
    pub fn set_trigger(&self, trigger: Bytes) {
        self.trigger.store(trigger.get(), Ordering::Relaxed);
        self.triggered.store(false, Ordering::Relaxed);
    }

    /// What wakes the collector.
    pub fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// How long mutators have been held up.
    pub fn stalls(&self) -> &Stalls {
        &self.stalls
    }

    /// Counts the rest of a run that a mutator gives back.
    pub fn count_returned(&self, bytes: Bytes) {
        self.taken.fetch_sub(bytes.get(), Ordering::Relaxed);
        self.total.fetch_sub(bytes.get() as u64, Ordering::Relaxed);
    }

    /// The class of `key`.
    pub fn class(
        &self,
        key: &ClassKey,
        type_name: fn() -> &'static str,
    ) -> Result<&'static Class, OutOfMemory> {
        self.classes
            .find_or_make(key, type_name, &self.os, &self.memory)
            .map_err(|error| self.out_of_memory(Bytes::ZERO, error.into()))
    }

    /// A swept span of `class` with at least one free slot.
    pub fn acquire(&self, class: &Class) -> Result<OwnedSpan, OutOfMemory> {
        let generation = self.generation();
        for _ in 0..SWEEP_BUDGET {
            match class.take(generation) {
                None => break,
                Some(Taken::Unswept(span, target)) => {
                    if let Some(span) = self.sweep_for(class, span, target) {
                        return Ok(span);
                    }
                }
                Some(Taken::Ready(span)) => return Ok(span),
            }
        }
        let size_class = class.key().size_class.expect("large objects have no shared spans");
        let request = Request {
            pages: size_class.pages(),
            align: Bytes::new(PAGE_BYTES),
            slot: size_class.size().get(),
            slots: size_class.objects(),
            generation,
        };
        self.pages
            .alloc_span(&self.os, &self.memory, class, &request)
            .map_err(|refused| self.out_of_memory(size_class.size(), refused))
    }

    /// A span for one object of `size` bytes.
    pub fn acquire_large(
        &self,
        class: &Class,
        size: Bytes,
        align: usize,
    ) -> Result<OwnedSpan, OutOfMemory> {
        let refused = |refused| self.out_of_memory(size, refused);
        // An empty value gets here by its alignment, and has an address of its own all the same.
        let pages = size.max(Bytes::new(1)).checked_pages();
        let pages = pages.ok_or(Refused::TooLarge).map_err(refused)?;
        let request = Request {
            pages,
            align: Bytes::new(align.max(PAGE_BYTES)),
            slot: pages.bytes().get(),
            slots: 1,
            generation: self.generation(),
        };
        self.pages.alloc_span(&self.os, &self.memory, class, &request).map_err(refused)
    }

    /// Sweeps a span and puts it where it belongs, unless it has room: then it is given to the caller.
    fn sweep_for(
        &self,
        class: &Class,
        span: OwnedSpan,
        generation: Generation,
    ) -> Option<OwnedSpan> {
        match sweep(span, &self.drops, self.how(generation)) {
            Swept::Empty(span) | Swept::Partial(span) => return Some(span),
            Swept::Full(span) => class.put(span, generation, false),
            Swept::Dropping => {}
        }
        None
    }

    fn how(&self, generation: Generation) -> How {
        How { generation, retain: self.retain.load(Ordering::Relaxed), poison: self.poison }
    }

    /// Sweeps one span of `class`; false when none is left.
    pub fn sweep_one(&self, class: &Class) -> bool {
        let Some((span, generation)) = class.take_unswept(self.generation()) else { return false };
        match sweep(span, &self.drops, self.how(generation)) {
            Swept::Empty(span) => self.pages.free_span(span),
            Swept::Partial(span) => class.put(span, generation, true),
            Swept::Full(span) => class.put(span, generation, false),
            Swept::Dropping => {}
        }
        true
    }

    /// Runs destructors; false when none is owed.
    pub fn run_drops(&self) -> bool {
        self.finish_drops(self.drops.run_batch())
    }

    /// Runs the destructors of everything that is left, for the end of a heap.
    ///
    /// # Safety
    /// No mutator is attached, no thread but the caller frees spans, and nobody uses the heap's objects any
    /// more.
    pub unsafe fn drop_everything(&self) {
        let drop_all = |span: &Span| {
            // SAFETY: the caller's promise; with all caches given back, allocation bits stand at
            // initialised objects only.
            unsafe { self.drops.drop_all(span) };
        };
        // SAFETY: without mutators, and with the drop thread gone, spans do not change.
        unsafe { self.pages.for_each_span(drop_all) };
    }

    /// Frees what a batch of destructors has emptied; false when there was no batch.
    pub fn finish_drops(&self, batch: Batch) -> bool {
        match batch {
            Batch::Idle => return false,
            Batch::Done => {}
            Batch::Emptied(span) => self.pages.free_span(span),
        }
        true
    }

    /// Puts a span that a mutator held back into its class.
    pub fn put_back(&self, class: &Class, span: OwnedSpan, has_room: bool) {
        class.put(span, self.generation(), has_room);
    }

    /// The error for a request that was refused.
    pub fn out_of_memory(&self, requested: Bytes, refused: Refused) -> OutOfMemory {
        let limit = match refused {
            Refused::Limit => self.pages.limit(),
            Refused::TooLarge => {
                return OutOfMemory { requested, live: self.live(), limit: None };
            }
            Refused::System => None,
        };
        OutOfMemory { requested, live: self.live(), limit }
    }

    /// Returns all memory to the system.
    ///
    /// # Safety
    /// No mutator is attached, no thread of the heap runs, and nobody uses a pointer into it.
    pub unsafe fn release(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.pages.release(&self.os) };
        // SAFETY: classes, spans and arena records lie here, and nobody is left who could use them.
        unsafe { self.memory.release(&self.os) };
    }
}
