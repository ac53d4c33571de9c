//! Statistics: a snapshot of what a heap holds and what its collector has done; a picture of its pages; an
//! explanation of where the process's memory is; and a walk over all spans to check them by. What one cycle was is a
//! [`CycleTrace`], which a hook gets ([`crate::heap::hooks`]).
//!
//! [`Stats`] has two parts. What is *counted* (objects by size class, pages by what they are used
//! for) is one consistent snapshot, taken without stopping anybody: see [`crate::heap::counters`].
//! The rest are figures of the collector and the system layer, read one after the other.
//!
//! | file | what |
//! |---|---|
//! | `mod` | [`Stats`] |
//! | `picture` | what each page is used for, and how full each class of spans is |
//! | `rss` | where the resident memory of the process is |
//! | `walk` | what the side tables alone say, to hold the counters to |

mod picture;
mod rss;
mod walk;

pub use crate::heap::counters::{MemoryState, Objects, Snapshot};
pub use crate::heap::cycle_trace::Reason as CycleReason;
pub use crate::heap::cycle_trace::{CycleArenas, CycleClock, CycleCpu, CycleTrace};
pub use crate::heap::stall::Cause;
pub use crate::heap::user_arena::ArenaTotals;
pub use crate::heap::verify::{Finding, Verified};
pub use crate::heap::{Live, LiveType};
pub use picture::{ArenaPicture, ClassPicture, PageState, PageTotals, Picture};
pub use rss::{Rss, RssRow};
pub use walk::Walk;

use crate::addr::Bytes;
use crate::mutator::Heap;
use crate::os::Category;
use crate::sync::TimeCounts;
use std::time::Duration;

