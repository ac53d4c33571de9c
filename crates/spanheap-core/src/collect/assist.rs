//! Assists: marking in the middle of an allocation.
//!
//! While a cycle marks, whoever allocates pays for it with marking, as far as the collector's own workers do not
//! keep up: [`crate::heap::debt`] has the amounts. Here is what is asked for, when nobody has to, and what is done
//! when somebody has to.
//!
//! # The price
//! The pacer's ([`super::pacer::assist`]): the work that is left, over the bytes that are left to the goal. It is
//! made when marking begins, and again by the collector's thread whenever that has no pages in hand and
//! [`REVISION`] has passed, with what has been taken and scanned since. So a live set that turns out to be much
//! larger than the last one raises the price while there is still something to be done about it.
//!
//! Three things are decided here, and not by the pacer:
//!
//! - **Small heaps feel nothing.** With less than [`WORTH_IT`] to scan, a cycle is over before it matters who
//!   helps. That does not hold where a limit bounds the goal: then the room is a few percent of the heap, and a
//!   program can have used it up in the milliseconds that a cycle takes; so less work is worth it.
//! - **A goal that a limit sets is hardly extended.** Go moves a goal that has been passed by a tenth, because at
//!   the goal itself the price would be infinite. Ten percent over a limit is what the limit was to prevent. So
//!   there a cycle has a sixty-fourth part of the goal as its room, if it begins with less than that; and it has it
//!   once: the room that is left shrinks with what is taken, and the price rises, to a sixteenth of that room. What
//!   bounds a single assist ([`MOST`]) bounds it for good.
//! - **The ration** ([`super::ration`]): while assists, and cycles, have had more than half of the processor
//!   time, nobody has to assist.
//!
//! # When a cycle begins, where somebody helps
//! Where those who allocate help, the goal is kept however late a cycle begins. So for heaps in which a cycle is
//! worth assists, the pacer is given Go's earliest trigger ([`Tuning::assisted`]), which leaves two thirds of the
//! way to the goal without a cycle. The others begin as early as they have to
//! ([`Tuning::unassisted`]). So do heaps with a goal by limit, though everybody helps there: beginning early costs
//! processor time, which is rationed, and beginning late costs memory, of which there is none.
//!
//! # Who may assist
//! A mutator inside a closure that began while the running cycle marked. Other closures do not allocate black, so
//! they are never charged. The marking that he takes part in cannot end meanwhile: he is *busy*
//! ([`super::crew`]) from before he takes his first page. If it has ended before, there is nothing to join.
//!
//! # Why termination stays exact
//! An assist takes pages out of the shared queue, and these are there only because somebody has marked
//! something since the last clean state. So in a round that is clean there is nothing to take, and nobody
//! assists. In a dirty one, whatever an assist marks is told when it stops being busy, and the
//! collector looks only after that.
//!
//! # What the closure may hold meanwhile
//! Anything. Assists happen where objects are allocated, and by then all objects that the closure has made are
//! initialised and published; and where values of user arenas need a new chunk: those that the closure has made are black,
//! so nobody reads them. A container that the closure itself has locked is put aside, like any other
//! one that is locked: the lock is only tried.
//!
//! # Panics
//! Those of trace functions are contained. One of our own code would leave the mutator busy, and the collector
//! would wait for ever, for pages that nobody has: it ends the process, as on a helper.
//!
//! # How long it takes
//! A quarter of what is owed, between [`LEAST`] and [`MOST`] bytes of objects, and the rest of a page or of a piece of
//! a large object. What counts is not the bytes but the pointers in them, each of which may lead to a mark that
//! is in no cache: a kibibyte of pointers takes 6 to 20 microseconds, and the longest assists used to be the
//! longest pushes of the message bus. So a mutator helps with little at a time, and oftener; and where so little is
//! not enough, what it owes grows until a quarter of it is. (Pages without pointers are hardly any work as bytes go,
//! and yet a visit costs a microsecond; so they are counted, too.) That settles at four times the price of a run, and
//! at four times [`MOST`] a pause is as long as it ever gets.

