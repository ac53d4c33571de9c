//! The first model: the mark phase, from arming to a clean termination round.
//!
//! # What is modelled
//! Objects with one pointer field each, one root slot, and mutators that enter and leave closures
//! and inside of them load, store, allocate and forget, holding at most a given number of objects.
//! A mutator knows the phase only as it was when its closure began (its *epoch*). The barrier is
//! two steps, swap and then buffer, and anything may happen between them. A buffer is flushed when
//! its closure is left. The collector arms (A, then B, each followed by a grace period), scans the
//! root, scans grey objects one by one, and runs termination rounds. When a round is clean, nothing
//! that the root reaches and nothing that a closure holds or reaches may be unmarked.
//!
//! [`Marking::decided`] is, step for step, the model that the design was explored with; the number
//! of its states is pinned by a test, so that no rule drifts unnoticed.
//!
//! Two simplifications are harmless. Mark bits are cleared when arming A rather than B, and a flush
//! before phase 3 marks at once rather than waiting in the global queue for clean mark bits: in
//! both cases the set "marked and grey" stands for the queue, and nobody reads it before the
//! snapshot. And objects are never freed, so each instance has only as many allocations as objects;
//! a lost object shows as an unmarked one at the end of marking, which is the moment that would
//! doom it.
//!
//! # The variants
//! Each [`Variant`] other than `Decided` leaves out one detail that the design calls load-bearing.
//! Each is the most charitable version of its mistake that we could think of.
//!
//! # What the implementation does beyond the design
//! Each can be switched on: closures of phase 3 store without a swap ([`Variant::LoadStoreFrom`]); the collector may
//! *steal* a buffer at any moment, so that a closure that stays inside does not keep grey work to itself; a buffer is
//! handed over by steps ([`handover`]); a mutator whose buffer gets no memory marks *directly* ([`exhausted`]); a
//! second worker marks, and closures of phase 3 help with it ([`assists`]).
//!
//! # What is not modelled
//! Weak memory (every step is atomic and all agree on one order), sweep ownership, and the pre-marking of runs of new
//! objects, which is black allocation earlier.
//!
//! # How to read a trail
//! Each line is a step and the state after it. `m0(2)` is mutator 0 inside a closure of epoch 2,
//! with the objects it holds, a swapped-out value not yet buffered (`pending`), and its buffer.
//!
//! # Locking
//! None: plain values, one thread.

#[path = "marking/assists.rs"]
pub(crate) mod assists;
#[path = "marking/exhausted.rs"]
pub(crate) mod exhausted;
#[path = "marking/handover.rs"]
pub(crate) mod handover;

use crate::explore::Model;
use crate::vocabulary::{MOST, Operand, Packer, Phase, Pointer, Set, Step, Unpacker, reachable};
use assists::{Assist, Job, Worker};
use exhausted::Direct;
use handover::Handover;
use std::fmt;

/// The protocol as decided, or with one load-bearing detail left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Variant {
    Decided,
    /// The snapshot follows the first grace period; there is no phase 2.
    OneGracePeriod,
    /// New objects are marked and never scanned in phase 2 already.
    BlackInArmingB,
    /// The barrier marks at once, and buffers only an object whose mark it won.
    BufferOnlyIfWon,
    /// The barrier loads and buffers the old value, and stores in a later step.
    LoadThenStore,
    /// Closures of this epoch and later ones load, store, and buffer what they have loaded, in three steps. From 3
    /// on that is what the implementation does.
    LoadStoreFrom(u8),
}

impl Variant {
    /// Whether a store can be under way.
    fn has_stores(self) -> bool {
        matches!(self, Variant::LoadThenStore | Variant::LoadStoreFrom(_))
    }
}

/// An instance of the model.
pub(crate) struct Marking {
    pub(crate) objects: u8,
    pub(crate) mutators: u8,
    /// The number of objects that a closure can hold.
    pub(crate) held: u32,
    pub(crate) variant: Variant,
    /// The collector may take the contents of a buffer at any moment.
    pub(crate) stealing: bool,
    /// How a buffer is handed over in phase 3.
    pub(crate) handover: Handover,
    /// A buffer may run out of memory in phase 3, and this is what its mutator does then.
    pub(crate) exhausted: Option<Direct>,
    /// A second worker and closures of phase 3 scan grey objects, and this is how the worker is counted.
    pub(crate) assists: Option<Assist>,
}

