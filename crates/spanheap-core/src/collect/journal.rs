//! What a cycle notes of itself: when it came from one step to the next, and what that has cost. It is what the
//! pacer's measurement and the sum of all cycles' processor time are made from; and at the end, if somebody wants to
//! hear of it, a [`CycleTrace`].
//!
//! ```text
//!   begin --- arming ---> marking begins --- marking ---> a clean round --- ending ---> idle --- sweeping ---> end
//! ```
//!
//! At each of these the collector's thread reads two clocks if somebody wants to hear of the cycle, which is asked when
//! it begins. If nobody does, only what the pacer needs is noted.
//!
//! # Who is told
//! The one who has said so when he made the heap ([`crate::heap::hooks::Hooks::cycle`]), on the collector's thread, when
//! everything is swept and before anybody who waits for the cycle goes on. And standard error, if the heap is to write
//! the line ([`crate::heap::switches`]). That is written past the lock that `std` has for it: a thread that holds this
//! lock and waits for a cycle would wait for itself.

use super::collector::{Collector, CycleReport};
use super::crew::Tally;
use super::pacer::speed::Times;
use crate::addr::{Bytes, WORD_BYTES};
use crate::fatal::contain;
use crate::heap::Reason;
use crate::heap::cycle_trace::{CycleArenas, CycleClock, CycleCpu, CycleTrace, percent};
use crate::os::clock::thread_cpu_time;
use crate::span::alone::{Alone, Busy};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// A moment, by both clocks of the collector's thread.
#[derive(Clone, Copy)]
struct Moment {
    wall: Instant,
    cpu: Duration,
}

impl Moment {
    fn now() -> Moment {
        Moment { wall: Instant::now(), cpu: thread_cpu_time() }
    }

    /// The time since, by both clocks. Neither is negative, whatever they say.
    fn since(self, before: Moment) -> (Duration, Duration) {
        let wall = self.wall.saturating_duration_since(before.wall);
        (wall, self.cpu.saturating_sub(before.cpu))
    }
}

/// What is noted of one cycle.
pub(super) struct Journal {
    reason: Reason,
    /// Whether the line is to be written.
    is_written: bool,
    /// Whether anybody wants to hear of the cycle. Otherwise the next three moments are that of its beginning.
    is_told: bool,
    begun: Moment,
    marking: Moment,
    clean: Moment,
    idle: Moment,
    /// Processor time of all assists before.
    assists_before: Duration,
    /// That of helpers.
    helped: Duration,
    /// That of volunteers.
    offered: Duration,
    heap_before: Bytes,
    heap_marked: Bytes,
    /// The goal that the cycle was to meet.
    goal: Bytes,
    /// Bytes of the root table.
    roots: Bytes,
    /// Bytes of freed arenas that wait for this cycle: without their memory, and with it.
    quarantined: Bytes,
    kept: Bytes,
}

impl Journal {
    /// A cycle begins.
    pub fn begin(collector: &Collector, reason: Reason) -> Journal {
        let begun = Moment::now();
        let is_written = collector.central.switches().trace_cycles();
        Journal {
            reason,
            is_written,
            is_told: is_written || collector.central.hooks().cycle.is_some(),
            begun,
            marking: begun,
            clean: begun,
            idle: begun,
            assists_before: collector.spent.assists(),
            helped: Duration::ZERO,
            offered: Duration::ZERO,
            heap_before: collector.central.weight(),
            heap_marked: Bytes::ZERO,
            goal: collector.last_cycle().plan.goal,
            roots: Bytes::ZERO,
            quarantined: Bytes::ZERO,
            kept: Bytes::ZERO,
        }
    }

    /// Why the cycle runs.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// Processor time of the collector's thread when it began.
    pub fn cpu_before(&self) -> Duration {
        self.begun.cpu
    }

    /// The moment, if it matters.
    fn now(&self) -> Moment {
        if self.is_told { Moment::now() } else { self.begun }
    }

    /// Marking begins.
    pub fn marking_begins(&mut self, collector: &Collector) {
        self.marking = self.now();
        self.quarantined = collector.central.pages().quarantined();
        self.kept = collector.central.arenas().kept();
    }

