//! What the threads of the demo do: steps, until they are told to stop or one of them fails.
//!
//! First every slot of the cache is filled, each by whichever thread comes first. Then each thread takes
//! random steps on random documents: replace it by a fresh copy (most of the work, and all of
//! the garbage), edit it, query it, count it without any lock, or write it and compare.
//!
//! **Each step is one `enter`.** What a closure has seen stays alive until it returns, so a closure
//! around all steps would keep every document that ever was in the cache.
//!
//! # At the memory limit
//! Inside a closure nobody waits for the collector, so an allocation that finds no room is refused at
//! once, even if most of the heap is garbage. Outside one can wait: [`attempt`] leaves the closure, has
//! the heap collected, and takes the step again. A step that finds no room several times in a row
//! does not fit.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use spanheap::{Gc, Heap, Mutator};

use super::document::{CacheRoot, Census, Document};
use super::sources::Source;
use super::{decode, edit, encode, query};
use crate::failure::{Failure, Result};
use crate::random::Random;

/// What all threads share.
pub(super) struct Shared<'a> {
    pub(super) heap: Heap,
    pub(super) cache: CacheRoot,
    pub(super) sources: &'a [Source],
    pub(super) slots: usize,
    pub(super) counts: Counts,
    /// Set once: the time is over, or somebody failed. Only ever read to leave a loop early, so
    /// no ordering is needed.
    stop: AtomicBool,
    /// The next slot to fill. Threads agree on who fills which by adding to it.
    next_slot: AtomicUsize,
    /// The first failure. Written before `stop`, read when all threads have ended.
    failure: Mutex<Option<Failure>>,
}

/// Steps made so far. Statistics: independent counters, relaxed.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) decoded: AtomicU64,
    pub(super) decoded_bytes: AtomicU64,
    pub(super) edited: AtomicU64,
    pub(super) queried: AtomicU64,
    pub(super) surveyed: AtomicU64,
    pub(super) compared: AtomicU64,
    /// Steps that were taken again after a collection, because the heap was full.
    pub(super) retried: AtomicU64,
}

impl<'a> Shared<'a> {
    pub(super) fn new(
        heap: Heap,
        cache: CacheRoot,
        sources: &'a [Source],
        slots: usize,
    ) -> Shared<'a> {
        Shared {
            heap,
            cache,
            sources,
            slots,
            counts: Counts::default(),
            stop: AtomicBool::new(false),
            next_slot: AtomicUsize::new(0),
            failure: Mutex::new(None),
        }
    }

    /// Tells all threads to end after their present step. Slots that are still empty are filled
    /// nevertheless: what is verified at the end is always every source.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Whether the threads have been told to end.
    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Keeps the first failure and ends all threads.
    pub(super) fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.stop();
    }

    /// The first failure, if any thread failed.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The work of the thread with this number.
pub(super) fn work(shared: &Shared<'_>, number: usize) {
    let mut random = Random::new(number as u64);
    let outcome = fill(shared).and_then(|()| {
        while !shared.stopped() {
            step(shared, &mut random)?;
        }
        Ok(())
    });
    if let Err(failure) = outcome {
        shared.fail(failure);
    }
}

/// Fills slots until none is left to fill.
pub(super) fn fill(shared: &Shared<'_>) -> Result<()> {
    loop {
        let slot = shared.next_slot.fetch_add(1, Relaxed);
        if slot >= shared.slots || shared.failure().is_some() {
            return Ok(());
        }
        attempt(shared, |mc| replace(mc, shared, slot))?;
    }
}

/// How often a step may find the heap full before that counts as an error.
const ATTEMPTS: usize = 8;

/// Takes a step in an `enter` of its own; if the heap is full, collects and takes it again.
fn attempt(
    shared: &Shared<'_>,
    mut action: impl for<'gc> FnMut(&Mutator<'gc>) -> Result<()>,
) -> Result<()> {
    for _ in 1..ATTEMPTS {
        match shared.heap.enter(&mut action) {
            Err(failure) if failure.is_exhausted() && shared.failure().is_none() => {
                // Outside of all closures this is a whole cycle.
                let _ = shared.heap.collect();
                shared.counts.retried.fetch_add(1, Relaxed);
            }
            outcome => return outcome,
        }
    }
    shared.heap.enter(action)
}

/// One random step.
pub(super) fn step(shared: &Shared<'_>, random: &mut Random) -> Result<()> {
    let slot = random.below(shared.slots);
    let counts = &shared.counts;
    let (count, action): (_, Action) = match random.below(100) {
        0..40 => return attempt(shared, |mc| replace(mc, shared, slot)),
        40..60 => (&counts.edited, edit::make),
        60..85 => (&counts.queried, query::check),
        85..95 => (&counts.surveyed, survey),
        _ => (&counts.compared, compare),
    };
    attempt(shared, |mc| {
        // Another thread may still be decoding into this slot for the first time.
        let Some(document) = shared.cache.get(mc).slots.lock(mc)[slot] else { return Ok(()) };
        action(mc, document, &shared.sources[document.source], random)
    })?;
    count.fetch_add(1, Relaxed);
    Ok(())
}

/// A step on one document.
type Action =
    for<'m, 'gc> fn(&'m Mutator<'gc>, Gc<'gc, Document<'gc>>, &Source, &mut Random) -> Result<()>;

/// Decodes a fresh copy and puts it where the old one was. The cache is locked for the store only.
fn replace(mc: &Mutator<'_>, shared: &Shared<'_>, slot: usize) -> Result<()> {
    let index = slot % shared.sources.len();
    let source = &shared.sources[index];
    let document = decode::document(mc, source, index)?;
    shared.cache.get(mc).slots.lock(mc)[slot] = Some(document);
    shared.counts.decoded.fetch_add(1, Relaxed);
    shared.counts.decoded_bytes.fetch_add(source.text.len() as u64, Relaxed);
    Ok(())
}

/// Counts a document while others may edit it. The numbers may then be off, so they are not
/// compared; but every node and every string is read, and a lost one would not be survived.
fn survey<'gc>(
    mc: &Mutator<'gc>,
    document: Gc<'gc, Document<'gc>>,
    source: &Source,
    _: &mut Random,
) -> Result<()> {
    match Census::of(mc, document.root).nodes() {
        0 => Err(Failure::new(format!("{}: a document without a root", source.name))),
        _ => Ok(()),
    }
}

/// Writes a document and compares everything with its source.
fn compare<'gc>(
    mc: &Mutator<'gc>,
    document: Gc<'gc, Document<'gc>>,
    source: &Source,
    _: &mut Random,
) -> Result<()> {
    encode::verify(mc, document, source)
}
