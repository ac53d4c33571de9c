//! How much of the processors the collector may take: a leaky bucket. Pure: numbers in, decisions out.
//!
//! A heap that is close to its limit, or whose live objects do not fit under it, could be collected all the
//! time; the program would stand still, which is worse than to use more memory than it should. So
//! time spent on collecting fills a bucket, and time spent on the program drains it:
//!
//! ```text
//!   fill     += time of the collector - time of the program,   between 0 and the capacity
//!   capacity  = one second for each processor
//!   limiting: from the moment when the bucket is full until it is less than full
//! ```
//!
//! While the limiter is limiting, whoever allocates must not be made to mark, and nothing is returned to
//! the system for the limit's sake: what is left is the background's quarter, and the heap grows.
//! So in the long run the collector takes about half of the time, and a burst of a second of each
//! processor passes unlimited. What does not fit into the full bucket is never paid for. So in the worst case, where
//! between any two updates everybody helps who may, periods of all and of a quarter alternate: five eighths.
//!
//! # An account without a clock
//! Who knows what everybody has really used enters that instead ([`CpuLimiter::enter`]), into a bucket of a size of
//! his own ([`CpuLimiter::with_credit`]). There are two kinds of collector time then. Time that the limiter has no
//! power over (a cycle that growth has begun goes on, whatever the account says) is forgotten where it does
//! not fit, as above: a program that collects more than half of the time anyway does not save up a debt without
//! bounds. Time that the limiter has *granted* is owed in full, beyond the capacity, until the program has had as
//! much. So what is granted never is more than half, and five eighths do not happen: whoever is granted something
//! stops when the bucket is full.
//!
//! # Time
//! The caller says what time it is, as time since some moment of its own that lies before the
//! first call. A clock that steps back is ignored until it has caught up; no step forward is
//! too large. The time of the background workers is not measured but taken to be [`SHARE`] of all
//! processors while a cycle runs, or what [`CpuLimiter::with_background`] says: 0 for a caller that
//! adds all the time of the collector by [`CpuLimiter::add_collector_time`].
//!
//! # Sharing
//! One owner at a time (`&mut`). Mutators would pool their times in an atomic of their own, which whoever
//! holds the lock of the limiter adds here; [`CpuLimiter::is_limiting`] is one bit to publish
//! after each update. [`CpuLimiter::needs_update`] says when an update is worth a lock.

use super::mark_workers::SHARE;
use core::time::Duration;

/// What a processor adds to the capacity.
const CAPACITY_PER_PROCESSOR: u64 = 1_000_000_000;

/// How old the last update may become.
const PERIOD: u64 = 10_000_000;

/// The limiter of a heap. Times are nanoseconds inside, as far as a signed word goes (292 years).
#[derive(Clone, Debug)]
pub struct CpuLimiter {
    background: f64,
    /// The capacity, if it does not follow from the processors.
    credit: Option<u64>,
    processors: u64,
    capacity: u64,
    fill: u64,
    /// What did not fit into the bucket, over all time.
    overflow: u64,
    limiting: bool,
    /// Whether a cycle runs.
    collecting: bool,
    last_update: u64,
    /// Time that was reported since then.
    collector_time: u64,
    idle_time: u64,
}

/// What is in the bucket, in processor time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimiterState {
    /// By how much the collector is ahead of the program.
    pub fill: Duration,
    /// By how much it may be; what was granted may be beyond that.
    pub capacity: Duration,
    /// What it has used beyond that so far.
    pub overflow: Duration,
    /// Whether it is to hold back.
    pub limiting: bool,
}

/// Processor time that was used, by whom.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Used {
    /// By the program.
    pub program: Duration,
    /// By the collector, which had to.
    pub collector: Duration,
    /// By the collector, because the limiter has granted it.
    pub granted: Duration,
}

/// Nanoseconds, at most what a signed word holds.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}

/// The product of a time and a number of processors, at most what a signed word holds.
fn on_all(time: u64, processors: u64) -> u64 {
    time.saturating_mul(processors).min(i64::MAX.unsigned_abs())
}

