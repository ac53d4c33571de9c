//! The fifth model: arenas whose memory is taken away while others may still point into it.
//!
//! # What is modelled
//! Any number of cycles. Heap objects have one field, and so have the *values* of arenas. A value is marked and
//! scanned like an object, but no sweep frees it: its memory goes with its arena, when the program frees that.
//! Each arena is one chunk of memory here. A chunk is
//!
//! ```text
//!   open --free--> flagged --1 published, or a grace period begins--> doomed --it is over--> freed
//!    |                                                                                         | marking complete,
//!    '-abandon--> abandoned --1 published--> orphan                                            | no mark in it
//!                                              |                                               v
//!                                              '--------marking complete, no mark in it-----> open, and new
//! ```
//! * **Pointers and references.** A closure may hold a pointer to a value whatever has become of the chunk. To
//!   look inside it *gets a reference*, which is refused if the chunk is flagged, and which it then
//!   may use to its end: it loads from the value and stores into it, with the barrier, whether or not the chunk
//!   has been flagged meanwhile. `free` may come at any moment, from anywhere.
//! * **New values.** Closures that were inside while the chunk was open may have leased it, and go on allocating in
//!   it after it is flagged or abandoned. New values are black in phase 3, like objects, and white else: also in phase 2
//!   (*pale*), where objects are grey.
//! * **Dead for marking.** From the moment that a chunk is doomed, marking a pointer into it sets the mark bit, and nobody
//!   scans the value. A chunk is doomed before phase 1 is published, if it was flagged by then (the
//!   *snapshot rule*), or outside of a cycle.
//! * **Its memory goes** at the end of the first grace period, or of one that the collector makes between two
//!   cycles, which is given up if a cycle begins.
//! * **Its address is used again** when its memory had gone before marking began, and marking is complete and has set no
//!   mark bit in the chunk. A cycle may also break, and retain everything: then it says nothing.
//! * **Abandoned** chunks are judged likewise, if they were abandoned before phase 1 was published. They need neither
//!   a flag nor a grace period.
//! * **Mark bits** of values are cleared at the end of the first grace period. Closures of phase 3 that are still
//!   open after their cycle (*late* ones) set bits for what they allocate until then.
//!
//! * **Clean chunks.** Where [`Arenas::counts`] says so, bits are cleared only in chunks that are not known to be clean
//!   (`heap/user_arena/clean.rs`). A chunk is known to be clean from when they were cleared, or since a closure of phase 0
//!   or 1 got it; until marking begins the next time, or a closure of phase 3 allocates in it, late or not.
//!
//! What objects the end of marking finds unmarked is swept in the same step, and the barrier is one step; the first
//! and the third model have both in detail.
//!
//! # What is checked
//! * No object is swept that is reachable ([`Fault::Lost`]). A value leads on to what it points to if its chunk
//!   is not flagged, or if a closure has a reference to it.
//! * No memory goes of a value that a closure has a reference to ([`Fault::TornAway`]), and the collector reads no
//!   memory that is gone ([`Fault::ScannedFreed`]).
//! * When an address is used again, no root, object or closure has a pointer to the old value, nor has a value that
//!   anything leads to ([`Fault::Reused`]); a value that nothing leads to may have one, but is never
//!   scanned again ([`Fault::ScannedStale`]).
//! * No abandoned arena goes while a closure may allocate in it ([`Fault::InUse`]).
//! * What is passed over because it is clean has no mark bits ([`Fault::Unclean`]).
//! * No round is dirtied by a value that a closure of phase 3 has made ([`Fault::Endless`], where
//!   [`Arenas::progress`] says so). What existed before can dirty only as many rounds as there is of it, so marking
//!   ends, whatever the program goes on to allocate.
//! * At the end of marking every value that somebody can get at or has a pointer to is marked, but for pale ones, and so is
//!   what is left in buffers ([`Fault::Unmarked`], where [`Arenas::complete`] says so). Nothing above needs that, but
//!   checkmark mode does, which looks for unmarked things that are reachable.
//!
//! # What was found
//! White values in phase 3, and in phase 2, lose nothing: no sweep frees them, and whatever a closure puts into them
//! it held. So the ones of phase 2 are white: to hand them over, mark and scan them was a fifth of what arenas cost.
//! But white ones of phase 3 break the rule for rounds: a program that goes on storing new values where it
//! overwrites the ones before keeps marking from ending, for ever.
//!
//! # What is not modelled
//! Weak memory (the interleavings' tests have that), arenas of several chunks, leases as such, that words of mark bits
//! are set ahead, revival, and the lists of chunks with their locks.
//!
//! # How to read a trail
//! As in the first model; numbers from that of the first value on are values. `refs` are the references of a closure,
//! epoch 4 is a late closure, `writes` are the chunks that it may still allocate in.
//!
//! # Locking
//! None: plain values, one thread.

