//! The third model: who sweeps a span, and what its bits say, over any number of cycles.
//!
//! # What is modelled
//! Spans with a few slots each, and mutators that allocate from spans that they own:
//!
//! * **Two tables of bits**, which change roles with each generation. In a span that is swept, one says which
//!   slots are allocated and the other takes the marks of the next cycle. When the generation moves
//!   on, every span is stale at once; sweeping it makes its marks the allocation bits, and clears the
//!   other table.
//! * **Caches.** A mutator owns one span at a time. It takes *runs* of free slots, which get their
//!   allocation bits at once (in a closure of phase 3 the marks too, if the span is of the closure's
//!   generation), and hands out the slots of the run one by one. What is left of a run loses its bits when
//!   the span is given back.
//! * **The phase word** is read in a step of its own, after the mutator has published that it is inside; and
//!   the caches are brought up to it in another one, under their lock, if they were filled under another word.
//! * **The collector** takes stale caches of mutators that it sees outside (K2a: looking and taking are two
//!   steps under the lock), and all that are left when the first grace period of a cycle is over (K2b). It
//!   sweeps what nobody owns, and only then notes for whom the second grace period waits. Beginning the
//!   generation and publishing phase 0 are two steps; closures that begin in between are of phase 3 and
//!   of the generation that has just ended.
//! * **Sweeping** is taking the span, and then sweeping it, by the collector or by a mutator in need.
//!
//! Marking itself is the subject of the other models. Here it marks in one step, when phase 3 is published,
//! whatever the root or a closure holds then, and at its end what closures of phase 2 have buffered.
//! So what is allocated in phase 3 has nothing but its run to live by. Objects have no fields.
//!
//! # What is checked
//! No live object is freed ([`Fault::Freed`]), and no slot that holds one is handed out again
//! ([`Fault::HandedOutTwice`]). When marking begins, every span is swept ([`Fault::Unswept`]) and no bit
//! of the table for marks is set ([`Fault::DirtyMarks`]). An allocation bit after a sweep stands for an object or a
//! slot of a run ([`Fault::Phantom`]): a phantom would be scanned, and its bits taken for pointers.
//!
//! # What is not modelled
//! Weak memory, scanned bits, pages that are freed and become spans of another class, and destructors.
//!
//! # How to read a trail
//! `stale` spans wait to be swept; `bits` are the two tables of slots, that of allocation first (of a swept
//! span). `m0(3-)` is mutator 0 in a closure of phase 3 whose generation is over.
//!
//! # Locking
//! None: plain values, one thread.

#[path = "sweeping/collector.rs"]
mod collector;

use crate::explore::Model;
use crate::vocabulary::{MOST, Operand, Packer, Pointer, Set, Step, Unpacker};
use std::fmt;

/// The protocol as decided, or with one rule broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Variant {
    Decided,
    /// Whoever sweeps takes stale spans out of caches, too.
    SweepsCachedSpans,
    /// The caches of mutators that are outside are looked for before phase 0 is published.
    TakesBeforePublication,
    /// All stale caches are taken when phase 1 is published, and not after its grace period.
    TakesWithoutGrace,
    /// The second grace period is for those who are inside when phase 2 is published.
    NotesBeforeSweeping,
    /// A mutator that enters in a new generation keeps its span.
    KeepsOldSpan,
    /// Runs are white in phase 3.
    WhiteRuns,
    /// Runs are black in closures of phase 3, even when the generation is over.
    BlackForever,
    /// The rest of a run that is given back keeps its marks.
    RestStaysMarked,
}

/// An instance of the model.
pub(crate) struct Sweeping {
    pub(crate) spans: u8,
    /// Slots of each span.
    pub(crate) slots: u8,
    pub(crate) mutators: u8,
    /// The number of objects that a closure can hold.
    pub(crate) held: u32,
    pub(crate) variant: Variant,
}

/// How a state can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A sweep has freed an object that the root or a closure holds.
    Freed,
    /// A slot was handed out that holds such an object.
    HandedOutTwice,
    /// Phase 3 began with a span that was not swept.
    Unswept,
    /// Phase 3 began with a mark.
    DirtyMarks,
    /// A slot counts as allocated, and holds nothing.
    Phantom,
}

/// Where the collector is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Idle,
    ArmingA,
    /// Phase 2, before the grace period begins.
    Leftovers,
    ArmingB,
    Marking,
    Round,
    /// The generation has begun, and phase 3 is published still.
    Begun,
    Faulty(Fault),
}