impl CpuLimiter {
    /// An empty bucket at the time `now`, for so many processors.
    pub fn new(now: Duration, processors: usize) -> CpuLimiter {
        CpuLimiter::with_background(now, processors, SHARE)
    }

    /// The same, where background workers use the given share of all processors in a cycle.
    ///
    /// # Panics
    /// When the share is not between 0 and 1.
    pub fn with_background(now: Duration, processors: usize, background: f64) -> CpuLimiter {
        assert!((0.0..=1.0).contains(&background), "a share is between 0 and 1");
        let mut limiter = CpuLimiter {
            background,
            credit: None,
            processors: 0,
            capacity: 0,
            fill: 0,
            overflow: 0,
            limiting: false,
            collecting: false,
            last_update: 0,
            collector_time: 0,
            idle_time: 0,
        };
        limiter.set_processors(now, processors);
        limiter
    }

    /// An empty bucket of the given size, into which is entered what was used.
    pub fn with_credit(credit: Duration) -> CpuLimiter {
        let mut limiter = CpuLimiter::with_background(Duration::ZERO, 1, 0.0);
        let credit = nanoseconds(credit);
        (limiter.credit, limiter.capacity) = (Some(credit), credit);
        limiter
    }

    /// Enters what was used since the last time: first the program's, which drains the bucket.
    pub fn enter(&mut self, used: Used) {
        let drained = self.fill.saturating_sub(nanoseconds(used.program));
        let filled = drained.saturating_add(nanoseconds(used.collector));
        let kept = filled.min(self.capacity.max(drained));
        self.overflow = self.overflow.saturating_add(filled - kept);
        let owed = kept.saturating_add(nanoseconds(used.granted));
        self.fill = owed.min(i64::MAX.unsigned_abs());
        self.limiting = self.fill >= self.capacity;
    }

    /// Whether mutators must not be made to work for the collector.
    pub fn is_limiting(&self) -> bool {
        self.limiting
    }

    /// Whether whoever allocates may be made to mark.
    pub fn may_assist(&self) -> bool {
        !self.limiting
    }

    /// What is in the bucket.
    pub fn state(&self) -> LimiterState {
        LimiterState {
            fill: Duration::from_nanos(self.fill),
            capacity: Duration::from_nanos(self.capacity),
            overflow: Duration::from_nanos(self.overflow),
            limiting: self.limiting,
        }
    }

    /// Reports processor time of the collector other than the background's share: assists.
    pub fn add_collector_time(&mut self, time: Duration) {
        self.collector_time = self.collector_time.saturating_add(nanoseconds(time));
    }

    /// Reports processor time that nobody wanted, or that idle workers have used. It counts for nobody.
    pub fn add_idle_time(&mut self, time: Duration) {
        self.idle_time = self.idle_time.saturating_add(nanoseconds(time));
    }

    /// Whether the last update is old.
    pub fn needs_update(&self, now: Duration) -> bool {
        nanoseconds(now).saturating_sub(self.last_update) > PERIOD
    }

    /// Brings the bucket up to date.
    pub fn update(&mut self, now: Duration) {
        let now = nanoseconds(now);
        if now < self.last_update {
            return;
        }
        let all = on_all(now - self.last_update, self.processors);
        self.last_update = now;
        let mut collector = core::mem::take(&mut self.collector_time);
        if self.collecting {
            collector = collector.saturating_add((all as f64 * self.background) as u64);
        }
        // Both may be more than the window, where they were reported late.
        let used = i128::from(all) - i128::from(core::mem::take(&mut self.idle_time));
        let program = used - i128::from(collector);
        self.accumulate(i128::from(collector) - program);
    }

    /// A cycle begins (`collecting`) or ends. Where that stops the program, the stop lasts until
    /// [`CpuLimiter::finish_transition`]; a collector that stops nobody need not call that.
    pub fn start_transition(&mut self, collecting: bool, now: Duration) {
        self.update(now);
        self.collecting = collecting;
    }

