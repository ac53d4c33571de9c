//! The second model: roots that die, containers under a lock, and a weak pointer.
//!
//! # What is modelled
//! The phases, grace periods and termination rounds of the first model, with everything else that
//! "has to agree with them":
//!
//! * **Roots.** A closure may make a root out of an object it holds, if the slot is empty. Anybody
//!   may drop it at any moment, without a closure and without a barrier; nobody reads it after
//!   that. The slot of a dead root becomes empty only by a trim, in phase 0. The root scan marks
//!   the slot's object, whether the root lives or not.
//! * **Containers.** Every object is a container with one field, which may be read and written only
//!   under its lock: lock (with the buffering that the epoch demands, in the same step), any number
//!   of reads and writes, unlock. A closure may have several guards; none outlives it. The tracer
//!   only tries the lock, and an object that is locked stays grey. A closure of phase 1 or 2
//!   buffers the contents each time it locks. One of phase 3 does so unless the object counts as
//!   scanned, and counts as its scanner from then on. There is no barrier on the writes under the
//!   lock.
//! * **A weak pointer**, which a closure may point at any object it holds, and upgrade. In phase 3
//!   an upgrade marks at once and makes the object grey in the same step; in phases 1 and 2 it
//!   buffers. The step that declares a round clean clears it if its object is unmarked. After that
//!   step only upgrades are still explored, and none may hand out an unmarked object.
//! * **Flushes** happen at the end of a closure and at any moment inside, which is also what
//!   stealing a buffer looks like.
//!
//! That a mutator's lock and its buffering are one step loses nothing: the tracer cannot look
//! inside in between, and the collector cannot see a closure end.
//!
//! # What is checked
//! At the end of marking: nothing that a live root or a closure reaches is unmarked
//! ([`Fault::Lost`]), and after it no unmarked object is handed out ([`Fault::DeadUpgraded`]). For
//! the decided protocol also that what still sits in buffers then is marked ([`Fault::LateFlush`]),
//! and that no closure of phase 0 runs beside the tracer ([`Fault::IdleBesideTracer`]), which is
//! what lets a cell that is confined to its thread do without atomic operations in phase 0.
//!
//! # What is not modelled
//! Weak memory, sweep ownership, ephemerons, revival by finalizers, read guards that a tracer may
//! share, and the data race itself that the tracer's try-lock prevents. Cells with a swap barrier
//! are the subject of the first model; the two kinds do not meet in one instance.
//!
//! # How to read a trail
//! As in the first model. A root that died is printed with a dagger, `locks` are the containers
//! that the closure has a guard of, and `scanned` are those that count as scanned.
//!
//! # Locking
//! None: plain values, one thread.

use crate::explore::Model;
use crate::vocabulary::{MOST, Operand, Packer, Phase, Pointer, Set, Step, Unpacker, reachable};
use std::fmt;

/// The protocol as decided, or with one rule broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Variant {
    Decided,
    /// An upgrade in phase 3 only buffers its object.
    UpgradeOnlyBuffers,
    /// Locking in phases 1 and 2 buffers nothing.
    NoBufferingWhileArming,
    /// A closure of phase 3 counts as scanner without having buffered the contents.
    ScannerWithoutBuffering,
    /// A closure of phase 2 counts as scanner too (and buffers each time, as it should).
    ScannerInArmingB,
    /// The root scan skips dead slots.
    DeadSlotsSkipped,
    /// The clean round does not clear the weak pointer.
    WeakClearedLater,
}

/// An instance of the model.
pub(crate) struct Containers {
    pub(crate) objects: u8,
    pub(crate) mutators: u8,
    /// The number of objects that a closure can hold.
    pub(crate) held: u32,
    pub(crate) variant: Variant,
}

/// How a state can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// Marking ended, and these objects are unmarked although a live root or a closure reaches
    /// them.
    Lost(Set),
    /// A closure got hold of these unmarked objects after marking had ended.
    DeadUpgraded(Set),
    /// A closure that is still inside will flush these unmarked objects after the end.
    LateFlush(Set),
    /// A closure of phase 0 is inside although phase 3 has begun.
    IdleBesideTracer,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Mutator {
    inside: bool,
    epoch: u8,
    pub(crate) held: Set,
    buffer: Set,
    /// The containers that the closure has locked.
    guards: Set,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    pub(crate) fields: [Pointer; MOST],
    allocated: Set,
    root: Pointer,
    /// The root in the slot was dropped, and the slot not trimmed yet.
    root_died: bool,
    weak: Pointer,
    pub(crate) marked: Set,
    grey: Set,
    /// The contents were scanned by the tracer, or by a mutator that counts as scanner.
    scanned: Set,
    pub(crate) phase: Phase,
    /// The mutators that a grace period or round still waits for.
    waiting: Set,
    dirty: bool,
    pub(crate) mutators: [Mutator; MOST],
}

