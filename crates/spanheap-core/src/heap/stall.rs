//! Stalls: how long the collector or the allocator has held a mutator up.
//!
//! There is no pause in which all threads wait, so the honest figure is the longest time that *one* thread
//! spent in somebody else's work: in the slow path of an allocation, in giving its caches back at a
//! change of phase, or waiting for a container that the collector is reading. Fast paths are not timed.
//!
//! Besides the longest one, all are counted in a histogram, which says how often a mutator is held up
//! and for how long as a rule. That is one relaxed addition, beside two readings of the clock.

use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{TimeCounts, TimeHistogram};
use std::time::{Duration, Instant};

/// Why a mutator was held up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Cause {
    /// Nothing has held anybody up so far.
    None = 0,
    /// Finding a free run: sweeping on demand, new pages.
    Allocation = 1,
    /// Entering: giving span caches back because the phase has changed. Leaving: letting the collector change it,
    /// after it has waited for long.
    PhaseChange = 2,
    /// Waiting for a container under a lock.
    Container = 3,
    /// Leaving or storing: handing a full barrier buffer over.
    Flush = 4,
    /// Allocating while the collector is behind: marking for a while.
    Assist = 5,
    /// Freeing a user arena, or leaving a closure in which one was freed: seeing to its memory.
    Burial = 6,
}

impl Cause {
    /// The cause in words.
    pub const fn name(self) -> &'static str {
        match self {
            Cause::None => "none",
            Cause::Allocation => "allocation slow path",
            Cause::PhaseChange => "change of phase",
            Cause::Container => "locked container",
            Cause::Flush => "barrier buffer",
            Cause::Assist => "marking assist",
            Cause::Burial => "freed arenas",
        }
    }
}

/// All stalls, and which one was the longest.
pub struct Stalls {
    /// The longest: nanoseconds above, cause in the low 8 bits, so that one word has both.
    longest: AtomicU64,
    all: TimeHistogram,
}

impl Stalls {
    /// No stall so far.
    pub const fn new() -> Stalls {
        Stalls { longest: AtomicU64::new(0), all: TimeHistogram::new() }
    }

    /// Records a stall that began at `begun` and ends now.
    pub fn record(&self, cause: Cause, begun: Instant) {
        let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.all.record_nanos(i64::try_from(nanos).unwrap_or(i64::MAX));
        let entry = nanos.min(u64::MAX >> 8) << 8 | cause as u64;
        // Reading first keeps the shared word in everybody's cache as long as there is no new record.
        if entry > self.longest.load(Ordering::Relaxed) {
            self.longest.fetch_max(entry, Ordering::Relaxed);
        }
    }

    /// How often mutators were held up, and for how long.
    pub fn counts(&self) -> TimeCounts {
        self.all.snapshot()
    }

    /// The longest stall and its cause.
    pub fn longest(&self) -> (Duration, Cause) {
        let entry = self.longest.load(Ordering::Relaxed);
        let cause = match entry & 0xff {
            1 => Cause::Allocation,
            2 => Cause::PhaseChange,
            3 => Cause::Container,
            4 => Cause::Flush,
            5 => Cause::Assist,
            6 => Cause::Burial,
            _ => Cause::None,
        };
        (Duration::from_nanos(entry >> 8), cause)
    }
}

impl Default for Stalls {
    fn default() -> Stalls {
        Stalls::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_read_as_it_was_written() {
        use Cause::{Allocation, Assist, Burial, Container, Flush, PhaseChange};
        for cause in [Allocation, PhaseChange, Container, Flush, Assist, Burial] {
            let stalls = Stalls::new();
            stalls.record(cause, Instant::now() - Duration::from_millis(1));
            assert_eq!(stalls.longest().1, cause);
        }
    }

    #[test]
    fn the_longest_stall_keeps_its_cause() {
        let stalls = Stalls::new();
        assert_eq!(stalls.longest(), (Duration::ZERO, Cause::None));
        let long_ago = Instant::now() - Duration::from_millis(50);
        stalls.record(Cause::Container, long_ago);
        stalls.record(Cause::Flush, Instant::now());
        let (length, cause) = stalls.longest();
        assert!(length >= Duration::from_millis(50));
        assert_eq!(cause, Cause::Container);
        let counts = stalls.counts();
        assert_eq!(counts.total(), 2);
        assert!(counts.quantile(1.0).expect("two were counted") > length);
    }
}
