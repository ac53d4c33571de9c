//! The fourth model: upgrading weak pointers, reviving objects, and reusing slots, to the end of the sweep.
//!
//! # What is modelled
//! One cycle and what comes after it. Objects have one field, stored to with the swap barrier (here one step);
//! one of them may have a weak pointer, made before the cycle and never pointed elsewhere, and one may have a
//! finalizer. The slots of dead objects are freed one by one when phase 0 is published again, and new closures
//! allocate in them, which sets the *mark bit*, because the marks of the cycle are the allocation bits of the
//! generation. Closures of phase 3 may still run then.
//!
//! **An upgrade** in phase 3 is a series of steps:
//! 1. load the handle; without a target there is nothing to upgrade;
//! 2. look at the target's mark. If it is set, load the handle again, and only if it still has the target,
//!    return it: the mark may be that of another object that lies there now;
//! 3. if it is not set: under the lock of the grey queue, unless the marking is *final*, mark the object and
//!    push it;
//! 4. if the marking is final: look at the mark again; if it is set, go on as in 2, else there is nothing to
//!    upgrade. (A test shows that this look finds nothing new.)
//!
//! (The queue itself runs under a model checker, in `spanheap-interleavings`, where step 3 is seen from outside.)
//!
//! **The collector** declares a clean round final under the same lock. Then it clears the handle if its
//! target is unmarked; then it marks the object with the finalizer, if it is unmarked, and what that
//! reaches (*revival*), and queues it for its finalizer, which a closure runs later; then it publishes phase 0;
//! then it sweeps. In phases 1 and 2 an upgrade buffers the target, in phase 0 it just loads it.
//!
//! # What is checked
//! No object is freed that the root, a closure, or the queue of finalizers reaches ([`Fault::Freed`]). No
//! upgrade returns what lies in the slot of a target that is gone ([`Fault::WrongObject`]). When
//! phase 0 is published, the weak pointer of an object that waits for its finalizer is cleared
//! ([`Fault::RevivedByWeak`]). An upgrade that finds nothing has found it for ever: the handle does not have a
//! marked target then ([`Fault::NotForEver`]).
//!
//! # What is not modelled
//! Weak memory, several handles, ephemerons, the two halves of the barrier (the first model has them), and
//! allocation by closures of phase 3 after the end of marking (the third model has that). Nor are other workers
//! and assists: the first model has them, and shows that none of them is at work when a round is clean. From then to
//! the declaration there is nothing that one could take, so nobody but the collector marks.
//!
//! # Locking
//! None: plain values, one thread.

#[path = "weak/ending.rs"]
mod ending;

use crate::explore::Model;
use crate::vocabulary::{MOST, Operand, Packer, Pointer, Set, Step, Unpacker, reachable};
use std::fmt;

/// The protocol as decided, or with one rule broken or left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Variant {
    Decided,
    /// A target that is marked is returned at once.
    NoReload,
    /// A clean round is found in one step and declared final in another.
    DeclaredWithoutLock,
    /// An upgrade does not ask whether the marking is final.
    FinalIgnored,
    /// An upgrade marks, and does not push.
    MarkedWithoutPush,
    /// The handle is cleared after phase 0 is published.
    ClearedAfterIdle,
    /// The sweep begins before the handle is cleared.
    SweptBeforeClearing,
    /// Objects are revived before the handle is cleared.
    RevivedBeforeClearing,
    /// What a revived object reaches is not marked.
    RevivedNotTraced,
    /// When the marking is final, a target that was not marked before is given up without another look. This
    /// is no mistake.
    NoSecondLook,
}

/// An instance of the model.
pub(crate) struct Weak {
    pub(crate) objects: u8,
    pub(crate) mutators: u8,
    /// The number of objects that a closure can hold.
    pub(crate) held: u32,
    /// Whether an object may have a finalizer.
    pub(crate) finalizer: bool,
    pub(crate) variant: Variant,
}

