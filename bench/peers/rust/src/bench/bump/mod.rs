//! bumpalo: a bump allocator, which frees all of its objects at once.
//!
//! # What it cannot do
//! Nothing is freed alone, and destructors do not run. So it can do what has phases: `binary-trees` with `arena=1`,
//! where each tree is a phase at whose end the allocator is reset, and `request-arena`, which is in spanheap's own
//! program (built with the feature `peers`). A cache, a ring of messages or an index would only grow.
//!
//! A reset keeps the largest chunk only, which is how bumpalo is made.

use bumpalo::Bump;

use super::{Failure, Outcome, Result, in_threads, nodes, share, tree_depths};
use crate::options::Params;

struct Node<'b> {
    left: Option<&'b Node<'b>>,
    right: Option<&'b Node<'b>>,
}

pub fn binary_trees(params: &Params) -> Result<Outcome> {
    if params.get("arena") == 0 {
        return Err(Failure::not_applicable("it frees no single tree; arena=1 is what it can do"));
    }
    let depth = params.get("depth");
    let stretch = count(build(&Bump::new(), depth + 1));
    if stretch != nodes(depth + 1) {
        return Err(Failure::new(format!("the stretch tree has {stretch} nodes")));
    }
    let bump = Bump::new();
    let long_lived = build(&bump, depth);
    let sums = in_threads(params.threads, |index| {
        let mut sum = 0;
        for (small, trees) in tree_depths(depth) {
            let mut bump = Bump::new();
            for _ in 0..share(trees, params.threads, index) {
                sum += count(build(&bump, small));
                bump.reset();
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
