//! Debt: how much mutators mark for what they allocate.
//!
//! While a cycle marks, every byte that is taken brings the heap nearer to its goal. If the collector's own
//! workers keep up, that is as planned and nobody notices. If not, whoever allocates has to help, in proportion,
//! so that marking ends when the goal is reached:
//!
//! ```text
//!   ratio = bytes that are still to be scanned / bytes that may still be taken
//!   a run of b bytes costs b * ratio;  what the workers scan goes to a pool
//!   a mutator pays from its own credit, then from the pool, then by scanning
//! ```
//!
//! An allocation that has to scan is *paused*: this layer knows nothing of marking, so the allocation returns
//! without a slot, the mutator helps for a moment and allocates again. Whether it found anything to do or not,
//! the next run is granted then; what is missing is carried over. So a pause is bounded whatever is
//! owed, and nobody waits for work that others have.
//!
//! # Ordering
//! All relaxed: these are amounts, and a cycle that has ended leaves a ratio of 0 behind.

use crate::addr::Bytes;
use crate::sync::atomic::{AtomicU64, Ordering};
use core::cell::Cell;

/// The least that is taken from the pool at once, so that it is not asked for every run.
const LEAST_DRAW: u64 = 16 << 10;

/// What the mutators of a heap owe to the cycle that marks.
pub struct Debt {
    /// Bytes to scan for each byte taken, as the bits of an `f64`; 0 while nobody has to help.
    ratio: AtomicU64,
    /// What workers have scanned and nobody has drawn.
    pool: AtomicU64,
    /// What all together have scanned since the marking began.
    done: AtomicU64,
}

impl Debt {
    /// Nobody owes anything.
    pub const fn new() -> Debt {
        Debt { ratio: AtomicU64::new(0), pool: AtomicU64::new(0), done: AtomicU64::new(0) }
    }

    /// Sets how many bytes are to be scanned for each byte taken, and what is in the pool.
    pub fn begin(&self, ratio: f64, pool: Bytes) {
        self.pool.store(pool.get() as u64, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        self.set_ratio(ratio);
    }

    /// Sets how many bytes are to be scanned for each byte taken from here on. What was due before stays due.
    pub fn set_ratio(&self, ratio: f64) {
        debug_assert!(ratio.is_finite() && ratio >= 0.0);
        self.ratio.store(ratio.to_bits(), Ordering::Relaxed);
    }

    /// Notes what somebody has scanned.
    pub fn note_done(&self, work: u64) {
        self.done.fetch_add(work, Ordering::Relaxed);
    }

    /// What all together have scanned since the marking began, as far as it is known.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Nobody owes anything any more.
    pub fn end(&self) {
        self.ratio.store(0, Ordering::Relaxed);
    }

    /// Bytes to scan for each byte taken.
    #[inline]
    pub fn ratio(&self) -> f64 {
        f64::from_bits(self.ratio.load(Ordering::Relaxed))
    }

    /// Puts what a worker has scanned into the pool.
    pub fn give(&self, work: u64) {
        if work > 0 && self.ratio() > 0.0 {
            self.pool.fetch_add(work, Ordering::Relaxed);
        }
    }

    /// Takes up to `wanted` out of the pool.
    fn draw(&self, wanted: u64) -> u64 {
        let share = |pool: u64| (pool > 0).then(|| pool - wanted.min(pool));
        match self.pool.fetch_update(Ordering::Relaxed, Ordering::Relaxed, share) {
            Ok(before) => wanted.min(before),
            Err(_) => 0,
        }
    }
}

impl Default for Debt {
    fn default() -> Debt {
        Debt::new()
    }
}

/// What one mutator has paid in advance, or owes. All zeros: nothing.
#[derive(Default)]
pub struct Purse {
    /// Bytes scanned beyond what was due; below zero: due.
    credit: Cell<i64>,
    /// Whether an allocation was paused and nobody has looked since.
    paused: Cell<bool>,
    /// Whether the next run is granted whatever is owed.
    granted: Cell<bool>,
}

impl Purse {
    /// Whether a run may be taken. If not, the allocation is paused.
    pub fn may_take(&self, debt: &Debt) -> bool {
        // A grant is for this run, whether it needs one or not.
        let granted = self.granted.take();
        if self.credit.get() >= 0 || granted || debt.ratio() == 0.0 {
            return true;
        }
        let due = self.credit.get().unsigned_abs();
        let drawn = debt.draw(due.max(LEAST_DRAW));
        let drawn = i64::try_from(drawn).unwrap_or(i64::MAX);
        self.credit.set(self.credit.get().saturating_add(drawn));
        let pauses = self.credit.get() < 0;
        self.paused.set(pauses);
        !pauses
    }

