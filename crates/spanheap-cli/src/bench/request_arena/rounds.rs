//! Measuring: all variants in turns, as the head of this folder says.

use std::time::{Duration, Instant};

use super::Document;
use super::variants::{Named, Variant};
use crate::bench::histogram::Histogram;
use crate::bench::share;
use crate::failure::{Failure, Result};
use crate::process;

/// What is known about a variant.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// The time of each request.
    pub(super) times: Histogram,
    /// Nanoseconds for each request, for each round.
    pub(super) cpu: Vec<f64>,
    pub(super) wall: Vec<f64>,
    /// Cycles that its heap began while requests were served, if it has one.
    pub(super) cycles: Option<u64>,
    /// Bytes by which the resident set grew in its first round, if the system tells.
    pub(super) grown: Option<u64>,
}

/// Lets every variant serve `requests` requests, in so many rounds.
pub(super) fn measure(
    variants: &mut [Named],
    document: &Document,
    requests: u64,
    rounds: u64,
) -> Result<Vec<Series>> {
    let mut series = Vec::with_capacity(variants.len());
    for Named { name, variant } in variants.iter_mut() {
        let mut unused = Histogram::new();
        let warm = (requests / rounds).max(1);
        let reset = process::reset_peak_resident();
        let before = process::resident();
        serve(name, variant.as_mut(), document, warm, &mut unused)?;
        let grown = reset.then(|| process::peak_resident().saturating_sub(before));
        series.push(Series {
            name,
            times: Histogram::new(),
            cpu: Vec::new(),
            wall: Vec::new(),
            cycles: variant.heap().map(|_| 0),
            grown,
        });
    }
    for round in 0..rounds {
        let share = share(requests, rounds as usize, round as usize);
        for turn in 0..variants.len() {
            let index = (turn + round as usize) % variants.len();
            let Named { name, variant } = &mut variants[index];
            let series = &mut series[index];
            let (cpu, started) = (process::cpu_time(), Instant::now());
            let cycles = serve(name, variant.as_mut(), document, share, &mut series.times)?;
            let each = |time: Duration| time.as_nanos() as f64 / share as f64;
            series.wall.push(each(started.elapsed()));
            series.cpu.push(each(process::cpu_time().since(cpu).total()));
            series.cycles = series.cycles.map(|sum| sum + cycles);
        }
    }
    for Named { name, variant } in variants {
        variant.verify(document).map_err(|error| Failure::new(format!("{name}: {error}")))?;
    }
    Ok(series)
}

/// A variant's part of a round. Returns how many cycles its heap began.
fn serve(
    name: &str,
    variant: &mut dyn Variant,
    document: &Document,
    requests: u64,
    times: &mut Histogram,
) -> Result<u64> {
    let cycles = |variant: &dyn Variant| variant.heap().map_or(0, |heap| heap.stats().cycles);
    let before = cycles(variant);
    let found = variant.serve(&document.text, requests, times);
    if found != variant.proof(document).wrapping_mul(requests) {
        return Err(Failure::new(format!("{name}: what was decoded is not the document")));
    }
    let begun = cycles(variant) - before;
    if let (Some(heap), 1..) = (variant.heap(), begun) {
        let _ = heap.collect();
    }
    Ok(begun)
}

/// The middle one of some numbers, or the mean of the two in the middle.
pub(in crate::bench) fn median(numbers: &[f64]) -> f64 {
    let mut numbers = numbers.to_vec();
    numbers.sort_by(f64::total_cmp);
    match numbers.len() {
        0 => 0.0,
        n => (numbers[(n - 1) / 2] + numbers[n / 2]) / 2.0,
    }
}

/// The smallest of some numbers: what the machine can do when nothing else runs on it.
pub(in crate::bench) fn least(numbers: &[f64]) -> f64 {
    numbers.iter().copied().min_by(f64::total_cmp).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::{least, median};

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), 3.0);
    }

    #[test]
    fn the_least_is_the_smallest() {
        assert_eq!(least(&[]), 0.0);
        assert_eq!(least(&[9.0, 1.0, 2.0]), 1.0);
    }
}
