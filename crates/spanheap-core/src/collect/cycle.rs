//! One collection cycle, from the first phase to the last span swept.
//!
//! ```text
//!   trim roots; retire span records; what was freed of user arenas dies
//!   publish ARMING A ------------------ grace period: everybody has the deletion barrier, and
//!                                       nobody has a pointer to a retired record: they go back;
//!                                       nobody reads a dead arena: its pages are guarded
//!   publish ARMING B; sweep leftovers - grace period: whoever holds an object has loaded it with it
//!   publish MARKING ------------------- mark roots; drain
//!   repeat: steal buffers; drain; note who is inside; wait until each has left; drain
//!           until nothing new was found from the note to the end: a clean round
//!   decide: clear weak pointers to what is dead; revive what has a finalizer, and drain
//!   begin the generation; publish IDLE; chunks of dead arenas without a mark are free pages; sweep
//! ```
//!
//! If marking could not be finished, the generation begins as one whose sweeps retain everything.
//!
//! Between the end of the first grace period and the publication of MARKING, and between the end of a clean round and
//! that of IDLE, is little to do. If nobody is inside just then, because the one who was waits in the [`super::gap`],
//! the second grace period is over at once, and the next closure begins in the phase after.
//!
//! The argument for it is in the essay of [`super`]. Nobody but this thread waits for a grace period; the
//! end of a heap cuts short only the waiting for locks of containers, since no closure is open then.
//!
//! # Safety
//! The memory of retired records is returned when a grace period is over that began after they were retired:
//! the first one of a cycle, or one between two cycles.
#![allow(unsafe_code)]

use super::assist::Running;
use super::checkmark;
use super::collector::{Collector, CycleReport};
use super::control::Wish;
use super::grey;
use super::mark::Marker;
use super::pacer::speed::Times;
use super::phase::{Phase, PhaseWord};
use super::ration::Entry;
use super::undertaker::Undertaker;
use super::watch::Watch;
use super::workers::Helpers;
use crate::addr::Bytes;
use crate::os::clock::thread_cpu_time;
use crate::span::Generation;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the collector sleeps at most before it looks again whether somebody has left. A mutator that
/// leaves rings the alarm, so this only bounds what a missed ring would cost.
const PATIENCE: Duration = Duration::from_millis(5);

/// How long the collector waits before it tries the locks of containers again.
const RETRY: Duration = Duration::from_micros(200);

impl Collector {
    /// Runs one cycle and sweeps after it.
    pub(super) fn cycle(
        self: &Arc<Collector>,
        helpers: &mut Helpers,
        entry: Entry,
        undertaker: &mut Undertaker,
    ) {
        let (began, cpu_before) = (Instant::now(), thread_cpu_time());
        let assists_before = self.spent.assists();
        let taken_before = self.central.taken();
        let cycle = self.word().cycle().wrapping_add(1);
        self.central.cycle_begins();

        self.roots.trim();
        self.pace_start();
        self.central.revivals().trim(self.central.drops().specials());
        self.grey.begin(cycle, grey::bound(self.central.pages().in_use()));
        self.arm(cycle, undertaker);

        let taken_at_snapshot = self.central.taken();
        let in_use = self.central.pages().in_use();
        helpers.start(self, in_use);
        self.set_helpers(helpers);
        let (report, helped, idle) = self.mark(cycle, in_use, &Running::new(entry, cpu_before));
        let in_use = self.central.pages().in_use();

        let taken_now = self.central.taken();
        let allocated = taken_between(taken_before, taken_now);
        let all = report.retained_everything;
        let retained = match all {
            true => self.central.live(),
            false => report.marked.bytes + taken_between(taken_at_snapshot, taken_now),
        };
        self.central.begin_generation(Generation::new(cycle), retained, taken_now, all);
        self.central.pages().next_scavenge_generation();
        self.publish(PhaseWord::new(Phase::Idle, cycle));
        self.control.gap().close();
        self.registry.note_states();
        self.control.set_gate(false);
        self.release_arenas(undertaker, cycle, all, report.work);
        let times = Times {
            elapsed: began.elapsed(),
            processors: self.processors,
            workers: Some(thread_cpu_time().saturating_sub(cpu_before) + helped),
            assists: self.spent.assists().saturating_sub(assists_before),
            idle,
        };
        self.pace_finish(&report, retained, allocated, times);
        self.registry.release_outside(&self.central, self.word(), &self.fence);
        // Before the sweep: mutators sweep along, at a pace that the next trigger sets.
        self.plan_next(in_use, false);
        self.sweep_all();
        // Again: what was garbage is free now, and nothing waits to be swept any more.
        self.plan_next(in_use, true);
        let cpu = thread_cpu_time().saturating_sub(cpu_before) + helped;
        self.finish_report(report, cpu);
    }

