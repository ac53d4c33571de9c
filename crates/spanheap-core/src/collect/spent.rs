//! What threads of the program spend on collecting: in assists, and when they offer their time.
//!
//! The collector's own threads are measured by the cycle ([`super::collector::Last::cpu`]). Here is the rest,
//! so that the account is complete: for whoever reads the statistics, for the pacer, which compares the speeds of
//! both sides, and for [`super::ration`].
//!
//! # Ordering
//! Relaxed: three sums that only grow.

use crate::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the program's threads have spent, in nanoseconds, and done.
#[derive(Default)]
pub(super) struct Spent {
    /// Bytes of objects that assists have scanned.
    scanned: AtomicU64,
    assists: AtomicU64,
    offered: AtomicU64,
}

/// Nanoseconds of `time`; what no word holds is five centuries.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Spent {
    /// Somebody has marked for so long in the middle of an allocation, and scanned so many bytes of objects.
    pub fn add_assist(&self, scanned: u64, time: Duration) {
        self.scanned.fetch_add(scanned, Ordering::Relaxed);
        self.assists.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    /// Somebody has worked for so long because he had nothing better to do.
    pub fn add_offered(&self, time: Duration) {
        self.offered.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    /// Bytes of objects that assists have scanned.
    pub fn scanned(&self) -> u64 {
        self.scanned.load(Ordering::Relaxed)
    }

    /// Processor time of all assists.
    pub fn assists(&self) -> Duration {
        Duration::from_nanos(self.assists.load(Ordering::Relaxed))
    }

    /// Processor time that was offered and used.
    pub fn offered(&self) -> Duration {
        Duration::from_nanos(self.offered.load(Ordering::Relaxed))
    }
}
