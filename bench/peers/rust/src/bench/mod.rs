//! The workloads: their keys, what they return, and what they have in common.
//!
//! | module | |
//! |---|---|
//! | `systems` | which system does which workloads |
//! | `gcbench`, `message_bus`, `lru`, `spatial_index`, `marking`, `start_up` | what the systems have in common there |
//! | `zipf`, `histogram` | keys of which few are asked for often, times (the latter is spanheap's own) |
//! | `owned` | `Box`, `Rc` and `Arc` |
//! | `gc_arena` | gc-arena |
//! | `dumpster` | dumpster, both kinds |
//! | `bump` | bumpalo |

pub mod bump;
pub mod dumpster;
pub mod gc_arena;
mod gcbench;
#[path = "../../../../../crates/spanheap-cli/src/bench/histogram.rs"]
mod histogram;
mod lru;
mod marking;
mod message_bus;
pub mod owned;
mod spatial_index;
mod start_up;
pub mod systems;
mod zipf;

use std::fmt;
use std::thread;
use std::time::Duration;

use crate::options::{Key, Params, key};
use histogram::Histogram;

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
    pub key: &'static str,
    pub value: Number,
}

impl Figure {
    fn count(key: &'static str, value: u64) -> Figure {
        Figure { key, value: Number::Count(value) }
    }

    /// What is no number, such as a part of nothing, is 0.
    fn real(key: &'static str, value: f64) -> Figure {
        Figure { key, value: Number::Real(if value.is_finite() { value } else { 0.0 }) }
    }
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
    Workload { name: "binary-trees", keys: &[key("depth", 16, 4, 58), key("arena", 0, 0, 1)] },
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
            key("rate", 0, 0, 1_000_000_000),
        ],
    },
    Workload {
        name: "marking",
        keys: &[
            key("shape", 1, 0, 5),
            key("objects", 1_000_000, 1, 1 << 32),
            key("rounds", 10, 1, 1_000_000),
        ],
    },
    Workload {
        name: "lru",
        keys: &[
            key("entries", 8_000_000, 1, u64::MAX),
            key("keys", 16_000_000, 1, 1 << 32),
            key("operations", 20_000_000, 0, u64::MAX),
            key("shards", 64, 1, 1 << 16),
        ],
    },
    Workload {
        name: "spatial-index",
        keys: &[
            key("points", 1_000_000, 1, 1 << 32),
            key("operations", 500_000, 0, u64::MAX),
            key("k", 10, 1, 1024),
        ],
    },
    Workload {
        name: "start-up",
        keys: &[key("rounds", 1000, 1, u64::MAX), key("objects", 1000, 1, u64::MAX)],
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
    on_stacks(threads, STACK, body)
}

/// What a thread has for a stack if nothing is said.
const STACK: usize = 2 << 20;

/// The same on new threads, with stacks of so many bytes: for systems that recurse along the data.
fn on_stacks<T: Send>(
    threads: usize,
    stack: usize,
    body: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    thread::scope(|scope| {
        let body = &body;
        let mut handles = Vec::with_capacity(threads);
        for index in 0..threads {
            let builder = thread::Builder::new().stack_size(stack);
            let handle = builder
                .spawn_scoped(scope, move || body(index))
                .map_err(|error| Failure::new(format!("thread {index} cannot start: {error}")))?;
            handles.push(handle);
        }
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

/// Refuses the trees in arenas, for a system that has none.
fn no_arena(params: &Params) -> Result<()> {
    match params.get("arena") {
        0 => Ok(()),
        _ => Err(Failure::not_applicable("it has no arenas that are freed at once")),
    }
}
