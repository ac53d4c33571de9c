//! `gcbench` for dumpster. Children are set once, after their parent was made.

use dumpster::Trace;

use super::{Gc, Once};
use crate::bench::gcbench::{GcBench, Temporary, intact};
use crate::bench::{Outcome, Result, in_threads};
use crate::options::Params;

/// As in the original: two references and two numbers that nobody uses.
#[derive(Trace)]
struct Node {
    left: Once<Gc<Node>>,
    right: Once<Gc<Node>>,
    i: u32,
    j: u32,
}

pub fn run(params: &Params) -> Result<Outcome> {
    let bench = GcBench::new(params)?;
    spine(&bottom_up(bench.stretch));
    let tree = top_down(bench.long);
    let array: Gc<[f64]> = bench.numbers().collect();
    let parts = in_threads(params.threads, |index| {
        let mut part = Temporary::default();
        for (depth, trees) in bench.temporary(params.threads, index) {
            part.top_down(|| (0..trees).map(|_| spine(&top_down(depth))).sum());
            part.bottom_up(|| (0..trees).map(|_| spine(&bottom_up(depth))).sum());
        }
        Ok(part)
    })?;
    let kept = count(&tree) + intact(&array);
    std::mem::forget((tree, array));
    Ok(bench.outcome(&parts, kept))
}

fn empty() -> Gc<Node> {
    Gc::new(Node { left: Once::new(), right: Once::new(), i: 0, j: 0 })
}

/// A complete tree, parents first.
fn top_down(depth: u64) -> Gc<Node> {
    let root = empty();
    populate(&root, depth);
    root
}

/// Gives `node` subtrees of a depth one less, from the top down.
fn populate(node: &Node, depth: u64) {
    if depth == 0 {
        return;
    }
    let left = node.left.get_or_init(empty);
    let right = node.right.get_or_init(empty);
    populate(left, depth - 1);
    populate(right, depth - 1);
}

/// A complete tree, children first.
fn bottom_up(depth: u64) -> Gc<Node> {
    if depth == 0 {
        return empty();
    }
    let left = Once::from(bottom_up(depth - 1));
    let right = Once::from(bottom_up(depth - 1));
    Gc::new(Node { left, right, i: 0, j: 0 })
}

/// How many nodes lie on the way to the leftmost leaf, plus the numbers found there, which are 0.
fn spine(node: &Node) -> u64 {
    let own = |node: &Node| 1 + u64::from(node.i) + u64::from(node.j);
    let (mut length, mut node) = (own(node), node);
    while let Some(left) = node.left.get() {
        length += own(left);
        node = left;
    }
    length
}

fn count(node: &Node) -> u64 {
    let below = |child: &Once<Gc<Node>>| child.get().map_or(0, |child| count(child));
    1 + below(&node.left) + below(&node.right)
}
