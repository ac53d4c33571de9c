//! `spatial-index`: a large R-tree that is asked for nearest neighbours, while some of its points move.
//!
//! Most of the heap is old and lives long: nodes of 784 bytes full of pointers, and the points. A query makes some
//! three kilobytes of garbage, its queue and its result; a move makes a new point in place of an old one and now and
//! then a node. So what is asked is what a cycle costs beside queries that allocate little and read a lot.
//! ```text
//! build:           `points` points, inserted one by one, at random places
//! each operation:  90 %: the `k` nearest neighbours of a random place;  10 %: a random point moves a little
//! ```
//! **Each operation is one `enter`**, timed outside. With several threads, each has a tree of its own in the common
//! heap, with its share of the points and of the operations. The checksum adds up what queries find and, at the end,
//! all points; it does not depend on how a tree is divided.
//!
//! At the end every tree is checked: each rectangle is that of what is below it, each point is where the table says,
//! no node is too full or too empty.
//!
//! # Modules
//! [`rect`]: rectangles and their arithmetic. [`node`]: points and nodes as they lie in the heap. [`tree`]: insertion,
//! removal, and the check. [`nearest`]: queries.

mod nearest;
mod node;
mod rect;
mod tree;

use std::time::{Duration, Instant};

use spanheap::{Gc, GcCell, Heap, Mutator, Root, Rootable, Trace};

use super::histogram::Histogram;
use super::params::{Key, Params};
use super::report::Figure;
use super::{Outcome, Work, Workload, in_threads, share};
use crate::failure::{Failure, Result};
use crate::random::Random;
use node::{Entry, Node, Point};
use tree::{Census, Tree};

pub(super) const WORKLOAD: Workload = Workload {
    name: "spatial-index",
    keys: &[
        Key { name: "points", default: 1_000_000, min: 1, max: 1 << 32 },
        Key { name: "operations", default: 500_000, min: 0, max: u64::MAX },
        Key { name: "k", default: 10, min: 1, max: 1024 },
    ],
    footprint,
    settings: |_, builder| builder,
    run: Work::OnHeap(run),
};

/// One operation in so many is a move.
const MOVE_ONE_IN: usize = 10;
/// Coordinates are below this.
const SIDE: u32 = 1 << 24;
/// A coordinate moves by so much at most.
const STEP: u32 = 1 << 14;
/// Points of the building that are inserted in one `enter`.
const BATCH: u64 = 1024;

/// Two thirds of a node are in use on average, and each node above the leaves has that many below it.
fn footprint(params: &Params) -> Option<u64> {
    let points = params.get("points");
    let nodes = points.div_ceil(20).checked_mul(size_of::<Node<'_>>() as u64)?;
    points.checked_mul(size_of::<Point>() as u64 + 8)?.checked_add(nodes + nodes / 20)
}

type Place<'gc> = GcCell<'gc, Option<Gc<'gc, Point>>>;

/// A tree, and its points by their ids.
#[derive(Trace)]
struct Index<'gc> {
    tree: Tree<'gc>,
    table: Gc<'gc, [Place<'gc>]>,
}

