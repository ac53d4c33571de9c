//! `limits`: the cache of [`super::lru`] in a heap that may be little larger than what lives in it.
//!
//! The limit is `percent` of what a full cache weighs, by the sizes of its objects: 110 leaves a tenth for garbage,
//! for what lies between, and for the heap's own records. A collector without a limit would let the
//! heap double. With one it has to run all the time, and three things are asked:
//!
//! - **Does the run complete?** An operation that is refused memory is tried again after a cycle; `refused` says how
//!   often that was needed, `refused_filling` how often while the cache was filled.
//! - **How far is the limit exceeded?** A thread reads every millisecond what the heap has ready, and what is
//!   resident. `overshoot` is the largest excess of either over the limit, in parts of the limit; 0 is none. The resident
//!   set is counted from before the heap was made.
//! - **What does it cost?** The common figures say which share of the CPU went into collection; `collector_share` is
//!   the same for the operations alone, without the filling.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use spanheap::{Heap, HeapBuilder};

use super::lru::Churn;
use super::lru::cache::Cache;
use super::params::{Key, Params};
use super::report::Figure;
use super::{Outcome, Work, Workload};
use crate::failure::{Failure, Result};
use crate::process;

pub(super) const WORKLOAD: Workload = Workload {
    name: "limits",
    keys: &[
        Key { name: "entries", default: 2_000_000, min: 1, max: u64::MAX },
        Key { name: "keys", default: 4_000_000, min: 1, max: 1 << 32 },
        Key { name: "operations", default: 10_000_000, min: 0, max: u64::MAX },
        Key { name: "shards", default: 64, min: 1, max: 1 << 16 },
        Key { name: "percent", default: 110, min: 100, max: 10_000 },
    ],
    footprint: limit,
    settings: |params, builder| limited(builder, limit(params).unwrap_or(u64::MAX)),
    run: Work::OnHeap(run),
};

/// How often the heap is looked at.
const PERIOD: Duration = Duration::from_millis(1);

/// The limit in bytes, or none if it overflows.
fn limit(params: &Params) -> Option<u64> {
    let weight = Cache::weight(params.get("entries"), params.get("shards"))?;
    u64::try_from(u128::from(weight) * u128::from(params.get("percent")) / 100).ok()
}

/// A heap with a limit.
pub(super) fn limited(builder: HeapBuilder, bytes: u64) -> HeapBuilder {
    builder.memory_limit(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// The largest values that were seen.
#[derive(Default)]
struct Peaks {
    ready: AtomicU64,
    resident: AtomicU64,
    samples: AtomicU64,
}

impl Peaks {
    fn sample(&self, heap: &Heap) {
        self.ready.fetch_max(heap.stats().ready_bytes as u64, Ordering::Relaxed);
        self.resident.fetch_max(process::resident(), Ordering::Relaxed);
        self.samples.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs `work` and looks at the heap meanwhile.
fn watch<T>(heap: &Heap, peaks: &Peaks, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let look = || {
            while !done.load(Ordering::Relaxed) {
                peaks.sample(heap);
                thread::sleep(PERIOD);
            }
        };
        let watcher = thread::Builder::new().name("watcher".into()).spawn_scoped(scope, look);
        let watcher = watcher
            .map_err(|error| Failure::new(format!("the watching thread cannot start: {error}")))?;
        let result = work();
        done.store(true, Ordering::Relaxed);
        // It has nothing to panic about, and if it did the result would not be worse for it.
        let _ = watcher.join();
        peaks.sample(heap);
        result
    })
}

fn run(heap: &Heap, params: &Params) -> Result<Outcome> {
    let churn = Churn::new(params)?;
    let limit = limit(params).ok_or_else(|| Failure::new("the limit overflows"))?;
    let (before, peaks) = (process::resident(), Peaks::default());
    let (filling, churned, cost) = watch(heap, &peaks, || {
        let cache = Cache::new(heap, churn.entries, churn.shards)?;
        let filling = churn.fill(heap, &cache)?;
        let meter = Meter::start(heap);
        let churned = churn.operate(heap, &cache)?;
        let cost = meter.share(heap);
        cache.count(heap).map_err(Failure::new)?;
        Ok((filling, churned, cost))
    })?;
    let over = |bytes: u64| bytes.saturating_sub(limit) as f64 / limit as f64;
    let ready = peaks.ready.into_inner();
    let resident = peaks.resident.into_inner().saturating_sub(before);
    let stats = heap.stats();
    let live = stats.live_bytes as u64;
    let mut figures = churned.figures();
    figures.extend([
        Figure::count("refused_filling", filling),
        Figure::count("limit_bytes", limit),
        Figure::count("peak_ready_bytes", ready),
        Figure::count("peak_heap_resident_bytes", resident),
        Figure::real("overshoot", over(ready.max(resident))),
        Figure::real("collector_share", cost),
        Figure::count("live_bytes", live),
        Figure::count("assisted_bytes", stats.assisted_bytes),
        Figure::real("assist_cpu_ms", stats.assist_cpu.as_secs_f64() * 1e3),
        Figure::count("deferred_cycles", stats.deferred_cycles),
        Figure::count("samples", peaks.samples.into_inner()),
    ]);
    Ok(Outcome { checksum: churned.checksum, latency: Some(("op", churned.times)), figures })
}

/// CPU time of the process and of the collector, from one moment on.
struct Meter {
    process: process::CpuTime,
    collector: Duration,
    started: Instant,
}

impl Meter {
    fn start(heap: &Heap) -> Meter {
        let collector = heap.stats().gc_cpu;
        Meter { process: process::cpu_time(), collector, started: Instant::now() }
    }

    /// Which part of the CPU time since then was the collector's; of the wall time, where the system
    /// tells no CPU time.
    fn share(&self, heap: &Heap) -> f64 {
        let collector = heap.stats().gc_cpu.saturating_sub(self.collector);
        let total = process::cpu_time().since(self.process).total();
        let total = if total.is_zero() { self.started.elapsed() } else { total };
        collector.as_secs_f64() / total.as_secs_f64().max(1e-9)
    }
}