    /// Charges for a run of so many bytes.
    pub fn charge(&self, debt: &Debt, bytes: Bytes) {
        let ratio = debt.ratio();
        if ratio > 0.0 {
            // The conversion saturates, and what is due for one run is due only once.
            let due = (bytes.get() as f64 * ratio) as i64;
            self.credit.set(self.credit.get().saturating_sub(due));
        }
    }

    /// Whether an allocation was paused, and not for want of memory; asking is forgotten.
    pub fn take_pause(&self) -> bool {
        self.paused.take()
    }

    /// What is due.
    pub fn due(&self) -> Bytes {
        Bytes::new(usize::try_from(self.credit.get().saturating_neg().max(0)).unwrap_or(0))
    }

    /// Notes that the mutator has scanned so many bytes, and grants the next run.
    pub fn pay(&self, work: u64) {
        let work = i64::try_from(work).unwrap_or(i64::MAX);
        self.credit.set(self.credit.get().saturating_add(work));
        self.granted.set(true);
    }

    /// Forgets everything: another phase begins.
    pub fn clear(&self) {
        self.credit.set(0);
        self.paused.set(false);
        self.granted.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: usize = 1 << 10;

    #[test]
    fn without_a_ratio_nobody_pays() {
        let (debt, purse) = (Debt::new(), Purse::default());
        purse.charge(&debt, Bytes::new(1 << 40));
        assert!(purse.may_take(&debt) && purse.due() == Bytes::ZERO);
        debt.give(100);
        debt.begin(1.0, Bytes::ZERO);
        assert_eq!(debt.draw(1000), 0, "what is given while nobody owes anything is not kept");
    }

    #[test]
    fn a_run_is_paid_from_the_pool_before_anybody_has_to_help() {
        let (debt, purse) = (Debt::new(), Purse::default());
        debt.begin(2.0, Bytes::new(24 * KIB));
        assert!(purse.may_take(&debt));
        purse.charge(&debt, Bytes::new(8 * KIB));
        assert_eq!(purse.due(), Bytes::new(16 * KIB));
        assert!(purse.may_take(&debt) && !purse.take_pause());
        assert_eq!(purse.due(), Bytes::ZERO);
        purse.charge(&debt, Bytes::new(8 * KIB));
        assert!(!purse.may_take(&debt) && purse.take_pause() && !purse.take_pause());
        assert_eq!(purse.due(), Bytes::new(8 * KIB), "what was left in the pool is gone");
        // Whatever has been found to do, one run is granted, and the rest remains due.
        purse.pay(KIB as u64);
        assert!(purse.may_take(&debt) && !purse.may_take(&debt));
        assert_eq!(purse.due(), Bytes::new(7 * KIB));
        purse.clear();
        assert!(purse.may_take(&debt) && !purse.take_pause());
    }

    #[test]
    fn the_largest_amounts_do_not_wrap() {
        let (debt, purse) = (Debt::new(), Purse::default());
        debt.begin(1e9, Bytes::new(usize::MAX));
        purse.charge(&debt, Bytes::new(usize::MAX));
        purse.charge(&debt, Bytes::new(usize::MAX));
        assert!(purse.due().get() >= i64::MAX as usize);
        purse.pay(u64::MAX);
        assert!(purse.may_take(&debt));
    }

    proptest! {
        /// Whoever is paused and then pays what he can has scanned, together with what workers gave, as much as
        /// was due, but for the last run.
        #[test]
        fn what_is_taken_is_paid(
            ratio in 0.01f64..20.0,
            runs in proptest::collection::vec((1usize..64 * KIB, 0u64..200_000), 1..200),
        ) {
            let (debt, purse) = (Debt::new(), Purse::default());
            debt.begin(ratio, Bytes::ZERO);
            let (mut due, mut given, mut paid) = (0i64, 0i64, 0i64);
            for (bytes, work) in runs {
                debt.give(work);
                given += work as i64;
                if !purse.may_take(&debt) {
                    prop_assert!(purse.take_pause());
                    let owed = purse.due().get();
                    purse.pay(owed as u64);
                    paid += owed as i64;
                    prop_assert!(purse.may_take(&debt));
                }
                prop_assert!(given + paid >= due);
                purse.charge(&debt, Bytes::new(bytes));
                due += (bytes as f64 * ratio) as i64;
            }
        }
    }
}
