//! A lock of one word that many readers or one writer hold, on the kernel's futex; for locks that lie in
//! objects, like [`RawLock`](super::RawLock).
//!
//! ```text
//!   bits 0..=29   how many readers there are, or all ones: a writer
//!   bit 30        a writer waits: new readers stand back
//!   bit 31        somebody may be asleep
//!   read:    count + 1, unless there is a writer or one waits
//!   write:   count 0 -> all ones
//!   sleep:   set bit 31 (a writer: bit 30, too), sleep while the word stays as it is; try again
//!   unlock:  whoever leaves the count at 0 and finds bit 31 clears the word and wakes everybody
//! ```
//!
//! A waiting writer stops new readers, or a crowd of readers could keep it out for ever. So a thread that
//! reads must not ask to read again: a writer may have come in between, and each would wait for the other.
//! [`RawRwLock::try_read_past`] reads past a waiting writer: it is for the collector, which reads for a
//! moment and is not one of the crowd.
//!
//! Everybody is woken at once and those who fail sleep again. Locks in objects are many and seldom fought
//! for; a queue in each would cost more than it saves.
//!
//! # Safety
//! As for [`RawLock`](super::RawLock): the lock protects what its users say, so giving it up is a matter of
//! safety (N1, N2 there).
#![allow(unsafe_code)]

use super::atomic::{AtomicU32, Ordering};
use super::futex::{wait, wake};

/// The bits of the word that count readers, and the count that stands for a writer.
const WRITER: u32 = (1 << 30) - 1;
/// A writer waits.
const WRITER_WAITS: u32 = 1 << 30;
/// Somebody may be asleep.
const SLEEPERS: u32 = 1 << 31;

/// How often a waiter looks again before it goes to sleep.
const SPINS: u32 = 64;

/// A lock without data for many readers or one writer. All bits zero is a free lock.
#[derive(Default)]
pub struct RawRwLock {
    state: AtomicU32,
}

impl RawRwLock {
    /// A free lock.
    pub const fn new() -> RawRwLock {
        RawRwLock { state: AtomicU32::new(0) }
    }

    /// Becomes a reader if there is no writer and none waits.
    #[inline]
    pub fn try_read(&self) -> bool {
        self.join_readers(WRITER_WAITS)
    }

    /// Becomes a reader if there is no writer, whether one waits or not.
    #[inline]
    pub fn try_read_past(&self) -> bool {
        self.join_readers(0)
    }

    /// Adds a reader unless there is a writer, or as many readers as fit, or a bit of `obstacles` is set.
    #[inline]
    fn join_readers(&self, obstacles: u32) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            // With one more reader than this the count would stand for a writer.
            if state & WRITER >= WRITER - 1 || state & obstacles != 0 {
                return false;
            }
            // Acquire: the reader sees what the last writer has done.
            match self.state.compare_exchange_weak(
                state,
                state + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
    }

