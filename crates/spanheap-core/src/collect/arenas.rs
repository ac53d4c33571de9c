//! What becomes of freed user arenas in a cycle: the collector's part of [`crate::heap::user_arena`].
//!
//! ```text
//!   freed --(a grace period)--> quarantined: pages guarded --(a cycle that found no pointer)--> free pages
//! ```
//!
//! Some of the quarantined chunks keep their memory until the next cycle has looked at them, inaccessible: those need
//! no fault and no zeros when they are used again (`heap/user_arena/keep.rs`).
//!
//! The grace period is the first one of a cycle, or, as long as none begins, one that is made for what was freed
//! meanwhile ([`super::undertaker`]).
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
use super::undertaker::Undertaker;
use crate::addr::Bytes;
use crate::span::Generation;
use std::time::Duration;

impl Collector {
    /// A cycle begins: what was freed so far dies with it. Comes before arming A is published.
    pub(super) fn condemn_arenas(&self) {
        self.central.arenas().take_freed();
        self.central.arenas().note_abandoned();
    }

    /// The first grace period of a cycle is over: guards what has died, and forgets the last cycle's marks of the rest.
    ///
    /// # Safety
    /// As [`Collector::guard_arenas`], and no closure is open that has seen the last cycle mark.
    pub(super) unsafe fn bury_arenas(&self, undertaker: &mut Undertaker) {
        // SAFETY: the same contract.
        unsafe { self.guard_arenas(undertaker) };
        self.central.arenas().clear_bits();
    }

    /// Gives away what has been kept for too long, and what was left for arenas when none are freed any more: how
    /// long until the rest has been.
    ///
    /// # Safety
    /// No cycle marks.
    pub(super) unsafe fn look_after_kept(&self, _: &mut Undertaker) -> Option<Duration> {
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
    pub(super) unsafe fn guard_arenas(&self, _: &mut Undertaker) {
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
    pub(super) fn release_arenas(
        &self,
        _: &mut Undertaker,
        cycle: u32,
        is_broken: bool,
        work: u64,
    ) {
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