/// How a state at the end of marking can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// These objects are unmarked, although the root or a closure reaches them.
    Lost(Set),
    /// A closure that is still inside will flush an unmarked object after the end.
    LateFlush(Set),
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Mutator {
    inside: bool,
    epoch: u8,
    pub(crate) held: Set,
    /// The value that a barrier has swapped out (or loaded) and not yet dealt with.
    pending: Pointer,
    buffer: Set,
    /// Where the barrier is no swap: the place and the value of the store that is still to come.
    store: Option<(Option<u8>, Pointer)>,
    /// Between direct marking and raising the flag, or the reverse.
    direct: bool,
    /// Marked while the buffer is handed over, and not appended to the queue yet.
    marking: Pointer,
    /// What the closure helps with.
    job: Option<Job>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    pub(crate) fields: [Pointer; MOST],
    allocated: Set,
    pub(crate) root: Pointer,
    pub(crate) marked: Set,
    grey: Set,
    pub(crate) phase: Phase,
    /// The mutators that a grace period or round still waits for.
    waiting: Set,
    dirty: bool,
    pub(crate) mutators: [Mutator; MOST],
    /// Marked directly, and neither queued nor scanned since.
    unqueued: Set,
    /// Somebody marked directly: walk before declaring a round clean.
    rescan: bool,
    /// The object that the walk under way looks at next.
    walk: Pointer,
    /// A second marking thread.
    worker: Worker,
}

impl State {
    /// Marks `found` and makes grey what was not marked before. In a round, that dirties it.
    fn shade(&mut self, found: Set) {
        let fresh = found.minus(self.marked);
        self.marked = self.marked.or(fresh);
        self.grey = self.grey.or(fresh);
        self.dirty = self.phase == Phase::Round && (self.dirty || !fresh.is_empty());
    }

    fn load(&self, place: Option<u8>) -> Pointer {
        place.map_or(self.root, |x| self.fields[x as usize])
    }

    fn store(&mut self, place: Option<u8>, value: Pointer) {
        match place {
            None => self.root = value,
            Some(x) => self.fields[x as usize] = value,
        }
    }

    /// Work turned up: whatever round was under way is void.
    fn back_to_marking(&mut self) {
        self.phase = Phase::Marking;
        self.waiting = Set::EMPTY;
        self.dirty = false;
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} root={}", self.phase, Operand::value(self.root))?;
        for x in self.allocated.iter() {
            write!(f, " #{x}={}", Operand::value(self.fields[x as usize]))?;
        }
        write!(f, " marked={:?} grey={:?}", self.marked, self.grey)?;
        write!(f, " waiting={:?} dirty={}", self.waiting, u8::from(self.dirty))?;
        if !self.unqueued.is_empty() || self.rescan {
            write!(f, " unqueued={:?} rescan={}", self.unqueued, u8::from(self.rescan))?;
        }
        for (i, m) in self.mutators.iter().enumerate().filter(|(_, m)| m.inside) {
            write!(f, " | m{i}({}) holds {:?}", m.epoch, m.held)?;
            if let Some(x) = m.pending {
                write!(f, " pending #{x}")?;
            }
            write!(f, " buffer {:?}", m.buffer)?;
            if let Some(x) = m.marking {
                write!(f, " marking #{x}")?;
            }
            if let Some(job) = m.job {
                write!(f, " assists {job:?}")?;
            }
        }
        if let Some(job) = self.worker.job {
            write!(f, " | worker {job:?} busy={}", u8::from(self.worker.busy))?;
        }
        Ok(())
    }
}

impl Marking {
    /// The decided protocol, with buffers that are neither stolen nor exhausted.
    pub(crate) fn decided(objects: u8, mutators: u8, held: u32) -> Self {
        let variant = Variant::Decided;
        Self {
            objects,
            mutators,
            held,
            variant,
            stealing: false,
            handover: Handover::Whole,
            exhausted: None,
            assists: None,
        }
    }

