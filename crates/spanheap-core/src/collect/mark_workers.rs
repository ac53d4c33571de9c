//! Who marks, and for how much of the time. Pure: numbers in, numbers out.
//!
//! Marking is to use a quarter of the processors. Three kinds of workers share it out:
//!
//! - **dedicated** workers mark as long as there is anything to mark: as many as a quarter of the
//!   processors is, rounded to the nearest number;
//! - where that is off by more than 30 % of the quarter (one, two, three and six processors), one less if it
//!   was rounded up, and a **fractional** worker on each processor makes up for the rest: it marks
//!   for a share of the time and sleeps the others ([`fractional_may_start`], [`fractional_is_done`]);
//! - **idle** workers mark on processors that have nothing better to do; a cycle that nobody needs
//!   (the periodic one) has hardly any, so that a program that rests is not woken up on every
//!   processor.
//!
//! [`IdleWorkers`] is the bounded counter for the last kind. It needs `&mut`: who shares it between
//! threads puts it under a lock, or packs `(now, most)` into one word.

use core::time::Duration;

/// The share of the processors that marking uses.
pub const SHARE: f64 = 0.25;

/// How far the rounded number of dedicated workers may be off before fractional ones are wanted.
const MAX_ERROR: f64 = 0.3;

/// A fractional worker goes on until it has used its share this many times over: to stop and start costs more
/// than to be a little late with either.
const SLACK: f64 = 1.2;

/// How the marking of a cycle is shared out.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct MarkWorkers {
    /// Workers that do nothing else.
    pub dedicated: usize,
    /// The share of its time that each processor gives to its fractional worker; 0: there are none.
    pub fractional: f64,
    /// How many workers at most use idle time at once.
    pub idle: usize,
}

impl MarkWorkers {
    /// For a cycle on so many processors. `periodic`: nobody waits for it, and no growth has begun it.
    pub fn new(processors: usize, periodic: bool) -> MarkWorkers {
        let wanted = processors as f64 * SHARE;
        let mut dedicated = (wanted + 0.5).floor();
        let mut fractional = 0.0;
        // Without processors nothing is wanted, and the error is not a number.
        if (dedicated / wanted - 1.0).abs() > MAX_ERROR {
            if dedicated > wanted {
                dedicated -= 1.0;
            }
            fractional = (wanted - dedicated) / processors as f64;
        }
        let dedicated = dedicated as usize;
        let idle = match (periodic, dedicated) {
            (false, _) => processors - dedicated,
            (true, 0) => 1,
            (true, _) => 0,
        };
        MarkWorkers { dedicated, fractional, idle }
    }
}

/// Whether a fractional worker may start that has marked for `marked` of the `elapsed` time of the cycle.
pub fn fractional_may_start(share: f64, marked: Duration, elapsed: Duration) -> bool {
    share > 0.0 && (elapsed.is_zero() || marked.as_secs_f64() <= share * elapsed.as_secs_f64())
}

/// Whether a fractional worker has marked enough for now. Where the clock has not moved, it has not.
pub fn fractional_is_done(share: f64, marked: Duration, elapsed: Duration) -> bool {
    !elapsed.is_zero() && marked.as_secs_f64() > SLACK * share * elapsed.as_secs_f64()
}

/// How many workers use idle time at the moment, and how many may.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct IdleWorkers {
    now: usize,
    most: usize,
}

impl IdleWorkers {
    /// There are none, and there may be none.
    pub const fn new() -> IdleWorkers {
        IdleWorkers { now: 0, most: 0 }
    }

    /// Sets how many there may be. There may be more than that now: they are not counted out, but
    /// no other one begins before enough of them have ended.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// Whether there may be another one.
    pub fn is_wanted(&self) -> bool {
        self.now < self.most
    }

    /// One begins, if there may be another one; false if it must not.
    pub fn begin(&mut self) -> bool {
        let begins = self.is_wanted();
        self.now += usize::from(begins);
        begins
    }

    /// One has ended.
    ///
    /// # Panics
    /// When none had begun.
    pub fn end(&mut self) {
        self.now = self.now.checked_sub(1).expect("a worker ends that had begun");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quarter_of_the_processors_marks() {
        for processors in 1..=1024 {
            let workers = MarkWorkers::new(processors, false);
            let share = (workers.dedicated as f64 / processors as f64) + workers.fractional;
            let off = (share / SHARE - 1.0).abs();
            assert!(off <= MAX_ERROR, "{processors} processors: {workers:?}");
            assert!(workers.dedicated + workers.idle == processors);
            assert!(workers.dedicated > 0 || workers.fractional > 0.0, "nobody marks");
        }
    }

    #[test]
    fn a_periodic_cycle_leaves_idle_processors_alone() {
        assert_eq!(MarkWorkers::new(16, true).idle, 0);
        assert_eq!(MarkWorkers::new(2, true).idle, 1, "without it nobody might be at it for long");
    }

    #[test]
    fn without_processors_nobody_marks() {
        let nobody = MarkWorkers { dedicated: 0, fractional: 0.0, idle: 0 };
        assert_eq!(MarkWorkers::new(0, false), nobody);
    }

    #[test]
    fn a_fractional_worker_keeps_to_its_share() {
        // A simulated processor: the worker polls every 100 us of marking, and looks every 100 us while it
        // sleeps.
        let (step, share) = (Duration::from_micros(100), 0.25);
        let (mut marked, mut elapsed, mut marks) = (Duration::ZERO, Duration::ZERO, false);
        for _ in 0..10_000 {
            marks = match marks {
                true => !fractional_is_done(share, marked, elapsed),
                false => fractional_may_start(share, marked, elapsed),
            };
            elapsed += step;
            marked += if marks { step } else { Duration::ZERO };
        }
        let used = marked.as_secs_f64() / elapsed.as_secs_f64();
        assert!((0.25..0.31).contains(&used), "the share was {used}");
    }

    #[test]
    fn fault_21_a_fractional_worker_survives_a_clock_that_stands() {
        assert!(fractional_may_start(0.25, Duration::ZERO, Duration::ZERO));
        assert!(fractional_may_start(0.25, Duration::MAX, Duration::ZERO));
        assert!(!fractional_is_done(0.25, Duration::MAX, Duration::ZERO));
        assert!(fractional_is_done(0.25, Duration::MAX, Duration::from_nanos(1)));
        assert!(
            !fractional_may_start(0.0, Duration::ZERO, Duration::MAX),
            "there is no such worker"
        );
    }

    proptest! {
        #[test]
        fn idle_workers_begin_only_below_the_bound(ops in proptest::collection::vec(0u8..12, 0..200)) {
            let mut workers = IdleWorkers::new();
            let (mut now, mut most) = (0, 0);
            for op in ops {
                match op {
                    0..4 => {
                        let begins = workers.begin();
                        prop_assert_eq!(begins, now < most);
                        now += usize::from(begins);
                    }
                    4..8 if now > 0 => {
                        workers.end();
                        now -= 1;
                    }
                    _ => {
                        most = usize::from(op % 5);
                        workers.set_most(most);
                    }
                }
                prop_assert_eq!(workers.is_wanted(), now < most);
            }
        }
    }
}
