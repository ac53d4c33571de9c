//! `phases`: live data that grows, stays, and goes; and how soon the process is small again.
//!
//! ```text
//! small phase                        steady; the median of its second half is the base
//! repeat `cycles` times:
//!     grow, large phase              steady
//!     drop the roots, collect()      not with --no-collect
//!     small phase                    the window: when is the resident set within 10 % of the base?
//! ```
//! "Steady" means that objects are replaced by others of other sizes all the time, at a rate of `churn` bytes
//! per second: a heap at rest has an easy life, and a program at rest has no use for the memory. The rate
//! is fixed so that the work, and what the collector spends on it, does not depend on how fast the heap is.
//!
//! What is asked is what the operating system sees: the resident set, sampled every 50 milliseconds
//! ([`resident`]). What the heap says about itself stands beside it. The base is always that of the first small
//! phase: a heap that never gives anything back must not become its own yardstick.
//!
//! The objects ([`LiveData`]) are checked when they are replaced and all of them at the end; then everything is
//! dropped and the heap must be empty.

mod report;
mod resident;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use spanheap::{Collected, Heap};

use super::{check_fits, in_threads, share};
use crate::failure::{Failure, Result};
use crate::live_data::LiveData;
use crate::options::{check_range, check_threads, seconds, size};
use crate::{output, process};
use report::{Report, Return};
use resident::Sampler;

/// What `spanheap bench phases` is told.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How long each phase lasts, in seconds.
    #[arg(long, default_value_t = 10.0, allow_negative_numbers = true)]
    phase_seconds: f64,
    /// How often the data grows and goes, 1 to 1000.
    #[arg(long, default_value_t = 2)]
    cycles: usize,
    /// Live data in small phases: a number of bytes, or with a unit.
    #[arg(long, default_value = "0.1GiB", value_parser = size)]
    small: u64,
    /// Live data in large phases.
    #[arg(long, default_value = "4GiB", value_parser = size)]
    large: u64,
    /// How much is replaced per second, all threads together.
    #[arg(long, default_value = "64MiB", value_parser = size)]
    churn: u64,
    /// How many threads share the data and the work, 1 to 1024.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Do not ask for a collection when the roots of the large phase are dropped.
    #[arg(long)]
    no_collect: bool,
    /// How much the heap may grow over what was live before the next cycle, in percent.
    #[arg(long, default_value_t = 100)]
    gc_percent: u32,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  spanheap bench phases                                  0.1 to 4 GiB, two cycles, 50 seconds
  spanheap bench phases --large 512MiB --phase-seconds 3 --json
  spanheap bench phases --no-collect                     what the heap does by itself";

/// More cycles than this are a typing error.
const MAX_CYCLES: usize = 1000;
/// Bytes that are renewed in one closure.
const STEP: u64 = 64 << 10;

/// Runs the benchmark.
pub(super) fn run(options: &Options) -> Result<()> {
    let phase = check(options)?;
    let before = process::cpu_time();
    let started = Instant::now();
    let heap = Heap::builder().gc_percent(options.gc_percent).build()?;
    let mut run = Run::new(options, &heap, phase)?;
    run.grow(options.small)?;
    let (base, base_cpu) = run.base()?;
    let mut returns = Vec::with_capacity(options.cycles);
    for cycle in 1..=options.cycles {
        returns.push(run.cycle(cycle, base)?);
    }
    let verified = run.finish()?;
    let report = Report {
        options,
        base,
        base_cpu,
        returns: &returns,
        verified,
        wall: started.elapsed(),
        cpu: process::cpu_time().since(before),
        peak_resident: process::peak_resident(),
        stats: heap.stats(),
    };
    if options.json { output::line(&report.json()?) } else { report.print() }
}

/// Refuses what makes no sense; returns the length of a phase.
fn check(options: &Options) -> Result<Duration> {
    let Options { cycles, small, large, threads, .. } = *options;
    check_threads(threads)?;
    check_range("--cycles", cycles, 1..=MAX_CYCLES)?;
    if small > large {
        return Err(Failure::new(format!(
            "--small is {}, it must not be above --large, {}",
            output::bytes(small),
            output::bytes(large)
        )));
    }
    check_fits("phases", large)?;
    seconds("--phase-seconds", options.phase_seconds)
}

