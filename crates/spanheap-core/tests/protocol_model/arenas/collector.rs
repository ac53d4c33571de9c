//! Part of the fifth model: the collector's steps.
//!
//! # Locking
//! None: plain values, one thread.

use super::{Arenas, Chunk, Complete, Fault, LATE, Stage, State, Variant};
use crate::vocabulary::{Operand, Set, Step};

impl Arenas {
    /// Phases, grace periods, scanning, rounds, and what comes of them.
    pub(super) fn collects(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        match s.stage {
            Stage::Idle | Stage::Reaping => self.idles(s, visit),
            Stage::ArmingA if s.waiting.is_empty() => {
                let mut next = State { stage: Stage::ArmingB, waiting: self.active(s), ..*s };
                self.take_memory(&mut next);
                match self.counts {
                    _ if self.variant == Variant::ClearedEarly => {}
                    false => next.marked = Set::EMPTY,
                    true => (0..self.arenas).for_each(|arena| self.clear(&mut next, arena)),
                }
                visit(Step::collector("takes memory, publishes 2"), next);
            }
            Stage::ArmingB if s.waiting.is_empty() => {
                let stays = self.variant == Variant::CleanWhileMarking;
                let clean = if stays { s.clean } else { Set::EMPTY };
                let next = State { stage: Stage::Snapshot, clean, ..*s };
                visit(Step::collector("publishes 3"), next);
            }
            Stage::Snapshot => {
                let mut next = State { stage: Stage::Marking, grey: Set::EMPTY, ..*s };
                self.shade(&mut next, s.grey.or(Set::of(s.root)));
                visit(Step::collector("scans the root"), next);
            }
            Stage::Marking | Stage::Round => self.marks(s, visit),
            _ => {}
        }
    }

    /// Between two cycles.
    fn idles(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let mut next = *s;
        for chunk in &mut next.chunks {
            *chunk = match *chunk {
                Chunk::Flagged => Chunk::Doomed,
                Chunk::Abandoned => Chunk::Orphan,
                other => other,
            };
        }
        if self.variant == Variant::ClearedEarly {
            next.marked = Set::EMPTY;
        }
        (next.stage, next.waiting) = (Stage::ArmingA, self.active(s));
        visit(Step::collector("publishes 1"), next);

        let is_flagged = s.chunks.contains(&Chunk::Flagged);
        if s.stage == Stage::Reaping && s.waiting.is_empty() {
            let mut next = State { stage: Stage::Idle, ..*s };
            self.take_memory(&mut next);
            visit(Step::collector("takes memory"), next);
        } else if s.stage == Stage::Idle && is_flagged {
            let mut next = *s;
            for chunk in next.chunks.iter_mut().filter(|chunk| **chunk == Chunk::Flagged) {
                *chunk = Chunk::Doomed;
            }
            if self.variant == Variant::FreedAtOnce {
                self.take_memory(&mut next);
            } else {
                (next.stage, next.waiting) = (Stage::Reaping, self.active(s));
            }
            visit(Step::collector("begins a grace period for arenas"), next);
        }
        if self.variant == Variant::OldVerdict && s.judged && s.chunks.contains(&Chunk::Freed) {
            let mut next = *s;
            self.judge(&mut next, |chunk| chunk == Chunk::Freed);
            visit(Step::collector("gives a verdict"), next);
        }
    }

    /// The memory of doomed chunks goes, and with it what their values hold.
    fn take_memory(&self, s: &mut State) {
        for arena in 0..self.arenas {
            let chunk = s.chunks[arena as usize];
            let too_young = self.variant == Variant::GraceTooOld && chunk == Chunk::Flagged;
            if chunk != Chunk::Doomed && !too_young {
                continue;
            }
            let values = self.values_of(arena);
            if s.mutators.iter().any(|m| !m.refs.and(values).is_empty()) {
                s.wrong(Fault::TornAway);
            }
            for x in values.iter() {
                s.fields[x as usize] = None;
            }
            s.stale = s.stale.minus(values);
            s.chunks[arena as usize] = Chunk::Freed;
            if self.counts {
                self.clear(s, arena);
            }
        }
    }

    /// Clears the bits of a chunk, unless it is clean.
    fn clear(&self, s: &mut State, arena: u8) {
        let values = self.values_of(arena);
        if s.clean.contains(arena) && !s.marked.and(values).is_empty() {
            s.wrong(Fault::Unclean);
        }
        s.marked = s.marked.minus(values);
        s.clean = s.clean.with(arena);
    }

