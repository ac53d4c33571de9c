//! What can be changed while a heap is in use: the percent goal and the two limits; and the plan that follows
//! from them and from what the last cycle has measured.
//!
//! A change takes effect at once: the trigger is planned anew from the last cycle's figures, and if live bytes
//! have reached the new one, the collector is woken. The hard limit is compared in the page heap, which reads it
//! each time. A cycle that is running ends by the settings of that moment.
//!
//! # Locking
//! [`Rank::Settings`](crate::sync::Rank), held while the plan is made and its consequences are written, so that
//! the one that is made last holds, whether a cycle or a change was its cause.

use super::collector::Collector;
use super::pacer::{Measured, Plan, Policy};
use crate::addr::Bytes;
use crate::heap::counters::MemoryState;

/// What the plan of the next cycle follows from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    percent: Option<u32>,
    measured: Measured,
    /// Bytes of pages that spans had when the last cycle had marked, and the goal that was in force before it.
    last: Option<(Bytes, Bytes)>,
}

impl Settings {
    pub(super) fn new(percent: Option<u32>) -> Settings {
        Settings { percent, measured: Measured::default(), last: None }
    }
}

/// Whether a heap has come near a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    /// Ready bytes that the heap needs: objects that were retained, tables, records, ends of spans.
    pub needed: Bytes,
    /// The lower one of the limits, less what is kept for records below a hard one.
    pub target: Bytes,
}

/// A heap is near its limit when what it needs leaves less than this part of it free.
const NEAR: usize = 16;

impl Need {
    /// Whether hardly anything is left.
    pub fn is_pressing(self) -> bool {
        self.needed > self.target.saturating_sub(Bytes::new(self.target.get() / NEAR))
    }
}

impl Collector {
    /// Growth until a cycle is complete, in percent of what the last one retained.
    pub fn percent(&self) -> Option<u32> {
        self.settings.lock().percent
    }

    /// Changes it.
    pub fn set_percent(&self, percent: Option<u32>) {
        self.change(|settings| settings.percent = percent);
    }

    /// Changes the soft limit.
    pub fn set_soft_limit(&self, limit: Option<Bytes>) {
        self.change(|_| self.central.pages().limits().set_soft(limit));
    }

    /// Changes the hard limit.
    pub fn set_hard_limit(&self, limit: Option<Bytes>) {
        self.change(|_| self.central.pages().limits().set_hard(limit));
    }

    fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.settings.lock();
        change(&mut settings);
        let plan = self.plan(&settings);
        self.central.move_trigger(plan.trigger, plan.unlimited);
        self.last.lock().plan = plan;
        if let Some((in_use, last_goal)) = settings.last {
            self.set_scavenge_goals(in_use, last_goal, plan.goal);
        }
        let limits = self.central.pages().limits();
        limits.note_below(self.central.os().accounting().ready());
        drop(settings);
        // Besides cycles, what is free beyond the new limits is the collector's business.
        self.central.alarm().ring();
    }

    fn plan(&self, settings: &Settings) -> Plan {
        let limit = self.central.pages().limits().target();
        Policy { percent: settings.percent, limit }.plan(settings.measured)
    }

    /// Plans the next cycle, when `allocated` bytes were taken while this one ran. Objects, dead ones included,
    /// had `held` bytes when marking was over, and the pages of spans `in_use`.
    pub(super) fn plan_next(&self, allocated: Bytes, held: Bytes, in_use: Bytes) {
        let ready = self.central.os().accounting().ready();
        let counted = self.central.counters().snapshot();
        let free = counted.pages(MemoryState::Free) + counted.pages(MemoryState::Cached);
        let overhead = ready.saturating_sub(free + held);
        let retained = self.central.retained();
        self.central.pages().limits().note_below(ready);

        let mut settings = self.settings.lock();
        settings.measured = Measured { retained, allocated, ready, overhead };
        let plan = self.plan(&settings);
        self.central.set_trigger(plan.trigger);
        self.central.set_unlimited_trigger(plan.unlimited);
        let last_goal = core::mem::replace(&mut self.last.lock().plan, plan).goal;
        settings.last = Some((in_use, last_goal));
        self.set_scavenge_goals(in_use, last_goal, plan.goal);
    }

    /// What the last cycle has found the heap to need, compared with the limits of now; `None` without any.
    pub(super) fn need(&self) -> Option<Need> {
        let measured = self.settings.lock().measured;
        let target = self.central.pages().limits().target()?;
        Some(Need { needed: measured.retained + measured.overhead, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_sixteenth_presses() {
        let need = |needed| Need { needed: Bytes::new(needed), target: Bytes::new(1600) };
        assert!(!need(1500).is_pressing());
        assert!(need(1501).is_pressing());
        assert!(need(2000).is_pressing(), "beyond the limit as well");
    }
}
