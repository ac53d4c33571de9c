//! The ratio of the two sides' speeds, measured at the end of each cycle.
//!
//! ```text
//!                bytes allocated in the cycle / processor time of the program
//!   cons/mark =  ------------------------------------------------------------
//!                bytes scanned in the cycle   / processor time of the collector
//! ```
//!
//! That is a property of the program and the machine, not of how much of the time the collector
//! had in one cycle; so the next cycle's runway follows from it for whatever the collector will
//! have. Since a trigger that is too late costs more (all have to help) than one that is
//! too early, the largest of the last five measurements counts.
//!
//! A measurement that is not a number above or equal to zero, as a clock that jumps makes it, is
//! not one.

use core::time::Duration;

/// How many measurements count besides the last one.
const HISTORY: usize = 4;

/// Nobody has less than this of the processors, as far as is assumed from a measurement.
const LEAST_SHARE: f64 = 1.0 / 1024.0;

/// Nor more than that.
const LARGEST_SHARE: f64 = 0.9;

/// How the processors were used in a cycle.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How long it has lasted.
    pub elapsed: Duration,
    /// How many processors there were.
    pub processors: usize,
    /// Processor time of the background workers; `None`: they had the share that they were meant to have.
    pub workers: Option<Duration>,
    /// Processor time of those who have helped.
    pub assists: Duration,
    /// Processor time of workers that nobody else wanted.
    pub idle: Duration,
}

/// What a cycle has shown.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Speed {
    /// Bytes allocated for each byte scanned, in the same processor time.
    pub ratio: f64,
    /// The share of the processors that the background had.
    pub background: f64,
}

/// The last cycles' speeds.
#[derive(Clone, Debug)]
pub struct Speeds {
    estimate: Speed,
    history: [Speed; HISTORY],
}

/// Nanoseconds, at most what a signed word holds.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(i64::MAX.unsigned_abs())
}

impl Times {
    /// The share of all processor time that `time` is; 0 where no time has passed.
    fn share(&self, time: Duration) -> f64 {
        let all = nanoseconds(self.elapsed).saturating_mul(self.processors as u64);
        if all == 0 { 0.0 } else { nanoseconds(time) as f64 / all as f64 }
    }

    /// The speed, if `allocated` bytes were allocated and `work` bytes scanned. Background workers are
    /// meant to have the share `background`. `None`: these are no times.
    pub fn speed(&self, allocated: usize, work: usize, background: f64) -> Option<Speed> {
        let background = match self.workers {
            None => background,
            Some(time) if time.is_zero() || self.elapsed.is_zero() => background,
            Some(time) => self.share(time).clamp(LEAST_SHARE, LARGEST_SHARE),
        };
        let used = background + self.share(self.assists);
        let ratio =
            (allocated as f64 * (used + self.share(self.idle))) / (work as f64 * (1.0 - used));
        let is_speed = used < 1.0 && ratio.is_finite();
        is_speed.then_some(Speed { ratio, background })
    }
}

impl Speed {
    /// Bytes that are allocated while the background scans one, if it gets what it got.
    fn runway(&self) -> f64 {
        self.ratio * (1.0 - self.background) / self.background
    }
}

impl Speeds {
    /// Nothing was measured yet: a program that does not allocate, and the given background.
    pub fn new(background: f64) -> Speeds {
        let none = Speed { ratio: 0.0, background };
        Speeds { estimate: none, history: [none; HISTORY] }
    }

    /// What the next cycle is expected to be like.
    pub fn estimate(&self) -> Speed {
        self.estimate
    }

    /// Takes note of what a cycle was like.
    pub fn learn(&mut self, now: Speed) {
        let wilder = |a: Speed, b: Speed| if b.runway() > a.runway() { b } else { a };
        self.estimate = self.history.into_iter().fold(now, wilder);
        self.history.rotate_left(1);
        self.history[HISTORY - 1] = now;
    }
}