/// How a state can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Fault {
    /// The sweep has freed an object that something reaches.
    Freed,
    /// An upgrade has returned an object that is not the handle's.
    WrongObject,
    /// A weak pointer survives to an object that waits for its finalizer.
    RevivedByWeak,
    /// An upgrade has found nothing, and the next one will find the object.
    NotForEver,
}

/// Where the collector is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum Stage {
    Before,
    ArmingA,
    ArmingB,
    Snapshot,
    Marking,
    Round,
    /// [`Variant::DeclaredWithoutLock`]: the round was clean, and nobody knows yet.
    Clean,
    /// Upgrades of unmarked targets give nothing.
    Final,
    /// The handle is cleared; what is revived is being marked.
    Reviving,
    /// Phase 0 again.
    After,
    Faulty(Fault),
}

impl Stage {
    const ALL: [Stage; 14] = [
        Stage::Before,
        Stage::ArmingA,
        Stage::ArmingB,
        Stage::Snapshot,
        Stage::Marking,
        Stage::Round,
        Stage::Clean,
        Stage::Final,
        Stage::Reviving,
        Stage::After,
        Stage::Faulty(Fault::Freed),
        Stage::Faulty(Fault::WrongObject),
        Stage::Faulty(Fault::RevivedByWeak),
        Stage::Faulty(Fault::NotForEver),
    ];

    /// The epoch of a closure that enters now.
    fn epoch(self) -> u8 {
        match self {
            Stage::Before | Stage::After | Stage::Faulty(_) => 0,
            Stage::ArmingA => 1,
            Stage::ArmingB => 2,
            _ => 3,
        }
    }
}

/// How far an upgrade of phase 3 has come with its target.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Upgrade {
    #[default]
    None,
    Loaded,
    SeenMarked,
    SeenUnmarked,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Mutator {
    inside: bool,
    epoch: u8,
    held: Set,
    buffer: Set,
    upgrade: Upgrade,
    target: Pointer,
    /// The target was freed since it was loaded.
    gone: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    stage: Stage,
    fields: [Pointer; MOST],
    allocated: Set,
    root: Pointer,
    weak: Pointer,
    /// The object with the finalizer, before that is queued.
    finalizer: Pointer,
    queued: Pointer,
    marked: Set,
    grey: Set,
    /// Slots that this cycle's sweep has been at.
    swept: Set,
    waiting: Set,
    dirty: bool,
    mutators: [Mutator; MOST],
}

impl State {
    /// Marks `found` and makes grey what was not marked before. In a round, that dirties it.
    fn shade(&mut self, found: Set) {
        let fresh = found.minus(self.marked);
        self.marked = self.marked.or(fresh);
        self.grey = self.grey.or(fresh);
        self.dirty |= self.stage == Stage::Round && !fresh.is_empty();
    }

    /// Hands over the buffer of mutator `i`. What comes after the end of marking is dropped.
    fn flush(&mut self, i: u8) {
        let buffer = std::mem::take(&mut self.mutators[i as usize].buffer);
        if self.stage <= Stage::Round {
            self.shade(buffer);
        }
    }

    fn load(&self, place: Option<u8>) -> Pointer {
        place.map_or(self.root, |x| self.fields[x as usize])
    }

    /// What must not be freed.
    fn live(&self) -> Set {
        let held = self.mutators.iter().fold(Set::EMPTY, |all, m| all.or(m.held));
        reachable(&self.fields, held.or(Set::of(self.root)).or(Set::of(self.queued)))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} root={}", self.stage, Operand::value(self.root))?;
        write!(f, " weak={}", Operand::value(self.weak))?;
        if self.finalizer.or(self.queued).is_some() {
            write!(f, " finalizer={}", Operand::value(self.finalizer))?;
            write!(f, " queued={}", Operand::value(self.queued))?;
        }
        for x in self.allocated.iter() {
            write!(f, " #{x}={}", Operand::value(self.fields[x as usize]))?;
        }
        write!(f, " marked={:?} grey={:?} swept={:?}", self.marked, self.grey, self.swept)?;
        write!(f, " waiting={:?} dirty={}", self.waiting, u8::from(self.dirty))?;
        for (i, m) in self.mutators.iter().enumerate().filter(|(_, m)| m.inside) {
            write!(f, " | m{i}({}) holds {:?} buffer {:?}", m.epoch, m.held, m.buffer)?;
            if m.upgrade != Upgrade::None {
                write!(f, " upgrade {:?}{}", m.upgrade, Operand::value(m.target))?;
            }
        }
        Ok(())
    }
}