use super::collector::Collector;
use super::mark::Marker;
use super::pacer::{Pacer, Tuning, Work};
use super::page_ring::PageRing;
use super::phase::{Phase, PhaseWord};
use super::ration::Entry;
use super::workers::workers;
use crate::addr::Bytes;
use crate::fatal::or_die;
use crate::heap::debt::Purse;
use crate::heap::stall::Cause;
use crate::os::clock::thread_cpu_time;
use core::cell::Cell;
use std::time::{Duration, Instant};

/// Who has panicked if our own code does, on a thread that is not ours.
pub(super) const MARKING: &str = "the collector's own code, in the midst of marking,";

/// The least that is scanned at once, if there is so much.
const LEAST: Bytes = Bytes::new(8 << 10);

/// The most that is scanned at once.
const MOST: Bytes = Bytes::new(64 << 10);

/// One part in so many of what is owed is scanned at once.
const PART: usize = 4;

/// One page is visited for so many bytes, whatever is on it.
const PAGE_FOR: usize = 128;

/// How many pages an assist has in hand.
const GRIP: usize = 8;

/// With less to scan than this, a cycle is over before it matters who helps.
const WORTH_IT: Bytes = Bytes::new(64 << 20);

/// The same where a limit bounds the goal.
const WORTH_A_LIMIT: Bytes = Bytes::new(1 << 20);

/// One part in so many of the work is credited before anybody has done any, so that mutators need not help
/// while the workers begin.
const HEAD_START: usize = 32;

/// A cycle with a goal by limit has one part in so many of it as its room at least.
const ROOM: usize = 64;

/// What is left of the room counts as one part in so many of the goal at least.
const LEAST_ROOM: usize = 16 * ROOM;

/// The price is made anew when so much time has passed.
const REVISION: Duration = Duration::from_millis(10);

/// The cycle that runs, for those who look after it meanwhile.
pub(super) struct Running {
    entry: Entry,
    /// Processor time of the collector's thread when it began.
    cpu_before: Duration,
    /// When the price was made.
    priced: Cell<Instant>,
    /// Live bytes when marking began.
    from: Cell<Bytes>,
}

impl Running {
    /// A cycle that is entered as `entry`, and began when the collector's thread had used `cpu_before`.
    pub fn new(entry: Entry, cpu_before: Duration) -> Running {
        let (priced, from) = (Cell::new(Instant::now()), Cell::new(Bytes::ZERO));
        Running { entry, cpu_before, priced, from }
    }
}

/// How much somebody scans at once who owes `due`.
fn portion(due: Bytes) -> Bytes {
    Bytes::new((due.get() / PART).clamp(LEAST.get(), MOST.get()))
}

/// Whether a cycle that has `work` to scan is worth assists.
fn is_worth_it(work: Bytes, is_limited: bool) -> bool {
    work >= if is_limited { WORTH_A_LIMIT } else { WORTH_IT }
}

/// How much has to be scanned for each byte taken, where a limit bounds the goal: `work` is left, `live` bytes
/// are live, they were `from` when marking began, and it is to end when they are `goal`.
fn limited_price(work: Bytes, from: Bytes, live: Bytes, goal: Bytes) -> f64 {
    let end = goal.max(from.saturating_add(Bytes::new(goal.get() / ROOM)));
    let room = end.saturating_sub(live).get().max(goal.get() / LEAST_ROOM).max(1);
    work.get() as f64 / room as f64
}

/// What allocating costs by `pacer` when the heap has `live` bytes, and had `from` when marking began, in the
/// worst case `worst` has to be scanned, and `done` has been; 0: nothing.
fn price(pacer: &Pacer, from: Bytes, live: Bytes, worst: Work, done: Bytes) -> f64 {
    let is_limited = pacer.is_limited();
    // Nothing is known before the first cycle, nor where estimates were wrong; then the worst case counts.
    let is_known = pacer.marked() > Bytes::ZERO
        && done <= pacer.expected()
        && (is_limited || live <= pacer.goal());
    let expected = if is_known { pacer.expected() } else { worst.all() };
    if !is_worth_it(expected.max(done), is_limited) {
        return 0.0;
    }
    match is_limited {
        true => limited_price(expected.saturating_sub(done), from, live, pacer.goal()),
        false => pacer.revise(live, worst, Work { heap: done, ..Work::default() }).work_per_byte,
    }
}