    fn active(&self, s: &State) -> Set {
        (0..self.mutators).filter(|&i| s.mutators[i as usize].inside).fold(Set::EMPTY, Set::with)
    }

    /// Flushes the buffer of mutator `i` to the grey work.
    fn flush(&self, s: &mut State, i: u8) {
        let buffer = std::mem::take(&mut s.mutators[i as usize].buffer);
        s.shade(buffer);
        if self.variant == Variant::BufferOnlyIfWon && !buffer.is_empty() {
            // Its entries are marked, but only their owner knows that they are grey.
            s.grey = s.grey.or(buffer);
            s.dirty = s.phase == Phase::Round;
        }
    }

    /// The steps of mutator `i` while it has left something half done.
    fn half_done(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        let mut next = *s;
        let my = &mut next.mutators[i as usize];
        if let Some((place, value)) = m.store {
            my.store = None;
            next.store(place, value);
            let step = Step::mutator(i, "stores at last");
            visit(step.on(Operand::place(place)).with(Operand::value(value)), next);
        } else if let (Some(x), false) = (m.pending, m.direct) {
            my.pending = None;
            if self.variant != Variant::BufferOnlyIfWon {
                my.buffer = my.buffer.with(x);
            } else if !s.marked.contains(x) {
                my.buffer = my.buffer.with(x);
                next.marked = next.marked.with(x);
            }
            visit(Step::mutator(i, "buffers").on(Operand::Object(x)), next);
        }
    }

    /// Entering, leaving, forgetting, loading, allocating.
    fn moves(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        if m.buffer.is_empty() || !self.by_steps(s) {
            let mut next = *s;
            self.flush(&mut next, i);
            next.waiting = next.waiting.without(i);
            next.mutators[i as usize] = Mutator::default();
            visit(Step::mutator(i, "leaves"), next);
        }

        for x in m.held.iter() {
            let mut next = *s;
            next.mutators[i as usize].held = m.held.without(x);
            visit(Step::mutator(i, "forgets").on(Operand::Object(x)), next);
        }
        for place in std::iter::once(None).chain(m.held.iter().map(Some)) {
            let value = s.load(place);
            if let Some(more) = m.held.hold(value, self.held).filter(|more| *more != m.held) {
                let mut next = *s;
                next.mutators[i as usize].held = more;
                let step = Step::mutator(i, "loads from").on(Operand::place(place));
                visit(step.with(Operand::value(value)), next);
            }
        }
        let free = (0..self.objects).find(|&x| !s.allocated.contains(x));
        if let Some((x, more)) = free.and_then(|x| Some((x, m.held.hold(Some(x), self.held)?))) {
            let mut next = *s;
            let my = &mut next.mutators[i as usize];
            my.held = more;
            let black_from = if self.variant == Variant::BlackInArmingB { 2 } else { 3 };
            if m.epoch >= black_from {
                next.marked = next.marked.with(x);
            } else if m.epoch == 2 {
                my.buffer = my.buffer.with(x);
            }
            next.allocated = next.allocated.with(x);
            next.fields[x as usize] = None;
            visit(Step::mutator(i, "allocates").on(Operand::Object(x)), next);
        }
    }

    /// The first half of every overwrite that is possible: the swap.
    fn overwrites(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        for place in std::iter::once(None).chain(m.held.iter().map(Some)) {
            let old = s.load(place);
            for new in std::iter::once(None).chain(m.held.iter().map(Some)) {
                if new == old {
                    continue;
                }
                let mut next = *s;
                let my = &mut next.mutators[i as usize];
                let operands =
                    |step: Step| step.on(Operand::place(place)).with(Operand::value(new));
                if self.variant == Variant::LoadThenStore && m.epoch >= 1 {
                    my.store = Some((place, new));
                    my.buffer = my.buffer.or(Set::of(old));
                    visit(operands(Step::mutator(i, "shades, to store")), next);
                } else if matches!(self.variant, Variant::LoadStoreFrom(from) if m.epoch >= from) {
                    my.store = Some((place, new));
                    my.pending = old;
                    visit(operands(Step::mutator(i, "loads, to store")), next);
                } else {
                    my.pending = if m.epoch >= 1 { old } else { None };
                    next.store(place, new);
                    visit(operands(Step::mutator(i, "swaps")), next);
                }
            }
        }
    }