    /// Phases 1 and 2: when this is over, everybody has the deletion barrier, nothing waits to be swept, and no bit of the
    /// cycle before is left.
    fn arm(&self, cycle: u32, undertaker: &mut Undertaker) {
        if self.options.return_memory {
            self.central.pages().retire_records();
        }
        self.condemn_arenas();
        self.publish(PhaseWord::new(Phase::ArmingA, cycle));
        self.grace_period(|| {});
        // SAFETY: the grace period began after the retiring, which this thread alone does, and is over.
        unsafe { self.central.pages().return_records(self.central.os()) };

        self.publish(PhaseWord::new(Phase::ArmingB, cycle));
        // SAFETY: the same grace period; this cycle does not mark yet.
        unsafe { self.bury_arenas(undertaker) };
        self.registry.release_stale(&self.central, self.word());
        self.sweep_all();
        // Others may be in the midst of a span. Mutators are waited for below, in their closures; but who offers
        // his time is outside, and what he sweeps late would clear marks of this cycle.
        self.central.sweep_everything();
        self.grace_period(|| {});
        debug_assert!(self.central.is_swept(), "marking begins, and something waits to be swept");
        self.central.arenas().begin_marking();
    }

    /// A cycle that was asked for, without helpers, in a heap that has no thread.
    #[cfg(test)]
    pub(super) fn cycle_alone(self: &Arc<Collector>) {
        self.cycle(&mut Helpers::default(), Entry::Asked, &mut self.undertaker.lock());
    }

    /// Phase 3: marks everything that was reachable at its beginning.
    ///
    /// `in_use` is how large the heap is. Returns the report, and the CPU time of the helpers and of volunteers.
    fn mark(
        &self,
        cycle: u32,
        in_use: Bytes,
        running: &Running,
    ) -> (CycleReport, Duration, Duration) {
        self.crew.begin(self.central.os(), in_use.whole_pages(), cycle);
        self.begin_debt(running);
        let look = || self.revise_debt(running);
        let mut marker = Marker::new(&self.central, &self.crew, 0, cycle)
            .with_kernel(self.options.kernel)
            .with_overseer(&look);
        self.grey.begin_marking();
        self.publish(PhaseWord::new(Phase::Marking, cycle));
        self.control.gap().close();
        self.roots.begin_scan();
        self.crew.set_has_roots(true);
        marker.scan_roots(&self.roots, || true);
        self.central.revivals().scan(|revived| marker.mark(revived));
        let mut rounds = 0;
        loop {
            rounds += 1;
            self.drain(&mut marker);
            if self.round(&mut marker) {
                break;
            }
        }
        self.decide_weak(cycle, &mut marker);
        self.central.debt().end();
        let mut tally = self.crew.end();
        tally.add(marker.tally());
        self.without_arenas(cycle, &mut tally);
        let retained_everything = marker.is_broken() || self.grey.is_lossy();
        if self.central.switches().checkmark() && !retained_everything {
            self.verify(cycle);
        }
        let (marked, work) = (tally.marked(), tally.work);
        (CycleReport { marked, work, rounds, retained_everything }, tally.cpu, tally.idle)
    }