impl Collector {
    /// What the pacer has to know of who marks in the next cycle, when it is as the last one was.
    pub(super) fn tuning(&self, pacer: &Pacer) -> Tuning {
        let background = workers(self.processors, self.options.mark_threads);
        match is_worth_it(pacer.expected(), false) && !pacer.is_limited() {
            true => Tuning {
                earliest: Tuning::GO.earliest,
                ..Tuning::unassisted(background, self.processors)
            },
            false => Tuning::unassisted(background, self.processors),
        }
    }

    /// Sets what allocations cost while the cycle marks that begins now.
    pub(super) fn begin_debt(&self, running: &Running) {
        if self.options.always_assist {
            return self.central.debt().begin(1.0, Bytes::ZERO);
        }
        let expected = self.settings.lock().pacer().expected();
        self.central.debt().begin(0.0, Bytes::new(expected.get() / HEAD_START));
        running.from.set(self.central.weight());
        self.set_price(running);
    }

    /// Sets it anew, if it is time to.
    pub(super) fn revise_debt(&self, running: &Running) {
        if !self.options.always_assist && running.priced.get().elapsed() >= REVISION {
            self.set_price(running);
        }
    }

    fn set_price(&self, running: &Running) {
        running.priced.set(Instant::now());
        let spent = thread_cpu_time().saturating_sub(running.cpu_before);
        let price = match self.may_assist(running.entry, spent) {
            true => self.price(running.from.get()),
            false => 0.0,
        };
        self.central.debt().set_ratio(price);
    }

    fn price(&self, from: Bytes) -> f64 {
        let done = usize::try_from(self.central.debt().done()).unwrap_or(usize::MAX);
        let live = self.central.weight();
        let worst = self.worst_work(self.central.live());
        price(self.settings.lock().pacer(), from, live, worst, Bytes::new(done))
    }

    /// Marks for a while, for a mutator in a closure that began with `word` and owes what `purse` says.
    pub fn assist(&self, purse: &Purse, word: PhaseWord) {
        let (begun, before) = (Instant::now(), thread_cpu_time());
        let done = self.assist_with(word, portion(purse.due()));
        purse.pay(done);
        self.spent.add_assist(done, thread_cpu_time().saturating_sub(before));
        self.central.stalls().record(Cause::Assist, begun);
    }

