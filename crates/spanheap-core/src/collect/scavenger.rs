//! The background scavenger: between cycles, the collector's thread returns memory to the system.
//!
//! Two paces:
//!
//! - **steady**: 1 % of the processors, as Go does, for what is somewhat more than the goals
//!   ([`crate::heap::scavenge_pace`]);
//! - **hasty**: when a heap has shrunk for good, a hundredth of the processors would need minutes for
//!   gigabytes. So if a large part of the heap has been in excess of the goal for half a second, over however
//!   many cycles, the scavenger works in larger pieces and a quarter of the time of one processor (what the
//!   collector may use for marking) until the excess is small. Meanwhile the heap *settles*: it keeps
//!   hardly any free pages for its growth.
//!
//! Pages that were freed since the last cycle are busy pages to the steady scavenger: they may be wanted
//! again at once. After that half second they are not busy any more, and an idle program's memory goes, too.
//!
//! Then the memory of span records that nobody needs goes, too, as soon as every closure that is open at that
//! moment has been left.
//!
//! Pages also become free between cycles, long after the last one: destructors take their time, and manual
//! spans are freed at any time. When the half second is over, the scavenger has itself woken by whoever frees
//! pages next ([`crate::heap::page_heap::PageHeap::watch`]), and waits for half a second again.
//!
//! It shares the thread because neither can use what the other has not finished: a cycle sets the goals,
//! and its sweep frees the pages. A cycle waits for one piece at most.

use super::collector::Collector;
use super::control::Wish;
use crate::addr::Bytes;
use crate::heap::Force;
use crate::heap::scavenge_pace::{Next, QUANTUM, Rest, ScavengePace, percent_goal};
use crate::os::clock::thread_cpu_time;
use std::time::{Duration, Instant};

/// How long a large excess lasts before the scavenger hastens: a heap that breathes is left alone.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is returned between two looks at whether there is something better to do, in haste.
const HASTY_PIECE: Bytes = Bytes::new(1 << 20);

/// How long a run lasts in haste, in time of the processor.
const HASTY_RUN: Duration = Duration::from_millis(2);

/// In haste the scavenger rests this many times as long as it has worked.
const HASTY_REST: u32 = 3;

/// Less than this is never worth haste.
const SMALL_EXCESS: Bytes = Bytes::new(16 << 20);

/// Haste that has begun goes on until no more than this is left.
const END_OF_HASTE: Bytes = Bytes::new(1 << 20);

/// So many cycles after the last large excess a heap has settled: what is left of the large one drains.
const SETTLING: u32 = 4;

/// The background scavenger of a heap.
pub(super) struct Scavenger {
    pace: ScavengePace,
    asleep: Option<Sleep>,
    /// Since when there has been an excess after which cycle; `None`: there is none.
    seen: Option<(Instant, u32)>,
    /// Whether that is long ago.
    is_over: bool,
    /// Since when the excess has been large, over however many cycles.
    large_since: Option<Instant>,
    /// After which cycle haste had its last reason; `None`: there is no haste.
    hasty: Option<u32>,
    /// After which cycle span records were retired that have not been returned.
    retired: Option<u32>,
}

/// A sleep between two runs.
struct Sleep {
    since: Instant,
    until: Instant,
    /// Whether the steady pace has measured it.
    steady: bool,
}

impl Scavenger {
    pub(super) fn new(processors: usize) -> Scavenger {
        let pace = ScavengePace::new(processors);
        Scavenger {
            pace,
            asleep: None,
            seen: None,
            is_over: false,
            large_since: None,
            hasty: None,
            retired: None,
        }
    }

    /// Works for a while, if it is time to. The result is how long the thread may sleep; `None`: until
    /// somebody rings.
    pub(super) fn work(&mut self, collector: &Collector) -> Option<Duration> {
        let sleep = self.scavenge(collector);
        match self.retired {
            // A cycle does the same at its beginning.
            Some(cycle) if cycle != collector.word().cycle() => self.retired = None,
            Some(_) if collector.return_records() => self.retired = None,
            Some(_) => return Some(sleep.unwrap_or(PATIENCE).min(PATIENCE)),
            None => {}
        }
        sleep
    }