impl State {
    /// The object that the root holds, if it has not died.
    pub(crate) fn live_root(&self) -> Pointer {
        self.root.filter(|_| !self.root_died)
    }

    /// Marks `found` and makes grey what was not marked before. In a round, that dirties it.
    fn shade(&mut self, found: Set) {
        let fresh = found.minus(self.marked);
        self.marked = self.marked.or(fresh);
        self.grey = self.grey.or(fresh);
        self.dirty = self.phase == Phase::Round && (self.dirty || !fresh.is_empty());
    }

    fn flush(&mut self, i: u8) {
        let buffer = std::mem::take(&mut self.mutators[i as usize].buffer);
        self.shade(buffer);
    }

    fn locked(&self) -> Set {
        self.mutators.iter().fold(Set::EMPTY, |all, m| all.or(m.guards))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dagger = if self.root_died { "\u{2020}" } else { "" };
        write!(f, "{:?} root={}{dagger}", self.phase, Operand::value(self.root))?;
        write!(f, " weak={}", Operand::value(self.weak))?;
        for x in self.allocated.iter() {
            write!(f, " #{x}={}", Operand::value(self.fields[x as usize]))?;
        }
        write!(f, " marked={:?} grey={:?} scanned={:?}", self.marked, self.grey, self.scanned)?;
        write!(f, " waiting={:?} dirty={}", self.waiting, u8::from(self.dirty))?;
        for (i, m) in self.mutators.iter().enumerate().filter(|(_, m)| m.inside) {
            write!(f, " | m{i}({}) holds {:?} locks {:?}", m.epoch, m.held, m.guards)?;
            write!(f, " buffer {:?}", m.buffer)?;
        }
        Ok(())
    }
}

impl Containers {
    /// The protocol as decided.
    pub(crate) fn decided(objects: u8, mutators: u8, held: u32) -> Self {
        Self { objects, mutators, held, variant: Variant::Decided }
    }

    fn active(&self, s: &State) -> Set {
        (0..self.mutators).filter(|&i| s.mutators[i as usize].inside).fold(Set::EMPTY, Set::with)
    }

    /// Flushing, leaving, forgetting, allocating.
    fn moves(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        if !m.buffer.is_empty() {
            let mut next = *s;
            next.flush(i);
            visit(Step::mutator(i, "flushes"), next);
        }
        if m.guards.is_empty() {
            let mut next = *s;
            next.flush(i);
            next.waiting = next.waiting.without(i);
            next.mutators[i as usize] = Mutator::default();
            visit(Step::mutator(i, "leaves"), next);
        }
        // A guard keeps its object at hand, so only the others can be forgotten.
        for x in m.held.minus(m.guards).iter() {
            let mut next = *s;
            next.mutators[i as usize].held = m.held.without(x);
            visit(Step::mutator(i, "forgets").on(Operand::Object(x)), next);
        }
        let free = (0..self.objects).find(|&x| !s.allocated.contains(x));
        if let Some((x, more)) = free.and_then(|x| Some((x, m.held.hold(Some(x), self.held)?))) {
            let mut next = *s;
            next.allocated = next.allocated.with(x);
            let my = &mut next.mutators[i as usize];
            my.held = more;
            if m.epoch == 3 {
                next.marked = next.marked.with(x);
                next.scanned = next.scanned.with(x);
            } else if m.epoch == 2 {
                my.buffer = my.buffer.with(x);
            }
            visit(Step::mutator(i, "allocates").on(Operand::Object(x)), next);
        }
    }

    /// Locking, reading, writing and unlocking containers.
    fn containers(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        for x in m.held.minus(s.locked()).iter() {
            visit(Step::mutator(i, "locks").on(Operand::Object(x)), self.lock(s, i, x));
        }
        for x in m.guards.iter() {
            let content = s.fields[x as usize];
            let mut next = *s;
            next.mutators[i as usize].guards = m.guards.without(x);
            visit(Step::mutator(i, "unlocks").on(Operand::Object(x)), next);

            if let Some(more) = m.held.hold(content, self.held).filter(|more| *more != m.held) {
                let mut next = *s;
                next.mutators[i as usize].held = more;
                let step = Step::mutator(i, "reads").on(Operand::Object(x));
                visit(step.with(Operand::value(content)), next);
            }
            for new in std::iter::once(None).chain(m.held.iter().map(Some)) {
                if new != content {
                    let mut next = *s;
                    next.fields[x as usize] = new;
                    let step = Step::mutator(i, "writes").on(Operand::Object(x));
                    visit(step.with(Operand::value(new)), next);
                }
            }
        }
    }

