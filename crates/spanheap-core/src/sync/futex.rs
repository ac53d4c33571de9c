//! A lock of one word, and a condition to go with it, on the kernel's futex.
//!
//! Why not the standard library's: a lock here is a `u32` that is valid when zeroed, so it can lie in
//! off-heap records and in heap objects; and it is compiled with the crate, so that a sanitizer build sees
//! its ordering.
//!
//! This file is the seam for other systems: a port provides [`wait`] and [`wake`].
//!
//! ```text
//!   0 free    1 held    2 held, and somebody may be asleep
//!   lock:   0 -> 1, or else: swap in 2; if it was not 0, sleep while it is 2; repeat
//!   unlock: swap in 0; if it was 2, wake one sleeper
//! ```
//!
//! The lock is not fair: a sleeper has to run before he gets it, and whoever takes it again at once is faster. So those
//! who take a lock many times in a row ask whether it [is awaited](RawLock::is_awaited), and then give way.
//!
//! # Safety
//! One system call on the address of an atomic that outlives the call. The lock protects what its users
//! say, so giving it up is a matter of safety (N1, N2).
#![allow(unsafe_code)]

use super::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[cfg(not(target_os = "linux"))]
compile_error!("spanheap runs on Linux only so far: a port adds a futex here and a file in `os`");

/// How often a waiter looks again before it goes to sleep.
const SPINS: u32 = 64;

/// A mutual-exclusion lock without data. All bits zero is a free lock.
#[derive(Default)]
pub struct RawLock {
    state: AtomicU32,
}

impl RawLock {
    /// A free lock.
    pub const fn new() -> RawLock {
        RawLock { state: AtomicU32::new(0) }
    }

    /// Waits for the lock. True if it had to wait.
    #[inline]
    pub fn lock(&self) -> bool {
        if self.try_lock() {
            return false;
        }
        self.lock_slow();
        true
    }

    /// Takes the lock if it is free.
    #[inline]
    pub fn try_lock(&self) -> bool {
        self.state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock if it is free, or becomes free in a moment. Who has an alternative need not sleep: a holder who
    /// takes longer has probably lost his processor, and gets it back when the system thinks fit.
    #[inline]
    pub fn lock_soon(&self) -> bool {
        self.try_lock() || self.spin()
    }

    #[cold]
    fn spin(&self) -> bool {
        for _ in 0..SPINS {
            if self.state.load(Ordering::Relaxed) == 0 && self.try_lock() {
                return true;
            }
            core::hint::spin_loop();
        }
        false
    }

    #[cold]
    fn lock_slow(&self) {
        if self.spin() {
            return;
        }
        while self.state.swap(2, Ordering::Acquire) != 0 {
            wait(&self.state, 2, None);
        }
    }

    /// Whether somebody may sleep until the lock is free. For its holder.
    pub fn is_awaited(&self) -> bool {
        self.state.load(Ordering::Relaxed) == 2
    }

    /// Gives the lock up.
    ///
    /// # Safety
    /// - N1. The caller has taken the lock, by [`RawLock::lock`] or a successful
    ///   [`RawLock::try_lock`], and this is the one time that he gives it up for it.
    /// - N2. Nobody uses what the lock protects by virtue of that holding any more.
    #[inline]
    pub unsafe fn unlock(&self) {
        if self.state.swap(0, Ordering::Release) == 2 {
            wake(&self.state, 1);
        }
    }
}

/// Sleepers that wait for a change of what a [`RawLock`] protects.
#[derive(Default)]
pub(super) struct RawCondition {
    sequence: AtomicU32,
}

impl RawCondition {
    pub(super) const fn new() -> RawCondition {
        RawCondition { sequence: AtomicU32::new(0) }
    }

    /// Gives up `lock`, sleeps until woken or until `limit` has passed, and takes `lock` again.
    ///
    /// # Safety
    /// The caller holds the lock, and uses nothing that it protects during the call.
    pub(super) unsafe fn wait(&self, lock: &RawLock, limit: Option<Duration>) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        // SAFETY: N1, N2: the caller's promise; it is taken again below.
        unsafe { lock.unlock() };
        wait(&self.sequence, sequence, limit);
        lock.lock();
    }

    /// Wakes everybody who sleeps.
    pub(super) fn notify_all(&self) {
        self.sequence.fetch_add(1, Ordering::Release);
        wake(&self.sequence, i32::MAX);
    }
}

/// Sleeps while `word` is `expected`, but no longer than `limit`. May return early.
pub(super) fn wait(word: &AtomicU32, expected: u32, limit: Option<Duration>) {
    let limit = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().min(i64::MAX as u64 / 4) as libc::time_t,
        tv_nsec: libc::c_long::from(limit.subsec_nanos()),
    });
    let limit = limit.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the time outlive the call, which writes neither. Every error (interrupted,
    // changed before the sleep, time over) is a reason to return, and the caller looks again.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, limit) };
}

/// Wakes up to `count` threads that sleep on `word`.
pub(super) fn wake(word: &AtomicU32, count: i32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel uses the address as a name and does not touch the word.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, count) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::UnsafeCell;

    #[test]
    fn a_counter_under_the_lock_loses_nothing() {
        struct Shared(RawLock, UnsafeCell<u64>);
        // SAFETY: the cell is only touched under the lock.
        unsafe impl Sync for Shared {}
        let shared = Shared(RawLock::new(), UnsafeCell::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let shared = &shared;
                    for _ in 0..50_000 {
                        shared.0.lock();
                        // SAFETY: the lock is held.
                        unsafe { *shared.1.get() += 1 };
                        // SAFETY: taken above, and the cell is not used any more.
                        unsafe { shared.0.unlock() };
                    }
                });
            }
        });
        shared.0.lock();
        // SAFETY: the lock is held.
        assert_eq!(unsafe { *shared.1.get() }, 200_000);
    }
}
