//! `binary-trees` for dumpster. No pointer is ever copied, so every node is freed by its count, like an `Rc`.

use dumpster::Trace;

use super::Gc;
use crate::bench::{Failure, Outcome, Result, in_threads, no_arena, nodes, share, tree_depths};
use crate::options::Params;

#[derive(Trace)]
struct Node {
    left: Option<Gc<Node>>,
    right: Option<Gc<Node>>,
}

pub fn run(params: &Params) -> Result<Outcome> {
    no_arena(params)?;
    let depth = params.get("depth");
    let stretch = count(&build(depth + 1));
    if stretch != nodes(depth + 1) {
        return Err(Failure::new(format!("the stretch tree has {stretch} nodes")));
    }
    let long_lived = build(depth);
    let sums = in_threads(params.threads, |index| {
        let mut sum = 0;
        for (small, trees) in tree_depths(depth) {
            for _ in 0..share(trees, params.threads, index) {
                sum += count(&build(small));
            }
        }
        Ok(sum)
    })?;
    let kept = count(&long_lived);
    std::mem::forget(long_lived);
    Ok(Outcome::plain(sums.iter().sum::<u64>() + kept))
}

/// A complete tree, children first.
fn build(depth: u64) -> Gc<Node> {
    if depth == 0 {
        return Gc::new(Node { left: None, right: None });
    }
    let left = build(depth - 1);
    let right = build(depth - 1);
    Gc::new(Node { left: Some(left), right: Some(right) })
}

/// Counts by looking, not by knowing.
fn count(node: &Node) -> u64 {
    match (&node.left, &node.right) {
        (Some(left), Some(right)) => 1 + count(left) + count(right),
        _ => 1,
    }
}