    fn marks(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let chunks = self.values_in(s, |chunk| chunk < Chunk::Doomed).and(s.allocated);
        let all = if self.variant == Variant::ScansUnmarked { chunks } else { Set::EMPTY };
        for x in s.grey.or(all).iter() {
            // Work turned up: whatever round was under way is void.
            let stage = Stage::Marking;
            let mut next =
                State { stage, waiting: Set::EMPTY, dirty: false, grey: s.grey.without(x), ..*s };
            self.shade(&mut next, Set::of(s.fields[x as usize]));
            if self.chunk_of(s, x).is_some_and(|chunk| chunk >= Chunk::Freed) {
                next.wrong(Fault::ScannedFreed);
            } else if s.stale.contains(x) {
                next.wrong(Fault::ScannedStale);
            }
            visit(Step::collector("scans").on(Operand::Object(x)), next);
        }
        if s.grey.is_empty() && s.stage == Stage::Marking {
            let mut next = State { stage: Stage::Round, waiting: self.active(s), ..*s };
            if self.variant == Variant::VerdictBeforeRound {
                self.judge(&mut next, |chunk| chunk == Chunk::Freed);
            }
            visit(Step::collector("begins a round"), next);
        } else if s.grey.is_empty() && s.waiting.is_empty() && s.dirty {
            let next = State { stage: Stage::Marking, dirty: false, ..*s };
            visit(Step::collector("ends the round, which was dirty"), next);
        } else if s.grey.is_empty() && s.waiting.is_empty() {
            visit(Step::collector("ends the cycle"), self.ended(s, true));
        }
        if self.breaks {
            visit(Step::collector("breaks the cycle off"), self.ended(s, false));
        }
        if self.variant == Variant::FreedWhileMarking && s.chunks.contains(&Chunk::Flagged) {
            self.takes_memory_early(s, visit);
        }
    }

    /// [`Variant::FreedWhileMarking`]: with a perfect grace period of its own.
    fn takes_memory_early(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let values = self.values_in(s, |chunk| chunk == Chunk::Flagged);
        if s.mutators.iter().all(|m| m.refs.and(values).is_empty()) {
            let mut next = *s;
            for chunk in next.chunks.iter_mut().filter(|chunk| **chunk == Chunk::Flagged) {
                *chunk = Chunk::Doomed;
            }
            self.take_memory(&mut next);
            visit(Step::collector("takes memory"), next);
        }
    }

    /// The state after the end of a cycle whose marking is complete, or is not.
    fn ended(&self, s: &State, complete: bool) -> State {
        let mut next = State { stage: Stage::Idle, waiting: Set::EMPTY, dirty: false, ..*s };
        if complete {
            self.sweep(&mut next);
            let late = self.variant == Variant::AbandonedLate;
            let orphan = |chunk| chunk == Chunk::Orphan || late && chunk == Chunk::Abandoned;
            self.judge(&mut next, orphan);
        }
        if complete || self.variant == Variant::BrokenVerdict {
            self.judge(&mut next, |chunk| chunk == Chunk::Freed);
        }
        if complete && self.complete != Complete::Unasked {
            let known = s.mutators.iter().fold(self.reachable(s), |all, m| all.or(m.buffer));
            if !known.minus(s.marked).minus(s.pale).is_empty() {
                next.wrong(Fault::Unmarked);
            }
        }
        next.judged = complete && self.variant == Variant::OldVerdict;
        for chunk in &mut next.chunks {
            *chunk = match *chunk {
                Chunk::Orphan => Chunk::Abandoned,
                other => other,
            };
        }
        // Marks of objects become allocation bits. Those of values stay, but for the quarantine.
        let freed = self.values_in(&next, |chunk| chunk >= Chunk::Freed);
        let keeps = self.variant == Variant::OldVerdict;
        next.marked = next.marked.minus(self.all_objects());
        next.marked = if keeps { next.marked } else { next.marked.minus(freed) };
        (next.grey, next.young, next.pale) = (Set::EMPTY, Set::EMPTY, Set::EMPTY);
        for m in next.mutators.iter_mut().filter(|m| m.inside) {
            // What closures of this cycle hand over from now on is dropped.
            m.epoch = if m.epoch == 3 { LATE } else { 0 };
            m.buffer = Set::EMPTY;
        }
        next
    }

    fn sweep(&self, s: &mut State) {
        let dead = self.all_objects().and(s.allocated).minus(s.marked);
        if !dead.and(self.reachable(s)).is_empty() {
            s.wrong(Fault::Lost);
        }
        s.allocated = s.allocated.minus(dead);
        for x in dead.iter() {
            s.fields[x as usize] = None;
        }
    }

    /// Chunks that are as asked for, and that have no mark, are something new from now on.
    fn judge(&self, s: &mut State, candidate: impl Fn(Chunk) -> bool) {
        for arena in 0..self.arenas {
            let values = self.values_of(arena);
            if !candidate(s.chunks[arena as usize]) || !s.marked.and(values).is_empty() {
                continue;
            }
            if s.mutators.iter().any(|m| m.writes.contains(arena)) {
                s.wrong(Fault::InUse);
            }
            let leads = |x: u8| !Set::of(s.fields[x as usize]).and(values).is_empty();
            let holders = (0..self.nodes()).filter(|&x| leads(x)).fold(Set::EMPTY, Set::with);
            let held = s.mutators.iter().fold(Set::of(s.root), |all, m| all.or(m.held));
            let visible = self.reachable(s).or(self.all_objects());
            if !held.and(values).is_empty() || !holders.and(visible).is_empty() {
                s.wrong(Fault::Reused);
            }
            for x in holders.or(values).iter() {
                s.fields[x as usize] = None;
            }
            s.stale = s.stale.or(holders.minus(self.all_objects())).minus(values);
            s.allocated = s.allocated.minus(values);
            s.chunks[arena as usize] = Chunk::Open;
            s.clean = s.clean.without(arena);
        }
    }
}
