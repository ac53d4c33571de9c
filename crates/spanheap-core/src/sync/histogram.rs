//! Histograms of durations that any thread adds to without a lock.
//!
//! ```text
//!  < 0     underflow
//!  bucket 0        [0, 2^8) ns            in four parts of 64 ns
//!  bucket b >= 1   [2^(b+7), 2^(b+8)) ns  in four equal parts each
//!  >= 2^47 overflow (more than a day)
//! ```
//!
//! Forty buckets of four counters: a duration is off by a quarter of its power of two at most, from
//! nanoseconds to a day, in 1.3 KiB. These are the buckets of Go's runtime metrics.
//!
//! A record is two shifts and one addition to a counter. Counters are relaxed and order nothing; a
//! snapshot reads them one after the other while others go on, so it may hold a later record and lack
//! an earlier one, but it never holds what was not recorded.

use super::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets, each as wide as all below it together.
const BUCKETS: usize = 40;
/// log2 of the parts of a bucket.
const PARTS_SHIFT: u32 = 2;
/// Parts of a bucket.
const PARTS: usize = 1 << PARTS_SHIFT;
/// log2 of the end of the first bucket, in nanoseconds.
const FIRST_SHIFT: u32 = 8;
/// log2 of the end of the last one.
const LAST_SHIFT: u32 = FIRST_SHIFT + BUCKETS as u32 - 1;

/// Counters of a histogram, without those for what is too short or too long.
pub const TIME_COUNTERS: usize = BUCKETS * PARTS;

/// Edges of a histogram, the infinite ones included.
pub const TIME_EDGES: usize = TIME_COUNTERS + 3;

/// Where a duration is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeBucket {
    /// It is negative: a clock went backwards.
    Underflow,
    /// In the counter with this number, below [`TIME_COUNTERS`].
    Counter(usize),
    /// It is 2^47 ns or more.
    Overflow,
}

impl TimeBucket {
    /// Where a duration of `nanos` nanoseconds is counted.
    #[inline]
    pub const fn of(nanos: i64) -> TimeBucket {
        if nanos < 0 {
            return TimeBucket::Underflow;
        }
        let bits = i64::BITS - nanos.leading_zeros();
        if bits > LAST_SHIFT {
            return TimeBucket::Overflow;
        }
        let bucket = bits.saturating_sub(FIRST_SHIFT);
        // The first bucket begins at zero, so its highest bit belongs to the number of the part.
        let width = if bucket == 0 { FIRST_SHIFT } else { FIRST_SHIFT + bucket - 1 };
        let part = (nanos as usize >> (width - PARTS_SHIFT)) % PARTS;
        TimeBucket::Counter(bucket as usize * PARTS + part)
    }
}

/// The shortest duration, in nanoseconds, that counter `index` counts; for [`TIME_COUNTERS`], the
/// shortest that is an overflow.
const fn edge(index: usize) -> u64 {
    let (bucket, part) = (index / PARTS, (index % PARTS) as u64);
    if bucket == 0 {
        return part << (FIRST_SHIFT - PARTS_SHIFT);
    }
    (PARTS as u64 + part) << (FIRST_SHIFT + bucket as u32 - 1 - PARTS_SHIFT)
}

/// The edges of all buckets in seconds, from minus to plus infinity. Between the first two is the
/// underflow, between the last two the overflow.
pub fn time_edges() -> [f64; TIME_EDGES] {
    core::array::from_fn(|index| match index {
        0 => f64::NEG_INFINITY,
        index if index + 1 == TIME_EDGES => f64::INFINITY,
        index => edge(index - 1) as f64 / 1e9,
    })
}

/// A histogram of durations.
pub struct TimeHistogram {
    counters: [AtomicU64; TIME_COUNTERS],
    underflow: AtomicU64,
    overflow: AtomicU64,
}

impl TimeHistogram {
    /// A histogram of nothing.
    pub const fn new() -> TimeHistogram {
        TimeHistogram {
            counters: [const { AtomicU64::new(0) }; TIME_COUNTERS],
            underflow: AtomicU64::new(0),
            overflow: AtomicU64::new(0),
        }
    }

    /// Counts a duration.
    #[inline]
    pub fn record(&self, duration: Duration) {
        self.record_nanos(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX));
    }

    /// Counts a difference of two times, in nanoseconds.
    #[inline]
    pub fn record_nanos(&self, nanos: i64) {
        let counter = match TimeBucket::of(nanos) {
            TimeBucket::Counter(index) => &self.counters[index],
            TimeBucket::Underflow => &self.underflow,
            TimeBucket::Overflow => &self.overflow,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// What has been counted so far.
    pub fn snapshot(&self) -> TimeCounts {
        TimeCounts {
            counters: core::array::from_fn(|index| self.counters[index].load(Ordering::Relaxed)),
            underflow: self.underflow.load(Ordering::Relaxed),
            overflow: self.overflow.load(Ordering::Relaxed),
        }
    }
}

impl Default for TimeHistogram {
    fn default() -> TimeHistogram {
        TimeHistogram::new()
    }
}

/// The counts of a [`TimeHistogram`] at some moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimeCounts {
    /// How many durations lie between two neighbouring edges of [`time_edges`], from edge 1 on.
    pub counters: [u64; TIME_COUNTERS],
    /// How many were negative.
    pub underflow: u64,
    /// How many were 2^47 ns or longer.
    pub overflow: u64,
}

