//! Memory outside of the heap that belongs to its objects: bytes that a program accounts for, so that
//! cycles begin as early as if they were in it.
//!
//! A cycle frees such memory late: the destructor of the value that owns it has to run first. So when the
//! next cycle is planned, right after marking, nobody knows how much of what is accounted for is garbage. A
//! plan that took all of it for live would double the goal from cycle to cycle in a program that only makes
//! garbage. Therefore the *lowest* figure since the plan counts as retained: as destructors run, it falls to
//! what is really held, and the trigger falls with it.
//!
//! ```text
//!   now        accounted for at this moment
//!   planned    what it was when the trigger was set
//!   expected   what of that the program was expected to free itself: chunks of user arenas
//!   floor      the lowest that it has been since
//!   trigger'   max(trigger * (base - freed) / base, least)
//!              freed: planned - floor, beyond what was expected
//!              base: retained + planned - expected, what the trigger was made from; least: that of an empty heap
//! ```
//!
//! Growth is proportional to what is retained, so the trigger may be scaled instead of planned anew.
//!
//! # Locking
//! None. Everything is relaxed: the figures are read for a decision that may come a little early or late.

use crate::addr::Bytes;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// What is accounted for outside of a heap.
pub struct Outside {
    now: AtomicUsize,
    planned: AtomicUsize,
    floor: AtomicUsize,
    /// What of `planned` the trigger was not made from.
    expected: AtomicUsize,
    /// What the trigger was made from, the rest of `planned` included.
    base: AtomicUsize,
    /// The trigger of an empty heap.
    least: AtomicUsize,
}

impl Outside {
    /// Nothing is accounted for.
    pub const fn new() -> Outside {
        Outside {
            now: AtomicUsize::new(0),
            planned: AtomicUsize::new(0),
            floor: AtomicUsize::new(0),
            expected: AtomicUsize::new(0),
            base: AtomicUsize::new(0),
            least: AtomicUsize::new(usize::MAX),
        }
    }

    /// What is accounted for.
    pub fn now(&self) -> Bytes {
        Bytes::new(self.now.load(Ordering::Relaxed))
    }

    /// Adds `bytes`, or as many as can be counted: how many. The sum never exceeds half of all addresses, so
    /// that it can be added to sizes without care.
    pub fn grow(&self, bytes: Bytes) -> Bytes {
        let room = |now: usize| (usize::MAX / 2 - now).min(bytes.get());
        let add = |now: usize| Some(now + room(now));
        let before = self.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        Bytes::new(before.map_or(0, room))
    }

    /// Takes off what [`Outside::grow`] has added.
    pub fn shrink(&self, bytes: Bytes) {
        let before = self.now.fetch_sub(bytes.get(), Ordering::Relaxed);
        debug_assert!(before >= bytes.get(), "more is taken off than was accounted for");
        self.floor.fetch_min(before.saturating_sub(bytes.get()), Ordering::Relaxed);
    }

    /// The lowest figure since the last plan.
    pub fn floor(&self) -> Bytes {
        Bytes::new(self.floor.load(Ordering::Relaxed))
    }

    /// A trigger is about to be planned: what has to be added to the `retained` bytes of the heap for it, if the
    /// program will free `expected` bytes of what is accounted for now without a cycle.
    pub fn begin_plan(&self, retained: Bytes, expected: Bytes) -> Bytes {
        let now = self.now();
        let held = now.saturating_sub(expected);
        self.planned.store(now.get(), Ordering::Relaxed);
        self.floor.store(now.get(), Ordering::Relaxed);
        self.expected.store(expected.get(), Ordering::Relaxed);
        self.base.store(retained.get() + held.get(), Ordering::Relaxed);
        held
    }

    /// Says what the trigger of an empty heap is: no other is ever less because memory outside was freed.
    pub fn set_least(&self, trigger: Bytes) {
        self.least.store(trigger.get(), Ordering::Relaxed);
    }

    /// What the planned `trigger` has become by memory that was freed since.
    #[inline]
    pub fn adjust(&self, trigger: usize) -> usize {
        let planned = self.planned.load(Ordering::Relaxed);
        if planned == 0 || trigger == usize::MAX {
            return trigger;
        }
        self.scale(trigger, planned)
    }

