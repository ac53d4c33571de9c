//! `spanheap bench`: one workload, one result.
//!
//! A workload is a row of [`WORKLOADS`]: its name, its parameters with their bounds, and a function. All
//! the rest is common: checking what the user typed, building the heap, measuring, printing. The
//! same workloads exist for other collectors under `bench/peers`, with the same parameters and the
//! same checksum; a result without an equal checksum is no result.
//!
//! The tree workloads allocate with `alloc`, as programs do that have no use for a `Result`, and as other
//! languages do without a choice. It panics when there is no memory; [`contain`] makes that an error
//! like the others.
//!
//! Six benchmarks have more than one result and options of their own: [`phases`] asks whether memory comes back
//! after a peak, [`fragmentation`] how much of it free slots hold, [`stalls`] whether the longest push of
//! the message bus grows with the heap; [`request_arena`] what it costs to decode a document for each request, by
//! where the document goes, and [`arena_objects`] what each object costs there; [`scaling`] where many threads would
//! wait for each other.
//!
//! With `--peers` the whole suite runs, beside other systems: [`suite`].
//! What the workloads are to programs in other languages stands in `bench/WORKLOADS.md`: objects, order of
//! operations, random numbers, checksums.
//!
//! What is measured is the process: wall time of the workload, CPU time and peak memory from the
//! operating system. A collector that works on other threads cannot hide there.

mod arena_objects;
mod binary_trees;
mod fragmentation;
mod gcbench;
mod histogram;
mod leak;
mod limits;
mod lru;
mod marking;
mod message_bus;
mod params;
mod phases;
mod report;
mod request_arena;
mod run_queue;
mod scaling;
mod spatial_index;
mod stalls;
mod start_up;
mod suite;
mod write_storm;

use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use spanheap::{Heap, HeapBuilder, Stats};

use crate::failure::{Failure, Result};
use crate::options::{Percent, check_threads, percent, size};
use crate::process::CpuTime;
use crate::{output, process};
use histogram::Histogram;
use params::{Key, Params};
use report::{Figure, Report};

/// What `spanheap bench` is told.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(subcommand)]
    special: Option<Special>,
    /// One of those below.
    #[arg(required_unless_present = "peers")]
    workload: Option<String>,
    /// Run all workloads beside other systems, and write a page. What follows is for the suite: --peers --help.
    #[arg(long, value_name = "OPTION", num_args = 0.., allow_hyphen_values = true, conflicts_with = "workload")]
    peers: Option<Vec<String>>,
    /// How many threads share the work, 1 to 1024.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Parameters of the workload; one that it does not have makes it name those that it has.
    #[arg(long = "set", value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
    /// How much the heap may grow over what was live before the next cycle, in percent, or `off`.
    #[arg(long, default_value = "100", value_parser = percent)]
    gc_percent: Percent,
    /// A soft limit for the memory of the heap: a number of bytes, or with a unit.
    #[arg(long, value_parser = size)]
    limit: Option<u64>,
}

impl Options {
    /// What the heap is like, as far as the workload does not say otherwise.
    fn builder(&self) -> HeapBuilder {
        let builder = match self.gc_percent {
            Percent(Some(percent)) => Heap::builder().from_env().gc_percent(percent),
            Percent(None) => Heap::builder().from_env().gc_percent_off(),
        };
        match self.limit {
            Some(bytes) => limits::limited(builder, bytes),
            None => builder,
        }
    }
}

const EXAMPLES: &str = "Workloads:
  binary-trees   trees of many depths, which come and go
  gcbench        trees and an array that stay, and trees that go
  message-bus    a window of messages: how long does the longest push take?
  write-storm    stores of pointers: what do they cost, and what while marking runs?
  lru            a large cache whose old entries go
  limits         the same below a limit that leaves little room
  leak           a list that only grows, against a hard limit
  marking        graphs that stay: how long does a cycle take?
  spatial-index  a large R-tree: queries beside points that move
  start-up       small heaps that are made and dropped

Examples:
  spanheap bench binary-trees --set depth=18
  spanheap bench message-bus --threads 2 --json
  spanheap bench message-bus --set collection=off        the same loop without the collector
  spanheap bench limits --set percent=110
  spanheap bench gcbench --gc-percent off --limit 64MiB  in so much memory, if possible
  spanheap bench stalls --live 0.1GiB,1GiB,4GiB
  spanheap bench request-arena --requests 1000000
  spanheap bench phases --large 1GiB --phase-seconds 5
  spanheap bench fragmentation --free random
  spanheap bench --peers --quick                         all of them beside other systems, some minutes
  spanheap bench --peers --workload binary-trees --system spanheap,go";

