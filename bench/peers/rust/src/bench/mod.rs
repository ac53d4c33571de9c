//! The workloads: their keys, what they return, and what they have in common.
//!
//! | file | |
//! |---|---|
//! | `systems.rs` | which system does which workloads |
//! | `owned/` | `Box`, `Rc` and `Arc` |
//! | `gc_arena/` | gc-arena |
//! | `dumpster/` | dumpster, both kinds |
//! | `bump/` | bumpalo |

pub mod bump;
pub mod dumpster;
pub mod gc_arena;
#[path = "../../../../../crates/spanheap-cli/src/bench/histogram.rs"]
mod histogram;
pub mod owned;
#[allow(dead_code)]
#[path = "../../../../../crates/spanheap-cli/src/bench/run_queue.rs"]
mod run_queue;
pub mod systems;

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use crate::options::{Key, Params, key};
use histogram::Histogram;
use run_queue::RunQueue;

/// Why there is no result.
#[derive(Debug)]
pub struct Failure {
    text: String,
    not_applicable: bool,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), not_applicable: false }
    }

    /// The system cannot do this, and says why.
    pub fn not_applicable(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), not_applicable: true }
    }

    pub fn is_not_applicable(&self) -> bool {
        self.not_applicable
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a workload found out.
pub struct Outcome {
    pub checksum: u64,
    /// The operation that the workload is about, and the time of each.
    pub latency: Option<(&'static str, Times)>,
    pub figures: Vec<Figure>,
}

impl Outcome {
    pub fn plain(checksum: u64) -> Outcome {
        Outcome { checksum, latency: None, figures: Vec::new() }
    }
}

/// Something that a workload has found out besides; the unit is at the end of the key.
pub struct Figure {
    pub key: String,
    pub value: Number,
}

pub enum Number {
    Count(u64),
    Real(f64),
}

/// The points of a distribution that are reported, in parts of 10,000.
pub const PERCENTILES: [(&str, u64); 5] =
    [("p50", 5_000), ("p99", 9_900), ("p999", 9_990), ("p9999", 9_999), ("max", 10_000)];

/// Times in nanoseconds.
#[derive(Default)]
pub struct Times(Histogram);

impl Times {
    pub fn record(&mut self, time: Duration) {
        self.0.record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    pub fn merge(&mut self, other: &Times) {
        self.0.merge(&other.0);
    }

    pub fn quantile(&self, part: u64) -> u64 {
        self.0.quantile(part)
    }
}

/// A workload, and its parameters.
pub struct Workload {
    pub name: &'static str,
    pub keys: &'static [Key],
}

/// How a system does a workload.
pub type Run = fn(&Params) -> Result<Outcome>;

pub const WORKLOADS: &[Workload] = &[
    Workload { name: "binary-trees", keys: &[key("depth", 16, 4, 58)] },
    Workload {
        name: "gcbench",
        keys: &[
            key("stretch", 18, 1, 56),
            key("longlived", 16, 1, 56),
            key("array", 500_000, 1, u64::MAX),
            key("min", 4, 1, 56),
            key("max", 16, 1, 56),
        ],
    },
    Workload {
        name: "message-bus",
        keys: &[
            key("window", 200_000, 1, u64::MAX),
            key("messages", 1_000_000, 1, u64::MAX),
            key("size", 1024, 1, u64::MAX),
            key("live", 0, 0, 0),
            key("collection", 1, 1, 1),
            key("continuous", 0, 0, 0),
        ],
    },
];

/// How many nodes a complete tree has.
fn nodes(depth: u64) -> u64 {
    (2 << depth) - 1
}

/// The part of `total` that falls to the thread `index` of `threads`: parts differ by at most one.
fn share(total: u64, threads: usize, index: usize) -> u64 {
    let (threads, index) = (threads as u64, index as u64);
    total / threads + u64::from(index < total % threads)
}

/// Runs `body` for each thread number and returns the results in that order. A single thread is the calling
/// one, as in spanheap's program.
fn in_threads<T: Send>(threads: usize, body: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
    if threads == 1 {
        return Ok(vec![body(0)?]);
    }
    thread::scope(|scope| {
        let body = &body;
        let start = |index| scope.spawn(move || body(index));
        let handles: Vec<_> = (0..threads).map(start).collect();
        let join = |handle: thread::ScopedJoinHandle<'_, Result<T>>| {
            handle.join().unwrap_or_else(|_| Err(Failure::new("a thread panicked")))
        };
        let outcomes: Vec<Result<T>> = handles.into_iter().map(join).collect();
        outcomes.into_iter().collect()
    })
}

/// Depths of the short-lived trees of binary-trees, and how many trees there are of each.
fn tree_depths(depth: u64) -> impl Iterator<Item = (u64, u64)> {
    (4..=depth).step_by(2).map(move |small| (small, 1 << (depth - small + 4)))
}

/// The parameters of gcbench.
struct GcBench {
    stretch: u64,
    long: u64,
    array: usize,
    min: u64,
    max: u64,
}

impl GcBench {
    fn new(params: &Params) -> Result<GcBench> {
        let [stretch, long, min, max] =
            ["stretch", "longlived", "min", "max"].map(|key| params.get(key));
        if min > max {
            return Err(Failure::new(format!("min is {min}, it must not be above max, {max}")));
        }
        let array = params.get("array") as usize;
        Ok(GcBench { stretch, long, array, min, max })
    }

    /// Depths of the temporary trees, and how many there are of each for a thread, twice.
    fn temporary(&self, threads: usize, index: usize) -> impl Iterator<Item = (u64, u64)> {
        let stretch = self.stretch;
        (self.min..=self.max).step_by(2).map(move |depth| {
            let trees = (2 * nodes(stretch) / nodes(depth)).max(1);
            (depth, share(trees, threads, index))
        })
    }
}

/// A number of the array of gcbench.
fn reciprocal(index: usize) -> f64 {
    1.0 / (index + 1) as f64
}

/// How many numbers of the array are as they were made.
fn intact(array: &[f64]) -> u64 {
    array.iter().enumerate().filter(|&(index, &number)| number == reciprocal(index)).count() as u64
}

/// The message bus, apart from the bus.
trait Bus: Sized {
    fn new(window: usize, params: &Params) -> Self;
    /// Puts a message in place of another. Returns what that one adds to the checksum.
    fn push(&mut self, number: u64, size: usize) -> u64;
    /// What the messages that are left add to the checksum. The bus is not torn down.
    fn finish(self) -> u64;
}

/// Runs the message bus.
fn message_bus<B: Bus>(params: &Params) -> Result<Outcome> {
    let [window, messages, size] = ["window", "messages", "size"].map(|key| params.get(key));
    let threads = params.threads;
    if threads as u64 > window {
        return Err(Failure::new(format!(
            "a window of {window} is too small for {threads} threads"
        )));
    }
    let parts = in_threads(threads, |index| {
        let mut bus = B::new(share(window, threads, index) as usize, params);
        let (mut times, mut own, mut sum) = (Times::default(), Times::default(), 0_u64);
        let mut run_queue = RunQueue::new();
        for number in 0..share(messages, threads, index) {
            let started = Instant::now();
            let gone = bus.push(number, size as usize);
            let time = started.elapsed();
            times.record(time);
            own.record(run_queue.own_part(time));
            sum = sum.wrapping_add(gone);
        }
        Ok((sum.wrapping_add(bus.finish()), times, own))
    })?;
    let (mut times, mut own, mut checksum) = (Times::default(), Times::default(), 0_u64);
    for part in &parts {
        checksum = checksum.wrapping_add(part.0);
        times.merge(&part.1);
        own.merge(&part.2);
    }
    let figure = |(name, part)| Figure {
        key: format!("push_own_{name}_us"),
        value: Number::Real(own.quantile(part) as f64 / 1e3),
    };
    Ok(Outcome {
        checksum,
        latency: Some(("push", times)),
        figures: PERCENTILES.map(figure).into(),
    })
}

/// What a message that was pushed out adds to the checksum.
fn gone(number: u64, payload: &[u8]) -> u64 {
    // A message has at least one byte: `size` is at least 1.
    number.wrapping_add(u64::from(payload[payload.len() - 1]))
}

/// What a message that is left adds to the checksum.
fn left(number: u64, payload: &[u8]) -> u64 {
    number.wrapping_add(payload.iter().map(|&byte| u64::from(byte)).sum())
}