impl Stage {
    const ALL: [Stage; 12] = [
        Stage::Idle,
        Stage::ArmingA,
        Stage::Leftovers,
        Stage::ArmingB,
        Stage::Marking,
        Stage::Round,
        Stage::Begun,
        Stage::Faulty(Fault::Freed),
        Stage::Faulty(Fault::HandedOutTwice),
        Stage::Faulty(Fault::Unswept),
        Stage::Faulty(Fault::DirtyMarks),
        Stage::Faulty(Fault::Phantom),
    ];
}

/// A phase word: a phase, and whether its generation is over.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Word {
    phase: u8,
    old: bool,
}

/// How far a mutator has come with entering.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Place {
    #[default]
    Outside,
    /// It has published that it is inside.
    Published,
    /// It has read the phase word, and its caches are of another one.
    Changing,
    Inside,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Mutator {
    place: Place,
    word: Word,
    /// The word under which the caches were filled.
    filled: Option<Word>,
    span: Option<u8>,
    /// The span is being swept, and nothing is allocated from it yet.
    sweeping: bool,
    /// What is left of the run.
    run: Set,
    held: Set,
    /// The collector has the lock of the caches, and has seen the mutator outside.
    locked: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    stage: Stage,
    /// Which table has the allocation bits of swept spans.
    current: bool,
    stale: Set,
    bits: [Set; 2],
    /// The slots that hold an object, dead or alive.
    objects: Set,
    root: Pointer,
    grey: Set,
    waiting: Set,
    /// The span that the collector sweeps.
    sweeping: Option<u8>,
    mutators: [Mutator; MOST],
}

impl State {
    fn held(&self) -> Set {
        self.mutators.iter().fold(Set::EMPTY, |all, m| all.or(m.held))
    }

    fn live(&self) -> Set {
        self.held().or(Set::of(self.root))
    }

    /// The phase word that is published.
    fn word(&self) -> Word {
        let phase = match self.stage {
            Stage::Idle | Stage::Faulty(_) => 0,
            Stage::ArmingA => 1,
            Stage::Leftovers | Stage::ArmingB => 2,
            Stage::Marking | Stage::Round | Stage::Begun => 3,
        };
        Word { phase, old: self.stage == Stage::Begun }
    }

    /// The table with the allocation bits of `span`.
    fn allocation_of(&self, span: u8) -> usize {
        usize::from(self.current) ^ usize::from(self.stale.contains(span))
    }

    /// The table with the marks of a cycle that runs now, or ran last if the span is stale.
    fn marks_of(&self, span: u8) -> usize {
        1 - self.allocation_of(span)
    }

    fn is_owned(&self, span: u8) -> bool {
        self.sweeping == Some(span) || self.mutators.iter().any(|m| m.span == Some(span))
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = usize::from(self.current);
        write!(f, "{:?} root={}", self.stage, Operand::value(self.root))?;
        write!(f, " stale={:?}", self.stale)?;
        write!(f, " bits={:?}/{:?}", self.bits[current], self.bits[1 - current])?;
        write!(f, " objects={:?} waiting={:?}", self.objects, self.waiting)?;
        if let Some(span) = self.sweeping {
            write!(f, " sweeping #{span}")?;
        }
        for (i, m) in self.mutators.iter().enumerate().filter(|(_, m)| **m != Mutator::default()) {
            let age = if m.word.old { "-" } else { "" };
            write!(f, " | m{i}({}{age}) {:?} holds {:?}", m.word.phase, m.place, m.held)?;
            if let Some(span) = m.span {
                let verb = if m.sweeping { "sweeps" } else { "owns" };
                write!(f, " {verb} #{span} run {:?}", m.run)?;
            }
        }
        Ok(())
    }
}

impl Sweeping {
    /// The protocol as decided.
    pub(crate) fn decided(spans: u8, slots: u8, mutators: u8, held: u32) -> Self {
        Self { spans, slots, mutators, held, variant: Variant::Decided }
    }

    fn active(&self, s: &State) -> Set {
        let inside = |&i: &u8| s.mutators[i as usize].place != Place::Outside;
        (0..self.mutators).filter(inside).fold(Set::EMPTY, Set::with)
    }

    fn slots_of(&self, span: u8) -> Set {
        (span * self.slots..(span + 1) * self.slots).fold(Set::EMPTY, Set::with)
    }

    fn all_slots(&self) -> u32 {
        u32::from(self.spans * self.slots)
    }

    fn free_of(&self, s: &State, span: u8) -> Set {
        self.slots_of(span).minus(s.bits[s.allocation_of(span)])
    }

