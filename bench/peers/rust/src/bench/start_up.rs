//! What the programs for `start-up` have in common: the rounds, and what the system says about memory.
//!
//! Systems that have no heap to make and drop make the list, look at it, and free it.

use std::time::Instant;

use super::{Failure, Figure, Outcome, Result, Times};
use crate::options::Params;
use crate::process;

/// A heap, if there is such a thing, with a list in it. Its drop frees everything.
pub(super) trait List {
    /// So many objects with the numbers from `first` on, each pointing to the one made before it.
    fn new(first: u64, objects: u64, params: &Params) -> Self;
    /// The sum of all numbers.
    fn sum(&self) -> u64;
}

pub(super) fn run<L: List>(params: &Params) -> Result<Outcome> {
    if params.threads > 1 {
        return Err(Failure::new("start-up runs on one thread"));
    }
    let [rounds, objects] = ["rounds", "objects"].map(|key| params.get(key));
    let (mut times, mut checksum) = (Times::default(), 0_u64);
    let (before, mut first_round, mut first_resident, mut after) = (process::resident(), 0, 0, 0);
    for round in 0..rounds {
        let started = Instant::now();
        let list = L::new(round, objects, params);
        checksum = checksum.wrapping_add(list.sum());
        let mut time = started.elapsed();
        if round == 0 {
            first_resident = process::resident().saturating_sub(before);
        }
        let ending = Instant::now();
        drop(list);
        time += ending.elapsed();
        times.record(time);
        if round == 0 {
            (first_round, after) = (time.as_nanos() as u64, process::resident());
        }
    }
    let figures = vec![
        Figure::count("first_round_ns", first_round),
        Figure::count("first_resident_bytes", first_resident),
        Figure::count("grown_resident_bytes", process::resident().saturating_sub(after)),
    ];
    Ok(Outcome { checksum, latency: Some(("round", times)), figures })
}
