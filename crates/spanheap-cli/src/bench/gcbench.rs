//! `gcbench`: old objects that point at young ones, and large objects.
//!
//! GCBench, by John Ellis and Pete Kovac, with changes by Hans Boehm, in its classic sizes. It builds
//! trees in two ways: *bottom-up*, where children exist before their parent and nothing is ever
//! changed, and *top-down*, where a node is allocated first and then given its children, so that
//! every link is a store through the write barrier into an older object.
//! ```text
//! stretch      build a tree of depth `stretch` bottom-up, drop it
//! long-lived   build a tree of depth `longlived` top-down, and an array of `array` numbers; keep both
//! for d = min, min + 2 .. max:
//!     the same number of trees of depth d top-down and bottom-up: as many as make up
//!     twice the nodes of the stretch tree; drop each
//! ```
//! The original looks at none of the temporary trees. Here the checksum adds up the lengths of their left
//! spines, a few loads for each; and the nodes of the long-lived tree and the numbers of the array that
//! are as they were made.
//!
//! `top_down_s` and `bottom_up_s` are the wall times of the two ways, the mean of the threads.
//!
//! Trees are built in batches, for the reason given in `binary_trees.rs`; with several threads each
//! takes its share of the trees of each depth.

use std::time::{Duration, Instant};

use spanheap::{Gc, GcCell, Heap, Mutator, Root, Rootable, Trace};

use super::params::{Key, Params};
use super::report::Figure;
use super::{Outcome, Work, Workload, in_threads, share};
use crate::failure::{Failure, Result};

pub(super) const WORKLOAD: Workload = Workload {
    name: "gcbench",
    keys: &[
        Key { name: "stretch", default: 18, min: 1, max: 56 },
        Key { name: "longlived", default: 16, min: 1, max: 56 },
        Key { name: "array", default: 500_000, min: 1, max: u64::MAX },
        Key { name: "min", default: 4, min: 1, max: 56 },
        Key { name: "max", default: 16, min: 1, max: 56 },
    ],
    footprint,
    settings: |_, builder| builder,
    run: Work::OnHeap(run),
};

/// Nodes that are built in one `enter`, unless a single tree has more.
const BATCH_NODES: u64 = 1 << 16;

/// As in the original: two references and two numbers that nobody uses.
#[derive(Trace)]
struct Node<'gc> {
    left: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
    right: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
    i: u32,
    j: u32,
}

/// What is kept while the temporary trees come and go.
#[derive(Trace)]
struct LongLived<'gc> {
    tree: Gc<'gc, Node<'gc>>,
    array: Gc<'gc, [f64]>,
}

/// How many nodes a complete tree has.
fn nodes(depth: u64) -> u64 {
    (2 << depth) - 1
}

