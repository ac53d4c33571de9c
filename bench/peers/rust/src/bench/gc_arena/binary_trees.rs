//! `binary-trees` for gc-arena. Trees are built in batches, each in a closure, as in spanheap's program.

use gc_arena::{Arena, Collect, Gc, Mutation, Rootable};

use super::pace;
use crate::bench::{Failure, Outcome, Result, in_threads, no_arena, nodes, share, tree_depths};
use crate::options::Params;

/// Nodes that are built in one closure, unless a single tree has more.
const BATCH_NODES: u64 = 1 << 14;

#[derive(Collect)]
#[collect(no_drop)]
struct Node<'gc> {
    left: Option<Gc<'gc, Node<'gc>>>,
    right: Option<Gc<'gc, Node<'gc>>>,
}

/// The long-lived tree, where there is one.
type Trees = Arena<Rootable![Option<Gc<'_, Node<'_>>>]>;

pub fn binary_trees(params: &Params) -> Result<Outcome> {
    no_arena(params)?;
    let depth = params.get("depth");
    let mut arena = Trees::new(|_| None);
    pace(arena.metrics(), params);
    let stretch = arena.mutate(|mc, _| count(build(mc, depth + 1)));
    if stretch != nodes(depth + 1) {
        return Err(Failure::new(format!("the stretch tree has {stretch} nodes")));
    }
    arena.collect_debt();
    arena.mutate_root(|mc, root| *root = Some(build(mc, depth)));
    arena.collect_debt();
    let sum = match params.threads {
        1 => short_lived(&mut arena, depth, |trees| trees),
        threads => {
            let sums = in_threads(threads, |index| {
                let mut arena = Trees::new(|_| None);
                pace(arena.metrics(), params);
                Ok(short_lived(&mut arena, depth, |trees| share(trees, threads, index)))
            })?;
            sums.iter().sum()
        }
    };
    let kept = arena.mutate(|_, root| root.map_or(0, count));
    std::mem::forget(arena);
    Ok(Outcome::plain(sum + kept))
}

/// Builds, counts and drops trees of all depths. Returns how many nodes they had.
fn short_lived(arena: &mut Trees, depth: u64, part: impl Fn(u64) -> u64) -> u64 {
    let mut sum = 0;
    for (small, trees) in tree_depths(depth) {
        let batch = (BATCH_NODES / nodes(small)).max(1);
        let mut left = part(trees);
        while left > 0 {
            let now = left.min(batch);
            sum += arena.mutate(|mc, _| (0..now).map(|_| count(build(mc, small))).sum::<u64>());
            arena.collect_debt();
            left -= now;
        }
    }
    sum
}

/// A complete tree, children first.
fn build<'gc>(mc: &Mutation<'gc>, depth: u64) -> Gc<'gc, Node<'gc>> {
    if depth == 0 {
        return Gc::new(mc, Node { left: None, right: None });
    }
    let left = build(mc, depth - 1);
    let right = build(mc, depth - 1);
    Gc::new(mc, Node { left: Some(left), right: Some(right) })
}

/// Counts by looking, not by knowing.
fn count(node: Gc<'_, Node<'_>>) -> u64 {
    match (node.left, node.right) {
        (Some(left), Some(right)) => 1 + count(left) + count(right),
        _ => 1,
    }
}