/// A run under way.
struct Run<'a> {
    options: &'a Options,
    heap: &'a Heap,
    phase: Duration,
    /// The part of each thread. Only ever locked by that thread, or by the main one between phases.
    parts: Vec<Mutex<LiveData>>,
    sampler: Sampler,
}

impl<'a> Run<'a> {
    fn new(options: &'a Options, heap: &'a Heap, phase: Duration) -> Result<Run<'a>> {
        let part = |index| Mutex::new(LiveData::new(heap, index as u64));
        let parts = (0..options.threads).map(part).collect();
        Ok(Run { options, heap, phase, parts, sampler: Sampler::start()? })
    }

    /// Calls `work` with the part of each thread, on that thread.
    fn each(&self, work: impl Fn(usize, &mut LiveData) -> Result<()> + Sync) -> Result<()> {
        let body = |index: usize| {
            let mut part = self.parts[index].lock().unwrap_or_else(PoisonError::into_inner);
            work(index, &mut part)
        };
        in_threads(self.parts.len(), body).map(drop)
    }

    fn grow(&self, bytes: u64) -> Result<()> {
        self.each(|index, part| part.grow_to(share(bytes, self.parts.len(), index)))
    }

    /// A phase in which the amount of data does not change.
    fn steady(&self) -> Result<()> {
        let started = Instant::now();
        self.each(|index, part| {
            let rate = share(self.options.churn, self.parts.len(), index) as f64;
            let mut renewed = 0_u64;
            while started.elapsed() < self.phase {
                let due = rate * started.elapsed().as_secs_f64();
                if (renewed + STEP) as f64 <= due {
                    part.renew(STEP)?;
                    renewed += STEP;
                } else {
                    let rest = self.phase.saturating_sub(started.elapsed());
                    std::thread::sleep(rest.min(Duration::from_millis(1)));
                }
            }
            Ok(())
        })
    }

    /// The first small phase: the resident set in its second half, and the CPU time of the whole.
    fn base(&self) -> Result<(u64, Duration)> {
        let (started, cpu) = (Instant::now(), process::cpu_time());
        self.steady()?;
        self.sampler.sample_now();
        let base = self.sampler.median_since(started + self.phase / 2);
        Ok((base, process::cpu_time().since(cpu).total()))
    }

    /// One time up and down.
    fn cycle(&self, cycle: usize, base: u64) -> Result<Return> {
        let started = Instant::now();
        self.grow(self.options.large)?;
        let grow = started.elapsed();
        self.steady()?;
        self.sampler.sample_now();
        let peak = self.sampler.highest_since(started);
        let ready_before = self.heap.stats().ready_bytes;

        let (dropped, cpu) = (Instant::now(), process::cpu_time());
        self.each(|index, part| {
            part.shrink_to(share(self.options.small, self.parts.len(), index));
            Ok(())
        })?;
        if !self.options.no_collect {
            let _ = self.heap.collect();
        }
        let collect = dropped.elapsed();
        self.steady()?;
        let end = self.sampler.sample_now();
        let pages = self.heap.picture().totals();
        Ok(Return {
            cycle,
            grow,
            collect,
            window: dropped.elapsed(),
            within: self.sampler.time_until(dropped, base + base / 10),
            peak,
            lowest: self.sampler.lowest_since(dropped),
            end,
            cpu: process::cpu_time().since(cpu).total(),
            ready_before: ready_before as u64,
            ready_end: self.heap.stats().ready_bytes as u64,
            free_end: pages.free.get() as u64,
            returned_end: pages.returned.get() as u64,
        })
    }

    /// Checks all objects, drops them, and makes sure that nothing is left. Returns how many there were.
    fn finish(&mut self) -> Result<u64> {
        let mut verified = 0;
        for part in self.parts.drain(..) {
            verified += part.into_inner().unwrap_or_else(PoisonError::into_inner).verify()?;
        }
        // Twice: a cycle that was under way when the last root went may count its objects still.
        for _ in 0..2 {
            if self.heap.collect() != Collected::Complete {
                return Err(Failure::new("the heap was asked to collect and did not"));
            }
        }
        match self.heap.stats().live_objects {
            0 => Ok(verified),
            left => Err(Failure::new(format!("{left} objects are left in a heap without roots"))),
        }
    }
}
