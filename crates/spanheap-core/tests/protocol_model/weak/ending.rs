//! Part of the fourth model: what the collector does after a round was final.
//!
//! # Locking
//! None: plain values, one thread.

use super::{Fault, Stage, State, Variant, Weak};
use crate::vocabulary::{Operand, Set, Step};

impl Weak {
    /// Clearing, reviving, publishing phase 0, and sweeping.
    pub(super) fn ends(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let clear = |next: &mut State| next.weak = s.weak.filter(|&x| s.marked.contains(x));
        let late = matches!(self.variant, Variant::ClearedAfterIdle | Variant::SweptBeforeClearing);
        let mut next = *s;
        let revived = s.finalizer.filter(|&x| !s.marked.contains(x));
        let revives = |next: &mut State| {
            (next.finalizer, next.queued) = (None, revived);
            if self.variant == Variant::RevivedNotTraced {
                next.marked = next.marked.or(Set::of(revived));
            } else {
                next.shade(Set::of(revived));
            }
        };
        match s.stage {
            Stage::Final if revived.is_some() && self.variant == Variant::RevivedBeforeClearing => {
                revives(&mut next);
                visit(Step::collector("revives").on(Operand::value(revived)), next);
            }
            Stage::Final => {
                next.stage = Stage::Reviving;
                if !late {
                    clear(&mut next);
                }
                visit(Step::collector("clears the handle"), next);
            }
            Stage::Reviving if revived.is_some() => {
                revives(&mut next);
                visit(Step::collector("revives").on(Operand::value(revived)), next);
            }
            Stage::Reviving if s.grey.is_empty() => {
                let both = s.queued.is_some() && s.weak == s.queued && !late;
                next.stage = if both { Stage::Faulty(Fault::RevivedByWeak) } else { Stage::After };
                visit(Step::collector("publishes 0"), next);
            }
            Stage::After => {
                let stale = late && s.weak.is_some_and(|x| !s.marked.contains(x));
                if stale {
                    clear(&mut next);
                    visit(Step::collector("clears the handle at last"), next);
                }
                if !stale || self.variant == Variant::SweptBeforeClearing {
                    self.sweeps(s, visit);
                }
            }
            _ => {}
        }
    }

    fn sweeps(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        for x in (0..self.objects).filter(|&x| !s.swept.contains(x)) {
            let mut next = *s;
            next.swept = s.swept.with(x);
            if !s.marked.contains(x) && s.allocated.contains(x) {
                next.allocated = s.allocated.without(x);
                if s.live().contains(x) {
                    next.stage = Stage::Faulty(Fault::Freed);
                }
                next.fields[x as usize] = None;
                for m in &mut next.mutators {
                    m.gone |= m.target == Some(x);
                }
            }
            visit(Step::collector("sweeps").on(Operand::Object(x)), next);
        }
    }
}
