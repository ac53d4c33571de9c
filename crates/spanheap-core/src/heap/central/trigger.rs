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

/// Why a cycle begins. Where there are several reasons, the first one that was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The heap has grown by as much as it may without regard to a limit.
    Goal,
    /// Too many addresses of freed arenas wait for one, or too much of their memory.
    Quarantine,
    /// So many slots were taken that the heap is to be verified by a cycle.
    Every,
    /// The heap comes near a limit.
    Limit,
    /// An allocation was refused.
    Refusal,
    /// Somebody has asked for it: the program, or a thread that offers its time.
    Asked,
    /// There was none for long.
    Periodic,
    /// The heap is to collect all the time.
    Continuous,
}

impl Reason {
    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Goal => "goal",
            Reason::Quarantine => "quarantine",
            Reason::Every => "every",
            Reason::Limit => "limit",
            Reason::Refusal => "refusal",
            Reason::Asked => "asked",
            Reason::Periodic => "periodic",
            Reason::Continuous => "continuous",
        }
    }

    /// Whether nobody but a limit wants the cycle.
    pub const fn is_rationed(self) -> bool {
        matches!(self, Reason::Limit | Reason::Refusal)
    }
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

    /// The best reason for a cycle that nobody has asked for.
    pub fn reason(&self) -> Option<Reason> {
        if self.has_reached(&self.unlimited_trigger) {
            Some(Reason::Goal)
        } else if self.arenas.wants_cycle(&self.pages) {
            Some(Reason::Quarantine)
        } else if self.switches.asks() {
            Some(Reason::Every)
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