impl Weak {
    /// The protocol as decided.
    pub(crate) fn decided(objects: u8, mutators: u8, held: u32) -> Self {
        Self { objects, mutators, held, finalizer: false, variant: Variant::Decided }
    }

    fn active(&self, s: &State) -> Set {
        (0..self.mutators).filter(|&i| s.mutators[i as usize].inside).fold(Set::EMPTY, Set::with)
    }

    /// Leaving, forgetting, allocating, making the weak pointer and the finalizer.
    fn moves(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        let mut next = *s;
        next.flush(i);
        next.waiting = next.waiting.without(i);
        next.mutators[i as usize] = Mutator::default();
        visit(Step::mutator(i, "leaves"), next);
        for x in m.held.iter() {
            let mut next = *s;
            next.mutators[i as usize].held = m.held.without(x);
            visit(Step::mutator(i, "forgets").on(Operand::Object(x)), next);
            if s.stage == Stage::Before && s.weak.is_none() {
                let next = State { weak: Some(x), ..*s };
                visit(Step::mutator(i, "makes a weak pointer to").on(Operand::Object(x)), next);
            }
            if self.finalizer && s.stage == Stage::Before && s.finalizer.is_none() {
                let next = State { finalizer: Some(x), ..*s };
                visit(Step::mutator(i, "gives a finalizer to").on(Operand::Object(x)), next);
            }
        }
        // After the cycle, slots are free when they are swept, and for closures of then.
        let may = |x: &u8| match s.stage {
            Stage::After => m.epoch == 0 && s.swept.contains(*x),
            stage => stage <= Stage::Round,
        };
        let free = (0..self.objects).filter(may).find(|&x| !s.allocated.contains(x));
        if let Some((x, more)) = free.and_then(|x| Some((x, m.held.hold(Some(x), self.held)?))) {
            let mut next = *s;
            next.allocated = next.allocated.with(x);
            let my = &mut next.mutators[i as usize];
            my.held = more;
            if m.epoch == 3 || s.stage == Stage::After {
                next.marked = next.marked.with(x);
            } else if m.epoch == 2 {
                my.buffer = my.buffer.with(x);
            }
            visit(Step::mutator(i, "allocates").on(Operand::Object(x)), next);
        }
    }

