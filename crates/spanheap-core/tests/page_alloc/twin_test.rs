//! Random scripts of everything that can be asked of the allocator, done by it and by its twin.
//!
//! The chunks that are grown lie around borders of every level of the summary tree, so that runs of
//! free pages cross them. After each operation the invariants are checked, and the bitmaps and the
//! scavenge index compared whole.
//!
//! There are short scripts, which shrink when one fails, and long lives, whose seeds are printed: a
//! few by default, 1000 lives of 1000 operations with `SPANHEAP_LONG=1` in the environment, which
//! takes a minute of processor time.

use super::config;
use super::twin::{Page, READY, Twin, page_addr};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use spanheap_core::addr::{AddrRange, CHUNK_PAGES, ChunkIndex, PAGE_BYTES, PageCount};
use spanheap_core::os::{Os, SimOs};
use spanheap_core::pages::scavenge_index::Occupancy;
use spanheap_core::pages::{PageAlloc, PageCache};

/// Chunks below an entry of the highest level of the tree; a multiple of the number of any lower
/// level.
const TOP: usize = 4096;

/// What can be grown: (first chunk, number of chunks).
const GROWABLE: [(usize, usize); 12] = [
    // A border of all levels at once, from below, from above, and a neighbour that joins later.
    (12 * TOP - 3, 3),
    (12 * TOP, 2),
    (12 * TOP + 2, 1),
    // Borders of the lower levels: at 8, at 64 and at 512 chunks.
    (12 * TOP + 7, 2),
    (12 * TOP + 62, 3),
    (12 * TOP + 65, 1),
    (12 * TOP + 511, 1),
    (12 * TOP + 512, 2),
    // Alone, below all others, and in another part of the highest level's table.
    (3 * TOP + 100, 1),
    (12 * TOP + 4000, 1),
    (700 * TOP - 1, 2),
    // The end of the address space.
    ((1 << 25) - 2, 2),
];

#[derive(Clone, Debug)]
enum Op {
    Grow(usize),
    Alloc(usize),
    AllocAligned {
        n: usize,
        align_log: u32,
    },
    /// Of the allocated runs the one that `pick` chooses; in it, by parts of 256, a start and a
    /// length.
    Free {
        pick: usize,
        start: usize,
        len: usize,
    },
    SetScavenged {
        pick: usize,
        start: usize,
        len: usize,
    },
    ClearScavenged {
        pick: usize,
        start: usize,
        len: usize,
    },
    ToCache,
    CacheAlloc {
        pick: usize,
        n: usize,
    },
    Flush {
        pick: usize,
    },
    /// The scavenger takes pages, in units of `2^min_log` pages.
    Scavenge {
        force: bool,
        min_log: u32,
        max: usize,
        huge: usize,
    },
    /// What it has taken is given back: one of the ranges, or a part at its start.
    Finish {
        pick: usize,
        len: usize,
    },
    /// Everything is returned that can be.
    ScavengeAll,
    NextGeneration,
}

fn counts() -> impl Strategy<Value = usize> {
    prop_oneof![5 => 1usize..20, 3 => 1usize..200, 2 => 200usize..1800]
}

fn scavenge() -> impl Strategy<Value = Op> {
    let min_log = prop_oneof![6 => Just(0), 3 => 1u32..4, 1 => 4u32..7];
    let max = prop_oneof![Just(0usize), 1usize..12, 1usize..300, Just(usize::MAX >> 20)];
    let huge = prop_oneof![Just(0usize), Just(64), Just(256), Just(512)];
    (any::<bool>(), min_log, max, huge).prop_map(|(force, min_log, max, huge)| Op::Scavenge {
        force,
        min_log,
        max,
        huge,
    })
}

fn op() -> impl Strategy<Value = Op> {
    let part = || (any::<usize>(), 0usize..256, 1usize..=256);
    prop_oneof![
        2 => (0..GROWABLE.len()).prop_map(Op::Grow),
        6 => counts().prop_map(Op::Alloc),
        3 => (counts(), 0u32..=10).prop_map(|(n, align_log)| Op::AllocAligned { n, align_log }),
        6 => part().prop_map(|(pick, start, len)| Op::Free { pick, start, len }),
        2 => part().prop_map(|(pick, start, len)| Op::SetScavenged { pick, start, len }),
        1 => part().prop_map(|(pick, start, len)| Op::ClearScavenged { pick, start, len }),
        3 => Just(Op::ToCache),
        3 => (any::<usize>(), 1usize..70).prop_map(|(pick, n)| Op::CacheAlloc { pick, n }),
        2 => any::<usize>().prop_map(|pick| Op::Flush { pick }),
        4 => scavenge(),
        3 => part().prop_map(|(pick, _, len)| Op::Finish { pick, len }),
        1 => Just(Op::NextGeneration),
        // Rare: nothing is left for the others then.
        1 => prop_oneof![4 => Just(Op::NextGeneration), 1 => Just(Op::ScavengeAll)],
    ]
}

