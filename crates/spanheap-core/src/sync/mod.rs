//! Locks with ranks, and the one place that names the atomic types.
//!
//! **Ranks.** Every [`Lock`] of the crate has a [`Rank`]; a thread may take a lock only when every lock
//! that it already holds has a *lower* rank. The order is the table in [`Rank`] and nothing else. Debug
//! builds keep the ranks that a thread holds in a thread-local and panic at the first violation, naming
//! both locks; release builds pay nothing.
//!
//! **Poisoning** is ignored: no user code runs while a lock of this crate is held (destructors and
//! `trace` functions run outside), so a panic under a lock is a bug that has been reported already.
//!
//! **Atomics** are taken from [`atomic`] by the rest of the crate, so that a model checker can replace
//! them in one place.

mod rank;

pub use rank::Rank;

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The atomic types of the crate.
pub mod atomic {
    pub use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        compiler_fence, fence,
    };
}

/// A mutual-exclusion lock with a rank.
pub struct Lock<T> {
    rank: Rank,
    inner: Mutex<T>,
}

/// Proof that a [`Lock`] is held; releases it when dropped.
pub struct Guard<'a, T> {
    inner: MutexGuard<'a, T>,
    _held: rank::Held,
}

impl<T> Lock<T> {
    /// A free lock around `value`.
    pub const fn new(rank: Rank, value: T) -> Lock<T> {
        Lock { rank, inner: Mutex::new(value) }
    }

    /// Waits for the lock.
    ///
    /// # Panics
    /// In debug builds, when the thread holds a lock of an equal or higher rank.
    #[track_caller]
    pub fn lock(&self) -> Guard<'_, T> {
        let held = rank::Held::acquire(self.rank);
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Guard { inner, _held: held }
    }

    /// Takes the lock if it is free.
    #[track_caller]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let inner = match self.inner.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(error)) => error.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Guard { inner, _held: rank::Held::acquire(self.rank) })
    }

    /// The value, without locking: `&mut` proves that nobody else looks.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_taken_upwards() {
        let (low, high) = (Lock::new(Rank::Mutators, 1), Lock::new(Rank::PageHeap, 2));
        let first = low.lock();
        let second = high.lock();
        assert_eq!(*first + *second, 3);
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock order")]
    fn a_lock_taken_downwards_is_a_panic_in_debug_builds() {
        let (low, high) = (Lock::new(Rank::Mutators, ()), Lock::new(Rank::PageHeap, ()));
        let _second = high.lock();
        let _first = low.lock();
    }

    #[test]
    fn a_held_lock_cannot_be_tried() {
        let lock = Lock::new(Rank::PageHeap, ());
        let held = lock.lock();
        assert!(std::thread::scope(|s| s.spawn(|| lock.try_lock().is_none()).join()).unwrap());
        drop(held);
        assert!(lock.try_lock().is_some());
    }
}