type IndexRoot = Root<Rootable![Index<'_>]>;

fn run(heap: &Heap, params: &Params) -> Result<Outcome> {
    let threads = params.threads;
    let [points, operations, k] = ["points", "operations", "k"].map(|key| params.get(key));
    if threads as u64 > points {
        let error = format!("{points} points cannot be shared by {threads} threads");
        return Err(Failure::new(error));
    }
    let started = Instant::now();
    let workers = in_threads(threads, |index| {
        Ok(Worker::build(heap, index as u64, share(points, threads, index)))
    })?;
    let built = started.elapsed();
    let before = heap.stats().allocated_bytes;
    let started = Instant::now();
    let parts = in_threads(threads, |index| {
        Ok(workers[index].operate(share(operations, threads, index), k as usize))
    })?;
    let wall = started.elapsed();
    let allocated = heap.stats().allocated_bytes.saturating_sub(before);
    let mut all = Part::default();
    parts.iter().for_each(|part| all.add(part));
    let mut census = Census::default();
    for worker in &workers {
        census.add(&worker.check()?);
    }
    let figures = vec![
        Figure::real("build_s", built.as_secs_f64()),
        Figure::real("ops_per_s", operations as f64 / wall.as_secs_f64()),
        Figure::real("allocated_bytes_per_op", allocated as f64 / operations as f64),
        Figure::count("queries", all.queried),
        Figure::count("moves", all.moved),
        Figure::count("move_p50_ns", all.moves.quantile(5_000)),
        Figure::count("move_p999_ns", all.moves.quantile(9_990)),
        Figure::count("move_max_ns", all.moves.quantile(10_000)),
        Figure::count("nodes", census.nodes),
        Figure::count("levels", census.levels),
    ];
    let checksum = all.checksum.wrapping_add(census.sum);
    Ok(Outcome { checksum, latency: Some(("query", all.queries)), figures })
}

/// What came of the operations.
#[derive(Default)]
struct Part {
    checksum: u64,
    queries: Histogram,
    queried: u64,
    moves: Histogram,
    moved: u64,
}

impl Part {
    fn add(&mut self, other: &Part) {
        self.checksum = self.checksum.wrapping_add(other.checksum);
        self.queries.merge(&other.queries);
        self.queried += other.queried;
        self.moves.merge(&other.moves);
        self.moved += other.moved;
    }
}

/// A thread's tree.
struct Worker<'a> {
    heap: &'a Heap,
    index: IndexRoot,
    points: u64,
    /// As the building has left it.
    random: Random,
}

impl<'a> Worker<'a> {
    /// Builds the tree of the thread with this number.
    fn build(heap: &'a Heap, number: u64, points: u64) -> Worker<'a> {
        let mut random = Random::new(100 + number);
        let index: IndexRoot = heap.enter(|mc| {
            let tree = Tree::new(mc);
            let table = mc.alloc_slice((0..points as usize).map(|_| Place::new(None)));
            mc.root(mc.alloc(Index { tree, table }))
        });
        for first in (0..points).step_by(BATCH as usize) {
            heap.enter(|mc| {
                let index = index.get(mc);
                for id in first..points.min(first + BATCH) {
                    let [x, y] = somewhere(&mut random);
                    index.put(mc, Point::new(id, 0, x, y));
                }
            });
        }
        Worker { heap, index, points, random }
    }

    /// Does so many operations.
    fn operate(&self, operations: u64, k: usize) -> Part {
        let (mut part, mut random) = (Part::default(), self.random.clone());
        for _ in 0..operations {
            if random.below(MOVE_ONE_IN) == 0 {
                let id = random.below(self.points as usize);
                let by = [(); 2].map(|()| random.below(2 * STEP as usize + 1) as u32);
                let took = self.timed(|mc, index| index.shift(mc, id, by)).0;
                part.moves.record(took);
                part.moved += 1;
            } else {
                let place = somewhere(&mut random);
                let (took, sum) = self.timed(|mc, index| index.ask(mc, place, k));
                part.queries.record(took);
                part.queried += 1;
                part.checksum = part.checksum.wrapping_add(sum);
            }
        }
        part
    }

    /// One operation, and its time in nanoseconds.
    fn timed<R>(
        &self,
        operation: impl for<'gc> FnOnce(&Mutator<'gc>, &Index<'gc>) -> R,
    ) -> (u64, R) {
        let begun = Instant::now();
        let result = self.heap.enter(|mc| operation(mc, &self.index.get(mc)));
        (nanos(begun.elapsed()), result)
    }

    /// Checks the tree and counts what is in it.
    fn check(&self) -> Result<Census> {
        self.heap.enter(|mc| {
            let index = self.index.get(mc);
            let at = |id: u64| index.table.get(id as usize).and_then(GcCell::get);
            let census = index
                .tree
                .check(|point| at(point.id).is_some_and(|known| Gc::ptr_eq(known, point)));
            match census {
                Ok(census) if census.points == self.points => Ok(census),
                Ok(census) => Err(format!("{} of {} points", census.points, self.points)),
                Err(error) => Err(error),
            }
            .map_err(|error| Failure::new(format!("the tree is not what it should be: {error}")))
        })
    }
}

impl<'gc> Index<'gc> {
    /// Puts a new point in the table and in the tree.
    fn put(&self, mc: &Mutator<'gc>, point: Point) {
        let point = mc.alloc(point);
        self.table[point.id as usize].set(mc, Some(point));
        self.tree.insert(mc, point.rect(), Entry::Point(point));
    }

