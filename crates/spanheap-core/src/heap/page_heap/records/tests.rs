//! The pool against a naive twin, on systems of several page sizes that refuse and forget.
//!
//! # Safety
//! Records are written to while the test owns them, as plain words, and read by nobody else. Pools are
//! released before their persistent memory, when no record is used any more.
#![allow(unsafe_code)]

use super::*;
use crate::os::SimOs;
use crate::tests::{Random, steps};
use std::collections::BTreeMap;
use std::sync::Arc;

const WORDS: usize = size_of::<Span>() / 8;

/// A pool, and what is known of its records from outside.
struct Bench {
    os: Os,
    sim: Arc<SimOs>,
    memory: Persistent,
    pool: SpanRecords,
    /// What the test has written to the records in use.
    taken: BTreeMap<Addr, u64>,
    /// What it had written to records that are free now, and whose memory may have gone since.
    former: BTreeMap<Addr, u64>,
    stamp: u64,
}

impl Bench {
    fn new(page: usize, zero_after_unused: bool) -> Bench {
        let sim = SimOs::builder().page_size(Bytes::new(page)).zero_after_unused(zero_after_unused);
        let sim = sim.seed(7).build();
        let os = Os::simulated(sim.clone());
        let pool = SpanRecords::new(&os);
        let (taken, former) = (BTreeMap::new(), BTreeMap::new());
        Bench { os, sim, memory: Persistent::new(), pool, taken, former, stamp: 1 }
    }

    fn words(record: Addr) -> [u64; WORDS] {
        // SAFETY: the record is ours, and so long.
        unsafe { record.as_ptr::<[u64; WORDS]>().read() }
    }

    /// Takes a record. What is in it must be zeros, or what this test has left in it.
    fn alloc(&mut self) -> Result<Addr, OsError> {
        let record = Addr::of(self.pool.alloc(&self.os, &self.memory)?.as_ptr());
        let found = Bench::words(record);
        let left = self.former.remove(&record).unwrap_or(0);
        assert!(found == [0; WORDS] || found == [left; WORDS], "{found:x?} at {record}");
        // SAFETY: the record is ours, and so long.
        unsafe { record.as_ptr::<[u64; WORDS]>().write([self.stamp; WORDS]) };
        assert!(self.taken.insert(record, self.stamp).is_none(), "{record} was in use");
        self.stamp += 1;
        Ok(record)
    }

    fn free(&mut self, record: Addr) {
        let stamp = self.taken.remove(&record).expect("a record in use");
        assert_eq!(Bench::words(record), [stamp; WORDS], "{record} was written to");
        self.former.insert(record, stamp);
        // SAFETY: the record came from this pool, and was in use until now.
        unsafe { self.pool.free(NonNull::new(record.as_ptr()).expect("not null")) };
    }

    fn give_back(&mut self) {
        // SAFETY: nobody has a pointer to a free record: there is only this thread.
        while unsafe { self.pool.return_retired(&self.os) } {}
    }

    fn nth(&self, n: usize) -> Addr {
        *self.taken.keys().nth(n).expect("so many are in use")
    }

    fn leaf(&self, record: Addr) -> Addr {
        record.align_down(self.os.page_size().get())
    }

    /// How many leaves have a record in use, as the twin knows it.
    fn leaves(&self) -> usize {
        let mut leaves: Vec<Addr> = self.taken.keys().map(|&record| self.leaf(record)).collect();
        leaves.dedup();
        leaves.len()
    }

    /// Bytes of leaves that have memory, by the accounts of the system.
    fn ready(&self) -> Bytes {
        let mut others = Bytes::ZERO;
        self.memory.for_each_block(|range, _| others += range.bytes());
        assert_eq!(self.sim.ready(), self.os.accounting().ready());
        self.os.accounting().ready() - others
    }

    /// The pool knows what the twin knows; its accounts are those of the system.
    fn check(&self) {
        let (pool, shape) = (&self.pool, self.pool.shape);
        assert_eq!((pool.in_use, pool.leaves_in_use), (self.taken.len(), self.leaves()));
        let mut blocks = Vec::new();
        pool.for_each_block(&mut |range| blocks.push(range));
        let mapped: Bytes = blocks.iter().map(|range| range.bytes()).sum();
        assert_eq!(mapped - pool.cold(), self.ready());
        let in_state = |state| {
            let count = |block: &Block| block.leaves_in(state).count_ones() as usize;
            pool.blocks().map(count).sum::<usize>()
        };
        assert_eq!(in_state(LeafState::Empty), pool.leaves_empty);
        assert_eq!(in_state(LeafState::Cold), pool.leaves_cold);
        let retired = in_state(LeafState::Retired);
        let with_memory = (pool.leaves_in_use + pool.leaves_empty + retired) * shape.leaf.get();
        assert_eq!(with_memory, self.ready().get());
        for state in [LeafState::Partial, LeafState::Empty, LeafState::Retired, LeafState::Cold] {
            let has = |block: &&Block| block.leaves_in(state) != 0;
            let lowest = pool.blocks().find(has).map(Block::number);
            let highest = pool.blocks().filter(has).last().map(Block::number);
            // SAFETY: blocks live as long as the pool.
            let number = |block: NonNull<Block>| unsafe { block.as_ref() }.number();
            assert_eq!(pool.index.find(state, End::Lowest).map(number), lowest, "{state:?}");
            assert_eq!(pool.index.find(state, End::Highest).map(number), highest, "{state:?}");
        }
        for record in self.taken.keys() {
            let offset = record.bytes_since(self.leaf(*record)).get();
            assert!(offset >= 8 && offset + size_of::<Span>() <= shape.leaf.get());
            assert!(blocks.iter().any(|block| block.contains(*record)));
        }
    }

