//! Part of the first model: how a buffer is handed over in phase 3, by steps.
//!
//! The design has a flush mark in one step whatever is in the buffer. The library does it in several, for each
//! entry:
//!
//! 1. *look*, without a lock: is the object marked? Then the entry is dropped;
//! 2. take the queue's lock, and *mark* the object, which everybody can see at once; if it was marked by now, the
//!    entry is dropped;
//! 3. *append* it to the queue, and give the lock back.
//!
//! Between the second and the third step the object is marked, and in no queue. Another closure may look at it
//! then, drop its own entry, and leave, so that a round that waits for it may end. But it takes the lock to end, so
//! it ends after the third step, and finds what that has appended. (Several entries are handed over under one
//! lock; here it is given back between them, which allows for more.)
//!
//! A closure flushes when it leaves, and before, when its buffer is full: here, whenever it likes. Before phase 3 a
//! flush is one step, because nobody looks at marks then.
//!
//! # Locking
//! None: plain values, one thread.

use super::{Marking, Mutator, State};
use crate::vocabulary::{Operand, Phase, Step};

/// How a buffer is handed over in phase 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handover {
    /// All of it in one step, as in the design.
    Whole,
    /// By steps, and the last look of a round waits for the lock.
    Locked,
    /// By steps, and nothing holds a round up that finds the queue empty.
    Unlocked,
}

impl Marking {
    /// Whether buffers are handed over by steps now.
    pub(super) fn by_steps(&self, s: &State) -> bool {
        self.handover != Handover::Whole && s.phase >= Phase::Snapshot
    }

    /// Whether the queue's lock is taken.
    pub(super) fn is_locked(&self, s: &State) -> bool {
        let has_marked = |m: &Mutator| m.marking.is_some();
        self.handover == Handover::Locked && s.mutators.iter().any(has_marked)
    }

    /// The steps of handing over what mutator `i` has buffered.
    pub(super) fn hands_over(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        if let Some(x) = m.marking {
            let mut next = *s;
            next.mutators[i as usize].marking = None;
            next.grey = s.grey.with(x);
            next.dirty = s.phase == Phase::Round;
            visit(Step::mutator(i, "appends").on(Operand::Object(x)), next);
            return;
        }
        for x in m.buffer.iter().filter(|_| self.by_steps(s)) {
            let mut next = *s;
            let my = &mut next.mutators[i as usize];
            my.buffer = m.buffer.without(x);
            if s.marked.contains(x) {
                visit(Step::mutator(i, "sees marked, and drops").on(Operand::Object(x)), next);
            } else if !self.is_locked(s) {
                my.marking = Some(x);
                next.marked = s.marked.with(x);
                visit(Step::mutator(i, "marks, to append,").on(Operand::Object(x)), next);
            }
        }
    }
}
