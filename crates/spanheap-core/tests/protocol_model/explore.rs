//! Explores every state of a small model, breadth first, and finds the shortest way to a faulty
//! one.
//!
//! # What
//! A [`Model`] has a start state, steps that lead from a state to others, and a predicate that
//! names faulty states. [`explore`] visits each state that any sequence of steps can reach exactly
//! once:
//!
//! ```text
//! order = [start]; seen = {start}
//! for each state in order, in order:
//!     if it is faulty: stop, and follow the parents back to the start
//!     for each step: if the next state is not in seen: add it to seen, append it to order
//! ```
//!
//! Steps are atomic and interleave freely, so this is exhaustive for sequentially consistent
//! executions of the instance, whatever their length. (The code takes a few states from the queue
//! at once, which lets cache misses overlap and changes nothing about the order of discovery.)
//! There is no depth bound, no hashing of states down to a signature, and no reduction by partial
//! order: a state that is reported as seen was compared bit for bit.
//!
//! # Symmetry
//! Mutators are interchangeable: no rule names one. So of the states that differ only in which mutator is
//! which, one is visited, and counts for all of them ([`Reduction::Mutators`]). The number of
//! states is therefore the same as without the reduction, and a test holds the two against each other
//! for each model: a rule that did treat mutators differently would make them differ. A trail is made of
//! the states as they are, not of those that stand for them.
//!
//! # Representation
//! `order` holds the packed states and doubles as the queue; `parents` holds, for each, the index
//! of the state it was found from. `seen` is an open-addressing table of the packed states
//! themselves: a probe costs one cache miss, where a table of indices into `order` would cost two,
//! and misses are nearly all of the run time. Steps are not stored: a trail names each one by
//! asking the model again which step leads from a state to the next, and thereby replays itself.
//!
//! # Locking
//! None: an exploration belongs to one thread. The test harness runs several side by side.

use crate::vocabulary::{Packer, Step};
use std::fmt;

/// A transition system whose states fit in a word.
pub(crate) trait Model {
    /// An unpacked state.
    type State: Copy + PartialEq + fmt::Debug + fmt::Display;
    /// A way in which a state is wrong.
    type Fault: Copy + PartialEq + fmt::Debug;

    fn start(&self) -> Self::State;
    fn pack(&self, state: &Self::State) -> Packer;
    fn unpack(&self, word: u64) -> Self::State;
    /// Calls `visit` with every step that is possible in `state` and the state it leads to.
    fn steps(&self, state: &Self::State, visit: &mut impl FnMut(Step, Self::State));
    fn fault(&self, state: &Self::State) -> Option<Self::Fault>;
}

/// What an exploration found.
pub(crate) struct Exploration<M: Model> {
    /// The number of distinct states met: all of them, if there is no counterexample.
    pub(crate) states: usize,
    /// The number of states that were looked at, each for all that it stands for.
    pub(crate) visited: usize,
    /// A shortest way to a faulty state.
    pub(crate) counterexample: Option<Counterexample<M>>,
}

/// A shortest sequence of steps from the start to a faulty state.
pub(crate) struct Counterexample<M: Model> {
    pub(crate) fault: M::Fault,
    /// The faulty state itself.
    pub(crate) last: M::State,
    /// Each step with the state that it leads to. The start state has no step and is not in here.
    pub(crate) trail: Vec<(Step, M::State)>,
}

impl<M: Model> fmt::Display for Counterexample<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (step, state)) in self.trail.iter().enumerate() {
            writeln!(f, "{:>3}  {:<40} {state}", number + 1, step.to_string())?;
        }
        writeln!(f, "     {:?}", self.fault)
    }
}

/// How many states are taken from the queue at once.
const BATCH: usize = 8;

/// Which states are taken to be the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reduction {
    /// Equal ones only.
    None,
    /// Those that differ in the order of their mutators.
    Mutators,
}

impl Reduction {
    /// What stands for a packed state, and for how many.
    fn apply(self, packed: &Packer) -> (u64, usize) {
        match self {
            Reduction::None => (packed.word(), 1),
            Reduction::Mutators => packed.canonical(),
        }
    }
}

