//! bumpalo: a bump allocator, which frees all of its objects at once.
//!
//! # What it cannot do
//! Nothing is freed alone, and destructors do not run. So it can do what has phases: `binary-trees`, where each tree, or each
//! batch of small ones, is a phase at whose end the allocator is reset, and `request-arena`, which is in spanheap's own program
//! (built with the feature `peers`). A cache, a ring of messages or an index would only grow.
//!
//! The long-lived tree has an allocator of its own. A tree has no more memory than its nodes, 16 bytes each, and the reset
//! keeps the largest chunk only, as bumpalo does.

use bumpalo::Bump;

use super::{Failure, Outcome, Result, in_threads, nodes, share, tree_depths};
use crate::options::Params;

/// Nodes that are built before a reset, unless a single tree has more: as in spanheap's program.
const BATCH_NODES: u64 = 1 << 14;

struct Node<'b> {
    left: Option<&'b Node<'b>>,
    right: Option<&'b Node<'b>>,
}

pub fn binary_trees(params: &Params) -> Result<Outcome> {
    let depth = params.get("depth");
    let stretch = count(build(&Bump::new(), depth + 1));
    if stretch != nodes(depth + 1) {
        return Err(Failure::new(format!("the stretch tree has {stretch} nodes")));
    }
    let bump = Bump::new();
    let long_lived = build(&bump, depth);
    let sums = in_threads(params.threads, |index| {
        let (mut bump, mut sum) = (Bump::new(), 0);
        for (small, trees) in tree_depths(depth) {
            let batch = (BATCH_NODES / nodes(small)).max(1);
            let mut left = share(trees, params.threads, index);
            while left > 0 {
                let now = left.min(batch);
                sum += (0..now).map(|_| count(build(&bump, small))).sum::<u64>();
                bump.reset();
                left -= now;
            }
        }
        Ok(sum)
    })?;
    let kept = count(long_lived);
    std::mem::forget(bump);
    Ok(Outcome::plain(sums.iter().sum::<u64>() + kept))
}

/// A complete tree, children first.
fn build(bump: &Bump, depth: u64) -> &Node<'_> {
    if depth == 0 {
        return bump.alloc(Node { left: None, right: None });
    }
    let left = build(bump, depth - 1);
    let right = build(bump, depth - 1);
    bump.alloc(Node { left: Some(left), right: Some(right) })
}

/// Counts by looking, not by knowing.
fn count(node: &Node<'_>) -> u64 {
    match (node.left, node.right) {
        (Some(left), Some(right)) => 1 + count(left) + count(right),
        _ => 1,
    }
}
