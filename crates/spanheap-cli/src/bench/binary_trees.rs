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
//! With several threads, each takes its share of the trees of each depth, and none waits for another.

use spanheap::{Gc, Heap, Mutator, Root, Rootable, Trace};

use super::params::{Key, Params};
use super::{Outcome, Workload, in_threads, share};
use crate::failure::{Failure, Result};

pub(super) const WORKLOAD: Workload = Workload {
    name: "binary-trees",
    keys: &[Key { name: "depth", default: 16, min: MIN_DEPTH, max: 58 }],
    footprint,
    settings: |_, builder| builder,
    run,
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
    let stretch = heap.enter(|mc| count(build(mc, depth + 1)));
    if stretch != nodes(depth + 1) {
        return Err(Failure::new(format!("the stretch tree has {stretch} nodes")));
    }
    let long_lived: Root<Rootable![Node<'_>]> = heap.enter(|mc| mc.root(build(mc, depth)));
    let sums = in_threads(params.threads, |index| {
        let mut sum = 0;
        for small in (MIN_DEPTH..=depth).step_by(2) {
            let trees = share(1 << (depth - small + MIN_DEPTH), params.threads, index);
            sum += short_lived(heap, small, trees);
        }
        Ok(sum)
    })?;
    let kept = heap.enter(|mc| count(long_lived.get(mc)));
    Ok(Outcome::plain(sums.iter().sum::<u64>() + kept))
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
