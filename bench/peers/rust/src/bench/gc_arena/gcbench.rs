//! `gcbench` for gc-arena. The children of a node that was made before them are stored through the barrier, both
//! behind one.

use gc_arena::barrier::unlock;
use gc_arena::lock::Lock;
use gc_arena::{Arena, Collect, Gc, Mutation, Rootable};

use super::pace;
use crate::bench::gcbench::{GcBench, Temporary, intact};
use crate::bench::{Outcome, Result, in_threads, nodes};
use crate::options::Params;

/// Nodes that are built in one closure, unless a single tree has more.
const BATCH_NODES: u64 = 1 << 16;

type Link<'gc> = Lock<Option<Gc<'gc, Node<'gc>>>>;

/// As in the original: two references and two numbers that nobody uses.
#[derive(Collect)]
#[collect(no_drop)]
struct Node<'gc> {
    left: Link<'gc>,
    right: Link<'gc>,
    i: u32,
    j: u32,
}

/// What is kept while the temporary trees come and go.
#[derive(Collect)]
#[collect(no_drop)]
struct LongLived<'gc> {
    tree: Gc<'gc, Node<'gc>>,
    array: Box<[f64]>,
}

type Trees = Arena<Rootable![Option<LongLived<'_>>]>;

pub fn gcbench(params: &Params) -> Result<Outcome> {
    let bench = GcBench::new(params)?;
    let mut arena = Trees::new(|_| None);
    pace(arena.metrics(), params);
    arena.mutate(|mc, _| spine(bottom_up(mc, bench.stretch)));
    arena.collect_debt();
    arena.mutate_root(|mc, root| {
        let tree = top_down(mc, bench.long);
        *root = Some(LongLived { tree, array: bench.numbers().collect() });
    });
    arena.collect_debt();
    let parts = match params.threads {
        1 => vec![temporary(&mut arena, &bench, 1, 0)],
        threads => in_threads(threads, |index| {
            let mut arena = Trees::new(|_| None);
            pace(arena.metrics(), params);
            Ok(temporary(&mut arena, &bench, threads, index))
        })?,
    };
    let kept = arena
        .mutate(|_, root| root.as_ref().map_or(0, |kept| count(kept.tree) + intact(&kept.array)));
    std::mem::forget(arena);
    Ok(bench.outcome(&parts, kept))
}

/// The temporary trees of a thread.
fn temporary(arena: &mut Trees, bench: &GcBench, threads: usize, index: usize) -> Temporary {
    let mut part = Temporary::default();
    for (depth, trees) in bench.temporary(threads, index) {
        part.top_down(|| batches(arena, depth, trees, |mc| spine(top_down(mc, depth))));
        part.bottom_up(|| batches(arena, depth, trees, |mc| spine(bottom_up(mc, depth))));
    }
    part
}

/// Makes `trees` trees with `make`, in batches, and adds up what it returns.
fn batches(arena: &mut Trees, depth: u64, trees: u64, make: impl Fn(&Mutation<'_>) -> u64) -> u64 {
    let batch = (BATCH_NODES / nodes(depth)).max(1);
    let (mut sum, mut left) = (0, trees);
    while left > 0 {
        let now = left.min(batch);
        sum += arena.mutate(|mc, _| (0..now).map(|_| make(mc)).sum::<u64>());
        arena.collect_debt();
        left -= now;
    }
    sum
}

fn empty<'gc>(mc: &Mutation<'gc>) -> Gc<'gc, Node<'gc>> {
    Gc::new(mc, Node { left: Lock::new(None), right: Lock::new(None), i: 0, j: 0 })
}

/// A complete tree, parents first.
fn top_down<'gc>(mc: &Mutation<'gc>, depth: u64) -> Gc<'gc, Node<'gc>> {
    let root = empty(mc);
    populate(mc, root, depth);
    root
}

/// Gives `node` subtrees of a depth one less, from the top down.
fn populate<'gc>(mc: &Mutation<'gc>, node: Gc<'gc, Node<'gc>>, depth: u64) {
    if depth == 0 {
        return;
    }
    let (left, right) = (empty(mc), empty(mc));
    let write = Gc::write(mc, node);
    unlock!(write, Node, left).set(Some(left));
    unlock!(write, Node, right).set(Some(right));
    populate(mc, left, depth - 1);
    populate(mc, right, depth - 1);
}

/// A complete tree, children first.
fn bottom_up<'gc>(mc: &Mutation<'gc>, depth: u64) -> Gc<'gc, Node<'gc>> {
    if depth == 0 {
        return empty(mc);
    }
    let left = Lock::new(Some(bottom_up(mc, depth - 1)));
    let right = Lock::new(Some(bottom_up(mc, depth - 1)));
    Gc::new(mc, Node { left, right, i: 0, j: 0 })
}

/// How many nodes lie on the way to the leftmost leaf, plus the numbers found there, which are 0.
fn spine<'gc>(node: Gc<'gc, Node<'gc>>) -> u64 {
    let own = |node: Gc<'gc, Node<'gc>>| 1 + u64::from(node.i) + u64::from(node.j);
    let (mut length, mut node) = (own(node), node);
    while let Some(left) = node.left.get() {
        length += own(left);
        node = left;
    }
    length
}

fn count<'gc>(node: Gc<'gc, Node<'gc>>) -> u64 {
    let below = |child: Option<Gc<'gc, Node<'gc>>>| child.map_or(0, count);
    1 + below(node.left.get()) + below(node.right.get())
}
