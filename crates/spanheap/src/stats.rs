//! [`Stats`]: what a heap holds and what its collector has done.

use spanheap_core::addr::Bytes;
use spanheap_core::mutator::Heap as CoreHeap;
use spanheap_core::observe::{MemoryState, Snapshot, Stats as CoreStats};
use spanheap_core::span::size_class::SizeClass;
use std::time::Duration;

/// A snapshot of a heap.
///
/// Figures that are *counted* are all of one moment, and add up, although no thread is stopped for
/// them: no object is freed that was not allocated, and objects lie in pages that are in use. A
/// thread counts what it has allocated when it needs new slots and, if the collector was at work
/// meanwhile, when it enters its next closure; so the counts are behind by up to a run of slots for
/// each thread and type. The other figures are read one after the other while the program goes on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Complete cycles.
    pub cycles: u64,
    /// Bytes of objects that the last complete cycle marked.
    pub live_bytes: usize,
    /// Objects that the last complete cycle marked. (Small values without pointers share a slot and
    /// count as one.)
    pub live_objects: u64,
    /// Bytes of objects now: what the last cycle retained, and what has been allocated since.
    pub used_bytes: usize,
    /// Bytes outside of the heap that are accounted for: see [`Heap::account`](crate::Heap::account).
    pub accounted_bytes: usize,
    /// The size at which the next cycle should end, in bytes of objects and of what is accounted for.
    pub goal_bytes: usize,
    /// The soft memory limit, in ready bytes: [`HeapBuilder::memory_limit`](crate::HeapBuilder::memory_limit).
    pub memory_limit: Option<usize>,
    /// The hard memory limit, in ready bytes: [`HeapBuilder::hard_limit`](crate::HeapBuilder::hard_limit).
    pub hard_limit: Option<usize>,
    /// How often the heap grew beyond the soft limit, having been below. Never falls.
    pub times_over_limit: u64,
    /// Allocations that were refused, by the hard limit or by the system. Never falls.
    pub refusals: u64,
    /// How often a cycle that only a limit wanted had to wait, because such cycles had had half of the process's
    /// processor time already. Never falls.
    pub deferred_cycles: u64,
    /// How often the program was told that a limit is near:
    /// [`HeapBuilder::on_pressure`](crate::HeapBuilder::on_pressure). Never falls.
    pub pressure_calls: u64,
    /// How often it has panicked then. Never falls.
    pub pressure_panics: u64,
    /// Bytes of pages that hold objects. Counted.
    pub heap_bytes: usize,
    /// Bytes of pages that are managed by hand: those of arenas, those that threads keep for their next arenas, and those of
    /// allocators. Counted.
    pub manual_bytes: usize,
    /// Bytes of free pages that threads keep for themselves. Counted.
    pub cached_bytes: usize,
    /// Bytes of free pages that have not been returned to the system. Counted.
    pub free_bytes: usize,
    /// Bytes of address space for pages that has no memory: never used, or returned. Counted.
    pub returned_bytes: usize,
    /// Bytes of objects allocated since the heap was made. Counted; never falls.
    pub allocated_bytes: u64,
    /// Bytes of objects freed since the heap was made. Counted; never falls.
    pub freed_bytes: u64,
    /// Objects allocated since the heap was made. Counted; never falls.
    pub allocated_objects: u64,
    /// Objects freed since the heap was made. Small values without pointers that share a slot with
    /// others count when they are allocated, since nobody sees them die. Counted; never falls.
    pub freed_objects: u64,
    /// Objects allocated so far that share a slot which another one had opened. Counted; never
    /// falls.
    pub tiny_objects: u64,
    /// Objects that are dead and wait for their destructor. Counted.
    pub owed_objects: u64,
    /// Bytes of these. Counted.
    pub owed_bytes: usize,
    /// Objects by the size of their slots, smallest first. Counted.
    pub by_size: Vec<SizeStats>,
    /// Objects that have pages of their own. Counted.
    pub large: LargeStats,
    /// Bytes that are mapped for the heap and its records.
    pub mapped_bytes: usize,
    /// Bytes of these that are ready for use: what memory limits count.
    pub ready_bytes: usize,
    /// CPU time that collecting has cost: of the collector thread, of those that mark with it, of threads that
    /// have offered their time, and of threads that have marked in the middle of allocations. What a thread
    /// sweeps in order to allocate counts as allocating.
    pub gc_cpu: Duration,
    /// The part of it that was marking in the middle of allocations.
    pub assist_cpu: Duration,
    /// Bytes of objects that threads have scanned in the middle of allocations, because the collector was
    /// behind.
    pub assisted_bytes: u64,
    /// The longest time that a thread was held up by the heap: by the slow path of an allocation, a change
    /// of phase, a container that was locked, a full buffer of its write barrier, marking that it had to help with, the
    /// memory of arenas that it has freed.
    pub longest_stall: Duration,
    /// What it was held up by.
    pub longest_stall_cause: &'static str,
    /// Values whose destructor has run.
    pub dropped: u64,
    /// Destructors and cleanups that have panicked.
    pub drop_panics: u64,
    /// How long the values have waited whose destructors are next; how many wait is `owed_objects`.
    pub drop_wait: Duration,
    /// The type whose destructors run now, up to 64 of them, and since when. A long time is a warning: a
    /// destructor is slow, or does not return. Nothing waits for it but the memory of dead values behind it.
    pub dropping: Option<(&'static str, Duration)>,
    /// Cleanups that have run.
    pub cleanups: u64,
    /// Records of single objects: a cleanup, a finalizer, that there are weak pointers to it. Those included that
    /// wait for their turn on the drop thread, or in a queue of revived objects.
    pub records: usize,
    /// Objects that checkmark mode has verified, over all cycles.
    pub verified_objects: u64,
    /// Whether the last complete cycle could not find out what is live, and retained everything.
    pub retained_everything: bool,
    /// Complete cycles that could not find out what is live, and retained everything.
    pub broken_cycles: u64,
    /// `Trace` implementations that have panicked while a cycle marked; each makes its cycle a broken one.
    pub trace_panics: u64,
    /// Threads that are attached.
    pub threads: usize,
    /// Threads that are inside a closure.
    pub threads_inside: usize,
    /// Roots, those included that were dropped since the last cycle began.
    pub roots: usize,
    /// Shared arenas.
    pub arenas: ArenaStats,
}