#[path = "arenas/checks.rs"]
mod checks;
#[path = "arenas/collector.rs"]
mod collector;
#[path = "arenas/mutator.rs"]
mod mutator;

use crate::explore::Model;
use crate::vocabulary::{MOST, Operand, Packer, Pointer, Set, Step, Unpacker};
use std::fmt;

/// The most arenas that a state has room for.
const MOST_ARENAS: usize = 2;

/// The epoch of a closure of phase 3 whose cycle is over.
const LATE: u8 = 4;

/// The protocol as decided, or with one rule broken or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Variant {
    Decided,
    /// Values of phase 3 are not marked. Nothing is lost by that, but marking need not end.
    White,
    /// Values of phase 2 are buffered, as objects are. Then marks are complete.
    GreyInArmingB,
    /// Values of phase 2 are marked, and never scanned.
    BlackInArmingB,
    /// A chunk is dead for marking as soon as it is flagged.
    DeadAtOnce,
    /// Outside of a cycle, memory goes without a grace period.
    FreedAtOnce,
    /// Memory goes at the end of a grace period that had begun when the chunk was flagged.
    GraceTooOld,
    /// Memory goes while marking is under way, when no closure has a reference.
    FreedWhileMarking,
    /// An address is used again by the verdict of a cycle that was over before the chunk was freed.
    OldVerdict,
    /// The verdict comes when nothing is grey for the first time, not after a clean round.
    VerdictBeforeRound,
    /// A cycle that has broken gives a verdict, too.
    BrokenVerdict,
    /// A chunk stays clean when marking begins.
    CleanWhileMarking,
    /// A chunk stays clean when a closure of phase 3 allocates in it.
    CleanWhenBlack,
    /// A chunk is clean when a closure of phase 2 has got it.
    CleanWhenPale,
    /// Mark bits are cleared before phase 1 is published.
    ClearedEarly,
    /// An arena that was abandoned after phase 1 was published is judged by this cycle.
    AbandonedLate,
    /// The values of a chunk are scanned whether they are marked or not.
    ScansUnmarked,
}

/// An instance of the model.
pub(crate) struct Arenas {
    /// The number of heap objects. They come before the values.
    pub(crate) objects: u8,
    pub(crate) values: u8,
    /// One arena for all values, or one for each.
    pub(crate) arenas: u8,
    pub(crate) mutators: u8,
    /// The number of objects and values that a closure can hold.
    pub(crate) held: u32,
    /// Whether a cycle may break.
    pub(crate) breaks: bool,
    /// Whether arenas may be abandoned.
    pub(crate) abandons: bool,
    /// Whether it is checked what dirties rounds.
    pub(crate) progress: bool,
    /// Whether it is checked that marks are complete.
    pub(crate) complete: Complete,
    /// Whether bits are not cleared in chunks that are clean.
    pub(crate) counts: bool,
    pub(crate) variant: Variant,
}

/// Which values have to be marked when marking ends, if somebody can get at them or has a pointer to them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Complete {
    Unasked,
    /// All but those of closures of phase 2.
    ButPale,
    All,
}

/// How a state can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Fault {
    /// An object was swept that the root or a closure reaches.
    Lost,
    /// Memory went of a value that a closure has a reference to.
    TornAway,
    /// The collector has read memory that is gone.
    ScannedFreed,
    /// An address was used again that somebody has a pointer to.
    Reused,
    /// The collector has read a pointer to what lay at an address before.
    ScannedStale,
    /// An abandoned arena went while a closure could allocate in it.
    InUse,
    /// A value that the program can get at, or a pointer to one, or something that is still in a buffer, is not marked at
    /// the end of marking.
    Unmarked,
    /// A round was dirtied by what a closure of phase 3 has made.
    Endless,
    /// A chunk that was said to be clean has a mark bit.
    Unclean,
}

