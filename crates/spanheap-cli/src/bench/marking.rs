//! `marking`: how long a cycle takes for graphs of different shapes, and nothing else.
//!
//! A graph is built and held by a root, and then collected again and again; each collection finds all of it alive.
//! ```text
//! shape 0   a tree: each object points to two younger ones
//! shape 1   a random graph: each object points to four others, anywhere
//! shape 2   one list in the order of allocation
//! shape 3   1024 lists, their objects taking turns in memory
//! ```
//! The latencies are those of the collections, from the request to the end of the sweep. The checksum adds up the
//! numbers of the objects that a collection retained.
//!
//! The objects of a random graph are reached through a large array, so that none is unreachable.

use std::time::Instant;

use spanheap::{Collected, Gc, GcCell, Heap, Mutator, Root, Rootable, Trace};

use super::histogram::Histogram;
use super::params::{Key, Params};
use super::{Outcome, Workload};
use crate::failure::{Failure, Result};

pub(super) const WORKLOAD: Workload = Workload {
    name: "marking",
    keys: &[
        Key { name: "objects", default: 1_000_000, min: 1, max: 1 << 32 },
        Key { name: "shape", default: 1, min: 0, max: 3 },
        Key { name: "rounds", default: 10, min: 1, max: 1_000_000 },
    ],
    footprint,
    settings: |_, builder| builder,
    run,
};

/// How many objects are made in one `enter`.
const BATCH: usize = 1 << 14;

/// How many lists there are in shape 3.
const LISTS: usize = 1024;

type Link<'gc> = GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>;

#[derive(Trace)]
struct Node<'gc> {
    edges: [Link<'gc>; 4],
    number: u64,
}

type Nodes = Root<Rootable![[Link<'_>]]>;

fn footprint(params: &Params) -> Option<u64> {
    let each = size_of::<Node<'_>>() + size_of::<Link<'_>>();
    params.get("objects").checked_mul(each as u64)
}

fn run(heap: &Heap, params: &Params) -> Result<Outcome> {
    let (shape, rounds) = (params.get("shape"), params.get("rounds"));
    let objects = usize::try_from(params.get("objects"))
        .map_err(|_| Failure::new("so many objects have no addresses"))?;
    let nodes = build(heap, objects);
    link_all(heap, &nodes, objects, shape);
    // Lists and trees are held by their ends alone, or the array would find everything at once.
    let held = match shape {
        1 => nodes,
        _ => {
            let held = ends(heap, &nodes, if shape == 3 { LISTS.min(objects) } else { 1 });
            drop(nodes);
            held
        }
    };
    let mut latency = Histogram::new();
    let mut checksum = 0u64;
    for _ in 0..rounds {
        let begun = Instant::now();
        if heap.collect() != Collected::Complete {
            return Err(Failure::new("a collection was not completed"));
        }
        latency.record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        checksum = checksum.wrapping_add(heap.stats().live_objects);
    }
    drop(held);
    Ok(Outcome { checksum, latency: Some(("cycle", latency)), figures: Vec::new() })
}

/// Makes the objects, and an array of them.
fn build(heap: &Heap, objects: usize) -> Nodes {
    let nodes: Nodes =
        heap.enter(|mc| mc.root(mc.alloc_slice((0..objects).map(|_| Link::new(None)))));
    for first in (0..objects).step_by(BATCH) {
        heap.enter(|mc| {
            let nodes = nodes.get(mc);
            for number in first..objects.min(first + BATCH) {
                let edges = std::array::from_fn(|_| Link::new(None));
                nodes[number].set(mc, Some(mc.alloc(Node { edges, number: number as u64 })));
            }
        });
    }
    nodes
}

/// Links the objects as the shape wants it.
fn link_all(heap: &Heap, nodes: &Nodes, objects: usize, shape: u64) {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut anywhere = move || {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 20) as usize % objects
    };
    for first in (0..objects).step_by(BATCH) {
        heap.enter(|mc| {
            let nodes = nodes.get(mc);
            for number in first..objects.min(first + BATCH) {
                let targets = match shape {
                    0 => [2 * number + 1, 2 * number + 2, objects, objects],
                    1 => [anywhere(), anywhere(), anywhere(), anywhere()],
                    2 => [number + 1, objects, objects, objects],
                    _ => [number + LISTS, objects, objects, objects],
                };
                link(mc, &nodes, number, targets);
            }
        });
    }
}

/// Lets an object point to others; a number that no object has stands for nothing.
fn link<'gc>(mc: &Mutator<'gc>, nodes: &[Link<'gc>], number: usize, targets: [usize; 4]) {
    let Some(node) = nodes[number].get() else { return };
    for (edge, target) in node.edges.iter().zip(targets) {
        edge.set(mc, nodes.get(target).and_then(GcCell::get));
    }
}

/// An array of the first `count` objects.
fn ends(heap: &Heap, nodes: &Nodes, count: usize) -> Nodes {
    heap.enter(|mc| {
        let nodes = nodes.get(mc);
        mc.root(mc.alloc_slice((0..count).map(|number| Link::new(nodes[number].get()))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_object_of_every_shape_is_found_alive() {
        for shape in 0..4 {
            let heap = Heap::new();
            let settings = ["objects=5000".into(), format!("shape={shape}"), "rounds=3".into()];
            let params = Params::parse(WORKLOAD.keys, &settings, 1).expect("fine");
            let outcome = run(&heap, &params).expect("memory");
            // The objects and the array that holds them.
            assert_eq!(outcome.checksum, 3 * 5001, "shape {shape}");
        }
    }
}