/// What a heap knows about its [shared arenas](crate::SharedArena).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ArenaStats {
    /// Arenas made so far.
    pub made: u64,
    /// Of these, how many have not been freed; abandoned ones that are still reached are among them.
    pub open: u64,
    /// Arenas freed so far, by whomever.
    pub freed: u64,
    /// Bytes of pages of those that are open. They count for goals and limits.
    pub live_bytes: usize,
    /// Bytes of addresses without memory: of arenas that were freed, and that something may still point to.
    pub quarantined_bytes: usize,
    /// Bytes of others that have their memory still, inaccessible, until a cycle has looked whether anything points there.
    pub kept_bytes: usize,
    /// Bytes of addresses that have come back from there, so far.
    pub released_bytes: u64,
    /// Bytes of freed arenas, so far, whose memory has gone, but where the system could not make accesses fault.
    pub unguarded_bytes: u64,
    /// Pointers to values of freed arenas that cycles have found, so far; each cycle counts those it has found anew.
    pub escapes: u64,
}

impl ArenaStats {
    fn of(core: &CoreStats) -> ArenaStats {
        let totals = &core.arenas;
        ArenaStats {
            made: totals.made,
            open: totals.made.saturating_sub(totals.freed),
            freed: totals.freed,
            live_bytes: totals.live.get(),
            quarantined_bytes: core.counted.pages(MemoryState::Quarantined).get(),
            kept_bytes: totals.kept.get(),
            released_bytes: totals.released,
            unguarded_bytes: totals.unguardable,
            escapes: totals.escapes,
        }
    }
}

