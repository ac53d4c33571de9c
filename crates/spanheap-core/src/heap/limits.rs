//! The two limits of a heap, and how often they were met.
//!
//! Both bound the *ready* bytes of everything that the heap has: objects, free pages that have not been
//! returned, side tables, records.
//!
//! - The **soft** limit is exceeded rather than that an allocation fails. The collector works harder as it
//!   comes near, and free pages go back to the system before the heap grows beyond it.
//! - The **hard** limit is not exceeded: pages for objects are refused. Records are refused nothing, and some
//!   room is kept for them: a thirty-second part of the limit and half a mebibyte.
//!
//! Either may be there or not, and either may change at any time: whoever compares reads it once.
//!
//! **The brake** is for a heap whose goal is what a limit leaves: live bytes at that goal. Who allocates beyond it
//! gives his processor away at each run ([`Limits::brakes`]), since what the heap needs now is that its collector's
//! thread gets one: to begin a cycle, to see that everybody has left, to finish the sweep. On a busy machine
//! it waits for that as long as for everybody else's turn, and the mutator would use the time to allocate.
//! Whoever yields holds nobody up, nor is he held up where there is a processor for each.
//!
//! **Near a hard limit** a mutator gets no pages of its own any more ([`Limits::is_near`]): nobody else can
//! have those, so they would be what somebody is refused for. What it has is given back at the next change of
//! phase, and before it is refused anything itself.

use crate::addr::Bytes;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What is kept below a hard limit for records, besides a part of the limit: two blocks of persistent memory.
pub const RECORDS_BYTES: usize = 512 << 10;

/// Below a hard limit this part of it is near.
const NEAR_SHARE: usize = 16;

/// No limit.
const NONE: usize = usize::MAX;

/// The limits of a heap.
pub struct Limits {
    soft: AtomicUsize,
    hard: AtomicUsize,
    /// Whether the last growth ended above the soft limit, and no cycle has brought the heap below since.
    is_over: AtomicBool,
    times_over: AtomicU64,
    refusals: AtomicU64,
    /// Live bytes from which on those who allocate yield.
    brake: AtomicUsize,
}

/// How often limits were met.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Met {
    /// How often the heap grew beyond its soft limit, having been below.
    pub times_over: u64,
    /// Allocations that were refused: by the hard limit, or by the system.
    pub refusals: u64,
}

impl Limits {
    /// These limits.
    pub fn new(soft: Option<Bytes>, hard: Option<Bytes>) -> Limits {
        Limits {
            soft: AtomicUsize::new(to_word(soft)),
            hard: AtomicUsize::new(to_word(hard)),
            is_over: AtomicBool::new(false),
            times_over: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            brake: AtomicUsize::new(NONE),
        }
    }

    /// The soft limit.
    pub fn soft(&self) -> Option<Bytes> {
        from_word(self.soft.load(Relaxed))
    }

    /// The hard limit.
    pub fn hard(&self) -> Option<Bytes> {
        from_word(self.hard.load(Relaxed))
    }

    /// Changes the soft limit.
    pub fn set_soft(&self, limit: Option<Bytes>) {
        self.soft.store(to_word(limit), Relaxed);
    }

    /// Changes the hard limit.
    pub fn set_hard(&self, limit: Option<Bytes>) {
        self.hard.store(to_word(limit), Relaxed);
    }

    /// The ready bytes up to which pages are handed out.
    pub fn allowed(&self) -> Bytes {
        match self.hard() {
            Some(hard) => hard.saturating_sub(Bytes::new(hard.get() / 32 + RECORDS_BYTES)),
            None => Bytes::new(NONE),
        }
    }

    /// What the collector and the scavenger keep the heap below, if they can: the soft limit, or what pages may
    /// take below the hard one.
    pub fn target(&self) -> Option<Bytes> {
        from_word(self.soft.load(Relaxed).min(self.allowed().get()))
    }

    /// The lower one of the two, as they were set.
    pub fn lowest(&self) -> Option<Bytes> {
        from_word(self.soft.load(Relaxed).min(self.hard.load(Relaxed)))
    }

    /// Whether a heap of `ready` bytes is so near its hard limit that nobody should have free pages for
    /// himself.
    pub fn is_near(&self, ready: Bytes) -> bool {
        let near = |hard: Bytes| Bytes::new(hard.get() / NEAR_SHARE);
        self.hard().is_some_and(|hard| ready + near(hard) > self.allowed())
    }

