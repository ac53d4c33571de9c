//! What the heap is used for while it is drawn: patterns of use, each of which leaves its own traces.
//!
//! | workload | what is to be seen |
//! |---|---|
//! | `fragment` | data that grows, of which half goes at random: spans that are partly empty |
//! | `phases` | data that grows and goes as a whole: free pages, and what becomes of them |
//! | `trees` | small objects, most of them garbage soon |
//! | `demo` | the documents of `spanheap demo`, edited and replaced |
//!
//! Each thread does one *round* after the other until it is told to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use spanheap::{Gc, GcCell, Heap, Mutator, OutOfMemory, Root, Rootable, Trace};

use crate::demo;
use crate::failure::{Failure, Result};
use crate::live_data::LiveData;
use crate::random::Random;

/// A workload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum Kind {
    /// Data that grows, and of which half goes at random.
    Fragment,
    /// Data that grows and goes as a whole.
    Phases,
    /// Trees that are built and dropped.
    Trees,
    /// The documents of the demo.
    Demo,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Fragment => "fragment",
            Kind::Phases => "phases",
            Kind::Trees => "trees",
            Kind::Demo => "demo",
        }
    }
}

/// How far the threads are, and whether they are to go on.
#[derive(Default)]
pub(super) struct Progress {
    /// Rounds that all threads have done. Written relaxed: it is only waited for, nothing is published by it.
    rounds: AtomicU64,
    /// Only ever set, and only ever read to leave a loop.
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Progress {
    /// Rounds done so far.
    pub(super) fn rounds(&self) -> u64 {
        self.rounds.load(Relaxed)
    }

    /// Whether the threads have been told to stop, or one has failed.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Does rounds until it is time to stop.
    fn repeat(&self, mut round: impl FnMut() -> Result<()>) -> Result<()> {
        while !self.is_stopped() {
            round()?;
            self.rounds.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn fail(&self, failure: Failure) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        self.stop.store(true, Relaxed);
    }

    fn result(&self) -> Result<()> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.map_or(Ok(()), Err)
    }
}

/// What a thread does: all its rounds.
type Body<'a> = &'a (dyn Fn(usize) -> Result<()> + Sync);

/// Runs a workload on `threads` threads while `main` runs on this one, and ends it when that returns.
pub(super) fn beside(
    kind: Kind,
    heap: &Heap,
    threads: usize,
    progress: &Progress,
    main: impl FnOnce() -> Result<()>,
) -> Result<()> {
    // Of the larger sizes each thread has its share.
    let part = |bytes: u64| bytes / threads as u64;
    match kind {
        Kind::Fragment => {
            in_threads(threads, progress, &|n| fragment(heap, n, part(FULL), progress), main)
        }
        Kind::Phases => {
            let sizes = (part(SMALL), part(FULL));
            in_threads(threads, progress, &|n| phases(heap, n, sizes, progress), main)
        }
        Kind::Trees => in_threads(threads, progress, &|n| trees(heap, n, progress), main),
        Kind::Demo => demo::with_steps(heap, |step| {
            let body = |number: usize| {
                let mut random = Random::new(number as u64);
                progress.repeat(|| (0..DEMO_STEPS).try_for_each(|_| step(&mut random)))
            };
            in_threads(threads, progress, &body, main)
        }),
    }
}

fn in_threads(
    threads: usize,
    progress: &Progress,
    body: Body<'_>,
    main: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let work = |number: usize| {
        if let Err(failure) = body(number) {
            progress.fail(failure);
        }
    };
    thread::scope(|scope| {
        let mut handles: Vec<ScopedJoinHandle<'_, ()>> = Vec::with_capacity(threads);
        for number in 0..threads {
            let work = &work;
            let builder = thread::Builder::new().name(format!("worker {number}"));
            match builder.spawn_scoped(scope, move || work(number)) {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    progress.fail(Failure::new(format!("thread {number} cannot start: {error}")));
                    break;
                }
            }
        }
        let outcome = main();
        progress.stop.store(true, Relaxed);
        for handle in handles {
            if let Err(payload) = handle.join() {
                progress.fail(Failure::from_panic(payload.as_ref()));
            }
        }
        progress.result().and(outcome)
    })
}

/// Data of all threads at most, in bytes.
const FULL: u64 = 96 << 20;
/// Data of all threads in small phases.
const SMALL: u64 = 8 << 20;
/// How long the data stays as it is before it goes.
const PAUSE: Duration = Duration::from_millis(300);
/// Steps of the demo in a round.
const DEMO_STEPS: usize = 16;

fn fragment(heap: &Heap, number: usize, full: u64, progress: &Progress) -> Result<()> {
    let mut data = LiveData::new(heap, number as u64);
    progress.repeat(|| {
        grow(&mut data, full, progress)?;
        data.thin();
        // What is left is packed no better by time, so the oldest makes room for new data.
        while data.bytes() > full / 3 {
            data.drop_oldest();
        }
        let _ = heap.collect();
        stay(&mut data, progress)
    })
}

fn phases(
    heap: &Heap,
    number: usize,
    (small, large): (u64, u64),
    progress: &Progress,
) -> Result<()> {
    let mut data = LiveData::new(heap, number as u64);
    progress.repeat(|| {
        grow(&mut data, large, progress)?;
        stay(&mut data, progress)?;
        data.shrink_to(small);
        let _ = heap.collect();
        stay(&mut data, progress)
    })
}

/// Adds data up to so many bytes, unless it is time to stop.
fn grow(data: &mut LiveData, bytes: u64, progress: &Progress) -> Result<()> {
    while data.bytes() < bytes && !progress.is_stopped() {
        data.add_segment()?;
    }
    Ok(())
}

/// Leaves the data as it is for a while, except that some of it is renewed.
fn stay(data: &mut LiveData, progress: &Progress) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < PAUSE && !progress.is_stopped() {
        data.renew(64 << 10)?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

#[derive(Trace)]
struct Tree<'gc> {
    left: Option<Gc<'gc, Tree<'gc>>>,
    right: Option<Gc<'gc, Tree<'gc>>>,
}

type Slot<'gc> = GcCell<'gc, Option<Gc<'gc, Tree<'gc>>>>;

type SlotsRoot = Root<Rootable![[Slot<'_>]]>;

/// Trees that a thread keeps.
const KEPT_TREES: usize = 16;

fn trees(heap: &Heap, number: usize, progress: &Progress) -> Result<()> {
    let mut random = Random::new(number as u64);
    let kept: SlotsRoot = heap.enter(|mc| -> Result<SlotsRoot> {
        let slots = mc.try_alloc_slice((0..KEPT_TREES).map(|_| GcCell::new(None)))?;
        Ok(mc.root(slots))
    })?;
    progress.repeat(|| {
        let (slot, depth) = (random.below(KEPT_TREES), 6 + random.below(9));
        heap.enter(|mc| -> Result<()> {
            let tree = tree(mc, depth)?;
            kept.get(mc)[slot].set(mc, Some(tree));
            Ok(())
        })?;
        thread::sleep(Duration::from_millis(1));
        Ok(())
    })
}

fn tree<'gc>(
    mc: &Mutator<'gc>,
    depth: usize,
) -> std::result::Result<Gc<'gc, Tree<'gc>>, OutOfMemory> {
    let (left, right) = match depth {
        0 => (None, None),
        _ => (Some(tree(mc, depth - 1)?), Some(tree(mc, depth - 1)?)),
    };
    mc.try_alloc(Tree { left, right })
}