    /// Returns everything and checks that nothing is left.
    fn end(mut self) {
        // SAFETY: nobody uses the records any more.
        unsafe { self.pool.release(&self.os) };
        // SAFETY: as above, and the pool is empty.
        unsafe { self.memory.release(&self.os) };
        let accounts = self.os.accounting();
        let left = (accounts.mapped_total(), accounts.ready(), accounts.reserved());
        assert_eq!(left, (Bytes::ZERO, Bytes::ZERO, Bytes::ZERO), "{accounts:?}");
        assert_eq!(accounts.leaked(), Bytes::ZERO);
        self.sim.assert_all_released();
    }
}

/// Systems with pages of every kind of size; `true`: returned memory reads as zeros.
const SYSTEMS: [(usize, bool); 7] = [
    (4096, true),
    (4096, false),
    (16 << 10, true),
    (16 << 10, false),
    (64 << 10, true),
    (64 << 10, false),
    (512 << 10, false),
];

/// Random steps, of which every `refused`-th call to the system fails. The heap breathes: records come more
/// often than they go, then less often.
fn run(bench: &mut Bench, random: &mut Random, count: usize, refused: Option<usize>) {
    let mut refusals = 0;
    for step in 0..count {
        if let Some(every) = refused {
            bench.sim.set_fail_call(Some(bench.sim.calls() + 1 + random.below(every)));
        }
        let grows = step / (count / 6).max(1) % 2 == 0;
        match random.below(100) {
            0 => while bench.pool.retire_empty(2) {},
            1 => bench.give_back(),
            n if (n < 65) == grows => {
                for _ in 0..random.below(20) {
                    let before = (bench.pool.in_use, bench.ready());
                    if bench.alloc().is_err() {
                        assert_eq!((bench.pool.in_use, bench.ready()), before);
                        refusals += 1;
                    }
                }
            }
            _ => {
                for _ in 0..random.below(20).min(bench.taken.len()) {
                    bench.free(bench.nth(random.below(bench.taken.len())));
                }
            }
        }
        if step % 16 == 0 {
            bench.check();
        }
    }
    bench.sim.set_fail_call(None);
    assert_eq!(refusals > 0, refused.is_some(), "{refusals} refusals");
    bench.check();
}

#[test]
fn the_pool_agrees_with_a_naive_twin() {
    let mut random = Random::new(0x5eed_0001);
    for (page, zero) in SYSTEMS {
        let mut bench = Bench::new(page, zero);
        run(&mut bench, &mut random, steps(1200, 20_000), None);
        bench.end();
    }
}

#[test]
fn the_pool_agrees_with_a_naive_twin_on_a_system_that_refuses() {
    let mut random = Random::new(0x5eed_0002);
    for (page, zero) in SYSTEMS {
        for every in [1, 2, 5] {
            let mut bench = Bench::new(page, zero);
            // A page of half a mebibyte holds more records than there are steps for, so it begins with a refusal.
            bench.sim.set_fail_call(Some(1));
            assert!(bench.alloc().is_err());
            run_refused(&mut bench, &mut random, every);
            bench.end();
        }
    }
}

fn run_refused(bench: &mut Bench, random: &mut Random, every: usize) {
    let leaves = bench.pool.shape.leaves;
    match leaves {
        // Too few calls to the system for a refusal to be certain.
        1 => run_any(bench, random, every),
        _ => run(bench, random, steps(600, 10_000), Some(every)),
    }
}

/// Every step of the first allocation fails once, and then some.
fn run_any(bench: &mut Bench, random: &mut Random, every: usize) {
    for n in 1..=8 {
        bench.sim.set_fail_call(Some(bench.sim.calls() + n));
        let _ = bench.alloc();
        bench.check();
    }
    bench.sim.set_fail_call(None);
    run(bench, random, 200, None);
    bench.taken.keys().copied().collect::<Vec<_>>().into_iter().for_each(|at| bench.free(at));
    while bench.pool.retire_empty(1) {}
    bench.give_back();
    assert_eq!(bench.ready(), Bytes::ZERO);
    bench.sim.set_fail_call(Some(bench.sim.calls() + 1));
    assert!(bench.alloc().is_err(), "{every}");
    bench.sim.set_fail_call(None);
    assert!(bench.alloc().is_ok());
    bench.check();
}

