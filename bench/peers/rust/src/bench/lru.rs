//! What the programs for `lru` have in common: keys, shards, threads, the sum. The cache is theirs.

use std::time::{Duration, Instant};

use super::zipf::Zipf;
use super::{Failure, Figure, Outcome, Result, STACK, Times, in_threads, on_stacks, share};
use crate::options::Params;
use crate::process;
use crate::random::Random;

/// Words of a value: 128 bytes.
pub(super) const VALUE: usize = 16;
pub(super) type Value = [u64; VALUE];
pub(super) type Key = [u64; 2];

/// One operation in so many gives its key another value.
const REPLACE_ONE_IN: usize = 10;

/// What an operation is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Read the value; make it if it is not there.
    Get,
    /// Give the key another value.
    Replace,
}

/// What it has found.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) hit: bool,
    /// A word of the value that the key had, or has got.
    pub(super) word: u64,
}

/// How large a cache is.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    entries: u64,
    pub(super) shards: usize,
}

impl Sizes {
    /// Entries of a shard.
    pub(super) fn capacity(self, shard: usize) -> usize {
        share(self.entries, self.shards, shard) as usize
    }

    /// Buckets of a shard: a power of two.
    pub(super) fn buckets(self, shard: usize) -> usize {
        self.capacity(shard).max(1).next_power_of_two()
    }
}

/// A cache of shards.
pub(super) trait Cache {
    fn new(sizes: Sizes, params: &Params) -> Self;
    fn operate(&self, shard: usize, key: Key, want: Want, salt: u64) -> Found;
    /// How many entries there are, by walking along the lists; what does not fit together is an error.
    fn count(&self, shard: usize) -> Result<usize>;
}

/// A value for a key.
pub(super) fn value_of(key: Key, salt: u64) -> Value {
    let mut value = [key[1] ^ salt; VALUE];
    value[VALUE - 1] = key[0];
    value
}

/// A word of a value that was found, which has to be that of the key.
pub(super) fn word_of(key: Key, value: &Value) -> u64 {
    assert!(value[VALUE - 1] == key[0], "the value of another key");
    value[0]
}

/// For a cache that stays on its thread.
pub(super) fn local<C: Cache>(params: &Params) -> Result<Outcome> {
    if params.threads > 1 {
        return Err(Failure::not_applicable("its cache cannot be shared by threads"));
    }
    let churn = Churn::new(params)?;
    let resident = process::resident();
    let cache = C::new(churn.sizes, params);
    churn.fill(&cache, 0);
    let started = Instant::now();
    let part = churn.operate(&cache, 0);
    churn.outcome(cache, vec![part], started.elapsed(), resident)
}

/// The same on a thread whose stack has so many bytes for each entry of a shard: for one that recurses along its
/// lists.
pub(super) fn local_on_stack<C: Cache>(params: &Params, per_entry: usize) -> Result<Outcome> {
    let stack = STACK + Churn::new(params)?.sizes.capacity(0) * per_entry;
    let outcomes = on_stacks(1, stack, |_| local::<C>(params))?;
    outcomes.into_iter().next().ok_or_else(|| Failure::new("nothing was measured"))
}

/// For one that all threads use. What it recurses along has so many bytes of stack for each entry of a shard.
pub(super) fn shared<C: Cache + Sync>(params: &Params, stack_per_entry: usize) -> Result<Outcome> {
    let churn = Churn::new(params)?;
    let resident = process::resident();
    let cache = C::new(churn.sizes, params);
    let threads = params.threads;
    let stack = STACK + churn.sizes.capacity(0) * stack_per_entry;
    let fill = |index| {
        churn.fill(&cache, index);
        Ok(())
    };
    let operate = |index| Ok(churn.operate(&cache, index));
    if stack_per_entry > 0 {
        on_stacks(threads, stack, fill)?;
    } else {
        in_threads(threads, fill)?;
    }
    let started = Instant::now();
    let parts = match stack_per_entry {
        0 => in_threads(threads, operate)?,
        _ => on_stacks(threads, stack, operate)?,
    };
    churn.outcome(cache, parts, started.elapsed(), resident)
}