    /// How far a heap of `ready` bytes is above the soft limit, after it has grown.
    pub fn grown_beyond(&self, ready: Bytes) -> Bytes {
        self.soft().map_or(Bytes::ZERO, |soft| ready.saturating_sub(soft))
    }

    /// Sets the live bytes from which on those who allocate yield; `None`: nobody does.
    pub fn set_brake(&self, brake: Option<Bytes>) {
        self.brake.store(to_word(brake), Relaxed);
    }

    /// Whether somebody who has allocated, so that the heap has `live` bytes, is to yield.
    #[inline]
    pub fn brakes(&self, live: Bytes) -> bool {
        live.get() >= self.brake.load(Relaxed)
    }

    /// Counts that the heap has stayed above its soft limit, once until [`Limits::note_below`].
    pub fn note_over(&self) {
        if !self.is_over.load(Relaxed) && !self.is_over.swap(true, Relaxed) {
            self.times_over.fetch_add(1, Relaxed);
        }
    }

    /// Takes notice that a heap of `ready` bytes may be below its soft limit again.
    pub fn note_below(&self, ready: Bytes) {
        if self.grown_beyond(ready) == Bytes::ZERO {
            self.is_over.store(false, Relaxed);
        }
    }

    /// Counts an allocation that was refused.
    pub fn note_refusal(&self) {
        self.refusals.fetch_add(1, Relaxed);
    }

    /// How often limits were met.
    pub fn met(&self) -> Met {
        Met { times_over: self.times_over.load(Relaxed), refusals: self.refusals.load(Relaxed) }
    }
}

fn to_word(limit: Option<Bytes>) -> usize {
    limit.map_or(NONE, Bytes::get)
}

fn from_word(word: usize) -> Option<Bytes> {
    (word != NONE).then(|| Bytes::new(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn limits(soft: Option<usize>, hard: Option<usize>) -> Limits {
        Limits::new(soft.map(Bytes::new), hard.map(Bytes::new))
    }

    #[test]
    fn room_is_kept_below_a_hard_limit_only() {
        assert_eq!(limits(Some(64 * MIB), None).allowed(), Bytes::new(usize::MAX));
        let allowed = 64 * MIB - 2 * MIB - RECORDS_BYTES;
        assert_eq!(limits(None, Some(64 * MIB)).allowed(), Bytes::new(allowed));
        assert_eq!(limits(None, Some(0)).allowed(), Bytes::ZERO);
    }

    #[test]
    fn the_target_is_the_lower_of_both() {
        assert_eq!(limits(None, None).target(), None);
        assert_eq!(limits(Some(10 * MIB), Some(64 * MIB)).target(), Some(Bytes::new(10 * MIB)));
        let both = limits(Some(64 * MIB), Some(64 * MIB));
        assert_eq!(both.target(), Some(both.allowed()));
    }

    #[test]
    fn a_heap_is_near_in_the_last_sixteenth() {
        let hard = limits(None, Some(64 * MIB));
        let edge = hard.allowed() - Bytes::new(4 * MIB);
        assert!(!hard.is_near(edge));
        assert!(hard.is_near(edge + Bytes::new(1)));
        assert!(!limits(Some(MIB), None).is_near(Bytes::new(2 * MIB)));
    }

    #[test]
    fn without_a_brake_nobody_yields() {
        let limits = limits(Some(10 * MIB), None);
        assert!(!limits.brakes(Bytes::new(usize::MAX - 1)));
        limits.set_brake(Some(Bytes::new(8 * MIB)));
        assert!(limits.brakes(Bytes::new(8 * MIB)) && !limits.brakes(Bytes::new(8 * MIB - 1)));
        limits.set_brake(None);
        assert!(!limits.brakes(Bytes::new(20 * MIB)));
    }

    #[test]
    fn each_time_above_counts_once() {
        let limits = limits(Some(10 * MIB), None);
        limits.note_over();
        limits.note_over();
        assert_eq!(limits.met().times_over, 1);
        limits.note_below(Bytes::new(11 * MIB));
        limits.note_over();
        assert_eq!(limits.met().times_over, 1, "it was above all the time");
        limits.note_below(Bytes::new(10 * MIB));
        limits.note_over();
        assert_eq!(limits.met().times_over, 2);
        assert_eq!(limits.grown_beyond(Bytes::new(12 * MIB)), Bytes::new(2 * MIB));
    }
}
