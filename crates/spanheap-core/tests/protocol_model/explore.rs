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
//! There is no depth bound, no hashing of states down to a signature, and no reduction by symmetry
//! or partial order: a state that is reported as seen was compared bit for bit.
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

use crate::vocabulary::Step;
use std::fmt;

/// A transition system whose states fit in a word.
pub(crate) trait Model {
    /// An unpacked state.
    type State: Copy + PartialEq + fmt::Debug + fmt::Display;
    /// A way in which a state is wrong.
    type Fault: Copy + PartialEq + fmt::Debug;

    fn start(&self) -> Self::State;
    fn pack(&self, state: &Self::State) -> u64;
    fn unpack(&self, word: u64) -> Self::State;
    /// Calls `visit` with every step that is possible in `state` and the state it leads to.
    fn steps(&self, state: &Self::State, visit: &mut impl FnMut(Step, Self::State));
    fn fault(&self, state: &Self::State) -> Option<Self::Fault>;
}

/// What an exploration found.
pub(crate) struct Exploration<M: Model> {
    /// The number of distinct states met: all of them, if there is no counterexample.
    pub(crate) states: usize,
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

/// Visits every reachable state of `model`, or stops at the first faulty one.
///
/// # Panics
/// If the model has more than 2^32 states, or if a state does not survive packing.
pub(crate) fn explore<M: Model>(model: &M) -> Exploration<M> {
    let mut search = Search::default();
    let mut found = vec![(model.pack(&model.start()), 0)];
    let mut head = 0;
    loop {
        search.discover(&found);
        found.clear();
        if head == search.order.len() {
            return Exploration { states: head, counterexample: None };
        }
        let batch = head..search.order.len().min(head + BATCH);
        head = batch.end;
        for index in batch {
            let state = model.unpack(search.order[index]);
            if let Some(fault) = model.fault(&state) {
                let trail = search.trail(model, index);
                let counterexample = Some(Counterexample { fault, last: state, trail });
                return Exploration { states: search.order.len(), counterexample };
            }
            model.steps(&state, &mut |_, next| {
                let word = model.pack(&next);
                debug_assert_eq!(model.unpack(word), next, "a state did not survive packing");
                found.push((word, index));
            });
        }
    }
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
}

impl Default for Search {
    fn default() -> Self {
        Self { order: Vec::new(), parents: Vec::new(), seen: vec![0; 1 << 16] }
    }
}

impl Search {
    /// Appends those states of `found` that are new, each with its parent.
    fn discover(&mut self, found: &[(u64, usize)]) {
        // Nothing depends on these loads, so their cache misses overlap. The loop below, which
        // would otherwise wait for one after the other, then finds its slots in the cache.
        let touched = found.iter().fold(0, |all, &(word, _)| all ^ self.seen[self.slot(word)]);
        std::hint::black_box(touched);
        for &(word, parent) in found {
            let Err(vacant) = self.find(word) else { continue };
            self.order.push(word);
            self.parents.push(u32::try_from(parent).expect("at most 2^32 states"));
            self.seen[vacant] = !word;
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

    /// The steps from the start to `order[last]`, each found again by asking the model.
    fn trail<M: Model>(&self, model: &M, last: usize) -> Vec<(Step, M::State)> {
        let mut trail = Vec::new();
        let mut index = last;
        while index != 0 {
            let parent = self.parents[index] as usize;
            let mut found = None;
            model.steps(&model.unpack(self.order[parent]), &mut |step, next| {
                if model.pack(&next) == self.order[index] {
                    found.get_or_insert((step, next));
                }
            });
            trail.push(found.expect("a parent has a step to its child"));
            index = parent;
        }
        trail.reverse();
        trail
    }
}

/// Multiplicative hashing; the high bits are the good ones, so a table takes its index from there.
fn hash(word: u64) -> u64 {
    let mixed = (word ^ (word >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}