/// What is to be done with a cache.
struct Churn {
    sizes: Sizes,
    keys: u64,
    operations: u64,
    threads: usize,
}

/// What came of it in one thread.
#[derive(Default)]
struct Part {
    checksum: u64,
    hits: u64,
    times: Times,
}

impl Churn {
    fn new(params: &Params) -> Result<Churn> {
        let [entries, keys, operations, shards] =
            ["entries", "keys", "operations", "shards"].map(|key| params.get(key));
        let threads = params.threads;
        if threads as u64 > shards || shards > entries {
            return Err(Failure::new(format!(
                "{entries} entries, {shards} shards, {threads} threads: each must be at least the next"
            )));
        }
        let sizes = Sizes { entries, shards: shards as usize };
        Ok(Churn { sizes, keys, operations, threads })
    }

    fn operation<C: Cache>(
        &self,
        cache: &C,
        index: usize,
        rank: u64,
        want: Want,
        salt: u64,
    ) -> Found {
        let key = [scatter(rank), rank];
        let threads = self.threads as u64;
        let mine = (self.sizes.shards as u64 - index as u64).div_ceil(threads);
        let shard = index as u64 + (key[0] >> 40) % mine * threads;
        cache.operate(shard as usize, key, want, salt)
    }

    /// Fills the thread's shards with the most frequent keys, the most frequent one last.
    fn fill<C: Cache>(&self, cache: &C, index: usize) {
        for rank in (0..share(self.sizes.entries, self.threads, index)).rev() {
            self.operation(cache, index, rank, Want::Get, 0);
        }
    }

    /// Does the thread's operations.
    fn operate<C: Cache>(&self, cache: &C, index: usize) -> Part {
        let zipf = Zipf::new(self.keys.div_ceil(self.threads as u64));
        let mut random = Random::new(index as u64);
        let mut part = Part::default();
        for number in 0..share(self.operations, self.threads, index) {
            let rank = zipf.draw(&mut random);
            let replaces = random.below(REPLACE_ONE_IN) == 0;
            let want = if replaces { Want::Replace } else { Want::Get };
            let begun = Instant::now();
            let found = self.operation(cache, index, rank, want, number);
            part.times.record(begun.elapsed());
            part.hits += u64::from(found.hit);
            let word = found.word.wrapping_add(u64::from(found.hit));
            part.checksum = part.checksum.wrapping_add(word);
        }
        part
    }

    /// The result. The cache is not torn down.
    fn outcome<C: Cache>(
        &self,
        cache: C,
        parts: Vec<Part>,
        wall: Duration,
        resident: u64,
    ) -> Result<Outcome> {
        let resident = process::resident().saturating_sub(resident);
        let (mut checksum, mut hits, mut times) = (0_u64, 0, Times::default());
        for part in &parts {
            checksum = checksum.wrapping_add(part.checksum);
            hits += part.hits;
            times.merge(&part.times);
        }
        let (mut left, mut live) = (0, 0);
        for shard in 0..self.sizes.shards {
            let count = cache.count(shard)? as u64;
            left += count;
            live += count * 192 + self.sizes.buckets(shard) as u64 * 8;
        }
        std::mem::forget(cache);
        let operations = self.operations as f64;
        let figures = vec![
            Figure::real("ops_per_s", operations / wall.as_secs_f64()),
            Figure::real("hit_ratio", hits as f64 / operations),
            Figure::count("entries_left", left),
            Figure::count("live_bytes", live),
            Figure::count("resident_bytes", resident),
            Figure::real("resident_over_live", resident as f64 / live as f64),
        ];
        Ok(Outcome { checksum, latency: Some(("op", times)), figures })
    }
}

/// Spreads ranks over all bits; no two of them meet.
fn scatter(rank: u64) -> u64 {
    let z = (rank ^ (rank >> 30)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = z.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 27)
}

/// An entry that is not in its place.
pub(super) fn misplaced(key: Key) -> Failure {
    Failure::new(format!("the entry {:#x} is not where it should be", key[0]))
}