    /// A round was clean.
    pub fn is_clean(&mut self, collector: &Collector) {
        self.clean = self.now();
        self.heap_marked = collector.central.weight();
        self.roots = Bytes::new(collector.roots.len() * WORD_BYTES);
    }

    /// Nobody marks any more; all together have done so much.
    pub fn has_marked(&mut self, tally: &Tally) {
        (self.helped, self.offered) = (tally.cpu, tally.idle);
    }

    /// The heap is idle for everybody.
    pub fn is_idle(&mut self) {
        self.idle = self.now();
    }

    /// Processor time of the collector's own threads so far.
    pub fn cpu(&self) -> Duration {
        thread_cpu_time().saturating_sub(self.begun.cpu) + self.helped
    }

    /// How the processors were used so far.
    pub fn times(&self, collector: &Collector) -> Times {
        Times {
            elapsed: self.begun.wall.elapsed(),
            processors: collector.processors,
            workers: Some(self.cpu()),
            assists: self.assists(collector),
            idle: self.offered,
        }
    }

    /// What threads that allocate have spent on this cycle. No other one marks meanwhile.
    fn assists(&self, collector: &Collector) -> Duration {
        collector.spent.assists().saturating_sub(self.assists_before)
    }
}

impl Collector {
    /// A cycle has ended, and everything is swept: tells who wants to hear of it.
    pub(super) fn tell_of_cycle(&self, journal: &Journal, report: &CycleReport) {
        if !journal.is_told {
            return;
        }
        let trace = self.trace(journal, report);
        if journal.is_written {
            // Nobody could be told that nobody can be told.
            let _ = write_line(&trace);
        }
        if let Some(hook) = &self.central.hooks().cycle {
            let _alone = Alone::begin(Busy::Hook);
            contain(|| hook(&trace));
        }
    }

    fn trace(&self, journal: &Journal, report: &CycleReport) -> CycleTrace {
        let (central, last) = (&self.central, self.last_cycle());
        let Journal { begun, marking, clean, idle, .. } = *journal;
        let (arming, arming_cpu) = marking.since(begun);
        let (marked, marked_cpu) = clean.since(marking);
        let (ending, ending_cpu) = idle.since(clean);
        let (sweeping, sweeping_cpu) = Moment::now().since(idle);
        let [assists, offered] = self.spent();
        let spent = last.cpu + assists + offered;
        let totals = central.arenas().totals();
        let outside = central.outside().now();
        let live = match report.retained_everything {
            true => last.retained,
            false => report.marked.bytes,
        };
        CycleTrace {
            heap: central.number(),
            cycle: last.cycles,
            reason: journal.reason,
            began: begun.wall.saturating_duration_since(self.begun),
            percent: percent(spent, self.begun.elapsed(), self.processors),
            clock: CycleClock { arming, marking: marked, ending, sweeping },
            cpu: CycleCpu {
                arming: arming_cpu,
                assists: journal.assists(self),
                marking: marked_cpu + journal.helped,
                offered: journal.offered,
                ending: ending_cpu,
                sweeping: sweeping_cpu,
            },
            heap_before: journal.heap_before,
            heap_marked: journal.heap_marked,
            heap_live: live.saturating_add(outside.saturating_sub(central.expected())),
            goal: journal.goal,
            roots: journal.roots,
            processors: self.processors,
            rounds: report.rounds,
            marked_objects: report.marked.objects,
            marked: report.marked.bytes,
            retained_everything: report.retained_everything,
            outside: outside.saturating_sub(totals.live),
            arenas: CycleArenas {
                open: totals.made.saturating_sub(totals.freed),
                freed: totals.freed,
                live: totals.live,
                quarantined_before: journal.quarantined,
                kept: journal.kept,
                quarantined: central.pages().quarantined(),
                escapes: totals.escapes,
            },
        }
    }
}

/// Writes a line to standard error, in one piece as far as the system does so.
fn write_line(trace: &CycleTrace) -> io::Result<()> {
    let line = format!("{trace}\n");
    // A file of its own, which ends with this call, because the one of `std` has a lock.
    let mut error = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    error.write_all(line.as_bytes())
}