    /// Marks and scans, together with everybody who helps, until there is nothing left that can be seen. May be
    /// called as often as somebody has marked something new.
    pub(super) fn drain(&self, marker: &mut Marker<'_>) {
        loop {
            self.registry.steal_buffers(|target| marker.mark(target));
            self.grey.drain(|targets| marker.take_grey(targets));
            if self.grey.take_rescan() {
                marker.want_rescan();
            }
            if !marker.drain() {
                if self.control.wish() == Wish::Shutdown {
                    // No closure is open, so this lock's guard was forgotten and will never be dropped.
                    marker.abandon_aside();
                    return;
                }
                // Somebody holds the lock of a container. Look again when there was time to give it up.
                self.central.alarm().sleep(Some(RETRY));
                marker.retry_aside();
            } else if !self.grey.has_entries() {
                return;
            }
        }
    }

    /// A termination round; true if it was clean. Nothing is grey when it begins.
    fn round(&self, marker: &mut Marker<'_>) -> bool {
        marker.take_found();
        let mut dirty = false;
        self.grace_period(|| {
            // Whoever leaves hands his buffer over first, so there may be work before the period is over.
            dirty |= self.grey.drain(|targets| marker.take_grey(targets)) && marker.take_found();
            marker.drain();
        });
        self.grey.drain(|targets| marker.take_grey(targets));
        if self.grey.take_rescan() {
            marker.want_rescan();
            dirty = true;
        }
        dirty |= !marker.drain() || marker.take_found();
        self.settle(dirty, !marker.is_broken())
    }

    /// The end of a termination round, after which marking is complete if it was clean, and may be trusted or not.
    fn settle(&self, dirty: bool, trusted: bool) -> bool {
        let is_clean = !dirty && self.grey.settle(trusted);
        if !is_clean {
            // There is more to do than anybody should wait for.
            self.control.gap().close();
        }
        is_clean
    }

    /// Waits until everybody who is inside now has left once. `meanwhile` is called now and then.
    pub(super) fn grace_period(&self, mut meanwhile: impl FnMut()) {
        self.registry.begin_grace(&self.fence);
        let (mut watch, mut is_first) = (Watch::new(&self.central), true);
        while !self.registry.is_grace_over() {
            watch.look(&self.registry);
            let gap = self.control.gap().begin();
            if core::mem::take(&mut is_first) {
                self.registry.note_work(gap);
            }
            self.control.set_awaiting_leave(true);
            // A mutator that has not seen the flag had left before this point, or it will see it.
            self.fence.heavy();
            if !self.registry.is_grace_over() {
                self.central.alarm().sleep(Some(PATIENCE));
            }
            self.control.set_awaiting_leave(false);
            meanwhile();
        }
    }

    /// Retires what span records do not need, between two cycles, and begins a grace period. Nobody waits for it:
    /// [`Collector::return_records`] looks whether it is over, unless a cycle begins first.
    pub(super) fn retire_records(&self) {
        self.central.pages().retire_records();
        self.registry.begin_grace(&self.fence);
    }

    /// Returns what [`Collector::retire_records`] has retired, if the grace period is over; false if it is not.
    /// A cycle that has begun meanwhile has returned it.
    pub(super) fn return_records(&self) -> bool {
        let is_over = self.registry.is_grace_over();
        if is_over {
            // SAFETY: the latest grace period is over. This thread retires nothing without beginning one, so
            // that one or a later one is the latest.
            unsafe { self.central.pages().return_records(self.central.os()) };
        }
        is_over
    }

    /// Checkmark mode: see [`checkmark`]. Leaves the gate closed; the publication of the next phase word
    /// opens it.
    fn verify(&self, cycle: u32) {
        self.control.set_gate(true);
        self.publish(PhaseWord::new(Phase::Marking, cycle).gated());
        self.grace_period(|| {});
        match checkmark::check(&self.central, cycle, |report| {
            self.roots.scan(&mut *report);
            self.central.revivals().scan(report);
        }) {
            Ok(checked) => self.last.lock().checked += checked.objects,
            Err(error) => eprintln!("spanheap: checkmark skipped in cycle {cycle}: {error}"),
        }
    }
}

/// Bytes taken between two readings of the counter, which may step back when old runs are returned.
fn taken_between(before: usize, after: usize) -> Bytes {
    let difference = after.wrapping_sub(before) as isize;
    Bytes::new(difference.max(0).unsigned_abs())
}

#[cfg(test)]
mod tests;
