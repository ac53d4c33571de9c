//! The page allocator against a twin that is too simple to be wrong, and on a system that refuses.

mod cache;
mod failures;
mod large;
mod twin;
mod twin_index;
mod twin_test;

use proptest::test_runner::{Config, RngSeed};

/// Settings of the randomised tests: a fixed seed, so that every run does the same.
fn config(cases: u32, seed: u64) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    }
}