#[test]
fn after_most_records_have_gone_the_rest_comes_together() {
    let mut random = Random::new(0x5eed_0003);
    for (page, zero) in SYSTEMS {
        let mut bench = Bench::new(page, zero);
        let (few, most) = (100, 20_000);
        for _ in 0..most {
            bench.alloc().expect("memory");
        }
        let peak = bench.ready();
        assert!(peak.get() >= most * size_of::<Span>());
        let mut all: Vec<Addr> = bench.taken.keys().copied().collect();
        while all.len() > few {
            bench.free(all.swap_remove(random.below(all.len())));
        }
        // What is left is scattered at first; as it is replaced, it gathers at the bottom.
        for _ in 0..few * 20 {
            bench.free(bench.nth(random.below(few)));
            bench.alloc().expect("memory");
        }
        bench.check();
        while bench.pool.retire_empty(1) {}
        assert_eq!(bench.ready(), peak, "retiring alone returns nothing");
        bench.give_back();
        bench.check();
        let leaves = bench.ready().get() / page;
        let dense = few.div_ceil(bench.pool.shape.records);
        assert!(leaves <= 2 * dense + dense.div_ceil(RESERVE), "{leaves} leaves, {dense} needed");
        for _ in few..most {
            bench.alloc().expect("memory");
        }
        assert_eq!(bench.ready(), peak, "free records and cold leaves are used again");
        bench.end();
    }
}

#[test]
fn a_reserve_of_empty_leaves_stays() {
    let mut bench = Bench::new(4096, true);
    let per_leaf = bench.pool.shape.records;
    assert_eq!(per_leaf, 19, "the essay says so");
    for _ in 0..100 * per_leaf {
        bench.alloc().expect("memory");
    }
    let all: Vec<Addr> = bench.taken.keys().copied().collect();
    let keep = bench.leaf(all[0]);
    let mut kept = vec![keep];
    for at in all {
        let leaf = bench.leaf(at);
        if !kept.contains(&leaf) && kept.len() < 8 {
            kept.push(leaf);
        }
        if !kept.contains(&leaf) {
            bench.free(at);
        }
    }
    while bench.pool.retire_empty(1) {}
    bench.give_back();
    assert_eq!(bench.ready(), Bytes::new((8 + 8 / RESERVE) * 4096));
    // Retiring again changes nothing.
    while bench.pool.retire_empty(1) {}
    bench.give_back();
    assert_eq!((bench.pool.leaves_in_use, bench.pool.leaves_empty), (8, 2));
    while !bench.taken.is_empty() {
        bench.free(bench.nth(0));
    }
    while bench.pool.retire_empty(1) {}
    bench.give_back();
    assert_eq!(bench.ready(), Bytes::ZERO);
    bench.check();
    bench.end();
}

#[test]
fn a_retired_leaf_is_used_before_new_memory_and_is_not_returned_then() {
    let mut bench = Bench::new(4096, true);
    let (first, calls) = (bench.alloc().expect("memory"), bench.sim.calls());
    bench.free(first);
    while bench.pool.retire_empty(1) {}
    bench.check();
    bench.sim.set_fail_from(Some(1));
    assert_eq!(bench.alloc().expect("no call to the system"), first);
    assert_eq!(Bench::words(first), [2; WORDS]);
    assert_eq!(bench.sim.calls(), calls);
    bench.give_back();
    bench.check();
    assert_eq!(bench.ready(), Bytes::new(4096));
    bench.sim.set_fail_from(None);
    bench.end();
}

#[test]
#[should_panic(expected = "freed twice")]
fn a_record_freed_twice_is_a_panic() {
    let mut bench = Bench::new(4096, true);
    let (record, _other) = (bench.alloc().expect("memory"), bench.alloc().expect("memory"));
    bench.free(record);
    // SAFETY: it is free already: the check under test only reads its leaf's number.
    unsafe { bench.pool.free(NonNull::new(record.as_ptr()).expect("not null")) };
}

#[test]
#[should_panic(expected = "freed twice")]
fn an_address_inside_a_record_is_no_record() {
    let mut bench = Bench::new(4096, true);
    let inside = bench.alloc().expect("memory") + Bytes::new(8);
    // SAFETY: it is no record: the check under test only reads its leaf's number.
    unsafe { bench.pool.free(NonNull::new(inside.as_ptr()).expect("not null")) };
}

/// Enough blocks for a tree of two levels, on address space alone: a leaf of each is made ready.
#[test]
fn the_index_grows_by_levels() {
    let mut bench = Bench::new(256 << 10, true);
    let per_block = bench.pool.shape.records;
    let count = 70 * per_block;
    for _ in 0..count {
        bench.alloc().expect("memory");
    }
    assert_eq!(bench.pool.index.len(), 70);
    bench.check();
    // The lowest block has room, then one above the first sixty-four; then none.
    let all: Vec<Addr> = bench.taken.keys().copied().collect();
    for _ in 0..2 {
        for at in all.iter().step_by(per_block) {
            bench.free(*at);
        }
        bench.check();
        for _ in 0..70 {
            bench.alloc().expect("memory");
        }
        assert_eq!(bench.pool.index.len(), 70);
        bench.check();
    }
    bench.end();
}