    /// The program goes on: all processors were the collector's since the last update.
    pub fn finish_transition(&mut self, now: Duration) {
        let now = nanoseconds(now).max(self.last_update);
        let stopped = on_all(now - self.last_update, self.processors);
        self.last_update = now;
        self.accumulate(i128::from(stopped));
    }

    /// There are so many processors from now on.
    pub fn set_processors(&mut self, now: Duration, processors: usize) {
        self.update(now);
        self.processors = processors as u64;
        let usual = on_all(CAPACITY_PER_PROCESSOR, self.processors);
        self.capacity = self.credit.unwrap_or(usual);
        if self.fill > self.capacity {
            self.fill = self.capacity;
            self.limiting = true;
        } else if self.fill < self.capacity {
            self.limiting = false;
        }
    }

    /// Adds `change`, the collector's time less the program's, to the bucket.
    fn accumulate(&mut self, change: i128) {
        let was_full = self.fill == self.capacity;
        let next = i128::from(self.fill) + change;
        let excess = next - i128::from(self.capacity);
        if change > 0 && excess >= 0 {
            let excess = u64::try_from(excess).unwrap_or(u64::MAX);
            self.overflow = self.overflow.saturating_add(excess);
            self.fill = self.capacity;
            self.limiting = true;
            return;
        }
        // Below the capacity by now, or not above what it was.
        self.fill = u64::try_from(next.max(0)).unwrap_or(self.capacity);
        if change != 0 && was_full {
            self.limiting = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    /// Everybody helps all the time, as long as nobody is limited: the worst case.
    #[test]
    fn a_collector_that_would_take_everything_takes_five_eighths() {
        assert_eq!(long_run(0.75), 0.625);
    }

    #[test]
    fn a_collector_that_would_take_more_than_half_takes_about_half() {
        for (assists, at_most) in [(0.3, 0.525), (0.4, 0.55), (0.5, 0.55)] {
            let share = long_run(assists);
            assert!((0.45..at_most).contains(&share), "{assists} were assists: {share}");
        }
        assert_eq!(long_run(0.25), 0.5, "is not limited");
    }

    /// The share of the collector in the long run, where those who help would use the share `wanted`.
    fn long_run(wanted: f64) -> f64 {
        let processors = 4;
        let mut limiter = CpuLimiter::new(Duration::ZERO, processors);
        limiter.start_transition(true, Duration::ZERO);
        let (mut now, mut used) = (Duration::ZERO, 0.0);
        for step in 0..100_000 {
            now += MS;
            let assists = if limiter.may_assist() { wanted } else { 0.0 };
            limiter.add_collector_time((MS * processors as u32).mul_f64(assists));
            limiter.update(now);
            if step >= 10_000 {
                used += 0.25 + assists;
            }
            assert!(limiter.state().fill <= limiter.state().capacity);
        }
        used / 90_000.0
    }

    #[test]
    fn a_burst_of_a_second_of_each_processor_passes() {
        let mut limiter = CpuLimiter::with_background(Duration::ZERO, 2, 0.0);
        limiter.add_collector_time(SECOND * 2 - MS);
        limiter.update(SECOND);
        assert!(limiter.may_assist());
        limiter.add_collector_time(SECOND * 2);
        limiter.update(SECOND * 2);
        assert!(limiter.is_limiting());
    }

    #[test]
    fn what_is_granted_is_owed_and_never_more_than_half() {
        let mut limiter = CpuLimiter::with_credit(MS * 100);
        let (mut program, mut granted) = (Duration::ZERO, Duration::ZERO);
        // Everybody helps as long as he may, on four processors: the worst case of the test above.
        for _ in 0..10_000 {
            let helps = if limiter.may_assist() { MS * 3 } else { Duration::ZERO };
            let works = MS * 4 - helps;
            limiter.enter(Used { program: works, granted: helps, ..Used::default() });
            program += works;
            granted += helps;
            assert!(granted <= program + MS * 103, "{granted:?} of {program:?}");
        }
        assert!(granted * 20 >= program * 19, "half is had: {granted:?} beside {program:?}");
        assert_eq!(limiter.state().overflow, Duration::ZERO);
    }

    #[test]
    fn what_nobody_has_granted_saves_up_no_debt() {
        let mut limiter = CpuLimiter::with_credit(MS * 100);
        for _ in 0..1000 {
            limiter.enter(Used { program: MS, collector: MS * 3, ..Used::default() });
        }
        assert!(limiter.is_limiting());
        assert_eq!(limiter.state().fill, MS * 100);
        limiter.enter(Used { granted: MS * 50, ..Used::default() });
        limiter.enter(Used { collector: MS * 50, ..Used::default() });
        assert_eq!(limiter.state().fill, MS * 150, "what was granted is not forgotten");
        limiter.enter(Used { program: MS * 51, ..Used::default() });
        assert!(limiter.may_assist());
        limiter.enter(Used { program: Duration::MAX, granted: Duration::MAX, ..Used::default() });
        limiter.enter(Used { collector: Duration::MAX, ..Used::default() });
        assert!(limiter.is_limiting(), "no sum wraps");
    }

    #[test]
    fn fault_21_time_that_steps_back_changes_nothing() {
        let mut limiter = CpuLimiter::new(SECOND, 2);
        limiter.start_transition(true, SECOND);
        limiter.add_collector_time(SECOND);
        limiter.update(SECOND * 2);
        let before = limiter.state();
        limiter.update(SECOND);
        limiter.finish_transition(Duration::ZERO);
        assert!(!limiter.needs_update(Duration::ZERO));
        assert_eq!(limiter.state(), before);
    }

    #[test]
    fn fault_21_a_suspended_machine_has_not_collected_all_the_while() {
        let mut limiter = CpuLimiter::new(Duration::ZERO, 2);
        limiter.start_transition(true, Duration::ZERO);
        limiter.add_collector_time(SECOND * 100);
        limiter.update(SECOND);
        assert!(limiter.is_limiting());
        limiter.update(Duration::MAX);
        assert!(limiter.may_assist());
        assert_eq!(limiter.state().fill, Duration::ZERO);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Update(u64),
        Collector(u64),
        Idle(u64),
        Start(bool, u64),
        Finish(u64),
        Processors(u64, usize),
    }

    fn time() -> impl Strategy<Value = u64> {
        prop_oneof![0..10_000_000_000u64, any::<u64>()]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => time().prop_map(Op::Update),
            2 => time().prop_map(Op::Collector),
            2 => time().prop_map(Op::Idle),
            1 => (any::<bool>(), time()).prop_map(|(on, now)| Op::Start(on, now)),
            1 => time().prop_map(Op::Finish),
            1 => (time(), prop_oneof![0usize..64, any::<usize>()])
                .prop_map(|(now, processors)| Op::Processors(now, processors)),
        ]
    }

    proptest! {
        #[test]
        fn fault_21_any_times_leave_the_bucket_whole(
            ops in proptest::collection::vec(op(), 0..60),
        ) {
            let at = Duration::from_nanos;
            let mut limiter = CpuLimiter::new(Duration::ZERO, 2);
            for op in ops {
                let before = limiter.state();
                match op {
                    Op::Update(now) => limiter.update(at(now)),
                    Op::Collector(time) => limiter.add_collector_time(at(time)),
                    Op::Idle(time) => limiter.add_idle_time(at(time)),
                    Op::Start(on, now) => limiter.start_transition(on, at(now)),
                    Op::Finish(now) => limiter.finish_transition(at(now)),
                    Op::Processors(now, n) => limiter.set_processors(at(now), n),
                }
                let after = limiter.state();
                prop_assert!(after.fill <= after.capacity);
                prop_assert!(after.overflow >= before.overflow);
                prop_assert!(!after.limiting || after.fill == after.capacity);
                prop_assert_eq!(limiter.may_assist(), !after.limiting);
            }
        }
    }
}
