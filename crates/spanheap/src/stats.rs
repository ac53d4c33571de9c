//! [`Stats`]: what a heap holds and what its collector has done.

use spanheap_core::mutator::Heap as CoreHeap;
use spanheap_core::observe::Stats as CoreStats;
use std::time::Duration;

/// A snapshot of a heap. The figures are read one after the other while the program goes on, so they need
/// not add up to the byte.
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
    /// The size at which the next cycle should end, in bytes of objects.
    pub goal_bytes: usize,
    /// Bytes of pages that hold objects.
    pub heap_bytes: usize,
    /// Bytes of objects allocated since the heap was made.
    pub allocated_bytes: u64,
    /// Bytes that are mapped for the heap and its records.
    pub mapped_bytes: usize,
    /// Bytes of these that are ready for use: what a memory limit counts.
    pub ready_bytes: usize,
    /// CPU time of the collector thread.
    pub gc_cpu: Duration,
    /// The longest time that a thread was held up by the heap: by the slow path of an allocation, a change
    /// of phase, a container that was locked, a full buffer of its write barrier.
    pub longest_stall: Duration,
    /// What it was held up by.
    pub longest_stall_cause: &'static str,
    /// Values whose destructor has run.
    pub dropped: u64,
    /// Destructors that have panicked.
    pub drop_panics: u64,
    /// Objects that checkmark mode has verified, over all cycles.
    pub verified_objects: u64,
    /// Whether the last complete cycle could not find out what is live, and retained everything.
    pub retained_everything: bool,
    /// Threads that are attached.
    pub threads: usize,
    /// Threads that are inside a closure.
    pub threads_inside: usize,
    /// Roots, those included that were dropped since the last cycle began.
    pub roots: usize,
}

impl Stats {
    pub(crate) fn of(heap: &CoreHeap) -> Stats {
        let core = CoreStats::of(heap);
        Stats {
            cycles: core.cycles,
            live_bytes: core.marked.get(),
            live_objects: core.marked_objects,
            used_bytes: core.live.get(),
            goal_bytes: core.goal.get(),
            heap_bytes: core.spans.get(),
            allocated_bytes: core.allocated,
            mapped_bytes: core.mapped.get(),
            ready_bytes: core.ready.get(),
            gc_cpu: core.collector_cpu,
            longest_stall: core.longest_stall,
            longest_stall_cause: core.longest_stall_cause.name(),
            dropped: core.dropped,
            drop_panics: core.drop_panics,
            verified_objects: core.verified_objects,
            retained_everything: core.retained_everything,
            threads: core.mutators,
            threads_inside: core.mutators_inside,
            roots: core.roots,
        }
    }
}