/// The benchmarks with options of their own.
#[derive(Subcommand)]
enum Special {
    /// Live data of changing size: does memory come back?
    Phases(phases::Options),
    /// Half of the objects of each size freed: how much memory do the others hold?
    Fragmentation(fragmentation::Options),
    /// The message bus beside more and more live data: do pushes take longer?
    Stalls(stalls::Options),
    /// A document for each request: on the heap, in arenas, elsewhere.
    RequestArena(request_arena::Options),
    /// Small objects that die together: what does each cost?
    ArenaObjects(arena_objects::Options),
    /// Where would threads wait for each other, if there were many processors?
    Scaling(scaling::Options),
}

/// A workload: what is known about it before it runs.
struct Workload {
    name: &'static str,
    keys: &'static [Key],
    /// The most bytes that the workload keeps alive at once, or none if that overflows.
    footprint: fn(&Params) -> Option<u64>,
    /// What the heap is like, besides its `gc_percent`.
    settings: fn(&Params, HeapBuilder) -> HeapBuilder,
    run: Work,
}

/// What a workload works on.
enum Work {
    /// A heap, which is made before the clock starts.
    OnHeap(fn(&Heap, &Params) -> Result<Outcome>),
    /// Heaps that it makes itself with what it is given. The statistics are those of the last one.
    OnHeaps(OnHeaps),
}

type OnHeaps = fn(&dyn Fn() -> HeapBuilder, &Params) -> Result<(Outcome, Stats)>;

/// What a workload found out.
struct Outcome {
    /// Equal for all implementations of the workload with equal parameters.
    checksum: u64,
    /// The name of the operation that the workload is about, and the time of each.
    latency: Option<(&'static str, Histogram)>,
    /// What it has found out besides.
    figures: Vec<Figure>,
}

impl Outcome {
    /// A checksum, and nothing else that is not common to all.
    fn plain(checksum: u64) -> Outcome {
        Outcome { checksum, latency: None, figures: Vec::new() }
    }
}

/// Workloads that have limits of their own.
const LIMITED: [&str; 2] = ["limits", "leak"];

const WORKLOADS: [Workload; 10] = [
    binary_trees::WORKLOAD,
    gcbench::WORKLOAD,
    message_bus::WORKLOAD,
    write_storm::WORKLOAD,
    lru::WORKLOAD,
    limits::WORKLOAD,
    leak::WORKLOAD,
    marking::WORKLOAD,
    spatial_index::WORKLOAD,
    start_up::WORKLOAD,
];

/// Runs the workload that `options` name.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.special {
        Some(Special::Phases(options)) => return contain(|| phases::run(options)),
        Some(Special::Fragmentation(options)) => return contain(|| fragmentation::run(options)),
        Some(Special::Stalls(options)) => return contain(|| stalls::run(options)),
        Some(Special::RequestArena(options)) => return contain(|| request_arena::run(options)),
        Some(Special::ArenaObjects(options)) => return contain(|| arena_objects::run(options)),
        Some(Special::Scaling(options)) => return contain(|| scaling::run(options)),
        None => {}
    }
    if let Some(arguments) = &options.peers {
        return suite::run(arguments);
    }
    let name = options.workload.as_deref().unwrap_or_default();
    let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == name) else {
        let names = WORKLOADS.map(|workload| workload.name).join(", ");
        return Err(Failure::new(format!(
            "there is no workload {name:?}; there are {names}, and with options of their own, which follow \
             the name, phases, fragmentation, stalls, request-arena, arena-objects and scaling"
        )));
    };
    check_threads(options.threads)?;
    let params = Params::parse(workload.keys, &options.set, options.threads)?;
    let footprint = check_footprint(workload, &params)?;
    if options.limit.is_some() && LIMITED.contains(&workload.name) {
        return Err(Failure::new(format!(
            "{} has a limit of its own, among its keys",
            workload.name
        )));
    }
    let measured = measure(options, workload, &params)?;
    let report = Report {
        workload: workload.name,
        params: &params,
        gc_percent: options.gc_percent,
        limit: options.limit,
        footprint,
        outcome: &measured.outcome,
        wall: measured.wall,
        cpu: measured.cpu,
        peak_resident: process::peak_resident(),
        stats: measured.stats,
    };
    if options.json { output::line(&report.json()?) } else { report.print() }
}

/// A workload that has run.
struct Measured {
    outcome: Outcome,
    wall: Duration,
    cpu: CpuTime,
    stats: Stats,
}

