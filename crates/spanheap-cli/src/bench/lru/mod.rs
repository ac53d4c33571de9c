//! `lru`: a large cache whose entries come and go, and are moved about all the time.
//!
//! Most of the heap is old and lives long; a tenth of the operations makes a new value, and each miss a new
//! entry in place of the oldest one. So what dies is old, which is the opposite of what collectors like, and every
//! operation stores pointers into old objects. See [`cache`] for what it is made of.
//!
//! ```text
//! fill with the keys of the ranks 0 .. entries
//! each operation:  a key of `keys`, by Zipf 0.99;  90 %: get, and insert if it is not there;  10 %: replace
//! ```
//! **Each operation is one `enter`**, timed outside, as in the message bus. Filling is not in the times of the
//! operations, and is in all that is common to all workloads.
//!
//! With several threads, each has its own part of the shards, so that a run can be repeated: who gets a hit would be
//! a matter of who came first otherwise. Locks are taken all the same. The checksum is the sum over all
//! operations of a word of the value that was found or made, with 1 for each hit.

pub(super) mod cache;
pub(super) mod zipf;

use std::time::{Duration, Instant};

use spanheap::{Collected, Heap, OutOfMemory};

use super::histogram::Histogram;
use super::params::{Key, Params};
use super::report::Figure;
use super::{Outcome, Work, Workload, in_threads, share};
use crate::failure::{Failure, Result};
use crate::process;
use crate::random::Random;
use cache::{Cache, Found, Want};
use zipf::Zipf;

pub(super) const WORKLOAD: Workload = Workload {
    name: "lru",
    keys: &[
        Key { name: "entries", default: 8_000_000, min: 1, max: u64::MAX },
        Key { name: "keys", default: 16_000_000, min: 1, max: 1 << 32 },
        Key { name: "operations", default: 20_000_000, min: 0, max: u64::MAX },
        Key { name: "shards", default: 64, min: 1, max: 1 << 16 },
    ],
    footprint: |params| Cache::weight(params.get("entries"), params.get("shards")),
    settings: |_, builder| builder,
    run: Work::OnHeap(run),
};

/// One operation in so many gives its key another value.
const REPLACE_ONE_IN: usize = 10;
/// How often an operation that was refused memory is tried again, each time after a cycle.
const TRIES: u32 = 64;

fn run(heap: &Heap, params: &Params) -> Result<Outcome> {
    let churn = Churn::new(params)?;
    let resident = process::resident();
    let cache = Cache::new(heap, churn.entries, churn.shards)?;
    churn.fill(heap, &cache)?;
    let churned = churn.operate(heap, &cache)?;
    let resident = process::resident().saturating_sub(resident);
    let entries = cache.count(heap).map_err(Failure::new)?;
    if heap.collect() != Collected::Complete {
        return Err(Failure::new("the heap was asked to collect and did not"));
    }
    let live = heap.stats().live_bytes as u64;
    let mut figures = churned.figures();
    figures.extend([
        Figure::count("entries_left", entries),
        Figure::count("live_bytes", live),
        Figure::count("resident_bytes", resident),
        Figure::real("resident_over_live", resident as f64 / live as f64),
    ]);
    Ok(Outcome { checksum: churned.checksum, latency: Some(("op", churned.times)), figures })
}

/// What is to be done with a cache.
pub(super) struct Churn {
    pub(super) entries: u64,
    pub(super) shards: u64,
    keys: u64,
    operations: u64,
    threads: usize,
}

/// What came of it.
pub(super) struct Churned {
    pub(super) checksum: u64,
    pub(super) times: Histogram,
    operations: u64,
    hits: u64,
    /// Operations that were refused memory, and were done after a cycle.
    refused: u64,
    wall: Duration,
}

impl Churned {
    fn none() -> Churned {
        Churned {
            checksum: 0,
            times: Histogram::new(),
            operations: 0,
            hits: 0,
            refused: 0,
            wall: Duration::ZERO,
        }
    }

    fn add(mut self, other: &Churned) -> Churned {
        self.checksum = self.checksum.wrapping_add(other.checksum);
        self.times.merge(&other.times);
        self.operations += other.operations;
        self.hits += other.hits;
        self.refused += other.refused;
        self
    }