    fn steals(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        for i in (0..self.mutators).filter(|&i| !s.mutators[i as usize].buffer.is_empty()) {
            let mut next = *s;
            self.flush(&mut next, i);
            visit(Step::collector("steals buffer").on(Operand::Object(i)), next);
        }
    }

    /// Publishing phases, scanning, termination rounds.
    fn collects(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let mut next = *s;
        match s.phase {
            Phase::Idle => {
                next.phase = Phase::ArmingA;
                next.marked = Set::EMPTY;
                next.grey = Set::EMPTY;
                next.waiting = self.active(s);
                visit(Step::collector("publishes 1"), next);
            }
            Phase::ArmingA if s.waiting.is_empty() => {
                if self.variant == Variant::OneGracePeriod {
                    next.phase = Phase::Snapshot;
                    visit(Step::collector("publishes 3"), next);
                } else {
                    next.phase = Phase::ArmingB;
                    next.waiting = self.active(s);
                    visit(Step::collector("publishes 2"), next);
                }
            }
            Phase::ArmingB if s.waiting.is_empty() => {
                next.phase = Phase::Snapshot;
                visit(Step::collector("publishes 3"), next);
            }
            Phase::Snapshot => {
                next.phase = Phase::Marking;
                next.shade(Set::of(s.root));
                visit(Step::collector("scans the root"), next);
            }
            Phase::Marking | Phase::Round => self.marks(s, visit),
            _ => {}
        }
    }

    fn marks(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        for x in s.grey.iter() {
            let mut next = *s;
            next.back_to_marking();
            next.grey = next.grey.without(x);
            next.shade(Set::of(s.fields[x as usize]));
            visit(Step::collector("scans").on(Operand::Object(x)), next);
        }
        if !s.grey.is_empty() || s.walk.is_some() || s.worker.busy {
            return;
        }
        let mut next = *s;
        if s.phase == Phase::Round && s.waiting.is_empty() && !self.is_locked(s) {
            let clean = !s.dirty && !s.rescan;
            next.phase = if clean { Phase::Done } else { Phase::Marking };
            next.dirty = false;
            visit(Step::collector("ends the round"), next);
        } else if s.phase == Phase::Marking && !s.rescan {
            next.phase = Phase::Round;
            next.waiting = self.active(s);
            visit(Step::collector("begins a round"), next);
        }
    }
}

impl Model for Marking {
    type State = State;
    type Fault = Fault;

    fn start(&self) -> State {
        State {
            fields: [None; MOST],
            allocated: Set::EMPTY,
            root: None,
            marked: Set::EMPTY,
            grey: Set::EMPTY,
            phase: Phase::Idle,
            waiting: Set::EMPTY,
            dirty: false,
            mutators: [Mutator::default(); MOST],
            unqueued: Set::EMPTY,
            rescan: false,
            walk: None,
            worker: Worker::default(),
        }
    }

    fn pack(&self, s: &State) -> Packer {
        let mut p = Packer::default();
        let objects = u32::from(self.objects);
        p.phase(s.phase);
        p.pointer(s.root);
        for x in 0..self.objects as usize {
            p.pointer(s.fields[x]);
        }
        p.set(s.allocated, objects);
        p.set(s.marked, objects);
        p.set(s.grey, objects);
        p.flag(s.dirty);
        let exhausted = self.exhausted.is_some();
        if exhausted {
            p.set(s.unqueued, objects);
            p.flag(s.rescan);
            p.pointer(s.walk);
        }
        if self.assists.is_some() {
            assists::pack(s.worker.job, &mut p);
            p.flag(s.worker.busy);
        }
        for (i, m) in (0..self.mutators).zip(&s.mutators) {
            p.member();
            p.flag(s.waiting.contains(i));
            p.flag(m.inside);
            p.epoch(m.epoch);
            p.set(m.held, objects);
            p.set(m.buffer, objects);
            p.pointer(m.pending);
            if self.handover != Handover::Whole {
                p.pointer(m.marking);
            }
            if exhausted {
                p.flag(m.direct);
            }
            if self.assists.is_some() {
                assists::pack(m.job, &mut p);
            }
            if self.variant.has_stores() {
                p.flag(m.store.is_some());
                let (place, value) = m.store.unwrap_or_default();
                p.pointer(place);
                p.pointer(value);
            }
        }
        p
    }