/// The largest tree, the long-lived one, and the array.
fn footprint(params: &Params) -> Option<u64> {
    let largest = params.get("stretch").max(params.get("max"));
    let nodes = nodes(largest).checked_add(nodes(params.get("longlived")))?;
    let trees = nodes.checked_mul(size_of::<Node<'_>>() as u64)?;
    trees.checked_add(params.get("array").checked_mul(size_of::<f64>() as u64)?)
}

fn run(heap: &Heap, params: &Params) -> Result<Outcome> {
    let [stretch, long, array] = ["stretch", "longlived", "array"].map(|key| params.get(key));
    let [min, max] = ["min", "max"].map(|key| params.get(key));
    if min > max {
        return Err(Failure::new(format!("min is {min}, it must not be above max, {max}")));
    }
    heap.enter(|mc| spine(bottom_up(mc, stretch)));
    let kept: Root<Rootable![LongLived<'_>]> = heap.enter(|mc| {
        let tree = empty(mc);
        populate(mc, tree, long);
        let array = mc.alloc_slice((0..array as usize).map(reciprocal));
        mc.root(mc.alloc(LongLived { tree, array }))
    });
    let parts = in_threads(params.threads, |index| {
        let mut part = Part::default();
        for depth in (min..=max).step_by(2) {
            // At least one, if the trees are larger than the stretch tree.
            let trees = (2 * nodes(stretch) / nodes(depth)).max(1);
            let trees = share(trees, params.threads, index);
            let started = Instant::now();
            part.sum += temporary(heap, depth, trees, |mc| {
                let root = empty(mc);
                populate(mc, root, depth);
                spine(root)
            });
            let between = Instant::now();
            part.sum += temporary(heap, depth, trees, |mc| spine(bottom_up(mc, depth)));
            part.top_down += between - started;
            part.bottom_up += between.elapsed();
        }
        Ok(part)
    })?;
    let intact = heap.enter(|mc| {
        let kept = kept.get(mc);
        let numbers = kept.array.iter().enumerate();
        let same = numbers.filter(|&(i, &number)| number == reciprocal(i)).count();
        count(kept.tree) + same as u64
    });
    let sum = parts.iter().map(|part| part.sum).sum::<u64>();
    let mean = |time: fn(&Part) -> Duration| {
        parts.iter().map(time).sum::<Duration>().as_secs_f64() / parts.len() as f64
    };
    let figures = vec![
        Figure::real("top_down_s", mean(|part| part.top_down)),
        Figure::real("bottom_up_s", mean(|part| part.bottom_up)),
    ];
    Ok(Outcome { checksum: sum + intact, latency: None, figures })
}

/// What a thread did with temporary trees, and how long each of the two ways took.
#[derive(Default)]
struct Part {
    sum: u64,
    top_down: Duration,
    bottom_up: Duration,
}

/// Makes `trees` trees with `make`, in batches, and adds up what it returns.
fn temporary(heap: &Heap, depth: u64, trees: u64, make: impl Fn(&Mutator<'_>) -> u64) -> u64 {
    let batch = (BATCH_NODES / nodes(depth)).max(1);
    let mut sum = 0;
    let mut left = trees;
    while left > 0 {
        let now = left.min(batch);
        sum += heap.enter(|mc| (0..now).map(|_| make(mc)).sum::<u64>());
        left -= now;
    }
    sum
}

fn reciprocal(index: usize) -> f64 {
    1.0 / (index + 1) as f64
}

fn empty<'gc>(mc: &Mutator<'gc>) -> Gc<'gc, Node<'gc>> {
    mc.alloc(Node { left: GcCell::new(None), right: GcCell::new(None), i: 0, j: 0 })
}

/// Gives `node` subtrees of a depth one less, from the top down.
fn populate<'gc>(mc: &Mutator<'gc>, node: Gc<'gc, Node<'gc>>, depth: u64) {
    if depth == 0 {
        return;
    }
    let (left, right) = (empty(mc), empty(mc));
    node.left.set(mc, Some(left));
    node.right.set(mc, Some(right));
    populate(mc, left, depth - 1);
    populate(mc, right, depth - 1);
}

/// A complete tree, children first.
fn bottom_up<'gc>(mc: &Mutator<'gc>, depth: u64) -> Gc<'gc, Node<'gc>> {
    if depth == 0 {
        return empty(mc);
    }
    let left = Some(bottom_up(mc, depth - 1));
    let right = Some(bottom_up(mc, depth - 1));
    mc.alloc(Node { left: GcCell::new(left), right: GcCell::new(right), i: 0, j: 0 })
}

/// How many nodes lie on the way to the leftmost leaf, plus the numbers found there, which are 0.
fn spine<'gc>(node: Gc<'gc, Node<'gc>>) -> u64 {
    let mut length = 1 + u64::from(node.i) + u64::from(node.j);
    let mut node = node;
    while let Some(left) = node.left.get() {
        length += 1 + u64::from(left.i) + u64::from(left.j);
        node = left;
    }
    length
}

fn count<'gc>(node: Gc<'gc, Node<'gc>>) -> u64 {
    let below = |child: Option<Gc<'gc, Node<'gc>>>| child.map_or(0, count);
    1 + below(node.left.get()) + below(node.right.get())
}