/// What was counted of the objects in slots of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct SizeStats {
    /// Bytes of a slot.
    pub slot_bytes: usize,
    /// Objects allocated so far.
    pub allocated: u64,
    /// Objects freed so far.
    pub freed: u64,
    /// Slots that threads have taken in advance: used and not counted yet, or free.
    pub taken: u64,
}

/// What was counted of the objects that have pages of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LargeStats {
    /// Objects allocated so far.
    pub allocated: u64,
    /// Bytes of their pages.
    pub allocated_bytes: u64,
    /// Objects freed so far.
    pub freed: u64,
    /// Bytes of their pages.
    pub freed_bytes: u64,
}

impl LargeStats {
    fn of(counted: &Snapshot) -> LargeStats {
        let (large, bytes) = (counted.large(), counted.large_bytes());
        LargeStats {
            allocated: large.allocated,
            allocated_bytes: bytes.allocated,
            freed: large.freed,
            freed_bytes: bytes.freed,
        }
    }
}

impl Stats {
    pub(crate) fn of(heap: &CoreHeap) -> Stats {
        let core = CoreStats::of(heap);
        let counted = &core.counted;
        let (objects, bytes) = (counted.values(), counted.bytes());
        let (owed_objects, owed_bytes) = counted.owed();
        let pages = |state| counted.pages(state).get();
        let size = |class: SizeClass| {
            let objects = counted.small(class);
            SizeStats {
                slot_bytes: class.size().get(),
                allocated: objects.allocated,
                freed: objects.freed,
                taken: objects.in_runs,
            }
        };
        Stats {
            cycles: core.cycles,
            live_bytes: core.marked.get(),
            live_objects: core.marked_objects,
            used_bytes: core.live.get(),
            accounted_bytes: core.outside.get(),
            goal_bytes: core.goal.get(),
            memory_limit: core.soft_limit.map(Bytes::get),
            hard_limit: core.hard_limit.map(Bytes::get),
            times_over_limit: core.times_over_soft_limit,
            refusals: core.refusals,
            deferred_cycles: core.deferred_cycles,
            pressure_calls: core.pressure_calls,
            pressure_panics: core.pressure_panics,
            heap_bytes: pages(MemoryState::InUse),
            manual_bytes: pages(MemoryState::Manual),
            cached_bytes: pages(MemoryState::Cached),
            free_bytes: pages(MemoryState::Free),
            returned_bytes: pages(MemoryState::Returned),
            allocated_bytes: bytes.allocated,
            freed_bytes: bytes.freed,
            allocated_objects: objects.allocated,
            freed_objects: objects.freed,
            tiny_objects: counted.tiny(),
            owed_objects,
            owed_bytes: owed_bytes.get(),
            by_size: SizeClass::all().map(size).collect(),
            large: LargeStats::of(counted),
            mapped_bytes: core.mapped.get(),
            ready_bytes: core.ready.get(),
            gc_cpu: core.collector_cpu,
            assist_cpu: core.assist_cpu,
            assisted_bytes: core.assisted,
            longest_stall: core.longest_stall,
            longest_stall_cause: core.longest_stall_cause.name(),
            dropped: core.dropped,
            cleanups: core.cleanups,
            records: core.records,
            drop_panics: core.drop_panics,
            drop_wait: core.drop_wait,
            dropping: core.dropping,
            verified_objects: core.verified_objects,
            retained_everything: core.retained_everything,
            broken_cycles: core.broken_cycles,
            trace_panics: core.trace_panics,
            threads: core.mutators,
            threads_inside: core.mutators_inside,
            roots: core.roots,
            arenas: ArenaStats::of(&core),
        }
    }
}
