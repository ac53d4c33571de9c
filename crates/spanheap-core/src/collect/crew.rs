//! The crew: what all who mark in a cycle share. The pages that wait to be scanned, who is at work, what has
//! been put aside, and what has been counted.
//!
//! # Who marks
//! - The **collector thread**, worker 0. It alone begins and ends the marking, and it alone decides that
//!   nothing is left.
//! - **Helpers**, threads that do nothing else ([`super::workers`]).
//! - **Volunteers**: threads outside of closures that offer their time (`Heap::collect_for`).
//! - **Assisting mutators**, in the middle of an allocation ([`super::assist`]).
//!
//! All of them are [`super::mark::Marker`]s. A marker takes pages from the one shared queue, several at a time,
//! into its ring, and scans them; what it finds it gathers, and puts at the end of the shared queue when that
//! is a number worth a lock. So pages are scanned first in, first out, whoever has found them. What is in the
//! ring of a worker can be stolen.
//!
//! # When is nothing left?
//! Whoever marks, the collector thread excepted, is *busy* before he takes his first page and until he has given
//! all pages away and told what he found. So pages are in the shared queue, with the collector, or with
//! somebody busy, and only those make new ones. When the collector has nothing, and under the lock sees the queue
//! empty and nobody busy, then nothing is left anywhere, and nobody can find anything until the
//! collector itself marks again.
//!
//! # Sleeping
//! Who has nothing to do sleeps and is counted as hungry. A worker that sees somebody hungry, and nothing in the
//! shared queue, gives half of what it has away as soon as it has scanned a page.
//!
//! # Locking
//! [`Rank::MarkQueue`] for everything in `Inner`. The rest are flags, and hints for those who do not
//! hold the lock.

use super::page_queue::PageQueue;
use super::page_ring::{HALF, PageRing};
use crate::addr::{Addr, AddrRange, Bytes, PageCount};
use crate::os::Os;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::sync::{Condition, Guard, Lock, Rank};
use std::time::{Duration, Instant};

/// How many pages with locked containers can be put aside; the others are looked for when it is time to try
/// again.
pub const ASIDE: usize = 256;

/// What a cycle has marked so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Marked {
    /// Objects found by marking.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: Bytes,
}

/// What one worker has done, or several together.
///
/// An object may be counted by one worker and taken out of the count by another, so single figures wrap below
/// zero; their sum does not.
#[derive(Clone, Copy, Default, Debug)]
pub struct Tally {
    /// Objects that were scanned for the first time.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: usize,
    /// Bytes that had to be looked at for pointers: the measure of effort.
    pub work: u64,
    /// Whether an object was marked that had not been.
    pub found: bool,
    /// CPU time of helpers.
    pub cpu: Duration,
    /// CPU time of volunteers, who had nothing better to do.
    pub idle: Duration,
}

impl Tally {
    /// Adds what somebody else has done.
    pub fn add(&mut self, other: Tally) {
        self.objects = self.objects.wrapping_add(other.objects);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.work += other.work;
        self.found |= other.found;
        self.cpu += other.cpu;
        self.idle += other.idle;
    }

    /// The objects, when everybody's are in.
    pub fn marked(&self) -> Marked {
        Marked { objects: self.objects, bytes: Bytes::new(self.bytes) }
    }
}

struct Inner {
    /// The cycle that marks now.
    cycle: Option<u32>,
    queue: PageQueue,
    /// How many are at work, the collector thread not counted.
    busy: usize,
    aside: [Addr; ASIDE],
    aside_len: usize,
    /// Whether more pages than that were to be put aside: then a rescan comes when they are tried again.
    aside_overflows: bool,
    /// What those who were busy have done.
    tally: Tally,
    /// Whether helpers are to end.
    stop: bool,
}

/// What the workers of a heap share.
pub struct Crew {
    inner: Lock<Inner>,
    changed: Condition,
    /// Pages in the shared queue, for those who do not hold the lock.
    waiting: AtomicUsize,
    /// How many sleep until there is something to take. Changed under the lock.
    hungry: AtomicUsize,
    /// Whether roots are left to be scanned: work that is in no queue.
    has_roots: AtomicBool,
    rescan: AtomicBool,
    broken: AtomicBool,
    /// The rings of the collector thread and of the helpers.
    rings: Box<[PageRing]>,
}

impl Crew {
    /// A crew of `workers` at most, the collector thread included; nothing is being marked.
    pub fn new(workers: usize) -> Crew {
        let inner = Inner {
            cycle: None,
            queue: PageQueue::new(),
            busy: 0,
            aside: [Addr::NULL; ASIDE],
            aside_len: 0,
            aside_overflows: false,
            tally: Tally::default(),
            stop: false,
        };
        Crew {
            inner: Lock::new(Rank::MarkQueue, inner),
            changed: Condition::new(),
            waiting: AtomicUsize::new(0),
            hungry: AtomicUsize::new(0),
            has_roots: AtomicBool::new(false),
            rescan: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            rings: (0..workers.max(1)).map(|_| PageRing::new()).collect(),
        }
    }

