//! Part of the fifth model: what a closure does.
//!
//! # Locking
//! None: plain values, one thread.

use super::{Arenas, Chunk, Complete, LATE, Mutator, Stage, State, Variant};
use crate::vocabulary::{Operand, Set, Step};

impl Arenas {
    /// Leaving, forgetting, getting references.
    pub(super) fn moves(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        let mut next = *s;
        next.mutators[i as usize] = Mutator::default();
        next.waiting = s.waiting.without(i);
        if s.stage <= Stage::Snapshot {
            next.grey = s.grey.or(m.buffer);
        } else {
            self.shade(&mut next, m.buffer);
        }
        visit(Step::mutator(i, "leaves"), next);
        for x in m.held.iter() {
            let mut next = *s;
            let my = &mut next.mutators[i as usize];
            (my.held, my.refs) = (m.held.without(x), m.refs.without(x));
            visit(Step::mutator(i, "forgets").on(Operand::Object(x)), next);
            let gets = self.chunk_of(s, x).is_some_and(|chunk| chunk < Chunk::Flagged);
            if gets && !m.refs.contains(x) {
                let mut next = *s;
                next.mutators[i as usize].refs = m.refs.with(x);
                visit(Step::mutator(i, "gets").on(Operand::Object(x)), next);
            }
        }
    }

    /// Loads and stores, in what the closure may look into.
    pub(super) fn fields(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        let inside = m.held.and(self.all_objects()).or(m.refs);
        let barrier = (1..=3).contains(&m.epoch);
        for place in std::iter::once(None).chain(inside.iter().map(Some)) {
            let old = s.load(place);
            if let Some(more) = m.held.hold(old, self.held).filter(|more| *more != m.held) {
                let mut next = *s;
                next.mutators[i as usize].held = more;
                let step = Step::mutator(i, "loads from").on(Operand::place(place));
                visit(step.with(Operand::value(old)), next);
            }
            for new in std::iter::once(None).chain(m.held.iter().map(Some)) {
                if new == old {
                    continue;
                }
                let mut next = *s;
                if barrier {
                    next.mutators[i as usize].buffer = m.buffer.or(Set::of(old));
                }
                match place {
                    None => next.root = new,
                    Some(x) => next.fields[x as usize] = new,
                }
                let step = Step::mutator(i, "swaps").on(Operand::place(place));
                visit(step.with(Operand::value(new)), next);
            }
        }
    }

    /// Making objects and values.
    pub(super) fn allocates(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        let object = (0..self.objects).find(|&x| !s.allocated.contains(x));
        let value = |arena: u8| {
            let has_room = m.writes.contains(arena) && s.chunks[arena as usize] < Chunk::Freed;
            self.values_of(arena).minus(s.allocated).first().filter(|_| has_room)
        };
        for x in object.into_iter().chain((0..self.arenas).filter_map(value)) {
            let Some(more) = m.held.hold(Some(x), self.held) else { continue };
            let mut next = *s;
            let my = &mut next.mutators[i as usize];
            my.held = more;
            let is_value = x >= self.objects;
            if is_value {
                my.refs = m.refs.with(x);
            }
            match (m.epoch, self.variant) {
                (3 | LATE, Variant::White) if is_value => {}
                (2, Variant::BlackInArmingB) if is_value => next.marked = s.marked.with(x),
                (2, variant) if is_value && variant != Variant::GreyInArmingB => {
                    let asked = self.complete == Complete::ButPale;
                    next.pale = if asked { s.pale.with(x) } else { s.pale };
                }
                (2, _) => my.buffer = m.buffer.with(x),
                (3, _) => next.marked = s.marked.with(x),
                (LATE, _) if is_value => next.marked = s.marked.with(x),
                _ => {}
            }
            if let Some(arena) = self.arena_of(x).filter(|_| self.counts) {
                let is_first = self.values_of(arena).and(s.allocated).is_empty();
                next.clean = match (m.epoch, self.variant) {
                    (3 | LATE, Variant::CleanWhenBlack) => s.clean,
                    (3 | LATE, _) => s.clean.without(arena),
                    (2, Variant::CleanWhenPale) | (0 | 1, _) if is_first => s.clean.with(arena),
                    _ => s.clean,
                };
            }
            if self.progress && is_value && m.epoch == 3 {
                next.young = s.young.with(x);
            }
            next.allocated = s.allocated.with(x);
            visit(Step::mutator(i, "allocates").on(Operand::Object(x)), next);
        }
    }
}