/// Visits every reachable state of `model`, or stops at the first faulty one.
///
/// # Panics
/// If the model has more than 2^32 states, or if a state does not survive packing.
pub(crate) fn explore<M: Model>(model: &M, reduction: Reduction) -> Exploration<M> {
    let mut search = Search::default();
    let (start, weight) = reduction.apply(&model.pack(&model.start()));
    let mut found = vec![Found { word: start, parent: 0, weight }];
    let mut head = 0;
    loop {
        search.discover(&found);
        found.clear();
        if head == search.order.len() {
            return Exploration { states: search.states, visited: head, counterexample: None };
        }
        let batch = head..search.order.len().min(head + BATCH);
        head = batch.end;
        for index in batch {
            let state = model.unpack(search.order[index]);
            if model.fault(&state).is_some() {
                let counterexample = Some(search.counterexample(model, reduction, index));
                let (states, visited) = (search.states, search.order.len());
                return Exploration { states, visited, counterexample };
            }
            model.steps(&state, &mut |_, next| {
                let packed = model.pack(&next);
                debug_assert_eq!(model.unpack(packed.word()), next, "packing has lost something");
                let (word, weight) = reduction.apply(&packed);
                found.push(Found { word, parent: index, weight });
            });
        }
    }
}

/// A state that a step has led to.
struct Found {
    word: u64,
    /// The index of the state where the step began.
    parent: usize,
    /// How many states it stands for.
    weight: usize,
}

/// The states found so far.
struct Search {
    /// Packed states in the order of discovery.
    order: Vec<u64>,
    /// For each state, the index of the one it was discovered from; the start is its own parent.
    parents: Vec<u32>,
    /// Open addressing with linear probing: zero is vacant, anything else is the complement of a
    /// packed state. (The highest bit of a packed state is never set, so that is never zero.)
    seen: Vec<u64>,
    /// What the states in `order` stand for, all told.
    states: usize,
}

impl Default for Search {
    fn default() -> Self {
        Self { order: Vec::new(), parents: Vec::new(), seen: vec![0; 1 << 16], states: 0 }
    }
}

impl Search {
    /// Appends those states of `found` that are new, each with its parent.
    fn discover(&mut self, found: &[Found]) {
        // Nothing depends on these loads, so their cache misses overlap. The loop below, which
        // would otherwise wait for one after the other, then finds its slots in the cache.
        let touched = found.iter().fold(0, |all, next| all ^ self.seen[self.slot(next.word)]);
        std::hint::black_box(touched);
        for &Found { word, parent, weight } in found {
            let Err(vacant) = self.find(word) else { continue };
            self.order.push(word);
            self.parents.push(u32::try_from(parent).expect("at most 2^32 states"));
            self.seen[vacant] = !word;
            self.states += weight;
            // Grow at four fifths, where probes are still short.
            if self.order.len() * 5 > self.seen.len() * 4 {
                self.grow();
            }
        }
    }

    /// Where the search for `word` begins.
    fn slot(&self, word: u64) -> usize {
        (hash(word) >> (u64::BITS - self.seen.len().trailing_zeros())) as usize
    }

    /// The slot that holds `word`, or the vacant one where it belongs.
    fn find(&self, word: u64) -> Result<usize, usize> {
        let mask = self.seen.len() - 1;
        let mut slot = self.slot(word);
        loop {
            match self.seen[slot] {
                0 => return Err(slot),
                taken if taken == !word => return Ok(slot),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    fn grow(&mut self) {
        let larger = self.seen.len() * 2;
        // The old table is dropped before the new one exists: `order` is enough to rebuild it.
        self.seen = Vec::new();
        self.seen = vec![0; larger];
        for index in 0..self.order.len() {
            let word = self.order[index];
            let vacant = self.find(word).expect_err("states are distinct");
            self.seen[vacant] = !word;
        }
    }

    /// The steps from the start to what `order[last]` stands for, each found again by asking the model.
    fn counterexample<M: Model>(
        &self,
        model: &M,
        reduction: Reduction,
        last: usize,
    ) -> Counterexample<M> {
        let parent_of = |&index: &usize| (index != 0).then(|| self.parents[index] as usize);
        let mut way: Vec<usize> = std::iter::successors(Some(last), parent_of).collect();
        // The start comes last, and no step leads there.
        way.pop();
        let (mut state, mut trail) = (model.start(), Vec::new());
        for index in way.into_iter().rev() {
            let mut found = None;
            model.steps(&state, &mut |step, next| {
                if reduction.apply(&model.pack(&next)).0 == self.order[index] {
                    found.get_or_insert((step, next));
                }
            });
            let (step, next) = found.expect("a parent has a step to its child");
            trail.push((step, next));
            state = next;
        }
        let fault = model.fault(&state).expect("what stands for a faulty state is faulty");
        Counterexample { fault, last: state, trail }
    }
}

/// Multiplicative hashing; the high bits are the good ones, so a table takes its index from there.
fn hash(word: u64) -> u64 {
    let mixed = (word ^ (word >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}
