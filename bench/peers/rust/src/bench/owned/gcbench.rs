//! `gcbench` for owned memory.

use super::Pointer;
use crate::bench::gcbench::{GcBench, Temporary, intact};
use crate::bench::{Outcome, Result, in_threads};
use crate::options::Params;

/// As in the original: two references and two numbers that nobody uses.
struct Node<P: Pointer> {
    left: Option<P::To<Node<P>>>,
    right: Option<P::To<Node<P>>>,
    i: u32,
    j: u32,
}

pub fn gcbench<P: Pointer>(params: &Params) -> Result<Outcome> {
    let bench = GcBench::new(params)?;
    spine(&*bottom_up::<P>(bench.stretch));
    let tree = top_down::<P>(bench.long);
    let array: Box<[f64]> = bench.numbers().collect();
    let parts = in_threads(params.threads, |index| {
        let mut part = Temporary::default();
        for (depth, trees) in bench.temporary(params.threads, index) {
            part.top_down(|| (0..trees).map(|_| spine(&*top_down::<P>(depth))).sum());
            part.bottom_up(|| (0..trees).map(|_| spine(&*bottom_up::<P>(depth))).sum());
        }
        Ok(part)
    })?;
    let kept = count(&*tree) + intact(&array);
    std::mem::forget((tree, array));
    Ok(bench.outcome(&parts, kept))
}

fn empty<P: Pointer>() -> P::To<Node<P>> {
    P::new(Node { left: None, right: None, i: 0, j: 0 })
}

/// A complete tree, parents first.
fn top_down<P: Pointer>(depth: u64) -> P::To<Node<P>> {
    let mut root = empty::<P>();
    populate::<P>(P::exclusive(&mut root), depth);
    root
}

/// Gives `node` subtrees of a depth one less, from the top down.
fn populate<P: Pointer>(node: &mut Node<P>, depth: u64) {
    if depth == 0 {
        return;
    }
    let left = node.left.insert(empty::<P>());
    let right = node.right.insert(empty::<P>());
    populate::<P>(P::exclusive(left), depth - 1);
    populate::<P>(P::exclusive(right), depth - 1);
}

/// A complete tree, children first.
fn bottom_up<P: Pointer>(depth: u64) -> P::To<Node<P>> {
    if depth == 0 {
        return empty::<P>();
    }
    let left = Some(bottom_up::<P>(depth - 1));
    let right = Some(bottom_up::<P>(depth - 1));
    P::new(Node { left, right, i: 0, j: 0 })
}

/// How many nodes lie on the way to the leftmost leaf, plus the numbers found there, which are 0.
fn spine<P: Pointer>(node: &Node<P>) -> u64 {
    let own = |node: &Node<P>| 1 + u64::from(node.i) + u64::from(node.j);
    let (mut length, mut node) = (own(node), node);
    while let Some(left) = &node.left {
        length += own(left);
        node = left;
    }
    length
}

fn count<P: Pointer>(node: &Node<P>) -> u64 {
    let below = |child: &Option<P::To<Node<P>>>| child.as_deref().map_or(0, count::<P>);
    1 + below(&node.left) + below(&node.right)
}
