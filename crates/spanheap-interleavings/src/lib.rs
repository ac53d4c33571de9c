//! Tests of the code that threads share, under a model checker of interleavings and memory orderings.
//!
//! There is nothing in this crate but its tests, and they are those of other code: the build script takes
//! files of `spanheap-core` as they are, and the tests compile them against the checker's atomics. See
//! `tests/interleavings/main.rs`.