    /// Loads and stores.
    fn fields(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        for place in std::iter::once(None).chain(m.held.iter().map(Some)) {
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
                if m.epoch >= 1 {
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

    /// An upgrade, as far as the closure's phase lets it come in one step.
    fn upgrades(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        let Some(more) = m.held.hold(s.weak, self.held).filter(|more| *more != m.held) else {
            return;
        };
        let mut next = *s;
        let my = &mut next.mutators[i as usize];
        if m.epoch == 3 {
            (my.upgrade, my.target, my.gone) = (Upgrade::Loaded, s.weak, false);
            visit(Step::mutator(i, "loads the handle").on(Operand::value(s.weak)), next);
        } else {
            my.held = more;
            if m.epoch >= 1 {
                my.buffer = my.buffer.or(Set::of(s.weak));
            }
            visit(Step::mutator(i, "upgrades").on(Operand::value(s.weak)), next);
        }
    }

    /// The next step of an upgrade that is under way.
    fn goes_on(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        let mut next = *s;
        let my = &mut next.mutators[i as usize];
        let marked = m.target.is_some_and(|x| s.marked.contains(x));
        let (verb, result) = match m.upgrade {
            Upgrade::None => return,
            Upgrade::Loaded if !marked => ("sees it unmarked", None),
            Upgrade::Loaded if self.variant == Variant::NoReload => ("returns", m.target),
            Upgrade::Loaded => ("sees it marked", None),
            Upgrade::SeenMarked => {
                // A handle is never pointed elsewhere: what it has is the target, or nothing.
                my.gone = m.gone && s.weak.is_some();
                ("loads the handle again", s.weak)
            }
            Upgrade::SeenUnmarked if s.stage >= Stage::Final && marked && self.looks_twice() => {
                ("sees it marked by now", None)
            }
            Upgrade::SeenUnmarked => {
                let may = s.stage < Stage::Final || self.variant == Variant::FinalIgnored;
                let result = m.target.filter(|_| may);
                if self.variant == Variant::MarkedWithoutPush {
                    next.marked = next.marked.or(Set::of(result));
                } else {
                    next.shade(Set::of(result));
                }
                ("asks under the lock for", result)
            }
        };
        let my = &mut next.mutators[i as usize];
        if verb.starts_with("sees it") {
            my.upgrade = if marked { Upgrade::SeenMarked } else { Upgrade::SeenUnmarked };
        } else {
            let gone = my.gone;
            let held = m.held.or(Set::of(result));
            *my = Mutator { held, upgrade: Upgrade::None, target: None, gone: false, ..m };
            if gone && result.is_some() {
                next.stage = Stage::Faulty(Fault::WrongObject);
            } else if result.is_none() && s.weak == m.target && marked {
                next.stage = Stage::Faulty(Fault::NotForEver);
            }
        }
        visit(Step::mutator(i, verb).on(Operand::value(result)), next);
    }

    /// Whether an upgrade that comes after the declaration looks at the mark again.
    fn looks_twice(&self) -> bool {
        !matches!(self.variant, Variant::NoSecondLook | Variant::FinalIgnored)
    }

    /// From the first phase to the clean round.
    fn collects(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        let mut next = *s;
        next.waiting = self.active(s);
        match s.stage {
            Stage::Before => {
                next.stage = Stage::ArmingA;
                visit(Step::collector("publishes 1"), next);
            }
            Stage::ArmingA if s.waiting.is_empty() => {
                next.stage = Stage::ArmingB;
                visit(Step::collector("publishes 2"), next);
            }
            Stage::ArmingB if s.waiting.is_empty() => {
                (next.stage, next.waiting) = (Stage::Snapshot, Set::EMPTY);
                visit(Step::collector("publishes 3"), next);
            }
            Stage::Snapshot => {
                (next.stage, next.waiting) = (Stage::Marking, Set::EMPTY);
                next.shade(Set::of(s.root));
                visit(Step::collector("scans the root"), next);
            }
            Stage::Marking if s.grey.is_empty() => {
                next.stage = Stage::Round;
                visit(Step::collector("begins a round"), next);
            }
            Stage::Round if s.grey.is_empty() && s.waiting.is_empty() => {
                next.stage = match (s.dirty, self.variant) {
                    (true, _) => Stage::Marking,
                    (false, Variant::DeclaredWithoutLock) => Stage::Clean,
                    (false, _) => Stage::Final,
                };
                (next.waiting, next.dirty) = (Set::EMPTY, false);
                visit(Step::collector("ends the round"), next);
            }
            Stage::Clean => {
                (next.stage, next.waiting) = (Stage::Final, Set::EMPTY);
                visit(Step::collector("declares it final"), next);
            }
            Stage::Final | Stage::Reviving | Stage::After => self.ends(s, visit),
            _ => {}
        }
        if s.stage < Stage::After {
            for x in s.grey.iter().filter(|_| s.stage >= Stage::Marking) {
                self.scans(s, x, visit);
            }
        }
    }

    fn scans(&self, s: &State, x: u8, visit: &mut impl FnMut(Step, State)) {
        if matches!(s.stage, Stage::Clean | Stage::Final) {
            // There is nothing grey, as far as the collector knows.
            return;
        }
        let mut next = *s;
        if s.stage == Stage::Round {
            (next.stage, next.waiting, next.dirty) = (Stage::Marking, Set::EMPTY, false);
        }
        next.grey = next.grey.without(x);
        next.shade(Set::of(s.fields[x as usize]));
        visit(Step::collector("scans").on(Operand::Object(x)), next);
    }
}

impl Model for Weak {
    type State = State;
    type Fault = Fault;

    fn start(&self) -> State {
        State {
            stage: Stage::Before,
            fields: [None; MOST],
            allocated: Set::EMPTY,
            root: None,
            weak: None,
            finalizer: None,
            queued: None,
            marked: Set::EMPTY,
            grey: Set::EMPTY,
            swept: Set::EMPTY,
            waiting: Set::EMPTY,
            dirty: false,
            mutators: [Mutator::default(); MOST],
        }
    }

    fn pack(&self, s: &State) -> Packer {
        let mut p = Packer::default();
        let objects = u32::from(self.objects);
        let stage = Stage::ALL.iter().position(|stage| *stage == s.stage).expect("listed");
        p.bits(stage as u64, 4);
        for pointer in [s.root, s.weak] {
            p.pointer(pointer);
        }
        if self.finalizer {
            p.pointer(s.finalizer);
            p.pointer(s.queued);
        }
        for x in 0..self.objects as usize {
            p.pointer(s.fields[x]);
        }
        for set in [s.allocated, s.marked, s.grey, s.swept] {
            p.set(set, objects);
        }
        p.flag(s.dirty);
        for (i, m) in (0..self.mutators).zip(&s.mutators) {
            p.member();
            p.flag(s.waiting.contains(i));
            p.flag(m.inside);
            p.epoch(m.epoch);
            p.set(m.held, objects);
            p.set(m.buffer, objects);
            p.bits(m.upgrade as u64, 2);
            p.pointer(m.target);
            p.flag(m.gone);
        }
        p
    }

    fn unpack(&self, word: u64) -> State {
        let mut u = Unpacker::new(word);
        let objects = u32::from(self.objects);
        let mut s = self.start();
        s.stage = Stage::ALL[u.bits(4) as usize];
        s.root = u.pointer();
        s.weak = u.pointer();
        if self.finalizer {
            s.finalizer = u.pointer();
            s.queued = u.pointer();
        }
        for x in 0..self.objects as usize {
            s.fields[x] = u.pointer();
        }
        s.allocated = u.set(objects);
        s.marked = u.set(objects);
        s.grey = u.set(objects);
        s.swept = u.set(objects);
        s.dirty = u.flag();
        for (i, m) in (0..self.mutators).zip(&mut s.mutators) {
            s.waiting = if u.flag() { s.waiting.with(i) } else { s.waiting };
            m.inside = u.flag();
            m.epoch = u.epoch();
            m.held = u.set(objects);
            m.buffer = u.set(objects);
            let upgrades =
                [Upgrade::None, Upgrade::Loaded, Upgrade::SeenMarked, Upgrade::SeenUnmarked];
            m.upgrade = upgrades[u.bits(2) as usize];
            m.target = u.pointer();
            m.gone = u.flag();
        }
        s
    }

    fn steps(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        if matches!(s.stage, Stage::Faulty(_)) {
            return;
        }
        for i in 0..self.mutators {
            let m = s.mutators[i as usize];
            if !m.inside {
                let mut next = *s;
                let epoch = s.stage.epoch();
                next.mutators[i as usize] = Mutator { inside: true, epoch, ..Mutator::default() };
                visit(Step::mutator(i, "enters"), next);
            } else if m.upgrade != Upgrade::None {
                self.goes_on(s, i, visit);
            } else {
                self.moves(s, i, visit);
                self.fields(s, i, visit);
                self.upgrades(s, i, visit);
                if let Some(more) = m.held.hold(s.queued, self.held).filter(|_| m.epoch == 0) {
                    if s.queued.is_some() && s.stage == Stage::After {
                        let mut next = State { queued: None, ..*s };
                        next.mutators[i as usize].held = more;
                        visit(Step::mutator(i, "runs the finalizer"), next);
                    }
                }
            }
        }
        self.collects(s, visit);
    }

    fn fault(&self, s: &State) -> Option<Fault> {
        match s.stage {
            Stage::Faulty(fault) => Some(fault),
            _ => None,
        }
    }
}
