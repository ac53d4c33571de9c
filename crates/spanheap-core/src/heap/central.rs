//! What all threads of a heap share for allocating: classes, the page heap, the drop queue, and the
//! count of bytes that tells the collector when to begin.
//!
//! How a mutator gets a span is told in `acquire`, how it goes back in `give_back`.
//!
//! What is taken is counted in `trigger`, and that is what makes a cycle begin.
//!
//! # Safety
//! Releasing everything at the end of a heap is the caller's promise passed on.
#![allow(unsafe_code)]

mod acquire;
mod arenas;
mod bounds;
mod freed;
mod give_back;
mod manual;
mod owed;
mod trigger;
mod trust;
mod weight;

pub use trigger::Reason;

use super::class::{Class, ClassKey, ClassTable};
use super::counters::{Counters, Writer};
use super::debt::Debt;
use super::drops::DropQueue;
use super::error::OutOfMemory;
use super::hooks::Hooks;
use super::limits::Limits;
use super::outside::Outside;
use super::page_heap::{Force, LocalPages, PageHeap};
use super::reclaim::Reclaimer;
use super::revival::Revivals;
use super::stall::Stalls;
use super::sweep::{How, sweep};
use super::sweep_pace::SweepPace;
use super::swept::Swept;
use super::switches::Switches;
use super::user_arena::Arenas;
use super::waiting::Waiting;
use crate::addr::{Addr, Bytes, PageCount};
use crate::offheap::Persistent;
use crate::os::fork::Origin;
use crate::os::{Os, OsError};
use crate::span::lookup::{self, Asked, Lookup};
use crate::span::shards::shards_for;
use crate::span::{Backlog, Generation, OwnedSpan, Room, Span, SpanSet, map};
use crate::sync::Alarm;
use crate::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use freed::Freed;

/// How a heap's shared part is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Ready bytes that the heap would rather not exceed.
    pub soft_limit: Option<Bytes>,
    /// Ready bytes that the heap will not exceed.
    pub hard_limit: Option<Bytes>,
    /// Whether freed slots are filled with a pattern.
    pub poison: bool,
    /// In how many sets the spans of a class are, a power of two; as many as suit the machine otherwise.
    pub shards: Option<usize>,
}

/// The shared part of a heap, without its collector.
pub struct Central {
    number: u64,
    os: Os,
    memory: Persistent,
    classes: ClassTable,
    pages: PageHeap,
    drops: DropQueue,
    switches: Switches,
    hooks: Hooks,
    /// The process that the heap belongs to.
    origin: Origin,
    /// Trace functions that have panicked.
    trace_panics: AtomicU64,
    revivals: Revivals,
    waiting: Waiting,
    /// What waits to be swept, how fast it has to be, and where the reclaimer is.
    backlog: Backlog,
    pace: SweepPace,
    reclaimer: Reclaimer,
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
    /// When live bytes and those outside reach this, the alarm rings.
    trigger: AtomicUsize,
    /// The same as it would be without a limit.
    unlimited_trigger: AtomicUsize,
    /// What is accounted for outside of the heap.
    outside: Outside,
    /// Whether somebody has rung for the trigger since the collector last was about to sleep.
    triggered: AtomicBool,
    /// Whether an allocation was refused since the last cycle began.
    starved: AtomicBool,
    alarm: Alarm,
    stalls: Stalls,
    debt: Debt,
    arenas: Arenas,
}