/// A snapshot of a heap. Sizes are bytes. The figures are read one after the other while the program
/// goes on, so they need not add up to the byte; [`Stats::counted`] does.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Complete cycles.
    pub cycles: u64,
    /// Bytes of objects that the last cycle retained: marked, and allocated while it marked.
    pub retained: Bytes,
    /// Bytes of objects that the last cycle marked.
    pub marked: Bytes,
    /// Objects that the last cycle marked.
    pub marked_objects: u64,
    /// Bytes of objects now: retained, and allocated since.
    pub live: Bytes,
    /// Bytes outside of the heap that are accounted for now. The next two figures include such bytes, and those of
    /// user arenas.
    pub outside: Bytes,
    /// User arenas.
    pub arenas: ArenaTotals,
    /// The size at which the next cycle should end.
    pub goal: Bytes,
    /// The size at which it begins.
    pub trigger: Bytes,
    /// Ready bytes that the heap should not exceed.
    pub soft_limit: Option<Bytes>,
    /// Ready bytes beyond which pages for objects are refused.
    pub hard_limit: Option<Bytes>,
    /// How often the heap grew beyond its soft limit, having been below.
    pub times_over_soft_limit: u64,
    /// Allocations that were refused, by the hard limit or by the system.
    pub refusals: u64,
    /// How often a cycle that only a limit wanted had to wait, lest the collector take more than half of the
    /// processor time.
    pub deferred_cycles: u64,
    /// How often the program was told that a limit is near.
    pub pressure_calls: u64,
    /// How often it has panicked then.
    pub pressure_panics: u64,
    /// Bytes of pages that belong to spans.
    pub spans: Bytes,
    /// Bytes of objects allocated since the heap was made, unfinished runs of slots included; it
    /// falls when these are given back.
    pub allocated: u64,
    /// Objects by size class, and pages by their state, all at one moment.
    pub counted: Snapshot,
    /// Bytes that are mapped for the heap, all categories.
    pub mapped: Bytes,
    /// Bytes that are ready for use, all categories.
    pub ready: Bytes,
    /// Bytes of side tables that went back to the system together with the pages they describe. So ready bytes
    /// are the mapped ones less these, less `cold_records` and less the pages that were returned.
    pub returned_tables: Bytes,
    /// Bytes that are mapped for records of spans and have no memory: not yet, or not any more.
    pub cold_records: Bytes,
    /// Bytes that are mapped, by category.
    pub by_category: Vec<(&'static str, Bytes)>,
    /// Termination rounds that the last cycle took.
    pub rounds: u32,
    /// Whether the last cycle retained everything because it could not finish marking.
    pub retained_everything: bool,
    /// CPU time that collecting has cost: of the collector thread in cycles, of those that mark with it, of
    /// threads that have offered their time, and of mutators that have marked in the middle of allocations.
    /// What a mutator sweeps in order to allocate counts as allocating.
    pub collector_cpu: Duration,
    /// The part of it that was marking in the middle of allocations.
    pub assist_cpu: Duration,
    /// Bytes of objects that mutators have scanned in the middle of allocations, because the collector was
    /// behind.
    pub assisted: u64,
    /// Objects that checkmark mode has verified, over all cycles.
    pub verified_objects: u64,
    /// The longest time that a mutator was held up.
    pub longest_stall: Duration,
    /// Why.
    pub longest_stall_cause: Cause,
    /// How often mutators were held up, and for how long.
    pub stalls: TimeCounts,
    /// Values whose destructor has run.
    pub dropped: u64,
    /// Destructors and cleanups that have panicked.
    pub drop_panics: u64,
    /// How long the values have waited whose destructors are next.
    pub drop_wait: Duration,
    /// The type whose destructors run now, up to 64 of them, and since when: a long time is a destructor
    /// that is slow, or does not return.
    pub dropping: Option<(&'static str, Duration)>,
    /// Complete cycles that retained everything because they could not finish marking.
    pub broken_cycles: u64,
    /// Trace functions that have panicked on the collector's thread.
    pub trace_panics: u64,
    /// Cleanups that have run.
    pub cleanups: u64,
    /// Finalizers, cleanups and weak pointers: records on objects, and those that wait for the drop thread or in a
    /// queue of revived objects.
    pub records: usize,
    /// Mutators that are attached.
    pub mutators: usize,
    /// Mutators that are inside a closure.
    pub mutators_inside: usize,
    /// Entries of the root table, dead ones included.
    pub roots: usize,
}

impl Stats {
    /// A snapshot of `heap`.
    pub fn of(heap: &Heap) -> Stats {
        let collector = heap.collector();
        let central = collector.central();
        let last = collector.last_cycle();
        let [assist_cpu, offered_cpu] = collector.spent();
        let accounting = central.os().accounting();
        let (longest_stall, longest_stall_cause) = central.stalls().longest();
        let (limits, (pressure_calls, pressure_panics)) =
            (central.pages().limits(), collector.pressure_calls());
        let drops = central.drops().state();
        let (mutators, mutators_inside) = collector.registry().counts();
        let arenas = central.arenas().totals();
        Stats {
            cycles: last.cycles,
            retained: last.retained,
            marked: last.report.marked.bytes,
            marked_objects: last.report.marked.objects,
            live: central.live(),
            outside: central.outside().now().saturating_sub(arenas.live),
            arenas,
            goal: last.plan.goal,
            trigger: last.plan.trigger,
            soft_limit: limits.soft(),
            hard_limit: limits.hard(),
            times_over_soft_limit: limits.met().times_over,
            refusals: limits.met().refusals,
            deferred_cycles: last.deferred,
            pressure_calls,
            pressure_panics,
            spans: central.pages().in_use(),
            allocated: central.total(),
            counted: central.counters().snapshot(),
            mapped: accounting.mapped_total(),
            ready: accounting.ready(),
            returned_tables: central.pages().returned_tables(central.os()),
            cold_records: central.pages().cold_records(),
            by_category: Category::ALL.iter().map(|&c| (c.name(), accounting.mapped(c))).collect(),
            rounds: last.report.rounds,
            retained_everything: last.report.retained_everything,
            collector_cpu: last.cpu + assist_cpu + offered_cpu,
            assist_cpu,
            assisted: collector.assisted(),
            verified_objects: last.checked,
            longest_stall,
            longest_stall_cause,
            stalls: central.stalls().counts(),
            dropped: drops.dropped,
            drop_panics: drops.panics,
            drop_wait: drops.waiting,
            dropping: drops.running,
            broken_cycles: last.broken,
            trace_panics: central.trace_panics(),
            cleanups: central.drops().cleanups(),
            records: central.drops().specials().counts().0,
            mutators,
            mutators_inside,
            roots: collector.roots().len(),
        }
    }
}