/// Runs a workload. Its heap, if it does not make its heaps itself, is made before and dropped behind the measuring.
fn measure(options: &Options, workload: &Workload, params: &Params) -> Result<Measured> {
    let builder = || (workload.settings)(params, options.builder());
    let heap = match workload.run {
        Work::OnHeap(_) => Some(builder().build()?),
        Work::OnHeaps(_) => None,
    };
    let (before, started) = (process::cpu_time(), Instant::now());
    let (outcome, stats) = contain(|| match (&workload.run, &heap) {
        (Work::OnHeap(run), Some(heap)) => run(heap, params).map(|outcome| (outcome, None)),
        (Work::OnHeap(_), None) => Err(Failure::new("there is no heap")),
        (Work::OnHeaps(run), _) => {
            run(&builder, params).map(|(outcome, stats)| (outcome, Some(stats)))
        }
    })?;
    let (wall, cpu) = (started.elapsed(), process::cpu_time().since(before));
    let stats = stats.or_else(|| heap.as_ref().map(Heap::stats));
    let stats = stats.ok_or_else(|| Failure::new("there was no heap"))?;
    Ok(Measured { outcome, wall, cpu, stats })
}

/// Refuses sizes that this machine cannot hold, before the operating system has to end the process.
/// Returns how large it is.
fn check_footprint(workload: &Workload, params: &Params) -> Result<u64> {
    match (workload.footprint)(params) {
        Some(bytes) => check_fits(workload.name, bytes).map(|()| bytes),
        None => Err(Failure::new(format!(
            "{}: these parameters make a size that overflows 64 bits",
            workload.name
        ))),
    }
}

/// Refuses to keep so many bytes alive if the machine has less.
fn check_fits(workload: &str, bytes: u64) -> Result<()> {
    let memory = process::machine_memory();
    if memory == 0 || bytes <= memory {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{workload}: these parameters keep {} alive, this machine has {}",
        output::bytes(bytes),
        output::bytes(memory),
    )))
}

/// Runs a workload; a panic for want of memory becomes a failure.
///
/// Its message is not printed where it happens: that takes memory, for a backtrace a lot, at the
/// moment when there is none. Any other panic is a defect, and its message and place are wanted.
fn contain<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>();
        if !text.is_some_and(|text| text.starts_with("out of memory")) {
            print(info);
        }
    }));
    // What the closure borrows is not used after a panic: the program ends.
    panic::catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|payload| Err(Failure::from_panic(payload.as_ref())))
}

/// The part of `total` that falls to the thread `index` of `threads`: parts differ by at most one.
fn share(total: u64, threads: usize, index: usize) -> u64 {
    let (threads, index) = (threads as u64, index as u64);
    total / threads + u64::from(index < total % threads)
}

/// Runs `body` for each thread number and returns the results in that order. A single thread is the
/// calling one, so that the simplest case is not measured with a second stack.
fn in_threads<T: Send>(threads: usize, body: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    if threads == 1 {
        return Ok(vec![body(0)?]);
    }
    thread::scope(|scope| {
        let body = &body;
        let mut handles = Vec::with_capacity(threads);
        for index in 0..threads {
            let handle = thread::Builder::new()
                .name(format!("worker {index}"))
                .spawn_scoped(scope, move || body(index))
                .map_err(|error| Failure::new(format!("thread {index} cannot start: {error}")))?;
            handles.push(handle);
        }
        let join = |handle: thread::ScopedJoinHandle<'_, Result<T>>| {
            handle.join().unwrap_or_else(|payload| Err(Failure::from_panic(payload.as_ref())))
        };
        // All are joined before the first error is looked for: a scope that is left with a thread
        // that panicked unjoined panics itself.
        let outcomes: Vec<Result<T>> = handles.into_iter().map(join).collect();
        outcomes.into_iter().collect()
    })
}

#[cfg(test)]
mod tests {
    use super::{in_threads, share};
    use crate::failure::Failure;

    #[test]
    fn shares_add_up_and_are_even() {
        for (total, threads) in [(0, 1), (1, 3), (10, 3), (1_000_003, 7), (u64::MAX, 1024)] {
            let shares: Vec<u64> = (0..threads).map(|index| share(total, threads, index)).collect();
            assert_eq!(shares.iter().sum::<u64>(), total);
            assert!(shares[0] - shares[threads - 1] <= 1, "{shares:?}");
        }
    }

    #[test]
    fn a_failing_thread_is_the_result() {
        let outcome = in_threads(3, |index| match index {
            1 => Err(Failure::new("thread 1")),
            _ => Ok(index),
        });
        assert_eq!(outcome.expect_err("one failed").to_string(), "thread 1");
        assert_eq!(in_threads(3, Ok).expect("none failed"), [0, 1, 2]);
    }
}
