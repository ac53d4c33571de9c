//! Part of the first model: a mutator whose buffer gets no memory, and the collector's walk.
//!
//! When a mutator of phase 3 gets no memory for its buffer, it marks the
//! object *directly*, without queueing it, and raises a flag. The collector answers a raised flag
//! with a *walk* over all objects, in as many steps, that greys each one that is marked but neither
//! scanned nor queued; it declares no round clean while the flag is up or a walk is under way.
//! `unqueued` is the set of those objects.
//!
//! How the mutator does it matters, and [`Direct`] lists the ways. Safe are: marking and raising in
//! one step that excludes the end of a round, and raising both before and after the mark. Raising
//! only *after* it is not enough. A closure that enters during a round is not waited for; if it
//! stops between its mark and its flag, another closure that the round does wait for can flush the
//! same object, find it marked, and let the round end clean while nobody has scanned it. That is
//! the third load-bearing detail of the design again: a mark must not be visible before the work
//! that it stands for. Raising only *before* is not enough either: a walk may come and go in
//! between. With both, a flag that was lowered in between makes the next round wait for this
//! closure, and thus for its second flag. On the other side, the collector lowers the flag before
//! its walk, not after it.
//!
//! Direct marking is for closures of phase 3 only. In phases 1 and 2 mark bits may still belong to
//! the sweep of the last cycle, so there the entry must go to some buffer.
//!
//! # Locking
//! None: plain values, one thread.

use super::{Marking, State};
use crate::vocabulary::{Operand, Phase, Set, Step};

/// How a mutator whose buffer ran out of memory marks directly, and how the collector finds out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direct {
    /// Marking and raising the flag are one step, for example under the lock that the collector
    /// takes to declare a round clean.
    InOneStep,
    /// Without a lock: raise the flag, mark, raise it again.
    RaiseMarkRaise,
    /// Mark, then raise the flag.
    MarkThenRaise,
    /// Raise the flag, then mark.
    RaiseThenMark,
    /// As [`Direct::InOneStep`], but the collector lowers the flag only after its walk.
    LowerAfterWalk,
    /// There is no flag.
    NoFlag,
}

impl Marking {
    /// The steps of a mutator of phase 3 that got no memory for its buffer.
    pub(super) fn marks_directly(
        &self,
        s: &State,
        i: u8,
        how: Direct,
        visit: &mut impl FnMut(Step, State),
    ) {
        let m = s.mutators[i as usize];
        let entries = m.buffer.or(Set::of(m.pending));
        let raises_before = matches!(how, Direct::RaiseMarkRaise | Direct::RaiseThenMark);
        let raises_after = matches!(how, Direct::RaiseMarkRaise | Direct::MarkThenRaise);
        if m.direct && raises_after || !m.direct && raises_before && !entries.is_empty() {
            let mut next = *s;
            next.rescan = true;
            next.mutators[i as usize].direct = !m.direct;
            visit(Step::mutator(i, "raises the flag"), next);
        }
        if raises_before && !m.direct {
            return;
        }
        for x in entries.iter() {
            let mut next = *s;
            let my = &mut next.mutators[i as usize];
            my.buffer = my.buffer.without(x);
            my.pending = m.pending.filter(|&y| y != x);
            if s.marked.contains(x) {
                // Somebody else won the mark. Only a mutator that raised in advance has to go on.
                my.direct = m.direct && how != Direct::RaiseThenMark;
            } else {
                my.direct = raises_after;
                next.marked = next.marked.with(x);
                next.unqueued = next.unqueued.with(x);
                next.rescan |= matches!(how, Direct::InOneStep | Direct::LowerAfterWalk);
            }
            visit(Step::mutator(i, "marks directly").on(Operand::Object(x)), next);
        }
    }

    /// The collector's walk over all objects, which begins when there is no other work.
    pub(super) fn walks(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let late = self.exhausted == Some(Direct::LowerAfterWalk);
        if let Some(x) = s.walk {
            let mut next = *s;
            if s.unqueued.contains(x) {
                next.unqueued = s.unqueued.without(x);
                next.grey = s.grey.with(x);
            }
            next.walk = Some(x + 1).filter(|&y| y < self.objects);
            next.rescan = s.rescan && !(late && next.walk.is_none());
            visit(Step::collector("walks over").on(Operand::Object(x)), next);
        } else if s.rescan && s.grey.is_empty() && matches!(s.phase, Phase::Marking | Phase::Round)
        {
            let mut next = *s;
            next.back_to_marking();
            next.walk = Some(0);
            next.rescan = late;
            visit(Step::collector("begins a walk"), next);
        }
    }
}