    /// Becomes the writer if nobody holds the lock.
    #[inline]
    pub fn try_write(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        // Who sleeps is told when the lock is given up. Another writer that waits says so again by itself.
        state & WRITER == 0
            && self
                .state
                .compare_exchange(
                    state,
                    state & SLEEPERS | WRITER,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// Waits to become a reader.
    #[cold]
    pub fn read(&self) {
        self.wait_until(SLEEPERS, WRITER_WAITS, || self.try_read());
    }

    /// Waits to become the writer.
    #[cold]
    pub fn write(&self) {
        self.wait_until(SLEEPERS | WRITER_WAITS, 0, || self.try_write());
    }

    /// Tries until it succeeds; sleeps, with the bits of `signs` set, while somebody is in the way.
    /// `obstacles` are the bits that are in the way of the caller, besides the count.
    fn wait_until(&self, signs: u32, obstacles: u32, attempt: impl Fn() -> bool) {
        for _ in 0..SPINS {
            if attempt() {
                return;
            }
            core::hint::spin_loop();
        }
        while !attempt() {
            let state = self.state.load(Ordering::Relaxed);
            let is_reader = signs & WRITER_WAITS == 0;
            let free = match is_reader {
                true => state & WRITER < WRITER - 1 && state & obstacles == 0,
                false => state & WRITER == 0,
            };
            if free {
                continue;
            }
            let asleep = state | signs;
            let told = state == asleep
                || self
                    .state
                    .compare_exchange(state, asleep, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok();
            if told {
                wait(&self.state, asleep, None);
            }
        }
    }

    /// Gives up what [`RawRwLock::read`] or one of its two `try_` forms has taken.
    ///
    /// # Safety
    /// N1 and N2 of [`RawLock::unlock`](super::RawLock::unlock).
    #[inline]
    pub unsafe fn unlock_read(&self) {
        // Release: what the reader has read, it has read before a writer changes it.
        let before = self.state.fetch_sub(1, Ordering::Release);
        if before & WRITER == 1 && before & (SLEEPERS | WRITER_WAITS) != 0 {
            self.wake_after_last_reader(before - 1);
        }
    }

    /// The last reader has left the word at `state`. If somebody has come in since, it is his turn to wake.
    #[cold]
    fn wake_after_last_reader(&self, state: u32) {
        let cleared =
            self.state.compare_exchange(state, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if cleared || self.state.load(Ordering::Relaxed) & WRITER == 0 {
            // The word may have got another sign since, and nobody else; sleepers look again.
            wake(&self.state, i32::MAX);
        }
    }

    /// Gives up what [`RawRwLock::write`] or [`RawRwLock::try_write`] has taken.
    ///
    /// # Safety
    /// N1 and N2 of [`RawLock::unlock`](super::RawLock::unlock).
    #[inline]
    pub unsafe fn unlock_write(&self) {
        // Release: who comes next sees what the writer has done.
        if self.state.swap(0, Ordering::Release) & SLEEPERS != 0 {
            wake(&self.state, i32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::UnsafeCell;

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let lock = RawRwLock::new();
        assert!(lock.try_read() && lock.try_read() && !lock.try_write());
        // SAFETY: taken twice above.
        unsafe { lock.unlock_read() };
        assert!(!lock.try_write());
        // SAFETY: as above.
        unsafe { lock.unlock_read() };
        assert!(lock.try_write() && !lock.try_read() && !lock.try_read_past() && !lock.try_write());
        // SAFETY: taken in the line before.
        unsafe { lock.unlock_write() };
        assert!(lock.try_read());
    }

    #[test]
    fn a_waiting_writer_stops_readers_but_not_the_collector() {
        let lock = RawRwLock::new();
        assert!(lock.try_read());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                lock.write();
                // SAFETY: taken in the line before.
                unsafe { lock.unlock_write() };
            });
            while lock.state.load(Ordering::Relaxed) & WRITER_WAITS == 0 {
                std::thread::yield_now();
            }
            assert!(!lock.try_read());
            assert!(lock.try_read_past());
            // SAFETY: taken in the line before.
            unsafe { lock.unlock_read() };
            // SAFETY: taken before the threads.
            unsafe { lock.unlock_read() };
        });
        assert_eq!(lock.state.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn readers_never_see_half_a_change_and_nobody_sleeps_for_ever() {
        struct Shared(RawRwLock, UnsafeCell<[u64; 2]>);
        // SAFETY: the cell is only touched under the lock.
        unsafe impl Sync for Shared {}
        let shared = Shared(RawRwLock::new(), UnsafeCell::new([0, 0]));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let shared = &shared;
                    for _ in 0..20_000 {
                        shared.0.write();
                        // SAFETY: this thread is the writer.
                        let pair = unsafe { &mut *shared.1.get() };
                        pair[0] += 1;
                        pair[1] += 1;
                        // SAFETY: taken above, and the pair is not used any more.
                        unsafe { shared.0.unlock_write() };
                    }
                });
                scope.spawn(|| {
                    let shared = &shared;
                    for _ in 0..20_000 {
                        shared.0.read();
                        // SAFETY: this thread is a reader.
                        let [a, b] = unsafe { *shared.1.get() };
                        assert_eq!(a, b);
                        // SAFETY: taken above, and the pair is not used any more.
                        unsafe { shared.0.unlock_read() };
                    }
                });
            }
        });
        // Under the lock, too: a thread sanitizer need not know how a scope waits for its threads.
        shared.0.read();
        // SAFETY: this thread is a reader.
        assert_eq!(unsafe { *shared.1.get() }, [40_000, 40_000]);
        // SAFETY: taken above, and the pair is not used any more.
        unsafe { shared.0.unlock_read() };
        assert_eq!(shared.0.state.load(Ordering::Relaxed), 0);
    }
}
