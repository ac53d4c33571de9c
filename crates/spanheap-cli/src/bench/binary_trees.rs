//! `binary-trees`: many small objects, most of them short-lived.
//!
//! The workload of the benchmarks game. A node is two pointers, 16 bytes, and never changes after it is
//! made. For a depth `n`:
//! ```text
//! stretch      build a tree of depth n + 1, count its nodes, drop it
//! long-lived   build a tree of depth n, keep it in a root
//! for d = 4, 6 .. n:
//!     build and count 2^(n - d + 4) trees of depth d, dropping each
//! count the nodes of the long-lived tree
//! ```
//! The checksum is the sum of all counts but the stretch tree's: 67,283,631 for `n` = 18.
//!
//! # Why batches
//! What is allocated in an `enter` lives until the closure returns, so a closure around all trees of a
//! depth would keep them all. One closure for each tree is what the workload means for deep trees;
//! small ones are built many to a closure, up to [`BATCH_NODES`] nodes (256 KiB), as a program
//! does that answers a request in each. Either way no more than a batch floats.
//!
//! # In arenas
//! With `arena=1` nothing is a collected object: the stretch tree has a scoped arena, the long-lived tree has one, and
//! each thread has one for the trees of a depth, which is reset after each of them. It is what a program does that
//! knows when its trees die.
//!
//! With several threads, each takes its share of the trees of each depth, and none waits for another.

use spanheap::{Arena, Gc, Heap, Mutator, Root, Rootable, Trace};

use super::params::{Key, Params};
use super::{Outcome, Work, Workload, in_threads, share};
use crate::failure::{Failure, Result};

pub(super) const WORKLOAD: Workload = Workload {
    name: "binary-trees",
    keys: &[
        Key { name: "depth", default: 16, min: MIN_DEPTH, max: 58 },
        Key { name: "arena", default: 0, min: 0, max: 1 },
    ],
    footprint,
    settings: |_, builder| builder,
    run: Work::OnHeap(run),
};

/// The depth of the smallest trees.
const MIN_DEPTH: u64 = 4;
/// Nodes that are built in one `enter`, unless a single tree has more.
const BATCH_NODES: u64 = 1 << 14;

#[derive(Trace)]
struct Node<'gc> {
    left: Option<Gc<'gc, Node<'gc>>>,
    right: Option<Gc<'gc, Node<'gc>>>,
}

/// How many nodes a complete tree has.
fn nodes(depth: u64) -> u64 {
    (2 << depth) - 1
}

/// The stretch tree, which is the largest thing at any time.
fn footprint(params: &Params) -> Option<u64> {
    nodes(params.get("depth") + 1).checked_mul(size_of::<Node<'_>>() as u64)
}

fn run(heap: &Heap, params: &Params) -> Result<Outcome> {
    let depth = params.get("depth");
    if params.get("arena") == 1 {
        return in_arenas::run(heap, depth, params.threads);
    }
    check_stretch(depth, heap.enter(|mc| count(build(mc, depth + 1))))?;
    let long_lived: Root<Rootable![Node<'_>]> = heap.enter(|mc| mc.root(build(mc, depth)));
    let sum = temporary(depth, params.threads, |small, trees| short_lived(heap, small, trees))?;
    let kept = heap.enter(|mc| count(long_lived.get(mc)));
    Ok(Outcome::plain(sum + kept))
}

fn check_stretch(depth: u64, count: u64) -> Result<()> {
    if count == nodes(depth + 1) {
        return Ok(());
    }
    Err(Failure::new(format!("the stretch tree has {count} nodes")))
}

/// Calls `trees` with each depth, and how many trees of it a thread is to make. Returns the sum of what it returns.
fn temporary(depth: u64, threads: usize, trees: impl Fn(u64, u64) -> u64 + Sync) -> Result<u64> {
    let sums = in_threads(threads, |index| {
        let mut sum = 0;
        for small in (MIN_DEPTH..=depth).step_by(2) {
            sum += trees(small, share(1 << (depth - small + MIN_DEPTH), threads, index));
        }
        Ok(sum)
    })?;
    Ok(sums.iter().sum())
}

/// Builds, counts and drops `trees` trees. Returns how many nodes they had.
fn short_lived(heap: &Heap, depth: u64, trees: u64) -> u64 {
    let batch = (BATCH_NODES / nodes(depth)).max(1);
    let mut sum = 0;
    let mut left = trees;
    while left > 0 {
        let now = left.min(batch);
        sum += heap.enter(|mc| (0..now).map(|_| count(build(mc, depth))).sum::<u64>());
        left -= now;
    }
    sum
}

/// A complete tree, children first.
fn build<'gc>(mc: &Mutator<'gc>, depth: u64) -> Gc<'gc, Node<'gc>> {
    if depth == 0 {
        return mc.alloc(Node { left: None, right: None });
    }
    let left = build(mc, depth - 1);
    let right = build(mc, depth - 1);
    mc.alloc(Node { left: Some(left), right: Some(right) })
}

/// Counts by looking, not by knowing.
fn count(node: Gc<'_, Node<'_>>) -> u64 {
    match (node.left, node.right) {
        (Some(left), Some(right)) => 1 + count(left) + count(right),
        _ => 1,
    }
}

/// The same in scoped arenas.
mod in_arenas {
    use super::{Arena, Heap, Outcome, Result, check_stretch, temporary};

    struct Plain<'a> {
        left: Option<&'a Plain<'a>>,
        right: Option<&'a Plain<'a>>,
    }

    pub(super) fn run(heap: &Heap, depth: u64, threads: usize) -> Result<Outcome> {
        let stretch = heap.enter(|mc| mc.arena(|arena| count(build(arena, depth + 1))));
        check_stretch(depth, stretch)?;
        // The arena of the long-lived tree is open while the others come and go: in a closure around theirs on one
        // thread, beside them on several.
        heap.enter(|mc| {
            mc.arena(|arena| {
                let long_lived = build(arena, depth);
                let sum = temporary(depth, threads, |small, trees| reset(heap, small, trees))?;
                Ok(Outcome::plain(sum + count(long_lived)))
            })
        })
    }

    /// Builds and counts `trees` trees in one arena, which is reset after each.
    fn reset(heap: &Heap, depth: u64, trees: u64) -> u64 {
        heap.enter(|mc| {
            mc.arena(|arena| {
                let mut sum = 0;
                for _ in 0..trees {
                    sum += count(build(arena, depth));
                    arena.reset();
                }
                sum
            })
        })
    }

    fn build<'a>(arena: &'a Arena<'_>, depth: u64) -> &'a Plain<'a> {
        if depth == 0 {
            return arena.alloc(Plain { left: None, right: None });
        }
        let left = build(arena, depth - 1);
        let right = build(arena, depth - 1);
        arena.alloc(Plain { left: Some(left), right: Some(right) })
    }

    fn count(node: &Plain<'_>) -> u64 {
        match (node.left, node.right) {
            (Some(left), Some(right)) => 1 + count(left) + count(right),
            _ => 1,
        }
    }
}