    /// The state after mutator `i` has locked `x`, with the buffering that its epoch demands.
    fn lock(&self, s: &State, i: u8, x: u8) -> State {
        let mut next = *s;
        let my = &mut next.mutators[i as usize];
        my.guards = my.guards.with(x);
        let contents = Set::of(s.fields[x as usize]);
        match my.epoch {
            1 | 2 => {
                if self.variant != Variant::NoBufferingWhileArming {
                    my.buffer = my.buffer.or(contents);
                }
                if self.variant == Variant::ScannerInArmingB && my.epoch == 2 {
                    next.scanned = next.scanned.with(x);
                }
            }
            3 if !s.scanned.contains(x) => {
                if self.variant != Variant::ScannerWithoutBuffering {
                    my.buffer = my.buffer.or(contents);
                }
                next.scanned = next.scanned.with(x);
            }
            _ => {}
        }
        next
    }

    /// Making and reading roots, pointing and upgrading the weak pointer.
    fn handles(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        for x in m.held.iter() {
            if s.root.is_none() {
                let mut next = *s;
                next.root = Some(x);
                visit(Step::mutator(i, "makes a root of").on(Operand::Object(x)), next);
            }
            if s.weak != Some(x) {
                let mut next = *s;
                next.weak = Some(x);
                visit(Step::mutator(i, "points the weak pointer at").on(Operand::Object(x)), next);
            }
        }
        let root = s.live_root();
        if let Some(more) = m.held.hold(root, self.held).filter(|more| *more != m.held) {
            let mut next = *s;
            next.mutators[i as usize].held = more;
            visit(Step::mutator(i, "reads the root").on(Operand::value(root)), next);
        }
        if let Some(more) = m.held.hold(s.weak, self.held).filter(|more| *more != m.held) {
            let mut next = *s;
            let my = &mut next.mutators[i as usize];
            my.held = more;
            let target = Set::of(s.weak);
            let marks = m.epoch == 3 && self.variant != Variant::UpgradeOnlyBuffers;
            if marks {
                next.shade(target);
            } else if m.epoch >= 1 {
                my.buffer = my.buffer.or(target);
            }
            visit(Step::mutator(i, "upgrades").on(Operand::value(s.weak)), next);
        }
    }

    /// After the end of marking: upgrades, of which none may succeed on an unmarked object.
    fn afterwards(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let Some(x) = s.weak.filter(|&x| !s.marked.contains(x)) else { return };
        for i in self.active(s).iter() {
            let mut next = *s;
            next.mutators[i as usize].held = next.mutators[i as usize].held.with(x);
            next.phase = Phase::DeadUpgraded;
            visit(Step::mutator(i, "upgrades").on(Operand::Object(x)), next);
        }
    }

    /// Trimming, publishing phases, scanning the root.
    fn collects(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let mut next = *s;
        match s.phase {
            Phase::Idle => {
                if s.root_died {
                    let mut trimmed = *s;
                    trimmed.root = None;
                    trimmed.root_died = false;
                    visit(Step::collector("trims the root table"), trimmed);
                }
                next.phase = Phase::ArmingA;
                next.waiting = self.active(s);
                visit(Step::collector("publishes 1"), next);
            }
            Phase::ArmingA if s.waiting.is_empty() => {
                next.phase = Phase::ArmingB;
                next.waiting = self.active(s);
                visit(Step::collector("publishes 2"), next);
            }
            Phase::ArmingB if s.waiting.is_empty() => {
                next.phase = Phase::Snapshot;
                visit(Step::collector("publishes 3"), next);
            }
            Phase::Snapshot => {
                next.phase = Phase::Marking;
                let skip = s.root_died && self.variant == Variant::DeadSlotsSkipped;
                next.shade(Set::of(s.root.filter(|_| !skip)));
                visit(Step::collector("scans the root"), next);
            }
            Phase::Marking | Phase::Round => self.marks(s, visit),
            _ => {}
        }
    }

    fn marks(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        for x in s.grey.iter() {
            let scanned = s.scanned.contains(x);
            if !scanned && s.locked().contains(x) {
                continue;
            }
            let mut next = *s;
            next.phase = Phase::Marking;
            next.waiting = Set::EMPTY;
            next.dirty = false;
            next.grey = next.grey.without(x);
            if !scanned {
                next.scanned = next.scanned.with(x);
                next.shade(Set::of(s.fields[x as usize]));
            }
            let verb = if scanned { "finds scanned" } else { "scans" };
            visit(Step::collector(verb).on(Operand::Object(x)), next);
        }
        if !s.grey.is_empty() {
            return;
        }
        let mut next = *s;
        next.dirty = false;
        if s.phase == Phase::Marking {
            next.phase = Phase::Round;
            next.waiting = self.active(s);
            visit(Step::collector("begins a round"), next);
        } else if s.waiting.is_empty() && s.dirty {
            next.phase = Phase::Marking;
            visit(Step::collector("ends a dirty round"), next);
        } else if s.waiting.is_empty() {
            next.phase = Phase::Done;
            if self.variant != Variant::WeakClearedLater {
                next.weak = s.weak.filter(|&x| s.marked.contains(x));
            }
            visit(Step::collector("ends a clean round"), next);
        }
    }
}