    /// Mutator `i` gives its span back, or it is taken from it.
    fn give_back(&self, s: &mut State, i: u8) {
        let m = s.mutators[i as usize];
        let Some(span) = m.span else { return };
        let (allocation, marks) = (s.allocation_of(span), s.marks_of(span));
        s.bits[allocation] = s.bits[allocation].minus(m.run);
        if self.variant != Variant::RestStaysMarked {
            s.bits[marks] = s.bits[marks].minus(m.run);
        }
        let my = &mut s.mutators[i as usize];
        (my.span, my.run, my.sweeping) = (None, Set::EMPTY, false);
    }

    fn sweep(&self, s: &mut State, span: u8) {
        let slots = self.slots_of(span);
        let (old, new) = (s.allocation_of(span), s.marks_of(span));
        s.bits[old] = s.bits[old].minus(slots);
        s.stale = s.stale.without(span);
        let dead = slots.minus(s.bits[new]);
        let runs = s.mutators.iter().fold(Set::EMPTY, |all, m| all.or(m.run));
        if !dead.and(s.live()).is_empty() {
            s.stage = Stage::Faulty(Fault::Freed);
        } else if !slots.minus(dead).minus(s.objects).minus(runs).is_empty() {
            s.stage = Stage::Faulty(Fault::Phantom);
        }
        s.objects = s.objects.minus(dead);
    }

    /// Entering, by steps.
    fn enters(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        let mut next = *s;
        let my = &mut next.mutators[i as usize];
        match m.place {
            Place::Outside => {
                my.place = Place::Published;
                visit(Step::mutator(i, "enters"), next);
            }
            Place::Published => {
                my.word = s.word();
                let same = m.filled == Some(my.word);
                my.place = if same { Place::Inside } else { Place::Changing };
                visit(Step::mutator(i, "reads the phase"), next);
            }
            Place::Changing if !m.locked => {
                my.place = Place::Inside;
                my.filled = Some(m.word);
                if self.variant != Variant::KeepsOldSpan {
                    self.give_back(&mut next, i);
                }
                visit(Step::mutator(i, "brings its caches up"), next);
            }
            _ => {}
        }
    }

    /// Leaving, forgetting, the root.
    fn moves(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        let mut left = *s;
        let my = &mut left.mutators[i as usize];
        (my.place, my.word, my.held) = (Place::Outside, Word::default(), Set::EMPTY);
        left.waiting = left.waiting.without(i);
        visit(Step::mutator(i, "leaves"), left);
        for x in m.held.iter() {
            let mut next = *s;
            next.mutators[i as usize].held = m.held.without(x);
            visit(Step::mutator(i, "forgets").on(Operand::Object(x)), next);
        }
        for new in std::iter::once(None).chain(m.held.iter().map(Some)) {
            if new != s.root {
                let next = State { root: new, ..*s };
                visit(Step::mutator(i, "stores in the root").on(Operand::value(new)), next);
            }
        }
        if let Some(more) = m.held.hold(s.root, self.held).filter(|more| *more != m.held) {
            let mut next = *s;
            next.mutators[i as usize].held = more;
            visit(Step::mutator(i, "reads the root").on(Operand::value(s.root)), next);
        }
    }

    /// Taking spans, runs and slots.
    fn allocates(&self, s: &State, i: u8, visit: &mut impl FnMut(Step, State)) {
        let m = s.mutators[i as usize];
        let Some(span) = m.span else {
            for span in (0..self.spans).filter(|&span| !s.is_owned(span)) {
                let stale = s.stale.contains(span);
                if stale || !self.free_of(s, span).is_empty() {
                    let mut next = *s;
                    let my = &mut next.mutators[i as usize];
                    (my.span, my.sweeping) = (Some(span), stale);
                    let verb = if stale { "takes, to sweep it," } else { "takes" };
                    visit(Step::mutator(i, verb).on(Operand::Object(span)), next);
                }
            }
            return;
        };
        let mut next = *s;
        if let Some((x, more)) = m.run.first().zip(m.held.hold(m.run.first(), self.held)) {
            let my = &mut next.mutators[i as usize];
            (my.run, my.held) = (m.run.without(x), more);
            next.objects = s.objects.with(x);
            if m.word.phase == 2 {
                next.grey = s.grey.with(x);
            }
            if s.live().contains(x) {
                next.stage = Stage::Faulty(Fault::HandedOutTwice);
            }
            visit(Step::mutator(i, "allocates").on(Operand::Object(x)), next);
        } else if m.run.is_empty() {
            let free = self.free_of(s, span);
            if free.is_empty() {
                self.give_back(&mut next, i);
                visit(Step::mutator(i, "gives back").on(Operand::Object(span)), next);
            } else {
                self.take_run(&mut next, i, span, free);
                visit(Step::mutator(i, "takes a run of").on(Operand::Object(span)), next);
            }
        }
    }

