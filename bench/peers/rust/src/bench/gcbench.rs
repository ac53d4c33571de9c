//! What the programs for `gcbench` have in common: its parameters, its array, its figures.

use std::time::{Duration, Instant};

use super::{Failure, Figure, Outcome, Result, nodes, share};
use crate::options::Params;

/// The parameters.
pub(super) struct GcBench {
    pub(super) stretch: u64,
    pub(super) long: u64,
    pub(super) array: usize,
    min: u64,
    max: u64,
}

/// What a thread has found out.
#[derive(Default)]
pub(super) struct Temporary {
    sum: u64,
    top_down: Duration,
    bottom_up: Duration,
}

impl Temporary {
    /// Measures the trees of one depth that are built from the top down.
    pub(super) fn top_down(&mut self, work: impl FnOnce() -> u64) {
        let started = Instant::now();
        self.sum += work();
        self.top_down += started.elapsed();
    }

    /// The same from the bottom up.
    pub(super) fn bottom_up(&mut self, work: impl FnOnce() -> u64) {
        let started = Instant::now();
        self.sum += work();
        self.bottom_up += started.elapsed();
    }
}

impl GcBench {
    pub(super) fn new(params: &Params) -> Result<GcBench> {
        let [stretch, long, min, max] =
            ["stretch", "longlived", "min", "max"].map(|key| params.get(key));
        if min > max {
            return Err(Failure::new(format!("min is {min}, it must not be above max, {max}")));
        }
        let array = params.get("array") as usize;
        Ok(GcBench { stretch, long, array, min, max })
    }

    /// Depths of the temporary trees, and how many there are of each for a thread, twice.
    pub(super) fn temporary(
        &self,
        threads: usize,
        index: usize,
    ) -> impl Iterator<Item = (u64, u64)> {
        let stretch = self.stretch;
        (self.min..=self.max).step_by(2).map(move |depth| {
            let trees = (2 * nodes(stretch) / nodes(depth)).max(1);
            (depth, share(trees, threads, index))
        })
    }

    /// The numbers of the array.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f64> {
        (0..self.array).map(reciprocal)
    }

    /// The result; `kept` is what was found of what is long-lived.
    pub(super) fn outcome(&self, threads: &[Temporary], kept: u64) -> Outcome {
        let checksum = threads.iter().map(|part| part.sum).sum::<u64>() + kept;
        let mean = |time: fn(&Temporary) -> Duration| {
            threads.iter().map(time).sum::<Duration>().as_secs_f64() / threads.len() as f64
        };
        let figures = vec![
            Figure::real("top_down_s", mean(|part| part.top_down)),
            Figure::real("bottom_up_s", mean(|part| part.bottom_up)),
        ];
        Outcome { checksum, latency: None, figures }
    }
}

fn reciprocal(index: usize) -> f64 {
    1.0 / (index + 1) as f64
}

/// How many numbers of the array are as they were made.
pub(super) fn intact(array: &[f64]) -> u64 {
    array.iter().enumerate().filter(|&(index, &number)| number == reciprocal(index)).count() as u64
}