/// Where the collector is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
enum Stage {
    Idle,
    /// Phase 0: a grace period for the memory of arenas.
    Reaping,
    ArmingA,
    ArmingB,
    /// Phase 3, the root not scanned yet.
    Snapshot,
    Marking,
    Round,
    Faulty(Fault),
}

impl Stage {
    const ALL: [Stage; 16] = [
        Stage::Idle,
        Stage::Reaping,
        Stage::ArmingA,
        Stage::ArmingB,
        Stage::Snapshot,
        Stage::Marking,
        Stage::Round,
        Stage::Faulty(Fault::Lost),
        Stage::Faulty(Fault::TornAway),
        Stage::Faulty(Fault::ScannedFreed),
        Stage::Faulty(Fault::Reused),
        Stage::Faulty(Fault::ScannedStale),
        Stage::Faulty(Fault::InUse),
        Stage::Faulty(Fault::Unmarked),
        Stage::Faulty(Fault::Endless),
        Stage::Faulty(Fault::Unclean),
    ];

    /// The epoch of a closure that enters now.
    fn epoch(self) -> u8 {
        match self {
            Stage::Idle | Stage::Reaping | Stage::Faulty(_) => 0,
            Stage::ArmingA => 1,
            Stage::ArmingB => 2,
            Stage::Snapshot | Stage::Marking | Stage::Round => 3,
        }
    }
}

/// What has become of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Default, Debug)]
enum Chunk {
    #[default]
    Open,
    /// Its handle is gone, and nobody has freed it.
    Abandoned,
    /// It was abandoned before this cycle began.
    Orphan,
    /// Freed, as far as the program can tell.
    Flagged,
    /// Dead for marking; its memory is there until the grace period ends.
    Doomed,
    /// Its memory is gone, and its address is in quarantine.
    Freed,
}

