//! What mutators take, and when that is enough for a cycle.
//!
//! **Counting.** Mutators report what they take by the run, not by the object: `taken` grows by a run
//! when it is taken and shrinks by what is left of it when it is given back. Between two cycles, live
//! bytes are thus what the last one retained plus what has been taken since: never too low, and too
//! high by the unfinished runs.
//!
//! **Two triggers.** A cycle begins when live bytes, with those outside, reach the trigger. Beside it is the one that there would be
//! without a limit, so that the collector can tell a cycle that the heap's growth wants from one that only a
//! limit wants: the second kind is rationed.

use super::Central;
use crate::addr::Bytes;
use crate::heap::sweep_pace::Line;
use crate::sync::atomic::Ordering;

/// Why a cycle is wanted that nobody has asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The heap has grown by as much as it may without regard to a limit; or it is to be verified by a cycle; or
    /// too many addresses of freed arenas wait for one.
    Goal,
    /// It comes near a limit.
    Limit,
    /// An allocation was refused.
    Refusal,
}

impl Central {
    /// Counts a run that a mutator takes, and rings the alarm when that is enough for a cycle. Yields where
    /// the heap has come to what a limit leaves.
    pub fn count_taken(&self, bytes: Bytes) {
        self.taken.fetch_add(bytes.get(), Ordering::Relaxed);
        self.total.fetch_add(bytes.get() as u64, Ordering::Relaxed);
        self.ring_if_triggered();
        if self.pages.limits().brakes(self.weight()) {
            std::thread::yield_now();
        }
    }

    /// Whether there is reason for a cycle: the trigger, or an allocation that was refused.
    pub fn wants_cycle(&self) -> bool {
        self.reason().is_some()
    }

    /// The best reason for a cycle.
    pub fn reason(&self) -> Option<Reason> {
        let is_full = self.arenas.wants_cycle(&self.pages);
        if is_full || self.switches.asks() || self.has_reached(&self.unlimited_trigger) {
            Some(Reason::Goal)
        } else if self.starved.load(Ordering::Relaxed) {
            Some(Reason::Refusal)
        } else {
            self.is_triggered().then_some(Reason::Limit)
        }
    }

    /// A cycle begins, and what is refused from here on asks for another one.
    pub fn cycle_begins(&self) {
        self.starved.store(false, Ordering::Relaxed);
        self.switches.cycle_begins();
    }

    /// Sets the weight at which the alarm rings. Until then, all that waits now is to be swept. Rings nothing: the
    /// collector sets it, and looks before it sleeps.
    pub fn set_trigger(&self, trigger: Bytes) {
        self.trigger.store(trigger.get(), Ordering::Relaxed);
        let (waiting, swept) = (self.backlog.waiting(), self.backlog.swept());
        self.pace.set(Line::new(waiting, swept, self.weight(), trigger));
    }

    /// Sets the weight at which a cycle would begin without a limit.
    pub fn set_unlimited_trigger(&self, trigger: Bytes) {
        self.unlimited_trigger.store(trigger.get(), Ordering::Relaxed);
    }

    /// Counts the rest of a run that a mutator gives back.
    pub fn count_returned(&self, bytes: Bytes) {
        self.taken.fetch_sub(bytes.get(), Ordering::Relaxed);
        self.total.fetch_sub(bytes.get() as u64, Ordering::Relaxed);
    }
}
