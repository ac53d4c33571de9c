//! The words that all models of the collection protocol share: pointers, sets of objects or
//! mutators, phases, steps, and the packing of a state into one `u64`.
//!
//! # Invariants
//! * An instance has at most [`MOST`] objects and at most [`MOST`] mutators. A pointer then fits in
//!   two bits (null and three objects) and a set in three; a model writes only as many bits as its
//!   instance has members, and a mechanism that a variant does not use takes no bits at all. So the
//!   number of states of an instance does not depend on what other variants of the model need.
//! * Packing loses nothing: the explorer unpacks every new state and compares.
//!
//! # Locking
//! None: a model is explored by one thread, and everything here is a plain value.
//!
//! # Why one word
//! The larger instances have tens of millions of states. A packed state costs eight bytes, is
//! compared in one instruction, and hashes with one multiplication.

use std::fmt;

/// The largest number of objects, and of mutators, that a state has room for.
pub(crate) const MOST: usize = 3;

/// What a field, a root slot or a register contains: null or an object.
pub(crate) type Pointer = Option<u8>;

/// A set of objects, or of mutators.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Set(u8);

impl Set {
    pub(crate) const EMPTY: Self = Self(0);

    /// The set with the one member that `pointer` names; empty for null.
    pub(crate) fn of(pointer: Pointer) -> Self {
        pointer.map_or(Self::EMPTY, |x| Self(1 << x))
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub(crate) fn contains(self, x: u8) -> bool {
        self.0 >> x & 1 == 1
    }

    pub(crate) fn with(self, x: u8) -> Self {
        Self(self.0 | 1 << x)
    }

    pub(crate) fn without(self, x: u8) -> Self {
        Self(self.0 & !(1 << x))
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The smallest member.
    pub(crate) fn first(self) -> Option<u8> {
        // A set has eight members at most, so the position of a bit fits easily.
        (self.0 != 0).then(|| self.0.trailing_zeros() as u8)
    }

    /// The members in ascending order.
    pub(crate) fn iter(self) -> impl Iterator<Item = u8> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            (left != 0).then(|| {
                let x = left.trailing_zeros();
                left &= left - 1;
                // A set has eight members at most, so the position of a bit fits easily.
                x as u8
            })
        })
    }

    /// What a closure holds after it got `pointer` too, or `None` when it can hold no more than
    /// `limit` objects.
    pub(crate) fn hold(self, pointer: Pointer, limit: u32) -> Option<Self> {
        let more = self.or(Self::of(pointer));
        (more == self || more.len() <= limit).then_some(more)
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Everything that a search along `fields` from `roots` meets.
pub(crate) fn reachable(fields: &[Pointer; MOST], roots: Set) -> Set {
    let mut seen = roots;
    loop {
        let children = seen.iter().fold(Set::EMPTY, |all, x| all.or(Set::of(fields[x as usize])));
        if children.minus(seen).is_empty() {
            return seen;
        }
        seen = seen.or(children);
    }
}

/// Where the collector is. The first four have the numbers of the phases that it publishes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) enum Phase {
    /// Phase 0, before the cycle.
    Idle,
    /// Phase 1: waiting for the first grace period.
    ArmingA,
    /// Phase 2: waiting for the second grace period.
    ArmingB,
    /// Phase 3, the root table not scanned yet.
    Snapshot,
    /// Phase 3, draining grey work.
    Marking,
    /// Phase 3, inside a termination round.
    Round,
    /// A round was clean: what is unmarked is dead from here on.
    Done,
    /// After `Done` an upgrade handed out an unmarked object. No correct model gets here.
    DeadUpgraded,
}

impl Phase {
    const ALL: [Self; 8] = [
        Self::Idle,
        Self::ArmingA,
        Self::ArmingB,
        Self::Snapshot,
        Self::Marking,
        Self::Round,
        Self::Done,
        Self::DeadUpgraded,
    ];

    /// The epoch of a closure that enters now: the number of the published phase.
    pub(crate) fn epoch(self) -> u8 {
        (self as u8).min(3)
    }
}

/// What a step works on, for the trail.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand {
    Absent,
    Root,
    Null,
    Object(u8),
}

impl Operand {
    pub(crate) fn value(pointer: Pointer) -> Self {
        pointer.map_or(Self::Null, Self::Object)
    }

    /// A place that holds a pointer: the root slot (`None`) or the field of an object.
    pub(crate) fn place(place: Option<u8>) -> Self {
        place.map_or(Self::Root, Self::Object)
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => Ok(()),
            Self::Root => write!(f, " root"),
            Self::Null => write!(f, " null"),
            Self::Object(x) => write!(f, " #{x}"),
        }
    }
}