    /// The same, for `budget` bytes; how many were scanned.
    fn assist_with(&self, word: PhaseWord, budget: Bytes) -> u64 {
        let marks = word.phase() == Phase::Marking;
        if !marks || self.crew.waiting() == 0 || !self.crew.join(word.cycle()) {
            return 0;
        }
        or_die(MARKING, || {
            let ring = PageRing::new();
            let marker = Marker::on(&self.central, &self.crew, &ring, word.cycle());
            let mut marker = marker.with_kernel(self.options.kernel).with_grip(GRIP);
            let mut pages = budget.get() / PAGE_FOR;
            marker.work(|tally| {
                pages = pages.saturating_sub(1);
                pages > 0 && tally.work < budget.get() as u64
            });
            let done = marker.tally().work;
            marker.leave();
            done
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pacer::{Finished, Policy, speed::Times};
    use super::*;
    use crate::collect::Options;
    use crate::heap::debt::Debt;
    use crate::mutator::Heap;
    use crate::os::Os;

    fn mib(n: usize) -> Bytes {
        Bytes::new(n << 20)
    }

    fn heap(work: Bytes) -> Work {
        Work { heap: work, ..Work::default() }
    }

    /// A pacer that has seen a cycle which has marked `marked`.
    fn pacer(marked: Bytes, limit: Option<Bytes>) -> Pacer {
        let mut pacer = Pacer::new(Policy { percent: Some(100), limit }, Tuning::GO);
        let second = Duration::from_secs(1);
        let times = Times {
            elapsed: second,
            processors: 4,
            workers: None,
            assists: Duration::ZERO,
            idle: Duration::ZERO,
        };
        pacer.start(marked, heap(marked));
        pacer.finish(Finished { live: marked, marked, done: heap(marked), times });
        pacer.commit(None);
        pacer
    }

    #[test]
    fn marking_is_to_end_at_the_goal_and_small_heaps_feel_nothing() {
        let price = |marked, live, done| {
            let pacer = pacer(mib(marked), None);
            price(&pacer, mib(live), mib(live), heap(mib(live)), mib(done))
        };
        assert_eq!(price(63, 120, 0), 0.0);
        assert_eq!(price(100, 150, 0), 2.0);
        assert_eq!(price(100, 150, 50), 1.0);
        assert!(
            price(63, 120, 80) > 1.0,
            "a cycle that turns out to be large is worth it after all"
        );
        assert!(price(100, 200, 50) > 1e6 && price(100, 400, 50).is_finite());
    }

    #[test]
    fn before_the_first_cycle_the_worst_case_is_assumed() {
        let none = Pacer::new(Policy { percent: Some(100), limit: None }, Tuning::GO);
        let price = |live, done| price(&none, mib(live), mib(live), heap(mib(live)), mib(done));
        assert_eq!(price(4, 0), 0.0);
        assert!(price(400, 1) > 1.0);
    }

    /// Forty times as much is live as the last cycle has found, and the collector's own threads get no processor:
    /// those who allocate do all of the marking, and take an eighth of what it was meanwhile.
    #[test]
    fn fault_18_a_jump_is_paid_for_by_those_who_allocate() {
        let (pacer, debt, purse) = (pacer(mib(10), None), Debt::new(), Purse::default());
        let (from, run) = (mib(400), Bytes::new(8 << 10));
        let (mut live, mut done) = (from, Bytes::ZERO);
        let price = |live, done| price(&pacer, from, live, heap(live), done);
        debt.begin(price(live, done), Bytes::ZERO);
        while done < from {
            if !purse.may_take(&debt) {
                assert!(purse.take_pause());
                let portion = portion(purse.due());
                purse.pay(portion.get() as u64);
                done += portion;
                assert!(purse.may_take(&debt), "whatever is owed, nobody is paused twice");
            }
            purse.charge(&debt, run);
            live += run;
            if live.get() % (1 << 20) == 0 {
                debt.set_ratio(price(live, done));
            }
        }
        assert!(live <= from + mib(51), "{live:?}");
    }

    #[test]
    fn below_a_limit_small_heaps_help_and_the_goal_is_not_extended() {
        let limited = pacer(mib(30), Some(mib(34)));
        assert!(limited.is_limited());
        let goal = limited.goal();
        let over = |bytes: Bytes, room: usize| bytes.get() as f64 / room as f64;
        let price = |from, live, done| price(&limited, from, live, heap(live), done);
        let room = goal.saturating_sub(mib(31)).get();
        assert_eq!(price(mib(31), mib(31), mib(0)), over(mib(30), room));
        // Who begins at the goal has a sixty-fourth part of it, and has it once.
        let (part, half) = (goal.get() / ROOM, Bytes::new(goal.get() / ROOM / 2));
        assert_eq!(price(goal, goal, mib(0)), over(mib(30), part));
        assert_eq!(price(goal, goal + half, mib(10)), over(mib(20), part - half.get()));
        // Beyond that the price is the same.
        let most = over(mib(20), goal.get() / LEAST_ROOM);
        assert_eq!(price(goal, goal + half + half, mib(10)), most);
        assert_eq!(price(goal, mib(600), mib(10)), most);
        assert_eq!(price(mib(31), mib(31), mib(30)), 0.0, "nothing is left");
        let tiny = pacer(Bytes::new(1000), Some(mib(34)));
        assert_eq!(super::price(&tiny, mib(1), mib(1), heap(mib(1)), Bytes::ZERO), 0.0);
        assert!(limited_price(mib(1), mib(161), mib(161), Bytes::ZERO).is_finite());
    }

    /// What is accounted for outside is a part of the goal, so it is none of the room.
    #[test]
    fn what_lies_outside_leaves_less_room() {
        // Without a percent nothing begins a cycle.
        let policy = Policy { percent: None, limit: None };
        let heap = Heap::new(Os::native(), Options { policy, ..Options::default() });
        let heap = heap.expect("memory");
        let _outside = heap.account(mib(168));
        let running = Running::new(Entry::Asked, Duration::ZERO);
        heap.collector().begin_debt(&running);
        assert_eq!(running.from.get(), mib(168));
    }
}