/// A part of one of the runs: (first page, length).
fn part(runs: &[(usize, usize)], pick: usize, start: usize, len: usize) -> Option<(usize, usize)> {
    let (first, whole) = *runs.get(pick % runs.len().max(1))?;
    let from = whole * start / 256;
    Some((first + from, (whole * len / 256).clamp(1, whole - from)))
}

struct Pair {
    os: Os,
    pages: PageAlloc,
    twin: Twin,
    caches: Vec<PageCache>,
    /// What the scavenger has taken: (first page, length).
    taken: Vec<(usize, usize)>,
}

impl Pair {
    fn new() -> Pair {
        let os = Os::simulated(SimOs::builder().build());
        let pages = PageAlloc::new(&os).expect("the simulated system refuses nothing");
        Pair { os, pages, twin: Twin::default(), caches: Vec::new(), taken: Vec::new() }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Grow(which) => self.grow(which),
            Op::Alloc(n) => {
                assert_eq!(self.pages.alloc(PageCount::new(n)), self.twin.alloc(n));
            }
            Op::AllocAligned { n, align_log } => {
                let align = PageCount::new(1 << align_log);
                let run = self.pages.alloc_aligned(PageCount::new(n), align.bytes());
                assert_eq!(run, self.twin.alloc_aligned(n, align.get()));
            }
            Op::Free { pick, start, len } => {
                let runs = self.twin.runs(|state| state == Page::Allocated);
                if let Some((first, n)) = part(&runs, pick, start, len) {
                    self.pages.free(page_addr(first), PageCount::new(n));
                    self.twin.free(first, n);
                }
            }
            Op::SetScavenged { pick, start, len } => {
                if let Some((first, n)) = part(&self.twin.free_runs(), pick, start, len) {
                    self.pages.set_scavenged(page_addr(first), PageCount::new(n));
                    self.twin.set_scavenged(first, n);
                }
            }
            Op::ClearScavenged { pick, start, len } => {
                if let Some((first, n)) = part(&self.twin.runs(|_| true), pick, start, len) {
                    self.pages.clear_scavenged(page_addr(first), PageCount::new(n));
                    self.twin.clear_scavenged(first, n);
                }
            }
            Op::ToCache => {
                let cache = self.pages.alloc_to_cache();
                let seen = cache.as_ref().map(|cache| {
                    (cache.base().get() / PAGE_BYTES, cache.free_bits(), cache.scavenged_bits())
                });
                assert_eq!(seen, self.twin.alloc_to_cache());
                self.caches.extend(cache);
            }
            Op::CacheAlloc { pick, n } => self.cache_alloc(pick, n),
            Op::Flush { pick } => {
                let count = self.caches.len().max(1);
                if let Some(cache) = self.caches.get_mut(pick % count) {
                    let block = cache.base().get() / PAGE_BYTES;
                    self.twin.flush(block, cache.free_bits(), cache.scavenged_bits());
                    cache.flush(&mut self.pages);
                    assert!(cache.is_empty());
                }
            }
            Op::Scavenge { force, min_log, max, huge } => {
                // No more than a chunk is ever found, and the twin counts up to the wish.
                self.scavenge(force, [1 << min_log, max.min(2 * CHUNK_PAGES), huge]);
            }
            Op::Finish { pick, len } => self.finish(pick, len),
            Op::ScavengeAll => {
                self.pages.reset_scavenge_search();
                self.twin.reset_scavenge_search();
                while self.scavenge(true, [1, CHUNK_PAGES, 256]) {}
                assert_eq!(self.twin.runs(|state| state == READY), []);
            }
            Op::NextGeneration => {
                self.pages.next_scavenge_generation();
                self.twin.next_generation();
            }
        }
    }

    /// Whether anything was found.
    fn scavenge(&mut self, force: bool, limits: [usize; 3]) -> bool {
        let [min, max] = [limits[0], limits[1]].map(PageCount::new);
        let range = self.pages.take_for_scavenging(force, min, max, limits[2]);
        let range =
            range.map(|range| (range.base().get() / PAGE_BYTES, range.bytes().get() / PAGE_BYTES));
        assert_eq!(range, self.twin.take_for_scavenging(force, limits));
        self.taken.extend(range);
        range.is_some()
    }

    fn finish(&mut self, pick: usize, len: usize) {
        if self.taken.is_empty() {
            return;
        }
        let (first, whole) = self.taken.swap_remove(pick % self.taken.len());
        let n = (whole * len / 256).clamp(1, whole);
        let bytes = PageCount::new(n).bytes();
        self.pages.finish_scavenging(AddrRange::at(page_addr(first), bytes));
        self.twin.finish_scavenging(first, n);
        if n < whole {
            self.taken.push((first + n, whole - n));
        }
    }

    fn grow(&mut self, which: usize) {
        let (first, n) = GROWABLE[which];
        let (first, end) = (ChunkIndex::new(first), ChunkIndex::new(first + n));
        if !self.twin.has_chunk(first) {
            let range = AddrRange::new(first.base(), end.base());
            self.pages.grow(&self.os, range).expect("the simulated system refuses nothing");
            self.twin.grow(first, n);
        }
    }

    /// Takes pages out of a cache; that they were free in it is the business of the cache's own
    /// test.
    fn cache_alloc(&mut self, pick: usize, n: usize) {
        let count = self.caches.len().max(1);
        let Some(cache) = self.caches.get_mut(pick % count) else { return };
        if let Some(run) = cache.alloc(PageCount::new(n)) {
            self.twin.uncache(run, n);
        }
    }

    /// The allocator's tables say what the twin's say.
    fn compare(&self) {
        self.pages.check_invariants();
        let grown: Vec<(usize, usize)> = self
            .pages
            .in_use()
            .map(|range| (range.base().get() / PAGE_BYTES, range.bytes().get() / PAGE_BYTES))
            .collect();
        assert_eq!(grown, self.twin.runs(|_| true));
        for (chunk, states) in &self.twin.chunks {
            let view = self.pages.chunk(ChunkIndex::new(*chunk)).expect("the chunk was grown");
            for (i, state) in states.iter().enumerate() {
                let bit = |bits: &[u64; 8]| bits[i / 64] >> (i % 64) & 1 != 0;
                let expected = match state {
                    Page::Free { scavenged } => (false, *scavenged),
                    Page::Allocated | Page::Cached | Page::Taken => (true, false),
                };
                let found = (bit(view.allocated), bit(view.scavenged));
                assert_eq!(found, expected, "page {i} of chunk {chunk} is {state:?}");
            }
            self.compare_index(*chunk, view.occupancy);
        }
        let taken: usize = self.taken.iter().map(|(_, n)| n).sum();
        assert_eq!(self.pages.scavenging_pages().get(), taken);
    }

    fn compare_index(&self, chunk: usize, occupancy: Occupancy) {
        let index = &self.twin.index;
        let found = (occupancy.in_use.get(), occupancy.has_free());
        let expected = (self.twin.in_use(chunk), index.has_free.contains(&chunk));
        assert_eq!(found, expected, "chunk {chunk}");
        if index.changed.contains(&chunk) {
            let found = (occupancy.generation, occupancy.last_in_use.get());
            assert_eq!(found, (index.generation, index.at_start(chunk)), "chunk {chunk}");
        }
    }
}

proptest! {
    #![proptest_config(config(120, 0x70a6_e5a1))]

    #[test]
    fn the_allocator_does_what_its_twin_does(
        first in 0..GROWABLE.len(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let mut pair = Pair::new();
        pair.grow(first);
        for op in &ops {
            pair.apply(op);
            pair.compare();
        }
        pair.pages.release(&pair.os);
    }
}

/// Operations of a long life.
const LIFE: usize = 1000;

#[test]
fn long_lives_are_those_of_the_twin() {
    let long = std::env::var_os("SPANHEAP_LONG").is_some_and(|value| value == "1");
    let lives = if long { 1000 } else { 5 };
    for seed in 0..lives {
        println!("the life with seed {seed}");
        let mut runner = TestRunner::new(config(1, seed));
        let (first, op) = (0..GROWABLE.len(), op());
        let mut pair = Pair::new();
        pair.grow(next(&mut runner, &first));
        for _ in 0..LIFE {
            pair.apply(&next(&mut runner, &op));
            pair.compare();
        }
        pair.pages.release(&pair.os);
    }
}

fn next<S: Strategy>(runner: &mut TestRunner, strategy: &S) -> S::Value {
    strategy.new_tree(runner).expect("these strategies reject nothing").current()
}