    /// The first free slots that lie side by side.
    fn take_run(&self, s: &mut State, i: u8, span: u8, free: Set) {
        let from = free.first().unwrap_or(0);
        let run = (from..8).take_while(|&x| free.contains(x)).fold(Set::EMPTY, Set::with);
        let my = &mut s.mutators[i as usize];
        my.run = run;
        let same_generation = s.stale.contains(span) == my.word.old;
        let black = my.word.phase == 3
            && (same_generation || self.variant == Variant::BlackForever)
            && self.variant != Variant::WhiteRuns;
        let (allocation, marks) = (s.allocation_of(span), s.marks_of(span));
        s.bits[allocation] = s.bits[allocation].or(run);
        if black {
            s.bits[marks] = s.bits[marks].or(run);
        }
    }
}

impl Model for Sweeping {
    type State = State;
    type Fault = Fault;

    fn start(&self) -> State {
        State {
            stage: Stage::Idle,
            current: false,
            stale: Set::EMPTY,
            bits: [Set::EMPTY; 2],
            objects: Set::EMPTY,
            root: None,
            grey: Set::EMPTY,
            waiting: Set::EMPTY,
            sweeping: None,
            mutators: [Mutator::default(); MOST],
        }
    }

    fn pack(&self, s: &State) -> Packer {
        let mut p = Packer::default();
        let slots = self.all_slots();
        let stage = Stage::ALL.iter().position(|stage| *stage == s.stage).expect("listed");
        p.bits(stage as u64, 4);
        p.flag(s.current);
        p.set(s.stale, u32::from(self.spans));
        p.set(s.bits[0], slots);
        p.set(s.bits[1], slots);
        p.set(s.objects, slots);
        p.bits(s.root.map_or(0, |x| u64::from(x) + 1), 3);
        p.set(s.grey, slots);
        p.pointer(s.sweeping);
        for (i, m) in (0..self.mutators).zip(&s.mutators) {
            p.member();
            p.flag(s.waiting.contains(i));
            p.bits(m.place as u64, 2);
            p.epoch(m.word.phase);
            p.flag(m.word.old);
            p.flag(m.filled.is_some());
            let filled = m.filled.unwrap_or_default();
            p.epoch(filled.phase);
            p.flag(filled.old);
            p.pointer(m.span);
            p.flag(m.sweeping);
            p.set(m.run, slots);
            p.set(m.held, slots);
            p.flag(m.locked);
        }
        p
    }

    fn unpack(&self, word: u64) -> State {
        let mut u = Unpacker::new(word);
        let slots = self.all_slots();
        let mut s = self.start();
        s.stage = Stage::ALL[u.bits(4) as usize];
        s.current = u.flag();
        s.stale = u.set(u32::from(self.spans));
        s.bits = [u.set(slots), u.set(slots)];
        s.objects = u.set(slots);
        s.root = u.bits(3).checked_sub(1);
        s.grey = u.set(slots);
        s.sweeping = u.pointer();
        for (i, m) in (0..self.mutators).zip(&mut s.mutators) {
            s.waiting = if u.flag() { s.waiting.with(i) } else { s.waiting };
            let places = [Place::Outside, Place::Published, Place::Changing, Place::Inside];
            m.place = places[u.bits(2) as usize];
            m.word = Word { phase: u.epoch(), old: u.flag() };
            let is_filled = u.flag();
            let filled = Word { phase: u.epoch(), old: u.flag() };
            m.filled = is_filled.then_some(filled);
            m.span = u.pointer();
            m.sweeping = u.flag();
            m.run = u.set(slots);
            m.held = u.set(slots);
            m.locked = u.flag();
        }
        s
    }

    fn steps(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        for i in 0..self.mutators {
            let m = s.mutators[i as usize];
            if m.place != Place::Inside {
                self.enters(s, i, visit);
            } else if let Some(span) = m.span.filter(|_| m.sweeping) {
                let mut next = *s;
                next.mutators[i as usize].sweeping = false;
                self.sweep(&mut next, span);
                visit(Step::mutator(i, "sweeps").on(Operand::Object(span)), next);
            } else {
                self.moves(s, i, visit);
                self.allocates(s, i, visit);
            }
        }
        self.takes_caches(s, visit);
        self.sweeps(s, visit);
        self.collects(s, visit);
    }

    fn fault(&self, s: &State) -> Option<Fault> {
        match s.stage {
            Stage::Faulty(fault) => Some(fault),
            _ => None,
        }
    }
}
