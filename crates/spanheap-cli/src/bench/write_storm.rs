//! `write-storm`: what a store of a pointer costs, while nothing is collected and while marking runs.
//!
//! ```text
//! table: slots, each with a pointer to one of `nodes` nodes of a tree
//! one store:  table[i] = table[j]      i and j at random, the same for all ways to store
//! ```
//! in tables of three sizes, from one that fits the first cache to the whole, and in four ways:
//!
//! - **plain**: a `usize` in a `Vec`. What the loop and the memory cost by themselves.
//! - **atomic**: an `AtomicUsize`, stored with release. A `GcCell` can be no faster.
//! - **idle**: a `GcCell` in a heap in which no cycle runs.
//! - **marking**: the same while another thread has cycles run one after the other. Only closures that began
//!   in a cycle count; how many of the stores these were is said as well.
//!
//! The times are nanoseconds of the thread's own CPU time per store, the least of some repetitions for the first
//! three: what is above the least is somebody else's, and while the collector works, the thread may have to wait for
//! a processor, which is no cost of a store. `stores` is how many there are without cycles, all sizes and repetitions
//! together; with cycles it is a quarter of that. A closure does [`BATCH`] stores, so entering it is not what is
//! measured. What closures take as a whole, while marking, is the latency that the report gives.
//!
//! At the end of each way, what the table holds is compared with what an array of numbers says that went through the
//! same stores: a store that is lost, or comes back, is an error. The checksum is the sum of the numbers in all
//! tables, each with its place.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use spanheap::{Gc, GcCell, Heap, Mutator, Root, Rootable, Trace};

use super::histogram::Histogram;
use super::params::{Key, Params};
use super::report::Figure;
use super::{Outcome, Work, Workload, in_threads, share};
use crate::failure::{Failure, Result};
use crate::process::thread_cpu_time;
use crate::random::Random;

pub(super) const WORKLOAD: Workload = Workload {
    name: "write-storm",
    keys: &[
        Key { name: "slots", default: 16_000_000, min: 1, max: 1 << 31 },
        Key { name: "nodes", default: 1_000_000, min: 1, max: 1 << 31 },
        Key { name: "stores", default: 100_000_000, min: 1, max: u64::MAX },
    ],
    footprint: |params| {
        let slots = params.get("slots").checked_mul(8 + 8)?;
        slots.checked_add(params.get("nodes").checked_mul(32)?)
    },
    // Cycles run when this workload says so, and only then.
    settings: |_, builder| builder.gc_percent_off(),
    run: Work::OnHeap(run),
};

/// Stores of a closure.
const BATCH: u64 = 4096;
/// Repetitions of a way to store. The least time is taken.
const REPEATS: u64 = 4;
/// The sizes of the tables, as parts of `slots`.
const PARTS: [(&str, u64); 3] = [("small", 4096), ("medium", 64), ("large", 1)];

#[derive(Trace)]
struct Node<'gc> {
    number: u64,
    left: Option<Gc<'gc, Node<'gc>>>,
    right: Option<Gc<'gc, Node<'gc>>>,
}

