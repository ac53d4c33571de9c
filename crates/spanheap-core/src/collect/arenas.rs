//! What becomes of freed user arenas: the collector's part of [`crate::heap::user_arena`].
//!
//! ```text
//!   freed --(a grace period)--> quarantined: pages guarded --(a cycle that found no pointer)--> free pages
//! ```
//!
//! Some of the quarantined chunks keep their memory until the next cycle has looked at them, inaccessible: those need
//! no fault and no zeros when they are used again (`heap/user_arena/keep.rs`).
//!
//! The grace period is the first one of a cycle, or, as long as none begins, one that the collector's thread makes for
//! what was freed meanwhile. It begins when a mebibyte waits, or the first chunk has waited for [`GATHER`], so many
//! arenas that are freed one after the other share one; and nobody sleeps for its end: a cycle that becomes due in
//! between begins at once, and its own first grace period serves for both.
//!
//! # Why arenas die between cycles only
//! A closure may read pointers out of a value as long as it is open, and store them elsewhere. If it was open when the
//! arena was freed, this has happened before the first grace period of the next cycle is over: so before its
//! snapshot, and what it has stored is found by marking as anything else is. A closure of the running cycle may
//! do so at any time, and what it has read is retained because the value is scanned. So an arena that is freed
//! while a cycle runs is scanned by it, and one that was freed before is not: the condition is that it was freed
//! before arming A was published.
//!
//! # Safety
//! What is guarded was freed before a grace period that is over.
#![allow(unsafe_code)]

use super::collector::Collector;
use super::crew::Tally;
use crate::addr::Bytes;
use crate::span::Generation;
use std::time::{Duration, Instant};

/// How long freed chunks are gathered before a grace period begins for them.
const GATHER: Duration = Duration::from_millis(1);

/// So many freed bytes are not gathered any longer.
const PLENTY: Bytes = Bytes::new(1 << 20);

/// How long the thread sleeps at most before it looks again whether a grace period is over; whoever leaves a
/// closure wakes it.
const PATIENCE: Duration = Duration::from_millis(5);

/// What the collector's thread remembers of freed arenas between two cycles.
#[derive(Default)]
pub(super) struct Undertaker {
    /// Since when something has been freed that no grace period has begun for.
    since: Option<Instant>,
}

impl Undertaker {
    /// Begins a grace period for what was freed, or guards it when that is over. The result is how long
    /// the thread may sleep before it has to look again; `None`: there is nothing to look for.
    pub(super) fn work(&mut self, collector: &Collector) -> Option<Duration> {
        let arenas = collector.central().arenas();
        if arenas.has_pending() && collector.registry.is_grace_over() {
            // SAFETY: the latest grace period is over, and it began after what is pending was taken. No cycle
            // marks, because this is the thread that would run it.
            unsafe { collector.guard_arenas() };
        }
        if arenas.has_pending() {
            return Some(PATIENCE);
        }
        // SAFETY: as above: no cycle marks.
        let keeps = unsafe { collector.look_after_kept() };
        let waiting = arenas.waiting_bytes();
        if waiting == Bytes::ZERO {
            self.since = None;
            return keeps;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let waited = since.elapsed();
        if waiting < PLENTY && waited < GATHER {
            return Some(GATHER - waited);
        }
        self.since = None;
        arenas.take_freed();
        collector.registry.begin_grace(&collector.fence);
        // It may be over already: usually nobody is inside.
        Some(Duration::ZERO)
    }
}

impl Collector {
    /// Sleeps between two cycles, until somebody rings or the time is over; or, if a grace period is waited for,
    /// until somebody leaves.
    pub(super) fn rest(&self, pause: Option<Duration>) {
        if pause == Some(Duration::ZERO) {
            return;
        }
        if !self.central.arenas().has_pending() {
            self.central.alarm().sleep(pause);
            return;
        }
        self.control.set_awaiting_leave(true);
        // As in `grace_period`: who has not seen the flag has left before this point.
        self.fence.heavy();
        if !self.registry.is_grace_over() {
            self.central.alarm().sleep(pause);
        }
        self.control.set_awaiting_leave(false);
    }

    /// A cycle begins: what was freed so far dies with it. Comes before arming A is published.
    pub(super) fn condemn_arenas(&self) {
        self.central.arenas().take_freed();
        self.central.arenas().note_abandoned();
    }

    /// The first grace period of a cycle is over: guards what has died, and forgets the last cycle's marks of the rest.
    ///
    /// # Safety
    /// As [`Collector::guard_arenas`], and no closure is open that has seen the last cycle mark.
    pub(super) unsafe fn bury_arenas(&self) {
        // SAFETY: the same contract.
        unsafe { self.guard_arenas() };
        self.central.arenas().clear_bits();
    }

    /// Gives away what has been kept for too long, and what was left for arenas when none are freed any more: how
    /// long until the rest has been.
    ///
    /// # Safety
    /// No cycle marks.
    unsafe fn look_after_kept(&self) -> Option<Duration> {
        let (arenas, central) = (self.central.arenas(), &self.central);
        if arenas.usual_for() == Some(Duration::ZERO) {
            arenas.forget_usual();
            central.pages().set_arena_goal(Bytes::ZERO);
            // The scavenger looks at it before anybody sleeps.
            return Some(Duration::ZERO);
        }
        if arenas.kept_for() == Some(Duration::ZERO) {
            // SAFETY: the caller's promise.
            unsafe { arenas.give_kept_away(central.os(), central.pages()) };
        }
        arenas.usual_for().into_iter().chain(arenas.kept_for()).min()
    }

    /// Guards the pages of what has died.
    ///
    /// # Safety
    /// The latest grace period is over, and it began after the last call of `Arenas::take_freed`. No cycle marks.
    pub(super) unsafe fn guard_arenas(&self) {
        let central = &self.central;
        // SAFETY: the caller's promise.
        unsafe {
            central.arenas().quarantine_pending(central.os(), central.memory(), central.pages())
        };
        if central.arenas().wants_cycle(central.pages()) {
            // It is read again before the thread sleeps.
            central.alarm().ring();
        }
    }

    /// A cycle has marked: chunks that nobody points to any more are given back, unless its marks are not complete.
    /// It has looked at so many bytes.
    pub(super) fn release_arenas(&self, cycle: u32, is_broken: bool, work: u64) {
        if is_broken {
            // Nobody knows when the next one is complete.
            // SAFETY: the cycle does not mark any more.
            unsafe {
                self.central.arenas().give_kept_away(self.central.os(), self.central.pages());
            }
            return;
        }
        let (central, table) = (&self.central, Generation::new(cycle).table());
        // SAFETY: this is the collector's thread, and the cycle's marks are complete.
        let freed =
            unsafe { central.arenas().end_quarantines(central.os(), central.pages(), table, work) };
        central.outside().shrink(freed);
        central.arenas().revise_patience(central.pages());
        central.pages().set_arena_goal(central.arenas().needed(central.pages()));
    }

    /// Takes values in chunks beside, which are scanned like objects, out of what was marked: they are accounted for
    /// with their arenas.
    pub(super) fn without_arenas(&self, cycle: u32, tally: &mut Tally) {
        let table = Generation::new(cycle).table();
        let (values, bytes) = self.central.arenas().marked_beside(table, cycle);
        tally.objects = tally.objects.wrapping_sub(values);
        tally.bytes = tally.bytes.wrapping_sub(bytes.get());
    }
}

#[cfg(test)]
mod tests;