impl Chunk {
    const ALL: [Chunk; 6] =
        [Chunk::Open, Chunk::Abandoned, Chunk::Orphan, Chunk::Flagged, Chunk::Doomed, Chunk::Freed];
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Mutator {
    inside: bool,
    epoch: u8,
    held: Set,
    /// The values of `held` that the closure has references to.
    refs: Set,
    /// The arenas that it may allocate in, though they may be flagged.
    writes: Set,
    buffer: Set,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State {
    stage: Stage,
    chunks: [Chunk; MOST_ARENAS],
    fields: [Pointer; MOST],
    allocated: Set,
    root: Pointer,
    marked: Set,
    /// To be scanned; before marking, what buffers have handed over.
    grey: Set,
    /// The values whose fields point to what lay at an address before.
    stale: Set,
    /// The values that closures of phase 3 have made in this cycle, where it is asked for.
    young: Set,
    /// The values that closures of phase 2 have made in this cycle, where it is asked for.
    pale: Set,
    /// The arenas whose chunks are known to be clean, where it is asked for.
    clean: Set,
    /// The last cycle's marking was complete, where it is asked for.
    judged: bool,
    waiting: Set,
    dirty: bool,
    mutators: [Mutator; MOST],
}

impl State {
    fn load(&self, place: Option<u8>) -> Pointer {
        place.map_or(self.root, |x| self.fields[x as usize])
    }

    fn wrong(&mut self, fault: Fault) {
        if !matches!(self.stage, Stage::Faulty(_)) {
            self.stage = Stage::Faulty(fault);
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} root={}", self.stage, self.chunks[0], Operand::value(self.root))?;
        for x in self.allocated.iter() {
            write!(f, " #{x}={}", Operand::value(self.fields[x as usize]))?;
        }
        write!(f, " marked={:?} grey={:?}", self.marked, self.grey)?;
        write!(f, " waiting={:?} dirty={}", self.waiting, u8::from(self.dirty))?;
        if self.chunks[1] != Chunk::Open || !self.stale.is_empty() {
            write!(f, " second arena {:?} stale={:?}", self.chunks[1], self.stale)?;
        }
        for (i, m) in self.mutators.iter().enumerate().filter(|(_, m)| m.inside) {
            write!(f, " | m{i}({}) holds {:?} refs {:?}", m.epoch, m.held, m.refs)?;
            write!(f, " writes {:?} buffer {:?}", m.writes, m.buffer)?;
        }
        Ok(())
    }
}

impl Arenas {
    /// The protocol as decided, with one arena for all values.
    pub(crate) fn decided(objects: u8, values: u8, mutators: u8, held: u32) -> Self {
        let (breaks, abandons, progress) = (false, false, false);
        let (arenas, complete, variant) = (1, Complete::ButPale, Variant::Decided);
        Self {
            objects,
            values,
            arenas,
            mutators,
            held,
            breaks,
            abandons,
            progress,
            complete,
            counts: false,
            variant,
        }
    }

    fn nodes(&self) -> u8 {
        self.objects + self.values
    }

    fn all_objects(&self) -> Set {
        (0..self.objects).fold(Set::EMPTY, Set::with)
    }

    /// The values of an arena.
    fn values_of(&self, arena: u8) -> Set {
        let values = self.objects..self.nodes();
        values.filter(|&x| self.arena_of(x) == Some(arena)).fold(Set::EMPTY, Set::with)
    }

    /// The arena of a value; `None` for an object.
    fn arena_of(&self, x: u8) -> Option<u8> {
        x.checked_sub(self.objects).map(|value| if self.arenas == 1 { 0 } else { value })
    }

    /// The chunk of a value.
    fn chunk_of(&self, s: &State, x: u8) -> Option<Chunk> {
        self.arena_of(x).map(|arena| s.chunks[arena as usize])
    }

    /// The values whose chunk is as asked for.
    fn values_in(&self, s: &State, mut chunk: impl FnMut(Chunk) -> bool) -> Set {
        let arenas = (0..self.arenas).filter(|&arena| chunk(s.chunks[arena as usize]));
        arenas.fold(Set::EMPTY, |all, arena| all.or(self.values_of(arena)))
    }

    fn active(&self, s: &State) -> Set {
        (0..self.mutators).filter(|&i| s.mutators[i as usize].inside).fold(Set::EMPTY, Set::with)
    }

    /// What the program can get at.
    fn reachable(&self, s: &State) -> Set {
        let closed = self.values_in(s, |chunk| chunk >= Chunk::Flagged);
        let refs = s.mutators.iter().fold(Set::EMPTY, |all, m| all.or(m.refs));
        let mut seen = s.mutators.iter().fold(Set::of(s.root), |all, m| all.or(m.held));
        loop {
            let open = seen.minus(closed.minus(refs));
            let next = open.iter().fold(seen, |all, x| all.or(Set::of(s.fields[x as usize])));
            if next == seen {
                return seen;
            }
            seen = next;
        }
    }

    /// Marks `found` and makes grey what was not marked before and is not dead. In a round, that dirties it.
    fn shade(&self, s: &mut State, found: Set) {
        let fresh = found.minus(s.marked);
        let from = if self.variant == Variant::DeadAtOnce { Chunk::Flagged } else { Chunk::Doomed };
        let dead = self.values_in(s, |chunk| chunk >= from);
        s.marked = s.marked.or(fresh);
        s.grey = s.grey.or(fresh.minus(dead));
        if s.stage == Stage::Round {
            s.dirty |= !fresh.is_empty();
            if !fresh.and(s.young).is_empty() {
                s.wrong(Fault::Endless);
            }
        }
    }

    /// Whoever is inside while a chunk is open may have leased it.
    fn lease(&self, mut s: State) -> State {
        for arena in 0..self.arenas {
            match s.chunks[arena as usize] {
                Chunk::Open => {
                    for m in s.mutators.iter_mut().filter(|m| m.inside) {
                        m.writes = m.writes.with(arena);
                    }
                }
                Chunk::Freed => {
                    for m in &mut s.mutators {
                        m.writes = m.writes.without(arena);
                    }
                }
                _ => {}
            }
        }
        s
    }

    /// Freeing and abandoning, at any moment, by anybody.
    fn gives_up(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        for arena in (0..self.arenas).filter(|&arena| s.chunks[arena as usize] == Chunk::Open) {
            let mut next = *s;
            next.chunks[arena as usize] = Chunk::Flagged;
            visit(Step::collector("somebody frees arena").on(Operand::Object(arena)), next);
            if self.abandons {
                next.chunks[arena as usize] = Chunk::Abandoned;
                visit(Step::collector("somebody abandons arena").on(Operand::Object(arena)), next);
            }
        }
    }
}

impl Model for Arenas {
    type State = State;
    type Fault = Fault;

    fn start(&self) -> State {
        State {
            stage: Stage::Idle,
            chunks: [Chunk::Open; MOST_ARENAS],
            fields: [None; MOST],
            allocated: Set::EMPTY,
            root: None,
            marked: Set::EMPTY,
            grey: Set::EMPTY,
            stale: Set::EMPTY,
            young: Set::EMPTY,
            pale: Set::EMPTY,
            clean: Set::EMPTY,
            judged: false,
            waiting: Set::EMPTY,
            dirty: false,
            mutators: [Mutator::default(); MOST],
        }
    }

    fn pack(&self, s: &State) -> Packer {
        let mut p = Packer::default();
        let (nodes, arenas) = (u32::from(self.nodes()), u32::from(self.arenas));
        let stage = Stage::ALL.iter().position(|stage| *stage == s.stage).expect("listed");
        p.bits(stage as u64, 4);
        for chunk in &s.chunks[..self.arenas as usize] {
            p.bits(*chunk as u64, 3);
        }
        p.pointer(s.root);
        for x in 0..self.nodes() as usize {
            p.pointer(s.fields[x]);
        }
        for set in [s.allocated, s.marked, s.grey] {
            p.set(set, nodes);
        }
        if self.arenas > 1 {
            p.set(s.stale, nodes);
        }
        if self.progress {
            p.set(s.young, nodes);
        }
        if self.complete == Complete::ButPale {
            p.set(s.pale, nodes);
        }
        if self.counts {
            p.set(s.clean, arenas);
        }
        if self.variant == Variant::OldVerdict {
            p.flag(s.judged);
        }
        p.flag(s.dirty);
        for (i, m) in (0..self.mutators).zip(&s.mutators) {
            p.member();
            p.flag(s.waiting.contains(i));
            p.bits(if m.inside { u64::from(m.epoch) + 1 } else { 0 }, 3);
            p.set(m.held, nodes);
            p.set(m.refs, nodes);
            p.set(m.writes, arenas);
            p.set(m.buffer, nodes);
        }
        p
    }

    fn unpack(&self, word: u64) -> State {
        let mut u = Unpacker::new(word);
        let (nodes, arenas) = (u32::from(self.nodes()), u32::from(self.arenas));
        let mut s = self.start();
        s.stage = Stage::ALL[u.bits(4) as usize];
        for chunk in &mut s.chunks[..self.arenas as usize] {
            *chunk = Chunk::ALL[u.bits(3) as usize];
        }
        s.root = u.pointer();
        for x in 0..self.nodes() as usize {
            s.fields[x] = u.pointer();
        }
        s.allocated = u.set(nodes);
        s.marked = u.set(nodes);
        s.grey = u.set(nodes);
        if self.arenas > 1 {
            s.stale = u.set(nodes);
        }
        if self.progress {
            s.young = u.set(nodes);
        }
        if self.complete == Complete::ButPale {
            s.pale = u.set(nodes);
        }
        if self.counts {
            s.clean = u.set(arenas);
        }
        if self.variant == Variant::OldVerdict {
            s.judged = u.flag();
        }
        s.dirty = u.flag();
        for (i, m) in (0..self.mutators).zip(&mut s.mutators) {
            s.waiting = if u.flag() { s.waiting.with(i) } else { s.waiting };
            let epoch = u.bits(3).checked_sub(1);
            m.inside = epoch.is_some();
            m.epoch = epoch.unwrap_or_default();
            m.held = u.set(nodes);
            m.refs = u.set(nodes);
            m.writes = u.set(arenas);
            m.buffer = u.set(nodes);
        }
        s
    }

    fn steps(&self, s: &State, visit: &mut impl FnMut(Step, State)) {
        if matches!(s.stage, Stage::Faulty(_)) {
            return;
        }
        let mut visit = |step, next| visit(step, self.lease(next));
        for i in 0..self.mutators {
            if s.mutators[i as usize].inside {
                self.moves(s, i, &mut visit);
                self.fields(s, i, &mut visit);
                self.allocates(s, i, &mut visit);
            } else {
                let mut next = *s;
                let epoch = s.stage.epoch();
                next.mutators[i as usize] = Mutator { inside: true, epoch, ..Mutator::default() };
                visit(Step::mutator(i, "enters"), next);
            }
        }
        self.gives_up(s, &mut visit);
        self.collects(s, &mut visit);
    }

    fn fault(&self, s: &State) -> Option<Fault> {
        match s.stage {
            Stage::Faulty(fault) => Some(fault),
            _ => None,
        }
    }
}
