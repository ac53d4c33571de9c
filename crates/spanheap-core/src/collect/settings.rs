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

use super::collector::{Collector, CycleReport};
use super::pacer::speed::Times;
use super::pacer::{Finished, MemoryUse, Pacer, Plan, Policy, Work};
use crate::addr::{Bytes, WORD_BYTES};
use crate::heap::counters::MemoryState;

/// What the plan of the next cycle follows from.
#[derive(Debug)]
pub(super) struct Settings {
    pacer: Pacer,
    /// Bytes of pages that spans had when the last cycle had marked, and the goal that was in force before it.
    last: Option<(Bytes, Bytes)>,
    /// Ready bytes that the last cycle has found the heap to need.
    needed: Bytes,
}

impl Settings {
    pub(super) fn new(pacer: Pacer) -> Settings {
        Settings { pacer, last: None, needed: Bytes::ZERO }
    }

    /// The pacer.
    pub(super) fn pacer(&self) -> &Pacer {
        &self.pacer
    }

    /// What is asked for now.
    pub(super) fn policy(&self) -> Policy {
        self.pacer.policy()
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
        self.central.assert_here();
        self.settings.lock().policy().percent
    }

    /// Changes it.
    pub fn set_percent(&self, percent: Option<u32>) {
        self.change(|policy| policy.percent = percent);
    }

    /// Changes the soft limit.
    pub fn set_soft_limit(&self, limit: Option<Bytes>) {
        self.change(|_| self.central.pages().limits().set_soft(limit));
    }

    /// Changes the hard limit.
    pub fn set_hard_limit(&self, limit: Option<Bytes>) {
        self.change(|_| self.central.pages().limits().set_hard(limit));
    }

    fn change(&self, change: impl FnOnce(&mut Policy)) {
        self.central.assert_here();
        let mut settings = self.settings.lock();
        let mut policy = settings.policy();
        change(&mut policy);
        policy.limit = self.central.pages().limits().target();
        let memory = self.memory_use();
        settings.pacer.set_memory(memory);
        settings.pacer.set_policy(policy, None);
        let plan = settings.pacer.plan();
        self.follow(&settings, plan);
        let limits = self.central.pages().limits();
        limits.note_below(self.central.os().accounting().ready());
        // Rings: besides cycles, what is free beyond the new limits is the collector's business.
        self.central.move_trigger(plan.trigger, plan.unlimited);
    }

    /// Work that there would be if everything in the heap were alive: its objects, and the root table.
    pub(super) fn worst_work(&self, live: Bytes) -> Work {
        let roots = Bytes::new(self.roots.len() * WORD_BYTES);
        Work { heap: live, globals: roots, ..Work::default() }
    }

    /// Tells the pacer that a cycle begins.
    pub(super) fn pace_start(&self) {
        let worst = self.worst_work(self.central.live());
        self.settings.lock().pacer.start(self.central.weight(), worst);
    }

    /// Tells the pacer what marking has found, when `allocated` bytes were taken since the cycle began, and who
    /// has worked how long.
    pub(super) fn pace_finish(
        &self,
        report: &CycleReport,
        retained: Bytes,
        allocated: Bytes,
        times: Times,
    ) {
        let roots = self.worst_work(Bytes::ZERO);
        let work = usize::try_from(report.work).unwrap_or(usize::MAX);
        // What is outside is accounted for as if it were retained; see `heap::outside` for what is not.
        let expected = self.central.expected();
        let marked = retained + self.central.outside().begin_plan(retained, expected);
        let mut settings = self.settings.lock();
        let pacer = &mut settings.pacer;
        if report.retained_everything {
            return pacer.give_up(marked);
        }
        let live = pacer.triggered().unwrap_or(Bytes::ZERO).saturating_add(allocated);
        pacer.finish(Finished {
            live,
            marked,
            done: Work { heap: Bytes::new(work), ..roots },
            times,
        });
        let tuning = self.tuning(pacer);
        pacer.set_tuning(tuning);
    }

    /// What memory is used for, if that matters to the pacer.
    fn memory_use(&self) -> MemoryUse {
        if self.central.pages().limits().target().is_none() {
            return MemoryUse::default();
        }
        let counted = self.central.counters().snapshot();
        MemoryUse {
            ready: self.central.os().accounting().ready(),
            free: counted.pages(MemoryState::Free) + counted.pages(MemoryState::Cached),
            // With the free slots of their spans: the plan is for the time when these are used again.
            objects: counted.pages(MemoryState::InUse),
        }
    }

    /// Plans the next cycle, after a finished one, when spans had `in_use` bytes of pages at the end of marking.
    /// `is_swept`: nothing waits to be swept.
    pub(super) fn plan_next(&self, in_use: Bytes, is_swept: bool) {
        let memory = self.memory_use();
        let live = self.central.live();
        self.central.pages().limits().note_below(self.central.os().accounting().ready());

        let mut settings = self.settings.lock();
        if is_swept {
            // Objects, dead ones excluded; and beside them tables, records, free slots, the ends of spans.
            let beside = memory.ready.saturating_sub(memory.free).saturating_sub(live);
            settings.needed = self.central.retained() + beside;
        }
        settings.pacer.set_memory(memory);
        settings.pacer.commit((!is_swept).then(|| self.central.weight()));
        let plan = settings.pacer.plan();
        self.central.set_trigger(plan.trigger);
        self.central.set_unlimited_trigger(plan.unlimited);
        if !is_swept {
            settings.last = Some((in_use, self.last.lock().plan.goal));
        }
        self.follow(&settings, plan);
    }

    /// What follows from a plan besides its triggers.
    fn follow(&self, settings: &Settings, plan: Plan) {
        let brake = settings.pacer.is_limited().then_some(plan.goal);
        self.central.pages().limits().set_brake(brake);
        self.last.lock().plan = plan;
        if let Some((in_use, last_goal)) = settings.last {
            self.set_scavenge_goals(in_use, last_goal, plan.goal);
        }
    }

    /// What the last cycle has found the heap to need, compared with the limits of now; `None` without any.
    pub(super) fn need(&self) -> Option<Need> {
        let needed = self.settings.lock().needed;
        let target = self.central.pages().limits().target()?;
        Some(Need { needed, target })
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
