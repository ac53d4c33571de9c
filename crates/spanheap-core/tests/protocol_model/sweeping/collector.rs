//! Part of the third model: the collector's steps.
//!
//! # Locking
//! None: plain values, one thread.

use super::{Fault, Place, Stage, State, Sweeping, Variant, Word};
use crate::vocabulary::{Operand, Set, Step};

impl Sweeping {
    /// The collector takes caches: K2a in two steps, K2b in one.
    pub(super) fn takes_caches(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let early = self.variant == Variant::TakesBeforePublication && s.stage == Stage::Begun;
        let outside_only = s.stage == Stage::Idle || early;
        let all = s.stage == Stage::Leftovers
            || self.variant == Variant::TakesWithoutGrace && s.stage == Stage::ArmingA;
        let nobody_locked = s.mutators.iter().all(|m| !m.locked);
        for i in 0..self.mutators {
            let m = s.mutators[i as usize];
            let mut next = *s;
            let my = &mut next.mutators[i as usize];
            if m.locked {
                (my.locked, my.filled) = (false, None);
                self.give_back(&mut next, i);
                visit(Step::collector("takes the caches of mutator").on(Operand::Object(i)), next);
            } else if m.filled.is_some_and(|word| word.old) && nobody_locked {
                if all {
                    my.filled = None;
                    self.give_back(&mut next, i);
                    visit(Step::collector("takes the caches of").on(Operand::Object(i)), next);
                } else if outside_only && m.place == Place::Outside {
                    my.locked = true;
                    visit(Step::collector("sees outside").on(Operand::Object(i)), next);
                }
            }
        }
    }

    pub(super) fn sweeps(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        if let Some(span) = s.sweeping {
            let mut next = State { sweeping: None, ..*s };
            self.sweep(&mut next, span);
            visit(Step::collector("sweeps").on(Operand::Object(span)), next);
        } else if matches!(s.stage, Stage::Idle | Stage::Leftovers) {
            let cached = self.variant == Variant::SweepsCachedSpans;
            for span in s.stale.iter().filter(|&span| cached || !s.is_owned(span)) {
                let next = State { sweeping: Some(span), ..*s };
                visit(Step::collector("takes, to sweep it,").on(Operand::Object(span)), next);
            }
        }
    }

    /// The phases.
    pub(super) fn collects(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let at_rest = s.sweeping.is_none() && s.mutators.iter().all(|m| !m.locked);
        let mut next = *s;
        match s.stage {
            Stage::Idle if at_rest => {
                (next.stage, next.waiting) = (Stage::ArmingA, self.active(s));
                visit(Step::collector("publishes 1"), next);
            }
            Stage::ArmingA if s.waiting.is_empty() && at_rest => {
                next.stage = Stage::Leftovers;
                if self.variant == Variant::NotesBeforeSweeping {
                    next.waiting = self.active(s);
                }
                visit(Step::collector("publishes 2"), next);
            }
            Stage::Leftovers if at_rest => {
                let no_caches = s.mutators.iter().all(|m| m.filled.is_none_or(|word| !word.old));
                if no_caches && s.stale.iter().all(|span| s.is_owned(span)) {
                    next.stage = Stage::ArmingB;
                    if self.variant != Variant::NotesBeforeSweeping {
                        next.waiting = self.active(s);
                    }
                    visit(Step::collector("begins the second grace period"), next);
                }
            }
            Stage::ArmingB if s.waiting.is_empty() => {
                let marks = usize::from(!s.current);
                next.stage = match (s.stale.is_empty(), s.bits[marks].is_empty()) {
                    (true, true) => Stage::Marking,
                    (true, false) => Stage::Faulty(Fault::DirtyMarks),
                    (false, _) => Stage::Faulty(Fault::Unswept),
                };
                next.bits[marks] = s.bits[marks].or(s.live());
                visit(Step::collector("publishes 3 and marks"), next);
            }
            Stage::Marking => {
                (next.stage, next.waiting) = (Stage::Round, self.active(s));
                visit(Step::collector("begins a round"), next);
            }
            Stage::Round if s.waiting.is_empty() => {
                next.bits[usize::from(!s.current)] = s.bits[usize::from(!s.current)].or(s.grey);
                (next.stage, next.current, next.grey) = (Stage::Begun, !s.current, Set::EMPTY);
                next.stale = (0..self.spans).fold(Set::EMPTY, Set::with);
                for m in &mut next.mutators[..self.mutators as usize] {
                    m.word.old = m.place == Place::Changing || m.place == Place::Inside;
                    m.filled = m.filled.map(|word| Word { old: true, ..word });
                }
                visit(Step::collector("begins the generation"), next);
            }
            Stage::Begun if at_rest => {
                next.stage = Stage::Idle;
                visit(Step::collector("publishes 0"), next);
            }
            _ => {}
        }
    }
}
