//! `marking`: how long a cycle takes for graphs of different shapes, and nothing else.
//!
//! A graph is built and held by a root, and then collected again and again; each collection finds all of it alive.
//! ```text
//! shape 0   a tree: each object points to three younger ones, 64 bytes
//! shape 1   a random graph: each object points to four others, anywhere; 48, 64 and 96 bytes, mixed in memory
//! shape 2   one list in the order of allocation, 64 bytes
//! shape 3   1024 lists, their objects taking turns in memory, 64 bytes
//! shape 4   32 arrays of pointers to leaves of 32 bytes without pointers
//! shape 5   an array of pointers to blocks of 1 KiB without pointers
//! ```
//! What holds a graph is as little as possible, one object if it has a beginning: an array of all objects would show
//! the collector at once what it should have to look for. About 2 % of a random graph cannot be reached from there and
//! are gone before the measuring begins.
//!
//! The latencies are those of the collections, from the request to the end of the sweep. At the end the program walks
//! the graph itself: the checksum adds up the numbers of the objects, each plus one, and how many there are must be
//! what the last collection has counted.
//!
//! [`graph`] has the graphs, [`random`] the one of mixed sizes.

mod graph;
mod random;

use std::time::{Duration, Instant};

use spanheap::{Collected, Heap};

use super::histogram::Histogram;
use super::params::{Key, Params};
use super::report::Figure;
use super::{Outcome, Work, Workload};
use crate::failure::{Failure, Result};
use crate::process;
use graph::{Graph, Reached};

pub(super) const WORKLOAD: Workload = Workload {
    name: "marking",
    keys: &[
        Key { name: "objects", default: 1_000_000, min: 1024, max: 1 << 32 },
        Key { name: "shape", default: 1, min: 0, max: 5 },
        Key { name: "rounds", default: 10, min: 1, max: 1_000_000 },
    ],
    footprint: |params| params.get("objects").checked_mul(graph::weight(params.get("shape"))),
    settings: |_, builder| builder,
    run: Work::OnHeap(run),
};

/// How many objects are made in one `enter`.
const BATCH: usize = 1 << 14;

fn run(heap: &Heap, params: &Params) -> Result<Outcome> {
    if params.threads != 1 {
        return Err(Failure::new("marking runs on one thread: its work is the collector's"));
    }
    let rounds = params.get("rounds");
    let objects = usize::try_from(params.get("objects"))
        .map_err(|_| Failure::new("so many objects have no addresses"))?;
    let graph = Graph::build(heap, params.get("shape"), objects);
    // What was needed to build it goes before anything is measured.
    collect(heap)?;
    let mut latency = Histogram::new();
    let (cpu, started) = (process::cpu_time(), Instant::now());
    for _ in 0..rounds {
        let begun = Instant::now();
        collect(heap)?;
        latency.record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    let (wall, cpu) = (started.elapsed(), process::cpu_time().since(cpu).total());
    let retained = heap.stats().live_objects;
    let reached = graph.walk(heap, objects);
    if retained != reached.objects + reached.arrays {
        return Err(Failure::new(format!(
            "a collection has retained {retained} objects, and there are {} and {} arrays",
            reached.objects, reached.arrays
        )));
    }
    let figures = figures(&reached, rounds, wall, cpu);
    Ok(Outcome { checksum: reached.sum, latency: Some(("cycle", latency)), figures })
}

fn collect(heap: &Heap) -> Result<()> {
    match heap.collect() {
        Collected::Complete => Ok(()),
        Collected::Requested => Err(Failure::new("a collection was not completed")),
    }
}

fn figures(reached: &Reached, rounds: u64, wall: Duration, cpu: Duration) -> Vec<Figure> {
    let marked = (reached.objects * rounds) as f64;
    vec![
        Figure::count("reached", reached.objects),
        Figure::count("reached_bytes", reached.bytes),
        Figure::real("cpu_ns_per_object", cpu.as_nanos() as f64 / marked),
        Figure::real("wall_ns_per_object", wall.as_nanos() as f64 / marked),
        Figure::real("cycle_bytes_per_s", (reached.bytes * rounds) as f64 / wall.as_secs_f64()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(shape: u64) -> Outcome {
        let heap = Heap::new();
        let settings = ["objects=5000".into(), format!("shape={shape}"), "rounds=3".into()];
        let params = Params::parse(WORKLOAD.keys, &settings, 1).expect("fine");
        run(&heap, &params).expect("memory, and what the collector counts is what there is")
    }

    #[test]
    fn every_object_of_every_shape_is_found_alive() {
        for (shape, bytes) in [(0, 64), (2, 64), (3, 64), (4, 32), (5, 1024)] {
            let outcome = outcome(shape);
            assert_eq!(outcome.checksum, 5000 * 5001 / 2, "shape {shape}");
            assert_eq!(outcome.figures[1].key, "reached_bytes");
            let weight = format!("{:?}", outcome.figures[1].value);
            assert_eq!(weight, format!("Count({})", 5000 * bytes), "shape {shape}");
        }
    }

    #[test]
    fn most_of_a_random_graph_is_reached_and_the_same_part_each_time() {
        let first = outcome(1);
        assert_eq!(first.checksum, outcome(1).checksum);
        let all = 5000 * 5001 / 2;
        assert!(first.checksum > all / 10 * 9 && first.checksum < all, "{}", first.checksum);
    }
}