    /// How many workers there can be, the collector thread included.
    pub fn size(&self) -> usize {
        self.rings.len()
    }

    /// The ring of a worker; 0 is the collector thread.
    pub fn ring(&self, worker: usize) -> &PageRing {
        &self.rings[worker]
    }

    /// Begins the marking of `cycle` in a heap of so many pages. Nobody is at work.
    pub fn begin(&self, os: &Os, pages: PageCount, cycle: u32) {
        let mut inner = self.inner.lock();
        debug_assert!(inner.cycle.is_none() && inner.busy == 0);
        inner.queue.prepare(os, pages);
        inner.cycle = Some(cycle);
        inner.tally = Tally::default();
        (inner.aside_len, inner.aside_overflows) = (0, false);
        self.waiting.store(0, Ordering::Relaxed);
        self.rescan.store(false, Ordering::Relaxed);
        self.broken.store(false, Ordering::Relaxed);
    }

    /// Ends the marking, and returns what all but the collector thread have done. Nothing is left to do, so nobody
    /// is at work.
    ///
    /// # Panics
    /// When that is not so: then marks are missing.
    pub fn end(&self) -> Tally {
        let mut inner = self.inner.lock();
        assert!(inner.busy == 0 && inner.queue.is_empty(), "marking ends with pages unscanned");
        inner.cycle = None;
        self.has_roots.store(false, Ordering::Relaxed);
        core::mem::take(&mut inner.tally)
    }

    /// Where the queue has its memory.
    pub fn queue_memory(&self, os: &Os) -> AddrRange {
        self.inner.lock().queue.memory(os)
    }

    /// Tells helpers to end.
    pub fn stop(&self) {
        self.inner.lock().stop = true;
        self.changed.notify_all();
    }

    /// Returns the memory of the queue. Nothing is being marked.
    pub fn release(&self, os: &Os) {
        self.inner.lock().queue.release(os);
    }

    /// Says whether there are roots to scan. When there are, helpers are woken for them.
    pub fn set_has_roots(&self, any: bool) {
        let _inner = self.inner.lock();
        self.has_roots.store(any, Ordering::Relaxed);
        if any {
            self.changed.notify_all();
        }
    }

    /// Whether there may be roots to scan.
    pub fn has_roots(&self) -> bool {
        self.has_roots.load(Ordering::Relaxed)
    }

    /// How many pages are in the shared queue, more or less.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether somebody sleeps for want of pages that the queue does not have either.
    #[inline]
    pub fn is_hungry(&self) -> bool {
        self.hungry.load(Ordering::Relaxed) > 0 && self.waiting() == 0
    }

    /// Appends pages to the shared queue; how many of them found room.
    pub fn push(&self, pages: &[Addr]) -> usize {
        let mut inner = self.inner.lock();
        self.push_locked(&mut inner, pages)
    }

    fn push_locked(&self, inner: &mut Inner, pages: &[Addr]) -> usize {
        let pushed = pages.iter().take_while(|&&page| inner.queue.push(page)).count();
        self.waiting.store(inner.queue.len(), Ordering::Relaxed);
        if pushed > 0 && self.hungry.load(Ordering::Relaxed) > 0 {
            self.changed.notify_all();
        }
        pushed
    }

    /// Appends pages to the shared queue, and fills `ring`, which is empty, with the first ones, up to
    /// `most`. Returns how many of the pages found room.
    pub fn exchange(&self, pages: &[Addr], ring: &PageRing, most: usize) -> usize {
        let mut inner = self.inner.lock();
        let pushed = self.push_locked(&mut inner, pages);
        // Where there are only a few, everybody gets some.
        let eaters = 1 + self.hungry.load(Ordering::Relaxed);
        let share = inner.queue.len().div_ceil(eaters).min(most);
        for _ in 0..share {
            let Some(page) = inner.queue.pop() else { break };
            let fits = ring.push(page);
            debug_assert!(fits, "a ring is empty when it is filled");
        }
        self.waiting.store(inner.queue.len(), Ordering::Relaxed);
        pushed
    }

