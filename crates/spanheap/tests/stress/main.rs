//! Random programs against models, while the collector runs all the time.
//!
//! - [`shadow`]: each thread mutates a graph of its own and keeps a shadow of it in ordinary Rust; what
//!   the heap holds and what the shadow says is compared all the time, and the number of objects that
//!   survive a collection is what the shadow can reach.
//! - [`tokens`]: the adversary. Threads move a fixed set of objects between shared cells and locked
//!   containers, so that most of the time some of them are reachable only through a closure; none may be
//!   lost or doubled.
//! - [`publish`]: new objects are complete for whoever finds them.
//! - [`torture`]: the adversary with everything at once, some millions of times in the long mode.
//! - [`large_array`]: pointers move in an array so large that marking it takes many closures.
//! - [`passing_threads`]: thousands of threads that come, take part, and go.
//! - [`afterlife`]: weak pointers, ephemerons, cleanups and revival, while objects die all the time.
//! - [`drops`]: every value that was made is dropped exactly once, on the drop thread.
//!
//! Every object carries a canary, freed memory is poisoned, and checkmark mode verifies the cycles of some
//! of the runs. Each run prints its seed. `SPANHEAP_STRESS_ROUNDS=n` multiplies the length of the runs.

mod afterlife;
mod drops;
mod large_array;
mod passing_threads;
mod publish;
mod shadow;
mod tokens;
mod torture;

use spanheap::{Heap, HeapBuilder};
use std::num::NonZeroUsize;

/// A generator of numbers: xorshift64*.
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal numbers.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() >> 33) as usize % bound
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Runs `work(0)`, `work(1)`.. on `count` threads. Each is joined, and not only waited for by a scope: a thread
/// sanitizer whose standard library is not instrumented knows nothing of the end of a scope.
pub fn on_threads(count: u64, work: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        let work = &work;
        let start = |number| {
            let named = std::thread::Builder::new().name(format!("user {number}"));
            named.spawn_scoped(scope, move || work(number)).unwrap()
        };
        let threads: Vec<_> = (0..count).map(start).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// How much longer than usual the runs are.
pub fn rounds() -> usize {
    std::env::var("SPANHEAP_STRESS_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// The ways in which each program is run.
pub fn modes() -> [(&'static str, HeapBuilder); 3] {
    let checked = || Heap::builder().poison(true);
    [
        ("continuous", checked().collect_continuously(true)),
        ("continuous, verified, full fences, four workers and assists", {
            let together =
                checked().mark_threads(NonZeroUsize::new(4).unwrap()).always_assist(true);
            together.collect_continuously(true).checkmark(true).symmetric_fences(true)
        }),
        ("paced, verified", checked().gc_percent(2).checkmark(true)),
    ]
}

/// What an object's canary must be.
pub fn canary(id: u64) -> u64 {
    id.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ 0x5af3_107a_4000_c0de
}
