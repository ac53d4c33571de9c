//! What the programs for `marking` have in common: the shapes, the rounds, the figures. The graph is theirs.

use std::time::Instant;

use super::{Figure, Outcome, Result, Times, share};
use crate::options::Params;
use crate::process;
use crate::random::Random;

/// How many lists there are in shape 3.
pub(super) const LISTS: usize = 1024;
/// How many arrays there are in shape 4.
pub(super) const ARRAYS: usize = 32;

/// A graph, held by a root.
pub(super) trait Graph {
    /// One full collection.
    fn collect(&mut self);
    /// What is reached from the root.
    fn walk(&self) -> Reached;
}

/// Objects that were reached, each once.
#[derive(Clone, Copy, Default)]
pub(super) struct Reached {
    objects: u64,
    bytes: u64,
    checksum: u64,
}

impl Reached {
    /// Counts an object of so many bytes.
    pub(super) fn add(&mut self, number: u64, bytes: usize) {
        self.objects += 1;
        self.bytes += bytes as u64;
        self.checksum = self.checksum.wrapping_add(number).wrapping_add(1);
    }
}

/// Bytes of an object of the tree and of the lists, by its fields.
pub(super) const NODE: usize = 64;

/// Bytes of an object of the random graph with so many words behind its pointers and its number.
pub(super) const fn mixed_bytes(rest: usize) -> usize {
    40 + 8 * rest
}

/// Which objects of a random graph were seen.
pub(super) struct Seen(Vec<u64>);

impl Seen {
    pub(super) fn new(objects: usize) -> Seen {
        Seen(vec![0; objects.div_ceil(64)])
    }

    /// Whether this is the first time.
    pub(super) fn first(&mut self, number: u64) -> bool {
        let (word, bit) = (&mut self.0[number as usize / 64], 1 << (number % 64));
        let first = *word & bit == 0;
        *word |= bit;
        first
    }
}

/// The sizes of the objects of a random graph.
#[derive(Clone, Copy)]
pub(super) enum Size {
    Small,
    Medium,
    Large,
}

pub(super) fn sizes(objects: usize) -> impl Iterator<Item = (u64, Size)> {
    let mut random = Random::new(1);
    (0..objects as u64).map(move |number| {
        let size = match random.below(4) {
            0 => Size::Small,
            1 | 2 => Size::Medium,
            _ => Size::Large,
        };
        (number, size)
    })
}

/// One of a group, or nothing if there is none.
pub(super) fn any<'a, T>(random: &mut Random, group: &'a [T]) -> Option<&'a T> {
    if group.is_empty() { None } else { Some(&group[random.below(group.len())]) }
}

/// What the objects of shapes 0, 2 and 3 point to; what there is not is left out.
pub(super) fn targets(
    shape: u64,
    objects: usize,
    number: usize,
) -> impl Iterator<Item = (usize, usize)> {
    let targets = match shape {
        0 => [3 * number + 1, 3 * number + 2, 3 * number + 3],
        2 => [number + 1, usize::MAX, usize::MAX],
        _ => [number + LISTS, usize::MAX, usize::MAX],
    };
    targets.into_iter().enumerate().filter(move |&(_, target)| target < objects)
}

/// The numbers of the leaves of each array of shape 4.
pub(super) fn leaves(objects: usize) -> impl Iterator<Item = std::ops::Range<u64>> {
    let mut next = 0;
    (0..ARRAYS).map(move |array| {
        let first = next;
        next += share(objects as u64, ARRAYS, array);
        first..next
    })
}

/// Collects a graph, measures it, and looks whether all of it is left.
pub(super) fn measure(params: &Params, mut graph: impl Graph) -> Result<Outcome> {
    graph.collect();
    let rounds = params.get("rounds");
    let mut times = Times::default();
    let (cpu, started) = (process::cpu_time(), Instant::now());
    for _ in 0..rounds {
        let begun = Instant::now();
        graph.collect();
        times.record(begun.elapsed());
    }
    let (wall, cpu) = (started.elapsed(), process::cpu_time().since(cpu).total());
    let reached = graph.walk();
    std::mem::forget(graph);
    let all = (rounds * reached.objects) as f64;
    let figures = vec![
        Figure::count("reached", reached.objects),
        Figure::count("reached_bytes", reached.bytes),
        Figure::real("cpu_ns_per_object", cpu.as_nanos() as f64 / all),
        Figure::real("wall_ns_per_object", wall.as_nanos() as f64 / all),
        Figure::real("cycle_bytes_per_s", (reached.bytes * rounds) as f64 / wall.as_secs_f64()),
    ];
    Ok(Outcome { checksum: reached.checksum, latency: Some(("cycle", times)), figures })
}