    fn unpack(&self, word: u64) -> State {
        let mut u = Unpacker::new(word);
        let objects = u32::from(self.objects);
        let mut s = self.start();
        s.phase = u.phase();
        s.root = u.pointer();
        for x in 0..self.objects as usize {
            s.fields[x] = u.pointer();
        }
        s.allocated = u.set(objects);
        s.marked = u.set(objects);
        s.grey = u.set(objects);
        s.dirty = u.flag();
        let exhausted = self.exhausted.is_some();
        if exhausted {
            s.unqueued = u.set(objects);
            s.rescan = u.flag();
            s.walk = u.pointer();
        }
        if self.assists.is_some() {
            s.worker = Worker { job: assists::unpack(&mut u), busy: u.flag() };
        }
        for (i, m) in (0..self.mutators).zip(&mut s.mutators) {
            s.waiting = if u.flag() { s.waiting.with(i) } else { s.waiting };
            m.inside = u.flag();
            m.epoch = u.epoch();
            m.held = u.set(objects);
            m.buffer = u.set(objects);
            m.pending = u.pointer();
            if self.handover != Handover::Whole {
                m.marking = u.pointer();
            }
            if exhausted {
                m.direct = u.flag();
            }
            if self.assists.is_some() {
                m.job = assists::unpack(&mut u);
            }
            if self.variant.has_stores() {
                let store = u.flag();
                let operands = (u.pointer(), u.pointer());
                m.store = store.then_some(operands);
            }
        }
        s
    }

    fn steps(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        if s.phase == Phase::Done {
            return;
        }
        for i in 0..self.mutators {
            let m = s.mutators[i as usize];
            if !m.inside {
                let mut next = *s;
                next.mutators[i as usize] =
                    Mutator { inside: true, epoch: s.phase.epoch(), ..Mutator::default() };
                visit(Step::mutator(i, "enters"), next);
                continue;
            }
            if self.assists.is_some() && m.epoch == 3 && m.pending.is_none() {
                self.assists(s, i, visit);
            }
            if m.job.is_some() {
                continue;
            }
            if m.pending.is_some() || m.store.is_some() {
                self.half_done(s, i, visit);
            } else if m.marking.is_some() {
                self.hands_over(s, i, visit);
            } else if !m.direct {
                self.moves(s, i, visit);
                self.overwrites(s, i, visit);
                self.hands_over(s, i, visit);
            }
            if let Some(how) = self.exhausted.filter(|_| m.epoch == 3) {
                self.marks_directly(s, i, how, visit);
            }
        }
        self.collects(s, visit);
        if let Some(how) = self.assists {
            self.works(s, how, visit);
        }
        if self.stealing {
            self.steals(s, visit);
        }
        self.walks(s, visit);
    }

    fn fault(&self, s: &State) -> Option<Fault> {
        if s.phase != Phase::Done {
            return None;
        }
        let inside = &s.mutators;
        let roots = inside.iter().fold(Set::of(s.root), |all, m| all.or(m.held));
        let lost = reachable(&s.fields, roots).minus(s.marked);
        if !lost.is_empty() {
            return Some(Fault::Lost(lost));
        }
        // A broken variant is asked for a lost object, not for something that merely might become
        // one.
        let decided = matches!(self.variant, Variant::Decided | Variant::LoadStoreFrom(3));
        let entries =
            inside.iter().fold(Set::EMPTY, |all, m| all.or(m.buffer).or(Set::of(m.pending)));
        let late = entries.minus(s.marked);
        (decided && !late.is_empty()).then_some(Fault::LateFlush(late))
    }
}