    /// The same for pages alone.
    fn scavenge(&mut self, collector: &Collector) -> Option<Duration> {
        let central = collector.central();
        let excess = central.pages().excess(central.os());
        if excess < central.os().page_size() {
            (self.asleep, self.seen, self.is_over) = (None, None, false);
            self.large_since = None;
            self.settle(collector, Bytes::ZERO);
            central.pages().watch();
            return None;
        }
        let now = Instant::now();
        self.look_at(collector, excess, now);
        if let Some(sleep) = self.asleep.take() {
            // In haste nobody finishes a sleep that was measured for the steady pace.
            if now < sleep.until && (self.hasty.is_none() || !sleep.steady) {
                let left = sleep.until - now;
                self.asleep = Some(sleep);
                return self.watch(Some(left));
            }
            if sleep.steady {
                self.pace.slept(now - sleep.since);
            }
        }
        let rest = if self.hasty.is_some() { haste(collector) } else { self.run(collector) };
        let since = Instant::now();
        self.asleep =
            rest.map(|rest| Sleep { since, until: since + rest, steady: self.hasty.is_none() });
        self.watch(rest)
    }

    /// The thread looks again when the patience is over.
    fn watch(&self, sleep: Option<Duration>) -> Option<Duration> {
        match self.is_over {
            false => Some(sleep.unwrap_or(PATIENCE).min(PATIENCE)),
            true => sleep,
        }
    }

    /// Decides whether the patience is over, and whether to make haste.
    fn look_at(&mut self, collector: &Collector, excess: Bytes, now: Instant) {
        let cycle = collector.word().cycle();
        let pages = collector.central().pages();
        let is_news = self.is_over && !pages.is_watched();
        let since = match self.seen {
            Some((since, seen)) if seen == cycle && !is_news => since,
            _ => {
                (self.seen, self.is_over) = (Some((now, cycle)), false);
                now
            }
        };
        if !self.is_over && now >= since + PATIENCE {
            self.is_over = true;
            // In this order: what is freed now belongs to the generation that ends, or ends the watch.
            pages.watch();
            pages.next_scavenge_generation();
            collector.retire_records();
            self.retired = Some(cycle);
        }
        let is_large = excess > SMALL_EXCESS.max(Bytes::new(pages.retained().get() / 8));
        self.large_since = is_large.then(|| self.large_since.unwrap_or(now));
        if self.large_since.is_some_and(|since| now >= since + PATIENCE) {
            self.hasty = Some(cycle);
            pages.set_settling(true);
        }
        self.settle(collector, excess);
    }

    /// Ends haste when the heap has settled.
    fn settle(&mut self, collector: &Collector, excess: Bytes) {
        let cycle = collector.word().cycle();
        let is_long_ago = |since: u32| cycle.wrapping_sub(since) >= SETTLING;
        if excess <= END_OF_HASTE && self.hasty.is_some_and(is_long_ago) {
            self.hasty = None;
            collector.central().pages().set_settling(false);
        }
    }

    /// One run at the steady pace; `None`: there was nothing that could be returned.
    fn run(&mut self, collector: &Collector) -> Option<Duration> {
        let mut run = self.pace.begin_run();
        while is_wanted(collector) {
            let before = thread_cpu_time();
            let returned = collector.central().scavenge(QUANTUM, Force::No);
            if run.worked(thread_cpu_time().saturating_sub(before), returned) == Next::Done {
                break;
            }
        }
        match run.end() {
            Rest::Sleep(time) => Some(time),
            Rest::Park => None,
        }
    }
}

/// One run in haste; `None`: there was nothing that could be returned.
fn haste(collector: &Collector) -> Option<Duration> {
    let before = thread_cpu_time();
    let worked = || thread_cpu_time().saturating_sub(before);
    let mut returned = Bytes::ZERO;
    while is_wanted(collector) && worked() < HASTY_RUN {
        match collector.central().scavenge(HASTY_PIECE, Force::Yes) {
            Bytes::ZERO => break,
            some => returned += some,
        }
    }
    (returned > Bytes::ZERO).then(|| worked() * HASTY_REST)
}

/// Whether there is still too much, and the thread has nothing better to do.
fn is_wanted(collector: &Collector) -> bool {
    let central = collector.central();
    let too_much = central.pages().excess(central.os()) >= central.os().page_size();
    too_much && !central.wants_cycle() && collector.control().wish() == Wish::Nothing
}

impl Collector {
    /// Sets the scavenger's goals after a cycle: the heap used `in_use` bytes of pages at its end, its goal
    /// was `last_goal`, and is `goal` now.
    pub(super) fn set_scavenge_goals(&self, in_use: Bytes, last_goal: Bytes, goal: Bytes) {
        let pages = self.central().pages();
        let page_size = self.central().os().page_size();
        // A cycle that was asked for ends far below its goal, and what the heap may grow to all the same is
        // not returned only to be taken again.
        let needed =
            percent_goal(in_use, goal, last_goal, page_size).map(|needed| needed.max(goal));
        pages.set_retain_goal(needed.filter(|_| self.options.return_memory));
    }
}
