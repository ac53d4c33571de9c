//! Assists: marking in the middle of an allocation.
//!
//! While a cycle marks, whoever allocates pays for it with marking, as far as the collector's own workers do not
//! keep up: [`crate::heap::debt`] has the amounts. Here is when nobody has to, and what is done when somebody
//! has to.
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
//! initialised and published. A container that the closure itself has locked is put aside, like any other
//! one that is locked: the lock is only tried.
//!
//! # Panics
//! Those of trace functions are contained. One of our own code would leave the mutator busy, and the collector
//! would wait for ever, for pages that nobody has: it ends the process, as on a helper.
//!
//! # How long it takes
//! [`MOST`] bytes of objects, and the rest of a page or of a piece of a large object.

use super::collector::Collector;
use super::mark::Marker;
use super::page_ring::PageRing;
use super::phase::{Phase, PhaseWord};
use crate::addr::Bytes;
use crate::fatal::OrDie;
use crate::heap::debt::Purse;
use crate::heap::stall::Cause;
use crate::sync::atomic::Ordering;
use std::time::Instant;

/// Where a panic of our own code ends the process, on a thread that is not ours.
pub(super) const WHILE_MARKING: &str = "of the collector's own code, in the midst of marking";

/// The least that is scanned at once, if there is so much.
const LEAST: Bytes = Bytes::new(16 << 10);

/// The most that is scanned at once.
const MOST: Bytes = Bytes::new(64 << 10);

/// How many pages an assist has in hand.
const GRIP: usize = 8;

/// With less to scan than this, a cycle is over before it matters who helps.
const WORTH_IT: u64 = 64 << 20;

/// One part in so many of the work is credited before anybody has done any, so that mutators need not help
/// while the workers begin.
const HEAD_START: u64 = 32;

/// The room up to the goal counts as one part in so many of the goal at least: a heap that is at its goal
/// already does not stop its mutators.
const LEAST_ROOM: usize = 16;

/// How much has to be scanned for each byte taken, when `work` bytes are to be scanned, and marking is to end
/// when the heap, which weighs `weight` bytes now, weighs `goal`.
fn ratio(work: u64, weight: Bytes, goal: Bytes) -> f64 {
    if work < WORTH_IT {
        return 0.0;
    }
    let room = goal.get().saturating_sub(weight.get()).max(goal.get() / LEAST_ROOM).max(1);
    work as f64 / room as f64
}

impl Collector {
    /// Sets what allocations cost while the cycle marks that begins now. `last` is what the last one had to
    /// scan.
    pub(super) fn begin_debt(&self, last: u64, goal: Bytes) {
        if self.options.always_assist {
            return self.central.debt().begin(1.0, Bytes::ZERO);
        }
        let work = if last == 0 { self.central.live().get() as u64 } else { last };
        let head_start = usize::try_from(work / HEAD_START).unwrap_or(usize::MAX);
        // The goal, as the trigger, is for all that the heap weighs.
        let ratio = ratio(work, self.central.weight(), goal);
        self.central.debt().begin(ratio, Bytes::new(head_start));
    }

    /// Marks for a while, for a mutator in a closure that began with `word` and owes what `purse` says.
    pub fn assist(&self, purse: &Purse, word: PhaseWord) {
        let begun = Instant::now();
        let budget = purse.due().get().clamp(LEAST.get(), MOST.get());
        let done = self.assist_with(word, Bytes::new(budget));
        purse.pay(done);
        self.central.stalls().record(Cause::Assist, begun);
    }

    /// The same, for `budget` bytes; how many were scanned.
    pub(super) fn assist_with(&self, word: PhaseWord, budget: Bytes) -> u64 {
        let marks = word.phase() == Phase::Marking;
        if !marks || self.crew.waiting() == 0 || !self.crew.join(word.cycle()) {
            return 0;
        }
        let marking = OrDie::begin(WHILE_MARKING);
        let ring = PageRing::new();
        let marker = Marker::on(&self.central, &self.crew, &ring, word.cycle());
        let mut marker = marker.with_grip(GRIP);
        marker.work(|tally| tally.work < budget.get() as u64);
        let done = marker.tally().work;
        marker.leave();
        marking.end();
        self.assisted.fetch_add(done, Ordering::Relaxed);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{Options, Policy};
    use crate::mutator::Heap;
    use crate::os::Os;

    #[test]
    fn marking_is_to_end_at_the_goal_and_small_heaps_feel_nothing() {
        let mib = |n: usize| Bytes::new(n << 20);
        assert_eq!(ratio(63 << 20, mib(120), mib(128)), 0.0);
        assert_eq!(ratio(100 << 20, mib(150), mib(200)), 2.0);
        // At the goal and beyond it, and where there is none.
        assert_eq!(ratio(100 << 20, mib(200), mib(160)), 10.0);
        assert_eq!(ratio(100 << 20, mib(161), mib(160)), 10.0);
        assert!(ratio(100 << 20, mib(161), Bytes::new(usize::MAX)) < 1e-9);
        assert!(ratio(u64::MAX, mib(161), Bytes::ZERO).is_finite());
    }

    /// What is accounted for outside is a part of the goal, so it is none of the room.
    #[test]
    fn what_lies_outside_leaves_less_room() {
        // Without a percent nothing begins a cycle.
        let policy = Policy { percent: None, limit: None };
        let heap = Heap::new(Os::native(), Options { policy, ..Options::default() });
        let heap = heap.expect("memory");
        let _outside = heap.account(Bytes::new(168 << 20));
        heap.collector().begin_debt(128 << 20, Bytes::new(200 << 20));
        assert_eq!(heap.collector().central().debt().ratio(), 4.0);
    }
}
