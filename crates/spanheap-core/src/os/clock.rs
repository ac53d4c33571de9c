//! The CPU time of a thread and of the process, for the collector's account of itself, and a clock that only
//! goes forward.
//!
//! # Safety
//! System calls that write to a local.
#![allow(unsafe_code)]

use std::time::Duration;

/// CPU time that the calling thread has used so far; zero if the system does not say.
pub fn thread_cpu_time() -> Duration {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time that a thread of this process has used so far, by the system's number of it; `None` if there is no such
/// thread any more, or the system does not say.
pub fn cpu_time_of(thread: i32) -> Option<Duration> {
    // The number of a thread's clock as the C library makes it: the complement of the thread's number, and that it is
    // the clock of one thread (4) which the scheduler keeps (2).
    const OF_A_THREAD: libc::clockid_t = 4 | 2;
    // No system has so many threads that a number would not fit.
    let is_one = (1..=i32::MAX >> 3).contains(&thread);
    let clock = is_one.then_some((!thread << 3) | OF_A_THREAD)?;
    Some(read(clock)).filter(|time| *time > Duration::ZERO)
}

/// CPU time that all threads of the process have used so far; zero if the system does not say.
pub fn process_cpu_time() -> Duration {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to the timespec, which is ours.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    if failed {
        return Duration::ZERO;
    }
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Nanoseconds since some moment before the process began, by a clock that nobody sets. Unlike an `Instant`
/// it fits into an atomic. Zero if the system does not say.
pub fn monotonic_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes to the timespec, which is ours.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) } != 0;
    if failed {
        return 0;
    }
    time.tv_sec.unsigned_abs() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::thread::current_id;

    #[test]
    fn the_clock_of_a_thread_runs_while_it_works() {
        let before = thread_cpu_time();
        let mut sum = 0u64;
        while thread_cpu_time() - before < Duration::from_millis(2) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }

    #[test]
    fn one_thread_can_ask_for_the_time_of_another() {
        let me = current_id();
        let before = thread_cpu_time();
        let (seen, other) = std::thread::scope(|scope| {
            scope.spawn(|| (cpu_time_of(me), current_id())).join().expect("no panic")
        });
        let seen = seen.expect("this thread lives");
        assert!(before <= seen && seen <= thread_cpu_time(), "{before:?}, {seen:?}");
        assert_ne!(me, other);
        for nobody in [0, -1, i32::MAX >> 3, i32::MAX] {
            assert_eq!(cpu_time_of(nobody), None);
        }
    }

    #[test]
    fn the_clock_of_the_process_counts_all_threads() {
        let before = process_cpu_time();
        let work = || {
            let begun = thread_cpu_time();
            while thread_cpu_time() - begun < Duration::from_millis(2) {}
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            scope.spawn(work);
        });
        assert!(process_cpu_time() - before >= Duration::from_millis(4));
    }

    #[test]
    fn time_goes_forward() {
        let before = monotonic_nanos();
        std::thread::sleep(Duration::from_millis(1));
        assert!(monotonic_nanos() >= before + 1_000_000);
    }
}