type Slot<'gc> = GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>;
type Table = Root<Rootable![[Slot<'_>]]>;
type Tree = Root<Rootable![[Gc<'_, Node<'_>>]]>;

fn run(heap: &Heap, params: &Params) -> Result<Outcome> {
    let tree = tree(heap, params.get("nodes"))?;
    let mut stalls = Histogram::new();
    let (mut figures, mut checksum, mut cycles) = (Vec::new(), 0_u64, 0);
    for (name, part) in PARTS {
        let threads = params.threads as u64;
        // Each thread has some slots, and as many as the others.
        let each = (params.get("slots") / part / threads).max(2);
        let storm = Storm {
            heap,
            tree: &tree,
            nodes: params.get("nodes"),
            each: each as usize,
            threads: params.threads,
            stores: (params.get("stores") / PARTS.len() as u64 / REPEATS).max(1),
        };
        let found = storm.all_ways()?;
        checksum = checksum.wrapping_add(found.checksum);
        stalls.merge(&found.closures);
        cycles += found.cycles;
        figures.push(Figure::count(&format!("{name}_slots"), each * threads));
        for (way, nanos) in found.nanos {
            figures.push(Figure::real(&format!("{name}_{way}_ns"), nanos));
        }
        figures.push(Figure::count(&format!("{name}_stores_while_marking"), found.marking));
    }
    figures.push(Figure::count("cycles_while_storing", cycles));
    Ok(Outcome { checksum, latency: Some(("closure", stalls)), figures })
}

/// A tree of so many nodes, built from the leaves up, and all of its nodes by number.
fn tree(heap: &Heap, nodes: u64) -> Result<Tree> {
    heap.enter(|mc| -> Result<Tree> {
        let mut all: Vec<Gc<'_, Node<'_>>> = Vec::with_capacity(nodes as usize);
        for number in (0..nodes).rev() {
            // `all` is in reverse: the node n is at nodes - 1 - n.
            let child = |n: u64| (n < nodes).then(|| all[(nodes - 1 - n) as usize]);
            let (left, right) = (child(2 * number + 1), child(2 * number + 2));
            all.push(mc.try_alloc(Node { number, left, right })?);
        }
        all.reverse();
        Ok(mc.root(mc.try_alloc_slice(all)?))
    })
}

/// One size of the table.
struct Storm<'a> {
    heap: &'a Heap,
    tree: &'a Tree,
    nodes: u64,
    /// Slots of a thread.
    each: usize,
    threads: usize,
    /// Stores of a way, in one repetition.
    stores: u64,
}

/// What came of it.
struct Found {
    checksum: u64,
    nanos: [(&'static str, f64); 4],
    closures: Histogram,
    /// Stores in closures that began in a cycle.
    marking: u64,
    cycles: u64,
}

/// What one thread has measured in a heap.
#[derive(Default)]
struct Measured {
    /// Time and stores while no cycle ran, and while one did.
    sides: [(Duration, u64); 2],
    closures: Option<Histogram>,
}

/// The two places of a store.
fn places(random: &mut Random, slots: usize) -> (usize, usize) {
    (random.below(slots), random.below(slots))
}

impl Storm<'_> {
    fn all_ways(&self) -> Result<Found> {
        let plain = self.without_heap(|slots| {
            let mut table: Vec<usize> = (0..slots).collect();
            move |i, j| black_box(&mut table)[i] = black_box(table[j])
        })?;
        let atomic = self.without_heap(|slots| {
            let table: Vec<AtomicUsize> = (0..slots).map(AtomicUsize::new).collect();
            move |i, j| table[i].store(table[j].load(Ordering::Acquire), Ordering::Release)
        })?;
        let tables = (0..self.threads).map(|_| self.table()).collect::<Result<Vec<_>>>()?;
        let mut idle = f64::INFINITY;
        for repeat in 0..REPEATS {
            let parts = in_threads(self.threads, |index| Ok(self.storm(&tables, index, repeat)))?;
            idle = idle.min(per_store(&parts, 0));
        }
        let before = self.heap.stats().cycles;
        let parts = self.while_collecting(&tables)?;
        let cycles = self.heap.stats().cycles - before;
        let mut closures = Histogram::new();
        parts.iter().filter_map(|part| part.closures.as_ref()).for_each(|h| closures.merge(h));
        let marking = parts.iter().map(|part| part.sides[1].1).sum();
        let nanos = [
            ("plain", plain),
            ("atomic", atomic),
            ("idle", idle),
            ("marking", per_store(&parts, 1)),
        ];
        let checksum = self.verify(&tables)?;
        Ok(Found { checksum, nanos, closures, marking, cycles })
    }

    /// Stores in something that is no heap. `make` makes the table of a thread and what stores into it.
    fn without_heap<S: FnMut(usize, usize)>(
        &self,
        make: impl Fn(usize) -> S + Sync,
    ) -> Result<f64> {
        let mut best = f64::INFINITY;
        for repeat in 0..REPEATS {
            let parts = in_threads(self.threads, |index| {
                let mut store = make(self.each);
                let mut random = self.random(index, repeat);
                let stores = share(self.stores, self.threads, index);
                let started = thread_cpu_time();
                for _ in 0..stores {
                    let (i, j) = places(&mut random, self.each);
                    store(i, j);
                }
                Ok((thread_cpu_time().saturating_sub(started), stores))
            })?;
            best = best.min(ratio(&parts));
        }
        Ok(best)
    }

    /// The choices of a thread in a repetition; the one with cycles is the last.
    fn random(&self, index: usize, repeat: u64) -> Random {
        Random::new((index as u64) << 8 | repeat)
    }

    /// A new table: slot n points to node n.
    fn table(&self) -> Result<Table> {
        self.heap.enter(|mc| -> Result<Table> {
            let tree = self.tree.get(mc);
            let slot = |n: usize| GcCell::new(Some(tree[n % self.nodes as usize]));
            Ok(mc.root(mc.try_alloc_slice((0..self.each).map(slot))?))
        })
    }

    /// One repetition of one thread.
    fn storm(&self, tables: &[Table], index: usize, repeat: u64) -> Measured {
        let mut measured = Measured { closures: Some(Histogram::new()), ..Measured::default() };
        let mut random = self.random(index, repeat);
        let mut left = share(self.stores, self.threads, index);
        while left > 0 {
            let batch = left.min(BATCH);
            left -= batch;
            let begun = Instant::now();
            let (took, collecting) = self.heap.enter(|mc| {
                let slots = tables[index].get(mc).as_ref();
                (stores(mc, slots, batch, &mut random), mc.is_collecting())
            });
            let side = &mut measured.sides[usize::from(collecting)];
            *side = (side.0 + took, side.1 + batch);
            if let Some(closures) = &mut measured.closures {
                closures.record(begun.elapsed().as_nanos() as u64);
            }
        }
        measured
    }

    /// The last repetition, while one cycle follows the other.
    fn while_collecting(&self, tables: &[Table]) -> Result<Vec<Measured>> {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let collect = || {
                while !done.load(Ordering::Relaxed) {
                    let _ = self.heap.collect();
                }
            };
            let thread = thread::Builder::new().name("collects".into());
            let thread = thread.spawn_scoped(scope, collect).map_err(|error| {
                Failure::new(format!("the collecting thread cannot start: {error}"))
            })?;
            let parts = in_threads(self.threads, |index| Ok(self.storm(tables, index, REPEATS)));
            done.store(true, Ordering::Relaxed);
            thread.join().map_err(|panic| Failure::from_panic(panic.as_ref()))?;
            parts
        })
    }

    /// Does the same stores with numbers, and compares. Returns the checksum.
    fn verify(&self, tables: &[Table]) -> Result<u64> {
        let sums = in_threads(self.threads, |index| {
            let mut twin: Vec<u32> =
                (0..self.each).map(|n| (n % self.nodes as usize) as u32).collect();
            for repeat in 0..=REPEATS {
                let mut random = self.random(index, repeat);
                for _ in 0..share(self.stores, self.threads, index) {
                    let (i, j) = places(&mut random, self.each);
                    twin[i] = twin[j];
                }
            }
            self.heap.enter(|mc| {
                let mut sum = 0_u64;
                for (place, (slot, &number)) in tables[index].get(mc).iter().zip(&twin).enumerate()
                {
                    let found = slot.get().map(|node| node.number);
                    if found != Some(u64::from(number)) {
                        return Err(Failure::new(format!(
                            "slot {place} has {found:?} and not {number}: a store was lost"
                        )));
                    }
                    sum = sum.wrapping_add(u64::from(number).wrapping_mul(place as u64 + 1));
                }
                Ok(sum)
            })
        })?;
        Ok(sums.iter().fold(0, |sum: u64, &part| sum.wrapping_add(part)))
    }
}

/// The stores of one closure, and how long they took.
#[inline(never)]
fn stores<'gc>(
    mc: &Mutator<'gc>,
    slots: &[Slot<'gc>],
    count: u64,
    random: &mut Random,
) -> Duration {
    let started = thread_cpu_time();
    for _ in 0..count {
        let (i, j) = places(random, slots.len());
        slots[i].set(mc, slots[j].get());
    }
    thread_cpu_time().saturating_sub(started)
}

/// Nanoseconds per store on one side: 0 while no cycle ran, 1 while one did.
fn per_store(parts: &[Measured], side: usize) -> f64 {
    ratio(&parts.iter().map(|part| part.sides[side]).collect::<Vec<_>>())
}

/// Nanoseconds per store of a thread. No stores make no number.
fn ratio(parts: &[(Duration, u64)]) -> f64 {
    let time: Duration = parts.iter().map(|part| part.0).sum();
    let count: u64 = parts.iter().map(|part| part.1).sum();
    time.as_nanos() as f64 / count as f64
}
