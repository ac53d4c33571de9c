//! `binary-trees` for owned memory: a tree is freed node by node as soon as it was counted.

use super::Pointer;
use crate::bench::{Failure, Outcome, Result, in_threads, no_arena, nodes, share, tree_depths};
use crate::options::Params;

struct Node<P: Pointer> {
    left: Option<P::To<Node<P>>>,
    right: Option<P::To<Node<P>>>,
}

pub fn binary_trees<P: Pointer>(params: &Params) -> Result<Outcome> {
    no_arena(params)?;
    let depth = params.get("depth");
    let stretch = count(&*build::<P>(depth + 1));
    if stretch != nodes(depth + 1) {
        return Err(Failure::new(format!("the stretch tree has {stretch} nodes")));
    }
    let long_lived = build::<P>(depth);
    let sums = in_threads(params.threads, |index| {
        let mut sum = 0;
        for (small, trees) in tree_depths(depth) {
            for _ in 0..share(trees, params.threads, index) {
                sum += count(&*build::<P>(small));
            }
        }
        Ok(sum)
    })?;
    let kept = count(&*long_lived);
    std::mem::forget(long_lived);
    Ok(Outcome::plain(sums.iter().sum::<u64>() + kept))
}

/// A complete tree, children first.
fn build<P: Pointer>(depth: u64) -> P::To<Node<P>> {
    if depth == 0 {
        return P::new(Node { left: None, right: None });
    }
    let left = build::<P>(depth - 1);
    let right = build::<P>(depth - 1);
    P::new(Node { left: Some(left), right: Some(right) })
}

/// Counts by looking, not by knowing.
fn count<P: Pointer>(node: &Node<P>) -> u64 {
    match (&node.left, &node.right) {
        (Some(left), Some(right)) => 1 + count::<P>(left) + count::<P>(right),
        _ => 1,
    }
}