impl Central {
    /// The shared part of a new heap, with somebody to tell of panics.
    pub fn with_hooks(os: Os, config: Config, hooks: Hooks) -> Result<Central, OsError> {
        let switches = Switches::new();
        switches.set_poison(config.poison);
        let number = map::new_heap_number();
        let processors = crate::os::thread::processors();
        let shards = config.shards.unwrap_or(shards_for(processors));
        let pages = PageHeap::new(&os, number, Limits::new(config.soft_limit, config.hard_limit))?;
        Ok(Central {
            number,
            os,
            memory: Persistent::new(),
            classes: ClassTable::new(shards),
            pages,
            drops: DropQueue::with_hooks(hooks.clone()),
            switches,
            hooks,
            origin: Origin::here(),
            trace_panics: AtomicU64::new(0),
            revivals: Revivals::new(),
            waiting: Waiting::new(),
            backlog: Backlog::new(),
            pace: SweepPace::new(),
            reclaimer: Reclaimer::new(),
            generation: AtomicU32::new(0),
            retain: AtomicBool::new(false),
            retained: AtomicUsize::new(0),
            taken: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            trigger: AtomicUsize::new(usize::MAX),
            unlimited_trigger: AtomicUsize::new(usize::MAX),
            outside: Outside::new(),
            triggered: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            alarm: Alarm::new(),
            stalls: Stalls::new(),
            debt: Debt::new(),
            arenas: Arenas::new(),
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

    /// Queues of revived objects.
    pub fn revivals(&self) -> &Revivals {
        &self.revivals
    }

    /// Ephemerons that wait for their keys.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// What is counted.
    pub fn counters(&self) -> &Counters {
        self.pages.counters()
    }

    /// The right to count for the mutator that `local` belongs to.
    pub fn writer(&self, local: &LocalPages) -> Writer<'_> {
        self.counters().writer(local.seat(), &self.os, &self.memory)
    }

    /// Takes back the pages that a mutator keeps for itself.
    pub fn take_back(&self, local: &LocalPages) {
        let _ = self.pages.take_back(&self.os, &self.memory, local);
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
        // Nobody owes anything until the next trigger is known.
        self.pace.rest();
        self.retain.store(retain_all, Ordering::Relaxed);
        self.retained.store(retained.get(), Ordering::Relaxed);
        self.taken.fetch_sub(taken_before, Ordering::Relaxed);
        self.generation.store(generation.get(), Ordering::Release);
        self.catch_up();
        // Where everything is retained, there is nothing to reclaim.
        let newest = self.pages.arenas().next().filter(|_| !retain_all);
        // SAFETY: arenas live until `release`, when the caller promises that nobody is left.
        unsafe { self.reclaimer.begin(generation, newest) };
    }

    /// Tells each class of the generation, so that the backlog counts all that waits.
    pub fn catch_up(&self) {
        let generation = self.generation();
        self.classes.iter().for_each(|class| class.spans().catch_up(generation, &self.backlog));
    }

    /// What waits to be swept, and how much has been.
    #[cfg(test)]
    pub fn backlog(&self) -> &Backlog {
        &self.backlog
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

    /// What wakes the collector.
    pub fn alarm(&self) -> &Alarm {
        &self.alarm
    }

    /// What allocations have to do for the marking.
    pub fn debt(&self) -> &Debt {
        &self.debt
    }

    /// How long mutators have been held up.
    pub fn stalls(&self) -> &Stalls {
        &self.stalls
    }

    /// The class of `key`.
    pub fn class(
        &self,
        key: &ClassKey,
        type_name: fn() -> &'static str,
    ) -> Result<&'static Class, OutOfMemory> {
        self.assert_here();
        self.classes
            .find_or_make(key, type_name, &self.os, &self.memory)
            .map_err(|error| self.out_of_memory(Bytes::ZERO, error.into()))
    }

    /// The classes of the heap.
    pub fn classes(&self) -> impl Iterator<Item = &'static Class> {
        self.classes.iter()
    }

    /// Returns free pages to the system, at least `bytes` of them or all that there are.
    pub fn scavenge(&self, bytes: Bytes, force: Force) -> Bytes {
        self.pages.scavenge(&self.os, bytes, force)
    }

    /// Whether sweeps free nothing now.
    pub fn retains_everything(&self) -> bool {
        self.retain.load(Ordering::Relaxed)
    }

    /// Sweeps all that waits, and waits for those who are at it; false when there was nothing of that.
    pub fn sweep_everything(&self) -> bool {
        let nothing = self.backlog.is_clear();
        while !self.backlog.is_clear() {
            if !self.sweep_one() {
                // Somebody else has the last ones. He holds no lock and waits for nobody.
                std::thread::yield_now();
            }
        }
        !nothing
    }

    /// Whether nothing waits to be swept, and nobody sweeps.
    pub fn is_swept(&self) -> bool {
        self.backlog.is_clear()
    }

    fn how(&self, generation: Generation) -> How {
        How {
            generation,
            retain: self.retain.load(Ordering::Relaxed),
            poison: self.switches.poison(),
        }
    }

    /// Sweeps one span of whatever class; false when none is left in any.
    pub fn sweep_one(&self) -> bool {
        self.sweep_any(&mut Freed::new(self)).is_some()
    }

    /// The same. How many pages the span has.
    fn sweep_any(&self, freed: &mut Freed<'_>) -> Option<PageCount> {
        let (set, span, target) = self.classes.take_unswept(self.generation(), &self.backlog)?;
        let pages = span.info().pages;
        self.sweep_into(set, span, target, freed);
        Some(pages)
    }

    /// Sweeps the span that `record` describes, if it waits for that. Returns the pages that become free.
    fn sweep_found(&self, record: &Span, freed: &mut Freed<'_>) -> PageCount {
        let set = record.home();
        let stolen = set.and_then(|set| {
            let stolen = set.steal(record, self.generation(), &self.backlog);
            stolen.map(|(span, target)| (set, span, target))
        });
        match stolen {
            Some((set, span, target)) => self.sweep_into(set, span, target, freed),
            None => PageCount::ZERO,
        }
    }

    /// Sweeps a span and puts it where it belongs; if it is empty, `freed` gets it. Returns the pages that become
    /// free.
    fn sweep_into(
        &self,
        set: &'static SpanSet,
        span: OwnedSpan,
        generation: Generation,
        freed: &mut Freed<'_>,
    ) -> PageCount {
        let pages = span.info().pages;
        match sweep(span, &self.drops, self.how(generation), self.counters().shared()) {
            Swept::Empty(span) => {
                freed.add(span);
                return pages;
            }
            other => self.settle(set, other, generation),
        }
        self.backlog.finish(pages);
        PageCount::ZERO
    }

    /// What the room in a swept span is worth, of which `taken` slots hold objects.
    fn room_in(&self, span: &OwnedSpan, taken: usize) -> Room {
        let is_astray = self.pages.is_above_line(span.info().base);
        Room::beside(taken, span.info().slots, is_astray)
    }

    /// Puts a swept span where it belongs.
    fn settle(&self, set: &'static SpanSet, swept: Swept, generation: Generation) {
        match swept {
            Swept::Empty(span) => {
                self.pages.free_span(span);
                self.note_free_pages();
            }
            Swept::Partial(span, taken) => {
                let room = self.room_in(&span, taken);
                set.put(span, generation, room, &self.backlog);
            }
            Swept::Full(span) => set.put(span, generation, Room::None, &self.backlog),
            Swept::Dropping => {}
        }
    }

    /// Returns all memory to the system.
    ///
    /// # Safety
    /// No mutator is attached, no thread of the heap runs, and nobody uses a pointer into it.
    pub unsafe fn release(&self) {
        self.arenas.close();
        // SAFETY: the caller's promise.
        unsafe { self.pages.release(&self.os) };
        // SAFETY: classes, spans and arena records lie here, and nobody is left who could use them.
        unsafe { self.memory.release(&self.os) };
    }
}

#[cfg(test)]
pub(super) mod tests;