    pub(super) fn figures(&self) -> Vec<Figure> {
        let per_second = self.operations as f64 / self.wall.as_secs_f64();
        vec![
            Figure::real("ops_per_s", per_second),
            Figure::real("hit_ratio", self.hits as f64 / self.operations as f64),
            Figure::count("refused", self.refused),
        ]
    }
}

impl Churn {
    /// What `params` ask for, which have the keys of [`WORKLOAD`].
    pub(super) fn new(params: &Params) -> Result<Churn> {
        let [entries, keys, operations, shards] =
            ["entries", "keys", "operations", "shards"].map(|key| params.get(key));
        let threads = params.threads;
        if threads as u64 > shards {
            let error = format!("{shards} shards cannot be shared by {threads} threads");
            return Err(Failure::new(error));
        }
        if shards > entries {
            return Err(Failure::new(format!("{entries} entries are too few for {shards} shards")));
        }
        Ok(Churn { entries, shards, keys, operations, threads })
    }

    /// Fills the cache with the most frequent keys, the most frequent one last. Returns how many operations
    /// were refused memory, and were done after a cycle.
    pub(super) fn fill(&self, heap: &Heap, cache: &Cache) -> Result<u64> {
        let fill = |index| {
            let mut worker = Worker::new(self, heap, cache, index);
            for rank in (0..share(self.entries, self.threads, index)).rev() {
                worker.operation(rank, Want::Get, 0)?;
            }
            Ok(worker.done.refused)
        };
        Ok(in_threads(self.threads, fill)?.iter().sum())
    }

    /// Does all operations.
    pub(super) fn operate(&self, heap: &Heap, cache: &Cache) -> Result<Churned> {
        // Each thread has its own part of the keys.
        let zipf = Zipf::new(self.keys.div_ceil(self.threads as u64));
        let started = Instant::now();
        let work = |index| {
            let mut worker = Worker::new(self, heap, cache, index);
            let mut random = Random::new(index as u64);
            for number in 0..share(self.operations, self.threads, index) {
                let rank = zipf.draw(&mut random);
                let replaces = random.below(REPLACE_ONE_IN) == 0;
                let want = if replaces { Want::Replace } else { Want::Get };
                let begun = Instant::now();
                let found = worker.operation(rank, want, number)?;
                let done = &mut worker.done;
                done.times.record(begun.elapsed().as_nanos() as u64);
                done.operations += 1;
                done.hits += u64::from(found.hit);
                let word = found.word.wrapping_add(u64::from(found.hit));
                done.checksum = done.checksum.wrapping_add(word);
            }
            Ok(worker.done)
        };
        let parts = in_threads(self.threads, work)?;
        let wall = started.elapsed();
        let sum = parts.iter().fold(Churned::none(), Churned::add);
        Ok(Churned { wall, ..sum })
    }
}

/// A thread with its part of the shards.
struct Worker<'a> {
    churn: &'a Churn,
    heap: &'a Heap,
    cache: &'a Cache,
    index: u64,
    done: Churned,
}

impl<'a> Worker<'a> {
    fn new(churn: &'a Churn, heap: &'a Heap, cache: &'a Cache, index: usize) -> Worker<'a> {
        Worker { churn, heap, cache, index: index as u64, done: Churned::none() }
    }

    /// One operation. When there is no memory for it, it is tried again after a cycle.
    fn operation(&mut self, rank: u64, want: Want, salt: u64) -> Result<Found> {
        let key = [scatter(rank), rank];
        let threads = self.churn.threads as u64;
        let mine = self.churn.shards.saturating_sub(self.index).div_ceil(threads);
        let shard = (self.index + (key[0] >> 40) % mine * threads) as usize;
        let mut last = None::<OutOfMemory>;
        for _ in 0..TRIES {
            match self.heap.enter(|mc| self.cache.operate(mc, shard, key, want, salt)) {
                Ok(found) => return Ok(found),
                Err(error) => {
                    self.done.refused += 1;
                    last = Some(error);
                    let _ = self.heap.collect();
                }
            }
        }
        Err(match last {
            Some(error) => Failure::exhausted("after 64 cycles still", &error),
            None => Failure::new("an operation was not even tried"),
        })
    }
}

/// Spreads ranks over all bits; no two of them meet.
fn scatter(rank: u64) -> u64 {
    let z = (rank ^ (rank >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = z.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}