    /// Takes up to `most` pages out of the ring of another worker than `worker` into `ring`, which is empty. False
    /// when there were none.
    pub fn steal(&self, worker: Option<usize>, ring: &PageRing, most: usize) -> bool {
        let count = self.rings.len();
        let first = worker.map_or(0, |worker| worker + 1);
        let others = (0..count).map(|n| (first + n) % count).filter(|&n| Some(n) != worker);
        let mut others = others.into_iter();
        others.any(|victim| {
            let into = |page| {
                let fits = ring.push(page);
                debug_assert!(fits, "a ring is empty when it is filled");
            };
            self.rings[victim].steal(HALF.min(most), into) > 0
        })
    }

    /// Begins the work of somebody for `cycle`, if that is being marked and there are pages in the shared queue:
    /// he is busy from here on.
    pub fn join(&self, cycle: u32) -> bool {
        let mut inner = self.inner.lock();
        let joins = inner.cycle == Some(cycle) && !inner.queue.is_empty();
        inner.busy += usize::from(joins);
        joins
    }

    /// Waits until there is something to do, and begins to work: for which cycle. `None` when helpers are to end
    /// or the time is over.
    pub fn wait_for_work(&self, until: Option<Instant>) -> Option<u32> {
        let mut inner = self.inner.lock();
        loop {
            if inner.stop {
                return None;
            }
            let any = !inner.queue.is_empty() || self.has_roots();
            if let Some(cycle) = inner.cycle.filter(|_| any) {
                inner.busy += 1;
                return Some(cycle);
            }
            let left = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                left => left,
            };
            inner = self.sleep(inner, left);
        }
    }

    /// Sleeps until something happens here, or the time is over.
    pub fn wait_for_marking(&self, limit: Duration) {
        drop(self.sleep(self.inner.lock(), Some(limit)));
    }

    fn sleep<'a>(&'a self, inner: Guard<'a, Inner>, limit: Option<Duration>) -> Guard<'a, Inner> {
        self.hungry.fetch_add(1, Ordering::Relaxed);
        let inner = self.changed.wait(inner, limit);
        self.hungry.fetch_sub(1, Ordering::Relaxed);
        inner
    }

    /// Ends the work of somebody busy, who has no pages left.
    pub fn leave(&self, tally: Tally) {
        let mut inner = self.inner.lock();
        inner.tally.add(tally);
        inner.busy -= 1;
        if inner.busy == 0 {
            self.changed.notify_all();
        }
    }

    /// For the collector thread, when it has no pages: true when there are none at all, and nobody is at
    /// work. False when there are some in the shared queue.
    pub fn is_all_done(&self) -> bool {
        let mut inner = self.inner.lock();
        while inner.queue.is_empty() && inner.busy > 0 {
            inner = self.sleep(inner, None);
        }
        inner.queue.is_empty()
    }

    /// Whether somebody busy has marked an object since the last call.
    pub fn take_found(&self) -> bool {
        core::mem::take(&mut self.inner.lock().tally.found)
    }

    /// Asks for a rescan.
    pub fn want_rescan(&self) {
        self.rescan.store(true, Ordering::Release);
    }

    /// Whether a rescan was asked for; asking is forgotten, so the rescan comes after this.
    pub fn take_rescan(&self) -> bool {
        self.rescan.swap(false, Ordering::AcqRel)
    }

    /// Says that the marks are not to be trusted.
    pub fn set_broken(&self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Whether somebody has said so.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    /// Puts a page aside; false when there is no room.
    pub fn put_aside(&self, page: Addr) -> bool {
        let mut inner = self.inner.lock();
        let index = inner.aside_len;
        match inner.aside.get_mut(index) {
            Some(place) => {
                *place = page;
                inner.aside_len += 1;
                true
            }
            // Not a rescan now: it would find the same locks taken, and ask for the next one.
            None => {
                inner.aside_overflows = true;
                false
            }
        }
    }

    /// Whether something is put aside.
    pub fn has_aside(&self) -> bool {
        let inner = self.inner.lock();
        inner.aside_len > 0 || inner.aside_overflows
    }

    /// Takes out the pages that were put aside, and how many there are. Those for which there was no room are
    /// left to a rescan, which is asked for.
    pub fn take_aside(&self) -> ([Addr; ASIDE], usize) {
        let mut inner = self.inner.lock();
        if core::mem::take(&mut inner.aside_overflows) {
            self.want_rescan();
        }
        let count = core::mem::take(&mut inner.aside_len);
        (inner.aside, count)
    }

    /// Gives up what was put aside. The cycle has to retain everything then.
    pub fn abandon_aside(&self) {
        let mut inner = self.inner.lock();
        (inner.aside_len, inner.aside_overflows) = (0, false);
        self.set_broken();
    }

    /// Bounds the shared queue, below what it has memory for.
    #[cfg(test)]
    pub fn set_bound(&self, entries: usize) {
        self.inner.lock().queue.set_bound(entries);
    }
}