    #[cold]
    fn scale(&self, trigger: usize, planned: usize) -> usize {
        let freed = planned.saturating_sub(self.floor.load(Ordering::Relaxed));
        let freed = freed.saturating_sub(self.expected.load(Ordering::Relaxed));
        let base = self.base.load(Ordering::Relaxed).max(1);
        let scaled = trigger as u128 * base.saturating_sub(freed) as u128 / base as u128;
        let scaled = usize::try_from(scaled).unwrap_or(usize::MAX);
        scaled.max(self.least.load(Ordering::Relaxed).min(trigger))
    }
}

impl Default for Outside {
    fn default() -> Outside {
        Outside::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn bytes(mib: usize) -> Bytes {
        Bytes::new(mib * MIB)
    }

    #[test]
    fn what_grows_is_taken_off_again() {
        let outside = Outside::new();
        assert_eq!(outside.grow(bytes(3)), bytes(3));
        assert_eq!(outside.grow(bytes(2)), bytes(2));
        outside.shrink(bytes(3));
        assert_eq!(outside.now(), bytes(2));
    }

    #[test]
    fn absurd_sums_stay_below_half_of_all_addresses() {
        let outside = Outside::new();
        let all = outside.grow(Bytes::new(usize::MAX));
        assert_eq!(all, Bytes::new(usize::MAX / 2));
        assert_eq!(outside.grow(bytes(1)), Bytes::ZERO);
        outside.shrink(all);
        assert_eq!(outside.now(), Bytes::ZERO);
    }

    #[test]
    fn without_accounts_a_trigger_stays_as_it_is() {
        let outside = Outside::new();
        assert_eq!(outside.begin_plan(bytes(100), Bytes::ZERO), Bytes::ZERO);
        assert_eq!(outside.adjust(12345), 12345);
        outside.grow(bytes(5));
        outside.shrink(bytes(5));
        assert_eq!(outside.adjust(usize::MAX), usize::MAX);
    }

    #[test]
    fn garbage_that_is_freed_after_the_plan_lowers_the_trigger_in_proportion() {
        let outside = Outside::new();
        outside.set_least(bytes(4));
        outside.grow(bytes(60));
        assert_eq!(outside.begin_plan(bytes(40), Bytes::ZERO), bytes(60));
        assert_eq!(outside.adjust(200 * MIB), 200 * MIB);
        outside.shrink(bytes(50));
        // Half of what the trigger was made from has gone; what comes back does not raise it again.
        assert_eq!(outside.adjust(200 * MIB), 100 * MIB);
        outside.grow(bytes(50));
        assert_eq!(outside.adjust(200 * MIB), 100 * MIB);
        // Nor does a program that grows and shrinks lower it twice.
        outside.shrink(bytes(50));
        assert_eq!(outside.adjust(200 * MIB), 100 * MIB);
    }

    /// Arenas that the program frees itself neither raise the trigger nor lower it.
    #[test]
    fn what_was_expected_to_be_freed_has_no_part_in_the_trigger() {
        let outside = Outside::new();
        outside.set_least(bytes(4));
        outside.grow(bytes(60));
        assert_eq!(outside.begin_plan(bytes(40), bytes(50)), bytes(10));
        outside.shrink(bytes(50));
        assert_eq!(outside.adjust(100 * MIB), 100 * MIB);
        outside.shrink(bytes(5));
        // A tenth of the fifty that it was made from.
        assert_eq!(outside.adjust(100 * MIB), 90 * MIB);
    }

    #[test]
    fn no_trigger_falls_below_that_of_an_empty_heap() {
        let outside = Outside::new();
        outside.set_least(bytes(4));
        outside.grow(bytes(60));
        outside.begin_plan(Bytes::ZERO, Bytes::ZERO);
        outside.shrink(bytes(60));
        assert_eq!(outside.adjust(120 * MIB), 4 * MIB);
        assert_eq!(outside.adjust(3 * MIB), 3 * MIB);
    }

    /// Without the floor the goal of this program would double with each cycle.
    #[test]
    fn a_program_that_only_makes_garbage_keeps_its_trigger() {
        let outside = Outside::new();
        outside.set_least(bytes(4));
        let mut trigger = 4 * MIB;
        for _ in 0..20 {
            let room = outside.adjust(trigger) - outside.now().get();
            let made = outside.grow(Bytes::new(room));
            // The cycle ends, the next one is planned, and then the destructors run.
            trigger = 2 * outside.begin_plan(Bytes::ZERO, Bytes::ZERO).get();
            outside.shrink(made);
        }
        assert_eq!(outside.adjust(trigger), 4 * MIB);
    }
}