    /// Replaces a point by one at another place.
    fn shift(&self, mc: &Mutator<'gc>, id: usize, by: [u32; 2]) {
        let Some(old) = self.table[id].get() else { return };
        let moved = |from: u32, by: u32| (from + by).saturating_sub(STEP).min(SIDE - 1);
        let (x, y) = (moved(old.x, by[0]), moved(old.y, by[1]));
        self.tree.remove(mc, old);
        self.put(mc, Point::new(old.id, old.version + 1, x, y));
    }

    /// Adds up what lies next to a place.
    fn ask(&self, mc: &Mutator<'gc>, place: [u32; 2], k: usize) -> u64 {
        let mut sum = 0_u64;
        nearest::nearest(mc, &self.tree, place, k, |index, distance, point| {
            let weight = distance.wrapping_add(point.id).wrapping_mul(index as u64 + 1);
            sum = sum.wrapping_add(weight).wrapping_add(point.version);
        });
        sum
    }
}

/// A random place.
fn somewhere(random: &mut Random) -> [u32; 2] {
    [(); 2].map(|()| random.below(SIDE as usize) as u32)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(settings: &[&str], threads: usize, heap: &Heap) -> Outcome {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let params = Params::parse(WORKLOAD.keys, &settings, threads).expect("fine");
        run(heap, &params).expect("memory, and a tree that is in order")
    }

    #[test]
    fn runs_repeat_themselves_whatever_the_collector_does() {
        let settings = ["points=3000", "operations=4000"];
        let quiet = Heap::builder().gc_percent_off().build().expect("a heap");
        let busy = Heap::builder().collect_continuously(true).build().expect("a heap");
        for threads in [1, 3] {
            let sums = [&quiet, &busy].map(|heap| outcome(&settings, threads, heap).checksum);
            assert_eq!(sums[0], sums[1], "{threads} threads");
        }
    }

    #[test]
    fn the_checksum_is_that_of_looking_at_every_point() {
        for (points, operations, k) in [(1, 50, 3), (40, 300, 10), (2000, 1000, 10)] {
            let settings = ["points", "operations", "k"].iter().zip([points, operations, k]);
            let settings: Vec<String> =
                settings.map(|(key, value)| format!("{key}={value}")).collect();
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            let found = outcome(&settings, 1, &Heap::new()).checksum;
            assert_eq!(found, by_looking(points, operations, k as usize), "{points} points");
        }
    }

    /// The same work without a tree.
    fn by_looking(points: u64, operations: u64, k: usize) -> u64 {
        let mut random = Random::new(100);
        let mut all: Vec<(u64, [u32; 2])> =
            (0..points).map(|_| (0, somewhere(&mut random))).collect();
        let mut sum = 0_u64;
        for _ in 0..operations {
            if random.below(10) == 0 {
                let (version, place) = &mut all[random.below(points as usize)];
                *version += 1;
                for coordinate in place {
                    let to = i64::from(*coordinate) + random.below(32_769) as i64 - 16_384;
                    *coordinate = to.clamp(0, (1 << 24) - 1) as u32;
                }
                continue;
            }
            let at = somewhere(&mut random);
            let mut hits: Vec<(u64, u64, u64)> = all
                .iter()
                .zip(0..)
                .map(|((version, place), id)| {
                    let square = |axis: usize| u64::from(at[axis].abs_diff(place[axis])).pow(2);
                    (square(0) + square(1), id, *version)
                })
                .collect();
            hits.sort_unstable();
            for (index, (distance, id, version)) in (1..).zip(hits.iter().take(k)) {
                sum = sum.wrapping_add(index * (distance + id)).wrapping_add(*version);
            }
        }
        for ((version, [x, y]), id) in all.iter().zip(0..) {
            let place = u64::from(*x) + u64::from(*y);
            sum = sum.wrapping_add((id + 1_u64).wrapping_mul(version + 1)).wrapping_add(place);
        }
        sum
    }
}
