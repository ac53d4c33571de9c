//! Locks with ranks, what else threads share without knowing of the heap, and the one place that names the
//! atomic types.
//!
//! | file | what |
//! |---|---|
//! | `mod`, `rank` | [`Lock`], its [`Guard`], and the order of all locks |
//! | `futex` | [`RawLock`]: a lock of one word |
//! | `rwlock` | [`RawRwLock`]: a lock of one word for many readers or one writer |
//! | `alarm` | [`Alarm`]: one thread sleeps, anybody may wake it |
//! | `profile` | with the feature `lock-profile`: how often each lock is taken, for how long, and who waits |
//! | `histogram` | [`TimeHistogram`]: durations, counted by any thread without a lock |
//!
//! **Ranks.** Every [`Lock`] of the crate has a [`Rank`]; a thread may take a lock only when every lock
//! that it already holds has a *lower* rank. The order is the table in [`Rank`] and nothing else. Debug
//! builds keep the ranks that a thread holds in a thread-local and panic at the first violation, naming
//! both locks; release builds pay nothing.
//!
//! **There is no poisoning**: no user code runs while a lock of this crate is held (destructors and
//! `trace` functions run outside), so a panic under a lock is a bug that has been reported already.
//!
//! **Atomics** are taken from [`atomic`] by the rest of the crate, so that a model checker can replace
//! them in one place.
//!
//! # Safety
//! The data of a [`Lock`] is reached through its [`Guard`] only, and a guard exists only while the
//! [`RawLock`] is held.
#![allow(unsafe_code)]

mod alarm;
mod futex;
mod histogram;
#[cfg(feature = "lock-profile")]
pub mod profile;
#[cfg(not(feature = "lock-profile"))]
#[path = "no_profile.rs"]
mod profile;
mod rank;
mod rwlock;

pub use alarm::Alarm;
pub use futex::RawLock;
pub use histogram::{TIME_COUNTERS, TIME_EDGES, TimeBucket, TimeCounts, TimeHistogram, time_edges};
pub use rank::Rank;
pub use rwlock::RawRwLock;

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use std::time::Duration;

/// The atomic types of the crate.
pub mod atomic {
    pub use core::sync::atomic::{
        AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering,
        compiler_fence, fence,
    };
}

/// A mutual-exclusion lock with a rank.
pub struct Lock<T> {
    rank: Rank,
    raw: RawLock,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands the value to one thread at a time.
unsafe impl<T: Send> Send for Lock<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Lock<T> {}

/// Proof that a [`Lock`] is held; releases it when dropped.
pub struct Guard<'a, T> {
    lock: &'a Lock<T>,
    _held: rank::Held,
    /// After the ranks: the time that these checks take is not the lock's.
    holding: profile::Holding,
    /// A guard stays on its thread: the ranks that a thread holds are the thread's own.
    _not_send: PhantomData<*const ()>,
}

impl<T> Lock<T> {
    /// A free lock around `value`.
    pub const fn new(rank: Rank, value: T) -> Lock<T> {
        Lock { rank, raw: RawLock::new(), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    ///
    /// # Panics
    /// In debug builds, when the thread holds a lock of an equal or higher rank.
    #[track_caller]
    pub fn lock(&self) -> Guard<'_, T> {
        let held = rank::Held::acquire(self.rank);
        let holding = profile::Holding::begin(self.rank, || self.raw.lock());
        Guard { lock: self, _held: held, holding, _not_send: PhantomData }
    }

    /// Takes the lock if it is free.
    ///
    /// # Panics
    /// As [`Lock::lock`].
    #[track_caller]
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let held = rank::Held::acquire(self.rank);
        let holding = profile::Holding::attempt(self.rank, || self.raw.try_lock())?;
        Some(Guard { lock: self, _held: held, holding, _not_send: PhantomData })
    }

    /// Takes the lock if it is free, or becomes free in a moment: see [`RawLock::lock_soon`].
    ///
    /// # Panics
    /// As [`Lock::lock`].
    #[track_caller]
    pub fn lock_soon(&self) -> Option<Guard<'_, T>> {
        let held = rank::Held::acquire(self.rank);
        let holding = profile::Holding::attempt(self.rank, || self.raw.lock_soon())?;
        Some(Guard { lock: self, _held: held, holding, _not_send: PhantomData })
    }

    /// The value, without locking: `&mut` proves that nobody else looks.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Guard<'_, T> {
    /// Whether somebody may sleep until the lock is free.
    pub fn is_awaited(&self) -> bool {
        self.lock.raw.is_awaited()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the guard proves that the lock is held by this thread.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: N1: the guard was made when the lock was taken, and is dropped once. N2: references
        // to the value borrow the guard.
        unsafe { self.lock.raw.unlock() };
    }
}

/// What threads wait for while they give up a [`Lock`].
#[derive(Default)]
pub struct Condition {
    raw: futex::RawCondition,
}

impl Condition {
    /// A condition that nobody waits for.
    pub const fn new() -> Condition {
        Condition { raw: futex::RawCondition::new() }
    }

    /// Gives up the lock, waits for [`Condition::notify_all`] or until `limit` has passed, and takes
    /// the lock again. May return for no reason; the caller checks what it waits for.
    pub fn wait<'a, T>(&self, mut guard: Guard<'a, T>, limit: Option<Duration>) -> Guard<'a, T> {
        let lock = guard.lock;
        // SAFETY: the guard proves that the lock is held, and as it was moved here nobody has borrowed
        // the value from it.
        guard.holding.interrupt(|| unsafe { self.raw.wait(&lock.raw, limit) });
        guard
    }

    /// Wakes everybody who waits.
    pub fn notify_all(&self) {
        self.raw.notify_all();
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

    #[test]
    fn the_holder_of_a_lock_sees_that_somebody_sleeps() {
        let lock = Lock::new(Rank::PageHeap, 0);
        let held = lock.lock();
        assert!(!held.is_awaited());
        std::thread::scope(|scope| {
            scope.spawn(|| *lock.lock() = 1);
            while !held.is_awaited() {
                std::thread::yield_now();
            }
            drop(held);
        });
        assert_eq!(*lock.lock(), 1);
    }

    #[test]
    fn whoever_waits_for_a_condition_is_woken_with_the_lock_held() {
        let (lock, condition) = (Lock::new(Rank::Control, 0), Condition::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut value = lock.lock();
                while *value != 7 {
                    value = condition.wait(value, None);
                }
                *value = 8;
                condition.notify_all();
            });
            *lock.lock() = 7;
            condition.notify_all();
            let mut value = lock.lock();
            while *value != 8 {
                value = condition.wait(value, Some(Duration::from_millis(1)));
            }
        });
    }
}
