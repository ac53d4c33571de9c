//! `spanheap demo`: real documents in a shared heap, changed from several threads, verified.
//!
//! The demo answers the question that matters about a concurrent collector: does it ever free
//! something that is still in use, and does it free all that is not? Threads decode JSON documents
//! into a cache, edit and read them, and replace them, while the collector runs beside them. Every
//! document knows what it must look like ([`sources`]), and is compared again and again, and at
//! the end in the single-threaded quiet. Then the cache is dropped, and the heap must be empty,
//! although every tree in it is full of cycles.
//!
//! - [`sources`]: the documents as files, and the truth about them
//! - [`document`]: the documents as heap objects
//! - [`decode`], [`encode`], [`query`], [`edit`]: what can be done with them
//! - [`worker`]: the threads; [`status`]: what is shown

mod decode;
mod document;
mod edit;
mod encode;
mod query;
mod sources;
mod status;
#[cfg(test)]
mod tests;
mod worker;

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clap::Args;
use spanheap::{Collected, GcMutex, Heap};

use crate::failure::{Failure, Result};
use crate::random::Random;
use crate::{options, output, process};
use document::{Cache, CacheRoot};
use sources::Source;
use status::Status;
use worker::Shared;

/// What `spanheap demo` is told.
#[derive(Args)]
pub(crate) struct Options {
    /// JSON documents to work on; without any, those that come with the program.
    files: Vec<PathBuf>,
    /// How many threads work on the documents, 1 to 1024.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How long, in seconds.
    #[arg(long, default_value_t = 5.0, allow_negative_numbers = true)]
    seconds: f64,
    /// The hard memory limit of the heap: a number of bytes, or with a unit. None by default.
    #[arg(long, value_parser = options::size)]
    limit: Option<u64>,
}

/// About how much source text the cache holds; every source at least once, though.
const CACHED_BYTES: usize = 8 << 20;
/// No more documents than this, however small they are.
const MAX_SLOTS: usize = 4096;

/// Runs the demo.
pub(crate) fn run(options: &Options) -> Result<()> {
    options::check_threads(options.threads)?;
    let duration = options::seconds("--seconds", options.seconds)?;
    let sources = sources::load(&options.files)?;
    let mut builder = Heap::builder().from_env();
    if let Some(limit) = options.limit {
        builder = builder.hard_limit(limit as usize);
    }
    let heap = builder.build()?;
    let slots = slots(&sources);
    let shared = Shared::new(heap.clone(), cache(&heap, slots)?, &sources, slots);

    let before = process::cpu_time();
    let mut status = Status::new();
    work(&shared, options.threads, duration, &mut status)?;
    let elapsed = status.elapsed();
    let cpu = process::cpu_time().since(before);
    let stats = heap.stats();
    let verified = verify(&shared)?;
    status::summary(&shared, &stats, elapsed, cpu)?;
    drop(shared);
    empty(&heap)?;
    output::line(&format!("verified {verified} documents, heap empty"))
}

/// One step of the demo's work, for any thread to take.
pub(crate) type Step<'a> = dyn Fn(&mut Random) -> Result<()> + Sync + 'a;

/// Fills a cache in a heap of somebody else's, and lends `body` the demo's steps on it.
pub(crate) fn with_steps<R>(heap: &Heap, body: impl FnOnce(&Step<'_>) -> Result<R>) -> Result<R> {
    let sources = sources::load(&[])?;
    let slots = slots(&sources);
    let shared = Shared::new(heap.clone(), cache(heap, slots)?, &sources, slots);
    worker::fill(&shared)?;
    body(&|random| worker::step(&shared, random))
}

/// How many documents the cache holds.
fn slots(sources: &[Source]) -> usize {
    let total: usize = sources.iter().map(|source| source.text.len()).sum();
    let copies = CACHED_BYTES / total.max(1);
    (copies * sources.len()).min(MAX_SLOTS).max(sources.len())
}

/// The cache, with empty slots.
fn cache(heap: &Heap, slots: usize) -> Result<CacheRoot> {
    heap.enter(|mc| {
        let cache = Cache { slots: GcMutex::new(vec![None; slots]) };
        let cache = mc.try_alloc(cache).map_err(|error| decode::exhausted("the cache", &error))?;
        Ok(mc.root(cache))
    })
}

/// Runs the threads for `duration`, showing the state meanwhile.
fn work(
    shared: &Shared<'_>,
    threads: usize,
    duration: Duration,
    status: &mut Status,
) -> Result<()> {
    thread::scope(|scope| {
        let mut handles = Vec::with_capacity(threads);
        for number in 0..threads {
            let body = move || worker::work(shared, number);
            match thread::Builder::new().name(format!("worker {number}")).spawn_scoped(scope, body)
            {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    shared.fail(Failure::new(format!("thread {number} cannot start: {error}")));
                    break;
                }
            }
        }
        // A worker that panicked cannot stop the others; who finds it finished here does.
        while !shared.stopped() && status.elapsed() < duration {
            let rest = duration.saturating_sub(status.elapsed());
            thread::sleep(rest.min(Duration::from_millis(20)));
            status.show(shared);
            if handles.iter().any(thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        shared.stop();
        for handle in handles {
            if let Err(payload) = handle.join() {
                shared.fail(Failure::from_panic(payload.as_ref()));
            }
        }
    });
    status.finish();
    shared.failure().map_or(Ok(()), Err)
}

/// Compares every document in the cache with its source, each in an `enter` of its own. Returns
/// how many there are.
fn verify(shared: &Shared<'_>) -> Result<usize> {
    for slot in 0..shared.slots {
        shared.heap.enter(|mc| {
            let Some(document) = shared.cache.get(mc).slots.lock(mc)[slot] else {
                return Err(Failure::new(format!("slot {slot} of the cache is empty")));
            };
            encode::verify(mc, document, &shared.sources[document.source])
        })?;
    }
    Ok(shared.slots)
}

/// Collects, and makes sure that nothing is left.
fn empty(heap: &Heap) -> Result<()> {
    // Twice: a cycle that was under way when the last root went may count its objects still.
    for _ in 0..2 {
        if !matches!(heap.collect(), Collected::Complete) {
            return Err(Failure::new("the heap was asked to collect and did not"));
        }
    }
    match heap.stats().live_objects {
        0 => Ok(()),
        left => Err(Failure::new(format!("{left} objects are left in a heap without roots"))),
    }
}