impl TimeCounts {
    /// How many durations were counted.
    pub fn total(&self) -> u64 {
        self.underflow + self.counters.iter().sum::<u64>() + self.overflow
    }

    /// A duration that the part `q` (0 to 1) of all durations does not reach or exceed: the upper edge of
    /// the counter that holds the last of them. [`Duration::MAX`] when that one is an overflow; `None`
    /// when nothing was counted.
    ///
    /// # Panics
    /// When `q` does not lie between 0 and 1.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        assert!((0.0..=1.0).contains(&q), "a quantile lies between 0 and 1, not at {q}");
        let total = self.total();
        if total == 0 {
            return None;
        }
        let wanted = ((q * total as f64).ceil() as u64).clamp(1, total);
        let mut seen = self.underflow;
        if seen >= wanted {
            return Some(Duration::ZERO);
        }
        for (index, count) in self.counters.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(Duration::from_nanos(edge(index + 1)));
            }
        }
        Some(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Random;

    #[test]
    fn every_duration_lies_between_the_edges_of_its_counter() {
        let mut random = Random::new(0x71e5);
        let powers = (0..63).flat_map(|bit| [-1, 0, 1].map(|d| (1i64 << bit) + d));
        let others = (0..20_000).map(|_| (random.next() as i64) >> random.below(40));
        for nanos in powers.chain(others.collect::<Vec<_>>()) {
            match TimeBucket::of(nanos) {
                TimeBucket::Counter(index) => {
                    assert!(edge(index) as i64 <= nanos && nanos < edge(index + 1) as i64);
                }
                TimeBucket::Underflow => assert!(nanos < 0),
                TimeBucket::Overflow => assert!(nanos >= 1 << 47),
            }
        }
        assert_eq!(TimeBucket::of(-1), TimeBucket::Underflow);
        assert_eq!(TimeBucket::of(i64::MIN), TimeBucket::Underflow);
        assert_eq!(TimeBucket::of((1 << 47) - 1), TimeBucket::Counter(TIME_COUNTERS - 1));
        assert_eq!(TimeBucket::of(1 << 47), TimeBucket::Overflow);
        assert!((0..TIME_COUNTERS).all(|index| edge(index) < edge(index + 1)));
    }

    #[test]
    fn a_quantile_is_the_upper_edge_of_what_was_counted() {
        let histogram = TimeHistogram::new();
        assert_eq!(histogram.snapshot().quantile(0.5), None);
        let mut random = Random::new(0x9a47);
        let mut all: Vec<i64> =
            (0..5000).map(|_| (random.next() as i64) >> random.below(44)).collect();
        all.extend([-5, -1, 1 << 50]);
        for &nanos in &all {
            histogram.record_nanos(nanos);
        }
        all.sort_unstable();
        let counts = histogram.snapshot();
        assert_eq!(counts.total(), all.len() as u64);
        assert_eq!((counts.underflow, counts.overflow >= 1), (2, true));
        for step in 0..=100 {
            let q = f64::from(step) / 100.0;
            let rank = ((q * all.len() as f64).ceil() as usize).max(1);
            let expected = match TimeBucket::of(all[rank - 1]) {
                TimeBucket::Underflow => Duration::ZERO,
                TimeBucket::Counter(index) => Duration::from_nanos(edge(index + 1)),
                TimeBucket::Overflow => Duration::MAX,
            };
            assert_eq!(counts.quantile(q), Some(expected), "{q}");
        }
    }

    #[test]
    fn durations_beyond_all_numbers_are_overflows() {
        let histogram = TimeHistogram::new();
        histogram.record(Duration::MAX);
        histogram.record(Duration::from_nanos(u64::MAX));
        histogram.record(Duration::from_nanos(100));
        let counts = histogram.snapshot();
        assert_eq!((counts.overflow, counts.counters[1], counts.total()), (2, 1, 3));
    }

    #[test]
    fn nothing_that_threads_record_is_lost() {
        let histogram = TimeHistogram::new();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let histogram = &histogram;
                scope.spawn(move || (0..10_000).for_each(|n| histogram.record_nanos(n << thread)));
            }
        });
        assert_eq!(histogram.snapshot().total(), 40_000);
    }
}