impl Model for Containers {
    type State = State;
    type Fault = Fault;

    fn start(&self) -> State {
        State {
            fields: [None; MOST],
            allocated: Set::EMPTY,
            root: None,
            root_died: false,
            weak: None,
            marked: Set::EMPTY,
            grey: Set::EMPTY,
            scanned: Set::EMPTY,
            phase: Phase::Idle,
            waiting: Set::EMPTY,
            dirty: false,
            mutators: [Mutator::default(); MOST],
        }
    }

    fn pack(&self, s: &State) -> Packer {
        let mut p = Packer::default();
        let objects = u32::from(self.objects);
        p.phase(s.phase);
        p.pointer(s.root);
        p.flag(s.root_died);
        p.pointer(s.weak);
        for x in 0..self.objects as usize {
            p.pointer(s.fields[x]);
        }
        p.set(s.allocated, objects);
        p.set(s.marked, objects);
        p.set(s.grey, objects);
        p.set(s.scanned, objects);
        p.flag(s.dirty);
        for (i, m) in (0..self.mutators).zip(&s.mutators) {
            p.member();
            p.flag(s.waiting.contains(i));
            p.flag(m.inside);
            p.epoch(m.epoch);
            p.set(m.held, objects);
            p.set(m.buffer, objects);
            p.set(m.guards, objects);
        }
        p
    }

    fn unpack(&self, word: u64) -> State {
        let mut u = Unpacker::new(word);
        let objects = u32::from(self.objects);
        let mut s = self.start();
        s.phase = u.phase();
        s.root = u.pointer();
        s.root_died = u.flag();
        s.weak = u.pointer();
        for x in 0..self.objects as usize {
            s.fields[x] = u.pointer();
        }
        s.allocated = u.set(objects);
        s.marked = u.set(objects);
        s.grey = u.set(objects);
        s.scanned = u.set(objects);
        s.dirty = u.flag();
        for (i, m) in (0..self.mutators).zip(&mut s.mutators) {
            s.waiting = if u.flag() { s.waiting.with(i) } else { s.waiting };
            m.inside = u.flag();
            m.epoch = u.epoch();
            m.held = u.set(objects);
            m.buffer = u.set(objects);
            m.guards = u.set(objects);
        }
        s
    }

    fn steps(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        match s.phase {
            Phase::DeadUpgraded => return,
            Phase::Done => return self.afterwards(s, visit),
            _ => {}
        }
        if s.live_root().is_some() {
            let mut next = *s;
            next.root_died = true;
            visit(Step::collector("somebody drops the root"), next);
        }
        for i in 0..self.mutators {
            if s.mutators[i as usize].inside {
                self.moves(s, i, visit);
                self.containers(s, i, visit);
                self.handles(s, i, visit);
            } else {
                let mut next = *s;
                let epoch = s.phase.epoch();
                next.mutators[i as usize] = Mutator { inside: true, epoch, ..Mutator::default() };
                visit(Step::mutator(i, "enters"), next);
            }
        }
        self.collects(s, visit);
    }

    fn fault(&self, s: &State) -> Option<Fault> {
        let decided = self.variant == Variant::Decided;
        let mut closures = s.mutators.iter().filter(|m| m.inside);
        if decided && s.phase >= Phase::Snapshot && closures.any(|m| m.epoch == 0) {
            return Some(Fault::IdleBesideTracer);
        }
        let held = s.mutators.iter().fold(Set::EMPTY, |all, m| all.or(m.held));
        match s.phase {
            Phase::DeadUpgraded => Some(Fault::DeadUpgraded(held.minus(s.marked))),
            Phase::Done => {
                let roots = held.or(Set::of(s.live_root()));
                let lost = reachable(&s.fields, roots).minus(s.marked);
                if !lost.is_empty() {
                    return Some(Fault::Lost(lost));
                }
                // A broken variant is asked for an object that is lost, not for one about to be.
                let buffers = s.mutators.iter().fold(Set::EMPTY, |all, m| all.or(m.buffer));
                let late = buffers.minus(s.marked);
                (decided && !late.is_empty()).then_some(Fault::LateFlush(late))
            }
            _ => None,
        }
    }
}