/// One step of one actor, as a trail prints it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    /// Who takes the step: a mutator, or (`None`) the collector or some thread outside of all
    /// closures.
    actor: Option<u8>,
    verb: &'static str,
    first: Operand,
    second: Operand,
}

impl Step {
    pub(crate) fn mutator(actor: u8, verb: &'static str) -> Self {
        Self { actor: Some(actor), verb, first: Operand::Absent, second: Operand::Absent }
    }

    pub(crate) fn collector(verb: &'static str) -> Self {
        Self { actor: None, verb, first: Operand::Absent, second: Operand::Absent }
    }

    pub(crate) fn on(self, first: Operand) -> Self {
        Self { first, ..self }
    }

    pub(crate) fn with(self, second: Operand) -> Self {
        Self { second, ..self }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.actor {
            Some(i) => write!(f, "mutator {i}: ")?,
            None => write!(f, "        - : ")?,
        }
        write!(f, "{}{}{}", self.verb, self.first, self.second)
    }
}

/// Writes the parts of a state into one word, the first part lowest.
///
/// Last come the parts of the mutators, one like the other, each after a call of [`Packer::member`]. So
/// to exchange two mutators is to exchange two fields of the word.
#[derive(Default)]
pub(crate) struct Packer {
    word: u64,
    used: u32,
    /// Where the parts of the mutators begin, if there are any.
    members_at: Option<u32>,
    members: u32,
}

impl Packer {
    /// Packs a small number.
    pub(crate) fn bits(&mut self, value: u64, width: u32) {
        debug_assert!(value >> width == 0, "{value} does not fit in {width} bits");
        debug_assert!(self.used + width < u64::BITS, "the instance does not fit in one word");
        self.word |= value << self.used;
        self.used += width;
    }

    /// From here on, until the next call or the end, parts of the next mutator are packed.
    pub(crate) fn member(&mut self) {
        self.members_at.get_or_insert(self.used);
        self.members += 1;
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.bits(u64::from(flag), 1);
    }

    pub(crate) fn pointer(&mut self, pointer: Pointer) {
        self.bits(pointer.map_or(0, |x| u64::from(x) + 1), 2);
    }

    /// Packs a set of which the instance has `members` possible members.
    pub(crate) fn set(&mut self, set: Set, members: u32) {
        self.bits(u64::from(set.0), members);
    }

    pub(crate) fn epoch(&mut self, epoch: u8) {
        self.bits(u64::from(epoch), 2);
    }

    pub(crate) fn phase(&mut self, phase: Phase) {
        self.bits(phase as u64, 3);
    }

    /// The packed state as it is.
    pub(crate) fn word(&self) -> u64 {
        self.word
    }

    /// The packed state with its mutators in the order that stands for all orders, and how many
    /// different states it stands for.
    pub(crate) fn canonical(&self) -> (u64, usize) {
        let Some(at) = self.members_at.filter(|_| self.members > 1) else { return (self.word, 1) };
        let width = (self.used - at) / self.members;
        debug_assert!(at + width * self.members == self.used, "mutators have unequal parts");
        let part = |word: u64, i: u32| word >> (at + i * width) & ((1 << width) - 1);
        let (first, second) = (part(self.word, 0), part(self.word, 1));
        if self.members == 2 {
            let difference = if first < second { first ^ second } else { 0 };
            let word = self.word ^ difference << at ^ difference << (at + width);
            return (word, 1 + usize::from(first != second));
        }
        assert!(self.members == 3, "instances have three mutators at most");
        let mut parts = [first, second, part(self.word, 2)];
        parts.sort_unstable_by(|a, b| b.cmp(a));
        let rest = self.word & ((1 << at) - 1);
        let word = (0..3).fold(rest, |word, i| word | parts[i as usize] << (at + i * width));
        let orders = match (parts[0] == parts[1], parts[1] == parts[2]) {
            (false, false) => 6,
            (true, true) => 1,
            _ => 3,
        };
        (word, orders)
    }
}

/// Reads back what a [`Packer`] wrote, in the same order.
pub(crate) struct Unpacker {
    word: u64,
}

impl Unpacker {
    pub(crate) fn new(word: u64) -> Self {
        Self { word }
    }

    /// Reads a small number. No part of a state is more than eight bits wide.
    pub(crate) fn bits(&mut self, width: u32) -> u8 {
        let value = self.word & ((1 << width) - 1);
        self.word >>= width;
        value as u8
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.bits(1) == 1
    }

    pub(crate) fn pointer(&mut self) -> Pointer {
        self.bits(2).checked_sub(1)
    }

    pub(crate) fn set(&mut self, members: u32) -> Set {
        Set(self.bits(members))
    }

    pub(crate) fn epoch(&mut self) -> u8 {
        self.bits(2)
    }

    pub(crate) fn phase(&mut self) -> Phase {
        Phase::ALL[self.bits(3) as usize]
    }
}
