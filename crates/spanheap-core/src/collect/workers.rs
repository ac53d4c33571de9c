//! Who marks besides the collector thread: helper threads, and threads that offer their time.
//!
//! A quarter of the processors marks, the collector thread included; the rest is the program's. So up to seven
//! processors nobody but the collector thread does. Helpers are started when marking begins in a heap that is
//! worth it, one after the other; where the system gives no thread, there are fewer of them, and the next
//! cycle asks again. They sleep between cycles and end with the heap.
//!
//! # Time that is offered
//! [`Collector::offer`] is for a thread that has nothing better to do and is outside of closures. It marks in the
//! running cycle, as one more worker, or begins a cycle that would be due soon, or sweeps. Between two pages, or
//! two spans, it looks at the clock.

use super::assist::MARKING;
use super::collector::Collector;
use super::control::Wish;
use super::mark::Marker;
use super::page_ring::PageRing;
use super::phase::Phase;
use crate::addr::Bytes;
use crate::fatal::or_die;
use crate::os::clock::thread_cpu_time;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

/// One processor in so many marks.
const SHARE: usize = 4;

/// No more workers than this, whatever was asked for.
const MOST_WORKERS: usize = 256;

/// A heap with less in use is marked by the collector thread alone, unless a number of workers was asked for.
const WORTH_THREADS: Bytes = Bytes::new(64 << 20);

/// How long somebody who offers his time sleeps at most before he looks again at what the collector does.
const PATIENCE: Duration = Duration::from_millis(1);

/// How many workers a heap has, the collector thread included.
pub(super) fn workers(processors: usize, forced: Option<NonZeroUsize>) -> usize {
    let usual = (processors / SHARE).max(1);
    forced.map_or(usual, NonZeroUsize::get).min(MOST_WORKERS)
}

/// The helper threads of a heap; the collector thread's own.
#[derive(Default)]
pub(super) struct Helpers {
    threads: Vec<JoinHandle<()>>,
}

impl Helpers {
    /// Starts those that are missing, if the heap is worth it now that it has `in_use` bytes of pages.
    pub fn start(&mut self, collector: &Arc<Collector>, in_use: Bytes) {
        let is_forced = collector.options.mark_threads.is_some();
        if !is_forced && in_use < WORTH_THREADS {
            return;
        }
        while self.threads.len() + 1 < collector.crew.size() {
            let worker = self.threads.len() + 1;
            let theirs = collector.clone();
            let spawned = std::thread::Builder::new()
                .name(format!("spanheap-mark-{worker}"))
                .spawn(move || or_die("a marking thread", || theirs.help(worker)));
            match spawned {
                Ok(thread) => self.threads.push(thread),
                // Without the thread the others have more to do.
                Err(_) => return,
            }
        }
    }

    /// Ends them. Nothing is being marked.
    pub fn end(&mut self, collector: &Collector) {
        collector.crew.stop();
        for thread in self.threads.drain(..) {
            // It does not end by a panic: see `or_die`.
            let _ = thread.join();
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.threads.len()
    }

    /// Which threads they are.
    pub fn ids(&self) -> impl Iterator<Item = ThreadId> + '_ {
        self.threads.iter().map(|thread| thread.thread().id())
    }
}

impl Collector {
    /// The life of a helper.
    fn help(&self, worker: usize) {
        while let Some(cycle) = self.crew.wait_for_work(None) {
            let before = thread_cpu_time();
            let mut marker = Marker::new(&self.central, &self.crew, worker, cycle)
                .with_kernel(self.options.kernel);
            marker.scan_roots(&self.roots, || true);
            marker.work(|_| true);
            marker.tally.cpu += thread_cpu_time().saturating_sub(before);
            marker.leave();
        }
    }

    /// Works for the heap until the deadline, or until there is nothing to do: then the result is true. The
    /// calling thread is outside of closures of this heap.
    ///
    /// A cycle that runs is helped along. If none runs, one begins if it was asked for, or if half of what may be
    /// allocated until the next one has been allocated. After a cycle, the sweep is finished.
    pub fn offer(&self, deadline: Instant) -> bool {
        let before = thread_cpu_time();
        let is_all = self.work_until(deadline);
        self.spent.add_offered(thread_cpu_time().saturating_sub(before));
        is_all
    }

    fn work_until(&self, deadline: Instant) -> bool {
        let mut ticket = None;
        loop {
            if self.word().phase() != Phase::Idle {
                self.volunteer(deadline.min(Instant::now() + PATIENCE));
            } else if ticket.is_some_and(|ticket| !self.control.is_done(ticket)) {
                self.crew.wait_for_marking(PATIENCE);
            } else if ticket.is_none() && self.is_cycle_wanted_soon() {
                ticket = Some(self.request());
            } else if !self.central.sweep_one() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
        }
    }

    /// Whether a cycle was asked for, or would be due soon.
    fn is_cycle_wanted_soon(&self) -> bool {
        self.control.wish() == Wish::Cycle
            || self.central.wants_cycle()
            || self.central.is_half_way()
    }

    /// Marks in the running cycle until a moment, or until there is nothing to take; sleeps as long as there is
    /// nothing.
    fn volunteer(&self, until: Instant) {
        let Some(cycle) = self.crew.wait_for_work(Some(until)) else { return };
        let before = thread_cpu_time();
        or_die(MARKING, || {
            let ring = PageRing::new();
            let mut marker = Marker::on(&self.central, &self.crew, &ring, cycle)
                .with_kernel(self.options.kernel);
            let has_time = || Instant::now() < until;
            marker.scan_roots(&self.roots, has_time);
            marker.work(|_| has_time());
            marker.tally.idle += thread_cpu_time().saturating_sub(before);
            marker.leave();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_processors_marks() {
        for (processors, expected) in [(1, 1), (2, 1), (7, 1), (8, 2), (64, 16), (4096, 256)] {
            assert_eq!(workers(processors, None), expected);
        }
        assert_eq!(workers(2, NonZeroUsize::new(4)), 4);
        assert_eq!(workers(2, NonZeroUsize::new(1 << 20)), 256);
    }
}
