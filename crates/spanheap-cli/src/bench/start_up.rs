//! `start-up`: heaps that are made, used a little, and dropped.
//!
//! ```text
//! each round:  make a heap;  a list of `objects` objects, held by a root, and looked through;  drop root and heap
//! ```
//! It is what a library pays that has a heap of its own for a short task, and what a short program pays before it
//! does anything. A whole round is one latency. The first is told by itself (`first_round_ns`), since what a process
//! needs once is in it; and so is the memory that the first heap has made resident while it is alive
//! (`first_resident_bytes`), and by how much the resident set has grown from the first round to the last
//! (`grown_resident_bytes`): a heap that is dropped should leave nothing.
//!
//! The common figures of the collector are those of the last heap.

use std::time::{Duration, Instant};

use spanheap::{Gc, Heap, HeapBuilder, Root, Rootable, Stats, Trace};

use super::histogram::Histogram;
use super::params::{Key, Params};
use super::report::Figure;
use super::{Outcome, Work, Workload};
use crate::failure::{Failure, Result};
use crate::process;

pub(super) const WORKLOAD: Workload = Workload {
    name: "start-up",
    keys: &[
        Key { name: "rounds", default: 1000, min: 1, max: u64::MAX },
        Key { name: "objects", default: 1000, min: 1, max: u64::MAX },
    ],
    footprint: |params| params.get("objects").checked_mul(size_of::<Node<'_>>() as u64),
    settings: |_, builder| builder,
    run: Work::OnHeaps(run),
};

#[derive(Trace)]
struct Node<'gc> {
    number: u64,
    next: Option<Gc<'gc, Node<'gc>>>,
}

type List = Root<Rootable![Node<'_>]>;

fn run(builder: &dyn Fn() -> HeapBuilder, params: &Params) -> Result<(Outcome, Stats)> {
    if params.threads != 1 {
        return Err(Failure::new("start-up runs on one thread"));
    }
    let (rounds, objects) = (params.get("rounds"), params.get("objects"));
    let (mut checksum, mut latency, mut last) = (0_u64, Histogram::new(), None);
    let (mut first, mut in_use, mut behind) = (Duration::ZERO, 0, 0);
    let before = process::resident();
    for round in 0..rounds {
        let begun = Instant::now();
        let heap = builder().build()?;
        let list = list(&heap, round, objects);
        checksum = checksum.wrapping_add(sum(&heap, &list));
        let used = begun.elapsed();
        // Outside of the time: it is about the first round and the last.
        if round == 0 {
            in_use = process::resident().saturating_sub(before);
        }
        if round + 1 == rounds {
            last = Some(heap.stats());
        }
        let ends = Instant::now();
        drop((list, heap));
        let took = used + ends.elapsed();
        latency.record(took.as_nanos() as u64);
        if round == 0 {
            (first, behind) = (took, process::resident());
        }
    }
    let figures = vec![
        Figure::count("first_round_ns", first.as_nanos() as u64),
        Figure::count("first_resident_bytes", in_use),
        Figure::count("grown_resident_bytes", process::resident().saturating_sub(behind)),
    ];
    let stats = last.ok_or_else(|| Failure::new("there was no round"))?;
    Ok((Outcome { checksum, latency: Some(("round", latency)), figures }, stats))
}

/// A list of so many objects, with numbers from `first` on. The root is the last one.
fn list(heap: &Heap, first: u64, objects: u64) -> List {
    heap.enter(|mc| {
        let start = mc.alloc(Node { number: first, next: None });
        let end = (1..objects).fold(start, |before, index| {
            mc.alloc(Node { number: first.wrapping_add(index), next: Some(before) })
        });
        mc.root(end)
    })
}

/// The sum of the numbers in a list.
fn sum(heap: &Heap, list: &List) -> u64 {
    heap.enter(|mc| {
        let (mut sum, mut link) = (0_u64, Some(list.get(mc)));
        while let Some(node) = link {
            sum = sum.wrapping_add(node.number);
            link = node.next;
        }
        sum
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_its_objects() {
        let settings = ["rounds=3".to_owned(), "objects=100".to_owned()];
        let params = Params::parse(WORKLOAD.keys, &settings, 1).expect("fine");
        let (outcome, stats) = run(&Heap::builder, &params).expect("memory");
        // 0 + .. + 99 each time, and what a round adds to each number.
        assert_eq!(outcome.checksum, 3 * (99 * 50) + 100 * (1 + 2));
        assert_eq!(stats.cycles, 0, "so few objects start no cycle");
    }
}
